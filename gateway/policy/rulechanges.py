"""What changes in the rules from one policy to another: rule by rule, in sentences.

A rule is known by its id. What it says is compared part by part, as `describing` words it; a rule that has no plain
words is compared by the engine's own form of it, so that no change goes unseen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.policy.describing import RuleInWords, rules_in_words

ELSEWHERE = "another condition"
NO_WORDS = "what has no plain words; read the rule itself"


@dataclass(frozen=True, slots=True)
class PartChange:
    """One part of a rule: how it was and how it is then."""

    part: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class ChangedRule:
    """A rule that is in both policies and does not say the same."""

    id: str
    parts: tuple[PartChange, ...]


@dataclass(frozen=True, slots=True)
class NamedRule:
    """A rule that is in one policy alone: its own plain sentence, and what it does in full."""

    id: str
    says: str
    does: str


@dataclass(frozen=True, slots=True)
class RuleChanges:
    """`files`: other files that decide, and differ: the schema, the rule of use."""

    added: tuple[NamedRule, ...]
    removed: tuple[NamedRule, ...]
    changed: tuple[ChangedRule, ...]
    files: tuple[str, ...] = ()

    @property
    def nothing(self) -> bool:
        """Whether both say the same."""
        return not (self.added or self.removed or self.changed or self.files)


def rule_changes(before: Mapping[str, str], after: Mapping[str, str]) -> RuleChanges:
    """What the rules of `after` say that those of `before` do not, and the other way round.

    Args:
        before, after: policies as `load` takes them; without texts there is no rule.

    Raises:
        ConfigError: a rule of either is not sound.
    """
    old, new = (rules_in_words(texts) if texts else {} for texts in (before, after))
    others = sorted(path for path in {*before, *after} if not path.endswith(".cedar"))
    changed = [
        ChangedRule(name, parts) for name in sorted(old.keys() & new.keys()) if (parts := _parts(old[name], new[name]))
    ]
    return RuleChanges(
        added=tuple(_named(name, new[name].parts) for name in sorted(new.keys() - old.keys())),
        removed=tuple(_named(name, old[name].parts) for name in sorted(old.keys() - new.keys())),
        changed=tuple(changed),
        files=tuple(path for path in others if before.get(path) != after.get(path)) if before else (),
    )


def _named(name: str, parts: Mapping[str, str]) -> NamedRule:
    return NamedRule(name, parts["says"], parts["does"] or NO_WORDS)


def _parts(old: RuleInWords, new: RuleInWords) -> tuple[PartChange, ...]:
    found = [PartChange(part, text, new.parts[part]) for part, text in old.parts.items() if text != new.parts[part]]
    if not old.parts["does"] and not new.parts["does"] and _body(old) != _body(new):
        found.insert(0, PartChange("does", NO_WORDS, ELSEWHERE))
    return tuple(found)


def _body(rule: RuleInWords) -> dict[str, object]:
    return {name: value for name, value in rule.form.items() if name != "annotations"}
