"""The case record: who is being looked for, where, and who works on it. Frozen values; no clock, no I/O.

It holds what an analyst reads from the background of a picture (the four questions: what is visible, when, where, who),
and what a partner needs to go on: victims under pseudonyms, persons seen, series, the law under which it may be used,
and whom to call. Never imagery, never a path to it, never a name of a child.

A record is a value: a later version replaces it whole, and `version` counts. What an outside format does not state
stays empty; `missing` names what law and policy need before the record may go anywhere. Nothing is guessed.

Every value that a field can hold is bounded here, so that it can be written as `vidx 1.0`. Whether all of them
together fit into one report, `vidx.dump_case` says.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from enum import StrEnum

from gateway.model import (
    AGENCY,
    CATEGORY,
    CRYPTOGRAPHIC,
    DIGEST_BYTES,
    EVALUATION,
    JURISDICTION,
    MAX_TEXT_CHARS,
    SET_NAME,
    FieldGroup,
    HandlingCode,
    Label,
    Purpose,
    Restriction,
    VictimStatus,
    require,
)

# A reference or pseudonym is one line without leading or trailing blanks; anything else is a mistake of an export.
REFERENCE = re.compile(r"[^\x00-\x20\x7f-\x9f](?:[^\x00-\x1f\x7f-\x9f]{0,126}[^\x00-\x20\x7f-\x9f])?")
# What XML 1.0 can carry, as a person writes it: lines and tabs, no other control characters, nothing outside Unicode.
TEXT = re.compile("[^\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]*")
MAX_NOTE_CHARS = 4_000  # a clue, a summary, a description: two pages; more belongs into the case system
MAX_PARTS = 256  # clues, places, persons or victims of one case
MAX_STEPS = 64  # of one victim's status
MAX_ENTRIES = 4_096  # hash entries that one case names; a case with more names its set or its series
MAX_AGE_YEARS = 120
CASES_SET = "cases"  # under this name policy judges an agency's case records, as it judges a set's entries

CASE_GROUPS = (
    FieldGroup.EXISTENCE,
    FieldGroup.CRYPTOGRAPHIC_DIGESTS,
    FieldGroup.PERCEPTUAL_DIGESTS,
    FieldGroup.SERIES,
    FieldGroup.VICTIM_STATUS,
    FieldGroup.CASE_SUMMARY,
    FieldGroup.CLUES,
    FieldGroup.PERSONS,
    FieldGroup.CONTACT,
)


class Urgency(StrEnum):
    """How soon somebody must look. CHILD_AT_RISK: a child is believed to be in danger now."""

    ROUTINE = "routine"
    PRIORITY = "priority"
    CHILD_AT_RISK = "child_at_risk"


class ClueKind(StrEnum):
    """What kind of thing is visible or audible in the background."""

    OBJECT = "object"
    PRODUCT = "product"
    WRITING = "writing"
    SPEECH = "speech"
    INTERIOR = "interior"
    BUILDING = "building"
    LANDSCAPE = "landscape"
    VEGETATION = "vegetation"
    CLOTHING = "clothing"
    VEHICLE = "vehicle"
    DEVICE_DATA = "device_data"
    ACCOUNT = "account"
    OTHER = "other"


class ClueSource(StrEnum):
    """Who or what says so."""

    ANALYST = "analyst"
    LABORATORY = "laboratory"
    OPEN_SOURCE = "open_source"
    DEVICE_DATA = "device_data"
    HOTLINE = "hotline"
    PARTNER = "partner"
    PUBLIC = "public"
    OTHER = "other"


class MarkKind(StrEnum):
    """What kind of distinguishing mark an unknown person bears."""

    TATTOO = "tattoo"
    SCAR = "scar"
    BIRTHMARK = "birthmark"
    PIERCING = "piercing"
    JEWELLERY = "jewellery"
    VOICE = "voice"
    OTHER = "other"


class Sex(StrEnum):
    """As it appears."""

    FEMALE = "female"
    MALE = "male"
    UNKNOWN = "unknown"


class PersonRole(StrEnum):
    """Why a person who was seen matters."""

    UNKNOWN_ADULT = "unknown_adult"
    SUSPECT = "suspect"
    WITNESS = "witness"


@dataclass(frozen=True, slots=True)
class Age:
    """How old somebody appears to be: full years, both ends included."""

    low: int
    high: int

    def __post_init__(self) -> None:
        require(0 <= self.low <= self.high <= MAX_AGE_YEARS, "age: not a range of years")


@dataclass(frozen=True, slots=True)
class StatusStep:
    """One step of a victim's status: since `at` (Unix seconds) `owner` says so. `reason` where a status was lowered."""

    status: VictimStatus
    owner: str
    at: int
    reason: str = ""

    def __post_init__(self) -> None:
        words = VictimStatus.UNKNOWN, VictimStatus.WITHHELD
        require(self.status not in words, "victim: a status that nobody can assert")
        require(AGENCY.fullmatch(self.owner), "victim: the status' owner is not an agency code")
        _instant(self.at, "victim: the status' date")
        _line(self.reason, "victim: the status' reason", empty=True)


