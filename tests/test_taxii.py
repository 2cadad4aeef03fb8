"""The TAXII door against clients that nobody here wrote: `taxii2-client`, OpenCTI's and MISP's rules, attacks."""

from __future__ import annotations

import asyncio
import json
import random
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
import pytest_asyncio
import requests
import stix2
import taxii2client.v21 as taxii
from stix2validator import ValidationOptions, validate_instance
from taxii2client.common import TokenAuth

from factory import (
    FakeClock,
    befriend,
    card_of,
    drafts,
    enrol,
    events,
    loopback,
    make_node,
    make_set,
    serving,
    set_state,
    sha256,
)
from gateway.adapters.stixwords import EXTENSION
from gateway.audit import EventKind
from gateway.callers import Callers, Scope
from gateway.doors.taxii import ROOT, STIX_TYPE, TAXII_TYPE
from gateway.exchange import Exchange
from gateway.exchange.collections import PAGE_OBJECTS, collection_id, inbox_id
from gateway.exchange.decisions import Judge
from gateway.exchange.inbox import MAX_BODY_BYTES, MAX_OBJECTS
from gateway.exchange.lookup import parse_entry
from gateway.model import EntryDraft, HandlingCode, Restriction, VictimStatus

FOUND = "XA-NCVI/found"
INBOX = "XA-NCVI/from-xb-ncvi"
COMMON = 11  # objects that come with every set
MD5 = "88653fc18e0f20138d663e4d1cb45c70"


@dataclass
class Stock:
    """A partner with a stock client in its hands."""

    url: str
    partner: str
    secret: str

    async def get(self, path: str, method: str = "GET", **options: Any) -> requests.Response:
        """One request by hand; `path` is below the API root unless it begins with a slash."""
        url = self.url + (path if path.startswith("/") else f"{ROOT}/{path}")
        options.setdefault("auth", (self.partner, self.secret))
        options.setdefault("headers", {"Accept": TAXII_TYPE})
        return await asyncio.to_thread(requests.request, method, url, timeout=30, **options)

    async def server(self) -> taxii.Server:
        return await asyncio.to_thread(
            lambda: taxii.Server(f"{self.url}/taxii2/", user=self.partner, password=self.secret)
        )

    async def collections(self) -> list[taxii.Collection]:
        server = await self.server()
        found: list[taxii.Collection] = await asyncio.to_thread(lambda: server.default.collections)
        return found

    async def collection(self, name: str = FOUND) -> taxii.Collection:
        return next(one for one in await self.collections() if one.title == name)

    async def objects(self, name: str = FOUND, per_request: int = 0, **filters: Any) -> list[dict[str, Any]]:
        """All objects of a collection, page by page, as the stock client follows them."""
        collection = await self.collection(name)
        return await asyncio.to_thread(_all, collection.get_objects, per_request, filters)


def _all(ask: Callable[..., Any], per_request: int, filters: dict[str, Any]) -> list[dict[str, Any]]:
    pages = taxii.as_pages(ask, per_request=per_request, **filters)
    return [one for page in pages for one in page.get("objects", [])]


