"""The TAXII door: TAXII 2.1 (OASIS), for partners whose tools speak that and nothing else.

A client's discovery URL is `https://…/taxii2/`, its API root `https://…/taxii2/hashes/`. It calls by a secret of its
own, and only while administrators hold the surface open to the partner; policy judges all that it gets as protected by
TLS alone. `contracts/taxii-1.md` says what each address answers. What a partner may not see answers as what is not
there.

Two media types are taken for what a client sends, since OpenCTI's pusher says `application/stix+json`; one is answered,
to the octet as the standard writes it, since clients compare it. Errors are error messages of TAXII.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl

from aiohttp import web

from gateway.callers import Scope
from gateway.crypto import canonical
from gateway.doors.answers import Pieces
from gateway.doors.entrance import Entrance, PartnerHandler
from gateway.doors.guards import Handler, accepts, read_body, words_refusals
from gateway.errors import DeniedError, MalformedError, NotFoundError
from gateway.exchange import Exchange
from gateway.exchange.collections import PAGE_OBJECTS, Body, Collection, ObjectPage, Query
from gateway.exchange.inbox import MAX_BODY_BYTES
from gateway.exchange.stretches import Told

BASE = "/taxii2"
ROOT = f"{BASE}/hashes"  # no dot in its last part: OpenCTI cuts there
SURFACE = Scope.TAXII
TAXII_TYPE = "application/taxii+json;version=2.1"
STIX_TYPE = "application/stix+json;version=2.1"
MAX_ACCEPT_CHARS = 1_000
MAX_PROBLEM_BYTES = 64 << 10
MAX_MATCHES = 50  # values of one filter: as many ids fit a line of a request
MAX_LIMIT_DIGITS = 15
_MAX_QUERY_MEMBERS = 16
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_MATCHES = {"match[id]": "ids", "match[type]": "types", "match[version]": "versions"}
_MATCHES["match[spec_version]"] = "spec_versions"
_VALUE = re.compile(r"[A-Za-z0-9:.-]{1,128}")
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.(\d{1,9}))?(?:Z|[+-]\d\d:\d\d)", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class TaxiiDoor:
    """The routes of TAXII."""

    def __init__(self, exchange: Exchange, entrance: Entrance) -> None:
        self._collections = exchange.collections
        self._inbox = exchange.inbox
        self._admission = exchange.admission
        self._entrance = entrance
        self._agency = exchange.node.agency
        self._issuer = entrance.callers.issuer

    def routes(self) -> list[web.RouteDef]:
        """What the application serves of this door."""
        one = f"{ROOT}/collections/{{collection}}"
        objects = accepts(MAX_BODY_BYTES)(self._behind(self.post_objects))
        routes = [
            web.get(f"{BASE}/", self._behind(self.get_discovery), allow_head=False),
            web.get(f"{ROOT}/", self._behind(self.get_root), allow_head=False),
            web.get(f"{ROOT}/collections/", self._behind(self.get_collections), allow_head=False),
            web.get(f"{one}/", self._behind(self.get_collection), allow_head=False),
            web.get(f"{one}/manifest/", self._behind(self.get_manifest), allow_head=False),
            web.get(f"{one}/objects/", self._behind(self.get_objects), allow_head=False),
            web.post(f"{one}/objects/", objects),
            web.get(f"{one}/objects/{{object}}/", self._behind(self.get_object), allow_head=False),
            web.delete(f"{one}/objects/{{object}}/", self._behind(self.delete_object)),
            web.get(f"{one}/objects/{{object}}/versions/", self._behind(self.get_versions), allow_head=False),
            web.get(f"{ROOT}/status/{{status}}/", self._behind(self.get_status), allow_head=False),
        ]
        # Whoever is let in hears of a method or an address that there is not in TAXII's words, too.
        allowed: dict[str, list[str]] = {}
        for route in routes:
            allowed.setdefault(route.path, []).append(route.method)
        others = [web.route("*", path, self._behind(_not_allowed(methods))) for path, methods in allowed.items()]
        return [*routes, *others, web.route("*", f"{BASE}/{{rest:.*}}", self._behind(_nothing))]

    def _behind(self, handler: PartnerHandler) -> Handler:
        """The handler for partners whose client takes our answers; whatever is refused as TAXII words it."""

        async def accepted(request: web.Request, partner: str) -> web.StreamResponse:
            if not _takes_ours(request.headers.get("Accept", "*/*")):
                return _error(406, "Not Acceptable", f"this server answers {TAXII_TYPE}")
            return await handler(request, partner)

        return words_refusals(_worded)(self._entrance.behind_secret(accepted, SURFACE))

    # What there is

    async def get_discovery(self, _request: web.Request, partner: str) -> web.Response:
        """Where the API root is."""
        await asyncio.to_thread(self._admission.check, partner)
        root = f"{self._issuer}{ROOT}/"
        return _answer(
            {
                "title": f"Hash lists of {self._agency}",
                "description": "Hash lists as STIX 2.1 indicators, for partners of this gateway.",
                "default": root,
                "api_roots": [root],
            }
        )

    async def get_root(self, _request: web.Request, partner: str) -> web.Response:
        """What the API root is."""
        await asyncio.to_thread(self._admission.check, partner)
        return _answer(
            {
                "title": "hashes",
                "description": f"Hash lists of {self._agency}.",
                "versions": [TAXII_TYPE],
                "max_content_length": MAX_BODY_BYTES,
            }
        )

    async def get_collections(self, _request: web.Request, partner: str) -> web.Response:
        """The collections that the partner may read or write."""
        found = await asyncio.to_thread(self._collections.listing, partner)
        return _answer({"collections": [_collection(one) for one in found]} if found else {})

    async def get_collection(self, request: web.Request, partner: str) -> web.Response:
        """One of them."""
        return _answer(_collection(await self._known(request, partner)))

    # What they hold

    async def get_objects(self, request: web.Request, partner: str) -> web.Response:
        """A page of objects."""
        return await self._page(request, partner, _query(request), render_envelope)

    async def get_object(self, request: web.Request, partner: str) -> web.Response:
        """One object."""
        return await self._page(request, partner, _query(request, _object(request)), render_envelope)

    async def get_manifest(self, request: web.Request, partner: str) -> web.Response:
        """A page of what the objects are, without them."""
        return await self._page(request, partner, _query(request), _manifest)

    async def get_versions(self, request: web.Request, partner: str) -> web.Response:
        """The versions of one object: the newest is all that is kept."""
        return await self._page(request, partner, _query(request, _object(request)), _versions)

    async def _page(
        self,
        request: web.Request,
        partner: str,
        query: Query,
        render: Callable[[ObjectPage], Body],
    ) -> web.Response:
        identifier = _identifier(request)
        ends: list[int] = []

        def rendered(page: ObjectPage) -> Body:
            told = page.stretch.told
            if "object" in request.match_info and not page.exists:
                raise NotFoundError("no such object")
            ends[:] = [told[0].mark, told[-1].mark] if told else []
            return render(page)

        body = await asyncio.to_thread(self._collections.page, partner, identifier, query, rendered)
        headers = {"Content-Type": TAXII_TYPE}
        if ends:
            headers["X-TAXII-Date-Added-First"], headers["X-TAXII-Date-Added-Last"] = map(_stamp, ends)
        return web.Response(body=Pieces(body.pieces), headers=headers)

    async def _known(self, request: web.Request, partner: str) -> Collection:
        return await asyncio.to_thread(self._collections.collection, partner, _identifier(request))

    # What they send

    async def post_objects(self, request: web.Request, partner: str) -> web.Response:
        """Take objects in; the status says what became of each."""
        collection = await self._known(request, partner)
        if _plain(request.headers.get("Content-Type", "")) not in (TAXII_TYPE, STIX_TYPE, TAXII_TYPE.partition(";")[0]):
            return _error(415, "Unsupported Media Type", f"send {TAXII_TYPE}")
        if not collection.can_write:
            raise DeniedError("the collection is for reading alone")
        body = await read_body(request)
        status = await asyncio.to_thread(self._inbox.take, partner, collection.id, body)
        return web.Response(status=202, body=status, headers={"Content-Type": TAXII_TYPE})

    async def delete_object(self, request: web.Request, partner: str) -> web.Response:
        """Withdraw an object that the partner sent."""
        collection = await self._known(request, partner)
        if not collection.can_write:
            raise DeniedError("only its owner takes an object back")
        await asyncio.to_thread(self._inbox.delete, partner, collection.id, _object(request))
        return web.Response(status=200, body=b"{}", headers={"Content-Type": TAXII_TYPE})

    async def get_status(self, request: web.Request, partner: str) -> web.Response:
        """What became of what the partner sent."""
        identifier = request.match_info["status"]
        if _UUID.fullmatch(identifier) is None:
            raise NotFoundError("no such status")
        body = await asyncio.to_thread(self._inbox.status, partner, identifier)
        return web.Response(body=body, headers={"Content-Type": TAXII_TYPE})


# Answers


def _answer(value: Mapping[str, object]) -> web.Response:
    # Clients compare the type to the octet: no charset behind it.
    return web.Response(body=canonical.encode(value), headers={"Content-Type": TAXII_TYPE})


def _error(status: int, title: str, detail: str = "", name: str = "") -> web.Response:
    """An error message of TAXII 2.1 (3.6.1). Its status is a text; `name` is what our log calls it."""
    members = {"title": title, "http_status": str(status)} | ({"description": detail} if detail else {})
    members |= {"error_id": name} if name else {}
    return web.Response(status=status, body=canonical.encode(members), headers={"Content-Type": TAXII_TYPE})


def _not_allowed(methods: Sequence[str]) -> PartnerHandler:
    """Answers what asks an address for something else than it does."""

    async def refuse(_request: web.Request, _partner: str) -> web.StreamResponse:
        response = _error(405, "Method Not Allowed", f"this address answers {' and '.join(methods)}")
        response.headers["Allow"] = ", ".join(methods)  # RFC 9110 15.5.6 wants it
        return response

    return refuse


async def _nothing(_request: web.Request, _partner: str) -> web.StreamResponse:
    raise NotFoundError("there is nothing here", remedy="each address of TAXII ends in a slash")


def _worded(response: web.Response) -> web.Response:
    """A problem of ours as an error message of TAXII, with the headers that belong to it."""
    assert isinstance(response.body, bytes), "a problem is written in one piece"
    told = canonical.parse_json(response.body, max_bytes=MAX_PROBLEM_BYTES)
    assert isinstance(told, dict), "a problem is an object"
    detail = "; ".join(str(told[name]) for name in ("detail", "place", "remedy") if name in told)
    worded = _error(response.status, str(told["title"]), detail, str(told.get("instance", "")))
    for name in ("WWW-Authenticate", "Retry-After", "Date"):
        if name in response.headers:
            worded.headers[name] = response.headers[name]
    return worded


def _collection(one: Collection) -> dict[str, object]:
    words = "What you send goes" if one.can_write else "Entries"
    return {
        "id": one.id,
        "title": one.set_name,
        "description": f"{words} {'into' if one.can_write else 'of'} {one.set_name}, for {one.purpose}.",
        "can_read": one.can_read,
        "can_write": one.can_write,
        "media_types": [STIX_TYPE],
    }


def render_envelope(page: ObjectPage) -> Body:
    """A page of objects as TAXII writes it. The objects come first: so they are hashed once for all who get them."""
    if not page.stretch.told:
        return Body.of(b"{}")
    head, tail = b'{"objects":[', b"]" + _more(page.following)
    return Body((head, page.stretch.raw, tail), page.stretch.digest_between(head, tail))


def _manifest(page: ObjectPage) -> Body:
    return _enclosed("objects", [canonical.encode(_record(one)) for one in page.stretch.told], page.following)


def _versions(page: ObjectPage) -> Body:
    return _enclosed("versions", [canonical.encode(one.version) for one in page.stretch.told], page.following)


def _record(one: Told) -> dict[str, object]:
    return {"id": one.id, "date_added": _stamp(one.mark), "version": one.version, "media_type": STIX_TYPE}


def _enclosed(name: str, items: Sequence[bytes], following: str) -> Body:
    """A page in JSON; `{}` where there is nothing."""
    return Body.of(b'{"%s":[%s]%s' % (name.encode(), b",".join(items), _more(following)) if items else b"{}")


def _more(following: str) -> bytes:
    return b',"more":true,"next":%s}' % canonical.encode(following) if following else b',"more":false}'


def _stamp(mark: int) -> str:
    """A time of TAXII: UTC, to the microsecond."""
    return f"{_EPOCH + timedelta(microseconds=mark):%Y-%m-%dT%H:%M:%S.%f}Z"


# Requests


def _takes_ours(accept: str) -> bool:
    """Whether a client takes what we answer (RFC 9110 12.5.1, without weights: there is one answer)."""
    wanted = {_plain(one) for one in accept[:MAX_ACCEPT_CHARS].split(",")}
    return not wanted.isdisjoint({TAXII_TYPE, "application/taxii+json", "application/*", "*/*", ""})


def _plain(media_type: str) -> str:
    """A media type without spaces, quotes, weight and charset."""
    parts = [part.strip().replace('"', "").lower() for part in media_type.split(";")]
    return ";".join(part for part in parts if not part.startswith(("q=", "charset=")))


def _identifier(request: web.Request) -> str:
    identifier = request.match_info["collection"]
    if _UUID.fullmatch(identifier) is None:
        raise NotFoundError("no such collection")
    return identifier


def _object(request: web.Request) -> str:
    name = request.match_info["object"]
    if _VALUE.fullmatch(name) is None:
        raise NotFoundError("no such object")
    return name


def _query(request: web.Request, one: str = "") -> Query:
    """The filters of a request, its limit, and where the page before ended.

    Args:
        one: the id of the object that the address names.
    """
    asked = _members(request)
    given: dict[str, int | tuple[str, ...]] = {}
    if "added_after" in asked:
        given["added_after"] = _moment(asked["added_after"])
    for name, of in _MATCHES.items():
        if name in asked:
            given[of] = _values(name, asked[name])
    if one:
        if "ids" in given:
            raise MalformedError("the address names the object already", place="query, match[id]")
        given["ids"] = (one,)
    return Query(given, _limit(asked.get("limit", str(PAGE_OBJECTS))), asked.get("next", ""))


def _members(request: web.Request) -> dict[str, str]:
    """The members of a query, each of which is known and stands there once."""
    raw = request.rel_url.raw_query_string
    try:
        pairs = parse_qsl(
            raw, keep_blank_values=True, strict_parsing=bool(raw), errors="strict", max_num_fields=_MAX_QUERY_MEMBERS
        )
    except ValueError as error:
        raise MalformedError("the query cannot be read", place="query") from error
    asked = dict(pairs)
    if len(asked) != len(pairs):
        raise MalformedError("the query has a member twice", place="query")
    if not asked.keys() <= {"added_after", "limit", "next", *_MATCHES}:
        raise MalformedError("the query has a filter that this server does not know", place="query")
    return asked


def _values(name: str, text: str) -> tuple[str, ...]:
    values = tuple(sorted(set(text.split(","))))
    if len(values) > MAX_MATCHES:
        raise MalformedError(f"more than {MAX_MATCHES} values", place=f"query, {name}")
    if not all(_VALUE.fullmatch(value) for value in values):
        raise MalformedError("not a value that any object has", place=f"query, {name}")
    return values


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= MAX_LIMIT_DIGITS and int(text)):
        raise MalformedError("not a number from 1 up", place="query, limit")
    return int(text)


def _moment(text: str) -> int:
    """Microseconds since 1970; what is finer is left out, which at worst tells an object again."""
    found = _MOMENT.fullmatch(text)
    if found is None:
        raise MalformedError("not a time of TAXII", place="query, added_after")
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise MalformedError("not a time of the calendar", place="query, added_after") from error
    return max((moment - _EPOCH) // timedelta(microseconds=1), 0)
