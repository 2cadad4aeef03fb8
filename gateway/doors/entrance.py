"""Lets callers in: which partner makes a request, and whether it asks more often than was agreed.

Doors wrap their handlers with `Entrance.behind`, those for stock clients with `Entrance.behind_secret`; a handler then
gets the request and the partner's agency code, and never sees a request of anybody else. The two bounds are the
partner's, whatever the number of addresses it calls from.

Who is sent away at this door gets `Date` by the clock that judged, so that a caller whose clock is wrong can see it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from typing import TypeAlias

from aiohttp import web

from gateway.callers import Callers, InsufficientScopeError, NonceChallengeError, Scope
from gateway.doors.answers import CHALLENGE, problem_response
from gateway.doors.guards import Handler, RateLimiter
from gateway.doors.limits import source_of
from gateway.doors.loglines import fields
from gateway.errors import UnauthenticatedError

LOG = logging.getLogger("gateway.http")

MAX_REQUESTS_AT_ONCE = 4  # of one partner; a page costs up to 64 MiB of memory while it is served or taken
STOCK_FACTOR = 5  # stock clients ask often and get little: hundreds of empty windows before one that holds something
BURST_SECONDS = 10  # after a pause a partner may spend as much as in these seconds at once, a sync does
NONCE_HEADER = "DPoP-Nonce"  # RFC 9449 8.1

PartnerHandler: TypeAlias = Callable[[web.Request, str], Awaitable[web.StreamResponse]]


class Entrance:
    """Authenticates callers and bounds what each may ask.

    Args:
        requests_per_minute: of one partner, in the long run; of its stock clients `STOCK_FACTOR` times as many.
    """

    def __init__(self, callers: Callers, requests_per_minute: int) -> None:
        self.callers = callers
        self._limiter = _limiter(requests_per_minute)
        self._stock = _limiter(requests_per_minute * STOCK_FACTOR)

    def behind(self, handler: PartnerHandler, scope: Scope = Scope.NATIVE) -> Handler:
        """The handler for partners whose token is for `scope`. The body is not read before the caller is known."""

        async def authenticated(request: web.Request) -> web.StreamResponse:
            try:
                admitted = await asyncio.to_thread(
                    self.callers.authenticate,
                    request.headers.get("Authorization"),
                    request.headers.get("DPoP"),
                    method=request.method,
                    url=self.url_of(request),
                    scope=scope,
                )
            except NonceChallengeError as error:  # RFC 9449 9
                headers = {"WWW-Authenticate": _challenge("use_dpop_nonce"), NONCE_HEADER: error.nonce}
                return self._sent_away(error, headers)
            except InsufficientScopeError as error:  # RFC 6750 3.1
                return self._sent_away(error, {"WWW-Authenticate": _challenge("insufficient_scope", error.scope)})
            except UnauthenticatedError as error:
                _note(request, error)
                return self._sent_away(error, {"WWW-Authenticate": CHALLENGE})
            with self._limiter.admit(admitted.agency):
                response = await handler(request, admitted.agency)
            if admitted.nonce and not response.prepared:
                response.headers[NONCE_HEADER] = admitted.nonce
            return response

        return authenticated

    def behind_secret(self, handler: PartnerHandler, surface: Scope) -> Handler:
        """The handler for partners whose stock client brings a secret for `surface`."""
        challenge = f'Basic realm="{surface}", charset="UTF-8"'  # RFC 7617 2

        async def authenticated(request: web.Request) -> web.StreamResponse:
            try:
                partner = await asyncio.to_thread(
                    self.callers.authenticate_secret,
                    request.headers.get("Authorization"),
                    surface,
                    address=source_of(request.remote or ""),
                )
            except UnauthenticatedError as error:
                _note(request, error)
                return self._sent_away(error, {"WWW-Authenticate": challenge})
            with self._stock.admit(partner):
                return await handler(request, partner)

        return authenticated

    def url_of(self, request: web.Request) -> str:
        """The request's URL as its caller sees it: our public address and the path, for no header is believed."""
        return self.callers.issuer + request.rel_url.raw_path

    def date(self) -> str:
        """The present time as a `Date` header (RFC 9110 5.6.7), by the clock that proofs are judged by."""
        return formatdate(self.callers.now(), usegmt=True)

    def _sent_away(self, error: UnauthenticatedError | InsufficientScopeError, headers: dict[str, str]) -> web.Response:
        response = problem_response(error)
        response.headers.update(headers, Date=self.date())
        return response


def _limiter(requests_per_minute: int) -> RateLimiter:
    burst = max(1, requests_per_minute * BURST_SECONDS // 60)
    return RateLimiter(per_second=requests_per_minute / 60, burst=burst, at_once=MAX_REQUESTS_AT_ONCE)


def _challenge(error: str, scope: str = "") -> str:
    """What a caller that has proved itself is told: the error as RFC 6750 3 writes it."""
    return f'{CHALLENGE}, error="{error}"' + (f', scope="{scope}"' if scope else "")


def _note(request: web.Request, error: UnauthenticatedError) -> None:
    # The caller is told nothing; its operator may ring ours up. One line a request, like every other.
    LOG.info("caller refused", extra=fields(reason=str(error.__cause__), peer=request.remote))
