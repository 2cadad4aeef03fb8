"""The hash-sharing door against the stock client of PyPI's `threatexchange`, unmodified, over real sockets."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest
import pytest_asyncio
import requests
from threatexchange.exchanges.clients.ncmec.hash_api import (
    FeedbackType,
    FingerprintType,
    NCMECEntryUpdate,
    NCMECHashAPI,
)
from threatexchange.exchanges.impl.ncmec_api import NCMECCheckpoint, NCMECCollabConfig, NCMECSignalExchangeAPI
from threatexchange.signal_type.md5 import VideoMD5Signal

from factory import (
    FakeClock,
    befriend,
    card_of,
    certificate,
    enrol,
    events,
    loopback,
    make_node,
    make_set,
    serving,
    set_state,
)
from gateway import opinions
from gateway.adapters import ncmec
from gateway.audit import EventKind
from gateway.callers import Callers, Scope
from gateway.exchange import Exchange
from gateway.exchange.lookup import parse_entry
from gateway.exchange.windows import PAGE_ITEMS
from gateway.model import EntryDraft, HandlingCode, Restriction

NAMESPACE = "{https://hashsharing.ncmec.org/hashsharing/v2}"


def md5(text: str) -> bytes:
    return hashlib.md5(text.encode()).digest()


def files(count: int, *, first: int = 0, **fields: Any) -> list[EntryDraft]:
    """Entries with digests of made-up strings, as clients of this API can use them."""
    fields.setdefault("media_type", "video/mp4")
    return [
        EntryDraft(
            {"md5": md5(f"made-up {n}"), "sha1": hashlib.sha1(f"made-up {n}".encode()).digest()},
            source_ref=f"ref-{n}",
            **fields,
        )
        for n in range(first, first + count)
    ]


def hexes(numbers: Iterable[int]) -> set[str]:
    return {md5(f"made-up {n}").hex() for n in numbers}


@dataclass
class Stock:
    """A partner with the stock client in its hands, and what that holds after following updates."""

    url: str
    partner: str
    secret: str
    clock: FakeClock
    held: dict[str, NCMECEntryUpdate] = field(default_factory=dict)
    since: int = 0
    pages: int = 0

    @property
    def api(self) -> NCMECHashAPI:
        return NCMECHashAPI(self.partner, self.secret, SimpleNamespace(value=self.url))  # type: ignore[arg-type]

    async def call(self, ask: Callable[[NCMECHashAPI], Any]) -> Any:
        return await asyncio.to_thread(ask, self.api)

    async def entries(self, after: int = 0, until: int = 0) -> list[NCMECEntryUpdate]:
        def ask(api: NCMECHashAPI) -> list[NCMECEntryUpdate]:
            pages = list(api.get_entries_iter(start_timestamp=after, end_timestamp=until or self.clock()))
            self.pages = len(pages)
            return [update for page in pages for update in page.updates]

        found: list[NCMECEntryUpdate] = await self.call(ask)
        return found

    async def follow(self) -> list[NCMECEntryUpdate]:
        """Ask from where it was up to now, and keep what came last of each entry, as its own exchange API does."""
        news = await self.entries(self.since, self.clock())
        self.since = self.clock()
        for update in news:
            key = f"{update.member_id}-{update.id}"
            if update.deleted:
                self.held.pop(key, None)
            else:
                self.held[key] = update
        return news

    @property
    def md5s(self) -> set[str]:
        return {update.fingerprints["md5"] for update in self.held.values() if "md5" in update.fingerprints}

    async def get(self, path: str, method: str = "GET", **options: Any) -> requests.Response:
        options.setdefault("auth", (self.partner, self.secret))
        return await asyncio.to_thread(requests.request, method, self.url + path, timeout=30, **options)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(int(time.time()) - 1_000)


@pytest.fixture
def xa(tmp_path: Path, clock: FakeClock) -> Exchange:
    node = make_node(tmp_path, "XA-NCVI", clock=clock, **loopback())
    befriend(node, make_node(tmp_path, "XB-NCVI", clock=clock), make_node(tmp_path, "XC-NCVI", clock=clock))
    return Exchange(node)


def admit(xa: Exchange, partner: str, clock: FakeClock) -> Stock:
    """Open the surface to a partner, and hand it a secret."""
    with xa.node.store.transaction() as tx:
        assert tx.secrets.open(partner, str(Scope.HASHSHARING), clock(), "a proposal")
    secret = Callers(xa.node).issue_secret(partner, Scope.HASHSHARING, 30, "duty-officer")[1]
    return Stock(xa.node.settings.public_url + "/hashsharing", partner, secret, clock)


@pytest_asyncio.fixture
async def stock(xa: Exchange, clock: FakeClock) -> AsyncIterator[Stock]:
    """XB's stock client, and XA serving it."""
    client = admit(xa, "XB-NCVI", clock)
    async with serving(xa):
        yield client


