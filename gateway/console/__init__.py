"""The console: the gateway for people who never open a terminal. Pages are made here, by the gateway itself.

    build_console(exchange) -> an application, served behind the same guards as every door, on an address of its own

Rules:

1. A page is a function: `show(desk, visit) -> Page`. It runs in a thread, reads the store, and knows no HTTP. `routing`
   alone knows cookies, forms and headers; `ROUTES` says for each address which roles may come.
2. What somebody may not see is not there: another role's page answers 404, as an address that does not exist.
3. Nothing is done by GET. A POST comes from a form of ours (a token of the session), from our own origin, and what is
   guarded wants the passkey once more.
4. No inline code, no foreign address: the Content-Security-Policy allows our own files alone. Everything is shown
   without scripts too, but for passkeys, live numbers and proofs, which browsers do by script only.
5. Pages show counts, names and rules. Values (digests, texts of cases) are shown to those whose work needs them, and
   descriptions only when they are asked for: reading them all day harms people.
"""

from aiohttp import web

from gateway.console import (
    account,
    approving,
    casework,
    logbook,
    lookups,
    now,
    partners,
    policies,
    rehearsing,
    routing,
    statistics,
    syncing,
)
from gateway.console.pages import Route
from gateway.exchange import Exchange

SCREENS = (account, now, casework, lookups, syncing, partners, policies, rehearsing, approving, logbook, statistics)
ROUTES: tuple[Route, ...] = tuple(route for screen in SCREENS for route in screen.ROUTES)


def build_console(exchange: Exchange) -> web.Application:
    """The console of one gateway as an application that has not been started."""
    return routing.build_console(exchange, ROUTES)
