"""Own sets: creating them, importing drafts, withdrawing entries. Only their owner changes them.

An import goes batch by batch, each one transaction, so an interruption keeps whole batches and a second run of the same
file goes on where the first one stopped: an entry is known again by its source reference, else by its strongest digest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from gateway.audit import EventKind
from gateway.columns.block import Block, encode_block
from gateway.columns.drafts import MAX_DRAFTS, DraftBatch, in_batches
from gateway.columns.rows import Rows, constant, counting
from gateway.errors import ConflictError, DeniedError, NotFoundError
from gateway.exchange import largevalues, listfile
from gateway.exchange.changes import Held, Sums, supersede
from gateway.exchange.importing import Batch, ImportTally
from gateway.exchange.knowngood import KnownGood
from gateway.exchange.labels import SetDefaults, digest_key, seal_digest_key
from gateway.exchange.neveragain import NeverAgain, counted_kinds
from gateway.exchange.shelf import CHANGES, Shelf
from gateway.exchange.withdrawals import Cause, Span, Taken, begin, holders_of
from gateway.model import SET_NAME, ChangeKind, EntryDraft, require
from gateway.node import Node
from gateway.store import Transaction
from gateway.store.tables import HashSet

BATCH_ROWS = MAX_DRAFTS  # of an import: what one commit takes


class Ledger:
    """Changes to the sets that this agency owns."""

    def __init__(self, node: Node, shelf: Shelf, never_again: NeverAgain, known_good: KnownGood) -> None:
        self._node = node
        self._shelf = shelf
        self._never_again = never_again
        self._known_good = known_good

    def create_set(self, name: str, purpose: str, defaults: SetDefaults, actor: str) -> None:
        """Add an empty set under this agency's name."""
        require(SET_NAME.fullmatch(name), "a set name is AGENCY/name with small letters, digits and hyphens")
        if name.split("/", maxsplit=1)[0] != self._node.agency:
            raise DeniedError("a set carries its owner's name", remedy=f"call it {self._node.agency}/…")
        require(purpose, "a set needs a purpose")
        defaults.label(self._node)  # refuses what no label could carry
        with self._node.store.transaction() as tx:
            if tx.sets.find(name) is not None:
                raise ConflictError("a set of this name exists")
            key = seal_digest_key(self._node, name, self._node.random.bytes(32))
            row = HashSet(
                name=name,
                purpose=purpose,
                defaults=defaults.to_json(),
                sealed_digest_key=key,
                created=self._node.clock(),
            )
            tx.sets.create(row)
            details = {"set": name, "epoch": row.epoch, "purpose": purpose}
            tx.log.append([self._node.event(EventKind.SET_CREATED, actor=actor, subject=name, details=details)])

    def import_entries(
        self,
        name: str,
        drafts: Iterable[EntryDraft | DraftBatch],
        *,
        actor: str,
        form: str,
        on_batch: Callable[[ImportTally], None] = lambda _tally: None,
    ) -> ImportTally:
        """Take drafts into an own set; returns what became of each.

        Args:
            drafts: objects, or batches of them by the column, as adapters make them.
            form: the format they came in, for the log.
            on_batch: called after each committed batch.
        """
        tally = ImportTally()
        for batch in in_batches(drafts, most=BATCH_ROWS):
            with self._node.store.transaction() as tx:
                bars = self._known_good.with_bars(tx, self._never_again.bars(tx, self._node.agency))
                done = Batch(self._node, self._shelf, tx, self._own(tx, name), bars).take_in(batch, actor, form)
                self._log_refused(tx, name, form, done)
                # A crash before the commit loses this batch whole; the next run finds it missing and takes it in.
            tally.add(done)
            on_batch(tally)
        return tally

    def withdraw(
        self,
        name: str,
        entry_ids: Sequence[int],
        *,
        actor: str,
        reason: str,
        reference: str = "",
        within_days: int = 0,
    ) -> int:
        """Say of entries that they were wrong; every holder is told, and answers. Returns how many were listed.

        They are listed as never again: the same digests are not taken into our sets until two administrators say so.
        """
        cause = Cause(reason, reference, within_days)
        with self._node.store.transaction() as tx:
            hash_set = self._own(tx, name)
            held = withdraw_entries(self._node, self._shelf, tx, hash_set, entry_ids, actor=actor, cause=cause)
            if not held:
                raise NotFoundError("none of these entries is listed")
            self._never_again.list_wrong(tx, [one.rows for one in held], name)
        listfile.keep(self._node)
        return sum(one.rows.n for one in held)

    def take_back(self, name: str, entry_ids: Sequence[int], *, actor: str, reason: str) -> None:
        """Withdraw entries that whoever sent them to us takes back; nothing is listed as never again."""
        with self._node.store.transaction() as tx:
            hash_set = self._own(tx, name)
            withdraw_entries(self._node, self._shelf, tx, hash_set, entry_ids, actor=actor, cause=Cause(reason))

    def _log_refused(self, tx: Transaction, name: str, form: str, done: ImportTally) -> None:
        """What was left out stands in the log as well: counts and reasons."""
        if not done.refused:
            return
        details: dict[str, object] = {
            "set": name,
            "format": form,
            "refused": done.refused,
            "reasons": counted_kinds(one.kind for one in done.refusals),
        }
        tx.log.append(
            [self._node.event(EventKind.ROWS_REFUSED, actor=self._node.agency, subject=name, details=details)]
        )

    def _own(self, tx: Transaction, name: str) -> HashSet:
        found = tx.sets.get(name)
        if found.hub:
            raise DeniedError("only its owner changes a set; this one is a mirror")
        return found


