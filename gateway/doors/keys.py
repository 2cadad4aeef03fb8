"""The keys' door: what we say of our keys, and what partners say of theirs (contracts/key-statements-1.md).

It is open to every partner that has proved who it is, and carries nothing but public keys and signed statements. A
partner names what it holds when it asks, and so confirms it.
"""

from __future__ import annotations

import asyncio
import re

from aiohttp import web

from gateway.doors.entrance import Entrance
from gateway.doors.guards import accepts, read_body
from gateway.doors.wire import NUMBER, json_answer, number, parse_query
from gateway.exchange import Exchange
from gateway.interchange import KEYS_TYPE, MAX_KEYS_BYTES, RESTORE_KEYS_TYPE, KeyConfirmation, keys_type

_DIGEST = re.compile(r"[0-9a-f]{64}")
_MAX_NUMBER = 1_000_000


class KeysDoor:
    """The routes of the key exchange."""

    def __init__(self, exchange: Exchange, entrance: Entrance) -> None:
        self._exchange = exchange
        self._entrance = entrance

    def routes(self) -> list[web.RouteDef]:
        """What the application serves of this door."""
        behind = self._entrance.behind
        return [
            web.get("/v1/keys", behind(self.get_keys), allow_head=False),
            web.post("/v1/keys", accepts(MAX_KEYS_BYTES)(behind(self.post_keys))),
        ]

    async def get_keys(self, request: web.Request, partner: str) -> web.Response:
        """What the partner does not know of our keys, 204 when it knows everything."""
        query = parse_query(request, {"card": _DIGEST, "signing_number": NUMBER, "revocations": NUMBER})
        held = KeyConfirmation(
            query["card"], number(query, "signing_number", _MAX_NUMBER), number(query, "revocations", _MAX_NUMBER)
        )
        news = await asyncio.to_thread(self._exchange.keys_for, partner, held)
        return web.Response(status=204) if news is None else web.Response(body=news, content_type=keys_type(news))

    async def post_keys(self, request: web.Request, partner: str) -> web.Response:
        """Take what the partner says of its keys; the answer says what we hold of them now."""
        if request.content_type not in (KEYS_TYPE, RESTORE_KEYS_TYPE):
            raise web.HTTPUnsupportedMediaType
        held = await asyncio.to_thread(self._exchange.take_keys, partner, await read_body(request))
        return json_answer(held.to_json())
