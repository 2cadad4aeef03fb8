"""Known-good digests: bringing a list of them, listing the lists, removing one under four eyes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from gateway.adapters import known_good
from gateway.cli.people import Admin, AdminPassphrase, KeyFile, Reason, guarded
from gateway.cli.shell import Shell, amount, command, plain
from gateway.errors import ConfigError
from gateway.exchange import Exchange
from gateway.exchange.knowngood import lists, remove
from gateway.model import AdapterReport

allow_list_app = typer.Typer(
    add_completion=False,
    help="Allow-lists: digests of harmless files, that are listed nowhere and never acted on.",
    no_args_is_help=True,
)
COMMANDS = {"allow-list": allow_list_app}
SHOWN_REFUSALS = 10
COLUMNS = {"list": "list", "name": "name", "state": "state", "digests": "digests", "added": "added"}


@command(allow_list_app, "import")
def allow_list_import(
    shell: Shell,
    *,
    file: Annotated[Path, typer.Argument(help="One digest on each line, or CSV with a heading, such as NSRL's.")],
    name: Annotated[str, typer.Option(help="What the list is called; else the name of its file.")] = "",
    column: Annotated[str, typer.Option(help="The one column of a CSV to read; else all named as an algorithm.")] = "",
) -> None:
    """Take in a list of known-good digests; a bad line is left out. From then on no set of ours takes what it lists."""
    report = AdapterReport("known_good")
    with shell.node() as node:
        exchange = Exchange(node)
        try:
            source = file.open("rb")
        except OSError as error:
            raise ConfigError(f"the file cannot be read: {error.strerror}") from error
        with source, shell.progress("importing", "bytes") as told:
            size = os.fstat(source.fileno()).st_size
            done = exchange.known_good.import_list(
                name or file.stem,
                known_good.read(source, report, column),
                report,
                actor=node.agency,
                held=exchange.quality.count_held,
                on_batch=lambda _count: told(source.tell(), size),
            )
    refused = [{"line": one.line, "field": one.field, "reason": one.reason} for one in report.refused_rows]
    value = {"list": done.number, "digests": done.digests, "held": done.held, "refused": report.refused}
    held = [f"  {done.held:,} of them stand in sets here, and cannot be acted on any more"]
    shell.show(
        {**value, "refused_rows": refused},
        f"Allow-list {done.number}: {amount(done.digests, 'digest')}; {report.refused:,} lines refused.",
        *(held if done.held else []),
        *(f"  refused: line {one['line']}: {plain(str(one['reason']))}" for one in refused[:SHOWN_REFUSALS]),
    )


@command(allow_list_app, "list")
def allow_list_list(
    shell: Shell, everything: Annotated[bool, typer.Option("--all", help="Also what was removed.")] = False
) -> None:
    """List the allow-lists. Which digests they hold, nobody can read here. Common files are known without a list."""
    with shell.node() as node, node.store.reading() as tx:
        rows: list[dict[str, object]] = [
            {"list": one.id, "name": one.name, "state": one.state, "digests": one.digests, "added": one.added}
            for one in lists(node, tx)
            if everything or one.state == "in_force"
        ]
    shell.table(rows, COLUMNS, "There is no allow-list. Empty and blank files are known as good without one.")


@command(allow_list_app, "remove")
def allow_list_remove(
    shell: Shell,
    *,
    number: Annotated[int, typer.Argument(metavar="LIST", help="The number of the list.")],
    reason: Reason,
    admin: Admin,
    key_file: KeyFile = None,
    admin_passphrase_file: AdminPassphrase = None,
) -> None:
    """Remove an allow-list: what it kept out may be listed again (guarded)."""
    with shell.node() as node:
        act = remove(number, reason)
        guarded(shell, node, act, admin=admin, key_file=key_file, passphrase_file=admin_passphrase_file)
