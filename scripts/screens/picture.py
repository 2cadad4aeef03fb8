"""A picture of what a browser shows, as a small PNG with a palette.

The browser itself decodes its screenshot into pixels, so no library of pictures is needed.
"""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np
from selenium.webdriver import Chrome

SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLOURS = 256
# On an empty page of its own, where no policy of the console holds.
DECODE = """
const [encoded, done] = arguments;
fetch("data:image/png;base64," + encoded)
  .then((answer) => answer.blob()).then((blob) => createImageBitmap(blob)).then((bitmap) => {
    const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
    const context = canvas.getContext("2d");
    context.drawImage(bitmap, 0, 0);
    const pixels = context.getImageData(0, 0, bitmap.width, bitmap.height).data;
    let text = "";
    for (let at = 0; at < pixels.length; at += 32768) text += String.fromCharCode(...pixels.subarray(at, at + 32768));
    done([bitmap.width, bitmap.height, btoa(text)]);
  }).catch((error) => done(String(error)));
"""


def take(driver: Chrome) -> bytes:
    """The page that the browser shows, as a PNG."""
    encoded = driver.get_screenshot_as_base64()
    shown = driver.current_window_handle
    driver.switch_to.new_window("tab")
    try:
        width, height, pixels = driver.execute_async_script(DECODE, encoded)
    finally:
        driver.close()
        driver.switch_to.window(shown)
    octets = np.frombuffer(base64.b64decode(pixels), np.uint8).reshape(height, width, 4)
    return png(octets[:, :, :3])


def png(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    """A PNG of RGB pixels with at most 256 colours; where there are more, the rare ones become their neighbours."""
    height, width, _ = pixels.shape
    colours, places, counts = np.unique(pixels.reshape(-1, 3), axis=0, return_inverse=True, return_counts=True)
    palette = colours[np.sort(np.argsort(-counts)[:COLOURS])]
    far = np.square(colours[:, None, :].astype(np.int32) - palette[None, :, :].astype(np.int32)).sum(axis=2)
    rows = far.argmin(axis=1).astype(np.uint8)[places.reshape(-1)].reshape(height, width)
    lines = np.concatenate([np.zeros((height, 1), np.uint8), rows], axis=1)  # filter 0: best for palettes
    head = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    chunks = (
        (b"IHDR", head),
        (b"PLTE", palette.tobytes()),
        (b"IDAT", zlib.compress(lines.tobytes(), 9)),
        (b"IEND", b""),
    )
    return SIGNATURE + b"".join(map(_chunk, chunks))


def _chunk(chunk: tuple[bytes, bytes]) -> bytes:
    kind, data = chunk
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
