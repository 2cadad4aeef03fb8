"""The mailbox: one ordered feed of messages for each direction of a pair of partners.

Messages queue as plain rows (sealed at rest) and are sealed for the partner only when they go, so a partner that was
away for weeks needs no key of that time. Push and pull bring the same messages; a number that was seen is taken once,
and only with the same content. Asking for what is above N says that everything up to N arrived.

A restored gateway does not know which numbers it gave after the backup. So it goes on beyond all of them: the messages
of its log N begin at (N - 1) × `GAP` + 1, and that is the one gap which the receiver accepts (contracts/restore-1.md).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO

from gateway.audit import Event, EventKind
from gateway.comparisons import dump_offer, parse_offer
from gateway.crypto import canonical, envelope
from gateway.crypto.checkpoint import VerifierKey, number_of_log
from gateway.crypto.keys import new_message_id
from gateway.errors import ConflictError, MalformedError, StaleCursorError
from gateway.interchange import (
    MAIL_TYPE,
    MAX_DOCUMENT_BYTES,
    MAX_MAIL_MESSAGES,
    NO_VIEW,
    Cursor,
    IdentityCard,
    MailMessage,
    dump_mail,
    parse_mail,
)
from gateway.model import require
from gateway.node import Node, own_log
from gateway.partners import active_card
from gateway.receipts import Message, repeated, settle
from gateway.store import Transaction
from gateway.store.tables import MailEvidence, MailIn, MailOut

KINDS = frozenset(
    {
        "note",
        "withdrawal_notice",
        "withdrawal_answer",
        "entries_acknowledged",
        "originator_notified",
        "opinion",
        "opinion_counts",
        "opinion_request",
        "case_referral",
        "case_answer",
        "case_message",
        "case_recall",
        "status_assertion",
        "identification_notice",
        "resume_search",
        "search_resumed",
        "status_echo",
        "claim_answer",
        "claim_contact",
        "series_merge",
    }
)
CASE_KINDS = frozenset({"case_referral", "case_answer", "case_message", "case_recall"})
ALONE = frozenset({"case_referral"})  # one such message is one payload: its receipt and its proof speak of nothing else
# Of these the signature stays, as proof of who said so; of cases until the case is erased.
PROVED = frozenset(
    {
        *("withdrawal_answer", "case_referral", "case_answer"),
        *("identification_notice", "resume_search", "search_resumed"),
    }
)
GAP = 1_000_000_000  # more messages than two agencies exchange between two restores; read out it is still a number
MAX_BODY_BYTES = 8 << 10  # a hundred of them fit one answer
MAX_BODIES = {"case_referral": 256 << 10, "case_answer": 24 << 10, "case_message": 24 << 10, "case_recall": 24 << 10}
MAX_FRAME_BYTES = 256  # of a message, without its body
LIFETIME_SECONDS = 7 * 86_400  # of one sealed answer; the messages themselves wait as long as it takes


Hears = Callable[[Transaction, str, dict[str, object]], None]  # (transaction, sender, body)
HearsMessage = Callable[[Transaction, str, MailMessage], None]  # (transaction, sender, message)


@dataclass(frozen=True, slots=True)
class SealedMail:
    """Messages as they leave, and the digest by which their receipt is known."""

    body: bytes
    manifest_digest: str


class Mailbox:
    """Messages to and from partners."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._hearers: dict[str, HearsMessage] = {}

    def on(self, kind: str, hears: Hears) -> None:
        """Messages of a kind are acted on by `hears`, within the transaction in which they are taken."""
        self._hearers[kind] = lambda tx, sender, one: hears(tx, sender, one.body)

    def on_message(self, kind: str, hears: HearsMessage) -> None:
        """The same, for who needs to know which message it is."""
        self._hearers[kind] = hears

    def post(self, tx: Transaction, partner: str, kind: str, body: dict[str, object]) -> int:
        """Queue a message within the deed that causes it; returns its number."""
        require(kind in KINDS, "a message of unknown kind")
        raw = canonical.encode(body)
        require(len(raw) <= MAX_BODIES.get(kind, MAX_BODY_BYTES), "the message is too long")
        number = max(tx.mail.last_out(partner), _before(own_log(self._node, tx).name)) + 1
        message_id = new_message_id(self._node.random)
        sealed = self._node.keystore.master_key.seal(raw, _context("to", partner, number), self._node.random)
        row = MailOut(
            partner=partner,
            number=number,
            kind=kind,
            sealed_body=sealed,
            message_id=message_id,
            created=self._node.clock(),
        )
        tx.mail.post(row)
        details: dict[str, object] = {
            "partner": partner,
            "sequence": number,
            "message_id": message_id,
            "payload_type": MAIL_TYPE,
        }
        event = self._node.event(EventKind.MAILBOX_SENT, actor=self._node.agency, subject=partner, details=details)
        tx.log.append([event])
        return number

    def write(self, partner: str, kind: str, body: dict[str, object]) -> int:
        """Queue a message as a deed of its own; returns its number."""
        with self._node.store.transaction() as tx:
            tx.people.partner(partner)
            return self.post(tx, partner, kind, body)

    def sealed_after(self, card: IdentityCard, after: int) -> bytes | None:
        """Messages above `after`, sealed; None without any. Everything up to `after` is marked as delivered."""
        with self._node.store.transaction() as tx:
            newest = max(tx.mail.last_out(card.agency), _before(own_log(self._node, tx).name))
            require(after <= newest, "the mailbox has no such number yet")
            tx.mail.delivered(card.agency, after, self._node.clock())
            rows = _one_payload(tx.mail.outgoing(card.agency, after, MAX_MAIL_MESSAGES))
        return self.seal(card, rows).body if rows else None

    def waiting(self, partner: str, after: int | None = None) -> list[MailOut]:
        """Messages to a partner that it has not confirmed, in order.

        Args:
            after: a number; then all above it: a partner that was restored has lost what it had confirmed.
        """
        with self._node.store.reading() as tx:
            held = tx.mail.undelivered(partner) if after is None else after
            return _one_payload(tx.mail.outgoing(partner, held, MAX_MAIL_MESSAGES))

    def seal(self, card: IdentityCard, rows: list[MailOut]) -> SealedMail:
        """Messages as one envelope for a partner. Each keeps its own id, however often it goes; the envelope is new."""
        messages = [self._message(row) for row in rows]
        now = self._node.clock()
        manifest = envelope.Manifest(
            message_id=new_message_id(self._node.random),
            sender=self._node.agency,
            audience=envelope.agency_audience(card.agency),
            channel=envelope.MAILBOX,
            epoch=0,
            from_seq=messages[0].number - 1,
            until_seq=messages[-1].number,
            created=now,
            expires=now + LIFETIME_SECONDS,
            payload_type=MAIL_TYPE,
        )
        body = BytesIO()
        key, payload = self._node.keystore.signing_key, BytesIO(dump_mail(messages))
        sealed = envelope.seal(manifest, payload, body, key, self._node.random)
        return SealedMail(sealed.header_for(*card.opening) + body.getvalue(), sealed.manifest_digest)

    def confirm(self, partner: str, until: int, receipt: bytes) -> None:
        """Keep the partner's receipt for everything up to a number."""
        with self._node.store.transaction() as tx:
            tx.mail.delivered(partner, until, self._node.clock(), receipt)

    def receive(self, message: Message, raw: bytes) -> bytes:
        """Take messages in order; returns the receipt. Numbers seen before must say the same as before."""
        messages = parse_mail(raw)
        if not messages:
            raise MalformedError("mailbox: no message")
        if not all(_go_together(messages[0].kind, one.kind) for one in messages[1:]):
            raise MalformedError("mailbox: messages in one payload that do not go together")
        with self._node.store.transaction() as tx:
            card = active_card(self._node, tx, message.sender)
            before = repeated(tx, message)
            if before is not None:
                return before
            fresh = self._fresh(tx, card, messages)
            if any(one.kind in PROVED for one in fresh):
                self._keep_evidence(tx, message, raw, fresh)
            for one in fresh:
                self._keep(tx, message.sender, one)
            event = self._received(message, messages)
            index = tx.log.append([event])
            return settle(self._node, tx, message, event, index)

    def last_received(self, partner: str) -> int:
        """The number of the newest message from a partner."""
        with self._node.store.reading() as tx:
            return tx.mail.last_in(partner)

    def read(self, row: MailIn | MailOut) -> dict[str, object]:
        """The body of a stored message."""
        way = "from" if isinstance(row, MailIn) else "to"
        raw = self._node.keystore.master_key.open(row.sealed_body, _context(way, row.partner, row.number))
        body = canonical.parse_canonical(raw, max_bytes=MAX_DOCUMENT_BYTES)
        assert isinstance(body, dict), "only objects are stored"
        return dict(body)

    def _fresh(self, tx: Transaction, card: IdentityCard, messages: list[MailMessage]) -> list[MailMessage]:
        sender, last = card.agency, tx.mail.last_in(card.agency)
        restored = last < messages[0].number - 1 == _before(VerifierKey.parse(card.log).name)
        if messages[0].number > last + 1 and not restored:
            held = Cursor(0, NO_VIEW, last)
            raise StaleCursorError("mailbox: a message between is missing", cursor=held.to_json())
        for one in messages:
            known = tx.mail.incoming_digest(sender, one.number)
            if known is not None and known != one.digest:
                raise ConflictError("mailbox: a number was used for another message")
        return [one for one in messages if one.number > last]

    def _keep(self, tx: Transaction, sender: str, one: MailMessage) -> None:
        # A kind that only a newer gateway knows is kept and shown; refusing it would stop every message behind it.
        context = _context("from", sender, one.number)
        sealed = self._node.keystore.master_key.seal(canonical.encode(one.body), context, self._node.random)
        row = MailIn(
            partner=sender,
            number=one.number,
            kind=one.kind,
            digest=one.digest,
            sealed_body=sealed,
            received=self._node.clock(),
        )
        tx.mail.receive(row)
        if one.kind in self._hearers:
            self._hearers[one.kind](tx, sender, one)

    def _keep_evidence(self, tx: Transaction, message: Message, raw: bytes, fresh: list[MailMessage]) -> None:
        """Keep what the sender signed: anybody can be shown that these messages were its own."""
        context = _context("proof from", message.sender, fresh[-1].number)
        sealed = self._node.keystore.master_key.seal(dump_offer(message.signed, raw), context, self._node.random)
        first, last = fresh[0].number, fresh[-1].number
        tx.mail.keep_evidence(MailEvidence(partner=message.sender, first=first, last=last, sealed=sealed))

    def evidence(self, tx: Transaction, partner: str, number: int) -> tuple[bytes, bytes] | None:
        """(DSSE, payload) of the signed message with a number, or None where they are not kept."""
        row = tx.mail.evidence(partner, number)
        if row is None:
            return None
        context = _context("proof from", row.partner, row.last)
        return parse_offer(self._node.keystore.master_key.open(row.sealed, context))

    def blank(self, tx: Transaction, partner: str, way: str, number: int) -> bool:
        """The words of a message are erased here, and what proves them; False while one of ours has not arrived.

        Args:
            way: "in" or "out".
        """
        row = tx.mail.incoming_row(partner, number) if way == "in" else tx.mail.outgoing_row(partner, number)
        if row is None or (isinstance(row, MailOut) and not row.delivered):
            return row is None
        context = _context("from" if way == "in" else "to", partner, number)
        tx.mail.reseal(row, self._node.keystore.master_key.seal(canonical.encode({}), context, self._node.random))
        if way == "in":
            tx.mail.drop_evidence(partner, number)
        return True

    def rewrite(self, tx: Transaction, row: MailIn | MailOut, body: dict[str, object]) -> None:
        """A message says less here from now on: something in it is erased, and so is what proves it."""
        way = "from" if isinstance(row, MailIn) else "to"
        context = _context(way, row.partner, row.number)
        tx.mail.reseal(row, self._node.keystore.master_key.seal(canonical.encode(body), context, self._node.random))
        if isinstance(row, MailIn):
            tx.mail.drop_evidence(row.partner, row.number)

    def _message(self, row: MailOut) -> MailMessage:
        return MailMessage(row.number, row.message_id, row.kind, row.created, self.read(row))

    def _received(self, message: Message, messages: list[MailMessage]) -> Event:
        details: dict[str, object] = {
            **message.details(),
            "sequence": messages[-1].number,
            "payload_type": MAIL_TYPE,
        }
        report = messages[0].body.get("report")
        if messages[0].kind in ALONE and isinstance(report, str):
            # The receipt is for this event, so it proves which report was taken in.
            details["report_digest"] = hashlib.sha256(report.encode()).hexdigest()
        return self._node.event(
            EventKind.MAILBOX_RECEIVED, actor=message.sender, subject=self._node.agency, details=details
        )


def _before(origin: str) -> int:
    """The number below the first message of a log."""
    return (number_of_log(origin) - 1) * GAP


def _one_payload(rows: list[MailOut]) -> list[MailOut]:
    """The first rows that go as one payload: without a gap, within its bytes, and of kinds that go together."""
    found: list[MailOut] = []
    room = MAX_DOCUMENT_BYTES
    for at, row in enumerate(rows):
        room -= len(row.sealed_body) + MAX_FRAME_BYTES
        follows = row.number == rows[0].number + at and room >= 0 and _go_together(rows[0].kind, row.kind)
        if found and not follows:
            break
        found.append(row)
    return found


def _go_together(first: str, other: str) -> bool:
    """Whether two messages may be in one payload. What is said of cases is kept apart: it can be erased, and with it
    the proof of who said it, without taking the proof of anything else."""
    return not {first, other} & ALONE and (first in CASE_KINDS) == (other in CASE_KINDS)


def _context(way: str, partner: str, number: int) -> str:
    return f"mail {way} {partner} {number}"
