"""gateway/columns/delta.py."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.columns import Rows, select_delta
from gateway.errors import MalformedError

ASSERT, WITHDRAW, LEAVE = 1, 2, 3
changes = st.lists(st.tuples(st.integers(1, 6), st.sampled_from((1, 1, 1, 2, 3)), st.integers(1, 4)), max_size=40)


def history(events: list[tuple[int, int, int]]) -> list[dict[str, int]]:
    """The hub's changes (entry, kind, label), seq from 1, with what each knows of the row before it."""
    before: dict[int, tuple[int, int]] = {}
    rows = []
    for seq, (entry, kind, label) in enumerate(events, 1):
        prev_seq, prev_label = before.get(entry, (0, 0))
        rows.append(
            {
                "entry_id": entry,
                "seq": seq,
                "kind": kind,
                "label": label,
                "prev_seq": prev_seq,
                "prev_label": prev_label,
            }
        )
        before[entry] = (seq, label if kind == ASSERT else 0)
    return rows


def select(rows: list[dict[str, int]], visible: set[int], after: int, until: int):
    """The deeds of a delta: (what, entry, seq), in seq order within each."""
    chosen = [row for row in rows if after < row["seq"] <= until]
    names = ("entry_id", "seq", "kind", "prev_seq", "prev_label")
    batch = Rows.of(len(chosen), {name: [row[name] for row in chosen] for name in names})
    labels = np.array([row["label"] for row in chosen], np.uint64)
    selection = select_delta(batch, visible, labels, after)

    def named(index):
        return [(chosen[i]["entry_id"], chosen[i]["seq"]) for i in index]

    return named(np.flatnonzero(selection.send)), named(selection.withdraw), named(selection.leave)


def full_copy(rows: list[dict[str, int]], visible: set[int], at: int) -> dict[int, int]:
    """entry -> seq of what a follower of this view holds at a seq, by playing every change."""
    held: dict[int, int] = {}
    for row in rows:
        if row["seq"] <= at:
            held.pop(row["entry_id"], None)
            if row["kind"] == ASSERT and row["label"] in visible:
                held[row["entry_id"]] = row["seq"]
    return held


def last_kind(rows: list[dict[str, int]], entry: int, at: int) -> int:
    return next(row["kind"] for row in reversed(rows) if row["entry_id"] == entry and row["seq"] <= at)


@given(changes, st.sets(st.integers(1, 4)), st.lists(st.integers(0, 40), max_size=6))
@settings(max_examples=300, deadline=None)
def test_delta_by_delta_equals_the_full_copy_and_tells_nothing_else(events, visible, stops):
    rows = history(events)
    held: dict[int, int] = {}
    cursor = 0
    for until in [*sorted({min(stop, len(rows)) for stop in stops}), len(rows)]:
        before, now = full_copy(rows, visible, cursor), full_copy(rows, visible, until)
        send, withdraw, leave = select(rows, visible, cursor, until)
        # Nothing is said of entries that the follower neither holds nor gets, and each is named once.
        named = [entry for entry, _ in (*send, *withdraw, *leave)]
        assert len(named) == len(set(named))
        assert {entry for entry, _ in (*withdraw, *leave)} == before.keys() - now.keys()
        assert {entry for entry, _ in send} == {entry for entry in now if now[entry] != before.get(entry)}
        assert all(last_kind(rows, entry, until) == WITHDRAW for entry, _ in withdraw)
        assert all(last_kind(rows, entry, until) != WITHDRAW for entry, _ in leave)
        for entry, _ in (*withdraw, *leave):
            del held[entry]
        held.update(send)
        cursor = until
        assert held == now
    assert dict(select(rows, visible, 0, len(rows))[0]) == held


@pytest.mark.parametrize(
    ("events", "after", "expected"),
    [
        ([(1, ASSERT, 1)], 0, ([(1, 1)], [], [])),
        ([(1, ASSERT, 2)], 0, ([], [], [])),
        ([(1, ASSERT, 1), (1, WITHDRAW, 1)], 0, ([], [], [])),
        ([(1, ASSERT, 1), (1, WITHDRAW, 1)], 1, ([], [(1, 2)], [])),
        ([(1, ASSERT, 1), (1, ASSERT, 2)], 1, ([], [], [(1, 2)])),
        ([(1, ASSERT, 1), (1, ASSERT, 2), (1, WITHDRAW, 2)], 1, ([], [(1, 3)], [])),
        ([(1, ASSERT, 1), (1, ASSERT, 2), (1, WITHDRAW, 2)], 2, ([], [], [])),
        ([(1, ASSERT, 1), (1, ASSERT, 2), (1, ASSERT, 1)], 1, ([(1, 3)], [], [])),
        ([(1, ASSERT, 1), (1, LEAVE, 1)], 1, ([], [], [(1, 2)])),
        ([(1, ASSERT, 1), (1, WITHDRAW, 1), (1, ASSERT, 1)], 2, ([(1, 3)], [], [])),
        ([(2, ASSERT, 1), (1, ASSERT, 1), (2, ASSERT, 1)], 0, ([(1, 2), (2, 3)], [], [])),
    ],
)
def test_each_case_of_the_table(events, after, expected):
    assert select(history(events), {1}, after, len(events)) == expected


def test_no_label_is_never_visible():
    assert select(history([(1, ASSERT, 1)]), {0, 1}, 0, 1) == ([(1, 1)], [], [])
    batch = Rows.of(1, {"entry_id": [1], "seq": [5], "kind": [2]})
    selection = select_delta(batch, {0, 1}, np.array([1], np.uint64), 4)
    assert not len(selection.withdraw)


@pytest.mark.parametrize(("seqs", "after"), [([3, 2], 0), ([2, 2], 0), ([2, 3], 2)])
def test_changes_out_of_order_or_before_the_cursor_are_refused(seqs, after):
    batch = Rows.of(2, {"entry_id": [1, 2], "seq": seqs, "kind": [1, 1]})
    with pytest.raises(MalformedError):
        select_delta(batch, {1}, np.array([1, 1], np.uint64), after)


def test_range_that_lacks_a_change_is_refused_rather_than_guessed_at():
    # Held since seq 3, replaced at seq 8, withdrawn at seq 10: without row 8 the withdrawal would go unsaid.
    batch = Rows.of(1, {"entry_id": [1], "seq": [10], "kind": [2], "prev_seq": [8], "prev_label": [1]})
    with pytest.raises(MalformedError):
        select_delta(batch, {1}, np.array([1], np.uint64), 5)


def test_empty_range_selects_nothing():
    assert select([], {1}, 0, 0) == ([], [], [])
