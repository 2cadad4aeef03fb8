"""Marks: keyed digests of digests, whole columns at once, and an index of those that are listed.

A mark is the AES-CMAC of a digest (NIST SP 800-38B, RFC 4493) under a secret key of its algorithm: 16 octets that only
the holder of the key can make, or compare with a digest. All messages of one key have one length, so a whole column
goes through the cipher at once: the first 16 octets of every row in one call, then the second ones, and so on. An HMAC
for each row would cost an import a third of its speed.

    cmac(octets, cipher.encrypt)     n × width octets -> n × 16
    MarkIndex().add(marks, tags)     then find(marks) -> which rows are listed, with the tags of each

Pure: the cipher is passed in (`crypto.cipher.BlockCipher.encrypt`). Of a text digest, which has no fixed length, the
SHA-256 is marked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from gateway.columns.rows import Index, Ints, Mask, Octets, Text

MARK_BYTES = 16
SHORT_MARKS_A_PART = 131_072  # of eight octets: a part of a megabyte
_CHUNK_ROWS = 8192  # keeps the scratch arrays of a step in the cache
_POLYNOMIAL = 0x87  # of GF(2^128), SP 800-38B 5.3
_TOP_BIT = 1 << 127
_MOST_BITS = 24  # of the table of `KnownMarks`: 16 MB
_PLACES_A_MARK = 8  # of the table: one row in eight, at most, is searched for in vain


def cmac(octets: Octets | Text, encrypt: Callable[[bytes], bytes]) -> Octets:
    """The marks of a column, n × 16.

    Args:
        encrypt: a 128-bit block cipher under the key of this column, over any number of blocks at once.
    """
    messages = _hashed(octets) if isinstance(octets, Text) else octets
    whole, last, mask = _shape(messages.shape[1], encrypt)
    marks = np.empty((len(messages), MARK_BYTES), np.uint8)
    for start in range(0, len(messages), _CHUNK_ROWS):
        chunk = messages[start : start + _CHUNK_ROWS]
        state: Octets = np.zeros((len(chunk), MARK_BYTES), np.uint8)
        for at in range(0, whole, MARK_BYTES):
            state = _encrypted(state ^ chunk[:, at : at + MARK_BYTES], encrypt)
        state = state ^ mask
        state[:, :last] ^= chunk[:, whole:]
        marks[start : start + len(chunk)] = _encrypted(state, encrypt)
    return marks


def _shape(width: int, encrypt: Callable[[bytes], bytes]) -> tuple[int, int, Octets]:
    """(octets before the last block, octets in it, what is added to it) for messages of this many octets."""
    whole = max(0, (width - 1) // MARK_BYTES * MARK_BYTES)
    last = width - whole
    # SP 800-38B 6.1: K1 for a full last block; K2 and a one bit behind the message for any other.
    subkey = _doubled(int.from_bytes(encrypt(bytes(MARK_BYTES)), "big"))
    if last < MARK_BYTES:
        subkey = _doubled(subkey) ^ 0x80 << 8 * (MARK_BYTES - 1 - last)
    return whole, last, np.frombuffer(subkey.to_bytes(MARK_BYTES, "big"), np.uint8)


def _doubled(value: int) -> int:
    return (value << 1 ^ (_POLYNOMIAL if value & _TOP_BIT else 0)) & (1 << 128) - 1


def _encrypted(blocks: Octets, encrypt: Callable[[bytes], bytes]) -> Octets:
    return np.frombuffer(encrypt(blocks.tobytes()), np.uint8).reshape(-1, MARK_BYTES)


def _hashed(texts: Text) -> Octets:
    digests = b"".join(hashlib.sha256(one).digest() for one in texts.encoded())
    return np.frombuffer(digests, np.uint8).reshape(-1, 32)


class MarkIndex:
    """Listed marks, each with a tag (an unsigned 64-bit number of the caller's). Exact; at most 40 octets a mark.

    Nearly nothing that is asked for is listed, so a table over the top bits turns nearly every row away in one step.
    """

    def __init__(self) -> None:
        self._bits = 1
        self._taken: Mask = np.zeros(2, np.bool_)  # by the top `_bits` bits: whether any mark listed begins so
        self._first: Ints = np.zeros(0, np.uint64)  # the first eight octets of each mark, ascending
        self._second: Ints = np.zeros(0, np.uint64)
        self._tags: Ints = np.zeros(0, np.uint64)

    def __len__(self) -> int:
        return len(self._tags)

    def add(self, marks: Octets, tags: Ints) -> None:
        """List more marks. The same one may stand under several tags."""
        halves = _halves(marks)
        first = np.concatenate([self._first, halves[:, 0]])
        order = np.argsort(first, kind="stable")
        self._first = first[order]
        self._second = np.concatenate([self._second, halves[:, 1]])[order]
        self._tags = np.concatenate([self._tags, tags])[order]
        self._bits = (_PLACES_A_MARK * len(self._tags)).bit_length()
        self._taken = np.zeros(1 << self._bits, np.bool_)
        self._taken[self._places(self._first)] = True

    def find(self, marks: Octets) -> tuple[Index, Ints]:
        """For each equal pair of a mark asked for and one listed: (row, tag), by ascending row."""
        halves = _halves(marks)
        near = np.flatnonzero(self._taken[self._places(halves[:, 0])])
        left = np.searchsorted(self._first, halves[near, 0], "left")
        counts = np.searchsorted(self._first, halves[near, 0], "right") - left
        rows = np.repeat(near, counts)
        places = np.repeat(left - np.cumsum(counts) + counts, counts) + np.arange(len(rows))
        same = self._second[places] == halves[rows, 1]
        return rows[same].astype(np.int64), self._tags[places[same]]

    def _places(self, first: Ints) -> Index:
        return (first >> np.uint64(64 - self._bits)).view(np.int64)


class KnownMarks:
    """Many marks, eight octets of each: for asking which rows carry one, but for a chance of 2^-64 a pair.

    Eight octets of memory a mark, so that ten million take 80 MB. There is nothing to compare with in full: whoever
    listed a digest has it, and nobody else.
    """

    def __init__(self, parts: Iterable[bytes] = ()) -> None:
        """Args:
        parts: from `short_marks`.
        """
        pieces = [np.frombuffer(one, ">u8").astype(np.uint64) for one in parts]
        self._sorted: Ints = np.concatenate([np.zeros(0, np.uint64), *pieces])
        self._sorted.sort()
        self._bits = np.uint64(64 - min(_MOST_BITS, max(1, (_PLACES_A_MARK * len(self._sorted)).bit_length())))
        self._taken: Mask = np.zeros(1 << (64 - int(self._bits)), np.bool_)  # by the top bits, as in `MarkIndex`
        self._taken[self._places(self._sorted)] = True

    def __len__(self) -> int:
        return len(self._sorted)

    def known(self, marks: Octets) -> Mask:
        """Which of these marks are known."""
        asked = _first_halves(marks)
        found = np.zeros(len(asked), np.bool_)
        near = np.flatnonzero(self._taken[self._places(asked)])
        if len(near):
            # In order, neighbours are asked for together: an order of magnitude fewer cache misses.
            near = near[np.argsort(asked[near])]
            places = np.searchsorted(self._sorted, asked[near])
            found[near] = self._sorted[np.minimum(places, len(self._sorted) - 1)] == asked[near]
        return found

    def _places(self, first: Ints) -> Index:
        return (first >> self._bits).view(np.int64)


def short_marks(marks: Sequence[Octets]) -> list[bytes]:
    """The first eight octets of each mark, ascending, as parts of `SHORT_MARKS_A_PART` for `KnownMarks`."""
    halves = np.sort(np.concatenate([np.zeros(0, np.uint64), *map(_first_halves, marks)])).astype(">u8")
    return [halves[start : start + SHORT_MARKS_A_PART].tobytes() for start in range(0, len(halves), SHORT_MARKS_A_PART)]


def _first_halves(marks: Octets) -> Ints:
    return np.ascontiguousarray(marks[:, :8]).view(">u8").astype(np.uint64).reshape(-1)


def packed_marks(marks: Sequence[bytes]) -> Octets:
    """Single marks as a column."""
    return np.frombuffer(b"".join(marks), np.uint8).reshape(-1, MARK_BYTES)


def mask_of(n: int, rows: Iterable[int]) -> Mask:
    """A mask over n rows that marks these."""
    mask = np.zeros(n, np.bool_)
    mask[list(rows)] = True
    return mask


def _halves(marks: Octets) -> Ints:
    return np.ascontiguousarray(marks).view("<u8").astype(np.uint64, copy=False).reshape(-1, 2)
