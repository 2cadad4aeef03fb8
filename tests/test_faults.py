"""Every write transaction of every deed fails once before it persists and once after; then the deed is done again.

A deed is run once undisturbed and its transactions are counted, on each side. Then it is run again from the same start,
once for each transaction and each way to fail:

    killed before   the process dies just before the commit; it starts again over the same files
    killed after    the process dies just after the commit, before anybody hears of it
    refused         the commit fails (a full disk, say), and the same process goes on

The other side sees a partner that does not answer. Afterwards the deed is done once more, and everything is as if
nothing had happened: the same entries, cursors, sums, followers and mail on both sides, nothing twice, every log proved
from the first leaf to the last, every message with the one receipt that its receiver gave.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from factory import (
    DATABASE_VARIABLE,
    LEGAL_BASIS,
    FakeClock,
    SeededRandom,
    befriend,
    database_as_kept,
    drafts,
    keep_database,
    make_node,
    make_set,
)
from gateway import audit, sourcestate
from gateway.adapters.ncmec import NAMESPACE
from gateway.crypto.checkpoint import VerifierKey
from gateway.errors import ConflictError, NotFoundError, OverloadedError, PartnerError
from gateway.exchange import Exchange
from gateway.exchange.labels import SetDefaults
from gateway.model import HandlingCode, Restriction
from gateway.node import CheckpointSigner, Node, log_origin
from gateway.sourcing import Sourcing, follow
from gateway.store import Store, Transaction
from partner_simulator import Network, held_entries

T = TypeVar("T")
SET = "XA-NCVI/identified"
AGENCIES = ("XA-NCVI", "XB-NCVI")
KILLED_BEFORE, KILLED_AFTER, REFUSED = "killed before", "killed after", "refused"
# Records of one effect each; others (a page served, a head issued, a run that failed) tell of tries.
ONCE = frozenset(
    {
        audit.EventKind.SET_CREATED,
        audit.EventKind.ENTRIES_IMPORTED,
        audit.EventKind.ENTRIES_WITHDRAWN,
        audit.EventKind.PAGE_APPLIED,
        audit.EventKind.PUSH_RECEIVED,
        audit.EventKind.ROWS_REFUSED,
        audit.EventKind.RECEIPT_STORED,
        audit.EventKind.MAILBOX_SENT,
        audit.EventKind.VIEW_CHANGED,
        audit.EventKind.LARGE_VALUE_KEPT,
        audit.EventKind.LARGE_VALUES_DROPPED,
    }
)


class _Killed(BaseException):
    """The process ended here: nobody in it can catch this and go on."""


class FaultyStore(Store):
    """A store whose commit number `at` fails in one of the three ways."""

    commits = 0
    at = 0
    way = ""

    def arm(self, at: int, way: str) -> None:
        """Let commit number `at` from now on fail."""
        self.commits, self.at, self.way = 0, at, way

    def before_commit(self) -> None:
        self.commits += 1
        if self.commits == self.at and self.way == KILLED_BEFORE:
            raise _Killed
        if self.commits == self.at and self.way == REFUSED:
            raise OperationalError("COMMIT", {}, Exception("database or disk is full"))

    def after_commit(self) -> None:
        if self.commits == self.at and self.way == KILLED_AFTER:
            raise _Killed


@dataclass
class FaultyNetwork(Network):
    """A partner that is killed, or cannot write, does not answer: that is all that the other side learns."""

    killed: set[str] = field(default_factory=set)

    def carry(self, caller: str, callee: str, what: str, answer: Callable[[Exchange], T]) -> T:
        try:
            return super().carry(caller, callee, what, answer)
        except _Killed as error:
            self.killed.add(callee)
            raise PartnerError("the partner did not answer") from error


@dataclass
class World:
    """Two gateways over files of their own."""

    folder: Path
    network: FaultyNetwork
    clock: FakeClock

    @property
    def xa(self) -> Exchange:
        return self.network.members["XA-NCVI"]

    @property
    def xb(self) -> Exchange:
        return self.network.members["XB-NCVI"]

    def run(self, work: Coroutine[object, object, T]) -> T:
        return asyncio.run(work)

    def store(self, agency: str) -> FaultyStore:
        store = self.network.members[agency].node.store
        assert isinstance(store, FaultyStore)
        return store

    def restart(self, agency: str) -> None:
        """A new process over the same files."""
        old = self.network.members[agency].node
        old.store.close()
        self.network.join(opened(old, self.folder / agency, self.clock))

    def close(self) -> None:
        for exchange in self.network.members.values():
            exchange.node.store.close()


def opened(node: Node, folder: Path, clock: FakeClock) -> Node:
    """A node over the files in a folder; keys and rules are read-only, so they come from the one given."""
    settings = replace(node.settings, folder=folder)
    key = node.keystore.log_key(log_origin(node.agency))
    source = SeededRandom(f"{node.agency} {node.random.bytes(8).hex()}")
    store = FaultyStore(settings.database_url, CheckpointSigner(key, source))
    return replace(node, settings=settings, store=store, clock=clock, random=source)


# Where each deed starts


def empty(world: World) -> None:
    """Two partners, no set."""


def listed(world: World) -> None:
    """XA has a set of forty entries under two labels, of which XB refuses one."""
    make_set(world.xa, "identified", drafts(30, series="Blue Door"))
    world.xa.ledger.import_entries(SET, drafts(10, first=30, evaluation="F6"), actor="tester", form="test")


def followed(world: World) -> None:
    """XB holds all of it; since then there are new entries, changed ones and a withdrawal."""
    listed(world)
    world.run(world.network.sync("XB-NCVI", "XA-NCVI").sync())
    world.xa.ledger.import_entries(SET, drafts(6, first=40), actor="tester", form="test")
    world.xa.ledger.import_entries(SET, drafts(4, series="Red Door"), actor="tester", form="test")
    held = sorted(held_entries(world.xa, SET))
    world.xa.ledger.withdraw(SET, held[20:25], actor="tester", reason="listed wrongly")


def relabelled(world: World) -> None:
    """XB holds a label that XA's policy no longer shows, and entries of it have come back under another label."""
    listed(world)
    world.xa.ledger.import_entries(SET, drafts(8, first=60, handling=HandlingCode.H2), actor="tester", form="test")
    world.run(world.network.sync("XB-NCVI", "XA-NCVI").sync())
    world.xa.ledger.import_entries(SET, drafts(3, first=60, handling=HandlingCode.H1), actor="tester", form="test")
    world.xa.ledger.import_entries(
        SET, drafts(3, first=5, restrictions=(Restriction.EMBARGO,)), actor="tester", form="test"
    )
    texts = dict(world.xa.node.policies.texts)
    name = "XA/agreement-xb.cedar"
    narrow = texts[name].replace(', Handling::"H2"]', "]")
    assert narrow != texts[name]
    world.xa.node.policies.texts = {**texts, name: narrow}
    world.xa.node.policies._loaded = None


