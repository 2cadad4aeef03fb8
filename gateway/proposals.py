"""What administrators sign: the statement of a proposal, and whose signatures on it verify.

A statement is canonical JSON, and the proposal's id is the SHA-256 of these bytes (contracts/approvals-1.md):

    {"act":"partner_remove","agency":"XA-NCVI","arguments":{"partner":"XB-NCVI",…},"by":"duty-officer",
     "created":1795000000,"expires":1795604800,"proposal":"proposal 1"}

`approvals` makes proposals and does their acts; `standing` proves from executed ones who is an administrator, and which
passkeys sign for whom.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gateway.crypto import canonical, dsse, passkeys
from gateway.crypto.keys import VerifyingKey
from gateway.crypto.passkeys import Passkey, RelyingParty, from_base64url, to_base64url
from gateway.errors import MalformedError, VerificationError
from gateway.model import int_member, require, text_member
from gateway.store.tables import ProposalRow

STATEMENT_TYPE = "application/vnd.partner-exchange.proposal+1"
VERSION = "proposal 1"
LIFETIME_SECONDS = 7 * 86_400  # long enough for a second person on another shift, short enough not to be forgotten
MAX_STATEMENT_BYTES = 128 << 10  # an identity card of at most 64 KiB, in JSON in JSON

Arguments = Mapping[str, object]
_MEMBERS = {"proposal", "act", "agency", "arguments", "by", "created", "expires"}


@dataclass(frozen=True, slots=True)
class Statement:
    """What is proposed, as signed. Times are Unix seconds."""

    act: str
    agency: str
    arguments: Arguments
    by: str
    created: int
    expires: int

    def dump(self) -> bytes:
        """The canonical bytes that are signed."""
        raw = canonical.encode(
            {
                "proposal": VERSION,
                "act": self.act,
                "agency": self.agency,
                "arguments": dict(self.arguments),
                "by": self.by,
                "created": self.created,
                "expires": self.expires,
            }
        )
        require(len(raw) <= MAX_STATEMENT_BYTES, "proposal: too large")
        return raw

    @classmethod
    def parse(cls, raw: bytes) -> Statement:
        """What `dump` wrote; MalformedError for anything else."""
        value = canonical.parse_canonical(raw, max_bytes=MAX_STATEMENT_BYTES)
        if not isinstance(value, dict) or set(value) != _MEMBERS or value["proposal"] != VERSION:
            raise MalformedError("proposal: members are not those of proposal 1")
        arguments = value["arguments"]
        if not isinstance(arguments, dict):
            raise MalformedError("proposal: arguments is not an object")
        members: dict[str, object] = dict(value)
        act, agency, by = (text_member(members, name) for name in ("act", "agency", "by"))
        created, expires = int_member(members, "created"), int_member(members, "expires")
        # Whoever writes the database could propose something that waits for a weak moment for years.
        require(0 < expires - created <= LIFETIME_SECONDS, "proposal: it would wait longer than a proposal may")
        return cls(act, agency, dict(arguments), by, created, expires)


@dataclass(frozen=True, slots=True)
class SigningPasskey:
    """A passkey by which an administrator signs statements, and the console at which it was made."""

    passkey: Passkey
    party: RelyingParty

    def to_json(self) -> dict[str, object]:
        """As it stands in the proposal that adds it."""
        return {
            "credential": to_base64url(self.passkey.credential),
            "key": to_base64url(self.passkey.key),
            "party": self.party.id,
            "origin": self.party.origin,
        }

    @classmethod
    def from_json(cls, value: object) -> SigningPasskey:
        """What `to_json` wrote; MalformedError for anything else."""
        if not isinstance(value, dict) or set(value) != {"credential", "key", "party", "origin"}:
            raise MalformedError("passkey: members are not those of the contract")
        members = dict(value)
        octets = [from_base64url(text_member(members, name)) for name in ("credential", "key")]
        party = RelyingParty(text_member(members, "party"), text_member(members, "origin"))
        return cls(Passkey(*octets), party)


def stored(row: ProposalRow) -> Statement:
    """The statement of a row, if the row still is what its id says."""
    raw = row.statement.encode()
    if hashlib.sha256(raw).hexdigest() != row.id:
        raise VerificationError("a stored proposal was altered")
    return Statement.parse(raw)


def verified_signers(
    statement: bytes,
    signatures: Iterable[tuple[str, bytes]],
    keys: Mapping[str, VerifyingKey],
    signing_passkeys: Mapping[str, Iterable[SigningPasskey]] | None = None,
) -> dict[str, VerifyingKey]:
    """Those of `keys` whose signatures over exactly this statement verify, each person and each key once.

    Args:
        signatures: (administrator, signature): a DSSE envelope, or a passkey signature 1.
        keys: administrators by name. Whoever signed by a passkey is told by this key as well.
        signing_passkeys: those that sign for them; where none are given, only keys count.
    """
    signed: dict[str, VerifyingKey] = {}
    for name, signature in signatures:
        key = keys.get(name)
        if key is None or key in signed.values():
            continue
        if verifies(statement, signature, key, (signing_passkeys or {}).get(name, ())):
            signed[name] = key
    return signed


def verifies(statement: bytes, signature: bytes, key: VerifyingKey, own: Iterable[SigningPasskey]) -> bool:
    """Whether a signature over exactly this statement is by this key, or by one of these passkeys."""
    try:
        return dsse.verify(signature, key, STATEMENT_TYPE) == statement
    except (MalformedError, VerificationError):
        return passkey_of(statement, signature, own) is not None


def passkey_of(statement: bytes, signature: bytes, own: Iterable[SigningPasskey]) -> SigningPasskey | None:
    """The one of these passkeys that signed exactly this statement, if any did."""
    try:
        assertion = passkeys.parse_signature(signature)
    except MalformedError:
        return None
    challenge = passkeys.challenge_of(STATEMENT_TYPE, statement)
    for one in own:
        try:
            passkeys.verify_assertion(one.party, challenge, assertion, one.passkey)
        except (MalformedError, VerificationError):
            continue  # what does not verify was not signed
        return one
    return None
