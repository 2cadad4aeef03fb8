"""A seeded world of several gateways: random deeds, a network with faults, crashes, policy that changes.

    World(tmp_path, seed).run(steps)        # the same seed makes the same world, step by step
    python -m simulation 7 --steps 200      # from the tests folder: one seed, with a line for each step

After the storm the network is mended and everybody syncs. Then the invariants hold, or the seed is the bug report:

1. every mirror holds exactly what the hub's policy shows of the hub's entries and the mirror's own policy takes, also
   where the hub passes on what it holds of another's set;
2. the state digests of both sides are equal;
3. no group that policy withholds is anywhere in a mirror;
4. nobody owes an answer about what was withdrawn or recalled;
5. every log verifies from the first leaf to the last, and every page that was pushed has one receipt.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path

from factory import FakeClock, SeededRandom, befriend, make_node, make_set, open_node, sha256
from gateway import audit
from gateway.errors import GatewayError
from gateway.exchange import Exchange
from gateway.exchange.labels import stored_label
from gateway.model import EntryDraft, FieldGroup, HandlingCode, Restriction, Surface, VictimStatus
from gateway.node import log_origin
from gateway.policy import LabelInSet, PartnerRef
from partner_simulator import Faults, Network, held_entries

AGENCIES = ("XA-NCVI", "XB-NCVI", "XC-NCVI")
GROUP_COLUMNS = {
    FieldGroup.CRYPTOGRAPHIC_DIGESTS: ("md5", "sha256"),
    FieldGroup.PERCEPTUAL_DIGESTS: ("pdq",),
    FieldGroup.SERIES: ("series",),
    FieldGroup.VICTIM_STATUS: ("victim_ref",),
}


class World:
    """Three gateways, each with one set of its own, in one process on one clock.

    Where the seed is odd the first and the last do not know each other: what one has of the other, the second passed
    on.
    """

    def __init__(self, folder: Path, seed: int, *, page_changes: int = 48) -> None:
        first, second, third = AGENCIES
        self.pairs = [(first, second), (second, third), *([] if seed % 2 else [(first, third)])]
        self.source = random.Random(seed)
        self.clock = FakeClock()
        self.network = Network(self.source, Faults(0.1, 0.1, 0.1, 0.05))
        nodes = [
            make_node(folder, name, clock=self.clock, random=SeededRandom(f"{seed} {name}"), page_changes=page_changes)
            for name in AGENCIES
        ]
        known = {node.agency: node for node in nodes}
        for one, other in self.pairs:
            befriend(known[one], known[other])
        for node in nodes:
            make_set(self.network.join(node), "identified", onward=("XA", "XB", "XC"))
        self.texts = {node.agency: dict(node.policies.texts) for node in nodes}
        self.log: list[str] = []

    def run(self, steps: int) -> None:
        """Some random deeds, then peace, then the invariants."""
        deeds: list[tuple[int, Callable[[], None]]] = [
            (6, self.import_some),
            (3, self.withdraw_some),
            (6, self.pull),
            (4, self.push),
            (3, self.sync),
            (2, self.change_policy),
            (2, self.restart),
            (2, self.advance),
            (1, self.write_mail),
            (2, self.compact_some),
        ]
        weights = [weight for weight, _ in deeds]
        for _ in range(steps):
            [(_, deed)] = self.source.choices(deeds, weights)
            self.log.append(deed.__name__)
            deed()
        self.settle()
        self.check()

    # Deeds

    def import_some(self) -> None:
        exchange = self.any()
        first = self.source.randrange(60)
        drafts = [self.draft(number) for number in range(first, first + self.source.randrange(1, 25))]
        exchange.ledger.import_entries(own(exchange), drafts, actor="sim", form="sim")

    def draft(self, number: int) -> EntryDraft:
        choose = self.source.choice
        digests = {"sha256": sha256(f"{number}")}
        if number % 3:
            digests["md5"] = sha256(f"md5 {number}")[:16]
        if number % 2:
            digests["pdq"] = sha256(f"pdq {number}")
        return EntryDraft(
            digests,
            source_ref=f"ref-{number}",
            series=choose(("", "Blue Door", "Red Door")),
            victim_ref=choose(("", f"V-{number}")),
            victim_status=choose(list(VictimStatus)[:-1]),
            handling=choose(list(HandlingCode)),
            evaluation=choose(("A1", "B2", "C3", "F6")),
            restrictions=choose(((), (), (), (Restriction.EMBARGO,))),
        )

    def withdraw_some(self) -> None:
        exchange = self.any()
        held = sorted(held_entries(exchange, own(exchange)))
        if held:
            chosen = self.source.sample(held, min(len(held), self.source.randrange(1, 4)))
            exchange.ledger.withdraw(own(exchange), chosen, actor="sim", reason="wrong")

    def two(self) -> tuple[str, str]:
        """Two that know each other, in either order."""
        one, other = self.source.choice(self.pairs)
        return (one, other) if self.source.random() < 0.5 else (other, one)

    def pull(self) -> None:
        here, there = self.two()
        self.attempt(lambda: asyncio.run(self.network.sync(here, there).pull()))

    def push(self) -> None:
        here, there = self.two()
        self.attempt(lambda: asyncio.run(self.network.sync(here, there).push(own(self.network.members[here]))))

    def sync(self) -> None:
        here = self.source.choice(AGENCIES)
        asyncio.run(self.network.schedule(here).tick())

    def change_policy(self) -> None:
        exchange = self.any()
        texts = dict(self.texts[exchange.node.agency])
        for name in sorted(texts):
            if "agreement" in name and self.source.random() < 0.5:
                texts[name] = texts[name].replace('Handling::"H1", Handling::"H2"]', 'Handling::"H1"]')
            if "agreement" in name and self.source.random() < 0.2:
                texts[name] = texts[name].replace('Handling::"H0", ', "")
            if "agreement" in name and self.source.random() < 0.15:
                del texts[name]  # the agreement has ended
        exchange.node.policies.texts = texts
        exchange.node.policies._loaded = None

    def restart(self) -> None:
        old = self.any().node
        texts = old.policies.texts
        old.store.close()
        node = open_node(old.settings, old.keystore, clock=self.clock, random=old.random)
        node.policies.texts = texts
        self.network.join(node)

    def advance(self) -> None:
        self.clock.advance(self.source.choice((60, 3600, 13 * 3600)))

    def write_mail(self) -> None:
        here, there = self.two()
        self.network.members[here].mailbox.write(there, "note", {"subject": f"at {self.clock()}"})

    def compact_some(self) -> None:
        """Blocks are joined, at a hub or a follower; now and then as if what hubs signed were long forgotten."""
        exchange = self.any()
        with exchange.node.store.transaction() as tx:
            if self.source.random() < 0.5:
                tx.evidence.forget(self.clock() + 1)
            names = [row.name for row in tx.sets.all()]
        for name in names:
            exchange.compacting.compact(name)

    # Peace

    def settle(self) -> None:
        """No more faults; everybody tells everybody everything, until nothing is left to tell."""
        self.network.faults = Faults()
        for _ in range(3):  # once for what came, once for what that changed, once for what is passed on
            for exchange in self.network.members.values():
                exchange.forwarding.keep_house()
            for one, other in self.pairs:
                asyncio.run(self.network.sync(one, other).sync())
                asyncio.run(self.network.sync(other, one).sync())

    def check(self) -> None:
        """The invariants; the assertion names what differs."""
        for hub in self.network.members.values():
            for mirror in self.network.members.values():
                if hub is not mirror:
                    self.check_mirror(hub, mirror)
        for exchange in self.network.members.values():
            self.check_log(exchange)
            owing = [one for one in exchange.withdrawals.status() if one.state == "outstanding"]
            assert not owing, f"{exchange.node.agency} still waits for answers about what it took back: {owing}"

    def check_mirror(self, hub: Exchange, mirror: Exchange) -> None:
        name, strangers = own(hub), {hub.node.agency, mirror.node.agency} not in map(set, self.pairs)
        with mirror.node.store.reading() as tx:
            followed = tx.sets.find(name)
        if strangers or (followed is not None and followed.hub != hub.node.agency):
            [between] = set(AGENCIES) - {hub.node.agency, mirror.node.agency}
            expected = passed_on(self.network.members[between], mirror, name)
        else:
            expected = expected_entries(hub, mirror)
        held = {entry: project(one) for entry, one in held_entries(mirror, name).items()}
        if not expected and not held and (followed is None or not followed.epoch):  # it never saw anything of it
            return
        assert held == expected, f"{mirror.node.agency} holds other entries of {name} than policy says"
        assert mirror.mirrors.equality(name) == "equal"

    def check_log(self, exchange: Exchange) -> None:
        node = exchange.node
        with node.store.reading() as tx:
            key = node.keystore.log_key(log_origin(node.agency)).verifier
            audit.verify_log(tx.log.leaves(), tx.log.nodes(), tx.log.checkpoints(), key)
            for partner in AGENCIES:
                assert tx.mail.waiting(partner) == []
                assert tx.mail.outgoing(partner, tx.mail.undelivered(partner), 10) == []

    def any(self) -> Exchange:
        return self.network.members[self.source.choice(AGENCIES)]

    def attempt(self, deed: Callable[[], object]) -> None:
        """A deed that may fail as networks fail; anything but a GatewayError is a bug."""
        try:
            deed()
        except GatewayError as error:
            self.log.append(f"  {type(error).__name__}: {error}")


def own(exchange: Exchange) -> str:
    """The name of a gateway's own set."""
    return f"{exchange.node.agency}/identified"


