"""The audit log: reading it, proving it, taking it away to be proved elsewhere (`logexport`)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from gateway.audit import CheckpointRow, EventKind, LeafRow, LogReport, parse_event, verify_log
from gateway.cli.people import read_file
from gateway.cli.shell import Shell, amount, bold, command, plain
from gateway.crypto import canonical, merkle
from gateway.crypto.checkpoint import MAX_NOTE_BYTES, VerifierKey
from gateway.errors import ConfigError, MalformedError
from gateway.eventwords import about, brief
from gateway.exchange import neveragain
from gateway.logcheck import verify_own_log
from gateway.logexport import export_log
from gateway.model import int_member, text_member
from gateway.node import own_log
from gateway.standing import check
from gateway.store import Transaction
from gateway.witness import WitnessDesk

audit_app = typer.Typer(
    add_completion=False, help="The audit log: what left, to whom, under which rule.", no_args_is_help=True
)
COMMANDS = {"audit": audit_app}

CHUNK_LEAVES = 2_000  # read backwards in pieces, so that the newest events come without the oldest
MAX_EVIDENCE_BYTES = MAX_NOTE_BYTES
MAX_LINE_BYTES = 256 << 10  # one leaf with its event, in JSON in JSON
EVENT_COLUMNS = {"index": "leaf", "at": "at", "kind": "kind", "actor": "by", "subject": "of", "about": "details"}


@command(audit_app, "list")
def audit_list(
    shell: Shell,
    *,
    kind: Annotated[EventKind | None, typer.Option(help="Only events of this kind.", show_choices=False)] = None,
    limit: Annotated[int, typer.Option(help="At most so many, newest first.", min=1)] = 50,
) -> None:
    """List what the log records, newest first."""
    rows: list[dict[str, object]] = []
    with shell.node(check_log=False, restored=True) as node, node.store.reading() as tx:
        for leaf in _backwards(tx):
            row = _event_value(leaf, kind)
            if row is not None:
                rows.append(row)
            if len(rows) == limit:
                break
    shell.table(rows, EVENT_COLUMNS, "No such event is recorded.")


@command(audit_app, "verify")
def audit_verify(
    shell: Shell,
    *,
    outside: Annotated[
        list[Path] | None, typer.Option(help="A checkpoint or receipt of this log kept elsewhere; may be repeated.")
    ] = None,
    folder: Annotated[Path | None, typer.Option(help="Verify an exported folder; needs no passphrase.")] = None,
    log_key: Annotated[
        str, typer.Option(help="The log's verifier string, from the identity card (with --folder).")
    ] = "",
) -> None:
    """Prove the whole log: every leaf, node and checkpoint. Names the first entry that does not hold (exit 10)."""
    evidence = [read_file(path, MAX_EVIDENCE_BYTES) for path in outside or []]
    if folder is not None:
        origin, report = _verify_folder(shell, folder, log_key, evidence)
    else:
        origin, report = _verify_own(shell, evidence)
    shell.show(
        {
            "origin": origin,
            "holds": True,
            "size": report.size,
            "root": report.root.hex(),
            "events": report.events,
            "blocks": report.blocks,
            "erased": report.erased,
            "checkpoints": report.checkpoints,
            "outside": report.outside,
        },
        f"The log {bold(origin)} holds: {amount(report.size, 'leaf', 'leaves')} ({amount(report.events, 'event')}, "
        f"{amount(report.blocks, 'block')}), {amount(report.checkpoints, 'checkpoint')}.",
        f"  erased on record: {report.erased:,}; compared with evidence kept outside: {report.outside:,}",
        *([] if report.outside else ["  Without --outside, a log that was cut off at its end still holds."]),
    )


@command(audit_app, "export")
def audit_export(shell: Shell, folder: Annotated[Path, typer.Argument(help="A new folder.")]) -> None:
    """Write the log to a folder that can be proved without this gateway. Events are readable in it."""
    with shell.node(check_log=False, restored=True) as node:
        with shell.progress("exporting", "leaves") as told:
            size = export_log(node, folder, told=told)
        with node.store.reading() as tx:
            origin = own_log(node, tx).name
    shell.show(
        {"folder": str(folder), "origin": origin, "size": size},
        f"{bold(origin)}, {amount(size, 'leaf', 'leaves')}, is in {plain(str(folder))}. Prove it: "
        f"gateway audit verify --folder {plain(str(folder))}",
    )


@command(audit_app, "witnesses")
def audit_witnesses(shell: Shell) -> None:
    """List who cosigned how much of whose log: partners ours, and we theirs. --json has the signed notes, to keep."""
    with shell.node(check_log=False, restored=True) as node:
        desk = WitnessDesk(node)
        with node.store.reading() as tx:
            cosignatures, logs = tx.witness.cosignatures(), tx.witness.logs()
        ours: list[dict[str, object]] = [
            {
                "witness": row.partner,
                "log": node.agency,
                "size": row.size,
                "at": row.at,
                "note": desk.note_of(row.size).decode(),
            }
            for row in cosignatures
        ]
        theirs: list[dict[str, object]] = [
            {"witness": node.agency, "log": row.partner, "size": row.cosigned, "at": row.at, "note": row.note}
            for row in logs
            if row.cosigned
        ]
    columns = {"witness": "cosigned by", "log": "the log of", "size": "leaves", "at": "at"}
    shell.table([*ours, *theirs], columns, "Nobody has cosigned anything yet: partners do at each sync.")


def _backwards(tx: Transaction) -> Iterator[LeafRow]:
    stop = tx.log.size()
    while stop > 0:
        start = max(0, stop - CHUNK_LEAVES)
        yield from reversed(list(tx.log.leaves(start, stop)))
        stop = start


def _event_value(leaf: LeafRow, wanted: EventKind | None) -> dict[str, object] | None:
    if leaf.event_bytes is None:
        return None
    event = parse_event(leaf.event_bytes)
    if wanted is not None and event.kind is not wanted:
        return None
    return {
        "index": leaf.index,
        "at": event.at,
        "kind": str(event.kind),
        "actor": event.actor,
        "subject": brief(event.subject),
        "about": about(event.details),
        "details": event.details,
    }


def _verify_own(shell: Shell, evidence: list[bytes]) -> tuple[str, LogReport]:
    with shell.node(check_log=False, restored=True) as node:
        with node.store.reading() as tx:
            key = own_log(node, tx).verifier
        with shell.progress("verifying", "leaves") as told:
            report = verify_own_log(node, evidence, told=told)
        with node.store.reading() as tx:
            check(tx, node)  # what the log tells of administrators and partners is what their tables say
            neveragain.check(node, tx)
        details: dict[str, object] = {
            "size": report.size,
            "checkpoints": report.checkpoints,
            "outside": report.outside,
            "erased": report.erased,
        }
        event = node.event(EventKind.LOG_VERIFIED, actor=node.agency, subject=key.name, details=details)
        with node.store.transaction() as tx:
            tx.log.append([event])
    return key.name, report


# Proving an exported folder


def _verify_folder(shell: Shell, folder: Path, log_key: str, evidence: list[bytes]) -> tuple[str, LogReport]:
    named = log_key or read_file(folder / "log.vkey", MAX_LINE_BYTES).decode("utf-8", "replace").strip()
    key = VerifierKey.parse(named)
    if not log_key and not shell.as_json:
        shell.note(f"Proved with the key in the folder itself: {key}. Compare it with the agency's identity card.")
    heads = (_head(value) for value in _values(folder / "checkpoints.jsonl"))
    evidence = [*evidence, read_file(folder / "checkpoint", MAX_EVIDENCE_BYTES)]
    return key.name, verify_log(_leaves(folder), _nodes(folder), heads, key, evidence)


def _leaves(folder: Path) -> Iterator[LeafRow]:
    return (_leaf(value) for value in _values(folder / "leaves.jsonl"))


def _nodes(folder: Path) -> Iterator[merkle.Node]:
    """An export has no node table: the tree is built from its leaves, and the checkpoints say whether it is right."""
    frontier = merkle.Frontier()
    for row in _leaves(folder):
        yield from frontier.append(merkle.leaf_hash(row.entry))


def _values(path: Path) -> Iterator[dict[str, object]]:
    try:
        source = path.open("rb")
    except OSError as error:
        raise ConfigError(f"the exported folder cannot be read: {error.strerror}", place=path.name) from error
    with source:
        while raw := source.readline(MAX_LINE_BYTES):
            value = canonical.parse_canonical(raw.rstrip(b"\n"), max_bytes=MAX_LINE_BYTES)
            if not isinstance(value, dict):
                raise MalformedError("a line of the export is not an object", place=path.name)
            yield dict(value)


def _leaf(value: dict[str, object]) -> LeafRow:
    event, salt = value.get("event"), value.get("salt")
    try:
        return LeafRow(
            int_member(value, "index"),
            bytes.fromhex(text_member(value, "entry")),
            None if event is None else text_member(value, "event").encode(),
            None if salt is None else bytes.fromhex(text_member(value, "salt")),
        )
    except ValueError as error:
        raise MalformedError("a leaf of the export is not in hexadecimal") from error


def _head(value: dict[str, object]) -> CheckpointRow:
    return CheckpointRow(int_member(value, "size"), text_member(value, "note").encode())
