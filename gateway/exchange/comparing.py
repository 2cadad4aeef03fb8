"""Do a hub and its follower hold the same of a set, and if not, which entries differ? Both sides of comparison 1.

    the follower                                        the hub
    1 begin: the head that it holds, its own sums
    2 sums question                       →             sums by label, as the view shows them now
    3 sketch question over the labels     →             the next symbols of the sketch of these labels
      whose sums differ, until the
      difference of both sketches peels
    4 rows question: short ids that only  →             a page: those rows, what the view shows of the others, and
      the hub has, entries that only we                 removals of those that went
      have
    5 apply that page as any other

The hub keeps nothing between two questions but sketches that it may forget. Both sides speak of the state that the
feed head names; a hub that has moved on meanwhile answers with a conflict, and the follower syncs first.

Sketches are made from the blocks. So a comparison also finds sums that do not say what the blocks hold, on either side:
they are counted anew where they are found (`correct`).

Contract: contracts/comparison-1.md. The sketch: `columns.sketch`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock

from gateway.audit import EventKind
from gateway.columns.block import NO_LABEL, Block, cut, encode_block
from gateway.columns.block import REMOVALS as REMOVALS_LABEL
from gateway.columns.digest import EMPTY, Sum
from gateway.columns.rows import (
    GROUP_CODES,
    Ints,
    Rows,
    concat,
    constant,
    counting,
    integers,
    joined,
    registered,
)
from gateway.columns.sketch import (
    FIRST_SYMBOLS,
    MAX_SYMBOLS,
    SALT_BYTES,
    USUAL_SYMBOLS,
    Sketch,
    among,
    comparison_key,
    dump_sketch,
    parse_sketch,
    peel,
    short_ids,
    symbols_wanted,
)
from gateway.comparisons import MAX_ASKED, ROWS, SKETCH, SUMS, HeldLabel, Question, SumsAnswer
from gateway.errors import ConflictError, NotFoundError, TooLargeError
from gateway.exchange.changes import Sums, held_rows
from gateway.exchange.contents import Content, Contents, sums_of
from gateway.exchange.drafting import Draft, ServedSet, sources
from gateway.exchange.labels import digest_key
from gateway.exchange.shelf import Shelf
from gateway.interchange import Cursor, FeedHead, LabelView, PageHead, View
from gateway.model import ChangeKind, FieldGroup
from gateway.node import Node
from gateway.store import Transaction

MAX_KEPT_SYMBOLS = 1 << 22  # at the hub, 64 MB: one comparison asks several times, and most need 4,096 of them
_NAMES = {code: group for group, code in GROUP_CODES.items()}


@dataclass(slots=True)
class Comparison:
    """A comparison on its way, at the follower.

    Attributes:
        cursor: where the hub stood by its head; `stands`: where we do.
        salt: of the short ids, hex; `key`: of the state digest.
        labels: how many the hub shows; `differing`: those whose sums differ, with the groups that both sides see.
        only_here, only_there: short ids; `entries`: the entry ids behind the former.
        holds: our labels, where they are not those of the view; `strange`: those that the hub does not show.
        corrected: sums of ours that did not say what our blocks hold. `octets`: what the answers took.
    """

    partner: str
    set_name: str
    set_id: int
    cursor: Cursor
    stands: Cursor
    key: bytes
    salt: str
    sums: dict[tuple[int, int], Sum]
    labels: int = 0
    differing: dict[int, tuple[int, ...]] = field(default_factory=dict)
    theirs: Sketch | None = None
    mine: Sketch | None = None
    wanted_symbols: int = FIRST_SYMBOLS
    peeled: bool = False
    only_here: Ints = field(default_factory=lambda: integers([]))
    only_there: Ints = field(default_factory=lambda: integers([]))
    entries: Ints = field(default_factory=lambda: integers([]))
    holds: tuple[HeldLabel, ...] = ()
    strange: tuple[int, ...] = ()
    corrected: int = 0
    octets: int = 0

    @property
    def differs(self) -> bool:
        """Whether anything is to be repaired."""
        return bool(len(self.only_here) or len(self.only_there) or self.holds)

    @property
    def enters_epoch(self) -> bool:
        """Whether the hub lives on from a backup, and we stand where it stood before."""
        return self.stands.epoch < self.cursor.epoch


class Comparing:
    """The follower's side: what to ask, and what the answers mean."""

    def __init__(self, node: Node, shelf: Shelf) -> None:
        self._node = node
        self._contents = Contents(node, shelf)

    def begin(self, partner: str, set_name: str) -> Comparison:
        """A comparison of our mirror with its hub, by the feed head that we hold.

        Raises:
            NotFoundError: there is no mirror of such a set of this partner, or no feed head of it yet.
        """
        with self._node.store.reading() as tx:
            mirror = tx.sets.find(set_name)
            if mirror is None or mirror.hub != partner or not mirror.head:
                raise NotFoundError("there is no mirror of this set to compare", remedy="pull it first")
            assert mirror.id is not None
            key = digest_key(self._node, mirror)
            return Comparison(
                partner=partner,
                set_name=set_name,
                set_id=mirror.id,
                cursor=FeedHead.parse(mirror.head.encode()).cursor,
                stands=Cursor(mirror.epoch, mirror.view, mirror.seq),
                key=key,
                salt=self._node.random.bytes(SALT_BYTES).hex(),
                sums=Sums(tx, mirror.id, key).by_label(),
            )

    def sums_question(self, running: Comparison) -> bytes:
        """How much do you hold of each label?"""
        return Question(SUMS, running.set_name, running.cursor).dump()

    def read_sums(self, running: Comparison, raw: bytes) -> None:
        """Note which labels differ. Where sums agree, so do the entries."""
        answer = SumsAnswer.parse(raw)
        running.octets += len(raw)
        running.labels = len(answer.digests)
        with self._node.store.reading() as tx:
            mine = {row.number: row for row in tx.sets.labels(running.set_id)}
            held = _held_labels(tx, running.set_id)
        same = {number for number, row in mine.items() if answer.digests.get(number) == row.digest.hex()}
        filled = {label for (label, _), one in running.sums.items() if one != EMPTY}
        running.strange = tuple(sorted(filled - same))
        if running.stands != running.cursor or running.strange:
            # A label that the hub does not show, or shows as another, goes whole, and comes again if it is to.
            running.holds = held
        theirs, ours = _by_label(answer.sums), _by_label(running.sums)
        for label in sorted(same):
            if theirs.get(label, {}) != ours.get(label, {}):
                names = mine[label].groups.split()
                running.differing[label] = tuple(sorted(GROUP_CODES[FieldGroup(name)] for name in names))

    def sketch_question(self, running: Comparison) -> bytes | None:
        """The next symbols, please; None when we know what differs.

        Raises:
            TooLargeError: the two ends differ in more entries than a sketch tells apart.
        """
        if running.peeled or not running.differing:
            return None
        first = 0 if running.theirs is None else running.theirs.last
        last = min(running.wanted_symbols, MAX_SYMBOLS)
        if last <= first:
            raise TooLargeError("the two ends differ in more entries than a comparison finds")
        if running.mine is None or running.mine.last < last:
            self._make(running, max(last, USUAL_SYMBOLS))
        labels = tuple(sorted(running.differing))
        question = Question(SKETCH, running.set_name, running.cursor, running.salt, labels, first, last)
        return question.dump()

    def read_sketch(self, running: Comparison, raw: bytes) -> None:
        """Take the symbols in. When both sketches together peel, what differs is known."""
        running.octets += len(raw)
        more = parse_sketch(raw)
        running.theirs = more if running.theirs is None else running.theirs.followed_by(more)
        assert running.mine is not None, "made before the question"
        difference = running.mine.slice(0, running.theirs.last) - running.theirs
        found = peel(difference)
        if found is None:
            running.wanted_symbols = symbols_wanted(difference) or 0
            return
        running.peeled, running.only_here, running.only_there = True, found.here, found.there
        if len(found.here):
            running.entries = self._entries_of(running, found.here)

    def rows_question(self, running: Comparison, *, last_word: bool) -> bytes:
        """Bring us what only you have, and say what became of what only we have; no more than one page brings."""
        odd = running.entries[:MAX_ASKED]
        return Question(
            ROWS,
            running.set_name,
            running.cursor,
            running.salt,
            tuple(sorted(running.differing)),
            stands=running.stands,
            holds=running.holds,
            wanted=running.only_there[: MAX_ASKED - len(odd)],
            odd=odd,
            last_word=last_word,
        ).dump()

    def strange_entries(self, running: Comparison) -> Ints:
        """The entries that we hold under labels that the hub does not show, or shows as others."""
        nothing: dict[int, tuple[int, ...]] = dict.fromkeys(running.strange, ())
        found = self._contents.scan(running.set_id, running.key, nothing)
        return joined([one.rows.ints("entry_id") for one in found])

    def _entries_of(self, running: Comparison, ids: Ints) -> Ints:
        """The entry ids of these short ids, ascending."""
        found = [one.rows.ints("entry_id")[among(made, ids)] for one, made in self._scan(running)]
        entries = joined(found)
        entries.sort()
        return entries

    def _make(self, running: Comparison, last: int) -> None:
        """Our own sketch, from the blocks; sums of ours that do not fit these are corrected."""
        made = Sketch.empty(min(last, MAX_SYMBOLS))
        counted: dict[tuple[int, int], Sum] = {}
        for one, ids in self._scan(running):
            made.add(ids)
            _count(counted, one)
        running.mine = made
        running.corrected += correct(
            self._node, running.set_id, running.key, running.differing, counted, running.stands
        )

    def _scan(self, running: Comparison) -> Iterator[tuple[Content, Ints]]:
        key = comparison_key(running.key, bytes.fromhex(running.salt))
        for one in self._contents.scan(running.set_id, running.key, running.differing):
            yield one, _ids_of(one, running.differing[one.block.label], key)

    def close(self, partner: str, set_name: str, details: Mapping[str, object]) -> None:
        """Put a comparison that found something on record, and note whether both ends hold the same now."""
        with self._node.store.transaction() as tx:
            mirror = tx.sets.get(set_name)
            assert mirror.id is not None
            head = FeedHead.parse(mirror.head.encode())
            if head.cursor == Cursor(mirror.epoch, mirror.view, mirror.seq):
                sums = Sums(tx, mirror.id, digest_key(self._node, mirror))
                same = sums.state() == head.state and sums.entries() == head.count
                tx.sets.set_equality(mirror.id, "equal" if same else "different")
            if details["differing"] or details["arrived"] or details["outcome"] != "equal":
                event = self._node.event(
                    EventKind.SET_COMPARED,
                    actor=self._node.agency,
                    subject=partner,
                    details={"set": set_name, "partner": partner, **details},
                )
                tx.log.append([event])


