"""From HTTP to screens and back: cookies, forms, roles, headers. Nothing else in the console knows of them."""

from __future__ import annotations

import asyncio
import hmac
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from urllib.parse import parse_qsl, quote

from aiohttp import BodyPartReader, web
from aiohttp.http_exceptions import BadHttpMessage

from gateway.console.pages import (
    Answer,
    Data,
    Desk,
    Download,
    Page,
    Redirect,
    Route,
    SignedIn,
    SignedOut,
    Visit,
    missing,
)
from gateway.console.rendering import Asset, Renderer
from gateway.crypto import canonical
from gateway.doors.guards import Handler, accepts, read_body
from gateway.errors import DeniedError, GatewayError, MalformedError, UnauthenticatedError
from gateway.exchange import Exchange
from gateway.keyadmin import approvals
from gateway.problems import problem
from gateway.signin import Session, SignIn, StepUpNeededError

COOKIE = "__Host-gateway-session"
# RFC 6265bis: this prefix binds the cookie to this very host; Strict: it never travels with a foreign page's request.
COOKIE_WORDS = "Path=/; Secure; HttpOnly; SameSite=Strict"
MAX_FORM_BYTES = 96 << 10  # an identity card of 64 KiB in a text field
MAX_FORM_FIELDS = 64
MAX_COOKIE_CHARS = 4_096
LONGEST_LIVE_SECONDS = 240  # then the browser asks again, and roles and session are looked at anew
FORM_TYPE = "application/x-www-form-urlencoded"
FILE_TYPE = "multipart/form-data"
FOR_EVER = "public, max-age=31536000, immutable"
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
        "trusted-types gateway"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), publickey-credentials-get=(self)",
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}
_PART = re.compile(r"[A-Za-z0-9._~:-]{1,200}")


def build_console(exchange: Exchange, routes: Sequence[Route]) -> web.Application:
    """The console of one gateway as an application that has not been started."""
    desk = Desk(exchange, SignIn(exchange.node), approvals(exchange.node))
    renderer = Renderer(exchange.node.agency, frozenset(one.path for one in routes if one.method == "GET"))
    app = web.Application()
    app.add_routes([_asset_route(renderer.assets)])
    counter = Counter(desk, renderer)
    for route in routes:
        app.router.add_route(route.method, route.path, counter.behind(route))
    app.router.add_route("*", "/{rest:.*}", counter.nothing)
    app.on_shutdown.append(counter.close)
    return app


