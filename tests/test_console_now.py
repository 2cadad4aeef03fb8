"""The first screen: partners as they stand, alarms with what to do, what waits for whom, and volume by day."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from console_browser import browser, console_node, personal, serving_console
from factory import FakeClock, befriend, drafts, events, loopback, make_node, make_set
from gateway.alarms import ENDED_BY_DEED, SWEPT, AlarmKind, raise_alarm
from gateway.audit import EventKind
from gateway.caserecord import Urgency
from gateway.console.now import PLACES
from gateway.console.rendering import NAVIGATION
from gateway.exchange import Exchange
from gateway.keyadmin import approvals, pause, remove_administrator
from gateway.keylife import DAY_SECONDS
from gateway.logsearch import KEPT_DAYS, LogSearch
from gateway.node import Node
from gateway.opinions import Verdict, Word
from gateway.signin import Role
from gateway.store.tables import ClaimRow, StatusLine, Withdrawal, WithdrawalHolder
from test_console import Served
from test_console_cases import RECORD, SECRET


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return console_node(tmp_path, administrators=("alice", "bob"), clock=FakeClock())


@pytest.fixture
def served(tmp_path: Path, node: Node) -> Iterator[Served]:
    assert isinstance(node.clock, FakeClock)
    others = [make_node(tmp_path, name, clock=node.clock, **loopback()) for name in ("XB-NCVI", "XB-POL", "XC-NCVI")]
    for one in others:
        befriend(node, one)
    exchange = Exchange(node)
    with serving_console(exchange) as address:
        yield Served(exchange, address)


def ran(node: Node, partner: str, *, ago: int = 0, lag: int = 0, error: str = "") -> None:
    """The schedule's last run with a partner: it succeeded so long ago, or it failed."""
    now = node.clock()
    with node.store.transaction() as tx:
        tx.schedule.put(partner, partner, 300, now)
        fence = tx.schedule.claim(partner, "here", now, 600, only_due=False)
        assert fence is not None
        if error:
            assert tx.schedule.fail(partner, fence, now + 60, error)
        else:
            assert tx.schedule.succeed(partner, fence, now - ago, now + 300, lag)


def sent(node: Node, changes: int, kind: EventKind = EventKind.PAGE_SENT) -> None:
    who = "sender" if kind is EventKind.PAGE_APPLIED else "partner"
    details: dict[str, object] = {who: "XB-NCVI", "set": "XA-NCVI/open", "changes": changes}
    with node.store.transaction() as tx:
        tx.log.append([node.event(kind, actor=node.agency, subject="XB-NCVI", details=details)])


def alarm(node: Node, kind: AlarmKind, subject: str) -> int:
    with node.store.transaction() as tx:
        number = raise_alarm(tx, node, kind, subject, "one sentence")
    assert number is not None
    return number


def page(served: Served, name: str) -> str:
    """What somebody reads on the first screen."""
    text = served.as_(name).ask("GET", "/").text
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", text))


def test_partners_stand_by_jurisdiction_with_what_is_worst_first(served: Served) -> None:
    ran(served.node, "XB-NCVI", ago=200, lag=7)
    ran(served.node, "XB-POL", error="the partner cannot be reached")
    ran(served.node, "XC-NCVI", ago=5_000)
    text = page(served, "otto")
    assert "1 failing, 1 late, 1 good" in text
    assert text.index("XB-POL failing") < text.index("XB-NCVI good") < text.index("XC-NCVI late")
    assert "3 minutes ago lag 7 changes" in text
    assert "last error the partner cannot be reached" in text
    raw = served.as_("otto").ask("GET", "/").text
    assert re.findall(r'land land-(\w+)"><h3>(\w+)', raw) == [("critical", "XB"), ("warning", "XC")]
    pause(served.node, "XC-NCVI", by="alice")
    assert "XC-NCVI paused" in page(served, "otto")


