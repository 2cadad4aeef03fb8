"""Outside formats in: what is carried, what is refused and where, what is dropped at the door."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.adapters import (
    READERS,
    SNIFF_BYTES,
    ReadOptions,
    columnar,
    digest_list,
    gateway_csv,
    jsonrows,
    read_batches,
    read_hashes,
    rows,
    sniff,
    vics,
)
from gateway.adapters.fields import EMPTY_FILE_DIGESTS
from gateway.errors import ConfigError, MalformedError, TooLargeError
from gateway.model import MAX_TEXT_CHARS, AdapterReport, EntryDraft, HandlingCode, Restriction, VictimStatus

SAMPLES = Path(__file__).parent / "data_adapters"
CONTRACT = Path(__file__).parent.parent / "contracts" / "hash-csv-1.md"
GUIDE = Path(__file__).parent.parent / "docs" / "importing.md"

US = "http://github.com/VICSDATAMODEL/ProjectVic/DataModels/2.0.xml/US/$metadata#Media"
DEFAULT = US.replace("/US/", "/Default/")
V1_3 = "http://github.com/ICMEC/ProjectVic/DataModels/1.3.xml#Media"
PHOTODNA = bytes((5 * i + 1) % 256 for i in range(144))
PDQ = "f0e1d2c3b4a5968778695a4b3c2d1e0f" * 2
FRAMES = f'["{PDQ},100,0.000", "{PDQ},51,1.000"]'
SEEN = 1768471200  # 2026-01-15T10:00:00Z
ICSE_HEADER = "MD5;SHA1;PhotoDNA;Image ID;Victim identified;Series name;Media Type;Baseline"


def hex_of(algorithm: str, number: int) -> str:
    """The digest of one of the samples' texts."""
    return hashlib.new(algorithm, f"sample-{number:04d}".encode()).hexdigest()


def raw_of(algorithm: str, number: int) -> bytes:
    return bytes.fromhex(hex_of(algorithm, number))


def read(format_name: str, raw: bytes, options: ReadOptions | None = None) -> tuple[list[EntryDraft], AdapterReport]:
    report = AdapterReport(format_name)
    drafts = list(read_hashes(io.BytesIO(raw), format_name, report, options=options))
    assert report.read == report.accepted + report.refused
    assert report.accepted == len(drafts)
    return drafts, report


def read_sample(format_name: str, name: str) -> tuple[list[EntryDraft], AdapterReport]:
    return read(format_name, (SAMPLES / name).read_bytes())


def media_list(*records: object, context: str = US, name: str = "@odata.context") -> bytes:
    return json.dumps({name: context, "value": list(records)}).encode()


def stix_bundle(md5: str) -> bytes:
    one = {"type": "file", "spec_version": "2.1", "id": f"file--{UUID(int=1)}", "hashes": {"MD5": md5}}
    return json.dumps({"type": "bundle", "objects": [one]}).encode()


def record(**members: object) -> dict[str, object]:
    return {"MediaID": 1, "MD5": hex_of("md5", 1), **members}


def read_record(**members: object) -> EntryDraft:
    drafts, report = read("vics", media_list(record(**members)))
    assert report.refused_rows == []
    return drafts[0]


def refused_record(**members: object) -> tuple[str, str]:
    """Field and reason of a record that must be refused, while its neighbours pass."""
    drafts, report = read("vics", media_list(record(), record(**members), record()))
    assert len(drafts) == 2
    [row] = report.refused_rows
    assert row.line == 2
    return row.field, row.reason


def own_csv(**cells: str) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(cells)
    writer.writerow(cells.values())
    return out.getvalue().encode()


def read_own(**cells: str) -> EntryDraft:
    drafts, report = read("gateway_csv", own_csv(**cells))
    assert report.refused_rows == []
    return drafts[0]


def refused_own(**cells: str) -> tuple[str, str]:
    drafts, report = read("gateway_csv", own_csv(**cells))
    assert drafts == []
    [row] = report.refused_rows
    assert row.line == 2
    return row.field, row.reason


def read_icse(*cells: str) -> tuple[list[EntryDraft], AdapterReport]:
    return read("icse_csv", f"{ICSE_HEADER}\n{';'.join(cells)}\n".encode())


# Samples, whole


def test_vics_2_sample_is_read_as_written() -> None:
    drafts, report = read_sample("vics", "vics-2.0-us.json")
    assert drafts == [
        EntryDraft(
            {"md5": raw_of("md5", 1), "sha1": raw_of("sha1", 1), "photodna": PHOTODNA},
            source_ref="1",
            media_type="image/jpeg",
            category="vics-us:1",
            series="Example Series A",
            victim_status=VictimStatus.IDENTIFIED,
            seen=SEEN,
        ),
        EntryDraft(
            {"md5": raw_of("md5", 2)},
            source_ref="2",
            category="vics-us:2",
            victim_status=VictimStatus.UNIDENTIFIED,
            seen=SEEN,
        ),
        EntryDraft(
            {
                "md5": raw_of("md5", 3),
                "sha1": raw_of("sha1", 3),
                "photodna": PHOTODNA,
                "sha256": raw_of("sha256", 3),
            },
            source_ref="3",
            category="vics-us:0",
            seen=SEEN,
        ),
    ]
    assert [(row.line, row.field, row.reason) for row in report.refused_rows] == [
        (4, "MD5", "is the digest of the empty file"),
        (5, "MD5", "is not 32 characters long"),
    ]
    assert report.dropped_fields == {
        "MediaSize": 3,
        "IsPrecategorized": 1,
        "IsDistributed": 1,
        "OffenderIdentified": 1,
        "Tags": 1,
        "MediaFiles": 1,
        "RelativeFilePath": 1,
        "AlternativeHashes: F1SH8": 1,
    }


def test_vics_1_3_sample_with_byte_order_mark_on_one_line_is_read() -> None:
    drafts, report = read_sample("vics", "vics-1.3-bom.json")
    assert [draft.category for draft in drafts] == ["vics-1.3:0", "vics-1.3:3"]
    assert [draft.victim_status for draft in drafts] == [VictimStatus.IDENTIFIED, None]
    assert report.refused == 0


def test_icse_sample_is_read_as_written() -> None:
    drafts, report = read_sample("icse_csv", "icse-export.csv")
    assert drafts == [
        EntryDraft(
            {"md5": raw_of("md5", 1), "sha1": raw_of("sha1", 1), "photodna": PHOTODNA},
            source_ref="1001",
            media_type="Image",
            series="Example Series A",
            victim_status=VictimStatus.IDENTIFIED,
        ),
        EntryDraft(
            {"md5": raw_of("md5", 2), "photodna": PHOTODNA},
            source_ref="1002",
            media_type="Video",
            series='Series; with a "mark"',
            victim_status=VictimStatus.UNIDENTIFIED,
        ),
        EntryDraft({"md5": raw_of("md5", 3), "photodna": PHOTODNA}, source_ref="1003"),
    ]
    assert [(row.line, row.field) for row in report.refused_rows] == [(5, "Victim identified")]
    assert report.dropped_fields["Baseline"] == 3


