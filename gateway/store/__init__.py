"""The only SQL. One `Store.transaction()` per deed: a change and its audit leaves commit together or not at all.

    with store.transaction() as tx:          # takes the write lock at once (BEGIN IMMEDIATE)
        tx.sets.advance_mirror(...)          # compare-and-swap
        tx.log.append([event], blocks=[...]) # leaves of the same commit
    # committed here; a crash before this line leaves nothing, a crash after it leaves all of it

`Store.reading()` gives the same object over a read transaction; nobody keeps one open across a network or file write,
since in rollback-journal mode an open reader blocks every commit.

SQLite is the embedded default. Rollback journal (TRUNCATE, synchronous=EXTRA) unless the library is 3.51.3 or newer:
older ones have the WAL-reset corruption bug when two connections checkpoint at once (sqlite.org, "WAL-reset bug").
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DatabaseError, IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnectionError
from sqlalchemy.pool import QueuePool

from gateway.errors import ConfigError, ConflictError, OverloadedError
from gateway.store.alarms import Alarms
from gateway.store.blocks import Blocks
from gateway.store.keys import Keys
from gateway.store.log import Log, LogSigner
from gateway.store.mail import Mail
from gateway.store.people import People
from gateway.store.schedule import Schedule
from gateway.store.secrets import Secrets
from gateway.store.sets import Sets
from gateway.store.tokens import Tokens
from gateway.store.witness import Witness

__all__ = ["LogSigner", "Store", "Transaction"]

NEWEST_REVISION = "0002"  # of migrations/versions; a test holds both together
WAL_SAFE_SQLITE = (3, 51, 3)
BUSY_TIMEOUT_MS = 60_000  # an import batch of another process holds the lock for a few seconds at most
POOL_CONNECTIONS = 8


@dataclass(frozen=True, slots=True)
class Transaction:
    """One open transaction, by subject."""

    connection: Connection
    sets: Sets
    blocks: Blocks
    log: Log
    people: People
    mail: Mail
    tokens: Tokens
    schedule: Schedule
    keys: Keys
    witness: Witness
    alarms: Alarms
    secrets: Secrets


class Store:
    """The database of one gateway.

    Args:
        url: SQLAlchemy URL; `Store.sqlite_url(path)` makes the embedded default's.
        log_signer: what signs checkpoints, and gives salts for events.
    """

    def __init__(self, url: str, log_signer: LogSigner) -> None:
        self._engine = _engine(url)
        self._signer = log_signer
        self._writing = threading.Lock()

    @staticmethod
    def sqlite_url(path: Path) -> str:
        """The URL of the embedded database at `path`."""
        return f"sqlite+pysqlite:///{path}"

    def migrate(self) -> None:
        """Bring the schema to the newest version; an unknown newer one is refused."""
        with _mapped_errors():
            if self._revision() == NEWEST_REVISION:
                return  # nothing to write, so nobody who writes is waited for
            from gateway.store.migrate import upgrade  # noqa: PLC0415  alembic is slow to import and rarely needed

            upgrade(self._engine)

    def _revision(self) -> str | None:
        """The schema's revision; None for a new database."""
        with self._engine.connect() as connection, connection.begin():
            if not connection.dialect.has_table(connection, "alembic_version"):
                return None
            found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
            return None if found is None else str(found)

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """A write transaction: commits at the end of the block, rolls back on any exception."""
        with self._writing, _mapped_errors(), self._engine.connect() as connection:
            writing = connection.execution_options(write=True)
            with writing.begin() as unit:
                tx = self._bind(writing)
                yield tx
                tx.log.close()
                self.before_commit()
                unit.commit()
            self.after_commit()

    @contextmanager
    def reading(self) -> Iterator[Transaction]:
        """A short read transaction: one consistent state."""
        with _mapped_errors(), self._engine.connect() as connection, connection.begin():
            yield self._bind(connection)

    def before_commit(self) -> None:
        """A crash here leaves nothing of the deed. Fault tests replace this method."""

    def after_commit(self) -> None:
        """A crash here leaves all of the deed. Fault tests replace this method."""

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def _bind(self, connection: Connection) -> Transaction:
        return Transaction(
            connection=connection,
            sets=Sets(connection),
            blocks=Blocks(connection),
            log=Log(connection, self._signer),
            people=People(connection),
            mail=Mail(connection),
            tokens=Tokens(connection),
            schedule=Schedule(connection),
            keys=Keys(connection),
            witness=Witness(connection),
            alarms=Alarms(connection),
            secrets=Secrets(connection),
        )


def _engine(url: str) -> Engine:
    """An engine whose transactions are ours to begin, with the pragmas of DESIGN.md section 5."""
    if not url.startswith("sqlite"):
        raise ConfigError("this version stores in SQLite only", place="database_url")
    engine = create_engine(
        url, poolclass=QueuePool, pool_size=POOL_CONNECTIONS, connect_args={"timeout": BUSY_TIMEOUT_MS / 1000}
    )

    @event.listens_for(engine, "connect")
    def _pragmas(dbapi: sqlite3.Connection, _record: Any) -> None:
        dbapi.isolation_level = None  # the driver must not begin transactions of its own
        journal = "WAL" if sqlite3.sqlite_version_info >= WAL_SAFE_SQLITE else "TRUNCATE"
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

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        write = connection.get_execution_options().get("write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


@contextmanager
def _mapped_errors() -> Iterator[None]:
    """Database errors as ours: a lost race is a conflict, a full or locked database is overload, a bug stays a bug."""
    try:
        yield
    except IntegrityError as error:
        raise ConflictError("another deed was first") from error
    except (OperationalError, NoConnectionError) as error:
        raise OverloadedError("the database cannot be used now") from error
    except DatabaseError as error:
        if type(error) is not DatabaseError:
            raise
        # sqlite3 has no class of its own for SQLITE_CORRUPT and SQLITE_NOTADB.
        raise ConfigError(
            "the database file is damaged, or not a database", remedy="restore it from a backup"
        ) from error


def quick_check(store: Store) -> Callable[[], str]:
    """A function that asks the database for its own integrity word ("ok")."""

    def ask() -> str:
        with store.reading() as tx:
            # Damage may be many rows; the first of them is enough.
            return str(tx.connection.execute(text("PRAGMA quick_check(1)")).scalar_one())

    return ask
