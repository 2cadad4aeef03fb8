"""The gateway as a server: its doors put together, and the life of the process.

    serve(exchange, background=[schedule.run_forever()], ready=print)

Rules:

1. TLS 1.3 and nothing below, with the certificate of the settings; plain HTTP only on a loopback address.
2. `Host` is our public address, or a loopback name for the operators' door on this machine.
3. Before the first caller comes: the database answers, the policy is loaded, the signing key signs, and the guards
   have shown that they took effect.
4. SIGTERM and SIGINT end it in order: background work first, then no new connection, then running requests. What
   cannot end in time is cut off; a deed commits whole or not at all.
5. Where a background task fails the server ends with it. Half a gateway that looks alive would be worse.
"""

from __future__ import annotations

import asyncio
import signal
import ssl
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from gateway.callers import Callers
from gateway.config import Settings
from gateway.console import build_console
from gateway.doors.documents import DocumentsDoor
from gateway.doors.entrance import Entrance
from gateway.doors.guards import RunningServer, ServerLimits, run_server
from gateway.doors.hashsharing import HashSharingDoor
from gateway.doors.keys import KeysDoor
from gateway.doors.log import LogDoor
from gateway.doors.native import NativeDoor
from gateway.doors.oauth import OAuthDoor
from gateway.doors.ops import LOOPBACK_HOSTS, Meters, OpsDoor, check_ready
from gateway.doors.taxii import TaxiiDoor
from gateway.errors import ConfigError
from gateway.exchange import Exchange

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
Background = Coroutine[Any, Any, None]


def build_app(exchange: Exchange, *, meters: Meters | None = None) -> web.Application:
    """All doors of one gateway as an application that has not been started.

    Args:
        meters: where answers are counted.
    """
    node, meters = exchange.node, meters or Meters()
    entrance = Entrance(Callers(node), node.settings.requests_per_minute)
    app = web.Application(middlewares=[meters.middleware()])
    app.add_routes(OAuthDoor(entrance).routes())
    app.add_routes(NativeDoor(exchange, entrance).routes())
    app.add_routes(KeysDoor(exchange, entrance).routes())
    app.add_routes(LogDoor(node, entrance).routes())
    app.add_routes(HashSharingDoor(exchange, entrance).routes())
    app.add_routes(TaxiiDoor(exchange, entrance).routes())
    app.add_routes(DocumentsDoor(node.settings).routes())
    app.add_routes(OpsDoor(node, meters).routes())
    return app


async def start(exchange: Exchange, *, limits: ServerLimits | None = None) -> RunningServer:
    """The server of one gateway, listening; the caller closes it.

    Raises:
        ConfigError: what the settings name cannot be used, or the token of the signing key.
        OverloadedError: the database does not answer.
    """
    meters, settings = Meters(), exchange.node.settings
    # 1. What must be in order before anybody is let in.
    await asyncio.to_thread(check_ready, exchange.node)
    await asyncio.to_thread(exchange.node.keystore.check_signing)
    # 2. Listen behind the guards.
    server = await run_server(
        build_app(exchange, meters=meters),
        host=settings.listen_host,
        port=settings.listen_port,
        ssl_context=tls_context(settings),
        limits=limits or ServerLimits(max_connections=settings.max_connections),
        allowed_hosts=allowed_hosts(settings),
    )
    meters.server = server
    return server


async def start_console(exchange: Exchange, *, limits: ServerLimits | None = None) -> RunningServer | None:
    """The console of one gateway, listening; None where the settings want none. The caller closes it."""
    settings = exchange.node.settings
    if not settings.console_url:
        return None
    parts = urlsplit(settings.console_url)
    names = [parts.netloc] if parts.port else [parts.netloc, f"{parts.netloc}:{443 if parts.scheme == 'https' else 80}"]
    return await run_server(
        build_console(exchange),
        host=settings.console_host,
        port=settings.console_port,
        ssl_context=tls_context(settings),
        limits=limits or ServerLimits(max_connections=settings.max_connections),
        allowed_hosts=names,
    )


async def serve(
    exchange: Exchange,
    *,
    background: Sequence[Background] = (),
    ready: Callable[[int], None] = lambda _port: None,
    limits: ServerLimits | None = None,
) -> None:
    """Run one gateway until SIGTERM or SIGINT.

    Args:
        background: work that runs beside the server for as long as it does, such as the schedule.
        ready: told the port once connections are accepted.

    Raises:
        ConfigError: as `start`.
        Exception: what a background task failed with.
    """
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    servers: list[RunningServer] = []
    try:
        servers.append(await start(exchange, limits=limits))
        console = await start_console(exchange)
        servers += [console] if console else []
    except BaseException:
        for work in background:
            work.close()
        for server in servers:
            await server.close()
        raise
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, stop.set)
    tasks = [asyncio.create_task(work) for work in background]
    waiting = asyncio.create_task(stop.wait())
    try:
        ready(servers[0].port)
        await asyncio.wait([waiting, *tasks], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for number in STOP_SIGNALS:
            loop.remove_signal_handler(number)
        ended = [task for task in tasks if task.done()]
        for task in (waiting, *tasks):
            task.cancel()
        await asyncio.gather(waiting, *tasks, return_exceptions=True)
        await asyncio.gather(*(server.close() for server in servers))
    for task in ended:
        with suppress(asyncio.CancelledError):
            task.result()  # raises what it failed with


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """TLS as the settings want it, None without a certificate.

    Raises:
        ConfigError: certificate or key cannot be read, or do not belong together.
    """
    files = settings.tls_files
    if files is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["http/1.1"])
    try:
        # A callback, since a key under a passphrase would otherwise be asked for on the terminal of a daemon.
        context.load_cert_chain(*files, password=lambda: "")
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise ConfigError(
            "the TLS certificate and its key cannot be used",
            place="tls_certificate, tls_key",
            remedy="give PEM files that belong together and that this user may read; the key without a passphrase",
        ) from error
    return context


def allowed_hosts(settings: Settings) -> list[str]:
    """What `Host` may say: the public address (its default port may be left out), and this machine's own names."""
    parts = urlsplit(settings.public_url)
    host = parts.hostname or ""
    name = f"[{host}]" if ":" in host else host
    default = {"https": 443, "http": 80}[parts.scheme]
    port = parts.port or default
    public = [f"{name}:{port}", *([name] if port == default else [])]
    return [*public, *LOOPBACK_HOSTS]
