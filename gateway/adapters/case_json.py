"""Our own JSON for cases, `contracts/case-json-1.md`: the form in which a person writes or corrects a case. In and out.

Rules:
- One object: `format`, which names this contract, then `cases`, a list. Members of a case are the record's names.
- A member that is not known refuses its case: a misspelt name must not lose what stands under it.
- Nothing is lost either way: a case that is written and read again is equal.
- In the report `line` is the number of the case in the list, from 1. Faults of the file name case and line.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from functools import partial
from typing import BinaryIO

from gateway.adapters.caseparts import from_plain, to_plain
from gateway.adapters.caserows import CaseOptions, take
from gateway.adapters.jsonrows import Window, records
from gateway.adapters.rows import WHOLE_ROW, refusal
from gateway.caserecord import CaseRecord
from gateway.model import AdapterReport

FORMAT = "case-json 1"


def read(source: BinaryIO, report: AdapterReport, _options: CaseOptions) -> Iterator[CaseRecord]:
    """The cases of a file after `contracts/case-json-1.md`."""
    window = Window(source)
    window.expect("{")
    if window.member_name() != "format" or window.value() != FORMAT:
        raise window.fault(f'the file does not begin with "format": "{FORMAT}"')
    window.expect(",")
    if window.member_name() != "cases":
        raise window.fault('no "cases" after the format')
    window.expect("[")
    for value in records(window):
        record = take(report, window.record, partial(_case, value, window.has_bad_byte()))
        if record is not None:
            yield record
    window.expect("}")
    if window.peek():
        raise window.fault("there is more after the end")


def write(cases: Iterable[CaseRecord], report: AdapterReport) -> Iterator[bytes]:
    """A file of these cases, piece by piece."""
    yield f'{{"format": "{FORMAT}", "cases": ['.encode()
    separator = "\n"
    for record in cases:
        report.read += 1
        report.accepted += 1
        yield (separator + json.dumps(to_plain(record), ensure_ascii=False, indent=2)).encode()
        separator = ",\n"
    yield b"\n]}\n"


def _case(value: object, has_bad_byte: bool) -> CaseRecord:
    if has_bad_byte:
        raise refusal(WHOLE_ROW, "is not UTF-8")
    return from_plain(value)
