"""Decision receipts: what policy said of each label, for whom, by which rules. Every share and every refusal has one.

A receipt is an event of the log (`share_decided`). It is written in the transaction of the deed that it allows or
refuses, once for each (set, label, partner, surface, policy): not for each page, not for each poll. What is new makes
new ones: a policy, a label, an answer that is another one because a rule has lapsed.

Which receipts there are stands in a table beside the log, each row with a MAC over what the receipt says. Whoever
writes the database may delete a row; then the receipt is written again.

A receipt names the policy and the label, and both are kept: `decide_again` decides once more and compares.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime

from gateway import audit, policytexts
from gateway.audit import Event, EventKind, LeafRow
from gateway.cases.deciding import kept_label, receive_outcome, refer_outcome
from gateway.crypto import canonical
from gateway.errors import AuditBrokenError, NotFoundError
from gateway.exchange.forwarding import narrowed
from gateway.exchange.labels import stored_label
from gateway.model import ENTRY_GROUPS, FieldGroup, Label, Surface
from gateway.node import Node
from gateway.policy import (
    Action,
    Decision,
    Effect,
    LabelInSet,
    LabelRights,
    PartnerRef,
    PolicySet,
    Purpose,
    Question,
    Reason,
    load,
)
from gateway.policy.duties import are_known
from gateway.policy.words import strictest
from gateway.store import Transaction
from gateway.store.tables import DecisionRow, HashSet, LabelRow

SHARE, RECEIVE, LOOK_UP = "share", "receive", "look_up"
UNKNOWN_DUTY = Decision(Effect.DENY, Reason.ENGINE_ERROR, Action.RECEIVE)
_MAC_LABEL = b"decision row 1\n"


@dataclass(frozen=True, slots=True)
class Site:
    """Whose decisions, on the labels of which set, by which policy (its digest). `purpose`: of look-ups."""

    set_id: int
    set_name: str
    partner: str
    action: str
    policy: str
    surface: Surface = Surface.SEALED
    purpose: str = ""

    @property
    def deed(self) -> str:
        """Under what name it is kept which decisions are on record: one for each purpose."""
        return f"{self.action} {self.purpose}" if self.purpose else self.action


Answers = Mapping[int, tuple[bytes, LabelRights | Decision]]  # by the label's number: its digest, what was decided


class Decisions:
    """Writes the receipts that are not there yet."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._known: dict[Site, object] = {}

    def are_on_record(self, tx: Transaction, site: Site, answers: Callable[[], Answers], of: object) -> bool:
        """Whether there is a receipt for each answer. Asked of the database once for each `of`.

        Args:
            answers: gives what was decided; called only where that has to be looked up.
            of: an object that stands for these answers as long as they are the same.
        """
        if self._known.get(site) is of:
            return True
        if self._missing(tx, site, answers()):
            return False
        self._known[site] = of
        return True

    def record(self, tx: Transaction, site: Site, answers: Answers) -> None:
        """Write the receipts that are missing, in the transaction of the deed that they are of."""
        missing = self._missing(tx, site, answers)
        if not missing:
            return
        policytexts.keep(tx, self._node)
        details = [one for _, one, _ in missing]
        leaf = tx.log.append([self._event(site, one) for one in details])
        tx.policies.put_decided(
            [
                DecisionRow(
                    set_id=site.set_id,
                    partner=site.partner,
                    surface=str(site.surface),
                    action=site.deed,
                    label=number,
                    mark=mark,
                    leaf=leaf + after,
                )
                for after, (number, _, mark) in enumerate(missing)
            ]
        )

    def _missing(self, tx: Transaction, site: Site, answers: Answers) -> list[tuple[int, dict[str, object], bytes]]:
        """Labels whose newest receipt says something else, or that have none: number, details, mark."""
        kept = tx.policies.decided(site.set_id, site.partner, str(site.surface), site.deed)
        found = []
        for number, (digest, answer) in sorted(answers.items()):
            details = self._details(site, digest, answer)
            mark = self._node.keystore.row_mac(_MAC_LABEL + canonical.encode(details))
            if number not in kept or kept[number].mark != mark:
                found.append((number, details, mark))
        return found

    def _details(self, site: Site, digest: bytes, answer: LabelRights | Decision) -> dict[str, object]:
        return {
            "partner": site.partner,
            "surface": str(site.surface),
            "set": site.set_name,
            "action": site.action,
            **({"purpose": site.purpose} if site.purpose else {}),
            "label": digest.hex(),
            **outcome(answer),
            "policy": site.policy,
        }

    def _event(self, site: Site, details: Mapping[str, object]) -> Event:
        return self._node.event(EventKind.SHARE_DECIDED, actor=self._node.agency, subject=site.partner, details=details)


