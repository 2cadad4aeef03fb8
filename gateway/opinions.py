"""Opinions: what an agency thinks of an entry, as it is said, sent and joined. Pure.

    confirm     it stands behind the entry, as it was in one version
    dispute     it holds that the entry is wrong, for a reason
    withdrawn   it says nothing any more

An agency has one word on an entry, the newest. Each of its words has a number, higher than those before it: the time of
saying it, or one more than the last where that is not later. So a gateway that was restored goes on above what it gave
out before. Of two words of one agency the higher number counts, and of two with one number the stricter. So whoever has
heard the same words holds the same, in whatever order, and however often, they came.

Contract: contracts/opinions-1.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from gateway.errors import MalformedError
from gateway.model import SET_NAME, int_member, require, text_member

OPINION, COUNTS, REQUEST = "opinion", "opinion_counts", "opinion_request"  # kinds of mail
MAX_ENTRIES = 150  # of one message: with the longest numbers it stays below the 8 KiB that a message may have
MAX_AHEAD_SECONDS = 86_400  # a word from further ahead would silence its agency until then
_ENTRY = re.compile(r"[0-9a-f]{16}")


class Verdict(StrEnum):
    """What is said of an entry."""

    CONFIRM = "confirm"
    DISPUTE = "dispute"
    WITHDRAWN = "withdrawn"


# Why. The list is closed; contracts/glossary.md has the same words.
REASONS: Mapping[Verdict, Mapping[str, str]] = {
    Verdict.CONFIRM: {
        "seen": "a trained person of the agency has looked at the material",
        "own_case": "it stands in a case of the agency's own",
    },
    Verdict.DISPUTE: {
        "known_good": "the digest is of a harmless or common file",
        "no_child": "it does not show a child",
        "lawful": "it is not illegal where the agency is",
        "wrong_category": "it is listed under the wrong category",
        "wrong_series": "it is of another child or series",
        "wrong_digest": "the digest does not belong to the material",
    },
    Verdict.WITHDRAWN: {"": "the agency says nothing of it any more"},
}
_STRICTER = (Verdict.WITHDRAWN, Verdict.CONFIRM, Verdict.DISPUTE)


@dataclass(frozen=True, slots=True)
class Word:
    """One agency's word on one entry. `version`: of the entry when it was given; `at`: when, as the agency says."""

    agency: str
    entry_id: int
    number: int
    verdict: Verdict
    reason: str
    version: int
    at: int

    @property
    def rank(self) -> tuple[int, int, str, int, int]:
        """Of two words of one agency on one entry the higher counts: no two words that differ have the same rank."""
        return self.number, _STRICTER.index(self.verdict), self.reason, self.version, self.at


@dataclass(frozen=True, slots=True)
class Saying:
    """One word on several entries of a set: the body of an `opinion` message. `entries`: each with its version."""

    set_name: str
    number: int
    verdict: Verdict
    reason: str
    at: int
    entries: tuple[tuple[int, int], ...]

    def words(self, agency: str) -> list[Word]:
        """The word of an agency on each of the entries."""
        return [
            Word(agency, entry, self.number, self.verdict, self.reason, version, self.at)
            for entry, version in self.entries
        ]

    def to_json(self) -> dict[str, object]:
        """As the body of a message."""
        return {
            "set": self.set_name,
            "number": self.number,
            "verdict": str(self.verdict),
            "reason": self.reason,
            "at": self.at,
            "entries": [[format_id(entry), version] for entry, version in self.entries],
        }


@dataclass(frozen=True, slots=True)
class Count:
    """What a hub has heard of an entry: how many agencies confirm it, and how many dispute it."""

    entry_id: int
    confirmed: int
    disputed: int


@dataclass(frozen=True, slots=True)
class Counted:
    """The body of an `opinion_counts` message. `number`: as of words; a higher one takes the place of a lower."""

    set_name: str
    number: int
    counts: tuple[Count, ...]

    def to_json(self) -> dict[str, object]:
        """As the body of a message."""
        counts = [[format_id(one.entry_id), one.confirmed, one.disputed] for one in self.counts]
        return {"set": self.set_name, "number": self.number, "counts": counts}


