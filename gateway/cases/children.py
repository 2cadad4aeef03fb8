"""Children of cases, as subjects: by the case's digests and entries, under the case's label.

Of a case with one child the case's material is the child's. Of one with several nobody but a person can tell which
material shows whom: then only what names the child itself counts, and partners are told nothing but of entries that the
person gives.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gateway.caserecord import CASES_SET
from gateway.cases.keeping import Casebook, CaseState, HeldCase
from gateway.cases.subjects import Kept, Marks, Named, Subject, of_entries
from gateway.errors import NotFoundError
from gateway.exchange.lookup import format_entry
from gateway.exchange.shelf import Shelf
from gateway.model import CRYPTOGRAPHIC, VictimStatus
from gateway.node import Node
from gateway.statusmail import Material
from gateway.store import Transaction
from gateway.store.tables import CaseRow

REFERRED = "case"  # in place of a mirror's label: the material of a case that a partner referred


@dataclass(frozen=True, slots=True)
class Child:
    """A child of an open case who is still being looked for."""

    case: str
    victim: str
    status: VictimStatus
    urgency: str


def of_child(node: Node, tx: Transaction, shelf: Shelf, case: str, victim: str) -> Named:
    """The subject that a child of a case makes, and the series that the case names.

    Raises:
        NotFoundError: no such case, or no such child in it.
        ConflictError: the content of the case is gone.
        MalformedError: what policy judges by is not stated yet.
    """
    held = Casebook(node).open(tx.cases.beginning(case))
    if all(one.ref != victim for one in held.record.victims):
        raise NotFoundError("no such child in this case", remedy="`gateway case show` names the pseudonyms")
    kept = list(_material(node, tx, shelf, held)) if len(held.record.victims) == 1 else []
    return Named(Subject(tuple(kept), (), held.row.id, victim), frozenset(one.name for one in held.record.series))


def _material(node: Node, tx: Transaction, shelf: Shelf, held: HeldCase) -> Iterator[Kept]:
    record = held.record
    came = "" if record.originator == node.agency and not held.row.source else REFERRED
    pairs = {pair for one in record.entries for pair in one.digests if pair[0] in CRYPTOGRAPHIC}
    if pairs:
        yield Kept(Material(f"{record.originator}/{CASES_SET}", record.label, tuple(sorted(pairs))), came)
    named: dict[str, list[str]] = {}
    for one in record.entries:
        if one.set_name and tx.sets.find(one.set_name) is not None:
            named.setdefault(one.set_name, []).append(format_entry(one.entry_id))
    for set_name, entries in named.items():
        for entry in entries:
            try:
                yield from of_entries(tx, shelf, set_name, [entry]).subject.kept
            except NotFoundError:
                continue  # it was withdrawn meanwhile: nobody is told of it


def sought(node: Node, tx: Transaction, known: frozenset[bytes]) -> Iterator[Child]:
    """Children of open cases for whom nobody has said yet that they are identified.

    Args:
        known: the marks of all that anybody has identified.
    """
    book, marks = Casebook(node), Marks(node.keystore)
    for row in tx.cases.all([str(CaseState.INBOX), str(CaseState.OPEN)]):
        record = book.open(row).record
        alone = len(record.victims) == 1
        pairs = [pair for one in record.entries for pair in one.digests if pair[0] in CRYPTOGRAPHIC] if alone else []
        common = {*marks.of_digests(pairs), *(marks.of_series(one.name) for one in record.series if alone)}
        for victim in record.victims:
            own = marks.of_victim(row.id, victim.ref)
            if _is_sought(victim.status) and known.isdisjoint({own, *common}):
                yield Child(row.id, victim.ref, victim.status, row.urgency)


def partners_of(tx: Transaction, case: str) -> set[str]:
    """Partners with whom a case was shared, and the one that referred it to us."""
    row: CaseRow | None = tx.cases.find(case) if case else None
    return set() if row is None else {*tx.statuses.case_partners(case), *([row.source] if row.source else [])}


def _is_sought(status: VictimStatus) -> bool:
    return status in (VictimStatus.UNKNOWN, VictimStatus.UNIDENTIFIED, VictimStatus.LEAD)
