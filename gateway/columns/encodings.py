"""How one column becomes bytes in a part of a column block, and back (contracts/hash-block-1.md section 4).

    0 raw            octets          n × width octets as they are: digests do not compress
    1 constant       int             the value, 1 to 8 octets little-endian, no leading zero octet
                     text            the UTF-8 text, at least one octet
                     octets          refused: a digest shared by all rows is a mistake worth its bytes
    2 linear         int             u64 first ‖ i64 step; no value leaves 0 … 2^64 - 1
    3 packed, zstd   int             u8 filter ‖ u8 width ‖ u64 base ‖ zstd of the planes
    5 packed         int             the same, planes as they are
    4 text, zstd     text            u8 width ‖ u32 UTF-8 octets ‖ zstd of (planes of the lengths ‖ UTF-8)
    6 text           text            the same, not compressed

*Planes* are n integers of `width` octets, first all lowest octets, then all second ones, and so on. Filter 0 stores
value - base for every row; filter 1 stores zigzag(value - previous) for every row but the first, which is the base.
Sums are modulo 2^64.

A decoder knows the size of what it unpacks before it unpacks: from the row count, the width and the stated text size,
which is bounded; a zstd frame must state that same size, be alone, and end where its column ends.

Worked example: seq 7, 8, 9 is linear, `07 00 00 00 00 00 00 00  01 00 00 00 00 00 00 00`.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import TypeAlias

import numpy as np
import zstandard

from gateway.columns.rows import Column, ColumnKind, Data, Index, Ints, Octets, Text, offsets_of
from gateway.errors import MalformedError, TooLargeError

LEVEL = 3  # higher levels save under 1 % of such columns and take several times as long
SAMPLE_ROWS = 2048  # enough to tell which filter suits a column
MAX_TEXT_COLUMN_BYTES = 4 << 20  # unpacked text of one column of one block: bounds what a small part can grow to
_PACKED = struct.Struct("<BBQ")
_TEXT = struct.Struct("<BI")
_LINEAR = struct.Struct("<Qq")
_TOP = 1 << 64


class Encoding(IntEnum):
    """The code of an encoding on the wire."""

    RAW = 0
    CONSTANT = 1
    LINEAR = 2
    PACKED_ZSTD = 3
    TEXT_ZSTD = 4
    PACKED = 5
    TEXT = 6


OFFSETS, DELTAS = 0, 1  # the filters of packed integers
Encoded: TypeAlias = tuple[Encoding, bytes]


def encode_column(column: Column, data: Data) -> Encoded | None:
    """The column in the smallest of its encodings; None when it only holds defaults and may be left out."""
    if isinstance(data, Text):
        return _encode_text(column, data)
    if column.kind is ColumnKind.BYTES:
        return Encoding.RAW, data.tobytes()
    return _encode_ints(data.astype(np.uint64, copy=False))


def decode_column(column: Column, encoding: int, payload: memoryview, n: int) -> Data:
    """The n values of a column. Raises MalformedError at any departure from the contract."""
    match column.kind, encoding:
        case ColumnKind.BYTES, Encoding.RAW:
            return _decode_raw(column, payload, n)
        case ColumnKind.INT, Encoding.CONSTANT:
            return _decode_constant(payload, n)
        case ColumnKind.INT, Encoding.LINEAR:
            return _decode_linear(payload, n)
        case ColumnKind.INT, Encoding.PACKED | Encoding.PACKED_ZSTD:
            return _decode_packed(payload, n, compressed=encoding == Encoding.PACKED_ZSTD)
        case ColumnKind.TEXT, Encoding.CONSTANT:
            return _decode_constant_text(column, payload, n)
        case ColumnKind.TEXT, Encoding.TEXT | Encoding.TEXT_ZSTD:
            return _decode_text(column, payload, n, compressed=encoding == Encoding.TEXT_ZSTD)
    raise MalformedError(f"{column.name}: an encoding that this column does not have")


# Integers


def _encode_ints(values: Ints) -> Encoded | None:
    first, n = int(values[0]), len(values)
    if n == 1 or (values == values[0]).all():
        return (Encoding.CONSTANT, first.to_bytes((first.bit_length() + 7) // 8, "little")) if first else None
    if (step := int(values[1]) - first) and -(1 << 63) <= step < 1 << 63 and _is_linear(values, first, step):
        return Encoding.LINEAR, _LINEAR.pack(first, step)
    return _smallest(values, _suitable_filters(values))


def _is_linear(values: Ints, first: int, step: int) -> bool:
    differences = values[1:] - values[:-1]
    # The differences are modulo 2^64, so a run that wraps around looks straight: look at its true end too.
    return bool((differences == differences[0]).all()) and int(values[-1]) == first + step * (len(values) - 1)


def _suitable_filters(values: Ints) -> tuple[int, ...]:
    """Both filters for a short column, for a long one that which does better on its beginning."""
    if len(values) <= SAMPLE_ROWS:
        return OFFSETS, DELTAS
    sample = values[:SAMPLE_ROWS]
    return (min((OFFSETS, DELTAS), key=lambda which: len(_smallest(sample, (which,))[1])),)


def _smallest(values: Ints, filters: tuple[int, ...]) -> Encoded:
    return min((encoded for which in filters for encoded in _packed(values, which)), key=lambda found: len(found[1]))


def _packed(values: Ints, which: int) -> list[Encoded]:
    """A column through one filter, compressed and not."""
    base = values.min() if which == OFFSETS else values[0]
    stored = values - base if which == OFFSETS else _zigzag(values[1:] - values[:-1])
    width = max(1, (int(stored.max()).bit_length() + 7) // 8)
    head, planes = _PACKED.pack(which, width, int(base)), _planes(stored, width)
    return [(Encoding.PACKED, head + planes), (Encoding.PACKED_ZSTD, head + _compressed(planes))]


def _decode_constant(payload: memoryview, n: int) -> Ints:
    if not 1 <= len(payload) <= 8 or not payload[-1]:
        raise MalformedError("a constant is not in its shortest form")
    return np.full(n, int.from_bytes(payload, "little"), np.uint64)


def _decode_linear(payload: memoryview, n: int) -> Ints:
    if len(payload) != _LINEAR.size:
        raise MalformedError("a linear column does not have 16 octets")
    first, step = _LINEAR.unpack(payload)
    if not 0 <= first + step * (n - 1) < _TOP:
        raise MalformedError("a linear column leaves the range of its integers")
    return np.arange(n, dtype=np.uint64) * np.uint64(step % _TOP) + np.uint64(first)


def _decode_packed(payload: memoryview, n: int, *, compressed: bool) -> Ints:
    if len(payload) < _PACKED.size:
        raise MalformedError("a packed column ends early")
    which, width, base = _PACKED.unpack_from(payload)
    if which not in (OFFSETS, DELTAS) or not 1 <= width <= 8:
        raise MalformedError("a packed column has an unknown filter or width")
    stored_rows = n if which == OFFSETS else n - 1
    planes = _unpacked(payload[_PACKED.size :], stored_rows * width, compressed=compressed)
    stored = _from_planes(planes, stored_rows, width)
    if which == OFFSETS:
        stored += np.uint64(base)
        return stored
    values = np.empty(n, np.uint64)
    values[0] = base
    values[1:] = (stored >> np.uint64(1)) ^ (np.uint64(0) - (stored & np.uint64(1)))
    return np.cumsum(values, dtype=np.uint64)


def _zigzag(differences: Ints) -> Ints:
    """Small differences of either sign, modulo 2^64, as small integers."""
    return (differences << np.uint64(1)) ^ (np.uint64(0) - (differences >> np.uint64(63)))


def _planes(values: Ints, width: int) -> bytes:
    octets = np.ascontiguousarray(values, "<u8").view(np.uint8).reshape(-1, 8)
    return octets[:, :width].T.tobytes()


def _from_planes(planes: bytes | memoryview, n: int, width: int) -> Ints:
    octets = np.zeros((n, 8), np.uint8)
    octets[:, :width] = np.frombuffer(planes, np.uint8).reshape(width, n).T
    return octets.view("<u8").reshape(n).astype(np.uint64, copy=False)


# Octets and text


def _decode_raw(column: Column, payload: memoryview, n: int) -> Octets:
    if len(payload) != n * column.width:
        raise MalformedError(f"{column.name}: not {column.width} octets a row")
    return np.frombuffer(payload, np.uint8).reshape(n, column.width)


def _encode_text(column: Column, text: Text) -> Encoded | None:
    check_text(column, text)
    if not len(text.octets) and not column.is_digest:
        return None
    if (common := text.common()) is not None:
        return Encoding.CONSTANT, common
    lengths = text.lengths.astype(np.uint64)
    width = max(1, (int(lengths.max()).bit_length() + 7) // 8)
    head, body = _TEXT.pack(width, len(text.octets)), _planes(lengths, width) + text.octets.tobytes()
    return min(
        ((Encoding.TEXT, head + body), (Encoding.TEXT_ZSTD, head + _compressed(body))), key=lambda found: len(found[1])
    )


def _decode_constant_text(column: Column, payload: memoryview, n: int) -> Text:
    if not len(payload) or len(payload) * n > MAX_TEXT_COLUMN_BYTES:
        raise MalformedError(f"{column.name}: a constant text is empty or too long")
    check_text(column, Text.repeat(payload.tobytes(), 1))
    return Text.repeat(payload.tobytes(), n)


def _decode_text(column: Column, payload: memoryview, n: int, *, compressed: bool) -> Text:
    if len(payload) < _TEXT.size:
        raise MalformedError(f"{column.name}: the column ends early")
    width, total = _TEXT.unpack_from(payload)
    if not 1 <= width <= 4 or total > MAX_TEXT_COLUMN_BYTES:
        raise MalformedError(f"{column.name}: the lengths are too wide, or the text too long")
    body = memoryview(_unpacked(payload[_TEXT.size :], n * width + total, compressed=compressed))
    lengths = _from_planes(body[: n * width], n, width).astype(np.int64)
    if int(lengths.sum()) != total:
        raise MalformedError(f"{column.name}: the lengths do not add up to the text")
    text = Text(offsets_of(lengths), np.frombuffer(body[n * width :], np.uint8))
    check_text(column, text)
    return text


def check_text(column: Column, text: Text) -> None:
    """Refuse texts that are too long, not UTF-8 one by one, or that hold control characters."""
    lengths: Index = text.lengths
    if len(text.octets) > MAX_TEXT_COLUMN_BYTES:
        raise TooLargeError(f"{column.name}: too much text for one block")
    if len(lengths) and int(lengths.max()) > column.width:
        raise MalformedError(f"{column.name}: a text is longer than {column.width} octets")
    if column.is_digest and not lengths.all():
        raise MalformedError(f"{column.name}: a digest is empty")
    # Texts reach terminals and logs: no escape sequences, no line breaks, no NUL.
    if ((text.octets < 0x20) | (text.octets == 0x7F)).any():
        raise MalformedError(f"{column.name}: a control character")
    try:
        text.octets.tobytes().decode()
    except UnicodeDecodeError as error:
        raise MalformedError(f"{column.name}: not UTF-8") from error
    # The buffer as a whole is UTF-8; each text is, if none begins inside a character.
    begins = text.offsets[:-1][lengths > 0]
    if ((text.octets[begins] & 0xC0) == 0x80).any():
        raise MalformedError(f"{column.name}: not UTF-8")


# Compression


def _compressed(raw: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=LEVEL, write_checksum=False, write_content_size=True).compress(raw)


def _unpacked(payload: memoryview, size: int, *, compressed: bool) -> bytes | memoryview:
    """Exactly `size` octets out of a payload."""
    if not compressed:
        if len(payload) != size:
            raise MalformedError("a column is not as long as its rows need")
        return payload
    try:
        # The frame states its size, and we know it: nothing is unpacked that could be larger.
        if zstandard.frame_content_size(payload) != size:
            raise MalformedError("a compressed column does not state the size that its rows need")
        return zstandard.ZstdDecompressor().decompress(payload, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise MalformedError("a compressed column cannot be unpacked") from error
