"""Transfers over links that are slow and break: they end, nothing comes twice, little is sent again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web

from factory import (
    FakeClock,
    befriend,
    drafts,
    events,
    link_to,
    loopback,
    make_node,
    make_set,
    serving,
    set_state,
    sha256,
)
from gateway import client
from gateway.audit import EventKind
from gateway.client import ENVELOPE_TYPE, LinkLimits, PartnerLink
from gateway.errors import PartnerError, VerificationError
from gateway.exchange import Exchange
from gateway.exchange.bodies import KEPT_SECONDS
from gateway.interchange import START
from gateway.model import EntryDraft, Restriction
from gateway.sync import Pace, PartnerSync
from partner_simulator import held_entries
from shaper import Line, Shaper
from test_client import stranger
from test_native import Answer, Caller

ENTRIES = 12_000
QUICK = LinkLimits(pause_seconds=0.01)
# As 1 Mbit/s and 300 ms there and back, sixteen times as fast.
SLOW = Line(bytes_per_second=2_000_000, delay_seconds=0.01, loss=0.01)


def large_drafts(count: int) -> list[EntryDraft]:
    """Entries of some 130 octets each: more than the smallest that make a page of megabytes."""
    made = (sha256(f"made-up {number}") for number in range(count))
    return [EntryDraft({"sha256": one, "sha512": one + sha256(one.hex())}) for one in made]


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[tuple[Exchange, Exchange, int]]:
    """XA, whose card names the link's port, and XB; the port at which XA really listens."""
    clock = FakeClock()
    at, seen = loopback(), loopback()
    settings = {**at, "public_url": seen["public_url"]}
    xa = make_node(tmp_path, "XA-NCVI", clock=clock, **settings)
    xb = make_node(tmp_path, "XB-NCVI", clock=clock, **loopback())
    befriend(xa, xb)
    yield Exchange(xa), Exchange(xb), int(str(seen["listen_port"]))
    for node in (xa, xb):
        node.store.close()


@asynccontextmanager
async def linked(
    nodes: tuple[Exchange, Exchange, int], line: Line, limits: LinkLimits = QUICK
) -> AsyncIterator[tuple[PartnerLink, Shaper]]:
    xa, xb, port = nodes
    async with (
        serving(xa) as server,
        Shaper(server.port, line, at=port) as shaper,
        link_to(xa.node, xb.node, limits=limits) as link,
    ):
        yield link, shaper


async def test_a_pull_over_a_link_that_breaks_again_and_again_ends_and_little_comes_twice(
    nodes: tuple[Exchange, Exchange, int],
) -> None:
    xa, xb, _ = nodes
    name = make_set(xa, "found", large_drafts(ENTRIES))
    # No time limit of a whole answer holds for a page: it takes longer than this.
    quick = LinkLimits(pause_seconds=0.01, total_seconds=0.4)
    async with linked(nodes, replace(SLOW, cut_after=250_000), quick) as (link, shaper):
        [report] = await PartnerSync(xb, link, "XA-NCVI").pull()
    assert (report.pages, report.changes, report.equality) == (1, ENTRIES, "equal")
    assert len(held_entries(xb, name)) == ENTRIES
    assert shaper.cuts >= 4
    assert report.received_bytes > 1_000_000
    assert shaper.down.carried < 1.3 * report.received_bytes
    assert len(events(xa.node, EventKind.PAGE_SERVED)) == 1


