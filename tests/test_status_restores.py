"""A wrong identification stops no search for good, also where one of the two sides was restored from a backup."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from disaster import back_up, founded, restored
from factory import FakeClock, card_of, drafts, enrol, events, make_set
from gateway.alarms import AlarmKind
from gateway.audit import EventKind
from gateway.cases.assertions import Wish
from gateway.exchange import Exchange
from gateway.model import VictimStatus
from partner_simulator import Network
from test_identifying import alarms, set_status, sought, status, told

FOUND, MISTAKE = Wish(VictimStatus.IDENTIFIED), Wish(VictimStatus.UNIDENTIFIED, "another child")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def two(tmp_path: Path, clock: FakeClock) -> Network:
    """XA and XB, founded for real, with the same entries; each follows the other's set."""
    network = Network()
    nodes = [founded(tmp_path, agency, clock) for agency in ("XA-NCVI", "XB-NCVI")]
    for here, there in (nodes, nodes[::-1]):
        enrol(here, card_of(there))
    for node in nodes:
        make_set(network.join(node), "found", drafts(3, victim_status=VictimStatus.UNIDENTIFIED))
    sync(network)
    return network


def sync(network: Network, rounds: int = 2) -> None:
    for _ in range(rounds):
        asyncio.run(network.sync("XA-NCVI", "XB-NCVI").sync())
        asyncio.run(network.sync("XB-NCVI", "XA-NCVI").sync())
        for exchange in network.members.values():
            exchange.statuses.keep_house()


def after_disaster(network: Network, agency: str, file: Path, folder: Path, clock: FakeClock) -> Exchange:
    network.members[agency].node.store.close()
    exchange = network.join(restored(file, folder, clock))
    exchange.epochs.carry()
    return exchange


def test_who_was_told_and_went_back_to_its_backup_is_told_again_that_it_was_wrong(
    tmp_path: Path, clock: FakeClock
) -> None:
    network = two(tmp_path, clock)
    xa, xb = network.members.values()
    done = set_status(xa, FOUND)
    sync(network)
    assert (status(xb)[0], sought(xb)) == ("identified", 2)
    kept = back_up(xb.node, tmp_path / "xb.backup")
    clock.advance(60)
    set_status(xa, MISTAKE)
    sync(network)
    assert told(xa, done) == {"XB": ("unidentified", False)}
    assert sought(xb) == 3
    xb = after_disaster(network, "XB-NCVI", kept, tmp_path / "XB again", clock)
    assert sought(xb) == 2  # as the backup has it
    sync(network)
    assert (status(xb)[0], sought(xb)) == ("unidentified", 3)
    assert alarms(xb, AlarmKind.SEARCH_RESUMED) == 1


def test_who_asserted_and_forgot_it_learns_of_it_and_can_take_it_back(tmp_path: Path, clock: FakeClock) -> None:
    network = two(tmp_path, clock)
    xa, xb = network.members.values()
    kept = back_up(xa.node, tmp_path / "xa.backup")
    clock.advance(60)
    lost = set_status(xa, FOUND).assertion.id
    sync(network)
    assert sought(xb) == 2
    xa = after_disaster(network, "XA-NCVI", kept, tmp_path / "XA again", clock)
    assert xa.statuses.worklist().counts == {"XA-NCVI/found": 3}
    sync(network)
    assert alarms(xa, AlarmKind.STATUS_LOST) == 1
    assert sought(xa) == 3  # a word without material stops no search here
    xa.statuses.change(lost, MISTAKE, actor="tester")
    assert alarms(xa, AlarmKind.STATUS_LOST) == 0
    sync(network)
    assert (status(xb)[0], sought(xb)) == ("unidentified", 3)
    assert alarms(xb, AlarmKind.SEARCH_RESUMED) == 1


def test_who_lowered_its_word_and_forgot_that_does_not_stand_by_the_mistake(tmp_path: Path, clock: FakeClock) -> None:
    network = two(tmp_path, clock)
    xa, xb = network.members.values()
    set_status(xa, FOUND)
    sync(network)
    kept = back_up(xa.node, tmp_path / "xa.backup")
    clock.advance(60)
    set_status(xa, MISTAKE)
    sync(network)
    xa = after_disaster(network, "XA-NCVI", kept, tmp_path / "XA again", clock)
    assert sought(xa) == 2  # the mistake is back
    sync(network)
    assert (sought(xa), sought(xb)) == (3, 3)
    assert alarms(xa, AlarmKind.STATUS_LOST) == 1
    set_status(xa, FOUND)  # and whatever is said next counts everywhere
    sync(network)
    assert (sought(xa), sought(xb)) == (2, 2)


def test_who_was_not_restored_takes_nobodys_word_for_its_own(tmp_path: Path, clock: FakeClock) -> None:
    network = two(tmp_path, clock)
    xa, xb = network.members.values()
    done = set_status(xa, FOUND)
    sync(network)
    for number, version in ((done.assertion.id, 99), ("1" * 32, 1)):
        body = {"assertion": number, "version": version, "status": "unidentified"}
        xb.mailbox.write("XA-NCVI", "status_echo", body)
    sync(network)
    assert status(xa) == ("identified", ["XA"])
    assert alarms(xa, AlarmKind.STATUS_LOST) == 0
    assert len(events(xa.node, EventKind.MESSAGE_REFUSED)) == 2
