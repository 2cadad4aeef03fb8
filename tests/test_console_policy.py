"""The policy screens: what is in force, the matrix and its squares, rehearsing, and what was in force."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape

import pytest

from console_browser import console_node, serving_console
from factory import card_of, drafts, enrol, loopback, make_node, make_set
from gateway.console.pages import Desk
from gateway.exchange import Exchange
from gateway.keyadmin import approvals
from gateway.model import ENTRY_GROUPS, HandlingCode, Restriction, Surface, VictimStatus
from gateway.partners import record_policy
from gateway.policy import Grid, LabelInSet, PartnerRef
from gateway.policy.matrix import SHARED
from gateway.policymatrix import own_labels
from gateway.signin import SignIn
from test_console import Served

SET = "XA-NCVI/identified"
PARTNERS = ("XB-NCVI", "XC-NCVI")


def screened(folder: object, *, administrators: tuple[str, ...] = ("alice", "bob")) -> Exchange:
    """A gateway with two partners, a founding policy on record, and a set of entries under several labels."""
    node = console_node(folder, administrators=administrators)  # type: ignore[arg-type]
    exchange = Exchange(node)
    for agency in PARTNERS:
        enrol(node, card_of(make_node(folder, agency, clock=node.clock, **loopback())))  # type: ignore[arg-type]
    with node.store.transaction() as tx:
        record_policy(tx, node, previous="")
    entries = drafts(2, handling=HandlingCode.H0, victim_status=VictimStatus.IDENTIFIED)
    entries += drafts(3, first=2, handling=HandlingCode.H2, restrictions=(Restriction.EMBARGO,))
    entries += drafts(4, first=5, handling=HandlingCode.H3)
    make_set(exchange, "identified", entries)
    return exchange


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    exchange = screened(tmp_path_factory.mktemp("policy"))
    with serving_console(exchange) as address:
        yield Served(exchange, address)


def squares(text: str) -> list[list[str]]:
    """The numbers of a matrix as its page shows them, row by row."""
    body = text.partition('<table class="matrix"')[2].partition("<tbody>")[2].partition("</tbody>")[0]
    rows = body.split("<tr>")[1:]
    return [re.findall(r'<td class="heat heat-\d"><a href="[^"]+">([^<]+)<', row) for row in rows]


def first_square(text: str) -> str:
    return unescape(re.findall(r'<td class="heat heat-\d"><a href="([^"]+)"', text)[0])


@pytest.mark.parametrize("name", ["alice", "dora", "otto"])
def test_every_role_sees_in_each_square_what_the_policy_decides(served: Served, name: str) -> None:
    text = served.as_(name).ask("GET", "/policy").text
    policies = served.node.policy
    assert policies.digest in text
    with served.node.store.reading() as tx:
        labels = [one.held for one in own_labels(tx)]
    expected = [
        [str(len(rights(served, agency, held)) or "–") for agency in PARTNERS]
        for held in labels
    ]  # fmt: skip
    assert squares(text) == expected
    assert len({number for row in expected for number in row}) > 2


def rights(served: Served, agency: str, held: LabelInSet) -> frozenset[str]:
    table = served.node.policy.table(PartnerRef(agency, agency[:2]), Surface.SEALED, {1: held})
    return frozenset(map(str, table[1].groups))


def test_one_field_group_or_one_action_with_its_purpose_can_be_asked_alone(served: Served) -> None:
    alice = served.as_("alice")
    shown = squares(alice.ask("GET", "/policy?asked=share_series").text)
    assert {number for row in shown for number in row} == {"1", "–"}
    text = alice.ask("GET", "/policy?asked=look_up&purpose=statistics").text
    assert "look up for statistics" in text
    assert alice.ask("GET", "/policy?asked=everything").status == 400
    assert alice.ask("GET", "/policy?partner=XZ-NONE").status == 404
    assert alice.ask("GET", "/policy?set=XA-NCVI/none").status == 404
    assert squares(alice.ask("GET", "/policy?partner=XC-NCVI").text) == [
        row[1:] for row in squares(alice.ask("GET", "/policy").text)
    ]


def test_every_label_that_the_rules_can_tell_apart_is_shown_and_leads_to_its_reasons(served: Served) -> None:
    alice = served.as_("alice")
    text = alice.ask("GET", "/policy?describe=1").text
    assert "no tag" in text
    answer = alice.ask("GET", first_square(text))
    assert answer.status == 200
    assert "XB receives entries under H0" in answer.text


def test_a_square_says_rule_law_and_one_sentence_for_each_field_group(served: Served) -> None:
    dora = served.as_("dora")
    text = dora.ask("GET", first_square(dora.ask("GET", "/policy").text)).text
    for group in ENTRY_GROUPS:
        assert f'<th scope="row">{group.replace("_", " ")}</th>' in text
    rule = served.node.policy.rules["xa-xb-share-list"]
    for words in (
        rule.id,
        rule.law,
        rule.says.rstrip("."),
        rule.reviewed_by,
        "delete after 730 days",
        "refer for prosecution",
    ):
        assert words in text, words


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("/policy/cell", 303),
        ("/policy/cell?partner=XB-NCVI&set=XA-NCVI/identified&label=99", 404),
        ("/policy/cell?partner=XB-NCVI&set=XA-NCVI/none&label=1", 404),
        ("/policy/cell?partner=XB&set=XA-NCVI/identified&label=1", 400),
        ("/policy/cell?partner=XB-NCVI&set=XA-NCVI/identified", 400),
        ("/policy/cell?partner=XB-NCVI&set=XA-NCVI/identified&label=1&surface=loud", 400),
    ],
)
def test_a_square_that_there_is_not_is_refused(served: Served, address: str, status: int) -> None:
    assert served.as_("otto").ask("GET", address).status == status


def test_what_was_decided_once_is_not_decided_again(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    alice = served.as_("alice")
    first = alice.ask("GET", "/policy").text
    with monkeypatch.context() as patched:
        patched.setattr("gateway.policymatrix.decide_all", lambda *_, **__: pytest.fail("decided again"))
        assert squares(alice.ask("GET", "/policy").text) == squares(first)
    before = served.node.policies.texts
    changed = {**before, NATIONAL: before[NATIONAL] + FORBID_H0}
    served.node.policies.take_up(changed, served.node.today)
    try:
        assert squares(alice.ask("GET", "/policy").text) != squares(first)
    finally:
        served.node.policies.take_up(before, served.node.today)


NATIONAL = "XA/national.cedar"
FORBID_H0 = """
@id("xa-nothing-under-h0")
@law("XA Invented Act 2026, section 1")
@says("Nothing under H0 is shared.")
@reviewed_by("XA Ministry of Justice")
@valid_until("2034-12-31")
forbid (principal, action in Action::"share", resource) when { resource.handling == Handling::"H0" };
"""


def test_a_large_matrix_is_cut_and_says_what_it_left_out(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    alice = served.as_("alice")
    every = squares(alice.ask("GET", "/policy").text)
    monkeypatch.setattr("gateway.console.policies.MAX_LABELS", 2)
    monkeypatch.setattr("gateway.console.policies.MAX_PARTNERS", 1)
    page = alice.ask("GET", "/policy").text
    assert squares(page) == [row[:1] for row in every[:2]]
    assert "labels 1 to 2 of 3, for 1 of 2 partners" in page
    behind = unescape(re.findall(r'href="([^"]+)">More labels', page)[0])
    assert squares(alice.ask("GET", behind).text) == [row[:1] for row in every[2:]]
    monkeypatch.setattr("gateway.policymatrix.MAX_DECISIONS", 5)
    assert "Choose one partner" in alice.ask("GET", "/policy").text
    assert "more labels than one page decides" in alice.ask("GET", "/policy?describe=1").text


def test_what_is_kept_of_matrices_is_bounded(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    node = served.node
    desk = Desk(served.exchange, SignIn(node), approvals(node))
    with node.store.reading() as tx:
        labels = tuple(one.held for one in own_labels(tx))
    grids = [Grid((PartnerRef(agency, agency[:2]),), Surface.SEALED, labels, SHARED) for agency in PARTNERS]
    monkeypatch.setattr("gateway.policymatrix.MAX_KEPT", grids[0].cells)
    for grid in grids:
        desk.matrices.of(node.policy, grid, list("abc"))
    assert [one.grid for one in desk.matrices._kept.values()] == grids[1:]


# What was in force


def test_the_history_tells_of_the_founding_policy_and_of_no_signature(served: Served) -> None:
    text = served.as_("dora").ask("GET", "/policy/history").text
    assert "this gateway was founded with it" in text
    assert f"It began with {len(served.node.policy.rules)} rules" in text
    assert "/log/entry/" not in text  # a page of other roles
    assert "/log/entry/" in served.as_("otto").ask("GET", "/policy/history").text
