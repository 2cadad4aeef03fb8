"""Partners' look-ups: what each may be told, what nobody can tell from an answer, and what it costs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from sqlalchemy import event

from chain import ACTIONS, agreement, chain, set_rules
from factory import (
    FakeClock,
    befriend,
    card_of,
    enrol,
    events,
    link_to,
    loopback,
    make_node,
    make_set,
    reopened,
    serving,
    set_state,
    sha256,
)
from gateway import lookups
from gateway.alarms import AlarmKind
from gateway.audit import EventKind
from gateway.cases.assertions import Wish
from gateway.doors import native
from gateway.errors import ConfigError, DeniedError, GatewayError, MalformedError, NotFoundError, RateLimitedError
from gateway.exchange import Exchange, answering, shelf
from gateway.exchange.answering import _at, _wait
from gateway.exchange.asking import Asked, Plan
from gateway.exchange.decisions import LOOK_UP, Judge
from gateway.keylife import DAY_SECONDS
from gateway.lookups import Question, Told
from gateway.model import EntryDraft, HandlingCode, Purpose, Restriction, VictimStatus
from gateway.store.people import EVERYTHING
from gateway.store.tables import LookUpUse

WHY = Purpose.VICTIM_IDENTIFICATION
PDQ = sha256("a picture")
CONTACT = "XA victim identification, duty desk, +99 1 234"
HIDDEN = ("under H3", "under embargo", "sealed by a court")


def near(bits: int, base: bytes = PDQ) -> bytes:
    return (int.from_bytes(base, "big") ^ ((1 << bits) - 1)).to_bytes(32, "big")


def entries() -> list[EntryDraft]:
    """One of each kind that policy judges differently, with PDQ digests far from each other."""

    def one(name: str, **words: Any) -> EntryDraft:
        digests = {"sha256": sha256(name), "md5": sha256(name)[:16], "pdq": sha256(f"pdq of {name}")}
        return EntryDraft(digests, source_ref=name, series="Blue Door", pdq_quality=90, **words)

    return [
        one("identified", victim_status=VictimStatus.IDENTIFIED, handling=HandlingCode.H1),
        one("a lead", victim_status=VictimStatus.LEAD, handling=HandlingCode.H2),
        one("under H3", victim_status=VictimStatus.IDENTIFIED, handling=HandlingCode.H3),
        one("under embargo", handling=HandlingCode.H0, restrictions=(Restriction.EMBARGO,)),
        one("sealed by a court", handling=HandlingCode.H0, restrictions=(Restriction.COURT_ORDER,)),
    ]


@dataclass
class World:
    """XA, which holds the list, and XB and XE, which ask."""

    clock: FakeClock
    xa: Exchange
    xb: Exchange
    xe: Exchange
    name: str = ""

    def plan(self, *digests: str | bytes, who: Exchange | None = None, distance: int | None = 31) -> Plan:
        hexed = [one if isinstance(one, str) else one.hex() for one in digests]
        return (who or self.xb).asking.plan("XA-NCVI", hexed, WHY, distance)

    def ask(self, asked: Asked, who: Exchange | None = None) -> tuple[lookups.Answer, bytes]:
        here = who or self.xb
        sealed, _ = self.xa.look_up_for(here.node.agency, here.look_up_question("XA-NCVI", asked))
        return here.look_up_answer("XA-NCVI", asked, sealed), sealed

    def told(
        self, *digests: str | bytes, who: Exchange | None = None, distance: int | None = 31
    ) -> dict[int, list[Told]]:
        """What is said of each digest."""
        found: dict[int, list[Told]] = {}
        for asked in self.plan(*digests, who=who, distance=distance).questions:
            for place, told, _ in asked.answers(self.ask(asked, who)[0]):
                found.setdefault(place, []).extend(told)
        return found


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    clock = FakeClock()
    xa = make_node(tmp_path, "XA-NCVI", clock=clock, look_up_contact=CONTACT, **loopback())
    others = [make_node(tmp_path, name, clock=clock, **loopback()) for name in ("XB-NCVI", "XE-NCVI")]
    befriend(xa, *others)
    made = World(clock, Exchange(xa), *map(Exchange, others))
    made.name = make_set(made.xa, "identified", entries())
    yield made
    for exchange in (made.xa, made.xb, made.xe):
        exchange.node.store.close()


# What may be told


def test_an_answer_says_who_since_when_and_whom_to_ask(world: World) -> None:
    [[told]] = world.told(sha256("identified")).values()
    assert told == Told(
        "XA-NCVI/identified",
        told.entry,
        "XA-NCVI",
        VictimStatus.IDENTIFIED,
        "XA-NCVI",
        world.clock(),
        "icse:1",
        HandlingCode.H1,
        "Blue Door",
        CONTACT,
        told.duties,
    )
    assert "court_use_needs_leave" in told.duties
    assert not told.needs_review
    # Under H2 the contact point is not for XB, nor are perceptual digests.
    [[lead]] = world.told(sha256("a lead")[:16]).values()
    assert (lead.status, lead.contact) == (VictimStatus.LEAD, "")


def test_what_policy_hides_is_as_if_it_were_not_there(world: World) -> None:
    assert world.told(*(sha256(name) for name in HIDDEN), sha256("nothing")) == {}
    assert world.told(*(sha256(f"pdq of {name}") for name in HIDDEN)) == {}


def test_perceptual_digests_are_answered_only_where_policy_shows_them_and_need_review(world: World) -> None:
    equal, alike, far = (
        sha256("pdq of identified"),
        near(9, sha256("pdq of identified")),
        near(32, sha256("pdq of identified")),
    )
    found = world.told(equal, alike, far, sha256("pdq of a lead"))
    assert {place: [one.distance for one in told] for place, told in found.items()} == {0: [0], 1: [9]}
    assert all(one.needs_review for told in found.values() for one in told)
    assert world.told(alike, distance=8) == {}
    assert world.told(equal, distance=None) == {}


def test_who_may_not_ask_is_told_nothing_in_the_same_shape(tmp_path: Path) -> None:
    """XB lets XC look up. With XD it has an agreement, but none on that."""
    clock = FakeClock()
    xb, *others = (make_node(tmp_path, name, clock=clock) for name in ("XB-NCVI", "XC-NCVI", "XD-NCVI"))
    befriend(xb, *others)
    hub = Exchange(xb)
    make_set(hub, "identified", [EntryDraft({"sha256": sha256("identified")})], handling=HandlingCode.H0)
    lengths, answered = set(), []
    for here in map(Exchange, others):
        [asked] = here.asking.plan("XB-NCVI", [sha256("identified").hex()], WHY, None).questions
        sealed, _ = hub.look_up_for(here.node.agency, here.look_up_question("XB-NCVI", asked))
        lengths.add(len(sealed))
        answered.append(any(here.look_up_answer("XB-NCVI", asked, sealed).slots))
    assert answered == [True, False]
    assert len(lengths) == 1


def test_a_purpose_that_no_rule_permits_is_told_nothing(world: World) -> None:
    asked = world.plan(sha256("identified")).questions[0]
    for why in Purpose:
        answer, _ = world.ask(replace(asked, question=replace(asked.question, purpose=why)))
        assert any(answer.slots) is (why in (Purpose.VICTIM_IDENTIFICATION, Purpose.SAFEGUARDING))


def test_an_onward_copy_is_answered_within_what_its_originator_granted(tmp_path: Path) -> None:
    """XC asks XB about XA's entries: one may go on to XC, of one the leave ends at XB."""
    network = chain(tmp_path, FakeClock(), 3, look_up_contact=CONTACT)
    xa, xb, xc = (network.members[name] for name in ("XA-NCVI", "XB-NCVI", "XC-NCVI"))
    set_rules(xb, "XC-NCVI", agreement("XB", "XC", actions=(*ACTIONS, "look_up", "share_contact")))
    for name, onward in (("granted", ("XB", "XC")), ("kept", ("XB",))):
        make_set(xa, name, [EntryDraft({"sha256": sha256(name)}, series="Blue Door")], onward=onward)
    asyncio.run(network.sync("XB-NCVI", "XA-NCVI").pull())

    def told_by_xb(name: str) -> list[Told]:
        [asked] = xc.asking.plan("XB-NCVI", [sha256(name).hex()], WHY, None).questions
        sealed, _ = xb.look_up_for("XC-NCVI", xc.look_up_question("XB-NCVI", asked))
        return [one for _, told, _ in asked.answers(xc.look_up_answer("XB-NCVI", asked, sealed)) for one in told]

    assert len(xb.lookup.find([sha256("granted").hex(), sha256("kept").hex()], actor="tester")) == 2
    [told] = told_by_xb("granted")
    assert (told.set_name, told.originator, told.contact) == ("XA-NCVI/granted", "XA-NCVI", "")
    assert told_by_xb("kept") == []
    # What XA no longer shows XB of it, XB does not tell.
    set_rules(xa, "XB-NCVI", agreement("XA", "XB", actions=[one for one in ACTIONS if one != "share_series"]))
    assert told.series == "Blue Door"
    asyncio.run(network.sync("XB-NCVI", "XA-NCVI").pull())
    assert [one.series for one in told_by_xb("granted")] == [""]


