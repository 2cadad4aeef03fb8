"""The words of policy: requests, rules, duties, decisions. Frozen values, no Cedar."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date
from enum import StrEnum
from typing import NamedTuple

from gateway.errors import ConfigError
from gateway.model import AGENCY, JURISDICTION, SET_NAME, FieldGroup, Label, Purpose, Surface, require

MAX_DUTY_DAYS = 36_525  # a hundred years: a longer duty is a slip of the keyboard
DUTY = re.compile(r"([a-z_]+)(?:\(([1-9][0-9]{0,5})\))?")


class Action(StrEnum):
    """What a rule can speak of: one word for each field group that is shared, and four more."""

    SHARE_EXISTENCE = "share_existence"
    SHARE_CRYPTOGRAPHIC_DIGESTS = "share_cryptographic_digests"
    SHARE_PERCEPTUAL_DIGESTS = "share_perceptual_digests"
    SHARE_SERIES = "share_series"
    SHARE_VICTIM_STATUS = "share_victim_status"
    SHARE_CASE_SUMMARY = "share_case_summary"
    SHARE_CLUES = "share_clues"
    SHARE_PERSONS = "share_persons"
    SHARE_CONTACT = "share_contact"
    FORWARD = "forward"
    LOOK_UP = "look_up"
    REFER = "refer"
    RECEIVE = "receive"

    @classmethod
    def share(cls, group: FieldGroup) -> Action:
        """The action that shares one field group."""
        return cls(f"share_{group}")

    @property
    def shares(self) -> bool:
        """True for the actions that share a field group."""
        return self.value.startswith("share_")


class Effect(StrEnum):
    """What was decided."""

    ALLOW = "allow"
    DENY = "deny"


class RuleKind(StrEnum):
    """What a rule does when it matches."""

    PERMIT = "permit"
    FORBID = "forbid"


class Reason(StrEnum):
    """Why it was decided so. Everything but PERMITTED is a deny."""

    PERMITTED = "permitted"
    NO_RULE = "no_rule"
    FORBIDDEN = "forbidden"
    ENGINE_ERROR = "engine_error"
    NO_LAWFUL_PERMIT = "no_lawful_permit"


class Duty(StrEnum):
    """The closed list of what a permit can ask of the one who receives."""

    RETAIN_DAYS = "retain_days"
    NO_ONWARD = "no_onward"
    NOTIFY_ORIGINATOR = "notify_originator"
    ACKNOWLEDGE_WITHIN_DAYS = "acknowledge_within_days"
    COURT_USE_NEEDS_LEAVE = "court_use_needs_leave"


COUNTED = frozenset({Duty.RETAIN_DAYS, Duty.ACKNOWLEDGE_WITHIN_DAYS})


@dataclass(frozen=True, slots=True, order=True)
class Obligation:
    """One duty; `days` is 0 where the duty has no number."""

    duty: Duty
    days: int = 0

    def __str__(self) -> str:
        return f"{self.duty}({self.days})" if self.days else str(self.duty)

    @classmethod
    def parse(cls, text: str) -> Obligation:
        """The obligation written as `no_onward` or `retain_days(90)`; ConfigError for any other word."""
        match = DUTY.fullmatch(text)
        if match is None or match[1] not in {str(duty) for duty in Duty}:
            raise ConfigError("an @obligation outside the closed list", remedy=f"known: {', '.join(Duty)}")
        duty, days = Duty(match[1]), int(match[2] or 0)
        if (duty in COUNTED) != (days > 0) or days > MAX_DUTY_DAYS:
            raise ConfigError(f"@obligation {duty}: the number of days is missing, too large or not wanted")
        return cls(duty, days)


def strictest(obligations: list[Obligation]) -> tuple[Obligation, ...]:
    """Every duty once, with the fewest days any rule gives it."""
    merged: dict[Duty, Obligation] = {}
    for obligation in sorted(obligations, reverse=True):
        merged[obligation.duty] = obligation
    return tuple(sorted(merged.values()))


@dataclass(frozen=True, slots=True, order=True)
class PartnerRef:
    """The party a decision is about. An agency is of the jurisdiction that its code begins with."""

    agency: str
    jurisdiction: str

    def __post_init__(self) -> None:
        require(AGENCY.fullmatch(self.agency), "partner: agency is not an agency code")
        require(JURISDICTION.fullmatch(self.jurisdiction), "partner: jurisdiction is not two capital letters")
        require(self.agency.startswith(f"{self.jurisdiction}-"), "partner: agency is of another jurisdiction")


@dataclass(frozen=True, slots=True, order=True)
class LabelInSet:
    """A label and the set it is used in: what a rule sees of an entry, and all it sees."""

    set_name: str
    label: Label

    def __post_init__(self) -> None:
        require(SET_NAME.fullmatch(self.set_name), "label: set name is not AGENCY/name")


@dataclass(frozen=True, slots=True)
class ShareRequest:
    """One question: may this action happen with this partner, over this surface, for entries under this label?

    `purpose` is for look_up and refer, which are refused without it; the other actions are refused with one.
    """

    partner: PartnerRef
    action: Action
    surface: Surface
    held: LabelInSet
    purpose: Purpose | None = None


class Question(NamedTuple):
    """What is asked of partners and labels. Look-up and referral need a purpose; the other actions have none."""

    action: Action
    purpose: Purpose | None = None


@dataclass(frozen=True, slots=True)
class Grid:
    """Many questions in one: each of `asked` about each of `labels` and each of `partners`."""

    partners: tuple[PartnerRef, ...]
    surface: Surface
    labels: tuple[LabelInSet, ...]
    asked: tuple[Question, ...]

    @property
    def cells(self) -> int:
        """How many decisions it takes."""
        return len(self.partners) * len(self.labels) * len(self.asked)

    def pieces(self, cells: int) -> Iterator[Grid]:
        """The same in order, cut into grids of about so many decisions: whole labels, at least one."""
        width = max(1, cells // max(1, len(self.partners) * len(self.asked)))
        for start in range(0, len(self.labels), width):
            yield replace(self, labels=self.labels[start : start + width])


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule as its lawyers wrote it. `path` is relative to the policy folder; `valid_until` is its last day.

    `needs_approval`: it permits only what two administrators have approved, each time.
    """

    id: str
    kind: RuleKind
    path: str
    law: str
    says: str
    reviewed_by: str
    valid_until: date
    obligations: tuple[Obligation, ...] = ()
    needs_approval: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer to one request.

    `action` is the step that decided: sharing digests can fail at `forward` or at `share_existence`. `rules` are the
    deciding rules, sorted by id: the permits of an allow, the forbids of a deny.
    """

    effect: Effect
    reason: Reason
    action: Action
    rules: tuple[Rule, ...] = ()
    obligations: tuple[Obligation, ...] = ()

    @property
    def allowed(self) -> bool:
        """True only for an allow."""
        return self.effect is Effect.ALLOW

    @property
    def needs_approval(self) -> bool:
        """Whether two administrators have to approve what is allowed: one of the deciding rules says so."""
        return self.allowed and any(rule.needs_approval for rule in self.rules)

    @property
    def rule_ids(self) -> tuple[str, ...]:
        """The ids of the deciding rules, as a decision receipt keeps them."""
        return tuple(rule.id for rule in self.rules)


@dataclass(frozen=True, slots=True)
class LabelRights:
    """What may be shared of the entries under one label.

    Without `existence` there are no groups at all. `permits` stand behind the groups, `forbids` behind those withheld.
    """

    groups: frozenset[FieldGroup]
    obligations: tuple[Obligation, ...]
    permits: tuple[str, ...]
    forbids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision for people: one plain sentence, with the rules and their law; its reason alone is `because`."""

    request: ShareRequest
    decision: Decision
    sentence: str
    because: str
