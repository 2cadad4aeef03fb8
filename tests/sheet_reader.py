"""Decides by share.md alone: reads the tables that `policy.describe` writes as a lawyer would, and knows no Cedar.

It shares no code with the gateway's policy package but the values that go in. Where it and the engine disagree, a sheet
has left something out or said it wrongly.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from gateway.policy import ShareRequest

Reading = Callable[[ShareRequest], object]
Condition = Callable[[ShareRequest], bool]

THINGS: dict[str, Reading] = {
    "the partner's agency": lambda r: r.partner.agency,
    "the partner's jurisdiction": lambda r: r.partner.jurisdiction,
    "the set": lambda r: r.held.set_name,
    "the originator": lambda r: r.held.label.originator,
    "the originator's jurisdiction": lambda r: r.held.label.jurisdiction,
    "the handling code": lambda r: str(r.held.label.handling),
    "the category": lambda r: r.held.label.category,
    "the victim status": lambda r: str(r.held.label.victim_status),
    "the grade of the source": lambda r: r.held.label.evaluation[0],
    "the grade of the information": lambda r: int(r.held.label.evaluation[1]),
    "the legal basis": lambda r: r.held.label.legal_basis,
    "the list of restrictions": lambda r: {str(tag) for tag in r.held.label.restrictions},
    "the onward grant": lambda r: set(r.held.label.onward),
    "the surface": lambda r: str(r.surface),
    "the purpose": lambda r: str(r.purpose),
}
THING = "|".join(sorted(THINGS, key=len, reverse=True))
RELATIONS: dict[str, Callable[..., bool]] = {
    "is one of": lambda one, listed: one in listed,
    "is not": lambda one, other: one != other,
    "is at most": lambda one, other: one <= other,
    "is at least": lambda one, other: one >= other,
    "is below": lambda one, other: one < other,
    "is above": lambda one, other: one > other,
    "is empty": lambda many, _: not many,
    "is": lambda one, other: one == other,
    "includes all of": lambda many, listed: set(listed) <= many,
    "includes any of": lambda many, listed: bool(set(listed) & many),
    "includes": lambda many, one: one in many,
    "begins with": lambda text, start: text.startswith(start),
    "ends with": lambda text, end: text.endswith(end),
    "has in it": lambda text, part: part in text,
}
LISTED = ("is one of", "includes all of", "includes any of")
DUTIES = {
    "pass on to nobody": "no_onward",
    "tell the originator": "notify_originator",
    "use in court only with leave": "court_use_needs_leave",
}
GROUPS = (
    *("existence", "cryptographic digests", "perceptual digests", "series", "victim status"),
    *("case summary", "clues", "persons", "contact"),
)
APPROVED = "be referred cases that two administrators approve"
SHARES = {f"share_{group.replace(' ', '_')}" for group in GROUPS}


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a table."""

    partners: frozenset[str] | None
    rule: str
    may: bool
    actions: frozenset[str]
    holds: Condition
    duties: frozenset[str]
    approved: bool


def read(sheets: Iterable[str]) -> list[Line]:
    """The lines of all tables."""
    rows = [line for sheet in sheets for line in sheet.splitlines() if re.match(r"\| .* \| (may|never) \|", line)]
    return [_line([cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]]) for row in rows]


def decide(lines: list[Line], step: ShareRequest) -> tuple[bool, list[str], set[str]]:
    """Whether one step is allowed, by which rules, with which duties."""
    hits = [
        line
        for line in lines
        if (line.partners is None or step.partner.jurisdiction in line.partners)
        and str(step.action) in line.actions
        and line.holds(step)
    ]
    closing = sorted(line.rule for line in hits if not line.may)
    if closing or not hits:
        return False, closing, set()
    return True, sorted(line.rule for line in hits), {duty for line in hits for duty in line.duties}


def _line(cells: list[str]) -> Line:
    partner, rule, word, what, when, duties, _law, _until = cells
    return Line(
        partners=None if partner == "every partner" else frozenset(partner.split(", ")),
        rule=rule,
        may=word == "may",
        actions=frozenset(action for deed in what.split("; ") for action in _deed(deed)),
        holds=_all(when),
        duties=frozenset(_duty(duty) for duty in duties.split("; ") if duty != "none"),
        approved=what == APPROVED,
    )


def _deed(deed: str) -> set[str]:
    whole = {
        "be told anything": {*SHARES, "forward", "look_up", "refer"},
        "receive any field group": SHARES,
        "be passed the entries of a third jurisdiction": {"forward"},
        "look up entries": {"look_up"},
        "be referred cases": {"refer"},
        APPROVED: {"refer"},
    }
    if deed in whole:
        return whole[deed]
    if deed.startswith("give entries to "):
        return {"receive"}
    groups = re.split(r", | and | or ", deed.removeprefix("receive "))
    assert set(groups) <= set(GROUPS), deed
    return {f"share_{group.replace(' ', '_')}" for group in groups}


def _duty(duty: str) -> str:
    counted = re.fullmatch(r"(delete after|acknowledge within) (\d+) days?", duty)
    if counted is None:
        return DUTIES[duty]
    return f"{'retain' if counted[1] == 'delete after' else 'acknowledge_within'}_days({counted[2]})"


def _all(when: str) -> Condition:
    if when == "always":
        return lambda _: True
    conditions = [
        (word == "if", _expression(text))
        for word, text in (part.split(" ", 1) for part in re.split(r", and (?=if |unless )", when))
    ]
    return lambda request: all(holds(request) == wanted for wanted, holds in conditions)


def _expression(text: str) -> Condition:
    for joint, every in (("and", True), ("or", False)):
        parts = list(_split(text, f" {joint} "))
        if len(parts) > 1:
            inner = [_expression(part) for part in parts]
            return lambda r: (all if every else any)(holds(r) for holds in inner)
    if text.startswith("not ("):
        negated = _expression(text[5:-1])
        return lambda r: not negated(r)
    return _expression(text[1:-1]) if text.startswith("(") else _atom(text)


def _split(text: str, joint: str) -> Iterator[str]:
    """The parts of a text between `joint`, where that is outside of brackets and quotation marks."""
    depth, start = 0, 0
    for place, mark in enumerate(text):
        depth += (mark in "(“") - (mark in ")”")
        if depth == 0 and text.startswith(joint, place):
            yield text[start:place]
            start = place + len(joint)
    yield text[start:]


def _atom(text: str) -> Condition:
    of_all = re.fullmatch(rf"(everything|something) in ({THING}) is one of (.+)", text)
    if of_all:
        many, listed = THINGS[of_all[2]], _values(of_all[3])
        return lambda r: (all if of_all[1] == "everything" else any)(one in listed(r) for one in many(r))  # type: ignore[attr-defined]  # a set
    found = re.fullmatch(rf"({THING}) ({'|'.join(RELATIONS)})(?: (.+))?", text)
    assert found is not None, text
    left, relation = THINGS[found[1]], RELATIONS[found[2]]
    right: Reading = _values(found[3]) if found[2] in LISTED else _value(found[3] or "0")
    return lambda r: relation(left(r), right(r))


def _values(text: str) -> Callable[[ShareRequest], list[object]]:
    values = [_value(part) for part in _split(text, ", ")]
    return lambda r: [value(r) for value in values]


def _value(text: str) -> Reading:
    if text in THINGS:
        return THINGS[text]
    word: object = int(text) if text.isdigit() else text.replace("TLS alone", "tls_only").replace(" ", "_")
    if text.startswith("“"):
        word = re.sub(r"\\(.)", r"\1", text[1:-1])
    return lambda _: word
