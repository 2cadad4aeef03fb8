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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import chain, compress, pairwise
from typing import BinaryIO, NamedTuple

import numpy as np

from gateway.columns.encodings import (
    MAX_TEXT_COLUMN_BYTES,
    Encoded,
    Encoding,
    Stored,
    decode_column,
    encode_column,
    unpacked_bytes,
)
from gateway.columns.rows import (
    ALL_SHAPE_BITS,
    BY_CODE,
    COLUMNS,
    EXISTENCE,
    GROUP_CODES,
    GROUP_NAMES,
    LOCAL_GROUP,
    SHAPE_OF,
    Column,
    Index,
    Mask,
    Rows,
    Text,
    columns_of,
    offsets_of,
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
# Blocks that are decoded together come to so much: a page full at the reference shape, and a bound for a page of small
# blocks that each unpack to megabytes of text.
UNPACKED_AT_ONCE = 16 << 20
_EXISTENCE_COLUMNS = frozenset({"kind", "seq", "entry_id"})
_SHAPE_BIT = {name: 1 << column.shape_bit if column.is_digest else 0 for name, column in COLUMNS.items()}
_NAMES_OF = {group: frozenset(column.name for column in columns_of(group)) for group in GROUP_NAMES}


class PartHeader(NamedTuple):
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
    _encoded: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._check()
        object.__setattr__(self, "_encoded", self._encode())

    def _check(self) -> None:
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
        before = held = 0
        for group, stored_bytes, sha256 in self.parts:
            _require(before < group, "the parts are not in order")
            _require(group in GROUP_NAMES, "a part of an unknown group")
            _require(len(sha256) == 32, "a part digest does not have 32 octets")
            _require(0 < stored_bytes <= MAX_PART_BYTES, "a part of impossible size")
            before, held = group, held | SHAPE_OF[group]
        _require(not self.shape & ~held, "the shape names digests that no part holds")
        if self.label == REMOVALS:
            _require(self.label_digest == NO_LABEL, "removals have a label digest")
            _require(not self.shape and groups == [EXISTENCE], "removals carry more than existence")

    def encode(self) -> bytes:
        """The header as bytes."""
        return self._encoded

    def _encode(self) -> bytes:
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


@dataclass(frozen=True, slots=True)
class Stretch:
    """Rows start … stop - 1 of a batch, which share a label and become one block."""

    label: int
    label_digest: bytes
    start: int
    stop: int


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
    whole = Stretch(label, label_digest, 0, rows.n)
    return encode_blocks(set_name=set_name, epoch=epoch, rows=rows, stretches=[whole], salt=salt)[0]


def encode_blocks(
    *, set_name: str, epoch: int, rows: Rows, stretches: Sequence[Stretch], salt: Callable[[], bytes]
) -> list[Block]:
    """The blocks of these rows, one for each stretch. Many short blocks cost little more than a long one.

    Args:
        stretches: one after the other, from the first row to the last; in each the rows are in ascending seq.
        salt: as for `encode_block`.

    Raises:
        MalformedError, TooLargeError: as `encode_block`.
    """
    ends = [stretch.stop for stretch in stretches]
    _require(
        [0, *ends] == [*(stretch.start for stretch in stretches), rows.n], "the stretches do not follow each other"
    )
    for stretch in stretches:
        if stretch.stop - stretch.start > MAX_ROWS:
            raise TooLargeError("more changes than one block takes")
        _require(stretch.stop > stretch.start, "a block without changes")
    offsets = np.array([0, *ends], np.int64)
    _check_rows(rows, offsets, _EXISTENCE_COLUMNS)
    columns = {name: encode_column(COLUMNS[name], data, offsets) for name, data in rows.columns.items()}
    by_group = {
        group: [(column, columns[column.name]) for column in columns_of(group) if column.name in columns]
        for group in sorted(GROUP_NAMES)
    }
    seq, shape = rows.ints("seq"), rows.shape
    firsts, lasts = seq.take(offsets[:-1]).tolist(), seq.take(offsets[1:] - 1).tolist()
    blocks = []
    for at, stretch in enumerate(stretches):
        parts = {}
        for group, members in by_group.items():
            if part := _encode_part(group, [(column, found[at]) for column, found in members], salt):
                parts[group] = part
        header = BlockHeader(
            set_name, epoch, stretch.label, stretch.label_digest, stretch.stop - stretch.start, shape,
            firsts[at], lasts[at],
            tuple(PartHeader(group, len(part), hashlib.sha256(part).digest()) for group, part in parts.items()),
        )  # fmt: skip
        blocks.append(Block(header, parts))
    _check_removals(rows, offsets, [stretch.label for stretch in stretches])
    return blocks


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
    return (rows.slice(start, stop) for start, stop in cuts(rows, 0, rows.n, max_rows=max_rows))


def cuts(rows: Rows, start: int, stop: int, *, max_rows: int = MAX_ROWS) -> Iterator[tuple[int, int]]:
    """Rows start … stop - 1 as (start, stop) of pieces that each fit one block."""
    offsets = [data.offsets for data in rows.columns.values() if isinstance(data, Text)]
    while start < stop:
        end = min(start + max_rows, stop)
        for ends in offsets:
            fitting = np.searchsorted(ends[start : end + 1], ends[start] + MAX_TEXT_COLUMN_BYTES, "right") - 1
            end = start + max(1, int(fitting))
        yield start, end
        start = end


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
    [together] = decode_together([block], columns)
    return together.rows


@dataclass(frozen=True, slots=True, eq=False)
class Together:
    """Blocks of which the same digests are here, and their rows one after the other.

    Block i of `blocks` is place `places[i]` of what was asked for, and rows offsets[i] … offsets[i + 1] - 1 here.
    """

    blocks: tuple[Block, ...]
    places: tuple[int, ...]
    offsets: Index
    rows: Rows

    def only(self, wanted: Sequence[bool]) -> Together:
        """Those of the blocks that are wanted, with their rows."""
        if all(wanted):
            return self
        lengths = np.diff(self.offsets)
        chosen = np.array(wanted, np.bool_)
        return Together(
            tuple(compress(self.blocks, wanted)),
            tuple(compress(self.places, wanted)),
            offsets_of(lengths[chosen]),
            self.rows.take(np.repeat(chosen, lengths)),
        )

    def each(self) -> Iterator[tuple[Block, Rows]]:
        """Each block with its rows, as views."""
        bounds = pairwise(self.offsets.tolist())
        return ((block, self.rows.slice(*ends)) for block, ends in zip(self.blocks, bounds, strict=True))


def decode_together(blocks: Iterable[Block], columns: Iterable[str] | None = None) -> Iterator[Together]:
    """The rows of many blocks, strictly checked as by `decode`, a few megabytes at a time.

    Blocks of two hundred rows cost little more than one large one, since all rows of a column are made at once.
    """
    wanted = None if columns is None else {registered(name).name for name in columns}
    gathered: list[_Opened] = []
    unpacked = 0
    for place, block in enumerate(blocks):
        opened = _opened(place, block, wanted)
        if gathered and unpacked + opened.unpacked_bytes > UNPACKED_AT_ONCE:
            yield from _together(gathered)
            gathered, unpacked = [], 0
        gathered.append(opened)
        unpacked += opened.unpacked_bytes
    yield from _together(gathered)


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
class _Opened:
    """A block with the columns wanted as they are stored, by name."""

    place: int
    block: Block
    columns: dict[str, Stored]
    unpacked_bytes: int


def _encode_part(group: int, columns: Sequence[tuple[Column, Encoded | None]], salt: Callable[[], bytes]) -> bytes:
    """The part of one group, empty when all its columns are absent or hold defaults."""
    directory, payloads = [], []
    for column, found in columns:
        if found is not None:
            encoding, payload = found
            directory.append(_COLUMN.pack(column.code, encoding, len(payload)))
            payloads.append(payload)
    if not directory:
        return b""
    fresh = salt()
    _require(len(fresh) == SALT_BYTES, "a salt does not have 16 octets")
    part = b"".join([fresh, bytes([len(directory)]), *directory, *payloads])
    return part + bytes(-len(part) % PADDED_TO) if group in _PADDED_GROUPS else part


def _spans(group: int, part: bytes) -> dict[str, Stored]:
    """The columns of a part by name, after its directory was checked to the last byte."""
    at = SALT_BYTES + 1
    _require(len(part) > at, "a part ends early")
    known = columns_of(group)
    count = part[SALT_BYTES]
    start = at + count * _COLUMN.size
    _require(1 <= count <= len(known) and start <= len(part), "a part names more columns than its group has")
    view = memoryview(part)
    spans: dict[str, Stored] = {}
    before = 0
    for code, encoding, size in _COLUMN.iter_unpack(view[at:start]):
        column = BY_CODE.get(code)
        if column is None or column.group != group:
            raise MalformedError("block: a column that its group does not have")
        _require(before < code, "the columns of a part are not in order")
        spans[column.name] = Stored(encoding, view[start : start + size])
        before, start = code, start + size
    padding = -start % PADDED_TO if group in _PADDED_GROUPS else 0
    _require(len(part) == start + padding and not any(part[start:]), "a part has gaps or trailing bytes")
    return spans


def _opened(place: int, block: Block, wanted: AbstractSet[str] | None) -> _Opened:
    header, columns = block.header, {}
    for group, part in block.parts.items():
        if wanted is None or not wanted.isdisjoint(_NAMES_OF[group]):
            spans = _spans(group, part)
            shape = sum([_SHAPE_BIT[name] for name in spans])
            _require(shape == header.shape & SHAPE_OF[group], "a part does not hold the digests that the shape names")
            if wanted is None and group == EXISTENCE:
                _require(spans.keys() >= _EXISTENCE_COLUMNS, "kind, seq or entry_id is missing")
            columns.update(spans)
    if wanted is not None:
        columns = {name: stored for name, stored in columns.items() if name in wanted}
    return _Opened(
        place,
        block,
        columns,
        sum([unpacked_bytes(COLUMNS[name], stored, header.count) for name, stored in columns.items()]),
    )


def _together(gathered: Sequence[_Opened]) -> Iterator[Together]:
    alike: dict[int, list[_Opened]] = {}
    for opened in gathered:
        alike.setdefault(sum([_SHAPE_BIT[name] for name in opened.columns]), []).append(opened)
    for members in alike.values():
        offsets = offsets_of(np.array([opened.block.header.count for opened in members], np.int64))
        names = dict.fromkeys(chain.from_iterable(opened.columns for opened in members))
        columns = {
            name: decode_column(COLUMNS[name], [opened.columns.get(name) for opened in members], offsets)
            for name in COLUMNS
            if name in names
        }
        rows = Rows(int(offsets[-1]), columns)
        headers = [opened.block.header for opened in members]
        _check_rows(rows, offsets, _EXISTENCE_COLUMNS & columns.keys())
        _check_ends(rows, offsets, headers)
        _check_removals(rows, offsets, [header.label for header in headers])
        yield Together(
            tuple(opened.block for opened in members), tuple(opened.place for opened in members), offsets, rows
        )


def _inspect_part(block: Block, part: PartHeader) -> dict[str, object]:
    described: dict[str, object] = {
        "group": GROUP_NAMES[part.group],
        "stored_bytes": part.stored_bytes,
        "sha256": part.sha256.hex(),
        "present": part.group in block.parts,
    }
    if part.group in block.parts:
        described["columns"] = [
            {"name": name, "encoding": _encoding_name(stored.encoding), "bytes": len(stored.payload)}
            for name, stored in _spans(part.group, block.parts[part.group]).items()
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


def _check_rows(rows: Rows, offsets: Index, names: AbstractSet[str]) -> None:
    """The rules on single columns, for those of kind, seq and entry_id that are asked for."""
    for name in names:
        _require(name in rows.columns, f"the column {name} is missing")
    if "kind" in names:
        kind = rows.ints("kind")
        _require(bool(((kind >= 1) & (kind <= 3)).all()), "a change of unknown kind")
    if "entry_id" in names:
        _require(bool(rows.ints("entry_id").all()), "an entry id is 0")
    if "seq" in names:
        seq = rows.ints("seq")
        ascends = seq[1:] > seq[:-1]
        ascends[offsets[1:-1] - 1] = True  # from one block to the next it need not
        _require(bool(ascends.all()), "seq does not ascend")


def _check_ends(rows: Rows, offsets: Index, headers: Sequence[BlockHeader]) -> None:
    if "seq" in rows.columns:
        seq = rows.ints("seq")
        ends = zip(seq.take(offsets[:-1]).tolist(), seq.take(offsets[1:] - 1).tolist(), strict=True)
        named = [(header.first_seq, header.last_seq) for header in headers]
        _require(list(ends) == named, "the first or last seq is not that of the header")


def _check_removals(rows: Rows, offsets: Index, labels: Sequence[int]) -> None:
    if "kind" in rows.columns:
        for at in [at for at, label in enumerate(labels) if label == REMOVALS]:
            kind = rows.ints("kind")[offsets[at] : offsets[at + 1]]
            _require(bool((kind != ChangeKind.ASSERT).all()), "an assert among removals")


def _require(condition: object, what: str) -> None:
    if not condition:
        raise MalformedError(f"block: {what}")
