"""The same gateway over PostgreSQL, whose server is started for the time of the bench."""

from __future__ import annotations

import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import cast

import numpy as np
from measure import Bar, Figure, Run, Scale, compare, timed
from sqlmodel import Session, create_engine
from tables import Entry
from worlds import CLOCK, HUB, Row, batches, drafts, table_rows

from factory import make_node, make_set, reopened
from gateway.audit import EventKind
from gateway.columns.drafts import DraftBatch
from gateway.crypto.keys import SYSTEM_RANDOM
from gateway.exchange import Exchange
from gateway.node import Node
from postgres import Server, is_installed, name_of

# As a server is set up for work; the rest is as PostgreSQL comes.
SETTINGS = {"shared_buffers": "128MB", "autovacuum": "on", "max_wal_size": "2GB"}
COLUMNS = "sha256 BYTEA {}, md5 BYTEA NOT NULL, pdq BYTEA NOT NULL, label INT NOT NULL, quality INT NOT NULL"
# PostgreSQL, COPY, binary format: signature, flags, no extension; at the end a count of -1.
COPY_HEAD = b"PGCOPY\n\xff\r\n\0" + bytes(8)
COPY_END = b"\xff\xff"
# One row: how many fields, and each with its length before it.
WIDTHS = {"sha256": 32, "md5": 16, "pdq": 32}
_DIGESTS = [pair for name, width in WIDTHS.items() for pair in ((f"{name} bytes", ">i4"), (name, f"V{width}"))]
_NUMBERS = [pair for name in ("label", "quality") for pair in ((f"{name} bytes", ">i4"), (name, ">i4"))]
COPIED = np.dtype([("fields", ">i2"), *_DIGESTS, *_NUMBERS])
ORM_ROWS = 5_000  # some 150 us each, however many there are


def bench_postgresql(scale: Scale) -> Iterator[Figure]:
    """Import, small deeds and reading over PostgreSQL, beside rows in a table of the same server."""
    if not is_installed():
        print("# postgresql: PostgreSQL is not installed here, so there is no figure of it", file=sys.stderr)
        return
    with Server(scale.folder, **SETTINGS) as server:
        yield from _import(scale, server)
        with _gateway(scale, server) as exchange:
            yield from _deeds(scale, exchange)
            yield from _read(scale, server, exchange)


@contextmanager
def _gateway(scale: Scale, server: Server) -> Iterator[Exchange]:
    """A gateway with a new database, which goes with it."""
    with tempfile.TemporaryDirectory(dir=scale.folder) as place:
        database = server.copy(server.new_database())
        node = make_node(Path(place), HUB, clock=CLOCK, random=SYSTEM_RANDOM, database=database)
        try:
            yield Exchange(node)
        finally:
            node.store.close()
            server.drop_made()


def _import(scale: Scale, server: Server) -> Iterator[Figure]:
    count = scale.size(200_000, 2_000)
    entries = list(batches(count))  # as adapters hand them over
    rows = table_rows(list(drafts(count)))
    sizes: list[tuple[int, int]] = []

    def product() -> Run:
        with _gateway(scale, server) as exchange:
            name = make_set(exchange, "identified")
            before = _written(server, exchange.node)
            run = timed(lambda: _take_in(exchange, name, entries, count), count)
            after = _written(server, exchange.node)
        sizes.append((after[0] - before[0], after[1] - before[1]))
        return run

    keyed, bare = "COPY packed by numpy into a table keyed by hash", "bare, the same without a key"
    objects = "SQLModel add_all"
    table = server.create()
    baselines: dict[str, Callable[[], Run]] = {
        keyed: lambda: _copy(server, table, rows, key="PRIMARY KEY"),
        bare: lambda: _copy(server, table, rows, key="NOT NULL"),
        objects: lambda: _add_all(server, table, rows[: scale.size(ORM_ROWS, 200)]),
    }
    bars = {keyed: Bar(11, at_least=1), objects: Bar(11, at_least=30)}
    yield from compare("postgresql.import", product, baselines, unit="entries/s", rounds=scale.rounds, bars=bars)
    yield Figure("postgresql.disk", min(stored for stored, _ in sizes) / count, "B/entry")
    yield Figure("postgresql.wal", min(logged for _, logged in sizes) / count, "B/entry")


def _take_in(exchange: Exchange, name: str, entries: Sequence[DraftBatch], count: int) -> None:
    tally = exchange.ledger.import_entries(name, entries, actor="bench", form="bench")
    assert (tally.added, tally.rows) == (count, count)