def test_a_partner_under_test_is_answered_from_invented_data_alone(tmp_path: Path) -> None:
    clock = FakeClock()
    xa, xb = (make_node(tmp_path, name, clock=clock, quorum=2) for name in ("XA-NCVI", "XB-NCVI"))
    enrol(xb, card_of(xa))
    for test in (True, False):
        enrol(xa, card_of(xb), test=test)
        made = World(clock, Exchange(xa), Exchange(xb), Exchange(xb))
        if test:
            for name in ("identified", "test-identified"):
                make_set(made.xa, name, [EntryDraft({"sha256": sha256(name)})])
        found = made.told(sha256("identified"), sha256("test-identified"))
        assert list(found) == [1 if test else 0]


@pytest.mark.parametrize("state", ["suspended", "removed", "pending"])
def test_who_is_no_active_partner_gets_what_a_stranger_gets(world: World, state: str) -> None:
    body = world.xb.look_up_question("XA-NCVI", world.plan(sha256("identified")).questions[0])
    set_state(world.xa.node, "XB-NCVI", state)
    with pytest.raises(NotFoundError, match="no such partner"):
        world.xa.look_up_for("XB-NCVI", body)
    assert events(world.xa.node, EventKind.LOOK_UP) == []


def test_nothing_is_answered_while_exchange_is_paused(world: World) -> None:
    body = world.xb.look_up_question("XA-NCVI", world.plan(sha256("identified")).questions[0])
    with world.xa.node.store.transaction() as tx:
        tx.people.pause(EVERYTHING, "a drill", world.clock())
    with pytest.raises(GatewayError, match="paused"):
        world.xa.look_up_for("XB-NCVI", body)


