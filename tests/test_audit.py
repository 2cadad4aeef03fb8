"""What the log records and how it is proved: any change to any row of its tables is found and named."""

from __future__ import annotations

import hashlib
import json
import re
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import audit
from gateway.audit import CheckpointRow, Event, EventKind, LeafRow
from gateway.crypto import canonical, checkpoint, merkle
from gateway.crypto.checkpoint import CheckpointKey
from gateway.errors import AuditBrokenError, GatewayError, MalformedError, ProofError, VerificationError

ORIGIN = "xa-ncvi.example/log/1"
KEY = CheckpointKey.from_seed(ORIGIN, bytes(range(32)))
NOW = 1_795_000_000
CONTRACTS = Path(__file__).parent.parent / "contracts"
VECTORS = json.loads((Path(__file__).parent / "vectors" / "receipt.json").read_text())


def digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def made_up_event(number: int) -> Event:
    return Event(EventKind.ROWS_REFUSED, NOW + number, "XA-NCVI", "XA-NCVI/found", {"refused": number, "reasons": []})


def push_event(number: int) -> Event:
    return Event(
        EventKind.PUSH_RECEIVED,
        NOW + number,
        "XB-NCVI",
        "XB-NCVI/found",
        {
            "sender": "XB-NCVI",
            "message_id": f"message-{number}",
            "manifest_digest": digest(f"made-up manifest {number}").hex(),
            "set": "XB-NCVI/found",
            "changes": 3,
        },
    )


@dataclass
class Log:
    """A log's three tables in memory, each read back in the order in which a store would give it."""

    leaves: list[LeafRow] = field(default_factory=list)
    nodes: list[merkle.Node] = field(default_factory=list)
    heads: list[CheckpointRow] = field(default_factory=list)

    def transaction(self, *content: Event | bytes) -> None:
        """Append events and block digests as one transaction would."""
        size = len(self.leaves)
        for index, item in enumerate(content, size):
            if isinstance(item, bytes):
                self.leaves.append(LeafRow(index, audit.block_entry(item)))
            else:
                salt = digest(f"salt {index}")
                self.leaves.append(LeafRow(index, audit.event_entry(item, salt), item.encode(), salt))
        hashes = [merkle.leaf_hash(row.entry) for row in self.leaves[size:]]
        self.nodes += merkle.append_nodes(size, hashes, self.read)
        root = merkle.root(len(self.leaves), self.read)
        self.heads.append(
            CheckpointRow(len(self.leaves), audit.publish(ORIGIN, len(self.leaves), root, KEY, previous=size))
        )

    def read(self, level: int, index: int) -> bytes:
        return next(value for at_level, at, value in self.nodes if (at_level, at) == (level, index))

    def erase(self, index: int) -> None:
        self.leaves[index] = replace(self.leaves[index], event_bytes=None, salt=None)

    def verify(self, outside: tuple[bytes, ...] = ()) -> audit.LogReport:
        return audit.verify_log(
            sorted(self.leaves, key=lambda row: row.index),
            sorted(self.nodes, key=lambda node: ((node[1] + 1) << node[0], node[0])),
            sorted(self.heads, key=lambda row: row.size),
            KEY.verifier,
            outside,
        )

    def receipt(self, index: int, size: int) -> bytes:
        row = self.leaves[index]
        assert row.event_bytes is not None
        assert row.salt is not None
        note = next(head.note for head in self.heads if head.size == size)
        return audit.build_receipt(
            audit.parse_event(row.event_bytes),
            row.salt,
            origin=ORIGIN,
            leaf_index=index,
            tree_size=size,
            proof=merkle.inclusion_proof(index, size, self.read),
            note=note,
        )

    def rewrite(self, index: int) -> None:
        """Change a leaf and everything that follows from it, as someone with the database but not the key can."""
        salt, event = digest("another salt"), made_up_event(999)
        self.leaves[index] = LeafRow(index, audit.event_entry(event, salt), event.encode(), salt)
        self.rebuild_nodes()

    def rebuild_nodes(self) -> None:
        hashes = [merkle.leaf_hash(row.entry) for row in self.leaves]
        self.nodes = merkle.append_nodes(0, hashes, lambda level, index: b"")

    def copy(self) -> Log:
        return Log(list(self.leaves), list(self.nodes), list(self.heads))


SHAPE = (1, 3, 1, 2, 4, 1, 1, 6)  # leaves a transaction: 19 in all, sizes 1 4 5 7 11 12 13 19


