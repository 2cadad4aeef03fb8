"""What agencies think of entries, lists of known-good digests, and tables of categories."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0018"  # which came first

BIG, TEXT, BYTES, INT = sa.BigInteger(), sa.String(), sa.LargeBinary(), sa.Integer()
WIDE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _column(name: str, kind: "sa.types.TypeEngine[Any]") -> "sa.Column[Any]":
    return sa.Column(name, kind, nullable=False)


def _set_id() -> "sa.Column[Any]":
    return sa.Column("set_id", sa.Integer(), sa.ForeignKey("hash_set.id"), nullable=False)


def upgrade() -> None:
    """Add the tables."""
    op.create_table(
        "agency_opinion",
        _set_id(),
        _column("entry_id", WIDE),
        _column("agency", TEXT),
        _column("number", BIG),
        _column("verdict", TEXT),
        _column("reason", TEXT),
        _column("version", BIG),
        _column("at", BIG),
        _column("sealed_text", BYTES),
        sa.PrimaryKeyConstraint("set_id", "entry_id", "agency"),
    )
    op.create_table(
        "opinion_count",
        _set_id(),
        _column("entry_id", WIDE),
        _column("number", BIG),
        _column("confirmed", INT),
        _column("disputed", INT),
        sa.PrimaryKeyConstraint("set_id", "entry_id"),
    )
    op.create_table(
        "opinion_asker",
        _set_id(),
        _column("partner", TEXT),
        _column("told", BIG),
        sa.PrimaryKeyConstraint("set_id", "partner"),
    )
    op.create_table(
        "allow_list",
        _column("id", INT),
        _column("name", TEXT),
        _column("state", TEXT),
        _column("digests", BIG),
        _column("parts", INT),
        _column("added", BIG),
        _column("head", BYTES),
        _column("mac", BYTES),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "allow_list_part",
        sa.Column("list_id", sa.Integer(), sa.ForeignKey("allow_list.id"), nullable=False),
        _column("number", INT),
        _column("marks", BYTES),
        sa.PrimaryKeyConstraint("list_id", "number"),
    )
    op.create_table(
        "category_table",
        _column("digest", TEXT),
        _column("scheme", TEXT),
        _column("version", INT),
        _column("content", TEXT),
        _column("activated", BIG),
        _column("proposal", TEXT),
        _column("mac", BYTES),
        sa.PrimaryKeyConstraint("digest"),
    )
    op.create_index("ix_category_table_scheme", "category_table", ["scheme"])
