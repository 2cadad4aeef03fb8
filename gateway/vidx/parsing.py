"""Bytes to a case report: the parser's bounds, the schema, the record's own rules, and the groups that it names.

The schema has been met when the reading begins, so what an element may hold is known; what a schema cannot say (a range
that ends before it begins, texts that are not sorted) the values refuse as they are built.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cache

from gateway import xml
from gateway.caserecord import (
    CASE_GROUPS,
    Age,
    CaseRecord,
    Clue,
    ClueKind,
    ClueSource,
    Contact,
    EntryReference,
    Mark,
    MarkKind,
    Person,
    PersonRole,
    Place,
    SeriesName,
    Sex,
    StatusStep,
    TimeFrame,
    Urgency,
    Victim,
)
from gateway.errors import MalformedError
from gateway.model import FieldGroup, HandlingCode, Label, Purpose, Restriction, VictimStatus, require
from gateway.vidx.dumping import DRAFT, HASH_FUNCTIONS, MAX_CASE_BYTES, NAMESPACE
from gateway.vidx.redacting import lacking, redact
from gateway.vidx.schema import XSD

_ALGORITHMS = {function: name for name, function in HASH_FUNCTIONS.items()}


@dataclass(frozen=True, slots=True)
class CaseReport:
    """A case as far as its report holds it. Of a group that is not in `groups` the record's fields are empty."""

    record: CaseRecord
    groups: frozenset[FieldGroup]

    @property
    def missing(self) -> tuple[str, ...]:
        """What law and policy need and the report should hold; empty for all but a draft."""
        return lacking(self.record, self.groups)

    @property
    def label(self) -> Label:
        """What policy judges here. Where the victims' status was withheld the label says so."""
        record = self.record
        require(not self.missing, "case: what policy judges by is not stated yet")
        assert record.handling is not None
        shown = FieldGroup.VICTIM_STATUS in self.groups
        return Label(
            record.originator,
            record.originator[:2],
            record.handling,
            record.category,
            record.victim_status if shown else VictimStatus.WITHHELD,
            record.evaluation,
            record.legal_basis,
            record.restrictions,
            record.onward,
        )


def parse_case(raw: bytes, *, drafts: bool = False) -> CaseReport:
    """The case that `dump_case` wrote, or another tool in any other spacing.

    Args:
        raw: at most `MAX_CASE_BYTES`.
        drafts: take what is not complete too: for what is kept here, never for what a partner sent.

    Raises:
        MalformedError: not as the contract says; `place` names the line or the field, never a value.
        TooLargeError: longer, or of more parts.
    """
    root = xml.parse(raw, max_bytes=MAX_CASE_BYTES)
    _schema().require(root)
    draft = root.tag == _tag(DRAFT)
    require(drafts or not draft, "the case is a draft, not a report")
    groups = frozenset(map(FieldGroup, _texts(root, "ReportFieldGroupCode")))
    require(FieldGroup.EXISTENCE in groups, "the case: the report does not name existence among its field groups")
    require(not draft or groups == frozenset(CASE_GROUPS), "the case: a draft leaves out a field group")
    record = _record(root)
    report = CaseReport(record, groups)
    require(draft or not report.missing, f"the case is not complete: {', '.join(report.missing)}")
    if redact(record, groups) != record:
        raise MalformedError("the case: the report holds something of a field group that it does not name")
    return report


@cache
def _schema() -> xml.Schema:
    return xml.Schema(XSD)


def _record(root: xml.Element) -> CaseRecord:
    handling, purpose = _text(root, "HandlingCode"), _text(root, "PurposeCode")
    contact = root.find(_tag("ContactInformation"))
    return CaseRecord(
        originator=_text(root, "CaseOriginatingAgencyID"),
        reference=_text(root, "CaseTrackingID"),
        version=_number(root, "CaseVersionNumber"),
        opened=_moment(root, "CaseOpenedDateTime"),
        updated=_moment(root, "CaseLastModifiedDateTime"),
        urgency=Urgency(_text(root, "CaseUrgencyCode")),
        handling=HandlingCode(handling) if handling else None,
        category=_text(root, "CaseCategoryText"),
        evaluation=_text(root, "EvaluationCode"),
        legal_basis=_text(root, "LegalBasisText"),
        purpose=Purpose(purpose) if purpose else None,
        review_on=_date(root, "ReviewDate"),
        restrictions=tuple(map(Restriction, _texts(root, "RestrictionCode"))),
        onward=tuple(_texts(root, "OnwardJurisdictionCode")),
        entries=tuple(map(_entry, _all(root, "HashEntryReference"))),
        series=tuple(map(_series, _all(root, "Series"))),
        victims=tuple(map(_victim, _all(root, "Victim"))),
        summary=_text(root, "CaseDescriptionText"),
        clues=tuple(map(_clue, _all(root, "Clue"))),
        time_frames=tuple(map(_time_frame, _all(root, "TimeFrame"))),
        places=tuple(map(_place, _all(root, "Location"))),
        persons=tuple(map(_person, _all(root, "PersonOfInterest"))),
        contact=None if contact is None else _contact(contact),
        extensions=tuple(
            (_text(one, "AugmentationName"), _text(one, "AugmentationText")) for one in _all(root, "CaseAugmentation")
        ),
    )


