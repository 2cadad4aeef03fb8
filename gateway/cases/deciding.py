"""What policy says of a case: may it be referred to a partner, and which parts of it; do we take one from a partner.

Asked are `refer` with its purpose, each `share_…` of a field group, and for a third country's case `forward` (policy 1,
rules 17 and 18); `receive` at the other end. Every answer, also a no, is a decision receipt: an event `share_decided`
that names the case, and that `exchange.decisions` decides again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gateway import policytexts
from gateway.audit import EventKind
from gateway.caserecord import CASE_GROUPS, CASES_SET, CaseRecord, Urgency
from gateway.cases.keeping import CaseState, HeldCase
from gateway.crypto import canonical
from gateway.errors import ConflictError, DeniedError, MalformedError, TooLargeError
from gateway.model import FieldGroup, Label, Purpose, Surface
from gateway.node import Node
from gateway.partners import active, may_exchange
from gateway.policy import (
    Action,
    Decision,
    Duty,
    Effect,
    LabelInSet,
    Obligation,
    PartnerRef,
    PolicySet,
    Reason,
    ShareRequest,
)
from gateway.policy.duties import carried, days_of, may_go_onward
from gateway.policy.words import strictest
from gateway.store import Transaction
from gateway.vidx import CaseReport, dump_case, redact

MAX_REPORT_BYTES = 232 << 10  # as a text in JSON: with a note of 4,000 characters it is within a referral's 256 KiB
HOUR_SECONDS = 3_600


@dataclass(frozen=True, slots=True)
class GroupOutcome:
    """Whether one field group goes, and why: one sentence, with the rules and their law.

    `filled`: the case has anything in it. Only what goes and is filled brings its duties.
    """

    group: FieldGroup
    goes: bool
    filled: bool
    sentence: str
    rules: tuple[str, ...]
    laws: tuple[str, ...]
    obligations: tuple[Obligation, ...]


@dataclass(frozen=True, slots=True)
class Preview:
    """What would go of a case to a partner, exactly. `report` is empty where nothing may."""

    case: str
    partner: str
    set_name: str
    label: Label
    purpose: Purpose
    urgency: Urgency
    allowed: bool
    sentence: str
    rules: tuple[str, ...]
    laws: tuple[str, ...]
    needs_approval: bool
    groups: tuple[GroupOutcome, ...]
    obligations: tuple[str, ...]
    receipt: Mapping[str, object]
    report: bytes

    @property
    def digest(self) -> str:
        """Identifies exactly the report that would go."""
        return hashlib.sha256(self.report).hexdigest()

    @property
    def going(self) -> tuple[FieldGroup, ...]:
        """The groups that the report holds."""
        return tuple(one.group for one in self.groups if one.goes)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What policy says of one question about a case. `groups`: those that may be shared, whatever the case holds."""

    decision: Decision
    groups: tuple[FieldGroup, ...] = ()
    obligations: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()

    def details(self) -> dict[str, object]:
        """As a decision receipt keeps it."""
        return {
            "outcome": str(Effect.ALLOW if self.decision.allowed else Effect.DENY),
            "groups": sorted(self.groups),
            "rules": sorted(self.rules),
            "obligations": list(self.obligations),
        }


def cases_of(originator: str) -> str:
    """The set under which policy judges an agency's cases."""
    return f"{originator}/{CASES_SET}"


def refer_outcome(policies: PolicySet, who: PartnerRef, held: LabelInSet, purpose: Purpose) -> Outcome:
    """Whether a case under a label may be referred to a partner, with which groups and duties."""
    decision = policies.decide(ShareRequest(who, Action.REFER, Surface.SEALED, held, purpose))
    if not decision.allowed:
        return Outcome(decision, rules=decision.rule_ids)
    rights = policies.table(who, Surface.SEALED, {0: held}, groups=CASE_GROUPS)[0]
    if FieldGroup.EXISTENCE not in rights.groups:
        return Outcome(Decision(Effect.DENY, Reason.NO_RULE, Action.SHARE_EXISTENCE), rules=rights.forbids)
    duties = strictest([*decision.obligations, *rights.obligations])
    rules = tuple(sorted({*decision.rule_ids, *rights.permits, *rights.forbids}))
    return Outcome(decision, tuple(sorted(rights.groups)), tuple(map(str, duties)), rules)


def receive_outcome(policies: PolicySet, who: PartnerRef, held: LabelInSet) -> Outcome:
    """Whether we take a case under a label from a partner, and under which duties of our own."""
    decision = policies.decide(ShareRequest(who, Action.RECEIVE, Surface.SEALED, held))
    return Outcome(decision, (), tuple(map(str, decision.obligations)), decision.rule_ids)


