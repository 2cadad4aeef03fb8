"""A gateway that serves one set to one client of NCMEC's hash-sharing API. Runs as a child.

usage: hashsharing_server.py FOLDER COUNT     prints what a client needs, as JSON; serves until its standard input ends
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import ExitStack
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "tests"))
sys.path.append(str(Path(__file__).parents[2]))

from worlds import CLOCK, FOLLOWER, Pair, fill, make_pair

from factory import loopback, serving
from gateway.callers import Callers, Scope
from gateway.doors.hashsharing import BASE


def main() -> None:
    """Fill, and serve."""
    folder, count = Path(sys.argv[1]), int(sys.argv[2])
    with ExitStack() as stack:
        # As many requests as the client makes in a run of this program.
        pair = make_pair(folder, stack, **loopback(requests_per_minute=60_000))
        fill(pair, count)
        CLOCK.advance(2)
        asyncio.run(_serve(pair))


async def _serve(pair: Pair) -> None:
    exchange = pair.hub.exchange
    with exchange.node.store.transaction() as tx:
        tx.secrets.open(FOLLOWER, str(Scope.HASHSHARING), CLOCK(), "a proposal")
    secret = Callers(exchange.node).issue_secret(FOLLOWER, Scope.HASHSHARING, 30, "bench")[1]
    async with serving(exchange):
        url = exchange.node.settings.public_url + BASE
        told = {"url": url, "user": FOLLOWER, "password": secret, "until": CLOCK()}
        print(json.dumps(told), flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    main()