async def test_a_push_over_a_link_that_breaks_again_and_again_ends_and_little_goes_twice(
    nodes: tuple[Exchange, Exchange, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (
        "FIRST_CHANGES",
        "MAX_CHANGES",
    ):  # pages as small to this link as those of twenty seconds to a real one
        monkeypatch.setattr(f"gateway.sync.{name}", 2_500)
    xa, xb, _ = nodes
    name = make_set(xb, "listed", large_drafts(2 * ENTRIES))
    async with linked(nodes, replace(SLOW, cut_after=1_000_000)) as (link, shaper):
        report = await PartnerSync(xb, link, "XA-NCVI").push(name)
    assert (report.changes, len(report.receipts)) == (2 * ENTRIES, report.pages)
    assert len(held_entries(xa, name)) == 2 * ENTRIES
    assert shaper.cuts >= 2
    assert shaper.up.carried < 1.3 * report.sent_bytes
    assert len(events(xa.node, EventKind.PUSH_RECEIVED)) == report.pages


async def test_pages_that_do_not_get_through_become_smaller(nodes: tuple[Exchange, Exchange, int]) -> None:
    xa, xb, _ = nodes
    name = make_set(xb, "listed", large_drafts(6_000))
    async with linked(nodes, replace(SLOW, cut_after=250_000)) as (link, shaper):  # the first page has 400,000
        report = await PartnerSync(xb, link, "XA-NCVI").push(name)
    assert report.changes == 6_000
    assert report.pages >= 6
    assert len(held_entries(xa, name)) == 6_000
    assert len(events(xa.node, EventKind.PUSH_RECEIVED)) == report.pages
    assert xb.waiting_pages("XA-NCVI") == []
    assert shaper.cuts >= 3


def test_the_pace_follows_the_link() -> None:
    pace = Pace()
    pace.went(4_096, 3.3)  # 1 Mbit/s
    assert pace.room == 4 * 4_096
    pace.went(16_384, 13.2)
    assert 20_000 < pace.room < 26_000  # 20 s
    pace.went(pace.room, 0.1)
    pace.went(pace.room, 0.1)
    assert pace.room == 65_536
    pace.went(65_536, 13_000)
    assert 64 <= pace.room <= 101
    assert [pace.shrink() for _ in range(5)] == [True] * 4 + [False]
    pace.went(pace.room, 0.01)
    assert pace.room == 64  # what did not get through is not tried again


# The rest of a page


@dataclass
class Asking:
    """XB, asking XA for pages with its own hands."""

    xa: Exchange
    xb: Exchange
    name: str
    caller: Caller

    async def page(self, **headers: str) -> Answer:
        return await self.caller.ask("GET", f"/v1/sets/{self.name}/changes?epoch=0&view=&seq=0", headers=headers)

    async def rest(self, first: int, tag: str) -> Answer:
        return await self.page(**{"Range": f"bytes={first}-", "If-Range": tag})


@pytest_asyncio.fixture
async def asking(nodes: tuple[Exchange, Exchange, int]) -> AsyncIterator[Asking]:
    xa, xb, port = nodes
    name = make_set(xa, "found", drafts(300))
    xa.head_for("XB-NCVI", name)
    async with (
        serving(xa) as server,
        Shaper(server.port, Line(), at=port),
        aiohttp.ClientSession(auto_decompress=False) as session,
    ):
        yield Asking(xa, xb, name, Caller(xb.node, xa.node, session))


async def test_the_rest_of_a_page_is_the_rest_of_the_very_same_octets(asking: Asking) -> None:
    whole = await asking.page()
    assert (whole.status, whole.headers["Accept-Ranges"]) == (200, "bytes")
    assert int(whole.headers["Content-Length"]) == len(whole.body)
    size, tag = len(whole.body), whole.headers["ETag"]
    for first in (1, 100, 3_000, size - 1):  # within the header of its own, and within what its class shares
        rest = await asking.rest(first, tag)
        assert (rest.status, rest.body) == (206, whole.body[first:])
        assert rest.headers["Content-Range"] == f"bytes {first}-{size - 1}/{size}"
        assert rest.headers["ETag"] == tag
    assert len(events(asking.xa.node, EventKind.PAGE_SERVED)) == 1
    asking.xb.take_head("XA-NCVI", asking.xa.head_for("XB-NCVI", asking.name).body)
    assert asking.xb.take_page("XA-NCVI", whole.body[:100] + (await asking.rest(100, tag)).body).changes == 300


async def test_what_is_no_rest_of_ones_own_is_a_whole_page(asking: Asking) -> None:
    whole = await asking.page()
    size, tag = len(whole.body), whole.headers["ETag"]
    for headers in (
        {"Range": "bytes=100-"},
        {"Range": "bytes=100-200", "If-Range": tag},
        {"Range": "bytes=-100", "If-Range": tag},
        {"Range": f"bytes={size}-", "If-Range": tag},
        {"Range": "bytes=100-", "If-Range": f"W/{tag}"},
        {"Range": "bytes=100-", "If-Range": f'"{"0" * 64}"'},
    ):
        other = await asking.page(**headers)
        assert other.status == 200, headers
        assert other.headers["ETag"] != tag


async def test_nobody_gets_the_rest_of_what_it_may_no_longer_have(
    asking: Asking, nodes: tuple[Exchange, Exchange, int]
) -> None:
    xa, _, _ = nodes
    tag = (await asking.page()).headers["ETag"]
    # 1. An entry that may be in it was replaced: it never leaves in its old version.
    embargo = (Restriction.EMBARGO,)
    xa.ledger.import_entries(asking.name, drafts(1, first=700), actor="tester", form="test")
    assert (await asking.rest(100, tag)).status == 206  # what is new is in no page of before
    xa.ledger.import_entries(asking.name, drafts(1, restrictions=embargo), actor="tester", form="test")
    assert (await asking.rest(100, tag)).status == 200
    # 2. What the partner sees has changed.
    tag = (await asking.page()).headers["ETag"]
    texts, name = dict(xa.node.policies.texts), "XA/agreement-xb.cedar"
    xa.node.policies.texts = {**texts, name: texts[name].replace('Handling::"H0", ', "")}
    xa.node.policies._loaded = None
    assert (await asking.rest(100, tag)).status == 200
    # 3. The partner is shut out.
    tag = (await asking.page()).headers["ETag"]
    set_state(xa.node, "XB-NCVI", "suspended")
    assert (await asking.rest(100, tag)).status == 401
    set_state(xa.node, "XB-NCVI", "active")
    # 4. It was long ago.
    tag = (await asking.page()).headers["ETag"]
    assert (await asking.rest(100, tag)).status == 206
    assert isinstance(xa.node.clock, FakeClock)
    xa.node.clock.advance(KEPT_SECONDS + 1)
    asking.caller.token, asking.caller.nonce = "", None
    assert (await asking.rest(100, tag)).status == 200


async def test_parts_of_two_pages_do_not_open(asking: Asking) -> None:
    first, second = (await asking.page()).body, (await asking.page()).body
    assert len(first) == len(second)
    asking.xb.take_head("XA-NCVI", asking.xa.head_for("XB-NCVI", asking.name).body)
    for at in (1_000, 5_000, len(first) - 100):
        with pytest.raises(VerificationError):
            asking.xb.take_page("XA-NCVI", first[:at] + second[at:])
    assert asking.xb.take_page("XA-NCVI", first).changes == 300


# Hubs that answer badly


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Exchange, Exchange]]:
    """XA, in whose place a stranger will answer, and XB."""
    clock = FakeClock()
    made = [make_node(tmp_path, agency, clock=clock, **loopback()) for agency in ("XA-NCVI", "XB-NCVI")]
    befriend(*made)
    yield Exchange(made[0]), Exchange(made[1])
    for node in made:
        node.store.close()


