"""Following partners: where each set stands, when the next run is, running it now and watching it."""

from __future__ import annotations

from gateway.console.pages import ADMINISTRATORS, ANALYSTS, Answer, Desk, Page, Redirect, Route, Visit, get, post
from gateway.errors import NotFoundError
from gateway.interchange import FeedHead
from gateway.store import Transaction
from gateway.store.tables import HashSet, ScheduleRow

WATCHERS = ADMINISTRATORS | ANALYSTS
LIVE_SECONDS = 2
# What to do next, by the beginning of the last error; what stands nowhere here is for the log.
REMEDIES = {
    "the partner cannot be reached": "ask its people whether its gateway runs, and whether this machine may reach it",
    "the two ends hold different entries": "`gateway sync compare PARTNER --repair` finds and mends what differs",
    "the feed has expired": "its gateway has not signed a new head: ask its people",
    "the run took too long": "nothing moved for minutes; it goes on where it stopped",
}


def sync(desk: Desk, _visit: Visit) -> Answer:
    """The whole screen."""
    return Page("sync.html", _values(desk))


def live(desk: Desk, _visit: Visit) -> Answer:
    """Its living part."""
    return Page("sync_live.html", _values(desk), fragment=True)


def run_now(desk: Desk, visit: Visit) -> Answer:
    """A partner's run is due now: the schedule takes it up within seconds."""
    partner = visit.filled("partner")
    now = desk.node.clock()
    with desk.node.store.transaction() as tx:
        if not any(job.partner == partner for job in tx.schedule.jobs()):
            raise NotFoundError("no such partner is scheduled")
        tx.schedule.hasten(now, partner)
    return Redirect("/sync", "queued")


def _values(desk: Desk) -> dict[str, object]:
    now = desk.node.clock()
    with desk.node.store.reading() as tx:
        paused = {scope for scope, _, _ in tx.people.pauses()}
        jobs = tx.schedule.jobs()
        sets = tx.sets.all()
        followers = {one.id: len(tx.sets.followers(one.id or 0)) for one in sets if not one.hub}
        partners = [_job(tx, job, now, paused, [one for one in sets if one.hub == job.partner]) for job in jobs]
    own = [
        {"name": one.name, "epoch": one.epoch, "seq": one.seq, "followers": followers[one.id]}
        for one in sets
        if not one.hub
    ]
    return {"partners": partners, "own": own}


def _job(tx: Transaction, job: ScheduleRow, now: int, paused: set[str], sets: list[HashSet]) -> dict[str, object]:
    word = "running" if job.lease_until > now else "failing" if job.failures else "waiting"
    if {job.partner, "*"} & paused:
        word = "paused"
    error = said_error(job)
    return {
        "partner": job.partner,
        "word": word,
        "last_success": job.last_success,
        "next_run": job.next_run,
        "began": job.last_start if word == "running" else 0,
        "lag": job.lag_changes,
        "failures": job.failures,
        "error": error,
        "remedy": next((said for begins, said in REMEDIES.items() if error.startswith(begins)), ""),
        "waiting_out": len(tx.mail.waiting(job.partner)),
        "sets": [_mirror(one) for one in sets],
    }


def said_error(job: ScheduleRow) -> str:
    """What the last run failed with, in words alone: the class before them is for programs."""
    return job.last_error.partition(": ")[2] or job.last_error if job.failures else ""


def _mirror(one: HashSet) -> dict[str, object]:
    head = FeedHead.parse(one.head.encode()) if one.head else None
    return {
        "name": one.name,
        "epoch": one.epoch,
        "seq": one.seq,
        "view": one.view,
        "equality": one.equality,
        "hub_seq": head.cursor.seq if head else 0,
        "entries": head.count if head else 0,
        "head_until": head.expires if head else 0,
    }


ROUTES: tuple[Route, ...] = (
    get("/sync", sync, WATCHERS),
    get("/sync/live", live, WATCHERS, live=LIVE_SECONDS),
    post("/sync/run", run_now, WATCHERS),
)
