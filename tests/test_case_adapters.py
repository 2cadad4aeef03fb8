"""Cases out of hotline reports and VICS case files: what is carried, what never passes, what is refused alone."""

from __future__ import annotations

import io
import json
import tracemalloc
from dataclasses import asdict
from pathlib import Path

import pytest

from gateway.adapters import hotline, vicscases
from gateway.adapters.casefields import LEFT_OUT, MAX_WORD_CHARS, plain_text
from gateway.adapters.cases import SNIFF_BYTES, CaseOptions, read_cases, sniff_cases
from gateway.caserecord import CaseRecord, ClueKind, ClueSource, Place, Urgency
from gateway.errors import MalformedError, TooLargeError
from gateway.model import AdapterReport

DATA = Path(__file__).parent / "data_adapters"
NOW = 1_795_000_000
OPTIONS = CaseOptions(originator="XA-NCVI", read_at=NOW)
SAMPLES = {"hotline": "hotline.xml", "vics": "vics-2.0-cases.json"}
LEGAL = ("handling", "category", "evaluation", "legal_basis", "purpose", "review_on")


def read(form: str, raw: bytes) -> tuple[list[CaseRecord], AdapterReport]:
    report = AdapterReport(form)
    return list(read_cases(io.BytesIO(raw), form, report, options=OPTIONS)), report


def sample(form: str) -> tuple[list[CaseRecord], AdapterReport]:
    return read(form, (DATA / SAMPLES[form]).read_bytes())


@pytest.mark.parametrize("form", SAMPLES)
def test_the_loss_report_of_a_sample_is_as_it_is_kept(form: str) -> None:
    _, report = sample(form)
    assert asdict(report) == json.loads((DATA / "losses" / f"{form}.json").read_text())
    assert report.read == report.accepted + report.refused


