"""An enrolled partner that means harm, against a real server process: everything it can try on the HTTP surface.

XA runs `gateway serve`. XB and XC are enrolled with it and hold real keys; here they are hands that write requests
byte by byte. Whatever they send, XA takes nothing in that it should not, never answers with a fault of its own, never
leaves them waiting, and neither its answers nor its log repeat what was in the data or in the attack.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
import socket
import struct
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from io import BytesIO
from typing import Any
from urllib.parse import urlencode

import aiohttp
import pytest

from factory import drafts, events, make_set, sha256
from gateway.audit import EventKind
from gateway.callers import ASSERTION_TYPE, GRANT_TYPE
from gateway.client import ENVELOPE_TYPE, FORM_TYPE
from gateway.columns.encodings import pack_octets
from gateway.crypto import age, dsse, envelope
from gateway.crypto.keys import SYSTEM_RANDOM, new_message_id
from gateway.crypto.tokens import make_assertion, make_dpop
from gateway.exchange import RECEIPT_MEDIA_TYPE, Exchange
from gateway.home import open_home
from gateway.interchange import (
    HEAD_TYPE,
    MAIL_TYPE,
    MAX_PAGE_BYTES,
    PAGE_MAGIC,
    PAGE_TYPE,
    START,
    MailMessage,
    dump_mail,
    page_front,
    parse_page,
)
from gateway.keyadmin import own_card
from gateway.model import EntryDraft, HandlingCode, Restriction
from gateway.node import Node
from partner_simulator import Rogue, held_entries
from processes import Fleet, Installed, Served

HUNG_SECONDS = 20.0  # an answer that takes longer never comes; a busy machine needs a second or two
GARBAGE = 520  # bad inputs in all, over all routes
AT_ONCE = 4

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Answer:
    """An answer as it came."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def bare(self) -> tuple[int, dict[str, str], bytes]:
        """Everything but the time."""
        return self.status, {name: value for name, value in self.headers.items() if name != "Date"}, self.body

    @property
    def problem(self) -> str:
        """The word of the problem that it brings."""
        return str(json.loads(self.body)["type"]).rpartition(":")[2]


@dataclass
class Hand:
    """A partner that writes its requests itself. `heard` keeps the body of every answer that is not a success."""

    node: Node
    url: str
    session: aiohttp.ClientSession
    heard: list[bytes]
    token: str = ""
    nonce: str | None = None  # the newest that XA gave

    def proof(self, method: str, path: str, *, token: str | None = None) -> str:
        """A fresh DPoP proof."""
        url, jti = self.url + path.partition("?")[0], new_message_id(SYSTEM_RANDOM)
        key, now = self.node.keystore.token_key, int(time.time())
        return make_dpop(key, method, url, now, jti, access_token=token, nonce=self.nonce)

    def form(self, *, claims: str = "") -> dict[str, str]:
        """A token request; `claims`: who it says that it comes from."""
        jti, now = new_message_id(SYSTEM_RANDOM), int(time.time())
        assertion = make_assertion(self.node.keystore.token_key, claims or self.node.agency, self.url, now, jti)
        return {"grant_type": GRANT_TYPE, "client_assertion_type": ASSERTION_TYPE, "client_assertion": assertion}

    async def plain(self, method: str, path: str, *, headers: dict[str, str], data: Any = None) -> Answer:
        """One request as it is given, answered in time."""
        url = aiohttp.client.URL(self.url + path, encoded=True)
        async with (
            asyncio.timeout(HUNG_SECONDS),
            self.session.request(method, url, headers=headers, data=data, allow_redirects=False) as response,
        ):
            answer = Answer(response.status, dict(response.headers), await response.read())
        self.nonce = answer.headers.get("DPoP-Nonce", self.nonce)
        if answer.status >= 400:
            self.heard.append(answer.body + repr(answer.headers).encode())
        return answer

    async def learn(self) -> None:
        """Be given a nonce for the proofs."""
        if self.nonce is None:
            first = {"DPoP": self.proof("POST", "/v1/token"), "Content-Type": FORM_TYPE}
            answer = await self.plain("POST", "/v1/token", headers=first, data=urlencode(self.form()))
            assert (answer.status, json.loads(answer.body)["error"]) == (400, "use_dpop_nonce")

    async def headers(self, method: str, path: str) -> dict[str, str]:
        """The headers that let this partner in, once."""
        if not self.token:
            await self.learn()
            first = {"DPoP": self.proof("POST", "/v1/token"), "Content-Type": FORM_TYPE}
            answer = await self.plain("POST", "/v1/token", headers=first, data=urlencode(self.form()))
            assert answer.status == 200, answer
            self.token = json.loads(answer.body)["access_token"]
        return {"Authorization": f"DPoP {self.token}", "DPoP": self.proof(method, path, token=self.token)}

    async def ask(self, method: str, path: str, **more: str) -> Answer:
        """One authenticated request."""
        return await self.plain(method, path, headers={**await self.headers(method, path), **more})

    async def post(self, body: Any) -> Answer:
        """An envelope, authenticated."""
        headers = {**await self.headers("POST", "/v1/envelopes"), "Content-Type": ENVELOPE_TYPE}
        return await self.plain("POST", "/v1/envelopes", headers=headers, data=body)


