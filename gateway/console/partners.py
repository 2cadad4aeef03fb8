"""Partners and keys: enrolling by card and fingerprint, shutting out, and the lives of keys."""

from __future__ import annotations

from datetime import UTC, datetime

from gateway import keyacts, ownkeys
from gateway.approvals import Arguments
from gateway.console.pages import (
    ADMINISTRATORS,
    READERS_OF_THE_LOG,
    Answer,
    Desk,
    Download,
    Page,
    Redirect,
    Route,
    Visit,
    get,
    post,
)
from gateway.errors import MalformedError
from gateway.interchange import IdentityCard, parse_card
from gateway.keyadmin import add_partner, export_card, lift_test, pause, remove_partner, resume, suspend_partner
from gateway.keylife import KeyPurpose, KeyState, alarm_level, days_left
from gateway.partners import card_in
from gateway.partners import get as held_partner
from gateway.store.people import EVERYTHING
from gateway.store.tables import OwnKey, PartnerRow

CARD_TYPE = "application/json"
DAY_SECONDS = 86_400
SPAN_DAYS = 800  # of the time lines: a signing key's two years, and what is around them


# Partners


def partners(desk: Desk, _visit: Visit) -> Answer:
    """Everybody who is enrolled, and whose card waits for signatures."""
    with desk.node.store.reading() as tx:
        rows = tx.people.partners()
        paused = {scope for scope, _, _ in tx.people.pauses()}
    waiting = [one for one in desk.approvals.all(only_open=True) if one.act == "partner_add"]
    values = {
        "partners": [_partner_value(row, paused) for row in rows],
        "waiting": waiting,
        "everything_paused": EVERYTHING in paused,
        "own": parse_card(export_card(desk.node)),
    }
    return Page("partners.html", values)


def own_card(desk: Desk, _visit: Visit) -> Answer:
    """Our own identity card, to hand to partners."""
    return Download(export_card(desk.node), CARD_TYPE, f"{desk.node.agency}-card.json")


def read_card(desk: Desk, visit: Visit) -> Answer:
    """A card that somebody sent, before anything is proposed: its fingerprint is for two voices to compare."""
    return _card_page(desk, visit.filled("card").encode())


def propose_card(desk: Desk, visit: Visit) -> Answer:
    """The card whose fingerprint was compared is proposed."""
    raw = visit.filled("card").encode()
    card = parse_card(raw)
    typed = visit.filled("fingerprint").replace(" ", "").lower()
    if typed != card.fingerprint.replace(" ", ""):
        return _card_page(desk, raw, problem="The fingerprint that you heard is not this card's.")
    return _propose(desk, visit, add_partner(raw))


def partner(desk: Desk, visit: Visit) -> Answer:
    """One partner."""
    agency = visit.path["agency"]
    with desk.node.store.reading() as tx:
        row = held_partner(desk.node, tx, agency)
        paused = {scope for scope, _, _ in tx.people.pauses()}
        surfaces = tx.secrets.surfaces(agency)
        jobs = [one for one in tx.schedule.jobs() if one.partner == agency]
        keys = tx.keys.of_partner(agency)
        sets = [one for one in tx.sets.all() if one.hub == agency]
        issued = tx.people.issued(agency)
    values = {
        "partner": _partner_value(row, paused),
        "card": card_in(row),
        "surfaces": [one.surface for one in surfaces],
        "job": jobs[0] if jobs else None,
        "keys": keys,
        "sets": sets,
        "issued": issued,
        "waiting": [one for one in desk.approvals.all(only_open=True) if one.subject == agency],
    }
    return Page("partner.html", values)


def stop(desk: Desk, visit: Visit) -> Answer:
    """All exchange with a partner (or with everybody) stops at once: one person may do that."""
    agency = visit.form.get("partner", "")
    pause(desk.node, agency, by=visit.session.person)
    return Redirect(f"/partners/{agency}" if agency else "/partners", "paused")


def change(desk: Desk, visit: Visit) -> Answer:
    """A guarded act about a partner is proposed."""
    agency, deed = visit.filled("partner"), visit.filled("deed")
    if deed == "suspend":
        act = suspend_partner(agency, visit.filled("reason"))
    elif deed == "remove":
        act = remove_partner(agency, visit.filled("reason"))
    elif deed == "resume":
        act = resume("" if agency == EVERYTHING else agency)
    elif deed == "lift-test":
        act = lift_test(agency)
    elif deed == "revoke":
        act = keyacts.revoke_partner_key(agency, _moment(visit.filled("since")), visit.filled("reason"))
    else:
        raise MalformedError("no such deed")
    return _propose(desk, visit, act)


# Keys


def keys(desk: Desk, _visit: Visit) -> Answer:
    """Our keys through their lives, and which partner knows which."""
    node = desk.node
    ownkeys.issued_card(node)
    now = node.clock()
    with node.store.reading() as tx:
        rows = tx.keys.own()
        live = [row for row in rows if row.state in (KeyState.PRE_ACTIVE, KeyState.ACTIVE)]
        partners_now = [one.agency for one in tx.people.partners() if one.state == "active"]
        missing = {row.key_id: set(ownkeys.missing(tx, row)) for row in live}
        seen = tx.keys.seen()
    lines = [_key_value(row, now) for row in rows if row.state != KeyState.DESTROYED]
    matrix = [
        {
            "partner": agency,
            "known": [agency not in missing[row.key_id] for row in live],
            "at": seen[agency].at if agency in seen else 0,
        }
        for agency in partners_now
    ]
    values = {
        "keys": lines,
        "live": live,
        "matrix": matrix,
        "purposes": [KeyPurpose.SIGNING, KeyPurpose.TOKEN, KeyPurpose.DECRYPTION],
        "span": SPAN_DAYS,
    }
    return Page("keys.html", values)


