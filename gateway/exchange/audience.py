"""Who may see what of a set, worked out once and kept while it is true.

Nearly everything that a poll asks is the same as at the last poll, and the same for all partners with one view: the
labels of the set, the view of each partner, how much a view shows and its state digest. So these are kept here:

    labels           of an own set, or of an onward copy, only grow, and only with its seq
    rights, view     of a partner: as long as labels and policy are the same objects
    count and state  of a view: as long as nobody has written the set's sums (`HashSet.revision`)

Nothing in here says that a partner may be served now; that is asked of the store at each request.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Lock

from gateway.exchange.changes import Sums
from gateway.exchange.forwarding import narrowed
from gateway.exchange.labels import digest_key, stored_label
from gateway.interchange import LabelView, View
from gateway.model import FieldGroup, Label, Surface
from gateway.node import Node
from gateway.policy import LabelInSet, LabelRights, PartnerRef, PolicySet
from gateway.store import Transaction
from gateway.store.tables import HashSet, LabelRow

MAX_KEPT_RIGHTS = 1_024  # of one partner in one set each: 100 partners in ten sets; most are the same few objects
Labels = Mapping[int, tuple[LabelRow, Label]]
Rights = Mapping[int, LabelRights]


@dataclass(frozen=True, slots=True, eq=False)
class Sight:
    """What policy lets one partner see of a set."""

    labels: Labels
    policy: PolicySet
    rights: Rights
    view: View


@dataclass(frozen=True, slots=True, eq=False)
class _Standing:
    """A set as it was last met; `counted` holds count and state by view digest."""

    at: tuple[int, int, int]
    key: bytes
    labels: Labels
    counted: dict[str, tuple[int, str]] = field(default_factory=dict)


class Audiences:
    """What is known of own sets and of those who may see them. Threads may share it."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._standings: dict[int, _Standing] = {}
        self._sights: OrderedDict[tuple[int, PartnerRef, Surface], Sight] = OrderedDict()
        self._guard = Lock()

    def labels(self, tx: Transaction, hash_set: HashSet) -> Labels:
        """The labels of an own set by number, each row with what it says."""
        return self._standing(tx, hash_set).labels

    def sight(
        self, tx: Transaction, hash_set: HashSet, partner: PartnerRef, surface: Surface = Surface.SEALED
    ) -> Sight:
        """What policy lets a partner see of an own set now, on the way that `surface` names."""
        labels, policy = self.labels(tx, hash_set), self._node.policy
        place = (_id(hash_set), partner, surface)
        with self._guard:
            kept = self._sights.get(place)
            if kept is not None and kept.labels is labels and kept.policy is policy:
                self._sights.move_to_end(place)
                return kept
        held = {number: LabelInSet(hash_set.name, label) for number, (_, label) in labels.items()}
        rights = policy.table(partner, surface, held)
        if hash_set.relays:
            rights = {n: narrowed(labels[n][1], labels[n][0], right, partner) for n, right in rights.items()}
        shown = {
            number: LabelView(right.groups, tuple(str(duty) for duty in right.obligations))
            for number, right in rights.items()
            if FieldGroup.EXISTENCE in right.groups
        }
        with self._guard:
            found = Sight(labels, policy, rights, self._one_of_its_class(place[0], View(shown)))
            self._sights[place] = found
            self._sights.move_to_end(place)
            while len(self._sights) > MAX_KEPT_RIGHTS:
                self._sights.popitem(last=False)
        return found

    def _one_of_its_class(self, set_id: int, view: View) -> View:
        """The view that another partner has already, where it is the same: thousands of labels are kept once."""
        same = (
            kept.view for (of, *_), kept in self._sights.items() if of == set_id and kept.view.digest == view.digest
        )
        return next(same, view)

    def key(self, tx: Transaction, hash_set: HashSet) -> bytes:
        """The set's state digest key."""
        return self._standing(tx, hash_set).key

    def counted(self, tx: Transaction, hash_set: HashSet, view: View) -> tuple[int, str]:
        """How many entries of the set a view shows, and their state digest."""
        standing = self._standing(tx, hash_set)
        found = standing.counted.get(view.digest)
        if found is None:
            sums = Sums(tx, _id(hash_set), standing.key)
            shown = {number: one.groups for number, one in view.labels.items()}
            found = standing.counted[view.digest] = sums.entries(shown), sums.state(shown)
        return found

    def _standing(self, tx: Transaction, hash_set: HashSet) -> _Standing:
        at = (hash_set.epoch, hash_set.seq, hash_set.revision)
        before = self._standings.get(_id(hash_set))
        if before is not None and before.at == at:
            return before
        rows = tx.sets.labels(_id(hash_set))
        labels: Labels
        if before is not None and before.at[0] == at[0] and len(before.labels) == len(rows):
            labels = before.labels  # an own label never changes, so they are the same as long as none was added
        else:
            labels = {row.number: (row, stored_label(row)) for row in rows}
        found = _Standing(at, digest_key(self._node, hash_set), labels)
        self._standings[_id(hash_set)] = found
        return found


def _id(hash_set: HashSet) -> int:
    assert hash_set.id is not None, "a stored set has an id"
    return hash_set.id
