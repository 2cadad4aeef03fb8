"""Digest sums: do two sides hold the same content? Kept per (label, field group), changed with every change.

An **item** stands for what one row says in one field group: two 64-bit lanes over (entry id, version, values), under a
secret key of hub, set and epoch. Items of equal content are equal on every side, however the rows were cut into blocks,
ordered, projected or encoded anew. A **sum** adds the items of many rows modulo 2^64, so a change costs its own
items and nothing else: `new = old - items of the row that was replaced + items of the row that replaces it`.

Rules:
- seq, changed_at and kind are not in an item, nor is the local part: an item tells content, not history. Only rows that
  hold an entry now are summed; a withdrawal takes an item out and puts none in.
- A row has an item in every group in which it says something, and always in existence. Where all its columns of a group
  hold defaults it has none (both lanes are 0), so it is the same whether the part was stored, left out, or lost its
  last row that spoke when a block was cut.
- Each lane is k0 + Σ word × k modulo 2^64 over 32-bit words, then a non-linear finaliser, **then** summed. Without the
  finaliser, values swapped between two rows or two columns would cancel out of the sum.
- Each group and each set of digest columns has keys of its own, so that content does not look alike in two groups.
- The state digest binds label and group to each sum. A row under the wrong label therefore shows, although the plain
  total would be right.

It finds divergence; it does not stop a forger who knows the key. Signatures over the pages do that.

Words of an item, in order: entry id (2), version (2), then each column of the group at a fixed place: integers 2 words,
octets width / 4 words, texts the 4 words of BLAKE2b-16 of the UTF-8 under the key (an empty text: zeros). The keys
are SHAKE-256("hash-state 1\\n" ‖ key ‖ u8 group ‖ u32 shape in the group), as u64, all of lane one, then lane two;
in each lane k0 stands first. All little-endian.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gateway.columns.rows import (
    EXISTENCE,
    GROUP_CODES,
    Column,
    ColumnKind,
    Ints,
    Mask,
    Octets,
    Rows,
    Text,
    columns_of,
)
from gateway.errors import MalformedError

KEY_BYTES = 32
LEFT_OUT = frozenset({"kind", "seq", "entry_id", "version", "changed_at"})  # history, or hashed before the columns
_PREFIX_WORDS = 4  # entry id and version
_TEXT_OCTETS = 16
_KEY_CONTEXT = b"hash-state 1\n"
_STATE_CONTEXT = b"state digest 1\n"
_STATE_SUM = struct.Struct("<HBQQQ")  # label, group, count, low, high
_CHUNK_ROWS = 8192  # two lanes and a column of 64-bit words of this many rows stay in the second-level cache
_TOP = 1 << 64
Words = npt.NDArray[np.uint32]
_SUMMED = {
    group: tuple(column for column in columns_of(group) if column.name not in LEFT_OUT)
    for group in GROUP_CODES.values()
}


@dataclass(frozen=True, slots=True)
class Sum:
    """How many items, and both lanes of their sum. The difference of two sums may have a negative count."""

    count: int = 0
    low: int = 0
    high: int = 0

    def __add__(self, other: Sum) -> Sum:
        return Sum(self.count + other.count, (self.low + other.low) % _TOP, (self.high + other.high) % _TOP)

    def __sub__(self, other: Sum) -> Sum:
        return Sum(self.count - other.count, (self.low - other.low) % _TOP, (self.high - other.high) % _TOP)


EMPTY = Sum()


def items(rows: Rows, group: int, key: bytes) -> Ints:
    """The items of these rows in one field group, n × 2.

    Args:
        group: a code of `rows.GROUP_CODES`. The caller asks only for groups that the rows' block holds.
        key: 32 secret bytes of hub, set and epoch.
    """
    if len(key) != KEY_BYTES or group not in _SUMMED:
        raise MalformedError("digest sum: no such key or group")
    columns = _SUMMED[group]
    shape = sum(1 << column.shape_bit for column in columns if column.is_digest and column.name in rows.columns)
    keys = _key_stream(key, group, shape, _PREFIX_WORDS + sum(map(_words_of, columns)))
    lanes = np.empty((rows.n, 2), np.uint64)
    for start in range(0, rows.n, _CHUNK_ROWS):
        chunk = rows.slice(start, start + _CHUNK_ROWS)
        lanes[start : start + chunk.n] = multilinear(_word_columns(chunk, columns, key), keys, chunk.n)
    if group != EXISTENCE:
        lanes[~_says_something(rows, columns)] = 0
    return lanes


def contents(rows: Rows, key: bytes) -> Ints:
    """What each row says in all groups, apart from its id and version: equal lines are equal content."""
    nothing = np.zeros(rows.n, np.uint64)
    nameless = rows.with_columns({"entry_id": nothing, "version": nothing})
    return np.hstack([items(nameless, group, key) for group in _SUMMED])


def sum_items(found: Ints) -> Sum:
    """The sum of items; rows that say nothing have none."""
    [whole] = sum_runs(found, [len(found)]) if len(found) else [EMPTY]
    return whole


def sum_runs(found: Ints, lengths: Sequence[int]) -> list[Sum]:
    """The sums of items that stand one run after another; no run is empty."""
    if not lengths:
        return []
    starts = np.cumsum([0, *lengths[:-1]])
    low, high = np.ascontiguousarray(found.T)  # lane by lane: quicker than pair by pair
    counts = np.add.reduceat((low | high) != 0, starts, dtype=np.int64)
    lanes = (np.add.reduceat(lane, starts).tolist() for lane in (low, high))
    return [Sum(*one) for one in zip(counts.tolist(), *lanes, strict=True)]


def state_digest(sums: Mapping[tuple[int, int], Sum]) -> str:
    """128 bits, as hex, over the sums by (label, group code). Both sides give the keys that the view permits.

    Sums of no items leave no trace: a label that is permitted but empty equals one that is not.
    """
    hashed = hashlib.blake2b(_STATE_CONTEXT, digest_size=16)
    for (label, group), held in sorted(sums.items()):
        if held != EMPTY:
            hashed.update(_STATE_SUM.pack(label, group, held.count % _TOP, held.low, held.high))
    return hashed.hexdigest()


def multilinear(words: Iterator[tuple[int, Words]], keys: Ints, n: int) -> Ints:
    """The finalised lanes of n rows, n × lanes.

    Args:
        words: (place, n × k words): the k words of each row stand at this place and after it; 1 × k for all rows.
        keys: lanes × (1 + places), k0 first.
    """
    lanes = np.repeat(keys[:, 0], n).reshape(len(keys), n)
    for place, block in words:
        lanes += keys[:, 1 + place : 1 + place + block.shape[1]] @ block.T.astype(np.uint64)
    finalise(lanes)
    return lanes.T


def octet_words(octets: Octets) -> Words:
    """n × width octets as 32-bit words; every width of the registry is a multiple of four."""
    return np.ascontiguousarray(octets).view("<u4")


def int_words(values: Ints) -> Words:
    """Integers as two words each, the lower first; those of one row when all are the same."""
    if (values == values[0]).all():
        values = values[:1]
    return np.ascontiguousarray(values, "<u8").view("<u4").reshape(-1, 2)


def _key_stream(key: bytes, group: int, shape: int, words: int) -> Ints:
    seed = _KEY_CONTEXT + key + group.to_bytes(1, "little") + shape.to_bytes(4, "little")
    stream = hashlib.shake_256(seed).digest(2 * 8 * (1 + words))
    return np.frombuffer(stream, "<u8").astype(np.uint64).reshape(2, 1 + words)


def _words_of(column: Column) -> int:
    return {ColumnKind.INT: 2, ColumnKind.TEXT: _TEXT_OCTETS // 4, ColumnKind.BYTES: column.width // 4}[column.kind]


def _word_columns(rows: Rows, columns: Sequence[Column], key: bytes) -> Iterator[tuple[int, Words]]:
    """The words of the rows with their places; columns that hold only defaults are skipped."""
    yield 0, int_words(rows.ints("entry_id"))
    yield 2, int_words(rows.ints("version"))
    place = _PREFIX_WORDS
    for column in columns:
        if column.name in rows.columns:
            match column.kind:
                case ColumnKind.INT:
                    yield place, int_words(rows.ints(column.name))
                case ColumnKind.BYTES:
                    yield place, octet_words(rows.octets(column.name))
                case ColumnKind.TEXT:
                    yield place, _text_words(rows.text(column.name), key)
        place += _words_of(column)


def _says_something(rows: Rows, columns: Sequence[Column]) -> Mask:
    """Which rows hold anything but defaults in these columns."""
    found = np.zeros(rows.n, np.bool_)
    for column in columns:
        if column.name in rows.columns:
            match column.kind:
                case ColumnKind.INT:
                    found |= rows.ints(column.name) != 0
                case ColumnKind.TEXT:
                    found |= rows.text(column.name).lengths > 0
                case ColumnKind.BYTES:
                    found[:] = True
    return found


def _text_words(text: Text, key: bytes) -> Words:
    if (common := text.common()) is not None:
        return octet_words(_hashed([common], key))
    return octet_words(_hashed(text.encoded(), key))


def _hashed(encoded: list[bytes], key: bytes) -> Octets:
    """16 octets a text. Texts repeat (a series, a media type), so each is hashed once."""
    known = {one: hashlib.blake2b(one, key=key, digest_size=_TEXT_OCTETS).digest() for one in set(encoded)}
    known[b""] = bytes(_TEXT_OCTETS)
    return np.frombuffer(b"".join([known[one] for one in encoded]), np.uint8).reshape(-1, _TEXT_OCTETS)


def finalise(lanes: Ints) -> None:
    """MurmurHash3's 64-bit finaliser, in place: a bijection in which every bit reaches every other."""
    for multiplier in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        lanes ^= lanes >> np.uint64(33)
        lanes *= np.uint64(multiplier)
    lanes ^= lanes >> np.uint64(33)


def parse_items(raw: bytes) -> Ints:
    """Items that were kept as bytes (n × 16, little-endian)."""
    return np.frombuffer(raw, "<u8").astype(np.uint64).reshape(-1, 2)
