"""What a stock client gets of our own sets: windows of time, in pages, over a surface that is protected by TLS alone.

A stock client knows no cursor: it asks what changed after one time and up to another, and keeps of each entry what came
last. So of each entry it gets the latest state, at the time of that:

    in view now                        the entry, at its last change, or when its label came into view
    was in view, and is not any more   that it was deleted: withdrawn, moved to a label out of view, or its label went
    never was in view                  nothing, not even that it exists

Rules:

1. A change is published in the second after it was made (`spans`), and nobody may ask beyond the present second. The
   present time is read while nobody writes. So what was asked once never gets anything added, and who goes on from
   there misses nothing.
2. What a partner may see, and that it is on record before it leaves, is `admission`'s matter.
3. A page has a place in an order that stays while others write: set, label, `seq`. Its end is named by a text that only
   this gateway makes, for this partner and this window: nothing is kept of it.
4. After a restore the times that a client knows are of a life that is over: it is sent to the beginning, once.
5. What leaves is one leaf a page. An answer that brings nothing leaves none.

Blocks whose times lie outside a window are not read: their first and last times are kept here, read once. Contract:
contracts/hashsharing-1.md; decision 0019.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from gateway.audit import EventKind
from gateway.columns.block import decode
from gateway.columns.rows import (
    EXISTENCE,
    GROUP_CODES,
    LOCAL_GROUP,
    Index,
    Ints,
    Mask,
    Rows,
    chosen,
    constant,
    grouped,
    integers,
    joined,
    registered,
    unmarked,
)
from gateway.errors import ConflictError, MalformedError, NotFoundError
from gateway.exchange import largevalues
from gateway.exchange.admission import Admission, Admitted, Seen, Served
from gateway.exchange.shelf import Shelf, block_id
from gateway.exchange.spans import Shown
from gateway.exchange.surfaceopinions import Told, heard
from gateway.model import ChangeKind, FieldGroup
from gateway.node import Node
from gateway.partners import length_prefixed
from gateway.store import Transaction
from gateway.store.tables import BlockRow, OpinionRow

PAGE_ITEMS = 1_000  # of one answer, as NCMEC's; some half a megabyte
MAX_KEPT_ROWS = 131_072  # decoded and kept for the next page of the same blocks: some 15 MB
DIGESTS = ("md5", "sha1", "pdq", "photodna", *largevalues.ALGORITHMS)  # what the surface has a field for
_TOLD = ("kind", "seq", "entry_id", "version", "changed_at", "media_type", "prev_seq", "prev_label")
_DIGEST_GROUPS = (FieldGroup.CRYPTOGRAPHIC_DIGESTS, FieldGroup.PERCEPTUAL_DIGESTS)
BEGINNING_SECONDS = 86_400  # a window from the first day of 1970 is one from the beginning, in any time zone
_MAC_BYTES = 16
_MAC_LABEL = "place in a window 1"
NOT_OURS = "the query does not go on from a page that came from here"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page ends: set, label and `seq` of its last item."""

    set_id: int = 0
    label: int = 0
    seq: int = 0


@dataclass(frozen=True, slots=True)
class Window:
    """What a client asks for: everything published after one time and up to another (Unix seconds), from a place on.

    `start`: the number of the first item of the page; clients count with it, and nothing depends on it.
    """

    after: int
    until: int
    start: int = 1
    place: Place = field(default_factory=Place)


@dataclass(frozen=True, slots=True)
class Item:
    """An entry as the surface tells of it; of one that was deleted no digests and no category.

    `digests`: of a large value its SHA-256, and only where the value is there to be asked for.
    """

    set_id: int
    entry_id: int
    at: int
    media_type: str
    deleted: bool
    category: str = ""
    digests: Mapping[str, bytes] = field(default_factory=dict)
    version: int = 0


