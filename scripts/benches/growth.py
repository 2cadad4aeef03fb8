"""How time and memory grow: with the size of a set, and with the number of partners.

Each size is measured in a process of its own. What did not change must cost nothing, so pulls, polls and comparisons
are flat; what changes is paid once, so imports and first pulls are straight lines.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from chart import charts
from measure import Bar, Figure, Scale, against
from worlds import CLOCK, FOLLOWER, HUB, Gateway, Pair, batches, drafts, fill, make_pair

from factory import befriend, make_node, make_set
from gateway.crypto.keys import SYSTEM_RANDOM
from gateway.exchange import Exchange
from gateway.interchange import START

SIZES = (10_000, 100_000, 1_000_000, 10_000_000)
PARTNERS = (1, 10, 100)
CHANGES = 100  # that a partner is behind
HELD = 20_000  # entries of the set that many partners follow
REPEATS = 5
MIB = 1 << 20
Found = dict[str, float]
# figure -> (what it is, unit, whether it grows with the set)
OF_SIZE = {
    "import": ("import", "s", True),
    "first-pull": ("first pull, both sides", "s", True),
    "start": ("index rebuilt at start", "s", True),
    "memory": ("peak memory, both sides", "MiB", True),
    "index": ("index of the hub", "MiB", True),
    "disk": ("database of the hub", "MiB", True),
    "pull": (f"pull of {CHANGES} changes", "ms", False),
    "poll": ("unchanged poll", "ms", False),
    "compare": ("comparing equal ends", "ms", False),
    "import-some": (f"import of {CHANGES} more", "ms", False),
}
OF_PARTNERS = {
    "poll": ("an unchanged poll", "ms"),
    "pull": (f"{CHANGES} changes served", "ms"),
}


def bench_scale(scale: Scale) -> Iterator[Figure]:
    """Growth with entries (10^4 to 10^7) and with partners (1 to 100); --svg FILE draws it."""
    sizes = (500, 1_000) if scale.quick else SIZES
    by_size = {size: _measured("size", size, scale.folder) for size in sizes}
    for figure, (_, unit, _) in OF_SIZE.items():
        for size, found in by_size.items():
            yield Figure(f"scale.{figure}.{size}", found[figure], unit)
    base, top = sizes[-3] if len(sizes) > 3 else sizes[0], sizes[-1]
    for figure, (_, unit, grows) in OF_SIZE.items():
        if not grows:
            bar = Bar(6, at_most=1.5) if figure == "pull" else None
            name = f"the same at {base:,} entries"
            yield against(f"scale.{figure}.flat", by_size[top][figure], unit, name, by_size[base][figure], bar)
    partners = (2,) if scale.quick else PARTNERS
    by_partners = {count: _measured("partners", count, scale.folder) for count in partners}
    for figure, (_, unit) in OF_PARTNERS.items():
        for count, found in by_partners.items():
            yield Figure(f"scale.{figure}.partners.{count}", found[figure], f"{unit}/partner")
    if scale.svg is not None:
        scale.svg.write_text(draw(by_size, by_partners), encoding="utf-8")


def draw(by_size: dict[int, Found], by_partners: dict[int, Found]) -> str:
    """The curves as an SVG."""

    def lines(chosen: Callable[[str], bool]) -> dict[str, dict[int, float]]:
        return {
            OF_SIZE[name][0]: {size: found[name] for size, found in by_size.items()} for name in OF_SIZE if chosen(name)
        }

    with_partners = {
        said: {count: found[name] for count, found in by_partners.items()} for name, (said, _) in OF_PARTNERS.items()
    }
    return charts(
        [
            ("Grows with the entries", "entries in the set", "seconds", lines(lambda n: OF_SIZE[n][1] == "s")),
            ("Does not grow", "entries in the set", "milliseconds", lines(lambda n: OF_SIZE[n][1] == "ms")),
            ("Memory and disk", "entries in the set", "MiB", lines(lambda n: OF_SIZE[n][1] == "MiB")),
            ("Cost of one partner", "partners", "milliseconds of CPU", with_partners),
        ]
    )


def _measured(kind: str, count: int, folder: Path) -> Found:
    """One size in a process of its own: a peak of memory never goes down."""
    script = str(Path(__file__).parent)
    command = [sys.executable, script, "--child", f"scale-{kind}", str(count), "--folder", str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: Found = json.loads(done.stdout)
    return found


def measure_size(count: int, folder: Path) -> Found:
    """One hub and one follower with so many entries."""
    with tempfile.TemporaryDirectory(dir=folder) as place, ExitStack() as stack:
        pair = make_pair(Path(place), stack)
        making = _seconds(lambda: sum(1 for _ in batches(count)))
        found: Found = {"import": _seconds(lambda: fill(pair, count)) - making}
        found["first-pull"] = _seconds(pair.catch_up)
        found["memory"] = _peak_mib()
        found["disk"] = pair.hub.database.stat().st_size / MIB
        found["start"] = _seconds(pair.hub.reopen)
        with pair.hub.exchange.node.store.reading() as tx:
            set_id = tx.sets.get(pair.set_name).id or 0
            with pair.hub.exchange.shelf.index(tx, set_id) as index:
                found["index"] = index.resident_bytes / MIB
        some: dict[str, list[float]] = {"import-some": [], "pull": []}
        for number in range(REPEATS + 1):
            first = count + number * CHANGES
            some["import-some"].append(_seconds(lambda first=first: fill(pair, CHANGES, first=first)))
            some["pull"].append(_seconds(pair.catch_up))
        # The first of each warms up what a running gateway has warm.
        found |= {name: 1000 * statistics.median(taken[1:]) for name, taken in some.items()}
        found["poll"] = 1000 * statistics.median(_seconds(lambda: _poll(pair)) for _ in range(20))
        found["compare"] = 1000 * statistics.median(_seconds(lambda: _compare(pair)) for _ in range(REPEATS))
    return found


def measure_partners(count: int, folder: Path) -> Found:
    """One hub whose set so many partners follow under one view: CPU of one of them, sockets left out."""
    with tempfile.TemporaryDirectory(dir=folder) as place, ExitStack() as stack:
        names = [FOLLOWER, *(f"XB-P{number:03}" for number in range(1, count))]
        hub, *others = (
            make_node(Path(place), name, clock=CLOCK, random=SYSTEM_RANDOM, page_changes=65_536)
            for name in (HUB, *names)
        )
        for other in others:
            befriend(hub, other)
            other.store.close()
        gateway = Gateway(Exchange(hub))
        stack.callback(gateway.close)
        name = make_set(gateway.exchange, "identified", drafts(HELD))
        cursors = {}
        for partner in names:
            gateway.exchange.head_for(partner, name)
            page = gateway.exchange.page_for(partner, name, START)
            while page is not None:
                cursors[partner] = page.head.end
                page = gateway.exchange.page_for(partner, name, page.head.end)
        polls = _cpu_seconds(lambda: [gateway.exchange.head_for(partner, name) for partner in names for _ in range(5)])
        entries = drafts(CHANGES, first=HELD)
        gateway.exchange.ledger.import_entries(name, entries, actor="bench", form="bench")
        for partner in names:
            gateway.exchange.head_for(partner, name)
        served = _cpu_seconds(lambda: [gateway.exchange.page_for(one, name, cursors[one]) for one in names])
    return {"poll": 1000 * polls / 5 / count, "pull": 1000 * served / count}


CHILDREN: dict[str, Callable[[int, Path], Found]] = {"scale-size": measure_size, "scale-partners": measure_partners}


def _poll(pair: Pair) -> None:
    held = pair.follower.exchange.held_head(HUB, pair.set_name)
    assert held is not None
    assert pair.hub.exchange.head_for(FOLLOWER, pair.set_name, {held[1]}).etag == held[1]


def _compare(pair: Pair) -> None:
    """Sums asked for, answered, and found the same: what a comparison of equal ends takes."""
    hub, follower = pair.hub.exchange, pair.follower.exchange
    running = follower.comparing.begin(HUB, pair.set_name)
    question = follower.question(HUB, running, follower.comparing.sums_question(running))
    answer = hub.compare_for(FOLLOWER, pair.set_name, question)
    assert answer is not None
    follower.comparing.read_sums(running, follower.answer(HUB, answer))
    assert not running.differing


def _seconds(deed: Callable[[], object]) -> float:
    start = time.perf_counter()
    deed()
    return time.perf_counter() - start


def _cpu_seconds(deed: Callable[[], object]) -> float:
    start = time.process_time()
    deed()
    return time.process_time() - start


def _peak_mib() -> float:
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024
