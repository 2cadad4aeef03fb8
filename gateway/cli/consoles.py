"""The console's people, as administrators see to them from a terminal."""

from __future__ import annotations

from typing import Annotated

import typer

from gateway.cli.people import Admin, AdminPassphrase, KeyFile, personal_key
from gateway.cli.shell import Shell, bold, command, plain, when
from gateway.signin import Role, SignIn

console_app = typer.Typer(
    add_completion=False, help="The console: who may use it, and who is signed in.", no_args_is_help=True
)
COMMANDS = {"console": console_app}


@command(console_app, "invite")
def invite(
    shell: Shell,
    *,
    name: Annotated[str, typer.Argument(help="A short name, such as a post: night-analyst.")],
    role: Annotated[list[Role], typer.Option(help="What they may see and do; several are possible.")],
    admin: Admin,
    key_file: KeyFile = None,
    admin_passphrase_file: AdminPassphrase = None,
) -> None:
    """Make a link by which somebody registers a passkey once. Their roles are these from then on."""
    with shell.node() as node:
        key = personal_key(shell, node, admin, key_file, admin_passphrase_file)
        signin = SignIn(node)
        party = signin.party
        token = signin.invite(name, role, by=key.name)
    link = f"{party.origin}/invitation/{token}"
    shell.show(
        {"name": name, "roles": sorted(role), "link": link},
        f"{bold(name)} opens this link, once, within a day, and registers a passkey:",
        plain(link),
        "It lets in whoever opens it first: hand it over yourself.",
    )


@command(console_app, "people")
def people(shell: Shell) -> None:
    """List who may use the console, and who is invited."""
    with shell.node() as node:
        signin = SignIn(node)
        rows = [
            {
                "name": one.name,
                "roles": ", ".join(sorted(one.roles)) or "none that counts",
                "passkeys": len(one.passkeys),
                "since": one.added,
            }
            for one in signin.people()
        ]
        rows += [
            {"name": one.person, "roles": ", ".join(sorted(one.roles)), "passkeys": 0, "since": 0}
            for one in signin.waiting()
        ]
    shell.table(
        rows, {"name": "name", "roles": "roles", "passkeys": "passkeys", "since": "since"}, "Nobody uses the console."
    )


@command(console_app, "sessions")
def sessions(shell: Shell) -> None:
    """List who is signed in."""
    with shell.node() as node:
        rows = [
            {
                "session": one.id,
                "person": one.person,
                "begun": when(one.created) if not shell.as_json else one.created,
                "used": when(one.used) if not shell.as_json else one.used,
                "peer": one.peer,
            }
            for one in SignIn(node).sessions()
        ]
    columns = {"session": "session", "person": "who", "begun": "begun", "used": "last used", "peer": "from"}
    shell.table(rows, columns, "Nobody is signed in.")


@command(console_app, "end")
def end(
    shell: Shell,
    *,
    name: Annotated[str, typer.Argument(help="Whose time ends; or with --session, whose session it is.")],
    session: Annotated[str, typer.Option(help="Only this session.")] = "",
    admin: Admin,
    key_file: KeyFile = None,
    admin_passphrase_file: AdminPassphrase = None,
) -> None:
    """End somebody's use of the console at once: all their sessions and passkeys, or one session."""
    with shell.node() as node:
        key = personal_key(shell, node, admin, key_file, admin_passphrase_file)
        signin = SignIn(node)
        if session:
            signin.end_session(session, by=key.name, person=name)
        else:
            signin.end_person(name, by=key.name)
    ended = f"session {session} of {name}" if session else f"the access of {name}"
    shell.show({"person": name, "session": session}, f"Ended: {plain(ended)}.")
