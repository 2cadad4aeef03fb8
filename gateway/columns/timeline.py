"""The order in which a reader meets the entries of a set, who asks for what was added after a time.

A **moment** is one entry as it is for the reader: when it got into its present state (Unix seconds), the `seq` of the
change that did it, and where its row lies. Moments are ordered by time, then by `seq`.

Many thousands may have one second. So each has a time of its own in microseconds, its **mark**, which grows along the
order: the second, and in the microseconds the last six digits of the `seq`. It does not change while others come and
go. Only where the changes of one second reach over a multiple of a million do marks run on into the seconds after.

    times 7, 7, 8    seqs 999_999, 1_000_000, 1_000_001    marks 7.999999, 8.000000, 8.000001

Where an entry has several moments the last one counts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gateway.columns.rows import Index, Ints

SECOND = 1_000_000  # microseconds


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Some moments by the column. `blocks` and `rows`: where each row lies; block 0: nowhere."""

    times: Ints
    seqs: Ints
    entries: Ints
    versions: Ints
    blocks: Ints
    rows: Index

    def take(self, where: Index) -> Moments:
        """Those at these places."""
        return Moments(
            self.times[where],
            self.seqs[where],
            self.entries[where],
            self.versions[where],
            self.blocks[where],
            self.rows[where],
        )


@dataclass(frozen=True, slots=True, eq=False)
class Timeline:
    """All moments of a set for one reader, in order, with their marks."""

    moments: Moments
    marks: Ints

    @classmethod
    def of(cls, pieces: Sequence[Moments]) -> Timeline:
        """The timeline of these moments."""
        joined = Moments(
            *(_joined([getattr(piece, name) for piece in pieces], kind) for name, kind in _COLUMNS.items())
        )
        order = np.lexsort((joined.seqs, joined.times)).astype(np.int64)
        ordered = joined.take(order)
        ordered = ordered.take(_last_of_each(ordered.entries))
        return cls(ordered, _marks(ordered.times, ordered.seqs))

    def __len__(self) -> int:
        return len(self.marks)

    def after(self, time: int, seq: int) -> int:
        """The first place behind a moment."""
        times, seqs = self.moments.times, self.moments.seqs
        start, stop = (int(np.searchsorted(times, np.uint64(time), side)) for side in ("left", "right"))
        return start + int(np.searchsorted(seqs[start:stop], np.uint64(seq), "right"))

    def marked_after(self, mark: int) -> int:
        """The first place whose mark is later."""
        return int(np.searchsorted(self.marks, np.uint64(max(mark, 0)), "right"))

    def until(self, time: int) -> int:
        """How many moments are not later than a time."""
        return int(np.searchsorted(self.moments.times, np.uint64(time), "right"))

    def of_version(self, time: int, milliseconds: int) -> Index:
        """The places of this second whose version ends in these three digits."""
        start, stop = self.after(time, 0), self.until(time)
        return start + np.flatnonzero(self.moments.versions[start:stop] % np.uint64(1000) == milliseconds)

    def of_entries(self, entries: Ints) -> Index:
        """The places of these entries."""
        return np.flatnonzero(np.isin(self.moments.entries, entries))

    def select(self, start: int, stop: int, limit: int, among: Sequence[Index] = ()) -> tuple[Index, bool]:
        """The first places from `start` on and before `stop`, at most `limit`, and whether there are more.

        Args:
            among: each a choice of places, ascending; only what is in all of them counts.
        """
        if not among:
            end = max(start, min(stop, start + limit))
            return np.arange(start, end, dtype=np.int64), end < stop
        inside = among[0][(among[0] >= start) & (among[0] < stop)]
        for places in among[1:]:
            inside = inside[np.isin(inside, places)]
        return inside[:limit], len(inside) > limit

    def digest(self, places: Index) -> bytes:
        """SHA-256 over all that is known of the moments at these places."""
        hasher = hashlib.sha256()
        for column in _COLUMNS:
            hasher.update(getattr(self.moments, column)[places].tobytes())
        hasher.update(self.marks[places].tobytes())
        return hasher.digest()

    def but_first(self, count: int, kept: Sequence[int]) -> Index:
        """All places but the first `count`, of which these are kept."""
        return np.concatenate([np.array(kept, np.int64), np.arange(count, len(self), dtype=np.int64)])


_COLUMNS: dict[str, type[np.generic]] = {
    "times": np.uint64,
    "seqs": np.uint64,
    "entries": np.uint64,
    "versions": np.uint64,
    "blocks": np.uint64,
    "rows": np.int64,
}


class Names:
    """Entries by the first eight octets of names that are made of their ids and never change."""

    def __init__(self) -> None:
        self._entries = np.zeros(0, np.uint64)  # ascending
        self._names, self._named = np.zeros(0, np.uint64), np.zeros(0, np.uint64)  # names ascending, whose they are

    def unknown(self, entries: Ints) -> Ints:
        """Those of these entries whose names are not here yet."""
        return np.setdiff1d(entries, self._entries)

    def add(self, entries: Ints, names: Sequence[int]) -> None:
        """Keep the names of new entries."""
        self._entries = np.union1d(self._entries, entries)
        together = np.concatenate([self._names, np.array(names, np.uint64)])
        order = np.argsort(together, kind="stable")
        self._names, self._named = together[order], np.concatenate([self._named, entries])[order]

    def find(self, names: Sequence[int]) -> Ints:
        """The entries that may have one of these names: compare the rest."""
        wanted = np.array(names, np.uint64)
        starts = np.searchsorted(self._names, wanted, "left")
        stops = np.searchsorted(self._names, wanted, "right")
        found = [self._named[start:stop] for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)]
        return np.unique(np.concatenate([np.zeros(0, np.uint64), *found]))


def _joined(pieces: Sequence[np.ndarray], kind: type[np.generic]) -> np.ndarray:
    return np.concatenate([np.zeros(0, kind), *pieces])


def _last_of_each(entries: Ints) -> Index:
    """The last place of each entry, ascending."""
    backwards = entries[::-1]
    _, first = np.unique(backwards, return_index=True)
    return np.sort(len(entries) - 1 - first).astype(np.int64)


def _marks(times: Ints, seqs: Ints) -> Ints:
    if not len(times):
        return np.zeros(0, np.uint64)
    begins = np.concatenate([[True], times[1:] != times[:-1]])
    lowest = seqs[np.flatnonzero(begins)][np.cumsum(begins) - 1]
    # The millions of the first in a second are left out for all of it, so that the order stays.
    marks = times * np.uint64(SECOND) + seqs - lowest // np.uint64(SECOND) * np.uint64(SECOND)
    steps = np.arange(len(marks), dtype=np.uint64)
    grown: Ints = np.maximum.accumulate(marks - steps) + steps
    return grown
