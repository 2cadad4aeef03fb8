"""The server behind every door: what a hostile network may cost us, and what it gets to hear.

aiohttp has no read deadline, no rate and no cap of its own, takes absolute URIs and unpacks what is compressed. So
`run_server` accepts connections itself and gives each a `GuardedHandler` (`connection`), which lets only framed
requests (`framing`) through. Places are counted when a socket is accepted, before any TLS handshake.

For requests the guard is the outermost middleware: the body bound of the route (`accepts`), a length up front where the
route wants one (411), requests per address and at once (429, 503 with Retry-After), errors as problems, and a bug as a
bare 500 whose random id stands in the log. Every answer says no-store and nosniff unless its door says otherwise; none
names the software. A door that knows its caller admits it through a `RateLimiter` of its own:

    @accepts(1024**3, length_required=True)
    async def post_envelope(self, request: web.Request) -> web.Response:
        partner = await self.authenticate(request)
        with self.limiter.admit(partner.agency):
            async for piece in request.content.iter_chunked(PIECE_BYTES): ...
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ssl import SSLContext
from typing import TypeVar

from aiohttp import web

from gateway.crypto.keys import random_bytes
from gateway.doors.answers import SECURITY_HEADERS, problem_response, restate
from gateway.doors.connection import GuardedHandler, Shared, new_handler, verify_guards
from gateway.doors.limits import Place, RateLimiter, ServerLimits, source_of
from gateway.doors.loglines import failure, fields
from gateway.errors import ConfigError, GatewayError, MalformedError, OverloadedError, TooLargeError

__all__ = ["RateLimiter", "RunningServer", "ServerLimits", "accepts", "read_body", "run_server"]
from gateway.problems import PROBLEM_TYPE

LOG = logging.getLogger("gateway.http")

BACKLOG = 128  # connections that the kernel may hold for us
HSTS = "max-age=63072000"  # two years
_BODY_RULE = "gateway_body_rule"
_WORDING = "gateway_wording"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Wording = Callable[[web.Response], web.Response]
HandlerT = TypeVar("HandlerT", bound=Callable[..., Awaitable[web.StreamResponse]])


@dataclass(frozen=True, slots=True)
class _BodyRule:
    max_bytes: int
    length_required: bool


def accepts(max_bytes: int, *, length_required: bool = False) -> Callable[[HandlerT], HandlerT]:
    """Marks a handler: its body may have `max_bytes`; with `length_required` it must say its length up front (411).

    Without this mark a body may have `ServerLimits.default_body_bytes`. The bound holds however the handler reads.
    """

    def mark(handler: HandlerT) -> HandlerT:
        setattr(handler, _BODY_RULE, _BodyRule(max_bytes, length_required))
        return handler

    return mark


def words_refusals(wording: Wording) -> Callable[[HandlerT], HandlerT]:
    """Marks a handler: a problem that would be its answer is worded so, also where it was not asked at all."""

    def mark(handler: HandlerT) -> HandlerT:
        setattr(handler, _WORDING, wording)
        return handler

    return mark


async def read_body(request: web.Request) -> bytes:
    """The whole body, within the bound of its route.

    Raises:
        TooLargeError, MalformedError: the bound is passed, or the framing breaks off.
    """
    return b"".join([piece async for piece in request.content.iter_any()])


async def run_server(
    app: web.Application,
    *,
    host: str,
    port: int,
    ssl_context: SSLContext | None,
    limits: ServerLimits,
    allowed_hosts: Iterable[str],
    clock: Callable[[], float] = time.monotonic,
) -> RunningServer:
    """Serve the application behind all guards.

    Args:
        app: not yet started; the guard becomes its first middleware.
        host: name or address to bind; without TLS it must be loopback.
        port: 0 for any free one.
        ssl_context: None for plain HTTP.
        allowed_hosts: what `Host` may say: "name" with any port, or "name:port" exactly.
        clock: monotonic seconds, for the rate limits.

    Raises:
        ConfigError: no host allowed, plain HTTP on a public address, the address cannot be bound, or the guards did
            not take effect.
    """
    hosts = frozenset(name.lower() for name in allowed_hosts)
    if not hosts:
        raise ConfigError("no host name is allowed: every request would be refused", remedy="set allowed_hosts")
    listeners = await _bind(host, port, plain=ssl_context is None)
    shared = Shared(limits, hosts)
    _install(app, _Guard(shared, clock), tls=ssl_context is not None)
    runner = web.AppRunner(app, shutdown_timeout=limits.shutdown_seconds)
    try:
        await runner.setup()
        if runner.server is None:
            raise ConfigError("the HTTP library made no server")
        await verify_guards(new_handler(runner.server, limits), limits)
    except BaseException:
        for listener in listeners:
            listener.close()
        await runner.cleanup()
        raise
    return RunningServer(runner, shared, listeners, ssl_context)


class RunningServer:
    """A server that listens; `port` is the one it really has. Made by `run_server`."""

    def __init__(self, runner: web.AppRunner, shared: Shared, listeners: list[socket.socket], ssl: SSLContext | None):
        self._runner = runner
        self._shared = shared
        self._listeners = listeners
        self._ssl = ssl
        self._loop = asyncio.get_running_loop()
        self._welcomes: set[asyncio.Task[None]] = set()
        self._tasks = [asyncio.create_task(self._accept(listener)) for listener in listeners]
        self._tasks.append(asyncio.create_task(self._sweep()))
        for task in self._tasks:
            task.add_done_callback(self._fell)
        self.port: int = listeners[0].getsockname()[1]

    @property
    def connections(self) -> int:
        """How many connections are open, handshakes included."""
        return self._shared.places.taken.total()

    @property
    def refusals(self) -> dict[str, int]:
        """How often each guard said no since the start."""
        return dict(self._shared.refusals)

    async def close(self) -> None:
        """Stop accepting, let running requests end within `shutdown_seconds`, close what is left."""
        await _end(self._tasks)
        for listener in self._listeners:
            listener.close()
        await _end(self._welcomes)
        await self._runner.cleanup()
        for connection in list(self._shared.connections):
            connection.force_close()

    def _fell(self, task: asyncio.Task[None]) -> None:
        """Without its sweep the server has no deadlines: take no one in rather than everyone for ever."""
        error = None if task.cancelled() else task.exception()
        if error is not None:
            LOG.critical("the server has stopped accepting", extra=fields(**failure(error)))
            for other in self._tasks:
                other.cancel()

    async def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                peer, address = await self._loop.sock_accept(listener)
            except OSError:  # out of descriptors, or the peer is gone again: neither ends the server
                await asyncio.sleep(self._shared.limits.sweep_seconds)
                continue
            place = self._shared.places.take(source_of(address[0]))
            if place is None:
                self._shared.refuse("no place for another connection")
                peer.close()
                continue
            welcome = asyncio.create_task(self._welcome(peer, place))
            self._welcomes.add(welcome)
            welcome.add_done_callback(self._welcomes.discard)

    async def _welcome(self, peer: socket.socket, place: Place) -> None:
        server = self._runner.server
        seconds = self._shared.limits.handshake_seconds if self._ssl else None
        try:
            if server is None:
                raise ConnectionAbortedError("the server is closing")
            await self._loop.connect_accepted_socket(
                lambda: GuardedHandler(server, self._shared, place),
                peer,
                ssl=self._ssl,
                ssl_handshake_timeout=seconds,
                # The rest of an answer goes out after the close, too: the sweep judges how fast.
                ssl_shutdown_timeout=self._shared.limits.body_total_seconds if self._ssl else None,
            )
        except BaseException as error:
            place.leave()
            peer.close()
            if not isinstance(error, OSError):  # ssl.SSLError and the handshake's time-out are OSErrors
                raise
            self._shared.refuse("no TLS handshake" if self._ssl else "gone before it was served")

    async def _sweep(self) -> None:
        told: Counter[str] = Counter()
        said = self._loop.time()
        while True:
            await asyncio.sleep(self._shared.limits.sweep_seconds)
            now = self._loop.time()
            for connection in list(self._shared.connections):
                connection.sweep(now)
            if now - said >= 1:  # a flood of refusals must not become a flood of log lines
                for reason, count in (self._shared.refusals - told).items():
                    LOG.warning("refused", extra=fields(reason=reason, count=count))
                told, said = Counter(self._shared.refusals), now


# The middleware


def _install(app: web.Application, guard: _Guard, *, tls: bool) -> None:
    headers = SECURITY_HEADERS | ({"Strict-Transport-Security": HSTS} if tls else {})

    async def dress(_request: web.Request, response: web.StreamResponse) -> None:
        for name, value in headers.items():
            response.headers.setdefault(name, value)
        response.headers.popall("Server", None)

    @web.middleware
    async def outermost(request: web.Request, handler: Handler) -> web.StreamResponse:
        return await guard.serve(request, handler)

    try:
        app.middlewares.insert(0, outermost)
        app.on_response_prepare.append(dress)
    except (RuntimeError, TypeError) as error:
        raise ConfigError("the application has already been started: guards cannot be added") from error


class _Guard:
    """What every request goes through before its handler, and every answer and error after it."""

    def __init__(self, shared: Shared, clock: Callable[[], float]) -> None:
        limits = shared.limits
        self._limits = limits
        self._clock = clock
        self._running = 0
        self._addresses = RateLimiter(
            per_second=limits.requests_per_second_per_address,
            burst=limits.request_burst_per_address,
            at_once=limits.max_requests_at_once_per_address,
            clock=clock,
        )

    async def serve(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """The handler's answer, or the problem that stands for what it raised; one log line either way."""
        began = self._clock()
        response = await self._answer(request, handler)
        wording = getattr(request.match_info.handler, _WORDING, None)
        if wording is not None and isinstance(response, web.Response) and response.content_type == PROBLEM_TYPE:
            response = wording(response)
        milliseconds = round((self._clock() - began) * 1000, 1)
        told = fields(
            method=request.method,
            route=_route(request),
            status=response.status,
            ms=milliseconds,
            peer=request.remote,
        )
        LOG.info("answered", extra=told)
        return response

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            with self._addresses.admit(source_of(request.remote or "")), self._place():
                _begin(request, self._limits)
                return await handler(request)
        except web.HTTPException as error:
            if error.status < 400:
                raise  # a redirect is an answer
            return restate(error)
        except GatewayError as error:
            _stop_if_answered(request)
            return problem_response(error)
        except web.RequestPayloadError:
            _stop_if_answered(request)
            return problem_response(MalformedError("the body is malformed"))
        except Exception as error:
            if isinstance(error, ConnectionError) and _is_gone(request):
                raise  # nobody is there to answer
            # A bug: its detail stays here.
            name = random_bytes(8).hex()
            LOG.error("bug", extra=fields(error_id=name, route=_route(request), **failure(error)))
            _stop_if_answered(request)
            return problem_response(error, instance=f"urn:gateway:error:{name}")

    @contextmanager
    def _place(self) -> Iterator[None]:
        if self._running >= self._limits.max_requests_at_once:
            raise OverloadedError("too many requests at once", retry_after_seconds=1)
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1


