"""Look-up: paste or drop a list of digests, and see at a glance which children are identified.

Never a file of imagery: the page refuses it before anything is sent (by its kind and its first bytes), and the gateway
does again, unread (`adapters.asked_digests`). What was asked is not kept; that so many digests were is logged.
"""

from __future__ import annotations

from collections import Counter
from io import BytesIO

from gateway.adapters.asked_digests import FORM, Asked, read_asked
from gateway.columns.pdq import MAX_RADIUS, QUALITY_FLOOR
from gateway.console.pages import ANALYSTS, Answer, Desk, Page, Route, Visit, get, post
from gateway.errors import MalformedError
from gateway.exchange.lookup import MAX_LOOK_UP, Hit, Verdict, verdict
from gateway.model import AdapterReport
from gateway.partners import card_in, find

MAX_LIST_BYTES = 12 << 20  # 100,000 digests of SHA-512 with names behind them
SHOWN_ROWS = 500
# How each answer is shown: the colour, and what it means for who asked.
TOLD = {
    Verdict.IDENTIFIED: ("good", "the child is identified: stop searching, ask who"),
    Verdict.LEAD: ("warning", "somebody has a lead: ask before you go on"),
    Verdict.UNIDENTIFIED: ("info", "listed, and still searched for"),
    Verdict.LISTED: ("info", "listed; nothing is said of the child"),
    Verdict.NEEDS_REVIEW: ("warning", "something looks alike: a person must see"),
    Verdict.UNKNOWN: ("unknown", "in no list here"),
}


def look_up(_desk: Desk, _visit: Visit) -> Answer:
    """The empty form."""
    return Page("look_up.html", {"radius": MAX_RADIUS, "answers": None})


def answer(desk: Desk, visit: Visit) -> Answer:
    """What is known of each digest of a list."""
    raw = visit.body or visit.form.get("digests", "").encode()
    near = bool(visit.form.get("near") or visit.query.get("near"))
    report = AdapterReport(FORM)
    asked, poor = _asked(raw, report)
    actor = visit.session.person
    texts = [one.digest for one in asked]
    hits = desk.exchange.lookup.find(texts, actor=actor, distance=MAX_RADIUS if near else None) if texts else []
    by_query: dict[int, list[Hit]] = {}
    for hit in hits:
        by_query.setdefault(hit.query, []).append(hit)
    said = {number: verdict(one.verdict for one in found) for number, found in by_query.items()}
    counts = Counter(said.values())
    counts[Verdict.UNKNOWN] = len(asked) - len(said)
    order = list(Verdict)
    known = sorted(by_query, key=lambda number: (order.index(said[number]), number))
    names = _names(desk, hits)
    values = {
        "radius": MAX_RADIUS,
        "answers": {
            "asked": len(asked),
            "poor": poor,
            "refused": report.refused,
            "refused_rows": report.refused_rows[:20],
            "tiles": [(one, *TOLD[one], counts[one]) for one in Verdict],
            "rows": [_row(asked[number], said[number], by_query[number], names) for number in known[:SHOWN_ROWS]],
            "more": max(0, len(known) - SHOWN_ROWS),
        },
    }
    fragment = bool(visit.body)
    return Page("look_up_answers.html" if fragment else "look_up.html", values, fragment=fragment)


def _asked(raw: bytes, report: AdapterReport) -> tuple[list[Asked], int]:
    good: list[Asked] = []
    poor = 0
    for one in read_asked(BytesIO(raw), report):
        if 0 < one.quality < QUALITY_FLOOR:
            poor += 1
        elif len(good) == MAX_LOOK_UP:
            raise MalformedError(f"more than {MAX_LOOK_UP:,} digests at once", remedy="look up in several lists")
        else:
            good.append(one)
    return good, poor


def _names(desk: Desk, hits: list[Hit]) -> dict[str, str]:
    """Whom to ask: the names that identity cards give."""
    names: dict[str, str] = {}
    with desk.node.store.reading() as tx:
        for agency in {agency for hit in hits for agency in (hit.who, hit.hub) if agency}:
            row = find(desk.node, tx, agency)
            names[agency] = "" if row is None else card_in(row).name
    return names


def _row(asked: Asked, said: Verdict, hits: list[Hit], names: dict[str, str]) -> dict[str, object]:
    best = min(hits, key=lambda hit: (list(Verdict).index(hit.verdict), hit.distance))
    return {
        "line": asked.line,
        "digest": asked.digest,
        "verdict": said,
        "level": TOLD[said][0],
        "who": best.who,
        "contact": names.get(best.who, "") or names.get(best.hub, ""),
        "since": best.since,
        "hits": [
            {
                "set": hit.set_name,
                "entry": hit.entry,
                "verdict": hit.verdict,
                "level": TOLD[hit.verdict][0],
                "series": hit.series,
                "category": hit.attributes["category"],
                "handling": hit.attributes["handling"],
                "distance": hit.distance if hit.needs_review else None,
                "duties": hit.duties,
                "remarks": hit.remarks,
            }
            for hit in hits
        ],
    }


ROUTES: tuple[Route, ...] = (
    get("/look-up", look_up, ANALYSTS),
    post("/look-up", answer, ANALYSTS, upload=MAX_LIST_BYTES),
)
