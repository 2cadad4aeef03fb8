"""Signed tree heads: C2SP tlog-checkpoint inside C2SP signed-note, with v1 cosignatures of witnesses.

    xa-ncvi.example/log/1                                            origin: the log's name, also its key's name
    3                                                                tree size, decimal
    rra8/idLcKFPsGel5VeCZNsPqbUa9eC6FZFY8yngbnc=                     root, base64

    — xa-ncvi.example/log/1 <base64( key id(4) ‖ Ed25519 over the lines above )>
    — xb-ncvi.example/witness <base64( key id(4) ‖ time(8) ‖ Ed25519 over the cosigned message )>

    cosigned message = "cosignature/v1" 0x0A "time " decimal time 0x0A ‖ the lines above
    key id = SHA-256(name ‖ 0x0A ‖ kind ‖ public key)[:4]            kind 0x01 log, 0x04 cosigner
    verifier string = name+hex(key id)+base64(kind ‖ public key)     what a partner or auditor is given

Rules: one spelling of each note (canonical base64, no leading zeroes, exact newlines); signatures of unknown keys are
passed over, so cosignatures and a successor's signature can stand beside ours; a wrong signature of the key asked for
refuses the whole note. Extension lines may follow the root and are signed too; `gateway.audit` uses one.

Whether one checkpoint continues another is `merkle.verify_consistency`'s question. A cosigner must ask it, and keep
what it saw, before it calls `cosign`.

Standards: https://c2sp.org/signed-note, https://c2sp.org/tlog-checkpoint, https://c2sp.org/tlog-cosignature.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from enum import IntEnum
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from gateway.crypto.keys import (
    ED25519_PUBLIC_BYTES,
    ED25519_SIGNATURE_BYTES,
    SEED_BYTES,
    SYSTEM_RANDOM,
    Random,
    parse_base64,
)
from gateway.crypto.merkle import HASH_BYTES, MAX_TREE_SIZE, empty_root
from gateway.errors import MalformedError, TooLargeError, VerificationError

# sumdb's own limits: a hundred signatures are more than any log has witnesses, and one of ML-DSA-87 is 6 KiB of text.
MAX_SIGNATURES = 100
MAX_NOTE_BYTES = 1_000_000
MAX_NAME_CHARS = 256  # a schema-less URL; longer is a mistake
MAX_EXTENSION_LINES = 8  # we write one; a few more are another log's, hundreds are an attack
MAX_TIMESTAMP = 2**63 - 1  # C2SP tlog-cosignature
KEY_ID_BYTES = 4
COSIGNATURE_HEADER = "cosignature/v1"

_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}")
_LOG_NUMBER = re.compile(r".*/log/([1-9][0-9]{0,14})")  # of ours it rises by one with each restore
_KEY_ID = re.compile(r"[0-9a-f]{8}")


class KeyKind(IntEnum):
    """The signature types of C2SP signed-note that are used here."""

    LOG = 0x01
    COSIGNER = 0x04


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A name and a public key: all that is needed to check a signature line."""

    name: str
    kind: KeyKind
    public: bytes

    def __post_init__(self) -> None:
        _require_name(self.name)
        if len(self.public) != ED25519_PUBLIC_BYTES:
            raise MalformedError("verifier key: not an Ed25519 public key")

    @property
    def key_id(self) -> bytes:
        """The four bytes that begin this key's signatures."""
        return sha256(self.name.encode() + b"\n" + bytes([self.kind]) + self.public).digest()[:KEY_ID_BYTES]

    def __str__(self) -> str:
        encoded = base64.b64encode(bytes([self.kind]) + self.public).decode()
        return f"{self.name}+{self.key_id.hex()}+{encoded}"

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        """The key that `str()` wrote.

        Raises:
            MalformedError: not of the form name+id+base64, an unknown kind, or an id of another key.
        """
        parts = text.split("+", 2)
        if len(parts) != 3 or not _KEY_ID.fullmatch(parts[1]):
            raise MalformedError("verifier key: not of the form name+id+key")
        raw = parse_base64(parts[2])
        if not raw or raw[0] not in tuple(KeyKind):
            raise MalformedError("verifier key: of a kind that is not used here")
        key = cls(parts[0], KeyKind(raw[0]), raw[1:])
        if key.key_id.hex() != parts[1]:
            raise MalformedError("verifier key: its id belongs to another key")
        return key