@dataclass
class Hub:
    """A hub of whose page each answer brings some octets before the connection breaks."""

    pieces: list[int]  # how many octets each answer brings; after the last one all
    body: bytes = bytes(range(256)) * 400
    tags: tuple[str, ...] = ("1" * 64,)
    said: str = ""  # of what range the second answer speaks, if not of the one asked for
    blind: bool = False  # to which page the rest is asked for
    asked: list[str] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        wanted = request.headers.get("Range", "")
        self.asked.append(wanted)
        tag = self.tags[min(len(self.asked), len(self.tags)) - 1]
        first = int(wanted[6:-1]) if wanted and (self.blind or request.headers["If-Range"] == f'"{tag}"') else 0
        size = len(self.body)
        headers = {"Content-Type": ENVELOPE_TYPE, "ETag": f'"{tag}"', "Content-Length": str(size - first)}
        if first:
            headers["Content-Range"] = self.said or f"bytes {first}-{size - 1}/{size}"
        response = web.StreamResponse(status=206 if first else 200, headers=headers)
        await response.prepare(request)
        count = self.pieces[len(self.asked) - 1] if len(self.asked) <= len(self.pieces) else size
        await response.write(self.body[first : first + count])
        if first + count < size:
            await asyncio.sleep(0.02)
            assert request.transport is not None
            request.transport.abort()
        return response


