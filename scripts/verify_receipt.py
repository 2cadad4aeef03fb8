#!/usr/bin/env python3
"""Check a receipt with nothing but this file, Python 3.11 and the `cryptography` package.

    verify_receipt.py RECEIPT --log-key VERIFIER-STRING [--manifest-digest HEX]
                      [--checkpoint FILE [--consistency FILE]]

RECEIPT           the receipt as it was received (contracts/receipt-1.md).
--log-key         the log's verifier string, from the partner's identity card: origin+hex+base64.
--manifest-digest SHA-256 of the manifest that was sent, 64 hex digits; without it, the receipt's own is shown.
--checkpoint      a newer checkpoint of the same log, from the partner, a witness or an auditor.
--consistency     the RFC 9162 consistency proof from the receipt's tree to the newer one: a hex hash on each line.

It is written apart from the gateway on purpose, so that a fault in one does not hide in the other. Each step prints one
line. Exit 0: everything holds. Exit 4: it does not, and the last line says why. Exit 2: the command line is wrong.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import json
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, NoReturn

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

MAX_RECEIPT_BYTES = 256 * 1024
MAX_NOTE_BYTES = 1_000_000
MAX_SIGNATURES = 100
MAX_INTEGER = 2**53 - 1
MAX_TREE_SIZE = 2**63 - 1
MAX_DEPTH = 32
LAST_SECOND = 253_402_300_799  # of the year 9999: what can be shown as a date
MEMBERS = {
    *("receipt", "origin", "message_id", "manifest_digest", "sender", "event", "salt"),
    *("leaf_index", "tree_size", "proof", "checkpoint"),
}
EVENT_MEMBERS = {"kind", "at", "actor", "subject", "details"}
EVENT_KINDS = ("push_received", "page_applied")
HEX32 = re.compile(r"[0-9a-f]{64}")
SIZE = re.compile(r"0|[1-9][0-9]{0,18}")


class NotVerified(Exception):  # noqa: N818 - it is an answer, not an error of this program
    """The receipt does not hold; the text says why."""


class LogKey(NamedTuple):
    """The log's name, its four-byte key id and its Ed25519 public key."""

    name: str
    key_id: bytes
    public: Ed25519PublicKey


class TreeHead(NamedTuple):
    """What a checkpoint says."""

    size: int
    root: bytes


def fail(reason: str) -> NoReturn:
    raise NotVerified(reason)


def require(condition: object, reason: str) -> None:
    if not condition:
        fail(reason)


# Canonical JSON (RFC 8785, without floats): the receipt and the event in it have one spelling each.


def unique_members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    require(len(dict(pairs)) == len(pairs), "a JSON member stands twice in one object")
    return dict(pairs)


def integer(digits: str) -> int:
    require(len(digits) <= 17 and abs(int(digits)) <= MAX_INTEGER, "a JSON number is out of range")
    return int(digits)


def no_float(_digits: str) -> NoReturn:
    fail("JSON holds a float, NaN or Infinity")


def canonical(value: object, depth: int = MAX_DEPTH) -> str:
    require(depth >= 0, "JSON is nested too deeply")
    if isinstance(value, dict):
        names = sorted(value, key=lambda name: name.encode("utf-16-be", "surrogatepass"))  # RFC 8785 3.2.3
        members = (f"{canonical(name)}:{canonical(value[name], depth - 1)}" for name in names)
        return "{" + ",".join(members) + "}"
    if isinstance(value, list):
        return "[" + ",".join(canonical(item, depth - 1) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False)


def parse_canonical(raw: bytes, what: str) -> dict[str, object]:
    try:
        value = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=unique_members,
            parse_int=integer,
            parse_float=no_float,
            parse_constant=no_float,
        )
        spelling = canonical(value).encode("utf-8")
    except (ValueError, RecursionError) as error:  # UnicodeError and JSONDecodeError are ValueErrors
        raise NotVerified(f"the {what} is not JSON in UTF-8") from error
    require(spelling == raw, f"the {what} is not in canonical form")
    if not isinstance(value, dict):
        fail(f"the {what} has not the members of the contract")
    return value


def text(value: dict[str, object], name: str) -> str:
    found = value[name]
    if not isinstance(found, str):
        fail(f"{name} is not text")
    return found


def number(value: dict[str, object], name: str) -> int:
    found = value[name]
    if not isinstance(found, int) or isinstance(found, bool) or found < 0:
        fail(f"{name} is not a whole number")
    return found


def hash_of(hex_digits: object, name: str) -> bytes:
    if not isinstance(hex_digits, str) or not HEX32.fullmatch(hex_digits):
        fail(f"{name} is not 32 bytes in lower-case hex")
    return bytes.fromhex(hex_digits)


# Signed notes (https://c2sp.org/signed-note, https://c2sp.org/tlog-checkpoint).


