"""Whose word is a status, and what many words make together: pure values. No clock, no I/O.

Each agency asserts for itself, in versions, under an id that it gave once. What two agencies have asserted never mixes:
the newest version of each stands beside the others', and the status of a subject is the highest of these.

    unidentified < lead < identified < safeguarded < closed

Rules:

1. Of two versions of one assertion the higher number counts. Two of one number are a fault of their agency; then the
   lower status counts, since a search that goes on harms nobody. So `newest` picks the same one in whatever order they
   come, and taking one twice changes nothing (a join semilattice).
2. An assertion speaks of material by marks (keyed digests of digests, series names and entries). Its marks only grow:
   whoever has named too much lowers the assertion, and makes another.
3. Only the agency itself lowers its assertion, by a newer version with a reason.
4. Two assertions meet where they share a mark, and nothing follows from meeting: a third that meets the second does not
   meet the first.
5. Two agencies that both hold a lead on what meets have a claim conflict, which both call by the same id.

Contract: contracts/status-1.md.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from gateway.errors import MalformedError
from gateway.model import AGENCY, MAX_TEXT_CHARS, VictimStatus, require

ORDER = (
    VictimStatus.UNIDENTIFIED,
    VictimStatus.LEAD,
    VictimStatus.IDENTIFIED,
    VictimStatus.SAFEGUARDED,
    VictimStatus.CLOSED,
)
RANK: Mapping[VictimStatus, int] = {status: rank for rank, status in enumerate(ORDER)}
FOUND = RANK[VictimStatus.IDENTIFIED]  # from here on nobody looks for the child any more
ID = re.compile(r"[0-9a-f]{32}")
MAX_VERSION = 1 << 62
MAX_TIME = 253_402_300_799  # the last second of the year 9999

Key = tuple[str, str]  # (agency, the id that it gave)


@dataclass(frozen=True, slots=True)
class Assertion:
    """One version of what an agency says of a subject. `at`: since when; `reason`: where it was lowered."""

    agency: str
    id: str
    version: int
    status: VictimStatus
    at: int
    reason: str = ""

    def __post_init__(self) -> None:
        require(AGENCY.fullmatch(self.agency), "assertion: agency is not an agency code")
        require(ID.fullmatch(self.id), "assertion: the id is not 32 hex digits")
        require(0 < self.version <= MAX_VERSION, "assertion: version is not a positive number")
        require(self.status in RANK, "assertion: a status that nobody can assert")
        require(0 <= self.at <= MAX_TIME, "assertion: the date is out of range")
        require(self.reason == "" or is_line(self.reason), "assertion: a reason is one line")

    @property
    def key(self) -> Key:
        """Under which it is known everywhere."""
        return self.agency, self.id

    @property
    def is_found(self) -> bool:
        """Whether the search is over, if it is up to this agency."""
        return RANK[self.status] >= FOUND


@dataclass(frozen=True, slots=True)
class Joined:
    """The status of a subject: the highest that any agency asserts, and who does, the earliest first."""

    status: VictimStatus
    by: tuple[Assertion, ...] = ()

    @property
    def is_found(self) -> bool:
        """Whether the search is over."""
        return RANK.get(self.status, -1) >= FOUND


def newest(one: Assertion, other: Assertion) -> Assertion:
    """Which of two versions of one assertion counts (rule 1)."""
    require(one.key == other.key, "assertion: versions of two assertions are not compared")
    return max(one, other, key=_order)


def merge(*books: Mapping[Key, Assertion]) -> dict[Key, Assertion]:
    """What several books make together: of every assertion the newest version."""
    merged: dict[Key, Assertion] = {}
    for book in books:
        for key, assertion in book.items():
            merged[key] = newest(merged[key], assertion) if key in merged else assertion
    return merged


def join(assertions: Iterable[Assertion]) -> Joined:
    """The status of a subject, by the newest version of each assertion that meets it; UNKNOWN without any."""
    found: dict[Key, Assertion] = {}
    for one in assertions:
        found[one.key] = newest(found[one.key], one) if one.key in found else one
    if not found:
        return Joined(VictimStatus.UNKNOWN)
    highest = max((one.status for one in found.values()), key=RANK.__getitem__)
    by = sorted((one for one in found.values() if one.status is highest), key=lambda one: (one.at, one.key))
    return Joined(highest, tuple(by))


def check_step(before: Assertion | None, after: Assertion) -> None:
    """Returns when `after` may follow `before` (rule 3).

    Raises:
        MalformedError: another assertion, no newer version, or a lower status without a reason.
    """
    if before is None:
        return
    require(before.key == after.key, "assertion: this is another one")
    require(after.version > before.version, "assertion: no newer version")
    lowered = RANK[after.status] < RANK[before.status]
    require(after.reason or not lowered, "a status is lowered with a reason")


# Claims


class Word(StrEnum):
    """What an agency says to a claim conflict. OPEN: nothing yet."""

    OPEN = "open"
    AGREE = "agree"
    DECLINE = "decline"


@dataclass(frozen=True, slots=True)
class Answer:
    """One version of an agency's word on a claim conflict."""

    version: int
    word: Word

    def __post_init__(self) -> None:
        require(0 <= self.version <= MAX_VERSION, "claim: version is not a number")


NO_ANSWER = Answer(0, Word.OPEN)


def newest_answer(one: Answer, other: Answer) -> Answer:
    """Which of two counts: the higher version; of two with one number the one that tells less."""
    return max(one, other, key=lambda answer: (answer.version, answer.word is Word.DECLINE, str(answer.word)))


def settled(one: Answer, other: Answer) -> Word:
    """What two agencies' words make together: AGREE only where both agree. The same from either side."""
    words = {one.word, other.word}
    if Word.DECLINE in words:
        return Word.DECLINE
    return Word.AGREE if words == {Word.AGREE} else Word.OPEN


def claim_id(one: Key, other: Key) -> str:
    """The id of the conflict of two claims: both sides work out the same one."""
    require(one[0] != other[0], "claim: an agency is in no conflict with itself")
    words = "".join(f"{agency}\n{number}\n" for agency, number in sorted((one, other)))
    return hashlib.sha256(b"claim 1\n" + words.encode()).hexdigest()[:32]


# Series


def together(pairs: Iterable[tuple[str, str]], name: str) -> frozenset[str]:
    """All names that stand for one series with this one, by merges that are in force."""
    known, links = {name}, [frozenset(pair) for pair in pairs]
    while grown := {other for link in links if link & known for other in link} - known:
        known |= grown
    return frozenset(known)


def status_of(text: str) -> VictimStatus:
    """The status of this word, if anybody can assert it."""
    try:
        status = VictimStatus(text)
    except ValueError as error:
        raise MalformedError("no such status") from error
    require(status in RANK, "a status that nobody can assert")
    return status


def is_line(text: str) -> bool:
    """Whether a text is one line that people can read."""
    return 0 < len(text) <= MAX_TEXT_CHARS and text.isprintable()


def _order(one: Assertion) -> tuple[int, int, int, str]:
    return one.version, -RANK[one.status], one.at, one.reason
