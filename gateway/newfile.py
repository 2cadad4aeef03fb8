"""New files that are whole or not there: written to a draft beside their place, synced, put in place under their name.

    with new_file(path, "backup") as sink:
        sink.write(b"…")

A draft is readable by its owner alone, and gone when the block ends, however it ends. What a killed program left lies
beside as `.NAME.….part`; the next one that writes a file of that name removes it, unless somebody is still writing it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.errors import ConfigError

DRAFT_SUFFIX = ".part"


class Pulled:
    """Pieces that are made one after the other, as a stream that is read.

    Args:
        told: told (bytes read so far, 0) at each reading.
    """

    def __init__(self, pieces: Iterator[bytes], told: Callable[[int, int], None] = lambda _done, _all: None) -> None:
        self._pieces = pieces
        self._left = memoryview(b"")
        self._told = told
        self._done = 0

    def read(self, count: int, /) -> bytes:
        """At most `count` bytes; none at the end."""
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._left = memoryview(piece)
        taken, self._left = bytes(self._left[:count]), self._left[count:]
        self._done += len(taken)
        self._told(self._done, 0)
        return taken


class Sink:
    """A file that is hashed and counted as it is written."""

    def __init__(self, descriptor: int) -> None:
        self._file = os.fdopen(descriptor, "wb")
        self._hash = hashlib.sha256()
        self.size = 0

    @property
    def digest(self) -> str:
        """SHA-256 of what was written, hex."""
        return self._hash.hexdigest()

    def write(self, raw: bytes | memoryview, /) -> None:
        """Take all of `raw`."""
        self._file.write(raw)
        self._hash.update(raw)
        self.size += len(raw)

    def sync(self) -> None:
        """What was written is on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """End it."""
        self._file.close()


@contextmanager
def new_file(path: Path, what: str) -> Iterator[Sink]:
    """A file of mode 0600 that is at `path` when the block ends well, and nowhere when it does not.

    Args:
        what: what it is called in an error: backup, file.

    Raises:
        ConfigError: a file of that name is there, or it cannot be written.
    """
    remedy = f"choose another name: no {what} is written over"
    taken = ConfigError("a file of this name is already there", remedy=remedy)
    if os.path.lexists(path):  # said at once, not after an hour
        raise taken
    try:
        _sweep(path)
        folder = path.absolute().parent
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=DRAFT_SUFFIX, dir=folder)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        sink, draft = Sink(descriptor), Path(name)
        try:
            yield sink
            sink.sync()
            os.link(draft, path)  # unlike a rename this fails where a file has come meanwhile
        finally:
            sink.close()
            draft.unlink(missing_ok=True)
        _sync_folder(folder)
    except FileExistsError as error:
        raise taken from error
    except OSError as error:
        raise ConfigError(f"the {what} cannot be written: {error.strerror}") from error


def _sweep(path: Path) -> None:
    """Remove drafts of this name that nobody writes any more."""
    for found in path.absolute().parent.iterdir():
        if not (found.name.startswith(f".{path.name}.") and found.suffix == DRAFT_SUFFIX):
            continue
        try:
            descriptor = os.open(found, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError:
            continue  # gone meanwhile, or no file of ours
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found.unlink(missing_ok=True)
        except BlockingIOError:
            continue  # its writer lives
        finally:
            os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
