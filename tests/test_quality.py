"""When a program may act on an entry: poisoned lists, laundered sources, look-alikes, and what policy can change."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from sqlalchemy import text
from typer.testing import CliRunner

from chain import chain, policy_folder, sync_down
from factory import (
    SHIPPED_POLICIES,
    FakeClock,
    SeededRandom,
    befriend,
    events,
    make_node,
    make_set,
    on_postgresql,
    reopened,
    set_state,
)
from gateway import activation, categories, standing
from gateway.adapters.fields import MIN_PDQ_QUALITY
from gateway.audit import EventKind
from gateway.categories import Relation
from gateway.cli import app
from gateway.columns.rows import Rows
from gateway.crypto.keys import SigningKey
from gateway.errors import AuditBrokenError, ConfigError, ConflictError, MalformedError
from gateway.exchange import Exchange
from gateway.exchange.categories import activate
from gateway.exchange.quality import SENTENCES, Obstacle, Standing
from gateway.keyadmin import approvals, bootstrap_administrator
from gateway.keystore import PersonalKey
from gateway.model import AdapterReport, EntryDraft, HandlingCode
from gateway.opinions import Verdict
from gateway.policy import DEFAULT_USE, QUALITY_FILE, load
from gateway.policy.quality import parse_quality
from gateway.policyacts import activate_policy
from partner_simulator import Network, held_entries, refused

XA, XB, XC = "XA-NCVI", "XB-NCVI", "XC-NCVI"
SET = "XA-NCVI/found"
ALICE, BOB = (PersonalKey(name, SigningKey.generate(SeededRandom(name))) for name in ("alice", "bob"))
CONFIRM, DISPUTE, WITHDRAWN = Verdict.CONFIRM, Verdict.DISPUTE, Verdict.WITHDRAWN
TABLE = """
table = "category mapping 1"
scheme = "xa-code"
into = "us"
version = 1
source = "XA Penal Code, section 12"
reviewed_by = "Office of invented laws"

[[code]]
from = "1"
to = "A1"
relation = "exact"

[[code]]
from = "2"
to = "A"
relation = "broader"

[[code]]
from = "3"
to = "B2"
relation = "narrower"

