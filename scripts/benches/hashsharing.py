"""Windows of entries for clients of NCMEC's hash-sharing API, both ways, and the stock client beside it.

`page` is 1,000 entries out of blocks, decided, written as XML and on record; `read` is the same page read into drafts.
The baseline of both is what PyPI's `threatexchange` needs to read that page: a server that keeps up with it is never
what a client waits for.

`fetch` is all that at once: the stock client, unmodified, fetches a whole set over HTTP from a gateway in a process of
its own, page after page, each with the secret checked and its leaf on disk. Wall time, beside what the client needs to
read the same answers from memory: no server could let it be quicker.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

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
    yield from _fetches(scale)


def _fetches(scale: Scale) -> Iterator[Figure]:
    """The whole way, as often as there are rounds."""
    count = scale.size(100_000, 1_200)
    with tempfile.TemporaryDirectory(dir=scale.folder) as place, _child(Path(place), count) as told:
        stock = _Stock(told, count)
        bare = {"parsing alone": stock.reads}
        yield from compare("hashsharing.fetch", stock.fetches, bare, unit="entries/s", rounds=scale.rounds)


@contextmanager
def _child(folder: Path, count: int) -> Iterator[dict[str, Any]]:
    """A server in a process of its own, and what it told."""
    command = [sys.executable, str(Path(__file__).with_name("hashsharing_server.py")), str(folder), str(count)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            yield json.loads(child.stdout.readline())
        finally:
            child.stdin.close()
            child.wait(60)


class _Stock:
    """The stock client, and the answers that it had last."""

    def __init__(self, told: Mapping[str, Any], count: int) -> None:
        from threatexchange.exchanges.clients.ncmec import hash_api  # noqa: PLC0415  slow to import

        class Listening(hash_api.NCMECHashAPI):  # type: ignore[misc]  # a package without types
            """The same, with a copy of each answer."""

            def _get_session(self) -> Any:
                session = super()._get_session()
                session.hooks["response"].append(lambda answer, **_options: bodies.append(answer.content))
                return session

        bodies: list[bytes] = []
        self._bodies, self._count, self._until = bodies, count, told["until"]
        self._api = Listening(told["user"], told["password"], SimpleNamespace(value=told["url"]))

    def fetches(self) -> Run:
        """Everything, by its own paging."""
        self._bodies.clear()
        began = time.perf_counter()
        pages = self._api.get_entries_iter(start_timestamp=0, end_timestamp=self._until)
        entries = sum(len(page.updates) for page in pages)
        seconds = time.perf_counter() - began
        assert entries == self._count, entries
        return Run(seconds, entries)

    def reads(self) -> Run:
        """The same answers, from memory."""
        began = time.perf_counter()
        for body in self._bodies:
            _stock_read(body)
        return Run(time.perf_counter() - began, self._count)


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
        """The baseline."""
        return _cpu(lambda: _stock_read(self._body), PAGE_ITEMS)


def _stock_read(body: bytes) -> None:
    """An answer, as its `_get` and `get_entries` read it."""
    from threatexchange.exchanges.clients.ncmec import hash_api  # noqa: PLC0415  slow to import

    parsed = ET.iterparse(BytesIO(body))
    for _, element in parsed:
        _, namespaced, name = element.tag.partition("}")
        if namespaced:
            element.tag = name
    hash_api.GetEntriesResponse.from_xml(hash_api._XMLWrapper(parsed.root), 0)  # type: ignore[attr-defined]


def _cpu(work: Callable[[], object], units: float) -> Run:
    began = time.process_time()
    work()
    return Run(max(time.process_time() - began, 1e-9), units)
