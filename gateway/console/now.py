"""Is the exchange healthy, and what needs me? The first screen, made anew by itself while it is open."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from gateway.approvals import OPEN
from gateway.console.pages import EVERY_ROLE, Answer, Desk, Page, Route, Visit, get
from gateway.partners import ACTIVE
from gateway.signin import Role
from gateway.store import Transaction
from gateway.store.people import EVERYTHING

LIVE_SECONDS = 3
LATE_FACTOR = 3  # a partner is late when three intervals have passed without a success


@dataclass(frozen=True, slots=True)
class PartnerCard:
    """How a partner stands. `word`: good, waiting, late, failing, paused, or its state where it is not active."""

    agency: str
    state: str
    word: str
    last_success: int
    lag: int
    next_run: int
    error: str
    different: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Need:
    """Something that waits for a person."""

    count: int
    what: str
    where: str


def now(desk: Desk, visit: Visit) -> Answer:
    """The whole screen."""
    return Page("now.html", values(desk, visit))


def live(desk: Desk, visit: Visit) -> Answer:
    """Its living part."""
    return Page("now_live.html", values(desk, visit), fragment=True)


def values(desk: Desk, visit: Visit) -> dict[str, object]:
    """What is the case now."""
    node = desk.node
    with node.store.reading() as tx:
        partners = _partners(tx, node.clock())
        pauses = tx.people.pauses()
        alarms = tx.alarms.all()
        leaves, cosigned = tx.log.size(), tx.witness.largest_cosigned()
        sets = tx.sets.all()
        open_proposals = len(tx.people.proposals(state=OPEN))
    roles = visit.session.roles
    needs = []
    if Role.ADMINISTRATOR in roles and open_proposals:
        needs.append(Need(open_proposals, "waiting for signatures", "/approvals"))
    shown = alarms if roles & {Role.ADMINISTRATOR, Role.AUDITOR} else []
    return {
        "partners": partners,
        "words": Counter(one.word for one in partners),
        "everything_paused": any(scope == EVERYTHING for scope, _, _ in pauses),
        "alarms": shown,
        "needs": needs,
        "leaves": leaves,
        "cosigned": cosigned,
        "own_sets": sum(not one.hub for one in sets),
        "followed": sum(bool(one.hub) for one in sets),
        "different": sum(one.equality == "different" for one in sets),
    }


def _partners(tx: Transaction, now: int) -> list[PartnerCard]:
    jobs = {job.partner: job for job in tx.schedule.jobs()}
    paused = {scope for scope, _, _ in tx.people.pauses()}
    different: dict[str, list[str]] = {}
    for one in tx.sets.all():
        if one.hub and one.equality == "different":
            different.setdefault(one.hub, []).append(one.name)
    cards = []
    for row in tx.people.partners():
        job = jobs.get(row.agency)
        if row.state != ACTIVE:
            word = row.state
        elif {row.agency, EVERYTHING} & paused:
            word = "paused"
        elif job is None or not (job.last_success or job.failures):
            word = "waiting"
        elif job.failures:
            word = "failing"
        elif now - job.last_success > LATE_FACTOR * job.interval_seconds:
            word = "late"
        else:
            word = "good"
        cards.append(
            PartnerCard(
                agency=row.agency,
                state=row.state,
                word=word,
                last_success=job.last_success if job else 0,
                lag=job.lag_changes if job else -1,
                next_run=job.next_run if job else 0,
                error=job.last_error if job and job.failures else "",
                different=tuple(different.get(row.agency, ())),
            )
        )
    order = {"failing": 0, "late": 1, "paused": 2, "waiting": 3, "good": 4}
    return sorted(cards, key=lambda card: (order.get(card.word, 5), card.agency))


ROUTES: tuple[Route, ...] = (
    get("/", now, EVERY_ROLE),
    get("/now/live", live, EVERY_ROLE, live=LIVE_SECONDS),
)
