"""gateway/columns/pdq.py."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from columns_builders import block_of, sample
from gateway.columns import Near, PdqIndex, Rows, SetIndex, decode, parse_block, pdq
from gateway.columns.index import Arrival
from gateway.errors import ConflictError, MalformedError, NotFoundError, OverloadedError

KEY, OTHER_KEY = bytes(range(32)), bytes(32)
SHORT, LONG = 1 << 30, 0  # from how many digests on a list has the chunks of a long one


@pytest.fixture(params=[SHORT, LONG], ids=["short", "long"])
def _chunks(request, monkeypatch) -> None:
    """Tables for lists of any length, and with the chunks of either layout."""
    monkeypatch.setattr(pdq, "SCANNED_DIGESTS", 16)
    monkeypatch.setattr(pdq, "LARGE_DIGESTS", request.param)


def digests(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.integers(0, 256, (n, 32), np.uint8)


def noisy(rng: np.random.Generator, values: np.ndarray, share: float) -> np.ndarray:
    """The same with this share of all bits flipped."""
    return values ^ np.packbits(rng.random((len(values), 256)) < share, axis=1)


def flipped(value: np.ndarray, bits: list[int]) -> np.ndarray:
    mask = np.zeros(256, np.uint8)
    mask[bits] = 1
    return value ^ np.packbits(mask)


def brute(held: np.ndarray, asked: np.ndarray, radius: int) -> list[tuple[int, int, int]]:
    """(query, row, distance) by the definition."""
    apart = np.bitwise_count(held.view(np.uint64)[None] ^ asked.view(np.uint64)[:, None]).sum(axis=2)
    query, row = np.nonzero(apart <= radius)
    return list(zip(query.tolist(), row.tolist(), apart[query, row].tolist(), strict=True))


def answers(found: Near) -> list[tuple[int, int, int]]:
    """(query, row, distance) where there is one block."""
    return list(zip(found.query.tolist(), found.row.tolist(), found.distance.tolist(), strict=True))


def filled(values: np.ndarray, key: bytes = KEY) -> PdqIndex:
    index = PdqIndex(key)
    index.add(0, values)
    return index


# All matches, and nothing else


@pytest.mark.usefixtures("_chunks")
@pytest.mark.parametrize("spread", [0.0, 0.03, 0.06, 0.1, 0.5])
def test_every_row_within_the_radius_is_found_and_no_other(spread):
    rng = np.random.default_rng(int(100 * spread))
    held = noisy(rng, digests(rng, 40)[rng.integers(0, 40, 2000)], spread)
    asked = np.concatenate([noisy(rng, held[:30], 0.06), digests(rng, 10)])
    index = filled(held)
    for radius in (31, 30, 15, 1, 0):
        assert answers(index.near(asked, radius)) == brute(held, asked, radius)
    assert len(brute(held, asked, 31)) >= 30


@pytest.mark.usefixtures("_chunks")
def test_a_digest_that_only_one_chunk_gives_away_is_found():
    """The worst case: in every other chunk as many bits differ as it has units, so that it gives nothing away."""
    values = digests(np.random.default_rng(1), 3000)
    index = filled(values)
    index.near(values[:1])
    chunks = index._runs[0]._tables.chunks
    units = pdq._usual_plan(chunks, len(values), 31).units
    assert sum(units) == 32
    for telling in np.flatnonzero(units).tolist():
        spent = [chunk_bits(index, chunk)[: u - (chunk == telling)] for chunk, u in enumerate(units)]
        only_just = flipped(values[7], [bit for some in spent for bit in some])
        assert answers(index.near(only_just[None])) == [(0, 7, 31)]


def chunk_bits(index: PdqIndex, chunk: int) -> list[int]:
    """The bits of a digest that the tables read for one chunk."""
    chunks = index._runs[0]._tables.chunks
    bits = [int(chunks.quarters[chunk]) * 64 + int(chunks.shifts[chunk]) + i for i in range(chunks.widths[chunk])]
    # Words are little-endian, and a byte's first bit is its highest.
    return [int(index._bit_order[bit // 8 * 8 + 7 - bit % 8]) for bit in bits]


@pytest.mark.usefixtures("_chunks")
def test_distance_31_is_within_and_32_is_not():
    rng = np.random.default_rng(2)
    held = digests(rng, 500)
    index = filled(held)
    for row in range(40):
        bits = rng.choice(256, 32, replace=False).tolist()
        assert answers(index.near(flipped(held[row], bits[:31])[None])) == [(0, row, 31)]
        assert answers(index.near(flipped(held[row], bits)[None])) == []


@pytest.mark.parametrize("n", [1, 50, 5000])
def test_the_opposite_of_a_digest_is_not_near_it(n):
    held = digests(np.random.default_rng(3), n)
    assert answers(filled(held).near(~held[:3])) == []


def test_the_secret_order_of_bits_changes_no_answer():
    rng = np.random.default_rng(4)
    held = noisy(rng, digests(rng, 20)[rng.integers(0, 20, 6000)], 0.07)
    asked = noisy(rng, held[:20], 0.05)
    assert answers(filled(held).near(asked)) == answers(filled(held, OTHER_KEY).near(asked)) == brute(held, asked, 31)


# Blocks and rows that come and go

POOL = np.concatenate([noisy(np.random.default_rng(5), np.zeros((6, 32), np.uint8), 0.06),
                       digests(np.random.default_rng(6), 4)])  # fmt: skip
picked = st.lists(st.tuples(st.integers(0, len(POOL) - 1), st.booleans()), max_size=12)
deeds = st.lists(st.one_of(picked, st.just("drop"), st.just("find"), st.integers(0, 200)), max_size=14)


@given(deeds, st.sampled_from([SHORT, LONG]))
@settings(max_examples=150, deadline=None)
def test_index_agrees_with_a_dictionary_over_any_history(history, large):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pdq, "SCANNED_DIGESTS", 4)
        patch.setattr(pdq, "LARGE_DIGESTS", large)
        index, live, blocks = PdqIndex(KEY), {}, []
        for block_no, deed in enumerate(history):
            if deed == "drop":
                if blocks:
                    live = {place: which for place, which in live.items() if place[0] != blocks[0]}
                    index.drop_block(blocks.pop(0))
            elif deed == "find":
                index.near(POOL[:1])  # makes runs at an arbitrary moment
            elif isinstance(deed, int):
                gone = sorted(live)[deed % 7 :: 7]
                index.drop_rows(*np.array([*gone, (999, 0)]).T)
                live = {place: which for place, which in live.items() if place not in gone}
            else:
                values = POOL[[which for which, _ in deed]] if deed else np.zeros((0, 32), np.uint8)
                index.add(block_no, values, np.array([is_live for _, is_live in deed], np.bool_))
                blocks.append(block_no)
                live |= {(block_no, row): which for row, (which, is_live) in enumerate(deed) if is_live}
        assert index.live_count == len(live)
        places = sorted(live)
        found = index.near(POOL)
        assert list(zip(found.query, found.block_no, found.row, found.distance, strict=True)) == [
            (query, *places[nth], distance)
            for query, nth, distance in brute(POOL[[live[place] for place in places]].reshape(-1, 32), POOL, 31)
        ]


def test_a_batch_into_a_long_list_leaves_the_list_alone():
    rng = np.random.default_rng(7)
    held = digests(rng, 40_000)
    index = PdqIndex(KEY)
    index.add(0, held[:30_000])
    index.near(held[:1])
    long_run = index._runs[0]
    for block_no, start in enumerate(range(30_000, 37_000, 1000), 1):
        index.add(block_no, held[start : start + 1000])
        assert len(index.near(held[:1]).query) == 1
    assert index._runs[0] is long_run
    assert len(index._runs) <= 3
    found = index.near(held[29_990:37_010])
    assert (found.block_no * 1000 + found.row).tolist()[10:] == list(range(1000, 8000))
    index.add(99, held[37_000:])
    index.near(held[:1])
    assert len(index._runs) == 1, "the newer ones are more than a quarter now"


def test_a_list_that_is_mostly_dead_is_made_anew():
    rng = np.random.default_rng(8)
    index, held = PdqIndex(KEY), digests(rng, 20_000)
    index.add(3, held)
    index.near(held[:1])
    before = index.resident_bytes
    index.drop_rows(np.full(15_000, 3), np.arange(15_000))
    assert index.live_count == 5000
    assert answers(index.near(held[14_999:15_001])) == [(1, 15_000, 0)]
    assert index.resident_bytes < before / 2
    index.drop_block(3)
    assert answers(index.near(held[:10])) == []
    assert index.resident_bytes <= 20_000, "a byte for each row number that was given"


def test_memory_is_what_the_module_says():
    held = digests(np.random.default_rng(9), 50_000)
    index = filled(held)
    index.near(held[:1])
    assert index.resident_bytes <= (41 + 64) * 50_000 + (5 << 20)


def test_searches_beside_arrivals_see_every_block_that_was_there_before_them():
    values = digests(np.random.default_rng(16), 6000)
    index, asked = PdqIndex(KEY), values[::50]

    def arrive() -> None:
        for block_no, start in enumerate(range(0, len(values), 50)):
            index.add(block_no, values[start : start + 50])

    with ThreadPoolExecutor(1) as beside:
        done = beside.submit(arrive)
        while not done.done():
            there = index.live_count // 50
            found = index.near(asked)
            assert found.block_no.tolist() == found.query.tolist() == list(range(len(found.query)))
            assert len(found.query) >= there
        done.result()
    assert len(index.near(asked).query) == 120


# Blocks


class Followed:
    """Both indexes of one set as a shelf keeps them: they follow stored blocks, some at a time."""

    def __init__(self, stored: dict[int, bytes], key: bytes = KEY, at_once: int = 1) -> None:
        self.index, self.pdq = SetIndex(key), PdqIndex(key)
        numbers = list(stored)
        for start in range(0, len(numbers), at_once):
            some = numbers[start : start + at_once]
            self.pdq.follow(self.index, [arrival(number, stored[number]) for number in some])

    def drop(self, block_no: int) -> None:
        self.index.drop_block(block_no)
        self.pdq.drop_block(block_no)

    def near(self, asked: np.ndarray) -> list[tuple[int, int, int, int]]:
        found = self.pdq.near(asked)
        return sorted(zip(*(c.tolist() for c in (found.query, found.block_no, found.row, found.distance)), strict=True))


def arrival(block_no: int, raw: bytes) -> Arrival:
    rows = decode(parse_block(BytesIO(raw), max_bytes=1 << 20), ["entry_id", "kind", "pdq"])
    digests = {"pdq": rows.octets("pdq")} if "pdq" in rows.columns else {}
    return Arrival(block_no, rows.ints("entry_id"), digests, rows.ints("kind"))


def stored(rows: Rows) -> bytes:
    sink = BytesIO()
    block_of(rows).dump(sink)
    return sink.getvalue()


@pytest.fixture
def blocks() -> dict[int, bytes]:
    """300 entries in 10 and 11; 20 of them anew in 12; 35 withdrawn in 13; what else lives of block 10 again in 14."""
    rng = np.random.default_rng(10)
    values = noisy(rng, digests(rng, 12)[np.arange(300) % 12], 0.03)
    older, newer = (sample(150, first=at, pdq=values[at - 1 : at + 149]) for at in (1, 151))
    replaced = sample(20, first=141, pdq=noisy(rng, values[140:160], 0.02))
    withdrawn = sample(35, first=1, pdq=values[:35], kind=[2] * 35)
    rewritten = older.slice(35, 140)
    return dict(enumerate(map(stored, (older, newer, replaced, withdrawn, rewritten)), 10))


def held(raw: bytes) -> np.ndarray:
    return decode(parse_block(BytesIO(raw), max_bytes=1 << 20), ["pdq"]).octets("pdq")


@pytest.mark.usefixtures("_chunks")
def test_blocks_read_again_after_a_crash_give_the_answers_that_there_were(blocks):
    running = Followed(blocks)
    asked = held(blocks[11])[:24]
    before = running.near(asked)
    assert len(before) > 500
    running.drop(10)
    assert running.near(asked) == before, "all that was left of it had been rewritten"
    for kept in (blocks, {number: raw for number, raw in blocks.items() if number != 10}):
        for at_once in (1, 2, 9):
            again = Followed(kept, OTHER_KEY, at_once)
            assert again.near(asked) == before
            assert again.pdq.live_count == running.pdq.live_count == 265


def test_what_was_replaced_or_withdrawn_is_near_nothing(blocks):
    followed = Followed(blocks)
    places = {
        (block, row) for _, block, row, _ in followed.near(np.concatenate([held(raw) for raw in blocks.values()]))
    }
    assert places == {
        *((11, row) for row in range(10, 150)),
        *((12, row) for row in range(20)),
        *((14, row) for row in range(105)),
    }


def test_a_refused_block_replaces_nothing(blocks):
    followed = Followed({10: blocks[10]})
    before = followed.near(held(blocks[10]))
    with pytest.raises(ConflictError):
        followed.pdq.follow(followed.index, [arrival(10, blocks[13])])
    assert followed.near(held(blocks[10])) == before


def test_a_block_without_pdq_digests_is_followed_and_dropped(blocks):
    followed = Followed({10: blocks[10], 11: stored(sample(5, first=3, digests=("md5",)))})
    assert followed.pdq.live_count == 145, "its entries have no PDQ digest now"
    followed.drop(11)
    assert followed.pdq.live_count == 145


# Crowds


def half_in_buckets(n: int, crowded: int) -> np.ndarray:
    """Digests half of which stand in one bucket of each of the first chunks: whoever knows the key can do that."""
    rng = np.random.default_rng(11)
    index = filled(digests(rng, n))
    index.near(np.zeros((1, 32), np.uint8))
    bits = np.unpackbits(digests(rng, n), axis=1)
    for chunk in range(crowded):
        bits[: n // 2, chunk_bits(index, chunk)] = 0
    return np.packbits(bits, axis=1)


def asked_in_the_crowd(values: np.ndarray) -> np.ndarray:
    return noisy(np.random.default_rng(12), values[: len(values) // 2 : len(values) // 16][:8], 0.05)


@pytest.mark.parametrize(("large", "crowded"), [(SHORT, 1), (SHORT, 4), (LONG, 1), (LONG, 2)])
def test_a_query_goes_round_buckets_that_hold_half_of_the_list(monkeypatch, large, crowded):
    n = 60_000
    monkeypatch.setattr(pdq, "LARGE_DIGESTS", large)
    monkeypatch.setattr(pdq, "PATIENCE_DIGESTS", 2000)
    values = half_in_buckets(n, crowded)
    index, asked = filled(values), asked_in_the_crowd(values)
    assert answers(index.near(asked)) == brute(values, asked, 31)
    assert index.examined / len(asked) < n / 8, "half of the list is four times as many"
    for query in pdq._words(values[:8], index._bit_order).T:
        units = index._runs[0]._tables.own_plan(query[None], 31).units
        assert units[:crowded] == (0,) * crowded
        assert sum(units) >= 32, "or it could miss what is within 31"


@pytest.mark.parametrize("large", [SHORT, LONG])
@pytest.mark.parametrize("spread", [0.03, 0.1, 0.15])
def test_in_a_cloud_of_near_duplicates_a_query_costs_no_more_than_reading_the_list(monkeypatch, large, spread):
    """All are near each other, or nearly so: most buckets are crowded, whichever the query visits."""
    n, rng = 20_000, np.random.default_rng(13)
    monkeypatch.setattr(pdq, "LARGE_DIGESTS", large)
    monkeypatch.setattr(pdq, "_SCRATCH", 3000)
    values = noisy(rng, np.repeat(digests(rng, 1), n, axis=0), spread)
    index, asked = filled(values), noisy(rng, values[:6], 0.03)
    assert answers(index.near(asked)) == brute(values, asked, 31)
    assert index.examined <= len(asked) * n


def test_a_stretch_of_equal_bits_crowds_no_bucket():
    n, rng = 60_000, np.random.default_rng(14)
    values = digests(rng, n)
    even, asked = filled(values), noisy(rng, values[:200], 0.05)
    assert len(even.near(asked).query) >= 200
    values[:, 8:11] = 0
    uneven = filled(values)
    asked = noisy(rng, values[:200], 0.05)
    assert len(uneven.near(asked).query) >= 200
    assert uneven.examined < 8 * even.examined


def test_equal_digests_are_compared_once_and_found_all():
    n, rng = 30_000, np.random.default_rng(15)
    values = digests(rng, n)
    values[: n // 2] = 0
    index = filled(values)
    nothing = np.zeros((1, 32), np.uint8)
    assert answers(index.near(nothing)) == [(0, row, 0) for row in range(n // 2)]
    assert index.examined < 2000
    before = index.examined
    many = index.near(np.repeat(nothing, 3, axis=0))
    assert index.examined - before == before, "equal queries are one"
    assert many.query.tolist() == [0] * (n // 2) + [1] * (n // 2) + [2] * (n // 2)


def test_only_several_queries_can_have_too_many_matches(monkeypatch):
    monkeypatch.setattr(pdq, "MAX_MATCHES", 100)
    values = np.zeros((200, 32), np.uint8)
    index = filled(values)
    assert len(index.near(values[:1]).query) == 200
    with pytest.raises(OverloadedError):
        index.near(values[:2])


# Refusals


def test_what_is_not_a_column_of_pdq_digests_is_refused():
    index = PdqIndex(KEY)
    index.add(1, np.zeros((2, 32), np.uint8))
    for wrong in (np.zeros((2, 16), np.uint8), np.zeros((2, 32), np.uint64), np.zeros(32, np.uint8)):
        with pytest.raises(MalformedError):
            index.add(2, wrong)
        with pytest.raises(MalformedError):
            index.near(wrong)
    with pytest.raises(MalformedError):
        index.add(2, np.zeros((2, 32), np.uint8), np.array([True]))
    with pytest.raises(MalformedError):
        PdqIndex(b"short")
    for radius in (-1, 32):
        with pytest.raises(MalformedError):
            index.near(np.zeros((1, 32), np.uint8), radius)
    with pytest.raises(ConflictError):
        index.add(1, np.zeros((2, 32), np.uint8))
    for row in (-1, 2):
        with pytest.raises(NotFoundError):
            index.drop_rows(np.array([1, 1]), np.array([0, row]))
    assert index.live_count == 2


@pytest.mark.parametrize("bound", ["MAX_INDEX_ROWS", "MAX_PDQ_DIGESTS"])
def test_more_rows_than_the_tables_can_number_are_refused(monkeypatch, bound):
    monkeypatch.setattr(pdq, bound, 10)
    index = PdqIndex(KEY)
    index.add(1, np.zeros((10, 32), np.uint8))
    with pytest.raises(OverloadedError):
        index.add(2, np.zeros((1, 32), np.uint8))
    assert index.live_count == 10


def test_an_empty_index_and_an_empty_question_have_no_answers():
    index = PdqIndex(KEY)
    assert answers(index.near(np.zeros((3, 32), np.uint8))) == []
    index.add(1, np.zeros((2, 32), np.uint8))
    assert answers(index.near(np.zeros((0, 32), np.uint8))) == []
