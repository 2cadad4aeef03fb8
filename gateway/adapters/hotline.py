"""Reports of a hotline as XML, after the public CyberTipline reporting form: what they say, never what they show.

Rules (`contracts/hotline-1.md`):
- The root is `report`, or `reports` with `report` and `fileDetails` in any order; the elements are those of the form,
  in no namespace. `reportId` in a report is the case reference; `fileDetails` belong to the report with the same one.
- What may pass is listed in `FORM`, element by element. Everything else is dropped and counted by its path: names and
  birth dates of persons, addresses of pages and profiles, names and places of files, words of chats, data of pictures.
- Of a child: how old, and the country and region. Its pseudonym is its number in the report.
- Of a person reported: the age as a person of interest; accounts, network addresses and devices as clues.
- Digests of files are entries. No file is opened, and none is named.
- Legal basis, purpose, category, handling, evaluation, review date and contact are in no element of the form: they stay
  empty, and the case waits for a person who states them.
- `opened` and `updated` are the time of taking in: the form's time is that of the incident, which the summary tells.

Worked example: `<report><reportId>77</reportId><incidentSummary><incidentType>Child Sex Trafficking</incidentType>…` is
a case record with reference "77" and summary "Incident: Child Sex Trafficking …".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import partial
from typing import BinaryIO

from gateway.adapters.casefields import UNSTATED_CONFIDENCE, entry_of, plain_line, plain_text, version_at
from gateway.adapters.caserows import CaseOptions, own_originator, take
from gateway.adapters.rows import UTF8_BOM, drop_named, read_chunk, refusal
from gateway.caserecord import (
    Age,
    CaseRecord,
    Clue,
    ClueKind,
    ClueSource,
    EntryReference,
    Person,
    PersonRole,
    Place,
    Urgency,
    Victim,
)
from gateway.errors import MalformedError, TooLargeError
from gateway.model import JURISDICTION, AdapterReport
from gateway.xml import Element, parse

MAX_BYTES = 16 * 1024 * 1024  # some thousand reports without files; an archive of more is given in parts
MAX_NODES = 400_000

# What passes, as a tree of the form's elements; of a leaf its text.
Form = dict[str, "Form"]
_IP: Form = {"ipAddress": {}, "eventName": {}, "dateTime": {}}
_DEVICE: Form = {"idType": {}, "idValue": {}}
_LOCATION: Form = {"city": {}, "region": {}, "countryCode": {}}
_ADDRESS: Form = {"state": {}, "nonUsaState": {}, "country": {}}
_ANNOTATIONS = (
    "sextortion",
    "csamSolicitation",
    "minorToMinorInteraction",
    "spam",
    "sadisticOnlineExploitation",
    "informational",
)
_REPORT_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_EMAIL = re.compile(r"[^\s/\\:;,<>@]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,8}")
_NETWORK_ADDRESS = re.compile(r"[0-9.]{7,15}|[0-9A-Fa-f:.]{2,45}")
_EVENT = re.compile(r"Login|Registration|Purchase|Upload|Other|Unknown")  # the form's list
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?(?:Z|[+-]\d\d:?\d\d)?", re.ASCII)
FORM: Form = {
    "reportId": {},
    "incidentSummary": {
        "incidentType": {},
        "platform": {},
        "escalateToHighPriority": {},
        "reportAnnotations": {name: {} for name in _ANNOTATIONS},
        "incidentDateTime": {},
        "incidentDateTimeDescription": {},
    },
    "personOrUserReported": {
        "personOrUserReportedPerson": {"age": {}, "email": {}, "address": _ADDRESS},
        "vehicleDescription": {},
        "espIdentifier": {},
        "espService": {},
        "screenName": {},
        "ipCaptureEvent": _IP,
        "deviceId": _DEVICE,
        "estimatedLocation": _LOCATION,
    },
    "victim": {"victimPerson": {"age": {}, "address": _ADDRESS}, "estimatedLocation": _LOCATION},
    "additionalInfo": {},
}
FILE_FORM: Form = {"reportId": {}, "originalFileHash": {}}


def read(source: BinaryIO, report: AdapterReport, options: CaseOptions) -> Iterator[CaseRecord]:
    """The cases of a file of hotline reports. They are those of the agency that takes them in, opened then."""
    own_originator(options)
    root = parse(_whole(source), max_bytes=MAX_BYTES, max_nodes=MAX_NODES)
    reports, files = _parts(root)
    by_report: dict[str, list[Element]] = {}
    for one in files:
        by_report.setdefault(_text(one, "reportId"), []).append(one)
    taken: set[str] = set()
    for number, one in enumerate(reports, 1):
        record = take(report, number, partial(_record, one, by_report, taken, report, options))
        if record is not None:
            taken.add(record.reference)
            yield record
    strays = sum(len(found) for key, found in by_report.items() if key not in taken)
    if strays:
        report.drop("fileDetails: of no report that was taken", strays)


def _whole(source: BinaryIO) -> bytes:
    pieces, size = [], 0
    while piece := read_chunk(source):
        size += len(piece)
        if size > MAX_BYTES:
            raise TooLargeError(
                f"the file is longer than {MAX_BYTES} bytes",
                remedy="give the reports in several files, without pictures",
            )
        pieces.append(piece)
    return b"".join(pieces).removeprefix(UTF8_BOM)


def _parts(root: Element) -> tuple[list[Element], list[Element]]:
    """The reports and the files' details."""
    if root.tag == "report":
        return [root], []
    if root.tag != "reports":
        raise MalformedError("the root is neither report nor reports in no namespace: this is no hotline report")
    if strange := {child.tag for child in root} - {"report", "fileDetails"}:
        raise MalformedError(f"reports holds {len(strange)} kinds of elements besides report and fileDetails")
    return [one for one in root if one.tag == "report"], [one for one in root if one.tag == "fileDetails"]


