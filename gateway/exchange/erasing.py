"""Erasing by order: what carries a digest goes from everything that this gateway holds, and stays away.

Two administrators and a legal reference; what they sign names marks (`neveragain`), never a digest. Then, in one
transaction:

    1 the entries that carry a digest of the order, in any set, in any version that is stored
    2 each of them is listed with all its digests, and binds every source from now on
    3 own sets: a withdrawal in the entry's place, so that every follower deletes it, too
      mirrors: the items of its state digest are kept in place of its values, as of rows that policy refuses, so that
      the comparison with the hub still covers all that was delivered
    4 each block that held a value of it is written anew without it, under a data key of its own, and the old one goes
      with its key; a leaf binds the digests of old and new
    5 pages of the set that wait to be pushed end; what is pushed next is made anew

A row that had been replaced, or is erased, leaves nothing of its values. Of an own set its place in history stays (id,
version, seq, label; kind `history`): else nobody could tell which followers hold the entry and must be told.

What leaves this gateway is out of its reach: pages that were delivered, files that people exported, backups. Backups
lose the key at the end of the purge window; whoever restores one takes the list in again (`take_in`), and what it lists
goes again.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from gateway.approvals import Act, Arguments, Change
from gateway.audit import EventKind
from gateway.cases.forgetting import forget
from gateway.columns.block import decode
from gateway.columns.marks import MARK_BYTES, MarkIndex, mask_of, packed_marks
from gateway.columns.rows import (
    COLUMNS,
    DIGESTS,
    EXISTENCE,
    ColumnKind,
    Mask,
    Rows,
    counting,
    integers,
)
from gateway.columns.sketch import among
from gateway.errors import ConflictError, MalformedError
from gateway.exchange import holding, listfile
from gateway.exchange.applying import FORGOTTEN_VIEW
from gateway.exchange.changes import Sums
from gateway.exchange.labels import digest_key
from gateway.exchange.ledger import withdraw_entries
from gateway.exchange.neveragain import ERASED, REINSTATED, WRONG, Listing, Marker, add, lift, listings
from gateway.exchange.rewriting import Going, Rewriting
from gateway.exchange.shelf import BARRED, CHANGES, Shelf, block_id
from gateway.exchange.withdrawals import Cause
from gateway.model import (
    CRYPTOGRAPHIC,
    DIGEST_BYTES,
    MAX_TEXT_CHARS,
    ChangeKind,
    require,
    text_member,
    texts_member,
)
from gateway.node import Node
from gateway.store import Transaction
from gateway.store.neveragain import NeverAgainRow
from gateway.store.tables import BlockRow, HashSet

MAX_DIGESTS = 1_000  # of one order; a proposal with their marks stays far below 128 KiB
_MARK = re.compile(f"[0-9a-f]{{{2 * MARK_BYTES}}}")
_DIGEST_NAMES = tuple(column.name for column in DIGESTS)
_DIGEST_PARTS = {EXISTENCE, *(column.group for column in DIGESTS)}


# The guarded acts


def erase(node: Node, digests: Collection[str], order: str, *, files_only: bool = False) -> tuple[str, Arguments]:
    """The act that erases every entry that carries one of these digests, and keeps it away.

    Args:
        digests: in hexadecimal, or as ALGORITHM:VALUE.
        order: the legal reference, in one line.
        files_only: what is found is listed by its cryptographic digests alone, so that other pictures that look the
            same to the last bit are neither erased nor kept away.
    """
    return "entries_erase", {"marks": _marks(node, digests), "order": order, "files_only": files_only}


def reinstate(node: Node, digests: Collection[str], reason: str, *, kind: str = WRONG) -> tuple[str, Arguments]:
    """The act after which what was listed with one of these digests may be taken in again.

    Args:
        kind: WRONG or ERASED, whichever listing is lifted.
    """
    return "entries_reinstate", {"marks": _marks(node, digests), "kind": kind, "reason": reason}


def _erase(tx: Transaction, node: Node, arguments: Arguments, proposal: str) -> None:
    order, marks, files_only = _order(arguments)
    told: dict[str, object] = {"order_ref": order, "proposal": proposal}
    survey = _survey(node, tx, marks, files_only=files_only)
    holding.check_not_held(node, tx, {mark for one in (*survey.listings, *marks) for mark in one})
    known = {mark for one in listings(node, tx) if one.kind == ERASED and not one.reinstated for mark in one.marks}
    new = [entry for entry in survey.listings if not entry <= known]
    if not new and not survey.finds:
        raise ConflictError("all of this is erased already, and stays away")
    add(node, tx, ERASED, new, details={"deed": "erased", **told})
    forget(node, tx, {mark for one in (*survey.listings, *marks) for mark in one})
    _carry_out(node, tx, survey, told)


def _erase_difference(tx: Transaction, node: Node, arguments: Arguments) -> Sequence[Change]:
    _, marks, files_only = _order(arguments)
    survey = _survey(node, tx, marks, files_only=files_only)
    changes = [Change("listed for everybody", "", f"{len(survey.listings)}, by {survey.marks} digests")]
    for one in survey.finds:
        count = Sums(tx, one.id, digest_key(node, one.hash_set)).entries()
        changes.append(Change(f"entries of {one.hash_set.name}", str(count), str(count - one.held)))
    if survey.alike:
        changes.append(Change("of them found by a perceptual digest alone", str(survey.alike), "0"))
    return changes


def _reinstate(tx: Transaction, node: Node, arguments: Arguments, proposal: str) -> None:
    marks, kind, reason = _lifted(arguments)
    found = _listed(node, tx, marks, kind)
    if not found:
        raise ConflictError("nothing of this is listed so, or it was reinstated already")
    details: dict[str, object] = {"deed": REINSTATED, "reason": reason, "proposal": proposal}
    lift(node, tx, [one.number for one in found], details=details)
    if kind == ERASED:
        _ask_again(tx)


def _reinstate_difference(tx: Transaction, node: Node, arguments: Arguments) -> Sequence[Change]:
    marks, kind, _ = _lifted(arguments)
    binds = "own sets" if kind == WRONG else "every source"
    then = "may be taken in again"
    return [
        Change(f"listing {one.number}, {len(one.marks)} digests", f"{kind}: kept from {binds}", then)
        for one in _listed(node, tx, marks, kind)
    ]


def _listed(node: Node, tx: Transaction, marks: Collection[bytes], kind: str) -> list[Listing]:
    """What is in force of this kind and has one of these marks."""
    found = (one for one in listings(node, tx) if one.kind == kind and not one.reinstated)
    return [one for one in found if not one.marks.isdisjoint(marks)]


def _ask_again(tx: Transaction) -> None:
    """Have mirrors that keep something away begin anew: no value is here that could be taken up again."""
    for mirror in tx.sets.all():
        if mirror.hub and mirror.id is not None and any(kind == BARRED for _, kind in tx.blocks.kinds(mirror.id)):
            at = (mirror.epoch, mirror.view, mirror.seq)
            tx.sets.advance_mirror(mirror.id, expected=at, to=(mirror.epoch, FORGOTTEN_VIEW, mirror.seq))


def _after(node: Node) -> None:
    """Nothing that was deleted stays in the database's own files; the copy of the list goes on."""
    node.store.scrub()
    listfile.keep(node)