# Our own word

IDENTIFIED = Wish(VictimStatus.IDENTIFIED, contact="Unit 4")


def entry_of(world: World, name: str) -> str:
    [hit] = world.xa.lookup.find([sha256(name).hex()], actor="tester")
    return hit.entry


def test_what_we_have_asserted_since_counts_and_who_heard_it_is_noted(world: World) -> None:
    world.clock.advance(60)
    done = world.xa.statuses.set_entries(world.name, [entry_of(world, "a lead")], IDENTIFIED, actor="tester")
    world.clock.advance(60)
    [[told]] = world.told(sha256("a lead"), distance=None).values()
    assert (told.status, told.who, told.since) == (VictimStatus.IDENTIFIED, "XA-NCVI", done.assertion.at)
    with world.xa.node.store.reading() as tx:
        heard = {row.partner: row.version for row in tx.statuses.told(done.assertion.id)}
    assert heard == {"XB-NCVI": done.assertion.version}
    [shared] = [one for one in events(world.xa.node, EventKind.STATUS_SHARED) if one.details["outcome"] == "allow"]
    assert (shared.details["partner"], shared.details["assertion"]) == ("XB-NCVI", done.assertion.id)
    assert "xa-xb-look-up" in str(shared.details["rules"])
    # Whoever may have stopped searching for it hears that it was wrong.
    back = Wish(VictimStatus.UNIDENTIFIED, reason="another child")
    world.xa.statuses.set_entries(world.name, [entry_of(world, "a lead")], back, actor="tester")
    with world.xa.node.store.reading() as tx:
        [row] = tx.statuses.told(done.assertion.id)
    assert (row.partner, row.status, bool(row.due)) == ("XB-NCVI", "unidentified", True)
    [[told]] = world.told(sha256("a lead"), distance=None).values()
    assert told.status is VictimStatus.LEAD, "the label's own word stands"