def _record(
    one: Element, by_report: dict[str, list[Element]], taken: set[str], report: AdapterReport, options: CaseOptions
) -> CaseRecord:
    reference = _text(one, "reportId")
    if not _REPORT_ID.fullmatch(reference):
        raise refusal("reportId", "is missing, or not up to 64 letters, digits, dashes and underscores")
    if reference in taken:
        raise refusal("reportId", "stands in two reports of the file")
    files = by_report.get(reference, [])
    # 1. What is not on the list is counted, so that nothing is lost silently.
    _count_dropped(one, FORM, report)
    for file in files:
        _count_dropped(file, FILE_FORM, report)
    # 2. What is on it is read.
    reported = one.findall("personOrUserReported")
    victims = one.findall("victim")
    places = [*_places(victims, "the child", report), *_places(reported, "the user reported", report)]
    high = _text(one, "incidentSummary/escalateToHighPriority")
    return CaseRecord(
        options.originator,
        reference,
        version=version_at(options.read_at),
        opened=options.read_at,
        updated=options.read_at,
        urgency=Urgency.PRIORITY if high else Urgency.ROUTINE,
        summary=_summary(one, report),
        victims=tuple(
            Victim(f"victim-{number}", age=_age(victim, "victimPerson/age")) for number, victim in enumerate(victims, 1)
        ),
        clues=tuple(_clues(reported, report)),
        places=tuple(places),
        persons=tuple(_persons(reported)),
        entries=tuple(_entries(files, report)),
    )


def _count_dropped(element: Element, form: Form, report: AdapterReport, within: str = "") -> None:
    for child in element:
        name = str(child.tag)
        inner = form.get(name)
        if inner is None:
            drop_named(report, name, within=within)
        elif inner:
            _count_dropped(child, inner, report, name)
        else:
            # Whatever stands in a leaf besides its text is not read.
            for stray in child:
                drop_named(report, str(stray.tag), within=name)


def _summary(one: Element, report: AdapterReport) -> str:
    """What happened, one line for each thing that is stated."""
    summary = one.find("incidentSummary")
    lines = []
    if summary is not None:
        for name, words in (
            ("incidentType", "Incident"),
            ("incidentDateTime", "Time of the incident"),
            ("incidentDateTimeDescription", "What that time is"),
            ("platform", "Platform"),
            ("escalateToHighPriority", "High priority because"),
        ):
            if text := plain_line(_text(summary, name), name, report):
                lines.append(f"{words}: {text}")
        annotations = summary.find("reportAnnotations")
        if annotations is not None and (found := [str(a.tag) for a in annotations if a.tag in _ANNOTATIONS]):
            lines.append(f"Annotations: {', '.join(found)}")
    if told := plain_text(_text(one, "additionalInfo"), "additionalInfo", report):
        lines.append(told)
    return plain_text("\n".join(lines), "summary", report)


