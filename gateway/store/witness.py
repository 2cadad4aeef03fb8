"""Partners' logs as we witnessed them, and their cosignatures under our own checkpoints."""

from __future__ import annotations

from sqlalchemy import Connection


class Witness:
    """Partners' logs as we witnessed them, and their cosignatures under our own checkpoints."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