def made_up_log() -> Log:
    log = Log()
    for number, count in enumerate(SHAPE):
        push = push_event(len(log.leaves))
        log.transaction(push, *[digest(f"block {number} {i}") for i in range(count - 1)])
    return log


GOOD = made_up_log()
SIZES = [row.size for row in GOOD.heads]


def start_of_range(leaf: int) -> int:
    """The size of the last checkpoint at or before this leaf."""
    return max([size for size in SIZES if size <= leaf], default=0)


def broken(log: Log, outside: tuple[bytes, ...] = ()) -> AuditBrokenError:
    with pytest.raises(AuditBrokenError) as caught:
        log.verify(outside)
    return caught.value


# The whole log


def test_an_untouched_log_verifies_and_is_counted() -> None:
    report = GOOD.verify((GOOD.receipt(0, 1), GOOD.receipt(5, 19), GOOD.heads[3].note, GOOD.heads[-1].note))
    root = merkle.root(19, GOOD.read)
    assert report == audit.LogReport(19, root, events=8, blocks=11, erased=0, checkpoints=8, outside=4)


def test_a_log_without_leaves_verifies_as_empty() -> None:
    assert Log().verify().size == 0
    assert broken(Log(), (GOOD.heads[0].note,)).index == 0


def leaf_edits() -> Iterator[tuple[str, LeafRow]]:
    for row in GOOD.leaves:
        flipped = bytes([row.entry[0], row.entry[1] ^ 1, *row.entry[2:]])
        yield "entry", replace(row, entry=flipped)
        yield "kind of entry", replace(row, entry=bytes([row.entry[0] ^ 3, *row.entry[1:]]))
        yield "size of entry", replace(row, entry=row.entry[:-1])
        yield "unknown kind", replace(row, entry=b"\x03" + row.entry[1:])
        yield "long entry", replace(row, entry=row.entry + b"\0")
        yield "empty entry", replace(row, entry=b"")
        if row.event_bytes is None:
            yield "event at a block", replace(row, event_bytes=b"{}", salt=bytes(32))
        else:
            yield "event", replace(row, event_bytes=row.event_bytes.replace(b"message", b"Message"))
            yield "salt", replace(row, salt=bytes(32))
            yield "short salt", replace(row, salt=b"")
            yield "event gone", replace(row, event_bytes=None)
            yield "salt gone", replace(row, salt=None)
            yield "both gone without a record", replace(row, event_bytes=None, salt=None)


@pytest.mark.parametrize(("what", "row"), list(leaf_edits()), ids=lambda v: v if isinstance(v, str) else str(v.index))
def test_any_edit_of_a_leaf_row_is_named(what: str, row: LeafRow) -> None:
    log = GOOD.copy()
    log.leaves[row.index] = row
    assert broken(log).index == row.index


@pytest.mark.parametrize("index", range(19))
def test_a_leaf_row_under_another_index_is_named(index: int) -> None:
    for other in (-1, *range(21), 10**6):
        log = GOOD.copy()
        log.leaves[index] = replace(log.leaves[index], index=other)
        if other != index:
            assert broken(log).index in (min(index, max(other, 0)), min(index, other + 1))


@pytest.mark.parametrize("index", range(19))
def test_a_deleted_leaf_row_is_named(index: int) -> None:
    log = GOOD.copy()
    del log.leaves[index]
    assert broken(log).index == index
    renumbered = log.copy()
    renumbered.leaves = [replace(row, index=i) for i, row in enumerate(log.leaves)]
    assert broken(renumbered).index == index
    renumbered.rebuild_nodes()
    assert broken(renumbered).index == start_of_range(index)


@pytest.mark.parametrize("first", range(19))
def test_any_two_leaf_rows_exchanged_are_named(first: int) -> None:
    for second in range(first + 1, 19):
        log = GOOD.copy()
        one, other = log.leaves[first], log.leaves[second]
        log.leaves[first], log.leaves[second] = replace(other, index=first), replace(one, index=second)
        assert broken(log).index == first
        log.rebuild_nodes()
        assert broken(log).index == start_of_range(first)


