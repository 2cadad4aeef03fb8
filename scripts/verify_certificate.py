#!/usr/bin/env python3
"""Check a certificate with nothing but this file, Python 3.11 and the `cryptography` package.

    verify_certificate.py CERTIFICATE --card CARD [--fingerprint WORDS] [--digest HEX]… [--revocation FILE]

CERTIFICATE    the file that the agency handed out (contracts/certificate-1.md).
--card         the agency's identity card (contracts/identity-card-2.md): its public keys, and the key of its log.
--fingerprint  the fingerprint of the card as the agency reads it out, spaces or none; without it, it is shown.
--digest       a digest of the material at hand, in hex: whether the certificate speaks of it. May be repeated.
--revocation   a revocation that the agency handed out: if it is one of this certificate, the certificate does not hold.

It is written apart from the gateway on purpose, so that a fault in one does not hide in the other. Each step prints one
line. Exit 0: everything holds. Exit 4: it does not, or it is revoked, and the last line says why. Exit 2: the command
line is wrong.
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
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PublicKey

MAX_FILE_BYTES = 1_048_576
MAX_CARD_BYTES = 65_536
MAX_NOTE_BYTES = 1_000_000
MAX_SIGNATURES = 100
MAX_INTEGER = 2**53 - 1
MAX_TREE_SIZE = 2**63 - 1
MAX_DEPTH = 32
LAST_SECOND = 253_402_300_799  # of the year 9999: what can be shown as a date
CARD_TYPE = "application/vnd.partner-exchange.identity-card+2"
CERTIFICATE_TYPE = "application/vnd.partner-exchange.certificate+1"
REVOCATION_TYPE = "application/vnd.partner-exchange.certificate-revocation+1"
FILE_MEMBERS = {
    *("certificate_file", "signed", "event", "salt", "leaf_index", "tree_size", "proof", "checkpoint", "origin"),
}
CERTIFICATE_MEMBERS = {
    *("certificate", "id", "agency", "assertion", "version", "status", "since", "issued"),
    *("court_reference", "digests", "says"),
}
REVOCATION_MEMBERS = {"revocation", "certificate", "digest", "agency", "revoked", "reason"}
EVENT_MEMBERS = {"kind", "at", "actor", "subject", "details"}
FOUND = ("identified", "safeguarded", "closed")
DIGEST_CHARS = {"md5": 32, "sha1": 40, "sha256": 64, "sha512": 128}
HEX32 = re.compile(r"[0-9a-f]{64}")
SIZE = re.compile(r"0|[1-9][0-9]{0,18}")
ID = re.compile(r"[0-9a-f]{32}")
AGENCY = re.compile(r"[A-Z]{2}-[A-Z0-9]{2,16}")
DOES_NOT_PROVE = (
    "What this does not prove: who the child is; that the files at hand have these digests (hash them yourself); that",
    "the card is the agency's (compare the fingerprint by another way); that no revocation exists (ask the agency).",
)


class NotVerified(Exception):  # noqa: N818 - it is an answer, not an error of this program
    """It does not hold; the text says why."""


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


# Canonical JSON (RFC 8785, without floats): everything here has one spelling.


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


# Identity cards and signed statements (DSSE 1.0.2).


class Card(NamedTuple):
    """What an identity card says: the agency, its signing keys by key id, the key of its log, the fingerprint."""

    agency: str
    ed25519: tuple[str, Ed25519PublicKey]
    mldsa65: tuple[str, MLDSA65PublicKey]
    log: str
    fingerprint: str


def key_id(algorithm: str, public: bytes) -> str:
    parts = (algorithm.encode(), public)
    return hashlib.sha256(b"".join(len(part).to_bytes(4, "big") + part for part in parts)).hexdigest()


def parse_dsse(raw: bytes, what: str) -> tuple[str, bytes, dict[str, bytes]]:
    """Payload type, payload, signatures by key id; nothing is verified."""
    value = parse_canonical(raw, what)
    signatures = value.get("signatures")
    require(set(value) == {"payload", "payloadType", "signatures"}, f"the {what} is no signed envelope")
    if not isinstance(signatures, list) or len(signatures) != 2:
        fail(f"the {what} does not have exactly two signatures")
    found = {}
    for one in signatures:
        if not isinstance(one, dict) or set(one) != {"keyid", "sig"}:
            fail(f"a signature of the {what} has another form")
        found[text(one, "keyid")] = parse_base64(text(one, "sig"), f"a signature of the {what}")
    return text(value, "payloadType"), parse_base64(text(value, "payload"), f"the payload of the {what}"), found


def verify_dsse(raw: bytes, card: Card, payload_type: str, what: str) -> bytes:
    """The payload, once both keys of the card, and nobody else, have signed it as this type."""
    kind, payload, signatures = parse_dsse(raw, what)
    require(kind == payload_type, f"the {what} is signed as another kind of statement")
    require(
        set(signatures) == {card.ed25519[0], card.mldsa65[0]}, f"the {what} is signed by other keys than the card's"
    )
    message = b"DSSEv1 %d %b %d %b" % (len(kind), kind.encode(), len(payload), payload)
    for name, public in (card.ed25519, card.mldsa65):
        try:
            public.verify(signatures[name], message)
        except (InvalidSignature, ValueError) as error:
            raise NotVerified(f"a signature of the {what} is wrong") from error
    return payload


def parse_card(raw: bytes) -> Card:
    """The card, once it is signed by the keys that it names."""
    kind, payload, _ = parse_dsse(raw, "identity card")
    require(kind == CARD_TYPE, "the card is not an identity card of version 2")
    said = parse_canonical(payload, "identity card")
    require(said.get("identity_card") == "identity-card 2", "the card is of a version that is not known here")
    signing = said.get("signing")
    if not isinstance(signing, dict) or set(signing) != {"Ed25519", "ML-DSA-65"}:
        fail("the card does not name both signing keys")
    first = parse_base64(text(signing, "Ed25519"), "the Ed25519 key of the card")
    second = parse_base64(text(signing, "ML-DSA-65"), "the ML-DSA-65 key of the card")
    try:
        keys = Ed25519PublicKey.from_public_bytes(first), MLDSA65PublicKey.from_public_bytes(second)
    except ValueError as error:
        raise NotVerified("the card's signing keys are no keys") from error
    agency, log = text(said, "agency"), text(said, "log")
    require(AGENCY.fullmatch(agency), "the card names no agency")
    require(
        parse_log_key(log).name.startswith(f"partner-exchange/{agency}/log/"), "the card names another agency's log"
    )
    lasting = {"agency": agency, "signing": signing, "log": log, "witness": text(said, "witness")}
    spelled = hashlib.sha256(b"identity-card 2\n" + canonical(lasting).encode()).hexdigest()[:40]
    card = Card(
        agency,
        (key_id("Ed25519", first), keys[0]),
        (key_id("ML-DSA-65", second), keys[1]),
        log,
        " ".join(spelled[at : at + 4] for at in range(0, 40, 4)),
    )
    verify_dsse(raw, card, CARD_TYPE, "identity card")
    return card


# The steps.


def printable(words: str) -> str:
    """Fit for a terminal: what a partner wrote must not move the cursor or turn the line around."""
    return "".join(c if c.isprintable() else "?" for c in words)


def when(value: dict[str, object], name: str) -> str:
    seconds = number(value, name)
    require(seconds <= LAST_SECOND, f"{name} is out of range")
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


class Printer:
    """Numbers the steps."""

    def __init__(self) -> None:
        self.step = 0

    def ok(self, what: str) -> None:
        self.step += 1
        print(f"{self.step} {what} … ok")


class Bound(NamedTuple):
    """A signed statement whose digest the agency's log holds."""

    statement: dict[str, object]
    digest: str
    log: str
    leaf_index: int
    logged: str


