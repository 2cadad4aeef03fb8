"""Opinions: who is told of them, what counts when they come in any order, and what a partner cannot do with them."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import re
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from typer.testing import CliRunner

from chain import agreement, policy_folder, set_rules
from factory import FakeClock, SeededRandom, befriend, card_of, drafts, events, make_node, make_set
from gateway.audit import EventKind
from gateway.cli import app
from gateway.crypto import canonical
from gateway.crypto.keys import SigningKey
from gateway.errors import DeniedError, MalformedError, NotFoundError
from gateway.exchange import Exchange
from gateway.exchange import opinions as deeds
from gateway.exchange.erasing import erase
from gateway.exchange.windows import Opinion
from gateway.interchange import MAIL_TYPE, MailMessage, dump_mail
from gateway.keyadmin import approvals, bootstrap_administrator
from gateway.keystore import PersonalKey
from gateway.mailbox import MAX_BODY_BYTES
from gateway.model import EntryDraft
from gateway.opinions import MAX_ENTRIES, REASONS, Counted, Saying, Verdict, Word, parties
from gateway.store.tables import OpinionRow
from partner_simulator import Network, Rogue, held_entries, refused

XA, XB, XC = "XA-NCVI", "XB-NCVI", "XC-NCVI"
SET = "XA-NCVI/identified"
CONFIRM, DISPUTE, WITHDRAWN = Verdict.CONFIRM, Verdict.DISPUTE, Verdict.WITHDRAWN
Told = dict[tuple[int, str], str]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def network(tmp_path: Path, clock: FakeClock) -> Network:
    """Three gateways that know each other; XB and XC have XA's six entries, which may go on everywhere."""
    agencies = [XA, XB, XC]
    folder = policy_folder(tmp_path / "policies", agencies, itertools.combinations(agencies, 2))
    nodes = [make_node(tmp_path, name, clock=clock, policies=str(folder)) for name in agencies]
    befriend(*nodes)
    network = Network()
    for node in nodes:
        network.join(node)
    make_set(network.members[XA], "identified", drafts(6), onward=("XA", "XB", "XC"))
    meet(network, (XB, XA), (XC, XA))
    return network


def meet(network: Network, *pairs: tuple[str, str]) -> None:
    """Each asks each other one for news, once."""
    for here, there in pairs or itertools.permutations(network.members, 2):
        asyncio.run(network.sync(here, there).sync())


def entries(network: Network) -> list[int]:
    return sorted(held_entries(network.members[XA], SET))


def words(exchange: Exchange) -> Told:
    """By entry and agency what is known of the set here."""
    with exchange.node.store.reading() as tx:
        set_id = tx.sets.get(SET).id
        return {(row.entry_id, row.agency): row.verdict for row in tx.opinions.every(set_id)}


def say(network: Network, who: str, entry: int, verdict: Verdict, reason: str = "") -> deeds.Given:
    reason = reason or {CONFIRM: "seen", DISPUTE: "no_child"}.get(verdict, "")
    return network.members[who].opinions.give(SET, [entry], verdict, reason, actor="tester")


def letter(network: Network, body: dict[str, object], sender: str = XB, kind: str = "opinion") -> None:
    """A message of a partner whose keys are in other hands, delivered to XA."""
    xa, there = network.members[XA], network.members[sender]
    with xa.node.store.reading() as tx:
        number = tx.mail.last_in(sender) + 1
    rogue = Rogue(there, card_of(xa.node), xa.node.clock)  # type: ignore[arg-type]
    mail = dump_mail([MailMessage(number, f"{number:032x}", kind, xa.node.clock(), body)])
    xa.accept(sender, BytesIO(rogue.envelope(mail, MAIL_TYPE)))


# Who is told


