"""Marks: the CMAC of every row at once is the CMAC of each row, and the index finds exactly what is listed."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import algorithms
from cryptography.hazmat.primitives.cmac import CMAC
from hypothesis import given
from hypothesis import strategies as st

from gateway.columns.marks import MARK_BYTES, MarkIndex, cmac, mask_of, packed_marks
from gateway.columns.rows import Octets, Text, integers
from gateway.crypto.cipher import BlockCipher
from gateway.errors import MalformedError

KEY = bytes(range(32))
ENCRYPT = BlockCipher(KEY).encrypt


def column(values: list[bytes]) -> Octets:
    return np.frombuffer(b"".join(values), np.uint8).reshape(len(values), -1)


def one_by_one(values: list[bytes], key: bytes = KEY) -> list[bytes]:
    """The definition, from another implementation."""
    found = []
    for value in values:
        mac = CMAC(algorithms.AES(key))
        mac.update(value)
        found.append(mac.finalize())
    return found


@given(st.integers(1, 150), st.integers(0, 5), st.binary(min_size=150 * 5, max_size=150 * 5))
def test_the_marks_of_a_column_are_the_macs_of_its_rows(width: int, n: int, octets: bytes) -> None:
    values = [octets[at * width : (at + 1) * width] for at in range(n)]
    marks = cmac(column(values) if values else np.zeros((0, width), np.uint8), ENCRYPT)
    assert [one.tobytes() for one in marks] == one_by_one(values)


def test_a_long_column_is_marked_piece_by_piece() -> None:
    values = [hashlib.sha256(bytes([n % 251, n // 251])).digest() for n in range(9000)]
    marks = cmac(column(values), ENCRYPT)
    for at in (0, 1, 8191, 8192, 8999):
        assert marks[at].tobytes() == one_by_one([values[at]])[0]


def test_of_a_text_the_sha256_is_marked() -> None:
    texts = ["3:AXGBicFlgVNhBGcL6wCrFQEv:AXGHsNhxLsr2C", "", "ä" * 1000]
    marks = cmac(Text.of(texts), ENCRYPT)
    assert [one.tobytes() for one in marks] == one_by_one([hashlib.sha256(text.encode()).digest() for text in texts])


# RFC 4493 section 4 and SP 800-38B D.3: AES-256.
@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("6bc1bee22e409f96e93d7e117393172a", "28a7023f452e8f82bd4bf28d8c37c35c"),
        (
            "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e5130c81c46a35ce411",
            "aaf3d8f1de5640c232f5b169b9c911e6",
        ),
    ],
)
def test_the_examples_of_the_standard_hold(message: str, expected: str) -> None:
    key = bytes.fromhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")
    assert cmac(column([bytes.fromhex(message)]), BlockCipher(key).encrypt)[0].tobytes().hex() == expected


def test_a_cipher_takes_whole_blocks_under_a_key_of_256_bits() -> None:
    with pytest.raises(MalformedError):
        BlockCipher(bytes(16))
    with pytest.raises(MalformedError):
        BlockCipher(KEY).encrypt(bytes(17))
    assert KEY.hex() not in repr(BlockCipher(KEY))


MARKS = st.lists(
    # Few first halves, so that many are equal while the second ones differ.
    st.tuples(st.integers(0, 3), st.integers(0, 3)).map(lambda pair: bytes([pair[0]] * 8 + [pair[1]] * 8)),
    max_size=12,
)


@given(st.lists(MARKS, max_size=3), MARKS)
def test_the_index_finds_every_listed_mark_with_each_of_its_tags(listed: list[list[bytes]], asked: list[bytes]) -> None:
    index, known, tag = MarkIndex(), [], 0
    for some in listed:
        tags = list(range(tag, tag + len(some)))
        index.add(packed_marks(some), integers(tags))
        known += zip(some, tags, strict=True)
        tag += len(some)
    rows, tags = index.find(packed_marks(asked))
    expected = [(row, tag) for row, mark in enumerate(asked) for known_mark, tag in known if known_mark == mark]
    assert sorted(zip(rows.tolist(), tags.tolist(), strict=True)) == sorted(expected)
    assert rows.tolist() == sorted(rows.tolist())
    assert len(index) == len(known)


def test_marks_that_differ_in_one_bit_are_other_marks() -> None:
    mark = bytes(range(MARK_BYTES))
    index = MarkIndex()
    index.add(packed_marks([mark]), integers([7]))
    others = [bytes(b ^ (bit == 8 * at + k) << k for at, b in enumerate(mark) for k in [bit % 8]) for bit in range(128)]
    assert len(set(others)) == 128
    assert not len(index.find(packed_marks(others))[0])
    assert index.find(packed_marks([mark]))[1].tolist() == [7]


def test_a_mask_marks_the_rows_named() -> None:
    assert mask_of(4, [3, 0]).tolist() == [True, False, False, True]
    assert not mask_of(2, []).any()
