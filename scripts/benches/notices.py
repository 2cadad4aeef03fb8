"""An identification, from its commit to the last of twenty partners, over HTTP on loopback.

The partners are real gateways with real doors: listening, authenticating, opening, verifying, committing, answering
with a receipt that is verified. They share one process beside the hub's (`notice_doors.py`), so on two cores all twenty
take turns on one; twenty machines would be quicker. Each holds the hub's entries, so each may be told.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from measure import Bar, Figure, Scale
from worlds import CLOCK

from chain import agreement, policy_folder
from factory import card_of, drafts, enrol, loopback, make_node, make_set
from gateway.cases.assertions import Wish
from gateway.cli.syncing import link_for
from gateway.crypto.keys import SYSTEM_RANDOM
from gateway.exchange import Exchange
from gateway.exchange.lookup import format_entry
from gateway.model import VictimStatus
from gateway.node import Node
from gateway.sync import deliver_mail
from partner_simulator import Network, held_entries

TARGET = 13  # the last of 20 reachable partners has an identification within two seconds, in the median
HUB = "XA-NCVI"
DOORS = Path(__file__).with_name("notice_doors.py")


def bench_notice(scale: Scale) -> Iterator[Figure]:
    """An identification: from its commit until the last partner has it, and has committed it."""
    count, rounds = scale.size(20, 3), scale.size(9, 2)
    with tempfile.TemporaryDirectory(dir=scale.folder) as place, ExitStack() as stack:
        folder = Path(place)
        hub = _world(folder, count, stack)
        names = [row.agency for row in _partners(hub.node)]
        found = [format_entry(one) for one in sorted(held_entries(hub, f"{HUB}/found"))]
        deeds, last, busy = [], [], []
        with _doors(folder, names):
            for entry in found[:rounds]:
                start = time.perf_counter()
                wish = Wish(VictimStatus.IDENTIFIED)
                done = hub.statuses.set_entries(f"{HUB}/found", [entry], wish, actor="bench")
                committed, worked = time.perf_counter(), time.process_time()
                outcome = asyncio.run(deliver_mail(hub, link_for(hub.node), done.told.partners))
                there = time.perf_counter()
                assert outcome == dict.fromkeys(names, ""), outcome
                deeds.append(committed - start)
                last.append(there - committed)
                busy.append(time.process_time() - worked)
        with hub.node.store.reading() as tx:
            # Each partner has confirmed each, with a receipt that was verified.
            assert all(row.delivered and row.receipt for row in tx.mail.sent_mail()), "a notice without a receipt"
    yield Figure("notice.deed", 1_000 * statistics.median(deeds), "ms")
    yield Figure("notice.last", statistics.median(last), "s", bar=Bar(TARGET, at_most=2))
    yield Figure("notice.cpu", statistics.median(busy), "s")
    yield Figure("notice.slowest", max(last), "s")


def _world(folder: Path, count: int, stack: ExitStack) -> Exchange:
    """The hub with its set, and so many partners that hold it; what the doors need to know lies in `ports.json`."""
    agencies = [f"X{chr(ord('B') + number % 24)}-P{number:02}" for number in range(count)]
    texts = policy_folder(folder / "policies", [HUB, *agencies[:1]], [])
    for country in {name[:2] for name in agencies}:
        (texts / country).mkdir(exist_ok=True)
        for us, them in (("XA", country), (country, "XA")):
            (texts / us / f"agreement-{them.lower()}.cedar").write_text(agreement(us, them), encoding="utf-8")
    settings = {name: loopback() for name in agencies}
    options = {"clock": CLOCK, "random": SYSTEM_RANDOM, "policies": str(texts)}
    nodes = [make_node(folder, name, **options, **settings[name]) for name in agencies]  # type: ignore[arg-type]
    hub = make_node(folder, HUB, **options)  # type: ignore[arg-type]
    stack.callback(hub.store.close)
    network = Network()
    exchange = network.join(hub)
    make_set(exchange, "found", drafts(16, victim_status=VictimStatus.UNIDENTIFIED))
    for node in nodes:
        enrol(hub, card_of(node))
        enrol(node, card_of(hub))
        network.join(node)
        asyncio.run(network.sync(node.agency, HUB).sync())
        node.store.close()
    (folder / "ports.json").write_text(json.dumps({name: one["listen_port"] for name, one in settings.items()}))
    return exchange


def _partners(node: Node) -> list[object]:
    with node.store.reading() as tx:
        return list(tx.people.partners())


@contextmanager
def _doors(folder: Path, names: list[str]) -> Iterator[None]:
    """The partners' doors in a process of their own, open within the block."""
    command = [sys.executable, str(DOORS), str(folder), *names]
    paths = os.pathsep.join(str(Path(__file__).parents[2] / name) for name in ("tests", "."))
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": paths}
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "open\n", "the doors did not open"
        yield
    finally:
        process.stdin.close()  # that ends it
        process.wait(30)
        process.stdout.close()
