"""Referring cases between whole gateways: what goes and what stays, who may say what, and what is left of it after."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from case_builders import CLUE, DESCRIPTION, REFERENCE, SECRETS, case_record
from factory import (
    FakeClock,
    SeededRandom,
    befriend,
    card_of,
    enrol,
    events,
    link_to,
    loopback,
    make_node,
    serving,
)
from gateway import alarms
from gateway.alarms import AlarmKind
from gateway.audit import EventKind
from gateway.caserecord import Place, Urgency
from gateway.cases import CaseState
from gateway.cases.threads import (
    ANSWER,
    MESSAGE,
    OVER,
    RECALL,
    REFERRAL,
    Answer,
    Answered,
    Recall,
    Referral,
    Said,
    Saying,
    ThreadState,
)
from gateway.cli.mail import _message_value
from gateway.crypto.keys import SigningKey
from gateway.errors import (
    ConflictError,
    DeniedError,
    MalformedError,
    NotFoundError,
    PartnerError,
    TooLargeError,
    VerificationError,
)
from gateway.exchange import Exchange
from gateway.exchange.decisions import Judge
from gateway.interchange import MAIL_TYPE, MailMessage, dump_mail
from gateway.keyadmin import approvals, bootstrap_administrator
from gateway.keystore import PersonalKey
from gateway.model import FieldGroup, HandlingCode, Purpose, Restriction
from gateway.partners import record_policy
from gateway.store.tables import CaseRow, CaseThread
from gateway.sync import PartnerSync
from gateway.vidx import dump_case, redact
from partner_simulator import Faults, Network, Rogue

ONE, TWO = (PersonalKey(name, SigningKey.generate(SeededRandom(name))) for name in ("one", "two"))
XA, XB, XC, XD = "XA-NCVI", "XB-NCVI", "XC-NCVI", "XD-NCVI"
DAY = 86_400
EVERY_GROUP = " ".join(sorted(FieldGroup))


@dataclass
class Table:
    """Some gateways around one table."""

    network: Network
    clock: FakeClock

    def __getitem__(self, agency: str) -> Exchange:
        return self.network.members[agency]

    def settle(self, *agencies: str) -> None:
        """Everybody's mail goes to everybody, until nothing waits."""
        names = agencies or tuple(self.network.members)
        for _ in range(3):
            for one in names:
                for other in names:
                    if one != other:
                        asyncio.run(self.network.sync(one, other).exchange_mail())

    def refer(self, here: str = XA, there: str = XB, **changes: Any) -> tuple[str, str]:
        """A new case of `here` goes to `there`: its id at both ends."""
        return self.refer_record(here, there, case_record(here, **changes))

    def refer_record(self, here: str, there: str, record: Any) -> tuple[str, str]:
        [taken] = self[here].cases.take_in([record], form="vidx")
        self[here].referrals.refer(taken.case, there)
        self.settle(here, there)
        [row] = [one for one in self[there].cases.all() if one.source == here and one.state in ("inbox", "open")]
        return taken.case, row.id

    def rogue(self, agency: str, victim: str = XA) -> Rogue:
        """An agency's keys in other hands, writing to `victim`."""
        return Rogue(self[agency], card_of(self[victim].node), self.clock)

    def smuggle(self, agency: str, victim: str, *bodies: tuple[str, dict[str, object]]) -> None:
        """Messages that an honest gateway would not send, each as the next of its mailbox."""
        for kind, body in bodies:
            number = self[victim].mailbox.last_received(agency) + 1
            one = MailMessage(number, f"{number:032x}", kind, self.clock(), body)
            envelope = self.rogue(agency, victim).envelope(dump_mail([one]), MAIL_TYPE)
            self[victim].accept(agency, BytesIO(envelope))


@pytest.fixture
def table(tmp_path: Path) -> Iterator[Table]:
    clock = FakeClock()
    nodes = [make_node(tmp_path, agency, clock=clock, case_duty_contact=f"{agency} duty") for agency in (XA, XB, XC)]
    befriend(*nodes)
    network = Network()
    for node in nodes:
        network.join(node)
    yield Table(network, clock)
    for node in nodes:
        node.store.close()


def thread_of(exchange: Exchange, case: str) -> CaseThread:
    [thread] = exchange.talk.threads(case)
    return thread


def row_of(exchange: Exchange, case: str) -> CaseRow:
    with exchange.node.store.reading() as tx:
        return tx.cases.beginning(case)


# The way of a referral


def test_a_case_goes_and_is_accepted_and_both_ends_say_so(table: Table) -> None:
    sent, came = table.refer()
    assert row_of(table[XB], came).state == CaseState.INBOX
    assert [row.id for row in table[XB].cases.inbox()] == [came]
    held = table[XB].cases.get(came)
    assert (held.record, held.row.groups) == (case_record(), EVERY_GROUP)
    assert thread_of(table[XA], sent).state == ThreadState.RECEIVED
    table[XB].talk.read(came)
    table[XB].talk.read(came)
    table.settle()
    assert thread_of(table[XA], sent).state == ThreadState.READ
    assert table[XB].talk.accept(came).state == CaseState.OPEN
    table.settle()
    here, there = thread_of(table[XA], sent), thread_of(table[XB], came)
    assert (here.state, there.state, here.digest) == (ThreadState.ACCEPTED, ThreadState.ACCEPTED, there.digest)
    table[XB].talk.say(came, "is the door blue on both sides?", Saying.ASK)
    table.settle()
    table[XA].talk.say(sent, "on the inside only")
    table.settle()
    for exchange, case in ((table[XA], sent), (table[XB], came)):
        said = [(one.word, one.text) for one in exchange.talk.lines(case) if one.kind == MESSAGE]
        assert said == [("ask", "is the door blue on both sides?"), ("say", "on the inside only")]
        # Whom to call is shown on both ends.
        assert {one.contact for one in exchange.talk.lines(case)} == {f"{XA} duty", f"{XB} duty"}
        assert all(one.delivered for one in exchange.talk.lines(case))