# What arguments say


def _order(arguments: Arguments) -> tuple[str, list[frozenset[bytes]], bool]:
    members = _members(arguments, {"marks", "order", "files_only"})
    files_only = members["files_only"]
    if not isinstance(files_only, bool):
        raise MalformedError("erase: files_only is not true or false")
    return _line(members, "order", "an order has a reference, on one line"), _parsed_marks(members), files_only


def _lifted(arguments: Arguments) -> tuple[frozenset[bytes], str, str]:
    members = _members(arguments, {"marks", "kind", "reason"})
    kind = text_member(members, "kind")
    require(kind in (WRONG, ERASED), f"what is reinstated was {WRONG} or {ERASED}")
    marks = frozenset().union(*_parsed_marks(members))
    return marks, kind, _line(members, "reason", "a reason is one line, and needed")


def _order_subject(arguments: Arguments) -> str:
    return _order(arguments)[0]


def _lifted_subject(arguments: Arguments) -> str:
    marks, kind, _ = _lifted(arguments)
    return f"{len(marks)} digests, {kind}"


def _members(arguments: Arguments, names: set[str]) -> dict[str, object]:
    require(set(arguments) == names, "a guarded act with other arguments than it takes")
    return dict(arguments)


def _line(members: Mapping[str, object], name: str, message: str) -> str:
    text = text_member(dict(members), name)
    require(0 < len(text) <= MAX_TEXT_CHARS and text.isprintable(), message)
    return text