def verify_bound(raw: bytes, card: Card, payload_type: str, kind: str, what: str) -> Bound:
    """The statement of a file, once it is signed by the agency and an event of its log names its digest."""
    file = parse_canonical(raw, what)
    require(set(file) == FILE_MEMBERS, f"the {what} has not the members of the contract")
    require(file["certificate_file"] == "certificate file 1", f"the {what} is of a version that is not known here")
    payload = verify_dsse(text(file, "signed").encode(), card, payload_type, what)
    # A gateway that was restored signs in a later log of its own; the card names the newest.
    key, origin = parse_log_key(card.log), text(file, "origin")
    require(origin == key.name, f"the {what} stands in another log than the card names; ask for the card of its time")
    head = verify_checkpoint(text(file, "checkpoint"), key)
    require(head.size == number(file, "tree_size"), "the checkpoint is of a tree of another size")
    event_bytes = text(file, "event").encode()
    entry = b"\x01" + hashlib.sha256(b"event 1\n" + hash_of(file["salt"], "salt") + event_bytes).digest()
    proof = file["proof"]
    if not isinstance(proof, list):
        fail("proof is not a list")
    index = number(file, "leaf_index")
    leaf = hashlib.sha256(b"\x00" + entry).digest()
    verify_inclusion(leaf, index, head, [hash_of(value, "a hash of the proof") for value in proof])
    event = parse_canonical(event_bytes, "event")
    details = event.get("details")
    if set(event) != EVENT_MEMBERS or not isinstance(details, dict):
        fail("the event has not the members of the contract")
    digest = hashlib.sha256(payload).hexdigest()
    require(event["kind"] == kind, "the log's event is of another kind")
    require(details.get("digest") == digest, "the log's event is of another statement")
    return Bound(parse_canonical(payload, what), digest, origin, index, when(event, "at"))


