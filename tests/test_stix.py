"""Hash entries as STIX objects and back: what other people's parsers say of them, what is carried, refused, dropped."""

from __future__ import annotations

import io
import json
from base64 import b64encode
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import stix2
from stix2patterns.validator import run_validator
from stix2validator import ValidationOptions, validate_instance

from gateway.adapters import read_hashes, sniff, stix
from gateway.adapters.stixout import IndicatorWriter
from gateway.adapters.stixwords import (
    EXTENSION,
    HANDLING_OF,
    NAMESPACE,
    NOTHING,
    TLP_IDS,
    TLP_OF,
    confidence_of,
    credibility_of,
    stix_id,
)
from gateway.columns.rows import Rows
from gateway.errors import MalformedError
from gateway.model import AdapterReport, EntryDraft, HandlingCode, Label, VictimStatus

SAMPLE = Path(__file__).parent / "data_adapters" / "stix-2.1-bundle.json"
SET = "XA-NCVI/found"
CREATED = 1_795_000_000
LABEL = Label("XA-NCVI", "XA", HandlingCode.H1, "icse:1", VictimStatus.IDENTIFIED, "B2", "XA Act, section 12")
MD5, SHA1, SHA256 = bytes(range(16)), bytes(range(20)), bytes(range(32))
PDQ, PHOTODNA = bytes(range(1, 33)), bytes((5 * i + 1) % 256 for i in range(144))
SSDEEP = "3:AXGBicFlgVNhBGcL6wCrFQEv:AXGHsNhxLsr2C"
ID = "file--7d5da2de-99cf-5e6b-8f98-a364919fdef2"


def written(label: Label = LABEL, **columns: Any) -> dict[str, Any]:
    rows = Rows.of(1, {"version": [3], **columns})
    writer = IndicatorWriter(SET, CREATED)
    made = writer.indicators(
        rows, label.to_json(), ["retain_days(90)"], entries=["0001-00000000002a"], at=[CREATED + 5]
    )
    assert (made[0].id, made[0].version) == (json.loads(made[0].raw)["id"], json.loads(made[0].raw)["modified"])
    return dict(json.loads(made[0].raw))


def full() -> dict[str, Any]:
    return written(
        md5=[MD5],
        sha1=[SHA1],
        sha256=[SHA256],
        ssdeep=[SSDEEP],
        pdq=[PDQ],
        pdq_quality=[90],
        photodna=[PHOTODNA],
        media_type=["image/jpeg"],
        series=['Series "A" é'],
        victim_ref=["v-7"],
        seen=[1_768_471_200],
    )


def gone() -> dict[str, Any]:
    return dict(json.loads(IndicatorWriter(SET, CREATED).revoked("0001-00000000002a", 4, CREATED + 9).raw))


def common() -> list[dict[str, Any]]:
    return [json.loads(one.raw) for one in IndicatorWriter(SET, CREATED).common("XA")]


def read(*objects: object) -> tuple[list[EntryDraft], AdapterReport]:
    report = AdapterReport("stix")
    raw = json.dumps({"type": "bundle", "id": "bundle--1", "objects": list(objects)}).encode()
    assert sniff(raw) == "stix"
    found = list(read_hashes(io.BytesIO(raw), "stix", report))
    assert report.read == report.accepted + report.refused
    return found, report


def indicator(pattern: str, **members: object) -> dict[str, object]:
    return {
        "type": "indicator",
        "spec_version": "2.1",
        "id": "indicator--8e2e2d2b-17d4-4cbf-938f-98ee46b3cd3f",
        "pattern": pattern,
        "pattern_type": "stix",
        **members,
    }


def refused(one: object) -> tuple[str, str]:
    found, report = read(one)
    assert found == []
    return report.refused_rows[0].field, report.refused_rows[0].reason


# Out


@pytest.mark.parametrize("made", [full(), written(md5=[MD5]), written(), gone(), *common()], ids=lambda o: o["type"])
def test_what_is_written_is_stix_to_the_parser_and_to_the_strict_validator(made: dict[str, Any]) -> None:
    assert stix2.parse(made, allow_custom=False)["id"] == made["id"]
    result = validate_instance(made, ValidationOptions(strict=True, version="2.1"))
    assert result.is_valid, [str(error) for error in result.errors]


@pytest.mark.parametrize("made", [full(), gone()], ids=["listed", "gone"])
def test_patterns_are_patterns(made: dict[str, Any]) -> None:
    assert run_validator(made["pattern"], stix_version="2.1") == []


def test_an_id_is_made_of_set_and_entry() -> None:
    named = sha256(NAMESPACE + b"indicator\nXA-NCVI/found\n0001-00000000002a").digest()
    expected = UUID(bytes=named[:16], version=4)
    assert full()["id"] == f"indicator--{expected}"
    assert gone()["id"] == full()["id"] == stix_id("indicator", SET, "0001-00000000002a")


