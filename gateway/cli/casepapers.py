"""Papers about a case: the chain of custody, and what the public is shown of a person of interest."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gateway.cases.alerts import AlertForm, Alerts
from gateway.cases.custody import Custody, Step, Verdict, chain
from gateway.cases.custodypage import page
from gateway.cli.cases import Case, case_app
from gateway.cli.founding import write_file
from gateway.cli.people import AdminPassphrase, KeyFile, guarded
from gateway.cli.shell import Shell, bold, command, plain, when
from gateway.errors import AuditBrokenError
from gateway.exchange import Exchange

STEP_COLUMNS = {
    "at": "at",
    "deed": "what",
    "who": "by",
    "partner": "partner",
    "verdict": "verdict",
    "checks": "because",
}


@command(case_app, "custody")
def case_custody(
    shell: Shell,
    *,
    case: Case,
    html: Annotated[Path | None, typer.Option("--html", help="Also write it as one page to print.")] = None,
) -> None:
    """Show each arrival and leaving of a case, and what proves it; everything is verified anew."""
    with shell.node() as node:
        custody = chain(node, case)
    if html is not None:
        write_file(html, page(custody))
    if shell.as_json:
        shell.show(custody_value(custody))
    else:
        shell.table([_row(one) for one in custody.steps], STEP_COLUMNS, "Nothing is on record.")
        where = f" The page is in {plain(str(html))}." if html is not None else ""
        shell.show(None, f"The whole chain: {bold(custody.verdict)}.{where}")
    if custody.verdict is Verdict.BROKEN:
        raise AuditBrokenError("a step of the chain does not hold")


@command(case_app, "alert")
def case_alert(
    shell: Shell,
    *,
    case: Case,
    person: Annotated[str, typer.Argument(metavar="PERSON", help="The person's reference in the case.")],
    form: Annotated[AlertForm, typer.Option("--format", help="How it is written.")] = AlertForm.JSON,
    out: Annotated[Path | None, typer.Option("--out", help="The file to write; else it is printed.")] = None,
    admin: Annotated[str, typer.Option("--admin", help="The administrator who proposes it; two must sign.")] = "",
    key_file: KeyFile = None,
    admin_passphrase_file: AdminPassphrase = None,
) -> None:
    """Show the public a releasable person: marks, description, apparent age and sex, whom to call, and nothing else.

    With --admin it is proposed; when two have signed exactly these bytes, the same command without it hands them out.
    """
    with shell.node() as node:
        desk = Alerts(node, Exchange(node).cases)
        if admin:
            act = desk.propose(case, person, form)
            guarded(shell, node, act, admin=admin, key_file=key_file, passphrase_file=admin_passphrase_file)
            return
        raw = desk.release(case, person, form)
    if out is not None:
        write_file(out, raw)
        shell.show({"file": str(out), "format": str(form)}, f"The alert is in {plain(str(out))}.")
    elif shell.as_json:
        shell.show({"format": str(form), "content": raw.decode()})
    else:
        print(raw.decode(), end="")


def custody_value(custody: Custody) -> dict[str, object]:
    """A chain of custody as JSON has it."""
    return {
        "case": custody.case,
        "originator": custody.originator,
        "reference": custody.reference,
        "state": custody.state,
        "at": custody.at,
        "origin": custody.origin,
        "tree_size": custody.head.size,
        "root": custody.head.root.hex(),
        "verdict": custody.verdict,
        "steps": [
            {
                "leaf": one.leaf,
                "at": one.at,
                "deed": one.deed,
                "who": one.who,
                "partner": one.partner,
                "thread": one.thread,
                "version": one.version,
                "digest": one.digest,
                "verdict": one.verdict,
                "checks": [{"what": each.what, "verdict": each.verdict, "why": each.why} for each in one.checks],
            }
            for one in custody.steps
        ],
    }


def _row(one: Step) -> dict[str, object]:
    because = "; ".join(f"{each.what}: {each.verdict}" for each in one.checks)
    return {
        "at": when(one.at),
        "deed": one.deed,
        "who": one.who,
        "partner": one.partner,
        "verdict": str(one.verdict),
        "checks": because,
    }