@dataclass(frozen=True, slots=True)
class Victim:
    """A child, under a pseudonym that says nothing. `history`: oldest step first; the last is the status now."""

    ref: str
    history: tuple[StatusStep, ...] = ()
    age: Age | None = None
    sex: Sex = Sex.UNKNOWN

    def __post_init__(self) -> None:
        _reference(self.ref, "victim: ref")
        require(len(self.history) <= MAX_STEPS, "victim: too many status steps")
        times = [step.at for step in self.history]
        require(times == sorted(times), "victim: the status steps are not in the order of their dates")

    @property
    def status(self) -> VictimStatus:
        """The status now; UNKNOWN where none is stated."""
        return self.history[-1].status if self.history else VictimStatus.UNKNOWN


@dataclass(frozen=True, slots=True)
class Clue:
    """What is visible. `confidence` is in percent; `observed`: the day on which it was read, if stated."""

    kind: ClueKind
    text: str
    confidence: int
    source: ClueSource
    observed: date | None = None

    def __post_init__(self) -> None:
        _note(self.text, "clue: text")
        _percent(self.confidence, "clue: confidence")


@dataclass(frozen=True, slots=True)
class TimeFrame:
    """When: from the first to the last day on which the material can have been made; one end may be open."""

    earliest: date | None
    latest: date | None
    confidence: int
    source: ClueSource
    text: str = ""

    def __post_init__(self) -> None:
        require(self.earliest or self.latest, "time frame: both ends are open")
        if self.earliest and self.latest:
            require(self.earliest <= self.latest, "time frame: it ends before it begins")
        _percent(self.confidence, "time frame: confidence")
        _note(self.text, "time frame: text", empty=True)


@dataclass(frozen=True, slots=True)
class Place:
    """Where: a country (ISO 3166-1 alpha-2), in it a region (ISO 3166-2 code or a name), then words.

    A place without a country has words only ("coast, cold climate"): it points to nobody.
    """

    country: str
    region: str
    text: str
    confidence: int
    source: ClueSource

    def __post_init__(self) -> None:
        require(not self.country or JURISDICTION.fullmatch(self.country), "place: country is not two capital letters")
        require(self.country or not self.region, "place: a region without its country")
        require(self.country or self.text, "place: neither a country nor words")
        _line(self.region, "place: region", empty=True)
        _note(self.text, "place: text", empty=True)
        _percent(self.confidence, "place: confidence")


@dataclass(frozen=True, slots=True)
class Mark:
    """A distinguishing mark: what it is, where on the body (words, may be empty), what it looks or sounds like."""

    kind: MarkKind
    body_part: str
    text: str

    def __post_init__(self) -> None:
        _line(self.body_part, "mark: body part", empty=True)
        _note(self.text, "mark: text")


