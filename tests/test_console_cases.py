"""The console for analysts: looking up lists, and working on cases, over HTTP and in a real browser."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
from selenium.webdriver.common.by import By

from console_browser import browser, console_node, serving_console
from factory import FakeClock, befriend, card_of, drafts, loopback, make_node, make_set, sha256
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
from gateway.exchange import Exchange
from gateway.keyadmin import approvals
from gateway.model import HandlingCode, Purpose, VictimStatus
from gateway.signin import Role
from gateway.store.tables import CaseThread
from test_console import Served

SECRET = "a lamp-post with a green band, and a tram in the distance"
RECORD = CaseRecord(
    "XA-NCVI",
    "XA-2026-0042",
    1,
    opened=1_794_000_000,
    updated=1_794_900_000,
    handling=HandlingCode.H1,
    category="xa:1",
    evaluation="B2",
    purpose=Purpose.VICTIM_IDENTIFICATION,
    review_on=date(2027, 6, 1),
    urgency=Urgency.CHILD_AT_RISK,
    summary="found by a hotline",
    victims=(Victim("V-1", (StatusStep(VictimStatus.UNIDENTIFIED, "XA-NCVI", 1_794_100_000),)),),
    clues=(Clue(ClueKind.OBJECT, SECRET, 80, ClueSource.ANALYST),),
    places=(Place("XB", "", "a town with trams", 80, ClueSource.ANALYST),),
    entries=(EntryReference(digests=(("sha256", sha256("of a case")),)),),
    contact=Contact("XA victim identification", duty_telephone="+990 1 234"),
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder, clock = tmp_path_factory.mktemp("analysts"), FakeClock()
    node = console_node(folder, administrators=("alice", "bob"), clock=clock)
    peer = make_node(folder, "XB-NCVI", clock=clock, **loopback())
    befriend(node, peer)
    assert card_of(peer).agency == "XB-NCVI"
    exchange = Exchange(node)
    make_set(exchange, "known", drafts(3, victim_status=VictimStatus.IDENTIFIED))
    make_set(exchange, "open", drafts(2, first=3, victim_status=VictimStatus.UNIDENTIFIED))
    exchange.cases.take_in([RECORD], form="case_json")
    with serving_console(exchange) as address:
        yield Served(exchange, address)


def hexadecimal(number: int) -> str:
    return hashlib.sha256(f"made-up {number}".encode()).hexdigest()


def case_of(served: Served) -> str:
    [row] = served.exchange.cases.all()
    return row.id


def test_a_pasted_list_is_answered_at_a_glance(served: Served) -> None:
    asked = "\n".join([hexadecimal(0), hexadecimal(3), "f" * 64, "this is no digest", "", "# a remark"])
    text = served.as_("dora").ask("POST", "/look-up", digests=asked).text
    assert tiles(text) == {"identified": 1, "lead": 0, "unidentified": 1, "listed": 0, "needs review": 0, "unknown": 1}
    assert "1 row held no digest" in text
    assert "this is no digest" not in text


def tiles(text: str) -> dict[str, int]:
    found = re.findall(r"<strong>([\d,]+)</strong> <span>([a-z ]+)</span>", text)
    return {word: int(count) for count, word in found}


@pytest.mark.parametrize(
    "body",
    [b"\xff\xd8\xff\xe0 JFIF", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"PK\x03\x04", b"\0\0\0\x18ftypmp42", b"\0" * 64],
)
def test_imagery_is_refused_by_the_gateway_as_well(served: Served, body: bytes) -> None:
    headers = {
        "Content-Type": "text/plain",
        "X-Form-Token": served.as_("dora").form_token,
        "Accept": "application/json",
    }
    answer = served.as_("dora").ask("POST", "/look-up", raw=body, headers=headers)
    assert answer.status == 400
    assert answer.json()["message"]


def test_a_list_that_is_too_long_is_refused_whole(served: Served) -> None:
    body = b"\n".join(hashlib.sha256(b"%d" % number).hexdigest().encode() for number in range(100_001))
    headers = {
        "Content-Type": "text/plain",
        "X-Form-Token": served.as_("dora").form_token,
        "Accept": "application/json",
    }
    answer = served.as_("dora").ask("POST", "/look-up", raw=body, headers=headers)
    assert answer.status == 400
    assert "100,000" in answer.json()["message"]


def test_a_case_waits_for_what_law_needs_then_shows_what_would_go(served: Served) -> None:
    dora = served.as_("dora")
    identifier = case_of(served)
    inbox = dora.ask("GET", "/cases").text
    assert "legal basis" in inbox
    assert "XA-2026-0042" not in inbox  # the list names cases by their local id alone
    shown = dora.ask("GET", f"/cases/{identifier}").text
    assert '<details id="clues">' in shown  # folded until somebody opens them
    done = dora.ask("POST", f"/cases/{identifier}/complete", legal_basis="XA Police Data Act 2019, section 12")
    assert done.status == 303
    assert served.exchange.cases.get(identifier).row.state == "open"
    pointed = dora.ask("GET", "/cases").text
    assert "XB-NCVI" in pointed
    preview = dora.ask("GET", f"/cases/{identifier}/refer?partner=XB-NCVI").text
    assert "What goes, and what stays" in preview or "not" in preview


def received(identifier: str) -> CaseThread:
    """A thread in which XB has referred a case that nobody here has read."""
    about = {"case_id": identifier, "purpose": "victim_identification", "version": 1, "digest": "0" * 64, "groups": ""}
    return CaseThread(partner="XB-NCVI", id="ab" * 16, side="theirs", state="received", created=0, due=0, **about)


def test_looking_at_a_case_tells_nobody_anything_and_saying_so_does(served: Served) -> None:
    dora, identifier = served.as_("dora"), case_of(served)

    def state() -> str:
        [thread] = served.exchange.talk.threads(identifier)
        return thread.state

    with served.node.store.transaction() as tx:
        tx.cases.put_thread(received(identifier))
        leaves = tx.log.size()
    try:
        assert "that it was read" in dora.ask("GET", f"/cases/{identifier}").text
        with served.node.store.reading() as tx:
            assert tx.log.size() == leaves
        assert state() == "received"
        assert dora.ask("POST", f"/cases/{identifier}/read").status == 303
        assert state() == "read"
        assert "that it was read" not in dora.ask("GET", f"/cases/{identifier}").text
    finally:
        with served.node.store.transaction() as tx:
            tx.connection.exec_driver_sql("DELETE FROM case_thread")


def test_a_proposal_that_can_be_done_no_more_is_shown_as_such(served: Served) -> None:
    """A case was referred, and has changed since: whoever proposed that still withdraws it from its page."""
    act = ("case_alert", {"case": case_of(served), "form": "json", "digest": "0" * 64})
    identifier = approvals(served.node).propose(*act, by="alice")
    shown = served.as_("alice").ask("GET", f"/approvals/{identifier}")
    assert shown.status == 200
    assert "It can be done no more" in shown.text
    assert served.as_("alice").ask("POST", f"/approvals/{identifier}/withdraw").status == 303


def test_nobody_but_analysts_sees_anything_of_a_case(served: Served) -> None:
    identifier = case_of(served)
    for name in ("alice", "otto"):
        for path in (f"/cases/{identifier}", "/cases", f"/cases/{identifier}/custody", f"/cases/{identifier}/refer"):
            answer = served.as_(name).ask("GET", path)
            assert answer.status == 404
            assert SECRET not in answer.text


def test_an_abbreviated_or_unknown_case_is_none(served: Served) -> None:
    identifier = case_of(served)
    for other in (identifier[:12], "0" * 32, identifier.upper(), "x" * 32):
        assert served.as_("dora").ask("GET", f"/cases/{other}").status == 404


def test_the_log_of_the_console_names_no_text_of_a_case(served: Served) -> None:
    served.as_("dora").ask("GET", f"/cases/{case_of(served)}")
    with served.node.store.reading() as tx:
        events = b"".join(row.event_bytes or b"" for row in tx.log.leaves())
    for secret in (SECRET, "XA-2026-0042", "V-1", "trams", hexadecimal(0)):
        assert secret.encode() not in events


@pytest.mark.slow
def test_an_analyst_looks_up_a_dropped_list_and_no_picture(served: Served, tmp_path: Path) -> None:
    wordlist = tmp_path / "list.txt"
    wordlist.write_text("\n".join([hexadecimal(0), hexadecimal(3), "f" * 64]))
    picture = tmp_path / "list.csv"
    picture.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    with browser() as page:
        page.sign_up(served.exchange, "emma", Role.ANALYST)
        page.get("/look-up")
        chooser = page.driver.find_element(By.ID, "file")
        chooser.send_keys(str(picture))
        page.wait(lambda _: "no list of digests" in page.text)
        assert page.driver.find_element(By.NAME, "digests").get_attribute("value") == ""
        chooser.send_keys(str(wordlist))
        page.wait(lambda driver: "\n" in str(driver.find_element(By.NAME, "digests").get_attribute("value")))
        page.click("Look up")
        page.wait(lambda _: "3 digests" in page.text)
        assert "the child is identified: stop searching, ask who" in page.text
        assert page.violations() == []
        page.get(f"/cases/{case_of(served)}")
        assert SECRET not in page.text
        page.driver.find_element(By.CSS_SELECTOR, "#clues summary").click()
        assert SECRET in page.text
        assert page.violations() == []
        assert page.complaints() == []


@pytest.mark.slow
def test_that_a_case_was_opened_is_told_by_the_page_itself(served: Served) -> None:
    identifier = case_of(served)
    with served.node.store.transaction() as tx:
        tx.cases.put_thread(received(identifier))
    with browser() as page:
        page.sign_up(served.exchange, "fred", Role.ANALYST)
        page.get(f"/cases/{identifier}")
        page.wait(lambda _: served.exchange.talk.threads(identifier)[0].state == "read")
        page.wait(lambda _: "that it was read" not in page.text)
