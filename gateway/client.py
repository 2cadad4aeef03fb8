"""HTTP to one partner, as its identity card says: what `sync` and the command line need of the network.

    async with PartnerLink(card, token_key, "XA-NCVI", clock, random) as link:
        for offered in await link.sets(): …
        answer = await link.head("XB-NCVI/found", "")

Rules:

1. Only the card's URL is called: https, or http on a loopback address. Its name is resolved once for a link. No
   redirect is followed, no proxy of the environment is used, no cookie is kept.
2. Every answer has a bound: seconds in all and between two reads, and bytes, by its length and again while it is read.
   Compressed answers are refused unread. A page may take as long as it keeps coming, and what is sent as long as it
   keeps being taken: on a slow link minutes are not too long.
3. Each request carries a fresh DPoP proof, over the newest nonce that the partner gave us. The token is fetched when it
   is needed and renewed before it runs out; an answer 401 gets one retry with a new token, no more. Where the partner
   asks for a newer nonce the request is repeated with it, once.
4. What the partner says with a problem document becomes the error that it stands for. Everything else that goes wrong
   between the two is a PartnerError with a plain sentence: never an exception of the HTTP library, never its words.
5. Where the partner does not let us in and its clock stands elsewhere than ours, the error says by how many seconds.
6. Every request may be repeated (a message is known again by its id, keys and cosignatures change nothing twice). One
   whose connection breaks off is repeated, signed anew, a few times. A page that broke off goes on where it stopped
   (`Range`), for as long as each time brings more of it. Bytes of two bodies that were put together would not open.
7. TLS 1.3 and nothing below. The certificate must have a key that the card pins; where the card pins none, it is
   verified against the authorities of this machine, or against the context that the caller hands in (`tls.py`).

What comes back is sealed, and judged by `exchange`; here it is only bounded. `docs/scripting.md` has a worked example.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Self
from urllib.parse import urlencode

import aiohttp
from aiohttp.connector import AddrInfoType

from gateway.addresses import base_url
from gateway.audit import MAX_RECEIPT_BYTES
from gateway.crypto.canonical import JsonValue, parse_json
from gateway.crypto.checkpoint import MAX_NOTE_BYTES
from gateway.crypto.keys import Random, TokenKey, new_message_id
from gateway.crypto.tokens import make_assertion, make_dpop
from gateway.errors import (
    ConflictError,
    GatewayError,
    MalformedError,
    NotFoundError,
    OverloadedError,
    PartnerError,
    UnauthenticatedError,
)
from gateway.gossip import MAX_TOLD_BYTES, ToldLog, parse_told
from gateway.interchange import (
    MAX_CARD_BYTES,
    MAX_DOCUMENT_BYTES,
    MAX_KEYS_BYTES,
    MAX_PAGE_BYTES,
    Cursor,
    IdentityCard,
    KeyConfirmation,
    keys_type,
)
from gateway.lookups import MAX_LOOK_UP_ANSWER_BYTES
from gateway.model import MAX_TEXT_CHARS, SET_NAME
from gateway.problem_words import MAX_PROBLEM_BYTES, from_problem
from gateway.tls import NotPinnedError, partner_tls

__all__ = ["ENVELOPE_TYPE", "BrokenOffError", "LinkLimits", "PartnerLink"]

ENVELOPE_TYPE = "application/vnd.partner-exchange.envelope"
NOTE_TYPE = "text/plain"  # C2SP tlog-tiles serves its checkpoint so
FORM_TYPE = "application/x-www-form-urlencoded"
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

MAX_SOURCE_PAGE_BYTES = 32 << 20
SEAL_BYTES = 1 << 20  # manifest, signatures, age header and tags around a payload: at most 600 KiB of it
MAX_LIST_BYTES = 1 << 20  # a list of some thousand sets
MAX_SETS = 10_000
MAX_TOKEN_ANSWER_BYTES = 16_384
MAX_TOKEN_SECONDS = 3600  # however long a partner says that its token lives
MIN_TOKEN_SECONDS = 30  # a token with less left is renewed, so that it does not run out on its way
MAX_ACCESS_TOKEN_CHARS = 4096
MAX_TRIES = 3  # of one request whose connection breaks off
MAX_IDLE_TRIES = 4  # of a page, one after the other, that bring less than `PROGRESS_BYTES`
PROGRESS_BYTES = 4096  # a partner that lets us have less each time is not worth the requests
UNTAKEN_SECONDS = 60  # what we sent may wait so long for the partner's kernel: then the connection is dead
MIN_SKEW_SECONDS = 30  # proofs bear 60 s; what is less than half of it is not why we were refused

_BASE_WITH_PATH = re.compile(r"([^/]+//[^/]+)((?:/[A-Za-z0-9._~-]{1,64}){0,8})")
_ETAG = re.compile(r'"([0-9a-f]{64})"')
_HASH = re.compile(r"[0-9a-f]{64}")
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,16})-([0-9]{1,16})/([0-9]{1,16})")  # RFC 9110 14.4
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+")  # RFC 6750 2.1
_OAUTH_WORD = re.compile(r"[a-z_]{1,40}")
_NONCE = re.compile(r"[!#-\[\]-~]{1,256}")  # RFC 9449 8.1; ours have 32 characters
_HTTP_DATE = re.compile(r"[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT")
_NONCE_WANTED = "use_dpop_nonce"
# No user, path, query, fragment, escape, zone or backslash; a port is written out in digits.


@dataclass(frozen=True, slots=True)
class LinkLimits:
    """How long a partner may take. Seconds."""

    connect_seconds: float = 10.0
    read_seconds: float = 30.0  # between two reads: also while the partner works on what we sent
    total_seconds: float = 300.0  # of everything but a page that comes, and of what is sent beyond the time it takes
    pause_seconds: float = 0.5  # before a request is repeated; twice as long before each further repetition
    least_bytes_per_second: int = 1024  # of a page that comes, as the gateways' own doors ask of each other
    sent_bytes_per_second: int = 16_384  # what we send may take so long, and wait in the kernel for as long again


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    media_type: str
    etag: str
    body: bytes
    nonce: str = ""
    challenge: str = ""
    date: int | None = None  # Unix seconds


class _LostError(PartnerError):
    """No connection, or no answer in time."""


class BrokenOffError(_LostError):
    """The connection was there, and then no more."""


@dataclass(slots=True)
class _Download:
    """What has come of one envelope so far, and under which entity tag the partner will know the rest of it."""

    octets: bytearray = field(default_factory=bytearray)
    etag: str = ""

    @property
    def wanted(self) -> dict[str, str]:
        """The headers that ask for the rest (RFC 9110 13.1.5 and 14.2); none where there is no rest to ask for."""
        if not self.octets or not self.etag:
            return {}
        return {"Range": f"bytes={len(self.octets)}-", "If-Range": f'"{self.etag}"'}

    def begin(self, response: aiohttp.ClientResponse) -> None:
        """Before the body is read: the rest of what is here, or another whole."""
        found = _ETAG.fullmatch(response.headers.get("ETag", ""))
        if response.status == 200:
            self.octets.clear()
            self.etag = "" if found is None else found[1]
            return
        said = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if said is None or found is None or found[1] != self.etag:
            raise PartnerError("the partner answers with a part of something else")
        first, last, total = map(int, said.groups())
        if first != len(self.octets) or last != total - 1 or response.content_length != total - first:
            raise PartnerError("the partner answers with another part of it than was asked for")


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    renew_at: int


class PartnerLink:
    """One partner over HTTP. An async context manager: connections end with it.

    Every function that asks the partner raises, besides what it says itself:

    - PartnerError: no answer within `limits`, or one that its contract does not allow. BrokenOffError, which is one,
      where the connection broke off more often than is repeated.
    - UnauthenticatedError: the partner gives us no token; with how far the clocks stand apart, where they do.
    - OverloadedError, RateLimitedError: the partner has no time for us now; `retry_after_seconds` says when.
    - Any other GatewayError: what the partner answered with a problem (`contracts/problems.md`), as here.

    Args:
        card: the partner's identity card, as enrolled.
        token_key: our token key, whose public half the partner holds.
        own_agency: who we are.
        clock: Unix seconds.
        tls: how the certificate of a partner without pins is verified, instead of by the authorities of this machine.

    Raises:
        PartnerError: the card's URL is not one that we call.
    """

    def __init__(
        self,
        card: IdentityCard,
        token_key: TokenKey,
        own_agency: str,
        clock: Callable[[], int],
        random: Random,
        *,
        tls: ssl.SSLContext | None = None,
        limits: LinkLimits | None = None,
    ) -> None:
        self._card = card
        self._base = base_url(card.url)
        self._issuer = card.url.rstrip("/")  # compared letter by letter (RFC 8414 3.3), so not in another spelling
        self._key = token_key
        self._own = own_agency
        self._clock = clock
        self._random = random
        self._tls = tls
        self._limits = limits or LinkLimits()
        self._session: aiohttp.ClientSession | None = None
        self._token: _Token | None = None
        self._nonce = ""
        self._renewing = asyncio.Lock()
        self.moved_bytes = 0  # came and went so far: as long as it grows the link is alive

    async def __aenter__(self) -> Self:
        limits = self._limits
        # On a loopback address without TLS nobody needs the authorities of this machine, which take long to read.
        tls = partner_tls(self._card.tls_pins, self._tls) if self._base.startswith("https:") else True
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=tls, ttl_dns_cache=None, limit=4, socket_factory=_socket),
            timeout=aiohttp.ClientTimeout(total=limits.total_seconds, sock_connect=limits.connect_seconds),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept-Encoding": "identity", "User-Agent": "partner-exchange/1"},
            auto_decompress=False,
            trust_env=False,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    # What partners are asked

    async def sets(self) -> list[dict[str, object]]:
        """The sets that the partner offers us: each with `set` and `purpose`."""
        answer = await self._ask("GET", "/v1/sets", max_bytes=MAX_LIST_BYTES)
        listed = _json_object(answer).get("sets")
        if not isinstance(listed, list) or len(listed) > MAX_SETS:
            raise PartnerError("the partner's list of sets is not a list within bounds")
        return [_offered(one, self._card.agency) for one in listed]

    async def head(self, set_name: str, etag: str) -> tuple[str, bytes] | None:
        """(entity tag, sealed feed head) of a set; None when it is still the one of `etag` ("": we hold none).

        Raises:
            MalformedError: not a set name.
            NotFoundError: no such set, or none of which policy there shows us anything.
        """
        headers = {"If-None-Match": f'"{etag}"'} if etag else {}
        path = f"/v1/sets/{_checked(set_name)}/head"
        answer = await self._ask("GET", path, headers=headers, max_bytes=MAX_DOCUMENT_BYTES + SEAL_BYTES)
        if answer.status == 304 and etag:
            return None
        found = _ETAG.fullmatch(answer.etag)
        if answer.status != 200 or found is None:
            raise PartnerError("the partner's answer is not a feed head with its entity tag")
        return found[1], _envelope(answer)

    async def changes(self, set_name: str, cursor: Cursor) -> bytes | None:
        """The sealed page after a cursor, None when there is nothing to bring. The head is asked for before.

        Raises:
            MalformedError: not a set name.
            NotFoundError: no such set, or not for us.
            ConflictError: the view has changed since the head.
            StaleCursorError: what was withdrawn since the cursor is no longer remembered there.
        """
        path = f"/v1/sets/{_checked(set_name)}/changes"
        query = f"epoch={cursor.epoch}&view={cursor.view}&seq={cursor.seq}"
        answer = await self._download(path, query, MAX_PAGE_BYTES + SEAL_BYTES)
        return None if answer.status == 204 else _envelope(answer)

    async def post_envelope(self, body: bytes) -> tuple[str, bytes]:
        """(media type, body) of the partner's answer to an envelope.

        That is a receipt, or for a feed head the cursor to push from. The same envelope may be posted again: it gets
        the same answer, and has no second effect.

        Raises:
            VerificationError, DeniedError: the partner does not take it, for what it is or by its policy.
            ConflictError: the message id was used for another; a StaleCursorError says where the partner stands.
            TooLargeError: larger than the partner takes.
        """
        answer = await self._ask(
            "POST",
            "/v1/envelopes",
            headers={"Content-Type": ENVELOPE_TYPE},
            body=body,
            max_bytes=MAX_RECEIPT_BYTES,
        )
        return answer.media_type, answer.body

    async def compare(self, set_name: str, body: bytes) -> bytes | None:
        """The partner's sealed answer to a sealed question of comparison 1, None where there is nothing to bring."""
        answer = await self._ask(
            "POST",
            f"/v1/sets/{_checked(set_name)}/compare",
            headers={"Content-Type": ENVELOPE_TYPE},
            body=body,
            max_bytes=MAX_PAGE_BYTES + SEAL_BYTES,
        )
        return None if answer.status == 204 else _envelope(answer)

    async def look_up(self, body: bytes) -> bytes:
        """The partner's sealed answer to a sealed question of look-up 1."""
        answer = await self._ask(
            "POST",
            "/v1/look-up",
            headers={"Content-Type": ENVELOPE_TYPE},
            body=body,
            max_bytes=MAX_LOOK_UP_ANSWER_BYTES + SEAL_BYTES,
        )
        return _envelope(answer)

    async def mailbox(self, after: int) -> bytes | None:
        """Sealed mailbox messages above a number, None without any."""
        answer = await self._ask(
            "GET", "/v1/mailbox", query=f"after={after}", max_bytes=MAX_DOCUMENT_BYTES + SEAL_BYTES
        )
        return None if answer.status == 204 else _envelope(answer)

    async def keys(self, held: KeyConfirmation) -> bytes | None:
        """What the partner says of its keys beyond what we hold of them (key-statements 1), None without anything."""
        query = f"card={held.card_digest}&signing_number={held.signing_number}&revocations={held.revocations}"
        answer = await self._ask("GET", "/v1/keys", query=query, max_bytes=MAX_KEYS_BYTES)
        return None if answer.status == 204 else answer.body

    async def post_keys(self, news: bytes) -> KeyConfirmation:
        """Tell the partner of our keys; returns what it says that it holds of them then."""
        headers = {"Content-Type": keys_type(news)}
        answer = await self._ask("POST", "/v1/keys", headers=headers, body=news, max_bytes=MAX_LIST_BYTES)
        try:
            return KeyConfirmation.from_json(_json_object(answer))
        except MalformedError as error:
            raise PartnerError("the partner does not say what it holds of our keys") from error

    async def card(self) -> bytes:
        """The partner's identity card as it hands it out now."""
        return (await self._ask("GET", "/v1/card", max_bytes=MAX_CARD_BYTES)).body

    async def checkpoint(self) -> bytes:
        """The newest checkpoint of the partner's log, unverified."""
        return (await self._ask("GET", "/v1/log/checkpoint", max_bytes=MAX_NOTE_BYTES)).body

    async def consistency(self, old: int, new: int) -> tuple[bytes, ...]:
        """The hashes by which the partner shows that its log of `new` leaves extends that of `old`, unverified."""
        answer = await self._ask("GET", "/v1/log/consistency", query=f"old={old}&new={new}", max_bytes=MAX_LIST_BYTES)
        proof = _json_object(answer).get("proof")
        if not isinstance(proof, list) or not all(isinstance(n, str) and _HASH.fullmatch(n) for n in proof):
            raise PartnerError("the partner's proof is not made of hashes")
        return tuple(bytes.fromhex(str(node)) for node in proof)

    async def post_cosignature(self, body: bytes) -> None:
        """The partner has taken our cosignature of its checkpoint: a note with our line (log 1, rule 10)."""
        headers = {"Content-Type": NOTE_TYPE}
        await self._ask("POST", "/v1/log/cosignature", headers=headers, body=body, max_bytes=MAX_LIST_BYTES)

    async def witnessed(self) -> tuple[ToldLog, ...]:
        """Third agencies' logs, and ours, as the partner witnessed them, unverified."""
        answer = await self._ask("GET", "/v1/log/witnessed", max_bytes=MAX_TOLD_BYTES)
        try:
            return parse_told(_json_object(answer).get("logs"))
        except MalformedError as error:
            raise PartnerError("the partner's list of witnessed logs is not one") from error

    # Inside

    async def _download(self, path: str, query: str, max_bytes: int) -> _Answer:
        """A page, whole. Where the connection breaks off it goes on with what is missing, as long as more comes."""
        download, most, idle = _Download(), 0, 0
        while True:
            try:
                answer = await self._ask_once("GET", path, query=query, max_bytes=max_bytes, download=download)
            except _LostError as error:
                if not download.octets and not isinstance(error, BrokenOffError):
                    raise  # it was never there
                idle = 0 if len(download.octets) >= most + PROGRESS_BYTES else idle + 1
                most = max(most, len(download.octets))
                if idle == MAX_IDLE_TRIES:
                    raise
                await self._pause(max(1, idle))
            else:
                return replace(answer, status=200) if answer.status == 206 else answer

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        max_bytes: int,
        query: str = "",
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> _Answer:
        """The partner's answer to an authenticated request, repeated where the connection breaks off."""
        for tries in range(1, MAX_TRIES):
            with suppress(BrokenOffError):
                return await self._ask_once(method, path, max_bytes=max_bytes, query=query, headers=headers, body=body)
            await self._pause(tries)
        return await self._ask_once(method, path, max_bytes=max_bytes, query=query, headers=headers, body=body)

    async def _pause(self, tries: int) -> None:
        await asyncio.sleep(self._limits.pause_seconds * 2 ** (tries - 1))

    async def _ask_once(
        self,
        method: str,
        path: str,
        *,
        max_bytes: int,
        query: str = "",
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        download: _Download | None = None,
    ) -> _Answer:
        """The partner's answer to an authenticated request; its problem is raised as the error that it stands for."""
        for attempt in (1, 2):
            token = await self._access_token()
            entry = {**(headers or {}), "Authorization": f"DPoP {token}"}
            answer = await self._proved(
                method, path, token, query=query, headers=entry, body=body, max_bytes=max_bytes, download=download
            )
            if answer.status != 401 or _wants_nonce(answer) or attempt == 2:
                break
            # The partner has forgotten the token: restarted on another database, or we were suspended.
            self._token = None
        if answer.status == 401:
            raise self._with_skew(_restated(answer), answer)
        if answer.status >= 400:
            raise _restated(answer)
        if answer.status not in (200, 204, 304) and not (answer.status == 206 and download is not None):
            raise PartnerError(f"the partner answered with status {answer.status}, which nobody asked for")
        return answer

    async def _access_token(self) -> str:
        async with self._renewing:
            if self._token is None or self._clock() >= self._token.renew_at:
                self._token = await self._new_token()
            return self._token.text

    async def _new_token(self) -> _Token:
        now, path = self._clock(), "/v1/token"
        form = {
            "grant_type": "client_credentials",
            "client_assertion_type": ASSERTION_TYPE,
            "client_assertion": make_assertion(self._key, self._own, self._issuer, now, new_message_id(self._random)),
        }
        answer = await self._proved(
            "POST",
            path,
            None,
            headers={"Content-Type": FORM_TYPE},
            body=urlencode(form).encode("ascii"),
            max_bytes=MAX_TOKEN_ANSWER_BYTES,
        )
        if answer.status in (400, 401) and answer.media_type == "application/json":
            raise self._with_skew(_refused(answer), answer)
        if answer.status >= 400:
            raise _restated(answer)
        members = _json_object(answer)
        token, seconds = members.get("access_token"), members.get("expires_in")
        if not isinstance(token, str) or not _TOKEN.fullmatch(token) or len(token) > MAX_ACCESS_TOKEN_CHARS:
            raise PartnerError("the partner's token is not one")
        if members.get("token_type") != "DPoP" or not isinstance(seconds, int) or isinstance(seconds, bool):
            raise PartnerError("the partner's token is not bound to our key, or has no end")
        return _Token(token, now + min(seconds, MAX_TOKEN_SECONDS) - MIN_TOKEN_SECONDS)

    async def _proved(
        self,
        method: str,
        path: str,
        token: str | None,
        *,
        max_bytes: int,
        query: str = "",
        headers: Mapping[str, str],
        body: bytes | None = None,
        download: _Download | None = None,
    ) -> _Answer:
        """The answer to a request with a proof of our key; repeated once where the partner asks for a newer nonce."""

        async def ask() -> _Answer:
            wanted = {} if download is None else download.wanted
            entry = {**headers, **wanted, "DPoP": self._proof(method, path, token)}
            return await self._request(
                method, path, query=query, headers=entry, body=body, max_bytes=max_bytes, download=download
            )

        answer = await ask()
        return await ask() if _wants_nonce(answer) else answer

    def _proof(self, method: str, path: str, token: str | None) -> str:
        jti, nonce = new_message_id(self._random), self._nonce or None
        return make_dpop(self._key, method, self._base + path, self._clock(), jti, access_token=token, nonce=nonce)

    def _with_skew(self, error: GatewayError, answer: _Answer) -> GatewayError:
        """The refusal, with what the two clocks have to do with it."""
        apart = 0 if answer.date is None else self._clock() - answer.date
        if abs(apart) < MIN_SKEW_SECONDS:
            return error
        return UnauthenticatedError(
            f"{error.message}; our clock and the partner's stand {abs(apart)} s apart, "
            f"ours {'ahead' if apart > 0 else 'behind'}",
            remedy="set the clock that is wrong (NTP)",
        )

    async def _request(
        self,
        method: str,
        path: str,
        *,
        max_bytes: int,
        query: str = "",
        headers: Mapping[str, str],
        body: bytes | None = None,
        download: _Download | None = None,
    ) -> _Answer:
        if self._session is None:
            raise PartnerError("the link to the partner is closed")
        url = self._base + path + (f"?{query}" if query else "")
        time = self._time_for(body, download)
        async with (
            _plain_words(),
            self._session.request(
                method, url, headers=headers, data=body, allow_redirects=False, timeout=time
            ) as response,
        ):
            if response.headers.get("Content-Encoding", "identity") != "identity":
                raise PartnerError("the partner compresses its answer, which nobody asked for")
            bound = max_bytes if response.status < 400 else MAX_PROBLEM_BYTES
            said = response.headers
            answer = _Answer(
                status=response.status,
                media_type=response.content_type,
                etag=said.get("ETag", ""),
                body=await self._read(response, bound, download),
                nonce=said.get("DPoP-Nonce", ""),
                challenge=said.get("WWW-Authenticate", ""),
                date=_date(said.get("Date", "")),
            )
        self.moved_bytes += len(body or b"")
        if _NONCE.fullmatch(answer.nonce):
            self._nonce = answer.nonce
        return answer

    def _time_for(self, body: bytes | None, download: _Download | None) -> aiohttp.ClientTimeout:
        """How long an answer may take. aiohttp's time between two reads begins when what we send is in the kernel."""
        limits = self._limits
        sending = len(body or b"") / limits.sent_bytes_per_second
        return aiohttp.ClientTimeout(
            total=None if download is not None else limits.total_seconds + 2 * sending,
            sock_connect=limits.connect_seconds,
            sock_read=limits.read_seconds + sending,
        )

    async def _read(self, response: aiohttp.ClientResponse, max_bytes: int, download: _Download | None) -> bytes:
        """The body of an answer within its bound; what comes of a page is kept even if the rest does not."""
        read = bytearray()
        if download is not None and response.status in (200, 206):
            download.begin(response)
            read = download.octets
        if len(read) + (response.content_length or 0) > max_bytes:
            raise PartnerError("the partner's answer is larger than its contract allows")
        loop, before = asyncio.get_running_loop(), len(read)
        began = loop.time()
        async for piece in response.content.iter_any():
            read += piece
            self.moved_bytes += len(piece)
            if len(read) > max_bytes:
                raise PartnerError("the partner's answer is larger than its contract allows")
            waited = loop.time() - began - self._limits.read_seconds
            if download is not None and waited * self._limits.least_bytes_per_second > len(read) - before:
                raise PartnerError("the partner's page comes too slowly")
        return bytes(read)