def test_nothing_of_a_case_is_readable_outside_its_report_at_either_end(table: Table) -> None:
    sent, came = table.refer()
    table[XB].talk.accept(came)
    table.settle()
    for exchange in (table[XA], table[XB]):
        told = [repr(one) for kind in EventKind for one in events(exchange.node, kind)]
        assert not any(secret in one for one in told for secret in SECRETS)
        if exchange.node.settings.database_url.startswith("sqlite"):
            raw = (exchange.node.settings.folder / "gateway.db").read_bytes()
            assert not any(secret.encode() in raw for secret in SECRETS)
    assert row_of(table[XA], sent).id != came  # a local id is nobody else's


def test_a_preview_says_what_goes_what_stays_and_by_which_law_and_it_is_what_goes(table: Table) -> None:
    [taken] = table[XB].cases.take_in([case_record(XB)], form="vidx")
    shown = table[XB].referrals.preview(taken.case, XA)
    stays = {one.group: one for one in shown.groups if not one.goes}
    assert set(stays) == {FieldGroup.PERSONS}  # XB gives persons only on request
    assert stays[FieldGroup.PERSONS].sentence.startswith("XA-NCVI does not receive persons of XB-NCVI/cases")
    goes = {one.group: one for one in shown.groups if one.goes}
    assert goes[FieldGroup.CLUES].rules == ("xb-xa-share-case", "xb-xa-share-list")
    assert "article 7" in goes[FieldGroup.CLUES].laws[0]
    assert "retain_days(180)" in shown.obligations
    table[XB].referrals.refer(taken.case, XA)
    table.settle()
    [row] = table[XA].cases.inbox()
    held = table[XA].cases.get(row.id)
    assert held.record == redact(case_record(XB), shown.going)
    assert held.record.persons == ()
    assert set(row.groups.split()) == set(map(str, shown.going))
    assert row.keep_until == table.clock() + 180 * DAY


def test_every_decision_about_a_case_is_on_record_and_is_decided_again(table: Table) -> None:
    table.refer()
    embargo = case_record(reference="under embargo", restrictions=(Restriction.EMBARGO,))
    [taken] = table[XA].cases.take_in([embargo], form="vidx")
    with pytest.raises(DeniedError, match="may not be referred") as refused:
        table[XA].referrals.refer(taken.case, XB)
    assert refused.value.rules == ("fed-embargo",)
    told = [(one.details["action"], one.details["outcome"]) for one in events(table[XA].node, EventKind.SHARE_DECIDED)]
    assert told == [("refer", "allow"), ("refer", "deny")]
    [taken_in] = events(table[XB].node, EventKind.SHARE_DECIDED)
    assert (taken_in.details["action"], taken_in.details["outcome"]) == ("receive", "allow")
    for agency in (XA, XB):
        with table[agency].node.store.reading() as tx:
            judge = Judge(tx)
            receipts = judge.receipts()
            assert receipts
            assert all(judge.decide_again(leaf).same for leaf in receipts)


@pytest.mark.parametrize(
    ("changes", "to", "purpose", "error"),
    [
        ({"handling": HandlingCode.H3}, XB, None, "nothing"),  # XB may know that it exists, and no more
        ({}, XC, None, DeniedError),  # XC is referred cases to protect a child alone
        ({}, XB, Purpose.STATISTICS, DeniedError),
        ({"restrictions": (Restriction.COURT_ORDER,)}, XB, None, DeniedError),
        ({}, XD, None, NotFoundError),  # no partner
        ({"legal_basis": ""}, XB, None, MalformedError),
    ],
)
def test_policy_decides_whether_a_case_goes_at_all(
    table: Table, changes: dict[str, Any], to: str, purpose: Purpose | None, error: Any
) -> None:
    [taken] = table[XA].cases.take_in([case_record(**changes)], form="vidx")
    if error == "nothing":
        assert table[XA].referrals.preview(taken.case, to, purpose).going == (FieldGroup.EXISTENCE,)
        return
    with pytest.raises(error):
        table[XA].referrals.refer(taken.case, to, purpose)
    table.settle()
    assert table[XB].cases.all() == table[XC].cases.all() == []


