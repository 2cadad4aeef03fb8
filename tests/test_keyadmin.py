"""What administrators do: the identity card, partners, administrators, the brake."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from factory import FakeClock, SeededRandom, card_of, drafts, enrol, make_node, make_set, signed_card_of
from gateway.approvals import DONE, Approvals, Arguments
from gateway.audit import EventKind, parse_event
from gateway.crypto.checkpoint import VerifierKey, verify
from gateway.crypto.keys import SigningKey
from gateway.errors import ConflictError, DeniedError, MalformedError, NotFoundError, OverloadedError, VerificationError
from gateway.exchange import Exchange
from gateway.interchange import START, parse_card, sign_card
from gateway.keyadmin import (
    ACTS,
    add_administrator,
    add_partner,
    approvals,
    bootstrap_administrator,
    export_card,
    lift_test,
    own_card,
    pause,
    remove_administrator,
    remove_partner,
    resume,
    set_quorum,
    suspend_partner,
)
from gateway.keystore import PersonalKey
from gateway.node import Node
from gateway.standing import Roster, roster
from gateway.store.tables import ClientSecret, KeySeen, PartnerRow
from partner_simulator import Network

NAMES = ("one", "two", "three", "four")
ONE, TWO, THREE, FOUR = (PersonalKey(name, SigningKey.generate(SeededRandom(name))) for name in NAMES)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def xa(tmp_path: Path, clock: FakeClock) -> Node:
    node = make_node(tmp_path, "XA-NCVI", clock=clock, quorum=2)
    for key in (ONE, TWO):
        bootstrap_administrator(node, key.name, key.signing_key.public)
    return node


@pytest.fixture
def xb(tmp_path: Path, clock: FakeClock) -> Node:
    return make_node(tmp_path, "XB-NCVI", clock=clock, quorum=2)


def do(node: Node, act: tuple[str, Arguments]) -> Approvals:
    """A guarded act, proposed and signed by both."""
    desk = approvals(node)
    identifier = desk.propose(*act, by="one")
    desk.sign(identifier, ONE)
    assert desk.sign(identifier, TWO).state == DONE
    return desk


def partner(node: Node, agency: str = "XB-NCVI") -> PartnerRow:
    with node.store.reading() as tx:
        return tx.people.partner(agency)


def people(node: Node) -> Roster:
    with node.store.reading() as tx:
        return roster(tx, node)


def recorded(node: Node, kind: EventKind) -> list[dict[str, object]]:
    with node.store.reading() as tx:
        parsed = [parse_event(leaf.event_bytes) for leaf in tx.log.leaves() if leaf.event_bytes]
    return [event.details for event in parsed if event.kind is kind]


# The identity card


def test_the_card_holds_the_keys_that_the_gateway_works_with(xa: Node) -> None:
    card = parse_card(export_card(xa))
    assert card == own_card(xa)
    assert card.signing == xa.keystore.signing_key.public
    assert card.opening == (xa.keystore.sealing_key,)
    assert card.tokens == (xa.keystore.token_key.card_jwk(),)
    with xa.store.reading() as tx:
        note = tx.log.latest_checkpoint()
    key = VerifierKey.parse(card.log)
    assert verify(note, key, key.name).size > 0


def test_the_fingerprint_stays_while_the_keys_do(xa: Node, xb: Node, clock: FakeClock) -> None:
    first = own_card(xa)
    clock.advance(86_400)
    again = replace(own_card(xa), url="https://elsewhere.example")
    assert again.fingerprint == first.fingerprint
    assert own_card(xb).fingerprint != first.fingerprint
    assert [len(group) for group in first.fingerprint.split()] == [4] * 10


VECTORS = json.loads((Path(__file__).parent / "vectors" / "identity-card.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("vector", VECTORS["cards"], ids=lambda vector: vector["name"])
def test_a_card_is_taken_as_its_vector_says(vector: dict[str, str]) -> None:
    raw = vector["card"].encode()
    if vector["expect"] == "accepted":
        assert ACTS["partner_add"].subject({"card": vector["card"]}) == "XA-NCVI"
        assert parse_card(raw).fingerprint == VECTORS["fingerprint"]
    elif vector["expect"] == "MalformedError at enrolment":
        parse_card(raw)
        with pytest.raises(MalformedError, match="its agency"):
            ACTS["partner_add"].subject({"card": vector["card"]})
    else:
        with pytest.raises(
            {"MalformedError": MalformedError, "VerificationError": VerificationError}[vector["expect"]]
        ):
            parse_card(raw)


# Partners


def test_a_partner_is_enrolled_by_two(xa: Node, xb: Node) -> None:
    desk = approvals(xa)
    identifier = desk.propose(*add_partner(export_card(xb)), by="one")
    desk.sign(identifier, ONE)
    with pytest.raises(NotFoundError):
        partner(xa)
    desk.sign(identifier, TWO)
    assert partner(xa).state == "active"
    assert Exchange(xa).card_of("XB-NCVI").fingerprint == own_card(xb).fingerprint
    assert recorded(xa, EventKind.PARTNER_ADDED)[0]["proposal"] == identifier


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda raw: raw.replace(b'"payload":"', b'"payload":"AAAA'), MalformedError),
        (lambda _raw: b"\xff", MalformedError),
        (lambda _raw: b"{}", MalformedError),
    ],
)
def test_what_is_no_card_is_not_even_proposed(
    xa: Node, xb: Node, change: Callable[[bytes], bytes], error: type[Exception]
) -> None:
    with pytest.raises(error):
        approvals(xa).propose(*add_partner(change(export_card(xb))), by="one")
    assert approvals(xa).all() == []


def refused(node: Node, act: tuple[str, Arguments], error: type[Exception], match: str) -> None:
    desk = approvals(node)
    assert isinstance(node.clock, FakeClock)
    node.clock.advance(1)  # the same act within the same second would be the same proposal
    identifier = desk.propose(*act, by="one")
    desk.sign(identifier, ONE)
    with pytest.raises(error, match=match):
        desk.sign(identifier, TWO)


def test_a_gateway_does_not_enrol_itself(xa: Node) -> None:
    refused(xa, add_partner(export_card(xa)), DeniedError, "own identity card")


def newer_card(node: Node, **changes: Any) -> bytes:
    """The node's next identity card, with changes."""
    card = own_card(node)
    return sign_card(replace(card, number=card.number + 1, **changes), node.keystore.signing_key)


