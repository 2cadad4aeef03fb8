"""Surfaces that are open to a partner's stock clients, and the hashed secrets by which these call."""

from __future__ import annotations

from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy import func as sql

from gateway.store.tables import ClientSecret, PartnerRow, SurfaceRow, columns
from gateway.store.upserts import add_new

PARTNER = columns(PartnerRow)
SECRET = columns(ClientSecret)
SURFACE = columns(SurfaceRow)


class Secrets:
    """Which doors are open to whose stock clients, and by which secrets. A secret never outlives its open surface."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    # Surfaces

    def open(self, partner: str, surface: str, now: int, proposal: str = "") -> bool:
        """Open a surface to a partner; False when it was open already. `proposal`: what the administrators signed."""
        row = {"partner": partner, "surface": surface, "opened": now, "proposal": proposal}
        return add_new(self._connection, SurfaceRow, row)

    def close(self, partner: str, surface: str) -> list[ClientSecret]:
        """Shut a surface, and forget its secrets, which are returned: opening it again brings none of them back."""
        mine = delete(SurfaceRow).where(SURFACE.partner == partner, SURFACE.surface == surface)
        self._connection.execute(mine)
        return self._drop(self.all(partner, surface))

    def end(self, partner: str) -> list[ClientSecret]:
        """Shut every surface of a partner and forget all its secrets, which are returned."""
        self._connection.execute(delete(SurfaceRow).where(SURFACE.partner == partner))
        return self._drop(self.all(partner))

    def is_open(self, partner: str, surface: str) -> bool:
        """Whether a surface is open to a partner."""
        query = select(sql.count()).select_from(SurfaceRow)
        query = query.where(SURFACE.partner == partner, SURFACE.surface == surface)
        return bool(self._connection.execute(query).scalar_one())

    def surfaces(self, partner: str | None = None) -> list[SurfaceRow]:
        """The open surfaces, of one partner or of all."""
        query = select(*SURFACE).order_by(SURFACE.partner, SURFACE.surface)
        if partner is not None:
            query = query.where(SURFACE.partner == partner)
        return [SurfaceRow(**row._mapping) for row in self._connection.execute(query)]

    # Secrets

    def add(self, row: ClientSecret) -> None:
        """Keep a new secret, which is in the row as its digest."""
        self._connection.execute(insert(ClientSecret), [row.model_dump()])

    def all(self, partner: str | None = None, surface: str | None = None) -> list[ClientSecret]:
        """The secrets that were not revoked, oldest first; those that have run out included."""
        query = select(*SECRET).order_by(SECRET.partner, SECRET.surface, SECRET.created, SECRET.id)
        if partner is not None:
            query = query.where(SECRET.partner == partner)
        if surface is not None:
            query = query.where(SECRET.surface == surface)
        return [ClientSecret(**row._mapping) for row in self._connection.execute(query)]

    def live(self, identifier: str, surface: str, now: int) -> ClientSecret | None:
        """The secret of this id, if it has not run out, its surface is open, and its partner active; else None."""
        query = (
            select(*SECRET)
            .join(PartnerRow, PARTNER.agency == SECRET.partner)
            .join(SurfaceRow, (SURFACE.partner == SECRET.partner) & (SURFACE.surface == SECRET.surface))
            .where(SECRET.id == identifier, SECRET.surface == surface, SECRET.expires > now, PARTNER.state == "active")
        )
        row = self._connection.execute(query).one_or_none()
        return None if row is None else ClientSecret(**row._mapping)

    def touch(self, identifier: str, now: int) -> None:
        """Note that a secret was used."""
        self._connection.execute(update(ClientSecret).where(SECRET.id == identifier).values(used=now))

    def revoke(self, identifier: str) -> ClientSecret | None:
        """Forget a secret, which is returned; None when there is none of this id."""
        row = self._connection.execute(select(*SECRET).where(SECRET.id == identifier)).one_or_none()
        return None if row is None else self._drop([ClientSecret(**row._mapping)])[0]

    def _drop(self, rows: list[ClientSecret]) -> list[ClientSecret]:
        self._connection.execute(delete(ClientSecret).where(SECRET.id.in_([row.id for row in rows])))
        return rows
