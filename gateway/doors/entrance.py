"""Lets callers in: which partner makes a request, and whether it asks more often than was agreed.

Doors wrap their handlers with `Entrance.behind`; a handler then gets the request and the partner's agency code, and
never sees a request of anybody else. The two bounds are the partner's, whatever the number of addresses it calls from.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from aiohttp import web

from gateway.callers import Callers
from gateway.doors.guards import Handler, RateLimiter
from gateway.doors.loglines import fields
from gateway.errors import UnauthenticatedError

LOG = logging.getLogger("gateway.http")

MAX_REQUESTS_AT_ONCE = 4  # of one partner; a page costs up to 64 MiB of memory while it is served or taken
BURST_SECONDS = 10  # after a pause a partner may spend as much as in these seconds at once, a sync does

PartnerHandler: TypeAlias = Callable[[web.Request, str], Awaitable[web.StreamResponse]]


class Entrance:
    """Authenticates callers and bounds what each may ask.

    Args:
        requests_per_minute: of one partner, in the long run.
    """

    def __init__(self, callers: Callers, requests_per_minute: int) -> None:
        self.callers = callers
        self._limiter = RateLimiter(
            per_second=requests_per_minute / 60,
            burst=max(1, requests_per_minute * BURST_SECONDS // 60),
            at_once=MAX_REQUESTS_AT_ONCE,
        )

    def behind(self, handler: PartnerHandler) -> Handler:
        """The handler for authenticated partners only. The body is not read before the caller is known."""

        async def authenticated(request: web.Request) -> web.StreamResponse:
            partner = await self._partner(request)
            with self._limiter.admit(partner):
                return await handler(request, partner)

        return authenticated

    def url_of(self, request: web.Request) -> str:
        """The request's URL as its caller sees it: our public address and the path, for no header is believed."""
        return self.callers.issuer + request.rel_url.raw_path

    async def _partner(self, request: web.Request) -> str:
        headers = request.headers
        try:
            return await asyncio.to_thread(
                self.callers.authenticate,
                headers.get("Authorization"),
                headers.get("DPoP"),
                method=request.method,
                url=self.url_of(request),
            )
        except UnauthenticatedError as error:
            # The caller is told nothing; its operator may ring ours up. One line a request, like every other.
            LOG.info("caller refused", extra=fields(reason=str(error.__cause__), peer=request.remote))
            raise
