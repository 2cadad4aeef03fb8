"""A year in numbers, per partner, printable. The numbers are what the log's entries add up to."""

from __future__ import annotations

from datetime import UTC, datetime

from gateway.console.pages import EVERY_ROLE, Answer, Desk, Page, Route, Visit, get
from gateway.logsearch import LogSearch

PER_PARTNER = ("sent", "received", "refused", "looked up", "case messages", "identified")
OWN = ("imported", "withdrawn", "identified", "certificates", "refused", "looked up")
FIRST_YEAR, LAST_YEAR = 2000, 9999


def statistics(desk: Desk, visit: Visit) -> Answer:
    """The numbers of one year."""
    search = LogSearch(desk.node)
    indexed, size = search.catch_up()
    this_year = datetime.fromtimestamp(desk.node.clock(), UTC).year
    year = visit.number("year", this_year, most=LAST_YEAR)
    with desk.node.store.reading() as tx:
        years = tx.facets.years()
        enrolled = [row.agency for row in tx.people.partners()]
    found: dict[str, dict[str, int]] = {}
    for partner, measure, amount in search.counts(year):
        found.setdefault(partner, {})[measure] = amount
    own = found.pop("", {})
    for agency in enrolled:
        found.setdefault(agency, {})
    rows = [
        {"partner": name, **{one: counts.get(one, 0) for one in PER_PARTNER}} for name, counts in sorted(found.items())
    ]
    most = {one: max((int(str(row[one])) for row in rows), default=0) for one in PER_PARTNER}
    totals = {one: sum(int(str(row[one])) for row in rows) for one in PER_PARTNER}
    values = {
        "year": year,
        "years": sorted({*years, this_year}, reverse=True),
        "rows": rows,
        "measures": PER_PARTNER,
        "own": [(one, own[one]) for one in OWN if own.get(one)],
        "most": most,
        "totals": totals,
        "complete": indexed >= size,
    }
    return Page("statistics.html", values)


ROUTES: tuple[Route, ...] = (get("/statistics", statistics, EVERY_ROLE),)
