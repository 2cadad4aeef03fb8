"""Access tokens and replay guards. Both live in the database, so that every node and every restart knows them."""

from __future__ import annotations

from sqlalchemy import Connection, delete, insert, select
from sqlalchemy.dialects.sqlite import insert as upsert

from gateway.store.tables import AccessToken, PartnerRow, ReplayRow, columns

TOKEN = columns(AccessToken)
PARTNER = columns(PartnerRow)
REPLAY = columns(ReplayRow)


class Tokens:
    """Opaque tokens by their SHA-256; `jti` values by theirs."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, digest: bytes, partner: str, thumbprint: str, expires: int) -> None:
        """Keep a new token."""
        row = {"digest": digest, "partner": partner, "thumbprint": thumbprint, "expires": expires}
        self._connection.execute(insert(AccessToken), [row])

    def find(self, digest: bytes, now: int) -> tuple[str, str] | None:
        """(partner, DPoP thumbprint) of a live token of an active partner, else None: removal is at once."""
        query = (
            select(TOKEN.partner, TOKEN.thumbprint)
            .join(PartnerRow, PARTNER.agency == TOKEN.partner)
            .where(TOKEN.digest == digest, TOKEN.expires > now, PARTNER.state == "active")
        )
        row = self._connection.execute(query).one_or_none()
        return None if row is None else (row[0], row[1])

    def revoke(self, partner: str) -> None:
        """Forget every token of a partner."""
        self._connection.execute(delete(AccessToken).where(TOKEN.partner == partner))

    def remember(self, digest: bytes, expires: int) -> bool:
        """Note a `jti`; False when it was seen before."""
        row = upsert(ReplayRow).values(digest=digest, expires=expires).on_conflict_do_nothing()
        return self._connection.execute(row).rowcount > 0

    def purge(self, now: int) -> None:
        """Forget what has expired."""
        self._connection.execute(delete(AccessToken).where(TOKEN.expires <= now))
        self._connection.execute(delete(ReplayRow).where(REPLAY.expires <= now))
