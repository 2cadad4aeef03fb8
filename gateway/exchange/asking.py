"""Looking up at partners: what may be asked of whom, and the questions in which nobody sees how much is asked.

A question tells the partner a digest. So what stands here under a label of which this partner may not see such digests
is not asked, and the asker is told how many those are. What stands nowhere here, or came from that partner itself, may
be asked.

Each question is filled up with random digests of the algorithms that are in it, and shuffled: the partner cannot tell
which of them are meant, nor how many. A question is on record before it leaves, by its count.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gateway.audit import EventKind
from gateway.crypto.keys import Random, new_message_id
from gateway.exchange.lookup import Lookup, by_algorithm
from gateway.lookups import ALGORITHMS, MAX_SLOTS, Answer, Question, Told, size_for
from gateway.model import CRYPTOGRAPHIC, DIGEST_BYTES, ENTRY_GROUPS, FieldGroup, Label, Purpose, Surface
from gateway.node import Node
from gateway.policy import LabelInSet, PartnerRef


@dataclass(frozen=True, slots=True)
class Asked:
    """One question: `places` says of each slot which digest of the asker's list it is about, -1 for none."""

    message_id: str
    question: Question
    places: tuple[int, ...]

    def answers(self, answer: Answer) -> Iterator[tuple[int, tuple[Told, ...], bool]]:
        """(place, what is said, whether there is more) of each slot that is meant and of which anything is said."""
        for slot, (place, told) in enumerate(zip(self.places, answer.slots, strict=True)):
            if place >= 0 and told:
                yield place, told, slot in answer.more


@dataclass(frozen=True, slots=True)
class Plan:
    """The questions for one partner, and the places of digests that it is not asked about: by our policy, or since no
    question can hold them."""

    questions: tuple[Asked, ...]
    withheld: frozenset[int]
    unfit: frozenset[int]


class Asking:
    """Makes questions for partners."""

    def __init__(self, node: Node, lookup: Lookup) -> None:
        self._node = node
        self._lookup = lookup

    def plan(self, partner: str, digests: Sequence[str], purpose: Purpose, distance: int | None) -> Plan:
        """What a partner is asked of these digests.

        Args:
            distance: PDQ digests are asked about, and count as near within so many bits; None: they are not.
        """
        names = [name for name in ALGORITHMS if distance is not None or name in CRYPTOGRAPHIC]
        asked = by_algorithm(digests)
        wanted = [(name, place, value) for name in names for place, value in asked.get(name, [])]
        withheld = self._withheld(partner, digests)
        meant = sorted({place for _, place, _ in wanted if place not in withheld})
        slots = [(name, place, value) for name, place, value in wanted if place not in withheld]
        questions = tuple(
            self._question(slots[at : at + MAX_SLOTS], purpose, distance or 0) for at in range(0, len(slots), MAX_SLOTS)
        )
        return Plan(questions, withheld, frozenset(range(len(digests))) - withheld - frozenset(meant))

    def record(self, partner: str, asked: Asked) -> None:
        """It is on record that a partner is asked, about how many digests, and for what."""
        details: dict[str, object] = {
            "partner": partner,
            "purpose": str(asked.question.purpose),
            "asked": len(set(asked.places) - {-1}),
            "distance": asked.question.distance,
        }
        event = self._node.event(EventKind.LOOK_UP, actor=self._node.agency, subject=partner, details=details)
        with self._node.store.transaction() as tx:
            tx.log.append([event])

    def _withheld(self, partner: str, digests: Sequence[str]) -> frozenset[int]:
        """The digests that stand here where policy does not let this partner see them."""
        who, found = PartnerRef(partner, partner[:2]), set()
        for hit in self._lookup.hits(digests):
            if hit.hub == partner:
                continue
            held = LabelInSet(hit.set_name, Label.from_json(hit.attributes))
            groups = self._node.policy.table(who, Surface.SEALED, {0: held}, groups=ENTRY_GROUPS)[0].groups
            cryptographic = hit.algorithm in CRYPTOGRAPHIC
            needed = FieldGroup.CRYPTOGRAPHIC_DIGESTS if cryptographic else FieldGroup.PERCEPTUAL_DIGESTS
            if needed not in groups:
                found.add(hit.query)
        return frozenset(found)

    def _question(self, some: Sequence[tuple[str, int, bytes]], purpose: Purpose, distance: int) -> Asked:
        random, names = self._node.random, [name for name, _, _ in some]
        slots = [(name, value, place) for name, place, value in some]
        while len(slots) < size_for(len(some)):
            name = names[below(random, len(names))]
            slots.append((name, random.bytes(DIGEST_BYTES[name] or 0), -1))
        for last in range(len(slots) - 1, 0, -1):  # Fisher and Yates
            other = below(random, last + 1)
            slots[last], slots[other] = slots[other], slots[last]
        question = Question(purpose, tuple((name, value) for name, value, _ in slots), distance)
        return Asked(new_message_id(random), question, tuple(place for _, _, place in slots))


def below(random: Random, bound: int) -> int:
    """A random number from 0 to `bound` - 1, as good as even: 64 bits for some thousand."""
    return int.from_bytes(random.bytes(8), "big") % bound
