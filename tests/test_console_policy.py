"""The policy screens: what is in force, the matrix and its squares, rehearsing, and what was in force."""

from __future__ import annotations

import random
import re
import stat
import zipfile
from collections.abc import Iterator
from datetime import timedelta
from html import unescape
from pathlib import Path

import pytest
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from console_browser import Browser, browser, console_node, personal, serving_console
from console_client import Client, Reply
from factory import card_of, drafts, enrol, events, loopback, make_node, make_set
from gateway import activation, policytexts
from gateway.audit import EventKind
from gateway.console.pages import Desk
from gateway.console.rendering import when
from gateway.exchange import Exchange
from gateway.keyadmin import approvals
from gateway.model import ENTRY_GROUPS, HandlingCode, Restriction, Surface, VictimStatus
from gateway.partners import record_policy
from gateway.policy import Grid, LabelInSet, PartnerRef
from gateway.policy.matrix import SHARED
from gateway.policydrafts import files_in_force
from gateway.policyhistory import reigns
from gateway.policymatrix import own_labels
from gateway.signin import Role, SignIn
from test_console import Served
from test_policydrafts import member, packed

SET = "XA-NCVI/identified"
PARTNERS = ("XB-NCVI", "XC-NCVI")


def screened(folder: object, *, administrators: tuple[str, ...] = ("alice", "bob")) -> Exchange:
    """A gateway with two partners, a founding policy on record, and a set of entries under several labels."""
    node = console_node(folder, administrators=administrators)  # type: ignore[arg-type]
    exchange = Exchange(node)
    for agency in PARTNERS:
        enrol(node, card_of(make_node(folder, agency, clock=node.clock, **loopback())))  # type: ignore[arg-type]
    with node.store.transaction() as tx:
        activation.begin(tx, node)
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


FORBID_SET = FORBID_H0.replace('resource.handling == Handling::"H0"', f'resource.set_name == "{SET}"')


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


