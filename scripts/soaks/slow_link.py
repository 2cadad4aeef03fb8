"""A link as a mobile network gives it: 1 Mbit/s, 300 ms there and back, one or two packets in a hundred lost, and it
breaks now and then. A large set is pulled over it and another one pushed, by the real client to the real server.
"""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path

from factory import FakeClock, befriend, link_to, loopback, make_node, make_set, serving, sha256
from gateway.exchange import Exchange
from gateway.model import EntryDraft
from gateway.sync import PartnerSync
from partner_simulator import held_entries
from shaper import Line, Shaper

MEGABIT = 125_000  # bytes a second
ONE_WAY_SECONDS = 0.15
PULLED, PUSHED = 50_000, 20_000  # entries: some 5 MB and 2 MB
MOST_AGAIN = 1.3  # bytes carried for each byte that was needed


def slow_link(folder: Path, seed: int) -> str:
    """Pull and push over such a link; what it took, in one line."""
    source = random.Random(seed)
    line = Line(MEGABIT, ONE_WAY_SECONDS, source.uniform(0.01, 0.02), source.randrange(1_500_000, 4_000_000))
    return asyncio.run(_run(folder, line, seed))


async def _run(folder: Path, line: Line, seed: int) -> str:
    clock = FakeClock()
    seen = loopback()
    xa = make_node(folder, "XA-NCVI", clock=clock, **{**loopback(), "public_url": seen["public_url"]})
    xb = make_node(folder, "XB-NCVI", clock=clock, **loopback())
    befriend(xa, xb)
    hub, follower = Exchange(xa), Exchange(xb)
    pulled = make_set(hub, "found", _drafts("found", PULLED))
    pushed = make_set(follower, "listed", _drafts("listed", PUSHED))
    began = time.monotonic()
    try:
        async with (
            serving(hub) as server,
            Shaper(server.port, line, at=int(str(seen["listen_port"])), seed=seed) as shaper,
            link_to(xa, xb) as link,
        ):
            [report] = await PartnerSync(follower, link, "XA-NCVI").pull()
            down = shaper.down.carried
            sent = await PartnerSync(follower, link, "XA-NCVI").push(pushed)
            up, cuts = shaper.up.carried, shaper.cuts
    finally:
        for node in (xa, xb):
            node.store.close()
    assert (report.equality, len(held_entries(follower, pulled))) == ("equal", PULLED)
    assert (sent.changes, len(held_entries(hub, pushed))) == (PUSHED, PUSHED)
    assert len(sent.receipts) == sent.pages
    assert down < MOST_AGAIN * report.received_bytes, "too much was sent again"
    # A page that broke off goes again whole: at most one for each time that the link broke.
    assert up < sent.sent_bytes + (1 + cuts) * sent.sent_bytes / max(1, sent.pages - 1), "too much went again"
    seconds = time.monotonic() - began
    moved = (report.received_bytes + sent.sent_bytes) / 1e6
    return f"{moved:.1f} MB in {seconds:.0f} s, broken {cuts} times, {(down + up) / 1e6:.1f} MB carried"


def _drafts(name: str, count: int) -> list[EntryDraft]:
    made = (sha256(f"{name} {number}") for number in range(count))
    return [EntryDraft({"sha256": one, "sha512": one + sha256(one.hex())}) for one in made]