class Answers:
    """The hub's side: answers to what a follower asks, for what its view shows."""

    def __init__(self, node: Node, shelf: Shelf) -> None:
        self._node = node
        self._shelf = shelf
        self._contents = Contents(node, shelf)
        self._kept: OrderedDict[tuple[object, ...], Sketch] = OrderedDict()
        self._guard = Lock()

    def sums(self, tx: Transaction, served: ServedSet) -> bytes:
        """Count and sums of everything that the view shows."""
        shown = served.view.labels
        held = Sums(tx, served.id, digest_key(self._node, served.hash_set)).by_label()
        sums = {
            (label, part): one
            for (label, part), one in held.items()
            if one != EMPTY and label in shown and _NAMES[part] in shown[label].groups
        }
        return SumsAnswer({n: served.labels[n][0].digest.hex() for n in shown}, sums).dump()

    def sketch(self, served: ServedSet, question: Question) -> bytes:
        """Symbols over the labels asked for, made from the blocks. No transaction is open meanwhile."""
        self._check_shown(served, question)
        place = (served.id, served.partner, question.salt, question.labels, question.cursor)
        with self._guard:
            kept = self._kept.get(place)
        if kept is None or kept.last < question.last:
            # More than is asked: the next questions then cost nothing.
            kept = self._make(served, question, min(max(2 * question.last, USUAL_SYMBOLS), MAX_SYMBOLS))
            with self._guard:
                self._kept[place] = kept
                while len(self._kept) > 1 and sum(one.last for one in self._kept.values()) > MAX_KEPT_SYMBOLS:
                    self._kept.popitem(last=False)
        return dump_sketch(kept.slice(question.first, question.last))

    def page(
        self, tx: Transaction, served: ServedSet, question: Question, found: Sequence[tuple[int, Rows]]
    ) -> tuple[Draft | None, list[View]]:
        """The page that brings what the follower lacks and takes away what it should not hold; None without either.

        Args:
            found: what `wanted` found.
        """
        check_cursor(served, question)
        assert question.stands is not None
        # 1. Labels that the follower holds otherwise than the view shows them go whole; what it has not, comes later.
        target = served.view.labels
        if question.holds or question.stands != question.cursor:
            holds = {one.number: one for one in question.holds}
            same = {n: shown for n, shown in target.items() if _is_held(served, n, shown, holds.get(n))}
            left = tuple(sorted(holds.keys() - same.keys()))
        else:
            same, left = dict(target), ()
        view = served.view if same == target else View(same)
        # 2. What only we have, and what the follower has otherwise.
        odd, removals = self._judged(tx, served, question, same)
        blocks = [*removals, *self._blocks(served, [*found, *odd])]
        end = Cursor(served.hash_set.epoch, view.digest, served.hash_set.seq)
        if not blocks and not left and end == question.stands:
            return None, []
        used = {block.header.label for block in blocks} - {REMOVALS_LABEL}
        fresh = set() if question.stands == question.cursor else same.keys() - {one.number for one in question.holds}
        head = PageHead(
            hub=self._node.agency,
            set_name=served.hash_set.name,
            start=question.stands,
            end=end,
            target=served.view.digest,
            reset=False,
            left=left,
            labels=served.described(used | fresh),
            blocks=len(blocks),
            changes=sum(block.header.count for block in blocks),
            sources=sources(tx, served, blocks),
        )
        return Draft(head, blocks), [view, served.view]

    def _check_shown(self, served: ServedSet, question: Question) -> None:
        if not set(question.labels) <= served.view.labels.keys():
            raise NotFoundError("no such label")

    def _make(self, served: ServedSet, question: Question, last: int) -> Sketch:
        """The sketch of these labels; sums of ours that do not say what the blocks hold are corrected."""
        made, counted = Sketch.empty(last), dict[tuple[int, int], Sum]()
        for one, ids in self._scan(served, question, every=True):
            made.add(ids)
            _count(counted, one)
        at = Cursor(served.hash_set.epoch, "", served.hash_set.seq)
        correct(self._node, served.id, digest_key(self._node, served.hash_set), question.labels, counted, at)
        return made

    def _scan(self, served: ServedSet, question: Question, *, every: bool = False) -> Iterator[tuple[Content, Ints]]:
        """The entries of the labels compared with their short ids; with `every`, items of withheld groups as well."""
        key = digest_key(self._node, served.hash_set)
        hashed = comparison_key(key, bytes.fromhex(question.salt))
        shown = {label: _codes(served.view.labels[label].groups) for label in question.labels}
        read = dict.fromkeys(shown, tuple(GROUP_CODES.values())) if every else shown
        for one in self._contents.scan(served.id, key, read):
            yield one, _ids_of(one, shown[one.block.label], hashed)

    def wanted(self, served: ServedSet, question: Question) -> list[tuple[int, Rows]]:
        """(label, rows) of the entries asked for by their short ids, with what the view shows of them.

        No transaction is open meanwhile: labels are read through.
        """
        if not len(question.wanted):
            return []
        self._check_shown(served, question)
        found = []
        for one, ids in self._scan(served, question):
            where = among(ids, question.wanted)
            if where.any():
                found.append((one.block.label, one.rows.take(where)))
        return found

    def unknown(self, tx: Transaction, served: ServedSet, question: Question) -> Ints:
        """Entries that the follower holds and of which nothing is known here, not even that they were withdrawn."""
        held = held_rows(tx, self._shelf, served.id, question.odd)
        with self._shelf.index(tx, served.id) as index:
            known = index.withdrawn(question.odd)
        return question.odd[~(known | among(question.odd, joined([one.rows.ints("entry_id") for one in held])))]

    def _judged(
        self, tx: Transaction, served: ServedSet, question: Question, same: Mapping[int, LabelView]
    ) -> tuple[list[tuple[int, Rows]], list[Block]]:
        """What became of the entries that only the follower holds so: those that are here, and removals of the others.

        An entry of which nothing is known here may have been lost here: it is only told to leave when the follower has
        offered what it has of it.
        """
        if not len(question.odd):
            return [], []
        found: list[tuple[int, Rows]] = []
        here, hidden = [], []
        for held in held_rows(tx, self._shelf, served.id, question.odd):
            label = held.block.label
            if label in same:
                found.append((label, shown_rows(held.rows, _codes(same[label].groups))))
                here.append(held.rows.ints("entry_id"))
            else:
                hidden.append(held.rows.ints("entry_id"))
        with self._shelf.index(tx, served.id) as index:
            withdrawn = index.withdrawn(question.odd)
        gone = withdrawn | among(question.odd, joined(hidden))
        if question.last_word:
            gone = ~among(question.odd, joined(here))
        kinds = constant(ChangeKind.LEAVE, len(question.odd))
        kinds[withdrawn] = ChangeKind.WITHDRAW
        return found, self._removals(served, question.odd[gone], kinds[gone])

    def _removals(self, served: ServedSet, ids: Ints, kinds: Ints) -> list[Block]:
        n = min(len(ids), served.hash_set.seq)  # seqs number the removals, and do not pass the page's end
        if not n:
            return []
        rows = Rows.of(
            n,
            {"kind": kinds[:n], "seq": counting(1, n), "entry_id": ids[:n], "version": constant(1, n)},
        )
        return [self._encoded(served, REMOVALS_LABEL, NO_LABEL, piece) for piece in cut(rows)]

    def _blocks(self, served: ServedSet, found: Sequence[tuple[int, Rows]]) -> list[Block]:
        """Rows by label and shape as blocks of their own, each entry once, with the parts that the view shows."""
        alike: dict[tuple[int, int], list[Rows]] = {}
        seen = integers([])
        for label, rows in found:
            new = rows.take(~among(rows.ints("entry_id"), seen))
            seen = joined([seen, new.ints("entry_id")])
            if new.n:
                alike.setdefault((label, new.shape), []).append(new)
        blocks = []
        for (label, _), members in sorted(alike.items(), key=lambda pair: pair[0]):
            rows = concat(members)
            ordered = rows.take(rows.ints("seq").argsort(kind="stable"))
            for piece in cut(ordered):
                block = self._encoded(served, label, served.labels[label][0].digest, piece)
                blocks.append(block.project(served.view.labels[label].groups))
        return blocks

    def _encoded(self, served: ServedSet, label: int, label_digest: bytes, rows: Rows) -> Block:
        return encode_block(
            set_name=served.hash_set.name,
            epoch=served.hash_set.epoch,
            label=label,
            label_digest=label_digest,
            rows=rows,
            salt=self._shelf.salt,
        )


