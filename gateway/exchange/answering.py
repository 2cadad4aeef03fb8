"""Partners' look-ups answered: is a digest listed here, as far as this partner may know?

An answer must tell only what it says. So whatever a question brings, the same is done, in the same order:

    1 the partner's budget is charged for every slot of the question, those that fill it up included
    2 every slot is looked for in every set that the partner could be answered from, before policy is asked of any hit;
      of each set the same number of blocks is opened: those of hits, whoever may know of them, and others by chance
    3 what policy lets be told goes into slots of one size; a digest that is not listed, one that this partner may not
      be told of, and one that nobody meant have the same empty slot
    4 one commit: the decision receipts, and one leaf with counts

The door then lets the answer wait for the next beat of its size, so that the time of a hit does not show either.

Where our own agency has asserted more of a child than the label of the entry says, and the partner may be told so, the
answer says that (`own_word`), and it is on record who was told.

What a partner may know of an entry is judged by its label: whether a question for this purpose may be answered at all
(`look_up`), whether the entry may be known to exist, and which field groups are shown. A PDQ digest is looked for only
under labels whose perceptual digests the partner may see, near or equal alike, and says no more than "needs review".

Contract: contracts/look-up-1.md. Decision: contracts/decisions/0023-look-ups.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from gateway.alarms import AlarmKind, raise_alarm
from gateway.audit import Event, EventKind
from gateway.columns.block import decode
from gateway.columns.rows import GROUP_CODES, Rows, same_values
from gateway.errors import OverloadedError, RateLimitedError
from gateway.exchange.asking import below
from gateway.exchange.audience import Audiences
from gateway.exchange.decisions import LOOK_UP, Answers, Decisions, Site, look_up_rights
from gateway.exchange.labels import shown_attributes
from gateway.exchange.lookup import TOLD, format_entry, near_here
from gateway.exchange.shelf import CHANGES, Shelf, block_id
from gateway.interchange import IdentityCard
from gateway.keylife import DAY_SECONDS
from gateway.lookups import ALGORITHMS, MAX_SLOTS, SIZES, Answer, Question, Told
from gateway.model import AGENCY, CRYPTOGRAPHIC, FieldGroup, HandlingCode, Label, VictimStatus, is_test_set
from gateway.node import Node
from gateway.partners import POLICY_RETRY_SECONDS, active, may_move
from gateway.policy import LabelRights, PartnerRef
from gateway.statuses import RANK, Assertion
from gateway.store import Transaction
from gateway.store.tables import BlockRow, HashSet, LabelRow, LookUpUse

MINUTE_SECONDS = 60
# Blocks of a set that are opened for a question of each size, hits or not. A single digest is in one of them.
OPENED = {SIZES[0]: 4, SIZES[1]: 16, MAX_SLOTS: 64}
USUAL_DAYS = 8  # a day counts for an eighth of what is usual
UNUSUAL_TIMES = 4  # as many digests as on a usual day are worth an alarm …
UNUSUAL_DIGESTS = 65_536  # … from so many on: a partner that begins has no usual day yet
_ORDER = tuple(
    VictimStatus(word)
    for word in ("closed", "safeguarded", "identified", "lead", "unidentified", "unknown", "withheld")
)


@dataclass(frozen=True, slots=True)
class _Served:
    """A set that a partner could be answered from, and what may be told of each label."""

    who: PartnerRef
    hash_set: HashSet
    labels: Mapping[int, tuple[LabelRow, Label]]
    rights: Mapping[int, LabelRights]

    @property
    def id(self) -> int:
        assert self.hash_set.id is not None
        return self.hash_set.id


@dataclass(slots=True)
class _Candidates:
    """Where digests asked about may stand: by block, the (slot, algorithm, row, distance) of each."""

    by_block: dict[int, list[tuple[int, str, int, int]]] = field(default_factory=dict)

    def add(self, block: int, found: Iterator[tuple[int, str, int, int]]) -> None:
        """Note what stands in a block."""
        self.by_block.setdefault(block, []).extend(found)


class Words(Protocol):
    """What our own agency asserts of children (`cases.ownword`)."""

    def of_digests(self, tx: Transaction, digests: Sequence[tuple[str, bytes]]) -> dict[int, Assertion]:
        """The highest of what we assert of each digest, by its place."""

    def of_series(self, tx: Transaction, names: Iterable[str]) -> dict[str, Assertion]:
        """The highest of what we assert of each series."""

    def told(
        self, tx: Transaction, partner: str, words: Mapping[str, tuple[Assertion, LabelRights]]
    ) -> Iterator[Event]:
        """The events of telling a partner of assertions, which is noted."""


@dataclass(slots=True)
class _Words:
    """Our own word on the digests of one question, and what of it was told."""

    by_slot: Mapping[int, Assertion]
    told: dict[str, tuple[Assertion, LabelRights]] = field(default_factory=dict)


class Answering:
    """Answers partners' look-ups, within what each may ask. `own_word` is there once cases are."""

    own_word: Words

    def __init__(self, node: Node, shelf: Shelf) -> None:
        self._node = node
        self._shelf = shelf
        self._audiences = Audiences(node)
        self._decisions = Decisions(node)

    def answer(self, card: IdentityCard, question: Question, question_id: str) -> bytes:
        """What a partner is told of the digests in its question; logged before it leaves.

        Args:
            question_id: the message id of the question.

        Raises:
            RateLimitedError: it has asked too much, in this minute or on this day.
            OverloadedError: policy is being changed meanwhile.
        """
        # 1. What it costs, whatever comes of it.
        self._charge(card.agency, len(question.slots))
        policy = self._node.policy
        # 2. and 3. Look, then judge.
        with self._shelf.reading(self._node.store) as tx:
            row = active(self._node, tx, card.agency)
            served = [
                self._served(tx, one, card, question)
                for one in tx.sets.stored()
                if not one.hub and may_move(self._node, row, one.name) and self._counts(one, under_test=row.test)
            ]
            found: list[list[Told]] = [[] for _ in question.slots]
            words = _Words(self.own_word.of_digests(tx, question.slots))
            for one in served:
                for slot, told in self._found(tx, one, question, words):
                    found[slot].append(told)
        answer = Answer(question_id, self._node.clock(), tuple(tuple(sorted(said, key=_rank)) for said in found))
        raw = answer.dump()
        # 4. One commit. A crash before this line sends nothing.
        with self._node.store.transaction() as tx:
            active(self._node, tx, card.agency)
            if self._node.policy is not policy:
                raise OverloadedError("the policy is being changed", retry_after_seconds=POLICY_RETRY_SECONDS)
            for one in served:
                self._record_decisions(tx, one, card.agency, question)
            details: dict[str, object] = {
                "partner": card.agency,
                "purpose": str(question.purpose),
                "asked": len(question.slots),
                "answered": sum(1 for said in found if said),
                "distance": question.distance,
                "policy": policy.digest,
            }
            event = self._node.event(EventKind.LOOK_UP, actor=card.agency, subject=self._node.agency, details=details)
            tx.log.append([event, *self.own_word.told(tx, card.agency, words.told)])
        return raw

    # What a partner may ask

    def _charge(self, partner: str, slots: int) -> None:
        """The partner has as many digests less to ask about.

        Raises:
            RateLimitedError: it had too few left; `retry_after_seconds` says when it has more.
        """
        now, settings = self._node.clock(), self._node.settings
        with self._node.store.reading() as tx:
            wait = _wait(_at(tx.look_ups.use(partner), now), slots, now, settings.look_up_digests_per_day, 1 << 62)
            told = wait and tx.alarms.open(AlarmKind.LOOK_UP_VOLUME, partner) is not None
        if not told:  # else nothing is written: who is over its quota may ask as often as it likes
            with self._node.store.transaction() as tx:
                active(self._node, tx, partner)
                use = _at(tx.look_ups.use(partner), now)
                wait = _wait(use, slots, now, settings.look_up_digests_per_day, settings.look_ups_per_minute)
                spent = use.digests + slots > settings.look_up_digests_per_day
                if not wait:
                    use.digests, use.batches = use.digests + slots, use.batches + 1
                    tx.look_ups.put(use)
                if spent or use.digests > max(UNUSUAL_DIGESTS, UNUSUAL_TIMES * use.usual):
                    words = (
                        "has used up its quota of look-ups for today"
                        if spent
                        else "looks up far more than it usually does"
                    )
                    raise_alarm(tx, self._node, AlarmKind.LOOK_UP_VOLUME, partner, f"this partner {words}")
        if wait:
            raise RateLimitedError("more look-ups than were agreed", retry_after_seconds=wait)

    def _counts(self, hash_set: HashSet, *, under_test: bool) -> bool:
        """Invented data are no answer, but to a partner under test, and where all data are invented."""
        return under_test or self._node.settings.demo or not is_test_set(hash_set.name)

    # What is here, and what may be told of it

    def _served(self, tx: Transaction, hash_set: HashSet, card: IdentityCard, question: Question) -> _Served:
        labels = self._audiences.labels(tx, hash_set)
        who = PartnerRef(card.agency, card.jurisdiction)
        rights = look_up_rights(self._node.policy, hash_set, labels, who, question.purpose)
        return _Served(who, hash_set, labels, rights)

    def _found(self, tx: Transaction, served: _Served, question: Question, words: _Words) -> Iterator[tuple[int, Told]]:
        """What may be told of each slot from one set."""
        candidates = self._candidates(tx, served, question)
        stored = self._opened(tx, served, list(candidates.by_block), len(question.slots))
        permitted: list[tuple[int, int, Rows, int | None]] = []
        for row, block in zip(stored, self._shelf.get_all(tx, stored, GROUP_CODES.values()), strict=True):
            rows = decode(block, ["entry_id", *ALGORITHMS, *TOLD])
            right = served.rights.get(row.label)
            for slot, algorithm, place, distance in candidates.by_block.get(block_id(row), ()):
                one = rows.slice(place, place + 1)
                if right is not None and _may_know(right, algorithm) and _is_the_one(one, algorithm, question, slot):
                    permitted.append((slot, row.label, one, None if algorithm in CRYPTOGRAPHIC else distance))
        of_series = self.own_word.of_series(tx, {one.text("series")[0] for _, _, one, _ in permitted})
        for slot, label, one, apart in permitted:
            said = [words.by_slot.get(slot), of_series.get(one.text("series")[0])]
            ours = max((word for word in said if word), key=lambda word: RANK[word.status], default=None)
            word = ours if apart is None else None  # of what looks alike nothing is asserted
            yield slot, self._told(served, label, one, apart, question, word, words)

    def _candidates(self, tx: Transaction, served: _Served, question: Question) -> _Candidates:
        """Where each digest asked about may stand in a set, whoever may know of it."""
        found = _Candidates()
        for algorithm in ALGORITHMS:
            slots = [at for at, (name, _) in enumerate(question.slots) if name == algorithm]
            values = [question.slots[at][1] for at in slots]
            if algorithm not in CRYPTOGRAPHIC:
                near = near_here(tx, self._shelf, served.id, values, question.distance) if values else None
                places = (
                    [] if near is None else list(zip(near.block_no, near.query, near.row, near.distance, strict=True))
                )
            else:
                column = Rows.of(len(values), {algorithm: values}).octets(algorithm)
                with self._shelf.index(tx, served.id) as index:
                    hits = index.find(algorithm, column)
                places = [
                    (block, query, row, 0)
                    for block, query, row in zip(hits.block_no, hits.query, hits.row, strict=True)
                ]
            for block, query, row, distance in places:
                found.add(int(block), iter([(slots[int(query)], algorithm, int(row), int(distance))]))
        return found

    def _opened(self, tx: Transaction, served: _Served, wanted: Sequence[int], slots: int) -> list[BlockRow]:
        """The blocks that hold candidates, and others, so that as many are opened whatever is listed."""
        stored = [row for row in tx.blocks.of_set(served.id) if row.kind == CHANGES]
        here, chosen = {block_id(row): row for row in stored}, set(wanted)
        others = sorted(here.keys() - chosen)
        missing = min(OPENED[slots], len(stored)) - len(chosen & here.keys())
        for _ in range(missing):
            chosen.add(others.pop(below(self._node.random, len(others))))
        return [here[number] for number in sorted(chosen & here.keys())]

    def _told(  # noqa: PLR0917  all that an answer is made of
        self,
        served: _Served,
        number: int,
        row: Rows,
        distance: int | None,
        question: Question,
        word: Assertion | None,
        words: _Words,
    ) -> Told:
        """What is said of one entry."""
        label, right = served.labels[number][1], served.rights[number]
        asserted = None if word is None else self._with_our_word(served, number, question, word)
        if asserted is not None and word is not None:
            label, right = asserted
            words.told[word.id] = word, right
        attributes = shown_attributes(label, right.groups)
        knows_status = FieldGroup.VICTIM_STATUS in right.groups
        [entry], [changed], [status_at] = (row.ints(name).tolist() for name in ("entry_id", "changed_at", "status_at"))
        owner, since = row.text("status_owner")[0] if knows_status else "", status_at if knows_status else 0
        if asserted is not None and word is not None:
            owner, since = word.agency, word.at
        return Told(
            set_name=served.hash_set.name,
            entry=format_entry(entry),
            originator=label.originator,
            status=VictimStatus(str(attributes["victim_status"])),
            who=owner if AGENCY.fullmatch(owner) else label.originator,
            since=since or changed,
            category=label.category,
            handling=HandlingCode(label.handling),
            series=row.text("series")[0] if FieldGroup.SERIES in right.groups else "",
            contact=self._node.settings.look_up_contact if FieldGroup.CONTACT in right.groups else "",
            duties=tuple(str(duty) for duty in right.obligations),
            distance=distance,
        )

    def _with_our_word(
        self, served: _Served, number: int, question: Question, word: Assertion
    ) -> tuple[Label, LabelRights] | None:
        """The label with the status that we assert, and what may be told under it; None where that is no more than the
        label says, or may not be told."""
        row, label = served.labels[number]
        if RANK[word.status] <= RANK.get(label.victim_status, -1):
            return None
        with_it = replace(label, victim_status=word.status)
        told = look_up_rights(self._node.policy, served.hash_set, {0: (row, with_it)}, served.who, question.purpose)[0]
        return (with_it, told) if {FieldGroup.EXISTENCE, FieldGroup.VICTIM_STATUS} <= told.groups else None

    def _record_decisions(self, tx: Transaction, served: _Served, partner: str, question: Question) -> None:
        answers: Answers = {n: (row.digest, served.rights[n]) for n, (row, _) in served.labels.items()}
        site = Site(
            served.id, served.hash_set.name, partner, LOOK_UP, self._node.policy.digest, purpose=str(question.purpose)
        )
        self._decisions.record(tx, site, answers)


