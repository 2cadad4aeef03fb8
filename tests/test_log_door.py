"""The log door over real sockets: checkpoints with cosignatures, what was witnessed, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aiohttp
import pytest

from factory import FakeClock, befriend, events, link_to, loopback, make_node, serving
from gateway.alarms import AlarmKind, raise_alarm
from gateway.audit import EventKind
from gateway.client import NOTE_TYPE, PartnerLink
from gateway.crypto import checkpoint
from gateway.errors import NotFoundError, PartnerError, VerificationError
from gateway.exchange import Exchange
from gateway.gossip import MAX_HEAD_BYTES
from gateway.node import log_origin, witness_name
from gateway.sync import PartnerSync

XA, XB, XC = "XA-NCVI", "XB-NCVI", "XC-NCVI"


@pytest.fixture
def hub(tmp_path: Path) -> Exchange:
    return Exchange(make_node(tmp_path, XA, clock=FakeClock(), **loopback()))


@pytest.fixture
def peer(tmp_path: Path, hub: Exchange) -> Exchange:
    made = Exchange(make_node(tmp_path, XB, clock=FakeClock()))
    befriend(hub.node, made.node)
    return made


async def ask(link: PartnerLink, method: str, path: str, *, body: bytes | None = None, kind: str = NOTE_TYPE) -> int:
    """The status of a request as a partner makes it."""
    path, _, query = path.partition("?")
    token = await link._access_token()
    headers = {"Authorization": f"DPoP {token}", **({"Content-Type": kind} if body is not None else {})}
    options: dict[str, Any] = {"query": query, "headers": headers, "body": body, "max_bytes": 1 << 20}
    return (await link._proved(method, path, token, **options)).status


async def test_over_http_a_contact_leaves_a_cosigned_checkpoint(hub: Exchange, peer: Exchange) -> None:
    async with serving(hub), link_to(hub.node, peer.node) as link:
        with pytest.raises(NotFoundError):
            await link._ask("GET", "/v1/log/cosigned", max_bytes=1000)
        await PartnerSync(peer, link, XA).witness()
        cosigned = (await link._ask("GET", "/v1/log/cosigned", max_bytes=4000)).body
        key = peer.node.keystore.witness_key(witness_name(XB)).verifier
        signed = checkpoint.verify_cosignature(cosigned, key, log_origin(XA)).checkpoint
        own = hub.node.keystore.log_key(log_origin(XA)).verifier
        assert checkpoint.verify(cosigned, own, own.name) == signed
        assert await link.checkpoint() == cosigned
        answer = await link._ask("GET", "/v1/log/checkpoint", query=f"size={signed.size}", max_bytes=4000)
        assert (answer.body, answer.media_type) == (cosigned, NOTE_TYPE)


async def test_what_was_witnessed_is_told_to_partners(hub: Exchange, peer: Exchange, tmp_path: Path) -> None:
    third = make_node(tmp_path, XC, clock=FakeClock())
    befriend(hub.node, third)
    async with serving(hub), link_to(hub.node, third) as link:
        with hub.node.store.reading() as tx:
            assert await link.witnessed() == ()
            before = tx.log.latest_checkpoint()
        contact = hub.witness.begin(XB)
        shown = hub.witness.read(contact, peer.witness.note_of())
        hub.witness.take(contact, shown, {})
        [told] = await link.witnessed()
        assert (told.agency, told.note, told.at) == (XB, shown.note, hub.node.clock())
        with hub.node.store.reading() as tx:
            assert tx.log.latest_checkpoint() == before


async def test_odd_questions_and_bodies_get_the_status_of_the_contract(hub: Exchange, peer: Exchange) -> None:
    note = hub.witness.note_of()
    async with serving(hub), link_to(hub.node, peer.node) as link:
        for method, path, body, status in (
            ("GET", "/v1/log/checkpoint?size=1", None, 200),
            ("GET", "/v1/log/checkpoint?size=0", None, 404),
            ("GET", "/v1/log/checkpoint?size=99", None, 404),
            ("GET", "/v1/log/checkpoint?size=01", None, 400),
            ("GET", "/v1/log/checkpoint?size=-1", None, 400),
            ("GET", "/v1/log/checkpoint?size=1&size=1", None, 400),
            ("GET", "/v1/log/checkpoint?tree=1", None, 400),
            ("GET", "/v1/log/witnessed", None, 200),
            ("GET", "/v1/log/cosigned", None, 404),
            ("POST", "/v1/log/cosignature", b"", 400),
            ("POST", "/v1/log/cosignature", b"\xff\n\n\x00", 400),
            ("POST", "/v1/log/cosignature", note, 403),
            ("POST", "/v1/log/cosignature", b"x" * (MAX_HEAD_BYTES + 1), 413),
            ("GET", "/v1/log/cosignature", None, 405),
        ):
            assert await ask(link, method, path, body=body) == status, (method, path)
        assert await ask(link, "POST", "/v1/log/cosignature", body=note, kind="application/json") == 415
    assert not events(hub.node, EventKind.LOG_FORKED)


async def test_a_hub_that_refuses_our_cosignature_is_told_of_and_not_accused(hub: Exchange, peer: Exchange) -> None:
    async with serving(hub), link_to(hub.node, peer.node) as link:

        async def refused(body: bytes) -> None:
            raise VerificationError("not over a checkpoint of this log")

        link.post_cosignature = refused  # type: ignore[method-assign]
        with pytest.raises(PartnerError, match="refuses to have its log witnessed"):
            await PartnerSync(peer, link, XA).witness()
    assert not events(peer.node, EventKind.LOG_FORKED)


async def test_metrics_count_alarms_days_and_cosigned_leaves_without_names(hub: Exchange, peer: Exchange) -> None:
    node = hub.node
    with node.store.transaction() as tx:
        raise_alarm(tx, node, AlarmKind.SYNC_FAILING, XB, "no sync has succeeded")
    async with serving(hub), link_to(node, peer.node) as link:
        await PartnerSync(peer, link, XA).witness()
        async with aiohttp.ClientSession() as session, session.get(f"{node.settings.public_url}/metrics") as answer:
            lines = (await answer.text()).splitlines()
    with node.store.reading() as tx:
        cosigned = tx.witness.largest_cosigned()
    assert cosigned
    assert 'gateway_alarms_open{kind="sync_failing"} 1' in lines
    assert 'gateway_alarms_open{kind="log_fork"} 0' in lines
    assert f"gateway_log_cosigned_leaves {cosigned}" in lines
    days = dict(line.rsplit(" ", 1) for line in lines if line.startswith("gateway_key_days_left{"))
    assert int(days['gateway_key_days_left{purpose="signing"}']) == node.settings.signing_key_days
    assert not [line for line in lines if XB in line]
