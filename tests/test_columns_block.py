"""gateway/columns/block.py and encodings.py."""

import io
import re
import struct
from hashlib import sha256
from itertools import chain, combinations
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from columns_builders import LABEL_DIGEST, SET, block_of, rich, salts, sample
from gateway.columns import Block, Rows, concat, cut, decode, encode_block, inspect, parse_block, resliced
from gateway.columns.block import (
    DIGEST_CONTEXT,
    NO_LABEL,
    REMOVALS,
    BlockHeader,
    PartHeader,
    Stretch,
    decode_together,
    encode_blocks,
    parse_header,
)
from gateway.columns.encodings import MAX_TEXT_COLUMN_BYTES, Encoding, Stored, decode_column, encode_column
from gateway.columns.rows import COLUMNS, GROUP_CODES, GROUP_NAMES, LOCAL_GROUP
from gateway.errors import DeniedError, GatewayError, MalformedError, TooLargeError, VerificationError
from gateway.model import ENTRY_GROUPS, FieldGroup

VECTORS = Path(__file__).parent / "vectors" / "block"
BUDGET = 64 << 20
u64 = st.one_of(st.integers(0, (1 << 64) - 1), st.integers(0, 300))


def framed(block: Block) -> bytes:
    sink = io.BytesIO()
    block.dump(sink)
    return sink.getvalue()


def parsed(raw: bytes, max_bytes: int = BUDGET) -> Block:
    return parse_block(io.BytesIO(raw), max_bytes=max_bytes)


def with_part(block: Block, group: int, part: bytes) -> Block:
    """The block with another part under a header that names it: what a hostile writer may sign."""
    parts = {**block.parts, group: part}
    headers = tuple(PartHeader(code, len(data), sha256(data).digest()) for code, data in sorted(parts.items()))
    h = block.header
    header = BlockHeader(
        h.set_name, h.epoch, h.label, h.label_digest, h.count, h.shape, h.first_seq, h.last_seq, headers
    )
    return Block(header, parts)


def part_of(*columns: tuple[int, int, bytes], tail: bytes = b"") -> bytes:
    directory = b"".join(struct.pack("<BBI", code, encoding, len(data)) for code, encoding, data in columns)
    return bytes(16) + bytes([len(columns)]) + directory + b"".join(data for _, _, data in columns) + tail


# Round trips


@pytest.mark.parametrize("n", [1, 2, 3, 50, 3000])
def test_decoding_gives_back_what_was_encoded(n):
    rows = rich(n)
    block = block_of(rows)
    assert decode(block).equals(rows)
    assert framed(parsed(framed(block))) == framed(block)
    assert parsed(framed(block)).digest == block.digest


def test_decode_unpacks_only_the_columns_asked_for():
    rows = decode(block_of(rich(10)), ["sha256", "seq"])
    assert set(rows.columns) == {"sha256", "seq"}


def test_withheld_columns_are_absent_after_decoding():
    rows = decode(block_of(rich(10)).project([FieldGroup.EXISTENCE]), ["sha256", "entry_id"])
    assert set(rows.columns) == {"entry_id"}


def encoded(name: str, *pieces: list[int]) -> list[tuple[Encoding, bytes] | None]:
    """These pieces of an integer column as they would be stored."""
    offsets = np.cumsum([0, *map(len, pieces)])
    return encode_column(COLUMNS[name], np.concatenate([np.array(piece, np.uint64) for piece in pieces]), offsets)


def survives(name: str, *pieces: list[int]) -> bool:
    """Whether the pieces come back, and only those of zeros are left out."""
    found = encoded(name, *pieces)
    assert [piece is None for piece in found] == [not any(piece) for piece in pieces]
    stored = [piece and Stored(piece[0], memoryview(piece[1])) for piece in found]
    decoded = decode_column(COLUMNS[name], stored, np.cumsum([0, *map(len, pieces)]))
    return decoded.tolist() == list(chain.from_iterable(pieces))


