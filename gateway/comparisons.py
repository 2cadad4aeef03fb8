"""Contract bytes <-> values of comparison 1 and offer 1: which entries of a set differ, and what a hub gets back.

A follower asks three kinds of questions, each in a sealed envelope, and the hub keeps nothing between them:

    sums     how much of each label do you hold?          count and digest sums by label and field group
    sketch   which entries of these labels?               symbols first … last - 1 of one sketch of them (sketch 1)
    rows     bring me these, and say what became of those that only I hold so             a page (page 2)

An offer (contracts/offer-1.md) is a page together with what its hub once signed of it.

`parse_` refuses what the contract does not describe; what a question *means* is judged in `exchange.comparing`.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from operator import itemgetter

from gateway.columns.digest import Sum
from gateway.columns.rows import GROUP_CODES, Ints, integers
from gateway.columns.sketch import MAX_SYMBOLS
from gateway.crypto import canonical
from gateway.errors import MalformedError, TooLargeError
from gateway.interchange import HEX_DIGEST, Cursor
from gateway.model import ENTRY_GROUPS, MAX_LABELS, SET_NAME, FieldGroup, int_member, require, text_member, texts_member

QUESTION_TYPE = "application/vnd.partner-exchange.comparison+1"
OFFER_TYPE = "application/vnd.partner-exchange.offer+1"
ANSWER_TYPE = "application/vnd.partner-exchange.comparison-answer+1"
VERSION = "comparison 1"
SUMS, SKETCH, ROWS = "sums", "sketch", "rows"
MAX_ASKED = 65_536  # entries named in one question: as many as a page brings
MAX_QUESTION_BYTES = 4 << 20  # 65,536 short ids and as many entry ids in hex, and every label of a set
MAX_SUMS_BYTES = 4 << 20  # 4,096 labels of five groups
MAX_ANSWER_BYTES = 16 << 20  # as many symbols as a sketch has
_SALT = re.compile(r"[0-9a-f]{32}")
_LANE = re.compile(r"[0-9a-f]{16}")
_LENGTH = struct.Struct(">I")
_HEX = re.compile(r"(?:[0-9a-f]{16})*")


@dataclass(frozen=True, slots=True)
class HeldLabel:
    """A label as a follower holds it: enough for the hub to say whether it is still the same."""

    number: int
    digest: str
    groups: frozenset[FieldGroup]
    obligations: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Question:
    """What a follower asks. `cursor` is where the hub stood by the feed head that the follower holds: both sides speak
    of that state, or not at all.

    Attributes:
        salt: makes the short ids of this comparison unlike those of any other, hex; not of `sums`.
        labels: those compared; not of `sums`.
        first, last: which symbols; `sketch` only.
        stands: where the follower itself stands; this and all that follows: `rows` only.
        holds: the follower's labels, where they are not those of the view at `cursor`.
        wanted: short ids of entries that only the hub holds so.
        odd: ids of entries that only the follower holds so.
        last_word: the follower has offered what it could. Of what the hub knows nothing, it says: leave.
    """

    step: str
    set_name: str
    cursor: Cursor
    salt: str = ""
    labels: tuple[int, ...] = ()
    first: int = 0
    last: int = 0
    stands: Cursor | None = None
    holds: tuple[HeldLabel, ...] = ()
    wanted: Ints = field(default_factory=lambda: integers([]))
    odd: Ints = field(default_factory=lambda: integers([]))
    last_word: bool = False

    def dump(self) -> bytes:
        """Canonical JSON, with the members of its step."""
        members: dict[str, object] = {
            "comparison": VERSION,
            "step": self.step,
            "set": self.set_name,
            "cursor": self.cursor.to_json(),
        }
        if self.step != SUMS:
            members |= {"salt": self.salt, "labels": list(self.labels)}
        if self.step == SKETCH:
            members |= {"first": self.first, "last": self.last}
        if self.step == ROWS:
            assert self.stands is not None, "a question for rows says where its asker stands"
            members |= {
                "stands": self.stands.to_json(),
                "holds": [[h.number, h.digest, sorted(h.groups), list(h.obligations)] for h in self.holds],
                "wanted": _packed(self.wanted),
                "odd": _packed(self.odd),
                "last_word": self.last_word,
            }
        return canonical.encode(members)

    @classmethod
    def parse(cls, raw: bytes) -> Question:
        """What `dump` wrote."""
        value: object = canonical.parse_canonical(raw, max_bytes=MAX_QUESTION_BYTES)
        if not isinstance(value, dict) or value.get("comparison") != VERSION:
            raise MalformedError("comparison: not a question of version 1")
        members: dict[str, object] = dict(value)
        step = members.get("step")
        if not isinstance(step, str) or set(members) != _MEMBERS.get(step):
            raise MalformedError("comparison: members are not those of its step")
        set_name = text_member(members, "set")
        require(SET_NAME.fullmatch(set_name), "comparison: set is not a set name")
        question = cls(step, set_name, Cursor.from_json(members["cursor"]))
        if step == SUMS:
            return question
        salt = text_member(members, "salt")
        require(_SALT.fullmatch(salt), "comparison: salt is not 16 octets in hex")
        question = replace(question, salt=salt, labels=_labels(members["labels"]))
        if step == SKETCH:
            first, last = int_member(members, "first"), int_member(members, "last")
            require(first < last, "comparison: a range without symbols")
            if last > MAX_SYMBOLS:
                raise TooLargeError("comparison: more symbols than a sketch has")
            return replace(question, first=first, last=last)
        last_word, wanted, odd = members["last_word"], _unpacked(members["wanted"]), _unpacked(members["odd"])
        require(isinstance(last_word, bool), "comparison: last_word is not true or false")
        require(len(odd) + len(wanted) <= MAX_ASKED, "comparison: more entries than one page brings")
        stands, holds = Cursor.from_json(members["stands"]), _holds(members["holds"])
        return replace(question, stands=stands, holds=holds, wanted=wanted, odd=odd, last_word=bool(last_word))


_COMMON = {"comparison", "step", "set", "cursor"}
_MEMBERS = {
    SUMS: _COMMON,
    SKETCH: _COMMON | {"salt", "labels", "first", "last"},
    ROWS: _COMMON | {"salt", "labels", "stands", "holds", "wanted", "odd", "last_word"},
}
LabelSums = Mapping[tuple[int, int], Sum]  # (label, group code) -> sum


@dataclass(frozen=True, slots=True)
class SumsAnswer:
    """What the hub holds of each label that the follower may see: the label's digest, and its sums by group code."""

    digests: Mapping[int, str]
    sums: LabelSums

    def dump(self) -> bytes:
        """Canonical JSON."""
        rows: dict[int, list[list[object]]] = {number: [] for number in self.digests}
        for (number, part), one in sorted(self.sums.items(), key=itemgetter(0)):
            rows[number].append([part, one.count, f"{one.low:016x}", f"{one.high:016x}"])
        labels = [[number, digest, rows[number]] for number, digest in sorted(self.digests.items())]
        return canonical.encode({"comparison": VERSION, "labels": labels})

    @classmethod
    def parse(cls, raw: bytes) -> SumsAnswer:
        """What `dump` wrote."""
        value: object = canonical.parse_canonical(raw, max_bytes=MAX_SUMS_BYTES)
        if not isinstance(value, dict) or set(value) != {"comparison", "labels"} or value["comparison"] != VERSION:
            raise MalformedError("comparison: not an answer of version 1")
        listed = value["labels"]
        if not isinstance(listed, list) or len(listed) > MAX_LABELS:
            raise MalformedError("comparison: labels is not a list within bounds")
        digests: dict[int, str] = {}
        sums: dict[tuple[int, int], Sum] = {}
        for row in listed:
            if not isinstance(row, list) or len(row) != 3 or not isinstance(row[2], list):
                raise MalformedError("comparison: a label's row is not one")
            number, digest = _label(row[0]), row[1]
            if not isinstance(digest, str) or not HEX_DIGEST.fullmatch(digest):
                raise MalformedError("comparison: a label's digest is not 32 bytes in hex")
            digests[number] = digest
            sums.update({(number, part): one for part, one in map(_sum_of, row[2])})
        require(_ascends(list(digests)) and len(digests) == len(listed), "comparison: labels do not ascend")
        return cls(digests, sums)


