"""A hostile network against a real server on loopback: refused, cut off, counted, and nobody else waits for it."""

from __future__ import annotations

import asyncio
import datetime
import gzip
import ipaddress
import json
import logging
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.doors import connection
from gateway.doors.connection import Shared, new_handler, verify_guards
from gateway.doors.framing import Framing, HeadLimits, RefusedRequestError
from gateway.doors.guards import RateLimiter, RunningServer, ServerLimits, accepts, read_body, run_server
from gateway.doors.limits import MAX_CALLERS, Places, source_of
from gateway.doors.loglines import JsonLines, fields
from gateway.errors import ConfigError, DeniedError, OverloadedError, RateLimitedError, UnauthenticatedError

HOST = "xa.example"
GOOD_SECONDS = 2.0
QUICK = ServerLimits(
    handshake_seconds=0.3,
    head_seconds=0.3,
    body_grace_seconds=0.3,
    body_total_seconds=0.8,
    answer_grace_seconds=0.4,
    idle_seconds=0.5,
    linger_seconds=0.2,
    shutdown_seconds=0.2,
    max_connections=40,
    max_connections_per_address=20,
    requests_per_second_per_address=1e6,
    request_burst_per_address=10**6,
)
ATTACKER = ("127.0.0.2", 0)


async def hello(_request: web.Request) -> web.Response:
    return web.Response(text="hello")


@accepts(200_000)
async def echo_length(request: web.Request) -> web.Response:
    return web.Response(text=str(len(await read_body(request))))


@accepts(10**9, length_required=True)
async def big(request: web.Request) -> web.Response:
    count = 0
    async for piece in request.content.iter_chunked(65_536):
        count += len(piece)
    return web.Response(text=str(count))


async def bug(_request: web.Request) -> web.Response:
    raise ValueError("reference 4711 not found in /var/lib/secret")


async def denied(_request: web.Request) -> web.Response:
    raise DeniedError("no rule permits it", rules=("xb.receive.1",))


async def unauthenticated(_request: web.Request) -> web.Response:
    raise UnauthenticatedError("token has expired")


async def slow(_request: web.Request) -> web.Response:
    await asyncio.sleep(0.5)
    return web.Response(text="done")


@accepts(10_000_000)
async def slow_reader(request: web.Request) -> web.Response:
    await asyncio.sleep(0.7)
    return web.Response(text=str(len(await read_body(request))))


async def flood(_request: web.Request) -> web.Response:
    return web.Response(body=bytes(16 * 2**20))


async def half(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"half")
    raise ValueError("in the middle")


async def look_up(_request: web.Request) -> web.Response:
    return web.Response(text="found")


async def elsewhere(_request: web.Request) -> web.Response:
    raise web.HTTPFound("/hello")


def make_app() -> web.Application:
    app = web.Application()
    app.add_routes(
        [
            web.get("/hello", hello),
            web.post("/echo", echo_length),
            web.post("/big", big),
            web.get("/bug", bug),
            web.get("/denied", denied),
            web.get("/unauthenticated", unauthenticated),
            web.get("/slow", slow),
            web.post("/slow-reader", slow_reader),
            web.get("/flood", flood),
            web.get("/half", half),
            web.get("/elsewhere", elsewhere),
            web.get("/cases/{reference}", look_up),
        ]
    )
    return app


@asynccontextmanager
async def serving(
    limits: ServerLimits = QUICK, tls: ssl.SSLContext | None = None, clock: Callable[[], float] = time.monotonic
) -> AsyncIterator[RunningServer]:
    server = await run_server(
        make_app(), host="127.0.0.1", port=0, ssl_context=tls, limits=limits, allowed_hosts=[HOST], clock=clock
    )
    try:
        yield server
    finally:
        await server.close()


@pytest.fixture
async def server() -> AsyncIterator[RunningServer]:
    async with serving() as running:
        yield running


