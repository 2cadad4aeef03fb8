"""Restoring: a gateway goes on from a backup when its administrators have signed, and partners take nothing else."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from factory import (
    CHEAP,
    DATABASE_VARIABLE,
    PASSPHRASE,
    FakeClock,
    SeededRandom,
    drafts,
    enrol,
    events,
    link_to,
    loopback,
    make_node,
    make_set,
    open_node,
    serving,
)
from gateway import audit, backup, beginning, keyring, ownkeys, restoring, standing
from gateway.alarms import AlarmKind
from gateway.approvals import DONE, STATEMENT_TYPE, Arguments
from gateway.audit import EventKind, parse_event, verify_receipt
from gateway.backup import Opened
from gateway.config import Settings
from gateway.crypto import checkpoint, dsse, restore
from gateway.crypto.checkpoint import CheckpointKey, VerifierKey
from gateway.crypto.keys import OpeningKey, SigningKey
from gateway.crypto.restore import Signed
from gateway.errors import (
    AuditBrokenError,
    ConfigError,
    ConflictError,
    GatewayError,
    MalformedError,
    OverloadedError,
    VerificationError,
)
from gateway.exchange import Exchange
from gateway.exchange.windows import Window, WindowPage
from gateway.home import found, open_home
from gateway.interchange import RESTORE_KEYS_TYPE, KeyNews, keys_type, parse_card, sign_card
from gateway.keyadmin import (
    add_partner,
    approvals,
    bootstrap_administrator,
    export_card,
    lift_test,
    pause,
    remove_administrator,
    resume,
)
from gateway.keylife import KeyPurpose
from gateway.keystore import Keystore, PersonalKey
from gateway.logcheck import verify_own_log
from gateway.mailbox import GAP
from gateway.node import Node, log_origin, own_log
from gateway.proposals import Statement
from gateway.standing import CARRIED_META, STANDING_META
from gateway.store.tables import AlarmRow, PartnerRestore, WitnessedLog
from partner_simulator import Network, held_entries

HUB, NEAR, AWAY = "XA-NCVI", "XB-NCVI", "XC-NCVI"
ONE, TWO, THIEF = (PersonalKey(name, SigningKey.generate(SeededRandom(name))) for name in ("one", "two", "thief"))
OFFLINE = OpeningKey.from_seed(b"offline key of tests, 32 octets!")
FOUND = f"{HUB}/found"
DAY = 86_400


pytestmark = pytest.mark.sqlite  # databases are copied as files; test_backup restores into PostgreSQL as well


# A hub with two partners; a backup; a day of work that the backup does not know; the backup restored


@dataclass
class Drill:
    """Three gateways on one clock. The hub's backup is ten entries older than the hub, which XB saw and XC did not."""

    folder: Path
    clock: FakeClock
    network: Network

    def __getitem__(self, agency: str) -> Exchange:
        return self.network.members[agency]

    def keys(self, here: str = NEAR) -> None:
        asyncio.run(self.network.sync(here, HUB).exchange_keys())

    def witness(self, here: str = NEAR) -> None:
        asyncio.run(self.network.sync(here, HUB).witness())

    def mail(self, here: str, there: str) -> None:
        asyncio.run(self.network.sync(here, there).exchange_mail())

    def alarms(self, here: str = NEAR) -> list[AlarmRow]:
        with self[here].node.store.reading() as tx:
            return tx.alarms.all()

    def is_paused(self, here: str = NEAR) -> bool:
        with self[here].node.store.reading() as tx:
            return tx.people.is_paused(HUB)

    def held(self, here: str = NEAR) -> WitnessedLog:
        with self[here].node.store.reading() as tx:
            row = tx.witness.log(HUB)
        assert row is not None
        return row

    def card(self, here: str = NEAR) -> Any:
        with self[here].node.store.reading() as tx:
            return parse_card(tx.people.partner(HUB).card.encode())


def do(node: Node, act: tuple[str, Arguments], *people: PersonalKey) -> str:
    desk = approvals(node)
    identifier = desk.propose(*act, by=people[0].name)
    for one in people:
        desk.sign(identifier, one)
    return desk.get(identifier).state


