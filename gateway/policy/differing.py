"""What changes when one policy takes another's place: label by label, before anything happens.

Both are asked the same about the labels that exist now, so the answer is exact: what a partner holds of a label is what
its rights say, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from gateway.model import ENTRY_GROUPS, FieldGroup, Surface
from gateway.policy.deciding import PolicySet
from gateway.policy.words import Action, LabelInSet, LabelRights, Obligation, PartnerRef, ShareRequest

Rules = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ShareChange:
    """What changes for one partner of the entries under one label of ours.

    `started`, `stopped`: field groups. `duties`, `rules`: before and after. The rules are those that decide about the
    groups that change, or stand behind all that is shared where only duties do.
    """

    partner: PartnerRef
    surface: Surface
    number: int
    held: LabelInSet
    started: frozenset[FieldGroup]
    stopped: frozenset[FieldGroup]
    duties: tuple[tuple[Obligation, ...], tuple[Obligation, ...]]
    rules: tuple[Rules, Rules]


@dataclass(frozen=True, slots=True)
class IntakeChange:
    """Whether we take a partner's entries under one of its labels: `taken` says how it is then."""

    partner: PartnerRef
    surface: Surface
    number: int
    held: LabelInSet
    taken: bool
    rules: tuple[Rules, Rules]


def share_changes(
    before: PolicySet,
    after: PolicySet,
    partner: PartnerRef,
    surface: Surface,
    labels: Mapping[int, LabelInSet],
    *,
    narrow: Callable[[int, LabelRights], LabelRights] = lambda _number, rights: rights,
) -> list[ShareChange]:
    """What starts and stops being shared with a partner, and which duties change, by label number.

    Args:
        narrow: what else than policy bounds the rights under a label, such as what its originator lets go on.
    """
    old, new = (
        {number: narrow(number, rights) for number, rights in one.table(partner, surface, labels).items()}
        for one in (before, after)
    )
    changes = []
    for number, held in sorted(labels.items()):
        was, is_now = old[number], new[number]
        if (was.groups, was.obligations) == (is_now.groups, is_now.obligations):
            continue
        asked = was.groups ^ is_now.groups
        rules = tuple(
            _deciding(one, partner, surface, held, asked) if asked else rights.permits
            for one, rights in ((before, was), (after, is_now))
        )
        changes.append(
            ShareChange(
                partner=partner,
                surface=surface,
                number=number,
                held=held,
                started=is_now.groups - was.groups,
                stopped=was.groups - is_now.groups,
                duties=(was.obligations, is_now.obligations),
                rules=(rules[0], rules[1]),
            )
        )
    return changes


def intake_changes(
    before: PolicySet, after: PolicySet, partner: PartnerRef, surface: Surface, labels: Mapping[int, LabelInSet]
) -> list[IntakeChange]:
    """What we would newly take from a partner and no longer take, by label number."""
    old, new = (one.receivable(partner, surface, labels) for one in (before, after))
    return [
        IntakeChange(partner, surface, number, held, new[number].allowed, (old[number].rule_ids, new[number].rule_ids))
        for number, held in sorted(labels.items())
        if old[number].allowed != new[number].allowed
    ]


def _deciding(
    policies: PolicySet, partner: PartnerRef, surface: Surface, held: LabelInSet, groups: Iterable[FieldGroup]
) -> Rules:
    """The rules that decide about these field groups."""
    wanted = set(groups)
    asked = [group for group in ENTRY_GROUPS if group in wanted]
    decided = [policies.decide(ShareRequest(partner, Action.share(group), surface, held)) for group in asked]
    return tuple(sorted({rule for decision in decided for rule in decision.rule_ids}))
