"""Contract bytes <-> values of look-up 1: what a partner is asked about digests, and what it answers.

Whoever looks at a question or an answer from outside sees one of three sizes and nothing else. A question has 16, 256
or 4,096 **slots**: as many digests as are asked about, the rest random ones, in random order. An answer has a **slot**
of 1,024 octets for each, whatever is said in it, so that what is listed and what is not look alike:

    head (1,024 octets: canonical JSON, then spaces) ‖ slot 0 ‖ slot 1 ‖ …      each slot: canonical JSON, then spaces

`parse_` refuses what the contract does not describe; what may be said is judged in `exchange.answering`.

Contract: contracts/look-up-1.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from gateway.columns.rows import BY_CODE, COLUMNS
from gateway.crypto import canonical
from gateway.errors import MalformedError, TooLargeError
from gateway.model import (
    AGENCY,
    CATEGORY,
    DIGEST_BYTES,
    MAX_TEXT_CHARS,
    SET_NAME,
    HandlingCode,
    Purpose,
    VictimStatus,
    int_member,
    require,
    text_member,
    texts_member,
)

QUESTION_TYPE = "application/vnd.partner-exchange.look-up+1"
ANSWER_TYPE = "application/vnd.partner-exchange.look-up-answer+1"
VERSION = "look-up 1"
SIZES = (16, 256, 4_096)
MAX_SLOTS = SIZES[-1]
ALGORITHMS = ("md5", "sha1", "sha256", "sha512", "pdq")  # PhotoDNA goes to nobody: a thumbnail can be made of it
SLOT_DIGEST_BYTES = 64  # of the widest of them
MAX_DISTANCE = 31
HEAD_BYTES = SLOT_BYTES = 1_024
MAX_QUESTION_BYTES = 2 * MAX_SLOTS * (1 + SLOT_DIGEST_BYTES) + 256
MAX_LOOK_UP_ANSWER_BYTES = HEAD_BYTES + MAX_SLOTS * SLOT_BYTES
MAX_TIME = 253_402_300_799  # the last second of the year 9999
_SLOT = 1 + SLOT_DIGEST_BYTES
_ENTRY_CHARS = 17
_TOLD = {"set", "entry", "originator", "status", "who", "since", "category", "handling", "series", "contact"} | {
    "duties",
    "distance",
}


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: `slots` are (algorithm, digest), and nobody but the asker knows which of them are meant.

    `distance`: within how many bits a PDQ digest counts as near.
    """

    purpose: Purpose
    slots: tuple[tuple[str, bytes], ...]
    distance: int = MAX_DISTANCE

    def dump(self) -> bytes:
        """Canonical JSON; each slot is a code, the digest and zeroes up to 65 octets, in hexadecimal."""
        packed = b"".join(
            bytes([COLUMNS[name].code]) + value + bytes(SLOT_DIGEST_BYTES - len(value)) for name, value in self.slots
        )
        members: dict[str, object] = {
            "look_up": VERSION,
            "purpose": str(self.purpose),
            "distance": self.distance,
            "slots": packed.hex(),
        }
        return canonical.encode(members)

    @classmethod
    def parse(cls, raw: bytes) -> Question:
        """What `dump` wrote."""
        if len(raw) > MAX_QUESTION_BYTES:
            raise TooLargeError("look-up: more than a question can be")
        members = _members(raw, {"look_up", "purpose", "distance", "slots"}, MAX_QUESTION_BYTES)
        purpose, distance = text_member(members, "purpose"), int_member(members, "distance")
        require(purpose in {str(one) for one in Purpose}, "look-up: a purpose outside its list")
        require(distance <= MAX_DISTANCE, f"look-up: a distance is 0 to {MAX_DISTANCE} bits")
        text = text_member(members, "slots")
        packed = bytes.fromhex(text) if _is_hex(text) else b""
        require(len(packed) in {size * _SLOT for size in SIZES}, "look-up: not one of the sizes of a question")
        slots = tuple(_slot(packed[at : at + _SLOT]) for at in range(0, len(packed), _SLOT))
        return cls(Purpose(purpose), slots, distance)


