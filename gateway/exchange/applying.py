"""Taking a hub's page into the mirror of its set: one `apply` for pull, push, forward, repair and restore.

    1 the head is the hub's, for us, for this set, in time, and never lower than one seen before
    2 the page fits the head (set, epoch, target view) and starts at our cursor
    3 every block is what its header and the page's labels say
    4 policy decides label by label what we take
    5 one transaction: labels left, removals, new blocks, sums, cursor (compare-and-swap), leaves, receipt

What policy refuses is remembered by entry, version and digest items, never by value: the state digest still covers all
that was delivered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO

from gateway.audit import EventKind
from gateway.columns.block import NO_LABEL, cut, decode, encode_block
from gateway.columns.block import REMOVALS as REMOVALS_LABEL
from gateway.columns.rows import EXISTENCE, Ints, Rows, constant, counting, joined, repeats
from gateway.crypto import canonical
from gateway.errors import ConflictError, DeniedError, MalformedError, StaleCursorError, VerificationError
from gateway.exchange.changes import Sums, supersede
from gateway.exchange.decisions import RECEIVE, Decisions, Site, keepable
from gateway.exchange.duties import Duties
from gateway.exchange.forwarding import Forwarding
from gateway.exchange.knowngood import KnownGood
from gateway.exchange.labels import digest_key, parsed_label, seal_digest_key, stored_label
from gateway.exchange.neveragain import NeverAgain
from gateway.exchange.recovering import Recovering, sources_of
from gateway.exchange.shelf import BARE, BARRED, CHANGES, EXPIRED, REFUSED, REMOVALS, Shelf, block_id
from gateway.exchange.sorting import PageSorter, PageWork
from gateway.exchange.withdrawals import Withdrawals
from gateway.interchange import EMPTY_VIEW, START, Cursor, FeedHead, PageHead, PageLabel, page_front, parse_page
from gateway.model import ChangeKind, Label, Surface, require
from gateway.node import Node
from gateway.partners import ACTIVE, active_card, may_exchange
from gateway.policy import Decision, LabelInSet, PartnerRef, PolicySet
from gateway.receipts import Message, repeated, settle
from gateway.restoring import accepted_epoch
from gateway.store import Transaction
from gateway.store.tables import BlockRow, HashSet, LabelRow

MAX_SETS_OF_A_HUB = 256  # a partner that invents sets without end fills no disk
FORGOTTEN_VIEW = "00" * 32  # no table has this digest: its hub answers a cursor that names it with a reset
CLOCK_SKEW_SECONDS = 300  # how far two agencies' clocks may stand apart


@dataclass(frozen=True, slots=True)
class Applied:
    """What a page did here."""

    cursor: Cursor
    changes: int
    refused: int
    equality: str
    receipt: bytes


class Mirrors:
    """The mirrors of partners' sets."""

    def __init__(  # noqa: PLR0917  collaborators
        self,
        node: Node,
        shelf: Shelf,
        recovering: Recovering,
        never_again: NeverAgain,
        forwarding: Forwarding,
        duties: Duties,
        withdrawals: Withdrawals,
        known_good: KnownGood,
    ) -> None:
        self._node = node
        self._forwarding = forwarding
        self._withdrawals = withdrawals
        self._never_again = never_again
        self._known_good = known_good
        self._shelf = shelf
        self._recovering = recovering
        self._duties = duties
        self._decisions = Decisions(node)
        self._reviewed: dict[str, str] = {}  # set -> policy under which its rows were last judged

    def cursor_for(self, head: FeedHead) -> Cursor:
        """Where our mirror stands, for the hub of a head: nowhere, and with nothing, if it comes from elsewhere now."""
        with self._node.store.reading() as tx:
            elsewhere = _comes_from_elsewhere(tx.sets.find(head.set_name), head)
        return head.cursor if elsewhere else self.cursor(head.set_name)

    def cursor(self, name: str) -> Cursor:
        """Where our mirror of a set stands; the start, when there is none."""
        with self._node.store.reading() as tx:
            found = tx.sets.find(name)
        return START if found is None else Cursor(found.epoch, found.view, found.seq)

    def equality(self, name: str) -> str:
        """equal, different or unknown, as the last comparison with the hub said."""
        with self._node.store.reading() as tx:
            return tx.sets.get(name).equality

    def followed(self, hub: str) -> list[str]:
        """The sets of a hub that have a mirror here."""
        with self._node.store.reading() as tx:
            return [row.name for row in tx.sets.all() if row.hub == hub]

    def begin_anew(self, hub: str, name: str) -> None:
        """Have a mirror fetch everything again: the hub answers its next question with a reset."""
        with self._node.store.transaction() as tx:
            mirror = tx.sets.get(name)
            if mirror.hub != hub:
                raise DeniedError("this set does not come from that partner")
            self._forget_view(tx, mirror)

    def _forget_view(self, tx: Transaction, mirror: HashSet) -> None:
        assert mirror.id is not None
        at = (mirror.epoch, mirror.view, mirror.seq)
        tx.sets.advance_mirror(mirror.id, expected=at, to=(mirror.epoch, FORGOTTEN_VIEW, mirror.seq))

    def review(self, name: str) -> None:
        """Have a mirror begin anew where our own policy no longer takes what it took, or now takes what it refused.

        Of what was refused no value is here that could be taken up, so the hub is asked for everything again.
        """
        policies = self._node.policy
        if self._reviewed.get(name) == policies.digest:
            return
        with self._node.store.reading() as tx:
            mirror = tx.sets.find(name)
            if mirror is None or not mirror.hub:
                return
            assert mirror.id is not None
            labels = tx.sets.labels(mirror.id)
            shown = {row.number: row.obligations.split() for row in labels}
            taken = _decide(policies, mirror.hub, name, {row.number: stored_label(row) for row in labels})
            taken = keepable(taken, shown)
            outdated = self._outdated(tx, mirror.id, taken)
            site = Site(mirror.id, name, mirror.hub, RECEIVE, policies.digest)
            answers = {row.number: (row.digest, taken[row.number]) for row in labels}
            due = not self._decisions.are_on_record(tx, site, lambda: answers, taken)
        if outdated or due:
            with self._node.store.transaction() as tx:
                self._decisions.record(tx, site, answers)
                if outdated:
                    self._forget_view(tx, mirror)
        self._reviewed[name] = policies.digest

    def _outdated(self, tx: Transaction, set_id: int, taken: Mapping[int, Decision]) -> bool:
        kinds = tx.blocks.kinds(set_id)
        # What the never-again list keeps away was judged by nobody; what a duty has deleted was taken.
        judged = [(label, kind) for label, kind in kinds if label in taken and kind != BARRED]
        return any(taken[label].allowed != (kind in (CHANGES, EXPIRED)) for label, kind in judged)

    def note_head(self, sender: str, raw: bytes) -> FeedHead:
        """Verify a hub's feed head and keep it; returns it. It came in an envelope signed by `sender`."""
        head = FeedHead.parse(raw)
        now = self._node.clock()
        if head.hub != sender or _owner(head.set_name) == self._node.agency:
            raise DeniedError("only its owner, or who passes it on, speaks for a set")
        if head.partner != self._node.agency:
            raise VerificationError("the feed head is for another partner")
        if head.expires + CLOCK_SKEW_SECONDS < now:
            raise VerificationError("the feed head has expired: the hub is frozen or its clock is behind")
        if head.issued - CLOCK_SKEW_SECONDS > now:
            raise VerificationError("the feed head is from the future: compare the clocks of both sides")
        with self._node.store.transaction() as tx:
            self._check_tested(tx, sender, head.set_name)
            if head.cursor.epoch > accepted_epoch(tx, sender):
                raise VerificationError("the hub begins a new epoch, and has not said that it was restored")
            if _comes_from_elsewhere(tx.sets.find(head.set_name), head):
                return head
            mirror = self._mirror(tx, head)
            assert mirror.id is not None
            if mirror.head:
                held = FeedHead.parse(mirror.head.encode())
                self._check_not_older(replace(held, key=digest_key(self._node, mirror).hex()), head)
            key = seal_digest_key(self._node, head.set_name, bytes.fromhex(head.key))
            tx.sets.set_head(mirror.id, head.without_key().dump().decode(), key)
        return head

    def apply(self, message: Message, raw: bytes, *, pushed: bool) -> Applied:
        """Take a page in, whole or not at all; returns what it did, with the receipt.

        Args:
            raw: the page, out of an envelope that was verified.
        """
        head, blocks = parse_page(BytesIO(raw))
        if head.hub != message.sender:
            raise DeniedError("only the hub that it is followed from changes a mirror")
        with self._node.store.transaction() as tx:
            active_card(self._node, tx, message.sender)
            self._check_tested(tx, message.sender, head.set_name)
            mirror = tx.sets.get(head.set_name)
            before = repeated(tx, message)
            if before is not None:
                return Applied(_stands(mirror), 0, 0, mirror.equality, before)
            if mirror.hub != message.sender:
                raise DeniedError("only the hub that it is followed from changes a mirror")
            self._check_fit(mirror, head)
            labels = {label.number: label for label in head.labels}
            parsed = {number: _parsed(head.set_name, label) for number, label in labels.items()}
            came = {number: label.obligations for number, label in labels.items()}
            policies = self._node.policy
            decisions = keepable(_decide(policies, message.sender, head.set_name, parsed), came)
            if self._reviewed.get(head.set_name) != policies.digest:
                self._reviewed.pop(head.set_name, None)  # judged under another policy than the rows before
            assert mirror.id is not None
            answers = {number: (bytes.fromhex(labels[number].digest), one) for number, one in decisions.items()}
            self._decisions.record(tx, Site(mirror.id, head.set_name, head.hub, RECEIVE, policies.digest), answers)
            bars = self._never_again.bars(tx, _owner(head.set_name))
            key = digest_key(self._node, mirror)
            known = self._known_good.counter(tx)
            sorter = PageSorter(head, labels, decisions, key=key, bars=bars, known=known, salt=self._shelf.salt)
            work = sorter.sort(blocks)
            work.labels, work.front = self._new_labels(tx, mirror, head, parsed), page_front(raw)
            work.duties = {n: (*texts, *map(str, decisions[n].obligations)) for n, texts in came.items()}
            return self._commit(tx, mirror, head, work, message, pushed=pushed)

    def may_follow(self, hub: str, name: str) -> bool:
        """Whether a set may come here from a hub, as far as its test goes, and where its mirror comes from."""
        with self._node.store.reading() as tx:
            mirror, is_owner = tx.sets.find(name), _owner(name) == hub
            comes = self._may_begin(tx, hub, name) if mirror is None else mirror.hub == hub or (mirror.hub and is_owner)
            return bool(comes) and may_exchange(self._node, tx, hub, name)

    def _may_begin(self, tx: Transaction, hub: str, name: str) -> bool:
        """Whether a set that is not followed yet may come from a hub: what a partner owns comes from that partner.

        What it shows us and what not is its own to say; nobody else's feed goes round that.
        """
        owner = _owner(name)
        row = None if owner == hub else tx.people.find_partner(owner)
        return owner != self._node.agency and (row is None or row.state != ACTIVE)

    # Checks

    def _check_tested(self, tx: Transaction, sender: str, name: str) -> None:
        if not may_exchange(self._node, tx, sender, name):
            raise DeniedError(
                "this partner is under test here: only sets of invented data move, whose names begin with test-",
                remedy="two administrators lift the test: `gateway partner lift-test`",
            )

    def _mirror(self, tx: Transaction, head: FeedHead) -> HashSet:
        found = tx.sets.find(head.set_name)
        if found is None:
            if not self._may_begin(tx, head.hub, head.set_name):
                raise DeniedError("this set comes from its owner alone, who is a partner")
            if sum(row.hub == head.hub for row in tx.sets.all()) >= MAX_SETS_OF_A_HUB:
                raise DeniedError("this hub has as many sets here as one hub may have")
            row = HashSet(
                name=head.set_name, hub=head.hub, purpose=head.purpose, epoch=0, seq=0, created=self._node.clock()
            )
            row.id = tx.sets.create(row)
            return row
        if found.hub != head.hub:
            # The owner's own word comes before that of anybody who passes its set on, and never gives way to it.
            if not found.hub or head.hub != _owner(head.set_name):
                raise DeniedError("this set does not come from that hub")
            assert found.id is not None
            tx.sets.change_hub(found.id, head.hub, FORGOTTEN_VIEW)
            tx.evidence.forget_set(found.id)
            return tx.sets.by_id(found.id)
        return found

    def _check_not_older(self, held: FeedHead, new: FeedHead) -> None:
        """A hub never goes back: not in epoch, not in seq, not in time (TUF 5.3: rollback)."""
        before, after = held.cursor, new.cursor
        if (after.epoch, after.seq) < (before.epoch, before.seq) or (
            (after.epoch, after.seq) == (before.epoch, before.seq) and new.issued < held.issued
        ):
            raise VerificationError("the feed head is older than one seen before: the hub has gone back")
        if after.epoch == before.epoch and new.key != held.key:
            raise VerificationError("the feed head changes the digest key within an epoch")

    def _check_fit(self, mirror: HashSet, page: PageHead) -> None:
        if not mirror.head or not mirror.hub:
            raise StaleCursorError("announce the feed head first", cursor=START.to_json())
        head = FeedHead.parse(mirror.head.encode())
        cursor = _stands(mirror)
        if page.start != cursor:
            raise StaleCursorError("the page does not start where the mirror stands", cursor=cursor.to_json())
        if page.target != head.cursor.view or page.end.epoch != head.cursor.epoch:
            raise ConflictError("the page and the feed head speak of different views", remedy="ask for the head again")
        # A new epoch, which `note_head` has taken, may begin further back: the hub has lost what came after its backup.
        goes_on = page.reset or page.end.epoch != cursor.epoch or page.end.seq >= cursor.seq
        if page.end.seq > head.cursor.seq or not goes_on:
            raise MalformedError("the page ends outside its feed head")

    def _new_labels(
        self, tx: Transaction, mirror: HashSet, page: PageHead, labels: Mapping[int, Label]
    ) -> list[LabelRow]:
        """Those of the page's labels that are not known here once what left has gone."""
        assert mirror.id is not None
        left = set(page.left)
        stored = [] if page.reset else tx.sets.labels(mirror.id)
        known = {row.number: row for row in stored if row.number not in left}
        for label in page.labels:
            # What was judged once stays as it was judged; a label that changes leaves first, and comes again.
            held = known.get(label.number)
            same = held is None or _says_the_same(held, label, labels[label.number])
            require(same, "page: a label changes without leaving")
        return [_label_row(mirror.id, label) for label in page.labels if label.number not in known]

    # The one transaction

    def _commit(
        self, tx: Transaction, mirror: HashSet, page: PageHead, work: PageWork, message: Message, *, pushed: bool
    ) -> Applied:
        assert mirror.id is not None
        set_id = mirror.id
        sums = Sums(tx, set_id, digest_key(self._node, mirror))
        # 1. What arrives replaces what is held; removals take it away. (The index is asked before a block is put.)
        arriving = joined(work.arriving)
        require(not repeats(arriving), "page: an entry stands twice")
        stored = tx.blocks.of_set(set_id) if page.reset or page.left else []
        leaving = [row for row in stored if page.reset or row.label in page.left]
        replaced = supersede(tx, self._shelf, set_id, arriving, sums, leaving={block_id(row) for row in leaving})
        left = sums.entries(page.left) if page.left else 0
        onward = self._forwarding.follow(tx, mirror, page, work)
        # 2. Labels that left go whole; so does everything on a reset.
        self._leave(tx, mirror, page, leaving, sums)
        # 3. Leaves, blocks and sums.
        kept = [one.block for one in (*work.removals, *work.kept)]
        away = [one.block for one in (*work.refused, *work.barred)]
        details = self._details(page, work, message, len(kept) + len(away))
        kind = EventKind.PUSH_RECEIVED if pushed else EventKind.PAGE_APPLIED
        event = self._node.event(kind, actor=message.sender, subject=page.set_name, details=details)
        events = [event]
        if work.refused_rows:
            refusal: dict[str, object] = {
                "set": page.set_name,
                "partner": message.sender,
                "message_id": message.message_id,
                "refused": work.refused_rows,
                "reasons": dict(work.reasons),
                "policy": self._node.policy.digest,
            }
            events.append(
                self._node.event(
                    EventKind.ROWS_REFUSED, actor=self._node.agency, subject=message.sender, details=refusal
                )
            )
        digests = [block.digest for block in (*kept, *away)]
        leaf = tx.log.append(events, blocks=digests)
        if page.reset:
            tx.evidence.forget_set(set_id)
        if not away:  # of what was refused no value is kept, so such a page cannot be put together again
            self._recovering.keep(tx, set_id, message, page, kept, front=work.front)
        self._put(tx, set_id, work, leaf)
        sums.count(work.counted)
        sums.write()
        tx.sets.put_labels(work.labels)
        if onward is not None:
            onward.write(sources_of(message, page))
        self._duties.answer(tx, page, work)
        self._known_good.tell(tx, page.set_name, work.known_good)
        # 4. The cursor, and whether both sides hold the same.
        tx.sets.advance_mirror(
            set_id, expected=(mirror.epoch, mirror.view, mirror.seq), to=(page.end.epoch, page.end.view, page.end.seq)
        )
        self._withdrawals.applied(tx, mirror, work, replaced, left, onward)
        _forget_opinions(tx, set_id, work)
        equality = self._compare(tx, set_id, FeedHead.parse(mirror.head.encode()), page, sums)
        # 5. The receipt, part of the same commit: a crash before it leaves nothing, after it the sender gets it again.
        receipt = settle(self._node, tx, message, event, leaf + len(digests))
        return Applied(page.end, work.changes, work.refused_rows, equality, receipt)

    def _put(self, tx: Transaction, set_id: int, work: PageWork, leaf: int) -> None:
        """Put the page's blocks away, in the order of their leaves."""
        kinds = ((REMOVALS, work.removals), (CHANGES, work.kept), (REFUSED, work.refused), (BARRED, work.barred))
        for kind, arrived in kinds:
            if arrived:
                blocks, rows = [one.block for one in arrived], [one.rows for one in arrived]
                items = [one.items for one in arrived] if kind in BARE else ()
                now = self._node.clock()
                self._shelf.put(tx, set_id, kind, blocks, first_leaf=leaf, items=items, rows=rows, arrived=now)
                leaf += len(arrived)

    def _leave(self, tx: Transaction, mirror: HashSet, page: PageHead, gone: Sequence[BlockRow], sums: Sums) -> None:
        """Drop blocks of labels that left. Their entries are marked gone, so that no older row of theirs comes back."""
        assert mirror.id is not None
        set_id, left = mirror.id, set(page.left)
        if not gone:
            return
        if not page.reset:
            live = [self._live_ids(tx, set_id, row.id or 0) for row in gone if row.label != REMOVALS_LABEL]
            self._mark_gone(tx, set_id, mirror, joined(live))
        tx.blocks.drop(set_id, [block_id(row) for row in gone])
        sums.drop(None if page.reset else left)
        labels = [row.number for row in tx.sets.labels(set_id)] if page.reset else sorted(left)
        for number in labels:
            tx.sets.drop_label(set_id, number)

    def _live_ids(self, tx: Transaction, set_id: int, number: int) -> Ints:
        row = tx.blocks.get(number)
        assert row is not None
        with self._shelf.index(tx, set_id) as index:
            live = index.live_rows(number)
        return decode(self._shelf.get(tx, row, [EXISTENCE]), ["entry_id"]).ints("entry_id")[live]

    def _mark_gone(self, tx: Transaction, set_id: int, mirror: HashSet, ids: Ints) -> None:
        n = len(ids)
        if not n:
            return
        # These seqs only order the block: the hub never sees it.
        rows = Rows.of(n, {"kind": constant(ChangeKind.LEAVE, n), "seq": counting(1, n), "entry_id": ids})
        blocks = [
            encode_block(
                set_name=mirror.name,
                epoch=mirror.epoch,
                label=REMOVALS_LABEL,
                label_digest=NO_LABEL,
                rows=piece,
                salt=self._shelf.salt,
            )
            for piece in cut(rows)
        ]
        leaf = tx.log.append([], blocks=[block.digest for block in blocks])
        self._shelf.put(tx, set_id, REMOVALS, blocks, first_leaf=leaf, arrived=self._node.clock())

    def _compare(self, tx: Transaction, set_id: int, head: FeedHead, page: PageHead, sums: Sums) -> str:
        """equal or different once the mirror stands where the head does; unknown on the way there."""
        word = "unknown"
        if page.end == head.cursor:
            word = "equal" if sums.state() == head.state and sums.entries() == head.count else "different"
        tx.sets.set_equality(set_id, word)
        return word

    def _details(self, page: PageHead, work: PageWork, message: Message, blocks: int) -> dict[str, object]:
        return {
            **message.details(),
            "refused": work.refused_rows,
            "blocks": blocks,
            "set": page.set_name,
            "epoch": page.end.epoch,
            "from_seq": page.start.seq,
            "until_seq": page.end.seq,
            "view": page.end.view,
            "changes": work.changes,
        }


