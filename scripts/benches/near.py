"""Near-duplicates: PDQ digests within 31 bits of those that are asked for.

Digests are seeded random bits, as hashes of different pictures nearly are, or crowded as real lists are: copies of some
pictures, flat pictures with long stretches of equal bits, empty ones. Half of the questions are near something.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
from measure import Bar, Figure, Run, Scale, compare, timed
from worlds import SEED

from gateway.columns import MAX_RADIUS, Near, PdqIndex

KEY = bytes(range(32))
BLOCK = 65_536  # digests that arrive together
PEER = "threatexchange PDQIndex, one a call"
PEER_BUILD = "threatexchange PDQIndex"
BOUND = "reading the list once"


def bench_near(scale: Scale) -> Iterator[Figure]:
    """All rows within 31 bits, compared with brute force before the time counts; one thread."""
    yield from _beside_peer(scale)
    yield from _crowded(scale)
    yield from _beside_bound(scale)


def _beside_peer(scale: Scale) -> Iterator[Figure]:
    listed, asked, singles = scale.size(1_000_000, 5_000), scale.size(2_000, 64), scale.size(300, 16)
    source = np.random.default_rng(SEED)
    held = _digests(source, listed)
    queries = _half_near(source, held, asked)
    index = PdqIndex(KEY)
    build = timed(lambda: _fill(index, held), listed)
    answer = _checked(index, held, queries)

    def batch() -> Run:
        return _timed_alike(lambda: index.near(queries), answer, asked)

    def single() -> Run:
        return timed(lambda: [index.near(queries[at : at + 1]) for at in range(singles)], singles)

    peers: dict[str, Callable[[], Run]] = {}
    build_peers: dict[str, Callable[[], Run]] = {}
    if find_spec("threatexchange"):
        peer = _Peer(held)
        rows = answer.block_no * BLOCK + answer.row
        wanted = [set(rows[answer.query == at].tolist()) for at in range(singles)]
        peers[PEER] = lambda: peer.ask(queries[:singles], wanted)
        build_peers[PEER_BUILD] = lambda: peer.build  # takes many seconds: once
    yield from _compared("near.batch", batch, peers, rounds=scale.rounds, bar=Bar(5, at_least=7))
    yield from _compared("near.single", single, peers, rounds=scale.rounds, bar=Bar(5, at_least=1.3))
    yield from _compared("near.build", lambda: build, build_peers, unit="digests/s", rounds=1, bar=Bar(5, at_least=3))
    yield Figure("near.resident", index.resident_bytes / listed, "B/digest")


def _crowded(scale: Scale) -> Iterator[Figure]:
    """A list as real ones are; what a query costs is counted in digests, too."""
    listed, asked = scale.size(1_000_000, 5_000), scale.size(500, 32)
    source = np.random.default_rng(SEED + 1)
    pictures = _digests(source, listed // 500)
    held = _noisy(source, pictures[source.integers(0, len(pictures), listed)], 0.08)
    held[: listed // 10, 8:16] = 0  # a quarter of the bits
    held[: listed // 100] = 0
    source.shuffle(held)
    queries = _half_near(source, held[held.any(axis=1)], asked)
    index = PdqIndex(KEY)
    _fill(index, held)
    answer = _checked(index, held, queries)
    before = index.examined
    yield from compare(
        "near.crowded",
        lambda: _timed_alike(lambda: index.near(queries), answer, asked),
        {BOUND: lambda: _read(held)},
        unit="queries/s",
        rounds=scale.rounds,
    )
    examined = (index.examined - before) / (asked * scale.rounds)
    yield Figure("near.crowded.examined", examined, "digests/query")


def _beside_bound(scale: Scale) -> Iterator[Figure]:
    """Ten times as many. No search that reads all can be faster than memory is."""
    listed, asked = scale.size(10_000_000, 8_000), scale.size(500, 32)
    source = np.random.default_rng(SEED + 2)
    held = _digests(source, listed)
    queries = _half_near(source, held, asked)
    index = PdqIndex(KEY)
    build = timed(lambda: _fill(index, held), listed)
    answer = _checked(index, held, queries)
    yield from compare(
        "near.large",
        lambda: _timed_alike(lambda: index.near(queries), answer, asked),
        {BOUND: lambda: _read(held)},
        unit="queries/s",
        rounds=scale.rounds,
        bars={BOUND: Bar(5, at_least=20)},
    )
    yield Figure("near.large.build", build.rate, "digests/s")
    yield Figure("near.large.resident", index.resident_bytes / listed, "B/digest")


def _compared(
    name: str,
    product: Callable[[], Run],
    peers: dict[str, Callable[[], Run]],
    *,
    unit: str = "queries/s",
    rounds: int,
    bar: Bar,
) -> list[Figure]:
    """Beside the peer where it is installed, else the product's own rate."""
    if peers:
        return compare(name, product, peers, unit=unit, rounds=rounds, bars=dict.fromkeys(peers, bar))
    return [Figure(name, sorted(product().rate for _ in range(rounds))[rounds // 2], unit)]


class _Peer:
    """threatexchange's index of the same digests; it takes hexadecimal texts and answers one at a time."""

    def __init__(self, held: np.ndarray[Any, Any]) -> None:
        import_module("faiss").omp_set_num_threads(1)
        texts = [digest.tobytes().hex() for digest in held]
        made = import_module("threatexchange.signal_type.pdq.pdq_index").PDQIndex
        found: list[Any] = []
        self.build = timed(lambda: found.append(made(zip(texts, range(len(texts)), strict=True))), len(texts))
        [self._index] = found

    def ask(self, queries: np.ndarray[Any, Any], wanted: list[set[int]]) -> Run:
        """Ask it one by one; it finds the same."""
        texts = [query.tobytes().hex() for query in queries]
        found: list[set[int]] = []
        run = timed(
            lambda: found.extend({hit.metadata for hit in self._index.query(text)} for text in texts), len(texts)
        )
        assert found == wanted
        return run


def _fill(index: PdqIndex, held: np.ndarray[Any, Any]) -> None:
    """As blocks arrive; the first search makes the tables."""
    for block_no, start in enumerate(range(0, len(held), BLOCK)):
        index.add(block_no, held[start : start + BLOCK])
    index.near(held[:1])


def _read(held: np.ndarray[Any, Any]) -> Run:
    """What one look at every digest costs at the least."""
    words = held.view(np.uint64)
    return timed(words.max, 1)


def _timed_alike(search: Callable[[], Near], answer: Near, asked: int) -> Run:
    """Every search gives the answer that was checked."""
    found: list[Near] = []
    run = timed(lambda: found.append(search()), asked)
    assert all(np.array_equal(getattr(found[0], name), getattr(answer, name)) for name in ("query", "block_no", "row"))
    return run


def _checked(index: PdqIndex, held: np.ndarray[Any, Any], queries: np.ndarray[Any, Any]) -> Near:
    """The index's answer: no row outside the radius, and in 16 queries all that brute force finds."""
    found = index.near(queries)
    words = held.view(np.uint64)
    rows = found.block_no * BLOCK + found.row
    apart = np.bitwise_count(words[rows] ^ queries.view(np.uint64)[found.query]).sum(axis=1)
    assert np.array_equal(apart, found.distance), "a distance is not what it is"
    assert int(apart.max()) <= MAX_RADIUS
    for query in range(min(16, len(queries))):
        apart = np.bitwise_count(words ^ queries[query].view(np.uint64)).sum(axis=1)
        assert np.array_equal(np.flatnonzero(apart <= MAX_RADIUS), rows[found.query == query]), "recall is not 1"
    assert set(range(0, len(queries), 2)) <= set(found.query.tolist()), "recall is not 1"
    return found


def _digests(source: np.random.Generator, count: int) -> np.ndarray[Any, Any]:
    return np.frombuffer(source.bytes(32 * count), np.uint8).reshape(count, 32).copy()


def _noisy(source: np.random.Generator, digests: np.ndarray[Any, Any], share: float) -> np.ndarray[Any, Any]:
    """The same with this share of their bits flipped."""
    for start in range(0, len(digests), BLOCK):
        some = digests[start : start + BLOCK]
        some ^= np.packbits(source.random((len(some), 256), np.float32) < share, axis=1)
    return digests


def _half_near(source: np.random.Generator, held: np.ndarray[Any, Any], count: int) -> np.ndarray[Any, Any]:
    """Every second query is a digest of the list with 0 to 31 bits flipped."""
    queries = _digests(source, count)
    for at in range(0, count, 2):
        bits = np.zeros(256, np.uint8)
        bits[source.choice(256, source.integers(0, MAX_RADIUS + 1), replace=False)] = 1
        queries[at] = held[source.integers(0, len(held))] ^ np.packbits(bits)
    return queries
