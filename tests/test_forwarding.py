"""Passing a partner's set on: three gateways in a row and more, policy in between, no echo, equality at each hop."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from chain import agreement, chain, contents, policy_folder, set_rules, sync_down
from factory import FakeClock, befriend, drafts, events, make_node, make_set
from gateway import keyring
from gateway.audit import EventKind
from gateway.columns.block import decode
from gateway.errors import DeniedError, NotFoundError, VerificationError
from gateway.exchange import Exchange
from gateway.exchange.forwarding import narrowed
from gateway.exchange.lookup import format_entry
from gateway.exchange.shelf import CHANGES
from gateway.interchange import FeedHead
from gateway.model import ENTRY_GROUPS, FieldGroup, HandlingCode, Label, Restriction, VictimStatus
from gateway.policy import Duty, LabelRights, Obligation, PartnerRef
from gateway.store.tables import LabelRow
from partner_simulator import Network, Rogue, card_of, held_entries, refused

SET = "XA-NCVI/identified"
EVERYWHERE = ("XA", "XB", "XC", "XD", "XE")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def network(tmp_path: Path, clock: FakeClock) -> Network:
    """XA - XB - XC, and forty entries of XA that may go everywhere."""
    network = chain(tmp_path, clock, 3, page_changes=64)
    make_set(network.members["XA-NCVI"], "identified", drafts(40, series="Blue Door"), onward=EVERYWHERE)
    return network


def member(network: Network, letter: str) -> Exchange:
    return network.members[f"X{letter}-NCVI"]


def copied(exchange: Exchange) -> dict[int, dict[str, object]]:
    """The live entries of the onward copy of the set."""
    found: dict[int, dict[str, object]] = {}
    with exchange.node.store.reading() as tx:
        copy = tx.sets.find_served(SET)
        assert copy is not None
        assert copy.id is not None
        for row in tx.blocks.of_set(copy.id):
            if row.kind == CHANGES:
                with exchange.shelf.index(tx, copy.id) as index:
                    live = index.live_rows(row.id or 0)
                rows = decode(exchange.shelf.get(tx, row)).take(live)
                found.update({entry: {} for entry in rows.ints("entry_id").tolist()})
    return found


def sync(network: Network, here: str, there: str) -> None:
    asyncio.run(network.sync(f"X{here}-NCVI", f"X{there}-NCVI").sync())


def head_at(exchange: Exchange) -> FeedHead:
    with exchange.node.store.reading() as tx:
        return FeedHead.parse(tx.sets.get(SET).head.encode())


def test_what_may_go_on_reaches_the_third_under_its_owners_name(network: Network) -> None:
    sync_down(network)
    xa, xc = member(network, "A"), member(network, "C")
    assert contents(xc, SET, "sha256", "series") == contents(xa, SET, "sha256", "series")
    assert len(contents(xc, SET)) == 40
    assert head_at(xc).hub == "XB-NCVI"
    assert [member(network, letter).mirrors.equality(SET) for letter in "BC"] == ["equal", "equal"]


def test_a_withdrawal_at_the_origin_reaches_the_third_in_one_round(network: Network) -> None:
    sync_down(network)
    xa = member(network, "A")
    wrong = sorted(held_entries(xa, SET))[:3]
    xa.ledger.withdraw(SET, wrong, actor="tester", reason="another child")
    sync_down(network)
    for letter in "BC":
        assert not set(wrong) & set(held_entries(member(network, letter), SET))
        assert len(held_entries(member(network, letter), SET)) == 37
        assert member(network, letter).mirrors.equality(SET) == "equal"
    with member(network, "C").node.store.reading() as tx:
        mirror = tx.sets.get(SET).id or 0
        with member(network, "C").shelf.index(tx, mirror) as index:
            ids = decode(member(network, "C").shelf.get(tx, tx.blocks.of_set(mirror)[-1])).ints("entry_id")
            assert index.withdrawn(ids).all()  # a withdrawal stays one on its way


def test_a_changed_entry_goes_on_and_keeps_its_id(network: Network) -> None:
    sync_down(network)
    xa = member(network, "A")
    before = set(held_entries(xa, SET))
    xa.ledger.import_entries(SET, drafts(5, series="Red Door"), actor="tester", form="test")
    sync_down(network)
    assert set(held_entries(member(network, "C"), SET)) == before
    assert contents(member(network, "C"), SET, "series") == contents(xa, SET, "series")


def test_what_the_middle_may_no_longer_pass_on_is_taken_back(network: Network) -> None:
    sync_down(network)
    xb, xc = member(network, "B"), member(network, "C")
    set_rules(xb, "XC", agreement("XB", "XC", actions=("receive",)))
    sync(network, "B", "C")
    sync(network, "C", "B")
    assert held_entries(xc, SET) == {}
    assert len(held_entries(xb, SET)) == 40
    assert xb.forwarding.keep_house() == 40
    assert copied(xb) == {}
    assert not values_kept(xb)
    # And given again: what is filled up is what the mirror holds.
    set_rules(xb, "XC", agreement("XB", "XC"))
    assert xb.forwarding.keep_house() == 40
    sync(network, "C", "B")
    assert contents(xc, SET, "sha256") == contents(member(network, "A"), SET, "sha256")
    assert xc.mirrors.equality(SET) == "equal"


def values_kept(exchange: Exchange) -> bool:
    """Whether any block of the onward copy still has digests."""
    with exchange.node.store.reading() as tx:
        copy = tx.sets.find_served(SET)
        assert copy is not None
        return any("2" in row.parts.split() for row in tx.blocks.of_set(copy.id or 0))


def test_the_owners_tighter_policy_reaches_the_third(network: Network) -> None:
    sync_down(network)
    set_rules(member(network, "A"), "XB", agreement("XA", "XB", actions=("receive",)))
    sync(network, "A", "B")
    sync_down(network)
    assert [held_entries(member(network, letter), SET) for letter in "BC"] == [{}, {}]
    assert copied(member(network, "B")) == {}


def test_redaction_only_narrows_from_hop_to_hop(network: Network) -> None:
    series_withheld = ("share_existence", "share_cryptographic_digests", "forward", "receive")
    set_rules(member(network, "A"), "XB", agreement("XA", "XB", actions=series_withheld))
    sync_down(network)
    for letter in "BC":
        held = held_entries(member(network, letter), SET)
        assert len(held) == 40
        assert not any("series" in one for one in held.values())
    assert member(network, "C").mirrors.equality(SET) == "equal"
    # The other way round: XB withholds what it has.
    set_rules(member(network, "A"), "XB", agreement("XA", "XB"))
    set_rules(member(network, "B"), "XC", agreement("XB", "XC", actions=series_withheld))
    sync_down(network)
    assert all("series" in one for one in held_entries(member(network, "B"), SET).values())
    assert not any("series" in one for one in held_entries(member(network, "C"), SET).values())
    assert member(network, "C").mirrors.equality(SET) == "equal"


def test_duties_go_along_and_never_grow_weaker(network: Network) -> None:
    set_rules(member(network, "A"), "XB", agreement("XA", "XB", obligation="court_use_needs_leave, retain_days(90)"))
    set_rules(member(network, "B"), "XC", agreement("XB", "XC", obligation="retain_days(365), notify_originator"))
    sync_down(network)
    with member(network, "C").node.store.reading() as tx:
        [label] = tx.sets.labels(tx.sets.get(SET).id or 0)
    assert label.obligations == "court_use_needs_leave notify_originator retain_days(90)"


def test_nothing_goes_on_under_no_onward(network: Network) -> None:
    set_rules(member(network, "A"), "XB", agreement("XA", "XB", obligation="no_onward"))
    sync_down(network)
    assert len(held_entries(member(network, "B"), SET)) == 40
    assert held_entries(member(network, "C"), SET) == {}
    assert member(network, "B").sets_for("XC-NCVI") == []
    assert isinstance(refused(lambda: member(network, "B").head_for("XC-NCVI", SET)), NotFoundError)


def test_without_the_originators_leave_nothing_goes_on(tmp_path: Path, clock: FakeClock) -> None:
    network = chain(tmp_path, clock, 3)
    xa = member(network, "A")
    make_set(xa, "identified", drafts(4), onward=("XB",))
    make_set(xa, "asked-first", drafts(4, restrictions=(Restriction.ORIGINATOR_CONTROL,)), onward=("XB", "XC"))
    sync_down(network)
    assert member(network, "B").sets_for("XC-NCVI") == []


def test_of_one_set_only_the_labels_with_leave_go_on(network: Network) -> None:
    xa = member(network, "A")
    kept = drafts(6, first=100, restrictions=(Restriction.ORIGINATOR_CONTROL,))
    xa.ledger.import_entries(SET, kept, actor="tester", form="test")
    sync_down(network)
    assert len(held_entries(member(network, "B"), SET)) == 46
    assert len(held_entries(member(network, "C"), SET)) == 40
    # An entry that comes under control leaves the third, though it stays with the second.
    xa.ledger.import_entries(
        SET, drafts(1, series="Blue Door", restrictions=(Restriction.ORIGINATOR_CONTROL,)), actor="tester", form="test"
    )
    sync_down(network)
    assert len(held_entries(member(network, "C"), SET)) == 39
    assert member(network, "C").mirrors.equality(SET) == "equal"


def test_a_set_never_goes_back_to_its_owner_or_to_where_it_came_from(network: Network) -> None:
    sync_down(network)
    assert [one["set"] for one in member(network, "B").sets_for("XA-NCVI")] == []
    assert [one["set"] for one in member(network, "C").sets_for("XB-NCVI")] == []
    assert isinstance(refused(lambda: member(network, "B").head_for("XA-NCVI", SET)), NotFoundError)
    assert isinstance(refused(lambda: member(network, "C").head_for("XB-NCVI", SET)), NotFoundError)


def test_the_owners_own_word_takes_the_place_of_one_who_passes_it_on(tmp_path: Path, clock: FakeClock) -> None:
    network = triangle(tmp_path, clock)
    xa, xc = member(network, "A"), member(network, "C")
    make_set(xa, "identified", drafts(9, series="Blue Door"), onward=EVERYWHERE)
    sync(network, "B", "A")
    sync(network, "C", "B")
    assert head_at(xc).hub == "XB-NCVI"
    befriend(xa.node, xc.node)
    sync(network, "C", "A")
    assert head_at(xc).hub == "XA-NCVI"
    assert contents(xc, SET, "series") == contents(xa, SET, "series")
    assert xc.mirrors.equality(SET) == "equal"
    # It does not go back to the other, and offers of it are passed over.
    sync(network, "C", "B")
    assert head_at(xc).hub == "XA-NCVI"
    head = member(network, "B").head_for("XC-NCVI", SET)
    assert isinstance(refused(lambda: xc.take_head("XB-NCVI", head.body)), DeniedError)


def triangle(tmp_path: Path, clock: FakeClock) -> Network:
    """Three gateways, of which the first and the last have an agreement, and do not know each other yet."""
    agencies = ("XA-NCVI", "XB-NCVI", "XC-NCVI")
    pairs = [("XA-NCVI", "XB-NCVI"), ("XB-NCVI", "XC-NCVI"), ("XA-NCVI", "XC-NCVI")]
    folder = policy_folder(tmp_path / "policies", agencies, pairs)
    nodes = [make_node(tmp_path, name, clock=clock, policies=str(folder)) for name in agencies]
    befriend(*nodes[:2])
    befriend(*nodes[1:])
    network = Network()
    for node in nodes:
        network.join(node)
    return network


def test_what_a_partner_owns_comes_from_that_partner(tmp_path: Path, clock: FakeClock) -> None:
    network = triangle(tmp_path, clock)
    xa, xc = member(network, "A"), member(network, "C")
    befriend(xa.node, xc.node)
    make_set(xa, "identified", drafts(9), onward=EVERYWHERE)
    set_rules(xa, "XC", agreement("XA", "XC", actions=("receive",)))  # XA shows XC nothing, and XB would
    sync(network, "B", "A")
    sync(network, "C", "B")
    assert held_entries(xc, SET) == {}
    head = member(network, "B").head_for("XC-NCVI", SET)
    assert isinstance(refused(lambda: xc.take_head("XB-NCVI", head.body)), DeniedError)


def test_who_passed_a_set_on_takes_nothing_back_once_it_comes_from_its_owner(tmp_path: Path, clock: FakeClock) -> None:
    network = triangle(tmp_path, clock)
    xa, xb, xc = (member(network, letter) for letter in "ABC")
    make_set(xa, "identified", drafts(9), onward=EVERYWHERE)
    sync(network, "B", "A")
    sync(network, "C", "B")
    befriend(xa.node, xc.node)
    sync(network, "C", "A")
    set_rules(xb, "XC", agreement("XB", "XC", actions=("receive",)))
    assert xb.to_recall("XC-NCVI") == [SET]
    sync(network, "B", "C")
    assert xb.to_recall("XC-NCVI") == []
    assert len(held_entries(xc, SET)) == 9
    assert head_at(xc).hub == "XA-NCVI"


def test_a_forwarder_speaks_for_no_set_of_the_reader_itself(network: Network, clock: FakeClock) -> None:
    sync_down(network)
    head = member(network, "B").head_for("XC-NCVI", SET).head
    rogue = Rogue(member(network, "B"), card_of(member(network, "A").node), clock)
    forged = rogue.head(head, partner="XA-NCVI")
    assert isinstance(refused(lambda: member(network, "A").take_head("XB-NCVI", forged)), DeniedError)


def test_a_page_names_the_originators_signed_messages(network: Network) -> None:
    sync_down(network)
    signed = {event.details["manifest_digest"] for event in events(member(network, "A").node, EventKind.PAGE_SERVED)}
    with member(network, "C").node.store.reading() as tx:
        mirror = tx.sets.get(SET).id or 0
        named = {one for row in tx.blocks.of_set(mirror) for one in tx.evidence.sources_of(mirror, row.id or 0)}
    assert named
    assert named <= signed


def test_evidence_names_who_signed_and_on_whose_word(network: Network) -> None:
    sync_down(network)
    xb, xc = member(network, "B"), member(network, "C")
    entry = format_entry(min(held_entries(xc, SET)))
    [own_word] = xb.recovering.evidence(SET, entry)
    assert (own_word.sender, own_word.sources) == ("XA-NCVI", ())
    [passed_on] = xc.recovering.evidence(SET, entry)
    assert (passed_on.sender, passed_on.sources) == ("XB-NCVI", (own_word.manifest_digest,))
    gone = format_entry(1)
    assert isinstance(refused(lambda: xc.recovering.evidence(SET, gone)), NotFoundError)


def test_evidence_of_a_key_that_was_lost_since_proves_nothing(network: Network) -> None:
    sync_down(network)
    xc = member(network, "C")
    with xc.node.store.transaction() as tx:
        keyring.revoke_partner(xc.node, tx, "XB-NCVI", since=0, reason="stolen")
    entry = format_entry(min(held_entries(xc, SET)))
    assert isinstance(refused(lambda: xc.recovering.evidence(SET, entry)), VerificationError)


def test_four_hops_bring_what_one_brings(tmp_path: Path, clock: FakeClock) -> None:
    network = chain(tmp_path, clock, 5, page_changes=16)
    xa = member(network, "A")
    make_set(xa, "identified", drafts(40, series="Blue Door"), onward=EVERYWHERE)
    make_set(xa, "for-h0", drafts(7, first=50), onward=EVERYWHERE, handling=HandlingCode.H0)
    sync_down(network)
    for letter in "BCDE":
        assert contents(member(network, letter), SET, "sha256", "series") == contents(xa, SET, "sha256", "series")
        assert len(held_entries(member(network, letter), "XA-NCVI/for-h0")) == 7
        assert member(network, letter).mirrors.equality(SET) == "equal"


def test_joined_blocks_of_a_copy_tell_a_follower_the_same(network: Network) -> None:
    sync_down(network)
    xa, xb, xc = (member(network, letter) for letter in "ABC")
    for turn in range(6):
        xa.ledger.import_entries(SET, drafts(3, series=f"Door {turn}"), actor="tester", form="test")
        xa.ledger.withdraw(SET, sorted(held_entries(xa, SET))[-1:], actor="tester", reason="wrong")
        sync(network, "B", "A")
        xb.compacting.keep_house()
    sync(network, "C", "B")
    assert contents(xc, SET, "series") == contents(xa, SET, "series")
    assert xc.mirrors.equality(SET) == "equal"


def test_a_mirror_from_before_is_copied_in_steps_when_a_third_is_enrolled(tmp_path: Path, clock: FakeClock) -> None:
    agencies = ("XA-NCVI", "XB-NCVI", "XC-NCVI")
    folder = policy_folder(tmp_path / "policies", agencies, [("XA-NCVI", "XB-NCVI"), ("XB-NCVI", "XC-NCVI")])
    xa, xb, xc = (make_node(tmp_path, name, clock=clock, policies=str(folder), page_changes=4) for name in agencies)
    network = Network()
    for node in (xa, xb, xc):
        network.join(node)
    befriend(xa, xb)
    make_set(member(network, "A"), "identified", drafts(40), onward=EVERYWHERE)
    sync(network, "B", "A")
    with xb.store.reading() as tx:
        assert tx.sets.find_served(SET) is None
    befriend(xb, xc)
    assert member(network, "B").forwarding.keep_house() == 40
    assert member(network, "B").forwarding.keep_house() == 0
    sync(network, "C", "B")
    assert contents(member(network, "C"), SET, "sha256") == contents(member(network, "A"), SET, "sha256")


def test_the_log_of_a_forwarder_holds_what_it_copied(network: Network) -> None:
    sync_down(network)
    [copied_event] = events(member(network, "B").node, EventKind.ONWARD_COPIED)
    assert copied_event.details["changes"] == 40
    assert events(member(network, "C").node, EventKind.ONWARD_COPIED) == []


# The rules beside policy, alone: also where policy does not ask about onward transfer


def came(**changed: object) -> tuple[Label, LabelRow]:
    """A label of XA as it came, and what its hub said of it."""
    fields: dict[str, object] = {"groups": "cryptographic_digests existence", "obligations": "retain_days(90)"}
    told = {name: changed.pop(name, value) for name, value in fields.items()}
    words = {"victim_status": VictimStatus.LEAD, "onward": ("XC",), **changed}
    label = Label("XA-NCVI", "XA", HandlingCode.H1, "icse:1", words.pop("victim_status"), "B2", "a law", **words)  # type: ignore[arg-type]
    return label, LabelRow(set_id=1, number=1, digest=bytes(32), attributes="", **told)  # type: ignore[arg-type]


ALL_GROUPS = LabelRights(frozenset(ENTRY_GROUPS), (Obligation(Duty.RETAIN_DAYS, 365),), ("a-rule",), ())
THIRD, HOME = PartnerRef("XC-NCVI", "XC"), PartnerRef("XA-OTHER", "XA")


def test_what_goes_on_is_what_came_and_policy_permits_under_all_duties() -> None:
    right = narrowed(*came(), ALL_GROUPS, THIRD)
    assert right.groups == {FieldGroup.EXISTENCE, FieldGroup.CRYPTOGRAPHIC_DIGESTS}
    assert right.obligations == (Obligation(Duty.RETAIN_DAYS, 90),)
    assert narrowed(*came(onward=()), ALL_GROUPS, HOME).groups == right.groups


@pytest.mark.parametrize(
    "changed",
    [
        {"onward": ("XB",)},
        {"restrictions": (Restriction.ORIGINATOR_CONTROL,)},
        {"obligations": "no_onward"},
        {"obligations": "a_duty_of_tomorrow"},
        {"groups": ""},
        {"groups": "cryptographic_digests"},
    ],
    ids=lambda changed: " ".join(map(str, changed.items())),
)
def test_what_may_not_go_on_does_not_whatever_policy_says(changed: dict[str, object]) -> None:
    assert narrowed(*came(**changed), ALL_GROUPS, THIRD).groups == frozenset()


def test_under_originator_control_nothing_goes_home_by_rule_either() -> None:
    label = came(restrictions=(Restriction.ORIGINATOR_CONTROL,))
    assert narrowed(*label, ALL_GROUPS, HOME).groups == frozenset()
