"""Case records out as a STIX 2.1 bundle: a `grouping` for each case, and what it refers to.

Rules (`contracts/case-stix-1.md`):
- What is written is made of the record and of nothing else. A record is redacted before it comes here.
- Where STIX has a property, the value stands there and nowhere else; the rest are members of our extension
  (`casemembers`). Where STIX wants a text that the record does not have, ours stands there, and `no_text` says so.
- An id follows from originator, reference and place in the case: the same on every day and every machine.
- `modified` is `updated`, with the version in the milliseconds: it grows with every version.
- A country code that ISO 3166-1 leaves to its users is none to STIX, nor is a place without a country: such a place is
  a note. The members say what it is.

Worked example: a case with one clue is `{"type": "bundle", "objects": [… , {"type": "note", "content": "A poster …"},
{"type": "grouping", "name": "XA-2026-0001", "object_refs": ["note--…"]}], "id": "bundle--…"}`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from gateway.adapters.casefields import Once, usable
from gateway.adapters.casemembers import head_members, members_of
from gateway.adapters.stixwords import (
    DEFINED,
    NOTHING,
    PROJECT,
    STIX_HASHES,
    confidence_of,
    marking_objects,
    markings_of,
    project_identity,
    stix_id,
    stix_time,
)
from gateway.caserecord import CaseRecord, Contact, EntryReference, Place, TimeFrame
from gateway.model import AdapterReport

NO_TEXT = "no_text"  # where STIX wants a text and the record has none, our words stand there
CASE_EXTENSION = "extension-definition--e2363e27-1111-4eb1-947c-61e4a23b6b36"
PART_OF_A_CASE = "Part of a case on the abuse of a child. The extension says what the case record says of it."
# ISO 3166-1, 8.1.3: what users may assign is no country's code to others.
_LEFT_TO_USERS = re.compile(r"AA|Q[M-Z]|X[A-Z]|ZZ")
Object = dict[str, object]


def write(cases: Iterable[CaseRecord], report: AdapterReport) -> Iterator[bytes]:
    """A bundle of these cases, piece by piece."""
    written: set[str] = set()
    named = hashlib.sha256()
    yield b'{"type":"bundle","objects":['
    once = Once()
    for record in cases:
        report.read += 1
        once.add(record)
        for one in objects_of(record, report):
            name = str(one["id"])
            if name in written and one["type"] in _SHARED:
                continue
            separator = b",\n" if written else b"\n"
            if one["type"] in _SHARED:
                written.add(name)
            else:
                written.add("")  # ids of parts are not gathered: only that something stands there
            yield separator + json.dumps(one, ensure_ascii=False, separators=(",", ":")).encode()
        named.update(f"{record.originator}\n{record.reference}\n{record.version}\n".encode())
        report.accepted += 1
    yield f'\n],"id":"{stix_id("bundle", "cases", named.hexdigest())}"}}\n'.encode()


_SHARED = frozenset({"identity", "extension-definition", "marking-definition"})  # of several cases, so written once


def objects_of(record: CaseRecord, report: AdapterReport) -> Iterator[Object]:
    """The objects of one case, those that are referred to before those that refer."""
    entries = [kept for entry in record.entries if (kept := usable(entry, report))]
    case = _Case(replace(record, entries=tuple(entries)))
    yield project_identity()
    yield _definition()
    yield case.agency
    if record.handling:
        yield from marking_objects(record.handling)
    parts = list(case.parts())
    yield from parts
    yield case.grouping([str(one["id"]) for one in parts])


class _Case:
    """Makes the objects of one record."""

    def __init__(self, record: CaseRecord) -> None:
        self._record = record
        self._owner = stix_id("identity", "cases", record.originator)
        self._id = stix_id("grouping", "case", record.originator, record.reference)

    @property
    def agency(self) -> Object:
        """The agency whose case it is."""
        return {
            "type": "identity",
            "spec_version": "2.1",
            "id": self._owner,
            "created_by_ref": PROJECT,
            "created": DEFINED,
            "modified": DEFINED,
            "name": self._record.originator,
            "description": "An agency that looks for children.",
            "identity_class": "organization",
        }

    def grouping(self, refs: list[str]) -> Object:
        """The case itself."""
        record = self._record
        head = head_members(record)
        found = self._object("grouping", self._id, head)
        found["name"] = record.reference
        found["description"] = self._told(record.summary, "A case on the abuse of a child.", head)
        found["context"] = "unspecified"
        if record.category:
            found["labels"] = [f"category:{record.category}"]
        confidence = confidence_of(record.evaluation)
        if confidence is not None:
            found["confidence"] = confidence
        # STIX wants one at least: a case without parts refers to whose it is.
        found["object_refs"] = refs or [self._owner]
        return found

    def parts(self) -> Iterator[Object]:
        """The objects to which the grouping refers."""
        record = self._record
        for victim in record.victims:
            members = members_of(victim, "ref")
            found = self._part("identity", "victim", victim.ref, members)
            yield found | self._identity(victim.ref, PART_OF_A_CASE, "individual", "victim")
        for person in record.persons:
            members = members_of(person, "ref", "description")
            found = self._part("identity", "person", person.ref, members)
            description = self._told(person.description, PART_OF_A_CASE, members)
            yield found | self._identity(person.ref, description, "individual", str(person.role))
        for number, clue in enumerate(record.clues):
            yield self._note(
                "clue",
                number,
                members_of(clue, "text", "confidence"),
                text=clue.text,
                told="",
                confidence=clue.confidence,
            )
        for number, frame in enumerate(record.time_frames):
            members, told = members_of(frame, "text", "confidence"), _days(frame)
            yield self._note("time_frame", number, members, text=frame.text, told=told, confidence=frame.confidence)
        for number, place in enumerate(record.places):
            yield self._place(number, place)
        for number, entry in enumerate(record.entries):
            yield self._indicator(number, entry)
        if record.contact:
            yield self._contact(record.contact)

    def _note(self, part: str, number: int, members: Object, *, text: str, told: str, confidence: int) -> Object:
        found = self._part("note", part, number, members)
        found["content"] = self._told(text, told, members)
        found["confidence"] = confidence
        found["object_refs"] = [self._id]
        return found

    def _place(self, number: int, place: Place) -> Object:
        members = members_of(place, "text", "confidence")
        if not place.country or _LEFT_TO_USERS.fullmatch(place.country):
            told = f"A place in {place.country}."
            return self._note("place", number, members, text=place.text, told=told, confidence=place.confidence)
        for name in ("country", "region"):
            members.pop(name, None)
        found = self._part("location", "place", number, members)
        found["name"] = ", ".join(word for word in (place.region, place.country) if word)
        found["description"] = self._told(place.text, PART_OF_A_CASE, members)
        found["country"] = place.country
        if place.region:
            found["administrative_area"] = place.region
        found["confidence"] = place.confidence
        return found

    def _indicator(self, number: int, entry: EntryReference) -> Object:
        digests = dict(entry.digests)
        members = members_of(entry, "digests")
        if "pdq" in digests:  # of which no pattern of STIX may speak
            members["digests"] = {"pdq": digests["pdq"].hex()}
        pattern = " OR ".join(
            f"file:hashes.{path if name == 'md5' else repr(path)} = '{digests[name].hex()}'"
            for name, path in STIX_HASHES.items()
            if name in digests
        )
        found = self._part("indicator", "entry", number, members)
        found["name"] = entry.set_name or f"File {number + 1}"
        found["description"] = PART_OF_A_CASE
        found["indicator_types"] = ["unknown"]
        found |= {"pattern": f"[{pattern}]" if pattern else NOTHING, "pattern_type": "stix", "pattern_version": "2.1"}
        found["valid_from"] = found["modified"]
        return found

    def _contact(self, contact: Contact) -> Object:
        told = [("telephone", contact.telephone), ("duty", contact.duty_telephone), ("e-mail", contact.email)]
        found = self._part("identity", "contact", 0, members_of(contact, "unit"))
        found |= self._identity(contact.unit, PART_OF_A_CASE, "organization", "contact")
        if lines := [f"{name}: {text}" for name, text in told if text]:
            found["contact_information"] = "\n".join(lines)
        return found

    @staticmethod
    def _identity(name: str, description: str, kind: str, role: str) -> Object:
        return {"name": name, "description": description, "identity_class": kind, "roles": [role]}

    @staticmethod
    def _told(text: str, ours: str, members: Object) -> str:
        """A text that STIX wants: the record's, or ours, which the members then tell."""
        if not text:
            members[NO_TEXT] = True
        return text or ours

    def _part(self, kind: str, part: str, which: int | str, members: Object) -> Object:
        record = self._record
        return self._object(kind, stix_id(kind, part, record.originator, record.reference, str(which)), members)

    def _object(self, kind: str, name: str, members: Object) -> Object:
        record = self._record
        found: Object = {
            "type": kind,
            "spec_version": "2.1",
            "id": name,
            "created_by_ref": self._owner,
            "created": stix_time(record.opened * 1000),
            "modified": stix_time(record.updated * 1000 + record.version % 1000),
            # The members are filled by whoever asked for this object; the extension holds the same dict.
            "extensions": {CASE_EXTENSION: members},
        }
        members["extension_type"] = "property-extension"
        if record.handling:
            found["object_marking_refs"] = markings_of(record.handling)
        return found


def _days(frame: TimeFrame) -> str:
    """A time frame in words."""
    if frame.earliest and frame.latest:
        return f"The material was made from {frame.earliest} to {frame.latest}."
    if frame.earliest:
        return f"The material was made on or after {frame.earliest}."
    return f"The material was made by {frame.latest}."


def _definition() -> Object:
    return {
        "type": "extension-definition",
        "spec_version": "2.1",
        "id": CASE_EXTENSION,
        "created_by_ref": PROJECT,
        "created": DEFINED,
        "modified": DEFINED,
        "name": "Case record",
        "description": "What a case record says beyond the properties of STIX: status, law, clues, persons, series.",
        "schema": "contracts/case-stix-1.md of the partner-exchange gateway",
        "version": "1.0.0",
        "extension_types": ["property-extension"],
    }