def put(xa: Exchange, name: str, entries: Sequence[EntryDraft], clock: FakeClock) -> None:
    """Import into a set that is there, and let the second pass."""
    xa.ledger.import_entries(name, entries, actor="tester", form="test")
    clock.advance(2)


def entry_of(xa: Exchange, number: int) -> tuple[str, int]:
    """The set and the entry id of the made-up file of this number."""
    hit = xa.lookup.find([md5(f"made-up {number}").hex()], actor="tester")[0]
    return hit.set_name, parse_entry(hit.entry)


# What the stock client does


async def test_the_stock_client_learns_who_it_is_and_who_shares(stock: Stock) -> None:
    me = await stock.call(lambda api: api.status())
    members = await stock.call(lambda api: api.members())
    assert me.esp_name == "XB-NCVI"
    assert {(one.esp_name, one.esp_id) for one in members} == {
        (agency, ncmec.Member(agency).number) for agency in ("XA-NCVI", "XB-NCVI")
    }


async def test_the_stock_client_fetches_everything_and_follows_updates_and_deletions(
    xa: Exchange, stock: Stock, clock: FakeClock
) -> None:
    name = make_set(xa, "found", [*files(5), *files(5, first=5, media_type="image/png")])
    clock.advance(2)
    await stock.follow()
    assert stock.md5s == hexes(range(10))
    kinds = {update.fingerprints["md5"]: update.entry_type.value for update in stock.held.values()}
    assert kinds[md5("made-up 1").hex()] == "video"
    assert kinds[md5("made-up 7").hex()] == "image"
    # What changed comes again, what did not stays away.
    put(xa, name, [EntryDraft({"md5": md5("another")}, source_ref="ref-3", category="ncmec:A1")], clock)
    (news,) = await stock.follow()
    assert (news.deleted, news.classification, news.fingerprints) == (False, "A1", {"md5": md5("another").hex()})
    assert len(stock.held) == 10
    # What was withdrawn goes, and is not listed again.
    xa.ledger.withdraw(name, [entry_of(xa, 4)[1]], actor="tester", reason="wrong")
    clock.advance(2)
    (gone,) = await stock.follow()
    assert gone.deleted
    assert stock.md5s == (hexes(range(10)) - hexes([3, 4])) | {md5("another").hex()}
    assert await stock.follow() == []
    assert {update.id for update in await stock.entries() if not update.deleted} == {
        update.id for update in stock.held.values()
    }


async def test_the_stock_exchange_fetches_by_its_own_probing_and_goes_on_from_its_checkpoint(
    xa: Exchange, stock: Stock, clock: FakeClock
) -> None:
    name = make_set(xa, "found", files(10))
    clock.advance(300)
    put(xa, name, files(2_500, first=10), clock)
    clock.now = int(time.time())
    config = NCMECCollabConfig(name="xa", environment=SimpleNamespace(value=stock.url))  # type: ignore[arg-type]
    exchange = NCMECSignalExchangeAPI(config, stock.partner, stock.secret)
    held: dict[str, NCMECEntryUpdate] = {}

    def fetch(checkpoint: NCMECCheckpoint | None) -> NCMECCheckpoint | None:
        for delta in exchange.fetch_iter([VideoMD5Signal], checkpoint):
            NCMECSignalExchangeAPI.naive_fetch_merge(held, delta.updates)  # type: ignore[arg-type]
            checkpoint = delta.checkpoint
        return checkpoint

    checkpoint = await asyncio.to_thread(fetch, None)
    found = NCMECSignalExchangeAPI.naive_convert_to_signal_type([VideoMD5Signal], config, held)
    assert set(found[VideoMD5Signal]) == hexes(range(2_510))
    # An update that was made before the client's five seconds are over comes with the next fetch.
    clock.now = int(time.time()) - 8
    xa.ledger.withdraw(name, [entry_of(xa, 0)[1]], actor="tester", reason="wrong")
    clock.now = int(time.time())
    assert checkpoint is not None
    checkpoint.get_entries_max_ts -= 10  # as if it had been asked ten seconds before
    await asyncio.to_thread(fetch, checkpoint)
    found = NCMECSignalExchangeAPI.naive_convert_to_signal_type([VideoMD5Signal], config, held)
    assert set(found[VideoMD5Signal]) == hexes(range(1, 2_510))


async def test_more_than_five_thousand_entries_of_one_second_come_once_each(
    xa: Exchange, stock: Stock, clock: FakeClock
) -> None:
    make_set(xa, "found", [*files(3_000), *files(2_600, first=3_000, category="icse:2")])
    make_set(xa, "more", files(10, first=9_000))
    second = clock() + 1
    clock.advance(2)
    found = await stock.entries(second - 1, second)
    assert stock.pages == 6
    assert len(found) == len({update.id for update in found}) == 5_610
    assert {update.fingerprints["md5"] for update in found} == hexes([*range(5_600), *range(9_000, 9_010)])
    assert await stock.entries(second, clock()) == []
    served = events(xa.node, EventKind.SURFACE_PAGE_SERVED)
    assert sum(int(str(event.details["entries"])) for event in served) == 5_610