def verify_certificate(said: dict[str, object], card: Card) -> dict[str, str]:
    """Its digests with their algorithms, once it has the form of the contract and is this agency's."""
    require(set(said) == CERTIFICATE_MEMBERS, "the certificate has not the members of the contract")
    require(said["certificate"] == "certificate 1", "the certificate is of a version that is not known here")
    require(said["agency"] == card.agency, "the certificate is another agency's than the card's")
    require(ID.fullmatch(text(said, "id")) and ID.fullmatch(text(said, "assertion")), "an id is not 32 hex digits")
    require(said["status"] in FOUND, "the certificate does not say that the child is identified")
    require(number(said, "version") > 0, "the version is not a positive number")
    reference = text(said, "court_reference")
    require(0 < len(reference) <= 256, "the court's reference is empty or too long")
    require(number(said, "since") <= number(said, "issued"), "it was issued before the child was identified")
    digests = said["digests"]
    if not isinstance(digests, list) or not digests:
        fail("the certificate speaks of no digest")
    found = {}
    for one in digests:
        if not isinstance(one, list) or len(one) != 2 or not all(isinstance(word, str) for word in one):
            fail("a digest is not a pair of algorithm and value")
        name, value = one
        good = re.fullmatch(r"[0-9a-f]+", value) and len(value) == DIGEST_CHARS.get(name)
        require(good, "a digest is not of a known algorithm and its length")
        found[value] = name
    require(digests == sorted(digests), "the digests are not in order")
    return found


def verify_not_revoked(raw: bytes, certificate: Bound, card: Card) -> None:
    """Returns when a revocation is a good one of another certificate."""
    bound = verify_bound(raw, card, REVOCATION_TYPE, "certificate_revoked", "revocation")
    said = bound.statement
    require(set(said) == REVOCATION_MEMBERS, "the revocation has not the members of the contract")
    require(said["revocation"] == "certificate revocation 1", "the revocation is of a version that is not known here")
    require(said["agency"] == card.agency, "the revocation is another agency's than the card's")
    same = said["certificate"] == certificate.statement["id"]
    require(same == (said["digest"] == certificate.digest), "the revocation names this certificate by half")
    if same:
        fail(f"REVOKED on {when(said, 'revoked')}: {printable(text(said, 'reason'))}")


def verify(options: argparse.Namespace, printer: Printer) -> None:
    card = parse_card(read(options.card, MAX_CARD_BYTES, "identity card"))
    printer.ok(f"the identity card is signed by the keys that it names; it says {card.agency}")
    if options.fingerprint is None:
        print(f"  fingerprint not compared; the card's is {card.fingerprint}")
    else:
        spoken = "".join(options.fingerprint.split()).lower()
        require(spoken == card.fingerprint.replace(" ", ""), "the card has another fingerprint than the one given")
        printer.ok("the card has the fingerprint given")

    raw = read(options.certificate, MAX_FILE_BYTES, "certificate")
    bound = verify_bound(raw, card, CERTIFICATE_TYPE, "certificate_issued", "certificate")
    printer.ok(f"{card.agency} signed the certificate with both keys, Ed25519 and ML-DSA-65")
    printer.ok(f"the log {bound.log} holds it as entry {bound.leaf_index} since {bound.logged}")

    said = bound.statement
    digests = verify_certificate(said, card)
    printer.ok(
        f"it says, for {printable(text(said, 'court_reference'))}: a real child, {said['status']} since "
        f"{when(said, 'since')}, is behind the material with {len(digests)} digests"
    )
    for asked in options.digest:
        require(asked.strip().lower() in digests, "it does not speak of a digest given")
        printer.ok(f"it speaks of the {digests[asked.strip().lower()]} digest given")
    if not options.digest:
        print("  no digest compared; give those of the files at hand with --digest")

    if options.revocation is not None:
        verify_not_revoked(read(options.revocation, MAX_FILE_BYTES, "revocation"), bound, card)
        printer.ok("the revocation given is of another certificate")
    else:
        print("  no revocation given; ask the agency whether there is one")


def read(path: Path, max_bytes: int, what: str) -> bytes:
    with path.open("rb") as file:
        raw = file.read(max_bytes + 1)
    require(len(raw) <= max_bytes, f"the {what} is too large")
    return raw


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Check a certificate of an agency.", allow_abbrev=False)
    parser.add_argument("certificate", type=Path, metavar="CERTIFICATE")
    parser.add_argument("--card", type=Path, required=True, metavar="CARD", help="the agency's identity card")
    parser.add_argument("--fingerprint", metavar="WORDS", help="the card's fingerprint, as the agency reads it out")
    parser.add_argument("--digest", action="append", default=[], metavar="HEX", help="a digest of the material at hand")
    parser.add_argument("--revocation", type=Path, metavar="FILE", help="a revocation that the agency handed out")
    options = parser.parse_args(arguments)
    printer = Printer()
    try:
        verify(options, printer)
    except OSError as error:
        parser.error(f"a file cannot be read: {error.strerror}")
    except NotVerified as error:
        print(f"{printer.step + 1} NOT VERIFIED: {error}")
        return 4
    print("verified")
    print("\n".join(DOES_NOT_PROVE))
    return 0


if __name__ == "__main__":
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without our signs must not turn "verified" into a crash
    sys.exit(main())
