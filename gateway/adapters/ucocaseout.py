"""Case records out as CASE/UCO 1.5 JSON-LD: an `Investigation` for each case, and the objects in it.

Rules (`contracts/case-uco-1.md`):
- What is written is made of the record and of nothing else. A record is redacted before it comes here.
- The context stands in the file, so no reader has to fetch one.
- Where the ontology has a property, the value stands there and nowhere else; the rest are properties of ours
  (`casemembers`), under the prefix `gw`. The validator of CASE lets other vocabularies be.
- An id follows from originator, reference and place in the case: the same on every day and every machine.

Worked example: a case with one clue is an `Investigation` whose `uco-core:object` names a `uco-core:Annotation`: its
statement is the clue's text, and it has a `ConfidenceFacet`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime

from gateway.adapters.casefields import Once, usable
from gateway.adapters.casemembers import head_members, members_of
from gateway.adapters.caseout import CONTEXT, METHODS, iri, marking, marking_id
from gateway.caserecord import CaseRecord, EntryReference, TimeFrame
from gateway.model import AdapterReport

VOCABULARY = "urn:partner-exchange:case-record:"
CASE_CONTEXT = {
    **CONTEXT,
    "case-investigation": "https://ontology.caseontology.org/case/investigation/",
    "gw": VOCABULARY,
    "uco-location": "https://ontology.unifiedcyberontology.org/uco/location/",
}
Node = dict[str, object]


def write(cases: Iterable[CaseRecord], report: AdapterReport) -> Iterator[bytes]:
    """A graph of these cases, piece by piece."""
    shared: set[str] = set()
    separator = b"\n"
    yield b'{"@context":' + _json(CASE_CONTEXT) + b',"@graph":['
    once = Once()
    for record in cases:
        report.read += 1
        once.add(record)
        for one in _shared(record):
            if one["@id"] not in shared:
                shared.add(str(one["@id"]))
                yield separator + _json(one)
                separator = b",\n"
        for one in objects_of(record, report):
            yield separator + _json(one)
        report.accepted += 1
    yield b"\n]}\n"


def _shared(record: CaseRecord) -> Iterator[Node]:
    """What several cases may refer to."""
    yield {"@id": _agency(record), "@type": "uco-identity:Organization", "uco-core:name": record.originator}
    if record.handling:
        yield marking(record.handling)


def objects_of(record: CaseRecord, report: AdapterReport) -> Iterator[Node]:
    """The objects of one case, the investigation last."""
    entries = [kept for entry in record.entries if (kept := usable(entry, report))]
    case = _Case(replace(record, entries=tuple(entries)))
    parts = list(case.parts())
    yield from parts
    yield case.investigation([{"@id": one["@id"]} for one in parts])


class _Case:
    """Makes the objects of one record."""

    def __init__(self, record: CaseRecord) -> None:
        self._record = record
        self._id = self._iri("investigation")

    def investigation(self, parts: list[Node]) -> Node:
        """The case itself."""
        record = self._record
        members = head_members(record)
        found = self._object("case-investigation:Investigation", self._id, members)
        found["uco-core:name"] = record.reference
        if record.summary:
            found["uco-core:description"] = record.summary
        found["uco-core:objectCreatedTime"] = _moment(record.opened)
        found["uco-core:modifiedTime"] = _moment(record.updated)
        if parts:
            found["uco-core:object"] = parts
        return found

    def parts(self) -> Iterator[Node]:
        """The objects in the investigation."""
        record = self._record
        for victim in record.victims:
            found = self._part("uco-identity:Person", victim.ref, members_of(victim, "ref"))
            yield found | {"uco-core:name": victim.ref, "uco-core:tag": ["victim"]}
        for person in record.persons:
            found = self._part("uco-identity:Person", person.ref, members_of(person, "ref", "description"))
            found |= {"uco-core:name": person.ref, "uco-core:tag": [str(person.role)]}
            yield found | _described(person.description)
        for number, clue in enumerate(record.clues):
            found = self._part("uco-core:Annotation", str(number), members_of(clue, "text", "confidence"))
            found |= {"uco-core:statement": clue.text, "uco-core:object": [{"@id": self._id}]}
            yield found | self._confidence("clue", number, clue.confidence)
        for number, frame in enumerate(record.time_frames):
            yield self._event(number, frame)
        for number, place in enumerate(record.places):
            members = members_of(place, "text", "confidence", "country", "region")
            found = self._part("uco-location:Location", str(number), members) | _described(place.text)
            confidence = self._confidence("place", number, place.confidence)
            if place.country:
                address: Node = {"@id": self._iri("simple-address-facet", "place", str(number))}
                address |= {"@type": "uco-location:SimpleAddressFacet", "uco-location:country": place.country}
                address |= {"uco-location:region": place.region} if place.region else {}
                confidence = {"uco-core:hasFacet": [address, *confidence["uco-core:hasFacet"]]}
            yield found | confidence
        for number, entry in enumerate(record.entries):
            yield self._file(number, entry)
        if record.contact:
            members = members_of(record.contact, "unit")
            found = self._part("uco-identity:Organization", "", members)
            yield found | {"uco-core:name": record.contact.unit, "uco-core:tag": ["contact"]}

    def _event(self, number: int, frame: TimeFrame) -> Node:
        members = members_of(frame, "text", "confidence", "earliest", "latest")
        found = self._part("uco-core:Event", str(number), members)
        found["uco-core:eventType"] = "making of the material"
        if frame.earliest:
            found["uco-core:startTime"] = _day(frame.earliest, "00:00:00")
        if frame.latest:
            found["uco-core:endTime"] = _day(frame.latest, "23:59:59")
        return found | _described(frame.text) | self._confidence("time_frame", number, frame.confidence)

    def _file(self, number: int, entry: EntryReference) -> Node:
        found = self._part("uco-observable:File", str(number), members_of(entry, "digests"))
        hashes: list[Node] = [
            {
                "@id": self._iri("hash", str(number), name),
                "@type": "uco-types:Hash",
                "uco-types:hashMethod": METHODS[name],
                "uco-types:hashValue": {"@type": "xsd:hexBinary", "@value": value.hex()},
            }
            for name, value in entry.digests
        ]
        if hashes:
            facet = {"@id": self._iri("content-data-facet", str(number)), "@type": "uco-observable:ContentDataFacet"}
            found["uco-core:hasFacet"] = [{**facet, "uco-observable:hash": hashes}]
        return found

    def _confidence(self, part: str, number: int, percent: int) -> dict[str, list[Node]]:
        facet: Node = {
            "@id": self._iri("confidence-facet", part, str(number)),
            "@type": "uco-core:ConfidenceFacet",
            "uco-core:confidence": {"@type": "xsd:nonNegativeInteger", "@value": str(percent)},
        }
        return {"uco-core:hasFacet": [facet]}

    def _part(self, kind: str, which: str, members: dict[str, object]) -> Node:
        return self._object(kind, self._iri(str(members["part"]).replace("_", "-"), which), members)

    def _object(self, kind: str, name: str, members: dict[str, object]) -> Node:
        found: Node = {"@id": name, "@type": kind, "uco-core:createdBy": {"@id": _agency(self._record)}}
        if self._record.handling:
            found["uco-core:objectMarking"] = [{"@id": marking_id(self._record.handling)}]
        return found | _own(members)

    def _iri(self, kind: str, *words: str) -> str:
        return iri(kind, "record", self._record.originator, self._record.reference, *words)


def _agency(record: CaseRecord) -> str:
    return iri("organization", record.originator)


def _described(text: str) -> Node:
    return {"uco-core:description": text} if text else {}


def _own(members: dict[str, object]) -> Node:
    """Members of ours as properties: a list keeps its order, an object is a node without a name."""
    return {f"gw:{name}": _own_value(value) for name, value in members.items()}


def _own_value(value: object) -> object:
    if isinstance(value, list):
        return {"@list": [_own_value(one) for one in value]}
    return _own(value) if isinstance(value, dict) else value


def _moment(seconds: int) -> Node:
    return {"@type": "xsd:dateTime", "@value": f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"}


def _day(found: date, time: str) -> Node:
    return {"@type": "xsd:dateTime", "@value": f"{found.isoformat()}T{time}Z"}


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
