"""Beginning anew: what the administrators of a restored gateway sign before it does anything, and what happens then.

A backup is restored beside nothing (`backup`): with new keys to open what partners send, with the key of the log that
will follow, and with a pause of everything. From then on the gateway awaits its restore statement: no command opens it
but those by which its administrators look at it and sign. The one guarded act that can be done is `gateway_restore`:

1. which log ends, and at which head the backup has it; the largest head that a partner had cosigned by then;
2. the key of the log that begins, whose number is the next;
3. where each set stands, readable for its followers alone;
4. a digest of what the log tells of administrators, partners and policy, which goes on unchanged.

With the signature that completes the quorum, in one commit: the old log goes (it lies exported beside the database, as
the backup had it), leaf 0 of the new one names the proposal and what is carried over, what was logged since the restore
follows it, each own set is in its next epoch, pages on their way are ended, and an identity card with the new log and
the new keys is issued. Its number leaves a gap, since cards were issued after the backup that nobody here remembers.
The signed restore statement goes to partners with the key statements.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from gateway import ownkeys, standing
from gateway.approvals import Act, Arguments, Change
from gateway.audit import Event, EventKind, LeafRow, parse_event
from gateway.crypto import checkpoint, dsse
from gateway.crypto.restore import MAX_ADMINISTRATORS, Restore, Signed, sign_restore
from gateway.errors import AuditBrokenError, ConflictError
from gateway.node import Node, awaits_restore, log_origin, own_log
from gateway.proposals import verified_signers
from gateway.restoring import ACT, RESTORE, Terms, hidden, parse_terms
from gateway.store import Transaction
from gateway.store.people import EVERYTHING
from gateway.witness import largest_cosigned

PAUSED_BY = "restore"  # in the list of pauses
CARD_GAP = 1_000  # a card is issued for a change of keys or settings: some ten a month


def resume(node: Node) -> tuple[str, Arguments]:
    """The act by which a restored gateway goes on.

    Raises:
        ConflictError: this gateway was not restored, or goes on already.
    """
    with node.store.reading() as tx:
        return ACT, _terms(tx, node).arguments()


def acts_for(node: Node, acts: Mapping[str, Act]) -> Mapping[str, Act]:
    """The acts that can be done now: of a gateway that awaits its restore statement, that one alone."""
    if len(node.keystore.log_numbers) == 1:
        return acts
    with node.store.reading() as tx:
        if not awaits_restore(node, tx):
            return acts
    return {name: act if name == ACT else replace(act, run=_not_now) for name, act in acts.items()}


def _not_now(_tx: Transaction, _node: Node, _arguments: Arguments, _proposal: str) -> None:
    raise ConflictError(
        "this gateway was restored from a backup, and waits for its restore statement",
        remedy="`gateway backup resume --admin NAME`",
    )


# The act


def _subject(arguments: Arguments) -> str:
    """The log that would begin."""
    agency = str(arguments.get("log")).split("/")[1:2]
    return parse_terms("".join(agency), arguments).new.name


def _difference(tx: Transaction, node: Node, arguments: Arguments) -> Sequence[Change]:
    terms, people = parse_terms(node.agency, arguments), standing.roster(tx, node)
    own = [one for one in tx.sets.all() if not one.hub]
    active = [one.agency for one in tx.people.partners() if one.state == "active"]
    seen = f"{terms.witnessed.size} of them" if terms.witnessed else "none"
    return [
        Change("audit log", terms.old.name, terms.new.name),
        Change("leaves", f"{terms.old_head.size}", "they end, exported; the new log begins with this statement"),
        Change("leaves cosigned by partners", seen, "none"),
        Change("epoch of our sets", ", ".join(sorted({str(one.epoch) for one in own})) or "none", "each one higher"),
        Change("administrators", ", ".join(sorted(people.administrators)), "the same"),
        Change("partners that are told", ", ".join(active) or "none", "they compare, and offer what was lost"),
    ]


def _begin_anew(tx: Transaction, node: Node, arguments: Arguments, proposal: str) -> None:
    terms = _terms(tx, node)
    if terms.arguments() != dict(arguments):
        raise ConflictError("the restored gateway has changed since this was proposed", remedy="propose it again")
    # 1. Who signed, as the log that ends knows them; what it says goes over.
    signers = _signers(tx, node, proposal)
    since = _since_restore(tx, node)
    carried = standing.carry(tx, node)
    # 2. The log begins with the leaf that partners will ask for, under a checkpoint of its own.
    details = terms.leaf_details(node.agency, proposal, (one.key.key_set_id for one in signers))
    first = node.event(
        EventKind.GATEWAY_RESTORED, actor=node.agency, subject=node.agency, details={**details, "standing": carried}
    )
    tx.log.begin(terms.new.name)
    tx.log.append([first])
    note = tx.log.checkpoint()
    leaf = next(tx.log.leaves(0, 1))
    assert leaf.salt is not None, "an event has a salt"
    tx.log.append(since)
    # 3. The statement, for partners, by the key that is in use as the rows have it.
    ownkeys.reconcile(tx, node, reason="made at the restore")
    raw = tx.people.proposal(proposal).statement.encode()
    statement = Restore(node.agency, raw, signers, first.encode(), leaf.salt, note, node.clock())
    signed = sign_restore(statement, node.keystore.signing_key)
    tx.keys.add_statement(RESTORE, terms.number, signed, node.clock())
    # 4. What binds us to the time before ends.
    tx.sets.begin_epochs()
    tx.witness.forget_cosignatures()
    for partner in tx.people.partners():
        tx.mail.end(partner.agency, "the gateway was restored from a backup")
        tx.tokens.revoke(partner.agency)
    if any(scope == EVERYTHING and by == PAUSED_BY for scope, by, _ in tx.people.pauses()):
        tx.people.resume(EVERYTHING)
    # 5. The card says all that is new.
    ownkeys.issue(tx, node, gap=CARD_GAP)


def _terms(tx: Transaction, node: Node) -> Terms:
    """What there is to sign, as things stand."""
    if not awaits_restore(node, tx):
        raise ConflictError("this gateway waits for no restore statement")
    old, restored = own_log(node, tx).verifier, _restored_leaf(tx, node)
    note = next(tx.log.checkpoints(restored.index - 1, restored.index)).note
    cosigned = largest_cosigned(tx)
    origin = log_origin(node.agency, node.keystore.log_numbers[-1])
    return Terms(
        old=old,
        old_note=note.decode(),
        old_head=checkpoint.verify(note, old, old.name),
        witnessed_note="" if cosigned is None else cosigned.decode(),
        witnessed=None if cosigned is None else checkpoint.verify(cosigned, old, old.name),
        new=node.keystore.log_key(origin).verifier,
        sets=tuple(hidden(node, origin, [one for one in tx.sets.all() if not one.hub])),
        standing=standing.basis(tx, node),
    )


def _restored_leaf(tx: Transaction, node: Node) -> LeafRow:
    """The leaf that says that the backup was restored: where the log of the backup ended."""
    rows = tx.log.of_kinds((EventKind.BACKUP_RESTORED,))
    found = [row for row, event in standing.proved(tx, node, rows) if event.kind is EventKind.BACKUP_RESTORED]
    if not found:
        raise AuditBrokenError("the audit log does not say which backup was restored")
    return found[-1]


def _since_restore(tx: Transaction, node: Node) -> list[Event]:
    """What was logged since the backup was restored."""
    found = []
    for row in tx.log.leaves(_restored_leaf(tx, node).index):
        if row.event_bytes is None:
            raise AuditBrokenError("something else than signing was done since the restore", index=row.index)
        found.append(parse_event(row.event_bytes))
    return found


def _signers(tx: Transaction, node: Node, proposal: str) -> tuple[Signed, ...]:
    """The administrators whose signatures count, by name, with what each signed: as many as a statement holds."""
    rows = tx.people.approvals(proposal)
    statement = tx.people.proposal(proposal).statement.encode()
    pairs = [(row.administrator, row.signature) for row in rows]
    counted = verified_signers(statement, pairs, standing.roster(tx, node).administrators)
    signed = [
        Signed(counted[name], dsse.parse(signature).signatures) for name, signature in sorted(pairs) if name in counted
    ]
    return tuple(signed[:MAX_ADMINISTRATORS])


RESTORE_ACTS: Mapping[str, Act] = {
    ACT: Act("go on from a restored backup, in a new log", _subject, _begin_anew, _difference, by_keys_alone=True),
}
