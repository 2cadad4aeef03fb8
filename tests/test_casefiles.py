"""Files of cases, in and out: what is carried, what is refused and where, and that what is not stated stays empty."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from case_strategies import SLOW, case_records, full_case
from gateway.adapters import case_csv
from gateway.adapters.caseparts import to_plain
from gateway.adapters.cases import (
    CASE_READERS,
    CASE_WRITERS,
    SNIFF_BYTES,
    CaseOptions,
    read_cases,
    sniff_cases,
    write_cases,
)
from gateway.caserecord import CaseRecord, Clue, ClueKind, ClueSource
from gateway.errors import MalformedError, TooLargeError
from gateway.model import AdapterReport, FieldGroup, RefusedRow
from gateway.vidx import dump_case

SAMPLES = Path(__file__).parent / "data_adapters"
CONTRACTS = Path(__file__).parents[1] / "contracts"
MINIMAL = CaseRecord("XA-NCVI", "C-1", 1, 1_788_000_000, 1_788_000_000)


def read(form: str, raw: bytes) -> tuple[list[CaseRecord], AdapterReport]:
    report = AdapterReport(form)
    found = list(read_cases(io.BytesIO(raw), form, report))
    assert report.read == report.accepted + report.refused
    assert report.accepted == len(found)
    return found, report


def written(form: str, *cases: CaseRecord) -> bytes:
    report = AdapterReport(form)
    raw = b"".join(write_cases(cases, form, report))
    assert (report.read, report.accepted, report.dropped_fields) == (len(cases), len(cases), {})
    return raw


def case_json(*cases: Any) -> bytes:
    return json.dumps({"format": "case-json 1", "cases": list(cases)}).encode()


def plain(**changes: Any) -> dict[str, Any]:
    """The smallest case as JSON, with other members."""
    stated = {
        "originator": "XA-NCVI",
        "reference": "C-1",
        "version": 1,
        "opened": "2026-08-29",
        "updated": "2026-08-29",
    }
    return {**stated, **changes}


def cells(record: CaseRecord) -> dict[str, str]:
    """The record as the named cells of one row."""

    def walk(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[str, str]]:
        if isinstance(value, dict):
            for name, one in value.items():
                yield from walk(one, path if name == "digests" else (*path, case_csv.SINGULAR.get(name, name)))
        elif path[-1] in ("restrictions", "onward", "aliases"):
            yield "_".join(map(str, path)), "|".join(value)
        elif isinstance(value, list):
            for number, one in enumerate(value, 3):  # gaps are no fault
                yield from walk(one, (*path, number))
        elif value is not None:
            yield "_".join(map(str, path)), str(value).lower() if isinstance(value, bool) else str(value)

    return {name: cell for name, cell in walk(to_plain(record), ()) if cell}


def table(*rows: dict[str, str]) -> bytes:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


@settings(SLOW, max_examples=60)
@given(case_records(), case_records())
def test_cases_are_equal_after_the_way_through_json(one: CaseRecord, two: CaseRecord) -> None:
    assert read("case_json", written("case_json", one, two))[0] == [one, two]


@settings(SLOW, max_examples=40)
@given(case_records())
def test_a_case_is_equal_after_the_way_through_its_report(record: CaseRecord) -> None:
    assert read("vidx", written("vidx", record))[0] == [record]


@settings(SLOW, max_examples=60)
@given(case_records())
def test_what_a_row_states_is_the_case(record: CaseRecord) -> None:
    row = cells(record)
    if any(cell != cell.strip() or "|" in cell for cell in row.values()):
        return  # space around a cell is no part of it, and a bar parts words
    found, report = read("case_csv", table(row))
    assert (found, report.refused_rows) == ([record], [])


def test_a_full_case_goes_through_every_form() -> None:
    full = full_case()
    assert read("case_csv", table(cells(full)))[0] == [full]
    for form in CASE_WRITERS.keys() & {"case_json", "vidx"}:
        assert read(form, written(form, full))[0] == [full]


@pytest.mark.parametrize("form", ["case_csv", "case_json"])
def test_what_is_not_stated_stays_empty_and_is_named(form: str) -> None:
    raw = table(cells(MINIMAL)) if form == "case_csv" else case_json(plain(handling=None, category="", contact=None))
    (found,), report = read(form, raw)
    assert report.dropped_fields == {}
    assert found.missing == ("handling", "category", "evaluation", "legal_basis", "purpose", "review_on", "contact")


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"originator": None}, "row", "originator"),
    ({"originator": "Police"}, "row", "originator"),
    ({"reference": 7}, "reference", "not text"),
    ({"version": "one"}, "version", "whole number"),
    ({"version": 1.5}, "version", "whole number"),
    ({"version": True}, "version", "whole number"),
    ({"version": None}, "version", "is missing"),
    ({"opened": None}, "opened", "is missing"),
    ({"opened": "29.8.2026"}, "opened", "is not a date"),
    ({"opened": "2026-02-30"}, "opened", "calendar"),
    ({"opened": "2026-08-29T10:00:00"}, "opened", "offset"),
    ({"opened": "2026-08-30"}, "row", "before it was opened"),
    ({"opened": "0001-01-01T00:00:00+09:00"}, "opened", "before 1970"),
    ({"handling": "H9"}, "handling", "H0, H1, H2, H3"),
    ({"handling": ["H1"]}, "handling", "H0"),
    ({"purpose": "curiosity"}, "purpose", "not one of"),
    ({"review_on": 20270830}, "review_on", "is not a date"),
    ({"onward": "XB"}, "onward", "not a list"),
    ({"onward": ["XB", "XB"]}, "onward", "twice"),
    ({"onward": [7]}, "onward[0]", "not text"),
    ({"restrictions": ["secret"]}, "restrictions[0]", "not one of"),
    ({"legal_bases": "SECRET"}, "legal_bases", "not known"),
    ({"SECRET": "SECRET"}, "?", "not known"),
    ({"clues": [{"kind": "object", "text": "x", "confidence": 80}]}, "clues[0].source", "is missing"),
    ({"clues": [{"kind": "object", "text": "x", "confidence": 101, "source": "analyst"}]}, "clues[0]", "percent"),
    ({"clues": [{"kind": "object", "text": "x", "sorce": "analyst"}]}, "clues[0].sorce", "not known"),
    ({"clues": {"kind": "object"}}, "clues", "not a list"),
    ({"clues": ["a red bag"]}, "clues[0]", "not an object"),
    ({"places": [{"region": "R", "confidence": 1, "source": "analyst"}]}, "places[0]", "without its country"),
    ({"time_frames": [{"confidence": 1, "source": "analyst"}]}, "time_frames[0]", "both ends"),
    ({"victims": [{"ref": "V", "history": [{"status": "unknown"}]}]}, "victims[0].history[0].at", "missing"),
    ({"victims": [{"ref": "V", "age": {"low": 9}}]}, "victims[0].age.high", "is missing"),
    ({"persons": [{"ref": "P", "role": "suspect", "releasable": "perhaps"}]}, "persons[0].releasable", "y, yes"),
    ({"persons": [{"ref": "P", "role": "suspect", "releasable": 1}]}, "persons[0].releasable", "true"),
    ({"entries": [{"digests": {"md5": "00"}}]}, "entries[0].digests.md5", "32 characters"),
    ({"entries": [{"digests": {"md5": "0" * 32}}]}, "entries[0].digests.md5", "all zero"),
    ({"entries": [{"digests": {"photodna": "AA"}}]}, "entries[0].digests", "algorithm"),
    ({"entries": [{"digests": {"md5": 7}}]}, "entries[0].digests.md5", "not text"),
    ({"entries": [{"set_name": "XA-NCVI/a"}]}, "entries[0]", "go together"),
    ({"extensions": {"a": "b"}}, "extensions", "not a list"),
    ({"extensions": [{"name": "a", "value": "b"}]}, "extensions[0]", "another member"),
    ({"extensions": [{"name": "a", "text": 7}]}, "extensions[0].text", "not text"),
    ({"summary": "bell \a"}, "row", "control"),
]


@pytest.mark.parametrize(("changes", "field", "reason"), REFUSED)
def test_a_bad_case_is_refused_by_itself(changes: dict[str, Any], field: str, reason: str) -> None:
    good = plain(reference="C-2")
    found, report = read("case_json", case_json(plain(**changes), good))
    assert [record.reference for record in found] == ["C-2"]
    (row,) = report.refused_rows
    assert (row.line, row.field) == (1, field)
    assert reason in row.reason
    assert "SECRET" not in repr(row)


def test_a_member_that_stands_twice_or_a_bad_byte_refuses_the_case() -> None:
    good = json.dumps(plain())
    doubled = good.replace("{", '{"summary": "a", "summary": "b", ', 1)
    bad = good.replace("C-1", "C-\udcff")
    raw = f'{{"format": "case-json 1", "cases": [{doubled}, {good}, {bad}, 7]}}'.encode(errors="surrogateescape")
    found, report = read("case_json", raw)
    assert len(found) == 1
    assert [(row.line, row.reason) for row in report.refused_rows] == [
        (1, "has a member twice"), (3, "is not UTF-8"), (4, "is not an object"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b'{"cases": []}',
        b'{"format": "case-json 2", "cases": []}',
        b'{"format": "case-json 1", "case": []}',
        b'{"format": "case-json 1", "cases": {}}',
        b'{"format": "case-json 1", "cases": []} x',
        b'{"format": "case-json 1", "cases": [], "more": 1}',
        b'{"format": "case-json 1", "cases": [{]}',
    ],
)
def test_a_bad_json_file_is_refused_whole(raw: bytes) -> None:
    with pytest.raises(MalformedError):
        read("case_json", raw)


def test_a_bad_row_names_its_line_and_its_column() -> None:
    row = cells(full_case())
    bad = [
        {**row, "clue_3_confidence": "SECRET"},
        {**row, "person_3_mark_3_kind": "SECRET"},
        {**row, "victim_3_step_4_at": "SECRET"},
        {**row, "entry_4_md5": "SECRET"},
        {**row, "clue_3_confidence": "101"},
        {**row, "version": "-1"},
        {**row, "review_on": ""},
    ]
    found, report = read("case_csv", table(*bad))
    assert [record.missing for record in found] == [("review_on",)]
    refused = [(one.line, one.field) for one in report.refused_rows]
    height = table(row).count(b"\n") - 1  # a summary of two lines
    columns = ["clue_3_confidence", "person_3_mark_3_kind", "victim_3_step_4_at", "entry_4_md5", "clue_3", "version"]
    assert refused == [(2 + height * number, column) for number, column in enumerate(columns)]
    assert "SECRET" not in repr(report)


@pytest.mark.parametrize(
    "header",
    [
        "clue_1_txt",
        "clue_01_text",
        "clue_0_text",
        "clue_N_text",
        "clue_10000_text",
        "clue_text",
        "originator_1",
        "Clue_1_text",
        "",
    ],
)
def test_a_column_that_is_not_known_refuses_the_file(header: str) -> None:
    with pytest.raises(MalformedError, match="does not know"):
        read("case_csv", f"originator,reference,version,{header}\n".encode())


def test_a_header_of_too_many_columns_refuses_the_file() -> None:
    columns = ",".join(f"extension_{number}_name" for number in range(1, 4_098))
    with pytest.raises(MalformedError, match="more than 4096 columns"):
        read("case_csv", f"{columns}\n".encode())


def test_rows_of_another_width_and_bad_bytes_are_refused_alone() -> None:
    row = b"XA-NCVI,C-1,1,2026-08-29,2026-08-29\n"
    raw = (
        b"originator,reference,version,opened,updated\n" + row + b"XA-NCVI,C-2\n" + row.replace(b"C-1", b"C-\xff") + row
    )
    found, report = read("case_csv", raw)
    assert found == [replace(MINIMAL, opened=1_787_961_600, updated=1_787_961_600)] * 2
    assert report.refused_rows == [
        RefusedRow(3, "row", "has 2 cells where the header has 5"), RefusedRow(4, "row", "is not UTF-8"),
    ]  # fmt: skip


def test_a_case_over_the_bounds_of_a_report_is_refused_by_itself() -> None:
    clue = Clue(ClueKind.OBJECT, "é" * 4_000, 50, ClueSource.ANALYST)
    big = replace(MINIMAL, clues=(clue,) * 140)
    found, report = read("case_json", case_json(to_plain(big), to_plain(MINIMAL)))
    assert found == [MINIMAL]
    assert "longer than" in report.refused_rows[0].reason


def test_a_report_is_one_whole_case() -> None:
    full = full_case()
    with pytest.raises(MalformedError, match="one case"):
        written("vidx", full, full)
    partial = dump_case(full, [FieldGroup.EXISTENCE, FieldGroup.SERIES])
    with pytest.raises(MalformedError, match="only a part"):
        read("vidx", partial)
    with pytest.raises(TooLargeError):
        read("vidx", dump_case(full) + b" " * (1 << 20))


def test_a_format_that_is_not_known_is_refused_at_once() -> None:
    with pytest.raises(MalformedError, match="not known"):
        read_cases(io.BytesIO(b""), "word", AdapterReport(""))
    with pytest.raises(MalformedError, match="not written"):
        write_cases([], "case_csv", AdapterReport(""))


def test_a_file_is_recognised_by_its_beginning() -> None:
    full = full_case()
    for form in ("case_json", "vidx"):
        assert sniff_cases(written(form, full)[:SNIFF_BYTES]) == form
    assert sniff_cases(b"\xef\xbb\xbf" + table(cells(full))[:SNIFF_BYTES]) == "case_csv"
    for other in (b"", b"{}", b"sha256,md5\n", b"<a/>", b"<CaseReport/>", b"\xff\xfe"):
        assert sniff_cases(other) is None


def test_options_are_checked() -> None:
    assert CaseOptions("XA-NCVI", "icse", 7).originator == "XA-NCVI"
    for words in ({"originator": "Police"}, {"category_scheme": "a b"}):
        with pytest.raises(MalformedError):
            CaseOptions(**words)  # type: ignore[arg-type]


def test_every_reader_reads_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe gives what it has: one byte at a time must do."""

    class Drip(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(1)

    full = full_case()
    files = {"case_json": written("case_json", full), "vidx": written("vidx", full), "case_csv": table(cells(full))}
    for form, raw in files.items():
        assert list(read_cases(Drip(raw), form, AdapterReport(form))) == [full]
    assert files.keys() <= CASE_READERS.keys()


# What is kept, and the contracts' pages


KEPT = {"case_csv": "cases.csv", "case_json": "cases.json"}


@pytest.mark.parametrize(("form", "name"), KEPT.items())
def test_the_loss_report_of_a_file_is_as_it_is_kept(form: str, name: str) -> None:
    found, report = read(form, (SAMPLES / name).read_bytes())
    kept = (SAMPLES / "losses" / f"{form}.json").read_text(encoding="utf-8")
    assert json.dumps(asdict(report), indent=1) + "\n" == kept
    assert len(found) == report.read - report.refused > 0


def test_a_json_file_is_written_as_it_is_kept() -> None:
    assert written("case_json", full_case(), MINIMAL) == (SAMPLES / "cases-written.json").read_bytes()


def test_the_examples_of_the_pages_are_read() -> None:
    (text,) = re.findall(r"```json\n(.*?)```", (CONTRACTS / "case-json-1.md").read_text(encoding="utf-8"), re.DOTALL)
    (case,), report = read("case_json", text.encode())
    assert (case.missing, report.refused) == (("review_on",), 0)
    (text,) = re.findall(r"```csv\n(.*?)```", (CONTRACTS / "case-csv-1.md").read_text(encoding="utf-8"), re.DOTALL)
    found, report = read("case_csv", text.encode())
    assert [len(one.clues) for one in found] == [1, 1]
    assert report.refused == 0
    assert found[0].onward == ("XB", "XD")


def test_the_page_names_every_column() -> None:
    page = (CONTRACTS / "case-csv-1.md").read_text(encoding="utf-8").partition("## The columns")[2]
    assert re.findall(r"`([a-z0-9_N]+)`", page) == list(case_csv.templates())