def test_a_newer_version_is_newer_and_keeps_its_creation() -> None:
    assert gone()["created"] == full()["created"]
    assert full()["modified"] == "2026-11-18T11:06:45.003Z"
    assert gone()["modified"] > full()["modified"]
    assert gone()["revoked"] is True
    assert gone()["pattern"] == NOTHING


def test_what_an_entry_says_is_carried() -> None:
    made = full()
    assert made["pattern"] == (
        f"[file:hashes.MD5 = '{MD5.hex()}' OR file:hashes.'SHA-1' = '{SHA1.hex()}' OR "
        f"file:hashes.'SHA-256' = '{SHA256.hex()}' OR file:hashes.SSDEEP = '{SSDEEP}']"
    )
    assert made["labels"] == ["category:icse:1", "victim-status:identified"]
    assert made["confidence"] == 70
    assert made["object_marking_refs"][0] == TLP_IDS["amber"]
    said = made["extensions"][EXTENSION]
    assert said["perceptual"] == [
        {"algorithm": "PDQ", "value": PDQ.hex(), "quality": 90},
        {"algorithm": "PhotoDNA", "value": b64encode(PHOTODNA).decode()},
    ]
    assert (said["series"], said["victim_ref"], said["seen"]) == ('Series "A" é', "v-7", "2026-01-15T10:00:00.000Z")
    assert (said["set"], said["entry"], said["version"]) == (SET, "0001-00000000002a", 3)
    assert said["duties"] == ["retain_days(90)"]


def test_what_was_withheld_does_not_appear() -> None:
    withheld = Label("XA-NCVI", "XA", HandlingCode.H1, "icse:1", VictimStatus.WITHHELD, "F6", "XA Act")
    made = written(withheld)
    assert made["pattern"] == NOTHING
    assert "withheld" not in json.dumps(made)
    assert "victim" not in json.dumps(made)
    assert not {"perceptual", "series", "victim_status"} & made["extensions"][EXTENSION].keys()
    assert "confidence" not in made


def test_markings_and_confidence_never_get_freer_on_their_way_there_and_back() -> None:
    for code in HandlingCode:
        assert HANDLING_OF[TLP_OF[code]] >= code
    for credibility in "12345":
        assert credibility_of(confidence_of(f"A{credibility}") or 0) == credibility
    assert confidence_of("A6") is None
    assert [credibility_of(edge) for edge in (0, 19, 20, 79, 80, 100)] == ["5", "5", "4", "2", "1", "1"]


def test_every_object_referred_to_is_among_the_common_ones() -> None:
    there = {one["id"] for one in common()}
    for made in (full(), gone()):
        assert {made["created_by_ref"], *made["object_marking_refs"], *made.get("extensions", {})} <= there


# In


def test_an_entry_comes_back_as_it_went() -> None:
    [found], report = read(full(), *common())
    assert found == EntryDraft(
        {"md5": MD5, "sha1": SHA1, "sha256": SHA256, "ssdeep": SSDEEP.encode(), "pdq": PDQ, "photodna": PHOTODNA},
        source_ref=full()["id"],
        media_type="image/jpeg",
        category="icse:1",
        series='Series "A" é',
        victim_ref="v-7",
        victim_status=VictimStatus.IDENTIFIED,
        evaluation="B2",
        handling=HandlingCode.H1,
        pdq_quality=90,
        seen=1_768_471_200,
    )
    assert report.dropped_fields["marking-definition"] == 8
    assert report.dropped_fields["legal_basis"] == 1


def test_a_file_and_foreign_names_of_digests() -> None:
    [found], report = read(
        {
            "type": "file",
            "spec_version": "2.1",
            "id": ID,
            "hashes": {"MD5": MD5.hex().upper(), "SHA256": SHA256.hex(), "SHA3-256": "00"},
            "mime_type": "image/png",
            "name": "holiday.png",
            "object_marking_refs": [TLP_IDS["green"], TLP_IDS["red"]],
        }
    )
    assert found.digests == {"md5": MD5, "sha256": SHA256}
    assert (found.source_ref, found.media_type, found.handling) == (ID, "image/png", HandlingCode.H3)
    assert report.dropped_fields == {"hashes: SHA3-256": 1, "name": 1}


def test_confidence_stands_in_for_an_evaluation_of_ours() -> None:
    [found], _ = read(indicator(f"[file:hashes.MD5 = '{MD5.hex()}']", confidence=55))
    assert found.evaluation == "F3"