@dataclass
class Scene:
    """XA as a process; all three as nodes in reach of the test's hands."""

    fleet: Fleet
    installed: Installed
    server: Served
    xa: Exchange
    xb: Exchange
    xc: Exchange
    heard: list[bytes] = field(default_factory=list)

    @asynccontextmanager
    async def hand(self, who: Exchange, address: str = "127.0.0.1") -> AsyncIterator[Hand]:
        """A partner's hand, from an address of this machine: the limits on one address are tested elsewhere."""
        connector = aiohttp.TCPConnector(local_addr=(address, 0), limit=AT_ONCE)
        async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:
            yield Hand(who.node, self.xa.node.settings.public_url, session, self.heard)

    def rogue(self, who: Exchange) -> Rogue:
        """A partner that signs what an honest gateway would not."""
        return Rogue(who, own_card(self.xa.node), lambda: int(time.time()))  # type: ignore[arg-type]  # a clock is a callable

    def restart(self) -> None:
        """SIGKILL, and up again."""
        self.server.kill()
        self.server = self.fleet.serve(self.installed)

    def state(self) -> object:
        """Everything at XA that a message could change, apart from the record that it was refused."""
        with self.xa.node.store.reading() as tx:
            sets = [row.model_dump() for row in tx.sets.all()]
            blocks = [row.id for found in tx.sets.all() for row in tx.blocks.of_set(found.id or 0)]
            mail = [row.model_dump() for row in tx.mail.incoming()]
        kinds = (EventKind.PUSH_RECEIVED, EventKind.MAILBOX_RECEIVED, EventKind.PAGE_APPLIED)
        return sets, blocks, mail, [len(events(self.xa.node, kind)) for kind in kinds]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    settings = {"requests_per_minute": 100_000, "max_envelope_bytes": 4 << 20, "log_level": "debug"}
    with Fleet(tmp_path_factory.mktemp("adversary")) as fleet:
        installed = fleet.found("XA-NCVI", "XB-NCVI", "XC-NCVI", **settings)
        fleet.befriend(*installed)
        nodes = [open_home(one.home, one.passphrase) for one in installed]
        xa, xb, xc = (Exchange(node) for node in nodes)
        yield Scene(fleet, installed[0], fleet.serve(installed[0]), xa, xb, xc)
        for node in nodes:
            node.store.close()


def pushed(who: Exchange, name: str, entries: Iterable[EntryDraft]) -> tuple[str, bytes, bytes]:
    """A set of a partner, with the head and the page that push it to XA."""
    full = make_set(who, name, entries)
    head, page = who.head_for("XA-NCVI", full), who.page_to_push("XA-NCVI", full, START)
    assert page is not None
    return full, head.body, page.body


def note(number: int, text: str) -> MailMessage:
    """A note from partner to partner."""
    return MailMessage(number, new_message_id(SYSTEM_RANDOM), "note", int(time.time()), {"text": text})


# Who is calling


