"""Withdrawals and recalls: who holds what was taken back, who has answered, who is late.

A **withdrawal** is the owner's word that entries were wrong; a **recall** is a hub's, that a follower may not hold them
any more. Either way the feed takes them away. Beside it goes a notice, in the mailbox, and an answer comes back:

    1 the deed that takes entries back keeps a record, and posts a notice to each follower that may hold any (`begin`)
    2 the follower's mirror takes them away; then it answers, in the same transaction (`applied`), and names to whom it
       has passed them on: to each of these it posts a notice under the same id
    3 answers of those go up as they come, each named with the way it came (`hear_answer`)
    4 where a legal hold keeps sealed copies, the answer is a refusal that says so, until the hold has ended
    5 who has not answered is reminded at half time and at the deadline; past it an alarm stands until the last answer

What can be known: a direct holder's answer is in a message that it signed, and that is kept. Of those to whom a holder
has passed entries on, it is the only witness: we know whom it names, by its signed word, and their answers as it hands
them on. It cannot answer for somebody whom it never named, and what it keeps to itself nobody can tell from outside.

Contract: contracts/mailbox-1.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from gateway.audit import EventKind
from gateway.columns.rows import Ints, Rows, constant, integers, joined
from gateway.columns.sketch import among
from gateway.errors import ConflictError, DeniedError, GatewayError, MalformedError
from gateway.exchange.changes import Held
from gateway.exchange.forwarding import OnwardChanges
from gateway.exchange.sorting import PageWork
from gateway.interchange import EMPTY_VIEW, HEX_DIGEST, MAIL_TYPE, Cursor, FeedHead, View
from gateway.keylife import DAY_SECONDS
from gateway.mailbox import Mailbox
from gateway.model import (
    AGENCY,
    MAX_TEXT_CHARS,
    SET_NAME,
    ChangeKind,
    int_member,
    require,
    text_member,
    texts_member,
)
from gateway.node import Node
from gateway.partners import length_prefixed
from gateway.store import Transaction
from gateway.store.tables import HashSet, Withdrawal, WithdrawalHolder
from gateway.store.withdrawals import OUTSTANDING

NOTICE, ANSWER = "withdrawal_notice", "withdrawal_answer"  # kinds of mail
WITHDRAWAL, RECALL = "withdrawal", "recall"
APPLIED, REFUSED = "applied", "refused"
ID_BYTES = 16
MAX_HOLDERS = 1_024  # of one withdrawal, onward ones too: a partner that names holders without end fills no disk
MAX_HOPS = 16
HELD_BACK = "sealed copies are kept under a legal hold"
RECALLED = "policy no longer lets you hold them"


@dataclass(frozen=True, slots=True)
class Cause:
    """Why entries are taken back, in one line; the legal reference; how many days holders have (0: as settings say)."""

    reason: str
    reference: str = ""
    within_days: int = 0

    def __post_init__(self) -> None:
        _line(self.reason, "a reason is one line, and needed")
        require(self.reference == "" or _is_line(self.reference), "a legal reference is one line")
        require(0 <= self.within_days <= 3_650, "a deadline is at most ten years away")


@dataclass(frozen=True, slots=True)
class Span:
    """Which changes take something back, as the hub of a set counts them; of a recall the view that ends."""

    epoch: int
    from_seq: int
    until_seq: int
    view: str = ""


@dataclass(frozen=True, slots=True)
class HolderStatus:
    """One line of the status list. `via`: through whom we know of the holder, from us on."""

    withdrawal: str
    kind: str
    set_name: str
    holder: str
    via: tuple[str, ...]
    state: str
    overdue: bool
    due: int
    because: str
    entries: int
    answered: int


@dataclass(frozen=True, slots=True)
class Taken:
    """What is taken back: which changes do it, why, and how many entries it is."""

    span: Span
    cause: Cause
    count: int


def begin(node: Node, tx: Transaction, hash_set: HashSet, taken: Taken, holders: Mapping[str, int]) -> str:
    """What is taken back now is on record, and its holders are told; returns its id. Within the deed that does it.

    Args:
        hash_set: our own, or an onward copy.
        holders: partners that may hold some of it, each with how many entries.
    """
    now, span, cause, count = node.clock(), taken.span, taken.cause, taken.count
    days = cause.within_days or node.settings.withdrawal_days
    # The same deed done again has the same id; and under our key nobody can take an id before us.
    words = [hash_set.name, *map(str, (span.epoch, span.from_seq, span.until_seq, now)), span.view, *sorted(holders)]
    number = node.keystore.row_mac(length_prefixed("withdrawal", *words))[:ID_BYTES].hex()
    if tx.withdrawals.find(number) is not None:
        return number  # what was narrowed, widened and narrowed within one second is taken back once
    row = Withdrawal(
        id=number,
        kind=RECALL if span.view else WITHDRAWAL,
        set_name=hash_set.name,
        origin=node.agency,
        epoch=span.epoch,
        from_seq=span.from_seq,
        until_seq=span.until_seq,
        view=span.view,
        entries=count,
        reason=cause.reason,
        reference=cause.reference,
        created=now,
        due=now + days * DAY_SECONDS,
    )
    tx.withdrawals.add(row)
    details: dict[str, object] = {
        "withdrawal": row.id,
        "kind": row.kind,
        "set": row.set_name,
        "epoch": row.epoch,
        "until_seq": row.until_seq,
        "entries": count,
        "holders": len(holders),
        "due": row.due,
        "order_ref": cause.reference,
    }
    tx.log.append([node.event(EventKind.WITHDRAWAL_BEGUN, actor=node.agency, subject=hash_set.name, details=details)])
    for holder, held in sorted(holders.items()):
        _tell(node, tx, row, _outstanding(row, holder, held), span)
    return row.id


def holders_of(tx: Transaction, hash_set: HashSet, gone: Iterable[tuple[int, Ints]]) -> dict[str, int]:
    """Which followers of a set may hold entries that go, and how many of them.

    A follower may hold what a view that it was given shows, up to where it said that it stands, or to where its last
    head reaches: of a page on its way it may have everything.

    Args:
        gone: by label the seqs under which the entries stood.
    """
    went, set_id = list(gone), hash_set.id or 0
    found: dict[str, int] = {}
    for follower in tx.sets.followers(set_id):
        if follower.view == EMPTY_VIEW.digest:
            continue  # it has confirmed that it holds nothing
        issued = tx.sets.head_content(set_id, follower.partner)
        head = FeedHead.parse(issued.encode()).cursor if issued else Cursor(0, follower.view, 0)
        stored = [tx.sets.view(set_id, follower.partner, view) for view in {follower.view, head.view}]
        shown = {label for one in stored if one for label in View.parse(one.encode()).labels}
        reach = max(follower.seq, head.seq)
        count = sum(int((seqs <= constant(reach, len(seqs))).sum()) for label, seqs in went if label in shown)
        if count:
            found[follower.partner] = count
    return found


def _outstanding(row: Withdrawal, holder: str, held: int, via: str = "") -> WithdrawalHolder:
    """A holder that has not answered."""
    return WithdrawalHolder(withdrawal=row.id, holder=holder, via=via, entries=held, state=OUTSTANDING)


def _tell(node: Node, tx: Transaction, row: Withdrawal, holder: WithdrawalHolder, span: Span) -> None:
    """A notice for a direct holder, whose answer is awaited from now on."""
    tx.withdrawals.put_holder(holder)
    body: dict[str, object] = {
        "withdrawal": row.id,
        "kind": row.kind,
        "origin": row.origin,
        "set": row.set_name,
        "epoch": span.epoch,
        "from_seq": span.from_seq,
        "until_seq": span.until_seq,
        "view": span.view,
        "entries": holder.entries,
        "reason": row.reason,
        "reference": row.reference,
        "at": node.clock(),
        "due": row.due,
        "reminder": holder.reminded,
    }
    Mailbox(node).post(tx, holder.holder, NOTICE, body)


class Withdrawals:
    """Hears notices and answers, answers when a mirror has followed, and keeps the status list."""

    def __init__(self, node: Node, mailbox: Mailbox) -> None:
        self._node = node
        self._mailbox = mailbox
        mailbox.on(NOTICE, self._hear_notice)
        mailbox.on(ANSWER, self._hear_answer)

    # The holder

    def applied(  # noqa: PLR0917  all that a page did
        self,
        tx: Transaction,
        mirror: HashSet,
        work: PageWork,
        replaced: Sequence[Held],
        left: int,
        onward: OnwardChanges | None,
    ) -> None:
        """What a page took away is counted, and what it completes is answered. Within the deed that takes it in.

        Args:
            replaced: what was held of the page's entries before.
            left: how many entries were held under labels that it takes away.
            onward: what it changed in the onward copy.
        """
        waiting = tx.withdrawals.waiting(mirror.name)
        if not waiting:
            return
        now = tx.sets.by_id(mirror.id or 0)
        held = joined([one.rows.ints("entry_id") for one in replaced])
        for row in waiting:
            kind = ChangeKind.WITHDRAW if row.kind == WITHDRAWAL else ChangeKind.LEAVE
            ids = joined([_within(one.rows, row, kind) for one in work.removals])
            row.removed += int(among(ids, held).sum()) + (left if row.kind == RECALL else 0)
            copy = None
            if onward is not None:
                copy = onward.copy
                gone = [(label, _stood(rows, kind, ids)) for label, rows in onward.gone]
                for holder, count in holders_of(tx, copy, gone).items():
                    self._note_holder(tx, row, holder, count)
            row.because = row.because or _held_back(tx, mirror, ids if row.kind == WITHDRAWAL else None)
            tx.withdrawals.note(row.id, removed=row.removed, answered=0, because=row.because)
            if _is_reached(now, row):
                self._settle(tx, row, copy)

    def refuse(self, number: str, because: str) -> Withdrawal:
        """Tell whoever took entries back that we keep something of them, and why; returns the withdrawal.

        Raises:
            DeniedError: it is our own.
        """
        _line(because, "a refusal has a reason, on one line")
        with self._node.store.transaction() as tx:
            row = tx.withdrawals.beginning(number)
            if not row.hub:
                raise DeniedError("what we took back ourselves is not refused by us")
            if row.because == because:
                raise ConflictError("this is refused already, for this reason")
            row.because = because
            tx.withdrawals.note(row.id, removed=row.removed, answered=row.answered, because=because)
            if row.answered:
                self._answer(tx, row)
            return row

    def _hear_notice(self, tx: Transaction, sender: str, body: dict[str, object]) -> None:
        try:
            row, reminder = _noticed(self._node, sender, body)
            mirror, known = tx.sets.find(row.set_name), tx.withdrawals.find(row.id)
            if known is not None and known.hub != sender:
                raise DeniedError("a withdrawal that another agency told us of, or our own")
        except GatewayError as error:
            self._refused(tx, sender, error)
            return
        if mirror is None or mirror.hub != sender:
            self._answer(tx, row)  # nothing of it came from there, or the set's owner has taken its place
        elif known is None:
            tx.withdrawals.add(row)
            if _is_reached(mirror, row):
                row.removed = row.entries  # as the hub counted; nothing of it is in the mirror any more
                row.because = _held_back(tx, mirror, None)
                self._settle(tx, row, self._possible_holders(tx, row, mirror))
        elif known.answered and reminder:
            self._answer(tx, known)

    def _possible_holders(self, tx: Transaction, row: Withdrawal, mirror: HashSet) -> HashSet | None:
        """The page came before the notice: whoever follows the copy may have held some of it."""
        copy = tx.sets.onward_copy(mirror.id or 0)
        if copy is not None:
            for follower in tx.sets.followers(copy.id or 0):
                if follower.view != EMPTY_VIEW.digest:
                    self._note_holder(tx, row, follower.partner, 0)
        return copy

    def _note_holder(self, tx: Transaction, row: Withdrawal, holder: str, count: int) -> None:
        known = tx.withdrawals.holder(row.id, holder, "")
        held = count + (0 if known is None else known.entries)
        tx.withdrawals.put_holder(_outstanding(row, holder, held))

    def _settle(self, tx: Transaction, row: Withdrawal, copy: HashSet | None) -> None:
        """Our mirror has followed: the hub gets our answer, and those to whom we passed it on get a notice."""
        row.answered = self._node.clock()
        tx.withdrawals.note(row.id, removed=row.removed, answered=row.answered, because=row.because)
        self._answer(tx, row)
        if copy is None:
            return
        now = tx.sets.by_id(copy.id or 0)
        for one in tx.withdrawals.holders(row.id):
            if not one.via:
                _tell(self._node, tx, row, one, Span(now.epoch, 1, now.seq))

    def _answer(self, tx: Transaction, row: Withdrawal) -> None:
        direct = [one.holder for one in tx.withdrawals.holders(row.id) if not one.via]
        body: dict[str, object] = {
            "withdrawal": row.id,
            "holder": self._node.agency,
            "via": [],
            "outcome": REFUSED if row.because else APPLIED,
            "because": row.because,
            "entries": row.removed,
            "onward": direct,
        }
        self._mailbox.post(tx, row.hub, ANSWER, body)

    # Who took it back, or passed it on

    def _hear_answer(self, tx: Transaction, sender: str, body: dict[str, object]) -> None:
        try:
            answer = _answered(body)
            way = () if answer.holder == sender and not answer.via else (sender, *answer.via)
            known = tx.withdrawals.holder(answer.withdrawal, answer.holder, " ".join(way))
            if known is None:
                raise DeniedError("an answer of somebody who is not known to hold anything of this withdrawal")
            row = tx.withdrawals.find(answer.withdrawal)
            assert row is not None, "a holder is one of a withdrawal"
            beyond = (*way, answer.holder)
            if len(beyond) > MAX_HOPS or len(tx.withdrawals.holders(row.id)) + len(answer.onward) > MAX_HOLDERS:
                raise DeniedError("more holders than one withdrawal may have")
        except GatewayError as error:
            self._refused(tx, sender, error)
            return
        changed = (known.state, known.because) != (answer.outcome, answer.because)
        if changed:
            known.state, known.because, known.entries = answer.outcome, answer.because, answer.entries
            known.answered = self._node.clock()
            known.mail = 0 if way else tx.mail.last_in(sender)
            tx.withdrawals.put_holder(known)
            self._record(tx, row, known)
        new = [one for one in answer.onward if self._is_new(tx, row, one, beyond)]
        for one in new:
            tx.withdrawals.put_holder(_outstanding(row, one, 0, " ".join(beyond)))
        if row.hub and (changed or new):
            self._mailbox.post(tx, row.hub, ANSWER, {**answer.to_json(), "via": list(way)})

    def _is_new(self, tx: Transaction, row: Withdrawal, holder: str, way: Sequence[str]) -> bool:
        return tx.withdrawals.holder(row.id, holder, " ".join(way)) is None

    def _record(self, tx: Transaction, row: Withdrawal, one: WithdrawalHolder) -> None:
        details: dict[str, object] = {
            "withdrawal": row.id,
            "holder": one.holder,
            "via": one.via.split(),
            "outcome": one.state,
            "entries": one.entries,
        }
        event = self._node.event(EventKind.WITHDRAWAL_ANSWERED, actor=one.holder, subject=row.set_name, details=details)
        tx.log.append([event])

    def _refused(self, tx: Transaction, sender: str, error: GatewayError) -> None:
        """A message that changes nothing is on record. It stays in the mailbox: what comes behind it is not held up."""
        details: dict[str, object] = {
            "sender": sender,
            "error": type(error).__name__,
            "reason": error.message,
            "payload_type": MAIL_TYPE,
        }
        event = self._node.event(EventKind.MESSAGE_REFUSED, actor=self._node.agency, subject=sender, details=details)
        tx.log.append([event])

    # What is open

    def status(self, number: str = "") -> list[HolderStatus]:
        """Everybody who may hold what was taken back (of one withdrawal, or of all), what is due first first."""
        with self._node.store.reading() as tx:
            rows = [tx.withdrawals.beginning(number)] if number else tx.withdrawals.all()
            listed = [(row, one) for row in rows for one in tx.withdrawals.holders(row.id)]
        found = [self._status(row, one) for row, one in listed]
        return sorted(found, key=lambda one: (one.due, one.withdrawal, one.via, one.holder))

    def _status(self, row: Withdrawal, one: WithdrawalHolder) -> HolderStatus:
        overdue = one.state == OUTSTANDING and row.due < self._node.clock()
        return HolderStatus(
            row.id,
            row.kind,
            row.set_name,
            one.holder,
            tuple(one.via.split()),
            one.state,
            overdue,
            row.due,
            one.because,
            one.entries,
            one.answered,
        )

    def keep_house(self) -> int:
        """Remind direct holders that have not answered at half time and at the deadline; returns how many."""
        now = self._node.clock()
        with self._node.store.reading() as tx:
            late = [(row, one) for row, one in tx.withdrawals.outstanding() if _level(row, now) > one.reminded]
            kept = tx.withdrawals.refused_because(HELD_BACK)
        direct = [(row, one.holder) for row, one in late if not one.via and (row.answered or not row.hub)]
        if direct or kept:
            with self._node.store.transaction() as tx:
                for row, holder in direct:
                    self._remind(tx, row, holder)
                self._correct(tx)
        return len(direct)

    def _correct(self, tx: Transaction) -> None:
        """Where the last legal hold on a set has ended, nothing is kept of what was taken back: that is said now."""
        for row in tx.withdrawals.refused_because(HELD_BACK):
            mirror = tx.sets.find(row.set_name)
            if row.answered and (mirror is None or not _held_back(tx, mirror, None)):
                row.because = ""
                tx.withdrawals.note(row.id, removed=row.removed, answered=row.answered, because="")
                self._answer(tx, row)

    def _remind(self, tx: Transaction, row: Withdrawal, holder: str) -> None:
        hash_set, known = tx.sets.find_served(row.set_name), tx.withdrawals.holder(row.id, holder, "")
        if hash_set is None or known is None or known.state != OUTSTANDING:
            return
        known.reminded = _level(row, self._node.clock())
        own = not row.hub
        until, view = (row.until_seq, row.view) if own else (hash_set.seq, "")
        _tell(self._node, tx, row, known, Span(hash_set.epoch, row.from_seq if own else 1, until, view))


@dataclass(frozen=True, slots=True)
class _Answer:
    """An answer as it stands in the mailbox."""

    withdrawal: str
    holder: str
    via: tuple[str, ...]
    outcome: str
    because: str
    entries: int
    onward: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """As the body of a message."""
        return {
            "withdrawal": self.withdrawal,
            "holder": self.holder,
            "via": list(self.via),
            "outcome": self.outcome,
            "because": self.because,
            "entries": self.entries,
            "onward": list(self.onward),
        }


def _answered(body: dict[str, object]) -> _Answer:
    """The body of an answer; MalformedError for any other."""
    texts = ("withdrawal", "holder", "outcome", "because")
    number, holder, outcome, because = (text_member(body, name) for name in texts)
    via, onward = texts_member(body, "via"), texts_member(body, "onward")
    require(all(AGENCY.fullmatch(one) for one in (holder, *via, *onward)), "an answer names no agency")
    require(outcome in (APPLIED, REFUSED), "an answer is neither applied nor refused")
    require(bool(because) == (outcome == REFUSED), "a refusal has a reason, and nothing else has")
    require(because == "" or _is_line(because), "a reason is one line")
    return _Answer(number, holder, via, outcome, because, int_member(body, "entries"), tuple(sorted(set(onward))))


def _noticed(node: Node, sender: str, body: dict[str, object]) -> tuple[Withdrawal, int]:
    """The body of a notice, and which reminder it is."""
    texts = ("withdrawal", "kind", "set", "origin", "view", "reason", "reference")
    number, kind, name, origin, view, reason, reference = (text_member(body, one) for one in texts)
    require(len(number) == 2 * ID_BYTES and number.isalnum(), "a withdrawal's id is 32 hex digits")
    require(kind in (WITHDRAWAL, RECALL), "neither a withdrawal nor a recall")
    require(SET_NAME.fullmatch(name) and AGENCY.fullmatch(origin), "a notice names no set or no agency")
    require(view == "" or HEX_DIGEST.fullmatch(view), "a notice's view is not a digest")
    _line(reason, "a reason is one line, and needed")
    require(reference == "" or _is_line(reference), "a legal reference is one line")
    numbers = ("epoch", "from_seq", "until_seq", "entries", "at", "due", "reminder")
    epoch, from_seq, until_seq, entries, at, due, reminder = (int_member(body, one) for one in numbers)
    row = Withdrawal(
        id=number,
        kind=kind,
        set_name=name,
        origin=origin,
        hub=sender,
        epoch=epoch,
        from_seq=from_seq,
        until_seq=until_seq,
        view=view,
        entries=entries,
        reason=reason,
        reference=reference,
        created=min(at, node.clock()),
        due=due,
    )
    return row, reminder


def _is_reached(mirror: HashSet, row: Withdrawal) -> bool:
    """Whether a mirror has followed its hub to where something was taken back."""
    if mirror.hub != row.hub:
        return True  # what came from there has been fetched anew from the owner
    if (mirror.epoch, mirror.seq) < (row.epoch, row.until_seq):
        return False
    if not row.view or not mirror.head:
        return not row.view
    head = FeedHead.parse(mirror.head.encode())
    complete = head.cursor == Cursor(mirror.epoch, mirror.view, mirror.seq)
    newer = head.issued > row.created or (head.issued == row.created and head.cursor.view != row.view)
    return complete and newer


def _held_back(tx: Transaction, mirror: HashSet, ids: Ints | None) -> str:
    """Why we keep copies of entries that go: a legal hold on them (None: on any of the set, where we cannot tell)."""
    for hold in tx.holds.all():
        if hold.set_id == mirror.id and (ids is None or among(ids, integers(tx.holds.entry_ids(hold.id))).any()):
            return HELD_BACK
    return ""


def _within(rows: Rows, row: Withdrawal, kind: ChangeKind) -> Ints:
    """The entries that changes of a kind take away, within the span of a withdrawal; of a recall all that leave."""
    chosen = rows.take(rows.ints("kind") == constant(kind, rows.n))
    seqs = chosen.ints("seq")
    if kind is ChangeKind.LEAVE:
        return chosen.ints("entry_id")
    return chosen.ints("entry_id")[(seqs >= row.from_seq) & (seqs <= row.until_seq)]


def _stood(rows: Rows, kind: ChangeKind, ids: Ints) -> Ints:
    """Where entries stood in an onward copy that it takes away in the same way; of withdrawn ones, those of `ids`."""
    chosen = rows.take(rows.ints("kind") == constant(kind, rows.n))
    if kind is ChangeKind.WITHDRAW:
        chosen = chosen.take(among(chosen.ints("entry_id"), ids))
    return chosen.ints("prev_seq")


def _level(row: Withdrawal, now: int) -> int:
    """0 before half of the time is over, 1 before the deadline, 2 after it."""
    half = row.created + (row.due - row.created) // 2
    return int(now >= half) + int(now >= row.due)


def _is_line(text: str) -> bool:
    return 0 < len(text) <= MAX_TEXT_CHARS and text.isprintable()


def _line(text: str, message: str) -> None:
    if not _is_line(text):
        raise MalformedError(message)