def parse_base64(encoded: str, what: str) -> bytes:
    try:
        raw = base64.b64decode(encoded, validate=True)
    except ValueError as error:
        raise NotVerified(f"{what} is not base64") from error
    require(base64.b64encode(raw).decode() == encoded, f"{what} is not base64 in its one spelling")
    return raw


def is_name(name: str) -> bool:
    return 0 < len(name) <= 256 and not any(c.isspace() or c == "+" or c < " " for c in name)


def parse_log_key(verifier: str) -> LogKey:
    parts = verifier.split("+", 2)
    require(len(parts) == 3 and is_name(parts[0]), "the log key is not of the form origin+id+key")
    raw = parse_base64(parts[2], "the log key")
    require(len(raw) == 33 and raw[0] == 1, "the log key is not an Ed25519 log key")
    key_id = hashlib.sha256(parts[0].encode() + b"\n" + raw).digest()[:4]
    require(key_id.hex() == parts[1], "the id in the log key belongs to another key")
    return LogKey(parts[0], key_id, Ed25519PublicKey.from_public_bytes(raw[1:]))


def verify_note(note: str, key: LogKey) -> str:
    """The signed text, once the log's signature on it is right; signatures of others are passed over."""
    require(len(note.encode()) <= MAX_NOTE_BYTES, "the checkpoint is too large")
    require(not any(c < " " and c != "\n" for c in note), "the checkpoint holds a control character")
    body, blank, lines = note.rpartition("\n\n")
    require(blank and lines.endswith("\n"), "the checkpoint has no signature")
    signatures = lines[:-1].split("\n")
    require(len(signatures) <= MAX_SIGNATURES, "the checkpoint has too many signatures")
    verified = False
    for line in signatures:
        parts = line.split(" ")
        require(len(parts) == 3 and parts[0] == "—" and is_name(parts[1]), "a signature line has another form")
        raw = parse_base64(parts[2], "a signature")
        require(len(raw) > 4, "a signature is too short")
        if parts[1] == key.name and raw[:4] == key.key_id:
            verify_signature(key, raw[4:], f"{body}\n".encode())
            verified = True
    require(verified, "the checkpoint has no signature of this log key")
    return body + "\n"


def verify_signature(key: LogKey, signature: bytes, message: bytes) -> None:
    try:
        key.public.verify(signature, message)
    except (InvalidSignature, ValueError) as error:
        raise NotVerified("the checkpoint's signature is wrong") from error


def verify_checkpoint(note: str, key: LogKey) -> TreeHead:
    lines = verify_note(note, key)[:-1].split("\n")
    require(len(lines) >= 3, "the checkpoint has fewer than three lines")
    require(lines[0] == key.name, "the checkpoint is of another log")
    require(SIZE.fullmatch(lines[1]), "the checkpoint's tree size is not a decimal number")
    root = parse_base64(lines[2], "the checkpoint's root")
    size = int(lines[1])
    require(len(root) == 32 and size <= MAX_TREE_SIZE, "the checkpoint's root or size is out of range")
    require(all(lines[3:]) and len(lines) <= 11, "the checkpoint has an empty extension line, or too many")
    return TreeHead(size, root)


# Proofs (RFC 9162 2.1.3.2 and 2.1.4.2).


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def verify_inclusion(leaf: bytes, index: int, head: TreeHead, proof: list[bytes]) -> None:
    require(index < head.size, "there is no such leaf in a tree of this size")
    fn, sn, computed = index, head.size - 1, leaf
    for sibling in proof:
        require(sn, "the inclusion proof is too long")
        if fn & 1 or fn == sn:
            computed = node_hash(sibling, computed)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            computed = node_hash(computed, sibling)
        fn, sn = fn >> 1, sn >> 1
    require(sn == 0, "the inclusion proof is too short")
    require(computed == head.root, "the inclusion proof leads to another root: the tree does not hold this event")


def verify_consistency(old: TreeHead, new: TreeHead, proof: list[bytes]) -> None:
    require(0 < old.size <= new.size, "the newer checkpoint is of a smaller tree: the log was cut off")
    if old.size == new.size:
        require(not proof and old.root == new.root, "two checkpoints of one size differ: the log was forked")
        return
    path = [old.root, *proof] if old.size & (old.size - 1) == 0 else list(proof)
    require(proof, "the consistency proof is too short")
    fn, sn = old.size - 1, new.size - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    fr = sr = path[0]
    for c in path[1:]:
        require(sn, "the consistency proof is too long")
        if fn & 1 or fn == sn:
            fr, sr = node_hash(c, fr), node_hash(c, sr)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            sr = node_hash(sr, c)
        fn, sn = fn >> 1, sn >> 1
    require(sn == 0, "the consistency proof is too short")
    require(fr == old.root and sr == new.root, "the newer tree does not begin with this one: the log was rewritten")


# The steps.


def printable(words: str) -> str:
    """Fit for a terminal: what a partner wrote must not move the cursor or turn the line around."""
    return "".join(c if c.isprintable() else "?" for c in words)


