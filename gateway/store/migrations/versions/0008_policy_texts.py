"""Every policy that was ever in force."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "policy_text",
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("texts", sa.String(), nullable=False),
        sa.Column("kept", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("digest"),
    )