async def test_a_token_serves_only_the_partner_that_it_was_given_to(scene: Scene) -> None:
    async with scene.hand(scene.xb) as xb, scene.hand(scene.xc) as xc:
        await xb.ask("GET", "/v1/sets")
        await xc.learn()
        taken = {"Authorization": f"DPoP {xb.token}", "DPoP": xc.proof("GET", "/v1/sets", token=xb.token)}
        assert (await xc.plain("GET", "/v1/sets", headers=taken)).status == 401
        assert (await xc.plain("GET", "/v1/sets", headers={"Authorization": f"Bearer {xb.token}"})).status == 401
        # Nor does a key sign for another client.
        headers = {"DPoP": xc.proof("POST", "/v1/token"), "Content-Type": FORM_TYPE}
        answer = await xc.plain("POST", "/v1/token", headers=headers, data=urlencode(xc.form(claims="XB-NCVI")))
        assert (answer.status, json.loads(answer.body)["error"]) == (401, "invalid_client")


async def test_a_whole_request_is_good_once_even_after_a_restart(scene: Scene) -> None:
    async with scene.hand(scene.xb) as hand:
        await hand.learn()
        form, proof = urlencode(hand.form()), hand.proof("POST", "/v1/token")
        token_request = {"headers": {"DPoP": proof, "Content-Type": FORM_TYPE}, "data": form}
        assert (await hand.plain("POST", "/v1/token", **token_request)).status == 200  # type: ignore[arg-type]
        reading = await hand.headers("GET", "/v1/sets")
        assert (await hand.plain("GET", "/v1/sets", headers=reading)).status == 200
        for _ in ("at once", "after a restart"):
            assert (await hand.plain("POST", "/v1/token", **token_request)).status in (400, 401)  # type: ignore[arg-type]
            assert (await hand.plain("GET", "/v1/sets", headers=reading)).status == 401
            await asyncio.to_thread(scene.restart)
        assert (await hand.ask("GET", "/v1/sets")).status == 200  # the token itself lives on


# Whose message it is


async def test_a_message_is_taken_from_its_sender_alone(scene: Scene) -> None:
    name, head, page = pushed(scene.xb, "listed", drafts(5))
    before = scene.state()
    async with scene.hand(scene.xc) as xc:
        # What XB signed, posted by XC.
        assert (await xc.post(head)).problem == "not-verified"
        assert (await xc.post(page)).problem == "not-verified"
        # XC's own signature over XB's name, and over XB's set.
        rogue, sealed = scene.rogue(scene.xc), scene.xb.head_for("XA-NCVI", name).head
        forged = rogue.envelope(sealed.dump(), HEAD_TYPE, sender="XB-NCVI")
        assert (await xc.post(forged)).problem == "not-verified"
        assert (await xc.post(rogue.head(sealed))).problem == "denied"
        assert (await xc.post(rogue.head(replace(sealed, hub="XC-NCVI")))).problem == "denied"
    assert scene.state() == before


async def test_a_message_posted_again_gets_its_receipt_again_and_nothing_else(scene: Scene) -> None:
    name, head, page = pushed(scene.xb, "once", drafts(5))
    async with scene.hand(scene.xb) as xb:
        assert (await xb.post(head)).status == 200
        first = await xb.post(page)
        assert (first.status, first.headers["Content-Type"]) == (200, RECEIPT_MEDIA_TYPE)
        before = scene.state()
        assert (await xb.post(page)).body == first.body
        await asyncio.to_thread(scene.restart)
        assert (await xb.post(page)).body == first.body
    assert scene.state() == before
    assert len(held_entries(scene.xa, name)) == 5


async def test_what_is_for_another_pair_looks_like_what_is_not_there(scene: Scene) -> None:
    # XB may know of this set (H2), XC may not; XC may not know either that XB does.
    name = make_set(scene.xa, "for-xb", drafts(3, handling=HandlingCode.H2))
    async with scene.hand(scene.xb) as xb, scene.hand(scene.xc) as xc:
        scene.xa.mailbox.write("XB-NCVI", "note", {"text": "for XB alone"})
        assert (await xb.ask("GET", f"/v1/sets/{name}/head")).status == 200
        cursor = scene.xa.head_for("XB-NCVI", name).head.cursor
        for rest in ("head", "changes?epoch=0&view=&seq=0", f"changes?epoch=1&view={cursor.view}&seq={cursor.seq}"):
            seen = [(await xc.ask("GET", f"/v1/sets/{one}/{rest}")).bare for one in (name, "XA-NCVI/absent")]
            assert seen[0][0] == 404
            assert seen[0] == seen[1]
        assert (await xc.ask("GET", "/v1/mailbox?after=0")).status == 204
        assert (await xb.ask("GET", "/v1/mailbox?after=0")).status == 200


