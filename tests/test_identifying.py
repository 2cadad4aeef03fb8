"""An identification is told to whom it concerns, marks nobody else's entries, and can be taken back from everybody."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import pytest

from chain import ACTIONS, agreement, policy_folder, set_rules
from factory import (
    FakeClock,
    SeededRandom,
    befriend,
    card_of,
    drafts,
    enrol,
    events,
    make_node,
    make_set,
    open_node,
    sha256,
)
from gateway.alarms import AlarmKind, sweep
from gateway.audit import EventKind
from gateway.cases import assertions, lines
from gateway.cases.assertions import Done, Wish
from gateway.crypto.keys import SigningKey
from gateway.errors import ConflictError, DeniedError, MalformedError, NotFoundError
from gateway.exchange import Exchange
from gateway.exchange.erasing import erase
from gateway.exchange.lookup import format_entry
from gateway.keyadmin import approvals, bootstrap_administrator
from gateway.keylife import DAY_SECONDS
from gateway.keystore import PersonalKey
from gateway.model import EntryDraft, VictimStatus
from partner_simulator import Network, held_entries, refused

IDENTIFIED, UNIDENTIFIED = VictimStatus.IDENTIFIED, VictimStatus.UNIDENTIFIED
FOUND = Wish(IDENTIFIED, contact="Victim identification unit, +99 555 0100")
ONE = PersonalKey("one", SigningKey.generate(SeededRandom("one")))
MISTAKE = Wish(UNIDENTIFIED, "another child")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def mesh(tmp_path: Path, clock: FakeClock, count: int, extra: tuple[str, ...] = (), *, quorum: int = 1) -> Network:
    """So many gateways that all know each other, each with twelve entries, the same ones, in a set of its own."""
    agencies = [f"X{letter}-NCVI" for letter in "ABCDE"[:count]]
    folder = policy_folder(tmp_path / "policies", agencies, itertools.combinations(agencies, 2))
    for us, them in itertools.permutations((name[:2] for name in agencies), 2):
        text = agreement(us, them, actions=(*ACTIONS, "share_contact", *extra))
        (folder / us / f"agreement-{them.lower()}.cedar").write_text(text, encoding="utf-8")
    nodes = [make_node(tmp_path, name, clock=clock, policies=str(folder), quorum=quorum) for name in agencies]
    befriend(*nodes)
    network = Network()
    for node in nodes:
        make_set(network.join(node), "found", drafts(12, series="Blue Door", victim_status=UNIDENTIFIED))
    return network


def everybody_follows(network: Network) -> None:
    """Everybody has everybody's sets, and all mail."""
    for here, there in itertools.permutations(network.members, 2):
        asyncio.run(network.sync(here, there).sync())


def everybody_syncs(network: Network, rounds: int = 2) -> None:
    """Everybody's mail is where it belongs, as far as anybody can be reached."""
    for _ in range(rounds):
        for here, there in itertools.permutations(network.members, 2):
            if not {here, there} & network.offline:
                asyncio.run(network.sync(here, there).exchange_mail())


def member(network: Network, letter: str) -> Exchange:
    return network.members[f"X{letter}-NCVI"]


def entries(exchange: Exchange, *numbers: int) -> list[str]:
    """The ids of the made-up entries with these numbers in the exchange's own set."""
    wanted = {sha256(f"made-up {number}") for number in numbers}
    held = held_entries(exchange, own(exchange))
    return [format_entry(entry) for entry, one in held.items() if one["sha256"] in wanted]


def own(exchange: Exchange) -> str:
    return f"{exchange.node.agency}/found"


def set_status(exchange: Exchange, wish: Wish, *numbers: int, series: tuple[str, ...] = ()) -> Done:
    named = entries(exchange, *(numbers or (0,)))
    return exchange.statuses.set_entries(own(exchange), named, wish, series=series, actor="tester")


def status(exchange: Exchange, number: int = 0) -> tuple[str, list[str]]:
    """What is known of a made-up digest: the status, and by whom."""
    with exchange.node.store.reading() as tx:
        found = exchange.statuses.known_status(tx, [("sha256", sha256(f"made-up {number}"))])
    if not found:
        return "", []
    return str(found[0].joined.status), [one.agency[:2] for one in found[0].joined.by]


