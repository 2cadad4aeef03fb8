"""One batch of drafts becomes changes of an own set: what is new, what differs, what is there already."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from gateway.audit import Event, EventKind
from gateway.columns import digest
from gateway.columns.block import Block, Stretch, cuts, decode_together, encode_blocks
from gateway.columns.drafts import DraftBatch, known_by, strongest_digest
from gateway.columns.rows import (
    Index,
    Ints,
    Mask,
    Rows,
    chosen,
    constant,
    counting,
    flagged,
    grouped,
    indexes,
    joined,
    joined_indexes,
    ordering,
    repeats,
    same_values,
    spread,
    stretches_of,
    unmarked,
)
from gateway.exchange import largevalues
from gateway.exchange.changes import Sums, counted, supersede
from gateway.exchange.labels import LabelBook, SetDefaults, digest_key, recovered_meta
from gateway.exchange.neveragain import KNOWN_GOOD, Barred, Barrier
from gateway.exchange.shelf import CHANGES, Shelf, block_id, searchable
from gateway.model import ChangeKind
from gateway.node import Node
from gateway.store import Transaction
from gateway.store.tables import HashSet


@dataclass(frozen=True, slots=True)
class Refusal:
    """A row that was left out because it must not come: which one, counted from 1; by which digest; the kind of
    listing."""

    row: int
    algorithm: str
    kind: str


@dataclass(slots=True)
class ImportTally:
    """What an import did so far: rows taken, and what became of them. `repeated` rows spoke of an entry twice.

    `refused` rows carry a digest that is listed as never again, or (`known_good` of them) as known good; `refusals`
    names the first of them.
    """

    MAX_KEPT = 10_000

    rows: int = 0
    added: int = 0
    updated: int = 0
    unchanged: int = 0
    repeated: int = 0
    refused: int = 0
    known_good: int = 0
    refusals: list[Refusal] = field(default_factory=list)

    def add(self, other: ImportTally) -> None:
        """Count another batch."""
        self.rows += other.rows
        self.added += other.added
        self.updated += other.updated
        self.unchanged += other.unchanged
        self.repeated += other.repeated
        self.refused += other.refused
        self.known_good += other.known_good
        room = self.MAX_KEPT - len(self.refusals)
        self.refusals += [replace(one, row=self.rows - other.rows + one.row) for one in other.refusals[:room]]

    def refuse(self, places: Index, barred: Barred) -> None:
        """Count rows that must not come again, given the place in the batch of each row that was asked for."""
        self.refused += len(barred.found)
        self.known_good += sum(kind == KNOWN_GOOD for _, kind in barred.found.values())
        self.refusals += [Refusal(int(places[at]) + 1, *found) for at, found in sorted(barred.found.items())]


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
        return cls(constant(0, n), constant(0, n), constant(0, n), constant(0, n), unmarked(n))

    def take(self, places: Index) -> _Known:
        """Those of some rows."""
        entry_id, version, seq, label = (
            column.take(places) for column in (self.entry_id, self.version, self.seq, self.label)
        )
        return _Known(entry_id, version, seq, label, self.differs.take(places))


@dataclass(frozen=True, slots=True)
class _Group:
    """Rows of one shape, each with its place in the batch and the number of its label."""

    rows: Rows
    places: Index
    labels: Ints
    known: _Known

    def take(self, where: Mask | Index) -> _Group:
        """Some of the rows."""
        places = chosen(where)
        rows, known = self.rows.take(places), self.known.take(places)
        return _Group(rows, self.places.take(places), self.labels.take(places), known)


class Batch:
    """One batch within one transaction."""

    def __init__(self, node: Node, shelf: Shelf, tx: Transaction, hash_set: HashSet, bars: Barrier | None) -> None:
        assert hash_set.id is not None
        self._bars = bars
        self._node, self._shelf, self._tx, self._set = node, shelf, tx, hash_set
        self._set_id = hash_set.id
        self._defaults = SetDefaults.from_json(hash_set.defaults)
        self._labels = LabelBook(node, tx, self._set_id)
        self._key = digest_key(node, hash_set)
        self._has_recovered = tx.people.meta(recovered_meta(self._set_id)) is not None

    def take_in(self, batch: DraftBatch, actor: str, form: str) -> ImportTally:
        """Add what is new, update what differs, leave the rest; returns what became of the rows."""
        # 1. Of rows that speak of the same entry the last one counts.
        last = batch.last_of_each()
        tally = ImportTally(rows=batch.n, repeated=batch.n - last.n)
        # 2. Each row gets the number of its label.
        groups = self._labelled(last)
        groups = groups if self._bars is None else _let_in(groups, self._bars, tally)
        # 3. Tell new, changed and unchanged apart.
        for group in groups:
            for name, where in known_by(group.rows):
                self._find_known(group, name, where)
            if self._has_recovered:
                # What partners gave back has no reference of ours any more: its strongest digest knows it again.
                new = (group.known.entry_id == 0).nonzero()[0]
                self._find_known(group, strongest_digest(group.rows), new)
        met = _once_each(groups, tally)
        changed = [_changed(group, tally) for group in met]
        named = [rows for group in met for rows in _naming_large(group)]
        # 4. Take what is superseded out of the sums, number the changes, add them. A block has one label and one shape.
        sums = Sums(self._tx, self._set_id, self._key)
        made, seq, next_entry = self._number([group for group in changed if group.rows.n], sums)
        if not made:
            largevalues.note(self._node, self._tx, self._set, (), named)
            return tally
        # 5. Blocks, sums, set position and leaves, in the one commit of the caller's transaction.
        blocks, rows = [block for block, _ in made], [rows for _, rows in made]
        event = self._event(actor, form, tally, seq, len(blocks))
        leaf = self._tx.log.append([event], blocks=[block.digest for block in blocks])
        now = self._node.clock()
        self._shelf.put(self._tx, self._set_id, CHANGES, blocks, first_leaf=leaf, rows=rows, arrived=now)
        self._tx.sets.advance(self._set_id, expected_seq=self._set.seq, seq=seq, next_entry=next_entry)
        sums.write()
        updated = joined([group.known.entry_id for group in changed])
        largevalues.note(self._node, self._tx, self._set, updated[updated > 0].tolist(), [*named, *rows])
        return tally

    def _labelled(self, batch: DraftBatch) -> list[_Group]:
        # Thousands of drafts share a few words, and making a label checks every one of them.
        used = batch.words_used()
        found = self._labels.numbers(self._defaults.label(self._node, batch.words[number]) for number in used)
        numbers = spread(found, used, len(batch.words))
        return [
            _Group(group.rows, group.places, numbers.take(group.words), _Known.nothing(group.rows.n))
            for group in batch.groups
        ]

    def _find_known(self, group: _Group, name: str, where: Index) -> None:
        """Of these rows of a group, note the live entry that carries exactly their value of one column."""
        if not name or not len(where):
            return  # texts alone: no index has them, so such an entry is told apart within its batch only
        wanted = group.rows.take(where)
        with self._shelf.index(self._tx, self._set_id) as index:
            found = index.find(name, searchable(wanted)[name])
        if not len(found.query):
            return
        places = dict(grouped(found.block_no.astype("uint64")))
        stored = list(self._tx.blocks.some(list(places)).values())
        assert len(stored) == len(places), "the index follows the store within this transaction"
        for together in decode_together(self._shelf.get_all(self._tx, stored)):
            hits = [places[block_id(stored[place])] for place in together.places]
            starts = together.offsets.tolist()
            at = joined_indexes([found.row[some] + start for some, start in zip(hits, starts[:-1], strict=True)])
            labels = [constant(stored[at].label, len(some)) for at, some in zip(together.places, hits, strict=True)]
            asking = found.query[joined_indexes(hits)]
            self._note_known(group, name, together.rows.take(at), where[asking], joined(labels))

    def _note_known(self, group: _Group, name: str, held: Rows, asking: Index, labels: Ints) -> None:
        """Row i of `held`, which is held under the label labels[i], may be the entry that row asking[i] speaks of."""
        said = group.rows.take(asking)
        same = same_values(held, said, name)
        if name != "source_ref":
            # An entry imported under a reference is known by that alone.
            same = same & (held.text("source_ref").lengths == 0)
        held, said, asking = held.take(same), said.take(same), asking[same]
        known = group.known
        for column, values in (("entry_id", known.entry_id), ("version", known.version), ("seq", known.seq)):
            values[asking] = held.ints(column)
        known.label[asking] = labels[same]
        differs = digest.contents(held, self._key) != digest.contents(said, self._key)
        known.differs[asking] = differs.any(axis=1)

    def _number(self, groups: Sequence[_Group], sums: Sums) -> tuple[list[tuple[Block, Rows]], int, int]:
        """(blocks, last seq, next entry number) of these changes: one shape after the other, in each by label."""
        ids = joined([group.known.entry_id for group in groups])
        if ids.any():
            supersede(self._tx, self._shelf, self._set_id, ids[ids > 0], sums)
        made: list[tuple[Block, Rows]] = []
        seq, next_entry = self._set.seq, self._set.next_entry
        for group in groups:
            by_label = group.take(ordering(group.labels))
            rows, next_entry = self._changes(by_label, seq, next_entry)
            seq += rows.n
            stretches = [
                Stretch(label, self._labels.digest(label), first, last)
                for label, start, stop in stretches_of(by_label.labels)
                for first, last in cuts(rows, start, stop)
            ]
            blocks = encode_blocks(
                set_name=self._set.name,
                epoch=self._set.epoch,
                rows=rows,
                stretches=stretches,
                salt=self._shelf.salt,
            )
            made += [(block, rows.slice(one.start, one.stop)) for block, one in zip(blocks, stretches, strict=True)]
            offsets = indexes([0, *(stretch.stop for stretch in stretches)])
            sums.count(counted([stretch.label for stretch in stretches], rows, offsets, self._key))
        return made, seq, next_entry

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
            **({"refused": tally.refused} if tally.refused else {}),
        }
        return self._node.event(EventKind.ENTRIES_IMPORTED, actor=actor, subject=self._set.name, details=details)


def _let_in(groups: Sequence[_Group], bars: Barrier, tally: ImportTally) -> list[_Group]:
    """The groups without what must never come again."""
    kept = []
    for group in groups:
        barred = bars.find(group.rows)
        if barred is None:
            kept.append(group)
            continue
        tally.refuse(group.places, barred)
        if not barred.mask.all():
            kept.append(group.take(~barred.mask))
    return kept


def _once_each(groups: Sequence[_Group], tally: ImportTally) -> Sequence[_Group]:
    """The groups with one row for each known entry, the last: rows of two shapes may have meant the same one."""
    ids = joined([group.known.entry_id for group in groups])
    if not repeats(ids[ids > 0]):
        return groups
    places = joined_indexes([group.places for group in groups])
    last: dict[int, int] = {}
    for entry, place in zip(ids.tolist(), places.tolist(), strict=True):
        last[entry] = max(place, last.get(entry, place))
    kept = []
    for group in groups:
        pairs = zip(group.known.entry_id.tolist(), group.places.tolist(), strict=True)
        kept.append(group.take(flagged([not entry or last[entry] == place for entry, place in pairs])))
    tally.repeated += len(ids) - sum(group.rows.n for group in kept)
    return kept


def _naming_large(group: _Group) -> Iterator[Rows]:
    """Of entries that are known already the large values that rows name for them, whether that changes them or not."""
    for name in largevalues.ALGORITHMS:
        if name in group.rows.columns:
            known = chosen(group.known.entry_id > 0)
            ids = group.known.entry_id.take(known)
            yield group.rows.take(known).select([name]).with_columns({"entry_id": ids})


def _changed(group: _Group, tally: ImportTally) -> _Group:
    """The group without what the set holds already."""
    new = group.known.entry_id == 0
    change = new | (group.known.label != group.labels) | group.known.differs
    tally.unchanged += int((~change).sum())
    tally.updated += int((change & ~new).sum())
    tally.added += int(new.sum())
    return group if change.all() else group.take(change)
