"""Large values of entries (`exchange.largevalues`): sealed pieces, and which entries they belong to.

Bytes come and go sealed, and a value goes by a keyed name: this module knows no key and no digest.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TypeVar

from sqlalchemy import Connection, delete, exists, insert, select

from gateway.store.blocks import MAX_ASKED_AT_ONCE
from gateway.store.tables import LargePiece, LargeUse, LargeValueRow, columns
from gateway.store.upserts import put

T = TypeVar("T", int, str)
VALUE = columns(LargeValueRow)
PIECE = columns(LargePiece)
USE = columns(LargeUse)


class Large:
    """Values under their names. `use`: an entry of a set, or a legal hold on it, has the value."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def any(self, set_id: int) -> bool:
        """Whether a set has a value at all: most have none."""
        return bool(self._connection.execute(select(exists().where(VALUE.set_id == set_id))).scalar())

    def add(self, row: LargeValueRow, pieces: Sequence[bytes]) -> None:
        """Keep a value that is not there yet."""
        self._connection.execute(insert(LargeValueRow), [row.model_dump()])
        for number, sealed in enumerate(pieces):
            self._connection.execute(insert(LargePiece), [{"name": row.name, "number": number, "sealed": sealed}])

    def find(self, name: str) -> LargeValueRow | None:
        """The value of a name, None where it is not there."""
        row = self._connection.execute(select(*VALUE).where(VALUE.name == name)).one_or_none()
        return None if row is None else LargeValueRow(**row._mapping)

    def known(self, names: Collection[str]) -> set[str]:
        """Those of these names that are there."""
        return {
            str(name)
            for some in _some(names)
            for name in self._connection.execute(select(VALUE.name).where(VALUE.name.in_(some))).scalars()
        }

    def piece(self, name: str, number: int) -> bytes | None:
        """One sealed piece; None where the value is not there any more."""
        query = select(PIECE.sealed).where(PIECE.name == name, PIECE.number == number)
        found = self._connection.execute(query).scalar()
        return None if found is None else bytes(found)

    def use(self, uses: Collection[LargeUse]) -> None:
        """Note what has a value; an entry has one."""
        put(self._connection, LargeUse, *(one.model_dump() for one in uses))

    def uses(self, set_id: int, entry_ids: Collection[int]) -> dict[int, str]:
        """The names of the values that these entries have now."""
        found: dict[int, str] = {}
        for some in _some(entry_ids):
            query = select(USE.entry_id, USE.name).where(USE.set_id == set_id, USE.hold == "", USE.entry_id.in_(some))
            found.update((int(entry), str(name)) for entry, name in self._connection.execute(query))
        return found

    def end_uses(self, set_id: int, entry_ids: Collection[int]) -> None:
        """These entries have no value any more."""
        for some in _some(entry_ids):
            self._connection.execute(
                delete(LargeUse).where(USE.set_id == set_id, USE.hold == "", USE.entry_id.in_(some))
            )

    def end_hold(self, hold: str) -> set[str]:
        """A legal hold has no values any more; returns the names of those that it had."""
        names = set(map(str, self._connection.execute(select(USE.name).where(USE.hold == hold)).scalars()))
        self._connection.execute(delete(LargeUse).where(USE.hold == hold))
        return names

    def unused(self, *, before: int) -> dict[int, set[str]]:
        """By set, the names of values that nothing has and that came before a time."""
        query = select(VALUE.set_id, VALUE.name).where(VALUE.at < before, ~exists().where(USE.name == VALUE.name))
        found: dict[int, set[str]] = {}
        for set_id, name in self._connection.execute(query):
            found.setdefault(int(set_id), set()).add(str(name))
        return found

    def drop_unused(self, names: Collection[str]) -> int:
        """Delete those of these values that nothing has; returns how many went."""
        gone = 0
        for some in _some(names):
            used = set(self._connection.execute(select(USE.name).where(USE.name.in_(some))).scalars())
            going = [name for name in some if name not in used]
            self._connection.execute(delete(LargePiece).where(PIECE.name.in_(going)))
            gone += self._connection.execute(delete(LargeValueRow).where(VALUE.name.in_(going))).rowcount
        return gone


def _some(asked: Collection[T]) -> Iterator[list[T]]:
    everything = list(asked)
    for start in range(0, len(everything), MAX_ASKED_AT_ONCE):
        yield everything[start : start + MAX_ASKED_AT_ONCE]