async def test_entries_that_change_between_two_pages_come_in_the_next_window(
    xa: Exchange, stock: Stock, clock: FakeClock
) -> None:
    name = make_set(xa, "found", files(2_500))
    clock.advance(2)
    pages = []

    def ask(api: NCMECHashAPI) -> None:
        for page in api.get_entries_iter(start_timestamp=0, end_timestamp=clock()):
            if not pages:
                put(xa, name, files(2_500, category="icse:2")[1_500:1_600], clock)
                xa.compacting.compact(name)
            pages.append([update.id for update in page.updates])

    before = clock()
    await stock.call(ask)
    first = [entry for page in pages for entry in page]
    later = [update.id for update in await stock.entries(before, clock())]
    assert (len(first), len(later)) == (2_400, 100)
    assert len({*first, *later}) == 2_500


async def test_the_stock_client_works_over_tls(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    cert, key = certificate(tmp_path)
    settings = loopback(tls_certificate=str(cert), tls_key=str(key))
    settings["public_url"] = f"https://localhost:{settings['listen_port']}"
    node = make_node(tmp_path, "XA-NCVI", clock=clock, **settings)
    befriend(node, make_node(tmp_path, "XB-NCVI", clock=clock))
    exchange = Exchange(node)
    make_set(exchange, "found", files(3))
    clock.advance(2)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(cert))
    async with serving(exchange):
        client = admit(exchange, "XB-NCVI", clock)
        await client.follow()
    assert client.md5s == hexes(range(3))


async def test_as_many_entries_as_a_page_has_are_one_page(xa: Exchange, stock: Stock, clock: FakeClock) -> None:
    make_set(xa, "found", files(PAGE_ITEMS))
    clock.advance(2)
    assert (len(await stock.entries()), stock.pages) == (PAGE_ITEMS, 1)


async def test_an_entry_comes_once_in_its_latest_state_at_the_time_of_that(
    xa: Exchange, stock: Stock, clock: FakeClock
) -> None:
    name = make_set(xa, "found", files(2))
    clock.advance(10)
    updated = clock()
    put(xa, name, files(1, category="icse:2"), clock)
    clock.advance(10)
    withdrawn = clock()
    xa.ledger.withdraw(name, [entry_of(xa, 0)[1]], actor="tester", reason="wrong")
    clock.advance(2)
    await stock.entries(0, 1)  # from here on it may have been given anything
    put(xa, name, files(1, first=1, category="icse:2"), clock)
    gone = clock()
    xa.ledger.withdraw(name, [entry_of(xa, 1)[1]], actor="tester", reason="wrong")
    clock.advance(2)
    assert await stock.entries(0, updated + 1) == [], "replaced since"
    assert await stock.entries(updated + 1, gone) == [], "replaced since, or never given"
    assert [update.deleted for update in await stock.entries(withdrawn, clock())] == [True]


async def test_nothing_of_a_perceptual_digest_leaves_over_tls_alone(
    xa: Exchange, stock: Stock, clock: FakeClock
) -> None:
    digests = {"md5": md5("x"), "pdq": md5("a") + md5("b"), "photodna": 9 * md5("c")}
    make_set(xa, "found", [EntryDraft(digests, source_ref="a reference", series="a series", media_type="image/png")])
    clock.advance(2)
    body = (await stock.get("/v2/entries")).text
    assert md5("x").hex() in body
    for withheld in (md5("a").hex(), base64.b64encode(9 * md5("c")).decode(), "a reference", "a series", "found"):
        assert withheld not in body


# Policy


def narrowed(xa: Exchange, old: str, new: str, name: str = "XA/agreement-xb.cedar") -> None:
    """Change what XA's agreement says, as a signed policy that came into force would."""
    texts = dict(xa.node.policies.texts)
    assert old in texts[name], "the agreement says something else"
    xa.node.policies.take_up({**texts, name: texts[name].replace(old, new)}, xa.node.today)


LIST_RULE = '[Handling::"H0", Handling::"H1", Handling::"H2"].contains(resource.handling)'