@pytest.fixture(scope="module", autouse=True)
def _databases() -> Iterator[None]:
    """Also of what is made for the whole module, before a test says which kind it wants."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(DATABASE_VARIABLE, "sqlite")
        yield


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Settings]:
    """The settings of the gateways as they are on the day of the disaster; their stores are closed."""
    folder, clock = tmp_path_factory.mktemp("begun"), FakeClock()
    founding = Settings(folder=folder / HUB, agency=HUB, jurisdiction="XA")
    found(founding, PASSPHRASE, name="Unit of XA", clock=clock, random=SeededRandom(HUB), cost=CHEAP)
    hub = open_home(folder / HUB, PASSPHRASE, clock=clock, random=SeededRandom("hub"))
    for one in (ONE, TWO):
        bootstrap_administrator(hub, one.name, one.signing_key.public)
    drill = Drill(folder, clock, Network())
    drill.network.join(hub)
    for agency in (NEAR, AWAY):
        peer = make_node(folder, agency, clock=clock)
        drill.network.join(peer)
        enrol(hub, export_card(peer))
        enrol(peer, export_card(hub))
    make_set(drill[HUB], "found", drafts(50))
    drill[HUB].mailbox.write(NEAR, "note", {"text": "before"})
    for agency in (NEAR, AWAY):
        drill.keys(agency)
        drill.witness(agency)
        drill.mail(HUB, agency)
    asyncio.run(drill.network.sync(NEAR, HUB).push(make_set(drill[NEAR], "seen", drafts(5, first=200))))
    backup.create(hub, folder / "hub.age", [OFFLINE.public])
    # What the backup does not know.
    clock.advance(DAY)
    drill[HUB].ledger.import_entries(FOUND, drafts(10, first=50), actor="tester", form="test")
    asyncio.run(drill.network.sync(NEAR, HUB).pull())
    drill[HUB].mailbox.write(NEAR, "note", {"text": "after the backup"})
    drill.mail(HUB, NEAR)
    drill.witness(NEAR)
    for exchange in drill.network.members.values():
        exchange.node.store.close()
    return {agency: exchange.node.settings for agency, exchange in drill.network.members.items()}


def copied(settings: Settings, folder: Path, clock: FakeClock) -> Node:
    """Another copy of a gateway whose store is closed."""
    shutil.copytree(settings.folder, folder)
    keystore = Keystore.open(folder / "keystore.json", PASSPHRASE)
    return open_node(replace(settings, folder=folder), keystore, clock=clock, random=SeededRandom(f"{folder}"))


def restored_home(begun: dict[str, Settings], folder: Path, clock: FakeClock) -> Node:
    """The hub from its backup, waiting for its statement."""
    backup.restore(Opened(begun[HUB].folder.parent / "hub.age", OFFLINE, PASSPHRASE), folder, clock=clock)
    return open_home(folder, PASSPHRASE, clock=clock, random=SeededRandom(f"{folder}"), restored=True)


@pytest.fixture(scope="module")
def gone_on(begun: dict[str, Settings], tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """The restored hub after the ceremony; its store is closed."""
    clock = FakeClock()
    clock.advance(2 * DAY)
    node = restored_home(begun, tmp_path_factory.mktemp("gone on") / HUB, clock)
    assert do(node, beginning.resume(node), ONE, TWO) == DONE
    node.store.close()
    open_home(node.settings.folder, PASSPHRASE, clock=clock).store.close()
    return node.settings


@pytest.fixture
def clock() -> FakeClock:
    clock = FakeClock()
    clock.advance(2 * DAY)
    return clock


@pytest.fixture
def waiting(begun: dict[str, Settings], tmp_path: Path, clock: FakeClock) -> Node:
    """The restored hub, which waits."""
    return restored_home(begun, tmp_path / HUB, clock)


@pytest.fixture
def drill(begun: dict[str, Settings], gone_on: Settings, tmp_path: Path, clock: FakeClock) -> Drill:
    """The restored hub after the ceremony, and partners that know nothing of it yet."""
    drill = Drill(tmp_path, clock, Network())
    drill.network.join(copied(gone_on, tmp_path / "restored", clock))
    for agency in (NEAR, AWAY):
        drill.network.join(copied(begun[agency], tmp_path / agency, clock))
    return drill


def statement_of(hub: Node) -> bytes:
    """The newest restore statement among what the hub says."""
    with hub.store.reading() as tx:
        return [row.statement for row in tx.keys.statements() if row.kind == restoring.RESTORE][-1]


def said(hub: Node, *statements: bytes, card: bytes = b"") -> bytes:
    """Key statements that say what a test wants them to."""
    return KeyNews(card or keyring.own_news(hub).card, statements).dump()


def refused(drill: Drill, raw: bytes, *, here: str = NEAR) -> GatewayError:
    """The error with which a partner refuses key statements; it believes as before."""
    before = drill.card(here)
    with pytest.raises(VerificationError) as caught:
        drill[here].take_keys(HUB, raw)
    assert drill.card(here) == before
    with drill[here].node.store.reading() as tx:
        assert restoring.accepted_epoch(tx, HUB) == 1
        assert tx.keys.restores(HUB) == []
    return caught.value


# Waiting


def test_a_restored_gateway_opens_for_nothing_but_looking_and_signing(waiting: Node, clock: FakeClock) -> None:
    with pytest.raises(ConfigError, match="waits for its restore statement") as caught:
        open_home(waiting.settings.folder, PASSPHRASE, clock=clock)
    assert "backup resume" in caught.value.remedy
    with pytest.raises(OverloadedError, match="paused"):
        Exchange(waiting).sets_for(NEAR)


def test_one_signature_changes_nothing_and_the_second_begins_anew(waiting: Node, clock: FakeClock) -> None:
    desk = approvals(waiting)
    identifier = desk.propose(*beginning.resume(waiting), by="one")
    desk.sign(identifier, ONE)
    with pytest.raises(ConfigError, match="waits"):
        open_home(waiting.settings.folder, PASSPHRASE, clock=clock)
    with waiting.store.reading() as tx:
        assert own_log(waiting, tx).name == log_origin(HUB, 1)
    assert desk.sign(identifier, TWO).state == DONE
    with waiting.store.reading() as tx:
        assert own_log(waiting, tx).name == log_origin(HUB, 2)
    opened = open_home(waiting.settings.folder, PASSPHRASE, clock=clock)
    assert Exchange(opened).sets_for(NEAR) is not None
    with pytest.raises(ConflictError, match="no restore statement"):
        beginning.resume(opened)


@pytest.mark.parametrize("act", [lift_test(NEAR), resume(""), remove_administrator("two", "moved")])
def test_no_other_act_is_done_meanwhile(waiting: Node, act: tuple[str, Arguments]) -> None:
    with pytest.raises(ConflictError, match="waits for its restore statement"):
        do(waiting, act, ONE, TWO)
    with waiting.store.reading() as tx:
        assert tx.people.is_paused(NEAR)
        assert len(standing.roster(tx, waiting).administrators) == 2


def test_what_changed_since_it_was_proposed_is_proposed_again(waiting: Node) -> None:
    desk = approvals(waiting)
    identifier = desk.propose(*beginning.resume(waiting), by="one")
    desk.sign(identifier, ONE)
    pause(waiting, NEAR)
    with pytest.raises(ConflictError, match="has changed since"):
        desk.sign(identifier, TWO)


def test_a_ceremony_that_is_cut_off_before_its_commit_leaves_the_gateway_waiting(
    waiting: Node, clock: FakeClock
) -> None:
    desk = approvals(waiting)
    identifier = desk.propose(*beginning.resume(waiting), by="one")
    desk.sign(identifier, ONE)
    size = drill_size(waiting)

    def power_cut() -> None:
        raise RuntimeError("power cut")

    waiting.store.before_commit = power_cut  # type: ignore[method-assign]
    with pytest.raises(RuntimeError):
        desk.sign(identifier, TWO)
    del waiting.store.before_commit
    again = open_home(waiting.settings.folder, PASSPHRASE, clock=clock, restored=True)
    assert drill_size(again) == size
    with pytest.raises(ConfigError, match="waits"):
        open_home(waiting.settings.folder, PASSPHRASE, clock=clock)
    assert approvals(again).sign(identifier, TWO).state == DONE
    assert verify_own_log(open_home(waiting.settings.folder, PASSPHRASE, clock=clock)).size


def test_whoever_signs_is_shown_what_ends_and_what_begins(waiting: Node) -> None:
    desk = approvals(waiting)
    shown = {one.what: one for one in desk.difference(desk.propose(*beginning.resume(waiting), by="one"))}
    assert (shown["audit log"].now, shown["audit log"].then) == (log_origin(HUB, 1), log_origin(HUB, 2))
    assert shown["administrators"].now == "one, two"
    assert shown["partners that are told"].now == f"{NEAR}, {AWAY}"


# The new log


def test_leaf_0_names_the_statement_and_where_the_old_log_ended(drill: Drill, begun: dict[str, Settings]) -> None:
    hub = drill[HUB].node
    with hub.store.reading() as tx:
        leaves = [parse_event(row.event_bytes) for row in tx.log.leaves() if row.event_bytes]
        key = own_log(hub, tx).verifier
    assert [str(one.kind) for one in leaves[:5]] == [
        "gateway_restored", "backup_restored", "proposal_made", "proposal_signed", "proposal_signed"
    ]  # fmt: skip
    first, size = leaves[0].details, leaves[1].details["log_size"]
    assert (first["origin"], first["old_origin"], first["old_size"]) == (key.name, log_origin(HUB, 1), size)
    assert first["proposal"] == leaves[2].details["proposal"]
    assert first["key_ids"] == sorted(one.signing_key.public.key_set_id for one in (ONE, TWO))
    # The old log is beside it as files, and what partners cosigned of it as well.
    folder = hub.settings.folder / "logs" / "1"
    old = VerifierKey.parse((folder / "log.vkey").read_text().strip())
    assert checkpoint.verify((folder / "checkpoint").read_bytes(), old, old.name).size == size
    cosigned = checkpoint.verify((folder / "cosigned").read_bytes(), old, old.name)
    assert cosigned.size == first["witnessed_size"]
    assert key.public != old.public
    assert verify_own_log(hub).size == len(leaves)


def test_sets_are_in_their_next_epoch_and_stand_where_they_stood(drill: Drill) -> None:
    hub = drill[HUB].node
    with hub.store.reading() as tx:
        row = tx.sets.get(FOUND)
        assert (row.epoch, row.seq, row.next_entry) == (2, 50, 51)
        (own,) = restoring.own_restores(hub, tx)
    assert (own.number, own.sets) == (2, {FOUND: (1, 50)})
    drill[HUB].epochs.carry()
    drill[HUB].ledger.import_entries(FOUND, drafts(1, first=90), actor="tester", form="test")
    assert max(held_entries(drill[HUB], FOUND)) == 2 << 48 | 51


def test_stock_clients_begin_anew_and_then_hold_what_is_listed(drill: Drill, begun: dict[str, Settings]) -> None:
    def asked(exchange: Exchange, after: int, partner: str = NEAR) -> list[int]:
        pages: list[WindowPage] = []

        def render(page: WindowPage) -> bytes:
            pages.append(page)
            return b"a page"

        exchange.windows.page(partner, "hashsharing", Window(after, drill.clock()), "", render)
        return [item.entry_id for item in pages[0].items]

    drill.clock.advance(2)
    before = Exchange(copied(begun[HUB], drill.folder / "before", drill.clock))
    assert len(asked(before, 0)) == 60
    # What came after the backup is lost, and the client that has it would never hear so.
    hub, held_until = drill[HUB], drill.clock() - DAY
    hub.epochs.carry()
    for partner in (NEAR, AWAY):
        with pytest.raises(ConflictError, match="backup"):
            asked(hub, held_until, partner)
    assert len(asked(hub, 0)) == 50
    assert asked(hub, held_until) is not None, "from here on as ever"
    with pytest.raises(ConflictError):
        asked(hub, held_until, AWAY)
    assert len(asked(hub, 3_600, AWAY)) == 50, "the beginning in another time zone"
    # It stays so in another process; nothing of it is asked where there was no restore.
    assert asked(Exchange(hub.node), held_until) is not None
    assert asked(before, held_until) is not None


def test_the_card_names_the_new_log_new_keys_and_a_number_beyond_all_of_before(
    drill: Drill, begun: dict[str, Settings], clock: FakeClock
) -> None:
    before, card = drill.card(), parse_card(export_card(drill[HUB].node))
    assert card.log.startswith(log_origin(HUB, 2))
    assert card.number == before.number + beginning.CARD_GAP
    assert not set(card.opening) & set(before.opening)
    assert (card.signing, card.witness) == (before.signing, before.witness)


def test_the_key_of_the_old_log_is_destroyed_and_the_database_of_before_opens_no_more(
    begun: dict[str, Settings], gone_on: Settings, waiting: Node, tmp_path: Path, clock: FakeClock
) -> None:
    assert Keystore.open(gone_on.folder / "keystore.json", PASSPHRASE).log_numbers == (2,)
    # Somebody puts the database of before the ceremony beside the keystore of after it.
    waiting.store.close()
    folder = tmp_path / "mixed"
    shutil.copytree(gone_on.folder, folder)
    shutil.copy(waiting.settings.folder / "gateway.db", folder)
    with pytest.raises(AuditBrokenError):
        open_home(folder, PASSPHRASE, clock=clock)


def test_administrators_and_partners_go_on_as_they_were_and_what_comes_later_is_read_on(drill: Drill) -> None:
    hub = drill[HUB].node
    with hub.store.reading() as tx:
        found = standing.check(tx, hub)
        assert (found.administrators, found.quorum, found.partners) == (2, 2, 2)
    assert do(hub, ("partner_remove", {"partner": AWAY, "reason": "ended"}), ONE, TWO) == DONE
    with hub.store.reading() as tx:
        standing.check(tx, hub)
        assert tx.people.partner(AWAY).state == "removed"
        kept = tx.people.meta(STANDING_META)
    # Nothing kept: all is read again, from leaf 0 on.
    with hub.store.transaction() as tx:
        tx.connection.exec_driver_sql(f"DELETE FROM meta WHERE key = '{STANDING_META}'")
    with hub.store.transaction() as tx:
        standing.check(tx, hub)
        standing.keep(tx, hub)
        assert tx.people.meta(STANDING_META) == kept


def sql(node: Node, statement: str) -> None:
    with node.store.transaction() as tx:
        tx.connection.exec_driver_sql(statement)


def forget_what_was_kept(node: Node) -> None:
    sql(node, f"DELETE FROM meta WHERE key = '{STANDING_META}'")


def carry_another(node: Node) -> None:
    with node.store.transaction() as tx:
        text = tx.people.meta(CARRIED_META) or ""
        assert '"founding":2' in text
        tx.people.set_meta(CARRIED_META, text.replace('"founding":2', '"founding":1'))


def carry_nothing(node: Node) -> None:
    sql(node, f"DELETE FROM meta WHERE key = '{CARRIED_META}'")


def lose_a_partner(node: Node) -> None:
    sql(node, f"DELETE FROM partner WHERE agency = '{AWAY}'")


def bring_back_an_administrator(node: Node) -> None:
    sql(node, "UPDATE administrator SET name = 'someone' WHERE name = 'one'")


def another_first_leaf(node: Node) -> None:
    with node.store.transaction() as tx:
        text = str(tx.connection.exec_driver_sql("SELECT event FROM audit_leaf WHERE idx = 0").scalar())
        wrong = text.replace('"old_size":', '"old_size":1')
        tx.connection.exec_driver_sql(f"UPDATE audit_leaf SET event = '{wrong}' WHERE idx = 0")


@pytest.mark.parametrize(
    "attack",
    [carry_another, carry_nothing, lose_a_partner, bring_back_an_administrator, another_first_leaf],
    ids=lambda attack: attack.__name__,
)
def test_what_is_carried_over_cannot_be_changed_in_the_database(drill: Drill, attack: Callable[[Node], None]) -> None:
    hub = drill[HUB].node
    forget_what_was_kept(hub)
    attack(hub)
    with pytest.raises(AuditBrokenError), hub.store.reading() as tx:
        standing.check(tx, hub)


def test_what_was_kept_of_the_old_log_counts_for_nothing_in_the_new_one(
    drill: Drill, begun: dict[str, Settings], tmp_path: Path, clock: FakeClock
) -> None:
    """Its leaves would be skipped, had they another number only."""
    before = copied(begun[HUB], tmp_path / "before", clock)
    with before.store.transaction() as tx:
        standing.keep(tx, before)
        kept = tx.people.meta(STANDING_META) or ""
    hub = drill[HUB].node
    do(hub, ("partner_remove", {"partner": AWAY, "reason": "ended"}), ONE, TWO)
    while events(hub, EventKind.LOG_VERIFIED) == [] or drill_size(hub) < 200:
        event = hub.event(EventKind.LOG_VERIFIED, actor=HUB, subject="", details={})
        with hub.store.transaction() as tx:
            tx.log.append([event] * 100)
    with hub.store.transaction() as tx:
        tx.people.set_meta(STANDING_META, kept)
        standing.check(tx, hub)  # were it believed, the removal of a partner would be missing


def drill_size(node: Node) -> int:
    with node.store.reading() as tx:
        return tx.log.size()


# Partners


def test_partners_take_the_statement_the_card_and_the_log_and_witness_again(drill: Drill) -> None:
    seen = drill.held()
    drill.keys()
    node, card = drill[NEAR].node, drill.card()
    assert card == parse_card(export_card(drill[HUB].node))
    assert (drill.held().origin, drill.held().size) == (log_origin(HUB, 2), 1)
    with node.store.reading() as tx:
        assert restoring.accepted_epoch(tx, HUB) == 2
        assert restoring.restored_at(node, tx, HUB) == {FOUND: (1, 50)}
        standing.check(tx, node)
    (event,) = events(node, EventKind.PARTNER_RESTORED)
    assert (event.details["held_size"], event.details["held_note"]) == (seen.size, seen.note)
    assert event.details["old_size"] < seen.size  # leaves were lost, and that is on record
    assert event.details["key_ids"] == sorted(one.signing_key.public.key_set_id for one in (ONE, TWO))
    assert [(one.kind, one.subject) for one in drill.alarms()] == [(AlarmKind.PARTNER_RESTORED, HUB)]
    drill.witness()
    assert drill.held().size == drill.held().cosigned == drill_size(drill[HUB].node)
    assert not drill.is_paused()
    with drill[HUB].node.store.reading() as tx:
        assert [row.partner for row in tx.witness.cosignatures()] == [NEAR]


def test_a_statement_that_somebody_else_put_into_the_database_leads_nowhere(drill: Drill) -> None:
    row = PartnerRestore(agency=HUB, digest="00" * 32, number=2, statement=statement_of(drill[HUB].node), accepted=1)
    with drill[NEAR].node.store.transaction() as tx:
        tx.keys.add_restore(row)
    with pytest.raises(AuditBrokenError, match="not kept by this gateway"):
        drill.keys()
    assert drill.card().log.startswith(log_origin(HUB, 1))


def test_the_same_statement_again_has_no_effect(drill: Drill) -> None:
    raw = said(drill[HUB].node, statement_of(drill[HUB].node))
    held = drill[NEAR].take_keys(HUB, raw)
    size = drill_size(drill[NEAR].node)
    assert drill[NEAR].take_keys(HUB, raw) == held
    assert drill_size(drill[NEAR].node) == size


def test_who_follows_no_set_learns_no_name_and_no_size_of_one(drill: Drill) -> None:
    drill.keys(AWAY)
    with drill[AWAY].node.store.reading() as tx:
        assert restoring.restored_at(drill[AWAY].node, tx, HUB) == {}
    raw = statement_of(drill[HUB].node)
    said_so = restore.parse_unverified(raw).proposal
    assert b"found" not in said_so
    assert len(Statement.parse(said_so).arguments["sets"]) == 1  # type: ignore[arg-type]


def test_a_hub_restored_without_the_ceremony_is_paused_by_its_partners(
    drill: Drill, begun: dict[str, Settings], waiting: Node
) -> None:
    """The database of the backup, run as if nothing had happened."""
    with waiting.store.transaction() as tx:
        tx.people.resume("*")
    drill.network.members[HUB] = Exchange(waiting)
    with pytest.raises(VerificationError, match="rolled back"):
        drill.witness()
    assert drill.is_paused()
    assert AlarmKind.LOG_FORK in {one.kind for one in drill.alarms()}


def test_a_new_log_without_a_statement_is_paused_and_its_card_waits_for_people(drill: Drill) -> None:
    sql(drill[HUB].node, "DELETE FROM key_statement WHERE kind = 'restore'")
    drill.keys()
    assert drill.card().log.startswith(log_origin(HUB, 1))
    assert AlarmKind.PARTNER_CARD_WAITS in {one.kind for one in drill.alarms()}
    with pytest.raises(VerificationError, match="not signed by the log of its identity card"):
        drill.witness()
    assert drill.is_paused()


def test_a_log_that_begins_with_another_leaf_than_the_statement_shows_is_a_fork(drill: Drill) -> None:
    drill.keys()
    hub = drill[HUB].node
    with hub.store.transaction() as tx:
        origin = own_log(hub, tx).name
        tx.log.begin(origin)
        tx.log.append([hub.event(EventKind.LOG_VERIFIED, actor=HUB, subject="", details={}) for _ in range(4)])
    with pytest.raises(VerificationError, match="forked"):
        drill.witness()
    assert drill.is_paused()


# Statements that are not as they must be


def remade(hub: Node, change: Callable[[restore.Restore], restore.Restore], signer: SigningKey | None = None) -> bytes:
    """The hub's statement with something changed, properly signed by whoever has its signing key."""
    return restore.sign_restore(change(restore.parse_unverified(statement_of(hub))), signer or hub.keystore.signing_key)


