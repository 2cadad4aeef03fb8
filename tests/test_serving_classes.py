"""Partners that see the same get one body: made once, opened by each with its own key, and by nobody else."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from factory import (
    FakeClock,
    befriend,
    drafts,
    events,
    link_to,
    loopback,
    make_node,
    make_set,
    reopened,
    serving,
    set_state,
)
from gateway.audit import EventKind
from gateway.crypto import age
from gateway.errors import ConflictError, NotFoundError, VerificationError
from gateway.exchange import Exchange, SealedPage, bodies
from gateway.exchange.applying import FORGOTTEN_VIEW
from gateway.exchange.audience import Sums
from gateway.exchange.serving import Server
from gateway.interchange import START, Cursor, FeedHead
from gateway.model import Restriction
from partner_simulator import Network, held_entries, refused

HUB, SET = "XA-NCVI", "XA-NCVI/identified"
CLASS = ("XB-NCVI", "XB-SECOND", "XB-THIRD")
OUTSIDE = "XC-NCVI"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def network(tmp_path: Path, clock: FakeClock) -> Iterator[Network]:
    hub, *others = (make_node(tmp_path, agency, clock=clock, **loopback()) for agency in (HUB, *CLASS, OUTSIDE))
    network = Network()
    for node in others:
        befriend(hub, node)
    for node in (hub, *others):
        network.join(node)
    make_set(network.members[HUB], "identified", drafts(40, series="Blue Door"))
    yield network
    for exchange in network.members.values():
        exchange.node.store.close()


@pytest.fixture
def xa(network: Network) -> Exchange:
    exchange = network.members[HUB]
    for partner in (*CLASS, OUTSIDE):
        network.members[partner].take_head(HUB, exchange.head_for(partner, SET).body)
    return exchange


def asked(xa: Exchange, partner: str, cursor: Cursor = START) -> SealedPage:
    page = xa.page_for(partner, SET, cursor)
    assert page is not None
    return page


def switch_policy(exchange: Exchange, texts: dict[str, str]) -> None:
    exchange.node.policies.texts = texts
    exchange.node.policies._loaded = None


# One body


def test_partners_of_a_class_get_one_body_behind_a_header_each(network: Network, xa: Exchange) -> None:
    pages = [asked(xa, partner) for partner in CLASS]
    assert len({id(page.octets) for page in pages}) == 1  # not even copied
    assert len({page.header for page in pages}) == len({page.etag for page in pages}) == len(CLASS)
    assert {(page.message_id, page.manifest_digest) for page in pages} == {
        (pages[0].message_id, pages[0].manifest_digest)
    }
    for partner, page in zip(CLASS, pages, strict=True):
        assert page.header.count(b"-> ") == 1
        applied = network.members[partner].take_page(HUB, page.body)
        assert (applied.changes, applied.equality) == (40, "equal")
    told = events(xa.node, EventKind.PAGE_SERVED)
    assert [event.details["partner"] for event in told] == list(CLASS)
    assert len({event.details["page_digest"] for event in told}) == 1


def test_nobody_opens_what_was_sealed_for_another(network: Network, xa: Exchange) -> None:
    page, other = asked(xa, CLASS[0]), asked(xa, OUTSIDE)
    assert page.octets is not other.octets
    for partner in (CLASS[1], OUTSIDE):
        member = network.members[partner]
        assert isinstance(refused(lambda member=member: member.take_page(HUB, page.body)), VerificationError)
        # Nor with its own header before the body of another class.
        spliced = other.header + page.octets
        assert isinstance(refused(lambda member=member, body=spliced: member.take_page(HUB, body)), VerificationError)
    with pytest.raises(VerificationError, match="sealed for another key"):
        age.open_stream(network.members[OUTSIDE].node.keystore.opening_keys, BytesIO(page.body))
    assert network.members[OUTSIDE].take_page(HUB, other.body).changes == 40


def test_one_thread_makes_a_body_while_the_others_wait(xa: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
    made, seal = [], Server._seal

    def counted(server: Server, *arguments: Any) -> Any:
        made.append(1)
        return seal(server, *arguments)

    monkeypatch.setattr(Server, "_seal", counted)
    with ThreadPoolExecutor(4) as pool:
        pages = list(pool.map(lambda partner: asked(xa, partner), (*CLASS, OUTSIDE)))
    assert len(made) == 2  # two classes
    assert len({page.manifest_digest for page in pages}) == 2


def test_who_asks_again_gets_another_message(network: Network, xa: Exchange) -> None:
    first, second, third = (asked(xa, CLASS[0]) for _ in range(3))
    assert len({first.message_id, second.message_id, third.message_id}) == 3
    assert len({page.octets[:16] for page in (first, second, third)}) == 3  # a file key seals one body
    assert asked(xa, CLASS[1]).octets is third.octets


def test_a_mirror_that_begins_anew_again_and_again_is_filled_each_time(network: Network, xa: Exchange) -> None:
    import asyncio

    xb = network.members[CLASS[0]]
    for _ in range(3):
        [report] = asyncio.run(network.sync(CLASS[0], HUB).pull())
        assert (report.equality, len(held_entries(xb, SET))) == ("equal", 40)
        with xb.node.store.transaction() as tx:
            row = tx.sets.get(SET)
            at = (row.epoch, row.view, row.seq)
            tx.sets.advance_mirror(row.id or 0, expected=at, to=(row.epoch, FORGOTTEN_VIEW, row.seq))


# What is decided at each request


def test_after_any_change_of_the_set_its_page_is_made_anew(xa: Exchange) -> None:
    before = asked(xa, CLASS[0])
    embargo = (Restriction.EMBARGO,)
    xa.ledger.import_entries(SET, drafts(3, series="Blue Door", restrictions=embargo), actor="tester", form="test")
    after = asked(xa, CLASS[1])
    assert after.octets is not before.octets
    assert (before.head.changes, after.head.changes) == (40, 37)


def test_after_a_change_of_view_no_body_of_before_is_served(network: Network, xa: Exchange) -> None:
    before = asked(xa, CLASS[0])
    texts, name = dict(xa.node.policies.texts), "XA/agreement-xb.cedar"
    narrow = texts[name].replace("share_series", "share_existence")
    assert narrow != texts[name]
    switch_policy(xa, {**texts, name: narrow})
    for partner in CLASS:
        network.members[partner].take_head(HUB, xa.head_for(partner, SET).body)
        page = asked(xa, partner)
        assert page.octets is not before.octets
        assert page.head.target != before.head.target
        network.members[partner].take_page(HUB, page.body)
        assert not any("series" in one for one in held_entries(network.members[partner], SET).values())
    # A class that may see nothing any more is told to give back what it was given, and gets nothing else.
    switch_policy(xa, {path: text for path, text in texts.items() if path != name})
    for partner in CLASS:
        member = network.members[partner]
        member.take_head(HUB, xa.head_for(partner, SET).body)
        page = asked(xa, partner, member.mirrors.cursor(SET))
        assert (page.head.blocks, page.head.left) == (0, (1,))
        member.take_page(HUB, page.body)
        assert held_entries(member, SET) == {}


def test_a_partner_that_is_shut_out_gets_no_header(xa: Exchange) -> None:
    asked(xa, CLASS[0])
    set_state(xa.node, CLASS[1], "suspended")
    with pytest.raises(NotFoundError):
        asked(xa, CLASS[1])
    set_state(xa.node, CLASS[1], "active")
    assert asked(xa, CLASS[1]).head.changes == 40


def test_a_view_that_changes_while_a_page_is_sealed_stops_it(xa: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
    texts, name, seal = dict(xa.node.policies.texts), "XA/agreement-xb.cedar", Server._seal

    def seal_then_switch(server: Server, *arguments: Any) -> Any:
        switch_policy(xa, {**texts, name: texts[name].replace("share_series", "share_existence")})
        return seal(server, *arguments)

    monkeypatch.setattr(Server, "_seal", seal_then_switch)
    assert type(refused(lambda: xa.page_for(CLASS[0], SET, START))) is ConflictError
    assert events(xa.node, EventKind.PAGE_SERVED) == []


def test_what_one_partner_was_shown_before_is_no_cursor_for_another(network: Network, xa: Exchange) -> None:
    before = asked(xa, CLASS[0]).head.end
    texts, name = dict(xa.node.policies.texts), "XA/agreement-xb.cedar"
    switch_policy(xa, {**texts, name: texts[name].replace("share_series", "share_existence")})
    with xa.node.store.transaction() as tx:  # as if this one had come later
        tx.connection.exec_driver_sql(f"DELETE FROM view WHERE partner = '{CLASS[1]}'")
    for partner in CLASS[:2]:
        xa.head_for(partner, SET)
    known, unknown = asked(xa, CLASS[0], before), asked(xa, CLASS[1], before)
    assert (known.head.reset, unknown.head.reset) == (False, True)


def test_a_cursor_is_worth_what_its_own_partner_was_given(network: Network, xa: Exchange) -> None:
    page = asked(xa, CLASS[0])
    end = page.head.end
    xa.ledger.import_entries(SET, drafts(5, first=100), actor="tester", form="test")
    for partner in CLASS:
        xa.head_for(partner, SET)
    assert not asked(xa, CLASS[0], end).head.reset
    with xa.node.store.transaction() as tx:  # as if it had never been shown that view
        tx.connection.exec_driver_sql(f"DELETE FROM view WHERE partner = '{CLASS[1]}'")
        tx.sets.drop_heads([CLASS[1]])
    old_view = replace(end, view="ab" * 32)
    xa.head_for(CLASS[1], SET)
    assert asked(xa, CLASS[1], old_view).head.reset
    assert not asked(xa, CLASS[2], end).head.reset


def test_bodies_are_kept_for_minutes_and_within_bounds(
    xa: Exchange, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = asked(xa, CLASS[0])
    clock.advance(bodies.KEPT_SECONDS + 1)
    assert asked(xa, CLASS[1]).octets is not first.octets
    monkeypatch.setattr(bodies, "MAX_KEPT_BYTES", len(first.octets))
    last = asked(xa, OUTSIDE)
    assert len(xa.server._bodies._kept) == 1
    assert xa.server._bodies._kept[0].octets is last.octets
    clock.advance(bodies.KEPT_SECONDS + 1)
    xa.server.tidy()
    assert xa.server._bodies._kept == []


# Polls


def test_polls_of_a_class_count_its_view_once_for_each_change(xa: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[int] = []

    class Counted(Sums):
        def __init__(self, *arguments: Any) -> None:
            loaded.append(1)
            super().__init__(*arguments)

    monkeypatch.setattr("gateway.exchange.audience.Sums", Counted)
    for partner in (*CLASS, *CLASS, OUTSIDE):
        xa.head_for(partner, SET)
    assert loaded == []
    xa.ledger.import_entries(SET, drafts(1, first=700), actor="tester", form="test")
    heads = [xa.head_for(partner, SET).head for partner in (*CLASS, *CLASS, OUTSIDE, OUTSIDE)]
    assert len(loaded) == 2  # two classes
    assert {(head.count, head.cursor.seq) for head in heads} == {(41, 41)}


def test_sums_that_were_put_right_elsewhere_are_seen_at_the_next_poll(xa: Exchange) -> None:
    before = xa.head_for(CLASS[0], SET).head
    other = Exchange(reopened(xa.node, seed="another node"))
    with other.node.store.transaction() as tx:
        set_id = tx.sets.get(SET).id or 0
        at, raw = next(iter(tx.sets.sums(set_id).items()))
        tx.sets.put_sums(set_id, {at: raw[:8] + bytes(16)})
    after = xa.head_for(CLASS[0], SET).head
    assert (after.cursor, after.state != before.state) == (before.cursor, True)


async def test_an_unchanged_poll_is_one_request_and_no_body(network: Network, xa: Exchange) -> None:
    seen: list[tuple[str, int, int]] = []

    async def note(_session: aiohttp.ClientSession, _context: object, told: Any) -> None:
        response = told.response
        seen.append((told.method, response.status, int(response.headers.get("Content-Length", 0))))

    xb = network.members[CLASS[0]]
    xb.take_page(HUB, asked(xa, CLASS[0]).body)
    held = xb.held_head(HUB, SET)
    assert held is not None
    assert isinstance(held[0], FeedHead)
    async with serving(xa), link_to(xa.node, xb.node) as link:
        await link.head(SET, "")  # proves itself, and learns the nonce
        trace = aiohttp.TraceConfig()
        trace.on_request_end.append(note)
        assert link._session is not None
        trace.freeze()
        link._session._trace_configs.append(trace)
        assert await link.head(SET, held[1]) is None
    assert seen == [("GET", 304, 0)]
