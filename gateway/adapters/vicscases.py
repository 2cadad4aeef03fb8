"""Project VIC's VICS 2.0 case files (`#Cases`): what they say of a case, without its media.

The data model is not public; the names are those that open tools write (`contracts/vics-cases-1.md`).

Rules:
- `"@odata.context"` names version 2.0, a country and `#Cases`. It must stand before `"value"`, the list of cases.
- CaseNumber is the case reference, CaseID where there is no number. ContactOrganization, ContactPhone and ContactEmail
  are the contact; without an organization there is none, for a case names a unit, not a person.
- Media records are read over one by one, counted and dropped: they hold miniatures and paths, and files with them are
  gigabytes. CaseMetadata holds whatever a tool puts there, paths among it, so it is dropped and counted by name.
- Every other member is dropped and counted where it has a value.
- The day on which a case was opened is in no member, so `opened` and `updated` are the time of taking in.
- A case with a member twice, or with a bad one, is refused alone; a file whose JSON is broken, whole.

Worked example: `{"CaseNumber": "XA-0001", "ContactOrganization": "Example unit", "Media": [{…}, {…}]}` is a case record
with reference "XA-0001" and contact "Example unit"; the report counts 2 dropped under Media.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from typing import BinaryIO

from gateway.adapters.casefields import version_at
from gateway.adapters.caserows import CaseOptions, own_originator, take
from gateway.adapters.fields import read_text
from gateway.adapters.jsonrows import Doubled, Window, member_names
from gateway.adapters.rows import WHOLE_ROW, drop_named, refusal
from gateway.caserecord import CaseRecord, Contact
from gateway.model import AdapterReport

CONTEXT = "@odata.context"
RECORDS = "value"
MEDIA = "Media"
METADATA = "CaseMetadata"
CARRIED = ("CaseNumber", "CaseID", "ContactOrganization", "ContactPhone", "ContactEmail")
_CASES = re.compile(
    r"https?://github\.com/VICSDATAMODEL/ProjectVic/DataModels/2\.0\.xml/[A-Za-z]{2,16}/\$metadata#Cases"
)


def read(source: BinaryIO, report: AdapterReport, options: CaseOptions) -> Iterator[CaseRecord]:
    """The cases of a VICS case file. They are those of the agency that takes them in, opened then."""
    own_originator(options)
    window = Window(source)
    _read_head(window, report)
    if window.peek() == "]":
        window.expect("]")
    else:
        number = 1
        yield from _case(window, report, number, options)
        while window.expect(",]") == ",":
            number += 1
            yield from _case(window, report, number, options)
    while window.expect(",}") == ",":
        name = window.member_name()
        if name in (RECORDS, CONTEXT):
            raise window.fault(f"{name} stands twice or too late")
        window.value()
        drop_named(report, name)
    if window.peek():
        raise window.fault("there is more after the end")


def _read_head(window: Window, report: AdapterReport) -> None:
    is_known = False
    window.expect("{")
    while (name := window.member_name()) != RECORDS:
        value = window.value()
        if name == CONTEXT:
            if is_known or not (isinstance(value, str) and _CASES.fullmatch(value)):
                raise window.fault(f"{CONTEXT} does not name a VICS 2.0 case file")
            is_known = True
        else:
            drop_named(report, name)
        window.expect(",")
    if not is_known:
        raise window.fault(f"no {CONTEXT} before the cases")
    window.expect("[")


def _case(window: Window, report: AdapterReport, number: int, options: CaseOptions) -> Iterator[CaseRecord]:
    """The record of the case that stands next, nothing where it is refused."""
    window.record = number
    # Over the whole case first: whatever is wrong with it, the next one begins behind it.
    if window.peek() == "{":
        members, flaw = _members(window, report)
    else:
        window.value()
        members, flaw = {}, "is not an object"
    record = take(report, number, partial(_record, members, flaw, report, options))
    if record is not None:
        yield record


def _members(window: Window, report: AdapterReport) -> tuple[dict[str, object], str]:
    """The carried members, and what is wrong with the case as a whole."""
    members: dict[str, object] = {}
    seen: set[str] = set()
    flaw = ""
    window.expect("{")
    for name in member_names(window):
        # Names count up to a bound: a case has a few dozen, and they are kept only to find one twice.
        if name in seen or len(seen) > 1_000:
            flaw = "names a member twice, or too many"
        seen.add(name[:64])
        if name == MEDIA and window.peek() == "[":
            _read_over(window, report)
            continue
        value = window.value()
        if window.has_bad_byte():
            flaw = "is not UTF-8"
        if name in CARRIED:
            members[name] = value
        else:
            _drop(name, value, report)
    return members, flaw


def _read_over(window: Window, report: AdapterReport) -> None:
    """Step over the media records, holding one at a time."""
    window.expect("[")
    if window.peek() == "]":
        window.expect("]")
        return
    while True:
        window.value()
        report.drop(MEDIA)
        if window.expect(",]") == "]":
            return


def _drop(name: str, value: object, report: AdapterReport) -> None:
    if name == METADATA and isinstance(value, list):
        for one in value:
            stated = one.get("PropertyName") if isinstance(one, dict) else None
            drop_named(report, stated if isinstance(stated, str) else "", within=METADATA)
    elif value or value == 0:  # false and 0 are values; null, "", [] and {} are none
        drop_named(report, name)


def _record(members: dict[str, object], flaw: str, report: AdapterReport, options: CaseOptions) -> CaseRecord:
    if flaw:
        raise refusal(WHOLE_ROW, flaw)
    texts = {name: _text(members.get(name), name) for name in CARRIED}
    reference = texts["CaseNumber"] or texts["CaseID"]
    if not reference:
        raise refusal("CaseNumber", "is missing, and so is CaseID")
    if texts["CaseNumber"] and texts["CaseID"]:
        report.drop("CaseID")
    contact = None
    if texts["ContactOrganization"]:
        contact = Contact(texts["ContactOrganization"], texts["ContactPhone"], texts["ContactEmail"])
    else:
        for name in ("ContactPhone", "ContactEmail"):
            if texts[name]:
                report.drop(name)
    opened = options.read_at
    return CaseRecord(
        options.originator, reference, version=version_at(opened), opened=opened, updated=opened, contact=contact
    )


def _text(value: object, name: str) -> str:
    if value is None:
        return ""
    if isinstance(value, Doubled) or not isinstance(value, str):
        raise refusal(name, "is not text")
    return read_text(value, name)
