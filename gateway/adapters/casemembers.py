"""What foreign case formats have no property for, as plain members: written beside what they have, and read back.

STIX puts the members into an extension of ours (`contracts/case-stix-1.md`), CASE/UCO into properties of ours
(`contracts/case-uco-1.md`). Their names and values are those of our own JSON (`caseparts`), and one more, `part`, says
which part of a case they describe. What the format has a property for is not among them: it is written once, in its
own place.

Rules:
- What is not stated is not there.
- A member that is not known, of another kind, or with a word outside its list refuses the case; the place names it.

Worked example: `members_of(Victim("v-1", age=Age(8, 10)), "ref")`, without the ref, which has a place of its own, is
`{"part": "victim", "age": {"low": 8, "high": 10}}`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.adapters.caseparts import moment_text, part_from_plain, part_to_plain
from gateway.adapters.rows import refusal
from gateway.caserecord import (
    CaseRecord,
    Clue,
    Contact,
    EntryReference,
    Person,
    Place,
    TimeFrame,
    Victim,
)

Members = Mapping[str, object]
Part = Victim | Person | Clue | TimeFrame | Place | EntryReference | Contact
CASE = "case"
ADDITIONS = "additions"  # the record's extensions: the other word has a meaning of its own in STIX
PARTS: dict[str, type[Part]] = {
    "victim": Victim,
    "person": Person,
    "clue": Clue,
    "time_frame": TimeFrame,
    "place": Place,
    "entry": EntryReference,
    "contact": Contact,
}
_NAMES = {kind: name for name, kind in PARTS.items()}
_FIELDS = {
    "victim": "victims",
    "person": "persons",
    "clue": "clues",
    "time_frame": "time_frames",
    "place": "places",
    "entry": "entries",
}
_NOT_IN_HEAD = frozenset({"reference", "opened", "updated", "summary", "contact", "extensions", *_FIELDS.values()})


def head_members(record: CaseRecord) -> dict[str, object]:
    """Everything of a record that is neither its name, its times, its summary nor one of its parts."""
    plain = part_to_plain(record)
    members: dict[str, object] = {"part": CASE}
    members |= {name: value for name, value in plain.items() if name not in _NOT_IN_HEAD}
    if "extensions" in plain:
        members[ADDITIONS] = plain["extensions"]
    return members


def head_of(members: Members, *, reference: str, opened: int, updated: int, summary: str) -> CaseRecord:
    """The record without its parts."""
    if twice := members.keys() & _NOT_IN_HEAD:
        raise refusal(min(twice), "has another place")
    plain = {name: value for name, value in members.items() if name not in ("part", ADDITIONS)}
    plain |= {"reference": reference, "opened": moment_text(opened), "updated": moment_text(updated)}
    return part_from_plain(CaseRecord, {**plain, "summary": summary, "extensions": members.get(ADDITIONS, [])})


def members_of(part: Part, *native: str) -> dict[str, object]:
    """What is stated of a part, without the fields that have a place of their own."""
    plain = part_to_plain(part)
    return {"part": _NAMES[type(part)], **{name: value for name, value in plain.items() if name not in native}}


class Parts:
    """The parts of one case, as an adapter finds them one after the other."""

    def __init__(self) -> None:
        self._found: dict[str, list[Part]] = {name: [] for name in PARTS}

    def add(self, part: Part) -> None:
        """Add a part."""
        self._found[_NAMES[type(part)]].append(part)

    def add_members(self, members: Members, native: Members) -> None:
        """Add the part that `members_of` wrote.

        Args:
            native: the fields that have a place of their own, of the part's kind; what is empty is not stated.
        """
        name = str(members["part"])
        plain = {key: value for key, value in members.items() if key != "part"}
        if twice := plain.keys() & native.keys():
            raise refusal(min(twice), "has another place")
        stated = {key: value for key, value in native.items() if value not in ("", None)}
        self.add(part_from_plain(PARTS[name], plain | stated))

    def fields(self) -> dict[str, Any]:
        """As a case record has them."""
        contacts = self._found["contact"]
        if len(contacts) > 1:
            raise refusal("contact", "stands twice")
        found: dict[str, Any] = {field: tuple(self._found[name]) for name, field in _FIELDS.items()}
        return {**found, "contact": contacts[0] if contacts else None}