def test_a_log_that_is_still_being_read_is_no_log_that_says_nothing(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    dora = served.as_("dora")
    since = f"<dt>since</dt><dd>{when(events(served.node, EventKind.POLICY_ACTIVATED)[0].at)}</dd>"
    assert since in dora.ask("GET", "/policy").text
    with monkeypatch.context() as patched:
        patched.setattr("gateway.logsearch.LogSearch.catch_up", lambda *_: (0, 9))
        assert "the log is being read" in dora.ask("GET", "/policy").text
        assert "The log is being read: 0 of 9" in dora.ask("GET", "/policy/history").text


def test_the_history_turns_its_pages_without_a_gap(tmp_path: Path) -> None:
    exchange = screened(tmp_path)
    node = exchange.node
    previous, texts = node.policy.digest, node.policy.texts
    for number in range(11):
        node.clock.advance(60)  # type: ignore[attr-defined]
        changed = {**texts, NATIONAL: texts[NATIONAL] + FORBID_H0.replace("under-h0", f"under-h0-{number}")}
        with node.store.transaction() as tx:
            digest = policytexts.keep_texts(tx, changed, node.clock())
            record_policy(tx, node, previous=previous, digest=digest)
        previous = digest
    first = reigns(node)
    assert [len(first.reigns), first.reigns[0].until, first.reigns[0].policy] == [10, 0, previous]
    second = reigns(node, before=first.older)
    told = [*first.reigns, *second.reigns]
    assert ([one.previous for one in told[:-1]], told[-1].previous) == ([one.policy for one in told[1:]], "")
    assert [one.until for one in told[1:]] == [one.since for one in told[:-1]]
    assert (len(told), second.older) == (12, 0)
    changes = first.reigns[0].changes
    assert changes is not None
    assert ([one.id for one in changes.added], [one.id for one in changes.removed]) == (
        ["xa-nothing-under-h0-10"],
        ["xa-nothing-under-h0-9"],
    )
    with node.store.transaction() as tx:
        tx.connection.exec_driver_sql("DELETE FROM policy_text")
    assert [one.changes for one in reigns(node).reigns] == [None] * 10


def test_a_set_that_is_anothers_has_no_square(tmp_path: Path) -> None:
    exchange = screened(tmp_path)
    with serving_console(exchange) as address:
        dora = Served(exchange, address).as_("dora")
        square = f"/policy/cell?partner=XB-NCVI&set={SET}&label=1"
        assert dora.ask("GET", square).status == 200
        with exchange.node.store.transaction() as tx:
            tx.connection.exec_driver_sql("UPDATE hash_set SET hub = 'XC-NCVI'")
        assert dora.ask("GET", square).status == 404
        assert "No set of this gateway has a label yet" in dora.ask("GET", "/policy").text
        with exchange.node.store.transaction() as tx:
            tx.connection.exec_driver_sql("UPDATE partner SET state = 'removed'")
        assert dora.ask("GET", "/policy?describe=1").status == 200


# Rehearsing


def draft(text: str, **more: str) -> dict[str, str]:
    return {"editing": NATIONAL, "text": text.replace("\n", "\r\n"), **more}


def in_force(served: Served, path: str = NATIONAL) -> str:
    return files_in_force(served.node)[0][path]


def test_what_is_typed_is_kept_from_file_to_file_and_rehearsed_together(served: Served) -> None:
    alice = served.as_("alice")
    assert "Nothing is changed yet" in alice.ask("GET", "/policy/rehearse").text
    same = alice.ask("POST", "/policy/rehearse", **draft(in_force(served))).text
    assert "Nothing is changed yet" in same
    assert "nothing would be shared or taken otherwise" in same
    page = alice.ask("POST", "/policy/rehearse", **draft("// first\n", deed="open", new="XA/agreement-xe-xf.cedar"))
    assert f'name="file:{NATIONAL}" value="// first\n"' in page.text
    fields = {
        "editing": "XA/agreement-xe-xf.cedar",
        "text": "// second\n",
        f"file:{NATIONAL}": in_force(served) + "// 1\n",
    }
    page = alice.ask("POST", "/policy/rehearse", **fields)
    assert f"<code>{NATIONAL}</code> (changed)" in page.text
    assert "<code>XA/agreement-xe-xf.cedar</code> (new)" in page.text
    assert "are sound" in page.text
    dropped = alice.ask("POST", "/policy/rehearse", **fields, deed="back").text
    assert "agreement-xe-xf" not in dropped.split("Another file")[0]
    left = alice.ask("POST", "/policy/rehearse", **draft(in_force(served), deed="leave")).text
    assert f'name="gone:{NATIONAL}"' in left


def test_a_rehearsal_says_exactly_what_starts_and_stops_and_what_is_wrong(served: Served) -> None:
    alice = served.as_("alice")
    text = alice.ask("POST", "/policy/rehearse", **draft(in_force(served) + FORBID_H0)).text
    assert "1 rule added" in text
    assert "decided otherwise than written" in text
    assert "Propose this policy" not in text
    row = text.partition('<table id="moved">')[2].partition("<tbody>")[2].partition("</tr>")[0]
    for words in (
        "XB-NCVI",
        SET,
        "1: H0, identified",
        "existence (2)",
        "xa-nothing-under-h0",
        '<td class="number">2</td>',
    ):
        assert words in row, words
    broken = alice.ask("POST", "/policy/rehearse", **draft(in_force(served) + FORBID_H0.replace("@law", "@lore"))).text
    assert f"{NATIONAL}, rule xa-nothing-under-h0" in broken
    assert 'id="moved"' not in broken


def test_markup_in_a_rule_stays_text(served: Served) -> None:
    alice = served.as_("alice")
    evil = FORBID_H0.replace(
        "Nothing under H0 is shared.", "</textarea><img src=x onerror=alert(1)><script>alert(1)</script>"
    )
    text = alice.ask("POST", "/policy/rehearse", **draft(in_force(served) + evil)).text
    assert "&lt;img src=x" in text
    assert "<img src=x" not in text
    assert "<script>alert" not in text
    before = served.node.policies.texts
    served.node.policies.take_up({**before, NATIONAL: before[NATIONAL] + evil}, served.node.today)
    try:
        for address in ("/policy", first_square(alice.ask("GET", "/policy").text)):
            text = alice.ask("GET", address).text
            assert "<img src=x" not in text
            assert "<script>alert" not in text
        assert "&lt;img src=x" in text
    finally:
        served.node.policies.take_up(before, served.node.today)


def upload(client: Client, body: bytes, *, token: str = "", parts: str = "") -> Reply:
    """A form with a file, as a browser sends it."""
    edge = "----edge"
    head = (
        f'--{edge}\r\nContent-Disposition: form-data; name="form_token"\r\n\r\n{token or client.form_token}\r\n{parts}'
    )
    head += f'--{edge}\r\nContent-Disposition: form-data; name="archive"; filename="a.zip"\r\n\r\n'
    raw = head.encode() + body + f"\r\n--{edge}--\r\n".encode()
    headers: dict[str, str | None] = {"Content-Type": f"multipart/form-data; boundary={edge}"}
    return client.ask("POST", "/policy/archive", raw=raw, headers=headers)


def test_an_archive_is_rehearsed_and_a_hostile_one_refused(served: Served) -> None:
    alice = served.as_("alice")
    files = dict(files_in_force(served.node)[0])
    text = upload(alice, packed({**files, NATIONAL: files[NATIONAL] + "// reviewed\n"})).text
    assert f"<code>{NATIONAL}</code> (changed)" in text
    assert "Propose this policy" in text
    padding = zipfile.ZipInfo("templates/padding")
    large = upload(alice, packed(files, (padding, random.Random(1).randbytes(3 << 20))))
    assert "Nothing is changed yet" in large.text
    assert large.status == 200
    for more, words in (
        ((member("../XA/evil.cedar"), b"x"), "not a plain relative one"),
        ((member("XA/more.cedar", mode=stat.S_IFLNK | 0o777), b"/etc/passwd"), "ordinary files"),
        ((member("XA/more.cedar"), b"\n" * (40 << 20)), "larger than"),
    ):
        answer = upload(alice, packed(files, more))
        assert (answer.status, words in answer.text) == (400, True), words
    assert upload(alice, b"no archive").status == 400
    assert upload(alice, bytes(5 << 20)).status == 413
    assert upload(alice, packed(files), token="0" * 64).status == 403
    twice = '------edge\r\nContent-Disposition: form-data; name="form_token"\r\n\r\n1\r\n'
    assert upload(alice, packed(files), parts=twice).status == 400
    file = '------edge\r\nContent-Disposition: form-data; name="more"; filename="b.zip"\r\n\r\nx\r\n'
    assert upload(alice, packed(files), parts=file).status == 400
    for raw in (b"", b"--", b"------edge\r\n\r\nx", b"------edge--\r\n"):
        headers: dict[str, str | None] = {"Content-Type": "multipart/form-data; boundary=----edge"}
        assert alice.ask("POST", "/policy/archive", raw=raw, headers=headers).status in (400, 403)
    headers = {"Content-Type": "multipart/form-data"}
    assert alice.ask("POST", "/policy/archive", raw=b"x", headers=headers).status == 400


def test_a_draft_that_is_larger_than_a_page_carries_is_refused(served: Served) -> None:
    alice = served.as_("alice")
    fields = {f"file:XA/a{number}.cedar": "// a\n" for number in range(41)}
    assert alice.ask("POST", "/policy/rehearse", **draft("", **fields)).status == 413
    assert alice.ask("POST", "/policy/rehearse", **draft("x" * (600 << 10))).status == 413
    assert alice.ask("POST", "/policy/rehearse", **draft("x" * (3 << 20))).status == 413
    assert alice.ask("POST", "/policy/rehearse", **draft("", on="2020-01-01")).status == 400
    assert alice.ask("POST", "/policy/rehearse", editing="XB/national.cedar", text="// a\n").status == 400


def test_only_what_was_rehearsed_is_proposed(served: Served) -> None:
    alice = served.as_("alice")
    before = len(approvals(served.node).all())
    text = in_force(served) + "// reviewed\n"
    page = alice.ask("POST", "/policy/rehearse", **draft(text)).text
    folder = re.findall(r'name="folder" value="([0-9a-f]{64})"', page)[0]
    other = alice.ask("POST", "/policy/propose", **draft(text + "// more\n", folder=folder))
    assert (other.status, "rehearse it again" in other.text) == (400, True)
    assert "// more" in other.text  # nobody loses what they wrote
    assert len(approvals(served.node).all()) == before
    proposed = alice.ask("POST", "/policy/propose", **draft(text, folder=folder))
    assert proposed.status == 303
    assert proposed.headers["Location"].startswith("/approvals/")
    assert len(approvals(served.node).all()) == before + 1
    identifier = proposed.headers["Location"].removeprefix("/approvals/").partition("?")[0]
    assert f"/policy/proposal/{identifier}" in served.as_("otto").ask("GET", f"/approvals/{identifier}").text
    full = served.as_("otto").ask("GET", f"/policy/proposal/{identifier}").text
    assert "are sound" in full
    assert "No rule says anything else" in full
    assert served.as_("dora").ask("GET", f"/policy/proposal/{identifier}").status == 404


def test_a_policy_waits_for_its_day_and_can_be_taken_back(tmp_path: Path) -> None:
    exchange = screened(tmp_path)
    node = exchange.node
    with serving_console(exchange) as address:
        served = Served(exchange, address)
        alice = served.as_("alice")
        assert alice.ask("POST", "/policy/cancel").status == 409
        day = (node.today + timedelta(days=3)).isoformat()
        text = in_force(served) + FORBID_SET
        page = alice.ask("POST", "/policy/rehearse", **draft(text, on=day)).text
        folder = re.findall(r'name="folder" value="([0-9a-f]{64})"', page)[0]
        to = alice.ask("POST", "/policy/propose", **draft(text, folder=folder, on=day)).headers["Location"]
        identifier = to.removeprefix("/approvals/").partition("?")[0]
        full = served.as_("otto").ask("GET", f"/policy/proposal/{identifier}").text
        assert f"with the day {day}" in full
        assert "xa-nothing-under-h0" in full
        for name in ("alice", "bob"):
            approvals(node).sign(identifier, personal(name))
        text = served.as_("dora").ask("GET", "/policy").text
        assert f"from {day}" in text
        assert "take back the policy that waits" not in text  # an analyst does not
        assert "take back the policy that waits" in alice.ask("GET", "/policy").text
        assert alice.ask("POST", "/policy/cancel").status == 303
        assert served.as_("otto").ask("GET", f"/policy/proposal/{identifier}").status == 303


@pytest.mark.parametrize("name", ["dora", "otto"])
def test_nobody_but_administrators_drafts_and_proposes(served: Served, name: str) -> None:
    client = served.as_(name)
    assert client.ask("GET", "/policy/rehearse").status == 404
    for address in ("rehearse", "archive", "propose", "cancel"):
        assert client.ask("POST", f"/policy/{address}", **draft("// mine\n")).status == 404
    assert "/policy/rehearse" not in client.ask("GET", "/policy").text


# In a browser


@pytest.mark.slow
def test_a_change_is_rehearsed_proposed_signed_by_two_and_seen_in_the_matrix(tmp_path: Path) -> None:
    exchange = screened(tmp_path)
    node = exchange.node
    with serving_console(exchange), browser() as page:
        page.sign_up(exchange, "alice", Role.ADMINISTRATOR)
        page.get("/policy")
        before = matrix_on(page)
        page.driver.find_element("css selector", ".matrix td a").send_keys(Keys.ARROW_DOWN, Keys.ARROW_RIGHT)
        focused = page.driver.switch_to.active_element
        assert focused.get_attribute("href").endswith("label=2&surface=sealed&partner=XC-NCVI")
        found = page.violations()
        focused.click()
        page.wait_for_heading("XC-NCVI and XA-NCVI/identified, label 2")
        found += page.violations()
        page.get("/policy")
        page.click("Rehearse a change")
        page.wait_for_heading("Rehearse a policy")
        Select(page.driver.find_element("name", "open")).select_by_value(NATIONAL)
        page.click("Open it, and keep what is changed")
        page.wait(lambda driver: driver.find_elements("css selector", f"[name=editing][value='{NATIONAL}']"))
        text = files_in_force(node)[0][NATIONAL]
        write(page, text + "oops")
        page.click("Rehearse")
        page.wait(lambda driver: driver.find_elements("id", "faults"))
        assert f"{NATIONAL}" in page.driver.find_element("css selector", "#faults tbody th").text
        write(page, text + FORBID_SET)
        page.click("Rehearse")
        page.wait(lambda driver: driver.find_elements("id", "propose"))
        moved = page.driver.find_element("id", "moved").text
        assert "XB-NCVI XA-NCVI/identified 1: H0, identified 2 – STOPS".casefold() in moved.casefold()
        found += page.violations()
        page.click("Propose this policy")
        page.wait_for_heading("Bring a policy into force")
        identifier = page.driver.current_url.split("/")[-1].split("?")[0]
        page.click("Which rules it changes, in sentences, and all that starts and stops")
        page.wait_for_heading("What the proposed policy would do")
        assert "1 rule added" in page.text
        found += page.violations()
        for name in ("alice", "bob"):
            approvals(node).sign(identifier, personal(name))
        page.get("/policy")
        after = matrix_on(page)
        assert before != after
        assert {number for row in after for number in row} == {"–"}
        assert "alice, bob" in page.text
        page.get("/policy/history")
        assert "1 rule added" in page.text
        found += page.violations()
        assert found + page.complaints() == []


def matrix_on(page: Browser) -> list[list[str]]:
    """The numbers in the matrix that the browser shows."""
    page.wait(lambda driver: driver.find_elements("id", "behind"))  # the line below it: all of it is there
    rows = page.driver.find_elements("css selector", "table.matrix tbody tr")
    return [[one.text.split()[0] for one in row.find_elements("tag name", "td")] for row in rows]


def write(page: Browser, text: str) -> None:
    """All of the text of the file that is open."""
    page.driver.execute_script("arguments[0].value = arguments[1]", page.driver.find_element("name", "text"), text)
