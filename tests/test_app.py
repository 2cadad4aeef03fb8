"""The server's life: how it starts, what it refuses to start with, how it ends."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import socket
import ssl
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from factory import UNBOUNDED, FakeClock, befriend, certificate, link_to, loopback, make_node, serving
from gateway.app import allowed_hosts, serve, start, tls_context
from gateway.doors.guards import ServerLimits
from gateway.errors import ConfigError, OverloadedError, PartnerError
from gateway.exchange import Exchange
from gateway.node import Node


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return make_node(tmp_path, "XA-NCVI", clock=FakeClock(), **loopback())


def with_settings(node: Node, **changes: Any) -> Exchange:
    return Exchange(dataclasses.replace(node, settings=dataclasses.replace(node.settings, **changes)))


async def status_of(url: str, **options: Any) -> int:
    async with aiohttp.ClientSession() as session, session.get(url, **options) as answer:
        return answer.status


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_server_and_its_background_work(node: Node, number: signal.Signals) -> None:
    told: list[object] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            told.append("work ended")

    async def stop_when_ready() -> None:
        while not told:
            await asyncio.sleep(0.01)
        told.append(await status_of(f"{node.settings.public_url}/health/ready"))
        os.kill(os.getpid(), number)
        await asyncio.Event().wait()

    await asyncio.wait_for(serve(Exchange(node), background=[work(), stop_when_ready()], ready=told.append), 20)
    assert told == [node.settings.listen_port, 200, "work ended"]
    with pytest.raises(aiohttp.ClientError):
        await status_of(f"{node.settings.public_url}/health/live")
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


async def test_a_running_request_is_answered_before_the_server_ends(node: Node, tmp_path: Path) -> None:
    exchange = Exchange(node)
    xb = make_node(tmp_path, "XB-NCVI", clock=FakeClock())
    befriend(node, xb)
    entered = asyncio.Event()
    loop = asyncio.get_running_loop()
    sets_for = exchange.sets_for

    def slow(partner: str) -> list[dict[str, object]]:
        import time

        loop.call_soon_threadsafe(entered.set)
        time.sleep(0.5)
        return sets_for(partner)

    exchange.sets_for = slow  # type: ignore[method-assign]
    server = await start(exchange, limits=UNBOUNDED)
    async with link_to(node, xb) as link:
        asked = asyncio.create_task(link.sets())
        await entered.wait()
        await server.close()
        assert await asked == []
        with pytest.raises(PartnerError):
            await link.sets()


async def test_background_work_that_fails_ends_the_server_with_its_error(node: Node) -> None:
    async def fail() -> None:
        await asyncio.sleep(0)
        raise RuntimeError("a bug in the background")

    with pytest.raises(RuntimeError, match="a bug in the background"):
        await asyncio.wait_for(serve(Exchange(node), background=[fail()]), 20)
    with pytest.raises(aiohttp.ClientError):
        await status_of(f"{node.settings.public_url}/health/live")


async def test_a_server_that_cannot_start_leaves_no_background_work(node: Node) -> None:
    async def never() -> None:
        raise AssertionError("this was not to run")

    work = never()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", node.settings.listen_port))
        taken.listen()
        with pytest.raises(ConfigError, match="bound"):
            await serve(Exchange(node), background=[work])
    assert work.cr_frame is None  # closed


async def test_a_gateway_without_its_database_does_not_start(node: Node) -> None:
    node.store.close()
    (node.settings.folder / "gateway.db").unlink()
    (node.settings.folder / "gateway.db").mkdir()
    with pytest.raises(OverloadedError):
        await start(Exchange(node))


async def test_plain_http_is_not_served_beyond_this_machine(node: Node) -> None:
    exchange = with_settings(node)
    object.__setattr__(exchange.node.settings, "listen_host", "0.0.0.0")  # what Settings itself would refuse
    with pytest.raises(ConfigError, match="loopback"):
        await start(exchange)


async def test_the_server_speaks_tls_13_and_nothing_below(tmp_path: Path, node: Node) -> None:
    cert_file, key_file = certificate(tmp_path)
    exchange = with_settings(
        node,
        tls_certificate=str(cert_file),
        tls_key=str(key_file),
        public_url=node.settings.public_url.replace("http://127.0.0.1", "https://localhost"),
    )
    url = f"{exchange.node.settings.public_url}/health/live"
    context = ssl.create_default_context(cafile=str(cert_file))
    async with serving(exchange):
        async with aiohttp.ClientSession() as session, session.get(url, ssl=context) as answer:
            assert answer.status == 200
            assert answer.headers["Strict-Transport-Security"]
        _, writer = await asyncio.open_connection("localhost", exchange.node.settings.listen_port, ssl=context)
        assert writer.get_extra_info("ssl_object").version() == "TLSv1.3"
        writer.close()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(aiohttp.ClientError):
            await status_of(url, ssl=context)
        with pytest.raises(aiohttp.ClientError):
            await status_of(url.replace("https", "http"))


def test_a_certificate_that_cannot_be_used_is_said_with_a_remedy(tmp_path: Path, node: Node) -> None:
    cert_file, key_file = certificate(tmp_path)
    (tmp_path / "other").mkdir()
    _, other_key = certificate(tmp_path / "other")
    rubbish = tmp_path / "rubbish.pem"
    rubbish.write_bytes(b"rubbish")
    assert tls_context(node.settings) is None
    for chosen_cert, chosen_key in (
        (tmp_path / "absent.pem", key_file),
        (cert_file, tmp_path / "absent.key"),
        (rubbish, key_file),
        (cert_file, rubbish),
        (cert_file, other_key),
    ):
        settings = dataclasses.replace(node.settings, tls_certificate=str(chosen_cert), tls_key=str(chosen_key))
        with pytest.raises(ConfigError) as caught:
            tls_context(settings)
        assert str(tmp_path) not in str(caught.value)
        assert caught.value.remedy


def test_hosts_are_the_public_address_and_this_machine(node: Node) -> None:
    def hosts(url: str) -> list[str]:
        return allowed_hosts(dataclasses.replace(node.settings, public_url=url))

    local = ["localhost", "127.0.0.1", "[::1]"]
    assert hosts("https://xa.example") == ["xa.example:443", "xa.example", *local]
    assert hosts("https://XA.example:8440/") == ["xa.example:8440", *local]
    assert hosts("https://[2001:db8::1]") == ["[2001:db8::1]:443", "[2001:db8::1]", *local]


async def test_another_host_is_refused(node: Node) -> None:
    async with serving(Exchange(node)):
        url = f"{node.settings.public_url}/health/live"
        assert await status_of(url) == 200
        assert await status_of(url, headers={"Host": "xd.example"}) == 400


async def test_connections_are_bounded_by_the_settings(node: Node) -> None:
    exchange = with_settings(node, max_connections=4)
    server = await start(exchange)
    try:
        streams = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(6)]
        await asyncio.sleep(0.2)
        assert server.connections == 4
        for _, writer in streams:
            writer.close()
    finally:
        await server.close()


async def test_one_address_is_bounded_by_the_limits(node: Node) -> None:
    limits = ServerLimits(requests_per_second_per_address=0.01, request_burst_per_address=3)
    async with serving(Exchange(node), limits):
        url = f"{node.settings.public_url}/health/live"
        assert [await status_of(url) for _ in range(5)] == [200, 200, 200, 429, 429]
