"""Rehearsing a policy: changed in the browser, seen in full before anything happens, and proposed as it was seen.

A draft travels with its form: nothing of it is kept by the gateway, nobody sees another's, and a session that ends
loses no more than what was typed since. Proposing takes the same bytes that were rehearsed, by their digest.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from gateway import policytexts
from gateway.approvals import OPEN
from gateway.console.pages import (
    ADMINISTRATORS,
    READERS_OF_THE_LOG,
    Answer,
    Desk,
    Page,
    Redirect,
    Route,
    Visit,
    get,
    missing,
    post,
)
from gateway.errors import GatewayError, MalformedError, TooLargeError
from gateway.exchange.rehearsing import Counted
from gateway.model import require
from gateway.policy import SHEET, IntakeChange, ShareChange, duty_words
from gateway.policyacts import cancel_policy
from gateway.policyarchive import MAX_ARCHIVE_BYTES, read_archive
from gateway.policydrafts import Draft, Files, Rehearsed, files_in_force, propose_files, rehearse_files
from gateway.policymatrix import OwnLabel

MAX_CHANGED = 40  # files of one draft; a form has 64 fields
MAX_DRAFT_BYTES = 512 << 10
MAX_FORM_BYTES = 4 * MAX_DRAFT_BYTES  # a form writes most signs of a rule in three octets
MAX_SHOWN = 200  # changes; the others are counted
ELSEWHERE = "in a terminal: `gateway policy diff FOLDER`, then `gateway policy activate --folder FOLDER`"
FILE, GONE = "file:", "gone:"  # fields of the form: a text that was changed, a file that is left out


@dataclass(frozen=True, slots=True)
class _Table:
    """What lies on the table: the files in force, the draft, and which file is open. `text`: of that file."""

    before: Files
    draft: Draft
    editing: str
    on: str = ""

    @property
    def text(self) -> str:
        """The text of the file that is open."""
        return self.draft.changes.get(self.editing, self.before.get(self.editing, "")) or ""

    @property
    def files(self) -> list[tuple[str, str]]:
        """Every file that can be opened, with what is done to it."""
        paths = sorted({*self.before, *self.draft.changes, self.editing})
        return [(path, self._mark(path)) for path in paths if not path.endswith(f"/{SHEET}")]

    def _mark(self, path: str) -> str:
        if path not in self.draft.changes:
            return ""
        if self.draft.changes[path] is None:
            return "left out"
        return "changed" if path in self.before else "new"

    @property
    def fields(self) -> list[tuple[str, str]]:
        """The whole draft as fields of a form."""
        return [
            (f"{GONE}{path}", "1") if text is None else (f"{FILE}{path}", text)
            for path, text in self.draft.changes.items()
        ]


# Editing and rehearsing


def begin(desk: Desk, visit: Visit) -> Answer:
    """The files in force, one of them open."""
    before, _ = files_in_force(desk.node)
    wanted = visit.query.get("file", "")
    return _page(_Table(before, Draft({}), wanted if wanted in before else _first(before)))


def rehearse(desk: Desk, visit: Visit) -> Answer:
    """The draft of the form: another file of it is opened, or all of it is rehearsed."""
    table = _read(desk, visit)
    deed = visit.form.get("deed", "rehearse")
    if deed == "open":
        return _page(_opened(table, visit))
    if deed in ("back", "leave"):
        rest = {path: text for path, text in table.draft.changes.items() if path != table.editing}
        gone: dict[str, str | None] = {table.editing: None} if deed == "leave" and table.editing in table.before else {}
        left = (
            table.editing if deed == "back" and table.editing in table.before else _first(table.before, table.editing)
        )
        return _page(_Table(table.before, Draft({**rest, **gone}), left, table.on))
    return _rehearsed(desk, table)


def unpack(desk: Desk, visit: Visit) -> Answer:
    """A draft that came as a ZIP archive is rehearsed."""
    before, _ = files_in_force(desk.node)
    table = _Table(before, Draft({}), _first(before))
    try:
        if not visit.body:
            raise MalformedError("there is no file", remedy="choose the archive of a policy folder")
        draft = Draft.of(before, read_archive(visit.body, desk.node.settings.jurisdiction))
        _check_size(draft)
    except MalformedError as error:
        return _page(table, problem=error)
    changed = [path for path, text in draft.changes.items() if text is not None]
    return _rehearsed(desk, _Table(before, draft, changed[0] if changed else table.editing))


def propose(desk: Desk, visit: Visit) -> Answer:
    """What was rehearsed is put before the administrators."""
    table = _read(desk, visit)
    try:
        files = table.draft.files(desk.node, table.before)
        act = propose_files(desk.node, files, folder=visit.filled("folder"), on=_day(desk, table.on))
        identifier = desk.approvals.propose(*act, by=visit.session.person)
    except GatewayError as error:
        return _page(table, problem=error)
    return Redirect(f"/approvals/{identifier}", "proposed")


def proposed(desk: Desk, visit: Visit) -> Answer:
    """What a policy that waits for signatures would do, in full, for whoever is asked to sign it."""
    proposal = desk.approvals.get(visit.path["id"])
    if proposal.id != visit.path["id"] or proposal.act != "policy_activate" or "folder" not in proposal.arguments:
        raise missing()
    if proposal.state != OPEN:
        return Redirect(f"/approvals/{proposal.id}")
    with desk.node.store.reading() as tx:
        files = policytexts.find(tx, str(proposal.arguments["folder"]))
    day = str(proposal.arguments.get("on", ""))
    found = rehearse_files(desk.node, files, on=max(date.fromisoformat(day), desk.node.today) if day else None)
    return Page("policy_proposal.html", {"proposal": proposal, "day": day, "found": found, **_shown(found)})


def cancel(desk: Desk, visit: Visit) -> Answer:
    """Taking back the policy that waits for its day is put before the administrators."""
    identifier = desk.approvals.propose(*cancel_policy(desk.node), by=visit.session.person)
    return Redirect(f"/approvals/{identifier}", "proposed")


# The form


def _read(desk: Desk, visit: Visit) -> _Table:
    """The draft that a form carries."""
    before, _ = files_in_force(desk.node)
    changes: dict[str, str | None] = {}
    for name, value in visit.form.items():
        if name.startswith(FILE):
            changes[name.removeprefix(FILE)] = _lines(value)
        elif name.startswith(GONE):
            changes[name.removeprefix(GONE)] = None
    editing = visit.form.get("editing", "")
    if editing and "text" in visit.form:
        changes[editing] = _lines(visit.form["text"])
    # A browser writes line ends in its own way: a file that differs in these alone was not changed.
    real = {
        path: text
        for path, text in sorted(changes.items())
        if (None if text is None else text) != (_lines(before[path]) if path in before else None)
    }
    draft = Draft(real)
    _check_size(draft)
    return _Table(before, draft, editing or _first(before), visit.form.get("on", "").strip())


def _check_size(draft: Draft) -> None:
    if len(draft.changes) > MAX_CHANGED or sum(len((text or "").encode()) for text in draft.changes.values()) > (
        MAX_DRAFT_BYTES
    ):
        raise TooLargeError("this draft changes more than one page carries", remedy=ELSEWHERE)


def _opened(table: _Table, visit: Visit) -> _Table:
    path = visit.form.get("new", "").strip() or visit.form.get("open", "")
    changes = dict(table.draft.changes)
    if changes.get(path, "") is None:
        del changes[path]  # it was left out, and is wanted again
    return _Table(table.before, Draft(changes), path or table.editing, table.on)


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _first(files: Files, other_than: str = "") -> str:
    """The file to begin with: an agreement, where there is one."""
    rules = [path for path in files if path.endswith(".cedar") and path != other_than]
    return next((path for path in rules if "/agreement-" in path), rules[0])


def _day(desk: Desk, text: str) -> date | None:
    """The day on which it is to begin; None for at once."""
    if not text:
        return None
    try:
        day = date.fromisoformat(text)
    except ValueError as error:
        raise MalformedError("the day is not written as YYYY-MM-DD") from error
    require(day > desk.node.today, "the day is not one to come")
    return day


# What it would do


def _rehearsed(desk: Desk, table: _Table) -> Answer:
    try:
        files = table.draft.files(desk.node, table.before)
        return _page(table, rehearse_files(desk.node, files, on=_day(desk, table.on)))
    except MalformedError as error:
        return _page(table, problem=error)


def _page(table: _Table, found: Rehearsed | None = None, problem: GatewayError | None = None) -> Page:
    """The page; whatever is wrong stands on it, beside the draft, so that nobody loses what they wrote."""
    values = {"table": table, "found": found, "problem": problem, **_shown(found)}
    return Page("policy_rehearse.html", values, status=200 if problem is None else 400)


def _shown(found: Rehearsed | None) -> dict[str, object]:
    """The lines of what starts and stops, and their numbers."""
    moved = found.moved.changes if found and found.moved else ()
    return {
        "moved": [_moved(one) for one in moved[:MAX_SHOWN]],
        "more": max(0, len(moved) - MAX_SHOWN),
        "partners": len({one.change.partner for one in moved}),
        "starting": sum(_starts(one) for one in moved),
        "stopping": sum(_stops(one) for one in moved),
    }


def _starts(one: Counted) -> bool:
    return one.change.taken if isinstance(one.change, IntakeChange) else bool(one.change.started)


def _stops(one: Counted) -> bool:
    return not one.change.taken if isinstance(one.change, IntakeChange) else bool(one.change.stopped)


def _moved(one: Counted) -> dict[str, object]:
    """A line of the table: who, which entries, what comes and goes, by which rules."""
    change = one.change
    line: dict[str, object] = {
        "partner": change.partner.agency,
        "set": change.held.set_name,
        "label": f"{change.number}: {OwnLabel(change.number, change.held).words}",
        "entries": one.entries,
        "rules": tuple(", ".join(rules) or "no rule" for rules in change.rules),
    }
    if isinstance(change, IntakeChange):
        told = ["we take its entries"]
        return {**line, "starts": told if change.taken else [], "stops": [] if change.taken else told, "duties": None}
    counted = {group: f"{group.replace('_', ' ')} ({count:,})" for group, count in one.groups.items()}
    return {
        **line,
        "starts": [counted[group] for group in sorted(change.started)],
        "stops": [counted[group] for group in sorted(change.stopped)],
        "duties": _duties(change),
    }


def _duties(change: ShareChange) -> tuple[str, str] | None:
    before, after = (", ".join(map(duty_words, duties)) or "none" for duties in change.duties)
    return (before, after) if before != after else None


ROUTES: tuple[Route, ...] = (
    get("/policy/rehearse", begin, ADMINISTRATORS),
    post("/policy/rehearse", rehearse, ADMINISTRATORS, upload=MAX_FORM_BYTES),
    post("/policy/archive", unpack, ADMINISTRATORS, upload=MAX_ARCHIVE_BYTES + (64 << 10)),
    post("/policy/propose", propose, ADMINISTRATORS, guarded=True, upload=MAX_FORM_BYTES),
    get("/policy/proposal/{id}", proposed, READERS_OF_THE_LOG),
    post("/policy/cancel", cancel, ADMINISTRATORS, guarded=True),
)
