"""Withdrawals and recalls: who is told, has answered, is late; also over five gateways with one away for weeks."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from chain import agreement, chain, set_rules, sync_down, sync_up
from factory import FakeClock, SeededRandom, card_of, drafts, events, make_set
from gateway import alarms
from gateway.alarms import AlarmKind
from gateway.audit import EventKind
from gateway.crypto import envelope
from gateway.crypto.keys import SigningKey
from gateway.errors import ConflictError, DeniedError, MalformedError, NotFoundError
from gateway.exchange import Exchange
from gateway.exchange.holding import lift_hold, set_hold
from gateway.exchange.lookup import format_entry
from gateway.exchange.withdrawals import HolderStatus
from gateway.interchange import MAIL_TYPE, MailMessage, dump_mail, parse_mail
from gateway.keyadmin import approvals, bootstrap_administrator
from gateway.keylife import DAY_SECONDS
from gateway.keystore import PersonalKey
from partner_simulator import Network, Rogue, held_entries, refused

SET = "XA-NCVI/identified"
EVERYWHERE = ("XA", "XB", "XC", "XD", "XE")
Lines = list[tuple[str, str, str]]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def row_of(tmp_path: Path, clock: FakeClock, length: int) -> Network:
    """So many gateways in a row, each with the first one's twelve entries."""
    network = chain(tmp_path, clock, length)
    make_set(member(network, "A"), "identified", drafts(12), onward=EVERYWHERE)
    sync_down(network)
    assert len(held_entries(network.members[list(network.members)[-1]], SET)) == 12
    return network


def member(network: Network, letter: str) -> Exchange:
    return network.members[f"X{letter}-NCVI"]


def withdraw(network: Network, count: int = 2, **told: object) -> list[int]:
    """The first entries that XA still lists are withdrawn."""
    xa = member(network, "A")
    chosen = sorted(held_entries(xa, SET))[:count]
    words = {"actor": "tester", "reason": "another child", "reference": "XA-2026-77", **told}
    xa.ledger.withdraw(SET, chosen, **words)  # type: ignore[arg-type]
    return chosen


def lines(exchange: Exchange, number: str = "") -> Lines:
    """The status list: holder, through whom, what it says."""
    found: list[HolderStatus] = exchange.withdrawals.status(number)
    return [(one.holder[:2], " ".join(one.via), "overdue" if one.overdue else one.state) for one in found]


def only_id(exchange: Exchange) -> str:
    with exchange.node.store.reading() as tx:
        [row] = tx.withdrawals.all()
    return row.id


def rounds(network: Network, count: int = 2) -> None:
    for _ in range(count):
        sync_down(network)
        sync_up(network)


# Two gateways


def test_a_holder_is_told_and_answers_when_its_mirror_has_followed(tmp_path: Path, clock: FakeClock) -> None:
    network = row_of(tmp_path, clock, 2)
    xa, xb = member(network, "A"), member(network, "B")
    gone = withdraw(network)
    assert lines(xa) == [("XB", "", "outstanding")]
    asyncio.run(network.sync("XB-NCVI", "XA-NCVI").sync())
    assert lines(xa) == [("XB", "", "applied")]
    assert not set(gone) & set(held_entries(xb, SET))
    [status] = xa.withdrawals.status()
    assert (status.entries, status.due, status.kind) == (2, clock() + 14 * DAY_SECONDS, "withdrawal")
    with xb.node.store.reading() as tx:
        [heard] = tx.withdrawals.all()
    assert (heard.reason, heard.reference, heard.origin, heard.removed) == ("another child", "XA-2026-77", "XA-NCVI", 2)


