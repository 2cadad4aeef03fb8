"""The casebook: the newest version of each case, its state, and when it has to go.

    inbox     something is missing that law and policy need, or a partner referred it and nobody has answered yet
    open      complete and worked on; it may be referred
    closed    the work on it is over; it is kept until its time is over, and goes nowhere any more
    declined  a partner referred it, and we said no: its content is gone
    erased    its time was over, or it was taken back: its content is gone

A case past its review date raises an alarm (`alarms`): a person looks at it and states a new date (`complete`). Where
nobody did for `case_erase_days`, it is erased, as a copy that nobody needs. What a partner referred goes at the latest
when the duty under which it came says so. A legal hold keeps it in any case.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Protocol

from gateway.audit import EventKind
from gateway.caserecord import CASE_GROUPS, CaseRecord, Contact, Urgency
from gateway.errors import ConflictError, DeniedError, GatewayError, MalformedError
from gateway.keylife import DAY_SECONDS
from gateway.model import HandlingCode, Purpose, Restriction
from gateway.node import Node
from gateway.partners import length_prefixed
from gateway.store import Transaction
from gateway.store.tables import CaseRow
from gateway.vidx import CaseReport, dump_case, parse_case

ID_BYTES = 16
_MARK = "case mark 1"
_WHOLE = frozenset(CASE_GROUPS)


class CaseState(StrEnum):
    """Where a case stands."""

    INBOX = "inbox"
    OPEN = "open"
    CLOSED = "closed"
    DECLINED = "declined"
    ERASED = "erased"


HELD = (CaseState.INBOX, CaseState.OPEN, CaseState.CLOSED)


@dataclass(frozen=True, slots=True)
class HeldCase:
    """A case with its report, opened."""

    row: CaseRow
    report: CaseReport

    @property
    def record(self) -> CaseRecord:
        """What the report says."""
        return self.report.record


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of one record: `outcome` is "new", "newer" or "known"."""

    case: str
    outcome: str
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Statements:
    """What a person states of a case. None: nothing is stated of it."""

    handling: HandlingCode | None = None
    category: str | None = None
    evaluation: str | None = None
    legal_basis: str | None = None
    purpose: Purpose | None = None
    review_on: date | None = None
    contact: Contact | None = None

    def given(self) -> dict[str, object]:
        """What is stated, by the record's own names."""
        named = ((one.name, getattr(self, one.name)) for one in fields(self))
        return {name: value for name, value in named if value is not None}


class Follower(Protocol):
    """Who is told of what changes in the casebook, within the deed that changes it."""

    def changed(self, tx: Transaction, row: CaseRow, report: CaseReport) -> None:
        """A known case has another report now."""

    def ended(self, tx: Transaction, row: CaseRow) -> None:
        """A case is closed, or its content is gone."""


