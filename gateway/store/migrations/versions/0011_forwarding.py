"""Onward copies of mirrors, and whose messages stand behind them; withdrawals and who has answered them."""

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
    op.create_table(
        "withdrawal",
        *(sa.Column(name, sa.String(), nullable=False) for name in ("id", "kind", "set_name", "origin", "hub")),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("epoch", "from_seq", "until_seq")),
        sa.Column("view", sa.String(), nullable=False),
        sa.Column("entries", sa.BigInteger(), nullable=False),
        *(sa.Column(name, sa.String(), nullable=False) for name in ("reason", "reference")),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("created", "due", "removed", "answered")),
        sa.Column("because", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_withdrawal_set_name", "withdrawal", ["set_name"])
    op.create_table(
        "withdrawal_holder",
        sa.Column("withdrawal", sa.String(), sa.ForeignKey("withdrawal.id"), nullable=False),
        *(sa.Column(name, sa.String(), nullable=False) for name in ("holder", "via")),
        sa.Column("entries", sa.BigInteger(), nullable=False),
        *(sa.Column(name, sa.String(), nullable=False) for name in ("state", "because")),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("answered", "mail", "reminded")),
        sa.PrimaryKeyConstraint("withdrawal", "holder", "via"),
    )
    op.create_table(
        "mail_evidence",
        sa.Column("partner", sa.String(), nullable=False),
        sa.Column("last", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("first", sa.BigInteger(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("partner", "last"),
    )
