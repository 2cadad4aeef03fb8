"""Entries on their way into an own set, as columns: what adapters make of a file, thousands of rows at a time.

An object a row costs more than all that an import does with it. So a **batch of drafts** holds columns: for each set
of digests that rows may have (their shape) one group of rows. What a row says of its label is a number, since thousands
of rows share a few dozen such words. `EntryDraft` is the same for one row, for people and for tests:

    DraftBatch.of(drafts).drafts() == drafts

Rules:
- A batch has at most `MAX_DRAFTS` rows, each in exactly one group. `places` tells where in the batch a row stood.
- Groups differ in shape; their rows have digests, texts, `seen` and `pdq_quality`, and nothing that a set gives them.
- No two words of a batch are the same.
- An entry is known again by its reference, else by its strongest digest. Of rows that speak of one the last counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter

import numpy as np

from gateway.columns.rows import ColumnKind, Index, Ints, Mask, Rows, concat, registered
from gateway.model import STRONGEST_FIRST, EntryDraft, LabelWords

MAX_DRAFTS = 65_536  # one block at most, and a second of work at most to repeat after a crash
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
    """Drafts by the column. Make it with `of` from objects, with `joined` from batches."""

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
    def joined(cls, batches: Sequence[DraftBatch]) -> DraftBatch:
        """These batches as one, in their order."""
        if len(batches) == 1:
            return batches[0]
        numbers: dict[LabelWords, int] = {}
        by_shape: dict[int, list[DraftRows]] = {}
        start = 0
        for batch in batches:
            renumbered = np.array([numbers.setdefault(words, len(numbers)) for words in batch.words], np.int64)
            for group in batch.groups:
                moved = DraftRows(group.rows, group.places + start, renumbered.take(group.words))
                by_shape.setdefault(group.rows.shape, []).append(moved)
            start += batch.n
        groups = (
            DraftRows(
                concat([one.rows for one in alike]),
                np.concatenate([one.places for one in alike]),
                np.concatenate([one.words for one in alike]),
            )
            for alike in by_shape.values()
        )
        return cls(tuple(groups), tuple(numbers))

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
    """The stream as batches of at most `most` drafts. Batches in it are joined, never cut."""
    gathered: list[DraftBatch] = []
    objects: list[EntryDraft] = []
    held = 0
    for one in stream:
        arriving = one.n if isinstance(one, DraftBatch) else 1
        if held + arriving > most and held:
            yield _gathered(gathered, objects)
            gathered, objects, held = [], [], 0
        if not isinstance(one, DraftBatch):
            objects.append(one)
        else:
            gathered += [DraftBatch.of(objects), one] if objects else [one]
            objects = []
        held += arriving
    if held:
        yield _gathered(gathered, objects)


def _gathered(batches: Sequence[DraftBatch], objects: Sequence[EntryDraft]) -> DraftBatch:
    return DraftBatch.joined([*batches, DraftBatch.of(objects)] if objects else batches)


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
