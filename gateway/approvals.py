"""Four eyes: what one person must not do alone is proposed, signed by a quorum of administrators, and then done.

A proposal is a statement (`proposals`, contracts/approvals-1.md), and its id is the SHA-256 of its bytes. Rules:

1. An administrator signs the statement itself: with a key under a passphrase of their own (DSSE, both algorithms), or
   with a passkey that administrators have added. The statement names the agency, so a signature given here says nothing
   anywhere else.
2. Signatures are verified again, against the administrators of this moment, whenever they are counted; who these are,
   and how many must sign, is itself proved by signatures (`standing`). What somebody wrote into the database counts
   for nothing, and neither does a number in the settings that is lower than the signed one.
3. An administrator signs a proposal once. A proposal that has expired, was withdrawn or done takes no signature. That
   it was done is read in the log, not in its row.
4. The signature that completes the quorum, the act, and the log entries of both commit together. If the act cannot be
   done any more, that signature is not kept either.
5. Whoever signs is shown what the act would change, as things stand at that moment.
6. Every try leaves a log entry: made, signed, executed, refused, expired, withdrawn.

This module knows no acts: `keyadmin.ACTS` says what can be proposed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from gateway import standing
from gateway.audit import EventKind
from gateway.crypto import canonical, dsse, passkeys
from gateway.crypto.keys import VerifyingKey
from gateway.crypto.passkeys import Assertion
from gateway.errors import (
    AuditBrokenError,
    ConflictError,
    DeniedError,
    GatewayError,
    MalformedError,
    OverloadedError,
    VerificationError,
)
from gateway.keystore import PersonalKey
from gateway.node import Node
from gateway.proposals import (
    LIFETIME_SECONDS,
    STATEMENT_TYPE,
    Arguments,
    Statement,
    passkey_of,
    stored,
    verified_signers,
)
from gateway.standing import Roster, roster
from gateway.store import Transaction
from gateway.store.tables import ApprovalRow, ProposalRow

__all__ = [
    "DONE",
    "EXPIRED",
    "LIFETIME_SECONDS",
    "OPEN",
    "STATEMENT_TYPE",
    "WITHDRAWN",
    "Act",
    "Approvals",
    "Arguments",
    "Change",
    "Proposal",
]

OPEN, DONE, EXPIRED, WITHDRAWN = "open", "done", "expired", "withdrawn"


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that an act would change: how it is now, and how it would be then. Empty: there is none."""

    what: str
    now: str
    then: str


def _nothing(_tx: Transaction, _node: Node, _arguments: Arguments) -> Sequence[Change]:
    return ()


