"""The never-again list: rows are added, and nothing else. What they mean, `gateway.exchange.neveragain` says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, insert, select

from gateway.store.tables import NeverAgainTable, columns, table


class NeverAgainRow(NamedTuple):
    """One row: a tuple, since all of them are read at each start. `kind`: wrong, erased, reinstated.

    `mark` is a keyed digest of a digest; all marks of one entry share a `listing`, the number of its first row. A row
    that reinstates a listing has no mark. `scope`: whom it binds, an originator, or "" for everybody. `leaf`: what the
    log tells of it. `mac` covers the row and the MAC of the row before it.
    """

    id: int
    mark: bytes
    kind: str
    scope: str
    listing: int
    at: int
    leaf: int
    mac: bytes = b""


NEVER_AGAIN = columns(NeverAgainTable)

# Made once: every import and every page asks these.
_END = select(NEVER_AGAIN.id, NEVER_AGAIN.mac).order_by(NEVER_AGAIN.id.desc()).limit(1)
_SINCE = (
    select(*(NEVER_AGAIN[name] for name in NeverAgainRow._fields))
    .where(NEVER_AGAIN.id > bindparam("after"))
    .order_by(NEVER_AGAIN.id)
)
_ADD = insert(table(NeverAgainTable))


class NeverAgain:
    """The rows of the list, numbered from 1 without a gap.

    `changed`: whether this transaction has added any.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.changed = False

    def end(self) -> tuple[int, bytes]:
        """Number and MAC of the last row; (0, b"") of an empty list."""
        found = self._connection.execute(_END).one_or_none()
        if found is None:
            return 0, b""
        # SQLite keeps whatever type it is given, so another one shows that somebody else wrote it: it fits nothing.
        number, mac = found
        return int(number), mac if isinstance(mac, bytes) else b""

    def since(self, after: int = 0) -> list[NeverAgainRow]:
        """The rows above a number, in order."""
        return [NeverAgainRow(*row) for row in self._connection.execute(_SINCE, {"after": after})]

    def add(self, rows: Sequence[NeverAgainRow]) -> None:
        """Add rows at the end; they carry the next numbers."""
        if rows:
            self.changed = True
            self._connection.execute(_ADD, [row._asdict() for row in rows])
