"""Legal holds, and the sealed copies of the entries that they keep."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, delete, insert, select, update

from gateway.errors import NotFoundError
from gateway.store.tables import HeldEntry, LegalHold, columns

HOLD = columns(LegalHold)
ENTRY = columns(HeldEntry)
MIN_ID_CHARS = 8  # of the beginning of an id that people type


class Holds:
    """What is on hold now. A hold that has ended leaves no row."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def all(self) -> list[LegalHold]:
        """Every hold, oldest first."""
        rows = self._connection.execute(select(*HOLD).order_by(HOLD.created, HOLD.id))
        return [LegalHold(**row._mapping) for row in rows]

    def get(self, identifier: str) -> LegalHold:
        """The hold whose id begins so."""
        found = [one for one in self.all() if one.id.startswith(identifier) and len(identifier) >= MIN_ID_CHARS]
        if len(found) != 1:
            raise NotFoundError("no such legal hold", remedy="`gateway hold list` names them")
        return found[0]

    def add(self, hold: LegalHold, entries: Sequence[HeldEntry]) -> None:
        """Keep these copies."""
        self._connection.execute(insert(LegalHold), [hold.model_dump()])
        self._connection.execute(insert(HeldEntry), [one.model_dump() for one in entries])

    def entries(self, hold: str) -> list[HeldEntry]:
        """The copies of a hold, by entry."""
        rows = self._connection.execute(select(*ENTRY).where(ENTRY.hold == hold).order_by(ENTRY.entry_id))
        return [HeldEntry(**row._mapping) for row in rows]

    def entry_ids(self, hold: str) -> list[int]:
        """Which entries a hold keeps."""
        query = select(ENTRY.entry_id).where(ENTRY.hold == hold).order_by(ENTRY.entry_id)
        return [int(number) for number in self._connection.execute(query).scalars()]

    def note_gone(self, hold: str, gone: int) -> None:
        """Note how many of its entries the set holds no more."""
        self._connection.execute(update(LegalHold).where(HOLD.id == hold).values(gone=gone))

    def drop(self, hold: str) -> None:
        """Delete a hold with its copies."""
        self._connection.execute(delete(HeldEntry).where(ENTRY.hold == hold))
        self._connection.execute(delete(LegalHold).where(HOLD.id == hold))
