"""Pages of a collection without sockets: what is written for them, what is kept of them, what is gone from there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from factory import FakeClock, SeededRandom, befriend, drafts, events, make_node, make_set, set_state, sha256
from gateway.audit import EventKind
from gateway.crypto.keys import SigningKey
from gateway.doors.taxii import render_envelope
from gateway.errors import NotFoundError, OverloadedError
from gateway.exchange import Exchange, stretches
from gateway.exchange.collections import Body, ObjectPage, Query, collection_id
from gateway.exchange.erasing import erase
from gateway.exchange.lookup import parse_entry
from gateway.exchange.stretches import KEPT_SECONDS, Place, Stretch, Stretches, Told
from gateway.keyadmin import approvals, bootstrap_administrator
from gateway.keystore import PersonalKey
from gateway.partners import put as put_partner

FOUND = "XA-NCVI/found"
XB, XC = "XB-NCVI", "XC-NCVI"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def xa(tmp_path: Path, clock: FakeClock) -> Exchange:
    node = make_node(tmp_path, "XA-NCVI", clock=clock, quorum=2)
    befriend(node, *(make_node(tmp_path, name, clock=clock) for name in (XB, XC)))
    exchange = Exchange(node)
    make_set(exchange, "found", drafts(6))
    clock.advance(2)
    return exchange


def page(
    xa: Exchange, partner: str = XB, render: Callable[[ObjectPage], Body] = render_envelope, **asked: Any
) -> dict[str, Any]:
    body = xa.collections.page(partner, collection_id(FOUND), Query(**asked), render)
    raw = b"".join(body.pieces)
    assert hashlib.sha256(raw).hexdigest() == body.digest
    said: dict[str, Any] = json.loads(raw)
    return said


def digests(said: dict[str, Any]) -> set[str]:
    return {one["pattern"].split("'")[-2] for one in said["objects"] if "hashes" in one.get("pattern", "")}


def made_up(numbers: range) -> set[str]:
    return {sha256(f"made-up {number}").hex() for number in numbers}


def kept_octets(xa: Exchange) -> bytes:
    """All content that is kept of pages."""
    return b"".join(kept.stretch.raw for kept in xa.collections._stretches._kept.values())


def erased(xa: Exchange, target: bytes) -> None:
    """Erase what carries a digest: two administrators sign."""
    people = [PersonalKey(name, SigningKey.generate(SeededRandom(name))) for name in ("one", "two")]
    for one in people:
        bootstrap_administrator(xa.node, one.name, one.signing_key.public)
    desk = approvals(xa.node)
    identifier = desk.propose(*erase(xa.node, [target.hex()], "XA District Court, order 7 of 2026"), by="one")
    for one in people:
        desk.sign(identifier, one)


@pytest.fixture
def commits(xa: Exchange, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One item for each write transaction: how many changes of the database it made."""
    made: list[int] = []
    store, entered = xa.node.store, xa.node.store.transaction

    def counted() -> Any:
        made.append(1)
        return entered()

    monkeypatch.setattr(store, "transaction", counted)
    return made


def test_who_looks_around_writes_nothing_twice(xa: Exchange, commits: list[int]) -> None:
    xa.collections.listing(XB)
    assert len(commits) == 1, "what it may see is on record when it first asks"
    for _ in range(3):
        xa.collections.listing(XB)
        xa.collections.collection(XB, collection_id(FOUND))
        with pytest.raises(NotFoundError):
            xa.collections.collection(XB, collection_id("XA-NCVI/none"))
        with pytest.raises(NotFoundError):
            xa.inbox.delete(XB, collection_id(FOUND), "indicator--none")
    assert len(commits) == 1


def test_a_page_is_one_commit_and_an_empty_one_leaves_no_leaf(xa: Exchange, commits: list[int]) -> None:
    page(xa)
    page(xa)
    assert len(commits) == 2
    with xa.node.store.reading() as tx:
        size = tx.log.size()
    assert page(xa, given={"added_after": 1 << 60}) == {}
    with xa.node.store.reading() as tx:
        assert tx.log.size() == size


def test_the_first_page_of_all_puts_on_record_what_it_shows(xa: Exchange) -> None:
    page(xa)
    [decided] = [one for one in events(xa.node, EventKind.SHARE_DECIDED) if one.details["surface"] == "tls_only"]
    [served] = events(xa.node, EventKind.SURFACE_PAGE_SERVED)
    assert decided.details["partner"] == served.details["partner"] == XB


def test_what_was_made_for_one_view_is_for_no_other(xa: Exchange, clock: FakeClock) -> None:
    make_set(xa, "with-series", drafts(2, series="Series A"))
    clock.advance(2)
    of = collection_id("XA-NCVI/with-series")
    pages = [xa.collections.page(partner, of, Query(), render_envelope) for partner in (XB, XB, XC, XB)]
    assert len(xa.collections._stretches) == 2
    assert pages[0].pieces[1] is pages[1].pieces[1] is pages[3].pieces[1]
    assert pages[2].pieces[1] != pages[0].pieces[1]


def test_a_place_is_its_partners_own(xa: Exchange) -> None:
    mine, theirs = page(xa, limit=4), page(xa, XC, limit=4)
    assert mine["next"] != theirs["next"]
    assert [one.details["partner"] for one in events(xa.node, EventKind.SURFACE_PAGE_SERVED)] == []


