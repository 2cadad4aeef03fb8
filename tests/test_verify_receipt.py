"""The stand-alone receipt check judges as the gateway does, and needs nothing of it."""

from __future__ import annotations

import ast
import hashlib
import json
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway import audit
from gateway.crypto.checkpoint import VerifierKey
from gateway.errors import GatewayError

SCRIPT = Path(__file__).parent.parent / "scripts" / "verify_receipt.py"
VECTORS = json.loads((Path(__file__).parent / "vectors" / "receipt.json").read_text())
KEY = VECTORS["verifier"]
GOOD = VECTORS["receipts"][0]


# The script's names, run in this process where a test needs it many times.
SCRIPT_NAMES: dict[str, Any] = {"__name__": "verify_receipt"}
exec(compile(SCRIPT.read_text(), str(SCRIPT), "exec"), SCRIPT_NAMES)
MAIN = SCRIPT_NAMES["main"]


def run(tmp_path: Path, receipt: str | bytes, *more: str, key: str = KEY) -> int:
    file = tmp_path / "receipt.json"
    file.write_bytes(receipt if isinstance(receipt, bytes) else receipt.encode())
    return MAIN([str(file), "--log-key", key, *more])


def written(tmp_path: Path, name: str, content: str) -> str:
    (tmp_path / name).write_text(content)
    return str(tmp_path / name)


def test_the_script_imports_the_standard_library_and_cryptography_alone() -> None:
    tree = ast.parse(SCRIPT.read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    roots = {name.partition(".")[0] for name in names}
    assert roots - set(sys.stdlib_module_names) == {"cryptography"}


def test_a_good_receipt_is_verified_in_readable_steps_by_an_isolated_process(tmp_path: Path) -> None:
    file = written(tmp_path, "receipt.json", GOOD["receipt"])
    command = [sys.executable, "-I", str(SCRIPT), file, "--log-key", KEY, "--manifest-digest", GOOD["manifest_digest"]]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "1 the receipt has the form of contracts/receipt-1.md … ok",
        "2 the log xa-ncvi.example/log/1 signed its tree of 7 entries … ok",
        "3 the tree holds the event as entry 1 … ok",
        "4 the event says: message message-1 of XB-NCVI was taken in on 2026-11-18 11:06:41 UTC … ok",
        "5 the message is the one with the manifest digest given … ok",
        "verified",
    ]


