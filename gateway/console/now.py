"""Is the exchange healthy, and what needs me? The first screen, made anew by itself while it is open."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gateway.alarms import ENDED_BY_DEED, NEXT, SWEPT, AlarmKind, close_by_hand
from gateway.console.pages import ADMINISTRATORS, EVERY_ROLE, Answer, Desk, Page, Redirect, Route, Visit, get, post
from gateway.console.rendering import NAVIGATION
from gateway.console.syncing import said_error
from gateway.console.volume import volume
from gateway.console.waiting import needs
from gateway.errors import MalformedError
from gateway.logsearch import LogSearch
from gateway.partners import ACTIVE
from gateway.signin import Role, Session
from gateway.store import Transaction
from gateway.store.people import EVERYTHING
from gateway.store.tables import AlarmRow

LIVE_SECONDS = 3
LATE_FACTOR = 3  # a partner is late when three intervals have passed without a success
NUMBER_CHARS = 16
# What is worst, first: a jurisdiction shows the worst word of its partners.
ORDER = {"failing": 0, "late": 1, "paused": 2, "suspended": 3, "revoked": 4, "waiting": 5, "good": 6, "removed": 7}
LEVELS = {"failing": "critical", "late": "warning", "revoked": "critical", "waiting": "waiting", "good": "good"}
# Where in the console something can be done about an alarm.
PLACES: Mapping[AlarmKind, str] = {
    AlarmKind.KEY_EXPIRES: "/keys",
    AlarmKind.KEY_EXPIRED: "/keys",
    AlarmKind.LOG_FORK: "/partners",
    AlarmKind.FEED_STALE: "/sync",
    AlarmKind.SYNC_FAILING: "/sync",
    AlarmKind.PARTNER_KEY_REVOKED: "/log",
    AlarmKind.PARTNER_CARD_WAITS: "/approvals",
    AlarmKind.PARTNER_RESTORED: "/partners",
    AlarmKind.PROPOSAL_WAITS: "/approvals",
    AlarmKind.CASE_REVIEW_DUE: "/cases",
    AlarmKind.CASE_URGENT: "/cases",
    AlarmKind.CASE_UNREAD: "/cases",
    AlarmKind.LOOK_UP_VOLUME: "/log",
}
# What is the business of analysts too. The others are for those who run the gateway, and who watch over it.
ANALYSTS_ALARMS = frozenset(
    {
        AlarmKind.CASE_REVIEW_DUE,
        AlarmKind.CASE_URGENT,
        AlarmKind.CASE_UNREAD,
        AlarmKind.CLAIM_CONFLICT,
        AlarmKind.KNOWN_GOOD_LISTED,
        AlarmKind.RESUME_OVERDUE,
        AlarmKind.SEARCH_RESUMED,
        AlarmKind.STATUS_LOST,
        AlarmKind.WITHDRAWAL_OVERDUE,
    }
)
OF_CASES = frozenset({AlarmKind.CASE_REVIEW_DUE, AlarmKind.CASE_URGENT, AlarmKind.CASE_UNREAD})  # by their local id
GRAVE = frozenset({AlarmKind.CASE_URGENT, AlarmKind.KEY_EXPIRED, AlarmKind.LOG_FORK, AlarmKind.OWN_LOG})


@dataclass(frozen=True, slots=True)
class PartnerCard:
    """How a partner stands. `word`: good, waiting, late, failing, paused, or its state where it is not active."""

    agency: str
    jurisdiction: str
    word: str
    last_success: int
    lag: int
    next_run: int
    error: str
    different: tuple[str, ...]

    @property
    def level(self) -> str:
        """The colour of the word."""
        return LEVELS.get(self.word, "info")


@dataclass(frozen=True, slots=True)
class Place:
    """A jurisdiction on the map, with its partners. `level`: as its worst partner's."""

    jurisdiction: str
    level: str
    partners: tuple[PartnerCard, ...]


@dataclass(frozen=True, slots=True)
class Shown:
    """An open alarm. `where`: the screen for it, "" where whoever looks has none; `ends`: by what it is closed."""

    row: AlarmRow
    level: str
    remedy: str
    where: str
    ends: str


