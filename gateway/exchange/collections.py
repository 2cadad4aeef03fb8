"""What a TAXII client gets of our own sets: collections, and pages of STIX objects in the order of their coming.

A TAXII client asks a collection for what was added after a time, and keeps of each object the newest version. So each
set that a partner may see over TLS alone is a collection; each entry is one object (`adapters.stixout`), at the time at
which it got into its present state for this partner:

    in view now                        the entry, at its last change, or when its label came into view
    was in view, and is not any more   the same object, revoked
    never was in view                  nothing, not even that it exists

Rules:

1. Who may see what is `admission`'s matter, and which changes belong to that `windows`': a change is published in the
   second after it was made, so that of a second that a client has seen nothing is added any more. For that the moment
   of a page must be one at which nobody was writing: so a page is read first, and holds where the set is still the same
   once whoever was writing has ended. It waits for them once, at its end, with its leaf.
2. The order is that of `columns.timeline`; each object has a time of its own, by which a client goes on even in the
   middle of thousands that came in one second. A timeline is kept while nothing in its set changes.
3. A page's end is named by a text that only this gateway makes, for this partner, this collection and these filters:
   nothing is kept of it. Filters that are not repeated beside it are those that it was made with.
4. What leaves is on record before it leaves, one leaf a page. What brings no entry leaves none, and what only looks
   around writes nothing.
5. What a partner may not see answers as what is not there.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from gateway.adapters.stixout import IndicatorWriter, Made
from gateway.adapters.stixwords import parse_stix_time, short_name, stix_id
from gateway.columns.block import decode
from gateway.columns.rows import GROUP_CODES, Index, Rows, constant, counting, grouped, indexes, integers
from gateway.columns.timeline import SECOND, Moments, Names, Timeline
from gateway.crypto import canonical
from gateway.errors import DeniedError, MalformedError, NotFoundError
from gateway.exchange.admission import Admission, Admitted, Seen, Served
from gateway.exchange.labels import shown_attributes
from gateway.exchange.lookup import format_entry
from gateway.exchange.shelf import Shelf, block_id
from gateway.exchange.stretches import Place, Stretch, Stretches, Told
from gateway.exchange.windows import Window, Windows
from gateway.model import TEST_SET_PREFIX, FieldGroup, int_member
from gateway.node import Node
from gateway.partners import active, length_prefixed, may_move
from gateway.store import Transaction
from gateway.store.tables import BlockRow, HashSet

SURFACE = "taxii"
PAGE_OBJECTS = 1_000  # of one answer, about a megabyte
MAX_KEPT_MOMENTS = 2_000_000  # of timelines, some 60 bytes each
MAX_KEPT_ROWS = 131_072  # decoded and kept for the next page of the same blocks: some 15 MB
MAX_NEXT_BYTES = 16 << 10
COMMON_FROM = 1 << 63  # stands for the entry id of what comes with every set; no entry of ours has it
INDICATOR = "indicator"
NOT_OURS = "next does not come from a page of this collection"
_MAC_BYTES = 16
_MAC_LABEL = "place in a collection 1"
_EVER = (1 << 62) - 1


@dataclass(frozen=True, slots=True)
class Filters:
    """Which objects of a collection are asked for. Empty: no filter. `added_after`: in microseconds."""

    added_after: int = 0
    ids: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()
    spec_versions: tuple[str, ...] = ()

    def to_json(self) -> list[object]:
        """As a text of ours carries them."""
        return [self.added_after, *(list(one) for one in (self.ids, self.types, self.versions, self.spec_versions))]

    @classmethod
    def from_json(cls, value: object) -> Filters:
        """What `to_json` wrote, in a text that was found to be ours."""
        if not isinstance(value, list) or not isinstance(value[0], int):
            raise MalformedError(NOT_OURS, place="query, next")
        return cls(value[0], *(tuple(map(str, one)) for one in value[1:]))


Given = Mapping[str, "int | tuple[str, ...]"]


@dataclass(frozen=True, slots=True)
class Query:
    """One request: the filters that it names, how many objects it wants, where the page before ended."""

    given: Given = field(default_factory=dict)
    limit: int = PAGE_OBJECTS
    following: str = ""


@dataclass(frozen=True, slots=True)
class ObjectPage:
    """A page of a collection. `following`: the text by which the next one is asked for, "" after the last.

    `exists`: whether there is any object whose id was asked for, or any at all; whatever the other filters.
    """

    stretch: Stretch
    following: str
    exists: bool


@dataclass(frozen=True, slots=True)
class Body:
    """An answer in pieces, and its SHA-256 in hexadecimal."""

    pieces: tuple[bytes, ...]
    digest: str

    @classmethod
    def of(cls, raw: bytes) -> Body:
        """An answer in one piece."""
        return cls((raw,), hashlib.sha256(raw).hexdigest())


@dataclass(frozen=True, slots=True)
class Collection:
    """One collection as a partner sees it."""

    id: str
    set_name: str
    purpose: str
    can_read: bool
    can_write: bool


@dataclass(frozen=True, slots=True, eq=False)
class _Line:
    """The timeline of a set for one reader, and of which state of the set it is."""

    state: tuple[int, ...]
    common: tuple[Made, ...]
    timeline: Timeline


@dataclass(frozen=True, slots=True, eq=False)
class _Reading:
    """One set as it is read for one reader, within one transaction."""

    tx: Transaction
    seen: Seen
    line: _Line
    writer: IndicatorWriter
    now: int


@dataclass(frozen=True, slots=True)
class _Found:
    """A page, for whom it is, and what the log will say of it; None where it tells of no entry."""

    admitted: Admitted
    page: ObjectPage
    state: tuple[int, ...]
    served: Served | None


class Collections:
    """Serves own sets to TAXII clients."""

    def __init__(self, node: Node, shelf: Shelf, windows: Windows, admission: Admission) -> None:
        self._node = node
        self._shelf = shelf
        self._windows = windows
        self._admission = admission
        self._lines: OrderedDict[tuple[int, str], _Line] = OrderedDict()
        self._names: dict[int, Names] = {}
        self._sets: dict[str, str] = {}
        self._stretches = Stretches()
        self._drops: dict[int, int] = {}
        self._kept: OrderedDict[tuple[int, frozenset[FieldGroup]], Rows] = OrderedDict()

    def listing(self, partner: str) -> list[Collection]:
        """The collections that a partner may read or write."""
        with self._shelf.reading(self._node.store) as tx:
            admitted = self._admission.judged(tx, partner, SURFACE)
            settled = self._admission.is_settled(tx, admitted)
            own = inboxes(self._node, tx, partner)
        if not settled:
            with self._node.store.transaction() as tx:
                admitted = self._admission.admitted(tx, partner, SURFACE)
        found = [_collection(seen) for seen in admitted.sets if _may_read(seen, partner)]
        return found + [_inbox(one) for one in own]

    def collection(self, partner: str, identifier: str) -> Collection:
        """One of them; NotFoundError for every other."""
        found = next((one for one in self.listing(partner) if one.id == identifier), None)
        if found is None:
            raise NotFoundError("no such collection")
        return found

    def page(self, partner: str, identifier: str, query: Query, render: Callable[[ObjectPage], Body]) -> Body:
        """One page of a collection, rendered, and on record before it leaves.

        Args:
            render: makes the answer of it.

        Raises:
            NotFoundError: there is no such collection for the partner.
            DeniedError: it is one to write.
            MalformedError: a filter is none, or `following` does not come from a page of this collection.
        """
        # 1. The page, out of what is committed; nobody who writes is waited for.
        with self._shelf.reading(self._node.store) as tx:
            name = self._set_name(tx, identifier)
            found = self._found(tx, self._admission.judged(tx, partner, SURFACE, name), identifier, query)
        body = render(found.page)
        # 2. One commit: what leaves. A crash before this line sends nothing. Whoever began to write before has ended
        #    now; where the set is as it was read, nothing of before this moment is missing.
        if self._commit(found, body):
            return body
        # 3. Somebody wrote meanwhile: the moment is taken while nobody does, and the page is what was there then.
        with self._node.store.transaction() as tx:
            admitted = self._admission.admitted(tx, partner, SURFACE, name)
        with self._shelf.reading(self._node.store) as tx:
            found = self._found(tx, admitted, identifier, query)
        body = render(found.page)
        if found.served is not None:
            self._admission.record(admitted, SURFACE, found.served, body.digest)
        return body

    def tidy(self) -> None:
        """Drop what is kept of blocks that are gone, and objects that nobody asked for in a while."""
        with self._shelf.reading(self._node.store) as tx:
            for set_id in list(self._drops):
                self._forget(tx, set_id, tx.blocks.last_drop(set_id))
        self._stretches.tidy(self._node.clock())

    def _commit(self, found: _Found, body: Body) -> bool:
        """Put a page on record; False, and nothing is, where what it was read from has changed."""
        admitted, [seen] = found.admitted, found.admitted.sets
        with self._node.store.transaction() as tx:
            is_same = self._admission.check_again(tx, admitted).mac == admitted.card
            is_same = is_same and tx.shown.get(seen.id, admitted.partner, SURFACE) == seen.known
            if not is_same or tx.sets.state(seen.id) != found.state:
                return False
            if found.served is not None or not self._admission.is_settled(tx, admitted):
                self._admission.settle(tx, admitted)
            if found.served is not None:
                tx.log.append([self._admission.page_event(admitted, SURFACE, found.served, body.digest)])
        return True

    def _set_name(self, tx: Transaction, identifier: str) -> str:
        """The name of the set whose collection this is, as far as there is one."""
        if identifier not in self._sets:
            own = [one.name for one in tx.sets.all() if not one.hub]
            self._sets = {of(name): name for name in own for of in (collection_id, inbox_id)}
        if identifier not in self._sets:
            raise NotFoundError("no such collection")
        return self._sets[identifier]

    def _found(self, tx: Transaction, admitted: Admitted, identifier: str, query: Query) -> _Found:
        """The page that is asked for."""
        partner = admitted.partner
        if any(inbox_id(one.hash_set.name) == identifier for one in admitted.sets):
            if any(inbox_id(one.name) == identifier for one in inboxes(self._node, tx, partner)):
                raise DeniedError("the collection is for sending alone")
            raise NotFoundError("no such collection")
        seen = next((one for one in admitted.sets if _may_read(one, partner) and set_id(one) == identifier), None)
        if seen is None:
            raise NotFoundError("no such collection")
        filters, place = self._placed(partner, identifier, query)
        state = tx.sets.state(seen.id)
        reading = _Reading(tx, seen, self._line(tx, seen, state), self._writer(seen), admitted.now)
        timeline = reading.line.timeline
        start = max(timeline.marked_after(filters.added_after), timeline.after(*place))
        until = timeline.until(admitted.now)
        stretch, last = self._objects(reading, filters, (start, until), query.limit)
        exists = bool(stretch.told) or bool(self._objects(reading, Filters(ids=filters.ids), (0, until), 1)[0].told)
        following = "" if last is None else self._following(partner, identifier, filters, last)
        entries = [one for one in stretch.told if one.is_entry]
        gone = sum(one.is_gone for one in entries)
        after = filters.added_after // SECOND
        served = Served([seen.hash_set.name], after, admitted.now, start + 1, len(entries) - gone, gone)
        return _Found(admitted, ObjectPage(stretch, following, exists), state, served if entries else None)

    # Where a page begins and ends

    def _placed(self, partner: str, identifier: str, query: Query) -> tuple[Filters, tuple[int, int]]:
        """The filters of a request, and the time and `seq` of the last object before its page."""
        if not query.following:
            return replace(Filters(), **query.given), (0, 0)  # type: ignore[arg-type]  # its names and kinds are `Filters`'
        try:
            payload, _, mac = query.following.partition(".")
            raw = base64.b64decode(payload.encode("ascii"), altchars=b"-_", validate=True)
            is_ours = hmac.compare_digest(self._mac(partner, identifier, payload).encode(), mac.encode())
        except ValueError as error:
            raise MalformedError(NOT_OURS, place="query, next") from error
        if not is_ours:
            raise MalformedError(NOT_OURS, place="query, next")
        value = canonical.parse_canonical(raw, max_bytes=MAX_NEXT_BYTES)
        assert isinstance(value, dict), "its MAC is ours"
        members: dict[str, object] = dict(value)
        made_with = Filters.from_json(members["filters"])
        time, seq = int_member(members, "time"), int_member(members, "seq")
        for name, given in query.given.items():
            if getattr(made_with, name) != given:
                raise MalformedError("a filter is another than that of the page before", place=f"query, {name}")
        return made_with, (time, seq)

    def _following(self, partner: str, identifier: str, filters: Filters, last: tuple[int, int]) -> str:
        raw = canonical.encode({"filters": filters.to_json(), "time": last[0], "seq": last[1]})
        payload = base64.urlsafe_b64encode(raw).decode()
        return f"{payload}.{self._mac(partner, identifier, payload)}"

    def _mac(self, partner: str, identifier: str, payload: str) -> str:
        told = length_prefixed(_MAC_LABEL, partner, identifier, payload)
        return self._node.keystore.row_mac(told)[:_MAC_BYTES].hex()

    # The order

    def _line(self, tx: Transaction, seen: Seen, state: tuple[int, ...]) -> _Line:
        """The set's timeline for all who were shown the same of it."""
        self._forget(tx, seen.id, state[-1])
        key = seen.id, f"{seen.sight.view.digest} {seen.spans}"
        kept = self._lines.get(key)
        if kept is None or kept.state != state:
            common = tuple(self._writer(seen).common(self._node.settings.jurisdiction))
            pieces = [_common_moments(seen, len(common)), *self._moments(tx, seen)]
            kept = self._lines[key] = _Line(state, common, Timeline.of(pieces))
            while sum(len(line.timeline) for line in self._lines.values()) > MAX_KEPT_MOMENTS and len(self._lines) > 1:
                self._lines.popitem(last=False)
        self._lines.move_to_end(key)
        return kept

    def _forget(self, tx: Transaction, set_id: int, last: int) -> None:
        """Drop what was read from blocks that are gone since somebody last looked.

        Args:
            last: the newest drop of the set.
        """
        known = self._drops.get(set_id, last)
        if last > known:
            gone = {number for _, number in tx.blocks.dropped(set_id, known)}
            self._stretches.forget(set_id, gone)
            for key in [key for key in self._kept if key[0] in gone]:
                del self._kept[key]
        self._drops[set_id] = max(known, last)

    def _moments(self, tx: Transaction, seen: Seen) -> list[Moments]:
        found = []
        for _, _, some in self._windows.groups(tx, (seen,), Window(0, _EVER)):
            for one in some:
                rows = one.rows.take(one.at)
                ints = rows.ints
                blocks = constant(block_id(one.block), rows.n)
                blocks[one.deleted] = 0  # of what is gone nothing is read any more
                found.append(Moments(one.times, ints("seq"), ints("entry_id"), ints("version"), blocks, one.at))
        return found

    def _writer(self, seen: Seen) -> IndicatorWriter:
        return IndicatorWriter(seen.hash_set.name, max(seen.hash_set.created, 1))

    # The objects

    def _objects(
        self, reading: _Reading, filters: Filters, span: tuple[int, int], limit: int
    ) -> tuple[Stretch, tuple[int, int] | None]:
        """The objects of a page, and where it ended if there are more.

        Args:
            span: its first place in the timeline, and the first that is not to be told yet.
        """
        timeline = reading.line.timeline
        chosen, more = timeline.select(*span, min(limit, PAGE_OBJECTS), self._among(reading, filters))
        last = timeline.moments.take(chosen[-1:])
        following = (int(last.times[0]), int(last.seqs[0])) if more else None
        if not filters.ids:
            return self._kept_or_told(reading, chosen), following
        # A name is found by its first octets: the rest is compared here.
        pairs = [(one, made) for one, made in self._told(reading, chosen) if one.id in filters.ids]
        return Stretch.of(pairs), following

    def _among(self, reading: _Reading, filters: Filters) -> list[Index]:
        """Choices of places, one for each filter."""
        timeline, common = reading.line.timeline, reading.line.common
        among: list[Index] = []
        if filters.spec_versions and "2.1" not in filters.spec_versions:
            return [indexes([])]
        if filters.types:
            kept = [at for at, one in enumerate(common) if one.id.partition("--")[0] in filters.types]
            among.append(timeline.but_first(len(common), kept) if INDICATOR in filters.types else indexes(kept))
        if filters.ids:
            kept = [at for at, one in enumerate(common) if one.id in filters.ids]
            wanted = [int(short, 16) for one in filters.ids if (short := short_name(one))]
            named = timeline.of_entries(self._named(reading).find(wanted)) if wanted else indexes([])
            among.append(indexes(sorted({*kept, *named.tolist()})))
        if filters.versions and not {"all", "first", "last"} & set(filters.versions):
            kept = [at for at, one in enumerate(common) if one.version in filters.versions]
            for version in filters.versions:
                kept += _of_version(timeline, version)
            among.append(indexes(sorted(set(kept))))
        return among

    def _named(self, reading: _Reading) -> Names:
        """The names of the set's objects, made when somebody asks for one, and kept."""
        names, writer = self._names.setdefault(reading.seen.id, Names()), reading.writer
        new = names.unknown(reading.line.timeline.moments.entries)
        if len(new):
            made = [short_name(writer.id(format_entry(entry))) for entry in new.tolist()]
            names.add(new, [int(short, 16) for short in made])
        return names

    def _kept_or_told(self, reading: _Reading, chosen: Index) -> Stretch:
        """The objects at these places; made once for all who may see the same of the set."""
        timeline = reading.line.timeline
        place = Place(reading.seen.id, reading.seen.sight.view.digest, timeline.digest(chosen))
        kept = self._stretches.get(place, reading.now)
        if kept is None:
            kept = Stretch.of(self._told(reading, chosen))
            self._stretches.keep(place, kept, set(timeline.moments.blocks[chosen].tolist()), reading.now)
        return kept

    def _told(self, reading: _Reading, chosen: Index) -> list[tuple[Told, bytes]]:
        """The objects at these places, in their order."""
        line = reading.line
        moments, marks = line.timeline.moments.take(chosen), line.timeline.marks[chosen].tolist()
        entries = moments.entries.tolist()
        found: dict[int, tuple[Told, bytes]] = {}
        for number, where in grouped(moments.blocks):
            for at, made in zip(where.tolist(), self._made(reading, number, moments.take(where)), strict=True):
                is_entry = entries[at] < COMMON_FROM
                told = Told(made.id, made.version, marks[at], is_entry, is_entry and not number)
                found[at] = told, made.raw
        return [found[at] for at in sorted(found)]

    def _made(self, reading: _Reading, number: int, moments: Moments) -> Sequence[Made]:
        """The objects of these moments, all of one block; block 0 stands for what is gone, and for what is common."""
        writer, entries, times = reading.writer, moments.entries.tolist(), moments.times.tolist()
        if not number:
            told = zip(entries, moments.versions.tolist(), times, strict=True)
            return [
                reading.line.common[entry - COMMON_FROM]
                if entry >= COMMON_FROM
                else writer.revoked(format_entry(entry), version, time)
                for entry, version, time in told
            ]
        row, seen = next(iter(reading.tx.blocks.some([number]).values())), reading.seen
        rows = self._rows(reading.tx, seen, row).take(moments.rows)
        shown = seen.sight.view.labels[row.label]
        label = shown_attributes(seen.sight.labels[row.label][1], shown.groups)
        return writer.indicators(rows, label, shown.obligations, entries=list(map(format_entry, entries)), at=times)

    def _rows(self, tx: Transaction, seen: Seen, row: BlockRow) -> Rows:
        """A block's rows with the parts that the partner may see; kept for the next page."""
        groups = seen.sight.view.labels[row.label].groups
        key = block_id(row), groups
        kept = self._kept.get(key)
        if kept is None:
            block = self._shelf.get(tx, row, [GROUP_CODES[group] for group in groups if group in GROUP_CODES])
            kept = self._kept[key] = decode(block.project(groups))
            while sum(one.n for one in self._kept.values()) > MAX_KEPT_ROWS and len(self._kept) > 1:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return kept