async def test_what_policy_no_longer_shows_is_taken_back_and_comes_back_with_it(
    xa: Exchange, stock: Stock, clock: FakeClock
) -> None:
    make_set(xa, "found", [*files(5, handling=HandlingCode.H0), *files(5, first=5)])
    make_set(xa, "hidden", files(5, first=20), handling=HandlingCode.H2)
    clock.advance(2)
    await stock.follow()
    assert stock.md5s == hexes(range(10))
    narrowed(xa, LIST_RULE, 'resource.handling == Handling::"H0"')
    await stock.follow()  # which is when it is noticed
    clock.advance(2)
    news = await stock.follow()
    assert [update.deleted for update in news] == [True] * 5
    assert {update.entry_type.value for update in news} == {"video"}
    assert stock.md5s == hexes(range(5))
    narrowed(xa, 'resource.handling == Handling::"H0"', LIST_RULE)
    await stock.follow()
    clock.advance(2)
    assert len(await stock.follow()) == 5
    assert stock.md5s == hexes(range(10))
    # Somebody who begins only now gets each entry once, and nothing that is over.
    everything = await stock.entries()
    assert sorted(update.fingerprints["md5"] for update in everything) == sorted(hexes(range(10)))


async def test_what_goes_out_of_view_by_its_label_is_taken_back(xa: Exchange, stock: Stock, clock: FakeClock) -> None:
    name = make_set(xa, "found", files(6))
    clock.advance(2)
    await stock.follow()
    put(xa, name, files(2, handling=HandlingCode.H2), clock)
    put(xa, name, files(1, restrictions=(Restriction.EMBARGO,)), clock)  # from one label out of view to another
    news = await stock.follow()
    assert [update.deleted for update in news] == [True, True]
    assert stock.md5s == hexes(range(2, 6))
    put(xa, name, files(1), clock)
    await stock.follow()
    assert stock.md5s == hexes([0, *range(2, 6)])


async def test_fewer_fields_are_published_anew(xa: Exchange, stock: Stock, clock: FakeClock) -> None:
    make_set(xa, "found", files(4))
    clock.advance(2)
    await stock.follow()
    assert stock.md5s == hexes(range(4))
    narrowed(xa, 'Action::"share_cryptographic_digests",', "")
    await stock.follow()
    clock.advance(2)
    news = await stock.follow()
    assert [update.deleted for update in news] == [False] * 4
    assert (len(stock.held), stock.md5s) == (4, set())


async def test_perceptual_digests_come_where_policy_lets_them(xa: Exchange, stock: Stock, clock: FakeClock) -> None:
    texts = dict(xa.node.policies.texts)
    name = "00-federation/surfaces.cedar"
    texts[name] = texts[name].replace('Action::"share_perceptual_digests",', "")
    xa.node.policies.take_up(texts, xa.node.today)
    digests = {"md5": md5("x"), "pdq": bytes(range(32)), "photodna": bytes(144)}
    make_set(xa, "found", [EntryDraft(digests, source_ref="1", media_type="image/jpeg")])
    clock.advance(2)
    await stock.follow()
    (update,) = stock.held.values()
    assert update.fingerprints == {"md5": md5("x").hex(), "pdq": bytes(range(32)).hex(), "pdna": "A" * 192}


async def test_a_partner_never_hears_of_what_its_own_policy_hides(xa: Exchange, stock: Stock, clock: FakeClock) -> None:
    other = admit(xa, "XC-NCVI", clock)
    narrowed(xa, 'Handling::"H0", Handling::"H1"', 'Handling::"H0"', "XA/agreement-xc.cedar")
    name = make_set(xa, "found", [*files(3, handling=HandlingCode.H0), *files(3, first=3)])
    clock.advance(2)
    await stock.follow()
    seen = await other.follow()
    xa.ledger.withdraw(name, [entry_of(xa, n)[1] for n in (1, 4)], actor="tester", reason="wrong")
    put(xa, name, files(1, first=5, category="icse:3"), clock)
    xa.compacting.compact(name)
    seen += await other.follow()
    await stock.follow()
    assert stock.md5s == hexes([0, 2, 3, 5])
    assert other.md5s == hexes([0, 2])
    shown = {entry_of(xa, n)[1] for n in (0, 2)}
    ids = {int(update.id.split("-")[1], 16) for update in seen}
    assert len(ids) == 3, "two that it may see, and the one of those that was withdrawn"
    assert shown < ids
    hidden = {entry_of(xa, n)[1] for n in (3, 5)}
    assert not hidden & ids


async def test_what_is_decided_and_what_leaves_is_on_record(xa: Exchange, stock: Stock, clock: FakeClock) -> None:
    make_set(xa, "found", [*files(3), *files(2, first=3, handling=HandlingCode.H2)])
    clock.advance(2)
    answer = await stock.get("/v2/entries")
    decided = [event.details for event in events(xa.node, EventKind.SHARE_DECIDED)]
    assert [(one["surface"], one["outcome"]) for one in decided] == [("tls_only", "allow"), ("tls_only", "deny")]
    assert "fed-tls-only-handling" in str(decided[1]["rules"])
    (served,) = events(xa.node, EventKind.SURFACE_PAGE_SERVED)
    assert served.details == {
        "partner": "XB-NCVI",
        "surface": "hashsharing",
        "sets": ["XA-NCVI/found"],
        "after": 0,
        "until": clock(),
        "start": 1,
        "entries": 3,
        "deleted": 0,
        "page_digest": hashlib.sha256(answer.content).hexdigest(),
        "policy": xa.node.policy.digest,
    }
    await stock.follow()
    assert len(events(xa.node, EventKind.SHARE_DECIDED)) == 2, "said once, until it changes"