def written(world: World) -> None:
    """Letters wait on both sides."""
    for number in range(3):
        world.xa.mailbox.write("XB-NCVI", "note", {"subject": f"to XB {number}"})
        world.xb.mailbox.write("XA-NCVI", "note", {"subject": f"to XA {number}"})


# The deeds


def create_set(world: World) -> None:
    defaults = SetDefaults(LEGAL_BASIS, category="icse:1")
    world.xa.ledger.create_set(SET, "victim_identification", defaults, "tester")


def import_entries(world: World) -> None:
    """Three batches: what is there already, what has changed, what is new."""
    rows = [*drafts(20, series="Blue Door"), *drafts(10, first=20, series="Red Door"), *drafts(25, first=50)]
    world.xa.ledger.import_entries(SET, rows, actor="tester", form="test")


def withdraw(world: World) -> None:
    world.xa.ledger.withdraw(SET, [1 << 48 | n for n in range(3, 9)], actor="tester", reason="listed wrongly")


def issue_head(world: World) -> None:
    world.xa.head_for("XB-NCVI", SET)


def look_up(world: World) -> None:
    world.xa.lookup.find(["00" * 32], actor="tester")


def pull(world: World) -> None:
    world.run(world.network.sync("XB-NCVI", "XA-NCVI").pull())


