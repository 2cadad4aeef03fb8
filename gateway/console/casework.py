"""Cases for analysts: the list, one case with its clues, referring it, talking about it, its chain of custody.

Texts of a case stay folded until somebody opens them: reading them all day harms people. What a page shows of a case is
the case; no other page, log line or error has any of it.
"""

from __future__ import annotations

import re
from datetime import date

from gateway.caserecord import Contact
from gateway.cases import CaseState, Statements
from gateway.cases.assertions import Wish
from gateway.cases.custody import chain
from gateway.cases.custodypage import page as custody_page
from gateway.cases.threads import THEIRS, Saying, ThreadState
from gateway.console.pages import ANALYSTS, Answer, Desk, Download, Page, Redirect, Route, Visit, get, post
from gateway.errors import DeniedError, MalformedError, NotFoundError
from gateway.model import HandlingCode, Purpose, VictimStatus
from gateway.signin import Role
from gateway.store.tables import CaseRow

SHOWN_CASES = 200
WHOLE = re.compile(r"[0-9a-f]{32}")
SAID_STATUS = (
    VictimStatus.UNIDENTIFIED,
    VictimStatus.LEAD,
    VictimStatus.IDENTIFIED,
    VictimStatus.SAFEGUARDED,
    VictimStatus.CLOSED,
)


def cases(desk: Desk, visit: Visit) -> Answer:
    """The inbox, what is worked on, and where open cases point to."""
    state = visit.query.get("state", "")
    if state and state not in list(CaseState):
        raise MalformedError("no such state of a case")
    rows = desk.exchange.cases.all([CaseState(state)] if state else [CaseState.OPEN])
    values = {
        "inbox": [_line(row) for row in desk.exchange.cases.inbox()],
        "held": [_line(row) for row in rows[:SHOWN_CASES]],
        "more": max(0, len(rows) - SHOWN_CASES),
        "state": state or str(CaseState.OPEN),
        "states": [str(one) for one in CaseState if one is not CaseState.INBOX],
        "pointers": desk.exchange.referrals.proposals(),
        "now": desk.node.clock(),
    }
    return Page("cases.html", values)


def case(desk: Desk, visit: Visit) -> Answer:
    """One case. The page says by itself that somebody has read it (`read`), by a form of its own."""
    held = desk.exchange.cases.get(_whole(visit))
    threads = desk.exchange.talk.threads(held.row.id)
    with desk.node.store.reading() as tx:
        row = tx.cases.beginning(held.row.id)
        partners = [one.agency for one in tx.people.partners() if one.state == "active"]
    values = {
        "row": row,
        "record": held.record,
        "groups": row.groups.split(),
        "missing": row.missing.split(),
        "duties": row.obligations.split(),
        "threads": threads,
        "unread": any((one.side, one.state) == (THEIRS, ThreadState.RECEIVED) for one in threads),
        "lines": desk.exchange.talk.lines(row.id),
        "partners": [one for one in partners if one != row.source],
        "pointers": [one for one in desk.exchange.referrals.proposals() if one.case == row.id],
        "statuses": [str(one) for one in SAID_STATUS],
        "handling": [str(one) for one in HandlingCode],
        "purposes": [str(one) for one in Purpose],
    }
    return Page("case.html", values)


def read(desk: Desk, visit: Visit) -> Answer:
    """Somebody here has read a case that was referred to us: whoever referred it is told."""
    identifier = _whole(visit)
    desk.exchange.talk.read(identifier)
    return Redirect(f"/cases/{identifier}")


def preview(desk: Desk, visit: Visit) -> Answer:
    """What would go of a case to a partner, what stays, and why."""
    identifier, partner = _whole(visit), visit.query.get("partner", "")
    if not partner:
        raise MalformedError("name the partner")
    urgent = bool(visit.query.get("urgent"))
    shown = desk.exchange.referrals.preview(identifier, partner, urgent=urgent)
    may_propose = Role.ADMINISTRATOR in visit.session.roles
    values = {"case": identifier, "shown": shown, "urgent": urgent, "may_propose": may_propose}
    return Page("case_refer.html", values)


def refer(desk: Desk, visit: Visit) -> Answer:
    """The case goes; or, where policy asks for four eyes, it is proposed."""
    identifier, partner = _whole(visit), visit.filled("partner")
    urgent, note = bool(visit.form.get("urgent")), visit.form.get("note", "").strip()
    shown = desk.exchange.referrals.preview(identifier, partner, urgent=urgent)
    if shown.allowed and shown.needs_approval:
        if Role.ADMINISTRATOR not in visit.session.roles:
            raise DeniedError(
                "two administrators have to approve this referral", remedy="ask one of them to propose it from here"
            )
        act = desk.exchange.referrals.propose(identifier, partner, urgent=urgent, note=note)
        return Redirect(f"/approvals/{desk.approvals.propose(*act, by=visit.session.person)}", "proposed")
    desk.exchange.referrals.refer(identifier, partner, urgent=urgent, note=note)
    _hasten(desk, [partner])
    return Redirect(f"/cases/{identifier}", "done")


