"""What the audit log adds up to, by year."""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0016"


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "log_count",
        sa.Column("year", sa.Integer(), nullable=False),
        sa.Column("partner", sa.String(), nullable=False),
        sa.Column("measure", sa.String(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("year", "partner", "measure"),
    )
