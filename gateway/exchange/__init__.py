"""Serving and applying pages of hash sets; what a gateway answers to a partner that has proved who it is.

`Exchange` is what doors and `sync` hold. Its methods block (they read and write the store): async callers go through
`asyncio.to_thread`. The caller's name is always one that the door has authenticated.

    push   our Server.page  -> partner's Exchange.accept -> Mirrors.apply   (one apply for both ways)
    pull   partner's Server.page -> our Exchange.take_page -> Mirrors.apply
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from typing import BinaryIO

from gateway import keyring, lookups, ownkeys
from gateway.alarms import AlarmKind, raise_alarm
from gateway.audit import EventKind, verify_receipt
from gateway.cases import Casebook
from gateway.cases.hearing import Hearing
from gateway.cases.referring import Referrals
from gateway.cases.talking import Talk
from gateway.comparisons import (
    ANSWER_TYPE,
    MAX_ANSWER_BYTES,
    MAX_QUESTION_BYTES,
    OFFER_TYPE,
    QUESTION_TYPE,
    ROWS,
    SKETCH,
    SUMS,
    Question,
)
from gateway.crypto import canonical, envelope
from gateway.crypto.checkpoint import VerifierKey
from gateway.crypto.envelope import MAILBOX, MAX_MANIFEST_BYTES
from gateway.crypto.keys import VerifyingKey, new_message_id
from gateway.errors import (
    ConflictError,
    DeniedError,
    GatewayError,
    MalformedError,
    NotFoundError,
    OverloadedError,
    StaleCursorError,
    VerificationError,
)
from gateway.exchange.admission import Admission
from gateway.exchange.answering import Answering
from gateway.exchange.applying import Applied, Mirrors
from gateway.exchange.asking import Asked, Asking
from gateway.exchange.attaching import Attaching
from gateway.exchange.collections import Collections
from gateway.exchange.compacting import Compacting
from gateway.exchange.comparing import Answers, Comparing, Comparison, check_cursor
from gateway.exchange.drafting import ServedSet
from gateway.exchange.duties import Duties
from gateway.exchange.epochs import Epochs
from gateway.exchange.explaining import Storyteller
from gateway.exchange.exporting import Exporting
from gateway.exchange.forwarding import Forwarding
from gateway.exchange.inbox import Inbox
from gateway.exchange.knowngood import KnownGood
from gateway.exchange.labels import digest_key
from gateway.exchange.ledger import Ledger
from gateway.exchange.lookup import Lookup, format_entry
from gateway.exchange.neveragain import NeverAgain
from gateway.exchange.opinions import Opinions
from gateway.exchange.quality import Quality
from gateway.exchange.recovering import Recovering
from gateway.exchange.serving import SealedHead, SealedPage, Server, head_etag
from gateway.exchange.shelf import Shelf
from gateway.exchange.surfacevalues import SurfaceValues
from gateway.exchange.windows import Windows
from gateway.exchange.withdrawals import Withdrawals
from gateway.interchange import (
    HEAD_TYPE,
    MAIL_TYPE,
    MAX_DOCUMENT_BYTES,
    MAX_PAGE_BYTES,
    PAGE_TYPE,
    START,
    Cursor,
    FeedHead,
    IdentityCard,
    KeyConfirmation,
)
from gateway.mailbox import Mailbox, SealedMail
from gateway.node import Node
from gateway.partners import active_card, card_in, named_here
from gateway.receipts import Message, repeated
from gateway.recording import RecordingBound
from gateway.store.tables import OutboxRow
from gateway.witness import WitnessDesk

RECEIPT_MEDIA_TYPE = "application/vnd.partner-exchange.receipt+json"
MAX_ATTEMPTS = 50  # of one page: two days of back-off
MAX_REFUSALS_RECORDED = 120  # a minute and partner: honest mistakes all show, a flood does not fill the log
MAX_NAMED = 20  # entries named in an alarm; all are counted
QUESTION_SECONDS = 3600  # a question is asked anew rather than waited for
CURSOR_MEDIA_TYPE = "application/vnd.partner-exchange.cursor+json"

__all__ = ["Accepted", "Exchange", "SealedHead", "SealedPage"]


@dataclass(frozen=True, slots=True)
class Accepted:
    """The answer to a message: a receipt, or for a feed head the cursor from which to push."""

    media_type: str
    body: bytes


class Exchange:
    """One gateway's exchange with its partners."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.shelf = Shelf(node.keystore.master_key, node.random, node.settings.near_index_megabytes << 20)
        self.never_again = NeverAgain(node)
        self.known_good = KnownGood(node)
        self.ledger = Ledger(node, self.shelf, self.never_again, self.known_good)
        self.attaching = Attaching(node, self.shelf, self.never_again)
        self.admission = Admission(node)
        self.windows = Windows(node, self.shelf, self.admission)
        self.surface_values = SurfaceValues(node, self.windows, self.admission)
        self.collections = Collections(node, self.shelf, self.windows, self.admission)
        self.inbox = Inbox(node, self.shelf, self.ledger)
        self.mailbox = Mailbox(node)
        self.duties = Duties(node, self.shelf, self.mailbox)
        self.server = Server(node, self.shelf, self.duties)
        self.storyteller = Storyteller(node, self.shelf)
        self.exporting = Exporting(node, self.shelf)
        self.recovering = Recovering(node, self.shelf, self.never_again)
        self.epochs = Epochs(node, self.shelf)
        self.forwarding = Forwarding(node, self.shelf)
        self.withdrawals = Withdrawals(node, self.mailbox)
        self.cases = Casebook(node)
        self.talk = Talk(node, self.mailbox, self.cases)
        self.referrals = Referrals(node, self.cases, self.talk)
        self._hearing = Hearing(node, self.mailbox, self.cases, self.talk)
        self.mirrors = Mirrors(
            node,
            self.shelf,
            self.recovering,
            self.never_again,
            self.forwarding,
            self.duties,
            self.withdrawals,
            self.known_good,
        )
        self.opinions = Opinions(node, self.shelf, self.mailbox)
        self.windows.on_opinion(self.opinions.client_spoke)
        self.quality = Quality(node, self.shelf, self.known_good)
        self.lookup = Lookup(node, self.shelf, [self.quality.remarks])
        self.compacting = Compacting(node, self.shelf)
        self.comparing = Comparing(node, self.shelf)
        self._answers = Answers(node, self.shelf)
        self._answering = Answering(node, self.shelf)
        self.asking = Asking(node, self.lookup)
        self.witness = WitnessDesk(node)
        # Fetched here, not above: what is known of cases is built on parts of this package.
        from gateway.cases.assertions import Statuses  # noqa: PLC0415

        self.statuses = Statuses(node, self.shelf, self.mailbox)
        self.lookup.remarks.append(self.statuses.knowledge.remarks)
        self._answering.own_word = self.statuses.own_word
        self._refusals = RecordingBound(MAX_REFUSALS_RECORDED, 10 * MAX_REFUSALS_RECORDED)

    # What we send

    def page_to_push(self, partner: str, set_name: str, cursor: Cursor, room: int | None = None) -> SealedPage | None:
        """The next page to push, queued and logged before it leaves; None when the partner has everything.

        Args:
            room: how many changes it may have at most, where less than the settings say.
        """
        return self.server.page_to_push(partner, set_name, cursor, room=room)

    def confirm_push(self, partner: str, message_id: str, receipt: bytes, end: Cursor | None = None) -> None:
        """Verify and keep the partner's receipt for a page that we pushed."""
        card = self._active(partner)
        with self.node.store.reading() as tx:
            sent = tx.mail.sent(message_id)
        if sent is None:
            raise NotFoundError("no such message was sent")
        verify_receipt(receipt, VerifierKey.parse(card.log), manifest_digest=sent.manifest_digest)
        self.witness.hear_receipt(partner, receipt)
        self.server.confirm(card, message_id, receipt, end)

    def waiting_pages(self, partner: str) -> list[OutboxRow]:
        """Pages on their way to a partner without a receipt yet, oldest first; what it may not see now is ended."""
        self.server.drop_outdated(self._active(partner))
        with self.node.store.reading() as tx:
            return [row for row in tx.mail.waiting(partner) if row.payload_type == PAGE_TYPE]

    def give_up(self, message_id: str, reason: str) -> None:
        """End a message that can never be taken; the reason stays with it."""
        with self.node.store.transaction() as tx:
            tx.mail.close(message_id, state="dead", error=reason)

    def note_failure(self, message_id: str, reason: str) -> None:
        """Count a failed attempt; after too many the message is given up, so that it stands in nobody's way."""
        with self.node.store.transaction() as tx:
            tx.mail.note_failure(message_id, reason)
            sent = tx.mail.sent(message_id)
            if sent is not None and sent.attempts >= MAX_ATTEMPTS:
                tx.mail.close(message_id, state="dead", error=f"given up after {sent.attempts} attempts: {reason}")

    def confirm_mail(self, partner: str, until: int, sealed: SealedMail, receipt: bytes) -> None:
        """Verify and keep the partner's receipt for mailbox messages up to a number."""
        key = VerifierKey.parse(self._active(partner).log)
        proof = verify_receipt(receipt, key, manifest_digest=sealed.manifest_digest)
        if proof.event.kind is not EventKind.MAILBOX_RECEIVED or proof.event.details.get("sequence") != until:
            raise VerificationError("receipt: for another message")
        self.witness.hear_receipt(partner, receipt)
        self.mailbox.confirm(partner, until, receipt)

    def to_recall(self, partner: str) -> list[str]:
        """Our sets of which a partner is known to hold what it may not hold any more."""
        return self.server.to_recall(self._active(partner))

    # What partners ask for

    def sets_for(self, partner: str) -> list[dict[str, object]]:
        """The sets that a partner may follow here."""
        card = self._active(partner)
        found = self.server.served_sets(card)
        return [{"set": one.hash_set.name, "purpose": one.hash_set.purpose} for one in found]

    def head_for(self, partner: str, set_name: str, held: Container[str] = ()) -> SealedHead:
        """The feed head of a set, sealed for a partner; NotFoundError where it may not see the set.

        Args:
            held: entity tags of heads that the partner says it holds, with all that they speak of.
        """
        return self.server.head(partner, set_name, held=held)

    def page_for(self, partner: str, set_name: str, cursor: Cursor) -> SealedPage | None:
        """The page that brings a partner on from its cursor; None when there is nothing to bring."""
        return self.server.page(partner, set_name, cursor)

    def rest_for(self, partner: str, set_name: str, cursor: Cursor, etag: str) -> SealedPage | None:
        """The page that a partner was sent under an entity tag, if it may still have it; else None."""
        return self.server.rest(partner, set_name, cursor, etag)

    def mailbox_for(self, partner: str, after: int) -> bytes | None:
        """Mailbox messages above a number, sealed; None without any. Asking acknowledges those up to `after`."""
        return self.mailbox.sealed_after(self._active(partner), after)

    def keys_for(self, partner: str, held: KeyConfirmation) -> bytes | None:
        """What a partner does not know of our keys yet (key-statements 1), None when it knows everything."""
        self._active(partner)
        news = keyring.news_for(self.node, partner, held)
        return None if news is None else news.dump()

    def compare_for(self, partner: str, set_name: str, body: bytes) -> bytes | None:
        """The sealed answer to a question of comparison 1; None where there is nothing to bring.

        Raises:
            ConflictError: the set has moved on since the head that the partner speaks of.
        """
        card = self._active(partner)
        opened = self._open(card, BytesIO(body), expected=QUESTION_TYPE)
        question = Question.parse(opened.read_payload(MAX_QUESTION_BYTES))
        if question.set_name != set_name or opened.manifest.channel != set_name:
            raise MalformedError("the question is about another set")
        with self.server.refusals_on_record(partner, set_name), self.node.store.reading() as tx:
            served = self.server.visible(tx, set_name, card)
            check_cursor(served, question)
            answer = self._answers.sums(tx, served) if question.step == SUMS else b""
        if question.step == ROWS:
            found = self._answers.wanted(served, question)
            page = self.server.deliver(
                card,
                set_name,
                question.stands or START,
                lambda tx, now: self._answers.page(tx, now, question, found),
                kind=EventKind.PAGE_SERVED,
            )
            if question.last_word and len(question.odd):
                self._tell_of_unknown(served, question)
            return None if page is None else page.body
        if question.step == SKETCH:
            answer = self._answers.sketch(served, question)
        return self._sealed(card, set_name, question.cursor, answer, ANSWER_TYPE)

    def look_up_for(self, partner: str, body: bytes) -> tuple[bytes, int]:
        """The sealed answer to a partner's question of look-up 1, and how many slots both have.

        Raises:
            RateLimitedError: the partner has asked more than was agreed.
        """
        card = self._active(partner)
        opened = self._open(card, BytesIO(body), expected=lookups.QUESTION_TYPE)
        question = lookups.Question.parse(opened.read_payload(lookups.MAX_QUESTION_BYTES))
        answer = self._answering.answer(card, question, opened.manifest.message_id)
        return self._sealed(card, MAILBOX, START, answer, lookups.ANSWER_TYPE), len(question.slots)

    def _tell_of_unknown(self, served: ServedSet, question: Question) -> None:
        """Entries that a partner held and that nobody can prove were told to leave: somebody must look."""
        with self.node.store.transaction() as tx:
            lost = self._answers.unknown(tx, served, question)
            if len(lost):
                named = ", ".join(format_entry(entry) for entry in lost[:MAX_NAMED].tolist())
                detail = (
                    f"{served.partner} held entries of this set that nothing is known of here: {len(lost)} ({named})"
                )
                raise_alarm(tx, self.node, AlarmKind.UNKNOWN_ENTRIES, served.hash_set.name, detail)

    # What partners send

    def take_keys(self, partner: str, raw: bytes) -> KeyConfirmation:
        """Take what a partner says of its keys; returns what we hold of them then. Refusals are logged."""
        self._active(partner)
        try:
            return keyring.take(self.node, partner, raw)
        except (MalformedError, VerificationError) as error:
            self._log_refusal(partner, None, error)
            raise

    def accept(self, partner: str, source: BinaryIO) -> Accepted:
        """Take one envelope that `partner` posted; the same message again gets the same answer and no second effect.

        Raises:
            MalformedError, VerificationError, DeniedError: refused whole, and logged.
            StaleCursorError: the page does not start where our mirror stands; the error carries the cursor.
            ConflictError: the message id is taken by other content.
        """
        card = self._active(partner)
        opened: envelope.OpenedEnvelope | None = None
        try:
            opened = self._open(card, source)
            return self._dispatch(card, opened, pushed=True)
        except (MalformedError, VerificationError, DeniedError, ConflictError) as error:
            if not isinstance(error, StaleCursorError):
                self._log_refusal(partner, opened, error)
            raise

    def take_head(self, partner: str, body: bytes) -> FeedHead:
        """Verify and keep the feed head that a poll of `partner` brought."""
        opened = self._open(self._active(partner), BytesIO(body), expected=HEAD_TYPE)
        return self.mirrors.note_head(partner, opened.read_payload(MAX_DOCUMENT_BYTES))

    def take_page(self, partner: str, body: bytes) -> Applied:
        """Apply the page that a pull from `partner` brought; refusals are logged as for a push."""
        card = self._active(partner)
        opened: envelope.OpenedEnvelope | None = None
        try:
            opened = self._open(card, BytesIO(body), expected=PAGE_TYPE)
            message = self._message(partner, opened)
            return self.mirrors.apply(message, opened.read_payload(MAX_PAGE_BYTES), pushed=False)
        except GatewayError as error:
            if not isinstance(error, OverloadedError):
                self._log_refusal(partner, opened, error)
            raise

    def take_mail(self, partner: str, body: bytes) -> int:
        """Take the mailbox messages that a poll of `partner` brought; returns the highest number held."""
        opened = self._open(self._active(partner), BytesIO(body), expected=MAIL_TYPE)
        self.mailbox.receive(self._message(partner, opened), opened.read_payload(MAX_DOCUMENT_BYTES))
        return self.mailbox.last_received(partner)

    def question(self, partner: str, running: Comparison, raw: bytes) -> bytes:
        """A question of a comparison, sealed for the hub."""
        return self._sealed(self._active(partner), running.set_name, running.cursor, raw, QUESTION_TYPE)

    def offer(self, partner: str, set_name: str, page: int) -> bytes | None:
        """A page that the hub once signed, sealed for it; None where it cannot be put together any more."""
        raw = self.recovering.offer(page)
        cursor = self.mirrors.cursor(set_name)
        return None if raw is None else self._sealed(self._active(partner), set_name, cursor, raw, OFFER_TYPE)

    def answer(self, partner: str, body: bytes) -> bytes:
        """What the hub's sealed answer to such a question says."""
        opened = self._open(self._active(partner), BytesIO(body), expected=ANSWER_TYPE)
        return opened.read_payload(MAX_ANSWER_BYTES)

    def look_up_question(self, partner: str, asked: Asked) -> bytes:
        """A question of look-up 1, sealed for a partner; on record before it leaves."""
        self.asking.record(partner, asked)
        raw = asked.question.dump()
        return self._sealed(
            self._active(partner), MAILBOX, START, raw, lookups.QUESTION_TYPE, message_id=asked.message_id
        )

    def look_up_answer(self, partner: str, asked: Asked, body: bytes) -> lookups.Answer:
        """What the partner's sealed answer to this very question says."""
        opened = self._open(self._active(partner), BytesIO(body), expected=lookups.ANSWER_TYPE)
        raw = opened.read_payload(lookups.MAX_LOOK_UP_ANSWER_BYTES)
        return lookups.Answer.parse(raw, question=asked.message_id, slots=len(asked.question.slots))

    # Inside

    def _sealed(
        self, card: IdentityCard, channel: str, cursor: Cursor, raw: bytes, payload_type: str, *, message_id: str = ""
    ) -> bytes:
        """A short-lived message about a set for one partner."""
        now = self.node.clock()
        manifest = envelope.Manifest(
            message_id=message_id or new_message_id(self.node.random),
            sender=self.node.agency,
            audience=envelope.agency_audience(card.agency),
            channel=channel,
            epoch=cursor.epoch,
            from_seq=cursor.seq,
            until_seq=cursor.seq,
            created=now,
            expires=now + QUESTION_SECONDS,
            payload_type=payload_type,
        )
        return envelope.seal_bytes(manifest, raw, self.node.keystore.signing_key, card.opening, self.node.random)

    def held_head(self, partner: str, set_name: str) -> tuple[FeedHead, str] | None:
        """The feed head of a partner's set while it lives, with its entity tag, if we hold all that it speaks of."""
        with self.node.store.reading() as tx:
            mirror = tx.sets.find(set_name)
        if mirror is None or mirror.hub != partner or not mirror.head:
            return None
        head = replace(FeedHead.parse(mirror.head.encode()), key=digest_key(self.node, mirror).hex())
        own_keys = ownkeys.card_opening(self.node)
        complete = head.cursor == Cursor(mirror.epoch, mirror.view, mirror.seq)
        return (head, head_etag(head, own_keys)) if complete and head.expires > self.node.clock() else None

    def card_of(self, partner: str) -> IdentityCard:
        """The identity card of an active partner that somebody here has named."""
        with self.node.store.reading() as tx:
            return card_in(named_here(self.node, tx, partner))

    def _active(self, partner: str) -> IdentityCard:
        with self.node.store.reading() as tx:
            return active_card(self.node, tx, partner)

    def _open(self, card: IdentityCard, source: BinaryIO, *, expected: str | None = None) -> envelope.OpenedEnvelope:
        """The verified envelope: sealed for us, signed by the caller itself, for us or for a view that we follow."""
        with self.node.store.reading() as tx:
            heads = [row.head for row in tx.sets.all() if row.hub == card.agency and row.head]
            keys = keyring.verifying_keys(self.node, tx, card)
        audiences = {envelope.view_audience(FeedHead.parse(head.encode()).cursor.view) for head in heads}
        audiences.add(envelope.agency_audience(self.node.agency))
        opened = envelope.open_envelope(
            source,
            ownkeys.opening_keys(self.node),
            _keys_of(card, keys),
            now=self.node.clock(),
            audiences=audiences,
            was_taken_in=lambda manifest, digest: expected is None and self._was_taken_in(manifest, digest),
        )
        if expected is not None and opened.manifest.payload_type != expected:
            raise MalformedError("the envelope brings another payload type than was asked for")
        return opened

    def _was_taken_in(self, manifest: envelope.Manifest, digest: str) -> bool:
        """Whether a push was taken in before. Our view or the day may have changed since; its receipt has not."""
        with self.node.store.reading() as tx:
            before = tx.mail.accepted(manifest.sender, manifest.message_id)
        return before is not None and before[0] == digest

    def _dispatch(self, card: IdentityCard, opened: envelope.OpenedEnvelope, *, pushed: bool) -> Accepted:
        message = self._message(card.agency, opened)
        with self.node.store.reading() as tx:
            before = repeated(tx, message)
        if before is not None:
            return Accepted(RECEIPT_MEDIA_TYPE, before)
        match opened.manifest.payload_type:
            case t if t == HEAD_TYPE:
                head = self.mirrors.note_head(card.agency, opened.read_payload(MAX_DOCUMENT_BYTES))
                self.mirrors.review(head.set_name)
                cursor = self.mirrors.cursor_for(head)
                return Accepted(CURSOR_MEDIA_TYPE, canonical.encode(cursor.to_json()))
            case t if t == PAGE_TYPE:
                applied = self.mirrors.apply(message, opened.read_payload(MAX_PAGE_BYTES), pushed=pushed)
                return Accepted(RECEIPT_MEDIA_TYPE, applied.receipt)
            case t if t == OFFER_TYPE:
                receipt = self.recovering.take(message, opened.read_payload(MAX_PAGE_BYTES + MAX_MANIFEST_BYTES))
                return Accepted(RECEIPT_MEDIA_TYPE, receipt)
            case t if t == MAIL_TYPE:
                receipt = self.mailbox.receive(message, opened.read_payload(MAX_DOCUMENT_BYTES))
                return Accepted(RECEIPT_MEDIA_TYPE, receipt)
            case _:
                raise MalformedError("a payload type that this gateway does not take")

    def _message(self, sender: str, opened: envelope.OpenedEnvelope) -> Message:
        return Message(sender, opened.manifest.message_id, opened.manifest_digest, opened.dsse)

    def _log_refusal(self, partner: str, opened: envelope.OpenedEnvelope | None, error: GatewayError) -> None:
        number = self._refusals.count(partner, self.node.clock())
        if number is None:
            return
        more = "; more of this minute are not recorded" if number == MAX_REFUSALS_RECORDED else ""
        details: dict[str, object] = {"sender": partner, "error": type(error).__name__, "reason": error.message + more}
        if opened is not None:
            details["message_id"] = opened.manifest.message_id
            details["manifest_digest"] = opened.manifest_digest
            details["payload_type"] = opened.manifest.payload_type
        event = self.node.event(EventKind.MESSAGE_REFUSED, actor=self.node.agency, subject=partner, details=details)
        with self.node.store.transaction() as tx:
            tx.log.append([event])


def _keys_of(card: IdentityCard, held: Sequence[VerifyingKey]) -> Callable[[str], Sequence[VerifyingKey]]:
    """The caller's own keys, and nobody else's: whoever calls must have signed."""

    def keys(sender: str) -> Sequence[VerifyingKey]:
        if sender != card.agency:
            raise VerificationError("the envelope was signed for another sender than the caller")
        return held

    return keys
