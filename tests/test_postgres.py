"""PostgreSQL: several nodes of one gateway over one database, and what becomes of them when it fails.

Nodes are threads here, or processes that are forked and killed; the server is a real one. `scripts/soak` has more.
"""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import random
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from io import BytesIO
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import make_url, text

import gateway.store.postgresql
import postgres
from factory import (
    FakeClock,
    SeededRandom,
    befriend,
    drafts,
    events,
    make_node,
    make_set,
    reopened,
    sha256,
)
from gateway import audit
from gateway.audit import EventKind
from gateway.callers import ASSERTION_TYPE, GRANT_TYPE, Callers, RefusedTokenError, TokenError
from gateway.client import PartnerLink
from gateway.crypto.tokens import make_assertion, make_dpop
from gateway.errors import ConfigError, ConflictError, MalformedError, OverloadedError, UnauthenticatedError
from gateway.exchange import Exchange
from gateway.home import open_home
from gateway.interchange import START, IdentityCard
from gateway.model import EntryDraft
from gateway.node import Node, log_origin
from gateway.store import quick_check
from gateway.store.tables import InboxRow
from gateway.sync import LEASE_SECONDS, PartnerSync, Schedule
from partner_simulator import MemoryLink, Network, held_entries, here
from processes import Fleet, Installed, environment, free_port, is_ready
from test_store import counted, note, open_store, verified

HUB, PEER, THIRD = "XA-NCVI", "XB-NCVI", "XC-NCVI"
SET = f"{HUB}/identified"
WAIT_SECONDS = 30

pytestmark = pytest.mark.postgresql


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def url() -> str:
    return postgres.shared().new_database()


@pytest.fixture(scope="module")
def own() -> Iterator[postgres.Server]:
    """A server of this module's own, to be killed. It is set up not to wait for its disk: the gateway insists on it."""
    with postgres.Server(listen_addresses="127.0.0.1", synchronous_commit="off", wal_writer_delay="10s") as server:
        yield server


def at_once(*works: Callable[[], object]) -> None:
    """Run all of these in threads of their own, and raise what the first of them raised."""
    failed: list[BaseException] = []

    def run(work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_SECONDS)
    assert not any(thread.is_alive() for thread in threads), "it does not end"
    if failed:
        raise failed[0]


def second_node(exchange: Exchange) -> Exchange:
    """Another node over the same database."""
    return Exchange(reopened(exchange.node, seed="the second node"))


def log_of(node: Node, receipts: list[bytes] | None = None) -> audit.LogReport:
    key = node.keystore.log_key(log_origin(node.agency)).verifier
    with node.store.reading() as tx:
        return audit.verify_log(tx.log.leaves(), tx.log.nodes(), tx.log.checkpoints(), key, receipts or [])


# Several nodes


@dataclass
class Pair:
    """A hub with two nodes over one database, and a partner with two as well."""

    network: Network
    hubs: tuple[Exchange, Exchange]
    peers: tuple[Exchange, Exchange]


@pytest.fixture
def pair(tmp_path: Path, clock: FakeClock) -> Iterator[Pair]:
    nodes = [make_node(tmp_path, agency, clock=clock) for agency in (HUB, PEER)]
    befriend(*nodes)
    network = Network()
    hub, peer = (network.join(node) for node in nodes)
    made = Pair(network, (hub, second_node(hub)), (peer, second_node(peer)))
    yield made
    for exchange in (*made.hubs, *made.peers):
        exchange.node.store.close()


def found_by(exchange: Exchange, asked: list[EntryDraft]) -> int:
    digests = [draft.digests["sha256"].hex() for draft in asked]
    return len(exchange.lookup.find(digests, actor="tester"))