def sought(exchange: Exchange) -> int:
    return exchange.statuses.worklist().counts.get(own(exchange), 0)


def alarms(exchange: Exchange, kind: AlarmKind) -> int:
    sweep(exchange.node)
    with exchange.node.store.reading() as tx:
        return sum(row.kind == kind and not row.closed for row in tx.alarms.all())


def told(exchange: Exchange, done: Done) -> dict[str, tuple[str, bool]]:
    with exchange.node.store.reading() as tx:
        rows = tx.statuses.told(done.assertion.id)
    return {row.partner[:2]: (row.status, bool(row.due and not row.answered)) for row in rows}


def test_every_holder_is_told_and_its_worklist_shrinks(tmp_path: Path, clock: FakeClock) -> None:
    network = mesh(tmp_path, clock, 3)
    xa, xb = member(network, "A"), member(network, "B")
    everybody_follows(network)
    before = held_entries(xb, own(xb))
    assert [sought(one) for one in network.members.values()] == [12, 12, 12]
    done = set_status(xa, FOUND, 0, 1)
    assert done.told.partners == ("XB-NCVI", "XC-NCVI")
    assert done.series == ("Blue Door",)  # a person is asked whether all of it shows this child
    assert sought(xa) == 10
    everybody_syncs(network, 1)
    assert [sought(one) for one in network.members.values()] == [10, 10, 10]
    assert held_entries(xb, own(xb)) == before  # what XA says is XA's word; our entries are ours
    assert status(xb) == ("identified", ["XA"])
    with xb.node.store.reading() as tx:
        assert xb.statuses.known_status(tx, [("sha256", sha256("made-up 0"))])[0].contacts == (
            ("XA-NCVI", FOUND.contact),
        )
        assert xb.statuses.known_status(tx, [("sha256", sha256("made-up 5")), ("pdq", sha256("x"))]) == {}
    hits = xb.lookup.find([sha256("made-up 0").hex(), sha256("made-up 5").hex()], actor="tester")
    said = {(hit.query, *hit.remarks) for hit in hits}
    assert {(query, *lines[1:]) for query, *lines in said} == {
        (0, f"identified by XA-NCVI since 2026-11-18, {FOUND.contact}"),
        (1,),
    }
    known = {(hit.verdict, hit.who, hit.contact) for hit in hits if hit.query == 0}
    assert known == {("identified", "XA-NCVI", FOUND.contact)}


def test_whoever_may_not_know_the_status_is_not_told_and_that_is_on_record(tmp_path: Path, clock: FakeClock) -> None:
    network = mesh(tmp_path, clock, 3)
    everybody_follows(network)
    xa = member(network, "A")
    allowed = [one for one in ACTIONS if one != "share_victim_status"]
    set_rules(xa, "XB", agreement("XA", "XB", actions=allowed))
    set_rules(xa, "XC", agreement("XA", "XC", actions=[one for one in ACTIONS if "digests" not in one]))
    done = set_status(xa, FOUND)
    assert (done.told.partners, done.told.withheld) == (("XC-NCVI",), 1)
    everybody_syncs(network)
    assert status(member(network, "B")) == ("", [])
    with xa.node.store.reading() as tx:
        bodies = {row.kind: xa.mailbox.read(row) for row in tx.mail.sent_mail("XC-NCVI")}
    assert bodies["identification_notice"]["digests"] == []  # it follows the set, so the entry's id tells it which
    assert bodies["identification_notice"]["contact"] == ""
    mirror = [format_entry(entry) for entry in held_entries(member(network, "C"), own(xa))]
    with member(network, "C").node.store.reading() as tx:
        found = [member(network, "C").statuses.knowledge.of_entry(tx, own(xa), one)[1].joined.status for one in mirror]
    assert sorted(found) == ["identified", *["unknown"] * 11]
    said = {one.details["partner"]: one.details["outcome"] for one in events(xa.node, EventKind.STATUS_SHARED)}
    assert said == {"XB-NCVI": "deny", "XC-NCVI": "allow"}