@dataclass(frozen=True, slots=True)
class WindowPage:
    """A page of a window.

    Args:
        following: how to ask for the next one, None after the last.
        opinions: by set and entry, what the partner may hear of what is thought of it.
    """

    window: Window
    items: Sequence[Item]
    following: tuple[Window, str] | None
    opinions: Mapping[tuple[int, int], Sequence[Told]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Opinion:
    """What a partner says of a digest: affirmative or negative, and the GUIDs of its reasons."""

    verdict: str
    reasons: tuple[str, ...] = ()


@dataclass(slots=True)
class _Times:
    """The blocks of a set with the first and the last time that their rows speak of, as of what was read last."""

    blocks: dict[int, tuple[BlockRow, int, int]] = field(default_factory=dict)
    newest: int = 0
    drop: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """Rows of one block that belong to a window: their places in it, when they are published, which are deletions."""

    block: BlockRow
    rows: Rows
    at: Index
    times: Ints
    deleted: Mask

    def up_to(self, seq: int) -> Found:
        """Those of the rows up to a `seq`."""
        some = chosen(self.rows.ints("seq")[self.at] <= seq)
        return replace(self, at=self.at[some], times=self.times[some], deleted=self.deleted[some])


class Windows:
    """Serves own sets to stock clients."""

    def __init__(self, node: Node, shelf: Shelf, admission: Admission) -> None:
        self._node = node
        self._shelf = shelf
        self._admission = admission
        self._times: dict[int, _Times] = {}
        self._kept: OrderedDict[tuple[int, int | str], Rows] = OrderedDict()
        self._opinion_came: Callable[[Transaction, int, int], None] = lambda _tx, _set_id, _entry_id: None

    def on_opinion(self, hears: Callable[[Transaction, int, int], None]) -> None:
        """Opinions are also told to `hears` (set, entry), within the transaction in which they are taken."""
        self._opinion_came = hears

    # What doors ask

    def page(
        self, partner: str, surface: str, window: Window, following: str, render: Callable[[WindowPage], bytes]
    ) -> bytes:
        """One page of a window, rendered, and on record before it leaves.

        Args:
            following: the text that came with the page before, "" for the first page.
            render: makes the answer of it.

        Raises:
            MalformedError: the window is none, or the text is not one that this gateway made for it.
            OverloadedError: exchange is paused, or policy is being changed.
            ConflictError: we go on from a backup, and the partner has not begun at the beginning since.
        """
        # 1. Who asks, and what it may see and was shown: while nobody writes, so that all before this moment is there.
        with self._node.store.transaction() as tx:
            admitted = self._admission.admitted(tx, partner, surface)
            self._begin_anew(tx, partner, surface, window)
        window = self._placed(admitted, window, following)
        # 2. The page.
        with self._shelf.reading(self._node.store) as tx:
            page = self._gathered(tx, admitted, window)
            versions: dict[int, dict[int, int]] = {}
            for item in page.items:
                if not item.deleted:
                    versions.setdefault(item.set_id, {})[item.entry_id] = item.version
            page = replace(page, opinions=heard(self._node, tx, partner, versions))
        body = render(page)
        # 3. One commit: what leaves. A crash before this line sends nothing.
        if page.items:
            window, names = page.window, {seen.id: seen.hash_set.name for seen in admitted.sets}
            deleted = sum(item.deleted for item in page.items)
            sets = [names[item.set_id] for item in page.items]
            served = Served(sets, window.after, window.until, window.start, len(page.items) - deleted, deleted)
            self._admission.record(admitted, surface, served, hashlib.sha256(body).hexdigest())
        return body

    def categories(self, partner: str, surface: str) -> list[str]:
        """The categories that stand in what a partner may see."""
        with self._node.store.transaction() as tx:
            admitted = self._admission.admitted(tx, partner, surface)
        return sorted({one.sight.labels[n][1].category for one in admitted.sets for n in one.sight.view.labels})

    def check(self, partner: str) -> None:
        """Returns when a partner may exchange now; raises as `active`."""
        self._admission.check(partner)

    def take_opinion(
        self, partner: str, surface: str, entry: tuple[int, int], algorithm: str, opinion: Opinion
    ) -> None:
        """Keep what a partner thinks of one digest of an entry that it may see.

        Args:
            entry: the set's number and the entry id.

        Raises:
            NotFoundError: it may see no such entry, or not that digest of it.
        """
        set_id, entry_id = entry
        with self._node.store.transaction() as tx:
            admitted = self._admission.admitted(tx, partner, surface)
            seen = next((one for one in admitted.sets if one.id == set_id), None)
            found = None if seen is None else self.fingerprint(tx, seen, entry_id, algorithm)
            if seen is None or found is None:
                raise NotFoundError("no such entry")
            version = found[0]
            row = OpinionRow(
                set_id=set_id,
                entry_id=entry_id,
                algorithm=algorithm,
                partner=partner,
                verdict=opinion.verdict,
                reasons=" ".join(opinion.reasons),
                version=version,
                at=admitted.now,
            )
            tx.opinions.put(row)
            details: dict[str, object] = {
                "partner": partner,
                "surface": surface,
                "set": seen.hash_set.name,
                "entry": f"{entry_id:016x}",
                "version": version,
                "algorithm": algorithm,
                "verdict": opinion.verdict,
                "reasons": list(opinion.reasons),
            }
            name, kind = seen.hash_set.name, EventKind.OPINION_RECEIVED
            tx.log.append([self._node.event(kind, actor=partner, subject=name, details=details)])
            self._opinion_came(tx, set_id, entry_id)

    # The page

    def _begin_anew(self, tx: Transaction, partner: str, surface: str, window: Window) -> None:
        """Returns where a partner's times are of our present log; a window from the beginning begins with that.

        After a restore it may hold what is listed here no more, and nothing would ever tell it so.
        """
        number, key = str(self._node.keystore.log_numbers[-1]), f"begun anew {surface} {partner}"
        if number == "1" or tx.people.meta(key) == number:
            return
        if window.after > BEGINNING_SECONDS:
            remedy = "delete what came from here, and fetch from the beginning"
            raise ConflictError(
                "this gateway goes on from a backup; what was fetched before counts no more", remedy=remedy
            )
        tx.people.set_meta(key, number)

    def _placed(self, admitted: Admitted, window: Window, following: str) -> Window:
        """The window, checked, with the place that a text of ours names."""
        if window.until > admitted.now:
            # Who asked for a time to come would go on from there, and miss what happens until then.
            remedy = "let the client's clock be right and its time zone UTC (TZ=UTC)"
            raise MalformedError("the window ends in the future", place="query, to", remedy=remedy)
        if not following:
            return window
        numbers = following.rpartition(".")[0]
        try:
            place = Place(*map(int, numbers.split(".")))
        except (ValueError, TypeError) as error:
            raise MalformedError(NOT_OURS, place="query, at") from error
        placed = replace(window, place=place)
        if not hmac.compare_digest(self._following(admitted.partner, placed), following):
            raise MalformedError(NOT_OURS, place="query, at")
        return placed

    def _following(self, partner: str, window: Window) -> str:
        """The text that names a place to this partner, in this window; nobody else can make one."""
        place = window.place
        numbers = f"{place.set_id}.{place.label}.{place.seq}"
        told = (_MAC_LABEL, partner, str(window.after), str(window.until), str(window.start), numbers)
        return f"{numbers}.{self._node.keystore.row_mac(length_prefixed(*told))[:_MAC_BYTES].hex()}"

    def _gathered(self, tx: Transaction, admitted: Admitted, window: Window) -> WindowPage:
        """The items from the window's place on, as many as a page has."""
        items: dict[tuple[int, int], Item] = {}
        last, room = window.place, PAGE_ITEMS
        for seen, label, found in self.groups(tx, admitted.sets, window):
            seqs = joined([one.rows.ints("seq")[one.at] for one in found])
            if not len(seqs):
                continue
            if not room:
                return self._page(admitted, window, items, last)
            end = int(_least(seqs, room))
            for one in found:
                for item in self._items(tx, seen, label, one.up_to(end)):
                    items[item.set_id, item.entry_id] = item
            last, left = Place(seen.id, label, end), room - len(seqs)
            if left < 0:
                return self._page(admitted, window, items, last)
            room = left
        return self._page(admitted, window, items, None)

    def _page(
        self, admitted: Admitted, window: Window, items: Mapping[tuple[int, int], Item], last: Place | None
    ) -> WindowPage:
        if last is None:
            return WindowPage(window, list(items.values()), None)
        following = replace(window, start=window.start + PAGE_ITEMS, place=last)
        return WindowPage(window, list(items.values()), (following, self._following(admitted.partner, following)))

    def groups(
        self, tx: Transaction, sets: Sequence[Seen], window: Window
    ) -> Iterator[tuple[Seen, int, Sequence[Found]]]:
        """What belongs to the window from its place on: set by set, label by label, by ascending `seq`.

        Blocks of one label that reach over each other come together: at most as many changes as a segment has.
        """
        place = window.place
        for seen in sets:
            if seen.id < place.set_id:
                continue
            by_label: dict[int, list[BlockRow]] = {}
            for row, first, last in self._follow(tx, seen.id).blocks.values():
                if _may_have(seen.shown, row.label, first, last, window):
                    by_label.setdefault(row.label, []).append(row)
            for label, rows in sorted(by_label.items()):
                here = (seen.id, label)
                if here < (place.set_id, place.label):
                    continue
                after = place.seq if here == (place.set_id, place.label) else 0
                for together in _overlapping([row for row in rows if row.last_seq > after]):
                    yield seen, label, [self._select(tx, seen, row, window, after) for row in together]

    def _follow(self, tx: Transaction, set_id: int) -> _Times:
        """The blocks of a set as of this transaction."""
        times = self._times.setdefault(set_id, _Times(drop=tx.blocks.last_drop(set_id)))
        new = tx.blocks.of_set(set_id, after_id=times.newest)
        for row, block in zip(new, self._shelf.get_all(tx, new, [EXISTENCE]), strict=True):
            changed = decode(block, ["changed_at"]).ints("changed_at")
            times.blocks[block_id(row)] = row, int(changed.min()), int(changed.max())
            times.newest = block_id(row)
        for drop, number in tx.blocks.dropped(set_id, times.drop):
            times.blocks.pop(number, None)
            times.drop = drop
        return times

    def _select(self, tx: Transaction, seen: Seen, row: BlockRow, window: Window, after: int) -> Found:
        """The rows of a block that belong to the window, those after a `seq`."""
        rows = self._read(tx, row, "told")
        with self._shelf.index(tx, seen.id) as index:
            live = index.live_rows(block_id(row))
        shown, label = seen.shown, row.label
        changed = rows.ints("changed_at") + constant(1, rows.n)
        inside = rows.ints("seq") > after
        # 1. In view now, and what went out of view with its label.
        times, mine, deleted = changed, unmarked(rows.n), unmarked(rows.n)
        span = shown.last(label)
        if span is not None and span.is_open:
            mine, times = live, changed.clip(min=span.from_at)
        elif span is not None:
            mine = deleted = live & (rows.ints("seq") <= span.until_seq)
            times = changed.clip(min=span.until_at)
        chosen_rows = inside & mine & _within(times, window)
        # 2. What was in view until its entry was withdrawn, or moved to a label that is out of view.
        at = chosen(inside & ~mine & _within(changed, window))
        gone = at[self._went(tx, seen, label, rows.take(at))] if len(at) else at
        marked = unmarked(rows.n)
        marked[gone] = True
        where = chosen(chosen_rows | marked)
        final = changed.copy()
        final[chosen(chosen_rows)] = times[chosen(chosen_rows)]
        return Found(row, rows, where, final[where], (deleted | marked)[where])

    def _went(self, tx: Transaction, seen: Seen, label: int, rows: Rows) -> Mask:
        """Which of these changes took an entry out of view: it was there before, and is not now."""
        was = _was_in_view(seen.shown, label, rows) & ~_came_into_view(seen.shown, label, rows)
        if not was.any():
            return was
        with self._shelf.index(tx, seen.id) as index:
            located = index.locate(rows.ints("entry_id"))
        blocks = self._times[seen.id].blocks
        for number, where in grouped(located.block_no.astype("uint64")):
            if number and seen.shown.open(blocks[number][0].label) is not None:
                was[where] &= ~located.found[where]
        return was

    def _items(self, tx: Transaction, seen: Seen, label: int, found: Found) -> Iterator[Item]:
        """The items of these rows, with the digests that the partner may see."""
        if not len(found.at):
            return
        rows = found.rows.take(found.at)
        shown = seen.sight.view.labels.get(label)
        groups = [] if shown is None else [GROUP_CODES[group] for group in _DIGEST_GROUPS if group in shown.groups]
        category = "" if shown is None else seen.sight.labels[label][1].category
        digests: dict[str, list[bytes]] = {}
        if not found.deleted.all():
            for code in groups:
                held = self._read(tx, found.block, code).take(found.at)
                digests.update({name: _octets(held, name) for name in DIGESTS if name in held.columns})
            for name in digests.keys() & largevalues.ALGORITHMS:
                there = largevalues.known(self._node, tx, seen.id, digests[name])
                digests[name] = [raw if known else b"" for raw, known in zip(digests[name], there, strict=True)]
        told = zip(
            rows.ints("entry_id").tolist(),
            found.times.tolist(),
            rows.text("media_type").to_list(),
            rows.ints("version").tolist(),
            found.deleted.tolist(),
            strict=True,
        )
        for at, (entry_id, time, media_type, version, is_deleted) in enumerate(told):
            if is_deleted:
                yield Item(seen.id, entry_id, time, media_type, True)
            else:
                values = {name: held[at] for name, held in digests.items() if held[at]}
                yield Item(seen.id, entry_id, time, media_type, False, category, values, version)

    def _read(self, tx: Transaction, row: BlockRow, what: int | str) -> Rows:
        """What selects the rows of a block ("told"), or the digests of one field group; kept for the next page."""
        key = block_id(row), what
        kept = self._kept.get(key)
        if kept is None:
            parts = [EXISTENCE, LOCAL_GROUP] if isinstance(what, str) else [what]
            names = _TOLD if isinstance(what, str) else [name for name in DIGESTS if registered(name).group == what]
            kept = decode(self._shelf.get(tx, row, parts), names)
            self._kept[key] = kept
            while sum(one.n for one in self._kept.values()) > MAX_KEPT_ROWS and len(self._kept) > 1:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return kept

    def fingerprint(self, tx: Transaction, seen: Seen, entry_id: int, algorithm: str) -> tuple[int, bytes] | None:
        """The version of an entry and its digest, where the partner may see the entry with this digest; else None."""
        with self._shelf.index(tx, seen.id) as index:
            located = index.locate(integers([entry_id]))
        row = tx.blocks.get(int(located.block_no[0])) if located.found[0] else None
        shown = None if row is None else seen.sight.view.labels.get(row.label)
        column = registered(algorithm)
        if row is None or shown is None or column.group not in [GROUP_CODES[group] for group in shown.groups]:
            return None
        held = decode(self._shelf.get(tx, row, [EXISTENCE, column.group]), ["version", algorithm])
        if algorithm not in held.columns:
            return None
        at = located.row[0]
        return int(held.ints("version")[at]), held.octets(algorithm)[at].tobytes()


def _may_have(shown: Shown, label: int, first: int, last: int, window: Window) -> bool:
    """Whether a block of a label, whose rows changed between two times, may have anything of a window."""
    span = shown.last(label)
    at_least = 0 if span is None else span.from_at if span.is_open else span.until_at
    return any(max(last + 1, least) > window.after and max(first + 1, least) <= window.until for least in {0, at_least})


def _within(times: Ints, window: Window) -> Mask:
    inside: Mask = (times > window.after) & (times <= window.until)
    return inside


def _was_in_view(shown: Shown, label: int, rows: Rows) -> Mask:
    """Of which of these changes the entry was in view before."""
    seq, prev_seq, prev_label = rows.ints("seq"), rows.ints("prev_seq"), rows.ints("prev_label").copy()
    # A withdrawal stands under the label that its entry had, whatever is still known of before.
    prev_label[(rows.ints("kind") == ChangeKind.WITHDRAW) & (prev_label == 0)] = label
    was = unmarked(rows.n)
    for number, where in grouped(prev_label):
        for span in shown.spans.get(number, ()):
            seen = seq[where] > span.from_seq
            was[where] |= seen if span.is_open else seen & (prev_seq[where] <= span.until_seq)
    return was


def _came_into_view(shown: Shown, label: int, rows: Rows) -> Mask:
    """Which of these changes brought an entry into view when they came: a later one took it out again."""
    seq, came = rows.ints("seq"), unmarked(rows.n)
    for span in shown.spans.get(label, ()):
        came |= (seq >= span.from_seq) & ((seq <= span.until_seq) | span.is_open)
    asserted: Mask = came & (rows.ints("kind") == ChangeKind.ASSERT)
    return asserted


def _overlapping(rows: Iterable[BlockRow]) -> Iterator[list[BlockRow]]:
    """Blocks of one label in groups, so that each group begins after all before it have ended."""
    group: list[BlockRow] = []
    end = 0
    for row in sorted(rows, key=lambda row: (row.first_seq, row.last_seq)):
        if group and row.first_seq > end:
            yield group
            group = []
        group.append(row)
        end = max(end, row.last_seq)
    if group:
        yield group


def _least(values: Ints, count: int) -> int:
    """The value up to which there are `count`, or all of them."""
    ordered = values[values.argsort()]
    return int(ordered[min(count, len(ordered)) - 1])


def _octets(rows: Rows, name: str) -> list[bytes]:
    return [one.tobytes() for one in rows.octets(name)]
