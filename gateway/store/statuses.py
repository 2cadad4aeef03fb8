"""Assertions about victims: what each speaks of, who was told; claims, merges of series, certificates."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy import func as sql

from gateway.errors import NotFoundError
from gateway.store.tables import (
    CaseThread,
    CertificateRow,
    ClaimRow,
    SeriesMerge,
    StatusLine,
    StatusMark,
    StatusMarkTable,
    StatusTold,
    columns,
)
from gateway.store.upserts import add_new, put

LINE = columns(StatusLine)
MARK = columns(StatusMarkTable)
TOLD = columns(StatusTold)
CLAIM = columns(ClaimRow)
THREAD = columns(CaseThread)
MERGE = columns(SeriesMerge)
CERTIFICATE = columns(CertificateRow)
MARKS_AT_ONCE = 500  # of one question: far below what a database takes as parameters


class Statuses:
    """Who says what of whom."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    # Assertions

    def put(self, row: StatusLine) -> None:
        """Keep an assertion, in place of its version before."""
        put(self._connection, StatusLine, row.model_dump())

    def find(self, agency: str, number: str) -> StatusLine | None:
        """One assertion, or None."""
        query = select(*LINE).where(LINE.agency == agency, LINE.number == number)
        row = self._connection.execute(query).one_or_none()
        return None if row is None else StatusLine(**row._mapping)

    def beginning(self, prefix: str) -> StatusLine:
        """The one assertion whose id begins so."""
        query = select(*LINE).where(LINE.number.startswith(prefix, autoescape=True)).limit(2)
        found = [StatusLine(**row._mapping) for row in self._connection.execute(query)]
        if len(found) != 1:
            raise NotFoundError("no such assertion", remedy="`gateway status list` names them")
        return found[0]

    def all(self, agency: str = "") -> list[StatusLine]:
        """Every assertion, or those of one agency, the newest first."""
        query = select(*LINE).order_by(LINE.received.desc(), LINE.agency, LINE.number)
        if agency:
            query = query.where(LINE.agency == agency)
        return [StatusLine(**row._mapping) for row in self._connection.execute(query)]

    def unseen(self, own: str) -> int:
        """How many assertions of others than `own` nobody here has looked at."""
        query = select(sql.count()).select_from(StatusLine).where(LINE.agency != own, LINE.seen == 0)
        return int(self._connection.execute(query).scalar_one())

    def count(self, agency: str) -> int:
        """How many assertions of an agency there are."""
        query = select(sql.count()).select_from(StatusLine).where(LINE.agency == agency)
        return int(self._connection.execute(query).scalar_one())

    def note_seen(self, agency: str, number: str, now: int) -> None:
        """A person has looked at it."""
        self._connection.execute(
            update(StatusLine).where(LINE.agency == agency, LINE.number == number).values(seen=now)
        )

    # Marks

    def add_marks(self, rows: Iterable[StatusMark]) -> int:
        """Add what an assertion speaks of; returns how many of it are new."""
        return sum(add_new(self._connection, StatusMarkTable, row.model_dump()) for row in rows)

    def marks(self, agency: str, number: str) -> list[StatusMark]:
        """What an assertion speaks of."""
        query = select(*MARK).where(MARK.agency == agency, MARK.number == number).order_by(MARK.kind, MARK.mark)
        return [StatusMark(**row._mapping) for row in self._connection.execute(query)]

    def meeting(self, marks: Collection[bytes]) -> Iterator[tuple[bytes, str, str]]:
        """(mark, agency, id) of every assertion that speaks of one of these."""
        wanted = sorted(set(marks))
        for start in range(0, len(wanted), MARKS_AT_ONCE):
            some = wanted[start : start + MARKS_AT_ONCE]
            query = select(MARK.mark, MARK.agency, MARK.number).where(MARK.mark.in_(some))
            for row in self._connection.execute(query.order_by(MARK.mark, MARK.agency, MARK.number)):
                yield bytes(row[0]), row[1], row[2]

    def asserted(self, agency: str, marks: Collection[bytes]) -> Iterator[tuple[bytes, StatusLine]]:
        """(mark, assertion) of every assertion of one agency that speaks of one of these: so many questions to the
        database as there are marks, whatever it holds."""
        wanted = sorted(marks)
        of = (LINE.agency == MARK.agency) & (LINE.number == MARK.number)
        for start in range(0, len(wanted), MARKS_AT_ONCE):
            some = wanted[start : start + MARKS_AT_ONCE]
            query = select(MARK.mark, *LINE).join(StatusLine, of).where(MARK.mark.in_(some), MARK.agency == agency)
            for row in self._connection.execute(query.order_by(MARK.mark, MARK.number)):
                yield bytes(row[0]), StatusLine(**dict(zip(LINE.keys(), row[1:], strict=True)))

    def marks_of_statuses(self, statuses: Collection[str]) -> list[bytes]:
        """Every mark of assertions with one of these statuses."""
        query = select(MARK.mark).join(StatusLine, (LINE.agency == MARK.agency) & (LINE.number == MARK.number))
        found = self._connection.execute(query.where(LINE.status.in_(sorted(statuses))).distinct())
        return [bytes(row[0]) for row in found]

    # Who was told

    def put_told(self, row: StatusTold) -> None:
        """Note what a partner was told of an assertion of ours, or what it answered."""
        put(self._connection, StatusTold, row.model_dump())

    def told(self, number: str) -> list[StatusTold]:
        """Who was told of an assertion of ours."""
        query = select(*TOLD).where(TOLD.number == number).order_by(TOLD.partner)
        return [StatusTold(**row._mapping) for row in self._connection.execute(query)]

    def outstanding(self) -> list[StatusTold]:
        """Who has not answered yet that it searches again, what is due first first."""
        query = select(*TOLD).where(TOLD.due > 0, TOLD.answered == 0).order_by(TOLD.due, TOLD.number, TOLD.partner)
        return [StatusTold(**row._mapping) for row in self._connection.execute(query)]

    def case_partners(self, case: str) -> list[str]:
        """Partners with whom a case was shared."""
        query = select(THREAD.partner).where(THREAD.case_id == case).distinct().order_by(THREAD.partner)
        return [str(row[0]) for row in self._connection.execute(query)]

    # Claims

    def put_claim(self, row: ClaimRow) -> None:
        """Keep a claim conflict as it stands."""
        put(self._connection, ClaimRow, row.model_dump())

    def claim(self, number: str, partner: str) -> ClaimRow | None:
        """One conflict with a partner, or None."""
        query = select(*CLAIM).where(CLAIM.id == number, CLAIM.partner == partner)
        row = self._connection.execute(query).one_or_none()
        return None if row is None else ClaimRow(**row._mapping)

    def claims(self, prefix: str = "") -> list[ClaimRow]:
        """Every conflict, or those whose id begins so, the newest first."""
        query = select(*CLAIM).where(CLAIM.id.startswith(prefix, autoescape=True))
        rows = self._connection.execute(query.order_by(CLAIM.at.desc(), CLAIM.id, CLAIM.partner))
        return [ClaimRow(**row._mapping) for row in rows]

    # Series

    def put_merge(self, row: SeriesMerge) -> None:
        """Keep a merge of series as it stands."""
        put(self._connection, SeriesMerge, row.model_dump())

    def drop_merge(self, number: str) -> None:
        """Forget a merge that nobody signed."""
        self._connection.execute(delete(SeriesMerge).where(MERGE.id == number))

    def merges(self, prefix: str = "") -> list[SeriesMerge]:
        """Every merge of series, or those whose id begins so, the newest first."""
        query = select(*MERGE).where(MERGE.id.startswith(prefix, autoescape=True))
        rows = self._connection.execute(query.order_by(MERGE.at.desc(), MERGE.id))
        return [SeriesMerge(**row._mapping) for row in rows]

    # Certificates

    def add_certificate(self, row: CertificateRow) -> None:
        """Keep a certificate that was issued."""
        self._connection.execute(insert(CertificateRow), [row.model_dump()])

    def revoke_certificate(self, number: str, now: int, sealed: bytes) -> None:
        """Keep the statement that a certificate says the truth no more."""
        where = (CERTIFICATE.id == number, CERTIFICATE.revoked == 0)
        self._connection.execute(update(CertificateRow).where(*where).values(revoked=now, sealed_revocation=sealed))

    def certificates(self, prefix: str = "", *, of: Sequence[str] = ()) -> list[CertificateRow]:
        """Certificates whose id begins so, or of these assertions, the newest first."""
        query = select(*CERTIFICATE).where(CERTIFICATE.id.startswith(prefix, autoescape=True))
        if of:
            query = query.where(CERTIFICATE.number.in_(of))
        rows = self._connection.execute(query.order_by(CERTIFICATE.issued.desc(), CERTIFICATE.id))
        return [CertificateRow(**row._mapping) for row in rows]
