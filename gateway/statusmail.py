"""What mailbox messages about statuses say: bodies <-> values. Pure; the contract is contracts/status-1.md.

    status_assertion, identification_notice    what an agency asserts, and of which material: in pieces
    resume_search                              that it was taken back, and nothing else where policy shows no more
    search_resumed                             the answer to that
    status_echo                                what a partner holds of ours, told to whoever was restored
    claim_answer, claim_contact                what a side of a claim conflict says; what it gives when both agree
    series_merge                               that two series are one, or are two again

A piece names material under one label of one set, as the sender holds it: by cryptographic digests, by its own entries'
ids (for who follows that set) and by series names, each only where policy shows it to the receiver.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from gateway.crypto import canonical
from gateway.errors import MalformedError
from gateway.model import (
    CRYPTOGRAPHIC,
    DIGEST_BYTES,
    MAX_TEXT_CHARS,
    SET_NAME,
    Label,
    VictimStatus,
    int_member,
    require,
    text_member,
    texts_member,
)
from gateway.statuses import ID, RANK, Answer, Assertion, Word, is_line, status_of

ASSERTION, NOTICE, RESUME = "status_assertion", "identification_notice", "resume_search"
RESUMED, ECHO = "search_resumed", "status_echo"
CLAIM_ANSWER, CLAIM_CONTACT = "claim_answer", "claim_contact"
SERIES = "series_merge"

MAX_PIECE_BYTES = 7 << 10  # of a message's 8 KiB, so that what stands around a piece has room
MAX_ENTRY = 1 << 64
_PIECE = {
    *("assertion", "version", "status", "at", "reason", "set", "label", "contact"),
    *("digests", "entries", "series"),
}


@dataclass(frozen=True, slots=True)
class Material:
    """Material under one label of one set: digests (algorithm, bytes), entries of that set, series names."""

    set_name: str
    label: Label
    digests: tuple[tuple[str, bytes], ...] = ()
    entries: tuple[int, ...] = ()
    series: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """By how many marks it is known."""
        return len(self.digests) + len(self.entries) + len(self.series)


@dataclass(frozen=True, slots=True)
class Piece:
    """One message: an assertion with some of its material. `contact`: whom to call, "" where policy shows none."""

    assertion: Assertion
    material: Material
    contact: str = ""


@dataclass(frozen=True, slots=True)
class Resume:
    """An assertion is taken back. `status` and `reason` only for who may see them. Times are Unix seconds."""

    id: str
    version: int
    at: int
    due: int
    reminder: int
    status: VictimStatus | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class MergedSeries:
    """Two series names that stand for one series, or (not `merged`) for two again."""

    id: str
    version: int
    names: tuple[str, str]
    reason: str
    merged: bool


def kind_of(assertion: Assertion) -> str:
    """The kind of message by which an assertion is told."""
    return NOTICE if assertion.is_found else ASSERTION


def dump_pieces(assertion: Assertion, materials: Iterable[Material], contact: str) -> Iterator[dict[str, object]]:
    """The bodies that tell an assertion with its material, none too long for a message."""
    for material in materials:
        head: dict[str, object] = {
            **_assertion_members(assertion),
            "set": material.set_name,
            "label": material.label.to_json(),
            "contact": contact,
        }
        yield from _cut(head, material)


def _cut(head: dict[str, object], material: Material) -> Iterator[dict[str, object]]:
    room = MAX_PIECE_BYTES - len(canonical.encode({**head, "digests": [], "entries": [], "series": []}))
    items: list[tuple[str, object]] = [("digests", [name, value.hex()]) for name, value in material.digests]
    items += [("entries", f"{entry:016x}") for entry in material.entries]
    items += [("series", name) for name in material.series]
    lists: dict[str, list[object]] = {"digests": [], "entries": [], "series": []}
    used = 0
    for place, item in items:
        size = len(canonical.encode(item)) + 1
        if used and used + size > room:
            yield {**head, **lists}
            lists, used = {"digests": [], "entries": [], "series": []}, 0
        lists[place].append(item)
        used += size
    if used:
        yield {**head, **lists}


def parse_piece(sender: str, body: dict[str, object]) -> Piece:
    """What `dump_pieces` wrote, as `sender` asserts it; MalformedError for anything else."""
    require(set(body) == _PIECE, "status: members are not those of the contract")
    assertion = Assertion(
        sender,
        text_member(body, "assertion"),
        int_member(body, "version"),
        status_of(text_member(body, "status")),
        int_member(body, "at"),
        text_member(body, "reason"),
    )
    name, contact = text_member(body, "set"), text_member(body, "contact")
    require(SET_NAME.fullmatch(name), "status: set name is not AGENCY/name")
    require(contact == "" or is_line(contact), "status: a contact is one line")
    label = Label.from_json(body["label"])
    require(label.victim_status is assertion.status, "status: the label says another status")
    entries, series = texts_member(body, "entries"), texts_member(body, "series")
    require(all(is_line(one) for one in series), "status: a series name is one line")
    digests = tuple(_digests(body["digests"]))
    require(digests or entries or series, "status: it speaks of nothing")
    return Piece(assertion, Material(name, label, digests, tuple(map(_entry, entries)), series), contact)


def _assertion_members(assertion: Assertion) -> dict[str, object]:
    return {
        "assertion": assertion.id,
        "version": assertion.version,
        "status": str(assertion.status),
        "at": assertion.at,
        "reason": assertion.reason,
    }


def _digests(value: object) -> Iterator[tuple[str, bytes]]:
    require(isinstance(value, list), "status: digests is not a list")
    assert isinstance(value, list)
    for one in value:
        require(isinstance(one, list) and len(one) == 2, "status: a digest is a pair of algorithm and value")
        name, text = one
        # Perceptual digests are near-imagery, and say "the same picture" only to a person: they are never in here.
        require(name in CRYPTOGRAPHIC, "status: no cryptographic digest")
        require(isinstance(text, str), "status: a digest is not text")
        yield name, _octets(text, DIGEST_BYTES[name] or 0)


def _octets(text: str, count: int) -> bytes:
    try:
        value = bytes.fromhex(text)
    except ValueError as error:
        raise MalformedError("status: a digest is not hexadecimal") from error
    require(len(value) == count and value.hex() == text, "status: a digest is not of its length, in lower hex")
    return value


def _entry(text: str) -> int:
    try:
        value = int(text, 16)
    except ValueError as error:
        raise MalformedError("status: an entry is not hexadecimal") from error
    require(f"{value:016x}" == text and value < MAX_ENTRY, "status: an entry is 16 hex digits")
    return value


# Taking back


def dump_resume(resume: Resume) -> dict[str, object]:
    """As the body of a message."""
    return {
        "assertion": resume.id,
        "version": resume.version,
        "at": resume.at,
        "due": resume.due,
        "reminder": resume.reminder,
        "status": "" if resume.status is None else str(resume.status),
        "reason": resume.reason,
    }


def parse_resume(body: dict[str, object]) -> Resume:
    """What `dump_resume` wrote; MalformedError for anything else."""
    number, word, reason = (text_member(body, name) for name in ("assertion", "status", "reason"))
    version, at, due, reminder = (int_member(body, name) for name in ("version", "at", "due", "reminder"))
    require(ID.fullmatch(number), "status: the id is not 32 hex digits")
    require(reason == "" or is_line(reason), "status: a reason is one line")
    status = status_of(word) if word else None
    return Resume(number, version, at, due, reminder, status, reason)


def dump_held(number: str, version: int, status: VictimStatus | None = None) -> dict[str, object]:
    """The answer that a search goes on, or (with a status) what is held of an assertion."""
    body: dict[str, object] = {"assertion": number, "version": version}
    return body if status is None else {**body, "status": str(status)}


def parse_held(body: dict[str, object]) -> tuple[str, int, VictimStatus | None]:
    """What `dump_held` wrote: id, version, status."""
    number, version = text_member(body, "assertion"), int_member(body, "version")
    require(ID.fullmatch(number) and version > 0, "status: no id or no version")
    status = status_of(text_member(body, "status")) if "status" in body else None
    return number, version, status


# Claims and series


def dump_answer(claim: str, answer: Answer) -> dict[str, object]:
    """A side's word on a claim conflict."""
    return {"claim": claim, "version": answer.version, "answer": str(answer.word)}


