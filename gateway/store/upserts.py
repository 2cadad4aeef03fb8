"""Rows that may be there already. SQLite and PostgreSQL say ON CONFLICT alike; SQLAlchemy has an insert for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from operator import itemgetter
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Dialect, Table
from sqlalchemy.dialects import sqlite
from sqlmodel import SQLModel

from gateway.store.tables import table

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql

Row = Mapping[str, object]


def put(connection: Connection, model: type[SQLModel], *rows: Row, changing: tuple[str, ...] = ()) -> None:
    """Write rows under their primary keys; where a key is there already, its other columns are written over.

    Args:
        changing: the only columns that are written over, () for all.
    """
    if len(rows) == 1:
        connection.execute(_put(connection.dialect.name, model, changing), rows[0])
    elif rows:
        statement = _put(connection.dialect.name, model, changing)
        _execute_many(connection, model, _text(connection.dialect, model, statement), rows)


def add_many(connection: Connection, model: type[SQLModel], rows: Sequence[Row]) -> None:
    """Add rows, each with every column of its table."""
    statement = _insert(connection.dialect.name, table(model))
    _execute_many(connection, model, _text(connection.dialect, model, statement), rows)


def _execute_many(connection: Connection, model: type[SQLModel], text: str, rows: Sequence[Row]) -> None:
    """Have the driver run a statement for each row. What comes by the thousand consists of numbers, texts and bytes:
    they need no preparing, and SQLAlchemy would look at each of them."""
    names = _columns(model)
    values = map(itemgetter(*names), rows)
    if connection.dialect.positional:
        connection.exec_driver_sql(text, list(values))
    else:
        connection.exec_driver_sql(text, [dict(zip(names, one, strict=True)) for one in values])


def add_new(connection: Connection, model: type[SQLModel], row: Row) -> bool:
    """Add a row; False when its key is there already, and then nothing is written."""
    return connection.execute(_add_new(connection.dialect.name, model), row).rowcount > 0


# Made once: building a statement costs more than running it.


@cache
def _put(dialect: str, model: type[SQLModel], changing: tuple[str, ...]) -> sqlite.Insert | postgresql.Insert:
    target = table(model)
    statement = _insert(dialect, target)
    names = changing or tuple(column.name for column in target.columns if not column.primary_key)
    keys = [column.name for column in target.primary_key.columns]
    return statement.on_conflict_do_update(index_elements=keys, set_={name: statement.excluded[name] for name in names})


@cache
def _columns(model: type[SQLModel]) -> tuple[str, ...]:
    return tuple(column.name for column in table(model).columns)


@lru_cache(maxsize=64)  # each engine has a dialect of its own
def _text(dialect: Dialect, model: type[SQLModel], statement: sqlite.Insert | postgresql.Insert) -> str:
    """A statement as the driver wants it, with the values in the order of the columns."""
    return str(statement.compile(dialect=dialect, column_keys=_columns(model)))


@cache
def _add_new(dialect: str, model: type[SQLModel]) -> sqlite.Insert | postgresql.Insert:
    # Of an insert SQLAlchemy forgets how many rows it wrote, unless it is asked to keep it.
    return _insert(dialect, table(model)).on_conflict_do_nothing().execution_options(preserve_rowcount=True)


@cache
def _insert(dialect: str, target: Table) -> sqlite.Insert | postgresql.Insert:
    if dialect == "sqlite":
        return sqlite.insert(target)
    from sqlalchemy.dialects import postgresql  # noqa: PLC0415  slow to import, and most gateways never need it

    return postgresql.insert(target)
