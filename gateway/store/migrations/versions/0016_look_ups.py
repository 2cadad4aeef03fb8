"""How much each partner has asked about in look-ups."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0021"


def upgrade() -> None:
    """Add the table."""
    numbers = ("day", "digests", "minute", "batches", "usual")
    op.create_table(
        "look_up_use",
        sa.Column("partner", sa.String(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in numbers),
        sa.PrimaryKeyConstraint("partner"),
    )
