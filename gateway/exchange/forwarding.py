"""Passing partners' sets on: an onward copy beside a mirror, kept as an own set is, and served like one.

What a mirror holds came in another order than its hub's `seq` (labels are filled up afterwards), and says nothing of
what each entry was before. So it cannot be served as it lies there. Its **onward copy** is a set of ours in all but its
content: own epoch, seq, label numbers and digest key, with the originator's name, entry ids, versions and label
digests. `Server`, `Drafter`, compaction, comparison and epochs work on it unchanged.

    1 a page comes into the mirror   the copy follows in the same transaction (`follow`): asserts are asserts, a
                                     withdrawal a withdrawal; what goes otherwise, or may not go on any more, leaves
    2 policy or partners change      labels that may go on now are filled up, the others leave, their values at once
                                     (`keep_house`, in bounded steps)

Who is served what is decided at each request, as for an own set (`audience`), and by the rules here besides:

- nothing under `no_onward`, or under a duty that we do not know (`policy.duties`); the duties that came go along;
- nothing under originator control: the originator is asked, no rule stands in for it;
- only to a jurisdiction that the label's `onward` names, or home to the originator's own;
- never more field groups than came; never to the set's owner, nor to the partner that it is followed from.

A mirror has one source. It changes only to the set's owner, so who brings it to whom is always a tree with the owner at
its root, and what was withdrawn there goes everywhere. Contract: contracts/page-2.md; decision 0015.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace

from gateway.audit import EventKind
from gateway.columns.block import Block, cut, decode, encode_block
from gateway.columns.digest import EMPTY
from gateway.columns.rows import (
    EXISTENCE,
    LOCAL_GROUP,
    Ints,
    Rows,
    Values,
    constant,
    counting,
    integers,
    joined,
    ordering,
    registered,
)
from gateway.columns.sketch import among
from gateway.exchange.changes import Sums, supersede
from gateway.exchange.compacting import HISTORY_COLUMNS
from gateway.exchange.labels import digest_key, seal_digest_key, stored_label
from gateway.exchange.shelf import CHANGES, HISTORY, Shelf, block_id
from gateway.exchange.sorting import PageWork
from gateway.interchange import MAX_SOURCES, PageHead
from gateway.model import MAX_LABELS, ChangeKind, FieldGroup, Label, Restriction, Surface
from gateway.node import Node
from gateway.policy import LabelInSet, LabelRights, PartnerRef
from gateway.policy.duties import carried, may_go_onward, parse_duties
from gateway.store import Transaction
from gateway.store.tables import BlockRow, HashSet, LabelRow, OnwardSource

STEP_BLOCKS = 8  # of a mirror that one transaction looks through: half a million changes at the most
HOUSE_SECONDS = 5  # a minute, while the schedule keeps house
HOUSE_STEPS = 64  # … and no more than these: a clock may stand
NOTHING = LabelRights(frozenset(), (), (), ())
_STOOD = ("entry_id", "seq", "version")  # what is asked of an entry that changes


def may_pass(label: Label, came: LabelRow, partner: PartnerRef) -> bool:
    """Whether entries of another agency under a label may go on to a partner at all, before policy is asked."""
    leave = partner.jurisdiction in (*label.onward, label.jurisdiction)
    controlled = Restriction.ORIGINATOR_CONTROL in label.restrictions
    return leave and not controlled and bool(came.groups) and may_go_onward(came.obligations.split())


def narrowed(label: Label, came: LabelRow, right: LabelRights, partner: PartnerRef) -> LabelRights:
    """What policy lets a partner see, as far as it came to us, with the duties that came and those that policy adds."""
    groups = right.groups & {FieldGroup(name) for name in came.groups.split()}
    if not may_pass(label, came, partner) or FieldGroup.EXISTENCE not in groups:
        return replace(NOTHING, forbids=right.forbids)
    duties = parse_duties(carried(came.obligations.split(), right.obligations))
    return replace(right, groups=frozenset(groups), obligations=duties)


class Forwarding:
    """Keeps the onward copies of mirrors. Threads may share it."""

    def __init__(self, node: Node, shelf: Shelf) -> None:
        self._node = node
        self._shelf = shelf
        self._reviewed: dict[int, object] = {}  # mirror -> under which policy, for which partners it was looked through
        self._reached: dict[int, int] = {}  # mirror -> its last block that was looked through since

    def follow(self, tx: Transaction, mirror: HashSet, page: PageHead, work: PageWork) -> OnwardChanges | None:
        """What a page that comes into a mirror changes in its onward copy; None where nothing may go on.

        Asked before any block of the page is put; what it gives is written (`OnwardChanges.write`) after them.
        """
        assert mirror.id is not None
        gone = {row.number for row in tx.sets.labels(mirror.id) if page.reset or row.number in page.left}
        labels = {row.number: row for row in tx.sets.labels(mirror.id) if row.number not in gone}
        labels |= {row.number: row for row in work.labels}
        passing = self._passing(tx, mirror, labels.values())
        copy = tx.sets.onward_copy(mirror.id)
        if copy is None:
            if not passing:
                return None
            copy = self._begin(tx, mirror)
        changes = OnwardChanges(self._node, self._shelf, tx, copy)
        if page.reset:
            changes.leave_labels(changes.numbers)
        else:
            before = [row for row in tx.sets.labels(mirror.id) if row.number in gone]
            changes.leave_labels(changes.numbers_of(before))
        arrived = [(labels[one.block.header.label], one.rows) for one in work.kept]
        changes.assert_rows([(row, rows) for row, rows in arrived if row.number in passing])
        withdrawn = [one.rows.take(one.rows.ints("kind") == ChangeKind.WITHDRAW) for one in work.removals]
        changes.touch(joined(work.arriving), withdrawn=joined([rows.ints("entry_id") for rows in withdrawn]))
        return changes

    def keep_house(self) -> int:
        """Bring onward copies to what policy and partners are now, for some seconds; returns how many entries moved."""
        until, moved = self._node.clock() + HOUSE_SECONDS, 0
        with self._node.store.reading() as tx:
            mirrors = [row for row in tx.sets.all() if row.hub]
        for mirror in mirrors:
            for _ in range(HOUSE_STEPS):
                done = self._step(mirror.name)
                moved += done or 0
                if done is None or self._node.clock() > until:
                    break
        return moved

    def _step(self, name: str) -> int | None:
        """One bounded step with one mirror: how many entries moved; None when there is nothing left to do."""
        with self._node.store.reading() as tx:
            mirror = tx.sets.get(name)
            assert mirror.id is not None
            now = self._state(tx)
            if self._reviewed.get(mirror.id) != now:
                self._reviewed[mirror.id], self._reached[mirror.id] = now, 0
            labels = tx.sets.labels(mirror.id)
            passing = self._passing(tx, mirror, labels)
            blocks = [
                row
                for row in tx.blocks.of_set(mirror.id, after_id=self._reached[mirror.id])
                if row.kind == CHANGES and row.label in passing
            ][:STEP_BLOCKS]
            copy = tx.sets.onward_copy(mirror.id)
            over = copy is not None and self._has_more_than(tx, copy, passing.values())
        if not blocks and not over:
            return None
        with self._node.store.transaction() as tx:
            moved = self._fill(tx, name, [block_id(row) for row in blocks])
        if blocks:
            self._reached[mirror.id] = block_id(blocks[-1])
        return moved

    def _fill(self, tx: Transaction, name: str, numbers: Sequence[int]) -> int:
        """The copy without labels that may not go on, and with what some blocks of the mirror hold under the others."""
        mirror = tx.sets.get(name)
        assert mirror.id is not None
        labels = {row.number: row for row in tx.sets.labels(mirror.id)}
        passing = self._passing(tx, mirror, labels.values())
        copy = tx.sets.onward_copy(mirror.id) or (self._begin(tx, mirror) if passing else None)
        if copy is None:
            return 0
        changes = OnwardChanges(self._node, self._shelf, tx, copy)
        changes.leave_labels(changes.numbers - set(changes.numbers_of(passing.values())))
        arrived, sources = [], []
        for row in tx.blocks.some(numbers).values():
            if row.label in passing:
                with self._shelf.index(tx, mirror.id) as index:
                    live = index.live_rows(block_id(row))
                arrived.append((labels[row.label], decode(self._shelf.get(tx, row)).take(live)))
                sources += tx.evidence.sources_of(mirror.id, block_id(row))
        changes.assert_rows(arrived, only_new=True)
        return changes.write(sources)

    def _has_more_than(self, tx: Transaction, copy: HashSet, passing: Iterable[LabelRow]) -> bool:
        """Whether a copy holds entries under labels that may not go on."""
        changes = OnwardChanges(self._node, self._shelf, tx, copy)
        return bool(changes.filled - set(changes.numbers_of(passing)))

    def _state(self, tx: Transaction) -> object:
        active = sorted(row.agency for row in tx.people.partners() if row.state == "active")
        return self._node.policy.digest, self._node.policy.on, tuple(active)

    def _passing(self, tx: Transaction, mirror: HashSet, labels: Iterable[LabelRow]) -> dict[int, LabelRow]:
        """Those of a mirror's labels that may go on to anybody at all."""
        kept: dict[int, LabelRow] = {}
        others = (mirror.hub, mirror.name.split("/", maxsplit=1)[0])
        partners = [
            PartnerRef(row.agency, row.jurisdiction)
            for row in tx.people.partners()
            if row.state == "active" and row.agency not in others
        ]
        parsed = [(row, stored_label(row)) for row in labels]
        for partner in partners:
            asked = {row.number: (row, label) for row, label in parsed if may_pass(label, row, partner)}
            held = {number: LabelInSet(mirror.name, label) for number, (_, label) in asked.items()}
            rights = self._node.policy.table(partner, Surface.SEALED, held) if held else {}
            for number, right in rights.items():
                row, label = asked[number]
                if narrowed(label, row, right, partner).groups:
                    kept[number] = row
        return kept

    def _begin(self, tx: Transaction, mirror: HashSet) -> HashSet:
        """An empty copy of a mirror."""
        assert mirror.id is not None
        key = seal_digest_key(self._node, mirror.name, self._node.random.bytes(32))
        row = HashSet(
            name=mirror.name,
            purpose=mirror.purpose,
            sealed_digest_key=key,
            created=self._node.clock(),
            relays=mirror.id,
        )
        row.id = tx.sets.create(row)
        return row


