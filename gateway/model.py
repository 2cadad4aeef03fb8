"""The vocabulary: frozen values that every floor shares. No clock, no I/O, no third-party library.

The words are those of `contracts/glossary.md`. Jurisdictions are ISO 3166-1 alpha-2 codes; examples and tests use the
user-assigned range XA…XZ only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import NamedTuple

from gateway.errors import MalformedError

JURISDICTION = re.compile(r"[A-Z]{2}")
AGENCY = re.compile(r"[A-Z]{2}-[A-Z0-9]{2,16}")
# One slash, lower-case name: it travels in URLs, so nothing in it ever needs escaping.
SET_NAME = re.compile(r"[A-Z]{2}-[A-Z0-9]{2,16}/[a-z0-9][a-z0-9-]{0,46}")
CATEGORY = re.compile(r"[A-Za-z0-9._-]{1,32}:[A-Za-z0-9._-]{1,32}")
# Admiralty code: source A-F, information 1-6 (NATO STANAG 2511); F6 = neither can be judged.
EVALUATION = re.compile(r"[A-F][1-6]")
TLS_PIN = re.compile(r"[A-Za-z0-9+/]{43}=")  # base64 of SHA-256 over a SubjectPublicKeyInfo (RFC 7469 2.4)
VENDOR_ALGORITHM = re.compile(r"vendor:[a-z0-9._-]{1,32}")
MAX_TEXT_CHARS = 256  # a series name, a reference, a media type: longer is a mistake, not data
MAX_LABELS = 4096  # labels of one set (DESIGN.md section 2)
TEST_SET_PREFIX = "test-"  # the name of a set of invented data begins so; it alone moves while a partner is under test


class FieldGroup(StrEnum):
    """The unit of redaction: a field leaves only where a permit names its group."""

    EXISTENCE = "existence"
    CRYPTOGRAPHIC_DIGESTS = "cryptographic_digests"
    PERCEPTUAL_DIGESTS = "perceptual_digests"
    SERIES = "series"
    VICTIM_STATUS = "victim_status"
    CASE_SUMMARY = "case_summary"
    CLUES = "clues"
    PERSONS = "persons"
    CONTACT = "contact"


ENTRY_GROUPS = (
    FieldGroup.EXISTENCE,
    FieldGroup.CRYPTOGRAPHIC_DIGESTS,
    FieldGroup.PERCEPTUAL_DIGESTS,
    FieldGroup.SERIES,
    FieldGroup.VICTIM_STATUS,
)


class ChangeKind(IntEnum):
    """What a change says of an entry."""

    ASSERT = 1
    WITHDRAW = 2
    LEAVE = 3


class VictimStatus(StrEnum):
    """How far the search for the child is (DESIGN.md section 2). WITHHELD stands where policy left it out."""

    UNKNOWN = "unknown"
    UNIDENTIFIED = "unidentified"
    LEAD = "lead"
    IDENTIFIED = "identified"
    SAFEGUARDED = "safeguarded"
    CLOSED = "closed"
    WITHHELD = "withheld"


class HandlingCode(StrEnum):
    """Europol's handling codes: H0 for police purposes … H3 only after asking (contracts/glossary.md)."""

    H0 = "H0"
    H1 = "H1"
    H2 = "H2"
    H3 = "H3"


class Restriction(StrEnum):
    """The closed list of restriction tags."""

    EMBARGO = "embargo"
    LEGAL_HOLD = "legal_hold"
    COURT_ORDER = "court_order"
    ORIGINATOR_CONTROL = "originator_control"


class Surface(StrEnum):
    """How bytes reach a partner: sealed for its key, or protected by TLS alone."""

    SEALED = "sealed"
    TLS_ONLY = "tls_only"


class Purpose(StrEnum):
    """What a look-up, a referral or a case is for. A set's own purpose belongs to the set, not to the request."""

    VICTIM_IDENTIFICATION = "victim_identification"
    SAFEGUARDING = "safeguarding"
    PROSECUTION = "prosecution"
    STATISTICS = "statistics"


# Bytes of one digest in its canonical form, None where it is carried as text (FORMATS.md section 8).
DIGEST_BYTES: dict[str, int | None] = {
    "md5": 16,
    "sha1": 20,
    "sha256": 32,
    "sha512": 64,
    "pdq": 32,
    "photodna": 144,
    "ssdeep": None,
    "vpdq": None,
}
CRYPTOGRAPHIC = ("md5", "sha1", "sha256", "sha512")
# An entry without source_ref is recognised again by the first of these that it has.
STRONGEST_FIRST = ("sha512", "sha256", "sha1", "md5", "photodna", "pdq")


