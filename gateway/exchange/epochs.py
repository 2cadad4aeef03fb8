"""Carrying an own set into a new epoch: after a restore its blocks are written anew, and logged in the new log.

A block names its epoch, and a page's blocks have the page's. So when a restored set has got its new epoch, what it
lists is written again: live entries as they are, and withdrawn ones as withdrawn, so that nobody brings them back.
Where they stood before (prev_seq, prev_label) is forgotten: whoever follows the set has compared itself with the new
epoch, or begins at its start. Digests, ids, versions and places in `seq` stay, so the sums stay too.

It goes a few megabytes at a time, each in a transaction of its own, and goes on where it was cut off. Until it is done
the set is not served (`Server.visible`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gateway.audit import EventKind
from gateway.columns.block import NO_LABEL, Block, decode, encode_block
from gateway.columns.block import REMOVALS as REMOVALS_LABEL
from gateway.columns.rows import constant
from gateway.exchange.shelf import CHANGES, Shelf, block_id
from gateway.model import ChangeKind
from gateway.node import Node
from gateway.store import Transaction
from gateway.store.tables import BlockRow, HashSet

CARRIED_AT_ONCE = 16  # blocks of a transaction: some 80 MB at the most


class Epochs:
    """Brings restored sets into their new epochs."""

    def __init__(self, node: Node, shelf: Shelf) -> None:
        self._node = node
        self._shelf = shelf

    def carry(self, on_progress: Callable[[int, int], None] = lambda _done, _total: None) -> int:
        """Write anew what own sets still hold under earlier epochs; returns how many blocks were carried.

        Args:
            on_progress: told (blocks carried, blocks in all) after each transaction.
        """
        with self._node.store.reading() as tx:
            waiting = {row.id or 0: tx.blocks.of_earlier_epochs(row.id or 0, row.epoch) for row in _own(tx)}
        total, done = sum(map(len, waiting.values())), 0
        for set_id, blocks in waiting.items():
            for at in range(0, len(blocks), CARRIED_AT_ONCE):
                done += self._carry_some(set_id, blocks[at : at + CARRIED_AT_ONCE])
                on_progress(done, total)
        return done

    def _carry_some(self, set_id: int, numbers: Sequence[int]) -> int:
        with self._node.store.transaction() as tx:
            found = tx.sets.by_id(set_id)
            assert found.id is not None
            stored = list(tx.blocks.some(numbers).values())
            digests = {row.number: row.digest for row in tx.sets.labels(found.id)}
            made = [block for row in stored if (block := self._carried(tx, found, row, digests)) is not None]
            details: dict[str, object] = {
                "set": found.name,
                "epoch": found.epoch,
                "carried": sum(block.header.count for block in made),
                "blocks": len(made),
            }
            actor, name = self._node.agency, found.name
            event = self._node.event(EventKind.EPOCH_BEGUN, actor=actor, subject=name, details=details)
            leaf = tx.log.append([event], blocks=[block.digest for block in made])
            # New blocks first, old ones after: the index lets the later row of an entry win.
            self._shelf.put(tx, found.id, CHANGES, made, first_leaf=leaf, arrived=self._node.clock())
            tx.blocks.drop(found.id, [block_id(row) for row in stored])
        return len(stored)

    def _carried(self, tx: Transaction, found: HashSet, row: BlockRow, digests: dict[int, bytes]) -> Block | None:
        """The block's rows that still say what an entry is, under the new epoch; None where there are none."""
        assert found.id is not None
        if row.kind != CHANGES:
            return None
        rows = decode(self._shelf.get(tx, row))
        with self._shelf.index(tx, found.id) as index:
            kept = index.live_rows(block_id(row))
            kept |= (rows.ints("kind") == constant(ChangeKind.WITHDRAW, rows.n)) & index.withdrawn(
                rows.ints("entry_id")
            )
        if not kept.any():
            return None
        rows = rows.take(kept)
        if row.label != REMOVALS_LABEL:
            nothing = constant(0, rows.n)
            rows = rows.with_columns({"prev_seq": nothing, "prev_label": nothing})
        return encode_block(
            set_name=found.name,
            epoch=found.epoch,
            label=row.label,
            label_digest=NO_LABEL if row.label == REMOVALS_LABEL else digests[row.label],
            rows=rows,
            salt=self._shelf.salt,
        )


def _own(tx: Transaction) -> list[HashSet]:
    return [row for row in tx.sets.stored() if not row.hub and row.epoch > 1]
