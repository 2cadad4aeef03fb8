"""Following an NCMEC-style server: our own door, and one that behaves as theirs do on a bad day."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from factory import FakeClock, befriend, events, loopback, make_node, make_set, serving
from gateway.adapters.ncmec import NAMESPACE
from gateway.alarms import AlarmKind, sweep
from gateway.audit import EventKind
from gateway.callers import Callers, Scope
from gateway.client import HashSharingLink
from gateway.errors import (
    ConfigError,
    ConflictError,
    GatewayError,
    MalformedError,
    NotFoundError,
    OverloadedError,
    PartnerError,
    UnauthenticatedError,
)
from gateway.exchange import Exchange, windows
from gateway.exchange.labels import SetDefaults
from gateway.model import EntryDraft, HandlingCode
from gateway.sourcing import FOLLOWING_SECONDS, Followed, Sourcing, follow

SET = "XB-NCVI/from-xa"


def md5(number: int) -> bytes:
    return hashlib.md5(f"made-up {number}".encode()).digest()


def files(*numbers: int, **fields: Any) -> list[EntryDraft]:
    fields.setdefault("media_type", "video/mp4")
    return [EntryDraft({"md5": md5(n)}, source_ref=f"ref-{n}", **fields) for n in numbers]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def xa(tmp_path: Path, clock: FakeClock) -> Exchange:
    node = make_node(tmp_path, "XA-NCVI", clock=clock, **loopback())
    befriend(node, make_node(tmp_path, "XB-NCVI", clock=clock))
    return Exchange(node)


@pytest.fixture
def xb(tmp_path: Path, clock: FakeClock, xa: Exchange) -> Exchange:
    """A gateway that follows XA's hash-sharing door."""
    settings = {
        "hashsharing_url": xa.node.settings.public_url + "/hashsharing",
        "hashsharing_user": "XB-NCVI",
        "hashsharing_password_file": "secret",
        "hashsharing_set": SET,
    }
    (tmp_path / "following").mkdir()
    exchange = Exchange(make_node(tmp_path / "following", "XB-NCVI", clock=clock, **settings))
    defaults = SetDefaults("XB Police Act, section 4", handling=HandlingCode.H1)
    exchange.ledger.create_set(SET, "victim_identification", defaults, "tester")
    return exchange


@pytest_asyncio.fixture
async def link(xa: Exchange, xb: Exchange, clock: FakeClock) -> AsyncIterator[HashSharingLink]:
    with xa.node.store.transaction() as tx:
        tx.secrets.open("XB-NCVI", str(Scope.HASHSHARING), clock(), "a proposal")
    secret = Callers(xa.node).issue_secret("XB-NCVI", Scope.HASHSHARING, 30, "duty-officer")[1]
    async with serving(xa), HashSharingLink(xb.node.settings.hashsharing_url, "XB-NCVI", secret) as there:
        yield there


def held(xb: Exchange, *numbers: int) -> set[int]:
    """Which of the made-up files the set lists."""
    hits = xb.lookup.find([md5(number).hex() for number in numbers], actor="tester")
    return {numbers[hit.query] for hit in hits if hit.set_name == SET}


async def run(xb: Exchange, link: Any, on_page: Callable[[Followed], None] = lambda _followed: None) -> Followed:
    return await follow(Sourcing(xb), link, asyncio.to_thread, on_page)


async def test_the_list_becomes_a_set_and_follows_updates_and_deletions(
    xa: Exchange, xb: Exchange, link: HashSharingLink, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "PAGE_ITEMS", 3)
    name = make_set(xa, "found", files(*range(8)))
    clock.advance(100)
    first = await run(xb, link)
    assert (first.pages, first.added, first.withdrawn) == (3, 8, 0)
    assert held(xb, *range(8)) == set(range(8))
    xa.ledger.import_entries(name, files(8, 9), actor="tester", form="test")
    xa.ledger.import_entries(name, files(1, category="ncmec:B1"), actor="tester", form="test")
    gone = [int(h.entry.replace("-", ""), 16) for h in xa.lookup.find([md5(0).hex()], actor="tester")]
    xa.ledger.withdraw(name, gone, actor="tester", reason="wrong")
    clock.advance(100)
    second = await run(xb, link)
    assert (second.added, second.updated, second.withdrawn) == (2, 1, 1)
    assert held(xb, *range(10)) == set(range(1, 10))
    again = await run(xb, link)
    assert (again.added, again.updated, again.withdrawn) == (0, 0, 0)
    (withdrawn,) = events(xb.node, EventKind.ENTRIES_WITHDRAWN)
    assert withdrawn.actor == "hash-sharing source"
    assert events(xb.node, EventKind.NEVER_AGAIN_CHANGED) == [], "it may come back"


