"""Referring cases to partners, and what is said about them."""

from __future__ import annotations

from typing import Annotated

import typer

from gateway.cases.deciding import Preview
from gateway.cases.referring import Referred
from gateway.cases.talking import Line
from gateway.cases.threads import Saying
from gateway.cli.cases import Case, case_app
from gateway.cli.people import AdminPassphrase, KeyFile, guarded
from gateway.cli.shell import Shell, bold, command, plain, when
from gateway.errors import MalformedError
from gateway.exchange import Exchange
from gateway.model import Purpose
from gateway.store.tables import CaseThread

POINTER_COLUMNS = {"case": "case", "partner": "unit", "confidence": "confidence", "why": "why"}
THREAD_COLUMNS = {
    "partner": "partner",
    "began": "referred by",
    "state": "state",
    "version": "version",
    "groups": "groups",
    "due": "to be read by",
    "read": "read",
    "answered": "answered",
}
LINE_COLUMNS = {"at": "at", "partner": "partner", "way": "way", "word": "word", "contact": "on duty", "text": "text"}
To = Annotated[list[str], typer.Option("--to", metavar="COUNTRY|AGENCY", help="The unit, or its country. Repeatable.")]
PurposeOption = Annotated[Purpose | None, typer.Option(help="What it is for; else the purpose of the case.")]
Text = Annotated[str, typer.Option(help="The words. They are sealed for the partner.")]
Partner = Annotated[str, typer.Option("--to", metavar="AGENCY", help="The partner, where several have the case.")]


@command(case_app, "proposals")
def case_proposals(shell: Shell) -> None:
    """List the units that the places of open cases point to and that do not have them. Nothing is sent."""
    with shell.node() as node:
        found = Exchange(node).referrals.proposals()
    rows: list[dict[str, object]] = [
        {
            "case": one.case,
            "partner": one.partner,
            "country": one.country,
            "confidence": one.confidence,
            "why": one.why,
        }
        for one in found
    ]
    shell.table(rows, POINTER_COLUMNS, "No open case points to a unit that does not have it.")


@command(case_app, "refer")
def case_refer(
    shell: Shell,
    *,
    case: Case,
    to: To,
    purpose: PurposeOption = None,
    urgent: Annotated[bool, typer.Option("--urgent", help="A child is at risk now.")] = False,
    note: Annotated[str, typer.Option(help="Words to the partner, beside the report.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would go, what stays, and why.")] = False,
    admin: Annotated[str, typer.Option("--admin", help="The administrator who proposes it, where two must sign.")] = "",
    key_file: KeyFile = None,
    admin_passphrase_file: AdminPassphrase = None,
) -> None:
    """Refer a case, as far as policy lets it go; --dry-run shows what would.

    Where policy asks for four eyes, --admin proposes it, and another administrator signs.
    """
    with shell.node() as node:
        desk = Exchange(node).referrals
        partners = sorted({partner for one in to for partner in desk.partners_of(one)})
        if dry_run:
            shown = [desk.preview(case, one, purpose, urgent=urgent) for one in partners]
            lines = [line for one in shown for line in preview_lines(one)]
            shell.show([preview_value(one) for one in shown], *lines)
            return
        if len(partners) > len(to):
            raise MalformedError(
                "several units of this country are partners", remedy=f"name one: --to {' or --to '.join(partners)}"
            )
        if admin:
            for one in partners:
                act = desk.propose(case, one, purpose, urgent=urgent, note=note)
                guarded(shell, node, act, admin=admin, key_file=key_file, passphrase_file=admin_passphrase_file)
            return
        done = [desk.refer(case, one, purpose, urgent=urgent, note=note) for one in partners]
    shell.show([_referred_value(one) for one in done], *(_referred_line(one) for one in done))


@command(case_app, "recall")
def case_recall(
    shell: Shell,
    *,
    case: Case,
    partner: Annotated[str, typer.Option("--from", metavar="AGENCY", help="The partner that has it.")],
    reason: Annotated[str, typer.Option(help="Why; the partner reads it.")],
) -> None:
    """Tell a partner to delete a case that we referred. It answers when it has."""
    with shell.node() as node:
        thread = Exchange(node).referrals.recall(case, partner, reason)
    shell.show(thread_value(thread), f"{bold(partner)} is told to delete case {thread.case_id} at the next sync.")


@command(case_app, "accept")
def case_accept(shell: Shell, *, case: Case) -> None:
    """Take a case that a partner referred; it is told, with our duty contact."""
    with shell.node() as node:
        row = Exchange(node).talk.accept(case)
    shell.show({"case": row.id, "state": row.state}, f"Case {bold(row.id)} is ours to work on; {row.source} is told.")