@dataclass(frozen=True, slots=True)
class CheckpointKey:
    """A signing key of a log (its name is the log's origin) or of a cosigner. Never one key for both."""

    name: str
    private: Ed25519PrivateKey = field(repr=False)
    kind: KeyKind = KeyKind.LOG

    def __post_init__(self) -> None:
        _require_name(self.name)

    @classmethod
    def generate(cls, name: str, kind: KeyKind = KeyKind.LOG, *, random: Random = SYSTEM_RANDOM) -> CheckpointKey:
        """A new key."""
        return cls.from_seed(name, random.bytes(SEED_BYTES), kind)

    @classmethod
    def from_seed(cls, name: str, seed: bytes, kind: KeyKind = KeyKind.LOG) -> CheckpointKey:
        """The key whose `seed()` these 32 bytes are."""
        if len(seed) != SEED_BYTES:
            raise MalformedError("checkpoint key: the seed is not 32 bytes long")
        return cls(name, Ed25519PrivateKey.from_private_bytes(seed), kind)

    def seed(self) -> bytes:
        """The private key as 32 bytes, for the key store alone."""
        return self.private.private_bytes_raw()

    @property
    def verifier(self) -> VerifierKey:
        """The public half, to hand out."""
        return VerifierKey(self.name, self.kind, self.private.public_key().public_bytes_raw())


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A tree head whose signature has been verified (or that is about to be signed)."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.origin or len(self.origin) > MAX_NAME_CHARS or "\n" in self.origin:
            raise MalformedError("checkpoint: origin is empty, too long or more than one line")
        if self.origin == COSIGNATURE_HEADER:  # else a log's note could pass for a witness's signed message
            raise MalformedError("checkpoint: origin is a reserved word")
        if not 0 <= self.size <= MAX_TREE_SIZE:
            raise MalformedError("checkpoint: the tree size is out of range")
        if len(self.root) != HASH_BYTES:
            raise MalformedError("checkpoint: the root is not 32 bytes long")
        if self.size == 0 and self.root != empty_root():
            raise MalformedError("checkpoint: an empty tree has another root")
        if len(self.extensions) > MAX_EXTENSION_LINES or not all(self.extensions):
            raise MalformedError("checkpoint: an empty extension line, or too many")

    def text(self) -> str:
        """The note text: the lines that are signed."""
        root = base64.b64encode(self.root).decode()
        return "".join(f"{line}\n" for line in (self.origin, str(self.size), root, *self.extensions))


@dataclass(frozen=True, slots=True)
class Cosignature:
    """A witness's verified statement: at this time (Unix seconds) this was the largest tree it had seen."""

    checkpoint: Checkpoint
    witness: str
    at: int


def number_of_log(origin: str) -> int:
    """The N of an origin `host/log/N` (log 1, rule 7).

    Raises:
        MalformedError: the name of no log.
    """
    found = _LOG_NUMBER.fullmatch(origin)
    if found is None:
        raise MalformedError("log: its name does not end in /log/ and a number")
    return int(found[1])


def origin_of(note: bytes | str) -> str:
    """The origin that a signed note claims: its first line. Nothing is verified."""
    text = note if isinstance(note, str) else note.decode("utf-8", "replace")
    return text.partition("\n")[0]


def sign(origin: str, size: int, root: bytes, key: CheckpointKey, *, extensions: tuple[str, ...] = ()) -> bytes:
    """The signed note for this tree head.

    Raises:
        MalformedError: the key is not this log's, or a value cannot stand in a checkpoint.
    """
    if key.kind is not KeyKind.LOG or key.name != origin:  # C2SP tlog-checkpoint: the key name SHOULD match the origin
        raise MalformedError("checkpoint: the key is not the key of this log")
    text = Checkpoint(origin, size, root, extensions).text()
    _require_characters(text)
    line = _signature_line(key.verifier, key.private.sign(text.encode()))
    return f"{text}\n{line}".encode()


def verify_note(note: bytes, key: VerifierKey) -> str:
    """The text of a signed note, once the signature of this key on it is found right.

    Raises:
        MalformedError: the bytes are not a signed note.
        VerificationError: there is no signature of this key, or a wrong one.
    """
    text, signatures = _split(note)
    for raw in _signatures_of(key, signatures):
        if key.kind is KeyKind.COSIGNER:
            _verify_cosignature(raw, text, key)
        else:
            _verify_ed25519(raw, text.encode(), key)
    return text


def verify(note: bytes, key: VerifierKey, origin: str) -> Checkpoint:
    """The tree head in this note, signed by this log.

    Raises:
        MalformedError: the bytes are not a checkpoint.
        VerificationError: not signed by this key, or of another log.
    """
    if key.kind is not KeyKind.LOG:
        raise VerificationError("checkpoint: the key given is a cosigner's, not a log's")
    return _of_origin(_parse_text(verify_note(note, key)), origin)


def cosign(checkpoint: Checkpoint, key: CheckpointKey, at: int) -> bytes:
    """A witness's signature line over a checkpoint that it verified and found consistent; `at` in Unix seconds."""
    if key.kind is not KeyKind.COSIGNER:
        raise MalformedError("cosignature: the key is not a cosigner's")
    if not 0 < at <= MAX_TIMESTAMP:
        raise MalformedError("cosignature: the time is out of range")
    signature = key.private.sign(_cosigned_message(at, checkpoint.text()))
    return _signature_line(key.verifier, at.to_bytes(8, "big") + signature).encode()