def now(desk: Desk, visit: Visit) -> Answer:
    """The whole screen."""
    return Page("now.html", values(desk, visit))


def live(desk: Desk, visit: Visit) -> Answer:
    """Its living part."""
    return Page("now_live.html", values(desk, visit), fragment=True)


def close_alarm(desk: Desk, visit: Visit) -> Answer:
    """Somebody has seen an alarm and done what it asks for: it is closed, on record."""
    number = visit.filled("alarm")
    if not number.isascii() or not number.isdigit() or len(number) > NUMBER_CHARS:
        raise MalformedError("an alarm is named by its number")
    close_by_hand(desk.node, int(number), visit.session.person)
    return Redirect("/", "closed")


def values(desk: Desk, visit: Visit) -> dict[str, object]:
    """What is the case now."""
    node = desk.node
    indexed, size = LogSearch(node).catch_up(1)
    with node.store.reading() as tx:
        partners = _partners(tx, node.clock())
        pauses = tx.people.pauses()
        alarms = tx.alarms.all()
        cosigned = tx.witness.largest_cosigned()
        sets = tx.sets.all()
    return {
        "places": _places(partners),
        "words": sorted(Counter(one.word for one in partners).items(), key=lambda one: ORDER.get(one[0], 9)),
        "everything_paused": any(scope == EVERYTHING for scope, _, _ in pauses),
        "alarms": [_shown(one, visit.session) for one in alarms if _concerns(one, visit.session)],
        "needs": needs(desk, visit.session),
        "volume": volume(desk),
        "complete": indexed >= size,
        "leaves": size,
        "cosigned": cosigned,
        "own_sets": sum(not one.hub for one in sets),
        "followed": sum(bool(one.hub) for one in sets),
        "different": sum(one.equality == "different" for one in sets),
    }


# Partners


def _places(partners: Iterable[PartnerCard]) -> list[Place]:
    """Jurisdictions by name: each stays where it is, so that people find it again."""
    found: dict[str, list[PartnerCard]] = {}
    for one in partners:
        found.setdefault(one.jurisdiction, []).append(one)
    return [Place(name, listed[0].level, tuple(listed)) for name, listed in sorted(found.items())]


def _partners(tx: Transaction, at: int) -> list[PartnerCard]:
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
        elif at - job.last_success > LATE_FACTOR * job.interval_seconds:
            word = "late"
        else:
            word = "good"
        cards.append(
            PartnerCard(
                agency=row.agency,
                jurisdiction=row.jurisdiction,
                word=word,
                last_success=job.last_success if job else 0,
                lag=job.lag_changes if job else -1,
                next_run=job.next_run if job and row.state == ACTIVE else 0,
                error=said_error(job) if job else "",
                different=tuple(different.get(row.agency, ())),
            )
        )
    return sorted(cards, key=lambda card: (ORDER.get(card.word, len(ORDER)), card.agency))


# Alarms


def _concerns(row: AlarmRow, someone: Session) -> bool:
    if someone.roles & {Role.ADMINISTRATOR, Role.AUDITOR}:
        return True
    return row.kind in ANALYSTS_ALARMS


def _shown(row: AlarmRow, someone: Session) -> Shown:
    kind = AlarmKind(row.kind)
    where = PLACES.get(kind, "")
    may_go = any(where == address and roles & someone.roles for _, address, roles, _ in NAVIGATION)
    if may_go and kind in OF_CASES:
        where = f"{where}/{row.subject}"
    if kind in ENDED_BY_DEED:
        ends = "deed"
    elif kind in SWEPT:
        ends = "itself"
    else:
        ends = "hand" if Role.ADMINISTRATOR in someone.roles else "administrator"
    return Shown(row, "critical" if kind in GRAVE else "warning", NEXT[kind], where if may_go else "", ends)


ROUTES: tuple[Route, ...] = (
    get("/", now, EVERY_ROLE),
    get("/now/live", live, EVERY_ROLE, live=LIVE_SECONDS),
    post("/alarms/close", close_alarm, ADMINISTRATORS, guarded=True),
)