class Casebook:
    """The cases of one gateway."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.follower: Follower | None = None

    # Looking

    def get(self, identifier: str) -> HeldCase:
        """A case by its id or the beginning of it, opened.

        Raises:
            NotFoundError: there is none.
            ConflictError: its content is gone.
        """
        with self._node.store.reading() as tx:
            return self.open(tx.cases.beginning(identifier))

    def open(self, row: CaseRow) -> HeldCase:
        """A row that is held, opened."""
        if row.state not in HELD:
            raise ConflictError(
                "the content of this case is gone", remedy="`gateway case list` names the state of each"
            )
        raw = self._node.keystore.master_key.open(row.sealed_report, _context(row))
        return HeldCase(row, parse_case(raw, drafts=not row.source))

    def all(self, states: Sequence[CaseState] = ()) -> list[CaseRow]:
        """The cases in some states, or all: those in which a child is at risk first, then the oldest."""
        with self._node.store.reading() as tx:
            return tx.cases.all(map(str, states))

    def inbox(self) -> list[CaseRow]:
        """What waits for a person, urgent first."""
        return self.all((CaseState.INBOX,))

    # Our own

    def take_in(self, records: Sequence[CaseRecord], *, form: str, update: bool = False) -> list[Taken]:
        """Records of our own case system are kept, all or none.

        Args:
            form: the format that they came in.
            update: they are newer versions of cases that are known. A field that law needs and that the newer version
                does not state keeps what was stated for the case before.

        Raises:
            DeniedError: a record is another agency's.
            ConflictError: a record is older than what is held, or says something else under the same version; of an
                update: the case is not known. Without `update`: a newer version of a known case.
        """
        with self._node.store.transaction() as tx:
            return [self._take(tx, number, one, form, update) for number, one in enumerate(records, 1)]

    def _take(self, tx: Transaction, number: int, record: CaseRecord, form: str, update: bool) -> Taken:
        place = f"case {number}"
        if record.originator != self._node.agency:
            raise DeniedError("a file brings in our own cases only", place=place, remedy="a partner's come by referral")
        row = tx.cases.known(self.mark(record.originator, record.reference))
        if row is None:
            if update:
                raise ConflictError(
                    "there is no such case to update", place=place, remedy="`gateway case import` first"
                )
            return self._begin(tx, record, form)
        held = self.open(row) if row.state in HELD else None
        _check_newer(held, row, record, place, update=update)
        if held is not None and record.version == row.version:
            return Taken(row.id, "known", tuple(row.missing.split()))
        if held is not None:
            record = _as_stated_before(record, held.record)
        self.put(tx, row, CaseReport(record, _WHOLE), deed="updated", details={"format": form})
        return Taken(row.id, "newer", tuple(row.missing.split()))

    def _begin(self, tx: Transaction, record: CaseRecord, form: str) -> Taken:
        row = self.new_row(record)
        self.put(tx, row, CaseReport(record, _WHOLE), deed="imported", details={"format": form})
        return Taken(row.id, "new", tuple(row.missing.split()))

    def complete(self, identifier: str, statements: Statements) -> HeldCase:
        """A person has stated what was missing, or a new review date; returns the case as it is then.

        Raises:
            DeniedError: the case is another agency's, whose word alone it is.
            ConflictError: something else was stated already, by the case system or by a person.
        """
        stated = statements.given()
        if not stated:
            raise MalformedError("nothing is stated", remedy="`gateway case inbox` names what is missing")
        with self._node.store.transaction() as tx:
            held = self.open(tx.cases.beginning(identifier))
            if held.row.source:
                raise DeniedError("only its originator states this of a case", remedy="ask it: `gateway case ask`")
            for name in stated.keys() - {"review_on"}:
                if getattr(held.record, name):
                    raise ConflictError(f"{name} is stated already", remedy="change it in your case system, and update")
            record = replace(held.record, **stated)  # type: ignore[arg-type]  # each of its own field's type
            details: dict[str, object] = {"stated": sorted(stated)}
            report = CaseReport(record, held.report.groups)
            self.put(tx, held.row, report, deed="completed", details=details)
            return HeldCase(held.row, report)

    def close(self, identifier: str) -> CaseRow:
        """The work on a case is over: it goes nowhere any more."""
        with self._node.store.transaction() as tx:
            row = tx.cases.beginning(identifier)
            if row.state not in (CaseState.OPEN, CaseState.INBOX):
                raise ConflictError(f"the case is {row.state} already")
            self.change(tx, row, CaseState.CLOSED, deed="closed")
            return row

    def reopen(self, identifier: str) -> CaseRow:
        """The work on a closed case goes on."""
        with self._node.store.transaction() as tx:
            row = tx.cases.beginning(identifier)
            if row.state != CaseState.CLOSED:
                raise ConflictError(f"the case is {row.state}, not closed")
            self.change(tx, row, CaseState.INBOX if row.missing else CaseState.OPEN, deed="reopened")
            return row

    # What every deed does

    def new_row(self, record: CaseRecord, source: str = "", keep_until: int = 0) -> CaseRow:
        """The row of a case that is not known yet."""
        now = self._node.clock()
        return CaseRow(
            id=self._node.random.bytes(ID_BYTES).hex(),
            mark=self.mark(record.originator, record.reference, source),
            originator=record.originator,
            source=source,
            state="",
            version=0,
            urgency="",
            victim_status="",
            groups="",
            keep_until=keep_until,
            arrived=now,
            changed=now,
        )

    def put(
        self,
        tx: Transaction,
        row: CaseRow,
        report: CaseReport,
        *,
        deed: str,
        details: dict[str, object],
        urgency: Urgency | None = None,
    ) -> CaseRow:
        """The case is from now on as the report says, on record.

        Args:
            urgency: how urgent it is here, where not as the report says.
        """
        record, known = report.record, bool(row.state)
        row.version, row.victim_status = record.version, str(record.victim_status)
        row.urgency = str(urgency or record.urgency)
        row.groups = " ".join(sorted(report.groups))
        row.missing = " ".join(report.missing)
        row.review_on = record.review_on.isoformat() if record.review_on else ""
        row.changed = self._node.clock()
        row.state = str(_state_after(row))
        raw = dump_case(record, report.groups if row.source else None)
        row.sealed_report = self._node.keystore.master_key.seal(raw, _context(row), self._node.random)
        if known:
            tx.cases.replace(row)
        else:
            tx.cases.add(row)
        told = {"version": row.version, "state": row.state, "missing": len(row.missing.split()), **details}
        self.log(tx, row, deed, told)
        if known and self.follower is not None:
            self.follower.changed(tx, row, report)
        return row

    def change(self, tx: Transaction, row: CaseRow, state: CaseState, *, deed: str) -> None:
        """The case stands elsewhere from now on, on record. What is not held any more loses its content."""
        row.state, row.changed = str(state), self._node.clock()
        if state not in HELD:
            # The reference may come again as a new case; nothing here tells that it was this one.
            row.mark, row.sealed_report, row.missing = bytes.fromhex(row.id), b"", ""
            row.urgency, row.victim_status, row.review_on = "", "", ""
        tx.cases.replace(row)
        self.log(tx, row, deed, {"version": row.version, "state": row.state})
        if state not in HELD:
            tx.cases.drop_drafts(row.id)
        if state not in (CaseState.INBOX, CaseState.OPEN) and self.follower is not None:
            self.follower.ended(tx, row)

    def log(self, tx: Transaction, row: CaseRow, deed: str, details: dict[str, object]) -> int:
        """A deed on a case is on record under its local id; returns the leaf."""
        told = {"case": row.id, "deed": deed, **details}
        event = self._node.event(EventKind.CASE_CHANGED, actor=self._node.agency, subject=row.id, details=told)
        return tx.log.append([event])

    def mark(self, originator: str, reference: str, source: str = "") -> bytes:
        """The keyed mark by which a case is found again. What two partners referred are two cases: neither can change
        what the other sent, nor learn that it did, nor touch our own."""
        return self._node.keystore.row_mac(length_prefixed(_MARK, originator, reference, source))

    # Its end

    def keep_house(self) -> int:
        """What is past its time is erased, each on record; returns how many cases."""
        with self._node.store.reading() as tx:
            if not self._over(tx):
                return 0
        with self._node.store.transaction() as tx:
            over = self._over(tx)
            for row in over:
                self.change(tx, row, CaseState.ERASED, deed="erased")
        self._node.store.scrub()
        return len(over)

    def _over(self, tx: Transaction) -> list[CaseRow]:
        now, day = self._node.clock(), self._node.today.isoformat()
        rows = tx.cases.past(map(str, HELD), day, now)
        return [row for row in rows if 0 < erased_on(row, self._erase_days) <= now and self._may_go(row)]

    def _may_go(self, row: CaseRow) -> bool:
        """Whether the sealed report bears out what the row says of its end, and no legal hold keeps it.

        What cannot be opened is kept, for people to look at, and keeps nothing else waiting.
        """
        try:
            record = self.open(row).record
        except GatewayError:
            return False
        held = Restriction.LEGAL_HOLD in record.restrictions
        return not held and row.review_on == (record.review_on.isoformat() if record.review_on else "")

    @property
    def _erase_days(self) -> int:
        return self._node.settings.case_erase_days


def erased_on(row: CaseRow, erase_days: int) -> int:
    """When a case goes if nobody does anything, in Unix seconds; 0 for never."""
    ends = [row.keep_until] if row.keep_until else []
    if row.review_on:
        ends.append(review_at(row) + erase_days * DAY_SECONDS)
    return min(ends, default=0)


def review_at(row: CaseRow) -> int:
    """When the review date of a case has passed, in Unix seconds: the day itself is included."""
    try:
        day = date.fromisoformat(row.review_on)
    except ValueError:
        return 1  # nobody here wrote that: somebody has to look
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) + DAY_SECONDS


def _state_after(row: CaseRow) -> CaseState:
    """Where a case stands with a new report: closed stays closed, and what a partner referred waits for an answer."""
    if row.state == CaseState.CLOSED:
        return CaseState.CLOSED
    unanswered = bool(row.source) and row.state in ("", CaseState.INBOX)
    return CaseState.INBOX if row.missing or unanswered else CaseState.OPEN


def _check_newer(held: HeldCase | None, row: CaseRow, record: CaseRecord, place: str, *, update: bool) -> None:
    if held is None:
        raise ConflictError(f"this case is {row.state} here", place=place)
    if record.version < row.version:
        raise ConflictError(f"an older version than the one held, which is {row.version}", place=place)
    if record.version == row.version and not _says_the_same(record, held.record):
        raise ConflictError("the same version with other content", place=place, remedy="give the change a new version")
    if record.version > row.version and not update:
        raise ConflictError("a newer version of a known case", place=place, remedy="`gateway case update` takes it")


def _says_the_same(record: CaseRecord, held: CaseRecord) -> bool:
    """Whether a record is the one held, as far as nobody has completed that."""
    complete = _as_stated_before(record, held)
    return dump_case(replace(complete, review_on=None)) == dump_case(replace(held, review_on=None))


def _as_stated_before(record: CaseRecord, held: CaseRecord) -> CaseRecord:
    """The record; what law needs of it and it does not state is as it was stated for the same case before."""
    return replace(record, **{name: getattr(held, name) for name in record.missing if getattr(held, name)})


def _context(row: CaseRow) -> str:
    """What the seal binds the report to: where it came from, under which duties, and until when."""
    return f"case {row.id} {row.version} {row.source} {row.keep_until} {row.obligations}"