def test_our_own_csv_sample_is_read_as_written() -> None:
    drafts, report = read_sample("gateway_csv", "hash-csv-1.csv")
    assert drafts == [
        EntryDraft(
            {"sha256": raw_of("sha256", 1), "md5": raw_of("md5", 1), "pdq": bytes.fromhex(PDQ)},
            source_ref="A-1",
            media_type="image/jpeg",
            category="xa:3",
            series="Series, with a comma",
            victim_ref="victim-1",
            victim_status=VictimStatus.IDENTIFIED,
            evaluation="B2",
            handling=HandlingCode.H2,
            restrictions=(Restriction.EMBARGO, Restriction.LEGAL_HOLD),
            pdq_quality=88,
            seen=1768435200,
        ),
        EntryDraft(
            {"sha256": raw_of("sha256", 2)},
            source_ref="A-2",
            category="xa:0",
            series="=1+1",
            victim_status=VictimStatus.LEAD,
            seen=SEEN,
        ),
        EntryDraft({"md5": raw_of("md5", 3)}, source_ref="A-3"),
    ]
    assert [(row.line, row.field, row.reason) for row in report.refused_rows] == [(5, "row", "has no digest")]
    assert report.dropped_fields == {"pdq": 1}


def test_plain_list_takes_the_algorithm_from_the_length_and_drops_names() -> None:
    drafts, report = read_sample("digest_list", "plain.txt")
    assert [draft.digests for draft in drafts] == [
        {algorithm: raw_of(algorithm, number)}
        for number, algorithm in enumerate(("md5", "sha1", "sha256", "sha512", "md5"), 1)
    ]
    assert [(row.line, row.field) for row in report.refused_rows] == [(8, "digest")]
    assert report.dropped_fields == {"name": 2}


def test_debian_md5sums_are_read_without_their_paths() -> None:
    drafts, report = read_sample("digest_list", "debian.md5sums")
    assert drafts == [EntryDraft({"md5": raw_of("md5", number)}) for number in (1, 2, 3)]
    assert report.dropped_fields == {"name": 3}


def test_a_file_name_that_is_not_utf8_is_dropped_unread() -> None:
    drafts, _ = read("digest_list", hex_of("md5", 1).encode() + b"  caf\xe9\n")
    assert len(drafts) == 1


# Digests


@pytest.mark.parametrize("algorithm", EMPTY_FILE_DIGESTS)
def test_digests_of_the_empty_file_are_refused_everywhere(algorithm: str) -> None:
    empty = hashlib.new(algorithm, b"").hexdigest()
    assert refused_own(**{algorithm: empty}) == (algorithm, "is the digest of the empty file")
    assert refused_record(AlternativeHashes=[{"HashName": algorithm, "HashValue": empty.upper()}])[1] == (
        "is the digest of the empty file"
    )
    _, report = read("digest_list", empty.encode())
    assert report.refused_rows[0].reason == "is the digest of the empty file"


@pytest.mark.parametrize(("algorithm", "digits"), [("md5", 32), ("sha1", 40), ("sha256", 64), ("sha512", 128)])
def test_zero_short_long_and_non_hexadecimal_digests_are_refused(algorithm: str, digits: int) -> None:
    assert refused_own(**{algorithm: "0" * digits}) == (algorithm, "is all zero")
    assert refused_own(**{algorithm: "a" * (digits - 1)})[0] == algorithm
    assert refused_own(**{algorithm: "a" * (digits + 1)})[0] == algorithm
    assert refused_own(**{algorithm: "g" * digits}) == (algorithm, "is not hexadecimal")
    assert refused_own(**{algorithm: "ab " + "a" * (digits - 3)}) == (algorithm, "is not hexadecimal")
    assert refused_own(**{algorithm: "\uff11" * digits}) == (algorithm, "is not hexadecimal")


def test_upper_case_and_space_around_a_digest_do_not_matter() -> None:
    assert read_own(md5=f"  {hex_of('md5', 1).upper()} ").digests == {"md5": raw_of("md5", 1)}


@pytest.mark.parametrize(
    "spelling",
    [
        pytest.param(PHOTODNA.hex().upper(), id="hex"),
        pytest.param(",".join(map(str, PHOTODNA)), id="decimals"),
        pytest.param(", ".join(map(str, PHOTODNA)), id="decimals with spaces"),
    ],
)
def test_photodna_is_one_value_in_every_spelling(spelling: str) -> None:
    assert read_own(photodna=spelling).digests == {"photodna": PHOTODNA}
    assert read_record(PhotoDNA=spelling).digests["photodna"] == PHOTODNA


@pytest.mark.parametrize(
    "damaged",
    [
        "A" * 192,
        PHOTODNA.hex()[:-2],
        "!" * 192,
        "g" * 288,
        ",".join(map(str, PHOTODNA[:-1])),
        ",".join(map(str, [*PHOTODNA[:-1], 256])),
        ",".join(["1"] * 145),
        "A" * 190 + "==",
    ],
)
def test_damaged_photodna_refuses_the_row(damaged: str) -> None:
    assert refused_own(photodna=damaged)[0] == "photodna"


def test_pdq_of_low_quality_is_dropped_and_the_row_stays() -> None:
    drafts, report = read("gateway_csv", own_csv(md5=hex_of("md5", 1), pdq=PDQ, pdq_quality="49"))
    assert drafts == [EntryDraft({"md5": raw_of("md5", 1)})]
    assert report.dropped_fields == {"pdq": 1}
    kept = read_own(pdq=PDQ, pdq_quality="50")
    assert (kept.digests, kept.pdq_quality) == ({"pdq": bytes.fromhex(PDQ)}, 50)
    assert read_own(pdq=PDQ, pdq_quality="").pdq_quality == 0
    assert refused_own(pdq=PDQ, pdq_quality="49") == ("row", "has no digest")


@pytest.mark.parametrize("quality", ["101", "-1", "50.0", "\u0665\u0660", "1e2", "0x32"])
def test_pdq_quality_outside_its_range_refuses_the_row(quality: str) -> None:
    assert refused_own(pdq=PDQ, pdq_quality=quality)[0] == "pdq_quality"


def test_pdq_quality_without_a_pdq_is_dropped_and_counted() -> None:
    _, report = read("gateway_csv", own_csv(md5=hex_of("md5", 1), pdq="", pdq_quality="90"))
    assert report.dropped_fields == {"pdq_quality": 1}


def test_zero_pdq_refuses_the_row() -> None:
    assert refused_own(md5=hex_of("md5", 1), pdq="0" * 64, pdq_quality="90") == ("pdq", "is all zero")
    assert refused_record(AlternativeHashes=[{"HashName": "PDQ", "HashValue": "0" * 64}])[1] == "is all zero"