def test_an_older_card_does_not_replace_a_newer_one(xa: Node, xb: Node) -> None:
    old = export_card(xb)
    do(xa, add_partner(newer_card(xb, url="http://127.0.0.1:9")))
    refused(xa, add_partner(old), ConflictError, "older")


# The test of a partner


def offered(node: Node, agency: str = "XB-NCVI") -> list[object]:
    return [one["set"] for one in Exchange(node).sets_for(agency)]


def test_a_new_partner_is_under_test_and_only_test_sets_are_there_for_it(xa: Node, xb: Node) -> None:
    do(xa, add_partner(export_card(xb)))
    exchange = Exchange(xa)
    real, test = make_set(exchange, "found", drafts(3)), make_set(exchange, "test-one", drafts(3))
    assert partner(xa).test
    assert offered(xa) == [test]
    with pytest.raises(NotFoundError) as forbidden:
        exchange.head_for("XB-NCVI", real)
    with pytest.raises(NotFoundError) as absent:
        exchange.head_for("XB-NCVI", "XA-NCVI/nothing")
    assert str(forbidden.value) == str(absent.value)
    assert exchange.head_for("XB-NCVI", test).head.count == 3
    do(xa, lift_test("XB-NCVI"))
    assert offered(xa) == [real, test]
    assert recorded(xa, EventKind.PARTNER_TEST_LIFTED)[0]["partner"] == "XB-NCVI"
    refused(xa, lift_test("XB-NCVI"), ConflictError, "not under test")


