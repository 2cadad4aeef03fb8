"""What a page brings, checked block by block and parted: what we take, what we refuse, what goes.

Pure but for the salts: it reads no store. What is refused is remembered by entry, version and digest items, never by
value. All rows of a page that have the same digests are looked at together, however many blocks they came in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from gateway.columns import digest
from gateway.columns.block import REMOVALS, Block, Together, decode_together, encode_block, resliced
from gateway.columns.digest import Sum
from gateway.columns.rows import Ints, Rows, indexes
from gateway.errors import MalformedError
from gateway.exchange.changes import CONTENT_PARTS, counted, pack_items
from gateway.exchange.neveragain import Barred, Bars
from gateway.interchange import PageHead, PageLabel
from gateway.model import ChangeKind, require
from gateway.policy import Decision
from gateway.store.tables import LabelRow


@dataclass(frozen=True, slots=True)
class Arrived:
    """A block of a page: its place there, its rows, and for rows that are not kept the items that stand for them."""

    place: int
    block: Block
    rows: Rows
    items: bytes = b""


@dataclass(slots=True)
class PageWork:
    """What one page brings, sorted.

    `kept`: blocks to keep. `refused`, `barred`: blocks of rows that policy refuses, or the never-again list, without
    their values. `removals`: entries that go. `arriving`: all entries. `counted`: (label, part, sum) of all that came
    under a label, since the state digest covers what was delivered. `labels`: those that are new here. `duties`: what
    each of the page's labels binds us to. `front`: what stands before the blocks, as it came. `known_good`: how many of
    the rows that are kept are of common files.
    """

    kept: list[Arrived] = field(default_factory=list)
    refused: list[Arrived] = field(default_factory=list)
    barred: list[Arrived] = field(default_factory=list)
    removals: list[Arrived] = field(default_factory=list)
    arriving: list[Ints] = field(default_factory=list)
    counted: list[tuple[int, int, Sum]] = field(default_factory=list)
    labels: list[LabelRow] = field(default_factory=list)
    front: bytes = b""
    duties: dict[int, tuple[str, ...]] = field(default_factory=dict)
    changes: int = 0
    refused_rows: int = 0
    known_good: int = 0
    reasons: dict[str, int] = field(default_factory=dict)

    def refuse(self, reason: str, count: int) -> None:
        """Count rows that are refused."""
        self.refused_rows += count
        self.reasons[reason] = self.reasons.get(reason, 0) + count


class PageSorter:
    """Sorts the blocks of one page.

    Args:
        labels, decisions: of the page's labels, by number.
        key: of the set's state digest.
        bars: what must never come from this hub; None while nothing is listed.
        known: how many of some rows are known good.
        salt: gives a part's 16 fresh random octets.
    """

    def __init__(
        self,
        page: PageHead,
        labels: Mapping[int, PageLabel],
        decisions: Mapping[int, Decision],
        *,
        key: bytes,
        bars: Bars | None,
        known: Callable[[Rows], int],
        salt: Callable[[], bytes],
    ) -> None:
        self._page, self._labels, self._decisions = page, labels, decisions
        self._key, self._bars, self._known, self._salt = key, bars, known, salt
        self._work = PageWork()
        self._removals: list[tuple[int, Block]] = []
        self._places: list[int] = []  # in the page, of the labelled blocks

    def sort(self, blocks: Iterable[Block]) -> PageWork:
        """Check every block, and part what we take from what we refuse, or what must never come again.

        Raises:
            MalformedError: a block breaks a rule of the page.
        """
        work = self._work
        for together in decode_together(self._labelled(blocks)):
            self._part(together)
        require(work.changes == self._page.changes, "page: the number of changes is not the one announced")
        for together in decode_together(block for _, block in self._removals):
            work.arriving.append(together.rows.ints("entry_id"))
            for at, (block, rows) in zip(together.places, together.each(), strict=True):
                work.removals.append(Arrived(self._removals[at][0], block, rows))
        for listed in (work.kept, work.refused, work.barred):
            listed.sort(key=lambda one: one.place)  # as the page has them: together they can be that page again
        return work

    def _labelled(self, blocks: Iterable[Block]) -> Iterator[Block]:
        """The blocks under a label, once they fit the page; removals are put aside. Nothing is unpacked here."""
        page, work = self._page, self._work
        for place, block in enumerate(blocks):
            header = block.header
            require(header.set_name == page.set_name, "page: a block of another set")
            require(header.epoch == page.end.epoch, "page: a block of another epoch")
            require(header.last_seq <= page.end.seq, "page: a block beyond the page's end")
            work.changes += header.count
            # A block of a few bytes can stand for thousands of rows.
            require(work.changes <= page.changes, "page: more changes than it announces")
            if header.label == REMOVALS:
                self._removals.append((place, block))
                continue
            label = self._labels.get(header.label)
            if label is None or label.digest != header.label_digest.hex() or not block.groups <= label.groups:
                raise MalformedError("page: a block does not fit its label")
            self._places.append(place)
            yield block

    def _part(self, together: Together) -> None:
        """Blocks of which the same digests are here."""
        work, kinds = self._work, together.rows.ints("kind")
        require((kinds == ChangeKind.ASSERT).all(), "page: a labelled block asserts only")
        work.arriving.append(together.rows.ints("entry_id"))
        decisions = [self._decisions[block.header.label] for block in together.blocks]
        allowed = [decision.allowed for decision in decisions]
        if not all(allowed):
            for place, (block, rows), decision in zip(together.places, together.each(), decisions, strict=True):
                if not decision.allowed:
                    work.refused.append(self._bare(place, block, rows))
                    work.refuse(", ".join(decision.rule_ids) or str(decision.reason), rows.n)
            together = together.only(allowed)
        barred = self._bars.find(together.rows) if self._bars is not None and together.blocks else None
        if barred is not None:
            self._bar(together, barred)
            return
        for place, (block, rows) in zip(together.places, together.each(), strict=True):
            work.kept.append(Arrived(self._places[place], block, rows))
        self._count(together.blocks, together.rows, together.offsets.tolist())

    def _bar(self, together: Together, barred: Barred) -> None:
        """Blocks of which some rows must never come again."""
        work = self._work
        for reason, count in barred.counts.items():
            work.refuse(reason, count)
        kept: list[Block] = []
        offsets = [0]
        starts = together.offsets.tolist()
        for at, (place, (block, rows)) in enumerate(zip(together.places, together.each(), strict=True)):
            mask = barred.mask[starts[at] : starts[at + 1]]
            if mask.any():
                work.barred.append(self._bare(place, block, rows.take(mask)))
            if not mask.all():
                rest = block, rows
                if mask.any():
                    rest = resliced(block, ~mask, self._salt), rows.take(~mask)
                work.kept.append(Arrived(self._places[place], *rest))
                kept.append(rest[0])
                offsets.append(offsets[-1] + rest[1].n)
        self._count(kept, together.rows.take(~barred.mask), offsets)

    def _count(self, blocks: Sequence[Block], rows: Rows, offsets: Sequence[int]) -> None:
        labels = [block.header.label for block in blocks]
        if labels:
            self._work.known_good += self._known(rows)
            self._work.counted += counted(labels, rows, indexes(offsets), self._key)

    def _bare(self, place: int, block: Block, rows: Rows) -> Arrived:
        """Rows of a block as far as they are kept when they are refused."""
        header = block.header
        bare = rows.select(["kind", "seq", "entry_id", "version"])
        made = encode_block(
            set_name=header.set_name,
            epoch=header.epoch,
            label=header.label,
            label_digest=header.label_digest,
            rows=bare,
            salt=self._salt,
        )
        items = {part: digest.items(rows, part, self._key) for part in CONTENT_PARTS & set(block.parts)}
        self._work.counted += [(header.label, part, digest.sum_items(found)) for part, found in items.items()]
        return Arrived(self._places[place], made, bare, pack_items(items))
