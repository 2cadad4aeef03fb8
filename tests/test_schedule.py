"""The schedule: one node runs one slot, a dead node is replaced, a failing partner is asked later and later."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest

import gateway.store
from factory import FakeClock, befriend, drafts, make_node, make_set, reopened, set_state
from gateway import audit
from gateway.errors import ConflictError, NotFoundError, OverloadedError, PartnerError
from gateway.exchange import Exchange
from gateway.interchange import IdentityCard
from gateway.store.tables import ScheduleRow
from gateway.sync import LEASE_SECONDS, MAX_BACKOFF_SECONDS, MAX_RUNS_AT_ONCE, JobStatus, Run, Schedule
from partner_simulator import MemoryLink, Network, here

INTERVAL = 300  # of the settings, unless a test says otherwise
HUB, PEER, THIRD = "XA-NCVI", "XB-NCVI", "XC-NCVI"
DAY = 86_400


@dataclass
class Held(MemoryLink):
    """A link that stops when it is asked for the mailbox, until it is let go."""

    gate: asyncio.Event
    asked: asyncio.Event

    async def mailbox(self, after: int) -> bytes | None:
        self.asked.set()
        await self.gate.wait()
        return await super().mailbox(after)


@dataclass
class Setting:
    """Three gateways; XA's schedule, on one or several nodes."""

    network: Network
    clock: FakeClock
    visits: list[tuple[str, int]] = field(default_factory=list)
    exchanges: list[Exchange] = field(default_factory=list)

    @property
    def hub(self) -> Exchange:
        return self.network.members[HUB]

    def schedule(self, exchange: Exchange | None = None, *, run: Run = here, owner: str = "") -> Schedule:
        @asynccontextmanager
        async def link_for(card: IdentityCard) -> AsyncIterator[MemoryLink]:
            self.visits.append((card.agency, self.clock()))
            yield MemoryLink(self.network, HUB, card.agency)

        return Schedule(exchange or self.hub, link_for, run=run, owner=owner)

    def held(self, exchange: Exchange, only: str = PEER) -> tuple[Schedule, asyncio.Event, asyncio.Event]:
        """A schedule whose run with one partner stops in the middle: (schedule, let it go, it has begun)."""
        gate, asked = asyncio.Event(), asyncio.Event()

        @asynccontextmanager
        async def link_for(card: IdentityCard) -> AsyncIterator[MemoryLink | Held]:
            if card.agency == only:
                yield Held(self.network, HUB, card.agency, gate, asked)
            else:
                yield MemoryLink(self.network, HUB, card.agency)

        return Schedule(exchange, link_for, run=here), gate, asked

    def second_node(self) -> Exchange:
        """Another node over the same database."""
        exchange = Exchange(reopened(self.hub.node, seed=f"node {len(self.exchanges)}"))
        self.exchanges.append(exchange)
        return exchange

    def row(self, partner: str = PEER) -> ScheduleRow:
        with self.hub.node.store.reading() as tx:
            return next(row for row in tx.schedule.jobs() if row.partner == partner)

    def status(self, partner: str = PEER) -> JobStatus:
        return next(line for line in self.schedule().status() if line.partner == partner)

    def failures_logged(self) -> list[dict[str, object]]:
        with self.hub.node.store.reading() as tx:
            events = [audit.parse_event(row.event_bytes) for row in tx.log.leaves() if row.event_bytes]
        return [event.details for event in events if event.kind is audit.EventKind.SYNC_FAILED]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def world(tmp_path: Path, clock: FakeClock) -> Iterator[Setting]:
    nodes = [make_node(tmp_path, agency, clock=clock) for agency in (HUB, PEER, THIRD)]
    befriend(*nodes)
    network = Network()
    for node in nodes:
        network.join(node)
    setting = Setting(network, clock)
    yield setting
    for exchange in [*network.members.values(), *setting.exchanges]:
        exchange.node.store.close()


# What is planned, and when it runs


def test_every_active_partner_has_a_job_and_nobody_else(world: Setting) -> None:
    schedule = world.schedule()
    schedule.plan()
    assert [line.partner for line in schedule.status()] == [PEER, THIRD]
    set_state(world.hub.node, THIRD, "suspended")
    schedule.plan()
    assert [line.partner for line in schedule.status()] == [PEER]
    set_state(world.hub.node, THIRD, "active")
    schedule.plan()
    assert [line.partner for line in schedule.status()] == [PEER, THIRD]


