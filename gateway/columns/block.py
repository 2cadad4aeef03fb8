"""The column block `hash-block 1`: the one object that is stored, sent, logged, cached and resumed.

A block holds up to 65,536 changes of one set, one label, one epoch and one row shape, in ascending seq. Its header
carries the SHA-256 of every **part**; there is one part for each field group, so a group that a partner may not see is
left out by copying the other parts. The header, and with it the digest that the log and the signatures name, stays the
same.

    header    "HBK1" ‖ u16 header octets ‖ u16 epoch ‖ u16 label ‖ u16 0 ‖ u32 count ‖ u32 shape ‖ u64 first seq ‖
              u64 last seq ‖ label digest (32) ‖ u8 length ‖ set name ‖ u8 parts ‖
              per part: u8 group ‖ u32 stored octets ‖ SHA-256 of the stored octets (32)
    digest    SHA-256("hash-block 1\\n" ‖ header)
    part      salt (16) ‖ u8 columns ‖ per column: u8 code ‖ u8 encoding ‖ u32 octets ‖ the columns ‖ padding
    framing   header ‖ u16 mask of the parts that follow (bit i = i-th part of the header) ‖ those parts

All integers are little-endian. The salt keeps a holder of the header from confirming a guess at a part that was
withheld; the parts with free text are padded with zeros to a multiple of 64 octets, so that their stored size does not
tell the length of a single reference. `contracts/hash-block-1.md` has the numbered rules and a worked example.

Strict both ways: `decode` refuses whatever `encode_block` would not write, except that a writer may choose among the
encodings. It leaves to others: signatures, sealing, what a partner may see, and whether the label digest is right.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import BinaryIO

import numpy as np

from gateway.columns.encodings import MAX_TEXT_COLUMN_BYTES, Encoding, decode_column, encode_column
from gateway.columns.rows import (
    ALL_SHAPE_BITS,
    BY_CODE,
    EXISTENCE,
    GROUP_CODES,
    GROUP_NAMES,
    LOCAL_GROUP,
    SHAPE_OF,
    Column,
    Data,
    Index,
    Ints,
    Mask,
    Rows,
    Text,
    columns_of,
    registered,
    shape_names,
)
from gateway.errors import DeniedError, MalformedError, TooLargeError, VerificationError
from gateway.model import MAX_LABELS, SET_NAME, ChangeKind, FieldGroup

MAGIC = b"HBK1"
DIGEST_CONTEXT = b"hash-block 1\n"
MAX_ROWS = 65_536  # some 5 MB of the reference shape: one piece of work for memory, log and resume
SALT_BYTES = 16
PADDED_TO = 64  # octets; a pseudonym or a reference is shorter
REMOVALS = 0  # the label number of removals made for one follower
NO_LABEL = bytes(32)
_HEAD = struct.Struct("<4sHHHHIIQQ32sB")
_PART = struct.Struct("<BI32s")
_COLUMN = struct.Struct("<BBI")
_MASK = struct.Struct("<H")
_PADDED_GROUPS = frozenset(
    {GROUP_CODES[FieldGroup.SERIES], GROUP_CODES[FieldGroup.VICTIM_STATUS], LOCAL_GROUP}
)  # those with free text
_MAX_PARTS = len(GROUP_NAMES)
_MAX_NAME_BYTES = 67  # the longest set name: "XX-" + 16, "/", 47
MAX_HEADER_BYTES = _HEAD.size + _MAX_NAME_BYTES + 1 + _MAX_PARTS * _PART.size
# The widest part, perceptual digests: 208 octets a row, three texts of 4 MiB, the quality; no writer needs more.
MAX_PART_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class PartHeader:
    """What the header says of a part, whether the part is here or was withheld."""

    group: int
    stored_bytes: int
    sha256: bytes


@dataclass(frozen=True, slots=True)
class BlockHeader:
    """The header of a block; every field is checked when it is made."""

    set_name: str
    epoch: int
    label: int
    label_digest: bytes
    count: int
    shape: int
    first_seq: int
    last_seq: int
    parts: tuple[PartHeader, ...]

    def __post_init__(self) -> None:
        _require(SET_NAME.fullmatch(self.set_name), "the set name is not one")
        _require(0 <= self.epoch < 1 << 16, "the epoch is out of range")
        _require(0 <= self.label <= MAX_LABELS, "the label number is out of range")
        _require(len(self.label_digest) == 32, "the label digest does not have 32 octets")
        _require(1 <= self.count <= MAX_ROWS, "the count is out of range")
        _require(self.shape >= 0 and not self.shape & ~ALL_SHAPE_BITS, "the shape names unknown digests")
        _require(1 <= self.first_seq <= self.last_seq < 1 << 64, "the seq range is not one")
        _require(self.last_seq - self.first_seq >= self.count - 1, "the seq range is shorter than the count")
        groups = [part.group for part in self.parts]
        _require(groups[:1] == [EXISTENCE], "the first part is not existence")
        _require(all(one < two for one, two in pairwise(groups)), "the parts are not in order")
        _require(all(group in GROUP_NAMES for group in groups), "a part of an unknown group")
        _require(all(len(part.sha256) == 32 for part in self.parts), "a part digest does not have 32 octets")
        _require(all(0 < part.stored_bytes <= MAX_PART_BYTES for part in self.parts), "a part of impossible size")
        unheld = self.shape & ~sum(SHAPE_OF.get(group, 0) for group in groups)
        _require(not unheld, "the shape names digests that no part holds")
        if self.label == REMOVALS:
            _require(self.label_digest == NO_LABEL, "removals have a label digest")
            _require(not self.shape and groups == [EXISTENCE], "removals carry more than existence")

    def encode(self) -> bytes:
        """The header as bytes."""
        name = self.set_name.encode("ascii")
        parts = b"".join(_PART.pack(part.group, part.stored_bytes, part.sha256) for part in self.parts)
        size = _HEAD.size + len(name) + 1 + len(parts)
        head = _HEAD.pack(
            MAGIC, size, self.epoch, self.label, 0, self.count, self.shape, self.first_seq, self.last_seq,
            self.label_digest, len(name),
        )  # fmt: skip
        return head + name + bytes([len(self.parts)]) + parts


@dataclass(frozen=True, slots=True)
class Block:
    """A header and those of its parts that are here, by group code."""

    header: BlockHeader
    parts: Mapping[int, bytes]

    @property
    def digest(self) -> bytes:
        """The 32 bytes that name the block, whichever parts are here."""
        return hashlib.sha256(DIGEST_CONTEXT + self.header.encode()).digest()

    @property
    def groups(self) -> frozenset[FieldGroup]:
        """The field groups that are here; the local part is none."""
        return frozenset(group for group, code in GROUP_CODES.items() if code in self.parts)

    def project(self, groups: Iterable[FieldGroup]) -> Block:
        """The same block with the parts of these groups only, and never the local part.

        Raises DeniedError without existence: a partner who may not know that an entry exists gets no block at all.
        """
        permitted = {GROUP_CODES[group] for group in groups if group in GROUP_CODES}
        if EXISTENCE not in permitted:
            raise DeniedError("no block leaves without its existence part")
        return Block(self.header, {code: part for code, part in self.parts.items() if code in permitted})

    @property
    def framed_bytes(self) -> int:
        """How many bytes `dump` writes."""
        return len(self.header.encode()) + _MASK.size + sum(map(len, self.parts.values()))

    def dump(self, sink: BinaryIO) -> None:
        """Write header, mask and the parts that are here."""
        mask = sum(1 << i for i, part in enumerate(self.header.parts) if part.group in self.parts)
        sink.write(self.header.encode() + _MASK.pack(mask))
        for part in self.header.parts:
            if part.group in self.parts:
                sink.write(self.parts[part.group])


def encode_block(
    *, set_name: str, epoch: int, label: int, label_digest: bytes, rows: Rows, salt: Callable[[], bytes]
) -> Block:
    """The block of these rows, which are in ascending seq.

    Args:
        salt: called once for each part; gives 16 fresh random octets.

    Raises:
        MalformedError: the rows break a rule of the contract, so that no one could decode them.
        TooLargeError: more rows or text than one block takes; `cut` divides them.
    """
    if rows.n > MAX_ROWS:
        raise TooLargeError("more changes than one block takes")
    _require(rows.n, "a block without changes")
    _check_existence(rows)
    parts = {group: part for group in sorted(GROUP_NAMES) if (part := _encode_part(rows, group, salt))}
    seq = rows.ints("seq")
    header = BlockHeader(
        set_name, epoch, label, label_digest, rows.n, rows.shape, int(seq[0]), int(seq[-1]),
        tuple(PartHeader(group, len(part), hashlib.sha256(part).digest()) for group, part in parts.items()),
    )  # fmt: skip
    _check_against_header(header, rows)
    return Block(header, parts)


def resliced(block: Block, where: Mask | Index, salt: Callable[[], bytes]) -> Block:
    """A new block of some rows of a block, with the parts that are here: for the edges of a page, and for erasing."""
    header = block.header
    rows = decode(block).take(where)
    return encode_block(
        set_name=header.set_name, epoch=header.epoch, label=header.label, label_digest=header.label_digest,
        rows=rows, salt=salt,
    )  # fmt: skip


def cut(rows: Rows, *, max_rows: int = MAX_ROWS) -> Iterator[Rows]:
    """The rows in pieces that each fit one block: at most `max_rows`, and bounded text in every column."""
    texts = [data.lengths for data in rows.columns.values() if isinstance(data, Text)]
    start = 0
    while start < rows.n:
        stop = min(start + max_rows, rows.n)
        for lengths in texts:
            totals = np.cumsum(lengths[start:stop])
            stop = start + max(1, int(np.searchsorted(totals, MAX_TEXT_COLUMN_BYTES, "right")))
        yield rows.slice(start, stop)
        start = stop


def parse_header(source: BinaryIO) -> BlockHeader:
    """Read one header. Raises MalformedError when it is not exactly what `BlockHeader.encode` writes."""
    start = _read(source, 6)
    _require(start[:4] == MAGIC, "this is not a column block")
    size = int.from_bytes(start[4:], "little")
    _require(_HEAD.size < size <= MAX_HEADER_BYTES, "the header is not as long as a header can be")
    raw = start + _read(source, size - 6)
    _, _, epoch, label, _, count, shape, first_seq, last_seq, label_digest, name_bytes = _HEAD.unpack_from(raw)
    at = _HEAD.size + name_bytes
    _require(at < size and size == at + 1 + raw[at] * _PART.size, "the header has gaps or trailing bytes")
    parts = tuple(PartHeader(*fields) for fields in _PART.iter_unpack(raw[at + 1 :]))
    try:
        name = raw[_HEAD.size : at].decode("ascii")
    except UnicodeDecodeError as error:
        raise MalformedError("block: the set name is not one") from error
    header = BlockHeader(name, epoch, label, label_digest, count, shape, first_seq, last_seq, parts)
    # The digest is taken over these bytes, so there must be one way only to write a header.
    _require(header.encode() == raw, "the header is not canonical")
    return header


def parse_block(source: BinaryIO, *, max_bytes: int) -> Block:
    """Read one framed block and check each part against its digest, without unpacking it.

    Args:
        max_bytes: the most that header and parts together may take.

    Raises:
        MalformedError: not a block, or it ends early. TooLargeError: it says that it is longer than `max_bytes`.
        VerificationError: a part is not the one that the header names.
    """
    header = parse_header(source)
    mask = int.from_bytes(_read(source, _MASK.size), "little")
    _require(not mask >> len(header.parts), "the mask names parts that the header does not")
    present = [part for i, part in enumerate(header.parts) if mask >> i & 1]
    if len(header.encode()) + _MASK.size + sum(part.stored_bytes for part in present) > max_bytes:
        raise TooLargeError("block: longer than what is left")
    return Block(header, {part.group: _read_part(source, part) for part in present})


def decode(block: Block, columns: Iterable[str] | None = None) -> Rows:
    """The rows of a block, strictly checked.

    Args:
        columns: the columns wanted, None for all that are here. Only their parts are unpacked; a column whose part was
            withheld is absent. Each part that is touched is checked for the columns asked for.
    """
    wanted = None if columns is None else {registered(name).name for name in columns}
    found: dict[str, Data] = {}
    for group, part in block.parts.items():
        if wanted is None or any(column.name in wanted for column in columns_of(group)):
            found.update(_decode_part(block.header, group, part, wanted))
    rows = Rows(block.header.count, found)
    if wanted is None and EXISTENCE in block.parts:
        _check_existence(rows)
    elif wanted is not None:
        _check_asked(rows, wanted)
    _check_against_header(block.header, rows)
    return rows


def inspect(block: Block) -> dict[str, object]:
    """What a reader may want to know of a block, as members of a JSON object; no value of any row."""
    header = block.header
    return {
        "format": "hash-block 1",
        "digest": block.digest.hex(),
        "set": header.set_name,
        "epoch": header.epoch,
        "label": header.label,
        "label_digest": header.label_digest.hex(),
        "changes": header.count,
        "first_seq": header.first_seq,
        "last_seq": header.last_seq,
        "shape": list(shape_names(header.shape)),
        "parts": [_inspect_part(block, part) for part in header.parts],
    }


# Parts


@dataclass(frozen=True, slots=True)
class _Span:
    """Where one column stands in a part."""

    column: Column
    encoding: int
    start: int
    stop: int


def _encode_part(rows: Rows, group: int, salt: Callable[[], bytes]) -> bytes | None:
    """The part of one group, None when all its columns are absent or hold defaults."""
    encoded = [
        (column, found)
        for column in columns_of(group)
        if column.name in rows.columns and (found := encode_column(column, rows.columns[column.name]))
    ]
    if not encoded:
        return None
    fresh = salt()
    _require(len(fresh) == SALT_BYTES, "a salt does not have 16 octets")
    directory = b"".join(_COLUMN.pack(column.code, encoding, len(data)) for column, (encoding, data) in encoded)
    pieces = [fresh, bytes([len(encoded)]), directory, *(data for _, (_, data) in encoded)]
    if group in _PADDED_GROUPS:
        pieces.append(bytes(-sum(map(len, pieces)) % PADDED_TO))
    return b"".join(pieces)


def _spans(group: int, part: bytes) -> list[_Span]:
    """The columns of a part, after its directory was checked to the last byte."""
    at = SALT_BYTES + 1
    _require(len(part) > at, "a part ends early")
    known = columns_of(group)
    count = part[SALT_BYTES]
    start = at + count * _COLUMN.size
    _require(1 <= count <= len(known) and start <= len(part), "a part names more columns than its group has")
    spans: list[_Span] = []
    for code, encoding, size in _COLUMN.iter_unpack(part[at:start]):
        column = BY_CODE.get(code)
        if column is None or column.group != group:
            raise MalformedError("block: a column that its group does not have")
        _require(not spans or spans[-1].column.code < code, "the columns of a part are not in order")
        spans.append(_Span(column, encoding, start, start + size))
        start += size
    padding = -start % PADDED_TO if group in _PADDED_GROUPS else 0
    _require(len(part) == start + padding and not any(part[start:]), "a part has gaps or trailing bytes")
    return spans


def _decode_part(header: BlockHeader, group: int, part: bytes, wanted: set[str] | None) -> dict[str, Data]:
    spans = _spans(group, part)
    shape = sum(1 << span.column.shape_bit for span in spans if span.column.is_digest)
    _require(shape == header.shape & SHAPE_OF[group], "a part does not hold the digests that the shape names")
    view = memoryview(part)
    return {
        span.column.name: decode_column(span.column, span.encoding, view[span.start : span.stop], header.count)
        for span in spans
        if wanted is None or span.column.name in wanted
    }


def _inspect_part(block: Block, part: PartHeader) -> dict[str, object]:
    described: dict[str, object] = {
        "group": GROUP_NAMES[part.group],
        "stored_bytes": part.stored_bytes,
        "sha256": part.sha256.hex(),
        "present": part.group in block.parts,
    }
    if part.group in block.parts:
        described["columns"] = [
            {"name": span.column.name, "encoding": _encoding_name(span.encoding), "bytes": span.stop - span.start}
            for span in _spans(part.group, block.parts[part.group])
        ]
    return described


def _encoding_name(encoding: int) -> str:
    known = {int(one): one.name.lower() for one in Encoding}
    return known.get(encoding, f"unknown ({encoding})")


def _read_part(source: BinaryIO, part: PartHeader) -> bytes:
    raw = _read(source, part.stored_bytes)
    if hashlib.sha256(raw).digest() != part.sha256:
        raise VerificationError("block: a part is not the one that its header names")
    return raw


def _read(source: BinaryIO, size: int) -> bytes:
    """Exactly `size` bytes; a raw stream may give them piece by piece."""
    pieces, missing = [], size
    while missing:
        piece = source.read(missing)
        if not piece:
            raise MalformedError("block: the input ends early")
        pieces.append(piece)
        missing -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


# Rules on the rows


def _check_existence(rows: Rows) -> None:
    for name in ("kind", "seq", "entry_id"):
        _require(name in rows.columns, f"the column {name} is missing")
    _check_asked(rows, {"kind", "seq", "entry_id"})


def _check_asked(rows: Rows, wanted: set[str]) -> None:
    """The rules on single columns, for those that are here."""
    if "kind" in wanted & rows.columns.keys():
        kind = rows.ints("kind")
        _require(bool(((kind >= 1) & (kind <= 3)).all()), "a change of unknown kind")
    if "entry_id" in wanted & rows.columns.keys():
        _require(bool(rows.ints("entry_id").all()), "an entry id is 0")
    if "seq" in wanted & rows.columns.keys():
        _require(_ascends(rows.ints("seq")), "seq does not ascend")


def _check_against_header(header: BlockHeader, rows: Rows) -> None:
    if "seq" in rows.columns:
        seq = rows.ints("seq")
        ends = int(seq[0]), int(seq[-1])
        _require(ends == (header.first_seq, header.last_seq), "the first or last seq is not that of the header")
    if header.label == REMOVALS and "kind" in rows.columns:
        _require(bool((rows.ints("kind") != ChangeKind.ASSERT).all()), "an assert among removals")


def _ascends(seq: Ints) -> bool:
    return bool((seq[1:] > seq[:-1]).all())


def _require(condition: object, what: str) -> None:
    if not condition:
        raise MalformedError(f"block: {what}")