def test_who_does_not_take_it_from_there_keeps_nothing_of_it(tmp_path: Path, clock: FakeClock) -> None:
    network = mesh(tmp_path, clock, 2)
    everybody_follows(network)
    xa, xb = member(network, "A"), member(network, "B")
    set_rules(xb, "XA", agreement("XB", "XA", actions=[one for one in ACTIONS if one != "receive"]))
    set_status(xa, FOUND)
    everybody_syncs(network, 1)
    assert status(xb) == ("", [])
    assert [one.details["error"] for one in events(xb.node, EventKind.MESSAGE_REFUSED)] == ["DeniedError"]


def test_who_holds_none_of_it_hears_nothing_until_it_does(tmp_path: Path, clock: FakeClock) -> None:
    network = mesh(tmp_path, clock, 2)
    xa, xb = member(network, "A"), member(network, "B")
    assert set_status(xa, FOUND).told.partners == ()
    xa.statuses.notices.tell_new_holders()
    everybody_follows(network)  # now both have each other's set
    assert status(xb) == ("", [])
    assert xa.statuses.notices.tell_new_holders() == 1
    assert xa.statuses.notices.tell_new_holders() == 0
    everybody_syncs(network, 1)
    assert status(xb) == ("identified", ["XA"])


def test_a_large_subject_goes_in_pieces_that_each_say_all(tmp_path: Path, clock: FakeClock) -> None:
    network = mesh(tmp_path, clock, 2)
    xa, xb = member(network, "A"), member(network, "B")
    xa.ledger.import_entries(own(xa), drafts(300, first=100), actor="tester", form="test")
    everybody_follows(network)
    set_status(xa, FOUND, *range(100, 400))
    with xa.node.store.reading() as tx:
        sent = [row for row in tx.mail.sent_mail("XB-NCVI") if row.kind == "identification_notice"]
    assert len(sent) > 3
    everybody_syncs(network, 1)
    assert {status(xb, number)[0] for number in range(100, 400)} == {"identified"}
    with xb.node.store.reading() as tx:
        [row] = tx.statuses.all("XA-NCVI")
        assert row.met == 300  # in the mirror of XA's set


def test_a_series_counts_where_a_person_says_that_all_of_it_shows_the_child(tmp_path: Path, clock: FakeClock) -> None:
    network = mesh(tmp_path, clock, 2)
    xa, xb = member(network, "A"), member(network, "B")
    more = [EntryDraft({"sha256": sha256(f"of XB {n}")}, source_ref=f"b-{n}", series="Blue Door") for n in range(3)]
    xb.ledger.import_entries(own(xb), more, actor="tester", form="test")
    everybody_follows(network)
    done = set_status(xa, FOUND, 0, series=("Blue Door",))
    assert done.series == ()
    everybody_syncs(network, 1)
    assert (sought(xa), sought(xb)) == (0, 0)
    with xb.node.store.reading() as tx:
        asked = [("sha256", sha256("of XB 1"))]
        assert xb.statuses.known_status(tx, asked) == {}
        assert xb.statuses.known_status(tx, asked, ["Blue Door"])[0].joined.is_found


def test_invented_data_and_a_partner_under_test_end_no_real_search(tmp_path: Path, clock: FakeClock) -> None:
    network = mesh(tmp_path, clock, 2, quorum=2)
    xa, xb = network.members.values()
    make_set(xa, "test-found", drafts(3, victim_status=UNIDENTIFIED))
    everybody_follows(network)
    [entry] = [format_entry(one) for one in sorted(held_entries(xa, "XA-NCVI/test-found"))][:1]
    done = xa.statuses.set_entries("XA-NCVI/test-found", [entry], FOUND, actor="tester")
    assert done.told.partners == ("XB-NCVI",)
    everybody_syncs(network, 1)
    assert status(xb) == ("", [])
    enrol(xb.node, card_of(xa.node), test=True)
    set_status(xa, FOUND, 5)
    everybody_syncs(network, 1)
    assert status(xb, 5) == ("", [])
    enrol(xa.node, card_of(xb.node), test=True)
    assert set_status(xa, FOUND, 6).told.partners == ()
    assert len(events(xb.node, EventKind.MESSAGE_REFUSED)) == 2


# Whose word it is