@pytest.mark.parametrize("index", range(19))
def test_a_leaf_row_put_in_again_is_named(index: int) -> None:
    twice = GOOD.copy()
    twice.leaves.append(GOOD.leaves[index])
    assert broken(twice).index == index + 1, "the second of two rows with one index stands where the next belongs"
    for at in range(20):
        log = GOOD.copy()
        log.leaves.insert(at, GOOD.leaves[index])
        log.leaves = [replace(row, index=i) for i, row in enumerate(log.leaves)]
        first_moved = next((i for i in range(19) if log.leaves[i].entry != GOOD.leaves[i].entry), 19)
        assert broken(log).index == first_moved
        log.rebuild_nodes()
        assert broken(log).index == start_of_range(first_moved)


@pytest.mark.parametrize("at", range(len(GOOD.nodes)))
def test_any_change_to_a_node_row_is_named(at: int) -> None:
    level, index, value = GOOD.nodes[at]
    wrong = bytes([value[0] ^ 1]) + value[1:]
    for rows in (
        [(level, index, wrong)],
        [(level, index, value[:-1])],
        [(level + 1, index, value)],
        [(level, index + 1, value)],
        [(level + 60, index, value)],
        [],
        [(level, index, value), (level, index, value)],
        [(level, index, value), (level, index, wrong)],
    ):
        log = GOOD.copy()
        log.nodes[at : at + 1] = rows
        error = broken(log)
        assert error.index is not None
        if rows and rows[0][:2] == (level, index) and len(rows) == 1:
            assert error.index == index << level
        else:  # found where the next node should have come, or at the row that stands in its way
            assert error.index <= ((index + 1) << level) + 16


@pytest.mark.parametrize("first", range(len(GOOD.nodes)))
def test_any_two_node_hashes_exchanged_are_named(first: int) -> None:
    for second in range(first + 1, len(GOOD.nodes)):
        log = GOOD.copy()
        (level, index, value), (other_level, other_index, other) = log.nodes[first], log.nodes[second]
        log.nodes[first], log.nodes[second] = (level, index, other), (other_level, other_index, value)
        both = [(level, index), (other_level, other_index)]
        expected = min(both, key=lambda node: ((node[1] + 1) << node[0], node[0]))
        assert broken(log).index == expected[1] << expected[0]


@pytest.mark.parametrize("at", range(len(SHAPE)))
def test_any_change_to_a_checkpoint_row_is_named(at: int) -> None:
    row, start = GOOD.heads[at], [0, *SIZES][at]
    other_key = CheckpointKey.from_seed(ORIGIN, bytes(32))
    root = merkle.root(row.size, GOOD.read)
    edits = {
        "note": replace(row, note=row.note.replace(b"previous", b"Previous")),
        "cut note": replace(row, note=row.note[:-1]),
        "no note": replace(row, note=b""),
        "other key": replace(row, note=audit.publish(ORIGIN, row.size, root, other_key, previous=start)),
        "size": replace(row, size=row.size + 1),
        "smaller size": replace(row, size=row.size - 1),
        "without the line": replace(row, note=checkpoint.sign(ORIGIN, row.size, root, KEY)),
    }
    for what, edited in edits.items():
        log = GOOD.copy()
        log.heads[at] = edited
        error = broken(log)
        # A moved size can sort the row before its neighbour: then the fault shows one checkpoint earlier.
        assert error.index == start or (what.endswith("size") and error.index in [0, *SIZES][max(at - 1, 0) : at + 2])
    deleted = GOOD.copy()
    del deleted.heads[at]
    assert broken(deleted).index == start
    twice = GOOD.copy()
    twice.heads.append(row)
    assert broken(twice).index == row.size


@pytest.mark.parametrize("first", range(len(SHAPE)))
def test_any_two_checkpoints_exchanged_are_named(first: int) -> None:
    for second in range(first + 1, len(SHAPE)):
        log = GOOD.copy()
        one, other = log.heads[first], log.heads[second]
        log.heads[first], log.heads[second] = replace(one, note=other.note), replace(other, note=one.note)
        assert broken(log).index == [0, *SIZES][first]


@pytest.mark.parametrize("index", range(19))
def test_a_consistent_rewrite_is_placed_between_two_checkpoints(index: int) -> None:
    log = GOOD.copy()
    log.rewrite(index)
    error = broken(log)
    end = min(size for size in SIZES if size > index)
    assert error.index == start_of_range(index)
    assert f"the first altered leaf lies in {start_of_range(index)} to {end - 1}" in error.message


