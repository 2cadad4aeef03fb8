"""Worked examples: what a jurisdiction expects of its own rules, written beside them and tried at every check.

A file `examples.toml` names labels once and then says, case by case, what must be decided and by which rules:

    [labels.identified]
    set = "XA-NCVI/identified-victims"
    originator = "XA-NCVI"
    …every attribute of a label…

    [[example]]
    why = "XC's law knows no perceptual digests"
    partner = "XC-NCVI"
    surface = "sealed"
    actions = ["share_perceptual_digests"]
    label = "identified"
    change = { handling = "H0" }
    expect = "deny"
    rules = ["xa-no-perceptual-to-xc"]

`rules` are the deciding rules of all the actions together; `obligations` and `purpose` may be left out. The
federation's file says `us` in each example; elsewhere it is the folder's jurisdiction. `approval = "two"` says that two
administrators have to approve what is allowed.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from typing import cast

from gateway.errors import ConfigError, MalformedError
from gateway.model import Label, Purpose, Surface, text_member, texts_member
from gateway.policy.deciding import PolicySet
from gateway.policy.loading import APPROVAL, FEDERATION
from gateway.policy.words import Action, Decision, Effect, LabelInSet, PartnerRef, ShareRequest

MEMBERS = {"why", "partner", "surface", "actions", "label", "expect", "rules"}
OPTIONAL = {"us", "purpose", "change", "obligations", "approval"}


@dataclass(frozen=True, slots=True)
class Example:
    """One worked example: requests that share an outcome. `place` is for people: "XA/examples.toml, example 3"."""

    place: str
    why: str
    us: str
    requests: tuple[ShareRequest, ...]
    expect: Effect
    rules: tuple[str, ...]
    obligations: tuple[str, ...]
    needs_approval: bool = False


def parse_examples(text: str, folder: str) -> tuple[Example, ...]:
    """The examples of one folder's `examples.toml`; ConfigError names the first that is not well formed."""
    place = f"{folder}/examples.toml"
    try:
        document: dict[str, object] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"not TOML: {error}", place=place) from error
    labels, listed = document.pop("labels", {}), document.pop("example", [])
    if document or not isinstance(labels, dict) or not isinstance(listed, list):
        raise ConfigError("an examples file holds [labels.…] and [[example]], nothing else", place=place)
    examples = []
    for number, raw in enumerate(listed, start=1):
        where = f"{place}, example {number}"
        try:
            examples.append(_example(raw, labels, folder, where))
        except (MalformedError, ValueError) as error:
            raise ConfigError(f"the example is not well formed: {error}", place=where) from error
    return tuple(examples)


def try_example(example: Example, policies: PolicySet) -> tuple[str, ...]:
    """What is not as the example says, a sentence each; empty when all is."""
    decisions = [policies.decide(request) for request in example.requests]
    faults = [
        f"{request.action}: {decision.effect} ({decision.reason}), expected {example.expect}"
        for request, decision in zip(example.requests, decisions, strict=True)
        if decision.effect is not example.expect
    ]
    faults += _compare("rules", _rules(decisions), example.rules)
    faults += _compare("obligations", _duties(decisions), example.obligations)
    faults += _compare("approval", _approval(decisions), (APPROVAL,) if example.needs_approval else ())
    return tuple(faults)


def _compare(name: str, found: tuple[str, ...], expected: tuple[str, ...]) -> list[str]:
    if found == expected:
        return []
    return [f"{name}: {', '.join(found) or 'none'}, expected {', '.join(expected) or 'none'}"]


def _rules(decisions: list[Decision]) -> tuple[str, ...]:
    return tuple(sorted({i for decision in decisions for i in decision.rule_ids}))


def _duties(decisions: list[Decision]) -> tuple[str, ...]:
    return tuple(sorted({str(duty) for decision in decisions for duty in decision.obligations}))


def _approval(decisions: list[Decision]) -> tuple[str, ...]:
    return (APPROVAL,) if any(decision.needs_approval for decision in decisions) else ()


def _example(raw: object, labels: dict[str, object], folder: str, place: str) -> Example:
    if not isinstance(raw, dict) or not raw.keys() >= MEMBERS or raw.keys() - MEMBERS - OPTIONAL:
        raise MalformedError(f"its members are {', '.join(sorted(MEMBERS))}, and perhaps {', '.join(sorted(OPTIONAL))}")
    if (folder == FEDERATION) != ("us" in raw):
        raise MalformedError("`us` is for the federation's examples, and needed there")
    agency = text_member(raw, "partner")
    partner = PartnerRef(agency, agency[:2])
    held = _held(raw, labels)
    purpose = Purpose(text_member(raw, "purpose")) if "purpose" in raw else None
    surface = Surface(text_member(raw, "surface"))
    actions = [Action(action) for action in texts_member(raw, "actions")]
    if raw.get("approval", APPROVAL) != APPROVAL:
        raise MalformedError(f'`approval` says "{APPROVAL}"')
    if not actions:
        raise MalformedError("it asks for no action")
    return Example(
        place=place,
        why=text_member(raw, "why"),
        us=text_member(raw, "us") if "us" in raw else folder,
        requests=tuple(ShareRequest(partner, action, surface, held, purpose) for action in actions),
        expect=Effect(text_member(raw, "expect")),
        rules=tuple(sorted(texts_member(raw, "rules"))),
        obligations=tuple(sorted(texts_member(raw, "obligations"))) if "obligations" in raw else (),
        needs_approval="approval" in raw,
    )


def _held(raw: dict[str, object], labels: dict[str, object]) -> LabelInSet:
    """The named label with the example's changes; every attribute must be there, as on the wire."""
    base, change = labels.get(text_member(raw, "label")), raw.get("change", {})
    if not isinstance(base, dict) or not isinstance(change, dict):
        raise MalformedError("its label is not among [labels.…], or `change` is not a table")
    members = cast("dict[str, object]", {**base, **change})
    set_name = text_member(members, "set")
    return LabelInSet(set_name, Label.from_json({name: v for name, v in members.items() if name != "set"}))
