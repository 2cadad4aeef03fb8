"""Lists of known-good digests: a row for each list, its marks in parts. Their meaning: `gateway.exchange.knowngood`."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Connection, delete, select
from sqlalchemy import func as sql

from gateway.store.tables import AllowList, AllowListPart, columns
from gateway.store.upserts import put

LOADING, IN_FORCE, REMOVED = "loading", "in_force", "removed"  # states of a list
LIST = columns(AllowList)
PART = columns(AllowListPart)


class AllowLists:
    """The lists, and the parts of each by number from 1."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def all(self) -> list[AllowList]:
        """Every list there ever was, in the order in which they came."""
        return [AllowList(**row._mapping) for row in self._connection.execute(select(*LIST).order_by(LIST.id))]

    def next_id(self) -> int:
        """The number of the next list."""
        return int(self._connection.execute(select(sql.max(LIST.id))).scalar() or 0) + 1

    def put(self, row: AllowList) -> None:
        """Keep a list's row, in place of what it was."""
        put(self._connection, AllowList, row.model_dump())

    def add_part(self, list_id: int, number: int, marks: bytes) -> None:
        """Add a part of a list."""
        put(self._connection, AllowListPart, {"list_id": list_id, "number": number, "marks": marks})

    def parts(self, list_id: int) -> Iterator[tuple[int, bytes]]:
        """(number, marks) of the parts of a list, in order, read one by one."""
        numbers = select(PART.number).where(PART.list_id == list_id).order_by(PART.number)
        for number in list(self._connection.execute(numbers).scalars()):
            query = select(PART.marks).where(PART.list_id == list_id, PART.number == number)
            yield int(number), bytes(self._connection.execute(query).scalar_one())

    def drop_parts(self, list_id: int) -> None:
        """Delete the marks of a list."""
        self._connection.execute(delete(AllowListPart).where(PART.list_id == list_id))