@asynccontextmanager
async def _plain_words() -> AsyncIterator[None]:
    """Trouble on the way as PartnerErrors in our words."""
    try:
        yield
    except aiohttp.ClientConnectorCertificateError as error:
        if isinstance(error.certificate_error, NotPinnedError):
            raise PartnerError(
                "the partner's TLS certificate is not one that its identity card pins",
                remedy="ask the partner, over another channel, whether it has a new certificate, and for its new card",
            ) from error
        raise PartnerError("the partner's TLS certificate does not verify") from error
    except aiohttp.ClientSSLError as error:
        raise PartnerError("there is no TLS connection with the partner") from error
    except aiohttp.ClientConnectorError as error:
        raise _LostError(
            "the partner cannot be reached",
            remedy="ask its people whether its gateway runs, and whether this machine may reach it",
        ) from error
    except TimeoutError as error:
        raise _LostError("the partner did not answer in time", remedy="try again later") from error
    except (aiohttp.ClientError, OSError) as error:
        raise BrokenOffError("the connection with the partner broke off") from error


class HashSharingLink:
    """An NCMEC-style server over HTTP, as the settings name it: the same rules, but that a password says who calls.

    Args:
        url: its base URL: scheme, host, port, and a path that ends before `/v2`.
        tls: how its certificate is verified, instead of by the authorities of this machine.

    Raises:
        PartnerError: the URL is not one that we call.
    """

    def __init__(
        self, url: str, user: str, password: str, *, tls: ssl.SSLContext | None = None, limits: LinkLimits | None = None
    ) -> None:
        match = _BASE_WITH_PATH.fullmatch(url)
        if match is None:
            raise PartnerError("the server's URL is more than scheme, host, port and path")
        self._base = base_url(match[1]) + match[2]
        self._headers = {"Authorization": aiohttp.encode_basic_auth(user, password)}
        self._tls = tls
        self._limits = limits or LinkLimits()
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        limits = self._limits
        tls = partner_tls((), self._tls) if self._base.startswith("https:") else True
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=tls, limit=1, socket_factory=_socket),
            timeout=aiohttp.ClientTimeout(
                total=limits.total_seconds, sock_connect=limits.connect_seconds, sock_read=limits.read_seconds
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept-Encoding": "identity", "User-Agent": "partner-exchange/1"},
            auto_decompress=False,
            trust_env=False,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def page(self, path: str) -> bytes:
        """The answer to a GET of the base URL and this path and query, which is taken as it is.

        Raises:
            MalformedError, NotFoundError: the server does not know what was asked for. ConflictError: it goes on from a
                backup, so that our place in its list counts no more. UnauthenticatedError: it does not let us in.
                OverloadedError: it asks us to come later. PartnerError: anything else that goes wrong.
        """
        if self._session is None:
            raise PartnerError("the link to the server is closed")
        # As it is: the library would otherwise write some escapes in another way, and the server compares.
        url = aiohttp.client.URL(self._base + path, encoded=True)  # type: ignore[attr-defined]  # what aiohttp takes
        async with _plain_words(), self._session.get(url, headers=self._headers, allow_redirects=False) as response:
            if response.headers.get("Content-Encoding", "identity") != "identity":
                raise PartnerError("the server compresses its answer, which nobody asked for")
            if response.status == 409:
                remedy = "name a new set for it (`hashsharing_set`), and withdraw the old one's entries"
                raise ConflictError("the server has begun anew; what it listed before counts no more", remedy=remedy)
            if response.status != 200:
                raise _SAYS.get(response.status, PartnerError)("the server does not answer what it was asked")
            read = bytearray()
            async for piece in response.content.iter_any():
                read += piece
                if len(read) > MAX_SOURCE_PAGE_BYTES:
                    raise PartnerError("the server's answer is larger than a page can be")
        return bytes(read)


_SAYS: Mapping[int, type[GatewayError]] = {
    400: MalformedError,
    401: UnauthenticatedError,
    403: UnauthenticatedError,
    404: NotFoundError,
    410: NotFoundError,
    429: OverloadedError,
    503: OverloadedError,
}


def _socket(address: AddrInfoType) -> socket.socket:
    """A socket that does not wait for ever for a peer that takes nothing any more."""
    made = socket.socket(*address[:3])
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNTAKEN_SECONDS * 1000)
    return made


