"""Envelopes: what is sealed opens, and nothing else does; in constant memory, for one recipient or a class."""

import dataclasses
import hashlib
import io
import json
import os
import struct
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.crypto import age, canonical, dsse, envelope
from gateway.crypto.envelope import (
    PIECE_BYTES,
    Manifest,
    agency_audience,
    open_envelope,
    seal,
    seal_bytes,
    view_audience,
)
from gateway.crypto.keys import OpeningKey, SigningKey
from gateway.errors import ConflictError, GatewayError, MalformedError, TooLargeError, VerificationError

VECTORS = Path(__file__).parents[1] / "contracts" / "vectors" / "envelope-1"
NOW = 1_760_000_000
US = frozenset({agency_audience("XB-NCVI")})
VIEW = "5e" * 32


@pytest.fixture(scope="module")
def signer():
    return SigningKey.from_seeds(b"\x01" * 32, b"\x02" * 32)


@pytest.fixture(scope="module")
def stranger():
    return SigningKey.from_seeds(b"\x03" * 32, b"\x04" * 32)


@pytest.fixture(scope="module")
def opening_key():
    return OpeningKey.from_seed(b"\x05" * 32)


@pytest.fixture(scope="module")
def other_key():
    return OpeningKey.from_seed(b"\x06" * 32)


def manifest(**changes):
    fields = {
        "message_id": "0123456789abcdef0123456789abcdef",
        "sender": "XA-NCVI",
        "audience": agency_audience("XB-NCVI"),
        "channel": "XA-NCVI/identified-victims",
        "epoch": 1,
        "from_seq": 4,
        "until_seq": 9,
        "created": NOW - 60,
        "expires": NOW + 3600,
        "payload_type": "application/vnd.partner-exchange.page",
        "purpose": "victim identification",
    }
    return Manifest(**{**fields, **changes})


class Joined:
    """Header and body as one stream."""

    def __init__(self, *parts):
        self.parts = list(parts)

    def read(self, count):
        while self.parts:
            if piece := self.parts[0].read(count):
                return piece
            self.parts.pop(0)
        return b""


def opened(raw, opening_key, signer, *, now=NOW, audiences=US):
    def verifying_keys_for(sender):
        assert sender == "XA-NCVI"
        return (signer.public,)

    source = io.BytesIO(raw) if isinstance(raw, bytes) else raw
    return open_envelope(source, [opening_key], verifying_keys_for, now=now, audiences=audiences)


def sealed_frame(frame, recipient):
    """An age file around any plaintext."""
    sink = io.BytesIO()
    age.encrypt([recipient.public], io.BytesIO(frame), sink)
    return sink.getvalue()


def forged(signer, recipient, *, payload=b"payload", change=None, manifest_bytes=None, payload_type=None):
    """An envelope around a manifest that `seal` would not write."""
    body = io.BytesIO()
    good = seal(manifest(), io.BytesIO(payload), body, signer).manifest
    value = json.loads(good.dump())
    if change:
        change(value)
    raw = manifest_bytes if manifest_bytes is not None else canonical.encode(value)
    signed = dsse.sign(payload_type or envelope.MANIFEST_TYPE, raw, signer)
    return sealed_frame(struct.pack(">I", len(signed)) + signed + payload, recipient)


# Round trips


@given(st.sampled_from([0, 1, 1000, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 2 * PIECE_BYTES + 7]))
@settings(max_examples=12, deadline=None)
def test_what_was_sealed_opens(signer, opening_key, size):
    payload = hashlib.shake_256(b"payload").digest(size)
    raw = seal_bytes(manifest(), payload, signer, [opening_key.public])
    message = opened(raw, opening_key, signer)
    assert message.read_payload(size) == payload
    assert message.manifest.payload_bytes == size
    assert message.manifest_digest == hashlib.sha256(message.manifest.dump()).hexdigest()
    assert dsse.verify(message.dsse, signer.public, envelope.MANIFEST_TYPE) == message.manifest.dump()


def test_every_field_arrives_as_it_was_signed(signer, opening_key):
    sent = manifest(case="XA-2031-17", channel=envelope.MAILBOX)
    message = opened(seal_bytes(sent, b"x", signer, [opening_key.public]), opening_key, signer)
    assert dataclasses.replace(message.manifest, payload_bytes=0, pieces=()) == sent


def test_same_content_sealed_twice_has_one_identity(signer, opening_key, other_key):
    first = opened(seal_bytes(manifest(), b"x", signer, [opening_key.public]), opening_key, signer)
    second = opened(seal_bytes(manifest(), b"x", signer, [other_key.public]), other_key, signer)
    third = opened(seal_bytes(manifest(), b"y", signer, [opening_key.public]), opening_key, signer)
    assert first.manifest_digest == second.manifest_digest != third.manifest_digest