def keepable(decisions: Mapping[int, Decision], duties: Mapping[int, Sequence[str]]) -> dict[int, Decision]:
    """The decisions, but no label is taken that carries a duty which is not known here: nobody could keep it."""
    return {n: one if are_known(duties[n]) else UNKNOWN_DUTY for n, one in decisions.items()}


def look_up_rights(
    policies: PolicySet,
    hash_set: HashSet,
    labels: Mapping[int, tuple[LabelRow, Label]],
    who: PartnerRef,
    purpose: Purpose,
) -> dict[int, LabelRights]:
    """What answers to a partner's look-ups may tell of entries under each of these labels of a set.

    That takes leave to ask for this purpose, and leave to know that the entry exists. What more is told is what the
    partner may be shown of it anyway; the contact point is one thing more that policy may show.
    """
    held = {number: LabelInSet(hash_set.name, label) for number, (_, label) in labels.items()}
    rights = policies.table(who, Surface.SEALED, held, groups=(*ENTRY_GROUPS, FieldGroup.CONTACT))
    if hash_set.relays:
        rights = {n: narrowed(labels[n][1], labels[n][0], right, who) for n, right in rights.items()}
    said = policies.answerable(who, Surface.SEALED, held, Question(Action.LOOK_UP, purpose))
    return {number: _told(right, said[number]) for number, right in rights.items()}


def _told(right: LabelRights, said: Decision) -> LabelRights:
    if not said.allowed:
        return LabelRights(frozenset(), (), (), tuple(sorted({*right.forbids, *said.rule_ids})))
    duties = strictest([*right.obligations, *said.obligations]) if right.groups else ()
    return replace(right, obligations=duties, permits=tuple(sorted({*right.permits, *said.rule_ids})))


def outcome(answer: LabelRights | Decision) -> dict[str, object]:
    """What a receipt keeps of an answer: outcome, groups, rules, obligations."""
    if isinstance(answer, LabelRights):
        allowed, groups = bool(answer.groups), sorted(answer.groups)
        rules: Iterable[str] = {*answer.permits, *answer.forbids}
    else:
        allowed, groups, rules = answer.allowed, [], answer.rule_ids
    return {
        "outcome": str(Effect.ALLOW if allowed else Effect.DENY),
        "groups": groups,
        "rules": sorted(rules),
        "obligations": [str(duty) for duty in answer.obligations],
    }


# Deciding again


@dataclass(frozen=True, slots=True)
class DecidedAgain:
    """A stored receipt, and what the same policy says of the same label on the same day. Both as `outcome` has it."""

    leaf: int
    at: int
    details: Mapping[str, object]
    again: Mapping[str, object]

    @property
    def same(self) -> bool:
        """Whether the receipt says what policy says."""
        return all(self.details.get(name) == value for name, value in self.again.items())