def test_who_does_not_take_a_case_says_so_and_keeps_nothing_of_it(table: Table) -> None:
    [taken] = table[XA].cases.take_in([case_record(evaluation="D4")], form="vidx")  # XB takes A to C
    table[XA].referrals.refer(taken.case, XB)
    table.settle()
    assert table[XB].cases.all() == []
    thread = thread_of(table[XA], taken.case)
    assert thread.state == ThreadState.REFUSED
    [answer] = [one for one in table[XA].talk.lines(taken.case) if one.kind == ANSWER]
    assert (answer.word, answer.text) == ("refused", "our policy does not take it")
    with table[XB].node.store.reading() as tx:
        [mail] = tx.mail.incoming(XA)
        assert tx.mail.evidence(XA, mail.number) is None
    assert table[XB].mailbox.read(mail) == {}


def test_a_partner_under_test_gets_no_real_case_and_gives_none(table: Table) -> None:
    node = table[XA].node
    settings = replace(node.settings, demo=False, quorum=2)
    strict = table.network.join(replace(node, settings=settings))
    enrol(strict.node, card_of(table[XB].node), test=True)
    [taken] = strict.cases.take_in([case_record()], form="vidx")
    with pytest.raises(DeniedError, match="under test"):
        strict.referrals.refer(taken.case, XB)
    [other] = table[XB].cases.take_in([case_record(XB)], form="vidx")
    table[XB].referrals.refer(other.case, XA)
    table.settle(XA, XB)
    assert [row.source for row in strict.cases.all()] == [""]
    assert thread_of(table[XB], other.case).state == ThreadState.REFUSED


# Answers, versions, recalls


def test_a_declined_case_is_gone_at_the_partner_and_its_reason_is_heard(table: Table) -> None:
    sent, came = table.refer()
    with pytest.raises(MalformedError):
        table[XB].talk.decline(came, " ")
    table[XB].talk.decline(came, "the place is across our border")
    assert row_of(table[XB], came).state == CaseState.DECLINED
    table.settle()
    assert thread_of(table[XA], sent).state == ThreadState.DECLINED
    [answer] = [one for one in table[XA].talk.lines(sent) if one.word == "declined"]
    assert answer.text == "the place is across our border"
    with pytest.raises(ConflictError):
        table[XB].cases.get(came)
    with pytest.raises(NotFoundError):
        table[XA].talk.say(sent, "please look again")
    # What has arrived is erased word by word: nothing of the case is left in XB's mailbox.
    table[XB].referrals.keep_house()
    with table[XB].node.store.reading() as tx:
        bodies = [table[XB].mailbox.read(one) for one in (*tx.mail.incoming(XA), *tx.mail.sent_mail(XA))]
        assert all(one.blank for one in tx.cases.messages(came))
    assert all(body == {} for body in bodies)
    # It can be referred again, and is another case there.
    table[XA].referrals.refer(sent, XB)
    table.settle()
    assert [row.id != came for row in table[XB].cases.inbox()] == [True]


def test_a_newer_version_follows_to_who_has_the_case_and_an_older_one_changes_nothing(table: Table) -> None:
    sent, came = table.refer()
    table[XB].talk.accept(came)
    newer = case_record(version=2, summary="seen a fourth time")
    table[XA].cases.take_in([newer], form="vidx", update=True)
    table.settle()
    held = table[XB].cases.get(came)
    assert (held.record.summary, held.row.version, held.row.state) == ("seen a fourth time", 2, CaseState.OPEN)
    assert thread_of(table[XA], sent).digest == thread_of(table[XB], came).digest
    assert thread_of(table[XA], sent).state == ThreadState.ACCEPTED
    # The sender's keys in other hands bring an old report back: it is refused, and nobody is told that it is gone.
    thread = thread_of(table[XB], came)
    report = dump_case(case_record(), list(FieldGroup)).decode()
    old = Referral(thread.id, Purpose.SAFEGUARDING, Urgency.ROUTINE, (), report)
    table.smuggle(XA, XB, (REFERRAL, old.body()))
    assert table[XB].cases.get(came).record.summary == "seen a fourth time"


def test_what_policy_no_longer_lets_a_partner_hold_is_recalled(table: Table) -> None:
    sent, came = table.refer()
    table[XB].talk.accept(came)
    sealed = case_record(version=2, restrictions=(Restriction.COURT_ORDER,))
    table[XA].cases.take_in([sealed], form="vidx", update=True)
    assert thread_of(table[XA], sent).state == ThreadState.RECALLED
    table.settle()
    assert (row_of(table[XB], came).state, row_of(table[XB], came).sealed_report) == (CaseState.ERASED, b"")
    assert thread_of(table[XA], sent).state == ThreadState.DELETED


def test_another_policy_recalls_or_narrows_what_partners_hold(table: Table) -> None:
    sent, came = table.refer()
    table[XA].referrals.keep_house()
    name = "XA/agreement-xb.cedar"
    take_up(table[XA], name, 'Action::"share_persons",', "")
    table[XA].referrals.keep_house()
    table.settle()
    held = table[XB].cases.get(came)
    assert held.record.persons == ()
    assert FieldGroup.PERSONS not in held.report.groups
    take_up(table[XA], name, 'action == Action::"refer"', 'action == Action::"forward"')
    table[XA].referrals.keep_house()
    table.settle()
    assert row_of(table[XB], came).state == CaseState.ERASED
    assert thread_of(table[XA], sent).state == ThreadState.DELETED


