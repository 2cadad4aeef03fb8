"""Policies as text, by their digest, every one that was ever in force; and which decisions are on record."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, select

from gateway.store.tables import DecisionRow, DecisionTable, PolicyText, columns
from gateway.store.upserts import add_new, put

POLICY_TEXT = columns(PolicyText)
DECISION = columns(DecisionTable)


class Policies:
    """The texts of policies. They are only added to: decision receipts name them for as long as the log lasts."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, row: PolicyText) -> bool:
        """Keep a policy's texts; False when they are kept already."""
        return add_new(self._connection, PolicyText, row.model_dump())

    def find(self, digest: str) -> PolicyText | None:
        """The row of a policy, or None. `gateway.policytexts.find` says whether its texts are those of the digest."""
        row = self._connection.execute(select(*POLICY_TEXT).where(POLICY_TEXT.digest == digest)).one_or_none()
        return None if row is None else PolicyText(**row._mapping)

    def holds(self, digest: str) -> bool:
        """Whether a policy's texts are kept."""
        return (
            self._connection.execute(select(POLICY_TEXT.digest).where(POLICY_TEXT.digest == digest)).first() is not None
        )

    def digests(self) -> list[str]:
        """Every policy that is kept, oldest first."""
        rows = self._connection.execute(select(POLICY_TEXT.digest).order_by(POLICY_TEXT.kept, POLICY_TEXT.digest))
        return [str(digest) for digest in rows.scalars()]

    # Decisions on record

    def decided(self, set_id: int, partner: str, surface: str, action: str) -> dict[int, DecisionRow]:
        """The newest receipt on each label of a set, by the label's number."""
        query = select(*DECISION).where(DECISION.set_id == set_id, DECISION.partner == partner)
        rows = self._connection.execute(query.where(DECISION.surface == surface, DECISION.action == action))
        return {row.label: DecisionRow(**row._mapping) for row in rows}

    def put_decided(self, rows: Sequence[DecisionRow]) -> None:
        """Keep which receipts are the newest."""
        put(self._connection, DecisionTable, *(row.model_dump() for row in rows))
