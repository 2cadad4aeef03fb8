"""The database: its schema, who may write when, and that nothing readable about a child is ever in it.

Tests marked `sqlite` are about its file; what is PostgreSQL's own is in test_postgres.py.
"""

from __future__ import annotations

import hashlib
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect, text
from sqlmodel import SQLModel

import gateway.store
import postgres
from factory import FakeClock, SeededRandom, befriend, drafts, make_node, make_set, on_postgresql, sha256
from gateway import audit
from gateway.audit import Event, EventKind
from gateway.crypto.checkpoint import CheckpointKey
from gateway.errors import ConfigError, ConflictError, NotFoundError, OverloadedError
from gateway.exchange import Exchange
from gateway.model import EntryDraft
from gateway.node import CheckpointSigner
from gateway.store import NEWEST_REVISION, Store, Transaction, quick_check
from gateway.store.tables import PartnerRow
from partner_simulator import Network, held_entries

ORIGIN = "partner-exchange/XA-NCVI/log/1"
KEY = CheckpointKey.from_seed(ORIGIN, bytes(32))


def open_store(url: str) -> Store:
    return Store(url, CheckpointSigner(KEY, SeededRandom()))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "gateway.db"


@pytest.fixture
def url(path: Path) -> str:
    return postgres.shared().new_database() if on_postgresql() else Store.sqlite_url(path)


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    store = open_store(url)
    store.migrate()
    yield store
    store.close()


def note(number: int) -> Event:
    return Event(EventKind.LOOK_UP, 1_795_000_000, "tester", "XA-NCVI", {"asked": number})


def counted(store: Store) -> int:
    """One deed that reads a number, adds one and logs it."""
    with store.transaction() as tx:
        number = int(tx.people.meta("number") or 0) + 1
        tx.people.set_meta("number", str(number))
        tx.log.append([note(number)])
    return number


def number_of(store: Store) -> int:
    with store.reading() as tx:
        return int(tx.people.meta("number") or 0)


def verified(store: Store) -> audit.LogReport:
    with store.reading() as tx:
        return audit.verify_log(tx.log.leaves(), tx.log.nodes(), tx.log.checkpoints(), KEY.verifier)


# Pragmas and schema


@pytest.mark.sqlite
@pytest.mark.parametrize("way", ["transaction", "reading"])
def test_every_connection_has_the_pragmas(store: Store, way: str) -> None:
    safe_wal = sqlite3.sqlite_version_info >= (3, 51, 3)  # before: the WAL-reset corruption bug
    expected = {
        "journal_mode": "wal" if safe_wal else "truncate",
        "synchronous": 2 if safe_wal else 3,  # FULL, EXTRA
        "foreign_keys": 1,
        "trusted_schema": 0,
        "secure_delete": 1,
        "cell_size_check": 1,
        "busy_timeout": gateway.store.BUSY_TIMEOUT_MS,
    }
    with getattr(store, way)() as tx:
        found = {name: tx.connection.execute(text(f"PRAGMA {name}")).scalar_one() for name in expected}
    assert found == expected


@pytest.mark.sqlite
@pytest.mark.parametrize(("version", "journal"), [((3, 51, 2), "truncate"), ((3, 51, 3), "wal"), ((4, 0, 0), "wal")])
def test_write_ahead_logging_waits_for_a_library_without_the_reset_bug(
    url: str, monkeypatch: pytest.MonkeyPatch, version: tuple[int, int, int], journal: str
) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", version)
    store = open_store(url)
    with store.reading() as tx:
        assert tx.connection.execute(text("PRAGMA journal_mode")).scalar_one() == journal
    store.close()


@pytest.mark.usefixtures("store")
def test_the_migrations_make_exactly_the_tables_of_the_models(url: str) -> None:
    engine = create_engine(url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, SQLModel.metadata) == []
        names = inspect(connection).get_table_names()
        assert set(names) == {*SQLModel.metadata.tables, "alembic_version"}
    engine.dispose()


def test_the_newest_revision_is_the_one_that_the_store_names(store: Store) -> None:
    assert store._revision() == NEWEST_REVISION


def test_the_newest_revision_is_the_one_that_the_program_names() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(gateway.store.__file__).parent / "migrations"))
    assert ScriptDirectory.from_config(config).get_heads() == [gateway.store.NEWEST_REVISION]


@pytest.mark.sqlite
def test_migrating_again_changes_nothing(store: Store, path: Path) -> None:
    counted(store)
    before = path.read_bytes()
    store.migrate()
    assert path.read_bytes() == before