def _parsed_marks(members: dict[str, object]) -> list[frozenset[bytes]]:
    """Of each digest its mark, or several where it is not said which algorithm it is of."""
    asked = members["marks"]
    if not isinstance(asked, list) or not 0 < len(asked) <= MAX_DIGESTS:
        raise MalformedError(f"between 1 and {MAX_DIGESTS} digests at once")
    found = []
    for one in asked:
        texts = texts_member({"marks": one}, "marks")
        require(texts and all(_MARK.fullmatch(text) for text in texts), "a mark is 16 octets in hexadecimal")
        found.append(frozenset(bytes.fromhex(text) for text in texts))
    return found


def _marks(node: Node, digests: Collection[str]) -> list[list[str]]:
    """The marks of digests as people give them, as arguments of an act."""
    require(0 < len(digests) <= MAX_DIGESTS, f"between 1 and {MAX_DIGESTS} digests at once")
    marker = Marker(node.keystore)
    return [
        [marks[0].tobytes().hex() for row in rows for marks in marker.columns(row).values()]
        for rows in (_read_digest(text.strip(), f"digest {position}") for position, text in enumerate(digests, 1))
    ]


def _read_digest(text: str, place: str) -> list[Rows]:
    """A row for each algorithm that may be meant: 64 hex digits may be a SHA-256 or a PDQ."""
    named, colon, value = text.partition(":")
    column = COLUMNS.get(named)
    if colon and (column is None or not column.is_digest):
        raise MalformedError("no algorithm of this name is known", place=place)
    if column is not None and column.kind is ColumnKind.TEXT and value:
        return [Rows.of(1, {named: [value]})]
    try:
        octets = bytes.fromhex(value if colon else text)
    except ValueError as error:
        raise MalformedError("not a hexadecimal digest", place=place) from error
    if column is not None and colon:
        algorithms = [named] if column.width == len(octets) else []
    else:
        algorithms = [name for name, size in DIGEST_BYTES.items() if size == len(octets)]
    if not algorithms:
        raise MalformedError("no digest of this length is known", place=place)
    return [Rows.of(1, {algorithm: [octets]}) for algorithm in algorithms]


# 1. What carries a digest of the order


@dataclass(frozen=True, slots=True)
class _Survey:
    """What an order comes to. `alike`: rows that carry none of the listed cryptographic digests."""

    listings: list[frozenset[bytes]]
    finds: list[Going]
    alike: int
    shelf: Shelf

    @property
    def marks(self) -> int:
        """How many digests are listed."""
        return len({mark for one in self.listings for mark in one})


@dataclass(frozen=True, slots=True)
class _Carrier:
    """Rows of one block that carry a mark. `found`: which marks; `alike`: rows found by perceptual digests alone."""

    hash_set: HashSet
    block: BlockRow
    rows: Rows
    mask: Mask
    found: frozenset[bytes]
    alike: int


