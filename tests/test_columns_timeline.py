"""The order in which a reader meets entries: marks that grow and stay, places by time, choices."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.columns.rows import constant, indexes, integers
from gateway.columns.timeline import SECOND, Moments, Names, Timeline

MILLION = 1_000_000


def moments(*rows: tuple[int, int, int]) -> Moments:
    """Moments of (time, seq, entry)."""
    times, seqs, entries = (integers([row[at] for row in rows]) for at in range(3))
    return Moments(times, seqs, entries, seqs, constant(1, len(rows)), indexes(range(len(rows))))


def entries(timeline: Timeline) -> list[int]:
    return timeline.moments.entries.tolist()


def test_moments_are_in_order_of_time_and_seq_and_the_last_of_an_entry_counts() -> None:
    timeline = Timeline.of([moments((9, 3, 1), (7, 4, 2)), moments((7, 1, 3), (8, 5, 2))])
    assert entries(timeline) == [3, 2, 1]
    assert timeline.marks.tolist() == [7 * SECOND + 1, 8 * SECOND + 5, 9 * SECOND + 3]


def test_marks_run_on_where_a_second_reaches_over_a_million() -> None:
    timeline = Timeline.of([moments((7, MILLION - 1, 1), (7, MILLION, 2), (8, MILLION + 1, 3))])
    assert timeline.marks.tolist() == [7_999_999, 8_000_000, 8_000_001]


def test_nothing_makes_an_empty_timeline() -> None:
    timeline = Timeline.of([])
    assert (len(timeline), timeline.until(9), timeline.marked_after(0)) == (0, 0, 0)
    assert timeline.select(0, 0, 5)[0].tolist() == []


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 3 * MILLION), st.integers(1, 50)), max_size=30))
def test_marks_grow_and_places_are_those_of_the_slow_definition(rows: list[tuple[int, int, int]]) -> None:
    rows = list({seq: (time, seq, entry) for time, seq, entry in rows}.values())
    timeline = Timeline.of([moments(*rows)])
    marks = timeline.marks.tolist()
    assert marks == sorted(set(marks))
    ordered = list(zip(timeline.moments.times.tolist(), timeline.moments.seqs.tolist(), strict=True))
    assert ordered == sorted(ordered)
    for time, seq in [(0, 0), (3, 5), *ordered]:
        assert timeline.after(time, seq) == sum(one <= (time, seq) for one in ordered)
    for mark in [0, *marks]:
        assert timeline.marked_after(mark) == sum(one <= mark for one in marks)
    assert timeline.until(3) == sum(time <= 3 for time, _ in ordered)


@settings(max_examples=100, deadline=None)
@given(st.sets(st.integers(1, MILLION - 1), min_size=2, max_size=20), st.data())
def test_marks_stay_while_others_go(seqs: set[int], data: st.DataObject) -> None:
    rows = [(7, seq, seq) for seq in sorted(seqs)]
    before = Timeline.of([moments(*rows)])
    gone = data.draw(st.sampled_from(sorted(seqs)))
    after = Timeline.of([moments(*[row for row in rows if row[1] != gone])])
    kept = dict(zip(entries(before), before.marks.tolist(), strict=True))
    assert all(kept[entry] == mark for entry, mark in zip(entries(after), after.marks.tolist(), strict=True))


def test_choices_are_met_together_and_limited() -> None:
    timeline = Timeline.of([moments(*[(7, seq, seq) for seq in range(1, 9)])])
    assert timeline.select(2, 8, 3)[0].tolist() == [2, 3, 4]
    assert [timeline.select(2, 8, limit)[1] for limit in (5, 6, 7)] == [True, False, False]
    chosen, more = timeline.select(1, 8, 2, [indexes([0, 1, 4, 5, 7]), timeline.but_first(5, [1, 4])])
    assert (chosen.tolist(), more) == ([1, 4], True)
    assert timeline.of_entries(integers([8, 3, 99])).tolist() == [2, 7]
    assert timeline.of_version(7, 3).tolist() == [2]


def test_names_are_made_once_and_found() -> None:
    names = Names()
    assert names.unknown(integers([3, 1, 2])).tolist() == [1, 2, 3]
    names.add(integers([1, 2, 3]), [30, 10, 20])
    assert names.unknown(integers([2, 9])).tolist() == [9]
    names.add(integers([9]), [10])
    assert names.find([10, 20, 77]).tolist() == [2, 3, 9]
    assert names.find([]).tolist() == []
