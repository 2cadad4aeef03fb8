"""A hub that lost what came after its backup: its partners give back what it once signed, withdrawals first."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pytest
from sqlalchemy import update

from disaster import back_up, founded, restored
from factory import FakeClock, drafts, enrol, events, make_node, make_set, set_state, sha256
from gateway.audit import EventKind, verify_receipt
from gateway.columns.rows import integers
from gateway.comparisons import OFFER_TYPE, dump_offer, parse_offer
from gateway.crypto import dsse, envelope
from gateway.crypto.checkpoint import VerifierKey
from gateway.errors import GatewayError, MalformedError, NotFoundError, VerificationError
from gateway.exchange import Exchange
from gateway.interchange import HEAD_TYPE
from gateway.keyadmin import export_card
from gateway.model import EntryDraft, VictimStatus
from gateway.store.tables import HashSet
from partner_simulator import Network, Rogue, card_of, held_entries

HUB, NEAR, AWAY = "XA-NCVI", "XB-NCVI", "XC-NCVI"
NAME = f"{HUB}/identified"
DAY = 86_400


@dataclass
class World:
    """A hub with 200 entries, two followers that hold them, and a backup of that day."""

    folder: Path
    clock: FakeClock
    network: Network
    file: Path

    def __getitem__(self, agency: str) -> Exchange:
        return self.network.members[agency]

    @property
    def hub(self) -> Exchange:
        return self[HUB]

    def sync(self, *partners: str) -> None:
        for partner in partners or (NEAR, AWAY):
            asyncio.run(self.network.sync(partner, HUB).sync())

    def restore(self) -> Exchange:
        """The hub is gone; it comes back from the backup."""
        self.hub.node.store.close()
        self.clock.advance(10 * DAY)
        hub = self.network.join(restored(self.file, self.folder / "restored", self.clock))
        assert hub.epochs.carry() > 0
        assert hub.epochs.carry() == 0
        return hub

    def go_on(self) -> None:
        """What ten days bring: entries added, changed and withdrawn, old ones and new ones."""
        hub = self.hub
        hub.ledger.import_entries(NAME, drafts(60, first=200), actor="tester", form="test")
        hub.ledger.import_entries(NAME, drafts(10, first=100, series="Blue Door"), actor="tester", form="test")
        held = sorted(held_entries(hub, NAME))
        hub.ledger.withdraw(NAME, [*held[:5], *held[-2:]], actor="tester", reason="wrong")


pytestmark = pytest.mark.sqlite  # test_backup restores into PostgreSQL as well


@pytest.fixture
def world(tmp_path: Path) -> World:
    clock, network = FakeClock(), Network()
    hub = founded(tmp_path, HUB, clock, page_changes=64)
    network.join(hub)
    for agency in (NEAR, AWAY):
        peer = make_node(tmp_path, agency, clock=clock, page_changes=64)
        network.join(peer)
        enrol(hub, export_card(peer))
        enrol(peer, export_card(hub))
    make_set(network.members[HUB], "identified", drafts(200))
    made = World(tmp_path, clock, network, tmp_path / "hub.age")
    made.sync()
    back_up(hub, made.file)
    return made


def listed(exchange: Exchange) -> dict[int, tuple[object, object]]:
    return {entry: (one["sha256"], one["version"]) for entry, one in held_entries(exchange, NAME).items()}


# After a restore


def test_partners_give_back_what_was_lost_and_nothing_withdrawn_returns(world: World) -> None:
    world.go_on()
    world.sync()
    before = listed(world.hub)
    hub = world.restore()
    assert len(listed(hub)) == 200
    world.sync()
    assert listed(hub) == before
    for partner in (NEAR, AWAY):
        mirror = world[partner]
        assert mirror.mirrors.cursor(NAME).epoch == 2
        assert mirror.mirrors.equality(NAME) == "equal"
        assert listed(mirror) == before
    recovered = events(hub.node, EventKind.ENTRIES_RECOVERED)
    assert sum(int(one.details["recovered"]) for one in recovered) == 58  # type: ignore[call-overload]
    assert sum(int(one.details["withdrawn"]) for one in recovered) == 7  # type: ignore[call-overload]
    assert {one.actor for one in recovered if one.details["recovered"]} == {NEAR}


def test_a_restore_costs_the_difference_and_not_a_copy(world: World) -> None:
    world.go_on()
    world.sync()
    world.restore()
    asyncio.run(world.network.sync(NEAR, HUB).exchange_keys())
    [report] = asyncio.run(world.network.sync(NEAR, HUB).pull())
    assert report.equality == "equal"
    assert report.changes < 100  # what came back has new places; the other 190 entries never travelled


def test_what_a_partner_had_to_delete_stays_deleted_when_its_hub_goes_on_from_a_backup(world: World) -> None:
    """XB may hold nothing longer than three days: it gives back nothing of that, and gets nothing of it again."""
    policies, path = world[NEAR].node.policies, "XB/agreement-xa.cedar"
    text = policies.texts[path].replace('"acknowledge_within_days(1)"', '"retain_days(3)"')
    policies.texts, policies._loaded = {**policies.texts, path: text}, None
    world.restore()
    assert world[NEAR].duties.purge(NAME).entries == 200
    world.sync()
    assert world[NEAR].mirrors.cursor(NAME).epoch == 2
    assert world[NEAR].mirrors.equality(NAME) == "equal"
    assert listed(world[NEAR]) == {}
    assert len(listed(world[AWAY])) == 200


def test_work_goes_on_while_partners_come_one_after_the_other(world: World) -> None:
    world.go_on()
    world.sync(NEAR)  # the other one is away, and missed all of it
    before = listed(world.hub)
    hub = world.restore()
    hub.ledger.import_entries(NAME, drafts(5, first=900), actor="tester", form="test")
    world.sync(NEAR)
    hub.ledger.import_entries(NAME, drafts(5, first=950), actor="tester", form="test")
    world.sync(AWAY)
    world.sync()
    new = {entry for entry in listed(hub) if entry >> 48 == 2}
    assert len(new) == 10, "ids given after the restore begin with the new epoch"
    assert {entry: one for entry, one in listed(hub).items() if entry not in new} == before
    assert listed(world[NEAR]) == listed(world[AWAY]) == listed(hub)


def test_what_one_partner_withdraws_another_that_was_away_does_not_bring_back(world: World) -> None:
    world.hub.ledger.import_entries(NAME, drafts(20, first=200), actor="tester", form="test")
    world.sync()
    new = sorted(held_entries(world.hub, NAME))[-6:]
    world.hub.ledger.withdraw(NAME, [new[0], 1 << 48 | 7], actor="tester", reason="wrong")
    world.sync(NEAR)  # AWAY still holds both
    hub = world.restore()
    world.sync(AWAY)  # it offers the one that was new, which nobody here knows as withdrawn yet
    assert new[0] in listed(hub)
    world.sync(NEAR)
    world.sync(AWAY)
    for exchange in (hub, world[NEAR], world[AWAY]):
        assert not {new[0], 1 << 48 | 7} & listed(exchange).keys()
        assert len(listed(exchange)) == 218


def test_what_was_withdrawn_is_remembered_before_anybody_offers_it(world: World) -> None:
    world.hub.ledger.import_entries(NAME, drafts(20, first=200), actor="tester", form="test")
    world.sync()
    new = sorted(held_entries(world.hub, NAME))[-6:]
    world.hub.ledger.withdraw(NAME, new[:2], actor="tester", reason="wrong")
    world.sync(NEAR)
    hub = world.restore()
    world.sync(NEAR)
    world.sync(AWAY)
    assert not set(new[:2]) & listed(hub).keys()
    assert listed(world[AWAY]) == listed(hub)


def test_what_came_and_was_withdrawn_after_the_backup_is_not_imported_again(world: World) -> None:
    world.hub.ledger.import_entries(NAME, drafts(20, first=200), actor="tester", form="test")
    world.sync()
    new = sorted(held_entries(world.hub, NAME))[-6:]
    world.hub.ledger.withdraw(NAME, new, actor="tester", reason="wrong")
    world.sync(NEAR)
    hub = world.restore()
    world.sync(NEAR)
    for _ in range(2):
        tally = hub.ledger.import_entries(NAME, drafts(20, first=200), actor="tester", form="test")
        assert (tally.added, tally.refused) == (0, 6)
        world.sync()
    assert len(listed(hub)) == 214


def test_a_newer_version_goes_back_before_the_older_one_of_the_backup_could_replace_it(world: World) -> None:
    world.hub.ledger.import_entries(NAME, drafts(30, first=100, series="Blue Door"), actor="tester", form="test")
    world.sync(NEAR)
    before = listed(world.hub)
    hub = world.restore()
    world.sync()
    for exchange in (hub, world[NEAR], world[AWAY]):
        assert listed(exchange) == before
        assert sum(one.get("series") == "Blue Door" for one in held_entries(exchange, NAME).values()) == 30


def test_labels_of_after_the_backup_come_back_under_new_numbers(world: World) -> None:
    world.hub.ledger.import_entries(NAME, drafts(10, first=300, category="icse:2"), actor="tester", form="test")
    world.sync()
    before = listed(world.hub)
    hub = world.restore()
    # Before anybody comes, another label takes the number.
    hub.ledger.import_entries(NAME, drafts(3, first=400, category="icse:3"), actor="tester", form="test")
    world.sync()
    world.sync()
    kept = {entry: one for entry, one in listed(hub).items() if entry >> 48 == 1}
    assert kept == before
    assert listed(world[NEAR]) == listed(world[AWAY]) == listed(hub)


def test_an_import_of_the_same_file_knows_again_what_came_back_without_its_reference(world: World) -> None:
    world.go_on()
    world.sync()
    hub = world.restore()
    world.sync()
    tally = hub.ledger.import_entries(NAME, drafts(50, first=200), actor="tester", form="test")
    assert (tally.added, tally.rows) == (0, 50)


def test_until_its_blocks_are_carried_over_a_restored_set_is_not_served(world: World) -> None:
    world.hub.node.store.close()
    hub = world.network.join(restored(world.file, world.folder / "restored", world.clock))
    asyncio.run(world.network.sync(NEAR, HUB).exchange_keys())
    with pytest.raises(GatewayError, match="new epoch"):
        asyncio.run(world.network.sync(NEAR, HUB).pull())
    hub.epochs.carry()
    [report] = asyncio.run(world.network.sync(NEAR, HUB).pull())
    assert report.equality == "equal"


def test_a_hub_that_begins_a_new_epoch_without_a_statement_is_not_followed(world: World) -> None:
    with world.hub.node.store.transaction() as tx:
        tx.connection.execute(update(HashSet).values(epoch=2))
        tx.sets.drop_heads([NEAR, AWAY])
    world.hub.epochs.carry()
    with pytest.raises(VerificationError, match="has not said that it was restored"):
        asyncio.run(world.network.sync(NEAR, HUB).pull())
    assert world[NEAR].mirrors.cursor(NAME).epoch == 1


# Who may bring what


def offers(world: World, agency: str = NEAR) -> list[bytes]:
    """Every page that a follower could give back."""
    exchange = world[agency]
    entries = integers(sorted(held_entries(exchange, NAME)))
    pages = exchange.recovering.pages_of(HUB, NAME, entries)
    return [raw for page in pages if (raw := exchange.recovering.offer(page)) is not None]


def post(world: World, raw: bytes, agency: str = NEAR) -> bytes:
    rogue = Rogue(world[agency], card_of(world.hub.node), world.clock)
    return world.hub.accept(agency, BytesIO(rogue.envelope(raw, OFFER_TYPE, channel=NAME))).body


def test_an_offer_of_what_is_known_changes_nothing_and_has_a_receipt(world: World) -> None:
    before = listed(world.hub)
    raw = offers(world)[0]
    receipt = post(world, raw)
    verify_receipt(receipt, VerifierKey.parse(card_of(world.hub.node).log))
    assert listed(world.hub) == before
    [event] = events(world.hub.node, EventKind.ENTRIES_RECOVERED)
    assert (event.details["known"], event.details["recovered"]) == (64, 0)


def test_a_page_that_another_agency_signed_is_refused(world: World) -> None:
    """The attack that all of this is about: entries that we never listed, signed by whoever wants them in."""
    make_set(world[NEAR], "identified", drafts(5, first=7000))
    asyncio.run(world.network.sync(HUB, NEAR).pull())
    theirs = world.hub.recovering
    name = f"{NEAR}/identified"
    [page] = theirs.pages_of(NEAR, name, integers(sorted(held_entries(world.hub, name))))
    raw = theirs.offer(page)
    assert raw is not None
    before = listed(world.hub)
    with pytest.raises(VerificationError, match="no signature of a key held"):
        post(world, raw)
    assert listed(world.hub) == before


def test_a_page_with_one_flipped_bit_is_refused(world: World) -> None:
    signed, page = parse_offer(offers(world)[0])
    for at in (0, 40, len(page) // 2, len(page) - 1):
        changed = page[:at] + bytes([page[at] ^ 1]) + page[at + 1 :]
        with pytest.raises((VerificationError, MalformedError)):
            post(world, dump_offer(signed, changed))


def test_what_was_signed_for_one_page_does_not_speak_for_another(world: World) -> None:
    (one, _), (_, two) = map(parse_offer, offers(world)[:2])
    with pytest.raises(VerificationError, match="another payload"):
        post(world, dump_offer(one, two))


def test_a_feed_head_is_no_page(world: World) -> None:
    node = world.hub.node
    payload = b"{}"
    manifest = envelope.Manifest(
        message_id="ab" * 16,
        sender=HUB,
        audience=envelope.agency_audience(NEAR),
        channel=NAME,
        epoch=1,
        from_seq=0,
        until_seq=0,
        created=world.clock(),
        expires=world.clock() + 60,
        payload_type=HEAD_TYPE,
        payload_bytes=len(payload),
        pieces=(sha256("{}").hex(),),
    )
    signed = dsse.sign(envelope.MANIFEST_TYPE, manifest.dump(), node.keystore.signing_key)
    with pytest.raises(VerificationError, match="not a page of ours"):
        post(world, dump_offer(signed, payload))


def test_pages_signed_with_a_key_that_was_compromised_are_refused(world: World) -> None:
    raw = offers(world)[0]
    with world.hub.node.store.transaction() as tx:
        for row in tx.keys.own("signing"):
            row.compromised_since = world.clock()
            tx.keys.put_own(row)
    with pytest.raises(VerificationError):
        post(world, raw)


def test_a_stranger_or_suspended_partner_offers_nothing(world: World) -> None:
    raw = offers(world)[0]
    set_state(world.hub.node, NEAR, "suspended")
    with pytest.raises(NotFoundError):
        post(world, raw)


def test_an_entry_that_must_never_come_again_is_not_taken_back(world: World) -> None:
    """Withdrawn as wrong after the backup, listed again by nobody: not even by our own signature of before."""
    raw = offers(world)[0]
    entry = sorted(held_entries(world.hub, NAME))[3]
    digest = held_entries(world.hub, NAME)[entry]["sha256"]
    world.hub.ledger.withdraw(NAME, [entry], actor="tester", reason="wrong")
    post(world, raw)
    assert entry not in listed(world.hub)
    assert digest not in [one for one, _ in listed(world.hub).values()]
    [event] = events(world.hub.node, EventKind.ENTRIES_RECOVERED)
    assert event.details["reasons"] == {"withdrawn since": 1}


def test_the_same_offer_twice_has_one_effect(world: World) -> None:
    raw = offers(world)[0]
    rogue = Rogue(world[NEAR], card_of(world.hub.node), world.clock)
    body = rogue.envelope(raw, OFFER_TYPE, channel=NAME)
    first = world.hub.accept(NEAR, BytesIO(body)).body
    assert world.hub.accept(NEAR, BytesIO(body)).body == first
    assert len(events(world.hub.node, EventKind.ENTRIES_RECOVERED)) == 1


def test_partners_that_see_different_groups_complete_each_other(world: World) -> None:
    """XC sees no perceptual digests: what it gives back is completed by XB, which sees them."""
    entries = [
        one._replace(digests={**one.digests, "pdq": sha256(one.source_ref)}, victim_status=VictimStatus.IDENTIFIED)
        for one in drafts(12, first=500)
    ]
    world.hub.ledger.import_entries(NAME, entries, actor="tester", form="test")
    world.sync()
    hub = world.restore()
    world.sync(AWAY)
    came = {entry: one for entry, one in held_entries(hub, NAME).items() if one["sha256"] in digests_of(entries)}
    assert len(came) == 12
    assert not any("pdq" in one for one in came.values())
    world.sync(NEAR)
    completed = {entry: held_entries(hub, NAME)[entry] for entry in came}
    assert {one["pdq"] for one in completed.values()} == {one.digests["pdq"] for one in entries}
    assert {one["version"] for one in completed.values()} == {1}
    world.sync()
    for partner in (NEAR, AWAY):
        assert world[partner].mirrors.equality(NAME) == "equal"


def digests_of(entries: list[EntryDraft]) -> set[object]:
    return {one.digests["sha256"] for one in entries}


def test_a_page_of_which_rows_were_refused_cannot_be_offered(world: World) -> None:
    entries = [*drafts(10, first=600), *drafts(5, first=700, evaluation="F6")]
    world.hub.ledger.import_entries(NAME, entries, actor="tester", form="test")
    world.sync()
    mirror = world[NEAR]
    held = {entry for entry, one in held_entries(mirror, NAME).items() if one["sha256"] in digests_of(entries)}
    assert len(held) == 10, "our own policy takes nothing of unreliable sources"
    assert mirror.recovering.pages_of(HUB, NAME, integers(sorted(held))) == []
    before = mirror.recovering.pages_of(HUB, NAME, integers(sorted(held_entries(mirror, NAME).keys() - held)))
    assert len(before) == 4


def test_what_was_signed_is_forgotten_after_its_days_and_with_a_mirror_that_begins_anew(world: World) -> None:
    mirror = world[NEAR]
    world.clock.advance(34 * DAY)
    mirror.recovering.keep_house()
    assert len(offers(world)) == 4
    world.clock.advance(2 * DAY)
    mirror.recovering.keep_house()
    assert offers(world) == []
    mirror.mirrors.begin_anew(HUB, NAME)
    asyncio.run(world.network.sync(NEAR, HUB).pull())
    assert len(offers(world)) == 4
    assert mirror.mirrors.equality(NAME) == "equal"