def key(desk: Desk, visit: Visit) -> Answer:
    """One key: what it was for, who knows it, what to do when it is lost."""
    with desk.node.store.reading() as tx:
        row = tx.keys.own_key(visit.path["id"])
        value = _key_value(row, desk.node.clock())
        unseen = ownkeys.missing(tx, row)
    found = ownkeys.affected(desk.node, row) if row.state == KeyState.COMPROMISED else []
    return Page("key.html", {"key": value, "row": row, "unseen": unseen, "affected": found})


def suspend_key(desk: Desk, visit: Visit) -> Answer:
    """A key is taken out of use at once; one person may do that."""
    key_id = visit.filled("key_id")
    keyacts.suspend(desk.node, key_id, by=visit.session.person, reason=visit.filled("reason"))
    return Redirect(f"/keys/{key_id}", "paused")


def change_key(desk: Desk, visit: Visit) -> Answer:
    """A guarded act about a key is proposed."""
    deed, reason = visit.filled("deed"), visit.filled("reason")
    if deed == "rotate":
        purpose = visit.filled("purpose")
        if purpose not in list(KeyPurpose):
            raise MalformedError("no such purpose of a key")
        act = keyacts.rotate(KeyPurpose(purpose), reason)
    elif deed == "switch":
        act = keyacts.switch(visit.filled("key_id"), reason)
    elif deed == "revoke":
        act = keyacts.revoke(visit.filled("key_id"), _moment(visit.filled("since")), reason)
    elif deed == "reinstate":
        act = keyacts.reinstate(visit.filled("key_id"), reason)
    else:
        raise MalformedError("no such deed")
    return _propose(desk, visit, act)


# What they have in common


def _card_page(desk: Desk, raw: bytes, problem: str = "") -> Page:
    card = parse_card(raw)
    with desk.node.store.reading() as tx:
        known = tx.people.find_partner(card.agency)
    values = {
        "card": card,
        "raw": raw.decode(),
        "known": None if known is None else card_in(known),
        "keys": _card_keys(card),
        "problem": problem,
    }
    return Page("partner_card.html", values, status=400 if problem else 200)


def _propose(desk: Desk, visit: Visit, act: tuple[str, Arguments]) -> Answer:
    identifier = desk.approvals.propose(*act, by=visit.session.person)
    return Redirect(f"/approvals/{identifier}", "proposed")


def _partner_value(row: PartnerRow, paused: set[str]) -> dict[str, object]:
    card = card_in(row)
    stopped = row.state == "active" and bool({row.agency, EVERYTHING} & paused)
    return {
        "agency": row.agency,
        "name": card.name,
        "jurisdiction": row.jurisdiction,
        "state": "paused" if stopped else row.state,
        "test": row.test,
        "url": card.url,
        "added": row.added,
        "contacted": row.contacted,
        "fingerprint": card.fingerprint,
    }


def _card_keys(card: IdentityCard) -> list[tuple[str, str]]:
    return [
        ("signs with", ", ".join(one[:12] for one in card.signing.key_ids)),
        ("opens with", ", ".join(one.key_id[:12] for one in card.opening)),
        ("answers at", card.url),
        ("its log", card.log.partition("+")[0]),
    ]


def _key_value(row: OwnKey, now: int) -> dict[str, object]:
    ends = row.expires or now + SPAN_DAYS // 2 * DAY_SECONDS
    first = now - SPAN_DAYS // 2 * DAY_SECONDS
    lasting = row.state in (KeyState.ACTIVE, KeyState.PRE_ACTIVE) and row.purpose != KeyPurpose.DECRYPTION
    level = alarm_level(row.expires, now) if lasting else None
    return {
        "key_id": row.key_id,
        "purpose": row.purpose,
        "number": row.number,
        "state": row.state,
        "created": row.created,
        "expires": row.expires,
        "days_left": days_left(row.expires, now) if row.expires else None,
        "alarm": level is not None,
        "reason": row.reason,
        # Where its bar stands on a line of SPAN_DAYS around today.
        "start": max(0, (row.created - first) // DAY_SECONDS),
        "stop": min(SPAN_DAYS, max(1, (ends - first) // DAY_SECONDS)),
    }


def _moment(text: str) -> int:
    """Unix seconds of "2026-11-18T09:30" in UTC, as a browser's field gives it."""
    try:
        return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())
    except ValueError as error:
        raise MalformedError("a moment is written as 2026-11-18T09:30") from error


ROUTES: tuple[Route, ...] = (
    get("/partners", partners, READERS_OF_THE_LOG),
    get("/partners/own-card", own_card, READERS_OF_THE_LOG, data=True),
    post("/partners/card", read_card, ADMINISTRATORS),
    post("/partners/enrol", propose_card, ADMINISTRATORS, guarded=True),
    post("/partners/stop", stop, ADMINISTRATORS),
    post("/partners/change", change, ADMINISTRATORS, guarded=True),
    get("/partners/{agency}", partner, READERS_OF_THE_LOG),
    get("/keys", keys, READERS_OF_THE_LOG),
    post("/keys/suspend", suspend_key, ADMINISTRATORS, guarded=True),
    post("/keys/change", change_key, ADMINISTRATORS, guarded=True),
    get("/keys/{id}", key, READERS_OF_THE_LOG),
)
