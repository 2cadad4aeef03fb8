"""Witnessing: a partner's log that is rewritten, cut off or shown in two versions is found, proved and stopped."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from factory import (
    FakeClock,
    SeededRandom,
    befriend,
    card_of,
    copied_database,
    drafts,
    enrol,
    events,
    make_node,
    make_set,
    open_node,
    set_state,
    signed_card_of,
)
from gateway import witness
from gateway.alarms import AlarmKind, raise_alarm
from gateway.approvals import DONE, Arguments
from gateway.audit import EventKind, verify_log
from gateway.crypto import checkpoint
from gateway.crypto.checkpoint import CheckpointKey, KeyKind, VerifierKey
from gateway.crypto.keys import SigningKey
from gateway.errors import (
    GatewayError,
    MalformedError,
    NotFoundError,
    OverloadedError,
    PartnerError,
    TooLargeError,
    VerificationError,
)
from gateway.exchange import Exchange
from gateway.gossip import MAX_TOLD_LOGS, ToldLog, parse_told, told_json
from gateway.interchange import sign_card
from gateway.keyadmin import add_partner, approvals, bootstrap_administrator, remove_partner, resume
from gateway.keystore import PersonalKey
from gateway.node import Node, log_origin, witness_name
from gateway.store.tables import AlarmRow, WitnessedLog
from gateway.store.witness import KEPT_COSIGNATURES
from gateway.sync import PartnerSync
from gateway.witness import MAX_CLAIMS, WITNESS
from partner_simulator import MemoryLink, Network, copy_of, here

US, HUB, THIRD = "XA-NCVI", "XB-NCVI", "XC-NCVI"


@dataclass
class World:
    """Three gateways that know each other."""

    network: Network
    clock: FakeClock

    def __getitem__(self, agency: str) -> Exchange:
        return self.network.members[agency]

    def witness(self, here: str = US, there: str = HUB) -> None:
        asyncio.run(self.network.sync(here, there).witness())

    def sync(self, here: str = US, there: str = HUB) -> None:
        asyncio.run(self.network.sync(here, there).sync())

    def shows(self, exchange: Exchange) -> None:
        """From now on the hub answers with this history."""
        self.network.members[HUB] = exchange

    def held(self, here: str = US, there: str = HUB) -> WitnessedLog:
        with self[here].node.store.reading() as tx:
            row = tx.witness.log(there)
        assert row is not None
        return row

    def alarms(self, here: str = US) -> list[AlarmRow]:
        with self[here].node.store.reading() as tx:
            return tx.alarms.all()

    def is_paused(self, here: str = US, there: str = HUB) -> bool:
        with self[here].node.store.reading() as tx:
            return tx.people.is_paused(there)


@pytest.fixture(scope="module")
def founded(tmp_path_factory: pytest.TempPathFactory) -> list[Node]:
    """Three gateways that know each other, made once: making keys takes longest."""
    folder, clock = tmp_path_factory.mktemp("founded"), FakeClock()
    nodes = [make_node(folder, agency, clock=clock) for agency in (US, HUB, THIRD)]
    befriend(*nodes)
    for node in nodes:
        node.store.close()
    return nodes


@pytest.fixture
def world(tmp_path: Path, founded: list[Node]) -> World:
    clock, network = FakeClock(), Network()
    for node in founded:
        shutil.copytree(node.settings.folder, tmp_path / node.agency)
        folder = tmp_path / node.agency
        settings = replace(node.settings, folder=folder, database=copied_database(node.settings, folder))
        network.join(open_node(settings, node.keystore, clock=clock, random=SeededRandom(node.agency)))
    return World(network, clock)


def grow(exchange: Exchange, leaves: int = 1) -> int:
    """Add some leaves to a log; returns its size."""
    node = exchange.node
    happened = [node.event(EventKind.LOG_VERIFIED, actor=node.agency, subject="", details={}) for _ in range(leaves)]
    with node.store.transaction() as tx:
        tx.log.append(happened)
    return size_of(exchange)


def size_of(exchange: Exchange) -> int:
    with exchange.node.store.reading() as tx:
        return tx.log.size()


def log_key(exchange: Exchange) -> VerifierKey:
    return exchange.node.keystore.log_key(log_origin(exchange.node.agency)).verifier


def witness_key(exchange: Exchange) -> CheckpointKey:
    return exchange.node.keystore.witness_key(witness_name(exchange.node.agency))


def begin_anew(exchange: Exchange, partner: str = HUB) -> None:
    """What the act of resuming does."""
    with exchange.node.store.transaction() as tx:
        tx.people.resume(partner)
        witness.begin_anew(tx, exchange.node, partner)


# An honest log


def test_each_contact_cosigns_the_partners_log_and_the_partner_keeps_it(world: World) -> None:
    size = grow(world[HUB], 3)
    world.witness()
    note, key = world[HUB].witness.cosigned_note(), log_key(world[HUB])
    assert checkpoint.verify(note, key, key.name).size == size
    signed = checkpoint.verify_cosignature(note, witness_key(world[US]).verifier, key.name)
    assert (signed.checkpoint.size, signed.at) == (size, world.clock())
    assert (world.held().size, world.held().cosigned) == (size, size)
    assert world[HUB].witness.note_of() == world[HUB].witness.note_of(size) == note


def test_being_witnessed_makes_no_log_grow(world: World) -> None:
    world.sync()
    world.sync(HUB, US)
    before = size_of(world[US]), size_of(world[HUB])
    world.network.requests.clear()
    for _ in range(3):
        world.sync()
        world.sync(HUB, US)
    assert (size_of(world[US]), size_of(world[HUB])) == before
    assert not [one for one in world.network.requests if one.endswith(("consistency", "cosignature"))]


def test_a_log_that_grew_is_cosigned_again_and_again_proved(world: World) -> None:
    for leaves in (1, 5, 2, 9):
        size = grow(world[HUB], leaves)
        world.clock.advance(60)
        world.witness()
        assert (world.held().size, world.held().cosigned, world.held().at) == (size, size, world.clock())
    assert world.network.requests.count(f"{US} {HUB} consistency") == 3
    assert not world.alarms()


def test_two_witnesses_stand_under_one_note(world: World) -> None:
    world.witness(US)
    world.witness(THIRD)
    note = world[HUB].witness.note_of()
    for agency in (US, THIRD):
        checkpoint.verify_cosignature(note, witness_key(world[agency]).verifier, log_origin(HUB))


def test_a_cosignature_whose_answer_was_lost_is_sent_again(world: World) -> None:
    link = MemoryLink(world.network, US, HUB)

    async def lost(body: bytes) -> None:
        raise PartnerError("the answer was lost")

    link.post_cosignature = lost  # type: ignore[method-assign]
    with pytest.raises(PartnerError):
        asyncio.run(PartnerSync(world[US], link, HUB, run=here).witness())
    assert (world.held().size, world.held().cosigned) == (size_of(world[HUB]), 0)
    world.witness()
    assert world.held().cosigned == size_of(world[HUB])


def test_what_another_node_witnessed_meanwhile_is_left_as_it_is(world: World) -> None:
    desk = world[US].witness
    contact = desk.begin(HUB)
    shown = desk.read(contact, world[HUB].witness.note_of())
    size = grow(world[HUB])
    world.witness()
    assert desk.take(contact, shown, {}) is None
    desk.note_posted(contact, shown)
    assert (world.held().size, world.held().cosigned) == (size, size)


def test_the_note_kept_is_the_logs_own_part(world: World) -> None:
    world.witness(THIRD)
    world.witness(US)
    lines = world.held().note.partition("\n\n")[2].splitlines()
    assert [line.split(" ")[1] for line in lines] == [log_origin(HUB)]


# A log that does not fit


def forked(world: World) -> Exchange:
    """Another history: larger, with another leaf in between."""
    other = copy_of(world[HUB], "forked")
    grow(world[HUB])
    world.witness()
    world.clock.advance(1)
    grow(other, 3)
    return other


def same_size(world: World) -> Exchange:
    """Another history of the very same length."""
    other = copy_of(world[HUB], "other")
    grow(world[HUB])
    world.witness()
    world.clock.advance(1)
    grow(other)
    return other


def rewound(world: World) -> Exchange:
    """The database of yesterday, put back."""
    other = copy_of(world[HUB], "yesterday")
    grow(world[HUB], 4)
    world.witness()
    return other


def truncated(world: World) -> Exchange:
    """The newest checkpoint cut off, so that the one before is the newest."""
    grow(world[HUB], 4)
    world.witness()
    other = copy_of(world[HUB], "truncated")
    with other.node.store.transaction() as tx:
        for rows in ("audit_checkpoint WHERE size > 1", "audit_leaf WHERE idx > 0", "audit_node WHERE level + idx > 0"):
            tx.connection.exec_driver_sql(f"DELETE FROM {rows}")
    return other


HISTORIES: dict[Callable[[World], Exchange], str] = {
    forked: "forked: consistency proof",
    same_size: "forked: two roots",
    rewound: "rolled back",
    truncated: "rolled back",
}


@pytest.mark.parametrize(("history", "reason"), HISTORIES.items(), ids=lambda one: getattr(one, "__name__", None))
def test_another_history_is_found_proved_and_stopped_at_once(
    world: World, history: Callable[[World], Exchange], reason: str
) -> None:
    other = history(world)
    held = world.held()
    world.shows(other)
    with pytest.raises(VerificationError, match=reason) as refused:
        world.witness()
    assert "paused" in refused.value.remedy
    # Both signed heads are on record and in the alarm, and each verifies for whoever is shown them.
    [event] = events(world[US].node, EventKind.LOG_FORKED)
    [alarm] = world.alarms()
    assert json.loads(alarm.evidence) == event.details
    assert (alarm.kind, alarm.subject) == (AlarmKind.LOG_FORK, HUB)
    assert event.details["held_note"] == held.note
    key = log_key(other)
    heads = [
        checkpoint.verify(str(event.details[name]).encode(), key, key.name) for name in ("held_note", "shown_note")
    ]
    assert [head.size for head in heads] == [event.details["held_size"], event.details["shown_size"]]
    # Nothing is taken or served any more, and what we held stays what we held.
    assert world.is_paused()
    with world[US].node.store.reading() as tx:
        assert (HUB, WITNESS) in [(scope, by) for scope, by, _ in tx.people.pauses()]
        assert witness.is_forked(tx, HUB)
    with pytest.raises(OverloadedError):
        world[US].sets_for(HUB)
    with pytest.raises(OverloadedError):
        world.sync()
    assert world.held() == held


def test_a_forked_partner_gets_nothing_that_was_on_its_way(world: World) -> None:
    make_set(world[US], "found", drafts(3))
    other = forked(world)
    world.shows(other)
    world.network.requests.clear()
    with pytest.raises(VerificationError):
        world.sync()
    assert world.network.requests[-2:] == [f"{US} {HUB} checkpoint", f"{US} {HUB} consistency"]


def test_a_fork_is_a_failed_run_and_shows_in_the_status_of_the_schedule(world: World) -> None:
    schedule = world.network.schedule(US)
    other = forked(world)
    world.shows(other)
    with pytest.raises(VerificationError):
        asyncio.run(schedule.run_now(HUB))
    [line] = [one for one in schedule.status() if one.partner == HUB]
    assert line.state == "forked"
    assert line.last_error.startswith("VerificationError: the partner's audit log")
    [failed] = events(world[US].node, EventKind.SYNC_FAILED)
    assert failed.details["error"] == "VerificationError"


def test_a_checkpoint_of_another_key_is_no_checkpoint_of_this_log(world: World) -> None:
    world.witness()
    key = CheckpointKey.generate(log_origin(HUB))
    note = checkpoint.sign(key.name, 9, bytes(32), key)
    contact = world[US].witness.begin(HUB)
    with pytest.raises(VerificationError, match="not signed by the log"):
        world[US].witness.read(contact, note)
    [alarm] = world.alarms()
    assert json.loads(alarm.evidence)["shown_note"] == note.decode()
    assert world.is_paused()


def test_a_log_under_another_key_than_before_is_another_log(world: World) -> None:
    world.witness()
    other = CheckpointKey.generate(log_origin(HUB))
    enrol(world[US].node, replace(card_of(world[HUB].node), log=str(other.verifier)))
    with pytest.raises(VerificationError, match="another one than before"):
        world[US].witness.read(world[US].witness.begin(HUB), checkpoint.sign(other.name, 1, bytes(32), other))
    assert world.is_paused()


def test_a_false_proof_is_a_fork(world: World) -> None:
    world.witness()
    grow(world[HUB], 6)
    desk = world[US].witness
    contact = desk.begin(HUB)
    shown = desk.read(contact, world[HUB].witness.note_of())
    [pair] = shown.wanted
    with world[HUB].node.store.reading() as tx:
        proof = list(tx.log.consistency_proof(*pair))
    with pytest.raises(VerificationError):
        desk.take(contact, shown, {pair: [*proof[:-1], bytes(32)]})
    assert world.is_paused()


def test_a_fork_is_recorded_once(world: World) -> None:
    other = forked(world)
    contact = world[US].witness.begin(HUB)
    note = copy_of(other, "again").witness.note_of()
    for _ in range(2):
        shown = world[US].witness.read(contact, note)
        with pytest.raises(VerificationError):
            world[US].witness.take(contact, shown, {shown.wanted[0]: [bytes(32)]})
    assert len(events(world[US].node, EventKind.LOG_FORKED)) == len(world.alarms()) == 1


# What is no fork


async def _nothing() -> bytes:
    raise PartnerError("the partner did not answer")


async def _rubbish() -> bytes:
    return b"no checkpoint"


async def _endless() -> bytes:
    return b"x\n" * 600_000


def _too_wide(world: World) -> bytes:
    """Properly signed, and larger than a head can be."""
    key = world[HUB].node.keystore.log_key(log_origin(HUB))
    return checkpoint.sign(key.name, 9, bytes(32), key, extensions=("x" * 9_000,))


def test_a_partner_that_answers_nothing_or_nonsense_is_not_accused(world: World) -> None:
    world.witness()
    before = world.held()

    async def wide() -> bytes:
        return _too_wide(world)

    answers = ((_nothing, PartnerError), (_rubbish, MalformedError), (_endless, TooLargeError), (wide, TooLargeError))
    for answer, error in answers:
        link = MemoryLink(world.network, US, HUB)
        link.checkpoint = answer  # type: ignore[method-assign]
        with pytest.raises(error):
            asyncio.run(PartnerSync(world[US], link, HUB, run=here).sync())
    assert (world.held(), world.alarms(), world.is_paused()) == (before, [], False)


@pytest.mark.parametrize("error", [NotFoundError("it is not that long"), VerificationError("no"), PartnerError("gone")])
def test_a_partner_that_owes_a_proof_fails_the_run_and_is_not_cosigned(world: World, error: GatewayError) -> None:
    world.witness()
    before = world.held()
    grow(world[HUB])
    link = MemoryLink(world.network, US, HUB)

    async def refuses(old: int, new: int) -> tuple[bytes, ...]:
        raise error

    link.consistency = refuses  # type: ignore[method-assign]
    with pytest.raises((NotFoundError, PartnerError)):
        asyncio.run(PartnerSync(world[US], link, HUB, run=here).sync())
    assert (world.held(), world.alarms(), world.is_paused()) == (before, [], False)


def test_feeds_go_on_where_a_log_could_not_be_witnessed(world: World) -> None:
    name = make_set(world[HUB], "found", drafts(3))
    link = MemoryLink(world.network, US, HUB)
    link.checkpoint = _nothing  # type: ignore[method-assign]
    with pytest.raises(PartnerError):
        asyncio.run(PartnerSync(world[US], link, HUB, run=here).sync())
    assert world[US].mirrors.cursor(name).seq == 3


# Heads that come by another way: receipts


def test_a_receipt_of_a_history_that_is_not_shown_is_found_at_the_next_contact(world: World) -> None:
    name = make_set(world[US], "found", drafts(3))
    honest = world[HUB]
    world.witness()
    world.shows(copy_of(honest, "for receipts"))
    asyncio.run(world.network.sync(US, HUB).push(name))
    world.shows(honest)
    grow(honest, 20)
    with pytest.raises(VerificationError, match="forked"):
        world.witness()
    assert world.is_paused()


def test_a_log_smaller_than_a_receipt_of_it_was_rolled_back(world: World) -> None:
    name = make_set(world[US], "found", drafts(3))
    world.witness()
    before = copy_of(world[HUB], "before")
    asyncio.run(world.network.sync(US, HUB).push(name))
    world.shows(before)
    with pytest.raises(VerificationError, match="rolled back"):
        world.witness()


def test_receipts_of_an_honest_log_are_proved_once_and_forgotten(world: World) -> None:
    name = make_set(world[US], "found", drafts(3))
    asyncio.run(world.network.sync(US, HUB).push(name))  # before the first checkpoint was seen
    assert len(json.loads(world.held().claims)) == 1
    grow(world[HUB])
    world.witness()
    assert (world.held().claims, world.held().size) == ("[]", size_of(world[HUB]))
    assert not world.alarms()


def test_of_many_claims_the_oldest_and_the_newest_are_kept(world: World) -> None:
    contact, desk = world[US].witness.begin(HUB), world[US].witness
    sizes = []
    for _ in range(9):
        sizes.append(grow(world[HUB]))
        desk._hear(contact, world[HUB].witness.note_of())
    kept = [int(note.split("\n")[1]) for note in json.loads(world.held().claims)]
    assert len(kept) == MAX_CLAIMS
    assert (kept[0], kept[-1]) == (sizes[0], sizes[-1])
    world.witness()
    assert not world.alarms()


# Heads that come by another way: other witnesses


def test_a_split_view_of_one_size_is_found_when_its_two_victims_next_meet(world: World) -> None:
    shown_to_third = copy_of(world[HUB], "split")
    grow(world[HUB])
    world.clock.advance(1)
    grow(shown_to_third)
    honest = world[HUB]
    world.witness(US)
    world.shows(shown_to_third)
    world.witness(THIRD)
    world.shows(honest)
    world.sync(US, THIRD)
    assert world.is_paused(US, HUB)
    assert not world.is_paused(US, THIRD)  # who told is not to blame
    [alarm] = world.alarms()
    assert alarm.subject == HUB
    world.sync(THIRD, US)
    assert world.is_paused(THIRD, HUB)


def test_a_split_view_of_two_sizes_is_found_when_its_log_is_next_asked(world: World) -> None:
    shown_to_third = copy_of(world[HUB], "split")
    grow(world[HUB])
    world.clock.advance(1)
    grow(shown_to_third, 2)
    honest = world[HUB]
    world.witness(US)
    world.shows(shown_to_third)
    world.witness(THIRD)
    world.shows(honest)
    grow(honest, 4)
    world.sync(US, THIRD)
    assert not world.is_paused(US, HUB)
    with pytest.raises(VerificationError, match="forked"):
        world.sync(US, HUB)
    assert world.is_paused(US, HUB)


def test_honest_gateways_that_tell_each_other_raise_no_alarm(world: World) -> None:
    agencies = (US, HUB, THIRD)
    for round_ in range(3):
        for one in agencies:
            for other in agencies:
                if one != other:
                    world.sync(one, other)
        grow(world[agencies[round_]], round_ + 1)
        world.clock.advance(60)
    assert [world.alarms(agency) for agency in agencies] == [[], [], []]


def test_what_is_told_of_unknown_logs_or_with_foreign_keys_is_passed_over(world: World) -> None:
    key = CheckpointKey.generate(log_origin(HUB))
    told = [
        ToldLog(HUB, checkpoint.sign(key.name, 5, bytes(32), key), world.clock()),
        ToldLog("XZ-NOBODY", world[HUB].witness.note_of(), world.clock()),
        ToldLog(HUB, b"nonsense", world.clock()),
        ToldLog(THIRD, _too_wide(world), world.clock()),
        ToldLog(US, b"nonsense", world.clock()),
    ]
    world[US].witness.hear_others(THIRD, told)
    with world[US].node.store.reading() as tx:
        assert not tx.witness.logs()
    assert not world.alarms()


def test_partners_are_told_of_the_logs_of_active_partners_their_own_among_them(world: World) -> None:
    world.witness()
    world.witness(US, THIRD)
    assert [one.agency for one in world[US].witness.told_logs(THIRD)] == [HUB, THIRD]
    set_state(world[US].node, HUB, "suspended")
    assert [one.agency for one in world[US].witness.told_logs(THIRD)] == [THIRD]
    with pytest.raises(NotFoundError):
        world[US].witness.told_logs(HUB)


def test_our_own_log_put_back_is_noticed_when_a_partner_is_next_asked(world: World) -> None:
    yesterday = copy_of(world[HUB], "yesterday")
    grow(world[HUB], 3)
    world.witness(US)
    world.witness(HUB, US)
    assert not world.alarms(HUB)
    world.shows(yesterday)
    world.witness(HUB, US)
    assert [row.kind for row in world.alarms(HUB)] == [AlarmKind.OWN_LOG]


@pytest.mark.parametrize(
    "value",
    [
        None,
        {},
        [1],
        [{"agency": HUB, "note": "x"}],
        [{"agency": HUB, "note": "x", "at": -1}],
        [{"agency": "nobody", "note": "x", "at": 1}],
        [{"agency": HUB, "note": "x" * 9_000, "at": 1}],
        [{"agency": HUB, "note": "x", "at": 1}] * (MAX_TOLD_LOGS + 1),
    ],
)
def test_a_list_of_logs_beyond_its_contract_is_refused(value: object) -> None:
    with pytest.raises(MalformedError):
        parse_told(value)


def test_a_list_of_logs_is_read_as_it_was_written() -> None:
    told = (ToldLog(HUB, b"a note\n", 7), ToldLog(THIRD, b"", 0))
    assert parse_told(told_json(told)["logs"]) == told


# After two administrators have resumed


def test_after_a_resume_the_head_last_shown_is_what_must_be_extended(world: World) -> None:
    before = copy_of(world[HUB], "before")
    other = forked(world)
    world.shows(other)
    with pytest.raises(VerificationError):
        world.witness()
    begin_anew(world[US])
    assert not world.alarms()
    assert (world.held().size, world.held().cosigned) == (size_of(other), 0)
    grow(other)
    world.witness()
    assert world.held().cosigned == size_of(other)
    world.shows(before)
    with pytest.raises(VerificationError, match="rolled back"):
        world.witness()


def test_a_resume_without_a_fork_changes_nothing(world: World) -> None:
    world.witness()
    before = world.held()
    with world[US].node.store.transaction() as tx:
        tx.people.pause(HUB, "one", 1)
    begin_anew(world[US])
    assert world.held() == before


def test_after_a_new_log_was_enrolled_a_resume_begins_with_it(world: World) -> None:
    world.witness()
    other = CheckpointKey.generate(log_origin(HUB, 2))
    with pytest.raises(VerificationError):
        world[US].witness.read(world[US].witness.begin(HUB), checkpoint.sign(other.name, 1, bytes(32), other))
    enrol(world[US].node, replace(card_of(world[HUB].node), log=str(other.verifier)))
    begin_anew(world[US])
    desk = world[US].witness
    contact = desk.begin(HUB)
    shown = desk.read(contact, checkpoint.sign(other.name, 1, bytes(32), other))
    assert desk.take(contact, shown, {}) is not None
    assert world.held().origin == other.name


def test_what_others_saw_before_a_resume_is_settled_by_it(world: World) -> None:
    world.witness(THIRD)
    other = forked(world)
    world.witness(THIRD)
    world.shows(other)
    with pytest.raises(VerificationError):
        world.witness(US)
    world.clock.advance(60)
    begin_anew(world[US])
    world[US].witness.hear_others(THIRD, world[THIRD].witness.told_logs(US))
    world.witness(US)
    assert not world.is_paused()


def test_a_partner_that_is_removed_is_forgotten_with_its_alarm(world: World) -> None:
    other = forked(world)
    world.shows(other)
    with pytest.raises(VerificationError):
        world.witness()
    with world[US].node.store.transaction() as tx:
        witness.forget(tx, world[US].node, HUB)
        assert tx.witness.log(HUB) is None
    assert not world.alarms()


def act(node: Node, what: tuple[str, Arguments]) -> None:
    """A guarded act; these gateways are demos, with one administrator."""
    key = PersonalKey("alice", SigningKey.generate(SeededRandom("alice")))
    with node.store.reading() as tx:
        known = tx.people.administrators()
    if not known:
        bootstrap_administrator(node, key.name, key.signing_key.public)
    desk = approvals(node)
    assert desk.sign(desk.propose(*what, by=key.name), key).state == DONE


def test_the_acts_of_resuming_and_of_removing_settle_a_fork(world: World) -> None:
    honest = world[HUB]
    act(world[US].node, add_partner(signed_card_of(honest.node)))  # the log must tell of whom it resumes
    world.shows(forked(world))
    for what in (resume(HUB), remove_partner(HUB, "over")):
        with pytest.raises(VerificationError):
            world.witness()
        assert [row.kind for row in world.alarms()] == [AlarmKind.LOG_FORK]
        act(world[US].node, what)
        assert not world.alarms()
        world.shows(honest)
    with world[US].node.store.reading() as tx:
        assert tx.witness.log(HUB) is None


def test_a_card_with_another_log_begins_that_log_anew(world: World) -> None:
    world.witness()
    there = world[HUB].node
    with world[US].node.store.transaction() as tx:
        raise_alarm(tx, world[US].node, AlarmKind.PARTNER_CARD_WAITS, HUB, "a newer card")
    other = CheckpointKey.generate(log_origin(HUB, 2))
    card = replace(card_of(there), log=str(other.verifier), number=9, test=True)
    act(world[US].node, add_partner(sign_card(card, there.keystore.signing_key)))
    assert not world.alarms()
    shown = world[US].witness.read(world[US].witness.begin(HUB), checkpoint.sign(other.name, 1, bytes(32), other))
    assert shown.wanted == ()


# Cosignatures that are brought to us


def test_a_cosignature_is_taken_from_its_own_witness_over_our_own_checkpoint_alone(world: World) -> None:
    desk, key = world[HUB].witness, witness_key(world[US])
    note = desk.note_of()
    head = checkpoint.verify(note, log_key(world[HUB]), log_origin(HUB))
    line = checkpoint.cosign(head, key, world.clock())
    good = checkpoint.add_signature(note, line)
    foreign = checkpoint.add_signature(note, checkpoint.cosign(head, witness_key(world[THIRD]), world.clock()))
    impostor = CheckpointKey.generate(key.name, KeyKind.COSIGNER)
    again = checkpoint.add_signature(good, checkpoint.cosign(head, key, world.clock() + 1))
    text = replace(head, extensions=("previous 7",))
    elsewhere = replace(head, origin=log_origin(THIRD))
    for body, error in (
        (note, VerificationError),
        (foreign, VerificationError),
        (checkpoint.add_signature(note, checkpoint.cosign(head, impostor, 1)), VerificationError),
        (again, MalformedError),
        (alone(text, key), VerificationError),
        (alone(replace(head, root=bytes(32)), key), VerificationError),
        (alone(replace(head, size=head.size + 1), key), VerificationError),
        (alone(replace(head, size=2**62), key), VerificationError),
        (alone(elsewhere, key), VerificationError),
        (b"", MalformedError),
        (good + b"x" * 9_000, TooLargeError),
    ):
        with pytest.raises(error):
            desk.take_cosignature(US, body)
    with world[HUB].node.store.reading() as tx:
        assert not tx.witness.cosignatures()
    with pytest.raises(NotFoundError):
        desk.cosigned_note()
    desk.take_cosignature(US, good)
    desk.take_cosignature(US, good)
    assert desk.cosigned_note() == good
    assert not world.alarms(HUB)


def alone(head: checkpoint.Checkpoint, key: CheckpointKey) -> bytes:
    """A note with nothing but one cosignature."""
    return f"{head.text()}\n".encode() + checkpoint.cosign(head, key, 1)


def test_the_newest_cosignatures_of_each_partner_are_kept(world: World) -> None:
    for _ in range(KEPT_COSIGNATURES + 3):
        grow(world[HUB])
        world.witness()
    world.witness(THIRD)
    with world[HUB].node.store.reading() as tx:
        rows = tx.witness.cosignatures()
        newest = tx.log.size()
    ours = [row.size for row in rows if row.partner == US]
    assert ours == list(range(newest, newest - KEPT_COSIGNATURES, -1))
    assert [row.size for row in rows if row.partner == THIRD] == [newest]


def test_a_checkpoint_that_never_was_is_not_served(world: World) -> None:
    for size in (0, 99, 2**53 - 1):
        with pytest.raises(NotFoundError):
            world[HUB].witness.note_of(size)


def test_our_own_log_put_back_is_noticed_by_what_a_partner_holds_of_it(world: World) -> None:
    yesterday = copy_of(world[HUB], "yesterday")
    grow(world[HUB], 3)
    body = checkpoint.add_signature(
        world[HUB].witness.note_of(),
        checkpoint.cosign(
            checkpoint.verify(world[HUB].witness.note_of(), log_key(world[HUB]), log_origin(HUB)),
            witness_key(world[US]),
            world.clock(),
        ),
    )
    world.witness(US)
    told = world[US].witness.told_logs(THIRD)
    world.shows(yesterday)
    with pytest.raises(VerificationError):
        yesterday.witness.take_cosignature(US, body)
    [alarm] = world.alarms(HUB)
    assert (alarm.kind, alarm.subject) == (AlarmKind.OWN_LOG, log_origin(HUB))
    assert json.loads(alarm.evidence)["told_by"] == US
    assert not world.is_paused(HUB, US)
    with yesterday.node.store.transaction() as tx:
        tx.alarms.close(alarm.id or 0, "one", 1)
    yesterday.witness.hear_others(THIRD, told)
    assert [row.kind for row in world.alarms(HUB)] == [AlarmKind.OWN_LOG]


def test_the_whole_log_holds_after_all_that(world: World) -> None:
    other = forked(world)
    world.shows(other)
    with pytest.raises(VerificationError):
        world.witness()
    with world[US].node.store.reading() as tx:
        verify_log(tx.log.leaves(), tx.log.nodes(), tx.log.checkpoints(), log_key(world[US]))