def test_who_never_held_an_entry_is_not_told_of_it(tmp_path: Path, clock: FakeClock) -> None:
    network = chain(tmp_path, clock, 2)
    xa = member(network, "A")
    make_set(xa, "identified", drafts(12))
    withdraw(network)
    assert lines(xa) == []  # nobody had asked for the set
    sync_down(network)
    xa.ledger.import_entries(SET, drafts(3, first=50), actor="tester", form="test")
    newest = sorted(held_entries(xa, SET))[-2:]
    xa.ledger.withdraw(SET, newest, actor="tester", reason="another child")
    assert lines(xa) == []  # these came after what XB has asked for
    with xa.node.store.reading() as tx:
        assert tx.mail.sent_mail() == []


def test_a_page_that_is_on_its_way_counts_as_held(tmp_path: Path, clock: FakeClock) -> None:
    network = chain(tmp_path, clock, 2)
    xa = member(network, "A")
    make_set(xa, "identified", drafts(12))
    head = xa.head_for("XB-NCVI", SET)
    member(network, "B").take_head("XA-NCVI", head.body)
    page = xa.page_for("XB-NCVI", SET, member(network, "B").mirrors.cursor(SET))
    assert page is not None
    withdraw(network)
    assert lines(xa) == [("XB", "", "outstanding")]
    rounds(network, 1)
    assert lines(xa) == [("XB", "", "applied")]


def test_a_page_that_comes_before_the_notice_is_answered_too(tmp_path: Path, clock: FakeClock) -> None:
    network = row_of(tmp_path, clock, 3)
    withdraw(network)
    asyncio.run(network.sync("XA-NCVI", "XB-NCVI").push(SET))  # the page alone, no mail
    asyncio.run(network.sync("XC-NCVI", "XB-NCVI").pull())
    assert lines(member(network, "A")) == [("XB", "", "outstanding")]
    rounds(network)
    assert lines(member(network, "A")) == [("XB", "", "applied"), ("XC", "XB-NCVI", "applied")]


def test_the_signed_answer_is_kept_and_proves_who_gave_it(tmp_path: Path, clock: FakeClock) -> None:
    network = row_of(tmp_path, clock, 2)
    xa, xb = member(network, "A"), member(network, "B")
    withdraw(network)
    rounds(network, 1)
    with xa.node.store.reading() as tx:
        [holder] = tx.withdrawals.holders(only_id(xa))
        kept = xa.mailbox.evidence(tx, "XB-NCVI", holder.mail)
    assert kept is not None
    signed, payload = kept
    manifest = envelope.verify_kept(signed, payload, [xb.node.keystore.signing_key.public])
    assert manifest.sender == "XB-NCVI"
    said = {one.number: one.body for one in parse_mail(payload)}[holder.mail]
    assert (said["withdrawal"], said["outcome"], said["holder"]) == (only_id(xa), "applied", "XB-NCVI")


def test_an_unfit_reason_deadline_or_reference_changes_nothing(tmp_path: Path, clock: FakeClock) -> None:
    network = row_of(tmp_path, clock, 2)
    for told in ({"reason": ""}, {"reason": "two\nlines"}, {"reference": "x" * 300}, {"within_days": 4_000}):
        assert isinstance(refused(lambda told=told: withdraw(network, **told)), MalformedError)  # type: ignore[misc]
    assert len(held_entries(member(network, "A"), SET)) == 12
    assert lines(member(network, "A")) == []


# Recall


def test_a_recall_is_told_and_answered_like_a_withdrawal(tmp_path: Path, clock: FakeClock) -> None:
    network = row_of(tmp_path, clock, 3)
    xa, xb = member(network, "A"), member(network, "B")
    clock.advance(60)
    set_rules(xa, "XB", agreement("XA", "XB", actions=("receive",)))
    rounds(network)
    assert [held_entries(member(network, letter), SET) for letter in "BC"] == [{}, {}]
    assert lines(xa) == [("XB", "", "applied"), ("XC", "XB-NCVI", "applied")]
    assert {one.kind for one in xa.withdrawals.status()} == {"recall"}
    with xb.node.store.reading() as tx:
        assert {row.removed for row in tx.withdrawals.all()} == {12}


