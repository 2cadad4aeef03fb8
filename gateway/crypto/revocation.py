"""Revocation: the holder of a signing key says that nothing it signed from a certain time on is its own.

A statement in canonical JSON, in a DSSE envelope with exactly the two signatures of one key: the revoked key itself,
which its true owner still holds, or a later key of the same agency, where the revoked one is destroyed already:

    {"agency":"XA-NCVI","created":1795000000,"key_set_id":"<of the revoked key>","number":2,"since":1794990000,
     "version":"revocation 1"}

A stolen key can revoke itself too: that stops the thief as well. What it can never do is name a successor, so after
the revocation of the key in use nothing but an enrolment by fingerprint begins anew (`keyring.py`).

`since` is the owner's word about when the key was lost: it says what must be looked at again. What counts from now on
is judged by the position of this statement in the receiver's own log.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.crypto import canonical, dsse
from gateway.crypto.keys import SigningKey, VerifyingKey
from gateway.errors import MalformedError, VerificationError
from gateway.model import AGENCY, int_member, require, text_member

VERSION = "revocation 1"
PAYLOAD_TYPE = "application/vnd.partner-exchange.revocation+json"
MAX_STATEMENT_BYTES = 1024
_MEMBERS = {"version", "agency", "key_set_id", "number", "since", "created"}


@dataclass(frozen=True, slots=True)
class Revocation:
    """Key `number` of `agency` is not to be believed; it was lost at `since`. Times are Unix seconds."""

    agency: str
    key_set_id: str
    number: int
    since: int
    created: int


def sign_revocation(statement: Revocation, signer: SigningKey) -> bytes:
    """The DSSE that hands the revocation out, by the revoked key itself or by a later one."""
    require(AGENCY.fullmatch(statement.agency), "revocation: agency is not an agency code")
    members = {
        "version": VERSION,
        "agency": statement.agency,
        "key_set_id": statement.key_set_id,
        "number": statement.number,
        "since": statement.since,
        "created": statement.created,
    }
    return dsse.sign(PAYLOAD_TYPE, canonical.encode(members), signer)


@dataclass(frozen=True, slots=True)
class HeldKey:
    """A key of an agency as its partner holds it. `speaks`: it may still sign statements."""

    number: int
    key: VerifyingKey
    speaks: bool


def verify_revocation(raw: bytes, *, agency: str, held: Sequence[HeldKey]) -> tuple[Revocation, bool]:
    """A revocation of one of the keys held for `agency`, and whether the revoked key itself said it.

    Raises:
        MalformedError: not a revocation.
        VerificationError: of another agency, of a key that is not held, or signed by an earlier key, a later one that
            does not speak any more, or a strange one.
    """
    unverified = dsse.parse(raw)
    claimed = _parse(unverified.unverified_payload)
    known = [one for one in held if (one.number, one.key.key_set_id) == (claimed.number, claimed.key_set_id)]
    if claimed.agency != agency or not known:
        raise VerificationError("revocation: of a key that is not held for this agency")
    # An earlier key never speaks about a later one: whoever stole it would shut its owner out.
    speaking = [one.key for one in held if one is known[0] or (one.speaks and one.number > claimed.number)]
    unverified.verify_by_one(speaking, PAYLOAD_TYPE)
    by_itself = {one.key_id for one in unverified.signatures} == set(known[0].key.key_ids)
    return claimed, by_itself


def parse_unverified(raw: bytes) -> Revocation:
    """What a statement claims before anyone has checked it."""
    return _parse(dsse.parse(raw).unverified_payload)


def _parse(raw: bytes) -> Revocation:
    value: object = canonical.parse_canonical(raw, max_bytes=MAX_STATEMENT_BYTES)
    if not isinstance(value, dict) or set(value) != _MEMBERS or value["version"] != VERSION:
        raise MalformedError("revocation: members are not those of revocation 1")
    return Revocation(
        text_member(value, "agency"),
        text_member(value, "key_set_id"),
        int_member(value, "number"),
        int_member(value, "since"),
        int_member(value, "created"),
    )