def test_a_word_reaches_the_hub_and_the_other_holders_within_one_sync(network: Network) -> None:
    first = entries(network)[0]
    given = say(network, XC, first, DISPUTE)
    assert dict(given.told) == {XA: 1, XB: 1}
    meet(network, (XA, XC), (XB, XC))
    for who in (XA, XB):
        assert words(network.members[who]) == {(first, XC): "dispute"}
    [heard] = events(network.members[XA].node, EventKind.OPINION_HEARD)
    assert (heard.details["partner"], heard.details["reason"], heard.details["taken"]) == (XC, "no_child", 1)
    say(network, XC, first, WITHDRAWN)
    meet(network, (XA, XC), (XB, XC))
    assert words(network.members[XB]) == {(first, XC): "withdrawn"}


def test_nobody_is_told_of_an_entry_that_policy_lets_it_not_see(network: Network) -> None:
    set_rules(network.members[XC], XB, agreement("XC", "XB", actions=("share_cryptographic_digests", "receive")))
    given = say(network, XC, entries(network)[0], CONFIRM)
    assert dict(given.told) == {XA: 1}
    meet(network)
    assert words(network.members[XB]) == {}


def test_nobody_is_told_of_what_may_not_go_on(network: Network) -> None:
    xa = network.members[XA]
    make_set(xa, "kept", drafts(2, first=50), onward=("XC",))
    meet(network)
    [entry, _] = sorted(held_entries(network.members[XC], "XA-NCVI/kept"))
    told = network.members[XC].opinions.give("XA-NCVI/kept", [entry], CONFIRM, "seen", actor="tester").told
    assert dict(told) == {XA: 1}


def test_a_note_stays_here_and_sealed(network: Network) -> None:
    xc = network.members[XC]
    xc.opinions.give(SET, entries(network)[:1], DISPUTE, "lawful", "asked the prosecutor", actor="tester")
    with xc.node.store.reading() as tx:
        [row] = tx.opinions.every()
        sent = [xc.mailbox.read(one) for one in tx.mail.sent_mail()]
    assert b"prosecutor" not in row.sealed_text
    assert xc.node.keystore.master_key.open(row.sealed_text, deeds.note_context(SET)) == b"asked the prosecutor"
    assert "prosecutor" not in repr(sent)
    assert "prosecutor" not in repr(events(xc.node, EventKind.OPINION_GIVEN))


def test_opinions_in_bulk_go_in_full_messages(network: Network) -> None:
    xa = network.members[XA]
    xa.ledger.import_entries(SET, drafts(MAX_ENTRIES + 20, first=100), actor="tester", form="test")
    meet(network)
    everything = entries(network)
    network.members[XB].opinions.give(SET, everything, CONFIRM, "seen", actor="tester")
    meet(network, (XA, XB))
    assert len(words(xa)) == len(everything) == MAX_ENTRIES + 26
    assert len(events(xa.node, EventKind.OPINION_HEARD)) == 2


def test_the_longest_message_fits(network: Network) -> None:
    largest = 1 << 52
    saying = Saying("XA-" + "N" * 20 + "/" + "a" * 60, largest, DISPUTE, "wrong_category", largest, ())
    full = Saying(*(getattr(saying, one) for one in ("set_name", "number", "verdict", "reason", "at")), ((1, largest),))
    size = len(canonical.encode({**full.to_json(), "entries": full.to_json()["entries"] * MAX_ENTRIES}))  # type: ignore[operator]
    assert size <= MAX_BODY_BYTES


# What counts


def word(agency: str, number: int, verdict: Verdict, version: int = 1) -> Word:
    reason = {CONFIRM: "seen", DISPUTE: "lawful", WITHDRAWN: ""}[verdict]
    return Word(agency, 7, number, verdict, reason, version, number)