# Feedback


async def test_feedback_arrives_as_an_opinion_on_the_entry(xa: Exchange, stock: Stock, clock: FakeClock) -> None:
    make_set(xa, "found", files(2))
    clock.advance(2)
    await stock.follow()
    update = next(iter(stock.held.values()))
    guid = next(iter(ncmec.REASONS))
    await stock.call(lambda api: api.submit_upvote(update.member_id, update.id, FingerprintType.md5))
    down = (update.member_id, update.id, FingerprintType.sha1, FeedbackType.downvote, guid)
    await stock.call(lambda api: api.submit_feedback(*down))
    set_id, entry_id = update.id.split("-")
    with xa.node.store.reading() as tx:
        told = {row.algorithm: row for row in tx.opinions.of(int(set_id), [int(entry_id, 16)])}
    assert (told["md5"].verdict, told["md5"].reasons, told["md5"].partner) == ("affirmative", "", "XB-NCVI")
    assert (told["sha1"].verdict, told["sha1"].reasons, told["sha1"].version) == ("negative", guid, 1)
    # A later word takes the place of the one before; both are on record.
    await stock.call(lambda api: api.submit_upvote(update.member_id, update.id, FingerprintType.sha1))
    with xa.node.store.reading() as tx:
        assert [row.verdict for row in tx.opinions.all()] == ["affirmative"] * 2
    kept = [event.details["verdict"] for event in events(xa.node, EventKind.OPINION_RECEIVED)]
    assert kept == ["affirmative", "negative", "affirmative"]


async def test_what_is_thought_of_an_entry_comes_with_it_and_names_nobody_else(
    xa: Exchange, stock: Stock, clock: FakeClock
) -> None:
    name = make_set(xa, "found", files(3))
    clock.advance(2)
    first, second, third = (entry_of(xa, number)[1] for number in range(3))
    other = admit(xa, "XC-NCVI", clock)
    await stock.follow()
    await other.follow()
    me, us = ncmec.Member("XB-NCVI").number, ncmec.Member("XA-NCVI").number
    another, lawful = 0x7FFF_FFFF, "5b0f1d52-6f0e-4c1a-9d55-0a7f6a3c0001"

    def opinion(client: Stock, entry: int, kind: FingerprintType, guid: str = "") -> Callable[[NCMECHashAPI], Any]:
        (update,) = (one for one in client.held.values() if one.id.endswith(f"{entry:016x}"))
        word = FeedbackType.downvote if guid else FeedbackType.upvote
        return lambda api: api.submit_feedback(update.member_id, update.id, kind, word, guid or None)

    await stock.call(opinion(stock, first, FingerprintType.md5))
    await stock.call(opinion(stock, second, FingerprintType.sha1, lawful))
    await other.call(opinion(other, second, FingerprintType.sha1, lawful))
    await other.call(opinion(other, third, FingerprintType.sha1))
    xa.opinions.give(name, [first], opinions.Verdict.CONFIRM, "seen", actor="tester")
    xa.opinions.give(name, [third], opinions.Verdict.DISPUTE, "known_good", actor="tester")

    def told(updates: Sequence[NCMECEntryUpdate]) -> dict[int, set[tuple[str, str, int, str]]]:
        return {
            int(update.id.split("-")[1], 16): {
                (kind, one.feedback_type.value, one.member.esp_id, one.reason)
                for kind, words in update.feedback.items()
                for one in words
            }
            for update in updates
        }

    known_good = "The fingerprint is of a harmless or common file"
    assert told(await stock.entries()) == {
        first: {("Md5", "upvote", me, ""), ("Md5", "upvote", us, "")},
        second: {("Sha1", "downvote", me, ncmec.REASONS[lawful]), ("Md5", "downvote", another, "Not told")},
        third: {("Md5", "upvote", another, ""), ("Md5", "downvote", us, known_good)},
    }
    body = (await stock.get("/v2/entries")).text
    assert "XC-NCVI" not in body
    assert str(ncmec.Member("XC-NCVI").number) not in body
    # A confirmation is of the entry as it was; a partner that sees no digest hears of none.
    put(xa, name, files(3, category="icse:2"), clock)
    now = told(await stock.entries())
    assert now[first] == {("Md5", "upvote", me, "")}, "what it said itself it is told"
    assert now[third] == {("Md5", "downvote", us, known_good)}
    narrowed(xa, 'Action::"share_cryptographic_digests",', "")
    assert "feedback" not in (await stock.get("/v2/entries")).text


