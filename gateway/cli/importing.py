"""`gateway import`: a file is checked whole, then taken in batch by batch.

The first reading only checks: a file that is refused whole changes nothing. The second imports in committed batches.
Ctrl-C keeps the batches that were committed; running the same command again goes on, since rows that are there already
are known again and left as they are.
"""

from __future__ import annotations

import csv
import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, BinaryIO, TextIO

import typer

from gateway.adapters import READERS, SNIFF_BYTES, ReadOptions, read_batches, sniff
from gateway.audit import EventKind
from gateway.cli.sets import own_set
from gateway.cli.shell import EXIT_INTERRUPTED, Shell, amount, bold, command, plain
from gateway.columns.drafts import DraftBatch
from gateway.errors import ConfigError, ConflictError, MalformedError
from gateway.exchange import Exchange
from gateway.exchange.importing import ImportTally, Refusal
from gateway.exchange.neveragain import KNOWN_GOOD, REASONS
from gateway.model import AdapterReport, RefusedRow
from gateway.node import Node

import_app = typer.Typer(add_completion=False)
COMMANDS = {"import": import_app}

SHOWN_REFUSALS = 20  # on the terminal; --refused-file holds them all
LOGGED_REASONS = 50  # different reasons in the audit log: they are sentences of the adapters, and few
TOLD_EVERY_BATCHES = 16  # some thousand rows: often enough for a bar, rarely enough to cost nothing


@dataclass(slots=True)
class _Refusals(AdapterReport):
    """A report that also writes every refused row to a CSV, and counts reasons."""

    sink: TextIO | None = None
    reasons: dict[str, int] | None = None

    def refuse(self, line: int, field_name: str, reason: str) -> None:
        """Count and keep one refused row."""
        AdapterReport.refuse(self, line, field_name, reason)
        self.reasons = self.reasons if self.reasons is not None else {}
        if reason in self.reasons or len(self.reasons) < LOGGED_REASONS:
            self.reasons[reason] = self.reasons.get(reason, 0) + 1
        if self.sink is not None:
            csv.writer(self.sink).writerow([line, field_name, reason])


