"""Random, sound policies: one agreement, in which each field group goes under conditions of its own."""

from __future__ import annotations

import random

from factory import SHIPPED_POLICIES
from gateway.config import read_policies
from gateway.model import ENTRY_GROUPS, HandlingCode
from gateway.policy import Action

EVALUATIONS = ("A1", "B2", "C3", "F6")
DUTIES = ("", "retain_days(90)", "retain_days(365), no_onward", "notify_originator")

_RULE = """\
@id("{id}")
@law("An invented act of {country}, section {number}")
@says("A rule that a test made up.")
@reviewed_by("An invented office")
@valid_until("2035-12-31")
{duty}permit (
  principal in Agreement::"{agreement}",
  action == Action::"{action}",
  resource
) when {{ {condition} }};
"""


def without_agreements(country: str) -> dict[str, str]:
    """The shipped policy of a country, before it has agreed on anything with anybody."""
    return {path: text for path, text in read_policies(SHIPPED_POLICIES, country).items() if "agreement" not in path}


def takes_everything(country: str, *others: str) -> dict[str, str]:
    """A policy that takes whatever these countries send, as far as the federation lets it."""
    files = {
        f"{country}/agreement-{other.lower()}.cedar": _rule((country, other), 1, Action.RECEIVE, "true")
        for other in others
    }
    kept = {path: text for path, text in without_agreements(country).items() if not path.startswith(f"{country}/")}
    return {**kept, **files}


def random_policy(source: random.Random, country: str, *others: str) -> dict[str, str]:
    """A policy that shares with these countries, and takes from them, what chance says; now and then nothing at all."""
    texts = without_agreements(country)
    for other in others:
        if source.random() < 0.85:
            texts[f"{country}/agreement-{other.lower()}.cedar"] = _agreement(source, country, other)
    return texts


def _agreement(source: random.Random, country: str, other: str) -> str:
    rules = []
    for number, group in enumerate(ENTRY_GROUPS):
        if source.random() < (0.95 if number == 0 else 0.7):
            rules.append(
                _rule((country, other), number, Action.share(group), _condition(source), source.choice(DUTIES))
            )
    rules.append(_rule((country, other), len(ENTRY_GROUPS), Action.RECEIVE, _condition(source)))
    return "\n".join(rules)


def _condition(source: random.Random) -> str:
    codes = source.sample(list(HandlingCode), source.randrange(1, len(HandlingCode) + 1))
    listed = ", ".join(f'Handling::"{code}"' for code in codes)
    words = [f"[{listed}].contains(resource.handling)"]
    if source.random() < 0.4:
        grades = source.sample("ABCF", source.randrange(1, 4))
        listed = ", ".join(f'"{grade}"' for grade in grades)
        words.append(f"[{listed}].contains(resource.evaluation.source)")
    if source.random() < 0.2:
        words.append('resource.victim_status != VictimStatus::"identified"')
    return " && ".join(words)


def _rule(parties: tuple[str, str], number: int, action: Action, condition: str, duty: str = "") -> str:
    country, other = parties
    return _RULE.format(
        id=f"{country.lower()}-{other.lower()}-{number}",
        country=country,
        number=number + 1,
        agreement="-".join(sorted((country.lower(), other.lower()))),
        action=action,
        condition=condition,
        duty=f'@obligation("{duty}")\n' if duty else "",
    )
