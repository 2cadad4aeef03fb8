"""Legal holds: what must be kept for a court although it was taken back."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0011"  # which came first


def upgrade() -> None:
    """Add the tables."""
    op.create_table(
        "legal_hold",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("set_id", sa.Integer(), nullable=False),
        sa.Column("reference", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("until", sa.String(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("entries", sa.BigInteger(), nullable=False),
        sa.Column("gone", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["set_id"], ["hash_set.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "held_entry",
        sa.Column("hold", sa.String(), nullable=False),
        sa.Column("entry_id", sa.BigInteger(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["hold"], ["legal_hold.id"]),
        sa.PrimaryKeyConstraint("hold", "entry_id"),
    )
