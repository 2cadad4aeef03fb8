"""Whom an assertion is about: material by its marks, and who holds any of it.

A subject has no name that two agencies share. It is a set of digests, of entries, or a series; two assertions meet
where they share a mark. Marks are made under keys of the keystore, as on the never-again list but with others, so the
tables tell nobody which material it is. Perceptual digests make no marks: that two pictures look alike is for a person
to say.

Who may hold a subject's material, as far as this gateway can know: followers of our sets and onward copies, by their
cursors; the owners and hubs of mirrors in which it stands; agencies that assert something of it themselves.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from gateway.columns.block import decode
from gateway.columns.rows import EXISTENCE, GROUP_CODES, Rows, flagged, grouped, integers, registered, same_values
from gateway.crypto import canonical
from gateway.errors import MalformedError, NotFoundError
from gateway.exchange.changes import Held, held_rows
from gateway.exchange.labels import stored_label
from gateway.exchange.lookup import parse_entry
from gateway.exchange.neveragain import Marker
from gateway.exchange.shelf import CHANGES, Shelf, block_id
from gateway.exchange.withdrawals import holders_of
from gateway.keystore import Keystore
from gateway.model import CRYPTOGRAPHIC, FieldGroup, text_member, texts_member
from gateway.node import Node
from gateway.partners import length_prefixed
from gateway.statuses import together
from gateway.statusmail import Material, count_of, material_from_json, material_json
from gateway.store import Transaction
from gateway.store.tables import HashSet, StatusMark

DIGEST, ENTRY, SERIES, VICTIM = "digest", "entry", "series", "victim"
OWN_KINDS = frozenset({DIGEST, ENTRY, VICTIM})  # by these an agency finds its own assertion again; a series has many
MAX_DIGESTS = 20_000  # of one subject: a case has dozens, a long video's frames some thousand
MAX_SERIES = 16
MAX_SUBJECT_BYTES = 8 << 20
MARK_BYTES = 16
MERGED = "merged"  # a merge of series that is in force here
_SERIES_PART = GROUP_CODES[FieldGroup.SERIES]
_CRYPTOGRAPHIC_PART = GROUP_CODES[FieldGroup.CRYPTOGRAPHIC_DIGESTS]


@dataclass(frozen=True, slots=True)
class Kept:
    """Material of a subject as we hold it. `came`: the digest of the mirror's label in hex, "" where it is ours."""

    material: Material
    came: str = ""


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom an assertion of ours is about. `case`, `victim`: our case's local id and the child's pseudonym in it."""

    kept: tuple[Kept, ...]
    series: tuple[str, ...] = ()
    case: str = ""
    victim: str = ""

    @property
    def digests(self) -> frozenset[tuple[str, bytes]]:
        """All its digests."""
        return frozenset(pair for one in self.kept for pair in one.material.digests)

    def joined(self, other: Subject) -> Subject:
        """Both together: what one assertion speaks of only grows."""
        kept: dict[tuple[str, str, str], Kept] = {}
        for one in (*self.kept, *other.kept):
            material = one.material
            # An entry's label is looked up when somebody is told; a case's is the one under which it was named last.
            label = canonical.encode(material.label.to_json()).decode() if material.entries else ""
            place = (material.set_name, one.came, label)
            before = kept.get(place)
            kept[place] = one if before is None else Kept(_united(material, before.material), one.came)
        series = tuple(sorted({*self.series, *other.series}))
        found = Subject(tuple(kept.values()), series, other.case or self.case, other.victim or self.victim)
        found.check()
        return found

    def check(self) -> None:
        """Returns when it is no larger than a subject may be. MalformedError: it is, or it is nothing."""
        count = count_of([one.material for one in self.kept])
        if count > MAX_DIGESTS or len(self.series) > MAX_SERIES:
            raise MalformedError("more material than one assertion may speak of", remedy="assert it in parts")
        if not count and not self.series and not self.victim:
            raise MalformedError("an assertion speaks of entries, a series, or a victim of a case")

    def dump(self) -> dict[str, object]:
        """As it is kept, sealed."""
        return {
            "kept": [{**material_json(one.material), "came": one.came} for one in self.kept],
            "series": list(self.series),
            "case": self.case,
            "victim": self.victim,
        }

    @classmethod
    def parse(cls, value: Mapping[str, object]) -> Subject:
        """What `dump` wrote."""
        members, kept = dict(value), value["kept"]
        assert isinstance(kept, list), "this gateway wrote it"
        found = tuple(Kept(material_from_json(one), text_member(one, "came")) for one in kept)
        case, victim = text_member(members, "case"), text_member(members, "victim")
        return cls(found, texts_member(members, "series"), case, victim)


def _united(one: Material, other: Material) -> Material:
    return Material(
        one.set_name,
        one.label,
        tuple(sorted({*one.digests, *other.digests})),
        tuple(sorted({*one.entries, *other.entries})),
        tuple(sorted({*one.series, *other.series})),
    )


class Marks:
    """Makes the marks of subjects."""

    def __init__(self, keystore: Keystore) -> None:
        self._keystore = keystore
        self._digests = Marker(keystore, "status mark 1")

    def of_digests(self, digests: Iterable[tuple[str, bytes]]) -> Iterator[bytes]:
        """The mark of each (algorithm, digest), in order; cryptographic ones alone."""
        asked = list(digests)
        columns: dict[str, Iterator[bytes]] = {}
        for name in {name for name, _ in asked}:
            values = [value for algorithm, value in asked if algorithm == name]
            rows = Rows.of(len(values), {name: values})
            columns[name] = (one.tobytes() for one in self._digests.column(name, rows.octets(name)))
        for name, _ in asked:
            yield next(columns[name])

    def of_rows(self, rows: Rows) -> dict[str, list[bytes]]:
        """The marks of whole columns, by algorithm."""
        names = [name for name in CRYPTOGRAPHIC if name in rows.columns]
        return {name: [one.tobytes() for one in self._digests.column(name, rows.octets(name))] for name in names}

    def of_series(self, name: str) -> bytes:
        """The mark of a series name. Names that look the same to a reader are the same (Unicode NFC)."""
        return self._mac("status series 1", unicodedata.normalize("NFC", name))

    def of_entry(self, set_name: str, entry: int) -> bytes:
        """The mark of an entry of a set."""
        return self._mac("status entry 1", set_name, f"{entry:016x}")

    def of_victim(self, case: str, victim: str) -> bytes:
        """The mark of a child of a case of ours."""
        return self._mac("status victim 1", case, victim)

    def of_material(self, material: Material) -> dict[bytes, str]:
        """Every mark of some material, with its kind."""
        found = dict.fromkeys(self.of_digests(material.digests), DIGEST)
        found |= dict.fromkeys((self.of_entry(material.set_name, one) for one in material.entries), ENTRY)
        return found | dict.fromkeys(map(self.of_series, material.series), SERIES)

    def of_subject(self, subject: Subject) -> dict[bytes, str]:
        """Every mark of a subject, with its kind."""
        found: dict[bytes, str] = {}
        for one in subject.kept:
            found |= self.of_material(one.material)
        found |= dict.fromkeys(map(self.of_series, subject.series), SERIES)
        if subject.victim:
            found[self.of_victim(subject.case, subject.victim)] = VICTIM
        return found

    def _mac(self, *words: str) -> bytes:
        return self._keystore.row_mac(length_prefixed(*words))[:MARK_BYTES]


def mark_rows(agency: str, number: str, marks: Mapping[bytes, str]) -> list[StatusMark]:
    """Marks as rows."""
    return [StatusMark(agency=agency, number=number, mark=mark, kind=kind) for mark, kind in sorted(marks.items())]


# Entries


@dataclass(frozen=True, slots=True)
class Named:
    """What a person named: the subject, and the series that it belongs to."""

    subject: Subject
    series: frozenset[str]


def of_entries(tx: Transaction, shelf: Shelf, set_name: str, entries: Sequence[str]) -> Named:
    """The subject that entries of a set make.

    Raises:
        NotFoundError: the set does not hold one of them.
    """
    hash_set, ids = tx.sets.get(set_name), sorted({parse_entry(one) for one in entries})
    found = [one for one in held_rows(tx, shelf, hash_set.id or 0, integers(ids)) if one.block.kind == CHANGES]
    if sum(one.rows.n for one in found) != len(ids):
        raise NotFoundError("the set does not hold all of these entries", remedy="`gateway look-up` finds them")
    return of_held(tx, hash_set, found)


def of_held(tx: Transaction, hash_set: HashSet, found: Iterable[Held]) -> Named:
    """The subject that rows of a set make."""
    labels = {row.number: row for row in tx.sets.labels(hash_set.id or 0)}
    kept, series = [], set()
    for one in found:
        row, rows = labels[one.block.label], one.rows
        pairs = {
            (name, value)
            for name in CRYPTOGRAPHIC
            if name in rows.columns
            for value in rows.values(name)
            if isinstance(value, bytes)
        }
        ids = tuple(sorted(rows.ints("entry_id").tolist()))
        material = Material(hash_set.name, stored_label(row), tuple(sorted(pairs)), ids)
        kept.append(Kept(material, row.digest.hex() if hash_set.hub else ""))
        series.update(rows.text("series").to_list())
    subject = Subject(()).joined(Subject(tuple(kept))) if kept else Subject(())
    return Named(subject, frozenset(series - {""}))


# Who holds it


def holders(tx: Transaction, node: Node, shelf: Shelf, subject: Subject) -> dict[str, frozenset[str]]:
    """Partners that may hold any of a subject's material, each with the names of our sets that it follows for it."""
    found: dict[str, set[str]] = {}
    series, maker = series_names(node, tx, subject.series), Marks(node.keystore)
    marks = {*maker.of_subject(subject), *map(maker.of_series, series)}
    for hash_set in tx.sets.stored():
        held = [*with_digests(tx, shelf, hash_set.id or 0, subject.digests), *with_series(tx, shelf, hash_set, series)]
        held += _named(tx, shelf, hash_set, subject)
        if not held:
            continue
        if hash_set.hub:
            for agency in {hash_set.hub, hash_set.name.partition("/")[0]}:
                found.setdefault(agency, set())
            continue
        gone = [(one.block.label, one.rows.ints("seq")) for one in held]
        for agency in holders_of(tx, hash_set, gone):
            found.setdefault(agency, set()).add(hash_set.name)
    for _, agency, _ in tx.statuses.meeting(marks):
        found.setdefault(agency, set())
    found.pop(node.agency, None)
    return {agency: frozenset(names) for agency, names in found.items()}