def test_our_word_is_told_only_to_whom_policy_shows_that_status(tmp_path: Path) -> None:
    network = chain(tmp_path, FakeClock(), 2)
    xa, xb = network.members["XA-NCVI"], network.members["XB-NCVI"]
    rules = agreement("XA", "XB", actions=(*ACTIONS, "look_up"))
    name = make_set(xa, "found", [EntryDraft({"sha256": sha256("x"), "pdq": PDQ}, pdq_quality=90)])
    [hit] = xa.lookup.find([sha256("x").hex()], actor="tester")
    xa.statuses.set_entries(name, [hit.entry], IDENTIFIED, actor="tester")

    def said(digest: bytes) -> list[VictimStatus]:
        [asked] = xb.asking.plan("XA-NCVI", [digest.hex()], WHY, 31).questions
        sealed, _ = xa.look_up_for("XB-NCVI", xb.look_up_question("XA-NCVI", asked))
        return [one.status for _, told, _ in asked.answers(xb.look_up_answer("XA-NCVI", asked, sealed)) for one in told]

    hidden = rules.replace(
        'action == Action::"share_victim_status",\n  resource\n)',
        'action == Action::"share_victim_status",\n  resource\n) '
        'unless { resource.victim_status == VictimStatus::"identified" }',
    )
    assert hidden != rules
    for text, status in ((rules, VictimStatus.IDENTIFIED), (hidden, VictimStatus.UNKNOWN)):
        set_rules(xa, "XB-NCVI", text)
        assert said(sha256("x")) == [status]
        assert said(PDQ) == [VictimStatus.UNKNOWN], "of what looks alike nothing is asserted"


# What nobody can tell


@contextmanager
def statements(exchange: Exchange) -> Iterator[list[str]]:
    """The SQL that a gateway runs meanwhile, without its values, but with how many there are in each list."""
    seen: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_more: object) -> None:
        seen.append(statement)

    engine = exchange.node.store._engine
    event.listen(engine, "before_cursor_execute", note)
    yield seen
    event.remove(engine, "before_cursor_execute", note)


@pytest.mark.parametrize("digest", ["sha256", "pdq"])
def test_the_same_is_done_for_what_is_listed_hidden_or_absent(
    world: World, monkeypatch: pytest.MonkeyPatch, digest: str
) -> None:
    monkeypatch.setattr(answering, "OPENED", {16: 3, 256: 3, 4096: 3})
    prefix = "pdq of " if digest == "pdq" else ""
    world.told(sha256("identified"))  # decisions are on record from now on
    opened: list[int] = []
    get_all = shelf.Shelf.get_all

    def counted(self: shelf.Shelf, tx: Any, rows: Any, parts: Any = None) -> Any:
        opened.append(len(rows))
        return get_all(self, tx, rows, parts)

    monkeypatch.setattr(shelf.Shelf, "get_all", counted)
    done = {}
    for name in ("identified", "under H3", "sealed by a court", "nothing at all"):
        [asked] = world.plan(sha256(prefix + name)).questions
        opened.clear()
        with statements(world.xa) as run:
            answer, sealed = world.ask(asked)
        done[name] = run, list(opened), len(sealed), len(answer.dump())
        assert any(answer.slots) is (name == "identified")
    assert len(done["identified"][0]) > 5
    for name, found in done.items():
        assert found == done["identified"], name