class Peer:
    """A raw connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 3)
        first, *rows = head.decode().split("\r\n")[:-2]
        headers = {name.lower(): value for name, value in (row.split(": ", 1) for row in rows)}
        body = await asyncio.wait_for(self.reader.readexactly(int(headers.get("content-length", 0))), 3)
        return int(first.split()[1]), headers, body

    async def drip(self, data: bytes, piece: int) -> None:
        """Send one piece each 20 ms, until the server has had enough."""
        with suppress(ConnectionError):
            for at in range(0, len(data), piece):
                await self.send(data[at : at + piece])
                await asyncio.sleep(0.02)

    async def closed_after(self, limit: float = 3.0) -> float:
        """Seconds until the server closed; what it still sent is dropped."""
        began = time.monotonic()
        try:
            while await asyncio.wait_for(self.reader.read(65_536), limit):
                pass
        except ConnectionError:
            pass
        return time.monotonic() - began


@asynccontextmanager
async def peer(server: RunningServer, source: tuple[str, int] | None = None) -> AsyncIterator[Peer]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, local_addr=source)
    try:
        yield Peer(reader, writer)
    finally:
        writer.close()


def request(method: str = "GET", path: str = "/hello", body: bytes = b"", **headers: str) -> bytes:
    rows = {"Host": HOST} | {name.replace("_", "-"): value for name, value in headers.items()}
    if body:
        rows["Content-Length"] = str(len(body))
    head = "".join(f"{name}: {value}\r\n" for name, value in rows.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body


async def ask(server: RunningServer, data: bytes) -> tuple[int, dict[str, str], bytes]:
    async with peer(server) as connected:
        await connected.send(data)
        return await connected.answer()


async def is_answered_in_time(server: RunningServer) -> None:
    began = time.monotonic()
    status, _, body = await ask(server, request())
    assert (status, body) == (200, b"hello")
    assert time.monotonic() - began < GOOD_SECONDS


# Good requests


async def test_requests_are_answered_one_after_the_other_on_one_connection(server: RunningServer) -> None:
    async with peer(server) as connected:
        for _ in range(3):
            await connected.send(request())
            assert (await connected.answer())[2] == b"hello"


async def test_pipelined_requests_are_answered_in_order(server: RunningServer) -> None:
    async with peer(server) as connected:
        await connected.send(request("POST", "/echo", b"x" * 5) + request() + request("POST", "/echo", b"x" * 40_000))
        assert [(await connected.answer())[2] for _ in range(3)] == [b"5", b"hello", b"40000"]


async def test_a_flood_of_pipelined_requests_is_cut_off_after_the_one_that_is_answered(server: RunningServer) -> None:
    async with peer(server) as connected:
        await connected.send(request(path="/slow") + request() * 2000)
        assert (await connected.answer())[2] == b"done"
        assert await connected.closed_after() < 1


async def test_a_chunked_body_is_read_whole(server: RunningServer) -> None:
    body = b"5\r\nhello\r\n6;name=value\r\n world\r\n0\r\n\r\n"
    async with peer(server) as connected:
        for piece in (request("POST", "/echo", Transfer_Encoding="chunked"), *(bytes([b]) for b in body), request()):
            await connected.send(piece)
        assert [(await connected.answer())[2] for _ in range(2)] == [b"11", b"hello"]


async def test_an_empty_line_before_a_request_is_passed_over(server: RunningServer) -> None:
    assert (await ask(server, b"\r\n" + request()))[0] == 200


async def test_a_large_body_streams_at_full_speed(server: RunningServer) -> None:
    async with peer(server) as connected:
        await connected.send(request("POST", "/big", bytes(20 * 2**20)))
        assert (await connected.answer())[2] == str(20 * 2**20).encode()


async def test_every_answer_carries_the_security_headers_and_none_names_the_software(server: RunningServer) -> None:
    for data in (request(), request(path="/bug"), request(path="/none"), b"BAD\r\n\r\n"):
        _, headers, _ = await ask(server, data)
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "server" not in headers


# Framing

CHUNKED = "Transfer-Encoding: chunked\r\n"
FRAMING = {
    "content length and chunked": f"POST /echo HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 3\r\n{CHUNKED}\r\n0\r\n\r\n",
    "chunked and content length": f"POST /echo HTTP/1.1\r\nHost: {HOST}\r\n{CHUNKED}Content-Length: 3\r\n\r\n0\r\n\r\n",
    "two content lengths": f"POST /echo HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "list of content lengths": f"POST /echo HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 3, 3\r\n\r\nabc",
    "signed content length": f"POST /echo HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: +3\r\n\r\nabc",
    "huge content length": f"POST /echo HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {'9' * 30}\r\n\r\nabc",
    "unknown transfer encoding": f"POST /echo HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "gzip, chunked": f"POST /echo HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": f"POST /echo HTTP/1.1\r\nHost: {HOST}\r\n{CHUNKED}{CHUNKED}\r\n0\r\n\r\n",
    "chunked with a control": f"POST /echo HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\x0b\r\n\r\n0\r\n\r\n",
    "space before the colon": f"POST /echo HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "folded line": f"POST /echo HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "chunked on HTTP/1.0": f"POST /echo HTTP/1.0\r\nHost: {HOST}\r\n{CHUNKED}\r\n0\r\n\r\n",
    "HTTP/0.9": "GET /hello\r\n",
    "HTTP/2 preface": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/1.2": f"GET /hello HTTP/1.2\r\nHost: {HOST}\r\n\r\n",
    "absolute URI": f"GET http://{HOST}/hello HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
    "authority form": f"CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
    "asterisk form": f"OPTIONS * HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
    "two slashes": f"GET //evil.example/ HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
    "fragment": f"GET /hello#top HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
    "broken escape": f"GET /hello%2 HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
    "two spaces": f"GET  /hello HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
    "lower-case method": f"get /hello HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
    "foreign host": "GET /hello HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    "host with user": f"GET /hello HTTP/1.1\r\nHost: a@{HOST}\r\n\r\n",
    "no host": "GET /hello HTTP/1.1\r\n\r\n",
    "no host on HTTP/1.0": "GET /hello HTTP/1.0\r\n\r\n",
    "two ranges": f"GET /hello HTTP/1.1\r\nHost: {HOST}\r\nRange: bytes=1-\r\nRange: bytes=2-\r\n\r\n",
    "two tags": f'GET /hello HTTP/1.1\r\nHost: {HOST}\r\nIf-Range: "a"\r\nIf-Range: "b"\r\n\r\n',
    "two hosts": f"GET /hello HTTP/1.1\r\nHost: {HOST}\r\nHost: {HOST}\r\n\r\n",
    "two authorizations": f"GET /hello HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: a\r\nauthorization: b\r\n\r\n",
    "bare LF": f"GET /hello HTTP/1.1\nHost: {HOST}\n\n",
    "bare LF in a field": f"GET /hello HTTP/1.1\r\nHost: {HOST}\r\nA: b\nC: d\r\n\r\n",
    "bare CR in a field": f"GET /hello HTTP/1.1\r\nHost: {HOST}\r\nA: b\rC: d\r\n\r\n",
    "NUL in a field": f"GET /hello HTTP/1.1\r\nHost: {HOST}\r\nA: \x00\r\n\r\n",
    "field without a name": f"GET /hello HTTP/1.1\r\nHost: {HOST}\r\n: x\r\n\r\n",
    "200 headers": f"GET /hello HTTP/1.1\r\nHost: {HOST}\r\n" + "A: b\r\n" * 200 + "\r\n",
    "huge request line": f"GET /{'a' * 100_000} HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
    "huge line without an end": "GET /" + "a" * 9000,
    "huge field": f"GET /hello HTTP/1.1\r\nHost: {HOST}\r\nA: {'a' * 9000}\r\n\r\n",
    "huge head": f"GET /hello HTTP/1.1\r\nHost: {HOST}\r\n" + f"A: {'a' * 4000}\r\n" * 20 + "\r\n",
    "websocket": f"GET /hello HTTP/1.1\r\nHost: {HOST}\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    "TLS on a plain port": "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n",
    "two empty lines": f"\r\n\r\nGET /hello HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
}


@pytest.mark.parametrize("data", FRAMING.values(), ids=FRAMING.keys())
async def test_bytes_that_can_be_read_in_two_ways_are_refused_and_the_connection_ends(
    server: RunningServer, data: str
) -> None:
    async with peer(server) as connected:
        await connected.send(data.encode("latin-1"))
        status, headers, body = await connected.answer()
        assert (status, headers["content-type"], headers["connection"]) == (400, "application/problem+json", "close")
        assert json.loads(body)["type"] == "urn:gateway:problem:malformed"
        await connected.send(request())
        assert await connected.reader.read() == b""
    await is_answered_in_time(server)


CHUNKS = {
    "long extension": b"5;" + b"x" * 100_000 + b"\r\nhello\r\n0\r\n\r\n",
    "extension without an end": b"5;" + b"x" * 200,
    "size is no number": b"zz\r\n",
    "negative size": b"-1\r\n",
    "size with 0x": b"0x5\r\nhello\r\n0\r\n\r\n",
    "nine digits": b"000000005\r\nhello\r\n0\r\n\r\n",
    "bare LF": b"5\nhello\n0\n\n",
    "longer than its size": b"3\r\nhello\r\n0\r\n\r\n",
    "trailer field": b"0\r\nContent-Length: 5\r\n\r\n",
    "a byte a chunk": b"1\r\nx\r\n" * 10_000,
    "endless": b"ffffffff\r\n" + b"x" * 400_000,
}


@pytest.mark.parametrize("body", CHUNKS.values(), ids=CHUNKS.keys())
async def test_a_chunked_body_that_breaks_the_rules_is_refused(server: RunningServer, body: bytes) -> None:
    async with peer(server) as connected:
        await connected.send(request("POST", "/echo", Transfer_Encoding="chunked"))
        await connected.send(body)
        status, headers, _ = await connected.answer()
        assert (status, headers["connection"]) == (413 if body.startswith(b"ffff") else 400, "close")
        assert await connected.closed_after() < 1


async def test_only_unframed_bytes_behind_a_request_are_never_a_second_request(server: RunningServer) -> None:
    async with peer(server) as connected:
        await connected.send(request("POST", "/echo", b"abc") + b"smuggled")
        assert (await connected.answer())[2] == b"3"
        assert await connected.closed_after() < 1


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "identity", "x"])
async def test_any_content_encoding_is_refused_whatever_it_holds(server: RunningServer, encoding: str) -> None:
    bomb = gzip.compress(bytes(50 * 2**20), compresslevel=1)
    status, headers, _ = await ask(server, request("POST", "/big", bomb[:100_000], Content_Encoding=encoding))
    assert (status, headers["content-type"]) == (415, "application/problem+json")


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(1, 40), max_size=40), st.binary(max_size=120), st.booleans())
def test_framing_is_the_same_however_the_bytes_are_cut(cuts: list[int], body: bytes, chunked: bool) -> None:
    if chunked:
        payload = b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in (body[:50], body[50:]) if p) + b"0\r\n\r\n"
        whole = request("POST", "/echo", Transfer_Encoding="chunked") + payload
    else:
        whole = request("POST", "/echo", body)
    framing, handed, left = Framing(HeadLimits(), frozenset({HOST})), b"", whole
    for cut in [*cuts, len(whole)]:
        piece, left = left[:cut], left[cut:]
        while piece:
            ready, piece = framing.take(piece)
            handed += ready
    assert (handed, framing.at_rest, framing.body_bytes) == (whole, True, len(body))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 60))
def test_any_bytes_are_framed_or_refused_and_never_crash(noise: bytes, keep: int) -> None:
    framing = Framing(HeadLimits(), frozenset({HOST}))
    left = request("POST", "/echo", Transfer_Encoding="chunked")[:keep] + noise
    with suppress(RefusedRequestError):
        while left:
            _, left = framing.take(left)


def test_a_host_with_a_port_is_allowed_exactly_and_a_name_with_any_port() -> None:
    def allows(host: str, *allowed: str) -> bool:
        try:
            Framing(HeadLimits(), frozenset(allowed)).take(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        except RefusedRequestError:
            return False
        return True

    assert allows("XA.example:8443", "xa.example")
    assert allows("xa.example:8443", "xa.example:8443")
    assert allows("[::1]:8443", "[::1]")
    assert not allows("xa.example:8444", "xa.example:8443")
    assert not allows("xa.example", "xa.example:8443")
    assert not allows("xa.example.evil", "xa.example")


# Deadlines


async def test_a_slow_head_is_cut_off(server: RunningServer) -> None:
    async with peer(server, ATTACKER) as connected:
        await connected.send(b"GET /hello HTTP/1.1\r\nHost: ")
        await is_answered_in_time(server)
        assert 0.2 < await connected.closed_after() < 1
    assert server.refusals == {"overdue: head": 1}


async def test_a_head_that_drips_byte_by_byte_is_cut_off(server: RunningServer) -> None:
    async with peer(server, ATTACKER) as connected:
        began = time.monotonic()
        await connected.drip(request(path="/hello?" + "a" * 500), 1)
        assert time.monotonic() - began < 1.5


async def test_a_connection_that_says_nothing_is_cut_off(server: RunningServer) -> None:
    async with peer(server, ATTACKER) as connected:
        assert 0.2 < await connected.closed_after() < 1


@pytest.mark.parametrize("alone", [False, True])
async def test_an_idle_connection_is_closed_after_its_time(
    server: RunningServer, alone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if alone:  # the sweep does it where aiohttp's own timer does not
        monkeypatch.setattr(connection.GuardedHandler, "_process_keepalive", lambda _self: None)
    async with peer(server, ATTACKER) as connected:
        await connected.send(request())
        await connected.answer()
        assert 0.4 < await connected.closed_after() < 1.5
    assert server.refusals == ({"overdue: idle": 1} if alone else {})


async def test_a_body_that_never_comes_is_cut_off(server: RunningServer) -> None:
    async with peer(server, ATTACKER) as connected:
        await connected.send(request("POST", "/big", Content_Length="1000000"))
        await is_answered_in_time(server)
        assert 0.2 < await connected.closed_after() < 1


async def test_a_body_that_drips_below_the_rate_is_cut_off(server: RunningServer) -> None:
    async with peer(server, ATTACKER) as connected:
        await connected.send(request("POST", "/big", Content_Length="1000000"))
        began = time.monotonic()
        await connected.drip(bytes(200), 1)
        assert time.monotonic() - began < 1.5


async def test_a_body_within_the_rate_ends_at_its_total_time(server: RunningServer) -> None:
    async with peer(server, ATTACKER) as connected:
        await connected.send(request("POST", "/big", Content_Length="1000000"))
        began = time.monotonic()
        await connected.drip(bytes(40_000), 200)
        assert 0.6 < time.monotonic() - began < 2.5


async def test_a_slow_handler_is_not_blamed_on_its_caller(server: RunningServer) -> None:
    status, _, body = await ask(server, request(path="/slow"))
    assert (status, body) == (200, b"done")


async def test_a_handler_that_reads_late_is_not_blamed_on_its_caller(server: RunningServer) -> None:
    async with peer(server) as connected:
        sending = asyncio.create_task(connected.send(request("POST", "/slow-reader", bytes(8_000_000))))
        assert (await connected.answer())[2] == b"8000000"
        await sending


async def test_an_answer_that_is_not_read_is_cut_off(server: RunningServer) -> None:
    async with peer(server, ATTACKER) as connected:
        await connected.send(request(path="/flood"))
        for _ in range(40):
            await asyncio.sleep(0.05)
            if not server.connections:
                break
        assert server.connections == 0
        assert server.refusals == {"overdue: answer not read": 1}


async def test_an_answer_that_is_read_slowly_but_steadily_is_not_cut_off(server: RunningServer) -> None:
    async with peer(server) as connected:
        await connected.send(request(path="/flood", Connection="close"))
        read, began = 0, time.monotonic()
        while piece := await connected.reader.read(400_000):
            read += len(piece)
            await asyncio.sleep(0.02)
        assert read > 16 * 2**20
        assert time.monotonic() - began > 0.6


async def test_good_callers_are_answered_in_time_while_every_slow_trick_runs_at_once(server: RunningServer) -> None:
    openings = [b"", b"GET /he", request("POST", "/big", Content_Length="999999"), request(path="/flood")]
    attackers = [await asyncio.open_connection("127.0.0.1", server.port, local_addr=ATTACKER) for _ in range(20)]
    for number, (_, writer) in enumerate(attackers):
        writer.write(openings[number % len(openings)])
    for _ in range(10):
        await is_answered_in_time(server)
        await asyncio.sleep(0.02)
    for reader, writer in attackers:
        await Peer(reader, writer).closed_after()
        writer.close()


# Places and rates


async def test_one_address_cannot_take_more_than_its_places_and_gives_them_back(server: RunningServer) -> None:
    async def opened() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", server.port, local_addr=ATTACKER)

    held = [await opened() for _ in range(QUICK.max_connections_per_address)]
    await asyncio.sleep(0.05)
    reader, writer = await opened()
    assert await asyncio.wait_for(reader.read(), 1) == b""
    writer.close()
    await is_answered_in_time(server)
    for _, other in held:
        other.close()
    await asyncio.sleep(0.1)
    async with peer(server, ATTACKER) as connected:
        await connected.send(request())
        assert (await connected.answer())[0] == 200
    assert server.refusals["no place for another connection"] == 1


async def test_all_addresses_together_cannot_take_more_than_all_places() -> None:
    async with serving(replace(QUICK, max_connections=3)) as server:
        held = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(3)]
        async with peer(server) as connected:
            assert await connected.closed_after() < 0.2
        assert server.connections == 3
        for reader, writer in held:
            await Peer(reader, writer).closed_after()
            writer.close()
        await is_answered_in_time(server)


async def test_too_many_requests_from_one_address_get_429_with_retry_after() -> None:
    now = 0.0
    limits = replace(QUICK, requests_per_second_per_address=0.5, request_burst_per_address=2)
    async with serving(limits, clock=lambda: now) as server:
        assert [(await ask(server, request()))[0] for _ in range(2)] == [200, 200]
        status, headers, body = await ask(server, request())
        assert (status, headers["retry-after"], json.loads(body)["retry_after"]) == (429, "2", 2)
        now = 2.0
        assert (await ask(server, request()))[0] == 200


async def test_too_many_requests_at_once_get_503_with_retry_after() -> None:
    async with serving(replace(QUICK, max_requests_at_once=1)) as server, peer(server) as connected:
        await connected.send(request(path="/slow"))
        await asyncio.sleep(0.05)
        status, headers, _ = await ask(server, request())
        assert (status, headers["retry-after"]) == (503, "1")
        assert (await connected.answer())[0] == 200
        assert (await ask(server, request()))[0] == 200


def test_a_partner_has_its_own_bucket_and_its_own_places() -> None:
    now = 0.0
    limiter = RateLimiter(per_second=1, burst=2, at_once=1, clock=lambda: now)
    with limiter.admit("XB-NCVI"):
        with pytest.raises(OverloadedError), limiter.admit("XB-NCVI"):
            pass
        with limiter.admit("XC-NCVI"):
            pass
    with limiter.admit("XB-NCVI"):
        pass
    with pytest.raises(RateLimitedError) as refused, limiter.admit("XB-NCVI"):
        pass
    assert refused.value.retry_after_seconds == 1
    now = 1.0
    with limiter.admit("XB-NCVI"):
        pass


def test_buckets_do_not_grow_with_the_number_of_addresses() -> None:
    limiter = RateLimiter(per_second=1, burst=2, at_once=1, clock=lambda: 0.0)
    for number in range(MAX_CALLERS + 500):
        with limiter.admit(str(number)):
            pass
    assert len(limiter._buckets) == MAX_CALLERS


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_an_ipv6_site_counts_as_one_address(address: str, source: str) -> None:
    assert source_of(address) == source


def test_a_place_left_twice_is_left_once() -> None:
    places = Places(replace(QUICK, max_connections=2))
    first, second = places.take("a"), places.take("a")
    assert first
    assert second
    assert places.take("a") is None
    first.leave()
    first.leave()
    assert places.taken.total() == 1


# Bodies and answers


async def test_a_body_larger_than_its_route_takes_is_refused_up_front(server: RunningServer) -> None:
    async with peer(server) as connected:
        await connected.send(request("POST", "/echo", Content_Length="200001"))
        status, _, body = await connected.answer()
        assert (status, json.loads(body)["type"]) == (413, "urn:gateway:problem:too-large")


async def test_a_route_without_a_bound_of_its_own_takes_the_default_and_no_more() -> None:
    async with serving(replace(QUICK, default_body_bytes=10)) as server:
        assert (await ask(server, request("GET", "/hello", b"x" * 10)))[0] == 200
        assert (await ask(server, request("GET", "/hello", b"x" * 11)))[0] == 413
        chunked = request("GET", "/hello", Transfer_Encoding="chunked") + b"b\r\nhello world\r\n0\r\n\r\n"
        assert (await ask(server, chunked))[0] == 413


async def test_a_body_that_outgrows_its_route_under_way_is_refused(server: RunningServer) -> None:
    async with peer(server) as connected:
        await connected.send(request("POST", "/echo", Transfer_Encoding="chunked"))
        for _ in range(6):
            await asyncio.sleep(0.01)
            await connected.send(b"a000\r\n" + bytes(0xA000) + b"\r\n")
        status, headers, _ = await connected.answer()
        assert (status, headers["connection"]) == (413, "close")


async def test_a_large_route_wants_the_length_up_front(server: RunningServer) -> None:
    data = request("POST", "/big", Transfer_Encoding="chunked") + b"0\r\n\r\n"
    status, headers, _ = await ask(server, data)
    assert (status, headers["content-type"]) == (411, "application/problem+json")


async def test_an_early_answer_reaches_a_caller_that_is_still_sending(server: RunningServer) -> None:
    async with peer(server) as connected:
        await connected.send(request("POST", "/echo", Content_Length="9000000") + bytes(600_000))
        assert (await connected.answer())[0] == 413
        assert await connected.closed_after() < 1


@pytest.mark.parametrize(
    ("path", "method", "status"), [("/none", "GET", 404), ("/hello", "DELETE", 405), ("/denied", "GET", 403)]
)
async def test_every_refusal_is_a_problem(server: RunningServer, path: str, method: str, status: int) -> None:
    answered, headers, body = await ask(server, request(method, path))
    assert (answered, json.loads(body)["status"], headers["content-type"]) == (
        status,
        status,
        "application/problem+json",
    )
    assert headers.get("allow", "GET,HEAD") == "GET,HEAD"


async def test_a_caller_that_did_not_prove_itself_is_challenged(server: RunningServer) -> None:
    status, headers, _ = await ask(server, request(path="/unauthenticated"))
    assert (status, headers["www-authenticate"]) == (401, 'DPoP algs="Ed25519 EdDSA ES256"')


async def test_a_redirect_stays_a_redirect(server: RunningServer) -> None:
    status, headers, _ = await ask(server, request(path="/elsewhere"))
    assert (status, headers["location"]) == (302, "/hello")


async def test_an_unknown_expectation_is_a_problem(server: RunningServer) -> None:
    assert (await ask(server, request(Expect="the unexpected")))[0] == 417


async def test_a_bug_is_a_bare_500_and_its_id_stands_in_the_log(
    server: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gateway")
    status, _, body = await ask(server, request(path="/bug"))
    lines = [json.loads(JsonLines().format(record)) for record in caplog.records]
    (line,) = [line for line in lines if line["message"] == "bug"]
    assert (status, b"4711" in body, b"secret" in body) == (500, False, False)
    assert json.loads(body)["instance"] == f"urn:gateway:error:{line['error_id']}"
    assert (line["error"], line["route"]) == ("ValueError", "/bug")
    assert "bug:" in line["trace"]
    assert "4711" not in json.dumps(lines)


async def test_an_answer_that_fails_half_way_is_broken_off(server: RunningServer) -> None:
    async with peer(server) as connected:
        await connected.send(request(path="/half"))
        received = await asyncio.wait_for(connected.reader.read(), 3)
    assert b"half" in received
    assert not received.endswith(b"0\r\n\r\n")  # the chunked body has no end: the caller sees the break
    assert received.count(b"HTTP/1.1") == 1


async def test_the_log_names_the_route_and_never_the_path(
    server: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await ask(server, request(path="/cases/XA-4711?secret=1"))
    await ask(server, request(path="/nothing/XA-4711"))
    text = "\n".join(JsonLines().format(record) for record in caplog.records)
    assert '"route": "/cases/{reference}"' in text
    assert "4711" not in text
    assert "secret" not in text


# Start-up


async def test_the_guards_of_a_fresh_handler_hold(server: RunningServer) -> None:
    manager = server._runner.server
    assert manager is not None
    await verify_guards(new_handler(manager, QUICK), QUICK)


async def test_a_misspelt_setting_that_aiohttp_drops_in_silence_is_found_at_start() -> None:
    async def answer(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response()

    settings = {"keepalive_timeout": QUICK.idle_seconds, "auto_decompres": False}
    dropped = web.Server(answer, **settings)()
    with pytest.raises(ConfigError, match="keepalive_timeout"):
        await verify_guards(dropped, QUICK)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"auto_decompress": True, "max_headers": 64}, "unpacks"),
        ({"auto_decompress": False, "max_headers": 128}, "max_headers"),
        ({"auto_decompress": False, "max_headers": 64}, "without their guard"),
    ],
)
async def test_a_handler_without_one_of_its_guards_is_found_at_start(settings: dict[str, int], complaint: str) -> None:
    async def answer(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response()

    line = QUICK.head.max_line_bytes
    common = {"keepalive_timeout": QUICK.idle_seconds, "max_line_size": line, "max_field_size": line}
    with pytest.raises(ConfigError, match=complaint):
        await verify_guards(web.Server(answer, **common, **settings)(), QUICK)


async def test_a_server_whose_library_refuses_a_setting_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    class Renamed(connection.GuardedHandler):
        def __init__(self, manager: web.Server, shared: Shared, place: connection.Place) -> None:
            web.RequestHandler.__init__(self, manager, loop=asyncio.get_running_loop(), auto_decompres=False)  # type: ignore[call-arg]

    monkeypatch.setattr(connection, "GuardedHandler", Renamed)
    with pytest.raises(ConfigError, match="refuses the settings"):
        await start()


async def start(**changes: object) -> RunningServer:
    wanted: dict[str, object] = {
        "host": "127.0.0.1",
        "port": 0,
        "ssl_context": None,
        "limits": QUICK,
        "allowed_hosts": [HOST],
    }
    starter: Callable[..., Awaitable[RunningServer]] = run_server
    return await starter(make_app(), **(wanted | changes))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"host": "0.0.0.0"}, "plain HTTP"),
        ({"host": "::"}, "plain HTTP"),
        ({"allowed_hosts": []}, "no host name"),
        ({"host": "192.0.2.1", "ssl_context": ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)}, "cannot be bound"),
        ({"limits": replace(QUICK, max_connections=0)}, "no connection"),
    ],
)
async def test_a_server_that_could_not_be_guarded_does_not_start(changes: dict[str, object], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        await start(**changes)


async def test_an_application_that_has_started_cannot_be_guarded_any_more() -> None:
    app = make_app()
    app.freeze()
    with pytest.raises(ConfigError, match="already been started"):
        await run_server(app, host="127.0.0.1", port=0, ssl_context=None, limits=QUICK, allowed_hosts=[HOST])


async def test_a_server_that_closes_lets_a_running_request_end() -> None:
    server = await run_server(
        make_app(),
        host="127.0.0.1",
        port=0,
        ssl_context=None,
        limits=replace(QUICK, shutdown_seconds=2),
        allowed_hosts=[HOST],
    )
    async with peer(server) as connected:
        await connected.send(request(path="/slow"))
        await asyncio.sleep(0.1)
        closing = asyncio.create_task(server.close())
        assert (await connected.answer())[2] == b"done"
        await closing
    with pytest.raises(ConnectionError):
        await asyncio.open_connection("127.0.0.1", server.port)


async def test_a_server_whose_sweep_fails_stops_accepting(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_self: object, _now: float) -> None:
        raise RuntimeError("broken")

    async with peer(server):
        monkeypatch.setattr(connection.GuardedHandler, "sweep", fail)
        await asyncio.sleep(0.3)
    assert "stopped accepting" in caplog.text
    async with peer(server) as connected:
        await connected.send(request())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(connected.reader.read(1), 0.3)


# TLS


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    folder: Path = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, HOST)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ) + certificate.public_bytes(serialization.Encoding.PEM)
    (folder / "both.pem").write_bytes(pem)
    serving_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving_side.load_cert_chain(folder / "both.pem")
    asking_side = ssl.create_default_context(cadata=certificate.public_bytes(serialization.Encoding.PEM).decode())
    return serving_side, asking_side


async def test_tls_is_served_with_transport_security_and_the_same_guards(
    tls: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    async with serving(tls=tls[0]) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=tls[1])
        connected = Peer(reader, writer)
        await connected.send(request())
        status, headers, _ = await connected.answer()
        assert (status, "strict-transport-security" in headers) == (200, True)
        await connected.send(b"GET http://evil.example/ HTTP/1.1\r\n\r\n")
        assert (await connected.answer())[0] == 400
        assert await connected.closed_after() < 1.5
        writer.close()


async def test_a_handshake_that_never_ends_takes_a_place_and_loses_it(
    tls: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    async with serving(tls=tls[0]) as server, peer(server) as connected:
        await asyncio.sleep(0.05)
        assert server.connections == 1
        assert await connected.closed_after() < 1.5
        await asyncio.sleep(0.05)
        assert (server.connections, server.refusals) == (0, {"no TLS handshake": 1})


async def test_an_answer_over_tls_that_is_not_read_is_cut_off(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    async with serving(tls=tls[0]) as server:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=tls[1])
        writer.write(request(path="/flood"))
        for _ in range(60):
            await asyncio.sleep(0.05)
            if "overdue: answer not read" in server.refusals:
                break
        assert server.refusals == {"overdue: answer not read": 1}
        writer.transport.abort()


# Log lines


def line(message: str, *args: object, logger: str = "gateway.http", **extra: object) -> dict[str, object]:
    record = logging.LogRecord(logger, logging.INFO, __file__, 1, message, args, None)
    record.__dict__.update(extra)
    text = JsonLines().format(record)
    assert text.isascii()
    assert "\n" not in text
    loaded: dict[str, object] = json.loads(text)
    return loaded


@pytest.mark.parametrize("evil", ["a\nb", "a\r\n{}", "\x1b[2J", "\u202etxt", "\u2028", "\x7f", "\ud800", "\u2066x"])
def test_what_could_forge_or_turn_a_line_is_made_visible(evil: str) -> None:
    written = line("%s", evil, **fields(who=evil))
    for value in (written["message"], written["who"]):
        assert isinstance(value, str)
        assert value.isprintable()
        assert "\\u" in value


def test_a_long_text_is_cut_and_its_own_names_cannot_be_overwritten() -> None:
    written = line("x" * 10_000, **fields(message="forged", level="forged", note="y" * 10_000))
    assert (len(str(written["message"])), written["level"], len(str(written["note"]))) == (512, "INFO", 512)


def test_a_foreign_logger_loses_its_values() -> None:
    written = line("failed at %s", "/cases/XA-4711", logger="asyncio")
    assert written["message"] == "failed at %s (values left out)"


def test_an_exception_is_written_without_its_message() -> None:
    try:
        try:
            raise KeyError("reference 4711")
        except KeyError as cause:
            raise ValueError("reference 4711") from cause
    except ValueError as error:
        record = logging.LogRecord("gateway", logging.ERROR, __file__, 1, "x", (), (type(error), error, None))
        text = JsonLines().format(record)
    assert "4711" not in text
    assert (json.loads(text)["error"], json.loads(text)["cause"]) == ("ValueError", "KeyError")
