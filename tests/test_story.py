"""One child, five agencies: from a hotline's report to the country that finds her, and to everybody else's lists.

Told once, in order, over five gateways that know each other. Every person, place and law is invented.
"""

from __future__ import annotations

import asyncio
import runpy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date
from itertools import combinations
from pathlib import Path

import pytest

from chain import ACTIONS, ALL, agreement, policy_folder
from factory import FakeClock, SeededRandom, befriend, make_node, make_set, signed_card_of
from gateway.adapters.cases import CaseOptions, read_cases
from gateway.approvals import DONE
from gateway.caserecord import Clue, ClueKind, ClueSource, Contact, Place, StatusStep
from gateway.cases import Statements
from gateway.cases.assertions import Wish
from gateway.cases.custody import Verdict, chain
from gateway.cases.threads import Saying
from gateway.crypto.keys import SigningKey
from gateway.exchange import Exchange
from gateway.exchange.lookup import Verdict as Answer
from gateway.exchange.lookup import verdict
from gateway.keyadmin import approvals, bootstrap_administrator
from gateway.keystore import PersonalKey
from gateway.model import AdapterReport, EntryDraft, HandlingCode, Purpose, VictimStatus
from partner_simulator import Network

XA, XB, XC, XD, XE = ALL
HERE = Path(__file__).parent
REPORT = HERE / "data_adapters" / "hotline.xml"
VERIFY = runpy.run_path(str(HERE.parent / "scripts" / "verify_certificate.py"))["main"]
MD5 = "462d283d443ab2b6f256a6b5b2c7f104"  # what the hotline says of the file; nobody here has seen it
CASES = ("share_case_summary", "share_clues", "share_persons", "share_contact", "look_up", "refer")
ONE, TWO = (PersonalKey(name, SigningKey.generate(SeededRandom(name))) for name in ("one", "two"))
COURT = "Harbourtown district court, 12 Kls 34/26"
LAW = "XA Police Data Act 2019, section 12"


@dataclass
class World:
    """Five gateways, each with each other."""

    network: Network
    clock: FakeClock

    def __getitem__(self, agency: str) -> Exchange:
        return self.network.members[agency]

    def sync(self, *followers: str) -> None:
        """These follow everybody, as the schedule would; until nothing is on its way any more."""
        for _ in range(2):
            for one in followers:
                for other in ALL:
                    if one != other:
                        asyncio.run(self.network.sync(one, other).sync())

    def post(self) -> None:
        """What must be told at once is: messages alone."""
        for _ in range(3):
            for one in ALL:
                for other in ALL:
                    if one != other:
                        asyncio.run(self.network.sync(one, other).exchange_mail())

    def answer(self, agency: str, digest: str = MD5) -> Answer:
        """What an analyst there reads of a digest."""
        found = self[agency].lookup.find([digest], actor=agency)
        said = [remark for hit in found for remark in hit.remarks]
        if any("identified" in one for one in said):
            return Answer.IDENTIFIED
        return verdict(hit.verdict for hit in found)

    def sought(self, agency: str) -> int:
        """How many entries there are still on the analysts' list."""
        return len(self[agency].statuses.worklist().shown)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    clock = FakeClock()
    pairs = list(combinations(ALL, 2))
    folder = policy_folder(tmp_path / "policies", ALL, pairs)
    for one, other in pairs:
        for us, them in ((one[:2], other[:2]), (other[:2], one[:2])):
            text = agreement(us, them, actions=(*ACTIONS, *CASES))
            (folder / us / f"agreement-{them.lower()}.cedar").write_text(text, encoding="utf-8")
    nodes = [
        make_node(tmp_path, name, clock=clock, policies=str(folder), case_duty_contact=f"{name} duty, +990 1")
        for name in ALL
    ]
    befriend(*nodes)
    network = Network()
    for node in nodes:
        network.join(node)
    yield World(network, clock)
    for node in nodes:
        node.store.close()


