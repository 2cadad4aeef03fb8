"""Tokens and secrets at the doors: every forged or wrong one against two whole nodes, and stock clients over HTTP."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web

import test_tokens as table
from factory import UNBOUNDED, FakeClock, befriend, card_of, enrol, events, make_node, reopened, set_state
from gateway.audit import EventKind
from gateway.callers import (
    ASSERTION_TYPE,
    GRANT_TYPE,
    REFUSED,
    Callers,
    NonceChallengeError,
    RefusedTokenError,
    Scope,
    TokenError,
)
from gateway.crypto.nonces import Nonces
from gateway.crypto.tokens import make_dpop
from gateway.doors.entrance import STOCK_FACTOR, Entrance
from gateway.doors.guards import run_server
from gateway.errors import UnauthenticatedError
from gateway.node import Node
from gateway.store.tokens import HeldToken

TOKEN_URL = f"{table.ISSUER}/v1/token"


@pytest.fixture
def xa(tmp_path: Path) -> Node:
    """XA, with the partner that the table of wrong tokens is about."""
    clock = FakeClock(table.NOW)
    node = make_node(tmp_path, "XA-NCVI", clock=clock, public_url=table.ISSUER)
    xb = make_node(tmp_path, "XB-NCVI", clock=clock)
    enrol(node, dataclasses.replace(card_of(xb), tokens=(table.KEY.card_jwk(),)))
    return node


@pytest.fixture
def nodes(xa: Node) -> list[Callers]:
    """Two nodes over one database."""
    return [Callers(xa), Callers(reopened(xa))]


def ask(callers: Callers, assertion: str, proof: str) -> str:
    form = {"grant_type": GRANT_TYPE, "client_assertion_type": ASSERTION_TYPE, "client_assertion": assertion}
    return callers.token(form, proof, method="POST", url=TOKEN_URL).access_token


def token_proof(callers: Callers, jti: str) -> str:
    nonce = callers._nonces.issue(table.NOW)
    return make_dpop(table.KEY, "POST", TOKEN_URL, table.NOW, jti, nonce=nonce)


def test_no_wrong_assertion_gets_a_token_on_any_node(nodes: list[Callers]) -> None:
    for number, callers in enumerate(nodes):
        for name, (assertion, _) in table.WRONG_ASSERTIONS.items():
            with pytest.raises(RefusedTokenError) as refused:
                ask(callers, assertion, token_proof(callers, f"{number} {name}"))
            assert refused.value.error is TokenError.INVALID_CLIENT, name
    # The same with nothing wrong is let in, so it was not for another reason.
    assert ask(nodes[0], table.assertion(), token_proof(nodes[0], "good"))


def test_no_wrong_proof_gets_a_token_or_in_on_any_node(xa: Node, nodes: list[Callers]) -> None:
    with xa.store.transaction() as tx:
        held = HeldToken("XB-NCVI", table.KEY.thumbprint(), table.NOW + 300, "log native")
        nodes[0]._keep_token(tx, table.ACCESS, held)

    def enter(callers: Callers, proof: str) -> str:
        authorization = f"DPoP {table.ACCESS}"
        return callers.authenticate(authorization, proof, method="POST", url=table.PAGE_URL).agency

    good = table.dpop(jti="good")
    for number, callers in enumerate(nodes):
        callers._nonces = table.NONCES  # those that the proofs of the table name
        for name, (proof, _) in table.WRONG_PROOFS.items():
            with pytest.raises(UnauthenticatedError) as refused:
                enter(callers, proof)
            assert str(refused.value) == REFUSED, name
            assert not isinstance(refused.value, NonceChallengeError), name
            with pytest.raises(RefusedTokenError) as no_token:
                ask(callers, table.assertion(jti=f"{number} {name}"), proof)
            assert no_token.value.error is TokenError.INVALID_DPOP_PROOF, name
    # The same with nothing wrong is let in, once, and on one node only.
    assert enter(nodes[0], good) == "XB-NCVI"
    for callers in nodes:
        with pytest.raises(UnauthenticatedError):
            enter(callers, good)


def test_a_request_that_was_served_is_refused_by_the_other_node(nodes: list[Callers]) -> None:
    one, other = nodes
    assertion, proof = table.assertion(), token_proof(one, "one")
    assert ask(one, assertion, proof)
    for again in ((assertion, token_proof(other, "two")), (table.assertion(jti="jti-9"), proof)):
        with pytest.raises(RefusedTokenError):
            ask(other, *again)


def test_a_nonce_of_another_gateway_is_not_one(nodes: list[Callers]) -> None:
    foreign = Nonces(bytes(32)).issue(table.NOW)
    with pytest.raises(RefusedTokenError) as refused:
        ask(nodes[0], table.assertion(), make_dpop(table.KEY, "POST", TOKEN_URL, table.NOW, "one", nonce=foreign))
    assert refused.value.error is TokenError.USE_DPOP_NONCE


# Stock clients over HTTP


class Stock:
    """A surface for stock clients, served by XA, and what a client hears there."""

    def __init__(self, callers: Callers, session: aiohttp.ClientSession, port: int) -> None:
        self.callers = callers
        self._session = session
        self._url = f"http://127.0.0.1:{port}/list"

    async def ask(self, authorization: str | None = None) -> tuple[int, str, str]:
        headers = {} if authorization is None else {"Authorization": authorization}
        async with self._session.get(self._url, headers=headers) as answer:
            return answer.status, await answer.text(), answer.headers.get("WWW-Authenticate", "")


@pytest.fixture
def served(tmp_path: Path) -> Node:
    clock = FakeClock()
    node = make_node(tmp_path, "XA-NCVI", clock=clock)
    befriend(node, make_node(tmp_path, "XB-NCVI", clock=clock))
    return node


@pytest_asyncio.fixture
async def stock(served: Node) -> AsyncIterator[Stock]:
    async def listed(_request: web.Request, partner: str) -> web.StreamResponse:
        return web.Response(text=partner)

    callers = Callers(served)
    app = web.Application()
    app.router.add_get("/list", Entrance(callers, 60).behind_secret(listed, Scope.HASHSHARING))
    server = await run_server(
        app, host="127.0.0.1", port=0, ssl_context=None, limits=UNBOUNDED, allowed_hosts=["127.0.0.1"]
    )
    try:
        async with aiohttp.ClientSession() as session:
            yield Stock(callers, session, server.port)
    finally:
        await server.close()


async def test_a_stock_client_is_told_how_to_prove_itself_and_gets_in(served: Node, stock: Stock) -> None:
    with served.store.transaction() as tx:
        tx.secrets.open("XB-NCVI", Scope.HASHSHARING, served.clock())
    _, secret = stock.callers.issue_secret("XB-NCVI", Scope.HASHSHARING, 30, "duty-officer")
    status, text, challenge = await stock.ask()
    assert (status, challenge) == (401, 'Basic realm="hashsharing", charset="UTF-8"')
    basic = base64.b64encode(f"XB-NCVI:{secret}".encode()).decode()
    for authorization in (f"Basic {basic}", f"Token {secret}", f"Bearer {secret}"):
        assert await stock.ask(authorization) == (200, "XB-NCVI", "")
    for authorization in ("Basic eA==", f"Token {secret}A", "Token é", f"DPoP {secret}"):
        assert await stock.ask(authorization) == (401, text, challenge)
    assert len(events(served, EventKind.TOKEN_REFUSED)) == 4
    set_state(served, "XB-NCVI", "suspended")
    assert await stock.ask(f"Token {secret}") == (401, text, challenge)


async def test_a_stock_client_is_held_to_its_partners_rate(served: Node, stock: Stock) -> None:
    with served.store.transaction() as tx:
        tx.secrets.open("XB-NCVI", Scope.HASHSHARING, served.clock())
    _, secret = stock.callers.issue_secret("XB-NCVI", Scope.HASHSHARING, 30, "duty-officer")
    heard = [(await stock.ask(f"Token {secret}"))[0] for _ in range(14 * STOCK_FACTOR)]
    assert heard[:14] == [200] * 14  # more than the partner's own gateway may ask at once
    assert heard[-1] == 429
