"""Appending to the audit log, inside the transaction of the deed that it records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from sqlalchemy import Connection, bindparam, delete, insert, select, union_all
from sqlalchemy import func as sql

from gateway import audit
from gateway.crypto import checkpoint, merkle
from gateway.errors import AuditBrokenError, NotFoundError
from gateway.store.tables import AuditCheckpoint, AuditLeaf, AuditNode, columns, table
from gateway.store.upserts import add_many

CHECKPOINT = columns(AuditCheckpoint)
LEAF = columns(AuditLeaf)
NODE = columns(AuditNode)

EDGE_LEVELS = 24  # sixteen million leaves; in a larger log the few nodes above are read one by one
_KIND, _KIND_CHARS = '"kind":"', 6  # so much of a kind tells those apart that are looked for

# Made once: building a statement costs more than running it, and every deed runs these.
_SIZE = select(sql.max(LEAF.idx))
_NODE = select(NODE.hash).where(NODE.level == bindparam("level"), NODE.idx == bindparam("index"))
# One step down the primary key for each level: databases do not find pairs of an IN list in an index of two columns.
_EDGE = union_all(
    *(
        select(NODE.level, NODE.idx, NODE.hash).where(NODE.level == level, NODE.idx == bindparam(f"at_{level}"))
        for level in range(EDGE_LEVELS)
    )
)
_LAST_NOTED = select(CHECKPOINT.size, CHECKPOINT.note).order_by(CHECKPOINT.size.desc()).limit(1)
_ADD_NOTE = insert(table(AuditCheckpoint))


class LogSigner(Protocol):
    """Signs checkpoints and gives salts: the log's key stays in the keystore."""

    def sign_checkpoint(self, size: int, root: bytes, previous: int, origin: str) -> bytes:
        """A C2SP signed note over (size, root) that names the size of the checkpoint before it.

        Args:
            origin: of the log that it belongs to; "" for the first checkpoint of a gateway's first log.
        """

    def salt(self) -> bytes:
        """32 fresh random bytes."""


