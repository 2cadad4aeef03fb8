"""Signed tree heads and cosignatures, against the notes of other implementations and against every small change."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.crypto import checkpoint as cp
from gateway.crypto.merkle import empty_root, leaf_hash
from gateway.errors import MalformedError, VerificationError

VECTORS = json.loads((Path(__file__).parent / "vectors" / "checkpoint.json").read_text())
ORIGIN = "xa-ncvi.example/log/1"
KEY = cp.CheckpointKey.from_seed(ORIGIN, bytes(range(32)))
WITNESS = cp.CheckpointKey.from_seed("xb-ncvi.example/witness", bytes(range(32, 64)), cp.KeyKind.COSIGNER)
ROOT = leaf_hash(b"made-up")
NOTE = cp.sign(ORIGIN, 17, ROOT, KEY)
NOW = 1_795_000_000


def resigned(text: str, key: cp.CheckpointKey = KEY) -> bytes:
    """A note over any text, signed rightly: what a log that breaks the rules could publish."""
    line = base64.b64encode(key.verifier.key_id + key.private.sign(text.encode())).decode()
    return f"{text}\n— {key.name} {line}\n".encode()


@pytest.mark.parametrize("vector", VECTORS["notes"], ids=lambda v: v["name"])
def test_notes_of_other_implementations_are_judged_as_expected(vector: dict) -> None:
    key = cp.VerifierKey.parse(vector["verifier"])
    note = vector["note"].encode()
    if vector["expect"] != "success":
        with pytest.raises(VerificationError, match=vector["expect"]):
            cp.verify_note(note, key)
        return
    assert str(key) == vector["verifier"]
    assert cp.verify_note(note, key) == vector["note"].rpartition("\n\n")[0] + "\n"
    origin = vector["note"].partition("\n")[0]
    if "at" in vector:
        found = cp.verify_cosignature(note, key, origin)
        assert (found.at, found.checkpoint.size) == (vector["at"], vector["size"])
    elif "size" in vector:
        assert cp.verify(note, key, origin).size == vector["size"]


@pytest.mark.parametrize(("text", "expected"), VECTORS["bad_verifiers"])
def test_a_mangled_verifier_string_is_refused(text: str, expected: str) -> None:
    with pytest.raises(MalformedError, match=expected):
        cp.VerifierKey.parse(text)


def test_a_checkpoint_is_what_was_signed() -> None:
    assert cp.verify(NOTE, KEY.verifier, ORIGIN) == cp.Checkpoint(ORIGIN, 17, ROOT)
    assert NOTE.decode().startswith(f"{ORIGIN}\n17\n{base64.b64encode(ROOT).decode()}\n\n— {ORIGIN} ")
    extended = cp.sign(ORIGIN, 17, ROOT, KEY, extensions=("previous 12",))
    assert cp.verify(extended, KEY.verifier, ORIGIN).extensions == ("previous 12",)


def test_an_empty_tree_has_a_checkpoint_with_its_one_root() -> None:
    assert cp.verify(cp.sign(ORIGIN, 0, empty_root(), KEY), KEY.verifier, ORIGIN).size == 0
    with pytest.raises(MalformedError, match="empty tree"):
        cp.sign(ORIGIN, 0, ROOT, KEY)


def test_the_seed_brings_the_key_back_and_is_not_printed() -> None:
    assert cp.CheckpointKey.from_seed(ORIGIN, KEY.seed()).verifier == KEY.verifier
    assert cp.CheckpointKey.generate(ORIGIN).verifier != KEY.verifier
    assert "private" not in repr(KEY)
    with pytest.raises(MalformedError, match="32 bytes"):
        cp.CheckpointKey.from_seed(ORIGIN, b"short")


@given(position=st.integers(0, len(NOTE) * 8 - 1))
@settings(max_examples=300, deadline=None)
def test_any_flipped_bit_is_refused(position: int) -> None:
    note = bytearray(NOTE)
    note[position // 8] ^= 1 << position % 8
    with pytest.raises((MalformedError, VerificationError)):
        cp.verify(bytes(note), KEY.verifier, ORIGIN)


ROOT64 = base64.b64encode(ROOT).decode()
BAD_TEXTS = {
    "leading zero": (f"{ORIGIN}\n017\n{ROOT64}\n", "decimal"),
    "plus sign": (f"{ORIGIN}\n+17\n{ROOT64}\n", "decimal"),
    "other digits": (f"{ORIGIN}\n١٧\n{ROOT64}\n", "decimal"),
    "twenty digits": (f"{ORIGIN}\n{10**19}\n{ROOT64}\n", "decimal"),
    "above 2^63": (f"{ORIGIN}\n{2**63}\n{ROOT64}\n", "out of range"),
    "negative": (f"{ORIGIN}\n-1\n{ROOT64}\n", "decimal"),
    "root without padding": (f"{ORIGIN}\n17\n{ROOT64.rstrip('=')}\n", "base64"),
    "root with stray bits": (f"{ORIGIN}\n17\n{ROOT64[:-2]}{chr(ord(ROOT64[-2]) + 1)}=\n", "base64"),
    "url-safe root": (f"{ORIGIN}\n17\n{base64.urlsafe_b64encode(bytes([255] * 32)).decode()}\n", "base64"),
    "short root": (f"{ORIGIN}\n17\n{base64.b64encode(ROOT[:31]).decode()}\n", "32 bytes"),
    "two lines": (f"{ORIGIN}\n17\n", "three lines"),
    "empty extension": (f"{ORIGIN}\n17\n{ROOT64}\n\nmore\n", "extension"),
    "nine extensions": (f"{ORIGIN}\n17\n{ROOT64}\n" + "more\n" * 9, "extension"),
    "empty tree, other root": (f"{ORIGIN}\n0\n{ROOT64}\n", "empty tree"),
    "no origin": (f"\n17\n{ROOT64}\n", "origin"),
    "reserved origin": (f"cosignature/v1\n17\n{ROOT64}\n", "reserved"),
    "long origin": (f"{'o' * 257}\n17\n{ROOT64}\n", "origin"),
}


@pytest.mark.parametrize("name", BAD_TEXTS)
def test_a_rightly_signed_text_that_is_no_checkpoint_is_refused(name: str) -> None:
    text, expected = BAD_TEXTS[name]
    with pytest.raises(MalformedError, match=expected):
        cp.verify(resigned(text), KEY.verifier, ORIGIN)


SIGNATURE_LINE = NOTE.decode().rpartition("\n\n")[2]
TEXT = NOTE.decode().rpartition("\n\n")[0] + "\n"
BAD_NOTES = {
    "no blank line": (TEXT + SIGNATURE_LINE, "no signature lines"),
    "no signature": (TEXT + "\n", "no signature lines"),
    "no last newline": (NOTE.decode()[:-1], "no signature lines"),
    "one newline too many": (NOTE.decode() + "\n", "no signature lines"),
    "carriage return": (NOTE.decode().replace("\n", "\r\n"), "control character"),
    "tab": (NOTE.decode().replace(" ", "\t"), "control character"),
    "hyphen for dash": (NOTE.decode().replace("—", "-"), "form"),
    "two spaces": (NOTE.decode().replace("— ", "—  "), "form"),
    "a word after": (NOTE.decode()[:-1] + " more\n", "form"),
    "plus in a name": (NOTE.decode() + "— a+b AAAAAAA=\n", "plus"),
    "no name": (NOTE.decode() + "—  AAAAAAA=\n", "empty"),
    "short signature": (NOTE.decode() + "— other AAAAAA==\n", "too short"),
    "unpadded signature": (NOTE.decode() + "— other AAAAAAA\n", "base64"),
    "hundred and one signatures": (NOTE.decode() + "— other AAAAAAA=\n" * 100, "too many"),
    "a megabyte": (NOTE.decode() + "x" * 1_000_000, "too large"),
    "empty": ("", "no signature lines"),
}


@pytest.mark.parametrize("name", BAD_NOTES)
def test_bytes_that_are_no_signed_note_are_refused(name: str) -> None:
    note, expected = BAD_NOTES[name]
    with pytest.raises(MalformedError, match=expected):
        cp.verify(note.encode(), KEY.verifier, ORIGIN)


def test_bytes_that_are_not_utf8_are_refused() -> None:
    with pytest.raises(MalformedError, match="UTF-8"):
        cp.verify(b"\xff" + NOTE, KEY.verifier, ORIGIN)


def test_unknown_signatures_are_passed_over_up_to_a_hundred() -> None:
    other_id = base64.b64encode(b"\0\0\0\1" + bytes(64)).decode()
    same_id = base64.b64encode(KEY.verifier.key_id + bytes(64)).decode()
    lines = f"— {ORIGIN} {other_id}\n— other.example {same_id}\n" + "— other AAAAAAA=\n" * 97
    assert cp.verify(NOTE + lines.encode(), KEY.verifier, ORIGIN).size == 17


def test_one_wrong_signature_of_the_known_key_refuses_the_note() -> None:
    wrong = base64.b64encode(KEY.verifier.key_id + bytes(64)).decode()
    with pytest.raises(VerificationError, match="wrong"):
        cp.verify(NOTE + f"— {ORIGIN} {wrong}\n".encode(), KEY.verifier, ORIGIN)


def test_a_checkpoint_of_another_key_or_another_log_is_refused() -> None:
    other = cp.CheckpointKey.generate(ORIGIN)
    with pytest.raises(VerificationError, match="no signature"):
        cp.verify(NOTE, other.verifier, ORIGIN)
    with pytest.raises(VerificationError, match="another log"):
        cp.verify(NOTE, KEY.verifier, "xc-ncvi.example/log/1")
    with pytest.raises(VerificationError, match="cosigner"):
        cp.verify(NOTE, WITNESS.verifier, ORIGIN)
    with pytest.raises(MalformedError, match="not the key of this log"):
        cp.sign("xc-ncvi.example/log/1", 17, ROOT, KEY)
    with pytest.raises(MalformedError, match="not the key of this log"):
        cp.sign(WITNESS.name, 17, ROOT, WITNESS)


def test_a_public_key_that_is_no_point_verifies_nothing() -> None:
    key = cp.VerifierKey(ORIGIN, cp.KeyKind.LOG, b"\xff" * 32)
    line = base64.b64encode(key.key_id + bytes(64)).decode()
    with pytest.raises(VerificationError, match="wrong"):
        cp.verify(f"{TEXT}\n— {ORIGIN} {line}\n".encode(), key, ORIGIN)


def test_a_cosigned_checkpoint_verifies_for_log_and_witness() -> None:
    head = cp.verify(NOTE, KEY.verifier, ORIGIN)
    note = cp.add_signature(NOTE, cp.cosign(head, WITNESS, NOW))
    note = cp.add_signature(note, cp.cosign(head, WITNESS, NOW + 60))
    assert cp.add_signature(note, cp.cosign(head, WITNESS, NOW)) == note, "a line is not repeated"
    assert cp.verify(note, KEY.verifier, ORIGIN) == head
    assert cp.verify_cosignature(note, WITNESS.verifier, ORIGIN) == cp.Cosignature(head, WITNESS.name, NOW + 60)
    assert cp.verify_note(note, WITNESS.verifier) == head.text()


def test_a_cosignature_of_another_time_tree_or_log_is_refused() -> None:
    head = cp.verify(NOTE, KEY.verifier, ORIGIN)
    line = cp.cosign(head, WITNESS, NOW)
    with pytest.raises(VerificationError, match="wrong"):
        cp.verify_cosignature(cp.sign(ORIGIN, 18, ROOT, KEY) + line, WITNESS.verifier, ORIGIN)
    with pytest.raises(VerificationError, match="another log"):
        cp.verify_cosignature(NOTE + line, WITNESS.verifier, "xc-ncvi.example/log/1")
    with pytest.raises(VerificationError, match="no signature"):
        cp.verify_cosignature(NOTE, WITNESS.verifier, ORIGIN)
    with pytest.raises(VerificationError, match="log's"):
        cp.verify_cosignature(NOTE + line, KEY.verifier, ORIGIN)
    name, _, text = line.decode().rpartition(" ")
    raw = bytearray(base64.b64decode(text))
    raw[11] ^= 1  # the last byte of the time
    moved = f"{name} {base64.b64encode(bytes(raw)).decode()}\n".encode()
    with pytest.raises(VerificationError, match="wrong"):
        cp.verify_cosignature(NOTE + moved, WITNESS.verifier, ORIGIN)


@pytest.mark.parametrize(
    ("signature", "expected"), [(bytes(64), "a time and a signature"), (b"\xff" * 8 + bytes(64), "out of range")]
)
def test_a_cosignature_of_the_wrong_shape_is_refused(signature: bytes, expected: str) -> None:
    line = base64.b64encode(WITNESS.verifier.key_id + signature).decode()
    with pytest.raises(VerificationError, match=expected):
        cp.verify_cosignature(NOTE + f"— {WITNESS.name} {line}\n".encode(), WITNESS.verifier, ORIGIN)


def test_only_a_cosigner_cosigns_and_only_at_a_real_time() -> None:
    head = cp.verify(NOTE, KEY.verifier, ORIGIN)
    with pytest.raises(MalformedError, match="not a cosigner"):
        cp.cosign(head, KEY, NOW)
    for at in (0, -1, 2**63):
        with pytest.raises(MalformedError, match="time"):
            cp.cosign(head, WITNESS, at)


def test_only_one_signature_line_is_added_at_a_time() -> None:
    line = cp.cosign(cp.verify(NOTE, KEY.verifier, ORIGIN), WITNESS, NOW)
    with pytest.raises(MalformedError, match="exactly one"):
        cp.add_signature(NOTE, line + b"\xe2\x80\x94 other AAAAAAA=\n")
    with pytest.raises(MalformedError, match="exactly one"):
        cp.add_signature(NOTE, b"\n" + line)
    with pytest.raises(MalformedError, match="exactly one"):
        cp.add_signature(NOTE, b"\n" + line + line)  # an empty line would move where the text ends
