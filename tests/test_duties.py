"""Duties that come with entries: what is due goes for good, what is to be told is told, and both ends still agree."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chain import agreement, chain, contents, set_rules, sync_down, sync_up
from factory import FakeClock, SeededRandom, befriend, drafts, events, make_node, make_set, reopened
from gateway import audit, standing
from gateway.alarms import AlarmKind, sweep
from gateway.audit import EventKind
from gateway.columns import digest
from gateway.columns.block import decode
from gateway.crypto.keys import SigningKey
from gateway.errors import DeniedError, OverloadedError
from gateway.exchange import Exchange
from gateway.exchange.changes import CONTENT_PARTS, Sums
from gateway.exchange.contents import kept_items
from gateway.exchange.duties import ON_HOLD, OUTSTANDING, OVERDUE, PURGED_BLOCKS, OpenDuty, Purged
from gateway.exchange.erasing import erase
from gateway.exchange.labels import digest_key
from gateway.exchange.shelf import BARE, BARRED, CHANGES, EXPIRED, REFUSED, block_id
from gateway.interchange import START, LabelView
from gateway.keyadmin import approvals, bootstrap_administrator
from gateway.keystore import PersonalKey
from gateway.model import EntryDraft, FieldGroup, HandlingCode, Restriction
from gateway.node import own_log
from gateway.store.tables import BlockRow
from partner_simulator import Network, held_entries

SET = "XA-NCVI/identified"
DAY = 86_400
FIRST = 1 << 48 | 1  # the id of the first entry of a set
SHARES = "XA/agreement-xb.cedar"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def network(tmp_path: Path, clock: FakeClock) -> Iterator[Network]:
    """XA, whose entries XB may hold for ten days under H0 and H1, for 730 under H2."""
    nodes = [make_node(tmp_path, agency, clock=clock) for agency in ("XA-NCVI", "XB-NCVI")]
    befriend(*nodes)
    network = Network()
    for node in nodes:
        network.join(node)
    make_set(network.members["XA-NCVI"], "identified")
    ask(network.members["XA-NCVI"], "no_onward, retain_days(365)", "no_onward, retain_days(10)")
    yield network
    for node in nodes:
        node.store.close()


@pytest.fixture
def xa(network: Network) -> Exchange:
    return network.members["XA-NCVI"]


@pytest.fixture
def xb(network: Network) -> Exchange:
    return network.members["XB-NCVI"]


def ask(exchange: Exchange, old: str, new: str, path: str = SHARES) -> None:
    """Change the duties in a policy."""
    texts = dict(exchange.node.policies.texts)
    assert f'@obligation("{old}")' in texts[path]
    texts[path] = texts[path].replace(f'@obligation("{old}")', f'@obligation("{new}")')
    exchange.node.policies.texts, exchange.node.policies._loaded = texts, None


def take(exchange: Exchange, entries: list[EntryDraft]) -> None:
    exchange.ledger.import_entries(SET, entries, actor="tester", form="test")


def sync(network: Network) -> str:
    [report] = asyncio.run(network.sync("XB-NCVI", "XA-NCVI").pull())
    return report.equality


def restarted(exchange: Exchange) -> Exchange:
    """The same gateway with nothing in memory."""
    return Exchange(reopened(exchange.node, seed="another process"))


def blocks_of(exchange: Exchange) -> list[BlockRow]:
    with exchange.node.store.reading() as tx:
        return tx.blocks.of_set(tx.sets.get(SET).id or 0)


def kinds_of(exchange: Exchange) -> dict[str, int]:
    """Rows by the kind of their blocks."""
    found: dict[str, int] = {}
    for row in blocks_of(exchange):
        found[row.kind] = found.get(row.kind, 0) + row.count
    return found


def assert_sound(exchange: Exchange) -> None:
    """The log verifies and names every block, sums are those of the content, and bare blocks hold no value."""
    node = exchange.node
    with node.store.reading() as tx:
        audit.verify_log(tx.log.leaves(), tx.log.nodes(), tx.log.checkpoints(), own_log(node, tx).verifier)
        standing.check(tx, node)
        leaves = {row.index: row.entry for row in tx.log.leaves()}
        for hash_set in tx.sets.stored():
            assert hash_set.id is not None
            key = digest_key(node, hash_set)
            kept, anew = (Sums(tx, hash_set.id, key) for _ in range(2))
            anew.drop()
            for row in tx.blocks.of_set(hash_set.id):
                assert leaves[row.leaf] == audit.block_entry(row.digest)
                with exchange.shelf.index(tx, hash_set.id) as index:
                    live = index.live_rows(block_id(row))
                block = exchange.shelf.get(tx, row)
                rows = decode(block)
                if row.kind == CHANGES and live.any():
                    anew.add([(row.label, rows.take(live), CONTENT_PARTS & set(block.parts))])
                elif row.kind in BARE:
                    assert set(rows.columns) <= {"kind", "seq", "entry_id", "version"}
                    for part, items in kept_items(exchange.shelf.items(tx, row), row.count).items():
                        anew.move(row.label, part, digest.sum_items(items[live]))
            assert (kept.state(), kept.entries()) == (anew.state(), anew.entries()), hash_set.name


# Keeping no longer than N days


def test_what_came_goes_after_its_days_and_both_ends_still_agree(
    network: Network, xa: Exchange, xb: Exchange, clock: FakeClock
) -> None:
    take(xa, drafts(10, series="Blue Door"))
    assert sync(network) == "equal"
    clock.advance(4 * DAY)
    take(xa, drafts(3, first=10))
    assert sync(network) == "equal"
    clock.advance(6 * DAY - 1)
    assert xb.duties.purge(SET) == Purged()
    clock.advance(1)
    assert xb.duties.purge(SET) == Purged(10, 10, 1)
    assert sorted(held_entries(xb, SET)) == [FIRST + number for number in (10, 11, 12)]
    assert kinds_of(xb) == {CHANGES: 3, EXPIRED: 10}
    assert xb.lookup.find([drafts(1)[0].digests["sha256"].hex()], actor="tester") == []
    assert xb.duties.purge(SET) == Purged()
    assert_sound(xb)
    assert_sound(restarted(xb))
    # The hub, which still lists them, has the same state, and nothing comes again.
    assert sync(network) == "equal"
    take(xa, drafts(1, first=20))
    assert sync(network) == "equal"
    assert len(held_entries(xb, SET)) == 4
    assert len(held_entries(xa, SET)) == 14


def test_no_value_of_it_stays_in_the_database(network: Network, xa: Exchange, xb: Exchange, clock: FakeClock) -> None:
    take(xa, drafts(5, series="Blue Door"))
    sync(network)
    old = blocks_of(xb)
    with xb.node.store.reading() as tx:
        sealed = [octets for row in old for octets in tx.blocks.parts(block_id(row)).values()]
    clock.advance(10 * DAY)
    xb.duties.purge(SET)
    with xb.node.store.reading() as tx:
        assert tx.blocks.some([block_id(row) for row in old]) == {}
        assert all(tx.blocks.parts(block_id(row)) == {} for row in old)
    if xb.node.settings.database_url.startswith("sqlite"):
        files = [path.read_bytes() for path in xb.node.settings.folder.glob("gateway.db*")]
        assert not any(octets in raw for raw in files for octets in sealed)
        assert not any(row.wrapped_key in raw for raw in files for row in old)


def test_a_leaf_binds_old_and_new_blocks_and_names_the_duty(
    network: Network, xa: Exchange, xb: Exchange, clock: FakeClock
) -> None:
    take(xa, drafts(4, handling=HandlingCode.H0) + drafts(3, first=4, handling=HandlingCode.H1))
    sync(network)
    before = {row.digest.hex() for row in blocks_of(xb)}
    clock.advance(10 * DAY)
    xb.duties.purge(SET)
    [told] = events(xb.node, EventKind.ENTRIES_PURGED)
    assert (told.subject, told.actor) == (SET, "XB-NCVI")
    named = {name: told.details[name] for name in ("set", "entries", "rows", "labels", "duties")}
    assert named == {"set": SET, "entries": 7, "rows": 7, "labels": 2, "duties": ["retain_days(10)"]}
    pairs = told.details["rewritten"]
    assert isinstance(pairs, list)
    assert {old for old, _ in pairs} == before
    assert {new for _, new in pairs} == {row.digest.hex() for row in blocks_of(xb)}


def test_the_strictest_days_of_all_duties_count_our_own_rules_among_them(
    network: Network, xa: Exchange, xb: Exchange, clock: FakeClock
) -> None:
    """Under H1 two permits of XA's decide, 730 and 10 days; of XB's own, the one that takes entries in."""
    ask(xb, "acknowledge_within_days(1)", "retain_days(3)", "XB/agreement-xa.cedar")
    take(xa, drafts(2, handling=HandlingCode.H2))
    sync(network)
    clock.advance(3 * DAY)
    assert xb.duties.purge(SET).entries == 2
    assert sync(network) == "equal"


def test_a_newer_version_comes_anew_with_a_time_of_its_own(
    network: Network, xa: Exchange, xb: Exchange, clock: FakeClock
) -> None:
    take(xa, drafts(2))
    sync(network)
    clock.advance(10 * DAY)
    assert xb.duties.purge(SET).entries == 2
    take(xa, drafts(1, series="Red Door"))
    assert sync(network) == "equal"
    assert sorted(held_entries(xb, SET)) == [FIRST]
    clock.advance(10 * DAY - 1)
    assert xb.duties.purge(SET) == Purged()
    clock.advance(1)
    assert xb.duties.purge(SET).entries == 1
    assert sync(network) == "equal"
    assert_sound(xb)


def test_a_replaced_row_goes_with_its_block_and_the_newer_one_stays(
    network: Network, xa: Exchange, xb: Exchange, clock: FakeClock
) -> None:
    take(xa, drafts(3))
    sync(network)
    clock.advance(5 * DAY)
    take(xa, drafts(1, series="Red Door"))
    sync(network)
    clock.advance(5 * DAY)
    assert xb.duties.purge(SET) == Purged(2, 3, 1)
    assert sorted(held_entries(xb, SET)) == [FIRST]
    assert sync(network) == "equal"
    assert_sound(xb)


def test_a_term_that_the_hub_shortens_counts_for_what_is_held_already(
    network: Network, xa: Exchange, xb: Exchange, clock: FakeClock
) -> None:
    take(xa, drafts(3))
    sync(network)
    clock.advance(2 * DAY)
    ask(xa, "no_onward, retain_days(10)", "no_onward, retain_days(1)")
    assert sync(network) == "equal"
    clock.advance(DAY)
    assert xb.duties.purge(SET).entries == 3
    assert sync(network) == "equal"
    assert_sound(xb)


def test_what_was_purged_can_be_withdrawn_by_its_hub(
    network: Network, xa: Exchange, xb: Exchange, clock: FakeClock
) -> None:
    take(xa, drafts(3))
    sync(network)
    clock.advance(10 * DAY)
    xb.duties.purge(SET)
    xa.ledger.withdraw(SET, [FIRST + 1], actor="tester", reason="listed wrongly")
    assert sync(network) == "equal"
    assert_sound(xb)


def test_comparing_repairs_what_differs_and_fetches_nothing_that_had_to_go(
    network: Network, xa: Exchange, xb: Exchange, clock: FakeClock
) -> None:
    take(xa, drafts(5))
    sync(network)
    clock.advance(10 * DAY)
    take(xa, drafts(5, first=5))
    sync(network)
    xb.duties.purge(SET)
    report = asyncio.run(network.sync("XB-NCVI", "XA-NCVI").compare(SET, repair=True))
    assert report.outcome == "equal"
    assert len(held_entries(xb, SET)) == 5
    assert kinds_of(xb)[EXPIRED] == 5
    assert_sound(xb)


def test_nothing_is_asked_for_again_because_something_was_purged(
    network: Network, xa: Exchange, xb: Exchange, clock: FakeClock
) -> None:
    """A gateway that starts looks whether its policy still takes what it took."""
    take(xa, drafts(3))
    sync(network)
    clock.advance(10 * DAY)
    xb.duties.purge(SET)
    cursor = xb.mirrors.cursor(SET)
    again = restarted(xb)
    again.mirrors.review(SET)
    assert again.mirrors.cursor(SET) == cursor


def test_a_page_with_purged_rows_cannot_be_offered_any_more(
    network: Network, xa: Exchange, xb: Exchange, clock: FakeClock
) -> None:
    take(xa, drafts(3))
    sync(network)
    with xb.node.store.reading() as tx:
        [page] = tx.evidence.holding(tx.sets.get(SET).id or 0, [block_id(row) for row in blocks_of(xb)])
    assert xb.recovering.offer(page) is not None
    clock.advance(10 * DAY)
    xb.duties.purge(SET)
    assert xb.recovering.offer(page) is None


def test_what_was_purged_is_joined_and_erased_like_anything_else(
    network: Network, xa: Exchange, xb: Exchange, clock: FakeClock
) -> None:
    for number in range(12):
        take(xa, drafts(2, first=2 * number))
        sync(network)
    clock.advance(10 * DAY)
    assert xb.duties.purge(SET).entries == 24
    with xb.node.store.transaction() as tx:
        tx.evidence.forget(clock() + 1)
    assert xb.compacting.compact(SET).new < 12
    assert kinds_of(xb) == {EXPIRED: 24}
    assert_sound(xb)
    assert_sound(restarted(xb))
    assert sync(network) == "equal"


def test_joined_blocks_put_no_day_off(network: Network, xa: Exchange, xb: Exchange, clock: FakeClock) -> None:
    began = clock()
    for number in range(20):
        take(xa, drafts(2, first=2 * number))
        sync(network)
        clock.advance(DAY // 20)
    with xb.node.store.transaction() as tx:
        tx.evidence.forget(clock() + 1)
    assert xb.compacting.compact(SET).old == 20
    clock.now = began + 10 * DAY
    assert xb.duties.purge(SET).entries >= 2, "the oldest of them came ten days ago"
    clock.now = began + 11 * DAY
    xb.duties.purge(SET)
    assert held_entries(xb, SET) == {}


def test_erasing_one_entry_changes_nothing_about_the_day_of_the_others(
    network: Network, xa: Exchange, xb: Exchange, clock: FakeClock
) -> None:
    take(xa, drafts(4))
    sync(network)
    clock.advance(5 * DAY)
    key = PersonalKey("one", SigningKey.generate(SeededRandom("one")))
    bootstrap_administrator(xb.node, key.name, key.signing_key.public)
    desk = approvals(xb.node)
    order = desk.propose(*erase(xb.node, [drafts(1)[0].digests["sha256"].hex()], "order 7"), by="one")
    assert desk.sign(order, key).state == "done"
    clock.advance(5 * DAY - 1)
    assert xb.duties.purge(SET) == Purged()
    clock.advance(1)
    assert xb.duties.purge(SET).entries == 3
    assert kinds_of(xb) == {BARRED: 1, EXPIRED: 3}
    assert sync(network) == "equal"
    assert_sound(xb)


def test_under_legal_hold_nothing_is_deleted(network: Network, xa: Exchange, xb: Exchange, clock: FakeClock) -> None:
    take(xa, drafts(2) + drafts(1, first=2, restrictions=(Restriction.LEGAL_HOLD,)))
    sync(network)
    clock.advance(10 * DAY)
    assert xb.duties.purge(SET).entries == 2
    assert sorted(held_entries(xb, SET)) == [FIRST + 2]
    [held] = [one for one in xb.duties.open() if one.duty.startswith("retain")]
    assert (held.state, held.rows) == (ON_HOLD, 1)


def test_what_goes_here_leaves_whoever_had_it_from_us_too(tmp_path: Path, clock: FakeClock) -> None:
    """XA has XB keep it for five days, and lets it go on to XC; XB deletes it, so XC may hold it no longer either."""
    network = chain(tmp_path, clock, 3)
    xa, xb, xc = network.members.values()
    set_rules(xa, "XB", agreement("XA", "XB", obligation="retain_days(5)"))
    make_set(xa, "identified", drafts(3), onward=("XB", "XC"))
    sync_down(network)
    clock.advance(3 * DAY)
    take(xa, drafts(1, series="Red Door"))
    sync_down(network)
    assert contents(xc, SET) == contents(xa, SET)
    clock.advance(2 * DAY)
    xb.duties.keep_house()
    sync_down(network)
    assert sorted(contents(xb, SET)) == sorted(contents(xc, SET)) == [FIRST]
    assert xc.mirrors.equality(SET) == xb.mirrors.equality(SET) == "equal"
    with xb.node.store.reading() as tx:
        copy = tx.sets.onward_copy(tx.sets.get(SET).id or 0)
        assert copy is not None
    assert_sound(xb)
    with xb.node.store.reading() as tx:
        rows = tx.blocks.of_set(copy.id or 0)
        texts = [decode(xb.shelf.get(tx, row)) for row in rows]
    values = [bytes(value) for one in texts if "sha256" in one.columns for value in one.octets("sha256")]
    assert values == [drafts(1)[0].digests["sha256"]], "of the other two, and of the first version, nothing is left"


def test_duties_bind_no_set_of_our_own(xa: Exchange) -> None:
    with pytest.raises(DeniedError):
        xa.duties.purge(SET)


def test_it_comes_in_bounded_steps_and_goes_on_where_it_was_cut_off(
    network: Network, xa: Exchange, xb: Exchange, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.exchange.duties.PURGED_BLOCKS", 2)
    for number in range(7):
        take(xa, drafts(3, first=3 * number))
        sync(network)
    clock.advance(10 * DAY)
    steps: list[int] = []

    def cut_off(done: Purged) -> None:
        steps.append(done.blocks)
        if len(steps) == 2:
            raise OverloadedError("no more")

    with pytest.raises(OverloadedError):
        xb.duties.purge(SET, on_step=cut_off)
    assert steps == [2, 4]
    assert len(held_entries(xb, SET)) == 9
    assert_sound(xb)
    assert restarted(xb).duties.purge(SET) == Purged(9, 9, 3)
    assert len(events(xb.node, EventKind.ENTRIES_PURGED)) == 4
    assert_sound(xb)
    assert PURGED_BLOCKS * 3 * 66 < audit.MAX_EVENT_BYTES, "one event names the blocks of a step"


def test_a_purge_that_fails_leaves_everything_as_it_was(
    network: Network, xa: Exchange, xb: Exchange, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(xa, drafts(3))
    sync(network)
    clock.advance(10 * DAY)
    before = blocks_of(xb)

    def fail() -> None:
        raise OverloadedError("no")

    with monkeypatch.context() as patch:
        patch.setattr(xb.node.store, "before_commit", fail)
        with pytest.raises(OverloadedError):
            xb.duties.purge(SET)
    assert [row.digest for row in blocks_of(xb)] == [row.digest for row in before]
    assert len(held_entries(xb, SET)) == 3
    assert xb.duties.purge(SET).entries == 3


def test_the_schedule_purges_by_itself(network: Network, xa: Exchange, xb: Exchange, clock: FakeClock) -> None:
    take(xa, drafts(3))
    schedule = network.schedule("XB-NCVI")
    asyncio.run(schedule.tick())
    assert len(held_entries(xb, SET)) == 3
    clock.advance(9 * DAY)
    asyncio.run(schedule.tick())
    assert len(held_entries(xb, SET)) == 3
    clock.advance(DAY)
    asyncio.run(schedule.tick())
    assert held_entries(xb, SET) == {}
    assert xb.mirrors.equality(SET) == "equal"


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 8), st.integers(0, 3)), min_size=8, max_size=16))
def test_whatever_happens_nothing_is_older_than_its_days_and_both_ends_agree(
    tmp_path_factory: pytest.TempPathFactory, deeds: list[tuple[int, int, int]]
) -> None:
    clock = FakeClock()
    folder = tmp_path_factory.mktemp("world")
    nodes = [
        make_node(folder, agency, clock=clock, random=SeededRandom(agency), page_changes=5)
        for agency in ("XA-NCVI", "XB-NCVI")
    ]
    befriend(*nodes)
    network = Network()
    for node in nodes:
        network.join(node)
    xa, xb = network.members["XA-NCVI"], network.members["XB-NCVI"]
    make_set(xa, "identified", drafts(1, first=100))
    ask(xa, "no_onward, retain_days(365)", "no_onward, retain_days(2)")
    came: dict[int, tuple[object, int]] = {}
    for deed, number, more in deeds:
        world = _World(network, xa, xb, clock, came)
        world.deeds[deed](number, more)
        world.note()
        clock.advance(DAY // 3)
        xb.duties.keep_house()
        assert all(clock() - came[entry][1] < 2 * DAY for entry in world.held())
    assert sync(network) == "equal"
    assert_sound(xb)
    assert_sound(xa)
    for node in nodes:
        node.store.close()


class _World:
    """What may happen, and when what is held came in the version that is held."""

    def __init__(
        self,
        network: Network,
        xa: Exchange,
        xb: Exchange,
        clock: FakeClock,
        came: dict[int, tuple[object, int]],
    ) -> None:
        self.network, self.xa, self.xb, self.clock, self.came = network, xa, xb, clock, came
        self.deeds: list[Callable[[int, int], object]] = [
            lambda first, count: take(xa, drafts(count + 1, first=first)),
            lambda first, count: take(xa, drafts(1, first=first, series=f"Series {count}")),
            self.withdraw,
            lambda _first, _count: sync(network),
            lambda _first, _count: self.join(),
            lambda _first, _count: xb.mirrors.review(SET),
        ]

    def withdraw(self, first: int, _count: int) -> None:
        held = sorted(held_entries(self.xa, SET))
        if held:
            entry = held[first % len(held)]
            self.xa.ledger.withdraw(SET, [entry], actor="tester", reason="listed wrongly")

    def join(self) -> None:
        with self.xb.node.store.transaction() as tx:
            tx.evidence.forget(self.clock() + 1)
            here = tx.sets.find(SET)
        if here is not None:
            self.xb.compacting.compact(SET)

    def held(self) -> dict[int, dict[str, object]]:
        with self.xb.node.store.reading() as tx:
            here = tx.sets.find(SET)
        return {} if here is None else held_entries(self.xb, SET)

    def note(self) -> None:
        for entry, one in self.held().items():
            if self.came.get(entry, (None, 0))[0] != one["version"]:
                self.came[entry] = one["version"], self.clock()


# Acknowledging


def mail_of(exchange: Exchange, kind: str) -> list[dict[str, object]]:
    """Messages of a kind that came, oldest first."""
    with exchange.node.store.reading() as tx:
        return [exchange.mailbox.read(row) for row in reversed(tx.mail.incoming()) if row.kind == kind]


def open_of(exchange: Exchange, word: str) -> list[OpenDuty]:
    return [one for one in exchange.duties.open() if one.duty.startswith(word)]


def schedule(network: Network, *agencies: str) -> None:
    for agency in agencies or ("XB-NCVI",):
        asyncio.run(network.schedule(agency).tick())


def test_a_page_is_acknowledged_by_itself_and_its_hub_knows_until_when_it_waits(
    network: Network, xa: Exchange, xb: Exchange, clock: FakeClock
) -> None:
    ask(xa, "no_onward, retain_days(10)", "acknowledge_within_days(4)")
    take(xa, drafts(3))
    sync(network)
    [owed] = open_of(xa, "acknowledge")
    assert (owed.side, owed.partner, owed.set_name, owed.until_seq) == ("partner", "XB-NCVI", SET, 3)
    assert (owed.due, owed.state) == (clock() + 4 * DAY, OUTSTANDING)
    [ours] = open_of(xb, "acknowledge")
    # XB's own rule asks for it within a day: the stricter of both counts here.
    assert (ours.side, ours.partner, ours.until_seq, ours.due) == ("here", "XA-NCVI", 3, clock() + DAY)
    schedule(network)
    assert mail_of(xa, "entries_acknowledged") == [{"set": SET, "epoch": 1, "until_seq": 3, "entries": 3}]
    assert open_of(xa, "acknowledge") == open_of(xb, "acknowledge") == []


def test_what_is_not_acknowledged_in_time_raises_an_alarm_until_it_is(
    network: Network, xa: Exchange, xb: Exchange, clock: FakeClock
) -> None:
    ask(xa, "no_onward, retain_days(10)", "acknowledge_within_days(4)")
    take(xa, drafts(3))
    sync(network)  # a pull alone carries no mail
    clock.advance(4 * DAY - 1)
    assert not raised(xa)
    clock.advance(1)
    assert raised(xa) == {"XB-NCVI"}
    assert [one.state for one in open_of(xa, "acknowledge")] == [OVERDUE]
    assert [one.state for one in open_of(xb, "acknowledge")] == [OVERDUE]
    schedule(network)
    assert not raised(xa)


def raised(exchange: Exchange) -> set[str]:
    sweep(exchange.node)
    with exchange.node.store.reading() as tx:
        return {row.subject for row in tx.alarms.all() if row.kind == AlarmKind.ACKNOWLEDGEMENT_OVERDUE}


def test_a_page_that_goes_twice_is_due_when_it_was_due_before(
    network: Network, xa: Exchange, xb: Exchange, clock: FakeClock
) -> None:
    ask(xa, "no_onward, retain_days(10)", "acknowledge_within_days(4)")
    take(xa, drafts(3))
    xb.take_head("XA-NCVI", xa.head_for("XB-NCVI", SET).body)
    assert xa.page_for("XB-NCVI", SET, START) is not None
    clock.advance(DAY)
    xb.take_head("XA-NCVI", xa.head_for("XB-NCVI", SET).body)
    assert xa.page_for("XB-NCVI", SET, START) is not None
    [owed] = open_of(xa, "acknowledge")
    assert owed.due == clock() + 3 * DAY


def test_a_pushed_page_that_was_given_up_waits_for_nobody(
    network: Network, xa: Exchange, xb: Exchange, clock: FakeClock
) -> None:
    ask(xa, "no_onward, retain_days(10)", "acknowledge_within_days(4)")
    take(xa, drafts(3))
    xa.head_for("XB-NCVI", SET)
    page = xa.page_to_push("XB-NCVI", SET, START)
    assert page is not None
    assert len(open_of(xa, "acknowledge")) == 1
    xa.give_up(page.message_id, "the test gives it up")
    assert open_of(xa, "acknowledge") == []
    asyncio.run(network.sync("XA-NCVI", "XB-NCVI").push(SET))
    assert len(open_of(xa, "acknowledge")) == 1
    schedule(network)
    assert open_of(xa, "acknowledge") == []


def test_nobody_acknowledges_for_another_nor_with_words_that_say_nothing(
    network: Network, xa: Exchange, xb: Exchange, clock: FakeClock
) -> None:
    ask(xa, "no_onward, retain_days(10)", "acknowledge_within_days(4)")
    take(xa, drafts(3))
    sync(network)
    for body in (
        {"set": SET},
        {"set": SET, "epoch": "1", "until_seq": 3},
        {"set": "XA-NCVI/other", "epoch": 1, "until_seq": 9},
    ):
        xb.mailbox.write("XA-NCVI", "entries_acknowledged", dict(body))
    xb.mailbox.write("XA-NCVI", "entries_acknowledged", {"set": SET, "epoch": 1, "until_seq": 2})
    with xb.node.store.transaction() as tx:  # its own, honest one is not sent
        tx.mail.delivered("XA-NCVI", 1, clock())
    card = xb.card_of("XA-NCVI")
    waiting = xb.mailbox.waiting("XA-NCVI")
    assert len(waiting) == 4
    with xa.node.store.transaction() as tx:
        for row in waiting:
            xa.duties._hear_acknowledgement(tx, "XB-NCVI", xb.mailbox.read(row))
            xa.duties._hear_acknowledgement(tx, "XC-NCVI", {"set": SET, "epoch": 1, "until_seq": 3})
    assert card.agency == "XA-NCVI"
    assert len(open_of(xa, "acknowledge")) == 1


# Telling the originator


def test_the_originator_is_told_once_for_each_page_and_label(
    network: Network, xa: Exchange, xb: Exchange, clock: FakeClock
) -> None:
    """XA has everybody tell it who got to know of an entry under H3."""
    texts = xb.node.policies.texts
    path = "XB/agreement-xa.cedar"
    xb.node.policies.texts = {**texts, path: texts[path].replace('["H0", "H1", "H2"]', '["H0", "H1", "H2", "H3"]')}
    xb.node.policies._loaded = None
    ask(xa, "no_onward, retain_days(10)", "notify_originator")
    take(xa, drafts(2, handling=HandlingCode.H0) + drafts(3, first=2, handling=HandlingCode.H1))
    take(xa, drafts(4, first=5, handling=HandlingCode.H2))  # nobody need be told of these
    schedule(network)
    with xa.node.store.reading() as tx:
        digests = {row.digest.hex() for row in tx.sets.labels(tx.sets.get(SET).id or 0)}
    told = mail_of(xa, "originator_notified")
    assert sorted(one["entries"] for one in told) == [2, 3]  # type: ignore[type-var]
    assert {one["label"] for one in told} < digests
    assert {(one["set"], one["what"], one["holder"]) for one in told} == {(SET, "taken", "XB-NCVI")}
    schedule(network)
    assert len(mail_of(xa, "originator_notified")) == 2


def test_who_sends_entries_on_tells_the_originator_and_so_does_who_gets_them(tmp_path: Path, clock: FakeClock) -> None:
    """XC is no partner of XA's: what it has to say goes to XB, from whom it has the entries."""
    network = chain(tmp_path, clock, 3)
    xa, xb, xc = network.members.values()
    set_rules(xa, "XB", agreement("XA", "XB", obligation="notify_originator"))
    make_set(xa, "identified", drafts(3), onward=("XB", "XC"))
    for _ in range(2):
        sync_down(network)
        sync_up(network)
    assert len(contents(xc, SET)) == 3
    told = [(one["entries"], one["what"], one["holder"]) for one in mail_of(xa, "originator_notified")]
    assert told == [(3, "taken", "XB-NCVI"), (3, "forwarded", "XC-NCVI")]
    told = [(one["entries"], one["what"], one["holder"]) for one in mail_of(xb, "originator_notified")]
    assert told == [(3, "taken", "XC-NCVI")]
    # Which label it is about, its originator knows by the digest that it gave it.
    with xa.node.store.reading() as tx:
        [label] = tx.sets.labels(tx.sets.get(SET).id or 0)
    assert {one["label"] for one in mail_of(xa, "originator_notified")} == {label.digest.hex()}


