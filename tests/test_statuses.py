"""What many agencies' words make together: the order in which they come never matters, nor that they come twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from itertools import pairwise, permutations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import MalformedError
from gateway.model import VictimStatus
from gateway.statuses import (
    ORDER,
    RANK,
    Answer,
    Assertion,
    Key,
    Word,
    check_step,
    claim_id,
    join,
    merge,
    newest,
    newest_answer,
    settled,
    status_of,
    together,
)
from gateway.statusmail import (
    Material,
    Piece,
    dump_pieces,
    dump_resume,
    dump_series,
    parse_answer,
    parse_contact,
    parse_held,
    parse_piece,
    parse_resume,
    parse_series,
)

VECTORS = json.loads((Path(__file__).parent / "vectors" / "status.json").read_text())
PARSERS: dict[str, Callable[[dict[str, object]], object]] = {
    "identification_notice": lambda body: parse_piece("XA-NCVI", body),
    "resume_search": parse_resume,
    "search_resumed": parse_held,
    "status_echo": parse_held,
    "claim_answer": parse_answer,
    "claim_contact": parse_contact,
    "series_merge": parse_series,
}
AGENCIES = ("XA-NCVI", "XB-NCVI", "XC-NCVI")
IDS = ("1" * 32, "2" * 32)
Book = dict[Key, Assertion]

assertions = st.builds(
    Assertion,
    agency=st.sampled_from(AGENCIES),
    id=st.sampled_from(IDS),
    version=st.integers(1, 4),
    status=st.sampled_from(ORDER),
    at=st.integers(0, 3),
    reason=st.sampled_from(("", "another child", "a mistake")),
)
answers = st.builds(Answer, st.integers(0, 3), st.sampled_from(list(Word)))


def said(agency: str, status: VictimStatus, version: int = 1, *, number: int = 0, reason: str = "") -> Assertion:
    return Assertion(agency, IDS[number], version, status, 100 * version, reason)


def book(some: Iterable[Assertion]) -> Book:
    held: Book = {}
    for one in some:
        held = merge(held, {one.key: one})
    return held


@given(st.lists(assertions, max_size=12), st.data())
def test_whoever_heard_the_same_in_whatever_order_and_however_often_knows_the_same(
    sent: list[Assertion], data: st.DataObject
) -> None:
    """Several gateways; each message is lost and sent again, comes twice, or behind later ones."""
    books = []
    for _ in AGENCIES:
        again = data.draw(st.lists(st.sampled_from(sent), max_size=4)) if sent else []
        books.append(book(data.draw(st.permutations(sent + again))))
    assert all(one == other for one, other in pairwise(books))
    assert all(join(one.values()) == join(other.values()) for one, other in pairwise(books))


@given(st.lists(assertions, max_size=6), st.lists(assertions, max_size=6), st.lists(assertions, max_size=6))
def test_merging_is_commutative_associative_and_idempotent(
    first: list[Assertion], second: list[Assertion], third: list[Assertion]
) -> None:
    one, two, three = book(first), book(second), book(third)
    assert merge(one, two) == merge(two, one)
    assert merge(merge(one, two), three) == merge(one, merge(two, three))
    assert merge(one, one) == one
    assert merge(merge(one, two), two) == merge(one, two)


@given(st.lists(assertions, min_size=1, max_size=8))
def test_the_status_is_the_highest_that_any_newest_version_asserts(sent: list[Assertion]) -> None:
    held = book(sent).values()
    found = join(sent)
    assert RANK[found.status] == max(RANK[one.status] for one in held)
    assert set(found.by) == {one for one in held if one.status is found.status}
    assert found.is_found == any(one.is_found for one in held)


@given(assertions, assertions)
def test_of_two_versions_with_one_number_the_search_goes_on(one: Assertion, other: Assertion) -> None:
    if one.key == other.key and one.version == other.version:
        assert RANK[newest(one, other).status] == min(RANK[one.status], RANK[other.status])


def test_one_agency_ends_nobody_elses_word() -> None:
    ours, theirs = said(AGENCIES[0], VictimStatus.IDENTIFIED), said(AGENCIES[1], VictimStatus.CLOSED)
    lowered = said(AGENCIES[1], VictimStatus.UNIDENTIFIED, 2, reason="another child")
    assert join([ours, theirs]).by == (theirs,)
    assert join([ours, theirs, lowered]).by == (ours,)
    assert join([]).status is VictimStatus.UNKNOWN
    assert not join([]).is_found


def test_only_a_newer_version_of_the_same_assertion_follows_and_lowering_needs_a_reason() -> None:
    first = said(AGENCIES[0], VictimStatus.IDENTIFIED)
    check_step(None, first)
    check_step(first, said(AGENCIES[0], VictimStatus.SAFEGUARDED, 2))
    check_step(first, said(AGENCIES[0], VictimStatus.LEAD, 2, reason="a mistake"))
    for wrong in (
        said(AGENCIES[0], VictimStatus.LEAD, 2),
        said(AGENCIES[0], VictimStatus.SAFEGUARDED, 1),
        said(AGENCIES[1], VictimStatus.SAFEGUARDED, 2),
        said(AGENCIES[0], VictimStatus.SAFEGUARDED, 2, number=1),
    ):
        with pytest.raises(MalformedError):
            check_step(first, wrong)


@pytest.mark.parametrize(
    "changed",
    [
        {"agency": "nobody"},
        {"id": "1" * 31},
        {"id": "G" * 32},
        {"version": 0},
        {"status": VictimStatus.UNKNOWN},
        {"status": VictimStatus.WITHHELD},
        {"at": -1},
        {"at": 253_402_300_800},
        {"reason": "two\nlines"},
        {"reason": "x" * 257},
    ],
)
def test_what_nobody_can_assert_is_refused(changed: dict[str, object]) -> None:
    good: dict[str, object] = {"agency": AGENCIES[0], "id": IDS[0], "version": 1, "status": ORDER[0], "at": 0}
    Assertion(**good)  # type: ignore[arg-type]
    with pytest.raises(MalformedError):
        Assertion(**good | changed)  # type: ignore[arg-type]


def test_the_words_of_a_status_are_those_that_somebody_can_assert() -> None:
    assert status_of("identified") is VictimStatus.IDENTIFIED
    for word in ("unknown", "withheld", "Identified", ""):
        with pytest.raises(MalformedError):
            status_of(word)


# Claims


@given(st.lists(answers, min_size=1, max_size=6), st.lists(answers, min_size=1, max_size=6), st.data())
def test_both_sides_of_a_conflict_come_to_the_same_end_in_whatever_order_they_hear(
    ours: list[Answer], theirs: list[Answer], data: st.DataObject
) -> None:
    ends = set()
    for _ in range(2):
        heard = [data.draw(st.permutations(words + words)) for words in (ours, theirs)]
        held = []
        for words in heard:
            newest_so_far = words[0]
            for word in words[1:]:
                newest_so_far = newest_answer(newest_so_far, word)
            held.append(newest_so_far)
        ends.add((settled(*held), settled(*held[::-1])))
    assert len(ends) == 1
    [(one, other)] = ends
    assert one is other


def test_nothing_is_shown_unless_both_agree() -> None:
    for one in Word:
        for other in Word:
            assert (settled(one_of(one), one_of(other)) is Word.AGREE) == ({one, other} == {Word.AGREE})
    assert settled(one_of(Word.DECLINE), one_of(Word.OPEN)) is Word.DECLINE
    assert newest_answer(one_of(Word.AGREE), one_of(Word.DECLINE)).word is Word.DECLINE


def one_of(word: Word) -> Answer:
    return Answer(1, word)


def test_both_sides_call_a_conflict_by_the_same_id_and_no_other_by_it() -> None:
    keys = [(agency, number) for agency in AGENCIES for number in IDS]
    made = {frozenset((one, other)): claim_id(one, other) for one in keys for other in keys if one[0] != other[0]}
    assert len(set(made.values())) == len(made)
    assert claim_id(keys[0], keys[2]) == claim_id(keys[2], keys[0])
    with pytest.raises(MalformedError):
        claim_id(keys[0], keys[1])


# Series


def test_names_of_one_series_are_found_through_every_merge_and_parted_again_without_it() -> None:
    pairs = [("Blue Door", "Door, blue"), ("Door, blue", "D-7"), ("Red Door", "R-1")]
    assert together(pairs, "D-7") == {"Blue Door", "Door, blue", "D-7"}
    assert together(pairs[::-1], "Blue Door") == {"Blue Door", "Door, blue", "D-7"}
    assert together(pairs[1:], "Blue Door") == {"Blue Door"}
    assert together([], "Blue Door") == {"Blue Door"}


# The contract's vectors


@pytest.mark.parametrize("vector", VECTORS["joins"], ids=lambda one: one["name"])
def test_the_join_of_every_vector_is_the_same_in_every_order(vector: dict[str, object]) -> None:
    messages = vector["messages"]
    assert isinstance(messages, list)
    said_there = [
        Assertion(
            one["agency"], one["assertion"], one["version"], VictimStatus(one["status"]), one["at"], one["reason"]
        )
        for one in messages
    ]
    for order in permutations(said_there):
        found = join(order)
        by = [[one.agency, one.id, one.version] for one in found.by]
        assert {"status": str(found.status), "by": by} == vector["join"]


@pytest.mark.parametrize("vector", VECTORS["bodies"], ids=lambda one: one["name"])
def test_every_body_of_the_vectors_is_taken_or_refused_as_its_word_says(vector: dict[str, object]) -> None:
    body, parse = vector["body"], PARSERS[str(vector["kind"])]
    assert isinstance(body, dict)
    if vector["expect"] == "malformed":
        with pytest.raises(MalformedError):
            parse(body)
        return
    read = parse(body)
    if isinstance(read, Piece):
        assert list(dump_pieces(read.assertion, [read.material], read.contact)) == [body]
    elif vector["kind"] == "resume_search":
        assert dump_resume(parse_resume(body)) == body
    elif vector["kind"] == "series_merge":
        assert dump_series(parse_series(body)) == body


def test_conflicts_of_the_vectors_have_their_ids() -> None:
    for one in VECTORS["claims"]:
        assert claim_id(tuple(one["one"]), tuple(one["other"])) == one["id"]


def test_pieces_are_short_enough_for_a_message_and_lose_nothing() -> None:
    [good] = [one["body"] for one in VECTORS["bodies"] if one["name"] == "an identification"]
    read = parse_piece("XA-NCVI", good)
    digests = tuple(("sha512", bytes([n % 256, n // 256]) * 32) for n in range(500))
    names = tuple(f"{n} {'ü' * 250}" for n in range(16))
    whole = Material(read.material.set_name, read.material.label, digests, tuple(range(900)), names)
    pieces = list(dump_pieces(read.assertion, [whole], "x" * 256))
    assert max(len(json.dumps(one, ensure_ascii=False).encode()) for one in pieces) < 8 << 10
    parsed = [parse_piece("XA-NCVI", one).material for one in pieces]
    assert tuple(pair for one in parsed for pair in one.digests) == digests
    assert tuple(entry for one in parsed for entry in one.entries) == tuple(range(900))
    assert tuple(name for one in parsed for name in one.series) == names
