"""The policy in force as a matrix of this gateway's own labels and partners, for people who look at it.

Decisions are kept by the policy's digest, the day, and what was asked, so that a page that somebody turns over costs no
engine; a rule's lapse is another day, a new policy another digest. What is kept is bounded in decisions.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Lock

from gateway.enumerating import decide_all
from gateway.errors import TooLargeError
from gateway.exchange.labels import stored_label
from gateway.model import Label, Surface
from gateway.partners import ACTIVE
from gateway.policy import Grid, LabelInSet, PartnerRef, PolicySet, Question
from gateway.policy.matrix import Described, Matrix, described, described_partners, described_size
from gateway.store import Transaction

MAX_DECISIONS = 60_000  # of one page: some four seconds of one core when nobody has looked yet
MAX_KEPT = 200_000  # decisions, in all that is kept: equal ones are one object, so some 30 MB
Asked = tuple[Question, ...]
TOO_MANY = "the rules can tell apart more labels than one page decides"


@dataclass(frozen=True, slots=True)
class OwnLabel:
    """A label of a set of this gateway."""

    number: int
    held: LabelInSet

    @property
    def words(self) -> str:
        """What tells it from others, for people: "H1, identified, embargo"."""
        label = self.held.label
        return ", ".join((label.handling, label.victim_status, *label.restrictions))

    @property
    def name(self) -> str:
        """The same with the set and the number: "list 3: H1, identified"."""
        return f"{self.held.set_name.partition('/')[2]} {self.number}: {self.words}"


def own_labels(tx: Transaction, names: Sequence[str] = ()) -> list[OwnLabel]:
    """Every label of these sets, or of all sets that are not mirrors of another's.

    Raises:
        NotFoundError: no such set.
    """
    rows = [tx.sets.get(name) for name in names] or [row for row in tx.sets.all() if not row.hub]
    return [
        OwnLabel(one.number, LabelInSet(row.name, stored_label(one)))
        for row in rows
        for one in tx.sets.labels(row.id or 0)
    ]


def enrolled(tx: Transaction) -> tuple[PartnerRef, ...]:
    """The partners that exchange now."""
    return tuple(PartnerRef(row.agency, row.jurisdiction) for row in tx.people.partners() if row.state == ACTIVE)


def parties(tx: Transaction, policies: PolicySet) -> tuple[PartnerRef, ...]:
    """Whom a matrix is of: the partners that exchange now; where there is none yet, the parties of agreements."""
    return enrolled(tx) or described_partners(policies)


def chosen_label(tx: Transaction, set_name: str, number: int) -> Label | None:
    """A label of one of this gateway's own sets by its number; None where there is none."""
    wanted = set_name, number
    return next((one.held.label for one in own_labels(tx) if (one.held.set_name, one.number) == wanted), None)


@dataclass(slots=True)
class Matrices:
    """Matrices that were decided already. One is decided at a time: whoever asks for the same waits and gets it."""

    _kept: OrderedDict[tuple[object, ...], Matrix] = field(default_factory=OrderedDict)
    _deciding: Lock = field(default_factory=Lock, repr=False)
    _looking: Lock = field(default_factory=Lock, repr=False)

    def of(self, policies: PolicySet, grid: Grid, names: Sequence[str]) -> Matrix:
        """What the policy decides of a grid.

        Raises:
            TooLargeError: more decisions than one page takes.
        """
        if grid.cells > MAX_DECISIONS:
            raise TooLargeError("more decisions than one page takes", remedy="choose one partner or one set")
        key = (policies.digest, policies.on, grid, tuple(names))
        return self._once(key, lambda: Matrix.of(policies, grid, names, decide_all(policies, grid, processes=1)))

    def described(
        self, policies: PolicySet, set_name: str, partners: tuple[PartnerRef, ...], surface: Surface, asked: Asked
    ) -> Matrix:
        """Every label of one's own that the rules can tell apart, those that are decided alike as one.

        Raises:
            TooLargeError: they are more than one page decides.
        """
        count = described_size(policies, partners, asked)
        if count * len(partners) * len(asked) > MAX_DECISIONS:
            remedy = "choose one partner, or ask in a terminal: `gateway policy matrix --describe`"
            raise TooLargeError(f"{TOO_MANY}: {count:,}", remedy=remedy)

        def decide() -> Matrix:
            words: Described = described(policies, set_name, partners, asked)
            grid = Grid(partners, surface, words.labels, asked)
            rows = decide_all(policies, grid, processes=1)
            return words.folded(Matrix.of(policies, grid, words.names, rows))

        return self._once((policies.digest, policies.on, "described", set_name, partners, surface, asked), decide)

    def _once(self, key: tuple[object, ...], decide: Callable[[], Matrix]) -> Matrix:
        found = self._find(key)
        if found is not None:
            return found
        with self._deciding:
            found = self._find(key) or decide()
            self._keep(key, found)
        return found

    def _find(self, key: tuple[object, ...]) -> Matrix | None:
        with self._looking:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def _keep(self, key: tuple[object, ...], matrix: Matrix) -> None:
        with self._looking:
            self._kept[key] = matrix
            while len(self._kept) > 1 and sum(one.grid.cells for one in self._kept.values()) > MAX_KEPT:
                self._kept.popitem(last=False)
