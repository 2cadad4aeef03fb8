"""Opinions: what partners think of entries in our own sets, as their stock clients said it."""

from __future__ import annotations

from typing import Annotated

import typer

from gateway.adapters.ncmec import REASONS
from gateway.cli.shell import Shell, command
from gateway.exchange.lookup import format_entry

opinion_app = typer.Typer(
    add_completion=False, help="What partners think of entries in our own sets.", no_args_is_help=True
)
COMMANDS = {"opinion": opinion_app}
COLUMNS = {
    "set": "set",
    "entry": "entry",
    "version": "version",
    "algorithm": "digest",
    "partner": "partner",
    "verdict": "opinion",
    "why": "why",
    "given_at": "given",
}


@opinion_app.callback()
def _opinions() -> None:
    """A group, also with one command in it: typer would make that one the group."""


@command(opinion_app, "list")
def opinion_list(
    shell: Shell, set_name: Annotated[str, typer.Option("--set", metavar="SET", help="Only those on this set.")] = ""
) -> None:
    """List each partner's latest word on each digest, the newest first."""
    with shell.node() as node, node.store.reading() as tx:
        names = {row.id: row.name for row in tx.sets.all()}
        rows = tx.opinions.all(tx.sets.get(set_name).id if set_name else None)
    told: list[dict[str, object]] = [
        {
            "set": names[row.set_id],
            "entry": format_entry(row.entry_id),
            "version": row.version,
            "algorithm": row.algorithm,
            "partner": row.partner,
            "verdict": row.verdict,
            "reasons": row.reasons.split(),
            "why": "; ".join(REASONS.get(guid, guid) for guid in row.reasons.split()),
            "given_at": row.at,
        }
        for row in rows
    ]
    shell.table(told, COLUMNS, "No partner has given an opinion.")
