"""The client: two gateways end to end over real sockets, and partners that answer badly."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from factory import (
    FakeClock,
    befriend,
    card_of,
    certificate,
    drafts,
    events,
    link_to,
    loopback,
    make_node,
    make_set,
    reopened,
    serving,
    set_state,
)
from gateway import client
from gateway.addresses import base_url
from gateway.audit import EventKind, verify_receipt
from gateway.client import LinkLimits, PartnerLink
from gateway.crypto import checkpoint, merkle
from gateway.crypto.canonical import parse_json
from gateway.crypto.checkpoint import VerifierKey
from gateway.errors import (
    DeniedError,
    GatewayError,
    MalformedError,
    NotFoundError,
    OverloadedError,
    PartnerError,
    RateLimitedError,
    StaleCursorError,
    UnauthenticatedError,
    VerificationError,
)
from gateway.exchange import CURSOR_MEDIA_TYPE, RECEIPT_MEDIA_TYPE, Exchange
from gateway.interchange import START, Cursor, IdentityCard
from gateway.node import Node

TOKEN = json.dumps({"access_token": "A" * 43, "expires_in": 300, "token_type": "DPoP"})
VIEW = "0" * 64


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def xa(tmp_path: Path, clock: FakeClock) -> Exchange:
    return Exchange(make_node(tmp_path, "XA-NCVI", clock=clock, **loopback()))


@pytest.fixture
def xb(tmp_path: Path, clock: FakeClock, xa: Exchange) -> Exchange:
    node = make_node(tmp_path, "XB-NCVI", clock=clock, **loopback())
    befriend(xa.node, node)
    return Exchange(node)


# Two gateways


async def test_a_set_is_pulled_end_to_end(xa: Exchange, xb: Exchange) -> None:
    name = make_set(xa, "found", drafts(50))
    async with serving(xa), link_to(xa.node, xb.node) as link:
        assert await link.sets() == [{"set": name, "purpose": "victim_identification"}]
        head = await link.head(name, "")
        assert head is not None
        assert xb.take_head("XA-NCVI", head[1]).cursor.seq == 50
        page = await link.changes(name, xb.mirrors.cursor(name))
        assert page is not None
        applied = xb.take_page("XA-NCVI", page)
        assert (applied.changes, applied.equality) == (50, "equal")
        assert await link.changes(name, applied.cursor) is None
        assert await link.head(name, head[0]) is None


async def test_a_set_is_pushed_end_to_end_and_answered_by_a_receipt(xa: Exchange, xb: Exchange) -> None:
    name = make_set(xb, "listed", drafts(50))
    async with serving(xa), link_to(xa.node, xb.node) as link:
        kind, body = await link.post_envelope(xb.head_for("XA-NCVI", name).body)
        assert kind == CURSOR_MEDIA_TYPE
        cursor = Cursor.from_json(parse_json(body, max_bytes=4096))
        page = xb.page_to_push("XA-NCVI", name, cursor)
        assert page is not None
        kind, receipt = await link.post_envelope(page.body)
        assert kind == RECEIPT_MEDIA_TYPE
        key = VerifierKey.parse(card_of(xa.node).log)
        assert verify_receipt(receipt, key, manifest_digest=page.manifest_digest).sender == "XB-NCVI"
        assert (await link.post_envelope(page.body))[1] == receipt
        moved = xb.page_to_push("XA-NCVI", name, START)
        assert moved is not None
        with pytest.raises(StaleCursorError) as stale:
            await link.post_envelope(moved.body)
    assert Cursor.from_json(stale.value.cursor) == xa.mirrors.cursor(name)


async def test_mail_and_log_come_over_the_link(xa: Exchange, xb: Exchange) -> None:
    key = VerifierKey.parse(card_of(xa.node).log)
    async with serving(xa), link_to(xa.node, xb.node) as link:
        assert await link.mailbox(0) is None
        first = checkpoint.verify(await link.checkpoint(), key, key.name)
        xa.mailbox.write("XB-NCVI", "note", {"text": "a note"})
        sealed = await link.mailbox(0)
        assert sealed is not None
        assert xb.take_mail("XA-NCVI", sealed) == 1
        second = checkpoint.verify(await link.checkpoint(), key, key.name)
        proof = await link.consistency(first.size, second.size)
    merkle.verify_consistency(first.size, second.size, first.root, second.root, proof)


async def test_the_partners_own_words_come_back_as_our_errors(xa: Exchange, xb: Exchange) -> None:
    async with serving(xa), link_to(xa.node, xb.node) as link:
        with pytest.raises(NotFoundError, match="no such set"):
            await link.head("XA-NCVI/absent", "")
        with pytest.raises(MalformedError):
            await link.post_envelope(b"rubbish")
        name = make_set(xb, "listed", drafts(1))
        body = bytearray(xb.head_for("XA-NCVI", name).body)
        body[-1] ^= 1
        with pytest.raises(VerificationError):
            await link.post_envelope(bytes(body))


async def test_a_token_is_renewed_before_it_runs_out(xa: Exchange, xb: Exchange, clock: FakeClock) -> None:
    async with serving(xa), link_to(xa.node, xb.node) as link:
        await link.sets()
        held = link._token
        clock.advance(200)
        await link.sets()
        assert link._token is held
        clock.advance(71)
        await link.sets()
        assert link._token is not held


async def test_a_forgotten_token_costs_one_retry_and_no_more(xa: Exchange, xb: Exchange) -> None:
    async with serving(xa), link_to(xa.node, xb.node) as link:
        await link.sets()
        with xa.node.store.transaction() as tx:
            tx.tokens.revoke("XB-NCVI")
        assert await link.sets() == []
        set_state(xa.node, "XB-NCVI", "suspended")
        with pytest.raises(UnauthenticatedError, match="invalid_client"):
            await link.sets()
        assert len(events(xa.node, EventKind.TOKEN_REFUSED)) == 1
        set_state(xa.node, "XB-NCVI", "active")
        assert await link.sets() == []


def counting(link: PartnerLink) -> list[tuple[str, int]]:
    """Every request that the link really sends from now on: (path, status)."""
    sent: list[tuple[str, int]] = []
    request = link._request

    async def counted(method: str, path: str, **options: Any) -> Any:
        answer = await request(method, path, **options)
        sent.append((path, answer.status))
        return answer

    link._request = counted  # type: ignore[method-assign]
    return sent


async def test_a_poll_is_one_round_trip_once_a_nonce_and_a_token_are_there(
    xa: Exchange, xb: Exchange, clock: FakeClock
) -> None:
    name = make_set(xa, "found", drafts(3))
    async with serving(xa), link_to(xa.node, xb.node) as link:
        sent = counting(link)
        head = await link.head(name, "")
        assert head is not None
        path = f"/v1/sets/{name}/head"
        assert sent == [("/v1/token", 400), ("/v1/token", 200), (path, 200)]
        sent.clear()
        for _ in range(3):
            clock.advance(80)
            assert await link.head(name, head[0]) is None
        assert sent == [(path, 304)] * 3
        sent.clear()
        clock.advance(31)  # the token is renewed, by the nonce that came after 160 s
        assert await link.head(name, head[0]) is None
        assert sent == [("/v1/token", 200), (path, 304)]
        sent.clear()
        clock.advance(1000)
        assert await link.head(name, head[0]) is None
        assert sent == [("/v1/token", 400), ("/v1/token", 200), (path, 304)]


async def test_a_nonce_that_a_resource_asks_for_is_answered_once(xa: Exchange, xb: Exchange) -> None:
    async with serving(xa), link_to(xa.node, xb.node) as link:
        await link.sets()
        link._nonce, held, sent = "of another time", link._token, counting(link)
        assert await link.sets() == []
        assert sent == [("/v1/sets", 401), ("/v1/sets", 200)]
        assert link._token is held


async def test_a_partner_that_asks_for_nonces_without_end_is_left(xa: Exchange, xb: Exchange) -> None:
    asked: list[str] = []

    async def insist(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        challenge = {"WWW-Authenticate": 'DPoP error="use_dpop_nonce"', "DPoP-Nonce": f"n-{len(asked)}"}
        body = problem("unauthenticated", 401, detail="again")
        return web.Response(status=401, body=body, content_type="application/problem+json", headers=challenge)

    async with stranger(xb.node, xa.node, insist) as link:
        with pytest.raises(UnauthenticatedError, match="again"):
            await link.sets()
    assert asked == ["/v1/sets"] * 2
    words = b'{"error":"use_dpop_nonce"}'
    token = says(400, words, "application/json", DPoP_Nonce="n")
    async with stranger(xb.node, xa.node, insist, token=token) as link:
        sent = counting(link)
        with pytest.raises(UnauthenticatedError, match="use_dpop_nonce"):
            await link.sets()
    assert sent == [("/v1/token", 400)] * 2


async def test_what_is_no_nonce_is_not_repeated(xa: Exchange, xb: Exchange) -> None:
    for nonce in ("", "a b", 'a"b', "a\\b", "é", "n" * 257):
        headers = {"DPoP_Nonce": nonce, "WWW_Authenticate": 'DPoP error="use_dpop_nonce"'}
        answer = says(401, problem("unauthenticated", 401, detail="no"), "application/problem+json", **headers)
        async with stranger(xb.node, xa.node, answer) as link:
            sent = counting(link)
            with pytest.raises(UnauthenticatedError):
                await link.sets()
            assert link._nonce == ""
        # With a new token, as ever.
        assert [status for path, status in sent if path == "/v1/sets"] == [401, 401], nonce


# Clocks


@pytest.mark.parametrize("ahead", [300, -300])
async def test_a_clock_five_minutes_off_is_told_in_seconds_on_both_sides(
    tmp_path: Path, xa: Exchange, ahead: int
) -> None:
    ours = FakeClock(xa.node.clock() + ahead)
    xb = make_node(tmp_path, "XB-NCVI", clock=ours, **loopback())
    befriend(xa.node, xb)
    side = "ahead" if ahead > 0 else "behind"
    async with serving(xa), link_to(xa.node, xb) as link:
        with pytest.raises(UnauthenticatedError) as caught:
            await link.sets()
        assert f"our clock and the partner's stand 300 s apart, ours {side}" in str(caught.value)
        assert "NTP" in caught.value.remedy
        (event,) = events(xa.node, EventKind.TOKEN_REFUSED)
        assert "300 s" in str(event.details["reason"])
        # Set right again it works without more ado.
        ours.advance(-ahead)
        assert await link.sets() == []


async def test_a_clock_that_jumps_while_a_token_lives_is_told_as_well(
    tmp_path: Path, xa: Exchange, clock: FakeClock
) -> None:
    ours = FakeClock(clock())
    xb = make_node(tmp_path, "XB-NCVI", clock=ours, **loopback())
    befriend(xa.node, xb)
    async with serving(xa), link_to(xa.node, xb) as link:
        await link.sets()
        ours.advance(200)  # the token is still good, the proof is of the future
        with pytest.raises(UnauthenticatedError, match="stand 200 s apart, ours ahead"):
            await link.sets()


async def test_clocks_are_no_excuse_where_they_agree(xa: Exchange, xb: Exchange) -> None:
    async with serving(xa), link_to(xa.node, xb.node) as link:
        set_state(xa.node, "XB-NCVI", "suspended")
        with pytest.raises(UnauthenticatedError) as caught:
            await link.sets()
    assert str(caught.value) == "the partner gave us no token: invalid_client"


async def test_a_date_that_is_none_is_passed_over(xa: Exchange, xb: Exchange) -> None:
    words = b'{"error":"invalid_client"}'
    odd = ("", "yesterday", "Thu, 99 Nov 2026 00:00:00 GMT", "Thu, 01 Abc 2026 00:00:00 GMT", "0", "9" * 400)
    for date in odd:
        answer = says(401, words, "application/json", Date=date)
        async with stranger(xb.node, xa.node, says(), token=answer) as link:
            with pytest.raises(UnauthenticatedError) as caught:
                await link.sets()
        assert str(caught.value) == "the partner gave us no token: invalid_client", date


async def test_requests_at_once_share_one_token(xa: Exchange, xb: Exchange) -> None:
    async with serving(xa) as _, link_to(xa.node, xb.node) as link:
        made = 0
        make = link._new_token

        async def counted() -> Any:
            nonlocal made
            made += 1
            return await make()

        link._new_token = counted  # type: ignore[method-assign]
        await asyncio.gather(*(link.sets() for _ in range(4)))
        assert made == 1


async def test_a_restarted_partner_is_called_on_as_if_nothing_was(xa: Exchange, xb: Exchange) -> None:
    async with link_to(xa.node, xb.node) as link:
        async with serving(xa):
            assert await link.sets() == []
        with pytest.raises(PartnerError):
            await link.sets()
        async with serving(Exchange(reopened(xa.node))):
            assert await link.sets() == []


# Partners that answer badly

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def stranger(
    here: Node, there: Node, answer: Handler, *, token: Handler | None = None, limits: LinkLimits | None = None
) -> AsyncIterator[PartnerLink]:
    """A link to a server in the place of `there` that answers everything with `answer`."""

    async def give_token(_request: web.Request) -> web.StreamResponse:
        return web.Response(text=TOKEN, content_type="application/json")

    app = web.Application(client_max_size=1 << 30)
    app.router.add_post("/v1/token", token or give_token)
    app.router.add_route("*", "/{rest:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", there.settings.listen_port)
    await site.start()
    try:
        async with link_to(there, here, limits=limits) as link:
            yield link
    finally:
        await runner.cleanup()


def says(status: int = 200, body: bytes = b"", kind: str = client.ENVELOPE_TYPE, **headers: str) -> Handler:
    async def answer(_request: web.Request) -> web.StreamResponse:
        shown = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=status, body=body, headers={"Content-Type": kind, **shown})

    return answer


def problem(word: str, status: int, **members: object) -> bytes:
    return json.dumps({"type": f"urn:gateway:problem:{word}", "title": "x", "status": status, **members}).encode()


async def test_answers_that_no_contract_describes_are_partner_errors(xa: Exchange, xb: Exchange) -> None:
    sealed = b"age-encryption.org/v1\n"
    tag = f'"{VIEW}"'
    cases: list[tuple[Handler, str]] = [
        (says(200, sealed), "head"),  # no ETag
        (says(200, sealed, ETag='"short"'), "head"),
        (says(200, sealed, ETag=f"W/{tag}"), "head"),
        (says(200, sealed, "application/json", ETag=tag), "head"),
        (says(204, ETag=tag), "head"),
        (says(304, ETag=tag), "head"),  # nobody asked on a condition
        (says(200, sealed, "text/html"), "changes"),
        (says(304), "changes"),
        (says(201, sealed), "changes"),
        (says(206, sealed), "changes"),
        (says(301, Location="http://127.0.0.1:1/"), "changes"),
        (says(307, Location="http://127.0.0.1:1/"), "changes"),
        (says(200, sealed, Content_Encoding="gzip"), "changes"),
        (says(200, b"[]", "application/json"), "sets"),
        (says(200, b'{"sets":{}}', "application/json"), "sets"),
        (says(200, b'{"sets":[1]}', "application/json"), "sets"),
        (says(200, b'{"sets":[{"set":"XA-NCVI/a"}]}', "application/json"), "sets"),
        (says(200, b'{"sets":[{"set":"XC-NCVI/a","purpose":""}]}', "application/json"), "sets"),
        (says(200, b'{"sets":[{"set":"XA-NCVI/../a","purpose":""}]}', "application/json"), "sets"),
        (says(200, b'{"sets":[{"set":"XA-NCVI/a","purpose":1}]}', "application/json"), "sets"),
        (says(200, b'{"sets":[],"sets":[]}', "application/json"), "sets"),
        (says(200, b'{"proof":["xyz"]}', "application/json"), "consistency"),
        (says(200, b'{"proof":"00"}', "application/json"), "consistency"),
        (says(500, b"<html>no</html>", "text/html"), "changes"),
        (says(404, b"nothing"), "changes"),
        (says(400, problem("invented", 400)), "changes"),
        (says(400, problem("malformed", 401)), "changes"),
        (says(500, problem("internal", 500)), "changes"),
        (says(503, problem("audit-broken", 503)), "changes"),
    ]
    for number, (answer, method) in enumerate(cases):
        async with stranger(xb.node, xa.node, answer) as link:
            with pytest.raises(PartnerError) as caught:
                await _call(link, method)
            assert "127.0.0.1" not in str(caught.value), number
            assert str(caught.value).startswith(("the partner", "the connection")), number


async def _call(link: PartnerLink, method: str) -> object:
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "head": lambda: link.head("XA-NCVI/found", ""),
        "changes": lambda: link.changes("XA-NCVI/found", START),
        "sets": link.sets,
        "consistency": lambda: link.consistency(1, 2),
        "post": lambda: link.post_envelope(b"x"),
    }
    return await calls[method]()


async def test_problems_become_the_errors_they_stand_for(xa: Exchange, xb: Exchange) -> None:
    cursor = {"epoch": 1, "view": "", "seq": 4}
    for status, word, kind in (
        (403, "denied", DeniedError),
        (404, "not-found", NotFoundError),
        (409, "stale-cursor", StaleCursorError),
        (429, "rate-limited", RateLimitedError),
        (503, "overloaded", OverloadedError),
    ):
        body = problem(word, status, detail="why", cursor=cursor, retry_after=7, rules=["xb.rule"])
        async with stranger(xb.node, xa.node, says(status, body, "application/problem+json")) as link:
            with pytest.raises(GatewayError) as caught:
                await link.post_envelope(b"x")
        assert type(caught.value) is kind
        if isinstance(caught.value, StaleCursorError):
            assert caught.value.cursor == cursor


async def test_a_redirect_is_not_followed(xa: Exchange, xb: Exchange) -> None:
    asked: list[str] = []

    async def send_away(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        raise web.HTTPFound("/v1/elsewhere")

    async with stranger(xb.node, xa.node, send_away) as link:
        with pytest.raises(PartnerError, match="302"):
            await link.sets()
    assert asked == ["/v1/sets"]


async def test_answers_without_end_are_cut_off(xa: Exchange, xb: Exchange) -> None:
    sent = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse(headers={"Content-Type": client.ENVELOPE_TYPE})
        await response.prepare(request)
        try:
            while sent < 64 << 20:
                await response.write(bytes(1 << 16))
                sent += 1 << 16
        except ConnectionError:
            pass
        return response

    async with stranger(xb.node, xa.node, endless) as link:
        with pytest.raises(PartnerError, match="larger"):
            await link.mailbox(0)
    assert sent < 16 << 20  # the bound is 2 MiB; the rest is what sockets hold

    async with stranger(xb.node, xa.node, says(200, bytes(3 << 20))) as link:
        with pytest.raises(PartnerError, match="larger"):
            await link.mailbox(0)
    async with stranger(xb.node, xa.node, says(503, bytes(1 << 20))) as link:
        with pytest.raises(PartnerError):
            await link.mailbox(0)


async def test_slow_answers_end_in_time(xa: Exchange, xb: Exchange) -> None:
    async def silent(_request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(5)
        return web.Response()

    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": client.ENVELOPE_TYPE})
        await response.prepare(request)
        for _ in range(100):
            await response.write(b"x")
            await asyncio.sleep(0.05)
        return response

    for answer, limits in (
        (silent, LinkLimits(read_seconds=0.3, total_seconds=60)),
        (drip, LinkLimits(read_seconds=60, total_seconds=0.6)),
    ):
        async with stranger(xb.node, xa.node, answer, limits=limits) as link:
            with pytest.raises(PartnerError, match="in time"):
                await link.mailbox(0)


async def test_a_connection_that_breaks_is_said_plainly(xa: Exchange, xb: Exchange) -> None:
    async def half(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": client.ENVELOPE_TYPE, "Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b"half")
        assert request.transport is not None
        request.transport.abort()
        return response

    async with stranger(xb.node, xa.node, half) as link:
        with pytest.raises(PartnerError, match="broke off"):
            await link.mailbox(0)
    async with link_to(xa.node, xb.node) as link:
        with pytest.raises(PartnerError, match="cannot be reached") as lost:
            await link.mailbox(0)
        assert "ask its people" in lost.value.remedy
    with pytest.raises(PartnerError, match="closed"):
        await link.mailbox(0)


async def test_what_is_not_http_is_said_plainly(xa: Exchange, xb: Exchange) -> None:
    async def rubbish(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"220 mail.example ESMTP\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(rubbish, "127.0.0.1", xa.node.settings.listen_port)
    async with server, link_to(xa.node, xb.node) as link:
        with pytest.raises(PartnerError, match="broke off"):
            await link.sets()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        TOKEN.replace("DPoP", "Bearer").encode(),
        TOKEN.replace("300", '"300"').encode(),
        TOKEN.replace("300", "true").encode(),
        TOKEN.replace("A" * 43, "A\\r\\nX: y").encode(),
        TOKEN.replace("A" * 43, "").encode(),
        TOKEN.replace("A" * 43, "A" * 5000).encode(),
    ],
)
async def test_a_token_that_is_none_is_refused(xa: Exchange, xb: Exchange, body: bytes) -> None:
    answer = says(200, body, "application/json")
    nothing = says(200, b'{"sets":[]}', "application/json")
    async with stranger(xb.node, xa.node, nothing, token=answer) as link:
        with pytest.raises(PartnerError):
            await link.sets()


async def test_a_partner_cannot_put_its_own_words_into_our_refusal(xa: Exchange, xb: Exchange) -> None:
    # Without a date: what it says of its clock is another test's.
    words = b'{"error":"\\u001b[31m","error_description":"call 555"}'
    answer = says(401, words, "application/json", Date="call 555")
    async with stranger(xb.node, xa.node, says(), token=answer) as link:
        with pytest.raises(UnauthenticatedError) as caught:
            await link.sets()
    assert str(caught.value) == "the partner gave us no token"


async def test_a_set_name_never_leaves_its_part_of_the_path(xa: Exchange, xb: Exchange) -> None:
    async with stranger(xb.node, xa.node, says()) as link:
        for name in ("../card", "XA-NCVI/../../card", "XA-NCVI/a?b", "XA-NCVI/a/head#", "XA-NCVI/A"):
            with pytest.raises(MalformedError):
                await link.head(name, "")


# Where we call

ODD_URLS = [
    "",
    "xa.example",
    "//xa.example",
    "https://",
    "https:///",
    "https:xa.example",
    "https:/xa.example",
    "http://xa.example",
    "http://10.0.0.1",
    "http://169.254.169.254",
    "http://0.0.0.0",
    "http://[::]",
    "http://[::ffff:127.0.0.1]",
    "http://2130706433",
    "http://0x7f000001",
    "http://0x7f.1",
    "http://017700000001",
    "http://127.1",
    "http://127.0.0.1.",
    "http://127.0.0.1.example",
    "http://localhost.example",
    "http://localhost.",
    "http://loopback",
    "http://LOCALHOST.",
    "http://①②⑦.0.0.1",
    "https://2130706433",
    "https://0x7f000001",
    "https://0x7f.0.0.1",
    "https://0177.0.0.1",
    "https://127.1",
    "https://127.0.1",
    "https://1.2.3.4.5",
    "https://1.2.3.256",
    "https://[::1",
    "https://::1",
    "https://[fe80::1%25eth0]",
    "https://[fe80::1%eth0]",
    "https://[::1]x",
    "https://[v1.fe80]",
    "https://user@xa.example",
    "https://user:pass@xa.example",
    "https://@xa.example",
    "https://xa.example@127.0.0.1",
    "https://xa.example:",
    "https://xa.example:0",
    "https://xa.example:65536",
    "https://xa.example:-1",
    "https://xa.example:80:80",
    "https://xa.example:8a",
    "https://xa.example:８０",
    "https://xa.example/v1",
    "https://xa.example//",
    "https://xa.example/.",
    "https://xa.example/;",
    "https://xa.example?",
    "https://xa.example?a=b",
    "https://xa.example/?",
    "https://xa.example#",
    "https://xa.example/#a",
    "https://xa.example\\@127.0.0.1",
    "https:\\\\xa.example",
    "https://xa.example\\",
    "https://xa.example%2f@x",
    "https://xa%2eexample",
    "https://xa.example\r\n",
    "https://xa.example\n",
    "https://xa.example\t",
    " https://xa.example",
    "https://xa.example ",
    "https://xa .example",
    "https://xa\u3002example",
    "https://xа.example",
    "https://xn--.example.-",
    "https://-xa.example",
    "https://xa-.example",
    "https://xa..example",
    "https://.xa.example",
    "https://xa.example.",
    "https://xa_b.example",
    f"https://{'a' * 64}.example",
    f"https://{'a.' * 130}example",
    "ftp://xa.example",
    "file:///etc/passwd",
    "gopher://127.0.0.1",
    "unix:///run/x",
    "ws://127.0.0.1",
    "http+unix://%2Frun%2Fx",
    "javascript:alert(1)",
    "data:text/plain,x",
    "https://xa.example,127.0.0.1",
    "https://xa.example;127.0.0.1",
    "https://*.example",
]


@pytest.mark.parametrize("url", ODD_URLS)
def test_an_odd_url_is_not_called(url: str) -> None:
    with pytest.raises(PartnerError):
        base_url(url)


def test_usual_urls_are_called_in_their_usual_spelling() -> None:
    for url, base in (
        ("https://xa.example", "https://xa.example"),
        ("https://xa.example/", "https://xa.example"),
        ("HTTPS://XA.Example:8440", "https://xa.example:8440"),
        ("https://192.0.2.1", "https://192.0.2.1"),
        ("https://[2001:db8::1]:8440", "https://[2001:db8::1]:8440"),
        ("http://127.0.0.1:8440", "http://127.0.0.1:8440"),
        ("http://[::1]:8440", "http://[::1]:8440"),
        ("http://localhost:8440", "http://localhost:8440"),
    ):
        assert base_url(url) == base


async def test_a_proxy_of_the_environment_is_not_used(
    xa: Exchange, xb: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with serving(xa), link_to(xa.node, xb.node) as link:
        assert await link.sets() == []


# TLS


@pytest.fixture
def tls_node(tmp_path: Path, clock: FakeClock) -> Node:
    cert_file, key_file = certificate(tmp_path)
    settings = loopback(tls_certificate=str(cert_file), tls_key=str(key_file))
    settings["public_url"] = f"https://localhost:{settings['listen_port']}"
    settings["listen_host"] = "localhost"
    return make_node(tmp_path, "XA-NCVI", clock=clock, **settings)


async def test_a_link_over_tls_verifies_the_certificate(tls_node: Node, tmp_path: Path, clock: FakeClock) -> None:
    xb = make_node(tmp_path, "XB-NCVI", clock=clock)
    befriend(tls_node, xb)
    card = dataclasses.replace(card_of(tls_node), tls_pins=())  # with pins: tests/test_tls_pins.py
    trusting = ssl.create_default_context(cafile=tls_node.settings.tls_certificate)
    (tmp_path / "other").mkdir()
    other = ssl.create_default_context(cafile=str(certificate(tmp_path / "other")[0]))

    def link(called: IdentityCard, tls: ssl.SSLContext | None) -> PartnerLink:
        return PartnerLink(called, xb.keystore.token_key, "XB-NCVI", clock, xb.random, tls=tls)

    async with serving(Exchange(tls_node)):
        async with link(card, trusting) as verified:
            assert await verified.sets() == []
        # The last one: the same server under a name that its certificate does not have.
        elsewhere = dataclasses.replace(card, url=card.url.replace("localhost", "127.0.0.1"))
        for called, context in ((card, None), (card, other), (elsewhere, trusting)):
            async with link(called, context) as refused:
                with pytest.raises(PartnerError, match="certificate does not verify"):
                    await refused.sets()


async def test_a_partner_with_old_tls_is_not_called(tmp_path: Path, xa: Exchange, xb: Exchange) -> None:
    cert_file, key_file = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert_file, key_file)
    context.maximum_version = ssl.TLSVersion.TLSv1_2

    async def never(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = await asyncio.start_server(never, "localhost", port, ssl=context)
    card = dataclasses.replace(card_of(xa.node), url=f"https://localhost:{port}")
    async with (
        server,
        PartnerLink(card, xb.node.keystore.token_key, "XB-NCVI", xb.node.clock, xb.node.random) as link,
    ):
        with pytest.raises(PartnerError, match=r"TLS|reached"):
            await link.sets()
