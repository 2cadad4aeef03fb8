"""Duties that came with entries or went with them: what is outstanding, and what is overdue."""

from __future__ import annotations

from dataclasses import asdict

import typer

from gateway.cli.shell import Shell, command, when
from gateway.exchange import Exchange
from gateway.exchange.duties import HERE, OpenDuty

duties_app = typer.Typer(
    add_completion=False, help="Duties: what must be deleted or acknowledged, and by when.", no_args_is_help=True
)
COMMANDS = {"duties": duties_app}

DUTY_COLUMNS = {
    "whose": "whose",
    "set_name": "set",
    "partner": "partner",
    "duty": "duty",
    "about": "about",
    "due_at": "due",
    "state": "state",
}


@duties_app.callback()
def _room() -> None:
    """Without this, an application of one command would be that command."""


@command(duties_app, "list")
def duties_list(shell: Shell) -> None:
    """List the duties that are to be kept some day, ours and our partners', what is due first first."""
    with shell.node() as node:
        found = Exchange(node).duties.open()
    if shell.as_json:
        shell.show([_value(one) for one in found])
        return
    shell.table([_line(one) for one in found], DUTY_COLUMNS, "No duty is outstanding.")


def _value(one: OpenDuty) -> dict[str, object]:
    return {("set" if name == "set_name" else name): value for name, value in asdict(one).items()}


def _line(one: OpenDuty) -> dict[str, object]:
    about = f"{one.rows:,} rows" if one.rows else f"the page up to change {one.until_seq:,}"
    whose = "ours" if one.side == HERE else "the partner's"
    return {**asdict(one), "whose": whose, "about": about, "due_at": when(one.due)}