@settings(max_examples=25, deadline=None)
@given(data=some.data())
def test_whatever_the_order_of_arrival_all_hold_the_same(
    data: some.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    said = data.draw(
        some.lists(
            some.builds(
                word,
                some.sampled_from([XA, XB, XC]),
                some.integers(1, 4),
                some.sampled_from([CONFIRM, DISPUTE, WITHDRAWN]),
                some.integers(1, 2),
            ),
            max_size=8,
        )
    )
    arrivals = [data.draw(some.permutations([*said, *said[:3]])) for _ in range(2)]
    held = []
    exchange = _somewhere(tmp_path_factory)
    for arrived in arrivals:
        with exchange.node.store.transaction() as tx:
            set_id = tx.sets.get("XA-NCVI/one").id or 0
            for one in arrived:
                tx.opinions.join(set_id, [one])
            held.append(tx.opinions.words(set_id, [7]))
            tx.opinions.forget(set_id, [7])
    assert held[0] == held[1]
    newest = {agency: max((one for one in said if one.agency == agency), key=lambda one: one.rank, default=None)
              for agency in {one.agency for one in said}}  # fmt: skip
    assert {one.agency: one for one in held[0]} == newest


_PLACE: list[Exchange] = []


def _somewhere(factory: pytest.TempPathFactory) -> Exchange:
    """One gateway for all examples: each of them forgets what it was told."""
    if not _PLACE:
        _PLACE.append(Exchange(make_node(factory.mktemp("opinions"), XA, clock=FakeClock())))
        make_set(_PLACE[0], "one", drafts(1))
    return _PLACE[0]


def test_a_confirmation_of_another_version_counts_for_nothing_and_a_dispute_does() -> None:
    assert parties([word(XB, 1, CONFIRM, version=1)], 2) == (frozenset(), frozenset())
    assert parties([word(XB, 1, CONFIRM, version=2)], 2) == ({XB}, frozenset())
    assert parties([word(XB, 1, DISPUTE, version=1), word(XB, 2, CONFIRM, version=2)], 2) == (frozenset(), {XB})
    assert parties([word(XB, 9, WITHDRAWN)], 1) == (frozenset(), frozenset())


def test_a_word_that_comes_before_its_entry_counts_when_that_comes(network: Network) -> None:
    xa, xb = network.members[XA], network.members[XB]
    xa.ledger.import_entries(SET, drafts(1, first=70), actor="tester", form="test")
    meet(network, (XC, XA))
    newest = entries(network)[-1]
    say(network, XC, newest, CONFIRM)
    meet(network, (XB, XC))
    assert newest not in held_entries(xb, SET)
    meet(network, (XB, XA))
    assert newest in held_entries(xb, SET)
    assert words(xb) == {(newest, XC): "confirm"}


def test_a_restored_gateway_goes_on_above_the_numbers_it_gave(network: Network, clock: FakeClock) -> None:
    first = entries(network)[0]
    for _ in range(3):
        say(network, XC, first, CONFIRM)  # within one second: each has its number all the same
    meet(network, (XA, XC))
    with network.members[XC].node.store.transaction() as tx:  # a backup from before all three
        tx.opinions.forget(tx.sets.get(SET).id or 0, [first])
    clock.advance(60)
    say(network, XC, first, DISPUTE)
    meet(network, (XA, XC))
    assert words(network.members[XA]) == {(first, XC): "dispute"}


# What goes with the entry


def test_what_is_withdrawn_takes_its_opinions_with_it_everywhere_within_one_sync(network: Network) -> None:
    first, second = entries(network)[:2]
    for one in (first, second):
        say(network, XC, one, CONFIRM)
    meet(network)
    with network.members[XA].node.store.transaction() as tx:
        row = OpinionRow(set_id=tx.sets.get(SET).id or 0, entry_id=first, algorithm="md5", partner=XB,
                         verdict="negative", reasons="", version=1, at=1)  # fmt: skip
        tx.opinions.put(row)
    network.members[XA].ledger.withdraw(SET, [first], actor="tester", reason="another child")
    meet(network, (XB, XA), (XC, XA))
    for exchange in network.members.values():
        assert first not in held_entries(exchange, SET)
        assert words(exchange) == {(second, XC): "confirm"}
    with network.members[XA].node.store.reading() as tx:
        assert tx.opinions.all() == []
    # A late word on it brings nothing back.
    body = Saying(SET, 1_795_000_001, CONFIRM, "seen", 1, ((first, 1),)).to_json()
    letter(network, body)
    assert words(network.members[XA]) == {(second, XC): "confirm"}


def test_what_is_erased_takes_its_opinions_with_it(network: Network) -> None:
    xb, first = network.members[XB], entries(network)[0]
    say(network, XB, first, CONFIRM)
    assert len(words(xb)) == 1
    alice = PersonalKey("alice", SigningKey.generate(SeededRandom("alice")))
    bootstrap_administrator(xb.node, alice.name, alice.signing_key.public)
    digest = bytes(held_entries(xb, SET)[first]["sha256"]).hex()  # type: ignore[call-overload]
    desk = approvals(xb.node)
    desk.sign(desk.propose(*erase(xb.node, [digest], "order 1"), by=alice.name), alice)
    assert words(xb) == {}


# What a hub counts


def test_a_hub_says_how_many_confirm_and_dispute_and_not_who(network: Network) -> None:
    first, second = entries(network)[:2]
    set_rules(network.members[XC], XB, "")  # XC and XB have nothing to do with each other
    say(network, XC, first, DISPUTE)
    say(network, XC, second, CONFIRM)
    say(network, XB, second, CONFIRM)
    meet(network, (XA, XB), (XA, XC))
    assert network.members[XB].opinions.ask(SET) == XA
    meet(network, (XA, XB), (XB, XA))
    assert counts(network.members[XB]) == {first: (0, 1), second: (1, 0)}  # its own word is not among them
    assert XC not in repr(words(network.members[XB]))
    # From then on it is told of changes, within one sync.
    say(network, XC, first, WITHDRAWN)
    meet(network, (XA, XC), (XB, XA))
    assert counts(network.members[XB])[first] == (0, 0)
    assert counts(network.members[XC]) == {}  # it never asked


def test_what_a_stock_client_says_is_counted_too(network: Network) -> None:
    xa, md5 = network.members[XA], hashlib.md5(b"made-up").digest()
    xa.ledger.import_entries(SET, [EntryDraft({"md5": md5})], actor="tester", form="test")
    first = entries(network)[-1]
    network.members[XB].opinions.ask(SET)
    meet(network, (XA, XB), (XB, XA))
    with xa.node.store.reading() as tx:
        set_id = tx.sets.get(SET).id or 0
    xa.windows.take_opinion(XC, "hashsharing", (set_id, first), "md5", Opinion("negative", ("a reason",)))
    meet(network, (XB, XA))
    assert counts(network.members[XB]) == {first: (0, 1)}


def counts(exchange: Exchange) -> dict[int, tuple[int, int]]:
    with exchange.node.store.reading() as tx:
        set_id = tx.sets.get(SET).id or 0
        found = tx.opinions.counts(set_id, sorted(held_entries(exchange, SET)))
    return {row.entry_id: (row.confirmed, row.disputed) for row in found}


def test_counts_are_of_what_the_asker_may_see(network: Network) -> None:
    xa, first = network.members[XA], entries(network)[0]
    say(network, XA, first, DISPUTE)
    set_rules(xa, XB, agreement("XA", "XB", actions=["receive"]))
    network.members[XB].opinions.ask(SET)
    meet(network, (XA, XB), (XB, XA))
    with xa.node.store.reading() as tx:
        kinds = [row.kind for row in tx.mail.sent_mail(XB)]
    assert "opinion_counts" not in kinds
    assert kinds.count("opinion") == 1  # from before the policy was narrowed


def test_who_asks_again_at_once_is_not_answered_twice(network: Network, clock: FakeClock) -> None:
    xa = network.members[XA]
    say(network, XA, entries(network)[0], DISPUTE)

    def answers() -> int:
        meet(network, (XA, XB))
        with xa.node.store.reading() as tx:
            return sum(row.kind == "opinion_counts" for row in tx.mail.sent_mail(XB))

    asked = [network.members[XB].opinions.ask(SET) for _ in range(3)]
    assert (len(asked), answers()) == (3, 1)
    clock.advance(deeds.ANSWER_SECONDS + 1)
    network.members[XB].opinions.ask(SET)
    assert answers() == 2


# What a partner cannot do


BAD = {
    "another member": {"more": 1},
    "no verdict": {"verdict": "maybe"},
    "a reason of its own": {"reason": "because"},
    "the reason of another verdict": {"reason": "seen"},
    "no set": {"set": "identified"},
    "a number from the future": {"number": 1_795_000_000 + 86_401},
    "no number": {"number": 0},
    "no entries": {"entries": []},
    "an entry without a version": {"entries": [["0001000000000001"]]},
    "an entry that is a number": {"entries": [[1, 1]]},
    "an entry in other digits": {"entries": [["0001-00000000001", 1]]},
    "an entry twice": {"entries": [["0001000000000001", 1], ["0001000000000001", 2]]},
    "too many entries": {"entries": [[f"{at:016x}", 1] for at in range(MAX_ENTRIES + 1)]},
    "a version that is a text": {"entries": [["0001000000000001", "1"]]},
    "a version below zero": {"entries": [["0001000000000001", -1]]},
}


def test_a_word_that_breaks_a_rule_changes_nothing_and_is_on_record(network: Network) -> None:
    good = Saying(SET, 1_795_000_000, DISPUTE, "lawful", 1, ((entries(network)[0], 1),)).to_json()
    for what, changed in BAD.items():
        letter(network, {**good, **changed})
        assert words(network.members[XA]) == {}, what
    told = [one.details["error"] for one in events(network.members[XA].node, EventKind.MESSAGE_REFUSED)]
    assert told == ["MalformedError"] * len(BAD)
    letter(network, good)  # what comes behind it is not held up
    assert len(words(network.members[XA])) == 1


def test_a_partner_speaks_of_nothing_that_it_may_not_see(network: Network) -> None:
    set_rules(network.members[XA], XB, agreement("XA", "XB", actions=["receive"]))
    letter(network, Saying(SET, 1_795_000_000, DISPUTE, "lawful", 1, ((entries(network)[0], 1),)).to_json())
    letter(network, Saying("XA-NCVI/none", 1_795_000_000, DISPUTE, "lawful", 1, ((1, 1),)).to_json())
    assert words(network.members[XA]) == {}


def test_only_the_hub_of_a_set_counts(network: Network) -> None:
    body = Counted(SET, 1_795_000_000, (deeds.Count(entries(network)[0], 9, 0),)).to_json()
    letter(network, body, kind="opinion_counts")
    assert counts(network.members[XA]) == {}
    assert events(network.members[XA].node, EventKind.MESSAGE_REFUSED)


def test_words_about_what_is_not_here_do_not_pile_up(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deeds, "MAX_UNHELD", 10)
    make_set(network.members[XB], "found", drafts(2, first=60), onward=("XA", "XC"))
    meet(network)
    name, start = "XB-NCVI/found", 1 << 48 | 1 << 20
    for at in range(4):
        ids = tuple((start + at * 5 + one, 1) for one in range(5))
        letter(network, Saying(name, 1_795_000_000, CONFIRM, "seen", 1, ids).to_json(), sender=XC)
    with network.members[XA].node.store.reading() as tx:
        assert tx.opinions.how_many(tx.sets.get(name).id or 0, XC) == 10
    assert len(events(network.members[XA].node, EventKind.MESSAGE_REFUSED)) == 2


def test_who_may_not_know_of_a_set_is_not_asked_about_it(network: Network) -> None:
    xa = network.members[XA]
    assert xa.opinions.ask(SET, XB) == XB
    set_rules(xa, XB, agreement("XA", "XB", actions=["receive"]))
    assert isinstance(refused(lambda: xa.opinions.ask(SET, XB)), DeniedError)
    set_rules(network.members[XB], XC, agreement("XB", "XC", actions=["receive"]))
    assert isinstance(refused(lambda: network.members[XB].opinions.ask(SET, XC)), DeniedError)


def test_what_is_not_held_cannot_be_judged(network: Network) -> None:
    xb = network.members[XB]
    assert isinstance(refused(lambda: xb.opinions.give(SET, [5], CONFIRM, "seen", actor="t")), NotFoundError)
    assert isinstance(refused(lambda: say(network, XB, entries(network)[0], WITHDRAWN)), NotFoundError)
    assert isinstance(refused(lambda: say(network, XB, entries(network)[0], DISPUTE, "seen")), MalformedError)
    assert isinstance(refused(lambda: network.members[XA].opinions.ask(SET)), DeniedError)
    assert words(xb) == {}


# What people see


def test_the_reasons_are_those_of_the_glossary() -> None:
    page = (Path(__file__).parents[1] / "contracts" / "glossary.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `([a-z_]+)` \| (confirm|dispute): (.+?) \|", page, re.M)
    assert listed == [
        (code, str(verdict), says) for verdict in (CONFIRM, DISPUTE) for code, says in REASONS[verdict].items()
    ]


def test_opinions_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GATEWAY_HOME", "xa")
    monkeypatch.setenv("GATEWAY_PASSPHRASE_FILE", "gateway.pass")
    monkeypatch.setenv("GATEWAY_DEMO_ARGON2_KIB", "8192")
    Path("gateway.pass").touch(mode=0o600)
    Path("gateway.pass").write_text("only invented data is behind this\n")
    gateway("init", "--demo", "--agency", XA, "--name", "A unit")
    gateway("set", "create", "found", "--purpose", "tests", "--legal-basis", "a law")
    digests = [hashlib.sha256(f"made-up {at}".encode()).hexdigest() for at in range(3)]
    Path("list.txt").write_text("\n".join(digests))
    gateway("import", "list.txt", "--set", "found", "--format", "digest_list")
    assert "Nobody has given an opinion." in gateway("opinion", "list")
    [hit] = json.loads(gateway("look-up", digests[0], "--json"))
    said = gateway("opinion", "dispute", "found", hit["entry"], "--reason", "lawful", "--text", "a painting")
    assert "Disputed 1 entry of XA-NCVI/found. No partner may know of it." in said
    told = json.loads(gateway("opinion", "import", "list.txt", "--verdict", "confirm", "--json"))
    assert (told["digests"], told["found"]) == (3, 3)
    assert told["given"] == [{"set": "XA-NCVI/found", "entries": 3, "missing": 0, "told": {}}]
    gateway("opinion", "dispute", "found", hit["entry"], "--reason", "lawful", "--text", "a painting")
    gateway("opinion", "withdraw", "found", _other(hit["entry"]))
    listed = json.loads(gateway("opinion", "list", "--json"))
    assert sorted((one["verdict"], one["note"], one["way"]) for one in listed) == [
        ("confirm", "", "own"),
        ("dispute", "a painting", "own"),
    ]
    assert "known_good: the digest is of a harmless" in gateway(
        "opinion", "dispute", "found", hit["entry"], "--reason", "none", exit_code=9
    )


def _other(entry: str) -> str:
    return entry[:-1] + ("2" if entry.endswith("1") else "1")


def gateway(*arguments: str, exit_code: int = 0) -> str:
    result = CliRunner().invoke(app, arguments, prog_name="gateway")
    assert result.exit_code == exit_code, (arguments, result.output, result.stderr)
    return result.output