def check_cursor(served: ServedSet, question: Question) -> None:
    """Returns when both sides speak of the same state; ConflictError when the hub has moved on."""
    if served.cursor != question.cursor:
        raise ConflictError("the set has moved on meanwhile", remedy="ask for the feed head again, then compare")


def correct(  # noqa: PLR0917  whose sums, and what was counted when
    node: Node,
    set_id: int,
    key: bytes,
    labels: Iterable[int],
    counted: Mapping[tuple[int, int], Sum],
    at: Cursor,
) -> int:
    """Put right the sums of labels that do not say what the blocks hold; returns how many were wrong.

    Args:
        counted: what the blocks of these labels hold, by (label, group code).
        at: where the set stood when they were read: a set that has moved on meanwhile is left alone.
    """
    with node.store.reading() as tx:
        wrong = _wrong(Sums(tx, set_id, key).by_label(), labels, counted)
    if not wrong:
        return 0
    with node.store.transaction() as tx:
        hash_set = tx.sets.by_id(set_id)
        if (hash_set.epoch, hash_set.seq) != (at.epoch, at.seq) or (hash_set.hub and hash_set.view != at.view):
            raise ConflictError("the set moved on while it was counted", remedy="try again")
        sums = Sums(tx, set_id, key)
        wrong = _wrong(sums.by_label(), labels, counted)
        for place, (stored, found) in wrong.items():
            sums.move(*place, found - stored)
        sums.write()
        details: dict[str, object] = {"set": hash_set.name, "corrected": len(wrong)}
        tx.log.append([node.event(EventKind.SUMS_CORRECTED, actor=node.agency, subject=hash_set.name, details=details)])
    return len(wrong)