def with_terms(
    hub: Node, statement: restore.Restore, *people: PersonalKey, agency: str = HUB, **changed: Any
) -> restore.Restore:
    """A statement whose proposal says something else, signed by these people and begun with a leaf that fits."""
    said_so = Statement.parse(statement.proposal)
    raw = replace(said_so, agency=agency, arguments={**said_so.arguments, **changed}).dump()
    signed = tuple(
        Signed(one.signing_key.public, one.signing_key.sign(dsse.pae(STATEMENT_TYPE, raw))) for one in people
    )
    terms = restoring.parse_terms(agency, Statement.parse(raw).arguments)
    key_ids = [one.key.key_set_id for one in signed]
    details = {**terms.leaf_details(agency, hashlib.sha256(raw).hexdigest(), key_ids), "standing": "00" * 32}
    event = hub.event(EventKind.GATEWAY_RESTORED, actor=HUB, subject=HUB, details=details).encode()
    entry = audit.event_entry(event, statement.salt)
    key = new_log_key(hub) if changed.get("log") is None else changed_key(changed["log"])
    note = audit.publish(key.name, 1, merkle_root(entry), key, previous=0)
    return replace(statement, agency=agency, proposal=raw, administrators=signed, event=event, checkpoint=note)


def merkle_root(entry: bytes) -> bytes:
    return hashlib.sha256(b"\0" + entry).digest()