def _survey(node: Node, tx: Transaction, asked: Sequence[frozenset[bytes]], *, files_only: bool) -> _Survey:
    """All that carries one of these marks, or a digest of an entry that does.

    One step and no further: what merely shares a perceptual digest with such an entry goes with it, since it would not
    be let in again, but is not listed with what it carries beside.
    """
    shelf, marker = Shelf(node.keystore.master_key, node.random), Marker(node.keystore)
    marks = frozenset().union(*asked)
    carriers = list(_carriers(tx, shelf, marker, marks))
    algorithms = CRYPTOGRAPHIC if files_only else None
    entries = [one for found in carriers for one in marker.listed(found.rows.take(found.mask), algorithms)]
    # Which algorithm was meant, what is held shows; where nothing is, both are listed.
    meant = frozenset().union(*(one.found for one in carriers))
    listed = _joined([*entries, *(one & meant or one for one in asked)])
    everything = frozenset(mark for one in listed for mark in one)
    if everything != marks:
        carriers = list(_carriers(tx, shelf, marker, everything))
    return _Survey(listed, _finds(tx, shelf, carriers), sum(one.alike for one in carriers), shelf)


def _carriers(tx: Transaction, shelf: Shelf, marker: Marker, wanted: Collection[bytes]) -> Iterator[_Carrier]:
    """Every stored row, live or replaced, that carries one of these marks. Reads all blocks, a few at a time."""
    index, known = MarkIndex(), sorted(wanted)
    index.add(packed_marks(known), counting(0, len(known)))
    for hash_set in tx.sets.stored():
        stored = _with_values(tx, hash_set)
        for row, block in zip(stored, shelf.get_all(tx, stored, _DIGEST_PARTS), strict=True):
            rows = decode(block, ["entry_id", "pdq_quality", *_DIGEST_NAMES])
            hits = {name: index.find(marks) for name, marks in marker.columns(rows).items()}
            carrying = {at for where, _ in hits.values() for at in where.tolist()}
            if carrying:
                files = {at for name in CRYPTOGRAPHIC if name in hits for at in hits[name][0].tolist()}
                found = frozenset(known[tag] for _, tags in hits.values() for tag in tags.tolist())
                yield _Carrier(hash_set, row, rows, mask_of(rows.n, carrying), found, len(carrying - files))


def _with_values(tx: Transaction, hash_set: HashSet) -> list[BlockRow]:
    assert hash_set.id is not None
    return [row for row in tx.blocks.of_set(hash_set.id) if row.kind == CHANGES]


def _joined(entries: Iterable[frozenset[bytes]]) -> list[frozenset[bytes]]:
    """Entries that share a mark are one: lifting it by any of its digests lifts it whole."""
    found: dict[bytes, frozenset[bytes]] = {}
    for marks in entries:
        together = frozenset().union(marks, *(found[mark] for mark in marks if mark in found))
        found.update(dict.fromkeys(together, together))
    return list(dict.fromkeys(found.values()))


def _finds(tx: Transaction, shelf: Shelf, carriers: Sequence[_Carrier]) -> list[Going]:
    """By set, the rows of which nothing may stay: those that carry a mark, and every version of an entry that goes."""
    by_set: dict[int, list[_Carrier]] = {}
    for one in carriers:
        by_set.setdefault(one.hash_set.id or 0, []).append(one)
    return [_find(tx, shelf, some) for some in by_set.values()]


def _find(tx: Transaction, shelf: Shelf, carriers: Sequence[_Carrier]) -> Going:
    find = Going(carriers[0].hash_set)
    find.gone = {block_id(one.block): one.mask for one in carriers}
    stored = _with_values(tx, find.hash_set)
    with shelf.index(tx, find.id) as index:
        # 1. An entry goes when it carries the digest now, or is no longer held with values. One that carried it in an
        #    earlier version alone stays, and loses that version.
        live = {number: index.live_rows(number) for number in map(block_id, stored)}
        staying: set[int] = set()
        leaving: set[int] = set()
        for one in carriers:
            ids = one.rows.ints("entry_id")[one.mask]
            located = index.locate(ids)
            places = zip(
                ids.tolist(), located.found.tolist(), located.block_no.tolist(), located.row.tolist(), strict=True
            )
            for entry, found, number, at in places:
                stays = found and number in live and not (number in find.gone and find.gone[number][at])
                (staying if stays else leaving).add(entry)
    # 2. Of those that go, every version.
    ids = integers(sorted(leaving - staying))
    for row, block in zip(stored, shelf.get_all(tx, stored, [EXISTENCE]), strict=True):
        number, rows = block_id(row), decode(block, ["entry_id", "kind"])
        gone = among(rows.ints("entry_id"), ids) & (rows.ints("kind") == ChangeKind.ASSERT)
        if number in find.gone:
            gone |= find.gone[number]
        if gone.any():
            with shelf.index(tx, find.id) as index:
                withdrawn = index.withdrawn(rows.ints("entry_id")) & (rows.ints("kind") == ChangeKind.WITHDRAW)
            find.gone[number], find.live[number] = gone, live[number]
            find.stay[number] = (live[number] & ~gone) | withdrawn
    return find


