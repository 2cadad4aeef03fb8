"""Pages of STIX objects for TAXII clients: `Collections.page` rendered as the door renders it; then over HTTP.

A page is CPU from the question to the body: who asks and what it may see, the place, 1,000 objects out of blocks, and
the log leaf with its checkpoint. The baseline is what no server can go below: 1,000 stored objects joined into the same
body. `again` is a page that another partner of the same view has had, `next` one that nobody has.

`http` is wall time of the whole way over loopback, with the secret checked and the leaf on disk, beside a bare aiohttp
server that joins stored objects for whoever asks. `medallion` is the reference server of TAXII with the same objects
in its memory backend, in a process and an environment of its own.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from measure import Bar, Figure, Run, Scale, compare
from worlds import CLOCK, FOLLOWER, Pair, fill, make_pair

from gateway.doors.taxii import STIX_TYPE, TAXII_TYPE, render_envelope
from gateway.exchange import Exchange
from gateway.exchange.collections import PAGE_OBJECTS, Body, ObjectPage, Query, collection_id

ROOT = Path(__file__).parents[2]
TARGET = 9  # a page of 1,000 objects: at least 0.7 of joining stored bytes, and flat in the collection's size
INDICATORS = "&match[type]=indicator"
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
        yield from _over_http(scale, Path(place), stack)


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


@dataclass(slots=True)
class _Http:
    """One client of a server, over one connection that stays."""

    url: str
    path: str
    user: str = ""
    password: str = ""
    more: str = ""

    def page(self, rounds: int, objects: int) -> Run:
        """The first page, as often as said; each answer is held against what must be in it."""
        link = HTTPConnection(urlsplit(self.url).netloc, timeout=600)
        token = b64encode(f"{self.user}:{self.password}".encode()).decode()
        headers = {"Accept": TAXII_TYPE, "Authorization": f"Basic {token}"}
        began = 0.0
        for number in range(rounds + 1):
            began = time.perf_counter() if number == 1 else began  # the first one of all makes what others share
            link.request("GET", f"{self.path}?limit={PAGE_OBJECTS}{self.more}", headers=headers)
            answer = link.getresponse()
            body = answer.read()
            assert answer.status == 200, answer.status
        seconds = time.perf_counter() - began
        link.close()
        assert len(json.loads(body)["objects"]) == objects
        return Run(seconds, rounds * objects)


def _over_http(scale: Scale, folder: Path, stack: ExitStack) -> Iterator[Figure]:
    """The same page over loopback: from us, from a bare server of stored bytes, and from medallion."""
    count, objects = scale.size(10_000, 1_200), PAGE_OBJECTS
    place = folder / "http"
    place.mkdir()
    us = _child(stack, sys.executable, "taxii_server.py", str(place), str(count))
    ours = _Http(us["url"], us["path"], us["user"], us["password"])
    joined = _Http(us["joined"], "/")
    pages = scale.size(100, 3)
    yield from compare(
        "taxii.http",
        lambda: ours.page(pages, objects),
        {"joined": lambda: joined.page(pages, objects)},
        unit="objects/s",
        rounds=scale.rounds,
        bars={"joined": Bar(TARGET, at_least=0.7)},
    )
    python = _medallion()
    if python is None:
        print("# taxii: medallion could not be installed, so it is not measured", file=sys.stderr)
        return
    # It compares every object with every other: a page of a thousand takes it seconds, of more it takes minutes. And it
    # fails on an extension definition, whose version is no time: so both serve indicators alone.
    ours = replace(ours, more=INDICATORS)
    few = scale.size(1_000, 60)
    data, password = folder / "medallion.json", "made up for this run"
    data.write_text(json.dumps(_seed(ours, few)))
    them = _child(stack, python, "medallion_server.py", str(data), password)
    theirs = _Http(f"http://127.0.0.1:{them['port']}", "/bench/collections/bench/objects/", "bench", password)
    yield from compare(
        "taxii.medallion",
        lambda: ours.page(scale.size(100, 3), objects),
        {"medallion": lambda: theirs.page(1, few)},
        unit="objects/s",
        rounds=scale.size(3, 2),
        bars={"medallion": Bar(TARGET, at_least=1_000)},
    )


def _seed(ours: _Http, count: int) -> dict[str, object]:
    """What medallion's memory holds: the objects that we serve, one collection of them."""
    link = HTTPConnection(urlsplit(ours.url).netloc, timeout=60)
    token = b64encode(f"{ours.user}:{ours.password}".encode()).decode()
    headers = {"Accept": TAXII_TYPE, "Authorization": f"Basic {token}"}
    answers = {}
    for name in ("objects", "manifest"):
        link.request(
            "GET", ours.path.replace("/objects/", f"/{name}/") + f"?limit={count}{INDICATORS}", headers=headers
        )
        answers[name] = json.loads(link.getresponse().read())["objects"]
    link.close()
    collection: dict[str, object] = {"id": "bench", "title": "bench", "can_read": True, "can_write": False}
    collection |= {"media_types": [STIX_TYPE], **answers}
    root = {"information": {"title": "bench", "versions": [TAXII_TYPE]}, "status": [], "collections": [collection]}
    return {"/discovery": {"title": "bench", "api_roots": []}, "bench": root}


def _child(stack: ExitStack, python: str, script: str, *arguments: str) -> dict[str, Any]:
    """A server in a process of its own, once it says where it is; it ends with `stack`."""
    command = [python, str(Path(__file__).parent / script), *arguments]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    stack.enter_context(child)
    assert child.stdin is not None
    assert child.stdout is not None
    stack.callback(child.stdin.close)
    told: dict[str, Any] = json.loads(child.stdout.readline())
    return told


def _medallion() -> str | None:
    """The Python of medallion's own environment, made from its lock; None where its packages cannot be had."""
    folder, lock = ROOT / ".venv-medallion", ROOT / "requirements-medallion.lock"
    stamp, python = folder / ".stamp", folder / "bin" / "python"
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return str(python)
    subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", str(folder)], check=True)
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "-qq", "--disable-pip-version-check"]
    done = subprocess.run(
        [*pip, "--no-input", "--no-deps", "--require-hashes", "-r", str(lock)], check=False, stdout=sys.stderr
    )
    if done.returncode:
        return None
    stamp.write_text(digest)
    return str(python)


def _reader(folder: Path, stack: ExitStack, name: str) -> _Reader:
    place = folder / name
    place.mkdir()
    return _Reader(make_pair(place, stack))


def _cpu(work: Callable[[], object], units: float) -> Run:
    began = time.process_time()
    work()
    return Run(max(time.process_time() - began, 1e-9), units)
