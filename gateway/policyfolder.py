"""Writing a gateway's policy folder: what administrators brought into force, for people to read, with its `LOCK`.

Every file is put in place whole, and `LOCK` last: as long as it is the one of before, writing was not finished, and
each file is either as it was before or as it will be (`activation` tells both apart from anything else).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from gateway.config import LOCK
from gateway.errors import ConfigError


def write_policy_folder(folder: Path, files: Mapping[str, str], stale: set[str], lock: str) -> None:
    """The folder holds these files and this LOCK, and no longer those that are stale.

    Raises:
        ConfigError: it cannot be written.
    """
    name = LOCK
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, text in sorted(files.items()):
            _put(folder / name, text)
        for name in sorted(stale):
            (folder / name).unlink(missing_ok=True)
        name = LOCK
        _put(folder / LOCK, lock)
    except OSError as error:
        raise ConfigError(
            f"the policy folder cannot be written: {error.strerror}",
            place=name,
            remedy="let this user write it; the next start tries again",
        ) from error


def _put(path: Path, text: str) -> None:
    """The file holds this text, and did not hold half of it for a moment."""
    raw = text.encode()
    if path.is_file() and not path.is_symlink() and path.read_bytes() == raw:
        return
    path.parent.mkdir(mode=0o700, exist_ok=True)
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as file:
        file.write(raw)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
