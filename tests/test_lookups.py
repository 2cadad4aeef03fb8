"""Documents of look-up 1: one way to write each, of sizes that tell nothing, and everything else is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory import sha256
from gateway.crypto import canonical
from gateway.errors import GatewayError, MalformedError
from gateway.lookups import (
    ALGORITHMS,
    HEAD_BYTES,
    SIZES,
    SLOT_BYTES,
    Answer,
    Question,
    Told,
    dump_slot,
    size_for,
)
from gateway.model import DIGEST_BYTES, HandlingCode, Purpose, VictimStatus

VECTORS = Path(__file__).parent / "vectors" / "look-up"
INDEX: list[dict[str, Any]] = json.loads((VECTORS / "index.json").read_text(encoding="utf-8"))["vectors"]
ID = "00112233445566778899aabbccddeeff"
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=256)
TOLD = st.builds(
    Told,
    st.just("XA-NCVI/identified-victims"),
    st.just("0001-00000000002a"),
    st.just("XA-NCVI"),
    st.sampled_from(VictimStatus),
    st.just("XB-NCVI"),
    st.integers(0, 1 << 33),
    st.just("icse:1"),
    st.sampled_from(HandlingCode),
    TEXT,
    TEXT,
    st.just(("court_use_needs_leave", "no_onward", "retain_days(365)")),
    st.none() | st.integers(0, 31),
)


def slots(size: int = 16) -> tuple[tuple[str, bytes], ...]:
    names = [ALGORITHMS[at % len(ALGORITHMS)] for at in range(size)]
    return tuple((name, (sha256(f"digest {at}") * 2)[: DIGEST_BYTES[name]]) for at, name in enumerate(names))


def told(**changed: Any) -> Told:
    words: dict[str, Any] = {
        "set_name": "XA-NCVI/found",
        "entry": "0001-00000000002a",
        "originator": "XA-NCVI",
        "status": VictimStatus.IDENTIFIED,
        "who": "XA-NCVI",
        "since": 1_795_000_000,
        "category": "icse:1",
        "handling": HandlingCode.H1,
    }
    return Told(**words | changed)


@pytest.mark.parametrize("vector", INDEX, ids=lambda vector: vector["file"])
def test_a_vector_is_read_as_its_word_says(vector: dict[str, Any]) -> None:
    raw = (VECTORS / vector["file"]).read_bytes()
    try:
        if vector["kind"] == "question":
            assert Question.parse(raw).dump() == raw
        else:
            assert Answer.parse(raw, question=vector["question"], slots=vector["slots"]).dump() == raw
    except GatewayError as error:
        word = type(error).__name__
    else:
        word = "ok"
    assert word == vector["expect"], vector["about"]


def test_no_vector_lies_about_without_its_word() -> None:
    assert {one["file"] for one in INDEX} | {"index.json"} == {path.name for path in VECTORS.iterdir()}


@pytest.mark.parametrize("size", SIZES)
def test_a_question_is_read_as_it_was_written_and_one_size_has_one_length(size: int) -> None:
    question = Question(Purpose.SAFEGUARDING, slots(size), 12)
    assert Question.parse(question.dump()) == question
    plain = Question(Purpose.SAFEGUARDING, (("md5", bytes(16)),) * size, 31)
    assert len(plain.dump()) == len(question.dump())


def test_questions_have_the_smallest_size_that_holds_them() -> None:
    assert [size_for(count) for count in (1, 16, 17, 256, 257, 4096)] == [16, 16, 256, 256, 4096, 4096]


@given(st.lists(TOLD, max_size=8))
def test_a_slot_has_one_size_whatever_is_said(said: list[Told]) -> None:
    raw = dump_slot(said)
    assert len(raw) == SLOT_BYTES
    read = Answer.parse(Answer(ID, 7, ((),) * 16).dump()[:HEAD_BYTES] + raw * 16, question=ID, slots=16)
    shown = read.slots[0]
    assert [one.entry for one in shown] == [one.entry for one in said[: len(shown)]], "in their order"
    assert shown if said else not shown, "of the first something is always said"
    if 0 in read.more:
        assert list(shown) != said
    else:
        assert list(shown) == said


@given(st.lists(st.lists(TOLD, max_size=2).map(tuple), min_size=16, max_size=16).map(tuple))
def test_an_answer_is_read_as_it_was_written(said: tuple[tuple[Told, ...], ...]) -> None:
    raw = Answer(ID, 1_795_000_000, said).dump()
    assert len(raw) == HEAD_BYTES + 16 * SLOT_BYTES
    again = Answer.parse(raw, question=ID, slots=16)
    assert again.dump() == raw
    assert all(
        shown == meant for shown, meant in zip(again.slots, said, strict=True) if shown and len(shown) == len(meant)
    )


def test_an_answer_belongs_to_its_question() -> None:
    raw = Answer(ID, 1, ((),) * 16).dump()
    for question, count in (("ff" * 16, 16), (ID, 256)):
        with pytest.raises(MalformedError):
            Answer.parse(raw, question=question, slots=count)


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("purpose", "curiosity"),
        ("distance", 32),
        ("distance", -1),
        ("slots", ""),
        ("slots", "10" + "00" * 64),
        ("slots", ("21" + "00" * 64) * 16),
        ("slots", ("22" + "00" * 64) * 16),
        ("slots", ("10" + "00" * 63 + "01") * 16),
        ("slots", ("10" + "0" * 127 + "A") * 16),
        ("slots", ("10" + "00" * 64) * 17),
        ("look_up", "look-up 2"),
        ("case", "17/2026"),
    ],
)
def test_a_question_that_breaks_a_rule_is_refused(member: str, value: object) -> None:
    good = json.loads(Question(Purpose.SAFEGUARDING, slots()).dump())
    Question.parse(canonical.encode(good))
    with pytest.raises(MalformedError):
        Question.parse(canonical.encode({**good, member: value}))


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("set", "found"),
        ("entry", "42"),
        ("originator", "nobody"),
        ("status", "confirmed"),
        ("who", "x"),
        ("since", -1),
        ("since", 1 << 60),
        ("category", "one"),
        ("handling", "H9"),
        ("series", "x" * 257),
        ("contact", 3),
        ("duties", "no_onward"),
        ("distance", 32),
        ("name", "A. Child"),
    ],
)
def test_what_is_said_of_an_entry_has_its_members_only(member: str, value: object) -> None:
    good = told(distance=3).to_json()
    assert Told.from_json(good) == told(distance=3)
    with pytest.raises(MalformedError):
        Told.from_json({**good, member: value})


@given(st.data())
def test_whatever_the_bytes_a_parser_answers_or_refuses(data: st.DataObject) -> None:
    for raw, parse in (
        (Question(Purpose.SAFEGUARDING, slots()).dump(), Question.parse),
        (Answer(ID, 1, ((told(),),) * 16).dump(), lambda given: Answer.parse(given, question=ID, slots=16)),
    ):
        at = data.draw(st.integers(0, min(len(raw), 3000) - 1))
        try:
            parse(raw[:at] + bytes([data.draw(st.integers(0, 255))]) + raw[at + 1 :])
        except GatewayError:
            continue
