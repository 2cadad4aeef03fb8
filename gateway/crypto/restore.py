"""Restore statement: an agency says that its gateway lives on from a backup, in a new log and new epochs.

A statement in canonical JSON, in a DSSE envelope with exactly the two signatures of the agency's signing key:

    {"administrators":[{"keys":{"Ed25519":"…","ML-DSA-65":"…"},"signatures":[{"keyid":"…","sig":"…"},{…}]},…],
     "agency":"XA-NCVI","checkpoint":"<of the new log, one leaf>","created":1795000000,"event":"<of that leaf>",
     "proposal":"<what the administrators signed>","salt":"<of that leaf>","version":"restore 1"}

It brings the whole proof along. Administrators have signed the proposal, each with both keys of a pair of their own;
the leaf names the proposal; the new log's first checkpoint holds nothing but that leaf. What the proposal says, and
whether it continues the log that the receiver has enrolled, is read above this floor (`gateway.restoring`).
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.crypto import canonical, dsse
from gateway.crypto.keys import Signature, SigningKey, VerifyingKey, parse_base64
from gateway.errors import MalformedError, VerificationError
from gateway.model import AGENCY, int_member, require, text_member

VERSION = "restore 1"
PAYLOAD_TYPE = "application/vnd.partner-exchange.restore+json"
MAX_STATEMENT_BYTES = 352 * 1024  # a proposal of 128 KiB in JSON, sixteen administrators, and a leaf; a DSSE has 512
MAX_ADMINISTRATORS = 16  # a quorum is nine at most
_MEMBERS = {"version", "agency", "created", "proposal", "administrators", "event", "salt", "checkpoint"}


@dataclass(frozen=True, slots=True)
class Signed:
    """One administrator's public pair, and the two signatures over the proposal."""

    key: VerifyingKey
    signatures: tuple[Signature, ...]


@dataclass(frozen=True, slots=True)
class Restore:
    """What the statement says. `created`: Unix seconds, the signer's word, not evidence."""

    agency: str
    proposal: bytes
    administrators: tuple[Signed, ...]
    event: bytes
    salt: bytes
    checkpoint: bytes
    created: int


def sign_restore(statement: Restore, signer: SigningKey) -> bytes:
    """The DSSE by which the agency hands the statement out."""
    members = {
        "version": VERSION,
        "agency": statement.agency,
        "created": statement.created,
        "proposal": statement.proposal.decode(),
        "administrators": [
            {
                "keys": one.key.to_json(),
                "signatures": [
                    {"keyid": signature.key_id, "sig": base64.b64encode(signature.value).decode("ascii")}
                    for signature in one.signatures
                ],
            }
            for one in statement.administrators
        ],
        "event": statement.event.decode(),
        "salt": statement.salt.hex(),
        "checkpoint": statement.checkpoint.decode(),
    }
    return dsse.sign(PAYLOAD_TYPE, canonical.encode(members), signer)


def verify_restore(raw: bytes, *, agency: str, keys: Sequence[VerifyingKey], signed_as: str, least: int) -> Restore:
    """A restore statement of `agency`, signed by one of `keys`, whose proposal enough administrators have signed.

    Args:
        signed_as: the payload type under which administrators sign proposals.
        least: how many different administrators there must be.

    Raises:
        MalformedError: not a restore statement.
        VerificationError: of another agency, signed by another key, a signature that does not verify, one administrator
            counted twice, or too few.
    """
    unverified = dsse.parse(raw)
    unverified.verify_by_one(keys, PAYLOAD_TYPE)
    statement = _parse(unverified.unverified_payload)
    if statement.agency != agency:
        raise VerificationError("restore: of another agency")
    message = dsse.pae(signed_as, statement.proposal)
    for one in statement.administrators:
        one.key.verify(message, one.signatures)
    # Each half by itself: two pairs that share a key are one person's.
    halves = {key_id for one in statement.administrators for key_id in one.key.key_ids}
    if len(halves) != 2 * len(statement.administrators):
        raise VerificationError("restore: one administrator stands twice")
    if len(statement.administrators) < least:
        raise VerificationError(f"restore: signed by fewer than {least} administrators")
    return statement


def parse_unverified(raw: bytes) -> Restore:
    """What a statement claims before anyone has checked it."""
    return _parse(dsse.parse(raw).unverified_payload)


def _parse(raw: bytes) -> Restore:
    value: object = canonical.parse_canonical(raw, max_bytes=MAX_STATEMENT_BYTES)
    if not isinstance(value, dict) or set(value) != _MEMBERS or value["version"] != VERSION:
        raise MalformedError("restore: members are not those of restore 1")
    people = value["administrators"]
    if not isinstance(people, list) or not 0 < len(people) <= MAX_ADMINISTRATORS:
        raise MalformedError("restore: administrators is not a list of a few")
    agency = text_member(value, "agency")
    require(AGENCY.fullmatch(agency), "restore: agency is not an agency code")
    try:
        salt = bytes.fromhex(text_member(value, "salt"))
    except ValueError as error:
        raise MalformedError("restore: salt is not hex") from error
    texts = (text_member(value, name).encode() for name in ("proposal", "event", "checkpoint"))
    proposal, event, checkpoint = texts
    signed = tuple(_signed(one) for one in people)
    return Restore(agency, proposal, signed, event, salt, checkpoint, int_member(value, "created"))


def _signed(value: object) -> Signed:
    if not isinstance(value, dict) or set(value) != {"keys", "signatures"}:
        raise MalformedError("restore: members of an administrator are not keys and signatures")
    signatures = value["signatures"]
    if not isinstance(signatures, list) or len(signatures) != 2:
        raise MalformedError("restore: an administrator without exactly two signatures")
    return Signed(VerifyingKey.from_json(value["keys"]), tuple(_signature(one) for one in signatures))


def _signature(value: object) -> Signature:
    if not isinstance(value, dict) or set(value) != {"keyid", "sig"}:
        raise MalformedError("restore: members of a signature are not keyid and sig")
    return Signature(text_member(value, "keyid"), parse_base64(text_member(value, "sig")))
