"""Small blocks become few: what is held, sent and proved stays the same, whatever the order of deeds."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from factory import FakeClock, SeededRandom, befriend, drafts, events, make_node, make_set, reopened, sha256
from gateway import audit
from gateway.audit import EventKind
from gateway.columns.block import REMOVALS as REMOVALS_LABEL
from gateway.columns.block import decode
from gateway.errors import StaleCursorError
from gateway.exchange import Exchange
from gateway.exchange.shelf import CHANGES, HISTORY, REFUSED, REMOVALS
from gateway.interchange import START, Cursor
from gateway.model import EntryDraft, HandlingCode, Restriction
from gateway.node import log_origin
from gateway.store.tables import BlockRow
from partner_simulator import Network, held_entries, refused
from test_cli_erasing import desk, gateway, json_of

__all__ = ["desk"]

SET = "XA-NCVI/identified"
DAY = 86_400


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def network(tmp_path: Path, clock: FakeClock) -> Iterator[Network]:
    nodes = [make_node(tmp_path, agency, clock=clock) for agency in ("XA-NCVI", "XB-NCVI")]
    befriend(*nodes)
    network = Network()
    for node in nodes:
        network.join(node)
    make_set(network.members["XA-NCVI"], "identified")
    yield network
    for node in nodes:
        node.store.close()


@pytest.fixture
def xa(network: Network) -> Exchange:
    return network.members["XA-NCVI"]


@pytest.fixture
def xb(network: Network) -> Exchange:
    return network.members["XB-NCVI"]


def imported(exchange: Exchange, entries: list[EntryDraft]) -> None:
    exchange.ledger.import_entries(SET, entries, actor="tester", form="test")


def blocks_of(exchange: Exchange) -> list[BlockRow]:
    with exchange.node.store.reading() as tx:
        return tx.blocks.of_set(tx.sets.get(SET).id or 0)


def listed(exchange: Exchange) -> dict[int, dict[str, object]]:
    """What is held of each entry. A column of defaults says nothing, whether it is there or not."""
    return {
        entry: {name: value for name, value in one.items() if name != "groups" and value not in ("", 0)}
        for entry, one in held_entries(exchange, SET).items()
    }


def kinds_of(exchange: Exchange) -> dict[str, int]:
    """Rows by the kind of their blocks."""
    found: dict[str, int] = {}
    for row in blocks_of(exchange):
        found[row.kind] = found.get(row.kind, 0) + row.count
    return found


def restarted(exchange: Exchange) -> Exchange:
    """The same gateway with nothing in memory: its index is rebuilt from blocks."""
    return Exchange(reopened(exchange.node, seed="another process"))


def forget_signed_pages(exchange: Exchange) -> None:
    """As after the time for which pages are kept in case their hub loses them."""
    with exchange.node.store.transaction() as tx:
        tx.evidence.forget(exchange.node.clock() + 1)


# Any history, any cursor


@dataclass
class Twins:
    """Two gateways of one name that did the same, of which one joins its blocks at random moments."""

    joins: Exchange
    plain: Exchange
    clock: FakeClock
    source: random.Random
    seqs: list[int] = field(default_factory=lambda: [0])

    def both(self, deed: str, *arguments: object, **named: object) -> None:
        for exchange in (self.joins, self.plain):
            getattr(exchange.ledger, deed)(*arguments, **named)
        self.seqs.append(stands(self.joins).seq)
        assert stands(self.plain).seq == self.seqs[-1]

    def step(self) -> None:
        source = self.source
        self.clock.advance(60)
        deed = source.random()
        if deed < 0.6:
            first, codes = source.randrange(40), (HandlingCode.H1, HandlingCode.H2)
            entries = [
                EntryDraft(
                    {"sha256": sha256(f"made-up {n}"), **({"md5": sha256(f"{n}")[:16]} if n % 3 else {})},
                    source_ref=f"ref-{n}",
                    handling=source.choice(codes),
                    series=source.choice(("", "Blue Door", "Red Door")),
                    restrictions=(Restriction.EMBARGO,) if source.random() < 0.2 else (),
                )
                for n in range(first, first + source.randrange(1, 7))
            ]
            self.both("import_entries", SET, entries, actor="t", form="t")
        elif deed < 0.75 and (held := sorted(held_entries(self.plain, SET))):
            self.both("withdraw", SET, [source.choice(held)], actor="t", reason="wrong")
        else:
            self.joins.compacting.compact(SET)


def stands(exchange: Exchange) -> Cursor:
    with exchange.node.store.reading() as tx:
        row = tx.sets.get(SET)
    return Cursor(row.epoch, row.view, row.seq)


@dataclass
class Told:
    """What a follower was told from a cursor to the end, as it stands then: entries that it got, entries that went."""

    sent: dict[int, object] = field(default_factory=dict)
    gone: dict[int, int] = field(default_factory=dict)


def told(exchange: Exchange, after: int, room: int) -> Told:
    """What XB gets from a cursor to the end: entries with all that is said of them, withdrawals, leaves."""
    found = Told()
    cursor = START
    with exchange.node.store.reading() as tx:
        served = exchange.server.visible(tx, SET, exchange.card_of("XB-NCVI"))
    if after:
        cursor = Cursor(served.hash_set.epoch, served.view.digest, after)
        with exchange.node.store.transaction() as tx:
            tx.sets.put_view(served.id, "XB-NCVI", served.view.digest, served.view.dump().decode())
    for _ in range(1000):
        with exchange.node.store.reading() as tx:
            draft, views = exchange.server._drafter.page(tx, served, cursor, served.hash_set.seq, room)
        if draft is None:
            return found
        with exchange.node.store.transaction() as tx:
            for view in views:
                tx.sets.put_view(served.id, "XB-NCVI", view.digest, view.dump().decode())
        assert draft.head.changes <= room
        for block in draft.blocks:
            rows = decode(block)
            for at, entry in enumerate(rows.values("entry_id")):
                said = {name: rows.values(name)[at] for name in rows.columns}
                if block.header.label == REMOVALS_LABEL:
                    found.sent.pop(int(entry), None)
                    found.gone[int(entry)] = int(str(said["kind"]))
                else:
                    found.gone.pop(int(entry), None)
                    said["label"] = block.header.label
                    found.sent[int(entry)] = {name: value for name, value in said.items() if value not in ("", 0)}
        cursor = draft.head.end
    raise AssertionError("the pages never end")


@pytest.mark.parametrize("seed", range(3))
def test_at_any_cursor_a_follower_is_told_the_same_with_and_without_joined_blocks(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    for module in ("paging", "drafting"):  # few blocks at a time, so that no group of them is seen at once
        monkeypatch.setattr(f"gateway.exchange.{module}.BLOCKS_AT_ONCE", 3)
    world = []
    for name in ("joins", "plain"):
        (tmp_path / name).mkdir()
        nodes = [
            make_node(tmp_path / name, agency, clock=clock, random=SeededRandom(agency))
            for agency in ("XA-NCVI", "XB-NCVI")
        ]
        befriend(*nodes)
        nodes[1].store.close()
        world.append(Exchange(nodes[0]))
        make_set(world[-1], "identified")
    twins = Twins(*world, clock, random.Random(seed))
    for _ in range(32):
        twins.step()
    twins.joins.compacting.compact(SET)
    assert len(blocks_of(twins.joins)) < len(blocks_of(twins.plain)) * 2 / 3
    assert kinds_of(twins.joins)[HISTORY]
    assert listed(twins.joins) == listed(twins.plain)
    assert listed(restarted(twins.joins)) == listed(twins.plain)
    end = twins.seqs[-1]
    for after in {0, end, *twins.source.sample(range(end), 5)}:  # between two changes of one import as well
        plain = told(twins.plain, after, 65_536)
        assert told(twins.joins, after, 65_536) == plain, f"after {after}"
        # In small pages it may be told besides that something goes which it never got, or that it leaves before it is
        # withdrawn: it asked in between.
        small = told(twins.joins, after, twins.source.choice((5, 17)))
        assert small.sent == plain.sent, f"after {after}, in small pages"
        assert small.gone.keys() >= plain.gone.keys(), f"after {after}, in small pages"
    for exchange in world:
        exchange.node.store.close()


async def test_a_follower_in_the_middle_of_everything_holds_what_policy_says(
    network: Network, xa: Exchange, xb: Exchange
) -> None:
    for number in range(30):
        imported(xa, drafts(3, first=2 * number))
        if number % 4 == 0:
            xa.compacting.compact(SET)
        if number % 5 == 0:
            await network.sync("XB-NCVI", "XA-NCVI").pull()
            forget_signed_pages(xb)
            xb.compacting.compact(SET)
    [report] = await network.sync("XB-NCVI", "XA-NCVI").pull()
    assert report.equality == "equal"
    assert held_entries(xb, SET).keys() == held_entries(xa, SET).keys()
    assert held_entries(restarted(xb), SET) == held_entries(xb, SET)


# What stays and what goes


def test_values_of_replaced_rows_go_and_their_places_stay(xa: Exchange) -> None:
    for number in range(8):
        imported(xa, drafts(2, series=f"Series {number}"))
    done = xa.compacting.compact(SET)
    assert (done.old, done.forgotten) == (8, 0)
    assert kinds_of(xa) == {CHANGES: 2, HISTORY: 14}
    [history] = [row for row in blocks_of(xa) if row.kind == HISTORY]
    with xa.node.store.reading() as tx:
        rows = decode(xa.shelf.get(tx, history))
    assert "sha256" not in rows.columns
    assert "series" not in rows.columns
    assert rows.values("prev_seq")[:4] == [0, 0, 1, 2]


def test_labels_and_shapes_are_not_mixed(xa: Exchange) -> None:
    for number in range(6):
        imported(xa, drafts(1, first=number, handling=HandlingCode.H1) + drafts(1, first=100 + number, handling="H2"))
        imported(xa, [EntryDraft({"md5": sha256(f"{number}")[:16]}, source_ref=f"md5-{number}")])
    xa.compacting.compact(SET)
    assert sorted((row.label, row.count) for row in blocks_of(xa)) == [(1, 6), (1, 6), (2, 6)]


def test_what_a_near_follower_has_yet_to_get_stays_as_it_came(xa: Exchange, xb: Exchange) -> None:
    for number in range(8):
        imported(xa, drafts(1, first=number))
    xa.head_for("XB-NCVI", SET)
    page = xa.page_for("XB-NCVI", SET, START)
    assert page is not None
    assert xa.page_for("XB-NCVI", SET, page.head.end) is None  # it names its cursor: seq 8
    for number in range(8, 20):
        imported(xa, drafts(1, first=number))
    xa.compacting.compact(SET)
    assert sorted(row.count for row in blocks_of(xa)) == [1] * 12 + [8]


def test_blocks_that_reach_beyond_the_head_of_a_follower_bring_nothing_of_after_it(xa: Exchange) -> None:
    for number in range(8):
        imported(xa, drafts(1, first=number))
    xa.head_for("XB-NCVI", SET)  # of seq 8
    for number in range(8, 16):
        imported(xa, drafts(1, first=number))
    xa.compacting.compact(SET)
    assert [row.count for row in blocks_of(xa)] == [16]
    card = xa.card_of("XB-NCVI")
    with xa.node.store.transaction() as tx:
        served = xa.server.visible(tx, SET, card)
        stands = replace(served.cursor, seq=8)
        tx.sets.put_view(served.id, "XB-NCVI", stands.view, served.view.dump().decode())
        for room in (5, 65_536):
            assert xa.server._drafter.page(tx, served, stands, 8, room) == (None, [])
            draft, _ = xa.server._drafter.page(tx, served, START, 8, room)
            assert draft is not None
            assert (draft.head.changes, draft.head.end.seq) == ((5, 5) if room == 5 else (8, 8))


def test_no_joined_block_reaches_over_the_end_of_a_segment(xa: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("paging", "compacting"):
        monkeypatch.setattr(f"gateway.exchange.{module}.SEGMENT_SEQS", 10)
    for number in range(0, 60, 6):
        imported(xa, drafts(6, first=number % 18, series=f"{number}"))
    xa.compacting.compact(SET)
    xa.compacting.compact(SET)
    spans = [(row.first_seq, row.last_seq) for row in blocks_of(xa) if row.count < 6 or row.kind == HISTORY]
    assert spans
    assert all((first - 1) // 10 == (last - 1) // 10 for first, last in spans)


def test_rows_that_are_refused_keep_their_items_and_removals_their_memory(
    network: Network, xa: Exchange, xb: Exchange
) -> None:
    def pull() -> str:
        [report] = asyncio.run(network.sync("XB-NCVI", "XA-NCVI").pull())
        forget_signed_pages(xb)
        return report.equality

    for number in range(6):
        imported(xa, drafts(2, first=10 * number, evaluation="F6"))  # XB takes nothing of this evaluation
        imported(xa, drafts(3, first=10 * number + 5))
        assert pull() == "equal"
        xa.ledger.withdraw(SET, sorted(held_entries(xb, SET))[:1], actor="tester", reason="wrong")
        assert pull() == "equal"
    before, gone = held_entries(xb, SET), kinds_of(xb)[REMOVALS]
    assert xb.compacting.compact(SET).old > 10
    found = kinds_of(xb)
    assert (found[REFUSED], found[REMOVALS]) == (12, gone)
    assert len(blocks_of(xb)) < 8
    assert held_entries(restarted(xb), SET) == before
    imported(xa, drafts(2, evaluation="B2"))  # two of the refused ones are taken now: their items must leave the sums
    assert pull() == "equal"
    assert kinds_of(xb)[CHANGES] >= 14


def test_entries_that_left_and_came_back_stay(network: Network, xa: Exchange, xb: Exchange) -> None:
    imported(xa, drafts(12))
    for number in range(10):
        embargo = () if number % 2 else (Restriction.EMBARGO,)
        imported(xa, drafts(3, first=number // 2, series=f"{number}", restrictions=embargo))
        asyncio.run(network.sync("XB-NCVI", "XA-NCVI").pull())
    forget_signed_pages(xb)
    before = listed(xb)
    assert len(before) == 12
    assert kinds_of(xb)[REMOVALS] == 12
    xb.compacting.compact(SET)
    assert REMOVALS not in kinds_of(xb)
    assert listed(xb) == listed(restarted(xb)) == before


def test_blocks_of_which_the_hub_could_need_its_own_page_back_stay_as_they_came(
    network: Network, xa: Exchange, xb: Exchange
) -> None:
    for number in range(6):
        imported(xa, drafts(1, first=number))
        asyncio.run(network.sync("XB-NCVI", "XA-NCVI").pull())
    before = [row.id for row in blocks_of(xb)]
    assert xb.compacting.compact(SET).old == 0
    assert [row.id for row in blocks_of(xb)] == before
    forget_signed_pages(xb)
    assert xb.compacting.compact(SET).new == 1


# One transaction, on record


def test_the_log_binds_the_leaves_of_old_and_new_blocks(xa: Exchange) -> None:
    for number in range(6):
        imported(xa, drafts(1, first=number))
    old = {row.leaf: row.digest for row in blocks_of(xa)}
    xa.compacting.compact(SET)
    [event] = events(xa.node, EventKind.BLOCKS_COMPACTED)
    new = {row.leaf: row.digest for row in blocks_of(xa)}
    key = xa.node.keystore.log_key(log_origin("XA-NCVI")).verifier
    with xa.node.store.reading() as tx:
        entries = {row.index: row.entry for row in tx.log.leaves()}
        audit.verify_log(tx.log.leaves(), tx.log.nodes(), tx.log.checkpoints(), key)
    for named, blocks in (("old", old), ("new", new)):
        leaves = [number for part in event.details[named] for number in _range(part)]
        assert leaves == sorted(blocks)
        assert all(entries[leaf] == audit.block_entry(digest) for leaf, digest in blocks.items())
    assert (event.details["changes"], event.details["forgotten"]) == (6, 0)


def _range(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def test_another_node_follows_what_this_one_joins(xa: Exchange) -> None:
    other = restarted(xa)
    for number in range(10):
        imported(xa, drafts(2, first=number))
        if number in (4, 9):
            assert listed(other) == listed(xa)
            xa.compacting.compact(SET)
    assert listed(other) == listed(xa) == listed(restarted(xa))
    imported(other, drafts(11, series="Blue Door"))  # it knows each entry again
    assert len(listed(xa)) == 11


def test_a_crash_leaves_the_old_blocks_or_the_new_ones(xa: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def dies() -> None:
        raise Killed

    for number in range(6):
        imported(xa, drafts(2, first=number))
    before, blocks = listed(xa), blocks_of(xa)
    monkeypatch.setattr(xa.node.store, "before_commit", dies)
    with pytest.raises(Killed):
        xa.compacting.compact(SET)
    monkeypatch.undo()
    assert blocks_of(xa) == blocks
    monkeypatch.setattr(xa.node.store, "after_commit", dies)
    with pytest.raises(Killed):
        xa.compacting.compact(SET)
    monkeypatch.undo()
    assert len(blocks_of(xa)) == 1
    assert listed(xa) == listed(restarted(xa)) == before


def test_house_is_kept_in_every_set_and_once_is_enough(xa: Exchange) -> None:
    other = make_set(xa, "other")
    for number in range(5):
        for name in (SET, other):
            xa.ledger.import_entries(name, drafts(1, first=number), actor="tester", form="test")
    assert (done := xa.compacting.keep_house()).new == 2
    assert done.old == 10
    assert xa.compacting.keep_house().old == 0


# What is too old


def old_history(xa: Exchange, clock: FakeClock) -> list[int]:
    """Eight entries of which 4 are withdrawn and 2 replaced, all of it long ago, and four changes of today."""
    for number in range(8):
        imported(xa, drafts(1, first=number))
    gone = sorted(held_entries(xa, SET))[:4]
    for entry in gone:
        xa.ledger.withdraw(SET, [entry], actor="tester", reason="wrong")
    imported(xa, drafts(1, first=4, series="Blue Door"))
    imported(xa, drafts(1, first=5, series="Blue Door"))
    clock.advance((xa.node.settings.history_days + 1) * DAY)
    for number in range(20, 24):
        imported(xa, drafts(1, first=number))
    return gone


def test_old_withdrawals_and_replaced_rows_are_forgotten_and_do_not_come_back(xa: Exchange, clock: FakeClock) -> None:
    gone = old_history(xa, clock)
    before = listed(xa)
    done = xa.compacting.compact(SET)
    assert done.forgotten == 10  # four withdrawals, what they withdrew, two versions
    assert kinds_of(xa) == {CHANGES: 8}
    with xa.node.store.reading() as tx:
        assert xa.server.horizon(tx, tx.sets.get(SET).id or 0) == 14
    assert listed(xa) == before
    assert listed(restarted(xa)) == before
    assert not set(gone) & before.keys()


def test_a_withdrawal_is_remembered_while_its_entry_stands_in_a_block_that_was_not_rewritten(
    xa: Exchange, clock: FakeClock
) -> None:
    imported(xa, drafts(30))  # one of thirty is replaced: not worth writing the block anew
    xa.ledger.withdraw(SET, sorted(held_entries(xa, SET))[:1], actor="tester", reason="wrong")
    for number in range(3):
        xa.ledger.withdraw(SET, sorted(held_entries(xa, SET))[:1], actor="tester", reason=f"wrong {number}")
    clock.advance((xa.node.settings.history_days + 1) * DAY)
    assert (done := xa.compacting.compact(SET)).old == 4
    assert done.forgotten == 0
    assert len(listed(restarted(xa))) == 26


def test_who_stands_before_the_horizon_is_told_to_compare_and_who_begins_anew_is_not(
    network: Network, xa: Exchange, xb: Exchange, clock: FakeClock
) -> None:
    imported(xa, drafts(1, first=90))
    asyncio.run(network.sync("XB-NCVI", "XA-NCVI").pull())
    early = xb.mirrors.cursor(SET)
    old_history(xa, clock)
    assert xa.compacting.compact(SET).forgotten == 10
    xa.head_for("XB-NCVI", SET)
    error = refused(lambda: xa.page_for("XB-NCVI", SET, early))
    assert isinstance(error, StaleCursorError)
    assert error.cursor == START.to_json()
    page = xa.page_for("XB-NCVI", SET, START)
    assert page is not None
    # It has begun after the horizon: whatever it was sent, it has been told of all that went since.
    assert xa.page_for("XB-NCVI", SET, Cursor(1, page.head.target, 3)) is not None


def test_a_mirror_from_before_the_horizon_is_healed_by_comparing_and_not_by_a_copy(
    network: Network, xa: Exchange, xb: Exchange, clock: FakeClock
) -> None:
    for number in range(8):
        imported(xa, drafts(1, first=number))
    gone = sorted(held_entries(xa, SET))[:4]
    imported(xa, drafts(100, first=100))
    asyncio.run(network.sync("XB-NCVI", "XA-NCVI").pull())
    for entry in gone:
        xa.ledger.withdraw(SET, [entry], actor="tester", reason="wrong")
    clock.advance((xa.node.settings.history_days + 1) * DAY)
    assert xa.compacting.compact(SET).forgotten >= 4
    [report] = asyncio.run(network.sync("XB-NCVI", "XA-NCVI").pull())
    assert report.equality == "equal"
    assert "XB-NCVI XA-NCVI compare" in network.requests
    assert held_entries(xb, SET).keys() == held_entries(xa, SET).keys()
    assert not set(gone) & held_entries(xb, SET).keys()
    assert kinds_of(xb)[CHANGES] < 120  # not a second copy of the hundred


# On the command line


def test_people_can_ask_for_it(desk: Path) -> None:
    for number in range(5):
        (desk / "list.csv").write_text(f"sha256\n{sha256(f'another {number}').hex()}\n")
        gateway("import", "list.csv", "--set", "found")
    said = json_of("set", "compact", "found")
    assert said == {"set": SET.replace("identified", "found"), "forgotten": 0} | {
        name: said[name] for name in ("blocks_before", "blocks_after", "saved_bytes")
    }
    assert (said["blocks_before"], said["blocks_after"]) == (6, 1)
    assert said["saved_bytes"] > 1_000
    assert "there is nothing to join" in gateway("set", "compact", "found").stdout


# When what was joined came


def test_joining_in_a_mirror_never_makes_an_entry_younger_nor_much_older(
    network: Network, xa: Exchange, xb: Exchange, clock: FakeClock
) -> None:
    """XA has XB delete these entries after 365 days: what came within twelve of them may be one block."""
    came: dict[int, int] = {}
    for number in range(60):
        imported(xa, drafts(2, first=2 * number, handling=HandlingCode.H1))
        asyncio.run(network.sync("XB-NCVI", "XA-NCVI").pull())
        for entry in held_entries(xb, SET):
            came.setdefault(entry, clock())
        clock.advance(DAY)
    forget_signed_pages(xb)
    before = len(blocks_of(xb))
    assert xb.compacting.compact(SET).old > 0
    after = blocks_of(xb)
    assert 5 <= len(after) < before
    for row in after:
        with xb.node.store.reading() as tx:
            entries = decode(xb.shelf.get(tx, row)).ints("entry_id").tolist()
        times = [came[entry] for entry in entries]
        assert row.arrived == min(times)
        assert max(times) - min(times) < 12 * DAY
    # An own set has no such day.
    assert xa.compacting.compact(SET).new < 5
