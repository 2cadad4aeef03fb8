"""Exact look-up in a large list, with the resident index and without, and what lists cost in memory and on disk."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

from measure import Bar, Figure, Run, Scale, against, compare, timed
from tables import insert, open_table
from worlds import FLOOR_BYTES, FOLLOWER, HUB, Gateway, Pair, digests, drafts, fill, make_pair, table_rows

from gateway.columns import GROUP_CODES, Rows, SetIndex, constant, counting
from gateway.columns.block import decode_together
from gateway.crypto.keys import SYSTEM_RANDOM
from gateway.interchange import START
from gateway.model import FieldGroup

MIB = 1 << 20
CRYPTOGRAPHIC = GROUP_CODES[FieldGroup.CRYPTOGRAPHIC_DIGESTS]
IN_LIST = 500  # values of one IN list: SQLite's best, measured from 100 to 5,000


def bench_lookup(scale: Scale) -> Iterator[Figure]:
    """Digests asked for in one batch, half of them listed: the resident index, no index, and the whole look-up."""
    listed, asked = scale.size(1_000_000, 10_000), scale.size(100_000, 2_000)
    source = random.Random(5)
    present = source.sample(range(listed), asked // 2)
    numbers = present + list(range(listed, listed + asked - len(present)))
    source.shuffle(numbers)
    values = [digests(number)[:32] for number in numbers]
    with tempfile.TemporaryDirectory(dir=scale.folder) as place, ExitStack() as stack:
        pair = make_pair(Path(place), stack)
        fill(pair, listed)
        pair.hub.reopen()
        connection = stack.enter_context(closing(open_table(scale.folder / "lookup.db")))
        for first in range(0, listed, 100_000):
            insert(connection, table_rows(list(drafts(min(100_000, listed - first), first=first))))
        lookup, node = pair.hub.exchange.lookup, pair.hub.exchange.node
        column = Rows.of(asked, {"sha256": values}).octets("sha256")
        texts = [value.hex() for value in values]
        with node.store.reading() as tx:
            set_id = tx.sets.get(pair.set_name).id or 0
            with pair.hub.exchange.shelf.index(tx, set_id) as found:
                index = found

        def in_lists() -> Run:
            hits = 0

            def run() -> None:
                nonlocal hits
                for at in range(0, asked, IN_LIST):
                    some = values[at : at + IN_LIST]
                    query = f"SELECT sha256, label FROM h WHERE sha256 IN ({','.join('?' * len(some))})"
                    hits += len(connection.execute(query, some).fetchall())

            found = timed(run, asked)
            assert hits == len(present)
            return found

        def resident() -> Run:
            hits: list[int] = []
            run = timed(lambda: hits.append(len(index.find("sha256", column).query)), asked)
            assert hits == [len(present)]
            return run

        def without_index() -> Run:
            """The question is indexed instead, and all that is stored goes past it (nothing in it was replaced)."""
            hits = 0

            def run() -> None:
                nonlocal hits
                question = SetIndex(SYSTEM_RANDOM.bytes(32))
                question.append(0, counting(1, asked), {"sha256": column}, constant(1, asked))
                with node.store.reading() as tx:
                    blocks = pair.hub.exchange.shelf.get_all(tx, tx.blocks.of_set(set_id), [CRYPTOGRAPHIC])
                    for read in decode_together(blocks, ["sha256"]):
                        values_there = read.rows.octets("sha256")
                        found = question.find("sha256", values_there)
                        hits += int((values_there[found.query] == column[found.row]).all(axis=1).sum())

            found = timed(run, asked)
            assert hits == len(present)
            return found

        def whole() -> Run:
            hits: list[int] = []
            run = timed(lambda: hits.append(len(lookup.find(texts, actor=HUB, remarked=False))), asked)
            assert hits == [len(present)]
            return run

        baselines: dict[str, Callable[[], Run]] = {f"SQLite IN ({IN_LIST})": in_lists}
        bars = {name: Bar(6, at_least=10) for name in baselines}
        yield from compare("lookup.index", resident, baselines, unit="digests/s", rounds=scale.rounds, bars=bars)
        bars = {name: Bar(6, at_least=2) for name in baselines}
        yield from compare("lookup.cold", without_index, baselines, unit="digests/s", rounds=scale.rounds, bars=bars)
        yield from compare("lookup.deed", whole, baselines, unit="digests/s", rounds=scale.rounds)
        held = 3 * listed
        yield Figure("lookup.resident", index.resident_bytes / held, "B/digest")


def bench_memory(scale: Scale) -> Iterator[Figure]:
    """Peak memory of import, serve and apply at two sizes: it grows by the resident index and by nothing else."""
    small, large = scale.size(100_000, 2_000), scale.size(400_000, 4_000)
    for deed in ("apply",) if scale.quick else DEEDS:  # each is two processes
        with ThreadPoolExecutor(2) as both:  # memory is measured, not time
            least, most = both.map(partial(measured, deed, folder=scale.folder), (small, large))
        peaks = [found["peak_bytes"] / MIB for found in (least, most)]
        yield against(f"memory.{deed}", peaks[1], "MiB", f"{small:,} entries instead of {large:,}", peaks[0])
        growth = (most["peak_bytes"] - least["peak_bytes"]) / (large - small)
        yield Figure(f"memory.{deed}.growth", max(0.0, growth), "B/entry")
    yield against(
        "memory.mirror.disk", most["disk_bytes"] / large, "B/entry", "the entropy of its columns", FLOOR_BYTES
    )


def measured(deed: str, count: int, *, folder: Path) -> dict[str, int]:
    """One deed in a process of its own: a peak never goes down."""
    command = [sys.executable, str(Path(__file__).parent), "--child", deed, str(count), "--folder", str(folder)]
    found: dict[str, int] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def measure_deed(deed: str, count: int, folder: Path) -> dict[str, int]:
    """What such a process does. What has to be there before is made in a fork, so that its peak is not ours."""
    with tempfile.TemporaryDirectory(dir=folder) as place, ExitStack() as stack:
        pair = make_pair(Path(place), stack)
        prepare, measured = DEEDS[deed]
        for gateway in (pair.hub, pair.follower):
            gateway.exchange.node.store.close()  # no connection is shared with the fork
        forked = os.fork()
        if not forked:
            prepare(pair, count, Path(place))
            os._exit(0)
        assert os.waitpid(forked, 0)[1] == 0
        pair.hub.reopen()
        pair.follower.reopen()
        measured(pair, count, Path(place))
        return {
            "peak_bytes": _peak_bytes(),
            "index_bytes": _index_bytes(pair.hub) + _index_bytes(pair.follower),
            "disk_bytes": pair.follower.database.stat().st_size,
        }


def _index_bytes(gateway: Gateway) -> int:
    """What its resident indexes take."""
    exchange, total = gateway.exchange, 0
    with exchange.shelf.reading(exchange.node.store) as tx:
        for hash_set in tx.sets.all():
            with exchange.shelf.index(tx, hash_set.id or 0) as index:
                total += index.resident_bytes
    return total


def _peak_bytes() -> int:
    """The most memory that this program had; getrusage would count what its parent had before it."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def _nothing(_pair: Pair, _count: int, _place: Path) -> None:
    """An import starts from an empty set."""


def _import(pair: Pair, count: int, _place: Path) -> None:
    fill(pair, count)


def _serve(pair: Pair, count: int, place: Path) -> None:
    """Page by page into files, as a door writes them to its caller."""
    pair.announce()
    cursor, served = START, 0
    while (page := pair.hub.exchange.page_for(FOLLOWER, pair.set_name, cursor)) is not None:
        (place / f"{served:012}.page").write_bytes(page.body)
        cursor, served = page.head.end, served + page.head.changes
    assert served == count


def _import_and_serve(pair: Pair, count: int, place: Path) -> None:
    _import(pair, count, place)
    _serve(pair, count, place)


def _apply(pair: Pair, _count: int, place: Path) -> None:
    for page in sorted(place.glob("*.page")):
        word = pair.follower.exchange.take_page(HUB, page.read_bytes()).equality
    assert word == "equal"


Deed = Callable[[Pair, int, Path], None]
DEEDS: dict[str, tuple[Deed, Deed]] = {
    "import": (_nothing, _import),
    "serve": (_import, _serve),
    "apply": (_import_and_serve, _apply),
}
