"""Rules in words: a sheet for each folder, made from the rules themselves, so that a lawyer need not read Cedar.

Everything that a rule says stands on the sheet: whom it is about, what it opens or closes, every condition, every duty,
its law, who reviewed it, its date. A rule with a construct that has no words here is refused with its name. It is never
left out and never said roughly: two rules that differ read differently.

    sheets = describe(texts)
    sheets["XA/share.md"]

What is described is the engine's own form of a rule: Cedar's JSON policy format
(docs.cedarpolicy.com/policies/json-format.html).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from gateway.errors import ConfigError
from gateway.policy.loading import FEDERATION, agreements, load_rules, parse_schema, sort_texts
from gateway.policy.words import COUNTED, Action, Duty, Obligation, Rule, RuleKind

SHEET = "share.md"

Form = dict[str, object]
EVERYTHING = {"op": "All"}  # a scope that leaves nothing out

MARKDOWN = re.compile(r"[\\`*_\[\]<>|#~&]")  # what a line of text must not do on a sheet
SIMPLE_PATTERN = re.compile(r"[^*“”]+")

ATTRIBUTES = {
    "principal.agency": "the partner's agency",
    "principal.jurisdiction": "the partner's jurisdiction",
    "resource.set_name": "the set",
    "resource.originator": "the originator",
    "resource.jurisdiction": "the originator's jurisdiction",
    "resource.handling": "the handling code",
    "resource.category": "the category",
    "resource.victim_status": "the victim status",
    "resource.evaluation.source": "the grade of the source",
    "resource.evaluation.information": "the grade of the information",
    "resource.legal_basis": "the legal basis",
    "resource.restrictions": "the list of restrictions",
    "resource.onward": "the onward grant",
    "context.surface": "the surface",
    "context.purpose": "the purpose",
}
LISTED = {"tls_only": "TLS alone"}  # words of closed lists that do not read well with a space for each _
COMPARED = {"==": "is", "!=": "is not", "<": "is below", "<=": "is at most", ">": "is above", ">=": "is at least"}
INCLUDED = {"contains": "includes", "containsAll": "includes all of", "containsAny": "includes any of"}
JOINED = {"&&": "and", "||": "or"}

DUTIES = {
    Duty.RETAIN_DAYS: "delete after {days} days",
    Duty.NO_ONWARD: "pass on to nobody",
    Duty.NOTIFY_ORIGINATOR: "tell the originator",
    Duty.ACKNOWLEDGE_WITHIN_DAYS: "acknowledge within {days} days",
    Duty.COURT_USE_NEEDS_LEAVE: "use in court only with leave",
}

DEEDS = {
    Action.FORWARD: "be passed the entries of a third jurisdiction",
    Action.LOOK_UP: "look up entries",
    Action.REFER: "be referred cases",
}
APPROVED = "be referred cases that two administrators approve"
ACTION_GROUPS = {"share": "receive any field group", "disclose": "be told anything"}
KNOWN_ACTIONS = {*ACTION_GROUPS, *(str(action) for action in Action)}

HEAD = """\
# What {us} gives, takes and answers

Made from the rules in this folder by `gateway policy describe`; do not edit. The rules decide; this sheet explains.