@pytest.mark.parametrize("index", range(19))
def test_a_rewrite_with_the_signing_key_is_found_by_what_was_kept_outside(index: int) -> None:
    forged = Log()
    content: list[Event | bytes] = [
        audit.parse_event(row.event_bytes) if row.event_bytes else row.entry[1:] for row in GOOD.leaves
    ]
    content[index] = made_up_event(999)
    for start, end in zip([0, *SIZES], SIZES, strict=False):
        forged.transaction(*content[start:end])
    assert forged.verify().size == 19, "without evidence from outside the forgery is perfect"
    error = broken(forged, (GOOD.heads[-1].note, GOOD.heads[2].note))
    assert error.index == (0 if index < 5 else 5)
    assert "kept outside" in error.message
    if GOOD.leaves[index].event_bytes is not None:
        assert broken(forged, (GOOD.receipt(index, 19),)).index == index


@pytest.mark.parametrize("size", [0, *SIZES[:-1]])
def test_a_log_cut_off_cleanly_is_found_by_any_later_evidence(size: int) -> None:
    log = Log(
        GOOD.leaves[:size],
        [node for node in GOOD.nodes if (node[1] + 1) << node[0] <= size],
        [row for row in GOOD.heads if row.size <= size],
    )
    assert log.verify().size == size
    for evidence in (GOOD.heads[-1].note, GOOD.receipt(0, 19), GOOD.receipt(GOOD.leaves[13].index, 19)):
        error = broken(log, (evidence,))
        assert error.index == size
        assert "cut off" in error.message


@pytest.mark.parametrize("count", range(1, 19))
def test_leaves_cut_off_without_their_checkpoints_are_found_without_evidence(count: int) -> None:
    for tables in ("leaves", "leaves nodes", "leaves heads", "heads", "nodes"):
        log = GOOD.copy()
        size = 19 - count
        if "leaves" in tables:
            del log.leaves[size:]
        if "nodes" in tables:
            log.nodes = [node for node in log.nodes if (node[1] + 1) << node[0] <= size]
        if "heads" in tables:
            log.heads = [row for row in log.heads if row.size <= size]
        assert broken(log).index in (size, start_of_range(size))


def test_leaves_added_without_a_checkpoint_are_found() -> None:
    log = GOOD.copy()
    log.leaves.append(LeafRow(19, audit.block_entry(digest("smuggled"))))
    log.rebuild_nodes()
    assert broken(log).index == 19


def test_evidence_that_is_none_is_refused_as_such() -> None:
    other = CheckpointKey.from_seed("xb-ncvi.example/log/1", bytes(32))
    with pytest.raises(VerificationError):
        GOOD.verify((checkpoint.sign(other.name, 19, merkle.root(19, GOOD.read), other),))
    with pytest.raises(MalformedError):
        GOOD.verify((b"{}",))
    with pytest.raises(MalformedError):
        GOOD.verify((b"no note",))


def test_two_receipts_that_differ_in_one_leaf_break_the_log() -> None:
    forged = Log()
    forged.transaction(push_event(77))
    error = broken(GOOD, (GOOD.receipt(0, 1), forged.receipt(0, 1)))
    assert (error.index, "two receipts" in error.message) == (0, True)


# Erasure


def erasure(first: int, last: int) -> Event:
    return Event(EventKind.EVENT_ERASED, NOW, "XA-NCVI", "log", {"first": first, "last": last, "order_ref": "XA-1"})


def test_an_event_erased_on_record_leaves_every_proof_standing() -> None:
    log = GOOD.copy()
    receipt = log.receipt(4, 19)
    for index in (0, 4, 5):
        log.erase(index)
    assert broken(log).index == 0
    log.transaction(erasure(0, 0))
    assert broken(log).index == 4
    log.transaction(erasure(4, 5))
    report = log.verify((receipt,))
    assert (report.erased, report.events, report.size) == (3, 10, 21)
    assert audit.verify_receipt(receipt, KEY.verifier).leaf_index == 4


def test_the_record_of_an_erasure_cannot_be_erased_by_its_own_word() -> None:
    log = GOOD.copy()
    log.erase(4)
    log.transaction(erasure(0, 19))
    assert broken(log).index == 4, "a record that names itself or later leaves excuses nothing"
    log = GOOD.copy()
    log.erase(4)
    log.transaction(erasure(4, 4))
    log.erase(19)
    assert broken(log).index == 4


def test_an_unreadable_record_of_an_erasure_breaks_the_log() -> None:
    log = GOOD.copy()
    log.transaction(Event(EventKind.EVENT_ERASED, NOW, "XA-NCVI", "log", {"first": 1}))
    assert broken(log).index == 19