def with_digests(tx: Transaction, shelf: Shelf, set_id: int, digests: Collection[tuple[str, bytes]]) -> list[Held]:
    """What a set holds now that carries one of these digests."""
    ids: set[int] = set()
    for name in CRYPTOGRAPHIC:
        values = sorted({value for algorithm, value in digests if algorithm == name})
        if values:
            ids.update(_found(tx, shelf, set_id, name, values))
    return _current(tx, shelf, set_id, ids)


def _found(tx: Transaction, shelf: Shelf, set_id: int, name: str, values: Sequence[bytes]) -> Iterator[int]:
    wanted = Rows.of(len(values), {name: list(values)})
    with shelf.index(tx, set_id) as index:
        found = index.find(name, wanted.octets(name))
    places = dict(grouped(found.block_no.astype("uint64")))
    stored = [row for row in tx.blocks.some(list(places)).values() if row.kind == CHANGES]
    for row, block in zip(stored, shelf.get_all(tx, stored, {EXISTENCE, registered(name).group}), strict=True):
        where = places[block_id(row)]
        rows = decode(block, ["entry_id", name]).take(found.row[where])
        same = same_values(rows, wanted.take(found.query[where]), name)
        yield from rows.take(same).ints("entry_id").tolist()


def with_series(tx: Transaction, shelf: Shelf, hash_set: HashSet, names: Collection[str]) -> list[Held]:
    """What a set holds now of a series. Reads the series of all its entries: no index has them."""
    if not names:
        return []
    wanted, ids = {unicodedata.normalize("NFC", one) for one in names}, set()
    for _, rows in live_rows(tx, shelf, hash_set, {_SERIES_PART}, ["entry_id", "series"]):
        texts = rows.text("series").to_list()
        same = flagged([unicodedata.normalize("NFC", text) in wanted for text in texts])
        ids.update(rows.take(same).ints("entry_id").tolist())
    return _current(tx, shelf, hash_set.id or 0, ids)


