"""What was taken back, and who has answered."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, insert, select, update

from gateway.errors import NotFoundError
from gateway.store.tables import Withdrawal, WithdrawalHolder, columns
from gateway.store.upserts import put

TAKEN = columns(Withdrawal)
HOLDER = columns(WithdrawalHolder)
OUTSTANDING = "outstanding"


class Withdrawals:
    """Withdrawals and recalls, ours and those that partners told us of, with their holders."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, row: Withdrawal) -> None:
        """Begin to keep the books of a withdrawal."""
        self._connection.execute(insert(Withdrawal), [row.model_dump()])

    def find(self, number: str) -> Withdrawal | None:
        """The withdrawal of this id, or None."""
        row = self._connection.execute(select(*TAKEN).where(TAKEN.id == number)).one_or_none()
        return None if row is None else Withdrawal(**row._mapping)

    def beginning(self, prefix: str) -> Withdrawal:
        """The one withdrawal whose id begins so."""
        query = select(*TAKEN).where(TAKEN.id.startswith(prefix, autoescape=True)).limit(2)
        found = [Withdrawal(**row._mapping) for row in self._connection.execute(query)]
        if len(found) != 1:
            raise NotFoundError("no such withdrawal", remedy="`gateway withdrawal list` names them")
        return found[0]

    def all(self) -> list[Withdrawal]:
        """Every withdrawal, newest first."""
        rows = self._connection.execute(select(*TAKEN).order_by(TAKEN.created.desc(), TAKEN.id))
        return [Withdrawal(**row._mapping) for row in rows]

    def waiting(self, set_name: str) -> list[Withdrawal]:
        """What hubs have told us of a set and we have not answered, oldest first."""
        query = select(*TAKEN).where(TAKEN.set_name == set_name, TAKEN.hub != "", TAKEN.answered == 0)
        return [Withdrawal(**row._mapping) for row in self._connection.execute(query.order_by(TAKEN.created, TAKEN.id))]

    def refused_because(self, because: str) -> list[Withdrawal]:
        """What we have refused for this reason."""
        query = select(*TAKEN).where(TAKEN.because == because, TAKEN.hub != "")
        return [Withdrawal(**row._mapping) for row in self._connection.execute(query)]

    def note(self, number: str, *, removed: int, answered: int, because: str) -> None:
        """Note what became of a withdrawal here."""
        values = {"removed": removed, "answered": answered, "because": because}
        self._connection.execute(update(Withdrawal).where(TAKEN.id == number).values(**values))

    def put_holder(self, row: WithdrawalHolder) -> None:
        """Note a holder, or what it has answered."""
        put(self._connection, WithdrawalHolder, row.model_dump())

    def holder(self, number: str, holder: str, via: str) -> WithdrawalHolder | None:
        """One holder of a withdrawal, or None."""
        where = (HOLDER.withdrawal == number, HOLDER.holder == holder, HOLDER.via == via)
        row = self._connection.execute(select(*HOLDER).where(*where)).one_or_none()
        return None if row is None else WithdrawalHolder(**row._mapping)

    def holders(self, number: str) -> list[WithdrawalHolder]:
        """Everybody who may hold it, direct ones first."""
        query = select(*HOLDER).where(HOLDER.withdrawal == number).order_by(HOLDER.via, HOLDER.holder)
        return [WithdrawalHolder(**row._mapping) for row in self._connection.execute(query)]

    def outstanding(self) -> Sequence[tuple[Withdrawal, WithdrawalHolder]]:
        """Who has not answered yet, with what, what is due first first."""
        query = select(*HOLDER).where(HOLDER.state == OUTSTANDING)
        rows = [WithdrawalHolder(**row._mapping) for row in self._connection.execute(query)]
        named = {row.withdrawal for row in rows}
        found = {one.id: one for one in self.all() if one.id in named}
        pairs = [(found[row.withdrawal], row) for row in rows]
        return sorted(pairs, key=lambda pair: (pair[0].due, pair[0].id, pair[1].via, pair[1].holder))
