"""The only SQL. One `Store.transaction()` per deed: a change and its audit leaves commit together or not at all.

    with store.transaction() as tx:          # one writer at a time, over all threads, processes and nodes
        tx.sets.advance_mirror(...)          # compare-and-swap
        tx.log.append([event], blocks=[...]) # leaves of the same commit
    # committed here; a crash before this line leaves nothing, a crash after it leaves all of it

`Store.reading()` gives the same object over a read transaction; nobody keeps one open across a network or file write,
since in SQLite's rollback-journal mode an open reader blocks every commit.

SQLite is the embedded default (`sqlite`); PostgreSQL serves several nodes of one gateway (`postgresql`). What differs
between them is in these two modules and in `upserts`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sqlalchemy import Connection, Engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DatabaseError, IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnectionError

from gateway.errors import ConfigError, ConflictError, GatewayError, OverloadedError
from gateway.store import copying
from gateway.store.alarms import Alarms
from gateway.store.allowlists import AllowLists
from gateway.store.blocks import Blocks
from gateway.store.cases import Cases
from gateway.store.categories import Categories
from gateway.store.console import Console
from gateway.store.duties import Duties
from gateway.store.evidence import Evidence
from gateway.store.facets import Facets
from gateway.store.holds import Holds
from gateway.store.keys import Keys
from gateway.store.large import Large
from gateway.store.log import Log, LogSigner
from gateway.store.lookups import LookUps
from gateway.store.mail import Mail
from gateway.store.neveragain import NeverAgain
from gateway.store.opinions import Opinions
from gateway.store.people import People
from gateway.store.policies import Policies
from gateway.store.schedule import Schedule
from gateway.store.secrets import Secrets
from gateway.store.sets import Sets
from gateway.store.shown import Shown
from gateway.store.sqlite import SQLite
from gateway.store.statuses import Statuses
from gateway.store.tokens import Tokens
from gateway.store.withdrawals import Withdrawals
from gateway.store.witness import Witness

__all__ = ["LogSigner", "Store", "Transaction"]

NEWEST_REVISION = "0023"  # of migrations/versions; a test holds both together
BUSY_TIMEOUT_MS = 60_000  # an import batch of another process holds the lock for a few seconds at most
POOL_CONNECTIONS = 8


class Database(Protocol):
    """What differs between the databases that a store can be in."""

    engine: Engine

    def begin(self, connection: Connection, deed: str, /) -> None:
        """Begin a transaction that will "read", "write", look at the "catalogue", or change the "schema"."""

    def describe(self, connection: Connection, /) -> str:
        """Which database this is, for people: never with a password."""

    def check(self, connection: Connection, /) -> None:
        """ConfigError for a new database in which a store cannot be."""

    def snapshot(self, folder: Path, /) -> AbstractContextManager[Connection]:
        """One consistent state for as long as it is read. `folder`: on the disk of the database, for what it needs."""

    def number_on(self, connection: Connection, /) -> None:
        """Rows whose numbers the database gives are numbered after those that were put there with theirs."""

    def scrub(self) -> None:
        """What was deleted, keys of blocks above all, is in none of the database's own files any more."""

    def integrity(self, connection: Connection, /) -> str:
        """The database's own word on itself: "ok", or the first damage."""

    def explain(self, error: DatabaseError, /) -> GatewayError | None:
        """What an error means, where SQLAlchemy's class does not say it; None for nothing more than that."""


@dataclass(frozen=True, slots=True)
class Transaction:
    """One open transaction, by subject."""

    connection: Connection
    sets: Sets
    blocks: Blocks
    evidence: Evidence
    log: Log
    people: People
    mail: Mail
    tokens: Tokens
    schedule: Schedule
    keys: Keys
    large: Large
    witness: Witness
    alarms: Alarms
    secrets: Secrets
    never_again: NeverAgain
    holds: Holds
    policies: Policies
    duties: Duties
    shown: Shown
    opinions: Opinions
    allow_lists: AllowLists
    categories: Categories
    withdrawals: Withdrawals
    look_ups: LookUps
    statuses: Statuses
    cases: Cases
    console: Console
    facets: Facets


