"""Alarms: what an administrator must know, and whether the program that tells them works."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from gateway.alarms import NEXT, AlarmKind, close_by_hand, sweep
from gateway.cli.shell import Shell, bold, command, plain, when
from gateway.store.tables import AlarmRow
from gateway.watch import Watch

alarm_app = typer.Typer(
    add_completion=False, help="Alarms: what an administrator must know, and what to do next.", no_args_is_help=True
)
COMMANDS = {"alarm": alarm_app}

Number = Annotated[int, typer.Argument(metavar="ID", help="The alarm's number.", min=1)]
ALARM_COLUMNS = {
    "id": "id",
    "raised_at": "raised",
    "kind": "kind",
    "subject": "about",
    "detail": "what",
    "told_at": "told",
    "closed_at": "closed",
}


@command(alarm_app, "list")
def alarm_list(
    shell: Shell, everything: Annotated[bool, typer.Option("--all", help="Also the closed ones.")] = False
) -> None:
    """List the alarms that are open, newest first, after a look at how things stand."""
    with shell.node() as node:
        sweep(node)
        with node.store.reading() as tx:
            rows = tx.alarms.all(closed=everything)
    if shell.as_json:
        shell.show([_value(row) for row in rows])
        return
    shell.table([_line(row) for row in rows], ALARM_COLUMNS, "No alarm is open.")


@command(alarm_app, "show")
def alarm_show(shell: Shell, number: Number) -> None:
    """Show an alarm with what to do next, and the evidence where there is any: keep that outside this machine."""
    with shell.node() as node, node.store.reading() as tx:
        row = tx.alarms.find(number)
    value = {**_value(row), "evidence": row.evidence}
    shell.show(
        value,
        f"Alarm {number}: {bold(row.kind)}  {plain(row.subject)}",
        f"  what       {plain(row.detail)}",
        f"  raised     {when(row.raised)}",
        f"  told       {when(row.told)}",
        f"  closed     {when(row.closed)}{f' by {plain(row.closed_by)}' if row.closed else ''}",
        f"  to do      {plain(str(value['next']))}",
        *(["  evidence:", plain(row.evidence)] if row.evidence else []),
    )


@command(alarm_app, "close")
def alarm_close(
    shell: Shell,
    *,
    number: Number,
    admin: Annotated[str, typer.Option("--admin", help="The administrator who closes it.")],
) -> None:
    """Close an alarm, on record. One whose cause is still there is raised again; a forked log is closed by `resume`."""
    with shell.node() as node:
        row = close_by_hand(node, number, admin)
    shell.show({"id": number, "kind": row.kind, "closed_by": admin}, f"Alarm {number} ({row.kind}) is closed.")


@command(alarm_app, "test")
def alarm_test(shell: Shell) -> None:
    """Hand a test alarm to the alarm command of the settings, and say whether it took it."""
    with shell.node() as node:
        asyncio.run(Watch(node).test())
        named = node.settings.alarm_command
    shell.show({"told": True}, f"{plain(named)} took the test alarm. Check that it arrived where it should.")


def _value(row: AlarmRow) -> dict[str, object]:
    return {
        "id": row.id,
        "kind": row.kind,
        "subject": row.subject,
        "level": row.level,
        "detail": row.detail,
        "next": NEXT[AlarmKind(row.kind)],
        "raised": row.raised,
        "told": row.told,
        "closed": row.closed,
        "closed_by": row.closed_by,
    }


def _line(row: AlarmRow) -> dict[str, object]:
    subject = f"{row.subject[:16]}…" if len(row.subject) >= 64 else row.subject  # a key id, a proposal
    times = {"raised_at": when(row.raised), "told_at": when(row.told), "closed_at": when(row.closed)}
    return {**_value(row), **times, "subject": subject}
