"""Messages: what was accepted (inbox), what is on its way (outbox), and the two mailboxes of each pair of partners."""

from __future__ import annotations

from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy import func as sql

from gateway.store.tables import InboxRow, MailEvidence, MailIn, MailOut, OutboxRow, columns

EVIDENCE = columns(MailEvidence)
INBOX = columns(InboxRow)
MAIL_IN = columns(MailIn)
MAIL_OUT = columns(MailOut)
OUTBOX = columns(OutboxRow)


class Mail:
    """Envelopes in and out; ordered messages between two partners."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def accepted(self, sender: str, message_id: str) -> tuple[str, bytes] | None:
        """(manifest digest, receipt) of a message accepted before, else None."""
        query = select(INBOX.manifest_digest, INBOX.receipt)
        row = self._connection.execute(
            query.where(INBOX.sender == sender, INBOX.message_id == message_id)
        ).one_or_none()
        return None if row is None else (row[0], bytes(row[1]))

    def accept(self, row: InboxRow) -> None:
        """Remember a message for ever, with its receipt."""
        self._connection.execute(insert(InboxRow), [row.model_dump()])

    def queue(self, row: OutboxRow) -> None:
        """Put a sealed message on its way."""
        self._connection.execute(insert(OutboxRow), [row.model_dump()])

    def waiting(self, partner: str) -> list[OutboxRow]:
        """Sealed messages to a partner that have no receipt yet, oldest first."""
        query = select(*OUTBOX).where(OUTBOX.partner == partner, OUTBOX.state == "waiting")
        rows = self._connection.execute(query.order_by(OUTBOX.created, OUTBOX.message_id))
        return [OutboxRow(**row._mapping) for row in rows]

    def sent(self, message_id: str) -> OutboxRow | None:
        """One message of the outbox."""
        row = self._connection.execute(select(*OUTBOX).where(OUTBOX.message_id == message_id)).one_or_none()
        return None if row is None else OutboxRow(**row._mapping)

    def receipts(self, partner: str | None = None) -> list[OutboxRow]:
        """Messages that have a receipt, newest first."""
        query = select(*OUTBOX).where(OUTBOX.state == "received")
        if partner is not None:
            query = query.where(OUTBOX.partner == partner)
        rows = self._connection.execute(query.order_by(OUTBOX.created.desc()))
        return [OutboxRow(**row._mapping) for row in rows]

    def close(self, message_id: str, *, state: str, receipt: bytes = b"", error: str = "") -> None:
        """End a message: received with its receipt, or dead with the reason. The sealed bytes go."""
        values = {"state": state, "receipt": receipt, "error": error, "sealed": b""}
        # Only what is waiting ends: a receipt that came first stays.
        waiting = (OUTBOX.message_id == message_id, OUTBOX.state == "waiting")
        self._connection.execute(update(OutboxRow).where(*waiting).values(**values))

    def end(self, partner: str, error: str) -> None:
        """End every message on its way to a partner that is shut out."""
        waiting = (OUTBOX.partner == partner, OUTBOX.state == "waiting")
        values = {"state": "dead", "error": error, "sealed": b""}
        self._connection.execute(update(OutboxRow).where(*waiting).values(**values))

    def end_pages(self, set_name: str, error: str, partner: str = "") -> None:
        """End every page of a set that is on its way (to one partner): what is pushed next is made anew."""
        waiting = [OUTBOX.subject == set_name, OUTBOX.state == "waiting"]
        if partner:
            waiting.append(OUTBOX.partner == partner)
        values = {"state": "dead", "error": error, "sealed": b""}
        self._connection.execute(update(OutboxRow).where(*waiting).values(**values))

    def note_failure(self, message_id: str, error: str) -> None:
        """Count one failed attempt."""
        values = {"attempts": OUTBOX.attempts + 1, "error": error}
        self._connection.execute(update(OutboxRow).where(OUTBOX.message_id == message_id).values(**values))

    def post(self, row: MailOut) -> None:
        """Append a message to the mailbox towards a partner."""
        self._connection.execute(insert(MailOut), [row.model_dump()])

    def last_out(self, partner: str) -> int:
        """The number of the newest message towards a partner, 0 without one."""
        return int(
            self._connection.execute(select(sql.max(MAIL_OUT.number)).where(MAIL_OUT.partner == partner)).scalar() or 0
        )

    def outgoing(self, partner: str, after: int, limit: int) -> list[MailOut]:
        """Messages towards a partner with a number above `after`, in order."""
        query = select(*MAIL_OUT).where(MAIL_OUT.partner == partner, MAIL_OUT.number > after)
        rows = self._connection.execute(query.order_by(MAIL_OUT.number).limit(limit))
        return [MailOut(**row._mapping) for row in rows]

    def undelivered(self, partner: str) -> int:
        """The highest number such that everything up to it is delivered."""
        query = select(sql.min(MAIL_OUT.number)).where(MAIL_OUT.partner == partner, MAIL_OUT.delivered == 0)
        first = self._connection.execute(query).scalar()
        return self.last_out(partner) if first is None else int(first) - 1

    def delivered(self, partner: str, until: int, now: int, receipt: bytes = b"") -> None:
        """Mark everything up to a number as delivered."""
        where = (MAIL_OUT.partner == partner, MAIL_OUT.number <= until, MAIL_OUT.delivered == 0)
        self._connection.execute(update(MailOut).where(*where).values(delivered=now, receipt=receipt))

    def last_in(self, partner: str) -> int:
        """The number of the newest message from a partner, 0 without one."""
        return int(
            self._connection.execute(select(sql.max(MAIL_IN.number)).where(MAIL_IN.partner == partner)).scalar() or 0
        )

    def incoming_digest(self, partner: str, number: int) -> str | None:
        """The digest under which a number was received, else None."""
        query = select(MAIL_IN.digest).where(MAIL_IN.partner == partner, MAIL_IN.number == number)
        return self._connection.execute(query).scalar()

    def receive(self, row: MailIn) -> None:
        """Keep a message from a partner."""
        self._connection.execute(insert(MailIn), [row.model_dump()])

    def incoming_row(self, partner: str, number: int) -> MailIn | None:
        """One message from a partner, or None."""
        query = select(*MAIL_IN).where(MAIL_IN.partner == partner, MAIL_IN.number == number)
        row = self._connection.execute(query).one_or_none()
        return None if row is None else MailIn(**row._mapping)

    def outgoing_row(self, partner: str, number: int) -> MailOut | None:
        """One message towards a partner, or None."""
        query = select(*MAIL_OUT).where(MAIL_OUT.partner == partner, MAIL_OUT.number == number)
        row = self._connection.execute(query).one_or_none()
        return None if row is None else MailOut(**row._mapping)

    def reseal(self, row: MailIn | MailOut, sealed_body: bytes) -> None:
        """A message has another body from now on."""
        model, of = (MailIn, MAIL_IN) if isinstance(row, MailIn) else (MailOut, MAIL_OUT)
        where = (of.partner == row.partner, of.number == row.number)
        self._connection.execute(update(model).where(*where).values(sealed_body=sealed_body))

    def drop_evidence(self, partner: str, number: int) -> None:
        """Forget what a partner signed of a message, and of those that came with it."""
        where = (EVIDENCE.partner == partner, EVIDENCE.first <= number, EVIDENCE.last >= number)
        self._connection.execute(delete(MailEvidence).where(*where))

    def keep_evidence(self, row: MailEvidence) -> None:
        """Keep what a partner signed when it sent some messages."""
        self._connection.execute(insert(MailEvidence), [row.model_dump()])

    def evidence(self, partner: str, number: int) -> MailEvidence | None:
        """What a partner signed of a message, or None where that is not kept."""
        query = select(*EVIDENCE).where(EVIDENCE.partner == partner, EVIDENCE.last >= number)
        row = self._connection.execute(query.order_by(EVIDENCE.last).limit(1)).one_or_none()
        return None if row is None or row.first > number else MailEvidence(**row._mapping)

    def incoming(self, partner: str | None = None) -> list[MailIn]:
        """Messages received, newest first."""
        query = select(*MAIL_IN)
        if partner is not None:
            query = query.where(MAIL_IN.partner == partner)
        rows = self._connection.execute(query.order_by(MAIL_IN.received.desc(), MAIL_IN.number.desc()))
        return [MailIn(**row._mapping) for row in rows]

    def sent_mail(self, partner: str | None = None) -> list[MailOut]:
        """Messages towards partners, newest first."""
        query = select(*MAIL_OUT)
        if partner is not None:
            query = query.where(MAIL_OUT.partner == partner)
        rows = self._connection.execute(query.order_by(MAIL_OUT.created.desc(), MAIL_OUT.number.desc()))
        return [MailOut(**row._mapping) for row in rows]