async def test_a_run_that_breaks_off_goes_on_at_its_page(
    xa: Exchange, xb: Exchange, link: HashSharingLink, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "PAGE_ITEMS", 3)
    make_set(xa, "found", files(*range(9)))
    clock.advance(100)
    asked: list[str] = []
    whole = link.page

    async def breaks(path: str) -> bytes:
        asked.append(path)
        if len(asked) == 2:
            raise PartnerError("the connection with the partner broke off")
        return await whole(path)

    link.page = breaks  # type: ignore[method-assign]
    with pytest.raises(PartnerError):
        await run(xb, link)
    state = Sourcing(xb).state()
    assert (state.since, state.failures) == (0, 1)
    assert "broke off" in state.last_error
    await run(xb, link)
    assert asked[1] == asked[2], "the same page, not the window from its beginning"
    assert held(xb, *range(9)) == set(range(9))
    state = Sourcing(xb).state()
    assert (state.since, state.failures, state.last_error) == (clock() - 60, 0, "")


async def test_a_page_that_is_no_longer_known_begins_the_window_again(
    xa: Exchange, xb: Exchange, link: HashSharingLink, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "PAGE_ITEMS", 3)
    make_set(xa, "found", files(*range(9)))
    clock.advance(100)
    asked: list[str] = []
    whole = link.page

    async def forgets(path: str) -> bytes:
        asked.append(path)
        if "at=" in path and len(asked) == 2:
            raise NotFoundError("the server does not answer what it was asked")
        return await whole(path)

    link.page = forgets  # type: ignore[method-assign]
    with pytest.raises(NotFoundError):
        await run(xb, link)
    await run(xb, link)
    assert "at=" not in asked[2]
    assert held(xb, *range(9)) == set(range(9))


def page(*inside: str, following: str = "") -> bytes:
    paging = f"<paging><next>{following}</next></paging>" if following else ""
    return (
        f'<queryResult xmlns="{NAMESPACE}"><images count="1">{"".join(inside)}</images>{paging}</queryResult>'.encode()
    )


def image(identifier: str, *prints: str, member: str = "42", more: str = "") -> str:
    return (
        f'<image><member id="{member}">M</member><timestamp>2026-11-28T00:00:00Z</timestamp><id>{identifier}</id>{more}'
        f"<fingerprints>{''.join(prints)}</fingerprints></image>"
    )


def deleted(identifier: str, member: str = "42") -> str:
    return f'<deletedImage><member id="{member}">M</member><id>{identifier}</id><timestamp>x</timestamp></deletedImage>'


class Recorded:
    """A server that says what it was told to say."""

    def __init__(self, *pages: bytes | GatewayError) -> None:
        self.pages, self.asked = list(pages), list[str]()

    async def page(self, path: str) -> bytes:
        self.asked.append(path)
        said = self.pages.pop(0)
        if isinstance(said, GatewayError):
            raise said
        return said


PRINT = f"<md5>{md5(1).hex()}</md5>"


