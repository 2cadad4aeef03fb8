"""A policy folder as a ZIP archive, as people send one to the console. Nothing of it is written to a disk.

Rules:

1. The archive is hostile until it has been read: its size, the number of its members, the size of each and of all
   together are bounded, by what is really unpacked and not by what the archive says.
2. A member is an ordinary file, stored or deflated, not encrypted, under a relative path without `..`, each once.
3. What a policy folder may hold is taken (`config.is_policy_file`); another jurisdiction's rules, templates, `LOCK` and
   the like are left out, as a gateway never opens them. Anything else is refused, as in a folder.
4. The folder itself may stand in the archive: `policies/XA/national.cedar` is `XA/national.cedar`.

Standard: PKWARE APPNOTE 6.3.10, through the standard library.
"""

from __future__ import annotations

import io
import stat
import zipfile
import zlib
from collections.abc import Sequence

from gateway.config import MAX_POLICY_BYTES, MAX_POLICY_FILES, is_policy_file, may_lie_beside
from gateway.errors import MalformedError, TooLargeError
from gateway.policy import SCHEMA

MAX_ARCHIVE_BYTES = 4 << 20  # a policy of a thousand rules is 1 MiB before it is packed
MAX_MEMBERS = 2 * MAX_POLICY_FILES  # with what is left out
MAX_UNPACKED_BYTES = 8 << 20
MAX_PATH_CHARS = 200
_SPECIAL = "the archive holds something else than ordinary files"


def read_archive(raw: bytes, jurisdiction: str) -> dict[str, str]:
    """The files of a policy: relative path to content, as `config.read_policy_files` gives those of a folder.

    Raises:
        MalformedError: not such an archive; `place` names the member.
        TooLargeError: a bound is passed.
    """
    if len(raw) > MAX_ARCHIVE_BYTES:
        raise TooLargeError(f"the archive is larger than {MAX_ARCHIVE_BYTES} bytes")
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            return _read(archive, jurisdiction)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise MalformedError("this is not a ZIP archive that can be read") from error


def _read(archive: zipfile.ZipFile, jurisdiction: str) -> dict[str, str]:
    members = archive.infolist()
    if len(members) > MAX_MEMBERS:
        raise TooLargeError(f"the archive holds more than {MAX_MEMBERS} files")
    for one in members:
        _check_member(one)
    files = [one for one in members if not one.is_dir()]
    folder = _folder([one.filename for one in files])
    found: dict[str, str] = {}
    unpacked = 0
    for one in files:
        path = one.filename.removeprefix(folder)
        if path == one.filename and folder:
            raise MalformedError("the archive holds more than a policy folder", place=one.filename)
        if not is_policy_file(path, jurisdiction):
            if may_lie_beside(path, jurisdiction):
                continue
            raise MalformedError("an unexpected file among the policies", place=path)
        if path in found:
            raise MalformedError("the archive holds a file twice", place=path)
        raw = _unpacked(archive, one, path)
        unpacked += len(raw)
        if unpacked > MAX_UNPACKED_BYTES or len(found) == MAX_POLICY_FILES:
            raise TooLargeError("the archive holds more than a policy does")
        try:
            found[path] = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise MalformedError("the file is not UTF-8", place=path) from error
    return found


def _check_member(one: zipfile.ZipInfo) -> None:
    """Before anything is unpacked: an honest path, an ordinary file or folder."""
    name = one.orig_filename
    parts = name.rstrip("/").split("/")
    fine = name.isprintable() and len(name) <= MAX_PATH_CHARS and not {"", ".", ".."} & set(parts)
    if not fine or "\\" in name or ":" in name or name != one.filename:
        raise MalformedError("a path in the archive is not a plain relative one")
    mode = one.external_attr >> 16  # Unix: the file's mode; 0 where another system packed it
    kind = stat.S_IFMT(mode)
    if kind not in (0, stat.S_IFDIR if one.is_dir() else stat.S_IFREG) or one.flag_bits & 0x1:
        raise MalformedError(_SPECIAL, place=name)
    if one.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise MalformedError(_SPECIAL, place=name)


def _folder(names: Sequence[str]) -> str:
    """The folder in which all of it stands in the archive, "" or "policies/"."""
    schemas = [name for name in names if name == SCHEMA or (name.count("/") == 1 and name.endswith(f"/{SCHEMA}"))]
    if len(schemas) != 1:
        raise MalformedError("the archive is not one policy folder: it must hold one schema", place=SCHEMA)
    return schemas[0].removesuffix(SCHEMA)


def _unpacked(archive: zipfile.ZipFile, one: zipfile.ZipInfo, path: str) -> bytes:
    with archive.open(one) as source:
        raw = source.read(MAX_POLICY_BYTES + 1)
    if len(raw) > MAX_POLICY_BYTES:
        raise TooLargeError(f"the file is larger than {MAX_POLICY_BYTES} bytes", place=path)
    return raw
