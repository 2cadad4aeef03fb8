"""Two sides that differ: what it costs to find in which rows, in bytes, round trips and time."""

from __future__ import annotations

import hashlib
import math
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from measure import Bar, Figure, Run, Scale, against, compare, timed
from worlds import SEED

from gateway.columns import (
    FIRST_SYMBOLS,
    GROUP_CODES,
    USUAL_SYMBOLS,
    Ints,
    Sketch,
    dump_sketch,
    parse_sketch,
    peel,
    short_ids,
    symbols_wanted,
)

KEPT_SYMBOLS = 1 << 15  # enough for every difference that is measured
COMPARED = tuple(GROUP_CODES.values())[:3]  # the groups of the reference shape
BARS = {100: 24, 1000: 20, 10_000: 20}  # bytes a difference
TRIALS = {100: 60, 1000: 40, 10_000: 10}
FIXED_CELLS = 1.35  # cells a difference of a table with three places for each id, which must be told how many differ
CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class Found:
    """How one comparison went."""

    differences: int
    octets: int
    trips: int


def bench_repair(scale: Scale) -> Iterator[Figure]:
    """Which rows do two sides not share? A million short ids on each, a few of them on one side alone."""
    n = scale.size(1_000_000, 20_000)
    source = np.random.default_rng(SEED)
    both = _numbers(source, n)
    yield from _making(scale, source, both)
    kept = Sketch.empty(KEPT_SYMBOLS)
    kept.add(both)
    for differences, bar in BARS.items():
        yield from _finding(scale, source, both, kept, differences=differences, bar=bar)
    yield from _keeping(scale, source)


def _making(scale: Scale, source: np.random.Generator, both: Ints) -> Iterator[Figure]:
    """Short ids of all rows, and a sketch of them, from nothing."""
    n = len(both)
    lanes = {group: _numbers(source, 2 * n).reshape(-1, 2) for group in COMPARED}
    rows = [b"".join(lanes[group][at].tobytes() for group in COMPARED) for at in range(min(n, CHUNK))]

    def named() -> Run:
        return timed(lambda: short_ids(lanes, 3, bytes(32)), n)

    def hashed() -> Run:
        return timed(lambda: [hashlib.blake2b(row, key=bytes(32), digest_size=8).digest() for row in rows], len(rows))

    yield from compare("repair.ids", named, {"BLAKE2b of each row": hashed}, unit="rows/s", rounds=scale.rounds)

    def encoded() -> Run:
        sketch = Sketch.empty(USUAL_SYMBOLS)
        run = timed(lambda: sketch.add(both), n)
        assert sketch.count == n
        assert int(sketch.sums[0]) == int(both.sum(dtype=np.uint64))
        return run

    baselines: dict[str, Callable[[], Run]] = {
        "sort of the short ids": lambda: timed(lambda: np.sort(both), n),
        "fixed table that knows d = 1,000": lambda: timed(lambda: _fixed_table(both, 1000), n),
    }
    figures = compare("repair.encode", encoded, baselines, unit="ids/s", rounds=scale.rounds)
    yield Figure("repair.encode", n / figures[0].value, "s", bar=Bar(4, at_most=0.8))
    yield from figures