def test_a_recall_in_the_middle_is_the_middles_own(tmp_path: Path, clock: FakeClock) -> None:
    network = row_of(tmp_path, clock, 3)
    clock.advance(60)
    set_rules(member(network, "B"), "XC", agreement("XB", "XC", actions=("receive",)))
    rounds(network)
    assert lines(member(network, "A")) == []
    assert lines(member(network, "B")) == [("XC", "", "applied")]


# Five gateways


def test_the_status_list_is_right_on_each_of_forty_days_and_empty_at_the_end(tmp_path: Path, clock: FakeClock) -> None:
    network = row_of(tmp_path, clock, 5)
    schedules = {name: network.schedule(name) for name in network.members}
    xa = member(network, "A")
    gone = set(withdraw(network, within_days=14))
    network.offline.add("XC-NCVI")
    for day in range(1, 41):
        pass_a_day(network, clock, schedules)
        late = "overdue" if day > 14 else "outstanding"
        assert lines(xa) == [("XB", "", "applied"), ("XC", "XB-NCVI", late)], day
        assert overdue_alarms(xa) == (1 if day > 14 else 0), day
    network.offline.clear()
    seen: list[Lines] = []
    for _ in range(6):
        pass_a_day(network, clock, schedules)
        seen.append(lines(xa))
        for holder, _, state in seen[-1]:  # nobody is listed as done that still holds any
            holds = gone & set(held_entries(network.members[f"{holder}-NCVI"], SET))
            assert (state == "applied") <= (not holds)
        assert overdue_alarms(xa) == (1 if any(state == "overdue" for _, _, state in seen[-1]) else 0)
    ways = [("XB", ""), ("XC", "XB-NCVI"), ("XD", "XB-NCVI XC-NCVI"), ("XE", "XB-NCVI XC-NCVI XD-NCVI")]
    assert seen[-1] == [(holder, way, "applied") for holder, way in ways]
    assert overdue_alarms(xa) == 0
    assert all(not gone & set(held_entries(exchange, SET)) for exchange in network.members.values())


def pass_a_day(network: Network, clock: FakeClock, schedules: dict[str, object]) -> None:
    clock.advance(DAY_SECONDS)
    for name, schedule in schedules.items():
        if name not in network.offline:
            asyncio.run(schedule.tick())  # type: ignore[attr-defined]
            alarms.sweep(network.members[name].node)
    alarms.sweep(member(network, "A").node)


def overdue_alarms(exchange: Exchange) -> int:
    with exchange.node.store.reading() as tx:
        return sum(row.kind == AlarmKind.WITHDRAWAL_OVERDUE for row in tx.alarms.all())


def test_one_who_refuses_is_listed_with_the_reason(tmp_path: Path, clock: FakeClock) -> None:
    network = row_of(tmp_path, clock, 5)
    withdraw(network)
    rounds(network, 3)
    xa, xd = member(network, "A"), member(network, "D")
    number, because = only_id(xd), "a copy is part of court file XD 4/26"
    xd.withdrawals.refuse(number[:8], because)
    assert isinstance(refused(lambda: xd.withdrawals.refuse(number, because)), ConflictError)
    rounds(network, 3)
    assert [state for _, _, state in lines(xa)] == ["applied", "applied", "refused", "applied"]
    [kept] = [one for one in xa.withdrawals.status() if one.state == "refused"]
    assert (kept.holder, kept.because) == ("XD-NCVI", because)
    assert isinstance(refused(lambda: xa.withdrawals.refuse(number, "no")), DeniedError)
    assert isinstance(refused(lambda: xa.withdrawals.status("ffff")), NotFoundError)


ONE, TWO = (PersonalKey(name, SigningKey.generate(SeededRandom(name))) for name in ("one", "two"))


