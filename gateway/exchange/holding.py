"""Legal holds: what must be kept for a court, whatever its owner takes back.

Two administrators name entries of a set (or a label of it), the court's reference, a reason and the last day. At that
moment a copy of each entry is sealed beside the sets. The set itself goes on as if there were no hold: what is
withdrawn, left or purged leaves everything that is served, looked up or passed on. The copies stay until the hold is
lifted (by two administrators as well) or has ended, and then they go.

A copy is the entry as it was held when the hold was set, with its label and the duties that came with it. Whether the
set still holds the entry is looked at by the schedule; what is kept by the hold alone is on record.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from gateway.approvals import Act, Arguments, Change
from gateway.audit import EventKind
from gateway.columns.block import decode
from gateway.columns.rows import COLUMNS, EXISTENCE, ColumnKind, Rows, integers
from gateway.crypto import canonical
from gateway.errors import ConflictError, MalformedError
from gateway.exchange import largevalues
from gateway.exchange.changes import held_rows
from gateway.exchange.labels import parsed_label
from gateway.exchange.lookup import format_entry, parse_entry
from gateway.exchange.neveragain import Marker
from gateway.exchange.shelf import CHANGES, Shelf, block_id
from gateway.model import MAX_LABELS, MAX_TEXT_CHARS, SET_NAME, int_member, require, text_member, texts_member
from gateway.node import Node
from gateway.store import Transaction
from gateway.store.tables import HashSet, HeldEntry, LegalHold

MAX_NAMED = 2_000  # entries in one proposal, which stays far below 128 KiB
MAX_HELD = 10_000  # entries of one hold: a case has dozens; copies of a whole set would be another set
MAX_COPY_BYTES = 1 << 20
ID_CHARS = 16


@dataclass(frozen=True, slots=True)
class Kept:
    """A copy: the entry as it was held. `values`: its columns, digests in hexadecimal."""

    entry: str
    version: int
    label: Mapping[str, object]
    duties: tuple[str, ...]
    values: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Named:
    """A hold that names an entry."""

    hold: str
    set_name: str
    entry: str
    reference: str
    until: str
    kept: Kept


# The guarded acts


def set_hold(
    set_name: str, reference: str, reason: str, until: date, *, entries: Collection[str] = (), label: int = 0
) -> tuple[str, Arguments]:
    """The act that keeps entries of a set, named one by one or by their label, until the end of a day."""
    arguments = {
        "set": set_name,
        "entries": sorted(set(entries)),
        "label": label,
        "reference": reference,
        "reason": reason,
        "until": until.isoformat(),
    }
    return "hold_set", arguments


def lift_hold(hold: str, reason: str) -> tuple[str, Arguments]:
    """The act that ends a hold before its day."""
    return "hold_lift", {"hold": hold, "reason": reason}


def _set(tx: Transaction, node: Node, arguments: Arguments, proposal: str) -> None:
    asked = _asked(arguments)
    if asked.until < node.today.isoformat():
        raise ConflictError("the last day of this hold is over", remedy="propose it with a later one")
    shelf, hash_set = Shelf(node.keystore.master_key, node.random), tx.sets.get(asked.set_name)
    hold = LegalHold(
        id=proposal[:ID_CHARS],
        set_id=hash_set.id or 0,
        reference=asked.reference,
        reason=asked.reason,
        until=asked.until,
        created=node.clock(),
    )
    copies = list(_copies(tx, node, shelf, hold, _ids(tx, shelf, hash_set, asked)))
    hold.entries = len(copies)
    tx.holds.add(hold, copies)
    largevalues.hold(tx, hold.set_id, [one.entry_id for one in copies], hold.id)
    details: dict[str, object] = {
        "hold": hold.id,
        "set": hash_set.name,
        "entries": len(copies),
        "order_ref": hold.reference,
        "reason": hold.reason,
        "until": hold.until,
        "proposal": proposal,
    }
    _log(tx, node, EventKind.LEGAL_HOLD_SET, hash_set.name, details)


def _lift(tx: Transaction, node: Node, arguments: Arguments, proposal: str) -> None:
    identifier, reason = _lifted(arguments)
    _end(tx, node, tx.holds.get(identifier), reason, proposal)


def _end(tx: Transaction, node: Node, hold: LegalHold, reason: str, proposal: str) -> None:
    tx.holds.drop(hold.id)
    hash_set = tx.sets.by_id(hold.set_id)
    largevalues.release(node, tx, hash_set, hold.id)
    name = hash_set.name
    details: dict[str, object] = {"hold": hold.id, "set": name, "entries": hold.entries, "reason": reason}
    if proposal:
        details["proposal"] = proposal
    _log(tx, node, EventKind.LEGAL_HOLD_ENDED, name, details)


def _set_difference(tx: Transaction, node: Node, arguments: Arguments) -> Sequence[Change]:
    asked = _asked(arguments)
    shelf, hash_set = Shelf(node.keystore.master_key, node.random), tx.sets.get(asked.set_name)
    count = len(_ids(tx, shelf, hash_set, asked))
    return [
        Change(f"kept of {asked.set_name}", "", f"{count} entries, whatever is taken back"),
        Change("for", "", asked.reference),
        Change("until", "", asked.until),
    ]


def _lift_difference(tx: Transaction, _node: Node, arguments: Arguments) -> Sequence[Change]:
    hold = tx.holds.get(_lifted(arguments)[0])
    alone = f"{hold.entries} entries, {hold.gone} of them by this hold alone"
    return [Change(f"kept for {hold.reference}", alone, "no longer kept")]


# What is on hold


def keep_house(node: Node, shelf: Shelf) -> None:
    """Holds whose last day is over have ended; what only a hold keeps is on record."""
    with node.store.reading() as tx:
        if not tx.holds.all():
            return
    today = node.today.isoformat()
    with node.store.transaction() as tx:
        for hold in tx.holds.all():
            gone = hold.entries - len(_still_held(tx, shelf, hold.set_id, tx.holds.entry_ids(hold.id)))
            if gone > hold.gone:
                name = tx.sets.by_id(hold.set_id).name
                details: dict[str, object] = {"hold": hold.id, "set": name, "entries": gone}
                _log(tx, node, EventKind.LEGAL_HOLD_KEEPS, name, details)
            if gone != hold.gone:
                tx.holds.note_gone(hold.id, gone)
            if hold.until < today:
                _end(tx, node, hold, "its last day is over", "")


def kept(node: Node, tx: Transaction, hold: LegalHold) -> list[Kept]:
    """The copies of a hold, opened."""
    return [_opened(node, one) for one in tx.holds.entries(hold.id)]


def naming(node: Node, tx: Transaction, *, entries: Collection[tuple[str, str]], digest: str = "") -> list[Named]:
    """The holds that keep one of these entries (set, entry), or anything that carries a digest (hexadecimal)."""
    found = []
    for hold in tx.holds.all():
        name = tx.sets.by_id(hold.set_id).name
        for one in kept(node, tx, hold):
            if (name, one.entry) in entries or (digest and digest.lower() in one.values.values()):
                found.append(Named(hold.id, name, one.entry, hold.reference, hold.until, one))
    return found


def check_not_held(node: Node, tx: Transaction, marks: Collection[bytes]) -> None:
    """Returns when no hold keeps anything that carries one of these marks.

    Raises:
        ConflictError: one does; erasing would take from a court what another has ordered to keep.
    """
    marker, wanted = Marker(node.keystore), frozenset(marks)
    for hold in tx.holds.all():
        for one in kept(node, tx, hold):
            rows = Rows.of(1, {n: _column(n, word) for n, word in one.values.items() if COLUMNS[n].is_digest})
            if any(column[0].tobytes() in wanted for column in marker.columns(rows).values()):
                raise ConflictError("a legal hold keeps some of this", remedy="`gateway hold list`; two may lift it")


# Copies


def _copies(tx: Transaction, node: Node, shelf: Shelf, hold: LegalHold, ids: Sequence[int]) -> Iterator[HeldEntry]:
    labels = {row.number: row for row in tx.sets.labels(hold.set_id)}
    for held in held_rows(tx, shelf, hold.set_id, integers(ids)):
        columns = {name: held.rows.values(name) for name in held.rows.columns}
        label = labels[held.block.label]
        for at, entry in enumerate(held.rows.ints("entry_id").tolist()):
            members: dict[str, object] = {
                "label": parsed_label(label.attributes).to_json(),
                "duties": label.obligations.split(),
                "values": {name: _word(values[at]) for name, values in columns.items()},
            }
            sealed = node.keystore.master_key.seal(canonical.encode(members), _context(hold.id, entry), node.random)
            yield HeldEntry(hold=hold.id, entry_id=entry, sealed=sealed)


def _ids(tx: Transaction, shelf: Shelf, hash_set: HashSet, asked: _Asked) -> list[int]:
    """The entries that are to be kept; ConflictError where not all of them are held."""
    set_id = hash_set.id or 0
    if not asked.label:
        ids = [parse_entry(one) for one in asked.entries]
        missing = len(ids) - len(_still_held(tx, shelf, set_id, ids))
        if missing:
            raise ConflictError(
                f"the set does not hold {missing} of these entries", remedy="`gateway look-up` finds them"
            )
        return ids
    stored = [row for row in tx.blocks.of_set(set_id) if row.kind == CHANGES and row.label == asked.label]
    with shelf.index(tx, set_id) as index:
        live = [index.live_rows(block_id(row)) for row in stored]
    blocks = shelf.get_all(tx, stored, [EXISTENCE])
    found = [
        entry
        for mask, block in zip(live, blocks, strict=True)
        for entry in decode(block, ["entry_id"]).ints("entry_id")[mask].tolist()
    ]
    if not 0 < len(found) <= MAX_HELD:
        raise ConflictError(f"one hold keeps between 1 and {MAX_HELD:,} entries; this label has {len(found):,}")
    return sorted(found)


def _still_held(tx: Transaction, shelf: Shelf, set_id: int, ids: Sequence[int]) -> list[int]:
    """Those of these entries that the set holds with their values."""
    if not ids:
        return []
    with shelf.index(tx, set_id) as index:
        located = index.locate(integers(ids))
    places = located.block_no[located.found].astype("uint64").tolist()
    kinds = {number: row.kind for number, row in tx.blocks.some(sorted(set(places))).items()}
    there = [entry for entry, found in zip(ids, located.found.tolist(), strict=True) if found]
    return [entry for entry, place in zip(there, places, strict=True) if kinds.get(place) == CHANGES]


def _opened(node: Node, row: HeldEntry) -> Kept:
    raw = node.keystore.master_key.open(row.sealed, _context(row.hold, row.entry_id))
    value = canonical.parse_canonical(raw, max_bytes=MAX_COPY_BYTES)
    assert isinstance(value, dict), "this gateway sealed it"
    label, values = value["label"], value["values"]
    assert isinstance(label, dict)
    assert isinstance(values, dict)
    members: dict[str, object] = dict(value)
    version = int_member(dict(values), "version")
    return Kept(format_entry(row.entry_id), version, label, texts_member(members, "duties"), values)


def _word(value: int | bytes | str) -> int | str:
    return value.hex() if isinstance(value, bytes) else value


def _column(name: str, word: object) -> list[bytes] | list[str]:
    return [str(word)] if COLUMNS[name].kind is ColumnKind.TEXT else [bytes.fromhex(str(word))]


def _context(hold: str, entry: int) -> str:
    return f"legal hold {hold} entry {entry}"


def _log(tx: Transaction, node: Node, kind: EventKind, subject: str, details: dict[str, object]) -> None:
    tx.log.append([node.event(kind, actor=node.agency, subject=subject, details=details)])


# What arguments say


@dataclass(frozen=True, slots=True)
class _Asked:
    set_name: str
    entries: tuple[str, ...]
    label: int
    reference: str
    reason: str
    until: str


def _asked(arguments: Arguments) -> _Asked:
    members = _members(arguments, {"set", "entries", "label", "reference", "reason", "until"})
    name, entries, label = text_member(members, "set"), texts_member(members, "entries"), int_member(members, "label")
    require(SET_NAME.fullmatch(name), "hold: set name is not AGENCY/name")
    require(bool(entries) != bool(label), "a hold names entries, or a label")
    require(len(entries) <= MAX_NAMED and 0 <= label <= MAX_LABELS, f"a hold names at most {MAX_NAMED:,} entries")
    for one in entries:
        parse_entry(one)
    until = text_member(members, "until")
    try:
        require(date.fromisoformat(until).isoformat() == until, "the last day is not written as YYYY-MM-DD")
    except ValueError as error:
        raise MalformedError("the last day is not written as YYYY-MM-DD") from error
    return _Asked(name, entries, label, _line(members, "reference"), _line(members, "reason"), until)


def _lifted(arguments: Arguments) -> tuple[str, str]:
    members = _members(arguments, {"hold", "reason"})
    return text_member(members, "hold"), _line(members, "reason")


def _set_subject(arguments: Arguments) -> str:
    return _asked(arguments).set_name


def _lift_subject(arguments: Arguments) -> str:
    return _lifted(arguments)[0]


def _line(members: dict[str, object], name: str) -> str:
    text = text_member(members, name)
    require(0 < len(text) <= MAX_TEXT_CHARS and text.isprintable(), f"a {name} is one line, and needed")
    return text


def _members(arguments: Arguments, names: set[str]) -> dict[str, object]:
    require(set(arguments) == names, "a guarded act with other arguments than it takes")
    return dict(arguments)


HOLD_ACTS: Mapping[str, Act] = {
    "hold_lift": Act("end a legal hold", _lift_subject, _lift, _lift_difference),
    "hold_set": Act("keep entries for a court, whatever is taken back", _set_subject, _set, _set_difference),
}
