"""Two gateways, and SIGKILL at random moments: what was acknowledged stays, and nothing is there twice.

    KillWorld(folder, seed).run(kills=16)          # one seed: as many processes killed in the middle of their deed
    python -m kill_rounds 7 --kills 200            # from the tests folder: one seed, with a line for each kill

Each round prepares some work, starts the deed in processes of its own, and kills one or two of them at a random moment
of it: who imports, who withdraws, who pushes, the server that accepts, who pulls, the server that serves. Then what was
killed starts again, the same deed is done once more, this time to its end, and everything is checked:

1. the owner's set holds exactly what its rows said, each changed row exactly one version up, the changes numbered
   without a gap; what the deed had acknowledged before the kill was there before it was repeated, and repeating an
   import adds exactly what was missing;
2. the follower's mirror holds exactly what policy shows of it, and its state digest equals the hub's;
3. every page that has a receipt was taken in once: one row in the inbox, one event in the log, at the receipt's leaf;
4. every withdrawal that took effect was acknowledged once;
5. both logs verify from the first leaf to the last, and against every receipt.

Processes are forked from a server that has imported the program already, so a restart costs what opening costs and no
interpreter start; it opens the data folder as `gateway serve` does. A kill comes after so many acknowledgements, and
then at a random moment of the time that one more takes, some of them while the victim writes to its database: a seed
repeats itself as far as timing does.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import connection as pipes
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import configure_mappers

from factory import CHEAP, PASSPHRASE, UNBOUNDED, database_to_found, enrol, make_set, sha256
from gateway import audit
from gateway.app import serve
from gateway.audit import Event, EventKind
from gateway.client import PartnerLink
from gateway.config import Settings
from gateway.errors import GatewayError
from gateway.exchange import Exchange, ledger
from gateway.exchange.withdrawals import ANSWER, APPLIED
from gateway.home import found, open_home
from gateway.keyadmin import export_card
from gateway.model import EntryDraft, HandlingCode, VictimStatus
from gateway.node import Node, log_origin
from gateway.store.tables import InboxRow, OutboxRow, columns
from gateway.sync import PartnerSync
from partner_simulator import held_entries
from processes import free_port, is_ready
from simulation import project

OWNER, FOLLOWER = "XA-NCVI", "XB-NCVI"
SET = f"{OWNER}/identified"
BATCH_ROWS = 8  # of an import that is killed: a round's rows make several commits
FIRST_ROWS = 64
NEW_ROWS = 16  # of one round, besides some that change and some that are withdrawn
CHUNK = 4  # entries withdrawn in one transaction
PAGE_CHANGES = 16
# XB takes entries of all of these. A new one comes into use every few rounds: a new label, and so another view.
EVALUATIONS = tuple(f"{source}{information}" for information in range(1, 7) for source in "ABC")
ROUNDS_A_LABEL = 3
OPENING_SHARE = 0.1  # kills that come while a process still opens its data folder
AIMED_SHARE = 0.4  # kills that wait until a victim writes to its database
WRITE_SECONDS = 0.006  # less than one commit takes
WAIT_SECONDS = 30.0
MAX_RESTART_SECONDS = 5.0

# What is killed in which deed. A world deals these out in an order of its own, again and again.
DECK = (
    *("import", "import", "import", "withdraw", "withdraw"),
    *("push: sender", "push: sender", "push: acceptor", "push: acceptor", "push: both"),
    *("pull: follower", "pull: follower", "pull: hub", "pull: hub", "pull: both"),
    "sync: follower",
)

configure_mappers()  # in the fork server, for all its processes: each would do it at its first row


# The processes. Each opens the data folder as a process of its own does, and says over its pipe what it acknowledged.


def serve_process(home: Path, pipe: Connection) -> None:
    """The gateway as a server, until it is ended."""
    with _opened(home) as node:
        exchange = Exchange(node)
        asyncio.run(serve(exchange, ready=lambda _port: pipe.send(("begins", 0)), limits=UNBOUNDED))


def import_process(home: Path, pipe: Connection, drafts: Sequence[EntryDraft]) -> None:
    """One import; acknowledges each batch by the rows done so far."""
    ledger.BATCH_ROWS = BATCH_ROWS  # this process is the import's alone
    with _deed(home, pipe) as node:
        tally = Exchange(node).ledger.import_entries(
            SET, drafts, actor=OWNER, form="test", on_batch=lambda so_far: pipe.send(("did", so_far.rows))
        )
        pipe.send(("done", (tally.added, tally.updated, tally.unchanged)))


def withdraw_process(home: Path, pipe: Connection, ids: Sequence[int]) -> None:
    """Withdrawals, some at a time; acknowledges how many are through."""
    with _deed(home, pipe) as node:
        exchange = Exchange(node)
        listed = held_entries(exchange, SET)
        left = [one for one in ids if one in listed]
        for at in range(0, len(left), CHUNK):
            exchange.ledger.withdraw(SET, left[at : at + CHUNK], actor=OWNER, reason="wrong")
            pipe.send(("did", len(ids) - len(left) + min(at + CHUNK, len(left))))
        pipe.send(("done", len(left)))


def sync_process(home: Path, pipe: Connection, partner: str, deed: str) -> None:
    """`push`, `pull` or `sync` with a partner; acknowledges how far its pages have come."""
    with _deed(home, pipe) as node:
        exchange = Exchange(node)
        key, told = node.keystore.token_key, lambda seq, _end: pipe.send(("did", seq))

        async def work() -> None:
            async with PartnerLink(exchange.card_of(partner), key, node.agency, node.clock, node.random) as link:
                dealings = PartnerSync(exchange, link, partner, on_page=told)
                await {"push": lambda: dealings.push(SET), "pull": dealings.pull, "sync": dealings.sync}[deed]()

        asyncio.run(work())
        pipe.send(("done", 0))


def _nothing(_home: Path, _pipe: Connection) -> None:
    """Ends at once."""


@contextmanager
def _opened(home: Path) -> Iterator[Node]:
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    node = open_home(home, PASSPHRASE)
    try:
        yield node
    finally:
        node.store.close()


@contextmanager
def _deed(home: Path, pipe: Connection) -> Iterator[Node]:
    """A deed that may fail as deeds do when somebody else was killed; anything but a GatewayError is a bug."""
    with _opened(home) as node:
        pipe.send(("begins", 0))
        try:
            yield node
        except GatewayError as error:
            pipe.send(("failed", f"{type(error).__name__}: {error}"))


def _end_with(sentinel: int) -> None:
    """No process outlives the test that started it, however that ends."""
    pipes.wait([sentinel])
    os._exit(1)


class Nursery:
    """Starts the processes above, forked from a process that has imported everything and opened nothing."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([__name__])
        self._running: list[Running] = []
        self.start(_nothing, Path()).wait()  # from here on everything is imported

    def start(self, target: Callable[..., None], *arguments: object) -> Running:
        ours, theirs = self._context.Pipe(duplex=False)
        home, *rest = arguments
        process = self._context.Process(target=target, args=(home, theirs, *rest), daemon=True)
        began = time.monotonic()
        with _import_path():
            process.start()
        theirs.close()
        self._running.append(Running(process, ours, began))
        return self._running[-1]

    def close(self) -> None:
        """End what still runs."""
        for one in self._running:
            one.kill()


