"""What agencies think of entries: words of our own and of partners, and what stock clients said of digests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, exists, select
from sqlalchemy import func as sql

from gateway.opinions import Count, Verdict, Word
from gateway.store.blocks import MAX_ASKED_AT_ONCE
from gateway.store.tables import AgencyOpinion, HashSet, OpinionAsker, OpinionCount, OpinionRow, columns, table
from gateway.store.upserts import put

OPINION = columns(OpinionRow)
WORD = columns(AgencyOpinion)
COUNT = columns(OpinionCount)
ASKER = columns(OpinionAsker)
SET = columns(HashSet)

AFFIRMATIVE = "affirmative"  # the verdict of a stock client that confirms; the other is negative

# Made once: every page that takes entries away asks these.
_OF_ENTRIES = WORD.entry_id.in_(bindparam("ids", expanding=True))
_WORDS = select(*WORD).where(WORD.set_id == bindparam("set_id"), _OF_ENTRIES).order_by(WORD.entry_id, WORD.agency)
_COUNTS = select(*COUNT).where(
    COUNT.set_id == bindparam("set_id"), COUNT.entry_id.in_(bindparam("ids", expanding=True))
)
_FORGET = [
    delete(model).where(
        columns(model).set_id == bindparam("of_set"), columns(model).entry_id.in_(bindparam("ids", expanding=True))
    )
    for model in (OpinionRow, AgencyOpinion, OpinionCount)
]


class Opinions:
    """Each agency's latest word on each entry, each partner's on each digest, and what hubs count."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    # Of stock clients

    def put(self, row: OpinionRow) -> None:
        """Keep a partner's word, in place of what it said before."""
        put(self._connection, OpinionRow, row.model_dump())

    def all(self, set_id: int | None = None) -> list[OpinionRow]:
        """Every opinion of stock clients, on one set or on all, the newest first."""
        query = select(*OPINION).order_by(OPINION.at.desc(), *_KEY)
        if set_id is not None:
            query = query.where(OPINION.set_id == set_id)
        return [OpinionRow(**row._mapping) for row in self._connection.execute(query)]

    def of(self, set_id: int, entry_ids: Sequence[int]) -> list[OpinionRow]:
        """Those on these entries of a set: a look-up by digest comes to them through what it finds."""
        query = select(*OPINION).where(OPINION.set_id == set_id).order_by(*_KEY)
        found = [self._connection.execute(query.where(OPINION.entry_id.in_(some))).all() for some in _pieces(entry_ids)]
        return [OpinionRow(**row._mapping) for rows in found for row in rows]

    # Words

    def join(self, set_id: int, words: Iterable[Word], sealed_text: bytes = b"") -> list[Word]:
        """Keep those of these words that are newer than what their agency said before; returns them."""
        said = list(words)
        ids = sorted({one.entry_id for one in said})
        known = {(one.entry_id, one.agency): one.rank for one in self.words(set_id, ids)}
        newer = {}
        for one in said:
            key = one.entry_id, one.agency
            if key not in known or one.rank > known[key]:
                known[key], newer[key] = one.rank, one
        rows = [_row(set_id, one, sealed_text).model_dump() for one in newer.values()]
        put(self._connection, AgencyOpinion, *rows)
        return list(newer.values())

    def words(self, set_id: int, entry_ids: Sequence[int]) -> list[Word]:
        """The newest words on these entries, also those that were taken back."""
        pieces = ({"set_id": set_id, "ids": some} for some in _pieces(entry_ids))
        return [_word(row) for asked in pieces for row in self._connection.execute(_WORDS, asked)]

    def every_word(self, set_id: int, agency: str) -> list[Word]:
        """The newest words of an agency on entries of a set, also those that were taken back."""
        query = select(*WORD).where(WORD.set_id == set_id, WORD.agency == agency).order_by(WORD.entry_id)
        return [_word(row) for row in self._connection.execute(query)]

    def said(self, set_id: int, entry_ids: Sequence[int] | None = None) -> list[Word]:
        """What anybody says of these entries of a set (None: of any), by mailbox or as a stock client."""
        if entry_ids is None:
            rows = self._connection.execute(select(*WORD).where(WORD.set_id == set_id))
            return [*map(_word, rows), *map(_of_client, self.all(set_id))]
        return [*self.words(set_id, entry_ids), *map(_of_client, self.of(set_id, entry_ids))]

    def every(self, set_id: int | None = None, agency: str = "") -> list[AgencyOpinion]:
        """The newest words on all entries of a set, or of all sets, the newest first."""
        query = select(*WORD).order_by(WORD.number.desc(), WORD.set_id, WORD.entry_id, WORD.agency)
        if set_id is not None:
            query = query.where(WORD.set_id == set_id)
        if agency:
            query = query.where(WORD.agency == agency)
        return [AgencyOpinion(**row._mapping) for row in self._connection.execute(query)]

    def last_number(self, agency: str) -> int:
        """The highest number of a word of an agency, 0 without one."""
        query = select(sql.max(WORD.number)).where(WORD.agency == agency)
        return int(self._connection.execute(query).scalar() or 0)

    def how_many(self, set_id: int, agency: str) -> int:
        """On how many entries of a set an agency has a word here."""
        query = select(sql.count()).where(WORD.set_id == set_id, WORD.agency == agency)
        return int(self._connection.execute(query).scalar() or 0)

    def forget(self, set_id: int, entry_ids: Iterable[int]) -> None:
        """Everything that was thought of these entries goes."""
        for some in _pieces(sorted(entry_ids)):
            for statement in _FORGET:
                self._connection.execute(statement, {"of_set": set_id, "ids": some})

    def disputed(self, own: str, limit: int) -> int:
        """How many entries of our own sets somebody disputes and we (`own`) say nothing of, counted up to `limit`."""
        ours = table(AgencyOpinion).alias()
        said = exists().where(ours.c.set_id == WORD.set_id, ours.c.entry_id == WORD.entry_id, ours.c.agency == own)
        query = select(WORD.set_id, WORD.entry_id).join(HashSet, SET.id == WORD.set_id)
        query = query.where(SET.hub == "", WORD.agency != own, WORD.verdict == str(Verdict.DISPUTE), ~said)
        query = query.distinct().limit(limit)
        return int(self._connection.execute(select(sql.count()).select_from(query.subquery())).scalar_one())

    def any_on(self, set_id: int) -> bool:
        """Whether anything is thought of any entry of a set."""
        asked = (select(one.set_id).where(one.set_id == set_id).limit(1) for one in (OPINION, WORD, COUNT))
        return any(self._connection.execute(query).first() is not None for query in asked)

    # What hubs count, and who wants to know

    def put_counts(self, set_id: int, number: int, counts: Iterable[Count]) -> int:
        """Keep what a hub counts, where nothing newer is here; returns how much of it was new."""
        told = {one.entry_id: one for one in counts}
        known = {row.entry_id: row.number for row in self.counts(set_id, sorted(told))}
        rows = [
            {"set_id": set_id, "entry_id": one, "number": number, "confirmed": told[one].confirmed}
            | {"disputed": told[one].disputed}
            for one in sorted(told)
            if known.get(one, -1) <= number
        ]
        put(self._connection, OpinionCount, *rows)
        return len(rows)

    def counts(self, set_id: int, entry_ids: Sequence[int]) -> list[OpinionCount]:
        """What the hub of a mirror counts of these entries."""
        pieces = ({"set_id": set_id, "ids": some} for some in _pieces(entry_ids))
        return [OpinionCount(**row._mapping) for asked in pieces for row in self._connection.execute(_COUNTS, asked)]

    def how_many_counts(self, set_id: int) -> int:
        """Of how many entries of a mirror its hub has told counts."""
        query = select(sql.count()).where(COUNT.set_id == set_id)
        return int(self._connection.execute(query).scalar() or 0)

    def asker(self, set_id: int, partner: str) -> int | None:
        """When a partner was last told all that is thought of a set; None for one that never asked."""
        query = select(ASKER.told).where(ASKER.set_id == set_id, ASKER.partner == partner)
        told = self._connection.execute(query).scalar()
        return None if told is None else int(told)

    def put_asker(self, set_id: int, partner: str, told: int) -> None:
        """A partner was told all that is thought of a set."""
        put(self._connection, OpinionAsker, {"set_id": set_id, "partner": partner, "told": told})

    def askers(self, set_id: int) -> list[str]:
        """Who is told of changes."""
        query = select(ASKER.partner).where(ASKER.set_id == set_id).order_by(ASKER.partner)
        return [str(one) for one in self._connection.execute(query).scalars()]


_KEY = (OPINION.set_id, OPINION.entry_id, OPINION.algorithm, OPINION.partner)


def _pieces(entry_ids: Sequence[int]) -> Iterator[Sequence[int]]:
    return (entry_ids[start : start + MAX_ASKED_AT_ONCE] for start in range(0, len(entry_ids), MAX_ASKED_AT_ONCE))


def _row(set_id: int, one: Word, sealed_text: bytes) -> AgencyOpinion:
    return AgencyOpinion(
        set_id=set_id,
        entry_id=one.entry_id,
        agency=one.agency,
        number=one.number,
        verdict=str(one.verdict),
        reason=one.reason,
        version=one.version,
        at=one.at,
        sealed_text=sealed_text,
    )


def _word(row: Row[Any]) -> Word:
    return Word(row.agency, row.entry_id, row.number, Verdict(row.verdict), row.reason, row.version, row.at)


def _of_client(row: OpinionRow) -> Word:
    """What a stock client said of one digest, as a word on its entry."""
    verdict = Verdict.CONFIRM if row.verdict == AFFIRMATIVE else Verdict.DISPUTE
    return Word(row.partner, row.entry_id, row.at, verdict, row.reasons, row.version, row.at)
