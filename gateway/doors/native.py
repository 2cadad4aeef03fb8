"""The native door: sets, feeds, envelopes and mailboxes for partners that have proved who they are.

`contracts/http-1.md` describes it. Everything that tells of an entry travels as a sealed envelope; this door sees the
outside of it alone. What a partner may not see answers exactly as what is not there.

A body above `SPOOL_BYTES` waits in a file without a name in the data folder until it is whole: it is ciphertext, and
the file is gone with the request.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, cast

from aiohttp import web

from gateway import lookups
from gateway.client import ENVELOPE_TYPE, SEAL_BYTES
from gateway.comparisons import MAX_QUESTION_BYTES
from gateway.doors.answers import Pieces
from gateway.doors.entrance import Entrance
from gateway.doors.guards import accepts, read_body
from gateway.doors.wire import NUMBER, asked_rest, json_answer, number, parse_numbers, parse_query
from gateway.errors import OverloadedError
from gateway.exchange import Exchange, SealedPage
from gateway.interchange import Cursor
from gateway.ownkeys import issued_card

CARD_TYPE = "application/vnd.partner-exchange.identity-card+json"
SPOOL_BYTES = 1 << 20  # most messages fit; what is larger goes to disk
MAX_UPLOADS_AT_ONCE = 8  # bodies that may wait at once: bounds memory, and disk to as many times the largest envelope
MAX_COMPARISONS_AT_ONCE = 2  # each may read through whole labels
MAX_LOOK_UPS_AT_ONCE = 2  # each opens some dozen blocks
# An answer to a look-up leaves at the next multiple of its beat after the question came, by its size. So the time that
# it took tells nothing as long as it fits a beat: some milliseconds, tens of them, and up to a second in a large list.
BEAT_SECONDS = {lookups.SIZES[0]: 0.25, lookups.SIZES[1]: 0.5, lookups.SIZES[2]: 1.0}
_VIEW = re.compile(r"(?:[0-9a-f]{64})?")
_MAX_EPOCH = 65_535


class NativeDoor:
    """The routes of the exchange itself."""

    def __init__(self, exchange: Exchange, entrance: Entrance) -> None:
        self._exchange = exchange
        self._entrance = entrance
        self._folder = exchange.node.settings.folder
        self._uploads = 0
        self._comparisons = 0
        self._look_ups = 0

    def routes(self) -> list[web.RouteDef]:
        """What the application serves of this door."""
        behind = self._entrance.behind
        max_bytes = self._exchange.node.settings.max_envelope_bytes
        return [
            web.get("/v1/card", behind(self.get_card), allow_head=False),
            web.get("/v1/sets", behind(self.get_sets), allow_head=False),
            web.get("/v1/sets/{agency}/{name}/head", behind(self.get_head), allow_head=False),
            web.get("/v1/sets/{agency}/{name}/changes", behind(self.get_changes), allow_head=False),
            web.post(
                "/v1/sets/{agency}/{name}/compare", accepts(MAX_QUESTION_BYTES + SEAL_BYTES)(behind(self.post_compare))
            ),
            web.post("/v1/look-up", accepts(lookups.MAX_QUESTION_BYTES + SEAL_BYTES)(behind(self.post_look_up))),
            web.post("/v1/envelopes", accepts(max_bytes)(behind(self.post_envelope))),
            web.get("/v1/mailbox", behind(self.get_mailbox), allow_head=False),
        ]

    async def get_card(self, _request: web.Request, _partner: str) -> web.Response:
        """Our identity card."""
        card = await asyncio.to_thread(issued_card, self._exchange.node)
        return web.Response(body=card, content_type=CARD_TYPE)

    async def get_sets(self, _request: web.Request, partner: str) -> web.Response:
        """The sets that the partner may follow."""
        return json_answer({"sets": await asyncio.to_thread(self._exchange.sets_for, partner)})

    async def get_head(self, request: web.Request, partner: str) -> web.Response:
        """The feed head of a set, or 304 while the one that the partner holds is still true."""
        held = {tag.value for tag in request.if_none_match or ()}
        head = await asyncio.to_thread(self._exchange.head_for, partner, _set_name(request), held)
        headers = {"ETag": f'"{head.etag}"'}
        if held & {head.etag, "*"}:
            return web.Response(status=304, headers=headers)  # RFC 9110 15.4.5: the tag comes with it
        return web.Response(body=head.body, content_type=ENVELOPE_TYPE, headers=headers)

    async def get_changes(self, request: web.Request, partner: str) -> web.Response:
        """The page that brings the partner on from its cursor, or the rest of the one that broke off on its way."""
        query = parse_query(request, {"epoch": NUMBER, "view": _VIEW, "seq": NUMBER})
        cursor = Cursor(number(query, "epoch", _MAX_EPOCH), query["view"], number(query, "seq"))
        name, asked = _set_name(request), asked_rest(request)
        if asked is not None:
            page = await asyncio.to_thread(self._exchange.rest_for, partner, name, cursor, asked[1])
            if page is not None and asked[0] < page.size:
                return _page(page, asked[0])
        page = await asyncio.to_thread(self._exchange.page_for, partner, name, cursor)
        return web.Response(status=204) if page is None else _page(page)

    async def post_compare(self, request: web.Request, partner: str) -> web.Response:
        """Answer a sealed question of comparison 1: does the partner hold the same of a set, and what not?"""
        if request.content_type != ENVELOPE_TYPE:
            raise web.HTTPUnsupportedMediaType
        body = await read_body(request)
        with self._comparison():
            return _sealed(await asyncio.to_thread(self._exchange.compare_for, partner, _set_name(request), body))

    async def post_look_up(self, request: web.Request, partner: str) -> web.Response:
        """Answer a sealed question of look-up 1, on the next beat of its size: what is listed takes no longer."""
        if request.content_type != ENVELOPE_TYPE:
            raise web.HTTPUnsupportedMediaType
        loop = asyncio.get_running_loop()
        began = loop.time()
        body = await read_body(request)
        with self._look_up():
            answer, slots = await asyncio.to_thread(self._exchange.look_up_for, partner, body)
        beat = BEAT_SECONDS[slots]
        await asyncio.sleep(beat - (loop.time() - began) % beat)
        return _sealed(answer)

    async def post_envelope(self, request: web.Request, partner: str) -> web.Response:
        """Take one envelope in; the answer is its receipt, or the cursor for a feed head."""
        if request.content_type != ENVELOPE_TYPE:
            raise web.HTTPUnsupportedMediaType
        with self._upload(), _spool(self._folder) as spool:
            await _stage(request, spool)
            accepted = await asyncio.to_thread(self._exchange.accept, partner, spool)
        return web.Response(body=accepted.body, content_type=accepted.media_type)

    async def get_mailbox(self, request: web.Request, partner: str) -> web.Response:
        """Messages above a number; asking says that those up to it arrived."""
        (after,) = parse_numbers(request, "after")
        return _sealed(await asyncio.to_thread(self._exchange.mailbox_for, partner, after))

    @contextmanager
    def _comparison(self) -> Iterator[None]:
        if self._comparisons >= MAX_COMPARISONS_AT_ONCE:
            raise OverloadedError("too many comparisons at once", retry_after_seconds=10)
        self._comparisons += 1
        try:
            yield
        finally:
            self._comparisons -= 1

    @contextmanager
    def _look_up(self) -> Iterator[None]:
        if self._look_ups >= MAX_LOOK_UPS_AT_ONCE:
            raise OverloadedError("too many look-ups at once", retry_after_seconds=5)
        self._look_ups += 1
        try:
            yield
        finally:
            self._look_ups -= 1

    @contextmanager
    def _upload(self) -> Iterator[None]:
        if self._uploads >= MAX_UPLOADS_AT_ONCE:
            raise OverloadedError("too many envelopes at once", retry_after_seconds=5)
        self._uploads += 1
        try:
            yield
        finally:
            self._uploads -= 1


def _set_name(request: web.Request) -> str:
    return f"{request.match_info['agency']}/{request.match_info['name']}"


def _page(page: SealedPage, start: int = 0) -> web.Response:
    """A page from a byte on; its octets are shared with the partner's whole class."""
    headers = {"ETag": f'"{page.etag}"', "Accept-Ranges": "bytes"}
    if start:
        headers["Content-Range"] = f"bytes {start}-{page.size - 1}/{page.size}"
    body = Pieces((page.header, page.octets), start)
    return web.Response(status=206 if start else 200, body=body, content_type=ENVELOPE_TYPE, headers=headers)


def _sealed(body: bytes | None) -> web.Response:
    """An envelope, or 204 where there is nothing to bring."""
    return web.Response(status=204) if body is None else web.Response(body=body, content_type=ENVELOPE_TYPE)


@contextmanager
def _spool(folder: Path) -> Iterator[BinaryIO]:
    with SpooledTemporaryFile(max_size=SPOOL_BYTES, dir=str(folder)) as spool:
        yield cast(BinaryIO, spool)  # it has every method of one from Python 3.11 on


async def _stage(request: web.Request, spool: BinaryIO) -> None:
    """The body, whole, ready to be read from its beginning.

    Raises:
        OverloadedError: the disk cannot take it now.
    """
    try:
        async for piece in request.content.iter_chunked(SPOOL_BYTES):
            await asyncio.to_thread(spool.write, piece)
    except OSError as error:
        if isinstance(error, ConnectionError):
            raise
        raise OverloadedError("there is no room for an envelope of this size now") from error
    spool.seek(0)
