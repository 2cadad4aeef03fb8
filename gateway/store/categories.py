"""Tables of categories, as they were signed; the newest version of each scheme is in force."""

from __future__ import annotations

from sqlalchemy import Connection, select

from gateway.store.tables import CategoryTable, columns
from gateway.store.upserts import put

TABLE = columns(CategoryTable)


class Categories:
    """Every table that was ever in force."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def all(self) -> list[CategoryTable]:
        """The tables, scheme by scheme, the newest version of each first."""
        query = select(*TABLE).order_by(TABLE.scheme, TABLE.version.desc())
        return [CategoryTable(**row._mapping) for row in self._connection.execute(query)]

    def in_force(self) -> list[CategoryTable]:
        """The newest version of each scheme."""
        newest: dict[str, CategoryTable] = {}
        for row in self.all():
            newest.setdefault(row.scheme, row)
        return list(newest.values())

    def add(self, row: CategoryTable) -> None:
        """Keep a table."""
        put(self._connection, CategoryTable, row.model_dump())
