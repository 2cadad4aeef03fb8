"""Pages of STIX objects for TAXII clients: `Collections.page`, rendered as the door renders it, without sockets.

A page is CPU from the question to the body: who asks and what it may see, the place, 1,000 objects out of blocks, and
the log leaf with its checkpoint. The baseline is what no server can go below: 1,000 stored objects joined into the same
body. `again` is a page that another partner of the same view has had, `next` one that nobody has.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from measure import Bar, Figure, Run, Scale, compare
from worlds import CLOCK, FOLLOWER, Pair, fill, make_pair

from gateway.doors.taxii import render_envelope
from gateway.exchange import Exchange
from gateway.exchange.collections import PAGE_OBJECTS, Body, ObjectPage, Query, collection_id

TARGET = 9  # a page of 1,000 objects: at least 0.7 of joining stored bytes, and flat in the collection's size
FLAT = 0.8  # as fast in a hundred times as large a collection, within what a shared machine varies


def bench_taxii(scale: Scale) -> Iterator[Figure]:
    """A page of 1,000 STIX objects beside 1,000 stored ones that are joined; the same in a large collection."""
    with tempfile.TemporaryDirectory(dir=scale.folder) as place, ExitStack() as stack:
        small, large = (_reader(Path(place), stack, name) for name in ("small", "large"))
        small.fill(scale.size(10_000, 1_200))
        large.fill(scale.size(1_000_000, 3_000))
        bar = Bar(TARGET, at_least=0.7)
        for name, page in (("again", large.again), ("next", large.following)):
            joined = {"joined": large.joined}
            yield from compare(
                f"taxii.{name}", page, joined, unit="objects/s", rounds=scale.rounds, bars={"joined": bar}
            )
        yield Figure("taxii.order", 1e6 / large.order.rate, "us/entry")
        flat = {"small": small.following}
        yield from compare(
            "taxii.flat",
            large.following,
            flat,
            unit="objects/s",
            rounds=scale.rounds,
            bars={"small": Bar(TARGET, at_least=FLAT)},
        )


class _Reader:
    """A partner that reads a collection page by page."""

    def __init__(self, pair: Pair) -> None:
        self._pair = pair
        self._stored: list[bytes] = []
        self._last = ""
        self.order = Run(1, 1)  # the first page, by the entries of the collection

    def fill(self, count: int) -> None:
        """Fill the collection, and read its first page, by which its order is made."""
        fill(self._pair, count)
        CLOCK.advance(2)
        pages: list[ObjectPage] = []
        self.order = _cpu(lambda: pages.append(self._page("")), count)
        self._last = pages[0].following
        objects = json.loads(b"[%s]" % pages[0].stretch.raw)
        self._stored = [json.dumps(one, ensure_ascii=False, separators=(",", ":")).encode() for one in objects]

    def joined(self) -> Run:
        """The baseline."""
        return _cpu(lambda: b'{"more":true,"next":"x","objects":[%s]}' % b",".join(self._stored), len(self._stored))

    def again(self) -> Run:
        """The first page."""
        return _cpu(lambda: self._page(""), PAGE_OBJECTS)

    def following(self) -> Run:
        """The page after the last; from the first one again where there is none."""
        asked, self._last = self._last, ""
        pages: list[ObjectPage] = []
        run = _cpu(lambda: pages.append(self._page(asked)), 1)
        self._last = pages[0].following
        return Run(run.seconds, len(pages[0].stretch.told))

    def _page(self, following: str) -> ObjectPage:
        pages: list[ObjectPage] = []

        def render(page: ObjectPage) -> Body:
            pages.append(page)
            return render_envelope(page)

        exchange: Exchange = self._pair.hub.exchange
        exchange.collections.page(FOLLOWER, collection_id(self._pair.set_name), Query(following=following), render)
        return pages[0]


def _reader(folder: Path, stack: ExitStack, name: str) -> _Reader:
    place = folder / name
    place.mkdir()
    return _Reader(make_pair(place, stack))


def _cpu(work: Callable[[], object], units: float) -> Run:
    began = time.process_time()
    work()
    return Run(max(time.process_time() - began, 1e-9), units)