def _written(server: Server, node: Node) -> tuple[int, int]:
    """Bytes of the database on disk, and bytes that the server has written to its log since it was made."""
    with closing(server.connect(name_of(node.settings.database))) as connection:
        query = "SELECT pg_database_size(current_database()), pg_current_wal_lsn() - '0/0'"
        [(stored, logged)] = connection.execute(query).fetchall()
    return int(stored), int(logged)


def _copy(server: Server, database: str, rows: Sequence[Row], *, key: str) -> Run:
    """Rows packed by numpy into one binary COPY: the fastest way for rows in a table."""
    with closing(server.connect(database)) as connection:
        connection.execute(f"CREATE TABLE h({COLUMNS.format(key)})")  # type: ignore[call-overload]  # text of our own

        def run() -> None:
            packed = np.zeros(len(rows), COPIED)
            packed["fields"] = 5
            for at, (name, width) in enumerate(WIDTHS.items()):
                packed[f"{name} bytes"] = width
                packed[name] = np.frombuffer(b"".join(cast(bytes, row[at]) for row in rows), f"V{width}")
            for at, name in ((3, "label"), (4, "quality")):
                packed[f"{name} bytes"] = 4
                packed[name] = [row[at] for row in rows]
            with connection.cursor().copy("COPY h FROM STDIN (FORMAT BINARY)") as copy:
                copy.write(COPY_HEAD + packed.tobytes() + COPY_END)

        found = timed(run, len(rows))
        assert connection.execute("SELECT count(*) FROM h").fetchall() == [(len(rows),)]
        connection.execute("DROP TABLE h")
    return found


def _add_all(server: Server, database: str, rows: Sequence[Row]) -> Run:
    """Rows as SQLModel objects: the default road."""
    engine = create_engine(server.url(database).replace("postgresql:", "postgresql+psycopg:"))
    table = Entry.__table__  # type: ignore[attr-defined]  # SQLModel's table is not in its type
    table.create(engine)

    def run() -> None:
        with Session(engine) as session:
            session.add_all(
                [Entry(sha256=a, md5=b, pdq=c, label=label, quality=quality) for a, b, c, label, quality in rows]
            )
            session.commit()

    found = timed(run, len(rows))
    table.drop(engine)
    engine.dispose()
    return found


def _deeds(scale: Scale, exchange: Exchange) -> Iterator[Figure]:
    """Small logged deeds, each a commit of its own: two nodes at once wait for each other."""
    count = scale.size(400, 10)
    nodes = exchange.node, reopened(exchange.node)

    def alone() -> Run:
        return timed(lambda: _log(nodes[0], count), count)

    def both() -> Run:
        threads = [threading.Thread(target=_log, args=(node, count // 2)) for node in nodes]

        def run() -> None:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        return timed(run, count)

    yield from compare("postgresql.deeds", both, {"one node": alone}, unit="deeds/s", rounds=scale.rounds)
    nodes[1].store.close()


def _log(node: Node, count: int) -> None:
    for _ in range(count):
        event = node.event(EventKind.LOOK_UP, actor="bench", subject=HUB, details={"asked": 1, "answered": 0})
        with node.store.transaction() as tx:
            tx.log.append([event])


def _read(scale: Scale, server: Server, exchange: Exchange) -> Iterator[Figure]:
    """The index of a node that starts; sealed parts as they travel, and as they would as text."""
    count = scale.size(200_000, 2_000)
    name = make_set(exchange, "identified")
    _take_in(exchange, name, list(batches(count)), count)
    store, database = exchange.node.store, name_of(exchange.node.settings.database)

    def start() -> Run:
        shelf = Exchange(exchange.node).shelf

        def run() -> None:
            with shelf.reading(store) as tx, shelf.index(tx, tx.sets.get(name).id or 0):
                pass

        return timed(run, count / 1e6)

    fastest = max((start() for _ in range(scale.rounds)), key=lambda run: run.rate)
    yield Figure("postgresql.index", 1 / fastest.rate, "s/million")

    def read(*, binary: bool) -> Run:
        found: list[int] = []
        with closing(server.connect(database)) as connection:
            cursor = connection.cursor(binary=binary)

            def run() -> None:
                cursor.execute("SELECT sealed FROM block_part")
                found.extend(len(sealed) for (sealed,) in cursor)

            done = timed(run, 1)
        return Run(done.seconds, sum(found) / (1 << 20))

    text = {"as text": lambda: read(binary=False)}
    yield from compare("postgresql.parts", lambda: read(binary=True), text, unit="MiB/s", rounds=scale.rounds)