async def test_what_another_server_says_is_read_as_open_clients_read_it(xb: Exchange) -> None:
    pdna = "ab" * 144
    rows = [
        image(
            "image1",
            f"<md5>{md5(1).hex().upper()}</md5>",
            f"<pdna>{pdna}</pdna>",
            more="<classification>A1</classification>",
        ),
        image("image1", f"<md5>{md5(2).hex()}</md5>", member="43"),
        image(
            "large", '<tmk-pdqf rel="self" href="/v2/entries/1/fingerprints/TMK_PDQF"/>', f"<md5>{md5(3).hex()}</md5>"
        ),
        image("bad", "<md5>xyz</md5>", f"<sha1>{'c' * 40}</sha1>"),
        image("", PRINT),
        image("spaces", "<md5>aa bb cc dd ee ff 00 11 22 33 44</md5>", f"<sha1>{'d' * 40}</sha1>"),
        image("told", f"<md5>{md5(4).hex()}</md5>", more='<feedback><affirmativeFeedback type="Md5"/></feedback>'),
        "<soundtrack/>",
        deleted("never-held"),
    ]
    followed = await run(xb, Recorded(page(*rows), NotFoundError("no such fingerprint")))
    assert (followed.report.read, followed.report.accepted, followed.report.refused) == (9, 7, 2)
    assert followed.report.dropped_fields == {"tmk_pdqf": 1, "md5": 2, "feedback": 1}
    assert held(xb, 1, 2, 3, 4) == {1, 2, 3, 4}
    hits = {hit.attributes["category"] for hit in xb.lookup.find([md5(1).hex()], actor="tester")}
    assert hits == {"ncmec:A1"}
    # An entry of which nothing is left that we carry is as good as deleted; another member's of that id stays.
    await run(xb, Recorded(page(image("image1"))))
    clock = xb.node.clock
    assert isinstance(clock, FakeClock)
    clock.advance(300)
    followed = await run(xb, Recorded(page(image("image1"), deleted("large"))))
    assert followed.withdrawn == 2
    assert held(xb, 1, 2, 3) == {2}


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"<html/>",
        page(PRINT)[:-3],
        b"<!DOCTYPE x>" + page(),
        page(following="http://127.0.0.1/v2/entries?from=x"),
        page(following="/v2/../secrets?x"),
        page(following="/v2/entries?a b"),
        page("<image>" * 40 + "</image>" * 40),
    ],
)
async def test_what_is_no_page_is_refused_whole_and_nothing_moves(xb: Exchange, raw: bytes) -> None:
    with pytest.raises(GatewayError):
        await run(xb, Recorded(raw))
    state = Sourcing(xb).state()
    assert (state.since, state.following, state.failures) == (0, "", 1)


async def test_windows_follow_each_other_with_an_overlap_and_never_reach_into_the_present(
    xb: Exchange, clock: FakeClock
) -> None:
    server = Recorded(page(), page())
    await run(xb, server)
    clock.advance(900)
    await run(xb, server)
    first, second = server.asked
    assert first.startswith("/v2/entries?from=1970-01-01T00%3A00%3A00Z&to=")
    until = first.partition("to=")[2]
    assert second.partition("from=")[2].partition("&")[0] < until
    assert server.pages == []
    clock.advance(-3_600)
    assert (await run(xb, server)).pages == 0, "a clock that was put back asks for nothing"


async def test_a_page_whose_name_is_old_is_not_asked_for(xb: Exchange, clock: FakeClock) -> None:
    server = Recorded(page(image("1", PRINT), following="/v2/entries?start=2"), PartnerError("gone"))
    with pytest.raises(PartnerError):
        await run(xb, server)
    clock.advance(FOLLOWING_SECONDS + 1)
    server.pages = [page()]
    await run(xb, server)
    assert "start=2" in server.asked[1]
    assert "from=" in server.asked[2]


async def test_two_nodes_do_not_take_one_page_twice(xb: Exchange) -> None:
    one, other = Sourcing(xb), Sourcing(xb)
    assert one.claim()
    assert not other.claim()
    asked = one.begin()
    assert asked is not None

    def take(sourcing: Sourcing, identifier: str) -> None:
        said = sourcing.read(page(image(identifier, PRINT), following="/v2/entries?start=2"), Followed())
        sourcing.take(asked, said, {}, Followed())

    take(one, "1")
    with pytest.raises(ConflictError):
        take(other, "2")


async def test_what_is_listed_as_never_again_does_not_come_in(xb: Exchange, clock: FakeClock) -> None:
    await run(xb, Recorded(page(image("1", PRINT))))
    entry = xb.lookup.find([md5(1).hex()], actor="tester")[0].entry
    xb.ledger.withdraw(SET, [int(entry.replace("-", ""), 16)], actor="tester", reason="wrong")
    clock.advance(300)
    await run(xb, Recorded(page(image("1", PRINT), image("again", PRINT))))
    assert held(xb, 1) == set()


async def test_while_everything_is_paused_nothing_is_asked(xb: Exchange, clock: FakeClock) -> None:
    with xb.node.store.transaction() as tx:
        tx.people.pause("*", "duty-officer", clock())
    server = Recorded(page())
    with pytest.raises(OverloadedError):
        await run(xb, server)
    assert server.asked == []
    assert Sourcing(xb).state().failures == 0, "the server has not failed"


