"""Blocks written anew without some of their rows: the values go with the old blocks' keys, and a leaf binds both.

Whoever takes rows out of a set for good (`erasing` by order, `duties` when their time is over) says which. Then, in the
transaction of that deed:

    own set   a withdrawal in the entry's place, so that every follower deletes it, too; the place in history of rows
              that were replaced stays (id, version, seq, label; kind `history`)
    mirror    in place of an entry's values the items of the set's state digest stay, as of rows that policy refuses, so
              that the comparison with the hub still covers all that was delivered; of replaced rows nothing stays

Each block that held a value of such a row is written anew without it, under a data key of its own, and the old one goes
with its key. What stays came when it came: a block that is written anew keeps the time of its arrival.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gateway.audit import Event, EventKind
from gateway.columns import digest
from gateway.columns.block import Block, decode, encode_block
from gateway.columns.rows import Mask, Rows, constant, grouped
from gateway.exchange import largevalues
from gateway.exchange.changes import CONTENT_PARTS, Held, Sums, pack_items
from gateway.exchange.labels import digest_key
from gateway.exchange.ledger import forget_opinions, tell_holders, withdrawals
from gateway.exchange.paging import SEGMENT_SEQS
from gateway.exchange.shelf import BARE, CHANGES, HISTORY, Shelf, block_id
from gateway.exchange.withdrawals import Cause
from gateway.node import Node
from gateway.store import Transaction
from gateway.store.tables import BlockRow, HashSet

BY_ORDER = "erased by order"
REWRITTEN_IN_EVENT = 150  # blocks whose old and new digests one event names: 30 KB
BARE_COLUMNS = ("kind", "seq", "entry_id", "version")
HISTORY_COLUMNS = (*BARE_COLUMNS, "changed_at", "prev_seq", "prev_label")


@dataclass(slots=True)
class Going:
    """What of one set is to go. By block: the rows that go, those that are live now, those that stay where they are.

    What neither goes nor stays has been replaced; of an own set it becomes history.
    """

    hash_set: HashSet
    gone: dict[int, Mask] = field(default_factory=dict)
    live: dict[int, Mask] = field(default_factory=dict)
    stay: dict[int, Mask] = field(default_factory=dict)

    @property
    def id(self) -> int:
        """The set's id in the store."""
        assert self.hash_set.id is not None
        return self.hash_set.id

    @property
    def held(self) -> int:
        """How many entries go that are held now."""
        return sum(int((mask & self.live[number]).sum()) for number, mask in self.gone.items())


@dataclass(slots=True)
class _Rewritten:
    """What comes in place of blocks that go: by kind, each with when its rows came, and the digests of old and new."""

    old: list[BlockRow] = field(default_factory=list)
    held: list[Held] = field(default_factory=list)
    coming: dict[str, list[tuple[Block, int]]] = field(default_factory=dict)
    items: list[bytes] = field(default_factory=list)
    digests: list[list[str]] = field(default_factory=list)

    def add(self, kind: str, blocks: Sequence[Block], arrived: int) -> None:
        """Put blocks with those of their kind."""
        self.coming.setdefault(kind, []).extend((block, arrived) for block in blocks)


