"""Objects as they leave, kept for the next who asks: partners of one view mostly ask for the same pages.

A **stretch** is some objects of a set in their order, put together once, with their SHA-256 so far: whoever gets the
same objects behind another end pays for the end alone. It is known again by what it was made of: the set, the view, and
where each row lies, with all that differs from object to object. So a set that grows leaves the stretches before as
they are.

What is kept here is content, in memory alone. It is bounded in octets, and in time, counted from when it was last asked
for. And it goes with the first of the blocks that it was read from: an erased entry's block is written anew without it
and dropped, and so is every block that is joined or given up (`forget`).
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from threading import Lock

MAX_KEPT_BYTES = 64 << 20  # some sixty full pages
KEPT_SECONDS = 600  # between two questions for the same: readers of a new page come within minutes of each other
_TOLD_BYTES = 400  # of one object, beside its octets


@dataclass(frozen=True, slots=True)
class Told:
    """One object as it leaves. `version`: its `modified`; `mark`: when it was added, in microseconds."""

    id: str
    version: str
    mark: int
    is_entry: bool
    is_gone: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Stretch:
    """Objects in their order, and their JSON, one after the other with commas between."""

    told: tuple[Told, ...]
    raw: bytes
    _begun: dict[bytes, hashlib._Hash] = field(default_factory=dict)

    @classmethod
    def of(cls, objects: Sequence[tuple[Told, bytes]]) -> Stretch:
        """These objects, each with its JSON."""
        return cls(tuple(one for one, _ in objects), b",".join([raw for _, raw in objects]))

    def digest_between(self, head: bytes, tail: bytes) -> str:
        """SHA-256 of head, objects and tail in hexadecimal. For the same head the objects are hashed once."""
        begun = self._begun.get(head)
        if begun is None:
            begun = self._begun[head] = hashlib.sha256(head + self.raw)
        hasher = begun.copy()
        hasher.update(tail)
        return hasher.hexdigest()

    @property
    def size(self) -> int:
        """Octets of memory, about."""
        return len(self.raw) + _TOLD_BYTES * len(self.told)


@dataclass(frozen=True, slots=True)
class Place:
    """What a stretch was made of: set, view, and a digest over where its rows lie and what differs between them."""

    set_id: int
    view: str
    digest: bytes


@dataclass(slots=True)
class _Kept:
    stretch: Stretch
    blocks: frozenset[int]
    asked: int


class Stretches:
    """Those that are kept, the one asked for last at the end. Threads may share it."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Place, _Kept] = OrderedDict()
        self._size = 0
        self._guard = Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, place: Place, now: int) -> Stretch | None:
        """The stretch of a place, None where it is not kept."""
        with self._guard:
            kept = self._kept.get(place)
            if kept is None:
                return None
            kept.asked = now
            self._kept.move_to_end(place)
            return kept.stretch

    def keep(self, place: Place, stretch: Stretch, blocks: AbstractSet[int], now: int) -> None:
        """Keep a stretch that was read from these blocks; those not asked for longest go where there is no room."""
        with self._guard:
            self._drop(place)
            self._kept[place] = _Kept(stretch, frozenset(blocks), now)
            self._size += stretch.size
            while self._size > MAX_KEPT_BYTES and len(self._kept) > 1:
                self._drop(next(iter(self._kept)))

    def forget(self, set_id: int, blocks: AbstractSet[int]) -> None:
        """Drop what was read from blocks of a set that are gone."""
        with self._guard:
            gone = [at for at, kept in self._kept.items() if at.set_id == set_id and not kept.blocks.isdisjoint(blocks)]
            for place in gone:
                self._drop(place)

    def tidy(self, now: int) -> None:
        """Drop what nobody asked for in a while."""
        with self._guard:
            # A clock that was put back makes them old as well.
            old = [place for place, kept in self._kept.items() if not 0 <= now - kept.asked <= KEPT_SECONDS]
            for place in old:
                self._drop(place)

    def _drop(self, place: Place) -> None:
        kept = self._kept.pop(place, None)
        self._size -= 0 if kept is None else kept.stretch.size