def dump_offer(signed: bytes, page: bytes) -> bytes:
    """u32 (big-endian) octets of the DSSE ‖ the DSSE that the hub signed ‖ the page."""
    return _LENGTH.pack(len(signed)) + signed + page


def parse_offer(raw: bytes) -> tuple[bytes, bytes]:
    """(DSSE, page) of what `dump_offer` wrote; nothing is verified yet."""
    require(len(raw) >= _LENGTH.size, "offer: ends early")
    (length,) = _LENGTH.unpack_from(raw)
    require(0 < length <= len(raw) - _LENGTH.size, "offer: ends early")
    at = _LENGTH.size + length
    return raw[_LENGTH.size : at], raw[at:]


def _packed(ids: Ints) -> str:
    return ids.astype("<u8").tobytes().hex()


def _unpacked(value: object) -> Ints:
    """64-bit integers in hex, ascending, each once: one way only to write them."""
    if not isinstance(value, str) or not _HEX.fullmatch(value):
        raise MalformedError("comparison: ids are not 64-bit integers in hex")
    raw = bytes.fromhex(value)
    ids = integers([one for (one,) in struct.iter_unpack("<Q", raw)])
    require(not len(ids) or bool((ids[1:] > ids[:-1]).all()), "comparison: ids do not ascend")
    return ids


