"""Case records of invented facts, and what every test about cases needs around them."""

from __future__ import annotations

from datetime import date
from typing import Any

from factory import LEGAL_BASIS, START_TIME
from gateway.caserecord import (
    Age,
    CaseRecord,
    Clue,
    ClueKind,
    ClueSource,
    Contact,
    EntryReference,
    Mark,
    MarkKind,
    Person,
    PersonRole,
    Place,
    SeriesName,
    Sex,
    StatusStep,
    Urgency,
    Victim,
)
from gateway.model import HandlingCode, Purpose, VictimStatus

REFERENCE, VICTIM, SERIES = "K-2026-0417", "V-17", "Blue Door"
CLUE, SUMMARY, DESCRIPTION = "a light switch as sold in XD", "a room seen three times", "speaks with a soft voice"
SECRETS = (REFERENCE, VICTIM, SERIES, CLUE, SUMMARY, DESCRIPTION)  # what stands nowhere but in a sealed report


def case_record(agency: str = "XA-NCVI", **changes: Any) -> CaseRecord:
    """A complete case; `changes` are other values of its fields."""
    fields: dict[str, Any] = {
        "originator": agency,
        "reference": REFERENCE,
        "version": 1,
        "opened": START_TIME - 86_400,
        "updated": START_TIME,
        "handling": HandlingCode.H1,
        "category": "INTERPOL:CAT1",
        "evaluation": "B2",
        "legal_basis": LEGAL_BASIS,
        "purpose": Purpose.VICTIM_IDENTIFICATION,
        "review_on": date(2027, 6, 30),
        "urgency": Urgency.PRIORITY,
        "summary": SUMMARY,
        "series": (SeriesName(SERIES, agency),),
        "victims": (
            Victim(VICTIM, (StatusStep(VictimStatus.UNIDENTIFIED, agency, START_TIME),), Age(6, 9), Sex.FEMALE),
        ),
        "clues": (Clue(ClueKind.INTERIOR, CLUE, 80, ClueSource.ANALYST),),
        "places": (Place("XD", "", "a town by the sea", 80, ClueSource.LABORATORY),),
        "persons": (
            Person(
                "P-1",
                PersonRole.UNKNOWN_ADULT,
                (Mark(MarkKind.TATTOO, "left forearm", "an anchor"),),
                DESCRIPTION,
                Age(30, 40),
                Sex.MALE,
                releasable=True,
            ),
            Person("P-2", PersonRole.WITNESS, (Mark(MarkKind.SCAR, "chin", "a line"),)),
        ),
        "entries": (EntryReference(digests=(("sha256", bytes(range(32))),)),),
        "contact": Contact("XA victim identification unit", "+00 1", "unit@xa.example", "+00 2"),
    }
    return CaseRecord(**{**fields, **changes})


def draft_record(**changes: Any) -> CaseRecord:
    """The same as a case system exports it that knows nothing of the law."""
    nothing: dict[str, Any] = {"handling": None, "legal_basis": "", "purpose": None, "review_on": None, "contact": None}
    return case_record(**{**nothing, **changes})
