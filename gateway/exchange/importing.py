"""One batch of drafts becomes changes of an own set: what is new, what differs, what is there already."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter, itemgetter

from gateway.audit import Event, EventKind
from gateway.columns import digest
from gateway.columns.block import Block, cut, decode, encode_block
from gateway.columns.rows import (
    Index,
    Ints,
    Mask,
    Rows,
    constant,
    counting,
    flagged,
    grouped,
    integers,
    joined,
    repeats,
    same_values,
)
from gateway.exchange.changes import Sums, supersede
from gateway.exchange.labels import LabelBook, SetDefaults, digest_key
from gateway.exchange.shelf import CHANGES, Shelf, block_id, searchable
from gateway.model import STRONGEST_FIRST, ChangeKind, EntryDraft
from gateway.node import Node
from gateway.store import Transaction
from gateway.store.tables import HashSet

TEXTS = ("media_type", "series", "victim_ref", "source_ref")
INTS = ("seen", "pdq_quality")
TEXT_DIGESTS = frozenset({"ssdeep", "vpdq", "vendor"})
LABEL_WORDS = attrgetter("handling", "category", "victim_status", "evaluation", "restrictions")


@dataclass(slots=True)
class ImportTally:
    """What an import did so far: rows taken, and what became of them. `repeated` rows spoke of an entry twice."""

    rows: int = 0
    added: int = 0
    updated: int = 0
    unchanged: int = 0
    repeated: int = 0

    def add(self, other: ImportTally) -> None:
        """Count another batch."""
        self.rows += other.rows
        self.added += other.added
        self.updated += other.updated
        self.unchanged += other.unchanged
        self.repeated += other.repeated


@dataclass(frozen=True, slots=True)
class _Known:
    """The entry that each row speaks of, as the set holds it, and whether the row says something else than it.

    All zeros for a new one.
    """

    entry_id: Ints
    version: Ints
    seq: Ints
    label: Ints
    differs: Mask

    @classmethod
    def nothing(cls, n: int) -> _Known:
        """For n new entries."""
        return cls(constant(0, n), constant(0, n), constant(0, n), constant(0, n), flagged([False] * n))

    def take(self, where: Mask | Index | slice) -> _Known:
        """Those of some rows."""
        return _Known(
            self.entry_id[where], self.version[where], self.seq[where], self.label[where], self.differs[where]
        )


@dataclass(frozen=True, slots=True)
class _Group:
    """Rows of one shape, each with its place in the batch and the number of its label."""

    rows: Rows
    places: Ints
    labels: Ints
    known: _Known

    def take(self, where: Mask | Index) -> _Group:
        """Some of the rows."""
        return _Group(self.rows.take(where), self.places[where], self.labels[where], self.known.take(where))

    def slice(self, start: int, stop: int) -> _Group:
        """Rows start … stop - 1, as views."""
        rows, known = self.rows.slice(start, stop), self.known.take(slice(start, stop))
        return _Group(rows, self.places[start:stop], self.labels[start:stop], known)


class Batch:
    """One batch within one transaction."""

    def __init__(self, node: Node, shelf: Shelf, tx: Transaction, hash_set: HashSet) -> None:
        assert hash_set.id is not None
        self._node, self._shelf, self._tx, self._set = node, shelf, tx, hash_set
        self._set_id = hash_set.id
        self._defaults = SetDefaults.from_json(hash_set.defaults)
        self._labels = LabelBook(node, tx, self._set_id)
        self._key = digest_key(node, hash_set)

    def take_in(self, drafts: Sequence[EntryDraft], actor: str, form: str) -> ImportTally:
        """Add what is new, update what differs, leave the rest; returns what became of the rows."""
        # 1. Of rows that speak of the same entry the last one counts.
        last = _last_of_each(drafts)
        tally = ImportTally(rows=len(drafts), repeated=len(drafts) - len(last))
        # 2. Columns by shape, each row with the number of its label.
        groups = [self._group(places, drafts) for places in _by_shape(last, drafts)]
        # 3. Tell new, changed and unchanged apart.
        for group in groups:
            self._find_known(group)
        changed = [_changed(group, tally) for group in _once_each(groups, tally)]
        # 4. Take what is superseded out of the sums, number the changes, add them. A block has one label and one shape.
        sums = Sums(self._tx, self._set_id, self._key)
        blocks, seq, next_entry = self._number(_by_label(changed), sums)
        if not blocks:
            return tally
        # 5. Blocks, sums, set position and leaves, in the one commit of the caller's transaction.
        event = self._event(actor, form, tally, seq, len(blocks))
        leaf = self._tx.log.append([event], blocks=[block.digest for block in blocks])
        self._shelf.put(self._tx, self._set_id, CHANGES, blocks, first_leaf=leaf)
        self._tx.sets.advance(self._set_id, expected_seq=self._set.seq, seq=seq, next_entry=next_entry)
        sums.write()
        return tally

    def _group(self, places: Sequence[int], batch: Sequence[EntryDraft]) -> _Group:
        drafts = [batch[place] for place in places]
        # Thousands of drafts share a few labels, and making a label checks every word of it.
        numbers: dict[object, int] = {}
        labels = []
        for draft in drafts:
            words = LABEL_WORDS(draft)
            number = numbers.get(words)
            if number is None:
                number = numbers[words] = self._labels.number(self._defaults.label(self._node, draft))
            labels.append(number)
        return _Group(_rows(drafts), integers(places), integers(labels), _Known.nothing(len(drafts)))

    def _find_known(self, group: _Group) -> None:
        """Fill in the entry that each row speaks of: by its source reference, else by its strongest digest."""
        rows = group.rows
        sourced = rows.text("source_ref").lengths > 0
        strongest = next((name for name in STRONGEST_FIRST if name in rows.columns), None)
        if sourced.any():
            self._match(group, "source_ref", sourced)
        if strongest is not None and not sourced.all():
            self._match(group, strongest, ~sourced)

    def _match(self, group: _Group, name: str, wanted: Mask) -> None:
        """For the rows wanted, note the live entries that carry exactly their value of one column."""
        with self._shelf.index(self._tx, self._set_id) as index:
            found = index.find(name, searchable(group.rows)[name])
        places = dict(grouped(found.block_no.astype("uint64")))
        stored = list(self._tx.blocks.some(list(places)).values())
        assert len(stored) == len(places), "the index follows the store within this transaction"
        for row, block in zip(stored, self._shelf.get_all(self._tx, stored), strict=True):
            where = places[block_id(row)]
            held, asking = decode(block).take(found.row[where]), found.query[where]
            same = same_values(held, group.rows.take(asking), name) & wanted[asking]
            if name != "source_ref":
                # An entry imported under a reference is known by that alone.
                same = same & (held.text("source_ref").lengths == 0)
            held, asking = held.take(same), asking[same]
            known = group.known
            for column, values in (("entry_id", known.entry_id), ("version", known.version), ("seq", known.seq)):
                values[asking] = held.ints(column)
            known.label[asking] = constant(row.label, held.n)
            said = digest.contents(group.rows.take(asking), self._key)
            known.differs[asking] = (digest.contents(held, self._key) != said).any(axis=1)

    def _number(self, groups: Sequence[tuple[int, _Group]], sums: Sums) -> tuple[list[Block], int, int]:
        """(blocks, last seq, next entry number) of these changes by label. Seqs of a label follow each other."""
        ids = joined([group.known.entry_id for _, group in groups])
        if ids.any():
            supersede(self._tx, self._shelf, self._set_id, ids[ids > 0], sums)
        blocks: list[Block] = []
        arriving: list[tuple[int, Rows, Iterable[int]]] = []
        seq, next_entry = self._set.seq, self._set.next_entry
        for label, group in groups:
            rows, next_entry = self._changes(group, seq, next_entry)
            seq += rows.n
            for piece in cut(rows):
                block = encode_block(
                    set_name=self._set.name,
                    epoch=self._set.epoch,
                    label=label,
                    label_digest=self._labels.digest(label),
                    rows=piece,
                    salt=self._shelf.salt,
                )
                arriving.append((label, piece, block.parts))
                blocks.append(block)
        sums.add(arriving)
        return blocks, seq, next_entry

    def _changes(self, group: _Group, seq: int, next_entry: int) -> tuple[Rows, int]:
        """The group's rows with ids, versions and positions."""
        n, known = group.rows.n, group.known
        new = known.entry_id == 0
        added = int(new.sum())
        ids = known.entry_id.copy()
        ids[new] = counting(self._entry_id(next_entry), added)
        rows = group.rows.with_columns(
            {
                "kind": constant(ChangeKind.ASSERT, n),
                "seq": counting(seq + 1, n),
                "entry_id": ids,
                "version": known.version + constant(1, n),
                "changed_at": constant(self._node.clock(), n),
                "prev_seq": known.seq,
                "prev_label": known.label,
            }
        )
        return rows, next_entry + added

    def _entry_id(self, number: int) -> int:
        # DESIGN.md section 2: epoch(16) ‖ given at first assert(48); it reveals nothing and delta-codes to nothing.
        return self._set.epoch << 48 | number

    def _event(self, actor: str, form: str, tally: ImportTally, seq: int, blocks: int) -> Event:
        details: dict[str, object] = {
            "set": self._set.name,
            "epoch": self._set.epoch,
            "from_seq": self._set.seq + 1,
            "until_seq": seq,
            "format": form,
            "read": tally.rows,
            "accepted": tally.added + tally.updated,
            "blocks": blocks,
        }
        return self._node.event(EventKind.ENTRIES_IMPORTED, actor=actor, subject=self._set.name, details=details)


