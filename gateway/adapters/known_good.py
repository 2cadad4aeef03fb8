"""Lists of known-good digests, as they are handed about: plain, or a table whose columns are digests.

    plain    one hexadecimal digest a line, as `digest_list` reads it
    table    CSV with a heading: the columns MD5, SHA-1, SHA-256 and SHA-512 are read, whatever else is there. So are
             the files of NIST's National Software Reference Library (`"SHA-1","MD5","CRC32","FileName",…`)

A bad line is refused by itself. Everything but the digests stays unread; names of files are in no encoding that anybody
promises. A list of any length is read in constant memory.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import BinaryIO

from gateway.adapters import digest_list
from gateway.adapters.rows import ReadOptions
from gateway.columns.rows import Rows
from gateway.errors import MalformedError
from gateway.model import CRYPTOGRAPHIC, AdapterReport

MAX_LINE_BYTES = 65_536
ROWS_AT_ONCE = 16_384
_NAMES = {name.upper(): name for name in CRYPTOGRAPHIC}
_EMPTY = frozenset({"", "-"})


def read(source: BinaryIO, report: AdapterReport, column: str = "") -> Iterator[Rows]:
    """The digests of a list, as rows of one digest column each.

    Args:
        column: of a table the one column to read, by its heading; "" for all whose heading is an algorithm.

    Raises:
        MalformedError: a table without such a column.
    """
    first = source.readline(MAX_LINE_BYTES)
    heading = _cells(first) or []
    wanted = _columns(heading, column)
    if wanted:
        yield from _table(source, report, wanted)
    elif column or len(heading) > 1:
        raise MalformedError("the table has no column of digests", place="line 1", remedy="name it with --column")
    else:
        lines = _Joined(first, source)
        for batch in digest_list.read(lines, report, ReadOptions()):  # type: ignore[arg-type]  # it reads alone
            yield from (group.rows for group in batch.groups if group.rows.n)


class _Joined:
    """A stream from its beginning again, though its first line was read."""

    def __init__(self, first: bytes, source: BinaryIO) -> None:
        self._first = first
        self._source = source

    def read(self, count: int = -1, /) -> bytes:
        if self._first:
            given = self._first if count < 0 else self._first[:count]
            self._first = self._first[len(given) :]
            return given if count >= 0 else given + self._source.read()
        return self._source.read(count)


def _columns(heading: Sequence[str], column: str) -> dict[int, str]:
    """Which columns are read: the algorithm of each, "" where its length says it."""
    if column:
        return {at: "" for at, one in enumerate(heading) if one.strip().casefold() == column.strip().casefold()}
    named = ((at, _NAMES.get("".join(c for c in one.upper() if c.isalnum()), "")) for at, one in enumerate(heading))
    return {at: name for at, name in named if name}


def _table(source: BinaryIO, report: AdapterReport, wanted: dict[int, str]) -> Iterator[Rows]:
    found: dict[str, list[bytes]] = {}
    count = 0
    for number, line in enumerate(chain(iter(lambda: source.readline(MAX_LINE_BYTES), b"")), 2):
        if not line.strip():
            continue
        report.read += 1
        try:
            digests = _digests(line, wanted)
        except MalformedError as error:
            report.refuse(number, error.place or "", error.message)
            continue
        report.accepted += 1
        for name, value in digests:
            found.setdefault(name, []).append(value)
            count += 1
        if count >= ROWS_AT_ONCE:
            yield from _rows(found)
            found, count = {}, 0
    yield from _rows(found)


def _rows(found: dict[str, list[bytes]]) -> Iterator[Rows]:
    for name, values in sorted(found.items()):
        yield Rows.of(len(values), {name: values})


def _digests(line: bytes, wanted: dict[int, str]) -> list[tuple[str, bytes]]:
    cells = _cells(line)
    if cells is None or len(cells) <= max(wanted):
        raise MalformedError("the line is no row of the table", place="line")
    found = []
    for at, name in wanted.items():
        text = cells[at].strip()
        if text in _EMPTY:
            continue
        algorithm = digest_list.ALGORITHM_BY_DIGITS.get(len(text), "")
        if not algorithm or name not in ("", algorithm):
            raise MalformedError("not as many digits as a digest has", place=name or "column")
        try:
            found.append((algorithm, bytes.fromhex(text)))
        except ValueError as error:
            raise MalformedError("not hexadecimal", place=algorithm) from error
    if not found:
        raise MalformedError("no digest", place="line")
    return found


def _cells(line: bytes) -> list[str] | None:
    """The cells of one line; Latin-1 gives every byte a character, and a digest has none beyond ASCII."""
    try:
        rows = list(csv.reader([line.decode("latin-1").rstrip("\r\n")]))
    except csv.Error:
        return None
    return rows[0] if rows else []
