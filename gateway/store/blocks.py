"""Sealed column blocks as BLOBs: a row for the block, a row for each part."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import Connection, bindparam, delete, exists, insert, or_, select
from sqlalchemy import func as sql

from gateway.store.tables import BlockPart, BlockPartTable, BlockRow, BlockTable, DroppedBlock, columns
from gateway.store.upserts import add_many

PART = columns(BlockPartTable)
BLOCK = columns(BlockTable)
DROPPED = columns(DroppedBlock)
MAX_ASKED_AT_ONCE = 500  # values of one IN list: SQLite took 999 variables at most before 3.32

# Made once: building a statement costs more than running it.
_LAST_NUMBERS = select(select(sql.max(BLOCK.id)).scalar_subquery(), select(sql.max(DROPPED.block_id)).scalar_subquery())
_OF_SET = (
    select(*BLOCK)
    .where(BLOCK.set_id == bindparam("set_id"), BLOCK.id > bindparam("after_id"))
    .where(BLOCK.last_seq > bindparam("after_seq"))
    .order_by(BLOCK.id)
)
_BEYOND = (
    select(*BLOCK)
    .where(BLOCK.set_id == bindparam("set_id"), BLOCK.epoch == bindparam("epoch"))
    .where(BLOCK.last_seq > bindparam("after"), BLOCK.first_seq <= bindparam("until"))
    .order_by(BLOCK.last_seq)
    .limit(bindparam("most"))
)
_BEYOND_OF_LABEL = _BEYOND.where(BLOCK.label == bindparam("label"))
_SOME = select(*BLOCK).where(BLOCK.id.in_(bindparam("ids", expanding=True))).order_by(BLOCK.id)
_PARTS = (
    select(PART.block_id, PART.part, PART.sealed)
    .where(PART.block_id.in_(bindparam("ids", expanding=True)), PART.part.in_(bindparam("parts", expanding=True)))
    .order_by(PART.block_id, PART.part)
)
_ALL_PARTS = (
    select(PART.block_id, PART.part, PART.sealed)
    .where(PART.block_id.in_(bindparam("ids", expanding=True)))
    .order_by(PART.block_id, PART.part)
)
_LAST_ID = select(sql.max(BLOCK.id)).where(BLOCK.set_id == bindparam("set_id"))
_LAST_DROP = select(sql.max(DROPPED.id)).where(DROPPED.set_id == bindparam("set_id"))
_SEEN = select(
    or_(
        exists().where(BLOCK.id == bindparam("block_id")),
        exists().where(DROPPED.block_id == bindparam("block_id")),
    )
)
_DROPS = (
    select(DROPPED.id, DROPPED.block_id)
    .where(DROPPED.set_id == bindparam("set_id"), DROPPED.id > bindparam("after"))
    .order_by(DROPPED.id)
)


class Blocks:
    """Blocks of all sets. Bytes come and go sealed: this module knows no key.

    `changed`: whether this transaction has added or dropped any.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.changed = False

    def next_id(self) -> int:
        """The id that the next block will get: its sealing context names it."""
        [numbers] = self._connection.execute(_LAST_NUMBERS)
        return max(number or 0 for number in numbers) + 1

    def add(self, blocks: Sequence[BlockRow], parts: Sequence[BlockPart]) -> None:
        """Add blocks and their parts."""
        if blocks:
            self.changed = True
            add_many(self._connection, BlockTable, [vars(row) for row in blocks])
            add_many(self._connection, BlockPartTable, [vars(row) for row in parts])

    def of_set(self, set_id: int, *, after_id: int = 0, after_seq: int = -1) -> list[BlockRow]:
        """Blocks of a set in order of arrival, those after an id or that reach beyond a seq."""
        asked = {"set_id": set_id, "after_id": after_id, "after_seq": after_seq}
        return [BlockRow(**row._mapping) for row in self._connection.execute(_OF_SET, asked)]

    def beyond(
        self, set_id: int, epoch: int, after: int, until: int, *, most: int, label: int | None = None
    ) -> list[BlockRow]:
        """The first blocks of a set (or of a label of it) that hold changes in (after, until], by their last seq.

        However large the set is, no more of it is read.
        """
        query = _BEYOND if label is None else _BEYOND_OF_LABEL
        asked = {"set_id": set_id, "epoch": epoch, "after": after, "until": until, "most": most, "label": label}
        return [BlockRow(**row._mapping) for row in self._connection.execute(query, asked)]

    def last_id(self, set_id: int) -> int:
        """The id of the newest block of a set, 0 without one."""
        return int(self._connection.execute(_LAST_ID, {"set_id": set_id}).scalar() or 0)

    def of_earlier_epochs(self, set_id: int, epoch: int) -> list[int]:
        """Blocks of a set that are from before an epoch, in order of arrival."""
        query = select(BLOCK.id).where(BLOCK.set_id == set_id, BLOCK.epoch < epoch).order_by(BLOCK.id)
        return [int(number) for number in self._connection.execute(query).scalars()]

    def kinds(self, set_id: int) -> set[tuple[int, str]]:
        """(label, kind) of the blocks of a set."""
        query = select(BLOCK.label, BLOCK.kind).where(BLOCK.set_id == set_id).distinct()
        return {(int(label), str(kind)) for label, kind in self._connection.execute(query)}

    def arrivals(self, set_id: int, kind: str) -> dict[int, tuple[int, int]]:
        """By label, when the oldest rows in blocks of a kind came (Unix seconds), and how many rows there are."""
        query = select(BLOCK.label, sql.min(BLOCK.arrived), sql.sum(BLOCK.count))
        found = self._connection.execute(query.where(BLOCK.set_id == set_id, BLOCK.kind == kind).group_by(BLOCK.label))
        return {int(label): (int(first), int(count)) for label, first, count in found}

    def arrived_until(self, set_id: int, kind: str, label: int, until: int, most: int) -> list[BlockRow]:
        """Blocks of one kind and label whose rows came until a time (Unix seconds), the oldest first."""
        query = select(*BLOCK).where(BLOCK.set_id == set_id, BLOCK.label == label, BLOCK.kind == kind)
        query = query.where(BLOCK.arrived <= until).order_by(BLOCK.arrived, BLOCK.id).limit(most)
        return [BlockRow(**row._mapping) for row in self._connection.execute(query)]

    def rows_arrived(self, set_id: int, kind: str, label: int, until: int) -> int:
        """How many rows are in such blocks."""
        query = select(sql.sum(BLOCK.count)).where(BLOCK.set_id == set_id, BLOCK.label == label, BLOCK.kind == kind)
        return int(self._connection.execute(query.where(BLOCK.arrived <= until)).scalar() or 0)

    def get(self, block_id: int) -> BlockRow | None:
        """One block, or None."""
        return self.some([block_id]).get(block_id)

    def some(self, block_ids: Sequence[int]) -> dict[int, BlockRow]:
        """Those of these blocks that are there, by id."""
        found = {}
        for start in range(0, len(block_ids), MAX_ASKED_AT_ONCE):
            asked = {"ids": list(block_ids[start : start + MAX_ASKED_AT_ONCE])}
            for row in self._connection.execute(_SOME, asked):
                found[row.id] = BlockRow(**row._mapping)
        return found

    def parts(self, block_id: int, wanted: Iterable[int] | None = None) -> dict[int, bytes]:
        """Sealed parts of a block by group code; only those wanted are read."""
        return self.parts_of([block_id], wanted)[block_id]

    def parts_of(self, block_ids: Sequence[int], wanted: Iterable[int] | None = None) -> dict[int, dict[int, bytes]]:
        """Sealed parts of several blocks by block and group code; only those wanted are read."""
        groups = None if wanted is None else list(wanted)
        found: dict[int, dict[int, bytes]] = {number: {} for number in block_ids}
        for start in range(0, len(block_ids), MAX_ASKED_AT_ONCE):
            ids = list(block_ids[start : start + MAX_ASKED_AT_ONCE])
            query, asked = (_ALL_PARTS, {"ids": ids}) if groups is None else (_PARTS, {"ids": ids, "parts": groups})
            for number, part, sealed in self._connection.execute(query, asked):
                found[number][part] = bytes(sealed)
        return found

    def drop(self, set_id: int, block_ids: Sequence[int]) -> None:
        """Delete blocks with their keys (secure_delete overwrites them) and tell the other nodes."""
        if not block_ids:
            return
        self.changed = True
        for start in range(0, len(block_ids), MAX_ASKED_AT_ONCE):
            some = block_ids[start : start + MAX_ASKED_AT_ONCE]
            self._connection.execute(delete(BlockPartTable).where(PART.block_id.in_(some)))
            self._connection.execute(delete(BlockTable).where(BLOCK.id.in_(some)))
        self._connection.execute(insert(DroppedBlock), [{"set_id": set_id, "block_id": b} for b in block_ids])

    def has_seen(self, block_id: int) -> bool:
        """Whether this transaction reads a state from after the arrival of a block, which may be gone since."""
        return bool(self._connection.execute(_SEEN, {"block_id": block_id}).scalar_one())

    def last_drop(self, set_id: int) -> int:
        """The id of the newest drop of a set, 0 without one."""
        return int(self._connection.execute(_LAST_DROP, {"set_id": set_id}).scalar() or 0)

    def dropped(self, set_id: int, after: int) -> list[tuple[int, int]]:
        """(drop id, block id) of drops after a drop id."""
        found = self._connection.execute(_DROPS, {"set_id": set_id, "after": after})
        return [(int(a), int(b)) for a, b in found]
