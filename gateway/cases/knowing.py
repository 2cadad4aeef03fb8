"""What all agencies together say of material, worked out when somebody asks and stored nowhere."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from gateway.cases import lines
from gateway.cases.children import Child, sought
from gateway.cases.lines import Line
from gateway.cases.merging import in_force
from gateway.cases.subjects import Marks, of_entries, series_names
from gateway.columns.rows import GROUP_CODES, Mask, Rows
from gateway.errors import NotFoundError
from gateway.exchange.contents import Contents
from gateway.exchange.labels import stored_label
from gateway.exchange.lookup import NOTHING_SAID, Hit, Said
from gateway.exchange.shelf import Shelf
from gateway.model import CRYPTOGRAPHIC, FieldGroup, VictimStatus
from gateway.node import Node
from gateway.statuses import RANK, Joined, join
from gateway.store import Transaction
from gateway.store.tables import BlockRow, HashSet

FOUND_WORDS = tuple(str(status) for status, rank in RANK.items() if rank >= RANK[VictimStatus.IDENTIFIED])
SOUGHT = frozenset({VictimStatus.UNKNOWN, VictimStatus.UNIDENTIFIED, VictimStatus.LEAD})
_PARTS = {GROUP_CODES[group] for group in (FieldGroup.CRYPTOGRAPHIC_DIGESTS, FieldGroup.SERIES)}


@dataclass(frozen=True, slots=True)
class Known:
    """What all agencies together say of something: the status, and the assertions behind it, with whom to call."""

    joined: Joined
    contacts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Sought:
    """An entry of ours whose child is still being looked for. `by`: agencies that hold a lead on it."""

    set_name: str
    entry: int
    status: VictimStatus
    series: str
    by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Worklist:
    """What is still to be looked for: some entries, by set how many there are, and children of open cases."""

    shown: tuple[Sought, ...]
    counts: Mapping[str, int]
    children: tuple[Child, ...] = ()


class Knowledge:
    """Reads assertions, ours and others', and says what they make together."""

    def __init__(self, node: Node, shelf: Shelf) -> None:
        self._node = node
        self._shelf = shelf
        self._contents = Contents(node, shelf)
        self._marks = Marks(node.keystore)

    def of_digests(
        self, tx: Transaction, digests: Sequence[tuple[str, bytes]], series: Collection[str] = ()
    ) -> dict[int, Known]:
        """What all agencies say of each digest, by its place in the question; of none nothing is said.

        Args:
            digests: (algorithm, canonical bytes); of others than cryptographic ones nothing is known.
            series: names that every one of them belongs to.
        """
        marks = list(self._marks.of_digests(digests))
        names = series_names(self._node, tx, series)
        common = {self._marks.of_series(name) for name in names}
        met: dict[bytes, list[tuple[str, str]]] = {}
        for mark, agency, number in tx.statuses.meeting({*marks, *common}):
            met.setdefault(mark, []).append((agency, number))
        opened: dict[tuple[str, str], Line] = {}
        for key in {key for keys in met.values() for key in keys}:
            row = tx.statuses.find(*key)
            if row is not None:
                opened[key] = lines.opened(self._node, row)
        found = {}
        for place, mark in enumerate(marks):
            keys = {key for one in (mark, *common) for key in met.get(one, ())}
            if keys:
                found[place] = _known([opened[key] for key in sorted(keys) if key in opened])
        return found

    def remarks(self, tx: Transaction, hits: Sequence[Hit]) -> list[Said]:
        """What agencies say of the children behind what a look-up found: a line each. Of what looks alike, nothing."""
        found = [NOTHING_SAID] * len(hits)
        alike: dict[str, list[int]] = {}
        for place, hit in enumerate(hits):
            if hit.algorithm in CRYPTOGRAPHIC:
                alike.setdefault(hit.series, []).append(place)
        for series, places in alike.items():
            asked = [(hits[place].algorithm, bytes.fromhex(hits[place].digest)) for place in places]
            known = self.of_digests(tx, asked, [series] if series else [])
            for at, one in known.items():
                found[places[at]] = _said(one)
        return found

    def of_entry(self, tx: Transaction, set_name: str, entry: str) -> tuple[VictimStatus, Known]:
        """The status in an entry's own label, and what all agencies say of it."""
        named = of_entries(tx, self._shelf, set_name, [entry])
        [kept] = named.subject.kept
        series = series_names(self._node, tx, named.series)
        marks = {*self._marks.of_material(kept.material), *map(self._marks.of_series, series)}
        keys = sorted({(agency, number) for _, agency, number in tx.statuses.meeting(marks)})
        rows = [tx.statuses.find(*key) for key in keys]
        return kept.material.label.victim_status, _known([lines.opened(self._node, row) for row in rows if row])

    def worklist(self, set_name: str = "", *, limit: int = 0) -> Worklist:
        """Entries of our own sets whose child is still being looked for: what anybody has identified is not in it.

        Args:
            limit: how many are shown; 0 for all. All are counted.
        """
        with self._shelf.reading(self._node.store) as tx:
            own = [row for row in tx.sets.all() if not row.hub and set_name in ("", row.name)]
            if set_name and not own:
                raise NotFoundError("no such set of ours", remedy="`gateway set list` names them")
            found, leads = tx.statuses.marks_of_statuses(FOUND_WORDS), self._leads(tx)
            known = frozenset(found) | self.merged(tx, found)
            children = () if set_name else tuple(sought(self._node, tx, known))
            held = [(one, *self._held(tx, one)) for one in own]
        shown: list[Sought] = []
        counts: dict[str, int] = {}
        for hash_set, labels, blocks in held:
            # Read in pieces, so that nobody who writes waits for a long list.
            for row, rows in self._contents.rows(blocks, dict.fromkeys(labels, _PARTS)):
                for one in self._sought_in(hash_set, rows, labels[row.label], known, leads):
                    counts[hash_set.name] = counts.get(hash_set.name, 0) + 1
                    if not limit or len(shown) < limit:
                        shown.append(one)
        return Worklist(tuple(shown), counts, children)

    def _held(self, tx: Transaction, hash_set: HashSet) -> tuple[dict[int, VictimStatus], list[tuple[BlockRow, Mask]]]:
        """The labels under which a set lists children who are looked for, and the blocks under them."""
        labels = {row.number: stored_label(row).victim_status for row in tx.sets.labels(hash_set.id or 0)}
        wanted = {number: status for number, status in labels.items() if status in SOUGHT}
        return wanted, self._contents.held(tx, hash_set.id or 0, wanted)

    def _leads(self, tx: Transaction) -> dict[bytes, set[str]]:
        """The marks on which agencies hold a lead, each with who does."""
        leads: dict[bytes, set[str]] = {}
        for row in tx.statuses.all():
            if row.status == VictimStatus.LEAD:
                for one in tx.statuses.marks(row.agency, row.number):
                    leads.setdefault(one.mark, set()).add(row.agency)
        return leads

    def _sought_in(
        self, hash_set: HashSet, rows: Rows, status: VictimStatus, known: frozenset[bytes], leads: dict[bytes, set[str]]
    ) -> Iterator[Sought]:
        columns = list(self._marks.of_rows(rows).values())
        series = rows.text("series").to_list()
        names = {name: self._marks.of_series(name) for name in set(series) if name}
        for at, entry in enumerate(rows.ints("entry_id").tolist()):
            marks = [column[at] for column in columns]
            marks.append(self._marks.of_entry(hash_set.name, entry))
            if series[at]:
                marks.append(names[series[at]])
            if not known.isdisjoint(marks):
                continue
            by = sorted({agency for mark in marks for agency in leads.get(mark, ())})
            yield Sought(hash_set.name, entry, VictimStatus.LEAD if by else status, series[at], tuple(by))

    def merged(self, tx: Transaction, marks: Collection[bytes]) -> set[bytes]:
        """The marks of every series name that stands for one of these."""
        found: set[bytes] = set()
        for names in in_force(self._node, tx):
            made = {name: self._marks.of_series(name) for name in names}
            if not set(made.values()).isdisjoint(marks):
                every = series_names(self._node, tx, names)
                found.update(map(self._marks.of_series, every))
        return found


def _said(known: Known) -> Said:
    by = known.joined.by
    agencies, contacts = tuple(sorted({one.agency for one in by})), [contact for _, contact in known.contacts]
    since = min(one.at for one in by)
    return Said((_in_words(known),), known.joined.status, agencies, since, "; ".join(contacts))


def _in_words(known: Known) -> str:
    """One line: `identified by XA-NCVI since 2026-11-18, Unit 4, +99 555 0100`."""
    by = known.joined.by
    since = datetime.fromtimestamp(min(one.at for one in by), UTC).date().isoformat()
    agencies = ", ".join(sorted({one.agency for one in by}))
    contacts = [contact for _, contact in known.contacts]
    return ", ".join([f"{known.joined.status} by {agencies} since {since}", *contacts])


def _known(found: Sequence[Line]) -> Known:
    joined = join(one.assertion for one in found)
    by = {one.key for one in joined.by}
    contacts = tuple((one.assertion.agency, one.contact) for one in found if one.assertion.key in by and one.contact)
    return Known(joined, contacts)
