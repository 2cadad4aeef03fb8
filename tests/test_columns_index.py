"""gateway/columns/index.py."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from columns_builders import octets
from gateway.columns import SetIndex, Text, constant, counting
from gateway.columns.index import MAX_SEGMENT, Arrival
from gateway.errors import ConflictError, MalformedError, NotFoundError

KEY = bytes(range(32))
TOP = (1 << 64) - 1
ids = st.one_of(st.integers(1, 12), st.integers(TOP - 3, TOP))
rows = st.lists(st.tuples(ids, st.integers(1, 3), st.integers(1, 5)), min_size=1, max_size=8)
deeds = st.lists(st.one_of(rows, st.just("drop"), st.just("find")), max_size=14)


def u64(*values: int) -> np.ndarray:
    return np.array(values, np.uint64)


def md5(*numbers: int) -> np.ndarray:
    return np.frombuffer(b"".join(octets("md5", n) for n in numbers), np.uint8).reshape(-1, 16)


def filled(*batches: tuple[int, ...]) -> SetIndex:
    """Block i asserts these entries, each with the digest of its own number."""
    index = SetIndex(KEY)
    for block_no, entries in enumerate(batches):
        index.append(block_no, u64(*entries), {"md5": md5(*entries)}, constant(1, len(entries)))
    return index


def places(index: SetIndex, *entries: int) -> list[tuple[int, int] | None]:
    at = index.locate(u64(*entries))
    return [
        (int(block), int(row)) if found else None
        for found, block, row in zip(at.found, at.block_no, at.row, strict=True)
    ]


def hits(index: SetIndex, *numbers: int) -> list[tuple[int, int, int]]:
    found = index.find("md5", md5(*numbers))
    return list(zip(found.query.tolist(), found.block_no.tolist(), found.row.tolist(), strict=True))


def test_entry_stands_where_it_was_last_asserted():
    index = filled((1, 2, 3, 4), (3,), (2, 9))
    assert places(index, 1, 2, 3, 4, 9, 5) == [(0, 0), (2, 0), (1, 0), (0, 3), (2, 1), None]
    assert index.live_count == 5


def test_later_row_of_an_entry_in_one_block_wins():
    index = filled((7, 8, 7))
    assert places(index, 7, 8) == [(0, 2), (0, 1)]
    assert index.live_rows(0).tolist() == [False, True, True]


def test_withdraw_and_leave_make_an_entry_absent_and_only_one_is_remembered():
    index = filled((1, 2, 3))
    index.append(5, u64(1, 2), {}, u64(2, 3))
    assert places(index, 1, 2, 3) == [None, None, (0, 2)]
    assert index.withdrawn(u64(1, 2, 3, 4)).tolist() == [True, False, False, False]
    assert index.live_count == 1
    assert hits(index, 1, 2, 3) == [(2, 0, 2)]


def test_dropped_block_does_not_bring_back_what_it_replaced():
    index = filled((1, 2), (2, 3))
    index.drop_block(1)
    assert places(index, 1, 2, 3) == [(0, 0), None, None]
    assert hits(index, 1, 2, 3) == [(0, 0, 0)]
    assert index.live_count == 1


def test_rewritten_block_first_then_drop_keeps_every_entry():
    index = filled((1, 2), (3,))
    index.append(9, u64(1, 2, 3), {"md5": md5(1, 2, 3)}, constant(1, 3))
    index.drop_block(0)
    index.drop_block(1)
    assert places(index, 1, 2, 3) == [(9, 0), (9, 1), (9, 2)]
    assert hits(index, 3, 1) == [(0, 9, 2), (1, 9, 0)]


def test_one_digest_of_many_entries_gives_all_of_them():
    index = SetIndex(KEY)
    same = np.repeat(md5(1), 100, axis=0)
    index.append(0, counting(1, 100), {"md5": same}, constant(1, 100))
    index.append(1, counting(50, 100), {"md5": same}, constant(1, 100))
    assert [row for _, block, row in hits(index, 2, 1) if block == 0] == list(range(49))
    assert [row for _, block, row in hits(index, 1) if block == 1] == list(range(100))


def test_digest_is_found_under_its_own_algorithm_only():
    index = SetIndex(KEY)
    value = np.frombuffer(octets("sha256", 1), np.uint8).reshape(1, 32)
    index.append(0, u64(1), {"sha256": value, "ssdeep": Text.of(["3:a:b"])}, u64(1))
    assert len(index.find("sha256", value).query) == 1
    assert len(index.find("pdq", value).query) == 0
    assert len(index.find("ssdeep", Text.of(["3:a:b", "3:a:c"])).query) == 1
    for algorithm, values in (("md5", value), ("ssdeep", value), ("seen", u64(1)), ("pdq", Text.of(["x"]))):
        with pytest.raises(MalformedError):
            index.find(algorithm, values)


def test_references_are_found_like_digests():
    index = SetIndex(KEY)
    index.append(0, u64(1, 2), {"source_ref": Text.of(["2026/1", "2026/2"])}, u64(1, 1))
    found = index.find("source_ref", Text.of(["2026/2", "2026/3"]))
    assert (found.query.tolist(), found.row.tolist()) == ([0], [1])


def test_refused_append_changes_nothing():
    index = filled((1, 2))
    with pytest.raises(ConflictError):
        index.append(0, u64(3), {"md5": md5(3)}, u64(1))
    for digests, kinds in (
        ({"md5": md5(1)}, u64(1, 1)),
        ({}, u64(1)),
        ({}, u64(1, 4)),
        ({"sha1": md5(1, 2)}, u64(1, 1)),
    ):
        with pytest.raises(MalformedError):
            index.append(1, u64(1, 2), digests, kinds)
    assert places(index, 1, 2, 3) == [(0, 0), (0, 1), None]
    assert index.live_count == 2


def test_unknown_block_and_short_key_are_refused():
    index = filled((1,))
    for deed in (index.drop_block, index.live_rows):
        with pytest.raises(NotFoundError):
            deed(7)
    with pytest.raises(MalformedError):
        SetIndex(b"short")


def test_empty_index_finds_nothing():
    index = SetIndex(KEY)
    assert places(index, 1) == [None]
    assert hits(index, 1) == []
    assert index.withdrawn(u64(1)).tolist() == [False]
    assert index.live_count == 0


def test_runs_longer_than_a_segment_are_found_to_the_last_id():
    n = MAX_SEGMENT + 3
    index = SetIndex(KEY)
    for block_no, first in enumerate((1, n + 1, 2 * n + 1)):
        index.append(block_no, counting(first, n), {}, constant(1, n))
    index.append(3, u64(5), {}, u64(1))
    index.append(4, u64(n), {}, u64(1))
    assert places(index, 1, 5, n - 1, n, n + 1, 3 * n, 3 * n + 1) == [
        (0, 0), (3, 0), (0, n - 2), (4, 0), (1, 0), (2, n - 1), None,
    ]  # fmt: skip


@pytest.fixture
def _short_runs(monkeypatch):
    """Runs are full at four keys, which else takes millions."""
    monkeypatch.setattr("gateway.columns.index._FULL", 4)


@given(deeds)
@settings(max_examples=120, deadline=None)
def test_index_agrees_with_a_dictionary_over_any_history(history):
    agrees_with_a_dictionary(history)


@pytest.mark.usefixtures("_short_runs")
@given(deeds)
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_index_of_many_full_runs_agrees_with_a_dictionary(history):
    agrees_with_a_dictionary(history)


def agrees_with_a_dictionary(history):
    index, last, dropped, blocks = SetIndex(KEY), {}, set(), []
    for block_no, deed in enumerate(history):
        if deed == "drop":
            if blocks:
                dropped.add(blocks[0])
                index.drop_block(blocks.pop(0))
        elif deed == "find":
            index.find("md5", md5(1))  # merges runs at an arbitrary moment
        else:
            entries, kinds, numbers = zip(*deed, strict=True)
            index.append(block_no, u64(*entries), {"md5": md5(*numbers)}, u64(*kinds))
            blocks.append(block_no)
            last |= {entry: (block_no, row, *deed[row][1:]) for row, entry in enumerate(entries)}
    live = {
        entry: (block, row, number)
        for entry, (block, row, kind, number) in last.items()
        if kind == 1 and block not in dropped
    }
    every = [*range(1, 13), *range(TOP - 3, TOP + 1)]
    assert places(index, *every) == [live[entry][:2] if entry in live else None for entry in every]
    assert index.live_count == len(live)
    wanted = sorted((number - 1, block, row) for block, row, number in live.values())
    assert sorted(hits(index, 1, 2, 3, 4, 5)) == wanted
    for block_no in blocks:
        assert np.flatnonzero(index.live_rows(block_no)).tolist() == sorted(
            row for block, row, _ in live.values() if block == block_no
        )
    gone = index.withdrawn(u64(*every)).tolist()
    assert gone == [entry in last and last[entry][2] == 2 and last[entry][0] not in dropped for entry in every]


def test_large_index_finds_every_digest_and_nothing_else():
    rng = np.random.default_rng(5)
    index, n, kept = SetIndex(KEY), 10_000, []
    for block_no in range(12):
        values = rng.integers(0, 256, (n, 32), np.uint8)
        index.append(block_no, counting(1 + block_no * n, n), {"sha256": values}, constant(1, n))
        kept.append(values)
        if block_no % 5 == 4:
            index.find("sha256", values[:1])
    found = index.find("sha256", np.concatenate(kept))
    assert np.array_equal(found.query, np.arange(12 * n))
    assert np.array_equal(found.block_no * n + found.row, np.arange(12 * n))
    assert not len(index.find("sha256", rng.integers(0, 256, (n, 32), np.uint8)).query)
    assert index.resident_bytes / (12 * n) <= 16


def test_dead_rows_fall_out_of_full_runs_once_half_of_all_is_dead(monkeypatch):
    monkeypatch.setattr("gateway.columns.index._FULL", 1000)
    rng = np.random.default_rng(6)
    index, n, sizes = SetIndex(KEY), 1200, []
    for block_no in range(30):  # the same entries again and again, each time enough for a full run
        index.append(block_no, counting(1, n), {"sha256": rng.integers(0, 256, (n, 32), np.uint8)}, constant(1, n))
        index.find("sha256", np.zeros((1, 32), np.uint8))
        sizes.append(index.resident_bytes - n * (block_no + 1))  # a byte a row stays
    assert index.live_count == n
    assert max(sizes) < 3 * 16 * n, "what was replaced goes on taking room"


@given(st.lists(rows, min_size=1, max_size=5))
@settings(max_examples=150, deadline=None)
def test_many_blocks_at_once_make_the_index_that_one_by_one_makes(batches):
    """Blocks of different columns too: every second one has no md5 but a reference."""
    blocks = []
    for block_no, batch in enumerate(batches):
        entries, kinds, values = zip(*batch, strict=True)
        digests = {"source_ref": Text.of([f"ref {v}" for v in values])} if block_no % 2 else {"md5": md5(*values)}
        blocks.append(Arrival(block_no, u64(*entries), digests, u64(*kinds)))
    one_by_one, at_once = SetIndex(KEY), SetIndex(KEY)
    for block in blocks:
        one_by_one.append(block.block_no, block.entry_ids, block.digests, block.kinds)
    at_once.append_all(blocks)
    asked = sorted({entry for batch in batches for entry, _, _ in batch})
    refs = Text.of([f"ref {value}" for value in range(1, 6)])
    for found in (at_once, one_by_one):
        assert found.live_count == one_by_one.live_count
        assert places(found, *asked) == places(one_by_one, *asked)
        assert hits(found, 1, 2, 3, 4, 5) == hits(one_by_one, 1, 2, 3, 4, 5)
        mine, theirs = found.find("source_ref", refs), one_by_one.find("source_ref", refs)
        assert mine.query.tolist() == theirs.query.tolist()
        assert (mine.block_no.tolist(), mine.row.tolist()) == (theirs.block_no.tolist(), theirs.row.tolist())
        for block in blocks:
            assert found.live_rows(block.block_no).tolist() == one_by_one.live_rows(block.block_no).tolist()


def test_a_block_number_that_stands_twice_among_many_is_refused():
    block = Arrival(3, u64(1), {}, u64(1))
    index = SetIndex(KEY)
    with pytest.raises(ConflictError):
        index.append_all([block, block])
    assert index.live_count == 0
    index.append_all([])
