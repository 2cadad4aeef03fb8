"""Four eyes: what one person must not do alone is proposed, signed by a quorum of administrators, and then done.

A proposal is a statement in canonical JSON, and its id is the SHA-256 of these bytes:

    {"act":"partner_remove","agency":"XA-NCVI","arguments":{"partner":"XB-NCVI"},"by":"duty-officer",
     "created":1795000000,"expires":1795604800,"proposal":"proposal 1"}

Rules:

1. An administrator signs the statement itself (DSSE, both algorithms) with a key under a passphrase of their own. The
   statement names the agency, so a signature given here says nothing anywhere else.
2. Signatures are verified again, against the administrators of this moment, whenever they are counted: what somebody
   wrote into the database counts for nothing.
3. An administrator signs a proposal once. A proposal that has expired, or was done, takes no signature.
4. The signature that completes the quorum, the act, and the log entries of both commit together. If the act cannot be
   done any more, that signature is not kept either.
5. Every try leaves a log entry: made, signed, executed, refused.

This module knows no acts: `keyadmin.ACTS` says what can be proposed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gateway.audit import EventKind
from gateway.crypto import canonical, dsse
from gateway.crypto.keys import VerifyingKey
from gateway.errors import (
    ConflictError,
    DeniedError,
    GatewayError,
    MalformedError,
    OverloadedError,
    VerificationError,
)
from gateway.keystore import PersonalKey
from gateway.model import int_member, require, text_member
from gateway.node import Node
from gateway.store import Transaction
from gateway.store.tables import AdministratorRow, ApprovalRow, ProposalRow

STATEMENT_TYPE = "application/vnd.partner-exchange.proposal+1"
VERSION = "proposal 1"
LIFETIME_SECONDS = 7 * 86_400  # long enough for a second person on another shift, short enough not to be forgotten
MAX_STATEMENT_BYTES = 128 << 10  # an identity card of at most 64 KiB, in JSON in JSON
MAX_ADMINISTRATOR_BYTES = 8 << 10  # two public keys are 2.7 KB in base64
OPEN, DONE, EXPIRED = "open", "done", "expired"

Arguments = Mapping[str, object]
_MEMBERS = {"proposal", "act", "agency", "arguments", "by", "created", "expires"}


@dataclass(frozen=True, slots=True)
class Act:
    """One kind of guarded act.

    `subject` says what would change ("XB-NCVI"), and raises MalformedError for arguments that the act cannot take.
    `run` does it, within the transaction given; the last argument is the proposal's id, for the log.
    """

    sentence: str
    subject: Callable[[Arguments], str]
    run: Callable[[Transaction, Node, Arguments, str], None]


@dataclass(frozen=True, slots=True)
class Proposal:
    """A proposal as it stands: `signers` are those whose signatures verify now. Times are Unix seconds."""

    id: str
    act: str
    subject: str
    sentence: str
    by: str
    created: int
    expires: int
    state: str
    signers: tuple[str, ...]
    quorum: int
    arguments: Arguments


@dataclass(frozen=True, slots=True)
class _Statement:
    """What is proposed, as signed."""

    act: str
    agency: str
    arguments: Arguments
    by: str
    created: int
    expires: int

    def dump(self) -> bytes:
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
    def parse(cls, raw: bytes) -> _Statement:
        value = canonical.parse_canonical(raw, max_bytes=MAX_STATEMENT_BYTES)
        if not isinstance(value, dict) or set(value) != _MEMBERS or value["proposal"] != VERSION:
            raise MalformedError("proposal: members are not those of proposal 1")
        arguments = value["arguments"]
        if not isinstance(arguments, dict):
            raise MalformedError("proposal: arguments is not an object")
        members: dict[str, object] = dict(value)
        act, agency, by = (text_member(members, name) for name in ("act", "agency", "by"))
        return cls(act, agency, dict(arguments), by, int_member(members, "created"), int_member(members, "expires"))


class Approvals:
    """The proposals of one gateway.

    Args:
        acts: what can be proposed, by name.
    """

    def __init__(self, node: Node, acts: Mapping[str, Act]) -> None:
        self._node = node
        self._acts = acts

    def propose(self, act: str, arguments: Arguments, *, by: str) -> str:
        """Put an act before the administrators; returns the proposal's id. It needs no key: nothing happens yet.

        Raises:
            MalformedError: an unknown act, or arguments that it cannot take.
            DeniedError: `by` is no administrator, or there are fewer administrators than the quorum.
            ConflictError: the same act waits for signatures already.
        """
        now = self._node.clock()
        statement = _Statement(act, self._node.agency, arguments, by, now, now + LIFETIME_SECONDS)
        raw = statement.dump()
        identifier = hashlib.sha256(raw).hexdigest()
        subject = self._act(act).subject(arguments)
        try:
            with self._node.store.transaction() as tx:
                self._check_proposer(tx, by)
                self._check_new(tx, statement)
                row = ProposalRow(
                    id=identifier, act=act, statement=raw.decode(), state=OPEN, created=now, expires=statement.expires
                )
                tx.people.add_proposal(row)
                details = {**self._named(identifier, statement), "expires": statement.expires}
                self._log(tx, EventKind.PROPOSAL_MADE, by, subject, details)
        except (DeniedError, ConflictError) as error:
            self._log_refusal(by, self._named(identifier, statement), error)
            raise
        return identifier

    def sign(self, identifier: str, key: PersonalKey) -> Proposal:
        """Add an administrator's signature; with the one that completes the quorum, the act is done.

        Args:
            identifier: the proposal's id, or its beginning.

        Raises:
            NotFoundError: no such proposal.
            DeniedError: the key is no administrator's here, or has signed already.
            ConflictError: the proposal is done or has expired, or its act cannot be done any more.
        """
        details: dict[str, object] = {"key_id": key.signing_key.public.key_set_id}
        try:
            with self._node.store.transaction() as tx:
                row = tx.people.proposal(identifier)
                statement = _stored(row)
                details |= self._named(row.id, statement)
                self._check_may_sign(tx, row, statement, key)
                signature = dsse.sign(STATEMENT_TYPE, row.statement.encode(), key.signing_key)
                approval = ApprovalRow(
                    proposal=row.id, administrator=key.name, signature=signature, at=self._node.clock()
                )
                tx.people.add_approval(approval)
                signed = self._signers(tx, row)
                counted = {"signatures": len(signed), "quorum": self._node.settings.quorum}
                self._log(tx, EventKind.PROPOSAL_SIGNED, key.name, row.id, {**details, **counted})
                if len(signed) >= self._node.settings.quorum:
                    self._execute(tx, row, statement, signed, by=key.name)
        except OverloadedError:
            raise  # nothing was decided: the same try may succeed in a moment
        except GatewayError as error:
            self._log_refusal(key.name, details, error)
            raise
        return self.get(row.id)

    def get(self, identifier: str) -> Proposal:
        """One proposal, by its id or its beginning."""
        with self._node.store.reading() as tx:
            return self._describe(tx, tx.people.proposal(identifier))

    def all(self, *, only_open: bool = False) -> list[Proposal]:
        """Every proposal, newest first."""
        with self._node.store.reading() as tx:
            found = [self._describe(tx, row) for row in tx.people.proposals(state=OPEN if only_open else None)]
        return [one for one in found if one.state == OPEN or not only_open]

    # Checks

    def _act(self, name: str) -> Act:
        act = self._acts.get(name)
        if act is None:
            raise MalformedError("no such guarded act", remedy=f"known: {', '.join(sorted(self._acts))}")
        return act

    def _check_proposer(self, tx: Transaction, by: str) -> None:
        names = [row.name for row in tx.people.administrators()]
        if len(names) < self._node.settings.quorum:
            raise DeniedError(
                f"a guarded act needs {self._node.settings.quorum} administrators, and there are {len(names)}",
                remedy="add them with `gateway admin add NAME`",
            )
        if by not in names:
            raise DeniedError("only an administrator proposes", remedy="`gateway admin list` names them")

    def _check_new(self, tx: Transaction, statement: _Statement) -> None:
        """The same act is proposed once at a time, so that its signatures come together."""
        for row in tx.people.proposals(state=OPEN):
            known = _stored(row)
            same = known.act == statement.act and known.arguments == dict(statement.arguments)
            if same and row.expires > statement.created:
                raise ConflictError(
                    "the same act waits for signatures already",
                    remedy=f"sign it: `gateway approval sign {row.id[:12]} --admin NAME`",
                )

    def _check_may_sign(self, tx: Transaction, row: ProposalRow, statement: _Statement, key: PersonalKey) -> None:
        known = _keys(tx.people.administrators()).get(key.name)
        if known is None or known != key.signing_key.public:
            raise DeniedError("this key is not an administrator's of this gateway", remedy="see `gateway admin list`")
        if row.state != OPEN:
            raise ConflictError("this proposal is closed", remedy="propose the act again if it is still needed")
        if statement.expires <= self._node.clock():
            raise ConflictError("this proposal has expired", remedy="propose the act again if it is still needed")
        if statement.agency != self._node.agency:
            raise VerificationError("this proposal was made at another gateway")
        if any(one.administrator == key.name for one in tx.people.approvals(row.id)):
            raise DeniedError("this administrator has signed already", remedy="another administrator must sign")

    def _signers(self, tx: Transaction, row: ProposalRow) -> dict[str, VerifyingKey]:
        """The administrators of now whose signatures over exactly this statement verify, each person once."""
        keys = _keys(tx.people.administrators())
        signed: dict[str, VerifyingKey] = {}
        for one in tx.people.approvals(row.id):
            key = keys.get(one.administrator)
            if key is None or key in signed.values():
                continue
            try:
                payload = dsse.verify(one.signature, key, STATEMENT_TYPE)
            except (MalformedError, VerificationError):
                continue  # rule 2: what does not verify was not signed
            if payload == row.statement.encode():
                signed[one.administrator] = key
        return signed

    # Doing

    def _execute(
        self, tx: Transaction, row: ProposalRow, statement: _Statement, signed: Mapping[str, VerifyingKey], *, by: str
    ) -> None:
        act = self._act(statement.act)
        tx.people.set_proposal_state(row.id, DONE)
        act.run(tx, self._node, statement.arguments, row.id)
        details = {**self._named(row.id, statement), "key_ids": sorted(key.key_set_id for key in signed.values())}
        self._log(tx, EventKind.PROPOSAL_EXECUTED, by, act.subject(statement.arguments), details)

    def _describe(self, tx: Transaction, row: ProposalRow) -> Proposal:
        statement = _stored(row)
        act = self._act(statement.act)
        expired = row.state == OPEN and statement.expires <= self._node.clock()
        return Proposal(
            row.id,
            row.act,
            act.subject(statement.arguments),
            act.sentence,
            statement.by,
            statement.created,
            statement.expires,
            EXPIRED if expired else row.state,
            tuple(self._signers(tx, row)),
            self._node.settings.quorum,
            statement.arguments,
        )

    def _named(self, identifier: str, statement: _Statement) -> dict[str, object]:
        digest = hashlib.sha256(canonical.encode(dict(statement.arguments))).hexdigest()
        return {"proposal": identifier, "deed": statement.act, "digest": digest}

    def _log(self, tx: Transaction, kind: EventKind, actor: str, subject: str, details: Mapping[str, object]) -> None:
        tx.log.append([self._node.event(kind, actor=actor, subject=subject, details=details)])

    def _log_refusal(self, actor: str, details: Mapping[str, object], error: GatewayError) -> None:
        """A refused try leaves nothing but this."""
        subject = str(details.get("proposal", ""))
        with self._node.store.transaction() as tx:
            known = {row.name for row in tx.people.administrators()}
            who = actor if actor in known else self._node.agency  # a name that anybody typed is no actor
            self._log(tx, EventKind.PROPOSAL_REFUSED, who, subject, {**details, "reason": error.message})


def _stored(row: ProposalRow) -> _Statement:
    """The statement of a row, if the row still is what its id says."""
    raw = row.statement.encode()
    if hashlib.sha256(raw).hexdigest() != row.id:
        raise VerificationError("a stored proposal was altered")
    return _Statement.parse(raw)


def _keys(rows: list[AdministratorRow]) -> dict[str, VerifyingKey]:
    """Administrators' public keys by name."""
    found = {}
    for row in rows:
        value = canonical.parse_canonical(row.keys.encode(), max_bytes=MAX_ADMINISTRATOR_BYTES)
        found[row.name] = VerifyingKey.from_json(value)
    return found