@given(st.lists(st.lists(u64, min_size=1, max_size=20), min_size=1, max_size=4))
@settings(max_examples=200)
def test_integers_survive_their_encoding(pieces):
    assert survives("seen", *map(list, pieces))


runs = st.tuples(st.integers(0, (1 << 64) - 1), st.integers(-(1 << 63), (1 << 63) - 1), st.integers(1, 9))


@given(st.lists(runs, min_size=1, max_size=4))
@settings(max_examples=150)
def test_runs_that_wrap_around_survive_their_encoding(runs):
    assert survives("status_at", *([(first + step * i) % (1 << 64) for i in range(n)] for first, step, n in runs))


def test_a_piece_is_encoded_as_if_it_stood_alone():
    pieces = [[5] * 9, list(range(7, 107)), [0, 0], [9, 7, 5], [1, 9, 3, 200, 7], [i * i % 1000 for i in range(2000)]]
    found = encoded("seen", *pieces)
    assert found == [encoded("seen", piece)[0] for piece in pieces]
    words = (Encoding.CONSTANT, Encoding.LINEAR, None, Encoding.LINEAR, Encoding.PACKED, Encoding.PACKED_ZSTD)
    assert tuple(piece and piece[0] for piece in found) == words


@given(st.lists(st.text(st.characters(min_codepoint=0x20, exclude_categories=["Cs", "Cc"]), max_size=20), min_size=1))
@settings(max_examples=100)
def test_texts_survive_their_encoding(values):
    rows = sample(len(values), series=values)
    assert decode(block_of(rows)).values("series") == values


@pytest.mark.parametrize(
    ("values", "encoding"),
    [
        ([5] * 9, Encoding.CONSTANT),
        (range(7, 107), Encoding.LINEAR),
        ([1, 9, 3, 200, 7], Encoding.PACKED),
        ([i * i % 1000 for i in range(2000)], Encoding.PACKED_ZSTD),
    ],
)
def test_each_column_takes_its_smallest_encoding(values, encoding):
    [found] = encoded("seen", list(values))
    assert found[0] is encoding


def test_reference_shape_costs_at_most_84_bytes_a_change_with_50_labels_in_10_000():
    rng = np.random.default_rng(11)
    bytes_sent, first = 0, 1
    for label in range(1, 51):
        n = 200
        rows = Rows.of(
            n,
            {
                "kind": [1] * n,
                "seq": range(first, first + n),
                "entry_id": range((1 << 48) + first, (1 << 48) + first + n),
                "version": [1] * n,
                "changed_at": [1_790_000_000] * n,
                "seen": np.cumsum(rng.integers(0, 60, n)).astype(np.uint64) + np.uint64(1_750_000_000),
                "media_type": ["image/jpeg"] * n,
                **{name: rng.integers(0, 256, (n, width), np.uint8) for name, width in WIDTHS},
            },
        )
        bytes_sent += block_of(rows, label=label).project(ENTRY_GROUPS).framed_bytes
        first += n
    assert bytes_sent / 10_000 <= 84


WIDTHS = (("md5", 16), ("sha256", 32), ("pdq", 32))


