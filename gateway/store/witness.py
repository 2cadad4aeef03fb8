"""Partners' logs as we witnessed them, and their cosignatures under our own checkpoints."""

from __future__ import annotations

from sqlalchemy import Connection, delete, select
from sqlalchemy import func as sql

from gateway.store.tables import CosignatureRow, WitnessedLog, columns
from gateway.store.upserts import put

COSIGNATURE = columns(CosignatureRow)
WITNESSED = columns(WitnessedLog)
KEPT_COSIGNATURES = 16  # of each partner, newest first: some days of contacts, for an auditor who comes late


class Witness:
    """Partners' logs as we witnessed them, and their cosignatures under our own checkpoints."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    # Ours of theirs

    def log(self, partner: str) -> WitnessedLog | None:
        """What we hold of a partner's log."""
        row = self._connection.execute(select(*WITNESSED).where(WITNESSED.partner == partner)).one_or_none()
        return None if row is None else WitnessedLog(**row._mapping)

    def logs(self) -> list[WitnessedLog]:
        """What we hold of every partner's log, by partner."""
        rows = self._connection.execute(select(*WITNESSED).order_by(WITNESSED.partner))
        return [WitnessedLog(**row._mapping) for row in rows]

    def put_log(self, row: WitnessedLog) -> None:
        """Keep what we hold of a partner's log from now on."""
        put(self._connection, WitnessedLog, row.model_dump())

    def forget(self, partner: str) -> None:
        """Hold nothing of a partner's log. Its cosignatures of ours stay: they are true whatever becomes of it."""
        self._connection.execute(delete(WitnessedLog).where(WITNESSED.partner == partner))

    def begin(self, partner: str, origin: str, note: bytes, now: int) -> None:
        """A partner's log of another name has begun with one leaf: what was held of the one before binds it no more."""
        row = WitnessedLog(partner=partner, origin=origin, size=1, note=note.decode(), at=now, since=now, claims="[]")
        self.put_log(row)

    # Theirs of ours

    def forget_cosignatures(self) -> None:
        """Our log begins anew: no line stands under a checkpoint of it yet."""
        self._connection.execute(delete(CosignatureRow))

    def put_cosignature(self, row: CosignatureRow) -> None:
        """Keep a partner's cosignature; its oldest ones beyond `KEPT_COSIGNATURES` go."""
        put(self._connection, CosignatureRow, row.model_dump())
        sizes = select(COSIGNATURE.size).where(COSIGNATURE.partner == row.partner).order_by(COSIGNATURE.size.desc())
        oldest = self._connection.execute(sizes.offset(KEPT_COSIGNATURES - 1).limit(1)).scalar()
        if oldest is not None:
            where = (COSIGNATURE.partner == row.partner, COSIGNATURE.size < oldest)
            self._connection.execute(delete(CosignatureRow).where(*where))

    def cosignatures(self, size: int | None = None) -> list[CosignatureRow]:
        """Partners' cosignatures under our checkpoints (or under that of one size), largest first."""
        query = select(*COSIGNATURE).order_by(COSIGNATURE.size.desc(), COSIGNATURE.partner)
        if size is not None:
            query = query.where(COSIGNATURE.size == size)
        return [CosignatureRow(**row._mapping) for row in self._connection.execute(query)]

    def largest_cosigned(self) -> int:
        """The size of our largest checkpoint that a partner cosigned; 0 without any."""
        return int(self._connection.execute(select(sql.max(COSIGNATURE.size))).scalar() or 0)
