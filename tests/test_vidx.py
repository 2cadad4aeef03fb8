"""The case report: one record, one form of bytes; nothing of a withheld group; nothing taken but the contract."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import xmlschema
from hypothesis import given, settings
from hypothesis import strategies as st

from case_strategies import SLOW, case_records, full_case, group_sets
from gateway import xml
from gateway.caserecord import CASE_GROUPS, CaseRecord, Clue, ClueKind, ClueSource
from gateway.errors import DeniedError, MalformedError, TooLargeError
from gateway.model import FieldGroup, VictimStatus
from gateway.vidx import MAX_CASE_BYTES, NAMESPACE, dump_case, lacking, parse_case, redact
from gateway.vidx.redacting import GROUP_OF
from gateway.vidx.schema import XSD

ROOT = Path(__file__).parents[1]
CONTRACT = ROOT / "contracts" / "vidx-1.0.xsd"
ALL = frozenset(CASE_GROUPS)
EXISTENCE = frozenset({FieldGroup.EXISTENCE})
MINIMAL = CaseRecord("XA-NCVI", "C-1", 1, 0, 0)


@pytest.fixture(scope="module")
def full() -> CaseRecord:
    return full_case()


@pytest.fixture(scope="module")
def other() -> xmlschema.XMLSchema10:
    """Another implementation of XML Schema."""
    return xmlschema.XMLSchema10(XSD.decode())


@settings(SLOW, max_examples=100)
@given(case_records())
def test_a_record_is_the_same_after_the_way_through_its_bytes(record: CaseRecord) -> None:
    raw = dump_case(record)
    report = parse_case(raw, drafts=True)
    assert (report.record, report.groups, report.missing) == (record, ALL, record.missing)
    assert dump_case(report.record) == raw


@settings(SLOW, max_examples=40)
@given(record=case_records())
def test_another_implementation_takes_what_is_written(record: CaseRecord, other: xmlschema.XMLSchema10) -> None:
    other.validate(dump_case(record))


@settings(SLOW, max_examples=60)
@given(case_records(complete=True), group_sets)
def test_a_report_holds_its_groups_and_gives_the_same_bytes_again(
    record: CaseRecord, groups: frozenset[FieldGroup]
) -> None:
    raw = dump_case(record, groups)
    report = parse_case(raw)
    assert (report.record, report.groups) == (redact(record, groups), groups)
    assert dump_case(report.record, report.groups) == raw


def test_every_field_of_a_record_has_a_group() -> None:
    of_existence = {
        "originator", "reference", "version", "opened", "updated", "handling", "category", "evaluation", "legal_basis",
        "purpose", "review_on", "restrictions", "onward", "urgency", "entries",
    }  # fmt: skip
    assert {field.name for field in fields(CaseRecord)} == of_existence | set(GROUP_OF)


def marked(record: CaseRecord) -> dict[FieldGroup, CaseRecord]:
    """The record with a word of its own in every text of one group, for each group."""
    text = "WITHHELDWORD"
    step = {"reason": text}
    changed = {
        FieldGroup.CASE_SUMMARY: {"summary": text, "extensions": ((text, text),)},
        FieldGroup.CLUES: {
            "clues": tuple(replace(clue, text=text) for clue in record.clues),
            "time_frames": tuple(replace(frame, text=text) for frame in record.time_frames),
            "places": tuple(replace(place, text=text) for place in record.places),
        },
        FieldGroup.PERSONS: {
            "persons": tuple(replace(person, ref=f"{text}{n}") for n, person in enumerate(record.persons))
        },
        FieldGroup.VICTIM_STATUS: {
            "victims": tuple(
                replace(victim, ref=f"{text}{n}", history=tuple(replace(one, **step) for one in victim.history))
                for n, victim in enumerate(record.victims)
            )
        },
        FieldGroup.SERIES: {"series": tuple(replace(one, name=text, aliases=(text,)) for one in record.series)},
        FieldGroup.CONTACT: {"contact": replace(record.contact, unit=text) if record.contact else None},
    }
    return {group: replace(record, **words) for group, words in changed.items()}


@settings(SLOW, max_examples=40)
@given(case_records(complete=True), group_sets)
def test_nothing_of_a_withheld_group_is_in_the_bytes(record: CaseRecord, groups: frozenset[FieldGroup]) -> None:
    for group, changed in marked(record).items():
        raw = dump_case(changed, groups)
        if group not in groups:
            assert b"WITHHELDWORD" not in raw
            assert raw == dump_case(record, groups)
    for entry in record.entries:
        for name, value in entry.digests:
            group = FieldGroup.PERCEPTUAL_DIGESTS if name == "pdq" else FieldGroup.CRYPTOGRAPHIC_DIGESTS
            assert (value.hex().encode() in dump_case(record, groups)) == (group in groups)


@settings(SLOW, max_examples=60)
@given(case_records(complete=True), case_records(complete=True), group_sets)
def test_cases_that_differ_in_withheld_groups_alone_are_equal_bytes(
    one: CaseRecord, two: CaseRecord, groups: frozenset[FieldGroup]
) -> None:
    withheld: dict[str, Any] = {name: getattr(two, name) for name, group in GROUP_OF.items() if group not in groups}
    if not groups & {FieldGroup.CRYPTOGRAPHIC_DIGESTS, FieldGroup.PERCEPTUAL_DIGESTS}:
        by_digest = tuple(entry for entry in two.entries if not entry.set_name)
        named = tuple(replace(entry, digests=()) for entry in one.entries if entry.set_name)
        withheld["entries"] = (*named, *by_digest)
    assert dump_case(replace(one, **withheld), groups) == dump_case(one, groups)


def test_the_label_says_where_the_status_was_withheld(full: CaseRecord) -> None:
    groups = ALL - {FieldGroup.VICTIM_STATUS, FieldGroup.CONTACT}
    assert parse_case(dump_case(full, groups)).label == replace(full.label, victim_status=VictimStatus.WITHHELD)
    assert parse_case(dump_case(full)).label == full.label


def test_without_existence_nothing_goes(full: CaseRecord) -> None:
    with pytest.raises(DeniedError):
        dump_case(full, ALL - EXISTENCE)
    with pytest.raises(DeniedError):
        dump_case(full, ())


def test_an_incomplete_case_is_kept_as_a_draft_and_never_leaves() -> None:
    raw = dump_case(MINIMAL)
    assert b"<CaseDraft " in raw
    assert parse_case(raw, drafts=True).missing == MINIMAL.missing == lacking(MINIMAL)
    with pytest.raises(MalformedError, match="draft"):
        parse_case(raw)
    for groups in (ALL, EXISTENCE):
        with pytest.raises(MalformedError, match="handling"):
            dump_case(MINIMAL, groups)


def test_a_report_without_its_contact_is_complete_only_where_the_contact_is_withheld(full: CaseRecord) -> None:
    without = replace(full, contact=None)
    with pytest.raises(MalformedError, match="contact"):
        dump_case(without, ALL)
    assert parse_case(dump_case(without, ALL - {FieldGroup.CONTACT})).missing == ()
    raw = re.sub(rb"  <ContactInformation>.*</ContactInformation>\n", b"", dump_case(full), flags=re.DOTALL)
    with pytest.raises(MalformedError, match="contact"):
        parse_case(raw)


@pytest.mark.parametrize("group", sorted(ALL - EXISTENCE))
def test_what_the_named_groups_do_not_cover_is_refused(full: CaseRecord, group: FieldGroup) -> None:
    raw = dump_case(full)
    line = f"  <ReportFieldGroupCode>{group}</ReportFieldGroupCode>\n".encode()
    assert line in raw
    with pytest.raises(MalformedError, match="does not name"):
        parse_case(raw.replace(line, b""))


@settings(SLOW, max_examples=80)
@given(case_records(complete=True), st.data())
def test_mutated_bytes_are_refused_or_a_valid_record(record: CaseRecord, data: st.DataObject) -> None:
    raw = bytearray(dump_case(record))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(raw) - 1))
        piece = data.draw(st.one_of(st.binary(max_size=3), st.sampled_from((b"<", b"/>", b"&#9;", b"<!", b" x='1'"))))
        raw[place : place + data.draw(st.integers(0, 40))] = piece
    try:
        report = parse_case(bytes(raw))
    except MalformedError:
        return
    again = parse_case(dump_case(report.record, report.groups))
    assert again == report


def test_space_and_prefixes_are_free(full: CaseRecord) -> None:
    raw = dump_case(full).decode()
    tight = re.sub(r">\s*\n\s*<", "><", raw)
    prefixed = re.sub(r"<(/?)(?=[A-Z])", r"<\1p:", tight).replace(" xmlns=", " xmlns:p=")
    assert tight != raw != prefixed
    assert parse_case(tight.encode()).record == parse_case(prefixed.encode()).record == full


def test_a_refusal_names_the_line_and_no_value(full: CaseRecord) -> None:
    raw = dump_case(full).replace(b"<EvaluationCode>", b"<EvaluationCode>SECRET")
    with pytest.raises(MalformedError) as refused:
        parse_case(raw)
    line = raw[: raw.index(b"SECRET")].count(b"\n") + 1
    assert (refused.value.place, "SECRET" in str(refused.value)) == (f"line {line}, EvaluationCode", False)
    strange = raw.replace(b"SECRET", b"").replace(b"LegalBasisText", b"SECRET")
    with pytest.raises(MalformedError) as refused:
        parse_case(strange)
    assert "SECRET" not in str(refused.value)


def test_a_case_over_the_bounds_is_not_written() -> None:
    clue = Clue(ClueKind.OBJECT, "é" * 4_000, 50, ClueSource.ANALYST)
    with pytest.raises(TooLargeError):
        dump_case(replace(MINIMAL, clues=(clue,) * 256))
    marks = replace(clue, text="=" * 4_000)  # which the parser's bound on attributes counts
    with pytest.raises(TooLargeError):
        dump_case(replace(MINIMAL, clues=(marks,) * 6))


def test_bytes_over_the_bounds_are_not_read(full: CaseRecord) -> None:
    raw = dump_case(full)
    with pytest.raises(TooLargeError):
        parse_case(raw + b" " * MAX_CASE_BYTES)


def test_the_schema_in_the_code_is_the_contracts() -> None:
    assert CONTRACT.read_bytes() == XSD
    assert NAMESPACE.encode() in XSD


VECTORS = Path(__file__).parent / "vectors" / "vidx"
EXPECTED: dict[str, str] = json.loads((VECTORS / "expect.json").read_text(encoding="utf-8"))


def test_every_vector_has_its_word() -> None:
    assert EXPECTED.keys() == {path.name for path in VECTORS.glob("*.xml")}
    assert set(EXPECTED.values()) == {"report", "draft", "schema", "rules", "xml"}


@pytest.mark.parametrize(("name", "word"), EXPECTED.items())
def test_a_vector_is_what_its_word_says(name: str, word: str, other: xmlschema.XMLSchema10) -> None:
    """report, draft: taken. xml, schema, rules: refused by the parser, by both validators, by the rules alone."""
    raw = (VECTORS / name).read_bytes()
    try:
        root = xml.parse(raw, max_bytes=MAX_CASE_BYTES)
        assert not root.xpath("//@*[namespace-uri() = $instance]", instance=xml.INSTANCE)
    except (MalformedError, AssertionError):
        assert word == "xml"
        with pytest.raises(MalformedError):
            parse_case(raw, drafts=True)
        return
    assert word != "xml"
    verdict = True
    try:
        xml.Schema(XSD).require(root)
    except MalformedError:
        verdict = False
    assert verdict == other.is_valid(raw.removeprefix(b"\xef\xbb\xbf").decode()) == (word != "schema")
    if word in ("report", "draft"):
        report = parse_case(raw, drafts=True)
        again = dump_case(report.record, report.groups if word == "report" else None)
        assert parse_case(again, drafts=True) == report
    if word != "report":
        with pytest.raises(MalformedError):
            parse_case(raw, drafts=word != "draft")


# The contract's page


PAGE = (ROOT / "contracts" / "vidx-1.0.md").read_text(encoding="utf-8")


def test_the_page_names_the_schema_and_shows_a_vector() -> None:
    assert hashlib.sha256(XSD).hexdigest() in PAGE
    (example,) = re.findall(r"```xml\n(.*?)```", PAGE, re.DOTALL)
    assert example.encode() == (VECTORS / "report-existence-and-clues.xml").read_bytes()


def test_the_page_maps_every_element_of_a_case(full: CaseRecord) -> None:
    elements = re.findall(r"^  <([A-Za-z]+)", dump_case(full).decode(), re.MULTILINE)
    mapped = set(re.findall(r"`([A-Za-z]+)`", PAGE.partition("## What an element means")[2]))
    assert set(elements) - {"ReportFieldGroupCode"} <= mapped


def test_the_page_says_which_group_an_element_is_of(full: CaseRecord) -> None:
    table = PAGE.partition("## Field groups")[2].partition("## What")[0]
    for group in ALL - EXISTENCE:
        (row,) = re.findall(rf"^\| `{group}` \| (.*) \|$", table, re.MULTILINE)
        gone = set(re.findall(rb"<([A-Za-z]+)", dump_case(full))) - set(
            re.findall(rb"<([A-Za-z]+)", dump_case(full, ALL - {group}))
        )
        if not group.endswith("digests"):
            assert set(re.findall(r"`([A-Za-z]+)`", row)) <= {name.decode() for name in gone}
