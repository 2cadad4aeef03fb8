"""Someone with the database in hand: every row of the log and of the blocks, changed in every way. All of it is found.

The log is a real one: two gateways exchanged sets and mail, so it holds blocks and events of many transactions. Each
change is made inside a transaction that is rolled back afterwards, and read through the store as in daily work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from factory import FakeClock, befriend, drafts, make_node, make_set
from gateway import audit
from gateway.audit import EventKind, LogReport
from gateway.crypto import merkle
from gateway.crypto.checkpoint import VerifierKey
from gateway.errors import AuditBrokenError
from gateway.exchange import Exchange
from gateway.node import log_origin
from gateway.store import Transaction
from partner_simulator import Network, held_entries

SET = "XA-NCVI/identified"


class _RollBack(Exception):
    """Ends a transaction without a trace."""


@dataclass(frozen=True)
class Evidence:
    """A real log, and what the partner keeps of it."""

    exchange: Exchange
    size: int
    heads: tuple[int, ...]
    receipts: tuple[bytes, ...]

    @property
    def key(self) -> VerifierKey:
        return self.exchange.node.keystore.log_key(log_origin(self.exchange.node.agency)).verifier

    def verified(self, tx: Transaction, outside: tuple[bytes, ...] = ()) -> LogReport:
        return audit.verify_log(tx.log.leaves(), tx.log.nodes(), tx.log.checkpoints(), self.key, outside)

    def fault(self, *changes: str, outside: tuple[bytes, ...] = (), **values: object) -> AuditBrokenError | None:
        """What the check of the whole log says after these statements; None if it finds nothing."""
        return self.fault_after(lambda c: [c.execute(text(change), values) for change in changes], outside)

    def fault_after(
        self, change: Callable[[Connection], object], outside: tuple[bytes, ...] = ()
    ) -> AuditBrokenError | None:
        found = None
        try:
            with self.exchange.node.store.transaction() as tx:
                change(tx.connection)
                try:
                    self.verified(tx, outside)
                except AuditBrokenError as error:
                    found = error
                raise _RollBack
        except _RollBack:
            return found

    def good_before(self, index: int) -> int:
        """The size of the last checkpoint that does not cover a leaf."""
        return max((size for size in self.heads if size <= index), default=0)


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Evidence]:
    clock = FakeClock()
    nodes = [make_node(tmp_path_factory.mktemp("log"), agency, clock=clock) for agency in ("XA-NCVI", "XB-NCVI")]
    befriend(*nodes)
    network = Network()
    xa, xb = (network.join(node) for node in nodes)
    make_set(xa, "identified", drafts(12, series="Blue Door"))
    xa.ledger.import_entries(SET, drafts(3, first=12, evaluation="F6"), actor="tester", form="test")
    for number in range(9):
        xb.mailbox.write("XA-NCVI", "note", {"subject": f"letter {number}"})
        asyncio.run(network.sync("XB-NCVI", "XA-NCVI").sync())
        xa.ledger.import_entries(SET, drafts(2, first=20 + number), actor="tester", form="test")
    xa.ledger.withdraw(SET, sorted(held_entries(xa, SET))[:3], actor="tester", reason="listed wrongly")
    asyncio.run(network.sync("XB-NCVI", "XA-NCVI").sync())
    xa.lookup.find(["00" * 32], actor="tester")
    with xb.node.store.reading() as tx:
        receipts = tuple(row.receipt for row in tx.mail.sent_mail("XA-NCVI") if row.receipt)
    with xa.node.store.reading() as tx:
        heads = tuple(head.size for head in tx.log.checkpoints())
        made = Evidence(xa, tx.log.size(), heads, receipts)
        report = made.verified(tx)
    assert report.size == made.size
    assert report.size >= 60
    assert report.blocks >= 10
    assert len(heads) >= 30
    assert len(receipts) >= 9
    yield made
    for node in nodes:
        node.store.close()


def flipped(raw: bytes, at: int) -> bytes:
    return raw[:at] + bytes([raw[at] ^ 0x01]) + raw[at + 1 :]


def rows(evidence: Evidence, query: str) -> list[tuple[object, ...]]:
    with evidence.exchange.node.store.reading() as tx:
        return [tuple(row) for row in tx.connection.execute(text(query))]


# Leaves

EDITS = {
    "entry": "UPDATE audit_leaf SET entry = :value WHERE idx = :i",
    "entry as text": "UPDATE audit_leaf SET entry = 'a text' WHERE idx = :i",
    "entry cut": "UPDATE audit_leaf SET entry = substr(entry, 1, 32) WHERE idx = :i",
    "entry empty": "UPDATE audit_leaf SET entry = x'' WHERE idx = :i",
    "deleted": "DELETE FROM audit_leaf WHERE idx = :i",
    "moved to the end": "UPDATE audit_leaf SET idx = :n WHERE idx = :i",
    "moved far away": "UPDATE audit_leaf SET idx = 1000000000000 WHERE idx = :i",
    "moved before the first": "UPDATE audit_leaf SET idx = -1 WHERE idx = :i",
    "number as text": "UPDATE audit_leaf SET idx = 'seven' WHERE idx = :i",
    "number as fraction": "UPDATE audit_leaf SET idx = idx + 0.5 WHERE idx = :i",
}
EVENT_EDITS = {
    "event": "UPDATE audit_leaf SET event = replace(event, 'actor', 'Actor') WHERE idx = :i",
    "event with a space": "UPDATE audit_leaf SET event = event || ' ' WHERE idx = :i",
    "event as bytes": "UPDATE audit_leaf SET event = CAST(event AS BLOB) WHERE idx = :i",
    "event gone": "UPDATE audit_leaf SET event = NULL WHERE idx = :i",
    "salt": "UPDATE audit_leaf SET salt = zeroblob(32) WHERE idx = :i",
    "salt gone": "UPDATE audit_leaf SET salt = NULL WHERE idx = :i",
    "salt as text": "UPDATE audit_leaf SET salt = hex(salt) WHERE idx = :i",
    "both gone, and no record why": "UPDATE audit_leaf SET event = NULL, salt = NULL WHERE idx = :i",
}


@pytest.mark.parametrize("kind", [*EDITS, *EVENT_EDITS])
def test_any_change_to_any_leaf_is_found_and_named(evidence: Evidence, kind: str) -> None:
    leaves = rows(evidence, "SELECT idx, entry, event FROM audit_leaf ORDER BY idx")
    statement = {**EDITS, **EVENT_EDITS}[kind]
    for index, entry, event in leaves:
        if kind in EVENT_EDITS and event is None:
            continue
        assert isinstance(index, int)
        assert isinstance(entry, bytes)
        if kind == "moved to the end" and index == evidence.size - 1:
            continue  # that is its place plus one, found as "moved far away" is
        value = flipped(entry, index % 33)
        found = evidence.fault(statement, i=index, n=evidence.size, value=value)
        assert found is not None, f"leaf {index}"
        assert found.index == (0 if kind == "moved before the first" else index), f"leaf {index}: {found}"


def test_an_event_is_added_to_no_block(evidence: Evidence) -> None:
    for (index,) in rows(evidence, "SELECT idx FROM audit_leaf WHERE event IS NULL"):
        found = evidence.fault("UPDATE audit_leaf SET event = '{}', salt = zeroblob(32) WHERE idx = :i", i=index)
        assert found is not None
        assert found.index == index


def test_any_two_neighbours_that_change_places_are_found(evidence: Evidence) -> None:
    for index in range(evidence.size - 1):
        found = evidence.fault(
            "UPDATE audit_leaf SET idx = -5 WHERE idx = :i",
            "UPDATE audit_leaf SET idx = :i WHERE idx = :i + 1",
            "UPDATE audit_leaf SET idx = :i + 1 WHERE idx = -5",
            i=index,
        )
        assert found is not None
        assert found.index == index


@pytest.mark.parametrize("place", ["at the end", "far away", "before the first", "without a number"])
def test_any_leaf_put_in_again_is_found(evidence: Evidence, place: str) -> None:
    end = evidence.size
    number, named = {
        "at the end": (end, end),
        "far away": (1 << 40, end),
        "before the first": (-1, 0),
        "without a number": ("x", end),
    }[place]
    insert = "INSERT INTO audit_leaf SELECT :number, entry, event, salt FROM audit_leaf WHERE idx = :i"
    for index in range(evidence.size):
        found = evidence.fault(insert, i=index, number=number)
        assert found is not None
        assert found.index == named


# Nodes


@pytest.mark.parametrize("kind", ["changed", "cut", "as text", "deleted", "swapped", "moved up", "put in again"])
def test_any_change_to_any_node_is_found_and_its_first_leaf_named(evidence: Evidence, kind: str) -> None:
    statements = {
        "changed": ["UPDATE audit_node SET hash = :value WHERE level = :level AND idx = :i"],
        "cut": ["UPDATE audit_node SET hash = substr(hash, 1, 31) WHERE level = :level AND idx = :i"],
        "as text": ["UPDATE audit_node SET hash = hex(hash) WHERE level = :level AND idx = :i"],
        "deleted": ["DELETE FROM audit_node WHERE level = :level AND idx = :i"],
        "swapped": [
            "UPDATE audit_node SET idx = -5 WHERE level = :level AND idx = :i",
            "UPDATE audit_node SET idx = :i WHERE level = :level AND idx = :i + 1",
            "UPDATE audit_node SET idx = :i + 1 WHERE level = :level AND idx = -5",
        ],
        "moved up": ["UPDATE audit_node SET level = 40 WHERE level = :level AND idx = :i"],
        "put in again": [
            "INSERT INTO audit_node SELECT :level, 1000000, hash FROM audit_node WHERE level = :level AND idx = :i"
        ],
    }[kind]
    nodes = rows(evidence, "SELECT level, idx, hash FROM audit_node ORDER BY level, idx")
    assert len(nodes) >= 110
    every = 1 if kind in ("changed", "deleted", "swapped") else 3  # the others fail at the same comparison
    for level, index, value in nodes[::every]:
        assert isinstance(level, int)
        assert isinstance(index, int)
        assert isinstance(value, bytes)
        if kind == "swapped" and (level, index + 1) not in {(a, b) for a, b, _ in nodes}:
            continue
        found = evidence.fault(*statements, level=level, i=index, value=flipped(value, index % 32))
        assert found is not None, f"node {index} of level {level}"
        assert found.index == (evidence.size if kind == "put in again" else index << level)


# Checkpoints


@pytest.mark.parametrize(
    "kind", ["note", "signature", "as bytes", "deleted", "swapped", "under another size", "put in again"]
)
def test_any_change_to_any_checkpoint_is_found_with_the_first_leaf_that_it_covered(
    evidence: Evidence, kind: str
) -> None:
    sizes = list(evidence.heads)
    for at, size in enumerate(sizes):
        following = sizes[at + 1] if at + 1 < len(sizes) else None
        statements = {
            "note": ["UPDATE audit_checkpoint SET note = replace(note, 'previous', 'previouS') WHERE size = :size"],
            "signature": [
                "UPDATE audit_checkpoint SET note = substr(note, 1, length(note) - 10) || 'AAAA' || "
                "substr(note, length(note) - 5) WHERE size = :size"
            ],
            "as bytes": ["UPDATE audit_checkpoint SET note = CAST(note AS BLOB) WHERE size = :size"],
            "deleted": ["DELETE FROM audit_checkpoint WHERE size = :size"],
            "swapped": [
                "UPDATE audit_checkpoint SET size = -5 WHERE size = :size",
                "UPDATE audit_checkpoint SET size = :size WHERE size = :next",
                "UPDATE audit_checkpoint SET size = :next WHERE size = -5",
            ],
            "under another size": ["UPDATE audit_checkpoint SET size = 1000000 WHERE size = :size"],
            "put in again": [
                "INSERT INTO audit_checkpoint SELECT 1000000, note FROM audit_checkpoint WHERE size = :size"
            ],
        }[kind]
        if kind == "swapped" and following is None:
            continue
        found = evidence.fault(*statements, size=size, next=following)
        assert found is not None, f"checkpoint {size}"
        before = sizes[at - 1] if at else 0
        assert found.index == (evidence.size if kind == "put in again" else before), f"checkpoint {size}: {found}"


# Several tables at once


def cut_to(size: int) -> Callable[[Connection], object]:
    """Cut all three tables to a size, as if nothing had ever followed."""

    def cut(connection: Connection) -> None:
        connection.execute(text("DELETE FROM audit_leaf WHERE idx >= :n"), {"n": size})
        connection.execute(text("DELETE FROM audit_node WHERE ((idx + 1) << level) > :n"), {"n": size})
        connection.execute(text("DELETE FROM audit_checkpoint WHERE size > :n"), {"n": size})

    return cut


def test_an_end_cut_off_between_checkpoints_is_found_without_help(evidence: Evidence) -> None:
    for size in sorted(set(range(1, evidence.size)) - set(evidence.heads)):
        found = evidence.fault_after(cut_to(size))
        assert found is not None
        assert found.index == evidence.good_before(size)


def test_an_end_cut_off_at_a_checkpoint_is_found_by_what_is_kept_outside(evidence: Evidence) -> None:
    latest = rows(evidence, "SELECT note FROM audit_checkpoint ORDER BY size DESC LIMIT 1")[0][0]
    assert isinstance(latest, str)
    last_receipt = max(audit.verify_receipt(raw, evidence.key).checkpoint.size for raw in evidence.receipts)
    for size in evidence.heads[:-1]:
        assert evidence.fault_after(cut_to(size)) is None  # this is what witnesses and receipts are for
        for outside in ((latest.encode(),), evidence.receipts):
            if outside == evidence.receipts and size >= last_receipt:
                continue
            found = evidence.fault_after(cut_to(size), outside)
            assert found is not None
            assert found.index == size


def rewritten(evidence: Evidence, index: int) -> Callable[[Connection], object]:
    """Another event in place of one, with entry, salt and every node above it made to fit."""

    def rewrite(connection: Connection) -> None:
        found = connection.execute(text("SELECT entry FROM audit_leaf ORDER BY idx")).scalars()
        entries = [bytes(entry) for entry in found]
        event = audit.Event(EventKind.LOOK_UP, 1_795_000_000, "nobody", "XA-NCVI", {"asked": 0}).encode()
        entries[index] = audit.event_entry(event, bytes(32))
        connection.execute(
            text("UPDATE audit_leaf SET entry = :entry, event = :event, salt = zeroblob(32) WHERE idx = :i"),
            {"entry": entries[index], "event": event.decode(), "i": index},
        )
        frontier = merkle.Frontier()
        for entry in entries:
            for level, at, value in frontier.append(merkle.leaf_hash(entry)):
                connection.execute(
                    text("UPDATE audit_node SET hash = :hash WHERE level = :level AND idx = :i"),
                    {"hash": value, "level": level, "i": at},
                )

    return rewrite


def test_a_rewrite_that_fits_itself_is_found_by_the_next_checkpoint(evidence: Evidence) -> None:
    for index in range(evidence.size):
        found = evidence.fault_after(rewritten(evidence, index))
        assert found is not None
        assert found.index == evidence.good_before(index)
        end = min(size for size in evidence.heads if size > index)
        assert f"lies in {found.index} to {end - 1}" in str(found)


def test_a_rewrite_with_the_logs_own_key_is_found_by_any_receipt_kept_outside(evidence: Evidence) -> None:
    key = evidence.exchange.node.keystore.log_key(log_origin("XA-NCVI"))
    first = min(audit.verify_receipt(raw, evidence.key).leaf_index for raw in evidence.receipts)

    def rewrite(connection: Connection) -> None:
        rewritten(evidence, first)(connection)
        frontier, before = merkle.Frontier(), 0
        for entry in list(connection.execute(text("SELECT entry FROM audit_leaf ORDER BY idx")).scalars()):
            frontier.append(merkle.leaf_hash(bytes(entry)))
            if frontier.size in evidence.heads:
                note = audit.publish(key.name, frontier.size, frontier.root(), key, previous=before)
                connection.execute(
                    text("UPDATE audit_checkpoint SET note = :note WHERE size = :size"),
                    {"note": note.decode(), "size": frontier.size},
                )
                before = frontier.size

    assert evidence.fault_after(rewrite) is None
    found = evidence.fault_after(rewrite, evidence.receipts)
    assert found is not None
    assert found.index == first


def test_a_log_that_was_changed_is_not_written_on_as_if_nothing_were(evidence: Evidence) -> None:
    """A deed after the change adds leaves that the check still refuses, or is refused itself."""
    node = evidence.exchange.node
    event = node.event(EventKind.LOOK_UP, actor="tester", subject="XA-NCVI", details={"asked": 1})
    values = {"i": evidence.size - 2, "n": evidence.size, "value": bytes(33)}

    def change_and_go_on(tx: Transaction, statement: str) -> LogReport:
        tx.connection.execute(text(statement), values)
        tx.log.append([event])
        tx.log.close()
        return evidence.verified(tx)

    for statement in EDITS.values():
        with pytest.raises(AuditBrokenError), node.store.transaction() as tx:
            change_and_go_on(tx, statement)


# Blocks


def block_fault(evidence: Evidence, *statements: str, **values: object) -> AuditBrokenError | None:
    """What reading every block says after these statements, by a program that started after them."""
    found = None
    shelf = Exchange(evidence.exchange.node).shelf
    try:
        with evidence.exchange.node.store.transaction() as tx:
            for statement in statements:
                tx.connection.execute(text(statement), values)
            hash_set = tx.sets.get(SET)
            try:
                with shelf.index(tx, hash_set.id or 0):
                    pass
                for other in tx.sets.all():
                    for row in tx.blocks.of_set(other.id or 0):
                        shelf.get(tx, row)
            except AuditBrokenError as error:
                found = error
            raise _RollBack
    except _RollBack:
        return found


def test_no_block_part_survives_a_flipped_byte(evidence: Evidence) -> None:
    parts = rows(evidence, "SELECT block_id, part, sealed FROM block_part")
    assert len(parts) >= 30
    leaves = dict(rows(evidence, "SELECT id, leaf FROM block"))
    for number, (block, part, sealed) in enumerate(parts):
        assert isinstance(sealed, bytes)
        for at in {0, 11, 12, len(sealed) - 1, (7919 * number) % len(sealed)}:
            found = block_fault(
                evidence,
                "UPDATE block_part SET sealed = :value WHERE block_id = :block AND part = :part",
                value=flipped(sealed, at),
                block=block,
                part=part,
            )
            assert found is not None
            assert found.index == leaves[block]


def test_no_block_part_vanishes_as_if_policy_had_withheld_it(evidence: Evidence) -> None:
    leaves = dict(rows(evidence, "SELECT id, leaf FROM block"))
    for block, part in rows(evidence, "SELECT block_id, part FROM block_part"):
        gone = "DELETE FROM block_part WHERE block_id = :block AND part = :part"
        found = block_fault(evidence, gone, block=block, part=part)
        assert found is not None
        assert found.index == leaves[block]


def test_no_two_parts_change_places_within_a_block_or_between_blocks(evidence: Evidence) -> None:
    parts = [(block, part) for block, part in rows(evidence, "SELECT block_id, part FROM block_part")]
    swap = (
        "UPDATE block_part SET sealed = CASE WHEN block_id = :b1 AND part = :p1 "
        "THEN (SELECT sealed FROM block_part WHERE block_id = :b2 AND part = :p2) "
        "ELSE (SELECT sealed FROM block_part WHERE block_id = :b1 AND part = :p1) END "
        "WHERE (block_id = :b1 AND part = :p1) OR (block_id = :b2 AND part = :p2)"
    )
    for (b1, p1), (b2, p2) in zip(parts, [*parts[1:], *parts[:1]], strict=True):
        assert block_fault(evidence, swap, b1=b1, p1=p1, b2=b2, p2=p2) is not None
    same = {(b1, b2, part) for b1, part in parts for b2, other in parts if part == other and b2 == (b1 or 0) + 1}
    assert len(same) >= 20
    for b1, b2, part in sorted(same):
        assert block_fault(evidence, swap, b1=b1, p1=part, b2=b2, p2=part) is not None


COLUMNS = {
    "set_id": "",
    "kind": "'refused'",
    "label": "label + 1",
    "epoch": "epoch + 1",
    "first_seq": "first_seq - 1",
    "last_seq": "last_seq + 1",
    "count": "count + 1",
    "digest": "zeroblob(32)",
    "leaf": "leaf + 1",
    "wrapped_key": "(SELECT wrapped_key FROM block AS other WHERE other.id <> block.id LIMIT 1)",
    "header": "(SELECT header FROM block AS other WHERE other.id <> block.id LIMIT 1)",
    "header, digest": "",
}


@pytest.mark.parametrize("column", COLUMNS)
def test_no_column_of_a_block_can_be_changed(evidence: Evidence, column: str) -> None:
    """Policy judges by the label, pages are cut by seq: none of it can be edited beside the sealed parts."""
    for (block,) in rows(evidence, "SELECT id FROM block"):
        if column == "set_id":
            # A real other set, so that no foreign key is in the way.
            found = block_fault(
                evidence,
                "CREATE TEMPORARY TABLE copied AS SELECT * FROM hash_set WHERE id = 1",
                "UPDATE copied SET id = 99, name = 'XA-NCVI/other'",
                "INSERT INTO hash_set SELECT * FROM copied",
                "UPDATE block SET set_id = 99 WHERE id = :block",
                block=block,
            )
        elif column == "header, digest":
            found = block_fault(
                evidence,
                "UPDATE block SET (header, digest) = "
                "(SELECT header, digest FROM block AS other WHERE other.id <> :block LIMIT 1) WHERE id = :block",
                block=block,
            )
        else:
            change = f"UPDATE block SET {column} = {COLUMNS[column]} WHERE id = :block"
            found = block_fault(evidence, change, block=block)
        assert found is not None, f"block {block}"


def test_no_bit_of_a_header_can_be_changed(evidence: Evidence) -> None:
    headers = rows(evidence, "SELECT id, header FROM block")
    for number, (block, header) in enumerate(headers):
        assert isinstance(header, bytes)
        for at in range(number % 13, len(header), 13):
            found = block_fault(
                evidence, "UPDATE block SET header = :value WHERE id = :block", value=flipped(header, at), block=block
            )
            assert found is not None, f"octet {at}"


async def test_a_page_is_not_served_from_a_block_that_was_changed(tmp_path: Path) -> None:
    clock = FakeClock()
    nodes = [make_node(tmp_path, agency, clock=clock) for agency in ("XA-NCVI", "XB-NCVI")]
    befriend(*nodes)
    network = Network()
    xa, xb = (network.join(node) for node in nodes)
    make_set(xa, "identified", drafts(5))
    with xa.node.store.transaction() as tx:
        tx.connection.execute(text("UPDATE block_part SET sealed = zeroblob(100) WHERE part = 2"))
    with pytest.raises(AuditBrokenError):
        await network.sync("XB-NCVI", "XA-NCVI").pull()
    assert held_entries(xb, SET) == {}