def push(world: World) -> None:
    world.run(world.network.sync("XA-NCVI", "XB-NCVI").push(SET))


def sync(world: World) -> None:
    world.run(world.network.sync("XB-NCVI", "XA-NCVI").sync())


def mail(world: World) -> None:
    world.run(world.network.sync("XA-NCVI", "XB-NCVI").exchange_mail())


def tick(world: World) -> None:
    """The schedule's run, after whatever time a lease of a dead node or a failure has cost."""
    world.clock.advance(3 * 3600)
    assert world.run(world.network.schedule("XB-NCVI").tick()) == 1


@dataclass(frozen=True)
class Deed:
    """What is done, from which start, and whose commits fail."""

    start: Callable[[World], None]
    work: Callable[[World], None]
    sides: tuple[str, ...] = ("XA-NCVI",)
    once: bool = False  # done again it is refused, since it was done


class ListServer:
    """An NCMEC-style server: two pages with a large fingerprint; since noon one entry is gone and one is new."""

    def __init__(self, clock: FakeClock, noon: int) -> None:
        self._later = clock() > noon

    async def page(self, path: str) -> bytes:
        if path.endswith("TMK_PDQF"):
            return b"a fingerprint of a made-up video " * 10
        large = '<tmk-pdqf rel="self" href="/v2/entries/3/fingerprints/TMK_PDQF"/>'
        rows = [_listed(n, large if n == 3 else "") for n in range(1, 5)]
        if self._later:
            rows = ['<deletedImage><member id="7"/><id>1</id></deletedImage>', _listed(2), rows[2], _listed(5, large)]
        first = "at=" not in path
        following = "" if not first else "<paging><next>/v2/entries?at=2</next></paging>"
        inside = "".join(rows[:2] if first else rows[2:])
        return f'<queryResult xmlns="{NAMESPACE}"><images>{inside}</images>{following}</queryResult>'.encode()


def _listed(number: int, more: str = "") -> str:
    md5 = hashlib.md5(f"made-up {number}".encode()).hexdigest()
    return f'<image><member id="7"/><id>{number}</id><fingerprints><md5>{md5}</md5>{more}</fingerprints></image>'


async def _at_once(function: Callable[..., T], *args: object) -> T:
    return function(*args)


def follow_list(world: World) -> None:
    noon = world.clock()
    world.clock.advance(300)
    world.run(follow(Sourcing(world.xa), ListServer(world.clock, noon), _at_once))


def with_a_source(world: World) -> None:
    """XA follows a server, and holds what it had yesterday."""
    defaults = SetDefaults(LEGAL_BASIS, category="icse:1")
    world.xa.ledger.create_set("XA-NCVI/from-list", "victim_identification", defaults, "tester")
    world.run(follow(Sourcing(world.xa), ListServer(world.clock, world.clock()), _at_once))


DEEDS = {
    "follow a server": Deed(with_a_source, follow_list),
    "create a set": Deed(empty, create_set, once=True),
    "import": Deed(listed, import_entries),
    "withdraw": Deed(listed, withdraw, once=True),
    "issue a head": Deed(listed, issue_head),
    "look up": Deed(listed, look_up),
    "first pull": Deed(listed, pull, AGENCIES),
    "first push": Deed(listed, push, AGENCIES),
    "pull news": Deed(followed, pull, AGENCIES),
    "push news": Deed(followed, push, AGENCIES),
    "sync with a withdrawal": Deed(followed, sync, AGENCIES),
    "pull after policy tightened": Deed(relabelled, pull, AGENCIES),
    "push after policy tightened": Deed(relabelled, push, AGENCIES),
    "mail": Deed(written, mail, AGENCIES),
    "scheduled run": Deed(written, tick, ("XB-NCVI",)),
}


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.exchange.ledger.BATCH_ROWS", 24)


