"""Look-ups at a partner: 4,096 digests from question to answer over a loopback socket, and whether time tells of a hit.

`lookup.partner` is all of it: the asker's policy, the question filled up and sealed, HTTP, look and judge, one commit,
the sealed answer on its beat, opened and read. `lookup.partner.answer` is the partner's share without HTTP and beat.

`lookup.partner.timing` is Welch's t between questions of one digest that is listed and of one that is not, in turn
(Reparaz, Balasch, Verbauwhede: "Dude, is my code constant time?", 2017: from 4.5 on there is a difference). Without the
beat it shows what the same work leaves; with it, what a partner can see.
"""

from __future__ import annotations

import asyncio
import hashlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from measure import Bar, Figure, Run, Scale, compare
from worlds import CLOCK, FOLLOWER, HUB, batches, digests

from factory import befriend, link_to, loopback, make_node, make_set, serving
from gateway.crypto.keys import SYSTEM_RANDOM
from gateway.exchange import Exchange
from gateway.exchange.asking import Asked
from gateway.lookups import MAX_SLOTS
from gateway.model import Purpose

TARGET = 43  # the row of SECURITY.md
T_BOUND = 4.5


def bench_partner_lookup(scale: Scale) -> Iterator[Figure]:
    """Half of 4,096 digests listed among a million, at a partner over loopback; Welch's t of present and absent."""
    listed, asked = scale.size(1_000_000, 4_000), scale.size(MAX_SLOTS, 256)
    with tempfile.TemporaryDirectory(dir=scale.folder) as place, ExitStack() as stack:
        budget = loopback(look_ups_per_minute=6_000, look_up_digests_per_day=1_000_000_000)
        nodes = [make_node(Path(place), name, clock=CLOCK, random=SYSTEM_RANDOM, **budget) for name in (HUB, FOLLOWER)]
        for node in nodes:
            stack.callback(node.store.close)
        befriend(*nodes)
        hub, here = map(Exchange, nodes)
        name = make_set(hub, "identified")
        hub.ledger.import_entries(name, batches(listed), actor="bench", form="bench")
        half = asked // 2
        texts = [digests(n)[:32].hex() for n in range(0, 2 * half, 2)]
        texts += [hashlib.sha256(b"nobody's %d" % n).hexdigest() for n in range(asked - half)]

        def question(wanted: list[str]) -> tuple[Asked, bytes]:
            [made] = here.asking.plan(HUB, wanted, Purpose.VICTIM_IDENTIFICATION, None).questions
            return made, here.look_up_question(HUB, made)

        def read(made: Asked, sealed: bytes, wanted: int) -> None:
            found = sum(1 for _ in made.answers(here.look_up_answer(HUB, made, sealed)))
            assert found == wanted

        def answer() -> Run:
            made, raw = question(texts)
            began = time.perf_counter()
            sealed, _ = hub.look_up_for(FOLLOWER, raw)
            run = Run(time.perf_counter() - began, asked)
            read(made, sealed, half)
            return run

        def exactly_here() -> Run:
            began = time.perf_counter()
            assert len(hub.lookup.find(texts, actor=HUB, remarked=False)) == half
            return Run(time.perf_counter() - began, asked)

        own = {"look-up here": exactly_here}
        yield from compare("lookup.partner.answer", answer, own, unit="digests/s", rounds=scale.rounds)
        whole, pairs = asyncio.run(_over_loopback(hub, here, question, read, scale, texts, half))
        yield Figure("lookup.partner", asked / statistics.median(whole), "digests/s")
        yield Figure("lookup.partner.time", statistics.median(whole), "s")
        bare = _in_turn(hub, question, scale.size(200, 4))
        yield Figure("lookup.partner.timing", welch(*pairs), "t", bar=Bar(TARGET, at_most=T_BOUND))
        yield Figure("lookup.partner.timing-bare", welch(*bare), "t")
        yield Figure("lookup.partner.work", 1000 * statistics.median([*bare[0], *bare[1]]), "ms")


Make = Callable[[list[str]], tuple[Asked, bytes]]
Read = Callable[[Asked, bytes, int], None]


async def _over_loopback(  # noqa: PLR0917  who asks whom what
    hub: Exchange, here: Exchange, question: Make, read: Read, scale: Scale, texts: list[str], half: int
) -> tuple[list[float], tuple[list[float], list[float]]]:
    """Seconds of whole look-ups; and of single digests, (listed, absent), as a partner sees them."""
    whole: list[float] = []
    pairs: tuple[list[float], list[float]] = ([], [])
    async with serving(hub), link_to(hub.node, here.node) as link:
        for _ in range(scale.rounds):
            began = time.perf_counter()
            made, raw = await asyncio.to_thread(question, texts)
            sealed = await link.look_up(raw)
            await asyncio.to_thread(read, made, sealed, half)
            whole.append(time.perf_counter() - began)
        for number in range(2 * scale.size(60, 2)):
            made, raw = question([texts[number % half] if number % 2 else texts[-1 - number % half]])
            began = time.perf_counter()
            sealed = await link.look_up(raw)
            pairs[1 - number % 2].append(time.perf_counter() - began)
            read(made, sealed, number % 2)
    return whole, pairs


def _in_turn(hub: Exchange, question: Make, rounds: int) -> tuple[list[float], list[float]]:
    """Seconds of the partner's own work for one digest: (listed, absent)."""
    found: tuple[list[float], list[float]] = ([], [])
    for number in range(2 * rounds):
        text = digests(2 * number) if number % 2 else hashlib.sha256(b"absent %d" % number).digest()
        _, raw = question([text[:32].hex()])
        began = time.perf_counter()
        hub.look_up_for(FOLLOWER, raw)
        found[1 - number % 2].append(time.perf_counter() - began)
    return found


def welch(one: list[float], other: list[float]) -> float:
    """The absolute value of Welch's t; the slowest twentieth of both is left out, which is the machine's."""
    cut = sorted([*one, *other])[-max(1, (len(one) + len(other)) // 20)]
    a, b = ([value for value in values if value < cut] or values for values in (one, other))
    if min(len(a), len(b)) < 2:
        return 0.0
    spread = statistics.variance(a) / len(a) + statistics.variance(b) / len(b)
    return abs(statistics.fmean(a) - statistics.fmean(b)) / spread**0.5 if spread else 0.0