def take_up(exchange: Exchange, name: str, old: str, new: str) -> None:
    """Another policy is in force from now on: in one of its files these words are others."""
    node, texts = exchange.node, dict(exchange.node.policies.texts)
    assert old in texts[name]
    node.policies.take_up({**texts, name: texts[name].replace(old, new)}, node.today)
    with node.store.transaction() as tx:
        record_policy(tx, node, previous="")


def test_a_pause_recalls_nothing_and_what_changed_meanwhile_follows_after_it(table: Table) -> None:
    sent, came = table.refer()
    with table[XA].node.store.transaction() as tx:
        tx.people.pause(XB, "tester", table.clock())
    table[XA].cases.take_in([case_record(version=2)], form="vidx", update=True)
    table[XA].referrals.keep_house()
    assert thread_of(table[XA], sent).state == ThreadState.RECEIVED
    with table[XA].node.store.transaction() as tx:
        tx.people.resume(XB)
    table[XA].referrals.keep_house()
    table.settle()
    assert table[XB].cases.get(came).row.version == 2


def test_a_list_of_messages_shows_no_words_of_cases(table: Table) -> None:
    table.refer()
    for agency in (XA, XB):
        with table[agency].node.store.reading() as tx:
            rows = [*tx.mail.incoming(), *tx.mail.sent_mail()]
        told = [repr(_message_value(row, table[agency].mailbox.read(row))) for row in rows]
        assert told
        assert not any(secret in one for one in told for secret in (*SECRETS, "duty"))


def test_a_recall_that_crosses_an_acceptance_still_takes_the_case_away(table: Table) -> None:
    sent, came = table.refer()
    table[XA].referrals.recall(sent, XB, "it was sent by mistake")
    table[XB].talk.accept(came)
    table[XB].talk.say(came, "we have begun")
    table.settle()
    assert row_of(table[XB], came).state == CaseState.ERASED
    assert thread_of(table[XA], sent).state == ThreadState.DELETED
    with pytest.raises(ConflictError):
        table[XB].talk.accept(came)


def test_a_case_past_its_time_goes_at_the_partner_which_says_so(table: Table) -> None:
    sent, came = table.refer()
    table.clock.advance(181 * DAY)
    table[XB].cases.keep_house()
    table.settle()
    assert row_of(table[XB], came).state == CaseState.ERASED
    assert thread_of(table[XA], sent).state == ThreadState.DELETED
    assert row_of(table[XA], sent).state == CaseState.OPEN  # our own is kept


def test_a_closed_case_is_told_and_goes_nowhere_any_more(table: Table) -> None:
    sent, came = table.refer()
    table[XA].cases.close(sent)
    table.settle()
    assert [one.word for one in table[XB].talk.lines(came) if one.kind == MESSAGE] == ["closed"]
    with pytest.raises(ConflictError, match="closed"):
        table[XA].referrals.refer(sent, XC, Purpose.SAFEGUARDING)


# Urgency


def test_a_child_at_risk_alarms_at_once_and_an_unread_referral_when_its_time_is_over(table: Table) -> None:
    schedule = table.network.schedule(XA)
    asyncio.run(schedule.tick())  # from now on XB is due in some minutes
    [calm] = table[XA].cases.take_in([case_record(reference="calm")], form="vidx")
    table[XA].referrals.refer(calm.case, XB)
    asyncio.run(schedule.tick())
    assert table[XB].cases.inbox() == []
    [taken] = table[XA].cases.take_in([case_record(urgency=Urgency.CHILD_AT_RISK)], form="vidx")
    sent = taken.case
    table[XA].referrals.refer(sent, XB)
    asyncio.run(schedule.tick())  # what a server that runs does every two seconds
    came = table[XB].cases.inbox()[0].id
    assert [(one.kind, one.subject) for one in alarms.sweep(table[XB].node)] == [(AlarmKind.CASE_URGENT, came)]
    assert alarms.sweep(table[XA].node) == []
    table.clock.advance(3600)
    assert (AlarmKind.CASE_UNREAD, sent, "nobody has read a referral in time: at XB-NCVI") in [
        (one.kind, one.subject, one.detail) for one in alarms.sweep(table[XA].node)
    ]
    assert {one.kind for one in alarms.sweep(table[XB].node)} >= {AlarmKind.CASE_URGENT, AlarmKind.CASE_UNREAD}
    table[XB].talk.read(came)
    table.settle()
    for agency in (XA, XB):
        assert not {AlarmKind.CASE_URGENT, AlarmKind.CASE_UNREAD} & {
            one.kind for one in alarms.sweep(table[agency].node)
        }


def test_a_person_may_call_a_referral_urgent_and_the_duty_to_acknowledge_shortens_the_time(table: Table) -> None:
    [taken] = table[XA].cases.take_in([case_record(urgency=Urgency.ROUTINE)], form="vidx")
    due = table[XA].referrals.refer(taken.case, XB).due
    assert due == table.clock() + 72 * 3600  # xa-xb-refer asks for an answer within three days
    [other] = table[XA].cases.take_in([case_record(reference="urgent", urgency=Urgency.ROUTINE)], form="vidx")
    assert table[XA].referrals.refer(other.case, XB, urgent=True).due == table.clock() + 3600
    table.settle()
    assert [row.urgency for row in table[XB].cases.inbox()] == ["child_at_risk", "routine"]


