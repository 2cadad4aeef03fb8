"""The never-again list: what was withdrawn as wrong, or erased by order, and must not come back.

    wrong       withdrawn by its owner: binds that originator, so it is not taken into the agency's own sets again
    erased      by order: binds every source, a file, a partner's page, a re-offer after a restore alike
    reinstated  two administrators have lifted a listing

A *listing* is one entry with the **marks** of all its digests (`columns.marks`): a mark can only be made, or compared
with a digest, under a key of the keystore. So the list tells nobody what stands in it, and neither does a copy of it.

Rules:

1. The list only grows. Each row carries a MAC over itself and the row before it, and the log names number and MAC of
   the last row after each change (`never_again_changed`): a row that was changed, put in, put back or taken out shows,
   when the list is read and when the gateway is opened (`standing`).
2. A row is held back when any one digest of it is listed and binds whoever speaks. Every digest counts, perceptual ones
   too: to the last bit equal they say "the same picture, saved anew", and that is what the order, or the mistake, was
   about. One says nothing: a PDQ of a quality below 50 is left out, since pictures without structure share theirs. Near
   perceptual digests are never compared.
3. What is held back is told: by count and reason in the log, row by row to whoever imports.
4. Nothing here is asked of a database for each row: the marks are resident, and follow what is committed.

Contract: contracts/never-again-1.md. Erasing itself: `erasing`; the list as a file: `listfile`.
"""

from __future__ import annotations

import hmac
import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from gateway import standing
from gateway.adapters.fields import MIN_PDQ_QUALITY
from gateway.audit import EventKind
from gateway.columns.marks import MarkIndex, cmac, mask_of, packed_marks
from gateway.columns.rows import DIGESTS, ColumnKind, Mask, Octets, Rows, Text, integers
from gateway.crypto.cipher import BlockCipher
from gateway.errors import AuditBrokenError
from gateway.keystore import Keystore
from gateway.node import Node
from gateway.partners import length_prefixed
from gateway.store import Transaction
from gateway.store.neveragain import NeverAgainRow

WRONG, ERASED, REINSTATED = "wrong", "erased", "reinstated"
KNOWN_GOOD = "known_good"  # kept from own sets as well, by another list (`knowngood`)
EVERYBODY = ""  # the scope of what binds every source
REASONS: Mapping[str, str] = {
    WRONG: "withdrawn as wrong before; two administrators may reinstate it",
    ERASED: "erased by order; it is taken from nobody",
    KNOWN_GOOD: "of a harmless or common file; `gateway allow-list list` names the lists",
}
_MARK_KEY, _ROW = "never again mark 1", "never again row 1"
_REMEDY = "stop the gateway, keep everything as it is, and run `gateway audit verify`; a backup has the rows of before"


class Marker:
    """Makes marks: each algorithm has a key of its own, so that equal octets of two algorithms do not look alike.

    Args:
        purpose: of the keys: marks of two purposes cannot be compared.
    """

    def __init__(self, keystore: Keystore, purpose: str = _MARK_KEY) -> None:
        self._keystore = keystore
        self._purpose = purpose
        self._ciphers: dict[str, BlockCipher] = {}

    def column(self, algorithm: str, values: Octets | Text) -> Octets:
        """The marks of one column of digests, n × 16."""
        cipher = self._ciphers.get(algorithm)
        if cipher is None:
            key = self._keystore.row_mac(length_prefixed(self._purpose, algorithm))
            cipher = self._ciphers[algorithm] = BlockCipher(key)
        return cmac(values, cipher.encrypt)

    def columns(self, rows: Rows) -> dict[str, Octets]:
        """The marks of every digest column that is here."""
        return {
            one.name: self.column(
                one.name, rows.text(one.name) if one.kind is ColumnKind.TEXT else rows.octets(one.name)
            )
            for one in DIGESTS
            if one.name in rows.columns
        }

    def listed(self, rows: Rows, algorithms: Collection[str] | None = None) -> list[frozenset[bytes]]:
        """Of each row the marks under which it is to be listed (rule 2); at least one where it has any digest.

        Args:
            algorithms: only these, where a row has any of them; None for all.
        """
        columns = {name: [one.tobytes() for one in marks] for name, marks in self.columns(rows).items()}
        quality = rows.ints("pdq_quality").tolist()
        found = []
        for row in range(rows.n):
            marks = {name: values[row] for name, values in columns.items()}
            telling = {n: mark for n, mark in marks.items() if n != "pdq" or not 0 < quality[row] < MIN_PDQ_QUALITY}
            wanted = {n: mark for n, mark in telling.items() if algorithms is None or n in algorithms}
            found.append(frozenset((wanted or telling or marks).values()))
        return found


