"""The page that brings a follower on from a cursor: which rows go, which are taken away, where it ends.

Of each entry only the newest state goes, and what was replaced or withdrawn between two cursors is not mentioned
(`columns.delta`). Labels that the follower loses go whole, labels newly in view are filled up, then come the changes
after its cursor; a page that has no room left ends on the way, and its end says so. Nothing here is sealed or logged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from gateway.columns.block import NO_LABEL, Block, cut, decode, encode_block, resliced
from gateway.columns.block import REMOVALS as REMOVALS_LABEL
from gateway.columns.delta import Selection, select_delta
from gateway.columns.rows import EXISTENCE, GROUP_CODES, LOCAL_GROUP, Mask, Rows, concat, constant, indexes, joined
from gateway.errors import AuditBrokenError
from gateway.exchange.labels import shown_attributes
from gateway.exchange.paging import BLOCKS_AT_ONCE, cost, end_within, next_blocks
from gateway.exchange.shelf import Shelf, block_id
from gateway.interchange import MAX_SOURCES, NO_VIEW, Cursor, LabelView, PageHead, PageLabel, View
from gateway.model import ChangeKind, FieldGroup, Label
from gateway.policy import LabelRights
from gateway.store import Transaction
from gateway.store.tables import BlockRow, HashSet, LabelRow

TOLD = ("kind", "seq", "entry_id", "version", "prev_seq", "prev_label")  # what a delta is selected by
TOLD_PARTS = (EXISTENCE, LOCAL_GROUP)
MAX_LOOKED_THROUGH = 64  # blocks that came while a page was on its way; with more it is made anew, not taken up


@dataclass(frozen=True, slots=True)
class ServedSet:
    """One set as one partner may see it now."""

    hash_set: HashSet
    partner: str
    view: View
    labels: Mapping[int, tuple[LabelRow, Label]]
    rights: Mapping[int, LabelRights]
    policy: str = ""  # by its digest: who said what of this is shown
    recalled: bool = False  # it may see nothing any more, and holds what it was given: that is taken back

    @property
    def id(self) -> int:
        """The set's id in the store."""
        assert self.hash_set.id is not None
        return self.hash_set.id

    @property
    def visible(self) -> bool:
        """Whether the partner may know that the set exists, or knows it from when it might."""
        return bool(self.view.labels) or self.recalled

    @property
    def cursor(self) -> Cursor:
        """Where a partner stands that holds all of this."""
        return Cursor(self.hash_set.epoch, self.view.digest, self.hash_set.seq)

    def described(self, numbers: Iterable[int]) -> tuple[PageLabel, ...]:
        """These labels as a page describes them to this partner."""
        described = []
        for number in sorted(numbers):
            row, label = self.labels[number]
            shown = self.view.labels[number]
            attributes = shown_attributes(label, shown.groups)
            described.append(PageLabel(number, row.digest.hex(), attributes, shown.groups, shown.obligations))
        return tuple(described)


@dataclass(frozen=True, slots=True)
class Draft:
    """A page before it is sealed."""

    head: PageHead
    blocks: list[Block]