def add_signature(note: bytes, line: bytes) -> bytes:
    """The note with one more signature line; a line that is there already is not repeated."""
    text, signatures = _split(note)
    if line in note.splitlines(keepends=True):
        return note
    together = note + line
    same_text, more = _split(together)
    if same_text != text or len(more) != len(signatures) + 1:  # an empty line would move where the text ends
        raise MalformedError("signed note: not exactly one signature line to add")
    return together


def verify_cosignature(note: bytes, key: VerifierKey, origin: str) -> Cosignature:
    """What a witness says of this checkpoint; of several lines of one witness, the latest.

    The log's own signature is not looked at: `verify` the note as well.

    Raises:
        MalformedError: the bytes are not a checkpoint.
        VerificationError: this witness did not sign it, or signed something else.
    """
    if key.kind is not KeyKind.COSIGNER:
        raise VerificationError("cosignature: the key given is a log's, not a cosigner's")
    text, signatures = _split(note)
    times = [_verify_cosignature(raw, text, key) for raw in _signatures_of(key, signatures)]
    return Cosignature(_of_origin(_parse_text(text), origin), key.name, max(times))


def _split(note: bytes) -> tuple[str, list[tuple[str, bytes]]]:
    """The text and the (key name, key id ‖ signature) of each signature line."""
    if len(note) > MAX_NOTE_BYTES:
        raise TooLargeError("signed note: too large")
    try:
        decoded = note.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedError("signed note: not UTF-8") from error
    _require_characters(decoded)
    text, blank, lines = decoded.rpartition("\n\n")  # C2SP signed-note: the last empty line separates
    if not blank or not lines.endswith("\n"):
        raise MalformedError("signed note: no signature lines")
    found = lines[:-1].split("\n")
    if len(found) > MAX_SIGNATURES:
        raise TooLargeError("signed note: too many signatures")
    return text + "\n", [_parse_signature_line(line) for line in found]


def _parse_signature_line(line: str) -> tuple[str, bytes]:
    parts = line.split(" ")
    if len(parts) != 3 or parts[0] != "—":
        raise MalformedError("signed note: a signature line is not of the form — name signature")
    _require_name(parts[1])
    raw = parse_base64(parts[2])
    if len(raw) <= KEY_ID_BYTES:
        raise MalformedError("signed note: a signature is too short")
    return parts[1], raw


def _parse_text(text: str) -> Checkpoint:
    lines = text[:-1].split("\n")
    if len(lines) < 3:
        raise MalformedError("checkpoint: fewer than three lines")
    if not _NUMBER.fullmatch(lines[1]):  # C2SP tlog-checkpoint: no leading zeroes
        raise MalformedError("checkpoint: the tree size is not a decimal number")
    return Checkpoint(lines[0], int(lines[1]), parse_base64(lines[2]), tuple(lines[3:]))


def _of_origin(checkpoint: Checkpoint, origin: str) -> Checkpoint:
    if checkpoint.origin != origin:
        raise VerificationError("checkpoint: of another log")
    return checkpoint


def _signatures_of(key: VerifierKey, signatures: list[tuple[str, bytes]]) -> list[bytes]:
    """What follows the key id in each line of this key; C2SP signed-note: others MUST be ignored."""
    mine = [raw[KEY_ID_BYTES:] for name, raw in signatures if name == key.name and raw[:KEY_ID_BYTES] == key.key_id]
    if not mine:
        raise VerificationError("signed note: no signature of the key asked for")
    return mine


def _verify_ed25519(signature: bytes, message: bytes, key: VerifierKey) -> None:
    try:
        Ed25519PublicKey.from_public_bytes(key.public).verify(signature, message)
    except (InvalidSignature, ValueError) as error:  # ValueError: the 32 bytes are no point of the curve
        raise VerificationError("signed note: the signature is wrong") from error


def _verify_cosignature(raw: bytes, text: str, key: VerifierKey) -> int:
    if len(raw) != 8 + ED25519_SIGNATURE_BYTES:
        raise VerificationError("cosignature: not a time and a signature")
    at = int.from_bytes(raw[:8], "big")
    if at > MAX_TIMESTAMP:  # C2SP tlog-cosignature: MUST NOT exceed 2^63 - 1
        raise VerificationError("cosignature: the time is out of range")
    _verify_ed25519(raw[8:], _cosigned_message(at, text), key)
    return at


def _cosigned_message(at: int, text: str) -> bytes:
    return f"{COSIGNATURE_HEADER}\ntime {at}\n{text}".encode()


def _signature_line(key: VerifierKey, signature: bytes) -> str:
    return f"— {key.name} {base64.b64encode(key.key_id + signature).decode()}\n"


def _require_name(name: str) -> None:
    # C2SP signed-note: non-empty, no Unicode spaces, no plus; control characters have no place in a note at all
    if not name or len(name) > MAX_NAME_CHARS or any(c.isspace() or c == "+" or c < " " for c in name):
        raise MalformedError("signed note: a key name is empty, too long, or holds a space or a plus")


def _require_characters(text: str) -> None:
    if any(c < " " and c != "\n" for c in text):
        raise MalformedError("signed note: a control character")
