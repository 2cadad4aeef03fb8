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
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import zstandard

from gateway.columns.rows import Column, ColumnKind, Data, Index, Ints, Octets, Text, offsets_of
from gateway.errors import MalformedError, TooLargeError

LEVEL = 3  # higher levels save under 1 % of such columns and take several times as long
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
Encoded: TypeAlias = tuple[Encoding, bytes | memoryview]


@dataclass(frozen=True, slots=True)
class Stored:
    """A column as it stands in the part of one block."""

    encoding: int
    payload: memoryview


def encode_column(column: Column, data: Data, offsets: Index) -> list[Encoded | None]:
    """The column cut into pieces, each in the smallest of its encodings; None for a piece of nothing but defaults.

    Many short pieces cost little more than a long one: what can be done to all of them at once is.

    Args:
        offsets: piece i is the rows offsets[i] … offsets[i + 1] - 1; no piece is empty.
    """
    bounds = list(pairwise(offsets.tolist()))
    if isinstance(data, Text):
        return [_encode_text(column, data.slice(start, stop)) for start, stop in bounds]
    if column.kind is ColumnKind.BYTES:
        octets = np.ascontiguousarray(data, np.uint8).reshape(-1).data
        return [(Encoding.RAW, octets[column.width * start : column.width * stop]) for start, stop in bounds]
    return _encode_ints(data.astype(np.uint64, copy=False), offsets)


def decode_column(column: Column, pieces: Sequence[Stored | None], offsets: Index) -> Data:
    """The values of a column, piece after piece; where a piece is None its values are the defaults.

    Args:
        offsets: where the rows of each piece stand in the result, n + 1 numbers for n pieces.

    Raises:
        MalformedError: at any departure from the contract.
    """
    match column.kind:
        case ColumnKind.BYTES:
            return _decode_raw(column, pieces, offsets)
        case ColumnKind.INT:
            return _decode_ints(column, pieces, offsets)
        case ColumnKind.TEXT:
            return _decode_texts(column, pieces, offsets)


def unpacked_bytes(column: Column, stored: Stored, n: int) -> int:
    """What the n values of a stored column take once they are unpacked, as it says itself."""
    if column.kind is not ColumnKind.TEXT:
        return column.width * n
    if stored.encoding == Encoding.CONSTANT:
        return len(stored.payload) * n
    return _TEXT.unpack_from(stored.payload)[1] + 8 * n if len(stored.payload) >= _TEXT.size else 0


# Integers


