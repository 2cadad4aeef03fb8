"""Merges of series: two names that stand for one series, by the word of two people, for as long as it stands.

A merge is proposed by one person and signed by the quorum (`series_merge`), and undone so too (`series_split`). Nothing
is rewritten: under either name the material of both is found, as long as the merge is in force. Partners that
may see the series of both are told, and each accepts for itself, with signatures of its own.

    proposed -> merged -> split       ours, or a partner's that we have accepted
    offered  -> declined              a partner's
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from gateway.approvals import Act, Arguments, Change
from gateway.audit import EventKind
from gateway.cases import lines
from gateway.cases.subjects import MERGED, merge_names, seal_merge, with_series
from gateway.errors import ConflictError, DeniedError, MalformedError, NotFoundError
from gateway.exchange.forwarding import narrowed
from gateway.exchange.labels import stored_label
from gateway.exchange.shelf import Shelf
from gateway.exchange.withdrawals import holders_of
from gateway.mailbox import Mailbox
from gateway.model import FieldGroup, Surface, require, text_member
from gateway.node import Node
from gateway.partners import ACTIVE, find, may_move
from gateway.policy import LabelInSet, PartnerRef
from gateway.statuses import ID, is_line
from gateway.statusmail import SERIES, MergedSeries, dump_series, parse_series
from gateway.store import Transaction
from gateway.store.tables import HashSet, SeriesMerge

PROPOSED, OFFERED, SPLIT, DECLINED = "proposed", "offered", "split", "declined"
MAX_OFFERED = 10_000  # merges that one partner may have before us
ID_BYTES = 16


@dataclass(frozen=True, slots=True)
class Merge:
    """A merge of series as it stands. `stands`: whether whoever proposed it says so still."""

    id: str
    names: tuple[str, str]
    reason: str
    origin: str
    state: str
    stands: bool
    at: int


class Merging:
    """Merges of series: ours, and those that partners propose to us."""

    def __init__(self, node: Node, shelf: Shelf, mailbox: Mailbox) -> None:
        self._node = node
        self._shelf = shelf
        self._mailbox = mailbox

    def propose(self, one: str, other: str, reason: str) -> tuple[str, Arguments]:
        """The act that makes one series of two; it names both by an id alone, since proposals are not sealed.

        Raises:
            MalformedError: a name or the reason is not one line, or both names are the same.
            ConflictError: this merge is in force already.
        """
        for text in (one, other, reason):
            require(is_line(text), "a series name and a reason are one line each, and needed")
        require(one != other, "these are one name")
        names = (min(one, other), max(one, other))
        with self._node.store.transaction() as tx:
            for row in tx.statuses.merges():
                if merge_names(self._node, row.id, row.sealed)[0] == names and row.state == MERGED:
                    raise ConflictError("these two are one series here already", remedy="`gateway series list`")
            number = self._node.random.bytes(ID_BYTES).hex()
            row = SeriesMerge(
                id=number,
                origin=self._node.agency,
                version=0,
                merged=False,
                state=PROPOSED,
                sealed=seal_merge(self._node, number, names, reason),
                at=self._node.clock(),
            )
            tx.statuses.put_merge(row)
        return "series_merge", {"merge": number}

    def accept(self, number: str) -> tuple[str, Arguments]:
        """The act by which a partner's merge is in force here as well."""
        return "series_merge", {"merge": self._id(number)}

    def split(self, number: str) -> tuple[str, Arguments]:
        """The act that makes two series of one again."""
        return "series_split", {"merge": self._id(number)}

    def decline(self, number: str) -> Merge:
        """A partner's merge is not taken over; it may be accepted later."""
        with self._node.store.transaction() as tx:
            row = _one(tx, number)
            if row.state != OFFERED:
                raise ConflictError("only what a partner proposes and nobody has answered is declined")
            row.state = DECLINED
            tx.statuses.put_merge(row)
            _log(tx, self._node, EventKind.SERIES_DECLINED, row)
            return _opened(self._node, row)

    def all(self) -> list[Merge]:
        """Every merge, the newest first."""
        with self._node.store.reading() as tx:
            return [_opened(self._node, row) for row in tx.statuses.merges()]

    def hear(self, tx: Transaction, sender: str, body: dict[str, object]) -> None:
        """A partner has merged two series, or parted them again: a proposal to us."""
        said = parse_series(body)
        row = next((one for one in tx.statuses.merges(said.id) if one.id == said.id), None)
        if row is not None and row.origin != sender:
            raise DeniedError("a merge of another agency, or our own")
        if row is None:
            if sum(one.origin == sender for one in tx.statuses.merges()) >= MAX_OFFERED:
                raise DeniedError("more merges of series than this gateway keeps")
            row = SeriesMerge(
                id=said.id,
                origin=sender,
                version=said.version,
                merged=said.merged,
                state=OFFERED,
                sealed=seal_merge(self._node, said.id, said.names, said.reason),
                at=self._node.clock(),
            )
        elif said.version <= row.version:
            return
        row.version, row.merged = said.version, said.merged
        if row.state in (OFFERED, DECLINED, SPLIT):
            row.state = OFFERED if said.merged else DECLINED
        tx.statuses.put_merge(row)
        _log(tx, self._node, EventKind.SERIES_OFFERED, row, actor=sender)

    def _id(self, number: str) -> str:
        with self._node.store.reading() as tx:
            return _one(tx, number).id


def in_force(node: Node, tx: Transaction) -> list[tuple[str, str]]:
    """Pairs of names that stand for one series here."""
    return [merge_names(node, row.id, row.sealed)[0] for row in tx.statuses.merges() if row.state == MERGED]


# The guarded acts


