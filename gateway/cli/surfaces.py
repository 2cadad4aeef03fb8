"""Doors for partners' stock clients: opening them (guarded), closing them, and the secrets by which these call."""

from __future__ import annotations

from typing import Annotated

import typer

from gateway import keyacts
from gateway.callers import Callers, Scope
from gateway.cli.people import Admin, AdminPassphrase, KeyFile, guarded
from gateway.cli.shell import Shell, bold, command, plain, when
from gateway.errors import MalformedError

surface_app = typer.Typer(
    add_completion=False,
    help="Doors for partners' stock clients, and the secrets by which these call. All are shut until they are opened.",
    no_args_is_help=True,
)
COMMANDS = {"surface": surface_app}

Partner = Annotated[str, typer.Argument(help="The partner.")]
Surface = Annotated[str, typer.Argument(help=f"Which door: {' or '.join(keyacts.SURFACES)}.")]
By = Annotated[str, typer.Option("--admin", help="The administrator who does it.")]
COLUMNS = {
    "partner": "partner",
    "surface": "door",
    "secret": "secret",
    "opened": "opened",
    "expires": "until",
    "used": "last used",
}


@command(surface_app, "open")
def surface_open(
    shell: Shell,
    *,
    partner: Partner,
    surface: Surface,
    admin: Admin,
    key_file: KeyFile = None,
    admin_passphrase_file: AdminPassphrase = None,
) -> None:
    """Let a partner's stock clients call a door (guarded). Policy then judges them as protected by TLS alone."""
    with shell.node() as node:
        act = keyacts.open_surface(partner, _surface(surface))
        guarded(shell, node, act, admin=admin, key_file=key_file, passphrase_file=admin_passphrase_file)


@command(surface_app, "close")
def surface_close(shell: Shell, *, partner: Partner, surface: Surface) -> None:
    """Close a door to a partner's stock clients at once; their secrets for it end with it."""
    with shell.node() as node:
        keyacts.close_surface(node, partner, _surface(surface))
    shell.show(
        {"partner": partner, "surface": surface, "open": False},
        f"{bold(plain(surface))} is closed to {bold(partner)}; its secrets for it are gone.",
    )


@command(surface_app, "list")
def surface_list(shell: Shell) -> None:
    """List the doors that are open to partners' stock clients, with their secrets (never the secrets themselves)."""
    with shell.node() as node, node.store.reading() as tx:
        rows: list[dict[str, object]] = []
        for one in tx.secrets.surfaces():
            held = tx.secrets.all(one.partner, one.surface)
            door = {"partner": one.partner, "surface": one.surface, "opened": one.opened}
            rows += [
                {**door, "secret": secret.id, "expires": secret.expires, "used": secret.used} for secret in held
            ] or [{**door, "secret": "", "expires": 0, "used": 0}]
    shell.table(rows, COLUMNS, "No door is open to any stock client.")


@command(surface_app, "issue")
def surface_issue(
    shell: Shell,
    *,
    partner: Partner,
    surface: Surface,
    admin: By,
    days: Annotated[int, typer.Option(help="How long it is good.", min=1, max=365)] = 90,
) -> None:
    """Make a secret for a partner's stock client. It is shown once: only its hash is kept."""
    with shell.node() as node:
        identifier, secret = Callers(node).issue_secret(partner, Scope(_surface(surface)), days, admin)
        until = node.clock() + days * 86_400
    shell.show(
        {"partner": partner, "surface": surface, "id": identifier, "secret": secret, "expires": until},
        f"Secret {identifier} for {bold(partner)} at {plain(surface)}, until {when(until)}:",
        f"  user      {plain(partner)}",
        f"  password  {bold(plain(secret))}",
        "Hand it over sealed. It is not shown again.",
    )


@command(surface_app, "revoke")
def surface_revoke(
    shell: Shell, *, identifier: Annotated[str, typer.Argument(metavar="ID", help="The secret's id.")], admin: By
) -> None:
    """Forget a secret at once."""
    with shell.node() as node:
        Callers(node).revoke_secret(identifier, admin)
    shell.show({"id": identifier, "state": "revoked"}, f"Secret {plain(identifier)} opens nothing any more.")


def _surface(word: str) -> str:
    if word not in keyacts.SURFACES:
        raise MalformedError(f"a door for stock clients is one of {', '.join(keyacts.SURFACES)}")
    return word
