"""A plain evaluator of the part of Cedar that rules use, to judge the engine and the gateway by.

Written from the language's published semantics (docs.cedarpolicy.com: policies/syntax-operators, auth/authorization)
over Cedar's JSON form of policies, and from `contracts/policy-1.md` rules 15 to 20. It shares no code with
`gateway.policy`, is slow, and is meant to be read.

    oracle = Oracle(forms, us="XA", agreements={"xa-xb": {"XB"}})
    oracle.decide(partner, "share_series", label, "sealed", "")       # (allowed, ids of the deciding rules, erred)
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

GROUPS = {  # which groups an action is in, as the schema says
    **{
        f"share_{group}": {"share", "disclose"}
        for group in (
            *("existence", "cryptographic_digests", "perceptual_digests", "series", "victim_status"),
            *("case_summary", "clues", "persons", "contact"),
        )
    },
    "forward": {"disclose"},
    "look_up": {"disclose"},
    "refer": {"disclose"},
    "receive": set(),
}
LEAST, MOST = -(2**63), 2**63 - 1  # Cedar's Long


class Erred(Exception):
    """The evaluation of an expression ends in an error: the rule counts as if it were not there."""


@dataclass(frozen=True)
class Entity:
    """A reference to an entity."""

    kind: str
    name: str


@dataclass(frozen=True)
class Answer:
    """What is decided, by which rules, and whether any rule erred."""

    allowed: bool
    rules: tuple[str, ...]
    erred: bool = False


@dataclass(frozen=True)
class Party:
    """The principal: its attributes, and the agreements that it is in."""

    agency: str
    jurisdiction: str


class Oracle:
    """Decides by rules in Cedar's JSON form, given by their `@id`."""

    def __init__(self, forms: Mapping[str, Mapping[str, Any]], us: str, agreements: Mapping[str, set[str]]) -> None:
        self.forms, self.us, self.agreements = forms, us, agreements

    def decide(self, party: Party, action: str, label: Mapping[str, Any], surface: str, purpose: str) -> Answer:
        """The answer to one request: all of its steps must be allowed, the first that is not decides."""
        rules: set[str] = set()
        answer = Answer(False, ())
        for step in self.steps(party, action, label):
            answer = self.ask(party, step, label, surface, purpose if step == action else "")
            if not answer.allowed:
                return answer
            rules |= set(answer.rules)
        return Answer(True, tuple(sorted(rules)))

    def steps(self, party: Party, action: str, label: Mapping[str, Any]) -> list[str]:
        if action in ("receive", "forward"):
            return [action]
        steps = [] if label["jurisdiction"] in (self.us, party.jurisdiction) else ["forward"]
        if action.startswith("share_") and action != "share_existence":
            steps.append("share_existence")
        return [*steps, action]

    def ask(self, party: Party, action: str, label: Mapping[str, Any], surface: str, purpose: str) -> Answer:
        """One step: which rules match, which err. A look-up or a referral without a purpose is no request at all."""
        if (action in ("look_up", "refer")) != bool(purpose):
            return Answer(False, (), erred=True)
        context: dict[str, Any] = {"surface": Entity("Surface", surface)}
        if purpose:
            context["purpose"] = Entity("Purpose", purpose)
        scene = {
            "principal": {"agency": party.agency, "jurisdiction": party.jurisdiction},
            "resource": attributes(label),
            "context": context,
            "action": action,
        }
        matching: dict[str, list[str]] = {"permit": [], "forbid": []}
        erred = False
        for name, form in self.forms.items():
            try:
                if self.matches(form, party, scene):
                    matching[form["effect"]].append(name)
            except Erred:
                erred = True
        deciding = tuple(sorted(matching["forbid"] or matching["permit"]))
        allowed = bool(matching["permit"]) and not matching["forbid"] and not erred
        return Answer(allowed, deciding, erred)

    def matches(self, form: Mapping[str, Any], party: Party, scene: Mapping[str, Any]) -> bool:
        """Scope first, then each condition in turn."""
        within = form["principal"]
        if within["op"] == "in" and party.jurisdiction not in self.agreements[within["entity"]["id"]]:
            return False
        if not self.speaks_of(form["action"], scene["action"]):
            return False
        for condition in form["conditions"]:
            holds = truth(condition["body"], scene)
            if holds != (condition["kind"] == "when"):
                return False
        return True

    def speaks_of(self, scope: Mapping[str, Any], action: str) -> bool:
        if scope["op"] == "All":
            return True
        named = {one["id"] for one in scope.get("entities", [scope.get("entity")])}
        return action in named or (scope["op"] == "in" and not GROUPS[action].isdisjoint(named))


