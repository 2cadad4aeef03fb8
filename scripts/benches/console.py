"""The console over a small log and a large one: what a real browser paints first, and how long a search takes."""

from __future__ import annotations

import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from measure import Bar, Figure, Scale, against
from postgresql import SETTINGS
from worlds import HUB, drafts

from authenticator import Authenticator, challenge_in
from console_browser import Browser, browser, console_node, serving_console
from console_client import Client
from factory import FakeClock, befriend, loopback, make_node, make_set
from gateway import standing
from gateway.audit import Event, EventKind
from gateway.caserecord import CaseRecord, StatusStep, Victim
from gateway.crypto.keys import SYSTEM_RANDOM
from gateway.exchange import Exchange
from gateway.logsearch import LogSearch
from gateway.model import HandlingCode, Purpose, VictimStatus
from gateway.node import Node
from gateway.signin import Role, SignIn
from postgres import Server, is_installed

TARGET = 14  # the first paint within 500 ms, a search within 300 ms, and both flat from 10^4 to 10^6 entries of the log
PAINT, SEARCH = Bar(TARGET, at_most=500), Bar(TARGET, at_most=300)
FLAT = Bar(TARGET, at_most=1.5)
SIZES = (10_000, 1_000_000)
DAYS = 400  # over which the log's entries lie
PARTNERS, SETS, RULES = 41, 12, 20
ENROLLED = 8  # of the partners
LISTED = 500  # entries of the set that the policy screen shows
CASES = 60
PAGES = {"now": "/", "log": "/log", "policy": "/policy", "cases": "/cases"}


def bench_console(scale: Scale) -> Iterator[Figure]:
    """First contentful paint in Chromium, and searches of the log, at 10^4 and 10^6 entries on both databases."""
    logging.getLogger("gateway").setLevel(logging.ERROR)  # of browsers that hang up there is nothing to tell
    with browser() as page:
        yield from _on(scale, page, "sqlite", lambda: None)
        if scale.quick:
            return
        if not is_installed():
            print("# console: PostgreSQL is not installed here, so there is no figure of it", file=sys.stderr)
            return
        with Server(scale.folder, **SETTINGS) as server:
            yield from _on(scale, page, "postgresql", lambda: server.copy(server.new_database()))


def _on(scale: Scale, page: Browser, name: str, database: Callable[[], str | None]) -> Iterator[Figure]:
    sizes = (1_300, 2_600) if scale.quick else SIZES
    base, top = (_measured(scale, page, size, database()) for size in sizes)
    yield Figure(f"console.index.{name}", top.pop("index"), "leaves/s")
    base.pop("index")
    for deed, milliseconds in top.items():
        bar = PAINT if deed.startswith("paint") else SEARCH
        yield Figure(f"console.{deed}.{name}", milliseconds, "ms", bar=bar)
        beside = f"the same among {sizes[0]:,} entries"
        yield against(f"console.{deed}.{name}.flat", milliseconds, "ms", beside, base[deed], FLAT)


def _measured(scale: Scale, page: Browser, size: int, database: str | None) -> dict[str, float]:
    """Milliseconds of every deed with a log of so many entries; and how fast its index was made."""
    with tempfile.TemporaryDirectory(dir=scale.folder) as place, ExitStack() as stack:
        clock = FakeClock()
        more = {"database": database} if database else {}
        node = console_node(Path(place), HUB, administrators=("alice",), clock=clock, random=SYSTEM_RANDOM, **more)
        stack.callback(node.store.close)
        exchange = Exchange(node)
        _furnish(scale, Path(place), exchange, clock)
        days = scale.size(DAYS, 40)
        _fill(node, clock, size, days)
        standing.keep_house(node)  # as the schedule does each minute
        began = time.perf_counter()
        indexed, leaves = LogSearch(node).catch_up(size)  # as many steps as it takes
        found = {"index": indexed / (time.perf_counter() - began)}
        assert indexed == leaves > size
        repeats = scale.size(9, 2)
        with serving_console(exchange) as address:
            page.sign_up(exchange, "alice", *Role)
            for name, path in PAGES.items():
                found[f"paint.{name}"] = statistics.median(_painted(page, path) for _ in range(repeats))
            client = _client(address, node)
            for name, (query, finds) in _questions(clock, days).items():
                found[f"search.{name}"] = statistics.median(
                    _searched(client, query, finds=finds) for _ in range(repeats)
                )
        return found


