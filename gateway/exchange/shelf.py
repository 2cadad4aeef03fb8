"""Blocks at rest: each sealed under a data key of its own, and the resident index of each set.

The index follows the store: `index` reads what was committed since it last looked, by this process or another, so a
rolled-back transaction never shows in it. Beside it there is, for a set of which near-duplicates are asked often
enough and as far as memory is set aside for it, an index of its PDQ digests, which follows the same blocks (`near`).
Opening a part needs the master data key, the block's wrapped key and the
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

from gateway.columns.block import DIGEST_CONTEXT, Block, BlockHeader, decode_together, parse_header
from gateway.columns.index import Arrival, SetIndex
from gateway.columns.pdq import Near, PdqIndex, estimated_bytes, is_poor, near_in, near_in_all
from gateway.columns.rows import COLUMNS, EXISTENCE, Octets, Rows, Text, constant
from gateway.crypto.keys import Random
from gateway.crypto.seal import DataKey
from gateway.errors import AuditBrokenError, ConflictError, MalformedError, VerificationError
from gateway.store import Store, Transaction
from gateway.store.tables import BlockPart, BlockRow

CHANGES, REMOVALS, REFUSED = "changes", "removals", "refused"
HISTORY = "history"  # of an own set: where rows that were replaced stood, without their values (`compacting`)
BARRED = "barred"  # of a mirror: as refused ones, but by the never-again list, whatever policy says
EXPIRED = "expired"  # of a mirror: as refused ones, but they were held until a duty to delete them was due (`duties`)
BARE = (REFUSED, BARRED, EXPIRED)  # kinds of blocks that hold items in place of values
ITEMS_PART = 254  # beside a refused block's existence part: the state digest items of what was not kept
# By what an entry is found again: its digests, and the reference under which its owner imported it.
INDEXED = ("md5", "sha1", "sha256", "sha512", "pdq", "photodna", "source_ref")
READ_AT_ONCE = 65_536  # changes: as many as one block may have, so some 5 MB of the reference shape
HANDED_ROWS = 131_072  # kept at hand for the index, some 13 MB: what the largest import or page commits at once
INDEXED_PARTS = {EXISTENCE, *(COLUMNS[name].group for name in INDEXED)}
NEAR_COLUMNS = ("pdq", "pdq_quality")
NEAR_PART = COLUMNS["pdq"].group
_READ_COLUMNS = ("entry_id", "kind", *INDEXED, "pdq_quality")
PDQ_SHAPE = 1 << COLUMNS["pdq"].shape_bit
NEAR_BYTES = 1280 << 20  # for PDQ digests of all sets, where nobody says otherwise: ten million of them
READ_FOR = 256  # questions: up to so many, reading a list takes less time than making an index of it


@dataclass(slots=True)
class _Resident:
    """One set's index and how far it has followed the store.

    `near`: the index of its PDQ digests, once so many questions were asked that it pays. `asked`: how many those are.
    """

    index: SetIndex
    block_id: int = 0
    drop_id: int = 0
    blocks: set[int] = field(default_factory=set)
    near: PdqIndex | None = None
    asked: int = 0

    def take(self, arrivals: Sequence[Arrival]) -> None:
        """Both indexes hold these blocks."""
        if self.near is None:
            self.index.append_all(arrivals)
        else:
            self.near.follow(self.index, arrivals)

    def drop(self, number: int) -> None:
        """Neither index holds a block."""
        self.index.drop_block(number)
        if self.near is not None:
            self.near.drop_block(number)
        self.blocks.remove(number)


class Shelf:
    """Puts blocks away sealed, gets them back, and knows where every entry is."""

    def __init__(self, master: DataKey, random: Random, near_bytes: int = NEAR_BYTES) -> None:
        self._master = master
        self._random = random
        self._near_bytes = near_bytes
        self._residents: dict[int, _Resident] = {}
        self._following = threading.RLock()
        self._handed = _Handed()

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
        arrived: int | Sequence[int] = 0,
        items: Sequence[bytes] = (),
        rows: Sequence[Rows] = (),
    ) -> None:
        """Add blocks in their order of arrival; block i is leaf `first_leaf` + i of the audit log.

        Args:
            arrived: when their rows came, in Unix seconds: now, or of blocks written anew when the oldest of them did.
                Of what is not said so nothing is kept that is to be deleted some day.
            items: for refused blocks, what stands in place of their values.
            rows: of the blocks, where they are at hand: the index takes them from here once the blocks are committed.
        """
        next_id = tx.blocks.next_id()
        times = [arrived] * len(blocks) if isinstance(arrived, int) else arrived
        stored, parts = [], []
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
                arrived=times[number],
            )
            plain = dict(block.parts) | ({ITEMS_PART: items[number]} if items else {})
            row.parts = " ".join(map(str, sorted(plain)))
            row.wrapped_key = self._master.wrap(key, _row_context(row), self._random)
            stored.append(row)
            for part, raw in plain.items():
                sealed = key.seal(raw, _context(block_id, part), self._random)
                parts.append(BlockPart(block_id=block_id, part=part, sealed=sealed))
        tx.blocks.add(stored, parts)
        for row, made in zip(stored, rows, strict=False):
            self._handed.add(row, made)

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
            key = self._key(row)
            opened = {}
            for part in header.parts:
                if part.group in sealed:
                    raw = opened[part.group] = key.open(sealed[part.group], _context(block_id(row), part.group))
                    if hashlib.sha256(raw).digest() != part.sha256:
                        raise VerificationError("a stored block part is not the one that its header names")
            return Block(header, opened)

    def _key(self, row: BlockRow) -> DataKey:
        try:
            return self._master.unwrap(row.wrapped_key, _row_context(row))
        except VerificationError:
            # Of a block from before revision 0010 the time of arrival was read from the log when that revision came.
            return self._master.unwrap(row.wrapped_key, _row_context(row, timed=False))

    def items(self, tx: Transaction, row: BlockRow) -> bytes:
        """What was kept beside a refused block in place of its values."""
        sealed = tx.blocks.parts(block_id(row), [ITEMS_PART]).get(ITEMS_PART, b"")
        with _as_written(row):
            key = self._key(row)
            return key.open(sealed, _context(block_id(row), ITEMS_PART))

    @contextmanager
    def reading(self, store: Store) -> Iterator[Transaction]:
        """A read transaction that asks the index: meanwhile no thread of this process moves the index beyond its state.

        Where readers keep the state that they began with while others commit (PostgreSQL, SQLite with a write-ahead
        log), the index could otherwise be newer than what they see.
        """
        with self._following, store.reading() as tx:
            yield tx

    @contextmanager
    def index(self, tx: Transaction, set_id: int) -> Iterator[SetIndex]:
        """The set's resident index, for one thread at a time, as of what is committed.

        A transaction asks before it puts blocks, never after: what it put might still be rolled back. One that only
        reads begins with `reading`.

        Raises:
            ConflictError: this transaction reads a state that another thread's has left behind in the index.
        """
        assert not tx.blocks.changed, "the index would follow what is not committed"
        with self._following:
            resident = self._residents.get(set_id)
            if resident is None:
                resident = _Resident(SetIndex(self._random.bytes(32)), drop_id=tx.blocks.last_drop(set_id))
                self._residents[set_id] = resident
            last_drop = tx.blocks.last_drop(set_id)
            if last_drop < resident.drop_id:  # followed by another thread, whose transaction began later
                raise ConflictError("the set was rewritten while it was read", remedy="try again")
            drops = tx.blocks.dropped(set_id, resident.drop_id) if last_drop > resident.drop_id else []
            arrived = tx.blocks.of_set(set_id, after_id=resident.block_id)
            if not arrived and resident.block_id and not tx.blocks.has_seen(resident.block_id):
                raise ConflictError("the set was changed while it was read", remedy="try again")
            for some in _readable(arrived):
                resident.take(self._arrivals(tx, some))
                resident.blocks.update(map(block_id, some))
                resident.block_id = block_id(some[-1])
            for drop_id, dropped in drops:
                if dropped in resident.blocks:
                    resident.drop(dropped)
                resident.drop_id = drop_id
            yield resident.index

    def near(self, tx: Transaction, set_id: int, digests: Octets, radius: int) -> Near:
        """Every entry of the set, as of what is committed, whose PDQ digest lies within `radius` bits of one of these.

        Digests whose quality is known to be too low are near nothing. The same rules as for `index`. The first few
        questions read the list; whoever goes on asking gets an index of it, if there is room for one.

        Raises:
            ConflictError: as `index`.
            OverloadedError: several digests have too many matches together.
        """
        with self.index(tx, set_id) as index:
            resident = self._residents.pop(set_id)
            self._residents[set_id] = resident  # last in the order: the first were asked for the longest ago
            resident.asked += len(digests)
            stored = [] if resident.near is not None else _with_pdq(tx.blocks.of_set(set_id))
            if resident.near is None and resident.asked > READ_FOR and self._has_room_for(resident, stored):
                resident.near = self._made_near(tx, index, stored)
            if resident.near is not None and self._has_room_for(resident, []):
                return resident.near.near(digests, radius)
            if resident.near is not None:
                resident.near, stored = None, _with_pdq(tx.blocks.of_set(set_id))
            return self._read_near(tx, index, stored, digests, radius)

    def _has_room_for(self, resident: _Resident, stored: Sequence[BlockRow]) -> bool:
        """Whether the PDQ index of a set may be resident, if need be in place of others."""

        def wanted(one: _Resident) -> int:
            return 0 if one.near is None else estimated_bytes(one.near.live_count)

        own = wanted(resident) or estimated_bytes(sum(row.count for row in stored))
        others = [one for one in self._residents.values() if one is not resident and one.near is not None]
        while others and own <= self._near_bytes < own + sum(map(wanted, others)):
            others.pop(0).near = None
        return own <= self._near_bytes

    def _made_near(self, tx: Transaction, index: SetIndex, stored: Sequence[BlockRow]) -> PdqIndex:
        made = PdqIndex(self._random.bytes(32))
        for row, rows in self._pdq_rows(tx, stored):
            findable = index.live_rows(block_id(row)) & ~is_poor(rows.ints("pdq_quality"))
            made.add(block_id(row), rows.octets("pdq"), findable)
        return made

    def _read_near(
        self, tx: Transaction, index: SetIndex, stored: Sequence[BlockRow], digests: Octets, radius: int
    ) -> Near:
        """The same answer without an index of the whole: block by block, so that memory does not grow with the list."""
        found = []
        for row, rows in self._pdq_rows(tx, stored):
            number, held = block_id(row), rows.octets("pdq")
            findable = index.live_rows(number) & ~is_poor(rows.ints("pdq_quality"))
            if len(digests) > READ_FOR:
                small = PdqIndex(self._random.bytes(32))
                small.add(number, held, findable)
                found.append(small.near(digests, radius))
            else:
                found.append(near_in(number, held, findable, digests, radius))
        return near_in_all(found)

    def _pdq_rows(self, tx: Transaction, stored: Sequence[BlockRow]) -> Iterator[tuple[BlockRow, Rows]]:
        """The stored blocks that hold PDQ digests which are here, with these."""
        for together in decode_together(self.get_all(tx, stored, [NEAR_PART]), NEAR_COLUMNS):
            for place, (_, rows) in zip(together.places, together.each(), strict=True):
                if "pdq" in rows.columns:
                    yield stored[place], rows

    def _arrivals(self, tx: Transaction, some: Sequence[BlockRow]) -> list[Arrival]:
        found: dict[int, Arrival] = {}
        for row in some:
            arrival = _history(row) if row.kind == HISTORY else self._handed.take(row)
            if arrival is not None:
                found[block_id(row)] = arrival
        unread = [row for row in some if block_id(row) not in found]
        # A refused block has no more than existence.
        for together in decode_together(self.get_all(tx, unread, INDEXED_PARTS), _READ_COLUMNS):
            for place, (_, rows) in zip(together.places, together.each(), strict=True):
                found[block_id(unread[place])] = _arrival(unread[place], rows)
        return [found[block_id(row)] for row in some]


class _Handed:
    """Rows of blocks that were put a moment ago, so that the index need not read, open and hash them again.

    A row is taken over only for a block that the store shows under the very digest that was put: what was rolled back,
    or put by another node under the same number, is not the same block.
    """

    def __init__(self) -> None:
        self._arrivals: dict[int, tuple[bytes, Arrival]] = {}
        self._rows = 0
        self._changing = threading.Lock()

    def add(self, stored: BlockRow, rows: Rows) -> None:
        """Keep the rows of a block, in place of the oldest where there are too many."""
        with self._changing:
            self._drop(block_id(stored))
            self._arrivals[block_id(stored)] = stored.digest, _arrival(stored, rows)
            self._rows += rows.n
            while self._rows > HANDED_ROWS and len(self._arrivals) > 1:
                self._drop(next(iter(self._arrivals)))

    def take(self, stored: BlockRow) -> Arrival | None:
        """The rows of a stored block, once."""
        with self._changing:
            digest, arrival = self._drop(block_id(stored))
        return arrival if digest == stored.digest else None

    def _drop(self, number: int) -> tuple[bytes, Arrival | None]:
        digest, arrival = self._arrivals.pop(number, (b"", None))
        self._rows -= len(arrival.kinds) if arrival is not None else 0
        return digest, arrival


def _history(row: BlockRow) -> Arrival:
    """A block of rows that were replaced: they stand in it, and speak of no entry any more. No entry has the id 0."""
    nothing = constant(0, row.count)
    return Arrival(block_id(row), nothing, {}, nothing)


def _arrival(row: BlockRow, rows: Rows) -> Arrival:
    """The rows of a block as the index takes them in."""
    poor = is_poor(rows.ints("pdq_quality")) if "pdq" in rows.columns else None
    return Arrival(block_id(row), rows.ints("entry_id"), searchable(rows), rows.ints("kind"), poor)


def _with_pdq(stored: Sequence[BlockRow]) -> list[BlockRow]:
    """Those of these blocks that may hold PDQ digests."""
    return [row for row in stored if row.kind == CHANGES and stored_header(row).shape & PDQ_SHAPE]


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


def _row_context(row: BlockRow, *, timed: bool = True) -> str:
    """Everything that the row says of its block; the digest stands for the header."""
    if hashlib.sha256(DIGEST_CONTEXT + row.header).digest() != row.digest:
        raise VerificationError("a stored header is not the one that its digest names")
    at = f"epoch {row.epoch} seq {row.first_seq} to {row.last_seq}, {row.count} changes"
    parts = f", parts {row.parts}" if row.parts else ""  # blocks from before revision 0002 do not say
    named = f"block {row.id} {row.kind} of set {row.set_id} label {row.label}"
    arrived = f", arrived {row.arrived}" if timed else ""
    return f"{named} {at}, leaf {row.leaf}, {row.digest.hex()}{parts}{arrived}"


def _context(number: int, part: int) -> str:
    return f"block {number} part {part}"
