"""The policy in force is the one that was signed: kept with its proposal, taken up everywhere; nothing else starts."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from factory import (
    CHEAP,
    PASSPHRASE,
    FakeClock,
    SeededRandom,
    card_of,
    database_to_found,
    drafts,
    enrol,
    events,
    make_node,
    make_set,
)
from gateway import activation, policyfolder, standing
from gateway.approvals import Change
from gateway.audit import EventKind
from gateway.config import LOCK, Settings
from gateway.crypto import dsse
from gateway.crypto.keys import SigningKey
from gateway.errors import AuditBrokenError, ConfigError, ConflictError, MalformedError, OverloadedError
from gateway.exchange import Exchange
from gateway.home import found, open_home
from gateway.keyadmin import add_administrator, approvals, bootstrap_administrator, remove_administrator
from gateway.keystore import PersonalKey
from gateway.node import WAITING_META, Node
from gateway.policyacts import activate_policy, cancel_policy
from gateway.proposals import STATEMENT_TYPE
from partner_simulator import Network, held_entries

ONE, TWO, THREE = (PersonalKey(name, SigningKey.generate(SeededRandom(name))) for name in ("one", "two", "three"))
AGREEMENT, NATIONAL = "XA/agreement-xb.cedar", "XA/national.cedar"
SET = "XA-NCVI/identified"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def home(tmp_path: Path, clock: FakeClock) -> Path:
    """A founded data folder with two administrators."""
    settings = Settings(folder=tmp_path / "xa", agency="XA-NCVI", jurisdiction="XA", **database_to_found())
    found(settings, PASSPHRASE, name="Unit of XA", clock=clock, random=SeededRandom("XA"), cost=CHEAP)
    node = opened(settings.folder, clock)
    for key in (ONE, TWO):
        bootstrap_administrator(node, key.name, key.signing_key.public)
    node.store.close()
    return settings.folder


def opened(home: Path, clock: FakeClock) -> Node:
    return open_home(home, PASSPHRASE, clock=clock)


def draft(home: Path, text: str = "// reviewed\n", name: str = "draft") -> Path:
    """A copy of the gateway's policy with a line more."""
    folder = home.parent / name
    shutil.copytree(home / "policies", folder, ignore=shutil.ignore_patterns(LOCK))
    path = folder / NATIONAL
    path.write_text(path.read_text() + text)
    return folder


def signed(node: Node, act: tuple[str, object], *keys: PersonalKey) -> str:
    desk = approvals(node)
    identifier = desk.propose(*act, by="one")  # type: ignore[arg-type]
    for key in keys or (ONE, TWO):
        desk.sign(identifier, key)
    return identifier


def next_day(node: Node, days: int = 1) -> date:
    return node.today + timedelta(days=days)


def to_the_beginning_of(clock: FakeClock, day: date) -> None:
    clock.now = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())


# LOCK


def test_a_founded_gateway_has_a_lock_that_names_every_file(home: Path, clock: FakeClock) -> None:
    node = opened(home, clock)
    lock = json.loads((home / "policies" / LOCK).read_text())
    assert (lock["policy"], lock["agency"]) == (node.policy.digest, "XA-NCVI")
    assert (lock["statement"], lock["signatures"]) == ("", [])
    files = {path.relative_to(home / "policies").as_posix() for path in (home / "policies").rglob("*.*")}
    assert files == set(lock["files"])


