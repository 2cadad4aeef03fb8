"""Following an NCMEC-style server: its list becomes an own set, entry by entry, deletions included.

The server knows windows of time and no cursor (`adapters.ncmec_pages`). What is known here of where we stand is one
sealed value in the database (`sourcestate.State`).

Rules, since such servers are as they are:

1. `since` moves only when a window was read to its end: its entries are in no order.
2. A window ends `LAG_SECONDS` before now, and begins `OVERLAP_SECONDS` before the end of the last one: clocks differ,
   and what shares a second may come late. What comes twice changes nothing.
3. A page's name is good for `FOLLOWING_SECONDS`; where the server does not know it any more the window is begun again.
4. An entry is known by member and id. What ended there is withdrawn here, but not listed as never again: it may return.
   What is listed as never again here does not come in, whatever the server says.
5. Who serves another list or feeds another set begins at the beginning.
6. A run that fails is on record, and the next one comes later and later, an hour at most. Nothing is passed over to get
   on: a page that cannot be read may hold deletions. It is asked for again until somebody has looked (`alarms`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

from gateway import sourcestate
from gateway.adapters.ncmec import stamp
from gateway.adapters.ncmec_pages import SourcePage, parse_page
from gateway.audit import EventKind
from gateway.columns.block import decode
from gateway.columns.drafts import DraftBatch
from gateway.columns.rows import Rows, grouped
from gateway.errors import (
    ConfigError,
    ConflictError,
    DeniedError,
    GatewayError,
    MalformedError,
    NotFoundError,
    OverloadedError,
)
from gateway.exchange import Exchange, largevalues
from gateway.exchange.ledger import withdraw_entries
from gateway.exchange.shelf import block_id
from gateway.exchange.withdrawals import Cause
from gateway.model import AdapterReport, EntryDraft
from gateway.sourcestate import SCOPE, State
from gateway.store import Transaction
from gateway.store.schedule import MAX_BACKOFF_SECONDS

T = TypeVar("T")
LOG = logging.getLogger(__name__)
ACTOR = "hash-sharing source"
LAG_SECONDS = 60
OVERLAP_SECONDS = 60
FOLLOWING_SECONDS = 12 * 3600  # NCMEC advises against keeping them longer
WAKE_SECONDS = 10
JITTER_PERCENT = 10  # so that gateways that began together do not ask together
ENDED = Cause("deleted by the server that it came from")
MAX_PAGES = 20_000  # of one run: twenty million entries


class SourceLink(Protocol):
    """The server over some network. Failures are GatewayErrors."""

    async def page(self, path: str) -> bytes:
        """The answer to a GET of the base URL and this path and query: a page of entries, or a large fingerprint."""


class Run(Protocol):
    """How blocking work is run."""

    def __call__(self, function: Callable[..., T], /, *args: object) -> Awaitable[T]:
        """The function's result."""


@dataclass(slots=True)
class Followed:
    """What a run brought."""

    pages: int = 0
    added: int = 0
    updated: int = 0
    unchanged: int = 0
    withdrawn: int = 0
    fingerprints: int = 0
    report: AdapterReport = field(default_factory=lambda: AdapterReport("ncmec"))


