"""PostgreSQL: for several nodes of one gateway (decision 0009, docs/beyond-one-server.md).

    postgresql://gateway@db.example/gateway?sslmode=verify-full

Rules:

1. One writer at a time, as with SQLite: a write transaction is READ COMMITTED and locks the one row of `log_tail`
   before it reads anything. Each statement after that sees all that earlier writers committed, and nobody commits in
   between: leaves never interleave, ids rise in the order of commits, a compare-and-swap compares with the newest.
2. A read transaction is REPEATABLE READ, READ ONLY: one consistent state however many statements look at it, without a
   lock that a writer would wait for. READ COMMITTED would show each statement another state.
3. The schema is changed under an advisory lock, since the row of rule 1 may not be there yet.
4. Nobody holds the lock for longer than a node lives: the server ends a transaction whose node says nothing for
   `IDLE_TIMEOUT_MS`, and finds out by itself that a node's machine is gone.
5. Bytes travel as bytes in both directions. What was confirmed is on disk: `synchronous_commit=off` is not accepted.
6. Text is UTF-8 and sorts by its bytes, as in SQLite: an update of the server's locale can then spoil no index.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, cast

import psycopg
from psycopg.pq import Format
from sqlalchemy import URL, Column, ColumnElement, Connection, Engine, create_engine, event, select, text
from sqlalchemy import func as sql
from sqlalchemy.exc import DatabaseError, DataError, OperationalError, ProgrammingError
from sqlalchemy.pool import QueuePool
from sqlalchemy.types import LargeBinary, String
from sqlmodel import SQLModel

from gateway.errors import ConfigError, GatewayError, MalformedError, OverloadedError

DRIVER = "postgresql+psycopg"
# An import works for a few seconds on one batch between two statements, on a slow machine.
IDLE_TIMEOUT_MS = 60_000
SCHEMA_LOCK = 0x67617465776179  # "gateway": the number means nothing, and is the same in every node
# Unless the URL says otherwise: a server that is gone is given up within half a minute, at either end.
LINK = {
    "application_name": "gateway",
    "client_encoding": "utf8",
    "connect_timeout": "10",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "25000",
}
# One round trip for each new connection.
_SESSION = """
SELECT set_config('lock_timeout', %(busy)s, false),
       set_config('idle_in_transaction_session_timeout', %(idle)s, false),
       set_config('tcp_keepalives_idle', '10', false),
       set_config('tcp_keepalives_interval', '5', false),
       set_config('tcp_keepalives_count', '3', false),
       CASE current_setting('synchronous_commit')
            WHEN 'off' THEN set_config('synchronous_commit', 'on', false) END
