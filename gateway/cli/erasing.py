"""What must not come back: erasing by order, letting come back, and the never-again list. Commands of `gateway set`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.people import Admin, AdminPassphrase, KeyFile, Reason, guarded, read_file
from gateway.cli.shell import Shell, amount, command, plain
from gateway.errors import ConfigError, MalformedError
from gateway.exchange import erasing, listfile
from gateway.exchange.erasing import MAX_DIGESTS
from gateway.exchange.neveragain import ERASED, EVERYBODY, WRONG, listings

never_again_app = typer.Typer(
    add_completion=False, help="The never-again list: what was withdrawn as wrong, or erased.", no_args_is_help=True
)

MAX_DIGESTS_BYTES = 1 << 20  # a thousand lines, a long text digest among them
LIST_COLUMNS = {
    "listing": "listing",
    "kind": "kind",
    "binds": "binds",
    "state": "state",
    "at": "at",
    "digests": "digests",
    "leaf": "leaf",
}
Digests = Annotated[
    list[str] | None,
    typer.Argument(metavar="[DIGEST]...", help="In hexadecimal, or as ALGORITHM:VALUE, such as ssdeep:…"),
]
DigestFile = Annotated[
    Path | None, typer.Option("--file", help="File with one digest on each line: it stays out of the shell's history.")
]


class Kind(StrEnum):
    """Why something is on the list."""

    WRONG = WRONG
    ERASED = ERASED


def register(app: typer.Typer) -> None:
    """Add these commands to those of `gateway set`."""
    command(app, "erase")(set_erase)
    command(app, "reinstate")(set_reinstate)
    app.add_typer(never_again_app, name="never-again")


def set_erase(
    shell: Shell,
    *,
    digests: Digests = None,
    order: Annotated[str, typer.Option(help="The legal reference; it stands in the audit log.")],
    admin: Admin,
    file: DigestFile = None,
    files_only: Annotated[
        bool, typer.Option("--files-only", help="By cryptographic digests alone: other files of the same picture stay.")
    ] = False,
    key_file: KeyFile = None,
    admin_passphrase_file: AdminPassphrase = None,
) -> None:
    """Erase every entry that carries a digest, in all sets here, and keep it away for good (guarded).

    Followers of our own sets are told to delete it. `approval show` says what would go.
    """
    with shell.node() as node:
        act = erasing.erase(node, _given(digests, file), order, files_only=files_only)
        guarded(shell, node, act, admin=admin, key_file=key_file, passphrase_file=admin_passphrase_file)


def set_reinstate(
    shell: Shell,
    *,
    digests: Digests = None,
    reason: Reason,
    admin: Admin,
    file: DigestFile = None,
    kind: Annotated[Kind, typer.Option(help="Why it is on the list.")] = Kind.WRONG,
    key_file: KeyFile = None,
    admin_passphrase_file: AdminPassphrase = None,
) -> None:
    """Let come back what was listed as never again with one of these digests (guarded)."""
    with shell.node() as node:
        act = erasing.reinstate(node, _given(digests, file), reason, kind=kind)
        guarded(shell, node, act, admin=admin, key_file=key_file, passphrase_file=admin_passphrase_file)


@command(never_again_app, "list")
def never_again_list(
    shell: Shell,
    everything: Annotated[bool, typer.Option("--all", help="Also what was reinstated.")] = False,
) -> None:
    """List what must not come back: since when, and whom it binds. Which digests these are, nobody can read here."""
    with shell.node() as node, node.store.reading() as tx:
        rows: list[dict[str, object]] = [
            {
                "listing": one.number,
                "kind": one.kind,
                "binds": "everybody" if one.scope == EVERYBODY else one.scope,
                "state": "reinstated" if one.reinstated else "in force",
                "at": one.at,
                "reinstated": one.reinstated,
                "digests": len(one.marks),
                "leaf": one.leaf,
            }
            for one in listings(node, tx)
            if everything or not one.reinstated
        ]
    shell.table(rows, LIST_COLUMNS, "Nothing is listed.")


@command(never_again_app, "export")
def never_again_export(shell: Shell, file: Annotated[Path, typer.Argument(help="A new file.")]) -> None:
    """Write the list to a file, to keep away from the database. Nobody else can read from it what is listed."""
    with shell.node() as node:
        with node.store.reading() as tx:
            rows = tx.never_again.since()
        try:
            with file.open("xb") as sink:
                sink.writelines(listfile.dump(node, rows))
        except OSError as error:
            raise ConfigError(f"the list cannot be written: {error.strerror}", remedy="name a new file") from error
    head = rows[-1].mac.hex() if rows else ""
    shell.show(
        {"file": str(file), "rows": len(rows), "list_head": head},
        f"{amount(len(rows), 'row')} of the never-again list are in {plain(str(file))}. After a restore: "
        f"gateway set never-again import {plain(str(file))}",
    )


@command(never_again_app, "import")
def never_again_import(shell: Shell, file: Annotated[Path, typer.Argument(help="A file that `export` wrote.")]) -> None:
    """Take in a list that this gateway wrote before it was restored: what it lists is withdrawn or erased again."""
    raw = read_file(file, listfile.MAX_FILE_BYTES)
    with shell.node() as node:
        done = erasing.take_in(node, raw)
    shell.show(
        {"changed": done.changed, "withdrawn": done.withdrawn, "erased": done.erased},
        f"{amount(done.changed, 'listing')} new or lifted here.",
        f"  {amount(done.withdrawn, 'entry', 'entries')} withdrawn again, {done.erased:,} erased again",
    )


def _given(digests: list[str] | None, file: Path | None) -> list[str]:
    given = list(digests or [])
    if file is not None:
        try:
            lines = read_file(file, MAX_DIGESTS_BYTES).decode("utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise MalformedError("the file is not a list of digests") from error
        given += [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not given:
        raise ConfigError("there is no digest", remedy="give some, or --file with one on each line")
    if len(given) > MAX_DIGESTS:
        raise ConfigError(f"more than {MAX_DIGESTS} digests at once", remedy="divide them among several proposals")
    return given