def test_an_alarm_says_what_to_do_and_who_closes_it(served: Served) -> None:
    by_hand = alarm(served.node, AlarmKind.CLOCK_SKEW, "XB-NCVI")
    alarm(served.node, AlarmKind.FEED_STALE, "XB-NCVI/known")
    fork = alarm(served.node, AlarmKind.LOG_FORK, "XC-NCVI")
    text = page(served, "alice")
    assert "3 alarms" in text
    assert "What to do: set the clocks of both machines: NTP" in text
    assert "It closes by itself when its cause is gone" in text
    assert text.count("close it") == 1
    assert "close it" not in page(served, "otto")
    assert served.as_("alice").ask("POST", "/alarms/close", alarm=str(fork)).status == 409
    assert served.as_("alice").ask("POST", "/alarms/close", alarm="999").status == 404
    assert served.as_("alice").ask("POST", "/alarms/close", alarm="one").status == 400
    assert served.as_("otto").ask("POST", "/alarms/close", alarm=str(by_hand)).status == 404
    assert served.as_("alice").ask("POST", "/alarms/close", alarm=str(by_hand)).status == 303
    assert "2 alarms" in page(served, "alice")
    closed = events(served.node, EventKind.ALARM_CLOSED)
    assert [(one.actor, one.details["alarm"]) for one in closed] == [("alice", by_hand)]


def test_closing_an_alarm_wants_the_passkey_once_more(served: Served) -> None:
    number = alarm(served.node, AlarmKind.CLOCK_SKEW, "XB-NCVI")
    alice = served.as_("alice")
    served.node.clock.advance(301)  # type: ignore[attr-defined]
    assert alice.ask("POST", "/alarms/close", alarm=str(number)).status == 403
    assert not events(served.node, EventKind.ALARM_CLOSED)


def test_every_alarm_leads_somewhere_that_exists() -> None:
    assert set(PLACES.values()) <= {address for _, address, _, _ in NAVIGATION}
    assert not SWEPT & ENDED_BY_DEED


def test_what_waits_is_counted_by_role_and_no_text_of_a_case_is_shown(served: Served) -> None:
    calm = replace(RECORD, reference="XA-2026-0043", urgency=Urgency.ROUTINE, category="")
    served.exchange.cases.take_in([replace(RECORD, category=""), calm], form="case_json")
    alarm(served.node, AlarmKind.CASE_REVIEW_DUE, "0123456789abcdef" * 2)
    alarm(served.node, AlarmKind.CLOCK_SKEW, "XB-NCVI")
    approvals(served.node).propose(*remove_administrator("bob", "moved"), by="alice")
    analyst, administrator, auditor = (page(served, name) for name in ("dora", "alice", "otto"))
    assert "urgent 1 case in the inbox, a child at risk" in analyst
    assert "1 other case in the inbox" in analyst
    assert "1 alarm " in analyst
    assert "clock" not in analyst
    assert f'href="/cases/{"0123456789abcdef" * 2}"' in served.as_("dora").ask("GET", "/").text
    assert 'href="/cases' not in served.as_("alice").ask("GET", "/").text
    assert "proposal" not in analyst
    assert "in the inbox" not in administrator + auditor
    assert "1 proposal waits for your signature" in administrator
    assert "proposal waits" not in auditor
    for text in (analyst, administrator, auditor):
        assert SECRET not in text
        assert "found by a hotline" not in text
        assert "XA-2026" not in text


def test_what_partners_say_and_nobody_has_answered_is_counted_for_analysts(served: Served) -> None:
    now, own = served.node.clock(), make_set(served.exchange, "known", drafts(3))
    with served.node.store.transaction() as tx:
        set_id = tx.sets.get(own).id or 0
        for entry, ours in ((1, ()), (2, (Verdict.CONFIRM,)), (3, ())):
            said = [("XB-NCVI", Verdict.DISPUTE if entry < 3 else Verdict.CONFIRM), *(("XA-NCVI", one) for one in ours)]
            words = [
                Word(who, entry, now, one, "lawful" if one is Verdict.DISPUTE else "seen", 1, now) for who, one in said
            ]
            tx.opinions.join(set_id, words)
        for agency, seen in (("XB-NCVI", 0), ("XC-NCVI", 0), ("XC-NCVI", now), ("XA-NCVI", 0)):
            number = hashlib.sha256(f"{agency} {seen}".encode()).hexdigest()[:32]
            row = {"agency": agency, "number": number, "version": 1, "status": "lead", "at": now, "sealed": b""}
            tx.statuses.put(StatusLine(**row, received=now, seen=seen))
        for number, word in ((1, "open"), (2, "agree")):
            tx.statuses.put_claim(ClaimRow(id=f"{number:032x}", partner="XB-NCVI", word=word))
        for number, due, state in ((1, now - 1, "outstanding"), (2, now + 1, "outstanding"), (3, now - 1, "applied")):
            row = {"id": f"{number:032x}", "kind": "withdrawal", "set_name": own, "origin": "XA-NCVI", "epoch": 1}
            counts = {"from_seq": 1, "until_seq": 2, "entries": 1, "reason": "made up", "created": now, "due": due}
            tx.withdrawals.add(Withdrawal(**row, **counts))
            holder = {"withdrawal": row["id"], "holder": "XB-NCVI", "via": "", "entries": 1, "state": state}
            tx.withdrawals.put_holder(WithdrawalHolder(**holder))
    analyst, administrator, auditor = (page(served, name) for name in ("dora", "alice", "otto"))
    assert "1 entry of ours is disputed, and we have said nothing" in analyst
    assert "2 statuses that nobody has read" in analyst
    assert "1 lead that a partner holds too waits for an answer" in analyst
    for text in (analyst, administrator):
        assert "urgent 1 withdrawal is past its deadline" in text
    assert "withdrawal" not in auditor
    for words in ("disputed", "nobody has read", "waits for an answer"):
        assert words not in administrator + auditor


