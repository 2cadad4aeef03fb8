"""Onward copies of mirrors, and whose messages stand behind them."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Let a copy have its mirror's name; add the table of sources."""
    op.add_column("hash_set", sa.Column("relays", sa.BigInteger(), nullable=False, server_default="0"))
    op.drop_index("ix_hash_set_name", table_name="hash_set")
    op.create_index("ix_hash_set_name", "hash_set", ["name", "relays"], unique=True)
    op.add_column("signed_page", sa.Column("sources", sa.String(), nullable=False, server_default=""))
    op.create_table(
        "onward_source",
        sa.Column("set_id", sa.Integer(), sa.ForeignKey("hash_set.id"), nullable=False),
        sa.Column("last_seq", sa.BigInteger(), nullable=False),
        sa.Column("first_seq", sa.BigInteger(), nullable=False),
        sa.Column("sources", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("set_id", "last_seq"),
    )