def attributes(label: Mapping[str, Any]) -> dict[str, Any]:
    """A label as the schema types it."""
    return {
        **label,
        "handling": Entity("Handling", label["handling"]),
        "victim_status": Entity("VictimStatus", label["victim_status"]),
        "evaluation": {"source": label["evaluation"][0], "information": int(label["evaluation"][1])},
        "restrictions": frozenset(Entity("Restriction", tag) for tag in label["restrictions"]),
        "onward": frozenset(label["onward"]),
    }


def truth(node: Any, scene: Mapping[str, Any]) -> bool:
    """The value of an expression that must be a boolean."""
    found = value(node, scene)
    if not isinstance(found, bool):
        raise Erred
    return found


def value(node: Any, scene: Mapping[str, Any]) -> Any:
    """The value of an expression."""
    [(operator, operand)] = node.items()
    if operator == "Value":
        return literal(operand)
    if operator == "Var":
        return scene[operand]
    if operator == "Set":
        return frozenset(value(one, scene) for one in operand)
    if operator == "&&":
        return truth(operand["left"], scene) and truth(operand["right"], scene)
    if operator == "||":
        return truth(operand["left"], scene) or truth(operand["right"], scene)
    if operator == "!":
        return not truth(operand["arg"], scene)
    if operator == "if-then-else":
        return value(operand["then" if truth(operand["if"], scene) else "else"], scene)
    if operator in (".", "has"):
        whole = value(operand["left"], scene)
        if operator == "has":
            return operand["attr"] in whole
        if operand["attr"] not in whole:
            raise Erred
        return whole[operand["attr"]]
    if operator == "like":
        pattern = "".join(".*" if one == "Wildcard" else re.escape(one["Literal"]) for one in operand["pattern"])
        return re.fullmatch(pattern, value(operand["left"], scene), re.DOTALL) is not None
    if operator == "isEmpty":
        return not value(operand["arg"], scene)
    return binary(operator, value(operand["left"], scene), value(operand["right"], scene))


def binary(operator: str, left: Any, right: Any) -> Any:
    """Operators of two values that are both worked out first."""
    match operator:
        case "==" | "!=":
            same = type(left) is type(right) and left == right
            return same == (operator == "==")
        case "<" | "<=" | ">" | ">=":
            if not (number(left) and number(right)):
                raise Erred
            return {"<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right}[operator]
        case "+" | "-" | "*":
            if not (number(left) and number(right)):
                raise Erred
            found = {"+": left + right, "-": left - right, "*": left * right}[operator]
            if not LEAST <= found <= MOST:
                raise Erred
            return found
        case "contains":
            return right in left
        case "containsAll":
            return right <= left
        case "containsAny":
            return not right.isdisjoint(left)
    raise AssertionError(f"an operator outside the subset: {operator}")


def number(found: Any) -> bool:
    return isinstance(found, int) and not isinstance(found, bool)


def literal(found: Any) -> Any:
    if isinstance(found, dict):
        return Entity(found["__entity"]["type"], found["__entity"]["id"])
    return found


def forms_of(documents: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The rules of some files in Cedar's JSON form, by their `@id`."""
    return {form["annotations"]["id"]: form for document in documents for form in document["staticPolicies"].values()}