def test_a_schema_of_a_newer_program_is_refused_and_left_alone(store: Store) -> None:
    with store.transaction() as tx:
        tx.connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ConfigError, match="newer version"):
        store.migrate()
    with store.reading() as tx:
        assert tx.connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one() == "9999"


@pytest.mark.sqlite
@pytest.mark.parametrize(
    "url",
    [
        "mysql://user:hush@localhost/gateway",
        "postgresql+asyncpg://user:hush@localhost/gateway",
        "postgresql://user:hush@localhost:port/gateway",
        "postgresql://user:hush@/gateway?host=a,b&port=hush",
        "hush",
    ],
)
def test_a_url_of_no_known_database_is_refused_without_a_word_of_it(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_store(url)
    told = [
        str(caught.value),
        caught.value.remedy,
        repr(caught.value.__cause__),
        str(caught.value.__suppress_context__),
    ]
    assert not any("hu" in one for one in told)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.sqlite
def test_the_database_says_ok_of_itself_and_damage_is_no_surprise_word(store: Store, path: Path) -> None:
    for _ in range(50):
        counted(store)
    assert quick_check(store)() == "ok"
    store.close()
    raw = bytearray(path.read_bytes())
    page = int.from_bytes(raw[16:18], "big")
    with sqlite3.connect(path) as outsider:
        [(root,)] = outsider.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'audit_leaf'").fetchall()
    outsider.close()
    raw[(root - 1) * page + 3 : (root - 1) * page + 5] = b"\xff\xff"  # the number of cells in the table's first page
    path.write_bytes(raw)
    assert quick_check(open_store(Store.sqlite_url(path)))() != "ok"


@pytest.mark.sqlite
def test_a_file_that_is_no_database_is_not_called_busy(path: Path, url: str) -> None:
    path.write_bytes(b"these are the words of another program" * 200)
    with pytest.raises(ConfigError, match="damaged"):
        number_of(open_store(url))


def test_foreign_keys_hold(store: Store) -> None:
    insert = text("INSERT INTO approval VALUES ('no such proposal', 'somebody', :signature, 1)")
    with pytest.raises(ConflictError), store.transaction() as tx:
        tx.connection.execute(insert, {"signature": b"0"})


# Transactions


def test_a_deed_that_fails_leaves_nothing_not_even_a_leaf(store: Store) -> None:
    counted(store)

    def fail(tx: Transaction) -> None:
        tx.people.set_meta("number", "1000")
        tx.log.append([note(1000)])
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), store.transaction() as tx:
        fail(tx)
    assert number_of(store) == 1
    assert verified(store).size == 1
    counted(store)
    assert verified(store).size == 2


def test_several_appends_of_one_deed_share_one_checkpoint(store: Store) -> None:
    with store.transaction() as tx:
        assert tx.log.append([note(1), note(2)]) == 0
        assert tx.log.append([note(3)], blocks=[sha256("block")]) == 2
    report = verified(store)
    assert (report.size, report.checkpoints, report.blocks) == (4, 1, 1)


def test_a_deed_without_leaves_signs_no_checkpoint(store: Store) -> None:
    with store.transaction() as tx:
        tx.people.set_meta("number", "5")
        assert tx.log.append([]) == 0
    with store.reading() as tx, pytest.raises(NotFoundError):
        tx.log.latest_checkpoint()


def test_a_second_writer_waits_and_then_sees_what_the_first_wrote(store: Store, url: str) -> None:
    other, began, seen = open_store(url), threading.Event(), []

    def second() -> None:
        began.set()
        seen.append(counted(other))

    thread = threading.Thread(target=second)
    with store.transaction() as tx:
        number = int(tx.people.meta("number") or 0)
        thread.start()
        assert began.wait(10)
        thread.join(0.2)
        assert thread.is_alive()
        tx.people.set_meta("number", str(number + 41))
    thread.join(30)
    assert seen == [42]
    other.close()


def test_a_writer_that_waited_too_long_is_told_to_come_back(
    store: Store, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway.store, "BUSY_TIMEOUT_MS", 50)
    other = open_store(url)
    with store.transaction() as tx:
        tx.people.set_meta("number", "1")
        with pytest.raises(OverloadedError):
            counted(other)
    assert counted(other) == 2
    other.close()


def test_a_lost_race_for_a_row_is_a_conflict(store: Store) -> None:
    with store.transaction() as tx:
        tx.tokens.add(b"one", "XB-NCVI", "thumb", 10)
    with pytest.raises(ConflictError), store.transaction() as tx:
        tx.tokens.add(b"one", "XC-NCVI", "thumb", 10)