def test_vpdq_is_carried_as_it_stands() -> None:
    assert read_own(vpdq=FRAMES).digests == {"vpdq": FRAMES.encode()}


@pytest.mark.parametrize(
    "damaged",
    [
        "[]",
        "{}",
        '{"0": 1}',
        "[1]",
        "[",
        "[" * 100_000,
        f'["{PDQ},101,0.0"]',
        f'["{PDQ[:-1]},100,0.0"]',
        f'["{PDQ},100"]',
        f'["{"0" * 64},100,0.0"]',
        FRAMES.replace(" ", "\n"),
        FRAMES.replace(" ", "\u00a0"),
    ],
)
def test_damaged_vpdq_refuses_the_row(damaged: str) -> None:
    assert refused_own(vpdq=damaged)[0] == "vpdq"


def test_a_vpdq_longer_than_the_csv_modules_own_limit_is_read() -> None:
    frames = json.dumps([f"{PDQ},100,{second}.000" for second in range(4000)])
    assert len(frames) > 2 * 131_072
    assert read_own(vpdq=frames).digests == {"vpdq": frames.encode()}


def test_ssdeep_is_carried_as_it_stands_and_never_with_a_name() -> None:
    assert read_own(ssdeep="96:Ab+/c:dE").digests == {"ssdeep": b"96:Ab+/c:dE"}
    for damaged in ("3::", "96:abc", '96:Ab:dE,"name.jpg"', "0:a:b", "96:a b:c", "x:a:b"):
        assert refused_own(ssdeep=damaged)[0] == "ssdeep"


# Flags, categories, texts, dates


@pytest.mark.parametrize("word", ["y", "Y", "yes", "t", "TRUE", " True "])
def test_every_spelling_of_yes_means_identified(word: str) -> None:
    assert read_record(VictimIdentified=word).victim_status is VictimStatus.IDENTIFIED
    drafts, _ = read_icse(hex_of("md5", 1), "", "", "1", word, "", "", "")
    assert drafts[0].victim_status is VictimStatus.IDENTIFIED


@pytest.mark.parametrize("word", ["n", "No", "f", "False", "false"])
def test_every_spelling_of_no_means_unidentified(word: str) -> None:
    assert read_record(VictimIdentified=word).victim_status is VictimStatus.UNIDENTIFIED
    drafts, _ = read_icse(hex_of("md5", 1), "", "", "1", word, "", "", "")
    assert drafts[0].victim_status is VictimStatus.UNIDENTIFIED


def test_booleans_count_and_null_or_nothing_states_nothing() -> None:
    assert read_record(VictimIdentified=True).victim_status is VictimStatus.IDENTIFIED
    assert read_record(VictimIdentified=False).victim_status is VictimStatus.UNIDENTIFIED
    assert read_record(VictimIdentified=None).victim_status is None
    assert read_record(VictimIdentified="").victim_status is None
    assert read_record().victim_status is None


@pytest.mark.parametrize("value", [1, 0, "1", "perhaps", [], {}, 1.0])
def test_a_flag_that_is_none_refuses_the_record(value: object) -> None:
    assert refused_record(VictimIdentified=value)[0] == "VictimIdentified"


@pytest.mark.parametrize(
    ("value", "category"),
    [(0, "vics-us:0"), (3, "vics-us:3"), ("1", "vics-us:1"), ("007", "vics-us:7"), (None, ""), ("", "")],
)
def test_category_is_carried_with_its_scheme_and_zero_is_a_category(value: object, category: str) -> None:
    assert read_record(Category=value).category == category


@pytest.mark.parametrize("value", [True, -1, "-1", "one", 1.5, 1.0, [1], "\u0661", 10**12, 10**300])
def test_a_category_that_is_no_number_refuses_the_record(value: object) -> None:
    assert refused_record(Category=value)[0] == "Category"


@pytest.mark.parametrize(
    ("name", "context", "chosen", "scheme"),
    [
        ("@odata.context", US, "", "vics-us"),
        ("@odata.context", US, "mine", "vics-us"),
        ("@odata.context", US.replace("/US/", "/Canada/"), "", "vics-canada"),
        ("@odata.context", DEFAULT, "", "vics-default"),
        ("@odata.context", DEFAULT, "xa-penal", "xa-penal"),
        ("odata.metadata", V1_3, "", "vics-1.3"),
        ("odata.metadata", V1_3.replace("1.3", "1.1"), "", "vics-1.1"),
        ("odata.metadata", V1_3, "xa-penal", "xa-penal"),
    ],
)
def test_scheme_is_the_files_word_before_the_users(name: str, context: str, chosen: str, scheme: str) -> None:
    raw = media_list(record(Category=2), context=context, name=name)
    drafts, _ = read("vics", raw, ReadOptions(category_scheme=chosen))
    assert drafts[0].category == f"{scheme}:2"


def test_a_scheme_that_would_break_the_category_is_refused() -> None:
    with pytest.raises(MalformedError, match="category_scheme"):
        ReadOptions(category_scheme="a:b")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-01-15T10:00:00.0000000Z", SEEN),
        ("2026-01-15T10:00:00.9999999Z", SEEN),
        ("2026-01-15T12:00:00+02:00", SEEN),
        ("2026-01-15T04:30:00-05:30", SEEN),
        ("2026-01-15T10:00:00", SEEN),
        ("2026-01-15T10:00Z", SEEN),
        ("2026-01-15", 1768435200),
        (None, 0),
        (" ", 0),
    ],
)
def test_dates_become_unix_seconds(text: str | None, seconds: int) -> None:
    assert read_record(DateUpdated=text).seen == seconds


@pytest.mark.parametrize(
    "text",
    [
        "2026-02-30",
        "2025-02-29T00:00:00Z",
        "2026-13-01",
        "2026-01-15T25:00:00Z",
        "2026-01-15T10:00:60Z",
        "1969-12-31",
        "20260115",
        "2026-W03-4",
        "15.01.2026",
        "2026-01-15 10:00:00",
        "2026-01-15T10:00:00+99:00",
        "1768471200",
        "\u0662\u0660\u0662\u0666-01-15",
    ],
)
def test_impossible_and_foreign_dates_refuse_the_row(text: str) -> None:
    assert refused_record(DateUpdated=text)[0] == "DateUpdated"
    assert refused_own(md5=hex_of("md5", 1), seen=text)[0] == "seen"


@pytest.mark.parametrize("never", ["0001-01-01T00:00:00", "1970-01-01T00:00:00Z"])
def test_the_date_that_programs_write_for_never_is_dropped_and_counted(never: str) -> None:
    drafts, report = read("vics", media_list(record(DateUpdated=never)))
    assert (drafts[0].seen, report.dropped_fields) == (0, {"DateUpdated": 1})
    drafts, report = read("gateway_csv", own_csv(md5=hex_of("md5", 1), seen=never))
    assert (drafts[0].seen, report.dropped_fields) == (0, {"seen": 1})


