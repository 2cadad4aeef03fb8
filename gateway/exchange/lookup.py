"""Look-up: is this digest listed here, by whom, and who else holds it?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.audit import EventKind
from gateway.columns.block import decode
from gateway.columns.rows import EXISTENCE, Rows, grouped, registered, same_values
from gateway.crypto import canonical
from gateway.errors import MalformedError, NotFoundError
from gateway.exchange.changes import held_rows
from gateway.exchange.labels import MAX_DEFAULTS_BYTES, binding_duties, stored_label
from gateway.exchange.shelf import CHANGES, Shelf, block_id
from gateway.interchange import View
from gateway.model import DIGEST_BYTES, is_test_set
from gateway.node import Node
from gateway.policy.duties import for_users
from gateway.store import Transaction
from gateway.store.tables import HashSet

BY_BYTES = {DIGEST_BYTES[name]: name for name in ("md5", "sha1", "sha512")}
MAX_LOOK_UP = 100_000  # digests asked for at once
SAME_LENGTH = ("sha256", "pdq")  # 64 hex digits may be either; exact look-up asks both


@dataclass(frozen=True, slots=True)
class Hit:
    """One entry that carries a digest asked for. `query` is its position in the question.

    `duties`: what binds whoever uses the answer, such as that a court may not be told without leave. No program can see
    to that one, so people are told each time.
    """

    query: int
    set_name: str
    entry: str
    algorithm: str
    attributes: dict[str, object]
    series: str
    hub: str
    duties: tuple[str, ...] = ()


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


class Lookup:
    """Answers from the resident index, confirmed by the stored blocks."""

    def __init__(self, node: Node, shelf: Shelf) -> None:
        self._node = node
        self._shelf = shelf

    def find(self, digests: Sequence[str], *, actor: str) -> list[Hit]:
        """Every entry in any set here that carries one of these digests (lower or upper hex). Logged by count."""
        if len(digests) > MAX_LOOK_UP:
            raise MalformedError(f"more than {MAX_LOOK_UP} digests at once")
        asked = by_algorithm(digests)
        hits: list[Hit] = []
        with self._shelf.reading(self._node.store) as tx:
            for hash_set in filter(self._counts, tx.sets.all()):
                for algorithm, queries in asked.items():
                    hits += self._find_in(tx, hash_set, algorithm, queries)
        details: dict[str, object] = {"asked": len(digests), "answered": len({hit.query for hit in hits})}
        event = self._node.event(EventKind.LOOK_UP, actor=actor, subject=self._node.agency, details=details)
        with self._node.store.transaction() as tx:
            tx.log.append([event])
        return sorted(hits, key=lambda hit: (hit.query, hit.set_name, hit.entry))

    def where(self, set_name: str, entry: str) -> Whereabouts:
        """Which partners hold an entry of an own set, as far as their cursors tell."""
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
            )

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
        places = dict(grouped(found.block_no.astype("uint64")))
        stored = [row for row in tx.blocks.some(list(places)).values() if row.kind == CHANGES]
        found_under = {row.label for row in stored}
        rows_of_labels = [row for row in tx.sets.labels(hash_set.id) if row.number in found_under] if stored else []
        labels = {row.number: _attributes(row.attributes) for row in rows_of_labels}
        bound = binding_duties(self._node, hash_set, rows_of_labels) if hash_set.hub else {}
        parts = {EXISTENCE, registered(algorithm).group, registered("series").group}
        hits: list[Hit] = []
        name, hub = hash_set.name, hash_set.hub
        for row, block in zip(stored, self._shelf.get_all(tx, stored, parts), strict=True):
            where = places[block_id(row)]
            rows = decode(block, ["entry_id", algorithm, "series"]).take(found.row[where])
            asking = found.query[where]
            same = same_values(rows, wanted.take(asking), algorithm)
            rows, asking = rows.take(same), asking[same]
            attributes, duties = labels[row.label], for_users(bound.get(row.label, ()))
            answers = zip(asking.tolist(), rows.ints("entry_id").tolist(), rows.text("series").to_list(), strict=True)
            hits += [
                Hit(queries[query][0], name, format_entry(entry_id), algorithm, attributes, series, hub, duties)
                for query, entry_id, series in answers
            ]
        return hits


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
