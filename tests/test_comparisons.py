"""Documents of comparison 1 and offer 1: one way to write each, and everything else is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import comparisons
from gateway.columns.digest import Sum
from gateway.columns.rows import integers
from gateway.comparisons import MAX_ASKED, ROWS, SKETCH, SUMS, HeldLabel, Question, SumsAnswer, dump_offer, parse_offer
from gateway.crypto import canonical
from gateway.errors import GatewayError, MalformedError, TooLargeError
from gateway.interchange import Cursor
from gateway.model import ENTRY_GROUPS, FieldGroup

VECTORS = Path(__file__).parent / "vectors" / "comparison"
INDEX: list[dict[str, str]] = json.loads((VECTORS / "index.json").read_text(encoding="utf-8"))["vectors"]
CURSOR = Cursor(2, "ab" * 32, 20_062)
SALT = "00112233445566778899aabbccddeeff"
PARSERS: dict[str, Callable[[bytes], Any]] = {
    "question": Question.parse,
    "sums": SumsAnswer.parse,
    "offer": parse_offer,
}
U64 = st.integers(0, (1 << 64) - 1)
IDS = st.lists(U64, unique=True, max_size=40).map(sorted).map(integers)
LABELS = st.lists(st.integers(1, 4096), unique=True, max_size=20).map(sorted).map(tuple)
HELD = st.builds(
    HeldLabel,
    st.integers(1, 4096),
    st.binary(min_size=32, max_size=32).map(bytes.hex),
    st.frozensets(st.sampled_from(ENTRY_GROUPS)),
    st.just(("no_onward", "retain_days(365)")),
)
HOLDS = st.lists(HELD, unique_by=lambda one: one.number, max_size=8).map(
    lambda held: tuple(sorted(held, key=lambda one: one.number))
)
CURSORS = st.builds(Cursor, st.integers(0, 65_535), st.just("cd" * 32), st.integers(0, 1 << 50))


def rows_question(**changed: Any) -> Question:
    fields: dict[str, Any] = {"salt": SALT, "labels": (3, 7), "stands": CURSOR, **changed}
    return Question(ROWS, "XA-NCVI/found", CURSOR, **fields)


@pytest.mark.parametrize("vector", INDEX, ids=lambda vector: vector["file"])
def test_a_vector_is_read_as_its_word_says(vector: dict[str, str]) -> None:
    raw = (VECTORS / vector["file"]).read_bytes()
    try:
        found = PARSERS[vector["kind"]](raw)
    except GatewayError as error:
        word = type(error).__name__
    else:
        word = "ok"
        assert (dump_offer(*found) if vector["kind"] == "offer" else found.dump()) == raw
    assert word == vector["expect"], vector["about"]


def test_no_vector_lies_about_without_its_word() -> None:
    assert {one["file"] for one in INDEX} | {"index.json"} == {path.name for path in VECTORS.iterdir()}


@given(LABELS, st.integers(0, 1000), st.integers(1, 1000))
def test_a_question_for_symbols_is_read_as_it_was_written(labels: tuple[int, ...], first: int, more: int) -> None:
    question = Question(SKETCH, "XA-NCVI/found", CURSOR, SALT, labels, first, first + more)
    again = Question.parse(question.dump())
    assert (again.labels, again.first, again.last, again.salt) == (labels, first, first + more, SALT)
    assert again.dump() == question.dump()


@given(IDS, IDS, HOLDS, CURSORS, LABELS, st.booleans())
def test_a_question_for_rows_is_read_as_it_was_written(  # noqa: PLR0917
    wanted: Any, odd: Any, holds: tuple[HeldLabel, ...], stands: Cursor, labels: tuple[int, ...], last_word: bool
) -> None:
    question = rows_question(wanted=wanted, odd=odd, holds=holds, stands=stands, labels=labels, last_word=last_word)
    again = Question.parse(question.dump())
    assert again.wanted.tolist() == wanted.tolist()
    assert again.odd.tolist() == odd.tolist()
    assert (again.holds, again.stands, again.labels, again.last_word) == (holds, stands, labels, last_word)


@given(
    st.dictionaries(st.tuples(st.integers(1, 9), st.integers(1, 5)), st.builds(Sum, st.integers(0, 1 << 40), U64, U64))
)
def test_sums_are_read_as_they_were_written(sums: dict[tuple[int, int], Sum]) -> None:
    answer = SumsAnswer({label: "ef" * 32 for label, _ in sums}, sums)
    again = SumsAnswer.parse(answer.dump())
    assert dict(again.sums) == sums
    assert again.digests == answer.digests


@given(st.data())
def test_whatever_the_bytes_a_parser_answers_or_refuses(data: st.DataObject) -> None:
    raw = rows_question(wanted=integers([1, 2]), odd=integers([9])).dump()
    at = data.draw(st.integers(0, len(raw) - 1))
    changed = raw[:at] + bytes([data.draw(st.integers(0, 255))]) + raw[at + 1 :]
    for parse in PARSERS.values():
        try:
            parse(changed)
        except GatewayError:
            continue


def test_more_entries_than_a_page_brings_are_refused() -> None:
    full = integers(list(range(MAX_ASKED)))
    assert len(Question.parse(rows_question(wanted=full).dump()).wanted) == MAX_ASKED
    with pytest.raises(MalformedError, match="more entries"):
        Question.parse(rows_question(wanted=full, odd=integers([1])).dump())


def test_more_symbols_than_a_sketch_has_are_refused() -> None:
    question = Question(SKETCH, "XA-NCVI/found", CURSOR, SALT, (1,), 0, comparisons.MAX_SYMBOLS + 1)
    with pytest.raises(TooLargeError):
        Question.parse(question.dump())


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("labels", [7, 3]),
        ("labels", [0]),
        ("labels", [4097]),
        ("salt", SALT[:-2]),
        ("wanted", "0000000000000001"[:-1]),
        ("wanted", "02000000000000000100000000000000"),
        ("odd", "01000000000000000100000000000000"),
        ("odd", "0100000000000000 "),
        ("holds", [[3, "ab" * 32, ["existence"]]]),
        ("holds", [[3, "ab" * 32, ["imagery"], []]]),
        ("holds", [[3, "ab", ["existence"], []]]),
        ("last_word", 1),
        ("set", "not a set"),
        ("comparison", "comparison 2"),
        ("step", "copy"),
        ("stands", {"epoch": 70_000, "view": "", "seq": 0}),
        ("cursor", None),
        ("more", 1),
    ],
)
def test_a_question_that_breaks_a_rule_is_refused(member: str, value: object) -> None:
    held = HeldLabel(3, "ab" * 32, frozenset({FieldGroup.EXISTENCE}), ())
    good = json.loads(rows_question(holds=(held,), wanted=integers([1]), odd=integers([2])).dump())
    Question.parse(canonical.encode(good))
    with pytest.raises(MalformedError):
        Question.parse(canonical.encode({**good, member: value}))


def test_a_step_has_its_own_members_only() -> None:
    sums = json.loads(Question(SUMS, "XA-NCVI/found", CURSOR).dump())
    with pytest.raises(MalformedError):
        Question.parse(canonical.encode({**sums, "salt": SALT}))
    with pytest.raises(MalformedError):
        Question.parse(canonical.encode({name: value for name, value in sums.items() if name != "cursor"}))
