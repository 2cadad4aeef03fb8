"""What partners say of cases, taken within the transaction in which their mailbox is.

A partner is heard in its own threads alone: a thread is known by its partner and its id together, and each kind of
message belongs to one side of it. What does not fit is on record as refused and changes nothing; it stands in nobody's
way, since a mailbox brings every message in order.

    case_referral   read by the contract, judged by our own policy on its label; taken into the inbox, or refused
    case_answer     of a thread that we began, about a report that we sent in it
    case_message    of a thread that still goes on
    case_recall     of a thread that the partner began: the case goes, and that is answered
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gateway.audit import EventKind
from gateway.cases.deciding import Asked, due_at, label_in_set, receive_outcome, record
from gateway.cases.keeping import HELD, Casebook, CaseState
from gateway.cases.talking import Talk
from gateway.cases.threads import (
    ANSWER,
    MESSAGE,
    OURS,
    OVER,
    RECALL,
    REFERRAL,
    TALKING,
    THEIRS,
    Answer,
    Answered,
    Recall,
    Referral,
    Said,
    ThreadState,
    heard,
)
from gateway.errors import ConflictError, DeniedError, GatewayError, MalformedError
from gateway.interchange import MailMessage
from gateway.keylife import DAY_SECONDS
from gateway.mailbox import Mailbox
from gateway.node import Node
from gateway.partners import may_exchange
from gateway.policy import Action, Duty, PartnerRef
from gateway.policy.duties import are_known, carried, days_of, parse_duties
from gateway.store import Transaction
from gateway.store.tables import CaseMessage, CaseRow, CaseThread
from gateway.vidx import CaseReport, parse_case

# What a partner is told of a refusal: enough to act on, nothing of our rules or of what we hold.
NOT_READ = "the report is not as its contract says"
NOT_TAKEN = "our policy does not take it"
UNKNOWN_DUTY = "it comes under a duty that is not known here"
KNOWN = "the case was referred already, in another thread"
OWN = "the case is our own"

_Heard = tuple[str, str, dict[str, object]]  # case, thread, what the log says


@dataclass(frozen=True, slots=True)
class _Offer:
    """A report that comes: in which thread, and the case that it is a newer version of."""

    sender: str
    referral: Referral
    thread: CaseThread | None
    held: CaseRow | None

    @property
    def digest(self) -> str:
        """Identifies the report."""
        return hashlib.sha256(self.referral.report.encode()).hexdigest()


class Hearing:
    """Takes the messages about cases."""

    def __init__(self, node: Node, mailbox: Mailbox, book: Casebook, talk: Talk) -> None:
        self._node = node
        self._mailbox = mailbox
        self._book = book
        self._talk = talk
        for kind, hears in (
            (REFERRAL, self._referral),
            (ANSWER, self._answer),
            (MESSAGE, self._message),
            (RECALL, self._recall),
        ):
            mailbox.on_message(kind, self._on_record(hears))

    def _on_record(
        self, hears: Callable[[Transaction, str, MailMessage], _Heard]
    ) -> Callable[[Transaction, str, MailMessage], None]:
        def hear(tx: Transaction, sender: str, one: MailMessage) -> None:
            try:
                found = hears(tx, sender, one)
            except GatewayError as error:
                found = "", "", {"outcome": "refused", "reason": error.message}
            self._log(tx, sender, one, found)

        return hear

    def _log(self, tx: Transaction, sender: str, one: MailMessage, found: _Heard) -> None:
        case, thread, details = found
        named = {name: text for name, text in (("case", case), ("thread", thread)) if text}
        told: dict[str, object] = {"partner": sender, "message": one.kind, "sequence": one.number, **named, **details}
        event = self._node.event(EventKind.CASE_HEARD, actor=sender, subject=case, details=told)
        leaf = tx.log.append([event])
        # Of a report that we do not take nothing stays: neither its words nor who signed them.
        blank = one.kind == REFERRAL and details["outcome"] != "taken"
        if blank:
            self._mailbox.blank(tx, sender, "in", one.number)
        if thread:
            tx.cases.put_message(
                CaseMessage(
                    partner=sender,
                    way="in",
                    number=one.number,
                    thread=thread,
                    case_id=case,
                    kind=one.kind,
                    digest=str(details.get("report_digest", "")) if one.kind == REFERRAL else "",
                    at=self._node.clock(),
                    leaf=leaf,
                    blank=blank,
                )
            )

    # A report comes

    def _referral(self, tx: Transaction, sender: str, one: MailMessage) -> _Heard:
        offer = self._offer(tx, sender, Referral.parse(one.body))
        report, word = self._judged(tx, offer)
        if report is None:
            return self._refuse(tx, offer, word)
        if offer.held is not None and report.record.version < offer.held.version:
            raise ConflictError("an older version of a report than the one held")
        return self._take(tx, offer, report, carried(offer.referral.obligations, parse_duties(word.split())))

    def _offer(self, tx: Transaction, sender: str, referral: Referral) -> _Offer:
        thread = tx.cases.thread(sender, referral.thread)
        if thread is not None and thread.side == OURS:
            raise DeniedError("a referral in a thread that we began")
        if thread is not None and thread.state in OVER:
            raise ConflictError("a referral in a thread that is over")
        held = None if thread is None else tx.cases.find(thread.case_id)
        return _Offer(sender, referral, thread, held)

    def _judged(self, tx: Transaction, offer: _Offer) -> tuple[CaseReport | None, str]:
        """The report and the duties that our own policy adds, or None and why we do not take it."""
        sender, held = offer.sender, offer.held
        try:
            report = parse_case(offer.referral.report.encode())
        except MalformedError:
            return None, NOT_READ
        originator, reference = report.record.originator, report.record.reference
        if originator == self._node.agency:
            return None, OWN  # our own word on it is what counts; it never comes back from outside
        mark = self._book.mark(originator, reference, sender)
        if held is not None and held.mark != mark:
            return None, NOT_READ  # a thread is about one case
        known = tx.cases.known(mark)
        if held is None and known is not None and known.state in HELD:
            return None, KNOWN
        label = label_in_set(report)
        outcome = receive_outcome(self._node.policy, PartnerRef(sender, sender[:2]), label)
        case = "" if held is None else held.id
        asked = Asked(Action.RECEIVE, sender, case, label.label, offer.referral.purpose)
        record(self._node, tx, asked, outcome.details())
        if not outcome.decision.allowed or not may_exchange(self._node, tx, sender, label.set_name):
            return None, NOT_TAKEN
        if not are_known(offer.referral.obligations):
            return None, UNKNOWN_DUTY
        return report, " ".join(outcome.obligations)

    def _take(self, tx: Transaction, offer: _Offer, report: CaseReport, obligations: Sequence[str]) -> _Heard:
        """The report stands in the inbox, or in place of the one before; the sender is told that it is here."""
        now, before, referral = self._node.clock(), offer.thread, offer.referral
        row = offer.held or self._book.new_row(report.record, offer.sender)
        days = days_of(obligations, Duty.RETAIN_DAYS)
        row.keep_until = 0 if days is None else now + days * DAY_SECONDS
        row.obligations = " ".join(obligations)
        details: dict[str, object] = {"partner": offer.sender}
        deed = "received" if offer.held is None else "updated"
        self._book.put(tx, row, report, deed=deed, details=details, urgency=referral.urgency)
        thread = CaseThread(
            partner=offer.sender,
            id=referral.thread,
            case_id=row.id,
            side=THEIRS,
            state=str(ThreadState.RECEIVED) if before is None else before.state,
            purpose=str(referral.purpose),
            version=report.record.version,
            digest=offer.digest,
            groups=row.groups,
            obligations=row.obligations,
            created=now if before is None else before.created,
            due=due_at(self._node, referral.urgency, obligations) if before is None else before.due,
            read=0 if before is None else before.read,
            answered=0 if before is None else before.answered,
        )
        tx.cases.put_thread(thread)
        self._talk.answer(tx, thread, Answer.RECEIVED)
        told: dict[str, object] = {
            "outcome": "taken",
            "version": thread.version,
            "report_digest": offer.digest,
            "groups": row.groups.split(),
            "purpose": thread.purpose,
            "urgency": str(referral.urgency),
        }
        return row.id, thread.id, told

    def _refuse(self, tx: Transaction, offer: _Offer, reason: str) -> _Heard:
        """We do not take it, or not any longer: the sender is told, and nothing of it stays."""
        now, before, held = self._node.clock(), offer.thread, offer.held
        thread = CaseThread(
            partner=offer.sender,
            id=offer.referral.thread,
            case_id="" if held is None else held.id,
            side=THEIRS,
            state=str(ThreadState.REFUSED),
            purpose=str(offer.referral.purpose),
            version=0 if before is None else before.version,
            digest=offer.digest,
            groups="",
            created=now if before is None else before.created,
            due=now,
            answered=now,
        )
        tx.cases.put_thread(thread)
        self._talk.answer(tx, thread, Answer.REFUSED, reason)
        if held is not None:
            self._book.change(tx, held, CaseState.ERASED, deed="refused")
        return thread.case_id, thread.id, {"outcome": "refused", "reason": reason, "report_digest": offer.digest}

    # What is said of it

    def _answer(self, tx: Transaction, sender: str, one: MailMessage) -> _Heard:
        answered = Answered.parse(one.body)
        thread = self._thread(tx, sender, answered.thread, OURS)
        sent = {told.digest for told in tx.cases.messages(thread.case_id) if told.thread == thread.id and told.digest}
        if answered.digest not in sent:
            raise DeniedError("an answer about a report that we did not send in this thread")
        state = heard(ThreadState(thread.state), answered.answer)
        if state is not None:
            thread.state, now = str(state), self._node.clock()
            thread.read = thread.read or (0 if state is ThreadState.RECEIVED else now)
            if state not in (ThreadState.RECEIVED, ThreadState.READ):
                thread.answered = now
            tx.cases.put_thread(thread)
        told: dict[str, object] = {
            "word": str(answered.answer),
            "report_digest": answered.digest,
            "outcome": "known" if state is None and answered.answer is not Answer.PASSED_ON else "taken",
        }
        return thread.case_id, thread.id, told

    def _message(self, tx: Transaction, sender: str, one: MailMessage) -> _Heard:
        said = Said.parse(one.body)
        thread = self._thread(tx, sender, said.thread)
        if thread.state not in TALKING:
            raise ConflictError("a message in a thread that is over")
        return thread.case_id, thread.id, {"word": str(said.saying), "outcome": "taken"}

    def _recall(self, tx: Transaction, sender: str, one: MailMessage) -> _Heard:
        recall = Recall.parse(one.body)
        thread = self._thread(tx, sender, recall.thread, THEIRS)
        if thread.state in OVER:
            return thread.case_id, thread.id, {"outcome": "known"}
        thread.state, thread.answered = str(ThreadState.DELETED), self._node.clock()
        tx.cases.put_thread(thread)
        self._talk.answer(tx, thread, Answer.DELETED)
        row = tx.cases.find(thread.case_id)
        if row is not None and row.state in HELD:
            self._book.change(tx, row, CaseState.ERASED, deed="recalled")
        return thread.case_id, thread.id, {"outcome": "taken"}

    def _thread(self, tx: Transaction, sender: str, identifier: str, side: str = "") -> CaseThread:
        """A thread that we have with this partner. Another partner's is none of its: it looks as if there were none."""
        thread = tx.cases.thread(sender, identifier)
        if thread is None or side not in ("", thread.side):
            raise DeniedError("a message in a thread that this partner is not in")
        return thread
