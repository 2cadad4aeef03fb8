"""gateway/exchange/shelf.py: what is put is found again, by the process that put it and by any other."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import text

import gateway.store
from factory import FakeClock, SeededRandom, drafts, make_node, make_set
from gateway.columns.drafts import DraftBatch
from gateway.errors import AuditBrokenError, OverloadedError
from gateway.exchange import Exchange, shelf
from gateway.exchange.shelf import Shelf
from gateway.store import Transaction
from gateway.store.tables import BlockRow

SET = "XA-NCVI/identified"


@pytest.fixture
def xa(tmp_path: Path) -> Exchange:
    exchange = Exchange(make_node(tmp_path, clock=FakeClock(), random=SeededRandom(1)))
    make_set(exchange, "identified")
    return exchange


def take(exchange: Exchange, count: int, *, first: int) -> None:
    exchange.ledger.import_entries(SET, drafts(count, first=first), actor="tester", form="test")


def found(exchange: Exchange, count: int, *, first: int) -> list[tuple[int, int, int]]:
    """(question, block, row) for the digests of these drafts."""
    [group] = DraftBatch.of(list(drafts(count, first=first))).groups
    with exchange.node.store.reading() as tx, exchange.shelf.index(tx, tx.sets.get(SET).id or 0) as index:
        hits = index.find("sha256", group.rows.octets("sha256"))
    return list(zip(hits.query.tolist(), hits.block_no.tolist(), hits.row.tolist(), strict=True))


def unreadable(*_arguments: object) -> None:
    raise AssertionError("the blocks are read")


def test_the_index_takes_what_was_put_without_reading_it_again(xa: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Shelf, "_open", unreadable)
        take(xa, 5, first=1)
        take(xa, 5, first=6)
        at_once = found(xa, 10, first=1)
    assert len(at_once) == 10
    assert found(Exchange(xa.node), 10, first=1) == at_once, "another process reads the same"


def test_what_was_rolled_back_never_shows(xa: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next import gives its blocks the same numbers."""

    def fail() -> None:
        raise OverloadedError("no")

    with monkeypatch.context() as patch:
        patch.setattr(xa.node.store, "before_commit", fail)
        with pytest.raises(OverloadedError):
            take(xa, 5, first=1)
    assert found(xa, 5, first=1) == []
    take(xa, 5, first=6)
    assert found(xa, 5, first=1) == []
    assert len(found(xa, 5, first=6)) == 5
    assert found(Exchange(xa.node), 10, first=1) == found(xa, 10, first=1)


def test_blocks_of_another_node_under_the_same_numbers_are_read(xa: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
    """This node's commit fails, and another node's takes the numbers that it would have had."""
    other = Exchange(xa.node)

    def fail() -> None:
        raise OverloadedError("no")

    with monkeypatch.context() as patch:
        patch.setattr(xa.node.store, "before_commit", fail)
        with pytest.raises(OverloadedError):
            take(xa, 5, first=1)
    take(other, 5, first=6)
    assert found(xa, 10, first=1) == found(other, 10, first=1)
    assert len(found(xa, 5, first=6)) == 5


def test_of_what_was_put_only_so_much_is_kept_at_hand(xa: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf, "HANDED_ROWS", 7)
    opened = []
    open_block = Shelf._open

    def watched(*arguments: Any) -> Any:
        opened.append(arguments[1].label)
        return open_block(*arguments)

    monkeypatch.setattr(Shelf, "_open", watched)
    three = [draft for n in range(3) for draft in drafts(3, first=1 + 3 * n, category=f"icse:{n}")]
    xa.ledger.import_entries(SET, three, actor="tester", form="test")
    assert len(found(xa, 9, first=1)) == 9
    assert opened == [1], "of three blocks the oldest had to go"
    assert found(Exchange(xa.node), 9, first=1) == found(xa, 9, first=1)


# When what is in a block came


def rows_of(exchange: Exchange) -> list[BlockRow]:
    with exchange.node.store.reading() as tx:
        return tx.blocks.of_set(tx.sets.get(SET).id or 0)


def as_before_revision_10(exchange: Exchange, tx: Transaction) -> None:
    """The tables, and what seals the keys of blocks, as they were when nobody noted when a block came."""
    master = exchange.node.keystore.master_key
    for row in tx.blocks.of_set(tx.sets.get(SET).id or 0):
        key = master.unwrap(row.wrapped_key, shelf._row_context(row))
        wrapped = master.wrap(key, shelf._row_context(row, timed=False), exchange.node.random)
        tx.connection.execute(
            text("UPDATE block SET wrapped_key = :key WHERE id = :id"), {"key": wrapped, "id": row.id}
        )
    tx.connection.execute(text("ALTER TABLE block DROP COLUMN arrived"))
    tx.connection.execute(text("DROP TABLE acknowledgement"))


def revision_10() -> ModuleType:
    path = Path(gateway.store.__file__).parent / "migrations" / "versions" / "0010_arrival.py"
    spec = importlib.util.spec_from_file_location("revision_10", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_block_says_when_it_came_and_nobody_changes_that(xa: Exchange) -> None:
    take(xa, 5, first=1)
    [row] = rows_of(xa)
    assert row.arrived == xa.node.clock()
    with xa.node.store.transaction() as tx:
        tx.connection.execute(text("UPDATE block SET arrived = arrived + 1"))
    [row] = rows_of(xa)
    with xa.node.store.reading() as tx, pytest.raises(AuditBrokenError, match="not as it was written"):
        xa.shelf.get(tx, row)


@pytest.mark.sqlite
def test_blocks_from_before_revision_10_came_when_the_log_says_so(xa: Exchange) -> None:
    clock = xa.node.clock
    assert isinstance(clock, FakeClock)
    began = clock()
    for number in range(8):
        take(xa, 3, first=1 + 3 * number)
        clock.advance(1_000)
        if number == 3:  # what came first is joined, and that is no new arrival
            assert xa.compacting.compact(SET).old == 4
    before = {row.id: row.arrived for row in rows_of(xa)}
    assert sorted(before.values()) == [began, *(began + 1_000 * number for number in range(4, 8))]
    with xa.node.store.transaction() as tx:
        as_before_revision_10(xa, tx)
        with Operations.context(MigrationContext.configure(tx.connection)):
            revision_10().upgrade()
    assert {row.id: row.arrived for row in rows_of(xa)} == before
    assert len(found(Exchange(xa.node), 24, first=1)) == 24, "its blocks open as before"
