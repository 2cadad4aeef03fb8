"""The hash-sharing door: NCMEC's hash-sharing API v2, for partners whose tools speak that and nothing else.

A client's base URL is `https://…/hashsharing`. It calls by a secret of its own, and only while administrators hold the
surface open to the partner; policy judges all that it gets as protected by TLS alone. `contracts/hashsharing-1.md` says
what each address answers, what is carried, and what is not. What a partner may not see answers as what is not there.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from functools import partial
from urllib.parse import parse_qsl, quote

from aiohttp import web

from gateway.adapters import ncmec
from gateway.adapters.ncmec import Entry, Member
from gateway.callers import Scope
from gateway.doors.entrance import Entrance, PartnerHandler
from gateway.doors.guards import Handler, accepts, read_body
from gateway.errors import MalformedError, NotFoundError
from gateway.exchange import Exchange
from gateway.exchange.surfaceopinions import Told
from gateway.exchange.windows import PAGE_ITEMS, Item, Opinion, Window, WindowPage

BASE = "/hashsharing"
SURFACE = Scope.HASHSHARING
XML_TYPES = ("application/xml", "text/xml")
_ENTRY = re.compile(r"([1-9][0-9]{0,8})-([0-9a-f]{16})")
_NUMBER = re.compile(r"[1-9][0-9]{0,14}")
_PLACE = re.compile(r"[0-9]{1,9}\.[0-9]{1,5}\.[0-9]{1,15}\.[0-9a-f]{32}")
_NUMBERS = ("start", "size", "max")
_MAX_QUERY_MEMBERS = 8
MAX_AHEAD_SECONDS = 5  # a client that asks up to its present second, by a clock a little ahead of ours, waits for it


class HashSharingDoor:
    """The routes of the hash-sharing API."""

    def __init__(self, exchange: Exchange, entrance: Entrance) -> None:
        self._windows = exchange.windows
        self._values = exchange.surface_values
        self._entrance = entrance
        self._owner = Member(exchange.node.agency)
        self._clock = exchange.node.clock

    def routes(self) -> list[web.RouteDef]:
        """What the application serves of this door."""
        feedback = accepts(ncmec.MAX_FEEDBACK_BYTES)(self._behind(self.put_feedback))
        return [
            web.get(f"{BASE}/v2/status", self._behind(self.get_status), allow_head=False),
            web.get(f"{BASE}/v2/members", self._behind(self.get_members), allow_head=False),
            web.get(f"{BASE}/v2/entries", self._behind(self.get_entries), allow_head=False),
            web.get(
                f"{BASE}/v2/entries/{{entry}}/fingerprints/{{type}}",
                self._behind(self.get_fingerprint),
                allow_head=False,
            ),
            web.get(f"{BASE}/v2/categorizations", self._behind(self.get_categorizations), allow_head=False),
            web.get(f"{BASE}/v2/feedback/{{type}}/reasons", self._behind(self.get_reasons), allow_head=False),
            web.put(f"{BASE}/v2/entries/{{member}}/{{entry}}/{{type}}/feedback", feedback),
        ]

    def _behind(self, handler: PartnerHandler) -> Handler:
        return self._entrance.behind_secret(handler, SURFACE)

    async def get_status(self, request: web.Request, partner: str) -> web.Response:
        """Who the caller is here."""
        await asyncio.to_thread(self._windows.check, partner)
        return _xml(ncmec.status(request.remote or "", partner, Member(partner)))

    async def get_members(self, _request: web.Request, partner: str) -> web.Response:
        """The agencies that a partner hears of here: whose entries these are, and itself; of no other."""
        await asyncio.to_thread(self._windows.check, partner)
        return _xml(ncmec.members([self._owner, Member(partner)]))

    async def get_entries(self, request: web.Request, partner: str) -> web.Response:
        """A page of what was published in a window of time."""
        window, following = self._window(request)
        ahead = window.until - self._clock()
        if 0 < ahead <= MAX_AHEAD_SECONDS:
            await asyncio.sleep(ahead)  # then nothing can be added to the window any more
        body = await asyncio.to_thread(
            self._windows.page,
            partner,
            str(SURFACE),
            window,
            following=following,
            render=partial(render_page, self._owner),
        )
        return _xml(body)

    async def get_fingerprint(self, request: web.Request, partner: str) -> web.StreamResponse:
        """A large fingerprint of an entry, in pieces; where it has gone in between the answer breaks off."""
        entry = _ENTRY.fullmatch(request.match_info["entry"])
        algorithm = ncmec.TYPES.get(request.match_info["type"])
        if entry is None or algorithm is None or algorithm not in ncmec.LARGE:
            raise NotFoundError("no such fingerprint")
        which = int(entry[1]), int(entry[2], 16)
        value = await asyncio.to_thread(self._values.find, partner, str(SURFACE), which, algorithm)
        first = await asyncio.to_thread(self._values.piece, partner, value, 0)
        response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
        response.content_length = value.row.octets
        await response.prepare(request)
        await response.write(first)
        for number in range(1, value.pieces):
            await response.write(await asyncio.to_thread(self._values.piece, partner, value, number))
        await response.write_eof()
        return response

    async def get_categorizations(self, _request: web.Request, partner: str) -> web.Response:
        """The categories that stand in what the partner may see."""
        return _xml(ncmec.categorizations(await asyncio.to_thread(self._windows.categories, partner, str(SURFACE))))

    async def get_reasons(self, request: web.Request, partner: str) -> web.Response:
        """Why a partner may disagree with a fingerprint of a type."""
        await asyncio.to_thread(self._windows.check, partner)
        kind = request.match_info["type"]
        if kind not in ncmec.TYPES:
            raise NotFoundError("no such type of fingerprint")
        return _xml(ncmec.reasons(kind))

    async def put_feedback(self, request: web.Request, partner: str) -> web.Response:
        """Keep the partner's opinion of a fingerprint of an entry that it may see."""
        if request.content_type not in XML_TYPES:
            raise web.HTTPUnsupportedMediaType
        said = ncmec.parse_feedback(await read_body(request))
        entry = _ENTRY.fullmatch(request.match_info["entry"])
        algorithm = ncmec.TYPES.get(request.match_info["type"])
        if entry is None or algorithm is None or request.match_info["member"] != str(self._owner.number):
            raise NotFoundError("no such entry")
        which, opinion = (int(entry[1]), int(entry[2], 16)), Opinion(str(said.verdict), said.reasons)
        await asyncio.to_thread(self._windows.take_opinion, partner, str(SURFACE), which, algorithm, opinion)
        return _xml(ncmec.submission_result())

    def _window(self, request: web.Request) -> tuple[Window, str]:
        """The window that a query asks for, and where in it the page before ended."""
        asked = _query(request)
        after = _time(asked, "from") if "from" in asked else 0
        until = _time(asked, "to") if "to" in asked else self._clock()
        for name in _NUMBERS:
            if name in asked and _NUMBER.fullmatch(asked[name]) is None:
                raise MalformedError("not a number", place=f"query, {name}")
        following = asked.get("at", "")
        if "at" in asked and _PLACE.fullmatch(following) is None:
            raise MalformedError("not where a page ended", place="query, at")
        return Window(after, until, int(asked.get("start", "1"))), following