@dataclass
class Running:
    """One process, and what it has said."""

    process: BaseProcess
    pipe: Connection
    began: float
    said: list[tuple[str, Any]] = field(default_factory=list)

    def kill(self) -> bool:
        """SIGKILL; whether it was still at work."""
        self.process.kill()
        self.process.join(WAIT_SECONDS)
        self.listen(0)
        return self.process.exitcode == -9

    def listen(self, seconds: float, until: str = "") -> bool:
        """Hear what it says for a while, at most until one word; whether that was heard."""
        end = time.monotonic() + seconds
        while self.pipe.poll(max(0.0, end - time.monotonic())):
            try:
                self.said.append(self.pipe.recv())
            except (EOFError, OSError):  # it has ended; a message that was cut off was never said
                return False
            if self.said[-1][0] == until:
                return True
        return False

    def wait(self) -> None:
        """Until it has ended by itself."""
        while self.process.is_alive() and time.monotonic() - self.began < WAIT_SECONDS:
            if not self.listen(0.5):
                self.process.join(0.05)
        self.listen(0)
        assert not self.process.is_alive(), "it does not end"
        assert self.process.exitcode == 0, f"exit {self.process.exitcode}, said {self.said}"

    def last(self, word: str) -> Any:
        """What it said last under a word, None if it never did."""
        return next((value for name, value in reversed(self.said) if name == word), None)


