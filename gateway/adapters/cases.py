"""Outside formats of cases, in and out: a binary stream becomes case records, one file of this package per format.

The rules are those of hashes (`gateway.adapters`) and of `caserows`: a bad case is refused by itself, a bad file whole;
nothing is guessed, nothing is lost silently; no imagery and no path to it passes.

To add a format: a module with `read(source, report, options)` or `write(cases, report)` or both, its name in
`CASE_READERS` and `CASE_WRITERS`, its look in `_LOOKS`.

    report = AdapterReport("case_json")
    records = list(read_cases(source, "case_json", report))
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO

from gateway.adapters import (
    case_csv,
    case_json,
    case_vidx,
    hotline,
    stixcasein,
    stixcaseout,
    ucocasein,
    ucocaseout,
    vicscases,
)
from gateway.adapters.caserows import CaseOptions
from gateway.adapters.rows import UTF8_BOM
from gateway.caserecord import CaseRecord
from gateway.errors import MalformedError
from gateway.model import AdapterReport
from gateway.vidx import NAMESPACE

__all__ = ["CASE_READERS", "CASE_WRITERS", "SNIFF_BYTES", "CaseOptions", "read_cases", "sniff_cases", "write_cases"]

SNIFF_BYTES = 4096  # as many first bytes as `sniff_cases` looks at

CaseReader = Callable[[BinaryIO, AdapterReport, CaseOptions], Iterator[CaseRecord]]
CaseWriter = Callable[[Iterable[CaseRecord], AdapterReport], Iterator[bytes]]

CASE_READERS: dict[str, CaseReader] = {
    "case_csv": case_csv.read,
    "case_json": case_json.read,
    "case_uco": ucocasein.read,
    "hotline": hotline.read,
    "stix": stixcasein.read,
    "vics": vicscases.read,
    "vidx": case_vidx.read,
}
CASE_WRITERS: dict[str, CaseWriter] = {
    "case_json": case_json.write,
    "case_uco": ucocaseout.write,
    "stix": stixcaseout.write,
    "vidx": case_vidx.write,
}


def _is_case_csv(text: str) -> bool:
    names = {name.strip().strip('"') for name in text.lstrip().partition("\n")[0].split(case_csv.DELIMITER)}
    return {"originator", "reference", "version"} <= names


# How a file of each format begins.
_LOOKS: dict[str, Callable[[str], object]] = {
    "case_csv": _is_case_csv,
    "case_json": re.compile(r'\s*\{\s*"format"\s*:\s*"case-json ').match,
    "case_uco": re.compile(r'\s*\{\s*"@context"\s*:(?=[\s\S]*https://ontology\.caseontology\.org/case/)').match,
    "hotline": re.compile(r"\s*(?:<\?xml[^>]*>\s*)?<reports?\b[\s\S]*<(?:reportId|incidentSummary|reporter)>").match,
    "stix": re.compile(r'\s*\{\s*"type"\s*:\s*"bundle"').match,
    "vics": re.compile(r'\s*\{\s*"@odata\.context"\s*:\s*"[^"]*/ProjectVic/DataModels/[^"]*#Cases"').match,
    "vidx": re.compile(rf"\s*(?:<\?xml[^>]*>\s*)?<[^>]*[\"']{re.escape(NAMESPACE)}[\"']").match,
}


def read_cases(
    source: BinaryIO, format_name: str, report: AdapterReport, *, options: CaseOptions | None = None
) -> Iterator[CaseRecord]:
    """The cases in the source as they are read; the report is complete when the iterator ends.

    Args:
        source: read once, forwards, never past its end.
        format_name: a key of `CASE_READERS`.
        report: filled while the cases stream.
        options: what the user says where the file does not.

    Raises:
        MalformedError: the format is unknown (at once), or the file is refused whole (while iterating).
        OSError: the source cannot be read on (while iterating).
    """
    reader = CASE_READERS.get(format_name)
    if reader is None:
        raise MalformedError("the format is not known", remedy=f"the formats are {', '.join(CASE_READERS)}")
    return reader(source, report, options or CaseOptions())


def write_cases(cases: Iterable[CaseRecord], format_name: str, report: AdapterReport) -> Iterator[bytes]:
    """A file of these cases, piece by piece; the report counts what the format cannot carry.

    Raises:
        MalformedError: the format is unknown or not written (at once), or cannot hold the cases (while iterating).
    """
    writer = CASE_WRITERS.get(format_name)
    if writer is None:
        raise MalformedError("the format is not written", remedy=f"these are: {', '.join(CASE_WRITERS)}")
    return writer(cases, report)


def sniff_cases(head: bytes) -> str | None:
    """The format of a file that begins so; None where that leaves a doubt, for then the user must say.

    Args:
        head: the first `SNIFF_BYTES` of the file, or the whole of a shorter one.
    """
    text = head[:SNIFF_BYTES].removeprefix(UTF8_BOM).decode("utf-8", "replace")
    found = [name for name, looks in _LOOKS.items() if looks(text)]
    return found[0] if len(found) == 1 else None