def test_a_set_that_grows_leaves_earlier_pages_as_they_are(xa: Exchange, clock: FakeClock) -> None:
    first = page(xa, limit=17)
    made = len(xa.collections._stretches)
    xa.ledger.import_entries(FOUND, drafts(3, first=20), actor="tester", form="test")
    clock.advance(2)
    again = page(xa, limit=17)
    assert again["objects"] == first["objects"]
    assert len(xa.collections._stretches) == made
    assert again["more"]


def test_what_comes_while_a_page_is_made_is_not_missed(xa: Exchange, clock: FakeClock) -> None:
    asked = 0

    def slowly(found: ObjectPage) -> Body:
        nonlocal asked
        asked += 1
        if asked == 1:  # a writer that began before the page ends after it was read, and its second is over
            xa.ledger.import_entries(FOUND, drafts(2, first=20), actor="tester", form="test")
            clock.advance(2)
        return render_envelope(found)

    said = page(xa, render=slowly)
    assert asked == 2
    assert digests(said) == made_up(range(6)) | made_up(range(20, 22))
    assert len(events(xa.node, EventKind.SURFACE_PAGE_SERVED)) == 1


def test_whoever_may_not_have_a_page_any_more_when_it_is_made_gets_none(xa: Exchange, clock: FakeClock) -> None:
    def suspended(found: ObjectPage) -> Body:
        set_state(xa.node, XB, "suspended")
        return render_envelope(found)

    def under_test(found: ObjectPage) -> Body:
        with xa.node.store.transaction() as tx:
            row = tx.people.partner(XB)
            row.test = True
            put_partner(xa.node, tx, row)
        return render_envelope(found)

    def paused(found: ObjectPage) -> Body:
        with xa.node.store.transaction() as tx:
            tx.people.pause(XC, "tester", clock())
        return render_envelope(found)

    def ruled_out(found: ObjectPage) -> Body:
        texts = dict(xa.node.policies.texts)
        texts["XA/agreement-xb.cedar"] += "\n"
        xa.node.policies.texts, xa.node.policies._loaded = texts, None
        return render_envelope(found)

    with pytest.raises(NotFoundError):
        page(xa, render=suspended)
    set_state(xa.node, XB, "active")
    with pytest.raises(NotFoundError):
        page(xa, XB, render=under_test)
    with pytest.raises(OverloadedError):
        page(xa, XC, render=ruled_out)
    with pytest.raises(OverloadedError):
        page(xa, XC, render=paused)
    assert events(xa.node, EventKind.SURFACE_PAGE_SERVED) == []


def test_what_was_erased_is_gone_from_what_is_kept(xa: Exchange, clock: FakeClock) -> None:
    page(xa)
    target = sha256("made-up 3")
    assert target.hex().encode() in kept_octets(xa)
    erased(xa, target)
    xa.collections.tidy()
    assert target.hex().encode() not in kept_octets(xa)
    assert not xa.collections._kept, "rows of the block that held it"
    clock.advance(2)
    assert digests(page(xa)) == made_up(range(6)) - {target.hex()}
    assert target.hex().encode() not in kept_octets(xa)


def test_what_was_withdrawn_is_never_served_again(xa: Exchange, clock: FakeClock) -> None:
    page(xa)
    [hit] = xa.lookup.find([sha256("made-up 2").hex()], actor="tester")
    xa.ledger.withdraw(FOUND, [parse_entry(hit.entry)], actor="tester", reason="wrong")
    clock.advance(2)
    assert digests(page(xa)) == made_up(range(6)) - made_up(range(2, 3))
    xa.compacting.compact(FOUND)
    clock.advance(KEPT_SECONDS + 1)
    xa.collections.tidy()
    assert sha256("made-up 2").hex().encode() not in kept_octets(xa)


# What is kept


def stretch(octets: int) -> Stretch:
    return Stretch.of([(Told("indicator--1", "v", 1, True), b"x" * octets)])


def test_what_nobody_asks_for_goes() -> None:
    kept = Stretches()
    old, new = Place(1, "view", b"old"), Place(1, "view", b"new")
    kept.keep(old, stretch(10), {1}, 0)
    kept.keep(new, stretch(10), {1}, 0)
    assert kept.get(new, KEPT_SECONDS) is not None
    kept.tidy(KEPT_SECONDS + 1)
    assert kept.get(old, 0) is None
    assert kept.get(new, 0) is not None
    kept.tidy(-1)  # a clock that was put back
    assert len(kept) == 0
    assert kept._size == 0


def test_what_does_not_fit_goes_with_the_oldest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stretches, "MAX_KEPT_BYTES", 3_000)
    kept = Stretches()
    for number in range(5):
        kept.keep(Place(1, "view", bytes([number])), stretch(600), {number}, 0)
        assert kept._size <= 3_000
    assert [kept.get(Place(1, "view", bytes([number])), 0) is not None for number in range(5)] == [False] * 2 + [
        True
    ] * 3


def test_what_was_read_from_a_block_goes_with_it() -> None:
    kept = Stretches()
    kept.keep(Place(1, "view", b"a"), stretch(10), {1, 2}, 0)
    kept.keep(Place(1, "view", b"b"), stretch(10), {3}, 0)
    kept.keep(Place(2, "view", b"a"), stretch(10), {2}, 0)
    kept.forget(1, {2})
    assert [place.digest for place in kept._kept] == [b"b", b"a"]
    assert {place.set_id for place in kept._kept} == {1, 2}


def test_a_digest_is_that_of_the_whole_whatever_the_end() -> None:
    one = stretch(50)
    for head, tail in ((b"{", b"}"), (b"{", b"]"), (b"", b"")):
        assert one.digest_between(head, tail) == hashlib.sha256(head + one.raw + tail).hexdigest()
