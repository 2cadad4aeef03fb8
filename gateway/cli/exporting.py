"""Files out: a set as a file for a partner, opening one that was sealed for us, and checking what is said of one."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from gateway import ownkeys
from gateway.adapters.outward import WRITERS
from gateway.cli.people import read_file
from gateway.cli.shell import Shell, amount, bold, command, plain, when
from gateway.crypto import age
from gateway.errors import ConfigError
from gateway.exchange import Exchange
from gateway.exchange.exporting import Exported, Order, Places
from gateway.exchange.wentout import EXPORTS
from gateway.exportmanifest import MAX_BYTES, Verified, verify_manifest, verify_note
from gateway.interchange import MAX_CARD_BYTES, parse_card
from gateway.newfile import Sink, new_file
from gateway.node import Node

verify_app = typer.Typer(
    add_completion=False, help="Check what is said of a file, with nothing but an identity card.", no_args_is_help=True
)
COMMANDS = {"verify": verify_app}

NOTE_SUFFIX = ".note.json"
CHUNK_BYTES = 1 << 20
Card = Annotated[Path, typer.Option(help="The exporter's identity card, as it was when the file was made.")]
Of = Annotated[Path | None, typer.Option("--file", help="The file, which must be the one that was signed for.")]


def register(app: typer.Typer) -> None:
    """Add these commands to those of `gateway set`."""
    command(app, "export")(set_export)
    command(app, "unseal")(set_unseal)


def set_export(
    shell: Shell,
    *,
    name: Annotated[str, typer.Argument(metavar="SET", help="A set of our own.")],
    file: Annotated[Path, typer.Argument(help="The new file. A note for the partner is put beside it.")],
    to: Annotated[str, typer.Option(metavar="PARTNER", help="Whom it is for: policy decides what is in it.")],
    form: Annotated[str, typer.Option(help=f"One of {', '.join(WRITERS)}.")],
    sealed: Annotated[
        bool, typer.Option("--sealed", help="Seal it for the partner's keys: policy may then allow more.")
    ] = False,
    manifest: Annotated[
        Path | None, typer.Option(help="Where the manifest goes; else into `exports` in the data folder.")
    ] = None,
    category_scheme: Annotated[
        str, typer.Option(help="For vics: the scheme whose codes stand as numbers.")
    ] = "vics-default",
) -> None:
    """Write a set as a file for one partner: what policy lets it see, in a form that its tools read.

    A manifest says what was left out and why; it is for us and the auditor. A file follows no withdrawal.
    """
    from gateway.cli.sets import full_name  # noqa: PLC0415  that module registers this one

    with shell.node() as node:
        order = Order(full_name(node, name), to, form, sealed, category_scheme)
        places = Places(file, file.with_name(file.name + NOTE_SUFFIX), manifest or _manifest_place(node, order))
        with shell.progress("writing", "entries") as told:
            done = Exchange(node).exporting.export(order, places, told)
    _show(shell, order, places, done)


def set_unseal(
    shell: Shell,
    *,
    file: Annotated[Path, typer.Argument(help="A file that a partner sealed for us.")],
    into: Annotated[Path, typer.Argument(help="The new file that anybody can read.")],
) -> None:
    """Open a file that a partner exported and sealed for our keys. Who made it, its note says."""
    with shell.node() as node:
        try:
            source = file.open("rb")
        except OSError as error:
            raise ConfigError(f"the file cannot be read: {error.strerror}") from error
        with source, new_file(into, "file") as sink:
            stream = age.open_stream(ownkeys.opening_keys(node), source)
            while piece := stream.read(CHUNK_BYTES):
                sink.write(piece)
    shell.show(_file_value(sink), f"Opened: {sink.size:,} bytes.")


@command(verify_app, "manifest")
def verify_manifest_file(
    shell: Shell,
    *,
    manifest: Annotated[Path, typer.Argument(help="The manifest.")],
    card: Card,
    file: Of = None,
) -> None:
    """Check an export's manifest: who signed it, and what it says was left out of the file, and why."""
    found = verify_manifest(read_file(manifest, MAX_BYTES), parse_card(read_file(card, MAX_CARD_BYTES)).signing)
    _check(found, file)
    said = found.said
    lines = [
        f"The manifest is signed by {bold(str(said['exporter']))}.",
        f"  for        {plain(str(said['recipient']))}, {plain(str(said['form']))}, {said['surface']}",
        f"  set        {plain(str(said['set']))} up to change {said['seq']}, {when(_number(said['created']))}",
        f"  entries    {said['entries']:,}, left out {said['left_out']:,}",
        f"  policy     {said['policy']}",
    ]
    for one in found.labels:
        lines.append(f"  label {str(one['label'])[:12]}  {one['written']:,} of {one['entries']:,}")
        lines += [
            f"    without {plain(str(gone['group']))} of {gone['entries']:,}: {plain(_because(gone))}"
            for gone in _objects(one["withheld"])
        ]
    lines.append(_of_file(file))
    shell.show({"verified": True, **said, "label_table": [dict(one) for one in found.labels]}, *lines)