@pytest.mark.parametrize("end", ["well", "badly", "with an iterator half read"])
def test_no_read_stays_open(store: Store, path: Path, url: str, end: str) -> None:
    for _ in range(3):
        counted(store)
    kept = []
    try:
        with store.reading() as tx:
            leaves = tx.log.leaves()
            next(leaves)
            if end == "badly":
                raise ZeroDivisionError
            if end == "with an iterator half read":
                kept.append(leaves)
    except ZeroDivisionError:
        pass
    if on_postgresql():
        with postgres.shared().connect(postgres.name_of(url)) as watcher:
            states = "SELECT state FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            assert {state for (state,) in watcher.execute(states)} == {"idle"}
        return
    outsider = sqlite3.connect(path, timeout=0, isolation_level=None)
    outsider.execute("BEGIN EXCLUSIVE")  # possible only while nobody reads or writes
    outsider.execute("ROLLBACK")
    outsider.close()


def test_a_reader_sees_one_state_however_long_it_looks(store: Store) -> None:
    counted(store)
    with store.reading() as tx:
        first = tx.people.meta("number")
        writer = threading.Thread(target=counted, args=(store,))
        writer.start()
        writer.join(0.2)
        assert tx.people.meta("number") == first
        assert tx.log.size() == 1
    writer.join(30)
    assert number_of(store) == 2


def test_threads_of_one_process_lose_no_update(store: Store) -> None:
    failed: list[Exception] = []

    def work() -> None:
        try:
            for _ in range(15):
                counted(store)
                number_of(store)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failed == []
    assert number_of(store) == 90
    assert verified(store).size == 90


WRITER = """
import sys
from test_store import counted, open_store
store = open_store(sys.argv[1])
sys.stdin.readline()
for _ in range(int(sys.argv[2])):
    counted(store)
"""


@pytest.mark.once
@pytest.mark.slow
def test_processes_lose_no_update(store: Store, url: str) -> None:
    command = [sys.executable, "-c", WRITER, url, "20"]
    here = Path(__file__).parent
    writers = [subprocess.Popen(command, stdin=subprocess.PIPE, cwd=here, text=True) for _ in range(3)]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    assert [writer.wait(120) for writer in writers] == [0, 0, 0]
    assert number_of(store) == 60
    report = verified(store)
    assert (report.size, report.checkpoints) == (60, 60)


# Compare-and-swap, replay, tokens


def test_a_set_that_moved_meanwhile_is_a_conflict(tmp_path: Path) -> None:
    exchange = Exchange(make_node(tmp_path, clock=FakeClock()))
    name = make_set(exchange, "identified", drafts(3))
    with exchange.node.store.reading() as tx:
        found = tx.sets.get(name)
    with pytest.raises(ConflictError), exchange.node.store.transaction() as tx:
        tx.sets.advance(found.id or 0, expected_seq=found.seq - 1, seq=100, next_entry=100)
    with pytest.raises(ConflictError), exchange.node.store.transaction() as tx:
        tx.sets.advance_mirror(found.id or 0, expected=(1, "", 2), to=(1, "", 100))
    with exchange.node.store.reading() as tx:
        assert tx.sets.get(name).seq == 3


def test_a_replayed_identifier_is_known_until_it_expires_and_after_a_restart(store: Store, url: str) -> None:
    with store.transaction() as tx:
        assert tx.tokens.remember(b"jti", 100)
        assert not tx.tokens.remember(b"jti", 200)
    again = open_store(url)
    with again.transaction() as tx:
        tx.tokens.purge(99)
        assert not tx.tokens.remember(b"jti", 100)
        tx.tokens.purge(100)
        assert tx.tokens.remember(b"jti", 300)
    again.close()


def test_a_token_dies_with_its_time_its_partner_and_its_revocation(store: Store) -> None:
    def partner(state: str) -> PartnerRow:
        return PartnerRow(agency="XB-NCVI", jurisdiction="XB", state=state, card="{}", added=1)

    with store.transaction() as tx:
        tx.people.put_partner(partner("active"))
        tx.tokens.add(b"one", "XB-NCVI", "thumb", 100)
        assert tx.tokens.find(b"one", 99) == ("XB-NCVI", "thumb", 100, "", b"")
        assert tx.tokens.find(b"one", 100) is None
        tx.people.put_partner(partner("suspended"))
        assert tx.tokens.find(b"one", 99) is None
        tx.people.put_partner(partner("active"))
        tx.tokens.revoke("XB-NCVI")
        assert tx.tokens.find(b"one", 99) is None