@pytest.mark.parametrize(
    "text", ["=HYPERLINK(1)", "@sum", "-1", "e\u0301", "\u00e9", "\u0627\u0644\u200c\u0641", "a\u00a0b", "\U0001f9f8"]
)
def test_text_is_carried_as_it_stands(text: str) -> None:
    assert read_own(md5=hex_of("md5", 1), series=f" {text} ").series == text
    assert read_record(Series=f" {text} ").series == text


@pytest.mark.parametrize(
    "text", ["a\x1bb", "a\nb", "a\x7fb", "a\x85b", "a\u2028b", "a\ufffeb", "x" * (MAX_TEXT_CHARS + 1)]
)
def test_controls_and_over_long_text_refuse_the_row(text: str) -> None:
    assert refused_own(md5=hex_of("md5", 1), series=text)[0] == "series"
    assert refused_own(md5=hex_of("md5", 1), source_ref=text)[0] == "source_ref"
    assert refused_record(Series=text)[0] == "Series"
    assert refused_record(MediaID=text)[0] == "MediaID"


def test_text_at_the_bound_passes() -> None:
    assert len(read_record(Series="x" * MAX_TEXT_CHARS).series) == MAX_TEXT_CHARS


def test_a_lone_surrogate_refuses_the_record_and_is_not_replaced() -> None:
    raw = media_list(record(Series="SURROGATE")).replace(b"SURROGATE", b"a\\ud800b")
    drafts, report = read("vics", raw)
    assert drafts == []
    assert report.refused_rows[0].field == "Series"


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("category", "3"),
        ("category", "a:b:c"),
        ("victim_status", "found"),
        ("victim_status", "withheld"),
        ("victim_status", "Identified"),
        ("evaluation", "G1"),
        ("evaluation", "b2"),
        ("handling", "H4"),
        ("handling", "h1"),
        ("restrictions", "secret"),
        ("restrictions", "embargo|"),
        ("restrictions", "embargo;legal_hold"),
    ],
)
def test_a_word_outside_its_closed_list_refuses_the_row(column: str, value: str) -> None:
    assert refused_own(**{"md5": hex_of("md5", 1), column: value})[0] == column


# VICS: alternative hashes, members, the file


@pytest.mark.parametrize("name", ["SHA256", "sha-256", "SHA_256", "Sha 256"])
def test_alternative_hashes_are_known_under_several_spellings(name: str) -> None:
    alternatives = [{"HashName": name, "HashValue": hex_of("sha256", 1).upper()}]
    assert read_record(AlternativeHashes=alternatives).digests["sha256"] == raw_of("sha256", 1)


def test_alternative_hashes_may_agree_and_must_not_disagree() -> None:
    same = [{"HashName": "PhotoDNA", "HashValue": PHOTODNA.hex()}]
    assert read_record(PhotoDNA=",".join(map(str, PHOTODNA)), AlternativeHashes=same).digests["photodna"] == PHOTODNA
    other = [{"HashName": "PhotoDNA", "HashValue": PHOTODNA[::-1].hex()}]
    assert refused_record(PhotoDNA=PHOTODNA.hex(), AlternativeHashes=other) == (
        "AlternativeHashes",
        "disagrees on photodna with another member of the record",
    )


@pytest.mark.parametrize("empty", [None, "", [], [{"HashName": "PDQ", "HashValue": None}], [{"HashName": "x"}]])
def test_empty_alternative_hashes_state_nothing(empty: object) -> None:
    assert read_record(AlternativeHashes=empty).digests == {"md5": raw_of("md5", 1)}


@pytest.mark.parametrize(
    "damaged", [{}, 1, False, "text", [1], [[]], [{"HashName": 1}], [{"HashName": "PDQ", "HashValue": 1}]]
)
def test_damaged_alternative_hashes_refuse_the_record(damaged: object) -> None:
    assert refused_record(AlternativeHashes=damaged)


@pytest.mark.parametrize("absent", [None, "", "  "])
def test_null_and_empty_digests_are_absent(absent: object) -> None:
    assert read_record(SHA1=absent, PhotoDNA=absent).digests == {"md5": raw_of("md5", 1)}
    assert refused_record(MD5=absent) == ("row", "has no digest")


@pytest.mark.parametrize("value", [1, 0, False, [], {}, 1.5])
def test_a_digest_that_is_not_text_refuses_the_record(value: object) -> None:
    assert refused_record(MD5=value) == ("MD5", "is not text")


@pytest.mark.parametrize("value", [True, 1.0, [], {}])
def test_a_media_id_that_is_no_reference_refuses_the_record(value: object) -> None:
    assert refused_record(MediaID=value)[0] == "MediaID"


@pytest.mark.parametrize("item", [1, "text", None, [], True, 1.5])
def test_a_record_that_is_no_object_is_refused_alone(item: object) -> None:
    drafts, report = read("vics", media_list(record(), item, record()))
    assert len(drafts) == 2
    assert [(row.line, row.field) for row in report.refused_rows] == [(2, "row")]


def test_a_record_that_names_a_member_twice_is_refused_alone() -> None:
    raw = media_list(record(), record(Twice=1), record()).replace(b'"Twice"', b'"MediaID"')
    drafts, report = read("vics", raw)
    assert len(drafts) == 2
    assert report.refused_rows[0].reason == "names a member twice"


def test_imagery_and_paths_never_pass_and_are_counted() -> None:
    secret = "marker-7a1f"
    dropped = {
        "RelativeFilePath": secret,
        "MediaFiles": [{"FileName": secret, "FilePath": secret}],
        "Miniature": secret,
        "Exifs": [{"PropertyValue": secret}],
        "Comments": secret,
        "Tags": [secret],
        "FileName": secret,
        "Something New": secret,
        "IsDistributed": False,
        "MediaSize": 0,
    }
    drafts, report = read("vics", media_list(record(**dropped)))
    assert secret not in repr(drafts)
    assert secret not in repr(report)
    assert report.dropped_fields == dict.fromkeys(dropped, 1)


def test_empty_members_are_not_counted_as_dropped() -> None:
    _, report = read("vics", media_list(record(Tags="", Comments=None, MediaFiles=[], Extra={})))
    assert report.dropped_fields == {}


def test_names_of_dropped_members_are_bounded_and_never_values() -> None:
    many = {f"Member {number}": 1 for number in range(500)} | {hex_of("md5", 2): 1, "x\x1b[2J": 1}
    _, report = read("vics", media_list(record(**many)))
    assert len(report.dropped_fields) == rows.MAX_DROPPED_NAMES + 1
    assert sum(report.dropped_fields.values()) == 502
    assert hex_of("md5", 2) not in report.dropped_fields


CASES = f'{{"@odata.context": "{US.replace("#Media", "#Cases")}", "value": ['