def signed(exchange: Exchange, act: tuple[str, object]) -> str:
    desk = approvals(exchange.node)
    exchange.node.clock.advance(1)  # type: ignore[attr-defined]
    identifier = desk.propose(*act, by="one")  # type: ignore[arg-type]
    for key in (ONE, TWO):
        desk.sign(identifier, key)
    return identifier[:16]


def test_a_legal_hold_refuses_until_it_is_lifted(tmp_path: Path, clock: FakeClock) -> None:
    network = chain(tmp_path, clock, 3, quorum=2)
    xa, xb = member(network, "A"), member(network, "B")
    make_set(xa, "identified", drafts(12), onward=EVERYWHERE)
    sync_down(network)
    for key in (ONE, TWO):
        bootstrap_administrator(xb.node, key.name, key.signing_key.public)
    first, *_, last = sorted(held_entries(xa, SET))
    until = xb.node.today + timedelta(days=90)
    held = signed(xb, set_hold(SET, "XB court 12/26", "evidence", until, entries=[format_entry(first)]))
    xa.ledger.withdraw(SET, [last], actor="tester", reason="another child")
    rounds(network)
    assert lines(xa) == [("XB", "", "applied"), ("XC", "XB-NCVI", "applied")]  # of another entry than the one on hold
    clock.advance(60)
    xa.ledger.withdraw(SET, [first], actor="tester", reason="another child")
    rounds(network)
    kept = [one for one in xa.withdrawals.status() if one.state == "refused"]
    assert [(one.holder, one.because) for one in kept] == [("XB-NCVI", "sealed copies are kept under a legal hold")]
    assert first not in held_entries(xb, SET)
    xb.withdrawals.keep_house()
    rounds(network)
    assert any(one.state == "refused" for one in xa.withdrawals.status())
    signed(xb, lift_hold(held, "the trial is over"))
    xb.withdrawals.keep_house()
    rounds(network)
    assert {state for _, _, state in lines(xa)} == {"applied"}


def test_holders_are_reminded_at_half_time_and_at_the_deadline_and_never_more(tmp_path: Path, clock: FakeClock) -> None:
    network = row_of(tmp_path, clock, 2)
    xa = member(network, "A")
    withdraw(network, within_days=10)
    told = []
    for _ in range(14):
        clock.advance(DAY_SECONDS)
        told.append(xa.withdrawals.keep_house())
    assert told == [0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0]
    rounds(network, 1)
    assert lines(xa) == [("XB", "", "applied")]
    clock.advance(DAY_SECONDS)
    assert xa.withdrawals.keep_house() == 0


# Answers that prove nothing


def letter(exchange: Exchange, target: Exchange, **changed: object) -> MailMessage:
    """The next message of a gateway in other hands, with an answer in it."""
    with target.node.store.reading() as tx:
        number = tx.mail.last_in(exchange.node.agency) + 1
    body: dict[str, object] = {
        "withdrawal": only_id(target),
        "holder": exchange.node.agency,
        "via": [],
        "outcome": "applied",
        "because": "",
        "entries": 2,
        "onward": [],
        **changed,
    }
    return MailMessage(number, f"{number:032x}", "withdrawal_answer", target.node.clock(), body)


def tell(exchange: Exchange, target: Exchange, clock: FakeClock, said: MailMessage) -> None:
    rogue = Rogue(exchange, card_of(target.node), clock)
    target.take_mail(exchange.node.agency, rogue.envelope(dump_mail([said]), MAIL_TYPE))


def test_an_answer_given_again_changes_nothing(tmp_path: Path, clock: FakeClock) -> None:
    network = row_of(tmp_path, clock, 2)
    xa, xb = member(network, "A"), member(network, "B")
    withdraw(network)
    rounds(network, 1)
    before = xa.withdrawals.status()
    clock.advance(60)
    for _ in range(3):
        tell(xb, xa, clock, letter(xb, xa))
    assert xa.withdrawals.status() == before
    assert len(events(xa.node, EventKind.WITHDRAWAL_ANSWERED)) == 1


