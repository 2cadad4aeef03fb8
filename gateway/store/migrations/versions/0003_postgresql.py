"""PostgreSQL: the row that orders those who write, numbers of 64 bits, proposals in the order in which they came."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

# SQLite's INTEGER has 64 bits already.
WIDENED = {
    "audit_checkpoint": ("size",),
    "block": ("id",),
    "block_part": ("block_id",),
    "key_seen": ("number", "signing_number", "revocations"),
    "mail_in": ("number",),
    "mail_out": ("number",),
    "partner_key": ("number",),
}


def upgrade() -> None:
    """Add the row and the numbers; widen what a partner's number or a long life could outgrow."""
    tail = op.create_table("log_tail", sa.Column("id", sa.Integer(), nullable=False), sa.PrimaryKeyConstraint("id"))
    op.bulk_insert(tail, [{"id": 1}])
    op.add_column("proposal", sa.Column("number", sa.BigInteger(), nullable=False, server_default=sa.text("0")))
    if op.get_context().dialect.name == "sqlite":
        op.execute("UPDATE proposal SET number = rowid")
        return
    for table, columns in WIDENED.items():
        for column in columns:
            op.alter_column(table, column, type_=sa.BigInteger())