def test_the_media_of_a_case_file_are_read_and_what_else_its_cases_say_is_counted() -> None:
    one, other = json.dumps(record()), json.dumps(record(MD5=hex_of("md5", 2)))
    first, rest = (
        f'"CaseNumber": "1", "Media": [{one}, {other}, 7]',
        f'{{"Media": [], "CaseID": ""}}, {{"Media": [{one}]}}',
    )
    raw = f"{CASES}{{{first}}}, {rest}]}}"
    drafts, report = read("vics", raw.encode())
    assert [draft.digests["md5"].hex() for draft in drafts] == [hex_of("md5", 1), hex_of("md5", 2), hex_of("md5", 1)]
    assert {draft.source_ref for draft in drafts} == {""}  # two cases may have a MediaID 1
    assert [(row.line, row.field) for row in report.refused_rows] == [(3, "row")]
    assert report.dropped_fields == {"case: CaseNumber": 1, "MediaID": 3}


def test_a_case_file_without_media_lists_nothing() -> None:
    for inner in ("", '{"CaseNumber": "1"}', '{"Media": null}', "{}"):
        assert read("vics", f"{CASES}{inner}]}}".encode())[0] == []


@pytest.mark.parametrize(
    "inner", ["7", '{"Media": [}', '{"Media": [] "x": 1}', '{"Media": [], "Media": []}', '{"Media": [],}', "{},", "{"]
)
def test_a_broken_case_file_is_refused_whole(inner: str) -> None:
    with pytest.raises(MalformedError):
        read("vics", f"{CASES}{inner}]}}".encode())


@pytest.mark.parametrize(
    "context",
    [
        US.replace("#Media", "#Case"),
        US.replace("2.0.xml", "3.0.xml"),
        US.replace("/US/", "/"),
        US + "x",
        V1_3,
        "http://example.org/#Media",
        "",
        7,
        None,
    ],
)
def test_a_wrong_context_refuses_the_file(context: object) -> None:
    with pytest.raises(MalformedError, match="does not name a VICS media list") as caught:
        read("vics", json.dumps({"@odata.context": context, "value": [record()]}).encode())
    assert caught.value.place == "line 1"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"{}",
        b"null",
        b'{"value": []}',
        json.dumps({"value": [], "@odata.context": US}).encode(),
        json.dumps({"@odata.context": US}).encode(),
        json.dumps({"@odata.context": US, "value": {}}).encode(),
        json.dumps({"@odata.context": US, "odata.metadata": V1_3, "value": []}).encode(),
        media_list(record())[:-1],
        media_list(record())[:-2],
        media_list(record())[:-5],
        media_list(record()) + b"{}",
        media_list(record()).replace(b"]}", b'], "value": []}'),
        media_list(record()).replace(b"]}", b",]}"),
        media_list(record(A=1)).replace(b"1}", b"NaN}"),
        media_list(record(A=1)).replace(b"1}", b"-Infinity}"),
        media_list(record(A=1)).replace(b"1}", b"01}"),
        media_list(record(A=1)).replace(b"1}", b"1" * 5000 + b"}"),
        media_list(record(A=1)).replace(b"1}", b"1.}"),
        media_list(record(A=1)).replace(b"1}", b"[" * 100_000 + b"}"),
        media_list(record(A="x")).replace(b'"x"', b'"\x00"'),
        media_list(record(A="x")).replace(b'"x"', b"'x'"),
        media_list(1).replace(b"[1]", b"[1 2]"),
        media_list(record()).decode().encode("utf-16"),
        b'{1: 2, "value": []}',
    ],
)
def test_broken_json_refuses_the_file_and_names_the_line(raw: bytes) -> None:
    with pytest.raises(MalformedError) as caught:
        read("vics", raw)
    assert caught.value.place or "UTF-16" in caught.value.message


def test_broken_json_midway_surfaces_after_the_good_records_and_names_record_and_line() -> None:
    raw = json.dumps({"@odata.context": US, "value": [record(), record(), record(A="x")]}, indent=1).encode()
    report = AdapterReport("vics")
    drafts = read_hashes(io.BytesIO(raw.replace(b'"x"', b"x")), "vics", report)
    assert next(drafts)
    assert next(drafts)
    with pytest.raises(MalformedError) as caught:
        next(drafts)
    assert caught.value.place == "record 3, line 15"
    assert (report.read, report.accepted) == (2, 2)


def test_a_number_cut_by_the_window_is_read_whole() -> None:
    for cut in range(1, 12):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(rows, "CHUNK_BYTES", cut)
            drafts, report = read("vics", media_list(1.25, 12345, record(MediaSize=1.5e10, Category=12)))
        assert [row.reason for row in report.refused_rows] == ["is not an object"] * 2
        assert drafts[0].category == "vics-us:12"


@pytest.mark.parametrize("records", [b"[]", b"[ \n ]"])
def test_an_empty_list_of_records_is_a_file_without_rows(records: bytes) -> None:
    drafts, report = read("vics", media_list().replace(b"[]", records))
    assert (drafts, report.read) == ([], 0)


def test_members_around_the_list_are_dropped_and_counted() -> None:
    raw = json.dumps({"@odata.count": 1, "@odata.context": US, "value": [record()], "@odata.nextLink": "x"}).encode()
    drafts, report = read("vics", raw)
    assert len(drafts) == 1
    assert report.dropped_fields == {"@odata.count": 1, "@odata.nextLink": 1}


def test_a_record_without_end_refuses_the_file() -> None:
    head = media_list(record(A="x")).partition(b'"x"')[0]
    with pytest.raises(TooLargeError) as caught:
        read("vics", head + b'"' + b"A" * (jsonrows.MAX_RECORD_CHARS + rows.CHUNK_BYTES))
    assert caught.value.place == "record 1, line 1"