def test_a_childs_way_from_a_hotlines_report_to_everybodys_lists(world: World, tmp_path: Path) -> None:
    xa, xb, xd = world[XA], world[XB], world[XD]

    # 1. XB has had the picture for a year, and looks for the child; all but XE follow its list. Nobody knows her.
    seen = [EntryDraft({"md5": bytes.fromhex(MD5)}, source_ref="b-1", victim_status=VictimStatus.UNIDENTIFIED)]
    make_set(xb, "sought", seen)
    world.sync(XA, XB, XC, XD)
    assert world.answer(XB) is Answer.UNIDENTIFIED
    assert world.answer(XC) is Answer.UNIDENTIFIED
    assert world.sought(XB) == 1

    # 2. A hotline reports to XA. The report's files are never opened; its digests come along.
    losses = AdapterReport("hotline")
    options = CaseOptions(XA, read_at=world.clock())
    with REPORT.open("rb") as source:
        [record, *_] = read_cases(source, "hotline", losses, options=options)
    assert losses.dropped_fields, "what is not carried is told"
    assert record.missing, "and nothing that law needs is guessed"
    [taken] = xa.cases.take_in([record], form="hotline")
    assert [row.id for row in xa.cases.inbox()] == [taken.case]

    # 3. A person states what the law needs; an analyst reads the background of the picture.
    stated = Statements(
        handling=HandlingCode.H1,
        category="xa:1",
        evaluation="B2",
        legal_basis=LAW,
        purpose=Purpose.VICTIM_IDENTIFICATION,
        review_on=date(2027, 6, 1),
        contact=Contact("XA victim identification", duty_telephone="+990 1 200"),
    )
    lacking = set(xa.cases.get(taken.case).record.missing)
    xa.cases.complete(taken.case, Statements(**{name: getattr(stated, name) for name in lacking}))
    held = xa.cases.get(taken.case).record
    victim = held.victims[0]
    analysed = replace(
        held,
        version=held.version + 1,
        updated=world.clock() + 60,
        clues=(*held.clues, Clue(ClueKind.PRODUCT, "a light switch as sold in XD", 80, ClueSource.ANALYST)),
        onward=("XB", "XC", "XD", "XE"),  # XA lets whoever works on the case tell these
        places=(*held.places, Place("XD", "", "a town with trams", 80, ClueSource.ANALYST)),
        victims=(
            replace(victim, history=(StatusStep(VictimStatus.UNIDENTIFIED, XA, world.clock()),)),
            *held.victims[1:],
        ),
    )
    world.clock.advance(60)
    xa.cases.take_in([analysed], form="case_json", update=True)

    # 4. The gateway says where it points; a person refers it. The case is there today.
    pointers = {one.partner: one for one in xa.referrals.proposals()}
    assert set(pointers) == {XD}
    assert pointers[XD].confidence == 80
    xa.referrals.refer(taken.case, XD, urgent=True)
    world.post()
    [there] = xd.cases.inbox()
    arrived = xd.cases.get(there.id).record
    assert any("light switch" in clue.text for clue in arrived.clues)
    xd.talk.read(there.id)
    xd.talk.accept(there.id)
    xd.talk.say(there.id, "Is there a tram line in any of the pictures?", Saying.ASK)
    world.post()
    xa.talk.say(taken.case, "Line 4, green.")
    world.post()
    assert [one.text for one in xd.talk.lines(there.id) if one.way == "in" and one.text][-1] == "Line 4, green."

    # 5. XD finds her. Whoever may know and holds any of it is told at once, and stops.
    child = arrived.victims[0].ref
    done = xd.statuses.set_victim(there.id, child, Wish(VictimStatus.IDENTIFIED, contact="XD duty, +990 4"), actor=XD)
    assert {XA, XB} <= set(done.told.partners)
    world.post()
    for agency in (XA, XB, XD):
        assert world.answer(agency) is Answer.IDENTIFIED, agency
    assert world.sought(XB) == 0, "her list is one shorter"
    [entry] = [hit for hit in xb.lookup.find([MD5], actor=XB) if hit.set_name == f"{XB}/sought"]
    assert entry.attributes["victim_status"] == VictimStatus.UNIDENTIFIED, "XB's own word is XB's to change"

    # 6. XD lists her among the identified. XE, who holds none of it, asks XD, and is answered as policy has it; whoever
    # follows XD has the entry at the next sync.
    assert ask(world, XE, XD) == set()
    found = [EntryDraft({"md5": bytes.fromhex(MD5)}, source_ref="d-1", victim_status=VictimStatus.IDENTIFIED)]
    make_set(xd, "identified-victims", found)
    assert ask(world, XE, XD) == {VictimStatus.IDENTIFIED}
    world.sync(*ALL)
    assert all(world.answer(agency) is Answer.IDENTIFIED for agency in ALL)

    # 7. A court wants to know that a real child is behind the picture. Two administrators certify it; no name is in it.
    for key in (ONE, TWO):
        if key is ONE:
            bootstrap_administrator(xd.node, key.name, key.signing_key.public)
    act = xd.statuses.certificates.issue_for(done.assertion.id, COURT)
    desk = approvals(xd.node)
    assert desk.sign(desk.propose(*act, by=ONE.name), ONE).state == DONE
    [issued] = xd.statuses.certificates.all()
    (tmp_path / "certificate").write_bytes(issued.file)
    (tmp_path / "card").write_bytes(signed_card_of(xd.node))
    assert VERIFY([str(tmp_path / "certificate"), "--card", str(tmp_path / "card")]) == 0
    assert child.encode() not in issued.file

    # 8. And the case's own way is proved, step by step, at both ends.
    for exchange, case in ((xa, taken.case), (xd, there.id)):
        custody = chain(exchange.node, case)
        assert custody.verdict is not Verdict.BROKEN
        assert len(custody.steps) >= 3


def ask(world: World, here: str, there: str) -> set[VictimStatus]:
    """What a partner answers of the digest over the wire."""
    asker, answerer = world[here], world[there]
    plan = asker.asking.plan(there, [MD5], Purpose.VICTIM_IDENTIFICATION, None)
    said = set()
    for asked in plan.questions:
        sealed, _ = answerer.look_up_for(here, asker.look_up_question(there, asked))
        answer = asker.look_up_answer(there, asked, sealed)
        said |= {VictimStatus(one.status) for _, told, _ in asked.answers(answer) for one in told}
    return said
