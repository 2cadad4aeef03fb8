"""Cases as STIX 2.1 bundles and as CASE/UCO graphs: what validators say of them, there and back, what is lost."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import rdflib
import stix2
from case_utils.case_validate import validate
from hypothesis import given, settings
from stix2validator import ValidationOptions, validate_instance

from case_strategies import case_records, full_case
from gateway.adapters import jsonld, stixcasein
from gateway.adapters.cases import SNIFF_BYTES, CaseOptions, read_cases, sniff_cases, write_cases
from gateway.adapters.stixcaseout import CASE_EXTENSION
from gateway.adapters.stixwords import EXTENSION
from gateway.adapters.ucocaseout import VOCABULARY
from gateway.caserecord import (
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
from gateway.model import AdapterReport, HandlingCode

DATA = Path(__file__).parent / "data_adapters"
GRAPHS = ("stix", "case_uco")
SAMPLES = {"stix": "stix-2.1-cases.json", "case_uco": "case-uco-1.5.jsonld"}
NOW = 1_795_000_000
OPTIONS = CaseOptions(originator="XA-NCVI", read_at=NOW)
BARE = CaseRecord("XA-NCVI", "C-1", 1, 1_788_000_000, 1_788_000_000)
FULL = replace(full_case(), places=(*full_case().places, Place("BV", "", "", 5, ClueSource.PUBLIC)))


def read(form: str, raw: bytes) -> tuple[list[CaseRecord], AdapterReport]:
    report = AdapterReport(form)
    found = list(read_cases(io.BytesIO(raw), form, report, options=OPTIONS))
    assert report.read == report.accepted + report.refused
    return found, report


def written(form: str, *cases: CaseRecord) -> tuple[bytes, AdapterReport]:
    report = AdapterReport(form)
    return b"".join(write_cases(cases, form, report)), report


def stix(*objects: object) -> bytes:
    return json.dumps({"type": "bundle", "id": "bundle--1", "objects": list(objects)}).encode()


def sdo(kind: str, number: int, **members: object) -> dict[str, object]:
    moment = "2026-01-15T10:00:00.000Z"
    name = f"{kind}--00000000-0000-4000-8000-{number:012x}"
    return {"type": kind, "spec_version": "2.1", "id": name, "created": moment, "modified": moment, **members}


# There and back


@settings(max_examples=60, deadline=None)
@given(case_records(), case_records())
def test_a_case_comes_back_as_it_was_but_for_what_the_loss_report_names(one: CaseRecord, other: CaseRecord) -> None:
    cases = [one, replace(other, reference=f"{one.reference}-2"[-128:])]
    for form in GRAPHS:
        raw, lost = written(form, *cases)
        found, report = read(form, raw)
        named = {name.partition(":")[0] for name in lost.dropped_fields}
        assert report.dropped_fields == {}
        assert len(found) == len(cases)
        for before, after in zip(cases, found, strict=True):
            differ = {
                field.name for field in fields(before) if getattr(before, field.name) != getattr(after, field.name)
            }
            assert differ <= named, form
        assert named <= {"entries"}


@pytest.mark.parametrize("form", GRAPHS)
def test_a_digest_of_nothing_does_not_go_out_and_is_counted(form: str) -> None:
    nothing = EntryReference(digests=(("md5", bytes(16)),))
    partly = EntryReference(digests=(("md5", bytes.fromhex("d41d8cd98f00b204e9800998ecf8427e")), ("sha1", b"x" * 20)))
    raw, lost = written(form, replace(BARE, entries=(nothing, partly)))
    assert read(form, raw)[0][0].entries == (EntryReference(digests=(("sha1", b"x" * 20),)),)
    assert lost.dropped_fields == {"entries: a digest of nothing": 2}


@pytest.mark.parametrize("form", GRAPHS)
def test_a_file_is_known_by_its_look_and_the_same_each_time(form: str) -> None:
    raw, _ = written(form, FULL, BARE)
    assert sniff_cases(raw[:SNIFF_BYTES]) == form
    assert sniff_cases((DATA / SAMPLES[form]).read_bytes()[:SNIFF_BYTES]) == form
    assert written(form, FULL, BARE)[0] == raw


@pytest.mark.parametrize("form", GRAPHS)
def test_a_file_without_cases_is_one(form: str) -> None:
    raw, _ = written(form)
    assert json.loads(raw)
    assert read(form, raw)[0] == []


@pytest.mark.parametrize("form", GRAPHS)
def test_nothing_that_was_taken_out_of_a_record_stands_in_the_file(form: str) -> None:
    whole, _ = written(form, FULL)
    for field in ("summary", "series", "victims", "clues", "time_frames", "places", "persons", "entries", "contact"):
        empty = getattr(BARE, field)
        raw, _ = written(form, replace(FULL, **{field: empty}))
        for word in MARKS[field]:
            assert word.encode() in whole, word
            assert word.encode() not in raw, (field, word)


MARKS = {
    "summary": ("One child in one flat",),
    "series": ("Blue Curtain", "Rideau bleu"),
    "victims": ("V-1", "a school was recognised", "V-2"),
    "clues": ("yoghurt", "radio voice"),
    "time_frames": ("snow behind", "2026-03-09"),
    "places": ("coastal", "XD-07", "cold climate"),
    "persons": ("P-1", "anchor", "work jacket"),
    "entries": ("identified-victims", bytes(range(32)).hex()),
    "contact": ("+000 1 2345", "vid@ncvi.example", "+000 1 9999", "Victim identification unit"),
}


# What others say of them


@pytest.mark.parametrize("record", [FULL, BARE], ids=["full", "bare"])
def test_the_bundle_passes_the_parser_and_the_strict_validator(record: CaseRecord) -> None:
    bundle = json.loads(written("stix", record)[0])
    assert stix2.parse(bundle, allow_custom=False)["type"] == "bundle"
    result = validate_instance(bundle, ValidationOptions(strict=True, version="2.1"))
    assert result.is_valid, [str(error) for error in result.errors]


def test_a_country_goes_out_as_a_location_unless_its_code_is_left_to_users() -> None:
    bundle = json.loads(written("stix", FULL)[0])
    assert [one["country"] for one in bundle["objects"] if one["type"] == "location"] == ["BV"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of rdflib and case-utils themselves
def test_the_graph_conforms_to_the_ontology_and_is_read_back_from_its_triples(tmp_path: Path) -> None:
    file = tmp_path / "cases.jsonld"
    file.write_bytes(written("case_uco", FULL, BARE)[0])
    result = validate(str(file), case_version="case-1.5.0", allow_infos=True, inference=None)
    assert result.conforms, result.text
    assert not result.undefined_concepts
    # RDF has no order but that of lists: what another tool writes of the triples is the same case.
    graph = rdflib.Graph()
    graph.parse(file, format="json-ld")
    context = json.loads(file.read_bytes())["@context"]
    other = json.loads(graph.serialize(format="json-ld", context=context))
    found, report = read("case_uco", json.dumps({"@context": other["@context"], "@graph": other["@graph"]}).encode())
    assert report.dropped_fields == {}
    assert {one.reference: sorted_parts(one) for one in found} == {
        one.reference: sorted_parts(one) for one in (FULL, BARE)
    }


def sorted_parts(record: CaseRecord) -> CaseRecord:
    parts = ("victims", "clues", "time_frames", "places", "persons", "entries")
    return replace(record, **{name: tuple(sorted(getattr(record, name), key=repr)) for name in parts})


# What others write


@pytest.mark.parametrize("form", GRAPHS)
def test_the_loss_report_of_a_sample_is_as_it_is_kept(form: str) -> None:
    _, report = read(form, (DATA / SAMPLES[form]).read_bytes())
    assert asdict(report) == json.loads((DATA / "losses" / f"{form}.json").read_text())


@pytest.mark.parametrize("form", GRAPHS)
def test_no_legal_field_is_guessed_and_no_name_address_or_picture_passes(form: str) -> None:
    records, report = read(form, (DATA / SAMPLES[form]).read_bytes())
    assert records
    for record in records:
        assert set(record.missing) >= {"category", "legal_basis", "purpose", "review_on", "contact"}
    for word in ("Invented Child", "Invented Suspect", "host.example", ".jpg", "pics", "aGVsbG8", "Street"):
        assert word not in repr((records, report)), word


def test_a_stix_bundle_of_others_becomes_cases() -> None:
    report, incident, bare = read("stix", (DATA / SAMPLES["stix"]).read_bytes())[0]
    assert report.reference == "report--00000000-0000-4000-8000-000000000001"
    assert (report.handling, report.evaluation) == (HandlingCode.H2, "F2")
    assert report.summary == "Two houses by a harbour\nSeen in [left out] and elsewhere."
    assert report.victims == (Victim("identity--00000000-0000-4000-8000-000000000003"),)
    assert report.persons == (
        Person("threat-actor--00000000-0000-4000-8000-000000000004", PersonRole.SUSPECT, description="Wears a cap."),
    )
    assert report.places == (
        Place("BV", "North", "Harbourtown\nA harbour", 40, ClueSource.OTHER),
        Place("", "", "northern-europe country\nSomewhere cold", 0, ClueSource.OTHER),
    )
    assert report.clues == (Clue(ClueKind.OTHER, "Tiles\nBlue tiles", 60, ClueSource.OTHER),)
    assert [dict(entry.digests).keys() for entry in report.entries] == [{"md5", "sha1"}, {"md5"}]
    assert incident.places == (report.places[0],)
    assert (incident.handling, incident.evaluation, bare.entries) == (None, "", ())


def test_the_same_bundle_a_day_later_is_the_same_version_and_a_changed_one_a_newer() -> None:
    raw = (DATA / SAMPLES["stix"]).read_bytes()
    later = CaseOptions(originator="XA-NCVI", read_at=NOW + 86_400)
    first, again = read("stix", raw)[0], list(read_cases(io.BytesIO(raw), "stix", AdapterReport("stix"), options=later))
    assert again == first
    changed = read("stix", raw.replace(b"2026-01-16T10:00:00", b"2026-01-16T10:01:00"))[0]
    assert changed[0].version == first[0].version + 1


def test_a_graph_of_others_becomes_cases() -> None:
    first, second = read("case_uco", (DATA / SAMPLES["case_uco"]).read_bytes())[0]
    assert first.reference == "http://example.org/kb/investigation-21c14c55-e7b2-4cfa-8a26-7cb771398900"
    assert first.handling is HandlingCode.H2
    assert first.summary == "XX-2026-0001\nSynthetic sample case"
    assert [sorted(dict(entry.digests)) for entry in first.entries] == [["md5", "sha1"]]
    assert first.places == (Place("BV", "North", "Harbourtown\nby the quay", 70, ClueSource.OTHER),)
    assert first.clues == (Clue(ClueKind.OTHER, "Blue tiles", 0, ClueSource.OTHER),)
    assert len(first.victims) == 1
    assert second.summary == "another"
    assert (second.opened, second.urgency) == (NOW, Urgency.ROUTINE)


# What is refused alone, and what whole


def ours(**members: object) -> dict[str, object]:
    return {CASE_EXTENSION: {"extension_type": "property-extension", **members}}


PATTERN: dict[str, object] = {"pattern": "[file:size = -1]", "pattern_type": "stix"}
CASE = {"part": "case", "originator": "XA-NCVI", "version": 1, "urgency": "routine"}


def with_part(kind: str, native: dict[str, object], /, **members: object) -> list[dict[str, object]]:
    """A grouping with one part of ours: its members of STIX, and those of the extension."""
    part = sdo(kind, 2, **native, extensions=ours(**members))
    return [sdo("grouping", 1, object_refs=[part["id"]]), part]


def with_two_contacts() -> list[dict[str, object]]:
    contacts = [sdo("identity", number, name="unit", extensions=ours(part="contact")) for number in (2, 3)]
    return [sdo("grouping", 1, object_refs=[one["id"] for one in contacts]), *contacts]


@pytest.mark.parametrize(
    ("objects", "place"),
    [
        ([sdo("grouping", 1, name="C", extensions=ours(**{**CASE, "version": "x"}))], "version"),
        ([sdo("grouping", 1, name="C", extensions=ours(**{**CASE, "urgency": "soon"}))], "urgency"),
        ([sdo("grouping", 1, name="C", extensions=ours(**CASE, surprise=1))], "surprise"),
        ([sdo("grouping", 1, name="C", extensions=ours(**CASE, summary="twice"))], "summary"),
        ([sdo("grouping", 1, name="", extensions=ours(**CASE))], "row"),
        ([sdo("grouping", 1, name="C", object_refs="x")], "object_refs"),
        ([sdo("grouping", 1, name="C", confidence=101)], "confidence"),
        ([sdo("grouping", 1, name=7)], "name"),
        ([sdo("grouping", 1, created="yesterday")], "created"),
        ([{**sdo("grouping", 1), "id": "grouping--1"}], "id"),
        ([sdo("grouping", 1, extensions=7)], "extensions"),
        ([sdo("grouping", 1, object_refs=[sdo("note", 2)["id"]]), sdo("note", 2, content=["x"])], "content"),
        (with_part("note", {}, part="victim"), "part"),
        (with_part("identity", {"name": "v"}, part="person"), "role"),
        (with_part("note", {"content": "x"}, part="clue", kind="object", source="analyst", text="y"), "text"),
        (with_part("location", {"country": "BV"}, part="place", source="analyst", region="y"), "region"),
        (with_part("location", {"country": "bv"}, part="place", source="analyst"), "row"),
        (with_part("indicator", {}, part="entry", digests={"md5": "00"}), "pattern_type"),
        (with_part("indicator", PATTERN, part="entry", digests={"md5": "00"}), "digests"),
        (with_two_contacts(), "contact"),
    ],
)
def test_a_bad_case_of_a_bundle_is_refused_alone_with_its_place(objects: list[Any], place: str) -> None:
    found, report = read("stix", stix(*objects, sdo("grouping", 9, name="good")))
    assert [record.summary for record in found] == ["good"]
    assert [(row.line, row.field) for row in report.refused_rows] == [(1, place)]


def test_an_individual_who_is_not_said_to_be_a_victim_is_dropped() -> None:
    person = sdo("identity", 2, name="Invented Suspect", identity_class="individual", roles=["witness"])
    found, report = read("stix", stix(person, sdo("grouping", 1, object_refs=[person["id"]])))
    assert (found[0].victims, found[0].persons) == ((), ())
    assert report.dropped_fields == {"identity: name": 1, "identity": 1}


def test_an_indicator_that_a_gateway_serves_is_the_entry_that_it_names() -> None:
    listed: dict[str, object] = {"extension_type": "property-extension", "set": "XA-NCVI/found"}
    served = sdo("indicator", 2, **PATTERN, extensions={EXTENSION: {**listed, "entry": "0001-00000000002a"}})
    other = sdo("indicator", 3, **PATTERN, extensions={EXTENSION: {**listed, "entry": "42"}})
    refs = [served["id"], other["id"]]
    found, report = read("stix", stix(served, other, sdo("grouping", 1, object_refs=refs)))
    assert found[0].entries == (EntryReference("XA-NCVI/found", (1 << 48) + 42),)
    assert report.dropped_fields == {"indicator: no digests that can be carried": 1}


def test_a_marking_that_is_no_tlp_marking_is_counted_and_states_nothing() -> None:
    found, report = read("stix", stix(sdo("grouping", 1, object_marking_refs=["marking-definition--1"])))
    assert found[0].handling is None
    assert report.dropped_fields == {"object_marking_refs: no TLP 2.0 marking": 1}


@pytest.mark.parametrize("form", GRAPHS)
def test_two_versions_of_one_case_do_not_go_into_one_file(form: str) -> None:
    with pytest.raises(MalformedError):
        written(form, FULL, replace(FULL, version=4))


def test_an_incident_that_a_report_names_is_no_case_of_its_own() -> None:
    incident = sdo("incident", 2, name="inner")
    found, report = read("stix", stix(incident, sdo("report", 1, name="outer", object_refs=[incident["id"]])))
    assert [record.summary for record in found] == ["outer"]
    assert report.dropped_fields == {"incident: part of another case": 1}


def test_nodes_without_names_that_stand_in_one_another_many_times_are_refused() -> None:
    many = [{"@id": f"_:{level}", "gw:x": {"@list": [{"@id": f"_:{level + 1}"}] * 100}} for level in range(7)]
    case = investigation(1, **{"gw:part": "case", "gw:series": {"@id": "_:0"}})
    found, report = read("case_uco", graph(*many, {"@id": "_:7", "gw:x": 1}, case))
    assert (found, [row.reason for row in report.refused_rows]) == ([], ["is one of too many members of a case"])


@pytest.mark.parametrize("context", [{"a": "b:x", "b": "a:y"}, {"a": "b", "b": "a"}, {"a": "a:a"}])
def test_a_context_whose_names_stand_for_each_other_names_nothing(context: dict[str, str]) -> None:
    found, report = read("case_uco", graph({"@id": "urn:x:1", "@type": "a:z", "a:z": "x", "a": "y"}, context=context))
    assert (found, report.read) == ([], 0)


def test_nodes_that_refer_to_each_other_without_end_are_refused() -> None:
    loop = [{"@id": "_:a", "gw:x": {"@id": "_:b"}}, {"@id": "_:b", "gw:x": {"@id": "_:a"}}]
    found, report = read("case_uco", graph(*loop, investigation(1, **{"gw:part": "case", "gw:series": {"@id": "_:a"}})))
    assert (found, [row.field for row in report.refused_rows]) == ([], ["x"])


@pytest.mark.parametrize("raw", ["", "[]", '{"objects": [', '{"objects": [{}] "x"}', '{"objects": [], "objects": []}'])
def test_a_broken_bundle_is_refused_whole(raw: str) -> None:
    with pytest.raises(MalformedError):
        read("stix", raw.encode())


def test_a_bundle_with_more_objects_than_are_kept_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stixcasein, "MAX_OBJECTS", 3)
    with pytest.raises(TooLargeError):
        read("stix", stix(*(sdo("note", number, content="x") for number in range(4))))


CONTEXT = {
    "core": "https://ontology.unifiedcyberontology.org/uco/core/",
    "inv": "https://ontology.caseontology.org/case/investigation/",
    "gw": VOCABULARY,
    "uco-identity": "https://ontology.unifiedcyberontology.org/uco/identity/",
}


def graph(*nodes: object, context: object = CONTEXT) -> bytes:
    return json.dumps({"@context": context, "@graph": list(nodes)}).encode()


def nested(levels: int) -> object:
    return {"@type": "core:Annotation", "core:object": nested(levels - 1)} if levels else "end"


def investigation(number: int, **members: object) -> dict[str, object]:
    return {"@id": f"urn:x:{number}", "@type": "inv:Investigation", "core:name": "good", **members}


@pytest.mark.parametrize(
    ("node", "place"),
    [
        (investigation(1, **{"core:name": ["a", "b"]}), "name"),
        (investigation(1, **{"core:name": {"core:name": "x"}}), "name"),
        (investigation(1, **{"gw:part": "case", "gw:originator": "XA-NCVI", "gw:version": "x"}), "version"),
        (investigation(1, **{"core:object": {"@type": "core:Annotation", "gw:part": "victim"}}), "part"),
        (investigation(1, **{"core:objectCreatedTime": "yesterday"}), "objectCreatedTime"),
        (investigation(1, **{"@context": {}}), "row"),
        (investigation(1, **{"@reverse": {}}), "row"),
        (investigation(1, **{"core:object": nested(20)}), "row"),
        (investigation(1, **{"gw:part": "case", "gw:series": {"@id": "urn:x:2"}}), "series"),
        (investigation(1, **{"gw:part": ["case", "case"]}), "part"),
        ({"@type": "inv:Investigation"}, "row"),
    ],
)
def test_a_bad_case_of_a_graph_is_refused_alone_with_its_place(node: object, place: str) -> None:
    found, report = read("case_uco", graph(node, investigation(9)))
    assert [record.summary for record in found] == ["good"]
    assert [(row.line, row.field) for row in report.refused_rows] == [(1, place)]


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b'{"@graph": []}',
        b'{"@context": {}, "@graph": [}',
        b'{"@context": {}, "@graph": []} more',
        b'{"@context": {}, "@context": {}, "@graph": []}',
        graph(context={"core": {"@id": "x", "@context": {}}}),
        graph(context={"@import": "https://host.example/"}),
        graph(context={"core": {"@reverse": "x"}}),
    ],
)
def test_a_graph_that_is_broken_or_needs_the_network_is_refused_whole(raw: bytes) -> None:
    with pytest.raises(MalformedError):
        read("case_uco", raw)


@pytest.mark.parametrize("context", ["https://host.example/c.jsonld", [CONTEXT, "https://host.example/c.jsonld"]])
def test_no_context_is_fetched(context: object) -> None:
    with pytest.raises(MalformedError, match="none is fetched"):
        read("case_uco", graph(context=context))


def test_a_graph_with_more_nodes_than_are_kept_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonld, "MAX_NODES", 3)
    with pytest.raises(TooLargeError):
        read("case_uco", graph(*(investigation(number) for number in range(4))))


@pytest.mark.parametrize("spelling", ["aliases", "full names", "vocabulary"])
def test_a_name_means_the_same_however_it_is_spelt(spelling: str) -> None:
    spellings: dict[str, Callable[[], bytes]] = {
        "aliases": lambda: graph(
            {"id": "urn:x:1", "type": "Case", "title": "good", "holds": "urn:x:2"},
            {"id": "urn:x:2", "type": "core:Annotation", "core:statement": "tiles"},
            context={
                "id": "@id",
                "type": "@type",
                "core": CONTEXT["core"],
                "Case": CONTEXT["inv"] + "Investigation",
                "title": "core:name",
                "holds": {"@id": "core:object", "@type": "@id"},
            },
        ),
        "full names": lambda: graph(
            {
                "@id": "urn:x:1",
                "@type": [CONTEXT["inv"] + "Investigation"],
                CONTEXT["core"] + "name": [{"@value": "good"}],
                CONTEXT["core"] + "object": {"@set": [{"@id": "urn:x:2"}]},
            },
            {"@id": "urn:x:2", "@type": CONTEXT["core"] + "Annotation", CONTEXT["core"] + "statement": "tiles"},
            context={},
        ),
        "vocabulary": lambda: graph(
            {
                "@id": "urn:x:1",
                "@type": CONTEXT["inv"] + "Investigation",
                "name": "good",
                "object": [{"@type": "Annotation", "statement": "tiles"}],
            },
            context={"@vocab": CONTEXT["core"]},
        ),
    }
    found, _ = read("case_uco", spellings[spelling]())
    assert [(record.reference, record.summary) for record in found] == [("urn:x:1", "good")]
    assert [clue.text for clue in found[0].clues] == ["tiles"]


def test_a_time_frame_ends_with_its_last_day() -> None:
    raw, _ = written("case_uco", replace(BARE, time_frames=FULL.time_frames[1:]))
    assert b"2026-03-09T23:59:59Z" in raw
    assert read("case_uco", raw)[0][0].time_frames[0].latest == date(2026, 3, 9)
