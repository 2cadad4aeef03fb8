"""No octet of what policy withholds leaves a gateway: over random policies, on every surface, down to the last column.

Every value of every entry is a marker of its own. XA serves, pushes to and answers XB over real sockets; a tap before
each of the two servers keeps what XA says, and whatever XB opens is kept as it comes out of its envelope. All of it is
unpacked column by column, and searched for every marker in every spelling. The control: what policy permits is found.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import logging
import random
import shutil
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from factory import SHIPPED_POLICIES, FakeClock, SeededRandom, befriend, link_to, make_node, serving
from gateway.columns import block
from gateway.columns.block import Block
from gateway.columns.encodings import Encoding, unpack_octets
from gateway.comparisons import ANSWER_TYPE
from gateway.crypto.envelope import OpenedEnvelope
from gateway.errors import GatewayError
from gateway.exchange import Exchange
from gateway.exchange.labels import SetDefaults
from gateway.exchange.shelf import Shelf
from gateway.interchange import HEAD_TYPE, MAIL_TYPE, PAGE_TYPE, parse_page
from gateway.model import EntryDraft, FieldGroup, HandlingCode, VictimStatus
from gateway.store import Transaction
from gateway.store.tables import BlockRow
from gateway.sync import PartnerSync
from partner_simulator import held_entries
from silent_faults import drop

SERVED, PUSHED = "XA-NCVI/served", "XA-NCVI/pushed"
GROUPS = (
    FieldGroup.EXISTENCE,
    FieldGroup.CRYPTOGRAPHIC_DIGESTS,
    FieldGroup.PERCEPTUAL_DIGESTS,
    FieldGroup.SERIES,
    FieldGroup.VICTIM_STATUS,
)
HANDLING = (HandlingCode.H0, HandlingCode.H1, HandlingCode.H2)
# One word for each handling code, so that it tells whose label it stands in.
STATUS = dict(zip(HANDLING, (VictimStatus.LEAD, VictimStatus.SAFEGUARDED, VictimStatus.CLOSED), strict=True))
RULE = """
@id("{id}")
@law("Agreement for tests, article {article}")
@says("Permitted for tests.")
@reviewed_by("Office of invented laws")
@valid_until("2036-12-31")
permit (principal in Agreement::"xa-xb", action == Action::"{action}", resource)
when {{ [{handling}].contains(resource.handling) }};
"""
Policy = dict[HandlingCode, frozenset[FieldGroup]]
POLICIES = st.fixed_dictionaries({code: st.frozensets(st.sampled_from(GROUPS)) for code in HANDLING})


@dataclass
class Marked:
    """An entry under one handling code, and which of its markers belongs to which field group (None: to nobody)."""

    handling: HandlingCode
    draft: EntryDraft
    markers: dict[bytes, FieldGroup | None]


@dataclass
class Heard:
    """Everything that XB's side got to hear from XA's."""

    pieces: list[bytes] = field(default_factory=list)
    types: set[str] = field(default_factory=set)  # of payloads

    def add(self, raw: bytes) -> None:
        self.pieces.append(raw)

    def holds(self, marker: bytes) -> bool:
        return any(spelling in piece for spelling in spellings(marker) for piece in self.pieces)


def spellings(marker: bytes) -> Iterator[bytes]:
    """A value as it could stand anywhere: as it is, in hexadecimal, in Base64 of any alignment."""
    yield marker
    if len(marker) < 8:
        return
    yield marker.hex().encode()
    yield marker.hex().upper().encode()
    for pad in range(3):
        # The octets that depend on their neighbours are cut off.
        encoded = base64.b64encode(bytes(pad) + marker)
        core = encoded[(0, 2, 3)[pad] : len(encoded) - 4]
        yield core
        yield core.replace(b"+", b"-").replace(b"/", b"_")


# A policy, and entries whose every value is a marker


def policies(folder: Path, policy: Policy) -> Path:
    """XA's agreement with XB gives what `policy` says; XB takes everything."""
    folder.mkdir()
    shutil.copy(SHIPPED_POLICIES / "schema.cedarschema", folder)
    shutil.copytree(SHIPPED_POLICIES / "00-federation", folder / "00-federation")
    every = ", ".join(f'Handling::"{code}"' for code in HandlingCode)
    texts = {"XA": [], "XB": [RULE.format(id="xb-receive", article=1, action="receive", handling=every)]}
    texts["XA"].append(RULE.format(id="xa-receive", article=1, action="receive", handling=every))
    for article, group in enumerate(GROUPS, 2):
        codes = [f'Handling::"{code}"' for code in HANDLING if group in policy[code]]
        if codes:
            rule = RULE.format(id=f"xa-{article}", article=article, action=f"share_{group}", handling=", ".join(codes))
            texts["XA"].append(rule)
    for name, rules in texts.items():
        (folder / name).mkdir()
        other = "xb" if name == "XA" else "xa"
        (folder / name / f"agreement-{other}.cedar").write_text("".join(rules), encoding="utf-8")
    return folder