@dataclass(frozen=True, slots=True)
class Person:
    """A person who was seen and is not known by name (a John or Jane Doe).

    `releasable`: the originator allows that marks and description are shown to the public, after approval.
    """

    ref: str
    role: PersonRole
    marks: tuple[Mark, ...] = ()
    description: str = ""
    age: Age | None = None
    sex: Sex = Sex.UNKNOWN
    releasable: bool = False

    def __post_init__(self) -> None:
        _reference(self.ref, "person: ref")
        require(len(self.marks) <= MAX_PARTS, "person: too many marks")
        _note(self.description, "person: description", empty=True)


@dataclass(frozen=True, slots=True)
class SeriesName:
    """A series of material with one victim or offender behind it: the name, who gave it, other names of the same."""

    name: str
    owner: str
    aliases: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _line(self.name, "series: name")
        require(AGENCY.fullmatch(self.owner), "series: the owner is not an agency code")
        require(tuple(sorted(set(self.aliases))) == self.aliases, "series: aliases are not sorted")
        require(len(self.aliases) <= MAX_PARTS, "series: too many aliases")
        for alias in self.aliases:
            _line(alias, "series: alias")


@dataclass(frozen=True, slots=True)
class EntryReference:
    """Hash entries that belong to the case: by set and entry id, by digest, or both.

    `digests`: pairs of algorithm and canonical bytes, sorted; cryptographic ones and `pdq` alone.
    """

    set_name: str = ""
    entry_id: int = 0
    digests: tuple[tuple[str, bytes], ...] = ()

    def __post_init__(self) -> None:
        require(bool(self.set_name) == bool(self.entry_id), "entry reference: set and entry go together")
        require(not self.set_name or SET_NAME.fullmatch(self.set_name), "entry reference: set name is not AGENCY/name")
        require(0 <= self.entry_id < 1 << 64, "entry reference: entry id is not of 64 bits")
        require(self.set_name or self.digests, "entry reference: it names nothing")
        algorithms = [name for name, _ in self.digests]
        require(algorithms == sorted(set(algorithms)), "entry reference: digests are not sorted by algorithm")
        for name, value in self.digests:
            require(name in (*CRYPTOGRAPHIC, "pdq"), "entry reference: an algorithm that a case does not name")
            require(len(value) == DIGEST_BYTES[name], "entry reference: a digest of the wrong length")


@dataclass(frozen=True, slots=True)
class Contact:
    """Whom to call: a unit, never a person's private data. `duty_telephone` is answered at any hour."""

    unit: str
    telephone: str = ""
    email: str = ""
    duty_telephone: str = ""

    def __post_init__(self) -> None:
        _line(self.unit, "contact: unit")
        for name, text in (("telephone", self.telephone), ("email", self.email), ("duty", self.duty_telephone)):
            _line(text, f"contact: {name}", empty=True)