# Onward


def test_a_third_countrys_case_goes_onward_only_with_its_originators_leave(table: Table) -> None:
    _, kept = table.refer()
    table[XB].talk.accept(kept)
    with pytest.raises(DeniedError):
        table[XB].referrals.refer(kept, XC, Purpose.SAFEGUARDING)
    with pytest.raises(DeniedError, match="came from this partner"):
        table[XB].referrals.refer(kept, XA, Purpose.SAFEGUARDING)
    table[XB].talk.decline(kept, "it cannot go where it belongs")
    # With leave, under an agreement that passes cases on, to somebody who takes them.
    take_up(table[XB], "XB/agreement-xc.cedar", 'action == Action::"look_up"', 'action == Action::"refer"')
    sent, came = table.refer(reference="with leave", onward=("XB", "XC"), evaluation="A1")
    table[XB].talk.accept(came)
    table[XB].referrals.refer(came, XC, Purpose.SAFEGUARDING)
    table.settle()
    [further] = table[XC].cases.all()
    assert table[XC].cases.get(further.id).record.originator == XA
    told = [one for one in table[XA].talk.lines(sent) if one.word == "passed_on"]
    assert [one.partner for one in told] == [XB]
    # What its originator changes or takes back does so at the end of the chain as well.
    newer = case_record(reference="with leave", onward=("XB", "XC"), evaluation="A1", version=2, summary="once more")
    table[XA].cases.take_in([newer], form="vidx", update=True)
    table.settle()
    assert table[XC].cases.get(further.id).row.version == 2
    table[XA].referrals.recall(sent, XB, "it was sent by mistake")
    table.settle()
    assert row_of(table[XC], further.id).state == CaseState.ERASED


def test_what_came_under_the_duty_to_pass_it_on_to_nobody_stays(table: Table) -> None:
    take_up(table[XB], "XB/agreement-xc.cedar", 'action == Action::"look_up"', 'action == Action::"refer"')
    report = dump_case(case_record(onward=("XB", "XC"), evaluation="A1"), list(FieldGroup)).decode()
    body = Referral("ab" * 16, Purpose.SAFEGUARDING, Urgency.ROUTINE, ("no_onward",), report).body()
    table.smuggle(XA, XB, (REFERRAL, body))
    [row] = table[XB].cases.inbox()
    table[XB].talk.accept(row.id)
    with pytest.raises(DeniedError, match="pass it on to nobody"):
        table[XB].referrals.refer(row.id, XC, Purpose.SAFEGUARDING)


# Attacks


def test_a_partner_that_is_not_in_a_thread_can_say_nothing_in_it(table: Table) -> None:
    sent, came = table.refer()
    thread = thread_of(table[XA], sent)
    report = dump_case(case_record(XC), list(FieldGroup)).decode()
    forged = [
        (ANSWER, Answered(thread.id, Answer.ACCEPTED, thread.digest, table.clock()).body()),
        (ANSWER, Answered(thread.id, Answer.DECLINED, thread.digest, table.clock(), "no").body()),
        (MESSAGE, Said(thread.id, Saying.SAY, "trust me").body()),
        (RECALL, Recall(thread.id, "give it back").body()),
    ]
    for victim, case in ((XA, sent), (XB, came)):
        before = (thread_of(table[victim], case), row_of(table[victim], case), table[victim].talk.lines(case))
        table.smuggle(XC, victim, *forged)
        assert (thread_of(table[victim], case), row_of(table[victim], case), table[victim].talk.lines(case)) == before
        refused = [one for one in events(table[victim].node, EventKind.CASE_HEARD) if one.actor == XC]
        assert [one.details["outcome"] for one in refused] == ["refused"] * len(forged)
        assert {one.details["reason"] for one in refused} == {"a message in a thread that this partner is not in"}
    # The same id in another partner's mouth is another thread, and another case.
    table.smuggle(XC, XB, (REFERRAL, Referral(thread.id, Purpose.SAFEGUARDING, Urgency.ROUTINE, (), report).body()))
    assert table[XB].cases.get(came).record == case_record()


@pytest.mark.parametrize("wrong", ["side", "digest", "members", "word", "recall", "own thread"])
def test_what_a_partner_may_not_say_in_its_own_thread_changes_nothing(table: Table, wrong: str) -> None:
    sent, came = table.refer()
    thread, digest = thread_of(table[XA], sent).id, thread_of(table[XA], sent).digest
    answer = Answered(thread, Answer.ACCEPTED, digest, table.clock()).body()
    report = dump_case(case_record(XB), list(FieldGroup)).decode()
    cases: dict[str, tuple[str, str, str, dict[str, object]]] = {
        "side": (XA, XB, ANSWER, answer),  # who referred it answers for who has it
        "digest": (XB, XA, ANSWER, {**answer, "digest": "0" * 64}),
        "members": (XB, XA, ANSWER, {**answer, "extra": 1}),
        "word": (XB, XA, ANSWER, {**answer, "answer": "identified"}),
        "recall": (XB, XA, RECALL, Recall(thread, "it is ours now").body()),
        "own thread": (
            XB,
            XA,
            REFERRAL,
            Referral(thread, Purpose.SAFEGUARDING, Urgency.ROUTINE, (), report).body(),
        ),
    }
    sender, victim, kind, body = cases[wrong]
    before = (thread_of(table[XA], sent), thread_of(table[XB], came), row_of(table[XA], sent), row_of(table[XB], came))
    table.smuggle(sender, victim, (kind, body))
    after = (thread_of(table[XA], sent), thread_of(table[XB], came), row_of(table[XA], sent), row_of(table[XB], came))
    assert before == after


