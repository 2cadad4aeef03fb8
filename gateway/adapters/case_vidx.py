"""The case report itself as a file, in and out: one case a file, whole.

A report that holds only some field groups is not read here: what was withheld would read as "none". Such a report came
from a partner, and stays what it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import BinaryIO

from gateway.adapters.caserows import CaseOptions
from gateway.caserecord import CASE_GROUPS, CaseRecord
from gateway.errors import MalformedError
from gateway.model import AdapterReport
from gateway.vidx import MAX_CASE_BYTES, dump_case, parse_case


def read(source: BinaryIO, report: AdapterReport, _options: CaseOptions) -> Iterator[CaseRecord]:
    """The one case of a `vidx 1.0` file, a draft too."""
    raw = b""
    while len(raw) <= MAX_CASE_BYTES and (piece := source.read(MAX_CASE_BYTES + 1 - len(raw))):
        raw += piece
    found = parse_case(raw, drafts=True)
    withheld = [group for group in CASE_GROUPS if group not in found.groups]
    if withheld:
        raise MalformedError(
            f"the report holds only a part of its case, without {', '.join(withheld)}",
            remedy="ask its sender for the rest; what is withheld must not read as none",
        )
    report.read += 1
    report.accepted += 1
    yield found.record


def write(cases: Iterable[CaseRecord], report: AdapterReport) -> Iterator[bytes]:
    """The case as its canonical bytes; one that lacks what a report needs as a draft."""
    for record in cases:
        report.read += 1
        if report.accepted:
            raise MalformedError("a case report holds one case", remedy="write them as JSON, or one at a time")
        report.accepted += 1
        yield dump_case(record)