class Drafter:
    """Drafts the pages of one gateway's own sets."""

    def __init__(self, agency: str, shelf: Shelf) -> None:
        self._agency = agency
        self._shelf = shelf

    def page(
        self, tx: Transaction, served: ServedSet, cursor: Cursor, until: int, room: int
    ) -> tuple[Draft | None, list[View]]:
        """The page from `cursor`, and the views that its ends name."""
        stored = tx.sets.view(served.id, served.partner, cursor.view) if cursor.view != NO_VIEW else None
        epoch = served.hash_set.epoch
        reset = cursor.epoch != epoch or (cursor.view != NO_VIEW and stored is None) or cursor.seq > until
        start = Cursor(epoch, NO_VIEW, 0) if reset else cursor
        old = self._known_view(served, cursor, stored) if stored and not reset else View({})
        # 1. Labels that the partner loses, or sees otherwise than before, go whole.
        target = served.view.labels
        left = [n for n, shown in old.labels.items() if n not in target or not target[n].shows_the_same(shown)]
        held = {n: shown for n, shown in old.labels.items() if n not in left}
        # 2. Labels newly in view are filled up to the cursor, as far as the page goes.
        blocks: list[Block] = []
        if start.seq:
            blocks, held, room = self._backfill(tx, served, held, start.seq, room)
        else:
            held = dict(target)
        # 3. When all of them are full, the changes after the cursor.
        seq = start.seq
        if held.keys() == target.keys() and all(one.until_seq is None for one in held.values()) and room > 0:
            if target:
                changes, seq = self._changes(tx, served, start.seq, until, room, first=not blocks)
                blocks = changes + blocks  # removals stand first
            else:
                seq = until  # to somebody who may see nothing, no change says anything
        view = served.view if held == target else View(held)
        end = Cursor(epoch, view.digest, seq)
        if not reset and end == cursor:
            return None, []
        new = {n for n in held if n not in old.labels or n in left}
        labels = served.described(new | {block.header.label for block in blocks} - {REMOVALS_LABEL})
        head = PageHead(
            hub=self._agency,
            set_name=served.hash_set.name,
            start=cursor,
            end=end,
            target=served.view.digest,
            reset=reset,
            left=tuple(sorted(left)),
            labels=labels,
            blocks=len(blocks),
            changes=sum(block.header.count for block in blocks),
            sources=sources(tx, served, blocks),
        )
        return Draft(head, blocks), [view, served.view]

    def _known_view(self, served: ServedSet, cursor: Cursor, stored: str) -> View:
        return served.view if cursor.view == served.view.digest else View.parse(stored.encode())

    def _backfill(
        self, tx: Transaction, served: ServedSet, held: dict[int, LabelView], upto: int, room: int
    ) -> tuple[list[Block], dict[int, LabelView], int]:
        """Live rows of labels newly in view, by ascending seq up to the cursor."""
        held = dict(held)
        chosen: list[tuple[BlockRow, Mask]] = []
        for number, shown in sorted(served.view.labels.items()):
            before = held.get(number)
            if before is not None and before.until_seq is None:
                continue
            after = 0 if before is None else before.until_seq or 0
            while after < upto:
                rows, end = self._reach(tx, served, after, upto, room, label=number, first=not chosen)
                if end == after:
                    break
                chosen += self._live_rows(tx, served, rows, after, end)
                room -= sum(map(cost, rows))
                after = end
            held[number] = shown if after >= upto else replace(shown, until_seq=after)
            if after < upto:
                return self._projected(tx, served, chosen), held, 0
        return self._projected(tx, served, chosen), held, room

    def _live_rows(
        self, tx: Transaction, served: ServedSet, rows: Sequence[BlockRow], after: int, end: int
    ) -> list[tuple[BlockRow, Mask]]:
        """The blocks with a mask of their live rows in (after, end]."""
        seqs = [decode(block, ["seq"]).ints("seq") for block in self._shelf.get_all(tx, rows, [EXISTENCE])]
        with self._shelf.index(tx, served.id) as index:
            live = [index.live_rows(block_id(row)) for row in rows]
        return [(row, mask & (seq > after) & (seq <= end)) for row, mask, seq in zip(rows, live, seqs, strict=True)]

    def _changes(
        self, tx: Transaction, served: ServedSet, after: int, until: int, room: int, *, first: bool
    ) -> tuple[list[Block], int]:
        """Blocks of what the view shows of the changes in (after, end], and that end."""
        stored, end = self._reach(tx, served, after, until, room, first=first)
        if not stored:
            return [], end
        read = [decode(block, TOLD) for block in self._shelf.get_all(tx, stored, TOLD_PARTS)]
        inside = [(rows.ints("seq") > after) & (rows.ints("seq") <= end) for rows in read]
        taken = [rows.take(mask) for rows, mask in zip(read, inside, strict=True)]
        labels = joined([constant(row.label, rows.n) for row, rows in zip(stored, taken, strict=True)])
        history = concat(taken)
        order = history.ints("seq").argsort()
        history, labels = history.take(order), labels[order]
        selection = select_delta(history, set(served.view.labels), labels, after)
        send = selection.send.copy()
        send[order] = selection.send  # in the order of the blocks again
        blocks = self._removals(served, history, selection)
        chosen, at = [], 0
        with self._shelf.index(tx, served.id) as index:
            for row, mask, part in zip(stored, inside, taken, strict=True):
                live = index.live_rows(block_id(row))
                chosen.append((row, _spread(mask, send[at : at + part.n]) & live))
                at += part.n
        return blocks + self._projected(tx, served, chosen), end

    def _reach(
        self,
        tx: Transaction,
        served: ServedSet,
        after: int,
        until: int,
        room: int,
        *,
        first: bool,
        label: int | None = None,
    ) -> tuple[list[BlockRow], int]:
        """The blocks with every change in (after, end], as far as there is room, and that end.

        Args:
            first: whether nothing is in the page yet: then something must go, if a part of a block only.
            label: only the entries of this label.
        """

        def ask(beyond: int) -> list[BlockRow]:
            epoch = served.hash_set.epoch
            return tx.blocks.beyond(served.id, epoch, beyond, until, most=BLOCKS_AT_ONCE, label=label)

        rows, fits = next_blocks(ask, after, room)
        if not rows:
            return [], until
        if fits:
            return rows, min(rows[-1].last_seq, until)
        if not first:
            return [], after
        read = self._shelf.get_all(tx, rows, [EXISTENCE])
        seqs = [(row, decode(block, ["seq"]).ints("seq")) for row, block in zip(rows, read, strict=True)]
        left = [(row, seq[(seq > after) & (seq <= until)]) for row, seq in seqs]
        # Joined blocks may reach beyond the head that the follower holds, with nothing of what it may ask for.
        return (rows, end_within(left, room)) if any(len(seq) for _, seq in left) else ([], until)

    def _projected(self, tx: Transaction, served: ServedSet, chosen: Sequence[tuple[BlockRow, Mask]]) -> list[Block]:
        """Blocks with the parts that the view shows: copied where every row goes, cut where some do not."""
        shown = served.view.labels
        sent = [(row, mask) for row, mask in chosen if row.label in shown and mask.any()]
        rows_by_groups: dict[frozenset[FieldGroup], list[BlockRow]] = {}
        for row, _ in sent:
            rows_by_groups.setdefault(shown[row.label].groups, []).append(row)
        found: dict[int, Block] = {}
        for groups, rows in rows_by_groups.items():
            blocks = self._shelf.get_all(tx, rows, [GROUP_CODES[group] for group in groups])
            found.update((block_id(row), block.project(groups)) for row, block in zip(rows, blocks, strict=True))
        if any(found[block_id(row)].header.label_digest != served.labels[row.label][0].digest for row, _ in sent):
            raise AuditBrokenError("a stored block has another label than it was logged with")
        blocks_and_masks = [(found[block_id(row)], mask) for row, mask in sent]
        return [block if mask.all() else resliced(block, mask, self._shelf.salt) for block, mask in blocks_and_masks]

    def _removals(self, served: ServedSet, history: Rows, selection: Selection) -> list[Block]:
        """One block of withdrawals and leaves, without label or content."""
        where = sorted(
            [(int(at), ChangeKind.WITHDRAW) for at in selection.withdraw]
            + [(int(at), ChangeKind.LEAVE) for at in selection.leave]
        )
        if not where:
            return []
        rows = history.take(indexes([at for at, _ in where]))
        removals = Rows.of(
            rows.n,
            {
                "kind": [int(kind) for _, kind in where],
                "seq": rows.ints("seq"),
                "entry_id": rows.ints("entry_id"),
                "version": rows.ints("version"),
            },
        )
        return [
            encode_block(
                set_name=served.hash_set.name,
                epoch=served.hash_set.epoch,
                label=REMOVALS_LABEL,
                label_digest=NO_LABEL,
                rows=piece,
                salt=self._shelf.salt,
            )
            for piece in cut(removals)
        ]

    def is_outdated(self, tx: Transaction, served: ServedSet, *, seq: int, end: Cursor) -> bool:
        """Whether something that came after `seq`, when a page was made, replaces an entry that may be in it.

        Args:
            end: where the page ends.
        """
        if served.hash_set.seq == seq:
            return False
        since = tx.blocks.beyond(served.id, served.hash_set.epoch, seq, served.hash_set.seq, most=MAX_LOOKED_THROUGH)
        if len(since) == MAX_LOOKED_THROUGH:
            return True
        for block in self._shelf.get_all(tx, since, TOLD_PARTS):
            rows = decode(block, ["seq", "prev_seq"])
            before = rows.ints("prev_seq")[rows.ints("seq") > seq]
            if ((before > 0) & (before <= end.seq)).any():
                return True
        return False


def sources(tx: Transaction, served: ServedSet, blocks: Sequence[Block]) -> tuple[str, ...]:
    """The originator's signed messages that stand behind blocks of an onward copy; with too many, the newest."""
    if not served.hash_set.relays or not blocks:
        return ()
    spans = [(block.header.first_seq, block.header.last_seq) for block in blocks]
    found: set[str] = set()
    for row in tx.sets.sources(served.id, min(first for first, _ in spans), max(last for _, last in spans)):
        named = set(row.sources.split())
        if any(first <= row.last_seq and row.first_seq <= last for first, last in spans):
            if len(found | named) > MAX_SOURCES:
                break
            found |= named
    return tuple(sorted(found))


def _spread(mask: Mask, chosen: Mask) -> Mask:
    """`chosen`, which speaks of the rows that `mask` marks, as a mask over all rows."""
    spread = mask.copy()
    spread[mask] = chosen
    return spread
