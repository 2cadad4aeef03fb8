"""The doors over real sockets: what a partner gets, and what everybody else and everything odd gets."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import pytest
import pytest_asyncio
from multidict import CIMultiDict

from factory import (
    FakeClock,
    befriend,
    card_of,
    drafts,
    events,
    link_to,
    loopback,
    make_node,
    make_set,
    serving,
    set_state,
    signed_card_of,
)
from gateway.audit import EventKind
from gateway.callers import ASSERTION_TYPE, GRANT_TYPE
from gateway.client import ENVELOPE_TYPE
from gateway.crypto import checkpoint, merkle
from gateway.crypto.checkpoint import VerifierKey
from gateway.crypto.keys import new_message_id
from gateway.crypto.tokens import make_assertion, make_dpop
from gateway.doors.answers import CHALLENGE
from gateway.doors.native import SPOOL_BYTES
from gateway.exchange import CURSOR_MEDIA_TYPE, RECEIPT_MEDIA_TYPE, Exchange
from gateway.interchange import START, Cursor, parse_card
from gateway.model import Restriction
from gateway.node import Node
from gateway.store.people import EVERYTHING

FORM = "application/x-www-form-urlencoded"
PROBLEM = "application/problem+json"


@dataclass(frozen=True)
class Answer:
    """An answer as it came."""

    status: int
    headers: CIMultiDict[str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Caller:
    """A partner with its own hands on headers and bodies."""

    here: Node
    there: Node
    session: aiohttp.ClientSession
    token: str = ""
    at: str = ""  # where it really listens, if that is not where its card says
    nonce: str | None = None  # the newest that it was given

    def proof(self, method: str, path: str, *, token: str | None = None, base: str = "") -> str:
        url = (base or self.there.settings.public_url) + path.partition("?")[0]
        jti = new_message_id(self.here.random)
        key, now = self.here.keystore.token_key, self.here.clock()
        return make_dpop(key, method, url, now, jti, access_token=token, nonce=self.nonce)

    def form(self) -> dict[str, str]:
        jti = new_message_id(self.here.random)
        issuer = self.there.settings.public_url
        assertion = make_assertion(self.here.keystore.token_key, self.here.agency, issuer, self.here.clock(), jti)
        return {"grant_type": GRANT_TYPE, "client_assertion_type": ASSERTION_TYPE, "client_assertion": assertion}

    async def plain(self, method: str, path: str, **options: Any) -> Answer:
        url = (self.at or self.there.settings.public_url) + path
        options.setdefault("allow_redirects", False)
        async with self.session.request(method, aiohttp.client.URL(url, encoded=True), **options) as response:
            self.nonce = response.headers.get("DPoP-Nonce", self.nonce)
            return Answer(response.status, CIMultiDict(response.headers), await response.read())

    async def learn(self) -> None:
        """Ask for a nonce, as who comes for the first time does."""
        if self.nonce is None:
            headers = {"DPoP": self.proof("POST", "/v1/token")}
            answer = await self.plain("POST", "/v1/token", data=self.form(), headers=headers)
            assert (answer.status, answer.json["error"]) == (400, "use_dpop_nonce")

    async def ask_token(self, form: Any = None, **headers: str) -> Answer:
        await self.learn()
        headers.setdefault("DPoP", self.proof("POST", "/v1/token"))
        return await self.plain("POST", "/v1/token", data=self.form() if form is None else form, headers=headers)

    async def ask(self, method: str, path: str, **options: Any) -> Answer:
        if not self.token:
            self.token = (await self.ask_token()).json["access_token"]
        headers = {
            "Authorization": f"DPoP {self.token}",
            "DPoP": self.proof(method, path, token=self.token),
            **options.pop("headers", {}),
        }
        return await self.plain(method, path, headers=headers, **options)

    async def post(self, body: Any, **headers: str) -> Answer:
        return await self.ask("POST", "/v1/envelopes", data=body, headers={"Content-Type": ENVELOPE_TYPE, **headers})


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def xa(tmp_path: Path, clock: FakeClock) -> Exchange:
    return Exchange(make_node(tmp_path, "XA-NCVI", clock=clock, **loopback(max_envelope_bytes=4 << 20)))


@pytest.fixture
def xb(tmp_path: Path, clock: FakeClock, xa: Exchange) -> Exchange:
    node = make_node(tmp_path, "XB-NCVI", clock=clock, **loopback())
    befriend(xa.node, node)
    return Exchange(node)


@pytest_asyncio.fixture
async def caller(xa: Exchange, xb: Exchange) -> AsyncIterator[Caller]:
    """XB, calling XA over a socket."""
    async with serving(xa), aiohttp.ClientSession(auto_decompress=False) as session:
        yield Caller(xb.node, xa.node, session)


def bare(answer: Answer) -> tuple[int, dict[str, str], bytes]:
    """Everything of an answer but the time."""
    return answer.status, {name: value for name, value in answer.headers.items() if name != "Date"}, answer.body


def pushed(xb: Exchange, entries: int = 3) -> tuple[str, bytes, bytes]:
    """A set of XB, with the head and the page that would push it to XA."""
    name = make_set(xb, "listed", drafts(entries))
    head = xb.head_for("XA-NCVI", name)
    page = xb.page_to_push("XA-NCVI", name, START)
    assert page is not None
    return name, head.body, page.body


# Tokens


async def test_the_token_endpoint_answers_as_oauth_wants(caller: Caller) -> None:
    answer = await caller.ask_token()
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Cache-Control"] == "no-store"
    assert set(answer.json) == {"access_token", "expires_in", "scope", "token_type"}
    assert answer.headers["DPoP-Nonce"]


async def test_who_comes_without_a_nonce_is_given_one(caller: Caller) -> None:
    clock = caller.there.clock
    first = await caller.plain(
        "POST", "/v1/token", data=caller.form(), headers={"DPoP": caller.proof("POST", "/v1/token")}
    )
    assert (first.status, first.json["error"], len(first.headers["DPoP-Nonce"])) == (400, "use_dpop_nonce", 32)
    await caller.ask("GET", "/v1/sets")
    caller.nonce = None
    headers = {"Authorization": f"DPoP {caller.token}", "DPoP": caller.proof("GET", "/v1/sets", token=caller.token)}
    again = await caller.plain("GET", "/v1/sets", headers=headers)
    assert (again.status, again.headers["WWW-Authenticate"]) == (401, f'{CHALLENGE}, error="use_dpop_nonce"')
    assert (await caller.ask("GET", "/v1/sets")).status == 200  # with the nonce that came with it
    assert isinstance(clock, FakeClock)
    for seconds, is_fresh in ((149, False), (1, True), (10, False)):
        clock.advance(seconds)
        assert ("DPoP-Nonce" in (await caller.ask("GET", "/v1/sets")).headers) is is_fresh
    assert events(caller.there, EventKind.TOKEN_REFUSED) == []


async def test_refusals_are_dated_by_the_clock_that_judged(caller: Caller) -> None:
    assert isinstance(caller.there.clock, FakeClock)
    for answer in (
        await caller.plain("POST", "/v1/token", data={"grant_type": "password"}),
        await caller.ask_token({**caller.form(), "client_assertion": "x.y.z"}),
        await caller.plain("GET", "/v1/sets"),
    ):
        assert answer.status in (400, 401)
        assert parsedate_to_datetime(answer.headers["Date"]).timestamp() == caller.there.clock()


async def test_a_token_of_one_surface_opens_no_other(caller: Caller) -> None:
    for scope, path, other in (("log", "/v1/log/checkpoint", "/v1/sets"), ("native", "/v1/sets", "/v1/log/checkpoint")):
        answer = await caller.ask_token({**caller.form(), "scope": scope})
        caller.token = answer.json["access_token"]
        assert answer.json["scope"] == scope
        assert (await caller.ask("GET", path)).status == 200
        refused = await caller.ask("GET", other)
        assert (refused.status, refused.json["type"]) == (403, "urn:gateway:problem:denied")
        missing = "native" if scope == "log" else "log"
        challenge = f'{CHALLENGE}, error="insufficient_scope", scope="{missing}"'
        assert refused.headers["WWW-Authenticate"] == challenge
    refused = await caller.ask_token({**caller.form(), "scope": "taxii"})
    assert (refused.status, refused.json["error"]) == (400, "invalid_scope")


async def test_token_refusals_are_oauth_errors(caller: Caller) -> None:
    form = caller.form()
    assert (await caller.ask_token(form)).status == 200
    replayed = await caller.ask_token(form)
    assert (replayed.status, replayed.json["error"]) == (401, "invalid_client")
    assert replayed.headers["WWW-Authenticate"] == CHALLENGE
    no_proof = await caller.plain("POST", "/v1/token", data=caller.form())
    assert (no_proof.status, no_proof.json["error"]) == (400, "invalid_dpop_proof")
    grant = await caller.ask_token({**caller.form(), "grant_type": "password"})
    assert (grant.status, grant.json["error"]) == (400, "unsupported_grant_type")
    assert replayed.json["error_description"] == no_proof.json["error_description"]


async def test_a_token_request_that_is_no_strict_form_is_refused(caller: Caller) -> None:
    good = caller.form()
    twice = [*good.items(), ("grant_type", GRANT_TYPE)]
    for body, kind in (
        (urlencode(twice), FORM),
        (urlencode(good), "text/plain"),
        (urlencode([*good.items(), *((f"more{number}", "") for number in range(14))]), FORM),
        (json.dumps(good), "application/json"),
        ("grant_type", FORM),
        (b"grant_type=\xff", FORM),
        ("", FORM),
    ):
        answer = await caller.ask_token(body, **{"Content-Type": kind})
        assert (answer.status, answer.json["error"]) == (400, "invalid_request"), body
    assert (await caller.ask_token(f"client_assertion={'A' * 20_000}", **{"Content-Type": FORM})).status == 413
    assert (await caller.ask_token(good)).status == 200


async def test_the_metadata_name_issuer_and_endpoint(caller: Caller) -> None:
    answer = await caller.plain("GET", "/.well-known/oauth-authorization-server")
    url = caller.there.settings.public_url
    assert (answer.json["issuer"], answer.json["token_endpoint"]) == (url, f"{url}/v1/token")
    assert answer.json["token_endpoint_auth_methods_supported"] == ["private_key_jwt"]
    assert answer.json["scopes_supported"] == ["native", "log", "taxii", "hashsharing"]
    algorithms = ["Ed25519", "EdDSA", "ES256"]
    assert answer.json["token_endpoint_auth_signing_alg_values_supported"] == algorithms
    assert answer.json["dpop_signing_alg_values_supported"] == algorithms


# Who may come in

PARTNERS_ONLY = [
    ("GET", "/v1/card"),
    ("GET", "/v1/sets"),
    ("GET", "/v1/sets/XA-NCVI/found/head"),
    ("GET", "/v1/sets/XA-NCVI/found/changes?epoch=0&view=&seq=0"),
    ("POST", "/v1/envelopes"),
    ("GET", "/v1/mailbox?after=0"),
    ("GET", "/v1/log/checkpoint"),
    ("GET", "/v1/log/consistency?old=1&new=1"),
]


async def test_nobody_enters_without_a_proof_and_all_hear_the_same(caller: Caller) -> None:
    await caller.ask("GET", "/v1/sets")
    for method, path in PARTNERS_ONLY:
        token = caller.token
        bearer = {"Authorization": f"Bearer {token}", "DPoP": caller.proof(method, path, token=token)}
        elsewhere = {
            "Authorization": f"DPoP {token}",
            "DPoP": caller.proof(method, path, token=token, base="http://127.0.0.1:1"),
        }
        other_method = {"Authorization": f"DPoP {token}", "DPoP": caller.proof("PUT", path, token=token)}
        other_path = {"Authorization": f"DPoP {token}", "DPoP": caller.proof(method, "/v1/other", token=token)}
        answers = [
            bare(await caller.plain(method, path, headers=headers, data=b""))
            if method == "POST"
            else bare(await caller.plain(method, path, headers=headers))
            for headers in ({}, bearer, elsewhere, other_method, other_path)
        ]
        assert answers[0][0] == 401
        assert answers[0][1]["WWW-Authenticate"] == CHALLENGE
        assert all(answer == answers[0] for answer in answers), path
        assert (await caller.ask(method, path)).status != 401


async def test_a_proof_is_good_for_one_request_over_http(caller: Caller) -> None:
    await caller.ask("GET", "/v1/sets")
    headers = {"Authorization": f"DPoP {caller.token}", "DPoP": caller.proof("GET", "/v1/sets", token=caller.token)}
    assert (await caller.plain("GET", "/v1/sets", headers=headers)).status == 200
    assert (await caller.plain("GET", "/v1/sets", headers=headers)).status == 401


async def test_behind_a_proxy_proofs_are_for_the_public_address(tmp_path: Path, clock: FakeClock) -> None:
    settings = loopback()
    settings["public_url"] = "https://xa.example"
    xa = make_node(tmp_path, "XA-NCVI", clock=clock, **settings)
    xb = make_node(tmp_path, "XB-NCVI", clock=clock)
    befriend(xa, xb)
    async with serving(Exchange(xa)) as server, aiohttp.ClientSession(headers={"Host": "xa.example"}) as session:
        caller = Caller(xb, xa, session, at=f"http://127.0.0.1:{server.port}")
        assert (await caller.ask("GET", "/v1/sets")).status == 200
        inside = caller.proof("GET", "/v1/sets", token=caller.token, base="http://xa.example")
        headers = {"Authorization": f"DPoP {caller.token}", "DPoP": inside}
        assert (await caller.plain("GET", "/v1/sets", headers=headers)).status == 401


async def test_a_removed_partner_is_out_with_its_next_request(caller: Caller) -> None:
    assert (await caller.ask("GET", "/v1/sets")).status == 200
    set_state(caller.there, "XB-NCVI", "removed")
    assert (await caller.ask("GET", "/v1/sets")).status == 401


async def test_a_pause_is_told_with_the_time_to_come_back(caller: Caller) -> None:
    with caller.there.store.transaction() as tx:
        tx.people.pause(EVERYTHING, "an administrator", caller.there.clock())
    answer = await caller.ask("GET", "/v1/sets")
    assert (answer.status, answer.headers["Retry-After"]) == (503, "300")


async def test_a_partner_that_asks_too_often_hears_when_to_come_back(tmp_path: Path, clock: FakeClock) -> None:
    xa = make_node(tmp_path, "XA-NCVI", clock=clock, **loopback(requests_per_minute=60))
    xb = make_node(tmp_path, "XB-NCVI", clock=clock)
    befriend(xa, xb)
    async with serving(Exchange(xa)), aiohttp.ClientSession() as session:
        caller = Caller(xb, xa, session)
        answers = [await caller.ask("GET", "/v1/card") for _ in range(20)]
    statuses = [answer.status for answer in answers]
    assert statuses[:10] == [200] * 10
    limited = answers[statuses.index(429)]
    assert int(limited.headers["Retry-After"]) >= 1
    assert limited.json["type"] == "urn:gateway:problem:rate-limited"


async def test_a_partner_gets_our_identity_card(caller: Caller) -> None:
    answer = await caller.ask("GET", "/v1/card")
    assert parse_card(answer.body).fingerprint == card_of(caller.there).fingerprint
    assert answer.body == signed_card_of(caller.there) or parse_card(answer.body).agency == "XA-NCVI"


# Reading


async def test_absent_and_forbidden_sets_look_the_same(caller: Caller, xa: Exchange) -> None:
    make_set(xa, "secret", drafts(3, restrictions=(Restriction.EMBARGO,)))
    assert (await caller.ask("GET", "/v1/sets")).json == {"sets": []}
    for rest in ("head", "changes?epoch=0&view=&seq=0"):
        answers = [
            bare(await caller.ask("GET", f"/v1/sets/{name}/{rest}"))
            for name in ("XA-NCVI/secret", "XA-NCVI/absent", "XC-NCVI/secret", "XB-NCVI/secret", "lower/UPPER")
        ]
        assert answers[0][0] == 404
        assert answers[0][1]["Content-Type"] == PROBLEM
        assert all(answer == answers[0] for answer in answers)


async def test_a_mirror_is_not_served_on(caller: Caller, xa: Exchange, xb: Exchange) -> None:
    name, head, page = pushed(xb)
    assert (await caller.post(head)).status == 200
    assert (await caller.post(page)).status == 200
    assert (await caller.ask("GET", f"/v1/sets/{name}/head")).status == 404
    assert (await caller.ask("GET", "/v1/sets")).json == {"sets": []}


async def test_a_head_that_is_still_true_is_not_sent_again(caller: Caller, xa: Exchange) -> None:
    name = make_set(xa, "found", drafts(3))
    path = f"/v1/sets/{name}/head"
    first = await caller.ask("GET", path)
    assert (first.status, first.headers["Content-Type"]) == (200, ENVELOPE_TYPE)
    tag = first.headers["ETag"]
    assert re.fullmatch(r'"[0-9a-f]{64}"', tag)
    for condition in (tag, "*", f'"{"0" * 64}", {tag}', f"W/{tag}"):
        again = await caller.ask("GET", path, headers={"If-None-Match": condition})
        assert (again.status, again.body, again.headers["ETag"]) == (304, b"", tag), condition
    assert (await caller.ask("GET", path, headers={"If-None-Match": '"other"'})).body == first.body
    xa.ledger.import_entries(name, drafts(1, first=3), actor="tester", form="test")
    moved = await caller.ask("GET", path, headers={"If-None-Match": tag})
    assert moved.status == 200
    assert moved.headers["ETag"] != tag


async def test_changes_bring_a_mirror_up_to_date(caller: Caller, xa: Exchange, xb: Exchange) -> None:
    name = make_set(xa, "found", drafts(5))
    assert (await caller.ask("GET", "/v1/sets")).json == {"sets": [{"purpose": "victim_identification", "set": name}]}
    xb.take_head("XA-NCVI", (await caller.ask("GET", f"/v1/sets/{name}/head")).body)
    page = await caller.ask("GET", f"/v1/sets/{name}/changes?epoch=0&view=&seq=0")
    assert (page.status, page.headers["Content-Type"]) == (200, ENVELOPE_TYPE)
    applied = xb.take_page("XA-NCVI", page.body)
    assert (applied.changes, applied.equality) == (5, "equal")
    at = applied.cursor
    nothing = await caller.ask("GET", f"/v1/sets/{name}/changes?epoch={at.epoch}&view={at.view}&seq={at.seq}")
    assert (nothing.status, nothing.body) == (204, b"")


VIEW = "0" * 64


OTHER_SPELLINGS = [
    "",
    "?",
    "?epoch=0&view=",
    "?epoch=0&view=&seq=0&more=1",
    "?epoch=0&view=&seq=0&",
    "?epoch=0&view=&seq=0&seq=0",
    "?epoch=00&view=&seq=0",
    "?epoch=0&view=&seq=01",
    "?epoch=0&view=&seq=+1",
    "?epoch=0&view=&seq=-1",
    "?epoch=0&view=&seq=%31",
    "?epoch=0&view=&seq=1.0",
    "?epoch=0&view=&seq=",
    "?epoch=0&view=&seq=%D9%A1",
    "?epoch=65536&view=&seq=0",
    "?epoch=0&view=&seq=9007199254740992",
    f"?epoch=0&view={VIEW[:-1]}&seq=0",
    f"?epoch=0&view={VIEW[:-1]}A&seq=0",
    f"?epoch=0&view={VIEW}0&seq=0",
    "?epoch=0&view&seq=",
    "?Epoch=0&view=&seq=0",
    "?epoch=0;view=;seq=0",
]


async def test_a_query_in_another_spelling_is_refused(caller: Caller, xa: Exchange) -> None:
    name = make_set(xa, "found", drafts(1))
    for query in OTHER_SPELLINGS:
        answer = await caller.ask("GET", f"/v1/sets/{name}/changes{query}")
        assert (answer.status, answer.json["type"]) == (400, "urn:gateway:problem:malformed"), query


async def test_the_order_of_a_query_does_not_matter(caller: Caller, xa: Exchange) -> None:
    name = make_set(xa, "found", drafts(1))
    await caller.ask("GET", f"/v1/sets/{name}/head")
    assert (await caller.ask("GET", f"/v1/sets/{name}/changes?seq=0&view=&epoch=0")).status == 200


async def test_mail_comes_and_is_acknowledged_by_asking_for_more(caller: Caller, xa: Exchange, xb: Exchange) -> None:
    assert (await caller.ask("GET", "/v1/mailbox?after=0")).status == 204
    xa.mailbox.write("XB-NCVI", "note", {"text": "the series has a second name"})
    answer = await caller.ask("GET", "/v1/mailbox?after=0")
    assert answer.headers["Content-Type"] == ENVELOPE_TYPE
    assert xb.take_mail("XA-NCVI", answer.body) == 1
    assert xa.mailbox.waiting("XB-NCVI") != []
    assert (await caller.ask("GET", "/v1/mailbox?after=1")).status == 204
    assert xa.mailbox.waiting("XB-NCVI") == []
    assert (await caller.ask("GET", "/v1/mailbox?after=2")).status == 400
    assert (await caller.ask("GET", "/v1/mailbox")).status == 400


# Pushing


async def test_a_push_is_answered_by_the_cursor_and_then_by_receipts(
    caller: Caller, xa: Exchange, xb: Exchange
) -> None:
    name, head, page = pushed(xb)
    answer = await caller.post(head)
    assert (answer.status, answer.headers["Content-Type"]) == (200, CURSOR_MEDIA_TYPE)
    assert Cursor.from_json(answer.json) == START
    receipt = await caller.post(page)
    assert (receipt.status, receipt.headers["Content-Type"]) == (200, RECEIPT_MEDIA_TYPE)
    assert xa.mirrors.cursor(name).seq == 3
    again = await caller.post(page)
    assert (again.status, again.body) == (200, receipt.body)
    assert len(events(xa.node, EventKind.PUSH_RECEIVED)) == 1


async def test_a_page_that_does_not_fit_is_told_where_the_mirror_stands(caller: Caller, xb: Exchange) -> None:
    name, head, page = pushed(xb)
    early = await caller.post(page)  # its view is not announced yet, so nobody here is its audience
    assert early.status == 403
    assert (await caller.post(head)).status == 200
    assert (await caller.post(page)).status == 200
    second = xb.page_to_push("XA-NCVI", name, START)  # the same changes in another message
    assert second is not None
    stale = await caller.post(second.body)
    assert (stale.status, stale.json["type"]) == (409, "urn:gateway:problem:stale-cursor")
    assert Cursor.from_json(stale.json["cursor"]).seq == 3


async def test_any_flipped_bit_of_an_envelope_is_refused_and_changes_nothing(
    caller: Caller, xa: Exchange, xb: Exchange
) -> None:
    name, head, page = pushed(xb)
    assert (await caller.post(head)).status == 200
    before = _state(xa)
    source = random.Random(7)
    places = sorted({0, 1, len(page) - 1, *source.sample(range(len(page)), 45)})
    for place in places:
        damaged = bytearray(page)
        damaged[place] ^= 1 << source.randrange(8)
        answer = await caller.post(bytes(damaged))
        assert answer.status in (400, 403), place
        assert answer.headers["Content-Type"] == PROBLEM
    for damaged in (page[:-1], page + b"\0", page[: len(page) // 2], b""):
        assert (await caller.post(bytes(damaged))).status in (400, 403)
    assert _state(xa) == before
    assert (await caller.post(page)).status == 200
    assert xa.mirrors.cursor(name).seq == 3


def _state(exchange: Exchange) -> object:
    """Everything that a message could have changed, apart from the record that it was refused."""
    with exchange.node.store.reading() as tx:
        sets = [row.model_dump() for row in tx.sets.all()]
        blocks = [row.model_dump() for found in tx.sets.all() for row in tx.blocks.of_set(found.id or 0)]
        return sets, blocks, tx.mail.last_in("XB-NCVI"), len(events(exchange.node, EventKind.PUSH_RECEIVED))


async def test_an_envelope_of_another_sender_is_refused(caller: Caller, xa: Exchange, tmp_path: Path) -> None:
    xc = Exchange(make_node(tmp_path, "XC-NCVI", clock=FakeClock()))
    befriend(xa.node, xc.node)
    name = make_set(xc, "listed", drafts(2))
    answer = await caller.post(xc.head_for("XA-NCVI", name).body)  # XB posts what XC signed
    assert (answer.status, answer.json["type"]) == (403, "urn:gateway:problem:not-verified")


async def test_large_and_odd_bodies_are_refused_before_they_are_read(caller: Caller) -> None:
    assert (await caller.post(bytes((4 << 20) + 1))).status == 413

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield bytes(1 << 20)

    # The door stops reading in the middle, so the client may see the break before the answer.
    try:
        assert (await caller.post(endless())).status == 413
    except aiohttp.ClientError:
        assert (await caller.ask("GET", "/v1/sets")).status == 200
    assert (await caller.post(b"x", **{"Content-Encoding": "gzip"})).status == 415
    assert (await caller.post(b"x", **{"Content-Type": "application/json"})).status == 415
    assert (await caller.post(b"not an envelope")).status == 400


async def test_a_large_envelope_waits_on_disk_without_leaving_anything(
    caller: Caller, xa: Exchange, xb: Exchange
) -> None:
    name, head, page = pushed(xb, 36_000)
    assert len(page) > SPOOL_BYTES
    files = sorted(file.name for file in xa.node.settings.folder.iterdir())
    await caller.post(head)
    assert (await caller.post(page)).status == 200
    assert xa.mirrors.cursor(name).seq == 36_000
    assert sorted(file.name for file in xa.node.settings.folder.iterdir()) == files


async def test_a_full_disk_is_told_as_overload(caller: Caller, xa: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
    from gateway.doors import native

    class Full(native.SpooledTemporaryFile):  # type: ignore[type-arg, misc]
        def write(self, piece: bytes) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(native, "SpooledTemporaryFile", Full)
    answer = await caller.post(b"something")
    assert (answer.status, answer.json["type"]) == (503, "urn:gateway:problem:overloaded")


# The log


async def test_partners_get_checkpoints_and_proofs_that_verify(caller: Caller, xa: Exchange) -> None:
    key = VerifierKey.parse(card_of(xa.node).log)
    first = checkpoint.verify((await caller.ask("GET", "/v1/log/checkpoint")).body, key, key.name)
    make_set(xa, "found", drafts(2))
    note = await caller.ask("GET", "/v1/log/checkpoint")
    assert note.headers["Content-Type"] == "text/plain; charset=utf-8"
    second = checkpoint.verify(note.body, key, key.name)
    answer = await caller.ask("GET", f"/v1/log/consistency?old={first.size}&new={second.size}")
    proof = [bytes.fromhex(node) for node in answer.json["proof"]]
    merkle.verify_consistency(first.size, second.size, first.root, second.root, proof)
    for query, status in (
        (f"old=1&new={second.size + 1}", 404),
        ("old=2&new=1", 400),
        ("old=0&new=1", 400),
        ("old=1", 400),
    ):
        assert (await caller.ask("GET", f"/v1/log/consistency?{query}")).status == status, query


# Everything else


async def test_unknown_places_and_methods_get_problems(caller: Caller) -> None:
    for path in ("/", "/v1", "/v1/", "/v2/sets", "/v1/sets/XA-NCVI/found", "/v1/sets/a/b/c/head", "/admin"):
        answer = await caller.plain("GET", path)
        assert (answer.status, answer.json["type"]) == (404, "urn:gateway:problem:not-found"), path
    for method, path, allowed in (
        ("GET", "/v1/token", "POST"),
        ("DELETE", "/v1/sets", "GET"),
        ("HEAD", "/v1/sets", "GET"),
        ("OPTIONS", "/v1/card", "GET"),
        ("GET", "/v1/envelopes", "POST"),
    ):
        answer = await caller.plain(method, path)
        assert (answer.status, answer.headers["Allow"]) == (405, allowed), (method, path)


async def test_health_says_no_more_than_yes(caller: Caller) -> None:
    assert (await caller.plain("GET", "/health/live")).json == {"status": "live"}
    assert (await caller.plain("GET", "/health/ready")).json == {"status": "ready"}


async def test_a_gateway_without_its_database_is_alive_but_not_ready(caller: Caller) -> None:
    store = caller.there.store
    store.close()
    database = caller.there.settings.folder / "gateway.db"
    database.rename(database.with_suffix(".away"))
    database.mkdir()
    assert (await caller.plain("GET", "/health/live")).status == 200
    answer = await caller.plain("GET", "/health/ready")
    assert (answer.status, answer.json["detail"]) == (503, "the gateway is not ready")


async def test_metrics_are_counts_without_names(caller: Caller, xa: Exchange) -> None:
    make_set(xa, "found", drafts(2))
    await caller.ask("GET", "/v1/sets")
    answer = await caller.plain("GET", "/metrics")
    text = answer.body.decode()
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert "gateway_partners_active 1\n" in text
    assert "gateway_sets_own 1\n" in text
    assert 'gateway_answers_total{method="GET",route="/v1/sets",status="200"} 1\n' in text
    assert not re.search("NCVI|found|127", text)
    for line in text.splitlines():
        assert re.fullmatch(r'# TYPE \w+ (gauge|counter)|\w+(\{(\w+="[^"]*",?)*\})? [0-9]+', line), line


async def test_metrics_are_not_there_through_the_public_name(tmp_path: Path, clock: FakeClock) -> None:
    settings = loopback()
    settings["public_url"] = "https://xa.example"  # as behind a proxy on this machine
    node = make_node(tmp_path, "XA-NCVI", clock=clock, **settings)
    async with serving(Exchange(node)) as server, aiohttp.ClientSession() as session:

        async def status(host: str, path: str) -> tuple[int, bytes]:
            url = f"http://127.0.0.1:{server.port}{path}"
            async with session.get(url, headers={"Host": host}) as response:
                return response.status, await response.read()

        assert (await status("127.0.0.1", "/metrics"))[0] == 200
        assert await status("xa.example", "/metrics") == await status("xa.example", "/nothing")
        assert (await status("xa.example", "/health/live"))[0] == 200
        assert (await status("xd.example", "/health/live"))[0] == 400


async def test_invented_methods_do_not_make_new_metrics(caller: Caller) -> None:
    for method in ("PROPFIND", "MKCOL", "PURGE", "ABCDE"):
        await caller.plain(method, "/v1/sets")
    text = (await caller.plain("GET", "/metrics")).body.decode()
    assert 'method="other",route="none",status="405"' in text
    assert not re.search("PROPFIND|MKCOL|PURGE|ABCDE", text)


async def test_requests_at_the_same_time_get_one_and_the_same_head(caller: Caller, xa: Exchange, xb: Exchange) -> None:
    name = make_set(xa, "found", drafts(3))
    async with link_to(xa.node, xb.node) as link:
        answers = await asyncio.gather(*(link.head(name, "") for _ in range(4)))
    assert len({answer[1] for answer in answers if answer}) == 1