def test_a_proposal_that_somebody_signed_waits_for_others(served: Served) -> None:
    desk = approvals(served.node)
    identifier = desk.propose(*remove_administrator("bob", "moved"), by="alice")
    desk.sign(identifier, personal("alice"))
    assert "1 proposal that you signed waits for another signature" in page(served, "alice")


def test_refused_messages_of_the_last_week_are_counted(served: Served) -> None:
    def refused() -> None:
        event = served.node.event(EventKind.MESSAGE_REFUSED, actor="XB-NCVI", subject="XB-NCVI", details={})
        with served.node.store.transaction() as tx:
            tx.log.append([event])

    refused()
    served.node.clock.advance(9 * DAY_SECONDS)  # type: ignore[attr-defined]
    assert "refused in the last" not in page(served, "otto")
    refused()
    refused()
    assert "2 messages of partners were refused in the last 7 days" in page(served, "otto")
    assert "refused in the last" not in page(served, "dora")


def test_volume_by_day_is_what_the_events_add_up_to_and_stays_small(node: Node) -> None:
    clock, search = node.clock, LogSearch(node)
    assert isinstance(clock, FakeClock)
    for number in range(KEPT_DAYS + 30):
        sent(node, number)
        search.catch_up()  # in several steps, each counted once
        sent(node, 1)
        sent(node, 2, EventKind.PAGE_APPLIED)
        search.catch_up()
        clock.advance(DAY_SECONDS)
    days = search.days(30)
    assert len(days) == 30
    assert days[-1][1] == {}  # today: nothing yet
    last = KEPT_DAYS + 29
    assert [one for _, one in days[:-1]] == [{"sent": last - ago + 1, "received": 2} for ago in reversed(range(29))]
    assert [one for one, _ in days] == sorted({one for one, _ in days})
    with node.store.reading() as tx:
        assert len({one for one, _, _ in tx.facets.days("")}) <= KEPT_DAYS + 1


def test_volume_is_shown_and_stands_in_a_table_too(served: Served) -> None:
    assert "Nothing was sent or received in these days" in page(served, "dora")
    sent(served.node, 12_000)
    sent(served.node, 40, EventKind.PAGE_APPLIED)
    text = page(served, "dora")
    assert "12,000 changes of entries sent (above the line), 40 received (below it)" in text
    assert "Day Sent Received" in text
    assert 'height="60"' in served.as_("dora").ask("GET", "/").text


@pytest.mark.slow
def test_the_first_screen_lives_and_an_alarm_is_closed_in_the_browser(tmp_path: Path, node: Node) -> None:
    assert isinstance(node.clock, FakeClock)
    befriend(node, make_node(tmp_path, "XB-NCVI", clock=node.clock, **loopback()))
    ran(node, "XB-NCVI", ago=100)
    sent(node, 70)
    exchange = Exchange(node)
    with serving_console(exchange), browser() as first:
        first.sign_up(exchange, "alice", Role.ADMINISTRATOR)
        # By a script: the part renews itself once as soon as it is there, and an element may be another one by then.
        first.wait(
            lambda driver: driver.execute_script("document.querySelector('#volume-table summary').click(); return 1")
        )
        alarm(node, AlarmKind.CLOCK_SKEW, "XB-NCVI")
        first.wait(lambda _: "set the clocks" in first.text)  # it came by itself
        assert first.driver.execute_script("return document.getElementById('volume-table').open")
        assert first.violations() == []
        first.click("It is dealt with: close it")
        first.wait(lambda _: "Closed, on record." in first.text)
        assert "set the clocks" not in first.text
        assert first.complaints() == []