def new_log_key(hub: Node) -> CheckpointKey:
    return hub.keystore.log_key(log_origin(HUB, 2))


OTHER_LOGS = {
    name: CheckpointKey.from_seed(name, hashlib.sha256(name.encode()).digest())
    for name in (log_origin(HUB, 1), log_origin(HUB, 2), log_origin(HUB, 3), log_origin(AWAY, 1), log_origin(AWAY, 2))
}


def changed_key(verifier: str) -> CheckpointKey:
    return OTHER_LOGS[VerifierKey.parse(verifier).name]


def test_the_forging_of_these_tests_makes_what_partners_would_take(drill: Drill) -> None:
    """Or each refusal below might be for another reason."""
    hub = drill[HUB].node
    honest = remade(hub, lambda one: with_terms(hub, one, ONE, TWO))
    drill[NEAR].take_keys(HUB, said(hub, honest))
    assert drill.card().log.startswith(log_origin(HUB, 2))


def one_administrator(hub: Node, one: restore.Restore) -> restore.Restore:
    return with_terms(hub, one, ONE)


def one_administrator_twice(hub: Node, one: restore.Restore) -> restore.Restore:
    return with_terms(hub, one, ONE, ONE)


def one_administrator_with_half_of_anothers_key(hub: Node, one: restore.Restore) -> restore.Restore:
    seeds = ONE.signing_key.seeds
    assert seeds[0] is not None
    half = PersonalKey("half", SigningKey(seeds[0], b"another seed of thirty-two bytes"))
    return with_terms(hub, one, ONE, half)