class _Hashed:
    """A stream that hashes what is read, so that two readings can be compared."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._hash = hashlib.sha256()
        self.done = 0

    def read(self, count: int = -1, /) -> bytes:
        piece = self._source.read(count)
        self._hash.update(piece)
        self.done += len(piece)
        return piece

    def digest(self) -> str:
        """SHA-256 of everything read, and of what was left unread."""
        while self.read(1 << 20):
            pass
        return self._hash.hexdigest()


@command(import_app, "import")
def import_file(
    shell: Shell,
    *,
    file: Annotated[Path, typer.Argument(help="The file; - for standard input, with --no-check.")],
    name: Annotated[str, typer.Option("--set", help="Our own set that takes the entries.")],
    form: Annotated[str, typer.Option("--format", help=f"One of {', '.join(READERS)}; else it is recognised.")] = "",
    category_scheme: Annotated[str, typer.Option(help="The scheme of bare category numbers.")] = "",
    refused_file: Annotated[Path | None, typer.Option(help="CSV to write every refused row to.")] = None,
    no_check: Annotated[
        bool, typer.Option("--no-check", help="Read once only: a fault in the middle keeps the rows before it.")
    ] = False,
) -> None:
    """Take a file of hashes into a set of our own.

    The whole file is checked first; a bad row is left out and listed, a bad file is refused whole. Interrupted, the
    same command goes on.
    """
    options = ReadOptions(category_scheme)
    with shell.node() as node, _opened(file, no_check=no_check) as source:
        full = own_set(node, name)
        chosen = form or _recognised(source)
        if chosen not in READERS:
            raise MalformedError("the format is not known", remedy=f"the formats are {', '.join(READERS)}")
        # 1. The whole file is read and checked. Nothing changes.
        checked = None if no_check else _check(shell, source, chosen, options)
        # 2. Batch by batch it is taken in, each batch one transaction.
        with _csv(refused_file) as sink:
            report = _Refusals(chosen, sink=sink)
            tally = _take_in(shell, node, full=full, source=source, options=options, report=report, checked=checked)
        if report.refused:
            _log_refused(node, full, report)
    _show(shell, full, report, tally, refused_file)


def _check(shell: Shell, source: BinaryIO, form: str, options: ReadOptions) -> tuple[str, int]:
    """(digest of the file, rows that will be taken); the stream stands at its start again."""
    size = os.fstat(source.fileno()).st_size
    hashed, report = _Hashed(source), AdapterReport(form)
    with shell.progress("checking", "bytes") as told:
        for number, _ in enumerate(read_batches(hashed, form, report, options=options)):  # type: ignore[arg-type]  # read() is all it needs
            if number % TOLD_EVERY_BATCHES == 0:
                told(hashed.done, size)
    found = hashed.digest(), report.accepted
    source.seek(0)
    return found


def _take_in(
    shell: Shell,
    node: Node,
    *,
    full: str,
    source: BinaryIO,
    options: ReadOptions,
    report: _Refusals,
    checked: tuple[str, int] | None,
) -> ImportTally:
    total = checked[1] if checked else 0
    hashed, kept = _Hashed(source), ImportTally()
    try:
        with shell.progress("importing", "rows") as told:

            def on_batch(tally: ImportTally) -> None:
                nonlocal kept
                kept = tally
                told(tally.rows, total)

            tally = Exchange(node).ledger.import_entries(
                full,
                _told(read_batches(hashed, report.format, report, options=options), told, total),  # type: ignore[arg-type]  # as above
                actor=node.agency,
                form=report.format,
                on_batch=on_batch,
            )
    except KeyboardInterrupt as error:
        print(
            f"Interrupted. {kept.rows:,} rows are in and stay in. Run the same command again: it goes on from there.",
            file=sys.stderr,
        )
        raise typer.Exit(EXIT_INTERRUPTED) from error
    if checked and hashed.digest() != checked[0]:
        raise ConflictError(
            "the file changed between the check and the import", remedy="look at the set, then import the file again"
        )
    return tally


def _told(batches: Iterator[DraftBatch], told: Callable[[int, int], None], total: int) -> Iterator[DraftBatch]:
    rows = 0
    for number, batch in enumerate(batches):
        if number % TOLD_EVERY_BATCHES == 0:
            told(rows, total)
        rows += batch.n
        yield batch


@contextmanager
def _opened(file: Path, *, no_check: bool) -> Iterator[BinaryIO]:
    if str(file) == "-":
        if not no_check:
            raise ConfigError("standard input can be read only once", remedy="save it to a file, or add --no-check")
        yield sys.stdin.buffer
        return
    try:
        source = file.open("rb")
    except OSError as error:
        raise ConfigError(f"the file cannot be read: {error.strerror}") from error
    with source:
        if not source.seekable() and not no_check:
            raise ConfigError("this can be read only once", remedy="save it to a file, or add --no-check")
        yield source


def _recognised(source: BinaryIO) -> str:
    if not source.seekable():
        raise ConfigError("the format of a pipe cannot be recognised", remedy="name it with --format")
    head = source.read(SNIFF_BYTES)
    source.seek(0)
    found = sniff(head)
    if found is None:
        raise MalformedError(
            "the format of the file is not clear", remedy=f"name it with --format: {', '.join(READERS)}"
        )
    return found


@contextmanager
def _csv(path: Path | None) -> Iterator[TextIO | None]:
    if path is None:
        yield None
        return
    try:
        sink = path.open("w", encoding="utf-8", newline="")
    except OSError as error:
        raise ConfigError(f"the file for refused rows cannot be written: {error.strerror}") from error
    with sink:
        csv.writer(sink).writerow(["line", "field", "reason"])
        yield sink


def _log_refused(node: Node, full: str, report: _Refusals) -> None:
    """What was left out stands in the log as well: counts and reasons, no value."""
    details: dict[str, object] = {
        "set": full,
        "format": report.format,
        "refused": report.refused,
        "reasons": dict(report.reasons or {}),
    }
    event = node.event(EventKind.ROWS_REFUSED, actor=node.agency, subject=full, details=details)
    with node.store.transaction() as tx:
        tx.log.append([event])


def _show(shell: Shell, full: str, report: _Refusals, tally: ImportTally, refused_file: Path | None) -> None:
    value = {
        "set": full,
        "format": report.format,
        "read": report.read,
        "accepted": report.accepted,
        "refused": report.refused,
        "dropped_fields": dict(sorted(report.dropped_fields.items())),
        "added": tally.added,
        "updated": tally.updated,
        "unchanged": tally.unchanged,
        "repeated": tally.repeated,
        "never_again": tally.refused - tally.known_good,
        "never_again_rows": [_kept_out(one) for one in tally.refusals if one.kind != KNOWN_GOOD],
        "known_good": tally.known_good,
        "known_good_rows": [_kept_out(one) for one in tally.refusals if one.kind == KNOWN_GOOD],
        "refused_rows": [{"line": r.line, "field": r.field, "reason": r.reason} for r in report.refused_rows],
    }
    dropped = ", ".join(f"{plain(field)} ({count:,})" for field, count in sorted(report.dropped_fields.items()))
    shell.show(
        value,
        f"{bold(full)} from a {report.format} file: {amount(report.read, 'row')} read, {report.accepted:,} accepted, "
        f"{report.refused:,} refused.",
        f"  added {tally.added:,}, updated {tally.updated:,}, unchanged {tally.unchanged:,}, "
        f"repeated {tally.repeated:,}",
        *([f"  fields not carried: {dropped}"] if dropped else []),
        *_never_again_lines(tally),
        *_refused_lines(report.refused_rows, report.refused, refused_file),
    )


def _kept_out(one: Refusal) -> dict[str, object]:
    return {"row": one.row, "field": one.algorithm, "reason": REASONS[one.kind]}


def _never_again_lines(tally: ImportTally) -> list[str]:
    """Rows that were accepted as such, and must not come: the first few, by their place among the accepted ones."""
    counts = {"never again": tally.refused - tally.known_good, "known good": tally.known_good}
    lines = [
        f"  not taken: accepted row {one.row:,}, {one.algorithm}: {REASONS[one.kind]}"
        for one in tally.refusals[:SHOWN_REFUSALS]
    ]
    more = tally.refused - len(lines)
    rest = [f"  and {more:,} more; --json names the first {ImportTally.MAX_KEPT:,}"] if more else []
    return [*(f"  {why}: {amount(n, 'row')} not taken" for why, n in counts.items() if n), *lines, *rest]


def _refused_lines(rows: list[RefusedRow], count: int, refused_file: Path | None) -> list[str]:
    lines = [f"  refused: line {row.line}, {plain(row.field)}: {plain(row.reason)}" for row in rows[:SHOWN_REFUSALS]]
    if count > SHOWN_REFUSALS:
        rest = f"  and {count - SHOWN_REFUSALS:,} more"
        lines.append(rest + ("" if refused_file else "; --refused-file FILE lists them all"))
    if refused_file and count:
        lines.append(f"  every refused row is in {plain(str(refused_file))}")
    return lines
