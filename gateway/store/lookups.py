"""How much each partner has asked about. What that may be, `gateway.exchange.answering` says."""

from __future__ import annotations

from sqlalchemy import Connection, select

from gateway.store.tables import LookUpUse, columns
from gateway.store.upserts import put

USE = columns(LookUpUse)


class LookUps:
    """What partners have asked about today, and usually do."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def use(self, partner: str) -> LookUpUse:
        """A partner's row; a new one where it never asked."""
        row = self._connection.execute(select(*USE).where(USE.partner == partner)).one_or_none()
        return LookUpUse(partner=partner) if row is None else LookUpUse(**row._mapping)

    def put(self, row: LookUpUse) -> None:
        """Keep a partner's row."""
        put(self._connection, LookUpUse, row.model_dump())
