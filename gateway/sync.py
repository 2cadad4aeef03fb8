"""Following partners' feeds and pushing our own, on request and on a schedule.

`PartnerLink` is what it needs of the network: `client` speaks HTTP, a simulation speaks in memory. Blocking work goes
through `run` (a thread in the server, a plain call in a simulation).

The schedule's truth is in the database: APScheduler only wakes. A due run is claimed by a lease with a fencing number,
so two nodes never run one slot and a node that died is taken over when its lease ends. A partner that fails is asked
again later and later; slots missed while nobody ran are caught up by one run.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from apscheduler.schedulers.asyncio import AsyncIOScheduler

from gateway import activation, keyring, ownkeys, standing
from gateway.audit import EventKind
from gateway.client import BrokenOffError
from gateway.crypto import canonical
from gateway.errors import (
    ConfigError,
    ConflictError,
    DeniedError,
    GatewayError,
    MalformedError,
    NotFoundError,
    OverloadedError,
    PartnerError,
    StaleCursorError,
    VerificationError,
)
from gateway.exchange import CURSOR_MEDIA_TYPE, RECEIPT_MEDIA_TYPE, Exchange, holding, largevalues
from gateway.gossip import ToldLog
from gateway.interchange import START, Cursor, FeedHead, IdentityCard, KeyConfirmation
from gateway.model import SET_NAME
from gateway.reconcile import CompareReport, Reconciler
from gateway.store.schedule import MAX_BACKOFF_SECONDS
from gateway.store.tables import ScheduleRow
from gateway.witness import is_forked

T = TypeVar("T")
LOG = logging.getLogger(__name__)
MAX_VIEW_CHANGES = 5  # policy that moves more often than this during one pull waits for the next
MAX_PAGES = 10_000  # 600 million changes: a hub that has more never ends
FIRST_CHANGES = 4_096  # of the first page that we send: three seconds at 1 Mbit/s
MAX_CHANGES = 65_536  # as many as any page has
LEAST_CHANGES = 64  # a page costs two signatures, a receipt and a round trip
GROWTH = 4
PAGE_SECONDS = 20  # what is lost at most when the link breaks, and well below what any time limit allows
MAX_BROKEN = 5  # pages one after the other that do not get through
LEASE_SECONDS = 300  # how long a node that died keeps others waiting; a run that moves nothing ends a little before
BEATS_OF_A_LEASE = 10  # how often in that time a run shows that it goes on
WAKE_SECONDS = 2
MAX_RUNS_AT_ONCE = 8  # partners asked at the same time: each run may hold one page in memory
MAX_SLOW_RUNS = 24  # … and so many more on slow links, which keep nobody else waiting
DELIVER_SECONDS = 30  # of one partner, while a person waits for it
SLOW_RUN_SECONDS = 300  # a run that goes on for longer is on a slow link, or brings a great deal
JITTER_PERCENT = 10  # so that partners that started together do not ask together


class PartnerLink(Protocol):
    """One partner over some network. Failures are GatewayErrors: the partner's own words, or PartnerError."""

    @property
    def moved_bytes(self) -> int:
        """How much has come and gone so far: as long as it grows, the link is alive."""

    async def sets(self) -> list[dict[str, object]]:
        """The sets that the partner offers us."""

    async def head(self, set_name: str, etag: str) -> tuple[str, bytes] | None:
        """(entity tag, sealed feed head), None when it is still the one of `etag`."""

    async def changes(self, set_name: str, cursor: Cursor) -> bytes | None:
        """The sealed page after a cursor, None when there is nothing to bring."""

    async def post_envelope(self, body: bytes) -> tuple[str, bytes]:
        """(media type, body) of the partner's answer to an envelope."""

    async def mailbox(self, after: int) -> bytes | None:
        """Sealed mailbox messages above a number, None without any."""

    async def checkpoint(self) -> bytes:
        """The newest checkpoint of the partner's log, unverified."""

    async def consistency(self, old: int, new: int) -> tuple[bytes, ...]:
        """The hashes by which the partner shows that its log of `new` leaves extends that of `old`, unverified."""

    async def post_cosignature(self, body: bytes) -> None:
        """The partner has taken our cosignature of its checkpoint."""

    async def witnessed(self) -> tuple[ToldLog, ...]:
        """Third agencies' logs, and ours, as the partner witnessed them, unverified."""

    async def compare(self, set_name: str, body: bytes) -> bytes | None:
        """The partner's sealed answer to a question of comparison 1, None where there is nothing to bring."""

    async def keys(self, held: KeyConfirmation) -> bytes | None:
        """What the partner says of its keys beyond what we hold of them, None when we hold everything."""

    async def post_keys(self, news: bytes) -> KeyConfirmation:
        """Tell the partner of our keys; returns what it holds of them then."""