def marked(source: random.Random, handling: HandlingCode) -> Marked:
    """An entry of which nothing occurs anywhere else."""
    digests = {name: source.randbytes(size) for name, size in (("md5", 16), ("sha1", 20), ("sha256", 32), ("pdq", 32))}
    word = {name: f"{name}-{source.randbytes(9).hex()}" for name in ("series", "victim", "reference", "ssdeep")}
    digests |= {"sha512": source.randbytes(64), "ssdeep": word["ssdeep"].encode()}
    draft = EntryDraft(
        digests,
        source_ref=word["reference"],
        series=word["series"],
        victim_ref=word["victim"],
        victim_status=STATUS[handling],
        category=category(handling),
        handling=handling,
        pdq_quality=90,
    )
    markers: dict[bytes, FieldGroup | None] = {}
    for name, value in digests.items():
        perceptual = name in ("pdq", "ssdeep")
        markers[value] = FieldGroup.PERCEPTUAL_DIGESTS if perceptual else FieldGroup.CRYPTOGRAPHIC_DIGESTS
    markers[word["series"].encode()] = FieldGroup.SERIES
    markers[word["victim"].encode()] = FieldGroup.VICTIM_STATUS
    markers[word["reference"].encode()] = None
    return Marked(handling, draft, markers)


def category(handling: HandlingCode) -> str:
    """An attribute of the label that stands in no other."""
    return f"tests:only-under-{handling}-kqzv"


# What is heard


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def tap(outside: int, inside: int, heard: Heard, *, hears_answers: bool, cuts: list[int]) -> AsyncIterator[None]:
    """Stands before a server, and keeps what is answered there, or what is asked.

    Args:
        cuts: after so many octets of the next page the line breaks; then it is as good as new.
    """

    async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: bytearray) -> None:
        with contextlib.suppress(ConnectionError):
            while chunk := await reader.read(65_536):
                asked += chunk
                writer.write(chunk)
                await writer.drain()
        writer.close()

    async def answer(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: bytearray, answered: bytearray
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while chunk := await reader.read(65_536):
                breaks = bool(cuts) and b"/changes?" in asked[asked.rfind(b"GET ") :] and len(chunk) > cuts[0]
                chunk = chunk[: cuts.pop()] if breaks else chunk
                answered += chunk
                writer.write(chunk)
                await writer.drain()
                if breaks:
                    break
        writer.close()

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", inside)
        asked, answered = bytearray(), bytearray()
        try:
            await asyncio.gather(
                ask(reader, there_writer, asked), answer(there_reader, writer, asked, answered), return_exceptions=True
            )
        finally:
            heard.add(bytes(answered if hears_answers else asked))

    server = await asyncio.start_server(meet, "127.0.0.1", outside)
    try:
        yield
    finally:
        server.close()
        await server.wait_closed()


def unpacked(raw: bytes) -> Iterator[bytes]:
    """A page taken apart: its head, and each column of each part of each block as it stands before decompression and
    after."""
    assert raw[:4] == b"HPG2"
    size, packed = struct.unpack(">II", raw[4:12])
    yield unpack_octets(raw[12 : 12 + packed], size)
    _, blocks = parse_page(io.BytesIO(raw))
    for one in blocks:
        yield one.header.encode()
        for group, part in one.parts.items():
            yield part
            yield from _columns(one, group)


def _columns(one: Block, group: int) -> Iterator[bytes]:
    for stored in block._spans(group, one.parts[group]).values():
        payload = bytes(stored.payload)
        heads = {Encoding.PACKED_ZSTD: 10, Encoding.TEXT_ZSTD: 5}
        at = heads.get(Encoding(stored.encoding))
        yield payload if at is None else zstandard.ZstdDecompressor().decompress(payload[at:])


@contextlib.contextmanager
def opened_envelopes(heard: Heard) -> Iterator[None]:
    """Whatever is opened meanwhile is kept as it comes out: manifest and payload, pages taken apart."""
    read = OpenedEnvelope.read_payload

    def read_and_kept(self: OpenedEnvelope, max_bytes: int) -> bytes:
        payload = read(self, max_bytes)
        if self.manifest.sender == "XA-NCVI":
            heard.types.add(self.manifest.payload_type)
            heard.add(self.dsse)
            heard.add(payload)
            if self.manifest.payload_type == PAGE_TYPE or payload[:4] == b"HPG2":
                for piece in unpacked(payload):
                    heard.add(piece)
        return payload

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OpenedEnvelope, "read_payload", read_and_kept)
        yield


