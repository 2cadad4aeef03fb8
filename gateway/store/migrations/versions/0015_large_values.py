"""Large values of entries, in sealed pieces."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0017"


def upgrade() -> None:
    """Add the tables."""
    op.create_table(
        "large_value",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("set_id", sa.Integer(), nullable=False),
        sa.Column("octets", sa.BigInteger(), nullable=False),
        sa.Column("wrapped_key", sa.LargeBinary(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["set_id"], ["hash_set.id"]),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_index("ix_large_value_set_id", "large_value", ["set_id"])
    op.create_table(
        "large_piece",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["name"], ["large_value.name"]),
        sa.PrimaryKeyConstraint("name", "number"),
    )
    op.create_table(
        "large_use",
        sa.Column("set_id", sa.Integer(), nullable=False),
        sa.Column("entry_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("hold", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["set_id"], ["hash_set.id"]),
        sa.ForeignKeyConstraint(["name"], ["large_value.name"]),
        sa.PrimaryKeyConstraint("set_id", "entry_id", "hold"),
    )
    op.create_index("ix_large_use_name", "large_use", ["name"])