def test_class_body_is_sealed_once_and_opened_by_each_partner(signer, opening_key, other_key):
    body = io.BytesIO()
    payload = hashlib.shake_256(b"class").digest(PIECE_BYTES + 10)
    sealed = seal(manifest(audience=view_audience(VIEW)), io.BytesIO(payload), body, signer)
    assert sealed.body_bytes == len(body.getvalue())
    digests = set()
    for key, without in ((opening_key, other_key), (other_key, opening_key)):
        raw = sealed.header_for(key.public) + body.getvalue()
        message = opened(raw, key, signer, audiences={view_audience(VIEW)})
        assert message.read_payload(len(payload)) == payload
        digests.add(message.manifest_digest)
        with pytest.raises(VerificationError):
            opened(raw, without, signer, audiences={view_audience(VIEW)})
    assert digests == {sealed.manifest_digest}


def test_payload_is_read_from_where_it_stands(signer, opening_key):
    payload, body = io.BytesIO(b"before|after"), io.BytesIO()
    payload.seek(7)
    sealed = seal(manifest(), payload, body, signer)
    raw = sealed.header_for(opening_key.public) + body.getvalue()
    assert opened(raw, opening_key, signer).read_payload(10) == b"after"


def test_overlapping_opening_keys_are_tried(signer, opening_key, other_key):
    raw = seal_bytes(manifest(), b"x", signer, [opening_key.public])
    message = open_envelope(
        io.BytesIO(raw), [other_key, opening_key], lambda sender: (signer.public,), now=NOW, audiences=US
    )
    assert message.read_payload(1) == b"x"


def test_256_mib_stream_through_in_constant_memory(signer, opening_key, tmp_path):
    size = 256 * PIECE_BYTES
    with (tmp_path / "payload").open("wb") as file:
        file.truncate(size)
    tracemalloc.start()
    with (tmp_path / "payload").open("rb") as payload, (tmp_path / "body").open("w+b") as body:
        sealed = seal(manifest(), payload, body, signer)
        body.seek(0)
        header = io.BytesIO(sealed.header_for(opening_key.public))
        message = opened(Joined(header, body), opening_key, signer)
        with open(os.devnull, "wb") as sink:
            message.copy_payload(sink)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert message.manifest.payload_bytes == size
    assert peak_bytes < 8 * PIECE_BYTES


# Refusals


def test_every_flipped_byte_of_an_envelope_is_refused(signer, opening_key):
    raw = seal_bytes(manifest(), b"a small payload", signer, [opening_key.public])
    for position in range(len(raw)):
        flipped = raw[:position] + bytes([raw[position] ^ 1]) + raw[position + 1 :]
        with pytest.raises(GatewayError):
            opened(flipped, opening_key, signer).read_payload(100)


def test_every_truncation_is_refused(signer, opening_key):
    payload = bytes(PIECE_BYTES + 5)
    raw = seal_bytes(manifest(), payload, signer, [opening_key.public])
    chunk = age.CHUNK_BYTES + age.TAG_BYTES
    header = len(raw) - len(raw[raw.index(b"\n--- ") :]) + 49
    edges = {header + 16 + n * chunk for n in range(18)} | {0, header, header + 16, len(raw)}
    for cut in sorted({max(edge + step, 0) for edge in edges for step in (-1, 0, 1)}):
        if cut < len(raw):
            with pytest.raises(GatewayError):
                opened(raw[:cut], opening_key, signer).read_payload(len(payload))


def test_bytes_after_the_envelope_are_refused(signer, opening_key):
    raw = seal_bytes(manifest(), b"x", signer, [opening_key.public])
    with pytest.raises(VerificationError):
        opened(raw + b"x", opening_key, signer).read_payload(10)


@pytest.mark.parametrize("payload", [b"payloae", b"payloa", b"payload!", b""])
def test_payload_that_was_not_signed_is_refused(signer, opening_key, payload):
    signed = seal(manifest(), io.BytesIO(b"payload"), io.BytesIO(), signer).dsse
    raw = sealed_frame(struct.pack(">I", len(signed)) + signed + payload, opening_key)
    sink = io.BytesIO()
    with pytest.raises(VerificationError):
        opened(raw, opening_key, signer).copy_payload(sink)
    assert sink.getvalue() in (b"", b"payload")


