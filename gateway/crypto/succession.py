"""Succession: the old signing key vouches for the new one, and the new one agrees.

A statement in canonical JSON, in a DSSE envelope with exactly four signatures: the old pair and the new pair. The chain
is numbered; an agency's first key set is number 1, and a statement leads from `number - 1` to `number`:

    {"agency":"XA-NCVI","created":1760000000,"key":{"Ed25519":"…","ML-DSA-65":"…"},"number":2,
     "succeeds":"<key set id of number 1>","version":"succession 1"}

A receiver takes a succession only from the key it holds and only to the next number, so no statement can be replayed,
skipped or turned round. Overlap, revocation and who has seen what are decided above this floor.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.crypto import canonical, dsse
from gateway.crypto.keys import SigningKey, VerifyingKey
from gateway.errors import MalformedError, VerificationError
from gateway.model import AGENCY, int_member, require, text_member

VERSION = "succession 1"
PAYLOAD_TYPE = "application/vnd.partner-exchange.succession+json"
MAX_STATEMENT_BYTES = 8 * 1024  # two public keys are 2.7 KB in base64
_MEMBERS = {"version", "agency", "number", "succeeds", "key", "created"}


@dataclass(frozen=True, slots=True)
class Succession:
    """From `number` on, `key` signs for `agency`. `created`: Unix seconds, the signer's word, not evidence."""

    agency: str
    number: int
    succeeds: str
    key: VerifyingKey
    created: int


def sign_succession(agency: str, number: int, *, old: SigningKey, new: SigningKey, created: int) -> bytes:
    """The DSSE by which `old` (number - 1) hands over to `new` (number)."""
    statement = Succession(agency, number, old.public.key_set_id, new.public, created)
    _check(statement)
    return dsse.sign(PAYLOAD_TYPE, _dump(statement), old, new)


def verify_succession(raw: bytes, *, agency: str, held: VerifyingKey, held_number: int) -> Succession:
    """The succession that follows the key held for `agency`.

    Raises:
        MalformedError: not a succession statement.
        VerificationError: of another agency, from another key, not the next number, or not signed by both.
    """
    unverified = dsse.parse(raw)
    claimed = _parse(unverified.unverified_payload)
    if (claimed.agency, claimed.succeeds, claimed.number) != (agency, held.key_set_id, held_number + 1):
        raise VerificationError("succession: does not follow the key held for this agency")
    unverified.verify((held, claimed.key), PAYLOAD_TYPE)
    return claimed


def parse_unverified(raw: bytes) -> Succession:
    """What a statement claims before anyone has checked it."""
    return _parse(dsse.parse(raw).unverified_payload)


def _check(statement: Succession) -> None:
    require(AGENCY.fullmatch(statement.agency), "succession: agency is not an agency code")
    require(statement.number >= 2, "succession: number 1 succeeds nobody")
    require(statement.succeeds != statement.key.key_set_id, "succession: a key cannot succeed itself")


def _dump(statement: Succession) -> bytes:
    return canonical.encode(
        {
            "version": VERSION,
            "agency": statement.agency,
            "number": statement.number,
            "succeeds": statement.succeeds,
            "key": statement.key.to_json(),
            "created": statement.created,
        }
    )


def _parse(raw: bytes) -> Succession:
    value: object = canonical.parse_canonical(raw, max_bytes=MAX_STATEMENT_BYTES)
    if not isinstance(value, dict) or set(value) != _MEMBERS or value["version"] != VERSION:
        raise MalformedError("succession: members are not those of succession 1")
    statement = Succession(
        text_member(value, "agency"),
        int_member(value, "number"),
        text_member(value, "succeeds"),
        VerifyingKey.from_json(value["key"]),
        int_member(value, "created"),
    )
    _check(statement)
    return statement