def signatures_over_something_else(hub: Node, one: restore.Restore) -> restore.Restore:
    signed = with_terms(hub, one, ONE, TWO).administrators
    other = with_terms(hub, one, ONE, TWO, standing="11" * 32)
    return replace(other, administrators=signed)


def another_old_log(hub: Node, one: restore.Restore) -> restore.Restore:
    key = OTHER_LOGS[log_origin(HUB, 1)]
    note = checkpoint.sign(key.name, 1, bytes(32), key).decode()
    return with_terms(hub, one, ONE, TWO, old_log=str(key.verifier), old_note=note, witnessed_note="")


def a_log_that_is_skipped(hub: Node, one: restore.Restore) -> restore.Restore:
    key, last = OTHER_LOGS[log_origin(HUB, 2)], OTHER_LOGS[log_origin(HUB, 3)]
    note = checkpoint.sign(key.name, 1, bytes(32), key).decode()
    terms = {"old_log": str(key.verifier), "old_note": note, "witnessed_note": ""}
    return with_terms(hub, one, ONE, TWO, log=str(last.verifier), **terms)


def another_leaf(_hub: Node, one: restore.Restore) -> restore.Restore:
    return replace(one, salt=bytes(32))


def an_event_that_says_something_else(hub: Node, one: restore.Restore) -> restore.Restore:
    event = parse_event(one.event)
    wrong = replace(event, details={**event.details, "old_size": 1}).encode()
    key = new_log_key(hub)
    note = audit.publish(key.name, 1, merkle_root(audit.event_entry(wrong, one.salt)), key, previous=0)
    return replace(one, event=wrong, checkpoint=note)