async def test_runs_that_fail_come_later_and_later_are_on_record_and_raise_an_alarm(
    xb: Exchange, clock: FakeClock
) -> None:
    sourcing, waits = Sourcing(xb), []
    while sweep(xb.node) == []:
        assert sourcing.claim()
        with pytest.raises(MalformedError):
            await run(xb, Recorded(b"<html>a page that never was one</html>"))
        waits.append(sourcing.state().next_run - clock())
        assert not sourcing.claim(), "nobody asks before that"
        clock.advance(waits[-1])
    assert 810 <= waits[0] <= 990
    assert 1_620 <= waits[1] <= 1_980
    assert all(3_240 <= wait <= 3_960 for wait in waits[2:])
    assert 24 <= len(waits) <= 30
    failed = events(xb.node, EventKind.SOURCE_FAILED)
    assert [event.details["attempts"] for event in failed] == list(range(1, len(waits) + 1))
    (alarm,) = sweep(xb.node)
    assert (alarm.kind, alarm.subject) == (AlarmKind.SOURCE_FAILING, SET)
    # Nothing was passed over meanwhile, and the first good run closes it.
    assert sourcing.claim()
    await run(xb, Recorded(page(image("1", PRINT))))
    assert (sourcing.state().failures, held(xb, 1), sweep(xb.node)) == (0, {1}, [])
    assert 0 < sourcing.state().next_run - clock() <= 900


async def test_a_server_whose_windows_never_end_raises_an_alarm(
    xb: Exchange, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.sourcing.MAX_PAGES", 3)
    sourcing, number = Sourcing(xb), 0
    for _ in range(25):
        assert sourcing.claim()
        pages = [page(image("1", PRINT), following=f"/v2/entries?start={number + n}") for n in range(2, 5)]
        number += 3
        await run(xb, Recorded(*pages))
        clock.advance(3_600)
    assert (sourcing.state().failures, sourcing.state().since) == (0, 0)
    (alarm,) = sweep(xb.node)
    assert "to its end" in alarm.detail
    with xb.node.store.transaction() as tx:
        tx.people.pause("*", "duty-officer", clock())
    assert sweep(xb.node) == [], "what people have stopped is no news to them"
    assert not sourcing.claim()


async def test_a_server_that_goes_on_from_a_backup_is_told_as_that(
    xa: Exchange, xb: Exchange, link: HashSharingLink, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_set(xa, "found", files(*range(3)))
    clock.advance(100)
    await run(xb, link)
    monkeypatch.setattr(type(xa.node.keystore), "log_numbers", (2,))
    clock.advance(100_000)
    with pytest.raises(ConflictError, match="begun anew"):
        await run(xb, link)
    assert "begun anew" in Sourcing(xb).state().last_error
    assert held(xb, *range(3)) == set(range(3))


async def test_a_wrong_secret_is_told_as_that(xa: Exchange, link: HashSharingLink) -> None:
    async with HashSharingLink(xa.node.settings.public_url + "/hashsharing", "XB-NCVI", "wrong") as other:
        with pytest.raises(UnauthenticatedError):
            await other.page("/v2/status")
    assert b"XB-NCVI" in await link.page("/v2/status")


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/hashsharing",
        "https://u:p@example.org/x",
        "https://example.org/x?y",
        "ftp://example.org",
        "https://127.1/",
    ],
)
def test_a_url_that_could_be_read_in_two_ways_is_not_called(url: str) -> None:
    with pytest.raises(PartnerError):
        HashSharingLink(url, "u", "p")


async def test_the_settings_go_together_and_another_server_begins_at_the_beginning(
    tmp_path: Path, xb: Exchange, clock: FakeClock
) -> None:
    await run(xb, Recorded(page()))
    assert Sourcing(xb).state().since
    object.__setattr__(xb.node.settings, "hashsharing_url", "https://other.example/hashsharing")
    assert Sourcing(xb).state().since == 0
    (tmp_path / "third").mkdir()
    with pytest.raises(ConfigError):
        make_node(tmp_path / "third", "XC-NCVI", clock=clock, hashsharing_url="https://other.example")
