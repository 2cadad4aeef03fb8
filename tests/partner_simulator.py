"""Partners in memory: several real gateways in one process, joined by a network that can fail or lie.

`Network` carries requests between whole gateways (real store, keys, policies) without sockets. Its faults come from one
seeded source, so a run can be repeated. `Rogue` is a partner that misbehaves on purpose: it signs with real keys what
an honest gateway would never send.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from io import BytesIO
from typing import TypeVar

from factory import FakeClock, SeededRandom, card_of, copied_database, open_node
from gateway.columns.block import decode
from gateway.columns.rows import GROUP_CODES
from gateway.crypto import envelope
from gateway.crypto.keys import SigningKey, new_message_id
from gateway.errors import GatewayError, PartnerError
from gateway.exchange import Exchange
from gateway.exchange.shelf import CHANGES, block_id
from gateway.gossip import ToldLog
from gateway.interchange import HEAD_TYPE, PAGE_TYPE, Cursor, FeedHead, IdentityCard, KeyConfirmation, PageHead
from gateway.node import Node
from gateway.sync import PartnerSync, Schedule

T = TypeVar("T")


async def here(function: Callable[..., T], /, *args: object) -> T:
    """Blocking work, run on the spot: nothing else moves meanwhile."""
    return function(*args)


@dataclass
class Faults:
    """Chances, each between 0 and 1, of what a network does to a request."""

    lose_request: float = 0.0
    lose_answer: float = 0.0
    repeat: float = 0.0
    damage: float = 0.0


@dataclass
class Network:
    """Gateways by agency, and what happens between them."""

    source: random.Random = field(default_factory=lambda: random.Random(0))
    faults: Faults = field(default_factory=Faults)
    members: dict[str, Exchange] = field(default_factory=dict)
    offline: set[str] = field(default_factory=set)
    requests: list[str] = field(default_factory=list)

    def join(self, node: Node) -> Exchange:
        """Add a gateway; joining again is a restart: everything in memory is gone."""
        self.members[node.agency] = Exchange(node)
        return self.members[node.agency]

    def sync(self, agency: str, partner: str) -> PartnerSync:
        """One gateway's dealings with another over this network."""
        return PartnerSync(self.members[agency], MemoryLink(self, agency, partner), partner, run=here)

    def schedule(self, agency: str) -> Schedule:
        """One gateway's schedule over this network."""

        @asynccontextmanager
        async def link_for(card: IdentityCard) -> AsyncIterator[MemoryLink]:
            yield MemoryLink(self, agency, card.agency)

        return Schedule(self.members[agency], link_for, run=here)

    def carry(self, caller: str, callee: str, what: str, answer: Callable[[Exchange], T]) -> T:
        """One request there and back."""
        self.requests.append(f"{caller} {callee} {what}")
        if {caller, callee} & self.offline or self.source.random() < self.faults.lose_request:
            raise PartnerError("the partner did not answer")
        there = self.members[callee]
        result = answer(there)
        if self.source.random() < self.faults.repeat:
            result = answer(there)
        if self.source.random() < self.faults.lose_answer:
            raise PartnerError("the answer was lost")
        return result

    def damaged(self, body: bytes) -> bytes:
        """The body as it arrives: now and then with one flipped bit."""
        if body and self.source.random() < self.faults.damage:
            at = self.source.randrange(len(body))
            return body[:at] + bytes([body[at] ^ 1 << self.source.randrange(8)]) + body[at + 1 :]
        return body


@dataclass
class MemoryLink:
    """`sync.PartnerLink` over a `Network`."""

    network: Network
    caller: str
    callee: str

    @property
    def moved_bytes(self) -> int:
        return len(self.network.requests)

    async def sets(self) -> list[dict[str, object]]:
        return self._ask("sets", lambda there: there.sets_for(self.caller))

    async def head(self, set_name: str, etag: str) -> tuple[str, bytes] | None:
        head = self._ask("head", lambda there: there.head_for(self.caller, set_name, {etag}))
        return None if head.etag == etag else (head.etag, self.network.damaged(head.body))

    async def changes(self, set_name: str, cursor: Cursor) -> bytes | None:
        page = self._ask("changes", lambda there: there.page_for(self.caller, set_name, cursor))
        return None if page is None else self.network.damaged(page.body)

    async def post_envelope(self, body: bytes) -> tuple[str, bytes]:
        sent = self.network.damaged(body)
        answer = self._ask("post", lambda there: there.accept(self.caller, BytesIO(sent)))
        return answer.media_type, answer.body

    async def compare(self, set_name: str, body: bytes) -> bytes | None:
        sent = self.network.damaged(body)
        answer = self._ask("compare", lambda there: there.compare_for(self.caller, set_name, sent))
        return None if answer is None else self.network.damaged(answer)

    async def mailbox(self, after: int) -> bytes | None:
        body = self._ask("mailbox", lambda there: there.mailbox_for(self.caller, after))
        return None if body is None else self.network.damaged(body)

    async def keys(self, held: KeyConfirmation) -> bytes | None:
        return self._ask("keys", lambda there: there.keys_for(self.caller, held))

    async def post_keys(self, news: bytes) -> KeyConfirmation:
        return self._ask("post keys", lambda there: there.take_keys(self.caller, news))

    async def checkpoint(self) -> bytes:
        return self._ask("checkpoint", lambda there: there.witness.note_of())

    async def consistency(self, old: int, new: int) -> tuple[bytes, ...]:
        def answer(there: Exchange) -> tuple[bytes, ...]:
            with there.node.store.reading() as tx:
                return tuple(tx.log.consistency_proof(old, new))

        return self._ask("consistency", answer)

    async def post_cosignature(self, body: bytes) -> None:
        self._ask("cosignature", lambda there: there.witness.take_cosignature(self.caller, body))

    async def witnessed(self) -> tuple[ToldLog, ...]:
        return self._ask("witnessed", lambda there: tuple(there.witness.told_logs(self.caller)))

    def _ask(self, what: str, answer: Callable[[Exchange], T]) -> T:
        return self.network.carry(self.caller, self.callee, what, answer)


