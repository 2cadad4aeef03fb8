"""Backups: the key that opens them, making one, proving one, restoring one, going on from it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gateway import backup
from gateway.backup import Inside, Opened
from gateway.beginning import resume
from gateway.cli.founding import card_value
from gateway.cli.people import Admin, AdminPassphrase, KeyFile, guarded, read_file
from gateway.cli.shell import Shell, amount, bold, command, plain, when
from gateway.crypto.keys import SealingKey
from gateway.interchange import MAX_CARD_BYTES, parse_card
from gateway.keystore import create_offline, open_offline

backup_app = typer.Typer(
    add_completion=False,
    help="Backups: for nobody but the holder of a key that is kept elsewhere.",
    no_args_is_help=True,
)
COMMANDS = {"backup": backup_app}

File = Annotated[Path, typer.Argument(help="The backup.")]
OfflineKey = Annotated[Path, typer.Option("--key", help="The offline key that opens it: the file of `backup key`.")]
KeyPassphrase = Annotated[
    Path | None, typer.Option("--key-passphrase-file", help="File with the offline key's passphrase; else it is asked.")
]
Card = Annotated[Path | None, typer.Option("--card", help="The gateway's identity card: whose backup it must be.")]


@command(backup_app, "key")
def backup_key(
    shell: Shell,
    *,
    file: Annotated[Path, typer.Argument(help="Where to put the key: on a medium that is kept elsewhere.")],
    plain_file: Annotated[
        bool, typer.Option("--plain", help="Without a passphrase, as an identity file that `age` reads.")
    ] = False,
    key_passphrase_file: KeyPassphrase = None,
) -> None:
    """Make the offline key that opens backups, and print its public half for the settings. Needs no gateway."""
    secret = None if plain_file else shell.passphrases.administrator("the offline key", key_passphrase_file, new=True)
    public = create_offline(file, secret)
    shell.show(
        {"file": str(file), "recipient": str(public), "key_id": public.key_id},
        f"The offline key {public.key_id[:16]}… is in {plain(str(file))}. Take it away from this machine, and copy it:",
        "without it no backup opens. For the settings, in one line:",
        f'backup_recipients = "{public}"',
    )


@command(backup_app, "create")
def backup_create(
    shell: Shell,
    *,
    file: File,
    recipient: Annotated[
        list[str] | None, typer.Option(help="An age1pq1 recipient instead of those of the settings; may be repeated.")
    ] = None,
) -> None:
    """Write a backup to a new file, while the gateway goes on: all but the keys that open what partners send."""
    keys = [SealingKey.parse(one) for one in recipient or []]
    with shell.node() as node, shell.progress("backing up", "bytes") as told:
        made = backup.create(node, file, keys, told=told)
        agency = node.agency
    shell.show(
        {
            "file": str(file),
            "agency": agency,
            "size": made.size,
            "sha256": made.digest,
            "origin": made.origin,
            "log_size": made.log_size,
        },
        f"The backup of {bold(agency)} is in {plain(str(file))}: {amount(made.size, 'byte')}, with "
        f"{amount(made.log_size, 'leaf', 'leaves')} of {made.origin}.",
        f"  sha256  {made.digest}",
        f"Try it elsewhere: gateway backup verify {plain(str(file))} --key FILE",
    )


@command(backup_app, "verify")
def backup_verify(
    shell: Shell, *, file: File, key: OfflineKey, key_passphrase_file: KeyPassphrase = None, card: Card = None
) -> None:
    """Prove a backup, and say what it holds: signatures, every piece, the whole log, administrators, every block.

    Needs the offline key and the gateway's passphrase of that time, and nothing of the gateway itself.
    """
    with shell.progress("reading", "bytes") as told:
        inside = backup.verify(_opened(shell, file, key, key_passphrase_file, card), told=told)
    _show(shell, inside, card_given=card is not None)


@command(backup_app, "restore")
def backup_restore(
    shell: Shell,
    *,
    file: File,
    key: OfflineKey,
    folder: Annotated[Path, typer.Option(help="The new data folder; it must not hold anything.")],
    database: Annotated[
        str, typer.Option(help="An empty database (postgresql://…) instead of a file in the folder.")
    ] = "",
    key_passphrase_file: KeyPassphrase = None,
    card: Card = None,
) -> None:
    """Put a backup into a new data folder. The gateway there is paused until its administrators sign: backup resume."""
    with shell.progress("restoring", "bytes") as told:
        opened = _opened(shell, file, key, key_passphrase_file, card)
        inside = backup.restore(opened, folder, database=database, told=told)
    how = f"gateway --home {folder}"
    following = [
        f"{how} backup resume --admin NAME   (and whoever else must sign: {how} approval sign ID --admin NAME)",
        f"{how} backup create FILE   (partners take no second restore from the backup of before)",
    ]
    _show(
        shell,
        inside,
        card_given=card is not None,
        more={"home": str(folder), "next": following},
        lines=[
            f"It is in {plain(str(folder))}, and does nothing before its administrators have signed. Files that the "
            "settings only name (TLS, a token's PIN, the alarm command) are not in it.",
            "Make sure that the gateway of before never runs again. Next:",
            *(f"  {plain(line)}" for line in following),
        ],
    )


@command(backup_app, "resume")
def backup_resume(
    shell: Shell, *, admin: Admin, key_file: KeyFile = None, admin_passphrase_file: AdminPassphrase = None
) -> None:
    """Go on from a restored backup (guarded): a new log and new epochs begin, and partners are told by a statement."""
    with shell.node(restored=True) as node:
        guarded(shell, node, resume(node), admin=admin, key_file=key_file, passphrase_file=admin_passphrase_file)


def _opened(shell: Shell, file: Path, key: Path, key_passphrase_file: Path | None, card: Path | None) -> Opened:
    parsed = None if card is None else parse_card(read_file(card, MAX_CARD_BYTES))
    opening = open_offline(key, lambda: shell.passphrases.administrator("the offline key", key_passphrase_file))
    return Opened(file, opening, shell.passphrases.gateway(), parsed)


def _show(
    shell: Shell,
    inside: Inside,
    *,
    card_given: bool,
    more: dict[str, object] | None = None,
    lines: list[str] | None = None,
) -> None:
    sets: list[dict[str, object]] = [
        {"set": one.name, "hub": one.hub, "epoch": one.epoch, "seq": one.seq, "entries": one.entries}
        for one in inside.sets
    ]
    value = {
        **card_value(inside.card),
        "created": inside.created,
        "origin": inside.origin,
        "log_size": inside.log_size,
        "administrators": inside.administrators,
        "quorum": inside.quorum,
        "partners": inside.partners,
        "blocks": inside.blocks,
        "sets": sets,
        **(more or {}),
    }
    whose = "the key of the card given signed it" if card_given else f"compare: {bold(inside.card.fingerprint)}"
    entries = sum(one.entries for one in inside.sets)
    shell.show(
        value,
        f"A backup of {bold(inside.agency)}, {plain(inside.name)}, of {when(inside.created)}. It holds.",
        f"  fingerprint      {whose}",
        f"  audit log        {amount(inside.log_size, 'leaf', 'leaves')} of {plain(inside.origin)}",
        f"  administrators   {inside.administrators}, of whom {inside.quorum} must sign",
        f"  partners         {inside.partners:,}",
        f"  sets             {amount(len(inside.sets), 'set')}, {amount(entries, 'entry', 'entries')}, "
        f"{amount(inside.blocks, 'block')}",
        *(
            f"    {plain(one.name)}  {one.entries:,} entries, epoch {one.epoch}, {one.seq:,} changes"
            for one in inside.sets
        ),
        *(lines or []),
    )
