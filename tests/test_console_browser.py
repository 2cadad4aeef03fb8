"""The console's main paths in a real browser, with passkeys."""

from __future__ import annotations

from pathlib import Path

import pytest

from authenticator import Authenticator, challenge_in
from console_browser import Browser, browser, console_node, personal, serving_console
from console_client import Client
from factory import FakeClock, befriend, drafts, loopback, make_node, make_set
from gateway.audit import EventKind
from gateway.console import ROUTES
from gateway.exchange import Exchange
from gateway.keyadmin import approvals, export_card, own_card, remove_administrator
from gateway.node import log_origin
from gateway.signin import Role, SignIn
from gateway.standing import roster
from test_evidencepack import judged
from test_logsearch import fill

pytestmark = pytest.mark.slow


def let_sign(page: Browser, exchange: Exchange, name: str) -> None:
    """The passkey of whoever is signed in is proposed to sign, and added by two keys."""
    page.get("/me")
    page.click("Ask the administrators")
    page.wait_for_heading("Let a passkey sign")
    identifier = page.driver.current_url.split("/")[-1].split("?")[0]
    desk = approvals(exchange.node)
    for one in ("alice", "bob"):
        desk.sign(identifier, personal(one))
    assert name in desk.get(identifier).subject


def test_two_administrators_with_two_browsers_do_a_guarded_act(tmp_path: Path) -> None:
    node = console_node(tmp_path, administrators=("alice", "bob"), quorum=2)
    exchange = Exchange(node)
    with serving_console(exchange), browser() as first, browser() as second:
        first.sign_up(exchange, "alice", Role.ADMINISTRATOR)
        second.sign_up(exchange, "bob", Role.ADMINISTRATOR)
        let_sign(first, exchange, "alice")
        let_sign(second, exchange, "bob")
        desk = approvals(node)
        desk.propose(*remove_administrator("bob", "moved"), by="alice")
        # With two administrators and a quorum of two nobody may go: the page says so, and keeps no signature.
        first.get("/approvals")
        first.click("End somebody's time as administrator")
        first.click("Sign with your passkey")
        first.wait(lambda _: "alice (1 of 2)" in first.text)
        second.get(first.driver.current_url.removeprefix(first.address).split("?")[0])
        second.click("Sign with your passkey")
        second.wait(lambda _: "add another one first" in second.text)
        with node.store.reading() as tx:
            assert "bob" in roster(tx, node).administrators
        assert first.complaints() + second.complaints() == [] or all(
            "409" in one for one in first.complaints() + second.complaints()
        )


def test_somebody_is_invited_comes_in_and_goes(tmp_path: Path) -> None:
    node = console_node(tmp_path, administrators=("alice",))
    exchange = Exchange(node)
    with serving_console(exchange), browser() as first, browser() as second:
        first.sign_up(exchange, "alice", Role.ADMINISTRATOR)
        first.get("/people")
        first.fill("name", "dora")
        first.driver.find_element("name", "role_analyst").click()
        first.click("Invite")
        first.wait_for_heading("People")
        first.wait(lambda _: first.driver.find_elements("css selector", "[data-link]"))
        link = first.driver.find_element("css selector", "[data-link]").text
        second.address = first.address
        second.driver.get(link)
        second.click("Register a passkey")
        second.wait_for_heading("Now")
        second.click("Sign out")
        second.wait_for_heading("Sign in")
        second.click("Sign in with a passkey")
        second.wait_for_heading("Now")
        second.get("/people")
        assert second.headings() == ["There is nothing here"]
        assert first.complaints() == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_no_page_keeps_anybody_out(tmp_path: Path, dark: bool) -> None:
    """axe-core finds nothing on any page, by day and by night, and pages keep to their own policy."""
    node = console_node(tmp_path, administrators=("alice",))
    exchange = Exchange(node)
    with serving_console(exchange), browser(dark=dark) as page:
        page.address = node.settings.console_url
        looks = [route for route in ROUTES if route.method == "GET" and not route.live and not route.data]
        pages = [route.path for route in looks if "{" not in route.path]
        found = {}
        page.get("/sign-in")
        found["/sign-in"] = page.violations()
        page.sign_up(exchange, "alice", *Role)
        for path in pages:
            page.get(path)
            found[path] = page.violations()
        assert {path: violations for path, violations in found.items() if violations} == {}
        assert page.complaints() == []