def test_each_agency_lowers_its_own_word_alone_and_with_a_reason(tmp_path: Path, clock: FakeClock) -> None:
    network = mesh(tmp_path, clock, 3)
    everybody_follows(network)
    xa, xb, xc = network.members.values()
    set_status(xa, FOUND)
    clock.advance(60)
    set_status(xb, FOUND)
    everybody_syncs(network)
    for exchange in (xa, xb, xc):
        assert status(exchange) == ("identified", ["XA", "XB"])
    assert isinstance(refused(lambda: set_status(xa, Wish(UNIDENTIFIED))), MalformedError)
    with xb.node.store.reading() as tx:
        [theirs] = tx.statuses.all("XA-NCVI")
    assert isinstance(refused(lambda: xb.statuses.change(theirs.number, MISTAKE, actor="x")), DeniedError)
    set_status(xa, MISTAKE)
    everybody_syncs(network)
    for exchange in (xa, xb, xc):
        assert status(exchange) == ("identified", ["XB"])


def test_entries_of_two_assertions_are_not_changed_at_once(tmp_path: Path, clock: FakeClock) -> None:
    network = mesh(tmp_path, clock, 2)
    xa = member(network, "A")
    first, second = set_status(xa, FOUND, 0), set_status(xa, FOUND, 1)
    assert first.assertion.id != second.assertion.id
    error = refused(lambda: set_status(xa, FOUND, 0, 1))
    assert isinstance(error, ConflictError)
    assert first.assertion.id[:12] in error.remedy
    grown = set_status(xa, FOUND, 1, 2)
    assert (grown.assertion.id, grown.before) == (second.assertion.id, IDENTIFIED)
    assert status(xa, 2) == ("identified", ["XA"])
    assert isinstance(
        refused(lambda: xa.statuses.set_entries(own(xa), ["0001-00000000ffff"], FOUND, actor="x")), NotFoundError
    )


# Taking back


def test_resume_reaches_all_who_were_told_also_those_who_may_no_longer_see_it(tmp_path: Path, clock: FakeClock) -> None:
    """One away for weeks, policy changed in between, restarts: each still searches again, and says so."""
    network = mesh(tmp_path, clock, 4)
    everybody_follows(network)
    xa, xb = member(network, "A"), member(network, "B")
    done = set_status(xa, FOUND)
    everybody_syncs(network, 1)
    network.offline.add("XD-NCVI")
    set_rules(xa, "XC", agreement("XA", "XC", actions=("receive",)))
    clock.advance(60)
    lowered = set_status(xa, MISTAKE)
    assert (lowered.told.partners, lowered.told.taken_back) == (("XB-NCVI", "XD-NCVI"), ("XC-NCVI",))
    with xa.node.store.reading() as tx:
        [bare] = [xa.mailbox.read(row) for row in tx.mail.sent_mail("XC-NCVI") if row.kind == "resume_search"]
    assert (bare["status"], bare["reason"]) == ("", "")  # nothing but that it is taken back
    assert set(bare) == {"assertion", "version", "at", "due", "reminder", "status", "reason"}
    everybody_syncs(network)
    assert told(xa, done)["XC"] == ("unidentified", False)
    assert told(xa, done)["XD"][1], "not before it has answered"
    assert [status(member(network, letter))[0] for letter in "ABCD"] == [*["unidentified"] * 3, "identified"]
    assert [alarms(member(network, letter), AlarmKind.SEARCH_RESUMED) for letter in "BCD"] == [1, 1, 0]
    for _ in range(30):
        clock.advance(DAY_SECONDS)
        xa.statuses.keep_house()
    assert alarms(xa, AlarmKind.RESUME_OVERDUE) == 1
    restart(network, "XA-NCVI")
    restart(network, "XD-NCVI")
    network.offline.clear()
    everybody_syncs(network)
    xa, xd = member(network, "A"), member(network, "D")
    assert (status(xd)[0], sought(xd)) == ("unidentified", 12)
    assert not told(xa, done)["XD"][1]
    assert alarms(xa, AlarmKind.RESUME_OVERDUE) == 0
    with xa.node.store.reading() as tx:
        reminders = [
            xa.mailbox.read(row)["reminder"] for row in tx.mail.sent_mail("XD-NCVI") if row.kind == "resume_search"
        ]
    assert sorted(reminders) == [0, 1, 2]
    assert sought(xb) == 12
    set_status(xa, FOUND)  # and found again after all: then it is told anew
    everybody_syncs(network)
    assert [sought(member(network, letter)) for letter in "ABCD"] == [11, 11, 12, 11]


