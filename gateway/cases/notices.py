"""Telling partners what we assert, and taking it back from everybody who was told.

Who is told is decided anew with every version, under the policy of that moment: whoever may hold any of the material
(`subjects.holders`) or was told before, and may see that the entry exists and its victim status. Of a case that was
referred to us nothing is told on; but an agency that looks for the child by entries of its own hears, of these, a word
of our own. Of the digests a partner gets
the cryptographic ones, where policy shows it these; series names where it shows the series; entries' ids where it
follows the set. Who was told is kept.

A lower status goes to all of these. Who may not see the status any more under today's policy learns nothing but that
the notice is taken back (`resume_search`). From a status at which nobody searched, each partner has to answer that it
searches again; who has not is reminded at half time and at the deadline, and past it an alarm stands until the last
answer.

A gateway that was restored may have forgotten what it told. So partners tell a restored one what they hold of it
(`status_echo`). What it does not know raises an alarm; what it has lowered since is taken back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from gateway.alarms import AlarmKind, raise_alarm
from gateway.audit import EventKind
from gateway.cases import lines
from gateway.cases.children import REFERRED, partners_of
from gateway.cases.lines import Line
from gateway.cases.subjects import Kept, Subject, as_it_stands, elsewhere, holders
from gateway.crypto.checkpoint import VerifierKey, number_of_log
from gateway.errors import DeniedError
from gateway.exchange.forwarding import NOTHING, narrowed
from gateway.exchange.shelf import Shelf
from gateway.keylife import DAY_SECONDS
from gateway.mailbox import Mailbox
from gateway.model import ENTRY_GROUPS, FieldGroup, Label, Surface, VictimStatus
from gateway.node import Node, own_log
from gateway.partners import ACTIVE, card_in, find, may_move
from gateway.policy import LabelInSet, LabelRights, PartnerRef
from gateway.statuses import FOUND, RANK, Assertion
from gateway.statusmail import (
    ECHO,
    RESUME,
    RESUMED,
    Material,
    Resume,
    dump_held,
    dump_pieces,
    dump_resume,
    kind_of,
    parse_held,
)
from gateway.store import Transaction
from gateway.store.tables import HashSet, PartnerRow, StatusTold

RESUME_DAYS = 3  # a search that stands still for a mistake of ours is begun again at the next shift, not the next month
STATEMENTS_SET = "statuses"  # under this name policy judges what we assert of material that is another agency's
GROUPS = (*ENTRY_GROUPS, FieldGroup.CONTACT)  # whom to call is a group of its own
LOOKED_AT = 500  # assertions for which new holders are looked for at once: some seconds
MAX_ECHOES = 10_000  # assertions of one partner that are told back to it


@dataclass(frozen=True, slots=True)
class Plan:
    """What one partner is told. `materials` is empty for who may see nothing of it (any more)."""

    partner: str
    materials: tuple[Material, ...]
    contact: str
    rights: LabelRights
    before: StatusTold | None

    def goes(self, assertion: Assertion) -> bool:
        """Whether a message goes at all."""
        if self.before is None:
            # That we look for somebody is no news; that we know something is.
            return bool(self.materials) and RANK[assertion.status] > 0
        if self.before.version >= assertion.version:
            return False
        return bool(self.materials) or RANK[assertion.status] < RANK[VictimStatus(self.before.status)]


@dataclass(frozen=True, slots=True)
class Told:
    """What telling did: who was told, who was told only that it is taken back, how many may not know."""

    partners: tuple[str, ...] = ()
    taken_back: tuple[str, ...] = ()
    withheld: int = 0


class Notices:
    """Tells partners, and keeps who was told."""

    def __init__(self, node: Node, shelf: Shelf, mailbox: Mailbox) -> None:
        self._node = node
        self._shelf = shelf
        self._mailbox = mailbox
        self._looked_at = ""  # the assertion for which new holders were looked for last

    def tell(self, tx: Transaction, line: Line, *, again: bool = False) -> Told:
        """Everybody whom an assertion of ours concerns is told, within the deed that makes it.

        Args:
            again: it was told when it was made; only who has come to hold any of it since is told now.
        """
        told: list[str] = []
        taken_back: list[str] = []
        withheld = 0
        for plan in self.plans(tx, line):
            if not plan.goes(line.assertion):
                withheld += not plan.materials
                if not again and not plan.materials:
                    self._record(tx, line.assertion, plan, "deny")
                continue
            self._send(tx, line, plan)
            (told if plan.materials else taken_back).append(plan.partner)
        if told or taken_back:
            tx.schedule.hasten(self._node.clock())
        return Told(tuple(told), tuple(taken_back), withheld)

    def plans(self, tx: Transaction, line: Line) -> Iterator[Plan]:
        """What each partner would be told that may hold any of the material, or was told before. Reads only."""
        assert line.subject is not None, "only of our own assertions partners are told"
        follows = holders(tx, self._node, self._shelf, line.subject)
        for partner in partners_of(tx, line.subject.case) - {self._node.agency}:
            follows.setdefault(partner, frozenset())
        known = {row.partner: row for row in tx.statuses.told(line.id)}
        kept = as_it_stands(tx, self._shelf, line.subject)
        if any(one.came == REFERRED for one in kept):
            kept = (*kept, *elsewhere(tx, self._shelf, line.subject))
        for partner in sorted({*follows, *known}):
            row = find(self._node, tx, partner)
            if row is None and partner not in known:
                continue  # an owner or an originator that is no partner of ours
            names = follows.get(partner, frozenset())
            yield self._plan(tx, line, row, (partner, known.get(partner)), kept, names)

    def _plan(  # noqa: PLR0917  all that decides what one partner is told
        self,
        tx: Transaction,
        line: Line,
        row: PartnerRow | None,
        whom: tuple[str, StatusTold | None],
        kept: tuple[Kept, ...],
        follows: frozenset[str],
    ) -> Plan:
        partner, before = whom
        assert line.subject is not None
        materials, contact, seen = [], "", NOTHING
        for one in kept if row is not None and row.state == ACTIVE else ():
            assert row is not None
            rights = self._rights(tx, one, line.assertion.status, partner)
            groups = rights.groups
            seen = rights if len(groups) >= len(seen.groups) else seen
            may = {FieldGroup.EXISTENCE, FieldGroup.VICTIM_STATUS} <= groups
            if not may or not may_move(self._node, row, one.material.set_name):
                continue
            shown = Material(
                one.material.set_name,
                replace(one.material.label, victim_status=line.assertion.status),
                one.material.digests if FieldGroup.CRYPTOGRAPHIC_DIGESTS in groups else (),
                one.material.entries if one.material.set_name in follows else (),
                line.subject.series if FieldGroup.SERIES in groups else (),
            )
            if shown.count:
                materials.append(shown)
                contact = contact or (line.contact if FieldGroup.CONTACT in groups and line.assertion.is_found else "")
        return Plan(partner, tuple(materials), contact, seen, before)

    def _rights(self, tx: Transaction, kept: Kept, status: VictimStatus, partner: str) -> LabelRights:
        """What policy lets a partner see of material with this status, at this moment."""
        material, ref = kept.material, PartnerRef(partner, partner[:2])
        label = replace(material.label, victim_status=status)
        if not kept.came:
            return self._decided(material.set_name, label, ref)
        mirror = tx.sets.find(material.set_name)
        if partner in _sources(mirror, material.set_name):
            # To whom the material belongs, or who gave it to us, we say a word of our own on what it has already.
            own = replace(label, originator=self._node.agency, jurisdiction=self._node.settings.jurisdiction, onward=())
            return self._decided(f"{self._node.agency}/{STATEMENTS_SET}", own, ref)
        labels = tx.sets.labels(mirror.id or 0) if mirror is not None else []
        came = next((row for row in labels if row.digest.hex() == kept.came), None)
        return NOTHING if came is None else narrowed(label, came, self._decided(material.set_name, label, ref), ref)

    def _decided(self, set_name: str, label: Label, partner: PartnerRef) -> LabelRights:
        judged = {0: LabelInSet(set_name, label)}
        return self._node.policy.table(partner, Surface.SEALED, judged, groups=GROUPS)[0]

    def _send(self, tx: Transaction, line: Line, plan: Plan) -> None:
        one, now = line.assertion, self._node.clock()
        before = VictimStatus.UNIDENTIFIED if plan.before is None else VictimStatus(plan.before.status)
        number = 0
        row = StatusTold(
            number=one.id, partner=plan.partner, version=one.version, status=str(one.status), mail=0, at=now
        )
        if RANK[one.status] >= RANK[before] and plan.materials:
            for body in dump_pieces(one, plan.materials, plan.contact):
                number = self._mailbox.post(tx, plan.partner, kind_of(one), body)
        else:
            row.status = str(one.status if plan.materials else VictimStatus.UNIDENTIFIED)
            # Whoever had stopped searching answers; whoever only knew of a lead never stopped.
            was_found = RANK[before] >= FOUND or bool(plan.before and plan.before.due and not plan.before.answered)
            row.due = now + RESUME_DAYS * DAY_SECONDS if was_found and RANK[VictimStatus(row.status)] < FOUND else 0
            number = self._post_resume(tx, row, one, reason=one.reason if plan.materials else "")
        row.mail = number
        tx.statuses.put_told(row)
        self._record(tx, one, plan, "allow" if plan.materials else "taken_back")

    def _post_resume(self, tx: Transaction, row: StatusTold, one: Assertion, *, reason: str = "") -> int:
        status = VictimStatus(row.status)
        shown = None if status is VictimStatus.UNIDENTIFIED else status
        resume = Resume(row.number, row.version, one.at, row.due, row.reminded, shown, reason)
        return self._mailbox.post(tx, row.partner, RESUME, dump_resume(resume))

    def _record(self, tx: Transaction, one: Assertion, plan: Plan, outcome: str) -> None:
        details: dict[str, object] = {
            "assertion": one.id,
            "version": one.version,
            "partner": plan.partner,
            "outcome": outcome,
            "groups": sorted(plan.rights.groups),
            "rules": sorted({*plan.rights.permits, *plan.rights.forbids}),
            "policy": self._node.policy.digest,
        }
        event = self._node.event(
            EventKind.STATUS_SHARED, actor=self._node.agency, subject=plan.partner, details=details
        )
        tx.log.append([event])

    # Answers

    def hear_resumed(self, tx: Transaction, sender: str, body: dict[str, object]) -> None:
        """A partner searches again."""
        number, version, _ = parse_held(body)
        row = next((one for one in tx.statuses.told(number) if one.partner == sender), None)
        if row is None or not row.due or row.answered or version < row.version:
            return
        row.answered = self._node.clock()
        tx.statuses.put_told(row)
        details: dict[str, object] = {"assertion": number, "version": version, "partner": sender}
        event = self._node.event(EventKind.SEARCH_RESUMED, actor=sender, subject=self._node.agency, details=details)
        tx.log.append([event])

    def keep_house(self) -> int:
        """Who has not answered is reminded, restored partners are told what we hold of them, and new holders what we
        assert; returns how many messages that took."""
        now = self._node.clock()
        with self._node.store.reading() as tx:
            late = [row for row in tx.statuses.outstanding() if _level(row, now) > row.reminded]
            echoes = list(self._to_echo(tx))
        if not late and not echoes:
            return 0
        count = 0
        with self._node.store.transaction() as tx:
            for row in late:
                line = lines.find(self._node, tx, self._node.agency, row.number)
                if line is not None:
                    row.reminded = _level(row, now)
                    row.mail = self._post_resume(tx, row, line.assertion)
                    tx.statuses.put_told(row)
                    count += 1
            for partner, number in echoes:
                count += self._echo(tx, partner, number)
        return count

    def tell_new_holders(self) -> int:
        """Who has come to hold any of the material since, or may know of it now, is told; returns how many were.

        Looks at some of our assertions, and goes on with the others the next time.
        """
        with self._node.store.reading() as tx:
            every = [row for row in tx.statuses.all(self._node.agency) if RANK[VictimStatus(row.status)] > 0]
        every.sort(key=lambda row: row.number)
        later = [row for row in every if row.number > self._looked_at]
        rows = (later or every)[:LOOKED_AT]
        self._looked_at = rows[-1].number if rows else ""
        count = 0
        for row in rows:
            with self._shelf.reading(self._node.store) as tx:
                line = lines.find(self._node, tx, row.agency, row.number)
                due = line is not None and line.subject is not None and self._is_due(tx, line)
            if due:
                with self._node.store.transaction() as tx:
                    line = lines.find(self._node, tx, row.agency, row.number)
                    if line is not None:
                        count += len(self.tell(tx, line, again=True).partners)
        return count

    def _is_due(self, tx: Transaction, line: Line) -> bool:
        return any(plan.materials and plan.goes(line.assertion) for plan in self.plans(tx, line))

    # Restored partners

    def _to_echo(self, tx: Transaction) -> Iterator[tuple[str, int]]:
        """Partners that began a new log since we last told them what we hold of them, each with its number."""
        for row in tx.people.partners():
            if row.state != ACTIVE:
                continue
            number = number_of_log(VerifierKey.parse(card_in(row).log).name)
            if number > int(tx.people.meta(_echoed(row.agency)) or 1):
                yield row.agency, number

    def _echo(self, tx: Transaction, partner: str, number: int) -> int:
        held = tx.statuses.all(partner)[:MAX_ECHOES]
        for row in held:
            self._mailbox.post(tx, partner, ECHO, dump_held(row.number, row.version, VictimStatus(row.status)))
        tx.people.set_meta(_echoed(partner), str(number))
        return len(held)

    def hear_echo(self, tx: Transaction, sender: str, body: dict[str, object]) -> None:
        """A partner holds this of ours. What we have forgotten raises an alarm; what we have lowered is taken back.

        Raises:
            DeniedError: we were not restored, so we have forgotten nothing.
        """
        number, version, status = parse_held(body)
        if status is None or number_of_log(own_log(self._node, tx).name) == 1:
            raise DeniedError("nothing was restored here, so nobody needs to tell us what we said")
        known = next((one for one in tx.statuses.told(number) if one.partner == sender), None)
        line = lines.find(self._node, tx, self._node.agency, number)
        if (known is not None and known.version >= version) or (line is None and RANK[status] == 0):
            return
        now = self._node.clock()
        row = StatusTold(number=number, partner=sender, version=version, status=str(status), mail=0, at=now)
        tx.statuses.put_told(row)
        if line is None:
            # We stand by a word of which we know nothing, until a person looks: then it is said again, or taken back.
            self._adopt(tx, Line(Assertion(self._node.agency, number, version, status, now), "", Subject(())))
        elif line.assertion.version < version:
            # Of what we said and what we know the lower counts here, so that no search stands still meanwhile. A
            # partner that lies about it reaches no more than that.
            lower = min(status, line.assertion.status, key=RANK.__getitem__)
            self._adopt(tx, replace(line, assertion=replace(line.assertion, version=version, status=lower)))
        else:
            plan = next((one for one in self.plans(tx, line) if one.partner == sender), None)
            if plan is not None and plan.goes(line.assertion):
                self._send(tx, line, plan)

    def _adopt(self, tx: Transaction, line: Line) -> None:
        lines.put(self._node, tx, line)
        detail = "partners hold an assertion of ours that the backup does not know as they do"
        raise_alarm(tx, self._node, AlarmKind.STATUS_LOST, line.id, detail)


def resumed_body(number: str, version: int) -> tuple[str, dict[str, object]]:
    """The answer that we search again: its kind, its body."""
    return RESUMED, dump_held(number, version)


def _sources(mirror: HashSet | None, set_name: str) -> frozenset[str]:
    owner = set_name.partition("/")[0]
    return frozenset({owner} if mirror is None else {owner, mirror.hub})


def _level(row: StatusTold, now: int) -> int:
    """0 before half of the time is over, 1 before the deadline, 2 after it."""
    half = row.at + (row.due - row.at) // 2
    return int(now >= half) + int(now >= row.due)


def _echoed(partner: str) -> str:
    return f"status echo {partner}"