class Rewriting:
    """Takes rows out of one set, within one transaction.

    Args:
        leaves: the kind of block in which a mirror keeps what stands for the values: one of `BARE`.
    """

    def __init__(self, node: Node, tx: Transaction, shelf: Shelf, going: Going, *, leaves: str) -> None:
        assert leaves in BARE, "no other kind keeps items in place of values"
        self._node, self._tx, self._shelf = node, tx, shelf
        self._going, self._set, self._leaves = going, going.hash_set, leaves
        self._key = digest_key(node, going.hash_set)

    def run(self, what: EventKind, told: Mapping[str, object]) -> None:
        """Take the rows out of the set's blocks; followers of an own set are told.

        Args:
            what: the kind of the event that binds old and new blocks; `told`: what else it says.
        """
        tx, set_id, hub = self._tx, self._going.id, self._set.hub
        # 1. Each block without its rows; what is held of them now.
        done = _Rewritten()
        stored = tx.blocks.some(sorted(self._going.gone))
        for row in stored.values():
            self._rewrite(done, row)
        # 2. An own set says that they are withdrawn; their items leave its sums. A mirror's sums stay as they are.
        withdrawn = [] if hub else withdrawals(self._node, self._shelf, tx, self._set, done.held)
        sums = Sums(tx, set_id, self._key)
        if not hub:
            for one in done.held:
                sums.take_away(one.block.label, one.rows, one.parts)
            tx.mail.end_pages(self._set.name, "entries in it were erased")
        # 3. Leaves, blocks, sums and the set's position; the old blocks go with their keys.
        events = [*self._withdrawal(withdrawn, told), *self._events(what, done, told)]
        coming = {kind: done.coming.get(kind, []) for kind in (CHANGES, HISTORY, self._leaves)}
        coming[CHANGES] = [*((block, self._node.clock()) for block in withdrawn), *coming[CHANGES]]
        leaf = tx.log.append(events, blocks=[block.digest for some in coming.values() for block, _ in some])
        for kind, some in coming.items():
            blocks, arrived = [block for block, _ in some], [at for _, at in some]
            items = done.items if kind == self._leaves else ()
            self._shelf.put(tx, set_id, kind, blocks, first_leaf=leaf, items=items, arrived=arrived)
            leaf += len(blocks)
        tx.blocks.drop(set_id, [block_id(row) for row in done.old])
        gone = [entry for one in done.held for entry in one.rows.ints("entry_id").tolist()]
        largevalues.forget(self._node, tx, self._set, gone)
        if withdrawn:
            seq = self._set.seq + sum(block.header.count for block in withdrawn)
            tx.sets.advance(set_id, expected_seq=self._set.seq, seq=seq, next_entry=self._set.next_entry)
            tell_holders(self._node, tx, self._set, done.held, Cause(BY_ORDER, str(told.get("order_ref", ""))))
        forget_opinions(tx, set_id, done.held)
        sums.write()

    def _rewrite(self, done: _Rewritten, row: BlockRow) -> None:
        number = block_id(row)
        gone, live, stay = self._going.gone[number], self._going.live[number], self._going.stay[number]
        block = self._shelf.get(self._tx, row)
        rows = decode(block)
        kept = self._blocks(block, rows.take(stay))
        bare: list[Block] = []
        if (live & gone).any():
            held = Held(row, rows.take(live & gone), frozenset(block.parts))
            done.held.append(held)
            if self._set.hub:
                bare = self._blocks(block, held.rows.select(BARE_COLUMNS), whole=True)
                parts = CONTENT_PARTS & held.parts
                done.items.append(pack_items({part: digest.items(held.rows, part, self._key) for part in parts}))
        history = [] if self._set.hub else self._blocks(block, rows.take(~stay).select(HISTORY_COLUMNS))
        for kind, blocks in ((CHANGES, kept), (self._leaves, bare), (HISTORY, history)):
            done.add(kind, blocks, row.arrived)
        done.old.append(row)
        done.digests.append([row.digest.hex(), *(one.digest.hex() for one in (*kept, *bare, *history))])

    def _blocks(self, block: Block, rows: Rows, *, whole: bool = False) -> list[Block]:
        """Rows of a block as blocks of their own.

        Args:
            whole: as one; else cut where `paging` wants blocks that lie side by side to end.
        """
        header = block.header
        segments = constant(0, rows.n) if whole else (rows.ints("seq") - constant(1, rows.n)) // SEGMENT_SEQS
        return [
            encode_block(
                set_name=header.set_name,
                epoch=header.epoch,
                label=header.label,
                label_digest=header.label_digest,
                rows=rows.take(where),
                salt=self._shelf.salt,
            )
            for _, where in grouped(segments)
        ]

    def _withdrawal(self, blocks: Sequence[Block], told: Mapping[str, object]) -> list[Event]:
        if not blocks:
            return []
        count = sum(block.header.count for block in blocks)
        details: dict[str, object] = {
            "set": self._set.name,
            "epoch": self._set.epoch,
            "from_seq": self._set.seq + 1,
            "until_seq": self._set.seq + count,
            "changes": count,
            "reason": BY_ORDER,
            "blocks": len(blocks),
            **told,
        }
        return [self._event(EventKind.ENTRIES_WITHDRAWN, details)]

    def _events(self, what: EventKind, done: _Rewritten, told: Mapping[str, object]) -> list[Event]:
        """What the log binds together: old and new blocks. Several events where one would be too large."""
        counts: dict[str, object] = {
            "entries": self._going.held,
            "rows": sum(int(mask.sum()) for mask in self._going.gone.values()),
        }
        events = []
        for start in range(0, len(done.digests), REWRITTEN_IN_EVENT):
            details: dict[str, object] = {
                "set": self._set.name,
                "epoch": self._set.epoch,
                "rewritten": done.digests[start : start + REWRITTEN_IN_EVENT],
                **(counts if start == 0 else {}),
                **told,
            }
            events.append(self._event(what, details))
        return events

    def _event(self, kind: EventKind, details: dict[str, object]) -> Event:
        return self._node.event(kind, actor=self._node.agency, subject=self._set.name, details=details)