def _last_of_each(drafts: Sequence[EntryDraft]) -> list[int]:
    """The place of the last draft of each entry, by what it is known again: its source, else its strongest digest."""
    by_source: dict[str, int] = {}
    by_texts: dict[object, int] = {}  # entries that have no digest but texts
    by_digest: dict[str, dict[bytes, int]] = {name: {} for name in STRONGEST_FIRST}
    strongest: dict[tuple[str, ...], str] = {}
    for place, draft in enumerate(drafts):
        if draft.source_ref:
            by_source[draft.source_ref] = place
            continue
        names = tuple(draft.digests)
        if names not in strongest:
            strongest[names] = next((name for name in STRONGEST_FIRST if name in names), "")
        name = strongest[names]
        if name:
            by_digest[name][draft.digests[name]] = place
        else:
            by_texts[tuple(sorted(draft.digests.items()))] = place
    return sorted(chain(by_source.values(), by_texts.values(), *(places.values() for places in by_digest.values())))


def _by_shape(places: Sequence[int], drafts: Sequence[EntryDraft]) -> list[list[int]]:
    """The places of those drafts that have the same digests."""
    shapes: dict[frozenset[str], list[int]] = {}
    by_order: dict[tuple[str, ...], list[int]] = {}
    for place in places:
        names = tuple(drafts[place].digests)
        members = by_order.get(names)
        if members is None:
            members = by_order[names] = shapes.setdefault(frozenset(names), [])
        members.append(place)
    return list(shapes.values())