def _ids_of(content: Content, groups: Iterable[int], key: bytes) -> Ints:
    """The short ids of these rows over the groups that both sides see."""
    return short_ids({part: content.items[part] for part in groups if part in content.items}, content.block.label, key)


def _count(counted: dict[tuple[int, int], Sum], content: Content) -> None:
    for at, found in sums_of([content]).items():
        counted[at] = counted.get(at, EMPTY) + found


def _wrong(
    stored: Mapping[tuple[int, int], Sum], labels: Iterable[int], counted: Mapping[tuple[int, int], Sum]
) -> dict[tuple[int, int], tuple[Sum, Sum]]:
    chosen = set(labels)
    places = {at for at in stored.keys() | counted.keys() if at[0] in chosen}
    pairs = {at: (stored.get(at, EMPTY), counted.get(at, EMPTY)) for at in places}
    return {at: pair for at, pair in pairs.items() if pair[0] != pair[1]}


def _by_label(sums: Mapping[tuple[int, int], Sum]) -> dict[int, dict[int, Sum]]:
    found: dict[int, dict[int, Sum]] = {}
    for (label, part), one in sums.items():
        if one != EMPTY:
            found.setdefault(label, {})[part] = one
    return found


def _held_labels(tx: Transaction, set_id: int) -> tuple[HeldLabel, ...]:
    return tuple(
        HeldLabel(
            row.number,
            row.digest.hex(),
            frozenset(FieldGroup(name) for name in row.groups.split()),
            tuple(row.obligations.split()),
        )
        for row in tx.sets.labels(set_id)
    )


def _is_held(served: ServedSet, number: int, shown: LabelView, held: HeldLabel | None) -> bool:
    """Whether a label is to its holder what the view shows now."""
    return (
        held is not None
        and held.digest == served.labels[number][0].digest.hex()
        and held.groups == shown.groups
        and held.obligations == shown.obligations
    )


def _codes(groups: Iterable[FieldGroup]) -> tuple[int, ...]:
    return tuple(sorted(GROUP_CODES[group] for group in groups))


def shown_rows(rows: Rows, groups: Iterable[int]) -> Rows:
    """The rows with the columns of these groups only."""
    shown = set(groups)
    return rows.select(name for name in rows.columns if registered(name).group in shown)
