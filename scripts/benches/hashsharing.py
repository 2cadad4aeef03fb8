"""Windows of entries for clients of NCMEC's hash-sharing API, both ways, without sockets; the stock client beside it.

`page` is 1,000 entries out of blocks, decided, written as XML and on record; `read` is the same page read into drafts.
The baseline of both is what PyPI's `threatexchange` needs to read that page: a server that keeps up with it is never
what a client waits for.
"""

from __future__ import annotations

import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path

from measure import Bar, Figure, Run, Scale, compare
from worlds import CLOCK, FOLLOWER, Pair, fill, make_pair

from gateway.adapters.ncmec import Member
from gateway.adapters.ncmec_pages import parse_page
from gateway.doors.hashsharing import render_page
from gateway.exchange.windows import PAGE_ITEMS, Window, WindowPage
from gateway.model import AdapterReport

TARGET = 7  # XML in NCMEC's style is read at least 1.5 times as fast as by threatexchange's own parser


def bench_hashsharing(scale: Scale) -> Iterator[Figure]:
    """A page of 1,000 entries, made and read, beside the stock client's reading of it."""
    with tempfile.TemporaryDirectory(dir=scale.folder) as place, ExitStack() as stack:
        pair = make_pair(Path(place), stack)
        fill(pair, scale.size(100_000, 1_200))
        CLOCK.advance(2)
        client = _Client(pair)
        client.page()
        reading = {"threatexchange": client.stock_reads}
        for name, work, bars in (
            ("page", client.page, {}),
            ("read", client.we_read, {"threatexchange": Bar(TARGET, at_least=1.5)}),
        ):
            yield from compare(f"hashsharing.{name}", work, reading, unit="entries/s", rounds=scale.rounds, bars=bars)


class _Client:
    """A partner that fetches a window page by page."""

    def __init__(self, pair: Pair) -> None:
        self._exchange = pair.hub.exchange
        self._window, self._following = Window(0, CLOCK()), ""
        self._body = b""

    def page(self) -> Run:
        """The page after the last; from the first one again where there is none."""
        pages: list[WindowPage] = []

        def render(page: WindowPage) -> bytes:
            pages.append(page)
            self._body = render_page(Member(self._exchange.node.agency), page)
            return self._body

        asked = self._window, self._following
        run = _cpu(lambda: self._exchange.windows.page(FOLLOWER, "hashsharing", *asked, render), 1)
        following = pages[0].following
        self._window, self._following = following or (Window(0, self._window.until), "")
        return Run(run.seconds, len(pages[0].items))

    def we_read(self) -> Run:
        """The last page, into drafts."""
        return _cpu(lambda: parse_page(self._body, AdapterReport("ncmec")), PAGE_ITEMS)

    def stock_reads(self) -> Run:
        """The baseline: as its `_get` and `get_entries` do."""
        from threatexchange.exchanges.clients.ncmec import hash_api  # noqa: PLC0415  slow to import

        def read() -> None:
            parsed = ET.iterparse(BytesIO(self._body))
            for _, element in parsed:
                _, namespaced, name = element.tag.partition("}")
                if namespaced:
                    element.tag = name
            hash_api.GetEntriesResponse.from_xml(hash_api._XMLWrapper(parsed.root), 0)  # type: ignore[attr-defined]

        return _cpu(read, PAGE_ITEMS)


def _cpu(work: Callable[[], object], units: float) -> Run:
    began = time.process_time()
    work()
    return Run(max(time.process_time() - began, 1e-9), units)
