"""What every reader of cases stands on: what the user says where the file does not; how a case is taken or refused.

Rules:
- A bad case is refused by itself and reported with its line or number, field and reason, never with a value.
- What the file does not state stays empty, and `missing` names it: no reader puts anything in its place. The one
  exception is the user's own word, in `CaseOptions`.
- A case that is taken can be kept: it fits into the bounds of `vidx 1.0`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from gateway.adapters.rows import WHOLE_ROW
from gateway.caserecord import CaseRecord
from gateway.errors import MalformedError
from gateway.model import AGENCY, AdapterReport, require
from gateway.vidx import dump_case


@dataclass(frozen=True, slots=True)
class CaseOptions:
    """What the user says where the file does not.

    Args:
        originator: the agency whose cases these are.
        category_scheme: the scheme of bare category numbers.
        read_at: Unix seconds; when a case without dates of its own counts as opened and updated here.
    """

    originator: str = ""
    category_scheme: str = ""
    read_at: int = 0

    def __post_init__(self) -> None:
        require(not self.originator or AGENCY.fullmatch(self.originator), "originator is not an agency code")
        fits = re.fullmatch(r"[A-Za-z0-9._-]{0,32}", self.category_scheme)
        require(fits, "category_scheme is not 1 to 32 letters, digits, dots, dashes and underscores")


def own_originator(options: CaseOptions) -> str:
    """Whose a case is that does not say it.

    Raises:
        MalformedError: the user has not said it either.
    """
    if not options.originator:
        raise MalformedError("whose case it is does not stand there", remedy="name the originator")
    return options.originator


def take(report: AdapterReport, line: int, build: Callable[[], CaseRecord]) -> CaseRecord | None:
    """The case that `build` makes of one row; None where it is refused, which is then reported.

    Args:
        report: counts it.
        line: of the row, or its number in a file that has no lines.
        build: raises MalformedError to refuse the row; `place` is the field.
    """
    report.read += 1
    try:
        record = build()
        dump_case(record)
    except MalformedError as error:
        report.refuse(line, error.place or WHOLE_ROW, error.message)
        return None
    report.accepted += 1
    return record