# Bytes that are not what was sent


async def test_no_byte_of_a_message_can_be_changed(scene: Scene) -> None:
    name, head, page = pushed(scene.xb, "tampered", drafts(20, series="Blue Door"))
    source = random.Random(11)
    async with scene.hand(scene.xb, "127.0.0.2") as xb:
        assert (await xb.post(head)).status == 200
        before = scene.state()
        edges = [0, 1, 30, 1600, len(page) // 2, len(page) - 17, len(page) - 1]
        for at in sorted({*edges, *source.sample(range(len(page)), 50)}):
            damaged = bytearray(page)
            damaged[at] ^= 1 << source.randrange(8)
            assert (await xb.post(bytes(damaged))).problem in ("malformed", "not-verified"), at
        for other in (page[:-1], page + b"\0", page[:16], page + page, head + page):
            assert (await xb.post(other)).problem in ("malformed", "not-verified")
        assert scene.state() == before
        assert (await xb.post(page)).status == 200
    assert len(held_entries(scene.xa, name)) == 20


async def test_bodies_that_lie_about_their_length_hold_nobody_up(scene: Scene) -> None:
    async with scene.hand(scene.xb, "127.0.0.3") as hand:

        async def raw(length: str, body: bytes, *, chunked: bool = False) -> bytes:
            """A request by hand, and what came back before the connection ended."""
            entry = await hand.headers("POST", "/v1/envelopes")
            framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {length}"
            lines = ["POST /v1/envelopes HTTP/1.1", f"Host: 127.0.0.1:{scene.installed.port}", framing]
            lines += [f"{name}: {value}" for name, value in entry.items()] + [f"Content-Type: {ENVELOPE_TYPE}", "", ""]
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", scene.installed.port, local_addr=("127.0.0.3", 0), family=socket.AF_INET
            )
            try:
                writer.write("\r\n".join(lines).encode() + body)
                if not chunked and length.isdecimal() and len(body) < int(length) <= 4 << 20:
                    writer.write_eof()  # truncated: nothing more will come
                return await asyncio.wait_for(reader.read(), HUNG_SECONDS)
            except ConnectionError:
                return b""  # it was cut off while we still wrote: refused as well
            finally:
                writer.close()

        async def is_well() -> None:
            began = time.monotonic()
            assert (await hand.ask("GET", "/v1/sets")).status == 200
            assert time.monotonic() - began < 5.0

        before = scene.state()
        for length in ("1000", "100000", str(4 << 20)):
            assert b" 200 " not in (await raw(length, b"age-encryption.org/v1\n"))[:32]
            await is_well()
        for length in (str((4 << 20) + 1), str(1 << 40), "9" * 16):
            assert (await raw(length, b"x"))[:13] == b"HTTP/1.1 413 ", length
        for length in ("9" * 17, "-1", "+5", "0x10", "1, 1", "", "１"):
            assert (await raw(length, b"x"))[:13] == b"HTTP/1.1 400 ", length
        piece = b"40000\r\n" + bytes(0x40000) + b"\r\n"
        endless = await raw("", piece * 40, chunked=True)
        assert endless[:13] in (b"HTTP/1.1 413 ", b"")
        assert b" 200 " not in (await raw("", b"1\r\nx\r\n" * 20_000, chunked=True))[:32]
        await is_well()
        assert scene.state() == before
        assert list(scene.installed.home.glob("tmp*")) == []


# Garbage