@dataclass(frozen=True, slots=True)
class Barred:
    """Rows that must not come: a mask over all rows, and of each such row the algorithm and the kind of listing."""

    mask: Mask
    found: Mapping[int, tuple[str, str]]

    @property
    def counts(self) -> dict[str, int]:
        """How many by kind, as the log tells it."""
        return counted_kinds(kind for _, kind in self.found.values())


class Barrier(Protocol):
    """Something that rows have to pass: the never-again list, or what is known good besides."""

    def find(self, rows: Rows) -> Barred | None:
        """Those of these rows that must not come; None when all may."""


def counted_kinds(kinds: Iterable[str]) -> dict[str, int]:
    """How many rows were kept out by kind, as the log tells it."""
    words = [kind if kind == KNOWN_GOOD else f"never_again_{kind}" for kind in kinds]
    return {word: words.count(word) for word in sorted(set(words))}


@dataclass(frozen=True, slots=True)
class Listing:
    """One entry that was listed, as the rows tell it. `reinstated`: when, in Unix seconds; 0 while it is in force."""

    number: int
    kind: str
    scope: str
    at: int
    leaf: int
    marks: frozenset[bytes]
    reinstated: int = 0


@dataclass(slots=True)
class _Resident:
    """What was read of the list, and how far. `binds`: (kind, scope) of every listing in force.

    `checked`: whether the log was asked once where the list ends.
    """

    checked: bool = False
    end: tuple[int, bytes] = (0, b"")
    index: MarkIndex = field(default_factory=MarkIndex)
    binds: dict[int, tuple[str, str]] = field(default_factory=dict)