def withdraw_entries(
    node: Node, shelf: Shelf, tx: Transaction, hash_set: HashSet, entry_ids: Iterable[int], *, actor: str, cause: Cause
) -> list[Held]:
    """Withdraw those of these entries that an own set lists, and tell their holders; returns what it listed."""
    assert hash_set.id is not None
    once = sorted(set(entry_ids))
    ids = Rows.of(len(once), {"entry_id": once}).ints("entry_id")
    sums = Sums(tx, hash_set.id, digest_key(node, hash_set))
    held = supersede(tx, shelf, hash_set.id, ids, sums)
    if not held:
        return []
    blocks = withdrawals(node, shelf, tx, hash_set, held)
    count = sum(one.rows.n for one in held)
    details = {
        "set": hash_set.name,
        "epoch": hash_set.epoch,
        "from_seq": hash_set.seq + 1,
        "until_seq": hash_set.seq + count,
        "changes": count,
        "reason": cause.reason,
        "blocks": len(blocks),
        **({"order_ref": cause.reference} if cause.reference else {}),
    }
    event = node.event(EventKind.ENTRIES_WITHDRAWN, actor=actor, subject=hash_set.name, details=details)
    leaf = tx.log.append([event], blocks=[block.digest for block in blocks])
    shelf.put(tx, hash_set.id, CHANGES, blocks, first_leaf=leaf, arrived=node.clock())
    seq = hash_set.seq + count
    tx.sets.advance(hash_set.id, expected_seq=hash_set.seq, seq=seq, next_entry=hash_set.next_entry)
    sums.write()
    largevalues.forget(node, tx, hash_set, once)
    tell_holders(node, tx, hash_set, held, cause)
    forget_opinions(tx, hash_set.id, held)
    return held


def forget_opinions(tx: Transaction, set_id: int, held: Iterable[Held]) -> None:
    """What was thought of entries that are withdrawn or erased goes with them."""
    if tx.opinions.any_on(set_id):
        tx.opinions.forget(set_id, [entry for one in held for entry in one.rows.ints("entry_id").tolist()])


def tell_holders(node: Node, tx: Transaction, hash_set: HashSet, held: Sequence[Held], cause: Cause) -> None:
    """Whoever may hold entries that were withdrawn now is told, and will answer.

    Args:
        hash_set: as it was before.
        held: what it listed of them.
    """
    count = sum(one.rows.n for one in held)
    holders = holders_of(tx, hash_set, [(one.block.label, one.rows.ints("seq")) for one in held])
    span = Span(hash_set.epoch, hash_set.seq + 1, hash_set.seq + count)
    begin(node, tx, hash_set, Taken(span, cause, count), holders)


def withdrawals(node: Node, shelf: Shelf, tx: Transaction, hash_set: HashSet, held: Sequence[Held]) -> list[Block]:
    """One block for each label that loses entries, numbered from the set's position on."""
    assert hash_set.id is not None
    digests = {row.number: row.digest for row in tx.sets.labels(hash_set.id)}
    blocks, seq = [], hash_set.seq
    for one in held:
        n = one.rows.n
        rows = Rows.of(
            n,
            {
                "kind": constant(ChangeKind.WITHDRAW, n),
                "seq": counting(seq + 1, n),
                "entry_id": one.rows.ints("entry_id"),
                "version": one.rows.ints("version") + 1,
                "changed_at": constant(node.clock(), n),
                "prev_seq": one.rows.ints("seq"),
                "prev_label": constant(one.block.label, n),
            },
        )
        seq += n
        label = one.block.label
        blocks.append(
            encode_block(
                set_name=hash_set.name,
                epoch=hash_set.epoch,
                label=label,
                label_digest=digests[label],
                rows=rows,
                salt=shelf.salt,
            )
        )
    return blocks