class OnwardChanges:
    """The changes of one onward copy in one deed: said one after the other, then written at once.

    Labels that are left are said first, then what is asserted, then what else is touched. The index is asked meanwhile,
    so no block may be put before `write`.
    """

    def __init__(self, node: Node, shelf: Shelf, tx: Transaction, copy: HashSet) -> None:
        assert copy.id is not None
        self._node, self._shelf, self._tx, self._copy, self._id = node, shelf, tx, copy, copy.id
        self._labels = {row.number: row for row in tx.sets.labels(copy.id)}
        self._numbers = {_described(row): number for number, row in self._labels.items()}
        self._sums = Sums(tx, copy.id, digest_key(node, copy))
        self._asserts: list[tuple[int, Rows]] = []
        self._held: list[tuple[int, Rows]] = []  # by label what was held of all that is touched
        self._history: list[tuple[BlockRow, Rows]] = []
        self._leaving: set[int] = set()  # blocks
        self._withdrawn = integers([])
        self.gone: list[tuple[int, Rows]] = []  # by label what was withdrawn or left, once it is written

    @property
    def copy(self) -> HashSet:
        """The copy as it was before."""
        return self._copy

    @property
    def numbers(self) -> set[int]:
        """The labels of the copy."""
        return set(self._labels)

    @property
    def filled(self) -> set[int]:
        """Those under which entries are held."""
        return {label for (label, part), one in self._sums.by_label().items() if part == EXISTENCE and one.count}

    def numbers_of(self, rows: Iterable[LabelRow]) -> list[int]:
        """The copy's numbers of a mirror's labels, as far as it has them."""
        return [self._numbers[key] for key in map(_described, rows) if key in self._numbers]

    def leave_labels(self, numbers: Collection[int]) -> None:
        """What is held under these labels leaves; its values go in this deed, its place in history stays."""
        emptied = self.filled.intersection(numbers)
        for row in self._tx.blocks.of_set(self._id) if emptied else ():
            if row.label not in emptied or row.kind != CHANGES:
                continue
            rows = decode(self._shelf.get(self._tx, row, [EXISTENCE, LOCAL_GROUP]))
            with self._shelf.index(self._tx, self._id) as index:
                live = index.live_rows(block_id(row))
            self._held.append((row.label, rows.take(live).select(_STOOD)))
            self._leaving.add(block_id(row))
            # Where removals stand among them there are no digests: compaction will sort them out.
            if (rows.ints("kind") == constant(ChangeKind.ASSERT, rows.n)).all():
                self._history.append((row, rows.select(HISTORY_COLUMNS)))
        for (label, part), one in self._sums.by_label().items():
            if label in emptied:
                self._sums.move(label, part, EMPTY - one)

    def assert_rows(self, arrived: Iterable[tuple[LabelRow, Rows]], *, only_new: bool = False) -> None:
        """Entries as the mirror holds them, under the mirror's labels.

        Args:
            only_new: those that the copy holds already stay as they are.
        """
        for label, rows in arrived:
            number, taken = self._number(label), rows
            if only_new:
                with self._shelf.index(self._tx, self._id) as index:
                    taken = rows.take(~index.locate(rows.ints("entry_id")).found)
            if number is not None and taken.n:
                self._asserts.append((number, taken.take(ordering(taken.ints("entry_id")))))

    def touch(self, entries: Ints, *, withdrawn: Ints) -> None:
        """What of these entries is not asserted now goes: those `withdrawn` are withdrawn, the others leave."""
        self._withdrawn = withdrawn
        for one in supersede(self._tx, self._shelf, self._id, entries, self._sums, leaving=self._leaving):
            self._held.append((one.block.label, one.rows.select(_STOOD)))

    def write(self, sources: Collection[str]) -> int:
        """Put everything away, on record; returns how many entries moved.

        Args:
            sources: the originator's messages that stand behind it.
        """
        coming = joined([rows.ints("entry_id") for _, rows in self._asserts])
        seq, made = self._copy.seq, []
        self.gone = list(self._removed(coming))
        for label, rows in [*self._asserted(coming), *self.gone]:
            made += self._blocks(label, rows.with_columns({"seq": counting(seq + 1, rows.n)}))
            seq += rows.n
        if made:
            history = [block for row, rows in self._history for _, block, _ in self._blocks(row.label, rows)]
            self._put(made, history, seq, sources)
        return seq - self._copy.seq

    def _asserted(self, coming: Ints) -> Iterator[tuple[int, Rows]]:
        """The asserts, each with where its entry stood."""
        stood: dict[int, tuple[int, int]] = {}
        for label, rows in self._held:
            again = rows.take(among(rows.ints("entry_id"), coming))
            for entry, seq in zip(again.ints("entry_id").tolist(), again.ints("seq").tolist(), strict=True):
                stood[entry] = seq, label
        for number, rows in self._asserts:
            before = [stood.get(entry, (0, 0)) for entry in rows.ints("entry_id").tolist()]
            prev = {"prev_seq": [seq for seq, _ in before], "prev_label": [label for _, label in before]}
            travels = rows.select([name for name in rows.columns if registered(name).group != LOCAL_GROUP])
            yield number, travels.with_columns(Rows.of(rows.n, prev).columns)

    def _removed(self, coming: Ints) -> Iterator[tuple[int, Rows]]:
        """What was held and does not come again, withdrawn or left, under the label that it had."""
        for label, rows in self._held:
            gone = rows.take(~among(rows.ints("entry_id"), coming))
            if not gone.n:
                continue
            wrong = among(gone.ints("entry_id"), self._withdrawn).tolist()
            kinds = [ChangeKind.WITHDRAW if one else ChangeKind.LEAVE for one in wrong]
            columns: dict[str, Values] = {
                "kind": kinds,
                "entry_id": gone.ints("entry_id"),
                "version": gone.ints("version") + integers([int(one) for one in wrong]),
                "changed_at": constant(self._node.clock(), gone.n),
                "prev_seq": gone.ints("seq"),
                "prev_label": constant(label, gone.n),
            }
            yield label, Rows.of(gone.n, columns)

    def _number(self, row: LabelRow) -> int | None:
        """The copy's number of a mirror's label; None where it has as many as a set may have: that label stays here."""
        key = _described(row)
        number = self._numbers.get(key, len(self._labels) + 1)
        if number > MAX_LABELS:
            return None
        if key not in self._numbers:
            added = LabelRow(
                set_id=self._id,
                number=number,
                digest=row.digest,
                attributes=row.attributes,
                groups=row.groups,
                obligations=row.obligations,
            )
            self._numbers[key], self._labels[number] = number, added
            self._tx.sets.put_labels([added])
        return number

    def _blocks(self, label: int, rows: Rows) -> list[tuple[int, Block, Rows]]:
        digest = self._labels[label].digest
        return [
            (
                label,
                encode_block(
                    set_name=self._copy.name,
                    epoch=self._copy.epoch,
                    label=label,
                    label_digest=digest,
                    rows=piece,
                    salt=self._shelf.salt,
                ),
                piece,
            )
            for piece in cut(rows)
        ]

    def _put(
        self, made: Sequence[tuple[int, Block, Rows]], history: Sequence[Block], seq: int, sources: Collection[str]
    ) -> None:
        """Blocks, sums, leaves, the copy's place and its sources, within the deed's own commit."""
        tx, copy = self._tx, self._copy
        details: dict[str, object] = {
            "set": copy.name,
            "epoch": copy.epoch,
            "from_seq": copy.seq + 1,
            "until_seq": seq,
            "changes": seq - copy.seq,
            "blocks": len(made) + len(history),
        }
        event = self._node.event(EventKind.ONWARD_COPIED, actor=self._node.agency, subject=copy.name, details=details)
        blocks = [block for _, block, _ in made]
        leaf = tx.log.append([event], blocks=[block.digest for block in (*blocks, *history)])
        self._shelf.put(tx, self._id, CHANGES, blocks, first_leaf=leaf, rows=[rows for _, _, rows in made])
        self._shelf.put(tx, self._id, HISTORY, history, first_leaf=leaf + len(blocks))
        tx.blocks.drop(self._id, [block_id(row) for row, _ in self._history])
        tx.sets.advance(self._id, expected_seq=copy.seq, seq=seq, next_entry=copy.next_entry)
        self._sums.add(
            (label, rows, block.parts)
            for label, block, rows in made
            if (rows.ints("kind") == constant(ChangeKind.ASSERT, rows.n)).all()
        )
        self._sums.write()
        if sources:
            named = " ".join(sorted(sources)[:MAX_SOURCES])
            tx.sets.add_source(OnwardSource(set_id=self._id, first_seq=copy.seq + 1, last_seq=seq, sources=named))


def _described(row: LabelRow) -> tuple[bytes, str, str, str]:
    """Everything that a hub says of a label; its number is its own."""
    return row.digest, row.attributes, row.groups, row.obligations
