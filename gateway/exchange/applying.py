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

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO

from gateway.audit import EventKind
from gateway.columns import digest
from gateway.columns.block import NO_LABEL, Block, cut, decode, encode_block
from gateway.columns.block import REMOVALS as REMOVALS_LABEL
from gateway.columns.rows import EXISTENCE, Ints, Rows, constant, counting, joined, repeats
from gateway.crypto import canonical
from gateway.errors import ConflictError, DeniedError, MalformedError, StaleCursorError, VerificationError
from gateway.exchange.changes import CONTENT_PARTS, Held, Sums, pack_items, supersede
from gateway.exchange.labels import digest_key, seal_digest_key, stored_label
from gateway.exchange.shelf import CHANGES, REFUSED, REMOVALS, Shelf, block_id
from gateway.interchange import START, Cursor, FeedHead, PageHead, PageLabel, parse_page
from gateway.mailbox import Mailbox
from gateway.model import ChangeKind, Label, Surface, require
from gateway.node import Node
from gateway.partners import active_card, may_exchange
from gateway.policy import Decision, LabelInSet, PartnerRef
from gateway.receipts import Message, repeated, settle
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


@dataclass(slots=True)
class _Work:
    """What one page brings, sorted: blocks to keep (with their rows), blocks of rows refused (with their items),
    entries that go."""

    kept: list[Block] = field(default_factory=list)
    rows: list[Rows] = field(default_factory=list)
    refused: list[Block] = field(default_factory=list)
    items: list[bytes] = field(default_factory=list)
    removals: list[Block] = field(default_factory=list)
    arriving: list[Ints] = field(default_factory=list)
    changes: int = 0
    refused_rows: int = 0
    reasons: dict[str, int] = field(default_factory=dict)