def _clues(reported: Iterable[Element], report: AdapterReport) -> Iterator[Clue]:
    for person in reported:
        account = [
            f"{words} {text}"
            for name, words in (
                ("espService", "service"),
                ("espIdentifier", "identifier"),
                ("screenName", "screen name"),
            )
            if (text := plain_line(_text(person, name), name, report))
        ]
        if account:
            yield _clue(ClueKind.ACCOUNT, f"Account: {', '.join(account)}")
        for email in person.findall("personOrUserReportedPerson/email"):
            if text := _formed(email.text or "", _EMAIL, "email", report):
                yield _clue(ClueKind.ACCOUNT, f"E-mail address: {text}")
        for event in person.findall("ipCaptureEvent"):
            if address := _formed(_text(event, "ipAddress"), _NETWORK_ADDRESS, "ipAddress", report):
                name = _formed(_text(event, "eventName"), _EVENT, "eventName", report)
                time = _formed(_text(event, "dateTime"), _TIME, "dateTime", report)
                told = [text for text in (name, time) if text]
                yield _clue(ClueKind.DEVICE_DATA, " ".join([f"Network address: {address}", *told]))
        for device in person.findall("deviceId"):
            kind, value = (plain_line(_text(device, name), name, report) for name in ("idType", "idValue"))
            if value:
                yield _clue(ClueKind.DEVICE_DATA, f"Device: {kind} {value}")
        if text := plain_text(_text(person, "vehicleDescription"), "vehicleDescription", report):
            yield _clue(ClueKind.VEHICLE, text)


def _formed(text: str, form: re.Pattern[str], name: str, report: AdapterReport) -> str:
    """The text if it has its form; another is dropped and counted, for it may be anything."""
    text = text.strip()
    if text and not form.fullmatch(text):
        report.drop(f"{name}: not in its form")
        return ""
    return text


def _clue(kind: ClueKind, text: str) -> Clue:
    return Clue(kind, text, UNSTATED_CONFIDENCE, ClueSource.HOTLINE)


def _places(parties: Iterable[Element], whose: str, report: AdapterReport) -> Iterator[Place]:
    for party in parties:
        for location in party.findall("estimatedLocation"):
            region, city = (plain_line(_text(location, name), name, report) for name in ("region", "city"))
            country = plain_line(_text(location, "countryCode"), "countryCode", report)
            yield from _place(country, region, f"Estimated location of {whose}", city)
        for path in ("victimPerson/address", "personOrUserReportedPerson/address"):
            for address in party.findall(path):
                state = _text(address, "state") or _text(address, "nonUsaState")
                country = plain_line(_text(address, "country"), "country", report)
                yield from _place(country, plain_line(state, "state", report), f"Address of {whose}", "")


def _place(country: str, region: str, words: str, city: str) -> Iterator[Place]:
    if not (country or region or city):
        return
    if JURISDICTION.fullmatch(country):
        told = f"{words}: {city}" if city else words
        yield Place(country, region, told, UNSTATED_CONFIDENCE, ClueSource.HOTLINE)
    else:  # no code, so it points to nobody, but it is told
        named = ", ".join(text for text in (city, region, country) if text)
        yield Place("", "", f"{words}: {named}", UNSTATED_CONFIDENCE, ClueSource.HOTLINE)


def _persons(reported: Iterable[Element]) -> Iterator[Person]:
    for number, person in enumerate(reported, 1):
        yield Person(f"reported-{number}", PersonRole.SUSPECT, age=_age(person, "personOrUserReportedPerson/age"))


def _entries(files: Iterable[Element], report: AdapterReport) -> Iterator[EntryReference]:
    known = set()
    for file in files:
        stated = [(one.get("hashType", ""), one.text or "") for one in file.findall("originalFileHash")]
        entry = entry_of(stated, "originalFileHash", report)
        if entry is not None and entry not in known:
            known.add(entry)
            yield entry


def _age(party: Element, path: str) -> Age | None:
    text = _text(party, path)
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 3):
        raise refusal("age", "is not a number of years")
    return Age(int(text), int(text))


def _text(element: Element, path: str) -> str:
    """The text at a path, "" where there is none. Two of them are no statement."""
    found = element.findall(path)
    if len(found) > 1:
        raise refusal(path.rpartition("/")[2], "stands twice")
    return (found[0].text or "").strip() if found else ""