def test_what_two_signed_is_in_force_and_in_the_folder_with_their_signatures(home: Path, clock: FakeClock) -> None:
    node, changed = opened(home, clock), draft(home)
    before = node.policy.digest
    desk = approvals(node)
    identifier = desk.propose(*activate_policy(node, changed), by="one")
    assert [change.what for change in desk.difference(identifier)] == ["policy", NATIONAL]
    desk.sign(identifier, ONE)
    (changed / NATIONAL).write_text("// and once more\n")  # whatever becomes of the draft, what is signed is kept
    desk.sign(identifier, TWO)
    assert node.policy.digest != before
    assert (home / "policies" / NATIONAL).read_text().endswith("// reviewed\n")
    lock = json.loads((home / "policies" / LOCK).read_text())
    assert lock["policy"] == node.policy.digest
    assert [one["administrator"] for one in lock["signatures"]] == ["one", "two"]
    for one, key in zip(lock["signatures"], (ONE, TWO), strict=True):
        raw = base64.b64decode(one["signature"])
        assert dsse.verify(raw, key.signing_key.public, STATEMENT_TYPE) == lock["statement"].encode()
    assert opened(home, clock).policy.digest == node.policy.digest
    told = events(node, EventKind.POLICY_ACTIVATED)[-1].details
    key_ids = sorted(key.signing_key.public.key_set_id for key in (ONE, TWO))
    assert told == {"policy": node.policy.digest, "previous": before, "proposal": identifier, "key_ids": key_ids}
    clock.advance(1)
    with pytest.raises(ConflictError, match="in force already"):
        signed(node, activate_policy(node, home / "policies"))


def test_who_signed_stays_proved_when_they_are_no_administrators_any_more(home: Path, clock: FakeClock) -> None:
    node = opened(home, clock)
    signed(node, activate_policy(node, draft(home)))
    signed(node, add_administrator("three", THREE.signing_key.public))
    clock.advance(1)
    signed(node, remove_administrator("two", "moved on"))
    assert opened(home, clock).policy.digest == node.policy.digest


def altered(path: Path) -> None:
    path.write_text(path.read_text() + "// nobody signed this\n")


def flipped(path: Path) -> None:
    """Another signature of the first who signed."""
    lock = json.loads(path.read_text())
    raw = bytearray(base64.b64decode(lock["signatures"][0]["signature"]))
    raw[40] ^= 1
    lock["signatures"][0]["signature"] = base64.b64encode(raw).decode()
    path.write_text(json.dumps(lock, indent=2, sort_keys=True) + "\n")


def claimed(path: Path) -> None:
    """A LOCK that says of itself that it is of another policy."""
    lock = json.loads(path.read_text())
    path.write_text(json.dumps({**lock, "folder": "ab" * 32, "policy": "cd" * 32}, indent=2, sort_keys=True) + "\n")


@pytest.mark.parametrize(
    ("name", "tamper"),
    [
        (NATIONAL, altered),
        ("XA/examples.toml", altered),
        ("00-federation/restrictions.cedar", Path.unlink),
        ("XA/agreement-xe.cedar", lambda path: path.write_text("// new\n")),
        ("XA/notes.txt", lambda path: path.write_text("a stray file\n")),
        (LOCK, altered),
        (LOCK, flipped),
        (LOCK, claimed),
    ],
)
def test_a_folder_that_is_not_as_it_was_signed_stops_the_gateway(
    home: Path, clock: FakeClock, name: str, tamper: Callable[[Path], object]
) -> None:
    node = opened(home, clock)
    signed(node, activate_policy(node, draft(home)))
    tamper(home / "policies" / name)
    with pytest.raises(ConfigError) as caught:
        opened(home, clock)
    assert caught.value.place == name
    assert "policy activate --folder" in caught.value.remedy
    # The remedy helps.
    (home / "policies").rename(home.parent / "aside")
    assert opened(home, clock).policy.digest == node.policy.digest
    assert opened(home, clock).policy.digest == node.policy.digest


def test_a_folder_of_another_gateway_is_refused(home: Path, clock: FakeClock) -> None:
    path = home / "policies" / LOCK
    path.write_text(path.read_text().replace("XA-NCVI", "XA-OTHER"))
    with pytest.raises(ConfigError, match="another gateway"):
        opened(home, clock)


def test_a_gateway_from_before_there_was_a_lock_gets_one(home: Path, clock: FakeClock) -> None:
    node = opened(home, clock)
    (home / "policies" / LOCK).unlink()
    with node.store.transaction() as tx:
        tx.connection.exec_driver_sql("DELETE FROM meta WHERE key = 'policy folder'")
        tx.connection.exec_driver_sql("DELETE FROM policy_text")
    altered(home / "policies" / NATIONAL)
    with pytest.raises(ConfigError, match="another policy than the one in force"):
        opened(home, clock)
    path = home / "policies" / NATIONAL
    path.write_text(path.read_text().removesuffix("// nobody signed this\n"))
    assert opened(home, clock).policy.digest == node.policy.digest
    assert (home / "policies" / LOCK).exists()


