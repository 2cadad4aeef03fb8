"""Rows and blocks of made-up entries for the tests of `gateway.columns`."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable

from gateway.columns import Block, Rows, encode_block
from gateway.columns.rows import COLUMNS

SET = "XA-NCVI/identified-victims"
LABEL_DIGEST = hashlib.sha256(b"a made-up label").digest()


def salts() -> Callable[[], bytes]:
    """Salts that differ from each other and are the same in every run."""
    counter = itertools.count(1)
    return lambda: next(counter).to_bytes(16, "big")


def octets(name: str, entry: int, version: int = 1) -> bytes:
    """A digest of a made-up string, at the width of its column."""
    return hashlib.shake_256(f"{name} {entry} {version}".encode()).digest(COLUMNS[name].width)


def sample(n: int, *, first: int = 1, digests: tuple[str, ...] = ("md5", "sha256", "pdq"), **more: object) -> Rows:
    """n asserts with the reference shape; `more` adds or replaces columns."""
    columns: dict[str, object] = {
        "kind": [1] * n,
        "seq": range(first, first + n),
        "entry_id": [(1 << 48) + i for i in range(first, first + n)],
        "version": [1] * n,
        "changed_at": [1_790_000_000] * n,
        **{name: [octets(name, first + i) for i in range(n)] for name in digests},
        **more,
    }
    return Rows.of(n, columns)  # type: ignore[arg-type]


def rich(n: int, *, first: int = 1) -> Rows:
    """n asserts with something in every part."""
    return sample(
        n,
        first=first,
        digests=("md5", "sha1", "sha256", "sha512", "pdq", "photodna"),
        seen=[1_750_000_000 + 977 * i * i % 100_003 for i in range(n)],
        media_type=["image/jpeg"] * n,
        pdq_quality=[50 + i * 7 % 51 for i in range(n)],
        ssdeep=[f"3:abc{i}:def{i}" for i in range(n)],
        series=[("Brückenhaus", "", "Nordlicht")[i % 3] for i in range(n)],
        victim_ref=[f"XA-V-{i // 4:06d}" for i in range(n)],
        status_at=[1_780_000_000 + 86_400 * i for i in range(n)],
        status_owner=["XA-NCVI"] * n,
        source_ref=[f"2026/{i:05d}" for i in range(n)],
        prev_seq=[0] * n,
        prev_label=[0] * n,
    )


def block_of(rows: Rows, *, label: int = 3, label_digest: bytes = LABEL_DIGEST) -> Block:
    """These rows as a block of the sample set."""
    return encode_block(set_name=SET, epoch=1, label=label, label_digest=label_digest, rows=rows, salt=salts())