async def test_reasons_are_told_for_types_that_entries_have(stock: Stock) -> None:
    answer = ElementTree.fromstring((await stock.get("/v2/feedback/SHA1/reasons")).content)
    assert {one.get("guid"): one.get("name") for one in answer} == ncmec.REASONS
    assert {one.get("type") for one in answer} == {"Sha1"}
    assert len(ElementTree.fromstring((await stock.get("/v2/feedback/VIDENTIFIER/reasons")).content)) == 0
    assert (await stock.get("/v2/feedback/sha1/reasons")).status_code == 404


FINE = f'<feedbackSubmission xmlns="{ncmec.NAMESPACE}"><affirmative /></feedbackSubmission>'
BAD_FEEDBACK = {
    "a document type": f'<!DOCTYPE x [<!ENTITY e "affirmative">]>{FINE}',
    "an outside entity": f'<!DOCTYPE x SYSTEM "http://127.0.0.1:1/x.dtd">{FINE}',
    "a comment": FINE.replace("<affirmative />", "<affirmative><!-- x --></affirmative>"),
    "an instruction": f"<?xml-stylesheet href='x'?>{FINE}",
    "no namespace": "<feedbackSubmission><affirmative/></feedbackSubmission>",
    "another root": FINE.replace("feedbackSubmission", "status"),
    "two words": FINE.replace("<affirmative />", "<affirmative/><affirmative/>"),
    "no word": FINE.replace("<affirmative />", ""),
    "no reason": FINE.replace("<affirmative />", "<negative><reasonIds/></negative>"),
    "an unknown reason": FINE.replace(
        "<affirmative />",
        f"<negative><reasonIds><guid>{'0' * 8}-0000-0000-0000-{'0' * 12}</guid></reasonIds></negative>",
    ),
    "a word that is no GUID": FINE.replace(
        "<affirmative />", "<negative><reasonIds><guid>x</guid></reasonIds></negative>"
    ),
    "too deep": FINE.replace("<affirmative />", "<affirmative>" * 40 + "</affirmative>" * 40),
    "no XML": "affirmative",
    "nothing": "",
    "a cut": FINE[:-5],
    "another encoding": FINE.encode("utf-16"),
}


@pytest.mark.parametrize("what", BAD_FEEDBACK)
async def test_feedback_in_any_other_form_is_refused_and_nothing_is_kept(
    xa: Exchange, stock: Stock, clock: FakeClock, what: str
) -> None:
    make_set(xa, "found", files(1))
    clock.advance(2)
    (update,) = await stock.entries()
    path = f"/v2/entries/{update.member_id}/{update.id}/MD5/feedback"
    headers = {"Content-Type": "application/xml; charset=utf-8"}
    began = time.monotonic()
    answer = await stock.get(path, "PUT", data=BAD_FEEDBACK[what], headers=headers)
    assert answer.status_code in (400, 413)
    assert time.monotonic() - began < 2
    with xa.node.store.reading() as tx:
        assert tx.opinions.all() == []
    assert (await stock.get(path, "PUT", data=FINE, headers=headers)).status_code == 200


async def test_feedback_that_is_too_long_or_of_another_type_is_refused(
    xa: Exchange, stock: Stock, clock: FakeClock
) -> None:
    make_set(xa, "found", files(1))
    clock.advance(2)
    (update,) = await stock.entries()
    path = f"/v2/entries/{update.member_id}/{update.id}/MD5/feedback"
    long = FINE + " " * ncmec.MAX_FEEDBACK_BYTES
    assert (await stock.get(path, "PUT", data=long, headers={"Content-Type": "text/xml"})).status_code == 413
    assert (await stock.get(path, "PUT", data=FINE, headers={"Content-Type": "text/plain"})).status_code == 415
    squeezed = {"Content-Type": "text/xml", "Content-Encoding": "gzip"}
    assert (await stock.get(path, "PUT", data=FINE, headers=squeezed)).status_code == 415