# A gateway that has been at work for a year


def _furnish(scale: Scale, folder: Path, exchange: Exchange, clock: FakeClock) -> None:
    """Partners, a list under fifty labels, and cases."""
    for number in range(scale.size(ENROLLED, 1)):
        peer = make_node(folder, f"X{'BCDE'[number % 4]}-P{number:03}", clock=clock, **loopback())
        befriend(exchange.node, peer)
        peer.store.close()
    make_set(exchange, "identified", drafts(LISTED))
    exchange.cases.take_in([_case(number) for number in range(scale.size(CASES, 3))], form="case_json")


def _case(number: int) -> CaseRecord:
    begun = 1_794_000_000
    steps = (StatusStep(VictimStatus.UNIDENTIFIED, HUB, begun),)
    return CaseRecord(
        HUB,
        f"XA-2026-{number:04}",
        1,
        opened=begun,
        updated=begun,
        handling=HandlingCode.H1,
        category="xa:1",
        evaluation="B2",
        purpose=Purpose.VICTIM_IDENTIFICATION,
        review_on=date(2027, 6, 1),
        victims=(Victim("V-1", steps),),
    )


def _fill(node: Node, clock: FakeClock, size: int, days: int) -> None:
    """Leaves over many days, by the same shares whatever the size; the clock ends at the last of them."""
    written = 0
    for passed in range(1, days + 1):
        clock.advance(86_400)
        until = size * passed // days
        with node.store.transaction() as tx:
            tx.log.append([_event(node, number) for number in range(written, until)])
        written = until


def _event(node: Node, number: int) -> Event:
    partner, name = f"XB-P{number % PARTNERS:03}", f"{HUB}/set-{number % SETS}"
    if number % 3 == 0:
        details: dict[str, object] = {"partner": partner, "set": name, "changes": number % 100}
        return node.event(EventKind.PAGE_SERVED, actor=HUB, subject=partner, details=details)
    details = {
        "partner": partner,
        "set": name,
        "outcome": "deny" if number % 10 == 0 else "allow",
        "rules": [f"xa-rule-{number % RULES}"],
    }
    return node.event(EventKind.SHARE_DECIDED, actor=HUB, subject=partner, details=details)


# What somebody does


def _questions(clock: FakeClock, days: int) -> dict[str, tuple[str, bool]]:
    """Name to (query, whether anything is found)."""
    day = datetime.fromtimestamp(clock() - days // 2 * 86_400, UTC).date()
    week = f"since={day}&until={day + timedelta(days=6)}"
    return {
        "none": ("", True),
        "partner": ("partner=XB-P007", True),
        "partner-outcome": ("partner=XB-P007&outcome=deny", True),
        "set-rule": (f"set={HUB}/set-1&rule=xa-rule-13", True),
        "days": (week, True),
        "partner-days": (f"partner=XB-P007&{week}", True),
        "never": (f"set={HUB}/set-1&rule=xa-rule-2", False),  # both are common, and never meet
    }


def _searched(client: Client, query: str, *, finds: bool) -> float:
    began = time.perf_counter()
    answer = client.ask("GET", f"/log?{query}")
    taken = time.perf_counter() - began
    assert answer.status == 200
    assert ("/log/entry/" in answer.text) is finds
    return 1000 * taken


def _painted(page: Browser, path: str) -> float:
    """When the browser first painted text or pictures of a page, counted from the click."""
    page.get(path)
    script = "return performance.getEntriesByName('first-contentful-paint').map((one) => one.startTime)"
    [at] = page.wait(lambda driver: driver.execute_script(script))
    return float(at)


def _client(address: str, node: Node) -> Client:
    """An auditor without a browser."""
    signin, key = SignIn(node), Authenticator("otto", origin=address)
    token = signin.invite("otto", [Role.AUDITOR], by="alice")
    made = key.create(challenge_in(signin.begin_registration(token)))
    begun = signin.accept(token, "", made, peer="127.0.0.1", agent="bench")
    return Client(address, begun.cookie, begun.session.form_token)
