"""TLS pins: a partner's server is known by its key, and nothing is sent to any other."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import datetime
import hashlib
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from factory import FakeClock, befriend, card_of, certificate, loopback, make_node, serving
from gateway import keyring
from gateway.app import tls_context
from gateway.client import LinkLimits, PartnerLink
from gateway.crypto.pins import MAX_PEM_BYTES, pin_of, pins_of_pem
from gateway.errors import ConfigError, MalformedError, PartnerError
from gateway.exchange import Exchange
from gateway.interchange import MAX_CARD_PINS
from gateway.model import TLS_PIN
from gateway.node import Node
from gateway.tls import own_pins

NOT_PINNED = "the partner's TLS certificate is not one that its identity card pins"
OTHER_PIN = base64.b64encode(hashlib.sha256(b"another key").digest()).decode()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def xb(tmp_path: Path, clock: FakeClock) -> Node:
    return make_node(tmp_path, "XB-NCVI", clock=clock)


@pytest.fixture
def elsewhere(tmp_path: Path, clock: FakeClock, xb: Node) -> Node:
    """A gateway on localhost whose self-signed certificate is for another name."""
    cert_file, key_file = certificate(tmp_path, "gateway.xa.example")
    settings = loopback(tls_certificate=str(cert_file), tls_key=str(key_file), listen_host="localhost")
    settings["public_url"] = f"https://localhost:{settings['listen_port']}"
    node = make_node(tmp_path, "XA-NCVI", clock=clock, **settings)
    befriend(node, xb)
    return node


def pinned_link(there: Node, here: Node, *pins: str, tls: ssl.SSLContext | None = None) -> PartnerLink:
    card, soon = dataclasses.replace(card_of(there), tls_pins=pins), LinkLimits(read_seconds=5)
    return PartnerLink(card, here.keystore.token_key, here.agency, here.clock, here.random, tls=tls, limits=soon)


@asynccontextmanager
async def listening(port: int, tls: ssl.SSLContext) -> AsyncIterator[list[bytes]]:
    """A TLS server that keeps every byte that arrives above TLS, and answers nothing."""
    heard: list[bytes] = []

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(4096):
            heard.append(piece)
        writer.close()

    server = await asyncio.start_server(hear, "localhost", port, ssl=tls)
    async with server:
        yield heard
        await asyncio.sleep(0.05)  # for what may still be on its way


# Where we call


async def test_pinned_key_is_enough_whatever_name_and_signer_the_certificate_has(elsewhere: Node, xb: Node) -> None:
    [pin] = own_pins(elsewhere.settings)
    async with serving(Exchange(elsewhere)):
        async with pinned_link(elsewhere, xb) as link:
            with pytest.raises(PartnerError, match="does not verify"):
                await link.sets()
        async with pinned_link(elsewhere, xb, pin) as link:
            assert await link.sets() == []


async def test_server_with_another_key_is_sent_nothing(elsewhere: Node, xb: Node) -> None:
    tls = tls_context(elsewhere.settings)
    assert tls is not None
    async with listening(elsewhere.settings.listen_port, tls) as heard, pinned_link(elsewhere, xb, OTHER_PIN) as link:
        with pytest.raises(PartnerError) as refused:
            await link.sets()
    assert refused.value.message == NOT_PINNED
    assert "new card" in refused.value.remedy
    assert heard == []


async def test_server_with_the_pinned_key_is_sent_the_request(elsewhere: Node, xb: Node) -> None:
    """The counterpart of the test above: with the right pin that server does hear something."""
    tls = tls_context(elsewhere.settings)
    assert tls is not None
    pins = own_pins(elsewhere.settings)
    async with listening(elsewhere.settings.listen_port, tls) as heard, pinned_link(elsewhere, xb, *pins) as link:
        asking = asyncio.create_task(link.sets())
        async with asyncio.timeout(10):
            while not heard:
                await asyncio.sleep(0.01)
        asking.cancel()
    assert heard[0].startswith(b"POST /v1/token ")


async def test_authority_does_not_stand_in_for_a_pin(tmp_path: Path, clock: FakeClock, xb: Node) -> None:
    cert_file, key_file = certificate(tmp_path)
    settings = loopback(tls_certificate=str(cert_file), tls_key=str(key_file), listen_host="localhost")
    settings["public_url"] = f"https://localhost:{settings['listen_port']}"
    node = make_node(tmp_path, "XA-NCVI", clock=clock, **settings)
    befriend(node, xb)
    trusting = ssl.create_default_context(cafile=str(cert_file))
    async with serving(Exchange(node)):
        async with pinned_link(node, xb, tls=trusting) as link:
            assert await link.sets() == []
        async with pinned_link(node, xb, OTHER_PIN, tls=trusting) as link:
            with pytest.raises(PartnerError, match=NOT_PINNED):
                await link.sets()


async def test_certificate_is_renewed_while_both_keys_are_pinned(
    elsewhere: Node, xb: Node, tmp_path: Path, clock: FakeClock
) -> None:
    (tmp_path / "next").mkdir()
    cert_file, key_file = certificate(tmp_path / "next", "gateway.xa.example")
    renewed = dataclasses.replace(
        elsewhere,
        settings=dataclasses.replace(elsewhere.settings, tls_certificate=str(cert_file), tls_key=str(key_file)),
    )
    [old], [new] = own_pins(elsewhere.settings), own_pins(renewed.settings)
    assert old != new
    for server in (elsewhere, renewed):
        async with serving(Exchange(server)), pinned_link(server, xb, old, new) as link:
            assert await link.sets() == []


async def test_partner_learns_the_next_pin_from_our_card_before_the_certificate_is_renewed(
    elsewhere: Node, xb: Node, tmp_path: Path
) -> None:
    (tmp_path / "next").mkdir()
    cert_file, key_file = certificate(tmp_path / "next", "gateway.xa.example")
    before = elsewhere.settings
    after = dataclasses.replace(before, tls_certificate=str(cert_file), tls_key=str(key_file))
    [new] = own_pins(after)
    announcing = dataclasses.replace(elsewhere, settings=dataclasses.replace(before, tls_pins=new))
    renewed = dataclasses.replace(elsewhere, settings=after)

    def link() -> PartnerLink:
        card = Exchange(xb).card_of("XA-NCVI")
        return PartnerLink(card, xb.keystore.token_key, xb.agency, xb.clock, xb.random)

    async with serving(Exchange(renewed)), link() as too_early:
        with pytest.raises(PartnerError, match=NOT_PINNED):
            await too_early.sets()
    async with serving(Exchange(announcing)), link() as contact:
        news = await contact.keys(keyring.held_of(xb, "XA-NCVI"))
        assert news is not None
        keyring.take(xb, "XA-NCVI", news)
    async with serving(Exchange(renewed)), link() as in_time:
        assert await in_time.sets() == []


async def test_old_tls_is_refused_even_with_the_pinned_key(elsewhere: Node, xb: Node) -> None:
    tls = tls_context(elsewhere.settings)
    assert tls is not None
    tls.minimum_version = tls.maximum_version = ssl.TLSVersion.TLSv1_2
    pins = own_pins(elsewhere.settings)
    async with listening(elsewhere.settings.listen_port, tls) as heard, pinned_link(elsewhere, xb, *pins) as link:
        with pytest.raises(PartnerError, match=r"TLS|reached"):
            await link.sets()
    assert heard == []


# Pins


@pytest.mark.parametrize(
    "private",
    [
        ec.generate_private_key(ec.SECP256R1()),
        rsa.generate_private_key(65537, 2048),
        ed25519.Ed25519PrivateKey.generate(),
    ],
    ids=["P-256", "RSA", "Ed25519"],
)
def test_pin_is_what_openssl_computes(tmp_path: Path, private: ec.EllipticCurvePrivateKey) -> None:
    made = self_signed(private)
    file = tmp_path / "certificate.pem"
    file.write_bytes(made.public_bytes(Encoding.PEM))
    command = f"openssl x509 -in {file} -pubkey -noout | openssl pkey -pubin -outform DER"
    info = subprocess.run(["bash", "-c", command], check=True, capture_output=True).stdout
    expected = base64.b64encode(hashlib.sha256(info).digest()).decode()
    assert pin_of(made.public_bytes(Encoding.DER)) == expected
    assert pins_of_pem(file.read_bytes()) == (expected,)
    assert TLS_PIN.fullmatch(expected)


def test_renewal_over_the_same_key_keeps_the_pin() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    first, second = (self_signed(key, serial).public_bytes(Encoding.DER) for serial in (1, 2))
    assert first != second
    assert pin_of(first) == pin_of(second)


@pytest.mark.parametrize("raw", [b"", b"\x30\x03\x02\x01\x01", b"not DER"])
def test_what_is_no_certificate_has_no_pin(raw: bytes) -> None:
    with pytest.raises(MalformedError):
        pin_of(raw)
    with pytest.raises(MalformedError):
        pins_of_pem(raw)


def test_key_in_an_unusual_spelling_has_no_pin() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    raw = self_signed(key).public_bytes(Encoding.DER)
    # id-ecPublicKey with a curve that nobody knows.
    odd = raw.replace(bytes.fromhex("06082a8648ce3d030107"), bytes.fromhex("06082a8648ce3d03017f"))
    assert odd != raw
    with pytest.raises(MalformedError):
        pin_of(odd)


def test_chain_is_bounded() -> None:
    with pytest.raises(MalformedError, match="too long"):
        pins_of_pem(b" " * (MAX_PEM_BYTES + 1))


# Our own card


def test_own_pins_are_the_servers_key_and_what_the_settings_add(elsewhere: Node, tmp_path: Path) -> None:
    settings = elsewhere.settings
    [served] = own_pins(settings)
    with_more = dataclasses.replace(settings, tls_pins=f"{OTHER_PIN}, {served}")
    assert own_pins(with_more) == (served, OTHER_PIN)
    (tmp_path / "authority").mkdir()
    chain = tmp_path / "chain.pem"
    leaf, authority = Path(settings.tls_certificate), certificate(tmp_path / "authority", "ca.example")[0]
    chain.write_bytes(leaf.read_bytes() + authority.read_bytes())
    assert own_pins(dataclasses.replace(settings, tls_certificate=str(chain))) == (served,)


def test_gateway_behind_a_proxy_names_the_proxys_pins_alone(xb: Node) -> None:
    assert own_pins(xb.settings) == ()
    assert own_pins(dataclasses.replace(xb.settings, tls_pins=OTHER_PIN)) == (OTHER_PIN,)


def test_our_card_names_our_pins(elsewhere: Node) -> None:
    assert card_of(elsewhere).tls_pins == own_pins(elsewhere.settings) != ()


def test_more_pins_than_a_card_holds_are_a_config_error(xb: Node) -> None:
    made = [base64.b64encode(hashlib.sha256(bytes([n])).digest()).decode() for n in range(MAX_CARD_PINS + 1)]
    assert len(own_pins(dataclasses.replace(xb.settings, tls_pins=",".join(made[1:])))) == MAX_CARD_PINS
    with pytest.raises(ConfigError, match="tls_pins"):
        own_pins(dataclasses.replace(xb.settings, tls_pins=",".join(made)))


@pytest.mark.parametrize("content", [None, b"not a certificate"])
def test_certificate_that_cannot_be_read_is_a_config_error(elsewhere: Node, content: bytes | None) -> None:
    file = Path(elsewhere.settings.tls_certificate)
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match="tls_certificate") as caught:
        own_pins(elsewhere.settings)
    assert str(file.parent) not in str(caught.value)


def self_signed(private: ec.EllipticCurvePrivateKey, serial: int = 1) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "xa.example")])
    start = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    algorithm = None if isinstance(private, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(serial)
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=365))
        .sign(private, algorithm)
    )