async def test_feedback_on_what_one_may_not_see_is_feedback_on_what_is_not_there(
    xa: Exchange, stock: Stock, clock: FakeClock
) -> None:
    name = make_set(xa, "found", [*files(2), *files(1, first=2, handling=HandlingCode.H2)])
    clock.advance(2)
    updates = {update.fingerprints["md5"]: update for update in await stock.entries()}
    mine, gone = updates[md5("made-up 0").hex()], updates[md5("made-up 1").hex()]
    xa.ledger.withdraw(name, [int(gone.id.split("-")[1], 16)], actor="tester", reason="wrong")
    hidden = f"{mine.id.split('-')[0]}-{entry_of(xa, 2)[1]:016x}"
    paths = {
        "hidden": (mine.member_id, hidden, "MD5"),
        "withdrawn": (mine.member_id, gone.id, "MD5"),
        "never there": (mine.member_id, "1-00010000000fffff", "MD5"),
        "no set": (mine.member_id, mine.id.replace("1-", "999-", 1), "MD5"),
        "no id": (mine.member_id, "image1", "MD5"),
        "another member": (ncmec.Member("XB-NCVI").number, mine.id, "MD5"),
        "a digest that it has not": (mine.member_id, mine.id, "PDQ"),
        "a type that nothing has": (mine.member_id, mine.id, "VIDENTIFIER"),
        "no type": (mine.member_id, mine.id, "md5"),
    }
    answers = {}
    for what, (member, entry, kind) in paths.items():
        path = f"/v2/entries/{member}/{entry}/{kind}/feedback"
        answers[what] = await stock.get(path, "PUT", data=FINE, headers={"Content-Type": "text/xml"})
    assert {what: answer.status_code for what, answer in answers.items()} == dict.fromkeys(paths, 404)
    assert len({answer.content for answer in answers.values()}) == 1
    with xa.node.store.reading() as tx:
        assert tx.opinions.all() == []


# Who may not come in, and what is no question


async def test_wrong_secret_closed_door_and_foreign_secret_hear_the_same(
    xa: Exchange, stock: Stock, clock: FakeClock
) -> None:
    make_set(xa, "found", files(1))
    clock.advance(2)
    other = admit(xa, "XC-NCVI", clock)
    with xa.node.store.transaction() as tx:
        tx.secrets.open("XB-NCVI", str(Scope.TAXII), clock(), "a proposal")
        tx.secrets.close("XC-NCVI", str(Scope.HASHSHARING))
    taxii = Callers(xa.node).issue_secret("XB-NCVI", Scope.TAXII, 30, "duty-officer")[1]
    changed = stock.secret[:-1] + ("A" if stock.secret[-1] != "A" else "B")
    tries = [
        ("XB-NCVI", changed),
        ("XB-NCVI", taxii),
        ("XC-NCVI", other.secret),
        ("XC-NCVI", stock.secret),
        ("XZ-NONE", stock.secret),
        ("XB-NCVI", ""),
        None,
    ]
    paths = ["/v2/status", "/v2/members", "/v2/entries", "/v2/categorizations", "/v2/feedback/MD5/reasons"]
    answers = [await stock.get(path, auth=who) for who in tries for path in paths]
    assert {answer.status_code for answer in answers} == {401}
    assert {answer.headers["WWW-Authenticate"] for answer in answers} == {'Basic realm="hashsharing", charset="UTF-8"'}
    assert len({answer.content for answer in answers}) == 1
    assert [(await stock.get(path)).status_code for path in paths] == [200] * 5
    set_state(xa.node, "XB-NCVI", "suspended")
    assert [(await stock.get(path)).status_code for path in paths] == [401] * 5


async def test_while_exchange_is_paused_nothing_leaves(xa: Exchange, stock: Stock, clock: FakeClock) -> None:
    make_set(xa, "found", files(1))
    clock.advance(2)
    with xa.node.store.transaction() as tx:
        tx.people.pause("*", "duty-officer", clock())
    assert (await stock.get("/v2/entries")).status_code == 503
    assert (await stock.get("/v2/status")).status_code == 503
    assert events(xa.node, EventKind.SURFACE_PAGE_SERVED) == []


async def test_a_partner_under_test_gets_invented_data_alone(tmp_path: Path, clock: FakeClock) -> None:
    node = make_node(tmp_path, "XA-NCVI", clock=clock, quorum=2, **loopback())
    enrol(node, card_of(make_node(tmp_path, "XB-NCVI", clock=clock)), test=True)
    exchange = Exchange(node)
    make_set(exchange, "found", files(3))
    make_set(exchange, "test-found", files(3, first=10))
    clock.advance(2)
    async with serving(exchange):
        client = admit(exchange, "XB-NCVI", clock)
        await client.follow()
        assert client.md5s == hexes(range(10, 13))


BAD_QUERIES = [
    "from=yesterday",
    "from=2026-13-01T00:00:00Z",
    "from=2026-02-30T00:00:00Z",
    "from=2026-01-01T00:00:00",
    "from=2026-01-01T00:00:00%2B01:00",
    "from=2026-01-01T00:00:60Z",
    "from=0000-01-01T00:00:00Z",
    "from=%D9%A2026-01-01T00:00:00Z",
    "from=",
    "from",
    "to=9999-12-31T23:59:59Z",
    "from=2026-01-01T00:00:00Z&from=2026-01-01T00:00:00Z",
    "since=2026-01-01T00:00:00Z",
    "start=-1",
    "start=0",
    "start=1.5",
    "start=" + "9" * 400,
    "size=x",
    "at=",
    "at=1.1.1",
    "at=1.1.1." + "0" * 32,
    "at=1.1.1." + "0" * 64,
    "at=-1.1.1." + "0" * 32,
    "%ff=%ff",
    "&".join(f"a{n}=1" for n in range(50)),
]


