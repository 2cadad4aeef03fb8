"""gateway/columns/digest.py."""

import io
import json
from hashlib import blake2b, shake_256
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from columns_builders import block_of, octets, rich, salts, sample
from gateway.columns import Rows, Sum, concat, decode, items, parse_block, resliced, state_digest, sum_items
from gateway.columns.digest import LEFT_OUT, contents, sum_runs
from gateway.columns.rows import GROUP_CODES, LOCAL_GROUP, ColumnKind, columns_of
from gateway.errors import MalformedError
from gateway.model import FieldGroup

KEY = bytes(range(32))
GROUPS = tuple(GROUP_CODES.values())
CRYPTO = GROUP_CODES[FieldGroup.CRYPTOGRAPHIC_DIGESTS]
PERCEPTUAL = GROUP_CODES[FieldGroup.PERCEPTUAL_DIGESTS]
TOP = 1 << 64
VECTORS = Path(__file__).parent / "vectors" / "block"


def total(rows: Rows, group: int, key: bytes = KEY) -> Sum:
    return sum_items(items(rows, group, key))


def slow_items(rows: Rows, group: int) -> list[tuple[int, int]]:
    """The definition, row by row in Python integers."""
    columns = [column for column in columns_of(group) if column.name not in LEFT_OUT]
    shape = sum(1 << column.shape_bit for column in columns if column.is_digest and column.name in rows.columns)
    width = {ColumnKind.INT: 8, ColumnKind.TEXT: 16}
    words = 4 + sum(width.get(column.kind, column.width) // 4 for column in columns)
    seed = b"hash-state 1\n" + KEY + bytes([group]) + shape.to_bytes(4, "little")
    stream = shake_256(seed).digest(16 * (words + 1))
    keys = [int.from_bytes(stream[i : i + 8], "little") for i in range(0, len(stream), 8)]
    return [
        tuple(lane(row_octets(rows, columns, i), keys[at : at + words + 1]) for at in (0, words + 1))
        if group == 1 or says_something(rows, columns, i)
        else (0, 0)
        for i in range(rows.n)
    ]


def says_something(rows: Rows, columns, i: int) -> bool:
    return any(column.name in rows.columns and (column.is_digest or rows.values(column.name)[i]) for column in columns)


def row_octets(rows: Rows, columns, i: int) -> bytes:
    raw = b"".join(int(rows.values(name)[i]).to_bytes(8, "little") for name in ("entry_id", "version"))
    for column in columns:
        if column.kind is ColumnKind.INT:
            raw += int(rows.values(column.name)[i]).to_bytes(8, "little")
        elif column.kind is ColumnKind.TEXT:
            text = rows.values(column.name)[i].encode()
            raw += blake2b(text, key=KEY, digest_size=16).digest() if text else bytes(16)
        else:
            raw += rows.values(column.name)[i] if column.name in rows.columns else bytes(column.width)
    return raw


def lane(raw: bytes, keys: list[int]) -> int:
    words = [int.from_bytes(raw[i : i + 4], "little") for i in range(0, len(raw), 4)]
    x = (keys[0] + sum(word * key for word, key in zip(words, keys[1:], strict=True))) % TOP
    for multiplier in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        x = (x ^ x >> 33) * multiplier % TOP
    return x ^ x >> 33


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize(
    "rows", [rich(7), sample(3), sample(1), sample(2, digests=("sha512", "vpdq"), vpdq=["a", "b"])]
)
def test_items_are_those_of_the_slow_definition(rows, group):
    assert [tuple(item) for item in items(rows, group, KEY).tolist()] == slow_items(rows, group)


def test_a_row_that_says_nothing_in_a_group_has_no_item_there_whoever_stands_beside_it():
    rows = sample(3, digests=("md5",), series=["Blue Door", "", ""])
    alone = rows.take(np.array([1, 2]))
    assert sum_items(items(alone, 4, KEY)) == Sum()
    assert sum_items(items(rows, 4, KEY)).count == 1
    assert sum_items(items(alone, 1, KEY)).count == 2


def test_items_do_not_depend_on_where_the_batch_is_cut():
    rows = sample(20_000, digests=("md5",))
    parts = [rows.slice(0, 1), rows.slice(1, 9000), rows.slice(9000, 20_000)]
    assert np.array_equal(items(rows, CRYPTO, KEY), np.concatenate([items(part, CRYPTO, KEY) for part in parts]))


@given(st.permutations(range(12)))
@settings(max_examples=30)
def test_sum_does_not_depend_on_order(order):
    rows = rich(12)
    shuffled = rows.take(np.array(order, np.int64))
    assert all(total(shuffled, group) == total(rows, group) for group in GROUPS)


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 3)), min_size=1, max_size=25))
@settings(max_examples=40, deadline=None)
def test_sum_kept_change_by_change_equals_that_of_the_whole(changes):
    held: dict[int, Rows] = {}
    running = Sum()
    for seq, (entry, kind) in enumerate(changes, 1):
        if entry in held:
            running -= total(held.pop(entry), CRYPTO)
        if kind == 1:
            held[entry] = sample(1, first=entry, seq=[seq], version=[seq], md5=[octets("md5", entry, seq)])
            running += total(held[entry], CRYPTO)
    assert running == total(concat(list(held.values())), CRYPTO)
    assert running.count == len(held)


