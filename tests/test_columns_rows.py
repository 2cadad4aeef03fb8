"""gateway/columns/rows.py."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from columns_builders import octets, rich, sample
from gateway.columns import Rows, Text, concat, constant, counting, grouped
from gateway.columns.rows import (
    BY_CODE,
    COLUMNS,
    DIGESTS,
    GROUP_CODES,
    columns_of,
    integers,
    repeats,
    same_values,
    shape_names,
)
from gateway.errors import MalformedError

texts = st.lists(st.text(max_size=8), max_size=12)


def test_codes_and_shape_bits_are_unique_and_ascend():
    assert list(BY_CODE) == sorted(BY_CODE)
    assert len(BY_CODE) == len(COLUMNS)
    assert [column.shape_bit for column in DIGESTS] == list(range(len(DIGESTS)))


def test_every_column_belongs_to_one_part():
    assert sum(len(columns_of(group)) for group in (*GROUP_CODES.values(), 255)) == len(COLUMNS)


def test_absent_integers_are_zero_and_absent_texts_empty():
    rows = sample(3)
    assert rows.values("seen") == [0, 0, 0]
    assert rows.values("series") == ["", "", ""]


def test_absent_digest_is_refused():
    with pytest.raises(MalformedError):
        sample(3).octets("sha1")


def test_shape_names_the_digests_that_are_here():
    assert shape_names(sample(2).shape) == ("md5", "sha256", "pdq")


@pytest.mark.parametrize(
    "columns",
    [
        {"unheard_of": [1, 2]},
        {"seq": [1]},
        {"seq": [1, -1]},
        {"seq": [1, 1 << 64]},
        {"seq": [1, "2"]},
        {"seq": [1, 2.5]},
        {"series": ["a", 5]},
        {"seq": np.zeros((2, 2), np.uint64)},
        {"seq": np.zeros(2, np.int64)},
        {"md5": [bytes(16), bytes(15)]},
        {"md5": [bytes(16), "0" * 16]},
        {"md5": np.zeros((2, 15), np.uint8)},
        {"md5": Text.of(["a", "b"])},
        {"series": ["one"]},
        {"series": ["one", "\ud800"]},
    ],
)
def test_columns_unlike_the_registry_are_refused(columns):
    with pytest.raises(MalformedError):
        Rows.of(2, columns)


def test_values_cannot_be_written_to():
    rows = sample(3)
    for array in (rows.octets("md5"), Rows.of(2, {"seq": np.ones(2, np.uint64)}).ints("seq")):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 9


def test_take_by_mask_and_by_index_gives_those_rows():
    rows = rich(20)
    picked = rows.take(rows.ints("seq") % np.uint64(3) == 0)
    assert picked.values("seq") == [3, 6, 9, 12, 15, 18]
    assert picked.values("series") == [rows.values("series")[i - 1] for i in picked.values("seq")]
    assert rows.take(np.array([4, 0], np.int64)).values("md5") == [octets("md5", 5), octets("md5", 1)]


def test_concat_of_slices_is_the_whole():
    rows = rich(30)
    assert concat([rows.slice(0, 7), rows.slice(7, 8), rows.slice(8, 99)]).equals(rows)


def test_concat_fills_defaults_but_never_digests():
    joined = concat([sample(2), sample(2, first=3, series=["a", "b"], seen=[5, 6])])
    assert joined.values("series") == ["", "", "a", "b"]
    assert joined.values("seen") == [0, 0, 5, 6]
    with pytest.raises(MalformedError):
        concat([sample(2), sample(2, digests=("md5",))])


def test_equal_rows_may_leave_defaults_out():
    assert sample(2).equals(sample(2, seen=[0, 0], series=["", ""]))
    assert not sample(2).equals(sample(2, seen=[0, 1]))
    assert not sample(2).equals(sample(2, digests=("md5", "sha256")))


def test_select_and_with_columns_make_new_batches():
    rows = sample(3)
    assert set(rows.select(["seq", "series"]).columns) == {"seq"}
    assert rows.with_columns({"changed_at": constant(7, 3)}).values("changed_at") == [7, 7, 7]
    assert rows.values("changed_at") != [7, 7, 7]


def test_grouped_keeps_the_order_within_each_value():
    found = [(value, index.tolist()) for value, index in grouped(np.array([5, 2, 5, 2, 9], np.uint64))]
    assert found == [(2, [1, 3]), (5, [0, 2]), (9, [4])]
    assert list(grouped(counting(1, 0))) == []


@given(texts, st.data())
@settings(max_examples=60)
def test_text_take_is_list_indexing(values, data):
    text = Text.of(values)
    index = data.draw(st.lists(st.integers(0, max(0, len(values) - 1)), max_size=8 if values else 0))
    assert text.to_list() == values
    assert text.take(np.array(index, np.int64)).to_list() == [values[i] for i in index]
    assert text.slice(1, 3).to_list() == values[1:3]


@given(texts)
@settings(max_examples=60)
def test_common_text_is_that_of_every_row(values):
    same = set(values)
    assert Text.of(values).common() == (same.pop().encode() if len(same) == 1 else None)


def test_values_are_compared_row_by_row():
    one, other = rich(4), rich(4).take(integers([0, 1, 3, 2]))
    for name in ("sha256", "seq", "source_ref"):
        assert same_values(one, other, name).tolist() == [True, True, False, False]


def test_a_value_that_stands_twice_is_seen_wherever_it_stands():
    assert repeats(integers([5, 1, 9, 5]))
    assert not repeats(integers([5, 1, 9]))
    assert not repeats(integers([]))
