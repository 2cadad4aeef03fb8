"""Certificates: an agency's signed word, for a court, that a real, identified child is behind some material.

A statement (canonical JSON) is signed as DSSE by the agency's Ed25519 and ML-DSA-65 keys, and its digest stands in an
event of the agency's log. The file that a court gets holds both, and a proof that the log holds the event:

    {"certificate_file":"certificate file 1","signed":"<DSSE>","event":"{…}","salt":"…","leaf_index":7,"tree_size":9,
     "proof":["…"],"checkpoint":"…","origin":"partner-exchange/XA-NCVI/log/1"}

A revocation has the same form around another statement. `scripts/verify_certificate.py` checks both with nothing but
files. No name of a person stands in any of it. Contract: contracts/certificate-1.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape

from gateway.audit import Event
from gateway.crypto import canonical, dsse
from gateway.crypto.keys import SigningKey
from gateway.model import VictimStatus, require
from gateway.statuses import ID, is_line

CERTIFICATE_TYPE = "application/vnd.partner-exchange.certificate+1"
REVOCATION_TYPE = "application/vnd.partner-exchange.certificate-revocation+1"
CERTIFICATE, REVOCATION = "certificate 1", "certificate revocation 1"
FILE = "certificate file 1"
MAX_DIGESTS = 2_000  # so that a statement stays below the 512 KiB of a DSSE envelope
MAX_FILE_BYTES = 1 << 20
SAYS = (
    "A real child is behind the material with these digests. The agency named here has identified the child. "
    "It asserts this status since the time given, and no name of a person is part of this statement."
)


@dataclass(frozen=True, slots=True)
class Certificate:
    """What is certified. `digests`: (algorithm, hexadecimal), sorted. Times are Unix seconds."""

    id: str
    agency: str
    assertion: str
    version: int
    status: VictimStatus
    since: int
    issued: int
    court_reference: str
    digests: tuple[tuple[str, str], ...]

    def dump(self) -> bytes:
        """The canonical bytes that are signed."""
        require(ID.fullmatch(self.id), "certificate: the id is not 32 hex digits")
        require(is_line(self.court_reference), "certificate: the court's reference is one line, and needed")
        require(0 < len(self.digests) <= MAX_DIGESTS, "certificate: it speaks of no digest, or of too many")
        return canonical.encode(
            {
                "certificate": CERTIFICATE,
                "id": self.id,
                "agency": self.agency,
                "assertion": self.assertion,
                "version": self.version,
                "status": str(self.status),
                "since": self.since,
                "issued": self.issued,
                "court_reference": self.court_reference,
                "digests": [list(pair) for pair in self.digests],
                "says": SAYS,
            }
        )


@dataclass(frozen=True, slots=True)
class Revocation:
    """That a certificate says the truth no more. `digest`: SHA-256 of the certificate's statement, in hex."""

    certificate: str
    digest: str
    agency: str
    revoked: int
    reason: str

    def dump(self) -> bytes:
        """The canonical bytes that are signed."""
        require(is_line(self.reason), "certificate: a revocation has a reason, on one line")
        return canonical.encode(
            {
                "revocation": REVOCATION,
                "certificate": self.certificate,
                "digest": self.digest,
                "agency": self.agency,
                "revoked": self.revoked,
                "reason": self.reason,
            }
        )


@dataclass(frozen=True, slots=True)
class Proof:
    """Where the log holds an event: the proof of its leaf, and the checkpoint over the tree."""

    origin: str
    leaf_index: int
    tree_size: int
    hashes: Sequence[bytes]
    checkpoint: bytes
    salt: bytes


def digest(statement: bytes) -> str:
    """The digest by which a statement is known in the log."""
    return hashlib.sha256(statement).hexdigest()


def sign(statement: bytes, payload_type: str, key: SigningKey) -> bytes:
    """The statement as a signed DSSE envelope."""
    return dsse.sign(payload_type, statement, key)


def bind(signed: bytes, event: Event, proof: Proof) -> bytes:
    """The file: a signed statement, the event that names its digest, and the proof that the log holds it."""
    raw = canonical.encode(
        {
            "certificate_file": FILE,
            "signed": signed.decode(),
            "event": event.encode().decode(),
            "salt": proof.salt.hex(),
            "leaf_index": proof.leaf_index,
            "tree_size": proof.tree_size,
            "proof": [one.hex() for one in proof.hashes],
            "checkpoint": proof.checkpoint.decode(),
            "origin": proof.origin,
        }
    )
    require(len(raw) <= MAX_FILE_BYTES, "certificate: too large")
    return raw


def statement_in(file: bytes) -> dict[str, object]:
    """What the statement in a file of ours says. Nothing is verified: this gateway wrote it."""
    value = canonical.parse_canonical(file, max_bytes=MAX_FILE_BYTES)
    assert isinstance(value, dict)
    signed = value["signed"]
    assert isinstance(signed, str)
    payload = dsse.parse(signed.encode()).unverified_payload
    statement = canonical.parse_canonical(payload, max_bytes=MAX_FILE_BYTES)
    assert isinstance(statement, dict)
    return dict(statement)


def digest_in(file: bytes) -> str:
    """The digest of the statement in a file of ours."""
    value = canonical.parse_canonical(file, max_bytes=MAX_FILE_BYTES)
    assert isinstance(value, dict)
    signed = value["signed"]
    assert isinstance(signed, str)
    return digest(dsse.parse(signed.encode()).unverified_payload)


# For a printer


def page(file: bytes, fingerprint: str) -> str:
    """A certificate as one printable HTML page, without script and without anything to fetch."""
    said = statement_in(file)
    digests = said["digests"]
    assert isinstance(digests, list)
    rows = "\n".join(
        f"<tr><td>{escape(str(one[0]))}</td><td><code>{escape(str(one[1]))}</code></td></tr>" for one in digests
    )
    facts = "\n".join(
        f"<tr><th>{name}</th><td>{escape(text)}</td></tr>"
        for name, text in (
            ("Agency", str(said["agency"])),
            ("Court's reference", str(said["court_reference"])),
            ("Status", str(said["status"])),
            ("Since", _when(said["since"])),
            ("Issued", _when(said["issued"])),
            ("Certificate", str(said["id"])),
            ("SHA-256 of the statement", digest_in(file)),
            ("Fingerprint of the agency's keys", fingerprint),
        )
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Certificate {escape(str(said["id"]))}</title>
<style>
body {{ font: 11pt/1.4 Georgia, serif; max-width: 45em; margin: 2em auto; color: #000; background: #fff; }}
h1 {{ font-size: 1.5em; }}
table {{ border-collapse: collapse; margin: 1em 0; }}
th, td {{ text-align: left; vertical-align: top; padding: .2em .8em .2em 0; border-bottom: 1px solid #999; }}
code {{ font: 9pt/1.3 monospace; word-break: break-all; }}
@media print {{ body {{ margin: 0; }} tr {{ break-inside: avoid; }} }}
</style>
</head>
<body>
<h1>Certificate that an identified child is behind material</h1>
<p>{escape(str(said["says"]))}</p>
<table>
{facts}
</table>
<h2>Digests</h2>
<table>
{rows}
</table>
<h2>How to check it</h2>
<p>This page is for reading. What counts is the signed file that goes with it:
<code>verify_certificate.py FILE --card CARD</code>, with the agency's identity card, whose fingerprint is compared by
another way than the one by which this page came. Ask the agency for a revocation, and give it to the program with
<code>--revocation</code>.</p>
</body>
</html>
"""


def _when(seconds: object) -> str:
    assert isinstance(seconds, int)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
