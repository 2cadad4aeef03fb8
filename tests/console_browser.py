"""A console that really listens, and a real browser with authenticators of its own.

    with serving_console(exchange) as console, browser() as first:
        first.open(console, "alice", roles)      # invited, passkey registered, signed in
        first.get("/partners")

Chromium is Debian's, driven through its own driver; the authenticator is Chromium's virtual one (W3C WebAuthn, 11), so
everything between the page and the gateway is real. No page of any other address is ever asked for.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.virtual_authenticator import VirtualAuthenticatorOptions
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from factory import UNBOUNDED, FakeClock, link_to, make_node
from gateway.app import start, start_console
from gateway.crypto.keys import SigningKey
from gateway.exchange import Exchange
from gateway.keyadmin import bootstrap_administrator
from gateway.keystore import PersonalKey
from gateway.node import Node
from gateway.signin import Role, SignIn
from gateway.sync import Schedule

CHROMIUM, DRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"
WAIT_SECONDS = 20
AXE = Path(__file__).parent / "axe" / "node_modules" / "axe-core" / "axe.min.js"
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-extensions",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1", "--window-size=1366,900",
)  # fmt: skip


def free_port() -> int:
    """A port of this machine that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def console_node(tmp_path: Path, agency: str = "XA-NCVI", *, administrators: tuple[str, ...] = (), **more: Any) -> Node:
    """A node whose settings have a console on a free port, with administrators of these names."""
    port = free_port()
    more.setdefault("quorum", max(1, len(administrators)))
    settings = {"console_url": f"http://localhost:{port}", "console_port": port, **more}
    node = make_node(tmp_path, agency, clock=settings.pop("clock", None) or FakeClock(), **settings)
    for name in administrators:
        bootstrap_administrator(node, name, personal(name).signing_key.public)
    return node


_KEYS: dict[str, PersonalKey] = {}


def personal(name: str) -> PersonalKey:
    """An administrator's key, made once a run."""
    if name not in _KEYS:
        _KEYS[name] = PersonalKey(name, SigningKey.generate())
    return _KEYS[name]


@contextmanager
def serving_console(exchange: Exchange, *, partner: Exchange | None = None) -> Iterator[str]:
    """The console of a gateway, listening; its address.

    Args:
        partner: whose gateway listens beside it; then the schedule runs that follows it.
    """
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def run(work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(WAIT_SECONDS)

    servers = [run(start_console(exchange, limits=UNBOUNDED))]
    following = None
    if partner is not None:
        there = partner.node
        servers.append(run(start(partner, limits=UNBOUNDED)))
        schedule = Schedule(exchange, lambda _card: link_to(there, exchange.node))
        following = asyncio.run_coroutine_threadsafe(schedule.run_forever(), loop)
    try:
        yield exchange.node.settings.console_url
    finally:
        if following is not None:
            following.cancel()
        for server in servers:
            run(server.close())
        loop.call_soon_threadsafe(loop.stop)
        thread.join(WAIT_SECONDS)
        loop.close()


@dataclass
class Browser:
    """One person's browser."""

    driver: webdriver.Chrome
    address: str = ""

    def sign_up(self, exchange: Exchange, name: str, *roles: Role, by: str = "alice") -> None:
        """Invited, a passkey registered, signed in."""
        self.address = exchange.node.settings.console_url
        token = SignIn(exchange.node).invite(name, roles, by=by)
        self.get(f"/invitation/{token}")
        self.click("Register a passkey")
        self.wait_for_heading("Now")

    def get(self, path: str) -> None:
        """Go to an address of the console."""
        self.driver.get(self.address + path)

    def wait(self, condition: Any) -> Any:
        """What a condition of the driver gives, once it gives something."""
        # A page that changes meanwhile is looked at again.
        ignored = [StaleElementReferenceException]
        return WebDriverWait(self.driver, WAIT_SECONDS, poll_frequency=0.05, ignored_exceptions=ignored).until(
            condition
        )

    def wait_for_heading(self, words: str) -> None:
        """Returns when the page has this heading."""
        self.wait(lambda driver: any(words in one for one in self.headings()))

    def headings(self) -> list[str]:
        """The texts of the first headings; empty while a page is being loaded."""
        try:
            return [one.text for one in self.driver.find_elements(By.TAG_NAME, "h1")]
        except Exception:
            return []

    def button(self, words: str) -> WebElement:
        """The button that says this."""
        quoted = f'"{words}"'
        found = f"//button[normalize-space()={quoted} or @aria-label={quoted}] | //a[normalize-space()={quoted}]"
        return self.driver.find_element(By.XPATH, found)

    def click(self, words: str) -> None:
        """Press the button, or follow the link, that says this."""
        self.button(words).click()

    def fill(self, name: str, words: str) -> None:
        """Fill in a field by its name."""
        field = self.driver.find_element(By.NAME, name)
        field.clear()
        field.send_keys(words)

    @property
    def text(self) -> str:
        """What the page shows."""
        return self.driver.find_element(By.TAG_NAME, "body").text

    def violations(self) -> list[str]:
        """What axe-core finds on this page against WCAG 2.2 A and AA, and its own best practices."""
        self.driver.execute_script(AXE.read_text(encoding="utf-8"))
        found = self.driver.execute_async_script(
            "const done = arguments[0];"
            "axe.run(document).then((found) => done(found.violations), (error) => done([String(error)]))"
        )
        return [
            f"{one['id']}: {one['help']}: {[node['html'] for node in one['nodes']][:3]}"
            if isinstance(one, dict)
            else one
            for one in found
        ]

    def complaints(self) -> list[str]:
        """What the browser's console holds against the page: errors of scripts, and what its policy forbade."""
        return [one["message"] for one in self.driver.get_log("browser") if one["level"] in ("SEVERE", "WARNING")]


@contextmanager
def browser(*, dark: bool = False) -> Iterator[Browser]:
    """A browser with an empty profile and a virtual authenticator that verifies its user."""
    with TemporaryDirectory(prefix="console-browser-") as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        driver = webdriver.Chrome(options=options, service=Service(DRIVER))
        try:
            authenticator = VirtualAuthenticatorOptions(
                transport=VirtualAuthenticatorOptions.Transport.INTERNAL,
                has_resident_key=True,
                has_user_verification=True,
                is_user_verified=True,
            )
            driver.add_virtual_authenticator(authenticator)
            scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
            driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
            yield Browser(driver)
        finally:
            driver.quit()
