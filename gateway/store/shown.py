"""What stock clients were shown of our own sets."""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, delete, insert, select

from gateway.store.tables import ShownSet, TaxiiStatus, columns
from gateway.store.upserts import put

SHOWN = columns(ShownSet)
STATUS = columns(TaxiiStatus)
_GET = select(*SHOWN).where(
    SHOWN.set_id == bindparam("set_id"), SHOWN.partner == bindparam("partner"), SHOWN.surface == bindparam("surface")
)


class Shown:
    """One row for each own set, partner and surface."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, set_id: int, partner: str, surface: str) -> ShownSet | None:
        """What a partner's stock clients were shown of a set, None before they asked for the first time."""
        asked = {"set_id": set_id, "partner": partner, "surface": surface}
        row = self._connection.execute(_GET, asked).one_or_none()
        return None if row is None else ShownSet(**row._mapping)

    def put(self, row: ShownSet) -> None:
        """Remember what they are shown from now on."""
        put(self._connection, ShownSet, row.model_dump())

    def status(self, identifier: str, partner: str) -> TaxiiStatus | None:
        """What became of what a partner sent, None where it sent nothing under this id."""
        query = select(*STATUS).where(STATUS.id == identifier, STATUS.partner == partner)
        row = self._connection.execute(query).one_or_none()
        return None if row is None else TaxiiStatus(**row._mapping)

    def keep_status(self, row: TaxiiStatus, since: int) -> None:
        """Keep a status, and forget those from before `since`."""
        self._connection.execute(delete(TaxiiStatus).where(STATUS.at < since))
        self._connection.execute(insert(TaxiiStatus), [row.model_dump()])
