"""Cases: the newest version of each, sealed; beside it what must be searched without opening it."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, and_, case, delete, insert, or_, select, update
from sqlalchemy import func as sql

from gateway.errors import NotFoundError
from gateway.store.tables import CaseDraft, CaseLabel, CaseMessage, CaseRow, CaseThread, columns
from gateway.store.upserts import add_new, put

CASE = columns(CaseRow)
DRAFT = columns(CaseDraft)
LABEL = columns(CaseLabel)
MESSAGE = columns(CaseMessage)
THREAD = columns(CaseThread)
MIN_PREFIX_CHARS = 6  # of a case's id; fewer name too many
URGENT_FIRST = case({"child_at_risk": 0, "priority": 1}, value=CASE.urgency, else_=2)


class Cases:
    """Cases, the threads about them with their messages, and what waits for an approval."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, row: CaseRow) -> None:
        """Begin to keep a case."""
        self._connection.execute(insert(CaseRow), [row.model_dump()])

    def replace(self, row: CaseRow) -> None:
        """A case is from now on as this row says."""
        values = row.model_dump(exclude={"id"})
        self._connection.execute(update(CaseRow).where(CASE.id == row.id).values(**values))

    def find(self, identifier: str) -> CaseRow | None:
        """The case of this id, or None."""
        row = self._connection.execute(select(*CASE).where(CASE.id == identifier)).one_or_none()
        return None if row is None else CaseRow(**row._mapping)

    def known(self, mark: bytes) -> CaseRow | None:
        """The case whose originator and reference have this mark, or None."""
        row = self._connection.execute(select(*CASE).where(CASE.mark == mark)).one_or_none()
        return None if row is None else CaseRow(**row._mapping)

    def beginning(self, prefix: str) -> CaseRow:
        """The one case whose id begins so."""
        query = select(*CASE).where(CASE.id.startswith(prefix, autoescape=True)).limit(2)
        found = [CaseRow(**row._mapping) for row in self._connection.execute(query)]
        if len(found) != 1 or len(prefix) < MIN_PREFIX_CHARS:
            raise NotFoundError("no such case", remedy="`gateway case list` names them")
        return found[0]

    def all(self, states: Iterable[str] = ()) -> list[CaseRow]:
        """The cases in some states, or all: those in which a child is at risk first, then the oldest."""
        query = select(*CASE).order_by(URGENT_FIRST, CASE.arrived, CASE.id)
        wanted = list(states)
        if wanted:
            query = query.where(CASE.state.in_(wanted))
        return [CaseRow(**row._mapping) for row in self._connection.execute(query)]

    def urgencies(self, state: str) -> dict[str, int]:
        """How many cases are in a state, by how urgent they are."""
        query = select(CASE.urgency, sql.count()).where(CASE.state == state).group_by(CASE.urgency)
        return {str(urgency): int(count) for urgency, count in self._connection.execute(query)}

    def past(self, states: Iterable[str], day: str, now: int) -> list[CaseRow]:
        """The cases in some states whose review date is before a day, or that must go by now (Unix seconds)."""
        reviewed = and_(CASE.review_on != "", CASE.review_on < day)  # dates as text: they sort as days do
        kept = and_(CASE.keep_until != 0, CASE.keep_until <= now)
        query = select(*CASE).where(CASE.state.in_(list(states)), or_(reviewed, kept)).order_by(CASE.id)
        return [CaseRow(**row._mapping) for row in self._connection.execute(query)]

    # Threads and their messages

    def thread(self, partner: str, identifier: str) -> CaseThread | None:
        """The thread with a partner of this id, or None."""
        where = (THREAD.partner == partner, THREAD.id == identifier)
        row = self._connection.execute(select(*THREAD).where(*where)).one_or_none()
        return None if row is None else CaseThread(**row._mapping)

    def threads(self, case_id: str) -> list[CaseThread]:
        """The threads about a case, the oldest first."""
        query = select(*THREAD).where(THREAD.case_id == case_id).order_by(THREAD.created, THREAD.partner, THREAD.id)
        return [CaseThread(**row._mapping) for row in self._connection.execute(query)]

    def threads_in(self, states: Iterable[str]) -> list[CaseThread]:
        """The threads in some states, what is due first first."""
        query = select(*THREAD).where(THREAD.state.in_(list(states))).order_by(THREAD.due, THREAD.partner, THREAD.id)
        return [CaseThread(**row._mapping) for row in self._connection.execute(query)]

    def behind(self, side: str, states: Iterable[str]) -> list[tuple[str, str]]:
        """(case, partner) of the threads of a side and in some states whose report is older than the case."""
        older = and_(CASE.id == THREAD.case_id, CASE.version > THREAD.version)
        query = select(THREAD.case_id, THREAD.partner).where(THREAD.side == side, THREAD.state.in_(list(states)), older)
        return [(str(case_id), str(partner)) for case_id, partner in self._connection.execute(query)]

    def put_thread(self, row: CaseThread) -> None:
        """Begin a thread, or note where it stands now."""
        put(self._connection, CaseThread, row.model_dump())

    def messages(self, case_id: str) -> list[CaseMessage]:
        """What was said about a case, in the order of our log."""
        query = select(*MESSAGE).where(MESSAGE.case_id == case_id).order_by(MESSAGE.leaf)
        return [CaseMessage(**row._mapping) for row in self._connection.execute(query)]

    def put_message(self, row: CaseMessage) -> None:
        """Note a message, or that its words are erased."""
        put(self._connection, CaseMessage, row.model_dump())

    def worded(self, states: Iterable[str]) -> list[str]:
        """Cases in these states of which words of messages are still here."""
        query = select(CASE.id).where(CASE.state.in_(list(states)), CASE.id == MESSAGE.case_id, ~MESSAGE.blank)
        return [str(one) for one in self._connection.execute(query.distinct().order_by(CASE.id)).scalars()]

    # Labels and drafts

    def keep_label(self, digest: str, attributes: str) -> None:
        """Keep a label for as long as a decision about it may be made again."""
        add_new(self._connection, CaseLabel, {"digest": digest, "attributes": attributes})

    def label(self, digest: str) -> str | None:
        """A label by its digest, or None."""
        return self._connection.execute(select(LABEL.attributes).where(LABEL.digest == digest)).scalar()

    def put_draft(self, row: CaseDraft) -> None:
        """Keep what is laid before administrators, or note that they have approved it."""
        put(self._connection, CaseDraft, row.model_dump())

    def draft(self, digest: str) -> CaseDraft | None:
        """What was laid before administrators under a digest, or None."""
        row = self._connection.execute(select(*DRAFT).where(DRAFT.digest == digest)).one_or_none()
        return None if row is None else CaseDraft(**row._mapping)

    def drop_draft(self, digest: str) -> None:
        """Forget what was laid before administrators."""
        self._connection.execute(delete(CaseDraft).where(DRAFT.digest == digest))

    def drop_old_drafts(self, what: str, before: int) -> None:
        """Forget what was laid before administrators before a time (Unix seconds), and nobody can sign any more."""
        self._connection.execute(delete(CaseDraft).where(DRAFT.what == what, DRAFT.created < before))

    def drop_drafts(self, case_id: str) -> None:
        """Forget all of a case that was laid before administrators."""
        self._connection.execute(delete(CaseDraft).where(DRAFT.case_id == case_id))