def preview(
    node: Node, tx: Transaction, held: HeldCase, partner: str, *, purpose: Purpose, urgency: Urgency
) -> Preview:
    """What would go of a case to a partner now, and why the rest stays. Nothing is sent or recorded.

    Raises:
        MalformedError: the case lacks what law needs.
        ConflictError: it is not open.
        NotFoundError: there is no such partner, or it may exchange nothing now.
        DeniedError: the partner is under test; or it is who the case came from.
        TooLargeError: the report is longer than a referral may be.
    """
    _check_may_go(held, partner)
    active(node, tx, partner)
    held_label = LabelInSet(cases_of(held.record.originator), held.report.label)
    if not may_exchange(node, tx, partner, held_label.set_name):
        raise DeniedError("the partner is under test: real cases do not go to it", remedy="`gateway partner test-lift`")
    who = PartnerRef(partner, partner[:2])
    outcome = refer_outcome(node.policy, who, held_label, purpose)
    told = node.policy.explain(ShareRequest(who, Action.REFER, Surface.SEALED, held_label, purpose))
    came = held.row.obligations.split()
    onward = not held.row.source or partner == held.record.originator or may_go_onward(came)
    allowed = outcome.decision.allowed and onward
    sentence = told.sentence if onward else "The case came under the duty to pass it on to nobody."
    groups = tuple(_group(node.policy, who, held_label, held, one, allowed=allowed) for one in CASE_GROUPS)
    going = [one.group for one in groups if one.goes]
    brought = [duty for one in groups if one.goes and one.filled for duty in one.obligations]
    duties = strictest([*told.decision.obligations, *brought])
    report = dump_case(held.record, going) if allowed else b""
    if len(canonical.encode(report.decode())) > MAX_REPORT_BYTES:
        raise TooLargeError("the report is too long to be referred", remedy="name a set or a series, not each entry")
    return Preview(
        case=held.row.id,
        partner=partner,
        set_name=held_label.set_name,
        label=held_label.label,
        purpose=purpose,
        urgency=urgency,
        allowed=allowed,
        sentence=sentence,
        rules=told.decision.rule_ids,
        laws=tuple(rule.law for rule in told.decision.rules),
        needs_approval=outcome.decision.needs_approval,
        groups=groups,
        obligations=carried(came, duties) if allowed else (),
        receipt=outcome.details(),
        report=report,
    )


def _check_may_go(held: HeldCase, partner: str) -> None:
    if held.row.state == CaseState.INBOX and held.row.missing:
        raise MalformedError(
            f"the case is not complete: {', '.join(held.row.missing.split())}",
            remedy="a person states what is missing: `gateway case complete`",
        )
    if held.row.state == CaseState.INBOX:
        raise ConflictError("the case waits for an answer", remedy="`gateway case accept` or `gateway case decline`")
    if held.row.state != CaseState.OPEN:
        raise ConflictError(f"the case is {held.row.state}")
    if held.row.source == partner:
        raise DeniedError("the case came from this partner", remedy="say it in the thread: `gateway case say`")


def _group(
    policies: PolicySet, who: PartnerRef, label: LabelInSet, held: HeldCase, group: FieldGroup, *, allowed: bool
) -> GroupOutcome:
    told = policies.explain(ShareRequest(who, Action.share(group), Surface.SEALED, label))
    here = group in held.report.groups
    decision = told.decision
    return GroupOutcome(
        group,
        allowed and decision.allowed and here,
        here and _filled(held.record, group),
        told.sentence if here else f"The report that we have holds nothing of {group.replace('_', ' ')}.",
        decision.rule_ids,
        tuple(rule.law for rule in decision.rules),
        decision.obligations,
    )


def _filled(record_: CaseRecord, group: FieldGroup) -> bool:
    return group is FieldGroup.EXISTENCE or redact(record_, set(CASE_GROUPS) - {group}) != record_


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked of policy about a case. `case` is empty for one that is not here yet."""

    action: Action
    partner: str
    case: str
    label: Label
    purpose: Purpose


def record(node: Node, tx: Transaction, asked: Asked, outcome: Mapping[str, object]) -> None:
    """What was decided about a case is on record, so that it can be decided again."""
    policytexts.keep(tx, node)
    details: dict[str, object] = {
        "partner": asked.partner,
        "surface": str(Surface.SEALED),
        "set": cases_of(asked.label.originator),
        "action": str(asked.action),
        "label": keep_label(tx, asked.label),
        "policy": node.policy.digest,
        "purpose": str(asked.purpose),
        **({"case": asked.case} if asked.case else {}),
        **outcome,
    }
    tx.log.append([node.event(EventKind.SHARE_DECIDED, actor=node.agency, subject=asked.partner, details=details)])


def keep_label(tx: Transaction, label: Label) -> str:
    """The label is kept under its digest, which is returned."""
    raw = canonical.encode(label.to_json())
    digest = hashlib.sha256(raw).hexdigest()
    tx.cases.keep_label(digest, raw.decode())
    return digest


def kept_label(tx: Transaction, digest: str) -> Label | None:
    """The label of a decision about a case, if it is here and as it was."""
    raw = tx.cases.label(digest)
    if raw is None or hashlib.sha256(raw.encode()).hexdigest() != digest:
        return None
    return Label.from_json(canonical.parse_canonical(raw.encode(), max_bytes=1 << 16))


def urgent_of(record_: CaseRecord, *, urgent: bool) -> Urgency:
    """How urgent a referral is: as the case says, or more."""
    return Urgency.CHILD_AT_RISK if urgent else record_.urgency


def due_at(node: Node, urgency: Urgency, obligations: Sequence[str]) -> int:
    """By when a referral that goes or comes now must have been read, in Unix seconds."""
    settings = node.settings
    hours = {
        Urgency.CHILD_AT_RISK: settings.case_unread_hours_child_at_risk,
        Urgency.PRIORITY: settings.case_unread_hours_priority,
        Urgency.ROUTINE: settings.case_unread_hours_routine,
    }[urgency]
    days = days_of(obligations, Duty.ACKNOWLEDGE_WITHIN_DAYS)
    return node.clock() + min(hours, hours if days is None else days * 24) * HOUR_SECONDS


def label_in_set(report: CaseReport) -> LabelInSet:
    """What policy judges of a report."""
    return LabelInSet(cases_of(report.record.originator), report.label)
