"""Look-up: is this digest listed here, or one near it? Whose word is that, since when, and who else holds it?

What is found by a cryptographic digest is the same file. What is found by a perceptual one (PDQ, PhotoDNA), equal or
near, looks alike: a person has to see whether it is the same, so such a hit never says more than "needs review".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from gateway.audit import EventKind
from gateway.columns.block import decode
from gateway.columns.index import Candidates
from gateway.columns.pdq import MAX_RADIUS, Near, nearest
from gateway.columns.rows import EXISTENCE, Index, Rows, grouped, registered, same_values
from gateway.crypto import canonical
from gateway.errors import MalformedError, NotFoundError, OverloadedError
from gateway.exchange.changes import held_rows
from gateway.exchange.labels import MAX_DEFAULTS_BYTES, binding_duties, stored_label
from gateway.exchange.shelf import CHANGES, Shelf, block_id
from gateway.exchange.wentout import FilesOut, WentOut, together
from gateway.interchange import View
from gateway.model import CRYPTOGRAPHIC, DIGEST_BYTES, VictimStatus, is_test_set
from gateway.node import Node
from gateway.policy.duties import for_users
from gateway.store import Transaction
from gateway.store.tables import BlockRow, HashSet, LabelRow

BY_BYTES = {DIGEST_BYTES[name]: name for name in ("md5", "sha1", "sha512", "photodna")}
MAX_LOOK_UP = 100_000  # digests asked for at once
SAME_LENGTH = ("sha256", "pdq")  # 64 hex digits may be either; exact look-up asks both
MAX_NEAR = 100  # answers to one digest in one set: the nearest; a picture that everybody has would bring thousands
NEAR_AT_ONCE = 2_048  # digests: in a crowded list each may have thousands of matches before the nearest are taken
TOLD = ("series", "version", "changed_at", "status_at", "status_owner")  # columns of which an answer tells


class Verdict(StrEnum):
    """What is known of one digest, the best first."""

    IDENTIFIED = "identified"
    LEAD = "lead"
    UNIDENTIFIED = "unidentified"
    LISTED = "listed"
    NEEDS_REVIEW = "needs review"
    UNKNOWN = "unknown"


_SAYS = {
    VictimStatus.IDENTIFIED: Verdict.IDENTIFIED,
    VictimStatus.SAFEGUARDED: Verdict.IDENTIFIED,
    VictimStatus.CLOSED: Verdict.IDENTIFIED,
    VictimStatus.LEAD: Verdict.LEAD,
    VictimStatus.UNIDENTIFIED: Verdict.UNIDENTIFIED,
}


@dataclass(frozen=True, slots=True)
class Said:
    """What else is known of a hit: `lines` for people, and what agencies assert of the child, the highest of it.

    Attributes:
        by: the agencies that assert the status; `since`: when the first of them did, in Unix seconds.
        contact: whom to call about it, "" where nobody said.
    """

    lines: tuple[str, ...] = ()
    status: VictimStatus = VictimStatus.UNKNOWN
    by: tuple[str, ...] = ()
    since: int = 0
    contact: str = ""


NOTHING_SAID = Said()


@dataclass(frozen=True, slots=True)
class Hit:
    """One entry that carries a digest asked for, or one near it. `query` is its position in the question.

    Attributes:
        digest: the entry's own, in hexadecimal; `distance`: in bits from the one asked for.
        changed_at: when its owner last changed the entry; `status_at`, `status_owner`: since when the child has the
            status that the label says, by whose word (0 and "" where nobody said). Unix seconds.
        duties: what binds whoever uses the answer, such as that a court may not be told without leave. No program can
            see to that one, so people are told each time.
        version: of the entry.
        remarks: what else is known of the entry (`Lookup.remarks`), a line each.
        asserted: what agencies assert of the child. Where that is more than the entry says, it counts.
    """

    query: int
    set_name: str
    entry: str
    algorithm: str
    attributes: dict[str, object]
    series: str
    hub: str
    duties: tuple[str, ...] = ()
    digest: str = ""
    distance: int = 0
    changed_at: int = 0
    status_at: int = 0
    status_owner: str = ""
    version: int = 0
    remarks: tuple[str, ...] = ()
    asserted: Said = NOTHING_SAID

    @property
    def needs_review(self) -> bool:
        """Whether it only looks alike: a person must see."""
        return self.algorithm not in CRYPTOGRAPHIC

    @property
    def verdict(self) -> Verdict:
        """What is known of the child by this entry."""
        return verdict([self._own, verdict_of(self.asserted.status, needs_review=self.needs_review)])

    @property
    def who(self) -> str:
        """The agencies whose word that is."""
        return (
            ", ".join(self.asserted.by)
            if self._by_assertion
            else self.status_owner or str(self.attributes["originator"])
        )

    @property
    def since(self) -> int:
        """Since when, as far as anybody said. Unix seconds."""
        return self.asserted.since if self._by_assertion else self.status_at or self.changed_at

    @property
    def contact(self) -> str:
        """Whom to call, where whoever asserts the status said so."""
        return self.asserted.contact if self._by_assertion else ""

    @property
    def _own(self) -> Verdict:
        return verdict_of(VictimStatus(str(self.attributes["victim_status"])), needs_review=self.needs_review)

    @property
    def _by_assertion(self) -> bool:
        said = verdict_of(self.asserted.status, needs_review=self.needs_review)
        return bool(self.asserted.by) and not self.needs_review and verdict([said, self._own]) is said


def verdict_of(status: VictimStatus, *, needs_review: bool) -> Verdict:
    """What an entry of this status says of a digest; what only looks alike never says more than that."""
    return Verdict.NEEDS_REVIEW if needs_review else _SAYS.get(status, Verdict.LISTED)


def verdict(said: Iterable[Verdict]) -> Verdict:
    """What is known of a digest by all its hits: the best of what they say."""
    found = set(said)
    return next((one for one in Verdict if one in found), Verdict.UNKNOWN)


# What else is known of hits, in the same order: opinions, what agencies say of the child.
Remark = Callable[[Transaction, Sequence[Hit]], Sequence[Said]]


@dataclass(frozen=True, slots=True)
class Holder:
    """A partner that is known to hold an entry, or to have held it and been told otherwise."""

    partner: str
    since_seq: int
    holds: bool
    at: int


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """An own entry, and who holds it."""

    set_name: str
    entry: str
    listed: bool
    label: dict[str, object]
    version: int
    changed_at: int
    holders: tuple[Holder, ...]
    hub: str = ""
    duties: tuple[str, ...] = ()
    files: tuple[WentOut, ...] = ()


class Lookup:
    """Answers from the resident index, confirmed by the stored blocks."""

    def __init__(self, node: Node, shelf: Shelf, remarks: Sequence[Remark] = ()) -> None:
        self._node = node
        self._shelf = shelf
        self.remarks = list(remarks)

    def find(
        self, digests: Sequence[str], *, actor: str, distance: int | None = None, remarked: bool = True
    ) -> list[Hit]:
        """Every entry in any set here that carries one of these digests (lower or upper hex). Logged by count.

        Args:
            distance: entries whose PDQ digest lies within so many bits are found as well, of each set the nearest.
            remarked: with all that is known of a hit from elsewhere.
        """
        hits = self.hits(digests, distance=distance, remarked=remarked)
        details: dict[str, object] = {"asked": len(digests), "answered": len({hit.query for hit in hits})}
        if distance is not None:
            details["distance"] = distance
        event = self._node.event(EventKind.LOOK_UP, actor=actor, subject=self._node.agency, details=details)
        with self._node.store.transaction() as tx:
            tx.log.append([event])
        return hits

    def hits(self, digests: Sequence[str], *, distance: int | None = None, remarked: bool = False) -> list[Hit]:
        """The same for a deed that is on record by itself."""
        if len(digests) > MAX_LOOK_UP:
            raise MalformedError(f"more than {MAX_LOOK_UP} digests at once")
        if distance is not None and not 0 <= distance <= MAX_RADIUS:
            raise MalformedError(f"a distance is 0 to {MAX_RADIUS} bits")
        asked = by_algorithm(digests)
        hits: list[Hit] = []
        with self._shelf.reading(self._node.store) as tx:
            for hash_set in filter(self._counts, tx.sets.all()):
                exact = [hit for name, queries in asked.items() for hit in self._find_in(tx, hash_set, name, queries)]
                hits += exact
                if distance is not None:
                    equal = {(hit.query, hit.entry) for hit in exact if hit.algorithm == "pdq"}
                    found = self._find_near(tx, hash_set, asked.get("pdq", []), distance)
                    hits += (hit for hit in found if (hit.query, hit.entry) not in equal)
            hits.sort(key=lambda hit: (hit.query, hit.needs_review, hit.distance, hit.set_name, hit.entry))
            return self._remarked(tx, hits) if remarked else hits

    def _remarked(self, tx: Transaction, hits: list[Hit]) -> list[Hit]:
        if not hits or not self.remarks:
            return hits
        known = zip(*(remark(tx, hits) for remark in self.remarks), strict=True)
        return [
            replace(
                hit,
                remarks=tuple(line for one in said for line in one.lines),
                asserted=next((one for one in said if one.by), NOTHING_SAID),
            )
            for hit, said in zip(hits, known, strict=True)
        ]

    def where(self, set_name: str, entry: str) -> Whereabouts:
        """Which partners hold an entry of an own set, as far as their cursors tell, and which files that left do."""
        entry_id = parse_entry(entry)
        with self._shelf.reading(self._node.store) as tx:
            hash_set = tx.sets.get(set_name)
            assert hash_set.id is not None
            if not self._counts(hash_set):
                raise NotFoundError("no such entry is listed in this set")
            ids = Rows.of(1, {"entry_id": [entry_id]}).ints("entry_id")
            held = held_rows(tx, self._shelf, hash_set.id, ids)
            if not held:
                raise NotFoundError("no such entry is listed in this set")
            one = held[0]
            label = next(row for row in tx.sets.labels(hash_set.id) if row.number == one.block.label)
            seq = int(one.rows.ints("seq")[0])
            holders = []
            for follower in tx.sets.followers(hash_set.id):
                stored = tx.sets.view(hash_set.id, follower.partner, follower.view)
                shown = View.parse(stored.encode()).labels if stored else {}
                holds = follower.epoch == hash_set.epoch and one.block.label in shown and seq <= follower.seq
                holders.append(Holder(follower.partner, follower.seq, holds, follower.at))
            return Whereabouts(
                set_name,
                format_entry(entry_id),
                one.block.kind == CHANGES,
                stored_label(label).to_json(),
                int(one.rows.ints("version")[0]),
                int(one.rows.ints("changed_at")[0]),
                tuple(holders),
                hash_set.hub,
                tuple(label.obligations.split()),
                () if hash_set.hub else tuple(FilesOut(self._node, tx).holding(hash_set, one)),
            )

    def files(self, set_name: str, entries: Sequence[int]) -> list[WentOut]:
        """The files that left with any of these entries of a set of ours, each once. Nobody who has one is told."""
        with self._shelf.reading(self._node.store) as tx:
            hash_set, out = tx.sets.get(set_name), FilesOut(self._node, tx)
            ids = Rows.of(len(entries), {"entry_id": sorted(entries)}).ints("entry_id")
            groups = [] if hash_set.hub else held_rows(tx, self._shelf, hash_set.id or 0, ids)
            alone = (replace(one, rows=one.rows.slice(at, at + 1)) for one in groups for at in range(one.rows.n))
            return together(file for held in alone for file in out.holding(hash_set, held))

    def _counts(self, hash_set: HashSet) -> bool:
        """What a partner lists in a set of invented data is no answer, unless all data here are invented."""
        return not hash_set.hub or self._node.settings.demo or not is_test_set(hash_set.name)

    def _find_in(
        self, tx: Transaction, hash_set: HashSet, algorithm: str, queries: list[tuple[int, bytes]]
    ) -> list[Hit]:
        assert hash_set.id is not None
        wanted = Rows.of(len(queries), {algorithm: [value for _, value in queries]})
        with self._shelf.index(tx, hash_set.id) as index:
            found = index.find(algorithm, wanted.octets(algorithm))
        told = _Told(self._node, tx, hash_set, algorithm)
        hits: list[Hit] = []
        for row, rows, places in met(tx, self._shelf, found, algorithm):
            asking = found.query[places]
            same = same_values(rows, wanted.take(asking), algorithm)
            numbers = [queries[query][0] for query in asking[same].tolist()]
            hits += told.hits(row, rows.take(same), numbers, [0] * len(numbers))
        return hits

    def _find_near(
        self, tx: Transaction, hash_set: HashSet, queries: list[tuple[int, bytes]], distance: int
    ) -> list[Hit]:
        told = _Told(self._node, tx, hash_set, "pdq")
        hits: list[Hit] = []
        for start in range(0, len(queries), NEAR_AT_ONCE):
            some = queries[start : start + NEAR_AT_ONCE]
            found = near_here(tx, self._shelf, hash_set.id or 0, [value for _, value in some], distance)
            for row, rows, places in met(tx, self._shelf, found, "pdq"):
                numbers = [some[query][0] for query in found.query[places].tolist()]
                hits += told.hits(row, rows, numbers, found.distance[places].tolist())
        return hits


def near_here(tx: Transaction, shelf: Shelf, set_id: int, values: list[bytes], distance: int) -> Near:
    """The entries of a set nearest to each of these PDQ digests."""
    column = Rows.of(len(values), {"pdq": values}).octets("pdq")
    try:
        return nearest(shelf.near(tx, set_id, column, distance), MAX_NEAR)
    except OverloadedError:
        if len(values) == 1:
            raise
        half = len(values) // 2  # a list of a few pictures in thousands of copies
        first = near_here(tx, shelf, set_id, values[:half], distance)
        return first.then(near_here(tx, shelf, set_id, values[half:], distance), half)


def met(
    tx: Transaction, shelf: Shelf, found: Candidates | Near, algorithm: str
) -> Iterator[tuple[BlockRow, Rows, Index]]:
    """Block by block the rows that were found, with what is told of them, and their places in `found`."""
    places = dict(grouped(found.block_no.astype("uint64")))
    stored = [row for row in tx.blocks.some(list(places)).values() if row.kind == CHANGES]
    parts = {EXISTENCE, registered(algorithm).group, *(registered(name).group for name in TOLD)}
    for row, block in zip(stored, shelf.get_all(tx, stored, parts), strict=True):
        where = places[block_id(row)]
        yield row, decode(block, ["entry_id", algorithm, *TOLD]).take(found.row[where]), where


class _Told:
    """Rows of a set as hits: their labels, and what they are bound to, are looked up once."""

    def __init__(self, node: Node, tx: Transaction, hash_set: HashSet, algorithm: str) -> None:
        self._node, self._tx, self._set, self._algorithm = node, tx, hash_set, algorithm
        self._rows: dict[int, LabelRow] = {}
        self._labels: dict[int, tuple[dict[str, object], tuple[str, ...]]] = {}

    def hits(self, row: BlockRow, rows: Rows, queries: list[int], distances: list[int]) -> list[Hit]:
        """The hits of rows of one block."""
        if not rows.n:
            return []
        attributes, duties = self._label(row.label)
        name, hub, algorithm = self._set.name, self._set.hub, self._algorithm
        values = [raw.tobytes().hex() for raw in rows.octets(algorithm)]
        columns = (
            queries,
            distances,
            values,
            *(rows.ints(column).tolist() for column in ("entry_id", "changed_at", "status_at", "version")),
            *(rows.text(column).to_list() for column in ("series", "status_owner")),
        )
        return [
            Hit(
                query,
                name,
                format_entry(entry),
                algorithm,
                attributes,
                series,
                hub,
                duties,
                value,
                apart,
                at,
                since,
                owner,
                version,
            )
            for query, apart, value, entry, at, since, version, series, owner in zip(*columns, strict=True)
        ]

    def _label(self, number: int) -> tuple[dict[str, object], tuple[str, ...]]:
        if number not in self._labels:
            self._rows = self._rows or {row.number: row for row in self._tx.sets.labels(self._set.id or 0)}
            row = self._rows[number]
            bound = binding_duties(self._node, self._set, [row])[number] if self._set.hub else ()
            self._labels[number] = _attributes(row.attributes), for_users(bound)
        return self._labels[number]


def format_entry(entry_id: int) -> str:
    """An entry id as people write it: epoch and number in hex."""
    return f"{entry_id >> 48:04x}-{entry_id & (1 << 48) - 1:012x}"


def parse_entry(text: str) -> int:
    """The entry id that `format_entry` wrote."""
    epoch, hyphen, number = text.partition("-")
    try:
        value = int(epoch, 16) << 48 | int(number, 16)
    except ValueError as error:
        raise MalformedError("an entry is written as 0001-00000000002a") from error
    if not hyphen or len(epoch) != 4 or len(number) != 12:
        raise MalformedError("an entry is written as 0001-00000000002a")
    return value


def by_algorithm(digests: Sequence[str]) -> dict[str, list[tuple[int, bytes]]]:
    """Digests in hex by the algorithms that they may be of, each with its place in the question."""
    asked: dict[str, list[tuple[int, bytes]]] = {}
    for position, text in enumerate(digests):
        try:
            value = bytes.fromhex(text.strip())
        except ValueError as error:
            raise MalformedError("not a hexadecimal digest", place=f"digest {position + 1}") from error
        algorithms = SAME_LENGTH if len(value) == 32 else tuple(filter(None, [BY_BYTES.get(len(value))]))
        if not algorithms:
            raise MalformedError("no digest of this length is known", place=f"digest {position + 1}")
        for algorithm in algorithms:
            asked.setdefault(algorithm, []).append((position, value))
    return asked


def _attributes(text: str) -> dict[str, object]:
    value = canonical.parse_canonical(text.encode(), max_bytes=MAX_DEFAULTS_BYTES)
    assert isinstance(value, dict)
    return dict(value)