@pytest.mark.parametrize(
    ("report", "reason"),
    [
        ("<not a report", "the report is not as its contract says"),
        (dump_case(case_record(XA), list(FieldGroup)).decode(), "the case is our own"),
        (dump_case(case_record(XC), list(FieldGroup)).decode(), "our policy does not take it"),  # XC gave no leave
    ],
    ids=["malformed", "ours", "a third country's"],
)
def test_a_forged_report_is_refused_and_touches_no_case(table: Table, report: str, reason: str) -> None:
    """A partner cannot overwrite our own case, nor one that another partner referred, by naming its reference."""
    sent, _ = table.refer()
    body = Referral("ab" * 16, Purpose.SAFEGUARDING, Urgency.CHILD_AT_RISK, (), report).body()
    table.smuggle(XB, XA, (REFERRAL, body))
    assert [row.id for row in table[XA].cases.all()] == [sent]
    assert table[XA].cases.get(sent).record == case_record()
    heard_ = events(table[XA].node, EventKind.CASE_HEARD)[-1]
    assert (heard_.details["outcome"], heard_.details["reason"]) == ("refused", reason)
    assert not any(REFERENCE in str(one) for one in events(table[XA].node, EventKind.CASE_HEARD))


def test_the_same_case_from_two_partners_is_two_cases(table: Table) -> None:
    """Neither partner can change what the other referred, nor learn that it did."""
    _, first = table.refer(onward=("XB", "XC"), evaluation="A1")
    table[XB].talk.accept(first)
    record = case_record(XA, onward=("XB", "XC"), evaluation="A1", summary="forged")
    report = dump_case(record, list(FieldGroup)).decode()
    take_up(table[XB], "XB/agreement-xc.cedar", 'action == Action::"look_up"', 'action == Action::"receive"')
    table.smuggle(XC, XB, (REFERRAL, Referral("cd" * 16, Purpose.SAFEGUARDING, Urgency.ROUTINE, (), report).body()))
    [second] = table[XB].cases.inbox()
    assert (second.source, table[XB].cases.get(second.id).record.summary) == (XC, "forged")
    assert table[XB].cases.get(first).record.summary == case_record().summary


def test_a_second_thread_about_a_held_case_is_refused_and_an_unknown_duty_too(table: Table) -> None:
    _, came = table.refer()
    report = dump_case(case_record(version=9), list(FieldGroup)).decode()
    for thread, duties in (("ab" * 16, ()), ("cd" * 16, ("burn_after_reading",))):
        table.smuggle(
            XA, XB, (REFERRAL, Referral(thread, Purpose.SAFEGUARDING, Urgency.ROUTINE, duties, report).body())
        )
    report = dump_case(case_record(reference="another"), list(FieldGroup)).decode()
    body = Referral("ef" * 16, Purpose.SAFEGUARDING, Urgency.ROUTINE, ("burn_after_reading",), report).body()
    table.smuggle(XA, XB, (REFERRAL, body))
    assert [row.id for row in table[XB].cases.all()] == [came]
    assert table[XB].cases.get(came).row.version == 1
    reasons = [one.details.get("reason") for one in events(table[XB].node, EventKind.CASE_HEARD)][-3:]
    assert reasons == [
        "the case was referred already, in another thread",
        "the case was referred already, in another thread",
        "it comes under a duty that is not known here",
    ]


def test_a_report_that_is_too_long_stays_and_payloads_stay_within_their_bound(table: Table) -> None:
    many = tuple(replace(case_record().clues[0], text=f"{number} " + "x" * 3_900) for number in range(60))
    [taken] = table[XA].cases.take_in([case_record(clues=many)], form="vidx")
    with pytest.raises(TooLargeError):
        table[XA].referrals.refer(taken.case, XB)
    for number in range(6):  # each below the bound, together far above that of a payload
        [one] = table[XA].cases.take_in([case_record(reference=f"long {number}", clues=many[:45])], form="vidx")
        table[XA].referrals.refer(one.case, XB)
    table[XA].mailbox.write(XB, "note", {"text": "x"})
    table.settle()
    assert len(table[XB].cases.inbox()) == 6


def test_messages_that_do_not_go_together_are_refused_whole(table: Table) -> None:
    """What is said of cases is erased with its proof; so it never shares a payload with what must stay proved."""
    sent, _ = table.refer()
    thread, digest = thread_of(table[XA], sent).id, thread_of(table[XA], sent).digest
    number = table[XA].mailbox.last_received(XB) + 1
    mixed = [
        MailMessage(
            number, "a" * 32, ANSWER, table.clock(), Answered(thread, Answer.READ, digest, table.clock()).body()
        ),
        MailMessage(number + 1, "b" * 32, "note", table.clock(), {"text": "x"}),
    ]
    with pytest.raises(MalformedError, match="go together"):
        table[XA].accept(XB, BytesIO(table.rogue(XB).envelope(dump_mail(mixed), MAIL_TYPE)))
    assert thread_of(table[XA], sent).state == ThreadState.RECEIVED