class Crash(Exception):
    """The machine stops."""


@pytest.mark.parametrize("writes", range(4))
def test_a_crash_on_the_way_is_mended_at_the_next_start(
    home: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    node, changed = opened(home, clock), draft(home)
    (changed / AGREEMENT).unlink()
    (changed / "XA" / "agreement-xd.cedar").write_text("// Nothing is agreed on yet.\n")
    (changed / "XA" / "examples.toml").unlink()
    put, done = policyfolder._put, []

    def failing(path: Path, text: str) -> None:
        if path.exists() and path.read_text() == text:
            return
        if len(done) == writes:
            raise Crash
        done.append(path)
        put(path, text)

    monkeypatch.setattr(policyfolder, "_put", failing)
    if writes < 3:
        with pytest.raises(Crash):
            signed(node, activate_policy(node, changed))
    else:
        signed(node, activate_policy(node, changed))
    monkeypatch.undo()
    again = opened(home, clock)
    assert again.policy.digest == events(node, EventKind.POLICY_ACTIVATED)[-1].details["policy"]
    assert not (home / "policies" / AGREEMENT).exists()
    assert not (home / "policies" / "XA" / "examples.toml").exists()
    assert json.loads((home / "policies" / LOCK).read_text())["policy"] == again.policy.digest


def test_a_draft_with_an_unsound_rule_is_not_even_proposed(home: Path, clock: FakeClock) -> None:
    node = opened(home, clock)
    with pytest.raises(ConfigError, match=NATIONAL):
        activate_policy(node, draft(home, "permit (principal, action, resource);\n"))
    with pytest.raises(MalformedError, match="to come"):
        activate_policy(node, home / "policies", node.today)


# Without a restart


def partner(home: Path, clock: FakeClock, network: Network) -> tuple[Exchange, Exchange]:
    """The gateway with a set of its own, and a partner that follows it."""
    node = opened(home, clock)
    peer = make_node(home.parent, "XB-NCVI", clock=clock)
    enrol(node, card_of(peer))
    enrol(peer, card_of(node))
    xa, xb = network.join(node), network.join(peer)
    make_set(xa, "identified", drafts(5))
    return xa, xb


async def test_every_running_node_takes_the_new_policy_up_and_what_may_not_be_held_is_taken_back(
    home: Path, clock: FakeClock
) -> None:
    network = Network()
    xa, xb = partner(home, clock, network)
    await network.schedule("XA-NCVI").tick()
    await network.sync("XA-NCVI", "XB-NCVI").push(SET)
    assert len(held_entries(xb, SET)) == 5
    # 1. Two sign on the command line, in processes of their own, while two nodes run over one database.
    second = Exchange(opened(home, clock))
    changed = draft(home)
    (changed / AGREEMENT).unlink()
    (changed / "XA" / "examples.toml").unlink()
    clock.advance(10)
    desk = opened(home, clock)
    signed(desk, activate_policy(desk, changed))
    # 2. Neither shares anything under the old one; each takes up the new one when it wakes, and takes back at once.
    for running in (xa, second):
        with pytest.raises(OverloadedError, match="being changed"):
            running.head_for("XB-NCVI", SET)
    assert await network.schedule("XA-NCVI").tick() == 1
    assert activation.keep_in_step(second.node)
    assert xa.node.policy.digest == desk.policy.digest == second.node.policy.digest
    assert held_entries(xb, SET) == {}


# On a day


def test_a_dated_policy_waits_and_comes_into_force_at_the_beginning_of_its_day(home: Path, clock: FakeClock) -> None:
    node, changed = opened(home, clock), draft(home)
    before, day = node.policy.digest, next_day(node, 3)
    identifier = signed(node, activate_policy(node, changed, day))
    assert node.policy.digest == before
    with node.store.reading() as tx:
        waiting = standing.policy_waiting(tx, node)
    assert waiting is not None
    assert (waiting.on, waiting.proposal) == (day.isoformat(), identifier)
    to_the_beginning_of(clock, day)
    clock.advance(-1)
    assert not activation.keep_in_step(node)
    assert opened(home, clock).policy.digest == before
    clock.advance(1)
    assert activation.keep_in_step(node)
    assert not activation.keep_in_step(node)
    assert node.policy.digest == waiting.policy
    told = events(node, EventKind.POLICY_ACTIVATED)[-1]
    assert (told.details["proposal"], told.at) == (identifier, clock())
    assert json.loads((home / "policies" / LOCK).read_text())["policy"] == waiting.policy


def test_a_gateway_that_was_down_takes_it_at_its_start(home: Path, clock: FakeClock) -> None:
    node = opened(home, clock)
    before, day = node.policy.digest, next_day(node)
    signed(node, activate_policy(node, draft(home), day))
    node.store.close()
    clock.advance(10 * 86_400)
    assert opened(home, clock).policy.digest != before


async def test_nothing_is_shared_under_the_old_one_once_the_day_began(home: Path, clock: FakeClock) -> None:
    network = Network()
    xa, _ = partner(home, clock, network)
    day = next_day(xa.node)
    changed = draft(home)
    (changed / AGREEMENT).unlink()
    (changed / "XA" / "examples.toml").unlink()
    signed(xa.node, activate_policy(xa.node, changed, day))
    to_the_beginning_of(clock, day)
    clock.advance(-1)
    assert xa.sets_for("XB-NCVI") != []
    clock.advance(1)
    with pytest.raises(OverloadedError, match="being changed"):
        xa.sets_for("XB-NCVI")
    await network.schedule("XA-NCVI").tick()
    assert xa.sets_for("XB-NCVI") == []


def test_a_policy_that_waits_is_superseded_or_cancelled(home: Path, clock: FakeClock) -> None:
    node = opened(home, clock)
    day = next_day(node, 5)
    signed(node, activate_policy(node, draft(home), day))
    second = draft(home, "// otherwise\n", "second")
    desk = approvals(node)
    identifier = desk.propose(*activate_policy(node, second, next_day(node, 9)), by="one")
    assert Change(f"policy for {day}", waits(node).policy[:16], "superseded by another") in desk.difference(identifier)
    desk.sign(identifier, ONE)
    desk.sign(identifier, TWO)
    assert waits(node).on == next_day(node, 9).isoformat()
    clock.advance(1)
    signed(node, cancel_policy(node))
    with pytest.raises(ConflictError, match="no policy waits"):
        cancel_policy(node)
    reasons = [event.details["reason"] for event in events(node, EventKind.POLICY_UNSCHEDULED)]
    assert reasons == ["superseded by another", "cancelled"]
    # One that comes into force at once supersedes as well.
    clock.advance(1)
    signed(node, activate_policy(node, draft(home, "// third\n", "third"), next_day(node, 2)))
    clock.advance(1)
    signed(node, activate_policy(node, second))
    with node.store.reading() as tx:
        assert standing.policy_waiting(tx, node) is None
    clock.advance(30 * 86_400)
    assert not activation.keep_in_step(node)


def waits(node: Node) -> standing.PolicyWord:
    with node.store.reading() as tx:
        found = standing.policy_waiting(tx, node)
    assert found is not None
    return found


@pytest.mark.parametrize("word", ["", "2026-11-20 " + "ab" * 32])
def test_a_day_that_somebody_else_wrote_into_the_database_is_noticed(home: Path, clock: FakeClock, word: str) -> None:
    node = opened(home, clock)
    signed(node, activate_policy(node, draft(home), next_day(node, 5)))
    with node.store.transaction() as tx:
        tx.people.set_meta(WAITING_META, word)
    with pytest.raises(AuditBrokenError, match="waits for its day"):
        opened(home, clock)


def test_a_proposal_whose_day_has_come_meanwhile_takes_effect_at_once(home: Path, clock: FakeClock) -> None:
    node = opened(home, clock)
    desk = approvals(node)
    identifier = desk.propose(*activate_policy(node, draft(home), next_day(node)), by="one")
    desk.sign(identifier, ONE)
    clock.advance(2 * 86_400)
    desk.sign(identifier, TWO)
    assert events(node, EventKind.POLICY_ACTIVATED)[-1].details["proposal"] == identifier
    assert events(node, EventKind.POLICY_SCHEDULED) == []
