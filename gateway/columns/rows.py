"""Columnar batches of changes: the registry of columns, `Text`, and `Rows`.

A hash set holds millions of changes, so no change is an object of its own. `Rows` keeps a batch as columns, one numpy
array (or `Text`) each, and every deed works on whole columns.

Rules:
- The registry `COLUMNS` is closed: name, code on the wire, field group, kind and width of every column.
- A column is there for all rows of a batch or for none. An absent integer column reads as 0, an absent text as "".
- A digest column has no such default: it is there or not. The set of digest columns of a batch is its **shape**.
- Values never change after they were made; `take`, `select`, `with_columns` and `concat` give new batches. Arrays that
  callers pass in must not be written to afterwards.

Modules above this floor do not import numpy. They hold arrays as the types `Ints`, `Mask` and `Index`, made and
combined by the functions here.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import TypeAlias, TypeVar, cast

import numpy as np
import numpy.typing as npt

from gateway.errors import MalformedError
from gateway.model import DIGEST_BYTES, MAX_TEXT_CHARS, FieldGroup

Ints: TypeAlias = npt.NDArray[np.uint64]
Octets: TypeAlias = npt.NDArray[np.uint8]
Mask: TypeAlias = npt.NDArray[np.bool_]
Index: TypeAlias = npt.NDArray[np.int64]
_Item = TypeVar("_Item", np.uint64, np.uint8)

# glibc gives a freed array of a megabyte back to the system, and each 4 KiB of the next one is a page fault, dearer
# than the work on it. Once it has freed a block of nearly 32 MiB, the most that it heeds, it keeps up to 64 MiB for the
# arrays to come (mallopt(3), M_MMAP_THRESHOLD). This block is never touched, so it takes no memory.
bytearray(33_000_000)

MAX_SHORT_TEXT_BYTES = 4 * MAX_TEXT_CHARS  # UTF-8 needs at most four bytes a character
MAX_LONG_TEXT_BYTES = 1 << 20  # a vPDQ list of some 12,000 frames; longer videos go by reference

GROUP_CODES: dict[FieldGroup, int] = {
    FieldGroup.EXISTENCE: 1,
    FieldGroup.CRYPTOGRAPHIC_DIGESTS: 2,
    FieldGroup.PERCEPTUAL_DIGESTS: 3,
    FieldGroup.SERIES: 4,
    FieldGroup.VICTIM_STATUS: 5,
}
LOCAL_GROUP = 255  # the holder's own book-keeping; never leaves the gateway
EXISTENCE = GROUP_CODES[FieldGroup.EXISTENCE]
GROUP_NAMES: dict[int, str] = {code: str(group) for group, code in GROUP_CODES.items()} | {LOCAL_GROUP: "local"}


class ColumnKind(StrEnum):
    """How a column is kept: unsigned 64-bit integers, octets of one width, or UTF-8 text."""

    INT = "int"
    BYTES = "bytes"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class Column:
    """One column: `width` is bytes a value (the most bytes for text); `shape_bit` is -1 unless it is a digest."""

    code: int
    name: str
    group: int
    kind: ColumnKind
    width: int
    shape_bit: int = -1

    @property
    def is_digest(self) -> bool:
        """Whether the column belongs to the shape."""
        return self.shape_bit >= 0


def _int(code: int, name: str, group: int) -> Column:
    return Column(code, name, group, ColumnKind.INT, 8)


def _text(code: int, name: str, group: int) -> Column:
    return Column(code, name, group, ColumnKind.TEXT, MAX_SHORT_TEXT_BYTES)


def _digest(code: int, name: str, group: int, shape_bit: int, width: int | None = None) -> Column:
    width = width or DIGEST_BYTES.get(name)
    if width:
        return Column(code, name, group, ColumnKind.BYTES, width, shape_bit)
    return Column(code, name, group, ColumnKind.TEXT, MAX_LONG_TEXT_BYTES, shape_bit)


# In the order of the codes, which is the order inside a part.
_REGISTRY = (
    _int(1, "kind", 1),  # gateway.model.ChangeKind
    _int(2, "seq", 1),
    _int(3, "entry_id", 1),
    _int(4, "version", 1),
    _int(5, "changed_at", 1),  # Unix seconds
    _int(6, "seen", 1),  # Unix seconds, 0 unknown
    _text(7, "media_type", 1),
    _digest(16, "md5", 2, 0),
    _digest(17, "sha1", 2, 1),
    _digest(18, "sha256", 2, 2),
    _digest(19, "sha512", 2, 3),
    _digest(32, "pdq", 3, 4),
    _int(33, "pdq_quality", 3),  # 0 unknown
    _digest(34, "photodna", 3, 5),
    _digest(35, "ssdeep", 3, 6),
    _digest(36, "vpdq", 3, 7),
    _digest(37, "vendor", 3, 8),  # canonical JSON of {name: value}
    _digest(38, "tmk_pdqf", 3, 9, 32),  # SHA-256 of a large value, which lies beside the set
    _text(48, "series", 4),
    _text(64, "victim_ref", 5),
    _int(65, "status_at", 5),  # Unix seconds, 0 unknown
    _text(66, "status_owner", 5),
    _text(240, "source_ref", LOCAL_GROUP),
    _int(241, "prev_seq", LOCAL_GROUP),
    _int(242, "prev_label", LOCAL_GROUP),  # 0: there was none, or it was not an assert
)
COLUMNS: dict[str, Column] = {column.name: column for column in _REGISTRY}
BY_CODE: dict[int, Column] = {column.code: column for column in _REGISTRY}
DIGESTS: tuple[Column, ...] = tuple(column for column in _REGISTRY if column.is_digest)
ALL_SHAPE_BITS = sum(1 << column.shape_bit for column in DIGESTS)


_BY_GROUP = {group: tuple(column for column in _REGISTRY if column.group == group) for group in GROUP_NAMES}
SHAPE_OF: dict[int, int] = {  # the shape bits of each group
    group: sum(1 << column.shape_bit for column in columns if column.is_digest) for group, columns in _BY_GROUP.items()
}


def columns_of(group: int) -> tuple[Column, ...]:
    """The columns of one part, in ascending code order."""
    return _BY_GROUP.get(group, ())


def shape_names(shape: int) -> tuple[str, ...]:
    """The digest columns that a shape names."""
    return tuple(column.name for column in DIGESTS if shape >> column.shape_bit & 1)


@dataclass(frozen=True, slots=True, eq=False)
class Text:
    """A column of texts: one UTF-8 buffer, and n + 1 offsets into it."""

    offsets: Index
    octets: Octets

    @classmethod
    def of(cls, texts: Iterable[str]) -> Text:
        """The column of these texts."""
        try:
            encoded = [text.encode() for text in texts]
        except (UnicodeEncodeError, AttributeError) as error:
            raise MalformedError("a value is not text, or holds a lone surrogate") from error
        return cls.of_encoded(encoded)

    @classmethod
    def of_encoded(cls, encoded: Sequence[bytes]) -> Text:
        """The column of these UTF-8 texts, taken as they are."""
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
        return cls(offsets_of(lengths), np.frombuffer(b"".join(encoded), np.uint8))

    @classmethod
    def joined(cls, texts: Sequence[Text]) -> Text:
        """These columns, at least one, as one."""
        if len(texts) == 1:
            return texts[0]
        lengths = np.concatenate([text.lengths for text in texts])
        return cls(offsets_of(lengths), np.concatenate([text.octets for text in texts]))

    @classmethod
    def repeat(cls, encoded: bytes, n: int) -> Text:
        """The column of n times one UTF-8 text."""
        offsets = np.arange(n + 1, dtype=np.int64) * len(encoded)
        return cls(offsets, np.tile(np.frombuffer(encoded, np.uint8), n))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> str:
        start, stop = self.offsets[row : row + 2].tolist()
        return self.octets[start:stop].tobytes().decode()

    @property
    def lengths(self) -> Index:
        """Bytes of each text."""
        return np.diff(self.offsets)

    def encoded(self) -> list[bytes]:
        """The texts as UTF-8, one each."""
        joined, ends = self.octets.tobytes(), self.offsets.tolist()
        return [joined[start:stop] for start, stop in pairwise(ends)]

    def to_list(self) -> list[str]:
        """The texts as Python strings."""
        return [text.decode() for text in self.encoded()]

    def common(self) -> bytes | None:
        """The one text that every row holds, None when they differ (or there are no rows)."""
        if not len(self):
            return None
        length = int(self.offsets[1] - self.offsets[0])
        if len(self.octets) != length * len(self) or (self.lengths != length).any():
            return None
        if length and (self.octets.reshape(len(self), length) != self.octets[:length]).any():
            return None
        return self.octets[:length].tobytes()

    def take(self, index: Index) -> Text:
        """The texts of these rows, in this order."""
        lengths = self.lengths[index]
        offsets = offsets_of(lengths)
        source = np.repeat(self.offsets[:-1][index] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return Text(offsets, self.octets.take(source))

    def slice(self, start: int, stop: int) -> Text:
        """The texts of rows start … stop - 1, without a copy of their bytes."""
        start = min(start, len(self))
        offsets = self.offsets[start : max(start, stop) + 1]
        first, last = int(offsets[0]), int(offsets[-1])
        return Text(offsets - first, self.octets[first:last])


Data: TypeAlias = Ints | Octets | Text
Values: TypeAlias = Data | Sequence[int] | Sequence[bytes] | Sequence[str]


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """A batch of n changes by column. Make it with `Rows.of`, which checks every column against the registry."""

    n: int
    columns: Mapping[str, Data]

    @classmethod
    def of(cls, n: int, columns: Mapping[str, Values]) -> Rows:
        """The batch of these columns: arrays as they are, or lists of int, bytes or str."""
        return cls(n, {name: _column(n, registered(name), values) for name, values in columns.items()})

    @property
    def shape(self) -> int:
        """The bit mask of the digest columns that are here."""
        return sum(1 << column.shape_bit for column in DIGESTS if column.name in self.columns)

    def ints(self, name: str) -> Ints:
        """An integer column; zeros when it is absent."""
        data = self.columns.get(_of_kind(name, ColumnKind.INT))
        return np.zeros(self.n, np.uint64) if data is None else cast(Ints, data)  # as `Rows.of` checked

    def octets(self, name: str) -> Octets:
        """A digest column of n × width octets. Raises MalformedError when it is absent: a digest has no default."""
        data = self.columns.get(_of_kind(name, ColumnKind.BYTES))
        if data is None:
            raise MalformedError(f"{name} is not in this batch")
        return cast(Octets, data)  # as `Rows.of` checked

    def text(self, name: str) -> Text:
        """A text column; empty texts when it is absent."""
        data = self.columns.get(_of_kind(name, ColumnKind.TEXT))
        return data if isinstance(data, Text) else Text.repeat(b"", self.n)

    def values(self, name: str) -> list[int] | list[bytes] | list[str]:
        """A column as a Python list, with defaults where it is absent. For few rows: it makes an object a row."""
        match registered(name).kind:
            case ColumnKind.INT:
                return [int(value) for value in self.ints(name)]
            case ColumnKind.TEXT:
                return self.text(name).to_list()
            case ColumnKind.BYTES:
                return [row.tobytes() for row in self.octets(name)]

    def take(self, where: Mask | Index) -> Rows:
        """The rows that a mask marks, or that an index names in its order."""
        index = chosen(where)
        return Rows(
            len(index),
            # ndarray.take copies a row at once, where data[index] goes octet by octet: ten times slower for digests.
            {
                name: data.take(index) if isinstance(data, Text) else data.take(index, axis=0)
                for name, data in self.columns.items()
            },
        )

    def slice(self, start: int, stop: int) -> Rows:
        """Rows start … stop - 1, as views."""
        start = min(start, self.n)
        stop = max(start, min(stop, self.n))
        columns = {
            name: data.slice(start, stop) if isinstance(data, Text) else data[start:stop]
            for name, data in self.columns.items()
        }
        return Rows(stop - start, columns)

    def select(self, names: Iterable[str]) -> Rows:
        """The same rows with these columns only; a name that is absent stays absent."""
        wanted = {registered(name).name for name in names}
        return Rows(self.n, {name: data for name, data in self.columns.items() if name in wanted})

    def with_columns(self, columns: Mapping[str, Values]) -> Rows:
        """The same rows with these columns added or replaced."""
        return Rows(self.n, {**self.columns, **Rows.of(self.n, columns).columns})

    def equals(self, other: Rows) -> bool:
        """Whether both hold the same values in the same order; an absent column equals its default."""
        if self.n != other.n or self.shape != other.shape:
            return False
        return all(_same(self, other, column) for column in _REGISTRY)


def concat(batches: Sequence[Rows]) -> Rows:
    """All rows of these batches, in order. Raises MalformedError when their shapes differ."""
    if not batches:
        return Rows(0, {})
    if len({batch.shape for batch in batches}) > 1:
        raise MalformedError("batches of different shapes cannot be joined")
    names = [name for name in COLUMNS if any(name in batch.columns for batch in batches)]
    return Rows(sum(batch.n for batch in batches), {name: _joined(batches, COLUMNS[name]) for name in names})


def integers(values: Sequence[int]) -> Ints:
    """These integers as a column."""
    return np.array(values, np.uint64)


def counting(first: int, n: int) -> Ints:
    """The n integers from `first` on."""
    return np.arange(n, dtype=np.uint64) + np.uint64(first)


def constant(value: int, n: int) -> Ints:
    """n times one integer."""
    return np.full(n, value, np.uint64)


def joined(pieces: Sequence[Ints]) -> Ints:
    """Integer columns one after the other."""
    return np.concatenate(pieces) if pieces else np.zeros(0, np.uint64)


def joined_indexes(pieces: Sequence[Index]) -> Index:
    """Indexes one after the other."""
    return np.concatenate(pieces) if pieces else np.zeros(0, np.int64)


def indexes(places: Sequence[int]) -> Index:
    """An index of these places."""
    return np.array(places, np.int64)


def chosen(where: Mask | Index) -> Index:
    """The places that a mask marks; an index as it is."""
    return np.flatnonzero(where) if where.dtype == np.bool_ else where.astype(np.int64, copy=False)


def unmarked(n: int) -> Mask:
    """A mask over n rows that marks none."""
    return np.zeros(n, np.bool_)


def spread(values: Sequence[int], places: Index, n: int) -> Ints:
    """n integers: value i stands at place i of `places`, 0 everywhere else."""
    whole = np.zeros(n, np.uint64)
    whole[places] = values
    return whole


def flagged(flags: Sequence[bool]) -> Mask:
    """A mask of these flags."""
    return np.array(flags, np.bool_)


def same_values(one: Rows, other: Rows, name: str) -> Mask:
    """Row by row, whether two batches of one length hold the same value of a column that both have."""
    match registered(name).kind:
        case ColumnKind.INT:
            return np.asarray(one.ints(name) == other.ints(name))
        case ColumnKind.BYTES:
            return np.asarray((one.octets(name) == other.octets(name)).all(axis=1))
        case ColumnKind.TEXT:
            pairs = zip(one.text(name).encoded(), other.text(name).encoded(), strict=True)
            return np.fromiter((mine == theirs for mine, theirs in pairs), np.bool_, one.n)


def repeats(values: Ints) -> bool:
    """Whether a value stands twice."""
    if (values[1:] > values[:-1]).all():  # as imports give out ids
        return False
    ordered = np.sort(values)
    return bool((ordered[1:] == ordered[:-1]).any())


def grouped(values: Ints) -> Iterator[tuple[int, Index]]:
    """Each distinct value, ascending, with the rows that hold it, in their order."""
    order = np.argsort(values, kind="stable").astype(np.int64)
    ordered = values[order]
    changes = np.flatnonzero(ordered[1:] != ordered[:-1]) + 1
    for index in np.split(order, changes) if len(order) else ():
        yield int(values[index[0]]), index


def ordering(values: Ints) -> Index:
    """The order that makes numbers below 65,536 ascend, equal ones as they stood. (numpy sorts 16 bits by radix.)"""
    return np.argsort(values.astype(np.uint16), kind="stable").astype(np.int64, copy=False)


def stretches_of(values: Ints) -> list[tuple[int, int, int]]:
    """(value, start, stop) of each stretch of equal values."""
    if not len(values):
        return []
    edges = [0, *(np.flatnonzero(values[1:] != values[:-1]) + 1).tolist(), len(values)]
    return [(int(values[start]), start, stop) for start, stop in pairwise(edges)]


def registered(name: str) -> Column:
    """The column of this name."""
    column = COLUMNS.get(name)
    if column is None:
        raise MalformedError("a column that the registry does not know")
    return column


def offsets_of(lengths: Index) -> Index:
    """n lengths as n + 1 offsets."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def _of_kind(name: str, kind: ColumnKind) -> str:
    if registered(name).kind is not kind:
        raise MalformedError(f"{name} is not a column of {kind} values")
    return name