@pytest.mark.parametrize("query", BAD_QUERIES)
async def test_a_query_in_any_other_form_is_refused(xa: Exchange, stock: Stock, clock: FakeClock, query: str) -> None:
    make_set(xa, "found", files(1))
    clock.advance(2)
    answer = await stock.get(f"/v2/entries?{query}")
    assert answer.status_code == 400
    assert answer.json()["type"].endswith("malformed")
    assert events(xa.node, EventKind.SURFACE_PAGE_SERVED) == []


async def test_the_widest_window_is_answered_and_one_that_holds_nothing_is_quick(
    xa: Exchange, stock: Stock, clock: FakeClock
) -> None:
    make_set(xa, "found", files(20_000))
    clock.advance(2)
    answer = await stock.get("/v2/entries?from=0001-01-01T00:00:00Z")
    assert len(ElementTree.fromstring(answer.content)[1]) == PAGE_ITEMS
    began = time.monotonic()
    for year in range(1970, 2020):
        answer = await stock.get(f"/v2/entries?from={year}-01-01T00:00:00Z&to={year + 1}-01-01T00:00:00.000Z")
        assert [len(one) for one in ElementTree.fromstring(answer.content)] == [0, 0]
    assert time.monotonic() - began < 5
    backwards = await stock.get("/v2/entries?from=2020-01-01T00:00:00Z&to=1990-01-01T00:00:00Z")
    assert [len(one) for one in ElementTree.fromstring(backwards.content)] == [0, 0]
    assert len(events(xa.node, EventKind.SURFACE_PAGE_SERVED)) == 1


async def test_a_client_whose_clock_is_a_little_ahead_waits_and_misses_nothing(
    xa: Exchange, stock: Stock, clock: FakeClock
) -> None:
    make_set(xa, "found", files(1))
    asked = asyncio.create_task(stock.entries(0, clock() + 2))
    await asyncio.sleep(1)
    xa.ledger.import_entries("XA-NCVI/found", files(1, first=1), actor="tester", form="test")
    clock.advance(2)
    assert len(await asked) == 2
    with pytest.raises(requests.HTTPError):
        await stock.entries(0, clock() + 6)


async def test_the_text_for_the_next_page_is_good_for_its_caller_and_its_window_alone(
    xa: Exchange, stock: Stock, clock: FakeClock
) -> None:
    make_set(xa, "found", files(2_500))
    clock.advance(2)
    other = admit(xa, "XC-NCVI", clock)
    page = ElementTree.fromstring((await stock.get("/v2/entries")).content)
    following = page.findtext(f"{NAMESPACE}paging/{NAMESPACE}next")
    assert following is not None
    assert following.startswith("/v2/entries?from=")
    assert (await stock.get(following)).status_code == 200
    assert (await stock.get(following)).status_code == 200, "as often as one likes"
    assert (await other.get(following)).status_code == 400
    place = re.findall(r"at=(.*)", following)[0]
    numbers, mac = place.rsplit(".", 1)
    set_id, label, seq = numbers.split(".")
    forged = [
        following.replace(place, f"{set_id}.{label}.{int(seq) + 1}.{mac}"),
        following.replace(place, f"{int(set_id) + 1}.{label}.{seq}.{mac}"),
        following.replace(place, f"{set_id}.{label}.{seq}.{'0' * 32}"),
        following.replace("start=1001", "start=1"),
        following.replace("from=1970", "from=1971"),
    ]
    assert len({following, *forged}) == 6
    assert [(await stock.get(one)).status_code for one in forged] == [400] * 5


async def test_clients_of_one_partner_are_bounded_generously(tmp_path: Path, clock: FakeClock) -> None:
    node = make_node(tmp_path, "XA-NCVI", clock=clock, **loopback(requests_per_minute=60))
    befriend(node, make_node(tmp_path, "XB-NCVI", clock=clock))
    exchange = Exchange(node)
    async with serving(exchange):
        client = admit(exchange, "XB-NCVI", clock)
        found = [(await client.get("/v2/status")).status_code for _ in range(70)]
    assert found[:50] == [200] * 50
    assert 429 in found


async def test_no_other_address_answers(stock: Stock) -> None:
    for path in ("/v2", "/v2/", "/v2/entries/", "/v2/entries/1/fingerprints/TMK_PDQF", "/v1/entries", "/v2/status/x"):
        assert (await stock.get(path)).status_code == 404
    assert (await stock.get("/v2/entries", "POST")).status_code == 405
    assert (await stock.get("/v2/status", "HEAD")).status_code == 405