def parse_answer(body: dict[str, object]) -> tuple[str, Answer]:
    """What `dump_answer` wrote: the conflict, the word."""
    claim, word = text_member(body, "claim"), text_member(body, "answer")
    require(ID.fullmatch(claim), "claim: the id is not 32 hex digits")
    require(word in (Word.AGREE, Word.DECLINE), "claim: neither agreed nor declined")
    return claim, Answer(int_member(body, "version"), Word(word))


def dump_contact(claim: str, contact: str, reference: str) -> dict[str, object]:
    """What a side gives when both have agreed."""
    return {"claim": claim, "contact": contact, "reference": reference}


def parse_contact(body: dict[str, object]) -> tuple[str, str, str]:
    """What `dump_contact` wrote: the conflict, whom to call, the reference to name then."""
    claim, contact, reference = (text_member(body, name) for name in ("claim", "contact", "reference"))
    require(ID.fullmatch(claim), "claim: the id is not 32 hex digits")
    require(is_line(contact), "claim: a contact is one line, and needed")
    require(reference == "" or is_line(reference), "claim: a reference is one line")
    return claim, contact, reference


def dump_series(series: MergedSeries) -> dict[str, object]:
    """As the body of a message."""
    return {
        "merge": series.id,
        "version": series.version,
        "names": list(series.names),
        "reason": series.reason,
        "merged": series.merged,
    }


def parse_series(body: dict[str, object]) -> MergedSeries:
    """What `dump_series` wrote; MalformedError for anything else."""
    number, reason, names = text_member(body, "merge"), text_member(body, "reason"), texts_member(body, "names")
    require(ID.fullmatch(number), "series: the id is not 32 hex digits")
    require(is_line(reason), "series: a reason is one line, and needed")
    require(len(names) == 2 and names[0] < names[1], "series: not two names in order")
    require(all(is_line(name) and len(name) <= MAX_TEXT_CHARS for name in names), "series: a name is one line")
    merged = body.get("merged")
    if not isinstance(merged, bool):
        raise MalformedError("series: merged is not true or false")
    return MergedSeries(number, int_member(body, "version"), (names[0], names[1]), reason, merged)


def lowered(before: VictimStatus, after: VictimStatus) -> bool:
    """Whether a status was taken down."""
    return RANK[after] < RANK[before]


def material_json(material: Material) -> dict[str, object]:
    """As it is kept."""
    return {
        "set": material.set_name,
        "label": material.label.to_json(),
        "digests": [[name, value.hex()] for name, value in material.digests],
        "entries": [f"{entry:016x}" for entry in material.entries],
        "series": list(material.series),
    }


def material_from_json(value: Mapping[str, object]) -> Material:
    """What `material_json` wrote."""
    body = dict(value)
    entries, series = texts_member(body, "entries"), texts_member(body, "series")
    digests, label = tuple(_digests(body["digests"])), Label.from_json(body["label"])
    return Material(text_member(body, "set"), label, digests, tuple(map(_entry, entries)), series)


def count_of(materials: Sequence[Material]) -> int:
    """By how many marks it is known."""
    return sum(one.count for one in materials)
