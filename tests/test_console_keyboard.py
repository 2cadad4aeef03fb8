"""The console without a mouse, and on paper."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from case_builders import case_record
from console_browser import Browser, browser, console_node, serving_console
from factory import FakeClock
from gateway.alarms import AlarmKind, raise_alarm
from gateway.cases.custody import chain
from gateway.cases.custodypage import page as custody_page
from gateway.console import ROUTES
from gateway.exchange import Exchange
from gateway.signin import Role
from test_logsearch import fill

pytestmark = pytest.mark.slow

# What can be used on a page and is shown: by its words, since a part that renews itself has other elements then.
USABLE = """
const seen = (one) => one.checkVisibility() && !one.disabled && one.tabIndex >= 0;
const all = [...document.querySelectorAll('a[href], button, input:not([type=hidden]), select, textarea, summary')];
return all.filter(seen).map((one) => one.outerHTML);
"""
# What has the focus now, whether that can be seen, and whether it is within the window.
FOCUSED = """
const one = document.activeElement, style = getComputedStyle(one), box = one.getBoundingClientRect();
return {
  what: one === document.body ? '' : one.outerHTML,
  ring: style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0,
  inside: box.right > 0 && box.bottom > 0 && box.left < innerWidth && box.top < innerHeight,
};
"""


@pytest.fixture
def exchange(tmp_path: Path) -> Iterator[Exchange]:
    node = console_node(tmp_path, administrators=("alice",))
    assert isinstance(node.clock, FakeClock)
    fill(node, node.clock, 3, 1)
    exchange = Exchange(node)
    exchange.cases.take_in([case_record()], form="vidx")
    with serving_console(exchange):
        yield exchange


@pytest.fixture
def page(exchange: Exchange) -> Iterator[Browser]:
    with browser() as found:
        found.sign_up(exchange, "alice", *Role)
        yield found


def press(page: Browser, *keys: str) -> None:
    ActionChains(page.driver, duration=0).send_keys(*keys).perform()


def tab_to(page: Browser, words: str) -> None:
    """Tab until something that says this has the focus."""
    for _ in range(200):
        press(page, Keys.TAB)
        if page.driver.execute_script("return document.activeElement.innerText").strip() == words:
            return
    raise AssertionError(f"Tab never reaches '{words}'")


def test_tab_reaches_all_that_can_be_used_and_shows_where_it_is(page: Browser) -> None:
    looks = [route for route in ROUTES if route.method == "GET" and not route.live and not route.data]
    for path in [route.path for route in looks if route.roles and "{" not in route.path]:
        page.get(path)
        if page.driver.current_url.split("?")[0] != page.address + path:
            continue  # it leads elsewhere, to a page that has its turn
        reached = set()
        for _ in range(len(page.driver.execute_script(USABLE)) + 8):  # fields of dates have several stops
            press(page, Keys.TAB)
            at = page.driver.execute_script(FOCUSED)
            if at["what"]:
                assert at["ring"], f"{path}: no ring around {at['what']}"
                assert at["inside"], f"{path}: out of sight: {at['what']}"
                reached.add(at["what"])
        missed = set(page.driver.execute_script(USABLE)) - reached
        assert not missed, f"{path}: Tab never reaches {missed}"


def test_a_part_that_renews_itself_leaves_the_focus_where_it_is(page: Browser, exchange: Exchange) -> None:
    words = "1 case in the inbox"
    with exchange.node.store.transaction() as tx:
        row = tx.cases.all()[0]
        tx.cases.replace(row.model_copy(update={"state": "inbox"}))
    page.get("/")
    tab_to(page, words)
    with exchange.node.store.transaction() as tx:
        raise_alarm(tx, exchange.node, AlarmKind.CLOCK_SKEW, "XB-NCVI", "one sentence")
    page.wait(lambda _: "set the clocks" in page.text)
    assert page.driver.execute_script("return document.activeElement.innerText") == words


def test_the_skip_link_is_first_is_shown_and_leads_past_the_navigation(page: Browser) -> None:
    page.get("/partners")
    press(page, Keys.TAB)
    first = page.driver.switch_to.active_element
    assert first.text == "Go to the content"
    assert first.rect["x"] >= 0
    press(page, Keys.ENTER)
    page.wait(lambda driver: driver.switch_to.active_element.get_attribute("id") == "main")
    press(page, Keys.TAB)
    inside = "return document.getElementById('main').contains(document.activeElement)"
    assert page.driver.execute_script(inside)


def test_an_entry_is_searched_for_opened_and_proved_by_keys_alone(page: Browser) -> None:
    press(page, "g", "l")
    page.wait_for_heading("Exchange log")
    press(page, "/")
    assert page.driver.switch_to.active_element.get_attribute("name") == "partner"
    press(page, "XB-NCVI", Keys.ENTER)
    page.wait(lambda driver: "partner=XB-NCVI" in driver.current_url)
    page.wait_for_heading("Exchange log")
    index = page.driver.find_element("css selector", "tbody a").text
    tab_to(page, index)
    press(page, Keys.ENTER)
    page.wait_for_heading(f"Entry {index}")
    tab_to(page, "Details")
    press(page, Keys.SPACE)
    page.wait(lambda _: "The event as it was written" in page.text)
    tab_to(page, "Verify in this browser")
    press(page, Keys.ENTER)
    verdict = page.wait(lambda driver: driver.find_element("id", "verdict").get_attribute("data-verdict"))
    assert verdict == "holds"
    press(page, "g", "t")
    page.wait_for_heading("in numbers")


def test_on_paper_there_is_what_was_asked_for_and_no_navigation(
    page: Browser, exchange: Exchange, tmp_path: Path
) -> None:
    [case] = [one.id for one in exchange.cases.all()]
    file = tmp_path / "custody.html"
    file.write_bytes(custody_page(chain(exchange.node, case)))
    pages = {
        f"{page.address}/log/entry/1": "Entry 1",
        f"{page.address}/statistics": "in numbers",
        file.as_uri(): case[:12],
    }
    for address, words in pages.items():
        page.driver.get(address)
        page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
        shown = page.text
        assert words in shown
        for gone in ("Sign out", "Approvals", "Go to the content", "Verify in this browser", "Evidence pack"):
            assert gone not in shown, address
        printed = page.driver.execute_cdp_cmd("Page.printToPDF", {"printBackground": False})
        raw = base64.b64decode(printed["data"])
        assert raw.startswith(b"%PDF-")
        assert len(raw) > 5_000  # an empty page takes less
        page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