class Sourcing:
    """Follows the server of the settings. Its methods block."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._node = exchange.node
        settings = exchange.node.settings
        if not settings.hashsharing_url:
            raise ConfigError("there is no server to follow", place="hashsharing_url")
        self._set = settings.hashsharing_set

    def state(self) -> State:
        """Where we stand; at the beginning, where the settings name another server or set than before."""
        with self._node.store.reading() as tx:
            return sourcestate.read(self._node, tx)

    def claim(self) -> bool:
        """Whether a run is due, and nothing is paused; then nobody else has it until the next one is."""
        now, interval = self._node.clock(), self._node.settings.hashsharing_interval_seconds
        with self._node.store.transaction() as tx:
            state = sourcestate.read(self._node, tx)
            # A time that is further ahead than any run is put off came from a clock that was put back since.
            if now < state.next_run <= now + 2 * max(interval, MAX_BACKOFF_SECONDS) or tx.people.is_paused(SCOPE):
                return False
            sourcestate.write(self._node, tx, replace(state, next_run=now + interval, began=state.began or now))
        return True

    def begin(self) -> str | None:
        """The next page to ask for, None when nothing is left for now.

        Raises:
            OverloadedError: everything is paused.
        """
        now = self._node.clock()
        with self._node.store.transaction() as tx:
            if tx.people.is_paused(SCOPE):
                raise OverloadedError("exchange is paused")
            state = sourcestate.read(self._node, tx)
            if state.following and now - state.following_at <= FOLLOWING_SECONDS:
                return state.following
            until = now - LAG_SECONDS
            if until <= state.since:
                return None
            sourcestate.write(self._node, tx, replace(state, until=until, following="", following_at=0))
        after = max(state.since - OVERLAP_SECONDS, 0)
        return f"/v2/entries?from={_quoted(after)}&to={_quoted(until)}"

    def read(self, raw: bytes, followed: Followed) -> SourcePage:
        """The page that a server answered with. MalformedError, TooLargeError: it is none."""
        return parse_page(raw, followed.report)

    def keep(self, raw: bytes) -> bytes:
        """Keep a large fingerprint for an entry that is taken in next; returns its SHA-256."""
        return largevalues.keep(self._node, self._set, raw)

    def take(self, asked: str, page: SourcePage, fetched: Mapping[str, dict[str, bytes]], followed: Followed) -> bool:
        """Take a page in; returns whether the window has another one.

        Args:
            asked: what `begin` gave.
            fetched: by reference, the digests of large fingerprints that were kept.

        Raises:
            ConflictError: another node has gone on meanwhile.
        """
        name = self._set
        # 1. What is there is taken in as any list is. A crash after it leaves the page to be taken again, to no effect.
        linked = [draft._replace(digests=draft.digests | fetched.get(draft.source_ref, {})) for draft, _ in page.linked]
        # An entry of which nothing could be had is left as it is: the server did not say that it ended.
        linked = [draft for draft in linked if draft.digests]
        drafts: list[EntryDraft | DraftBatch] = [page.drafts, *linked]
        if page.drafts.n or linked:
            tally = self._exchange.ledger.import_entries(name, drafts, actor=ACTOR, form="ncmec")
            followed.added += tally.added
            followed.updated += tally.updated
            followed.unchanged += tally.unchanged
        # 2. What ended is withdrawn, and we stand behind this page, in one commit.
        with self._node.store.transaction() as tx:
            state = sourcestate.read(self._node, tx)
            if state.following and state.following != asked:
                raise ConflictError("another node follows the server meanwhile")
            followed.withdrawn += self._withdraw(tx, page.ended)
            sourcestate.write(self._node, tx, self._moved(state, page))
        followed.pages += 1
        return bool(page.following)

    def forget_place(self) -> None:
        """The server does not know the page that it named: the window is begun again."""
        with self._node.store.transaction() as tx:
            sourcestate.write(self._node, tx, replace(sourcestate.read(self._node, tx), following="", following_at=0))

    def end(self, error: GatewayError | None = None) -> None:
        """Note how a run ended: well, or by an error. After failures the next one is later and later, on record."""
        node, now = self._node, self._node.clock()
        interval = node.settings.hashsharing_interval_seconds
        with node.store.transaction() as tx:
            state = sourcestate.read(node, tx)
            if error is None:
                sourcestate.write(node, tx, replace(state, failures=0, last_error="", last_success=now))
                return
            # An interval longer than the longest wait is not shortened by failures.
            wait = max(interval, min(MAX_BACKOFF_SECONDS, interval * 2 ** min(state.failures, 10)))
            failures, next_run = state.failures + 1, now + self._jittered(wait)
            failed = replace(state, failures=failures, last_error=error.message[:500], next_run=next_run)
            sourcestate.write(node, tx, failed)
            details: dict[str, object] = {
                "set": self._set,
                "error": type(error).__name__,
                "reason": error.message,
                "attempts": failures,
                "next_run": next_run,
            }
            tx.log.append([node.event(EventKind.SOURCE_FAILED, actor=node.agency, subject=self._set, details=details)])

    def _jittered(self, seconds: int) -> int:
        spread = max(1, seconds * JITTER_PERCENT // 100)
        return seconds - spread + int.from_bytes(self._node.random.bytes(4), "big") % (2 * spread + 1)

    def _moved(self, state: State, page: SourcePage) -> State:
        if page.following:
            return replace(state, following=page.following, following_at=self._node.clock())
        return replace(state, since=state.until, until=0, following="", following_at=0)

    def _withdraw(self, tx: Transaction, ended: Sequence[str]) -> int:
        """Withdraw what the set holds of the references that ended."""
        if not ended:
            return 0
        hash_set = tx.sets.get(self._set)
        if hash_set.hub or hash_set.id is None:
            raise DeniedError("only its owner changes a set; this one is a mirror")
        wanted = Rows.of(len(ended), {"source_ref": list(ended)})
        shelf = self._exchange.shelf
        with shelf.index(tx, hash_set.id) as index:
            found = index.find("source_ref", wanted.text("source_ref"))
        places = dict(grouped(found.block_no.astype("uint64")))
        entries = []
        stored = list(tx.blocks.some(list(places)).values())
        for row, block in zip(stored, shelf.get_all(tx, stored), strict=True):
            where = places[block_id(row)]
            held = decode(block, ["entry_id", "source_ref"]).take(found.row[where])
            entry_ids, texts = held.ints("entry_id").tolist(), held.text("source_ref").to_list()
            told = zip(found.query[where].tolist(), texts, entry_ids, strict=True)
            entries += [int(entry) for query, text, entry in told if text == ended[query]]
        gone = withdraw_entries(self._node, shelf, tx, hash_set, entries, actor=ACTOR, cause=ENDED)
        return sum(one.rows.n for one in gone)


async def follow(
    sourcing: Sourcing, link: SourceLink, run: Run, on_page: Callable[[Followed], None] = lambda _followed: None
) -> Followed:
    """Read the window from where we stand up to now; what came before a failure stays, and how it ended is noted.

    Raises:
        GatewayError: the server, or what it says, is not in order.
    """
    followed = Followed()
    asked = await run(sourcing.begin)  # while everything is paused nobody asks, and nothing has failed
    try:
        while asked is not None and followed.pages < MAX_PAGES:
            page = await run(sourcing.read, await link.page(asked), followed)
            more = await run(sourcing.take, asked, page, await _fetch(sourcing, link, run, page, followed), followed)
            on_page(followed)
            asked = await run(sourcing.begin) if more else None
    except GatewayError as error:
        if isinstance(error, MalformedError | NotFoundError):
            await run(sourcing.forget_place)
        await run(sourcing.end, error)
        raise
    await run(sourcing.end)
    return followed


async def _fetch(
    sourcing: Sourcing, link: SourceLink, run: Run, page: SourcePage, followed: Followed
) -> dict[str, dict[str, bytes]]:
    """Fetch and keep the large fingerprints of a page, one after the other; returns their digests by reference.

    One that the server does not have, or that none is, is counted as dropped, and its entry comes without it.
    """
    fetched: dict[str, dict[str, bytes]] = {}
    for draft, where in page.linked:
        try:
            digest = await run(sourcing.keep, await link.page(where.href))
        except (NotFoundError, MalformedError):
            followed.report.drop(where.algorithm)
        else:
            fetched[draft.source_ref] = {where.algorithm: digest}
            followed.fingerprints += 1
    return fetched


async def follow_forever(sourcing: Sourcing, link: Callable[[], AbstractAsyncContextManager[SourceLink]]) -> None:
    """Follow the server whenever it is due, until cancelled."""
    while True:
        try:
            if await asyncio.to_thread(sourcing.claim):
                async with link() as there:
                    followed = await follow(sourcing, there, asyncio.to_thread)
                LOG.info("the server was followed: %s pages", followed.pages)
        except GatewayError as error:
            LOG.warning("the server was not followed to the end: %s", error.message)
        await asyncio.sleep(WAKE_SECONDS)


def _quoted(at: int) -> str:
    return stamp(at).replace(":", "%3A")
