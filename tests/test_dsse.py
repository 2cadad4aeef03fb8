"""DSSE: the specification's own vector, strict reading, and every way to add, drop or swap a signature."""

import base64
import json

import pytest

from gateway.crypto import dsse
from gateway.crypto.keys import SigningKey
from gateway.errors import MalformedError, TooLargeError, VerificationError

TYPE = "application/vnd.partner-exchange.test+json"


@pytest.fixture(scope="module")
def signer():
    return SigningKey.from_seeds(b"\x01" * 32, b"\x02" * 32)


@pytest.fixture(scope="module")
def other():
    return SigningKey.from_seeds(b"\x03" * 32, b"\x04" * 32)


@pytest.fixture(scope="module")
def raw(signer):
    return dsse.sign(TYPE, b'{"a":1}', signer)


def changed(raw, change):
    envelope = json.loads(raw)
    change(envelope)
    return json.dumps(envelope).encode()


def test_pae_is_that_of_the_specification():
    assert dsse.pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


def test_pae_counts_bytes_and_not_characters():
    assert dsse.pae("é", b"") == b"DSSEv1 2 \xc3\xa9 0 "


def test_signed_payload_verifies(signer, raw):
    assert dsse.verify(raw, signer.public, TYPE) == b'{"a":1}'


def test_white_space_between_members_is_no_matter(signer, raw):
    assert dsse.verify(changed(raw, lambda envelope: None), signer.public, TYPE) == b'{"a":1}'


def test_another_payload_type_is_refused(signer, raw):
    with pytest.raises(VerificationError, match="type"):
        dsse.verify(raw, signer.public, TYPE + "x")
    with pytest.raises(VerificationError):
        dsse.verify(changed(raw, lambda e: e.update(payloadType=TYPE + "x")), signer.public, TYPE + "x")


def test_another_signer_is_refused(other, raw):
    with pytest.raises(VerificationError):
        dsse.verify(raw, other.public, TYPE)


def test_another_payload_is_refused(signer, raw):
    forged = changed(raw, lambda e: e.update(payload=base64.b64encode(b'{"a":2}').decode()))
    with pytest.raises(VerificationError):
        dsse.verify(forged, signer.public, TYPE)


@pytest.mark.parametrize(
    "change",
    [
        lambda e: e["signatures"].pop(),
        lambda e: e["signatures"].pop(0),
        lambda e: e["signatures"].append(e["signatures"][0]),
        lambda e: e["signatures"].__setitem__(1, e["signatures"][0]),
        lambda e: e["signatures"][0].update(keyid="00" * 32),
        lambda e: e["signatures"][0].update(sig="AAAA"),
        lambda e: e["signatures"][1].update(sig=""),
        lambda e: e["signatures"][0].update(keyid=e["signatures"][0]["keyid"].upper()),
    ],
)
def test_missing_added_or_changed_signature_is_refused(signer, raw, change):
    with pytest.raises(VerificationError):
        dsse.verify(changed(raw, change), signer.public, TYPE)


@pytest.mark.parametrize(
    "change",
    [
        lambda e: e.pop("payload"),
        lambda e: e.pop("payloadType"),
        lambda e: e.pop("signatures"),
        lambda e: e.update(extra=1),
        lambda e: e.update(payload=1),
        lambda e: e.update(payloadType=None),
        lambda e: e.update(signatures=[]),
        lambda e: e.update(signatures={}),
        lambda e: e.update(signatures=["x", "y"]),
        lambda e: e.update(signatures=e["signatures"] * 5),
        lambda e: e["signatures"][0].pop("keyid"),
        lambda e: e["signatures"][0].update(cert="x"),
        lambda e: e["signatures"][0].update(sig=7),
        lambda e: e["signatures"][0].update(sig=e["signatures"][0]["sig"].rstrip("=")),
        lambda e: e["signatures"][0].update(sig=e["signatures"][0]["sig"].replace("+", "-").replace("/", "_") + "-_=="),
        lambda e: e.update(payload=e["payload"] + "\n"),
        lambda e: e.update(payload="QR=="),
    ],
)
def test_another_shape_is_malformed(signer, raw, change):
    with pytest.raises(MalformedError):
        dsse.verify(changed(raw, change), signer.public, TYPE)


def test_member_that_stands_twice_is_malformed(signer, raw):
    with pytest.raises(MalformedError):
        dsse.verify(raw[:-1] + b',"payload":"QQ=="}', signer.public, TYPE)


def test_envelope_over_the_bound_is_too_large(signer):
    with pytest.raises(TooLargeError):
        dsse.verify(b" " * (dsse.MAX_DSSE_BYTES + 1), signer.public, TYPE)
    with pytest.raises(MalformedError):
        dsse.sign(TYPE, bytes(dsse.MAX_DSSE_BYTES), signer)


def test_two_signers_must_both_sign_and_nobody_else(signer, other):
    both = dsse.sign(TYPE, b"x", signer, other)
    assert dsse.parse(both).verify((signer.public, other.public), TYPE) == b"x"
    assert dsse.parse(both).verify((other.public, signer.public), TYPE) == b"x"
    for expected in ((signer.public,), (other.public,), (signer.public, signer.public), ()):
        with pytest.raises(VerificationError):
            dsse.parse(both).verify(expected, TYPE)
    with pytest.raises(VerificationError):
        dsse.parse(dsse.sign(TYPE, b"x", signer)).verify((signer.public, other.public), TYPE)
    with pytest.raises(VerificationError):
        dsse.parse(dsse.sign(TYPE, b"x", signer, signer)).verify((signer.public, other.public), TYPE)
    with pytest.raises(VerificationError):
        dsse.verify(both, signer.public, TYPE)


def test_one_signer_is_never_counted_twice(signer, raw):
    with pytest.raises(VerificationError):
        dsse.parse(raw).verify((signer.public, signer.public), TYPE)


def test_nothing_is_signed_by_nobody():
    with pytest.raises(MalformedError):
        dsse.sign(TYPE, b"x")


def test_every_flipped_bit_of_the_first_bytes_and_of_the_text_around_is_refused(signer):
    raw = dsse.sign(TYPE, b"payload", signer)
    for position in [*range(120), *range(len(raw) - 120, len(raw)), *range(120, len(raw), 97)]:
        for bit in (1, 32):
            flipped = raw[:position] + bytes([raw[position] ^ bit]) + raw[position + 1 :]
            with pytest.raises((MalformedError, VerificationError)):
                dsse.verify(flipped, signer.public, TYPE)
