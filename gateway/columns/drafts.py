"""Entries on their way into an own set, as columns: what adapters make of a file, thousands of rows at a time.

An object a row costs more than all that an import does with it. So a **batch of drafts** holds columns: for each set
of digests that rows may have (their shape) one group of rows. What a row says of its label is a number, since thousands
of rows share a few dozen such words. `EntryDraft` is the same for one row, for people and for tests:

    DraftBatch.of(drafts).drafts() == drafts

Rules:
- Each row of a batch is in one group; `places` tells where in the batch it stood.
- Groups differ in shape; their rows have digests, texts, `seen` and `pdq_quality`, and nothing that a set gives them.
- No two words of a batch are the same.
- An entry is known again by its reference, else by its strongest digest. Of rows that speak of one the last counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import cast

import numpy as np

from gateway.columns.rows import ColumnKind, Index, Ints, Mask, Rows, Text, Values, concat, registered
from gateway.model import STRONGEST_FIRST, EntryDraft, LabelWords

MAX_DRAFTS = 131_072  # what one commit takes: half a second of work to repeat after a crash, some 90 MB of memory
TEXTS = ("source_ref", "media_type", "series", "victim_ref")
INTS = ("pdq_quality", "seen")
_WORDS = attrgetter(*LabelWords._fields)


@dataclass(frozen=True, slots=True, eq=False)
class DraftRows:
    """Drafts of one shape: their columns, where each stood in the batch (ascending), and the number of its words."""

    rows: Rows
    places: Index
    words: Index

    def take(self, where: Mask | Index) -> DraftRows:
        """Some of the rows."""
        return DraftRows(self.rows.take(where), self.places[where], self.words[where])


@dataclass(frozen=True, slots=True, eq=False)
class DraftBatch:
    """Drafts by the column. Make it with `of` from objects, with `alike` from columns, with `joined` from batches."""

    groups: tuple[DraftRows, ...]
    words: tuple[LabelWords, ...]

    @property
    def n(self) -> int:
        """How many drafts."""
        return sum(group.rows.n for group in self.groups)

    @classmethod
    def of(cls, drafts: Sequence[EntryDraft]) -> DraftBatch:
        """The batch of these drafts. MalformedError: a digest of another width, or a text with a lone surrogate."""
        numbers: dict[tuple[object, ...], int] = {}
        words = np.array([numbers.setdefault(stated, len(numbers)) for stated in map(_WORDS, drafts)], np.int64)
        by_order: dict[tuple[str, ...], list[int]] = {}
        for place, draft in enumerate(drafts):
            by_order.setdefault(tuple(draft.digests), []).append(place)
        by_names: dict[frozenset[str], list[int]] = {}
        for names, members in by_order.items():
            by_names.setdefault(frozenset(names), []).extend(members)
        groups = []
        for members in map(sorted, by_names.values()):
            places = np.array(members, np.int64)
            groups.append(DraftRows(_columns([drafts[place] for place in members]), places, words[places]))
        return cls(tuple(groups), tuple(map(LabelWords._make, numbers)))

    @classmethod
    def alike(
        cls,
        n: int,
        columns: Mapping[str, bytes | Sequence[bytes] | Sequence[str] | Sequence[int]],
        words: Sequence[LabelWords],
        stated: Sequence[int],
    ) -> DraftBatch:
        """The batch of n drafts that have the same digests.

        Args:
            columns: lists; or bytes, the octets of a digest column row after row. Digests are bytes, also such of text.
            words, stated: what drafts say of their labels, and the number of what each of them says.
        """
        made: dict[str, Values] = {}
        for name, values in columns.items():
            if isinstance(values, bytes):
                made[name] = np.frombuffer(values, np.uint8).reshape(n, -1)
            elif registered(name).kind is ColumnKind.TEXT and isinstance(values[0], bytes):
                made[name] = Text.of_encoded(cast(Sequence[bytes], values))  # all of one kind
            else:
                made[name] = values
        group = DraftRows(Rows.of(n, made), np.arange(n), np.array(stated, np.int64))
        return cls((group,), tuple(words))

    @classmethod
    def joined(cls, batches: Sequence[DraftBatch]) -> DraftBatch:
        """These batches as one, in their order."""
        if len(batches) == 1:
            return batches[0]
        ends = np.cumsum([batch.n for batch in batches]).tolist()
        return cls._assembled(
            [(batch, np.arange(end - batch.n, end)) for batch, end in zip(batches, ends, strict=True)]
        )

    @classmethod
    def merged(cls, parts: Sequence[tuple[DraftBatch, Index]]) -> DraftBatch:
        """These batches as one.

        Args:
            parts: each batch with a number for each of its rows; the rows stand in the order of their numbers.
        """
        if len(parts) == 1:
            return parts[0][0]
        order = np.sort(np.concatenate([where for _, where in parts])) if parts else np.zeros(0, np.int64)
        return cls._assembled([(batch, np.searchsorted(order, where)) for batch, where in parts])

    @classmethod
    def _assembled(cls, parts: Sequence[tuple[DraftBatch, Index]]) -> DraftBatch:
        """These batches as one, each with the new place of each of its rows."""
        numbers: dict[LabelWords, int] = {}
        by_shape: dict[int, list[DraftRows]] = {}
        for batch, places in parts:
            renumbered = np.array([numbers.setdefault(words, len(numbers)) for words in batch.words], np.int64)
            for group in batch.groups:
                moved = DraftRows(group.rows, places.take(group.places), renumbered.take(group.words))
                by_shape.setdefault(group.rows.shape, []).append(moved)
        return cls(tuple(_one_group(alike) for alike in by_shape.values()), tuple(numbers))

    def part(self, start: int, stop: int) -> DraftBatch:
        """Drafts `start` … `stop` - 1."""
        if (start, stop) == (0, self.n):
            return self
        groups = []
        for group in self.groups:
            first, last = np.searchsorted(group.places, (start, stop)).tolist()
            if first < last:
                some = slice(first, last)
                groups.append(DraftRows(group.rows.slice(first, last), group.places[some] - start, group.words[some]))
        return DraftBatch(tuple(groups), self.words)

    def words_used(self) -> Index:
        """The numbers of the words that a row has, ascending."""
        counts = [np.bincount(group.words, minlength=len(self.words)) for group in self.groups]
        return np.flatnonzero(np.sum(counts, axis=0)) if counts else np.zeros(0, np.int64)

    def last_of_each(self) -> DraftBatch:
        """Without rows that speak of the same entry as a later row."""
        stale = [np.zeros(group.rows.n, np.bool_) for group in self.groups]
        by_kind: dict[object, list[_Naming]] = {}
        for number, group in enumerate(self.groups):
            for name, where in known_by(group.rows):
                # Texts alone are compared as a whole, so those of two shapes never name the same.
                by_kind.setdefault(name or group.rows.shape, []).append(_Naming(self, number, name, where))
        for namings in by_kind.values():
            for number, row in _stale(namings):
                stale[number][row] = True
        if not any(mask.any() for mask in stale):
            return self
        kept = [group.take(~mask) for group, mask in zip(self.groups, stale, strict=True)]
        return DraftBatch(tuple(group for group in kept if group.rows.n), self.words)

    def drafts(self) -> list[EntryDraft]:
        """The drafts as objects, in their order. For few rows, or for people."""
        placed: list[tuple[int, EntryDraft]] = []
        for group in self.groups:
            rows = group.rows
            names = [name for name in rows.columns if registered(name).is_digest]
            digests = [_encoded(rows, name) for name in names]
            more = {name: rows.values(name) for name in (*TEXTS, *INTS) if name in rows.columns}
            for at, (place, number) in enumerate(zip(group.places.tolist(), group.words.tolist(), strict=True)):
                own = {name: column[at] for name, column in zip(names, digests, strict=True)}
                stated = {name: values[at] for name, values in more.items()}
                draft = EntryDraft(own, **self.words[number]._asdict(), **stated)  # type: ignore[arg-type]  # by name
                placed.append((place, draft))
        return [draft for _, draft in sorted(placed, key=lambda one: one[0])]


def _one_group(alike: Sequence[DraftRows]) -> DraftRows:
    """Groups of one shape as one, by place."""
    if len(alike) == 1:
        return alike[0]
    whole = DraftRows(
        concat([one.rows for one in alike]),
        np.concatenate([one.places for one in alike]),
        np.concatenate([one.words for one in alike]),
    )
    ascends = bool((whole.places[1:] > whole.places[:-1]).all())
    return whole if ascends else whole.take(np.argsort(whole.places))


def known_by(rows: Rows) -> list[tuple[str, Index]]:
    """By what these rows of one shape are known again, and which of them; "" stands for all their texts together."""
    sourced = rows.text("source_ref").lengths > 0
    both = (("source_ref", np.flatnonzero(sourced)), (strongest_digest(rows), np.flatnonzero(~sourced)))
    return [(name, where) for name, where in both if len(where)]


def strongest_digest(rows: Rows) -> str:
    """The strongest digest of these rows of one shape; "" where they have none but texts."""
    return next((name for name in STRONGEST_FIRST if name in rows.columns), "")


@dataclass(frozen=True, slots=True, eq=False)
class _Naming:
    """Rows of one group of a batch, which one column names ("": all their texts together)."""

    batch: DraftBatch
    group: int
    name: str
    where: Index

    @property
    def places(self) -> Index:
        """Where they stood in the batch."""
        return self.batch.groups[self.group].places.take(self.where)

    def values(self, which: Index) -> list[tuple[bytes, ...]]:
        """What names some of them."""
        rows = self.batch.groups[self.group].rows.take(self.where.take(which))
        names = [self.name] if self.name else [name for name in rows.columns if registered(name).is_digest]
        columns = [_encoded(rows, name) for name in names]
        return list(zip(*columns, strict=True)) if columns else [()] * rows.n

    def hashes(self) -> Ints:
        """64 bits that are equal where what names the rows is equal."""
        if self.name and registered(self.name).kind is ColumnKind.BYTES:
            octets = self.batch.groups[self.group].rows.octets(self.name)
            return np.ascontiguousarray(octets[:, :8]).view(np.uint64).reshape(-1).take(self.where)
        every = np.arange(len(self.where))
        return np.fromiter(map(hash, self.values(every)), np.int64, len(every)).view(np.uint64)


def _stale(namings: Sequence[_Naming]) -> Iterator[tuple[int, int]]:
    """(group, row) of every row that a later one replaces."""
    hashes = [naming.hashes() for naming in namings]
    ordered = np.sort(np.concatenate(hashes))
    shared = ordered[1:][ordered[1:] == ordered[:-1]]
    if not len(shared):
        return
    last: dict[tuple[bytes, ...], tuple[int, int, int]] = {}  # place in the batch, group, row
    for naming, mine in zip(namings, hashes, strict=True):
        some = np.flatnonzero(np.isin(mine, shared))
        places, rows = naming.places.take(some).tolist(), naming.where.take(some).tolist()
        for value, place, row in zip(naming.values(some), places, rows, strict=True):
            older, newer = sorted((last.get(value, (-1, 0, 0)), (place, naming.group, row)))
            last[value] = newer
            if older[0] >= 0:
                yield older[1:]


def in_batches(stream: Iterable[EntryDraft | DraftBatch], *, most: int = MAX_DRAFTS) -> Iterator[DraftBatch]:
    """The stream as batches of `most` drafts, the last of fewer. Batches in it are joined and cut."""
    gathered: list[DraftBatch] = []
    held = 0
    for batch in _batched(stream, most):
        start = 0
        while held + batch.n - start >= most:
            stop = start + most - held
            yield DraftBatch.joined([*gathered, batch.part(start, stop)])
            gathered, held, start = [], 0, stop
        if start < batch.n:
            gathered.append(batch.part(start, batch.n))
            held += batch.n - start
    if held:
        yield DraftBatch.joined(gathered)


def _batched(stream: Iterable[EntryDraft | DraftBatch], most: int) -> Iterator[DraftBatch]:
    """The stream with its objects gathered, at most `most` of them at a time."""
    objects: list[EntryDraft] = []
    for one in stream:
        if not isinstance(one, DraftBatch):
            objects.append(one)
        if objects and (isinstance(one, DraftBatch) or len(objects) == most):
            yield DraftBatch.of(objects)
            objects = []
        if isinstance(one, DraftBatch):
            yield one
    if objects:
        yield DraftBatch.of(objects)


def _columns(drafts: Sequence[EntryDraft]) -> Rows:
    """Drafts of one shape as columns; a column that nobody fills is left out."""
    columns: dict[str, list[bytes] | list[str] | list[int]] = {}
    for name in drafts[0].digests:
        values = [draft.digests[name] for draft in drafts]
        columns[name] = [value.decode() for value in values] if registered(name).kind is ColumnKind.TEXT else values
    for name in (*TEXTS, *INTS):
        found = list(map(attrgetter(name), drafts))
        if any(found):
            columns[name] = found
    return Rows.of(len(drafts), columns)


def _encoded(rows: Rows, name: str) -> list[bytes]:
    """A digest column as drafts hold it."""
    return rows.text(name).encoded() if registered(name).kind is ColumnKind.TEXT else [*map(bytes, rows.octets(name))]