def indicators(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [one for one in objects if one["type"] == "indicator"]


def digests(objects: list[dict[str, Any]]) -> set[str]:
    return {one["pattern"].split("'")[-2] for one in indicators(objects) if "hashes" in one["pattern"]}


def made_up(numbers: range) -> set[str]:
    return {sha256(f"made-up {number}").hex() for number in numbers}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def xa(tmp_path: Path, clock: FakeClock) -> Exchange:
    node = make_node(tmp_path, "XA-NCVI", clock=clock, **loopback())
    befriend(node, make_node(tmp_path, "XB-NCVI", clock=clock), make_node(tmp_path, "XC-NCVI", clock=clock))
    return Exchange(node)


def admit(xa: Exchange, partner: str, clock: FakeClock) -> Stock:
    """Open the surface to a partner, and hand it a secret."""
    with xa.node.store.transaction() as tx:
        assert tx.secrets.open(partner, str(Scope.TAXII), clock(), "a proposal")
    secret = Callers(xa.node).issue_secret(partner, Scope.TAXII, 30, "duty-officer")[1]
    return Stock(xa.node.settings.public_url, partner, secret)


@pytest_asyncio.fixture
async def stock(xa: Exchange, clock: FakeClock) -> AsyncIterator[Stock]:
    """XB's stock client, and XA serving it."""
    client = admit(xa, "XB-NCVI", clock)
    async with serving(xa):
        yield client


def make(xa: Exchange, clock: FakeClock, count: int = 5, name: str = "found", **fields: Any) -> str:
    full = make_set(xa, name, drafts(count, **fields))
    clock.advance(2)
    return full


def entry_of(xa: Exchange, number: int) -> int:
    [hit] = xa.lookup.find([sha256(f"made-up {number}").hex()], actor="tester")
    return parse_entry(hit.entry)


def withdraw(xa: Exchange, clock: FakeClock, number: int) -> None:
    xa.ledger.withdraw(FOUND, [entry_of(xa, number)], actor="tester", reason="wrong")
    clock.advance(2)


def switch_policy(xa: Exchange, old: str, new: str) -> dict[str, str]:
    """Change what the agreement with XB says; returns the texts from before."""
    texts, name = dict(xa.node.policies.texts), "XA/agreement-xb.cedar"
    assert old in texts[name]
    xa.node.policies.texts = {**texts, name: texts[name].replace(old, new)}
    xa.node.policies._loaded = None
    return texts


# What the stock client does


async def test_the_stock_client_finds_its_way(xa: Exchange, stock: Stock, clock: FakeClock) -> None:
    make(xa, clock)
    server = await stock.server()
    assert await asyncio.to_thread(lambda: server.title) == "Hash lists of XA-NCVI"
    root = server.default
    assert await asyncio.to_thread(lambda: root.max_content_length) == MAX_BODY_BYTES
    assert root.versions == [TAXII_TYPE]
    collection = await stock.collection()
    assert (collection.id, collection.can_read, collection.can_write) == (collection_id(FOUND), True, False)
    assert collection.media_types == [STIX_TYPE]


async def test_the_stock_client_fetches_everything_and_every_object_is_stix(
    xa: Exchange, stock: Stock, clock: FakeClock
) -> None:
    make(xa, clock, 7, series="Series A", victim_status=VictimStatus.IDENTIFIED)
    objects = await stock.objects(per_request=4)
    assert len(objects) == COMMON + 7
    assert len({one["id"] for one in objects}) == len(objects)
    assert digests(objects) == made_up(range(7))
    there = {one["id"] for one in objects}
    for one in objects:
        stix2.parse(one, allow_custom=False)
        result = validate_instance(one, ValidationOptions(strict=True, version="2.1"))
        assert result.is_valid, [str(error) for error in result.errors]
        assert one["spec_version"] == "2.1"  # else OpenCTI takes the feed for TAXII 2.0
        assert {one.get("created_by_ref", one["id"]), *one.get("object_marking_refs", [])} <= there


async def test_what_policy_withholds_over_tls_alone_does_not_appear(
    xa: Exchange, stock: Stock, clock: FakeClock
) -> None:
    secret = [
        EntryDraft({"sha256": sha256("h2")}, handling=HandlingCode.H2),
        EntryDraft({"sha256": sha256("embargo")}, restrictions=(Restriction.EMBARGO,)),
        EntryDraft({"sha256": sha256("seen"), "pdq": sha256("pdq")}, victim_status=VictimStatus.LEAD, victim_ref="v-9"),
    ]
    make_set(xa, "found", secret)
    clock.advance(2)
    collection = await stock.get(f"collections/{collection_id(FOUND)}/objects/")
    assert digests(collection.json()["objects"]) == {sha256("seen").hex()}
    for word in (sha256("h2").hex(), sha256("embargo").hex(), sha256("pdq").hex(), "v-9", "lead", "perceptual"):
        assert word not in collection.text


async def test_a_client_follows_updates_and_withdrawals(xa: Exchange, stock: Stock, clock: FakeClock) -> None:
    make(xa, clock, 5)
    held = {one["id"]: one for one in await stock.objects()}
    since = await _last(stock)
    assert await stock.objects(added_after=since) == []
    xa.ledger.import_entries(FOUND, drafts(1, first=3, category="icse:2"), actor="tester", form="test")
    clock.advance(2)
    [changed] = await stock.objects(added_after=since)
    assert changed["extensions"][EXTENSION]["category"] == "icse:2"
    assert changed["modified"] > held[changed["id"]]["modified"]
    assert changed["created"] == held[changed["id"]]["created"]
    since = await _last(stock, added_after=since)
    withdraw(xa, clock, 4)
    [gone] = await stock.objects(added_after=since)
    assert gone["revoked"] is True
    assert gone["modified"] > held[gone["id"]]["modified"]
    assert sha256("made-up 4").hex() not in json.dumps(gone)
    assert len(await stock.objects()) == COMMON + 5  # each entry once, in its latest state


async def _last(stock: Stock, **params: str) -> str:
    answer = await stock.get(f"collections/{collection_id(FOUND)}/objects/", params=params)
    return answer.headers["X-TAXII-Date-Added-Last"]


async def test_thousands_of_one_second_come_page_by_page_by_time_alone(
    xa: Exchange, stock: Stock, clock: FakeClock
) -> None:
    make(xa, clock, 2_300)
    since, seen = "1970-01-01T00:00:00Z", list[str]()
    path = f"collections/{collection_id(FOUND)}/objects/"
    while True:
        answer = await stock.get(path, params={"added_after": since})
        found = [one["id"] for one in answer.json().get("objects", [])]
        if not found:
            break
        seen += found
        first, since = (answer.headers[f"X-TAXII-Date-Added-{end}"] for end in ("First", "Last"))
        assert first < since
    assert len(seen) == len(set(seen)) == COMMON + 2_300


async def test_what_comes_between_two_pages_is_missed_by_neither(xa: Exchange, stock: Stock, clock: FakeClock) -> None:
    make(xa, clock, 8)
    path = f"collections/{collection_id(FOUND)}/objects/"
    first = (await stock.get(path, params={"limit": str(COMMON + 3)})).json()
    xa.ledger.import_entries(FOUND, drafts(2, first=0, category="icse:3"), actor="tester", form="test")
    xa.ledger.import_entries(FOUND, drafts(2, first=20), actor="tester", form="test")
    clock.advance(2)
    objects, page = list(first["objects"]), first
    while page["more"]:
        page = (await stock.get(path, params={"limit": "3", "next": page["next"]})).json()
        objects += page["objects"]
    latest = {one["id"]: one for one in objects}
    assert digests(list(latest.values())) == made_up(range(8)) | made_up(range(20, 22))
    assert sum(one["extensions"][EXTENSION]["category"] == "icse:3" for one in indicators(list(latest.values()))) == 2


async def test_what_policy_no_longer_shows_is_revoked_and_comes_back_with_it(
    xa: Exchange, stock: Stock, clock: FakeClock
) -> None:
    make(xa, clock, 3, series="Series A")
    before = {one["id"]: one for one in indicators(await stock.objects())}
    texts = switch_policy(xa, '[Handling::"H0", Handling::"H1", Handling::"H2"]', '[Handling::"H0"]')
    since = await _last(stock)
    clock.advance(2)
    gone = await stock.objects(added_after=since)
    assert {one["id"] for one in gone} == before.keys()
    assert all(one["revoked"] and one["modified"] > before[one["id"]]["modified"] for one in gone)
    xa.node.policies.texts, xa.node.policies._loaded = texts, None
    assert await stock.objects(added_after=await _last(stock)) == []
    clock.advance(2)
    back = await stock.objects(added_after=await _last(stock, added_after=since))
    back = back or indicators(await stock.objects())
    assert digests(back) == made_up(range(3))
    assert all(one["modified"] > before[one["id"]]["modified"] and "revoked" not in one for one in back)


async def test_a_field_group_that_goes_makes_newer_versions_without_it(
    xa: Exchange, stock: Stock, clock: FakeClock
) -> None:
    make(xa, clock, 2, series="Series A")
    old = indicators(await stock.objects())
    since = await _last(stock)
    switch_policy(xa, '     Action::"share_series",\n', "")
    assert await stock.objects(added_after=since) == []
    clock.advance(2)
    new = await stock.objects(added_after=since)
    assert {one["id"] for one in new} == {one["id"] for one in old}
    assert min(one["modified"] for one in new) > max(one["modified"] for one in old)
    assert "Series A" in json.dumps(old)
    assert "Series A" not in json.dumps(new)


async def test_two_partners_each_see_their_own(xa: Exchange, stock: Stock, clock: FakeClock) -> None:
    make(xa, clock, 2, series="Series A")
    other = admit(xa, "XC-NCVI", clock)
    mine = {one["id"]: one for one in indicators(await stock.objects())}
    theirs = {one["id"]: one for one in indicators(await other.objects())}
    assert mine.keys() == theirs.keys()
    assert all("series" in one["extensions"][EXTENSION] for one in mine.values())
    rules = xa.node.policies.texts["XA/agreement-xc.cedar"]
    assert ("share_series" in rules) == all("series" in one["extensions"][EXTENSION] for one in theirs.values())


async def test_joined_and_rewritten_blocks_change_nothing_for_a_client(
    xa: Exchange, stock: Stock, clock: FakeClock
) -> None:
    make(xa, clock, 4)
    await stock.objects()
    for first in range(4, 40, 4):
        xa.ledger.import_entries(FOUND, drafts(4, first=first), actor="tester", form="test")
        clock.advance(2)
    withdraw(xa, clock, 3)
    since = (await stock.get(f"collections/{collection_id(FOUND)}/manifest/")).json()["objects"][20]["date_added"]
    before, rest = await stock.objects(), await stock.objects(added_after=since)
    assert xa.compacting.compact(FOUND).old
    assert await stock.objects() == before
    assert await stock.objects(added_after=since) == rest
    assert sum(one.get("revoked", False) for one in before) == 1
    assert len(rest) == len(before) - 21


# Filters, manifest, versions


async def test_filters_choose(xa: Exchange, stock: Stock, clock: FakeClock) -> None:
    make(xa, clock, 4)
    everything = await stock.objects()
    entries = indicators(everything)
    path = f"collections/{collection_id(FOUND)}/objects/"

    async def ids(**params: str) -> list[str]:
        answer = await stock.get(path, params={f"match[{name}]": value for name, value in params.items()})
        assert answer.status_code == 200, answer.text
        return [one["id"] for one in answer.json().get("objects", [])]

    assert await ids(type="indicator") == [one["id"] for one in entries]
    assert len(await ids(type="identity,marking-definition")) == COMMON - 1
    assert len(await ids(type="identity,indicator")) == 6
    assert await ids(type="malware") == []
    assert await ids(id=f"{entries[2]['id']},{everything[0]['id']}") == [everything[0]["id"], entries[2]["id"]]
    assert await ids(id=f"indicator--{uuid4()}") == []
    assert await ids(id=entries[2]["id"], type="identity") == []
    assert await ids(version=entries[1]["modified"], id=entries[1]["id"]) == [entries[1]["id"]]
    assert await ids(version="2001-01-01T00:00:00.000Z") == []
    assert await ids(version="nonsense") == []
    assert await ids(version="first,last") == [one["id"] for one in everything]
    assert await ids(spec_version="2.0") == []
    assert len(await ids(spec_version="2.0,2.1")) == len(everything)


async def test_the_manifest_says_when_each_was_added(xa: Exchange, stock: Stock, clock: FakeClock) -> None:
    make(xa, clock, 6)
    objects = await stock.objects()
    collection = await stock.collection()
    manifest = await asyncio.to_thread(_all, collection.get_manifest, 4, {})
    assert [one["id"] for one in manifest] == [one["id"] for one in objects]
    assert [one["version"] for one in manifest[COMMON:]] == [one["modified"] for one in objects[COMMON:]]
    added = [one["date_added"] for one in manifest]
    assert added == sorted(set(added))
    rest = await stock.objects(added_after=added[COMMON])
    assert [one["id"] for one in rest] == [one["id"] for one in objects[COMMON + 1 :]]


async def test_one_object_and_its_versions(xa: Exchange, stock: Stock, clock: FakeClock) -> None:
    make(xa, clock, 3)
    entry = indicators(await stock.objects())[1]
    collection = await stock.collection()
    found = await asyncio.to_thread(collection.get_object, entry["id"])
    assert found["objects"] == [entry]
    versions = await stock.get(f"collections/{collection.id}/objects/{entry['id']}/versions/")
    assert versions.json() == {"more": False, "versions": [entry["modified"]]}
    like_it = entry["id"][:-1] + ("0" if entry["id"][-1] != "0" else "1")
    for name in (f"indicator--{uuid4()}", like_it, "nonsense", "%2e%2e"):
        assert (await stock.get(f"collections/{collection.id}/objects/{name}/")).status_code == 404


# What other people's clients rely on


async def test_media_types_are_exact_and_negotiated(xa: Exchange, stock: Stock, clock: FakeClock) -> None:
    make(xa, clock)
    for path in ("/taxii2/", "", "collections/", f"collections/{collection_id(FOUND)}/objects/"):
        for accept in (TAXII_TYPE, "application/taxii+json; version=2.1", "application/taxii+json", "*/*"):
            answer = await stock.get(path, headers={"Accept": accept})
            assert (answer.status_code, answer.headers["Content-Type"]) == (200, TAXII_TYPE), (path, accept)
        for accept in ("application/json", "application/taxii+json;version=2.0", "text/html"):
            answer = await stock.get(path, headers={"Accept": accept})
            assert answer.status_code == 406
            assert answer.json()["http_status"] == "406"


async def test_an_empty_page_is_an_empty_object(xa: Exchange, stock: Stock, clock: FakeClock) -> None:
    make(xa, clock)
    answer = await stock.get(f"collections/{collection_id(FOUND)}/objects/?added_after=2099-01-01T00:00:00Z")
    assert answer.json() == {}
    assert "X-TAXII-Date-Added-Last" not in answer.headers


async def test_opencti_asks_later_pages_without_the_filters_of_the_first(
    xa: Exchange, stock: Stock, clock: FakeClock
) -> None:
    make(xa, clock, 3)
    since = await _last(stock)
    xa.ledger.import_entries(FOUND, drafts(5, first=10), actor="tester", form="test")
    clock.advance(2)
    path = f"collections/{collection_id(FOUND)}/objects/"
    page = (await stock.get(path, params={"added_after": since, "limit": "2"})).json()
    objects = list(page["objects"])
    while page.get("more"):
        page = (await stock.get(path, params={"limit": "2", "next": page["next"]})).json()
        objects += page["objects"]
    assert digests(objects) == made_up(range(10, 15))
    page = (await stock.get(path, params={"added_after": since, "limit": "2"})).json()
    same = await stock.get(path, params={"added_after": since, "limit": "2", "next": page["next"]})
    assert same.status_code == 200
    other = await stock.get(path, params={"added_after": "2020-01-01T00:00:00Z", "next": page["next"]})
    assert other.status_code == 400


async def test_misp_sends_a_scheme_in_small_letters_and_an_empty_next(
    xa: Exchange, stock: Stock, clock: FakeClock
) -> None:
    make(xa, clock)
    key = requests.auth._basic_auth_str(stock.partner, stock.secret).partition(" ")[2]
    headers = {"Accept": TAXII_TYPE, "Authorization": f"basic {key}"}
    answer = await stock.get(
        f"collections/{collection_id(FOUND)}/objects/?limit=50&next=", auth=lambda r: r, headers=headers
    )
    assert len(answer.json()["objects"]) == COMMON + 5


async def test_names_that_opencti_cuts_at_dots_have_none(xa: Exchange, stock: Stock, clock: FakeClock) -> None:
    make(xa, clock)
    server = await stock.server()
    roots = await asyncio.to_thread(lambda: [root.url for root in server.api_roots])
    assert all("." not in url.rstrip("/").rpartition("/")[2] for url in roots)
    assert all("." not in one.title for one in await stock.collections())


async def test_a_token_serves_in_place_of_a_name_and_a_password(xa: Exchange, stock: Stock, clock: FakeClock) -> None:
    make(xa, clock)
    server = taxii.Server(f"{stock.url}/taxii2/", auth=TokenAuth(stock.secret))
    assert await asyncio.to_thread(lambda: [one.title for one in server.default.collections]) == [FOUND]


# What they send


def indicator(number: int = 1, md5: str = MD5, **members: object) -> dict[str, object]:
    return {
        "type": "indicator",
        "spec_version": "2.1",
        "id": f"indicator--00000000-0000-4000-8000-{number:012d}",
        "created": "2026-01-15T10:00:00.000Z",
        "modified": "2026-01-15T10:00:00.000Z",
        "pattern": f"[file:hashes.MD5 = '{md5}']",
        "pattern_type": "stix",
        "valid_from": "2026-01-15T10:00:00.000Z",
        **members,
    }


async def send(stock: Stock, *objects: object, name: str = INBOX) -> dict[str, Any]:
    collection = await stock.collection(name)
    status = await asyncio.to_thread(collection.add_objects, {"objects": list(objects)})
    raw: dict[str, Any] = status._raw
    return raw


async def test_what_a_partner_sends_is_held_and_goes_to_nobody(xa: Exchange, stock: Stock, clock: FakeClock) -> None:
    make_set(xa, "from-xb-ncvi")
    status = await send(stock, indicator(), {"type": "malware", "id": "malware--1"}, indicator(2, "xyz"))
    assert (status["total_count"], status["success_count"], status["failure_count"]) == (3, 1, 2)
    assert status["successes"] == [{"id": indicator()["id"], "version": indicator()["modified"]}]
    assert "xyz" not in json.dumps(status)
    [hit] = xa.lookup.find([MD5], actor="tester")
    assert hit.set_name == INBOX
    assert hit.attributes["restrictions"] == ["embargo"]
    clock.advance(2)
    other = admit(xa, "XC-NCVI", clock)
    assert await other.collections() == []
    [mine] = await stock.collections()
    assert (mine.id, mine.can_read, mine.can_write) == (inbox_id(INBOX), False, True)
    assert (await stock.get(f"collections/{mine.id}/objects/")).status_code == 403
    [received] = events(xa.node, EventKind.OBJECTS_RECEIVED)
    counted = {name: received.details[name] for name in ("objects", "taken", "withdrawn", "refused", "reasons")}
    assert counted == {"objects": 3, "taken": 1, "withdrawn": 0, "refused": 2, "reasons": {"object": 2}}
    [imported] = events(xa.node, EventKind.ENTRIES_IMPORTED)
    assert (imported.actor, imported.details["accepted"]) == ("XB-NCVI", 1)


async def test_the_status_is_asked_for_again_by_its_sender_alone(xa: Exchange, stock: Stock, clock: FakeClock) -> None:
    make_set(xa, "from-xb-ncvi")
    status = await send(stock, indicator())
    assert (await stock.get(f"status/{status['id']}/")).json() == status
    other = admit(xa, "XC-NCVI", clock)
    assert (await other.get(f"status/{status['id']}/")).status_code == 404
    clock.advance(86_401)
    assert (await stock.get(f"status/{status['id']}/")).status_code == 404


async def test_the_same_again_changes_nothing_and_revoked_or_deleted_is_withdrawn(
    xa: Exchange, stock: Stock, clock: FakeClock
) -> None:
    make_set(xa, "from-xb-ncvi")
    await send(stock, indicator(), indicator(2, "a1" * 16))
    await send(stock, indicator(), indicator(2, "a1" * 16))
    assert len(xa.lookup.find([MD5, "a1" * 16], actor="tester")) == 2
    status = await send(stock, indicator(revoked=True), indicator(9, revoked=True))
    assert (status["success_count"], status["failure_count"]) == (1, 1)
    assert xa.lookup.find([MD5], actor="tester") == []
    name = f"collections/{inbox_id(INBOX)}/objects/{indicator(2)['id']}/"
    assert (await stock.get(name, "DELETE")).status_code == 200
    assert (await stock.get(name, "DELETE")).status_code == 404
    assert xa.lookup.find(["a1" * 16], actor="tester") == []
    # It does not bar our own lists from listing the same.
    make_set(xa, "found", [EntryDraft({"md5": bytes.fromhex(MD5)})])
    assert len(xa.lookup.find([MD5], actor="tester")) == 1


async def test_what_must_never_come_again_is_refused(xa: Exchange, stock: Stock, clock: FakeClock) -> None:
    make_set(xa, "found", [EntryDraft({"md5": bytes.fromhex(MD5)})])
    [hit] = xa.lookup.find([MD5], actor="tester")
    xa.ledger.withdraw(FOUND, [parse_entry(hit.entry)], actor="tester", reason="wrong")
    make_set(xa, "from-xb-ncvi")
    status = await send(stock, indicator())
    assert (status["success_count"], status["failures"][0]["message"]) == (0, "is not taken here")


async def test_policy_decides_what_is_taken(xa: Exchange, stock: Stock, clock: FakeClock) -> None:
    make_set(xa, "from-xb-ncvi")
    embargo = {EXTENSION: {"restrictions": ["embargo"]}}
    status = await send(stock, indicator(extensions=embargo))
    assert status["failures"][0]["message"] == "policy does not let us take this"
    assert xa.lookup.find([MD5], actor="tester") == []


async def test_what_is_taken_and_what_is_not_leaves_a_receipt_that_decides_again(
    xa: Exchange, stock: Stock, clock: FakeClock
) -> None:
    make_set(xa, "from-xb-ncvi")
    for _ in range(2):  # the same labels again: no second receipt
        await send(stock, indicator(), indicator(2, extensions={EXTENSION: {"restrictions": ["embargo"]}}))
    decided = [one for one in events(xa.node, EventKind.SHARE_DECIDED) if one.details["action"] == "receive"]
    assert [(one.details["outcome"], one.details["surface"]) for one in decided] == [
        ("allow", "tls_only"),
        ("deny", "tls_only"),
    ]
    assert all(one.details["policy"] == xa.node.policy.digest and one.details["rules"] for one in decided)
    with xa.node.store.reading() as tx:
        judge = Judge(tx)
        again = [judge.decide_again(leaf) for leaf in judge.receipts()]
        stored = [row.attributes for row in tx.sets.labels(tx.sets.get(INBOX).id or 0)]
    assert len([one for one in again if one.details["action"] == "receive"]) == 2
    assert all(one.same for one in again)
    assert all("embargo" in attributes for attributes in stored), "a label as offered is none of the set's own"
    received = events(xa.node, EventKind.OBJECTS_RECEIVED)
    assert [one.details["reasons"] for one in received] == [{"policy": 1}] * 2
    clock.advance(2)
    assert await admit(xa, "XC-NCVI", clock).collections() == []


async def test_what_is_sent_while_policy_changes_is_not_taken(
    xa: Exchange, stock: Stock, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_set(xa, "from-xb-ncvi")
    judged = type(xa.node.policy).receivable

    def changed_meanwhile(policy: Any, *asked: Any) -> Any:
        found = judged(policy, *asked)
        switch_policy(xa, "Agreement", "Agreement")
        xa.node.policies.texts = {**xa.node.policies.texts, "XA/national.cedar": "// nothing\n"}
        return found

    monkeypatch.setattr(type(xa.node.policy), "receivable", changed_meanwhile)
    headers = {"Accept": TAXII_TYPE, "Content-Type": TAXII_TYPE}
    body = json.dumps({"objects": [indicator()]})
    answer = await stock.get(f"collections/{inbox_id(INBOX)}/objects/", "POST", data=body, headers=headers)
    assert is_error(answer, 503)
    assert xa.lookup.find([MD5], actor="tester") == []


async def test_media_types_of_what_is_sent(xa: Exchange, stock: Stock, clock: FakeClock) -> None:
    make_set(xa, "from-xb-ncvi")
    path, body = f"collections/{inbox_id(INBOX)}/objects/", json.dumps({"objects": [indicator()]})
    for content_type, code in (
        (TAXII_TYPE, 202),
        ("application/taxii+json; version=2.1", 202),
        (STIX_TYPE, 202),  # OpenCTI's pusher
        ("application/json", 415),
        ("application/taxii+json;version=2.0", 415),
    ):
        headers = {"Accept": TAXII_TYPE, "Content-Type": content_type}
        assert (await stock.get(path, "POST", data=body, headers=headers)).status_code == code, content_type


# Attacks


def is_error(answer: requests.Response, status: int) -> bool:
    """Whether an answer is an error message of TAXII."""
    said = answer.json()
    assert answer.headers["Content-Type"] == TAXII_TYPE
    assert said["title"]
    return answer.status_code == status and said["http_status"] == str(status)


async def test_a_wrong_secret_a_shut_surface_and_a_partner_that_is_gone_are_sent_away(
    xa: Exchange, stock: Stock, clock: FakeClock
) -> None:
    make(xa, clock)
    wrong = Stock(stock.url, stock.partner, stock.secret[:-1] + "A")
    other = Stock(stock.url, "XC-NCVI", stock.secret)
    for client in (wrong, other):
        for path in ("/taxii2/", "collections/", f"collections/{collection_id(FOUND)}/objects/", "status/x/"):
            answer = await client.get(path)
            assert is_error(answer, 401)
            assert answer.headers["WWW-Authenticate"].startswith("Basic ")
    assert (await stock.get("collections/")).status_code == 200
    with pytest.raises(requests.HTTPError):
        await wrong.collections()
    set_state(xa.node, "XB-NCVI", "suspended")
    assert is_error(await stock.get("collections/"), 401)
    set_state(xa.node, "XB-NCVI", "active")
    with xa.node.store.transaction() as tx:
        tx.secrets.close("XB-NCVI", str(Scope.TAXII))
    assert is_error(await stock.get("collections/"), 401)


async def test_a_secret_of_another_surface_opens_nothing(xa: Exchange, stock: Stock, clock: FakeClock) -> None:
    with xa.node.store.transaction() as tx:
        tx.secrets.open("XB-NCVI", str(Scope.HASHSHARING), clock(), "a proposal")
    secret = Callers(xa.node).issue_secret("XB-NCVI", Scope.HASHSHARING, 30, "duty-officer")[1]
    assert is_error(await Stock(stock.url, "XB-NCVI", secret).get("collections/"), 401)


async def test_every_refusal_is_an_error_message_of_taxii(xa: Exchange, stock: Stock, clock: FakeClock) -> None:
    make(xa, clock)
    make_set(xa, "from-xb-ncvi")
    objects, send_to = f"collections/{collection_id(FOUND)}/objects/", f"collections/{inbox_id(INBOX)}/objects/"
    headers = {"Accept": TAXII_TYPE, "Content-Type": TAXII_TYPE}
    for path in ("nothing/", "collections", "collections/x/y/z/", f"{objects}a/b/c/", "/taxii2/other/", "/taxii2/x"):
        for method in ("GET", "POST", "DELETE"):
            assert is_error(await stock.get(path, method, headers=headers), 404), path
    for path, method, allowed in (
        ("collections/", "POST", "GET"),
        (objects, "DELETE", "GET, POST"),
        (f"{objects}x/", "PUT", "GET, DELETE"),
        ("/taxii2/", "OPTIONS", "GET"),
        (f"status/{uuid4()}/", "PATCH", "GET"),
    ):
        answer = await stock.get(path, method, headers=headers)
        assert is_error(answer, 405), path
        assert answer.headers["Allow"] == allowed
    assert is_error(await stock.get(objects, headers={"Accept": "application/json"}), 406)
    assert is_error(await stock.get(send_to, "POST", data="{}", headers={"Content-Type": "text/plain"}), 415)
    for body in ("{", "nonsense", json.dumps(indicator())):
        assert is_error(await stock.get(send_to, "POST", data=body, headers=headers), 400)
    stranger = Stock(stock.url, stock.partner, stock.secret[:-1] + "A")
    for path in ("nothing/", "/taxii2/other/", "collections/"):
        assert is_error(await stranger.get(path, "POST"), 401), "an address says nothing to who is not let in"


async def test_a_stated_length_above_the_bound_is_refused_in_taxiis_words(
    xa: Exchange, stock: Stock, clock: FakeClock
) -> None:
    make_set(xa, "from-xb-ncvi")
    path = f"{ROOT}/collections/{inbox_id(INBOX)}/objects/"
    secret = b64encode(f"{stock.partner}:{stock.secret}".encode()).decode()
    head = f"POST {path} HTTP/1.1\r\nHost: {urlsplit(stock.url).netloc}\r\nAuthorization: Basic {secret}\r\n"
    head += f"Content-Type: {TAXII_TYPE}\r\nContent-Length: {MAX_BODY_BYTES + 1}\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(stock.url).port)
    writer.write(head.encode())
    answer = (await asyncio.wait_for(reader.read(65_536), 20)).decode()
    writer.close()
    assert answer.startswith("HTTP/1.1 413 ")
    assert f"Content-Type: {TAXII_TYPE}\r\n" in answer
    assert json.loads(answer.partition("\r\n\r\n")[2])["http_status"] == "413"


async def test_a_bug_is_an_error_message_without_detail(
    xa: Exchange, stock: Stock, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bug(*_asked: object) -> None:
        raise ValueError("a secret detail")

    monkeypatch.setattr(xa.collections, "listing", bug)
    answer = await stock.get("collections/")
    assert is_error(answer, 500)
    assert "detail" not in answer.text
    assert answer.json()["error_id"].startswith("urn:gateway:error:")


async def test_absent_and_forbidden_answer_alike(xa: Exchange, stock: Stock, clock: FakeClock) -> None:
    make(xa, clock, name="hidden", handling=HandlingCode.H3)
    make_set(xa, "from-xc-ncvi")
    hidden, absent = collection_id("XA-NCVI/hidden"), collection_id("XA-NCVI/nothing")
    foreign = inbox_id("XA-NCVI/from-xc-ncvi")
    assert await stock.collections() == []
    for rest in ("", "objects/", "manifest/", f"objects/indicator--{uuid4()}/"):
        answers = [await stock.get(f"collections/{one}/{rest}") for one in (hidden, absent, foreign, "found", "%2e%2e")]
        assert all(is_error(answer, 404) for answer in answers)
        assert len({answer.text for answer in answers}) == 1
    for one in (hidden, absent, foreign):
        headers = {"Accept": TAXII_TYPE, "Content-Type": TAXII_TYPE}
        answer = await stock.get(f"collections/{one}/objects/", "POST", data='{"objects":[]}', headers=headers)
        assert is_error(answer, 404)


async def test_a_partner_under_test_gets_and_gives_invented_data_alone(tmp_path: Path, clock: FakeClock) -> None:
    xa = Exchange(make_node(tmp_path, "XA-NCVI", clock=clock, quorum=2, **loopback()))
    enrol(xa.node, card_of(make_node(tmp_path, "XB-NCVI", clock=clock)), test=True)
    for name in ("found", "test-found", "from-xb-ncvi", "test-from-xb-ncvi"):
        make_set(xa, name, drafts(2))
    clock.advance(2)
    client = admit(xa, "XB-NCVI", clock)
    async with serving(xa):
        titles = [one.title for one in await client.collections()]
        assert titles == ["XA-NCVI/test-found", "XA-NCVI/test-from-xb-ncvi"]
        assert is_error(await client.get(f"collections/{collection_id(FOUND)}/objects/"), 404)
        headers = {"Accept": TAXII_TYPE, "Content-Type": TAXII_TYPE}
        real = await client.get(f"collections/{inbox_id(INBOX)}/objects/", "POST", data="{}", headers=headers)
        assert is_error(real, 404)


async def test_writing_what_is_for_reading_is_refused(xa: Exchange, stock: Stock, clock: FakeClock) -> None:
    make(xa, clock)
    headers = {"Accept": TAXII_TYPE, "Content-Type": TAXII_TYPE}
    path = f"collections/{collection_id(FOUND)}/objects/"
    assert is_error(await stock.get(path, "POST", data='{"objects":[]}', headers=headers), 403)
    entry = indicators(await stock.objects())[0]
    assert is_error(await stock.get(f"{path}{entry['id']}/", "DELETE"), 403)
    assert len(indicators(await stock.objects())) == 5


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=-1",
        "limit=1e3",
        "limit=٣",
        "limit=9999999999999999",
        "added_after=yesterday",
        "added_after=2026-13-01T00:00:00Z",
        "added_after=2026-01-01T00:00:00",
        "added_after=",
        "match[id]=",
        "match[id]=a%00b",
        "match[id]=" + ",".join(f"a{n}" for n in range(51)),
        "match[type]=indicator&match[type]=identity",
        "match[created_by_ref]=x",
        "unknown=1",
        "limit",
        "next=nonsense",
        "next=e30=.00",
        "next=%C3%A9",
        "next=e30=.%C3%A9",
        "next=%ED%A0%80",
    ],
)
async def test_a_malformed_filter_is_refused(xa: Exchange, stock: Stock, clock: FakeClock, query: str) -> None:
    make(xa, clock)
    assert is_error(await stock.get(f"collections/{collection_id(FOUND)}/objects/?{query}"), 400)


async def test_next_is_for_its_partner_its_collection_and_its_filters(
    xa: Exchange, stock: Stock, clock: FakeClock
) -> None:
    make(xa, clock)
    make(xa, clock, name="second")
    other = admit(xa, "XC-NCVI", clock)
    path = f"collections/{collection_id(FOUND)}/objects/"
    following = (await stock.get(path, params={"limit": "3", "match[type]": "indicator"})).json()["next"]
    for client, where, params in (
        (other, path, {}),
        (stock, f"collections/{collection_id('XA-NCVI/second')}/objects/", {}),
        (stock, path, {"match[type]": "identity"}),
        (stock, path, {"match[id]": f"indicator--{uuid4()}"}),
    ):
        assert is_error(await client.get(where, params={"next": following, **params}), 400)
    for forged in (following[:-1], following + "0", "A" + following, following.replace(".", "")):
        assert is_error(await stock.get(path, params={"next": forged}), 400)
    assert (await stock.get(path, params={"next": following})).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        b"[]",
        b'{"objects":[',
        b'{"objects":' + b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"objects":[]}garbage',
        json.dumps({"objects": [{}] * (MAX_OBJECTS + 1)}).encode(),
    ],
    ids=range(8),
)
async def test_a_body_that_is_no_envelope_is_refused_whole(
    xa: Exchange, stock: Stock, clock: FakeClock, body: bytes
) -> None:
    make_set(xa, "from-xb-ncvi")
    headers = {"Accept": TAXII_TYPE, "Content-Type": TAXII_TYPE}
    assert is_error(await stock.get(f"collections/{inbox_id(INBOX)}/objects/", "POST", data=body, headers=headers), 400)
    assert events(xa.node, EventKind.ENTRIES_IMPORTED) == []


