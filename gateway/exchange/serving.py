"""Serving a set to one partner: its view, its feed head, and the page that brings it on from a cursor.

Views and pages are decided by policy at the moment of serving; a page never holds a row that has been superseded since,
so an entry that was embargoed a second ago does not leave in an old version. Withdrawal, tightening of policy and
backfill are one mechanism: the page from where the partner is to where the hub is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO

from gateway.audit import MAX_RECEIPT_BYTES, Event, EventKind
from gateway.columns.block import NO_LABEL, Block, cut, decode, encode_block, resliced
from gateway.columns.block import REMOVALS as REMOVALS_LABEL
from gateway.columns.delta import Selection, select_delta
from gateway.columns.rows import EXISTENCE, GROUP_CODES, LOCAL_GROUP, Mask, Rows, concat, constant, indexes, joined
from gateway.crypto import envelope
from gateway.crypto.canonical import parse_canonical
from gateway.crypto.keys import SealingKey, new_message_id
from gateway.errors import AuditBrokenError, ConflictError, NotFoundError
from gateway.exchange.changes import Sums
from gateway.exchange.labels import digest_key, shown_attributes, stored_label
from gateway.exchange.shelf import Shelf, block_id, stored_header
from gateway.interchange import (
    HEAD_TYPE,
    NO_VIEW,
    PAGE_TYPE,
    Cursor,
    FeedHead,
    IdentityCard,
    LabelView,
    PageHead,
    PageLabel,
    View,
    dump_page,
)
from gateway.model import ChangeKind, FieldGroup, Label, Surface
from gateway.node import Node
from gateway.partners import active_card, may_exchange
from gateway.policy import LabelInSet, LabelRights, PartnerRef
from gateway.store import Transaction
from gateway.store.tables import BlockRow, FeedHeadRow, Follower, HashSet, LabelRow, OutboxRow

HISTORY = ("kind", "seq", "entry_id", "version", "prev_seq", "prev_label")
BYTES_OF_A_CHANGE = 384  # so that 65,536 changes of room are 24 MiB at most
CHANGES_OF_A_BLOCK = 16  # … and 4,096 blocks
HISTORY_PARTS = (EXISTENCE, LOCAL_GROUP)


@dataclass(frozen=True, slots=True)
class ServedSet:
    """One set as one partner may see it now."""

    hash_set: HashSet
    partner: str
    view: View
    labels: Mapping[int, tuple[LabelRow, Label]]
    rights: Mapping[int, LabelRights]

    @property
    def id(self) -> int:
        """The set's id in the store."""
        assert self.hash_set.id is not None
        return self.hash_set.id

    @property
    def visible(self) -> bool:
        """Whether the partner may know that the set exists."""
        return bool(self.view.labels)


@dataclass(frozen=True, slots=True)
class SealedHead:
    """A feed head as a poll answers it."""

    head: FeedHead
    etag: str
    body: bytes


@dataclass(frozen=True, slots=True)
class SealedPage:
    """A page as it leaves: sealed for one partner, with what the outbox and the log need to know of it."""

    head: PageHead
    message_id: str
    manifest_digest: str
    body: bytes


@dataclass(frozen=True, slots=True)
class _Draft:
    """A page before it is sealed."""

    head: PageHead
    blocks: list[Block]