LinkFor = Callable[[IdentityCard], AbstractAsyncContextManager[PartnerLink]]


class Run(Protocol):
    """How blocking work is run."""

    async def __call__(self, function: Callable[..., T], /, *args: object) -> T:
        """The function's result."""


@dataclass(slots=True)
class PushReport:
    """What a push did: pages and changes that the partner confirmed, and their receipts by message id."""

    partner: str
    set_name: str
    pages: int = 0
    changes: int = 0
    sent_bytes: int = 0
    receipts: dict[str, bytes] = field(default_factory=dict)


@dataclass(slots=True)
class PullReport:
    """What a pull of one set did. `lag` is how many changes the mirror still is behind its hub."""

    partner: str
    set_name: str
    pages: int = 0
    changes: int = 0
    refused: int = 0
    received_bytes: int = 0
    equality: str = "unknown"
    lag: int = 0


OnPage = Callable[[int, int], None]


def _quiet(_done: int, _total: int) -> None:
    """Nobody watches."""


class Pace:
    """How many changes a page may have that we send, so that it goes in some seconds however slow the link is.

    A page that breaks off is sent again whole, so on a slow link pages are small. It begins small, grows as pages go
    quickly, and shrinks for good where they do not get through.
    """

    def __init__(self) -> None:
        self.room = FIRST_CHANGES
        self._most = MAX_CHANGES
        self.broken = 0

    def went(self, changes: int, seconds: float) -> None:
        """A page of so many changes went in so many seconds, its receipt included."""
        self.broken = 0
        at_this_rate = int(changes / max(seconds, 0.001) * PAGE_SECONDS)
        self.room = max(LEAST_CHANGES, min(at_this_rate, GROWTH * self.room, self._most))

    def shrink(self) -> bool:
        """A page did not get through; whether a smaller one is worth a try."""
        self.broken += 1
        self._most = self.room = max(LEAST_CHANGES, self.room // GROWTH)
        return self.broken < MAX_BROKEN


class PartnerSync:
    """All dealings with one partner over one link.

    Args:
        on_page: told (seq reached, seq of the head) after each page.
        run: how blocking work is run.
    """

    def __init__(
        self,
        exchange: Exchange,
        link: PartnerLink,
        partner: str,
        *,
        on_page: OnPage = _quiet,
        run: Run = asyncio.to_thread,
    ) -> None:
        self._exchange = exchange
        self._link = link
        self._partner = partner
        self._on_page = on_page
        self._run = run
        self._keys_agreed = False

    async def push(self, set_name: str) -> PushReport:
        """Bring the partner's mirror of our set to where we are; every page is answered by a receipt that verifies."""
        report = PushReport(self._partner, set_name)
        await self.exchange_keys()
        # 1. What was on its way when something broke goes first: the same bytes, so the partner knows it again.
        await self._resend(report)
        pace, conflicts = Pace(), 0
        while conflicts < MAX_VIEW_CHANGES:
            # 2. Announce the head; the answer says where the partner stands.
            head = await self._run(self._exchange.head_for, self._partner, set_name)
            cursor = _cursor(*await self._link.post_envelope(head.body))
            if pace.broken:
                await self._drop_what_broke(set_name, cursor)
            # 3. Page by page; each is queued and logged before it leaves.
            try:
                await self._push_pages(report, head.head, cursor, pace)
            except ConflictError:
                conflicts += 1  # the partner moved, or policy changed the view: announce again
                continue
            except BrokenOffError:
                if not pace.shrink():
                    raise
                continue  # smaller pages may get through
            return report
        raise ConflictError("the partner's position or our policy keeps moving", remedy="try again later")

    async def pull(self, only: str | None = None) -> list[PullReport]:
        """Bring our mirrors of the partner's sets (or of one of them) to where the partner is."""
        await self.exchange_keys()
        names = []
        for offered in await self._link.sets():
            name = offered.get("set")
            if not isinstance(name, str) or not SET_NAME.fullmatch(name):
                raise MalformedError("the partner offers a set without a proper name")
            if only not in (None, name):
                continue
            # One by name is asked for although the partner is under test here, and refused with the reason.
            if only is not None or await self._run(self._exchange.mirrors.may_follow, self._partner, name):
                names.append(name)
        if only is not None and not names:
            raise NotFoundError("the partner offers no such set")
        reports: list[PullReport] = []
        failures: list[GatewayError] = []
        for name in names:
            try:
                reports.append(await self.pull_set(name))
            except GatewayError as error:  # one set that cannot be followed keeps no other waiting
                failures.append(error)
        if failures:
            raise failures[0]
        return reports

    async def pull_set(self, set_name: str) -> PullReport:
        """Bring our mirror of one set to where its hub is, and compare both."""
        report = PullReport(self._partner, set_name)
        use_tag = True
        await self._run(self._exchange.mirrors.review, set_name)
        for _ in range(MAX_VIEW_CHANGES):
            # 1. Where does the hub stand? A head that is still true comes without a body.
            head = await self._head(set_name, use_tag=use_tag)
            # 2. Page by page from our cursor; page and cursor commit together.
            try:
                await self._enter_epoch(report, head)
                await self._pull_pages(report, head)
            except ConflictError as error:
                if isinstance(error, StaleCursorError) and error.cursor == START.to_json():
                    # What was withdrawn since our cursor is no longer remembered there: comparing tells what went.
                    await self._reconcile(report, repair=True)
                    return report
                use_tag = False
                continue  # policy over there changed the view meanwhile: ask for the new head
            # 3. Both sides hold the same, or a change came in between and the next head will tell.
            if report.equality != "different":
                return report
            if not use_tag:
                # 4. They do not: find what differs, and repair it.
                await self._reconcile(report, repair=True)
                return report
            use_tag = False
        return report

    async def compare(self, set_name: str, *, repair: bool) -> CompareReport:
        """Compare our mirror of a set with its hub, entry by entry where sums differ; repair it if asked to."""
        await self.exchange_keys()
        report = PullReport(self._partner, set_name)
        head = await self._head(set_name, use_tag=False)
        cursor = await self._run(self._exchange.mirrors.cursor, set_name)
        if cursor.epoch != head.cursor.epoch:
            raise ConflictError("the mirror does not stand in the epoch of its hub", remedy="pull the set first")
        await self._pull_pages(report, head)
        return await self._reconcile(report, repair=repair)

    async def _reconcile(self, report: PullReport, *, repair: bool) -> CompareReport:
        async def follow() -> None:
            head = await self._head(report.set_name, use_tag=False)
            cursor = await self._run(self._exchange.mirrors.cursor, report.set_name)
            if cursor.epoch == head.cursor.epoch:
                await self._pull_pages(report, head)

        reconciler = Reconciler(self._exchange, self._link, self._partner, self._run)
        found = await reconciler.compare(report.set_name, follow, repair=repair)
        report.equality = await self._run(self._exchange.mirrors.equality, report.set_name)
        return found

    async def _enter_epoch(self, report: PullReport, head: FeedHead) -> None:
        """Where the hub began anew from a backup: give back what it lost, and move over without copying everything."""
        cursor = await self._run(self._exchange.mirrors.cursor, report.set_name)
        if cursor.epoch in (0, head.cursor.epoch):
            return
        if not report.set_name.startswith(f"{self._partner}/"):
            # Who passes a set on has lost nothing of its own.
            await self._run(self._exchange.mirrors.begin_anew, self._partner, report.set_name)
            return
        reconciler = Reconciler(self._exchange, self._link, self._partner, self._run)
        await reconciler.offer_withdrawals(report.set_name)
        await self._reconcile(report, repair=True)
        raise ConflictError("the hub has begun a new epoch")  # its head says more by now

    async def sync(self) -> list[PullReport]:
        """Everything there is to do: pages on their way, mailboxes both ways, feeds.

        A part that fails keeps no other part waiting; the first failure is raised when all had their turn.
        """
        failures: list[GatewayError] = []
        reports: list[PullReport] = []
        # Mail goes again at the end: what we have to say about what came (a withdrawal that took effect) goes at once.
        await self.exchange_keys()  # without agreement about keys nothing else can succeed
        try:
            await self.witness()
        except VerificationError:
            raise  # its log forked: nothing goes to this partner any more, and nothing is taken from it
        except GatewayError as error:
            failures.append(error)
        for part in (self._resend_waiting, self._recall, self.exchange_mail, self.pull, self._send_mail):
            try:
                reports = await part() or reports
            except GatewayError as error:
                failures.append(error)
        if failures:
            raise failures[0]
        return reports

    async def witness(self) -> None:
        """The partner's log extends what was seen of it and has our cosignature; what it witnessed itself is heard.

        Raises:
            VerificationError: the log does not; this is on record, and exchange with the partner is paused.
        """
        desk = self._exchange.witness
        contact = await self._run(desk.begin, self._partner)
        shown = await self._run(desk.read, contact, await self._asked(self._link.checkpoint()))
        proofs = {pair: await self._asked(self._link.consistency(*pair)) for pair in shown.wanted}
        body = await self._run(desk.take, contact, shown, proofs)
        if body is not None:
            await self._asked(self._link.post_cosignature(body))
            await self._run(desk.note_posted, contact, shown)
        await self._run(desk.hear_others, self._partner, await self._asked(self._link.witnessed()))

    async def _asked(self, answer: Awaitable[T]) -> T:
        """The partner's answer. A refusal is the partner's word, and no finding about its log."""
        try:
            return await answer
        except VerificationError as error:
            raise PartnerError("the partner refuses to have its log witnessed") from error

    async def exchange_keys(self) -> None:
        """Learn the partner's newer keys and tell it ours: once for each time we deal with it."""
        if self._keys_agreed:
            return
        held = await self._run(keyring.held_of, self._exchange.node, self._partner)
        theirs = await self._link.keys(held)
        if theirs is not None:
            held = await self._run(self._exchange.take_keys, self._partner, theirs)
            await self._link.keys(held)  # what we name as held is confirmed: it need not wait for the next time
        if not await self._run(keyring.has_all, self._exchange.node, self._partner):
            news = await self._run(keyring.own_news, self._exchange.node)
            answer = await self._link.post_keys(news.dump())
            await self._run(keyring.confirm, self._exchange.node, self._partner, answer)
        self._keys_agreed = True

    async def deliver(self) -> None:
        """Send what waits for the partner, and nothing else: what cannot wait for the next sync."""
        await self.exchange_keys()
        await self._send_mail()

    async def exchange_mail(self) -> None:
        """Send what waits for the partner, and fetch what it has for us."""
        await self._send_mail()
        for _ in range(MAX_PAGES):
            body = await self._link.mailbox(await self._run(self._exchange.mailbox.last_received, self._partner))
            if body is None:
                return
            await self._run(self._exchange.take_mail, self._partner, body)
        raise PartnerError("the partner's mailbox never ends")

    async def _send_mail(self) -> None:
        held: int | None = None
        for _ in range(MAX_PAGES):
            waiting = await self._run(self._exchange.mailbox.waiting, self._partner, held)
            if not waiting:
                return
            card = await self._run(self._exchange.card_of, self._partner)
            sealed = await self._run(self._exchange.mailbox.seal, card, waiting)
            try:
                receipt = await self._receipt(sealed.body)
            except StaleCursorError as error:
                if held is not None or error.cursor is None:
                    raise
                # It was restored, and has lost what it had confirmed: that goes again.
                held = Cursor.from_json(error.cursor).seq
                continue
            await self._run(self._exchange.confirm_mail, self._partner, waiting[-1].number, sealed, receipt)
            held = None if held is None else waiting[-1].number

    async def _recall(self) -> None:
        """What the partner may not hold any more is taken back now, also where it never asks us for news."""
        for name in await self._run(self._exchange.to_recall, self._partner):
            await self.push(name)

    async def _resend_waiting(self) -> None:
        await self._resend(PushReport(self._partner, ""))

    async def _resend(self, report: PushReport) -> None:
        for row in await self._run(self._exchange.waiting_pages, self._partner):
            try:
                receipt = await self._receipt(row.sealed)
            except (PartnerError, OverloadedError) as error:
                await self._run(self._exchange.note_failure, row.message_id, error.message)
                raise
            except (ConflictError, VerificationError, MalformedError, DeniedError, NotFoundError) as error:
                # It can never be taken any more (expired, or the mirror moved on): the next page is made anew.
                await self._run(self._exchange.give_up, row.message_id, error.message)
                continue
            try:
                await self._run(self._exchange.confirm_push, self._partner, row.message_id, receipt)
            except (MalformedError, VerificationError) as error:  # no proof: it goes again, and not for ever
                await self._run(self._exchange.note_failure, row.message_id, error.message)
                raise
            report.pages += 1
            report.receipts[row.message_id] = receipt

    async def _drop_what_broke(self, set_name: str, cursor: Cursor) -> None:
        """Give up pages whose sending broke off before the partner had them: smaller ones go in their place."""
        for row in await self._run(self._exchange.waiting_pages, self._partner):
            if row.subject == set_name and row.until_seq > cursor.seq:
                await self._run(self._exchange.give_up, row.message_id, "the connection broke off on its way")

    async def _push_pages(self, report: PushReport, head: FeedHead, cursor: Cursor, pace: Pace) -> None:
        for number in range(MAX_PAGES):
            page = None
            # Also asked when the partner has everything already: so we note that it has.
            if number == 0 or cursor != head.cursor:
                page = await self._run(self._exchange.page_to_push, self._partner, report.set_name, cursor, pace.room)
            if page is None:
                return
            began = asyncio.get_running_loop().time()
            try:
                receipt = await self._receipt(page.body)
            except ConflictError as error:
                await self._run(self._exchange.give_up, page.message_id, error.message)
                raise
            pace.went(page.head.changes, asyncio.get_running_loop().time() - began)
            cursor = page.head.end
            await self._run(self._exchange.confirm_push, self._partner, page.message_id, receipt, cursor)
            report.pages += 1
            report.changes += page.head.changes
            report.sent_bytes += len(page.body)
            report.receipts[page.message_id] = receipt
            self._on_page(cursor.seq, head.cursor.seq)

    async def _pull_pages(self, report: PullReport, head: FeedHead) -> None:
        for page in range(MAX_PAGES):
            cursor = await self._run(self._exchange.mirrors.cursor, report.set_name)
            report.lag = max(0, head.cursor.seq - cursor.seq)
            if cursor == head.cursor and page == 0:
                report.equality = await self._run(self._exchange.mirrors.equality, report.set_name)
                return
            # At the end we ask once more: our cursor tells the hub what we hold.
            body = await self._link.changes(report.set_name, cursor)
            if body is None:
                if cursor != head.cursor:
                    raise ConflictError("the hub has nothing more, but its head says otherwise")
                return
            applied = await self._run(self._exchange.take_page, self._partner, body)
            report.pages += 1
            report.changes += applied.changes
            report.refused += applied.refused
            report.received_bytes += len(body)
            report.equality = applied.equality
            self._on_page(applied.cursor.seq, head.cursor.seq)
        raise PartnerError("the partner's feed never ends")

    async def _head(self, set_name: str, *, use_tag: bool) -> FeedHead:
        held = await self._run(self._exchange.held_head, self._partner, set_name) if use_tag else None
        answer = await self._link.head(set_name, held[1] if held else "")
        if answer is not None:
            return await self._run(self._exchange.take_head, self._partner, answer[1])
        if held is None:
            raise PartnerError("the partner says that nothing changed, but was not asked so")
        return held[0]

    async def _receipt(self, sealed: bytes) -> bytes:
        media_type, receipt = await self._link.post_envelope(sealed)
        _check_media_type(media_type, RECEIPT_MEDIA_TYPE)
        return receipt


async def deliver_mail(
    exchange: Exchange, link_for: LinkFor, partners: Sequence[str], *, run: Run = asyncio.to_thread
) -> dict[str, str]:
    """Send what waits for some partners, now and side by side; by partner what went wrong, "" where it is there.

    What does not get through waits for the next sync, as everything in a mailbox does.
    """
    room = asyncio.Semaphore(MAX_SLOW_RUNS)

    async def one(partner: str) -> str:
        try:
            async with room, asyncio.timeout(DELIVER_SECONDS):
                card = await run(exchange.card_of, partner)
                async with link_for(card) as link:
                    await PartnerSync(exchange, link, partner, run=run).deliver()
        except GatewayError as error:
            return error.message
        except TimeoutError:
            return "the partner took too long"
        return ""

    return dict(zip(partners, await asyncio.gather(*map(one, partners)), strict=True))


def _cursor(media_type: str, body: bytes) -> Cursor:
    _check_media_type(media_type, CURSOR_MEDIA_TYPE)
    return Cursor.from_json(canonical.parse_json(body, max_bytes=4096))


def _check_media_type(found: str, expected: str) -> None:
    if found != expected:
        raise PartnerError("the partner answered with another kind of document than expected")


# The schedule


@dataclass(frozen=True, slots=True)
class JobStatus:
    """One line of `sync status`."""

    partner: str
    state: str
    last_success: int
    next_run: int
    lag_changes: int
    failures: int
    last_error: str


class Schedule:
    """Syncs every active partner at its interval."""

    def __init__(self, exchange: Exchange, link_for: LinkFor, *, owner: str = "", run: Run = asyncio.to_thread) -> None:
        self._exchange = exchange
        self._node = exchange.node
        self._link_for = link_for
        self._owner = owner or self._node.random.bytes(8).hex()
        self._run = run
        self._running: dict[asyncio.Task[GatewayError | None], float] = {}  # since when, by the loop's time
        self._waking: set[asyncio.Task[object]] = set()
        self._kept_house = -1

    def plan(self) -> None:
        """Give every active partner its job; drop the jobs of those that are gone."""
        interval = self._node.settings.sync_interval_seconds
        with self._node.store.reading() as tx:
            planned = {row.partner: row.interval_seconds for row in tx.schedule.jobs()}
            active = {row.agency: interval for row in tx.people.partners() if row.state == "active"}
        if planned == active:
            return
        with self._node.store.transaction() as tx:
            for partner in sorted(active):
                tx.schedule.put(f"sync {partner}", partner, interval, self._node.clock())
            for partner in sorted(planned.keys() - active.keys()):
                tx.schedule.remove(partner)

    async def tick(self) -> int:
        """Run what is due, to the end; returns how many runs were claimed."""
        runs = await self._start_due()
        await asyncio.gather(*runs)
        return len(runs)

    async def run_now(self, partner: str) -> None:
        """Run one partner's job whether due or not; ConflictError when it runs already."""
        await self._run(self.plan)
        await self._run(self._exchange.epochs.carry)
        jobs = {job.partner: job for job in await self._run(self._jobs)}
        if partner not in jobs:
            raise NotFoundError("no such partner is scheduled")
        fence = await self._run(self._claim, jobs[partner].job, True)
        if fence is None:
            raise ConflictError("this partner's sync is running now")
        error = await self._run_job(jobs[partner], fence)
        if error is not None:
            raise error

    async def run_forever(self) -> None:
        """Wake every few seconds and run what is due, until cancelled."""
        scheduler = AsyncIOScheduler(timezone="UTC")
        # A wake-up only starts runs, so that one slow partner keeps nobody waiting.
        scheduler.add_job(
            self._wake, "interval", seconds=WAKE_SECONDS, max_instances=1, coalesce=True, misfire_grace_time=None
        )
        scheduler.start()
        try:
            await asyncio.Event().wait()
        finally:
            scheduler.shutdown(wait=False)
            # A wake-up that was cut off may have started runs: it ends first.
            await asyncio.gather(*self._waking, return_exceptions=True)
            for run in list(self._running):
                run.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)

    async def _wake(self) -> None:
        """Start what is due; while the database cannot be written, the next wake-up tries again."""
        task = asyncio.current_task()
        assert task is not None, "the scheduler wakes us in a task"
        self._waking.add(task)
        task.add_done_callback(self._waking.discard)
        try:
            await self._start_due()
        except OverloadedError:
            LOG.warning("the schedule waits: the database cannot be written now")

    async def _start_due(self) -> list[asyncio.Task[GatewayError | None]]:
        """Claim what is due, as far as there is room for it, and start it."""
        await self._run(self._keep_in_step)
        await self._run(self._keep_house)
        await self._run(self.plan)
        started = []
        for job in await self._run(self._due):
            if not self._has_room():
                break
            fence = await self._run(self._claim, job.job, False)
            if fence is not None:
                run = asyncio.create_task(self._run_job(job, fence), name=job.job)
                self._running[run] = asyncio.get_running_loop().time()
                run.add_done_callback(self._running.pop)
                started.append(run)
        return started

    def _has_room(self) -> bool:
        """Whether another run may begin; those on slow links do not count, up to a bound of their own."""
        now = asyncio.get_running_loop().time()
        slow = sum(now - since > SLOW_RUN_SECONDS for since in self._running.values())
        return len(self._running) - min(slow, MAX_SLOW_RUNS) < MAX_RUNS_AT_ONCE

    def _keep_in_step(self) -> None:
        """The policy in force decides here, whichever node or command brought it into force, or whose day has come."""
        try:
            if activation.keep_in_step(self._node):
                LOG.warning("another policy is in force now")
        except ConfigError as error:
            LOG.warning("the policy folder does not hold what is in force: %s", error.message)

    def _keep_house(self) -> None:
        """Once a minute our own keys' due changes and small blocks; once an hour, whether rows are as the log says.

        A restored gateway carries its sets into their new epoch first.
        """
        minute = self._node.clock() // 60
        if minute == self._kept_house:
            return
        hour, self._kept_house = self._kept_house // 60, minute
        ownkeys.maintain(self._node)
        standing.keep_house(self._node)
        self._exchange.epochs.carry()
        self._exchange.server.tidy()
        self._exchange.collections.tidy()
        self._exchange.forwarding.keep_house()
        self._exchange.duties.keep_house()
        self._exchange.withdrawals.keep_house()
        self._exchange.statuses.keep_house()
        self._exchange.cases.keep_house()
        self._exchange.referrals.keep_house()
        self._exchange.compacting.keep_house()
        holding.keep_house(self._node, self._exchange.shelf)
        if minute // 60 != hour:
            with self._node.store.reading() as tx:
                standing.check(tx, self._node)
            self._exchange.recovering.keep_house()
            largevalues.tidy(self._node)
            self._exchange.statuses.notices.tell_new_holders()

    def status(self) -> list[JobStatus]:
        """What the schedule did and will do, by partner."""
        now = self._node.clock()
        with self._node.store.reading() as tx:
            lines = []
            for job in tx.schedule.jobs():
                state = "running" if job.lease_until > now else "failing" if job.failures else "waiting"
                if tx.people.is_paused(job.partner):
                    state = "forked" if is_forked(tx, job.partner) else "paused"
                lines.append(
                    JobStatus(
                        job.partner,
                        state,
                        job.last_success,
                        job.next_run,
                        job.lag_changes,
                        job.failures,
                        job.last_error,
                    )
                )
        return lines

    async def _run_job(self, job: ScheduleRow, fence: int) -> GatewayError | None:
        """One run under its lease; its outcome is written only while the lease is ours."""
        try:
            card = await self._run(self._exchange.card_of, job.partner)
            async with (
                asyncio.timeout(LEASE_SECONDS - 30) as end,
                self._link_for(card) as link,
                self._alive(job, fence, link, end),
            ):
                reports = await PartnerSync(self._exchange, link, job.partner, run=self._run).sync()
            if any(report.equality == "different" for report in reports):
                raise VerificationError("the two ends hold different entries of a set")
        except (GatewayError, TimeoutError) as caught:
            error = caught if isinstance(caught, GatewayError) else PartnerError("the run took too long")
            await self._run(self._failed, job, fence, error)
            return error
        except asyncio.CancelledError:
            # The server ends: whoever runs next need not wait for the lease to run out.
            await asyncio.shield(self._run(self._given_back, job, fence))
            raise
        except Exception:
            await self._run(self._failed, job, fence, GatewayError("an internal error ended the run"))
            raise
        await self._run(self._succeeded, job, fence, sum(report.lag for report in reports))
        return None

    @asynccontextmanager
    async def _alive(
        self, job: ScheduleRow, fence: int, link: PartnerLink, end: asyncio.Timeout
    ) -> AsyncIterator[None]:
        """While the block runs its lease is kept and its end put off, as long as its link moves anything.

        However long a transfer takes, it is cut off only when nothing of it comes any more, or when another node has
        taken the run over.
        """
        over = asyncio.Event()

        async def beat() -> None:
            moved, loop = link.moved_bytes, asyncio.get_running_loop()
            while True:
                with suppress(TimeoutError):
                    await asyncio.wait_for(over.wait(), LEASE_SECONDS / BEATS_OF_A_LEASE)
                    return
                if link.moved_bytes == moved:
                    continue
                moved, kept = link.moved_bytes, None
                with suppress(OverloadedError):  # the database is busy: the next beat tries again
                    kept = await self._run(self._renewed, job, fence)
                if kept is not None and not end.expired():
                    end.reschedule(loop.time() + (LEASE_SECONDS - 30 if kept else 0))

        heart = asyncio.create_task(beat())
        try:
            yield
        finally:
            # It is not cut off: a lease that is renewed after the run has ended would keep the partner waiting.
            over.set()
            await heart

    def _renewed(self, job: ScheduleRow, fence: int) -> bool:
        with self._node.store.transaction() as tx:
            return tx.schedule.renew(job.job, fence, self._node.clock(), LEASE_SECONDS)

    def _jobs(self) -> list[ScheduleRow]:
        with self._node.store.reading() as tx:
            return tx.schedule.jobs()

    def _due(self) -> list[ScheduleRow]:
        with self._node.store.reading() as tx:
            due = tx.schedule.due(self._node.clock(), LEASE_SECONDS)
            return [job for job in due if not tx.people.is_paused(job.partner)]

    def _claim(self, job: str, early: bool) -> int | None:
        with self._node.store.transaction() as tx:
            return tx.schedule.claim(job, self._owner, self._node.clock(), LEASE_SECONDS, only_due=not early)

    def _given_back(self, job: ScheduleRow, fence: int) -> None:
        with self._node.store.transaction() as tx:
            tx.schedule.give_back(job.job, fence)

    def _succeeded(self, job: ScheduleRow, fence: int, lag: int) -> None:
        now = self._node.clock()
        next_run = now + self._jittered(job.interval_seconds)
        with self._node.store.transaction() as tx:
            if tx.schedule.succeed(job.job, fence, now, next_run, lag):
                tx.people.touch_partner(job.partner, now)

    def _failed(self, job: ScheduleRow, fence: int, error: GatewayError) -> None:
        wait = min(MAX_BACKOFF_SECONDS, job.interval_seconds * 2 ** min(job.failures, 10))
        next_run = self._node.clock() + self._jittered(wait)
        details: dict[str, object] = {
            "partner": job.partner,
            "error": type(error).__name__,
            "reason": error.message,
            "attempts": job.failures + 1,
            "next_run": next_run,
        }
        event = self._node.event(EventKind.SYNC_FAILED, actor=self._node.agency, subject=job.partner, details=details)
        with self._node.store.transaction() as tx:
            if tx.schedule.fail(job.job, fence, next_run, f"{type(error).__name__}: {error.message}"):
                tx.log.append([event])

    def _jittered(self, seconds: int) -> int:
        spread = max(1, seconds * JITTER_PERCENT // 100)
        return max(1, seconds - spread + int.from_bytes(self._node.random.bytes(4), "big") % (2 * spread + 1))
