"""Why an entry went to a partner, or did not: one sentence, from what policy says, where the partner stands, what left.

The entry is named by its id, by a digest or by our own reference; which of them was asked for is never repeated.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from gateway.audit import EventKind, parse_event
from gateway.columns.block import decode
from gateway.columns.rows import EXISTENCE, Octets, Rows, Text, grouped, registered, same_values
from gateway.errors import MalformedError, NotFoundError
from gateway.exchange.changes import Held, held_rows
from gateway.exchange.decisions import RECEIVE, SHARE
from gateway.exchange.forwarding import narrowed
from gateway.exchange.labels import stored_label
from gateway.exchange.lookup import by_algorithm, format_entry, parse_entry
from gateway.exchange.shelf import BARRED, CHANGES, EXPIRED, REFUSED, Shelf, block_id
from gateway.exchange.wentout import FilesOut, Holding, WentOut
from gateway.interchange import View
from gateway.model import ENTRY_GROUPS, Surface
from gateway.node import Node
from gateway.partners import ACTIVE, find, may_move
from gateway.policy import Action, LabelInSet, PartnerRef, ShareRequest
from gateway.store import Transaction
from gateway.store.tables import Follower, HashSet, LabelRow

ENTRY = re.compile(r"[0-9a-f]{4}-[0-9a-f]{12}")
DIGEST = re.compile(r"[0-9A-Fa-f]{32}|[0-9A-Fa-f]{40}|[0-9A-Fa-f]{64}|[0-9A-Fa-f]{128}")
MAX_FOUND = 64  # entries of one digest or reference: each is explained by itself
AWAY = {
    REFUSED: "was refused when it came",
    BARRED: "is kept away by the never-again list",
    EXPIRED: "was deleted when its retention ended",
}


@dataclass(frozen=True, slots=True)
class Story:
    """What became of one entry towards one partner. `sent` are the leaves of pages that brought it.

    `receipt` is the leaf of the newest decision receipt on its label, None before there is one.
    """

    set_name: str
    entry: str
    partner: str
    listed: bool
    allowed: bool
    holds: bool
    stands: int | None
    seq: int
    sent: tuple[int, ...]
    receipt: int | None
    rules: tuple[str, ...]
    sentence: str
    files: tuple[WentOut, ...] = ()


class Storyteller:
    """Explains entries, from the resident index, the stored blocks and the log."""

    def __init__(self, node: Node, shelf: Shelf) -> None:
        self._node = node
        self._shelf = shelf

    def explain(self, named: str, partner: str, *, set_name: str = "") -> list[Story]:
        """What became of each entry of this name towards a partner.

        Args:
            named: an entry id, a digest in hex or one of our references; perhaps with its set before it: SET/….
            set_name: only in this set.

        Raises:
            NotFoundError: no set here has such an entry, or it was withdrawn.
        """
        with self._shelf.reading(self._node.store) as tx:
            found = [
                self._story(tx, hash_set, held, partner)
                for hash_set, name in self._places(tx, named, set_name)
                for held in self._held(tx, hash_set, name)
            ]
            withdrawn = not found and any(
                self._was_withdrawn(tx, hash_set, name) for hash_set, name in self._places(tx, named, set_name)
            )
        if withdrawn:
            raise NotFoundError("the entry was withdrawn: it goes to nobody, and whoever held it was told to delete it")
        if not found:
            raise NotFoundError("no set here has such an entry", remedy="name its id, a digest or our reference")
        return found

    def _places(self, tx: Transaction, named: str, set_name: str) -> Iterator[tuple[HashSet, str]]:
        """The sets to look in, each with what to look for."""
        for row in tx.sets.all():
            short = row.name.partition("/")[2] if not row.hub else row.name
            prefix = next((one for one in (f"{row.name}/", f"{short}/") if named.startswith(one)), "")
            if set_name in ("", row.name) and (prefix or not self._names_a_set(tx, named)):
                yield row, named.removeprefix(prefix)

    def _names_a_set(self, tx: Transaction, named: str) -> bool:
        names = [row.name for row in tx.sets.all()] + [
            row.name.partition("/")[2] for row in tx.sets.all() if not row.hub
        ]
        return any(named.startswith(f"{one}/") for one in names)

    def _held(self, tx: Transaction, hash_set: HashSet, name: str) -> list[Held]:
        """The current rows of the entries of this name, one each."""
        set_id = hash_set.id or 0
        if ENTRY.fullmatch(name):
            ids = {parse_entry(name)}
        elif DIGEST.fullmatch(name):
            asked = by_algorithm([name]).items()
            ids = {one for algorithm, [(_, value)] in asked for one in self._find(tx, set_id, algorithm, value)}
        else:
            ids = set(self._find(tx, set_id, "source_ref", name))
        if len(ids) > MAX_FOUND:
            raise MalformedError(f"more than {MAX_FOUND} entries have this name", remedy="name one entry by its id")
        wanted = Rows.of(len(ids), {"entry_id": sorted(ids)}).ints("entry_id")
        groups = held_rows(tx, self._shelf, set_id, wanted) if ids else []
        return [
            Held(one.block, one.rows.slice(number, number + 1), one.parts)
            for one in groups
            for number in range(one.rows.n)
        ]

    def _was_withdrawn(self, tx: Transaction, hash_set: HashSet, name: str) -> bool:
        if not ENTRY.fullmatch(name):
            return False
        ids = Rows.of(1, {"entry_id": [parse_entry(name)]}).ints("entry_id")
        with self._shelf.index(tx, hash_set.id or 0) as index:
            return bool(index.withdrawn(ids).any())

    def _find(self, tx: Transaction, set_id: int, column: str, value: bytes | str) -> list[int]:
        """Ids of the entries whose column has this value."""
        values: Octets | Text
        if isinstance(value, bytes):
            wanted = Rows.of(1, {column: [value]})
            values = wanted.octets(column)
        else:
            wanted = Rows.of(1, {column: [value]})
            values = wanted.text(column)
        with self._shelf.index(tx, set_id) as index:
            found = index.find(column, values)
        places = dict(grouped(found.block_no.astype("uint64")))
        stored = [row for row in tx.blocks.some(list(places)).values() if row.kind == CHANGES]
        ids: list[int] = []
        parts = {EXISTENCE, registered(column).group}
        for row, block in zip(stored, self._shelf.get_all(tx, stored, parts), strict=True):
            where = places[block_id(row)]
            rows = decode(block, ["entry_id", column]).take(found.row[where])
            same = same_values(rows, wanted.take(found.query[where]), column)
            ids += rows.take(same).ints("entry_id").tolist()
        return ids

    def _story(self, tx: Transaction, hash_set: HashSet, held: Held, partner: str) -> Story:
        label = next(row for row in tx.sets.labels(hash_set.id or 0) if row.number == held.block.label)
        if hash_set.hub and hash_set.hub != partner:
            return self._passed_on(tx, hash_set, held, label, partner)
        if hash_set.hub:
            return self._taken(tx, hash_set, held, label)
        return self._given(tx, hash_set, held, label, partner)

    def _passed_on(self, tx: Transaction, mirror: HashSet, held: Held, label: LabelRow, partner: str) -> Story:
        """A partner's entry towards another partner: as its onward copy is served, where it is in one."""
        copy = tx.sets.onward_copy(mirror.id or 0)
        copied = [] if copy is None else held_rows(tx, self._shelf, copy.id or 0, held.rows.ints("entry_id"))
        if copy is None or not copied:
            return self._given(tx, mirror, held, label, partner)
        row = next(one for one in tx.sets.labels(copy.id or 0) if one.number == copied[0].block.label)
        return self._given(tx, copy, copied[0], row, partner)

    # What we give

    def _given(self, tx: Transaction, hash_set: HashSet, held: Held, label: LabelRow, partner: str) -> Story:
        """An entry of ours: what policy says now, where the partner stands, with which pages it went."""
        set_id, seq = hash_set.id or 0, int(held.rows.ints("seq")[0])
        policies, judged = self._node.policy, LabelInSet(hash_set.name, stored_label(label))
        who = PartnerRef(partner, partner[:2])
        told = policies.explain(ShareRequest(who, Action.SHARE_EXISTENCE, Surface.SEALED, judged))
        rights, because = policies.table(who, Surface.SEALED, {0: judged})[0], told.because
        if hash_set.hub or hash_set.relays:
            rights = narrowed(judged.label, label, rights, who)
            if told.decision.allowed and not rights.groups:
                because = (
                    "because it came without leave to go there, or under a duty or a restriction that keeps it here"
                )
        withheld = [
            f"{group.replace('_', ' ')} ({', '.join(refusal.rule_ids) or 'no rule'})"
            for group in ENTRY_GROUPS
            if group not in rights.groups
            and (refusal := policies.decide(ShareRequest(who, Action.share(group), Surface.SEALED, judged)))
        ]
        follower = tx.sets.follower(set_id, partner)
        holds = follower is not None and self._shows(tx, set_id, partner, follower.view, label.number)
        holds = holds and follower is not None and follower.epoch == hash_set.epoch and seq <= follower.seq
        sent = tuple(self._pages(tx, hash_set, partner, label.number, seq))
        kept = tx.policies.decided(set_id, partner, str(Surface.SEALED), SHARE).get(label.number)
        barred = "" if rights.groups else because
        fate = barred or self._barred(tx, hash_set, partner) or _standing(hash_set, follower, seq)
        verb = _verb(allowed=bool(rights.groups), holds=holds, sent=bool(sent))
        leaves = f" (leaf {', '.join(map(str, sent))})" if sent else ""
        entry = format_entry(int(held.rows.ints("entry_id")[0]))
        parts = [f"{partner} {verb} entry {entry} of {hash_set.name}{leaves}"]
        parts.append(because if holds and rights.groups else fate or because)
        files = tuple(one for one in self._files(tx, hash_set, held) if one.partner == partner)
        if rights.groups and withheld:
            parts.append(f"without {', '.join(withheld)}")
        return Story(
            set_name=hash_set.name,
            entry=entry,
            partner=partner,
            listed=True,
            allowed=bool(rights.groups),
            holds=holds,
            stands=None if follower is None else follower.seq,
            seq=seq,
            sent=sent,
            receipt=None if kept is None else kept.leaf,
            rules=told.decision.rule_ids,
            sentence=f"{', '.join(parts)}.{_of_files(files)}",
            files=files,
        )

    def _files(self, tx: Transaction, hash_set: HashSet, held: Held) -> list[WentOut]:
        own = not hash_set.hub and not hash_set.relays  # others' entries go out in no file
        return FilesOut(self._node, tx).holding(hash_set, held) if own else []

    def _barred(self, tx: Transaction, hash_set: HashSet, partner: str) -> str:
        """What else than policy keeps a set from a partner; "" for nothing."""
        row = find(self._node, tx, partner)
        if row is None:
            return "because it is no partner of this gateway"
        if row.state != ACTIVE:
            return f"because this partner is {row.state}"
        if not may_move(self._node, row, hash_set.name):
            return "because the partner is under test, and only sets of invented data move"
        return "because exchange with it is paused" if tx.people.is_paused(partner) else ""

    def _pages(self, tx: Transaction, hash_set: HashSet, partner: str, label: int, seq: int) -> Iterator[int]:
        """Leaves of the pages that brought a partner this state of an entry."""
        shown = False
        for row in tx.log.of_kinds([EventKind.PAGE_SERVED, EventKind.PAGE_SENT]):
            event = parse_event(row.event_bytes or b"")
            details = event.details
            if event.kind not in (EventKind.PAGE_SERVED, EventKind.PAGE_SENT):
                continue
            if (details["partner"], details["set"], details["epoch"]) != (partner, hash_set.name, hash_set.epoch):
                continue
            before, shown = shown, self._shows(tx, hash_set.id or 0, partner, str(details["view"]), label)
            start, end = int(str(details["from_seq"])), int(str(details["until_seq"]))
            # It came with the changes since the partner's cursor; or its label came newly into view.
            if shown and seq <= end and (start < seq or not before):
                yield row.index

    def _shows(self, tx: Transaction, set_id: int, partner: str, view: str, label: int) -> bool:
        stored = tx.sets.view(set_id, partner, view)
        return stored is not None and label in View.parse(stored.encode()).labels

    # What we take

    def _taken(self, tx: Transaction, hash_set: HashSet, held: Held, label: LabelRow) -> Story:
        """An entry of a partner's set: whether it is taken from that partner."""
        policies, judged = self._node.policy, LabelInSet(hash_set.name, stored_label(label))
        hub = PartnerRef(hash_set.hub, hash_set.hub[:2])
        told = policies.explain(ShareRequest(hub, Action.RECEIVE, Surface.SEALED, judged))
        entry = format_entry(int(held.rows.ints("entry_id")[0]))
        here = AWAY.get(held.block.kind, "is held here")
        kept = tx.policies.decided(hash_set.id or 0, hash_set.hub, str(Surface.SEALED), RECEIVE).get(label.number)
        return Story(
            set_name=hash_set.name,
            entry=entry,
            partner=hash_set.hub,
            listed=held.block.kind == CHANGES,
            allowed=told.decision.allowed,
            holds=True,
            stands=hash_set.seq,
            seq=int(held.rows.ints("seq")[0]),
            sent=(),
            receipt=None if kept is None else kept.leaf,
            rules=told.decision.rule_ids,
            sentence=f"Entry {entry} of {hash_set.name}, from {hash_set.hub}, {here}, {told.because}.",
        )