def test_an_auditor_proves_the_log_in_the_browser_and_finds_what_was_altered(tmp_path: Path) -> None:
    node = console_node(tmp_path, administrators=("alice",))
    exchange = Exchange(node)
    assert isinstance(node.clock, FakeClock)
    fill(node, node.clock, 10, 1)
    with serving_console(exchange), browser() as page:
        page.sign_up(exchange, "otto", Role.AUDITOR)
        page.get("/log?partner=XB-NCVI")
        index = page.driver.find_element("css selector", "tbody a").text
        page.click(index)
        page.click("Verify in this browser")
        verdict = page.wait(lambda driver: driver.find_element("id", "verdict").get_attribute("data-verdict"))
        assert verdict == "holds", page.text
        page.get("/log/sample?seed=of+tests&count=5")
        page.click("Verify all of them in this browser")
        page.wait(lambda driver: len(driver.find_elements("css selector", "td .level-good")) == 5)
        # Somebody with the database changes what an event says.
        with node.store.transaction() as tx:
            tx.connection.exec_driver_sql(
                "UPDATE audit_leaf SET event = replace(event, 'XB-NCVI', 'XC-NCVI') WHERE idx = " + index
            )
        page.get(f"/log/entry/{index}")
        page.click("Verify in this browser")
        verdict = page.wait(lambda driver: driver.find_element("id", "verdict").get_attribute("data-verdict"))
        assert verdict == "fails"
        assert "not the one that the entry commits to" in page.text
        # The whole log is put away for another one, signed by the same key: this browser has seen more.
        with node.store.transaction() as tx:
            tx.log.begin(log_origin(node.agency))
            tx.log.append([node.event(EventKind.PAUSED, actor=node.agency, subject="")])
        page.get("/log/unaltered")
        page.click("Prove it")
        verdict = page.wait(lambda driver: driver.find_element("id", "verdict").get_attribute("data-verdict"))
        assert verdict == "fails"


def test_evidence_is_handed_over_as_a_pack(tmp_path: Path) -> None:
    node = console_node(tmp_path, administrators=("alice",))
    exchange = Exchange(node)
    with serving_console(exchange) as address:
        signin = SignIn(node)
        key = Authenticator("otto", origin=address)
        token = signin.invite("otto", [Role.AUDITOR], by="alice")
        begun = signin.accept(token, "", key.create(challenge_in(signin.begin_registration(token))), peer="", agent="")
        answer = Client(address, begun.cookie, begun.session.form_token).ask("POST", "/log/pack", leaves="0 1")
    assert answer.headers["Content-Type"] == "application/zip"
    assert judged(tmp_path, node, answer.body) == 0


def test_a_partner_is_enrolled_by_the_fingerprint_that_somebody_heard(tmp_path: Path) -> None:
    clock = FakeClock()
    node = console_node(tmp_path, administrators=("alice", "bob"), clock=clock)
    peer = make_node(tmp_path, "XB-NCVI", clock=clock, **loopback())
    exchange, card = Exchange(node), own_card(peer)
    with serving_console(exchange), browser() as page:
        page.sign_up(exchange, "alice", Role.ADMINISTRATOR)
        page.get("/partners")
        field = page.driver.find_element("name", "card")
        page.driver.execute_script("arguments[0].value = arguments[1]", field, export_card(peer).decode())
        page.click("Look at the card")
        page.wait_for_heading("The card of XB-NCVI")
        assert card.fingerprint not in page.text  # whoever could read it need not listen
        page.fill("fingerprint", "0" * 40)
        page.click("It is theirs: propose it")
        page.wait(lambda _: "is not this card's" in page.text)
        page.fill("fingerprint", card.fingerprint)
        page.click("It is theirs: propose it")
        page.wait_for_heading("Enrol a partner")
        identifier = page.driver.current_url.split("/")[-1].split("?")[0]
        for name in ("alice", "bob"):
            approvals(node).sign(identifier, personal(name))
        page.get("/partners")
        page.click("XB-NCVI")
        page.wait_for_heading("XB-NCVI")
        assert card.fingerprint in page.text
        # Stopping takes one person, going on two.
        page.click("Stop the exchange")
        page.driver.switch_to.alert.accept()
        page.wait(lambda _: "paused" in page.text)
        page.get("/keys")
        assert "not yet" in page.text
        assert page.violations() == []


def test_a_partners_sync_is_run_now_and_watched_until_both_ends_are_equal(tmp_path: Path) -> None:
    clock = FakeClock()
    node = console_node(tmp_path, administrators=("alice",), clock=clock, sync_interval_seconds=86_400)
    peer = make_node(tmp_path, "XB-NCVI", clock=clock, **loopback())
    befriend(node, peer)
    exchange, partner = Exchange(node), Exchange(peer)
    make_set(partner, "open", drafts(40))
    with serving_console(exchange, partner=partner), browser() as page:
        page.sign_up(exchange, "alice", Role.ADMINISTRATOR, Role.AUDITOR)
        page.get("/sync")
        page.wait(lambda _: "40" in page.text and "equal" in page.text)  # the first run is due at once
        partner.ledger.import_entries("XB-NCVI/open", drafts(20, first=40), actor="tester", form="test")
        clock.advance(60)
        assert "60" not in page.text  # the next run is tomorrow
        page.click("Run now: XB-NCVI")
        page.wait(lambda _: "It begins now." in page.text)
        page.wait(lambda _: "1:60" in page.text)  # the page follows by itself
        assert page.violations() == []
        page.get("/statistics")
        assert "60" in page.driver.find_element("css selector", "tbody").text
        page.get("/log?kind=page_applied")
        assert page.driver.find_elements("css selector", "tbody tr")
        assert page.complaints() == []
