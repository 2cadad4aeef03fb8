"""Evidence packs: what the gateway hands over, and what somebody without a gateway finds when it was touched."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import io
import json
import re
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from factory import FakeClock, events, make_node
from gateway.audit import EventKind
from gateway.crypto import canonical, checkpoint, dsse
from gateway.crypto.checkpoint import CheckpointKey, KeyKind, VerifierKey
from gateway.errors import NotFoundError
from gateway.evidencepack import MANIFEST_TYPE, build_pack
from gateway.keyadmin import own_card
from gateway.node import Node
from test_logsearch import fill

SCRIPTS = Path(__file__).parent.parent / "scripts"


def script(name: str) -> ModuleType:
    sys.path.insert(0, str(SCRIPTS))
    try:
        spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(SCRIPTS))
    return module


VERIFY = script("verify_evidence")
VECTORS = json.loads((Path(__file__).parent / "vectors" / "evidence-pack.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Node:
    clock = FakeClock()
    node = make_node(tmp_path_factory.mktemp("pack"), "XA-NCVI", clock=clock)
    fill(node, clock, 20, 1)
    return node


@pytest.fixture(scope="module")
def pack(node: Node) -> bytes:
    return build_pack(node, [0, 3, 4, 9, 17], by="alice")


def judged(tmp_path: Path, node: Node, raw: bytes, *more: str) -> int:
    path = tmp_path / "pack.zip"
    path.write_bytes(raw)
    return int(VERIFY.main([str(path), "--log-key", own_card(node).log, *more]))


def changed(raw: bytes, name: str, change: Callable[[bytes], bytes | None]) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(raw)) as before, zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as after:
        for entry in before.infolist():
            content = before.read(entry)
            new = change(content) if entry.filename == name else content
            if new is not None:
                after.writestr(entry.filename, new)
    return sink.getvalue()


def test_a_pack_verifies_without_a_gateway_and_its_making_is_logged(
    tmp_path: Path, node: Node, pack: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    assert judged(tmp_path, node, pack, "--fingerprint", own_card(node).fingerprint, "--show") == 0
    assert "the tree holds all of its 5 leaves" in capsys.readouterr().out
    assert events(node, EventKind.EVIDENCE_PACKED)[0].details["leaves"] == 5


@pytest.mark.parametrize("name", ["leaves.jsonl", "checkpoint", "log.vkey", "card.json", "manifest.dsse"])
def test_any_changed_octet_of_any_file_is_found(tmp_path: Path, node: Node, pack: bytes, name: str) -> None:
    with zipfile.ZipFile(io.BytesIO(pack)) as archive:
        size = len(archive.read(name))
    for place in range(0, size, max(1, size // 40)):
        touched = changed(pack, name, lambda raw, at=place: raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
        assert judged(tmp_path, node, touched) == 4, f"{name} at {place}"


@pytest.mark.parametrize("name", ["leaves.jsonl", "checkpoint", "card.json", "manifest.dsse"])
def test_a_file_that_is_missing_is_missed(tmp_path: Path, node: Node, pack: bytes, name: str) -> None:
    assert judged(tmp_path, node, changed(pack, name, lambda _: None)) == 4


def test_a_leaf_that_was_taken_out_or_put_twice_is_found(tmp_path: Path, node: Node, pack: bytes) -> None:
    assert judged(tmp_path, node, changed(pack, "leaves.jsonl", lambda raw: b"\n".join(raw.split(b"\n")[1:]))) == 4
    assert judged(tmp_path, node, changed(pack, "leaves.jsonl", lambda raw: raw + raw)) == 4


def test_a_pack_of_another_agency_is_not_ours(tmp_path: Path, node: Node, pack: bytes) -> None:
    other = make_node(tmp_path, "XB-NCVI", clock=FakeClock())
    assert judged(tmp_path, other, pack) == 4
    assert judged(tmp_path, node, pack, "--fingerprint", own_card(other).fingerprint) == 4


def test_a_checkpoint_that_was_kept_is_compared(tmp_path: Path, node: Node) -> None:
    kept = tmp_path / "kept"
    with node.store.reading() as tx:
        kept.write_bytes(tx.log.latest_checkpoint())
    now = build_pack(node, [1], by="alice")
    assert judged(tmp_path, node, now, "--checkpoint", str(kept)) == 0
    later = build_pack(node, [1], by="alice")
    assert judged(tmp_path, node, later, "--checkpoint", str(kept)) == 4


def test_what_is_no_zip_file_is_no_pack(tmp_path: Path, node: Node) -> None:
    for raw in (b"", b"PK\x03\x04", b"x" * 1000):
        assert judged(tmp_path, node, raw) == 4


def test_a_leaf_that_there_is_not_is_in_no_pack(node: Node) -> None:
    with pytest.raises(NotFoundError):
        build_pack(node, [10**9], by="alice")


def hidden_before(raw: bytes) -> bytes:
    other = io.BytesIO()
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("leaves.jsonl", b"{}\n")
    return other.getvalue() + raw


def with_extra(raw: bytes) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(raw)) as before, zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as after:
        for entry in before.infolist():
            entry.comment = b"another event"
            after.writestr(entry, before.read(entry))
    return sink.getvalue()


def between(raw: bytes) -> bytes:
    """Something before the directory, which has moved on."""
    at = int.from_bytes(raw[-6:-2], "little")
    return raw[:at] + b"hidden" + raw[at:-6] + (at + 6).to_bytes(4, "little") + raw[-2:]


def commented(raw: bytes) -> bytes:
    return raw[:-2] + b"\x06\x00hidden"


@pytest.mark.parametrize("hide", [hidden_before, with_extra, between, commented, lambda raw: raw + b"\0"])
def test_a_pack_holds_nothing_that_another_tool_would_show(
    tmp_path: Path, node: Node, pack: bytes, hide: Callable[[bytes], bytes]
) -> None:
    assert judged(tmp_path, node, hide(pack)) == 4


def test_octets_of_the_zip_file_that_were_changed_end_in_no_traceback(tmp_path: Path, node: Node, pack: bytes) -> None:
    for place in range(0, len(pack), 97):
        judged(tmp_path, node, pack[:place] + bytes([pack[place] ^ 0xFF]) + pack[place + 1 :])
        assert judged(tmp_path, node, pack[:place]) != 0


def resigned(node: Node, raw: bytes, change: Callable[[dict[str, Any], dict[str, bytes]], None]) -> bytes:
    """What an agency itself could hand over: other files, signed by it."""
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    signed = dsse.verify(files.pop("manifest.dsse"), node.keystore.signing_key.public, MANIFEST_TYPE)
    manifest: dict[str, Any] = json.loads(signed)
    change(manifest, files)
    manifest["files"] = {name: hashlib.sha256(one).hexdigest() for name, one in files.items()}
    files["manifest.dsse"] = dsse.sign(MANIFEST_TYPE, canonical.encode(manifest), node.keystore.signing_key)
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, one in files.items():
            archive.writestr(name, one)
    return sink.getvalue()


def capitals(raw: bytes) -> bytes:
    return re.sub(rb'"entry":"(\w*)"', lambda found: b'"entry":"' + found[1].upper() + b'"', raw)


LIES: dict[str, Callable[[dict[str, Any], dict[str, bytes]], None]] = {
    "a member more": lambda manifest, _: manifest.update(note="all is well"),
    "another agency": lambda manifest, _: manifest.update(agency="XB-NCVI"),
    "another log": lambda manifest, _: manifest.update(log="partner-exchange/XB-NCVI/log/1"),
    "another key": lambda _, files: files.update({"log.vkey": b"another+00000000+AA==\n"}),
    "a proof alone": lambda _, files: files.update({"consistency.json": b'{"proof":[]}'}),
    "a salt alone": lambda _, files: files.update(
        {"leaves.jsonl": re.sub(rb'"event":"(?:[^"\\]|\\.)*"', b'"event":null', files["leaves.jsonl"])}
    ),
    "an entry in capitals": lambda _, files: files.update({"leaves.jsonl": capitals(files["leaves.jsonl"])}),
}


@pytest.mark.parametrize("lie", LIES)
def test_what_an_agency_signs_must_be_as_the_contract_says(
    tmp_path: Path, node: Node, pack: bytes, lie: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert judged(tmp_path, node, resigned(node, pack, lambda *_: None)) == 0
    assert judged(tmp_path, node, resigned(node, pack, LIES[lie]), "--show") == 4
    assert "NOT VERIFIED" in capsys.readouterr().out


def test_a_witness_is_one_whose_cosignature_is_there(
    tmp_path: Path, node: Node, pack: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    witness = CheckpointKey.from_seed("partner-exchange/XB-NCVI/witness", b"w" * 32, KeyKind.COSIGNER)
    key = str(witness.verifier)

    def cosigned(_: dict[str, Any], files: dict[str, bytes]) -> None:
        log = VerifierKey.parse(files["log.vkey"].decode().strip())
        line = checkpoint.cosign(checkpoint.verify(files["checkpoint"], log, log.name), witness, 1_795_000_000)
        note = checkpoint.add_signature(files["checkpoint"], line)
        files.update({"cosigned": note, "consistency.json": b'{"proof":[]}'})

    good = resigned(node, pack, cosigned)
    assert judged(tmp_path, node, good, "--witness", key) == 0
    assert "partner-exchange/XB-NCVI/witness cosigned that tree on 2026-11" in capsys.readouterr().out
    assert judged(tmp_path, node, pack, "--witness", key) == 4
    other = str(CheckpointKey.from_seed("partner-exchange/XC-NCVI/witness", b"x" * 32, KeyKind.COSIGNER).verifier)
    assert judged(tmp_path, node, good, "--witness", other) == 4
    for nonsense in ("", "a+b", "a+b+!!", key + "A"):
        assert judged(tmp_path, node, good, "--witness", nonsense) == 4


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["name"])
def test_frozen_packs_are_judged_as_their_word_says(tmp_path: Path, case: dict[str, str]) -> None:
    path = tmp_path / "pack.zip"
    path.write_bytes(base64.b64decode(case["pack"]))
    options = [str(path), "--log-key", VECTORS["log_key"], "--fingerprint", VECTORS["fingerprint"]]
    assert VERIFY.main(options) == {"verified": 0, "refused": 4}[case["expect"]]