async def test_a_body_that_is_too_large_is_refused(xa: Exchange, stock: Stock, clock: FakeClock) -> None:
    make_set(xa, "from-xb-ncvi")
    headers = {"Accept": TAXII_TYPE, "Content-Type": TAXII_TYPE}
    body = b" " * (MAX_BODY_BYTES + 1)
    try:
        answer = await stock.get(f"collections/{inbox_id(INBOX)}/objects/", "POST", data=body, headers=headers)
    except requests.ConnectionError:
        return  # it was still sending
    assert answer.status_code == 413


@pytest.mark.parametrize("seed", range(4))
async def test_nothing_that_a_caller_writes_into_an_address_is_a_bug(
    xa: Exchange, stock: Stock, clock: FakeClock, seed: int
) -> None:
    make(xa, clock)
    make_set(xa, "from-xb-ncvi")
    draw = random.Random(seed)
    words = ["%00", "%C3%A9", "%ff", "%2f", "..", "a" * 300, "indicator--", str(uuid4()), collection_id(FOUND)]
    words += ["0", "-1", "%0a", "9" * 30, "e30=.00", "2026-01-01T00:00:00Z", "all", "{}", "'", "%25"]
    names = ["added_after", "limit", "next", "match[id]", "match[type]", "match[version]", "match[spec_version]"]
    routes = ["collections/{}/", "collections/{}/objects/", "collections/{}/manifest/", "status/{}/"]
    routes += ["collections/{}/objects/{}/", "collections/{}/objects/{}/versions/"]
    for _ in range(40):
        path = draw.choice(routes).replace("{}", draw.choice([*words, collection_id(FOUND)]), 1)
        path = path.replace("{}", draw.choice(words))
        query = "&".join(f"{draw.choice(names)}={draw.choice(words)}" for _ in range(draw.randrange(3)))
        answer = await stock.get(f"{path}?{query}", draw.choice(["GET", "GET", "GET", "DELETE"]))
        assert answer.status_code < 500, (path, query)


