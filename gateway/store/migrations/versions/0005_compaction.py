"""Blocks found by their place in a set, whatever its size; how far back the history of a set reaches."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the indexes and the columns."""
    op.create_index("ix_block_set_last_seq", "block", ["set_id", "last_seq"])
    op.create_index("ix_block_set_label_last_seq", "block", ["set_id", "label", "last_seq"])
    op.create_index(op.f("ix_dropped_block_block_id"), "dropped_block", ["block_id"])
    zero = sa.text("0")
    op.add_column("hash_set", sa.Column("horizon", sa.BigInteger(), nullable=False, server_default=zero))
    op.add_column("hash_set", sa.Column("revision", sa.BigInteger(), nullable=False, server_default=zero))
    op.add_column("follower", sa.Column("since", sa.BigInteger(), nullable=False, server_default=zero))