What no rule permits is refused. A rule that says *never* wins over every rule that says *may*. Whoever receives
anything of an entry also needs leave to receive its existence, and for an entry of a third jurisdiction leave to be
passed it; the duties of all these rules hold together, and of two times the shorter. "Be told anything" means: receive
any field group, be passed an entry, look it up, be referred it.
"""
EVERYONE = "every gateway of the federation"
BESIDE = "The [rules of the federation](../00-federation/share.md) hold as well.\n"
TABLE = """\
| partner | rule | | what | when | duties of the receiver | law | valid until |
| --- | --- | --- | --- | --- | --- | --- | --- |
"""


def describe(texts: Mapping[str, str]) -> dict[str, str]:
    """The sheet of each folder among these texts, by its path: `00-federation/share.md` and `XA/share.md`.

    The sheets speak of every rule with its dates and are the same on every day.

    Raises:
        ConfigError: a rule is not sound, or has no words here; it names file and rule.
    """
    placed = sort_texts(texts)
    loaded = load_rules(placed, parse_schema(placed.schema))
    named = agreements(placed.rules, placed.jurisdiction)
    described = [_describe(rule, loaded.forms[rule.id], named) for rule in loaded.rules.values()]
    return {f"{part}/{SHEET}": _sheet(described, part) for part in (FEDERATION, placed.jurisdiction)}


@dataclass(frozen=True, slots=True)
class RuleInWords:
    """One rule, part by part, without the marks of a sheet; `does` is empty where it has no plain words."""

    parts: Mapping[str, str]
    form: Form


def rules_in_words(texts: Mapping[str, str]) -> dict[str, RuleInWords]:
    """Every rule among these texts by its id. ConfigError where a rule is not sound."""
    placed = sort_texts(texts)
    loaded = load_rules(placed, parse_schema(placed.schema))
    named = agreements(placed.rules, placed.jurisdiction)
    found = {}
    for name, rule in loaded.rules.items():
        try:
            words: _Described | None = _describe(rule, loaded.forms[name], named)
        except ConfigError:
            words = None  # it decides all the same
        parts = {
            "does": _unmarked(words.does()) if words else "",
            "says": rule.says,
            "duties": ", ".join(map(str, rule.obligations)),
            "law": rule.law,
            "reviewed by": rule.reviewed_by,
            "valid until": str(rule.valid_until),
            "file": rule.path,
        }
        found[name] = RuleInWords(parts, loaded.forms[name])
    return found


@dataclass(frozen=True, slots=True)
class _Described:
    """One rule in words. `partner` is "" for every partner, `actions` None for all of them."""

    rule: Rule
    partner: str
    actions: tuple[str, ...] | None
    conditions: tuple[str, ...]

    @property
    def us(self) -> str:
        """Who decides by this rule."""
        return "a gateway" if self.rule.path.startswith(FEDERATION) else self.rule.path.split("/")[0]

    @property
    def permits(self) -> bool:
        """True for a permit."""
        return self.rule.kind is RuleKind.PERMIT

    def row(self) -> str:
        """The rule's line of the table."""
        cells = [
            self.partner or "every partner",
            self.rule.id,
            "may" if self.permits else "never",
            "; ".join([*self.theirs(), *([f"give entries to {self.us}"] if self.takes() else [])]),
            self.when() or "always",
            self.duties() or "none",
            plain(self.rule.law),
            f"{self.rule.valid_until}" + ("" if self.permits else ", and on until reviewed"),
        ]
        return f"| {' | '.join(cells)} |\n"

    def paragraph(self) -> str:
        """The rule in sentences, under what its lawyers say of it."""
        rule = self.rule
        law = f"Law: {plain(rule.law)}. Reviewed by: {plain(rule.reviewed_by)}."
        if self.permits:
            until = f"It permits until {rule.valid_until}, that day included."
        else:
            until = f"To be reviewed by {rule.valid_until}; it forbids after that day as well."
        duties = [f"Duties of the receiver: {self.duties()}."] if rule.obligations else []
        listed = "".join(f"- {line}\n" for line in (self.does(), *duties, law, until))
        return f"**{rule.id}** – {plain(rule.says)}\n\n{listed}"

    def does(self) -> str:
        """When it holds, and what may or may not happen then: one sentence."""
        said = f"{self.when() or 'always'}: {'; '.join(self.deeds())}."
        return said[:1].upper() + said[1:]

    def deeds(self) -> list[str]:
        """What may or may not happen, a clause each: "XB may receive series", "XA may take entries from XB"."""
        may = "may" if self.permits else "may not"
        everyone = "every partner may" if self.permits else "no partner may"
        subject = f"{self.partner} {may}" if self.partner else everyone
        clauses = [f"{subject} {deed}" for deed in self.theirs()]
        return [
            *clauses,
            *([f"{self.us} {may} take entries from {self.partner or 'any partner'}"] if self.takes() else []),
        ]

    def theirs(self) -> list[str]:
        """What the partner may do or have, a phrase each."""
        if self.actions is None:
            return [ACTION_GROUPS["disclose"]]
        single = [Action(name) for name in self.actions if name not in ACTION_GROUPS]
        groups = [action.removeprefix("share_").replace("_", " ") for action in single if action.shares]
        return [
            *(ACTION_GROUPS[name] for name in self.actions if name in ACTION_GROUPS),
            *([f"receive {_series(groups, 'and' if self.permits else 'or')}"] if groups else []),
            *(APPROVED if self.rule.needs_approval else DEEDS[action] for action in single if action in DEEDS),
        ]

    def takes(self) -> bool:
        """True if the rule is also, or only, about what we take from the partner."""
        return self.actions is None or Action.RECEIVE in self.actions

    def when(self) -> str:
        """All conditions; "" if there are none."""
        return ", and ".join(self.conditions)

    def duties(self) -> str:
        """All duties; "" if there are none."""
        return "; ".join(map(duty_words, self.rule.obligations))