def live_rows(
    tx: Transaction, shelf: Shelf, hash_set: HashSet, parts: Collection[int], columns: Sequence[str]
) -> Iterator[tuple[int, Rows]]:
    """What a set holds now, block by block: the label, and these columns."""
    stored = [row for row in tx.blocks.of_set(hash_set.id or 0) if row.kind == CHANGES]
    with shelf.index(tx, hash_set.id or 0) as index:
        live = [index.live_rows(block_id(row)) for row in stored]
    held = [(row, mask) for row, mask in zip(stored, live, strict=True) if mask.any()]
    blocks = shelf.get_all(tx, [row for row, _ in held], {EXISTENCE, *parts})
    for (row, mask), block in zip(held, blocks, strict=True):
        yield row.label, decode(block, columns).take(mask)


def as_it_stands(tx: Transaction, shelf: Shelf, subject: Subject) -> tuple[Kept, ...]:
    """A subject's material under the labels of this moment. What was withdrawn meanwhile is not in it any more."""
    found = [one for one in subject.kept if not one.material.entries]
    for name in sorted({one.material.set_name for one in subject.kept if one.material.entries}):
        hash_set = tx.sets.find(name)
        if hash_set is not None:
            found += of_held(tx, hash_set, _named(tx, shelf, hash_set, subject)).subject.kept
    return tuple(found)


