"""Assertions about victims, who was told of them, claims, merges of series, certificates."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0013"


def upgrade() -> None:
    """Add the tables."""
    op.create_table(
        "status_line",
        *_texts("agency", "number"),
        *_numbers("version"),
        *_texts("status"),
        *_numbers("at"),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        *_numbers("received", "met", "seen"),
        sa.PrimaryKeyConstraint("agency", "number"),
    )
    op.create_index("ix_status_line_status", "status_line", ["status"])
    op.create_table(
        "status_mark",
        *_texts("agency", "number"),
        sa.Column("mark", sa.LargeBinary(), nullable=False),
        *_texts("kind"),
        sa.PrimaryKeyConstraint("agency", "number", "mark"),
    )
    op.create_index("ix_status_mark_mark", "status_mark", ["mark"])
    op.create_table(
        "status_told",
        *_texts("number", "partner"),
        *_numbers("version"),
        *_texts("status"),
        *_numbers("mail", "at", "due", "reminded", "answered"),
        sa.PrimaryKeyConstraint("number", "partner"),
    )
    op.create_table(
        "claim",
        *_texts("id", "partner", "number", "theirs"),
        *_numbers("at", "version"),
        *_texts("word"),
        *_numbers("their_version"),
        *_texts("their_word"),
        *_numbers("given"),
        *(sa.Column(name, sa.LargeBinary(), nullable=False) for name in ("sealed", "sealed_theirs")),
        sa.PrimaryKeyConstraint("id", "partner"),
    )
    op.create_table(
        "series_merge",
        *_texts("id", "origin"),
        *_numbers("version"),
        sa.Column("merged", sa.Boolean(), nullable=False),
        *_texts("state"),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        *_numbers("at"),
        *_texts("told"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "certificate",
        *_texts("id", "number"),
        *_numbers("issued", "revoked"),
        *(sa.Column(name, sa.LargeBinary(), nullable=False) for name in ("sealed", "sealed_revocation")),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_certificate_number", "certificate", ["number"])


def _texts(*names: str) -> list[sa.Column[str]]:
    return [sa.Column(name, sa.String(), nullable=False) for name in names]


def _numbers(*names: str) -> list[sa.Column[int]]:
    return [sa.Column(name, sa.BigInteger(), nullable=False) for name in names]
