"""A hub is lost after ten days of work and lives on from its backup of ten days ago, while work goes on; beside it the
same story in which nothing was ever lost. In the end both have the same entries, at the hub and at every partner.
"""

from __future__ import annotations

import asyncio
import random
import threading
from dataclasses import dataclass, field
from pathlib import Path

from disaster import back_up, founded, restored
from factory import FakeClock, drafts, enrol, make_node, make_set
from gateway.errors import ConflictError, OverloadedError
from gateway.exchange import Exchange, erasing, listfile
from gateway.keyadmin import export_card
from partner_simulator import Network, held_entries

HUB, NEAR, AWAY = "XA-NCVI", "XB-NCVI", "XC-NCVI"
NAME = f"{HUB}/identified"
DAYS = 10
DEEDS_A_DAY = 6
FIRST_ENTRIES = 500
WHILE_BACK = 20  # deeds while partners come to the hub that is back
DAY_SECONDS = 86_400
TRIES = 50  # of a sync that meets a deed of the hub: each gives way to the other
Content = dict[bytes, object]


@dataclass
class Story:
    """One hub with two followers, and the deeds that a seed gives."""

    folder: Path
    seed: int
    clock: FakeClock = field(default_factory=FakeClock)
    network: Network = field(default_factory=Network)
    known: int = 0

    def __post_init__(self) -> None:
        self.source = random.Random(self.seed)
        self.folder.mkdir()
        node = founded(self.folder, HUB, self.clock, page_changes=256)
        self.network.join(node)
        for agency in (NEAR, AWAY):
            peer = make_node(self.folder, agency, clock=self.clock, page_changes=256)
            self.network.join(peer)
            enrol(node, export_card(peer))
            enrol(peer, export_card(node))
        make_set(self.hub, "identified", drafts(FIRST_ENTRIES))
        self.known = FIRST_ENTRIES
        self.sync(NEAR, AWAY)

    @property
    def hub(self) -> Exchange:
        """The hub as it is now."""
        return self.network.members[HUB]

    def ten_days(self) -> None:
        """Work, and partners that come when they come; the near one comes last, so that somebody has seen all."""
        for _ in range(DAYS):
            for _ in range(DEEDS_A_DAY):
                self.deed()
                if self.source.random() < 0.3:
                    self.sync(NEAR)
                if self.source.random() < 0.1:
                    self.sync(AWAY)
            self.clock.advance(DAY_SECONDS)
        self.sync(NEAR)

    def deed(self) -> None:
        """Entries are added, told more of, or withdrawn."""
        kind, count = self.source.random(), self.source.randrange(1, 60)
        if kind < 0.5:
            self._import(self.known, count)
            self.known += count
        elif kind < 0.75:
            first = self.source.randrange(self.known)
            self._import(first, min(count, self.known - first), series=f"Door {self.source.randrange(9)}")
        else:
            chosen = {f"ref-{self.source.randrange(self.known)}" for _ in range(count // 6 + 1)}
            digests = {one.digests["sha256"] for ref in chosen for one in drafts(1, first=int(ref[4:]))}
            gone = [entry for entry, one in held_entries(self.hub, NAME).items() if one["sha256"] in digests]
            if gone:
                self.hub.ledger.withdraw(NAME, sorted(gone), actor="tester", reason="wrong")

    def _import(self, first: int, count: int, **fields: str) -> None:
        self.hub.ledger.import_entries(NAME, drafts(count, first=first, **fields), actor="tester", form="test")

    def work_while_partners_come(self) -> None:
        """Deeds of the hub in one thread, partners in another."""
        failed: list[BaseException] = []

        def work() -> None:
            try:
                for _ in range(WHILE_BACK):
                    self.deed()
            except BaseException as error:  # told to the thread that waits
                failed.append(error)

        worker = threading.Thread(target=work)
        worker.start()
        while worker.is_alive():
            self.sync(NEAR)
            self.sync(AWAY)
        worker.join()
        if failed:
            raise failed[0]

    def sync(self, *partners: str) -> None:
        """These partners come."""
        for partner in partners:
            for _ in range(TRIES):
                try:
                    asyncio.run(self.network.sync(partner, HUB).sync())
                    break
                except (ConflictError, OverloadedError):
                    continue  # the hub has moved on meanwhile

    def content(self, agency: str) -> Content:
        """What an agency holds, by digest."""
        held = held_entries(self.network.members[agency], NAME).values()
        return {bytes(one["sha256"]): one.get("series") or "" for one in held}  # type: ignore[call-overload]

    def close(self) -> None:
        """Close every database."""
        for one in self.network.members.values():
            one.node.store.close()


def restore(folder: Path, seed: int) -> str:
    """The story twice; what came back, in one line."""
    lost, whole = Story(folder / "lost", seed), Story(folder / "whole", seed)
    try:
        file = back_up(lost.hub.node, folder / "hub.age")
        for story in (lost, whole):
            story.ten_days()
        before = lost.content(HUB)
        assert before == whole.content(HUB)
        with lost.hub.node.store.reading() as tx:  # docs/backups.md: this list is kept beside the offline key
            withdrawn = b"".join(listfile.dump(lost.hub.node, tx.never_again.since()))
        lost.hub.node.store.close()
        lost.network.join(restored(file, folder / "back", lost.clock))
        erasing.take_in(lost.hub.node, withdrawn)
        lost.hub.epochs.carry()
        old = lost.content(HUB)
        # What partners have seen withdrawn comes first, so the same deeds meet the same entries.
        lost.sync(NEAR)
        assert lost.content(HUB) == before, "what a partner had seen is not all back"
        for story in (lost, whole):
            story.work_while_partners_come()
            story.sync(NEAR, AWAY)
        expected = whole.content(HUB)
        for agency in (HUB, NEAR, AWAY):
            assert lost.content(agency) == expected, f"{agency} does not hold what it would have held"
            assert agency == HUB or lost.network.members[agency].mirrors.equality(NAME) == "equal"
    finally:
        lost.close()
        whole.close()
    return f"{len(old):,} entries in the backup, {len(before):,} when it was lost, {len(expected):,} in the end"
