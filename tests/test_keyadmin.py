"""What administrators do: the identity card, partners, administrators, the brake."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from factory import FakeClock, SeededRandom, drafts, make_node, make_set
from gateway.approvals import DONE, Approvals, Arguments
from gateway.audit import EventKind, parse_event
from gateway.crypto.checkpoint import VerifierKey, verify
from gateway.crypto.keys import SigningKey
from gateway.errors import ConflictError, DeniedError, MalformedError, NotFoundError, OverloadedError, VerificationError
from gateway.exchange import Exchange
from gateway.interchange import parse_card, sign_card
from gateway.keyadmin import (
    ACTS,
    add_administrator,
    add_partner,
    approvals,
    bootstrap_administrator,
    export_card,
    own_card,
    pause,
    remove_partner,
    resume,
    suspend_partner,
)
from gateway.keystore import PersonalKey
from gateway.node import Node
from gateway.store.tables import PartnerRow

ONE, TWO, THREE = (PersonalKey(name, SigningKey.generate(SeededRandom(name))) for name in ("one", "two", "three"))


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
    identifier = desk.propose(*act, by="one")
    desk.sign(identifier, ONE)
    with pytest.raises(error, match=match):
        desk.sign(identifier, TWO)


def test_a_gateway_does_not_enrol_itself(xa: Node) -> None:
    refused(xa, add_partner(export_card(xa)), DeniedError, "own identity card")


def test_invented_and_real_data_never_meet(xa: Node, tmp_path: Path, clock: FakeClock) -> None:
    demo = make_node(tmp_path, "XC-NCVI", clock=clock, quorum=1)
    refused(xa, add_partner(export_card(demo)), DeniedError, "invented data")


def test_an_older_card_does_not_replace_a_newer_one(xa: Node, xb: Node, clock: FakeClock) -> None:
    old = export_card(xb)
    clock.advance(60)
    do(xa, add_partner(export_card(xb)))
    refused(xa, add_partner(old), ConflictError, "older")


def test_a_new_card_ends_what_was_issued_under_the_old_one(xa: Node, xb: Node, clock: FakeClock) -> None:
    do(xa, add_partner(export_card(xb)))
    name = make_set(Exchange(xa), "found", drafts(3))
    Exchange(xa).head_for("XB-NCVI", name)
    with xa.store.transaction() as tx:
        tx.tokens.add(bytes(32), "XB-NCVI", "thumbprint", clock() + 300)
    clock.advance(60)
    moved = sign_card(replace(own_card(xb), url="http://127.0.0.1:9"), xb.keystore.signing_key)
    do(xa, add_partner(moved))
    with xa.store.reading() as tx:
        assert tx.tokens.find(bytes(32), clock()) is None
        assert tx.sets.head(1, "XB-NCVI") is None
    assert Exchange(xa).card_of("XB-NCVI").url == "http://127.0.0.1:9"


def test_a_removed_partner_is_gone_at_once(xa: Node, xb: Node, clock: FakeClock) -> None:
    do(xa, add_partner(export_card(xb)))
    with xa.store.transaction() as tx:
        tx.tokens.add(bytes(32), "XB-NCVI", "thumbprint", clock() + 300)
        tx.schedule.put("sync XB-NCVI", "XB-NCVI", 300, clock())
    do(xa, remove_partner("XB-NCVI", "the agreement ended"))
    with pytest.raises(NotFoundError):
        Exchange(xa).card_of("XB-NCVI")
    with xa.store.reading() as tx:
        assert tx.tokens.find(bytes(32), clock()) is None
        assert tx.schedule.jobs() == []
    assert recorded(xa, EventKind.PARTNER_REMOVED)[0]["reason"] == "the agreement ended"
    refused(xa, remove_partner("XB-NCVI", "again"), ConflictError, "removed already")
    refused(xa, suspend_partner("XB-NCVI", "again"), ConflictError, "not active")
    refused(xa, resume("XB-NCVI"), ConflictError, "nothing is paused")


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


def test_every_guarded_act_refuses_arguments_that_are_not_its_own() -> None:
    for act in ACTS.values():
        for arguments in ({}, {"partner": 7}, {"card": "x", "extra": ""}):
            with pytest.raises(MalformedError):
                act.subject(arguments)
