"""Two leads on one child: told once, nothing else until both agree, in any order. Series: merged and parted."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from chain import ACTIONS, agreement, set_rules
from factory import FakeClock, SeededRandom, drafts, events, sha256
from gateway.alarms import AlarmKind
from gateway.audit import EventKind
from gateway.cases.assertions import Wish
from gateway.crypto.keys import SigningKey
from gateway.errors import ConflictError, DeniedError, GatewayError, MalformedError
from gateway.exchange import Exchange
from gateway.keyadmin import approvals, bootstrap_administrator
from gateway.keystore import PersonalKey
from gateway.model import EntryDraft, VictimStatus
from gateway.proposals import Arguments
from partner_simulator import Faults, Network, refused
from test_identifying import alarms, everybody_follows, everybody_syncs, mesh, own, set_status, sought, status

LEAD = Wish(VictimStatus.LEAD)
ONE = PersonalKey("one", SigningKey.generate(SeededRandom("one")))


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def two_leads(tmp_path: Path, clock: FakeClock) -> tuple[Network, Exchange, Exchange]:
    network = mesh(tmp_path, clock, 2)
    everybody_follows(network)
    xa, xb = network.members.values()
    set_status(xa, LEAD, 0)
    set_status(xb, LEAD, 0, 1)
    everybody_syncs(network, 1)
    return network, xa, xb


def state(exchange: Exchange) -> tuple[str, str, str]:
    [one] = exchange.statuses.claims.all()
    return one.state, one.contact, one.reference


def agree(exchange: Exchange) -> None:
    [one] = exchange.statuses.claims.all()
    code = exchange.node.agency[:2]
    exchange.statuses.claims.agree(one.id[:12], f"Unit of {code}, +99 555 0100", f"file of {code}")


def test_both_are_told_once_and_shown_nothing_until_both_agree(tmp_path: Path, clock: FakeClock) -> None:
    network, xa, xb = two_leads(tmp_path, clock)
    [one], [other] = xa.statuses.claims.all(), xb.statuses.claims.all()
    assert one.id == other.id
    assert (one.partner, one.since, one.state, one.contact) == ("XB-NCVI", clock(), "open", "")
    assert [alarms(exchange, AlarmKind.CLAIM_CONFLICT) for exchange in (xa, xb)] == [1, 1]
    with xb.node.store.reading() as tx:
        bodies = [xb.mailbox.read(row) for row in tx.mail.incoming("XA-NCVI") if row.kind == "status_assertion"]
    assert {body["contact"] for body in bodies} == {""}
    agree(xa)
    everybody_follows(network)
    assert (state(xa), state(xb)) == (("open", "", ""), ("open", "", ""))
    agree(xb)
    everybody_syncs(network)
    assert state(xa) == ("agreed", "Unit of XB, +99 555 0100", "file of XB")
    assert state(xb) == ("agreed", "Unit of XA, +99 555 0100", "file of XA")
    assert [alarms(exchange, AlarmKind.CLAIM_CONFLICT) for exchange in (xa, xb)] == [0, 0]
    clock.advance(60)
    set_status(xa, LEAD, 0)  # said again: nobody is told a second time
    everybody_syncs(network)
    assert [len(events(exchange.node, EventKind.CLAIM_CONFLICT)) for exchange in (xa, xb)] == [1, 1]


def test_who_declines_is_left_alone_and_may_think_again(tmp_path: Path, clock: FakeClock) -> None:
    network, xa, xb = two_leads(tmp_path, clock)
    agree(xa)
    [one] = xb.statuses.claims.all()
    xb.statuses.claims.decline(one.id)
    everybody_follows(network)
    assert (state(xa), state(xb)) == (("declined", "", ""), ("declined", "", ""))
    agree(xb)
    everybody_syncs(network)
    assert (state(xa)[0], state(xb)[1]) == ("agreed", "Unit of XA, +99 555 0100")
    set_status(xa, Wish(VictimStatus.UNIDENTIFIED, "nothing came of it"), 0)
    everybody_syncs(network)
    assert (state(xa)[0], state(xb)[0]) == ("over", "over")
    assert isinstance(refused(lambda: agree(xa)), ConflictError)


def test_an_answer_does_not_tell_a_partner_what_policy_keeps_from_it(tmp_path: Path, clock: FakeClock) -> None:
    network = mesh(tmp_path, clock, 2)
    everybody_follows(network)
    xa, xb = network.members.values()
    set_rules(xa, "XB", agreement("XA", "XB", actions=[one for one in ACTIONS if one != "share_victim_status"]))
    set_status(xa, LEAD)
    set_status(xb, LEAD)
    everybody_syncs(network)
    assert len(xa.statuses.claims.all()) == 1  # XB's claim came here
    assert xb.statuses.claims.all() == []
    assert isinstance(refused(lambda: agree(xa)), DeniedError)
    with xa.node.store.reading() as tx:
        assert not [row for row in tx.mail.sent_mail("XB-NCVI") if row.kind.startswith("claim")]


def test_a_contact_for_which_nobody_has_agreed_is_refused(tmp_path: Path, clock: FakeClock) -> None:
    network, xa, xb = two_leads(tmp_path, clock)
    [one] = xa.statuses.claims.all()
    xb.mailbox.write("XA-NCVI", "claim_contact", {"claim": one.id, "contact": "call me", "reference": ""})
    xb.mailbox.write("XA-NCVI", "claim_answer", {"claim": "0" * 32, "version": 1, "answer": "agree"})
    everybody_follows(network)
    assert state(xa) == ("open", "", "")
    assert len(events(xa.node, EventKind.MESSAGE_REFUSED)) == 1
    assert isinstance(refused(lambda: xa.statuses.claims.agree(one.id, "")), MalformedError)


@pytest.mark.parametrize("seed", range(2))
def test_whatever_the_order_and_the_losses_all_sides_end_alike(seed: int, tmp_path: Path, clock: FakeClock) -> None:
    """Three gateways over a network that loses, repeats and damages; random deeds; then peace."""
    source = random.Random(seed)
    network = mesh(tmp_path, clock, 3)
    everybody_follows(network)
    network.source, network.faults = source, Faults(0.15, 0.15, 0.2, 0.05)
    for _ in range(14):
        exchange = source.choice(list(network.members.values()))
        kind, number = source.randrange(4), source.randrange(2)
        wish = Wish(source.choice(list(VictimStatus)[1:6]), source.choice(("", "a mistake")))
        here, there = source.sample(list(network.members), 2)
        if kind == 0:
            attempt(functools.partial(set_status, exchange, wish, number))
        elif kind == 1:
            attempt(functools.partial(answer, exchange, source))
        else:
            attempt(lambda here=here, there=there: asyncio.run(network.sync(here, there).exchange_mail()))  # type: ignore[misc]
        clock.advance(1)
    network.faults = Faults()
    everybody_syncs(network, 3)
    exchanges = list(network.members.values())
    for number in range(2):
        assert len({known(one, number) for one in exchanges}) == 1
    for one, other in itertools.combinations(exchanges, 2):
        mine = {claim.id: claim for claim in one.statuses.claims.all() if claim.partner == other.node.agency}
        theirs = {claim.id: claim for claim in other.statuses.claims.all() if claim.partner == one.node.agency}
        for name in mine.keys() & theirs.keys():
            assert (mine[name].state, mine[name].ours, mine[name].theirs) == (
                theirs[name].state,
                theirs[name].theirs,
                theirs[name].ours,
            )
        assert not [claim for claim in mine.keys() ^ theirs.keys() if (mine | theirs)[claim].state != "over"]


def known(exchange: Exchange, number: int) -> tuple[str, ...]:
    """The join and who is behind it. That somebody looks for a child is told to nobody who was told nothing before."""
    found, by = status(exchange, number)
    return () if found in ("", "unidentified") else (found, *by)


def attempt(deed: Callable[[], object]) -> None:
    """A deed that may fail as networks and people fail; anything but a GatewayError is a bug."""
    with contextlib.suppress(GatewayError):
        deed()


def answer(exchange: Exchange, source: random.Random) -> None:
    claims = exchange.statuses.claims.all()
    if not claims:
        return
    if source.random() < 0.4:
        exchange.statuses.claims.decline(claims[0].id)
    else:
        exchange.statuses.claims.agree(claims[0].id, "Unit 4")


# Series


def sign(exchange: Exchange, act: tuple[str, Arguments]) -> str:
    desk = approvals(exchange.node)
    number = desk.propose(*act, by=ONE.name)
    return desk.sign(number, ONE).state


def merged(tmp_path: Path, clock: FakeClock) -> tuple[Network, Exchange, Exchange]:
    """Two gateways that each have both series; XA has made one of them."""
    network = mesh(tmp_path, clock, 2)
    xa, xb = network.members.values()
    for exchange in (xa, xb):
        bootstrap_administrator(exchange.node, ONE.name, ONE.signing_key.public)
        more = [EntryDraft({"sha256": sha256(f"more {n}")}, source_ref=f"m-{n}", series="Door, blue") for n in range(4)]
        exchange.ledger.import_entries(own(exchange), more, actor="tester", form="test")
    everybody_follows(network)
    assert sign(xa, xa.statuses.merging.propose("Door, blue", "Blue Door", "the same room")) == "done"
    everybody_syncs(network, 1)
    return network, xa, xb


def test_a_merge_finds_both_names_for_as_long_as_it_stands_and_each_decides_for_itself(
    tmp_path: Path, clock: FakeClock
) -> None:
    network, xa, xb = merged(tmp_path, clock)
    set_status(xa, Wish(VictimStatus.IDENTIFIED), 0, series=("Blue Door",))
    everybody_follows(network)
    assert (sought(xa), sought(xb)) == (0, 4)
    [offered] = xb.statuses.merging.all()
    assert (offered.names, offered.reason, offered.origin, offered.state) == (
        ("Blue Door", "Door, blue"),
        "the same room",
        "XA-NCVI",
        "offered",
    )
    xb.statuses.merging.decline(offered.id)
    assert sought(xb) == 4
    assert sign(xb, xb.statuses.merging.accept(offered.id)) == "done"
    assert sought(xb) == 0
    assert sign(xa, xa.statuses.merging.split(offered.id)) == "done"
    everybody_syncs(network, 1)
    assert (sought(xa), sought(xb)) == (4, 0)  # XB decides for itself here as well
    [parted] = xb.statuses.merging.all()
    assert (parted.state, parted.stands) == ("merged", False)
    assert sign(xb, xb.statuses.merging.split(offered.id)) == "done"
    assert sought(xb) == 4
    assert isinstance(refused(lambda: sign(xb, xb.statuses.merging.accept(offered.id))), ConflictError)


def test_names_stand_in_no_proposal_and_in_no_log_and_go_to_nobody_who_may_not_see_them(
    tmp_path: Path, clock: FakeClock
) -> None:
    network, xa, xb = merged(tmp_path, clock)
    for exchange in (xa, xb):
        with exchange.node.store.reading() as tx:
            clear = b"".join(row.event_bytes or b"" for row in tx.log.leaves()).decode()
            clear += "".join(str(row.model_dump()) for row in (*tx.people.proposals(), *tx.statuses.merges()))
        assert "Door" not in clear
    changes = xa.statuses.merging.split(xa.statuses.merging.all()[0].id)
    number = approvals(xa.node).propose(*changes, by=ONE.name)
    [change] = approvals(xa.node).difference(number)
    assert change.then == '"Blue Door" and "Door, blue"'  # whoever signs is shown both
    set_rules(xa, "XB", agreement("XA", "XB", actions=[one for one in ACTIONS if one != "share_series"]))
    xa.ledger.import_entries(own(xa), drafts(2, first=70, series="R-1"), actor="tester", form="test")
    assert sign(xa, xa.statuses.merging.propose("R-1", "Blue Door", "the same voice")) == "done"
    everybody_follows(network)
    assert len(xb.statuses.merging.all()) == 1
    assert isinstance(refused(lambda: xa.statuses.merging.propose("R-1", "R-1", "x")), MalformedError)
    assert isinstance(refused(lambda: xa.statuses.merging.propose("R-1", "Blue Door", "x")), ConflictError)


def test_nobody_takes_over_anothers_merge(tmp_path: Path, clock: FakeClock) -> None:
    network, xa, xb = merged(tmp_path, clock)
    [one] = xa.statuses.merging.all()
    body = {"merge": one.id, "version": 9, "names": ["A", "B"], "reason": "x", "merged": False}
    xb.mailbox.write("XA-NCVI", "series_merge", body)
    everybody_follows(network)
    assert (xa.statuses.merging.all()[0].state, xa.statuses.merging.all()[0].stands) == ("merged", True)
    assert len(events(xa.node, EventKind.MESSAGE_REFUSED)) == 1