async def test_what_the_moment_forbids_says_when_to_come_back(xa: Exchange, stock: Stock, clock: FakeClock) -> None:
    make(xa, clock)
    with xa.node.store.transaction() as tx:
        assert tx.people.pause("XB-NCVI", "tester", clock())
    for path in ("/taxii2/", "collections/", f"collections/{collection_id(FOUND)}/objects/"):
        answer = await stock.get(path)
        assert is_error(answer, 503)
        assert int(answer.headers["Retry-After"]) > 0


async def test_readers_side_by_side_meet_whole_pages_while_others_write(
    xa: Exchange, stock: Stock, clock: FakeClock
) -> None:
    make(xa, clock, 50)
    other = admit(xa, "XC-NCVI", clock)

    async def write() -> None:
        for first in range(100, 160, 10):
            await asyncio.to_thread(
                xa.ledger.import_entries, FOUND, drafts(10, first=first), actor="tester", form="test"
            )
            clock.advance(1)

    readers = [client.objects(per_request=17) for client in (stock, other, stock, other)]
    *found, _ = await asyncio.gather(*readers, write())
    for objects in found:
        assert made_up(range(50)) <= digests(objects)
        assert len({one["id"] for one in objects}) == len(objects)
    clock.advance(2)
    assert digests(await stock.objects()) == made_up(range(50)) | made_up(range(100, 160))


# On record


async def test_each_page_is_one_leaf_with_its_counts_and_each_label_has_a_receipt(
    xa: Exchange, stock: Stock, clock: FakeClock
) -> None:
    make(xa, clock, PAGE_OBJECTS)
    await stock.collections()
    withdraw(xa, clock, 4)
    await stock.objects()
    pages = events(xa.node, EventKind.SURFACE_PAGE_SERVED)
    assert [(page.details["entries"], page.details["deleted"]) for page in pages] == [
        (PAGE_OBJECTS - COMMON, 0),
        (10, 1),
    ]
    assert all(page.details["surface"] == "taxii" and page.details["sets"] == [FOUND] for page in pages)
    decided = [one for one in events(xa.node, EventKind.SHARE_DECIDED) if one.details["surface"] == "tls_only"]
    assert len(decided) == 1
    assert "existence" in decided[0].details["groups"]
    assert await stock.objects(added_after="2099-01-01T00:00:00Z") == []
    assert len(events(xa.node, EventKind.SURFACE_PAGE_SERVED)) == len(pages)