def test_a_detail_that_looks_like_a_record_of_erasure_excuses_nothing() -> None:
    log = GOOD.copy()
    log.erase(4)
    look_alike = {"kind": "event_erased", "first": 4, "last": 4}
    log.transaction(Event(EventKind.PAUSED, NOW, "XA-NCVI", "all", {"reason": look_alike}))
    assert broken(log).index == 4


@given(
    gone=st.sets(st.integers(0, 30)),
    records=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)).map(sorted), max_size=5),
)
@settings(max_examples=60, deadline=None)
def test_erased_events_need_records_that_cover_them_all(gone: set[int], records: list[list[int]]) -> None:
    log = Log()
    log.transaction(*[made_up_event(i) for i in range(31)])
    for index in gone:
        log.erase(index)
    for first, last in records:
        log.transaction(erasure(first, last))
    covered = {index for first, last in records for index in range(first, last + 1)}
    if gone <= covered:
        assert log.verify().erased == len(gone)
    else:
        assert broken(log).index == min(gone - covered)


def test_a_long_log_is_verified_in_constant_memory() -> None:
    def peak(size: int) -> int:
        rows = (LeafRow(i, audit.block_entry(i.to_bytes(32, "big"))) for i in range(size))
        frontier = merkle.Frontier()
        nodes = (
            node
            for i in range(size)
            for node in frontier.append(merkle.leaf_hash(audit.block_entry(i.to_bytes(32, "big"))))
        )
        head = CheckpointRow(size, audit.publish(ORIGIN, size, roots[size], KEY, previous=0))
        tracemalloc.start()
        assert audit.verify_log(rows, nodes, [head], KEY.verifier).blocks == size
        _, bytes_at_most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return bytes_at_most

    roots: dict[int, bytes] = {}
    whole = merkle.Frontier()
    for i in range(20_000):
        whole.append(merkle.leaf_hash(audit.block_entry(i.to_bytes(32, "big"))))
        roots[whole.size] = whole.root() if whole.size in (1_000, 20_000) else b""
    assert peak(20_000) < peak(1_000) + 16_384


# Events


def test_an_event_is_read_back_as_it_was_written() -> None:
    for kind in EventKind:
        details: dict[str, object] = {name: [1, {"é": "x"}, None, True] for name in audit.MEMBERS[kind]}
        event = Event(kind, NOW, "XA-NCVI", "", details)
        assert audit.parse_event(event.encode()) == event


def test_an_entry_is_the_commitment_of_the_contract() -> None:
    event, salt = made_up_event(7), digest("salt")
    expected = hashlib.sha256(b"event 1\n" + salt + event.encode()).digest()
    assert audit.event_entry(event, salt) == audit.event_entry(event.encode(), salt) == b"\x01" + expected
    assert audit.block_entry(digest("block")) == b"\x02" + digest("block")


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: Event(EventKind.PAUSED, NOW, "XA-NCVI", "", {"sha256": "00"}).encode(), "no detail named sha256"),
        (lambda: Event(EventKind.PAUSED, NOW, "", "", {}), "actor"),
        (lambda: Event(EventKind.PAUSED, NOW, "a" * 257, "", {}), "actor"),
        (lambda: Event(EventKind.PAUSED, NOW, "a", "s" * 257, {}), "subject"),
        (lambda: Event(EventKind.PAUSED, -1, "a", "", {}), "time"),
        (lambda: Event(EventKind.PAUSED, 10**12, "a", "", {}), "time"),
        (lambda: Event(EventKind.PAUSED, NOW, "a", "", {"reason": "x" * 65536}).encode(), "too large"),
        (lambda: Event(EventKind.PAUSED, NOW, "a", "", {"reason": 0.5}).encode(), "float"),
        (lambda: audit.event_entry(made_up_event(1), b"salt"), "salt"),
        (lambda: audit.block_entry(b"short"), "32 bytes"),
        (lambda: audit.publish(ORIGIN, 4, bytes(32), KEY, previous=4), "continue"),
        (lambda: audit.publish(ORIGIN, 4, bytes(32), KEY, previous=-1), "continue"),
    ],
)
def test_what_cannot_be_logged_is_refused(make: Callable[[], object], expected: str) -> None:
    with pytest.raises(MalformedError, match=expected):
        make()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda v: v | {"kind": "made_up"}, "unknown kind"),
        (lambda v: v | {"more": 1}, "members"),
        (lambda v: {k: v[k] for k in v if k != "at"}, "members"),
        (lambda v: v | {"at": "soon"}, "at"),
        (lambda v: v | {"actor": 1}, "actor"),
        (lambda v: v | {"details": []}, "object"),
        (lambda v: v | {"actor": ""}, "actor"),
        (lambda v: [v], "members"),
    ],
)
def test_bytes_that_are_no_event_are_refused(change: Callable[[dict], object], expected: str) -> None:
    raw = canonical.encode(change(json.loads(made_up_event(1).encode())))
    with pytest.raises(MalformedError, match=expected):
        audit.parse_event(raw)
    with pytest.raises(MalformedError, match="canonical"):
        audit.parse_event(made_up_event(1).encode() + b"\n")


