"""Blocks at rest: each sealed under a data key of its own, and the resident index of each set.

The index follows the store: `index` reads what was committed since it last looked, by this process or another, so a
rolled-back transaction never shows in it. Opening a part needs the master data key, the block's wrapped key and the
context that names block and part: a part moved to another row does not open. The wrapped key opens only beside the row
that it was made for (`_row_context`), so whoever can write the database cannot move a block to another set or label.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from io import BytesIO

from gateway.columns.block import DIGEST_CONTEXT, Block, BlockHeader, decode, parse_header
from gateway.columns.index import Arrival, SetIndex
from gateway.columns.rows import COLUMNS, EXISTENCE, Octets, Rows, Text
from gateway.crypto.keys import Random
from gateway.crypto.seal import DataKey
from gateway.errors import AuditBrokenError, MalformedError, VerificationError
from gateway.store import Transaction
from gateway.store.tables import BlockPart, BlockRow

CHANGES, REMOVALS, REFUSED = "changes", "removals", "refused"
ITEMS_PART = 254  # beside a refused block's existence part: the state digest items of what was not kept
# By what an entry is found again: its digests, and the reference under which its owner imported it.
INDEXED = ("md5", "sha1", "sha256", "sha512", "pdq", "photodna", "source_ref")
READ_AT_ONCE = 65_536  # changes: as many as one block may have, so some 5 MB of the reference shape
INDEXED_PARTS = {EXISTENCE, *(COLUMNS[name].group for name in INDEXED)}


@dataclass(slots=True)
class _Resident:
    """One set's index and how far it has followed the store."""

    index: SetIndex
    block_id: int = 0
    drop_id: int = 0
    blocks: set[int] = field(default_factory=set)


class Shelf:
    """Puts blocks away sealed, gets them back, and knows where every entry is."""

    def __init__(self, master: DataKey, random: Random) -> None:
        self._master = master
        self._random = random
        self._residents: dict[int, _Resident] = {}
        self._following = threading.RLock()

    def salt(self) -> bytes:
        """A part's 16 fresh random bytes."""
        return self._random.bytes(16)

    def put(
        self,
        tx: Transaction,
        set_id: int,
        kind: str,
        blocks: Sequence[Block],
        *,
        first_leaf: int,
        items: Sequence[bytes] = (),
    ) -> None:
        """Add blocks in their order of arrival; block i is leaf `first_leaf` + i of the audit log.

        Args:
            items: for refused blocks, what stands in place of their values.
        """
        next_id = tx.blocks.next_id()
        rows, parts = [], []
        for number, block in enumerate(blocks):
            block_id = next_id + number
            key = DataKey.generate(self._random)
            row = BlockRow(
                id=block_id,
                set_id=set_id,
                kind=kind,
                label=block.header.label,
                epoch=block.header.epoch,
                first_seq=block.header.first_seq,
                last_seq=block.header.last_seq,
                count=block.header.count,
                digest=block.digest,
                header=block.header.encode(),
                wrapped_key=b"",
                leaf=first_leaf + number,
            )
            plain = dict(block.parts) | ({ITEMS_PART: items[number]} if items else {})
            row.parts = " ".join(map(str, sorted(plain)))
            row.wrapped_key = self._master.wrap(key, _row_context(row), self._random)
            rows.append(row)
            for part, raw in plain.items():
                sealed = key.seal(raw, _context(block_id, part), self._random)
                parts.append(BlockPart(block_id=block_id, part=part, sealed=sealed))
        tx.blocks.add(rows, parts)

    def get(self, tx: Transaction, row: BlockRow, parts: Iterable[int] | None = None) -> Block:
        """The block with the parts wanted that are stored (None: all), each checked against the header."""
        return next(self.get_all(tx, [row], parts))

    def get_all(self, tx: Transaction, rows: Sequence[BlockRow], parts: Iterable[int] | None = None) -> Iterator[Block]:
        """The same of several blocks, read a few megabytes at a time."""
        wanted = None if parts is None else set(parts)
        for some in _readable(rows):
            sealed = tx.blocks.parts_of([block_id(row) for row in some], wanted)
            for row in some:
                yield self._open(row, sealed[block_id(row)], wanted)

    def _open(self, row: BlockRow, sealed: Mapping[int, bytes], wanted: AbstractSet[int] | None) -> Block:
        with _as_written(row):
            header = stored_header(row)
            written = {int(part) for part in row.parts.split()}
            if not (written if wanted is None else written & wanted) <= sealed.keys():
                raise VerificationError("a part of a stored block is missing")
            key = self._master.unwrap(row.wrapped_key, _row_context(row))
            opened = {}
            for part in header.parts:
                if part.group in sealed:
                    raw = opened[part.group] = key.open(sealed[part.group], _context(block_id(row), part.group))
                    if hashlib.sha256(raw).digest() != part.sha256:
                        raise VerificationError("a stored block part is not the one that its header names")
            return Block(header, opened)

    def items(self, tx: Transaction, row: BlockRow) -> bytes:
        """What was kept beside a refused block in place of its values."""
        sealed = tx.blocks.parts(block_id(row), [ITEMS_PART]).get(ITEMS_PART, b"")
        with _as_written(row):
            key = self._master.unwrap(row.wrapped_key, _row_context(row))
            return key.open(sealed, _context(block_id(row), ITEMS_PART))

    @contextmanager
    def index(self, tx: Transaction, set_id: int) -> Iterator[SetIndex]:
        """The set's resident index, for one thread at a time, as of what is committed.

        A transaction asks before it puts blocks, never after: what it put might still be rolled back.
        """
        assert not tx.blocks.changed, "the index would follow what is not committed"
        with self._following:
            resident = self._residents.get(set_id)
            if resident is None:
                resident = _Resident(SetIndex(self._random.bytes(32)), drop_id=tx.blocks.last_drop(set_id))
                self._residents[set_id] = resident
            arrived = tx.blocks.of_set(set_id, after_id=resident.block_id)
            for some in _readable(arrived):
                blocks = self.get_all(tx, some, INDEXED_PARTS)
                resident.index.append_all([_arrival(row, block) for row, block in zip(some, blocks, strict=True)])
                resident.blocks.update(map(block_id, some))
                resident.block_id = block_id(some[-1])
            for drop_id, dropped in tx.blocks.dropped(set_id, resident.drop_id):
                if dropped in resident.blocks:
                    resident.index.drop_block(dropped)
                    resident.blocks.remove(dropped)
                resident.drop_id = drop_id
            yield resident.index