@pytest.mark.parametrize(
    "pattern",
    [
        f"[file:hashes.MD5 = '{MD5.hex()}'] AND [file:size = 3]",
        f"[file:hashes.MD5 = '{MD5.hex()}' OR file:name = 'a']",
        f"[file:hashes.MD5 != '{MD5.hex()}']",
        f"[NOT file:hashes.MD5 = '{MD5.hex()}']",
        f"[file:hashes.MD5 = '{MD5.hex()}'",
        f"[file:hashes.MD5 = '{MD5.hex()}' OR]",
        f"[file:hashes.MD5 = '{MD5.hex()}'OR file:hashes.'SHA-1' = '{SHA1.hex()}' AND file:size = 2]",
        "[]",
        "",
        "[" * 5000,
    ],
)
def test_a_pattern_that_says_more_than_digests_is_refused(pattern: str) -> None:
    assert refused(indicator(pattern)) == ("pattern", "says more than which digests a file has")


@pytest.mark.parametrize(
    ("one", "field"),
    [
        (7, "row"),
        ({"type": "malware"}, "type"),
        ({"type": ["indicator"]}, "type"),
        (indicator(f"[file:hashes.MD5 = '{MD5.hex()}']", spec_version="2.0"), "spec_version"),
        (indicator(f"[file:hashes.MD5 = '{MD5.hex()}']", revoked=True), "revoked"),
        (indicator(f"[file:hashes.MD5 = '{MD5.hex()}']", id="indicator--1"), "id"),
        (indicator(f"[file:hashes.MD5 = '{MD5.hex()}']", confidence=101), "confidence"),
        (indicator(f"[file:hashes.MD5 = '{MD5.hex()}']", pattern_type="yara"), "pattern_type"),
        (indicator(f"[file:hashes.MD5 = '{MD5.hex()}']", extensions={EXTENSION: []}), "extensions"),
        (indicator(f"[file:hashes.MD5 = '{MD5.hex()}']", extensions={EXTENSION: {"evaluation": "Z9"}}), "evaluation"),
        (indicator(f"[file:hashes.MD5 = '{MD5.hex()}']", extensions={EXTENSION: {"handling": "H9"}}), "handling"),
        (indicator(f"[file:hashes.MD5 = '{'0' * 32}']"), "pattern: md5"),
        (indicator(f"[file:hashes.MD5 = '{MD5.hex()}' OR file:hashes.MD5 = '{'a1' * 16}']"), "pattern"),
        (indicator("[file:hashes.'SHA3-256' = '00']"), "row"),
        ({"type": "file", "spec_version": "2.1", "id": ID, "hashes": []}, "hashes"),
    ],
)
def test_what_cannot_be_carried_is_refused_by_its_property(one: object, field: str) -> None:
    assert refused(one)[0] == field


def test_a_joint_of_two_kinds_is_refused() -> None:
    pattern = (
        f"[file:hashes.MD5 = '{MD5.hex()}' OR file:hashes.'SHA-1' = '{SHA1.hex()}' "
        f"AND file:hashes.'SHA-256' = '{SHA256.hex()}']"
    )
    assert "which belong together" in refused(indicator(pattern))[1]


def test_a_member_twice_is_refused_and_a_broken_list_whole() -> None:
    twice = b'{"objects":[{"type":"file","type":"file"}]}'
    report = AdapterReport("stix")
    assert list(read_hashes(io.BytesIO(twice), "stix", report)) == []
    assert report.refused == 1
    for raw in (b"", b"[]", b'{"objects":[{}', b'{"objects":[]} x', b'{"objects":[],"objects":[]}', b'{"a":' * 5000):
        with pytest.raises(MalformedError):
            list(read_hashes(io.BytesIO(raw), "stix", AdapterReport("stix")))


def test_a_value_of_poor_quality_is_dropped() -> None:
    extension = {EXTENSION: {"perceptual": [{"algorithm": "PDQ", "value": PDQ.hex(), "quality": 20}]}}
    [found], report = read(indicator(f"[file:hashes.MD5 = '{MD5.hex()}']", extensions=extension))
    assert "pdq" not in found.digests
    assert report.dropped_fields["pdq"] == 1


def test_the_sample_reads_as_its_description_says() -> None:
    report = AdapterReport("stix")
    found = list(read_hashes(io.BytesIO(SAMPLE.read_bytes()), "stix", report))
    assert [sorted(one.digests) for one in found] == [["md5", "sha1"], ["md5", "sha256"]]
    assert (report.read, report.accepted, report.refused_rows[0].line) == (3, 2, 4)
    assert (found[0].handling, found[0].evaluation, found[1].media_type) == (HandlingCode.H2, "F2", "image/jpeg")


def test_ids_are_told_from_what_only_looks_like_them() -> None:
    assert stix.STIX_ID.fullmatch(ID)
    assert not stix.STIX_ID.fullmatch(ID + "\n")
