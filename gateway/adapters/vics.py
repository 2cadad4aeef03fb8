"""Project VIC's VICS media lists, versions 1.1 to 1.3 and 2.0, and the media of VICS 2.0 case files: one JSON object,
read record by record.

The data model is not public; the names are those that open readers and writers use.

Rules:
- `"@odata.context"` names version 2.0 and a country, `"odata.metadata"` version 1.x. It must stand before `"value"`,
  the list of records, as all known writers put it: nothing is kept back until it turns up.
- A category is a number whose meaning is the country's: it is carried as scheme:number, 0 included, never translated.
  The scheme is `vics-us` for country US; for `Default` the user's `category_scheme`, else `vics-default`; for 1.x the
  user's, else `vics-1.3`.
- VictimIdentified true, false or absent becomes victim_status identified, unidentified or not stated. MediaID becomes
  source_ref, Series series, MimeType media_type, DateUpdated seen.
- Digests are MD5, SHA1, SHA256, SHA512, PhotoDNA and the AlternativeHashes that this gateway knows; two that disagree
  refuse the record.
- Every other member is dropped at the door and counted where it has a value. So imagery, paths and remarks
  (Miniature, RelativeFilePath, MediaFiles, Exifs, Tags, Comments) never pass, under whatever name.
- Of a case file (`#Cases`) the lists `Media` of its cases are read, one after the other; what else its cases say is for
  `vicscases`, and is dropped and counted here. A MediaID is one within its case only, so it is no reference there.
- A record that names a member twice is refused: which one counts would be a guess.
- In the report `line` is the number of the record in the list, from 1. Faults of the file name record and line.

Worked example: `{"@odata.context": "http://github.com/VICSDATAMODEL/ProjectVic/DataModels/2.0.xml/US/$metadata#Media",
"value": [{"MediaID": 7, "Category": 0, "MD5": "88653FC1…5C70"}]}` is one draft: source_ref "7", category "vics-us:0".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO

from gateway.adapters.fields import DIGEST_READERS, VICTIM_STATUS_BY_FLAG, read_flag, read_moment, read_text
from gateway.adapters.jsonrows import Doubled, Window, member_names, records
from gateway.adapters.rows import (
    NO_DIGEST,
    WHOLE_ROW,
    ReadOptions,
    drop_named,
    in_chunks,
    refusal,
)
from gateway.columns.drafts import DraftBatch
from gateway.errors import MalformedError
from gateway.model import AdapterReport, EntryDraft

CONTEXT_2 = "@odata.context"
CONTEXT_1 = "odata.metadata"
RECORDS = "value"
MEDIA = "Media"  # of a case

DIGEST_MEMBERS = {"MD5": "md5", "SHA1": "sha1", "SHA256": "sha256", "SHA512": "sha512", "PhotoDNA": "photodna"}
OTHER_MEMBERS = ("MediaID", "Category", "AlternativeHashes", "VictimIdentified", "Series", "MimeType", "DateUpdated")
# HashName without case, spaces, dashes and underscores, so that "SHA-256" and "PhotoDNA" are met however spelt.
ALTERNATIVE_HASHES = {
    "md5": "md5",
    "sha1": "sha1",
    "sha256": "sha256",
    "sha512": "sha512",
    "photodna": "photodna",
    "pdna": "photodna",
    "pdq": "pdq",
    "ssdeep": "ssdeep",
    "vpdq": "vpdq",
}

_CARRIED = frozenset(OTHER_MEMBERS)
_MEDIA_2 = re.compile(
    r"https?://github\.com/VICSDATAMODEL/ProjectVic/DataModels/2\.0\.xml/([A-Za-z]{2,16})/\$metadata#(Media|Cases)"
)
_MEDIA_1 = re.compile(r"https?://github\.com/ICMEC/ProjectVic/DataModels/(1\.[123])\.xml#Media")
_CATEGORY_NUMBER = re.compile(r"[0-9]{1,9}")  # more digits are a mistake, not a category
_SPELLING = str.maketrans("", "", " -_")
_DIGEST_READERS = {member: (name, DIGEST_READERS[name]) for member, name in DIGEST_MEMBERS.items()}


def read(source: BinaryIO, report: AdapterReport, options: ReadOptions) -> Iterator[DraftBatch]:
    """The drafts of a VICS media list. Reading the JSON of a record costs far more than making its draft an object."""
    return map(DraftBatch.of, in_chunks(_drafts(source, report, options)))


def _drafts(source: BinaryIO, report: AdapterReport, options: ReadOptions) -> Iterator[EntryDraft]:
    window = Window(source)
    scheme, of_cases = _read_head(window, report, options)
    for record in _media_of_cases(window, report) if of_cases else records(window):
        report.read += 1
        try:
            if window.has_bad_byte():
                raise refusal(WHOLE_ROW, "is not UTF-8")
            draft = _draft(record, scheme, report, of_case=of_cases)
        except MalformedError as error:
            report.refuse(window.record, error.place, error.message)
        else:
            report.accepted += 1
            yield draft
    _read_end(window, report)


# The file: head, records, end


def _read_head(window: Window, report: AdapterReport, options: ReadOptions) -> tuple[str, bool]:
    """The category scheme, and whether the list is one of cases; the window then stands inside the list."""
    scheme, of_cases = "", False
    window.expect("{")
    while (name := window.member_name()) != RECORDS:
        value = window.value()
        if name in (CONTEXT_1, CONTEXT_2):
            if scheme:
                raise window.fault("two contexts")
            scheme, of_cases = _scheme(name, value, options, window)
        else:
            drop_named(report, name)
        window.expect(",")
    if not scheme:
        raise window.fault(f"no {CONTEXT_2} or {CONTEXT_1} before the records")
    window.expect("[")
    return scheme, of_cases


def _scheme(name: str, context: object, options: ReadOptions, window: Window) -> tuple[str, bool]:
    pattern = _MEDIA_2 if name == CONTEXT_2 else _MEDIA_1
    found = pattern.fullmatch(context) if isinstance(context, str) else None
    if not found:
        raise window.fault(f"{name} does not name a VICS media list that is known here")
    word = str(found[1]).lower()
    # Only a country is the file's own word for what its numbers mean; "default" and a version leave it to the user.
    own = name == CONTEXT_2 and word != "default"
    scheme = f"vics-{word}" if own else options.category_scheme or f"vics-{word}"
    return scheme, name == CONTEXT_2 and found[2] == "Cases"


def _media_of_cases(window: Window, report: AdapterReport) -> Iterator[object]:
    """The media records of a list of cases, one at a time."""
    if window.peek() == "]":
        window.expect("]")
        return
    while True:
        window.expect("{")
        seen = False
        for name in member_names(window):
            if name == MEDIA and seen:
                raise window.fault("a case names its media twice")
            if name == MEDIA and window.peek() == "[":
                seen = True
                window.expect("[")
                yield from records(window)
            elif (value := window.value()) or value == 0:  # false and 0 are values; null, "", [] and {} are none
                drop_named(report, name, within="case")
        if window.expect(",]") == "]":
            return


def _read_end(window: Window, report: AdapterReport) -> None:
    while window.expect(",}") == ",":
        name = window.member_name()
        if name in (RECORDS, CONTEXT_1, CONTEXT_2):
            raise window.fault(f"{name} stands twice or too late")
        window.value()
        drop_named(report, name)
    if window.peek():
        raise window.fault("there is more after the end")


# One record


def _draft(record: object, scheme: str, report: AdapterReport, *, of_case: bool) -> EntryDraft:
    if not isinstance(record, dict):
        raise refusal(WHOLE_ROW, "is not an object")
    if type(record) is Doubled:
        raise refusal(WHOLE_ROW, "names a member twice")
    digests = _digests(record, report)
    get = record.get
    source_ref = _source_ref(get("MediaID"))
    if of_case and source_ref:
        report.drop("MediaID")
    return EntryDraft(
        digests,
        source_ref="" if of_case else source_ref,
        media_type=_text(get("MimeType"), "MimeType"),
        category=_category(get("Category"), scheme),
        series=_text(get("Series"), "Series"),
        victim_status=VICTIM_STATUS_BY_FLAG[_flag(get("VictimIdentified"), "VictimIdentified")],
        seen=_seen(get("DateUpdated"), report),
    )


def _digests(record: dict[str, object], report: AdapterReport) -> dict[str, bytes]:
    """The digests of the record; what is not carried is counted in the same pass, the longest of the whole import."""
    digests = {}
    dropped = report.dropped_fields
    for name, value in record.items():
        if name in _DIGEST_READERS:
            if text := _stated(value, name):
                algorithm, read_digest = _DIGEST_READERS[name]
                digests[algorithm] = read_digest(text, name)
        elif name not in _CARRIED and (value or value == 0):  # false and 0 are values; null, "", [] and {} are none
            if name in dropped:
                dropped[name] += 1
            else:
                drop_named(report, name)
    alternatives = record.get("AlternativeHashes")
    if alternatives is not None and alternatives != "":
        _add_alternatives(digests, alternatives, report)
    if not digests:
        raise refusal(WHOLE_ROW, NO_DIGEST)
    return digests


def _add_alternatives(digests: dict[str, bytes], alternatives: object, report: AdapterReport) -> None:
    if not isinstance(alternatives, list):
        raise refusal("AlternativeHashes", "is not a list")
    for alternative in alternatives:
        if not isinstance(alternative, dict) or type(alternative) is Doubled:
            raise refusal("AlternativeHashes", "has an item that is not an object of single members")
        name = _stated(alternative.get("HashName"), "HashName")
        algorithm = ALTERNATIVE_HASHES.get(name.casefold().translate(_SPELLING))
        if algorithm is None:
            if alternative.get("HashValue"):
                drop_named(report, name, within="AlternativeHashes")
            continue
        text = _stated(alternative.get("HashValue"), "HashValue")
        if not text:
            continue
        digest = DIGEST_READERS[algorithm](text, f"AlternativeHashes: {algorithm}")
        if digests.setdefault(algorithm, digest) != digest:
            raise refusal("AlternativeHashes", f"disagrees on {algorithm} with another member of the record")


def _stated(value: object, field: str, kinds: str = "is not text") -> str:
    """The text that stands there, "" where nothing does."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise refusal(field, kinds)
    return value.strip()


def _text(value: object, field: str) -> str:
    return read_text(_stated(value, field), field)


def _number_or_text(value: object, field: str) -> str:
    # `type`, because bool is an int to Python, not to JSON.
    return str(value) if type(value) is int else _stated(value, field, "is neither a whole number nor text")


def _source_ref(value: object) -> str:
    return read_text(_number_or_text(value, "MediaID"), "MediaID")


def _category(value: object, scheme: str) -> str:
    text = _number_or_text(value, "Category")
    if not text:
        return ""
    if not _CATEGORY_NUMBER.fullmatch(text):
        raise refusal("Category", "is not a whole number from 0 up")
    return f"{scheme}:{text.lstrip('0') or '0'}"


def _flag(value: object, field: str) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    if not isinstance(value, str):
        raise refusal(field, "is neither true, false, null nor text")
    return read_flag(value, field)


def _seen(value: object, report: AdapterReport) -> int:
    text = _stated(value, "DateUpdated")
    seconds = read_moment(text, "DateUpdated") if text else 0
    if text and not seconds:
        report.drop("DateUpdated")
    return seconds
