"""The pictures of the console: small files that hold what was on the screen."""

from __future__ import annotations

import re
import runpy
import struct
import zlib
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
PICTURES = sorted((ROOT / "docs" / "screens").glob("*.png"))
PNG = runpy.run_path(str(ROOT / "scripts" / "screens" / "picture.py"))["png"]
MAX_BYTES = 120 << 10
PALETTE = 3


def chunks(raw: bytes) -> dict[bytes, bytes]:
    assert raw.startswith(b"\x89PNG\r\n\x1a\n")
    found, at = {}, 8
    while at < len(raw):
        [length], kind = struct.unpack_from(">I", raw, at), raw[at + 4 : at + 8]
        data = raw[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", raw, at + 8 + length) == (zlib.crc32(kind + data),)
        found[kind], at = data, at + 12 + length
    return found


def pixels(raw: bytes) -> np.ndarray:
    parts = chunks(raw)
    width, height, depth, colours, *_ = struct.unpack(">IIBBBBB", parts[b"IHDR"])
    assert (depth, colours) == (8, PALETTE)
    lines = np.frombuffer(zlib.decompress(parts[b"IDAT"]), np.uint8).reshape(height, width + 1)
    assert not lines[:, 0].any()
    return np.frombuffer(parts[b"PLTE"], np.uint8).reshape(-1, 3)[lines[:, 1:]]


def test_a_picture_of_few_colours_is_kept_as_it_was() -> None:
    source = np.random.default_rng(1)
    shown = source.integers(0, 256, (200, 3), dtype=np.uint8)[source.integers(0, 200, (30, 50))]
    assert (pixels(PNG(shown)) == shown).all()


def test_a_picture_of_many_colours_keeps_the_common_ones() -> None:
    shown = np.random.default_rng(2).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    shown[:, 20:] = (7, 8, 9)
    kept = pixels(PNG(shown))
    assert (kept[:, 20:] == (7, 8, 9)).all()
    assert np.abs(kept.astype(int) - shown.astype(int)).max() < 128


def test_the_pictures_of_the_documentation_are_small_by_day_and_by_night_and_are_used() -> None:
    names = {one.stem for one in PICTURES}
    text = (ROOT / "docs" / "console.md").read_text(encoding="utf-8")
    assert names == set(re.findall(r"screens/([a-z-]+-(?:light|dark))\.png", text))
    assert {one.removesuffix("-light") for one in names if one.endswith("light")} == {
        one.removesuffix("-dark") for one in names if one.endswith("dark")
    }
    assert len(names) == 16
    for one in PICTURES:
        assert one.stat().st_size < MAX_BYTES, one.name
        assert pixels(one.read_bytes()).shape == (900, 1366, 3)
