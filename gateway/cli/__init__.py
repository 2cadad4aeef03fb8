"""The command line: `gateway …`. One module for each room; a room is imported when one of its commands is called.

`docs/commands.md` lists every command and option; a test compares.
"""

from __future__ import annotations

import gc
from collections.abc import MutableMapping
from importlib import import_module
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from gateway.cli.shell import Common, HomeOption, JsonOption, PassphraseOption

# Command -> the module that holds it, in the order of the help.
ROOMS = {
    "init": "founding",
    "serve": "founding",
    "identity": "founding",
    "doctor": "founding",
    "admin": "people",
    "approval": "people",
    "partner": "people",
    "console": "consoles",
    "key": "keys",
    "surface": "surfaces",
    "pause": "people",
    "resume": "people",
    "set": "sets",
    "import": "importing",
    "look-up": "looking",
    "where": "sets",
    "hold": "holding",
    "opinion": "opinions",
    "allow-list": "allowlists",
    "category": "quality",
    "quality": "quality",
    "push": "syncing",
    "pull": "syncing",
    "sync": "syncing",
    "source": "sources",
    "withdrawal": "withdrawals",
    "case": "casework",
    "status": "statuses",
    "claim": "statuses",
    "series": "statuses",
    "certificate": "certificates",
    "receipt": "mail",
    "message": "mail",
    "policy": "policies",
    "audit": "auditing",
    "backup": "backups",
    "alarm": "alarms",
    "duties": "duties",
    "inspect": "inspecting",
    "verify": "exporting",
}


class Rooms(TyperGroup):
    """The root: knows its commands by name, and fetches a command when it is called."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands: MutableMapping[str, Any] = dict.fromkeys(ROOMS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002  typer's signature
        """The command, None for a name that is none."""
        if cmd_name not in ROOMS:
            return None
        gc.disable()  # what is imported stays: looking for garbage among it takes a tenth of a command's start
        try:
            room = import_module(f"gateway.cli.{ROOMS[cmd_name]}")
        finally:
            gc.enable()
        found = get_command(room.COMMANDS[cmd_name])
        found.name = cmd_name
        return found


app = typer.Typer(
    cls=Rooms,
    name="gateway",
    help="Exchange hash lists and case metadata with partner agencies: signed, sealed, under policy. Never imagery.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _version(asked: bool) -> None:
    if asked:
        print(f"gateway {version('partner-exchange-gateway')}")
        raise typer.Exit


@app.callback()
def _root(
    ctx: typer.Context,
    home: HomeOption = None,
    as_json: JsonOption = False,
    passphrase_file: PassphraseOption = None,
    _shown: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    ctx.obj = Common(home, as_json, passphrase_file)


def main() -> None:
    """The console command."""
    app()
