"""Known-good digests: what must never be listed, whoever lists it, since it is of a harmless or common file.

    built in     the empty file and files of nothing but one octet or line ends; digests that are all zeros or all ones,
                 which broken programs write
    allow-lists  any list that an administrator brings: of an operating system's files, of NIST's reference library

What carries such a digest is refused for own sets, the row named. Into a mirror it is taken, since a mirror must hold
what its hub says; it can never be acted on there (`quality`), and an alarm tells that the hub may be poisoned.

Rules:

1. A list holds marks: the first eight octets of a keyed digest of each digest (`columns.marks`). Nobody can read from
   it what it lists. Ten million take 80 MB, in the database and in memory. A row is taken for one that is listed, by
   chance, with 2^-64 for each pair.
2. A list comes in parts, and counts from the last commit of its import on. An import that was cut off leaves a list
   that counts for nothing, and is cleared away by the next.
3. Parts and rows are bound by MACs, and the log names the head of each list in force (`allow_list_changed`,
   `standing`): a list that was shortened, put back or taken away stops the gateway.
4. One person adds a list, on record: it takes nothing away from anybody. Two administrators remove one: what it kept
   out could come in again. Perceptual digests are never known good: others that look alike may be anything.

Contract: contracts/known-good-1.md; decision 0024.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

from gateway import standing
from gateway.alarms import AlarmKind, raise_alarm
from gateway.approvals import Act, Arguments, Change
from gateway.audit import Event, EventKind
from gateway.columns.marks import SHORT_MARKS_A_PART, KnownMarks, mask_of, short_marks
from gateway.columns.rows import Mask, Octets, Rows, chosen, unmarked
from gateway.errors import AuditBrokenError, ConflictError, MalformedError, NotFoundError
from gateway.exchange.neveragain import KNOWN_GOOD, Barred, Barrier, Marker
from gateway.model import CRYPTOGRAPHIC, MAX_TEXT_CHARS, AdapterReport, require, text_member
from gateway.node import Node
from gateway.partners import length_prefixed
from gateway.store import Transaction
from gateway.store.allowlists import IN_FORCE, LOADING, REMOVED
from gateway.store.tables import AllowList

_LARGEST_COMMON = 17  # powers of two, from one octet to 64 KiB: what broken downloads and blank blocks come to
_MARK_KEY, _ROW, _PART = "known good mark 1", "allow list row 1", "allow list part 1"
_COMMON = (
    b"",
    b"\n",
    b"\r\n",
    b"\0\n",
    *(octet * (1 << size) for octet in (b"\0", b"\xff", b" ") for size in range(17)),
)


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of a list: its number, how many digests it lists, and how many of them stand in sets here now."""

    number: int
    digests: int
    held: int


@dataclass(slots=True)
class _Resident:
    """What is known now. `heads`: of the lists that it was read from."""

    heads: Mapping[int, bytes] | None = None
    marks: KnownMarks = field(default_factory=KnownMarks)