def a_checkpoint_of_another_log(hub: Node, one: restore.Restore) -> restore.Restore:
    key = OTHER_LOGS[log_origin(HUB, 2)]
    root = merkle_root(audit.event_entry(one.event, one.salt))
    return replace(one, checkpoint=audit.publish(key.name, 1, root, key, previous=0))


def of_another_agency(hub: Node, one: restore.Restore) -> restore.Restore:
    old, new = OTHER_LOGS[log_origin(AWAY, 1)], OTHER_LOGS[log_origin(AWAY, 2)]
    note = checkpoint.sign(old.name, 1, bytes(32), old).decode()
    terms = {"old_log": str(old.verifier), "old_note": note, "witnessed_note": "", "log": str(new.verifier)}
    return with_terms(hub, one, ONE, TWO, agency=AWAY, **terms)


def another_act(hub: Node, one: restore.Restore) -> restore.Restore:
    raw = replace(Statement.parse(one.proposal), act="resume").dump()
    signed = tuple(Signed(p.signing_key.public, p.signing_key.sign(dsse.pae(STATEMENT_TYPE, raw))) for p in (ONE, TWO))
    return replace(one, proposal=raw, administrators=signed)


FORGERIES = {
    one_administrator: "fewer than 2",
    one_administrator_twice: "stands twice",
    one_administrator_with_half_of_anothers_key: "stands twice",
    signatures_over_something_else: "does not verify",
    another_old_log: "does not continue",
    a_log_that_is_skipped: "does not continue",
    another_leaf: "the leaf that the statement shows",
    an_event_that_says_something_else: "what the administrators signed",
    a_checkpoint_of_another_log: "no signature of the key",
    of_another_agency: "another agency",
    another_act: "signed something else",
}


@pytest.mark.parametrize(("forge", "fault"), FORGERIES.items(), ids=lambda one: getattr(one, "__name__", ""))
def test_a_statement_that_is_not_as_it_must_be_is_refused(
    drill: Drill, forge: Callable[[Node, restore.Restore], restore.Restore], fault: str
) -> None:
    hub = drill[HUB].node
    error = refused(drill, said(hub, remade(hub, lambda one: forge(hub, one))))
    assert fault in error.message


def test_a_statement_signed_by_a_key_that_does_not_count_is_refused(drill: Drill) -> None:
    hub = drill[HUB].node
    assert (
        "no signature of a key held"
        in refused(drill, said(hub, remade(hub, lambda one: one, THIEF.signing_key))).message
    )


def test_a_statement_signed_by_a_replaced_or_revoked_key_is_refused(drill: Drill, clock: FakeClock) -> None:
    """Its holder may be whoever stole it."""
    hub = drill[HUB].node
    old = hub.keystore.signing_key
    forged = remade(hub, lambda one: with_terms(hub, one, ONE, TWO))
    with hub.store.transaction() as tx:
        ownkeys.switch(tx, hub, ownkeys.rotate(tx, hub, KeyPurpose.SIGNING, reason="due"), reason="no time")
        statements = [row.statement for row in tx.keys.statements() if row.kind == ownkeys.SUCCESSION]
    # The succession is known first, so the key that signed the statement is the older one.
    error = refused(drill, said(hub, *statements, forged))
    assert "no signature of a key held" in error.message
    with hub.store.transaction() as tx:
        ownkeys.revoke(tx, hub, old.public.key_set_id, since=clock(), reason="stolen")
        revocations = [row.statement for row in tx.keys.statements() if row.kind == ownkeys.REVOCATION]
    assert "no signature of a key held" in refused(drill, said(hub, *statements, *revocations, forged)).message