def _sheet(described: Sequence[_Described], part: str) -> str:
    """One folder's sheet: head, table, and a paragraph for each rule under its file."""
    ours = [one for one in described if one.rule.path.startswith(f"{part}/")]
    sheet = [HEAD.format(us=EVERYONE)] if part == FEDERATION else [HEAD.format(us=part), BESIDE]
    if not ours:
        return "\n".join([*sheet, "There is no rule yet: nothing is given, taken or answered.\n"])
    sheet += ["## Table\n", TABLE + "".join(one.row() for one in ours)]
    for path in dict.fromkeys(one.rule.path for one in ours):
        sheet.append(f"## {path.removeprefix(f'{part}/')}\n")
        sheet += [one.paragraph() for one in ours if one.rule.path == path]
    return "\n".join(sheet)


def _describe(rule: Rule, form: Form, named: Mapping[str, frozenset[str]]) -> _Described:
    """The rule in words, its form read wholly: a member that is not known here is an error."""
    try:
        scopes = _members(form, "effect", "principal", "action", "resource", "conditions", "annotations")
        effect, principal, action, resource, conditions, _ = scopes  # the loader has read the annotations
        if effect != rule.kind or resource != EVERYTHING:
            raise _NoWords
        return _Described(
            rule, _partner(principal, named), _actions(action), tuple(_condition(one) for one in _list(conditions))
        )
    except _NoWords as error:
        raise ConfigError(
            "the rule says something that has no plain words, so no sheet can be made of it",
            place=f"{rule.path}, rule {rule.id}",
            remedy="say it in the words that contracts/policy-1.md lists, perhaps as several rules",
        ) from error


class _NoWords(Exception):  # noqa: N818  it never leaves this module
    """A construct that this module has no words for."""


def plain(text: str) -> str:
    """The text as it reads on a sheet, whatever characters it holds."""
    return MARKDOWN.sub(r"\\\g<0>", text)


def _unmarked(text: str) -> str:
    """What `plain` was given."""
    return re.sub(r"\\(.)", r"\1", text)


def _partner(scope: object, named: Mapping[str, frozenset[str]]) -> str:
    """The other parties of the scope's agreement, "XB" or "XB, XC"; "" for every partner."""
    if scope == EVERYTHING:
        return ""
    op, entity = _members(scope, "op", "entity")
    kind, name = _entity(entity)
    if op != "in" or kind != "Agreement" or name not in named:
        raise _NoWords
    return ", ".join(sorted(named[name]))


def _actions(scope: object) -> tuple[str, ...] | None:
    """The names of the scope's actions and groups; None for all of them."""
    if scope == EVERYTHING:
        return None
    several = "entities" in _object(scope)
    op, listed = _members(scope, "op", "entities" if several else "entity")
    entities = [_entity(one) for one in (_list(listed) if several else [listed])]
    names = tuple(name for _, name in entities)
    if (
        op not in ("==", "in")
        or not names
        or not KNOWN_ACTIONS.issuperset(names)
        or {k for k, _ in entities} != {"Action"}
    ):
        raise _NoWords
    return names


def _condition(condition: object) -> str:
    kind, body = _members(condition, "kind", "body")
    if kind not in ("when", "unless"):
        raise _NoWords
    return f"{'if' if kind == 'when' else 'unless'} {_expression(body)}"


def _expression(node: object) -> str:
    """A condition in words. Parts that are joined otherwise than their whole stand in brackets."""
    operator, body = _operator(node)
    if operator in JOINED:
        return _joined(operator, body)
    if operator in COMPARED:
        left, right = _members(body, "left", "right")
        return f"{_value(left)} {COMPARED[operator]} {_value(right)}"
    if operator in INCLUDED:
        return _included(operator, body)
    if operator == "like":
        left, pattern = _members(body, "left", "pattern")
        return f"{_attribute(left)} {_pattern(_list(pattern))}"
    if operator == "isEmpty":
        return f"{_attribute(_members(body, 'arg')[0])} is empty"
    if operator == "!":
        return f"not ({_expression(_members(body, 'arg')[0])})"
    raise _NoWords


