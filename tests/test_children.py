"""Children of cases: who works on a case is told, the worklist follows, and nothing goes further than the case did."""

from __future__ import annotations

from pathlib import Path

import pytest

from case_builders import VICTIM, case_record
from factory import FakeClock, drafts, events
from gateway.audit import EventKind
from gateway.caserecord import EntryReference, StatusStep, Victim
from gateway.cases.assertions import Wish
from gateway.errors import GatewayError, NotFoundError
from gateway.exchange import Exchange
from gateway.model import EntryDraft, VictimStatus
from partner_simulator import Network, refused
from test_identifying import everybody_follows, everybody_syncs, mesh, own

FOUND, MISTAKE = Wish(VictimStatus.IDENTIFIED), Wish(VictimStatus.UNIDENTIFIED, "another child")
DIGEST = bytes(range(32))


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def three(tmp_path: Path, clock: FakeClock) -> tuple[Network, str]:
    """XA has a case with one child and has referred it to XB; XC has the same picture in a set of its own."""
    network = mesh(tmp_path, clock, 3, extra=("refer", "share_case_summary", "share_clues"))
    xa, _, xc = network.members.values()
    xc.ledger.import_entries(own(xc), [EntryDraft({"sha256": DIGEST}, source_ref="c")], actor="tester", form="test")
    everybody_follows(network)
    case = import_case(xa, "K-1")
    xa.referrals.refer(case, "XB-NCVI")
    everybody_syncs(network, 1)
    return network, case


def import_case(exchange: Exchange, reference: str, **changes: object) -> str:
    record = case_record(exchange.node.agency, reference=reference, **changes)
    return exchange.cases.take_in([record], form="test")[0].case


def looked_for(exchange: Exchange) -> list[str]:
    return [one.victim for one in exchange.statuses.worklist().children]


def known(exchange: Exchange) -> tuple[str, ...]:
    with exchange.node.store.reading() as tx:
        found = exchange.statuses.known_status(tx, [("sha256", DIGEST)])
    return (str(found[0].joined.status), *(one.agency for one in found[0].joined.by)) if found else ()


def test_an_identification_of_a_case_goes_to_whoever_has_the_case_or_the_material(
    tmp_path: Path, clock: FakeClock
) -> None:
    network, case = three(tmp_path, clock)
    xa, xb, xc = network.members.values()
    assert [looked_for(one) for one in (xa, xb)] == [[VICTIM], [VICTIM]]
    done = xa.statuses.set_victim(case[:8], VICTIM, FOUND, actor="tester")
    assert done.told.partners == ("XB-NCVI", "XC-NCVI")
    assert done.series == ("Blue Door",)
    everybody_follows(network)
    assert [looked_for(one) for one in (xa, xb)] == [[], []]
    assert {known(one) for one in (xa, xb, xc)} == {("identified", "XA-NCVI")}
    xa.statuses.set_victim(case, VICTIM, MISTAKE, actor="tester")
    everybody_syncs(network)
    assert [looked_for(one) for one in (xa, xb)] == [[VICTIM], [VICTIM]]


def test_who_got_a_case_tells_its_originator_and_whoever_lists_the_material_as_their_own(
    tmp_path: Path, clock: FakeClock
) -> None:
    network, _ = three(tmp_path, clock)
    xa, xb, xc = network.members.values()
    [theirs] = xb.cases.all()
    done = xb.statuses.set_victim(theirs.id, VICTIM, FOUND, actor="tester")
    assert done.told.partners == ("XA-NCVI", "XC-NCVI")
    everybody_follows(network)
    assert known(xa) == known(xc) == ("identified", "XB-NCVI")
    assert looked_for(xa) == []
    # XC hears a word of XB's own on an entry of XC's. That there is a case of XA's is for XA to tell.
    assert xc.cases.all() == []
    [told] = [one.details for one in events(xb.node, EventKind.STATUS_SHARED) if one.subject == "XC-NCVI"]
    assert told["outcome"] == "allow"


def test_of_a_case_with_several_children_only_the_child_itself_counts(tmp_path: Path, clock: FakeClock) -> None:
    network = mesh(tmp_path, clock, 2)
    everybody_follows(network)
    xa = network.members["XA-NCVI"]
    found = Victim("V-3", (StatusStep(VictimStatus.CLOSED, "XA-NCVI", clock() - 5),))
    several = (Victim("V-1"), Victim("V-2"), found)
    entries = (EntryReference(digests=(("sha256", DIGEST),)),)
    case = import_case(xa, "K-2", victims=several, entries=entries)
    done = xa.statuses.set_victim(case, "V-2", FOUND, actor="tester")
    assert done.told.partners == ()
    assert looked_for(xa) == ["V-1"]
    assert known(xa) == ()
    assert isinstance(refused(lambda: xa.statuses.set_victim(case, "V-9", FOUND, actor="x")), NotFoundError)
    assert xa.statuses.assertion_of(case, "V-2") == done.assertion.id
    assert isinstance(refused(lambda: xa.statuses.assertion_of(case, "V-1")), NotFoundError)


def test_a_case_that_lacks_what_law_needs_tells_nobody(tmp_path: Path, clock: FakeClock) -> None:
    network = mesh(tmp_path, clock, 2)
    xa = network.members["XA-NCVI"]
    xa.ledger.import_entries(own(xa), drafts(1, first=90), actor="tester", form="test")
    case = import_case(xa, "K-3", legal_basis="")
    assert isinstance(refused(lambda: xa.statuses.set_victim(case, VICTIM, FOUND, actor="x")), GatewayError)
    with xa.node.store.reading() as tx:
        assert tx.statuses.all() == []


def test_a_case_is_certified_with_all_its_digests(tmp_path: Path, clock: FakeClock) -> None:
    network = mesh(tmp_path, clock, 2)
    xa = network.members["XA-NCVI"]
    case = import_case(xa, "K-4")
    number = xa.statuses.set_victim(case, VICTIM, FOUND, actor="tester").assertion.id
    act, arguments = xa.statuses.certificates.issue_for(number[:10], "court 7")
    assert (act, arguments["assertion"]) == ("certificate_issue", number)