def _column(n: int, column: Column, values: Values) -> Data:
    """The values as the data that the registry asks for, checked."""
    match column.kind:
        case ColumnKind.TEXT:
            data: Data = values if isinstance(values, Text) else Text.of(cast(Sequence[str], values))
        case ColumnKind.INT:
            data = _ints(column, values)
        case ColumnKind.BYTES:
            data = _octets(column, values)
    if len(data) != n:
        raise MalformedError(f"{column.name}: the column does not have one value a row")
    return data


def _ints(column: Column, values: Values) -> Ints:
    if isinstance(values, np.ndarray):
        if values.ndim != 1 or values.dtype != np.uint64:
            raise MalformedError(f"{column.name}: not a column of unsigned 64-bit integers")
        return _frozen(np.asarray(values, np.uint64))
    try:
        # Unlike numpy, `array` neither rounds a float, nor reads a text, nor wraps a negative number.
        return np.frombuffer(array("Q", [*cast(Sequence[int], values)]), np.uint64)
    except (OverflowError, TypeError) as error:
        raise MalformedError(f"{column.name}: not an unsigned 64-bit integer") from error


def _octets(column: Column, values: Values) -> Octets:
    if isinstance(values, np.ndarray):
        if values.ndim != 2 or values.dtype != np.uint8 or values.shape[1] != column.width:
            raise MalformedError(f"{column.name}: not a column of {column.width} octets a value")
        return _frozen(np.ascontiguousarray(values, np.uint8))
    encoded = cast(Sequence[bytes], () if isinstance(values, Text) else values)
    if set(map(type, encoded)) - {bytes} or set(map(len, encoded)) - {column.width}:
        raise MalformedError(f"{column.name}: a value does not have {column.width} octets")
    return np.frombuffer(b"".join(encoded), np.uint8).reshape(len(encoded), column.width)


def _frozen(values: npt.NDArray[_Item]) -> npt.NDArray[_Item]:
    view = values.view()
    view.flags.writeable = False
    return view


def _same(one: Rows, other: Rows, column: Column) -> bool:
    if column.name not in one.columns and column.name not in other.columns:
        return True
    match column.kind:
        case ColumnKind.INT:
            return np.array_equal(one.ints(column.name), other.ints(column.name))
        case ColumnKind.BYTES:
            return np.array_equal(one.octets(column.name), other.octets(column.name))
        case ColumnKind.TEXT:
            mine, theirs = one.text(column.name), other.text(column.name)
            return np.array_equal(mine.offsets, theirs.offsets) and np.array_equal(mine.octets, theirs.octets)


def _joined(batches: Sequence[Rows], column: Column) -> Data:
    match column.kind:
        case ColumnKind.INT:
            return np.concatenate([batch.ints(column.name) for batch in batches])
        case ColumnKind.BYTES:
            return np.concatenate([batch.octets(column.name) for batch in batches])
        case ColumnKind.TEXT:
            return Text.joined([batch.text(column.name) for batch in batches])
