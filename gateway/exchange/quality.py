"""How good entries are: who stands behind each, what speaks against it, and whether a program may act on it by itself.

    standings = exchange.quality.standing_of(tx, set_id, entry_ids)       entry -> Standing
    standing.actionable_by("sha256")                                      False for a hit that only looks alike

An entry is *actionable* when nothing at all speaks against it. Each thing that does is an `Obstacle`:

    few_agencies     fewer stand behind it than policy asks (`policy.quality`), or its owner does not
    disputed         as many dispute it as policy says, here or at its hub, or the same file in any other set
    known_good       it carries the digest of a harmless or common file (`knowngood`)
    no_file_digest   no digest of it says which file it is: a perceptual one only looks alike
    category         its category is none of ours, or nobody has said what it is in ours (`categories`)
    ask_first        its handling code, H3, asks that its giver be asked before any use
    invented         it is of a set of invented data

Rules:

1. The owner of a set stands behind what it lists there, unless it disputes it. Everybody else says so: by a
   confirmation of this very version, that came from that agency itself. Who passes a set on is not counted beside its
   owner, whose word we have through it alone.
2. Where policy lets listings count, an agency also stands behind a file that it lists in a set of its own, by the same
   SHA-256 or SHA-512. MD5 and SHA-1 do not count for that: two files can be made with one of either.
3. A dispute counts from anybody who says it or reports it, on any entry with the same cryptographic digest.
4. What cannot be known counts as speaking against: digests that policy withheld, a category that no table names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from gateway.categories import Mapped, Relation
from gateway.columns.block import decode
from gateway.columns.rows import EXISTENCE, Index, Ints, Rows, grouped, integers, registered
from gateway.errors import NotFoundError
from gateway.exchange.categories import Categories
from gateway.exchange.knowngood import KnownGood
from gateway.exchange.labels import stored_label
from gateway.exchange.lookup import NOTHING_SAID, Hit, Said, parse_entry
from gateway.exchange.shelf import CHANGES, Shelf, block_id
from gateway.model import CRYPTOGRAPHIC, HandlingCode, Label, is_test_set
from gateway.node import Node
from gateway.opinions import Verdict, Word, parties
from gateway.partners import ACTIVE
from gateway.policy import UseRule
from gateway.store import Transaction
from gateway.store.tables import BlockRow, HashSet

STRONG = ("sha256", "sha512")  # nobody has made two files with one of these
_PARTS = {EXISTENCE, *(registered(name).group for name in CRYPTOGRAPHIC)}
_COLUMNS = ("entry_id", "version", *CRYPTOGRAPHIC)


class Obstacle(StrEnum):
    """Why a program may not act on an entry by itself."""

    FEW_AGENCIES = "few_agencies"
    DISPUTED = "disputed"
    KNOWN_GOOD = "known_good"
    NO_FILE_DIGEST = "no_file_digest"
    CATEGORY = "category"
    ASK_FIRST = "ask_first"
    INVENTED = "invented"


SENTENCES: Mapping[Obstacle, str] = {
    Obstacle.FEW_AGENCIES: "fewer agencies stand behind it than policy asks",
    Obstacle.DISPUTED: "it is disputed",
    Obstacle.KNOWN_GOOD: "it carries the digest of a harmless or common file",
    Obstacle.NO_FILE_DIGEST: "no digest of it that is here says which file it is",
    Obstacle.CATEGORY: "its category is none of ours, or nobody has said which",
    Obstacle.ASK_FIRST: "its giver is to be asked before any use",
    Obstacle.INVENTED: "it is of a set of invented data",
}


@dataclass(frozen=True, slots=True)
class Standing:
    """Where an entry stands.

    `behind`, `disputing`: agencies. `hub`: how many confirm and dispute it, as the hub of its set counts: the first is
    for people to see, the second speaks against it. `category`: as its owner has it; `mapped`: what that is in our
    scheme, None where nobody has said.
    """

    entry_id: int
    version: int
    behind: frozenset[str]
    disputing: frozenset[str]
    hub: tuple[int, int]
    category: str
    mapped: Mapped | None
    obstacles: tuple[Obstacle, ...]

    @property
    def actionable(self) -> bool:
        """Whether a program may act on what is this very file."""
        return not self.obstacles

    def actionable_by(self, algorithm: str) -> bool:
        """Whether a program may act on what was found by a digest of this algorithm: never by one that looks alike."""
        return self.actionable and algorithm in CRYPTOGRAPHIC

    @property
    def words(self) -> str:
        """In a few words: undisputed by 3, disputed by 1 of 4."""
        disputing = max(len(self.disputing), self.hub[1])
        if disputing:
            return f"disputed by {disputing} of {len(self.behind) + disputing}"
        return f"undisputed by {len(self.behind)}"

    @property
    def sentences(self) -> tuple[str, ...]:
        """What speaks against acting on it, for people."""
        return tuple(SENTENCES[one] for one in self.obstacles)


@dataclass(slots=True)
class Tally:
    """How the entries of a set stand, counted."""

    entries: int = 0
    actionable: int = 0
    disputed: int = 0
    obstacles: dict[Obstacle, int] = field(default_factory=dict)

    def count(self, standings: Iterable[Standing]) -> None:
        """Count more of them."""
        for one in standings:
            self.entries += 1
            self.actionable += one.actionable
            self.disputed += bool(one.disputing) or bool(one.hub[1])
            for obstacle in one.obstacles:
                self.obstacles[obstacle] = self.obstacles.get(obstacle, 0) + 1


class Quality:
    """Judges entries of any set here."""

    def __init__(self, node: Node, shelf: Shelf, known_good: KnownGood) -> None:
        self._node = node
        self._shelf = shelf
        self._known_good = known_good
        self.categories = Categories(node)

    def standing_of(self, tx: Transaction, set_id: int, entry_ids: Sequence[int]) -> dict[int, Standing]:
        """Where those of these entries stand that a set lists with their values.

        Args:
            tx: one that reads the index: `shelf.reading`, or a transaction that has put no block.
        """
        ids = integers(entry_ids)
        with self._shelf.index(tx, set_id) as index:
            at = index.locate(ids)
        where = dict(grouped(at.block_no[at.found].astype("uint64")))
        positions = at.row[at.found]
        return {one.entry_id: one for one in self._judged(tx, set_id, where, positions)}

    def remarks(self, tx: Transaction, hits: Sequence[Hit]) -> list[Said]:
        """Where the entries that a look-up found stand, in a line each."""
        by_set: dict[str, set[int]] = {}
        for hit in hits:
            by_set.setdefault(hit.set_name, set()).add(parse_entry(hit.entry))
        standings = {
            name: self.standing_of(tx, tx.sets.get(name).id or 0, sorted(entries)) for name, entries in by_set.items()
        }
        found = [standings[hit.set_name].get(parse_entry(hit.entry)) for hit in hits]
        return [NOTHING_SAID if one is None else Said((one.words,)) for one in found]

    def every(self, tx: Transaction, set_id: int) -> Iterator[list[Standing]]:
        """Where every entry of a set stands, block by block."""
        hash_set, labels = tx.sets.by_id(set_id), self._labels(tx, set_id)
        for row in tx.blocks.of_set(set_id):
            if row.kind != CHANGES:
                continue
            with self._shelf.index(tx, set_id) as index:
                live = index.live_rows(block_id(row))
            if live.any():
                rows = self._rows(tx, row).take(live)
                yield self._judge(tx, hash_set, labels[row.label], rows)

    def count_held(self, rows: Rows) -> int:
        """How many of these rows carry a cryptographic digest that some entry of some set here carries, too."""
        held: set[int] = set()
        with self._shelf.reading(self._node.store) as tx:
            for hash_set in tx.sets.all():
                with self._shelf.index(tx, hash_set.id or 0) as index:
                    for name in CRYPTOGRAPHIC:
                        if name in rows.columns:
                            held.update(index.find(name, rows.octets(name)).query.tolist())
        return len(held)

    # One block at a time

    def _judged(self, tx: Transaction, set_id: int, where: Mapping[int, Index], positions: Index) -> Iterator[Standing]:
        hash_set, labels = tx.sets.by_id(set_id), self._labels(tx, set_id)
        for row in tx.blocks.some(list(where)).values():
            if row.kind == CHANGES:
                rows = self._rows(tx, row).take(positions[where[block_id(row)]])
                yield from self._judge(tx, hash_set, labels[row.label], rows)

    def _rows(self, tx: Transaction, row: BlockRow) -> Rows:
        return decode(self._shelf.get(tx, row, _PARTS), _COLUMNS)

    def _labels(self, tx: Transaction, set_id: int) -> dict[int, Label]:
        return {one.number: stored_label(one) for one in tx.sets.labels(set_id)}

    def _judge(self, tx: Transaction, hash_set: HashSet, label: Label, rows: Rows) -> list[Standing]:
        """Where the entries of some rows of one label stand."""
        rule, set_id = self._node.policy.use, hash_set.id or 0
        ids = rows.ints("entry_id").tolist()
        # 1. What is said of them, and of the same files elsewhere.
        said = _by_entry(tx.opinions.said(set_id, ids))
        counts = {one.entry_id: (one.confirmed, one.disputed) for one in tx.opinions.counts(set_id, ids)}
        disputing, listing = self._elsewhere(tx, hash_set, rows, rule)
        # 2. What holds for all of them.
        mapped = (
            Mapped(label.category, Relation.EXACT) if not hash_set.hub else self.categories.mapped(tx, label.category)
        )
        common = list(_of_label(self._node, hash_set, label, mapped, rule))
        present = self._present(tx, hash_set)
        heard = present & frozenset(rule.of) if rule.of else present
        # 3. What holds for each.
        digests = [name for name in CRYPTOGRAPHIC if name in rows.columns]
        known = self._known_good.mask(tx, rows).tolist()
        found = []
        for at, (entry, version) in enumerate(zip(ids, rows.ints("version").tolist(), strict=True)):
            confirming, against = parties(said.get(entry, ()), version)
            against |= disputing.get(at, frozenset())
            behind = self._behind(hash_set, confirming | listing.get(at, frozenset()), against, heard)
            hub = counts.get(entry, (0, 0))
            obstacles = list(common)
            if _owner(hash_set) not in behind & present or len(behind & heard) < rule.agencies:
                obstacles.append(Obstacle.FEW_AGENCIES)
            if max(len(against), hub[1]) >= rule.disputes or _owner(hash_set) in against:
                obstacles.append(Obstacle.DISPUTED)
            if known[at]:
                obstacles.append(Obstacle.KNOWN_GOOD)
            if not digests:
                obstacles.append(Obstacle.NO_FILE_DIGEST)
            order = tuple(one for one in Obstacle if one in obstacles)
            found.append(Standing(entry, version, behind, against, hub, label.category, mapped, order))
        return found

    def _behind(
        self, hash_set: HashSet, speaking: frozenset[str], against: frozenset[str], heard: frozenset[str]
    ) -> frozenset[str]:
        """Who stands behind an entry. Its hub, where that is another than its owner, has passed on the owner's word."""
        owner = _owner(hash_set)
        passing_on = {hash_set.hub} if hash_set.hub not in ("", owner) else set()
        return ((speaking & heard) - passing_on | {owner}) - against

    def _present(self, tx: Transaction, hash_set: HashSet) -> frozenset[str]:
        """Whose word can count: ours, and that of partners who are active now.

        An owner who is no partner counts while its hub does: through that we have its word.
        """
        partners = {row.agency: row.state == ACTIVE for row in tx.people.partners()}
        found = {self._node.agency, *(agency for agency, is_active in partners.items() if is_active)}
        if _owner(hash_set) not in partners and hash_set.hub in found:
            found.add(_owner(hash_set))
        return frozenset(found)

    # The same files in other sets

    def _elsewhere(
        self, tx: Transaction, hash_set: HashSet, rows: Rows, rule: UseRule
    ) -> tuple[dict[int, frozenset[str]], dict[int, frozenset[str]]]:
        """By row who disputes, and who lists, the same file in any entry of any set here."""
        disputing: dict[int, frozenset[str]] = {}
        listing: dict[int, frozenset[str]] = {}
        for other in tx.sets.all():
            other_id, spoken_of = other.id or 0, tx.opinions.any_on(other.id or 0)
            listed = rule.listing and other.id != hash_set.id and not self._is_invented(other)
            if not spoken_of and not listed:
                continue
            for name in CRYPTOGRAPHIC:
                if name not in rows.columns:
                    continue
                pairs = list(self._carriers(tx, other_id, name, rows))
                if spoken_of and pairs:
                    said = _by_entry(tx.opinions.said(other_id, sorted({entry for _, entry in pairs})))
                    for at, entry in pairs:
                        against = frozenset(one.agency for one in said.get(entry, ()) if one.verdict is Verdict.DISPUTE)
                        disputing[at] = disputing.get(at, frozenset()) | against
                if listed and name in STRONG and other.hub in ("", _owner(other)):
                    for at, _ in pairs:
                        listing[at] = listing.get(at, frozenset()) | {_owner(other)}
        return disputing, listing

    def _carriers(self, tx: Transaction, set_id: int, name: str, rows: Rows) -> Iterator[tuple[int, int]]:
        """(row, entry) for each entry of a set that carries the same digest as a row, but for a chance of 2^-64."""
        with self._shelf.index(tx, set_id) as index:
            found = index.find(name, rows.octets(name))
        if not len(found.query):
            return
        places = dict(grouped(found.block_no.astype("uint64")))
        stored = [row for row in tx.blocks.some(list(places)).values() if row.kind == CHANGES]
        for row, block in zip(stored, self._shelf.get_all(tx, stored, [EXISTENCE]), strict=True):
            where = places[block_id(row)]
            entries: Ints = decode(block, ["entry_id"]).ints("entry_id")[found.row[where]]
            yield from zip(found.query[where].tolist(), entries.tolist(), strict=True)

    def _is_invented(self, hash_set: HashSet) -> bool:
        return bool(hash_set.hub) and is_test_set(hash_set.name) and not self._node.settings.demo

    # What people ask

    def proposed(self, tx: Transaction, name: str) -> list[int]:
        """Entries of a set that are known good and that we do not dispute yet: somebody should."""
        hash_set, us = tx.sets.get(name), self._node.agency
        return [
            one.entry_id
            for some in self.every(tx, hash_set.id or 0)
            for one in some
            if Obstacle.KNOWN_GOOD in one.obstacles and us not in one.disputing
        ]

    def one(self, tx: Transaction, name: str, entry_id: int) -> Standing:
        """Where one entry stands; NotFoundError where the set does not list it."""
        found = self.standing_of(tx, tx.sets.get(name).id or 0, [entry_id])
        if entry_id not in found:
            raise NotFoundError("no such entry is listed in this set")
        return found[entry_id]


def _of_label(node: Node, hash_set: HashSet, label: Label, mapped: Mapped | None, rule: UseRule) -> Iterator[Obstacle]:
    """What speaks against every entry under a label."""
    if mapped is None or mapped.relation not in rule.relations:
        yield Obstacle.CATEGORY
    if label.handling is HandlingCode.H3:
        yield Obstacle.ASK_FIRST
    if is_test_set(hash_set.name) and not node.settings.demo:
        yield Obstacle.INVENTED


def _by_entry(words: Iterable[Word]) -> dict[int, list[Word]]:
    found: dict[int, list[Word]] = {}
    for one in words:
        found.setdefault(one.entry_id, []).append(one)
    return found


def _owner(hash_set: HashSet) -> str:
    return hash_set.name.split("/", maxsplit=1)[0]