@pytest.mark.parametrize("form", SAMPLES)
def test_no_legal_field_is_guessed(form: str) -> None:
    for record in sample(form)[0]:
        assert record.missing[:6] == LEGAL
        assert (record.opened, record.updated, record.version) == (NOW, NOW, NOW // 60)


@pytest.mark.parametrize("form", SAMPLES)
def test_a_file_is_known_by_its_look(form: str) -> None:
    assert sniff_cases((DATA / SAMPLES[form]).read_bytes()[:SNIFF_BYTES]) == form


@pytest.mark.parametrize("form", SAMPLES)
def test_without_an_originator_nothing_is_taken(form: str) -> None:
    with (DATA / SAMPLES[form]).open("rb") as source, pytest.raises(MalformedError) as caught:
        list(read_cases(source, form, AdapterReport(form)))
    assert caught.value.remedy


# Hotline


def test_a_hotline_report_becomes_a_case() -> None:
    first, second = sample("hotline")[0]
    assert (first.reference, first.urgency, second.urgency) == ("900001", Urgency.PRIORITY, Urgency.ROUTINE)
    assert [str(clue.kind) for clue in first.clues] == ["account", "account", "device_data", "device_data", "vehicle"]
    assert {clue.source for clue in first.clues} == {ClueSource.HOTLINE}
    assert first.clues[0].kind is ClueKind.ACCOUNT
    assert first.places[0] == Place("XD", "", "Address of the child", 0, ClueSource.HOTLINE)
    assert [dict(entry.digests)["md5"].hex() for entry in first.entries] == ["462d283d443ab2b6f256a6b5b2c7f104"]
    assert "sextortion" in first.summary
    assert "meet tomorrow" in first.summary
    assert "northern accent" in first.summary
    # A country that is no code points to nobody.
    assert second.places == (
        Place("", "", "Estimated location of the user reported: Somewhere", 0, ClueSource.HOTLINE),
    )


def test_nothing_of_a_report_that_names_a_person_a_page_or_a_file_passes() -> None:
    records, report = sample("hotline")
    held = repr((records, report)).casefold()
    for word in ("host.example", ".jpg", ".png", "pics", "img_0001", "words of a chat", "child-screen-name", "school"):
        assert word not in held.replace("schoolname", "").replace("screenname", ""), word
    for name in ("reporter'", "1992", "firstname': 'invented", "night owl", "1 street", "harbourtown, 1"):
        assert name not in held.replace("'reporter'", ""), name


def leaves(form: hotline.Form, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    return [
        found for name, inner in form.items() for found in (leaves(inner, (*path, name)) if inner else [(*path, name)])
    ]


@pytest.mark.parametrize("place", sorted({path[:-1] for path in leaves(hotline.FORM)}))
def test_an_element_that_is_not_on_the_list_never_passes(place: tuple[str, ...]) -> None:
    names = ("url", "content", "fileNames", "profileUrl", "locationOfFile", "thumbnail", "firstName", "incidenttype")
    strange = "".join(f"<{name}>kept<inner>kept</inner></{name}>" for name in names)
    body = strange
    for name in reversed(place):
        body = f"<{name}>{body}</{name}>"
    records, report = read("hotline", f"<report><reportId>7</reportId>{body}</report>".encode())
    assert "kept" not in repr(records)
    assert sum(report.dropped_fields.values()) == len(names)


@pytest.mark.parametrize("path", sorted(leaves(hotline.FORM)))
def test_no_element_carries_a_picture_or_the_way_to_one(path: tuple[str, ...]) -> None:
    for bait in ("https://host.example/bait", "C:\\bait\\1", "/bait/1.jpg", "bait.jpeg", "data:image/png;base64,bait"):
        body = bait
        for name in reversed(path):
            body = f"<{name}>{body}</{name}>"
        number = "" if path == ("reportId",) else "<reportId>7</reportId>"
        records, _ = read("hotline", f"<report>{number}{body}</report>".encode())
        assert "bait" not in repr(records), (path, bait)


@pytest.mark.parametrize(
    "raw",
    [
        b"<report><reportId>7</report>",
        b'<report xmlns="urn:x"><reportId>7</reportId></report>',
        b"<submission/>",
        b"<reports><report/><picture/></reports>",
        b'<!DOCTYPE report [<!ENTITY a "b">]><report/>',
        b"\xff\xfe<\x00",
        b"",
    ],
)
def test_a_file_that_is_no_hotline_report_is_refused_whole(raw: bytes) -> None:
    with pytest.raises(MalformedError):
        read("hotline", raw)


def test_a_hotline_file_with_pictures_in_it_is_too_large() -> None:
    class Endless(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            return b"x" * max(size, 1)

    with pytest.raises(TooLargeError):
        next(hotline.read(Endless(), AdapterReport("hotline"), OPTIONS))  # type: ignore[arg-type]


def test_the_second_report_with_one_number_is_refused() -> None:
    one = b"<report><reportId>7</reportId></report>"
    records, report = read("hotline", b"<reports>" + one + one + b"</reports>")
    assert len(records) == 1
    assert [(row.line, row.field) for row in report.refused_rows] == [(2, "reportId")]


# Texts


@pytest.mark.parametrize(
    "word",
    ["https://x.example", "www.x.example", "x.example/a", "a.jpg", "(IMG_1.HEIC)", "C:\\a", "\\\\host\\a", "/var/a",
     "~/a", "host[.]example", "host(dot)example", "203.0.113.10/a",
     "\u043f\u0440\u0438\u043c\u0435\u0440.\u0440\u0444",
     "a.\u200bjpg",
     "\uff48ttps\uff1a//x", "a\uff0ejpg", "file:a", "a/b/c", "magnet:?xt=1",
     "x" * (MAX_WORD_CHARS + 1), "user@x.example"],
)  # fmt: skip
def test_a_word_that_may_lead_to_imagery_is_left_out(word: str) -> None:
    report = AdapterReport("test")
    assert plain_text(f"before {word} after", "note", report) == f"before {LEFT_OUT} after"
    assert report.dropped_fields == {"note: address, path or file name": 1}


@pytest.mark.parametrize(
    "text",
    ["He said: come at 21:15, and/or later.", "12/03/2026 2026-05-19T21:15:30.123Z", "e.g. 3.5 m, No. 7", "Grüße 日本"],
)
def test_other_words_stay(text: str) -> None:
    report = AdapterReport("test")
    assert plain_text(text, "note", report) == text
    assert report.dropped_fields == {}


def test_the_end_of_a_long_text_is_counted() -> None:
    report = AdapterReport("test")
    assert plain_text("ab " * 2_000, "note", report) == ("ab " * 1_334)[:4_000].rstrip()
    assert report.dropped_fields == {"note: the end of a long text": 1}


# VICS


def test_a_vics_case_becomes_a_case() -> None:
    first, second = sample("vics")[0]
    assert first.reference == "XA-2026-0001"
    assert first.contact is not None
    assert (first.contact.unit, first.contact.telephone) == ("XA national unit", "+999 1 0000")
    assert second.reference == "3b0c1a4e-0000-4000-8000-000000000002"
    assert second.contact is None  # a telephone number without a unit is nobody's
    assert "exhibits" not in repr((first, second))


CONTEXT = '{"@odata.context": "http://github.com/VICSDATAMODEL/ProjectVic/DataModels/2.0.xml/US/$metadata#Cases"'


@pytest.mark.parametrize(
    "raw",
    [
        '{"value": []}',
        CONTEXT.replace("#Cases", "#Media") + ', "value": []}',
        CONTEXT + ', "value": [{"CaseNumber": "1", "Media": [{"MediaID": 1}',
        CONTEXT + ', "value": [{"CaseNumber": "1" "Media": []}]}',
        CONTEXT + ', "value": [{"CaseNumber": "1",, "Media": []}]}',
        CONTEXT + ', "value": [{"CaseNumber": "1",}]}',
        CONTEXT + ', "value": []} more',
        CONTEXT + ', "value": [], "value": []}',
        "[]",
        "",
    ],
)
def test_a_file_that_is_no_vics_case_file_is_refused_whole(raw: str) -> None:
    with pytest.raises(MalformedError):
        read("vics", raw.encode())


@pytest.mark.parametrize(("cases", "accepted"), [("", 0), ("{}", 0), ('{"CaseNumber": "1"}', 1), ("7", 0)])
def test_small_vics_case_files_are_read(cases: str, accepted: int) -> None:
    records, report = read("vics", f'{CONTEXT}, "value": [{cases}], "odata.count": 1}}'.encode())
    assert (len(records), report.refused) == (accepted, bool(cases) - accepted)


def test_the_media_of_a_vics_case_file_are_read_over_one_at_a_time() -> None:
    media = json.dumps({"MediaID": 1, "Miniature": "x" * 100_000}).encode()
    pieces = [
        CONTEXT.encode() + b', "value": [{"Media": [' + media,
        *[b"," + media] * 60,
        b'], "CaseNumber": "XA-1"}]}',
    ]

    class Source(io.RawIOBase):
        rest = b""

        def readable(self) -> bool:
            return True

        def read(self, size: int = -1) -> bytes:
            self.rest = self.rest or (pieces.pop(0) if pieces else b"")
            taken, self.rest = self.rest[:size], self.rest[size:]
            return taken

    report = AdapterReport("vics")
    tracemalloc.start()
    records = list(vicscases.read(Source(), report, OPTIONS))  # type: ignore[arg-type]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [record.reference for record in records] == ["XA-1"]
    assert report.dropped_fields == {"Media": 61}
    assert peak < 3_000_000  # of six megabytes
