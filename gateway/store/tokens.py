"""Access tokens and replay guards. Both live in the database, so that every node and every restart knows them."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, bindparam, delete, insert, select

from gateway.store.tables import AccessToken, PartnerRow, ReplayRow, columns
from gateway.store.upserts import add_new

TOKEN = columns(AccessToken)
PARTNER = columns(PartnerRow)
REPLAY = columns(ReplayRow)

# Made once: every request asks these.
_FIND = (
    select(TOKEN.partner, TOKEN.thumbprint, TOKEN.expires, TOKEN.scope, TOKEN.mac)
    .join(PartnerRow, PARTNER.agency == TOKEN.partner)
    .where(TOKEN.digest == bindparam("digest"), TOKEN.expires > bindparam("now"), PARTNER.state == "active")
)


class HeldToken(NamedTuple):
    """Whose an access token is, to which key it is bound, until when, and for what (space-separated)."""

    partner: str
    thumbprint: str
    expires: int
    scope: str
    mac: bytes = b""


class Tokens:
    """Opaque tokens by their SHA-256; `jti` values by theirs."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(
        self, digest: bytes, partner: str, thumbprint: str, expires: int, *, scope: str = "", mac: bytes = b""
    ) -> None:
        """Keep a new token. Without the MAC of its row it opens nothing."""
        bound = {"digest": digest, "partner": partner, "thumbprint": thumbprint}
        row = {**bound, "expires": expires, "scope": scope, "mac": mac}
        self._connection.execute(insert(AccessToken), [row])

    def find(self, digest: bytes, now: int) -> HeldToken | None:
        """A live token of an active partner, else None: removal is at once."""
        row = self._connection.execute(_FIND, {"digest": digest, "now": now}).one_or_none()
        return None if row is None else HeldToken(*row)

    def revoke(self, partner: str) -> None:
        """Forget every token of a partner."""
        self._connection.execute(delete(AccessToken).where(TOKEN.partner == partner))

    def remember(self, digest: bytes, expires: int) -> bool:
        """Note a `jti`; False when it was seen before."""
        return add_new(self._connection, ReplayRow, {"digest": digest, "expires": expires})

    def purge(self, now: int) -> None:
        """Forget what has expired."""
        self._connection.execute(delete(AccessToken).where(TOKEN.expires <= now))
        self._connection.execute(delete(ReplayRow).where(REPLAY.expires <= now))
