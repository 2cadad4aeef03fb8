"""The resident index of one set: where an entry stands now, and which entries carry a digest.

It is rebuilt from blocks at start and follows every commit. It answers with (block number, row), never with values: the
caller reads the block, compares the whole digest, and only then believes it.

Rules:
- Blocks are appended in order of arrival. A later row of an entry wins over every earlier one, whatever it says.
- A row is *live* while it is the last of its entry and an assert. A dead row never comes back: dropping a block leaves
  the older rows of its entries dead.
- Compaction and erasing append the rewritten block first and drop the old one after.

How: rows are numbered in order of arrival. Entries are kept as segments (first id, first row, length), since ids are
given out in runs; digests as runs of (64-bit short id, row number). A short id is a keyed multilinear hash over
algorithm and digest, so that no one can choose digests that crowd one place; and since short ids are spread evenly, a
run needs no sorting: it is grouped by the top bits of its short ids, two to four in a group, and a table says where
each group begins. Grouping by 16 bits is one pass of numpy's radix sort, a tenth of what sorting 64-bit integers costs.
Runs are merged when they are next searched, and only those that are not much larger than all newer ones together: a
batch into a large index costs little more than itself, and many batches with no search between them are grouped once. A
**full** run is left alone for good, so that no merge takes long, or more memory than two full runs do. Dead rows fall
out on the way, and out of a full run once half of it is dead. 13 to 14 bytes a digest, 14 a segment, 1 byte a row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from threading import Lock
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from gateway.columns.digest import KEY_BYTES, Words, multilinear, octet_words
from gateway.columns.rows import Column, ColumnKind, Index, Ints, Mask, Octets, Text, offsets_of, registered
from gateway.errors import ConflictError, MalformedError, NotFoundError, OverloadedError

MAX_INDEX_ROWS = 1 << 32  # row numbers are 32 bits wide; starting again numbers the live blocks anew
MAX_SEGMENT = 1 << 16  # ids in one segment: its length less one fits 16 bits
_DEAD, _LIVE, _WITHDRAWN, _LEFT = range(4)  # what a row says now
_CHUNK_ROWS = 8192  # keeps the scratch arrays of a step in the cache
_KEYS_IN_GROUP = 4  # at the most, on average: one or two bytes a key for the table, and one cache line to look at
_RADIX_BITS = 16  # numpy sorts 16-bit integers by radix, wider ones by comparing
_GROWTH = 4  # a run is left alone while it has this many times the keys of all newer ones: few runs, few moves
_FULL = 1 << 23  # keys: 110 MB, some 200 ms to merge; ten million entries with three digests each fill three such runs
_KEY_CONTEXT = b"hash-index 1\n"
States: TypeAlias = npt.NDArray[np.uint8]
RowNumbers: TypeAlias = npt.NDArray[np.uint32]
Digests: TypeAlias = Mapping[str, Octets | Text]


@dataclass(frozen=True, slots=True, eq=False)
class Arrival:
    """One block as the index takes it in: its number, and of each row the entry, what can be asked for, the kind.

    `poor`: rows whose PDQ digest says too little to be near anything (None: none of them).
    """

    block_no: int
    entry_ids: Ints
    digests: Digests
    kinds: Ints
    poor: Mask | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Located:
    """For each entry asked for: whether it is here, and in which row of which block (0 where it is not)."""

    found: Mask
    block_no: Index
    row: Index


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """Rows that probably carry a digest asked for: query number, block and row, by ascending query."""

    query: Index
    block_no: Index
    row: Index


@dataclass(frozen=True, slots=True, eq=False)
class _Segments:
    """Runs of ids that stand in runs of rows: first id (ascending), first row, length - 1. They do not overlap."""

    first: Ints
    row: RowNumbers
    more: npt.NDArray[np.uint16]


@dataclass(frozen=True, slots=True, eq=False)
class _Run:
    """Short ids with the rows that carry them, grouped by their top `bits` bits.

    Those whose top bits are t stand from `table[t]` to `table[t + 1]`, in any order.
    """

    keys: Ints
    rows: RowNumbers
    bits: int
    table: RowNumbers

    @classmethod
    def ungrouped(cls, keys: Ints, rows: RowNumbers) -> _Run:
        """All keys as one group."""
        return cls(keys, rows, 0, np.array([0, len(keys)], np.uint32))

    def grouped(self, bits: int) -> _Run:
        """The same by at most 16 top bits."""
        tops = _tops(self.keys, bits)
        order = np.argsort(tops, kind="stable")
        return _Run(self.keys.take(order), self.rows.take(order), bits, _table(tops, bits))

    def matches(self, keys: Ints) -> tuple[Index, Index]:
        """For each key that stands here, and each row that carries it: (place in `keys`, row), by ascending place."""
        found = [self._matches(keys, start) for start in range(0, len(keys), _CHUNK_ROWS)]
        places, rows = zip(*found, strict=True) if found else ([np.zeros(0, np.int64)], [np.zeros(0, np.int64)])
        return np.concatenate(places), np.concatenate(rows)

    def _matches(self, keys: Ints, start: int) -> tuple[Index, Index]:
        chunk = keys[start : start + _CHUNK_ROWS]
        group = (chunk >> np.uint64(64 - self.bits)).view(np.int64)
        first, after = self.table.take(group).astype(np.int64), self.table.take(group + 1).astype(np.int64)
        # Each key beside all keys of its group: one step for all of them, since groups are small.
        counts = after - first
        places = np.repeat(np.arange(len(chunk)), counts)
        members = (first - (np.cumsum(counts) - counts)).take(places) + np.arange(len(places))
        equal = np.flatnonzero(self.keys.take(members) == chunk.take(places))
        return places[equal] + start, self.rows[members[equal]].astype(np.int64)


class SetIndex:
    """The index of one set. Threads may share it: one call at a time touches it."""

    def __init__(self, key: bytes) -> None:
        """An empty index.

        Args:
            key: 32 random bytes, fresh for each start; nothing that leaves the process depends on it.
        """
        if len(key) != KEY_BYTES:
            raise MalformedError("index: the key does not have 32 bytes")
        self._key = key
        self._lock = Lock()  # a search may merge runs, so it changes the index too
        self._segments: list[_Segments] = []
        self._runs: list[_Run] = []
        self._states: States = np.zeros(0, np.uint8)
        self._used = 0
        self._live = 0
        self._starts: Index = np.zeros(0, np.int64)  # first row number of each block, ascending
        self._blocks: Index = np.zeros(0, np.int64)  # block numbers in the same order
        self._spans: dict[int, tuple[int, int]] = {}  # block number -> its rows

    @property
    def live_count(self) -> int:
        """How many entries the set holds now."""
        return self._live

    @property
    def resident_bytes(self) -> int:
        """Bytes of the arrays that the index keeps."""
        arrays: list[npt.NDArray[np.generic]] = [self._states]
        arrays += [array for run in self._runs for array in (run.keys, run.rows, run.table)]
        arrays += [array for some in self._segments for array in (some.first, some.row, some.more)]
        return sum(array.nbytes for array in arrays)

    def append(self, block_no: int, entry_ids: Ints, digests: Digests, kinds: Ints) -> None:
        """Take in the rows of one block, in their order.

        Args:
            digests: the columns that can be asked for, by name: digests, and texts such as references.
            kinds: `ChangeKind` of each row. A withdraw or leave makes its entry absent.
        """
        self.append_all([Arrival(block_no, entry_ids, digests, kinds)])

    def append_all(self, blocks: Sequence[Arrival]) -> None:
        """Take in the rows of several blocks, in their order: one sort for all of them."""
        if not blocks:
            return
        entry_ids = np.concatenate([block.entry_ids for block in blocks])
        states = _states_of(np.concatenate([block.kinds for block in blocks]))
        lengths = [len(block.entry_ids) for block in blocks]
        for block, n in zip(blocks, lengths, strict=True):
            if len(block.kinds) != n or any(len(values) != n for values in block.digests.values()):
                raise MalformedError("index: the columns of a block differ in length")
        last_rows = _last_of_each(entry_ids)
        asserted = last_rows[states[last_rows] == _LIVE]
        keys, rows = self._keys(blocks, asserted, offsets_of(np.array(lengths, np.int64)))
        with self._lock:
            first, n = self._used, len(entry_ids)
            if first + n > MAX_INDEX_ROWS:
                raise OverloadedError("the index has used up its row numbers: start the gateway again")
            numbers = [block.block_no for block in blocks]
            if self._spans.keys() & set(numbers) or len(set(numbers)) < len(numbers):
                raise ConflictError("index: the block is there already")
            older = self._rows_of(entry_ids[last_rows])
            self._set_dead(older[older >= 0])
            self._grow(first + n)
            self._states[last_rows + first] = states[last_rows]
            self._live += len(asserted)
            starts = first + offsets_of(np.array(lengths, np.int64))
            self._spans.update(zip(numbers, pairwise(starts.tolist()), strict=True))
            self._starts = np.concatenate([self._starts, starts[:-1]])
            self._blocks = np.concatenate([self._blocks, np.array(numbers, np.int64)])
            self._add_segments(_segments_of(entry_ids[last_rows], last_rows + first))
            self._add_run(keys, (rows + first).astype(np.uint32))

    def _keys(self, blocks: Sequence[Arrival], asserted: Index, offsets: Index) -> tuple[Ints, Index]:
        """The short ids of all digests of the asserted rows, and the row of each."""
        cuts = np.searchsorted(asserted, offsets)
        wanted = [asserted[a:b] for a, b in pairwise(cuts.tolist())]
        keys: list[Ints] = [np.zeros(0, np.uint64)]
        rows: list[Index] = [np.zeros(0, np.int64)]
        for name in dict.fromkeys(name for block in blocks for name in block.digests):
            column = registered(name)
            held = [at for at, block in enumerate(blocks) if name in block.digests]
            taken = [_taken(blocks[at].digests[name], wanted[at] - offsets[at]) for at in held]
            octets = [self._octets_of(column, values) for values in taken]
            keys.append(self._short_ids(column, np.concatenate(octets)))
            rows += [wanted[at] for at in held]
        return np.concatenate(keys), np.concatenate(rows)

    def drop_block(self, block_no: int) -> None:
        """Forget a block: all its rows are dead, and none that they replaced comes back."""
        with self._lock:
            start, stop = self._span(block_no)
            self._set_dead(np.arange(start, stop, dtype=np.int64))
            del self._spans[block_no]

    def locate(self, entry_ids: Ints) -> Located:
        """Where these entries stand now."""
        with self._lock:
            rows = self._rows_of(entry_ids)
            found = self._in_state(rows, _LIVE)
            blocks, inside = self._places(np.where(found, rows, 0))
        return Located(found, np.where(found, blocks, 0), np.where(found, inside, 0))

    def withdrawn(self, entry_ids: Ints) -> Mask:
        """Which of these entries were last withdrawn, in a block that is still there."""
        with self._lock:
            return self._in_state(self._rows_of(entry_ids), _WITHDRAWN)

    def find(self, algorithm: str, values: Octets | Text) -> Candidates:
        """The live rows that carry these digests, but for a chance of 2^-64 a pair: compare the values."""
        column = registered(algorithm)
        keys = self._short_ids(column, self._octets_of(column, values))
        with self._lock:
            self._merge_runs()
            hits = [run.matches(keys) for run in self._runs]
            query = np.concatenate([np.zeros(0, np.int64), *(hit[0] for hit in hits)])
            rows = np.concatenate([np.zeros(0, np.int64), *(hit[1] for hit in hits)])
            alive = np.flatnonzero(self._states.take(rows) == _LIVE)
            query, rows = query[alive], rows[alive]
            by_query = np.lexsort((rows, query))
            blocks, inside = self._places(rows[by_query])
        return Candidates(query[by_query], blocks, inside)

    def live_rows(self, block_no: int) -> Mask:
        """Which rows of a block are live."""
        with self._lock:
            start, stop = self._span(block_no)
            return np.equal(self._states[start:stop], _LIVE)

    # Rows and blocks

    def _span(self, block_no: int) -> tuple[int, int]:
        if block_no not in self._spans:
            raise NotFoundError("index: no such block")
        return self._spans[block_no]

    def _grow(self, used: int) -> None:
        if used > len(self._states):
            grown = np.zeros(max(used, len(self._states) + len(self._states) // 8), np.uint8)
            grown[: self._used] = self._states[: self._used]
            self._states = grown
        self._used = used

    def _set_dead(self, rows: Index) -> None:
        self._live -= int((self._states[rows] == _LIVE).sum())
        self._states[rows] = _DEAD

    def _in_state(self, rows: Index, state: int) -> Mask:
        """Which of these rows are in this state; a row of -1 is in none."""
        if not self._used:
            return np.zeros(len(rows), np.bool_)
        return (rows >= 0) & np.equal(self._states[np.maximum(rows, 0)], state)

    def _places(self, rows: Index) -> tuple[Index, Index]:
        """Row numbers as block numbers and rows in the block."""
        if not len(self._starts):
            return np.zeros(len(rows), np.int64), np.zeros(len(rows), np.int64)
        which = np.searchsorted(self._starts, rows, "right") - 1
        return self._blocks[which], rows - self._starts[which]

    # Entries

    def _rows_of(self, entry_ids: Ints) -> Index:
        """The last row of each of these entries, live or not; -1 where there never was one."""
        rows = np.full(len(entry_ids), -1, np.int64)
        missing = np.arange(len(entry_ids))
        for segments in reversed(self._segments):  # newest first: there the last row of an entry stands
            if not len(missing):
                break
            ids = entry_ids[missing]
            which = np.searchsorted(segments.first, ids, "right") - 1
            inside = ids - segments.first[which]
            held = (which >= 0) & (inside <= segments.more[which])
            rows[missing[held]] = segments.row[which[held]] + inside[held].astype(np.int64)
            missing = missing[~held]
        return rows

    def _add_segments(self, segments: _Segments) -> None:
        if len(segments.first):
            self._segments.append(segments)
        while len(self._segments) > 1 and len(self._segments[-2].first) < 2 * len(self._segments[-1].first):
            newer, older = self._segments.pop(), self._segments.pop()
            self._segments.append(_overlaid(older, newer))

    # Digests

    def _add_run(self, keys: Ints, rows: RowNumbers) -> None:
        if len(keys):
            self._runs.append(_Run.ungrouped(keys, rows))
        if sum(len(run.keys) for run in self._runs if not run.bits) >= _FULL:
            self._merge_runs()

    def _merge_runs(self) -> None:
        """Merge the newest runs until each that is not full is `_GROWTH` times as long as all newer ones together."""
        newer = 0
        first = len(self._runs)  # the runs from here on are to be merged
        for i in range(len(self._runs) - 1, -1, -1):
            size = len(self._runs[i].keys)
            if self._runs[i].bits and size >= _FULL:
                break
            if size < _GROWTH * newer or not self._runs[i].bits:
                first = i
            newer += size
        if first < len(self._runs):
            merged = _merged(self._runs[first:], self._states)
            self._runs[first:] = [merged] if len(merged.keys) else []
            if len(merged.keys) >= _FULL and 2 * self._live <= self._used:
                self._clean_runs()

    def _clean_runs(self) -> None:
        """Let the dead rows of full runs fall out where they are half of it."""
        for i, run in enumerate(self._runs):
            alive = np.count_nonzero(self._states.take(run.rows) == _LIVE)
            if len(run.keys) >= _FULL and 2 * alive <= len(run.keys):
                self._runs[i] = _merged([run], self._states)
        self._runs = [run for run in self._runs if len(run.keys)]

    def _octets_of(self, column: Column, values: Octets | Text) -> Octets:
        """What stands for each value: the digest itself, 16 hashed octets for a text."""
        if column.kind is ColumnKind.INT or isinstance(values, Text) != (column.kind is ColumnKind.TEXT):
            raise MalformedError("index: not a column of digests or texts")
        octets = self._hashed(values) if isinstance(values, Text) else values
        if column.kind is ColumnKind.BYTES and octets.shape[1:] != (column.width,):
            raise MalformedError("index: a digest of another width")
        return octets

    def _short_ids(self, column: Column, octets: Octets) -> Ints:
        """The keyed 64-bit short ids of values of one column."""
        seed = _KEY_CONTEXT + self._key + column.code.to_bytes(1, "little")
        stream = hashlib.shake_256(seed).digest(8 * (1 + octets.shape[1] // 4))
        lane = np.frombuffer(stream, "<u8").astype(np.uint64).reshape(1, -1)
        found = np.empty(len(octets), np.uint64)
        for start in range(0, len(octets), _CHUNK_ROWS):
            words = octet_words(octets[start : start + _CHUNK_ROWS])
            found[start : start + len(words)] = multilinear(_at_start(words), lane, len(words))[:, 0]
        return found

    def _hashed(self, text: Text) -> Octets:
        """16 octets for each text digest."""
        hashed = [hashlib.blake2b(one, key=self._key, digest_size=16).digest() for one in text.encoded()]
        return np.frombuffer(b"".join(hashed), np.uint8).reshape(-1, 16)


def _at_start(words: Words) -> Iterator[tuple[int, Words]]:
    yield 0, words


def _taken(values: Octets | Text, rows: Index) -> Octets | Text:
    if len(rows) == len(values):
        return values  # `rows` ascends, so it names every row
    return values.take(rows) if isinstance(values, Text) else values[rows]


def _states_of(kinds: Ints) -> States:
    states = np.array([_DEAD, _LIVE, _WITHDRAWN, _LEFT], np.uint8)
    if len(kinds) and int(kinds.max()) >= len(states):
        raise MalformedError("index: a change of unknown kind")
    return states[kinds.astype(np.int64)]


def _last_of_each(entry_ids: Ints) -> Index:
    """The last row of each entry in a batch, ascending."""
    if (entry_ids[1:] > entry_ids[:-1]).all():  # as imports give them
        return np.arange(len(entry_ids), dtype=np.int64)
    order = np.argsort(entry_ids, kind="stable")
    ordered = entry_ids[order]
    last = np.r_[ordered[1:] != ordered[:-1], True]
    return np.sort(order[last]).astype(np.int64)


def _segments_of(entry_ids: Ints, rows: Index) -> _Segments:
    """Distinct entries and their rows as segments."""
    order = np.argsort(entry_ids, kind="stable")
    return _joined(entry_ids[order], rows[order], np.ones(len(order), np.int64))


def _joined(first: Ints, rows: Index, lengths: Index) -> _Segments:
    """Pieces in ascending order of id as segments, neighbours joined where ids and rows both run on."""
    if not len(first):
        return _Segments(first, rows.astype(np.uint32), lengths.astype(np.uint16))
    runs_on = (first[1:] == first[:-1] + lengths[:-1].astype(np.uint64)) & (rows[1:] == rows[:-1] + lengths[:-1])
    heads = np.flatnonzero(np.r_[True, ~runs_on])
    totals = np.add.reduceat(lengths, heads)
    # A segment holds 2^16 ids at most: longer runs become several.
    pieces = -(-totals // MAX_SEGMENT)
    which = np.repeat(np.arange(len(heads)), pieces)
    nth = np.arange(len(which)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    skipped = nth * MAX_SEGMENT
    more = np.minimum(totals[which] - skipped, MAX_SEGMENT) - 1
    starts = first[heads][which] + skipped.astype(np.uint64)
    return _Segments(starts, (rows[heads][which] + skipped).astype(np.uint32), more.astype(np.uint16))


def _overlaid(older: _Segments, newer: _Segments) -> _Segments:
    """Both as one; where they overlap, the newer stands.

    All ends of both cut the line of ids into pieces that lie wholly inside or outside each segment.
    """
    lasts = np.concatenate([older.first + older.more, newer.first + newer.more])
    cuts = np.sort(np.concatenate([older.first, newer.first, lasts[lasts < np.uint64(2**64 - 1)] + np.uint64(1)]))
    cuts = cuts[np.r_[True, cuts[1:] != cuts[:-1]]]  # np.unique hashes 64-bit integers: ten times slower here
    from_older, from_newer = _covering(older, cuts), _covering(newer, cuts)
    rows = np.where(from_newer >= 0, from_newer, from_older)
    # Each piece ends where the next begins; the last one may end at the last id of all.
    piece_ends = np.concatenate([cuts[1:] - np.uint64(1), lasts.max(keepdims=True)])
    held = rows >= 0
    lengths = (piece_ends[held] - cuts[held]).astype(np.int64) + 1
    return _joined(cuts[held], rows[held], lengths)


def _covering(segments: _Segments, ids: Ints) -> Index:
    """The row of each id, -1 where no segment covers it."""
    which = np.searchsorted(segments.first, ids, "right") - 1
    inside = ids - segments.first[which]
    held = (which >= 0) & (inside <= segments.more[which])
    return np.where(held, segments.row[which] + np.where(held, inside, 0).astype(np.int64), -1)


def _tops(keys: Ints, bits: int) -> npt.NDArray[np.uint16]:
    """The top `bits` bits of each key, or the last 16 of them: keys of one range share the others."""
    return (keys >> np.uint64(64 - bits)).astype(np.uint16)


def _table(tops: npt.NDArray[np.uint16], bits: int) -> RowNumbers:
    """Where each group begins, and the end of the last."""
    table = np.zeros((1 << bits) + 1, np.uint32)
    np.cumsum(np.bincount(tops, minlength=1 << bits), out=table[1:])
    return table


def _merged(runs: list[_Run], states: States) -> _Run:
    """The live rows of these runs as one run, made range by range of keys, so that the scratch stays small."""
    total = sum(len(run.keys) for run in runs)
    bits = max(1, (total // _KEYS_IN_GROUP).bit_length())
    shared = max(0, bits - _RADIX_BITS)  # as many top bits are the same throughout a range
    runs = [run if run.bits >= shared else run.grouped(shared) for run in runs]
    ends = [run.table[:: 1 << (run.bits - shared)].tolist() for run in runs]
    keys, rows = np.empty(total, np.uint64), np.empty(total, np.uint32)
    table = np.zeros((1 << bits) + 1, np.uint32)
    groups = 1 << (bits - shared)
    at = 0
    for i in range(1 << shared):
        pieces = [(run, slice(end[i], end[i + 1])) for run, end in zip(runs, ends, strict=True)]
        some_rows = np.concatenate([run.rows[piece] for run, piece in pieces])
        alive = np.flatnonzero(states.take(some_rows) == _LIVE)
        some_keys = np.concatenate([run.keys[piece] for run, piece in pieces]).take(alive)
        tops = _tops(some_keys, bits)
        order = np.argsort(tops, kind="stable")
        stop = at + len(order)
        keys[at:stop] = some_keys.take(order)
        rows[at:stop] = some_rows.take(alive.take(order))
        table[i * groups + 1 : (i + 1) * groups + 1] = at + _table(tops, bits - shared)[1:]
        at = stop
    keys.resize(at, refcheck=False)  # gives back what the dead took
    rows.resize(at, refcheck=False)
    return _Run(keys, rows, bits, table)