def _restated(answer: _Answer) -> GatewayError:
    return from_problem(answer.status, answer.body)


def _wants_nonce(answer: _Answer) -> bool:
    """Whether the partner asks for the nonce that it gives (RFC 9449 8 and 9)."""
    if _NONCE.fullmatch(answer.nonce) is None:
        return False
    if answer.status == 401:
        return f'error="{_NONCE_WANTED}"' in answer.challenge
    is_oauth = answer.status == 400 and answer.media_type == "application/json"
    return is_oauth and _json_object(answer).get("error") == _NONCE_WANTED


def _date(text: str) -> int | None:
    """Unix seconds of a `Date` header (RFC 9110 5.6.7), None where it is not one."""
    if _HTTP_DATE.fullmatch(text) is None:
        return None
    try:
        return int(parsedate_to_datetime(text).timestamp())
    except (ValueError, OverflowError):
        return None


def _refused(answer: _Answer) -> GatewayError:
    """What the partner's token endpoint says with an OAuth error (RFC 6749 5.2)."""
    word = _json_object(answer).get("error")
    shown = f": {word}" if isinstance(word, str) and _OAUTH_WORD.fullmatch(word) else ""
    return UnauthenticatedError(
        f"the partner gave us no token{shown}",
        remedy="compare clocks, and ask the partner whether we are enrolled with our present identity card",
    )


