"""SQLite: the embedded default. One file, one writer at a time.

Rollback journal (TRUNCATE, synchronous=EXTRA) unless the library is 3.51.3 or newer: older ones have the WAL-reset
corruption bug when two connections checkpoint at once (sqlite.org, "WAL-reset bug").
"""

from __future__ import annotations

import math
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DatabaseError
from sqlalchemy.pool import QueuePool, StaticPool

from gateway.errors import ConfigError, GatewayError, OverloadedError

STEP_PAGES = 4_096  # 16 MiB: some ten milliseconds
STEP_PAUSE_SECONDS = 0.02  # long enough for a commit that waits
MAX_COPIES = 3
WAL_SAFE = (3, 51, 3)


class SQLite:
    """One database file, as `gateway.store.Database`.

    Args:
        busy_timeout_ms: how long a writer waits for another.
        connections: how many are kept open.
    """

    def __init__(self, url: URL, *, busy_timeout_ms: int, connections: int) -> None:
        self.engine = _engine(url, busy_timeout_ms, connections)

    def begin(self, connection: Connection, deed: str) -> None:
        """Begin a transaction that will "read", "write", look at the "catalogue", or change the "schema"."""
        connection.exec_driver_sql("BEGIN" if deed in ("read", "catalogue") else "BEGIN IMMEDIATE")

    def describe(self, _connection: Connection) -> str:
        """Which database this is, for people."""
        return "SQLite"

    def check(self, _connection: Connection) -> None:
        """Every SQLite will do."""

    @contextmanager
    def snapshot(self, folder: Path) -> Iterator[Connection]:
        """A copy of the file, without a name: it goes with whoever reads it, however that ends."""
        descriptor, name = tempfile.mkstemp(prefix=".snapshot.", dir=folder)
        os.close(descriptor)
        with closing(sqlite3.connect(name, isolation_level=None, check_same_thread=False)) as copy:
            try:
                copy.execute(
                    "PRAGMA journal_mode=MEMORY"
                )  # opens the file; and a copy begun anew undoes the one before
            finally:
                os.unlink(name)
            with closing(self.engine.raw_connection()) as source:
                _copy(source.driver_connection, copy)
            reader = create_engine(
                "sqlite+pysqlite://", creator=lambda: copy, poolclass=StaticPool, hide_parameters=True
            )
            with reader.connect() as connection:
                yield connection

    def number_on(self, _connection: Connection) -> None:
        """SQLite numbers after the highest by itself."""

    def scrub(self) -> None:
        """Deleted rows were zeroed at once (`secure_delete`), and a rollback journal is empty after each commit: there
        may be a write-ahead log."""
        with closing(self.engine.raw_connection()) as connection:
            assert connection.driver_connection is not None
            busy, _, _ = connection.driver_connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise OverloadedError("somebody reads the database: what was deleted is still in its write-ahead log")

    def integrity(self, connection: Connection) -> str:
        """The database's own word on its pages: "ok", or the first damage."""
        # Damage may be many rows; the first of them is enough.
        return str(connection.execute(text("PRAGMA quick_check(1)")).scalar_one())

    def explain(self, error: DatabaseError) -> GatewayError | None:
        """What an error means, where SQLAlchemy's class does not say it; None for nothing more than that."""
        if type(error) is not DatabaseError:
            return None
        # sqlite3 has no class of its own for SQLITE_CORRUPT and SQLITE_NOTADB.
        return ConfigError("the database file is damaged, or not a database", remedy="restore it from a backup")


def _copy(source: Any, copy: sqlite3.Connection) -> None:
    """One consistent state of a database that others write to.

    With a write-ahead log nobody waits for a reader. With a rollback journal every commit does: so the copy is made in
    steps between which the lock is let go. A commit of others in between begins it anew. After `MAX_COPIES` it is made
    in one step, and whoever writes waits for as long as the disk takes.
    """
    left = math.inf
    beginnings = 1

    def watch(_status: int, remaining: int, _total: int) -> None:
        nonlocal left, beginnings
        beginnings += remaining > left
        left = remaining
        if beginnings > MAX_COPIES:
            raise _BegunTooOftenError

    in_steps = source.execute("PRAGMA journal_mode").fetchone()[0] != "wal"
    if in_steps:
        try:
            source.backup(copy, pages=STEP_PAGES, progress=watch, sleep=STEP_PAUSE_SECONDS)
        except _BegunTooOftenError:
            in_steps = False
    if not in_steps:
        source.backup(copy)


class _BegunTooOftenError(Exception):
    """Others write faster than the copy is made in steps."""


def _engine(url: URL, busy_timeout_ms: int, connections: int) -> Engine:
    """An engine whose transactions are ours to begin, with the pragmas of DESIGN.md section 5."""
    engine = create_engine(
        url,
        poolclass=QueuePool,
        pool_size=connections,
        connect_args={"timeout": busy_timeout_ms / 1000},
        hide_parameters=True,
    )

    @event.listens_for(engine, "connect")
    def _pragmas(dbapi: sqlite3.Connection, _record: Any) -> None:
        dbapi.isolation_level = None  # the driver must not begin transactions of its own
        journal = "WAL" if sqlite3.sqlite_version_info >= WAL_SAFE else "TRUNCATE"
        level = "FULL" if journal == "WAL" else "EXTRA"
        dbapi.execute(f"PRAGMA journal_mode={journal}")
        for pragma in (
            f"synchronous={level}",
            "foreign_keys=ON",
            "trusted_schema=OFF",
            "secure_delete=ON",
            "cell_size_check=ON",
        ):
            dbapi.execute(f"PRAGMA {pragma}")

    return engine