def test_follower_finds_the_same_items_in_a_projected_sliced_and_reencoded_block():
    rows = rich(40)
    permitted = (FieldGroup.EXISTENCE, FieldGroup.PERCEPTUAL_DIGESTS, FieldGroup.SERIES)
    some = rows.ints("seq") % np.uint64(3) == 0
    sent = resliced(block_of(rows).project(permitted), some, salts())
    held = decode(sent)
    for group in permitted:
        code = GROUP_CODES[group]
        assert np.array_equal(items(held, code, KEY), items(rows, code, KEY)[some])


def test_history_is_not_content():
    rows = rich(5)
    moved = rows.with_columns({"seq": range(101, 106), "changed_at": [5] * 5, "kind": [3] * 5, "source_ref": ["x"] * 5})
    assert all(total(moved, group) == total(rows, group) for group in GROUPS)


CONTENT = [
    (group, column.name)
    for group in GROUPS
    for column in columns_of(group)
    if column.name in rich(2).columns and column.name not in ("kind", "seq", "changed_at")
]


@pytest.mark.parametrize(("group", "name"), CONTENT)
def test_values_swapped_between_two_rows_are_seen(group, name):
    # A linear hash lets such swaps cancel; the finaliser before the sum does not.
    rows = rich(6)
    values = rows.values(name)
    other = next((i for i in range(1, 6) if values[i] != values[0]), None)
    if other is None:  # a column of one value: change it
        swapped = rows.with_columns({name: [values[0] * 2, *values[1:]]})
    else:
        values[0], values[other] = values[other], values[0]
        swapped = rows.with_columns({name: values})
    assert total(swapped, group) != total(rows, group)


def test_values_swapped_between_two_columns_are_seen():
    one, two = octets("md5", 1), octets("md5", 2)
    rows = sample(1, digests=("md5", "sha256"), sha256=[one + two])
    for swapped in (two + one, bytes(16) + one):
        assert total(rows.with_columns({"sha256": [swapped]}), CRYPTO) != total(rows, CRYPTO)
    texts = sample(2, victim_ref=["a", "b"], status_owner=["b", "a"])
    crossed = sample(2, victim_ref=["b", "a"], status_owner=["a", "b"])
    group = GROUP_CODES[FieldGroup.VICTIM_STATUS]
    assert total(texts, group) != total(crossed, group)
    numbers = sample(1, pdq_quality=[7])
    assert total(numbers, PERCEPTUAL) != total(sample(1, version=[7], pdq_quality=[1]), PERCEPTUAL)


def test_same_value_under_another_algorithm_is_other_content():
    value = octets("sha256", 1)
    rows = [sample(1, digests=(name,), **{name: [value]}) for name in ("pdq", "tmk_pdqf")]
    assert len({total(row, PERCEPTUAL) for row in rows}) == 2
    assert total(sample(1, digests=("md5",), md5=[bytes(16)]), CRYPTO) != total(sample(1, digests=()), CRYPTO)


def test_another_key_gives_other_items():
    assert total(rich(3), CRYPTO) != total(rich(3), CRYPTO, bytes(32))


def test_local_part_and_short_keys_have_no_items():
    with pytest.raises(MalformedError):
        items(rich(2), LOCAL_GROUP, KEY)
    with pytest.raises(MalformedError):
        items(rich(2), CRYPTO, b"short")


def test_sums_form_a_group():
    one, two = total(rich(4), CRYPTO), total(sample(3), CRYPTO)
    assert one + two - two == one
    assert one + two == two + one
    assert Sum() - one + one == Sum()
    assert sum_items(items(sample(0), CRYPTO, KEY)) == Sum()


def test_state_digest_binds_label_group_and_count_and_forgets_empty_sums():
    held = total(rich(4), CRYPTO)
    digest = state_digest({(3, CRYPTO): held})
    assert len(digest) == 32
    assert digest == state_digest({(4, CRYPTO): Sum(), (3, CRYPTO): held})
    others = [{(4, CRYPTO): held}, {(3, PERCEPTUAL): held}, {(3, CRYPTO): Sum(5, held.low, held.high)}, {}]
    assert digest not in map(state_digest, others)


def test_published_vector_still_holds():
    vector = json.loads((VECTORS / "state-digest.json").read_text())
    framed = bytes.fromhex((VECTORS / vector["block"]).read_text().partition("\n\n")[2])
    rows = decode(parse_block(io.BytesIO(framed), max_bytes=len(framed)))
    sums = {(vector["label"], group): total(rows, group, bytes.fromhex(vector["key"])) for group in GROUPS}
    assert {str(group): f"{held.low:016x} {held.high:016x}" for (_, group), held in sums.items()} == vector["sums"]
    assert state_digest(sums) == vector["state_digest"]


def test_sums_of_runs_are_those_of_their_rows():
    rows = concat([sample(5), sample(3, first=9)])
    found = items(rows, CRYPTO, KEY)
    assert sum_runs(found, [5, 1, 2]) == [sum_items(found[:5]), sum_items(found[5:6]), sum_items(found[6:])]
    assert sum_runs(items(sample(2, digests=()), CRYPTO, KEY), [2]) == [Sum()]
    assert sum_runs(found[:0], []) == []


def test_rows_of_equal_content_are_equal_whatever_their_id_and_version():
    rows, later = rich(6), rich(6).with_columns({"entry_id": [7] * 6, "version": [3] * 6, "seq": range(90, 96)})
    assert (contents(rows, KEY) == contents(later, KEY)).all()
    for name, values in (("series", ["x"] * 6), ("seen", [1] * 6), ("pdq", [bytes(32)] * 6), ("victim_ref", ["y"] * 6)):
        changed = contents(rows.with_columns({name: values}), KEY)
        assert (changed != contents(rows, KEY)).any(axis=1).all(), name
