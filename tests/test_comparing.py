"""Two ends that do not hold the same: what differs is found, named and repaired, whichever side it is on."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from factory import (
    FakeClock,
    befriend,
    drafts,
    events,
    link_to,
    loopback,
    make_node,
    make_set,
    serving,
    sha256,
)
from gateway import audit
from gateway.alarms import AlarmKind
from gateway.audit import EventKind
from gateway.comparisons import SKETCH, Question
from gateway.errors import ConflictError, GatewayError, MalformedError, NotFoundError
from gateway.exchange import Exchange
from gateway.exchange.changes import Sums
from gateway.exchange.contents import Contents, sums_of
from gateway.exchange.labels import SetDefaults, digest_key
from gateway.model import HandlingCode, Restriction
from gateway.node import log_origin
from gateway.reconcile import CompareReport
from gateway.sync import PartnerSync
from partner_simulator import Network, held_entries
from silent_faults import add, alter, drop

HUB, FOLLOWER, THIRD = "XA-NCVI", "XB-NCVI", "XC-NCVI"
NAME = f"{HUB}/identified"
ENTRIES = 300


@pytest.fixture
def network(tmp_path: Path) -> Network:
    """A hub with a set of 300 entries, and a follower that holds them all."""
    clock, made = FakeClock(), Network()
    nodes = [make_node(tmp_path, agency, clock=clock, page_changes=100) for agency in (HUB, FOLLOWER, THIRD)]
    befriend(*nodes)
    for node in nodes:
        made.join(node)
    make_set(made.members[HUB], "identified", drafts(ENTRIES))
    asyncio.run(made.sync(FOLLOWER, HUB).pull())
    assert made.members[FOLLOWER].mirrors.equality(NAME) == "equal"
    return made


def compare(network: Network, *, repair: bool = True, here: str = FOLLOWER) -> CompareReport:
    return asyncio.run(network.sync(here, HUB).compare(NAME, repair=repair))


def assert_same(network: Network) -> None:
    hub, follower = network.members[HUB], network.members[FOLLOWER]
    held = [
        {entry: (one["sha256"], one["version"]) for entry, one in held_entries(exchange, NAME).items()}
        for exchange in (hub, follower)
    ]
    assert held[0] == held[1]
    assert len(held[0]) == ENTRIES
    assert follower.mirrors.equality(NAME) == "equal"
    for exchange in (hub, follower):
        check_sums(exchange)
        check_log(exchange)


def check_sums(exchange: Exchange) -> None:
    """What is kept as sums is what the blocks make."""
    node = exchange.node
    with node.store.reading() as tx:
        found = tx.sets.get(NAME)
        key = digest_key(node, found)
        kept = {at: one for at, one in Sums(tx, found.id, key).by_label().items() if one.count}
        labels = {row.number: tuple(range(1, 6)) for row in tx.sets.labels(found.id)}
    counted = sums_of(Contents(node, exchange.shelf).scan(found.id, key, labels))
    assert {at: one for at, one in counted.items() if one.count} == kept


def check_log(exchange: Exchange) -> None:
    node = exchange.node
    key = node.keystore.log_key(log_origin(node.agency)).verifier
    with node.store.reading() as tx:
        audit.verify_log(tx.log.leaves(), tx.log.nodes(), tx.log.checkpoints(), key)


def some_entry(exchange: Exchange) -> int:
    return sorted(held_entries(exchange, NAME))[137]


def test_equal_ends_need_one_question_and_leave_no_event(network: Network) -> None:
    network.requests.clear()
    report = compare(network)
    assert (report.outcome, report.differing, report.labels) == ("equal", 0, 1)
    assert [line for line in network.requests if "compare" in line] == [f"{FOLLOWER} {HUB} compare"]
    assert events(network.members[FOLLOWER].node, EventKind.SET_COMPARED) == []


def test_an_entry_that_the_follower_lost_is_found_and_comes_back(network: Network) -> None:
    drop(network.members[FOLLOWER], NAME, some_entry(network.members[HUB]))
    report = compare(network)
    assert (report.only_here, report.only_there, report.outcome) == (0, 1, "repaired")
    assert report.arrived == 1
    assert_same(network)


def test_an_entry_altered_at_the_follower_is_named_and_repaired(network: Network) -> None:
    entry = some_entry(network.members[HUB])
    alter(network.members[FOLLOWER], NAME, entry)
    report = compare(network)
    assert (report.only_here, report.only_there, report.outcome) == (1, 1, "repaired")
    assert report.entries == (f"{entry >> 48:04x}-{entry & (1 << 48) - 1:012x}",)
    assert_same(network)


def test_an_entry_that_only_the_follower_has_and_the_hub_never_signed_goes(network: Network) -> None:
    add(network.members[FOLLOWER], NAME, some_entry(network.members[HUB]), 1 << 48 | 999)
    report = compare(network)
    assert (report.only_here, report.only_there, report.outcome) == (1, 0, "repaired")
    assert_same(network)
    with network.members[HUB].node.store.reading() as tx:
        [alarm] = tx.alarms.all()
    assert (alarm.kind, alarm.subject) == (AlarmKind.UNKNOWN_ENTRIES, NAME)
    assert "0001-0000000003e7" in alarm.detail


def test_an_entry_that_the_hub_lost_comes_back_from_the_page_that_it_signed(network: Network) -> None:
    entry = some_entry(network.members[HUB])
    drop(network.members[HUB], NAME, entry)
    report = compare(network)
    assert (report.only_here, report.only_there, report.offered, report.outcome) == (1, 0, 1, "repaired")
    assert entry in held_entries(network.members[HUB], NAME)
    [event] = events(network.members[HUB].node, EventKind.ENTRIES_RECOVERED)
    assert event.details["recovered"] == 1
    assert_same(network)


def test_an_entry_altered_at_the_hub_is_what_the_hub_says(network: Network) -> None:
    # The owner's word stands: nobody can tell an alteration by fault from one by will but its own log.
    alter(network.members[HUB], NAME, some_entry(network.members[HUB]))
    report = compare(network)
    assert (report.only_here, report.only_there, report.outcome) == (1, 1, "repaired")
    assert_same(network)


def test_an_entry_that_only_the_hub_has_comes_to_the_follower(network: Network) -> None:
    add(network.members[HUB], NAME, some_entry(network.members[HUB]), 1 << 48 | 999)
    report = compare(network)
    assert (report.only_here, report.only_there, report.outcome) == (0, 1, "repaired")
    assert network.members[FOLLOWER].mirrors.equality(NAME) == "equal"


def test_a_comparison_without_repair_changes_nothing(network: Network) -> None:
    drop(network.members[FOLLOWER], NAME, some_entry(network.members[HUB]))
    before = held_entries(network.members[FOLLOWER], NAME)
    report = compare(network, repair=False)
    assert (report.only_there, report.outcome) == (1, "different")
    assert held_entries(network.members[FOLLOWER], NAME) == before


def test_an_ordinary_sync_repairs_what_it_finds(network: Network) -> None:
    exchange = network.members[FOLLOWER]
    for entry in sorted(held_entries(exchange, NAME))[:40]:
        drop(exchange, NAME, entry)
    make_one_more(network)
    [report] = asyncio.run(network.sync(FOLLOWER, HUB).pull())
    assert report.equality == "equal"
    [event] = events(exchange.node, EventKind.SET_COMPARED)
    assert event.details["only_there"] == 40


def make_one_more(network: Network) -> None:
    network.members[HUB].ledger.import_entries(NAME, drafts(1, first=ENTRIES), actor="tester", form="test")


@pytest.mark.parametrize("where", [HUB, FOLLOWER])
def test_sums_that_do_not_say_what_the_blocks_hold_are_counted_anew(network: Network, where: str) -> None:
    node = network.members[where].node
    with node.store.transaction() as tx:
        found = tx.sets.get(NAME)
        raw = tx.sets.sums(found.id)
        tx.sets.put_sums(found.id, {at: bytes(24) for at in raw})
    compare(network)
    compare(network)
    assert_same(network)
    [event] = events(node, EventKind.SUMS_CORRECTED)
    assert event.details["set"] == NAME


def test_what_the_view_withholds_is_in_no_answer_and_makes_no_difference(tmp_path: Path) -> None:
    """Both sides compare only what the view shows: other groups and other labels leave no trace."""
    clock, made = FakeClock(), Network()
    nodes = [make_node(tmp_path, agency, clock=clock) for agency in (HUB, FOLLOWER)]
    befriend(*nodes)
    for node in nodes:
        made.join(node)
    entries = [one._replace(digests={**one.digests, "pdq": sha256(one.source_ref)}) for one in drafts(50)]
    hidden = drafts(30, first=1000, restrictions=(Restriction.EMBARGO,))
    make_set(made.members[HUB], "identified", [*entries, *hidden])
    asyncio.run(made.sync(FOLLOWER, HUB).pull())
    follower = made.members[FOLLOWER]
    assert len(held_entries(follower, NAME)) == 50
    drop(follower, NAME, sorted(held_entries(follower, NAME))[7])
    report = asyncio.run(made.sync(FOLLOWER, HUB).compare(NAME, repair=True))
    assert (report.labels, report.only_there, report.outcome) == (1, 1, "repaired")
    assert len(held_entries(follower, NAME)) == 50
    assert follower.mirrors.equality(NAME) == "equal"


def test_a_partner_asks_about_no_label_that_it_does_not_see(network: Network) -> None:
    hub, follower = network.members[HUB], network.members[FOLLOWER]
    running = follower.comparing.begin(HUB, NAME)
    asked = Question(SKETCH, NAME, running.cursor, running.salt, (2,), 0, 100).dump()
    with pytest.raises(NotFoundError):
        hub.compare_for(FOLLOWER, NAME, follower.question(HUB, running, asked))


def test_a_partner_that_sees_nothing_of_a_set_gets_the_answer_of_an_absent_one(network: Network) -> None:
    hub, follower = network.members[HUB], network.members[FOLLOWER]
    hub.ledger.create_set(f"{HUB}/secret", "victim_identification", SetDefaults("law", handling=HandlingCode.H3), "t")
    running = follower.comparing.begin(HUB, NAME)
    for name in (f"{HUB}/secret", f"{HUB}/absent"):
        running.set_name = name
        body = follower.question(HUB, running, follower.comparing.sums_question(running))
        with pytest.raises(NotFoundError, match="no such set"):
            hub.compare_for(FOLLOWER, name, body)


def test_a_question_about_another_state_is_answered_with_a_conflict(network: Network) -> None:
    hub, follower = network.members[HUB], network.members[FOLLOWER]
    running = follower.comparing.begin(HUB, NAME)
    body = follower.question(HUB, running, follower.comparing.sums_question(running))
    make_one_more(network)
    with pytest.raises(ConflictError, match="moved on"):
        hub.compare_for(FOLLOWER, NAME, body)


def test_a_hub_that_changes_while_it_is_compared_is_compared_as_it_then_is(network: Network) -> None:
    drop(network.members[FOLLOWER], NAME, some_entry(network.members[HUB]))
    sync = network.sync(FOLLOWER, HUB)
    asked, left = sync._link.compare, [2]

    async def interrupted(set_name: str, body: bytes) -> bytes | None:
        if left[0]:
            left[0] -= 1
            network.members[HUB].ledger.import_entries(
                NAME, drafts(1, first=900 + left[0]), actor="tester", form="test"
            )
        return await asked(set_name, body)

    sync._link.compare = interrupted
    report = asyncio.run(sync.compare(NAME, repair=True))
    assert report.outcome == "repaired"
    assert network.members[FOLLOWER].mirrors.equality(NAME) == "equal"
    assert len(held_entries(network.members[FOLLOWER], NAME)) == ENTRIES + 2


def test_a_hub_that_sends_senseless_symbols_ends_the_comparison(network: Network) -> None:
    drop(network.members[FOLLOWER], NAME, some_entry(network.members[HUB]))
    hub = network.members[HUB]
    made = hub._answers.sketch

    def senseless(served: object, question: Question) -> bytes:
        raw = bytearray(made(served, question))  # type: ignore[arg-type]
        raw[20:] = hub.node.random.bytes(len(raw) - 20)
        return bytes(raw)

    hub._answers.sketch = senseless  # type: ignore[method-assign]
    with pytest.raises(GatewayError):
        compare(network)
    assert len(held_entries(network.members[FOLLOWER], NAME)) == ENTRIES - 1


def test_a_thousand_differences_are_repaired_in_a_few_rounds(network: Network) -> None:
    hub, follower = network.members[HUB], network.members[FOLLOWER]
    hub.ledger.import_entries(NAME, drafts(3000, first=5000), actor="tester", form="test")
    asyncio.run(network.sync(FOLLOWER, HUB).pull())
    drop(follower, NAME, *sorted(held_entries(follower, NAME))[-1500:])
    network.requests.clear()
    report = compare(network)
    assert (report.only_there, report.outcome) == (1500, "repaired")
    assert held_entries(follower, NAME).keys() == held_entries(hub, NAME).keys()
    assert sum("compare" in line for line in network.requests) <= 10


# Over HTTP


async def test_a_comparison_over_http_repairs_as_well(tmp_path: Path) -> None:
    clock = FakeClock()
    hub = Exchange(make_node(tmp_path, HUB, clock=clock, **loopback()))
    follower = Exchange(make_node(tmp_path, FOLLOWER, clock=clock))
    befriend(hub.node, follower.node)
    make_set(hub, "identified", drafts(40))
    async with serving(hub), link_to(hub.node, follower.node) as link:
        sync = PartnerSync(follower, link, HUB)
        await sync.pull()
        entries = sorted(held_entries(hub, NAME))
        drop(hub, NAME, entries[9])
        lost_there = await sync.compare(NAME, repair=True)
        drop(follower, NAME, entries[5])
        lost_here = await sync.compare(NAME, repair=True)
    for report, found in ((lost_there, (1, 0, 1)), (lost_here, (0, 1, 0))):
        assert (report.only_here, report.only_there, report.offered) == found
        assert report.outcome == "repaired"
    assert held_entries(hub, NAME).keys() == held_entries(follower, NAME).keys() == set(entries)
    assert follower.mirrors.equality(NAME) == "equal"


async def test_what_is_no_envelope_is_not_read_as_a_question(tmp_path: Path) -> None:
    clock = FakeClock()
    hub = Exchange(make_node(tmp_path, HUB, clock=clock, **loopback()))
    follower = Exchange(make_node(tmp_path, FOLLOWER, clock=clock))
    befriend(hub.node, follower.node)
    make_set(hub, "identified", drafts(4))
    async with serving(hub), link_to(hub.node, follower.node) as link:
        with pytest.raises(MalformedError):
            await link.compare(NAME, b"not an envelope")
        await PartnerSync(follower, link, HUB).pull()
        running = follower.comparing.begin(HUB, NAME)
        body = follower.question(HUB, running, follower.comparing.sums_question(running))
        with pytest.raises(MalformedError, match="another set"):
            await link.compare(f"{HUB}/other", body)
        assert await link.compare(NAME, body) is not None
