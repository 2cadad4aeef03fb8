"""What a policy would change is what it changes: predicted before, counted after, over random labels and policies."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from chain import agreement, chain, set_rules, sync_down
from factory import FakeClock, SeededRandom, befriend, card_of, drafts, enrol, make_node, make_set, sha256
from gateway.exchange import Exchange
from gateway.exchange.labels import stored_label
from gateway.exchange.lookup import format_entry
from gateway.exchange.rehearsing import Rehearsal, describe, entry_changes, rehearse
from gateway.model import ENTRY_GROUPS, EntryDraft, FieldGroup, HandlingCode, Restriction, Surface, VictimStatus
from gateway.policy import IntakeChange, LabelInSet, PartnerRef, PolicySet, ShareChange, load
from partner_simulator import Network, held_entries
from random_policies import EVALUATIONS, random_policy, takes_everything, without_agreements
from simulation import GROUP_COLUMNS

HUB, PARTNERS = "XA-NCVI", ("XB-NCVI", "XC-NCVI")
SET = f"{HUB}/identified"
Held = set[tuple[str, str, FieldGroup]]  # partner, entry, field group


class World:
    """One hub with a set of random entries, and two partners that take whatever it sends."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.source, self.clock, self.network = random.Random(seed), FakeClock(), Network()
        nodes = [
            make_node(folder, name, clock=self.clock, random=SeededRandom(f"{seed} {name}"))
            for name in (HUB, *PARTNERS)
        ]
        befriend(*nodes)
        for node in nodes:
            self.network.join(node)
        make_set(self.hub, "identified", onward=("XB", "XC"))
        self.switch(HUB, without_agreements("XA"))
        for partner in PARTNERS:
            self.switch(partner, takes_everything(partner[:2], "XA"))
        self.import_some(60)

    @property
    def hub(self) -> Exchange:
        return self.network.members[HUB]

    def import_some(self, count: int) -> None:
        numbers = self.source.sample(range(200), count)
        self.hub.ledger.import_entries(SET, [self.draft(number) for number in numbers], actor="test", form="test")

    def draft(self, number: int) -> EntryDraft:
        choose = self.source.choice
        digests = {"sha256": sha256(f"{number}")}
        if number % 2:
            digests["pdq"] = sha256(f"pdq {number}")
        return EntryDraft(
            digests,
            source_ref=f"ref-{number}",
            series=choose(("", "Blue Door")),
            victim_ref=choose(("", f"V-{number}")),
            victim_status=choose(list(VictimStatus)[:-1]),
            handling=choose(list(HandlingCode)),
            evaluation=choose(EVALUATIONS),
            restrictions=choose(((), (), (), (Restriction.EMBARGO,))),
        )

    def loaded(self, agency: str, texts: dict[str, str]) -> PolicySet:
        return load(texts, on=self.network.members[agency].node.policy.on)

    def switch(self, agency: str, texts: dict[str, str]) -> None:
        policies = self.network.members[agency].node.policies
        policies.texts, policies._loaded = texts, None

    async def pull(self) -> None:
        for partner in PARTNERS:
            for report in await self.network.sync(partner, HUB).pull():
                assert report.equality == "equal"

    def rehearsed(self, agency: str, texts: dict[str, str]) -> Rehearsal:
        node = self.network.members[agency].node
        with node.store.reading() as tx:
            return rehearse(tx, node, node.policy, self.loaded(agency, texts))

    def held(self, *partners: str) -> Held:
        """What partners hold now, as it lies in their stores."""
        return {
            (partner, format_entry(entry), FieldGroup(group))
            for partner in partners or PARTNERS
            for entry, one in held_entries(self.network.members[partner], SET).items()
            for group in says(one)
        }

    def permitted(self) -> Held:
        """What policy lets partners hold, worked out entry by entry from the rules alone."""
        node = self.hub.node
        with node.store.reading() as tx:
            rows = tx.sets.labels(tx.sets.get(SET).id or 0)
        labels = {row.number: LabelInSet(SET, stored_label(row)) for row in rows}
        found: Held = set()
        for partner in PARTNERS:
            rights = node.policy.table(PartnerRef(partner, partner[:2]), Surface.SEALED, labels)
            for entry, one in held_entries(self.hub, SET).items():
                shown = rights[int(str(one["label"]))].groups & says(one)
                found |= {(partner, format_entry(entry), group) for group in shown}
        return found


@pytest.mark.parametrize("seed", range(12))
async def test_the_predicted_difference_is_the_actual_one_over_a_random_history(tmp_path: Path, seed: int) -> None:
    world = World(tmp_path, seed)
    for _ in range(5):
        await world.pull()
        before = world.held()
        assert before == world.permitted()
        texts = random_policy(world.source, "XA", "XB", "XC")
        rehearsal = world.rehearsed(HUB, texts)
        listed = list(entry_changes(world.hub.node, world.hub.shelf, rehearsal))
        world.switch(HUB, texts)
        await world.pull()
        after = world.held()
        # 1. Entry by entry and group by group.
        started = {(one.partner, one.entry, group) for one in listed for group in one.started}
        stopped = {(one.partner, one.entry, group) for one in listed for group in one.stopped}
        assert (after - before, before - after) == (started, stopped)
        # 2. And as counted from the sums.
        assert counted(rehearsal, "started") == tally(after - before)
        assert counted(rehearsal, "stopped") == tally(before - after)
        world.import_some(10)