class KnownGood:
    """What is known good, asked by whoever takes rows in or judges them. Safe for threads."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._marker = Marker(node.keystore, _MARK_KEY)
        self._resident = _Resident()
        self._following = threading.Lock()

    def with_bars(self, tx: Transaction, bars: Barrier | None) -> Barrier:
        """What keeps rows from own sets: other bars, and what is known good as of what is committed."""
        return Bars(bars, self, self.follow(tx))

    def mask(self, tx: Transaction, rows: Rows) -> Mask:
        """Which of these rows carry a known-good digest, as of what is committed."""
        found = unmarked(rows.n)
        for _, known in self.find(self.follow(tx), rows):
            found |= known
        return found

    def counter(self, tx: Transaction) -> Callable[[Rows], int]:
        """What counts, of rows that arrive, those that are known good."""
        marks = self.follow(tx)

        def count(rows: Rows) -> int:
            found = unmarked(rows.n)
            for _, known in self.find(marks, rows):
                found |= known
            return int(found.sum())

        return count

    def tell(self, tx: Transaction, set_name: str, count: int) -> None:
        """A page brought known-good digests into a mirror: an alarm says how many, in all as long as it is open."""
        if count:
            known = tx.alarms.open(AlarmKind.KNOWN_GOOD_LISTED, set_name)
            total = count - (known.level if known else 0)
            detail = f"{total:,} entries that came with this set carry digests of harmless or common files"
            raise_alarm(tx, self._node, AlarmKind.KNOWN_GOOD_LISTED, set_name, detail, level=-total)

    def find(self, marks: KnownMarks, rows: Rows) -> Iterator[tuple[str, Mask]]:
        """By algorithm, which of these rows carry a known-good digest."""
        for name in CRYPTOGRAPHIC:
            if name in rows.columns:
                values = rows.octets(name)
                known = _built_in(name, values)
                if len(marks):
                    known |= marks.known(self._marker.column(name, values))
                yield name, known

    def follow(self, tx: Transaction) -> KnownMarks:
        """The marks of all lists in force, as of what is committed.

        Raises:
            AuditBrokenError: a list is not as it was written, or not as the log says.
        """
        lists = [one for one in tx.allow_lists.all() if one.state == IN_FORCE]
        heads = {one.id: one.head for one in lists}
        with self._following:
            if self._resident.heads != heads:
                standing.check_tables(tx, self._node)
                parts = [part for one in lists for part in verified(self._node, tx, one)]
                self._resident = _Resident(heads, KnownMarks(parts))
            return self._resident.marks

    # Adding

    def import_list(
        self,
        name: str,
        batches: Iterable[Rows],
        report: AdapterReport,
        *,
        actor: str,
        held: Callable[[Rows], int] = lambda _rows: 0,
        on_batch: Callable[[int], None] = lambda _count: None,
    ) -> Imported:
        """Take in a list of known-good digests; it counts from the end of this call on.

        Args:
            batches: one digest column each, as `adapters.known_good` reads them; any number of them.
            report: of the reading, for the log.
            held: how many of some digests stand in sets here.
            on_batch: told how many digests there are so far.

        Raises:
            MalformedError: the list is empty, or its name is none.
        """
        require(0 < len(name) <= MAX_TEXT_CHARS and name.isprintable(), "a list has a name, on one line")
        row = self._begin(name)
        waiting: list[Octets] = []
        count = standing_in = 0
        for rows in batches:
            standing_in += held(rows)
            for algorithm in rows.columns:
                waiting.append(self._marker.column(algorithm, rows.octets(algorithm)))
                count += rows.n
            if sum(map(len, waiting)) >= SHORT_MARKS_A_PART:
                row, waiting = self._add(row, waiting), []
                on_batch(count)
        row = self._add(row, waiting)
        if not count:
            raise MalformedError("the list holds no digest")
        with self._node.store.transaction() as tx:
            _check_still(tx, row)
            row = self._signed(row, state=IN_FORCE, digests=count)
            tx.allow_lists.put(row)
            details = {"list": row.id, "name": name, "state": IN_FORCE, "digests": count, "list_head": row.head.hex()}
            details |= {"refused": report.refused} if report.refused else {}
            tx.log.append([_event(self._node, actor, name, details)])
        return Imported(row.id, count, standing_in)

    def _begin(self, name: str) -> AllowList:
        """A row for a list that counts for nothing yet; what was begun and not finished before goes."""
        with self._node.store.transaction() as tx:
            for one in tx.allow_lists.all():
                if one.state == LOADING:
                    tx.allow_lists.drop_parts(one.id)
                    tx.allow_lists.put(self._signed(one, state=REMOVED))
            number, now = tx.allow_lists.next_id(), self._node.clock()
            row = AllowList(id=number, name=name, state=LOADING, digests=0, parts=0, added=now, head=b"", mac=b"")
            row = self._signed(row)
            tx.allow_lists.put(row)
        return row

    def _add(self, row: AllowList, marks: Sequence[Octets]) -> AllowList:
        """The list with more marks, in one commit. A crash after it leaves a list that counts for nothing."""
        with self._node.store.transaction() as tx:
            _check_still(tx, row)
            for part in short_marks(marks):
                number = row.parts + 1
                tx.allow_lists.add_part(row.id, number, part)
                row = self._signed(row, parts=number, head=_head(self._node, row, number, part))
            tx.allow_lists.put(row)
        return row

    def _signed(self, row: AllowList, **changed: object) -> AllowList:
        made = AllowList(**{**row.model_dump(), **changed})
        made.mac = _mac(self._node, made)
        return made


@dataclass(frozen=True, slots=True)
class Bars:
    """What keeps rows from own sets: other bars come first, since they say more."""

    _others: Barrier | None
    _known: KnownGood
    _marks: KnownMarks

    def find(self, rows: Rows) -> Barred | None:
        """Those of these rows that must not come; None when all may."""
        barred = self._others.find(rows) if self._others is not None else None
        found = {
            row: (name, KNOWN_GOOD)
            for name, known in self._known.find(self._marks, rows)
            for row in chosen(known).tolist()
        }
        if barred is not None:
            found |= barred.found
        return Barred(mask_of(rows.n, found), found) if found else None


def _check_still(tx: Transaction, row: AllowList) -> None:
    """Returns when nobody else has touched a list that is being read in."""
    if not any(one.id == row.id and one.mac == row.mac for one in tx.allow_lists.all()):
        raise ConflictError("another list is being imported", remedy="import them one after the other")


def verified(node: Node, tx: Transaction, row: AllowList) -> Iterator[bytes]:
    """The parts of a list, as they were written.

    Raises:
        AuditBrokenError: one was changed, put in, or taken out.
    """
    check_row(node, row)
    head, count = AllowList(**{**row.model_dump(), "head": b""}), 0
    for number, part in tx.allow_lists.parts(row.id):
        count += 1
        if number != count:
            raise _broken()
        head.head = _head(node, head, number, part)
        yield part
    if (head.head, count) != (row.head, row.parts):
        raise _broken()


def check_row(node: Node, row: AllowList) -> None:
    """Returns when this gateway wrote the row as it stands."""
    if row.mac != _mac(node, row):
        raise _broken()


def lists(node: Node, tx: Transaction) -> list[AllowList]:
    """Every list, also those that were removed; AuditBrokenError where a row is not as it was written."""
    found = tx.allow_lists.all()
    for one in found:
        check_row(node, one)
    return found


# Removing


def remove(number: int, reason: str) -> tuple[str, Arguments]:
    """The act that removes an allow-list: what it kept out may come in again."""
    return "allow_list_remove", {"list": number, "reason": reason}


def _remove(tx: Transaction, node: Node, arguments: Arguments, proposal: str) -> None:
    number, reason = _argued(arguments)
    row = _in_force(node, tx, number)
    tx.allow_lists.drop_parts(number)
    row.state = REMOVED
    row.mac = _mac(node, row)
    tx.allow_lists.put(row)
    details = {"list": number, "name": row.name, "state": REMOVED, "reason": reason, "proposal": proposal}
    tx.log.append([_event(node, node.agency, row.name, details)])


def _in_force(node: Node, tx: Transaction, number: int) -> AllowList:
    for one in lists(node, tx):
        if one.id == number and one.state == IN_FORCE:
            return one
    raise NotFoundError("no such list is in force", remedy="`gateway allow-list list` names those there are")


def _difference(tx: Transaction, node: Node, arguments: Arguments) -> Sequence[Change]:
    number, _ = _argued(arguments)
    return [
        Change(
            f"allow-list {number}, {row.name}",
            f"{row.digests:,} digests are kept out of our sets",
            "they may be listed",
        )
        for row in lists(node, tx)
        if row.id == number and row.state == IN_FORCE
    ]


def _subject(arguments: Arguments) -> str:
    return f"allow-list {_argued(arguments)[0]}"


def _argued(arguments: Arguments) -> tuple[int, str]:
    require(set(arguments) == {"list", "reason"}, "a guarded act with other arguments than it takes")
    number, reason = arguments["list"], text_member(dict(arguments), "reason")
    if not isinstance(number, int) or isinstance(number, bool):
        raise MalformedError("a list has a number")
    require(0 < len(reason) <= MAX_TEXT_CHARS and reason.isprintable(), "a reason is one line, and needed")
    return number, reason


ALLOW_LIST_ACTS: Mapping[str, Act] = {
    "allow_list_remove": Act("remove a list of known-good digests", _subject, _remove, _difference),
}


# What is built in


def _built_in(name: str, values: Octets) -> Mask:
    """Which of these digests are of common files, or of none."""
    known, exact = _common(name)
    at = chosen(known.known(values))
    return mask_of(len(values), [row for row in at.tolist() if values[row].tobytes() in exact])


@cache
def _common(name: str) -> tuple[KnownMarks, frozenset[bytes]]:
    blank = (octet * (1 << size) for octet in (b"\0", b"\xff", b" ") for size in range(_LARGEST_COMMON))
    exact = {hashlib.new(name, content, usedforsecurity=False).digest() for content in (b"", b"\n", b"\r\n", *blank)}
    width = len(next(iter(exact)))
    exact |= {octet * width for octet in (b"\0", b"\xff")}
    return KnownMarks(one[:8] for one in exact), frozenset(exact)


# What binds rows and parts


def _head(node: Node, row: AllowList, number: int, part: bytes) -> bytes:
    lines = f"{_PART}\n{row.head.hex()}\n{row.id}\n{number}\n{hashlib.sha256(part).hexdigest()}\n"
    return node.keystore.row_mac(lines.encode())


def _mac(node: Node, row: AllowList) -> bytes:
    numbers = (str(one) for one in (row.id, row.digests, row.parts, row.added))
    return node.keystore.row_mac(length_prefixed(_ROW, row.name, row.state, row.head.hex(), *numbers))


def _event(node: Node, actor: str, subject: str, details: Mapping[str, object]) -> Event:
    return node.event(EventKind.ALLOW_LIST_CHANGED, actor=actor, subject=subject, details=details)


def _broken() -> AuditBrokenError:
    error = AuditBrokenError("a list of known-good digests is not as it was written")
    error.remedy = "stop the gateway, keep everything as it is, and run `gateway audit verify`"
    return error
