"""Who may see what of our own sets over a surface for stock clients: judged at each request, and on record.

Rules:

1. What a partner may see is judged at each request, for TLS alone; what was shown it before is remembered by label
   (`spans`), and a change of that leaves with a decision receipt for each label.
2. Judging reads; only what is new is written (`settle`), before anything leaves that it allows.
3. What leaves is on record before it leaves, one leaf a page; whoever may not have it any more gets an error instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from gateway.audit import Event, EventKind
from gateway.errors import OverloadedError
from gateway.exchange.audience import Audiences, Sight
from gateway.exchange.decisions import SHARE, Answers, Decisions, Site
from gateway.exchange.spans import Shown
from gateway.interchange import EMPTY_VIEW, NO_VIEW
from gateway.model import ENTRY_GROUPS, FieldGroup, Surface
from gateway.node import Node
from gateway.partners import active, card_in, may_move
from gateway.policy import PartnerRef
from gateway.store import Transaction
from gateway.store.tables import HashSet, PartnerRow, ShownSet

# What a surface can carry: of anything else a change changes nothing for its clients.
CARRIED = {
    "hashsharing": frozenset({FieldGroup.EXISTENCE, FieldGroup.CRYPTOGRAPHIC_DIGESTS, FieldGroup.PERCEPTUAL_DIGESTS}),
    "taxii": frozenset(ENTRY_GROUPS),
}


@dataclass(frozen=True, slots=True)
class Served:
    """What the log keeps of a page: the sets, the span of time asked for, the number of its first item, and counts."""

    sets: Sequence[str]
    after: int
    until: int
    start: int
    entries: int
    deleted: int


@dataclass(frozen=True, slots=True)
class Seen:
    """One set as a partner sees it at the surface, and as it saw it before.

    `known`: what is remembered of what it was shown, None of a partner that never asked; `row`: what is to be.
    """

    hash_set: HashSet
    sight: Sight
    shown: Shown
    known: ShownSet | None
    row: ShownSet

    @property
    def id(self) -> int:
        assert self.hash_set.id is not None, "a stored set has an id"
        return self.hash_set.id

    @property
    def spans(self) -> str:
        """What was shown, as it is remembered."""
        return self.row.spans


@dataclass(frozen=True, slots=True)
class Admitted:
    """One request: who asks, when, and what it may see. `card`: the MAC of the partner's row."""

    partner: str
    card: bytes
    now: int
    policy: str
    sets: tuple[Seen, ...]