def test_what_a_partner_under_test_pushes_is_refused_unless_it_is_a_test_set(xa: Node, xb: Node) -> None:
    enrol(xa, card_of(xb), test=True)
    enrol(xb, card_of(xa))
    here, there = Exchange(xa), Exchange(xb)
    real, test = make_set(there, "found", drafts(2)), make_set(there, "test-found", drafts(2))
    for name in (real, test):
        head = there.head_for("XA-NCVI", name).body
        if name == test:
            here.accept("XB-NCVI", BytesIO(head))
        else:
            with pytest.raises(DeniedError, match="under test"):
                here.accept("XB-NCVI", BytesIO(head))
            with pytest.raises(DeniedError, match="under test"):
                here.take_head("XB-NCVI", head)
    page = there.page_to_push("XA-NCVI", test, START)
    assert page is not None
    here.accept("XB-NCVI", BytesIO(page.body))
    # A set that came while the test was lifted takes no page once the test is on again.
    page = there.page_to_push("XA-NCVI", real, START)
    assert page is not None
    with pytest.raises(DeniedError, match="under test"):
        here.accept("XB-NCVI", BytesIO(page.body))
    # What a partner lists in a test set is no answer to a look-up.
    digest = drafts(1)[0].digests["sha256"].hex()
    assert here.lookup.find([digest], actor="one") == []
    with pytest.raises(NotFoundError):
        here.lookup.where(test, "0001-000000000001")


async def test_a_sync_with_a_partner_under_test_moves_its_test_sets_and_fails_at_no_other(xa: Node, xb: Node) -> None:
    network = Network()
    here, there = network.join(xa), network.join(xb)
    do(xa, add_partner(signed_card_of(xb)))
    enrol(xb, card_of(xa))
    real, test = make_set(there, "found", drafts(2)), make_set(there, "test-found", drafts(2))
    reports = await network.sync("XA-NCVI", "XB-NCVI").sync()
    assert [(report.set_name, report.equality) for report in reports] == [(test, "equal")]
    with pytest.raises(DeniedError, match="under test"):
        await network.sync("XA-NCVI", "XB-NCVI").pull(real)
    assert here.mirrors.cursor(real) == START
    do(xa, lift_test("XB-NCVI"))
    reports = await network.sync("XA-NCVI", "XB-NCVI").sync()
    assert sorted((report.set_name, report.equality) for report in reports) == [(real, "equal"), (test, "equal")]


def test_the_test_of_a_partner_whose_card_says_test_is_never_lifted(xa: Node, tmp_path: Path, clock: FakeClock) -> None:
    demo = make_node(tmp_path, "XC-NCVI", clock=clock, quorum=1)
    do(xa, add_partner(export_card(demo)))
    assert partner(xa, "XC-NCVI").test
    refused(xa, lift_test("XC-NCVI"), DeniedError, "invented")


def test_a_replaced_card_keeps_the_test_as_it_is_and_one_that_says_test_brings_it_back(xa: Node, xb: Node) -> None:
    do(xa, add_partner(export_card(xb)))
    do(xa, add_partner(newer_card(xb, name="Another name")))
    assert partner(xa).test
    do(xa, lift_test("XB-NCVI"))
    do(xa, add_partner(newer_card(xb, name="A third name")))
    assert not partner(xa).test
    do(xa, add_partner(newer_card(xb, test=True)))
    assert partner(xa).test


def test_a_removed_partner_that_comes_back_is_under_test_again(xa: Node, xb: Node, clock: FakeClock) -> None:
    do(xa, add_partner(export_card(xb)))
    do(xa, lift_test("XB-NCVI"))
    do(xa, remove_partner("XB-NCVI", "the agreement ended"))
    clock.advance(1)
    do(xa, add_partner(export_card(xb)))
    assert partner(xa).test


def test_all_data_of_a_demo_are_invented_so_it_tests_nobody(tmp_path: Path, clock: FakeClock, xb: Node) -> None:
    demo = make_node(tmp_path, "XC-NCVI", clock=clock, quorum=1)
    bootstrap_administrator(demo, "one", ONE.signing_key.public)
    desk = approvals(demo)
    assert desk.sign(desk.propose(*add_partner(export_card(xb)), by="one"), ONE).state == DONE
    name = make_set(Exchange(demo), "found", drafts(3))
    assert offered(demo) == [name]


# Partners that change or go


def test_a_new_card_ends_what_was_issued_under_the_old_one(xa: Node, xb: Node, clock: FakeClock) -> None:
    do(xa, add_partner(export_card(xb)))
    name = make_set(Exchange(xa), "test-found", drafts(3))
    Exchange(xa).head_for("XB-NCVI", name)
    with xa.store.transaction() as tx:
        tx.tokens.add(bytes(32), "XB-NCVI", "thumbprint", clock() + 300)
    do(xa, add_partner(newer_card(xb, url="http://127.0.0.1:9")))
    with xa.store.reading() as tx:
        assert tx.tokens.find(bytes(32), clock()) is None
        assert tx.sets.head(1, "XB-NCVI") is None
    assert Exchange(xa).card_of("XB-NCVI").url == "http://127.0.0.1:9"


