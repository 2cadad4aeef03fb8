"""Audit events as people search and read them: what each is about, how it came out, on one line.

Pure: an event in, words out. What people search by are *facets*: pairs such as ("partner", "XB-NCVI"). They name what
an event names already, and nothing that it does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from gateway.audit import Event, EventKind
from gateway.model import AGENCY, SET_NAME

MAX_ABOUT_CHARS = 140  # of an event's details on one line
SHOWN_ITEMS = 4  # of a list in them
MAX_FACET_CHARS = 256
FACETS = ("partner", "set", "rule", "kind", "actor", "outcome")
DONE = "done"
# Who else an event may name, beside `partner`.
_PARTIES = ("partner", "sender", "holder", "witness", "owner")
_REFUSED = frozenset(
    {
        EventKind.ROWS_REFUSED,
        EventKind.MESSAGE_REFUSED,
        EventKind.TOKEN_REFUSED,
        EventKind.PROPOSAL_REFUSED,
        EventKind.CONSOLE_REFUSED,
    }
)
_FAILED = frozenset({EventKind.SYNC_FAILED, EventKind.LOG_FORKED})


def facets(event: Event, own: str) -> Iterator[tuple[str, str]]:
    """By what an event is found: each pair once. What nearly all events have in common is no facet.

    Args:
        own: the agency whose log it is; it stands in every event.
    """
    found = {("kind", str(event.kind)), ("actor", event.actor), ("outcome", outcome(event))}
    found -= {("actor", own), ("outcome", DONE)}
    details = event.details
    parties = [details.get(name) for name in _PARTIES] + [event.actor, event.subject]
    parties = [party for party in parties if isinstance(party, str) and AGENCY.fullmatch(party) and party != own]
    found |= {("partner", str(party)) for party in parties}
    for name in (details.get("set"), event.subject):
        if isinstance(name, str) and SET_NAME.fullmatch(name):
            found.add(("set", name))
    rules = details.get("rules")
    if isinstance(rules, list):
        found |= {("rule", rule) for rule in rules if isinstance(rule, str)}
    for name, value in sorted(found):
        if value and len(value) <= MAX_FACET_CHARS:
            yield name, value


def outcome(event: Event) -> str:
    """How it came out, in one word: allow, deny, refused, failed, else done."""
    said = event.details.get("outcome")
    if event.kind is EventKind.SHARE_DECIDED and isinstance(said, str):
        return said
    if event.kind in _REFUSED:
        return "refused"
    return "failed" if event.kind in _FAILED else DONE


def measures(event: Event) -> Iterator[tuple[str, str, int]]:
    """What an event adds to the numbers of its year: (partner, measure, amount). Partner "" is the gateway itself."""
    details = event.details
    partner = str(details.get("partner") or details.get("sender") or "")
    match event.kind:
        case EventKind.PAGE_SENT | EventKind.PAGE_SERVED:
            yield partner, "sent", _number(details, "changes")
        case EventKind.SURFACE_PAGE_SERVED | EventKind.FILE_EXPORTED:
            yield partner, "sent", _number(details, "entries")
        case EventKind.PAGE_APPLIED | EventKind.PUSH_RECEIVED:
            yield partner, "received", _number(details, "changes")
            yield partner, "refused", _number(details, "refused")
        case EventKind.ROWS_REFUSED:
            yield partner, "refused", _number(details, "refused")
        case EventKind.MESSAGE_REFUSED:
            yield partner, "refused", 1
        case EventKind.ENTRIES_IMPORTED:
            yield "", "imported", _number(details, "accepted")
        case EventKind.ENTRIES_WITHDRAWN:
            yield "", "withdrawn", _number(details, "changes")
        case EventKind.LOOK_UP:
            yield partner, "looked up", _number(details, "asked")
        case EventKind.CASE_SENT | EventKind.CASE_HEARD:
            yield partner, "case messages", 1
        case EventKind.STATUS_ASSERTED if details.get("status") == "identified":
            yield "", "identified", 1
        case EventKind.STATUS_RECEIVED if details.get("status") == "identified":
            yield event.actor, "identified", 1
        case EventKind.CERTIFICATE_ISSUED:
            yield "", "certificates", 1


def _number(details: dict[str, object], name: str) -> int:
    value = details.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def day(at: int) -> str:
    """The day (UTC) of a moment."""
    return datetime.fromtimestamp(at, UTC).date().isoformat()


def about(details: dict[str, object]) -> str:
    """An event's details on one line, as many as fit."""
    words = ""
    for name, value in sorted(details.items()):
        more = f"{', ' if words else ''}{name} {brief(value)}"
        if len(words + more) > MAX_ABOUT_CHARS:
            return f"{words}, …" if words else "…"
        words += more
    return words


def brief(value: object) -> str:
    """Ids and digests by their beginning, long lists by their length."""
    if isinstance(value, list | dict):
        return ", ".join(brief(one) for one in value) if len(value) <= SHOWN_ITEMS else f"({len(value)})"
    text = str(value)
    return f"{text[:12]}…" if len(text) >= 32 and " " not in text and "/" not in text else text