async def test_a_job_that_was_planned_again_keeps_its_time(world: Setting, clock: FakeClock) -> None:
    await world.schedule().tick()
    before = world.row()
    clock.advance(10)
    with world.hub.node.store.transaction() as tx:
        tx.schedule.put(before.job, PEER, 2 * INTERVAL, clock())
    after = world.row()
    assert (after.next_run, after.interval_seconds, after.last_success) == (
        before.next_run,
        2 * INTERVAL,
        before.last_success,
    )


@pytest.mark.once
async def test_each_partner_is_asked_once_an_interval(world: Setting, clock: FakeClock) -> None:
    schedule = world.schedule()
    for _ in range(12 * INTERVAL // 15):
        await schedule.tick()
        clock.advance(15)
    times = [at for partner, at in world.visits if partner == PEER]
    assert 11 <= len(times) <= 14
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert all(0.9 * INTERVAL - 15 <= gap <= 1.1 * INTERVAL + 15 for gap in gaps)
    assert len(set(gaps)) > 2  # jitter: partners that started together do not go on asking together


async def test_slots_missed_while_nobody_ran_are_one_run(world: Setting, clock: FakeClock) -> None:
    schedule = world.schedule()
    assert await schedule.tick() == 2
    clock.advance(10 * DAY)
    assert await schedule.tick() == 2
    assert await schedule.tick() == 0
    assert clock() < world.row().next_run <= clock() + 1.1 * INTERVAL


async def test_a_run_brings_news_and_says_so(world: Setting, clock: FakeClock) -> None:
    make_set(world.network.members[PEER], "identified", drafts(5))
    clock.advance(7)
    await world.schedule().tick()
    line = world.status()
    assert (line.state, line.last_success, line.lag_changes, line.failures, line.last_error) == (
        "waiting",
        clock(),
        0,
        0,
        "",
    )
    assert clock() + 0.9 * INTERVAL <= line.next_run <= clock() + 1.1 * INTERVAL
    assert world.hub.mirrors.cursor(f"{PEER}/identified").seq == 5
    with world.hub.node.store.reading() as tx:
        assert tx.people.partner(PEER).contacted == clock()


@pytest.mark.once
async def test_the_clock_may_jump_a_day_and_no_partner_is_asked_twice_or_forgotten(
    world: Setting, clock: FakeClock
) -> None:
    schedule, source, watch = world.schedule(), random.Random(45), 0  # the watch does not jump
    asked, jumps = [0], []
    for step in range(1, 240):
        if step % 30 == 0:
            clock.advance(source.choice((DAY, -DAY, 3600, -3600)))
            jumps.append(watch)
        before = len(world.visits)
        await schedule.tick()
        asked += [watch] * sum(partner == PEER for partner, _ in world.visits[before:])
        assert watch - asked[-1] <= 1.1 * INTERVAL + 30, f"forgotten after {jumps[-1:]}"
        clock.advance(30)
        watch += 30
    early = [(a, b) for a, b in pairwise(asked) if b - a < 0.9 * INTERVAL - 30 and b]
    assert len(asked) > 20
    assert len(early) <= len(jumps)
    assert all(any(a <= jump <= b for jump in jumps) for a, b in early)


# Several nodes on one database


async def test_two_nodes_never_run_one_slot(world: Setting, clock: FakeClock) -> None:
    schedules = [world.schedule(run=asyncio.to_thread)] + [
        world.schedule(world.second_node(), run=asyncio.to_thread) for _ in range(2)
    ]
    for slot in range(6):
        claimed = await asyncio.gather(*(schedule.tick() for schedule in schedules))
        assert sum(claimed) == 2, f"slot {slot}"
        clock.advance(2 * INTERVAL)
    assert len(world.visits) == 12
    assert world.row().lease_fence == 6


async def test_a_run_in_progress_is_left_alone_until_its_lease_ends(world: Setting, clock: FakeClock) -> None:
    first, gate, asked = world.held(world.hub)
    running = asyncio.create_task(first.tick())
    await asked.wait()
    assert world.status().state == "running"
    second = world.schedule(world.second_node())
    clock.advance(LEASE_SECONDS - 1)
    await second.tick()
    assert [partner for partner, _ in world.visits if partner == PEER] == []
    with pytest.raises(ConflictError):
        await second.run_now(PEER)
    gate.set()
    await running
    assert world.status().state == "waiting"


async def test_a_node_that_died_is_taken_over_when_its_lease_ends(world: Setting, clock: FakeClock) -> None:
    first, _, asked = world.held(world.hub)
    running = asyncio.create_task(first.tick())
    await asked.wait()
    running.cancel()  # it will never say that it has ended
    fence = world.row().lease_fence
    second = world.schedule(world.second_node())
    clock.advance(LEASE_SECONDS)
    assert await second.tick() >= 1
    row = world.row()
    assert (row.lease_fence, row.lease_until, row.failures, row.last_success) == (fence + 1, 0, 0, clock())


@pytest.mark.parametrize("end", ["well", "badly"])
async def test_a_late_finisher_writes_nothing(world: Setting, clock: FakeClock, end: str) -> None:
    first, gate, asked = world.held(world.hub)
    running = asyncio.create_task(first.tick())
    await asked.wait()
    second = world.schedule(world.second_node())
    clock.advance(LEASE_SECONDS + 5)
    await second.tick()
    written, contacted = world.row(), clock()
    clock.advance(60)
    if end == "badly":
        world.network.offline.add(PEER)
    gate.set()
    await running
    assert world.row() == written
    assert world.failures_logged() == []
    with world.hub.node.store.reading() as tx:
        assert tx.people.partner(PEER).contacted == contacted


def test_a_lost_lease_can_be_neither_kept_nor_ended(world: Setting) -> None:
    world.schedule().plan()
    with world.hub.node.store.transaction() as tx:
        old = tx.schedule.claim(f"sync {PEER}", "one", world.clock(), 10)
        assert old is not None
        assert tx.schedule.claim(f"sync {PEER}", "two", world.clock() + 9, 10) is None
        assert tx.schedule.renew(f"sync {PEER}", old, world.clock() + 9, 10)
        assert tx.schedule.claim(f"sync {PEER}", "two", world.clock() + 18, 10) is None
        new = tx.schedule.claim(f"sync {PEER}", "two", world.clock() + 19, 10)
        assert new == old + 1
        assert not tx.schedule.renew(f"sync {PEER}", old, world.clock() + 19, 10)
        assert not tx.schedule.succeed(f"sync {PEER}", old, 1, 1, 0)
        assert not tx.schedule.fail(f"sync {PEER}", old, 1, "late")
    row = world.row()
    assert (row.lease_owner, row.lease_fence, row.failures, row.last_error) == ("two", new, 0, "")


# Failures


async def test_a_partner_that_fails_is_asked_later_and_later_up_to_an_hour(world: Setting, clock: FakeClock) -> None:
    schedule = world.schedule()
    world.network.offline.add(PEER)
    waits = []
    for attempt in range(9):
        await schedule.tick()
        row = world.row()
        waits.append(row.next_run - clock())
        assert row.failures == attempt + 1
        assert world.status().state == "failing"
        assert world.status().last_error.startswith("PartnerError: ")
        clock.now = row.next_run
    expected = [min(MAX_BACKOFF_SECONDS, INTERVAL * 2**n) for n in range(9)]
    assert expected[-1] == expected[-3] == MAX_BACKOFF_SECONDS
    for wait, planned in zip(waits, expected, strict=True):
        assert 0.9 * planned <= wait <= 1.1 * planned
    assert [one["attempts"] for one in world.failures_logged()] == list(range(1, 10))
    world.network.offline.clear()
    await schedule.tick()
    assert (world.row().failures, world.status().state, world.status().last_error) == (0, "waiting", "")


async def test_jitter_stays_within_a_tenth_and_uses_all_of_it(world: Setting) -> None:
    schedule = world.schedule()
    waits = [schedule._jittered(1000) for _ in range(2000)]
    assert (min(waits), max(waits)) == (900, 1100)
    assert {schedule._jittered(1) for _ in range(50)} == {1, 2}


async def test_one_partner_that_fails_keeps_nobody_else_waiting(world: Setting) -> None:
    world.network.offline.add(PEER)
    assert await world.schedule().tick() == 2
    assert world.status(PEER).state == "failing"
    assert world.status(THIRD).state == "waiting"
    assert world.status(THIRD).last_success == world.clock()


async def test_one_partner_that_hangs_keeps_nobody_else_waiting(world: Setting) -> None:
    schedule, gate, asked = world.held(world.hub)
    running = asyncio.create_task(schedule.tick())
    await asked.wait()
    for _ in range(50):
        await asyncio.sleep(0)
    assert (world.status(PEER).state, world.status(THIRD).state) == ("running", "waiting")
    gate.set()
    await running


async def test_a_run_that_moves_nothing_is_ended_before_its_lease(
    world: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.sync.LEASE_SECONDS", 31)
    monkeypatch.setattr("gateway.sync.BEATS_OF_A_LEASE", 31 / 0.03)
    schedule, _, _ = world.held(world.hub)
    async with asyncio.timeout(20):
        await schedule.tick()
    assert world.status().last_error == "PartnerError: the run took too long"
    assert world.row().lease_until == 0


@dataclass
class Trickling(MemoryLink):
    """A link over which something comes all the time, for a while."""

    setting: Setting
    steps: int
    moved: int = 0

    @property
    def moved_bytes(self) -> int:
        return self.moved + super().moved_bytes

    async def mailbox(self, after: int) -> bytes | None:
        for _ in range(self.steps):
            self.moved += 1
            self.setting.clock.advance(4)
            await asyncio.sleep(0.05)
        return await super().mailbox(after)


def trickling(world: Setting, monkeypatch: pytest.MonkeyPatch, steps: int) -> Schedule:
    """A schedule in which a run that moves nothing ends after a second; the one with PEER goes on for longer."""
    monkeypatch.setattr("gateway.sync.LEASE_SECONDS", 31)
    monkeypatch.setattr("gateway.sync.BEATS_OF_A_LEASE", 31 / 0.03)

    @asynccontextmanager
    async def link_for(card: IdentityCard) -> AsyncIterator[MemoryLink]:
        link = Trickling(world.network, HUB, card.agency, world, steps)
        yield link if card.agency == PEER else MemoryLink(world.network, HUB, card.agency)

    return Schedule(world.hub, link_for, run=here)


async def test_a_run_over_which_something_comes_goes_on_and_keeps_its_lease(
    world: Setting, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = clock()
    running = asyncio.create_task(trickling(world, monkeypatch, 30).tick())
    await until(lambda: clock() >= began + 100)
    assert world.row().lease_until > clock()  # three leases later, and nobody else takes the run
    await running
    assert (world.row().failures, world.row().last_success, world.row().lease_until) == (0, clock(), 0)


async def test_a_run_that_another_node_has_taken_over_ends(
    world: Setting, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    visits = len(world.network.requests)
    running = asyncio.create_task(trickling(world, monkeypatch, 1_000).tick())
    await until(lambda: world.row().lease_until > 0 if len(world.network.requests) > visits else False)
    with world.hub.node.store.transaction() as tx:
        assert tx.schedule.claim(f"sync {PEER}", "another", clock() + 40, 300) is not None
    taken = world.row()
    async with asyncio.timeout(20):
        await running
    assert world.row() == taken
    assert world.failures_logged() == []


async def test_runs_on_slow_links_keep_nobody_waiting(world: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.sync.MAX_RUNS_AT_ONCE", 1)
    monkeypatch.setattr("gateway.sync.MAX_SLOW_RUNS", 1)
    monkeypatch.setattr("gateway.sync.SLOW_RUN_SECONDS", 0.05)
    schedule, gate, asked = world.held(world.hub)
    first = asyncio.create_task(schedule.tick())
    await asked.wait()
    await asyncio.sleep(0.1)
    assert await schedule.tick() == 1
    assert (world.status(PEER).state, world.status(THIRD).state) == ("running", "waiting")
    gate.set()
    await first


async def test_so_many_runs_at_once_and_no_more(world: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_RUNS_AT_ONCE > 1
    monkeypatch.setattr("gateway.sync.MAX_RUNS_AT_ONCE", 1)
    schedule, gate, asked = world.held(world.hub, only=PEER)
    first = asyncio.create_task(schedule.tick())
    await asked.wait()
    assert await schedule.tick() == 0
    assert world.row(THIRD).last_start == 0
    gate.set()
    await first
    assert await schedule.tick() == 1
    assert world.row(THIRD).last_success == world.clock()


# Pausing


@pytest.mark.parametrize(("scope", "still"), [(PEER, [THIRD]), ("*", [])])
async def test_what_is_paused_is_skipped_and_shown_as_paused(
    world: Setting, clock: FakeClock, scope: str, still: list[str]
) -> None:
    with world.hub.node.store.transaction() as tx:
        assert tx.people.pause(scope, "tester", clock())
    await world.schedule().tick()
    assert [partner for partner, _ in world.visits] == still
    states = {line.partner: line.state for line in world.schedule().status()}
    assert {partner for partner, state in states.items() if state == "paused"} == {PEER, THIRD} - set(still)
    clock.advance(DAY)
    with world.hub.node.store.transaction() as tx:
        assert tx.people.resume(scope)
    await world.schedule().tick()
    assert world.status().state == "waiting"
    assert world.row().failures == 0


async def test_a_pause_in_the_middle_of_a_run_ends_it(world: Setting, clock: FakeClock) -> None:
    schedule, gate, asked = world.held(world.hub)
    running = asyncio.create_task(schedule.tick())
    await asked.wait()
    make_set(world.network.members[PEER], "identified", drafts(3))
    with world.hub.node.store.transaction() as tx:
        tx.people.pause(PEER, "tester", clock())
    gate.set()
    await running
    assert world.status().state == "paused"
    assert world.hub.mirrors.cursor(f"{PEER}/identified").seq == 0


# By hand


async def test_run_now_runs_early_tells_its_error_and_counts_as_a_run(world: Setting, clock: FakeClock) -> None:
    schedule = world.schedule()
    await schedule.tick()
    clock.advance(5)
    await schedule.run_now(PEER)
    assert world.row().last_success == clock()
    world.network.offline.add(PEER)
    with pytest.raises(PartnerError):
        await schedule.run_now(PEER)
    assert world.row().failures == 1
    with pytest.raises(NotFoundError):
        await schedule.run_now("XD-NCVI")


# The real scheduler


async def until(happened: Callable[[], bool], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not happened():
            await asyncio.sleep(0.02)


async def test_run_forever_wakes_runs_and_ends_without_a_trace(
    world: Setting, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.sync.WAKE_SECONDS", 0.05)
    others = asyncio.all_tasks()
    forever = asyncio.create_task(world.schedule(run=asyncio.to_thread).run_forever())
    await until(lambda: world.row().last_success == clock() if world.visits else False)
    clock.advance(2 * INTERVAL)
    await until(lambda: world.row().last_success == clock())
    forever.cancel()
    with pytest.raises(asyncio.CancelledError):
        await forever
    assert asyncio.all_tasks() == others
    visits = len(world.visits)
    clock.advance(2 * INTERVAL)
    await asyncio.sleep(0.2)
    assert len(world.visits) == visits


async def test_run_forever_cancels_a_run_in_the_middle_and_another_node_goes_on(
    world: Setting, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.sync.WAKE_SECONDS", 0.05)
    others = asyncio.all_tasks()
    schedule, _, asked = world.held(world.hub)
    forever = asyncio.create_task(schedule.run_forever())
    async with asyncio.timeout(20):
        await asked.wait()
    forever.cancel()
    with pytest.raises(asyncio.CancelledError):
        await forever
    assert asyncio.all_tasks() == others
    assert world.row().failures == 0
    clock.advance(LEASE_SECONDS)
    await world.schedule(world.second_node()).tick()
    assert world.row().last_success == clock()


async def test_a_database_that_cannot_be_written_is_asked_again_at_the_next_wake_up(
    world: Setting, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.sync.WAKE_SECONDS", 0.05)
    monkeypatch.setattr(gateway.store, "BUSY_TIMEOUT_MS", 20)
    busy = world.second_node()  # its connections wait no longer than that
    with world.hub.node.store.transaction():
        with pytest.raises(OverloadedError):
            await world.schedule(busy).tick()
        forever = asyncio.create_task(world.schedule(busy, run=asyncio.to_thread).run_forever())
        await asyncio.sleep(0.5)
        assert not forever.done()
        assert world.visits == []
    await until(lambda: bool(world.visits))
    forever.cancel()
    with pytest.raises(asyncio.CancelledError):
        await forever