@dataclass(slots=True)
class Judge:
    """Decides receipts again. It keeps the policies that it has met."""

    tx: Transaction
    _loaded: dict[tuple[str, date], PolicySet] = field(default_factory=dict)

    def receipts(self) -> list[int]:
        """The leaves of every receipt in the log, oldest first."""
        rows = self.tx.log.of_kinds([EventKind.SHARE_DECIDED])
        return [row.index for row in rows if _event_of(row).kind is EventKind.SHARE_DECIDED]

    def decide_again(self, leaf: int) -> DecidedAgain:
        """The receipt at a leaf of the log, decided once more.

        Raises:
            NotFoundError: there is no receipt, or its policy or its label is no longer here.
            AuditBrokenError: the event is not the one that was logged; or its policy or label was altered.
        """
        logged = next(self.tx.log.leaves(leaf, leaf + 1), None)
        event = None if logged is None or logged.event_bytes is None else _event_of(logged)
        if event is None or event.kind is not EventKind.SHARE_DECIDED:
            raise NotFoundError("there is no decision receipt at this leaf", remedy="`gateway audit list` shows leaves")
        details = event.details
        if "purpose" in details and details["action"] != LOOK_UP:
            return self._about_a_case(leaf, event)
        partner, name = str(details["partner"]), str(details["set"])
        policies = self._policies(str(details["policy"]), datetime.fromtimestamp(event.at, UTC).date())
        sets, who = self.tx.sets, PartnerRef(partner, partner[:2])
        hash_set = sets.find(name) if details["action"] == RECEIVE else sets.find_served(name)
        row, label = self._label(hash_set, str(details["label"]), offered=details["action"] == RECEIVE)
        asked = who, Surface(str(details["surface"])), {0: LabelInSet(name, label)}
        if details["action"] == RECEIVE:
            return DecidedAgain(
                leaf, event.at, details, outcome(keepable(policies.receivable(*asked), {0: row.obligations.split()})[0])
            )
        if details["action"] == LOOK_UP and hash_set is not None:
            purpose = Purpose(str(details["purpose"]))
            told = look_up_rights(policies, hash_set, {0: (row, label)}, who, purpose)[0]
            return DecidedAgain(leaf, event.at, details, outcome(told))
        right = policies.table(*asked)[0]
        if hash_set is not None and hash_set.relays:
            right = narrowed(label, row, right, who)
        return DecidedAgain(leaf, event.at, details, outcome(right))

    def _about_a_case(self, leaf: int, event: Event) -> DecidedAgain:
        """The receipt of a decision about a case (`cases.deciding`)."""
        details = event.details
        policies = self._policies(str(details["policy"]), datetime.fromtimestamp(event.at, UTC).date())
        label = kept_label(self.tx, str(details["label"]))
        if label is None:
            raise NotFoundError("the label of this receipt is no longer here, so it cannot be decided again")
        partner, held = str(details["partner"]), LabelInSet(str(details["set"]), label)
        who = PartnerRef(partner, partner[:2])
        if details["action"] == RECEIVE:
            return DecidedAgain(leaf, event.at, details, receive_outcome(policies, who, held).details())
        purpose = Purpose(str(details["purpose"]))
        return DecidedAgain(leaf, event.at, details, refer_outcome(policies, who, held, purpose).details())

    def _policies(self, digest: str, on: date) -> PolicySet:
        if (digest, on) not in self._loaded:
            self._loaded[digest, on] = load(policytexts.find(self.tx, digest), on=on)
        return self._loaded[digest, on]

    def _label(self, hash_set: HashSet | None, digest: str, *, offered: bool) -> tuple[LabelRow, Label]:
        rows = [] if hash_set is None else self.tx.sets.labels(hash_set.id or 0)
        if hash_set is not None and offered and not hash_set.hub:  # into a set of ours, through a surface
            rows = self.tx.sets.offered_labels(hash_set.id or 0)
        for row in rows:
            if row.digest.hex() == digest:
                return row, stored_label(row)
        raise NotFoundError("the label of this receipt is no longer here, so it cannot be decided again")


def _event_of(row: LeafRow) -> Event:
    """The event of a leaf, as it was logged."""
    assert row.event_bytes is not None
    if row.salt is None or audit.event_entry(row.event_bytes, row.salt) != row.entry:
        raise AuditBrokenError("an event is not the one that was logged", index=row.index)
    return audit.parse_event(row.event_bytes)