class Admission:
    """Lets stock clients in to our own sets."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._audiences = Audiences(node)
        self._decisions = Decisions(node)

    def check(self, partner: str) -> None:
        """Returns when a partner may exchange now; raises as `active`."""
        with self._node.store.reading() as tx:
            active(self._node, tx, partner)

    def admitted(self, tx: Transaction, partner: str, surface: str, only: str = "") -> Admitted:
        """What a partner may see now of each own set, at this surface, and what it was shown before: on record."""
        found = self.judged(tx, partner, surface, only)
        self.settle(tx, found)
        return found

    def judged(self, tx: Transaction, partner: str, surface: str, only: str = "") -> Admitted:
        """The same, with nothing written: `settle` does that, before anything leaves.

        Args:
            only: the name of the set that is asked for; "": all of them.
        """
        row = active(self._node, tx, partner)
        card, now = card_in(row), self._node.clock()
        ref = PartnerRef(card.agency, card.jurisdiction)
        stored = [tx.sets.find(only)] if only else tx.sets.all()
        own = [one for one in stored if one is not None and not one.hub]
        sets = []
        for hash_set in sorted(own, key=lambda one: one.id or 0):
            assert hash_set.id is not None
            if hash_set.epoch > 1 and tx.blocks.of_earlier_epochs(hash_set.id, hash_set.epoch):
                raise OverloadedError("a set is being carried into its new epoch")
            sight = self._audiences.sight(tx, hash_set, ref, Surface.TLS_ONLY)
            if not may_move(self._node, row, hash_set.name):
                sight = replace(sight, rights={}, view=EMPTY_VIEW)
            # Also of what it may not see: what comes into view later is then published at that time.
            sets.append(_brought_up(tx, hash_set, sight, whom=(partner, surface), now=now))
        return Admitted(partner, row.mac, now, self._node.policy.digest, tuple(sets))

    def settle(self, tx: Transaction, admitted: Admitted) -> None:
        """What was judged is remembered, and what was decided of each label is on record."""
        for seen in admitted.sets:
            self._decide(tx, seen.hash_set, admitted.partner, seen.sight)
            known, view = seen.known, seen.sight.view.digest
            if seen.row is not known:
                tx.shown.put(seen.row)
            old_view = NO_VIEW if known is None else known.view
            if old_view != view:
                details = {"partner": admitted.partner, "set": seen.hash_set.name, "old_view": old_view}
                details["new_view"] = view
                agency, kind = self._node.agency, EventKind.VIEW_CHANGED
                tx.log.append([self._node.event(kind, actor=agency, subject=admitted.partner, details=details)])

    def is_settled(self, tx: Transaction, admitted: Admitted) -> bool:
        """Whether `settle` has nothing to write, but how far a set had come when the partner last asked.

        That counts where entries leave, and there alone.
        """
        for seen in admitted.sets:
            if not _say_the_same(seen.row, seen.known):
                return False
            site, answers = _site(seen.hash_set, admitted.partner, seen.sight), partial(_answers, seen.sight)
            if not self._decisions.are_on_record(tx, site, answers, seen.sight.rights):
                return False
        return True

    def _decide(self, tx: Transaction, hash_set: HashSet, partner: str, sight: Sight) -> None:
        """What was decided of each label is on record."""
        site = _site(hash_set, partner, sight)
        if not self._decisions.are_on_record(tx, site, lambda: _answers(sight), sight.rights):
            self._decisions.record(tx, site, _answers(sight))

    # On record

    def record(self, admitted: Admitted, surface: str, served: Served, digest: str) -> None:
        """Put on record what leaves, with its SHA-256; whoever may not have it any more gets an error instead."""
        with self._node.store.transaction() as tx:
            self.check_again(tx, admitted)
            tx.log.append([self.page_event(admitted, surface, served, digest)])

    def check_again(self, tx: Transaction, admitted: Admitted) -> PartnerRow:
        """Returns, with its row, while a partner may still have what was judged."""
        row = active(self._node, tx, admitted.partner)
        if self._node.policy.digest != admitted.policy:
            raise OverloadedError("the policy is being changed", retry_after_seconds=1)
        return row

    def page_event(self, admitted: Admitted, surface: str, served: Served, digest: str) -> Event:
        """What the log keeps of a page with this SHA-256."""
        details: dict[str, object] = {
            "partner": admitted.partner,
            "surface": surface,
            "sets": sorted(set(served.sets)),
            "after": served.after,
            "until": served.until,
            "start": served.start,
            "entries": served.entries,
            "deleted": served.deleted,
            "page_digest": digest,
            "policy": admitted.policy,
        }
        kind = EventKind.SURFACE_PAGE_SERVED
        return self._node.event(kind, actor=self._node.agency, subject=admitted.partner, details=details)


def _brought_up(tx: Transaction, hash_set: HashSet, sight: Sight, *, whom: tuple[str, str], now: int) -> Seen:
    """The set as it is shown from now on."""
    assert hash_set.id is not None
    partner, surface = whom
    known = tx.shown.get(hash_set.id, partner, surface)
    before = Shown(hash_set.seq) if known is None else Shown.parse(known.seq, known.judged, known.spans)
    view = {number: shown.groups & CARRIED[surface] for number, shown in sight.view.labels.items()}
    shown = before.brought_up(view, max(sight.labels, default=0), seq=hash_set.seq, now=now)
    told = shown.seq, shown.judged, sight.view.digest
    if known is not None and told == (known.seq, known.judged, known.view) and shown.spans == before.spans:
        return Seen(hash_set, sight, shown, known, known)
    row = ShownSet(
        set_id=hash_set.id,
        partner=partner,
        surface=surface,
        seq=shown.seq,
        judged=shown.judged,
        view=sight.view.digest,
        spans=known.spans if known is not None and shown.spans == before.spans else shown.dump(),
    )
    return Seen(hash_set, sight, shown, known, row)


def _say_the_same(row: ShownSet, known: ShownSet | None) -> bool:
    return known is not None and (row.judged, row.view, row.spans) == (known.judged, known.view, known.spans)


def _site(hash_set: HashSet, partner: str, sight: Sight) -> Site:
    assert hash_set.id is not None
    return Site(hash_set.id, hash_set.name, partner, SHARE, sight.policy.digest, Surface.TLS_ONLY)


def _answers(sight: Sight) -> Answers:
    return {number: (sight.labels[number][0].digest, rights) for number, rights in sight.rights.items()}