class Lines(logging.Handler):
    """Every log line with all its fields."""

    def __init__(self, heard: Heard) -> None:
        super().__init__(logging.DEBUG)
        self._heard = heard

    def emit(self, record: logging.LogRecord) -> None:
        self._heard.add(json.dumps({**record.__dict__, "said": record.getMessage()}, default=repr).encode())


# One world


@dataclass
class World:
    xa: Exchange
    xb: Exchange
    entries: list[Marked]
    heard: Heard = field(default_factory=Heard)
    logged: Heard = field(default_factory=Heard)
    refused: list[str] = field(default_factory=list)


def build(folder: Path, policy: Policy, seed: int) -> World:
    clock, source = FakeClock(), random.Random(seed)
    rules = policies(folder / "policies", policy)
    ports = {name: (_free_port(), _free_port()) for name in ("XA-NCVI", "XB-NCVI")}
    nodes = [
        make_node(
            folder,
            name,
            clock=clock,
            random=SeededRandom(f"{name} {seed}"),
            policies=str(rules),
            listen_port=ports[name][1],
            public_url=f"http://127.0.0.1:{ports[name][0]}",
            requests_per_minute=100_000,
        )
        for name in ports
    ]
    befriend(*nodes)
    xa, xb = (Exchange(node) for node in nodes)
    entries = [marked(source, code) for code in HANDLING for _ in range(2)]
    for name, some in ((SERVED, entries[::2]), (PUSHED, entries[1::2])):
        defaults = SetDefaults("a law of tests", category="tests:none", handling=HandlingCode.H3, evaluation="B2")
        xa.ledger.create_set(name, "victim_identification", defaults, "tester")
        # What an entry said before it came under the label that counts is nobody's business either.
        before = [one.draft._replace(series=f"former-{one.draft.series}", handling=HandlingCode.H3) for one in some]
        xa.ledger.import_entries(name, before, actor="tester", form="test")
        xa.ledger.import_entries(name, [one.draft for one in some], actor="tester", form="test")
    return World(xa, xb, entries)


async def everything(world: World) -> None:
    """XB gets and asks for whatever it can, and XA sends it what it may."""
    xa, xb, heard = world.xa, world.xb, world.heard
    cuts: list[int] = []
    listening = {one: one.node.settings for one in (xa, xb)}
    outside = {one: int(settings.public_url.rsplit(":", 1)[1]) for one, settings in listening.items()}
    async with (
        serving(xa),
        serving(xb),
        tap(outside[xa], listening[xa].listen_port, heard, hears_answers=True, cuts=cuts),
        tap(outside[xb], listening[xb].listen_port, heard, hears_answers=False, cuts=[]),
        link_to(xa.node, xb.node) as to_xa,
        link_to(xb.node, xa.node) as to_xb,
    ):
        pulling, pushing = PartnerSync(xb, to_xa, "XA-NCVI"), PartnerSync(xa, to_xb, "XB-NCVI")
        xa.mailbox.write("XB-NCVI", "note", {"subject": "to XB", "text": "a note"})
        # 1. List, heads, pages; the first page breaks off and goes on where it stopped. Mail, keys, witnesses.
        cuts.append(2_000)
        await attempt(world, pulling.sync())
        await attempt(world, pushing.push(PUSHED))
        await attempt(world, pushing.sync())
        # 2. A withdrawal, and what is not the same any more is compared and repaired.
        for name in (SERVED, PUSHED):
            held = sorted(held_at(xa, name))
            xa.ledger.withdraw(name, held[:1], actor="tester", reason="listed wrongly")
        await attempt(world, pulling.sync())
        await attempt(world, pushing.push(PUSHED))
        if lost := sorted(held_at(xb, SERVED)):
            drop(xb, SERVED, lost[-1])
        await attempt(world, pulling.compare(SERVED, repair=True))
        # 3. What is refused, and what anybody may ask.
        for path in ("/v1/sets/XA-NCVI/none/head", "/v1/sets/XA-NCVI/served/changes?seq=x", "/v1/nothing", "/metrics"):
            await attempt(world, to_xa._ask("GET", path.split("?")[0], query=path.partition("?")[2], max_bytes=1 << 20))
        for path in ("/metrics", "/health/live", "/health/ready", "/v1/sets", "/v1/log/checkpoint"):
            await plain_get(outside[xa], path)


async def attempt(world: World, deed: Awaitable[object]) -> None:
    """A deed that policy may refuse: its words have been heard then."""
    try:
        await deed
    except GatewayError as error:
        world.refused.append(str(error))
        world.logged.add(str(error).encode())


async def plain_get(port: int, path: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode())
    await reader.read()
    writer.close()


def held_at(exchange: Exchange, name: str) -> list[int]:

    with exchange.node.store.reading() as tx:
        return [] if tx.sets.find(name) is None else list(held_entries(exchange, name))


