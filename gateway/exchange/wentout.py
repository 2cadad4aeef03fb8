"""Which files that left for a partner hold an entry: nobody follows a file, so it must be known who has one.

The log says that a file went out (`file_exported`): to whom, in which form, up to which change of the set, and the
SHA-256 of its manifest. The manifest says, label by label, whether and how many entries were written. A manifest is the
one that was signed then if its SHA-256 is the one in the log, whatever key signs now; it is looked for in the data
folder. Where it lies elsewhere no more can be said than that the file may hold the entry.

    in the set by then, its label written whole       holds
    the version before it was, its label written whole  an earlier version
    its form left entries of the label out, or the manifest is not here, or there were versions in between    perhaps
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from gateway.audit import EventKind, parse_event
from gateway.exchange.changes import Held
from gateway.exportmanifest import MAX_BYTES, Verified, verify_logged
from gateway.model import Surface, int_member, text_member
from gateway.node import Node
from gateway.store import Transaction
from gateway.store.tables import HashSet

EXPORTS = "exports"  # in the data folder: manifests whose place is not named
MAX_MANIFESTS = 10_000  # looked at; one file a day for 27 years


class Holding(StrEnum):
    """What a file has of an entry."""

    HOLDS = "holds"
    EARLIER = "earlier version"
    PERHAPS = "perhaps"


@dataclass(frozen=True, slots=True)
class WentOut:
    """A file that went to a partner. `leaf`: of the log; `manifest`: its file's name, "" where it is not here."""

    partner: str
    form: str
    sealed: bool
    at: int
    leaf: int
    holding: Holding
    manifest: str


class FilesOut:
    """The files that went out, as of one transaction: read once for all entries that are asked about."""

    def __init__(self, node: Node, tx: Transaction) -> None:
        self._tx = tx
        self._folder = node.settings.folder / EXPORTS
        self._events = [
            (row.index, event)
            for row in tx.log.of_kinds([EventKind.FILE_EXPORTED])
            if (event := parse_event(row.event_bytes or b"")).kind is EventKind.FILE_EXPORTED
        ]
        self._manifests: dict[str, Path] | None = None
        self._told: dict[str, Verified | None] = {}

    def holding(self, hash_set: HashSet, held: Held) -> list[WentOut]:
        """The files that hold an entry of a set of ours, or may hold it, oldest first.

        Args:
            held: its current row.
        """
        of_set = [(leaf, event) for leaf, event in self._events if event.details["set"] == hash_set.name]
        if not of_set:
            return []
        digests = {row.number: row.digest.hex() for row in self._tx.sets.labels(hash_set.id or 0)}
        seq, before = (int(held.rows.ints(name)[0]) for name in ("seq", "prev_seq"))
        labels = digests[held.block.label], digests.get(int(held.rows.ints("prev_label")[0]), "")
        found: list[WentOut] = []
        for leaf, event in of_set:
            said = event.details
            until, digest = int_member(said, "seq"), text_member(said, "manifest_digest")
            if seq > until and not before:
                continue  # it came into the set later
            told = self._manifest(digest)
            holding = _holding(told, until, seqs=(seq, before), labels=labels)
            if holding is not None:
                place = self._places[digest].name if told is not None else ""
                partner, form = text_member(said, "partner"), text_member(said, "form")
                sealed = said["surface"] == Surface.SEALED
                found.append(WentOut(partner, form, sealed, event.at, leaf, holding, place))
        return found

    def _manifest(self, digest: str) -> Verified | None:
        if digest not in self._told:
            place = self._places.get(digest)
            self._told[digest] = None if place is None else verify_logged(place.read_bytes(), digest)
        return self._told[digest]

    @property
    def _places(self) -> Mapping[str, Path]:
        if self._manifests is None:
            self._manifests = dict(_manifests(self._folder))
        return self._manifests


def together(found: Iterable[WentOut]) -> list[WentOut]:
    """Each file once, with the surest of what is said of it."""
    order = list(Holding)
    best: dict[int, WentOut] = {}
    for one in found:
        known = best.get(one.leaf)
        if known is None or order.index(one.holding) < order.index(known.holding):
            best[one.leaf] = one
    return [best[leaf] for leaf in sorted(best)]


def _holding(told: Verified | None, until: int, *, seqs: tuple[int, int], labels: tuple[str, str]) -> Holding | None:
    """What a file up to a change has of an entry whose present and last version came with these changes."""
    if told is None:
        return Holding.PERHAPS
    by_label = {str(one["label"]): one for one in told.labels}
    for seq, label, holding in zip(seqs, labels, (Holding.HOLDS, Holding.EARLIER), strict=True):
        if seq <= until:
            one = by_label.get(label)
            return None if one is None or not one["written"] else _sure(one, holding)
    return Holding.PERHAPS if any(one["written"] for one in told.labels) else None


def _sure(label: Mapping[str, object], holding: Holding) -> Holding:
    return holding if label["written"] == label["entries"] else Holding.PERHAPS


def _manifests(folder: Path) -> Iterator[tuple[str, Path]]:
    """The files in the folder of manifests by their SHA-256."""
    paths = sorted(folder.iterdir())[:MAX_MANIFESTS] if folder.is_dir() else []
    for path in paths:
        if path.is_file() and not path.is_symlink() and path.stat().st_size <= MAX_BYTES:
            yield hashlib.sha256(path.read_bytes()).hexdigest(), path