async def test_what_one_node_takes_in_or_drops_the_other_follows(pair: Pair) -> None:
    (first, second), (peer, other) = pair.hubs, pair.peers
    make_set(first, "identified", drafts(10))
    assert [found_by(one, drafts(10)) for one in (first, second)] == [10, 10]
    second.ledger.import_entries(SET, drafts(5, first=10), actor="tester", form="test")
    second.ledger.withdraw(SET, sorted(held_entries(second, SET))[:3], actor="tester", reason="listed wrongly")
    assert [found_by(one, drafts(15)) for one in (first, second)] == [12, 12]
    # A mirror whose hub shows less drops whole blocks: by one node, under the eyes of the other.
    await pair.network.sync(PEER, HUB).pull()
    assert [found_by(one, drafts(15)) for one in (peer, other)] == [12, 12]
    policies, name = first.node.policies, "XA/agreement-xb.cedar"
    narrow = policies.texts[name].replace('"H0", Handling::"H1", Handling::"H2"]', '"H0"]')
    assert narrow != policies.texts[name]
    policies.texts, policies._loaded = {**policies.texts, name: narrow}, None
    first.ledger.import_entries(SET, drafts(2, first=20, handling="H0"), actor="tester", form="test")
    await pair.network.sync(PEER, HUB).pull()
    assert [found_by(one, drafts(22)) for one in (peer, other)] == [2, 2]
    assert held_entries(peer, SET) == held_entries(other, SET)


def test_two_nodes_that_write_at_once_leave_one_order(pair: Pair) -> None:
    first, second = pair.hubs
    make_set(first, "identified", drafts(20))

    def work(exchange: Exchange, start: int) -> None:
        mine = random.Random(start)
        for number in range(8):
            some = drafts(6, first=start + 3 * number, series=f"Door {mine.random()}")
            exchange.ledger.import_entries(SET, some, actor="tester", form="test")
            exchange.lookup.find([sha256("made-up 1").hex()], actor="tester")

    at_once(lambda: work(first, 10), lambda: work(second, 20))
    report = log_of(first.node)
    assert report.erased == 0
    with first.node.store.reading() as tx:
        hash_set = tx.sets.get(SET)
        stored = tx.blocks.of_set(hash_set.id or 0)
        leaves = {row.index: row.entry for row in tx.log.leaves()}
    # Blocks were numbered in the order of their commits, and so were their changes and leaves.
    assert [row.first_seq for row in stored] == [1, *(row.last_seq + 1 for row in stored[:-1])]
    assert sorted(row.leaf for row in stored) == [row.leaf for row in stored]
    assert all(leaves[row.leaf] == audit.block_entry(row.digest) for row in stored)
    afresh = second_node(first)
    assert held_entries(first, SET) == held_entries(second, SET) == held_entries(afresh, SET)
    afresh.node.store.close()


def test_a_look_up_beside_imports_finds_every_listed_entry(tmp_path: Path, clock: FakeClock) -> None:
    exchange = Exchange(make_node(tmp_path, clock=clock))
    make_set(exchange, "identified", drafts(10))
    [hit] = exchange.lookup.find([sha256("made-up 1").hex()], actor="tester")
    done = threading.Event()

    def work() -> None:
        for number in range(12):
            exchange.ledger.import_entries(SET, drafts(10, series=f"Door {number}"), actor="tester", form="test")
        done.set()

    def look() -> None:
        while not done.is_set():
            assert exchange.lookup.where(SET, hit.entry).listed

    at_once(work, look, look)


def test_an_index_that_has_gone_on_answers_no_state_of_before(tmp_path: Path, clock: FakeClock) -> None:
    exchange = Exchange(make_node(tmp_path, clock=clock))
    make_set(exchange, "identified", drafts(10))
    store, shelf = exchange.node.store, exchange.shelf

    def change() -> None:
        exchange.ledger.import_entries(SET, drafts(10, series="another"), actor="tester", form="test")
        assert found_by(exchange, drafts(10)) == 10

    with store.reading() as tx:
        set_id = tx.sets.get(SET).id or 0
        at_once(change)
        with pytest.raises((ConflictError, OverloadedError)), shelf.index(tx, set_id):
            pass
    # Who says beforehand that it will ask is waited for.
    changing = threading.Thread(target=change)
    with shelf.reading(store) as tx:
        set_id = tx.sets.get(SET).id or 0
        changing.start()
        changing.join(0.2)
        assert changing.is_alive()
        with shelf.index(tx, set_id) as index:
            assert index.live_rows(tx.blocks.of_set(set_id)[-1].id or 0).all()
    changing.join(WAIT_SECONDS)
    assert found_by(exchange, drafts(10)) == 10


