"""Cases out of a STIX 2.1 bundle: a `grouping`, a `report` or an `incident` with what belongs to it.

Rules (`contracts/case-stix-1.md`):
- A **case** is a grouping, a report, or an incident to which no grouping or report refers. What it refers to are its
  parts; of an incident, what a relationship joins to it. An observed-data stands for the files to which it refers.
- An object with our extension says what it is, and is read back without loss. Of others only the members in `KEPT` are
  looked at: no name of an individual, no address, no payload. Everything else is dropped and counted.
- A victim of others is an identity with the role "victim", under its id. A threat actor is a person of interest, a
  location a place, a note a clue; indicators and files are entries where they say nothing but digests.
- Handling is that of the strictest TLP 2.0 marking, evaluation that of `confidence` with source F; other legal fields
  have no place in STIX and stay empty. A confidence of a part that is not stated is 0.
- A case with a bad part is refused alone; a bundle that is broken, whole. In the report `line` is the object's number.
- The bundle is read forwards; only what may be part of a case is kept, so its length is bounded by `MAX_OBJECTS` alone.

Worked example: `{"type": "report", "id": "report--…", "name": "Two houses", "object_refs": ["location--…"], …}` is a
case record with that id as its reference, summary "Two houses" and a place.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import BinaryIO

from gateway.adapters import stix
from gateway.adapters.casefields import CASE_DIGESTS, UNSTATED_CONFIDENCE, plain_line, plain_text, version_at
from gateway.adapters.casemembers import CASE, Members, Parts, head_of
from gateway.adapters.caserows import CaseOptions, own_originator, take
from gateway.adapters.fields import read_moment
from gateway.adapters.jsonrows import Doubled
from gateway.adapters.rows import WHOLE_ROW, drop_named, refusal
from gateway.adapters.stixcaseout import CASE_EXTENSION, NO_TEXT
from gateway.adapters.stixwords import EXTENSION, HANDLING_BY_MARKING, PROJECT, credibility_of
from gateway.caserecord import (
    CaseRecord,
    Clue,
    ClueKind,
    ClueSource,
    EntryReference,
    Person,
    PersonRole,
    Place,
    Victim,
)
from gateway.errors import MalformedError, TooLargeError
from gateway.model import JURISDICTION, SET_NAME, AdapterReport, HandlingCode

MAX_OBJECTS = 200_000  # kept at once: some two hundred megabytes; a bundle of more is given in parts
_ENTRY = re.compile(r"[0-9a-f]{4}-[0-9a-f]{12}")
CONTAINERS = ("grouping", "report", "incident")
_ALWAYS = frozenset({"type", "id", "spec_version", "created", "modified", "created_by_ref", "revoked", "extensions"})
# What is looked at, by type. An individual's name is not.
KEPT: dict[str, frozenset[str]] = {
    "grouping": frozenset({"name", "description", "object_refs", "confidence", "object_marking_refs"}),
    "report": frozenset({"name", "description", "object_refs", "confidence", "object_marking_refs"}),
    "incident": frozenset({"name", "description", "confidence", "object_marking_refs"}),
    "identity": frozenset({"identity_class", "roles"}),
    "threat-actor": frozenset({"description"}),
    "location": frozenset({"name", "description", "country", "administrative_area", "city", "confidence"}),
    "note": frozenset({"abstract", "content", "confidence"}),
    "indicator": frozenset({"pattern", "pattern_type"}),
    "file": frozenset({"hashes"}),
    "observed-data": frozenset({"object_refs"}),
    "relationship": frozenset({"source_ref", "target_ref"}),
}
# Of our own objects besides: a name is a pseudonym there, or a unit's.
_OURS = frozenset({"name", "description"})
# Nothing that a case would say is lost with these.
_BOOKKEEPING = frozenset(
    {"context", "report_types", "published", "valid_from", "pattern_version", "indicator_types"}
    | {
        "number_observed",
        "first_observed",
        "last_observed",
        "relationship_type",
        "defanged",
        "object_marking_refs",
        "object_refs",
    }
)
_RENDERED = frozenset({"labels", "contact_information", "identity_class", "roles", "object_refs", "confidence"})
_TYPE_OF_PART = {
    "victim": ("identity",),
    "person": ("identity",),
    "contact": ("identity",),
    "clue": ("note",),
    "time_frame": ("note",),
    "place": ("location", "note"),
    "entry": ("indicator",),
}


def read(source: BinaryIO, report: AdapterReport, options: CaseOptions) -> Iterator[CaseRecord]:
    """The cases of a STIX bundle."""
    bundle = _gathered(source, report)
    for number, one in bundle.cases():
        record = take(report, number, partial(_record, one, bundle, report, options))
        if record is not None:
            yield record
    for name, one in bundle.objects.items():
        if name not in bundle.used and one["type"] not in ("relationship", *CONTAINERS) and not _is_ours(one):
            report.drop(f"{one['type']}: of no case")


# The bundle


@dataclass(slots=True)
class _Bundle:
    """What may be part of a case, by its id; what relationships join to each; which objects are part of one."""

    objects: dict[str, Members] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)  # of the groupings, reports and incidents
    joined: dict[str, list[str]] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)

    def cases(self) -> Iterator[tuple[int, Members]]:
        """The cases with their numbers: all but incidents to which another refers."""
        found = [(number, self.objects[name]) for name, number in self.numbers.items()]
        inner = {ref for _, one in found for ref in _texts(one, "object_refs")}
        return ((number, one) for number, one in found if one["type"] != "incident" or one["id"] not in inner)


def _gathered(source: BinaryIO, report: AdapterReport) -> _Bundle:
    bundle = _Bundle()
    for number, one in stix.objects_in(source, report):
        if stix.is_supporting(one) and not (isinstance(one, dict) and one.get("type") == "identity"):
            continue
        try:
            kept = _kept(one, report)
        except MalformedError as error:
            report.read += 1
            report.refuse(number, error.place, error.message)
            continue
        if kept is None:
            continue
        name = str(kept["id"])
        if name in bundle.objects:
            report.drop(f"{kept['type']}: an id for the second time")
            continue
        bundle.objects[name] = kept
        if len(bundle.objects) > MAX_OBJECTS:
            raise TooLargeError(f"the bundle has more than {MAX_OBJECTS} objects of cases", place=f"object {number}")
        if kept["type"] in CONTAINERS:
            bundle.numbers[name] = number
        if kept["type"] == "relationship":
            ends = _text(kept, "source_ref"), _text(kept, "target_ref")
            for end, other in (ends, ends[::-1]):
                bundle.joined.setdefault(end, []).append(other)
    return bundle


def _kept(one: object, report: AdapterReport) -> dict[str, object] | None:
    """The members of an object that are looked at; None for one that no case has."""
    if not isinstance(one, dict) or isinstance(one, Doubled):
        raise refusal(WHOLE_ROW, "is no object, names a member twice, or is not UTF-8")
    kind = one.get("type")
    if not isinstance(kind, str) or kind not in KEPT:
        drop_named(report, kind if isinstance(kind, str) else "")
        return None
    if not stix.STIX_ID.fullmatch(_text(one, "id")) or not str(one["id"]).startswith(f"{kind}--"):
        raise refusal("id", "is not a STIX identifier of the object's type")
    if one.get("revoked", False) is not False:
        report.drop(f"{kind}: revoked")
        return None
    extensions = one.get("extensions", {})
    if not isinstance(extensions, dict) or isinstance(extensions, Doubled):
        raise refusal("extensions", "is not an object of single members")
    # What is looked at before the case is.
    _texts(one, "object_refs")
    for name in ("source_ref", "target_ref"):
        _text(one, name)
    ours = CASE_EXTENSION in extensions or _is_ours(one)
    known = KEPT[kind] | _ALWAYS | (_OURS if ours else frozenset())
    for name in one.keys() - known - _BOOKKEEPING - (_RENDERED if ours else frozenset()):
        drop_named(report, name, within=kind)
    kept = {name: value for name, value in one.items() if name in known}
    kept["extensions"] = {name: extensions[name] for name in (CASE_EXTENSION, EXTENSION) if name in extensions}
    if foreign := len(extensions) - len(kept["extensions"]):
        report.drop(f"{kind}: extensions", foreign)
    return kept


def _is_ours(one: Members) -> bool:
    """Whether an identity is one that our writer adds to every bundle."""
    return one["id"] == PROJECT or one.get("created_by_ref") == PROJECT


# A case


def _record(one: Members, bundle: _Bundle, report: AdapterReport, options: CaseOptions) -> CaseRecord:
    # 1. The case itself.
    head = _head(one, report, options)
    # 2. What it refers to.
    parts = Parts()
    for ref in _refs(one, bundle, report):
        bundle.used.add(ref)
        _add(parts, bundle.objects[ref], report)
    return replace(head, **parts.fields())


def _refs(one: Members, bundle: _Bundle, report: AdapterReport) -> list[str]:
    """The ids of the parts, each once, those of an observed-data in its place."""
    is_joined = one["type"] == "incident"
    refs = bundle.joined.get(str(one["id"]), []) if is_joined else _texts(one, "object_refs")
    found: dict[str, None] = {}
    for ref in refs:
        if ref == one.get("created_by_ref"):
            continue  # whose case it is stands there where a case has no parts, since STIX wants one reference
        part = bundle.objects.get(ref)
        if part is not None and part["type"] == "observed-data":
            found |= dict.fromkeys(_texts(part, "object_refs"))
        found[ref] = None
    if absent := len(found.keys() - bundle.objects.keys()):
        report.drop("object_refs: not carried, or not in the bundle", absent)
    return [ref for ref in found if ref in bundle.objects]


def _head(one: Members, report: AdapterReport, options: CaseOptions) -> CaseRecord:
    opened = read_moment(_text(one, "created"), "created") if "created" in one else options.read_at
    updated = read_moment(_text(one, "modified"), "modified") if "modified" in one else opened
    ours = _ours(one)
    if ours.get("part") == CASE:
        summary = "" if ours.get(NO_TEXT) else _text(one, "description")
        return head_of(
            _own_members(ours), reference=_text(one, "name"), opened=opened, updated=updated, summary=summary
        )
    name, description = _text(one, "name"), _text(one, "description")
    told = "\n".join(text for text in (name, description) if text)
    return CaseRecord(
        own_originator(options),
        _text(one, "id"),
        version=version_at(updated),
        opened=opened,
        updated=updated,
        handling=_handling(one, report),
        evaluation=_evaluation(one),
        summary=plain_text(told, "description", report),
    )


def _handling(one: Members, report: AdapterReport) -> HandlingCode | None:
    refs = _texts(one, "object_marking_refs")
    codes = [HANDLING_BY_MARKING[ref] for ref in refs if ref in HANDLING_BY_MARKING]
    if others := len(refs) - len(codes):
        report.drop("object_marking_refs: no TLP 2.0 marking", others)
    return max(codes, default=None)


def _evaluation(one: Members) -> str:
    return f"F{credibility_of(_confidence(one))}" if "confidence" in one else ""


# Its parts


def _add(parts: Parts, one: Members, report: AdapterReport) -> None:
    ours = _ours(one)
    if ours:
        _add_ours(parts, one, ours, report)
    else:
        _add_foreign(parts, one, report)


def _add_ours(parts: Parts, one: Members, ours: Members, report: AdapterReport) -> None:
    part = ours.get("part")
    if part == CASE:
        report.drop("object_refs: a case within a case")
        return
    if not isinstance(part, str) or one["type"] not in _TYPE_OF_PART.get(part, ()):
        raise refusal("part", "is not one that an object of this type can be")
    members: Members = _own_members(ours)
    name, confidence = _text(one, "name"), _confidence(one)
    text = "" if ours.get(NO_TEXT) else _text(one, "content" if one["type"] == "note" else "description")
    native: dict[str, object]
    if part == "victim":
        native = {"ref": name}
    elif part == "person":
        native = {"ref": name, "description": text}
    elif part == "contact":
        native = {"unit": name}
    elif part == "entry":
        members, native = _own_entry(one, members, report)
    else:
        native = {"text": text, "confidence": confidence}
        if one["type"] == "location":
            native |= {"country": one.get("country"), "region": one.get("administrative_area")}
    parts.add_members(members, native)


def _own_members(ours: Members) -> dict[str, object]:
    return {name: value for name, value in ours.items() if name not in ("extension_type", NO_TEXT)}


def _own_entry(one: Members, members: Members, report: AdapterReport) -> tuple[Members, dict[str, object]]:
    """The members of an entry without its digests, and all of these."""
    digests: dict[str, object] = {name: value.hex() for name, value in stix.pattern_digests(one, report).items()}
    perceptual = members.get("digests", {})
    if not isinstance(perceptual, dict) or not perceptual.keys() <= {"pdq"}:
        raise refusal("digests", "has more than a PDQ: other digests stand in the pattern")
    return {name: value for name, value in members.items() if name != "digests"}, {"digests": digests | perceptual}


def _add_foreign(parts: Parts, one: Members, report: AdapterReport) -> None:
    kind, name = str(one["type"]), str(one["id"])
    if kind == "identity":
        if "victim" in _texts(one, "roles"):
            parts.add(Victim(name))
        else:
            report.drop("identity")
    elif kind == "threat-actor":
        description = plain_text(_text(one, "description"), "description", report)
        parts.add(Person(name, PersonRole.SUSPECT, description=description))
    elif kind == "location":
        parts.add(_foreign_place(one, report))
    elif kind == "note":
        told = "\n".join(text for text in (_text(one, "abstract"), _text(one, "content")) if text)
        if text := plain_text(told, "content", report):
            parts.add(Clue(ClueKind.OTHER, text, _confidence(one), ClueSource.OTHER))
    elif kind in ("indicator", "file"):
        if entry := _foreign_entry(one, report):
            parts.add(entry)
    elif kind != "observed-data":
        report.drop(f"{kind}: part of another case")


def _foreign_place(one: Members, report: AdapterReport) -> Place:
    country, region, city, name = (
        plain_line(_text(one, member), member, report) for member in ("country", "administrative_area", "city", "name")
    )
    described = plain_text(_text(one, "description"), "description", report)
    is_code = JURISDICTION.fullmatch(country)
    words = [city, name, described] if is_code else [city, region, country, name, described]
    text = "\n".join(dict.fromkeys(word for word in words if word))
    if not is_code and not text:
        raise refusal("country", "is missing, and no other word of the place is carried")
    code, inner = (country, region) if is_code else ("", "")
    return Place(code, inner, text, _confidence(one), ClueSource.OTHER)


def _foreign_entry(one: Members, report: AdapterReport) -> EntryReference | None:
    set_name, number = _listed_as(one)
    try:
        digests = stix.draft(one, report).digests
    except MalformedError:
        # It speaks of something else than digests, of damaged ones, or of none that we may see. Where it does not name
        # an entry either, it is no case's entry, and is counted.
        digests = {}
        if not set_name:
            report.drop(f"{one['type']}: no digests that can be carried")
            return None
    for name in digests.keys() - set(CASE_DIGESTS):
        report.drop(f"{one['type']}: {name}")
    kept = sorted((name, value) for name, value in digests.items() if name in CASE_DIGESTS)
    return EntryReference(set_name, number, tuple(kept)) if kept or set_name else None


def _listed_as(one: Members) -> tuple[str, int]:
    """The set and the entry id of an indicator that a gateway serves (`stixout`); "" and 0 for any other."""
    extensions = one["extensions"]
    listed = extensions.get(EXTENSION, {}) if isinstance(extensions, dict) else {}
    found = (listed.get("set"), listed.get("entry")) if isinstance(listed, dict) else (None, None)
    set_name, entry = (text if isinstance(text, str) else "" for text in found)
    if one["type"] == "indicator" and SET_NAME.fullmatch(set_name) and _ENTRY.fullmatch(entry):
        return set_name, int(entry.replace("-", ""), 16)
    return "", 0


# Values


def _ours(one: Members) -> Members:
    extensions = one["extensions"]
    found = extensions.get(CASE_EXTENSION, {}) if isinstance(extensions, dict) else {}
    if not isinstance(found, dict) or isinstance(found, Doubled):
        raise refusal("extensions", "has ours as something else than an object of single members")
    return found


def _confidence(one: Members) -> int:
    found = one.get("confidence", UNSTATED_CONFIDENCE)
    if type(found) is not int or not 0 <= found <= 100:
        raise refusal("confidence", "is not a whole number from 0 to 100")
    return found


def _text(one: Members, name: str) -> str:
    found = one.get(name, "")
    if not isinstance(found, str):
        raise refusal(name, "is not text")
    return found


def _texts(one: Members, name: str) -> list[str]:
    found = one.get(name, [])
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise refusal(name, "is not a list of texts")
    return found
