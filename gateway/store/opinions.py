"""What partners think of entries in our own sets."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, select

from gateway.store.tables import OpinionRow, columns
from gateway.store.upserts import put

OPINION = columns(OpinionRow)


class Opinions:
    """The latest word of each partner on each digest of an entry."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def put(self, row: OpinionRow) -> None:
        """Keep a partner's word, in place of what it said before."""
        put(self._connection, OpinionRow, row.model_dump())

    def all(self, set_id: int | None = None) -> list[OpinionRow]:
        """Every opinion, on one set or on all, the newest first."""
        query = select(*OPINION).order_by(OPINION.at.desc(), *_KEY)
        if set_id is not None:
            query = query.where(OPINION.set_id == set_id)
        return [OpinionRow(**row._mapping) for row in self._connection.execute(query)]

    def of(self, set_id: int, entry_ids: Sequence[int]) -> list[OpinionRow]:
        """The opinions on these entries of a set: a look-up by digest comes to them through what it finds."""
        query = select(*OPINION).where(OPINION.set_id == set_id, OPINION.entry_id.in_(entry_ids)).order_by(*_KEY)
        return [OpinionRow(**row._mapping) for row in self._connection.execute(query)]


_KEY = (OPINION.set_id, OPINION.entry_id, OPINION.algorithm, OPINION.partner)
