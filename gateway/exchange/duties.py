"""Duties that came with entries, kept by whoever holds them, and looked after by whoever asked for them.

What a mirror's label is bound to is what its hub named in its view and what the rule of ours adds under which we took
it (`labels.binding_duties`); of two numbers the smaller counts.

    retain_days(N)               N days after an entry came, or came anew in a newer version, its values are deleted
    acknowledge_within_days(N)   whoever takes a page in says so in its mailbox; the hub knows what is outstanding
    notify_originator            whoever takes entries in, or sends them on, tells their originator: once for each page
                                 and label
    no_onward                    kept where entries are sent on (`policy.duties.may_go_onward`)
    court_use_needs_leave        nothing that a program can keep: people are told with each answer

Deleting for good is `rewriting`: blocks whose time is over are written anew without values, the old ones go with their
keys, and a leaf binds both (`entries_purged`). Entry, version and the items of the state digest stay (`EXPIRED`), so
that equality with the hub still holds and comparing does not fetch again what had to go. It comes in steps of a bounded
size, each a transaction of its own, and goes on where it was cut off.

A time of arrival is a block's. A block that is written anew keeps it, and joined ones have that of the oldest row in
them (`compacting`), so nothing that is done to blocks puts the day off. What the hub sends anew came anew: a newer
version, a label that it shows otherwise than before (so a shorter term is kept for what is held already), or everything
where a mirror begins anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from gateway.audit import EventKind
from gateway.columns.block import decode
from gateway.columns.rows import EXISTENCE, constant, flagged, integers, joined
from gateway.columns.sketch import among
from gateway.errors import ConflictError, DeniedError, MalformedError, OverloadedError
from gateway.exchange.forwarding import OnwardChanges
from gateway.exchange.labels import binding_duties, parsed_label
from gateway.exchange.rewriting import Going, Rewriting
from gateway.exchange.shelf import CHANGES, EXPIRED, Shelf, block_id
from gateway.exchange.sorting import PageWork
from gateway.interchange import PageHead
from gateway.keylife import DAY_SECONDS
from gateway.mailbox import Mailbox
from gateway.model import ChangeKind, Restriction, int_member, text_member
from gateway.node import Node
from gateway.partners import ACTIVE, may_exchange
from gateway.policy import Duty
from gateway.policy.duties import asks_for, days_of
from gateway.store import Transaction
from gateway.store.tables import Acknowledgement, BlockRow, HashSet, LabelRow

PURGED_CHANGES = 65_536  # of one transaction: as much as one page has
PURGED_BLOCKS = 128  # … and so many: their digests fit one event
HOUSE_SECONDS = 5  # a minute, while the schedule keeps house
HOUSE_STEPS = 16  # … and no more than these: a clock may stand
LOOK_SECONDS = 3_600  # duties count days
MAX_LISTED = 1_000  # messages to one partner that are looked through: more wait only where nothing gets through
ACKNOWLEDGED, NOTIFIED = "entries_acknowledged", "originator_notified"  # kinds of mail
TAKEN, FORWARDED = "taken", "forwarded"  # what an originator is told of
HERE, THERE = "here", "partner"  # who has to keep a duty
OUTSTANDING, OVERDUE, ON_HOLD = "outstanding", "overdue", "on hold"


@dataclass(frozen=True, slots=True)
class Purged:
    """What was deleted because its time was over: entries that were held, stored rows of them, blocks."""

    entries: int = 0
    rows: int = 0
    blocks: int = 0

    def __add__(self, other: Purged) -> Purged:
        return Purged(self.entries + other.entries, self.rows + other.rows, self.blocks + other.blocks)


@dataclass(frozen=True, slots=True)
class Told:
    """What an originator is told: how many entries under a label (its digest in hex) an agency holds since.

    `what`: TAKEN or FORWARDED.
    """

    set_name: str
    label: str
    entries: int
    what: str
    holder: str

    @property
    def body(self) -> dict[str, object]:
        """As the body of a message."""
        return {
            "set": self.set_name,
            "label": self.label,
            "entries": self.entries,
            "what": self.what,
            "holder": self.holder,
        }


@dataclass(frozen=True, slots=True)
class OpenDuty:
    """One duty that is to be kept some day, here or by a partner.

    `rows`: stored rows that it is about, 0 where that is a page, which ends at `until_seq`.
    """

    side: str
    partner: str
    set_name: str
    duty: str
    due: int
    state: str
    rows: int = 0
    until_seq: int = 0


@dataclass(frozen=True, slots=True)
class _Onward:
    """What a step does to the onward copy of a mirror: entries leave it, and rows of it lose their values."""

    changes: OnwardChanges
    going: Going


# What binds whom: pure


def is_on_hold(label: LabelRow) -> bool:
    """Whether entries under a label must stay although their time is over. All that keeps them back is asked here.

    Holds that name entries (`holding`) need no asking: they keep copies of their own.
    """
    return Restriction.LEGAL_HOLD in parsed_label(label.attributes).restrictions


def terms(labels: Iterable[LabelRow], duties: Mapping[int, Sequence[str]]) -> dict[int, int]:
    """Of each label whose entries are to be deleted some day, and may be, after how many days."""
    found = {row.number: days_of(duties[row.number], Duty.RETAIN_DAYS) for row in labels if not is_on_hold(row)}
    return {number: days for number, days in found.items() if days is not None}


def acknowledgement_due(page: PageHead, now: int) -> int | None:
    """When a page that leaves now is to be acknowledged, by the strictest of its labels; None where no label asks."""
    days = [found for label in page.labels if (found := days_of(label.obligations, Duty.ACKNOWLEDGE_WITHIN_DAYS))]
    return now + min(days) * DAY_SECONDS if days else None


class Duties:
    """Keeps this gateway's duties, and knows which of its partners' are outstanding."""

    def __init__(self, node: Node, shelf: Shelf, mailbox: Mailbox) -> None:
        self._node = node
        self._shelf = shelf
        self._mailbox = mailbox
        self._looked: dict[int, int] = {}  # mirror -> when nothing was due in it
        mailbox.on(ACKNOWLEDGED, self._hear_acknowledgement)

    # Deleting what may no longer be held

    def purge(self, name: str, *, on_step: Callable[[Purged], None] = lambda _done: None) -> Purged:
        """Delete everything of a mirror whose time is over; returns what that was.

        Args:
            on_step: told after each transaction what was done so far.

        Raises:
            DeniedError: the set is our own: nobody's duty binds it.
        """
        with self._node.store.reading() as tx:
            found = tx.sets.get(name)
        if not found.hub:
            raise DeniedError("duties bind what came from a partner; this set is our own")
        done = Purged()
        for some in self._steps(_id(found)):
            done += some
            on_step(done)
        self._scrub(done)
        return done

    def due(self, name: str) -> int:
        """How many stored rows of a mirror are in blocks whose time is over."""
        with self._node.store.reading() as tx:
            mirror = tx.sets.get(name)
            if not mirror.hub:
                return 0
            until = self._until(tx, mirror, self._terms(tx, mirror))
            return sum(tx.blocks.rows_arrived(_id(mirror), CHANGES, label, at) for label, at in until.items())

    def keep_house(self) -> Purged:
        """Delete what is due in any mirror, for some seconds; what is left waits for the next time."""
        now, done = self._node.clock(), Purged()
        with self._node.store.reading() as tx:
            mirrors = [_id(row) for row in tx.sets.all() if row.hub]
        steps = (some for number in mirrors if self._looked.get(number, 0) <= now for some in self._steps(number))
        try:
            for number, some in enumerate(steps, 1):
                done += some
                if number == HOUSE_STEPS or self._node.clock() >= now + HOUSE_SECONDS:
                    break
        except (ConflictError, OverloadedError):
            pass  # another deed came between, or the database is busy: the next time finds what is left
        self._scrub(done)
        return done

    def _steps(self, set_id: int) -> Iterator[Purged]:
        """One transaction after the other, until nothing is due."""
        while self._is_due(set_id):
            with self._node.store.transaction() as tx:
                some = self._purge_some(tx, tx.sets.by_id(set_id))
                # A crash before the commit leaves everything as it was, and the next time finds it due.
            yield some
        self._looked[set_id] = self._node.clock() + LOOK_SECONDS

    def _is_due(self, set_id: int) -> bool:
        """Whether anything of a mirror is due: mostly nothing is, and then nobody who writes is kept waiting."""
        with self._node.store.reading() as tx:
            return bool(self._due(tx, tx.sets.by_id(set_id)))

    def _purge_some(self, tx: Transaction, mirror: HashSet) -> Purged:
        """Some blocks whose time is over lose their values; nothing when another was quicker."""
        going, named = Going(mirror), set[str]()
        due = self._due(tx, mirror)
        onward = self._onward(tx, mirror, [row for row, _ in due])
        for row, days in due:
            with self._shelf.index(tx, _id(mirror)) as index:
                live = index.live_rows(block_id(row))
            going.gone[block_id(row)], going.live[block_id(row)] = live | ~live, live
            going.stay[block_id(row)] = live & ~live
            named.add(f"{Duty.RETAIN_DAYS}({days})")
        if not due:
            return Purged()
        told: dict[str, object] = {"labels": len({row.label for row, _ in due}), "duties": sorted(named)}
        Rewriting(self._node, tx, self._shelf, going, leaves=EXPIRED).run(EventKind.ENTRIES_PURGED, told)
        if onward is not None:
            Rewriting(self._node, tx, self._shelf, onward.going, leaves=EXPIRED).run(EventKind.ENTRIES_PURGED, told)
            onward.changes.write(())
        return Purged(going.held, sum(row.count for row, _ in due), len(due))

    def _onward(self, tx: Transaction, mirror: HashSet, due: Sequence[BlockRow]) -> _Onward | None:
        """What goes here leaves whoever had it from us, too, and its values go from the onward copy in every version.

        It is asked before any block is put, and written after them.
        """
        copy = tx.sets.onward_copy(_id(mirror)) if due else None
        if copy is None:
            return None
        held, newest = [], dict[int, int]()
        for row, block in zip(due, self._shelf.get_all(tx, due, [EXISTENCE]), strict=True):
            rows = decode(block, ["entry_id", "version"])
            for entry, version in zip(rows.ints("entry_id").tolist(), rows.ints("version").tolist(), strict=True):
                newest[entry] = max(version, newest.get(entry, 0))
            with self._shelf.index(tx, _id(mirror)) as index:
                held.append(rows.ints("entry_id")[index.live_rows(block_id(row))])
        changes = OnwardChanges(self._node, self._shelf, tx, copy)
        changes.touch(joined(held), withdrawn=integers([]))
        return _Onward(changes, self._versions_of(tx, copy, newest))

    def _versions_of(self, tx: Transaction, copy: HashSet, newest: Mapping[int, int]) -> Going:
        """Every row of these entries in an onward copy, up to a version each; none of them is current any more."""
        going, ids = Going(copy), integers(sorted(newest))
        stored = [row for row in tx.blocks.of_set(_id(copy)) if row.kind == CHANGES]
        for row, block in zip(stored, self._shelf.get_all(tx, stored, [EXISTENCE]), strict=True):
            rows = decode(block, ["kind", "entry_id", "version"])
            asserts = rows.ints("kind") == constant(ChangeKind.ASSERT, rows.n)
            found = asserts & among(rows.ints("entry_id"), ids)
            pairs = zip(rows.ints("entry_id").tolist(), rows.ints("version").tolist(), strict=True)
            gone = found & flagged([version <= newest.get(entry, 0) for entry, version in pairs])
            if gone.any():
                with self._shelf.index(tx, _id(copy)) as index:
                    live = index.live_rows(block_id(row)) & ~gone
                number = block_id(row)
                going.gone[number], going.live[number], going.stay[number] = gone, live, live | ~asserts
        return going

    def _terms(self, tx: Transaction, mirror: HashSet) -> dict[int, int]:
        labels = tx.sets.labels(_id(mirror))
        return terms(labels, binding_duties(self._node, mirror, labels))

    def _until(self, tx: Transaction, mirror: HashSet, days: Mapping[int, int]) -> dict[int, int]:
        """Of each label of which something is due: what came until when."""
        until = {label: self._node.clock() - term * DAY_SECONDS for label, term in days.items()}
        arrivals = tx.blocks.arrivals(_id(mirror), CHANGES) if until else {}
        return {label: until[label] for label, (first, _) in arrivals.items() if first <= until.get(label, first - 1)}

    def _due(self, tx: Transaction, mirror: HashSet) -> list[tuple[BlockRow, int]]:
        """The oldest blocks whose time is over, each with its days, as many as one transaction rewrites."""
        found, spent, days = list[tuple[BlockRow, int]](), 0, self._terms(tx, mirror)
        for label, until in self._until(tx, mirror, days).items():
            for row in tx.blocks.arrived_until(_id(mirror), CHANGES, label, until, PURGED_BLOCKS - len(found)):
                spent += row.count
                if found and spent > PURGED_CHANGES:
                    return found
                found.append((row, days[label]))
            if len(found) == PURGED_BLOCKS:
                break
        return found

    def _scrub(self, done: Purged) -> None:
        """Nothing that was deleted stays in the database's own files."""
        if done.blocks:
            self._node.store.scrub()

    # Telling partners

    def answer(self, tx: Transaction, page: PageHead, work: PageWork) -> None:
        """The mirror's part, in the transaction in which a page is taken in: what its labels ask us to say is said."""
        duties = work.duties
        kept: dict[int, int] = {}
        for one in work.kept:
            kept[one.block.header.label] = kept.get(one.block.header.label, 0) + one.rows.n
        to_acknowledge = [label.number for label in page.labels if _acknowledges(duties[label.number])]
        if to_acknowledge:
            count = sum(kept.get(number, 0) for number in to_acknowledge)
            body: dict[str, object] = {"set": page.set_name, "epoch": page.end.epoch, "until_seq": page.end.seq}
            self._mailbox.post(tx, page.hub, ACKNOWLEDGED, {**body, "entries": count})
        for label in page.labels:
            if label.number in kept and asks_for(duties[label.number], Duty.NOTIFY_ORIGINATOR):
                told = Told(page.set_name, label.digest, kept[label.number], TAKEN, self._node.agency)
                self.notify(tx, page.hub, told)

    def page_left(
        self, tx: Transaction, hash_set: HashSet, partner: str, page: PageHead, entries: Mapping[int, int]
    ) -> None:
        """The server's part, in the transaction in which a page leaves: what the partner has to acknowledge is
        outstanding, and the originators of what is sent on are told.

        Args:
            entries: in the page, by label.
        """
        now, end = self._node.clock(), page.end
        due = acknowledgement_due(page, now)
        if due is not None:
            row = Acknowledgement(
                set_id=_id(hash_set), partner=partner, epoch=end.epoch, until_seq=end.seq, due=due, sent=now
            )
            tx.duties.expect(row)
        if hash_set.relays:
            hub = tx.sets.by_id(hash_set.relays).hub
            for label in page.labels:
                if label.number in entries and asks_for(label.obligations, Duty.NOTIFY_ORIGINATOR):
                    told = Told(hash_set.name, label.digest, entries[label.number], FORWARDED, partner)
                    self.notify(tx, hub, told)

    def notify(self, tx: Transaction, hub: str, told: Told) -> None:
        """Tell the originator of entries who holds them now.

        It is told itself where it is a partner with whom this set may be spoken of, else the hub that they came from.
        """
        originator = told.set_name.split("/", maxsplit=1)[0]
        row = tx.people.find_partner(originator)
        known = row is not None and row.state == ACTIVE and may_exchange(self._node, tx, originator, told.set_name)
        self._mailbox.post(tx, originator if known else hub, NOTIFIED, told.body)

    def _hear_acknowledgement(self, tx: Transaction, partner: str, body: dict[str, object]) -> None:
        """A partner has taken in what it was sent."""
        try:
            name, epoch, until_seq = text_member(body, "set"), int_member(body, "epoch"), int_member(body, "until_seq")
        except MalformedError:
            return  # it stands in the mailbox for people to read, and acknowledges nothing
        tx.duties.acknowledged(partner, name, epoch, until_seq)

    # What is open

    def open(self) -> list[OpenDuty]:
        """Every duty that is to be kept some day, here or by a partner, what is due first first."""
        with self._node.store.reading() as tx:
            found = [*self._to_purge(tx), *self._to_acknowledge(tx), *self._partners(tx)]
        return sorted(found, key=lambda one: (one.due, one.side, one.set_name, one.partner, one.duty))

    def _to_purge(self, tx: Transaction) -> Iterator[OpenDuty]:
        """What we have to delete, by set and term."""
        for mirror in tx.sets.all():
            if not mirror.hub:
                continue
            labels = tx.sets.labels(_id(mirror))
            duties, arrivals = binding_duties(self._node, mirror, labels), tx.blocks.arrivals(_id(mirror), CHANGES)
            by_term: dict[tuple[int, bool], list[tuple[int, int]]] = {}
            for row in labels:
                days = days_of(duties[row.number], Duty.RETAIN_DAYS)
                if days is not None and row.number in arrivals:
                    by_term.setdefault((days, is_on_hold(row)), []).append(arrivals[row.number])
            for (days, held), some in by_term.items():
                due = min(first for first, _ in some) + days * DAY_SECONDS
                state = ON_HOLD if held else self._state(due)
                duty, rows = f"{Duty.RETAIN_DAYS}({days})", sum(count for _, count in some)
                yield OpenDuty(HERE, mirror.hub, mirror.name, duty, due, state, rows=rows)

    def _to_acknowledge(self, tx: Transaction) -> Iterator[OpenDuty]:
        """What we have to acknowledge: it is written already, and has not reached the partner."""
        for mirror in tx.sets.all():
            if not mirror.hub:
                continue
            bound = binding_duties(self._node, mirror, tx.sets.labels(_id(mirror))).values()
            days = days_of((text for texts in bound for text in texts), Duty.ACKNOWLEDGE_WITHIN_DAYS)
            if days is None:
                continue
            waiting = tx.mail.outgoing(mirror.hub, tx.mail.undelivered(mirror.hub), MAX_LISTED)
            for mail in waiting:
                body = self._mailbox.read(mail)
                if mail.kind == ACKNOWLEDGED and body["set"] == mirror.name:
                    due = mail.created + days * DAY_SECONDS
                    duty, seq = f"{Duty.ACKNOWLEDGE_WITHIN_DAYS}({days})", int_member(body, "until_seq")
                    yield OpenDuty(HERE, mirror.hub, mirror.name, duty, due, self._state(due), until_seq=seq)

    def _partners(self, tx: Transaction) -> Iterator[OpenDuty]:
        """What partners have to acknowledge."""
        for name, row in tx.duties.unacknowledged():
            duty = str(Duty.ACKNOWLEDGE_WITHIN_DAYS)
            yield OpenDuty(THERE, row.partner, name, duty, row.due, self._state(row.due), until_seq=row.until_seq)

    def _state(self, due: int) -> str:
        return OVERDUE if due <= self._node.clock() else OUTSTANDING


def _acknowledges(texts: Iterable[str]) -> bool:
    return asks_for(texts, Duty.ACKNOWLEDGE_WITHIN_DAYS)


def _id(hash_set: HashSet) -> int:
    assert hash_set.id is not None, "a stored set has an id"
    return hash_set.id