def _once_each(groups: Sequence[_Group], tally: ImportTally) -> Sequence[_Group]:
    """The groups with one row for each known entry, the last: rows of two shapes may have meant the same one."""
    ids = joined([group.known.entry_id for group in groups])
    if not repeats(ids[ids > 0]):
        return groups
    places = joined([group.places for group in groups])
    last: dict[int, int] = {}
    for entry, place in zip(ids.tolist(), places.tolist(), strict=True):
        last[entry] = max(place, last.get(entry, place))
    kept = []
    for group in groups:
        pairs = zip(group.known.entry_id.tolist(), group.places.tolist(), strict=True)
        kept.append(group.take(flagged([not entry or last[entry] == place for entry, place in pairs])))
    tally.repeated += len(ids) - sum(group.rows.n for group in kept)
    return kept


def _changed(group: _Group, tally: ImportTally) -> _Group:
    """The group without what the set holds already."""
    new = group.known.entry_id == 0
    change = new | (group.known.label != group.labels) | group.known.differs
    tally.unchanged += int((~change).sum())
    tally.updated += int((change & ~new).sum())
    tally.added += int(new.sum())
    return group if change.all() else group.take(change)


def _by_label(groups: Sequence[_Group]) -> list[tuple[int, _Group]]:
    """The changes of each label, by number."""
    parted: list[tuple[int, _Group]] = []
    for group in groups:
        ordered = group.take(group.labels.argsort(kind="stable"))
        for label, where in grouped(ordered.labels):
            parted.append((label, ordered.slice(int(where[0]), int(where[-1]) + 1)))
    return sorted(parted, key=itemgetter(0))


def _rows(drafts: Sequence[EntryDraft]) -> Rows:
    """Drafts of one shape as columns; a column that nobody fills is left out."""
    columns: dict[str, list[bytes] | list[str] | list[int]] = {}
    for name in drafts[0].digests:
        values = [draft.digests[name] for draft in drafts]
        columns[name] = [value.decode() for value in values] if name in TEXT_DIGESTS else values
    for name in (*TEXTS, *INTS):
        found = list(map(attrgetter(name), drafts))
        if any(found):
            columns[name] = found
    return Rows.of(len(drafts), columns)