@cache
def start_of(start: Callable[[World], None], _database: str) -> tuple[World, TemporaryDirectory[str]]:
    """The databases and nodes from which a deed starts; made once, copied for each run."""
    place = TemporaryDirectory(prefix="gateway-faults-")
    clock = FakeClock()
    source = {"hashsharing_url": "https://list.example/hashsharing", "hashsharing_user": "XA-NCVI"}
    source |= {"hashsharing_password_file": "password", "hashsharing_set": "XA-NCVI/from-list"}
    settings = {"XA-NCVI": source, "XB-NCVI": {}}
    nodes = [make_node(Path(place.name), name, clock=clock, page_changes=24, **settings[name]) for name in AGENCIES]
    befriend(*nodes)
    world = World(Path(place.name), FaultyNetwork(random.Random(1)), clock)
    for node in nodes:
        world.network.join(node)
    start(world)
    world.close()
    for node in nodes:
        keep_database(node.settings)
    return world, place


def fresh(start: Callable[[World], None], folder: Path) -> World:
    """A world of its own at a deed's start. The one before has been closed."""
    made, _ = start_of(start, os.environ[DATABASE_VARIABLE])
    clock = FakeClock(made.clock())
    world = World(folder, FaultyNetwork(random.Random(1)), clock)
    for agency, exchange in made.network.members.items():
        (folder / agency).mkdir(parents=True)
        database_as_kept(exchange.node.settings, folder / agency)
        world.network.join(opened(exchange.node, folder / agency, clock))
    return world


def disturbed(world: World, deed: Deed, side: str, at: int, way: str) -> None:
    """Run the deed with one fault, heal, and run it again."""
    world.store(side).arm(at, way)
    try:
        deed.work(world)
    except _Killed:
        world.network.killed.add(side)
    except (OverloadedError, PartnerError):
        pass
    assert world.store(side).commits >= at, "the fault was never met"
    for agency in world.network.killed:
        world.restart(agency)
    world.store(side).arm(0, "")
    # What was done before anybody heard of it is said to be done.
    with suppress(NotFoundError, ConflictError) if deed.once else nullcontext():
        deed.work(world)


def state(exchange: Exchange) -> dict[str, object]:
    """All of a gateway that another run of the same deeds must agree with."""
    node = exchange.node
    with node.store.reading() as tx:
        sets = tx.sets.all()
        found: dict[str, object] = {
            "sets": [(s.name, s.hub, s.epoch, s.seq, s.next_entry, s.equality) for s in sets],
            "labels": {s.name: labels_of(tx, s.id or 0) for s in sets},
            "sums": {s.name: tx.sets.sums(s.id or 0) for s in sets},
            "followers": {s.name: [(f.partner, f.epoch, f.seq) for f in tx.sets.followers(s.id or 0)] for s in sets},
            "mail out": [(m.partner, m.number, m.kind, exchange.mailbox.read(m)) for m in tx.mail.sent_mail()],
            "undelivered": [(m.partner, m.number) for m in tx.mail.sent_mail() if not m.delivered],
            "mail in": [(m.partner, m.number, m.kind, exchange.mailbox.read(m)) for m in tx.mail.incoming()],
            "on their way": [row.subject for agency in AGENCIES for row in tx.mail.waiting(agency)],
            "large": tx.connection.execute(
                text("SELECT entry_id, octets FROM large_use NATURAL JOIN large_value")
            ).all(),
            "source": ((where := sourcestate.read(node, tx)).since > 0, where.until, where.following, where.failures),
            "schedule": [(j.job, j.failures, j.lease_until, j.last_error, j.lag_changes) for j in tx.schedule.jobs()],
        }
        rows = list(tx.log.leaves())
    kinds = Counter(audit.parse_event(row.event_bytes).kind for row in rows if row.event_bytes)
    found["recorded once"] = {kind: count for kind, count in kinds.items() if kind in ONCE}
    found["entries"] = {s.name: held_entries(exchange, s.name) for s in sets}
    return found


def labels_of(tx: Transaction, set_id: int) -> list[tuple[int, str, str]]:
    return [(row.number, row.attributes, row.groups) for row in tx.sets.labels(set_id)]