def fill(node: Node, clock: FakeClock, agency: str = "XB-NCVI") -> str:
    """All that a partner can have of us; returns the message on its way."""
    exchange = Exchange(node)
    name = make_set(exchange, "test-found", drafts(3))
    exchange.head_for(agency, name)
    page = exchange.page_to_push(agency, name, START)
    assert page is not None
    with node.store.transaction() as tx:
        tx.tokens.add(bytes(32), agency, "thumbprint", clock() + 300)
        tx.schedule.put(f"sync {agency}", agency, 300, clock())
        tx.secrets.open(agency, "taxii", clock(), "")
        secret = {"id": "ab" * 8, "partner": agency, "surface": "taxii", "digest": bytes(32)}
        tx.secrets.add(ClientSecret(**secret, created=clock(), expires=clock() + 300))
        seen = {"number": 1, "signing_number": 1, "revocations": 0, "at": clock()}
        tx.keys.note_seen(KeySeen(partner=agency, **seen))
    return page.message_id


@pytest.mark.parametrize(("stop", "kept"), [(suspend_partner, 1), (remove_partner, 0)], ids=["suspended", "removed"])
def test_a_partner_that_is_shut_out_has_nothing_of_us_from_that_commit_on(
    xa: Node, xb: Node, clock: FakeClock, stop: Callable[[str, str], tuple[str, Arguments]], kept: int
) -> None:
    do(xa, add_partner(export_card(xb)))
    message = fill(xa, clock)
    with xa.store.reading() as tx:
        assert tx.people.issued("XB-NCVI") == (1, 1, 1, 1, 1)
    do(xa, stop("XB-NCVI", "the agreement ended"))
    with pytest.raises(NotFoundError):
        Exchange(xa).card_of("XB-NCVI")
    with xa.store.reading() as tx:
        assert tx.people.issued("XB-NCVI") == (0, 0, 0, 0, kept)
        assert tx.tokens.find(bytes(32), clock()) is None
        sent = tx.mail.sent(message)
        assert sent is not None
        assert (sent.state, sent.sealed) == ("dead", b"")
        assert tx.secrets.is_open("XB-NCVI", "taxii") == bool(kept)
        # A secret that is kept lets nobody in while the partner is suspended.
        assert tx.secrets.live("ab" * 8, "taxii", clock()) is None
        assert ("XB-NCVI" in tx.keys.seen()) == bool(kept)


def test_a_removed_partner_is_gone_for_good(xa: Node, xb: Node) -> None:
    do(xa, add_partner(export_card(xb)))
    do(xa, remove_partner("XB-NCVI", "the agreement ended"))
    assert recorded(xa, EventKind.PARTNER_REMOVED)[0]["reason"] == "the agreement ended"
    refused(xa, remove_partner("XB-NCVI", "again"), ConflictError, "removed already")
    refused(xa, suspend_partner("XB-NCVI", "again"), ConflictError, "not active")
    refused(xa, resume("XB-NCVI"), ConflictError, "nothing is paused")
    refused(xa, lift_test("XB-NCVI"), ConflictError, "not active")


def test_a_suspended_partner_comes_back_by_two(xa: Node, xb: Node) -> None:
    do(xa, add_partner(export_card(xb)))
    do(xa, suspend_partner("XB-NCVI", "a key may be lost"))
    with pytest.raises(NotFoundError):
        Exchange(xa).card_of("XB-NCVI")
    do(xa, resume("XB-NCVI"))
    assert Exchange(xa).card_of("XB-NCVI").agency == "XB-NCVI"


@pytest.mark.parametrize("reason", ["", "x" * 257, "two\nlines"])
def test_shutting_a_partner_out_needs_a_reason(xa: Node, reason: str) -> None:
    with pytest.raises(MalformedError):
        approvals(xa).propose(*suspend_partner("XB-NCVI", reason), by="one")


# The brake


