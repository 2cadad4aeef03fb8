"""Cases: brought in from the local case system, completed by people, looked at, closed."""

from __future__ import annotations

from datetime import date
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from gateway.adapters.cases import CASE_READERS, SNIFF_BYTES, CaseOptions, read_cases, sniff_cases
from gateway.caserecord import CaseRecord, Contact
from gateway.cases import CaseState, Statements, Taken
from gateway.cli import caseforms
from gateway.cli.caseview import case_lines, case_value, row_value
from gateway.cli.shell import Shell, amount, bold, command, plain, when
from gateway.errors import ConfigError, MalformedError, TooLargeError
from gateway.exchange import Exchange
from gateway.model import AdapterReport, HandlingCode, Purpose
from gateway.store.tables import CaseRow

case_app = typer.Typer(
    add_completion=False, help="Cases: who is looked for, where, and who works on it.", no_args_is_help=True
)
COMMANDS = {"case": case_app}
MAX_FILE_CASES = 20_000  # taken together: many times what one agency works on
CASE_COLUMNS = {
    "case": "case",
    "state": "state",
    "urgency": "urgency",
    "version": "version",
    "from": "from",
    "missing": "missing",
    "review_on": "review on",
    "arrived": "arrived",
}
TAKEN_COLUMNS = {"case": "case", "outcome": "outcome", "missing": "missing"}
Case = Annotated[str, typer.Argument(metavar="CASE", help="The case, or the beginning of its id.")]
File = Annotated[Path, typer.Argument(metavar="FILE", help="The file that the case system wrote.")]
Format = Annotated[str, typer.Option("--format", help=f"One of {', '.join(CASE_READERS)}; else it is recognised.")]
Scheme = Annotated[str, typer.Option(help="The scheme of bare category numbers.")]


@command(case_app, "import")
def case_import(shell: Shell, *, file: File, form: Format = "", category_scheme: Scheme = "") -> None:
    """Take cases out of a file of our own case system. One that lacks a field that law needs waits in the inbox."""
    _take_in(shell, file, form, category_scheme, update=False)


@command(case_app, "update")
def case_update(shell: Shell, *, file: File, form: Format = "", category_scheme: Scheme = "") -> None:
    """Take newer versions of known cases out of a file. An older version is refused."""
    _take_in(shell, file, form, category_scheme, update=True)


@command(case_app, "inbox")
def case_inbox(shell: Shell) -> None:
    """List what waits for a person, urgent first: cases that lack something, and those that partners referred."""
    with shell.node() as node:
        rows = [_line(shell, row) for row in Exchange(node).cases.inbox()]
    shell.table(rows, CASE_COLUMNS, "Nothing waits in the inbox.")


@command(case_app, "list")
def case_list(
    shell: Shell,
    state: Annotated[CaseState | None, typer.Option(help="Only cases in this state.")] = None,
) -> None:
    """List the cases, those in which a child is at risk first. Nothing of their content is shown."""
    with shell.node() as node:
        rows = [_line(shell, row) for row in Exchange(node).cases.all([state] if state else [])]
    shell.table(rows, CASE_COLUMNS, "There are no cases.")


@command(case_app, "show")
def case_show(
    shell: Shell,
    *,
    case: Case,
    clues: Annotated[
        bool, typer.Option("--clues", help="Also show the text of clues, places and time frames.")
    ] = False,
    descriptions: Annotated[
        bool, typer.Option("--descriptions", help="Also show the summary, and how persons are described.")
    ] = False,
) -> None:
    """Show a case. Its texts stay folded until they are asked for: reading them all day harms people."""
    with shell.node() as node:
        exchange = Exchange(node)
        held = exchange.cases.get(case)
        exchange.talk.read(held.row.id)  # who referred it is told that somebody has read it
    value = case_value(held, clues=clues, descriptions=descriptions)
    shell.show(value, *case_lines(held, clues=clues, descriptions=descriptions))