def test_a_backup_whose_log_is_not_the_one_that_was_witnessed_is_refused(drill: Drill) -> None:
    """Of one size, with another root: the history before the backup was written anew."""
    hub, node = drill[HUB].node, drill[AWAY].node
    statement = restore.parse_unverified(statement_of(hub))
    terms = restoring.parse_terms(HUB, Statement.parse(statement.proposal).arguments)
    with node.store.transaction() as tx:
        row = tx.witness.log(HUB)
        assert row is not None
        key = old_log_key(drill, terms)
        row.note = audit.publish(key.name, terms.old_head.size, bytes(32), key, previous=1).decode()
        row.size = terms.old_head.size
        tx.witness.put_log(row)
    assert "not the one that was witnessed" in refused(drill, said(hub, statement_of(hub)), here=AWAY).message


def old_log_key(drill: Drill, terms: restoring.Terms) -> CheckpointKey:
    """The key of the log that ended, as its thief has it."""
    keystore = Keystore.open(drill.folder / "old-keystore.json", PASSPHRASE)
    return keystore.log_key(terms.old.name)


@pytest.fixture(autouse=True)
def _old_keystore(begun: dict[str, Settings], tmp_path: Path) -> None:
    shutil.copy(begun[HUB].folder / "keystore.json", tmp_path / "old-keystore.json")


def test_a_demo_may_do_with_one_administrator(drill: Drill) -> None:
    """Its card says that its data are invented."""
    hub = drill[HUB].node
    demo = sign_card(replace(drill.card(), test=True), hub.keystore.signing_key)
    enrol(drill[NEAR].node, demo)
    forged = remade(hub, lambda one: with_terms(hub, one, ONE))
    card = replace(parse_card(export_card(hub)), test=True)
    drill[NEAR].take_keys(HUB, said(hub, forged, card=sign_card(card, hub.keystore.signing_key)))
    assert drill.card().log.startswith(log_origin(HUB, 2))


def test_a_statement_that_is_no_statement_is_malformed(drill: Drill) -> None:
    hub = drill[HUB].node
    raw = dsse.sign(restore.PAYLOAD_TYPE, b'{"version":"restore 2"}', hub.keystore.signing_key)
    with pytest.raises(MalformedError, match="members"):
        drill[NEAR].take_keys(HUB, said(hub, raw))


# More than one restore


def second_restore(drill: Drill, clock: FakeClock) -> Node:
    """The hub after another disaster, from a backup of its second log."""
    hub = drill[HUB].node
    backup.create(hub, drill.folder / "second.age", [OFFLINE.public])
    hub.store.close()
    clock.advance(DAY)
    opened = Opened(drill.folder / "second.age", OFFLINE, PASSPHRASE)
    backup.restore(opened, drill.folder / "second", clock=clock)
    node = open_home(drill.folder / "second", PASSPHRASE, clock=clock, restored=True)
    assert do(node, beginning.resume(node), ONE, TWO) == DONE
    return open_home(drill.folder / "second", PASSPHRASE, clock=clock)


def test_a_second_restore_continues_from_the_first_and_who_was_away_walks_both(drill: Drill, clock: FakeClock) -> None:
    drill.keys(NEAR)
    hub = second_restore(drill, clock)
    drill.network.join(hub)
    for agency in (NEAR, AWAY):
        drill.keys(agency)
        drill.witness(agency)
        assert drill.card(agency).log.startswith(log_origin(HUB, 3))
        with drill[agency].node.store.reading() as tx:
            assert restoring.accepted_epoch(tx, HUB) == 3
            assert [row.number for row in tx.keys.restores(HUB)] == [2, 3]
            standing.check(tx, drill[agency].node)
    with drill[NEAR].node.store.reading() as tx:
        assert restoring.restored_at(drill[NEAR].node, tx, HUB) == {FOUND: (2, 50)}
    with hub.store.reading() as tx:
        assert [one.number for one in restoring.own_restores(hub, tx)] == [2, 3]
        standing.check(tx, hub)
    assert verify_own_log(hub).size


def test_a_second_restore_from_the_backup_of_before_is_refused_by_who_took_the_first(
    drill: Drill, begun: dict[str, Settings], tmp_path: Path, clock: FakeClock
) -> None:
    drill.keys(NEAR)
    drill[HUB].node.store.close()
    again = restored_home(begun, tmp_path / "again", clock)
    clock.advance(1)
    assert do(again, beginning.resume(again), ONE, TWO) == DONE
    drill.network.join(again)
    with pytest.raises(VerificationError, match="another card under the number"):
        drill.keys(NEAR)
    with pytest.raises(VerificationError, match="not signed by the log of its identity card"):
        drill.witness(NEAR)
    assert drill.is_paused(NEAR)


# What else goes on


def test_receipts_of_the_new_log_verify_and_those_of_the_old_one_still_do(drill: Drill, tmp_path: Path) -> None:
    near, name = drill[NEAR], f"{NEAR}/seen"
    drill.keys()
    # 1. A page of before: its receipt is of the log that ended, whose key the statement names.
    with near.node.store.reading() as tx:
        (sent,) = tx.mail.receipts(HUB)
        ended = restoring.log_of_receipt(near.node, tx, drill.card(), sent.receipt)
    assert verify_receipt(sent.receipt, ended, manifest_digest=sent.manifest_digest).origin == log_origin(HUB, 1)
    # 2. A page of now: proved by the log of now, and by a program that knows nothing of logs that end.
    near.ledger.import_entries(name, drafts(5, first=300), actor="tester", form="test")
    report = asyncio.run(drill.network.sync(NEAR, HUB).push(name))
    assert report.changes == 5
    (raw,) = report.receipts.values()
    key = VerifierKey.parse(drill.card().log)
    assert verify_receipt(raw, key).origin == log_origin(HUB, 2)
    (tmp_path / "receipt").write_bytes(raw)
    script = Path(__file__).parent.parent / "scripts" / "verify_receipt.py"
    subprocess.run([sys.executable, str(script), str(tmp_path / "receipt"), "--log-key", str(key)], check=True)