def _arrival(row: BlockRow, block: Block) -> Arrival:
    """A block as the index takes it in; a refused one has no more than existence."""
    rows = decode(block, ["entry_id", "kind", *INDEXED])
    return Arrival(block_id(row), rows.ints("entry_id"), searchable(rows), rows.ints("kind"))


def searchable(rows: Rows) -> dict[str, Octets | Text]:
    """The columns by which these rows are found again."""
    found: dict[str, Octets | Text] = {}
    for name in INDEXED:
        if name in rows.columns:
            found[name] = rows.text(name) if name == "source_ref" else rows.octets(name)
    return found


def stored_header(row: BlockRow) -> BlockHeader:
    """The header of a stored block."""
    return _parsed_header(row.header)


@lru_cache(maxsize=1024)
def _parsed_header(raw: bytes) -> BlockHeader:
    """One deed meets a block several times, and every field of a header is checked when it is parsed."""
    return parse_header(BytesIO(raw))


def block_id(row: BlockRow) -> int:
    """The id of a stored block."""
    assert row.id is not None, "a stored block has an id"
    return row.id


def _readable(rows: Sequence[BlockRow]) -> Iterator[Sequence[BlockRow]]:
    """The rows in runs of so many changes that their parts may be in memory at once."""
    start = changes = 0
    for at, row in enumerate(rows):
        if changes and changes + row.count > READ_AT_ONCE:
            yield rows[start:at]
            start, changes = at, 0
        changes += row.count
    if rows:
        yield rows[start:]


@contextmanager
def _as_written(row: BlockRow) -> Iterator[None]:
    """What does not open or fit here was changed in our own database: nobody else is to blame."""
    try:
        yield
    except (VerificationError, MalformedError) as error:
        raise AuditBrokenError("a stored block is not as it was written", index=row.leaf) from error


def _row_context(row: BlockRow) -> str:
    """Everything that the row says of its block; the digest stands for the header."""
    if hashlib.sha256(DIGEST_CONTEXT + row.header).digest() != row.digest:
        raise VerificationError("a stored header is not the one that its digest names")
    at = f"epoch {row.epoch} seq {row.first_seq} to {row.last_seq}, {row.count} changes"
    parts = f", parts {row.parts}" if row.parts else ""  # blocks from before revision 0002 do not say
    named = f"block {row.id} {row.kind} of set {row.set_id} label {row.label}"
    return f"{named} {at}, leaf {row.leaf}, {row.digest.hex()}{parts}"


def _context(number: int, part: int) -> str:
    return f"block {number} part {part}"