def test_no_byte_of_a_wrong_piece_is_handed_on(signer, opening_key):
    payload = bytearray(hashlib.shake_256(b"pieces").digest(3 * PIECE_BYTES))
    signed = seal(manifest(), io.BytesIO(payload), io.BytesIO(), signer).dsse
    payload[PIECE_BYTES + 100] ^= 1
    sink = io.BytesIO()
    with pytest.raises(VerificationError):
        opened(
            sealed_frame(struct.pack(">I", len(signed)) + signed + payload, opening_key), opening_key, signer
        ).copy_payload(sink)
    assert sink.getvalue() == bytes(payload[:PIECE_BYTES])


def test_wrong_signer_is_refused(signer, stranger, opening_key):
    raw = seal_bytes(manifest(), b"x", stranger, [opening_key.public])
    with pytest.raises(VerificationError):
        opened(raw, opening_key, signer)


def test_wrong_recipient_cannot_open(signer, opening_key, other_key):
    raw = seal_bytes(manifest(), b"x", signer, [opening_key.public])
    with pytest.raises(VerificationError):
        opened(raw, other_key, signer)


def test_envelope_for_another_is_refused_even_when_sealed_for_us(signer, opening_key, other_key):
    """Surreptitious forwarding: XB opens what XA sent it and seals it again for XC."""
    ours = opened(seal_bytes(manifest(), b"x", signer, [opening_key.public]), opening_key, signer)
    again = sealed_frame(struct.pack(">I", len(ours.dsse)) + ours.dsse + b"x", other_key)
    with pytest.raises(VerificationError, match="audience"):
        opened(again, other_key, signer, audiences={agency_audience("XC-NCVI")})
    assert opened(again, other_key, signer, audiences=US).read_payload(1) == b"x"


@pytest.mark.parametrize("audiences", [set(), {"agency:XB-NCV"}, {view_audience(VIEW)}, {"agency:XB-NCVI2"}])
def test_other_audiences_are_refused(signer, opening_key, audiences):
    raw = seal_bytes(manifest(), b"x", signer, [opening_key.public])
    with pytest.raises(VerificationError, match="audience"):
        opened(raw, opening_key, signer, audiences=audiences)


def test_time_is_checked_with_five_minutes_of_skew(signer, opening_key):
    raw = seal_bytes(manifest(created=NOW, expires=NOW + 1000), b"x", signer, [opening_key.public])
    for now in (NOW - 300, NOW, NOW + 1300):
        assert opened(raw, opening_key, signer, now=now).read_payload(1) == b"x"
    for now, word in ((NOW - 301, "future"), (NOW + 1301, "expired")):
        with pytest.raises(VerificationError, match=word):
            opened(raw, opening_key, signer, now=now)


def test_manifest_is_never_judged_before_its_signature(signer, stranger, opening_key):
    # Expired, for somebody else, and badly signed: only the signature is spoken of.
    raw = seal_bytes(manifest(created=1, expires=2, audience="agency:XC-NCVI"), b"x", stranger, [opening_key.public])
    with pytest.raises(VerificationError, match="signature"):
        opened(raw, opening_key, signer)


def test_unknown_sender_is_refused_by_whoever_knows_the_keys(signer, opening_key):
    def nobody(sender):
        raise VerificationError("no key is held for this sender")

    raw = seal_bytes(manifest(), b"x", signer, [opening_key.public])
    with pytest.raises(VerificationError, match="no key"):
        open_envelope(io.BytesIO(raw), [opening_key], nobody, now=NOW, audiences=US)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(version="envelope 2"),
        lambda m: m.pop("case"),
        lambda m: m.update(extra=""),
        lambda m: m.update(message_id="0" * 31),
        lambda m: m.update(message_id="A" * 32),
        lambda m: m.update(sender="xa-ncvi"),
        lambda m: m.update(audience="XB-NCVI"),
        lambda m: m.update(audience="agency:"),
        lambda m: m.update(audience="view:" + "5E" * 32),
        lambda m: m.update(audience="everyone"),
        lambda m: m.update(channel="identified-victims"),
        lambda m: m.update(channel="XA-NCVI/../secret"),
        lambda m: m.update(epoch=-1),
        lambda m: m.update(epoch=True),
        lambda m: m.update(epoch="1"),
        lambda m: m.update(from_seq=10),
        lambda m: m.update(expires=m["created"]),
        lambda m: m.update(payload_type="page"),
        lambda m: m.update(purpose="x" * 257),
        lambda m: m.update(purpose="two\nlines"),
        lambda m: m.update(case=None),
        lambda m: m.update(payload_bytes=0),
        lambda m: m.update(payload_bytes=PIECE_BYTES + 1),
        lambda m: m.update(pieces=[]),
        lambda m: m.update(pieces=m["pieces"] * 2),
        lambda m: m.update(pieces=["00"]),
        lambda m: m.update(pieces=[m["pieces"][0].upper()]),
        lambda m: m.update(pieces={}),
    ],
)
def test_manifest_of_another_shape_is_malformed(signer, opening_key, change):
    with pytest.raises(MalformedError):
        opened(forged(signer, opening_key, change=change), opening_key, signer)


