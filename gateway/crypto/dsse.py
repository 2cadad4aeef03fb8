"""DSSE: a payload, its type, and who signed both (Dead Simple Signing Envelope 1.0.2).

What is signed is the pre-authentication encoding, never the JSON around it:

    >>> pae("http://example.com/HelloWorld", b"hello world")
    b'DSSEv1 29 http://example.com/HelloWorld 11 hello world'

The envelope is a JSON object with exactly `payload`, `payloadType` and `signatures`, each signature exactly `keyid` and
`sig`, base64 in the standard alphabet. A signer is a pair of keys, so every signer adds two signatures; more, fewer or
foreign ones are refused. There is no choice of algorithm in the envelope: the verifying key knows what it is.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.crypto import canonical
from gateway.crypto.keys import Signature, SigningKey, VerifyingKey, parse_base64
from gateway.errors import MalformedError, VerificationError
from gateway.model import require, text_member

MAX_DSSE_BYTES = 512 * 1024  # a manifest of 256 KiB in base64, two pairs of signatures, and room
MAX_SIGNATURES = 8  # four signers: an old and a new key set need two, two administrators need two
_DEPTH = 3  # object, list of signatures, signature


@dataclass(frozen=True, slots=True)
class UnverifiedDsse:
    """What an envelope claims before anyone has checked it."""

    payload_type: str
    unverified_payload: bytes
    signatures: tuple[Signature, ...]

    def verify(self, verifying_keys: Sequence[VerifyingKey], payload_type: str) -> bytes:
        """The payload, signed as `payload_type` by every one of `verifying_keys` and by nobody else."""
        if self.payload_type != payload_type:
            raise VerificationError("DSSE: signed as another payload type")
        expected = {key_id for key in verifying_keys for key_id in key.key_ids}
        # Distinct signers, and no signature beyond two of each: nobody is counted twice, nobody can slip in.
        if not len(self.signatures) == len(expected) == 2 * len(verifying_keys) > 0:
            raise VerificationError("DSSE: not exactly the two signatures of each signer")
        message = pae(self.payload_type, self.unverified_payload)
        for key in verifying_keys:
            key.verify(message, [s for s in self.signatures if s.key_id in key.key_ids])
        return self.unverified_payload

    def verify_by_one(self, verifying_keys: Sequence[VerifyingKey], payload_type: str) -> bytes:
        """The payload, signed as `payload_type` by exactly the two keys of one of `verifying_keys`.

        Which one is only chosen by the key ids that the envelope names; that it signed is then verified.
        """
        named = {signature.key_id for signature in self.signatures}
        for key in verifying_keys:
            if named == set(key.key_ids):
                return self.verify((key,), payload_type)
        raise VerificationError("DSSE: no signature of a key held for the signer")


def pae(payload_type: str, payload: bytes) -> bytes:
    """The bytes that are signed: type and payload, each with its length in bytes."""
    kind = payload_type.encode("utf-8")
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def sign(payload_type: str, payload: bytes, *signing_keys: SigningKey) -> bytes:
    """A DSSE envelope in canonical JSON, signed by every key given (at least one)."""
    message = pae(payload_type, payload)
    require(signing_keys, "DSSE: no signer")
    envelope = {
        "payload": _base64(payload),
        "payloadType": payload_type,
        "signatures": [
            {"keyid": signature.key_id, "sig": _base64(signature.value)}
            for key in signing_keys
            for signature in key.sign(message)
        ],
    }
    raw = canonical.encode(envelope)
    require(len(raw) <= MAX_DSSE_BYTES, "DSSE: payload too large to sign")
    return raw


def parse(raw: bytes) -> UnverifiedDsse:
    """The envelope, strictly read, nothing verified yet.

    Raises:
        MalformedError: other members, other base64, or too many signatures. TooLargeError: over 512 KiB.
    """
    value: object = canonical.parse_json(raw, max_bytes=MAX_DSSE_BYTES, max_depth=_DEPTH)
    if not isinstance(value, dict) or set(value) != {"payload", "payloadType", "signatures"}:
        raise MalformedError("DSSE: members are not payload, payloadType and signatures")
    entries = value["signatures"]
    if not isinstance(entries, list) or not 0 < len(entries) <= MAX_SIGNATURES:
        raise MalformedError("DSSE: signatures is not a list of a few")
    return UnverifiedDsse(
        text_member(value, "payloadType"),
        parse_base64(text_member(value, "payload")),
        tuple(_signature(entry) for entry in entries),
    )


def verify(raw: bytes, verifying_key: VerifyingKey, payload_type: str) -> bytes:
    """The payload of `raw`, signed as `payload_type` by exactly the two keys of `verifying_key`.

    Raises:
        MalformedError: not a DSSE envelope of ours.
        VerificationError: another type, other signers, or a signature that does not verify.
    """
    return parse(raw).verify((verifying_key,), payload_type)


def _signature(entry: object) -> Signature:
    if not isinstance(entry, dict) or set(entry) != {"keyid", "sig"}:
        raise MalformedError("DSSE: members of a signature are not keyid and sig")
    return Signature(text_member(entry, "keyid"), parse_base64(text_member(entry, "sig")))


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")