def _joined(operator: str, body: object) -> str:
    parts = []
    for side in _members(body, "left", "right"):
        inner, _ = _operator(side)
        words = _expression(side)
        parts.append(f"({words})" if inner in JOINED and inner != operator else words)
    return f" {JOINED[operator]} ".join(parts)


def _included(operator: str, body: object) -> str:
    """Membership. A list that is written out contains a value: "the handling code is one of H0, H1"."""
    left, right = _members(body, "left", "right")
    kind, _ = _operator(left)
    if kind != "Set":
        return f"{_attribute(left)} {INCLUDED[operator]} {_value(right)}"
    if operator == "contains":
        return f"{_value(right)} is one of {_value(left)}"
    some = "everything" if operator == "containsAll" else "something"
    return f"{some} in {_attribute(right)} is one of {_value(left)}"


def _value(node: object) -> str:
    """An attribute, a written-out value, or a list of them."""
    operator, body = _operator(node)
    if operator == "Set":
        values = _list(body)
        # Values that hold commas are in quotation marks, so a list can be read one way only.
        return ", ".join(_literal(one) for one in values) or "nothing"
    return _literal(node) if operator == "Value" else _attribute(node)


def _literal(node: object) -> str:
    operator, body = _operator(node)
    if operator != "Value":
        raise _NoWords
    if isinstance(body, bool) or not isinstance(body, str | int | dict):
        raise _NoWords
    if isinstance(body, int):
        return str(body)
    if isinstance(body, str):
        return _quoted(body)
    _, name = _entity(_members(body, "__entity")[0])
    return LISTED.get(name, name.replace("_", " "))


def _attribute(node: object) -> str:
    """What an attribute is called; its path is `resource.evaluation.source`."""
    names: list[str] = []
    operator, body = _operator(node)
    while operator == ".":
        node, name = _members(body, "left", "attr")
        names.insert(0, str(name))
        operator, body = _operator(node)
    words = ATTRIBUTES.get(".".join([str(body), *names])) if operator == "Var" else None
    if words is None:
        raise _NoWords
    return words


def _pattern(pieces: Sequence[object]) -> str:
    """A pattern with one open end or two; any other has no plain words."""
    text = "".join("*" if piece == "Wildcard" else str(_members(piece, "Literal")[0]) for piece in pieces)
    stars = [place for place, piece in enumerate(pieces) if piece == "Wildcard"]
    core = text.strip("*")
    if len(stars) != text.count("*") or SIMPLE_PATTERN.fullmatch(core) is None:
        raise _NoWords
    ends = {(len(pieces) - 1,): "begins with", (0,): "ends with", (0, len(pieces) - 1): "has in it"}
    if tuple(stars) not in ends:
        raise _NoWords
    return f"{ends[tuple(stars)]} {_quoted(core)}"


def _quoted(text: str) -> str:
    if not text.isprintable() or "“" in text or "”" in text:
        raise _NoWords
    return f"“{plain(text)}”"


def duty_words(obligation: Obligation) -> str:
    """A duty for people: "delete after 90 days"."""
    words = DUTIES[obligation.duty].format(days=obligation.days)
    return words.replace(" 1 days", " 1 day") if obligation.duty in COUNTED else words


def _series(words: Sequence[str], joint: str) -> str:
    return f" {joint} ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _operator(node: object) -> tuple[str, object]:
    """A node's one operator and what it is applied to."""
    members = _object(node)
    if len(members) != 1:
        raise _NoWords
    return next(iter(members.items()))


def _entity(value: object) -> tuple[str, str]:
    kind, name = _members(value, "type", "id")
    return str(kind), str(name)


def _members(value: object, *names: str) -> tuple[object, ...]:
    """The members of an object that has these and no others: nothing in a rule is passed over."""
    members = _object(value)
    if set(members) != set(names):
        raise _NoWords
    return tuple(members[name] for name in names)


def _object(value: object) -> Form:
    if not isinstance(value, dict):
        raise _NoWords
    return cast("Form", value)


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise _NoWords
    return cast("list[object]", value)