def test_questions_and_answers_of_one_size_have_one_length_and_hide_what_is_meant(world: World) -> None:
    lengths: dict[int, set[tuple[int, int]]] = {}
    for count in (1, 16, 17, 200):
        digests = [sha256(f"digest {n}") for n in range(count - 1)] + [sha256("identified")]
        [asked] = world.plan(*digests, distance=None).questions
        question = world.xb.look_up_question("XA-NCVI", asked)
        sealed, slots = world.xa.look_up_for("XB-NCVI", question)
        lengths.setdefault(slots, set()).add((len(question), len(sealed)))
        assert len(set(asked.question.slots)) == slots, "no two alike"
        assert sorted(place for place in asked.places if place >= 0) == list(range(count))
    assert {slots: len(found) for slots, found in lengths.items()} == {16: 1, 256: 1}
    # The same digest stands elsewhere each time.
    places = {world.plan(sha256("identified"), distance=None).questions[0].places.index(0) for _ in range(30)}
    assert len(places) > 4


def test_an_answer_to_another_question_is_not_taken(world: World) -> None:
    first, second = (world.plan(sha256("identified")).questions[0] for _ in range(2))
    sealed, _ = world.xa.look_up_for("XB-NCVI", world.xb.look_up_question("XA-NCVI", first))
    with pytest.raises(MalformedError, match="another question"):
        world.xb.look_up_answer("XA-NCVI", second, sealed)


def test_another_partners_question_is_not_answered(world: World) -> None:
    body = world.xb.look_up_question("XA-NCVI", world.plan(sha256("identified")).questions[0])
    with pytest.raises(GatewayError):
        world.xa.look_up_for("XE-NCVI", body)


# What we tell by asking


def test_what_policy_hides_from_a_partner_is_not_even_asked(world: World) -> None:
    hidden = [
        EntryDraft({"sha256": sha256("ours")}, source_ref="1", handling=HandlingCode.H3),
        EntryDraft({"sha256": sha256("open")}, source_ref="2", handling=HandlingCode.H0),
    ]
    make_set(world.xb, "mine", hidden)
    plan = world.plan(sha256("ours"), sha256("open"), sha256("nowhere"), "ab" * 144)
    assert (plan.withheld, plan.unfit) == ({0}, {3})
    asked = {place for question in plan.questions for place in question.places}
    assert asked == {1, 2, -1}
    assert sha256("ours") not in {value for question in plan.questions for _, value in question.question.slots}


def test_what_came_from_the_partner_itself_may_be_asked(tmp_path: Path) -> None:
    network = chain(tmp_path, FakeClock(), 2)
    xa, xb = network.members["XA-NCVI"], network.members["XB-NCVI"]
    make_set(xa, "theirs", [EntryDraft({"sha256": sha256("x")})])
    make_set(xb, "ours", [EntryDraft({"sha256": sha256("y")})])
    asyncio.run(network.sync("XB-NCVI", "XA-NCVI").pull())
    set_rules(xb, "XA-NCVI", agreement("XB", "XA", actions=["receive"]))  # XB shows XA nothing
    asked = [sha256(name).hex() for name in ("x", "y")]
    assert xb.asking.plan("XA-NCVI", asked, WHY, None).withheld == {1}