def _encode_ints(values: Ints, offsets: Index) -> list[Encoded | None]:
    starts, lengths = offsets[:-1], np.diff(offsets)
    firsts = values.take(starts).tolist()
    differs = np.minimum.reduceat(values, starts) != np.maximum.reduceat(values, starts)
    found: list[Encoded | None] = [
        (Encoding.CONSTANT, first.to_bytes((first.bit_length() + 7) // 8, "little")) if first else None
        for first in firsts
    ]
    uneven = np.flatnonzero(differs).tolist()
    if uneven and (steps := _steps(values, starts, lengths)):
        for at in uneven:
            if (step := steps.get(at)) is not None:
                found[at] = Encoding.LINEAR, _LINEAR.pack(firsts[at], step)
        uneven = [at for at in uneven if at not in steps]
    if uneven:
        if len(uneven) < len(found):
            values = np.concatenate([values[starts[at] : starts[at] + lengths[at]] for at in uneven])
        for at, encoded in zip(uneven, _packed(values, offsets_of(lengths[uneven])), strict=True):
            found[at] = encoded
    return found


def _steps(values: Ints, starts: Index, lengths: Index) -> dict[int, int]:
    """The step of each piece whose values all lie that step apart."""
    differences = values[1:] - values[:-1]
    firsts = differences.take(np.minimum(starts, len(differences) - 1))
    even = np.ones(len(values), np.bool_)  # whether the value is the one before plus the step of its piece
    even[1:] = differences == np.repeat(firsts, lengths)[1:]
    even[starts] = True
    straight = np.flatnonzero(np.logical_and.reduceat(even, starts)).tolist()
    # Steps may go down. The differences are modulo 2^64, so a run that wraps around looks straight: see its true end.
    ends = values.take(starts + lengths - 1).tolist()
    found = {}
    for at in straight:
        n, first, step = int(lengths[at]), int(values[starts[at]]), int(firsts[at])
        step = step if step < 1 << 63 else step - _TOP
        if first + step * (n - 1) == ends[at]:
            found[at] = step
    return found


def _packed(values: Ints, offsets: Index) -> list[Encoded]:
    """Each piece through the filter that leaves the smaller numbers, compressed or not, whichever is smaller."""
    starts, lengths = offsets[:-1], np.diff(offsets)
    bases = np.minimum.reduceat(values, starts)
    above = values - np.repeat(bases, lengths)
    steps = np.zeros(len(values), np.uint64)
    steps[1:] = _zigzag(values[1:] - values[:-1])
    steps[starts] = 0  # the first of a piece is its base
    by_steps = (
        np.add.reduceat(steps, starts, dtype=np.float64) < np.add.reduceat(above, starts, dtype=np.float64)
    ).tolist()
    most = np.where(by_steps, np.maximum.reduceat(steps, starts), np.maximum.reduceat(above, starts)).tolist()
    compress = _compressor().compress
    found: list[Encoded] = []
    for at, (start, stop) in enumerate(pairwise(offsets.tolist())):
        width = max(1, (most[at].bit_length() + 7) // 8)
        if by_steps[at]:
            head, planes = _PACKED.pack(DELTAS, width, int(values[start])), _planes(steps[start + 1 : stop], width)
        else:
            head, planes = _PACKED.pack(OFFSETS, width, int(bases[at])), _planes(above[start:stop], width)
        squeezed = compress(planes)
        plain = len(planes) <= len(squeezed)
        found.append((Encoding.PACKED, head + planes) if plain else (Encoding.PACKED_ZSTD, head + squeezed))
    return found


def _decode_ints(column: Column, pieces: Sequence[Stored | None], offsets: Index) -> Ints:
    lengths = np.diff(offsets)
    firsts, steps = np.zeros(len(pieces), np.uint64), np.zeros(len(pieces), np.uint64)
    packed: list[tuple[int, Stored]] = []
    for at, (stored, n) in enumerate(zip(pieces, lengths.tolist(), strict=True)):
        if stored is None:
            continue
        match stored.encoding:
            case Encoding.CONSTANT:
                firsts[at] = _constant(stored.payload)
            case Encoding.LINEAR:
                firsts[at], steps[at] = _linear(stored.payload, n)
            case Encoding.PACKED | Encoding.PACKED_ZSTD:
                packed.append((at, stored))
            case _:
                raise _no_such_encoding(column)
    if len(packed) == len(pieces) == 1:
        return _decode_packed(packed[0][1], int(lengths[0]))
    values = np.repeat(firsts, lengths)
    if steps.any():
        inside = np.arange(len(values)) - np.repeat(offsets[:-1], lengths)
        values += np.repeat(steps, lengths) * inside.astype(np.uint64)
    for at, stored in packed:
        values[offsets[at] : offsets[at + 1]] = _decode_packed(stored, int(lengths[at]))
    return values


def _constant(payload: memoryview) -> int:
    if not 1 <= len(payload) <= 8 or not payload[-1]:
        raise MalformedError("a constant is not in its shortest form")
    return int.from_bytes(payload, "little")


def _linear(payload: memoryview, n: int) -> tuple[int, int]:
    """First value, and step modulo 2^64."""
    if len(payload) != _LINEAR.size:
        raise MalformedError("a linear column does not have 16 octets")
    first, step = _LINEAR.unpack(payload)
    if not 0 <= first + step * (n - 1) < _TOP:
        raise MalformedError("a linear column leaves the range of its integers")
    return first, step % _TOP


def _decode_packed(stored: Stored, n: int) -> Ints:
    payload = stored.payload
    if len(payload) < _PACKED.size:
        raise MalformedError("a packed column ends early")
    which, width, base = _PACKED.unpack_from(payload)
    if which not in (OFFSETS, DELTAS) or not 1 <= width <= 8:
        raise MalformedError("a packed column has an unknown filter or width")
    stored_rows = n if which == OFFSETS else n - 1
    compressed = stored.encoding == Encoding.PACKED_ZSTD
    planes = _unpacked(payload[_PACKED.size :], stored_rows * width, compressed=compressed)
    numbers = _from_planes(planes, stored_rows, width)
    if which == OFFSETS:
        numbers += np.uint64(base)
        return numbers
    values = np.empty(n, np.uint64)
    values[0] = base
    values[1:] = (numbers >> np.uint64(1)) ^ (np.uint64(0) - (numbers & np.uint64(1)))
    return np.cumsum(values, dtype=np.uint64)


def _zigzag(differences: Ints) -> Ints:
    """Small differences of either sign, modulo 2^64, as small integers."""
    return (differences << np.uint64(1)) ^ (np.uint64(0) - (differences >> np.uint64(63)))


def _planes(values: Ints, width: int) -> bytes:
    if width == 1:
        return values.astype(np.uint8).tobytes()
    octets = np.ascontiguousarray(values, "<u8").view(np.uint8).reshape(-1, 8)
    return octets[:, :width].T.tobytes()


def _from_planes(planes: bytes | memoryview, n: int, width: int) -> Ints:
    if width == 1:
        return np.frombuffer(planes, np.uint8).astype(np.uint64)
    octets = np.zeros((n, 8), np.uint8)
    octets[:, :width] = np.frombuffer(planes, np.uint8).reshape(width, n).T
    return octets.view("<u8").reshape(n).astype(np.uint64, copy=False)


# Octets and text


def _decode_raw(column: Column, pieces: Sequence[Stored | None], offsets: Index) -> Octets:
    payloads = []
    for stored, n in zip(pieces, np.diff(offsets).tolist(), strict=True):
        if stored is None or stored.encoding != Encoding.RAW:
            raise _no_such_encoding(column)
        if len(stored.payload) != n * column.width:
            raise MalformedError(f"{column.name}: not {column.width} octets a row")
        payloads.append(stored.payload)
    octets = payloads[0] if len(payloads) == 1 else b"".join(payloads)
    return np.frombuffer(octets, np.uint8).reshape(-1, column.width)


def _encode_text(column: Column, text: Text) -> Encoded | None:
    check_text(column, text)
    if not len(text.octets) and not column.is_digest:
        return None
    if (common := text.common()) is not None:
        return Encoding.CONSTANT, common
    lengths = text.lengths.astype(np.uint64)
    width = max(1, (int(lengths.max()).bit_length() + 7) // 8)
    head, body = _TEXT.pack(width, len(text.octets)), _planes(lengths, width) + text.octets.tobytes()
    squeezed = _compressor().compress(body)
    plain = len(body) <= len(squeezed)
    return (Encoding.TEXT, head + body) if plain else (Encoding.TEXT_ZSTD, head + squeezed)


def _decode_texts(column: Column, pieces: Sequence[Stored | None], offsets: Index) -> Text:
    found = []
    for stored, n in zip(pieces, np.diff(offsets).tolist(), strict=True):
        if stored is None:
            found.append(Text.repeat(b"", n))
        elif stored.encoding == Encoding.CONSTANT:
            found.append(_decode_constant_text(column, stored.payload, n))
        elif stored.encoding in (Encoding.TEXT, Encoding.TEXT_ZSTD):
            compressed = stored.encoding == Encoding.TEXT_ZSTD
            found.append(_decode_text(column, stored.payload, n, compressed=compressed))
        else:
            raise _no_such_encoding(column)
    return Text.joined(found)


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


class _Contexts(threading.local):
    """zstd's working memory, kept from column to column: making it anew costs more than a short column does."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(level=LEVEL, write_checksum=False, write_content_size=True)
        self.decompressor = zstandard.ZstdDecompressor()


_contexts = _Contexts()  # of this thread: a context does one thing at a time


def pack_octets(raw: bytes) -> bytes:
    """Octets as one zstd frame that states their number."""
    return _compressor().compress(raw)


def unpack_octets(packed: bytes, size: int) -> bytes:
    """Exactly `size` octets out of such a frame; nothing larger is ever unpacked.

    Raises:
        MalformedError: it is no such frame, or states another size.
    """
    return bytes(_unpacked(memoryview(packed), size, compressed=True))


def _compressor() -> zstandard.ZstdCompressor:
    return _contexts.compressor


def _no_such_encoding(column: Column) -> MalformedError:
    return MalformedError(f"{column.name}: an encoding that this column does not have")


def _unpacked(payload: memoryview, size: int, *, compressed: bool) -> bytes | memoryview:
    """Exactly `size` octets out of a payload."""
    if not compressed:
        if len(payload) != size:
            raise MalformedError("a column is not as long as its rows need")
        return payload
    try:
        # The frame states its size, and we know it: nothing is unpacked that could be larger.
        if zstandard.frame_content_size(payload) != size:
            raise MalformedError("it does not state the size that it must have")
        return _contexts.decompressor.decompress(payload, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise MalformedError("what is compressed cannot be unpacked") from error
