"""Near-duplicates: which rows carry a PDQ digest within a few bits of one that is asked for.

All of them and nothing else: the digests themselves are resident, so an answer needs no confirmation. Like the index of
entries this one is made from blocks and follows them: blocks are added, rows and blocks dropped. Nothing else decides
an answer, so after a crash the same blocks give the same answers.

How: a multi-index hash. The 256 bits are four **quarters** of 64, and a quarter has disjoint **chunks** of some bits. A
chunk has a table from each value that it can take to the digests that have this value there: a **bucket**. A query
spends **units** on chunks: u units on a chunk mean to visit every bucket whose value differs from the query's own in
fewer than u bits.

    Let there be more units than the radius has bits. If every quarter of a digest differed in at least as many bits as
    it has units, the digest would lie outside the radius. So in a digest within it some quarter differs in fewer bits
    than it has units; for the same reason some chunk of that quarter does; and so the digest is in a visited bucket.

Nothing is missed, therefore, however the units are spent. What stands in a visited bucket is compared in its quarter
first, where hardly a stranger passes, then as a whole. 16 chunks of 16 bits with 2 units each suit a short list, 12
chunks of 22 and 20 bits with 3 and 2 units a long one (Norouzi, Punjani, Fleet: "Fast Exact Search in Hamming Space
with Multi-Index Hashing", 2014; units by cost: Qin and others, "GPH: Similarity Search in Hamming Space", 2018).

Real hashes are not random: flat pictures leave long stretches of equal bits, some pictures have thousands of copies. So
that no query costs much more than reading the list once:

- Equal digests stand once, with all their rows. Equal queries are answered once.
- The bits are in a secret order: a stretch of equal bits spreads over all chunks, and nobody can aim at one of them.
- A query that would meet crowded buckets spends its units anew, by what each chunk would cost it. It goes round the
  crowded chunks and reaches further in the others.
- Where that is no help, the list is read from one end to the other, once for all such queries of a batch.
- A list of which more than half is dead is made anew.

What was added waits until the next search and becomes a **run** then. Runs that are not much longer than all newer ones
are made anew together with them, so a batch into a long list costs little more than itself. A run that is too short for
tables is read. Bytes: 41 a digest to hold it, 64 for its places in a short list or 48 in a long one; and tables of 4 MB
for a run, 75 MB from half a million digests on, 151 MB from a million on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, chain, combinations, pairwise
from threading import Lock
from typing import TypeAlias, cast

import numpy as np
import numpy.typing as npt

from gateway.columns.digest import KEY_BYTES
from gateway.columns.index import MAX_INDEX_ROWS, Arrival, SetIndex
from gateway.columns.rows import Index, Ints, Mask, Octets, grouped, offsets_of
from gateway.errors import ConflictError, MalformedError, NotFoundError, OverloadedError

MAX_RADIUS = 31  # bits; up to here PDQ's authors call a match confident
QUALITY_FLOOR = 50  # of 100: below it PDQ's authors throw a digest away, since flat pictures all look alike
MAX_PDQ_DIGESTS = 1 << 28  # live ones: tables number 12 places of each with 32 bits
MAX_MATCHES = 1 << 24  # rows that answer one batch, half a gigabyte; a single query has no bound, as it cannot be cut
BITS, QUARTERS = 256, 4
SCANNED_DIGESTS = 4096  # a shorter run is read in the time that visiting its buckets would take
LARGE_DIGESTS = 1 << 19  # from here on more visits to emptier buckets are the faster way
MAX_UNITS = 4  # on one chunk: 1,794 visits in 22 bits; with one more it were 9,109
PATIENCE_DIGESTS = 1 << 14  # comparing so many takes as long as spending the units anew
_SCAN_GAIN = 8  # in a scan a digest takes an eighth of the time that it takes in a bucket
_GROWTH = 4  # a run is left alone while it has this many times the rows of all newer ones
_SCRATCH = 1 << 15  # places in the scratch arrays of a step: they stay in the second-level cache
_ORDER_CONTEXT = b"pdq-order 1\n"
_HASH_FACTORS = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93)  # odd, bits mixed
Numbers: TypeAlias = npt.NDArray[np.uint32]
Costs: TypeAlias = npt.NDArray[np.float64]
_NOTHING: Index = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Near:
    """Rows within the radius of a query: query number, block and row, distance in bits; by ascending query."""

    query: Index
    block_no: Index
    row: Index
    distance: Index

    def then(self, other: Near, first: int) -> Near:
        """These answers and those of further queries, which are numbered from `first` on."""
        return near_in_all([self, Near(other.query + first, other.block_no, other.row, other.distance)])


def nearest(found: Near, most: int) -> Near:
    """Of each query the nearest rows, `most` at the most; of equally near ones those that came last."""
    order = np.lexsort((-found.row, -found.block_no, found.distance, found.query))
    query = found.query[order]
    rank = np.arange(len(query)) - np.searchsorted(query, query)
    kept = np.sort(order[rank < most])
    return Near(found.query[kept], found.block_no[kept], found.row[kept], found.distance[kept])


def is_poor(quality: Ints) -> Mask:
    """Which digests of these qualities are near nothing. 0 means that nobody said: such a digest counts."""
    return (quality > 0) & (quality < QUALITY_FLOOR)


def estimated_bytes(digests: int) -> int:
    """About how much an index of so many digests keeps resident, as the head of this module counts it."""
    tables = 151 << 20 if digests >= 1_000_000 else 75 << 20 if digests >= LARGE_DIGESTS else 4 << 20
    return 105 * digests + (0 if digests <= SCANNED_DIGESTS else tables)


def near_in(block_no: int, held: Octets, findable: Mask, digests: Octets, radius: int = MAX_RADIUS) -> Near:
    """The rows of one block near these digests, without an index of anything else.

    Each is compared with each: for a list that is asked too seldom to be worth an index, or has no room for one.

    Args:
        held: n × 32, one for each row of the block.
        findable: the rows that may be an answer.
    """
    _check(held)
    _check(digests)
    rows = np.flatnonzero(findable)
    columns = np.ascontiguousarray(np.ascontiguousarray(held[rows]).view(np.uint64).T)
    answers = [(_NOTHING, _NOTHING, _NOTHING)]
    for number, words in enumerate(np.ascontiguousarray(digests).view(np.uint64)):
        apart = np.bitwise_count(columns ^ words[:, None]).sum(axis=0, dtype=np.int64)
        near = np.flatnonzero(apart <= radius)
        answers.append((np.full(len(near), number, np.int64), rows[near], apart[near]))
    query, row, distance = (np.concatenate(column) for column in zip(*answers, strict=True))
    return Near(query, np.full(len(query), block_no, np.int64), row, distance)


def near_in_all(pieces: Sequence[Near]) -> Near:
    """The answers of several blocks as one, by ascending query."""
    if not pieces:
        return Near(_NOTHING, _NOTHING, _NOTHING, _NOTHING)
    query, block_no, row, distance = (
        np.concatenate(column)
        for column in zip(*((one.query, one.block_no, one.row, one.distance) for one in pieces), strict=True)
    )
    order = np.lexsort((row, block_no, query))
    return Near(query[order], block_no[order], row[order], distance[order])


class PdqIndex:
    """The near-duplicates of one set. Threads may share it."""

    def __init__(self, key: bytes) -> None:
        """An empty index.

        Args:
            key: 32 random bytes, fresh for each start. No answer depends on it, only what answers cost.
        """
        if len(key) != KEY_BYTES:
            raise MalformedError("index: the key does not have 32 bytes")
        self._bit_order = _secret_order(key)
        self._lock = Lock()  # runs never change, so a search holds it only while it makes and takes them
        self._waiting: list[_Held] = []
        self._runs: list[_Run] = []
        self._alive: Mask = np.zeros(0, np.bool_)
        self._used = 0
        self._live = 0
        self._examined = 0
        self._spans: dict[int, tuple[int, int]] = {}  # block number -> its row numbers
        self._added: list[tuple[int, int]] = []  # first row number and block number, in order of arrival
        self._places: Index = np.zeros((0, 2), np.int64)  # the same as an array, as far as a search needed it

    @property
    def live_count(self) -> int:
        """How many rows can be found now."""
        return self._live

    @property
    def examined(self) -> int:
        """How many digests were compared with a query so far: what searches cost, on whatever machine."""
        return self._examined

    @property
    def resident_bytes(self) -> int:
        """Bytes of the arrays that the index keeps."""
        waiting = sum(held.words.nbytes + held.rows.nbytes for held in self._waiting)
        return self._alive.nbytes + waiting + sum(run.resident_bytes for run in self._runs)

    def add(self, block_no: int, digests: Octets, where: Mask | None = None) -> None:
        """Take in the PDQ digests of one block.

        Args:
            digests: n × 32, one for each row of the block.
            where: the rows that are live (None: all).
        """
        _check(digests)
        n = len(digests)
        if where is not None and len(where) != n:
            raise MalformedError("index: the columns of a block differ in length")
        rows = np.arange(n) if where is None else np.flatnonzero(where)
        words = _words(digests if where is None else digests[rows], self._bit_order)
        with self._lock:
            if block_no in self._spans:
                raise ConflictError("index: the block is there already")
            first = self._used
            if first + n > MAX_INDEX_ROWS:
                raise OverloadedError("the index has used up its row numbers: start the gateway again")
            if self._live + len(rows) > MAX_PDQ_DIGESTS:
                raise OverloadedError("the set has more PDQ digests than one index can hold")
            self._grow(first + n)
            self._alive[first + rows] = True
            self._live += len(rows)
            self._spans[block_no] = first, first + n
            self._added.append((first, block_no))
            if len(rows):
                self._waiting.append(_Held(words, (first + rows).astype(np.uint32)))

    def follow(self, index: SetIndex, blocks: Sequence[Arrival]) -> None:
        """Let both indexes of a set take in these blocks: what they replace or withdraw is near nothing any more."""
        ids = [np.zeros(0, np.uint64), *(block.entry_ids for block in blocks)]
        replaced = index.locate(np.concatenate(ids))  # before the index has forgotten where that was
        index.append_all(blocks)
        self.drop_rows(replaced.block_no[replaced.found], replaced.row[replaced.found])
        for block in blocks:
            if "pdq" in block.digests:
                live = index.live_rows(block.block_no)
                findable = live if block.poor is None else live & ~block.poor
                self.add(block.block_no, cast(Octets, block.digests["pdq"]), findable)

    def drop_rows(self, block_no: Index, row: Index) -> None:
        """Forget these rows. Blocks that are not here are passed over, for they have no PDQ digests."""
        dead = [_NOTHING]
        with self._lock:
            for number, where in grouped(block_no.astype(np.uint64)):
                start, stop = self._spans.get(number, (0, 0))
                if start < stop:
                    rows = start + row[where]
                    if int(rows.min()) < start or int(rows.max()) >= stop:
                        raise NotFoundError("index: the block has no such row")
                    dead.append(rows)
            self._set_dead(np.unique(np.concatenate(dead)))

    def drop_block(self, block_no: int) -> None:
        """Forget a block with all its rows. One that is not here is passed over, for it has no PDQ digests."""
        with self._lock:
            self._set_dead(np.arange(*self._spans.pop(block_no, (0, 0))))

    def near(self, digests: Octets, radius: int = MAX_RADIUS) -> Near:
        """Every live row whose digest lies within `radius` bits of one of these.

        Raises:
            OverloadedError: several digests have more than `MAX_MATCHES` rows together.
        """
        _check(digests)
        if not 0 <= radius <= MAX_RADIUS:
            raise MalformedError(f"index: a radius is 0 to {MAX_RADIUS} bits")
        # 1. Equal queries become one, and what waits becomes a run.
        asked = _Values.of([_Held(_words(digests, self._bit_order), np.arange(len(digests), dtype=np.uint32))])
        queries = np.ascontiguousarray(asked.words.T)
        with self._lock:
            self._settle()
            runs, alive, places = tuple(self._runs), self._alive, self._places
        # 2. Runs give pairs of query and digest. Each stands for all who asked and for all rows that hold the digest.
        answers = [(_NOTHING, _NOTHING, _NOTHING)]
        examined = matches = 0
        for run in runs:
            for met in run.search(queries, radius):
                examined += met.examined
                if not len(met.value):
                    continue
                matches += int((asked.lengths(met.query) * run.values.lengths(met.value)).sum())
                if matches > MAX_MATCHES and len(digests) > 1:
                    raise OverloadedError("these digests have too many matches together: ask for fewer at once")
                pair, rows = run.values.members(met.value)
                live = alive[rows]
                pair, rows = pair[live], rows[live]
                again, query = asked.members(met.query[pair])
                answers.append((query, rows[again], met.distance[pair[again]]))
        # 3. Rows are named by their blocks.
        query, rows, distance = (np.concatenate(column) for column in zip(*answers, strict=True))
        order = np.lexsort((rows, query))
        query, rows, distance = query[order], rows[order], distance[order]
        with self._lock:
            self._examined += examined
        if not len(rows):
            return Near(_NOTHING, _NOTHING, _NOTHING, _NOTHING)
        block = np.searchsorted(places[:, 0], rows, "right") - 1
        return Near(query, places[block, 1], rows - places[block, 0], distance)

    def _grow(self, used: int) -> None:
        if used > len(self._alive):
            grown = np.zeros(max(used, len(self._alive) + len(self._alive) // 8), np.bool_)
            grown[: self._used] = self._alive[: self._used]
            self._alive = grown
        self._used = used

    def _set_dead(self, rows: Index) -> None:
        self._live -= int(self._alive[rows].sum())
        self._alive[rows] = False

    def _settle(self) -> None:
        """Make a run of what waits, and of the runs that are to be made anew with it."""
        newer = sum(len(held.rows) for held in self._waiting)
        first = len(self._runs)  # the runs from here on are made anew
        if newer + sum(map(len, self._runs)) > 2 * self._live + SCANNED_DIGESTS:
            first = 0
        elif newer:
            for i in range(len(self._runs) - 1, -1, -1):
                if len(self._runs[i]) < max(SCANNED_DIGESTS, _GROWTH * newer):
                    first = i
                newer += len(self._runs[i])
        if self._waiting or first < len(self._runs):
            # Old tables go before new ones are made. Should memory not suffice, the digests wait for the next search.
            self._waiting = [_only(self._alive, held) for held in [*map(_Run.held, self._runs[first:]), *self._waiting]]
            del self._runs[first:]
            if any(len(held.rows) for held in self._waiting):
                self._runs.append(_Run(_Values.of(self._waiting)))
            self._waiting = []
        if len(self._places) < len(self._added):
            self._places = np.array(self._added, np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class _Held:
    """Digests as words in the secret order of bits, 4 × n, and the row that holds each."""

    words: Ints
    rows: Numbers


def _only(alive: Mask, held: _Held) -> _Held:
    """Those whose row is alive."""
    kept = alive[held.rows]
    return held if kept.all() else _Held(held.words[:, kept], held.rows[kept])


@dataclass(frozen=True, slots=True, eq=False)
class _Values:
    """Distinct digests, 4 × n words. The rows of number i are `holders[first[i]]` to `holders[first[i + 1] - 1]`."""

    words: Ints
    first: Numbers
    holders: Numbers

    @classmethod
    def of(cls, pieces: Sequence[_Held]) -> _Values:
        """The distinct digests of these pieces; there is a piece."""
        words = np.concatenate([held.words for held in pieces], axis=1)
        rows = np.concatenate([held.rows for held in pieces])
        order = np.argsort(_hashed(words))  # brings equal digests together; a digest that hashes alike only costs time
        words, rows = words[:, order], rows[order]
        new = np.ones(len(rows), np.bool_)
        new[1:] = (words[:, 1:] != words[:, :-1]).any(axis=0)
        first = np.append(np.flatnonzero(new), len(rows)).astype(np.uint32)
        return cls(words if new.all() else words[:, new], first, rows)

    def __len__(self) -> int:
        return len(self.first) - 1

    def lengths(self, numbers: Index) -> Index:
        """How many rows hold each of these digests."""
        return self.first[numbers + 1].astype(np.int64) - self.first[numbers]

    def members(self, numbers: Index) -> tuple[Index, Index]:
        """All rows that hold these digests, each after the place in `numbers` that it belongs to."""
        lengths = self.lengths(numbers)
        rows = self.holders[_ranges(self.first[numbers].astype(np.int64), lengths)]
        return np.repeat(np.arange(len(numbers)), lengths), rows.astype(np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class _Met:
    """Pairs of query and digest within the radius, none of them twice; and how many digests were compared."""

    query: Index
    value: Index
    distance: Index
    examined: int


class _Run:
    """Distinct digests and, unless they are few, their tables. It never changes."""

    def __init__(self, values: _Values) -> None:
        self.values = values
        self._tables = _Tables(values.words) if len(values) > SCANNED_DIGESTS else None

    def __len__(self) -> int:
        return len(self.values.holders)

    @property
    def resident_bytes(self) -> int:
        """Bytes of the arrays of this run."""
        held = self.values.words.nbytes + self.values.first.nbytes + self.values.holders.nbytes
        return held + (0 if self._tables is None else self._tables.resident_bytes)

    def held(self) -> _Held:
        """What this run was made of."""
        lengths = self.values.lengths(np.arange(len(self.values)))
        return _Held(np.repeat(self.values.words, lengths, axis=1), self.values.holders)

    def search(self, queries: Ints, radius: int) -> Iterator[_Met]:
        """The digests within the radius of each query (m × 4 words), some queries at a time."""
        numbers = np.arange(len(queries))
        if self._tables is None:
            yield from self._read(queries, numbers, radius)
            return
        # 1. Most queries meet few digests in the buckets that are usually visited.
        usual = _usual_plan(self._tables.chunks, len(self.values), radius)
        patience = max(PATIENCE_DIGESTS, int(4 * usual.cost))
        crowded, unmet = [_NOTHING], [_NOTHING]
        for some in _pieces(numbers, max(1, _SCRATCH // usual.visits)):
            low, count = self._tables.buckets(usual, queries[some])
            many = count.sum(axis=1) > patience
            count[many] = 0
            crowded.append(some[many])
            query, value, examined = self._tables.close(usual, queries[some], low, count)
            yield self._within(queries, some[query], value, radius, examined)
        # 2. The others visit buckets of their own choice, unless that costs more than to read the list.
        for one in _pieces(np.concatenate(crowded), 1):
            plan = self._tables.own_plan(queries[one], radius)
            if plan is None:
                unmet.append(one)
            else:
                low, count = self._tables.buckets(plan, queries[one])
                query, value, examined = self._tables.close(plan, queries[one], low, count)
                yield self._within(queries, one[query], value, radius, examined)
        # 3. The rest reads it.
        yield from self._read(queries, np.concatenate(unmet), radius)

    def _read(self, queries: Ints, numbers: Index, radius: int) -> Iterator[_Met]:
        """Compare these queries with the whole list, which is read once for all of them."""
        for start in range(0, len(self.values), _SCRATCH):
            piece = self.values.words[:, start : start + _SCRATCH]
            for number in numbers.tolist():
                one, two, three, four = (
                    np.bitwise_count(held ^ own) for held, own in zip(piece, queries[number], strict=True)
                )
                apart = np.add(one + two, three + four, dtype=np.uint16)  # 256 bits may differ, too many for 8 bits
                value = np.flatnonzero(apart <= radius)
                query = np.full(len(value), number, np.int64)
                yield _Met(query, start + value, apart[value].astype(np.int64), len(apart))

    def _within(self, queries: Ints, query: Index, value: Index, radius: int, examined: int) -> _Met:
        """Those of these pairs that are within the radius, each once."""
        distance = np.bitwise_count(self.values.words[:, value] ^ queries[query].T).sum(axis=0, dtype=np.int64)
        within = distance <= radius
        pairs, index = np.unique(query[within] * len(self.values) + value[within], return_index=True)
        query, value = np.divmod(pairs, len(self.values))
        return _Met(query, value, distance[within][index], examined)


@dataclass(frozen=True, slots=True, eq=False)
class _Chunks:
    """How the bits are cut: of each chunk the quarter, the bits in it, and its first bucket among those of all chunks.

    The widest stand first. So each first bucket is a multiple of the chunk's number of buckets, and flipping bits of
    a value flips the same bits of the bucket's number.
    """

    widths: tuple[int, ...]
    quarters: Index
    shifts: Ints
    masks: Ints
    firsts: Index
    buckets: int

    @classmethod
    def of(cls, digests: int) -> _Chunks:
        """The chunks that suit so many digests: about as many buckets as digests, as far as 64 bits go."""
        if digests < LARGE_DIGESTS:
            widths = [min(16, digests.bit_length())] * 4
        else:
            widest = min(22, digests.bit_length() + 1)
            widths = [widest, widest, widest - 2]
        in_quarter = list(zip(widths, accumulate(widths, initial=0), strict=False))
        chunks = [(width, quarter, shift) for width, shift in in_quarter for quarter in range(QUARTERS)]
        firsts = list(accumulate((1 << width for width, _, _ in chunks), initial=0))
        return cls(
            tuple(width for width, _, _ in chunks),
            np.array([quarter for _, quarter, _ in chunks], np.int64),
            np.array([shift for _, _, shift in chunks], np.uint64),
            np.array([(1 << width) - 1 for width, _, _ in chunks], np.uint64),
            np.array(firsts[:-1], np.int64),
            firsts[-1],
        )

    def buckets_of(self, queries: Ints) -> Index:
        """The bucket of each query (m × 4 words) in each chunk."""
        values = (queries[:, self.quarters] >> self.shifts) & self.masks
        return values.view(np.int64) + self.firsts


@lru_cache(maxsize=32)
def _flips(width: int) -> tuple[Index, tuple[int, ...]]:
    """What flips fewer than `MAX_UNITS` bits of so many, fewest first; and how many of it 0, 1, 2, … units pay for."""
    by_weight = [combinations([1 << bit for bit in range(width)], weight) for weight in range(MAX_UNITS)]
    flips = [[sum(bits) for bits in some] for some in by_weight]
    return np.array([*chain(*flips)], np.int64), tuple(accumulate(map(len, flips), initial=0))


class _Plan:
    """Which buckets a query visits: `units` of each chunk. `cost` counts visits and the digests that they meet."""

    def __init__(self, chunks: _Chunks, units: Sequence[int], cost: float) -> None:
        self.units = tuple(units)
        self.cost = cost
        self.flips = [
            flips[: sizes[spent]] for spent, (flips, sizes) in zip(units, map(_flips, chunks.widths), strict=True)
        ]
        lengths = np.array([len(flips) for flips in self.flips])
        self.cuts = offsets_of(lengths).tolist()
        self.visits = int(self.cuts[-1])
        self.quarters = np.repeat(chunks.quarters, lengths)  # of each visit
        # A digest within the radius has a quarter that differs in fewer bits than the richest quarter has units.
        self.most = int(np.bincount(chunks.quarters, weights=units).max())

    @classmethod
    def cheapest(cls, chunks: _Chunks, costs: Costs, needed: int) -> _Plan:
        """The plan that spends `needed` units at the least cost.

        Args:
            costs: chunks × (0 … `MAX_UNITS` units).
        """
        # least[k] is the cost of k units or more, on the chunks looked at so far.
        least = np.where(np.arange(needed + 1) == 0, 0.0, np.inf)
        before = np.maximum(np.arange(needed + 1)[:, None] - np.arange(MAX_UNITS + 1), 0)
        choices = []
        for cost in costs:
            options = least[before] + cost
            choices.append(options.argmin(axis=1))
            least = options.min(axis=1)
        units, missing = [], needed
        for choice in reversed(choices):
            units.append(int(choice[missing]))
            missing = max(missing - units[-1], 0)
        return cls(chunks, units[::-1], float(least[needed]))


class _Tables:
    """From each value of each chunk to the digests (4 × n words) that have it there."""

    def __init__(self, words: Ints) -> None:
        n = self._n = words.shape[1]
        self._flat = words.reshape(-1)  # quarter by quarter
        chunks = self.chunks = _Chunks.of(n)
        # The digests of bucket b are at places order[start[b]] … order[start[b + 1] - 1] of `flat`, in their quarter.
        self._order: Numbers = np.empty(len(chunks.widths) * n, np.uint32)
        self._start: Numbers = np.zeros(chunks.buckets + 1, np.uint32)
        for chunk, width in enumerate(chunks.widths):
            quarter, first = int(chunks.quarters[chunk]), int(chunks.firsts[chunk])
            packed = (words[quarter] >> chunks.shifts[chunk]) & chunks.masks[chunk]
            packed <<= np.uint64(32)
            packed |= np.arange(quarter * n, (quarter + 1) * n, dtype=np.uint64)
            packed.sort()  # value and place as one number: several times faster than an argsort of the values
            self._order[chunk * n : (chunk + 1) * n] = packed & np.uint64(0xFFFFFFFF)
            counts = np.bincount((packed >> np.uint64(32)).view(np.int64), minlength=1 << width)
            counts[0] += chunk * n
            np.cumsum(counts, out=self._start[first + 1 : first + 1 + len(counts)])

    @property
    def resident_bytes(self) -> int:
        """Bytes of these tables."""
        return self._order.nbytes + self._start.nbytes

    def own_plan(self, query: Ints, radius: int) -> _Plan | None:
        """What is cheapest for this query (1 × 4 words); None where reading the list is cheaper."""
        reading = self._n // _SCAN_GAIN
        if reading <= PATIENCE_DIGESTS:
            return None
        widest = _widest_plan(self.chunks)
        _, count = self.buckets(widest, query)
        costs = np.zeros((len(self.chunks.widths), MAX_UNITS + 1))
        for chunk, (start, stop) in enumerate(pairwise(widest.cuts)):
            visits = np.array(_flips(self.chunks.widths[chunk])[1][1:])
            costs[chunk, 1:] = visits + np.cumsum(count[0, start:stop], dtype=np.int64)[visits - 1]
        plan = _Plan.cheapest(self.chunks, costs, radius + 1)
        return plan if plan.cost < reading else None

    def buckets(self, plan: _Plan, queries: Ints) -> tuple[Numbers, Numbers]:
        """Of each bucket that each query visits, m × visits: where its digests begin, and how many they are."""
        own = self.chunks.buckets_of(queries)
        visited = np.empty((len(queries), plan.visits), np.int64)
        for chunk, (start, stop) in enumerate(pairwise(plan.cuts)):
            np.bitwise_xor(own[:, chunk, None], plan.flips[chunk], out=visited[:, start:stop])
        low = np.take(self._start, visited)
        visited += 1
        return low, np.take(self._start, visited) - low

    def close(self, plan: _Plan, queries: Ints, low: Numbers, count: Numbers) -> tuple[Index, Index, int]:
        """Pairs of query and digest that may be within the radius, going by one quarter; and how many were compared."""
        filled = np.flatnonzero(count)
        query, visit = np.divmod(filled, plan.visits)
        lengths = count.reshape(-1)[filled].astype(np.int64)
        places = np.take(self._order, _ranges(low.reshape(-1)[filled].astype(np.int64), lengths))
        own = queries.reshape(-1)[query * QUARTERS + plan.quarters[visit]]
        apart = np.bitwise_count(np.repeat(own, lengths) ^ np.take(self._flat, places))
        passed = np.flatnonzero(apart < plan.most)
        query = query[np.searchsorted(np.cumsum(lengths), passed, "right")]
        return query, places[passed].astype(np.int64) % self._n, len(places)


@lru_cache(maxsize=64)
def _usual_plan(chunks: _Chunks, digests: int, radius: int) -> _Plan:
    """What is cheapest where so many digests are spread evenly."""
    costs = [[visits * (1 + digests / 2**width) for visits in _flips(width)[1]] for width in chunks.widths]
    return _Plan.cheapest(chunks, np.array(costs), radius + 1)


@lru_cache(maxsize=8)
def _widest_plan(chunks: _Chunks) -> _Plan:
    """All that a query can visit."""
    return _Plan(chunks, [MAX_UNITS] * len(chunks.widths), np.inf)


def _check(digests: Octets) -> None:
    if digests.dtype != np.uint8 or digests.shape[1:] != (BITS // 8,):
        raise MalformedError("index: not a column of PDQ digests")


def _secret_order(key: bytes) -> Index:
    """An order of the bits that only the key tells."""
    stream = hashlib.shake_256(_ORDER_CONTEXT + key).digest(8 * BITS)
    return np.argsort(np.frombuffer(stream, "<u8"))


def _words(digests: Octets, bit_order: Index) -> Ints:
    """Digests, n × 32, as words in another order of bits, 4 × n. Distances stay what they are."""
    words = np.empty((len(digests), QUARTERS), np.uint64)
    for piece in _pieces(np.arange(len(digests)), _SCRATCH // BITS):
        bits = np.unpackbits(digests[piece], axis=1)
        words[piece] = np.packbits(np.take(bits, bit_order, axis=1), axis=1).view(np.uint64)
    return np.ascontiguousarray(words.T)


def _hashed(words: Ints) -> Ints:
    """64 bits of each digest, 4 × n."""
    found = np.zeros(words.shape[1], np.uint64)
    for quarter, factor in zip(words, _HASH_FACTORS, strict=True):
        found += (quarter ^ (quarter >> np.uint64(32))) * np.uint64(factor)
    return found


def _ranges(low: Index, lengths: Index) -> Index:
    """The numbers from each `low` on, so many of each, one range after the other."""
    ends = np.cumsum(lengths)
    found = np.repeat(low - ends + lengths, lengths)
    found += np.arange(len(found))
    return found


def _pieces(numbers: Index, size: int) -> Iterator[Index]:
    for start in range(0, len(numbers), size):
        yield numbers[start : start + size]