def _may_know(right: LabelRights, algorithm: str) -> bool:
    """Whether a partner may know that an entry carries a digest of this algorithm, which it has itself."""
    needed = {FieldGroup.EXISTENCE} | (set() if algorithm in CRYPTOGRAPHIC else {FieldGroup.PERCEPTUAL_DIGESTS})
    return needed <= right.groups


def _is_the_one(row: Rows, algorithm: str, question: Question, slot: int) -> bool:
    """Whether a candidate carries the digest in full. What is near was compared already."""
    if algorithm not in CRYPTOGRAPHIC:
        return True
    asked = Rows.of(1, {algorithm: [question.slots[slot][1]]})
    return algorithm in row.columns and bool(same_values(row, asked, algorithm)[0])


def _rank(told: Told) -> tuple[int, int, str, str]:
    """The best answer first: what is the same before what looks alike, then by what is known of the child."""
    return (-1 if told.distance is None else told.distance, _ORDER.index(told.status), told.set_name, told.entry)


def _at(use: LookUpUse, now: int) -> LookUpUse:
    """What has been asked so far on this day and in this minute."""
    day, minute = now // DAY_SECONDS, now // MINUTE_SECONDS
    if use.day != day:
        for _ in range(min(day - use.day, USUAL_DAYS) if use.day else 0):
            use.usual += (use.digests - use.usual) // USUAL_DAYS
            use.digests = 0
        use.day, use.digests = day, 0
    if use.minute != minute:
        use.minute, use.batches = minute, 0
    return use


def _wait(use: LookUpUse, slots: int, now: int, a_day: int, a_minute: int) -> int:
    """In how many seconds a question of so many slots may be asked; 0 for now."""
    if use.digests + slots > a_day:
        return DAY_SECONDS - now % DAY_SECONDS
    return MINUTE_SECONDS - now % MINUTE_SECONDS if use.batches >= a_minute else 0
