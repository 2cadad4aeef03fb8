"""The envelope beside the cipher it is made of."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from io import BytesIO

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from measure import Bar, Figure, Run, Scale, compare, timed
from worlds import FOLLOWER, HUB

from gateway.crypto import age, envelope
from gateway.crypto.keys import SYSTEM_RANDOM, OpeningKey, SigningKey, new_message_id

MIB = 1 << 20
PAGE_MIB = 5  # 65,536 changes of the reference shape
NOW = 1_795_000_000
RAW, OPENSSL = "ChaCha20-Poly1305, 64 KiB, in memory", "openssl speed chacha20-poly1305, 64 KiB"


def bench_envelope(scale: Scale) -> Iterator[Figure]:
    """Sealing and opening pages of full size: age alone, and the whole envelope with pieces hashed and signed."""
    payload, times = SYSTEM_RANDOM.bytes(PAGE_MIB * MIB), scale.size(20, 1)
    units = PAGE_MIB * times
    signing, opening = SigningKey.generate(), OpeningKey.generate()
    aead = _Raw(payload)
    body, sealed = BytesIO(), BytesIO()
    manifest = envelope.Manifest(
        message_id=new_message_id(),
        sender=HUB,
        audience=envelope.agency_audience(FOLLOWER),
        channel=envelope.MAILBOX,
        epoch=0,
        from_seq=0,
        until_seq=0,
        created=NOW,
        expires=NOW + 3600,
        payload_type="application/octet-stream",
    )

    def age_seal() -> None:
        body.seek(0)
        age.encrypt([opening.public], BytesIO(payload), body)

    def age_open() -> None:
        stream = age.open_stream([opening], BytesIO(body.getvalue()))
        assert sum(len(piece) for piece in iter(partial(stream.read, MIB), b"")) == len(payload)

    def envelope_seal() -> None:
        sealed.seek(0)
        sealed.write(envelope.seal_bytes(manifest, payload, signing, [opening.public]))

    def envelope_open() -> None:
        opened = envelope.open_envelope(
            BytesIO(sealed.getvalue()),
            [opening],
            lambda _sender: (signing.public,),
            now=NOW,
            audiences={envelope.agency_audience(FOLLOWER)},
        )
        assert opened.read_payload(len(payload)) == payload

    pairs: list[tuple[str, Callable[[], None], Callable[[], None]]] = [
        ("age-seal", age_seal, aead.seal),
        ("age-open", age_open, aead.open),
        ("envelope-seal", envelope_seal, aead.seal),
        ("envelope-open", envelope_open, aead.open),
    ]
    for name, product, raw in pairs:
        baselines: dict[str, Callable[[], Run]] = {RAW: partial(timed, partial(_repeat, raw, times), units)}
        if name.startswith("age") and not scale.quick and shutil.which("openssl"):  # it takes its second each time
            baselines[OPENSSL] = _openssl
        bars = {OPENSSL: Bar(8, at_least=0.8)}
        run = partial(timed, partial(_repeat, product, times), units)
        yield from compare(name, run, baselines, unit="MiB/s", rounds=scale.rounds, bars=bars)


def _repeat(function: Callable[[], None], times: int) -> None:
    for _ in range(times):
        function()


class _Raw:
    """The cipher alone over the same payload."""

    def __init__(self, payload: bytes) -> None:
        self._cipher = ChaCha20Poly1305(bytes(32))
        self._chunks = [payload[at : at + age.CHUNK_BYTES] for at in range(0, len(payload), age.CHUNK_BYTES)]
        self._sealed: list[bytes] = []
        self.seal()

    def seal(self) -> None:
        encrypt = self._cipher.encrypt
        self._sealed = [encrypt(i.to_bytes(12, "big"), chunk, None) for i, chunk in enumerate(self._chunks)]

    def open(self) -> None:
        decrypt = self._cipher.decrypt
        assert [decrypt(i.to_bytes(12, "big"), one, None) for i, one in enumerate(self._sealed)] == self._chunks


def _openssl() -> Run:
    command = ["openssl", "speed", "-seconds", "1", "-bytes", "65536", "-evp", "chacha20-poly1305"]
    said = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    found = re.search(r"ChaCha20-Poly1305\s+([\d.]+)k", said)
    assert found, "openssl speed prints thousands of bytes a second"
    return Run(1.0, float(found[1]) * 1000 / MIB)
