"""A case record to its canonical bytes: an element a line, two blanks for a level, in the order of the schema.

Every value has one spelling, an empty one is not written, there are no attributes: equal records are equal bytes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, date, datetime
from typing import TypeAlias
from xml.sax.saxutils import escape

from gateway import xml
from gateway.caserecord import (
    CASE_GROUPS,
    Age,
    CaseRecord,
    Clue,
    Contact,
    EntryReference,
    Person,
    Place,
    SeriesName,
    TimeFrame,
    Victim,
)
from gateway.errors import MalformedError
from gateway.model import FieldGroup
from gateway.vidx.redacting import lacking, redact

NAMESPACE = "urn:partner-exchange:vidx:1.0"
REPORT, DRAFT = "CaseReport", "CaseDraft"
MAX_CASE_BYTES = 1 << 20  # more than any case of a few hundred clues; a case of thousands of hashes names its set
HASH_FUNCTIONS = {"md5": "MD5", "pdq": "PDQ", "sha1": "SHA-1", "sha256": "SHA-256", "sha512": "SHA-512"}

# An element: its name, and its text or the elements in it.
Node: TypeAlias = "tuple[str, str | list[Node]]"


def dump_case(record: CaseRecord, groups: Collection[FieldGroup] | None = None) -> bytes:
    """The record's canonical bytes.

    Args:
        record: whole.
        groups: what of it may go, for a report that leaves; None to keep it here, whole, as a draft where it has to be.

    Raises:
        MalformedError: it is to leave and is not complete.
        TooLargeError: longer than `MAX_CASE_BYTES`, or of too many elements.
        DeniedError: not even its existence may be known.
    """
    held = frozenset(CASE_GROUPS if groups is None else groups)
    missing = lacking(record, held)
    if missing and groups is not None:
        raise MalformedError(
            f"the case is not complete: {', '.join(missing)}", remedy="state what is missing before it goes anywhere"
        )
    root = (DRAFT if missing else REPORT), list(_case(redact(record, held), held))
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', *_lines(root, "", f' xmlns="{NAMESPACE}"'), ""]
    raw = "\n".join(lines).encode()
    xml.parse(raw, max_bytes=MAX_CASE_BYTES)  # what is written within the bounds can be read
    return raw


def _lines(node: Node, pad: str, attributes: str = "") -> Iterator[str]:
    name, content = node
    if isinstance(content, str):
        yield f"{pad}<{name}>{escape(content)}</{name}>"
        return
    yield f"{pad}<{name}{attributes}>"
    for child in content:
        yield from _lines(child, pad + "  ")
    yield f"{pad}</{name}>"


def _case(record: CaseRecord, groups: frozenset[FieldGroup]) -> Iterator[Node]:
    yield from (("ReportFieldGroupCode", group) for group in CASE_GROUPS if group in groups)
    yield "CaseOriginatingAgencyID", record.originator
    yield "CaseTrackingID", record.reference
    yield "CaseVersionNumber", str(record.version)
    yield "CaseOpenedDateTime", _moment(record.opened)
    yield "CaseLastModifiedDateTime", _moment(record.updated)
    yield "CaseUrgencyCode", record.urgency
    yield from _stated("HandlingCode", record.handling)
    yield from _stated("CaseCategoryText", record.category)
    yield from _stated("EvaluationCode", record.evaluation)
    yield from _stated("LegalBasisText", record.legal_basis)
    yield from _stated("PurposeCode", record.purpose)
    yield from _stated("ReviewDate", record.review_on)
    yield from (("RestrictionCode", tag) for tag in record.restrictions)
    yield from (("OnwardJurisdictionCode", code) for code in record.onward)
    yield from (("HashEntryReference", list(_entry(entry))) for entry in record.entries)
    yield from (("Series", list(_series(series))) for series in record.series)
    yield from (("Victim", list(_victim(victim))) for victim in record.victims)
    yield from _stated("CaseDescriptionText", record.summary)
    yield from (("Clue", list(_clue(clue))) for clue in record.clues)
    yield from (("TimeFrame", list(_time_frame(frame))) for frame in record.time_frames)
    yield from (("Location", list(_place(place))) for place in record.places)
    yield from (("PersonOfInterest", list(_person(person))) for person in record.persons)
    if record.contact is not None:
        yield "ContactInformation", list(_contact(record.contact))
    for name, text in record.extensions:
        yield "CaseAugmentation", [("AugmentationName", name), *_stated("AugmentationText", text)]


def _entry(entry: EntryReference) -> Iterator[Node]:
    if entry.set_name:
        yield "HashSetName", entry.set_name
        yield "HashEntryID", str(entry.entry_id)
    for name, value in entry.digests:
        yield "BinaryHash", [("BinaryHashFunctionCode", HASH_FUNCTIONS[name]), ("BinaryHashCode", value.hex())]


def _series(series: SeriesName) -> Iterator[Node]:
    yield "SeriesName", series.name
    yield "SeriesOwnerAgencyID", series.owner
    yield from (("SeriesAliasName", alias) for alias in series.aliases)


def _victim(victim: Victim) -> Iterator[Node]:
    yield "VictimReferenceID", victim.ref
    for step in victim.history:
        status: list[Node] = [
            ("StatusCode", step.status),
            ("StatusIssuerAgencyID", step.owner),
            ("StatusDateTime", _moment(step.at)),
        ]
        yield "VictimStatus", [*status, *_stated("StatusReasonText", step.reason)]
    yield from _age(victim.age)
    yield "PersonSexCode", victim.sex


def _age(age: Age | None) -> Iterator[Node]:
    if age is not None:
        low: Node = ("RangeMinimumIntegerValue", str(age.low))
        yield "PersonAgeMeasure", [low, ("RangeMaximumIntegerValue", str(age.high))]


def _clue(clue: Clue) -> Iterator[Node]:
    yield "ClueCategoryCode", clue.kind
    yield "ClueDescriptionText", clue.text
    yield from _said(clue)
    yield from _stated("ObservationDate", clue.observed)


def _time_frame(frame: TimeFrame) -> Iterator[Node]:
    yield from _stated("StartDate", frame.earliest)
    yield from _stated("EndDate", frame.latest)
    yield from _stated("TimeFrameDescriptionText", frame.text)
    yield from _said(frame)


def _place(place: Place) -> Iterator[Node]:
    yield from _stated("LocationCountryCode", place.country)
    yield from _stated("LocationRegionText", place.region)
    yield from _stated("LocationDescriptionText", place.text)
    yield from _said(place)


def _person(person: Person) -> Iterator[Node]:
    yield "PersonReferenceID", person.ref
    yield "PersonRoleCode", person.role
    for mark in person.marks:
        part = _stated("PhysicalFeatureLocationText", mark.body_part)
        text: Node = ("PhysicalFeatureDescriptionText", mark.text)
        yield "PhysicalFeature", [("PhysicalFeatureCategoryCode", mark.kind), *part, text]
    yield from _stated("PersonDescriptionText", person.description)
    yield from _age(person.age)
    yield "PersonSexCode", person.sex
    yield "PublicReleaseIndicator", "true" if person.releasable else "false"


def _contact(contact: Contact) -> Iterator[Node]:
    yield "OrganizationUnitName", contact.unit
    yield from _stated("ContactTelephoneNumber", contact.telephone)
    yield from _stated("ContactEmailID", contact.email)
    yield from _stated("ContactDutyTelephoneNumber", contact.duty_telephone)


def _said(part: Clue | TimeFrame | Place) -> Iterable[Node]:
    return ("ConfidencePercent", str(part.confidence)), ("SourceCode", part.source)


def _stated(name: str, value: str | date | None) -> Iterable[Node]:
    return [(name, str(value))] if value else []  # a date's text is ISO 8601


def _moment(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
