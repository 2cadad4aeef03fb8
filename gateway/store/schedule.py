"""The schedule's rows: a due run is claimed by a lease with a fencing number, so that two nodes never run one slot.

Times are those of the nodes' clocks. A time that lies further ahead than any wait or lease can be was written before
the clock was put back, and counts as past: one wrong hour does not silence a partner for as long.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, case, delete, or_, select, update

from gateway.store.tables import ScheduleRow, columns
from gateway.store.upserts import put

SCHEDULE = columns(ScheduleRow)
MAX_BACKOFF_SECONDS = 3600  # how long a partner that keeps failing is left alone


class Schedule:
    """Jobs, when they are due, who holds them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def put(self, job: str, partner: str, interval_seconds: int, next_run: int) -> None:
        """Add a job, or change its interval; a known job keeps its next run."""
        row = {"job": job, "partner": partner, "interval_seconds": interval_seconds, "next_run": next_run, **_FRESH}
        put(self._connection, ScheduleRow, row, changing=("interval_seconds",))

    def remove(self, partner: str) -> None:
        """Drop the jobs of a partner."""
        self._connection.execute(delete(ScheduleRow).where(SCHEDULE.partner == partner))

    def jobs(self) -> list[ScheduleRow]:
        """Every job, by name."""
        rows = self._connection.execute(select(*SCHEDULE).order_by(SCHEDULE.job))
        return [ScheduleRow(**row._mapping) for row in rows]

    def due(self, now: int, lease_seconds: int) -> list[ScheduleRow]:
        """Jobs whose time has come and that nobody holds, longest overdue first."""
        query = select(*SCHEDULE).where(_time_has_come(now), _is_free(now, lease_seconds))
        rows = self._connection.execute(query.order_by(SCHEDULE.next_run))
        return [ScheduleRow(**row._mapping) for row in rows]

    def claim(self, job: str, owner: str, now: int, lease_seconds: int, *, only_due: bool = True) -> int | None:
        """Take the lease; returns its fencing number, or None when another node was first."""
        where = [SCHEDULE.job == job, _is_free(now, lease_seconds)]
        if only_due:
            where.append(_time_has_come(now))
        values = {
            "lease_owner": owner,
            "lease_fence": SCHEDULE.lease_fence + 1,
            "lease_until": now + lease_seconds,
            "last_start": now,
        }
        if self._connection.execute(update(ScheduleRow).where(*where).values(**values)).rowcount != 1:
            return None
        query = select(SCHEDULE.lease_fence).where(SCHEDULE.job == job)
        return int(self._connection.execute(query).scalar_one())

    def renew(self, job: str, fence: int, now: int, lease_seconds: int) -> bool:
        """Keep the lease; False when it was lost (a higher fencing number exists)."""
        return self._release(job, fence, {"lease_until": now + lease_seconds})

    def succeed(self, job: str, fence: int, now: int, next_run: int, lag_changes: int) -> bool:
        """End a run well; False when the lease was lost, and then nothing is written."""
        done = {"lease_until": 0, "failures": 0, "last_success": now, "last_error": ""}
        return self._release(job, fence, {**done, "next_run": next_run, "lag_changes": lag_changes})

    def fail(self, job: str, fence: int, next_run: int, error: str) -> bool:
        """End a run badly; False when the lease was lost, and then nothing is written."""
        failed = {"lease_until": 0, "failures": SCHEDULE.failures + 1, "last_error": error[:500]}
        return self._release(job, fence, {**failed, "next_run": next_run})

    def give_back(self, job: str, fence: int) -> bool:
        """End a run that was cut off as if it had not begun; False when the lease was lost."""
        return self._release(job, fence, {"lease_until": 0})

    def hasten(self, now: int, partner: str = "") -> None:
        """Every job, or one partner's, is due now, since something must be told without delay."""
        later = update(ScheduleRow).where(SCHEDULE.next_run > now)
        if partner:
            later = later.where(SCHEDULE.partner == partner)
        self._connection.execute(later.values(next_run=now))

    def release_all(self) -> None:
        """Nobody holds a lease, and every job is due: whoever held one is gone."""
        values = {"lease_owner": "", "lease_until": 0, "next_run": 0, "failures": 0, "last_error": ""}
        self._connection.execute(update(ScheduleRow).values(**values))

    def _release(self, job: str, fence: int, values: dict[str, object]) -> bool:
        where = (SCHEDULE.job == job, SCHEDULE.lease_fence == fence)
        return self._connection.execute(update(ScheduleRow).where(*where).values(**values)).rowcount == 1


def _time_has_come(now: int) -> ColumnElement[bool]:
    # Twice the wait covers any jitter.
    backed_off = case((SCHEDULE.failures > 0, MAX_BACKOFF_SECONDS), else_=0)
    farthest = now + 2 * (SCHEDULE.interval_seconds + backed_off)
    return or_(SCHEDULE.next_run <= now, SCHEDULE.next_run > farthest)


def _is_free(now: int, lease_seconds: int) -> ColumnElement[bool]:
    # Twice a lease: the clocks of two nodes may stand apart by as much as one.
    return or_(SCHEDULE.lease_until <= now, SCHEDULE.lease_until > now + 2 * lease_seconds)


_FRESH: dict[str, object] = {
    "lease_owner": "",
    "lease_fence": 0,
    "lease_until": 0,
    "failures": 0,
    "last_start": 0,
    "last_success": 0,
    "last_error": "",
    "lag_changes": -1,
}
