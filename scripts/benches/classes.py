"""Audience classes, and blocks that were joined.

`classes.partner` is the CPU that one more partner of a class costs its hub: whether it may have the page, a header of
its own, one commit with a log leaf and a checkpoint. Sockets and TLS are left out. The baseline is what the class pays
once: the page decided, packed, hashed, signed and sealed.
"""

from __future__ import annotations

import gc
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

from measure import Bar, Figure, Scale, against
from worlds import CLOCK, HUB, Gateway, Pair, drafts, fill, make_pair

from factory import card_of, enrol, make_node, make_set
from gateway.crypto.keys import SYSTEM_RANDOM
from gateway.exchange import Exchange
from gateway.interchange import START, sign_card

TARGET = 12  # of the class: one more partner costs a twentieth at the most
COUNTS = (1, 10, 100)
ROUNDS = 7  # each is a class of its own


def bench_classes(scale: Scale) -> Iterator[Figure]:
    """One more partner beside its class's pack and seal; unchanged polls of 1, 10, 100 partners; blocks joined."""
    with tempfile.TemporaryDirectory(dir=scale.folder) as place:
        yield from _of_a_class(scale, Path(place))
    with tempfile.TemporaryDirectory(dir=scale.folder) as place:
        yield from _joined(scale, Path(place))


def _of_a_class(scale: Scale, folder: Path) -> Iterator[Figure]:
    counts = (1, 3) if scale.quick else COUNTS
    with ExitStack() as stack:
        gateway, names = _hub_of(folder, max(counts))
        stack.callback(gateway.close)
        hub = gateway.exchange
        pair = Pair(gateway, gateway, make_set(hub, "identified"))
        fill(pair, scale.size(65_536, 500))
        for name in names:
            hub.head_for(name, pair.set_name)
        gc.collect()
        gc.freeze()  # what the import left behind is not of a running gateway: the collector need not look through it
        stack.callback(gc.unfreeze)
        # 1. A page of 65,536 changes: for the first of its class, and for each after it.
        pairs: list[tuple[float, float]] = []
        for _ in range(scale.size(ROUNDS, 2)):
            first = _cpu(lambda: _served(hub, names[0], pair.set_name))
            costs = [_cpu(lambda one=one: _served(hub, one, pair.set_name)) for one in names[1:]]
            # The least: what else the machine does only ever adds, and more to a millisecond than to forty.
            pairs.append((first, min(costs)))
            _begin_anew(hub, pair.set_name, names)
        shares = sorted(other / (first - other) for first, other in pairs)
        first, other = (statistics.median(one[place] for one in pairs) for place in (0, 1))
        spread = statistics.median(shares), shares[0], shares[-1]
        baseline, bar = "pack and seal of the class", Bar(TARGET, at_most=0.05)
        yield Figure("classes.partner", 1000 * other, "ms", baseline, 1000 * (first - other), spread, bar)
        # 2. Polls that find nothing new, by the number of partners that poll.
        alone = 0.0
        for count in counts:
            some = names[:count]
            polls = [_cpu(lambda some=some: _polled(hub, some, pair.set_name)) / count for _ in range(5)]
            value = 1000 * statistics.median(polls)
            alone = alone or value
            yield against(f"classes.poll.{count}", value, "ms", "the only partner's poll", alone)


def _joined(scale: Scale, folder: Path) -> Iterator[Figure]:
    """Many imports of a few entries each, before and after their blocks are joined."""
    imports, entries = scale.size(200, 6), 20
    with ExitStack() as stack:
        pair = make_pair(folder, stack)
        for number in range(imports):
            fill(pair, entries, first=number * entries)
        hub, count = pair.hub.exchange, imports * entries
        before, small = _disk_bytes(pair.hub) / count, _pulled(pair)
        seconds = _cpu(lambda: hub.compacting.compact(pair.set_name))
        after = _disk_bytes(pair.hub) / count
        _begin_anew(hub, pair.set_name, ["XB-NCVI"])
        large = _pulled(pair)
        yield against("classes.joined.disk", after, "B/entry", "as they came", before)
        yield against("classes.joined.wire", large[0] / count, "B/entry", "as they came", small[0] / count)
        yield against(
            "classes.joined.serve", 1e6 * large[1] / count, "us/entry", "as they came", 1e6 * small[1] / count
        )
        yield Figure("classes.joining", 1e6 * seconds / count, "us/entry")


def _hub_of(folder: Path, count: int) -> tuple[Gateway, list[str]]:
    """A hub, and so many partners of one country, whose cards differ in nothing but the name."""
    hub, one = (make_node(folder, name, clock=CLOCK, random=SYSTEM_RANDOM) for name in (HUB, "XB-P000"))
    card = card_of(one)
    names = [f"XB-P{number:03}" for number in range(count)]
    for name in names:
        enrol(hub, sign_card(replace(card, agency=name), one.keystore.signing_key))
    one.store.close()
    return Gateway(Exchange(hub)), names


def _begin_anew(hub: Exchange, name: str, partners: list[str]) -> None:
    """Another change of the set: no page of before fits any more."""
    hub.ledger.import_entries(name, drafts(1, first=10**9 + len(partners) + CLOCK()), actor="bench", form="bench")
    CLOCK.advance(1)
    for partner in partners:
        hub.head_for(partner, name)


def _served(hub: Exchange, partner: str, name: str) -> None:
    page = hub.page_for(partner, name, START)
    assert page is not None
    assert page.head.changes


def _polled(hub: Exchange, partners: list[str], name: str) -> None:
    for partner in partners:
        hub.head_for(partner, name)


def _pulled(pair: Pair) -> tuple[int, float]:
    """Bytes and CPU seconds of serving everything."""
    pair.announce()
    sent: list[int] = []
    took = _cpu(lambda: sent.extend(len(page.body) for page in pair.serve(START)))
    return sum(sent), took


def _disk_bytes(gateway: Gateway) -> int:
    """What blocks take in the database: headers, wrapped keys, sealed parts."""
    with closing(sqlite3.connect(gateway.database)) as connection:
        [(rows,)] = connection.execute("SELECT sum(length(header) + length(wrapped_key) + length(digest)) FROM block")
        [(parts,)] = connection.execute("SELECT sum(length(sealed)) FROM block_part")
    return int(rows) + int(parts)


def _cpu(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began