def _entry(element: xml.Element) -> EntryReference:
    digests = tuple(
        (_ALGORITHMS[_text(one, "BinaryHashFunctionCode")], bytes.fromhex(_text(one, "BinaryHashCode")))
        for one in _all(element, "BinaryHash")
    )
    return EntryReference(_text(element, "HashSetName"), _number(element, "HashEntryID"), digests)


def _series(element: xml.Element) -> SeriesName:
    aliases = tuple(_texts(element, "SeriesAliasName"))
    return SeriesName(_text(element, "SeriesName"), _text(element, "SeriesOwnerAgencyID"), aliases)


def _victim(element: xml.Element) -> Victim:
    history = tuple(
        StatusStep(
            VictimStatus(_text(one, "StatusCode")),
            _text(one, "StatusIssuerAgencyID"),
            _moment(one, "StatusDateTime"),
            _text(one, "StatusReasonText"),
        )
        for one in _all(element, "VictimStatus")
    )
    return Victim(_text(element, "VictimReferenceID"), history, _age(element), Sex(_text(element, "PersonSexCode")))


def _age(element: xml.Element) -> Age | None:
    age = element.find(_tag("PersonAgeMeasure"))
    if age is None:
        return None
    return Age(_number(age, "RangeMinimumIntegerValue"), _number(age, "RangeMaximumIntegerValue"))


def _clue(element: xml.Element) -> Clue:
    return Clue(
        ClueKind(_text(element, "ClueCategoryCode")),
        _text(element, "ClueDescriptionText"),
        *_said(element),
        _date(element, "ObservationDate"),
    )


def _time_frame(element: xml.Element) -> TimeFrame:
    ends = _date(element, "StartDate"), _date(element, "EndDate")
    return TimeFrame(*ends, *_said(element), _text(element, "TimeFrameDescriptionText"))


def _place(element: xml.Element) -> Place:
    names = ("LocationCountryCode", "LocationRegionText", "LocationDescriptionText")
    country, region, text = (_text(element, name) for name in names)
    return Place(country, region, text, *_said(element))


def _person(element: xml.Element) -> Person:
    marks = tuple(
        Mark(
            MarkKind(_text(one, "PhysicalFeatureCategoryCode")),
            _text(one, "PhysicalFeatureLocationText"),
            _text(one, "PhysicalFeatureDescriptionText"),
        )
        for one in _all(element, "PhysicalFeature")
    )
    return Person(
        _text(element, "PersonReferenceID"),
        PersonRole(_text(element, "PersonRoleCode")),
        marks,
        _text(element, "PersonDescriptionText"),
        _age(element),
        Sex(_text(element, "PersonSexCode")),
        _text(element, "PublicReleaseIndicator").strip() == "true",
    )


def _contact(element: xml.Element) -> Contact:
    names = ("OrganizationUnitName", "ContactTelephoneNumber", "ContactEmailID", "ContactDutyTelephoneNumber")
    return Contact(*(_text(element, name) for name in names))


def _said(element: xml.Element) -> tuple[int, ClueSource]:
    return _number(element, "ConfidencePercent"), ClueSource(_text(element, "SourceCode"))


def _tag(name: str) -> str:
    return f"{{{NAMESPACE}}}{name}"


def _all(element: xml.Element, name: str) -> list[xml.Element]:
    return element.findall(_tag(name))


def _texts(element: xml.Element, name: str) -> list[str]:
    return [one.text or "" for one in _all(element, name)]


def _text(element: xml.Element, name: str) -> str:
    return element.findtext(_tag(name)) or ""


def _number(element: xml.Element, name: str) -> int:
    return int(_text(element, name) or "0")


def _date(element: xml.Element, name: str) -> date | None:
    text = _text(element, name).strip()  # XML's own dates and numbers may have space around them
    return date.fromisoformat(text) if text else None


def _moment(element: xml.Element, name: str) -> int:
    text = _text(element, name).strip()
    return int(datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp())