def expected_entries(hub: Exchange, mirror: Exchange) -> dict[int, dict[str, object]]:
    """What policy says that a mirror holds of a hub's set, worked out entry by entry from the rules alone."""
    name = own(hub)
    with hub.node.store.reading() as tx:
        hash_set = tx.sets.get(name)
        assert hash_set.id is not None
        labels = {row.number: stored_label(row) for row in tx.sets.labels(hash_set.id)}
    partner = PartnerRef(mirror.node.agency, mirror.node.agency[:2])
    sender = PartnerRef(hub.node.agency, hub.node.agency[:2])
    held = {number: LabelInSet(name, label) for number, label in labels.items()}
    rights = hub.node.policy.table(partner, Surface.SEALED, held)
    expected = {}
    for entry, one in held_entries(hub, name).items():
        groups = rights[int(str(one["label"]))].groups
        label = labels[int(str(one["label"]))]
        if not groups:
            continue
        shown = label if FieldGroup.VICTIM_STATUS in groups else withheld(label)
        taken = mirror.node.policy.receivable(sender, Surface.SEALED, {1: LabelInSet(name, shown)})[1]
        if taken.allowed:
            expected[entry] = project(one, groups)
    return expected


def passed_on(hub: Exchange, mirror: Exchange, name: str) -> dict[int, dict[str, object]]:
    """What the rules say that a mirror holds of what its hub holds of a third agency's set."""
    with hub.node.store.reading() as tx:
        hash_set = tx.sets.find(name)
        rows = {} if hash_set is None else {row.number: row for row in tx.sets.labels(hash_set.id or 0)}
    labels = {number: stored_label(row) for number, row in rows.items()}
    partner = PartnerRef(mirror.node.agency, mirror.node.agency[:2])
    sender = PartnerRef(hub.node.agency, hub.node.agency[:2])
    held = {number: LabelInSet(name, label) for number, label in labels.items()}
    rights = hub.node.policy.table(partner, Surface.SEALED, held)
    expected = {}
    for entry, one in held_entries(hub, name).items():
        row, label = rows[int(str(one["label"]))], labels[int(str(one["label"]))]
        groups = rights[row.number].groups & {FieldGroup(group) for group in row.groups.split()}
        leave = partner.jurisdiction in label.onward and "no_onward" not in row.obligations.split()
        if not groups or not leave or Restriction.ORIGINATOR_CONTROL in label.restrictions:
            continue
        shown = label if FieldGroup.VICTIM_STATUS in groups else withheld(label)
        if mirror.node.policy.receivable(sender, Surface.SEALED, {1: LabelInSet(name, shown)})[1].allowed:
            expected[entry] = project(one, groups)
    return expected


def withheld(label: object) -> object:
    """The label without its victim status."""
    from dataclasses import replace

    return replace(label, victim_status=VictimStatus.WITHHELD)  # type: ignore[type-var]


def project(one: dict[str, object], groups: frozenset[FieldGroup] | None = None) -> dict[str, object]:
    """The values of an entry that matter, of the permitted groups; empty ones as if absent."""
    shown = {"version": one["version"]}
    for group, columns in GROUP_COLUMNS.items():
        for column in columns:
            if (groups is None or group in groups) and one.get(column):
                shown[column] = one[column]
    return shown


if __name__ == "__main__":
    import argparse
    import tempfile

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seed", type=int)
    parser.add_argument("--steps", type=int, default=60)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        world = World(Path(place), arguments.seed)
        try:
            world.run(arguments.steps)
        finally:
            print("\n".join(world.log))
