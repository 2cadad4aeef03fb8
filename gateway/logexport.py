"""The audit log as files: all that a proof needs, and no key but the log's public one.

    log.vkey                         the verifier string; compare it with the one in the identity card
    checkpoint                       the newest signed tree head (C2SP tlog-checkpoint)
    cosigned                         the largest tree head that partners cosigned, if there is any
    tile/<level>/…, tile/entries/…   the tree and its entries (C2SP tlog-tiles)
    leaves.jsonl                     index, entry, event and salt of each leaf
    checkpoints.jsonl                every signed tree head

`gateway audit verify --folder` proves such a folder, and so do tools that know nothing of this program.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from gateway.audit import LeafRow
from gateway.crypto import canonical
from gateway.errors import ConfigError, NotFoundError
from gateway.node import Node, own_log
from gateway.witness import WitnessDesk

TILE_HASHES = 256  # C2SP tlog-tiles


def export_log(node: Node, folder: Path, *, told: Callable[[int, int], None] = lambda _done, _all: None) -> int:
    """The log is in a new folder, as it was when this began; returns its size. Events are readable in it.

    The newest checkpoint is read first, and nothing after it: leaves are only ever added.

    Args:
        told: told (leaves written, leaves in all) on the way.

    Raises:
        ConfigError: the folder is there already, or cannot be written.
    """
    try:
        folder.mkdir(parents=True, mode=0o700)
    except OSError as error:
        raise ConfigError(
            f"the folder cannot be made: {error.strerror}", remedy="name one that is not there"
        ) from error
    with node.store.reading() as tx:
        key, size, note = own_log(node, tx).verifier, tx.log.size(), tx.log.latest_checkpoint()
        heads = list(tx.log.checkpoints())
    _write(folder / "log.vkey", f"{key}\n".encode())
    _write(folder / "checkpoint", note)
    with suppress(NotFoundError):
        _write(folder / "cosigned", WitnessDesk(node).cosigned_note())
    with _lines(folder / "checkpoints.jsonl") as sink:
        for head in heads:
            sink.write(canonical.encode({"size": head.size, "note": head.note.decode()}) + b"\n")
    with _lines(folder / "leaves.jsonl") as sink:
        for start in range(0, size, TILE_HASHES):
            with node.store.reading() as tx:  # short: an open reader would block every commit
                leaves = list(tx.log.leaves(start, min(start + TILE_HASHES, size)))
            for leaf in leaves:
                sink.write(canonical.encode(_leaf_value(leaf)) + b"\n")
            bundle = b"".join(len(leaf.entry).to_bytes(2, "big") + leaf.entry for leaf in leaves)
            _write(folder / _tile_path("entries", start // TILE_HASHES, len(leaves)), bundle)
            told(start + len(leaves), size)
    _export_tiles(node, folder, size)
    return size


def _export_tiles(node: Node, folder: Path, size: int) -> None:
    """Tile n of level l holds the roots of the complete subtrees of 2^8l leaves from 256n on (C2SP tlog-tiles)."""
    level = 0
    while (count := size >> 8 * level) > 0:
        for start in range(0, count, TILE_HASHES):
            width = min(TILE_HASHES, count - start)
            with node.store.reading() as tx:
                hashes = b"".join(tx.log.read_node(8 * level, index) for index in range(start, start + width))
            _write(folder / _tile_path(str(level), start // TILE_HASHES, width), hashes)
        level += 1


def _tile_path(level: str, number: int, width: int) -> Path:
    """C2SP tlog-tiles: three digits a folder, all but the last with an x; a partial tile says its width."""
    groups = [f"{number % 1000:03d}"]
    while number >= 1000:
        number //= 1000
        groups.insert(0, f"x{number % 1000:03d}")
    path = Path("tile", level, *groups)
    return path if width == TILE_HASHES else path.with_name(f"{path.name}.p") / str(width)


def _leaf_value(leaf: LeafRow) -> dict[str, object]:
    return {
        "index": leaf.index,
        "entry": leaf.entry.hex(),
        "event": None if leaf.event_bytes is None else leaf.event_bytes.decode(),
        "salt": None if leaf.salt is None else leaf.salt.hex(),
    }


@contextmanager
def _lines(path: Path) -> Iterator[IO[bytes]]:
    try:
        with path.open("wb") as sink:
            yield sink
    except OSError as error:
        raise ConfigError(f"the export cannot be written: {error.strerror}") from error


def _write(path: Path, raw: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(raw)
    except OSError as error:
        raise ConfigError(f"the export cannot be written: {error.strerror}") from error
