"""Whole databases as rows: read out of one consistent state, put into an empty database of the same kind or the other.

    with store.snapshot(folder) as tx:                 # nobody who writes waits for it
        for table in read_tables(tx.connection):
            for rows in table.batches: …
    store.load(revision, tables)                       # all of them, or nothing

Rows come in batches of about `BATCH_BYTES`, whatever the size of the database. Left out is what is true at one place
and for minutes only: access tokens, `jti` values that were seen, feed heads (made anew for the next poll), and the row
that orders writers. Which decisions are on record is true of one log; a restored gateway begins another.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import (
    Boolean,
    ColumnElement,
    Connection,
    Engine,
    LargeBinary,
    MetaData,
    String,
    Table,
    insert,
    literal,
    select,
)
from sqlalchemy import func as sql
from sqlmodel import SQLModel

from gateway.errors import ConflictError, MalformedError

BATCH_BYTES = 1 << 20
MAX_BATCH_ROWS = 4_096
LEFT_OUT = frozenset(
    {"access_token", "replay", "feed_head", "log_tail", "decision"}
    | {"console_session", "console_invitation", "log_facet", "log_count", "log_day_count"}
)
_SCHEMA = "alembic_version"
_NARROW_BYTES = 64  # of the numbers in a row

Row = Sequence[object]


@dataclass(frozen=True, slots=True)
class TableRows:
    """A table's name, the names of its columns, and its rows, to be read once."""

    name: str
    columns: tuple[str, ...]
    batches: Iterable[Sequence[Row]]


def read_tables(connection: Connection) -> Iterator[TableRows]:
    """Every table that belongs into a copy; one that others refer to stands before them."""
    for table in SQLModel.metadata.sorted_tables:
        if table.name not in LEFT_OUT:
            yield TableRows(table.name, tuple(table.columns.keys()), _batches(connection, table))


def _batches(connection: Connection, table: Table) -> Iterator[Sequence[Row]]:
    at_once = max(1, min(MAX_BATCH_ROWS, BATCH_BYTES // _widest_row(connection, table)))
    # In the order in which the database keeps them: nothing is sorted, and nothing is sought.
    with connection.execution_options(stream_results=True, max_row_buffer=at_once).execute(select(table)) as found:
        while rows := found.fetchmany(at_once):
            yield rows


def _widest_row(connection: Connection, table: Table) -> int:
    """A bound on the bytes (of text: characters) of one row. The database knows it without reading large values."""
    width: ColumnElement[int] = literal(_NARROW_BYTES)
    for column in table.columns:
        if isinstance(column.type, LargeBinary | String):
            width = width + sql.coalesce(sql.length(column), 0)
    return int(connection.execute(select(sql.max(width)).select_from(table)).scalar() or _NARROW_BYTES)


def check_empty(engine: Engine) -> None:
    """Returns when a database holds nothing; what only an interrupted load left does not count.

    Raises:
        ConflictError: it holds something.
    """
    with engine.connect() as connection, connection.begin():
        for table in _reflected(connection).sorted_tables:
            held = connection.execute(select(sql.count()).select_from(table)).scalar_one()
            if held and table.name not in (*LEFT_OUT, _SCHEMA):
                raise ConflictError("the database is not empty", remedy="name a new one")


def write_tables(connection: Connection, tables: Iterable[TableRows]) -> None:
    """Put rows into the tables of an empty database whose schema is the one that they were read under.

    Raises:
        MalformedError: a table or a column that this schema does not have.
    """
    schema = _reflected(connection)
    for source in tables:
        target = schema.tables.get(source.name)
        if (
            target is None
            or source.name in (*LEFT_OUT, _SCHEMA)
            or not set(source.columns) <= set(target.columns.keys())
        ):
            raise MalformedError("backup: a table or a column that its schema does not have")
        words = [name for name in source.columns if isinstance(target.columns[name].type, Boolean)]
        statement = insert(target)
        for rows in source.batches:
            values = [dict(zip(source.columns, row, strict=True)) for row in rows]
            for name in words:
                for value in values:
                    value[name] = bool(value[name])
            if values:
                connection.execute(statement, values)


def _reflected(connection: Connection) -> MetaData:
    found = MetaData()
    found.reflect(connection)
    return found
