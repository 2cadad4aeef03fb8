"""Cases: the newest version of each, sealed; beside it what must be searched without opening it."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, case, insert, select, update

from gateway.errors import NotFoundError
from gateway.store.tables import CaseRow, columns

CASE = columns(CaseRow)
MIN_PREFIX_CHARS = 6  # of a case's id; fewer name too many
URGENT_FIRST = case({"child_at_risk": 0, "priority": 1}, value=CASE.urgency, else_=2)


class Cases:
    """Cases, the threads about them with their messages, and what waits for an approval."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, row: CaseRow) -> None:
        """Begin to keep a case."""
        self._connection.execute(insert(CaseRow), [row.model_dump()])

    def replace(self, row: CaseRow) -> None:
        """A case is from now on as this row says."""
        values = row.model_dump(exclude={"id"})
        self._connection.execute(update(CaseRow).where(CASE.id == row.id).values(**values))

    def find(self, identifier: str) -> CaseRow | None:
        """The case of this id, or None."""
        row = self._connection.execute(select(*CASE).where(CASE.id == identifier)).one_or_none()
        return None if row is None else CaseRow(**row._mapping)

    def known(self, mark: bytes) -> CaseRow | None:
        """The case whose originator and reference have this mark, or None."""
        row = self._connection.execute(select(*CASE).where(CASE.mark == mark)).one_or_none()
        return None if row is None else CaseRow(**row._mapping)

    def beginning(self, prefix: str) -> CaseRow:
        """The one case whose id begins so."""
        query = select(*CASE).where(CASE.id.startswith(prefix, autoescape=True)).limit(2)
        found = [CaseRow(**row._mapping) for row in self._connection.execute(query)]
        if len(found) != 1 or len(prefix) < MIN_PREFIX_CHARS:
            raise NotFoundError("no such case", remedy="`gateway case list` names them")
        return found[0]

    def all(self, states: Iterable[str] = ()) -> list[CaseRow]:
        """The cases in some states, or all: those in which a child is at risk first, then the oldest."""
        query = select(*CASE).order_by(URGENT_FIRST, CASE.arrived, CASE.id)
        wanted = list(states)
        if wanted:
            query = query.where(CASE.state.in_(wanted))
        return [CaseRow(**row._mapping) for row in self._connection.execute(query)]
