"""What partners have yet to acknowledge. What duties mean, `gateway.exchange.duties` says."""

from __future__ import annotations

from sqlalchemy import Connection, and_, delete, exists, or_, select

from gateway.store.tables import Acknowledgement, HashSet, OutboxRow, columns, table
from gateway.store.upserts import add_new

ACKNOWLEDGEMENT = columns(Acknowledgement)
HASH_SET = columns(HashSet)
OUTBOX = columns(OutboxRow)


class Duties:
    """Pages that left under a duty to acknowledge them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def expect(self, row: Acknowledgement) -> None:
        """A page left. One that leaves again is due when it was due before."""
        add_new(self._connection, Acknowledgement, row.model_dump())

    def acknowledged(self, partner: str, set_name: str, epoch: int, until_seq: int) -> None:
        """A partner has taken in everything of a set up to there."""
        named = select(HASH_SET.id).where(HASH_SET.name == set_name).scalar_subquery()
        upto = or_(
            ACKNOWLEDGEMENT.epoch < epoch,
            and_(ACKNOWLEDGEMENT.epoch == epoch, ACKNOWLEDGEMENT.until_seq <= until_seq),
        )
        where = (ACKNOWLEDGEMENT.set_id.in_(named), ACKNOWLEDGEMENT.partner == partner, upto)
        self._connection.execute(delete(table(Acknowledgement)).where(*where))

    def unacknowledged(self) -> list[tuple[str, Acknowledgement]]:
        """(set, page) of all that is outstanding, what is due first first.

        A page that was pushed and given up before the partner had it is none of these, unless it went again.
        """
        page = and_(
            OUTBOX.partner == ACKNOWLEDGEMENT.partner,
            OUTBOX.subject == HASH_SET.name,
            OUTBOX.until_seq == ACKNOWLEDGEMENT.until_seq,
        )
        given_up = and_(exists().where(page, OUTBOX.state == "dead"), ~exists().where(page, OUTBOX.state != "dead"))
        query = select(HASH_SET.name, *ACKNOWLEDGEMENT).where(ACKNOWLEDGEMENT.set_id == HASH_SET.id, ~given_up)
        rows = self._connection.execute(query.order_by(ACKNOWLEDGEMENT.due, HASH_SET.name, ACKNOWLEDGEMENT.partner))
        return [(row[0], Acknowledgement(**dict(zip(ACKNOWLEDGEMENT.keys(), row[1:], strict=True)))) for row in rows]
