"""A gateway that serves one collection to one stock client, and a bare aiohttp server of stored bytes. Runs as a child.

usage: taxii_server.py FOLDER COUNT     prints what a client needs, as JSON; serves until its standard input ends
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import ExitStack
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "tests"))
sys.path.append(str(Path(__file__).parents[2]))

from aiohttp import web
from worlds import CLOCK, FOLLOWER, Pair, fill, make_pair

from factory import loopback, serving
from gateway.callers import Callers, Scope
from gateway.doors.taxii import ROOT, TAXII_TYPE, render_envelope
from gateway.exchange.collections import Body, ObjectPage, Query, collection_id


def main() -> None:
    """Fill, and serve."""
    folder, count = Path(sys.argv[1]), int(sys.argv[2])
    with ExitStack() as stack:
        pair = make_pair(folder, stack, **loopback())
        fill(pair, count)
        CLOCK.advance(2)
        asyncio.run(_serve(pair))


async def _serve(pair: Pair) -> None:
    exchange = pair.hub.exchange
    with exchange.node.store.transaction() as tx:
        tx.secrets.open(FOLLOWER, str(Scope.TAXII), CLOCK(), "a proposal")
    secret = Callers(exchange.node).issue_secret(FOLLOWER, Scope.TAXII, 30, "bench")[1]
    stored = await asyncio.to_thread(_stored, pair)
    runner = web.AppRunner(_joining(stored))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with serving(exchange):  # without the bound on requests from one address, which is below what we measure
        told = {
            "url": exchange.node.settings.public_url,
            "path": f"{ROOT}/collections/{collection_id(pair.set_name)}/objects/",
            "user": FOLLOWER,
            "password": secret,
            "joined": f"http://127.0.0.1:{runner.addresses[0][1]}",
        }
        print(json.dumps(told), flush=True)
        await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


def _stored(pair: Pair) -> list[bytes]:
    """The objects of the first page, one by one, as a server would have stored them."""
    pages: list[ObjectPage] = []

    def render(page: ObjectPage) -> Body:
        pages.append(page)
        return render_envelope(page)

    pair.hub.exchange.collections.page(FOLLOWER, collection_id(pair.set_name), Query(), render)
    objects = json.loads(b"[%s]" % pages[0].stretch.raw)
    return [json.dumps(one, ensure_ascii=False, separators=(",", ":")).encode() for one in objects]


def _joining(stored: list[bytes]) -> web.Application:
    """The baseline: whoever asks gets the stored objects, joined. It asks nobody who he is, and remembers nothing."""

    async def page(_request: web.Request) -> web.Response:
        body = b'{"more":true,"next":"x","objects":[%s]}' % b",".join(stored)
        return web.Response(body=body, headers={"Content-Type": TAXII_TYPE})

    app = web.Application()
    app.router.add_get("/", page)
    return app


if __name__ == "__main__":
    main()