@command(case_app, "decline")
def case_decline(
    shell: Shell, *, case: Case, reason: Annotated[str, typer.Option(help="Why; who referred it reads it.")]
) -> None:
    """Do not take a case that a partner referred, or not any longer. Its content is deleted here."""
    with shell.node() as node:
        row = Exchange(node).talk.decline(case, reason)
    shell.show({"case": row.id, "state": row.state}, f"Case {bold(row.id)} is gone from here; {row.source} is told.")


@command(case_app, "ask")
def case_ask(shell: Shell, *, case: Case, text: Text, partner: Partner = "") -> None:
    """Ask the partner with whom we have a case something about it."""
    _say(shell, case, text, partner, Saying.ASK)


@command(case_app, "say")
def case_say(shell: Shell, *, case: Case, text: Text, partner: Partner = "") -> None:
    """Say something about a case to the partner with whom we have it."""
    _say(shell, case, text, partner, Saying.SAY)


@command(case_app, "thread")
def case_thread(shell: Shell, *, case: Case) -> None:
    """Show who has a case, from whom, and what was said about it, with whom to call."""
    with shell.node() as node:
        talk = Exchange(node).talk
        threads, lines = talk.threads(case), talk.lines(case)
    told = {"threads": [thread_value(one) for one in threads], "messages": [_line_value(one) for one in lines]}
    if shell.as_json:
        shell.show(told)
        return
    shell.table([_thread_row(one) for one in threads], THREAD_COLUMNS, "This case went to nobody and came from nobody.")
    if lines:
        shell.table([{**_line_value(one), "way": _way(one)} for one in lines], LINE_COLUMNS, "")


def _say(shell: Shell, case: str, text: str, partner: str, saying: Saying) -> None:
    with shell.node() as node:
        [thread] = Exchange(node).talk.say(case, text, saying, partner=partner)
    shell.show(thread_value(thread), f"{bold(thread.partner)} reads it after the next sync.")


def explain_case(shell: Shell, case: str, partner: str, purpose: Purpose) -> None:
    """What policy says of a case for a partner, in words and with its rules."""
    with shell.node() as node:
        shown = Exchange(node).referrals.preview(case, partner, purpose)
    shell.show(preview_value(shown), *preview_lines(shown))


def preview_value(shown: Preview) -> dict[str, object]:
    """What would go, as JSON has it."""
    return {
        "case": shown.case,
        "partner": shown.partner,
        "allowed": shown.allowed,
        "sentence": shown.sentence,
        "rules": list(shown.rules),
        "laws": list(shown.laws),
        "needs_approval": shown.needs_approval,
        "purpose": shown.purpose,
        "urgency": shown.urgency,
        "obligations": list(shown.obligations),
        "bytes": len(shown.report),
        "digest": shown.digest if shown.allowed else "",
        "groups": [
            {
                "group": one.group,
                "goes": one.goes,
                "filled": one.filled,
                "sentence": one.sentence,
                "rules": list(one.rules),
                "laws": list(one.laws),
            }
            for one in shown.groups
        ],
    }


def preview_lines(shown: Preview) -> list[str]:
    """What would go, in words."""
    lines = [f"To {bold(shown.partner)}: {plain(shown.sentence)}"]
    for one in shown.groups:
        word = "goes" if one.goes else "stays"
        nothing = "" if one.filled else " (this case holds nothing of it)"
        lines.append(f"  {word:<5}  {one.group.replace('_', ' ')}{nothing}: {plain(one.sentence)}")
    lines.append(f"  duties {', '.join(shown.obligations) or 'none'}")
    if shown.needs_approval:
        lines.append("  Two administrators have to approve it: add --admin NAME to propose it.")
    return lines


def thread_value(one: CaseThread) -> dict[str, object]:
    """A thread as JSON has it."""
    return {
        "case": one.case_id,
        "thread": one.id,
        "partner": one.partner,
        "side": one.side,
        "state": one.state,
        "purpose": one.purpose,
        "version": one.version,
        "groups": one.groups.split(),
        "obligations": one.obligations.split(),
        "due": one.due,
        "read": one.read,
        "answered": one.answered,
    }


def _thread_row(one: CaseThread) -> dict[str, object]:
    times = {"due": when(one.due), "read": when(one.read), "answered": when(one.answered)}
    return {**thread_value(one), "began": "us" if one.side == "ours" else one.partner, **times}


def _line_value(one: Line) -> dict[str, object]:
    return {
        "partner": one.partner,
        "thread": one.thread,
        "way": one.way,
        "number": one.number,
        "at": one.at,
        "kind": one.kind,
        "word": one.word,
        "text": one.text,
        "contact": one.contact,
        "delivered": one.delivered,
    }


def _way(one: Line) -> str:
    return "from" if one.way == "in" else "to" if one.delivered else "to, on its way"


def _referred_value(one: Referred) -> dict[str, object]:
    return {"case": one.case, "partner": one.partner, "thread": one.thread, "number": one.number, "due": one.due}


def _referred_line(one: Referred) -> str:
    return f"Case {bold(one.case)} goes to {bold(one.partner)}, to be read by {when(one.due)}."
