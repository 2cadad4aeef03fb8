"""Legal holds: what must be kept for a court, whatever is taken back."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from gateway.cli.people import Admin, AdminPassphrase, KeyFile, Reason, guarded
from gateway.cli.sets import full_name
from gateway.cli.shell import Shell, command
from gateway.errors import ConfigError
from gateway.exchange.holding import lift_hold, set_hold

hold_app = typer.Typer(
    add_completion=False, help="Legal holds: what is kept for a court, whatever is taken back.", no_args_is_help=True
)
COMMANDS = {"hold": hold_app}

HOLD_COLUMNS = {
    "hold": "hold",
    "set": "set",
    "entries": "entries",
    "gone": "kept by it alone",
    "until": "until",
    "reference": "for",
}


@command(hold_app, "set")
def hold_set(
    shell: Shell,
    *,
    entries: Annotated[
        list[str] | None, typer.Argument(metavar="[ENTRY]...", help="Entries, as `look-up` shows them.")
    ] = None,
    name: Annotated[str, typer.Option("--set", help="The set that holds them.")],
    label: Annotated[int, typer.Option(help="Instead of entries: all under this label of the set.", min=0)] = 0,
    reference: Annotated[str, typer.Option(help="The court's reference, in one line.")],
    until: Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help="The last day (UTC).")],
    reason: Reason,
    admin: Admin,
    key_file: KeyFile = None,
    admin_passphrase_file: AdminPassphrase = None,
) -> None:
    """Keep entries for a court, whatever their owner takes back (guarded).

    They are copied, sealed, as they are held when the last signature is given. The set goes on as without a hold.
    """
    if bool(entries) == bool(label):
        raise ConfigError("a hold names entries, or a label", remedy="give entries, or --label NUMBER")
    with shell.node() as node:
        act = set_hold(full_name(node, name), reference, reason, until.date(), entries=entries or (), label=label)
        guarded(shell, node, act, admin=admin, key_file=key_file, passphrase_file=admin_passphrase_file)


@command(hold_app, "lift")
def hold_lift(
    shell: Shell,
    *,
    hold: Annotated[str, typer.Argument(help="The hold, or the beginning of its id.")],
    reason: Reason,
    admin: Admin,
    key_file: KeyFile = None,
    admin_passphrase_file: AdminPassphrase = None,
) -> None:
    """End a legal hold before its day (guarded). What only it kept is deleted."""
    with shell.node() as node:
        with node.store.reading() as tx:
            act = lift_hold(tx.holds.get(hold).id, reason)
        guarded(shell, node, act, admin=admin, key_file=key_file, passphrase_file=admin_passphrase_file)


@command(hold_app, "list")
def hold_list(shell: Shell) -> None:
    """List what is on hold, for whom and until when."""
    with shell.node() as node, node.store.reading() as tx:
        rows: list[dict[str, object]] = [
            {
                "hold": one.id,
                "set": tx.sets.by_id(one.set_id).name,
                "entries": one.entries,
                "gone": one.gone,
                "until": one.until,
                "reference": one.reference,
                "reason": one.reason,
                "created": one.created,
            }
            for one in tx.holds.all()
        ]
    shell.table(rows, HOLD_COLUMNS, "Nothing is on hold.")