"""
# SQLSTATE (PostgreSQL, Appendix A) of what psycopg calls an internal or a programming error.
_UNUSABLE = {
    "25006",  # read only: a replica, or a primary that has become one
    "25P03",  # idle for too long within a transaction
}
_DAMAGED = {"XX001", "XX002"}
_REFUSED = {
    "42501",  # insufficient privilege
    "3D000",  # no such database
}


class PostgreSQL:
    """One database of a PostgreSQL server, as `gateway.store.Database`.

    Args:
        busy_timeout_ms: how long a writer waits for another.
        connections: how many are kept open.
    """

    def __init__(self, url: URL, *, busy_timeout_ms: int, connections: int) -> None:
        self.engine = _engine(url, busy_timeout_ms, connections)

    def begin(self, connection: Connection, deed: str) -> None:
        """Begin a transaction that will "read", "write", look at the "catalogue", or change the "schema"."""
        dbapi = cast(psycopg.Connection[Any], connection.connection.dbapi_connection)
        # SQLAlchemy reads the catalogue as text.
        dbapi.cursor_factory = _Cursor if deed in ("read", "write") else psycopg.Cursor
        if deed in ("read", "catalogue"):
            connection.exec_driver_sql("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            return
        connection.exec_driver_sql("BEGIN ISOLATION LEVEL READ COMMITTED")
        if deed == "schema":
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({SCHEMA_LOCK})")
        elif connection.exec_driver_sql("SELECT id FROM log_tail FOR UPDATE").first() is None:
            raise ConfigError("the row that orders those who write is gone", remedy="restore the database")

    def describe(self, connection: Connection) -> str:
        """Which database this is, for people: never with a password."""
        # Asked of the server, so that of a URL with several hosts the one in use is named, and no word of the URL.
        query = (
            "SELECT current_setting('server_version'), current_database(), host(inet_server_addr()), inet_server_port()"
        )
        version, name, host, port = connection.execute(text(query)).one()
        where = f"{host}:{port}" if host else "this machine, through a socket"
        return f"PostgreSQL {version.split()[0]}, database {name} on {where}"

    def check(self, connection: Connection) -> None:
        """ConfigError for a database that encodes or sorts text otherwise than SQLite does."""
        query = "SELECT pg_encoding_to_char(encoding), datcollate FROM pg_database WHERE datname = current_database()"
        encoding, collation = connection.execute(text(query)).one()
        if (encoding, collation) not in {("UTF8", "C"), ("UTF8", "POSIX"), ("UTF8", "C.UTF-8"), ("UTF8", "C.utf8")}:
            raise ConfigError(
                "the database does not hold UTF-8 that sorts by its bytes",
                remedy="make it with: createdb --template=template0 --encoding=UTF8 --locale=C NAME",
            )

    @contextmanager
    def snapshot(self, _folder: Path) -> Iterator[Connection]:
        """A read transaction: rule 2 makes it one state for as long as it lasts, and nobody waits for it."""
        with self.engine.connect() as connection:
            reading = connection.execution_options(deed="read")
            with reading.begin():
                yield reading

    def number_on(self, connection: Connection) -> None:
        """The counters of numbered tables go on after the highest number that is there."""
        for table in SQLModel.metadata.sorted_tables:
            for column in table.primary_key.columns:
                counter = sql.pg_get_serial_sequence(table.name, column.name)
                if connection.execute(select(counter)).scalar() is not None:
                    connection.execute(select(sql.setval(counter, select(sql.max(column)).scalar_subquery())))

    def scrub(self) -> None:
        """The tables with the keys of blocks and of large values are written anew: without its key a part is noise."""
        with closing(self.engine.raw_connection()) as connection:
            connection.cursor().execute("VACUUM FULL block, large_value")

    def integrity(self, connection: Connection) -> str:
        """ "ok" when every row of every table can be read and every index is whole, else the first damage.

        Raises:
            ConfigError: a page does not fit its checksum (where the server was made with checksums), or the server is
                set up so that a crash loses what was confirmed.
        """
        # 1. Settings without which a crash of the server loses commits or tears pages.
        for setting in ("fsync", "full_page_writes"):
            if connection.execute(text(f"SHOW {setting}")).scalar_one() != "on":
                raise ConfigError(f"the database server runs with {setting}=off", remedy="turn it on")
        # 2. Indexes that a crash or a failed rebuild left unfinished.
        query = "SELECT count(*) FROM pg_index JOIN pg_class ON pg_class.oid = indrelid WHERE NOT indisvalid"
        if connection.execute(text(query)).scalar_one():
            return "an index is not valid"
        # 3. Every row whole: long values lie in rows of their own, which are read only when the value is.
        for table in SQLModel.metadata.sorted_tables:
            connection.execute(select(sql.count(), *(_read_whole(column) for column in table.columns))).all()
        return "ok"

    def explain(self, error: DatabaseError) -> GatewayError | None:
        """What an error means, where SQLAlchemy's class does not say it; None for nothing more than that."""
        if error.statement is None and isinstance(error, OperationalError):
            # The server may be gone or starting, or refuse the user: of a connection that failed libpq gives no code.
            return OverloadedError("the database cannot be reached: it does not run, or does not let this user in")
        if error.statement is None and isinstance(error, ProgrammingError):
            return ConfigError("the database URL has an option that there is not", place="database")
        if isinstance(error, DataError):
            return MalformedError("a value that the database cannot hold")  # a text with NUL, a number of over 64 bits
        code = getattr(error.orig, "sqlstate", None)
        if code in _UNUSABLE or error.connection_invalidated:
            return OverloadedError("the database cannot be used now")
        if code in _DAMAGED:
            return ConfigError("the database is damaged", remedy="restore it from a backup, or go to a replica")
        if code in _REFUSED:
            return ConfigError("the database refuses this user", remedy="docs/beyond-one-server.md says what it needs")
        return None


def _read_whole(column: Column[Any]) -> ColumnElement[int]:
    """The number of values of a column, each of which was read to its end."""
    if isinstance(column.type, LargeBinary):
        return sql.count(sql.sha256(column))
    return sql.count(sql.md5(column)) if isinstance(column.type, String) else sql.count(column)


class _Cursor(psycopg.Cursor[Any]):
    """Results come as the server holds them: as text, bytes would be hexadecimal, twice as long."""

    def __init__(self, connection: psycopg.Connection[Any], **options: Any) -> None:
        super().__init__(connection, **options)
        self.format = Format.BINARY


class _ServerCursor(psycopg.ServerCursor[Any]):
    """The same for results that are read piece by piece."""

    def __init__(self, connection: psycopg.Connection[Any], name: str, **options: Any) -> None:
        super().__init__(connection, name, **options)
        self.format = Format.BINARY


def _engine(url: URL, busy_timeout_ms: int, connections: int) -> Engine:
    """An engine whose transactions are ours to begin."""
    link = {name: value for name, value in LINK.items() if name not in url.query}
    engine = create_engine(
        url.set(drivername=DRIVER).update_query_dict(link),
        poolclass=QueuePool,
        pool_size=connections,
        pool_pre_ping=True,  # a connection that was cut off meanwhile is replaced before anything is asked of it
        hide_parameters=True,
        use_native_hstore=False,
        # The driver must not begin transactions of its own.
        connect_args={"autocommit": True},
    )

    @event.listens_for(engine, "connect")
    def _session(dbapi: psycopg.Connection[Any], _record: Any) -> None:
        dbapi.server_cursor_factory = _ServerCursor
        dbapi.execute(_SESSION, {"busy": str(busy_timeout_ms), "idle": str(IDLE_TIMEOUT_MS)})

    return engine