def _comes_from_elsewhere(mirror: HashSet | None, head: FeedHead) -> bool:
    """Whether a hub takes back all that it gave, which has been replaced meanwhile by what the set's owner gives."""
    return mirror is not None and mirror.hub not in ("", head.hub) and head.cursor.view == EMPTY_VIEW.digest


def _decide(policies: PolicySet, sender: str, set_name: str, labels: Mapping[int, Label]) -> dict[int, Decision]:
    held = {number: LabelInSet(set_name, label) for number, label in labels.items()}
    return policies.receivable(PartnerRef(sender, sender[:2]), Surface.SEALED, held)


def _forget_opinions(tx: Transaction, set_id: int, work: PageWork) -> None:
    """What was thought of entries that their owner withdraws goes with them; of one that leaves it stays."""
    if work.removals and tx.opinions.any_on(set_id):
        gone = [one.rows.take(one.rows.ints("kind") == ChangeKind.WITHDRAW) for one in work.removals]
        tx.opinions.forget(set_id, joined([rows.ints("entry_id") for rows in gone]).tolist())


def _owner(set_name: str) -> str:
    """The agency whose set it is."""
    return set_name.split("/", maxsplit=1)[0]


def _stands(mirror: HashSet) -> Cursor:
    """Where a mirror stands."""
    return Cursor(mirror.epoch, mirror.view, mirror.seq)


def _parsed(set_name: str, label: PageLabel) -> Label:
    """What a page says of a label, if it is the set's to say."""
    parsed = Label.from_json(label.attributes)
    owner = set_name.split("/", maxsplit=1)[0]
    require(parsed.originator == owner, "page label: a set speaks of its owner's entries only")
    require(owner.split("-", maxsplit=1)[0] == parsed.jurisdiction, "page label: agency and jurisdiction differ")
    return parsed


def _says_the_same(held: LabelRow, label: PageLabel, parsed: Label) -> bool:
    """Whether a label is described as it was before. (Labels are equal where their canonical attributes are.)"""
    before = (held.digest.hex(), held.groups, held.obligations)
    now = (label.digest, " ".join(sorted(label.groups)), " ".join(label.obligations))
    return before == now and parsed_label(held.attributes) == parsed


def _label_row(set_id: int, label: PageLabel) -> LabelRow:
    return LabelRow(
        set_id=set_id,
        number=label.number,
        digest=bytes.fromhex(label.digest),
        attributes=canonical.encode(label.attributes).decode(),
        groups=" ".join(sorted(label.groups)),
        obligations=" ".join(label.obligations),
    )
