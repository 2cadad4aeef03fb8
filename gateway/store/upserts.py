"""Rows that may be there already. SQLite and PostgreSQL say ON CONFLICT alike; SQLAlchemy has an insert for each."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import SQLModel

from gateway.store.tables import table

Row = Mapping[str, object]
Insert = sqlite.Insert | postgresql.Insert


def put(connection: Connection, model: type[SQLModel], *rows: Row, changing: tuple[str, ...] = ()) -> None:
    """Write rows under their primary keys; where a key is there already, its other columns are written over.

    Args:
        changing: the only columns that are written over, () for all.
    """
    if rows:
        connection.execute(_put(connection.dialect.name, model, changing), rows[0] if len(rows) == 1 else list(rows))


def add_new(connection: Connection, model: type[SQLModel], row: Row) -> bool:
    """Add a row; False when its key is there already, and then nothing is written."""
    return connection.execute(_add_new(connection.dialect.name, model), row).rowcount > 0


# Made once: building a statement costs more than running it.


@cache
def _put(dialect: str, model: type[SQLModel], changing: tuple[str, ...]) -> Insert:
    target = table(model)
    statement = _insert(dialect, target)
    names = changing or tuple(column.name for column in target.columns if not column.primary_key)
    keys = [column.name for column in target.primary_key.columns]
    return statement.on_conflict_do_update(index_elements=keys, set_={name: statement.excluded[name] for name in names})


@cache
def _add_new(dialect: str, model: type[SQLModel]) -> Insert:
    # Of an insert SQLAlchemy forgets how many rows it wrote, unless it is asked to keep it.
    return _insert(dialect, table(model)).on_conflict_do_nothing().execution_options(preserve_rowcount=True)


def _insert(dialect: str, target: Table) -> Insert:
    return postgresql.insert(target) if dialect == "postgresql" else sqlite.insert(target)
