"""An index beside the audit log, by which people search it."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0014"


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "log_facet",
        sa.Column("facet", sa.String(), nullable=False),
        sa.Column("value", sa.String(), nullable=False),
        sa.Column("leaf", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("facet", "value", "leaf"),
        sqlite_with_rowid=False,
    )
