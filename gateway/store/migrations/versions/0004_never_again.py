"""The never-again list."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

BIG, TEXT, BYTES = sa.BigInteger(), sa.String(), sa.LargeBinary()


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "never_again",
        sa.Column("id", BIG, nullable=False),
        sa.Column("mark", BYTES, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("scope", TEXT, nullable=False),
        sa.Column("listing", BIG, nullable=False),
        sa.Column("at", BIG, nullable=False),
        sa.Column("leaf", BIG, nullable=False),
        sa.Column("mac", BYTES, nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
