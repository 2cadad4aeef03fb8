"""Alarms: raised once, told until somebody took them, closed when their cause is gone; the command that tells them."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from factory import FakeClock, befriend, drafts, events, make_node, make_set
from gateway import alarms
from gateway.alarms import (
    ENDED_BY_DEED,
    NEXT,
    SWEPT,
    AlarmKind,
    Finding,
    close_alarm,
    close_by_hand,
    raise_alarm,
    sweep,
)
from gateway.audit import EventKind
from gateway.cli import app
from gateway.crypto import canonical
from gateway.crypto.keys import SigningKey
from gateway.errors import ConfigError, ConflictError, DeniedError, NotFoundError, PartnerError
from gateway.home import open_home
from gateway.keyadmin import bootstrap_administrator
from gateway.node import Node
from gateway.sourcestate import State
from gateway.store.tables import AlarmRow, OwnKey, PartnerRow, ProposalRow, ScheduleRow
from gateway.watch import MAX_CALLS, Watch
from partner_simulator import Network, here

CONTRACT = Path(__file__).parents[1] / "contracts" / "alarms.md"
PAGE = Path(__file__).parents[1] / "docs" / "alarms.md"
DAY = 86_400
HOOK = "hook"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def node(tmp_path: Path, clock: FakeClock) -> Node:
    made = make_node(tmp_path, clock=clock, alarm_command=HOOK)
    bootstrap_administrator(made, "alice", SigningKey.generate().public)
    return made


def ring(node: Node, kind: AlarmKind = AlarmKind.CLOCK_SKEW, subject: str = "XB-NCVI", level: int = 0) -> int | None:
    with node.store.transaction() as tx:
        return raise_alarm(tx, node, kind, subject, "something is wrong", level=level, evidence="a proof")


def standing(node: Node, *, closed: bool = False) -> list[AlarmRow]:
    with node.store.reading() as tx:
        return tx.alarms.all(closed=closed)


def kinds(node: Node) -> list[str]:
    return sorted(row.kind for row in standing(node))


# Raising and closing


def test_an_alarm_is_raised_once_and_recorded_once(node: Node) -> None:
    number = ring(node)
    assert number is not None
    assert ring(node) is None
    assert ring(node, subject="XC-NCVI") != number
    [first, _] = events(node, EventKind.ALARM_RAISED)
    assert (first.subject, first.details) == ("XB-NCVI", {"alarm": number, "kind": "clock_skew", "level": 0})
    assert len(standing(node)) == 2


def test_an_alarm_that_comes_nearer_is_told_again_and_one_that_does_not_is_not(node: Node, clock: FakeClock) -> None:
    number = ring(node, level=30)
    with node.store.transaction() as tx:
        tx.alarms.note_told(number or 0, 30, clock())
    assert ring(node, level=30) is None
    assert ring(node, level=60) is None
    assert not untold(node)
    clock.advance(5)
    assert ring(node, level=14) == number
    [row] = untold(node)
    assert (row.level, row.raised) == (14, clock())
    assert [event.details["level"] for event in events(node, EventKind.ALARM_RAISED)] == [30, 14]


def test_an_alarm_that_came_nearer_while_it_was_told_is_still_to_be_told(node: Node, clock: FakeClock) -> None:
    number = ring(node, level=30)
    ring(node, level=14)
    with node.store.transaction() as tx:
        tx.alarms.note_told(number or 0, 30, clock())
    assert len(untold(node)) == 1


def untold(node: Node) -> list[AlarmRow]:
    with node.store.reading() as tx:
        return tx.alarms.untold()


def test_a_closed_alarm_is_on_record_and_may_be_raised_anew(node: Node) -> None:
    first = ring(node)
    with node.store.transaction() as tx:
        assert close_alarm(tx, node, AlarmKind.CLOCK_SKEW, "XB-NCVI")
        assert not close_alarm(tx, node, AlarmKind.CLOCK_SKEW, "XB-NCVI")
    [closed] = events(node, EventKind.ALARM_CLOSED)
    assert (closed.actor, closed.details) == (node.agency, {"alarm": first, "kind": "clock_skew"})
    assert not standing(node)
    assert ring(node) not in (first, None)
    assert len(standing(node, closed=True)) == 2


def test_an_administrator_closes_an_alarm_under_their_name(node: Node) -> None:
    number = ring(node) or 0
    with pytest.raises(DeniedError):
        close_by_hand(node, number, "mallory")
    close_by_hand(node, number, "alice")
    assert [event.actor for event in events(node, EventKind.ALARM_CLOSED)] == ["alice"]
    with pytest.raises(ConflictError):
        close_by_hand(node, number, "alice")
    with pytest.raises(NotFoundError):
        close_by_hand(node, 99, "alice")


def test_a_forked_log_is_no_alarm_that_one_person_can_close(node: Node) -> None:
    with pytest.raises(ConflictError, match="act that ends its cause"):
        close_by_hand(node, ring(node, AlarmKind.LOG_FORK) or 0, "alice")
    assert kinds(node) == ["log_fork"]


# Sweeping


def own_key(node: Node, days: float, *, purpose: str = "signing", state: str = "active", period: int = 730) -> OwnKey:
    expires = node.clock() + int(days * DAY)
    return OwnKey(
        key_id=f"{purpose} {state} {days}",
        purpose=purpose,
        number=1,
        state=state,
        public="",
        created=expires - period * DAY,
        changed=0,
        expires=expires,
        reason="",
        compromised_since=0,
    )


@pytest.mark.parametrize(
    ("days", "found"),
    [
        (61, None),
        (60, (AlarmKind.KEY_EXPIRES, 60)),
        (31, (AlarmKind.KEY_EXPIRES, 60)),
        (30, (AlarmKind.KEY_EXPIRES, 30)),
        (13.5, (AlarmKind.KEY_EXPIRES, 14)),
        (7, (AlarmKind.KEY_EXPIRES, 7)),
        (0.1, (AlarmKind.KEY_EXPIRES, 1)),
        (0, (AlarmKind.KEY_EXPIRED, 0)),
        (-9, (AlarmKind.KEY_EXPIRED, 0)),
    ],
)
def test_the_end_of_a_key_is_told_on_its_days(node: Node, days: float, found: tuple[AlarmKind, int] | None) -> None:
    findings = list(alarms.key_findings([own_key(node, days)], node.clock()))
    assert [(one.kind, one.level) for one in findings] == ([found] if found else [])


def test_keys_whose_end_is_no_news_are_not_told_of(node: Node) -> None:
    quiet = [
        own_key(node, 5, purpose="decryption", period=30),  # renews itself
        own_key(node, 6, purpose="token", period=7),  # on its first day
        own_key(node, 5, state="pre-active"),
        own_key(node, -5, state="deactivated"),
        own_key(node, -5, state="destroyed"),
    ]
    assert list(alarms.key_findings(quiet, node.clock())) == []
    late = [own_key(node, -1, purpose="decryption", period=30), own_key(node, 3, purpose="token", period=7)]
    assert [one.kind for one in alarms.key_findings(late, node.clock())] == [AlarmKind.KEY_EXPIRED]
    assert alarms.alarm_level(late[1].expires, node.clock()) == 7  # more than half of its life


def test_a_key_alarm_comes_nearer_day_by_day_and_ends_with_the_key(node: Node, clock: FakeClock) -> None:
    with node.store.transaction() as tx:
        row = own_key(node, 40)
        tx.keys.put_own(row)
    levels = []
    for _ in range(42):
        sweep(node)
        levels += [row.level for row in standing(node) if row.level not in levels]
        clock.advance(DAY)
    assert levels == [60, 30, 14, 7, 1, 0]
    assert kinds(node) == ["key_expired"]  # the other is closed
    row.state = "deactivated"
    with node.store.transaction() as tx:
        tx.keys.put_own(row)
    assert sweep(node) == []
    assert not standing(node)


def test_a_sweep_without_news_writes_nothing(node: Node) -> None:
    with node.store.transaction() as tx:
        tx.keys.put_own(own_key(node, 5))
    sweep(node)
    with node.store.reading() as tx:
        before = tx.log.size()
    node.store.before_commit = lambda: pytest.fail("it wrote")  # type: ignore[method-assign]
    assert len(sweep(node)) == 1
    with node.store.reading() as tx:
        assert tx.log.size() == before


def test_a_frozen_feed_is_told_and_a_living_one_closes_it(tmp_path: Path, clock: FakeClock) -> None:
    network = Network()
    xa, xb = (network.join(make_node(tmp_path, agency, clock=clock)) for agency in ("XA-NCVI", "XB-NCVI"))
    befriend(xa.node, xb.node)
    name = make_set(xb, "found", drafts(1))
    asyncio.run(network.sync("XA-NCVI", "XB-NCVI").pull())
    sweep(xa.node)
    assert "feed_stale" not in kinds(xa.node)
    clock.advance(DAY + 1)
    sweep(xa.node)
    [row] = [row for row in standing(xa.node) if row.kind == "feed_stale"]
    assert row.subject == name
    asyncio.run(network.sync("XA-NCVI", "XB-NCVI").pull())
    sweep(xa.node)
    assert "feed_stale" not in kinds(xa.node)
    clock.advance(2 * DAY)
    with xa.node.store.transaction() as tx:
        tx.people.pause("XB-NCVI", "alice", clock())
    sweep(xa.node)
    assert "feed_stale" not in kinds(xa.node)  # people have stopped it themselves


def partner(added: int) -> dict[str, PartnerRow]:
    row = PartnerRow(agency="XB-NCVI", jurisdiction="XB", state="active", card="", added=added)
    return {"XB-NCVI": row}


def job(failures: int, last_success: int, name: str = "XB-NCVI") -> ScheduleRow:
    return ScheduleRow(
        job=name, partner=name, interval_seconds=300, next_run=0, failures=failures, last_success=last_success
    )


def test_a_sync_that_fails_for_a_day_is_told(node: Node) -> None:
    now = node.clock()
    cases = [
        (job(3, now - DAY), now - 9 * DAY, True),
        (job(3, now - DAY + 1), now - 9 * DAY, False),
        (job(0, now - DAY), now - 9 * DAY, False),  # nothing failed: it was not tried
        (job(9, 0), now - DAY, True),
        (job(9, 0), now - 60, False),  # enrolled a minute ago
        (job(9, 0, "XC-NCVI"), now - 9 * DAY, False),  # suspended, or paused
    ]
    for row, added, told in cases:
        assert bool(list(alarms.sync_findings([row], partner(added), now))) is told


NOW = 2_000_000_000
SOURCE = State("https://list.example/hashsharing", "XA-NCVI/from-list", since=NOW - 100, began=NOW - 90 * DAY)


@pytest.mark.parametrize(
    ("state", "interval", "told"),
    [
        (SOURCE, 900, ""),
        (replace(SOURCE, url=""), 900, ""),
        (replace(SOURCE, failures=9, last_success=NOW - DAY + 1), 900, ""),
        (replace(SOURCE, failures=9, last_success=NOW - DAY), 900, "none has|no run"),
        (replace(SOURCE, failures=1, since=0, began=NOW - DAY), 900, "no run"),
        (replace(SOURCE, failures=1, since=0, began=NOW - DAY + 1), 900, ""),
        (replace(SOURCE, since=NOW - DAY, last_success=NOW - 100), 900, "to its end"),
        (replace(SOURCE, since=0, began=NOW - DAY, last_success=NOW - 100), 900, "to its end"),
        (replace(SOURCE, since=NOW - DAY, last_success=NOW - DAY), DAY, ""),
        (replace(SOURCE, since=NOW - 2 * DAY, last_success=NOW - DAY), DAY, "to its end"),
        (replace(SOURCE, since=NOW + 1), 900, "put back"),
        (replace(SOURCE, began=0, since=0, failures=5), 900, ""),
    ],
)
def test_a_server_that_is_followed_in_vain_is_told(state: State, interval: int, told: str) -> None:
    found = list(alarms.source_findings(state, interval=interval, now=NOW))
    assert [(one.kind, one.subject) for one in found] == [(AlarmKind.SOURCE_FAILING, state.set_name)] * bool(told)
    assert all(re.search(told, one.detail) for one in found)
    assert all("https" not in one.detail for one in found)


def test_a_proposal_that_waits_for_a_day_is_told(node: Node) -> None:
    now = node.clock()

    def waiting(created: int, expires: int) -> list[Finding]:
        row = ProposalRow(id="p", act="x", statement="", state="open", created=created, expires=expires)
        return list(alarms.proposal_findings([row], now))

    assert [one.kind for one in waiting(now - DAY, now + 1)] == [AlarmKind.PROPOSAL_WAITS]
    assert not waiting(now - DAY + 1, now + 1)
    assert not waiting(now - 9 * DAY, now)


def test_a_sweep_leaves_alone_what_deeds_and_people_close(node: Node) -> None:
    left = set(AlarmKind) - SWEPT
    for kind in left:
        ring(node, kind)
    with node.store.transaction() as tx:
        tx.keys.put_own(own_key(node, 5))
    sweep(node)
    assert set(kinds(node)) == left | {AlarmKind.KEY_EXPIRES}
    assert not SWEPT & ENDED_BY_DEED


# Telling


def hook(node: Node, script: str) -> Path:
    """The alarm command; what it gets is kept in the file that is returned."""
    path = node.settings.folder / HOOK
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o700)
    return node.settings.folder / "told"


def look(node: Node, **options: float) -> int:
    return asyncio.run(Watch(node, run=here, **options).look())  # type: ignore[arg-type]


def told_lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_the_alarm_command_gets_each_alarm_once_as_one_line_of_json(node: Node, clock: FakeClock) -> None:
    told = hook(node, "cat >> told")
    number = ring(node)
    assert (look(node), look(node)) == (1, 0)
    [line] = told_lines(told)
    assert line == {
        "version": "alarm 1",
        "id": number,
        "agency": "XA-NCVI",
        "kind": "clock_skew",
        "subject": "XB-NCVI",
        "detail": "something is wrong",
        "level": 0,
        "raised": clock(),
        "next": NEXT[AlarmKind.CLOCK_SKEW],
    }
    assert standing(node)[0].told == clock()
    assert canonical.encode(line) + b"\n" == told.read_bytes()


def test_a_command_that_fails_is_asked_again(node: Node) -> None:
    told = hook(node, "cat >> told; exit 3")
    ring(node)
    ring(node, subject="XC-NCVI")
    assert look(node) == 0
    assert len(told_lines(told)) == 1  # a round ends with the first that fails
    assert [row.told for row in standing(node)] == [0, 0]
    hook(node, "cat >> told")
    assert look(node) == 2
    assert [line["subject"] for line in told_lines(told)] == ["XB-NCVI", "XB-NCVI", "XC-NCVI"]


def test_a_command_that_never_ends_is_ended_with_what_it_started(node: Node) -> None:
    alive = hook(node, "(sleep 2; touch told) & sleep 60")
    ring(node)
    began = time.monotonic()
    assert look(node, max_seconds=0.2) == 0
    assert time.monotonic() - began < 1.9
    time.sleep(max(0.0, 2.3 - (time.monotonic() - began)))
    assert not alive.exists()


def test_a_command_that_is_not_there_or_does_not_read_breaks_nothing(node: Node) -> None:
    ring(node)
    assert look(node) == 0
    hook(node, "exit 0")
    assert look(node) == 1


def test_one_round_ends_however_many_alarms_there_are(node: Node) -> None:
    told = hook(node, "cat >> told")
    for number in range(MAX_CALLS + 2):
        ring(node, subject=f"XB-{number:04}")
    assert (look(node), look(node)) == (MAX_CALLS, 2)
    assert [line["subject"] for line in told_lines(told)] == [f"XB-{number:04}" for number in range(MAX_CALLS + 2)]


def test_the_command_sees_no_secret_of_the_environment(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_PASSPHRASE_FILE", "where it lies")
    told = hook(node, "cat > /dev/null; env > told")
    ring(node)
    look(node)
    assert "PATH=" in told.read_text()
    assert "PASSPHRASE" not in told.read_text()


def test_an_alarm_that_is_closed_before_it_was_told_is_not_told(node: Node) -> None:
    told = hook(node, "cat >> told")
    close_by_hand(node, ring(node) or 0, "alice")
    assert look(node) == 0
    assert not told.exists()


def test_without_a_command_alarms_are_in_the_operating_log_once(
    tmp_path: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    node = make_node(tmp_path, clock=clock)
    ring(node)
    watch = Watch(node, run=here)
    for _ in range(3):
        assert asyncio.run(watch.look()) == 0
    assert [record.getMessage() for record in caplog.records] == ["alarm 1: clock_skew"]


def test_a_test_alarm_goes_through_the_command_and_stands_nowhere(node: Node) -> None:
    with pytest.raises(ConfigError, match="cannot be started"):
        asyncio.run(Watch(node).test())
    told = hook(node, "cat >> told")
    asyncio.run(Watch(node).test())
    assert [line["kind"] for line in told_lines(told)] == ["test"]
    assert not standing(node, closed=True)
    hook(node, "exit 1")
    with pytest.raises(PartnerError, match="failed"):
        asyncio.run(Watch(node).test())


def test_watching_goes_on_after_a_round_that_failed(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.watch.SWEEP_SECONDS", 0.01)
    rounds: list[int] = []

    async def look() -> int:
        rounds.append(1)
        raise ConfigError("the database cannot be written now")

    async def some() -> None:
        watch = Watch(node, run=here)
        monkeypatch.setattr(watch, "look", look)
        task = asyncio.create_task(watch.run_forever())
        while len(rounds) < 3:
            assert not task.done(), "one failed round ended the watch"
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(asyncio.wait_for(some(), 5))


# The command line


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A gateway in a data folder, as the command line finds it."""
    (tmp_path / "passphrase").write_text("a long passphrase of tests\n")
    (tmp_path / "passphrase").chmod(0o600)
    monkeypatch.setenv("GATEWAY_PASSPHRASE_FILE", str(tmp_path / "passphrase"))
    monkeypatch.setenv("GATEWAY_DEMO_ARGON2_KIB", "8192")
    monkeypatch.setenv("GATEWAY_HOME", str(tmp_path / "home"))
    command("init", "--demo", "--agency", "XA-NCVI", "--name", "A unit")
    command("admin", "add", "alice", "--admin-passphrase-file", str(tmp_path / "passphrase"))
    return tmp_path / "home"