class Mirrors:
    """The mirrors of partners' sets."""

    def __init__(self, node: Node, shelf: Shelf, mailbox: Mailbox) -> None:
        self._node = node
        self._shelf = shelf
        self._mailbox = mailbox
        self._reviewed: dict[str, str] = {}  # set -> policy under which its rows were last judged

    def cursor(self, name: str) -> Cursor:
        """Where our mirror of a set stands; the start, when there is none."""
        with self._node.store.reading() as tx:
            found = tx.sets.find(name)
        return START if found is None else Cursor(found.epoch, found.view, found.seq)

    def equality(self, name: str) -> str:
        """equal, different or unknown, as the last comparison with the hub said."""
        with self._node.store.reading() as tx:
            return tx.sets.get(name).equality

    def review(self, name: str) -> None:
        """Have a mirror begin anew where our own policy no longer takes what it took, or now takes what it refused.

        Of what was refused no value is here that could be taken up, so the hub is asked for everything again.
        """
        policy = self._node.policy.digest
        if self._reviewed.get(name) == policy:
            return
        with self._node.store.reading() as tx:
            mirror = tx.sets.find(name)
            if mirror is None or not mirror.hub:
                return
            assert mirror.id is not None
            outdated = self._outdated(tx, mirror, mirror.id)
        if outdated:
            with self._node.store.transaction() as tx:
                at = (mirror.epoch, mirror.view, mirror.seq)
                tx.sets.advance_mirror(mirror.id, expected=at, to=(mirror.epoch, FORGOTTEN_VIEW, mirror.seq))
        self._reviewed[name] = policy

    def _outdated(self, tx: Transaction, mirror: HashSet, set_id: int) -> bool:
        kinds = tx.blocks.kinds(set_id)
        held = {row.number: LabelInSet(mirror.name, stored_label(row)) for row in tx.sets.labels(set_id)}
        partner = PartnerRef(mirror.hub, mirror.hub[:2])
        taken = self._node.policy.receivable(partner, Surface.SEALED, held)
        return any(taken[label].allowed != (kind == CHANGES) for label, kind in kinds if label in taken)

    def note_head(self, sender: str, raw: bytes) -> FeedHead:
        """Verify a hub's feed head and keep it; returns it. It came in an envelope signed by `sender`."""
        head = FeedHead.parse(raw)
        now = self._node.clock()
        if head.hub != sender or head.set_name.split("/")[0] != sender:
            raise DeniedError("only its owner speaks for a set")
        if head.partner != self._node.agency:
            raise VerificationError("the feed head is for another partner")
        if head.expires + CLOCK_SKEW_SECONDS < now:
            raise VerificationError("the feed head has expired: the hub is frozen or its clock is behind")
        if head.issued - CLOCK_SKEW_SECONDS > now:
            raise VerificationError("the feed head is from the future: compare the clocks of both sides")
        with self._node.store.transaction() as tx:
            self._check_tested(tx, sender, head.set_name)
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
        if head.hub != message.sender or head.set_name.split("/")[0] != message.sender:
            raise DeniedError("only its owner changes a set")
        with self._node.store.transaction() as tx:
            active_card(self._node, tx, message.sender)
            self._check_tested(tx, message.sender, head.set_name)
            mirror = tx.sets.get(head.set_name)
            before = repeated(tx, message)
            if before is not None:
                return Applied(_stands(mirror), 0, 0, mirror.equality, before)
            self._check_fit(mirror, head)
            labels = {label.number: label for label in head.labels}
            decisions = self._decide(message.sender, head.set_name, labels.values())
            if self._reviewed.get(head.set_name) != self._node.policy.digest:
                self._reviewed.pop(head.set_name, None)  # judged under another policy than the rows before
            work = self._sort(head, labels, decisions, blocks, digest_key(self._node, mirror))
            return self._commit(tx, mirror, head, work, message, pushed=pushed)

    def may_follow(self, hub: str, name: str) -> bool:
        """Whether a set of a hub may come here, as far as its test goes."""
        with self._node.store.reading() as tx:
            return may_exchange(self._node, tx, hub, name)

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
            if sum(row.hub == head.hub for row in tx.sets.all()) >= MAX_SETS_OF_A_HUB:
                raise DeniedError("this hub has as many sets here as one hub may have")
            row = HashSet(
                name=head.set_name, hub=head.hub, purpose=head.purpose, epoch=0, seq=0, created=self._node.clock()
            )
            row.id = tx.sets.create(row)
            return row
        if found.hub != head.hub:
            raise DeniedError("this set does not come from that hub")
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
        if page.end.seq > head.cursor.seq or (page.end.seq < cursor.seq and not page.reset):
            raise MalformedError("the page ends outside its feed head")
        if page.start.epoch != page.end.epoch and not (page.reset or page.start == START):
            raise MalformedError("the page changes the epoch without a reset")

    def _decide(self, sender: str, set_name: str, labels: Iterable[PageLabel]) -> dict[int, Decision]:
        held = {}
        for label in labels:
            parsed = Label.from_json(label.attributes)
            owner = set_name.split("/", maxsplit=1)[0]
            require(parsed.originator == owner, "page label: a set speaks of its owner's entries only")
            require(
                parsed.originator.split("-")[0] == parsed.jurisdiction, "page label: agency and jurisdiction differ"
            )
            held[label.number] = LabelInSet(set_name, parsed)
        partner = PartnerRef(sender, sender[:2])
        return self._node.policy.receivable(partner, Surface.SEALED, held)

    def _sort(
        self,
        page: PageHead,
        labels: dict[int, PageLabel],
        decisions: dict[int, Decision],
        blocks: Iterable[Block],
        key: bytes,
    ) -> _Work:
        """Check every block, and part what we take from what we refuse."""
        work = _Work()
        for block in blocks:
            header = block.header
            require(header.set_name == page.set_name, "page: a block of another set")
            require(header.epoch == page.end.epoch, "page: a block of another epoch")
            require(header.last_seq <= page.end.seq, "page: a block beyond the page's end")
            work.changes += header.count
            # Before anything is unpacked: a block of a few bytes can stand for thousands of rows.
            require(work.changes <= page.changes, "page: more changes than it announces")
            if header.label == REMOVALS_LABEL:
                rows = decode(block)
                work.removals.append(block)
                work.arriving.append(rows.ints("entry_id"))
                continue
            label = labels.get(header.label)
            if label is None or label.digest != header.label_digest.hex() or not block.groups <= label.groups:
                raise MalformedError("page: a block does not fit its label")
            rows = decode(block)
            require((rows.ints("kind") == ChangeKind.ASSERT).all(), "page: a labelled block asserts only")
            work.arriving.append(rows.ints("entry_id"))
            if decisions[header.label].allowed:
                work.kept.append(block)
                work.rows.append(rows)
            else:
                self._refuse(work, block, rows, decisions[header.label], key)
        require(work.changes == page.changes, "page: the number of changes is not the one announced")
        return work

    def _refuse(self, work: _Work, block: Block, rows: Rows, decision: Decision, key: bytes) -> None:
        """Keep of refused rows what the state digest needs, and nothing else."""
        bare = rows.select(["kind", "seq", "entry_id", "version"])
        header = block.header
        work.refused.append(
            encode_block(
                set_name=header.set_name,
                epoch=header.epoch,
                label=header.label,
                label_digest=header.label_digest,
                rows=bare,
                salt=self._shelf.salt,
            )
        )
        work.items.append(
            pack_items({part: digest.items(rows, part, key) for part in CONTENT_PARTS & set(block.parts)})
        )
        work.refused_rows += rows.n
        reason = ", ".join(decision.rule_ids) or str(decision.reason)
        work.reasons[reason] = work.reasons.get(reason, 0) + rows.n

    # The one transaction

    def _commit(
        self, tx: Transaction, mirror: HashSet, page: PageHead, work: _Work, message: Message, *, pushed: bool
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
        self._acknowledge(tx, page, work, replaced)
        # 2. Labels that left go whole; so does everything on a reset.
        self._leave(tx, mirror, page, leaving, sums)
        # 3. Leaves, blocks and sums.
        kept = [*work.removals, *work.kept]
        details = self._details(page, work, message, len(kept) + len(work.refused))
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
            }
            events.append(
                self._node.event(
                    EventKind.ROWS_REFUSED, actor=self._node.agency, subject=message.sender, details=refusal
                )
            )
        digests = [block.digest for block in (*kept, *work.refused)]
        leaf = tx.log.append(events, blocks=digests)
        self._shelf.put(tx, set_id, REMOVALS, work.removals, first_leaf=leaf)
        self._shelf.put(tx, set_id, CHANGES, work.kept, first_leaf=leaf + len(work.removals))
        self._shelf.put(tx, set_id, REFUSED, work.refused, first_leaf=leaf + len(kept), items=work.items)
        self._count(work, sums)
        sums.write()
        known = {row.number: row for row in tx.sets.labels(set_id)}
        described = [_label_row(set_id, label) for label in page.labels]
        for row in described:
            # What was judged once stays as it was judged; a label that changes leaves first, and comes again.
            require(known.get(row.number) in (None, row), "page: a label changes without leaving")
        tx.sets.put_labels([row for row in described if known.get(row.number) != row])
        # 4. The cursor, and whether both sides hold the same.
        tx.sets.advance_mirror(
            set_id, expected=(mirror.epoch, mirror.view, mirror.seq), to=(page.end.epoch, page.end.view, page.end.seq)
        )
        equality = self._compare(tx, set_id, mirror, page, sums)
        # 5. The receipt, part of the same commit: a crash before it leaves nothing, after it the sender gets it again.
        receipt = settle(self._node, tx, message, event, leaf + len(digests))
        return Applied(page.end, work.changes, work.refused_rows, equality, receipt)

    def _acknowledge(self, tx: Transaction, page: PageHead, work: _Work, replaced: list[Held]) -> None:
        """Tell the owner that its withdrawals took effect here; nobody is told of what was not held."""
        held = {entry for one in replaced for entry in one.rows.ints("entry_id").tolist()}
        withdrawn = 0
        for block in work.removals:
            rows = decode(block, ["entry_id", "kind"])
            pairs = zip(rows.ints("entry_id").tolist(), rows.ints("kind").tolist(), strict=True)
            withdrawn += sum(kind == ChangeKind.WITHDRAW and entry in held for entry, kind in pairs)
        if withdrawn:
            body: dict[str, object] = {"set": page.set_name, "epoch": page.end.epoch, "until_seq": page.end.seq}
            self._mailbox.post(tx, page.hub, "withdrawal_applied", {**body, "entries": withdrawn})

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
        self._shelf.put(tx, set_id, REMOVALS, blocks, first_leaf=leaf)

    def _count(self, work: _Work, sums: Sums) -> None:
        sums.add((block.header.label, rows, block.parts) for block, rows in zip(work.kept, work.rows, strict=True))
        for block, raw in zip(work.refused, work.items, strict=True):
            size = 16 * block.header.count
            for at in range(0, len(raw), 1 + size):
                items = digest.parse_items(raw[at + 1 : at + 1 + size])
                sums.move(block.header.label, raw[at], digest.sum_items(items))

    def _compare(self, tx: Transaction, set_id: int, mirror: HashSet, page: PageHead, sums: Sums) -> str:
        """equal or different once the mirror stands where the head does; unknown on the way there."""
        head = FeedHead.parse(mirror.head.encode())
        word = "unknown"
        if page.end == head.cursor:
            word = "equal" if sums.state() == head.state and sums.entries() == head.count else "different"
        tx.sets.set_equality(set_id, word)
        return word

    def _details(self, page: PageHead, work: _Work, message: Message, blocks: int) -> dict[str, object]:
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


def _stands(mirror: HashSet) -> Cursor:
    """Where a mirror stands."""
    return Cursor(mirror.epoch, mirror.view, mirror.seq)


def _label_row(set_id: int, label: PageLabel) -> LabelRow:
    return LabelRow(
        set_id=set_id,
        number=label.number,
        digest=bytes.fromhex(label.digest),
        attributes=canonical.encode(label.attributes).decode(),
        groups=" ".join(sorted(label.groups)),
        obligations=" ".join(label.obligations),
    )