def _begin(request: web.Request, limits: ServerLimits) -> None:
    rule = getattr(request.match_info.handler, _BODY_RULE, None)
    if not isinstance(rule, _BodyRule):
        rule = _BodyRule(limits.default_body_bytes, length_required=False)
    if (request.content_length or 0) > rule.max_bytes:
        raise TooLargeError("the body is larger than this address takes")
    if rule.length_required and request.body_exists and request.content_length is None:
        raise web.HTTPLengthRequired
    if not isinstance(request.protocol, GuardedHandler):
        raise ConfigError("a connection without its guard")
    request.protocol.begin(request.content if request.body_exists else None, rule.max_bytes)


def _stop_if_answered(request: web.Request) -> None:
    """A second answer must not follow the beginning of a first: break the connection off, which the caller sees."""
    if request.writer.output_size > 0:
        raise ConnectionResetError("the answer broke off")


def _is_gone(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()


def _route(request: web.Request) -> str:
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "-"


# Sockets


async def _bind(host: str, port: int, *, plain: bool) -> list[socket.socket]:
    loop = asyncio.get_running_loop()
    listeners: list[socket.socket] = []
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _name, address in dict.fromkeys(found):
            if plain and not ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback:
                raise ConfigError("plain HTTP is for loopback only", remedy="configure a certificate and its key")
            listener = socket.socket(family, kind, protocol)
            listeners.append(listener)
            listener.setblocking(False)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            # Port 0: the second family takes the port that the first was given.
            chosen = port or (listeners[0].getsockname()[1] if len(listeners) > 1 else 0)
            listener.bind((address[0], chosen, *address[2:]))
            listener.listen(BACKLOG)
    except (OSError, ConfigError) as error:
        for listener in listeners:
            listener.close()
        if isinstance(error, ConfigError):
            raise
        raise ConfigError("the address cannot be bound", remedy="choose another host or port") from error
    return listeners


async def _end(tasks: Iterable[asyncio.Task[None]]) -> None:
    ending = list(tasks)
    for task in ending:
        task.cancel()
    await asyncio.gather(*ending, return_exceptions=True)
