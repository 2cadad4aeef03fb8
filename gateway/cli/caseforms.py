"""Files of cases: from one form into another, and whether one is as its contract says. No gateway is needed for it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from gateway.adapters.cases import (
    CASE_READERS,
    CASE_WRITERS,
    SNIFF_BYTES,
    CaseOptions,
    read_cases,
    sniff_cases,
    write_cases,
)
from gateway.caserecord import CASE_GROUPS, CaseRecord
from gateway.cli.people import read_file
from gateway.cli.shell import Shell, amount, command, plain
from gateway.errors import ConfigError, MalformedError
from gateway.model import AdapterReport
from gateway.newfile import new_file
from gateway.vidx import MAX_CASE_BYTES, dump_case, parse_case

SHOWN = 20  # refused cases, and cases that lack something, on the terminal; --json tells all that are kept
REPORT = "vidx"

File = Annotated[Path, typer.Argument(metavar="FILE", help="A file of cases.")]
From = Annotated[str, typer.Option("--from", help=f"One of {', '.join(CASE_READERS)}; else it is recognised.")]
Originator = Annotated[str, typer.Option(metavar="AGENCY", help="Whose cases these are, where the file does not say.")]
Scheme = Annotated[str, typer.Option(help="The scheme of bare category numbers.")]


def register(app: typer.Typer) -> None:
    """Add these commands to those of `gateway case`."""
    command(app, "convert")(case_convert)
    command(app, "validate")(case_validate)


def case_convert(
    shell: Shell,
    *,
    file: File,
    into: Annotated[Path, typer.Argument(metavar="INTO", help="The new file.")],
    target: Annotated[str, typer.Option("--to", help=f"One of {', '.join(CASE_WRITERS)}.")],
    form: From = "",
    originator: Originator = "",
    category_scheme: Scheme = "",
) -> None:
    """Write the cases of a file in another form. What the new form cannot carry is named; nothing is filled in."""
    options = CaseOptions(originator, category_scheme, int(time.time()))
    wants: list[dict[str, object]] = []
    with _opened(file) as source:
        read = AdapterReport(_form(source, form))
        written = AdapterReport(target)
        try:
            with new_file(into, "file") as sink:
                cases = _watched(read_cases(source, read.format, read, options=options), wants)
                for piece in write_cases(cases, target, written):
                    sink.write(piece)
                if not read.accepted:
                    raise MalformedError("the file holds no case that could be taken")
        except MalformedError:
            _note(shell, read)
            raise
    told = {"file": str(into), **_value(read), "missing": wants, "lost": _dropped(written)}
    shell.show(told, f"Written: {amount(written.accepted, 'case')}, as {target}.")
    if not shell.as_json:
        _note(shell, read)
        for name, count in sorted(written.dropped_fields.items()):
            shell.note(f"Lost in {target}: {plain(name)}, {amount(count, 'value')}.")
        _note_missing(shell, wants)


def case_validate(
    shell: Shell,
    *,
    file: File,
    form: From = "",
    originator: Originator = "",
    category_scheme: Scheme = "",
) -> None:
    """Check a case report, or a file of cases, against its contract. Exit 0 says that nothing in it is refused."""
    with _opened(file) as source:
        found = _form(source, form)
        if found != REPORT:
            _validate_file(shell, source, found, CaseOptions(originator, category_scheme, int(time.time())))
            return
    raw = read_file(file, MAX_CASE_BYTES)
    report = parse_case(raw, drafts=True)
    groups = [str(group) for group in CASE_GROUPS if group in report.groups]
    is_canonical = dump_case(report.record, None if report.missing else report.groups) == raw
    value = {"format": REPORT, "draft": bool(report.missing), "missing": list(report.missing), "groups": groups}
    lines = ["A draft of a case: it goes nowhere yet." if report.missing else "A case report, complete."]
    lines.append(f"  field groups  {', '.join(groups)}")
    if report.missing:
        lines.append(f"  missing       {', '.join(report.missing)}")
    lines.append(f"  canonical     {'yes' if is_canonical else 'no: convert it, and it is'}")
    shell.show({**value, "canonical": is_canonical}, *lines)


def _validate_file(shell: Shell, source: BinaryIO, form: str, options: CaseOptions) -> None:
    report, wants = AdapterReport(form), list[dict[str, object]]()
    for _ in _watched(read_cases(source, form, report, options=options), wants):
        pass
    shell.show({**_value(report), "missing": wants}, f"{amount(report.accepted, 'case')} as the contract says.")
    if not shell.as_json:
        _note(shell, report)
        _note_missing(shell, wants)
    if report.refused:
        raise MalformedError(f"{report.refused} of {amount(report.read, 'case')} would be refused")


def _watched(cases: Iterable[CaseRecord], wants: list[dict[str, object]]) -> Iterator[CaseRecord]:
    """The cases as they come; those that lack what law and policy need are put down by their number among them."""
    for number, record in enumerate(cases, 1):
        if record.missing:
            wants.append({"case": number, "missing": list(record.missing)})
        yield record


@contextmanager
def _opened(file: Path) -> Iterator[BinaryIO]:
    try:
        with file.open("rb") as source:
            yield source
    except OSError as error:
        raise ConfigError(f"the file cannot be read: {error.strerror}", place="FILE") from error


def _form(source: BinaryIO, form: str) -> str:
    """What the user says, or the file's beginning; the source then stands at its start."""
    if form and form not in CASE_READERS:
        raise MalformedError("the format is not known", remedy=f"the formats are {', '.join(CASE_READERS)}")
    found = form or sniff_cases(source.read(SNIFF_BYTES))
    source.seek(0)
    if found is None:
        raise MalformedError(
            "the file's format is not recognised", remedy=f"name it with --from: {', '.join(CASE_READERS)}"
        )
    return found


def _value(report: AdapterReport) -> dict[str, object]:
    return {
        "format": report.format,
        "read": report.read,
        "accepted": report.accepted,
        "refused": [{"line": one.line, "field": one.field, "reason": one.reason} for one in report.refused_rows],
        "dropped": _dropped(report),
    }


def _dropped(report: AdapterReport) -> dict[str, int]:
    return dict(sorted(report.dropped_fields.items()))


def _note(shell: Shell, report: AdapterReport) -> None:
    """What became of the rest of a file."""
    for one in report.refused_rows[:SHOWN]:
        shell.note(f"Left out: {one.line}, {one.field}: {one.reason}.")
    if report.refused > SHOWN:
        shell.note(f"Left out: {report.refused - SHOWN:,} more.")
    for name, count in sorted(report.dropped_fields.items()):
        shell.note(f"Not carried: {plain(name)}, {amount(count, 'value')}.")


def _note_missing(shell: Shell, wants: list[dict[str, object]]) -> None:
    for one in wants[:SHOWN]:
        missing = one["missing"]
        assert isinstance(missing, list)
        shell.note(f"Not stated in case {one['case']}: {', '.join(missing)}.")
    if len(wants) > SHOWN:
        shell.note(f"Not stated in {len(wants) - SHOWN:,} more.")
