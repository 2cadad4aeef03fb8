"""Evidence packs: what the gateway hands over, and what somebody without a gateway finds when it was touched."""

from __future__ import annotations

import importlib.util
import io
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from factory import FakeClock, events, make_node
from gateway.audit import EventKind
from gateway.errors import NotFoundError
from gateway.evidencepack import build_pack
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
    with zipfile.ZipFile(io.BytesIO(raw)) as before, zipfile.ZipFile(sink, "w") as after:
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