def _finding(
    scale: Scale, source: np.random.Generator, both: Ints, kept: Sketch, *, differences: int, bar: float
) -> Iterator[Figure]:
    """Comparisons as two sides make them, half of them with everything missing on one side only."""
    name = f"repair-{differences}"
    trials, seconds = [], []
    for trial in range(scale.size(TRIALS[differences], 2)):
        apart = _numbers(source, differences)
        here, there = np.split(apart, [differences // (1 + trial % 2)])
        mine, theirs = _with(kept, here), _with(kept, there)
        trials.append(_compared(mine, theirs, here, there))
        enough = mine.slice(0, _symbols(trials[-1])) - theirs.slice(0, _symbols(trials[-1]))
        seconds.append(timed(lambda enough=enough: peel(enough), 1).seconds)
    octets = statistics.fmean(one.octets / differences for one in trials)
    yield Figure(f"{name}.bytes", octets, "B/difference", bar=Bar(4, at_most=bar))
    yield Figure(f"{name}.bytes.most", max(one.octets / differences for one in trials), "B/difference")
    yield Figure(f"{name}.trips", statistics.fmean(one.trips for one in trials), "trips")
    floor = (64 - math.log2(differences) + math.log2(math.e)) / 8
    yield against(f"{name}.floor", octets, "B/difference", "what 64-bit ids must take", floor)
    prefixes = _prefix_bytes(both, _numbers(source, differences)) / differences
    yield against(f"{name}.prefixes", octets, "B/difference", "fingerprints of prefixes, two levels", prefixes)
    decode = Bar(4, at_most=50) if differences == 1000 else None
    yield Figure(f"{name}.decode", 1000 * statistics.median(seconds), "ms", bar=decode)


def _keeping(scale: Scale, source: np.random.Generator) -> Iterator[Figure]:
    """A sketch of ten million rows that is kept current: what a change costs, and a whole comparison on both sides."""
    n, differences = scale.size(10_000_000, 100_000), 1000
    kept = Sketch.empty(USUAL_SYMBOLS)
    for _ in range(0, n, CHUNK):
        kept.add(_numbers(source, CHUNK))
    changes = _numbers(source, 1000)
    runs = [timed(lambda: (kept.add(changes), kept.remove(changes)), 2000) for _ in range(scale.rounds)]
    upkeep = statistics.median(1e6 / run.rate for run in runs)
    yield Figure("repair.upkeep", upkeep, "us/change", bar=Bar(4, at_most=3))
    runs = []
    for _ in range(scale.rounds):
        here, there = np.split(_numbers(source, differences), 2)
        sides = _with(kept, here), _with(kept, there), here, there
        runs.append(timed(lambda sides=sides: _compared(*sides), 1))
    yield Figure("repair.kept", 1000 * statistics.median(run.seconds for run in runs), "ms", bar=Bar(4, at_most=100))


def _compared(mine: Sketch, theirs: Sketch, here: Ints, there: Ints) -> Found:
    """What two sides send and do until they know; heads of the messages are counted."""
    raw = dump_sketch(theirs.slice(0, FIRST_SYMBOLS))
    taken, octets, trips = parse_sketch(raw), len(raw), 1
    while (peeled := peel(difference := mine.slice(0, taken.last) - taken)) is None:
        wanted = symbols_wanted(difference)
        assert wanted is not None
        raw = dump_sketch(theirs.slice(taken.last, wanted))
        taken, octets, trips = taken.followed_by(parse_sketch(raw)), octets + len(raw), trips + 1
    assert np.array_equal(peeled.here, np.sort(here))
    assert np.array_equal(peeled.there, np.sort(there))
    return Found(len(here) + len(there), octets, trips)


def _symbols(found: Found) -> int:
    """How many symbols came in these messages."""
    empty = len(dump_sketch(Sketch.empty(1)))
    symbol = len(dump_sketch(Sketch.empty(2))) - empty
    return (found.octets - found.trips * (empty - symbol)) // symbol


def _with(kept: Sketch, more: Ints) -> Sketch:
    sketch = kept.slice(0, kept.last)
    sketch.add(more)
    return sketch


def _numbers(source: np.random.Generator, n: int) -> Ints:
    return source.integers(0, 1 << 64, n, np.uint64)


def _fixed_table(ids: Ints, differences: int) -> None:
    """An invertible Bloom look-up table with three places for each id: quick to make, useless when more differ."""
    third = math.ceil(FIXED_CELLS * differences / 3) + 8
    sums, checks, counts = (np.zeros(3 * third, np.uint64) for _ in range(3))
    for start in range(0, len(ids), CHUNK):
        chunk = ids[start : start + CHUNK]
        check = (chunk ^ (chunk >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
        check ^= check >> np.uint64(33)
        for which in range(3):
            mixed = chunk * np.uint64(0x9E3779B97F4A7C15 + 2 * which)
            cells = ((mixed >> np.uint64(32)) % np.uint64(third)).astype(np.int64) + which * third
            np.add.at(sums, cells, chunk)
            np.add.at(checks, cells, check)
            np.add.at(counts, cells, np.uint64(1))


def _prefix_bytes(both: Ints, apart: Ints) -> int:
    """Bytes when fingerprints of ranges are exchanged, two buckets a difference, then 16 ids a bucket, then ids."""
    ours = np.sort(np.concatenate([both, apart[::2]]))
    theirs = np.sort(np.concatenate([both, apart[1::2]]))
    upper = max(4, math.ceil(math.log2(2 * len(apart))))
    lower = max(upper, math.ceil(math.log2(len(ours) / 16)))
    differ = np.flatnonzero(_fingerprints(ours, upper)[0] != _fingerprints(theirs, upper)[0])
    (mine, my_ends), (other, other_ends) = _fingerprints(ours, lower), _fingerprints(theirs, lower)
    below = 1 << (lower - upper)
    looked = (differ[:, None] * below + np.arange(below)).ravel()
    leaves = looked[mine[looked] != other[looked]]
    sent = sum(int((ends[leaves + 1] - ends[leaves]).sum()) for ends in (my_ends, other_ends))
    assert sent >= len(apart)
    return 8 * ((1 << upper) + (len(looked) if lower > upper else 0) + sent)


def _fingerprints(ordered: Ints, bits: int) -> tuple[Ints, Ints]:
    """The sum of the finalised ids below each prefix, and where the ids of each begin."""
    starts = np.searchsorted(ordered, np.arange(1 << bits, dtype=np.uint64) << np.uint64(64 - bits))
    ends = np.append(starts, len(ordered)).astype(np.uint64)
    mixed = ordered * np.uint64(0xFF51AFD7ED558CCD)
    total = np.concatenate([np.zeros(1, np.uint64), np.cumsum(mixed ^ (mixed >> np.uint64(29)), dtype=np.uint64)])
    return total[ends[1:]] - total[ends[:-1]], ends