def test_cut_pieces_fit_blocks_and_join_to_the_whole():
    rows = rich(100)
    pieces = list(cut(rows, max_rows=33))
    assert [piece.n for piece in pieces] == [33, 33, 33, 1]
    long = sample(9, digests=("md5", "vpdq"), vpdq=["v" * (MAX_TEXT_COLUMN_BYTES // 4 - 1)] * 9)
    pieces = list(cut(long))
    assert [piece.n for piece in pieces] == [4, 4, 1]
    assert sum(block_of(piece).header.count for piece in pieces) == 9


# Many blocks at once


def test_blocks_made_together_are_those_made_one_by_one():
    rows = concat([rich(5), rich(1, first=6), rich(40, first=7)])
    salt, stretches = (
        salts(),
        [Stretch(3, LABEL_DIGEST, 0, 5), Stretch(4, LABEL_DIGEST, 5, 6), Stretch(3, LABEL_DIGEST, 6, 46)],
    )
    together = encode_blocks(set_name=SET, epoch=1, rows=rows, stretches=stretches, salt=salts())
    one_by_one = [
        encode_block(
            set_name=SET,
            epoch=1,
            label=one.label,
            label_digest=one.label_digest,
            rows=rows.slice(one.start, one.stop),
            salt=salt,
        )
        for one in stretches
    ]
    assert together == one_by_one


def test_stretches_that_leave_rows_out_or_overlap_are_refused():
    for stretches in ([(0, 2)], [(1, 3)], [(0, 2), (1, 3)], [(0, 2), (2, 2), (2, 3)]):
        made = [Stretch(3, LABEL_DIGEST, start, stop) for start, stop in stretches]
        with pytest.raises(MalformedError):
            encode_blocks(set_name=SET, epoch=1, rows=sample(3), stretches=made, salt=salts())


def mixed_blocks() -> list[Block]:
    """Blocks of several shapes, lengths and rights, some of them with columns that others leave out."""
    everything, digests = [FieldGroup.EXISTENCE, *FieldGroup], [FieldGroup.EXISTENCE, FieldGroup.CRYPTOGRAPHIC_DIGESTS]
    made = [
        block_of(rich(20)),
        block_of(sample(3, first=21)),
        block_of(sample(1, first=24, seen=[5])),
        block_of(sample(2, first=25, digests=())),
        block_of(sample(4, first=27, series=["a", "", "b", "a"], pdq_quality=[9, 7, 5, 200])),
        block_of(rich(6, first=31)),
    ]
    return [block.project(everything if at % 2 else digests) for at, block in enumerate([*made, *made])]


@pytest.mark.parametrize("unpacked", [1, 5_000, 1 << 24])
@pytest.mark.parametrize("columns", [None, ["seq", "sha256", "series"]])
def test_rows_decoded_together_are_those_decoded_one_by_one(monkeypatch, unpacked, columns):
    monkeypatch.setattr("gateway.columns.block.UNPACKED_AT_ONCE", unpacked)
    blocks, found = mixed_blocks(), {}
    for together in decode_together(blocks, columns):
        assert unpacked > 1 or len(together.blocks) == 1
        for place, (block, rows) in zip(together.places, together.each(), strict=True):
            assert block is blocks[place]
            found[place] = rows
    assert len(found) == len(blocks)
    assert all(found[place].equals(decode(block, columns)) for place, block in enumerate(blocks))


def test_some_of_the_blocks_decoded_together_keep_their_rows():
    [together] = decode_together([block_of(sample(2)), block_of(sample(1, first=3)), block_of(sample(4, first=4))])
    some = together.only([True, False, True])
    assert some.places == (0, 2)
    assert [rows.values("seq") for _, rows in some.each()] == [[1, 2], [4, 5, 6, 7]]


def test_one_damaged_block_among_many_is_refused():
    good = block_of(sample(3))
    for part in (
        part_of(
            (1, 1, b"\x01"), (2, 2, struct.pack("<Qq", 1, 1)), (3, 2, struct.pack("<Qq", 0, 1))
        ),  # an entry id is 0
        part_of((1, 1, b"\x04"), (2, 2, struct.pack("<Qq", 1, 1)), (3, 2, struct.pack("<Qq", 1, 1))),  # unknown kind
        part_of(
            (1, 1, b"\x01"), (2, 2, struct.pack("<Qq", 1, 2)), (3, 2, struct.pack("<Qq", 1, 1))
        ),  # seq ends elsewhere
        part_of((1, 1, b"\x01"), (2, 1, b"\x01"), (3, 2, struct.pack("<Qq", 1, 1))),  # seq does not ascend
    ):
        with pytest.raises(MalformedError):
            list(decode_together([good, with_part(good, 1, part), good]))


# Projection


def test_every_projection_keeps_header_and_digest_and_drops_the_local_part():
    block = block_of(rich(20))
    assert LOCAL_GROUP in block.parts
    for size in range(len(ENTRY_GROUPS)):
        for more in combinations(ENTRY_GROUPS[1:], size):
            projected = block.project([FieldGroup.EXISTENCE, *more])
            assert projected.digest == block.digest
            assert projected.groups == {FieldGroup.EXISTENCE, *more}
            assert LOCAL_GROUP not in projected.parts
            again = parsed(framed(projected))
            assert again.parts == projected.parts
            assert "source_ref" not in decode(again).columns


def test_nothing_leaves_without_existence():
    with pytest.raises(DeniedError):
        block_of(rich(3)).project([FieldGroup.CRYPTOGRAPHIC_DIGESTS])


def test_withheld_values_are_nowhere_in_the_bytes():
    rows = rich(5)
    raw = framed(block_of(rows).project([FieldGroup.EXISTENCE, FieldGroup.CRYPTOGRAPHIC_DIGESTS]))
    assert rows.values("md5")[0] in raw
    for name in ("pdq", "photodna"):
        assert all(value not in raw for value in rows.values(name))
    assert b"Nordlicht" not in raw
    assert b"2026/" not in raw


def test_salts_hide_equal_parts_from_each_other():
    salt = salts()
    one, two = (
        encode_block(set_name=SET, epoch=1, label=1, label_digest=LABEL_DIGEST, rows=sample(2), salt=salt)
        for _ in range(2)
    )
    assert one.digest != two.digest
    assert not {part.sha256 for part in one.header.parts} & {part.sha256 for part in two.header.parts}


def test_size_of_a_free_text_part_does_not_tell_the_length_of_a_reference():
    sizes = {
        len(block_of(sample(1, victim_ref=["v" * length], source_ref=["s" * length])).parts[group])
        for length in range(1, 30)
        for group in (GROUP_CODES[FieldGroup.VICTIM_STATUS], LOCAL_GROUP)
    }
    assert sizes == {64}


def test_reslicing_keeps_chosen_rows_of_the_parts_that_are_here():
    rows = rich(12)
    even = rows.ints("seq") % np.uint64(2) == 0
    block = block_of(rows).project([FieldGroup.EXISTENCE, FieldGroup.CRYPTOGRAPHIC_DIGESTS])
    small = resliced(block, even, salts())
    assert decode(small).values("sha512") == rows.take(even).values("sha512")
    assert small.groups == block.groups
    assert (small.header.label, small.header.label_digest) == (3, LABEL_DIGEST)


# What no writer may make


@pytest.mark.parametrize(
    "columns",
    [
        {"kind": [1, 0]},
        {"kind": [1, 4]},
        {"seq": [2, 2]},
        {"seq": [2, 1]},
        {"seq": [0, 1]},
        {"entry_id": [1, 0]},
        {"series": ["line\nbreak", ""]},
        {"series": ["\x1b[2J", ""]},
        {"series": ["x" * 1025, ""]},
        {"ssdeep": ["3:a:b", ""]},
    ],
)
def test_rows_that_break_a_rule_are_not_encoded(columns):
    with pytest.raises(MalformedError):
        block_of(sample(2, **columns))


def test_rows_without_existence_columns_are_not_encoded():
    with pytest.raises(MalformedError):
        block_of(sample(2).select(["seq", "entry_id", "md5"]))
    with pytest.raises(MalformedError):
        block_of(sample(0))


def test_more_rows_or_text_than_a_block_takes_are_refused_as_too_large():
    with pytest.raises(TooLargeError):
        block_of(Rows(65_537, {}))
    with pytest.raises(TooLargeError):
        block_of(sample(5, digests=("vpdq",), vpdq=["v" * (1 << 20)] * 5))


def test_removals_carry_no_digest_and_no_assert():
    removals = sample(2, digests=(), kind=[2, 3])
    assert decode(block_of(removals, label=REMOVALS, label_digest=NO_LABEL)).values("kind") == [2, 3]
    for rows, digest in (
        (sample(2, kind=[2, 3]), NO_LABEL),
        (sample(2, digests=()), NO_LABEL),
        (removals, LABEL_DIGEST),
    ):
        with pytest.raises(MalformedError):
            block_of(rows, label=REMOVALS, label_digest=digest)


@pytest.mark.parametrize("fields", [{"set_name": "XA-NCVI"}, {"epoch": 65_536}, {"label": 4097}, {"label_digest": b""}])
def test_header_fields_out_of_range_are_refused(fields):
    good = {"set_name": SET, "epoch": 1, "label": 1, "label_digest": LABEL_DIGEST}
    with pytest.raises(MalformedError):
        encode_block(**{**good, **fields}, rows=sample(1), salt=salts())


# What a reader refuses


@pytest.mark.parametrize("path", sorted(VECTORS.glob("*.txt")), ids=lambda path: path.stem)
def test_vector_has_its_expected_outcome(path):
    head, _, body = path.read_text().partition("\n\n")
    fields = dict(line.split(": ", 1) for line in head.splitlines())
    outcome = {"ok": None, "malformed": MalformedError, "verification": VerificationError, "too-large": TooLargeError}
    expected = outcome[fields["expect"]]
    source = io.BytesIO(bytes.fromhex(body))
    if expected is None:
        block = parse_block(source, max_bytes=BUDGET)
        assert block.digest.hex() == fields["digest"]
        assert " ".join(map(str, decode(block).values("seq"))) == fields["seq"]
        assert not source.read()
    else:
        with pytest.raises(expected) as caught:
            decode(parse_block(source, max_bytes=int(fields.get("max-bytes", BUDGET))))
        assert type(caught.value) is expected


def test_any_flipped_bit_is_refused_or_names_another_block():
    block = block_of(rich(4))
    raw = framed(block.project([FieldGroup.EXISTENCE, FieldGroup.SERIES]))
    for at in range(len(raw)):
        for bit in (1, 128):
            flipped = bytearray(raw)
            flipped[at] ^= bit
            try:
                other = parsed(bytes(flipped))
                decode(other)
            except (MalformedError, VerificationError):
                continue
            # Only fields that a block cannot check by itself: they change the digest that the signature covers.
            assert other.digest != block.digest


def test_every_truncation_is_refused():
    raw = framed(block_of(sample(3, series=["a", "b", "c"])))
    for size in range(len(raw)):
        with pytest.raises(MalformedError):
            parsed(raw[:size])


def test_streams_that_give_single_bytes_are_read():
    class Drip(io.RawIOBase):
        def __init__(self, raw):
            self.raw = io.BytesIO(raw)

        def read(self, size=-1):
            return self.raw.read(min(size, 1))

    block = block_of(sample(3))
    assert parse_block(Drip(framed(block)), max_bytes=BUDGET).digest == block.digest


def test_blocks_follow_each_other_in_a_stream():
    blocks = [block_of(sample(3)), block_of(sample(2, first=4))]
    source = io.BytesIO(b"".join(map(framed, blocks)))
    assert [parse_block(source, max_bytes=BUDGET).digest for _ in blocks] == [block.digest for block in blocks]


def test_block_longer_than_the_budget_is_refused_before_its_parts_are_read():
    raw = framed(block_of(sample(50)))
    with pytest.raises(TooLargeError):
        parsed(raw[:400], max_bytes=len(raw) - 1)
    assert parsed(raw, max_bytes=len(raw)).header.count == 50


def test_mask_that_names_unknown_parts_is_refused():
    block = block_of(sample(2))
    head = block.header.encode()
    with pytest.raises(MalformedError):
        parsed(head + struct.pack("<H", 1 << 9) + b"".join(block.parts.values()))


SERIES = GROUP_CODES[FieldGroup.SERIES]
SERIES_CODE = COLUMNS["series"].code
EXISTENCE_CODES = {name: COLUMNS[name].code for name in ("kind", "seq", "entry_id", "version", "seen")}


def padded(part: bytes) -> bytes:
    return part + bytes(-len(part) % 64)


def text_payload(lengths: bytes, text: bytes, *, width: int = 1, total: int | None = None) -> bytes:
    return struct.pack("<BI", width, len(text) if total is None else total) + lengths + text


def zstd(raw: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(raw)


BOMB = zstd(bytes(64 << 20))
SERIES_PARTS = {
    "no columns": padded(part_of()),
    "column of another group": padded(part_of((COLUMNS["victim_ref"].code, 1, b"x"))),
    "unknown column": padded(part_of((99, 1, b"x"))),
    "column twice": padded(part_of((SERIES_CODE, 1, b"x"), (SERIES_CODE, 1, b"x"))),
    "unknown encoding": padded(part_of((SERIES_CODE, 7, b"x"))),
    "encoding of another kind": padded(part_of((SERIES_CODE, 0, b"xx"))),
    "not padded": part_of((SERIES_CODE, 1, b"x")),
    "padded twice": padded(part_of((SERIES_CODE, 1, b"x"))) + bytes(64),
    "padding not zero": padded(part_of((SERIES_CODE, 1, b"x")))[:-1] + b"\1",
    "constant empty": padded(part_of((SERIES_CODE, 1, b""))),
    "constant too long": padded(part_of((SERIES_CODE, 1, b"x" * 1025))),
    "constant not UTF-8": padded(part_of((SERIES_CODE, 1, b"\xff"))),
    "constant with escape": padded(part_of((SERIES_CODE, 1, b"\x1b"))),
    "text ends early": padded(part_of((SERIES_CODE, 6, b"\1\0\0"))),
    "width 0": padded(part_of((SERIES_CODE, 6, text_payload(b"", b"ab", width=0)))),
    "width 5": padded(part_of((SERIES_CODE, 6, text_payload(b"\1\1" + bytes(8), b"ab", width=5)))),
    "lengths short of text": padded(part_of((SERIES_CODE, 6, text_payload(b"\1\0", b"ab")))),
    "lengths beyond text": padded(part_of((SERIES_CODE, 6, text_payload(b"\1\2", b"ab")))),
    "total not the text": padded(part_of((SERIES_CODE, 6, text_payload(b"\1\1", b"ab", total=3)))),
    "total beyond bound": padded(
        part_of((SERIES_CODE, 6, text_payload(b"\1\1", b"ab", total=MAX_TEXT_COLUMN_BYTES + 1)))
    ),
    "split character": padded(part_of((SERIES_CODE, 6, text_payload(b"\1\1", "é".encode())))),
    "zstd garbage": padded(part_of((SERIES_CODE, 4, text_payload(b"", b"no zstd", total=2)))),
    "zstd other size": padded(part_of((SERIES_CODE, 4, text_payload(b"", zstd(b"\1\1abc"), total=2)))),
    "zstd bomb": padded(part_of((SERIES_CODE, 4, text_payload(b"", BOMB, total=2)))),
    "zstd bomb that states itself": padded(part_of((SERIES_CODE, 4, text_payload(b"", BOMB, total=(64 << 20) - 2)))),
    "zstd trailing bytes": padded(part_of((SERIES_CODE, 4, text_payload(b"", zstd(b"\1\1ab") + b"\0", total=2)))),
    "zstd second frame": padded(part_of((SERIES_CODE, 4, text_payload(b"", zstd(b"\1\1ab") + zstd(b""), total=2)))),
    "zstd cut": padded(part_of((SERIES_CODE, 4, text_payload(b"", zstd(b"\1\1ab")[:-1], total=2)))),
}


@pytest.mark.parametrize("name", SERIES_PARTS)
def test_hostile_text_part_is_refused(name):
    block = with_part(block_of(sample(2, series=["a", "b"])), SERIES, SERIES_PARTS[name])
    with pytest.raises(MalformedError):
        decode(parsed(framed(block)))


def test_honest_text_part_of_the_same_make_is_read():
    part = padded(part_of((SERIES_CODE, 4, text_payload(b"", zstd(b"\1\1ab"), total=2))))
    assert decode(with_part(block_of(sample(2, series=["a", "b"])), SERIES, part)).values("series") == ["a", "b"]


def existence(**changed: tuple[int, bytes]) -> bytes:
    """An existence part of two rows, with the given (encoding, payload) of some columns; b"" leaves one out."""
    columns = {
        "kind": (1, b"\1"),
        "seq": (2, struct.pack("<Qq", 1, 1)),
        "entry_id": (2, struct.pack("<Qq", 1 << 48, 1)),
        "version": (1, b"\1"),
        **changed,
    }
    return part_of(*((EXISTENCE_CODES[name], *found) for name, found in columns.items() if found[1]))


def packed(which: int, width: int, base: int, planes: bytes) -> bytes:
    return struct.pack("<BBQ", which, width, base) + planes


EXISTENCE_PARTS = {
    "no kind": existence(kind=(1, b"")),
    "no seq": existence(seq=(1, b"")),
    "no entry id": existence(entry_id=(1, b"")),
    "kind 0": existence(kind=(5, packed(0, 1, 0, b"\0\1"))),
    "kind 4": existence(kind=(1, b"\4")),
    "kind beyond a byte": existence(kind=(1, b"\1\1")),
    "entry id 0": existence(entry_id=(5, packed(0, 1, 0, b"\0\1"))),
    "seq falls": existence(seq=(2, struct.pack("<Qq", 2, -1))),
    "seq stands": existence(seq=(1, b"\1")),
    "seq starts elsewhere": existence(seq=(2, struct.pack("<Qq", 2, 1))),
    "seq ends elsewhere": existence(seq=(2, struct.pack("<Qq", 1, 2))),
    "linear leaves its range": existence(entry_id=(2, struct.pack("<Qq", (1 << 64) - 1, 1))),
    "linear below zero": existence(entry_id=(2, struct.pack("<Qq", 1, -2))),
    "linear of 15 octets": existence(entry_id=(2, bytes(15))),
    "constant of no octets": existence()[:17] + existence()[17:],
    "constant with a zero on top": existence(version=(1, b"\1\0")),
    "constant of 9 octets": existence(version=(1, b"\1" * 9)),
    "packed with filter 2": existence(seen=(5, packed(2, 1, 0, b"\0\1"))),
    "packed of width 0": existence(seen=(5, packed(0, 0, 0, b""))),
    "packed of width 9": existence(seen=(5, packed(0, 9, 0, bytes(18)))),
    "packed too short": existence(seen=(5, packed(0, 1, 0, b"\0"))),
    "packed too long": existence(seen=(5, packed(1, 1, 0, b"\0\1"))),
    "packed without a head": existence(seen=(5, b"\0\1")),
    "packed zstd of another size": existence(seen=(3, packed(0, 1, 0, zstd(b"\0\1\2")))),
    "raw integers": existence(seen=(0, bytes(16))),
    "trailing bytes": existence() + b"\0",
}
EXISTENCE_PARTS.pop("constant of no octets")


@pytest.mark.parametrize("name", EXISTENCE_PARTS)
def test_hostile_existence_part_is_refused(name):
    block = with_part(block_of(sample(2, digests=())), 1, EXISTENCE_PARTS[name])
    with pytest.raises(MalformedError):
        decode(parsed(framed(block)))


def test_honest_existence_part_of_the_same_make_is_read():
    block = with_part(block_of(sample(2, digests=())), 1, existence(seen=(5, packed(1, 1, 7, b"\1"))))
    assert decode(parsed(framed(block))).values("seen") == [7, 6]


def test_seq_that_stands_still_between_its_ends_is_refused():
    seq = (5, packed(0, 1, 1, b"\0\0\2"))  # 1, 1, 3
    with pytest.raises(MalformedError):
        decode(parsed(framed(with_part(block_of(sample(3, digests=())), 1, existence(seq=seq)))))
    with pytest.raises(MalformedError):
        block_of(sample(4, seq=[1, 3, 2, 4]))


@pytest.mark.parametrize("codes", [(64, 64), (66, 64)])
def test_columns_of_a_part_in_another_order_are_refused(codes):
    block = block_of(sample(2, victim_ref=["a", "b"], status_owner=["c", "d"]))
    part = padded(part_of(*((code, 1, b"x") for code in codes)))
    with pytest.raises(MalformedError):
        decode(with_part(block, GROUP_CODES[FieldGroup.VICTIM_STATUS], part))


def test_digests_must_be_those_of_the_shape():
    block = block_of(sample(2, digests=("md5", "sha1")))
    md5_only = part_of((COLUMNS["md5"].code, 0, bytes(32)))
    with pytest.raises(MalformedError):
        decode(with_part(block, 2, md5_only))
    with pytest.raises(MalformedError):
        decode(with_part(block_of(sample(2, digests=())), 2, md5_only))
    header = block.header
    with pytest.raises(MalformedError):  # a shape whose part the header does not even name
        BlockHeader(SET, 1, 1, LABEL_DIGEST, 2, header.shape, 1, 2, header.parts[:1])


def test_exchanged_part_is_found_before_it_is_unpacked():
    one, two = block_of(sample(5)), block_of(sample(5, first=6))
    raw = framed(Block(one.header, {**one.parts, 2: two.parts[2]}))
    with pytest.raises(VerificationError):
        parsed(raw)


@given(st.binary(max_size=200))
@settings(max_examples=200)
def test_arbitrary_bytes_are_refused_in_our_words(raw):
    for source in (raw, b"HBK1" + raw):
        with pytest.raises(GatewayError):
            parsed(source)


@given(st.data())
@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
def test_arbitrary_parts_are_refused_in_our_words_or_decode(data):
    block = block_of(rich(3))
    group = data.draw(st.sampled_from(sorted(block.parts)))
    part = bytearray(block.parts[group])
    for _ in range(data.draw(st.integers(1, 4))):
        part[data.draw(st.integers(16, len(part) - 1))] = data.draw(st.integers(0, 255))
    try:
        rows = decode(with_part(block, group, bytes(part)))
    except MalformedError:
        return
    assert rows.n == 3


def test_header_that_is_written_in_another_way_is_refused():
    raw = bytearray(block_of(sample(2)).header.encode())
    raw[10] = 1  # the reserved field
    with pytest.raises(MalformedError):
        parse_header(io.BytesIO(bytes(raw)))


def test_digest_is_taken_over_the_header_with_its_context():
    block = block_of(sample(2))
    assert block.digest == sha256(DIGEST_CONTEXT + block.header.encode()).digest()


def test_inspection_shows_structure_and_no_value():
    block = block_of(rich(9))
    shown = inspect(block.project([FieldGroup.EXISTENCE, FieldGroup.SERIES]))
    assert shown["digest"] == block.digest.hex()
    assert shown["changes"] == 9
    present = {part["group"]: part["present"] for part in shown["parts"]}
    assert present == {name: name in ("existence", "series") for name in GROUP_NAMES.values()}
    assert shown["parts"][0]["columns"][1] == {"name": "seq", "encoding": "linear", "bytes": 16}
    assert "Nordlicht" not in str(shown)


def test_contract_lists_the_columns_of_the_registry():
    lines = (Path(__file__).parents[1] / "contracts" / "hash-block-1.md").read_text().splitlines()
    table = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in lines if re.match(r"\| \d+ \| [a-z]", line)
    ]
    listed = [row for row in table if len(row) == 6]
    assert listed == [
        [
            str(c.code),
            c.name,
            f"{c.group} {GROUP_NAMES[c.group]}",
            str(c.kind),
            str(c.width),
            f"{c.shape_bit}" * c.is_digest,
        ]
        for c in COLUMNS.values()
    ]


def test_contract_example_is_the_vector():
    contract = (Path(__file__).parents[1] / "contracts" / "hash-block-1.md").read_text()
    block = parsed(bytes.fromhex((VECTORS / "ok-smallest.txt").read_text().partition("\n\n")[2]))
    assert block.digest.hex() in contract
    assert all(value.hex() in contract for value in decode(block).values("md5"))