def test_a_proposal_is_found_by_eight_characters_that_no_pattern_can_stand_for(store: Store) -> None:
    with store.transaction() as tx:
        insert = text("INSERT INTO proposal VALUES (:id, 'pause', '{}', 'open', 1, 2, 1)")
        for identifier in ("0123456789ab", "0123456799cd", "fedcba9876"):
            tx.connection.execute(insert, {"id": identifier})
    with store.reading() as tx:
        assert tx.people.proposal("fedcba98").id == "fedcba9876"
        for unclear in ("0123456", "01234567", "fedcba9", "%%%%%%%%", "________", "fedcba9_"):
            with pytest.raises(NotFoundError):
                tx.people.proposal(unclear)


# Nothing readable


def secret_drafts(count: int) -> list[EntryDraft]:
    return [
        EntryDraft(
            {"sha256": sha256(f"secret {n}"), "md5": hashlib.md5(f"secret {n}".encode()).digest()},
            source_ref=f"SOURCE-MARKER-{n:04}",
            series=f"Series Marker {n:04}",
            victim_ref=f"VICTIM-MARKER-{n:04}",
        )
        for n in range(count)
    ]


def planted(listed: list[EntryDraft], bodies: list[str]) -> list[bytes]:
    """Every form in which what was entered could be found again."""
    markers = [body.encode() for body in bodies]
    for draft in listed:
        markers += [draft.source_ref.encode(), draft.series.encode(), draft.victim_ref.encode()]
        for digest in draft.digests.values():
            markers += [digest, digest.hex().encode(), digest.hex().upper().encode()]
    return markers


def found_in(folder: Path, markers: list[bytes]) -> dict[str, int]:
    """File -> how many markers are in it; only files that hold any."""
    found = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        raw = file.read_bytes()
        if hits := sum(marker in raw for marker in markers):
            found[file.name] = hits
    return found


@pytest.mark.sqlite
async def test_none_of_a_thousand_markers_is_in_any_file_at_any_time(tmp_path: Path) -> None:
    clock = FakeClock()
    nodes = [make_node(tmp_path, agency, clock=clock) for agency in ("XA-NCVI", "XB-NCVI")]
    befriend(*nodes)
    network = Network()
    xa, xb = (network.join(node) for node in nodes)
    listed, bodies = secret_drafts(110), [f"Mail marker {n:03}" for n in range(50)]
    markers = planted(listed, bodies)
    assert len(markers) >= 1000
    (tmp_path / "control").write_bytes(markers[500])
    assert found_in(tmp_path, markers) == {"control": 1}
    (tmp_path / "control").unlink()
    looks: list[dict[str, int]] = []
    # 1. Before every commit (the journal is there) and after it.
    for node in nodes:
        folder = node.settings.folder
        node.store.before_commit = lambda folder=folder: looks.append(found_in(folder, markers))  # type: ignore[method-assign]
    # 2. Import, mail, push, pull, withdraw, and what follows from it.
    name = make_set(xa, "identified", listed)
    for body in bodies:
        xa.mailbox.write("XB-NCVI", "note", {"text": body})
    await network.sync("XB-NCVI", "XA-NCVI").sync()
    held = sorted(held_entries(xb, name))
    assert len(held) == 110
    xa.ledger.withdraw(name, held[:60], actor="tester", reason="listed wrongly")
    await network.sync("XA-NCVI", "XB-NCVI").push(name)
    await network.sync("XB-NCVI", "XA-NCVI").sync()
    assert len(held_entries(xb, name)) == 50
    with xb.node.store.reading() as tx:
        notes = [row for row in tx.mail.incoming("XA-NCVI") if row.kind == "note"]
        assert [xb.mailbox.read(row)["text"] for row in notes][::-1] == bodies
    looks.append(found_in(tmp_path, markers))
    # 3. After the end of both processes.
    for node in nodes:
        node.store.close()
    looks.append(found_in(tmp_path, markers))
    assert len(looks) > 60
    assert not any(looks)


@pytest.mark.sqlite
async def test_the_key_of_a_state_digest_is_in_no_file(tmp_path: Path) -> None:
    clock = FakeClock()
    nodes = [make_node(tmp_path, agency, clock=clock) for agency in ("XA-NCVI", "XB-NCVI")]
    befriend(*nodes)
    network = Network()
    xa, _ = (network.join(node) for node in nodes)
    name = make_set(xa, "identified", drafts(3))
    await network.sync("XB-NCVI", "XA-NCVI").pull()
    key = xa.head_for("XB-NCVI", name).head.key
    assert found_in(tmp_path, [key.encode(), bytes.fromhex(key)]) == {}