def render_page(owner: Member, page: WindowPage) -> bytes:
    """A page of a window as its client reads it."""
    following = ""
    if page.following is not None:
        window, place = page.following
        # Clients append it to their base URL as it is, and read three of its numbers.
        span = f"from={_quoted(window.after)}&to={_quoted(window.until)}"
        count = f"start={window.start}&size={PAGE_ITEMS}&max={window.start + PAGE_ITEMS - 1}"
        following = f"/v2/entries?{span}&{count}&at={place}"
    entries = (_entry(item, page.opinions.get((item.set_id, item.entry_id), ())) for item in page.items)
    return ncmec.query_result(owner, entries, following)


def _entry(item: Item, opinions: Sequence[Told]) -> Entry:
    return Entry(
        id=f"{item.set_id}-{item.entry_id:016x}",
        at=item.at,
        is_video=ncmec.is_video(item.media_type),
        is_deleted=item.deleted,
        category=item.category,
        digests=item.digests,
        opinions=[_opinion(one) for one in opinions],
    )


def _opinion(told: Told) -> ncmec.Opinion:
    reasons = tuple(one if one in ncmec.REASONS else ncmec.REASON_OF.get(one, ncmec.UNTOLD) for one in told.reasons)
    verdict = ncmec.Verdict.AFFIRMATIVE if told.confirms else ncmec.Verdict.NEGATIVE
    member = Member(told.agency) if told.agency else None
    return ncmec.Opinion(verdict, member, reasons, told.algorithm, told.at)


def _query(request: web.Request) -> dict[str, str]:
    """The members of a query, each of which is known and stands there once."""
    try:
        pairs = parse_qsl(
            request.rel_url.raw_query_string,
            keep_blank_values=True,
            strict_parsing=bool(request.rel_url.raw_query_string),
            errors="strict",
            max_num_fields=_MAX_QUERY_MEMBERS,
        )
    except ValueError as error:
        raise MalformedError("the query cannot be read", place="query") from error
    asked = dict(pairs)
    if len(asked) != len(pairs) or not asked.keys() <= {"from", "to", "at", *_NUMBERS}:
        raise MalformedError("the query has a member twice, or one that is not known", place="query")
    return asked


def _time(asked: dict[str, str], name: str) -> int:
    try:
        return max(ncmec.parse_stamp(asked[name]), 0)
    except MalformedError as error:
        raise MalformedError(error.message, place=f"query, {name}") from error


def _quoted(at: int) -> str:
    return quote(ncmec.stamp(at).replace("Z", ".000Z"), safe="")


def _xml(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/xml", charset="utf-8")