@dataclass(frozen=True, slots=True)
class CaseRecord:
    """One version of one case. Key: (originator, reference). Times are Unix seconds (UTC).

    What is None or empty was not stated. `extensions`: pairs of name and text, sorted by name, for what an agreement
    adds: the one place where a report may hold what this version of the contract does not know.
    """

    originator: str
    reference: str
    version: int
    opened: int
    updated: int
    handling: HandlingCode | None = None
    category: str = ""
    evaluation: str = ""
    legal_basis: str = ""
    purpose: Purpose | None = None
    review_on: date | None = None
    restrictions: tuple[Restriction, ...] = ()
    onward: tuple[str, ...] = ()
    urgency: Urgency = Urgency.ROUTINE
    summary: str = ""
    series: tuple[SeriesName, ...] = ()
    victims: tuple[Victim, ...] = ()
    clues: tuple[Clue, ...] = ()
    time_frames: tuple[TimeFrame, ...] = ()
    places: tuple[Place, ...] = ()
    persons: tuple[Person, ...] = ()
    entries: tuple[EntryReference, ...] = ()
    contact: Contact | None = None
    extensions: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        require(AGENCY.fullmatch(self.originator), "case: originator is not an agency code")
        _reference(self.reference, "case: reference")
        require(0 < self.version < 1 << 31, "case: version is not a positive number")
        _instant(self.opened, "case: opened")
        _instant(self.updated, "case: updated")
        require(self.opened <= self.updated, "case: it was updated before it was opened")
        require(not self.category or CATEGORY.fullmatch(self.category), "case: category is not scheme:code")
        require(not self.evaluation or EVALUATION.fullmatch(self.evaluation), "case: evaluation is not A-F and 1-6")
        _line(self.legal_basis, "case: legal basis", empty=True)
        require(tuple(sorted(set(self.restrictions))) == self.restrictions, "case: restrictions are not sorted")
        require(tuple(sorted(set(self.onward))) == self.onward, "case: onward is not sorted")
        require(all(JURISDICTION.fullmatch(code) for code in self.onward), "case: onward names no jurisdiction")
        _note(self.summary, "case: summary", empty=True)
        for parts in (self.series, self.victims, self.clues, self.time_frames, self.places, self.persons):
            require(len(parts) <= MAX_PARTS, "case: too many parts of one kind")
        require(len(self.entries) <= MAX_ENTRIES, "case: too many hash entries")
        _unique([victim.ref for victim in self.victims], "case: a victim's ref stands twice")
        _unique([person.ref for person in self.persons], "case: a person's ref stands twice")
        names = [name for name, _ in self.extensions]
        require(names == sorted(set(names)) and len(names) <= MAX_PARTS, "case: extensions are not sorted by name")
        for name, text in self.extensions:
            _line(name, "case: extension's name")
            _note(text, "case: extension", empty=True)

    @property
    def missing(self) -> tuple[str, ...]:
        """What law and policy need and nobody has stated yet: with any of it missing a case goes nowhere."""
        needed = {
            "handling": self.handling,
            "category": self.category,
            "evaluation": self.evaluation,
            "legal_basis": self.legal_basis,
            "purpose": self.purpose,
            "review_on": self.review_on,
            "contact": self.contact,
        }
        return tuple(name for name, value in needed.items() if not value)

    @property
    def victim_status(self) -> VictimStatus:
        """The status of the child who is furthest from being safe; UNKNOWN without any.

        Policy judges a case by it: as long as one child is not identified, the case is about a search.
        """
        order = list(VictimStatus)
        return min((victim.status for victim in self.victims), key=order.index, default=VictimStatus.UNKNOWN)

    @property
    def label(self) -> Label:
        """What policy judges. MalformedError while something is `missing`."""
        require(not self.missing, "case: what policy judges by is not stated yet")
        assert self.handling is not None
        return Label(
            self.originator,
            self.originator[:2],
            self.handling,
            self.category,
            self.victim_status,
            self.evaluation,
            self.legal_basis,
            self.restrictions,
            self.onward,
        )


def _reference(text: str, name: str) -> None:
    require(REFERENCE.fullmatch(text), f"{name} is not one line of 1 to 128 characters")
    _line(text, name)


def _line(text: str, name: str, *, empty: bool = False) -> None:
    require(empty or text, f"{name} is missing")
    require(len(text) <= MAX_TEXT_CHARS, f"{name} is too long")
    require(TEXT.fullmatch(text) and not set("\n\t") & set(text), f"{name} is not one line of text")
    require(text == text.strip(" "), f"{name} begins or ends with a blank")


def _note(text: str, name: str, *, empty: bool = False) -> None:
    require(empty or text, f"{name} is missing")
    require(len(text) <= MAX_NOTE_CHARS, f"{name} is too long")
    require(TEXT.fullmatch(text), f"{name} holds control characters")


def _percent(value: int, name: str) -> None:
    require(0 <= value <= 100, f"{name} is not 0 to 100 percent")


def _instant(value: int, name: str) -> None:
    # To the year 9999: what XML's dateTime and people can write.
    require(0 <= value < 253_402_300_800, f"{name} is not a time")


def _unique(values: list[str], message: str) -> None:
    require(len(values) == len(set(values)), message)