def restart(network: Network, agency: str) -> None:
    old = network.members[agency].node
    texts = old.policies.texts
    old.store.close()
    node = open_node(old.settings, old.keystore, clock=old.clock, random=old.random)  # type: ignore[arg-type]
    node.policies.texts = texts
    network.join(node)


def test_a_lead_that_is_dropped_was_never_the_end_of_a_search(tmp_path: Path, clock: FakeClock) -> None:
    network = mesh(tmp_path, clock, 2)
    everybody_follows(network)
    xa, xb = member(network, "A"), member(network, "B")
    done = set_status(xa, Wish(VictimStatus.LEAD))
    everybody_syncs(network, 1)
    [one] = [one for one in xb.statuses.worklist().shown if one.by]
    assert (one.status, one.by) == (VictimStatus.LEAD, ("XA-NCVI",))
    set_status(xa, MISTAKE)
    everybody_syncs(network)
    assert status(xb) == ("unidentified", ["XA"])
    assert told(xa, done) == {"XB": ("unidentified", False)}
    assert alarms(xb, AlarmKind.SEARCH_RESUMED) == 0


def test_steps_upward_are_told_and_coming_down_to_identified_stops_no_search_anew(
    tmp_path: Path, clock: FakeClock
) -> None:
    network = mesh(tmp_path, clock, 2)
    everybody_follows(network)
    xa, xb = member(network, "A"), member(network, "B")
    for step in (VictimStatus.LEAD, IDENTIFIED, VictimStatus.SAFEGUARDED, VictimStatus.CLOSED):
        set_status(xa, Wish(step))
        everybody_syncs(network, 1)
        assert status(xb)[0] == step
    done = set_status(xa, Wish(IDENTIFIED, "closed too early"))
    everybody_syncs(network)
    assert status(xb)[0] == IDENTIFIED
    assert told(xa, done) == {"XB": ("identified", False)}
    assert alarms(xb, AlarmKind.SEARCH_RESUMED) == 0


