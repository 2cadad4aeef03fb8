"""Baselines: what a user would pick instead. Plain SQLite tables, rows as JSON, SQLModel objects."""

from __future__ import annotations

import csv
import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from importlib import import_module
from importlib.util import find_spec
from io import BytesIO, TextIOWrapper
from pathlib import Path

import zstandard
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from measure import Run, timed
from sqlmodel import Field, Session, SQLModel, create_engine
from worlds import SCHEMA, Row

# The faster library where it is installed; the name of the one used stands beside the figure.
JSON = "orjson" if find_spec("orjson") else "json"
CODEC = import_module(JSON)

UPSERT = "INSERT INTO h VALUES(?,?,?,?,?) ON CONFLICT(sha256) DO UPDATE SET label=excluded.label"
INSERT = "INSERT INTO h VALUES(?,?,?,?,?)"


def open_table(path: Path) -> sqlite3.Connection:
    """A new database with the table, as fast as it is durable: WAL and synchronous=FULL."""
    path.unlink(missing_ok=True)
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", "PRAGMA cache_size=-65536", *SCHEMA):
        connection.execute(statement)
    return connection


def insert(connection: sqlite3.Connection, rows: Sequence[Row], sql: str = INSERT) -> None:
    """All rows in one durable commit."""
    connection.execute("BEGIN")
    connection.executemany(sql, rows)
    connection.execute("COMMIT")


def executemany(path: Path, rows: Sequence[Row], *, upsert: bool = False) -> Run:
    """Rows of the standard library's executemany into an empty table."""
    with closing(open_table(path)) as connection:
        run = timed(lambda: insert(connection, rows, UPSERT if upsert else INSERT), len(rows))
        assert connection.execute("SELECT count(*) FROM h").fetchone() == (len(rows),)
    return run


def csv_and_executemany(path: Path, raw: bytes) -> Run:
    """A CSV file read by the standard library, its rows sorted by key and inserted."""
    labels: dict[tuple[str, ...], int] = {}

    def run(connection: sqlite3.Connection) -> None:
        from_hex = bytes.fromhex
        cells = csv.reader(TextIOWrapper(BytesIO(raw), newline=""))
        next(cells)
        rows = [
            (from_hex(a), from_hex(b), from_hex(c), labels.setdefault((*label,), len(labels)), int(quality))
            for a, b, c, quality, *label in cells
        ]
        rows.sort()
        insert(connection, rows)

    with closing(open_table(path)) as connection:
        return timed(lambda: run(connection), raw.count(b"\n"))


class Entry(SQLModel, table=True):
    """One row as an object."""

    __tablename__ = "h"
    sha256: bytes = Field(primary_key=True)
    md5: bytes
    pdq: bytes
    label: int
    quality: int


def add_all(path: Path, rows: Sequence[Row]) -> Run:
    """Rows as SQLModel objects: the default road."""
    path.unlink(missing_ok=True)
    engine = create_engine(f"sqlite:///{path}")
    Entry.__table__.create(engine)  # type: ignore[attr-defined]  # SQLModel's table is not in its type

    def run() -> None:
        with Session(engine) as session:
            session.add_all(
                [Entry(sha256=a, md5=b, pdq=c, label=label, quality=quality) for a, b, c, label, quality in rows]
            )
            session.commit()

    found = timed(run, len(rows))
    engine.dispose()
    return found


def json_pipeline(path: Path, rows: Sequence[Row]) -> tuple[Run, int]:
    """Rows as JSON objects, zstd, AES-GCM, and back, then an upsert; with the bytes on the wire."""
    cipher, nonce = AESGCM(bytes(32)), bytes(12)
    wire: list[bytes] = []
    with closing(open_table(path)) as connection:

        def run() -> None:
            objects = [
                {"sha256": a.hex(), "md5": b.hex(), "pdq": c.hex(), "label": label, "quality": quality}
                for a, b, c, label, quality in rows
            ]
            raw = CODEC.dumps(objects)
            raw = raw.encode() if isinstance(raw, str) else raw
            sealed = cipher.encrypt(nonce, zstandard.ZstdCompressor(level=3).compress(raw), None)
            wire.append(sealed)
            opened = zstandard.ZstdDecompressor().decompress(cipher.decrypt(nonce, sealed, None))
            parsed = CODEC.loads(opened)
            from_hex = bytes.fromhex
            taken = [
                (from_hex(o["sha256"]), from_hex(o["md5"]), from_hex(o["pdq"]), o["label"], o["quality"])
                for o in parsed
            ]
            insert(connection, taken, UPSERT)

        found = timed(run, len(rows))
        assert connection.execute("SELECT count(*) FROM h").fetchone() == (len(rows),)
    return found, len(wire[0])


def floor(path: Path, rows: Sequence[Row]) -> Run:
    """The least that a sealed, durable delta costs: columns packed, AEAD both ways, the bytes written and fsynced."""
    cipher = AESGCM(bytes(32))
    frame = 1 << 20
    columns = [b"".join(column) for column in list(zip(*rows, strict=True))[:3]]
    small = bytes(row[3] for row in rows) + bytes(row[4] for row in rows)

    def run() -> None:
        packed = b"".join([*columns, zstandard.ZstdCompressor(level=3).compress(small)])
        frames = [
            cipher.encrypt(at.to_bytes(12, "little"), packed[at : at + frame], None)
            for at in range(0, len(packed), frame)
        ]
        opened = b"".join(
            cipher.decrypt((i * frame).to_bytes(12, "little"), sealed, None) for i, sealed in enumerate(frames)
        )
        assert len(opened) == len(packed)
        with path.open("wb") as file:
            file.write(opened)
            file.flush()
            os.fsync(file.fileno())

    return timed(run, len(rows))
