"""Assertions as they are kept: sealed whole, with columns beside them to search by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.cases.subjects import MAX_SUBJECT_BYTES, Subject
from gateway.crypto import canonical
from gateway.crypto.checkpoint import number_of_log
from gateway.errors import AuditBrokenError
from gateway.mailbox import GAP
from gateway.model import int_member, text_member
from gateway.node import Node, own_log
from gateway.statuses import Assertion, status_of
from gateway.store import Transaction
from gateway.store.tables import StatusLine


@dataclass(frozen=True, slots=True)
class Line:
    """An assertion with what belongs to it.

    `contact`: whom to call. `subject`: of ours, whom it is about. Times are Unix seconds: `received`, when it came
    here; `seen`, when a person looked at it (0: nobody yet). `met`: how many entries here it met when it came.
    """

    assertion: Assertion
    contact: str = ""
    subject: Subject | None = None
    received: int = 0
    met: int = 0
    seen: int = 0

    @property
    def id(self) -> str:
        """Its id."""
        return self.assertion.id


def put(node: Node, tx: Transaction, line: Line) -> None:
    """Keep an assertion, in place of its version before."""
    one = line.assertion
    content: dict[str, object] = {
        "assertion": {**_columns(one), "reason": one.reason},
        "contact": line.contact,
        "subject": line.subject.dump() if line.subject else {},
    }
    sealed = node.keystore.master_key.seal(canonical.encode(content), _context(one.agency, one.id), node.random)
    row = StatusLine(
        agency=one.agency,
        number=one.id,
        version=one.version,
        status=str(one.status),
        at=one.at,
        sealed=sealed,
        received=line.received or node.clock(),
        met=line.met,
        seen=line.seen,
    )
    tx.statuses.put(row)


def opened(node: Node, row: StatusLine) -> Line:
    """A stored assertion. AuditBrokenError: its row is not as this gateway wrote it."""
    raw = node.keystore.master_key.open(row.sealed, _context(row.agency, row.number))
    value = canonical.parse_canonical(raw, max_bytes=MAX_SUBJECT_BYTES)
    assert isinstance(value, dict), "this gateway sealed it"
    said, subject = value["assertion"], value["subject"]
    assert isinstance(said, dict)
    assert isinstance(subject, dict)
    one = _assertion(dict(said))
    if (one.agency, one.id, one.version, str(one.status), one.at) != (
        row.agency,
        row.number,
        row.version,
        row.status,
        row.at,
    ):
        raise AuditBrokenError("a stored assertion was altered")
    found = Subject.parse(subject) if subject else None
    return Line(one, text_member(dict(value), "contact"), found, row.received, row.met, row.seen)


def find(node: Node, tx: Transaction, agency: str, number: str) -> Line | None:
    """One assertion, or None."""
    row = tx.statuses.find(agency, number)
    return None if row is None else opened(node, row)


def next_version(node: Node, tx: Transaction, before: int) -> int:
    """The number of what we say next of something. A restored gateway says nothing under a number that it gave before:
    those of its log N begin with (N - 1) × `GAP` + 1, as its messages do."""
    return max(before, (number_of_log(own_log(node, tx).name) - 1) * GAP) + 1


def _assertion(said: Mapping[str, object]) -> Assertion:
    members = dict(said)
    return Assertion(
        text_member(members, "agency"),
        text_member(members, "id"),
        int_member(members, "version"),
        status_of(text_member(members, "status")),
        int_member(members, "at"),
        text_member(members, "reason"),
    )


def _columns(one: Assertion) -> dict[str, object]:
    return {"agency": one.agency, "id": one.id, "version": one.version, "status": str(one.status), "at": one.at}


def _context(agency: str, number: str) -> str:
    return f"status of {agency} {number}"