@command(verify_app, "note")
def verify_note_file(
    shell: Shell,
    *,
    note: Annotated[Path, typer.Argument(help="The note that came with the file.")],
    card: Card,
    file: Of = None,
) -> None:
    """Check the note that comes with an exported file: from whom it is, what is in it, which duties come with it."""
    found = verify_note(read_file(note, MAX_BYTES), parse_card(read_file(card, MAX_CARD_BYTES)).signing)
    _check(found, file)
    said = found.said
    shell.show(
        {"verified": True, **said},
        f"The note is signed by {bold(str(said['exporter']))}.",
        f"  for        {plain(str(said['recipient']))}, {plain(str(said['form']))}",
        f"  set        {plain(str(said['set']))}, {when(_number(said['created']))}",
        f"  entries    {said['entries']:,}",
        f"  duties     {plain(_listed(said['duties']))}",
        _of_file(file),
    )


def _manifest_place(node: Node, order: Order) -> Path:
    folder = node.settings.folder / EXPORTS
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"the folder for manifests cannot be made: {error.strerror}") from error
    moment = datetime.fromtimestamp(node.clock(), UTC)
    words = (f"{moment:%Y%m%dT%H%M%SZ}", order.partner, order.set_name.partition("/")[2], order.form)
    return folder / f"{'-'.join(words)}.manifest"


def _check(found: Verified, file: Path | None) -> None:
    if file is None:
        return
    try:
        with file.open("rb") as source:
            digest = hashlib.file_digest(source, "sha256").hexdigest()
            found.check_file(size=source.tell(), sha256=digest)
    except OSError as error:
        raise ConfigError(f"the file cannot be read: {error.strerror}") from error


def _show(shell: Shell, order: Order, places: Places, done: Exported) -> None:
    value = {
        "set": order.set_name,
        "partner": order.partner,
        "form": order.form,
        "surface": str(order.surface),
        "entries": done.entries,
        "left_out": done.left_out,
        "withheld": dict(done.withheld),
        "not_carried": dict(done.not_carried),
        "duties": list(done.duties),
        "size": done.size,
        "sha256": done.digest,
        "policy": done.policy,
        "file": str(places.file),
        "note": str(places.note),
        "manifest": str(places.manifest),
        "manifest_sha256": done.manifest_digest,
    }
    withheld = ", ".join(f"{group} of {count:,}" for group, count in sorted(done.withheld.items()))
    lost = ", ".join(f"{name} of {count:,}" for name, count in sorted(done.not_carried.items()))
    shell.show(
        value,
        f"{bold(order.set_name)} for {bold(plain(order.partner))}: {amount(done.entries, 'entry', 'entries')} "
        f"in {plain(str(places.file))}, {order.surface}",
        *([f"  left out      {amount(done.left_out, 'entry', 'entries')}"] if done.left_out else []),
        *([f"  withheld      {withheld}"] if withheld else []),
        *([f"  not carried   {lost}: this form has no place for them"] if lost else []),
        *([f"  duties        {', '.join(done.duties)}"] if done.duties else []),
        f"  for them      {plain(str(places.note))}: hand it over with the file",
        f"  for us        {plain(str(places.manifest))}: what was left out and why; it is not for them",
    )


def _file_value(sink: Sink) -> dict[str, object]:
    return {"size": sink.size, "sha256": sink.digest}


def _because(gone: dict[str, object]) -> str:
    return f"{gone['reason']} ({_listed(gone['rules'])})"


def _listed(value: object) -> str:
    return ", ".join(map(str, value)) or "-" if isinstance(value, list) else str(value)


def _objects(value: object) -> list[dict[str, object]]:
    return [dict(one) for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def _of_file(file: Path | None) -> str:
    return "It speaks of this file." if file is not None else "No file was looked at: name it with --file."