def test_manifest_in_another_spelling_is_malformed(signer, opening_key):
    good = seal(manifest(), io.BytesIO(b"payload"), io.BytesIO(), signer).manifest.dump()
    for raw in (good + b"\n", json.dumps(json.loads(good)).encode(), good[:-1] + b',"case":""}', b"", b"null", b"[]"):
        with pytest.raises(MalformedError):
            opened(forged(signer, opening_key, manifest_bytes=raw), opening_key, signer)


def test_manifest_signed_as_another_type_is_refused(signer, opening_key):
    with pytest.raises(VerificationError, match="type"):
        opened(forged(signer, opening_key, payload_type="application/json"), opening_key, signer)


@pytest.mark.parametrize(
    ("word", "frame"),
    [
        ("ends inside", b""),
        ("ends inside", b"\x00\x00\x00"),
        ("no length", struct.pack(">I", 0)),
        ("ends inside", struct.pack(">I", 100) + b"{}"),
        ("members", struct.pack(">I", 2) + b"{}"),
        ("no length", struct.pack(">I", dsse.MAX_DSSE_BYTES + 1) + bytes(dsse.MAX_DSSE_BYTES + 1)),
        ("no length", struct.pack(">I", 2**32 - 1)),
    ],
)
def test_frame_without_a_dsse_is_malformed(signer, opening_key, word, frame):
    with pytest.raises(MalformedError, match=word):
        opened(sealed_frame(frame, opening_key), opening_key, signer)


# Bounds and use


def test_payload_over_the_callers_bound_is_refused_unread(signer, opening_key):
    raw = seal_bytes(manifest(), b"12345", signer, [opening_key.public])
    with pytest.raises(TooLargeError):
        opened(raw, opening_key, signer).read_payload(4)


def test_payload_is_read_once(signer, opening_key):
    message = opened(seal_bytes(manifest(), b"x", signer, [opening_key.public]), opening_key, signer)
    message.copy_payload(io.BytesIO())
    with pytest.raises(ConflictError):
        message.read_payload(1)


def test_largest_manifest_fits_its_bound():
    pieces = ("f" * 64,) * envelope.MAX_PIECES
    text = "\U0010ffff" * 256
    largest = manifest(
        payload_bytes=envelope.MAX_PIECES * PIECE_BYTES,
        pieces=pieces,
        case=text,
        purpose=text,
        payload_type="a" * 63 + "/" + "b" * 127,
        audience=view_audience(VIEW),
        until_seq=canonical.MAX_INTEGER,
    )
    assert envelope.parse_manifest(largest.dump()) == largest
    with pytest.raises(MalformedError):
        manifest(payload_bytes=(envelope.MAX_PIECES + 1) * PIECE_BYTES, pieces=(*pieces, "f" * 64))


def test_payload_that_grows_while_it_is_sealed_is_noticed(signer):
    class Growing(io.BytesIO):
        def seek(self, offset, whence=0):
            self.write(b"more")
            return super().seek(offset, whence)

    with pytest.raises(ConflictError):
        seal(manifest(), Growing(b"short"), io.BytesIO(), signer)


class Fixed:
    """Randomness of a simulation."""

    def bytes(self, count):
        return bytes(range(count))


def test_body_depends_on_the_randomness_given(signer):
    # ML-DSA signatures differ from run to run, so only the nonce can be compared.
    body = io.BytesIO()
    seal(manifest(), io.BytesIO(b"x"), body, signer, Fixed())
    assert body.getvalue().startswith(bytes(range(16)))


# Vectors of the contract


def test_vectors_of_the_contract_end_with_their_words():
    index = json.loads((VECTORS / "index.json").read_text())
    opening_key = OpeningKey.parse(index["identity"])
    signer = SigningKey.from_seeds(*(bytes.fromhex(seed) for seed in index["signing_seeds"]))
    seen = set()
    for vector in index["vectors"]:
        raw = (VECTORS / vector["file"]).read_bytes()
        try:
            message = opened(raw, opening_key, signer, now=index["now"], audiences={index["audience"]})
            payload = message.read_payload(1000)
            word = "success"
            assert hashlib.sha256(payload).hexdigest() == vector["payload_sha256"]
            assert message.manifest_digest == vector["manifest_digest"]
        except VerificationError:
            word = "refused"
        except MalformedError:
            word = "malformed"
        assert word == vector["expect"], vector["file"]
        seen.add(word)
    assert seen == {"success", "refused", "malformed"}
