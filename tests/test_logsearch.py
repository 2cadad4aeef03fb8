"""Searching the log: the index says the same as reading every event, whatever was appended, erased or restored."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from factory import FakeClock, events, make_node
from gateway import logsearch
from gateway.audit import Event, EventKind, parse_event
from gateway.errors import MalformedError
from gateway.eventwords import day, facets
from gateway.logsearch import LogSearch
from gateway.node import Node

DAY = 86_400


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def node(tmp_path: Path, clock: FakeClock) -> Node:
    return make_node(tmp_path, "XA-NCVI", clock=clock)


def fill(node: Node, clock: FakeClock, count: int, seed: int) -> None:
    source = random.Random(seed)
    for _ in range(count):
        clock.advance(source.choice([1, 60, 7 * 3600, DAY]))
        partner = source.choice(["XB-NCVI", "XC-NCVI", "XD-NCVI"])
        made = [
            node.event(
                EventKind.SHARE_DECIDED,
                actor=node.agency,
                subject=partner,
                details={
                    "partner": partner,
                    "set": f"XA-NCVI/{source.choice(['identified', 'open'])}",
                    "outcome": source.choice(["allow", "deny"]),
                    "rules": source.sample(["xa-share", "xa-forbid", "xa-series"], 2),
                },
            ),
            node.event(EventKind.MESSAGE_REFUSED, actor=partner, subject=partner, details={"sender": partner}),
        ]
        with node.store.transaction() as tx:
            tx.log.append(source.sample(made, source.choice([1, 2])), blocks=[b"x" * 32] * source.choice([0, 1]))


def all_events(node: Node) -> list[tuple[int, Event]]:
    with node.store.reading() as tx:
        return [(row.index, parse_event(row.event_bytes)) for row in tx.log.leaves() if row.event_bytes is not None]


def by_reading(node: Node, wanted: dict[str, str], since: str, until: str) -> list[int]:
    found = [
        index
        for index, event in all_events(node)
        if set(wanted.items()) <= set(facets(event, node.agency))
        and (not since or day(event.at) >= since)
        and (not until or day(event.at) <= until)
    ]
    return found[::-1]


def by_search(node: Node, wanted: dict[str, str], since: str, until: str, limit: int) -> list[int]:
    found: list[int] = []
    search, before = LogSearch(node), 0
    while True:
        page = search.find(wanted, since=since, until=until, before=before, limit=limit)
        found += [one.index for one in page.leaves]
        if not page.older:
            return found
        before = page.older


QUESTIONS = [
    {"partner": "XB-NCVI"},
    {"partner": "XB-NCVI", "outcome": "deny"},
    {"set": "XA-NCVI/open", "rule": "xa-forbid", "partner": "XC-NCVI"},
    {"kind": "message_refused"},
    {"outcome": "refused", "actor": "XD-NCVI"},
    {"rule": "no-such-rule"},
]


@pytest.mark.parametrize("wanted", QUESTIONS, ids=str)
def test_what_is_found_is_what_reading_every_event_finds(
    node: Node, clock: FakeClock, wanted: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logsearch, "STEP_LEAVES", 7)
    monkeypatch.setattr(logsearch, "MAX_STEPS", 1_000)
    for seed in range(3):
        fill(node, clock, 12, seed)
        days = sorted({day(event.at) for _, event in all_events(node)})
        for since, until in (("", ""), (days[1], ""), ("", days[-2]), (days[0], days[1]), ("2030-01-01", "")):
            expected = by_reading(node, wanted, since, until)
            assert by_search(node, wanted, since, until, limit=3) == expected, (since, until)


def test_without_a_question_the_newest_leaves_come_blocks_included(node: Node, clock: FakeClock) -> None:
    fill(node, clock, 30, 1)
    with node.store.reading() as tx:
        size = tx.log.size()
    assert by_search(node, {}, "", "", limit=10) == list(range(size - 1, -1, -1))


def test_what_is_erased_from_the_log_is_found_no_more(node: Node, clock: FakeClock) -> None:
    fill(node, clock, 10, 2)
    search = LogSearch(node)
    before = [one.index for one in search.find({"partner": "XB-NCVI"}, limit=100).leaves]
    gone = before[0]
    details: dict[str, object] = {"first": gone, "last": gone, "reason": "by order"}
    with node.store.transaction() as tx:
        tx.log.append([node.event(EventKind.EVENT_ERASED, actor="XA-NCVI", subject="log", details=details)])
    assert [one.index for one in search.find({"partner": "XB-NCVI"}, limit=100).leaves] == before[1:]


def test_a_log_that_begins_anew_is_searched_anew(node: Node, clock: FakeClock) -> None:
    fill(node, clock, 10, 3)
    search = LogSearch(node)
    assert search.find({"partner": "XB-NCVI"}).leaves
    with node.store.transaction() as tx:
        tx.people.set_meta("log facets 3", "partner-exchange/XA-NCVI/log/0 5")
    assert by_search(node, {"partner": "XB-NCVI"}, "", "", 100) == by_reading(node, {"partner": "XB-NCVI"}, "", "")


@pytest.mark.parametrize("days", [{"since": "yesterday"}, {"until": "2026-13-01"}, {"until": "9999-12-31"}])
def test_a_day_is_written_in_one_way(node: Node, days: dict[str, str]) -> None:
    with pytest.raises(MalformedError):
        LogSearch(node).find({"kind": "paused"}, **days)


def test_nothing_is_searched_by_what_is_no_facet(node: Node) -> None:
    with pytest.raises(MalformedError):
        LogSearch(node).find({"details": "x"})


def test_the_values_of_a_facet_are_offered(node: Node, clock: FakeClock) -> None:
    fill(node, clock, 20, 4)
    search = LogSearch(node)
    search.catch_up()
    assert search.values("partner") == ["XB-NCVI", "XC-NCVI", "XD-NCVI"]
    assert "share_decided" in search.values("kind")
    assert events(node, EventKind.SHARE_DECIDED)


def test_the_numbers_of_a_year_are_what_its_events_add_up_to(node: Node, clock: FakeClock) -> None:
    search, made = LogSearch(node), []
    for number in range(1, 6):
        for partner in ("XB-NCVI", "XC-NCVI"):
            details: dict[str, object] = {"partner": partner, "set": "XA-NCVI/open", "changes": number}
            made.append(node.event(EventKind.PAGE_SENT, actor=node.agency, subject=partner, details=details))
        with node.store.transaction() as tx:
            tx.log.append(made)
        made.clear()
        search.catch_up()  # in several steps, each counted once
    clock.advance(366 * DAY)
    with node.store.transaction() as tx:
        details = {"partner": "XB-NCVI", "changes": 100}
        tx.log.append([node.event(EventKind.PAGE_SERVED, actor=node.agency, subject="XB-NCVI", details=details)])
    search.catch_up()
    assert search.counts(2026) == [("XB-NCVI", "sent", 15), ("XC-NCVI", "sent", 15)]
    assert search.counts(2027) == [("XB-NCVI", "sent", 100)]