@pytest.mark.parametrize("deed", ["refer", "accept", "recall", "update"])
def test_a_crash_before_the_commit_leaves_nothing_of_a_deed(
    table: Table, deed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent, came = table.refer()
    [other] = table[XA].cases.take_in([case_record(reference="another")], form="vidx")
    deeds = {
        "refer": (XA, lambda: table[XA].referrals.refer(other.case, XB)),
        "accept": (XB, lambda: table[XB].talk.accept(came)),
        "recall": (XA, lambda: table[XA].referrals.recall(sent, XB, "wrong")),
        "update": (XA, lambda: table[XA].cases.take_in([case_record(version=2)], form="vidx", update=True)),
    }
    agency, do = deeds[deed]

    def state() -> tuple[object, ...]:
        with table[agency].node.store.reading() as tx:
            cases = tx.cases.all()
            threads = [one for row in cases for one in tx.cases.threads(row.id)]
            partner = XB if agency == XA else XA
            return cases, threads, tx.mail.last_out(partner), tx.log.size()

    before = state()
    with monkeypatch.context() as patch:
        patch.setattr(table[agency].node.store, "before_commit", lambda: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            do()
    assert state() == before
    do()
    table.settle()
    assert state() != before


async def test_the_largest_report_goes_over_http_and_comes_back_by_polling(tmp_path: Path) -> None:
    clock = FakeClock()
    xa, xb = (make_node(tmp_path, agency, clock=clock, **loopback()) for agency in (XA, XB))
    befriend(xa, xb)
    many = tuple(replace(case_record().clues[0], text=f"{number} " + "é" * 1_900) for number in range(58))
    here, there = Exchange(xa), Exchange(xb)
    cases = [case_record(reference=f"K-{number}", clues=many) for number in range(4)]
    for taken in here.cases.take_in(cases, form="vidx"):
        here.referrals.refer(taken.case, XB)
    async with serving(there), link_to(xb, xa) as link:
        await PartnerSync(here, link, XB).exchange_mail()
    assert len(there.cases.inbox()) == 4
    for row in there.cases.inbox():
        there.talk.decline(row.id, "no")
    there.cases.take_in([case_record(XB, clues=many)], form="vidx")
    [own] = [row for row in there.cases.all() if not row.source]
    there.referrals.refer(own.id, XA)
    async with serving(there), link_to(xb, xa) as link:
        await PartnerSync(here, link, XB).exchange_mail()  # XA asks; nobody at XB pushes anything
    [row] = [one for one in here.cases.inbox() if one.source == XB]
    assert len(here.cases.get(row.id).record.clues) == 58


# The state machine


@pytest.mark.parametrize("seed", range(3))
def test_whatever_crosses_both_ends_agree_in_the_end_on_who_has_the_report(table: Table, seed: int) -> None:
    """Random deeds at both ends, their mail carried in random turns. Then the referrer knows of each thread whether the
    report is still at the other end."""
    source = table.network.source = random.Random(seed)
    sent, _ = table.refer()
    version = 1
    table.network.faults = Faults(lose_request=0.15, lose_answer=0.15, repeat=0.15, damage=0.05)

    def somewhere(states: tuple[str, ...]) -> list[CaseRow]:
        return [row for row in table[XB].cases.all() if row.state in states]

    def newer() -> None:
        nonlocal version
        version += 1
        table[XA].cases.take_in([case_record(version=version)], form="vidx", update=True)

    def answer(deed: Any) -> None:
        for row in somewhere(("inbox", "open")):
            deed(row.id)

    deeds = [
        newer,
        lambda: table[XA].referrals.refer(sent, XB),
        lambda: table[XA].referrals.recall(sent, XB, "wrong"),
        lambda: table[XA].talk.say(sent, "hello"),
        lambda: answer(table[XB].talk.read),
        lambda: answer(table[XB].talk.accept),
        lambda: answer(lambda case: table[XB].talk.decline(case, "no")),
        lambda: answer(lambda case: table[XB].talk.say(case, "hello")),
        lambda: asyncio.run(table.network.sync(XA, XB)._send_mail()),
        lambda: asyncio.run(table.network.sync(XB, XA)._send_mail()),
    ]
    for _ in range(40):
        # What this end knows to be over it does not do; and the network loses, repeats and damages what it likes.
        with contextlib.suppress(ConflictError, NotFoundError, PartnerError, VerificationError, MalformedError):
            source.choice(deeds)()
    table.network.faults = Faults()
    table.settle(XA, XB)
    has = {ThreadState.RECEIVED, ThreadState.READ, ThreadState.ACCEPTED}
    here = {one.id: one for one in table[XA].talk.threads(sent)}
    assert all(one.state in {*has, *OVER} for one in here.values())
    there = {one.id: row for row in table[XB].cases.all() for one in table[XB].talk.threads(row.id)}
    for thread, one in here.items():
        row = there[thread]
        assert (one.state in has) == (row.state in ("inbox", "open")), (one.state, row.state)
        if one.state in has:
            assert row.version == version
            assert (one.state == ThreadState.ACCEPTED) == (row.state == "open")


# Four eyes


def test_where_policy_asks_for_it_a_case_goes_only_when_two_have_approved_exactly_that(tmp_path: Path) -> None:
    clock = FakeClock()
    nodes = [make_node(tmp_path, agency, clock=clock, quorum=2) for agency in (XA, XD)]
    befriend(*nodes)
    network = Network()
    xa, xd = (network.join(node) for node in nodes)
    for key in (ONE, TWO):
        bootstrap_administrator(xa.node, key.name, key.signing_key.public)
    table = Table(network, clock)
    [taken] = xa.cases.take_in([case_record()], form="vidx")
    assert xa.referrals.preview(taken.case, XD).needs_approval
    with pytest.raises(DeniedError, match="two administrators"):
        xa.referrals.refer(taken.case, XD)
    desk = approvals(xa.node)
    act = xa.referrals.propose(taken.case, XD, note="the light switch is sold in your country")
    identifier = desk.propose(*act, by="one")
    # What they sign is shown; nothing readable of the case is in the proposal.
    shown = {one.what: one.then for one in desk.difference(identifier)}
    assert "clues" in shown["XD-NCVI gets of the case"]
    assert "persons" in shown["XD-NCVI does not get"]
    assert shown["with the note"] == "the light switch is sold in your country"
    assert not any(secret in repr(desk.get(identifier)) for secret in (*SECRETS, "light switch"))
    desk.sign(identifier, ONE)
    table.settle()
    assert xd.cases.all() == []
    desk.sign(identifier, TWO)
    table.settle()
    [row] = xd.cases.inbox()
    assert row.originator == XA
    assert [one.text for one in xd.talk.lines(row.id) if one.kind == REFERRAL] == [shown["with the note"]]
    [sent] = [one for one in events(xa.node, EventKind.CASE_SENT) if one.details["message"] == REFERRAL]
    assert sent.details["proposal"] == identifier
    # A newer version was not approved: it does not follow by itself. And an approval is for what it was given for.
    xa.cases.take_in([case_record(version=2, summary="other words")], form="vidx", update=True)
    table.settle()
    assert xd.cases.get(row.id).row.version == 1
    with pytest.raises(DeniedError, match="two administrators"):
        xa.referrals.refer(taken.case, XD)
    newer = desk.propose(*xa.referrals.propose(taken.case, XD), by="one")
    for key in (ONE, TWO):
        desk.sign(newer, key)
    table.settle()
    assert xd.cases.get(row.id).row.version == 2
    assert thread_of(xa, taken.case).state == ThreadState.RECEIVED
    with pytest.raises(ConflictError, match="has this case"):
        xa.referrals.propose(taken.case, XD)
    # What policy takes away needs nobody's approval.
    xa.referrals.keep_house()
    assert thread_of(xa, taken.case).state == ThreadState.RECEIVED
    take_up(xa, "XA/agreement-xd.cedar", 'Action::"share_clues", ', "")
    xa.referrals.keep_house()
    table.settle()
    assert (xd.cases.all()[0].state, thread_of(xa, taken.case).state) == (CaseState.ERASED, ThreadState.DELETED)
    [other] = xa.cases.take_in([case_record(reference="another")], form="vidx")
    stale = desk.propose(*xa.referrals.propose(other.case, XD), by="one")
    xa.cases.take_in([case_record(reference="another", version=2, summary="other words")], form="vidx", update=True)
    desk.sign(stale, ONE)
    with pytest.raises(ConflictError, match="changed since"):
        desk.sign(stale, TWO)
    table.settle()
    assert xd.cases.inbox() == []


# Whom a case points to


def test_a_place_clue_proposes_the_unit_of_its_country_and_sends_nothing(table: Table) -> None:
    places = (
        Place("XB", "", "", 80, case_record().places[0].source),
        Place("XB", "", "", 40, case_record().places[0].source),
        Place("XD", "", "", 95, case_record().places[0].source),  # its unit is no partner
        Place("XA", "", "", 99, case_record().places[0].source),  # our own country
    )
    [taken] = table[XA].cases.take_in([case_record(places=places)], form="vidx")
    [one] = table[XA].referrals.proposals()
    assert (one.case, one.partner, one.confidence) == (taken.case, XB, 80)
    assert one.why == "the place clue points to XB with confidence 0.8, and XB's unit XB-NCVI is enrolled"
    table.settle()
    assert table[XB].cases.all() == []
    table[XA].referrals.refer(taken.case, XB)
    assert table[XA].referrals.proposals() == []
    assert CLUE not in one.why
    assert DESCRIPTION not in one.why
    assert table[XA].referrals.partners_of("XB") == table[XA].referrals.partners_of(XB) == [XB]
    with pytest.raises(NotFoundError):
        table[XA].referrals.partners_of("XD")


def test_a_malformed_body_of_each_kind_is_refused_on_record(table: Table) -> None:
    table.smuggle(XB, XA, *((kind, {"thread": 7}) for kind in (REFERRAL, ANSWER, MESSAGE, RECALL)))
    told = [one.details["outcome"] for one in events(table[XA].node, EventKind.CASE_HEARD)]
    assert told == ["refused"] * 4
