"""By what leaves of the audit log are found: an index beside the log, which can be made anew from it at any time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy import Connection, delete, exists, select, update

from gateway.store.consoletables import LogCount, LogDayCount, LogFacet
from gateway.store.tables import columns, table
from gateway.store.upserts import add_many, add_new

COUNT = columns(LogCount)
DAY = columns(LogDayCount)
FACET = columns(LogFacet)


class Facets:
    """Facets of leaves."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, rows: Iterable[tuple[str, str, int]]) -> None:
        """Note facets (name, value, leaf) of leaves that have none yet."""
        found = [{"facet": facet, "value": value, "leaf": leaf} for facet, value, leaf in rows]
        if found:
            add_many(self._connection, LogFacet, found)

    def count(self, amounts: Mapping[tuple[int, str, str], int]) -> None:
        """Add to the numbers of years: (year, partner, measure) to amount."""
        for (year, partner, measure), amount in amounts.items():
            key = {"year": year, "partner": partner, "measure": measure}
            add_new(self._connection, LogCount, {**key, "amount": 0})
            same = (COUNT.year == year, COUNT.partner == partner, COUNT.measure == measure)
            self._connection.execute(update(LogCount).where(*same).values(amount=COUNT.amount + amount))

    def counts(self, year: int) -> list[tuple[str, str, int]]:
        """The numbers of a year: (partner, measure, amount)."""
        query = select(COUNT.partner, COUNT.measure, COUNT.amount).where(COUNT.year == year, COUNT.amount > 0)
        rows = self._connection.execute(query.order_by(COUNT.partner, COUNT.measure))
        return [(row.partner, row.measure, int(row.amount)) for row in rows]

    def count_days(self, amounts: Mapping[tuple[str, str], int], since: str) -> None:
        """Add to the numbers of days: (day, measure) to amount. Days before `since` are forgotten."""
        self._connection.execute(delete(LogDayCount).where(DAY.day < since))
        for (day, measure), amount in amounts.items():
            if day >= since:
                add_new(self._connection, LogDayCount, {"day": day, "measure": measure, "amount": 0})
                same = (DAY.day == day, DAY.measure == measure)
                self._connection.execute(update(LogDayCount).where(*same).values(amount=DAY.amount + amount))

    def days(self, since: str) -> list[tuple[str, str, int]]:
        """The numbers of days from one on: (day, measure, amount)."""
        query = select(DAY.day, DAY.measure, DAY.amount).where(DAY.day >= since).order_by(DAY.day, DAY.measure)
        return [(row.day, row.measure, int(row.amount)) for row in self._connection.execute(query)]

    def years(self) -> list[int]:
        """The years of which there are numbers, newest first."""
        rows = self._connection.execute(select(COUNT.year).distinct().order_by(COUNT.year.desc()))
        return [int(row.year) for row in rows]

    def forget(self, first: int | None = None, last: int | None = None) -> None:
        """Forget the facets of leaves `first` to `last`, or all of them."""
        gone = delete(LogFacet)
        if first is not None:
            gone = gone.where(FACET.leaf >= first)
        if last is not None:
            gone = gone.where(FACET.leaf <= last)
        self._connection.execute(gone)
        if first is None and last is None:
            self._connection.execute(delete(LogCount))
            self._connection.execute(delete(LogDayCount))

    def find(self, wanted: Sequence[tuple[str, str]], low: int, before: int, limit: int) -> list[int]:
        """The newest leaves from `low` on and before `before` that have all of these facets, newest first."""
        (facet, value), *others = wanted
        query = select(FACET.leaf).where(
            FACET.facet == facet, FACET.value == value, FACET.leaf >= low, FACET.leaf < before
        )
        for name, word in others:
            other = table(LogFacet).alias()
            same = (other.c.facet == name, other.c.value == word, other.c.leaf == FACET.leaf)
            query = query.where(exists().where(*same))
        rows = self._connection.execute(query.order_by(FACET.leaf.desc()).limit(limit))
        return [int(row.leaf) for row in rows]

    def rarity(self, facet: str, value: str, limit: int, low: int = 0) -> int:
        """How many leaves from `low` on have a facet, counted no further than `limit`."""
        where = (FACET.facet == facet, FACET.value == value, FACET.leaf >= low)
        some = select(FACET.leaf).where(*where).limit(limit)
        return len(self._connection.execute(some).all())

    def first_of_day(self, day: str) -> int | None:
        """The first leaf of a day (YYYY-MM-DD) or, where it has none, of the next one that has; None without any."""
        query = select(FACET.leaf).where(FACET.facet == "day", FACET.value >= day)
        found = self._connection.execute(query.order_by(FACET.value, FACET.leaf).limit(1)).scalar()
        return None if found is None else int(found)

    def values(self, facet: str, limit: int) -> list[str]:
        """The values that a facet has: each is sought behind the one before, so that a million leaves cost no more."""
        found: list[str] = []
        last = ""
        while len(found) < limit:
            query = select(FACET.value).where(FACET.facet == facet, FACET.value > last)
            value = self._connection.execute(query.order_by(FACET.value).limit(1)).scalar()
            if value is None:
                break
            last = str(value)
            found.append(last)
        return found