def _verb(*, allowed: bool, holds: bool, sent: bool) -> str:
    """What the partner does with the entry, in words that "entry … of …" follow."""
    if holds:
        return "holds" if allowed else "still holds, and will be told to delete,"
    if sent:
        return "was sent, and has not confirmed," if allowed else "was sent before, and may no longer hold,"
    return "has not received" if allowed else "does not receive"


def _of_files(files: tuple[WentOut, ...]) -> str:
    """What is said of files that left, which follow no withdrawal."""
    if not files:
        return ""
    sure = [one.leaf for one in files if one.holding is Holding.HOLDS]
    perhaps = [one.leaf for one in files if one.holding is not Holding.HOLDS]
    said = [f"It is in {_named(sure)}"] if sure else []
    said += [f"An earlier version, or perhaps it, is in {_named(perhaps)}"] if perhaps else []
    return f" {'. '.join(said)}."


def _named(leaves: list[int]) -> str:
    many = len(leaves) > 1
    return f"{'files' if many else 'a file'} for it (lea{'ves' if many else 'f'} {', '.join(map(str, leaves))})"


def _standing(hash_set: HashSet, follower: Follower | None, seq: int) -> str:
    """Why an entry that policy allows is not there yet."""
    if follower is None:
        return "though policy allows it: the partner has never asked for this set"
    if follower.epoch != hash_set.epoch or follower.seq < seq:
        return f"though policy allows it: the partner stands at {follower.seq}, and the entry came with {seq}"
    return ""