def check_proofs(world: World) -> None:
    """Each log verifies with every receipt that partners hold of it; each receipt is the one that was given."""
    receipts: dict[str, list[bytes]] = {agency: [] for agency in AGENCIES}
    for here, there in ((world.xa, world.xb), (world.xb, world.xa)):
        with here.node.store.reading() as tx, there.node.store.reading() as other:
            partner = there.node.agency
            for row in tx.mail.receipts(partner):
                given = other.mail.accepted(here.node.agency, row.message_id)
                assert given is not None
                assert given == (row.manifest_digest, row.receipt)
                receipts[partner].append(row.receipt)
            receipts[partner] += [m.receipt for m in tx.mail.sent_mail(partner) if m.receipt]
            key = VerifierKey.parse(here.card_of(partner).log)
            for receipt in receipts[partner]:
                audit.verify_receipt(receipt, key)
    for exchange in (world.xa, world.xb):
        node = exchange.node
        key = node.keystore.log_key(log_origin(node.agency)).verifier
        with node.store.reading() as tx:
            outside = receipts[node.agency]
            report = audit.verify_log(tx.log.leaves(), tx.log.nodes(), tx.log.checkpoints(), key, outside)
            stored = {row.leaf: row.digest for s in tx.sets.all() for row in tx.blocks.of_set(s.id or 0)}
            entries = {row.index: row.entry for row in tx.log.leaves()}
            if tx.connection.dialect.name == "sqlite":  # PostgreSQL lets nobody look away
                assert tx.connection.execute(text("PRAGMA foreign_key_check")).all() == []
        assert report.erased == 0
        for leaf, digest in stored.items():
            assert entries[leaf] == audit.block_entry(digest)


@cache
def undisturbed(name: str) -> tuple[dict[str, dict[str, object]], dict[str, int]]:
    """The end state of a deed without faults, and how many transactions each side made: on SQLite, for both."""
    deed = DEEDS[name]
    with TemporaryDirectory(prefix="gateway-faults-") as place, pytest.MonkeyPatch.context() as patch:
        patch.setenv(DATABASE_VARIABLE, "sqlite")
        world = fresh(deed.start, Path(place))
        deed.work(world)
        commits = {agency: world.store(agency).commits for agency in AGENCIES}
        check_proofs(world)
        end = {agency: state(world.network.members[agency]) for agency in AGENCIES}
        world.close()
    return end, commits


WAYS = (KILLED_BEFORE, KILLED_AFTER, REFUSED)
SIDES = [(name, side) for name, deed in DEEDS.items() for side in deed.sides]
# Where both databases have their turn, one commit of each side fails on PostgreSQL; `scripts/soak` fails them all.
BOTH_DATABASES = DATABASE_VARIABLE not in os.environ


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("name", "side"), SIDES)
def test_a_deed_done_again_after_a_fault_ends_as_if_there_had_been_none(
    tmp_path: Path, database: str, name: str, side: str, way: str
) -> None:
    deed = DEEDS[name]
    expected, commits = undisturbed(name)
    assert commits[side] > 0
    chosen = range(1, commits[side] + 1)
    if BOTH_DATABASES and database == "postgresql":
        number = SIDES.index((name, side))
        chosen = chosen[number % len(chosen) :][: WAYS[number % len(WAYS)] == way]
    for at in chosen:
        world = fresh(deed.start, tmp_path / str(at))
        disturbed(world, deed, side, at, way)
        for agency in AGENCIES:
            found = state(world.network.members[agency])
            for what, value in expected[agency].items():
                assert found[what] == value, f"{what} of {agency} after commit {at} of {commits[side]}"
        check_proofs(world)
        world.close()


def test_an_entry_named_twice_is_withdrawn_once(tmp_path: Path) -> None:
    world = fresh(listed, tmp_path)
    pull(world)
    first = 1 << 48 | 1
    assert world.xa.ledger.withdraw(SET, [first, first], actor="tester", reason="listed wrongly") == 1
    pull(world)
    assert world.xb.mirrors.equality(SET) == "equal"
    assert len(held_entries(world.xb, SET)) == 29
    world.close()


def test_a_commit_that_never_fails_is_noticed(tmp_path: Path) -> None:
    world = fresh(listed, tmp_path)
    with pytest.raises(AssertionError, match="never met"):
        disturbed(world, DEEDS["look up"], "XA-NCVI", 2, REFUSED)
    world.close()