def test_a_fat_record_within_the_bound_passes() -> None:
    assert read_record(Miniature="A" * (jsonrows.MAX_RECORD_CHARS // 2)).digests


# CSV: the file


def test_an_unknown_column_refuses_the_file_naming_it_and_the_known_ones() -> None:
    with pytest.raises(MalformedError) as caught:
        read("gateway_csv", own_csv(md5=hex_of("md5", 1), sereis="x"))
    assert "'sereis'" in caught.value.message
    assert all(column in caught.value.remedy for column in gateway_csv.COLUMNS)


def test_a_list_without_a_header_is_refused_and_shows_no_digest() -> None:
    with pytest.raises(MalformedError) as caught:
        read("gateway_csv", f"{hex_of('md5', 1)},x\n".encode())
    assert "column 1" in caught.value.message
    assert hex_of("md5", 1) not in f"{caught.value} {caught.value.remedy}"


@pytest.mark.parametrize(
    ("format_name", "header"),
    [
        ("gateway_csv", "md5,series,series"),
        ("gateway_csv", "source_ref,series"),
        ("gateway_csv", "md5;sha1"),
        ("gateway_csv", "md5,"),
        ("gateway_csv", ""),
        ("icse_csv", "MD5;md5;Image ID;Victim identified"),
        ("icse_csv", "MD5;Image ID;Victim identified;Extra;extra"),
        ("icse_csv", "MD5;Victim identified"),
        ("icse_csv", "MD5;Image ID"),
        ("icse_csv", "Image ID;Victim identified"),
        ("icse_csv", ICSE_HEADER.replace(";", ",")),
        ("icse_csv", ""),
    ],
)
def test_a_wrong_header_refuses_the_file(format_name: str, header: str) -> None:
    with pytest.raises(MalformedError):
        read(format_name, header.encode())


def test_columns_may_stand_in_any_order_and_extra_ones_are_counted() -> None:
    raw = f"extra;Victim Identified;image id;MD5;\nx;Y;7;{hex_of('md5', 1)};\n".encode()
    drafts, report = read("icse_csv", raw)
    assert drafts == [EntryDraft({"md5": raw_of("md5", 1)}, source_ref="7", victim_status=VictimStatus.IDENTIFIED)]
    assert report.dropped_fields == {"extra": 1}


def test_quoted_separators_and_line_ends_do_not_end_a_cell_or_move_the_line_numbers() -> None:
    raw = f'md5,series\r\n"{hex_of("md5", 1)}","a\r\nb"\r\n\r\n{hex_of("md5", 2)},"a,""b"""\r\nbad,x\r\n'.encode()
    drafts, report = read("gateway_csv", raw)
    assert [draft.series for draft in drafts] == ['a,"b"']
    assert [(row.line, row.field) for row in report.refused_rows] == [(2, "series"), (6, "md5")]


def test_a_dropped_cell_may_hold_line_ends() -> None:
    drafts, report = read(
        "icse_csv", f'MD5;Image ID;Victim identified;Remarks\n{hex_of("md5", 1)};1;Y;"a;\nb"\nbad;2;Y;\n'.encode()
    )
    assert len(drafts) == 1
    assert report.refused_rows[0].line == 4


@pytest.mark.parametrize("row", ['"a"b,x', '"open,x', "a\rb,x"])
def test_broken_quoting_refuses_the_file_naming_the_line(row: str) -> None:
    with pytest.raises(MalformedError, match="quoting") as caught:
        read("gateway_csv", f"md5,series\n{hex_of('md5', 1)},x\n{row}\n{hex_of('md5', 2)},y\n".encode())
    assert caught.value.place == "line 3"


def test_cells_of_nothing_but_space_state_nothing() -> None:
    assert read_own(**dict.fromkeys(gateway_csv.COLUMNS, " ") | {"md5": hex_of("md5", 1)}) == EntryDraft(
        {"md5": raw_of("md5", 1)}
    )
    drafts, report = read_icse(" ", " ", " ", "1", "Y", "", "", "")
    assert (drafts, report.refused_rows[0].reason) == ([], "has no digest")


@pytest.mark.parametrize("row", ["x", "x,y,z"])
def test_a_row_with_too_few_or_too_many_cells_is_refused_alone(row: str) -> None:
    drafts, report = read("gateway_csv", f"md5,series\n{row}\n{hex_of('md5', 2)},y\n".encode())
    assert len(drafts) == 1
    assert [(row.line, row.field) for row in report.refused_rows] == [(2, "row")]


@pytest.mark.parametrize(("bad", "reason"), [(b"caf\xe9", "is not UTF-8"), (b"a\0b", "has a NUL byte")])
def test_a_bad_byte_refuses_its_row_alone_and_in_the_header_the_file(bad: bytes, reason: str) -> None:
    md5 = hex_of("md5", 1).encode()
    drafts, report = read("gateway_csv", b"md5,series\n" + md5 + b"," + bad + b"\n" + md5 + b",x\n")
    assert len(drafts) == 1
    assert [(row.line, row.reason) for row in report.refused_rows] == [(2, reason)]
    with pytest.raises(MalformedError):
        read("gateway_csv", b"md5," + bad + b"\n")


def test_a_bad_byte_refuses_its_vics_record_alone() -> None:
    raw = media_list(record(), record(Comments="x?x"), record()).replace(b"x?x", b"\xe9")
    drafts, report = read("vics", raw)
    assert len(drafts) == 2
    assert [(row.line, row.reason) for row in report.refused_rows] == [(2, "is not UTF-8")]


def test_nul_bytes_in_a_digest_list_refuse_the_row_and_on_the_first_line_the_file() -> None:
    line = hex_of("md5", 1).encode() + b"  a\0b\n"
    _, report = read("digest_list", b"# list\n" + line)
    assert (report.accepted, report.refused_rows[0].reason) == (0, "has a NUL byte")
    with pytest.raises(MalformedError, match="not UTF-8 text"):
        read("digest_list", line)


@pytest.mark.parametrize("format_name", READERS)
def test_utf16_is_named_and_a_byte_order_mark_is_taken_off(format_name: str) -> None:
    whole = {
        "vics": media_list(record()),
        "icse_csv": f"{ICSE_HEADER}\n{hex_of('md5', 1)};;;1;;;;\n".encode(),
        "gateway_csv": own_csv(md5=hex_of("md5", 1)),
        "digest_list": hex_of("md5", 1).encode(),
        "stix": stix_bundle(hex_of("md5", 1)),
    }[format_name]
    drafts, _ = read(format_name, b"\xef\xbb\xbf" + whole)
    assert len(drafts) == 1
    with pytest.raises(MalformedError, match="UTF-16"):
        read(format_name, whole.decode().encode("utf-16"))


@pytest.mark.parametrize("format_name", ["digest_list", "gateway_csv"])
def test_an_endless_line_refuses_the_file_naming_the_line(format_name: str) -> None:
    start = b"md5\n" + hex_of("md5", 1).encode() + b"\n"
    with pytest.raises(TooLargeError) as caught:
        read(format_name, start + b"a" * (rows.MAX_RECORD_BYTES + 1) + b"\n")
    assert caught.value.place == "line 3"
    _, report = read(format_name, start + b"a" * (rows.MAX_RECORD_BYTES - 1) + b"\n")
    assert report.refused_rows[-1].line == 3


def test_a_quoted_record_of_endless_lines_refuses_the_file() -> None:
    with pytest.raises(TooLargeError) as caught:
        read("gateway_csv", b'md5,series\n"' + b'","\n' * rows.MAX_RECORD_BYTES)
    assert caught.value.place.startswith("line ")


def test_a_file_of_comments_and_blank_lines_has_no_rows() -> None:
    assert read("digest_list", b"# a\n\n  \n#b")[1].read == 0
    assert read("digest_list", b"")[1].read == 0


# The door


def test_an_unknown_format_is_refused_at_once_naming_the_known_ones() -> None:
    with pytest.raises(MalformedError) as caught:
        read_hashes(io.BytesIO(), "xml", AdapterReport("xml"))
    assert "gateway_csv" in caught.value.remedy


def test_a_source_that_does_not_wait_is_refused() -> None:
    class Impatient(io.RawIOBase):
        def read(self, size: int = -1) -> bytes | None:
            return None

    with pytest.raises(ConfigError):
        list(read_hashes(Impatient(), "digest_list", AdapterReport("digest_list")))  # type: ignore[arg-type]


def test_a_source_is_never_asked_to_seek_and_may_give_single_bytes() -> None:
    class Pipe(io.RawIOBase):
        def __init__(self, raw: bytes) -> None:
            self._rest = io.BytesIO(raw)

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
            return self._rest.readinto(memoryview(buffer)[:1])

    for format_name, name in SAMPLE_FORMATS:
        raw = (SAMPLES / name).read_bytes()
        report = AdapterReport(format_name)
        drafts = list(read_hashes(Pipe(raw), format_name, report))  # type: ignore[arg-type]
        assert (drafts, report) == read(format_name, raw)


SAMPLE_FORMATS = [
    ("vics", "vics-2.0-us.json"),
    ("vics", "vics-1.3-bom.json"),
    ("icse_csv", "icse-export.csv"),
    ("gateway_csv", "hash-csv-1.csv"),
    ("digest_list", "plain.txt"),
    ("digest_list", "debian.md5sums"),
]


@pytest.mark.parametrize(("format_name", "name"), SAMPLE_FORMATS)
@pytest.mark.parametrize("chunk", [4, 5, 7, 64, 1000])
def test_where_the_chunks_end_makes_no_difference(
    format_name: str, name: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = (SAMPLES / name).read_bytes() + "\u00e9\U0001f9f8".encode() * (format_name == "digest_list")
    expected = read(format_name, raw)
    monkeypatch.setattr(rows, "CHUNK_BYTES", chunk)
    assert read(format_name, raw) == expected


@pytest.mark.parametrize(("format_name", "name"), [case for case in SAMPLE_FORMATS if case[1] != "plain.txt"])
def test_a_sample_is_recognised_by_its_beginning(format_name: str, name: str) -> None:
    assert sniff((SAMPLES / name).read_bytes()[:SNIFF_BYTES]) == format_name


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"hello\n",
        b"{}",
        hex_of("sha256", 1).encode(),  # or a PDQ
        b"series,source_ref\n",
        b"MD5;SHA1\n",
        b"\xff\xfe1\x00",
        b"\xff" * SNIFF_BYTES,
        (SAMPLES / "vics-2.0-case.json").read_bytes(),
    ],
)
def test_a_doubtful_beginning_is_left_to_the_user(head: bytes) -> None:
    assert sniff(head) is None


def test_a_checksum_line_settles_what_64_digits_are() -> None:
    assert sniff(f"{hex_of('sha256', 1)}  name\n".encode()) == "digest_list"
    assert sniff(f"# note\n\n{hex_of('sha1', 1)}\r\n".encode()) == "digest_list"


# Properties

CELLS = st.one_of(
    st.sampled_from(
        ["", " ", hex_of("md5", 1), hex_of("md5", 1).upper(), "0" * 32, "zz", "Y", "no", "1", "\u00e9", "a\0"]
    ),
    st.text(max_size=20),
)
JSON_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), CELLS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=6,
)
MEMBERS = st.sampled_from([*vics.DIGEST_MEMBERS, *vics.OTHER_MEMBERS, "Comments"])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(JSON_VALUES, st.dictionaries(MEMBERS, JSON_VALUES, max_size=5)), max_size=6))
def test_every_vics_record_is_accepted_or_refused(records: list[object]) -> None:
    _, report = read("vics", media_list(record(), *records))
    assert report.read == len(records) + 1
    assert len(report.refused_rows) == report.refused


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(CELLS, min_size=1, max_size=9), max_size=8))
def test_every_csv_row_is_accepted_or_refused(table: list[list[str]]) -> None:
    for format_name, delimiter, header in (
        ("icse_csv", ";", ICSE_HEADER.split(";")),
        ("gateway_csv", ",", ["md5", "sha1", "photodna", "source_ref", "victim_status", "series", "seen", "category"]),
    ):
        out = io.StringIO()
        writer = csv.writer(out, delimiter=delimiter, quoting=csv.QUOTE_ALL)
        writer.writerow(header)
        writer.writerows(table)
        _, report = read(format_name, out.getvalue().encode())
        assert report.read == len(table)
        assert len(report.refused_rows) == report.refused


