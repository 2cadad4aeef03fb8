"""Statuses of victims: what we assert, what partners assert, and what both make together.

    1 a person sets a status       `set_entries`, `set_victim`, `change`: one version of one assertion, kept and told
    2 a partner's word comes       `hear`: taken as far as our policy takes it from there, never into our entries
    3 it is taken back             `hear_resume`: taken whatever policy says, answered, and an alarm tells our people
    4 anybody asks                 `known_status`, `worklist`: the join of all that meets, as of this moment

An entry is never rewritten by what another agency says of it: the joined view is worked out when somebody asks.

Contract: contracts/status-1.md; the values: `gateway.statuses`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from gateway.alarms import AlarmKind, close_alarm, raise_alarm
from gateway.audit import EventKind
from gateway.cases import lines
from gateway.cases.certificate import Certificates
from gateway.cases.children import of_child
from gateway.cases.deconfliction import Claims
from gateway.cases.knowing import Knowledge, Known, Worklist
from gateway.cases.lines import Line
from gateway.cases.merging import Merging
from gateway.cases.notices import Notices, Told, resumed_body
from gateway.cases.ownword import OwnWord
from gateway.cases.subjects import (
    OWN_KINDS,
    Marks,
    Subject,
    mark_rows,
    of_entries,
    with_digests,
)
from gateway.errors import ConflictError, DeniedError, GatewayError, MalformedError, NotFoundError
from gateway.exchange.shelf import Shelf
from gateway.interchange import MAIL_TYPE
from gateway.mailbox import Hears, Mailbox
from gateway.model import Surface, VictimStatus, is_test_set
from gateway.node import Node
from gateway.partners import may_exchange
from gateway.policy import LabelInSet, PartnerRef
from gateway.statuses import RANK, Assertion, check_step, is_line, newest
from gateway.statusmail import (
    ASSERTION,
    CLAIM_ANSWER,
    CLAIM_CONTACT,
    ECHO,
    NOTICE,
    RESUME,
    RESUMED,
    SERIES,
    Piece,
    parse_piece,
    parse_resume,
)
from gateway.store import Transaction

MAX_ASSERTIONS = 1_000_000  # of one partner: more children than any agency has ever identified
MAX_MARKS = 40_000  # of one assertion of a partner: twice what we let one of ours have
ID_BYTES = 16


@dataclass(frozen=True, slots=True)
class Wish:
    """What a person wants to assert. `contact`: whom partners call, in one line."""

    status: VictimStatus
    reason: str = ""
    contact: str = ""

    def __post_init__(self) -> None:
        if self.status not in RANK:
            raise MalformedError("a status that nobody can assert")
        for text, name in ((self.reason, "reason"), (self.contact, "contact")):
            if text and not is_line(text):
                raise MalformedError(f"a {name} is one line")


@dataclass(frozen=True, slots=True)
class Done:
    """What setting a status did. `before`: None for a new assertion; `series`: names that its entries carry besides."""

    assertion: Assertion
    before: VictimStatus | None
    told: Told
    series: tuple[str, ...] = ()
    claims: tuple[str, ...] = ()
    revoked: tuple[str, ...] = ()


class Statuses:
    """One gateway's statuses. Threads may share it."""

    def __init__(self, node: Node, shelf: Shelf, mailbox: Mailbox) -> None:
        self._node = node
        self._shelf = shelf
        self._mailbox = mailbox
        self.marks = Marks(node.keystore)
        self.notices = Notices(node, shelf, mailbox)
        self.claims = Claims(node, mailbox)
        self.merging = Merging(node, shelf, mailbox)
        self.certificates = Certificates(node)
        self.knowledge = Knowledge(node, shelf)
        self.own_word = OwnWord(node, self.marks)
        hears: dict[str, Hears] = {
            ASSERTION: self.hear,
            NOTICE: self.hear,
            RESUME: self.hear_resume,
            RESUMED: self.notices.hear_resumed,
            ECHO: self.notices.hear_echo,
            CLAIM_ANSWER: self.claims.hear_answer,
            CLAIM_CONTACT: self.claims.hear_contact,
            SERIES: self.merging.hear,
        }
        for kind, hear in hears.items():
            mailbox.on(kind, self._or_refused(hear))

    def _or_refused(self, hears: Hears) -> Hears:
        """A message that cannot be taken changes nothing, and is on record: what comes behind it is not held up."""

        def hear(tx: Transaction, sender: str, body: dict[str, object]) -> None:
            try:
                hears(tx, sender, body)
            except (MalformedError, DeniedError, NotFoundError) as error:
                self._refused(tx, sender, error)

        return hear

    def _refused(self, tx: Transaction, sender: str, error: GatewayError) -> None:
        details: dict[str, object] = {
            "sender": sender,
            "error": type(error).__name__,
            "reason": error.message,
            "payload_type": MAIL_TYPE,
        }
        event = self._node.event(EventKind.MESSAGE_REFUSED, actor=self._node.agency, subject=sender, details=details)
        tx.log.append([event])

    # Ours

    def set_entries(
        self, set_name: str, entries: Sequence[str], wish: Wish, *, series: Sequence[str] = (), actor: str
    ) -> Done:
        """Assert a status of the child behind entries of a set, and tell everybody concerned.

        Args:
            entries: as `look-up` shows them.
            series: names of series all of whose material shows this child.

        Raises:
            NotFoundError: the set does not hold one of the entries.
            ConflictError: the entries belong to several assertions of ours.
            MalformedError: the status is lowered without a reason.
        """
        with self._node.store.transaction() as tx:
            named = of_entries(tx, self._shelf, set_name, entries)
            subject = replace(named.subject, series=tuple(sorted(set(series))))
            done = self._assert(tx, subject, wish, actor)
        return replace(done, series=tuple(sorted(named.series - set(series))))

    def set_victim(self, case: str, victim: str, wish: Wish, *, series: Sequence[str] = (), actor: str) -> Done:
        """The same for a child of a case, by the case's id or the beginning of it and the child's pseudonym.

        Raises:
            NotFoundError: no such case, or no such child in it.
            MalformedError: what policy judges the case by is not stated yet.
        """
        with self._node.store.transaction() as tx:
            named = of_child(self._node, tx, self._shelf, case, victim)
            done = self._assert(tx, replace(named.subject, series=tuple(sorted(set(series)))), wish, actor)
        return replace(done, series=tuple(sorted(named.series - set(series))))

    def assertion_of(self, case: str, victim: str) -> str:
        """The id of our assertion about a child of a case.

        Raises:
            NotFoundError: we assert nothing of it.
        """
        with self._node.store.reading() as tx:
            mark = self.marks.of_victim(tx.cases.beginning(case).id, victim)
            found = [number for _, agency, number in tx.statuses.meeting([mark]) if agency == self._node.agency]
        if not found:
            raise NotFoundError("we assert nothing of this child", remedy="`gateway status set --case … --victim …`")
        return found[0]

    def change(self, number: str, wish: Wish, *, actor: str) -> Done:
        """The next version of an assertion of ours, by its id or the beginning of it."""
        with self._node.store.transaction() as tx:
            row = tx.statuses.beginning(number)
            if row.agency != self._node.agency:
                raise DeniedError("only the agency that asserts a status changes it")
            line = lines.opened(self._node, row)
            return self._put(tx, line, line.subject or Subject(()), wish, actor)

    def _assert(self, tx: Transaction, subject: Subject, wish: Wish, actor: str) -> Done:
        subject.check()
        marks = self.marks.of_subject(subject)
        own = {mark for mark, kind in marks.items() if kind in OWN_KINDS}
        known = {number for _, agency, number in tx.statuses.meeting(own) if agency == self._node.agency}
        if len(known) > 1:
            raise ConflictError(
                "this is the material of several assertions of ours",
                remedy=f"change each by itself: {', '.join(sorted(one[:12] for one in known))}",
            )
        before = lines.find(self._node, tx, self._node.agency, known.pop()) if known else None
        return self._put(tx, before, subject, wish, actor)

    def _put(self, tx: Transaction, before: Line | None, subject: Subject, wish: Wish, actor: str) -> Done:
        node, now = self._node, self._node.clock()
        # 1. The next version, which only we can make.
        number = before.id if before else node.random.bytes(ID_BYTES).hex()
        version = lines.next_version(node, tx, before.assertion.version if before else 0)
        assertion = Assertion(node.agency, number, version, wish.status, now, wish.reason)
        check_step(before.assertion if before else None, assertion)
        known = before.subject if before else None
        whole = subject if known is None or known == subject else known.joined(subject)
        # 2. It is kept, with the marks of all that it speaks of.
        contact = wish.contact or (before.contact if before else "")
        line = Line(assertion, contact, whole, now, seen=now)
        lines.put(node, tx, line)
        tx.statuses.add_marks(mark_rows(node.agency, number, self.marks.of_subject(whole)))
        details: dict[str, object] = {
            "assertion": number,
            "version": version,
            "status": str(wish.status),
            "marks": len(tx.statuses.marks(node.agency, number)),
        }
        tx.log.append([node.event(EventKind.STATUS_ASSERTED, actor=actor, subject=node.agency, details=details)])
        # 3. What was certified on the strength of it is certified no more, where it was lowered.
        revoked = self.certificates.follow(tx, assertion)
        # 4. Who else claims the same is told, and everybody whom it concerns.
        claims = self.claims.look(tx, assertion, self._met_by(tx, node.agency, number))
        told = self.notices.tell(tx, line)
        close_alarm(tx, node, AlarmKind.STATUS_LOST, number)
        return Done(assertion, before.assertion.status if before else None, told, (), claims, revoked)

    # Theirs

    def hear(self, tx: Transaction, sender: str, body: dict[str, object]) -> None:
        """What a partner asserts, as far as our policy takes it."""
        piece = parse_piece(sender, body)
        material = piece.material
        self._check_taken(tx, sender, piece)
        known = lines.find(self._node, tx, sender, piece.assertion.id)
        if known is None and tx.statuses.count(sender) >= MAX_ASSERTIONS:
            raise DeniedError("more assertions of one partner than this gateway keeps")
        marks = self.marks.of_material(material)
        if len(tx.statuses.marks(sender, piece.assertion.id)) + len(marks) > MAX_MARKS:
            raise DeniedError("more material than one assertion may speak of")
        tx.statuses.add_marks(mark_rows(sender, piece.assertion.id, marks))
        met = sum(
            one.rows.n
            for hash_set in tx.sets.all()
            for one in with_digests(tx, self._shelf, hash_set.id or 0, frozenset(material.digests))
        )
        self._take(tx, known, piece.assertion, contact=piece.contact, met=met)
        details: dict[str, object] = {
            "assertion": piece.assertion.id,
            "version": piece.assertion.version,
            "status": str(piece.assertion.status),
            "marks": len(marks),
            "entries": met,
        }
        event = self._node.event(EventKind.STATUS_RECEIVED, actor=sender, subject=self._node.agency, details=details)
        tx.log.append([event])

    def _check_taken(self, tx: Transaction, sender: str, piece: Piece) -> None:
        """Returns when our policy takes a status of this material from there. DeniedError: it does not.

        Invented data end no real search: of a set for tests nothing is taken, and nothing of a real set is taken from a
        partner under test.
        """
        if not self._node.settings.demo:
            real = not is_test_set(piece.material.set_name)
            if not real or not may_exchange(self._node, tx, sender, piece.material.set_name):
                raise DeniedError("invented data, or a partner under test: no search ends by that")
        held = LabelInSet(piece.material.set_name, piece.material.label)
        hub = PartnerRef(sender, sender[:2])
        if not self._node.policy.receivable(hub, Surface.SEALED, {0: held})[0].allowed:
            raise DeniedError("our policy does not take this status from there")

    def _take(self, tx: Transaction, known: Line | None, said: Assertion, *, contact: str = "", met: int = 0) -> Line:
        """The newest of what is known and what is said now, kept."""
        now = self._node.clock()
        assertion = said if known is None else newest(known.assertion, said)
        if known is not None and known.assertion.version == assertion.version:
            line = replace(known, assertion=assertion, contact=known.contact or contact, met=known.met + met)
        else:
            line = Line(assertion, contact, None, now, met)
        lines.put(self._node, tx, line)
        self.claims.look(tx, assertion, self._met_by(tx, assertion.agency, assertion.id))
        return line

    def hear_resume(self, tx: Transaction, sender: str, body: dict[str, object]) -> None:
        """A partner takes an assertion back. Policy is not asked: a search must go on."""
        resume = parse_resume(body)
        known = lines.find(self._node, tx, sender, resume.id)
        if known is not None:
            status = resume.status or VictimStatus.UNIDENTIFIED
            said = Assertion(sender, resume.id, resume.version, status, resume.at, resume.reason)
            was_found = known.assertion.is_found
            line = self._take(tx, known, said)
            if was_found and not line.assertion.is_found:
                self._resumed(tx, line.assertion)
        if resume.due:
            self._mailbox.post(tx, sender, *resumed_body(resume.id, resume.version))

    def _resumed(self, tx: Transaction, one: Assertion) -> None:
        details: dict[str, object] = {"assertion": one.id, "version": one.version, "partner": one.agency}
        event = self._node.event(
            EventKind.SEARCH_RESUMED, actor=self._node.agency, subject=self._node.agency, details=details
        )
        tx.log.append([event])
        detail = f"{one.agency} has taken an identification back: what it spoke of is looked for again"
        raise_alarm(tx, self._node, AlarmKind.SEARCH_RESUMED, one.id, detail)

    def _met_by(self, tx: Transaction, agency: str, number: str) -> list[Assertion]:
        """Other agencies' assertions that meet one."""
        own = {row.mark for row in tx.statuses.marks(agency, number)}
        keys = {(other, found) for _, other, found in tx.statuses.meeting(own | self.knowledge.merged(tx, own))}
        rows = [tx.statuses.find(*key) for key in sorted(keys) if key[0] != agency]
        return [lines.opened(self._node, row).assertion for row in rows if row is not None]

    def known_status(
        self, tx: Transaction, digests: Sequence[tuple[str, bytes]], series: Collection[str] = ()
    ) -> dict[int, Known]:
        """What all agencies say of each digest: `Knowledge.of_digests`."""
        return self.knowledge.of_digests(tx, digests, series)

    def worklist(self, set_name: str = "", *, limit: int = 0) -> Worklist:
        """What is still to be looked for: `Knowledge.worklist`."""
        return self.knowledge.worklist(set_name, limit=limit)

    def see(self, number: str, actor: str) -> Line:
        """A person has looked at what a partner asserts; what is open about it is closed."""
        with self._node.store.transaction() as tx:
            row = tx.statuses.beginning(number)
            tx.statuses.note_seen(row.agency, row.number, self._node.clock())
            close_alarm(tx, self._node, AlarmKind.SEARCH_RESUMED, row.number, by=actor)
            return lines.opened(self._node, row)

    def keep_house(self) -> None:
        """Reminders, and what restored partners have to be told."""
        self.notices.keep_house()