def _no_more(_node: Node) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Act:
    """One kind of guarded act.

    `subject` says what would change ("XB-NCVI"), and raises MalformedError for arguments that the act cannot take.
    `run` does it, within the transaction given; the last argument is the proposal's id, for the log. `difference` says
    what it would change as things stand, reading only; for a change that can no longer be made it may say nothing.
    `after` follows the commit, such as files beside the database; a crash may leave it undone, so that the next deed of
    its kind does it as well. `by_keys_alone`: partners verify its signatures, and they know no passkeys.
    """

    sentence: str
    subject: Callable[[Arguments], str]
    run: Callable[[Transaction, Node, Arguments, str], None]
    difference: Callable[[Transaction, Node, Arguments], Sequence[Change]] = _nothing
    after: Callable[[Node], None] = _no_more
    by_keys_alone: bool = False


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
            AuditBrokenError: who is an administrator cannot be told (`standing.roster`).
        """
        now = self._node.clock()
        statement = Statement(act, self._node.agency, arguments, by, now, now + LIFETIME_SECONDS)
        raw = statement.dump()
        identifier = hashlib.sha256(raw).hexdigest()
        subject = self._act(act).subject(arguments)
        self.expire()
        try:
            with self._node.store.transaction() as tx:
                self._check_proposer(roster(tx, self._node), by)
                self._check_new(tx, statement)
                row = ProposalRow(
                    id=identifier, act=act, statement=raw.decode(), state=OPEN, created=now, expires=statement.expires
                )
                tx.people.add_proposal(row)
                details = {**self._named(identifier, statement), "expires": statement.expires}
                self._log(tx, EventKind.PROPOSAL_MADE, by, subject, details)
        except (DeniedError, ConflictError, AuditBrokenError) as error:
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
            AuditBrokenError: as `propose`.
        """

        def signature(row: ProposalRow, people: Roster) -> bytes:
            known = people.administrators.get(key.name)
            if known is None or known != key.signing_key.public:
                raise DeniedError(
                    "this key is not an administrator's of this gateway", remedy="see `gateway admin list`"
                )
            return dsse.sign(STATEMENT_TYPE, row.statement.encode(), key.signing_key)

        return self._sign(identifier, key.name, key.signing_key.public.key_set_id, signature)

    def challenge(self, identifier: str) -> bytes:
        """What a passkey signs to sign a proposal."""
        with self._node.store.reading() as tx:
            statement = tx.people.proposal(identifier).statement
        return passkeys.challenge_of(STATEMENT_TYPE, statement.encode())

    def sign_with_passkey(self, identifier: str, administrator: str, assertion: Assertion) -> Proposal:
        """As `sign`, by what an administrator's passkey returned for the proposal's challenge.

        Raises:
            DeniedError: no passkey of theirs that administrators have added signed exactly this proposal; they have
                signed already; or the act takes no passkeys.
        """
        raw = passkeys.dump_signature(assertion)

        def signature(row: ProposalRow, people: Roster) -> bytes:
            if self._act(row.act).by_keys_alone:
                raise DeniedError(
                    "partners verify the signatures of this act, and they know no passkeys",
                    remedy="sign it on the gateway's machine: `gateway approval sign`",
                )
            own = people.passkeys.get(administrator, ()) if administrator in people.administrators else ()
            if passkey_of(row.statement.encode(), raw, own) is None:
                raise DeniedError(
                    "this passkey does not sign for this administrator",
                    remedy="administrators add it first; until then it only signs in",
                )
            return raw

        return self._sign(identifier, administrator, "", signature)

    def _sign(
        self, identifier: str, name: str, key_id: str, signature: Callable[[ProposalRow, Roster], bytes]
    ) -> Proposal:
        details: dict[str, object] = {"key_id": key_id} if key_id else {}
        self.expire()
        try:
            with self._node.store.transaction() as tx:
                row = tx.people.proposal(identifier)
                statement = stored(row)
                details |= self._named(row.id, statement)
                people = roster(tx, self._node)
                raw = signature(row, people)
                self._check_may_sign(tx, row, statement, name)
                used = passkey_of(row.statement.encode(), raw, people.passkeys.get(name, ()))
                if used is not None:
                    details["key_id"] = used.passkey.key_id
                approval = ApprovalRow(proposal=row.id, administrator=name, signature=raw, at=self._node.clock())
                tx.people.add_approval(approval)
                signed = self._signers(tx, row, people)
                counted = {"signatures": len(signed), "quorum": people.quorum}
                self._log(tx, EventKind.PROPOSAL_SIGNED, name, row.id, {**details, **counted})
                if len(signed) >= people.quorum:
                    self._execute(tx, row, statement, signed, by=name)
                standing.keep(tx, self._node)
        except OverloadedError:
            raise  # nothing was decided: the same try may succeed in a moment
        except GatewayError as error:
            self._log_refusal(name, details, error)
            raise
        found = self.get(row.id)
        if found.state == DONE:
            self._act(found.act).after(self._node)
        return found

    def withdraw(self, identifier: str, key: PersonalKey) -> Proposal:
        """Close a proposal without doing it: whoever proposed it has thought again.

        Raises:
            NotFoundError: no such proposal.
            DeniedError: the key is not its proposer's.
            ConflictError: the proposal is closed already.
        """
        public = key.signing_key.public
        return self._withdraw(identifier, key.name, public.key_set_id, lambda people: people.get(key.name) == public)

    def withdraw_as(self, identifier: str, administrator: str, key_id: str) -> Proposal:
        """As `withdraw`, by an administrator who has just proved at the console who they are.

        Args:
            key_id: of the passkey by which they did.
        """
        return self._withdraw(identifier, administrator, key_id, lambda people: administrator in people)

    def _withdraw(
        self, identifier: str, name: str, key_id: str, is_they: Callable[[Mapping[str, VerifyingKey]], bool]
    ) -> Proposal:
        details: dict[str, object] = {"key_id": key_id}
        self.expire()
        try:
            with self._node.store.transaction() as tx:
                row = tx.people.proposal(identifier)
                statement = stored(row)
                details |= self._named(row.id, statement)
                if name != statement.by or not is_they(roster(tx, self._node).administrators):
                    raise DeniedError("only whoever proposed it withdraws a proposal", remedy="let it expire, unsigned")
                self._check_open(tx, row)
                tx.people.set_proposal_state(row.id, WITHDRAWN)
                closed = {**details, "reason": "withdrawn by its proposer"}
                self._log(tx, EventKind.PROPOSAL_REFUSED, name, row.id, closed)
        except OverloadedError:
            raise
        except GatewayError as error:
            self._log_refusal(name, details, error)
            raise
        return self.get(row.id)

    def expire(self) -> int:
        """Close every proposal whose time is over, each on record; returns how many there were."""
        now = self._node.clock()
        with self._node.store.reading() as tx:
            if all(row.expires > now for row in tx.people.proposals(state=OPEN)):
                return 0
        with self._node.store.transaction() as tx:
            over = [row for row in tx.people.proposals(state=OPEN) if row.expires <= now]
            for row in over:
                tx.people.set_proposal_state(row.id, EXPIRED)
                details: dict[str, object] = {"proposal": row.id, "deed": row.act, "reason": EXPIRED}
                self._log(tx, EventKind.PROPOSAL_REFUSED, self._node.agency, row.id, details)
        return len(over)

    def get(self, identifier: str) -> Proposal:
        """One proposal, by its id or its beginning."""
        with self._node.store.reading() as tx:
            return self._describe(tx, tx.people.proposal(identifier), roster(tx, self._node))

    def all(self, *, only_open: bool = False) -> list[Proposal]:
        """Every proposal, newest first."""
        with self._node.store.reading() as tx:
            people = roster(tx, self._node)
            rows = tx.people.proposals(state=OPEN if only_open else None)
            found = [self._describe(tx, row, people) for row in rows]
        return [one for one in found if one.state == OPEN or not only_open]

    def difference(self, identifier: str) -> list[Change]:
        """What the act of an open proposal would change, as things stand now. Nothing for one that is closed."""
        with self._node.store.reading() as tx:
            row = tx.people.proposal(identifier)
            statement = stored(row)
            if row.state != OPEN:
                return []
            return list(self._act(statement.act).difference(tx, self._node, statement.arguments))

    # Checks

    def _act(self, name: str) -> Act:
        act = self._acts.get(name)
        if act is None:
            raise MalformedError("no such guarded act", remedy=f"known: {', '.join(sorted(self._acts))}")
        return act

    def _check_proposer(self, people: Roster, by: str) -> None:
        found, quorum = len(people.administrators), people.quorum
        if found < quorum:
            raise DeniedError(
                f"a guarded act needs {quorum} administrators, and there are {found}",
                remedy="add them with `gateway admin add NAME`",
            )
        if by not in people.administrators:
            raise DeniedError("only an administrator proposes", remedy="`gateway admin list` names them")

    def _check_new(self, tx: Transaction, statement: Statement) -> None:
        """The same act is proposed once at a time, so that its signatures come together."""
        for row in tx.people.proposals(state=OPEN):
            known = stored(row)
            if known.act == statement.act and known.arguments == dict(statement.arguments):
                raise ConflictError(
                    "the same act waits for signatures already",
                    remedy=f"sign it: `gateway approval sign {row.id[:12]} --admin NAME`",
                )

    def _check_may_sign(self, tx: Transaction, row: ProposalRow, statement: Statement, name: str) -> None:
        self._check_open(tx, row)
        if statement.expires <= self._node.clock():  # whatever the row says
            raise ConflictError("this proposal has expired", remedy="propose the act again if it is still needed")
        if statement.agency != self._node.agency:
            raise VerificationError("this proposal was made at another gateway")
        if any(one.administrator == name for one in tx.people.approvals(row.id)):
            raise DeniedError("this administrator has signed already", remedy="another administrator must sign")

    def _check_open(self, tx: Transaction, row: ProposalRow) -> None:
        again = "propose the act again if it is still needed"
        if row.state == EXPIRED:
            raise ConflictError("this proposal has expired", remedy=again)
        if row.state != OPEN or standing.was_executed(tx, self._node, row.id):
            raise ConflictError("this proposal is closed", remedy=again)

    def _signers(self, tx: Transaction, row: ProposalRow, people: Roster) -> dict[str, str]:
        """The administrators of now whose signatures over exactly this statement verify, with their key ids."""
        signatures = [(one.administrator, one.signature) for one in tx.people.approvals(row.id)]
        own = None if self._act(row.act).by_keys_alone else people.passkeys
        found = verified_signers(row.statement.encode(), signatures, people.administrators, own)
        return {name: key.key_set_id for name, key in found.items()}

    # Doing

    def _execute(
        self, tx: Transaction, row: ProposalRow, statement: Statement, signed: Mapping[str, str], *, by: str
    ) -> None:
        act = self._act(statement.act)
        tx.people.set_proposal_state(row.id, DONE)
        act.run(tx, self._node, statement.arguments, row.id)
        details = {**self._named(row.id, statement), "key_ids": sorted(signed.values())}
        self._log(tx, EventKind.PROPOSAL_EXECUTED, by, act.subject(statement.arguments), details)

    def _describe(self, tx: Transaction, row: ProposalRow, people: Roster) -> Proposal:
        statement = stored(row)
        act = self._act(statement.act)
        expired = row.state == OPEN and statement.expires <= self._node.clock()
        return Proposal(
            row.id,
            statement.act,
            act.subject(statement.arguments),
            act.sentence,
            statement.by,
            statement.created,
            statement.expires,
            EXPIRED if expired else row.state,
            tuple(self._signers(tx, row, people)),
            people.quorum,
            statement.arguments,
        )

    def _named(self, identifier: str, statement: Statement) -> dict[str, object]:
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