GOOD_CELLS: dict[str, st.SearchStrategy[str]] = {
    **{
        algorithm: st.sampled_from([hex_of(algorithm, n) for n in range(4)])
        for algorithm in ("md5", "sha1", "sha256", "sha512")
    },
    "pdq": st.sampled_from([PDQ, hex_of("sha256", 5)]),
    "photodna": st.just(PHOTODNA.hex()),
    "ssdeep": st.sampled_from(["3:abc:def", "3:abd:def"]),
    "pdq_quality": st.sampled_from(["100", "50", "49", "0"]),
    "victim_status": st.sampled_from(["lead", "identified"]),
    "handling": st.sampled_from(["H0", "H3"]),
    "evaluation": st.sampled_from(["A1", "F6"]),
    "restrictions": st.sampled_from(["embargo", "legal_hold|embargo"]),
    "category": st.sampled_from(["xa:3", "xa:0"]),
    "seen": st.sampled_from(["2026-01-15", "1970-01-01", "0001-01-01T00:00:00"]),
    "Victim identified": st.sampled_from(["Y", "no"]),
    "Image ID": st.sampled_from(["1001", "1002"]),
    **dict.fromkeys(("MD5",), st.sampled_from([hex_of("md5", n).upper() for n in range(4)])),
}
UNSOUND = st.sampled_from(
    [
        "",
        "",
        " ",
        "zz",
        "0" * 32,
        "0" * 64,
        hex_of("md5", 1)[:-1],
        f" {hex_of('md5', 2)} ",
        "a\0",
        "\u00e9",
        "\u00a0",
        "x" * 300,
    ]
)


@st.composite
def csv_files(draw: st.DrawFn) -> tuple[str, bytes]:
    """Mostly good rows, of either format: plain, or with a quote somewhere, with CR LF or LF, sometimes cut off."""
    format_name, delimiter = draw(st.sampled_from([("gateway_csv", ","), ("icse_csv", ";")]))
    must = {"gateway_csv": ["md5"], "icse_csv": ["MD5", "Image ID", "Victim identified"]}[format_name]
    other = {
        "gateway_csv": gateway_csv.COLUMNS,
        "icse_csv": ("PhotoDNA", "Series name", "Media Type", "Path", "Remarks"),
    }
    more = [
        name
        for name in draw(st.lists(st.sampled_from(other[format_name]), unique=True, max_size=5))
        if name not in must
    ]
    header = draw(st.permutations([*must, *more]))
    lines = [delimiter.join(header)]
    for _ in range(draw(st.integers(0, 25))):
        cells = [
            draw(
                UNSOUND
                if draw(st.integers(0, 11)) == 0
                else st.one_of(GOOD_CELLS.get(name, st.just("Nordlicht")), st.just(""))
            )
            for name in header
        ]
        odd = draw(st.integers(0, 40))
        lines.append({0: "", 1: delimiter.join(cells[:-1]), 2: '"a"'}.get(odd, delimiter.join(cells)))
    raw = draw(st.sampled_from(["\n", "\r\n"])).join(lines).encode()
    return format_name, raw + draw(st.sampled_from([b"", b"\n", b"\xff\n", b'"']))