def elsewhere(tx: Transaction, shelf: Shelf, subject: Subject) -> Iterator[Kept]:
    """The same digests as they stand in mirrors: what their owners, and whoever gave it to us, hold of it themselves.

    For a case that was referred to us: the case is not told on, but whoever looks for the child by entries of their own
    hears of these.
    """
    named = {one.material.set_name for one in subject.kept if one.material.entries}
    for hash_set in tx.sets.stored():
        if hash_set.hub and hash_set.name not in named:
            held = with_digests(tx, shelf, hash_set.id or 0, subject.digests)
            yield from of_held(tx, hash_set, held).subject.kept


def _named(tx: Transaction, shelf: Shelf, hash_set: HashSet, subject: Subject) -> list[Held]:
    """Entries that a subject names themselves: such as have no cryptographic digest."""
    ids = {entry for one in subject.kept if one.material.set_name == hash_set.name for entry in one.material.entries}
    return _current(tx, shelf, hash_set.id or 0, ids)


def _current(tx: Transaction, shelf: Shelf, set_id: int, ids: Collection[int]) -> list[Held]:
    if not ids:
        return []
    return [one for one in held_rows(tx, shelf, set_id, integers(sorted(ids))) if one.block.kind == CHANGES]


# Series that are one


def series_names(node: Node, tx: Transaction, names: Iterable[str]) -> frozenset[str]:
    """These names and every other one that stands for the same series, by merges in force here."""
    pairs = [merge_names(node, row.id, row.sealed)[0] for row in tx.statuses.merges() if row.state == MERGED]
    return frozenset(other for name in names for other in together(pairs, name))


def seal_merge(node: Node, number: str, names: tuple[str, str], reason: str) -> bytes:
    """Both names and the reason, sealed for the database."""
    raw = canonical.encode({"names": list(names), "reason": reason})
    return node.keystore.master_key.seal(raw, f"series merge {number}", node.random)


def merge_names(node: Node, number: str, sealed: bytes) -> tuple[tuple[str, str], str]:
    """What `seal_merge` sealed."""
    raw = node.keystore.master_key.open(sealed, f"series merge {number}")
    value = canonical.parse_canonical(raw, max_bytes=MAX_SUBJECT_BYTES)
    assert isinstance(value, dict), "this gateway sealed it"
    one, other = texts_member(dict(value), "names")
    return (one, other), text_member(dict(value), "reason")