class Printer:
    """Numbers the steps."""

    def __init__(self) -> None:
        self.step = 0

    def ok(self, what: str) -> None:
        self.step += 1
        print(f"{self.step} {what} … ok")


def verify(options: argparse.Namespace, printer: Printer) -> None:
    key = parse_log_key(options.log_key)

    raw = read(options.receipt, MAX_RECEIPT_BYTES, "receipt")
    receipt = parse_canonical(raw, "receipt")
    require(set(receipt) == MEMBERS, "the receipt has not the members of the contract")
    require(receipt["receipt"] == "receipt 1", "the receipt is of a version that is not known here")
    digest = hash_of(receipt["manifest_digest"], "manifest_digest")
    printer.ok("the receipt has the form of contracts/receipt-1.md")

    require(receipt["origin"] == key.name, "the receipt is of another log than the log key")
    head = verify_checkpoint(text(receipt, "checkpoint"), key)
    require(head.size == number(receipt, "tree_size"), "the checkpoint is of a tree of another size")
    printer.ok(f"the log {key.name} signed its tree of {head.size} entries")

    event_bytes = text(receipt, "event").encode()
    entry = b"\x01" + hashlib.sha256(b"event 1\n" + hash_of(receipt["salt"], "salt") + event_bytes).digest()
    proof = receipt["proof"]
    if not isinstance(proof, list):
        fail("proof is not a list")
    hashes = [hash_of(value, "a hash of the proof") for value in proof]
    index = number(receipt, "leaf_index")
    verify_inclusion(hashlib.sha256(b"\x00" + entry).digest(), index, head, hashes)
    printer.ok(f"the tree holds the event as entry {index}")

    event = parse_canonical(event_bytes, "event")
    sender, message_id = verify_event(event, receipt)
    when = number(event, "at")
    require(when <= LAST_SECOND, "the event's time is out of range")
    shown = datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    printer.ok(f"the event says: message {printable(message_id)} of {printable(sender)} was taken in on {shown}")

    if options.manifest_digest is None:
        print(f"  manifest not compared; the receipt is for the one with SHA-256 {digest.hex()}")
    else:
        require(digest == hash_of(options.manifest_digest.lower(), "--manifest-digest"), "it is for another message")
        printer.ok("the message is the one with the manifest digest given")

    if options.checkpoint is not None:
        newer = verify_checkpoint(decoded(read(options.checkpoint, MAX_NOTE_BYTES, "checkpoint")), key)
        verify_consistency(head, newer, read_proof(options.consistency))
        printer.ok(f"the log's newer tree of {newer.size} entries begins with this one")


def verify_event(event: dict[str, object], receipt: dict[str, object]) -> tuple[str, str]:
    """The sender and message id, once the event is of the right kind and speaks of the receipt's message."""
    details = event.get("details")
    if set(event) != EVENT_MEMBERS or not isinstance(details, dict):
        fail("the event has not the members of the contract")
    lengths = len(text(event, "actor")), len(text(event, "subject"))
    require(0 < lengths[0] <= 256 and lengths[1] <= 256, "the event's actor or subject is empty or too long")
    require(event["kind"] in EVENT_KINDS, "the event is not that of a message taken in")
    for name in ("message_id", "manifest_digest", "sender"):
        require(details.get(name) == text(receipt, name), "the event speaks of another message")
    return text(receipt, "sender"), text(receipt, "message_id")


def read(path: Path, max_bytes: int, what: str) -> bytes:
    with path.open("rb") as file:
        raw = file.read(max_bytes + 1)
    require(len(raw) <= max_bytes, f"the {what} is too large")
    return raw


def decoded(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise NotVerified("the checkpoint is not UTF-8") from error


def read_proof(path: Path | None) -> list[bytes]:
    if path is None:
        return []
    lines = read(path, MAX_NOTE_BYTES, "consistency proof").decode("ascii", "replace").split()
    return [hash_of(line, "a hash of the consistency proof") for line in lines]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Check a receipt of a partner-exchange gateway.", allow_abbrev=False)
    parser.add_argument("receipt", type=Path, metavar="RECEIPT")
    parser.add_argument("--log-key", required=True, metavar="VERIFIER-STRING", help="origin+hex+base64")
    parser.add_argument("--manifest-digest", metavar="HEX", help="SHA-256 of the manifest that was sent")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="a newer checkpoint of the same log")
    parser.add_argument("--consistency", type=Path, metavar="FILE", help="consistency proof to it, a hex hash a line")
    options = parser.parse_args(arguments)
    if options.consistency is not None and options.checkpoint is None:
        parser.error("--consistency needs --checkpoint")
    printer = Printer()
    try:
        verify(options, printer)
    except NotVerified as fault:
        print(f"{printer.step + 1} NOT VERIFIED: {fault}")
        return 4
    except OSError as error:
        parser.error(f"cannot read {error.filename}: {error.strerror}")
    print("verified")
    return 0


if __name__ == "__main__":
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without our signs must not turn "verified" into a crash
    sys.exit(main())
