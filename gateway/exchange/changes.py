"""What an own set and a mirror share when changes come: sums that follow, and what an arriving change supersedes."""

from __future__ import annotations

import struct
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from gateway.columns import digest
from gateway.columns.block import decode
from gateway.columns.digest import EMPTY, Sum
from gateway.columns.rows import EXISTENCE, GROUP_CODES, Index, Ints, Rows, columns_of, concat, grouped
from gateway.exchange.shelf import BARE, Shelf, block_id
from gateway.model import FieldGroup
from gateway.store import Transaction
from gateway.store.tables import BlockRow

CONTENT_PARTS = frozenset(GROUP_CODES.values())  # every field group that the state digest covers
_SUM = struct.Struct("<QQQ")


@dataclass(frozen=True, slots=True)
class Held:
    """Current rows of one block, with every stored part (a refused block has existence only)."""

    block: BlockRow
    rows: Rows
    parts: frozenset[int]


class Sums:
    """The linear state digests of one set: loaded at the start of a deed, written at its end."""

    def __init__(self, tx: Transaction, set_id: int, key: bytes) -> None:
        self.key = key
        self._tx = tx
        self._set_id = set_id
        self._sums = {at: Sum(*_SUM.unpack(raw)) for at, raw in tx.sets.sums(set_id).items()}
        self._changed: set[tuple[int, int]] = set()

    def add(self, arriving: Iterable[tuple[int, Rows, Iterable[int]]]) -> None:
        """Count rows that arrive, given as (label, rows, parts); what has one shape and the same parts goes at once."""
        alike: dict[tuple[int, frozenset[int]], list[tuple[int, Rows]]] = {}
        for label, rows, parts in arriving:
            alike.setdefault((rows.shape, CONTENT_PARTS.intersection(parts)), []).append((label, rows))
        for (_, parts), members in alike.items():
            together = concat([rows for _, rows in members])
            for part in parts:
                runs = digest.sum_runs(digest.items(together, part, self.key), [rows.n for _, rows in members])
                for (label, _), found in zip(members, runs, strict=True):
                    self.move(label, part, found)

    def count(self, found: Iterable[tuple[int, int, Sum]]) -> None:
        """Count rows that arrive, as `counted` gave them."""
        for label, part, by in found:
            self.move(label, part, by)

    def take_away(self, label: int, rows: Rows, parts: Iterable[int]) -> None:
        """Count rows that are no longer held under a label."""
        for part in CONTENT_PARTS.intersection(parts):
            self.move(label, part, EMPTY - digest.sum_items(digest.items(rows, part, self.key)))

    def move(self, label: int, part: int, by: Sum) -> None:
        """Count items whose sum is known."""
        if by == EMPTY:
            return
        self._sums[label, part] = self._sums.get((label, part), EMPTY) + by
        self._changed.add((label, part))

    def drop(self, labels: Iterable[int] | None = None) -> None:
        """Forget labels that were left (None: all of them)."""
        gone = None if labels is None else set(labels)
        for at in [at for at in self._sums if gone is None or at[0] in gone]:
            del self._sums[at]
            self._changed.discard(at)

    def state(self, shown: Mapping[int, frozenset[FieldGroup]] | None = None) -> str:
        """The state digest over what a view shows (None: over everything held)."""
        if shown is None:
            return digest.state_digest(self._sums)
        visible = {(label, GROUP_CODES[group]) for label, groups in shown.items() for group in groups}
        return digest.state_digest({at: held for at, held in self._sums.items() if at in visible})

    def by_label(self) -> dict[tuple[int, int], Sum]:
        """Every sum, by (label, group code)."""
        return dict(self._sums)

    def entries(self, labels: Iterable[int] | None = None) -> int:
        """How many entries are held under these labels (None: under all)."""
        wanted = None if labels is None else set(labels)
        counts = {label: held.count for (label, part), held in self._sums.items() if part == EXISTENCE}
        return sum(count for label, count in counts.items() if wanted is None or label in wanted)

    def write(self) -> None:
        """Store what has changed."""
        packed = {
            at: _SUM.pack(one.count, one.low, one.high) for at in sorted(self._changed) for one in [self._sums[at]]
        }
        self._tx.sets.put_sums(self._set_id, packed)
        self._changed.clear()


def counted(labels: Sequence[int], rows: Rows, offsets: Index, key: bytes) -> Iterator[tuple[int, int, Sum]]:
    """(label, part, sum) of rows that arrive: those under labels[i] are the rows offsets[i] … offsets[i + 1] - 1.

    Every part counts in which the rows say something; of what was withheld they say nothing.
    """
    lengths = [stop - start for start, stop in pairwise(offsets.tolist())]
    for part in sorted(CONTENT_PARTS):
        if part == EXISTENCE or any(column.name in rows.columns for column in columns_of(part)):
            runs = digest.sum_runs(digest.items(rows, part, key), lengths)
            yield from ((label, part, found) for label, found in zip(labels, runs, strict=True))


def held_rows(tx: Transaction, shelf: Shelf, set_id: int, entry_ids: Ints) -> list[Held]:
    """The current rows of those of `entry_ids` that are held, block by block."""
    with shelf.index(tx, set_id) as index:
        located = index.locate(entry_ids)
    positions = located.row[located.found]
    blocks = located.block_no[located.found].astype("uint64")
    where = dict(grouped(blocks))
    rows = list(tx.blocks.some(list(where)).values())
    assert len(rows) == len(where), "the index follows the store within this transaction"
    return [
        Held(row, decode(block).take(positions[where[block_id(row)]]), frozenset(block.parts))
        for row, block in zip(rows, shelf.get_all(tx, rows), strict=True)
    ]


def supersede(
    tx: Transaction, shelf: Shelf, set_id: int, entry_ids: Ints, sums: Sums, *, leaving: Container[int] = ()
) -> list[Held]:
    """Take what is held of these entries out of the sums, and return it; blocks that are `leaving` go by themselves."""
    held = [one for one in held_rows(tx, shelf, set_id, entry_ids) if block_id(one.block) not in leaving]
    for one in held:
        if one.block.kind in BARE:
            _take_refused_away(tx, shelf, one, sums)
        else:
            sums.take_away(one.block.label, one.rows, one.parts)
    return held


def pack_items(items: Mapping[int, Ints]) -> bytes:
    """The items of refused rows by group code, as bytes to keep in place of their values."""
    return b"".join(bytes([part]) + found.tobytes() for part, found in sorted(items.items()))


def _take_refused_away(tx: Transaction, shelf: Shelf, held: Held, sums: Sums) -> None:
    """Subtract the items kept in place of the values: the rows' positions tell which."""
    raw = shelf.items(tx, held.block)
    with shelf.index(tx, held.block.set_id) as index:
        positions = index.locate(held.rows.ints("entry_id")).row
    size = 16 * held.block.count
    for at in range(0, len(raw), 1 + size):
        items = digest.parse_items(raw[at + 1 : at + 1 + size])
        sums.move(held.block.label, raw[at], EMPTY - digest.sum_items(items[positions]))
