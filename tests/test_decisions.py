"""Decision receipts: one for every share and every refusal, no more, and each decides again as it says."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from chain import chain, sync_down
from factory import FakeClock, befriend, card_of, drafts, enrol, make_node, make_set, reopened, sha256
from gateway import audit
from gateway.cli import app
from gateway.errors import AuditBrokenError, NotFoundError
from gateway.exchange import Exchange
from gateway.exchange.decisions import DecidedAgain, Judge
from gateway.home import open_home
from gateway.interchange import START
from gateway.model import HandlingCode, Restriction
from partner_simulator import Network
from simulation import World

SET = "XA-NCVI/identified"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def network(tmp_path: Path, clock: FakeClock) -> Network:
    nodes = [make_node(tmp_path, agency, clock=clock) for agency in ("XA-NCVI", "XB-NCVI", "XC-NCVI")]
    befriend(*nodes)
    network = Network()
    for node in nodes:
        network.join(node)
    return network


@pytest.fixture
def xa(network: Network) -> Exchange:
    exchange = network.members["XA-NCVI"]
    make_set(exchange, "identified", drafts(5))
    return exchange


@pytest.fixture
def xb(network: Network) -> Exchange:
    return network.members["XB-NCVI"]


def receipts(exchange: Exchange, partner: str = "", action: str = "share") -> list[dict[str, Any]]:
    with exchange.node.store.reading() as tx:
        events = [audit.parse_event(row.event_bytes) for row in tx.log.leaves() if row.event_bytes]
    decided = [event.details for event in events if event.kind == "share_decided"]
    return [one for one in decided if partner in ("", one["partner"]) and one["action"] == action]


def labels(exchange: Exchange) -> dict[str, int]:
    with exchange.node.store.reading() as tx:
        return {row.digest.hex(): row.number for row in tx.sets.labels(tx.sets.get(SET).id or 0)}


def add(exchange: Exchange, first: int, **words: Any) -> None:
    listed = [draft._replace(**words) for draft in drafts(3, first=first)]
    exchange.ledger.import_entries(SET, listed, actor="tester", form="test")


def switch_policy(exchange: Exchange, **changed: str) -> None:
    exchange.node.policies.texts = {**exchange.node.policies.texts, **{f"XA/{k}.cedar": v for k, v in changed.items()}}
    exchange.node.policies._loaded = None


def again(exchange: Exchange) -> list[DecidedAgain]:
    with exchange.node.store.reading() as tx:
        judge = Judge(tx)
        return [judge.decide_again(leaf) for leaf in judge.receipts()]


async def test_every_label_has_one_receipt_however_often_it_is_served(
    network: Network, xa: Exchange, clock: FakeClock
) -> None:
    add(xa, 10, restrictions=(Restriction.EMBARGO,))
    for _ in range(3):
        await network.sync("XB-NCVI", "XA-NCVI").pull()
        await network.sync("XA-NCVI", "XB-NCVI").push(SET)
        clock.advance(13 * 3600)  # a new head each time
    found = receipts(xa, "XB-NCVI")
    assert Counter(one["label"] for one in found) == dict.fromkeys(labels(xa), 1)
    allowed, denied = (next(one for one in found if one["outcome"] == word) for word in ("allow", "deny"))
    assert allowed["policy"] == xa.node.policy.digest
    assert "xa-xb-share-list" in allowed["rules"]
    assert "retain_days(365)" in allowed["obligations"]
    assert "cryptographic_digests" in allowed["groups"]
    assert (denied["rules"], denied["groups"]) == (["fed-embargo"], [])


async def test_a_label_that_is_new_and_withheld_leaves_its_refusal_though_the_view_is_as_before(
    network: Network, xa: Exchange
) -> None:
    await network.sync("XB-NCVI", "XA-NCVI").pull()
    view = xa.head_for("XB-NCVI", SET).head.cursor.view
    before = receipts(xa, "XB-NCVI")
    add(xa, 10, restrictions=(Restriction.EMBARGO,))
    assert xa.head_for("XB-NCVI", SET).head.cursor.view == view
    [new] = receipts(xa, "XB-NCVI")[len(before) :]
    assert (new["outcome"], new["rules"]) == ("deny", ["fed-embargo"])


@pytest.mark.parametrize("way", ["list", "head", "page", "push"])
def test_a_set_that_is_refused_whole_leaves_its_refusal_once(xa: Exchange, network: Network, way: str) -> None:
    name = "XA-NCVI/secret"
    make_set(xa, "secret", [draft._replace(handling=HandlingCode.H3) for draft in drafts(2)])
    asked = {
        "list": lambda: xa.sets_for("XC-NCVI"),
        "head": lambda: xa.head_for("XC-NCVI", name),
        "page": lambda: xa.page_for("XC-NCVI", name, START),
        "push": lambda: xa.server.page_to_push("XC-NCVI", name, START),
    }[way]
    for _ in range(2):
        if way == "list":
            assert name not in [served.hash_set.name for served in xa.server.served_sets(xa.card_of("XC-NCVI"))]
        else:
            with pytest.raises(NotFoundError):
                asked()
    found = [one for one in receipts(xa, "XC-NCVI") if one["set"] == name]
    assert [(one["outcome"], one["groups"]) for one in found] == [("deny", [])]


def test_a_set_that_does_not_exist_or_a_stranger_leaves_nothing(xa: Exchange) -> None:
    for partner, name in (("XB-NCVI", "XA-NCVI/nothing"), ("XQ-NCVI", SET)):
        with pytest.raises(NotFoundError):
            xa.head_for(partner, name)
    assert receipts(xa) == []


async def test_a_new_policy_leaves_new_receipts_also_where_it_shows_the_same(network: Network, xa: Exchange) -> None:
    await network.sync("XB-NCVI", "XA-NCVI").pull()
    first = xa.node.policy.digest
    head = xa.head_for("XB-NCVI", SET)
    switch_policy(xa, national=xa.node.policies.texts["XA/national.cedar"] + "// read once more\n")
    for _ in range(2):
        assert xa.head_for("XB-NCVI", SET).etag == head.etag
    found = receipts(xa, "XB-NCVI")
    assert [one["policy"] for one in found] == [first] * len(labels(xa)) + [xa.node.policy.digest] * len(labels(xa))
    with xa.node.store.reading() as tx:
        assert {one["policy"] for one in found} <= set(tx.policies.digests())


async def test_what_is_taken_and_what_is_refused_has_a_receipt_as_well(
    network: Network, xa: Exchange, xb: Exchange
) -> None:
    add(xa, 10, evaluation="A1")
    add(xa, 20, evaluation="E5")
    for _ in range(2):
        await network.sync("XB-NCVI", "XA-NCVI").pull()
        add(xa, 30, evaluation="A1")
    found = receipts(xb, "XA-NCVI", "receive")
    assert Counter(one["label"] for one in found) == dict.fromkeys(labels(xb), 1)
    assert {one["outcome"] for one in found} == {"allow", "deny"}
    assert {one["policy"] for one in found} == {xb.node.policy.digest}
    with xb.node.store.reading() as tx:
        events = [audit.parse_event(row.event_bytes) for row in tx.log.of_kinds(["rows_refused"])]
    assert {event.details["policy"] for event in events if event.kind == "rows_refused"} == {xb.node.policy.digest}


async def test_what_is_held_is_on_record_under_a_new_policy_that_takes_the_same(
    network: Network, xa: Exchange, xb: Exchange
) -> None:
    await network.sync("XB-NCVI", "XA-NCVI").pull()
    texts = xb.node.policies.texts
    xb.node.policies.texts = {**texts, "XB/national.cedar": texts["XB/national.cedar"] + "// read once more\n"}
    xb.node.policies._loaded = None
    for _ in range(2):
        await network.sync("XB-NCVI", "XA-NCVI").pull()
    found = receipts(xb, "XA-NCVI", "receive")
    assert Counter(one["policy"] for one in found)[xb.node.policy.digest] == len(labels(xb))


async def test_a_restart_makes_no_receipts_and_a_lost_mark_makes_them_again(network: Network, xa: Exchange) -> None:
    await network.sync("XB-NCVI", "XA-NCVI").pull()
    before = len(receipts(xa))
    beside = Exchange(reopened(xa.node))
    beside.head_for("XB-NCVI", SET)
    assert len(receipts(xa)) == before
    with xa.node.store.transaction() as tx:
        tx.connection.execute(text("UPDATE decision SET mark = :mark WHERE label = 1"), {"mark": bytes(32)})
    Exchange(reopened(xa.node, seed="again")).head_for("XB-NCVI", SET)
    assert len(receipts(xa)) == before + 1
    beside.node.store.close()


# Deciding again


@pytest.mark.parametrize("seed", range(3))
def test_every_receipt_of_a_history_decides_again_as_it_says(tmp_path: Path, seed: int) -> None:
    world = World(tmp_path, 100 + seed)
    world.run(25)
    decided, every = 0, 0
    for exchange in world.network.members.values():
        with exchange.node.store.reading() as tx:
            judge = Judge(tx)
            every += len(judge.receipts())
            for leaf in judge.receipts():
                with suppress(NotFoundError):  # the label is of a mirror that began anew
                    told = judge.decide_again(leaf)
                    assert told.same, told
                    decided += 1
    assert decided > 20
    assert decided > every / 2


def test_what_is_passed_on_has_receipts_that_decide_again_with_the_duties_that_came(
    tmp_path: Path, clock: FakeClock
) -> None:
    network = chain(tmp_path, clock, 3, page_changes=64)
    listed = [*drafts(5), *drafts(5, first=5, restrictions=(Restriction.ORIGINATOR_CONTROL,))]
    make_set(network.members["XA-NCVI"], "identified", listed, onward=("XB", "XC"))
    for _ in range(2):
        sync_down(network)
    middle = network.members["XB-NCVI"]
    assert {one["set"] for one in receipts(middle, "XC-NCVI")} == {SET}
    assert all(one.same for one in again(middle))
    [given] = middle.storyteller.explain(f"{SET}/{sha256('made-up 1').hex()}", "XC-NCVI")
    assert (given.allowed, given.holds) == (True, True)
    [kept] = middle.storyteller.explain(sha256("made-up 7").hex(), "XC-NCVI")
    assert (kept.allowed, kept.holds, kept.sent) == (False, False, ())
    assert "keeps it here" in kept.sentence or "forbidden" in kept.sentence


async def test_a_receipt_that_policy_does_not_say_is_noticed(network: Network, xa: Exchange) -> None:
    await network.sync("XB-NCVI", "XA-NCVI").pull()
    assert all(one.same for one in again(xa))
    # Somebody who has the log's key writes a receipt that policy never gave.
    honest = again(xa)[0]
    for name, lie in (("outcome", "deny"), ("groups", []), ("rules", ["xa-xb-other"]), ("obligations", [])):
        with xa.node.store.transaction() as tx:
            details = {**honest.details, name: lie}
            event = xa.node.event(audit.EventKind.SHARE_DECIDED, actor="XA-NCVI", subject="XB-NCVI", details=details)
            leaf = tx.log.append([event])
        with xa.node.store.reading() as tx:
            told = Judge(tx).decide_again(leaf)
        assert not told.same
        assert told.again[name] == honest.details[name]


async def test_an_event_that_was_altered_in_the_database_is_not_even_decided(network: Network, xa: Exchange) -> None:
    await network.sync("XB-NCVI", "XA-NCVI").pull()
    leaf = again(xa)[0].leaf
    with xa.node.store.transaction() as tx:
        changed = tx.connection.execute(
            text("UPDATE audit_leaf SET event = replace(event, '\"allow\"', '\"deny\"') WHERE idx = :leaf"),
            {"leaf": leaf},
        )
        assert changed.rowcount == 1
    with xa.node.store.reading() as tx, pytest.raises(AuditBrokenError):
        Judge(tx).decide_again(leaf)


async def test_what_is_no_receipt_or_has_lost_its_policy_is_not_found(network: Network, xa: Exchange) -> None:
    await network.sync("XB-NCVI", "XA-NCVI").pull()
    leaf = again(xa)[0].leaf
    with xa.node.store.reading() as tx:
        for other in (0, 10_000):
            with pytest.raises(NotFoundError):
                Judge(tx).decide_again(other)
    with xa.node.store.transaction() as tx:
        tx.connection.execute(text("DELETE FROM policy_text"))
    with xa.node.store.reading() as tx, pytest.raises(NotFoundError, match="policy"):
        Judge(tx).decide_again(leaf)


# The command


def gateway(*arguments: str, exit_code: int = 0) -> Any:
    result = CliRunner().invoke(app, list(arguments), prog_name="gateway")
    assert result.exit_code == exit_code, (arguments, result.exit_code, result.stdout, result.stderr)
    return result


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A demo gateway whose set a partner has looked at once."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GATEWAY_PASSPHRASE_FILE", "passphrase")
    monkeypatch.setenv("GATEWAY_DEMO_ARGON2_KIB", "8192")
    monkeypatch.setenv("GATEWAY_HOME", "xa")
    (tmp_path / "passphrase").write_text("a long passphrase of a test\n")
    (tmp_path / "passphrase").chmod(0o600)
    gateway("init", "--demo", "--agency", "XA-NCVI", "--name", "Unit of XA")
    node = open_home(tmp_path / "xa", "a long passphrase of a test")
    peer = make_node(tmp_path, "XB-NCVI", clock=FakeClock(node.clock()))
    enrol(node, card_of(peer))
    exchange = Exchange(node)
    make_set(exchange, "identified", drafts(5))
    exchange.head_for("XB-NCVI", SET)
    node.store.close()
    peer.store.close()
    return tmp_path


def test_the_command_decides_receipts_again(desk: Path) -> None:
    listed = json.loads(gateway("audit", "list", "--kind", "share_decided", "--json").stdout)
    leaf = str(listed[0]["index"])
    shown = gateway("policy", "receipt", leaf).stdout
    assert "Decided again: the same." in shown
    assert "xa-xb-share-list" in shown
    told = json.loads(gateway("policy", "receipt", leaf, "--json").stdout)
    assert told["same"] is True
    assert "1 decided again as they say" in gateway("policy", "receipt").stdout
    gateway("policy", "receipt", "0", exit_code=7)
    node = open_home(desk / "xa", "a long passphrase of a test")
    with node.store.transaction() as tx:
        lie = {**told["receipt"], "rules": ["xa-xb-other"]}
        tx.log.append([node.event(audit.EventKind.SHARE_DECIDED, actor="XA-NCVI", subject="XB-NCVI", details=lie)])
    node.store.close()
    assert "otherwise" in gateway("policy", "receipt", exit_code=10).stdout
    assert json.loads(gateway("policy", "receipt", "--json", exit_code=10).stdout)["different"] == [lie_leaf(desk)]


def lie_leaf(desk: Path) -> int:
    return int(json.loads(gateway("audit", "list", "--kind", "share_decided", "--json").stdout)[0]["index"])


def test_the_command_explains_an_entry(desk: Path) -> None:
    shown = gateway("policy", "explain", "--partner", "XB-NCVI", "--entry", "identified/ref-1").stdout
    assert "XB-NCVI has not received entry 0001-" in shown
    assert "gateway policy receipt" in shown
    [story] = json.loads(gateway("policy", "explain", "--partner", "XB-NCVI", "--entry", "ref-1", "--json").stdout)
    assert (story["allowed"], story["holds"], story["sent"]) == (True, False, [])
    gateway("policy", "explain", "--partner", "XB-NCVI", "--entry", "ref-none", exit_code=7)
    gateway("policy", "explain", "--partner", "XB-NCVI", "--case", "no such case", exit_code=7)
    assert "name a set, or an entry" in gateway("policy", "explain", "--partner", "XB-NCVI", exit_code=3).stderr