@pytest.mark.parametrize("scope", ["", "XB-NCVI"])
def test_one_person_stops_and_two_go_on(xa: Node, xb: Node, scope: str) -> None:
    do(xa, add_partner(export_card(xb)))
    assert pause(xa, scope, by="one")
    with pytest.raises(OverloadedError, match="paused"):
        Exchange(xa).card_of("XB-NCVI")
    desk = approvals(xa)
    desk.sign(desk.propose(*resume(scope), by="one"), ONE)
    with pytest.raises(OverloadedError, match="paused"):
        Exchange(xa).card_of("XB-NCVI")
    desk.sign(desk.all(only_open=True)[0].id, TWO)
    assert Exchange(xa).card_of("XB-NCVI").agency == "XB-NCVI"
    assert len(recorded(xa, EventKind.PAUSED)) == len(recorded(xa, EventKind.RESUMED)) == 1


def test_stopping_twice_is_one_stop(xa: Node) -> None:
    assert [pause(xa), pause(xa)] == [True, False]
    assert len(recorded(xa, EventKind.PAUSED)) == 1


def test_stopping_an_unknown_partner_or_in_an_unknown_name_is_refused(xa: Node) -> None:
    with pytest.raises(NotFoundError):
        pause(xa, "XB-NCVI")
    with pytest.raises(DeniedError):
        pause(xa, by="nobody")


# Administrators


def test_the_first_administrators_come_without_signatures_and_no_further_one(xa: Node) -> None:
    with pytest.raises(DeniedError, match="guarded"):
        bootstrap_administrator(xa, "three", THREE.signing_key.public)
    do(xa, add_administrator("three", THREE.signing_key.public))
    with xa.store.reading() as tx:
        assert [row.name for row in tx.people.administrators()] == ["one", "three", "two"]
    added = recorded(xa, EventKind.ADMINISTRATOR_ADDED)
    assert [("proposal" in details) for details in added] == [False, False, True]


def test_one_key_under_two_names_would_be_two_votes(tmp_path: Path, clock: FakeClock) -> None:
    node = make_node(tmp_path, clock=clock, quorum=2)
    bootstrap_administrator(node, "one", ONE.signing_key.public)
    with pytest.raises(ConflictError, match="another administrator's"):
        bootstrap_administrator(node, "other", ONE.signing_key.public)
    with pytest.raises(ConflictError, match="of this name"):
        bootstrap_administrator(node, "one", TWO.signing_key.public)


@pytest.mark.parametrize("name", ["", "Ann Other", "../one", "-x", "a" * 33])
def test_a_name_that_is_no_file_name_is_refused(xa: Node, name: str) -> None:
    with pytest.raises(MalformedError):
        approvals(xa).propose(*add_administrator(name, THREE.signing_key.public), by="one")


def test_a_new_administrator_signs_what_was_proposed_before(xa: Node, xb: Node) -> None:
    desk = approvals(xa)
    waiting = desk.propose(*add_partner(export_card(xb)), by="one")
    do(xa, add_administrator("three", THREE.signing_key.public))
    desk.sign(waiting, THREE)
    assert desk.sign(waiting, TWO).state == DONE


def test_an_administrator_who_leaves_signs_no_more_and_the_name_stays_taken(xa: Node, xb: Node) -> None:
    do(xa, add_administrator("three", THREE.signing_key.public))
    do(xa, remove_administrator("three", "moved to another post"))
    assert sorted(people(xa).administrators) == ["one", "two"]
    desk = approvals(xa)
    waiting = desk.propose(*add_partner(export_card(xb)), by="one")
    with pytest.raises(DeniedError, match="not an administrator's"):
        desk.sign(waiting, THREE)
    refused(xa, add_administrator("three", FOUR.signing_key.public), ConflictError, "there was one")
    refused(xa, add_administrator("four", THREE.signing_key.public), ConflictError, "another administrator's")


def test_there_are_never_fewer_administrators_than_must_sign(xa: Node) -> None:
    refused(xa, remove_administrator("two", "moved"), ConflictError, "2 must sign")
    refused(xa, remove_administrator("nobody", "moved"), ConflictError, "no administrator")
    refused(xa, set_quorum(3), ConflictError, "there are 2")
    refused(xa, set_quorum(1), DeniedError, "two people")
    refused(xa, set_quorum(2), ConflictError, "already")


