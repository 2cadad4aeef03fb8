"""The never-again list as a file: to keep it away from the database, and to have it again after a restore.

One line of canonical JSON says whose list it is, one line each row, in order:

    {"agency":"XA-NCVI","never_again":"never-again 1"}
    {"at":1795000000,"kind":"erased","leaf":812,"listing":1,"mac":"…","mark":"…","number":1,"scope":""}

Nobody learns from it what is listed. Each row's MAC covers the row before it, under a key of the keystore, so the file
is taken in only at the gateway that wrote it, and only as it was written; a file that ends earlier is an older file. It
carries no signature: signing keys change, and a gateway that was restored may not know the one of yesterday. The log
names the MAC of the last row after each change, so whoever has the log can tell that a file is the list of that moment.

Where the database is a file, a copy of the list is kept beside it, and goes on with it after each act (`keep`).

Contract: contracts/never-again-1.md.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from gateway.crypto import canonical
from gateway.errors import AuditBrokenError, ConfigError, MalformedError, TooLargeError, VerificationError
from gateway.exchange.neveragain import (
    ERASED,
    EVERYBODY,
    REINSTATED,
    WRONG,
    Listing,
    append,
    gathered,
    listings,
    verified,
)
from gateway.model import int_member, require, text_member
from gateway.node import Node
from gateway.store import Transaction
from gateway.store.neveragain import NeverAgainRow

VERSION = "never-again 1"
FILE = "never-again.jsonl"  # in the data folder
MAX_FILE_BYTES = 1 << 30  # some four million rows
MAX_LINE_BYTES = 1024
_MEMBERS = {"number", "mark", "kind", "scope", "listing", "at", "leaf", "mac"}
_TAIL_BYTES = 2 * MAX_LINE_BYTES


def dump(node: Node, rows: Iterable[NeverAgainRow]) -> Iterator[bytes]:
    """The lines of the file, each with its end."""
    yield _head(node)
    yield from map(_line, rows)


def parse(node: Node, raw: bytes) -> list[NeverAgainRow]:
    """The rows of a file that this gateway wrote. A line that was cut off at the end of the file is passed over.

    Raises:
        MalformedError: not such a file.
        VerificationError: another gateway's, or not as it was written.
    """
    if len(raw) > MAX_FILE_BYTES:
        raise TooLargeError("never-again list: larger than a list can be")
    lines = raw.split(b"\n")[:-1]
    require(lines, "never-again list: not such a file")
    head = _object(lines[0], {"agency", "never_again"})
    require(head["never_again"] == VERSION, "never-again list: not version 1")
    if head["agency"] != node.agency:
        raise VerificationError("this is another agency's never-again list")
    rows = [_row(line) for line in lines[1:]]
    try:
        verified(node, rows)
    except AuditBrokenError as error:
        raise VerificationError("the never-again list in this file is not as this gateway wrote it") from error
    return rows


def unknown(node: Node, tx: Transaction, rows: Iterable[NeverAgainRow]) -> list[Listing]:
    """What the file lists as in force and the list knows nothing of."""
    here = {_identity(one) for one in listings(node, tx)}
    return [one for one in gathered(rows) if not one.reinstated and _identity(one) not in here]


def merge(node: Node, tx: Transaction, rows: Iterable[NeverAgainRow], *, deed: str) -> int:
    """List what the file lists, and lift what it says was lifted; returns how many listings came or were lifted.

    What the list says already stays as it is, so a file is taken in once however often it is given, and an older file
    takes nothing back.
    """
    here = {_identity(one): one for one in listings(node, tx)}
    theirs = gathered(rows)
    new = [one for one in theirs if _identity(one) not in here]
    numbers = append(node, tx, new, details={"deed": deed})
    added = {_identity(one): number for one, number in zip(new, numbers, strict=True)}
    lifted = []
    for one in theirs:
        known = here.get(_identity(one))
        if one.reinstated and _is_news(one, known):
            number = known.number if known is not None else added[_identity(one)]
            lifted.append(Listing(number, REINSTATED, EVERYBODY, one.reinstated, 0, frozenset()))
    append(node, tx, lifted, details={"deed": deed})
    return len(new) + len(lifted)


def keep(node: Node) -> None:
    """The copy beside the database says what the list says; nothing to do where the database is no file.

    A copy that knows more than the list, because the database was restored, is left as it is (`knows_more`).

    Raises:
        ConfigError: it cannot be written.
    """
    path = _path(node)
    with node.store.reading() as tx:
        if path is None or not tx.never_again.end()[0]:
            return
    try:
        with _locked(path) as copy:
            last = _last_row(copy)
            with node.store.reading() as tx:
                goes_on = last is not None and _stands(tx, last)
                if not goes_on and _lacks(node, tx, copy):
                    return
                rows = tx.never_again.since(last.id if last is not None and goes_on else 0)
            if not goes_on:
                copy.truncate(0)
            copy.seek(0, os.SEEK_END)
            copy.writelines(map(_line, rows) if goes_on else dump(node, rows))
            copy.flush()
            os.fsync(copy.fileno())
    except OSError as error:
        raise ConfigError(
            f"the copy of the never-again list cannot be written: {error.strerror}",
            remedy=f"look at {FILE} in the data folder; the list itself is in the database, and what was done is done",
        ) from error


def knows_more(node: Node) -> bool:
    """Whether the copy beside the database lists something that the list does not: the database is an older one."""
    path = _path(node)
    if path is None or not path.exists():
        return False
    try:
        with path.open("rb") as copy, node.store.reading() as tx:
            return _lacks(node, tx, copy)
    except OSError as error:
        raise ConfigError(f"the copy of the never-again list cannot be read: {error.strerror}") from error


def _lacks(node: Node, tx: Transaction, copy: BinaryIO) -> bool:
    """Whether the list lacks anything of a copy. What this gateway did not write says nothing."""
    copy.seek(0)
    try:
        theirs = gathered(parse(node, copy.read(MAX_FILE_BYTES + 1)))
    except (MalformedError, VerificationError):
        return False
    here = {_identity(one): one for one in listings(node, tx)}
    return any(_is_news(one, here.get(_identity(one))) for one in theirs)


def _is_news(theirs: Listing, ours: Listing | None) -> bool:
    return ours is None or bool(theirs.reinstated and not ours.reinstated)


def _identity(one: Listing) -> tuple[str, str, int, frozenset[bytes]]:
    """What makes two listings the same one, whatever their numbers."""
    return one.kind, one.scope, one.at, one.marks


# Lines


def _head(node: Node) -> bytes:
    return canonical.encode({"never_again": VERSION, "agency": node.agency}) + b"\n"


def _line(row: NeverAgainRow) -> bytes:
    members: dict[str, object] = {
        "number": row.id,
        "mark": row.mark.hex(),
        "kind": row.kind,
        "scope": row.scope,
        "listing": row.listing,
        "at": row.at,
        "leaf": row.leaf,
        "mac": row.mac.hex(),
    }
    return canonical.encode(members) + b"\n"


def _row(line: bytes) -> NeverAgainRow:
    members = _object(line, _MEMBERS)
    kind = text_member(members, "kind")
    require(kind in (WRONG, ERASED, REINSTATED), "never-again list: a row of unknown kind")
    try:
        mark, mac = (bytes.fromhex(text_member(members, name)) for name in ("mark", "mac"))
    except ValueError as error:
        raise MalformedError("never-again list: a mark is not in hexadecimal") from error
    number, listing, at, leaf = (int_member(members, name) for name in ("number", "listing", "at", "leaf"))
    return NeverAgainRow(number, mark, kind, text_member(members, "scope"), listing, at, leaf, mac)


def _object(line: bytes, names: set[str]) -> dict[str, object]:
    value = canonical.parse_canonical(line, max_bytes=MAX_LINE_BYTES)
    if not isinstance(value, dict) or set(value) != names:
        raise MalformedError("never-again list: a line with other members than it has")
    return dict(value)


# The copy beside the database


def _path(node: Node) -> Path | None:
    return node.settings.folder / FILE if node.settings.database_url.startswith("sqlite") else None


@contextmanager
def _locked(path: Path) -> Iterator[BinaryIO]:
    """The file for one writer at a time; made if need be, for its owner alone."""
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as copy:
        fcntl.flock(copy, fcntl.LOCK_EX)
        yield copy


def _last_row(copy: BinaryIO) -> NeverAgainRow | None:
    """The last row of the copy; None where there is none, or its end was cut off."""
    size = copy.seek(0, os.SEEK_END)
    copy.seek(max(0, size - _TAIL_BYTES))
    lines = copy.read(_TAIL_BYTES).split(b"\n")
    if len(lines) < 3 or lines[-1]:
        return None
    try:
        return _row(lines[-2])
    except MalformedError:
        return None  # whatever stands there is written over


def _stands(tx: Transaction, last: NeverAgainRow) -> bool:
    """Whether the list has this row, so that the copy is its beginning."""
    found = next(iter(tx.never_again.since(last.id - 1)), None)
    return found is not None and (found.id, found.mac) == (last.id, last.mac)