def test_an_event_of_a_newer_program_can_be_read_but_not_written() -> None:
    raw = made_up_event(1).encode().replace(b'"reasons"', b'"reasons of tomorrow"')
    event = audit.parse_event(raw)
    assert "reasons of tomorrow" in event.details
    with pytest.raises(MalformedError, match="no detail"):
        event.encode()


def test_the_worked_example_of_the_log_contract_is_true() -> None:
    text = (CONTRACTS / "log-1.md").read_text()
    event = re.search(r"^    event +(\{.*\})$", text, re.MULTILINE)
    entry = re.search(r"^    entry +([0-9a-f]{66})$", text, re.MULTILINE)
    assert event is not None
    assert entry is not None
    assert audit.event_entry(audit.parse_event(event[1].encode()), bytes(32)).hex() == entry[1]


def test_the_contract_lists_exactly_the_kinds_and_members_of_the_code() -> None:
    text = (CONTRACTS / "audit-events.md").read_text()
    documented = {
        row[0]: frozenset(re.findall(r"`([a-z_]+)`", row[1]))
        for row in re.findall(r"^\| `([a-z_]+)` \| [^|]+ \| ([^|]*) \|$", text, re.MULTILINE)
    }
    assert documented == {str(kind): members for kind, members in audit.MEMBERS.items()}
    assert set(audit.MEMBERS) == set(EventKind)


# Receipts


def test_a_receipt_says_which_message_stands_where() -> None:
    receipt = audit.verify_receipt(
        GOOD.receipt(5, 19), KEY.verifier, manifest_digest=digest("made-up manifest 5").hex()
    )
    assert (receipt.origin, receipt.leaf_index, receipt.checkpoint.size) == (ORIGIN, 5, 19)
    assert (receipt.sender, receipt.message_id, receipt.event) == ("XB-NCVI", "message-5", push_event(5))
    assert receipt.leaf_hash == merkle.leaf_hash(GOOD.leaves[5].entry)


def test_a_receipt_for_another_message_is_refused() -> None:
    with pytest.raises(VerificationError, match="another message"):
        audit.verify_receipt(GOOD.receipt(5, 19), KEY.verifier, manifest_digest=digest("made-up manifest 4").hex())


def test_no_receipt_is_built_for_other_events() -> None:
    with pytest.raises(MalformedError, match="no receipt"):
        audit.build_receipt(
            made_up_event(1), bytes(32), origin=ORIGIN, leaf_index=0, tree_size=1, proof=(), note=GOOD.heads[0].note
        )


@pytest.mark.parametrize("vector", VECTORS["receipts"], ids=lambda v: v["name"])
def test_frozen_receipts_are_judged_as_expected(vector: dict) -> None:
    key = checkpoint.VerifierKey.parse(VECTORS["verifier"])
    raw = vector["receipt"].encode()
    if vector["expect"] == "success":
        assert audit.verify_receipt(raw, key, manifest_digest=vector["manifest_digest"]).message_id
        return
    with pytest.raises(GatewayError, match=vector["expect"]):
        audit.verify_receipt(raw, key, manifest_digest=vector["manifest_digest"])


RECEIPT = GOOD.receipt(5, 19)


@given(position=st.integers(0, len(RECEIPT) * 8 - 1))
@settings(max_examples=400, deadline=None)
def test_any_flipped_bit_of_a_receipt_is_refused(position: int) -> None:
    raw = bytearray(RECEIPT)
    raw[position // 8] ^= 1 << position % 8
    with pytest.raises((MalformedError, VerificationError, ProofError)):
        audit.verify_receipt(bytes(raw), KEY.verifier)
