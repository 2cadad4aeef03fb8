"""Partners' keys: successions walked, cards taken or left for people, revocations, rows that others wrote."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text

from factory import START_TIME, FakeClock, befriend, drafts, events, make_node, make_set
from gateway import keyring, ownkeys
from gateway.audit import EventKind
from gateway.crypto.revocation import Revocation, sign_revocation
from gateway.crypto.succession import sign_succession
from gateway.errors import AuditBrokenError, ConflictError, GatewayError, MalformedError, VerificationError
from gateway.exchange import Exchange
from gateway.interchange import KeyConfirmation, KeyNews, parse_card, sign_card
from gateway.keylife import DAY_SECONDS, KeyPurpose
from gateway.keyring import REVOKED
from gateway.store.tables import PartnerKey
from partner_simulator import Network, held_entries


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def network() -> Network:
    return Network()


@pytest.fixture
def xa(tmp_path: Path, clock: FakeClock, network: Network) -> Exchange:
    return network.join(make_node(tmp_path, "XA-NCVI", clock=clock))


@pytest.fixture
def xb(tmp_path: Path, clock: FakeClock, network: Network, xa: Exchange) -> Exchange:
    node = make_node(tmp_path, "XB-NCVI", clock=clock)
    befriend(xa.node, node)
    return network.join(node)


def sync(network: Network, here: str = "XB-NCVI", there: str = "XA-NCVI") -> None:
    asyncio.run(network.sync(here, there).sync())


def rotate(exchange: Exchange, purpose: KeyPurpose = KeyPurpose.SIGNING) -> str:
    with exchange.node.store.transaction() as tx:
        return ownkeys.rotate(tx, exchange.node, purpose, reason="due")


def switch(exchange: Exchange, key_id: str) -> None:
    with exchange.node.store.transaction() as tx:
        ownkeys.switch(tx, exchange.node, key_id, reason="they are away")


def revoke(exchange: Exchange, key_id: str) -> None:
    with exchange.node.store.transaction() as tx:
        ownkeys.revoke(tx, exchange.node, key_id, since=START_TIME, reason="stolen")


def rows(exchange: Exchange, partner: str = "XA-NCVI") -> list[PartnerKey]:
    with exchange.node.store.reading() as tx:
        return tx.keys.of_partner(partner)


def state(exchange: Exchange, partner: str = "XA-NCVI") -> str:
    with exchange.node.store.reading() as tx:
        return tx.people.partner(partner).state


def said(exchange: Exchange, *statements: bytes, card: bytes = b"") -> bytes:
    """Key statements that say what a test wants them to."""
    honest = keyring.own_news(exchange.node)
    return KeyNews(card or honest.card, statements or honest.statements).dump()


def was_refused(exchange: Exchange, raw: bytes) -> bool:
    try:
        exchange.take_keys("XA-NCVI", raw)
    except VerificationError:
        return True
    return False


def test_both_sides_confirm_each_others_cards_at_the_first_contact(
    network: Network, xa: Exchange, xb: Exchange
) -> None:
    sync(network)
    assert keyring.has_all(xa.node, "XB-NCVI")
    assert keyring.has_all(xb.node, "XA-NCVI")
    asked = len(network.requests)
    sync(network)
    again = [one.split(" ", 2)[2] for one in network.requests[asked:]]
    assert again.count("keys") == 1
    assert "post keys" not in again


def test_a_rotation_is_walked_confirmed_switched_and_used(
    network: Network, xa: Exchange, xb: Exchange, clock: FakeClock
) -> None:
    name = make_set(xa, "found", drafts(5))
    sync(network)
    new = rotate(xa)
    sync(network)
    assert ownkeys.maintain(xa.node) == ["switch signing"]
    xa.ledger.import_entries(name, drafts(3, first=5), actor="tester", form="test")
    sync(network)
    assert len(held_entries(xb, name)) == 8
    assert parse_card(keyring.own_news(xa.node).card).signing.key_set_id == new
    assert [(row.number, row.state) for row in rows(xb)] == [(2, "active"), (1, "deactivated")]


def test_a_partner_that_was_away_for_ten_rotations_walks_them_all(
    network: Network, xa: Exchange, xb: Exchange, clock: FakeClock
) -> None:
    name = make_set(xa, "found", drafts(5))
    sync(network)
    for number in range(10):
        switch(xa, rotate(xa))
        if number % 3 == 0:
            rotate(xa, KeyPurpose.DECRYPTION)
        clock.advance(20 * DAY_SECONDS)
        ownkeys.maintain(xa.node)
    xa.ledger.import_entries(name, drafts(2, first=5), actor="tester", form="test")
    sync(network)
    assert len(held_entries(xb, name)) == 7
    assert rows(xb)[0].number == 11
    assert xb.mirrors.equality(name) == "equal"


def test_messages_of_the_old_key_count_for_the_overlap_and_not_longer(
    network: Network, xa: Exchange, xb: Exchange, clock: FakeClock
) -> None:
    sync(network)
    old = xa.node.keystore.signing_key.public
    switch(xa, rotate(xa))
    sync(network)

    def counting() -> set[str]:
        with xb.node.store.reading() as tx:
            card = parse_card(tx.people.partner("XA-NCVI").card.encode())
            return {key.key_set_id for key in keyring.verifying_keys(xb.node, tx, card)}

    assert old.key_set_id in counting()
    clock.advance(14 * DAY_SECONDS)
    assert old.key_set_id not in counting()


def test_after_a_revocation_nothing_of_the_partner_is_taken_until_it_is_enrolled_anew(
    network: Network, xa: Exchange, xb: Exchange
) -> None:
    name = make_set(xa, "found", drafts(5))
    sync(network)
    stolen = xa.node.keystore.held_signing_key
    revoke(xa, stolen.key_id)
    with pytest.raises(GatewayError):
        sync(network)
    assert (state(xb), [row.state for row in rows(xb)]) == (REVOKED, ["compromised"])
    with pytest.raises(GatewayError):
        sync(network, "XA-NCVI", "XB-NCVI")
    assert len(held_entries(xb, name)) == 5
    with xb.node.store.transaction() as tx:
        row = tx.people.partner("XA-NCVI")
        card = parse_card(ownkeys.issued_card(xa.node))
        keyring.enrol(xb.node, tx, card)
        row.card, row.state = ownkeys.issued_card(xa.node).decode(), "active"
        keyring.put(xb.node, tx, row)
    xa.ledger.import_entries(name, drafts(2, first=5), actor="tester", form="test")
    sync(network)
    assert len(held_entries(xb, name)) == 7


def test_a_thief_who_had_named_a_successor_loses_that_too(network: Network, xa: Exchange, xb: Exchange) -> None:
    sync(network)
    stolen, thiefs = xa.node.keystore.signing_key, xa.node.keystore.add_signing_key(now=START_TIME)
    forged = sign_succession("XA-NCVI", 2, old=stolen, new=thiefs.key, created=START_TIME)
    card = replace(parse_card(ownkeys.issued_card(xa.node)), signing=thiefs.key.public, signing_number=2, number=2)
    xb.take_keys("XA-NCVI", said(xa, forged, card=sign_card(card, thiefs.key)))
    assert rows(xb)[0].state == "active"
    statement = Revocation("XA-NCVI", stolen.public.key_set_id, 1, START_TIME, START_TIME)
    with xb.node.store.reading() as tx:
        present = tx.people.partner("XA-NCVI").card.encode()
    xb.take_keys("XA-NCVI", said(xa, sign_revocation(statement, stolen), card=present))
    assert {row.state for row in rows(xb)} == {"compromised"}
    assert state(xb) == REVOKED


def test_a_key_that_was_replaced_long_ago_revokes_only_itself(
    network: Network, xa: Exchange, xb: Exchange, clock: FakeClock
) -> None:
    sync(network)
    old = xa.node.keystore.signing_key
    switch(xa, rotate(xa))
    sync(network)
    clock.advance(20 * DAY_SECONDS)
    statement = Revocation("XA-NCVI", old.public.key_set_id, 1, START_TIME, clock())
    xb.take_keys("XA-NCVI", said(xa, sign_revocation(statement, old)))
    assert [row.state for row in rows(xb)] == ["active", "compromised"]
    assert state(xb) == "active"


def test_forged_statements_change_nothing_and_are_recorded(network: Network, xa: Exchange, xb: Exchange) -> None:
    sync(network)
    own, strange = xa.node.keystore.signing_key, xb.node.keystore.signing_key
    third = xa.node.keystore.add_signing_key(now=START_TIME).key
    card = parse_card(ownkeys.issued_card(xa.node))
    issued = ownkeys.issued_card(xa.node)
    number = own.public.key_set_id
    forged = {
        "a successor that the held key did not name": (
            sign_succession("XA-NCVI", 2, old=strange, new=third, created=1),
        ),
        "a successor two numbers on": (sign_succession("XA-NCVI", 3, old=own, new=third, created=1),),
        "a successor at another agency": (sign_succession("XB-NCVI", 2, old=own, new=third, created=1),),
        "a revocation by a stranger": (sign_revocation(Revocation("XA-NCVI", number, 1, 1, 1), strange),),
        "a revocation at another agency": (sign_revocation(Revocation("XB-NCVI", number, 1, 1, 1), own),),
    }
    for what, statements in forged.items():
        assert was_refused(xb, said(xa, *statements, card=issued)), what
    cards = {
        "signed by nobody known": sign_card(replace(card, signing=strange.public, number=9), strange),
        "another under the same number": sign_card(replace(card, name="Somebody"), own),
        "with a number that the key has not": sign_card(replace(card, number=9, signing_number=4), own),
    }
    for what, raw in cards.items():
        assert was_refused(xb, said(xa, card=raw)), what
    assert [row.number for row in rows(xb)] in ([], [1])
    assert len(events(xb.node, EventKind.MESSAGE_REFUSED)) == len(forged) + len(cards)


def test_two_successors_of_one_key_are_a_fork_and_refused(network: Network, xa: Exchange, xb: Exchange) -> None:
    sync(network)
    own = xa.node.keystore.signing_key
    rotate(xa)
    sync(network)
    other = xb.node.keystore.signing_key
    with pytest.raises(VerificationError, match="another successor"):
        xb.take_keys("XA-NCVI", said(xa, sign_succession("XA-NCVI", 2, old=own, new=other, created=1)))


def test_an_older_card_is_passed_over(network: Network, xa: Exchange, xb: Exchange) -> None:
    old = ownkeys.issued_card(xa.node)
    rotate(xa, KeyPurpose.DECRYPTION)
    sync(network)
    held = keyring.held_of(xb.node, "XA-NCVI")
    assert xb.take_keys("XA-NCVI", said(xa, card=old)) == held


@pytest.mark.parametrize("change", [{"url": "https://elsewhere.example"}, {"test": False}])
def test_a_card_that_moves_a_partner_waits_for_people(
    network: Network, xa: Exchange, xb: Exchange, change: dict[str, object]
) -> None:
    sync(network)
    card = parse_card(ownkeys.issued_card(xa.node))
    moved = sign_card(replace(card, number=2, **change), xa.node.keystore.signing_key)  # type: ignore[arg-type]
    xb.take_keys("XA-NCVI", said(xa, card=moved))
    with xb.node.store.reading() as tx:
        assert parse_card(tx.people.partner("XA-NCVI").card.encode()) == card
    assert [one.details["kind"] for one in events(xb.node, EventKind.ALARM_RAISED)] == ["partner_card_waits"]


def test_keys_that_the_other_side_lost_can_be_revoked_here(network: Network, xa: Exchange, xb: Exchange) -> None:
    name = make_set(xa, "found", drafts(5))
    sync(network)
    with xb.node.store.transaction() as tx:
        keyring.revoke_partner(xb.node, tx, "XA-NCVI", since=START_TIME, reason="they rang")
    with pytest.raises(GatewayError):
        sync(network)
    assert state(xb) == REVOKED
    found = keyring.affected(xb.node, "XA-NCVI", START_TIME)
    assert ("page_applied", 1) in [(one.kind, one.count) for one in found]
    assert len(held_entries(xb, name)) == 5
    with pytest.raises(ConflictError), xb.node.store.transaction() as tx:
        keyring.revoke_partner(xb.node, tx, "XA-NCVI", since=START_TIME, reason="again")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE partner_key SET state = 'active'",
        "UPDATE partner_key SET until = 9999999999",
        "UPDATE partner_key SET agency = 'XC-NCVI'",
        "UPDATE partner_key SET number = 7",
    ],
)
def test_a_key_row_that_somebody_else_wrote_is_believed_by_nobody(
    network: Network, xa: Exchange, xb: Exchange, statement: str
) -> None:
    sync(network)
    switch(xa, rotate(xa))
    sync(network)
    with xb.node.store.transaction() as tx:
        tx.connection.execute(text(statement + " WHERE number = 1"))
    if "agency" in statement:
        befriended = make_node(xb.node.settings.folder.parent, "XC-NCVI", clock=xb.node.clock)  # type: ignore[arg-type]
        befriend(xb.node, befriended)
        with pytest.raises(AuditBrokenError):
            keyring.held_of(xb.node, "XC-NCVI")
        return
    with pytest.raises(AuditBrokenError):
        sync(network)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{}",
        b'{"card":"x","key_statements":"key-statements 2","statements":[]}',
        b'{"card":"x","key_statements":"key-statements 1","statements":[""]}',
        b'{"card":"x","key_statements":"key-statements 1","statements":["{}"]}',
        b'{"card":1,"key_statements":"key-statements 1","statements":[]}',
    ],
)
def test_what_is_no_key_statement_is_malformed(network: Network, xa: Exchange, xb: Exchange, raw: bytes) -> None:
    with pytest.raises(MalformedError):
        xb.take_keys("XA-NCVI", raw)


def test_a_confirmation_of_a_card_that_never_was_ours_confirms_nothing(xa: Exchange, xb: Exchange) -> None:
    ownkeys.issued_card(xa.node)
    assert xa.keys_for("XB-NCVI", KeyConfirmation("00" * 32, 1, 0)) is not None
    with xa.node.store.reading() as tx:
        assert tx.keys.seen()["XB-NCVI"].number == 0