def check_reason(verdict: Verdict, reason: str) -> None:
    """Returns when a verdict may have this reason; MalformedError names those it may have."""
    known = REASONS[verdict]
    if reason not in known:
        named = ", ".join(filter(None, known)) or "none at all"
        raise MalformedError(f"an opinion without a reason of the closed list: {verdict} takes {named}")


def parse_saying(body: Mapping[str, object], *, now: int) -> Saying:
    """The saying that a partner's message carries.

    Raises:
        MalformedError: it breaks a rule of the contract.
    """
    require(set(body) == {"set", "number", "verdict", "reason", "at", "entries"}, "opinion: other members")
    members = dict(body)
    try:
        verdict = Verdict(text_member(members, "verdict"))
    except ValueError as error:
        raise MalformedError("opinion: an unknown verdict") from error
    reason = text_member(members, "reason")
    check_reason(verdict, reason)
    pairs = [(parse_id(one[0]), _whole(one[1])) for one in _rows(body["entries"], 2)]
    return Saying(_set(members), _number(members, now), verdict, reason, int_member(members, "at"), tuple(pairs))


def parse_counts(body: Mapping[str, object], *, now: int) -> Counted:
    """The counts that a hub's message carries. MalformedError as above."""
    require(set(body) == {"set", "number", "counts"}, "opinion counts: other members")
    members = dict(body)
    counts = [Count(parse_id(one[0]), _whole(one[1]), _whole(one[2])) for one in _rows(body["counts"], 3)]
    return Counted(_set(members), _number(members, now), tuple(counts))


def parse_request(body: Mapping[str, object]) -> str:
    """The set that a follower asks about."""
    require(set(body) == {"set"}, "opinion request: other members")
    return _set(dict(body))


def in_messages(entries: Sequence[tuple[int, int]]) -> Iterator[tuple[tuple[int, int], ...]]:
    """Entries with their versions, as many at a time as one message has."""
    for start in range(0, len(entries), MAX_ENTRIES):
        yield tuple(entries[start : start + MAX_ENTRIES])


def format_id(entry_id: int) -> str:
    """An entry id as messages and the log have it."""
    return f"{entry_id:016x}"


def parse_id(text: object) -> int:
    """The entry id that `format_id` wrote."""
    if not isinstance(text, str) or _ENTRY.fullmatch(text) is None:
        raise MalformedError("opinion: an entry is 16 hexadecimal digits")
    value = int(text, 16)
    require(value < 1 << 63, "opinion: an entry beyond all epochs")
    return value


def _set(members: dict[str, object]) -> str:
    name = text_member(members, "set")
    require(SET_NAME.fullmatch(name), "opinion: a set is AGENCY/name")
    return name


def _number(members: dict[str, object], now: int) -> int:
    number = int_member(members, "number")
    require(0 < number <= now + MAX_AHEAD_SECONDS, "opinion: its number is from the future")
    return number


def _rows(value: object, width: int) -> list[list[object]]:
    if not isinstance(value, list) or not 0 < len(value) <= MAX_ENTRIES:
        raise MalformedError(f"opinion: between 1 and {MAX_ENTRIES} entries at once")
    for one in value:
        require(isinstance(one, list) and len(one) == width, "opinion: an entry with other members")
    require(len({one[0] for one in value if isinstance(one[0], str)}) == len(value), "opinion: an entry stands twice")
    return value


def _whole(value: object) -> int:
    if type(value) is not int or not 0 <= value < 1 << 53:
        raise MalformedError("opinion: not a whole number")
    return value


def parties(words: Iterable[Word], version: int) -> tuple[frozenset[str], frozenset[str]]:
    """Which agencies confirm an entry as it is in a version, and which dispute it.

    Who confirmed another version confirmed something else: the owner may have changed all of it since. A dispute stands
    until its agency takes it back, and one word of it outweighs any other of the same agency.
    """
    said = list(words)
    disputing = frozenset(one.agency for one in said if one.verdict is Verdict.DISPUTE)
    confirmed = {one.agency for one in said if one.verdict is Verdict.CONFIRM and one.version == version}
    return frozenset(confirmed) - disputing, disputing
