"""What hubs signed of the pages that our mirrors took: with the pages' blocks, proof of where each entry came from."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, delete, insert, select

from gateway.store.tables import SignedPage, columns, table

PAGE = columns(SignedPage)


class Evidence:
    """Signed pages of mirrors, by set."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, row: SignedPage) -> None:
        """Keep what a hub signed of a page."""
        self._connection.execute(insert(table(SignedPage)), [row.model_dump(exclude={"id"})])

    def get(self, number: int) -> SignedPage | None:
        """One signed page, or None."""
        row = self._connection.execute(select(*PAGE).where(PAGE.id == number)).one_or_none()
        return None if row is None else SignedPage(**row._mapping)

    def since(self, set_id: int, epoch: int, after_seq: int) -> list[SignedPage]:
        """Pages of before an epoch that end after a seq, oldest first, without what was signed."""
        wanted = [one for one in PAGE if one.name != "sealed"]
        query = select(*wanted).where(PAGE.set_id == set_id, PAGE.epoch < epoch, PAGE.until_seq > after_seq)
        found = self._connection.execute(query.order_by(PAGE.id))
        return [SignedPage(**row._mapping, sealed=b"") for row in found]

    def holding(self, set_id: int, blocks: Sequence[int]) -> list[int]:
        """Pages that brought any of these blocks, oldest first."""
        found: set[int] = set()
        for block in sorted(set(blocks)):
            query = select(PAGE.id).where(PAGE.set_id == set_id, PAGE.first_block <= block, PAGE.last_block >= block)
            found.update(int(number) for number in self._connection.execute(query).scalars())
        return sorted(found)

    def sources_of(self, set_id: int, block: int) -> list[str]:
        """The originator's messages, by digest, that stand behind a block, as far as they are kept."""
        query = select(PAGE.sources).where(PAGE.set_id == set_id)
        found = self._connection.execute(query.where(PAGE.first_block <= block, PAGE.last_block >= block)).scalars()
        return [digest for sources in found for digest in str(sources).split()]

    def first_block(self, set_id: int) -> int | None:
        """The oldest block that a signed page of a set speaks of, None without any."""
        query = select(PAGE.first_block).where(PAGE.set_id == set_id).order_by(PAGE.first_block).limit(1)
        return self._connection.execute(query).scalar()

    def forget(self, before: int) -> int:
        """Forget pages that were taken before a time (Unix seconds); returns how many."""
        return self._connection.execute(delete(SignedPage).where(PAGE.at < before)).rowcount

    def forget_set(self, set_id: int) -> None:
        """Forget the pages of a set that begins anew."""
        self._connection.execute(delete(SignedPage).where(PAGE.set_id == set_id))