[[code]]
from = "4"
relation = "none"
"""
USE = """
[use]
law = "XB Police Data Act 2020, section 50"
says = "Three of these four stand behind it."
reviewed_by = "XB Data Protection Authority"
valid_until = "2034-12-31"
agencies = 3
"""


@pytest.fixture
def network(tmp_path: Path) -> Network:
    """Three gateways that know each other. XB judges XA's entries; its table knows XA's categories."""
    agencies = [XA, XB, XC]
    folder = policy_folder(tmp_path / "policies", agencies, itertools.combinations(agencies, 2))
    clock = FakeClock()
    nodes = [make_node(tmp_path, name, clock=clock, policies=str(folder)) for name in agencies]
    befriend(*nodes)
    network = Network()
    for node in nodes:
        network.join(node)
    adopt(network.members[XB], TABLE)
    return network


def adopt(exchange: Exchange, table: str) -> None:
    """A table comes into force at a gateway where one administrator is enough."""
    desk = approvals(exchange.node)
    if not desk_is_open(exchange):
        bootstrap_administrator(exchange.node, ALICE.name, ALICE.signing_key.public)
    desk.sign(desk.propose(*activate(table), by=ALICE.name), ALICE)


def desk_is_open(exchange: Exchange) -> bool:
    with exchange.node.store.reading() as tx:
        return bool(tx.people.administrators())


def meet(network: Network, *pairs: tuple[str, str]) -> None:
    """The first of each pair asks the second for news."""
    for here, there in pairs:
        asyncio.run(network.sync(here, there).sync())


def file(number: int, *names: str) -> EntryDraft:
    """A draft with digests of an invented file."""
    content = f"made-up {number}".encode()
    return EntryDraft({name: hashlib.new(name, content).digest() for name in names or ("sha256", "md5")})


def share(network: Network, entries: Iterable[EntryDraft], **label: Any) -> list[int]:
    """XA lists entries, everybody has them; returns their ids in order."""
    words = {"category": "xa-code:1", "handling": HandlingCode.H1, "onward": ("XA", "XB", "XC"), **label}
    xa = network.members[XA]
    before = set(held_entries(xa, SET)) if _there(xa) else set()
    listed = [EntryDraft(one.digests, category=words["category"], handling=words["handling"]) for one in entries]
    if before:
        xa.ledger.import_entries(SET, listed, actor="tester", form="test")
    else:
        make_set(xa, "found", listed, onward=words["onward"])
    meet(network, (XB, XA), (XC, XA))
    return sorted(set(held_entries(xa, SET)) - before)


def _there(exchange: Exchange) -> bool:
    with exchange.node.store.reading() as tx:
        return tx.sets.find(SET) is not None


def say(network: Network, who: str, entry: int, verdict: Verdict, name: str = SET) -> None:
    reason = {CONFIRM: "seen", DISPUTE: "no_child"}.get(verdict, "")
    network.members[who].opinions.give(name, [entry], verdict, reason, actor="tester")
    meet(network, *((there, who) for there in (XA, XB) if there != who))


def at_xb(network: Network, entry: int, name: str = SET) -> Standing:
    xb = network.members[XB]
    with xb.shelf.reading(xb.node.store) as tx:
        return xb.quality.one(tx, name, entry)


def obstacles(network: Network, entry: int, name: str = SET) -> list[str]:
    return [str(one) for one in at_xb(network, entry, name).obstacles]


# Threat 9: poisoning


def test_a_single_source_is_never_enough_and_two_are(network: Network) -> None:
    [first, second] = share(network, [file(1), file(2)])
    assert obstacles(network, first) == ["few_agencies"]
    say(network, XC, first, CONFIRM)
    found = at_xb(network, first)
    assert (found.actionable, found.behind, found.words) == (True, {XA, XC}, "undisputed by 2")
    assert obstacles(network, second) == ["few_agencies"]
    say(network, XC, first, WITHDRAWN)
    assert obstacles(network, first) == ["few_agencies"]


def test_our_own_confirmation_counts_and_the_owners_own_does_not_count_twice(network: Network) -> None:
    [first, second] = share(network, [file(1), file(2)])
    say(network, XA, first, CONFIRM)
    assert obstacles(network, first) == ["few_agencies"]
    say(network, XB, second, CONFIRM)
    assert at_xb(network, second).actionable


def test_an_entry_on_an_allow_list_is_never_actionable_whoever_confirms_it(network: Network) -> None:
    [first] = share(network, [file(1)])
    for who in (XA, XB, XC):
        say(network, who, first, CONFIRM)
    assert at_xb(network, first).actionable
    allow(network.members[XB], file(1).digests["md5"])
    assert obstacles(network, first) == ["known_good"]


def allow(exchange: Exchange, *digests: bytes) -> None:
    rows = [Rows.of(1, {{16: "md5", 20: "sha1", 32: "sha256"}[len(one)]: [one]}) for one in digests]
    exchange.known_good.import_list("files", rows, AdapterReport("known_good"), actor="tester")


def test_an_empty_or_common_file_is_never_actionable(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    common = [EntryDraft({"md5": hashlib.md5(content).digest()}) for content in (b"", b"\0" * 512)]
    common.append(EntryDraft({"sha256": bytes(32)}))
    xa = network.members[XA]
    # A hub that does not ask: its list is poisoned.
    monkeypatch.setattr(type(xa.known_good), "with_bars", lambda *_: None)
    listed = share(network, common)
    assert len(listed) == 3
    for entry in listed:
        say(network, XC, entry, CONFIRM)
        say(network, XB, entry, CONFIRM)
        assert obstacles(network, entry) == ["known_good"]


def test_what_an_allow_list_proposes_is_said_by_nobody_but_a_person(network: Network) -> None:
    xb = network.members[XB]
    [first, _] = share(network, [file(1), file(2)])
    allow(xb, file(1).digests["sha256"])
    with xb.shelf.reading(xb.node.store) as tx:
        assert xb.quality.proposed(tx, SET) == [first]
        assert tx.opinions.every() == []
    say(network, XB, first, DISPUTE)
    with xb.shelf.reading(xb.node.store) as tx:
        assert xb.quality.proposed(tx, SET) == []


def test_a_withdrawn_entry_and_a_retracted_confirmation_are_gone_everywhere_within_one_sync(network: Network) -> None:
    [first, second] = share(network, [file(1), file(2)])
    for entry in (first, second):
        say(network, XC, entry, CONFIRM)
    network.members[XA].ledger.withdraw(SET, [first], actor="tester", reason="a doll")
    network.members[XC].opinions.give(SET, [second], DISPUTE, "no_child", actor="tester")
    meet(network, (XB, XA), (XB, XC))
    xb = network.members[XB]
    with xb.shelf.reading(xb.node.store) as tx:
        set_id = tx.sets.get(SET).id or 0
        found = xb.quality.standing_of(tx, set_id, [first, second])
    assert {entry: one.obstacles for entry, one in found.items()} == {
        second: (Obstacle.FEW_AGENCIES, Obstacle.DISPUTED)
    }


def test_a_confirmed_entry_that_changes_afterwards_must_be_confirmed_anew(network: Network) -> None:
    xa = network.members[XA]
    make_set(xa, "found", [EntryDraft(file(1).digests, source_ref="a", category="xa-code:1")], onward=("XB", "XC"))
    meet(network, (XB, XA), (XC, XA))
    [entry] = held_entries(xa, SET)
    say(network, XC, entry, CONFIRM)
    assert at_xb(network, entry).actionable
    swapped = EntryDraft(file(2).digests, source_ref="a", category="xa-code:1")  # another file under the same id
    xa.ledger.import_entries(SET, [swapped], actor="tester", form="test")
    meet(network, (XB, XA))
    assert list(held_entries(network.members[XB], SET)) == [entry]
    assert obstacles(network, entry) == ["few_agencies"]


def test_a_dispute_follows_the_file_into_every_set(network: Network) -> None:
    [first] = share(network, [file(1)])
    make_set(network.members[XC], "own", [file(1, "md5", "sha1")], onward=("XA", "XB"))
    meet(network, (XA, XC), (XB, XC))
    say(network, XC, first, CONFIRM)
    assert at_xb(network, first).actionable
    [other] = held_entries(network.members[XB], "XC-NCVI/own")
    say(network, XA, other, DISPUTE, "XC-NCVI/own")  # the same MD5 in another agency's set
    found = at_xb(network, first)
    assert (Obstacle.DISPUTED in found.obstacles, found.disputing) == (True, {XA})
    assert found.words == "disputed by 1 of 2"


def test_what_a_hub_counts_speaks_against_an_entry_and_never_for_it(network: Network) -> None:
    [first] = share(network, [file(1)])
    xb = network.members[XB]

    def counted(confirmed: int, disputed: int) -> list[str]:
        with xb.node.store.transaction() as tx:
            statement = "DELETE FROM opinion_count"
            tx.connection.execute(text(statement))
            row = {"s": tx.sets.get(SET).id, "e": first, "c": confirmed, "d": disputed}
            tx.connection.execute(text("INSERT INTO opinion_count VALUES (:s, :e, 1, :c, :d)"), row)
        return obstacles(network, first)

    assert counted(50, 0) == ["few_agencies"]
    say(network, XC, first, CONFIRM)
    assert counted(50, 0) == []
    assert counted(50, 1) == ["disputed"]


def test_who_passes_a_set_on_is_not_a_second_source(tmp_path: Path) -> None:
    network = chain(tmp_path, FakeClock(), 3)  # XC has XA's set through XB, and knows XB alone
    everywhere = ("XA", "XB", "XC")
    make_set(network.members[XA], "found", [EntryDraft(file(1).digests, category="xa-code:1")], onward=everywhere)
    sync_down(network)
    xc = network.members[XC]
    adopt(xc, TABLE)
    [entry] = held_entries(xc, SET)
    network.members[XB].opinions.give(SET, [entry], CONFIRM, "seen", actor="tester")
    sync_down(network)
    with xc.shelf.reading(xc.node.store) as tx:
        found = xc.quality.one(tx, SET, entry)
    assert (found.behind, found.obstacles) == ({XA}, (Obstacle.FEW_AGENCIES,))
    xc.opinions.give(SET, [entry], CONFIRM, "seen", actor="tester")
    with xc.shelf.reading(xc.node.store) as tx:
        assert xc.quality.one(tx, SET, entry).actionable


def test_a_partner_that_is_shut_out_stands_behind_nothing(network: Network) -> None:
    [first] = share(network, [file(1)])
    say(network, XC, first, CONFIRM)
    set_state(network.members[XB].node, XC, "suspended")
    assert obstacles(network, first) == ["few_agencies"]
    say_here = network.members[XB].opinions.give
    say_here(SET, [first], CONFIRM, "seen", actor="tester")
    assert at_xb(network, first).actionable
    set_state(network.members[XB].node, XA, "suspended")  # the owner itself
    assert obstacles(network, first) == ["few_agencies"]


@settings(max_examples=20, deadline=None)
@given(data=some.data())
def test_more_disputes_and_fewer_confirmations_never_make_an_entry_actionable(
    data: some.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    network, entry = _standing_still(tmp_path_factory)
    xb = network.members[XB]
    verdicts = {
        who: data.draw(some.sampled_from([CONFIRM, DISPUTE, WITHDRAWN, None]), label=who) for who in (XA, XB, XC)
    }
    with xb.node.store.transaction() as tx:
        set_id = tx.sets.get(SET).id or 0
        tx.opinions.forget(set_id, [entry])
        for who, verdict in verdicts.items():
            if verdict is not None:
                tx.opinions.join(set_id, [categories_word(who, entry, verdict)])
    confirming = {who for who, verdict in verdicts.items() if verdict is CONFIRM} - {XA}
    expected = bool(confirming) and DISPUTE not in verdicts.values()
    assert at_xb(network, entry).actionable is expected


def categories_word(who: str, entry: int, verdict: Verdict) -> Any:
    from gateway.opinions import Word

    return Word(who, entry, 1, verdict, "", 1, 1)


_STILL: list[tuple[Network, int]] = []


def _standing_still(factory: pytest.TempPathFactory) -> tuple[Network, int]:
    """One network for all examples."""
    if not _STILL:
        made = network.__wrapped__(factory.mktemp("quality"))  # type: ignore[attr-defined]
        _STILL.append((made, share(made, [file(1)])[0]))
    return _STILL[0]


# Threat 10: what only looks alike


def test_a_hit_by_a_perceptual_digest_is_never_actionable(network: Network) -> None:
    digests = {**file(1).digests, "pdq": bytes(range(32))}
    [entry] = share(network, [EntryDraft(digests, pdq_quality=MIN_PDQ_QUALITY)])
    say(network, XC, entry, CONFIRM)
    xb = network.members[XB]
    # A harmless file that somebody made to have the same PDQ: its SHA-256 is another one.
    hits = xb.lookup.find([bytes(range(32)).hex()], actor="tester")
    assert {hit.algorithm for hit in hits} == {"pdq"}
    found = at_xb(network, entry)
    assert found.actionable
    assert not found.actionable_by("pdq")
    assert not found.actionable_by("photodna")
    assert found.actionable_by("sha256")


def test_an_entry_with_perceptual_digests_alone_is_never_actionable(network: Network) -> None:
    [entry] = share(network, [EntryDraft({"pdq": bytes(range(32))}, pdq_quality=90)])
    for who in (XB, XC):
        say(network, who, entry, CONFIRM)
    assert obstacles(network, entry) == ["no_file_digest"]


# Categories


def test_what_a_category_is_in_ours_decides(network: Network) -> None:
    found = {}
    for number, code in enumerate(("1", "2", "3", "4", "5")):
        [entry] = share(network, [file(number)], category=f"xa-code:{code}")
        say(network, XC, entry, CONFIRM)
        one = at_xb(network, entry)
        mapped = (one.mapped.category, str(one.mapped.relation), one.mapped.table) if one.mapped else None
        found[code] = (one.category, mapped, [str(obstacle) for obstacle in one.obstacles])
    assert found == {
        "1": ("xa-code:1", ("us:A1", "exact", "xa-code 1"), []),
        "2": ("xa-code:2", ("us:A", "broader", "xa-code 1"), []),
        "3": ("xa-code:3", ("us:B2", "narrower", "xa-code 1"), []),
        "4": ("xa-code:4", ("", "none", "xa-code 1"), ["category"]),
        "5": ("xa-code:5", None, ["category"]),
    }
    # A newer version takes the place of the older one at once; an older one never again.
    xb = network.members[XB]
    newer = TABLE.replace("version = 1", "version = 2").replace('from = "1"\nto = "A1"\nrelation = "exact"',
                                                                'from = "1"\nrelation = "none"')  # fmt: skip
    adopt(xb, newer)
    [entry] = [one for one in held_entries(xb, SET) if at_xb(network, one).category == "xa-code:1"]
    assert obstacles(network, entry) == ["category"]
    assert isinstance(refused(lambda: adopt(xb, f"{TABLE}# another text\n")), ConflictError)
    told = [one.details for one in events(xb.node, EventKind.CATEGORY_TABLE_ACTIVATED)]
    assert [(one["scheme"], one["version"]) for one in told] == [("xa-code", 1), ("xa-code", 2)]
    assert told[1]["previous"] == told[0]["table"]


def test_what_is_in_our_scheme_already_is_itself() -> None:
    table = categories.parse(TABLE)
    assert categories.mapped("us:A7", [table]) == categories.Mapped("us:A7", Relation.EXACT)
    assert categories.mapped("them:1", [table]) is None
    own = categories.parse(TABLE.replace('"us"', '"xa-code"'))
    assert categories.mapped("xa-code:9", [own]) is None  # a table of a scheme into itself says which codes are


BAD_TABLES = {
    "no TOML": "table =",
    "another version": TABLE.replace("mapping 1", "mapping 2"),
    "another member": TABLE.replace("version = 1", "version = 1\nmore = 1"),
    "no reviewer": TABLE.replace('reviewed_by = "Office of invented laws"', ""),
    "an empty source": TABLE.replace('"XA Penal Code, section 12"', '""'),
    "a version below one": TABLE.replace("version = 1", "version = 0"),
    "a version that is a text": TABLE.replace("version = 1", 'version = "1"'),
    "an unknown relation": TABLE.replace('"exact"', '"nearly"'),
    "a code twice": TABLE.replace('from = "2"', 'from = "1"'),
    "a code of ours for none": TABLE.replace('relation = "none"', 'to = "C"\nrelation = "none"'),
    "no code of ours": TABLE.replace('to = "A1"\n', ""),
    "a scheme with a colon": TABLE.replace('"xa-code"', '"xa:code"'),
    "no codes": TABLE[: TABLE.index("[[code]]")],
    "too large": TABLE + "# " + "x" * categories.MAX_TABLE_BYTES,
}


@pytest.mark.parametrize("what", BAD_TABLES)
def test_a_table_that_breaks_a_rule_is_refused_whole(what: str) -> None:
    assert isinstance(refused(lambda: categories.parse(BAD_TABLES[what])), MalformedError)


def test_a_table_that_somebody_else_changed_counts_for_nothing(network: Network) -> None:
    xb = network.members[XB]
    for statement in (
        "UPDATE category_table SET content = replace(content, '\"none\"', '\"none\" ')",
        "DELETE FROM category_table",
    ):
        with xb.node.store.transaction() as tx:
            tx.connection.execute(text(statement))
        again = Exchange(reopened(xb.node, seed=statement))
        with again.node.store.reading() as tx:
            found = refused(lambda: again.quality.categories.in_force(tx))  # noqa: B023
        assert isinstance(found, AuditBrokenError)
    with xb.node.store.reading() as tx:
        assert isinstance(refused(lambda: standing.check(tx, xb.node)), AuditBrokenError)


@pytest.mark.parametrize("path", sorted((SHIPPED_POLICIES / "categories").iterdir()), ids=lambda path: path.name)
def test_the_tables_that_ship_are_sound(path: Path) -> None:
    table = categories.parse(path.read_text(encoding="utf-8"))
    theirs, _, ours = path.stem.partition("-into-")
    assert (table.scheme.split("-")[0], table.into.split("-")[0]) == (theirs, ours)


# What the label says


def test_what_its_giver_wants_to_be_asked_about_is_not_acted_on(network: Network) -> None:
    [entry] = share(network, [file(1)], handling=HandlingCode.H3)
    say(network, XC, entry, CONFIRM)
    assert obstacles(network, entry) == ["ask_first"]


def test_our_own_entries_need_a_second_agency_too(network: Network) -> None:
    [entry] = share(network, [file(1)])
    xa = network.members[XA]

    def here() -> Standing:
        with xa.shelf.reading(xa.node.store) as tx:
            return xa.quality.one(tx, SET, entry)

    assert here().obstacles == (Obstacle.FEW_AGENCIES,)
    say(network, XC, entry, CONFIRM)
    assert here().actionable
    say(network, XA, entry, DISPUTE)
    assert here().obstacles == (Obstacle.FEW_AGENCIES, Obstacle.DISPUTED)


# Policy


def govern(exchange: Exchange, use: str) -> None:
    """Another rule of use, in force at once."""
    policies = exchange.node.policies
    policies.texts = {**policies.texts, f"{exchange.node.agency[:2]}/{QUALITY_FILE}": use}
    policies._loaded = None


def test_policy_decides_how_many_of_whom(network: Network) -> None:
    [entry] = share(network, [file(1)])
    xb = network.members[XB]
    say(network, XC, entry, CONFIRM)
    assert at_xb(network, entry).actionable
    govern(xb, USE)
    assert obstacles(network, entry) == ["few_agencies"]
    say(network, XB, entry, CONFIRM)
    assert at_xb(network, entry).actionable
    govern(xb, f'{USE}of = ["XA-NCVI", "XB-NCVI", "XD-NCVI"]\n')
    assert obstacles(network, entry) == ["few_agencies"]  # XC's word does not count there
    govern(xb, USE.replace("agencies = 3", "agencies = 2") + 'relations = ["broader"]\n')
    assert obstacles(network, entry) == ["category"]
    say(network, XC, entry, DISPUTE)
    govern(xb, USE.replace("agencies = 3", "agencies = 2") + "disputes = 2\n")
    assert at_xb(network, entry).actionable
    govern(xb, USE.replace("agencies = 3", "agencies = 2"))
    assert obstacles(network, entry) == ["disputed"]


def test_where_policy_says_so_listing_the_same_file_is_standing_behind_it(network: Network) -> None:
    [first, second] = share(network, [file(1), file(2)])
    make_set(network.members[XC], "own", [file(1, "sha256"), file(2, "md5", "sha1")], onward=("XA", "XB"))
    meet(network, (XB, XC))
    assert obstacles(network, first) == ["few_agencies"]
    govern(network.members[XB], USE.replace("agencies = 3", "agencies = 2") + "listing = true\n")
    assert at_xb(network, first).behind == {XA, XC}
    assert at_xb(network, first).actionable
    assert obstacles(network, second) == ["few_agencies"]  # two files can be made with one MD5


def test_a_rule_that_lapses_opens_nothing() -> None:
    rule = parse_quality(USE.replace("2034-12-31", "2026-11-01") + "listing = true\ndisputes = 5\n", "XB/quality.toml")
    day = rule.valid_until
    assert day is not None
    assert rule.on(day) is rule
    after = rule.on(day.replace(day=2))
    assert (after.agencies, after.listing, after.disputes, after.lapsed) == (3, False, 1, True)


BAD_USE = {
    "no TOML": "[use",
    "another table": USE + "[more]\n",
    "an unknown member": USE + "agency = 2\n",
    "no law": USE.replace("law =", "# law ="),
    "one agency alone": USE.replace("agencies = 3", "agencies = 1"),
    "true for a number": USE.replace("agencies = 3", "agencies = true"),
    "more than there are": USE + 'of = ["XA-NCVI", "XB-NCVI"]\n',
    "an agency twice": USE + 'of = ["XA-NCVI", "XA-NCVI", "XB-NCVI"]\n',
    "no agency": USE + 'of = ["XA", "XB", "XC"]\n',
    "no disputes": USE + "disputes = 0\n",
    "a relation that is none": USE + 'relations = ["none"]\n',
    "no relation": USE + "relations = []\n",
    "a text for a word": USE + 'listing = "yes"\n',
    "no day": USE.replace("2034-12-31", "2034-02-30"),
    "nobody": USE.replace("XB Data Protection Authority", "nobody: replace this"),
}


def test_a_rule_of_use_that_is_not_sound_is_refused_whole(network: Network) -> None:
    texts = network.members[XB].node.policies.texts
    day = network.members[XB].node.today
    for what, use in BAD_USE.items():
        found = refused(lambda: load({**texts, f"XB/{QUALITY_FILE}": use}, on=day))  # noqa: B023
        assert isinstance(found, ConfigError), what
        assert found.place == "XB/quality.toml", what
    for place in (f"00-federation/{QUALITY_FILE}", f"XA/{QUALITY_FILE}"):
        assert isinstance(refused(lambda: load({**texts, place: USE}, on=day)), ConfigError)  # noqa: B023
    plain, with_rule = load(texts, on=day), load({**texts, f"XB/{QUALITY_FILE}": USE}, on=day)
    assert plain.use == DEFAULT_USE
    assert plain.digest != with_rule.digest
    assert with_rule.good_until == min(filter(None, (plain.good_until, with_rule.use.valid_until)))


def test_a_rule_of_use_comes_into_force_as_every_rule_does(tmp_path: Path) -> None:
    folder = tmp_path / "policies"
    shutil.copytree(SHIPPED_POLICIES, folder, ignore=shutil.ignore_patterns("templates", "categories"))
    node = make_node(tmp_path, XA, clock=FakeClock(), policies=str(folder), quorum=2)
    with node.store.transaction() as tx:
        activation.begin(tx, node)
    activation.settle(node)
    for key in (ALICE, BOB):
        bootstrap_administrator(node, key.name, key.signing_key.public)
    draft = tmp_path / "draft"
    shutil.copytree(folder, draft)
    (draft / "XA" / QUALITY_FILE).write_text(USE.replace("XB", "XA"))
    desk = approvals(node)
    proposal = desk.propose(*activate_policy(node, draft), by="alice")
    told = {one.what: (one.now, one.then) for one in desk.difference(proposal)}
    before, after = told["when a program may act on an entry"]
    assert (before.split(";")[0], after.split(";")[0]) == ("2 agencies", "3 agencies")
    desk.sign(proposal, ALICE)
    assert node.policy.use == DEFAULT_USE
    desk.sign(proposal, BOB)
    assert node.policy.use.agencies == 3
    assert f"XA/{QUALITY_FILE}" in json.loads((folder / "LOCK").read_text())["files"]
    # What somebody writes there afterwards stops the gateway.
    (folder / "XA" / QUALITY_FILE).write_text(USE.replace("agencies = 3", "agencies = 2"))
    assert isinstance(refused(lambda: activation.bring_folder(node)), ConfigError)


# What people see


def test_every_obstacle_has_a_sentence() -> None:
    assert SENTENCES.keys() == set(Obstacle)


def test_quality_and_categories_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if on_postgresql():
        pytest.skip("the command line's database is a file")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GATEWAY_HOME", "xa")
    monkeypatch.setenv("GATEWAY_PASSPHRASE_FILE", "gateway.pass")
    monkeypatch.setenv("GATEWAY_DEMO_ARGON2_KIB", "8192")
    for name in ("gateway.pass", "alice.pass"):
        Path(name).touch(mode=0o600)
        Path(name).write_text("only invented data is behind this\n")
    gateway("init", "--demo", "--agency", XA, "--name", "A unit")
    gateway("admin", "add", "alice", "--admin-passphrase-file", "alice.pass")
    gateway("set", "create", "found", "--purpose", "tests", "--legal-basis", "a law")
    Path("list.csv").write_text("sha256\n" + "".join(f"{file(at).digests['sha256'].hex()}\n" for at in range(3)))
    gateway("import", "list.csv", "--set", "found")
    said = gateway("quality", "found")
    assert "a program may act on 0 of 3 entries" in said
    assert "3  fewer agencies stand behind it than policy asks (few_agencies)" in said
    value = json.loads(gateway("quality", "found", "--because", "few_agencies", "--json"))
    assert (value["entries"], value["actionable"], len(value["listed"])) == (3, 0, 3)
    entry = value["listed"][0]["entry"]
    shown = gateway("quality", "found", entry)
    assert f"{entry}  undisputed by 1: fewer agencies" in shown
    assert "behind it: XA-NCVI; against it: nobody" in shown
    gateway("quality", "found", "--csv", "standing.csv")
    head, first, *rest = Path("standing.csv").read_text().splitlines()
    assert head == "entry,version,actionable,obstacles,behind,disputing,category,our_category,relation"
    assert first.startswith("0001-000000000001,1,no,few_agencies,1,0,unspecified:0,unspecified:0,exact")
    assert len(rest) == 2
    assert "cannot be written" in gateway("quality", "found", "--csv", "standing.csv", exit_code=9)
    alice = ("--admin", "alice", "--admin-passphrase-file", "alice.pass")
    Path("table.toml").write_text(TABLE)
    assert "There is no table." in gateway("category", "list")
    gateway("category", "import", "table.toml", *alice)
    [row] = json.loads(gateway("category", "list", "--json"))
    assert (row["scheme"], row["into"], row["version"], row["codes"]) == ("xa-code", "us", 1, 4)
    told = json.loads(gateway("category", "map", "xa-code:2", "xa-code:4", "xa-code:9", "--json"))
    assert [(one["ours"], one["relation"]) for one in told] == [("us:A", "broader"), ("", "none"), ("", "unmapped")]
    Path("good.txt").write_text(file(1).digests["sha256"].hex() + "\n")
    gateway("allow-list", "import", "good.txt")
    assert "1 entry of harmless files that we do not dispute yet." in gateway("opinion", "propose", "found")
    assert "Disputed 1 entry" in gateway("opinion", "propose", "found", "--give")
    assert json.loads(gateway("opinion", "propose", "found", "--json"))["entries"] == []
    assert json.loads(gateway("quality", "found", "--json"))["obstacles"]["disputed"] == 1


def gateway(*arguments: str, exit_code: int = 0) -> str:
    result = CliRunner().invoke(app, arguments, prog_name="gateway")
    assert result.exit_code == exit_code, (arguments, result.output, result.stderr)
    return result.output
