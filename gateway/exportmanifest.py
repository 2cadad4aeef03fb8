"""What is said of a file that went out: to ourselves and the auditor everything, to its recipient what is in it.

The **manifest** says what was left out and why. Its first line is a DSSE over the head; each line after it is the
canonical JSON of one label, in the order of their numbers. The head holds how many lines there are, and their SHA-256:

    {"payload":"…","payloadType":"application/vnd.partner-exchange.export-manifest+json","signatures":[…]}
    {"attributes":{…},"entries":12,"groups":["cryptographic_digests","existence"],"label":"5f…","withheld":[…],…}

So a set with thousands of labels has a manifest too, though a DSSE is bounded. It is not for the recipient: it tells
what that may not see.

The **note** goes along with the file: a DSSE that says from whom and for whom it is, what it holds, and which duties
come with it.

Contract: contracts/export-manifest-1.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gateway.crypto import canonical, dsse
from gateway.crypto.keys import SigningKey, VerifyingKey
from gateway.errors import MalformedError, TooLargeError, VerificationError
from gateway.model import MAX_LABELS, int_member, require, text_member

VERSION = "export-manifest 1"
NOTE_VERSION = "export-note 1"
MANIFEST_TYPE = "application/vnd.partner-exchange.export-manifest+json"
NOTE_TYPE = "application/vnd.partner-exchange.export-note+json"
MAX_BYTES = 64 * 1024 * 1024  # 4,096 labels of 16 KiB: a label has some hundred octets
MAX_LINE_BYTES = 256 * 1024  # rule ids of one label
HEAD_MEMBERS = frozenset(
    {"version", "exporter", "recipient", "recipient_keys", "set", "epoch", "seq", "form", "category_scheme", "surface"}
    | {"policy", "created", "entries", "left_out", "withheld", "not_carried", "size", "sha256"}
    | {"labels", "labels_sha256"}
)
LABEL_MEMBERS = frozenset(
    {"label", "attributes", "entries", "written", "groups", "permits", "withheld", "obligations", "receipt"}
)
NOTE_MEMBERS = frozenset(
    {"version", "exporter", "recipient", "set", "form", "category_scheme", "sealed", "created", "entries"}
    | {"handling", "duties", "size", "sha256"}
)


@dataclass(frozen=True, slots=True)
class Verified:
    """A manifest or a note that its exporter signed. A note has no labels."""

    said: Mapping[str, object]
    labels: tuple[Mapping[str, object], ...]

    def check_file(self, *, size: int, sha256: str) -> None:
        """Returns when a file of this size and digest is the one that is spoken of."""
        if (self.said["size"], self.said["sha256"]) != (size, sha256):
            raise VerificationError("this is another file than the one that was signed for")


def dump_manifest(head: Mapping[str, object], labels: Sequence[Mapping[str, object]], key: SigningKey) -> bytes:
    """The signed manifest; `head` without its last two members, which come from the labels."""
    lines = b"".join(canonical.encode(dict(one)) + b"\n" for one in labels)
    digest = hashlib.sha256(lines).hexdigest()
    said = {"version": VERSION, **head, "labels": len(labels), "labels_sha256": digest}
    require(set(said) == HEAD_MEMBERS, "export manifest: members are not those of version 1")
    require(all(set(one) == LABEL_MEMBERS for one in labels), "export manifest: members of a label are not its own")
    return dsse.sign(MANIFEST_TYPE, canonical.encode(said), key) + b"\n" + lines


def dump_note(said: Mapping[str, object], key: SigningKey) -> bytes:
    """The signed note."""
    said = {"version": NOTE_VERSION, **said}
    require(set(said) == NOTE_MEMBERS, "export note: members are not those of version 1")
    return dsse.sign(NOTE_TYPE, canonical.encode(said), key) + b"\n"


def verify_manifest(raw: bytes, key: VerifyingKey) -> Verified:
    """A manifest as its exporter signed it.

    Raises:
        MalformedError: no manifest of version 1. TooLargeError: larger than one can be.
        VerificationError: signed by another key, or changed.
    """
    first, lines = _first_line(raw)
    said = _object(dsse.verify(first, key, MANIFEST_TYPE), HEAD_MEMBERS, VERSION)
    if hashlib.sha256(lines).hexdigest() != text_member(said, "labels_sha256"):
        raise VerificationError("export manifest: the labels are not those that were signed")
    each = lines.split(b"\n")[:-1]
    require(len(each) == int_member(said, "labels") <= MAX_LABELS, "export manifest: another number of labels")
    return Verified(said, tuple(_members(line, LABEL_MEMBERS) for line in each))


def verify_logged(raw: bytes, digest: str) -> Verified:
    """A manifest of our own, known by its SHA-256 in our log: whose key signs now does not matter.

    Raises:
        VerificationError: its SHA-256 is another one. MalformedError: no manifest of version 1.
    """
    if hashlib.sha256(raw).hexdigest() != digest:
        raise VerificationError("export manifest: not the one that the log names")
    first, lines = _first_line(raw)
    said = _object(dsse.parse(first).unverified_payload, HEAD_MEMBERS, VERSION)
    return Verified(said, tuple(_members(line, LABEL_MEMBERS) for line in lines.split(b"\n")[:-1]))


def verify_note(raw: bytes, key: VerifyingKey) -> Verified:
    """A note as its exporter signed it. Raises as `verify_manifest`."""
    first, rest = _first_line(raw)
    require(not rest, "export note: something follows it")
    return Verified(_object(dsse.verify(first, key, NOTE_TYPE), NOTE_MEMBERS, NOTE_VERSION), ())


def _first_line(raw: bytes) -> tuple[bytes, bytes]:
    if len(raw) > MAX_BYTES:
        raise TooLargeError("export manifest: larger than one can be")
    first, end, rest = raw.partition(b"\n")
    require(end, "export manifest: its first line has no end")
    return first, rest


def _object(raw: bytes, members: frozenset[str], version: str) -> dict[str, object]:
    said = _members(raw, members)
    require(said["version"] == version, f"not of version {version}")
    return said


def _members(raw: bytes, members: frozenset[str]) -> dict[str, object]:
    value = canonical.parse_canonical(raw, max_bytes=MAX_LINE_BYTES)
    if not isinstance(value, dict) or set(value) != members:
        raise MalformedError("export manifest: members are not those of version 1")
    return dict(value)