@contextmanager
def _import_path() -> Iterator[None]:
    """The fork server is an interpreter of its own: it finds this module by the environment (python/cpython#117378)."""
    before = os.environ.get("PYTHONPATH")
    here = str(Path(__file__).parent)
    os.environ["PYTHONPATH"] = here if before is None else f"{here}{os.pathsep}{before}"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


# The world


@dataclass
class KillReport:
    """What a run did. `in_commit`: how often a kill left a transaction half written, for the next one to roll back.
    `restart_seconds`: the longest from a killed server's start to its first answer.
    """

    kills: Counter[str] = field(default_factory=Counter)
    at_opening: int = 0
    in_commit: int = 0
    rounds: int = 0
    restart_seconds: float = 0.0
    lines: list[str] = field(default_factory=list)

    @property
    def summary(self) -> str:
        """One line for people."""
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(self.kills.items()))
        return (
            f"{self.kills.total()} kills in {self.rounds} rounds ({kinds}), {self.at_opening} of them at an opening, "
            f"{self.in_commit} in the middle of a commit; "
            f"slowest restart {self.restart_seconds:.2f} s"
        )


Entries = dict[int, dict[str, object]]  # as `held_entries` tells them
Rows = dict[bytes, tuple[EntryDraft, int]]  # SHA-256 -> row, version