def test_a_long_list_becomes_several_questions(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.exchange.asking.MAX_SLOTS", 16)
    digests = [sha256(f"digest {n}") for n in range(37)] + [sha256("identified")]
    plan = world.plan(*digests, distance=None)
    assert [len(one.question.slots) for one in plan.questions] == [16, 16, 16]
    assert list(world.told(*digests, distance=None)) == [37]


# What it costs


def test_each_question_is_one_leaf_with_counts_and_each_decision_a_receipt(world: World) -> None:
    world.told(sha256("identified"), sha256("under H3"), sha256("nothing"), distance=None)
    world.told(sha256("identified"), distance=None)
    here, there = events(world.xb.node, EventKind.LOOK_UP), events(world.xa.node, EventKind.LOOK_UP)
    assert [one.details["asked"] for one in here] == [3, 1]
    assert [(one.actor, one.details["asked"], one.details["answered"]) for one in there] == [("XB-NCVI", 16, 1)] * 2
    assert all(sha256("identified").hex() not in str(one) for one in [*here, *there])
    receipts = [one for one in events(world.xa.node, EventKind.SHARE_DECIDED) if one.details["action"] == LOOK_UP]
    assert len(receipts) == len(entries()), "one for each label, and once"
    assert {one.details["purpose"] for one in receipts} == {str(WHY)}
    allowed = [one for one in receipts if one.details["outcome"] == "allow"]
    assert all("xa-xb-look-up" in one.details["rules"] for one in allowed)
    assert len(allowed) == 2
    with world.xa.node.store.reading() as tx:
        judge = Judge(tx)
        again = [judge.decide_again(leaf) for leaf in judge.receipts()]
    assert all(one.same for one in again)
    assert len(again) == len(receipts)


def test_a_crash_before_the_commit_answers_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = world.plan(sha256("identified")).questions[0]
    body = world.xb.look_up_question("XA-NCVI", asked)
    calls = []

    def dies() -> None:
        calls.append(1)
        if len(calls) == 2:
            raise DeniedError("the power is out")

    with monkeypatch.context() as patch:
        patch.setattr(world.xa.node.store, "before_commit", dies)
        with pytest.raises(DeniedError):
            world.xa.look_up_for("XB-NCVI", body)
    assert events(world.xa.node, EventKind.LOOK_UP) == []
    with world.xa.node.store.reading() as tx:
        assert tx.look_ups.use("XB-NCVI").digests == 16, "what was asked has been asked"


def bounded(world: World, **settings: int) -> Exchange:
    node = world.xa.node
    return Exchange(replace(node, settings=replace(node.settings, **settings)))


def test_a_minute_has_so_many_questions_for_each_partner(world: World) -> None:
    world.clock.advance(-(world.clock() % 60))
    world.xa = bounded(world, look_ups_per_minute=2)
    for _ in range(2):
        world.told(sha256("identified"), distance=None)
    world.clock.advance(13)
    with pytest.raises(RateLimitedError) as caught:
        world.told(sha256("identified"), distance=None)
    assert caught.value.retry_after_seconds == 47
    assert world.told(sha256("identified"), who=world.xe, distance=None), "others are not held up"
    world.clock.advance(47)
    assert world.told(sha256("identified"), distance=None)


def test_a_day_has_so_many_digests_and_somebody_is_told(world: World) -> None:
    world.clock.advance(-(world.clock() % DAY_SECONDS) + 3_600)
    world.xa = bounded(world, look_up_digests_per_day=40)
    for _ in range(2):
        world.told(sha256("identified"), distance=None)
    for exchange in (world.xa, bounded(world, look_up_digests_per_day=40)):  # also after a restart, on any node
        world.xa = exchange
        with pytest.raises(RateLimitedError) as caught:
            world.told(sha256("identified"), distance=None)
        assert caught.value.retry_after_seconds == DAY_SECONDS - 3_600
    with world.xa.node.store.reading() as tx:
        [alarm] = tx.alarms.all()
    assert (alarm.kind, alarm.subject) == (AlarmKind.LOOK_UP_VOLUME, "XB-NCVI")
    assert len(events(world.xa.node, EventKind.ALARM_RAISED)) == 1
    body = world.xb.look_up_question("XA-NCVI", world.plan(sha256("identified"), distance=None).questions[0])
    world.xa.node.store.before_commit = lambda: pytest.fail("who is over its quota keeps nobody from writing")  # type: ignore[method-assign]
    with pytest.raises(RateLimitedError):
        world.xa.look_up_for("XB-NCVI", body)
    del world.xa.node.store.before_commit
    world.clock.advance(DAY_SECONDS - 3_600)
    assert world.told(sha256("identified"), distance=None)


def test_an_unusual_volume_is_an_alarm_long_before_the_quota(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "UNUSUAL_DIGESTS", 32)
    for _ in range(2):
        world.told(sha256("identified"), distance=None)
    assert events(world.xa.node, EventKind.ALARM_RAISED) == []
    assert world.told(sha256("identified"), distance=None)
    [raised] = events(world.xa.node, EventKind.ALARM_RAISED)
    assert (raised.subject, raised.details["kind"]) == ("XB-NCVI", "look_up_volume")


def test_what_is_usual_follows_the_days() -> None:
    use, days = LookUpUse(partner="XB-NCVI"), []
    for day in range(1, 40):
        use = _at(use, day * DAY_SECONDS)
        use.digests += 8_000
        days.append(use.usual)
    assert days[0] == 0
    assert 7_500 < days[-1] <= 8_000
    assert days == sorted(days)
    quiet = _at(use, 400 * DAY_SECONDS)
    assert (quiet.digests, quiet.usual < 4_000) == (0, True)
    assert _wait(quiet, 16, 400 * DAY_SECONDS, 16, 1) == 0
    assert _wait(quiet, 17, 400 * DAY_SECONDS, 16, 1) == DAY_SECONDS


# Over HTTP


async def test_a_question_goes_over_http_and_its_answer_leaves_on_a_beat(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    sleep = asyncio.sleep

    async def noted(seconds: float, *more: Any) -> Any:
        slept.append(seconds)
        return await sleep(0, *more)

    [asked] = world.plan(sha256("identified"), distance=None).questions
    async with serving(world.xa), link_to(world.xa.node, world.xb.node) as link:
        question = await asyncio.to_thread(world.xb.look_up_question, "XA-NCVI", asked)
        monkeypatch.setattr(native.asyncio, "sleep", noted)
        sealed = await link.look_up(question)
        monkeypatch.undo()
        answer = world.xb.look_up_answer("XA-NCVI", asked, sealed)
        assert [told[0].status for _, told, _ in asked.answers(answer)] == [VictimStatus.IDENTIFIED]
        assert [0 < seconds <= native.BEAT_SECONDS[16] for seconds in slept] == [True]


async def test_over_its_budget_a_partner_hears_when_to_come_back(world: World) -> None:
    world.xa = bounded(world, look_up_digests_per_day=16)
    async with serving(world.xa), link_to(world.xa.node, world.xb.node) as link:
        for number in range(2):
            [asked] = world.plan(sha256("identified"), distance=None).questions
            question = world.xb.look_up_question("XA-NCVI", asked)
            if number:
                with pytest.raises(RateLimitedError) as caught:
                    await link.look_up(question)
                assert 0 < caught.value.retry_after_seconds <= DAY_SECONDS
            else:
                await link.look_up(question)


async def test_what_is_no_question_is_refused_at_the_door(world: World) -> None:
    async with serving(world.xa), link_to(world.xa.node, world.xb.node) as link:
        head = world.xa.head_for("XB-NCVI", world.name)
        for body in (b"x" * 5000, head.body):
            with pytest.raises(GatewayError):
                await link.look_up(body)
        async with aiohttp.ClientSession() as session:
            answer = await session.post(f"{world.xa.node.settings.public_url}/v1/look-up", data=b"x")
            assert answer.status == 401


def test_a_contact_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="look_up_contact"):
        make_node(tmp_path, clock=FakeClock(), look_up_contact="two\nlines")


def test_the_budget_is_one_for_all_nodes_of_a_gateway(world: World) -> None:
    world.told(sha256("identified"), distance=None)
    beside = Exchange(reopened(world.xa.node))
    world.xa = beside
    world.told(sha256("identified"), distance=None)
    with beside.node.store.reading() as tx:
        assert tx.look_ups.use("XB-NCVI").digests == 32
    beside.node.store.close()


def test_questions_carry_no_more_than_their_contract(world: World) -> None:
    [asked] = world.plan(sha256("identified"), distance=None).questions
    assert Question.parse(asked.question.dump()) == asked.question