def _json_object(answer: _Answer) -> dict[str, JsonValue]:
    try:
        value = parse_json(answer.body, max_bytes=MAX_LIST_BYTES, max_depth=4)
    except MalformedError as error:
        raise PartnerError("the partner's answer is not the JSON of its contract") from error
    if not isinstance(value, dict):
        raise PartnerError("the partner's answer is not the JSON of its contract")
    return value


def _offered(one: JsonValue, owner: str) -> dict[str, object]:
    if not isinstance(one, dict) or set(one) != {"set", "purpose"}:
        raise PartnerError("the partner offers something that is not a set")
    name, purpose = one["set"], one["purpose"]
    if not isinstance(name, str) or SET_NAME.fullmatch(name) is None or not name.startswith(f"{owner}/"):
        raise PartnerError("the partner offers a set that is not its own")
    if not isinstance(purpose, str) or len(purpose) > MAX_TEXT_CHARS:
        raise PartnerError("the partner offers a set without a purpose")
    return {"set": name, "purpose": purpose}


def _checked(set_name: str) -> str:
    """A set name as a part of a path: nothing in it ever needs an escape."""
    if SET_NAME.fullmatch(set_name) is None:
        raise MalformedError("not a set name")
    return set_name


def _envelope(answer: _Answer) -> bytes:
    if answer.status != 200 or answer.media_type != ENVELOPE_TYPE:
        raise PartnerError("the partner's answer is not an envelope")
    return answer.body