class Counter:
    """Lets people in to screens, and dresses what these answer."""

    def __init__(self, desk: Desk, renderer: Renderer) -> None:
        self._desk = desk
        self._renderer = renderer
        self._origin = desk.node.settings.console_url
        self._closing = asyncio.Event()

    async def close(self, _app: web.Application) -> None:
        """Pages that follow by themselves end: the server waits for nobody who only looks."""
        self._closing.set()

    def behind(self, route: Route) -> Handler:
        """The handler of one address."""

        @accepts(route.upload or MAX_FORM_BYTES)
        async def handle(request: web.Request) -> web.StreamResponse:
            visit = Visit()
            try:
                visit = await self._enter(request, route)
                if route.live and "text/event-stream" in request.headers.get("Accept", ""):
                    return await self._live(request, route, visit)
                answer = await asyncio.to_thread(route.screen, self._desk, visit)
                return self._answer(answer, visit)
            except (GatewayError, web.HTTPException) as error:
                return await asyncio.to_thread(self._refuse, error, visit, request)

        return handle

    async def nothing(self, request: web.Request) -> web.StreamResponse:
        """Every address that does not exist."""
        visit = Visit(someone=await asyncio.to_thread(self._someone, request))
        return self._page(Page("error.html", _error_values(missing()), status=404), visit)

    # In

    async def _enter(self, request: web.Request, route: Route) -> Visit:
        # 1. Who is it?
        someone = await asyncio.to_thread(self._someone, request, quiet=bool(route.live))
        if route.roles is not None:
            if someone is None:
                raise UnauthenticatedError("nobody is signed in here")
            if not route.roles & someone.roles:
                await asyncio.to_thread(self._record, someone.person, f"no role for {route.path}", request)
                raise missing()
        # 2. What is asked?
        path = dict(request.match_info)
        if not all(_PART.fullmatch(part) for part in path.values()):
            raise missing()
        query = _fields(request.rel_url.raw_query_string, "address")
        form: Mapping[str, str] = {}
        body = b""
        if route.method == "POST":
            # 3. Did it come from a page of ours? Before the body is looked at.
            self._check_origin(request)
            if route.upload and _kind(request) == FILE_TYPE:
                form, body = await _parts(request)
            else:
                body = await read_body(request)
                if not route.upload or _kind(request) == FORM_TYPE:
                    form, body = _form(request, body), b""
            token = form.get("form_token", request.headers.get("X-Form-Token", ""))
            # Before anybody is signed in a form proves nothing of a session; its origin was checked above.
            if someone is not None and not _same(token, someone.form_token):
                await asyncio.to_thread(self._record, someone.person, "a form of another session", request)
                raise DeniedError("this form is not of this session", remedy="go back, load the page anew, try again")
            if someone is None and route.roles is not None:
                raise UnauthenticatedError("nobody is signed in here")
        # 4. Is it still the same person?
        if route.guarded and someone is not None:
            self._desk.signin.check_stepped_up(someone)
        return Visit(path, query, form, body, someone, request.remote or "", request.headers.get("User-Agent", ""))

    def _someone(self, request: web.Request, *, quiet: bool = False) -> Session | None:
        """Who is signed in. `quiet`: a page that asks by itself is no use of the session."""
        text = request.headers.get("Cookie", "")
        if len(text) > MAX_COOKIE_CHARS:
            return None
        found = [
            value for name, _, value in (part.strip().partition("=") for part in text.split(";")) if name == COOKIE
        ]
        if len(found) != 1:
            return None
        try:
            return self._desk.signin.session(found[0], quiet=quiet)
        except UnauthenticatedError:
            return None

    def _check_origin(self, request: web.Request) -> None:
        """A form of another site never gets here with the cookie; this is the second lock (SECURITY.md, 40)."""
        origin, site = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site")
        if origin != self._origin or site not in (None, "same-origin"):
            self._record("", "a form of another site", request)
            raise DeniedError("this form is not of this console")

    def _record(self, person: str, reason: str, request: web.Request) -> None:
        self._desk.signin.record_refusal(person, reason, request.remote or "")

    # Out

    def _answer(self, answer: Answer, visit: Visit) -> web.Response:
        match answer:
            case Page():
                return self._page(answer, visit)
            case Redirect():
                mark = "&" if "?" in answer.to else "?"
                to = f"{answer.to}{mark}said={quote(answer.said)}" if answer.said else answer.to
                return web.Response(status=303, headers={**HEADERS, "Location": to})
            case Download():
                kept = f'attachment; filename="{answer.name}"'
                headers = {**HEADERS, "Content-Type": answer.media_type, "Content-Disposition": kept}
                return web.Response(body=answer.body, headers=headers)
            case Data():
                body = canonical.encode(dict(answer.value))
                return web.Response(
                    status=answer.status, body=body, headers={**HEADERS, "Content-Type": "application/json"}
                )
            case SignedIn():
                cookie = f"{COOKIE}={answer.cookie}; {COOKIE_WORDS}"
                body = canonical.encode({"to": answer.to})
                headers = {**HEADERS, "Set-Cookie": cookie, "Content-Type": "application/json"}
                return web.Response(body=body, headers=headers)
            case SignedOut():
                cookie = f"{COOKIE}=; Max-Age=0; {COOKIE_WORDS}"
                clear = {
                    "Clear-Site-Data": '"cache"'
                }  # not the storage: it holds the checkpoints that auditors compare with
                return web.Response(
                    status=303, headers={**HEADERS, **clear, "Set-Cookie": cookie, "Location": answer.to}
                )

    def _page(self, page: Page, visit: Visit) -> web.Response:
        text = self._renderer.render(page, visit, now=self._desk.node.clock())
        headers = {**HEADERS, "Content-Type": "text/html; charset=utf-8"}
        return web.Response(status=page.status, body=text.encode(), headers=headers)

    def _refuse(self, error: GatewayError | web.HTTPException, visit: Visit, request: web.Request) -> web.Response:
        script = request.headers.get("Accept", "").startswith("application/json")
        if isinstance(error, web.HTTPException):
            return self._page(
                Page("error.html", _error_values(MalformedError(error.reason)), status=error.status), visit
            )
        status = problem(error)[0]
        if script:
            value = {"message": error.message, "remedy": error.remedy or "", "step_up": _wants_step_up(error)}
            return self._answer(Data(value, status=status), visit)
        if isinstance(error, UnauthenticatedError) and request.method == "GET":
            to = quote(request.rel_url.raw_path, safe="/")
            return self._answer(Redirect(f"/sign-in?to={to}"), visit)
        if visit.someone is None:
            visit = Visit(someone=self._someone(request))
        return self._page(Page("error.html", _error_values(error), status=status), visit)

    # Live

    async def _live(self, request: web.Request, route: Route, visit: Visit) -> web.StreamResponse:
        """The same fragment again and again, each time only if it has changed (WHATWG HTML, server-sent events)."""
        headers = {**HEADERS, "Content-Type": "text/event-stream", "Cache-Control": "no-store"}
        response = web.StreamResponse(headers=headers)
        text = await asyncio.to_thread(self._fragment, route, visit)  # what is refused now is refused as a page
        await response.prepare(request)
        sent = ""
        for _ in range(0, LONGEST_LIVE_SECONDS, route.live):
            lines = [f"data: {line}" for line in text.splitlines()] if text != sent else [": the same"]
            await response.write(("\n".join(lines) + "\n\n").encode())
            sent = text
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), route.live)
                break
            try:
                # Who has gone to lunch is signed out, however many pages are open; and a role may have ended meanwhile.
                someone = await asyncio.to_thread(self._someone, request, quiet=True)
                if someone is None or not (route.roles is None or route.roles & someone.roles):
                    break
                visit = replace(visit, someone=someone)
                text = await asyncio.to_thread(self._fragment, route, visit)
            except GatewayError:
                break  # an answer has begun, so there is no other one: the browser asks again, and hears why
        await response.write_eof()
        return response

    def _fragment(self, route: Route, visit: Visit) -> str:
        answer = route.screen(self._desk, visit)
        assert isinstance(answer, Page), "a live address answers with a fragment"
        return self._renderer.render(answer, visit, now=self._desk.node.clock())