def set_id(seen: Seen) -> str:
    """The id of the collection of a set."""
    return collection_id(seen.hash_set.name)


def collection_id(set_name: str) -> str:
    """The same by the set's name."""
    return stix_id("collection", set_name).partition("--")[2]


def inbox_id(set_name: str) -> str:
    """The id of the collection through which a partner sends what goes into a set."""
    return stix_id("collection", "in", set_name).partition("--")[2]


def is_inbox(set_name: str, partner: str) -> bool:
    """Whether an own set is for what a partner sends."""
    return set_name.partition("/")[2] in (f"from-{partner.lower()}", f"test-from-{partner.lower()}")


def inboxes(node: Node, tx: Transaction, partner: str) -> list[HashSet]:
    """The own sets that are for what a partner sends, as far as its test goes. Raises as `active`."""
    row = active(node, tx, partner)
    names = [f"{node.agency}/{prefix}from-{partner.lower()}" for prefix in ("", TEST_SET_PREFIX)]
    own = [one for name in names if (one := tx.sets.find(name)) is not None and not one.hub]
    return [one for one in own if may_move(node, row, one.name)]


def _may_read(seen: Seen, partner: str) -> bool:
    """Whether a partner knows that a set exists, or knew it: then it is told what went. Nobody is told its own."""
    return any(seen.shown.spans.values()) and not is_inbox(seen.hash_set.name, partner)


def _collection(seen: Seen) -> Collection:
    name = seen.hash_set.name
    return Collection(collection_id(name), name, seen.hash_set.purpose, can_read=True, can_write=False)


def _inbox(one: HashSet) -> Collection:
    return Collection(inbox_id(one.name), one.name, one.purpose, can_read=False, can_write=True)


def _common_moments(seen: Seen, n: int) -> Moments:
    """What comes with every set, at its beginning."""
    created = max(seen.hash_set.created, 1)
    entries = integers([COMMON_FROM + at for at in range(n)])
    nothing = constant(0, n)
    return Moments(constant(created, n), counting(1, n), entries, nothing, nothing, indexes(range(n)))


def _of_version(timeline: Timeline, version: str) -> list[int]:
    """The places of objects whose `modified` is exactly this."""
    milliseconds = parse_stix_time(version)
    places: list[int] = [] if milliseconds is None else timeline.of_version(*divmod(milliseconds, 1000)).tolist()
    return places