class KillWorld:
    """An owner and a follower, each with a server, and the truth about the owner's rows kept beside them."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.seed = seed
        self.source = random.Random(seed)
        self.nursery = Nursery()
        self.report = KillReport()
        self.homes = {agency: folder / agency for agency in (OWNER, FOLLOWER)}
        self.ports = {agency: self._found(agency) for agency in self.homes}
        self.nodes = {agency: open_home(home, PASSPHRASE) for agency, home in self.homes.items()}
        self.owner, self.follower = (Exchange(self.nodes[agency]) for agency in (OWNER, FOLLOWER))
        enrol(self.owner.node, export_card(self.follower.node))
        enrol(self.follower.node, export_card(self.owner.node))
        self.rows: Rows = {}
        self.next_row = 0
        self.listed: dict[int, bytes] = {}  # entry -> SHA-256 of the owner's set, as last looked at
        self.opening_seconds = 0.0
        self.paces: dict[str, tuple[int, float]] = {}  # deed -> steps, seconds a step
        self.servers: dict[str, Running] = {}
        make_set(self.owner, "identified")
        self._import_here(FIRST_ROWS)
        self.check_owner()

    def _found(self, agency: str) -> int:
        port = free_port()
        settings = Settings(
            folder=self.homes[agency],
            agency=agency,
            jurisdiction=agency[:2],
            listen_port=port,
            public_url=f"http://127.0.0.1:{port}",
            demo=True,
            quorum=1,
            page_changes=PAGE_CHANGES,
            requests_per_minute=100_000,
            **database_to_found(),
        )
        found(settings, PASSPHRASE, name=f"National unit of {agency[:2]}", cost=CHEAP)
        return port

    def close(self) -> None:
        """End every process of this world."""
        self.nursery.close()
        for node in self.nodes.values():
            node.store.close()

    def run(self, kills: int) -> KillReport:
        """Rounds until so many deeds were cut off by a kill; an assertion names the seed."""
        deck: list[str] = []
        try:
            for agency in self.homes:
                self._serve(agency)
            self._measure()
            while self.report.kills.total() < kills:
                if not deck:
                    deck = self.source.sample(DECK, len(DECK))
                self._round(deck.pop())
            self._finish_all()
        except AssertionError as error:
            raise AssertionError(f"seed {self.seed}: {error}\n" + "\n".join(self.report.lines[-12:])) from error
        return self.report

    def _round(self, kind: str) -> None:
        self.report.rounds += 1
        if kind == "import":
            self._import()
        elif kind == "withdraw":
            self._withdraw()
        else:
            self._sync(kind)
        shown = self.check_owner()
        if ": " in kind:
            self.check_follower(shown)
        self.check_messages()
        self.check_logs()

    # Deeds

    def _import(self) -> None:
        drafts, expected = self._some_rows()
        ran = self._killed("import", [], import_process, self.homes[OWNER], drafts)
        # What was acknowledged is there.
        there = self._versions()
        changed = {one for one, row in expected.items() if self.rows.get(one) != row}
        done = {one for one in changed if there.get(one) == expected[one][1]}
        acknowledged = {draft.digests["sha256"] for draft in drafts[: ran.last("did") or 0]}
        assert acknowledged & changed <= done, "an acknowledged batch is gone"
        # The same input again adds and updates exactly what was missing.
        missing = changed - done
        fresh = missing - self.rows.keys()
        tally = self._finished(import_process, self.homes[OWNER], drafts).last("done")
        wanted = (len(fresh), len(missing - fresh), len(drafts) - len(missing))
        assert tally == wanted, f"repeated, the import tells {tally} and not {wanted}"
        self.rows.update(expected)

    def _withdraw(self) -> None:
        ids = self._some_listed(5 * CHUNK)
        ran = self._killed("withdraw", [], withdraw_process, self.homes[OWNER], ids)
        left = held_entries(self.owner, SET).keys() & set(ids)
        assert not left & set(ids[: ran.last("did") or 0]), "an acknowledged withdrawal is gone"
        again = self._finished(withdraw_process, self.homes[OWNER], ids).last("done")
        assert again == len(left), f"{again} entries were withdrawn the second time, and {len(left)} were left"
        self._forget(ids)

    def _sync(self, kind: str) -> None:
        # 1. Something to carry: new rows, changed rows, withdrawals.
        self._import_here(NEW_ROWS)
        self._withdraw_here(2 * CHUNK)
        # 2. Killed.
        deed, _, victims = kind.partition(": ")
        servers = [] if victims in ("sender", "follower") else [OWNER if deed == "pull" else FOLLOWER]
        client = victims not in ("acceptor", "hub")
        ran = self._killed(kind, servers, sync_process, *self._dealings(deed), client=client)
        assert self.follower.mirrors.cursor(SET).seq >= (ran.last("did") or 0), "an acknowledged page is gone"
        # 3. Again to the end; sometimes the other way, so that a page which was on its way arrives late.
        for agency in servers:
            self._serve(agency)
        self._finished(sync_process, *self._dealings(self.source.choice((deed, deed, deed, "push", "pull"))))

    def _dealings(self, deed: str) -> tuple[Path, str, str]:
        return (self.homes[OWNER], FOLLOWER, deed) if deed == "push" else (self.homes[FOLLOWER], OWNER, deed)

    def _finish_all(self) -> None:
        """Nothing is on its way any more."""
        for deed in ("push", "sync"):
            self._finished(sync_process, *self._dealings(deed))
        self.check_follower(self.check_owner())
        self.check_answers()
        self.check_messages()
        self.check_logs()
        with self.owner.node.store.reading() as tx:
            assert tx.mail.waiting(FOLLOWER) == [], "a page is still on its way"
            came = {row.number: self.owner.mailbox.read(row) for row in tx.mail.incoming(FOLLOWER)}
        with self.follower.node.store.reading() as tx:
            went = {row.number: self.follower.mailbox.read(row) for row in tx.mail.sent_mail(OWNER)}
        assert came == went, "the mailboxes of both ends differ"

    # Killing

    def _killed(
        self,
        kind: str,
        servers: Sequence[str],
        target: Callable[..., None],
        home: Path,
        *arguments: object,
        client: bool = True,
    ) -> Running:
        """Start the deed, and kill the servers named and (if `client`) the process that does it, at a random moment."""
        running = self.nursery.start(target, home, *arguments)
        opening = client and self.source.random() < OPENING_SHARE
        if opening:
            time.sleep(self.source.uniform(0, self.opening_seconds))
        else:
            assert running.listen(WAIT_SECONDS, until="begins"), "it does not begin"
            steps, step_seconds = self.paces[kind.partition(":")[0]]
            for _ in range(self.source.randrange(steps)):
                running.listen(WAIT_SECONDS, until="did")
            running.listen(self.source.uniform(0, step_seconds), until="done")
            if self.source.random() < AIMED_SHARE:
                homes = [self.homes[agency] for agency in servers] + ([home] if client else [])
                self._until_writing(running, homes, 2 * step_seconds)
        for agency in servers:
            assert self.servers[agency].kill(), f"the server of {agency} had ended by itself"
        if client:
            running.kill()
        else:
            running.wait()
        self.report.in_commit += any(_is_half_written(home) for home in self.homes.values())
        hit = running.last("done") is None
        if hit:
            self.report.kills[kind] += 1
            self.report.at_opening += opening
        self.report.lines.append(
            f"{kind}{' (opening)' if opening else ''}, {'hit' if hit else 'missed'}: {running.said}"
        )
        return running

    def _until_writing(self, running: Running, homes: Sequence[Path], seconds: float) -> None:
        """Until one of them is writing to its database, and a random moment of that; or the time is up."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not any(_is_half_written(home) for home in homes):
            if running.listen(0.001, until="done"):
                return
        time.sleep(self.source.uniform(0, WRITE_SECONDS))

    def _finished(self, target: Callable[..., None], *arguments: object) -> Running:
        """The same deed once more, to its end."""
        running = self.nursery.start(target, *arguments)
        running.wait()
        assert running.last("done") is not None, running.said
        return running

    def _serve(self, agency: str) -> None:
        """Start a server and wait for its first answer. Now and then it is killed once more before that."""
        if self.opening_seconds and self.source.random() < OPENING_SHARE:
            running = self.nursery.start(serve_process, self.homes[agency])
            time.sleep(self.source.uniform(0, self.opening_seconds))
            running.kill()
            self.report.kills["server at its start"] += 1
            self.report.at_opening += 1
        self.servers[agency] = running = self.nursery.start(serve_process, self.homes[agency])
        while not is_ready(self.ports[agency]):
            assert running.process.is_alive(), f"the server of {agency} does not start again"
            assert time.monotonic() - running.began < WAIT_SECONDS, f"the server of {agency} does not get ready"
            time.sleep(0.01)
        took = time.monotonic() - running.began
        self.report.restart_seconds = max(self.report.restart_seconds, took)
        assert took < MAX_RESTART_SECONDS, f"the server of {agency} took {took:.1f} s to start"

    def _measure(self) -> None:
        """How long each deed takes when nobody disturbs it."""
        drafts, expected = self._some_rows()
        self._timed("import", import_process, self.homes[OWNER], drafts)
        self.rows.update(expected)
        ids = self._some_listed(5 * CHUNK)
        self._timed("withdraw", withdraw_process, self.homes[OWNER], ids)
        self._forget(ids)
        self._finished(sync_process, *self._dealings("push"))
        self.check_follower(self.check_owner())
        for deed in ("push", "pull", "sync"):
            self._import_here(NEW_ROWS)
            self._withdraw_here(2 * CHUNK)
            self._timed(deed, sync_process, *self._dealings(deed))
            self.check_follower(self.check_owner())

    def _timed(self, name: str, target: Callable[..., None], *arguments: object) -> None:
        running = self.nursery.start(target, *arguments)
        assert running.listen(WAIT_SECONDS, until="begins"), running.said
        began = time.monotonic()
        assert running.listen(WAIT_SECONDS, until="done"), running.said
        steps = sum(word == "did" for word, _ in running.said)
        self.paces[name] = steps, (time.monotonic() - began) / steps
        self.opening_seconds = began - running.began
        running.wait()

    # Rows

    def _draft(self, number: int) -> EntryDraft:
        choose = self.source.choice
        return EntryDraft(
            {"sha256": sha256(f"{self.seed} sha256 {number}"), "md5": sha256(f"{self.seed} md5 {number}")[:16]},
            source_ref=f"ref-{number}",
            series=choose(("", "Blue Door", "Red Door")),
            victim_status=VictimStatus.IDENTIFIED,
            handling=choose((HandlingCode.H0, HandlingCode.H1)),
            evaluation=self._evaluation(),
        )

    def _evaluation(self) -> str:
        first = self.report.rounds // ROUNDS_A_LABEL % len(EVALUATIONS)
        return self.source.choice((EVALUATIONS[first - 1], EVALUATIONS[first]))

    def _some_rows(self, new: int = NEW_ROWS) -> tuple[list[EntryDraft], Rows]:
        """An input of new rows, changed rows and rows as they are; and what it makes of these rows."""
        drafts = [self._draft(number) for number in range(self.next_row, self.next_row + new)]
        self.next_row += new
        for known in self.source.sample(sorted(self.rows), min(len(self.rows), new // 3)):
            draft = self.rows[known][0]
            if self.source.random() < 0.7:
                draft = draft._replace(series=f"Series {self.next_row}", evaluation=self._evaluation())
            drafts.append(draft)
        self.source.shuffle(drafts)
        expected = {}
        for draft in drafts:
            held, version = self.rows.get(draft.digests["sha256"], (None, 0))
            expected[draft.digests["sha256"]] = (draft, version + (held != draft))
        return drafts, expected

    def _import_here(self, new: int) -> None:
        """Rows imported by a process that nobody kills: their labels make blocks enough for several pages."""
        drafts, expected = self._some_rows(new)
        self.owner.ledger.import_entries(SET, drafts, actor=OWNER, form="test")
        self.rows.update(expected)

    def _withdraw_here(self, count: int) -> None:
        ids = self._some_listed(count)
        self.owner.ledger.withdraw(SET, ids, actor=OWNER, reason="wrong")
        self._forget(ids)

    def _some_listed(self, count: int) -> list[int]:
        return self.source.sample(sorted(self.listed), count)

    def _forget(self, ids: Sequence[int]) -> None:
        """These entries were withdrawn, before the follower heard of it."""
        for entry in ids:
            del self.rows[self.listed.pop(entry)]

    def _versions(self) -> dict[object, object]:
        """SHA-256 -> version of what the owner's set holds."""
        return {one["sha256"]: one["version"] for one in held_entries(self.owner, SET).values()}

    # Checks

    def check_owner(self) -> Entries:
        """The owner's set is what its rows say, its changes without a gap and each logged once; returns it."""
        held = held_entries(self.owner, SET)
        assert len(held) == len(self.rows), f"{len(held)} entries are listed, and not {len(self.rows)}"
        for entry, one in held.items():
            self.listed[entry] = digest = bytes(one["sha256"])  # type: ignore[call-overload]  # a column of bytes
            draft, version = self.rows[digest]
            said = (one["md5"], one.get("series", ""), one["version"])
            assert said == (draft.digests["md5"], draft.series, version), draft.source_ref
        self.listed = {entry: self.listed[entry] for entry in held}
        with self.owner.node.store.reading() as tx:
            hash_set = tx.sets.get(SET)
            spans = sorted((row.first_seq, row.last_seq) for row in tx.blocks.of_set(hash_set.id or 0))
        ends = [0, *(last for _, last in spans)]
        assert [first for first, _ in spans] == [end + 1 for end in ends[:-1]], "changes are missing or numbered twice"
        told = {EventKind.ENTRIES_IMPORTED: "accepted", EventKind.ENTRIES_WITHDRAWN: "changes"}
        logged = sum(int(str(event.details[told[event.kind]])) for event in _events(self.owner.node, *told))
        assert logged == hash_set.seq == ends[-1], "a change is not logged once"
        return held

    def check_follower(self, shown: Entries) -> None:
        """The mirror is the set, all of which policy shows; both ends agree."""
        held = {entry: project(one) for entry, one in held_entries(self.follower, SET).items()}
        expected = {entry: project(one) for entry, one in shown.items()}
        assert held == expected, "the mirror holds something else than its hub shows"
        assert self.follower.mirrors.equality(SET) == "equal", "the state digests differ"

    def check_answers(self) -> None:
        """Each withdrawal was answered once, and nobody owes an answer."""
        with self.follower.node.store.reading() as tx:
            rows = [row for row in tx.mail.sent_mail(OWNER) if row.kind == ANSWER]
            said = [self.follower.mailbox.read(row) for row in rows]
        assert len({one["withdrawal"] for one in said}) == len(said), "a withdrawal was answered twice"
        owed = [one for one in self.owner.withdrawals.status() if one.state != APPLIED]
        assert owed == [], "a withdrawal has no answer"

    def check_messages(self) -> None:
        """Each message was taken in once, after it was logged as sent; a receipt means that it was."""
        with self.follower.node.store.reading() as tx:
            pages = columns(InboxRow).message_id
            inbox = {row.message_id for row in tx.connection.execute(select(pages))}
        kinds = (EventKind.PUSH_RECEIVED, EventKind.PAGE_APPLIED, EventKind.MAILBOX_RECEIVED)
        taken = Counter(_ids(self.follower.node, *kinds))
        assert taken == dict.fromkeys(inbox, 1), "a message was taken in twice, or without its row"
        inbox -= set(_ids(self.follower.node, EventKind.MAILBOX_RECEIVED))  # mail is logged when it is posted
        left = set(_ids(self.owner.node, EventKind.PAGE_SENT, EventKind.PAGE_SERVED))
        assert inbox <= left, "a page was taken in that never left"
        with self.owner.node.store.reading() as tx:
            outbox = columns(OutboxRow)
            sent = tx.connection.execute(select(outbox.message_id, outbox.state)).all()
        assert {one for one, state in sent if state == "received"} <= inbox, "a receipt for nothing"
        assert not {one for one, state in sent if state == "dead"} & inbox, "given up, but taken in"

    def check_logs(self) -> None:
        """Both logs verify, and hold what every receipt says."""
        with self.owner.node.store.reading() as tx:
            receipts = [row.receipt for row in tx.mail.receipts(FOLLOWER)]
        with self.follower.node.store.reading() as tx:
            mail = {row.receipt for row in tx.mail.sent_mail(OWNER) if row.receipt}
        for exchange, outside in ((self.follower, receipts), (self.owner, sorted(mail))):
            node = exchange.node
            key = node.keystore.log_key(log_origin(node.agency)).verifier
            with node.store.reading() as tx:
                audit.verify_log(tx.log.leaves(), tx.log.nodes(), tx.log.checkpoints(), key, outside)


def _is_half_written(home: Path) -> bool:
    """Whether a rollback journal lies there, with the pages of before."""
    journal = home / "gateway.db-journal"
    return journal.exists() and journal.stat().st_size > 0


def _events(node: Node, *kinds: EventKind) -> Iterator[Event]:
    marks = [f'"kind":"{kind}"'.encode() for kind in kinds]
    with node.store.reading() as tx:
        rows = [row.event_bytes for row in tx.log.leaves() if row.event_bytes is not None]
    return (audit.parse_event(raw) for raw in rows if any(mark in raw for mark in marks))


def _ids(node: Node, *kinds: EventKind) -> Iterator[str]:
    return (str(event.details["message_id"]) for event in _events(node, *kinds))


if __name__ == "__main__":
    import argparse
    import tempfile

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seed", type=int)
    parser.add_argument("--kills", type=int, default=16)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        # The fork server knows this module by its name, and not as __main__.
        from kill_rounds import KillWorld as World

        world = World(Path(place), asked.seed)
        try:
            world.run(asked.kills)
        finally:
            world.close()
            print("\n".join(world.report.lines))
    print(f"seed {asked.seed}: {world.report.summary}")
