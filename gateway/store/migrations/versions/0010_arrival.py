"""When what is in a block came, since duties count from there; what partners have yet to acknowledge."""

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0008"

# An entry of an event begins with 0x01, one of a block with 0x02; the event itself may have been erased by law.
BEHIND = "SELECT event FROM audit_leaf WHERE idx > :leaf AND entry < :block ORDER BY idx LIMIT 1"
BEFORE = "SELECT event FROM audit_leaf WHERE idx < :leaf AND event IS NOT NULL ORDER BY idx DESC LIMIT 1"


def upgrade() -> None:
    """Add the column and the table. Blocks that are here came when the log says so."""
    zero = sa.text("0")
    op.add_column("block", sa.Column("arrived", sa.BigInteger(), nullable=False, server_default=zero))
    op.create_table(
        "acknowledgement",
        sa.Column("set_id", sa.Integer(), nullable=False),
        sa.Column("partner", sa.String(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("until_seq", sa.BigInteger(), nullable=False),
        sa.Column("due", sa.BigInteger(), nullable=False),
        sa.Column("sent", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["set_id"], ["hash_set.id"]),
        sa.PrimaryKeyConstraint("set_id", "partner", "epoch", "until_seq"),
    )
    connection = op.get_bind()
    blocks = connection.execute(sa.text("SELECT id, leaf, set_id FROM block")).all()
    times = _Times(connection)
    for number, leaf, set_id in blocks:
        found = {"arrived": times.of(leaf, set_id), "id": number}
        connection.execute(sa.text("UPDATE block SET arrived = :arrived WHERE id = :id"), found)


class _Times:
    """When the blocks of leaves came, never later than they did: the event that brought a block stands behind it."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection
        self._known: dict[int, int] = {}

    def of(self, leaf: int, set_id: int) -> int:
        """Unix seconds."""
        if leaf not in self._known:
            self._known[leaf] = self._read(leaf, set_id)
        return self._known[leaf]

    def _read(self, leaf: int, set_id: int) -> int:
        found = self._one(BEHIND, leaf=leaf, block=b"\x02")
        if found is None:  # erased by law, or lost: what stands before is older
            before = self._one(BEFORE, leaf=leaf)
            return 0 if before is None else int(json.loads(before)["at"])
        event = json.loads(found)
        if event["kind"] == "blocks_compacted":
            # What was joined came with the oldest of the blocks before: they are named in the order of their leaves.
            return self.of(int(event["details"]["old"][0].split("-")[0]), set_id)
        if event["kind"] == "entries_erased":
            # That event names no leaves: the set itself is as old as anything in it.
            return int(self._one("SELECT created FROM hash_set WHERE id = :set_id", set_id=set_id) or 0)
        return int(event["at"])

    def _one(self, query: str, **values: int | bytes) -> Any:
        return self._connection.execute(sa.text(query), values).scalar()