def test_of_what_we_refuse_nobody_is_told_that_we_have_it(
    network: Network, xa: Exchange, xb: Exchange, clock: FakeClock
) -> None:
    ask(xa, "no_onward, retain_days(10)", "notify_originator, acknowledge_within_days(2)")
    texts = xb.node.policies.texts
    path = "XB/agreement-xa.cedar"
    xb.node.policies.texts = {name: text for name, text in texts.items() if name != path}
    xb.node.policies._loaded = None
    take(xa, drafts(2))
    schedule(network)
    assert mail_of(xa, "originator_notified") == []
    # That the page came is said all the same, or its hub would wait for ever.
    assert [one["entries"] for one in mail_of(xa, "entries_acknowledged")] == [0]


# Duties that nobody knows


def test_a_label_with_a_duty_that_is_not_known_is_not_taken_in_and_not_asked_for_again(
    network: Network, xa: Exchange, xb: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(xa, drafts(2, handling=HandlingCode.H0) + drafts(3, first=2, handling=HandlingCode.H2))
    known = LabelView.__init__

    def newer(
        self: LabelView, groups: frozenset[FieldGroup], obligations: tuple[str, ...] = (), until_seq: int | None = None
    ) -> None:
        """As a newer gateway's policy would name them."""
        more = ("delete_at_moonrise",) if "retain_days(10)" in obligations else ()
        known(self, groups, (*obligations, *more), until_seq)

    with monkeypatch.context() as patch:
        patch.setattr(LabelView, "__init__", newer)
        assert sync(network) == "equal"
    assert kinds_of(xb) == {CHANGES: 3, REFUSED: 2}
    [told] = events(xb.node, EventKind.ROWS_REFUSED)
    assert told.details["reasons"] == {"engine_error": 2}
    cursor = xb.mirrors.cursor(SET)
    again = restarted(xb)
    again.mirrors.review(SET)
    assert again.mirrors.cursor(SET) == cursor


def test_an_answer_names_the_duties_that_bind_whoever_uses_it(network: Network, xa: Exchange, xb: Exchange) -> None:
    take(xa, drafts(1))
    sync(network)
    asked = [drafts(1)[0].digests["sha256"].hex()]
    [hit] = xb.lookup.find(asked, actor="tester")
    assert hit.duties == ("court_use_needs_leave", "no_onward", "retain_days(10)")
    [own] = xa.lookup.find(asked, actor="tester")
    assert own.duties == ()
