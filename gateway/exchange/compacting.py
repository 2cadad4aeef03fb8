"""Joining small blocks: what many small changes left behind, read and sent as if it had come at once.

A block costs its header and a millisecond, however few rows it has, and a row that was replaced costs as much as any
other. So blocks of one chain (set, epoch, kind, label, shape) that have become many are written anew as one, without
the values of rows that were replaced. In one transaction:

    1 the blocks, as they are now, with what the index says of each row
    2 current rows   of an own set and of a mirror: they stay, under the same seq, in a block of their chain
      replaced rows  of a mirror: they go, nobody is served from it
                     of an own set: their place stays (`HISTORY`: kind, seq, entry id, version, time, prev_seq,
                     prev_label), so that a follower at whatever cursor is told exactly what it would have been told
    3 the new blocks arrive, the old ones are dropped; a leaf names the leaves of both

What is current after that is what was current before: only current rows arrive again, and each of them was the last of
its entry already. Nothing of what is sent changes, and no sum.

Rules:
- Chains of an own set are divided at the multiples of `SEGMENT_SEQS` (`paging`), so that pages still end somewhere.
- What a follower near the end of a set has yet to get stays as it came: the changes since its cursor then lie in blocks
  of their own, whatever the size of the set.
- Blocks of which a mirror holds its hub's signature (`recovering`) stay as they came, until that is forgotten.
- Neighbours are joined when there are `FAN_IN` of them, none larger than all newer ones together: each row is written
  anew a dozen times at most until its block is full.
- Withdrawals of an own set, and replaced rows whose successor is in the same batch, are forgotten when they are older
  than `history_days`. A follower that stands before that horizon and began before it is told to compare (`Server`).
- Mirrors remember withdrawals for ever: some ten bytes each.
- A joined block came when the oldest of its rows came, so that joining never puts off a day on which a label's duty has
  its entries deleted (`duties`). And under such a duty only rows are joined that came within a thirtieth of its days of
  each other: so much earlier they may go.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, groupby

from gateway.audit import Event, EventKind
from gateway.columns.block import Block, BlockHeader, cut, decode, encode_block
from gateway.columns.index import SetIndex
from gateway.columns.rows import Ints, Mask, Rows, concat, constant, grouped, indexes, integers, joined
from gateway.columns.sketch import among
from gateway.errors import ConflictError, OverloadedError
from gateway.exchange.changes import pack_items
from gateway.exchange.contents import kept_items
from gateway.exchange.labels import binding_duties
from gateway.exchange.paging import SEGMENT_SEQS, cost
from gateway.exchange.shelf import BARE, CHANGES, HISTORY, REMOVALS, Shelf, block_id, stored_header
from gateway.model import ChangeKind
from gateway.node import Node
from gateway.policy import Duty
from gateway.policy.duties import days_of
from gateway.store import Transaction
from gateway.store.tables import BlockRow, HashSet

FAN_IN = 4  # blocks that are worth joining
DEAD_SHARE = 2  # a block is written anew alone when one row in so many was replaced
MAX_BATCH = 65_536  # changes of one transaction, as `paging.cost` counts them: as much as one page, or one import batch
MAX_BLOCKS = 2_048  # of one transaction: the event that binds them names 35 KB of leaves at the most
HOUSE_SECONDS = 5  # a minute, while the schedule keeps house
HOUSE_BATCHES = 16  # … and no more than these: a clock may stand
LOOK_BLOCKS = 64  # new ones; a large set has thousands, which are half a second to look through
LOOK_SECONDS = 3_600
AWAY_DAYS = 7  # a follower that was not heard of for so long reads whole pages as well
HISTORY_COLUMNS = ("kind", "seq", "entry_id", "version", "changed_at", "prev_seq", "prev_label")
WINDOWS_OF_A_TERM = 30  # so many blocks stay apart at the least of what is to be deleted some day
DAY_SECONDS = 86_400


@dataclass(frozen=True, slots=True)
class Compacted:
    """What compaction did: blocks before and after, rows that were forgotten, bytes of headers and parts saved."""

    old: int = 0
    new: int = 0
    forgotten: int = 0
    saved_bytes: int = 0

    def __add__(self, other: Compacted) -> Compacted:
        return Compacted(
            self.old + other.old,
            self.new + other.new,
            self.forgotten + other.forgotten,
            self.saved_bytes + other.saved_bytes,
        )


@dataclass(frozen=True, slots=True, order=True)
class _Chain:
    """Blocks that can become one: rows of one kind, label and shape (and of refused ones, of the same field groups)."""

    segment: int
    epoch: int
    kind: str
    label: int
    digest: bytes  # of the label
    shape: int
    window: int = 0  # of arrival, where the label's entries are to be deleted some day
    parts: str = ""


@dataclass(slots=True)
class _Piece:
    """Rows that go to one chain, with their items by group code where there are no values; when the oldest came."""

    rows: Rows
    arrived: int
    items: dict[int, Ints] = field(default_factory=dict)


@dataclass(slots=True)
class _Batch:
    """What one transaction makes of some blocks."""

    pieces: dict[_Chain, list[_Piece]] = field(default_factory=dict)
    windows: Mapping[int, int] = field(default_factory=dict)  # by label: seconds of arrival that are joined
    forgotten: int = 0
    horizon: int = 0

    def add(self, of: _Chain, piece: _Piece) -> None:
        """Put rows with those of their chain."""
        if piece.rows.n:
            self.pieces.setdefault(of, []).append(piece)

    def clear_away(self) -> None:
        """Chains of which nothing is left are none."""
        left = {of: [piece for piece in pieces if piece.rows.n] for of, pieces in self.pieces.items()}
        self.pieces = {of: pieces for of, pieces in left.items() if pieces}


class Compacting:
    """Joins the blocks of own sets and of mirrors."""

    def __init__(self, node: Node, shelf: Shelf) -> None:
        self._node = node
        self._shelf = shelf
        self._tidy: dict[int, tuple[int, int]] = {}  # set -> newest block, and when, as nothing was worth it
        self._solid: set[int] = set()  # blocks that did not become fewer: they are full of text

    def compact(self, name: str, *, on_batch: Callable[[Compacted], None] = lambda _done: None) -> Compacted:
        """Join what is worth joining in a set; returns what that did. Others write in between.

        Args:
            on_batch: told after each transaction what was done so far.
        """
        with self._node.store.reading() as tx:
            set_id = _id(tx.sets.get(name))
        done = Compacted()
        for some in self._batches(set_id):
            done += some
            on_batch(done)
        return done

    def keep_house(self) -> Compacted:
        """Join something in every set for some seconds; what is left waits for the next time."""
        until = self._node.clock() + HOUSE_SECONDS
        with self._node.store.reading() as tx:
            numbers = [_id(row) for row in tx.sets.stored()]
        done = Compacted()
        try:
            worth_a_look = [number for number in numbers if self._has_grown(number)]
            for batches, some in enumerate(chain.from_iterable(map(self._batches, worth_a_look)), 1):
                done += some
                if batches == HOUSE_BATCHES or self._node.clock() >= until:
                    break
        except (ConflictError, OverloadedError):
            return done  # another deed came between, or the database is busy: the next time finds what is left
        return done

    def _batches(self, set_id: int) -> Iterator[Compacted]:
        """One transaction after the other, until nothing is worth it any more."""
        while jobs := self._jobs(set_id):
            for some in _bounded(jobs):
                yield self._rewrite(set_id, some)

    # Which blocks

    def _has_grown(self, set_id: int) -> bool:
        """Whether the blocks of a set are worth looking through again: many are new, or it is a while ago."""
        known = self._tidy.get(set_id)
        with self._node.store.reading() as tx:
            last = tx.blocks.last_id(set_id)
        return known is None or last - known[0] >= LOOK_BLOCKS or self._node.clock() - known[1] >= LOOK_SECONDS

    def _jobs(self, set_id: int) -> list[list[BlockRow]]:
        """Blocks to be written anew, those that belong together in one list."""
        with self._shelf.reading(self._node.store) as tx:
            hash_set = tx.sets.by_id(set_id)
            settled = self._settled(tx, hash_set)
            state = tx.blocks.last_id(set_id), self._node.clock()
            rows = [row for row in tx.blocks.of_set(set_id) if _is_settled(row, hash_set, settled)]
            with self._shelf.index(tx, set_id) as index:
                dead = {block_id(row): row.count - int(index.live_rows(block_id(row)).sum()) for row in rows}
            windows = _windows(self._node, tx, hash_set)
        loose = [row for row in rows if block_id(row) not in self._solid]
        jobs = [list(job) for job in _jobs_of(loose, hash_set, dead, windows)]
        if not jobs:
            self._tidy[set_id] = state
        return jobs

    def _settled(self, tx: Transaction, hash_set: HashSet) -> int:
        """Of an own set the seq, of a mirror the block, up to which blocks may be joined."""
        if hash_set.hub:
            first = tx.evidence.first_block(_id(hash_set))
            return tx.blocks.last_id(_id(hash_set)) if first is None else first - 1
        since = self._node.clock() - AWAY_DAYS * DAY_SECONDS
        followers = [row for row in tx.sets.followers(_id(hash_set)) if row.epoch == hash_set.epoch and row.at >= since]
        # Who is further behind reads whole pages anyway, and must not keep blocks small for ever.
        near = [row.seq for row in followers if row.seq + SEGMENT_SEQS >= hash_set.seq]
        return min(near, default=hash_set.seq)

    # One transaction

    def _rewrite(self, set_id: int, numbers: Sequence[int]) -> Compacted:
        """Write these blocks anew; ConflictError where they are no longer all there."""
        with self._node.store.transaction() as tx:
            hash_set = tx.sets.by_id(set_id)
            # 1. The blocks as they are now.
            stored = list(tx.blocks.some(numbers).values())
            if len(stored) < len(numbers):
                raise ConflictError("the set was rewritten meanwhile")
            # 2. Their rows by chain; what is too old to be remembered goes.
            read = [decode(block) for block in self._shelf.get_all(tx, stored)]
            with self._shelf.index(tx, set_id) as index:
                current = [_current(index, row, rows) for row, rows in zip(stored, read, strict=True)]
            batch = _Batch(windows=_windows(self._node, tx, hash_set))
            for row, rows, mask in zip(stored, read, current, strict=True):
                self._sort(tx, batch, hash_set, row, rows, mask)
            if not hash_set.hub:
                self._forget(tx, batch, hash_set, stored)
            made = [(of, *self._joined(hash_set, of, batch.pieces[of])) for of in sorted(batch.pieces)]
            blocks = [block for _, some, _ in made for block in some]
            # 3. The new ones arrive before the old ones go: the later row of an entry wins. A crash before the commit
            #    leaves the old ones, after it the new ones.
            event = self._event(tx, hash_set, stored, blocks, batch.forgotten)
            leaf, first = tx.log.append([event], blocks=[block.digest for block in blocks]), tx.blocks.next_id()
            for of, some, items in made:
                arrived = min(piece.arrived for piece in batch.pieces[of])
                self._shelf.put(tx, set_id, of.kind, some, first_leaf=leaf, items=items, arrived=arrived)
                leaf += len(some)
            tx.blocks.drop(set_id, [block_id(row) for row in stored])
            if batch.horizon > hash_set.horizon:
                tx.sets.set_horizon(set_id, batch.horizon)
        self._note_solid(hash_set, stored, [(of, len(some)) for of, some, _ in made], first, batch.windows)
        before = sum(_bytes(stored_header(row)) for row in stored)
        after = sum(_bytes(block.header) for block in blocks)
        return Compacted(len(stored), len(blocks), batch.forgotten, before - after)

    def _note_solid(
        self,
        hash_set: HashSet,
        stored: Sequence[BlockRow],
        made: Sequence[tuple[_Chain, int]],
        first: int,
        windows: Mapping[int, int],
    ) -> None:
        """Remember chains that have as many blocks as before, so that they are not written anew for ever."""
        old, new = Counter(_chain_of(row, hash_set, windows) for row in stored), Counter[_Chain]()
        for of, count in made:
            new[replace(of, parts="")] += count
        for of, count in made:
            if FAN_IN <= old[replace(of, parts="")] <= new[replace(of, parts="")]:
                self._solid.update(range(first, first + count))
            first += count

    def _event(
        self, tx: Transaction, hash_set: HashSet, stored: Sequence[BlockRow], blocks: Sequence[Block], forgotten: int
    ) -> Event:
        """Binds the leaves of old and new blocks together."""
        details: dict[str, object] = {
            "set": hash_set.name,
            "epoch": hash_set.epoch,
            "old": _ranges(sorted(row.leaf for row in stored)),
            "new": _ranges(range(tx.log.size(), tx.log.size() + len(blocks))),
            "changes": sum(block.header.count for block in blocks),
            "forgotten": forgotten,
        }
        actor = self._node.agency
        return self._node.event(EventKind.BLOCKS_COMPACTED, actor=actor, subject=hash_set.name, details=details)

    def _sort(  # noqa: PLR0917  one block, and which of its rows count
        self, tx: Transaction, batch: _Batch, hash_set: HashSet, row: BlockRow, rows: Rows, current: Mask
    ) -> None:
        """Part the rows of a block: those that are current, and those of which no more than their place stays."""
        if row.kind == HISTORY:
            self._put(batch, hash_set, row, _Piece(rows, row.arrived), HISTORY)
            return
        items: dict[int, Ints] = {}
        if row.kind in BARE:
            kept = kept_items(self._shelf.items(tx, row), row.count)
            items = {part: found[current] for part, found in kept.items()}
        self._put(batch, hash_set, row, _Piece(rows.take(current), row.arrived, items), row.kind)
        if hash_set.hub:
            batch.forgotten += row.count - int(current.sum())
        elif not current.all():
            history = rows.take(~current).select(HISTORY_COLUMNS)
            self._put(batch, hash_set, row, _Piece(history, row.arrived), HISTORY)

    def _put(self, batch: _Batch, hash_set: HashSet, row: BlockRow, piece: _Piece, kind: str) -> None:
        """Rows with those of their chains, divided where segments end."""
        parts = " ".join(map(str, sorted(piece.items)))
        digest, shape = stored_header(row).label_digest, piece.rows.shape
        window = _window(row, batch.windows)
        for segment, where in grouped(_segments(hash_set, piece.rows)):
            of = _Chain(segment, row.epoch, kind, row.label, digest, shape, window, parts)
            items = {part: found[where] for part, found in piece.items.items()}
            batch.add(of, _Piece(piece.rows.take(where), piece.arrived, items))

    def _joined(self, hash_set: HashSet, of: _Chain, pieces: Sequence[_Piece]) -> tuple[list[Block], list[bytes]]:
        """The blocks of a chain out of its pieces, with the items of each where there are no values."""
        rows = concat([piece.rows for piece in pieces])
        order = rows.ints("seq").argsort(kind="stable")
        rows = rows.take(order)
        if of.kind == REMOVALS:
            rows = _apart(_last_of_each(rows))
        items = {part: _stacked([piece.items[part] for piece in pieces])[order] for part in map(int, of.parts.split())}
        blocks, packed, at = [], [], 0
        for piece in cut(rows):
            blocks.append(
                encode_block(
                    set_name=hash_set.name,
                    epoch=of.epoch,
                    label=of.label,
                    label_digest=of.digest,
                    rows=piece,
                    salt=self._shelf.salt,
                )
            )
            if of.kind in BARE:
                packed.append(pack_items({part: found[at : at + piece.n] for part, found in items.items()}))
            at += piece.n
        return blocks, packed

    # What is too old

    def _forget(self, tx: Transaction, batch: _Batch, hash_set: HashSet, stored: Sequence[BlockRow]) -> None:
        """Drop withdrawals that are older than the settings say, and replaced rows whose successor is as old."""
        before = self._node.clock() - self._node.settings.history_days * DAY_SECONDS
        self._forget_history(batch, before)
        self._forget_withdrawals(tx, batch, hash_set, stored, before)

    def _forget_history(self, batch: _Batch, before: int) -> None:
        """Hand the place of a replaced row on to its successor, where both are here and the successor is old enough."""
        every = [piece for pieces in batch.pieces.values() for piece in pieces]
        history = joined([p.rows.ints("seq") for of, some in batch.pieces.items() if of.kind == HISTORY for p in some])
        successors = [
            _changed_before(piece.rows, before) & among(piece.rows.ints("prev_seq"), history) for piece in every
        ]
        if not any(mask.any() for mask in successors):
            return
        # What stands before a row, by its seq: of those that are replaced, and of their successors.
        stands: dict[int, tuple[int, int]] = {}
        heirs: list[int] = []
        for piece, mask in zip(every, successors, strict=True):
            chosen = mask | among(piece.rows.ints("seq"), history)
            seqs, prev_seqs, prev_labels = (
                piece.rows.ints(name)[chosen].tolist() for name in ("seq", "prev_seq", "prev_label")
            )
            stands.update(zip(seqs, zip(prev_seqs, prev_labels, strict=True), strict=True))
            heirs += piece.rows.ints("seq")[mask].tolist()
        gone: set[int] = set()
        for seq in sorted(heirs):
            replaced, _ = stands[seq]
            stands[seq] = stands[replaced]
            gone.add(replaced)
            batch.horizon = max(batch.horizon, seq)
        batch.forgotten += len(gone)
        touched = integers(sorted({*gone, *heirs}))
        for piece in every:
            if among(piece.rows.ints("seq"), touched).any():
                piece.rows = _handed_on(piece.rows, stands, gone)
        batch.clear_away()

    def _forget_withdrawals(
        self, tx: Transaction, batch: _Batch, hash_set: HashSet, stored: Sequence[BlockRow], before: int
    ) -> None:
        old = [
            (piece, mask)
            for of, pieces in batch.pieces.items()
            if of.kind == CHANGES and of.shape == 0
            for piece in pieces
            if (mask := _changed_before(piece.rows, before) & (piece.rows.ints("kind") == ChangeKind.WITHDRAW)).any()
        ]
        if not old:
            return
        # An older row of such an entry that still stands in a block would be current again.
        dirty = self._first_replaced(tx, hash_set, {block_id(row) for row in stored})
        for piece, mask in old:
            gone = mask & (piece.rows.ints("prev_seq") < dirty)
            if gone.any():
                batch.horizon = max(batch.horizon, int(piece.rows.ints("seq")[gone].max()))
                batch.forgotten += int(gone.sum())
                piece.rows = piece.rows.take(~gone)
        batch.clear_away()

    def _first_replaced(self, tx: Transaction, hash_set: HashSet, rewritten: set[int]) -> int:
        """The first seq in a block, but for those rewritten, in which a row may stand that was replaced."""
        others = [
            row
            for row in tx.blocks.of_set(_id(hash_set))
            if row.kind == CHANGES and block_id(row) not in rewritten and stored_header(row).shape
        ]
        with self._shelf.index(tx, _id(hash_set)) as index:
            replaced = [row.first_seq for row in others if not index.live_rows(block_id(row)).all()]
        return min(replaced, default=hash_set.seq + 1)


# Which blocks are worth it


def _jobs_of(
    rows: Sequence[BlockRow], hash_set: HashSet, dead: dict[int, int], windows: Mapping[int, int]
) -> Iterator[Sequence[BlockRow]]:
    """Runs of neighbours in one chain that are many and alike, and blocks with many replaced rows."""
    chosen: set[int] = set()
    keyed = sorted(((_chain_of(row, hash_set, windows), row.first_seq, block_id(row)), row) for row in rows)
    for _, members in groupby(keyed, key=lambda pair: pair[0][0]):
        for run in _alike([row for _, row in members]):
            chosen.update(map(block_id, run))
            yield run
    for row in rows:
        if block_id(row) not in chosen and _is_mostly_replaced(row, dead[block_id(row)]):
            yield [row]


def _chain_of(row: BlockRow, hash_set: HashSet, windows: Mapping[int, int]) -> _Chain:
    """The chain of a block. Of one that reaches over the end of a segment the rest will be of the next chain."""
    segment = 0 if hash_set.hub else (row.first_seq - 1) // SEGMENT_SEQS
    header = stored_header(row)
    window = _window(row, windows)
    return _Chain(segment, row.epoch, row.kind, row.label, header.label_digest, header.shape, window)


def _windows(node: Node, tx: Transaction, hash_set: HashSet) -> dict[int, int]:
    """Of each label of a mirror whose entries are to be deleted some day, how many seconds of arrival are joined."""
    if not hash_set.hub:
        return {}
    duties = binding_duties(node, hash_set, tx.sets.labels(_id(hash_set)))
    terms = {number: days_of(texts, Duty.RETAIN_DAYS) for number, texts in duties.items()}
    return {number: max(1, days // WINDOWS_OF_A_TERM) * DAY_SECONDS for number, days in terms.items() if days}


def _window(row: BlockRow, windows: Mapping[int, int]) -> int:
    width = windows.get(row.label)
    return 0 if width is None else row.arrived // width


def _alike(members: Sequence[BlockRow]) -> Iterator[Sequence[BlockRow]]:
    """Runs of at least `FAN_IN` neighbours, none larger than all newer ones of its run together."""
    run: list[BlockRow] = []
    size = 0
    for row in reversed(members):
        if run and (row.count > size or size + row.count > MAX_BATCH):
            if len(run) >= FAN_IN:
                yield run[::-1]
            run, size = [], 0
        run.append(row)
        size += row.count
    if len(run) >= FAN_IN:
        yield run[::-1]


def _is_mostly_replaced(row: BlockRow, dead: int) -> bool:
    """Whether so many rows were replaced that a block is worth writing anew by itself.

    What has no digests says of none of its rows that it is live: removals, withdrawals, history.
    """
    has_values = row.kind in BARE or (row.kind == CHANGES and bool(stored_header(row).shape))
    return has_values and row.count >= FAN_IN and dead * DEAD_SHARE >= row.count


def _is_settled(row: BlockRow, hash_set: HashSet, settled: int) -> bool:
    if hash_set.hub:
        return block_id(row) <= settled
    return row.epoch == hash_set.epoch and row.last_seq <= settled


def _bounded(jobs: Iterable[Sequence[BlockRow]]) -> Iterator[list[int]]:
    """The blocks of jobs in batches that one transaction can rewrite; a job too large for one goes in parts."""
    some: list[int] = []
    spent = 0
    for job in jobs:
        for row in job:
            if some and (spent + cost(row) > MAX_BATCH or len(some) == MAX_BLOCKS):
                yield some
                some, spent = [], 0
            some.append(block_id(row))
            spent += cost(row)
    if some:
        yield some


# Rows


def _current(index: SetIndex, row: BlockRow, rows: Rows) -> Mask:
    """Which rows of a block say what their entries are now: live ones, and removals of what has not come back."""
    live = index.live_rows(block_id(row))
    if row.kind == HISTORY or live.all():
        return live
    ids, kinds = rows.ints("entry_id"), rows.ints("kind")
    withdrawn, listed = index.withdrawn(ids), index.locate(ids).found
    gone = (kinds == ChangeKind.WITHDRAW) & withdrawn
    left = (kinds == ChangeKind.LEAVE) & ~withdrawn & ~listed
    current: Mask = live | gone | left
    return current


def _segments(hash_set: HashSet, rows: Rows) -> Ints:
    if hash_set.hub:
        return constant(0, rows.n)
    return (rows.ints("seq") - constant(1, rows.n)) // SEGMENT_SEQS


def _last_of_each(rows: Rows) -> Rows:
    """The rows without those of entries that come again below."""
    last = {entry: place for place, entry in enumerate(rows.ints("entry_id").tolist())}
    return rows if len(last) == rows.n else rows.take(indexes(sorted(last.values())))


def _apart(rows: Rows) -> Rows:
    """The rows with a seq each: those with which a mirror marks entries as gone only order them."""
    seqs, least = [], 0
    for seq in rows.ints("seq").tolist():
        least = max(seq, least + 1)
        seqs.append(least)
    return rows.with_columns(Rows.of(len(seqs), {"seq": seqs}).columns)


def _changed_before(rows: Rows, before: int) -> Mask:
    """Rows that are known to be from before a time."""
    changed_at = rows.ints("changed_at")
    return (changed_at > 0) & (changed_at < max(before, 0))


def _handed_on(rows: Rows, stands: Mapping[int, tuple[int, int]], gone: Container[int]) -> Rows:
    """The rows but for those that go, each with what stands before it now."""
    seqs = rows.ints("seq").tolist()
    stays = indexes([place for place, seq in enumerate(seqs) if seq not in gone])
    rows = rows.take(stays)
    before = zip(rows.ints("prev_seq").tolist(), rows.ints("prev_label").tolist(), strict=True)
    after = [stands.get(seqs[place], old) for place, old in zip(stays.tolist(), before, strict=True)]
    handed = {"prev_seq": [seq for seq, _ in after], "prev_label": [label for _, label in after]}
    return rows.with_columns(Rows.of(rows.n, handed).columns)


def _stacked(pieces: Sequence[Ints]) -> Ints:
    """Items (n × 2) one below the other."""
    return joined([piece.reshape(-1) for piece in pieces]).reshape(-1, 2)


def _bytes(header: BlockHeader) -> int:
    return len(header.encode()) + sum(part.stored_bytes for part in header.parts)


def _ranges(numbers: Iterable[int]) -> list[str]:
    """Ascending numbers, those that follow each other as "first-last"."""
    found: list[list[int]] = []
    for number in numbers:
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return [str(first) if first == last else f"{first}-{last}" for first, last in found]


def _id(hash_set: HashSet) -> int:
    assert hash_set.id is not None, "a stored set has an id"
    return hash_set.id