@dataclass(frozen=True, slots=True)
class Told:
    """What a partner says of one entry.

    Attributes:
        who, since: whose word the status is, and since when (Unix seconds).
        status: `withheld` where policy leaves it out; series and contact are "" there.
        distance: None for a cryptographic digest. With a number it only looks alike, also where that is 0: a person
            has to see whether it is the same.
    """

    set_name: str
    entry: str
    originator: str
    status: VictimStatus
    who: str
    since: int
    category: str
    handling: HandlingCode
    series: str = ""
    contact: str = ""
    duties: tuple[str, ...] = ()
    distance: int | None = None

    @property
    def needs_review(self) -> bool:
        """Whether a person has to see if it is the same."""
        return self.distance is not None

    def to_json(self) -> dict[str, object]:
        """As the members of an object; `distance` is there only for what looks alike."""
        members: dict[str, object] = {
            "set": self.set_name,
            "entry": self.entry,
            "originator": self.originator,
            "status": str(self.status),
            "who": self.who,
            "since": self.since,
            "category": self.category,
            "handling": str(self.handling),
            "series": self.series,
            "contact": self.contact,
            "duties": list(self.duties),
        }
        return members if self.distance is None else {**members, "distance": self.distance}

    @classmethod
    def from_json(cls, value: object) -> Told:
        """What `to_json` wrote."""
        if not isinstance(value, dict) or set(value) | {"distance"} != _TOLD:
            raise MalformedError("look-up: what is said of an entry has other members than it should")
        set_name, entry, originator, who, category = (
            text_member(value, name) for name in ("set", "entry", "originator", "who", "category")
        )
        require(SET_NAME.fullmatch(set_name), "look-up: set is not a set name")
        require(len(entry) == _ENTRY_CHARS, "look-up: entry is not one")
        require(AGENCY.fullmatch(originator), "look-up: originator is not an agency code")
        require(AGENCY.fullmatch(who), "look-up: who is not an agency code")
        require(CATEGORY.fullmatch(category), "look-up: category is not scheme:code")
        since, distance = int_member(value, "since"), None
        require(since <= MAX_TIME, "look-up: since is out of range")
        if "distance" in value:
            distance = int_member(value, "distance")
            require(distance <= MAX_DISTANCE, "look-up: further apart than was asked for")
        status, handling = text_member(value, "status"), text_member(value, "handling")
        require(status in {str(one) for one in VictimStatus}, "look-up: a status outside its list")
        require(handling in {str(one) for one in HandlingCode}, "look-up: a handling code outside its list")
        series, contact = text_member(value, "series"), text_member(value, "contact")
        require(max(len(series), len(contact)) <= MAX_TEXT_CHARS, "look-up: a text is too long")
        words = VictimStatus(status), who, since, category, HandlingCode(handling)
        return cls(set_name, entry, originator, *words, series, contact, texts_member(value, "duties"), distance)


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one question, known by its message id: for each slot what is said, nothing of most.

    `more`: slots of which more could be said than fits.
    """

    question: str
    at: int
    slots: tuple[tuple[Told, ...], ...]
    more: frozenset[int] = frozenset()

    def dump(self) -> bytes:
        """The head and all slots, each of its own fixed size."""
        head = {"look_up": VERSION, "question": self.question, "at": self.at, "slots": len(self.slots)}
        pieces = [_padded(canonical.encode(head), HEAD_BYTES)]
        pieces += (dump_slot(told, more=at in self.more) for at, told in enumerate(self.slots))
        return b"".join(pieces)

    @classmethod
    def parse(cls, raw: bytes, *, question: str, slots: int) -> Answer:
        """What `dump` wrote, if it answers this question of so many slots."""
        require(len(raw) == HEAD_BYTES + slots * SLOT_BYTES, "look-up: the answer is not as long as its question asks")
        head = _members(_unpadded(raw[:HEAD_BYTES]), {"look_up", "question", "at", "slots"}, HEAD_BYTES)
        require(int_member(head, "slots") == slots, "look-up: the answer has another number of slots")
        require(text_member(head, "question") == question, "look-up: the answer is to another question")
        at = int_member(head, "at")
        require(at <= MAX_TIME, "look-up: at is out of range")
        found, more = [], set()
        for number in range(slots):
            start = HEAD_BYTES + number * SLOT_BYTES
            members = _members(_unpadded(raw[start : start + SLOT_BYTES]), {"entries", "more"}, SLOT_BYTES, named=False)
            listed, cut = members["entries"], members["more"]
            if not isinstance(listed, list) or not isinstance(cut, bool):
                raise MalformedError("look-up: a slot is not one")
            found.append(tuple(map(Told.from_json, listed)))
            if cut:
                more.add(number)
        return cls(question, at, tuple(found), frozenset(more))


def dump_slot(told: Sequence[Told], *, more: bool = False) -> bytes:
    """What is said of one digest in 1,024 octets: as many entries as fit, in their order.

    An entry that fits into no slot is told without its series, and without its contact if that is not enough.
    """
    entries: list[object] = []
    for one in told:
        for said in (one, replace(one, series=""), replace(one, series="", contact="")):
            more = more or said is not one
            if len(_encoded([*entries, said.to_json()], more=False)) <= SLOT_BYTES:  # the longer of the two words
                entries.append(said.to_json())
                break
            if entries:  # there is room for others in none but a slot of its own
                return _padded(_encoded(entries, more=True), SLOT_BYTES)
    return _padded(_encoded(entries, more=more or len(entries) < len(told)), SLOT_BYTES)


def size_for(digests: int) -> int:
    """How many slots the question for so many digests has."""
    return next(size for size in SIZES if digests <= size)


def _encoded(entries: list[object], *, more: bool) -> bytes:
    return canonical.encode({"entries": entries, "more": more})


def _padded(raw: bytes, size: int) -> bytes:
    assert len(raw) <= size, "what is said fits its slot"
    return raw.ljust(size, b" ")


def _unpadded(raw: bytes) -> bytes:
    return raw.rstrip(b" ")


def _members(raw: bytes, names: set[str], max_bytes: int, *, named: bool = True) -> dict[str, object]:
    value: object = canonical.parse_canonical(raw, max_bytes=max_bytes)
    if not isinstance(value, dict) or set(value) != names or (named and value["look_up"] != VERSION):
        raise MalformedError("look-up: members are not those of version 1")
    return dict(value)


def _is_hex(text: str) -> bool:
    return len(text) % 2 == 0 and text.isascii() and not set(text) - set("0123456789abcdef")


def _slot(raw: bytes) -> tuple[str, bytes]:
    column = BY_CODE.get(raw[0])
    width = DIGEST_BYTES.get(column.name) if column is not None else None
    if column is None or column.name not in ALGORITHMS or width is None:
        raise MalformedError("look-up: a slot with a digest that is not asked about")
    require(not any(raw[1 + width :]), "look-up: a slot is not filled up with zeroes")
    return column.name, raw[1 : 1 + width]
