"""What a set holds now, read from its blocks: for comparing two ends, and for counting anew what the sums should say.

Blocks never change, so a long reading needs no long transaction: which blocks and which of their rows count is read at
once, the blocks themselves a few megabytes at a time. A block that is gone meanwhile ends the reading with a
ConflictError: whoever reads begins again.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from gateway.columns import digest
from gateway.columns.block import decode
from gateway.columns.digest import Sum
from gateway.columns.rows import EXISTENCE, Ints, Mask, Rows
from gateway.errors import ConflictError
from gateway.exchange.shelf import BARE, CHANGES, READ_AT_ONCE, Shelf, block_id
from gateway.node import Node
from gateway.store import Transaction
from gateway.store.tables import BlockRow

_LANE_BYTES = 16  # of one item


@dataclass(frozen=True, slots=True, eq=False)
class Content:
    """The rows of one block that count now, with their items by group code; of refused rows, existence alone."""

    block: BlockRow
    rows: Rows
    items: Mapping[int, Ints]


class Contents:
    """Reads what sets hold."""

    def __init__(self, node: Node, shelf: Shelf) -> None:
        self._node = node
        self._shelf = shelf

    def scan(self, set_id: int, key: bytes, groups: Mapping[int, Iterable[int]]) -> Iterator[Content]:
        """Every entry under these labels, block by block, in order of arrival.

        Args:
            key: of the set's state digest.
            groups: label -> group codes; items are made for these, and the others' parts are not even read.
        """
        with self._shelf.reading(self._node.store) as tx:
            held = self.held(tx, set_id, groups)
        for some in _pieces(held):
            yield from self._read(some, key, groups)

    def held(self, tx: Transaction, set_id: int, labels: Container[int]) -> list[tuple[BlockRow, Mask]]:
        """The blocks under these labels that hold anything now, each with which of its rows count. In order of arrival.

        A byte for each row ever stored, and no value.
        """
        stored = [row for row in tx.blocks.of_set(set_id) if row.label in labels and row.kind in (CHANGES, *BARE)]
        with self._shelf.index(tx, set_id) as index:
            live = [index.live_rows(block_id(row)) for row in stored]
        return [(row, mask) for row, mask in zip(stored, live, strict=True) if mask.any()]

    def rows(
        self, held: Sequence[tuple[BlockRow, Mask]], groups: Mapping[int, Iterable[int]]
    ) -> Iterator[tuple[BlockRow, Rows]]:
        """What these blocks hold, a few megabytes at a time; of the columns those of existence and of these groups.

        Args:
            groups: label -> group codes: the others' parts are not even read.

        Raises:
            ConflictError: a block is not there any more.
        """
        for some in _pieces(held):
            with self._node.store.reading() as tx:
                self._check_there(tx, some)
                blocks = [self._shelf.get(tx, row, {EXISTENCE, *groups[row.label]}) for row, _ in some]
            for (row, mask), block in zip(some, blocks, strict=True):
                yield row, decode(block).take(mask)

    def _check_there(self, tx: Transaction, some: Sequence[tuple[BlockRow, Mask]]) -> None:
        if len(tx.blocks.some([block_id(row) for row, _ in some])) < len(some):
            raise ConflictError("the set was rewritten while it was read", remedy="try again")

    def _read(
        self, some: Sequence[tuple[BlockRow, Mask]], key: bytes, groups: Mapping[int, Iterable[int]]
    ) -> list[Content]:
        found = []
        with self._node.store.reading() as tx:
            self._check_there(tx, some)
            for row, mask in some:
                wanted = sorted({EXISTENCE, *groups[row.label]})
                block = self._shelf.get(tx, row, wanted)
                rows = decode(block).take(mask)
                if row.kind in BARE:
                    kept = kept_items(self._shelf.items(tx, row), row.count)
                    items = {part: kept[part][mask] for part in wanted if part in kept}
                else:
                    items = {part: digest.items(rows, part, key) for part in wanted if part in block.parts}
                found.append(Content(row, rows, items))
        return found


def sums_of(contents: Iterable[Content]) -> dict[tuple[int, int], Sum]:
    """The sums that these contents make, by (label, group code)."""
    found: dict[tuple[int, int], Sum] = {}
    for one in contents:
        for part, items in one.items.items():
            at = one.block.label, part
            found[at] = found.get(at, digest.EMPTY) + digest.sum_items(items)
    return found


def kept_items(raw: bytes, count: int) -> dict[int, Ints]:
    """The items by group code that were kept of a refused block of `count` rows, as `changes.pack_items` wrote them."""
    size = _LANE_BYTES * count
    return {
        raw[at]: digest.parse_items(raw[at + 1 : at + 1 + size]).reshape(count, 2)
        for at in range(0, len(raw), 1 + size)
    }


def _pieces(held: Sequence[tuple[BlockRow, Mask]]) -> Iterator[Sequence[tuple[BlockRow, Mask]]]:
    """Runs of blocks that may be in memory at once."""
    start = changes = 0
    for at, (row, _) in enumerate(held):
        if changes and changes + row.count > READ_AT_ONCE:
            yield held[start:at]
            start, changes = at, 0
        changes += row.count
    if held:
        yield held[start:]
