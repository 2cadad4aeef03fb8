"""What people here say of cases, and how it goes into the mailbox.

Each message of ours is one commit with its leaf (`case_sent`) and its line in the thread. What is urgent hastens the
schedule: a server that runs delivers it at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.audit import EventKind
from gateway.caserecord import Urgency
from gateway.cases.keeping import Casebook, CaseState
from gateway.cases.threads import (
    ANSWER,
    MESSAGE,
    REFERRAL,
    TALKING,
    THEIRS,
    Answer,
    Answered,
    Said,
    Saying,
    ThreadState,
)
from gateway.errors import ConflictError, DeniedError, MalformedError, NotFoundError
from gateway.mailbox import Mailbox
from gateway.node import Node
from gateway.store import Transaction
from gateway.store.tables import CaseMessage, CaseRow, CaseThread


@dataclass(frozen=True, slots=True)
class Line:
    """One message of a thread as people read it. `way`: "in" or "out"; `delivered`: that it arrived is known."""

    partner: str
    thread: str
    way: str
    number: int
    at: int
    kind: str
    word: str
    text: str
    contact: str
    delivered: bool


class Talk:
    """The threads about cases, and our words in them."""

    def __init__(self, node: Node, mailbox: Mailbox, book: Casebook) -> None:
        self._node = node
        self._mailbox = mailbox
        self._book = book

    # What people say

    def read(self, case: str) -> None:
        """Somebody here has read what was referred; who referred it is told."""
        with self._node.store.reading() as tx:
            unread = self._received(tx, tx.cases.beginning(case), (ThreadState.RECEIVED,))
        if unread is None:
            return
        with self._node.store.transaction() as tx:
            row = tx.cases.beginning(case)
            thread = self._received(tx, row, (ThreadState.RECEIVED,))
            if thread is not None:
                self.reply(tx, row, thread, Answer.READ)

    def accept(self, case: str) -> CaseRow:
        """We take a case that was referred to us."""
        with self._node.store.transaction() as tx:
            row = tx.cases.beginning(case)
            thread = self._answerable(tx, row, (ThreadState.RECEIVED, ThreadState.READ))
            self.reply(tx, row, thread, Answer.ACCEPTED)
            self._book.change(tx, row, CaseState.OPEN, deed="accepted")
            return row

    def decline(self, case: str, reason: str) -> CaseRow:
        """We do not take a case that was referred to us, or not any longer; its content goes from here."""
        if not reason.strip():
            raise MalformedError("a case is declined for a reason")
        with self._node.store.transaction() as tx:
            row = tx.cases.beginning(case)
            states = (ThreadState.RECEIVED, ThreadState.READ, ThreadState.ACCEPTED)
            thread = self._answerable(tx, row, states)
            self.reply(tx, row, thread, Answer.DECLINED, reason)
            self._book.change(tx, row, CaseState.DECLINED, deed="declined")
            return row

    def say(self, case: str, text: str, saying: Saying = Saying.SAY, *, partner: str = "") -> list[CaseThread]:
        """A message in the thread of a case; where there are several, in that with `partner`."""
        with self._node.store.transaction() as tx:
            row = tx.cases.beginning(case)
            talking = [one for one in tx.cases.threads(row.id) if one.state in TALKING]
            found = [one for one in talking if partner in ("", one.partner)]
            if not found:
                raise NotFoundError("nobody talks about this case with us", remedy="refer it: `gateway case refer`")
            if len(found) > 1:
                names = ", ".join(one.partner for one in found)
                raise MalformedError("several partners have this case", remedy=f"name one with --to: {names}")
            self.tell(tx, row, found[0], saying, text)
            return found

    def lines(self, case: str) -> list[Line]:
        """What was said about a case, in the order in which it came and went here."""
        with self._node.store.reading() as tx:
            row = tx.cases.beginning(case)
            return [self._line(tx, one) for one in tx.cases.messages(row.id)]

    def threads(self, case: str) -> list[CaseThread]:
        """The threads about a case, the oldest first."""
        with self._node.store.reading() as tx:
            return tx.cases.threads(tx.cases.beginning(case).id)

    # Within a deed

    def blank(self, tx: Transaction, case: str) -> None:
        """The words of the messages about a case that is gone are erased, as far as they have arrived."""
        for one in tx.cases.messages(case):
            if not one.blank and self._mailbox.blank(tx, one.partner, one.way, one.number):
                tx.cases.put_message(one.model_copy(update={"blank": True}))

    def tell(self, tx: Transaction, row: CaseRow, thread: CaseThread, saying: Saying, text: str) -> None:
        said = Said(thread.id, saying, text, self._node.settings.case_duty_contact)
        self.post(tx, thread, MESSAGE, said.body(), {"word": str(saying)})
        if row.urgency == Urgency.CHILD_AT_RISK:
            tx.schedule.hasten(self._node.clock())

    def reply(self, tx: Transaction, row: CaseRow, thread: CaseThread, answer: Answer, reason: str = "") -> None:
        now = self._node.clock()
        thread.state = str(answer)
        if answer is Answer.READ or not thread.read:
            thread.read = now
        if answer is not Answer.READ:
            thread.answered = now
        tx.cases.put_thread(thread)
        self.answer(tx, thread, answer, reason)
        if row.urgency == Urgency.CHILD_AT_RISK:
            tx.schedule.hasten(now)

    def answer(self, tx: Transaction, thread: CaseThread, answer: Answer, reason: str = "", to: str = "") -> None:
        """Our word on a report that a partner referred goes to it."""
        contact = self._node.settings.case_duty_contact
        body = Answered(thread.id, answer, thread.digest, self._node.clock(), reason, contact, to).body()
        self.post(tx, thread, ANSWER, body, {"word": str(answer), "report_digest": thread.digest})

    def post(
        self, tx: Transaction, thread: CaseThread, kind: str, body: dict[str, object], details: dict[str, object]
    ) -> int:
        number = self._mailbox.post(tx, thread.partner, kind, body)
        told = {"case": thread.case_id, "partner": thread.partner, "thread": thread.id, "message": kind}
        event = self._node.event(
            EventKind.CASE_SENT,
            actor=self._node.agency,
            subject=thread.case_id,
            details={**told, "sequence": number, **details},
        )
        leaf = tx.log.append([event])
        digest = str(details.get("report_digest", "")) if kind == REFERRAL else ""
        tx.cases.put_message(
            CaseMessage(
                partner=thread.partner,
                way="out",
                number=number,
                thread=thread.id,
                case_id=thread.case_id,
                kind=kind,
                digest=digest,
                at=self._node.clock(),
                leaf=leaf,
            )
        )
        return number

    def _received(self, tx: Transaction, row: CaseRow, states: Sequence[ThreadState]) -> CaseThread | None:
        found = [one for one in tx.cases.threads(row.id) if one.side == THEIRS and one.state in states]
        return found[0] if found else None

    def _answerable(self, tx: Transaction, row: CaseRow, states: Sequence[ThreadState]) -> CaseThread:
        if not row.source:
            raise DeniedError("this case is our own: there is nobody to answer")
        thread = self._received(tx, row, states)
        if thread is None:
            raise ConflictError(f"the case is {row.state}: it was answered already, or taken back")
        return thread

    def _line(self, tx: Transaction, one: CaseMessage) -> Line:
        mail = (
            tx.mail.incoming_row(one.partner, one.number)
            if one.way == "in"
            else tx.mail.outgoing_row(one.partner, one.number)
        )
        body = {} if mail is None or one.blank else self._mailbox.read(mail)
        texts = {name: str(body.get(name, "")) for name in ("note", "reason", "text", "contact")}
        word = str(body.get("answer", body.get("saying", body.get("urgency", ""))))
        delivered = one.way == "in" or bool(getattr(mail, "delivered", 0))
        text = "(erased)" if one.blank else texts["note"] or texts["reason"] or texts["text"]
        return Line(
            one.partner, one.thread, one.way, one.number, one.at, one.kind, word, text, texts["contact"], delivered
        )
