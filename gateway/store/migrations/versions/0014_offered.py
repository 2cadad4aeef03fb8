"""The labels under which stock clients offered entries, as policy judged them."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0020"  # which came first


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "offered_label",
        sa.Column("set_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("salt", sa.LargeBinary(), nullable=False),
        sa.Column("attributes", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["set_id"], ["hash_set.id"]),
        sa.PrimaryKeyConstraint("set_id", "number"),
    )
