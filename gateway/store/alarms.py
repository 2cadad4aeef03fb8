"""Alarms: what an administrator must know, open until somebody or the cause closes it."""

from __future__ import annotations

from sqlalchemy import Connection, insert, select, update
from sqlalchemy import func as sql

from gateway.errors import NotFoundError
from gateway.store.tables import AlarmRow, columns

ALARM = columns(AlarmRow)
MAX_LISTED = 1_000  # closed ones are kept for good; the log has them all


class Alarms:
    """Alarms: what an administrator must know, open until somebody or the cause closes it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def find(self, number: int) -> AlarmRow:
        """The alarm of a number, open or closed."""
        row = self._connection.execute(select(*ALARM).where(ALARM.id == number)).one_or_none()
        if row is None:
            raise NotFoundError("no such alarm", remedy="`gateway alarm list --all` names them")
        return AlarmRow(**row._mapping)

    def open(self, kind: str, subject: str) -> AlarmRow | None:
        """The open alarm of a kind about a subject."""
        query = select(*ALARM).where(ALARM.kind == kind, ALARM.subject == subject, ALARM.closed == 0)
        row = self._connection.execute(query).first()
        return None if row is None else AlarmRow(**row._mapping)

    def all(self, *, closed: bool = False) -> list[AlarmRow]:
        """The open alarms (and the closed ones), newest first."""
        query = select(*ALARM).order_by(ALARM.raised.desc(), ALARM.id.desc()).limit(MAX_LISTED)
        if not closed:
            query = query.where(ALARM.closed == 0)
        return [AlarmRow(**row._mapping) for row in self._connection.execute(query)]

    def untold(self) -> list[AlarmRow]:
        """Open alarms that nobody was told of, oldest first."""
        query = select(*ALARM).where(ALARM.closed == 0, ALARM.told == 0).order_by(ALARM.raised, ALARM.id)
        return [AlarmRow(**row._mapping) for row in self._connection.execute(query)]

    def counts(self) -> dict[str, int]:
        """How many alarms of each kind are open."""
        query = select(ALARM.kind, sql.count()).where(ALARM.closed == 0).group_by(ALARM.kind)
        return {str(kind): int(count) for kind, count in self._connection.execute(query)}

    def add(self, row: AlarmRow) -> int:
        """Keep a new alarm; returns its number."""
        values = row.model_dump(exclude={"id"})
        return int(self._connection.execute(insert(AlarmRow).returning(ALARM.id), values).scalar_one())

    def sharpen(self, number: int, level: int, detail: str, now: int) -> None:
        """An open alarm has come nearer: it is raised anew, and to be told again."""
        values = {"level": level, "detail": detail, "raised": now, "told": 0}
        self._connection.execute(update(AlarmRow).where(ALARM.id == number).values(**values))

    def note_told(self, number: int, level: int, now: int) -> None:
        """The alarm was told as it stood at `level`; if it has come nearer meanwhile, it is still to be told."""
        where = (ALARM.id == number, ALARM.level == level)
        self._connection.execute(update(AlarmRow).where(*where).values(told=now))

    def close(self, number: int, by: str, now: int) -> None:
        """The alarm is over."""
        self._connection.execute(update(AlarmRow).where(ALARM.id == number).values(closed=now, closed_by=by))