UNPROVED: dict[str, dict[str, object]] = {
    "for somebody whom nobody named": {"holder": "XC-NCVI"},
    "for somebody named through another": {"holder": "XC-NCVI", "via": ["XD-NCVI"]},
    "of a withdrawal that is none": {"withdrawal": "0" * 32},
    "neither one nor the other": {"outcome": "perhaps"},
    "a refusal without a reason": {"outcome": "refused"},
    "done, with a reason why not": {"because": "court file"},
    "a holder that is no agency": {"holder": "everybody"},
    "holders without end": {"onward": [f"XC-A{number}" for number in range(2_000)]},
}


@pytest.mark.parametrize("changed", list(UNPROVED.values()), ids=list(UNPROVED))
def test_an_answer_that_cannot_be_is_on_record_and_changes_nothing(
    tmp_path: Path, clock: FakeClock, changed: dict[str, object]
) -> None:
    network = row_of(tmp_path, clock, 2)
    xa, xb = member(network, "A"), member(network, "B")
    withdraw(network)
    before = xa.withdrawals.status()
    tell(xb, xa, clock, letter(xb, xa, **changed))
    assert xa.withdrawals.status() == before
    [event] = events(xa.node, EventKind.MESSAGE_REFUSED)
    assert event.details["sender"] == "XB-NCVI"


def test_who_holds_nothing_answers_for_nobody(tmp_path: Path, clock: FakeClock) -> None:
    network = chain(tmp_path, clock, 3)
    xb = member(network, "B")
    make_set(xb, "found", drafts(6))
    asyncio.run(network.sync("XA-NCVI", "XB-NCVI").pull())
    first = min(held_entries(xb, "XB-NCVI/found"))
    xb.ledger.withdraw("XB-NCVI/found", [first], actor="tester", reason="another child")
    before = lines(xb)
    assert before == [("XA", "", "outstanding")]
    xc = member(network, "C")
    tell(xc, xb, clock, letter(xc, xb, holder="XA-NCVI"))
    tell(xc, xb, clock, letter(xc, xb))
    assert lines(xb) == before
    assert len(events(xb.node, EventKind.MESSAGE_REFUSED)) == 2


def test_a_notice_of_a_set_that_does_not_come_from_there_takes_nothing_away(tmp_path: Path, clock: FakeClock) -> None:
    network = row_of(tmp_path, clock, 3)
    xb, xc = member(network, "B"), member(network, "C")
    body: dict[str, object] = {
        "withdrawal": "ab" * 16,
        "kind": "withdrawal",
        "origin": "XA-NCVI",
        "set": SET,
        "epoch": 1,
        "from_seq": 1,
        "until_seq": 12,
        "view": "",
        "entries": 12,
        "reason": "all of it is wrong",
        "reference": "",
        "at": clock(),
        "due": clock() + DAY_SECONDS,
        "reminder": 0,
    }
    with xb.node.store.reading() as tx:
        number = tx.mail.last_in("XC-NCVI") + 1
    said = MailMessage(number, f"{number:032x}", "withdrawal_notice", clock(), body)
    tell(xc, xb, clock, said)
    assert len(held_entries(xb, SET)) == 12
    with xb.node.store.reading() as tx:
        assert tx.withdrawals.all() == []


def test_every_log_tells_of_what_was_taken_back(tmp_path: Path, clock: FakeClock) -> None:
    network = row_of(tmp_path, clock, 3)
    withdraw(network)
    rounds(network)
    [begun] = events(member(network, "A").node, EventKind.WITHDRAWAL_BEGUN)
    assert begun.details["holders"] == 1
    assert begun.details["order_ref"] == "XA-2026-77"
    answered = events(member(network, "A").node, EventKind.WITHDRAWAL_ANSWERED)
    assert [(one.details["holder"], one.details["via"]) for one in answered] == [
        ("XB-NCVI", []),
        ("XC-NCVI", ["XB-NCVI"]),
    ]
