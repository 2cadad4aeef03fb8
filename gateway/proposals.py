"""What administrators sign: the statement of a proposal, and whose signatures on it verify.

A statement is canonical JSON, and the proposal's id is the SHA-256 of these bytes (contracts/approvals-1.md):

    {"act":"partner_remove","agency":"XA-NCVI","arguments":{"partner":"XB-NCVI",…},"by":"duty-officer",
     "created":1795000000,"expires":1795604800,"proposal":"proposal 1"}

`approvals` makes proposals and does their acts; `standing` proves from executed ones who is an administrator.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gateway.crypto import canonical, dsse
from gateway.crypto.keys import VerifyingKey
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


def stored(row: ProposalRow) -> Statement:
    """The statement of a row, if the row still is what its id says."""
    raw = row.statement.encode()
    if hashlib.sha256(raw).hexdigest() != row.id:
        raise VerificationError("a stored proposal was altered")
    return Statement.parse(raw)


def verified_signers(
    statement: bytes, signatures: Iterable[tuple[str, bytes]], keys: Mapping[str, VerifyingKey]
) -> dict[str, VerifyingKey]:
    """Those of `keys` whose signatures over exactly this statement verify, each person and each key once.

    Args:
        signatures: (administrator, DSSE envelope).
        keys: administrators by name.
    """
    signed: dict[str, VerifyingKey] = {}
    for name, signature in signatures:
        key = keys.get(name)
        if key is None or key in signed.values():
            continue
        try:
            payload = dsse.verify(signature, key, STATEMENT_TYPE)
        except (MalformedError, VerificationError):
            continue  # what does not verify was not signed
        if payload == statement:
            signed[name] = key
    return signed
