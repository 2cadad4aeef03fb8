"""One connection: only framed requests, one at a time, within every deadline.

`GuardedHandler` is aiohttp's protocol with a guard before it. Bytes go through `Framing` first; a head that breaks the
rules is answered here and never reaches aiohttp. Pipelined bytes wait until the request before them is answered.
`sweep` closes what is overdue:

| the connection                          | ends after                                                      |
|-----------------------------------------|-----------------------------------------------------------------|
| head, from connecting or its first byte | `head_seconds`                                                  |
| body                                    | `body_grace_seconds` with less than `min_bytes_per_second`      |
| body in all                             | `body_total_seconds`                                            |
| idle between requests                   | `idle_seconds`                                                  |
| answer                                  | `answer_grace_seconds` with less than `min_bytes_per_second`    |
| refused or closed                       | `linger_seconds`, twice that at most                            |

Only time in which we wait for the peer counts: while a handler works, or has not yet read what is there, the clock of
the body stands still.

A setting that aiohttp does not know would be dropped together with all the others and no more than a warning
(`web.Server.__call__`). So handlers are built here, and `verify_guards` tries a live one before the server listens.
"""

from __future__ import annotations

import asyncio
import gzip
import logging
import math
import socket
import struct
from collections import Counter
from dataclasses import dataclass, field

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger
from aiohttp.streams import StreamReader

from gateway.doors.answers import SECURITY_HEADERS, problem_response, raw_refusal
from gateway.doors.framing import Framing, RefusedRequestError
from gateway.doors.limits import Place, Places, ServerLimits
from gateway.doors.loglines import failure, fields
from gateway.errors import ConfigError, GatewayError, MalformedError, TooLargeError

LOG = logging.getLogger("gateway.http")

READ_BUFFER_BYTES = 65_536  # aiohttp stops reading a connection at twice this
MAX_HELD_BYTES = 65_536  # pipelined behind a request that is being answered; a client that sends more is cut off
MAX_DISCARDED_BYTES = 4 * 2**20  # read after a refusal, so that the answer is not lost to a reset (RFC 9112 9.6)


@dataclass(slots=True)
class Shared:
    """What the connections of one server have in common."""

    limits: ServerLimits
    hosts: frozenset[str]
    places: Places = field(init=False)
    connections: set[GuardedHandler] = field(default_factory=set)
    refusals: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.places = Places(self.limits)

    def refuse(self, reason: str) -> None:
        self.refusals[reason] += 1


class _NoAccessLog(AbstractAccessLogger):
    """aiohttp's own access log writes whole paths; the middleware writes route templates instead."""

    @property
    def enabled(self) -> bool:
        return False

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        """Never called: `enabled` is False."""


