"""Any case record, for hypothesis: every field, every optional part, texts with what XML, JSON and CSV find hard."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import date
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from gateway.caserecord import (
    CASE_GROUPS,
    MAX_AGE_YEARS,
    REFERENCE,
    TEXT,
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
    TimeFrame,
    Urgency,
    Victim,
)
from gateway.model import DIGEST_BYTES, FieldGroup, HandlingCode, Purpose, Restriction, VictimStatus

# A record has a hundred fields: on a busy machine drawing one is slow, which is no fault of the test.
SLOW = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
LAST_SECOND = 253_402_300_799
# Blanks at odd places, what has to be escaped, what a spreadsheet runs, what looks like another value.
ODD = (
    "&amp;",
    "]]>",
    "<!-- -->",
    "<?x?>",
    "=1+1",
    "a;b",
    '"q"',
    "a,b",
    "'",
    "\u00e9",
    "\U0001f600",
    "\u2028",
    "a  b",
    "0",
)

_characters = st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\ufffe\uffff")
_odd = st.sampled_from(ODD)


def _fits(text: str) -> bool:
    return bool(REFERENCE.fullmatch(text)) and text == text.strip(" ")


lines = st.one_of(_odd, st.text(_characters, min_size=1, max_size=12).filter(_fits))
maybe_lines = st.one_of(st.just(""), lines)
notes = st.one_of(_odd, st.text(st.one_of(_characters, st.sampled_from("\n\t ")), min_size=1, max_size=24)).filter(
    TEXT.fullmatch
)
maybe_notes = st.one_of(st.just(""), notes)
agencies = st.sampled_from(("XA-NCVI", "XB-POL", "XZ-CYBER2"))
jurisdictions = st.sampled_from(("XA", "XB", "XC", "XD"))
instants = st.one_of(st.sampled_from((0, LAST_SECOND)), st.integers(0, LAST_SECOND))
days = st.dates(date(1, 1, 1), date(9999, 12, 31))
percents = st.integers(0, 100)
sources = st.sampled_from(ClueSource)


@st.composite
def _ages(draw: Any) -> Age:
    low = draw(st.integers(0, MAX_AGE_YEARS))
    return Age(low, draw(st.integers(low, MAX_AGE_YEARS)))


ages = st.one_of(st.none(), _ages())
_asserted = [status for status in VictimStatus if status not in (VictimStatus.UNKNOWN, VictimStatus.WITHHELD)]
steps = st.builds(StatusStep, st.sampled_from(_asserted), agencies, instants, maybe_lines)
histories = st.lists(steps, max_size=3).map(lambda found: tuple(sorted(found, key=lambda step: step.at)))
victims = st.builds(Victim, lines, histories, ages, st.sampled_from(Sex))
clues = st.builds(Clue, st.sampled_from(ClueKind), notes, percents, sources, st.one_of(st.none(), days))
marks = st.builds(Mark, st.sampled_from(MarkKind), maybe_lines, notes)
persons = st.builds(
    Person,
    lines,
    st.sampled_from(PersonRole),
    st.lists(marks, max_size=2).map(tuple),
    maybe_notes,
    ages,
    st.sampled_from(Sex),
    st.booleans(),
)


@st.composite
def _time_frames(draw: Any) -> TimeFrame:
    ends: list[date | None] = sorted(draw(st.lists(days, min_size=1, max_size=2)))
    if len(ends) == 1:
        ends = draw(st.permutations([*ends, None]))
    return TimeFrame(ends[0], ends[1], draw(percents), draw(sources), draw(maybe_notes))


@st.composite
def _places(draw: Any) -> Place:
    country = draw(st.one_of(st.just(""), jurisdictions))
    text = draw(maybe_notes if country else notes)
    return Place(country, draw(maybe_lines) if country else "", text, draw(percents), draw(sources))


@st.composite
def _digests(draw: Any, least: int) -> tuple[tuple[str, bytes], ...]:
    names = draw(st.sets(st.sampled_from(("md5", "sha1", "sha256", "sha512", "pdq")), min_size=least))
    sizes = {name: DIGEST_BYTES[name] or 0 for name in sorted(names)}
    return tuple((name, draw(st.binary(min_size=size, max_size=size).filter(any))) for name, size in sizes.items())


@st.composite
def _entries(draw: Any) -> EntryReference:
    if draw(st.booleans()):
        return EntryReference(digests=draw(_digests(1)))
    return EntryReference("XA-NCVI/identified-victims", draw(st.integers(1, (1 << 64) - 1)), draw(_digests(0)))


def _sorted_set(elements: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.sets(elements, max_size=3).map(lambda found: tuple(sorted(found)))


def _few(elements: st.SearchStrategy[Any], key: Any = None) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(elements, max_size=2, unique_by=key).map(tuple)


series = st.builds(SeriesName, lines, agencies, _sorted_set(lines))
contacts = st.builds(Contact, lines, maybe_lines, maybe_lines, maybe_lines)


@st.composite
def case_records(draw: Any, *, complete: bool | None = None) -> CaseRecord:
    """A record; `complete`: whether all that law and policy need is stated (None: as it falls)."""
    opened, updated = sorted((draw(instants), draw(instants)))
    whole = draw(st.booleans()) if complete is None else complete

    def stated(values: st.SearchStrategy[Any], empty: Any) -> Any:
        return draw(values if whole else st.one_of(st.just(empty), values))

    record = CaseRecord(
        originator=draw(agencies),
        reference=draw(lines),
        version=draw(st.integers(1, (1 << 31) - 1)),
        opened=opened,
        updated=updated,
        handling=stated(st.sampled_from(HandlingCode), None),
        category=stated(st.sampled_from(("icse:1", "ncmec:A1", "vics-xa:2")), ""),
        evaluation=stated(st.sampled_from(("A1", "F6")), ""),
        legal_basis=stated(lines, ""),
        purpose=stated(st.sampled_from(Purpose), None),
        review_on=stated(days, None),
        restrictions=draw(_sorted_set(st.sampled_from(Restriction))),
        onward=draw(_sorted_set(jurisdictions)),
        urgency=draw(st.sampled_from(Urgency)),
        summary=draw(maybe_notes),
        series=draw(_few(series)),
        victims=draw(_few(victims, lambda victim: victim.ref)),
        clues=draw(_few(clues)),
        time_frames=draw(_few(_time_frames())),
        places=draw(_few(_places())),
        persons=draw(_few(persons, lambda person: person.ref)),
        entries=draw(_few(_entries())),
        contact=stated(contacts, None),
        extensions=tuple(sorted(draw(st.dictionaries(lines, maybe_notes, max_size=2)).items())),
    )
    return replace(record, handling=None) if complete is False else record


group_sets = st.sets(st.sampled_from(CASE_GROUPS)).map(lambda found: frozenset({FieldGroup.EXISTENCE, *found}))


def full_case() -> CaseRecord:
    """An invented case with something in every field."""
    return CaseRecord(
        originator="XA-NCVI",
        reference="2026/0417",
        version=3,
        opened=1_788_000_000,
        updated=1_788_259_200,
        handling=HandlingCode.H1,
        category="icse:1",
        evaluation="B2",
        legal_basis="XA Act on Child Protection, section 12",
        purpose=Purpose.VICTIM_IDENTIFICATION,
        review_on=date(2027, 8, 30),
        restrictions=(Restriction.ORIGINATOR_CONTROL,),
        onward=("XB", "XD"),
        urgency=Urgency.PRIORITY,
        summary="One child in one flat.\nThe material came with a hotline's report.",
        series=(SeriesName("Blue Curtain", "XA-NCVI", ("Curtain", "Rideau bleu")),),
        victims=(
            Victim(
                "V-1",
                (
                    StatusStep(VictimStatus.UNIDENTIFIED, "XA-NCVI", 1_788_000_000),
                    StatusStep(VictimStatus.LEAD, "XD-NCVI", 1_788_200_000, "a school was recognised"),
                ),
                Age(8, 11),
                Sex.FEMALE,
            ),
            Victim("V-2"),
        ),
        clues=(
            Clue(ClueKind.PRODUCT, "A yoghurt pot with a price in an invented currency", 80, ClueSource.ANALYST),
            Clue(ClueKind.SPEECH, "A radio voice in the background", 55, ClueSource.LABORATORY, date(2026, 8, 28)),
        ),
        time_frames=(
            TimeFrame(date(2025, 11, 1), date(2026, 2, 28), 60, ClueSource.ANALYST, "snow behind the window"),
            TimeFrame(None, date(2026, 3, 9), 100, ClueSource.DEVICE_DATA),
        ),
        places=(
            Place("XD", "XD-07", "a coastal town", 80, ClueSource.OPEN_SOURCE),
            Place("", "", "a cold climate", 30, ClueSource.ANALYST),
        ),
        persons=(
            Person(
                "P-1",
                PersonRole.UNKNOWN_ADULT,
                (Mark(MarkKind.TATTOO, "left forearm", "an anchor with three stars"),),
                "wears a work jacket",
                Age(30, 45),
                Sex.MALE,
                releasable=True,
            ),
        ),
        entries=(
            EntryReference("XA-NCVI/identified-victims", 281_474_976_710_657),
            EntryReference(
                digests=(("md5", hashlib.md5(b"invented").digest()), ("pdq", bytes(range(32)))),
            ),
        ),
        contact=Contact("Victim identification unit", "+000 1 2345", "vid@ncvi.example", "+000 1 9999"),
        extensions=(("xa-docket", "17"), ("xa-note", "")),
    )