@pytest.mark.parametrize("vector", VECTORS["receipts"], ids=lambda v: v["name"])
def test_script_and_gateway_agree_on_every_frozen_receipt(
    vector: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = run(tmp_path, vector["receipt"], "--manifest-digest", vector["manifest_digest"])
    last = capsys.readouterr().out.splitlines()[-1]
    if vector["expect"] == "success":
        assert (status, last) == (0, "verified")
    else:
        assert status == 4
        assert re.match(r"\d NOT VERIFIED: .{10,}", last)


def test_script_and_gateway_refuse_the_same_altered_bytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chance = random.Random(1)
    raw = GOOD["receipt"].encode()
    key = VerifierKey.parse(KEY)
    for _ in range(300):
        altered = bytearray(raw)
        altered[chance.randrange(len(raw))] = chance.choice([0, 10, 34, 48, 92, 125, 255, chance.randrange(256)])
        try:
            audit.verify_receipt(bytes(altered), key)
            expected = 0
        except GatewayError:
            expected = 4
        assert run(tmp_path, bytes(altered)) == expected
        assert expected == 4 or bytes(altered) == raw
    capsys.readouterr()


def test_without_a_manifest_the_digest_is_shown_for_comparison(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, GOOD["receipt"]) == 0
    assert GOOD["manifest_digest"] in capsys.readouterr().out


def test_a_newer_checkpoint_that_continues_the_receipts_tree_is_accepted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    newer = VECTORS["newer"]
    note = written(tmp_path, "note", newer["checkpoint"])
    proof = written(tmp_path, "proof", "\n".join(newer["consistency"]) + "\n")
    assert run(tmp_path, newer["receipt"], "--checkpoint", note, "--consistency", proof) == 0
    assert "newer tree of 7 entries" in capsys.readouterr().out
    assert run(tmp_path, GOOD["receipt"], "--checkpoint", note) == 0, "the same tree needs no proof"


@pytest.mark.parametrize(
    ("names", "proof", "expected"),
    [
        ("newer checkpoint", [], "too short"),
        ("newer forked", VECTORS["newer"]["consistency"], "rewritten"),
        ("newer checkpoint", ["00" * 32], "too short|rewritten"),
        ("newer checkpoint", ["zz"], "hex"),
        ("good forked", [], "forked"),
        ("good older", [], "cut off"),
        ("newer garbage", [], "no signature"),
    ],
)
def test_a_checkpoint_that_does_not_continue_the_receipts_tree_is_refused(
    names: str, proof: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    newer = VECTORS["newer"]
    receipts = {"newer": newer["receipt"], "good": GOOD["receipt"]}
    older = json.loads(newer["receipt"])["checkpoint"]
    notes = {"checkpoint": newer["checkpoint"], "forked": newer["forked"], "older": older, "garbage": "x\n"}
    receipt, note = names.split()
    options = ["--checkpoint", written(tmp_path, "note", notes[note])]
    options += ["--consistency", written(tmp_path, "proof", "\n".join(proof))]
    assert run(tmp_path, receipts[receipt], *options) == 4
    assert re.search(expected, capsys.readouterr().out.splitlines()[-1])


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("xa-ncvi.example/log/1", "form"),
        (KEY.replace("+", "+0", 1), "another key"),
        (KEY[:-1], "base64"),
        ("xb" + KEY[2:], "another key"),
        ("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW", "another log"),
        ("remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2", "not an Ed25519 log key"),
    ],
)
def test_a_wrong_log_key_verifies_nothing(
    key: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, GOOD["receipt"], key=key) == 4
    assert expected in capsys.readouterr().out


@pytest.mark.parametrize("raw", [b"", b"\xff", b"[" * 100_000, b'{"a":' * 50_000, b" " * 300_000, b"1" * 10_000])
def test_hostile_bytes_are_refused_without_a_traceback(
    raw: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, raw) == 4
    assert "1 NOT VERIFIED" in capsys.readouterr().out


def test_an_inner_node_does_not_pass_for_a_leaf() -> None:
    """The tree of four leaves: with a path cut short, the node above two of them would stand for a leaf."""
    leaves = [hashlib.sha256(b"\x00" + bytes([i])).digest() for i in range(4)]
    left, right = (hashlib.sha256(b"\x01" + leaves[i] + leaves[i + 1]).digest() for i in (0, 2))
    head = SCRIPT_NAMES["TreeHead"](4, hashlib.sha256(b"\x01" + left + right).digest())
    verify_inclusion = SCRIPT_NAMES["verify_inclusion"]
    verify_inclusion(leaves[1], 1, head, [leaves[0], right])
    for leaf, index, proof, expected in (
        (left, 0, [right], "too short"),
        (head.root, 0, [], "too short"),
        (leaves[1], 1, [leaves[0], right, right], "too long"),
        (leaves[1], 4, [leaves[0], right], "no such leaf"),
    ):
        with pytest.raises(SCRIPT_NAMES["NotVerified"], match=expected):
            verify_inclusion(leaf, index, head, proof)


def test_a_wrong_command_line_is_a_usage_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (
        [],
        [str(tmp_path / "absent"), "--log-key", KEY],
        [str(tmp_path), "--log-key", KEY, "--consistency", "x"],
    ):
        with pytest.raises(SystemExit) as caught:
            MAIN(arguments)
        assert caught.value.code == 2
    capsys.readouterr()