class Log:
    """The log's tables within one transaction. Several appends of one transaction share one checkpoint."""

    def __init__(self, connection: Connection, signer: LogSigner) -> None:
        self._connection = connection
        self._signer = signer
        self._appended = False
        self._first: int | None = None  # the first leaf that this transaction has appended
        self._size: int | None = None  # once this transaction has appended: nobody else appends meanwhile
        self._begun = ""  # the origin of a log that begins in this transaction
        self._cache: dict[tuple[int, int], bytes] = {}

    def size(self) -> int:
        """Number of leaves."""
        if self._size is not None:
            return self._size
        last = self._connection.execute(_SIZE).scalar()
        if last is None:
            return 0
        if not isinstance(last, int):
            raise AuditBrokenError("audit log: a leaf without a number")
        return last + 1

    def origin(self) -> str | None:
        """The name that the newest checkpoint gives the log, unverified; None for a log without any."""
        last = self._connection.execute(_LAST_NOTED).first()
        return self._begun or None if last is None else checkpoint.origin_of(str(last.note))

    def begin(self, origin: str) -> None:
        """The log is empty and bears another name: what was in it goes, with its tree and its checkpoints."""
        for model in (AuditLeaf, AuditNode, AuditCheckpoint):
            self._connection.execute(delete(model))
        self._cache.clear()
        self._appended, self._first, self._size, self._begun = False, None, None, origin

    def append(self, events: Sequence[audit.Event], *, blocks: Sequence[bytes] = ()) -> int:
        """Append a leaf for each block digest, then one for each event; returns the index of the first leaf."""
        first = self.size()
        rows: list[dict[str, Any]] = [
            {"idx": first + number, "entry": audit.block_entry(digest), "event": None, "salt": None}
            for number, digest in enumerate(blocks)
        ]
        for number, event in enumerate(events, len(rows)):
            salt, raw = self._signer.salt(), event.encode()
            entry = audit.event_entry(raw, salt)
            rows.append({"idx": first + number, "entry": entry, "event": raw.decode(), "salt": salt})
        if not rows:
            return first
        if self._first is None:
            self._check_end(first)
            self._first = first
        add_many(self._connection, AuditLeaf, rows)
        self._read_edge(first)
        hashes = [merkle.leaf_hash(row["entry"]) for row in rows]
        nodes = merkle.append_nodes(first, hashes, self.read_node)
        self._cache.update({(level, index): value for level, index, value in nodes})
        add_many(self._connection, AuditNode, [{"level": a, "idx": b, "hash": h} for a, b, h in nodes])
        self._appended, self._size = True, first + len(rows)
        return first

    def is_own(self, index: int) -> bool:
        """Whether this very transaction has appended a leaf, so that no checkpoint can cover it yet."""
        return self._first is not None and index >= self._first

    def _check_end(self, size: int) -> None:
        """Returns when the log ends where its newest checkpoint says: else the next one would sign what others wrote.

        Raises:
            AuditBrokenError: leaves stand behind it that no deed has left there, or leaves are gone.
        """
        last = self._connection.execute(_LAST_NOTED).first()
        signed = 0 if last is None else last.size
        if size != signed:
            raise AuditBrokenError(
                "the audit log does not end where its newest checkpoint says", index=min(size, signed)
            )

    def _read_edge(self, size: int) -> None:
        """Read at once what leaves are added to: the hashes on the right edge of the tree of `size` leaves."""
        if self._cache:
            return  # it was read, and what was appended since is there
        edge = {f"at_{level}": (size >> level) - 1 if size >> level & 1 else -1 for level in range(EDGE_LEVELS)}
        for level, index, value in self._connection.execute(_EDGE, edge):
            self._cache[level, index] = _octets(value, index << level)

    def close(self) -> None:
        """Sign the checkpoint of what this transaction appended; nothing to do without an append."""
        if self._appended:
            self.checkpoint()
            self._appended = False

    def checkpoint(self) -> bytes:
        """The signed checkpoint of the log as it stands within this transaction."""
        size = self.size()
        last = self._connection.execute(_LAST_NOTED).first()
        if last is not None and last.size == size:
            return str(last.note).encode()
        previous, origin = (0, self._begun) if last is None else (last.size, checkpoint.origin_of(str(last.note)))
        note = self._signer.sign_checkpoint(size, merkle.root(size, self.read_node), previous, origin)
        row = {"size": size, "note": note.decode()}
        self._connection.execute(_ADD_NOTE, [row])
        return note

    def latest_checkpoint(self) -> bytes:
        """The newest stored checkpoint."""
        query = select(CHECKPOINT.note).order_by(CHECKPOINT.size.desc()).limit(1)
        note = self._connection.execute(query).scalar()
        if note is None:
            raise NotFoundError("the log is empty")
        return str(note).encode()

    def inclusion_proof(self, index: int, size: int) -> merkle.Proof:
        """The audit path of leaf `index` in the tree of `size` leaves."""
        return merkle.inclusion_proof(index, size, self.read_node)

    def consistency_proof(self, old: int, new: int) -> merkle.Proof:
        """The proof that the tree of `new` leaves extends the tree of `old`."""
        return merkle.consistency_proof(old, new, self.read_node)

    def read_node(self, level: int, index: int) -> bytes:
        """The stored hash of one complete subtree."""
        cached = self._cache.get((level, index))
        if cached is not None:
            return cached
        found = self._connection.execute(_NODE, {"level": level, "index": index}).scalar()
        if found is None:
            raise AuditBrokenError("a node of the log's tree is missing", index=index << level)
        return _octets(found, index << level)

    def leaves(self, start: int = 0, stop: int | None = None) -> Iterator[audit.LeafRow]:
        """Leaf rows in order of index."""
        query = select(LEAF.idx, LEAF.entry, LEAF.event, LEAF.salt)
        if start:  # from the first on no row is left out: one before it does not belong there
            query = query.where(LEAF.idx >= start)
        if stop is not None:
            query = query.where(LEAF.idx < stop)
        for idx, entry, event, salt in self._connection.execute(query.order_by(LEAF.idx)).yield_per(1000):
            if event is not None and not isinstance(event, str):
                raise _other_type(idx)
            raw = None if event is None else event.encode()
            yield audit.LeafRow(idx, _octets(entry, idx), raw, None if salt is None else _octets(salt, idx))

    def of_kinds(self, kinds: Sequence[str], start: int = 0) -> list[audit.LeafRow]:
        """Leaves from `start` on whose event is of one of these kinds; perhaps some of kinds that begin alike."""
        # An event is canonical JSON: inside a text a quotation mark stands behind a backslash, so no text looks so, and
        # of its own members `kind` is the first of that name unless its details have one. Searched for once in a row.
        position = sql.instr if self._connection.dialect.name == "sqlite" else sql.strpos
        word = sql.substr(LEAF.event, position(LEAF.event, _KIND) + len(_KIND), _KIND_CHARS)
        query = select(LEAF.idx, LEAF.entry, LEAF.event, LEAF.salt)
        query = query.where(LEAF.idx >= start, word.in_(sorted({kind[:_KIND_CHARS] for kind in kinds})))
        rows = self._connection.execute(query.order_by(LEAF.idx))
        return [
            audit.LeafRow(idx, _octets(entry, idx), str(event).encode(), None if salt is None else _octets(salt, idx))
            for idx, entry, event, salt in rows
        ]

    def nodes(self) -> Iterator[merkle.Node]:
        """Every stored node (level, index, hash), in the order in which nodes come to be."""
        # ((index + 1) << level, level): `audit.verify_log` meets them in this order while it walks the leaves.
        born = NODE.idx.op("+")(1).op("<<")(NODE.level)
        query = select(NODE.level, NODE.idx, NODE.hash).order_by(born, NODE.level)
        for level, idx, value in self._connection.execute(query).yield_per(1000):
            yield level, idx, _octets(value, idx << level)

    def nodes_born(self, start: int, stop: int) -> list[merkle.Node]:
        """The nodes that leaves `start` … `stop` - 1 completed, in the order in which they came to be."""
        found: list[merkle.Node] = []
        for level in range(stop.bit_length()):
            where = (NODE.level == level, NODE.idx >= start >> level, NODE.idx < stop >> level)
            for idx, value in self._connection.execute(select(NODE.idx, NODE.hash).where(*where)):
                found.append((level, idx, _octets(value, idx << level)))
        return sorted(found, key=lambda node: (node[1] + 1 << node[0], node[0]))

    def counts_fit(self) -> bool:
        """Whether the tables have as many rows as a log of this size, and no checkpoint beyond it."""
        size = self.size()
        leaves = self._connection.execute(select(sql.count()).select_from(AuditLeaf)).scalar_one()
        nodes = self._connection.execute(select(sql.count()).select_from(AuditNode)).scalar_one()
        last = self._connection.execute(select(sql.max(CHECKPOINT.size))).scalar() or 0
        return leaves == size and nodes == sum(size >> level for level in range(size.bit_length())) and last <= size

    def checkpoints(self, after: int = 0, until: int | None = None) -> Iterator[audit.CheckpointRow]:
        """Stored checkpoints of sizes above `after` (up to `until`), smallest tree first."""
        query = select(CHECKPOINT.size, CHECKPOINT.note).where(CHECKPOINT.size > after).order_by(CHECKPOINT.size)
        if until is not None:
            query = query.where(CHECKPOINT.size <= until)
        for size, note in self._connection.execute(query).yield_per(1000):
            yield audit.CheckpointRow(size, str(note).encode())


def _octets(value: object, index: int) -> bytes:
    """A column of bytes. SQLite keeps whatever type it is given, so another one shows that somebody else wrote it."""
    if not isinstance(value, bytes):
        raise _other_type(index)
    return value


def _other_type(index: int) -> AuditBrokenError:
    return AuditBrokenError("audit log: a row of another type than was written", index=index)