def test_mail_goes_on_although_numbers_were_lost(drill: Drill) -> None:
    """The partner holds a message that the restored hub does not remember; its number is not given again."""
    drill.keys()
    before = drill[NEAR].mailbox.last_received(HUB)
    assert before > 1
    drill.mail(NEAR, HUB)  # asks for what follows a number that the hub never gave
    assert drill[HUB].mailbox.write(NEAR, "note", {"text": "after the restore"}) == GAP + 1
    drill.mail(NEAR, HUB)
    drill[HUB].mailbox.write(NEAR, "note", {"text": "and another"})
    drill.mail(HUB, NEAR)
    with drill[NEAR].node.store.reading() as tx:
        assert [row.number for row in tx.mail.incoming(HUB)] == [GAP + 2, GAP + 1, *range(before, 0, -1)]
    number = drill[NEAR].mailbox.write(HUB, "note", {"text": "glad to hear it"})
    drill.mail(NEAR, HUB)
    assert drill[HUB].mailbox.last_received(NEAR) == number


def test_a_gap_in_the_mailbox_is_refused_unless_the_log_began_anew(drill: Drill) -> None:
    assert drill[HUB].mailbox.write(NEAR, "note", {"text": "from a log that nobody has heard of"}) == GAP + 1
    waiting = drill[HUB].mailbox.waiting(NEAR, GAP)
    sealed = drill[HUB].mailbox.seal(drill[HUB].card_of(NEAR), waiting)
    with pytest.raises(ConflictError, match="missing"):
        drill[NEAR].take_mail(HUB, sealed.body)


def test_a_hub_that_has_moved_waits_for_people_and_is_witnessed_from_its_statement_on(drill: Drill) -> None:
    """Another machine has another address: the card waits, and what the statement shows of the log is not lost."""
    hub, node = drill[HUB].node, drill[NEAR].node
    card = replace(parse_card(export_card(hub)), url="https://elsewhere.example", number=5_000)
    moved = sign_card(card, hub.keystore.signing_key)
    drill[NEAR].take_keys(HUB, said(hub, statement_of(hub), card=moved))
    assert drill.card().log.startswith(log_origin(HUB, 1))
    bootstrap_administrator(node, ONE.name, ONE.signing_key.public)
    assert do(node, add_partner(moved), ONE) == DONE
    assert (drill.held().origin, drill.held().size) == (log_origin(HUB, 2), 1)
    with node.store.reading() as tx:
        assert restoring.accepted_epoch(tx, HUB) == 2


def test_who_is_enrolled_after_a_restore_needs_no_statement(drill: Drill, tmp_path: Path, clock: FakeClock) -> None:
    hub, late = drill[HUB].node, make_node(tmp_path, "XB-LATE", clock=clock)
    drill.network.join(late)
    enrol(late, export_card(hub))
    enrol(hub, export_card(late))
    drill.keys("XB-LATE")
    drill.witness("XB-LATE")
    assert events(late, EventKind.PARTNER_RESTORED) == []
    with late.store.reading() as tx:
        assert restoring.accepted_epoch(tx, HUB) == 2
        assert tx.people.is_paused(HUB) is False


def test_the_gateway_of_before_that_runs_again_is_paused(
    drill: Drill, begun: dict[str, Settings], tmp_path: Path, clock: FakeClock
) -> None:
    drill.keys()
    drill.network.join(copied(begun[HUB], tmp_path / "the dead hub", clock))
    drill.keys()  # its card is older
    assert drill.card().log.startswith(log_origin(HUB, 2))
    with pytest.raises(VerificationError):
        drill.witness()
    assert drill.is_paused()


# Key statements


def test_who_was_never_restored_says_what_the_first_version_says(drill: Drill) -> None:
    near, hub = drill[NEAR].node, drill[HUB].node
    assert keyring.own_news(near).version == "key-statements 1"
    assert keyring.own_news(hub).version == "key-statements 2"
    raw = keyring.own_news(hub).dump()
    with pytest.raises(MalformedError, match="version"):
        KeyNews.parse(raw.replace(b'"key-statements 2"', b'"key-statements 1"'))


async def test_restore_statements_travel_over_http_both_ways(
    begun: dict[str, Settings], gone_on: Settings, tmp_path: Path, clock: FakeClock
) -> None:
    hub, near = (
        open_with(copied(settings, tmp_path / name, clock), **loopback())
        for name, settings in (("hub", gone_on), ("near", begun[NEAR]))
    )
    raw = keyring.own_news(hub).dump()
    assert keys_type(raw) == RESTORE_KEYS_TYPE
    async with serving(Exchange(hub)), link_to(hub, near) as link:
        answer = await link.keys(keyring.held_of(near, HUB))
        assert answer is not None
        assert b'"key_statements":"key-statements 2"' in answer
    async with serving(Exchange(near)), link_to(near, hub) as link:
        assert (await link.post_keys(raw)).signing_number == 1
    with near.store.reading() as tx:
        assert len(tx.keys.restores(HUB)) == 1


def open_with(node: Node, **settings: Any) -> Node:
    """The same gateway, listening elsewhere."""
    assert isinstance(node.clock, FakeClock)
    chosen = replace(node.settings, **settings)
    return open_node(chosen, node.keystore, clock=node.clock, random=SeededRandom("elsewhere"))
