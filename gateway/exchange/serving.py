"""Serving a set to one partner: its view, its feed head, and the page that brings it on from a cursor.

Views and pages are decided by policy at the moment of serving; a page never holds a row that has been superseded since,
so an entry that was embargoed a second ago does not leave in an old version. Withdrawal, tightening of policy and
backfill are one mechanism: the page from where the partner is to where the hub is.

What is the same for all partners of an audience class is worked out once: views and sums (`audience`), the page itself,
packed and sealed (`bodies`). Whether a partner may be served is asked at each request, in the transaction that serves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from io import BytesIO

from gateway.audit import MAX_RECEIPT_BYTES, Event, EventKind
from gateway.columns.block import REMOVALS
from gateway.crypto import envelope
from gateway.crypto.canonical import parse_canonical
from gateway.crypto.keys import SealingKey, new_message_id
from gateway.errors import ConflictError, NotFoundError, OverloadedError, StaleCursorError
from gateway.exchange.audience import Audiences
from gateway.exchange.bodies import Bodies, Body, Place
from gateway.exchange.changes import Sums
from gateway.exchange.decisions import SHARE, Answers, Decisions, Site
from gateway.exchange.drafting import Draft, Drafter, ServedSet
from gateway.exchange.duties import Duties
from gateway.exchange.shelf import Shelf
from gateway.exchange.withdrawals import RECALLED, Cause, Span, Taken, begin
from gateway.interchange import (
    EMPTY_VIEW,
    HEAD_TYPE,
    NO_VIEW,
    PAGE_TYPE,
    START,
    Cursor,
    FeedHead,
    IdentityCard,
    PageHead,
    View,
    dump_page,
)
from gateway.node import Node
from gateway.partners import ACTIVE, active, card_in, find, may_exchange, may_move
from gateway.policy import PartnerRef
from gateway.store import Transaction
from gateway.store.tables import FeedHeadRow, Follower, HashSet, OutboxRow

NARROWED = "policy has narrowed what the partner may see"


@dataclass(frozen=True, slots=True)
class SealedHead:
    """A feed head as a poll answers it."""

    head: FeedHead
    etag: str
    body: bytes


@dataclass(frozen=True)
class SealedPage:
    """A page as it leaves: sealed for one partner, with what the outbox and the log need to know of it.

    `header` is the partner's alone; `octets` are shared by its class. `etag` names both together.
    """

    head: PageHead
    message_id: str
    manifest_digest: str
    header: bytes
    octets: bytes
    etag: str

    @property
    def size(self) -> int:
        """Bytes of the whole envelope."""
        return len(self.header) + len(self.octets)

    @cached_property
    def body(self) -> bytes:
        """The whole envelope in one piece."""
        return self.header + self.octets


@dataclass(frozen=True, slots=True)
class _Asked:
    """One partner that asks for a page: what it may see, which page that makes, the view of the head that it holds."""

    card: IdentityCard
    served: ServedSet
    place: Place
    given: str


Gather = Callable[[Transaction, ServedSet], tuple[Draft | None, list[View]]]


class Server:
    """Serves this agency's own sets, and the onward copies of partners' sets."""

    def __init__(self, node: Node, shelf: Shelf, duties: Duties) -> None:
        self._node = node
        self._shelf = shelf
        self._duties = duties
        self._audiences = Audiences(node)
        self._decisions = Decisions(node)
        self._bodies = Bodies()
        self._drafter = Drafter(node.agency, shelf)
        self._carried: set[tuple[int, int]] = set()  # sets by id and epoch

    def served_sets(self, partner: IdentityCard) -> list[ServedSet]:
        """Every own set, and every set passed on, of which the partner may see anything."""
        with self._node.store.reading() as tx:
            own = [row for row in tx.sets.stored() if not row.hub]
            may = {row.name: may_exchange(self._node, tx, partner.agency, row.name) for row in own}
            found = [self._served(tx, row, partner, tested=may[row.name]) for row in own]
            due = [one.hash_set.name for one in found if not self._is_on_record(tx, one)]
        if due:
            self._put_on_record(partner, due)
        return [one for one in found if one.visible]

    def head(self, partner: str, name: str, *, held: Container[str] = ()) -> SealedHead:
        """The feed head of a set for a partner: the one issued before while it still says the truth, else a new one.

        Args:
            held: entity tags of heads that the partner says it holds, with all that they speak of.
        """
        # Most polls find nothing new: they only read, and take no lock from those who write.
        with self.refusals_on_record(partner, name), self._node.store.reading() as tx:
            card, served = self._admitted(tx, partner, name)
            _, issued = self._present(tx, served, card)
            noted = tx.sets.follower(served.id, partner)
            due = not self._is_on_record(tx, served)
        if issued is not None:
            if due:
                self._put_on_record(card, [name])
            if issued.etag in held and issued.head.cursor != _noted(noted):
                with self._node.store.transaction() as tx:
                    self._note_follower(tx, served, partner, issued.head.cursor)
            return issued
        with self._node.store.transaction() as tx:
            card, served = self._admitted(tx, partner, name)
            self._record_decisions(tx, served)
            head, issued = self._present(tx, served, card)
            return issued or self._issue(tx, served, head, card)

    def page(self, partner: str, name: str, cursor: Cursor) -> SealedPage | None:
        """The next page for a partner that asks from its cursor, or None when it is up to date.

        Logged before it leaves. Partners of one class get the same body.
        """
        now = self._node.clock()
        # 1. Who asks, what it may see, and which page that makes. If another of its class has had that page, it leaves.
        with self.refusals_on_record(partner, name), self._node.store.transaction() as tx:
            asked = self._asked(tx, partner, name, cursor)
            body = self._bodies.fresh_for(asked.place, partner, now)
            if body is not None:
                return self._record(tx, asked, body, EventKind.PAGE_SERVED)
        # 2. Else it is decided, packed and sealed, by one thread alone while others of the class wait for it.
        with self._bodies.alone(asked.place):
            body = self._bodies.fresh_for(asked.place, partner, now) or self._make(partner, name, cursor)
        # 3. One commit: what left, for whom, under which view. A crash before this line sends nothing.
        with self._node.store.transaction() as tx:
            if body is None:
                self._note_follower(tx, asked.served, partner, cursor)
                return None
            return self._record(tx, self._asked(tx, partner, name, cursor), body, EventKind.PAGE_SERVED)

    def rest(self, partner: str, name: str, cursor: Cursor, tag: str) -> SealedPage | None:
        """The page that a partner was sent under an entity tag, if it may still have it; None: it asks anew.

        It is on record already. It goes on only under the same view, and while none of its entries was replaced.
        """
        with self._node.store.reading() as tx:
            asked = self._asked(tx, partner, name, cursor)
            body = self._bodies.sent_to(partner, tag, self._node.clock())
            place = asked.place
            if body is None or body.place.state[0] != place.state[0]:
                return None
            if replace(body.place, state=place.state, until=place.until) != place:
                return None
            seq, end = body.place.state[1], body.head.end
            outdated = self._drafter.is_outdated(tx, asked.served, seq=seq, end=end)
            return None if outdated else _sealed_page(body, asked.card)

    def page_to_push(self, partner: str, name: str, cursor: Cursor, *, room: int | None = None) -> SealedPage | None:
        """The next page for a partner whose mirror stands at a cursor, queued and logged before it leaves, or None.

        A message of its own: what is pushed goes to one partner, and is kept until its receipt is here.

        Args:
            room: how many changes it may have at most, where less than the settings say.
        """

        def gather(tx: Transaction, served: ServedSet) -> tuple[Draft | None, list[View]]:
            place = self._asked(tx, partner, name, cursor).place
            return self._drafter.page(tx, served, cursor, place.until, min(place.room, room or place.room))

        with self.refusals_on_record(partner, name), self._node.store.reading() as tx:
            card, _ = self._admitted(tx, partner, name)
        return self.deliver(card, name, cursor, gather, kind=EventKind.PAGE_SENT)

    def deliver(
        self, partner: IdentityCard, name: str, cursor: Cursor, gather: Gather, *, kind: EventKind
    ) -> SealedPage | None:
        """A page for one partner alone, sealed and on record; None where `gather` finds nothing to bring.

        Args:
            cursor: where the partner stands.
            gather: what goes into the page, and the views that its ends name.
            kind: PAGE_SERVED when the partner asked, PAGE_SENT when we push.
        """
        # 1. Decide and gather, in one short read.
        with self._shelf.reading(self._node.store) as tx:
            asked = self._asked(tx, partner.agency, name, cursor, whole=False)
            draft, views = gather(tx, asked.served)
        if draft is None:
            with self._node.store.transaction() as tx:
                self._note_follower(tx, asked.served, partner.agency, cursor)
            return None
        # 2. Seal, with no transaction open.
        body = self._seal(draft, views, asked.place)
        # 3. One commit: what left, for whom, under which view. A crash before this line sends nothing.
        with self._node.store.transaction() as tx:
            return self._record(tx, self._asked(tx, partner.agency, name, cursor, whole=False), body, kind)

    def tidy(self) -> None:
        """Drop sealed pages that nobody will ask for any more."""
        self._bodies.tidy(self._node.clock())

    def to_recall(self, partner: IdentityCard) -> list[str]:
        """Own sets of which a partner is known to hold what it may not hold any more."""
        with self._node.store.reading() as tx:
            row = active(self._node, tx, partner.agency)
            own = [one for one in tx.sets.stored() if not one.hub and may_move(self._node, row, one.name)]
            served = [self._served(tx, one, partner, tested=True) for one in own]
            return [one.hash_set.name for one in served if self._holds_too_much(tx, one)]

    def _holds_too_much(self, tx: Transaction, served: ServedSet) -> bool:
        follower = tx.sets.follower(served.id, served.partner)
        if follower is None or not _may_hold(follower):
            return False
        # What it said that it holds; and what its last head names, of which it may have been sent something since.
        issued = tx.sets.head_content(served.id, served.partner)
        views = {follower.view, _issued_cursor(issued).view if issued else NO_VIEW}
        return any(self._has_lost(tx, served, view) for view in views)

    def _has_lost(self, tx: Transaction, served: ServedSet, view: str) -> bool:
        """Whether a view that a partner was given shows more of anything than it may see now."""
        stored = tx.sets.view(served.id, served.partner, view)
        given = View.parse(stored.encode()).labels if stored else {}
        now = {number: shown.groups for number, shown in served.view.labels.items()}
        return any(not shown.groups <= now.get(number, frozenset()) for number, shown in given.items())

    def drop_outdated(self, partner: IdentityCard) -> None:
        """End pages on their way to a partner that may hold what it may not see any more: they go on no further.

        They were made under the head that it was last given, or under one before; `_issue` ended the latter.
        """
        with self._node.store.reading() as tx:
            row = active(self._node, tx, partner.agency)
            outdated = []
            for name in sorted({one.subject for one in tx.mail.waiting(partner.agency)}):
                found = tx.sets.find_served(name)
                if found is None:
                    continue
                served = self._served(tx, found, partner, tested=may_move(self._node, row, name))
                issued = tx.sets.head_content(served.id, partner.agency)
                if issued is not None and self._has_lost(tx, served, _issued_cursor(issued).view):
                    outdated.append(name)
        if outdated:
            with self._node.store.transaction() as tx:
                for name in outdated:
                    tx.mail.end_pages(name, NARROWED, partner.agency)

    def horizon(self, tx: Transaction, set_id: int) -> int:
        """The seq up to which what was replaced or withdrawn may be forgotten: a follower that stands before it, and
        began before it, gets no delta any more. It compares, or begins anew."""
        return tx.sets.by_id(set_id).horizon

    def confirm(self, partner: IdentityCard, message_id: str, receipt: bytes, end: Cursor | None) -> None:
        """Keep the verified receipt of a page that was pushed; `end` is where the partner now stands."""
        proof = parse_canonical(receipt, max_bytes=MAX_RECEIPT_BYTES)
        assert isinstance(proof, dict), "the receipt was verified"
        with self._node.store.transaction() as tx:
            sent = tx.mail.sent(message_id)
            if sent is None or sent.state == "received":
                return
            tx.mail.close(message_id, state="received", receipt=receipt)
            found = tx.sets.find_served(sent.subject)
            if end is not None and found is not None:
                self._note_follower(tx, self._served(tx, found, partner, tested=True), partner.agency, end)
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

    def _record(self, tx: Transaction, asked: _Asked, body: Body, kind: EventKind) -> SealedPage:
        """The page for one partner, on record in the transaction in which it was asked whether it may have it."""
        served = asked.served
        if served.view.digest != body.head.target:
            raise ConflictError("policy has changed the view meanwhile", remedy="ask for the feed head again")
        self._record_decisions(tx, served)
        page = _sealed_page(body, asked.card)
        for view in body.views:
            if view.digest != asked.given:
                tx.sets.put_view(served.id, served.partner, view.digest, view.dump().decode())
        cursor = body.place.cursor
        # Whoever begins holds what was current when its first page was made.
        begins = body.place.state[1] if body.head.reset or cursor.view == NO_VIEW else None
        self._note_follower(tx, served, served.partner, cursor, begins=begins)
        if kind is EventKind.PAGE_SENT:
            tx.mail.queue(self._outbox_row(asked.card, page))
        self._duties.page_left(tx, served.hash_set, served.partner, page.head, body.entries)
        tx.log.append([self._page_event(kind, page, body, served)])
        return page

    def _note_follower(
        self, tx: Transaction, served: ServedSet, partner: str, cursor: Cursor, *, begins: int | None = None
    ) -> None:
        """What a partner says that it holds is what we know of it.

        Args:
            begins: the set's seq, where the partner begins to hold it.
        """
        row = Follower(
            set_id=served.id,
            partner=partner,
            epoch=cursor.epoch,
            view=cursor.view,
            seq=cursor.seq,
            at=self._node.clock(),
            since=begins or 0,
        )
        tx.sets.put_follower(row, begins=begins is not None)

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

    def visible(self, tx: Transaction, name: str, partner: IdentityCard) -> ServedSet:
        """A set that the partner may see here; absent and forbidden look the same."""
        found = tx.sets.find_served(name)
        if found is not None and not tx.people.is_paused(partner.agency):
            tested = may_exchange(self._node, tx, partner.agency, name)
            served = self._served(tx, found, partner, tested=tested)
            if served.visible:
                self._check_carried(tx, found)
                return served
        raise NotFoundError("no such set")

    def _check_carried(self, tx: Transaction, hash_set: HashSet) -> None:
        """Returns when all that a set lists stands under its epoch (`epochs`); asked once for each new epoch."""
        place = hash_set.id or 0, hash_set.epoch
        if hash_set.epoch > 1 and place not in self._carried:
            if tx.blocks.of_earlier_epochs(*place):
                raise OverloadedError("the set is being carried into its new epoch")
            self._carried.add(place)

    def _admitted(self, tx: Transaction, partner: str, name: str) -> tuple[IdentityCard, ServedSet]:
        """A partner that may exchange now, and an own set that it may see; absent and forbidden look the same."""
        row = active(self._node, tx, partner)
        card, found = card_in(row), tx.sets.find_served(name)
        if found is not None:
            served = self._served(tx, found, card, tested=may_move(self._node, row, name))
            if served.visible:
                self._check_carried(tx, found)
                return card, served
        raise NotFoundError("no such set")

    def _served(self, tx: Transaction, hash_set: HashSet, partner: IdentityCard, *, tested: bool) -> ServedSet:
        """A set as a partner sees it; never its owner, nor whom it came from, nor real data one under test."""
        others = {hash_set.name.split("/")[0], tx.sets.by_id(hash_set.relays).hub if hash_set.relays else ""}
        if not tested or partner.agency in others:
            return ServedSet(hash_set, partner.agency, View({}), self._audiences.labels(tx, hash_set), {})
        sight = self._audiences.sight(tx, hash_set, PartnerRef(partner.agency, partner.jurisdiction))
        recalled = not sight.view.labels and _may_hold(tx.sets.follower(hash_set.id or 0, partner.agency))
        policy = sight.policy.digest
        return ServedSet(hash_set, partner.agency, sight.view, sight.labels, sight.rights, policy, recalled)

    # Decision receipts

    @contextmanager
    def refusals_on_record(self, partner: str, name: str) -> Iterator[None]:
        """Where a partner gets no answer because policy shows it nothing of a set, that is on record."""
        try:
            yield
        except NotFoundError:
            with self._node.store.reading() as tx:
                row, hash_set = find(self._node, tx, partner), tx.sets.find_served(name)
                if row is None or row.state != ACTIVE or hash_set is None:
                    raise
                card = card_in(row)
                served = self._served(tx, hash_set, card, tested=may_move(self._node, row, name))
                due = not self._is_on_record(tx, served)
            if due:
                self._put_on_record(card, [name])
            raise

    def _put_on_record(self, partner: IdentityCard, names: Iterable[str]) -> None:
        """What policy says now of these sets is on record."""
        with self._node.store.transaction() as tx:
            for name in names:
                found, tested = tx.sets.find_served(name), may_exchange(self._node, tx, partner.agency, name)
                if found is not None:
                    self._record_decisions(tx, self._served(tx, found, partner, tested=tested))

    def _is_on_record(self, tx: Transaction, served: ServedSet) -> bool:
        """Whether there is a receipt for all that policy says of a set to a partner."""
        return not served.rights or self._decisions.are_on_record(
            tx, _site(served), lambda: _answers(served), served.rights
        )

    def _record_decisions(self, tx: Transaction, served: ServedSet) -> None:
        if not self._is_on_record(tx, served):
            self._decisions.record(tx, _site(served), _answers(served))

    # The feed head

    def _present(self, tx: Transaction, served: ServedSet, partner: IdentityCard) -> tuple[FeedHead, SealedHead | None]:
        """What a head would say now, and the one issued before if it says so still."""
        count, state = self._audiences.counted(tx, served.hash_set, served.view)
        now = self._node.clock()
        head = FeedHead(
            hub=self._node.agency,
            set_name=served.hash_set.name,
            partner=partner.agency,
            purpose=served.hash_set.purpose,
            cursor=served.cursor,
            count=count,
            state=state,
            key=self._audiences.key(tx, served.hash_set).hex(),
            issued=now,
            expires=now + self._node.settings.head_lifetime_hours * 3600,
        )
        issued = tx.sets.head(served.id, partner.agency)
        if issued is None:
            return head, None
        held = replace(head, issued=issued.issued, expires=issued.expires)
        if not self._still_true(issued, held, now, partner):
            return head, None
        return head, SealedHead(held, issued.etag, issued.sealed)

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
            events.insert(0, self._view_event(served, old_view))
            if self._has_lost(tx, served, old_view):
                tx.mail.end_pages(head.set_name, NARROWED, partner.agency)
                self._begin_recall(tx, served, old_view)
        tx.log.append(events)
        return SealedHead(head, etag, body)

    def _begin_recall(self, tx: Transaction, served: ServedSet, old_view: str) -> None:
        """What a partner may hold and may not hold any more is taken back, and it will say that it is gone."""
        stored = tx.sets.view(served.id, served.partner, old_view)
        if stored is None or not _may_hold(tx.sets.follower(served.id, served.partner)):
            return
        now = served.view.labels
        given = View.parse(stored.encode()).labels
        lost = [n for n, shown in given.items() if n not in now or not shown.groups <= now[n].groups]
        count = Sums(tx, served.id, self._audiences.key(tx, served.hash_set)).entries(lost)
        span = Span(served.hash_set.epoch, 1, served.hash_set.seq, old_view)
        if count:
            begin(self._node, tx, served.hash_set, Taken(span, Cause(RECALLED), count), {served.partner: count})

    # The page

    def _asked(self, tx: Transaction, partner: str, name: str, cursor: Cursor, *, whole: bool = True) -> _Asked:
        """Who asks for a page from a cursor, and everything that decides which one that is.

        Args:
            whole: whether it is to bring everything since the cursor, so that history must reach back to it.

        Raises:
            StaleCursorError: history does not.
        """
        card, served = self._admitted(tx, partner, name)
        issued = tx.sets.head_content(served.id, partner)
        if issued is None:
            raise NotFoundError("ask for the feed head first")
        stands, hash_set = _issued_cursor(issued), served.hash_set
        # The view of a head was given with it; any other must be looked up.
        known = cursor.view in (NO_VIEW, stands.view) or tx.sets.view(served.id, partner, cursor.view) is not None
        is_old = known and cursor.view != NO_VIEW and cursor.epoch == hash_set.epoch and cursor.seq < hash_set.horizon
        if whole and is_old:
            follower = tx.sets.follower(served.id, partner)
            if follower is None or follower.since < hash_set.horizon:
                raise StaleCursorError(
                    "what was withdrawn since this cursor is no longer known", cursor=START.to_json()
                )
        place = Place(
            set_id=served.id,
            state=(hash_set.epoch, hash_set.seq),
            view=served.view.digest,
            policy=self._node.policy.digest,
            cursor=cursor,
            known=known,
            until=stands.seq,
            room=self._node.settings.page_changes,
            signing_key=self._node.keystore.signing_key.public.key_set_id,
        )
        return _Asked(card, served, place, stands.view)

    def _make(self, partner: str, name: str, cursor: Cursor) -> Body | None:
        """A page for a class, kept for the next of it; None when there is nothing to bring."""
        with self._shelf.reading(self._node.store) as tx:
            asked = self._asked(tx, partner, name, cursor)
            draft, views = self._drafter.page(tx, asked.served, cursor, asked.place.until, asked.place.room)
        if draft is None:
            return None
        body = self._seal(draft, views, asked.place)
        self._bodies.keep(body)
        return body

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

    def _seal(self, draft: Draft, views: Sequence[View], place: Place) -> Body:
        """The page packed, signed and sealed; what is left to make is a header for each partner."""
        raw = BytesIO()
        dump_page(draft.head, draft.blocks, raw)
        head = draft.head
        expires = self._node.clock() + self._node.settings.head_lifetime_hours * 3600
        span = (head.end.epoch, min(head.start.seq, head.end.seq), head.end.seq)
        audience = envelope.view_audience(head.target)
        manifest = self._manifest(audience, head.set_name, span, expires=expires, payload_type=PAGE_TYPE)
        octets = BytesIO()
        raw.seek(0)
        sealed = envelope.seal(manifest, raw, octets, self._node.keystore.signing_key, self._node.random)
        page_digest = hashlib.sha256(raw.getbuffer()).hexdigest()
        return Body(place, head, views, sealed, octets.getvalue(), page_digest, self._node.clock(), _entries(draft))

    def _page_event(self, kind: EventKind, page: SealedPage, body: Body, served: ServedSet) -> Event:
        head, partner = page.head, served.partner
        details: dict[str, object] = {
            "partner": partner,
            "message_id": page.message_id,
            "manifest_digest": page.manifest_digest,
            "withheld": len(served.labels) - len(served.view.labels),
            "set": head.set_name,
            "epoch": head.end.epoch,
            "from_seq": head.start.seq,
            "until_seq": head.end.seq,
            "view": head.end.view,
            "page_digest": body.page_digest,
            "changes": head.changes,
        }
        return self._node.event(kind, actor=self._node.agency, subject=partner, details=details)

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

    def _view_event(self, served: ServedSet, old_view: str) -> Event:
        details = {
            "partner": served.partner,
            "set": served.hash_set.name,
            "old_view": old_view,
            "new_view": served.view.digest,
        }
        return self._node.event(
            EventKind.VIEW_CHANGED, actor=self._node.agency, subject=served.partner, details=details
        )


def _site(served: ServedSet) -> Site:
    return Site(served.id, served.hash_set.name, served.partner, SHARE, served.policy)


def _answers(served: ServedSet) -> Answers:
    return {number: (served.labels[number][0].digest, rights) for number, rights in served.rights.items()}


def _may_hold(row: Follower | None) -> bool:
    """Whether a partner may hold anything: it was served, and has not confirmed that all of it is gone."""
    return row is not None and row.view != EMPTY_VIEW.digest


def _noted(row: Follower | None) -> Cursor | None:
    return None if row is None else Cursor(row.epoch, row.view, row.seq)


@lru_cache(maxsize=1024)
def _issued_cursor(content: str) -> Cursor:
    """Where a stored feed head says that the set stands; the same head is met at every page."""
    return FeedHead.parse(content.encode()).cursor


def _entries(draft: Draft) -> dict[int, int]:
    """How many entries a page brings, by label."""
    found: dict[int, int] = {}
    for block in draft.blocks:
        if block.header.label != REMOVALS:
            found[block.header.label] = found.get(block.header.label, 0) + block.header.count
    return found


def _sealed_page(body: Body, partner: IdentityCard) -> SealedPage:
    header, tag = body.header_for(partner.agency, partner.opening)
    manifest = body.sealed.manifest
    return SealedPage(body.head, manifest.message_id, body.sealed.manifest_digest, header, body.octets, tag)


def head_etag(head: FeedHead, keys: Sequence[SealingKey]) -> str:
    """Names a head as sealed for these keys of the partner."""
    return hashlib.sha256((head.digest + "".join(key.key_id for key in keys)).encode()).hexdigest()