def answer(desk: Desk, visit: Visit) -> Answer:
    """We take a case that was referred to us, or do not."""
    identifier = _whole(visit)
    if visit.filled("answer") == "accept":
        row = desk.exchange.talk.accept(identifier)
    else:
        row = desk.exchange.talk.decline(identifier, visit.filled("reason"))
    _hasten(desk, [row.source])
    return Redirect("/cases" if row.state == CaseState.DECLINED else f"/cases/{identifier}", "done")


def say(desk: Desk, visit: Visit) -> Answer:
    """A message to the partner with whom we have the case."""
    identifier = _whole(visit)
    saying = Saying.ASK if visit.form.get("ask") else Saying.SAY
    found = desk.exchange.talk.say(identifier, visit.filled("text"), saying, partner=visit.form.get("partner", ""))
    _hasten(desk, [one.partner for one in found])
    return Redirect(f"/cases/{identifier}", "done")


def complete(desk: Desk, visit: Visit) -> Answer:
    """What law and policy need is stated by a person."""
    form = visit.form
    unit = form.get("contact", "").strip()
    contact = None
    if unit:
        numbers = [form.get(name, "").strip() for name in ("telephone", "email", "duty_telephone")]
        contact = Contact(unit, *numbers)
    stated = Statements(
        handling=HandlingCode(form["handling"]) if form.get("handling") in list(HandlingCode) else None,
        category=form.get("category", "").strip() or None,
        evaluation=form.get("evaluation", "").strip() or None,
        legal_basis=form.get("legal_basis", "").strip() or None,
        purpose=Purpose(form["purpose"]) if form.get("purpose") in list(Purpose) else None,
        review_on=_day(form.get("review_on", "")),
        contact=contact,
    )
    held = desk.exchange.cases.complete(_whole(visit), stated)
    return Redirect(f"/cases/{held.row.id}", "done")


def set_status(desk: Desk, visit: Visit) -> Answer:
    """What we say of a child of the case; whoever may hold any of it is told."""
    identifier = _whole(visit)
    word = visit.filled("status")
    if word not in list(VictimStatus):
        raise MalformedError("no such status")
    wish = Wish(VictimStatus(word), visit.form.get("reason", "").strip(), visit.form.get("contact", "").strip())
    done = desk.exchange.statuses.set_victim(identifier, visit.filled("victim"), wish, actor=visit.session.person)
    _hasten(desk, [*done.told.partners, *done.told.taken_back])
    return Redirect(f"/cases/{identifier}", "done")


def close(desk: Desk, visit: Visit) -> Answer:
    """The work on the case is over."""
    desk.exchange.cases.close(_whole(visit))
    return Redirect("/cases", "done")


def custody(desk: Desk, visit: Visit) -> Answer:
    """The chain of custody as one page to print; everything in it is verified anew."""
    identifier = _whole(visit)
    return Download(
        custody_page(chain(desk.node, identifier)), "text/html; charset=utf-8", f"custody-{identifier}.html"
    )


def _line(row: CaseRow) -> dict[str, object]:
    return {
        "id": row.id,
        "state": row.state,
        "urgency": row.urgency,
        "status": row.victim_status,
        "version": row.version,
        "source": row.source,
        "missing": row.missing.split(),
        "review_on": row.review_on,
        "changed": row.changed,
        "arrived": row.arrived,
    }


def _whole(visit: Visit) -> str:
    """A case's whole id: in an address nothing is abbreviated."""
    identifier = visit.path["id"]
    if not WHOLE.fullmatch(identifier):
        raise NotFoundError("no such case")
    return identifier


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError as error:
        raise MalformedError("a day is written as YYYY-MM-DD") from error


def _hasten(desk: Desk, partners: list[str]) -> None:
    """What was said waits in the mailbox: the schedule takes it along within seconds."""
    now = desk.node.clock()
    with desk.node.store.transaction() as tx:
        for partner in partners:
            tx.schedule.hasten(now, partner)


ROUTES: tuple[Route, ...] = (
    get("/cases", cases, ANALYSTS),
    get("/cases/{id}", case, ANALYSTS),
    post("/cases/{id}/read", read, ANALYSTS),
    get("/cases/{id}/refer", preview, ANALYSTS),
    post("/cases/{id}/refer", refer, ANALYSTS, guarded=True),
    post("/cases/{id}/answer", answer, ANALYSTS),
    post("/cases/{id}/say", say, ANALYSTS),
    post("/cases/{id}/complete", complete, ANALYSTS),
    post("/cases/{id}/status", set_status, ANALYSTS, guarded=True),
    post("/cases/{id}/close", close, ANALYSTS),
    get("/cases/{id}/custody", custody, ANALYSTS, data=True),
)