def outcome(format_name: str, raw: bytes) -> tuple[list[EntryDraft], AdapterReport, str]:
    """The drafts, the report, and the error that ended the file."""
    report, drafts, error = AdapterReport(format_name), [], ""
    try:
        for batch in read_batches(io.BytesIO(raw), format_name, report):
            assert len({group.rows.shape for group in batch.groups}) == len(batch.groups)
            drafts += batch.drafts()
    except MalformedError as caught:
        error = f"{caught.place}: {caught.message}"
    return drafts, report, error


@settings(max_examples=250, deadline=None)
@given(csv_files(), st.sampled_from([1, 4, 1000]), st.sampled_from([40, 1 << 16]))
def test_rows_read_by_the_column_are_those_read_one_by_one(file: tuple[str, bytes], halved: int, plain: int) -> None:
    format_name, raw = file
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columnar, "HALVED_DOWN_TO", halved)
        patch.setattr(rows, "PLAIN_CHARS", plain)
        by_column = outcome(format_name, raw)
        patch.setattr(columnar, "_good_pieces", lambda *_arguments: ())
        patch.setattr(rows, "_plain_text", lambda _block: None)
        assert outcome(format_name, raw) == by_column


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.sampled_from(
                [hex_of("md5", 1), hex_of("md5", 2).upper(), hex_of("sha1", 3), f"{hex_of('md5', 4)}  a.jpg"]
            ),
            st.sampled_from(
                [
                    "",
                    "# note",
                    "0" * 32,
                    f"\\\\{hex_of('md5', 5)} *b",
                    f" {hex_of('md5', 6)}\r",
                    f"{hex_of('md5', 7)}\tc\0",
                ]
            ),
        ),
        max_size=20,
    )
)
def test_lines_read_together_are_those_read_one_by_one(lines: list[str]) -> None:
    raw = "\n".join(["# list", *lines]).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digest_list, "HALVED_DOWN_TO", 1)
        together = outcome("digest_list", raw)
        patch.setattr(digest_list, "_plain", lambda _lines: None)
        assert outcome("digest_list", raw) == together


def test_a_plain_list_is_read_by_the_column_and_a_bad_row_spoils_its_neighbours_only() -> None:
    """The quick way is taken: the reader of single rows is hardly ever asked."""
    lines = [f"{hex_of('md5', n)},xa:{n % 3},H{n % 3}" for n in range(2000)]
    lines[700] = "zz,xa:1,H1"
    asked = []
    with pytest.MonkeyPatch.context() as patch:
        one_by_one = columnar._one_by_one
        patch.setattr(columnar, "_one_by_one", lambda left, *more: asked.extend(left) or one_by_one(left, *more))
        drafts, report = read("gateway_csv", "\n".join(["md5,category,handling", *lines]).encode())
    assert (len(drafts), report.refused) == (1999, 1)
    assert 0 < len(asked) <= columnar.HALVED_DOWN_TO


@settings(max_examples=150, deadline=None)
@given(st.lists(st.binary(max_size=60).filter(lambda line: b"\n" not in line), max_size=8))
def test_every_line_of_a_digest_list_is_accepted_or_refused(lines: list[bytes]) -> None:
    raw = b"\n".join([b"# list", *lines])
    _, report = read("digest_list", raw)
    assert report.read == sum(1 for line in lines if line.strip() and not line.strip().startswith(b"#"))


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(SAMPLE_FORMATS), st.data())
def test_a_flipped_or_cut_file_is_read_or_refused_but_never_fails_otherwise(
    case: tuple[str, str], data: st.DataObject
) -> None:
    format_name, name = case
    raw = bytearray((SAMPLES / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    del raw[data.draw(st.integers(1, len(raw))) :]
    report = AdapterReport(format_name)
    try:
        accepted = len(list(read_hashes(io.BytesIO(bytes(raw)), format_name, report)))
    except MalformedError as error:
        assert error.message  # noqa: PT017 - either outcome is right; what is tested is that there is no third
    else:
        assert accepted == report.accepted
    assert report.read == report.accepted + report.refused


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(READERS)), st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(format_name: str, raw: bytes) -> None:
    sniff(raw)
    report = AdapterReport(format_name)
    try:
        list(read_hashes(io.BytesIO(raw), format_name, report))
    except MalformedError as error:
        assert error.message  # noqa: PT017 - as above
    assert report.read == report.accepted + report.refused


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(gateway_csv.COLUMNS), st.sampled_from(["marker-5c1e", "marker\x1b5c1e", "marker-5c1e" * 40]))
def test_a_report_never_holds_a_value(column: str, value: str) -> None:
    _, report = read("gateway_csv", own_csv(**{"sha1": hex_of("sha1", 1), column: value}))
    assert "marker" not in "".join(f"{row.field} {row.reason}" for row in report.refused_rows)
    assert "marker" not in "".join(report.dropped_fields)


def test_accepted_entries_are_what_the_row_says_for_random_rows() -> None:
    numbers = range(500)
    lines = [f"{hex_of('md5', n)},{n},xa:{n % 10},2026-01-{n % 28 + 1:02d}" for n in numbers]
    drafts, _ = read("gateway_csv", "\n".join(["md5,source_ref,category,seen", *lines]).encode())
    assert [draft[:2] for draft in drafts] == [({"md5": raw_of("md5", n)}, str(n)) for n in numbers]
    assert [draft.category for draft in drafts] == [f"xa:{n % 10}" for n in numbers]


# Documents


def test_the_contract_names_exactly_the_columns_and_its_example_is_read() -> None:
    text = CONTRACT.read_text()
    assert tuple(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == gateway_csv.COLUMNS
    example = re.search(r"```csv\n(.*?)```", text, re.DOTALL)
    assert example
    drafts, report = read("gateway_csv", example[1].encode())
    assert len(drafts) == 2
    assert report.refused == 0


def test_the_guide_has_a_section_for_every_format() -> None:
    text = GUIDE.read_text()
    assert set(re.findall(r"^## `(\w+)`", text, re.MULTILINE)) == set(READERS)
    named: Callable[[str], bool] = lambda name: f"`{name}`" in text  # noqa: E731
    assert all(map(named, vics.OTHER_MEMBERS))