def leak(folder: Path, policy: Policy, seed: int) -> tuple[World, list[str]]:
    """Run a world under a policy; returns it with what was heard and should not be, or should be and was not."""
    world = build(folder, policy, seed)
    handler, root = Lines(world.logged), logging.getLogger()
    root.addHandler(handler)
    before = root.level
    root.setLevel(logging.DEBUG)
    try:
        with opened_envelopes(world.heard):
            asyncio.run(everything(world))
    finally:
        root.setLevel(before)
        root.removeHandler(handler)
    return world, list(faults(world, policy))


def faults(world: World, policy: Policy) -> Iterator[str]:
    with world.xa.node.store.reading() as tx:
        leaves = Heard([row.event_bytes or b"" for row in tx.log.leaves()] + [row.note for row in tx.log.checkpoints()])
    for number, one in enumerate(world.entries):
        seen = policy[one.handling] if FieldGroup.EXISTENCE in policy[one.handling] else frozenset()
        for marker, group in one.markers.items():
            found = world.heard.holds(marker)
            if found and group not in seen:
                yield f"entry {number} under {one.handling}: {group} left, and is not permitted"
            if not found and group in seen:
                yield f"entry {number} under {one.handling}: {group} is permitted, and never came"
            if world.logged.holds(marker) or leaves.holds(marker):
                yield f"entry {number} under {one.handling}: {group} stands in a log line, an error or the audit log"
        former = f"former-{one.draft.series}".encode()
        if world.heard.holds(former):
            yield f"entry {number}: a series that it had before left"
    for code in HANDLING:
        seen = policy[code] if FieldGroup.EXISTENCE in policy[code] else frozenset()
        word = f'"victim_status":"{STATUS[code]}"'.encode()
        if world.heard.holds(category(code).encode()) != bool(seen):
            yield f"the label of {code} was seen: {not seen}"
        if any(word in piece for piece in world.heard.pieces) != (FieldGroup.VICTIM_STATUS in seen):
            yield f"how far the search is, under {code}, was seen: {FieldGroup.VICTIM_STATUS not in seen}"


EVERYTHING: Policy = dict.fromkeys(HANDLING, frozenset(GROUPS))
NOTHING: Policy = dict.fromkeys(HANDLING, frozenset[FieldGroup]())
MIXED: Policy = {
    HandlingCode.H0: frozenset(GROUPS[:2]),
    HandlingCode.H1: frozenset((GROUPS[0], GROUPS[3])),
    HandlingCode.H2: frozenset(GROUPS[1:]),
}


@pytest.mark.sqlite
@pytest.mark.parametrize("policy", [EVERYTHING, NOTHING, MIXED], ids=["everything", "nothing", "mixed"])
def test_exactly_what_policy_permits_leaves(tmp_path: Path, policy: Policy) -> None:
    world, found = leak(tmp_path, policy, seed=1)
    assert found == []
    everywhere = b"".join(world.heard.pieces)
    for word in (b"gateway_log_leaves", b"application/problem+json", b"checkpoint", b"HTTP/1.1 404"):
        assert word in everywhere, "each surface was heard"
    if policy is EVERYTHING:
        assert b"HTTP/1.1 206" in everywhere, "a page that broke off went on"
        assert world.heard.types == {HEAD_TYPE, PAGE_TYPE, MAIL_TYPE, ANSWER_TYPE}
        assert len(world.refused) == 3, "the three that are asked wrongly, and nothing else"


@pytest.mark.sqlite
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(policy=POLICIES, seed=st.integers(0, 1 << 30))
def test_over_random_policies_no_octet_of_what_is_withheld_leaves(
    tmp_path_factory: pytest.TempPathFactory, policy: Policy, seed: int
) -> None:
    _, found = leak(tmp_path_factory.mktemp("world"), policy, seed)
    assert found == []


@pytest.mark.sqlite
def test_the_search_finds_what_a_broken_redaction_lets_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same world, with a projection that forgets to leave one group out, and a shelf that reads what is withheld.

    One of the two faults alone lets nothing out.
    """
    project, get_all = Block.project, Shelf.get_all

    def leaky(self: Block, groups: Iterable[FieldGroup]) -> Block:
        return project(self, {*groups, FieldGroup.SERIES})

    def greedy(self: Shelf, tx: Transaction, rows: Sequence[BlockRow], _parts: object = None) -> Iterator[Block]:
        return get_all(self, tx, rows)

    monkeypatch.setattr(Block, "project", leaky)
    monkeypatch.setattr(Shelf, "get_all", greedy)
    _, found = leak(tmp_path, {**MIXED, HandlingCode.H0: frozenset(GROUPS[:3])}, seed=2)
    assert any("series left" in one for one in found)
