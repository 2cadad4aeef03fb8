"""Deltas into a list of ten million (target 2): what a set costs where it is large.

A hub and a follower hold the list; it is imported, served and applied once, in ready columns. Then deltas come, each of
entries that nobody has met, and make the list a little longer. The baseline is a table keyed by hash that holds as many
rows, filled in order of its keys, and takes the same rows in no order.
"""

from __future__ import annotations

import hashlib
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from itertools import count
from operator import itemgetter
from pathlib import Path

import numpy as np
from finding import DEEDS, MIB, measured
from measure import Bar, Figure, Run, Scale, against, compare, timed
from tables import UPSERT, insert, open_table
from worlds import DIGEST_BYTES, LABELS, Gateway, Pair, batches, drafts, fill, make_pair, table_rows

from gateway.columns.drafts import DraftBatch

HELD = 10_000_000
DELTAS = (1_000, 100_000)
ROUNDS = 3  # of each deed and size; a delta is long enough to be measured once
ROWS_AT_ONCE = 250_000  # of the baseline, while it is filled
TABLE = "executemany upsert into a table keyed by hash, as long"
EMPTY = "empty set, the same deed"


def bench_large(scale: Scale) -> Iterator[Figure]:
    """1,000 and 100,000 changes into a list of 10,000,000, by import and by page, index merge included."""
    held = scale.size(HELD, 10_000)
    with tempfile.TemporaryDirectory(dir=scale.folder) as place, ExitStack() as stack:
        pair = make_pair(Path(place), stack)
        yield Figure("large.import", timed(lambda: fill(pair, held), held).rate, "entries/s")
        yield Figure("large.pull", timed(pair.catch_up, held).rate, "entries/s")
        connection = stack.enter_context(closing(open_table(Path(place) / "table.db")))
        _fill_table(connection, held)
        unmet = count(held, max(DELTAS))  # the first number of each delta
        for changes in (scale.size(full, full // 20) for full in DELTAS):
            yield from _deltas(scale, pair, connection, changes, unmet)
    if not scale.quick:
        yield from _memory(scale, held)


def _memory(scale: Scale, held: int) -> Iterator[Figure]:
    """What importing, serving and applying the list takes beside the resident index, and the index itself."""
    sizes = held // 10, held
    for deed in DEEDS:
        found = [measured(deed, size, folder=scale.folder) for size in sizes]
        small, large = ((one["peak_bytes"] - one["index_bytes"]) / MIB for one in found)
        name = f"{sizes[0]:,} entries instead of {sizes[1]:,}"
        yield against(f"large.memory.{deed}", large, "MiB beside the index", name, small, Bar(2, at_most=2))
    held_twice = 2 * held * len(("sha256", "md5", "pdq"))  # by the hub, and by the follower that has applied all
    yield Figure("large.memory.index", found[1]["index_bytes"] / held_twice, "B/digest", bar=Bar(2, at_most=16))


def _deltas(
    scale: Scale, large: Pair, connection: sqlite3.Connection, changes: int, unmet: Iterator[int]
) -> Iterator[Figure]:
    """One size of delta, by import into the hub's set and by page into the follower's mirror."""

    def upsert() -> Run:
        rows = table_rows(list(drafts(changes, first=next(unmet))))
        rows.sort(key=itemgetter(1))  # by md5, which is no order of their keys
        return timed(lambda: insert(connection, rows, UPSERT), changes)

    deeds: dict[str, Callable[[Pair, int, int], Run]] = {"import": _imported, "apply": _applied}
    for name, deed in deeds.items():

        def into_large(deed: Callable[[Pair, int, int], Run] = deed) -> Run:
            return deed(large, changes, next(unmet))

        def into_empty(deed: Callable[[Pair, int, int], Run] = deed) -> Run:
            with tempfile.TemporaryDirectory(dir=scale.folder) as place, ExitStack() as stack:
                return deed(make_pair(Path(place), stack), changes, next(unmet))

        yield from compare(
            f"large.{name}-{changes}",
            into_large,
            {TABLE: upsert, EMPTY: into_empty},
            unit="changes/s",
            rounds=scale.size(ROUNDS, 1),
            bars={TABLE: Bar(2, at_least=15), EMPTY: Bar(2, at_least=0.7)},
        )


def _imported(pair: Pair, changes: int, first: int) -> Run:
    entries = list(batches(changes, first=first))
    return timed(lambda: _import(pair, entries), changes)


def _import(pair: Pair, entries: Sequence[DraftBatch]) -> None:
    tally = pair.hub.exchange.ledger.import_entries(pair.set_name, entries, actor="bench", form="bench")
    assert tally.added == tally.rows
    _settle(pair.hub, pair.set_name)


def _applied(pair: Pair, changes: int, first: int) -> Run:
    fill(pair, changes, first=first)
    pair.announce()
    pages = pair.serve(pair.follower.exchange.mirrors.cursor(pair.set_name))
    words: list[str] = []

    def apply() -> None:
        words.append(pair.apply(pages))
        _settle(pair.follower, pair.set_name)

    run = timed(apply, changes)
    assert words == ["equal"]
    return run


def _settle(gateway: Gateway, set_name: str) -> None:
    """Have the index follow, and merge what the next question would have it merge."""
    with gateway.exchange.node.store.reading() as tx:
        set_id = tx.sets.get(set_name).id or 0
        with gateway.exchange.shelf.index(tx, set_id) as index:
            index.find("md5", np.zeros((1, 16), np.uint8))


def _fill_table(connection: sqlite3.Connection, held: int) -> None:
    """As many rows as the list has, in order of their keys: the first eight octets of key number i say i / `held`."""
    for start in range(0, held, ROWS_AT_ONCE):
        n = min(ROWS_AT_ONCE, held - start)
        raw = np.frombuffer(hashlib.shake_128(b"made-up files %d" % start).digest(DIGEST_BYTES * n), np.uint8)
        digests = raw.reshape(n, DIGEST_BYTES).copy()
        spread = np.arange(start, start + n, dtype=np.uint64) * np.uint64((1 << 64) // held)
        digests[:, :8] = spread.astype(">u8").view(np.uint8).reshape(n, 8)
        rows = [
            (one[:32], one[32:48], one[48:], at % len(LABELS), 80) for at, one in enumerate(map(bytes, digests), start)
        ]
        insert(connection, rows)