async def test_a_page_goes_on_where_it_broke_off_as_long_as_more_of_it_comes(
    pair: tuple[Exchange, Exchange],
) -> None:
    xa, xb = pair
    hub = Hub([9_000] * 7)
    async with stranger(xb.node, xa.node, hub.answer, limits=QUICK) as link:
        assert await link.changes("XA-NCVI/found", START) == hub.body
    assert hub.asked == ["", *(f"bytes={9_000 * n}-" for n in range(1, 8))]
    assert link.moved_bytes >= len(hub.body)


@pytest.mark.parametrize("pieces", [[9_000, *([100] * 20)], [0] * 20, [9_000, 8_000, 7_000, 6_000, 5_000, 0]])
async def test_a_hub_that_lets_us_have_no_more_of_a_page_is_left_alone(
    pair: tuple[Exchange, Exchange], pieces: list[int]
) -> None:
    xa, xb = pair
    other = tuple(f"{n:064x}" for n in range(30)) if pieces[-1] == 0 and pieces[0] else ("1" * 64,)
    hub = Hub(pieces, tags=other)  # each answer is of another page, so none goes on
    async with stranger(xb.node, xa.node, hub.answer, limits=QUICK) as link:
        with pytest.raises(PartnerError, match="broke off"):
            await link.changes("XA-NCVI/found", START)
    assert len(hub.asked) <= 1 + client.MAX_IDLE_TRIES


@pytest.mark.parametrize(
    "said", ["bytes 8000-102399/102400", "bytes 9000-102398/102400", "bytes 9000-102399/*", "9000"]
)
async def test_another_part_than_was_asked_for_is_refused(pair: tuple[Exchange, Exchange], said: str) -> None:
    xa, xb = pair
    async with stranger(xb.node, xa.node, Hub([9_000], said=said).answer, limits=QUICK) as link:
        with pytest.raises(PartnerError, match="part of"):
            await link.changes("XA-NCVI/found", START)


async def test_the_rest_of_another_page_is_refused(pair: tuple[Exchange, Exchange]) -> None:
    xa, xb = pair
    hub = Hub([9_000], tags=("1" * 64, "2" * 64), blind=True)
    async with stranger(xb.node, xa.node, hub.answer, limits=QUICK) as link:
        with pytest.raises(PartnerError, match="part of something else"):
            await link.changes("XA-NCVI/found", START)


async def test_a_page_that_trickles_is_given_up(pair: tuple[Exchange, Exchange]) -> None:
    xa, xb = pair

    async def trickle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": ENVELOPE_TYPE, "Content-Length": "100000"})
        await response.prepare(request)
        for _ in range(200):
            await response.write(b"x")
            await asyncio.sleep(0.02)
        return response

    limits = LinkLimits(read_seconds=0.2, least_bytes_per_second=1000)
    async with stranger(xb.node, xa.node, trickle, limits=limits) as link:
        with pytest.raises(PartnerError, match="too slowly"):
            await link.changes("XA-NCVI/found", START)


async def test_a_request_whose_connection_breaks_off_is_repeated_a_few_times(
    pair: tuple[Exchange, Exchange],
) -> None:
    xa, xb = pair
    asked: list[str] = []

    async def break_off(request: web.Request) -> web.StreamResponse:
        asked.append(request.headers["DPoP"])
        if len(asked) < 3:
            assert request.transport is not None
            request.transport.abort()
        return web.json_response({"receipt": "made up"})

    async with stranger(xb.node, xa.node, break_off, limits=QUICK) as link:
        assert (await link.post_envelope(b"an envelope"))[0] == "application/json"
    assert len(set(asked)) == client.MAX_TRIES  # each signed anew
