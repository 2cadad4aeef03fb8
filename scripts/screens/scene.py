"""Three gateways after a month of exchange, as the pictures show them: names, digests, places, cases are invented."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from console_browser import console_node, personal
from factory import FakeClock, befriend, drafts, loopback, make_node, make_set
from gateway import alarms, standing
from gateway.caserecord import (
    CaseRecord,
    Clue,
    ClueKind,
    ClueSource,
    Contact,
    EntryReference,
    Place,
    StatusStep,
    Urgency,
    Victim,
)
from gateway.errors import PartnerError
from gateway.exchange import Exchange
from gateway.keyadmin import approvals, remove_administrator, set_quorum
from gateway.logsearch import LogSearch
from gateway.model import HandlingCode, Purpose, VictimStatus
from partner_simulator import Network

XA, XB, XC = "XA-NCVI", "XB-NCVI", "XC-NCVI"
DAYS = 30
DAY_SECONDS = 86_400
FIRST = 400  # entries of a set at its beginning
ABOUT = (17, 23, 9, 31, 12, 3, 2)  # entries that come to a set in a day, over a week
STATUSES = (VictimStatus.IDENTIFIED, VictimStatus.UNIDENTIFIED, VictimStatus.LEAD)
LAW = "XA Police Data Act 2019, section 12"


@dataclass
class Scene:
    """The gateway whose console is shown, and the two that it exchanges with."""

    network: Network
    clock: FakeClock

    @property
    def exchange(self) -> Exchange:
        """The gateway whose console is shown."""
        return self.network.members[XA]

    def screens(self) -> Mapping[str, str]:
        """Every screen, by the name of its picture."""
        [case] = [one.id for one in self.exchange.cases.all() if one.state == "open" and one.urgency == "priority"]
        with self.exchange.node.store.reading() as tx:
            key = tx.keys.own()[0].key_id
        return {
            "now": "/",
            "partners": "/partners",
            "partner": f"/partners/{XB}",
            "keys": "/keys",
            "key": f"/keys/{key}",
            "policy": "/policy",
            "policy-history": "/policy/history",
            "approvals": "/approvals",
            "log": f"/log?partner={XB}",
            "entry": f"/log/entry/{self._shared()}",
            "unaltered": "/log/unaltered",
            "sample": "/log/sample?seed=autumn&count=10",
            "statistics": "/statistics",
            "cases": "/cases",
            "case": f"/cases/{case}",
            "refer": f"/cases/{case}/refer?partner={XB}",
            "look-up": "/look-up",
            "sync": "/sync",
            "people": "/people",
            "me": "/me",
        }

    def close(self) -> None:
        """Close every database."""
        for one in self.network.members.values():
            one.node.store.close()

    def _shared(self) -> int:
        """An entry of the log that says what a partner was sent, and is under a checkpoint that one cosigned."""
        found = LogSearch(self.exchange.node).find({"kind": "page_served", "partner": XB}).leaves
        return found[len(found) // 2].index


def in_use(folder: Path) -> Scene:
    """A month of exchange has passed; XC has been silent for two days."""
    clock = FakeClock()
    duty = {"case_duty_contact": "duty officer, +990 1"}
    xa = console_node(folder, XA, administrators=("alice", "bob"), clock=clock, **duty)
    nodes = [xa, *(make_node(folder, name, clock=clock, **duty, **loopback()) for name in (XB, XC))]
    befriend(*nodes)
    network = Network()
    for node in nodes:
        network.join(node)
    scene = Scene(network, clock)
    sets = {name: make_set(network.members[name], "identified-victims", drafts(0)) for name in (XA, XB, XC)}
    for day in range(DAYS):
        if day == DAYS - 2:
            network.offline.add(XC)
        for place, (name, listed) in enumerate(sets.items()):
            _import(network.members[name], listed, place, day)
        _sync(network)
        clock.advance(DAY_SECONDS)
    _cases(scene)
    _proposals(scene)
    _sync(network)
    alarms.sweep(xa)
    LogSearch(xa).catch_up(1_000)
    standing.keep_house(xa)
    return scene


def asked() -> list[str]:
    """Digests that an analyst has before them: some are listed, some are not."""
    known = [hashlib.sha256(f"made-up {number}".encode()).hexdigest() for number in range(0, 60, 7)]
    return known + [hashlib.sha256(f"of a case {number}".encode()).hexdigest() for number in range(5)]


def _import(exchange: Exchange, listed: str, place: int, day: int) -> None:
    first = 10_000 * place + FIRST * bool(day) + 50 * day
    count = FIRST if day == 0 else ABOUT[(day + 2 * place) % len(ABOUT)]
    for number, status in enumerate(STATUSES):
        some = drafts(count // len(STATUSES), first=first + number * count, victim_status=status)
        exchange.ledger.import_entries(listed, some, actor=exchange.node.agency, form="hash_csv")


def _sync(network: Network) -> None:
    """Everybody's schedule runs once with everybody who can be reached."""
    for here in (XB, XC):
        for there in (XA, XB, XC):
            if here != there and not {here, there} & network.offline:
                asyncio.run(network.sync(here, there).sync())
    schedule = network.schedule(XA)
    schedule.plan()
    for there in (XB, XC):
        with suppress(PartnerError):  # noted by the schedule: that is what the picture shows
            asyncio.run(schedule.run_now(there))


def _cases(scene: Scene) -> None:
    own = scene.exchange
    records = [
        _case(scene, XA, 41, Urgency.PRIORITY, "a lamp-post with a green band, and a tram in the distance"),
        _case(scene, XA, 42, Urgency.ROUTINE, "a blue door with a brass handle"),
        _case(scene, XA, 43, Urgency.ROUTINE, "wallpaper with kites", law=""),
    ]
    own.cases.take_in(records, form="case_json")
    theirs = scene.network.members[XB]
    record = _case(scene, XB, 7, Urgency.CHILD_AT_RISK, "a bus timetable of a town by the sea")
    [taken] = theirs.cases.take_in([record], form="case_json")
    theirs.referrals.refer(taken.case, XA)


def _case(scene: Scene, agency: str, number: int, urgency: Urgency, clue: str, *, law: str = LAW) -> CaseRecord:
    now = scene.clock() - number * 3_600
    return CaseRecord(
        agency,
        f"{agency[:2]}-2026-{number:04}",
        1,
        opened=now - 9 * DAY_SECONDS,
        updated=now,
        handling=HandlingCode.H1,
        category=f"{agency[:2].lower()}:1",
        evaluation="B2",
        legal_basis=law.replace("XA", agency[:2]),
        purpose=Purpose.VICTIM_IDENTIFICATION,
        review_on=date(2027, 6, 1),
        urgency=urgency,
        summary="found by a hotline",
        victims=(Victim("V-1", (StatusStep(VictimStatus.UNIDENTIFIED, agency, now - 8 * DAY_SECONDS),)),),
        clues=(Clue(ClueKind.OBJECT, clue, 80, ClueSource.ANALYST),),
        places=(Place("XB", "", "a town with trams", 80, ClueSource.ANALYST),),
        entries=(EntryReference(digests=(("sha256", hashlib.sha256(f"of a case {number}".encode()).digest()),)),),
        contact=Contact(f"{agency[:2]} victim identification", duty_telephone="+990 1 234"),
    )


def _proposals(scene: Scene) -> None:
    desk = approvals(scene.exchange.node)
    desk.propose(*remove_administrator("bob", "moves to another unit"), by="alice")
    identifier = desk.propose(*set_quorum(2), by="bob")
    desk.sign(identifier, personal("bob"))