def says(one: dict[str, object]) -> set[FieldGroup]:
    """The field groups in which an entry says something."""
    named = {group for group, columns in GROUP_COLUMNS.items() if any(one.get(column) for column in columns)}
    return {FieldGroup.EXISTENCE, *named}


def counted(rehearsal: Rehearsal, way: str) -> Counter[tuple[str, str]]:
    found: Counter[tuple[str, str]] = Counter()
    for one in rehearsal.changes:
        counts = describe(one)[way]
        assert isinstance(counts, dict)
        for group, count in counts.items():
            found[one.change.partner.agency, group] += count
    return +found


def tally(held: Held) -> Counter[tuple[str, str]]:
    return Counter((partner, str(group)) for partner, _, group in held)


@pytest.mark.parametrize("seed", range(6))
async def test_what_we_would_take_and_no_longer_take_is_what_happens(tmp_path: Path, seed: int) -> None:
    world = World(tmp_path, seed)
    mirror, everything = PARTNERS[0], random_policy(random.Random(1), "XA", "XB", "XC")
    world.switch(HUB, everything)
    for _ in range(4):
        await world.pull()
        before = entries(world.held(mirror))
        texts = random_policy(world.source, "XB", "XA")
        changes = [one for one in world.rehearsed(mirror, texts).changes if isinstance(one.change, IntakeChange)]
        world.switch(mirror, texts)
        await world.pull()
        after = entries(world.held(mirror))
        assert sum(one.entries for one in changes if one.change.taken) == len(after - before)  # type: ignore[union-attr]
        assert sum(one.entries for one in changes if not one.change.taken) == len(before - after)  # type: ignore[union-attr]


def entries(held: Held) -> set[str]:
    return {entry for _, entry, group in held if group is FieldGroup.EXISTENCE}


async def test_a_change_names_the_rules_and_the_duties_behind_it(tmp_path: Path) -> None:
    world = World(tmp_path, 1)
    texts = random_policy(random.Random(5), "XA", "XB")
    name = "XA/agreement-xb.cedar"
    assert "@obligation" in texts[name]
    world.switch(HUB, texts)
    lines = texts[name].splitlines()
    lighter = {**texts, name: "\n".join(line for line in lines if not line.startswith("@obligation"))}
    changes = world.rehearsed(HUB, lighter).changes
    assert changes
    for one in changes:
        assert isinstance(one.change, ShareChange)
        assert (one.groups, one.change.started, one.change.stopped) == ({}, frozenset(), frozenset())
        assert one.change.duties[0]
        assert not one.change.duties[1]
    ended = world.rehearsed(HUB, without_agreements("XA")).changes
    assert {one.change.partner.agency for one in ended} == {"XB-NCVI"}
    assert all(one.change.rules[0] and not one.change.rules[1] for one in ended)
    assert world.rehearsed(HUB, texts).changes == ()


async def test_who_exchanges_nothing_changes_nothing(tmp_path: Path) -> None:
    clock = FakeClock()
    xa, xb = make_node(tmp_path, HUB, clock=clock, quorum=2), make_node(tmp_path, "XB-NCVI", clock=clock, quorum=2)
    enrol(xa, card_of(xb), test=True)
    exchange = Exchange(xa)
    make_set(exchange, "identified", drafts(3))
    make_set(exchange, "test-invented", drafts(2))
    nothing = load(without_agreements("XA"), on=xa.policy.on)
    with xa.store.reading() as tx:
        found = rehearse(tx, xa, xa.policy, nothing)
        assert rehearse(tx, xa, xa.policy, nothing, partner="XC-NCVI").changes == ()
    assert {one.change.held.set_name for one in found.changes} == {f"{HUB}/test-invented"}
    assert {one.entries for one in found.changes} == {2}
    assert set(found.changes[0].groups) <= set(ENTRY_GROUPS)


def test_what_is_passed_on_is_rehearsed_at_the_one_who_passes_it_on(tmp_path: Path) -> None:
    network = chain(tmp_path, FakeClock(), 3)
    xa, xb, xc = (network.members[name] for name in ("XA-NCVI", "XB-NCVI", "XC-NCVI"))
    make_set(xa, "identified", drafts(6, series="Blue Door"), onward=("XB", "XC"))
    for _ in range(2):
        sync_down(network)
        xb.forwarding.keep_house()
    assert len(held_entries(xc, SET)) == 6
    name = "XB/agreement-xc.cedar"
    actions = ("share_existence", "forward", "receive")
    texts = {**xb.node.policies.texts, name: agreement("XB", "XC", actions=actions)}
    with xb.node.store.reading() as tx:
        found = rehearse(tx, xb.node, xb.node.policy, load(texts, on=xb.node.policy.on))
    assert {(one.change.partner.agency, one.change.held.set_name) for one in found.changes} == {("XC-NCVI", SET)}
    stopped = {(one.entry, group) for one in entry_changes(xb.node, xb.shelf, found) for group in one.stopped}
    before = {(format_entry(entry), group) for entry, one in held_entries(xc, SET).items() for group in says(one)}
    set_rules(xb, "XC", texts[name])
    sync_down(network)
    after = {(format_entry(entry), group) for entry, one in held_entries(xc, SET).items() for group in says(one)}
    assert before - after == stopped
    assert after < before