def command(*words: str, exit_code: int = 0) -> Result:
    result = CliRunner().invoke(app, list(words), prog_name="gateway")
    assert result.exit_code == exit_code, (words, result.stdout, result.stderr)
    return result


def test_alarms_are_listed_shown_and_closed_on_the_command_line(home: Path) -> None:
    assert command("alarm", "list").stdout == "No alarm is open.\n"
    opened = open_home(home, "a long passphrase of tests")
    number = str(ring(opened))
    opened.store.close()
    assert "clock_skew" in command("alarm", "list").stdout
    [listed] = json.loads(command("alarm", "list", "--json").stdout)
    assert (listed["kind"], listed["next"]) == ("clock_skew", NEXT[AlarmKind.CLOCK_SKEW])
    shown = json.loads(command("alarm", "show", number, "--json").stdout)
    assert shown["evidence"] == "a proof"
    assert "a proof" in command("alarm", "show", number).stdout
    command("alarm", "close", number, "--admin", "mallory", exit_code=5)
    assert "is closed" in command("alarm", "close", number, "--admin", "alice").stdout
    assert json.loads(command("alarm", "list", "--json").stdout) == []
    assert len(json.loads(command("alarm", "list", "--all", "--json").stdout)) == 1
    command("alarm", "show", "99", exit_code=7)
    assert "no alarm command is set" in command("alarm", "test", exit_code=9).stderr
    assert "Nobody has cosigned" in command("audit", "witnesses").stdout


# The contract


def test_the_contract_lists_every_kind_and_what_to_do() -> None:
    text = CONTRACT.read_text(encoding="utf-8")
    rows = [line.split("|")[1].strip(" `") for line in text.splitlines() if line.startswith("| `")]
    assert rows == [str(kind) for kind in AlarmKind]
    assert set(NEXT) == set(AlarmKind)


def test_the_sample_command_of_the_page_mails_what_it_gets(node: Node, tmp_path: Path) -> None:
    [script] = sample_scripts()
    mailer = tmp_path / "sendmail"
    mailer.write_text(f'#!/bin/sh\ncat > "{tmp_path}/mail"\n')
    mailer.chmod(0o700)
    hook(node, script.removeprefix("#!/bin/sh\n").replace("/usr/sbin/sendmail", str(mailer)))
    ring(node)
    assert look(node) == 1
    mail = (tmp_path / "mail").read_text()
    assert mail.startswith("To: ")
    assert "something is wrong" in mail


def sample_scripts() -> Iterator[str]:
    for block in PAGE.read_text(encoding="utf-8").split("```sh\n")[1:]:
        script = block.partition("```")[0]
        if script.startswith("#!/bin/sh\n"):
            yield script
