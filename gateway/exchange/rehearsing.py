"""Rehearsal: what another policy would start and stop sending, to whom, and what it would take, before it is in force.

Counted are the labels that exist now, with the entries under them now, and the partners that exchange now. A field
group is counted for the entries that have something in it: exactly these would come or go.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from gateway.columns.rows import EXISTENCE, GROUP_CODES
from gateway.exchange.contents import Content, Contents
from gateway.exchange.forwarding import narrowed
from gateway.exchange.labels import digest_key, stored_label
from gateway.exchange.lookup import format_entry
from gateway.exchange.shelf import CHANGES, Shelf
from gateway.model import FieldGroup, Surface
from gateway.node import Node
from gateway.partners import ACTIVE, may_move
from gateway.policy import (
    IntakeChange,
    LabelInSet,
    LabelRights,
    PartnerRef,
    PolicySet,
    ShareChange,
    intake_changes,
    share_changes,
)
from gateway.store import Transaction
from gateway.store.tables import HashSet, LabelRow

_COUNT_BYTES = 8  # of a stored sum: how many items there are


@dataclass(frozen=True, slots=True)
class Counted:
    """One change with its numbers: entries under the label, and those with something in each group that changes."""

    change: ShareChange | IntakeChange
    entries: int
    groups: Mapping[FieldGroup, int]


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What changes from the policy `before` to the policy `after` (digests), as things stand."""

    before: str
    after: str
    changes: tuple[Counted, ...]


@dataclass(frozen=True, slots=True)
class EntryChange:
    """One entry of ours that a partner would get more or less of."""

    partner: str
    set_name: str
    entry: str
    started: frozenset[FieldGroup]
    stopped: frozenset[FieldGroup]


def rehearse(tx: Transaction, node: Node, before: PolicySet, after: PolicySet, *, partner: str = "") -> Rehearsal:
    """What would change, for every partner that exchanges now or for one."""
    rows = [row for row in tx.people.partners() if row.state == ACTIVE and partner in ("", row.agency)]
    found: list[Counted] = []
    for hash_set in tx.sets.stored():
        labels = {row.number: row for row in tx.sets.labels(_id(hash_set))}
        counts = _counts(tx, hash_set)
        for row in rows:
            if may_move(node, row, hash_set.name):
                changes = _changes(tx, before, after, hash_set, labels, PartnerRef(row.agency, row.jurisdiction))
                found += [_counted(one, counts) for one in changes]
    return Rehearsal(before.digest, after.digest, tuple(sorted(found, key=_order)))


def _changes(  # noqa: PLR0917  what changes, of what, for whom
    tx: Transaction,
    before: PolicySet,
    after: PolicySet,
    hash_set: HashSet,
    rows: Mapping[int, LabelRow],
    partner: PartnerRef,
) -> Sequence[ShareChange | IntakeChange]:
    """A set is shared with others than its owner and whom it came from; a mirror is taken from its hub."""
    labels = {number: stored_label(row) for number, row in rows.items()}
    held = {number: LabelInSet(hash_set.name, label) for number, label in labels.items()}
    if hash_set.hub:
        mine = hash_set.hub == partner.agency
        return intake_changes(before, after, partner, Surface.SEALED, held) if mine else ()
    if not hash_set.relays:
        return share_changes(before, after, partner, Surface.SEALED, held)
    if partner.agency in (hash_set.name.split("/")[0], tx.sets.by_id(hash_set.relays).hub):
        return ()

    def onward(number: int, right: LabelRights) -> LabelRights:
        return narrowed(labels[number], rows[number], right, partner)

    return share_changes(before, after, partner, Surface.SEALED, held, narrow=onward)


def entry_changes(node: Node, shelf: Shelf, rehearsal: Rehearsal) -> Iterator[EntryChange]:
    """Each entry of ours that would come or go, for each partner, set by set; reads the sets as they are now."""
    by_set: dict[str, list[ShareChange]] = {}
    for one in rehearsal.changes:
        if isinstance(one.change, ShareChange) and one.groups:
            by_set.setdefault(one.change.held.set_name, []).append(one.change)
    for name, changes in sorted(by_set.items()):
        with node.store.reading() as tx:
            hash_set = tx.sets.find_served(name)
        assert hash_set is not None, "it was there a moment ago, and no set is ever taken away"
        labels = {number: {GROUP_CODES[group] for group in _moving(changes, number)} for number in _numbers(changes)}
        for content in Contents(node, shelf).scan(_id(hash_set), digest_key(node, hash_set), labels):
            if content.block.kind == CHANGES:
                yield from _moved(content, [one for one in changes if one.number == content.block.label])


def _numbers(changes: Iterable[ShareChange]) -> set[int]:
    return {one.number for one in changes}


def _moving(changes: Iterable[ShareChange], number: int) -> frozenset[FieldGroup]:
    """The groups that come or go of a label, for whomever."""
    return frozenset(group for one in changes if one.number == number for group in one.started | one.stopped)


def _moved(content: Content, changes: Sequence[ShareChange]) -> Iterator[EntryChange]:
    """What comes and goes of the entries of one block: of each the groups in which it says something."""
    items = {group: content.items[code] for group, code in GROUP_CODES.items() if code in content.items}
    says = {group: (lanes[:, 0] | lanes[:, 1]).tolist() for group, lanes in items.items()}  # no item: says nothing
    for at, entry in enumerate(content.rows.ints("entry_id").tolist()):
        here = {group for group, lanes in says.items() if lanes[at]}
        for change in changes:
            started, stopped = change.started & here, change.stopped & here
            if started or stopped:
                partner, name = change.partner.agency, change.held.set_name
                yield EntryChange(partner, name, format_entry(entry), started, stopped)


def describe(one: Counted) -> dict[str, object]:
    """A change as members of a JSON object: what of a label moves, how much of it, and by which rules."""
    change, label = one.change, one.change.held.label
    described: dict[str, object] = {
        "partner": change.partner.agency,
        "surface": str(change.surface),
        "set": change.held.set_name,
        "label": change.number,
        "attributes": label.to_json(),
        "entries": one.entries,
        "rules_before": list(change.rules[0]),
        "rules_after": list(change.rules[1]),
    }
    if isinstance(change, IntakeChange):
        return {**described, "way": "take", "taken": change.taken}
    before, after = ([str(duty) for duty in duties] for duties in change.duties)
    return {
        **described,
        "way": "share",
        "started": {group: one.groups[group] for group in sorted(change.started)},
        "stopped": {group: one.groups[group] for group in sorted(change.stopped)},
        "duties_before": before,
        "duties_after": after,
    }


def _counted(change: ShareChange | IntakeChange, counts: Mapping[tuple[int, int], int]) -> Counted:
    asked = change.started | change.stopped if isinstance(change, ShareChange) else frozenset()
    groups = {group: counts.get((change.number, GROUP_CODES[group]), 0) for group in sorted(asked)}
    return Counted(change, counts.get((change.number, EXISTENCE), 0), groups)


def _counts(tx: Transaction, hash_set: HashSet) -> dict[tuple[int, int], int]:
    """How many entries have something, by (label, group code)."""
    sums = tx.sets.sums(_id(hash_set))
    return {at: int.from_bytes(raw[:_COUNT_BYTES], "little") for at, raw in sums.items()}


def _order(one: Counted) -> tuple[str, str, int]:
    return one.change.partner.agency, one.change.held.set_name, one.change.number


def _id(row: HashSet) -> int:
    assert row.id is not None, "a stored set has an id"
    return row.id