class NeverAgain:
    """One gateway's list: asked by whoever takes rows in, added to by whoever takes rows away. Safe for threads."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._resident = _Resident()
        self._following = threading.Lock()
        self.marker = Marker(node.keystore)

    def bars(self, tx: Transaction, owner: str) -> Bars | None:
        """What must not come from an originator, as of what is committed; None while nothing is listed at all.

        Raises:
            AuditBrokenError: the list is not as it was written.
        """
        assert not tx.never_again.changed, "the list would follow what is not committed"
        with self._following:
            self._follow(tx)
            return Bars(self, owner) if len(self._resident.index) else None

    def find(self, rows: Rows, owner: str) -> Barred | None:
        """Those of these rows that must not come from an originator, as of the last `bars`; None when all may."""
        found: dict[int, tuple[str, str]] = {}
        for name, marks in self.marker.columns(rows).items():
            with self._following:
                where, listings = self._resident.index.find(marks)
                for row, listing in zip(where.tolist(), listings.tolist(), strict=True):
                    kind, scope = self._resident.binds.get(listing, ("", ""))
                    binds = kind == ERASED or (kind == WRONG and scope == owner)
                    if binds and found.get(row, ("", ""))[1] != ERASED:
                        found[row] = name, kind
        return Barred(mask_of(rows.n, found), found) if found else None

    def _follow(self, tx: Transaction) -> None:
        """Read what was added since; whatever was read before must still be the beginning of the list."""
        resident, end = self._resident, tx.never_again.end()
        if not resident.checked:
            standing.check_list(tx, self._node)
            resident.checked = True
        if end == resident.end:
            return
        if end[0] <= resident.end[0]:
            raise _broken("rows of the never-again list are gone, or were changed")
        rows = verified(self._node, tx.never_again.since(resident.end[0]), resident.end)
        marked = [row for row in rows if row.kind != REINSTATED]
        resident.index.add(packed_marks([row.mark for row in marked]), integers([row.listing for row in marked]))
        for row in rows:
            if row.kind == REINSTATED:
                resident.binds.pop(row.listing, None)
            else:
                resident.binds[row.listing] = (row.kind, row.scope)
        resident.end = end

    # Adding

    def list_wrong(self, tx: Transaction, rows: Iterable[Rows], set_name: str) -> None:
        """List entries that were withdrawn by their owner, this agency."""
        entries = [marks for some in rows for marks in self.marker.listed(some)]
        add(self._node, tx, WRONG, entries, details={"deed": "withdrawn", "set": set_name})


@dataclass(frozen=True, slots=True)
class Bars:
    """What must not come from one originator."""

    _list: NeverAgain
    owner: str

    def find(self, rows: Rows) -> Barred | None:
        """Those of these rows that must not come; None when all may."""
        return self._list.find(rows, self.owner)


def add(
    node: Node,
    tx: Transaction,
    kind: str,
    entries: Sequence[Collection[bytes]],
    *,
    details: Mapping[str, object],
) -> None:
    """List entries, each by its marks, and tell the log. One without any digest cannot be listed, and is not.

    Args:
        kind: WRONG binds this agency, ERASED everybody.
        details: of the event, beside what is counted here.
    """
    scope = node.agency if kind == WRONG else EVERYBODY
    new = [Listing(0, kind, scope, node.clock(), 0, frozenset(marks)) for marks in entries if marks]
    append(node, tx, new, details=details)


def lift(node: Node, tx: Transaction, listings: Sequence[int], *, details: Mapping[str, object]) -> None:
    """Reinstate listings, and tell the log."""
    now = node.clock()
    lifted = [Listing(number, REINSTATED, EVERYBODY, now, 0, frozenset()) for number in listings]
    append(node, tx, lifted, details=details)


def append(node: Node, tx: Transaction, listings: Sequence[Listing], *, details: Mapping[str, object]) -> list[int]:
    """Add listings, or what lifts them, in order, with one event; returns their numbers. Empty: nothing is done.

    Raises:
        AuditBrokenError: the list ends elsewhere than the log says.
    """
    if not listings:
        return []
    standing.check_list(tx, node)
    number, mac = tx.never_again.end()
    leaf = tx.log.size()
    rows, numbers = [], []
    for one in listings:
        listing = one.number if one.kind == REINSTATED else number + 1
        numbers.append(listing)
        for mark in sorted(one.marks) or [b""]:
            number += 1
            row = NeverAgainRow(number, mark, one.kind, one.scope, listing, one.at, leaf)
            mac = _mac(node, row, mac)
            rows.append(row._replace(mac=mac))
    tx.never_again.add(rows)
    counted = {"listings": len(listings), "listed": number, "list_head": mac.hex()}
    event = node.event(
        EventKind.NEVER_AGAIN_CHANGED, actor=node.agency, subject=node.agency, details={**details, **counted}
    )
    tx.log.append([event])
    standing.keep(tx, node)  # so that the next one to ask where the list ends reads the log from here
    return numbers


# Reading


def listings(node: Node, tx: Transaction) -> list[Listing]:
    """Everything that was ever listed, in order. AuditBrokenError: the list is not as it was written."""
    return gathered(verified(node, tx.never_again.since()))


def gathered(rows: Iterable[NeverAgainRow]) -> list[Listing]:
    """The listings that verified rows make."""
    marks: dict[int, set[bytes]] = {}
    first: dict[int, NeverAgainRow] = {}
    lifted: dict[int, int] = {}
    for row in rows:
        if row.kind == REINSTATED:
            lifted.setdefault(row.listing, row.at)
        else:
            first.setdefault(row.listing, row)
            marks.setdefault(row.listing, set()).add(row.mark)
    return [
        Listing(number, row.kind, row.scope, row.at, row.leaf, frozenset(marks[number]), lifted.get(number, 0))
        for number, row in first.items()
    ]


def verified(node: Node, rows: Sequence[NeverAgainRow], after: tuple[int, bytes] = (0, b"")) -> Sequence[NeverAgainRow]:
    """These rows, if they are the ones that were written behind `after` (number and MAC), none missing between.

    Raises:
        AuditBrokenError: one is not.
    """
    number, mac = after
    for row in rows:
        number += 1
        # SQLite keeps whatever type it is given, so another one shows that somebody else wrote it.
        written = isinstance(row.mark, bytes) and isinstance(row.mac, bytes)
        if row.id != number or not written or not hmac.compare_digest(row.mac, _mac(node, row, mac)):
            raise _broken(f"row {number} of the never-again list is not as it was written")
        mac = row.mac
    return rows


def check(node: Node, tx: Transaction) -> int:
    """Returns how many listings are in force when the whole list is as it was written, and as the log says.

    Raises:
        AuditBrokenError: it is not.
    """
    standing.check_list(tx, node)
    return sum(not one.reinstated for one in listings(node, tx))


def _mac(node: Node, row: NeverAgainRow, before: bytes) -> bytes:
    """Over a line for each value. None that was written holds a line end, so no other row makes the same lines."""
    numbers = f"{row.id}\n{row.listing}\n{row.at}\n{row.leaf}"
    lines = f"{_ROW}\n{before.hex()}\n{row.mark.hex()}\n{row.kind}\n{row.scope}\n{numbers}\n"
    return node.keystore.row_mac(lines.encode())


def _broken(message: str) -> AuditBrokenError:
    error = AuditBrokenError(message)
    error.remedy = _REMEDY
    return error
