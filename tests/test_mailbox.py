"""The mailbox: in order, once, by push or pull; sealed at rest and bound to its place; proved by receipts."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import pytest
from sqlalchemy import text

from factory import FakeClock, befriend, card_of, drafts, enrol, make_node, make_set, set_state
from gateway import audit
from gateway.crypto.checkpoint import VerifierKey
from gateway.errors import (
    ConflictError,
    DeniedError,
    GatewayError,
    MalformedError,
    NotFoundError,
    StaleCursorError,
    VerificationError,
)
from gateway.exchange import RECEIPT_MEDIA_TYPE, Exchange
from gateway.interchange import MAIL_TYPE, MAX_MAIL_MESSAGES, MailMessage, dump_mail
from gateway.mailbox import MAX_BODY_BYTES
from gateway.node import log_origin
from gateway.store.tables import MailIn, MailOut
from partner_simulator import Faults, Network, Rogue, held_entries, refused

XA, XB, XC = "XA-NCVI", "XB-NCVI", "XC-NCVI"


@dataclass
class Pair:
    """Two gateways that write to each other, and a third that looks on."""

    network: Network
    clock: FakeClock

    @property
    def xa(self) -> Exchange:
        return self.network.members[XA]

    @property
    def xb(self) -> Exchange:
        return self.network.members[XB]

    def rogue(self) -> Rogue:
        """XB's keys in other hands, writing to XA."""
        return Rogue(self.xb, card_of(self.xa.node), self.clock)

    def letter(self, number: int, subject: str = "", kind: str = "note") -> MailMessage:
        return MailMessage(number, f"{number:032x}", kind, self.clock(), {"subject": subject or f"letter {number}"})

    def deliver(self, *letters: MailMessage) -> bytes:
        """What XA answers to letters from XB."""
        return self.xa.accept(XB, BytesIO(self.rogue().envelope(dump_mail(letters), MAIL_TYPE))).body


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    clock = FakeClock()
    nodes = [make_node(tmp_path, agency, clock=clock) for agency in (XA, XB, XC)]
    befriend(*nodes)
    network = Network()
    for node in nodes:
        network.join(node)
    return Pair(network, clock)


def subjects(exchange: Exchange, partner: str) -> list[object]:
    """The subjects received from a partner, in order."""
    with exchange.node.store.reading() as tx:
        rows = tx.mail.incoming(partner)
    return [exchange.mailbox.read(row)["subject"] for row in sorted(rows, key=lambda row: row.number)]


def sent(exchange: Exchange, partner: str) -> list[MailOut]:
    with exchange.node.store.reading() as tx:
        return sorted(tx.mail.sent_mail(partner), key=lambda row: row.number)


def key_of(exchange: Exchange) -> VerifierKey:
    return exchange.node.keystore.log_key(log_origin(exchange.node.agency)).verifier


def write(exchange: Exchange, partner: str, *numbers: int) -> None:
    for number in numbers:
        exchange.mailbox.write(partner, "note", {"subject": f"letter {number}"})


# Both ways of going


@pytest.mark.parametrize("mover", [XA, XB])
async def test_push_and_pull_bring_the_same_messages_in_order(pair: Pair, mover: str) -> None:
    write(pair.xa, XB, 1, 2, 3)
    other = XB if mover == XA else XA
    await pair.network.sync(mover, other).exchange_mail()
    assert subjects(pair.xb, XA) == ["letter 1", "letter 2", "letter 3"]
    write(pair.xa, XB, 4)
    await pair.network.sync(mover, other).exchange_mail()
    assert subjects(pair.xb, XA) == [f"letter {n}" for n in (1, 2, 3, 4)]


async def test_more_messages_than_one_answer_holds_all_arrive(pair: Pair) -> None:
    count = 2 * MAX_MAIL_MESSAGES + 5
    with pair.xa.node.store.transaction() as tx:
        for number in range(count):
            pair.xa.mailbox.post(tx, XB, "note", {"subject": f"letter {number}"})
    await pair.network.sync(XB, XA).exchange_mail()
    assert subjects(pair.xb, XA) == [f"letter {n}" for n in range(count)]