@command(case_app, "complete")
def case_complete(
    shell: Shell,
    *,
    case: Case,
    handling: Annotated[HandlingCode | None, typer.Option(help="The handling code.")] = None,
    category: Annotated[str, typer.Option(help="The category, as SCHEME:CODE.")] = "",
    evaluation: Annotated[str, typer.Option(help="How source and information are judged: A1 to F6.")] = "",
    legal_basis: Annotated[str, typer.Option(help="The law under which it may be used, in one line.")] = "",
    purpose: Annotated[Purpose | None, typer.Option(help="What it is for.")] = None,
    review_on: Annotated[
        str, typer.Option(metavar="DATE", help="By when a person looks at it again: YYYY-MM-DD.")
    ] = "",
    contact: Annotated[str, typer.Option(metavar="UNIT", help="Whom to call: the unit, never a person.")] = "",
    telephone: Annotated[str, typer.Option(help="The unit's telephone number.")] = "",
    email: Annotated[str, typer.Option(help="The unit's e-mail address.")] = "",
    duty_telephone: Annotated[str, typer.Option(help="The number that is answered at any hour.")] = "",
) -> None:
    """State what law and policy need and the case system did not say. Nothing is filled in by itself."""
    if not contact and (telephone or email or duty_telephone):
        raise MalformedError("a number or an address without its unit", remedy="name the unit with --contact")
    stated = Statements(
        handling=handling,
        category=category or None,
        evaluation=evaluation or None,
        legal_basis=legal_basis or None,
        purpose=purpose,
        review_on=_day(review_on) if review_on else None,
        contact=Contact(contact, telephone, email, duty_telephone) if contact else None,
    )
    with shell.node() as node:
        held = Exchange(node).cases.complete(case, stated)
    missing = held.row.missing.split()
    still = f"still missing: {', '.join(missing)}" if missing else "nothing is missing, and it may be referred"
    shell.show(
        {"case": held.row.id, "state": held.row.state, "missing": missing},
        f"Case {bold(held.row.id)}: {still}.",
    )


@command(case_app, "close")
def case_close(shell: Shell, *, case: Case) -> None:
    """Close a case: the work on it is over, and it goes nowhere any more. It is kept until its time is over."""
    with shell.node() as node:
        row = Exchange(node).cases.close(case)
    shell.show({"case": row.id, "state": row.state}, f"Case {bold(row.id)} is closed.")


@command(case_app, "reopen")
def case_reopen(shell: Shell, *, case: Case) -> None:
    """Open a closed case again."""
    with shell.node() as node:
        row = Exchange(node).cases.reopen(case)
    shell.show({"case": row.id, "state": row.state}, f"Case {bold(row.id)} is {row.state} again.")


caseforms.register(case_app)


def _line(shell: Shell, row: CaseRow) -> dict[str, object]:
    value = row_value(row)
    return value if shell.as_json else {**value, "arrived": when(row.arrived)}


def _take_in(shell: Shell, file: Path, form: str, category_scheme: str, *, update: bool) -> None:
    with shell.node() as node:
        options = CaseOptions(node.agency, category_scheme, node.clock())
        records, report = _read(file, form, options)
        taken: list[Taken] = Exchange(node).cases.take_in(records, form=report.format, update=update)
    rows: list[dict[str, object]] = [
        {"case": one.case, "outcome": one.outcome, "missing": list(one.missing)} for one in taken
    ]
    told = {
        "format": report.format,
        "read": report.read,
        "refused": [{"line": one.line, "field": one.field, "reason": one.reason} for one in report.refused_rows],
        "dropped": dict(sorted(report.dropped_fields.items())),
        "cases": rows,
    }
    if shell.as_json:
        shell.show(told)
        return
    shell.table(rows, TAKEN_COLUMNS, "The file holds no case that could be taken.")
    for one in report.refused_rows:
        shell.note(f"Left out: record {one.line}, {one.field}: {one.reason}.")
    for name, count in sorted(report.dropped_fields.items()):
        shell.note(f"Not carried: {plain(name)}, {amount(count, 'value')}.")
    if any(one.missing for one in taken):
        shell.note("What is missing a person states: gateway case complete CASE …")


def _read(file: Path, form: str, options: CaseOptions) -> tuple[list[CaseRecord], AdapterReport]:
    """The records of a file, and what became of the rest of it. The file is read once, forwards: it may be long."""
    try:
        with file.open("rb") as source:
            report = AdapterReport(form or sniff_cases(source.peek(SNIFF_BYTES)[:SNIFF_BYTES]) or "")
            records = list(islice(read_cases(source, report.format, report, options=options), MAX_FILE_CASES + 1))
    except OSError as error:
        raise ConfigError(f"the file cannot be read: {error.strerror}", place="FILE") from error
    if len(records) > MAX_FILE_CASES:
        raise TooLargeError(f"a file has at most {MAX_FILE_CASES} cases", remedy="bring them in by several files")
    return records, report


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise MalformedError("the review date is no day of the calendar", remedy="write it as 2027-01-31") from error