def _merge(tx: Transaction, node: Node, arguments: Arguments, proposal: str) -> None:
    row = _named(tx, arguments)
    if row.state == MERGED:
        raise ConflictError("these two are one series here already")
    if row.origin != node.agency and not row.merged:
        raise ConflictError("the partner has parted these two again")
    row.state = MERGED
    if row.origin == node.agency:
        row.version, row.merged = lines.next_version(node, tx, row.version), True
        row.told = " ".join(_tell(tx, node, row, _may_know(tx, node, row)))
    tx.statuses.put_merge(row)
    _log(tx, node, EventKind.SERIES_MERGED, row, proposal=proposal)


def _split(tx: Transaction, node: Node, arguments: Arguments, proposal: str) -> None:
    row = _named(tx, arguments)
    if row.state != MERGED:
        raise ConflictError("these two are two series here")
    row.state = SPLIT
    if row.origin == node.agency:
        # Exactly those who were told: what they made of it is for them to undo, whatever policy says today.
        row.version, row.merged = lines.next_version(node, tx, row.version), False
        _tell(tx, node, row, row.told.split())
    tx.statuses.put_merge(row)
    _log(tx, node, EventKind.SERIES_SPLIT, row, proposal=proposal)


def _tell(tx: Transaction, node: Node, row: SeriesMerge, partners: Sequence[str]) -> list[str]:
    names, reason = merge_names(node, row.id, row.sealed)
    body = dump_series(MergedSeries(row.id, row.version, names, reason, row.merged))
    for partner in partners:
        Mailbox(node).post(tx, partner, SERIES, body)
    if partners:
        tx.schedule.hasten(node.clock())
    return list(partners)


def _may_know(tx: Transaction, node: Node, row: SeriesMerge) -> list[str]:
    """Partners that may hold material of either series, and may see the names of both."""
    shelf = Shelf(node.keystore.master_key, node.random)
    names, _ = merge_names(node, row.id, row.sealed)
    hold: set[str] = set()
    seen: dict[str, set[str]] = {}
    for hash_set in tx.sets.stored():
        for name in names:
            held = with_series(tx, shelf, hash_set, [name])
            if not held:
                continue
            hold |= (
                {hash_set.hub}
                if hash_set.hub
                else set(holders_of(tx, hash_set, [(one.block.label, one.rows.ints("seq")) for one in held]))
            )
            shown = _see(tx, node, hash_set, {one.block.label for one in held})
            for partner in shown:
                seen.setdefault(partner, set()).add(name)
    return sorted(partner for partner in hold if seen.get(partner) == set(names))


def _see(tx: Transaction, node: Node, hash_set: HashSet, labels: set[int]) -> Iterator[str]:
    """Active partners to whom policy shows the series of any of these labels."""
    rows = {row.number: row for row in tx.sets.labels(hash_set.id or 0) if row.number in labels}
    judged = {number: LabelInSet(hash_set.name, stored_label(row)) for number, row in rows.items()}
    for one in tx.people.partners():
        partner = find(node, tx, one.agency)
        if partner is None or partner.state != ACTIVE or not may_move(node, partner, hash_set.name):
            continue
        if hash_set.hub == one.agency:
            yield one.agency  # it told us the name
            continue
        ref = PartnerRef(one.agency, one.agency[:2])
        rights = node.policy.table(ref, Surface.SEALED, judged)
        if hash_set.hub or hash_set.relays:
            rights = {n: narrowed(judged[n].label, rows[n], right, ref) for n, right in rights.items()}
        if any({FieldGroup.EXISTENCE, FieldGroup.SERIES} <= right.groups for right in rights.values()):
            yield one.agency


def _merge_difference(tx: Transaction, node: Node, arguments: Arguments) -> Sequence[Change]:
    one = _opened(node, _named(tx, arguments))
    return [Change("series", " and ".join(f'"{name}"' for name in one.names), f"one series: {one.reason}")]


def _split_difference(tx: Transaction, node: Node, arguments: Arguments) -> Sequence[Change]:
    one = _opened(node, _named(tx, arguments))
    return [Change("series", "one series", " and ".join(f'"{name}"' for name in one.names))]


def _subject(arguments: Arguments) -> str:
    require(set(arguments) == {"merge"}, "a guarded act with other arguments than it takes")
    number = text_member(dict(arguments), "merge")
    if not ID.fullmatch(number):
        raise MalformedError("series: the id is not 32 hex digits")
    return f"merge {number[:12]}"


def _named(tx: Transaction, arguments: Arguments) -> SeriesMerge:
    return _one(tx, text_member(dict(arguments), "merge"))


def _one(tx: Transaction, number: str) -> SeriesMerge:
    found = tx.statuses.merges(number)
    if len(found) != 1:
        raise NotFoundError("no such merge of series", remedy="`gateway series list` names them")
    return found[0]


def _opened(node: Node, row: SeriesMerge) -> Merge:
    names, reason = merge_names(node, row.id, row.sealed)
    return Merge(row.id, names, reason, row.origin, row.state, row.merged, row.at)


def _log(  # noqa: PLR0917  the words of one event
    tx: Transaction, node: Node, kind: EventKind, row: SeriesMerge, actor: str = "", proposal: str = ""
) -> None:
    details: dict[str, object] = {"merge": row.id, "version": row.version, "origin": row.origin}
    if proposal:
        details["proposal"] = proposal
    tx.log.append([node.event(kind, actor=actor or node.agency, subject=row.origin, details=details)])


SERIES_ACTS: Mapping[str, Act] = {
    "series_merge": Act("make one series of two", _subject, _merge, _merge_difference),
    "series_split": Act("make two series of one again", _subject, _split, _split_difference),
}