class Server:
    """Serves this agency's own sets."""

    def __init__(self, node: Node, shelf: Shelf) -> None:
        self._node = node
        self._shelf = shelf

    def served_sets(self, partner: IdentityCard) -> list[ServedSet]:
        """Every own set of which the partner may see anything."""
        with self._node.store.reading() as tx:
            found = [self._served(tx, row, partner) for row in tx.sets.all() if not row.hub]
        return [one for one in found if one.visible]

    def head(self, partner: IdentityCard, name: str, *, held: Container[str] = ()) -> SealedHead:
        """The feed head of a set for a partner: the one issued before while it still says the truth, else a new one.

        Args:
            held: entity tags of heads that the partner says it holds, with all that they speak of.
        """
        # Most polls find nothing new: they only read, and take no lock from those who write.
        with self._node.store.reading() as tx:
            served, _, issued = self._present(tx, name, partner)
            noted = {(row.partner, row.epoch, row.view, row.seq) for row in tx.sets.followers(served.id)}
        if issued is not None:
            cursor = issued.head.cursor
            if issued.etag in held and (partner.agency, cursor.epoch, cursor.view, cursor.seq) not in noted:
                with self._node.store.transaction() as tx:
                    self._note_follower(tx, served, partner, cursor)
            return issued
        with self._node.store.transaction() as tx:
            active_card(self._node, tx, partner.agency)
            served, head, issued = self._present(tx, name, partner)
            return issued or self._issue(tx, served, head, partner)

    def page(self, partner: IdentityCard, name: str, cursor: Cursor, *, kind: EventKind) -> SealedPage | None:
        """The next page for a partner from its cursor, or None when it is up to date. Logged before it leaves.

        Args:
            kind: PAGE_SERVED when the partner asked, PAGE_SENT when we push.
        """
        # 1. Decide and gather, in one short read.
        with self._node.store.reading() as tx:
            served = self._visible(tx, name, partner)
            issued = tx.sets.head(served.id, partner.agency)
            if issued is None:
                raise NotFoundError("ask for the feed head first")
            until = FeedHead.parse(issued.content.encode()).cursor.seq
            draft, views = self._draft(tx, served, cursor, until)
        if draft is None:
            with self._node.store.transaction() as tx:
                self._note_follower(tx, served, partner, cursor)
            return None
        # 2. Seal, with no transaction open.
        raw = BytesIO()
        dump_page(draft.head, draft.blocks, raw)
        sealed = self._seal(draft.head, raw, partner)
        # 3. One commit: what left, for whom, under which view. A crash before this line sends nothing.
        with self._node.store.transaction() as tx:
            active_card(self._node, tx, partner.agency)
            if self._visible(tx, name, partner).view != served.view:
                raise ConflictError("policy has changed the view meanwhile", remedy="ask for the feed head again")
            for view in views:
                tx.sets.put_view(served.id, partner.agency, view.digest, view.dump().decode())
            self._note_follower(tx, served, partner, cursor)
            if kind is EventKind.PAGE_SENT:
                tx.mail.queue(self._outbox_row(partner, sealed))
            tx.log.append([self._page_event(kind, partner, draft.head, sealed, raw.getvalue(), served)])
        return sealed

    def confirm(self, partner: IdentityCard, message_id: str, receipt: bytes, end: Cursor | None) -> None:
        """Keep the verified receipt of a page that was pushed; `end` is where the partner now stands."""
        proof = parse_canonical(receipt, max_bytes=MAX_RECEIPT_BYTES)
        assert isinstance(proof, dict), "the receipt was verified"
        with self._node.store.transaction() as tx:
            sent = tx.mail.sent(message_id)
            if sent is None or sent.state == "received":
                return
            tx.mail.close(message_id, state="received", receipt=receipt)
            found = tx.sets.find(sent.subject)
            if end is not None and found is not None:
                self._note_follower(tx, self._served(tx, found, partner), partner, end)
            details: dict[str, object] = {
                "partner": partner.agency,
                "message_id": message_id,
                "manifest_digest": sent.manifest_digest,
                "origin": proof["origin"],
                "leaf_index": proof["leaf_index"],
                "tree_size": proof["tree_size"],
            }
            event = self._node.event(
                EventKind.RECEIPT_STORED, actor=partner.agency, subject=self._node.agency, details=details
            )
            tx.log.append([event])

    def _note_follower(self, tx: Transaction, served: ServedSet, partner: IdentityCard, cursor: Cursor) -> None:
        """What a partner says that it holds is what we know of it."""
        row = Follower(
            set_id=served.id,
            partner=partner.agency,
            epoch=cursor.epoch,
            view=cursor.view,
            seq=cursor.seq,
            at=self._node.clock(),
        )
        tx.sets.put_follower(row)

    def _outbox_row(self, partner: IdentityCard, sealed: SealedPage) -> OutboxRow:
        return OutboxRow(
            message_id=sealed.message_id,
            partner=partner.agency,
            payload_type=PAGE_TYPE,
            subject=sealed.head.set_name,
            manifest_digest=sealed.manifest_digest,
            sealed=sealed.body,
            state="waiting",
            created=self._node.clock(),
            until_seq=sealed.head.end.seq,
        )

    # The view

    def _visible(self, tx: Transaction, name: str, partner: IdentityCard) -> ServedSet:
        """An own set that the partner may see; absent and forbidden look the same."""
        found = tx.sets.find(name)
        if found is not None and not found.hub and not tx.people.is_paused(partner.agency):
            served = self._served(tx, found, partner)
            if served.visible:
                return served
        raise NotFoundError("no such set")

    def _served(self, tx: Transaction, hash_set: HashSet, partner: IdentityCard) -> ServedSet:
        assert hash_set.id is not None
        labels = {row.number: (row, stored_label(row)) for row in tx.sets.labels(hash_set.id)}
        if partner.agency == hash_set.name.split("/")[0]:
            return ServedSet(hash_set, partner.agency, View({}), labels, {})  # a set is never served to its owner
        if not may_exchange(self._node, tx, partner.agency, hash_set.name):
            return ServedSet(hash_set, partner.agency, View({}), labels, {})  # nor a real one to a partner under test
        ref = PartnerRef(partner.agency, partner.jurisdiction)
        held = {number: LabelInSet(hash_set.name, label) for number, (_, label) in labels.items()}
        rights = self._node.policy.table(ref, Surface.SEALED, held)
        shown = {
            number: LabelView(right.groups, tuple(str(duty) for duty in right.obligations))
            for number, right in rights.items()
            if FieldGroup.EXISTENCE in right.groups
        }
        return ServedSet(hash_set, partner.agency, View(shown), labels, rights)

    # The feed head

    def _present(
        self, tx: Transaction, name: str, partner: IdentityCard
    ) -> tuple[ServedSet, FeedHead, SealedHead | None]:
        """What a head would say now, and the one issued before if it says so still."""
        served = self._visible(tx, name, partner)
        sums = Sums(tx, served.id, digest_key(self._node, served.hash_set))
        shown = {number: one.groups for number, one in served.view.labels.items()}
        now = self._node.clock()
        head = FeedHead(
            hub=self._node.agency,
            set_name=name,
            partner=partner.agency,
            purpose=served.hash_set.purpose,
            cursor=Cursor(served.hash_set.epoch, served.view.digest, served.hash_set.seq),
            count=sums.entries(shown),
            state=sums.state(shown),
            key=sums.key.hex(),
            issued=now,
            expires=now + self._node.settings.head_lifetime_hours * 3600,
        )
        issued = tx.sets.head(served.id, partner.agency)
        if issued is None:
            return served, head, None
        held = replace(head, issued=issued.issued, expires=issued.expires)
        if not self._still_true(issued, held, now, partner):
            return served, head, None
        return served, head, SealedHead(held, issued.etag, issued.sealed)

    def _still_true(self, issued: FeedHeadRow, held: FeedHead, now: int, partner: IdentityCard) -> bool:
        """Whether `held` is what was issued, for the same keys of the partner. Re-signed at half life."""
        return now < (held.issued + held.expires) // 2 and issued.etag == head_etag(held, partner.opening)

    def _issue(self, tx: Transaction, served: ServedSet, head: FeedHead, partner: IdentityCard) -> SealedHead:
        seq = head.cursor.seq
        audience = envelope.agency_audience(partner.agency)
        span = (head.cursor.epoch, seq, seq)
        manifest = self._manifest(audience, head.set_name, span, expires=head.expires, payload_type=HEAD_TYPE)
        body = envelope.seal_bytes(
            manifest, head.dump(), self._node.keystore.signing_key, partner.opening, self._node.random
        )
        etag = head_etag(head, partner.opening)
        row = FeedHeadRow(
            set_id=served.id,
            partner=partner.agency,
            etag=etag,
            content=head.without_key().dump().decode(),
            sealed=body,
            issued=head.issued,
            expires=head.expires,
        )
        before = tx.sets.head(served.id, partner.agency)
        tx.sets.put_head(row)
        tx.sets.put_view(served.id, partner.agency, served.view.digest, served.view.dump().decode())
        events = [self._head_event(head)]
        old_view = FeedHead.parse(before.content.encode()).cursor.view if before else NO_VIEW
        if old_view != head.cursor.view:
            events = self._decisions(served, partner, old_view) + events
        tx.log.append(events)
        return SealedHead(head, etag, body)

    # The page

    def _draft(
        self, tx: Transaction, served: ServedSet, cursor: Cursor, until: int
    ) -> tuple[_Draft | None, list[View]]:
        """The page from `cursor`, and the views that its ends name."""
        stored = tx.sets.view(served.id, served.partner, cursor.view) if cursor.view != NO_VIEW else None
        epoch = served.hash_set.epoch
        reset = cursor.epoch != epoch or (cursor.view != NO_VIEW and stored is None) or cursor.seq > until
        start = Cursor(epoch, NO_VIEW, 0) if reset else cursor
        old = self._known_view(served, cursor, stored) if stored and not reset else View({})
        # 1. Labels that the partner loses, or sees otherwise than before, go whole.
        target = served.view.labels
        left = [n for n, shown in old.labels.items() if n not in target or not target[n].shows_the_same(shown)]
        held = {n: shown for n, shown in old.labels.items() if n not in left}
        # 2. Labels newly in view are filled up to the cursor, as far as the page goes.
        blocks: list[Block] = []
        room = self._node.settings.page_changes
        if start.seq:
            blocks, held, room = self._backfill(tx, served, held, start.seq, room)
        else:
            held = dict(target)
        # 3. When all of them are full, the changes after the cursor.
        seq = start.seq
        if held.keys() == target.keys() and all(one.until_seq is None for one in held.values()) and room > 0:
            changes, seq = self._changes(tx, served, start.seq, until, room)
            blocks = changes + blocks  # removals stand first
        view = served.view if held == target else View(held)
        end = Cursor(epoch, view.digest, seq)
        if not reset and end == cursor:
            return None, []
        new = {n for n in held if n not in old.labels or n in left}
        labels = self._page_labels(served, new | {block.header.label for block in blocks} - {REMOVALS_LABEL})
        head = PageHead(
            hub=self._node.agency,
            set_name=served.hash_set.name,
            start=cursor,
            end=end,
            target=served.view.digest,
            reset=reset,
            left=tuple(sorted(left)),
            labels=labels,
            blocks=len(blocks),
            changes=sum(block.header.count for block in blocks),
        )
        return _Draft(head, blocks), [view, served.view]

    def _known_view(self, served: ServedSet, cursor: Cursor, stored: str) -> View:
        return served.view if cursor.view == served.view.digest else View.parse(stored.encode())

    def _backfill(
        self, tx: Transaction, served: ServedSet, held: dict[int, LabelView], upto: int, room: int
    ) -> tuple[list[Block], dict[int, LabelView], int]:
        """Live rows of labels newly in view, by ascending seq up to the cursor."""
        held = dict(held)
        blocks: list[Block] = []
        for number, shown in sorted(served.view.labels.items()):
            before = held.get(number)
            if before is not None and before.until_seq is None:
                continue
            after = before.until_seq or 0 if before is not None else 0
            for row in self._stored(tx, served, after, upto, label=number):
                if room <= 0:
                    held[number] = replace(shown, until_seq=after)
                    return blocks, held, 0
                found = self._live(tx, served, row)
                rows = decode(self._shelf.get(tx, row, HISTORY_PARTS), HISTORY)
                seq = rows.ints("seq")
                mask = found & (seq > after) & (seq <= upto)
                blocks += self._projected(tx, served, [(row, mask)])
                room -= _cost(row)
                after = min(row.last_seq, upto)
            held[number] = shown
        return blocks, held, room

    def _changes(
        self, tx: Transaction, served: ServedSet, after: int, until: int, room: int
    ) -> tuple[list[Block], int]:
        """Blocks of what the view shows of the changes in (after, until], as far as there is room (or one block)."""
        stored: list[BlockRow] = []
        for row in self._stored(tx, served, after, until):
            room -= _cost(row)
            if stored and room < 0:
                break
            stored.append(row)
        if not stored:
            return [], until
        end = min(stored[-1].last_seq, until)
        read = [decode(block, HISTORY) for block in self._shelf.get_all(tx, stored, HISTORY_PARTS)]
        inside = [(rows.ints("seq") > after) & (rows.ints("seq") <= end) for rows in read]
        taken = [rows.take(mask) for rows, mask in zip(read, inside, strict=True)]
        labels = joined([constant(row.label, rows.n) for row, rows in zip(stored, taken, strict=True)])
        history = concat(taken)
        selection = select_delta(history, set(served.view.labels), labels, after)
        blocks = self._removals(served, history, selection)
        chosen, at = [], 0
        with self._shelf.index(tx, served.id) as index:
            for row, mask, part in zip(stored, inside, taken, strict=True):
                live = index.live_rows(block_id(row))
                chosen.append((row, _spread(mask, selection.send[at : at + part.n]) & live))
                at += part.n
        return blocks + self._projected(tx, served, chosen), end

    def _stored(
        self, tx: Transaction, served: ServedSet, after: int, until: int, *, label: int | None = None
    ) -> list[BlockRow]:
        """Blocks with changes in (after, until], in order of seq."""
        rows = [row for row in tx.blocks.of_set(served.id, after_seq=after) if row.first_seq <= until]
        rows = [row for row in rows if row.epoch == served.hash_set.epoch and (label is None or row.label == label)]
        return sorted(rows, key=lambda row: row.first_seq)

    def _live(self, tx: Transaction, served: ServedSet, row: BlockRow) -> Mask:
        with self._shelf.index(tx, served.id) as index:
            return index.live_rows(block_id(row))

    def _projected(self, tx: Transaction, served: ServedSet, chosen: Sequence[tuple[BlockRow, Mask]]) -> list[Block]:
        """Blocks with the parts that the view shows: copied where every row goes, cut where some do not."""
        shown = served.view.labels
        sent = [(row, mask) for row, mask in chosen if row.label in shown and mask.any()]
        rows_by_groups: dict[frozenset[FieldGroup], list[BlockRow]] = {}
        for row, _ in sent:
            rows_by_groups.setdefault(shown[row.label].groups, []).append(row)
        found: dict[int, Block] = {}
        for groups, rows in rows_by_groups.items():
            blocks = self._shelf.get_all(tx, rows, [GROUP_CODES[group] for group in groups])
            found.update((block_id(row), block.project(groups)) for row, block in zip(rows, blocks, strict=True))
        if any(found[block_id(row)].header.label_digest != served.labels[row.label][0].digest for row, _ in sent):
            raise AuditBrokenError("a stored block has another label than it was logged with")
        blocks_and_masks = [(found[block_id(row)], mask) for row, mask in sent]
        return [block if mask.all() else resliced(block, mask, self._shelf.salt) for block, mask in blocks_and_masks]

    def _removals(self, served: ServedSet, history: Rows, selection: Selection) -> list[Block]:
        """One block of withdrawals and leaves, without label or content."""
        where = sorted(
            [(int(at), ChangeKind.WITHDRAW) for at in selection.withdraw]
            + [(int(at), ChangeKind.LEAVE) for at in selection.leave]
        )
        if not where:
            return []
        rows = history.take(indexes([at for at, _ in where]))
        removals = Rows.of(
            rows.n,
            {
                "kind": [int(kind) for _, kind in where],
                "seq": rows.ints("seq"),
                "entry_id": rows.ints("entry_id"),
                "version": rows.ints("version"),
            },
        )
        return [
            encode_block(
                set_name=served.hash_set.name,
                epoch=served.hash_set.epoch,
                label=REMOVALS_LABEL,
                label_digest=NO_LABEL,
                rows=piece,
                salt=self._shelf.salt,
            )
            for piece in cut(removals)
        ]

    def _page_labels(self, served: ServedSet, numbers: set[int]) -> tuple[PageLabel, ...]:
        described = []
        for number in sorted(numbers):
            row, label = served.labels[number]
            shown = served.view.labels[number]
            attributes = shown_attributes(label, shown.groups)
            described.append(PageLabel(number, row.digest.hex(), attributes, shown.groups, shown.obligations))
        return tuple(described)

    # Sealing and logging

    def _manifest(
        self, audience: str, channel: str, span: tuple[int, int, int], *, expires: int, payload_type: str
    ) -> envelope.Manifest:
        """A manifest over `span`: epoch, first and last seq."""
        epoch, start, end = span
        return envelope.Manifest(
            message_id=new_message_id(self._node.random),
            sender=self._node.agency,
            audience=audience,
            channel=channel,
            epoch=epoch,
            from_seq=start,
            until_seq=end,
            created=self._node.clock(),
            expires=expires,
            payload_type=payload_type,
        )

    def _seal(self, head: PageHead, raw: BytesIO, partner: IdentityCard) -> SealedPage:
        """One body for the audience class, with a header for this partner."""
        expires = self._node.clock() + self._node.settings.head_lifetime_hours * 3600
        first = min(head.start.seq, head.end.seq)
        audience = envelope.view_audience(head.target)
        span = (head.end.epoch, first, head.end.seq)
        manifest = self._manifest(audience, head.set_name, span, expires=expires, payload_type=PAGE_TYPE)
        raw.seek(0)
        body = BytesIO()
        sealed = envelope.seal(manifest, raw, body, self._node.keystore.signing_key, self._node.random)
        header = sealed.header_for(*partner.opening)
        return SealedPage(head, manifest.message_id, sealed.manifest_digest, header + body.getvalue())

    def _page_event(  # noqa: PLR0917  what the log tells of a page is just this much
        self,
        kind: EventKind,
        partner: IdentityCard,
        head: PageHead,
        sealed: SealedPage,
        raw: bytes,
        served: ServedSet,
    ) -> Event:
        details: dict[str, object] = {
            "partner": partner.agency,
            "message_id": sealed.message_id,
            "manifest_digest": sealed.manifest_digest,
            "withheld": len(served.labels) - len(served.view.labels),
            "set": head.set_name,
            "epoch": head.end.epoch,
            "from_seq": head.start.seq,
            "until_seq": head.end.seq,
            "view": head.end.view,
            "page_digest": hashlib.sha256(raw).hexdigest(),
            "changes": head.changes,
        }
        return self._node.event(kind, actor=self._node.agency, subject=partner.agency, details=details)

    def _head_event(self, head: FeedHead) -> Event:
        details: dict[str, object] = {
            "partner": head.partner,
            "set": head.set_name,
            "epoch": head.cursor.epoch,
            "seq": head.cursor.seq,
            "view": head.cursor.view,
            "head_digest": head.digest,
            "expires": head.expires,
        }
        return self._node.event(
            EventKind.FEED_HEAD_ISSUED, actor=self._node.agency, subject=head.partner, details=details
        )

    def _decisions(self, served: ServedSet, partner: IdentityCard, old_view: str) -> list[Event]:
        """Decision receipts for every label, kept whenever what a partner sees has changed."""
        events = []
        for number, right in sorted(served.rights.items()):
            details: dict[str, object] = {
                "partner": partner.agency,
                "surface": str(Surface.SEALED),
                "set": served.hash_set.name,
                "action": "share",
                "label": served.labels[number][0].digest.hex(),
                "outcome": "allow" if right.groups else "deny",
                "groups": sorted(right.groups),
                "rules": sorted({*right.permits, *right.forbids}),
                "obligations": [str(duty) for duty in right.obligations],
                "policy": self._node.policy.digest,
            }
            events.append(
                self._node.event(
                    EventKind.SHARE_DECIDED, actor=self._node.agency, subject=partner.agency, details=details
                )
            )
        details = {
            "partner": partner.agency,
            "set": served.hash_set.name,
            "old_view": old_view,
            "new_view": served.view.digest,
        }
        changed = self._node.event(
            EventKind.VIEW_CHANGED, actor=self._node.agency, subject=partner.agency, details=details
        )
        return [*events, changed]


def _cost(row: BlockRow) -> int:
    """What a block takes of a page's room, in changes: large values and tiny blocks cost more than their count."""
    stored = sum(part.stored_bytes for part in stored_header(row).parts)
    return max(row.count, stored // BYTES_OF_A_CHANGE, CHANGES_OF_A_BLOCK)


def head_etag(head: FeedHead, keys: Sequence[SealingKey]) -> str:
    """Names a head as sealed for these keys of the partner."""
    return hashlib.sha256((head.digest + "".join(key.key_id for key in keys)).encode()).hexdigest()


def _spread(mask: Mask, chosen: Mask) -> Mask:
    """`chosen`, which speaks of the rows that `mask` marks, as a mask over all rows."""
    spread = mask.copy()
    spread[mask] = chosen
    return spread