def other_values(value: object) -> list[object]:
    """Values that cannot stand where this one stood."""
    kinds: list[object] = [None, True, 1.5, -1, 1 << 60, [], {}, [[]], "x" * 5000, "\u202e\x00", [value]]
    return [one for one in kinds if type(one) is not type(value) or one in (-1, 1 << 60, "x" * 5000)]


def mutilated(value: Any, source: random.Random) -> bytes:
    """A document with one thing wrong in it, in otherwise canonical JSON; or right, and in another spelling."""
    copy = json.loads(json.dumps(value))
    at = copy
    while True:
        key: Any = source.choice(sorted(at)) if isinstance(at, dict) else source.randrange(len(at))
        if not (isinstance(at[key], dict | list) and at[key] and source.random() < 0.7):
            break
        at = at[key]
    way = source.randrange(4)
    if way == 0 and isinstance(at, dict):
        del at[key]
    elif way == 1 and isinstance(at, dict):
        at["more"] = at[key]
    elif way == 2:
        return json.dumps(copy, sort_keys=True, indent=source.choice((0, 1))).encode()
    else:
        at[key] = source.choice(other_values(at[key]))
    return json.dumps(copy, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")


def noise(source: random.Random, most: int = 3000) -> bytes:
    """Random bytes, often with the beginning of something known."""
    start = source.choice(
        (b"", b"age-encryption.org/v1\n", b"-> mlkem768x25519 ", b"HPG1", b"{", b"[" * 500, b"\xef\xbb\xbf")
    )
    return start + source.randbytes(source.randrange(most))


@dataclass
class Fuzzer:
    """Bad inputs for every route, each certainly bad."""

    scene: Scene
    source: random.Random
    mail: dict[str, Any] = field(init=False)
    head: dict[str, Any] = field(init=False)
    sealed: bytes = field(init=False)
    page: bytes = field(init=False)
    blocks_at: int = field(init=False)
    places: list[int] = field(init=False)

    def __post_init__(self) -> None:
        _, self.sealed, page = pushed(self.scene.xb, "fuzzed", drafts(8))
        self.mail = json.loads(dump_mail([note(1, "a word")]))
        self.mail["messages"][0]["body"] = {}  # within it there is nothing that could be wrong
        self.head = json.loads(self.scene.xb.head_for("XA-NCVI", "XB-NCVI/fuzzed").head.dump())
        verified = envelope.open_envelope(
            BytesIO(page),
            self.scene.xa.node.keystore.opening_keys,
            lambda _sender: (self.scene.xb.node.keystore.signing_key.public,),
            now=int(time.time()),
            audiences={envelope.view_audience(self.head["view"])},
        )
        self.page = verified.read_payload(MAX_PAGE_BYTES)
        self.blocks_at = len(page_front(self.page))
        # The owner alone can tell what a part is that it withholds: four bytes of length, and a digest.
        block = next(parse_page(BytesIO(self.page))[1])
        [withheld] = [part.sha256 for part in block.header.parts if part.group not in block.parts]
        at = self.page.index(withheld) - self.blocks_at
        size = len(self.page) - self.blocks_at
        self.places = [place for place in range(size) if not at - 4 <= place < at + len(withheld)]

    def deeds(self) -> list[Callable[[Hand], Awaitable[Answer]]]:
        """One way of each kind to ask for trouble."""
        return [
            self.random_body,
            self.sealed_noise,
            self.sealed_dsse,
            self.sealed_manifest,
            self.signed_payload,
            self.signed_payload,
            self.signed_page,
            self.token_form,
            self.token_assertion,
            self.proof,
            self.authorization,
            self.query,
            self.path,
            self.method,
        ]

    async def random_body(self, hand: Hand) -> Answer:
        return await hand.post(noise(self.source))

    async def sealed_noise(self, hand: Hand) -> Answer:
        """Properly sealed for XA by anybody; the frame inside is noise."""
        length = self.source.choice((0, 3, 1000, 512 * 1024, 2**32 - 1)).to_bytes(4, "big")
        return await hand.post(self._seal(length + noise(self.source)))

    async def sealed_dsse(self, hand: Hand) -> Answer:
        """A frame whose DSSE is mutilated."""
        signed = dsse.sign(envelope.MANIFEST_TYPE, b'{"manifest":1}', hand.node.keystore.signing_key)
        return await hand.post(self._seal(self._frame(mutilated(json.loads(signed), self.source))))

    async def sealed_manifest(self, hand: Hand) -> Answer:
        """A DSSE that verifies over a manifest that is mutilated."""
        raw = self._manifest(hand, MAIL_TYPE)
        signed = dsse.sign(
            envelope.MANIFEST_TYPE, mutilated(json.loads(raw), self.source), hand.node.keystore.signing_key
        )
        return await hand.post(self._seal(self._frame(signed)))

    async def signed_payload(self, hand: Hand) -> Answer:
        """An envelope that is in order around a document that is not."""
        kind, document = self.source.choice(((MAIL_TYPE, self.mail), (HEAD_TYPE, self.head)))
        payload = mutilated(document, self.source) if self.source.random() < 0.8 else noise(self.source)
        kind = self.source.choice((kind, kind, kind, "application/json", "text/html"))
        return await hand.post(self.scene.rogue(self.scene.xb).envelope(payload, kind))

    async def signed_page(self, hand: Hand) -> Answer:
        """A page whose head is mutilated, or whose blocks are damaged or cut, under a new and good signature."""
        head, blocks = parse_page(BytesIO(self.page))[0].dump(), bytearray(self.page[self.blocks_at :])
        if self.source.random() < 0.4:
            document = json.loads(head)
            document["labels"][0]["obligations"] = []  # within them there is nothing that would be wrong
            head = mutilated(document, self.source) if self.source.random() < 0.8 else noise(self.source)
        else:
            blocks[self.source.choice(self.places)] ^= 1 << self.source.randrange(8)
            del blocks[self.source.choice((len(blocks), self.source.randrange(len(blocks)))) :]
        packed = pack_octets(head)
        raw = struct.pack(">4sII", PAGE_MAGIC, len(head), len(packed)) + packed + blocks
        return await hand.post(self.scene.rogue(self.scene.xb).page(raw))

    async def token_form(self, hand: Hand) -> Answer:
        form = list(hand.form().items())
        self.source.shuffle(form)
        wrong = [
            urlencode(form[1:]),
            urlencode([*form, form[0]]),
            urlencode(form).replace("=", "%3D"),
            urlencode([(name, value[: self.source.randrange(1, 9)]) for name, value in form]),
            self.source.randbytes(200),
            b"%" + urlencode(form).encode(),
        ]
        headers = {"DPoP": hand.proof("POST", "/v1/token"), "Content-Type": FORM_TYPE}
        return await hand.plain("POST", "/v1/token", headers=headers, data=self.source.choice(wrong))

    async def token_assertion(self, hand: Hand) -> Answer:
        form = hand.form()
        form["client_assertion"] = self._jws(form["client_assertion"])
        headers = {"DPoP": hand.proof("POST", "/v1/token"), "Content-Type": FORM_TYPE}
        return await hand.plain("POST", "/v1/token", headers=headers, data=urlencode(form))

    async def proof(self, hand: Hand) -> Answer:
        headers = await hand.headers("GET", "/v1/sets")
        headers["DPoP"] = self._jws(headers["DPoP"])
        return await hand.plain("GET", "/v1/sets", headers=headers)

    async def authorization(self, hand: Hand) -> Answer:
        headers = await hand.headers("GET", "/v1/sets")
        word = base64.urlsafe_b64encode(self.source.randbytes(32)).decode().rstrip("=")
        wrong = (
            f"DPoP {word}",
            f"Bearer {hand.token}",
            f"DPoP {hand.token}x",
            "DPoP",
            "\xff" * 40,
            f"DPoP  {hand.token}",
        )
        headers["Authorization"] = self.source.choice(wrong)
        return await hand.plain("GET", "/v1/sets", headers=headers)

    async def query(self, hand: Hand) -> Answer:
        path = self.source.choice(("/v1/mailbox", "/v1/log/consistency", f"/v1/sets/{self.head['set']}/changes"))
        words = (
            "after=-1",
            "after=1e9",
            "old=0&new=1",
            "old=2&new=1",
            "epoch=0&view=../..&seq=0",
            "%00",
            "a=b" * 50,
            "=",
        )
        return await hand.ask("GET", f"{path}?{self.source.choice(words)}")

    async def path(self, hand: Hand) -> Answer:
        words = ("..", "%2e%2e", "%2F", "XA-NCVI", "identified", "a" * 200, "%00", "%ff", ";", "'--", "\\", "head", "*")
        chosen = "/".join(self.source.choice(words) for _ in range(self.source.randrange(1, 6)))
        return await hand.ask("GET", f"/v1/sets/{chosen}/nowhere")

    async def method(self, hand: Hand) -> Answer:
        method = self.source.choice(("PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "TRACE", "PROPFIND"))
        return await hand.ask(
            method, self.source.choice(("/v1/sets", "/v1/envelopes", "/v1/token", "/v1/card", "/metrics"))
        )

    def _seal(self, plain: bytes) -> bytes:
        """An age file for XA, as anybody can make one."""
        body, sink = age.Body(SYSTEM_RANDOM), BytesIO()
        body.seal(BytesIO(plain), sink)
        return body.header(*own_card(self.scene.xa.node).opening) + sink.getvalue()

    def _frame(self, signed: bytes) -> bytes:
        return len(signed).to_bytes(4, "big") + signed

    def _manifest(self, hand: Hand, kind: str) -> bytes:
        now = int(time.time())
        return envelope.Manifest(
            message_id=new_message_id(SYSTEM_RANDOM),
            sender=hand.node.agency,
            audience=envelope.agency_audience("XA-NCVI"),
            channel=envelope.MAILBOX,
            epoch=0,
            from_seq=0,
            until_seq=1,
            created=now,
            expires=now + 60,
            payload_type=kind,
        ).dump()

    def _jws(self, text: str) -> str:
        """A token with something wrong in it."""
        parts = text.split(".")
        at = self.source.randrange(3)
        raw = base64.urlsafe_b64decode(parts[at] + "==")
        if at < 2 and self.source.random() < 0.7:
            raw = mutilated(json.loads(raw), self.source)
        else:
            damaged = bytearray(raw)
            damaged[self.source.randrange(len(raw))] ^= 1 << self.source.randrange(8)
            raw = bytes(damaged)
        parts[at] = base64.urlsafe_b64encode(raw).decode().rstrip("=")
        return ".".join(self.source.choice((parts, parts, parts, parts[:2], [*parts, parts[0]])))


async def test_garbage_on_every_route_is_refused_in_time_and_without_a_fault(scene: Scene) -> None:
    fuzzer = Fuzzer(scene, random.Random(2026))
    tried: Counter[str] = Counter()
    wrong: list[str] = []
    async with scene.hand(scene.xb) as honest:
        assert (await honest.post(fuzzer.sealed)).status == 200
    before = scene.state()

    async def attack(number: int) -> None:
        """One of several at once, each from an address of its own."""
        async with scene.hand(scene.xb, f"127.0.1.{number + 1}") as hand:
            while tried.total() < GARBAGE:
                deeds = fuzzer.deeds()
                deed = deeds[tried.total() % len(deeds)]
                tried[deed.__name__] += 1
                answer = await deed(hand)
                if not 400 <= answer.status < 500 or answer.status == 429:
                    wrong.append(f"{deed.__name__}: {answer.status} {answer.body[:200]!r}")

    await asyncio.gather(*(attack(number) for number in range(AT_ONCE)))
    assert wrong == []
    assert tried.total() >= GARBAGE
    assert scene.state() == before
    assert '"message": "bug"' not in scene.server.said()


# What is repeated to whom


@dataclass(frozen=True)
class Markers:
    """Words that stand for what must never be repeated: ten of each kind."""

    series: list[str]
    victims: list[str]
    sources: list[str]
    notes: list[str]
    digests: list[bytes]

    @classmethod
    def planted(cls) -> Markers:
        """Fifty of them."""
        words = [[f"{kind}-mark-{number}-qzx" for number in range(10)] for kind in ("series", "victim", "ref", "note")]
        return cls(*words, [sha256(f"mark {number}") for number in range(10)])

    def found_in(self, text: bytes) -> list[str]:
        """Those that stand in a text, in whatever case, digests in hexadecimal or base64."""
        low = text.lower()
        words = [*self.series, *self.victims, *self.sources, *self.notes, *(one.hex() for one in self.digests)]
        coded = [base64.b64encode(one).rstrip(b"=") for one in self.digests]
        return [word for word in words if word.encode() in low] + [one.decode() for one in coded if one in text]

    def entries(self, **fields: Any) -> list[EntryDraft]:
        """Ten entries that hold everything that is marked but the notes."""
        rows = zip(self.digests, self.series, self.victims, self.sources, strict=True)
        return [EntryDraft({"sha256": d}, series=s, victim_ref=v, source_ref=r, **fields) for d, s, v, r in rows]


async def spoken(hand: Hand, rogue: Rogue, word: str) -> list[Answer]:
    """One word in every place of a request where a partner may put one."""
    reading = await hand.headers("GET", "/v1/sets")
    form = urlencode({**hand.form(claims=word), "grant_type": word, "client_id": word})
    token = {"DPoP": hand.proof("POST", "/v1/token"), "Content-Type": FORM_TYPE}
    return [
        await hand.ask("GET", f"/v1/sets/XA-NCVI/{word}/head"),
        await hand.ask("GET", f"/v1/mailbox?after={word}"),
        await hand.ask("GET", f"/{word}"),
        await hand.plain("GET", "/v1/sets", headers={**reading, "Authorization": f"DPoP {word}"}),
        await hand.plain("GET", "/v1/sets", headers={**reading, "DPoP": word}),
        await hand.plain("POST", "/v1/token", headers=token, data=form),
        await hand.post(word.encode()),
        await hand.post(rogue.envelope(dump_mail([note(99, word)]), MAIL_TYPE, case=word, purpose=word)),
        await hand.post(rogue.envelope(json.dumps({word: word}).encode(), HEAD_TYPE)),
        await hand.post(rogue.envelope(word.encode(), PAGE_TYPE, purpose=word)),
    ]


async def test_neither_answers_nor_log_repeat_what_was_in_the_data(scene: Scene) -> None:
    marks = Markers.planted()
    shown = make_set(scene.xa, "marked", marks.entries())
    make_set(scene.xa, "marked-secret", marks.entries(restrictions=(Restriction.EMBARGO,)))
    rogue = scene.rogue(scene.xb)
    async with scene.hand(scene.xb, "127.0.2.1") as hand:
        # 1. Honest traffic that holds them: served, pushed and taken, pushed and refused row by row, mail.
        assert (await hand.ask("GET", f"/v1/sets/{shown}/head")).status == 200
        assert (await hand.ask("GET", f"/v1/sets/{shown}/changes?epoch=0&view=&seq=0")).status == 200
        for name, evaluation in (("marked", "B2"), ("marked-badly", "E5")):
            _, head, page = pushed(scene.xb, name, marks.entries(evaluation=evaluation))
            for body in (head, page, page):
                assert (await hand.post(body)).status == 200
        mail = [note(number, text) for number, text in enumerate(marks.notes, 1)]
        assert (await hand.post(rogue.envelope(dump_mail(mail), MAIL_TYPE))).status == 200
    # 2. The same words where an attacker may put them; each kind from an address of its own, for their rate is bounded.
    words = (marks.series, marks.victims, marks.sources, marks.notes, [one.hex() for one in marks.digests])
    for number, kind in enumerate(words, 2):
        async with scene.hand(scene.xb, f"127.0.2.{number}") as hand:
            answers = [answer for word in kind for answer in await spoken(hand, rogue, word)]
        assert {answer.status for answer in answers} <= {400, 401, 404, 409}, Counter(one.status for one in answers)
    said = "".join(one.said() for one in scene.fleet.running).encode()
    assert b'"message": "answered"' in said
    assert marks.found_in(said) == []
    assert marks.found_in(b"".join(scene.heard)) == []
    # The audit log outlives the data, so it holds none of it either.
    with scene.xa.node.store.reading() as tx:
        recorded = b"".join(row.event_bytes or b"" for row in tx.log.leaves())
    assert marks.found_in(recorded) == []
