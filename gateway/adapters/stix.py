"""STIX 2.1 in: indicators and files of a bundle, or of a TAXII envelope, become entry drafts.

Rules (`contracts/stix-1.md`):
- An **indicator** is taken if its pattern says nothing but that a file has one of these digests (or all of them): one
  observation, comparisons `file:hashes.NAME = 'value'` joined by OR alone or by AND alone, each algorithm once. A
  **file** is taken with its `hashes` and `mime_type`.
- Its id becomes `source_ref`: the same object again is the same entry.
- Handling comes from our extension, else from TLP 2.0 markings, the strictest of several; evaluation from our
  extension, else from `confidence` with source F. Category, series, victim status and times come from our extension.
- A revoked object lists nothing and is refused; so is one of STIX 2.0, and one of another type. Identities, markings
  and extension definitions, which accompany every bundle, are dropped and counted.
- Every other property is dropped at the door and counted, so no name, path or picture passes.
- In the report `line` is the number of the object in the list, from 1.

Worked example: `{"type": "file", "spec_version": "2.1", "id": "file--7d5d…", "hashes": {"MD5": "88653FC1…5C70"}}` is
one draft with 16 bytes MD5 and source_ref "file--7d5d…".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import BinaryIO

from gateway.adapters.fields import (
    DIGEST_READERS,
    MAX_PDQ_QUALITY,
    MIN_PDQ_QUALITY,
    read_moment,
    read_text,
)
from gateway.adapters.jsonrows import Doubled, Window, records
from gateway.adapters.rows import NO_DIGEST, WHOLE_ROW, ReadOptions, drop_named, in_chunks, refusal
from gateway.adapters.stixwords import ALGORITHMS, EXTENSION, HANDLING_BY_MARKING, NOTHING, credibility_of
from gateway.columns.drafts import DraftBatch
from gateway.errors import MalformedError
from gateway.model import (
    CATEGORY,
    EVALUATION,
    AdapterReport,
    EntryDraft,
    HandlingCode,
    Restriction,
    VictimStatus,
)

OBJECTS = "objects"
SUPPORTING = frozenset({"identity", "marking-definition", "extension-definition"})
STIX_ID = re.compile(r"[a-z][a-z0-9-]{1,62}--[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
MAX_PATTERN_CHARS = 16_384  # eight digests are under a thousand
# Read, or bound to be there and without meaning for an entry.
_INDICATOR = frozenset(
    {"type", "spec_version", "id", "created", "modified", "revoked", "pattern", "pattern_type", "pattern_version"}
    | {"valid_from", "indicator_types", "object_marking_refs", "confidence", "extensions"}
)
_FILE = frozenset(
    {"type", "spec_version", "id", "hashes", "mime_type", "object_marking_refs", "extensions", "defanged"}
)
_EXTENSION = frozenset(
    {"extension_type", "handling", "category", "series", "victim_status", "victim_ref", "evaluation", "media_type"}
    | {"seen", "restrictions", "perceptual"}
)
_COMPARISON = re.compile(
    r"""\s*file:hashes\.(?:'([^'\\]{1,64})'|"([^"\\]{1,64})"|([A-Za-z0-9_-]{1,64}))\s*=\s*'([^'\\]*)'\s*"""
)
_JOINT = re.compile(r"(?:OR|AND)(?=\s)")
_SPELLING = str.maketrans("", "", " -_")
_STATUS = {str(status): status for status in VictimStatus if status is not VictimStatus.WITHHELD}


def read(source: BinaryIO, report: AdapterReport, _options: ReadOptions) -> Iterator[DraftBatch]:
    """The drafts of a STIX bundle."""
    return map(DraftBatch.of, in_chunks(_drafts(source, report)))


def _drafts(source: BinaryIO, report: AdapterReport) -> Iterator[EntryDraft]:
    for number, record in objects_in(source, report):
        if is_supporting(record):
            report.drop(str(record["type"]))  # type: ignore[index]  # `is_supporting` has looked
            continue
        report.read += 1
        try:
            found = draft(record, report)
        except MalformedError as error:
            report.refuse(number, error.place, error.message)
        else:
            report.accepted += 1
            yield found


def objects_in(source: BinaryIO, report: AdapterReport) -> Iterator[tuple[int, object]]:
    """The objects of a bundle or an envelope with their numbers from 1; `draft` reads one.

    Raises:
        MalformedError: this is neither.
    """
    window = Window(source)
    window.expect("{")
    if window.peek() == "}":
        return
    while (name := window.member_name()) != OBJECTS:
        window.value()
        if name not in ("type", "id", "more", "spec_version"):
            drop_named(report, name)
        if window.expect(",}") == "}":
            return
    window.expect("[")
    for record in records(window):
        yield window.record, Doubled() if window.has_bad_byte() else record
    while window.expect(",}") == ",":
        if (name := window.member_name()) == OBJECTS:
            raise window.fault("objects stands twice")
        window.value()
        if name not in ("type", "id", "more", "spec_version"):
            drop_named(report, name)
    if window.peek():
        raise window.fault("there is more after the end")


def is_supporting(record: object) -> bool:
    """Whether an object is one that accompanies others and says nothing of a file."""
    return isinstance(record, dict) and isinstance(record.get("type"), str) and record["type"] in SUPPORTING


def draft(record: object, report: AdapterReport) -> EntryDraft:
    """The entry that an object lists.

    Raises:
        MalformedError: it lists none that can be carried; the place is the property.
    """
    if not isinstance(record, dict):
        raise refusal(WHOLE_ROW, "is not an object")
    if isinstance(record, Doubled):
        raise refusal(WHOLE_ROW, "names a member twice, or is not UTF-8")
    reader = _READERS.get(_text(record, "type"))
    if reader is None:
        raise refusal("type", "is neither indicator nor file: nothing else is carried")
    known, digests_of = reader
    if _text(record, "spec_version") not in ("2.1", *([""] if known is _FILE else [])):
        raise refusal("spec_version", "is not 2.1")
    if record.get("revoked", False) is not False:
        raise refusal("revoked", "is set: there is nothing to list")
    if not STIX_ID.fullmatch(_text(record, "id")):
        raise refusal("id", "is not a STIX identifier")
    digests = digests_of(record, report)
    extension = _extension(record, report)
    quality = _add_perceptual(digests, extension.get("perceptual"), report)
    if not digests:
        raise refusal(WHOLE_ROW, NO_DIGEST)
    _drop(record, known, report)
    _drop(extension, _EXTENSION, report)
    return EntryDraft(
        digests,
        source_ref=_text(record, "id"),
        media_type=_line(extension, "media_type") or _line(record, "mime_type"),
        category=_matched(extension, "category", CATEGORY),
        series=_line(extension, "series"),
        victim_ref=_line(extension, "victim_ref"),
        victim_status=_STATUS[_listed(extension, "victim_status", _STATUS)] if "victim_status" in extension else None,
        evaluation=_matched(extension, "evaluation", EVALUATION) or _evaluation(record),
        handling=_handling(record, extension),
        restrictions=_restrictions(extension),
        pdq_quality=quality,
        seen=read_moment(_text(extension, "seen"), "seen"),
    )


# Digests


def pattern_digests(record: Mapping[str, object], report: AdapterReport) -> dict[str, bytes]:
    """The digests that the pattern of an indicator lists; none for `NOTHING`."""
    if _text(record, "pattern_type") != "stix":
        raise refusal("pattern_type", "is not stix")
    text = _text(record, "pattern").strip()
    if len(text) > MAX_PATTERN_CHARS:
        raise refusal("pattern", f"is longer than {MAX_PATTERN_CHARS} characters")
    # Its digests, if it has any, stand in our extension alone.
    return {} if text == NOTHING else _digests(_comparisons(text), "pattern", report)


def _comparisons(text: str) -> list[tuple[str, str]]:
    """(name, value) of each comparison of a pattern that has nothing else."""
    wrong = refusal("pattern", "says more than which digests a file has")
    if not (text.startswith("[") and text.endswith("]")):
        raise wrong
    found, joints, at, end = [], set(), 1, len(text) - 1
    while True:
        match = _COMPARISON.match(text, at, end)
        if match is None:
            raise wrong
        found.append((match[1] or match[2] or match[3], match[4]))
        at = match.end()
        if at == end:
            break
        joint = _JOINT.match(text, at, end)
        if joint is None:
            raise wrong
        joints.add(joint[0])
        at = joint.end()
    if len(joints) > 1:
        raise refusal("pattern", "joins digests by OR and by AND: which belong together is not clear")
    return found


def _file_digests(record: Mapping[str, object], report: AdapterReport) -> dict[str, bytes]:
    hashes = record.get("hashes", {})
    if not isinstance(hashes, dict) or isinstance(hashes, Doubled):
        raise refusal("hashes", "is not an object of single members")
    return _digests([(name, _text(hashes, name)) for name in hashes], "hashes", report)


def _digests(stated: Iterable[tuple[str, str]], field: str, report: AdapterReport) -> dict[str, bytes]:
    digests: dict[str, bytes] = {}
    for name, value in stated:
        algorithm = ALGORITHMS.get(name.casefold().translate(_SPELLING))
        if algorithm is None:
            drop_named(report, name, within=field)
            continue
        digest = DIGEST_READERS[algorithm](value, f"{field}: {algorithm}")
        if digests.setdefault(algorithm, digest) != digest:
            raise refusal(field, f"has two values of {algorithm}: it speaks of more than one file")
    return digests


def _add_perceptual(digests: dict[str, bytes], listed: object, report: AdapterReport) -> int:
    """Add the perceptual digests of our extension; returns the quality of the PDQ, 0 for none."""
    if listed is None:
        return 0
    if not isinstance(listed, list):
        raise refusal("perceptual", "is not a list")
    kept_quality = 0
    for one in listed:
        if not isinstance(one, dict) or isinstance(one, Doubled):
            raise refusal("perceptual", "has an item that is not an object of single members")
        stated = _digests([(_text(one, "algorithm"), _text(one, "value"))], "perceptual", report)
        algorithm, digest = next(iter(stated.items()), ("", b""))
        quality = one.get("quality", 0)
        if type(quality) is not int or not 0 <= quality <= MAX_PDQ_QUALITY:
            raise refusal("perceptual", f"has a quality that is not a whole number from 0 to {MAX_PDQ_QUALITY}")
        if algorithm == "pdq" and "quality" in one and quality < MIN_PDQ_QUALITY:
            report.drop("pdq")
        elif algorithm:
            if digests.setdefault(algorithm, digest) != digest:
                raise refusal("perceptual", f"has two values of {algorithm}: it speaks of more than one file")
            kept_quality = quality if algorithm == "pdq" else kept_quality
    return kept_quality


_READERS: dict[str, tuple[frozenset[str], Callable[[Mapping[str, object], AdapterReport], dict[str, bytes]]]] = {
    "indicator": (_INDICATOR, pattern_digests),
    "file": (_FILE, _file_digests),
}


# What is said of them


def _extension(record: Mapping[str, object], report: AdapterReport) -> dict[str, object]:
    """The members of our extension; others are dropped."""
    found = record.get("extensions", {})
    if not isinstance(found, dict) or isinstance(found, Doubled):
        raise refusal("extensions", "is not an object of single members")
    if foreign := len(found.keys() - {EXTENSION}):
        report.drop("extensions", foreign)
    ours = found.get(EXTENSION, {})
    if not isinstance(ours, dict) or isinstance(ours, Doubled):
        raise refusal("extensions", "has ours as something else than an object of single members")
    return ours


def _handling(record: Mapping[str, object], extension: Mapping[str, object]) -> HandlingCode | None:
    if "handling" in extension:
        return HandlingCode(_listed(extension, "handling", [str(code) for code in HandlingCode]))
    refs = record.get("object_marking_refs", [])
    if not isinstance(refs, list) or not all(isinstance(ref, str) for ref in refs):
        raise refusal("object_marking_refs", "is not a list of texts")
    return max((HANDLING_BY_MARKING[ref] for ref in refs if ref in HANDLING_BY_MARKING), default=None)


def _evaluation(record: Mapping[str, object]) -> str:
    confidence = record.get("confidence")
    if confidence is None:
        return ""
    if type(confidence) is not int or not 0 <= confidence <= 100:
        raise refusal("confidence", "is not a whole number from 0 to 100")
    return f"F{credibility_of(confidence)}"


def _restrictions(extension: Mapping[str, object]) -> tuple[Restriction, ...]:
    listed = extension.get("restrictions", [])
    known = {str(tag) for tag in Restriction}
    if not isinstance(listed, list) or not all(isinstance(tag, str) and tag in known for tag in listed):
        raise refusal("restrictions", f"has a tag that is not one of {', '.join(sorted(known))}")
    return tuple(Restriction(tag) for tag in sorted(set(listed)))


def _text(members: Mapping[str, object], name: str) -> str:
    found = members.get(name, "")
    if not isinstance(found, str):
        raise refusal(name, "is not text")
    return found


def _line(members: Mapping[str, object], name: str) -> str:
    return read_text(_text(members, name), name)


def _matched(members: Mapping[str, object], name: str, form: re.Pattern[str]) -> str:
    text = _text(members, name)
    if text and not form.fullmatch(text):
        raise refusal(name, "is not in its form")
    return text


def _listed(members: Mapping[str, object], name: str, words: Iterable[str]) -> str:
    text = _text(members, name)
    if text not in (known := list(words)):
        raise refusal(name, f"is not one of {', '.join(known)}")
    return text


def _drop(members: Mapping[str, object], known: frozenset[str], report: AdapterReport) -> None:
    for name in members.keys() - known:
        drop_named(report, name)