def _asset_route(assets: Mapping[str, Asset]) -> web.RouteDef:
    async def serve(request: web.Request) -> web.Response:
        asset = assets.get(request.match_info["name"])
        if asset is None:
            raise web.HTTPNotFound
        headers = {**HEADERS, "Content-Type": asset.media_type, "Cache-Control": FOR_EVER}
        return web.Response(body=asset.body, headers=headers)

    return web.get("/assets/{name}", serve, allow_head=False)


def _kind(request: web.Request) -> str:
    return request.headers.get("Content-Type", "").partition(";")[0].strip().lower()


def _form(request: web.Request, body: bytes) -> dict[str, str]:
    """A form as browsers send it; of a script, one JSON object of texts under `response` and others."""
    if _kind(request) != FORM_TYPE:
        raise MalformedError("this is not a form")
    try:
        return _fields(body.decode("ascii"), "form")
    except UnicodeDecodeError as error:
        raise MalformedError("this is not a form") from error


async def _parts(request: web.Request) -> tuple[dict[str, str], bytes]:
    """A form with one file, as browsers send it (RFC 7578): its fields, and the file's octets."""
    form: dict[str, str] = {}
    file: bytes | None = None
    try:
        async for part in await request.multipart():
            if not isinstance(part, BodyPartReader) or part.name is None:
                raise MalformedError("this is not a form")
            # In pieces: the library's own bound is smaller than the route's, and the guard holds that one.
            raw = b"".join([piece async for piece in _pieces(part)])
            if part.name in form or (part.filename is not None and file is not None) or len(form) > MAX_FORM_FIELDS:
                raise MalformedError("the form says something twice")
            if part.filename is not None:
                file = raw
            else:
                form[part.name] = _plain(raw.decode(), "form")
    except (ValueError, AssertionError, RuntimeError, BadHttpMessage) as error:  # as the library complains of its parts
        raise MalformedError("this is not a form") from error
    return form, file or b""


async def _pieces(part: BodyPartReader) -> AsyncIterator[bytes]:
    while piece := await part.read_chunk():
        yield piece


def _fields(text: str, what: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(
            text, keep_blank_values=True, strict_parsing=bool(text), errors="strict", max_num_fields=MAX_FORM_FIELDS
        )
    except ValueError as error:
        raise MalformedError(f"the {what} cannot be read") from error
    found = {name: _plain(value, what) for name, value in pairs}
    if len(found) != len(pairs):
        raise MalformedError(f"the {what} says something twice")
    return found


def _plain(text: str, what: str) -> str:
    """No text of anybody has this character; not every database takes it."""
    if "\0" in text:
        raise MalformedError(f"the {what} cannot be read")
    return text


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode(errors="surrogateescape"), wanted.encode())  # a header may hold any octet


def _error_values(error: GatewayError) -> dict[str, object]:
    return {
        "title": "There is nothing here" if problem(error)[0] == 404 else "This was not done",
        "message": error.message,
        "remedy": error.remedy or "",
        "step_up": _wants_step_up(error),
    }


def _wants_step_up(error: GatewayError) -> bool:
    return isinstance(error, StepUpNeededError)