class GuardedHandler(web.RequestHandler):
    """One connection. aiohttp sees its bytes only after `Framing` has, and one request at a time."""

    def __init__(self, manager: web.Server, shared: Shared, place: Place) -> None:
        limits = shared.limits
        super().__init__(
            manager,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=limits.idle_seconds,
            logger=LOG,
            access_log_class=_NoAccessLog,
            max_line_size=limits.head.max_line_bytes,
            max_field_size=limits.head.max_line_bytes,
            max_headers=limits.head.max_headers,
            lingering_time=limits.linger_seconds,
            read_bufsize=READ_BUFFER_BYTES,
            auto_decompress=False,
        )
        self._shared = shared
        self._limits = limits
        self._place = place
        self._framing = Framing(limits.head, shared.hosts)
        self._wire: asyncio.Transport | None = None
        self._gone = asyncio.Event()
        self._answering = False
        self._requests = 0
        self._held = b""  # pipelined bytes, until the present request is answered
        self._content: StreamReader | None = None
        self._body_limit: int | None = None
        self._refusal: GatewayError | None = None
        self._discarded = 0
        self._watched: tuple[str, int] = ("", 0)
        self._waited = 0.0  # for the peer, since enough has moved
        self._waited_in_all = 0.0  # for the peer, in the present state
        self._moved_before = 0  # bytes, when `_waited` began
        self._swept = asyncio.get_running_loop().time()

    # What the transport tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):
            self._wire = transport
        self._shared.connections.add(self)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._gone.set()
        self._shared.connections.discard(self)
        self._place.leave()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not data:  # aiohttp asks its parser to go on
            super().data_received(data)
        elif self._refusal is not None:
            self._discarded += len(data)
            if self._discarded > MAX_DISCARDED_BYTES:
                self._abort("sends on after a refusal")
        else:
            self._feed(data)

    def _feed(self, data: bytes) -> None:
        while data:
            if self._answering and not self._framing.in_body:
                self._hold(data)
                return
            try:
                ready, data = self._framing.take(data)
            except RefusedRequestError as error:
                self._refuse(error)
                return
            if self._framing.requests != self._requests:
                self._requests = self._framing.requests
                self._answering, self._content, self._body_limit = True, None, None
            if self._body_limit is not None and self._framing.body_bytes > self._body_limit:
                self._fail_body(TooLargeError("the body is larger than this address takes"))
                return
            if ready:
                super().data_received(ready)

    def _hold(self, data: bytes) -> None:
        self._held += data[: MAX_HELD_BYTES + 1 - len(self._held)]

    # Refusals

    def _refuse(self, error: RefusedRequestError) -> None:
        """Answer a head that breaks the rules; within a body, let the handler's reading fail instead."""
        self._shared.refuse(error.message)
        if self._framing.in_body:
            self._fail_body(error)
            return
        # Nothing is being answered now, so these bytes cannot fall into another answer.
        self._refusal = error
        if self._wire is not None:
            self._wire.write(raw_refusal(error))
            self._half_close()

    def _fail_body(self, error: GatewayError) -> None:
        self._refusal = error
        if self._content is not None:
            self._content.set_exception(error)
        if self._wire is not None:
            self._wire.resume_reading()  # what follows is read and dropped

    def _half_close(self) -> None:
        # RFC 9112 9.6: close in stages, or the reset for unread bytes may destroy the answer on its way.
        if self._wire is not None and not self._wire.is_closing() and self._wire.can_write_eof():
            self._wire.write_eof()

    def begin(self, content: StreamReader | None, body_limit: int) -> None:
        """The guard has found the route: from here on its body bound holds.

        Raises:
            TooLargeError, MalformedError: what has come so far is already refused.
        """
        self._content, self._body_limit = content, body_limit
        if self._refusal is None and self._framing.body_bytes > body_limit:
            self._fail_body(TooLargeError("the body is larger than this address takes"))
        elif self._refusal is not None and content is not None:
            content.set_exception(self._refusal)
        if self._refusal is not None:
            raise self._refusal

    # What aiohttp tells

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        if self._refusal is not None:
            resp.force_close()
        resp, reset = await super().finish_response(request, resp, start_time)
        self._answering, self._content = False, None
        if self._refusal is not None:
            await self._linger()
            return resp, True
        held, self._held = self._held, b""
        if len(held) > MAX_HELD_BYTES:
            return resp, True
        if held and resp.keep_alive and not reset:
            self._feed(held)
        return resp, reset

    async def _linger(self) -> None:
        self._half_close()
        try:
            await asyncio.wait_for(self._gone.wait(), self._limits.linger_seconds)
        except TimeoutError:
            return

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002  (aiohttp's signature; its text may quote the request)
    ) -> web.StreamResponse:
        """The answer where aiohttp itself fails: what its parser refuses, and what escapes the middleware."""
        is_ours = status >= 500
        if exc is not None and is_ours and not isinstance(exc, ConnectionError):
            LOG.error("answer failed", extra=fields(**failure(exc)))
        if request.writer.output_size > 0:
            raise ConnectionResetError("half an answer is sent")  # aiohttp closes the connection
        response = problem_response(exc if exc and is_ours else MalformedError("the request is malformed"))
        response.headers.update(SECURITY_HEADERS)
        response.force_close()
        return response

    def log_exception(self, *args: object, **kw: object) -> None:  # noqa: ARG002  (its text may quote the request)
        """Where aiohttp would write a whole stack trace with its values, write class and places."""
        error = kw.get("exc_info")
        LOG.error("connection failed", extra=fields(**failure(error)) if isinstance(error, BaseException) else None)

    # Deadlines

    def sweep(self, now: float) -> None:
        """Close the connection if it is overdue. Called every `sweep_seconds` with the loop's time."""
        passed, self._swept = now - self._swept, now
        wire = self._wire
        if wire is None:
            return
        outgoing = _outgoing(wire)
        state = self._state(wire, outgoing)
        moved = self._framing.body_bytes if state == "body" else outgoing.read
        if (state, self._requests) != self._watched:
            self._watched = (state, self._requests)
            self._waited, self._waited_in_all, self._moved_before = 0.0, 0.0, moved
            return
        if state != "body" or wire.is_reading():
            self._waited += passed
            self._waited_in_all += passed
        if self._overdue(state, moved):
            self._abort(f"overdue: {state}")

    def _state(self, wire: asyncio.Transport, outgoing: _Outgoing) -> str:
        if self._refusal is not None:
            return "refused"
        if self._framing.in_body and not wire.is_closing():
            return "body"
        if outgoing.is_pending:
            return "answer not read"
        if wire.is_closing():
            return "closing"
        if self._answering:
            return "answering"
        return "idle" if self._requests and self._framing.at_rest else "head"

    def _overdue(self, state: str, moved: int) -> bool:
        limits = self._limits
        seconds = {
            "body": limits.body_grace_seconds,
            "answer not read": limits.answer_grace_seconds,
            "refused": limits.linger_seconds * 2,  # `_linger` ends first; this is for heads and handlers that hang
            "closing": limits.linger_seconds,
            "idle": limits.idle_seconds,
            "head": limits.head_seconds,
        }.get(state, math.inf)
        # Each span of grace must move what the rate asks of it: haste at the beginning buys no rest later.
        if state in ("body", "answer not read") and moved - self._moved_before >= seconds * limits.min_bytes_per_second:
            self._waited, self._moved_before = 0.0, moved
        return self._waited > seconds or (state == "body" and self._waited_in_all > limits.body_total_seconds)

    def _abort(self, reason: str) -> None:
        self._shared.refuse(reason)
        if self._wire is not None:
            self._wire.abort()


