"""What stock clients were shown of our own sets."""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, select

from gateway.store.tables import ShownSet, columns
from gateway.store.upserts import put

SHOWN = columns(ShownSet)
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
