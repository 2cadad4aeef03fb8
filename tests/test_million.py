"""One entry among a million that the two ends do not hold alike: found, named and repaired, on whichever side it is."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from factory import LEGAL_BASIS, FakeClock, befriend, make_node
from gateway.exchange.labels import SetDefaults
from gateway.exchange.lookup import format_entry
from gateway.model import EntryDraft, HandlingCode, VictimStatus
from partner_simulator import Network
from silent_faults import add, alter, drop

HUB, FOLLOWER = "XA-NCVI", "XB-NCVI"
NAME = f"{HUB}/identified"
ENTRIES = 1_000_000
FIRST, STRANGER = 1 << 48 | 1, 1 << 48 | 2_000_000
LABELS = tuple(itertools.product((HandlingCode.H0, HandlingCode.H1), tuple(VictimStatus)[1:6], ("A1", "B2", "C3")))

pytestmark = [pytest.mark.slow, pytest.mark.sqlite]


def entries() -> Iterator[EntryDraft]:
    """A million digests of made-up strings, evenly under thirty labels."""
    for number, (handling, status, evaluation) in zip(range(ENTRIES), itertools.cycle(LABELS), strict=False):
        digest = hashlib.sha256(b"made up %d" % number).digest()
        yield EntryDraft({"sha256": digest}, handling=handling, victim_status=status, evaluation=evaluation)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Network:
    folder, clock, made = tmp_path_factory.mktemp("million"), FakeClock(), Network()
    nodes = [make_node(Path(folder), agency, clock=clock) for agency in (HUB, FOLLOWER)]
    befriend(*nodes)
    for node in nodes:
        made.join(node)
    ledger = made.members[HUB].ledger
    ledger.create_set(NAME, "victim_identification", SetDefaults(LEGAL_BASIS), "tester")
    ledger.import_entries(NAME, entries(), actor="tester", form="test")
    [report] = asyncio.run(made.sync(FOLLOWER, HUB).pull())
    assert (report.equality, report.changes) == ("equal", ENTRIES)
    return made


@pytest.mark.parametrize(
    ("where", "fault", "found", "ours"),
    [
        (FOLLOWER, "drop", (0, 1), False),
        (FOLLOWER, "alter", (1, 1), True),
        (FOLLOWER, "add", (1, 0), True),
        (HUB, "drop", (1, 0), True),
        (HUB, "alter", (1, 1), True),
        (HUB, "add", (0, 1), False),
    ],
)
def test_one_entry_of_a_million_is_found_named_and_repaired(
    network: Network, where: str, fault: str, found: tuple[int, int], ours: bool
) -> None:
    # Each fault strikes another entry, and a stranger has an id that nobody was given.
    entry = FIRST + 100_000 * len([row for row in network.requests if row.endswith(" keys")])
    named = STRANGER if fault == "add" else entry
    if fault == "add":
        add(network.members[where], NAME, entry, STRANGER)
    else:
        {"drop": drop, "alter": alter}[fault](network.members[where], NAME, entry)
    report = asyncio.run(network.sync(FOLLOWER, HUB).compare(NAME, repair=True))
    assert (report.only_here, report.only_there, report.differing) == (*found, 1)
    assert report.entries == ((format_entry(named),) if ours else ())
    assert report.outcome == "repaired"
    assert report.received_bytes < 20_000  # sums of thirty labels, and one short sketch
    assert network.members[FOLLOWER].mirrors.equality(NAME) == "equal"