def test_a_message_that_reaches_both_nodes_at_once_is_taken_once(pair: Pair) -> None:
    hub = pair.hubs[0]
    make_set(hub, "identified", drafts(30))
    pair.peers[0].accept(HUB, BytesIO(hub.head_for(PEER, SET).body))
    page = hub.page_to_push(PEER, SET, START)
    assert page is not None
    answers: list[bytes] = []
    both = threading.Barrier(2)

    def post(exchange: Exchange) -> None:
        both.wait(WAIT_SECONDS)
        answers.append(exchange.accept(HUB, BytesIO(page.body)).body)

    at_once(*(lambda exchange=exchange: post(exchange) for exchange in pair.peers))
    post_again = pair.peers[1].accept(HUB, BytesIO(page.body)).body
    assert answers == [post_again] * 2
    assert len(events(pair.peers[0].node, EventKind.PUSH_RECEIVED)) == 1
    assert len(held_entries(pair.peers[1], SET)) == 30
    log_of(pair.peers[0].node, answers)


def test_what_was_used_to_call_one_node_calls_no_other(pair: Pair, clock: FakeClock) -> None:
    peer, base = pair.peers[0].node, pair.hubs[0].node.settings.public_url
    first, second = (Callers(exchange.node) for exchange in pair.hubs)
    path = f"{base}/v1/token"

    def proof(number: int, url: str, method: str = "POST", token: str | None = None) -> str:
        # A nonce of the first node counts at the second.
        nonce = first._nonces.issue(clock())
        return make_dpop(peer.keystore.token_key, method, url, clock(), f"p-{number}", access_token=token, nonce=nonce)

    def form(number: int) -> dict[str, str]:
        signed = make_assertion(peer.keystore.token_key, PEER, base, clock(), f"a-{number}")
        return {"grant_type": GRANT_TYPE, "client_assertion_type": ASSERTION_TYPE, "client_assertion": signed}

    asked, proved = form(1), proof(1, path)
    token = first.token(asked, proved, method="POST", url=path).access_token
    for used_form, used_proof, error in (
        (asked, proof(2, path), TokenError.INVALID_CLIENT),
        (form(2), proved, TokenError.INVALID_DPOP_PROOF),
    ):
        with pytest.raises(RefusedTokenError) as refused:
            second.token(used_form, used_proof, method="POST", url=path)
        assert refused.value.error is error
    # The token itself is good at every node, each proof once.
    sets = f"{base}/v1/sets"
    shown = proof(3, sets, "GET", token)
    assert second.authenticate(f"DPoP {token}", shown, method="GET", url=sets).agency == PEER
    with pytest.raises(UnauthenticatedError) as again:
        first.authenticate(f"DPoP {token}", shown, method="GET", url=sets)
    assert "before" in str(again.value.__cause__)


# Killed nodes


