"""Alarms: what an administrator must know, open until somebody or the cause closes it."""

from __future__ import annotations

from sqlalchemy import Connection


class Alarms:
    """Alarms: what an administrator must know, open until somebody or the cause closes it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
