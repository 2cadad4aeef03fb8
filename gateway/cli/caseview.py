"""How a case is shown: its texts stay folded until they are asked for, since reading them all day harms people."""

from __future__ import annotations

from dataclasses import asdict

from gateway.caserecord import Age, CaseRecord
from gateway.cases import HeldCase
from gateway.cli.shell import amount, bold, plain
from gateway.store.tables import CaseRow


def case_value(held: HeldCase, *, clues: bool, descriptions: bool) -> dict[str, object]:
    """A case as JSON has it; folded texts are counted only."""
    record, row = held.record, held.row
    value: dict[str, object] = {
        **row_value(row),
        "reference": record.reference,
        "groups": row.groups.split(),
        "obligations": row.obligations.split(),
        "handling": record.handling,
        "category": record.category,
        "evaluation": record.evaluation,
        "legal_basis": record.legal_basis,
        "purpose": record.purpose,
        "restrictions": list(record.restrictions),
        "onward": list(record.onward),
        "victims": [
            {"ref": one.ref, "status": one.status, "sex": one.sex, "age": _age(one.age)} for one in record.victims
        ],
        "series": [one.name for one in record.series],
        "clues": len(record.clues),
        "places": len(record.places),
        "time_frames": len(record.time_frames),
        "persons": len(record.persons),
        "entries": len(record.entries),
        "contact": _contact(record),
    }
    if clues:
        value["clue_texts"] = [
            {"kind": one.kind, "text": one.text, "confidence": one.confidence, "source": one.source}
            for one in record.clues
        ]
        value["place_texts"] = [
            {"country": one.country, "region": one.region, "text": one.text, "confidence": one.confidence}
            for one in record.places
        ]
        value["time_frame_texts"] = [
            {"earliest": one.earliest, "latest": one.latest, "text": one.text, "confidence": one.confidence}
            for one in record.time_frames
        ]
    if descriptions:
        value["summary"] = record.summary
        value["person_texts"] = [
            {
                "ref": one.ref,
                "role": one.role,
                "age": _age(one.age),
                "sex": one.sex,
                "releasable": one.releasable,
                "description": one.description,
                "marks": [{"kind": mark.kind, "where": mark.body_part, "text": mark.text} for mark in one.marks],
            }
            for one in record.persons
        ]
    return value


def case_lines(held: HeldCase, *, clues: bool, descriptions: bool) -> list[str]:
    """A case in words."""
    record, row = held.record, held.row
    withheld = "" if not row.source else f"  groups     {row.groups or 'none'}; what is not named was withheld"
    lines = [
        f"Case {bold(row.id)}, {record.originator} {plain(record.reference)}, version {row.version}: {row.state}",
        f"  urgency    {row.urgency}",
        f"  law        {plain(record.legal_basis) or '-'}",
        f"  purpose    {record.purpose or '-'}; handling {record.handling or '-'}",
        f"  category   {plain(record.category) or '-'}; evaluation {record.evaluation or '-'}",
        f"  review on  {row.review_on or '-'}",
        f"  missing    {row.missing.replace(' ', ', ') or 'nothing'}",
        *([withheld] if withheld else []),
        *([f"  duties     {row.obligations.replace(' ', ', ') or 'none'}"] if row.source else []),
        *(
            f"  victim     {plain(one.ref)}: {one.status}, {one.sex}, age {_age(one.age) or '-'}"
            for one in record.victims
        ),
        f"  series     {plain(', '.join(one.name for one in record.series)) or '-'}",
        f"  entries    {amount(len(record.entries), 'hash entry', 'hash entries')}",
        *(f"  contact    {plain(text)}" for text in _contact(record).values() if text),
    ]
    if clues:
        lines += [f"  clue       {one.kind}, {one.confidence} %: {plain(one.text)}" for one in record.clues]
        lines += [
            f"  place      {_place(one.country, one.region, one.text)}, {one.confidence} %" for one in record.places
        ]
        lines += [
            f"  time       {one.earliest or '…'} to {one.latest or '…'}, {one.confidence} %: {plain(one.text) or '-'}"
            for one in record.time_frames
        ]
    else:
        folded = len(record.clues) + len(record.places) + len(record.time_frames)
        lines.append(f"  clues      {amount(folded, 'clue')} folded; --clues shows them")
    if descriptions:
        lines.append(f"  summary    {plain(record.summary) or '-'}")
        for one in record.persons:
            lines.append(f"  person     {plain(one.ref)}, {one.role}, {one.sex}, age {_age(one.age) or '-'}")
            lines.append(f"             {plain(one.description) or '-'}")
            lines += [
                f"             {mark.kind}, {plain(mark.body_part) or '-'}: {plain(mark.text)}" for mark in one.marks
            ]
    else:
        lines.append(f"  persons    {amount(len(record.persons), 'person')} folded; --descriptions shows them")
    return lines


def row_value(row: CaseRow) -> dict[str, object]:
    """What is told of a case without opening it."""
    return {
        "case": row.id,
        "state": row.state,
        "urgency": row.urgency,
        "victim_status": row.victim_status,
        "version": row.version,
        "from": row.source or row.originator,
        "missing": row.missing.split(),
        "review_on": row.review_on,
        "keep_until": row.keep_until,
        "arrived": row.arrived,
        "changed": row.changed,
    }


def _age(age: Age | None) -> str:
    return "" if age is None else f"{age.low}-{age.high}"


def _contact(record: CaseRecord) -> dict[str, str]:
    return {} if record.contact is None else asdict(record.contact)


def _place(country: str, region: str, text: str) -> str:
    return plain(" › ".join(one for one in (country, region, text) if one))