def forked(target: Callable[..., None], *arguments: object) -> tuple[multiprocessing.process.BaseProcess, Connection]:
    """A node in a process of its own, and the pipe by which it says how far it is. No store here has a connection."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=target, args=(*arguments, theirs), daemon=True)
    process.start()
    theirs.close()
    return process, ours


def killed(process: multiprocessing.process.BaseProcess) -> None:
    process.kill()
    process.join(WAIT_SECONDS)
    assert process.exitcode == -signal.SIGKILL


def hanging_run(node: Node, pipe: Connection) -> None:
    """A node whose partner never answers."""

    @asynccontextmanager
    async def link_for(_card: IdentityCard) -> AsyncIterator[Any]:
        pipe.send("asked")
        await asyncio.sleep(3600)
        yield

    asyncio.run(Schedule(Exchange(reopened(node)), link_for, owner="killed", run=here).tick())


async def test_a_node_that_is_killed_in_its_run_is_taken_over_when_its_lease_ends(pair: Pair, clock: FakeClock) -> None:
    hub, peer = pair.hubs[0], pair.peers[0]
    make_set(peer, "identified", drafts(5))
    for exchange in (*pair.hubs, *pair.peers):
        exchange.node.store.close()
    process, pipe = forked(hanging_run, hub.node)
    assert pipe.poll(WAIT_SECONDS)
    killed(process)

    @asynccontextmanager
    async def link_for(card: IdentityCard) -> AsyncIterator[MemoryLink]:
        yield MemoryLink(pair.network, HUB, card.agency)

    schedule = Schedule(pair.hubs[1], link_for, owner="alive", run=here)
    assert [(line.state, line.last_success) for line in schedule.status()] == [("running", 0)]
    clock.advance(LEASE_SECONDS - 1)
    assert await schedule.tick() == 0
    clock.advance(1)
    assert await schedule.tick() == 1
    assert [(line.state, line.last_success) for line in schedule.status()] == [("waiting", clock())]
    assert hub.mirrors.cursor(f"{PEER}/identified").seq == 5


def half_a_deed(url: str, pipe: Connection) -> None:
    with open_store(url).transaction() as tx:
        tx.people.set_meta("number", "1000")
        tx.log.append([note(1000)])
        pipe.send("written")
        time.sleep(3600)


def test_a_node_that_is_killed_in_its_deed_leaves_nothing_and_keeps_nobody_waiting(url: str) -> None:
    process, pipe = forked(half_a_deed, url)
    assert pipe.poll(WAIT_SECONDS)
    killed(process)
    store, began = open_store(url), time.monotonic()
    assert counted(store) == 1
    assert time.monotonic() - began < 5
    assert verified(store).size == 1
    store.close()


def test_a_node_that_stands_still_in_its_deed_loses_it(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway.store.postgresql, "IDLE_TIMEOUT_MS", 200)
    still, other = open_store(url), open_store(url)

    def stand_still() -> None:
        with still.transaction() as tx:
            tx.people.set_meta("number", "1000")
            time.sleep(0.6)
            tx.log.append([note(1000)])

    with pytest.raises(OverloadedError):
        stand_still()
    assert counted(other) == 1
    assert counted(still) == 2
    for store in (still, other):
        store.close()


class OneAddress:
    """What stands before several nodes: each connection goes to the next one that listens."""

    def __init__(self, *ports: int) -> None:
        self._turns = itertools.cycle(ports)
        self._nodes = len(ports)

    @asynccontextmanager
    async def on(self, port: int) -> AsyncIterator[None]:
        server = await asyncio.start_server(self._carry, "127.0.0.1", port)
        async with server:
            yield

    async def _carry(self, caller: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
        for port in itertools.islice(self._turns, self._nodes):
            with suppress(OSError):
                node, ask = await asyncio.open_connection("127.0.0.1", port)
                await asyncio.gather(self._pour(caller, ask), self._pour(node, answer))
                return
        answer.close()

    async def _pour(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while raw := await source.read(1 << 16):
                target.write(raw)
                await target.drain()
        target.close()


@pytest.mark.slow
async def test_two_processes_serve_one_gateway_and_one_of_them_is_killed_and_then_the_database(
    tmp_path: Path, own: postgres.Server
) -> None:
    with Fleet(tmp_path) as fleet:
        url = own.new_database()
        # 1. Founded by the command. The URL comes from the environment, and is written nowhere.
        address, ports = free_port(), (free_port(), free_port())
        secret = tmp_path / "passphrase"
        secret.touch(mode=0o600)
        secret.write_text("a passphrase of tests only")
        nodes = [Installed(PEER, tmp_path / f"node {number}", port, secret) for number, port in enumerate(ports)]
        options = ("--agency", PEER, "--name", "Unit", "--demo", "--sync-interval", "86400")
        places = ("--listen", f"127.0.0.1:{ports[0]}", "--url", f"http://127.0.0.1:{address}")
        with_database = environment() | {"GATEWAY_DATABASE_URL": url}
        for command in (("init", *options, *places), ("doctor",)):
            done = subprocess.run(
                nodes[0].argv(*command), env=with_database, capture_output=True, text=True, check=False
            )
            assert done.returncode in (0, 9), done.stderr  # nobody is an administrator yet
        assert f"database {postgres.name_of(url)} on this machine" in done.stdout
        settings = nodes[0].home / "gateway.toml"
        assert url not in settings.read_text()
        settings.write_text(settings.read_text().replace('database = "gateway.db"', f'database = "{url}"'))
        # 2. A second node: the same settings, policies and keystore, on a port of its own.
        shutil.copytree(nodes[0].home, nodes[1].home)
        changed = settings.read_text().replace(str(ports[0]), str(ports[1]))
        shared_keys = f'keystore = "{nodes[0].home}/keystore.json"'
        (nodes[1].home / "gateway.toml").write_text(changed.replace('keystore = "keystore.json"', shared_keys))
        [sender] = fleet.found(HUB)
        fleet.befriend(sender, nodes[0])
        served = [fleet.serve(node) for node in nodes]
        # 3. Pushed through the one address: some pages by one node, some by the other; then one of them is killed.
        hub = Exchange(open_home(sender.home, sender.passphrase))
        make_set(hub, "identified", drafts(20))
        key = hub.node.keystore.token_key
        async with OneAddress(*ports).on(address):
            for number in range(3):
                hub.ledger.import_entries(SET, drafts(5, first=20 + 5 * number), actor="tester", form="test")
                link = PartnerLink(hub.card_of(PEER), key, HUB, hub.node.clock, hub.node.random)
                async with link:
                    await PartnerSync(hub, link, PEER).push(SET)
                if number == 1:
                    served[0].kill()
        # 4. Without its database a node says that it is not ready, and goes on when it is back.
        own.kill()
        assert not is_ready(ports[1])
        own.start()
        until(lambda: is_ready(ports[1]))
        # 5. Every receipt is in the log that both wrote.
        with hub.node.store.reading() as tx:
            receipts = [row.receipt for row in tx.mail.receipts(PEER)]
        assert len(receipts) == 3
        taken = open_home(nodes[1].home, nodes[1].passphrase)
        log_of(taken, receipts)
        assert len(held_entries(Exchange(taken), SET)) == 35
        for node in (hub.node, taken):
            node.store.close()
        assert served[1].stop() == 0


# A database that fails


def test_a_connection_that_was_cut_off_is_replaced(url: str) -> None:
    store = open_store(url)
    counted(store)
    with postgres.shared().connect() as administrator:
        cut = "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity WHERE datname = %s"
        [(ended,)] = administrator.execute(cut, [postgres.name_of(url)]).fetchall()
    assert ended == 1
    assert counted(store) == 2
    store.close()


def test_a_deed_whose_connection_is_cut_off_leaves_nothing_and_can_be_done_again(url: str) -> None:
    store = open_store(url)

    def deed() -> None:
        with store.transaction() as tx:
            tx.people.set_meta("number", "1000")
            tx.log.append([note(1000)])
            with postgres.shared().connect() as administrator:
                pid = tx.connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
                administrator.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])

    with pytest.raises(OverloadedError):
        deed()
    assert counted(store) == 1
    store.close()


@dataclass
class Sender:
    """A partner that sends letter after letter until it is told to stop, each again until it has a receipt."""

    exchange: Exchange
    receivers: tuple[Exchange, ...]
    receipts: list[bytes] = field(default_factory=list)
    refused: int = 0

    def work(self, done: threading.Event) -> None:
        agency, card, turn = self.exchange.node.agency, self.exchange.card_of(PEER), 0
        while not done.is_set():
            self.exchange.mailbox.write(PEER, "note", {"text": f"letter {len(self.receipts)} of {agency}"})
            letters = self.exchange.mailbox.waiting(PEER)
            sealed = self.exchange.mailbox.seal(card, letters)
            while True:
                turn += 1
                try:
                    answer = self.receivers[turn % 2].accept(agency, BytesIO(sealed.body))
                    break
                except OverloadedError:
                    self.refused += 1
                    time.sleep(0.01)
            self.receipts.append(answer.body)
            self.exchange.confirm_mail(PEER, letters[-1].number, sealed, answer.body)


def test_nothing_acknowledged_is_lost_when_the_database_is_killed(
    tmp_path: Path, clock: FakeClock, own: postgres.Server
) -> None:
    senders = [make_node(tmp_path, agency, clock=clock) for agency in (HUB, THIRD)]
    taker = make_node(tmp_path, PEER, clock=clock, database=own.new_database())
    befriend(taker, *senders)
    receivers = (Exchange(taker), second_node(Exchange(taker)))
    posting = [Sender(Exchange(node), receivers) for node in senders]
    done = threading.Event()

    def fail_and_come_back() -> None:
        try:
            for end in (own.kill, own.stop, own.kill):
                least = min(len(one.receipts) for one in posting) + 4
                until(lambda least=least: all(len(one.receipts) >= least for one in posting))
                end()
                own.start()
        finally:
            done.set()

    # The server is ended by this thread: it goes with the one that started it.
    threads = [threading.Thread(target=one.work, args=(done,)) for one in posting]
    for thread in threads:
        thread.start()
    fail_and_come_back()
    for thread in threads:
        thread.join(WAIT_SECONDS)
    assert not any(thread.is_alive() for thread in threads)
    assert sum(one.refused for one in posting) > 0, "nobody was there when it failed"
    afresh = Exchange(reopened(taker))
    receipts = [receipt for one in posting for receipt in one.receipts]
    log_of(afresh.node, receipts)  # raises where the log does not hold what a receipt says
    taken = Counter(str(one.details["message_id"]) for one in events(afresh.node, EventKind.MAILBOX_RECEIVED))
    with afresh.node.store.reading() as tx:
        inbox = set(tx.connection.execute(text("SELECT message_id FROM inbox")).scalars())
        letters = [afresh.mailbox.read(row)["text"] for row in tx.mail.incoming()]
    assert taken == dict.fromkeys(inbox, 1)
    sent = [f"letter {n} of {one.exchange.node.agency}" for one in posting for n in range(len(one.receipts))]
    assert sorted(letters) == sorted(sent)
    for node in (*senders, afresh.node, *(one.node for one in receivers)):
        node.store.close()


def until(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_SECONDS
    while not happened():
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.005)


def test_what_was_acknowledged_is_in_the_replica_that_takes_over() -> None:
    with postgres.Server() as primary, postgres.Server(replica_of=primary) as replica:
        name = postgres.name_of(primary.new_database())
        primary.wait_for_replicas("*")
        both = f"host={primary.folder},{replica.folder}&port={primary.port},{replica.port}"
        store = open_store(f"postgresql://gateway@/{name}?{both}&target_session_attrs=read-write")
        at_replica = open_store(replica.url(name))
        assert [counted(store) for _ in range(20)] == list(range(1, 21))
        primary.kill()
        for one in (store, at_replica):
            with pytest.raises(OverloadedError):
                counted(one)
        replica.promote()
        assert counted(store) == 21
        assert verified(store).size == 21
        for one in (store, at_replica):
            one.close()


# The database itself


def test_two_nodes_may_make_the_schema_at_once() -> None:
    url = postgres.shared().url(postgres.shared().create())
    stores = [open_store(url) for _ in range(3)]
    at_once(*(store.migrate for store in stores))
    assert [counted(store) for store in stores] == [1, 2, 3]
    for store in stores:
        store.close()


def test_a_database_that_sorts_text_by_other_rules_is_refused() -> None:
    server = postgres.shared()
    with server.connect() as administrator:
        administrator.execute("CREATE DATABASE odd TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C'")
    store = open_store(server.url("odd"))
    with pytest.raises(ConfigError, match="UTF-8"):
        store.migrate()
    with store.reading() as tx:
        assert tx.connection.exec_driver_sql("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").scalar() == 0
    store.close()


def test_bytes_come_back_as_they_went_and_travel_as_bytes(url: str) -> None:
    store, raw = open_store(url), SeededRandom(3).bytes(3 << 20)
    with store.transaction() as tx:
        tx.mail.accept(InboxRow(sender=HUB, message_id="m", manifest_digest="d", receipt=raw, at=2**53 - 1))
        assert tx.mail.accepted(HUB, "m") == ("d", raw)
        driver: Any = tx.connection.execute(text("SELECT receipt FROM inbox")).cursor
        assert driver.pgresult.fformat(0) == psycopg.pq.Format.BINARY
    store.close()


@pytest.mark.parametrize("value", ["a text with \0 in it", "x" * 10 + "\0"])
def test_a_text_that_no_column_can_hold_is_the_senders_fault(url: str, value: str) -> None:
    store = open_store(url)
    with pytest.raises(MalformedError), store.reading() as tx:
        tx.people.find_partner(value)
    store.close()


def test_every_row_is_read_by_the_check_and_damage_is_found(own: postgres.Server) -> None:
    url = own.new_database()
    store = open_store(url)
    for _ in range(20):
        counted(store)
    assert quick_check(store)() == "ok"
    with own.connect(postgres.name_of(url)) as administrator:
        [(place,)] = administrator.execute("SELECT pg_relation_filepath('audit_leaf')").fetchall()
    store.close()
    own.stop(signal.SIGINT)
    with (own.data / str(place)).open("r+b") as file:
        file.seek(4000)
        file.write(b"damaged")
    own.start()
    with pytest.raises(ConfigError, match="damaged"):
        quick_check(store)()
    store.close()


def test_a_server_that_loses_what_it_confirmed_is_named(own: postgres.Server) -> None:
    store = open_store(own.new_database())
    with store.transaction() as tx:
        assert tx.connection.exec_driver_sql("SHOW synchronous_commit").scalar() == "on"  # the server says off
    store.close()
    own.stop(signal.SIGINT)
    with own.running_with(fsync="off"), pytest.raises(ConfigError, match="fsync=off"):
        quick_check(store)()
    store.close()


def test_no_word_of_a_password_is_told(own: postgres.Server) -> None:
    url = own.new_database()
    with own.connect() as administrator:
        administrator.execute("ALTER ROLE gateway PASSWORD 'right'")
    there = make_url(url).set(host="127.0.0.1", port=own.port, query={})
    right, wrong = (
        open_store(there.set(password=word).render_as_string(hide_password=False)) for word in ("right", "hush")
    )
    assert counted(right) == 1
    told = right.describe()
    assert told.startswith("PostgreSQL ")
    assert f"database {there.database} on 127.0.0.1:{own.port}" in told
    with pytest.raises(OverloadedError, match="does not let this user in") as refused:
        counted(wrong)
    with pytest.raises(ConfigError, match="option") as odd:
        counted(open_store(there.set(password="hush", query={"colour": "hush"}).render_as_string(hide_password=False)))
    shown = [told, repr(refused.value.__cause__), repr(odd.value.__cause__), repr(wrong._engine)]
    shown += [f"{error.value} {error.value.remedy}" for error in (refused, odd)]
    assert not any(word in one for one in shown for word in ("right", "hush"))
    right.close()
    wrong.close()


async def test_no_marker_is_in_any_file_of_the_server(own: postgres.Server, tmp_path: Path, clock: FakeClock) -> None:
    node = make_node(tmp_path, clock=clock, database=own.new_database())
    exchange = Exchange(node)
    listed = [
        EntryDraft({"sha256": sha256(f"secret {n}")}, source_ref=f"SOURCE-MARKER-{n}", series=f"Series Marker {n}")
        for n in range(30)
    ]
    make_set(exchange, "identified", listed)
    with node.store.transaction() as tx:
        tx.people.set_meta("marker", "CONTROL-MARKER")
    node.store.close()
    with own.connect() as administrator:
        administrator.execute("CHECKPOINT")
    markers = {"control": b"CONTROL-MARKER", "source": b"SOURCE-MARKER", "series": b"Series Marker"}
    markers |= {"digest": listed[7].digests["sha256"], "hex": listed[7].digests["sha256"].hex().encode()}
    found = {
        name
        for file in own.data.rglob("*")
        if file.is_file()
        for raw in [file.read_bytes()]
        for name, marker in markers.items()
        if marker in raw
    }
    assert found == {"control"}
