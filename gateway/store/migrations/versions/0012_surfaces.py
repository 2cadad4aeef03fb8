"""What stock clients were shown of our sets, and what partners think of entries."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0009"


def upgrade() -> None:
    """Add both tables."""
    op.create_table(
        "shown_set",
        sa.Column("set_id", sa.Integer(), sa.ForeignKey("hash_set.id"), nullable=False),
        sa.Column("partner", sa.String(), nullable=False),
        sa.Column("surface", sa.String(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("judged", sa.BigInteger(), nullable=False),
        sa.Column("view", sa.String(), nullable=False),
        sa.Column("spans", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("set_id", "partner", "surface"),
    )
    op.create_table(
        "opinion",
        sa.Column("set_id", sa.Integer(), sa.ForeignKey("hash_set.id"), nullable=False),
        sa.Column("entry_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("algorithm", sa.String(), nullable=False),
        sa.Column("partner", sa.String(), nullable=False),
        sa.Column("verdict", sa.String(), nullable=False),
        sa.Column("reasons", sa.String(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("set_id", "entry_id", "algorithm", "partner"),
    )