def _label(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_LABELS:
        raise MalformedError("comparison: a label number is outside 1 to 4,096")
    return value


def _ascends(numbers: Sequence[int]) -> bool:
    return all(before < after for before, after in pairwise(numbers))


def _labels(value: object) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) > MAX_LABELS:
        raise MalformedError("comparison: labels is not a list within bounds")
    labels = tuple(map(_label, value))
    require(_ascends(labels), "comparison: the labels do not ascend")
    return labels


def _holds(value: object) -> tuple[HeldLabel, ...]:
    if not isinstance(value, list) or len(value) > MAX_LABELS:
        raise MalformedError("comparison: holds is not a list within bounds")
    known = {str(group): group for group in ENTRY_GROUPS}
    found = []
    for row in value:
        if not isinstance(row, list) or len(row) != 4 or not isinstance(row[1], str):
            raise MalformedError("comparison: a label held is not one")
        named = {"groups": row[2], "obligations": row[3]}
        groups = texts_member(named, "groups")
        require(HEX_DIGEST.fullmatch(row[1]), "comparison: a label's digest is not 32 bytes in hex")
        require(groups == tuple(sorted(set(groups) & known.keys())), "comparison: groups names an unknown field group")
        held = HeldLabel(
            _label(row[0]), row[1], frozenset(known[name] for name in groups), texts_member(named, "obligations")
        )
        found.append(held)
    require(_ascends([one.number for one in found]), "comparison: the labels held do not ascend")
    return tuple(found)


def _sum_of(row: object) -> tuple[int, Sum]:
    if not isinstance(row, list) or len(row) != 4 or row[0] not in GROUP_CODES.values():
        raise MalformedError("comparison: a sum is not one")
    lanes = row[2], row[3]
    if not all(isinstance(lane, str) and _LANE.fullmatch(lane) for lane in lanes):
        raise MalformedError("comparison: a lane is not 64 bits in hex")
    return int(row[0]), Sum(int_member({"count": row[1]}, "count"), int(lanes[0], 16), int(lanes[1], 16))
