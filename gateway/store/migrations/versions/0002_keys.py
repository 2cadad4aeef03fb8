"""Keys through their lives, who has seen them, witnessed logs, alarms, secrets of stock clients."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

BIG, TEXT, BYTES = sa.BigInteger(), sa.String(), sa.LargeBinary()


def upgrade() -> None:
    """Add columns to what is there, and the new tables. Rows of before get what says "not known"."""
    no_bytes = sa.text("x''" if op.get_context().dialect.name == "sqlite" else "''::bytea")
    op.add_column("block", _with("parts", TEXT, ""))
    op.add_column("partner", _with("test", sa.Boolean(), sa.false()))
    op.add_column("partner", _with("mac", BYTES, no_bytes))
    op.add_column("administrator", _with("proposal", TEXT, ""))
    op.add_column("administrator", _with("mac", BYTES, no_bytes))
    op.add_column("access_token", _with("scope", TEXT, ""))
    op.add_column("access_token", _with("mac", BYTES, no_bytes))
    op.create_table(
        "own_key",
        _column("key_id", TEXT),
        _column("purpose", TEXT),
        _column("number", sa.Integer()),
        _column("state", TEXT),
        _column("public", TEXT),
        _column("created", BIG),
        _column("changed", BIG),
        _column("expires", BIG),
        _column("reason", TEXT),
        _column("compromised_since", BIG),
        sa.PrimaryKeyConstraint("key_id"),
    )
    op.create_index(op.f("ix_own_key_purpose"), "own_key", ["purpose"], unique=False)
    op.create_table(
        "partner_key",
        _column("agency", TEXT),
        _column("key_set_id", TEXT),
        _column("number", sa.Integer()),
        _column("keys", TEXT),
        _column("state", TEXT),
        _column("accepted", BIG),
        _column("until", BIG),
        _column("compromised_since", BIG),
        _column("mac", BYTES),
        sa.PrimaryKeyConstraint("agency", "key_set_id"),
    )
    op.create_table(
        "own_card",
        _column("number", sa.Integer()),
        _column("digest", TEXT),
        _column("card", TEXT),
        _column("created", BIG),
        sa.PrimaryKeyConstraint("number"),
    )
    op.create_index(op.f("ix_own_card_digest"), "own_card", ["digest"], unique=False)
    op.create_table(
        "key_statement",
        _column("id", sa.Integer()),
        _column("kind", TEXT),
        _column("number", sa.Integer()),
        _column("statement", BYTES),
        _column("created", BIG),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "key_seen",
        _column("partner", TEXT),
        _column("number", sa.Integer()),
        _column("signing_number", sa.Integer()),
        _column("revocations", sa.Integer()),
        _column("at", BIG),
        sa.PrimaryKeyConstraint("partner"),
    )
    op.create_table(
        "witnessed_log",
        _column("partner", TEXT),
        _column("origin", TEXT),
        _column("size", BIG),
        _column("note", TEXT),
        _column("at", BIG),
        _column("since", BIG),
        _column("claims", TEXT),
        _column("cosigned", BIG),
        sa.PrimaryKeyConstraint("partner"),
    )
    op.create_table(
        "cosignature",
        _column("partner", TEXT),
        _column("size", BIG),
        _column("line", TEXT),
        _column("at", BIG),
        sa.PrimaryKeyConstraint("partner", "size"),
    )
    op.create_table(
        "alarm",
        _column("id", sa.Integer()),
        _column("kind", TEXT),
        _column("subject", TEXT),
        _column("level", sa.Integer()),
        _column("detail", TEXT),
        _column("evidence", TEXT),
        _column("raised", BIG),
        _column("told", BIG),
        _column("closed", BIG),
        _column("closed_by", TEXT),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_alarm_kind"), "alarm", ["kind"], unique=False)
    op.create_table(
        "surface",
        _column("partner", TEXT),
        _column("surface", TEXT),
        _column("opened", BIG),
        _column("proposal", TEXT),
        sa.PrimaryKeyConstraint("partner", "surface"),
    )
    op.create_table(
        "client_secret",
        _column("id", TEXT),
        _column("partner", TEXT),
        _column("surface", TEXT),
        _column("digest", BYTES),
        _column("created", BIG),
        _column("expires", BIG),
        _column("used", BIG),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_client_secret_partner"), "client_secret", ["partner"], unique=False)


def _column(name: str, kind: sa.types.TypeEngine[Any]) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=False)


def _with(name: str, kind: sa.types.TypeEngine[Any], default: Any) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=False, server_default=default)
