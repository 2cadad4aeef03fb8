"""Searching the audit log by partner, set, rule, kind, outcome and day, as fast in a million leaves as in a thousand.

The index beside the log (`store.facets`) follows it: it is brought up when somebody searches, in bounded steps, and
costs nothing when leaves are written. It can be dropped and made anew. What was erased from the log leaves it as well;
the numbers of years, and of the days of the last weeks, which it keeps beside, stay.

What is found is read from the log itself; the index decides nothing but where to look.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from gateway.audit import Event, EventKind, LeafRow, parse_event
from gateway.errors import MalformedError
from gateway.eventwords import FACETS, day, facets, measures
from gateway.keylife import DAY_SECONDS
from gateway.model import int_member
from gateway.node import Node, own_log
from gateway.store import Transaction

STEP_LEAVES = 2_000  # indexed in one transaction: some 60 ms
MAX_STEPS = 10  # for one search; a longer way is shown as progress
PAGE_LEAVES = 50
COUNTED = 1_000  # facets rarer than that are told apart by their number
KEPT_DAYS = 62  # of which each has its numbers
DAILY = frozenset({"sent", "received"})  # what is counted by day
_META = "log facets 3"  # "ORIGIN LEAVES": how far the index follows which log


@dataclass(frozen=True, slots=True)
class Found:
    """One leaf that was found. `event` is None for a block, and for what was erased."""

    index: int
    entry: bytes
    event: Event | None


@dataclass(frozen=True, slots=True)
class Results:
    """Leaves, newest first. `older`: where the next page begins, 0 at the end. `indexed` of `size` leaves are known."""

    leaves: tuple[Found, ...]
    older: int
    indexed: int
    size: int


class LogSearch:
    """The search over one gateway's log."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def catch_up(self, steps: int = MAX_STEPS) -> tuple[int, int]:
        """Bring the index up by so many steps; returns how many leaves it knows, and how many there are."""
        indexed, size = self._standing()
        for _ in range(steps):
            if indexed >= size:
                break
            indexed = self._step()
        return indexed, size

    def find(
        self, wanted: Mapping[str, str], *, since: str = "", until: str = "", before: int = 0, limit: int = PAGE_LEAVES
    ) -> Results:
        """The newest leaves with all of these facets.

        Args:
            wanted: facet to value; empty values say nothing.
            since, until: days (YYYY-MM-DD, UTC), both included; "" for no bound.
            before: leaves below this index alone; 0 for all.

        Raises:
            MalformedError: a facet that there is not.
        """
        asked = [(name, value) for name, value in wanted.items() if value]
        unknown = sorted({name for name, _ in asked} - set(FACETS))
        if unknown:
            raise MalformedError(f"nothing is searched by {', '.join(unknown)}")
        indexed, size = self.catch_up()
        with self._node.store.reading() as tx:
            low, high = self._bounds(tx, since, until, indexed)
            high = min(high, before) if before else high
            if asked:
                asked.sort(key=lambda one: tx.facets.rarity(one[0], one[1], COUNTED))
                found = tx.facets.find(asked, low, high, limit + 1)
            else:
                newest = size if not (until or before) else high
                found = list(range(newest - 1, max(low, newest - limit - 1) - 1, -1))
            leaves = [self._leaf(tx, index) for index in found[:limit]]
        older = found[limit - 1] if len(found) > limit else 0
        return Results(tuple(leaves), older, indexed, size)

    def counts(self, year: int) -> list[tuple[str, str, int]]:
        """What was counted in a year: (partner, measure, amount); partner "" is this gateway itself."""
        with self._node.store.reading() as tx:
            return tx.facets.counts(year)

    def days(self, count: int) -> list[tuple[str, dict[str, int]]]:
        """What was counted on each of the last days, today included, the oldest first: (day, measure to amount).

        Args:
            count: how many days, at most `KEPT_DAYS`.
        """
        today = datetime.fromtimestamp(self._node.clock(), UTC).date()
        named = [(today - timedelta(days=ago)).isoformat() for ago in reversed(range(count))]
        found: dict[str, dict[str, int]] = {one: {} for one in named}
        with self._node.store.reading() as tx:
            for at, measure, amount in tx.facets.days(named[0]):
                found.setdefault(at, {})[measure] = amount
        return [(one, found[one]) for one in named]

    def how_many(self, facet: str, value: str, since: str, limit: int) -> int:
        """How many leaves since a day (YYYY-MM-DD) have a facet, counted no further than `limit`."""
        with self._node.store.reading() as tx:
            first = tx.facets.first_of_day(_day(since))
            return 0 if first is None else tx.facets.rarity(facet, value, limit, first)

    def values(self, facet: str, limit: int = 200) -> list[str]:
        """What can be searched for under a facet."""
        with self._node.store.reading() as tx:
            return tx.facets.values(facet, limit)

    def leaf(self, index: int) -> LeafRow | None:
        """One leaf as it is kept."""
        with self._node.store.reading() as tx:
            return next(iter(tx.log.leaves(index, index + 1)), None)

    # Inside

    def _bounds(self, tx: Transaction, since: str, until: str, indexed: int) -> tuple[int, int]:
        first = tx.facets.first_of_day(_day(since)) if since else 0
        behind = tx.facets.first_of_day(_day(until, 1)) if until else indexed
        return indexed if first is None else first, indexed if behind is None else behind

    def _leaf(self, tx: Transaction, index: int) -> Found:
        row = next(iter(tx.log.leaves(index, index + 1)))
        return Found(row.index, row.entry, None if row.event_bytes is None else parse_event(row.event_bytes))

    def _standing(self) -> tuple[int, int]:
        with self._node.store.reading() as tx:
            return self._indexed(tx), tx.log.size()

    def _indexed(self, tx: Transaction) -> int:
        origin, _, leaves = (tx.people.meta(_META) or "").rpartition(" ")
        size = tx.log.size()
        # A log that begins anew (after a restore) has another origin; one cut short is found by others.
        return int(leaves) if origin == own_log(self._node, tx).name and int(leaves) <= size else 0

    def _step(self) -> int:
        with self._node.store.transaction() as tx:
            start = self._indexed(tx)
            if start == 0:
                tx.facets.forget()
            stop = min(start + STEP_LEAVES, tx.log.size())
            rows = tx.log.leaves(start, stop)
            events = [(row.index, parse_event(row.event_bytes)) for row in rows if row.event_bytes is not None]
            tx.facets.add(self._facets(events, self._day_before(tx, start)))
            for first, last in _erased(events):
                tx.facets.forget(first, last)
            years, days = _counted(events)
            tx.facets.count(years)
            tx.facets.count_days(days, since=day(self._node.clock() - KEPT_DAYS * DAY_SECONDS))
            tx.people.set_meta(_META, f"{own_log(self._node, tx).name} {stop}")
        return stop

    def _day_before(self, tx: Transaction, start: int) -> str:
        for row in reversed(list(tx.log.leaves(max(0, start - STEP_LEAVES), start))):
            if row.event_bytes is not None:
                return day(parse_event(row.event_bytes).at)
        return ""

    def _facets(self, events: list[tuple[int, Event]], today: str) -> Iterator[tuple[str, str, int]]:
        for index, event in events:
            for name, value in facets(event, self._node.agency):
                yield name, value, index
            if day(event.at) > today:  # of each day the first leaf is enough; a clock put back begins no day anew
                today = day(event.at)
                yield "day", today, index


def _counted(events: list[tuple[int, Event]]) -> tuple[Counter[tuple[int, str, str]], Counter[tuple[str, str]]]:
    """What events add to the numbers: by (year, partner, measure), and by (day, measure)."""
    years: Counter[tuple[int, str, str]] = Counter()
    days: Counter[tuple[str, str]] = Counter()
    for _, event in events:
        at = day(event.at)
        for partner, measure, amount in measures(event):
            years[int(at[:4]), partner, measure] += amount
            if measure in DAILY:
                days[at, measure] += amount
    return years, days


def _day(text: str, later: int = 0) -> str:
    try:
        return (date.fromisoformat(text) + timedelta(days=later)).isoformat()
    except (ValueError, OverflowError) as error:
        raise MalformedError("a day is written as YYYY-MM-DD") from error


def _erased(events: list[tuple[int, Event]]) -> Iterator[tuple[int, int]]:
    """What these events say was erased."""
    for _, event in events:
        if event.kind is EventKind.EVENT_ERASED:
            yield int_member(event.details, "first"), int_member(event.details, "last")