@dataclass(frozen=True, slots=True, order=True)
class Label:
    """What policy judges: every attribute is required, none has a silent default on the wire.

    `onward` names the jurisdictions to which the originator lets holders pass the entry on.
    """

    originator: str
    jurisdiction: str
    handling: HandlingCode
    category: str
    victim_status: VictimStatus
    evaluation: str
    legal_basis: str
    restrictions: tuple[Restriction, ...] = ()
    onward: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require(AGENCY.fullmatch(self.originator), "label: originator is not an agency code")
        require(JURISDICTION.fullmatch(self.jurisdiction), "label: jurisdiction is not two capital letters")
        require(CATEGORY.fullmatch(self.category), "label: category is not scheme:code")
        require(EVALUATION.fullmatch(self.evaluation), "label: evaluation is not A-F followed by 1-6")
        require(0 < len(self.legal_basis) <= MAX_TEXT_CHARS, "label: legal_basis is missing or too long")
        require(tuple(sorted(set(self.restrictions))) == self.restrictions, "label: restrictions are not sorted")
        require(tuple(sorted(set(self.onward))) == self.onward, "label: onward is not sorted")
        require(all(JURISDICTION.fullmatch(j) for j in self.onward), "label: onward names no jurisdiction")

    def to_json(self) -> dict[str, object]:
        """The label as the members of a JSON object, every attribute present."""
        return {
            "originator": self.originator,
            "jurisdiction": self.jurisdiction,
            "handling": str(self.handling),
            "category": self.category,
            "victim_status": str(self.victim_status),
            "evaluation": self.evaluation,
            "legal_basis": self.legal_basis,
            "restrictions": [str(r) for r in self.restrictions],
            "onward": list(self.onward),
        }

    @classmethod
    def from_json(cls, value: object) -> Label:
        """The label that `to_json` wrote; an absent, extra or ill-typed member is refused."""
        names = ("originator", "jurisdiction", "handling", "category", "victim_status", "evaluation", "legal_basis")
        if not isinstance(value, dict) or set(value) != {*names, "restrictions", "onward"}:
            raise MalformedError("label: members are not those of the contract")
        texts = [text_member(value, name) for name in names]
        try:
            return cls(
                texts[0],
                texts[1],
                HandlingCode(texts[2]),
                texts[3],
                VictimStatus(texts[4]),
                texts[5],
                texts[6],
                tuple(Restriction(r) for r in texts_member(value, "restrictions")),
                texts_member(value, "onward"),
            )
        except ValueError as error:
            raise MalformedError("label: a word outside its closed list") from error


class LabelWords(NamedTuple):
    """What an entry says of its label. An empty word is not stated: the set's default stands in for it."""

    handling: HandlingCode | None = None
    category: str = ""
    victim_status: VictimStatus | None = None
    evaluation: str = ""
    restrictions: tuple[Restriction, ...] = ()


class EntryDraft(NamedTuple):
    """One entry as an adapter read it, before the owner's set gives it an id: how a person looks at a single row.

    Where they come by the million they travel as columns (`columns.drafts`). `digests` maps algorithm to canonical
    bytes (text algorithms: UTF-8). An empty field means "not stated": the set's default stands in for a label
    attribute, and nothing is guessed for the rest. `seen`: Unix seconds, 0 = not stated.
    """

    digests: dict[str, bytes]
    source_ref: str = ""
    media_type: str = ""
    category: str = ""
    series: str = ""
    victim_ref: str = ""
    victim_status: VictimStatus | None = None
    evaluation: str = ""
    handling: HandlingCode | None = None
    restrictions: tuple[Restriction, ...] = ()
    pdq_quality: int = 0
    seen: int = 0

    @property
    def words(self) -> LabelWords:
        """What it says of its label."""
        return LabelWords(self.handling, self.category, self.victim_status, self.evaluation, self.restrictions)


@dataclass(frozen=True, slots=True)
class RefusedRow:
    """One input row that was left out: where it stood, which field, why. Never its value."""

    line: int
    field: str
    reason: str


@dataclass(slots=True)
class AdapterReport:
    """What an adapter read, accepted, refused and dropped. Filled while the rows stream; complete at the end.

    `refused_rows` keeps the first `MAX_KEPT`; `refused` counts them all.
    """

    MAX_KEPT = 10_000

    format: str
    read: int = 0
    accepted: int = 0
    refused: int = 0
    refused_rows: list[RefusedRow] = field(default_factory=list)
    dropped_fields: dict[str, int] = field(default_factory=dict)

    def refuse(self, line: int, field_name: str, reason: str) -> None:
        """Count and keep one refused row."""
        self.refused += 1
        if len(self.refused_rows) < self.MAX_KEPT:
            self.refused_rows.append(RefusedRow(line, field_name, reason))

    def drop(self, field_name: str, count: int = 1) -> None:
        """Count values of a field that this gateway does not carry."""
        self.dropped_fields[field_name] = self.dropped_fields.get(field_name, 0) + count


def is_test_set(name: str) -> bool:
    """Whether a set's full name says that its data are invented."""
    return name.partition("/")[2].startswith(TEST_SET_PREFIX)


def require(condition: object, message: str) -> None:
    """Raise MalformedError unless the condition holds."""
    if not condition:
        raise MalformedError(message)


def text_member(value: dict[str, object], name: str) -> str:
    """The member `name` as text."""
    found = value.get(name)
    if not isinstance(found, str):
        raise MalformedError(f"{name} is not text")
    return found


def int_member(value: dict[str, object], name: str) -> int:
    """The member `name` as a non-negative integer."""
    found = value.get(name)
    if not isinstance(found, int) or isinstance(found, bool) or found < 0:
        raise MalformedError(f"{name} is not a non-negative integer")
    return found


def texts_member(value: dict[str, object], name: str) -> tuple[str, ...]:
    """The member `name` as a tuple of texts."""
    found = value.get(name)
    if not isinstance(found, list) or not all(isinstance(v, str) for v in found):
        raise MalformedError(f"{name} is not a list of texts")
    return tuple(found)