class Store:
    """The database of one gateway.

    Args:
        url: SQLAlchemy URL; `Store.sqlite_url(path)` makes the embedded default's.
        log_signer: what signs checkpoints, and gives salts for events.
    """

    def __init__(self, url: str, log_signer: LogSigner) -> None:
        self._database = _database(url)
        self._engine = self._database.engine
        self._signer = log_signer
        self._writing = threading.Lock()

    @staticmethod
    def sqlite_url(path: Path) -> str:
        """The URL of the embedded database at `path`."""
        return f"sqlite+pysqlite:///{path}"

    def migrate(self) -> None:
        """Bring the schema to the newest version; an unknown newer one is refused."""
        with self._mapped_errors():
            if self._revision() == NEWEST_REVISION:
                return  # nothing to write, so nobody who writes is waited for
            from gateway.store.migrate import upgrade  # noqa: PLC0415  alembic is slow to import and rarely needed

            upgrade(self._engine, self._database.check)

    @contextmanager
    def snapshot(self, folder: Path) -> Iterator[Transaction]:
        """One consistent state, to be read for as long as it takes, while others write.

        Args:
            folder: on the disk of the database; a copy may lie there meanwhile, under no name.
        """
        with self._mapped_errors(), self._database.snapshot(folder) as connection:
            yield self._bind(connection)

    def load(self, revision: str, tables: Iterable[copying.TableRows]) -> None:
        """Put a copy into this empty database: all of it, or nothing. Then it is brought to the newest schema.

        Args:
            revision: of the schema under which the rows were read.

        Raises:
            ConflictError: the database holds something.
            ConfigError: a newer version of this program wrote the copy.
            MalformedError: it does not fit its schema.
        """
        from gateway.store.migrate import upgrade  # noqa: PLC0415  as above

        with self._mapped_errors():
            copying.check_empty(self._engine)
            upgrade(self._engine, self._database.check, revision)
            with self._engine.connect() as connection:
                writing = connection.execution_options(deed="schema")
                with writing.begin():
                    copying.write_tables(writing, tables)
                    self._database.number_on(writing)
            upgrade(self._engine, self._database.check)

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
        with self._writing, self._mapped_errors(), self._engine.connect() as connection:
            writing = connection.execution_options(deed="write")
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
        with self._mapped_errors(), self._engine.connect() as connection:
            reading = connection.execution_options(deed="read")
            with reading.begin():
                yield self._bind(reading)

    def before_commit(self) -> None:
        """A crash here leaves nothing of the deed. Fault tests replace this method."""

    def after_commit(self) -> None:
        """A crash here leaves all of the deed. Fault tests replace this method."""

    def describe(self) -> str:
        """Which database this is, for people: never with a password."""
        with self.reading() as tx:
            return self._database.describe(tx.connection)

    def integrity(self) -> str:
        """The database's own word on itself: "ok", or the first damage. Reads all of it.

        Raises:
            ConfigError: it is so damaged that it cannot say, or its server is set up to lose what it confirmed.
        """
        with self.reading() as tx:
            return self._database.integrity(tx.connection)

    def scrub(self) -> None:
        """What was deleted, keys of blocks above all, is in none of the database's own files any more.

        What the disk keeps of files of before, and what replicas and archives of a server keep, is out of its reach.
        """
        with self._mapped_errors():
            self._database.scrub()

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    @contextmanager
    def _mapped_errors(self) -> Iterator[None]:
        """Database errors as ours: a lost race is a conflict, a full or locked one is overload, a bug stays a bug."""
        try:
            yield
        except IntegrityError as error:
            raise ConflictError("another deed was first") from error
        except NoConnectionError as error:
            raise OverloadedError("the database cannot be used now") from error
        except DatabaseError as error:
            meaning = self._database.explain(error)
            if meaning is None and isinstance(error, OperationalError):
                meaning = OverloadedError("the database cannot be used now")
            if meaning is None:
                raise
            raise meaning from error

    def _bind(self, connection: Connection) -> Transaction:
        return Transaction(
            connection=connection,
            sets=Sets(connection),
            blocks=Blocks(connection),
            evidence=Evidence(connection),
            log=Log(connection, self._signer),
            people=People(connection),
            mail=Mail(connection),
            tokens=Tokens(connection),
            schedule=Schedule(connection),
            keys=Keys(connection),
            large=Large(connection),
            witness=Witness(connection),
            alarms=Alarms(connection),
            secrets=Secrets(connection),
            never_again=NeverAgain(connection),
            holds=Holds(connection),
            policies=Policies(connection),
            duties=Duties(connection),
            shown=Shown(connection),
            opinions=Opinions(connection),
            allow_lists=AllowLists(connection),
            categories=Categories(connection),
            withdrawals=Withdrawals(connection),
            look_ups=LookUps(connection),
            statuses=Statuses(connection),
            cases=Cases(connection),
            console=Console(connection),
            facets=Facets(connection),
        )


def _database(url: str) -> Database:
    """The database of a URL. What an error says of the URL may hold a password, so nothing of it goes on."""
    options = {"busy_timeout_ms": BUSY_TIMEOUT_MS, "connections": POOL_CONNECTIONS}
    database: Database
    try:
        parsed = make_url(url)
        match parsed.drivername:
            case "sqlite" | "sqlite+pysqlite":
                database = SQLite(parsed, **options)
            case "postgresql" | "postgresql+psycopg":
                from gateway.store.postgresql import PostgreSQL  # noqa: PLC0415  its driver is slow to import

                database = PostgreSQL(parsed, **options)
            case _:
                raise ConfigError("the database is neither SQLite nor PostgreSQL through psycopg", place="database")
    except (ArgumentError, ValueError):
        raise ConfigError("the database URL cannot be read", place="database") from None

    @event.listens_for(database.engine, "begin")
    def _begin(connection: Connection) -> None:
        database.begin(connection, connection.get_execution_options().get("deed", "catalogue"))

    return database


def quick_check(store: Store) -> Callable[[], str]:
    """A function that asks the database for its own integrity word ("ok")."""
    return store.integrity
