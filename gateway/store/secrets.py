"""Surfaces that are open to a partner's stock clients, and the hashed secrets by which these call."""

from __future__ import annotations

from sqlalchemy import Connection


class Secrets:
    """Surfaces that are open to a partner's stock clients, and the hashed secrets by which these call."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