@dataclass(frozen=True, slots=True)
class _Outgoing:
    """What is on its way to the peer: whether anything is, and how many bytes it has taken since connecting."""

    is_pending: bool
    read: int


# struct tcp_info of Linux, which only ever grows at its end: tcpi_unacked, tcpi_bytes_acked, tcpi_notsent_bytes.
_TCP_INFO = struct.Struct("=24xI92xQ16xI")


def _outgoing(wire: asyncio.Transport) -> _Outgoing:
    """Asked of the kernel: the buffers of a TLS transport do not show what still waits below them."""
    peer = wire.get_extra_info("socket")
    option = getattr(socket, "TCP_INFO", None)
    if peer is None or option is None:
        return _Outgoing(wire.get_write_buffer_size() > 0, 0)
    try:
        unacked, read, unsent = _TCP_INFO.unpack(peer.getsockopt(socket.IPPROTO_TCP, option, _TCP_INFO.size))
    except (OSError, struct.error):  # closed meanwhile, or a kernel without these members
        return _Outgoing(wire.get_write_buffer_size() > 0, 0)
    return _Outgoing(bool(unacked or unsent), read)


def new_handler(server: web.Server, limits: ServerLimits) -> GuardedHandler:
    """A handler as connections get it, without one, for `verify_guards`.

    Raises:
        ConfigError: the HTTP library does not know one of our settings, or no connection is allowed.
    """
    shared = Shared(limits, frozenset())
    place = shared.places.take("start-up check")
    if place is None:
        raise ConfigError("no connection is allowed", remedy="raise max_connections")
    try:
        return GuardedHandler(server, shared, place)
    except TypeError as error:
        raise ConfigError("the HTTP library refuses the settings of the guards") from error


async def verify_guards(handler: web.RequestHandler, limits: ServerLimits) -> None:
    """Show on a live handler that the settings took effect and that the guard stands before aiohttp's parser.

    Raises:
        ConfigError: it would serve without a guard. The handler is spent either way.
    """
    wanted = {
        "keepalive_timeout": limits.idle_seconds,
        "max_line_size": limits.head.max_line_bytes,
        "max_field_size": limits.head.max_line_bytes,
        "max_headers": limits.head.max_headers,
    }
    for name, value in wanted.items():
        if getattr(handler, name, None) != value:
            raise ConfigError(f"the HTTP library dropped our settings: {name} is not what was set")
    if await _unpacks(handler):
        raise ConfigError("the HTTP library dropped our settings: it unpacks compressed bodies")
    if not await _refuses_foreign_target(handler):
        raise ConfigError("connections would be served without their guard")


# The start-up probe


class _Recorder(asyncio.Transport):
    """A transport without a network, which keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def can_write_eof(self) -> bool:
        return False

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        """There is nothing to close."""

    def pause_reading(self) -> None:
        """There is nothing to read."""

    def resume_reading(self) -> None:
        """There is nothing to read."""


async def _unpacks(handler: web.RequestHandler) -> bool:
    """Whether the handler's parser hands on the unpacked form of a compressed body."""
    body = gzip.compress(bytes(4096), mtime=0)
    head = f"POST / HTTP/1.1\r\nHost: probe\r\nContent-Encoding: gzip\r\nContent-Length: {len(body)}\r\n\r\n"
    parser = handler._parser
    if parser is None:
        return True
    messages, _upgraded, _tail = parser.feed_data(head.encode() + body)
    return not messages or messages[0][1].total_bytes != len(body)


async def _refuses_foreign_target(handler: web.RequestHandler) -> bool:
    wire = _Recorder()
    handler.connection_made(wire)
    await asyncio.sleep(0)  # aiohttp's task for the connection starts
    handler.data_received(b"GET http://elsewhere.example/ HTTP/1.1\r\nHost: elsewhere.example\r\n\r\n")
    handler.connection_lost(None)
    await asyncio.sleep(0)
    return wire.written.startswith(b"HTTP/1.1 400 ")