def test_a_partner_that_asserts_without_end_fills_no_disk(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = mesh(tmp_path, clock, 2)
    everybody_follows(network)
    xa, xb = network.members.values()
    monkeypatch.setattr(assertions, "MAX_ASSERTIONS", 2)
    for number in range(3):
        set_status(xa, FOUND, number)
    set_status(xa, Wish(VictimStatus.CLOSED), 0)  # of what is known more is taken
    everybody_syncs(network, 1)
    assert [status(xb, number)[0] for number in range(3)] == ["closed", "identified", ""]
    monkeypatch.setattr(assertions, "MAX_MARKS", 1)
    set_status(xa, Wish(VictimStatus.CLOSED), 1)
    everybody_syncs(network, 1)
    assert status(xb, 1)[0] == "identified"
    assert len(events(xb.node, EventKind.MESSAGE_REFUSED)) == 2


def test_a_forged_or_unfit_message_changes_nothing_and_holds_nothing_up(tmp_path: Path, clock: FakeClock) -> None:
    network = mesh(tmp_path, clock, 3)
    everybody_follows(network)
    xa, xb, xc = network.members.values()
    done = set_status(xa, FOUND)
    everybody_syncs(network, 1)
    for body in (
        {"assertion": done.assertion.id, "version": 9, "at": 1, "due": 1, "reminder": 0, "status": "", "reason": ""},
        {"assertion": "zz", "version": 9, "at": 1, "due": 0, "reminder": 0, "status": "", "reason": ""},
        {"assertion": done.assertion.id},
    ):
        xc.mailbox.write("XB-NCVI", "resume_search", body)  # XC takes back what XA has asserted
    xc.mailbox.write("XB-NCVI", "identification_notice", {"assertion": "1" * 32})
    xc.mailbox.write("XA-NCVI", "search_resumed", {"assertion": done.assertion.id, "version": 1})
    xc.mailbox.write("XA-NCVI", "status_echo", {"assertion": "zz", "version": 1, "status": "identified"})
    everybody_syncs(network)
    assert status(xb) == ("identified", ["XA"])
    assert alarms(xb, AlarmKind.SEARCH_RESUMED) == 0
    assert len(events(xb.node, EventKind.MESSAGE_REFUSED)) == 3
    assert asyncio.run(network.sync("XC-NCVI", "XB-NCVI").sync()) is not None


def test_no_digest_series_or_reference_stands_in_the_log_or_in_the_clear(tmp_path: Path, clock: FakeClock) -> None:
    network = mesh(tmp_path, clock, 2)
    everybody_follows(network)
    xa, xb = member(network, "A"), member(network, "B")
    set_status(xa, FOUND, 0, series=("Blue Door",))
    everybody_syncs(network, 1)
    secret = [sha256("made-up 0").hex(), "Blue Door", FOUND.contact]
    for exchange in (xa, xb):
        with exchange.node.store.reading() as tx:
            leaves = b"".join(row.event_bytes or b"" for row in tx.log.leaves())
            rows = [*tx.statuses.all(), *tx.statuses.told(tx.statuses.all()[0].number)]
            marks = [one for row in tx.statuses.all() for one in tx.statuses.marks(row.agency, row.number)]
        clear = leaves.decode() + "".join(str(row.model_dump()) for row in rows)
        assert not any(word in clear for word in secret)
        assert sha256("made-up 0") not in [one.mark for one in marks]


def test_what_is_erased_by_order_stands_in_no_assertion_and_in_no_message(tmp_path: Path, clock: FakeClock) -> None:
    network = mesh(tmp_path, clock, 2)
    everybody_follows(network)
    for exchange in network.members.values():
        bootstrap_administrator(exchange.node, ONE.name, ONE.signing_key.public)
    set_status(member(network, "A"), FOUND, 0, 1)
    everybody_syncs(network)
    waiting = set_status(member(network, "A"), FOUND, 1, 2).assertion.id  # on its way yet
    for exchange in network.members.values():
        desk = approvals(exchange.node)
        number = desk.propose(*erase(exchange.node, [sha256("made-up 1").hex()], "order 7"), by=ONE.name)
        assert desk.sign(number, ONE).state == "done"
        said = digests_said(exchange)
        assert sha256("made-up 1").hex() not in said
        assert sha256("made-up 0").hex() in said
    everybody_syncs(network)
    assert status(member(network, "B"), 2) == ("identified", ["XA"])
    with member(network, "B").node.store.reading() as tx:
        assert tx.statuses.find("XA-NCVI", waiting) is not None


def digests_said(exchange: Exchange) -> str:
    """All that assertions and messages about them say."""
    with exchange.node.store.reading() as tx:
        mail = [*tx.mail.incoming(), *tx.mail.sent_mail()]
        bodies = [exchange.mailbox.read(row) for row in mail if row.kind == "identification_notice"]
        held = [lines.opened(exchange.node, row).subject for row in tx.statuses.all(exchange.node.agency)]
    return str(bodies) + str([one.dump() for one in held if one])


def test_what_is_said_of_anothers_entry_goes_to_its_owner_and_no_further_than_the_entry(
    tmp_path: Path, clock: FakeClock
) -> None:
    network = mesh(tmp_path, clock, 3)
    xa, xb, xc = network.members.values()
    ours = [EntryDraft({"sha256": sha256("of XA alone")}, source_ref="a")]
    xa.ledger.import_entries(own(xa), ours, actor="tester", form="test")
    xc.ledger.import_entries(own(xc), ours, actor="tester", form="test")
    everybody_follows(network)
    held = {one["sha256"]: entry for entry, one in held_entries(xb, own(xa)).items()}
    entry = format_entry(held[sha256("of XA alone")])
    done = xb.statuses.set_entries(own(xa), [entry], FOUND, actor="tester")
    assert done.told.partners == ("XA-NCVI",)  # XC holds it too; that XA has it is not XB's to tell
    everybody_syncs(network)
    with xa.node.store.reading() as tx:
        assert xa.statuses.known_status(tx, [("sha256", sha256("of XA alone"))])[0].joined.by[0].agency == "XB-NCVI"
