"""Legal holds: what is taken back goes from everything but the sealed copies, and these go when the hold ends."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from factory import FakeClock, SeededRandom, befriend, drafts, events, make_node, make_set
from gateway.audit import EventKind
from gateway.crypto.keys import SigningKey
from gateway.errors import AuditBrokenError, ConflictError, NotFoundError, VerificationError
from gateway.exchange import Exchange, holding
from gateway.exchange.erasing import erase
from gateway.exchange.holding import lift_hold, naming, set_hold
from gateway.exchange.lookup import format_entry
from gateway.keyadmin import approvals, bootstrap_administrator
from gateway.keystore import PersonalKey
from partner_simulator import Network, held_entries

ONE, TWO = (PersonalKey(name, SigningKey.generate(SeededRandom(name))) for name in ("one", "two"))
SET, COURT = "XA-NCVI/identified", "XB Regional Court, case 12 of 2026"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def network(tmp_path: Path, clock: FakeClock) -> Network:
    network = Network()
    nodes = [make_node(tmp_path, name, clock=clock, quorum=2) for name in ("XA-NCVI", "XB-NCVI")]
    befriend(*nodes)
    for node in nodes:
        network.join(node)
        for key in (ONE, TWO):
            bootstrap_administrator(node, key.name, key.signing_key.public)
    make_set(network.members["XA-NCVI"], "identified", drafts(5, series="Blue Door"))
    return network


def signed(exchange: Exchange, act: tuple[str, object]) -> str:
    desk = approvals(exchange.node)
    exchange.node.clock.advance(1)  # type: ignore[attr-defined]
    identifier = desk.propose(*act, by="one")  # type: ignore[arg-type]
    for key in (ONE, TWO):
        desk.sign(identifier, key)
    return identifier[:16]


def hold(exchange: Exchange, *entries: int, days: int = 30, label: int = 0) -> str:
    until = exchange.node.today + timedelta(days=days)
    names = [format_entry(entry) for entry in entries]
    return signed(exchange, set_hold(SET, COURT, "evidence in a trial", until, entries=names, label=label))


def copies(exchange: Exchange) -> dict[str, object]:
    with exchange.node.store.reading() as tx:
        return {one.entry: one.values for each in tx.holds.all() for one in holding.kept(exchange.node, tx, each)}


def rows(exchange: Exchange) -> int:
    with exchange.node.store.reading() as tx:
        return int(tx.connection.exec_driver_sql("SELECT count(*) FROM held_entry").scalar_one())


@pytest.mark.parametrize("how", ["withdrawn", "left"])
async def test_what_is_taken_back_stays_in_the_hold_alone_until_it_is_lifted(network: Network, how: str) -> None:
    xa, xb = network.members["XA-NCVI"], network.members["XB-NCVI"]
    await network.sync("XB-NCVI", "XA-NCVI").pull()
    before = held_entries(xb, SET)
    first, second, *_ = sorted(before)
    identifier = hold(xb, first, second)
    digest = before[first]["sha256"]
    assert isinstance(digest, bytes)
    # 1. Its owner takes it back: by itself, or with all that policy showed.
    if how == "withdrawn":
        xa.ledger.withdraw(SET, [first], actor="tester", reason="listed wrongly")
    else:
        texts = {path: text for path, text in xa.node.policies.texts.items() if path != "XA/agreement-xb.cedar"}
        xa.node.policies.texts, xa.node.policies._loaded = texts, None
    await network.sync("XB-NCVI", "XA-NCVI").pull()
    # 2. It is in nothing that is looked up or listed; what was held stays, sealed, as it was.
    assert first not in held_entries(xb, SET)
    assert xb.lookup.find([digest.hex()], actor="tester") == []
    kept = copies(xb)
    assert set(kept) == {format_entry(first), format_entry(second)}
    for entry in (first, second):
        values = kept[format_entry(entry)]
        assert isinstance(values, dict)
        assert (values["sha256"], values["series"]) == (before[entry]["sha256"].hex(), "Blue Door")  # type: ignore[attr-defined]
    with xb.node.store.reading() as tx:
        [named] = naming(xb.node, tx, entries=[], digest=digest.hex())
        sealed = tx.connection.exec_driver_sql("SELECT sealed FROM held_entry").scalars().all()
    assert (named.hold, named.reference, named.entry) == (identifier, COURT, format_entry(first))
    assert not any(digest in bytes(one) or digest.hex().encode() in bytes(one) for one in sealed)
    # 3. That only the hold keeps it is on record, once.
    for _ in range(2):
        holding.keep_house(xb.node, xb.shelf)
    [told] = events(xb.node, EventKind.LEGAL_HOLD_KEEPS)
    assert told.details == {"hold": identifier, "set": SET, "entries": 1 if how == "withdrawn" else 2}
    # 4. Lifted by two, it is gone.
    signed(xb, lift_hold(identifier, "the trial is over"))
    assert (rows(xb), copies(xb)) == (0, {})
    ended = events(xb.node, EventKind.LEGAL_HOLD_ENDED)[-1]
    assert ended.details["reason"] == "the trial is over"
    with pytest.raises(NotFoundError):
        signed(xb, lift_hold(identifier, "once more"))


async def test_a_hold_ends_by_itself_after_its_last_day(network: Network, clock: FakeClock) -> None:
    xa = network.members["XA-NCVI"]
    hold(xa, *sorted(held_entries(xa, SET))[:2], days=2)
    schedule = network.schedule("XA-NCVI")
    clock.advance(2 * 86_400)
    await schedule.tick()
    assert rows(xa) == 2
    clock.advance(86_400)
    await schedule.tick()
    assert rows(xa) == 0
    assert events(xa.node, EventKind.LEGAL_HOLD_ENDED)[-1].details["reason"] == "its last day is over"


def test_a_whole_label_is_held_and_what_is_not_there_is_not(network: Network) -> None:
    xa = network.members["XA-NCVI"]
    hold(xa, label=1)
    assert rows(xa) == 5
    with pytest.raises(ConflictError, match="does not hold 1 of these"):
        hold(xa, 0x1000000000099, sorted(held_entries(xa, SET))[0])
    with pytest.raises(ConflictError, match="this label has 0"):
        hold(xa, label=7)
    with pytest.raises(ConflictError, match="is over"):
        hold(xa, label=1, days=-1)
    assert rows(xa) == 5


def test_an_order_to_erase_does_not_take_what_a_court_has_ordered_to_keep(network: Network) -> None:
    xa = network.members["XA-NCVI"]
    entries = held_entries(xa, SET)
    first = sorted(entries)[0]
    digest = entries[first]["sha256"]
    assert isinstance(digest, bytes)
    identifier = hold(xa, first)
    with pytest.raises(ConflictError, match="legal hold"):
        signed(xa, erase(xa.node, [digest.hex()], "XA District Court, order 7 of 2026"))
    assert first in held_entries(xa, SET)
    signed(xa, lift_hold(identifier, "the orders were compared"))
    signed(xa, erase(xa.node, [digest.hex()], "XA District Court, order 7 of 2026, again"))
    assert first not in held_entries(xa, SET)


def test_a_copy_that_was_altered_does_not_open(network: Network) -> None:
    xa = network.members["XA-NCVI"]
    hold(xa, sorted(held_entries(xa, SET))[0])
    with xa.node.store.transaction() as tx:
        tx.connection.exec_driver_sql("UPDATE held_entry SET entry_id = entry_id + 1")
    with pytest.raises((VerificationError, AuditBrokenError)):
        copies(xa)