# 3. to 5. Out of the sets


def _carry_out(node: Node, tx: Transaction, survey: _Survey, told: Mapping[str, object]) -> None:
    """Everything that was found goes; `told` is what the log says of the order."""
    for find in survey.finds:
        Rewriting(node, tx, survey.shelf, find, leaves=BARRED).run(EventKind.ENTRIES_ERASED, told)


# After a restore


@dataclass(frozen=True, slots=True)
class TakenIn:
    """What a file of the list brought: listings that came or were lifted, entries that were withdrawn, or erased."""

    changed: int
    withdrawn: int
    erased: int


def take_in(node: Node, raw: bytes) -> TakenIn:
    """Take in the list of a file that this gateway wrote: what was withdrawn or erased since the backup goes again.

    It may be cut off anywhere, and then be done again.

    Raises:
        MalformedError, VerificationError: not such a file, another gateway's, or not as it was written.
    """
    rows = listfile.parse(node, raw)
    # 1. What was withdrawn since: entries with exactly the digests of a listing that is not known here yet.
    withdrawn = _withdraw_again(node, rows)
    # 2. The list.
    with node.store.transaction() as tx:
        changed = listfile.merge(node, tx, rows, deed="taken in")
    # 3. What it says was erased.
    with node.store.transaction() as tx:
        erased = [one.marks for one in listings(node, tx) if one.kind == ERASED and not one.reinstated]
        survey = _survey_again(node, tx, frozenset().union(*erased))
        _carry_out(node, tx, survey, {})
    _after(node)
    return TakenIn(changed, withdrawn, sum(one.held for one in survey.finds))


def _withdraw_again(node: Node, rows: Sequence[NeverAgainRow]) -> int:
    shelf, marker = Shelf(node.keystore.master_key, node.random), Marker(node.keystore)
    found: dict[str, set[int]] = {}
    with node.store.reading() as tx:
        wrong = {one.marks for one in listfile.unknown(node, tx, rows) if one.kind == WRONG}
        for one in _carriers(tx, shelf, marker, frozenset().union(*wrong)) if wrong else ():
            carrying = one.rows.take(one.mask)
            pairs = zip(carrying.ints("entry_id").tolist(), marker.listed(carrying), strict=True)
            if not one.hash_set.hub and not one.hash_set.relays:
                found.setdefault(one.hash_set.name, set()).update(entry for entry, marks in pairs if marks in wrong)
    count = 0
    for name, entries in found.items():
        with node.store.transaction() as tx:
            cause = Cause("withdrawn before the restore")
            held = withdraw_entries(node, shelf, tx, tx.sets.get(name), entries, actor=node.agency, cause=cause)
            count += sum(one.rows.n for one in held)
    return count


def _survey_again(node: Node, tx: Transaction, marks: frozenset[bytes]) -> _Survey:
    """All that carries a mark that is listed already."""
    shelf = Shelf(node.keystore.master_key, node.random)
    carriers = list(_carriers(tx, shelf, Marker(node.keystore), marks)) if marks else []
    return _Survey([], _finds(tx, shelf, carriers), sum(one.alike for one in carriers), shelf)


ENTRY_ACTS: Mapping[str, Act] = {
    "entries_erase": Act(
        "erase entries by order, and keep them away", _order_subject, _erase, _erase_difference, _after
    ),
    "entries_reinstate": Act(
        "let entries come back that were listed as never again",
        _lifted_subject,
        _reinstate,
        _reinstate_difference,
        _after,
    ),
}
