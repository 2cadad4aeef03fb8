"""What was taken back, by us or by partners: who holds it, who has answered, who is late."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from gateway.cli.shell import Shell, bold, command, plain, when
from gateway.exchange import Exchange

withdrawal_app = typer.Typer(
    add_completion=False, help="Entries that were taken back, and who has answered.", no_args_is_help=True
)
COMMANDS = {"withdrawal": withdrawal_app}
LIST_COLUMNS = {
    "id": "withdrawal",
    "kind": "kind",
    "set": "set",
    "origin": "taken back by",
    "entries": "entries",
    "outstanding": "outstanding",
    "due": "answers due",
}
STATUS_COLUMNS = {
    "withdrawal": "withdrawal",
    "set": "set",
    "holder": "holder",
    "through": "through",
    "state": "state",
    "due": "answer due",
    "because": "because",
}
Withdrawal = Annotated[str, typer.Argument(metavar="ID", help="The withdrawal, or the beginning of its id.")]


@command(withdrawal_app, "list")
def withdrawal_list(shell: Shell) -> None:
    """List withdrawals and recalls, ours and those that partners told us of, newest first."""
    with shell.node() as node, node.store.reading() as tx:
        rows: list[dict[str, object]] = []
        for row in tx.withdrawals.all():
            holders = tx.withdrawals.holders(row.id)
            rows.append(
                {
                    "id": row.id,
                    "kind": row.kind,
                    "set": row.set_name,
                    "origin": row.origin,
                    "told_by": row.hub,
                    "entries": row.entries,
                    "reason": row.reason,
                    "reference": row.reference,
                    "created": row.created,
                    "due": when(row.due) if not shell.as_json else row.due,
                    "answered": row.answered,
                    "holders": len(holders),
                    "outstanding": sum(one.state == "outstanding" for one in holders),
                }
            )
    shell.table(rows, LIST_COLUMNS, "Nothing was taken back yet.")


@command(withdrawal_app, "status")
def withdrawal_status(
    shell: Shell,
    *,
    identifier: Annotated[str, typer.Argument(metavar="[ID]", help="Only this one, or the beginning of its id.")] = "",
    outstanding: Annotated[bool, typer.Option(help="Only holders that have not answered.")] = False,
) -> None:
    """Who holds what was taken back, directly or through others, and what they have answered."""
    with shell.node() as node:
        found = Exchange(node).withdrawals.status(identifier)
    rows: list[dict[str, object]] = []
    for one in found:
        if outstanding and one.state != "outstanding":
            continue
        value = {**asdict(one), "set": one.set_name, "via": list(one.via)}
        del value["set_name"]
        if not shell.as_json:
            state = "overdue" if one.overdue else one.state
            value |= {"through": " > ".join(one.via) or "-", "state": state, "due": when(one.due)}
        rows.append(value)
    nothing = "No partner held any of it." if identifier else "Nothing that a partner held was taken back."
    shell.table(rows, STATUS_COLUMNS, "Nobody's answer is outstanding." if outstanding else nothing)


@command(withdrawal_app, "refuse")
def withdrawal_refuse(
    shell: Shell,
    *,
    identifier: Withdrawal,
    because: Annotated[str, typer.Option(help="What we keep and why, in one line; whoever took it back reads it.")],
) -> None:
    """Say that we keep something outside this gateway of what a partner took back. The gateway has deleted it."""
    with shell.node() as node:
        row = Exchange(node).withdrawals.refuse(identifier, because)
    shell.show(
        {"withdrawal": row.id, "set": row.set_name, "told": row.hub, "because": because},
        f"{bold(row.hub)} is told at the next sync that we keep something of {plain(row.set_name)}.",
    )