def test_the_quorum_rises_and_falls_by_as_many_signatures_as_it_asks_for(xa: Node, xb: Node) -> None:
    do(xa, add_administrator("three", THREE.signing_key.public))
    do(xa, set_quorum(3))
    assert (people(xa).quorum, people(xa).signed) == (3, 3)
    desk = approvals(xa)
    back = desk.propose(*set_quorum(2), by="one")
    assert [desk.sign(back, key).state for key in (ONE, TWO)] == ["open", "open"]
    assert people(xa).quorum == 3
    assert desk.sign(back, THREE).state == DONE
    assert people(xa).quorum == 2
    changes = [(details["old"], details["new"]) for details in recorded(xa, EventKind.QUORUM_CHANGED)]
    assert changes == [(2, 3), (3, 2)]


# What a signer is shown


def shown(node: Node, act: tuple[str, Arguments]) -> dict[str, tuple[str, str]]:
    desk = approvals(node)
    changes = desk.difference(desk.propose(*act, by="one"))
    return {change.what: (change.now, change.then) for change in changes}


def test_a_new_card_is_shown_beside_the_old_one(xa: Node, xb: Node) -> None:
    first = shown(xa, add_partner(export_card(xb)))
    assert first["fingerprint"] == ("", own_card(xb).fingerprint)
    assert first["may exchange"] == ("", "sets of invented data only (test-)")
    do(xa, add_partner(newer_card(xb)))
    pins = ("A" * 43 + "=",)
    moved = replace(own_card(xb), number=3, url="http://127.0.0.1:9", name="Moved", tls_pins=pins)
    second = shown(xa, add_partner(sign_card(moved, xb.keystore.signing_key)))
    assert second == {
        "name": (own_card(xb).name, "Moved"),
        "address": (own_card(xb).url, "http://127.0.0.1:9"),
        "TLS pins": ("", pins[0]),
        "card": ("number 2", "number 3"),
    }


def test_what_stops_is_shown_with_counts(xa: Node, xb: Node, clock: FakeClock) -> None:
    do(xa, add_partner(export_card(xb)))
    enrol(xb, card_of(xa))
    fill(xa, clock)
    theirs = make_set(Exchange(xb), "test-theirs", drafts(2))
    Exchange(xa).accept("XB-NCVI", BytesIO(Exchange(xb).head_for("XA-NCVI", theirs).body))
    stopping = {
        "access tokens": ("1", "0"),
        "feeds served": ("1", "0"),
        "scheduled jobs": ("1", "0"),
        "pages on their way": ("1", "0"),
        "its sets, followed here": (f"1: {theirs}", "they stay as they are"),
    }
    assert shown(xa, suspend_partner("XB-NCVI", "why")) == {"state": ("active", "suspended"), **stopping}
    removing = {"state": ("active", "removed"), **stopping, "secrets of stock clients": ("1", "0")}
    assert shown(xa, remove_partner("XB-NCVI", "why")) == removing


def test_administrators_are_shown_before_and_after(xa: Node) -> None:
    joining = shown(xa, add_administrator("three", THREE.signing_key.public))
    assert joining["administrators"] == ("one, two", "one, three, two")
    assert joining["must sign"] == ("2 of 2", "2 of 3")
    assert joining["key"] == ("", THREE.signing_key.public.key_set_id)
    assert shown(xa, remove_administrator("two", "why"))["administrators"] == ("one, two", "one")
    assert shown(xa, set_quorum(3)) == {"must sign": ("2 of 2", "3 of 2")}


def test_who_paused_what_and_when_is_shown(xa: Node, xb: Node) -> None:
    do(xa, add_partner(export_card(xb)))
    do(xa, suspend_partner("XB-NCVI", "why"))
    pause(xa, "XB-NCVI", by="two")
    assert shown(xa, resume("XB-NCVI")) == {
        "paused": ("by two, 2026-11-18 11:06:40Z", "no"),
        "state": ("suspended", "active"),
    }


def test_every_guarded_act_refuses_arguments_that_are_not_its_own() -> None:
    for act in ACTS.values():
        for arguments in ({}, {"partner": 7}, {"card": "x", "extra": ""}):
            with pytest.raises(MalformedError):
                act.subject(arguments)