async def test_the_largest_messages_fit_one_answer(pair: Pair) -> None:
    longest = {"text": "é" * ((MAX_BODY_BYTES - len('{"text":""}')) // 2)}
    with pair.xa.node.store.transaction() as tx:
        for _ in range(MAX_MAIL_MESSAGES):
            pair.xa.mailbox.post(tx, XB, "note", longest)
    await pair.network.sync(XA, XB).exchange_mail()
    with pair.xb.node.store.reading() as tx:
        assert tx.mail.last_in(XA) == MAX_MAIL_MESSAGES
    too_long = {"text": longest["text"] + "é"}
    with pytest.raises(MalformedError):
        pair.xa.mailbox.write(XB, "note", too_long)


async def test_a_partner_that_was_away_for_weeks_gets_everything_under_its_new_key(pair: Pair) -> None:
    write(pair.xa, XB, 1, 2)
    pair.clock.advance(60 * 86_400)
    card = card_of(pair.xb.node)
    from gateway.crypto.keys import OpeningKey

    newer = OpeningKey.from_seed(bytes(range(32)))
    enrol(pair.xa.node, replace(card, opening=(newer.public, *card.opening)))
    body = pair.xa.mailbox_for(XB, 0)
    assert body is not None
    assert pair.xb.take_mail(XA, body) == 2
    assert subjects(pair.xb, XA) == ["letter 1", "letter 2"]


@pytest.mark.parametrize("seed", range(3))
async def test_over_a_bad_network_each_message_arrives_once_and_in_order(pair: Pair, seed: int) -> None:
    source = pair.network.source = random.Random(seed)
    pair.network.faults = Faults(lose_request=0.2, lose_answer=0.2, repeat=0.2, damage=0.1)
    written = {XA: 0, XB: 0}
    for _ in range(40):
        here, there = source.sample([XA, XB], 2)
        if source.random() < 0.4:
            written[here] += 1
            write(pair.network.members[here], there, written[here])
        try:
            await pair.network.sync(here, there).exchange_mail()
        except GatewayError:
            continue
    pair.network.faults = Faults()
    await pair.network.sync(XA, XB).exchange_mail()
    assert subjects(pair.xa, XB) == [f"letter {n + 1}" for n in range(written[XB])]
    assert subjects(pair.xb, XA) == [f"letter {n + 1}" for n in range(written[XA])]
    assert pair.xa.mailbox.waiting(XB) == pair.xb.mailbox.waiting(XA) == []


# Once


def test_the_same_message_again_is_taken_once_however_it_comes(pair: Pair) -> None:
    one, two = pair.letter(1), pair.letter(2)
    for letters in ([one], [one], [one, two], [two], [one, two]):
        assert audit.verify_receipt(pair.deliver(*letters), key_of(pair.xa)).sender == XB
    assert subjects(pair.xa, XB) == ["letter 1", "letter 2"]


def test_the_same_envelope_again_gets_the_same_receipt(pair: Pair) -> None:
    envelope = pair.rogue().envelope(dump_mail([pair.letter(1)]), MAIL_TYPE)
    answers = [pair.xa.accept(XB, BytesIO(envelope)) for _ in range(3)]
    assert answers == [answers[0]] * 3
    assert answers[0].media_type == RECEIPT_MEDIA_TYPE


def test_a_number_that_was_used_for_other_content_is_a_conflict_and_nothing_is_kept(pair: Pair) -> None:
    pair.deliver(pair.letter(1), pair.letter(2))
    changed = {
        "body": pair.letter(2, "another subject"),
        "kind": replace(pair.letter(2), kind="withdrawal_answer"),
        "id": replace(pair.letter(2), message_id="ab" * 16),
        "time": replace(pair.letter(2), created=pair.clock() - 1),
    }
    for what, letter in changed.items():
        error = refused(lambda letter=letter: pair.deliver(letter, pair.letter(3)))
        assert isinstance(error, ConflictError), what
    assert subjects(pair.xa, XB) == ["letter 1", "letter 2"]


def test_a_gap_is_refused_and_the_error_says_from_where(pair: Pair) -> None:
    pair.deliver(pair.letter(1))
    error = refused(lambda: pair.deliver(pair.letter(3)))
    assert isinstance(error, StaleCursorError)
    assert error.cursor == {"epoch": 0, "view": "", "seq": 1}
    pair.deliver(pair.letter(2), pair.letter(3))
    assert len(subjects(pair.xa, XB)) == 3


@pytest.mark.parametrize(
    "payload",
    [
        dump_mail([]),
        dump_mail([MailMessage(1, "0" * 32, "note", 1, {}), MailMessage(3, "1" * 32, "note", 1, {})]),
        dump_mail([MailMessage(0, "0" * 32, "note", 1, {})]),
        b"{}",
        b"",
    ],
)
def test_a_bad_envelope_of_mail_is_refused_whole_and_logged(pair: Pair, payload: bytes) -> None:
    error = refused(lambda: pair.xa.accept(XB, BytesIO(pair.rogue().envelope(payload, MAIL_TYPE))))
    assert isinstance(error, MalformedError)
    with pair.xa.node.store.reading() as tx:
        assert tx.mail.incoming() == []
        last = list(tx.log.leaves())[-1].event_bytes
    assert last is not None
    assert audit.parse_event(last).kind is audit.EventKind.MESSAGE_REFUSED


# Acknowledging


def test_asking_for_what_is_above_a_number_says_that_the_rest_arrived(pair: Pair) -> None:
    write(pair.xa, XB, 1, 2, 3)
    assert pair.xa.mailbox_for(XB, 0) is not None
    assert [row.number for row in pair.xa.mailbox.waiting(XB)] == [1, 2, 3]
    pair.clock.advance(5)
    assert pair.xa.mailbox_for(XB, 2) is not None
    assert [row.number for row in pair.xa.mailbox.waiting(XB)] == [3]
    pair.clock.advance(5)
    assert pair.xa.mailbox_for(XB, 3) is None
    assert [row.delivered - pair.clock() for row in sent(pair.xa, XB)] == [-5, -5, 0]
    with pytest.raises(MalformedError):
        pair.xa.mailbox_for(XB, 4)


async def test_a_push_is_confirmed_by_a_receipt_that_verifies_and_is_kept(pair: Pair) -> None:
    write(pair.xa, XB, 1, 2)
    await pair.network.sync(XA, XB).exchange_mail()
    receipts = {row.receipt for row in sent(pair.xa, XB)}
    assert len(receipts) == 1
    proof = audit.verify_receipt(receipts.pop(), key_of(pair.xb))
    assert (proof.sender, proof.event.details["sequence"]) == (XA, 2)


def test_a_receipt_for_something_else_confirms_nothing(pair: Pair) -> None:
    write(pair.xb, XA, 1, 2)
    mailbox, card = pair.xb.mailbox, card_of(pair.xa.node)
    waiting = mailbox.waiting(XA)
    sealed, again = mailbox.seal(card, waiting), mailbox.seal(card, waiting)
    only_first = pair.xa.accept(XB, BytesIO(mailbox.seal(card, waiting[:1]).body)).body
    right = pair.xa.accept(XB, BytesIO(sealed.body)).body
    xc = Rogue(pair.network.members[XC], card, pair.clock)
    of_xc = pair.xa.accept(XC, BytesIO(xc.envelope(dump_mail([pair.letter(1), pair.letter(2)]), MAIL_TYPE))).body
    wrong = {
        "of fewer messages": only_first,
        "of the same messages in another envelope": pair.xa.accept(XB, BytesIO(again.body)).body,
        "of another sender": of_xc,
        "changed": right.replace(b'"sequence', b'"Sequence'),
        "none": b"",
    }
    for what, receipt in wrong.items():
        error = refused(lambda receipt=receipt: pair.xb.confirm_mail(XA, 2, sealed, receipt))
        assert isinstance(error, VerificationError | MalformedError), what
    assert isinstance(refused(lambda: pair.xb.confirm_mail(XA, 1, sealed, right)), VerificationError)
    assert [row.number for row in mailbox.waiting(XA)] == [1, 2]
    pair.xb.confirm_mail(XA, 2, sealed, right)
    assert mailbox.waiting(XA) == []


# Who may


def test_nobody_reads_what_was_written_to_another(pair: Pair) -> None:
    write(pair.xa, XB, 1)
    assert pair.xa.mailbox_for(XC, 0) is None
    body = pair.xa.mailbox_for(XB, 0)
    assert body is not None
    assert isinstance(refused(lambda: pair.network.members[XC].take_mail(XA, body)), VerificationError)


def test_there_is_no_mailbox_for_strangers_and_those_who_left(pair: Pair) -> None:
    with pytest.raises(NotFoundError):
        pair.xa.mailbox.write("XD-NCVI", "note", {"subject": "hello"})
    set_state(pair.xa.node, XB, "removed")
    with pytest.raises(NotFoundError):
        pair.xa.mailbox_for(XB, 0)
    with pytest.raises(NotFoundError):
        pair.deliver(pair.letter(1))


def test_a_message_of_a_kind_that_only_newer_gateways_know_is_kept_and_stops_nothing(pair: Pair) -> None:
    mail = [MailMessage(1, "0" * 32, "unheard_of", 1, {"a": 1}), MailMessage(2, "1" * 32, "note", 1, {})]
    pair.xa.accept(XB, BytesIO(pair.rogue().envelope(dump_mail(mail), MAIL_TYPE)))
    with pair.xa.node.store.reading() as tx:
        kept = sorted(tx.mail.incoming(), key=lambda row: row.number)
    assert [(row.kind, pair.xa.mailbox.read(row)) for row in kept] == [("unheard_of", {"a": 1}), ("note", {})]


def test_a_message_of_unknown_kind_is_not_written(pair: Pair) -> None:
    with pytest.raises(MalformedError):
        pair.xa.mailbox.write(XB, "unheard_of", {})
    assert sent(pair.xa, XB) == []


def test_another_kind_of_document_is_no_mail(pair: Pair) -> None:
    make_set(pair.xb, "identified", drafts(1))
    head = pair.xb.head_for(XA, f"{XB}/identified").body
    assert isinstance(refused(lambda: pair.xa.take_mail(XB, head)), MalformedError)


# At rest


def test_a_stored_message_opens_only_in_its_own_place(pair: Pair) -> None:
    write(pair.xa, XB, 1, 2)
    write(pair.xa, XC, 1)
    pair.deliver(pair.letter(1), pair.letter(2))
    one, two = sent(pair.xa, XB)
    [to_xc] = sent(pair.xa, XC)
    with pair.xa.node.store.reading() as tx:
        [_, received] = tx.mail.incoming(XB)
    assert pair.xa.mailbox.read(one) == {"subject": "letter 1"}
    assert isinstance(received, MailIn)
    for row, foreign in ((one, two), (one, to_xc), (one, received), (received, one)):
        moved = row.model_copy(update={"sealed_body": foreign.sealed_body})
        with pytest.raises(VerificationError):
            pair.xa.mailbox.read(moved)


def test_a_changed_row_is_not_sent(pair: Pair) -> None:
    write(pair.xa, XB, 1)
    with pair.xa.node.store.transaction() as tx:
        tx.connection.execute(text("UPDATE mail_out SET sealed_body = zeroblob(80)"))
    with pytest.raises(GatewayError):
        pair.xa.mailbox_for(XB, 0)


async def test_a_receiver_that_lost_what_it_had_confirmed_gets_it_again(pair: Pair) -> None:
    """As one does that goes on from a backup: it does not know that it was told."""
    for number in range(4):
        pair.xb.mailbox.write(XA, "note", {"subject": f"letter {number}"})
        await pair.network.sync(XB, XA).exchange_mail()
    with pair.xa.node.store.transaction() as tx:
        tx.connection.execute(text("DELETE FROM mail_in WHERE number > 1"))
    pair.xb.mailbox.write(XA, "note", {"subject": "letter 4"})
    await pair.network.sync(XB, XA).exchange_mail()
    assert subjects(pair.xa, XB) == [f"letter {number}" for number in range(5)]
    assert pair.xb.mailbox.waiting(XA) == []


# What deeds write


async def test_a_withdrawal_is_acknowledged_once_for_what_was_held(pair: Pair) -> None:
    name = make_set(pair.xa, "identified", drafts(6))
    await pair.network.sync(XB, XA).pull()
    held = sorted(held_entries(pair.xb, name))
    pair.xa.ledger.withdraw(name, held[:2], actor="tester", reason="listed wrongly")
    await pair.network.sync(XB, XA).sync()
    await pair.network.sync(XB, XA).sync()
    with pair.xa.node.store.reading() as tx:
        [message] = [row for row in tx.mail.incoming(XB) if row.kind == "withdrawal_answer"]
    body = pair.xa.mailbox.read(message)
    assert (body["holder"], body["outcome"], body["entries"]) == (XB, "applied", 2)


def test_a_message_is_posted_with_its_deed_or_not_at_all(pair: Pair) -> None:
    def fail() -> None:
        with pair.xa.node.store.transaction() as tx:
            assert pair.xa.mailbox.post(tx, XB, "note", {"subject": "never"}) == 1
            raise DeniedError("the deed was refused after all")

    with pytest.raises(DeniedError):
        fail()
    assert sent(pair.xa, XB) == []
    write(pair.xa, XB, 1)
    assert [row.number for row in sent(pair.xa, XB)] == [1]
