"""Rateless sketches: which rows do two sides not share? The bytes grow with the difference, not with the sets.

Two sides whose sums differ make **short ids** of their rows, 64 bits each, and add them up in a **sketch**. One side
sends the first symbols of its sketch, the other subtracts its own. What both hold cancels out, and what only one of
them holds is peeled from the rest. Where the symbols do not suffice, peeling says so and more of them are asked for:
nobody has to know beforehand by how much the two differ.

    short id   what a row says under its label in the field groups compared, under a key of the comparison
    symbol i   sum (64 bits) and tag (40 bits) of the short ids that have a place there
    sketch     the symbols first … last - 1, and how many short ids went in

Rules:
- A short id has a place at symbol i with a probability of about 2 / (i + 2): all at symbol 0, ever fewer later. Its
  places follow from the short id alone, so both sides put it at the same.
- Sums are modulo 2^64, tags modulo 2^40. So a sketch is linear: a change of the set costs its own places and nothing
  else, the sketch of two labels is the sum of theirs, and a set is added block after block in constant memory.
- The tag of a short id x is 2^32 + the lower half of f(x), f being the finaliser of `digest`. It counts and checks at
  once: a symbol of the one short id x has the sum x and the tag of x. Any other symbol looks like that once in 2^32
  times. A mistake is taken back later in the peeling, or the rest does not come to nothing and peeling fails.
- A sketch tells rows apart as far as 64 bits do. After the repair the state digests are compared again; if they still
  differ, the next comparison has another salt, under which other rows collide, if any do.

Places, in IEEE 754 doubles: r is x and i is 0 to begin with. Each time r becomes r × da942042e4dd58b5 mod 2^64, and i
becomes i + 1 + floor((2^26 / sqrt((r >> 12) + 1) - 1) × (i + 1.5)). (r >> 12) + 1 is at most 2^52, so it is a double
exactly; so are i + 1.5 and all that comes after floor. Square root, quotient, difference and product are rounded
correctly, as the standard has it, and one after the other: numpy has a loop for each and fuses nothing. So the places
are the same on every machine. Vectors freeze them.

After L. Yang, Y. Gilad, M. Alizadeh, "Practical Rateless Set Reconciliation", SIGCOMM 2024: some 1.35 symbols a
difference where there are many. Sums instead of XOR, since numpy scatters them eight times faster. On the wire:
contracts/sketch-1.md. It leaves to others what is compared, asking and answering, and fetching and judging the rows.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from gateway.columns.digest import KEY_BYTES, finalise
from gateway.columns.rows import EXISTENCE, GROUP_CODES, Index, Ints, Mask
from gateway.errors import ConflictError, MalformedError, TooLargeError
from gateway.model import MAX_LABELS

MAGIC = b"SKT1"
SALT_BYTES = 16
SYMBOL_BYTES = 13
HEAD_BYTES = 20
MAX_SYMBOLS = 1 << 20  # 13 MiB, some 760,000 differences: beyond that, copying a label is hardly dearer than comparing

# How many symbols to ask for. A question is a round trip, a symbol too many is 13 bytes: `scripts/bench repair`.
FIRST_SYMBOLS = 160  # 2 kB: a hundred differences in one round trip, nine times in ten
USUAL_SYMBOLS = 4096  # 53 kB, some 2,900 differences: made in one pass, since a second pass costs as much as the first
_A_DIFFERENCE = 1.38  # symbols: the average for a thousand differences, 1.35 for many more
_LEAST_MORE = 16  # at least a sixteenth more: however wrong the estimate, 145 round trips lead from first to last

MAX_ROUNDS = 1000  # of peeling: bounds the work on hostile symbols; honest ones took some hundred at the most
_MAX_PEELED = 2  # short ids a symbol: those that can be found are fewer than the symbols, mistakes are few
_CHUNK_IDS = 1 << 15  # scratch arrays of 256 kB: they stay in the caches, and the calls of a step are worth it
_MULTIPLIER = np.uint64(0xDA942042E4DD58B5)  # as in the code of Yang et al.
_SPAN = 2.0**26  # square root of the range of (r >> 12) + 1
_PLUS, _MINUS = np.uint64(1), np.uint64((1 << 64) - 1)
_HALF = np.uint64(32)
_LOWER = np.uint64((1 << 32) - 1)
_COUNTS = np.uint64(1 << 32)  # what a tag counts with
_TAG_BITS, _TAG_OCTETS = 40, 5
_TAG = np.uint64((1 << _TAG_BITS) - 1)
_HEAD = struct.Struct("<4sIIQ")
_COMPARISON_CONTEXT = b"comparison 1\n"
_SHORT_ID_CONTEXT = b"short id 1\n"
_ITEM_WORDS = 4
_GROUPS = tuple(sorted(GROUP_CODES.values()))


# Short ids


def comparison_key(key: bytes, salt: bytes) -> bytes:
    """The key of the short ids of one comparison, 32 bytes.

    Args:
        key: of the set's state digest, 32 bytes.
        salt: 16 bytes, drawn for this comparison; for as long as a sketch is kept current where one is.
    """
    if len(key) != KEY_BYTES or len(salt) != SALT_BYTES:
        raise MalformedError("sketch: the key or the salt has another length")
    return hashlib.blake2b(_COMPARISON_CONTEXT + salt, key=key, digest_size=KEY_BYTES).digest()


def short_ids(items_by_group: Mapping[int, Ints], label: int, key: bytes) -> Ints:
    """The short ids of n rows of one label: of entry id, version, and content in these field groups.

    Two lanes, each k0 + Σ word × k modulo 2^64 over the 32-bit words of all items, give their upper halves; the
    finaliser follows, since sums of what is linear would cancel. Over the choice of the keys, the upper half of such a
    lane is the same for two given rows of unlike items in one of 2^32 cases, whatever the rows (Dietzfelbinger 1996);
    both halves are the same in one of 2^64.

    That holds against everyone who must choose rows without knowing `key`. Hub and follower know it, but they gain
    nothing: each may say that it holds whatever it likes anyway. A third party whose entries come into the set may even
    know the set's key, as one of its followers, but not the salt. With the set's key it could make two rows of equal
    items; but then the state digest does not tell them apart either, and the signatures over the pages must.

    Args:
        items_by_group: what `digest.items` gives for these rows, n × 2, by group code; existence always. A group in
            which none of the rows says anything may be left out or not: the short ids are the same.
        label: 1 … 4096. The same row under another label has another short id, so one sketch may hold many labels.
        key: of `comparison_key`.
    """
    if len(key) != KEY_BYTES or not 1 <= label <= MAX_LABELS:
        raise MalformedError("sketch: no such key or label")
    if EXISTENCE not in items_by_group or not items_by_group.keys() <= set(_GROUPS):
        raise MalformedError("sketch: existence is missing, or there is a group that is not compared")
    n = len(items_by_group[EXISTENCE])
    if any(lanes.shape != (n, 2) for lanes in items_by_group.values()):
        raise MalformedError("sketch: the items of two groups differ in number")
    keys = _key_stream(key, label)
    ids = np.empty(n, np.uint64)
    for start in range(0, n, _CHUNK_IDS):
        stop = min(n, start + _CHUNK_IDS)
        ids[start:stop] = _mixed({group: lanes[start:stop] for group, lanes in items_by_group.items()}, keys)
    return ids


def among(ids: Ints, wanted: Ints) -> Mask:
    """Which of these ids are among those wanted; quick where few are."""
    if not len(wanted):
        return np.zeros(len(ids), np.bool_)
    ordered = np.sort(wanted)
    places = np.minimum(np.searchsorted(ordered, ids), len(ordered) - 1)
    return np.asarray(ordered[places] == ids)


def _key_stream(key: bytes, label: int) -> Ints:
    """A pair of keys for k0, then one for each word of each group, in order of group code."""
    pairs = 1 + _ITEM_WORDS * len(_GROUPS)
    stream = hashlib.shake_256(_SHORT_ID_CONTEXT + key + label.to_bytes(2, "little")).digest(2 * 8 * pairs)
    return np.frombuffer(stream, "<u8").astype(np.uint64).reshape(pairs, 2)


def _mixed(items_by_group: Mapping[int, Ints], keys: Ints) -> Ints:
    """The short ids of some rows. The words of an item: low lane, then high lane, of each the lower half first."""
    n = len(items_by_group[EXISTENCE])
    one, two = np.full(n, keys[0, 0]), np.full(n, keys[0, 1])
    for group, lanes in items_by_group.items():
        at = 1 + _ITEM_WORDS * _GROUPS.index(group)
        for lane in (lanes[:, 0], lanes[:, 1]):
            for word in (lane & _LOWER, lane >> _HALF):
                one += word * keys[at, 0]
                two += word * keys[at, 1]
                at += 1
    ids: Ints = (one & ~_LOWER) | (two >> _HALF)
    finalise(ids)
    return ids


# Sketches


@dataclass(slots=True, eq=False)
class Sketch:
    """Some symbols of a set of short ids, or of the difference of two. Make it with `Sketch.empty`.

    Attributes:
        first, last: it has the symbols first … last - 1.
        count: how many short ids went in; of a difference, how many more there are on this side than on the other.
        sums, tags: of each symbol; the tags count from bit 40 on too, which means nothing.
    """

    first: int
    last: int
    count: int
    sums: Ints
    tags: Ints

    @classmethod
    def empty(cls, last: int, *, first: int = 0) -> Sketch:
        """The sketch of nothing."""
        _check_range(first, last)
        return cls(first, last, 0, np.zeros(last - first, np.uint64), np.zeros(last - first, np.uint64))

    def add(self, ids: Ints) -> None:
        """Put short ids in. A large set comes block by block: memory does not grow."""
        self._put(ids, np.broadcast_to(_PLUS, len(ids)))
        self.count += len(ids)

    def remove(self, ids: Ints) -> None:
        """Take short ids out that were put in."""
        self._put(ids, np.broadcast_to(_MINUS, len(ids)))
        self.count -= len(ids)

    def slice(self, first: int, last: int) -> Sketch:
        """A copy of the symbols first … last - 1."""
        if not self.first <= first < last <= self.last:
            raise MalformedError("sketch: not all of these symbols are here")
        start, stop = first - self.first, last - self.first
        return Sketch(first, last, self.count, self.sums[start:stop].copy(), self.tags[start:stop].copy())

    def followed_by(self, more: Sketch) -> Sketch:
        """These symbols and the next ones of the same set. Raises ConflictError where the set has another count now."""
        if more.first != self.last:
            raise MalformedError("sketch: the symbols do not follow each other")
        if more.count != self.count:
            raise ConflictError("the set has changed since the first part of its sketch", remedy="compare again")
        sums, tags = np.concatenate([self.sums, more.sums]), np.concatenate([self.tags, more.tags])
        return Sketch(self.first, more.last, self.count, sums, tags)

    def __add__(self, other: Sketch) -> Sketch:
        """The sketch of both sets."""
        self._check_same_symbols(other)
        sums, tags = self.sums + other.sums, self.tags + other.tags
        return Sketch(self.first, self.last, self.count + other.count, sums, tags)

    def __sub__(self, other: Sketch) -> Sketch:
        """The difference: what only this set has, less what only the other has."""
        self._check_same_symbols(other)
        sums, tags = self.sums - other.sums, self.tags - other.tags
        return Sketch(self.first, self.last, self.count - other.count, sums, tags)

    def _check_same_symbols(self, other: Sketch) -> None:
        if (self.first, self.last) != (other.first, other.last):
            raise MalformedError("sketch: these are not the same symbols")

    def _put(self, ids: Ints, signs: Ints, touched: Mask | None = None) -> None:
        """Add or take away short ids, each by its own sign, and mark the symbols where that was."""
        for start in range(0, len(ids), _CHUNK_IDS):
            chunk, sign = ids[start : start + _CHUNK_IDS], signs[start : start + _CHUNK_IDS]
            sums, tags = chunk * sign, _tags_of(chunk) * sign
            for places, rows in _places(chunk, self.first, self.last):
                np.add.at(self.sums, places, sums.take(rows))
                np.add.at(self.tags, places, tags.take(rows))
                if touched is not None:
                    touched[places] = True


def _places(ids: Ints, first: int, last: int) -> Iterator[tuple[Index, Index]]:
    """The places of short ids in first … last - 1, counted from first: with each place the row of its id.

    Every id takes a step at a time; those beyond the last symbol fall out.
    """
    rows, at, state = np.arange(len(ids), dtype=np.int64), np.zeros(len(ids)), ids.copy()
    while len(rows):
        inside = np.flatnonzero(at >= first) if first else slice(None)
        yield (at[inside] - first).astype(np.int64), rows[inside]
        state *= _MULTIPLIER
        step = (state >> np.uint64(12)).astype(np.float64)
        step += 1.0
        np.sqrt(step, out=step)
        np.divide(_SPAN, step, out=step)
        step -= 1.0
        step *= at + 1.5
        np.floor(step, out=step)
        at += step
        at += 1.0
        on = np.flatnonzero(at < last)
        rows, at, state = rows.take(on), at.take(on), state.take(on)  # faster than indexing


def _tags_of(ids: Ints) -> Ints:
    tags = ids.copy()
    finalise(tags)
    tags &= _LOWER
    tags += _COUNTS
    return tags


def _check_range(first: int, last: int) -> None:
    if not 0 <= first < last:
        raise MalformedError("sketch: a range without symbols")
    if last > MAX_SYMBOLS:
        raise TooLargeError("sketch: more symbols than there may be")


# Peeling


@dataclass(frozen=True, slots=True, eq=False)
class Peeled:
    """The short ids that only one of two sets has, ascending: of a difference `a - b`, `here` is a and `there` is b."""

    here: Ints
    there: Ints


def peel(difference: Sketch) -> Peeled | None:
    """What only one side holds; None when these symbols do not tell: then `symbols_wanted` says how many might.

    Whatever the symbols are, the work is bounded: by `MAX_ROUNDS`, and by two short ids found for each symbol.
    """
    _check_from_start(difference)
    rest = difference.slice(0, difference.last)
    found, signs = [np.zeros(0, np.uint64)], [np.zeros(0, np.uint64)]
    places, most = np.arange(rest.last, dtype=np.int64), _MAX_PEELED * rest.last
    for _ in range(MAX_ROUNDS):
        ids, sign = _alone(rest.sums[places], rest.tags[places] & _TAG)
        most -= len(ids)
        if not len(ids) or most < 0:
            break
        found.append(ids)
        signs.append(sign)
        touched = np.zeros(rest.last, np.bool_)
        rest._put(ids, sign * _MINUS, touched)
        places = np.flatnonzero(touched).astype(np.int64)  # the others have not changed
    if rest.sums.any() or (rest.tags & _TAG).any():
        return None
    return _settled(np.concatenate(found), np.concatenate(signs), difference.count)


def symbols_wanted(difference: Sketch) -> int | None:
    """How many symbols, those that are here included, may tell the difference; None when there may be no more.

    It says this after `peel` failed. Of few symbols the estimate is rough, and what is asked for too much is lost while
    what is too little is asked for again. So it stays on the low side by about its own error.
    """
    _check_from_start(difference)
    here = difference.last
    if here >= MAX_SYMBOLS:
        return None
    differences = _estimated(difference)
    wanted = _A_DIFFERENCE * differences * (1 - 1 / math.sqrt(here)) + math.sqrt(differences)
    return min(MAX_SYMBOLS, max(math.ceil(wanted), here + math.ceil(here / _LEAST_MORE)))


def _check_from_start(difference: Sketch) -> None:
    if difference.first:
        raise MalformedError("sketch: the first symbols are missing")


def _alone(sums: Ints, tags: Ints) -> tuple[Ints, Ints]:
    """The short ids that stand alone at one of these symbols, each once, with their signs."""
    ids, signs = [], []
    for sign in (_PLUS, _MINUS):
        candidates, expected = sums * sign, tags * sign & _TAG
        ones = np.flatnonzero(expected >> _HALF == 1)  # they seem to hold one
        good = ones[_tags_of(candidates[ones]) == expected[ones]]
        ids.append(np.unique(candidates[good]))
        signs.append(np.full(len(ids[-1]), sign))
    return np.concatenate(ids), np.concatenate(signs)


def _settled(ids: Ints, signs: Ints, count: int) -> Peeled | None:
    """What remains when mistakes and their corrections cancel, if it fits the counts of both sides."""
    distinct, which = np.unique(ids, return_inverse=True)
    net = np.zeros(len(distinct), np.uint64)
    np.add.at(net, which, signs)
    here, there = distinct[net == _PLUS], distinct[net == _MINUS]
    cancelled = int((net == 0).sum())
    if len(here) + len(there) + cancelled < len(distinct) or len(here) - len(there) != count:
        return None
    return Peeled(here, there)


def _estimated(difference: Sketch) -> float:
    """About how many short ids differ; it is wrong by some 1.3 / sqrt(symbols).

    After Alon, Matias and Szegedy 1996: the square of a sum of random signs tells how many they are. A tag in units of
    2^32 is Σ ±(1 + u), u being even between 0 and 1. A short id that has a place with probability p adds ±1.5 p on
    average, which the counts tell, and a variance of p × 7/3 - p² × 9/4 whatever its sign. Tags are modulo 2^40, so 160
    symbols show some 200,000 differences at the most. Then more symbols are asked for, and these show more.
    """
    p = 2 / (2 + np.arange(difference.last))
    units = (difference.tags << np.uint64(64 - _TAG_BITS)).view(np.int64) / 2.0 ** (64 - _TAG_BITS + 32)
    span = 2.0 ** (_TAG_BITS - 32)
    off = (units - 1.5 * difference.count * p + span / 2) % span - span / 2
    return float(np.mean(off**2 / (p * 7 / 3 - p**2 * 9 / 4)))


# On the wire


def dump_sketch(sketch: Sketch) -> bytes:
    """The symbols as bytes: there is one way to write them. Raises MalformedError for a difference of two sets."""
    if not 0 <= sketch.count < 1 << 64:
        raise MalformedError("sketch: not the sketch of a set")
    tags = sketch.tags.astype("<u8").view(np.uint8).reshape(-1, 8)[:, :_TAG_OCTETS]
    head = _HEAD.pack(MAGIC, sketch.first, sketch.last, sketch.count)
    return b"".join([head, sketch.sums.astype("<u8").tobytes(), tags.tobytes()])


def parse_sketch(raw: bytes) -> Sketch:
    """What `dump_sketch` wrote. Raises MalformedError, TooLargeError.

    All that follows the head can be the symbols of some set, so only peeling shows whether they make sense.
    """
    if len(raw) < _HEAD.size or raw[: len(MAGIC)] != MAGIC:
        raise MalformedError("sketch: not a sketch of version 1")
    _, first, last, count = _HEAD.unpack_from(raw)
    _check_range(first, last)
    symbols = last - first
    if len(raw) != HEAD_BYTES + SYMBOL_BYTES * symbols:
        raise MalformedError("sketch: not as long as its symbols need")
    sums = np.frombuffer(raw, "<u8", symbols, HEAD_BYTES).astype(np.uint64)
    octets = np.zeros((symbols, 8), np.uint8)
    tags = np.frombuffer(raw, np.uint8, offset=HEAD_BYTES + 8 * symbols)
    octets[:, :_TAG_OCTETS] = tags.reshape(symbols, _TAG_OCTETS)
    return Sketch(first, last, count, sums, octets.view("<u8").reshape(symbols).astype(np.uint64))