def held_entries(exchange: Exchange, set_name: str) -> dict[int, dict[str, object]]:
    """Every live entry of a set with all that is held of it: label and columns by name."""
    found: dict[int, dict[str, object]] = {}
    with exchange.node.store.reading() as tx:
        hash_set = tx.sets.find(set_name)
        if hash_set is None or hash_set.id is None:
            return {}
        stored = [row for row in tx.blocks.of_set(hash_set.id) if row.kind == CHANGES]
        with exchange.shelf.index(tx, hash_set.id) as index:
            live = [index.live_rows(block_id(row)) for row in stored]
        held = [(row, mask) for row, mask in zip(stored, live, strict=True) if mask.any()]
        blocks = exchange.shelf.get_all(tx, [row for row, _ in held], GROUP_CODES.values())
        for (row, mask), block in zip(held, blocks, strict=True):
            rows = decode(block).take(mask)
            columns = {name: rows.values(name) for name in rows.columns if name not in ("seq", "changed_at", "kind")}
            for at, entry in enumerate(rows.values("entry_id")):
                values = {name: values[at] for name, values in columns.items()}
                found[int(entry)] = {"label": row.label, "groups": block.groups, **values}
    return found


@dataclass
class Rogue:
    """A partner's gateway in the hands of someone who wants to harm; it has that partner's keys and nothing else."""

    exchange: Exchange
    target: IdentityCard
    clock: FakeClock

    def envelope(
        self,
        payload: bytes,
        payload_type: str,
        *,
        signer: SigningKey | None = None,
        **manifest: object,
    ) -> bytes:
        """Any payload, signed and sealed for the target."""
        node = self.exchange.node
        fields: dict[str, object] = {
            "message_id": new_message_id(node.random),
            "sender": node.agency,
            "audience": envelope.agency_audience(self.target.agency),
            "channel": envelope.MAILBOX,
            "epoch": 1,
            "from_seq": 0,
            "until_seq": 0,
            "created": self.clock(),
            "expires": self.clock() + 3600,
            "payload_type": payload_type,
        }
        made = envelope.Manifest(**{**fields, **manifest})  # type: ignore[arg-type]
        key = signer or node.keystore.signing_key
        return envelope.seal_bytes(made, payload, key, self.target.opening, node.random)

    def head(self, head: FeedHead, **changed: object) -> bytes:
        """A feed head with some fields changed, properly signed."""
        return self.envelope(replace(head, **changed).dump(), HEAD_TYPE)  # type: ignore[arg-type]

    def page(self, raw: bytes, **manifest: object) -> bytes:
        """A page, properly signed."""
        return self.envelope(raw, PAGE_TYPE, **manifest)


def copy_of(exchange: Exchange, name: str) -> Exchange:
    """The gateway again, with the same keys over a copy of its database: from here on two histories of one log."""
    settings = exchange.node.settings
    database = copied_database(settings, settings.folder, f"{name}.db")
    clock = exchange.node.clock
    assert isinstance(clock, FakeClock)
    node = open_node(
        replace(settings, database=database), exchange.node.keystore, clock=clock, random=SeededRandom(name)
    )
    return Exchange(node)


def refused(function: Callable[[], object]) -> GatewayError:
    """The error with which a call was refused."""
    try:
        function()
    except GatewayError as error:
        return error
    raise AssertionError("it was not refused")


__all__ = [
    "Faults",
    "MemoryLink",
    "Network",
    "PageHead",
    "Rogue",
    "card_of",
    "copy_of",
    "held_entries",
    "here",
    "refused",
]
