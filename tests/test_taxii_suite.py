"""What the suite of another TAXII server expects of any server, over a collection that the STIX adapter took in.

The expectations are those of medallion, the reference server of TAXII 2.1, restated over objects of this project: its
own are malware and relationships, which no hash list carries, and several versions of one object, of which a list keeps
the newest. What is not met, and why:

- match[version] first and all answer the newest version, since no other is kept; so nothing is paged by version.
- Objects of STIX 2.0 are refused when they are sent, so match[spec_version]=2.0 finds nothing.
- DELETE withdraws an object and takes no filters.
- What a client sends is read back by nobody, so what was sent is found in its status alone.
- A collection that a caller may not see answers 404, as one that does not exist; 403 would say that it exists.
- A body that is no envelope answers 400 where medallion answers 422.
- An object that is sent again without a change is a success, which is what medallion's newest suite asks, too.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
import requests

from factory import FakeClock, befriend, loopback, make_node, make_set, serving, sha256
from gateway.adapters import stix
from gateway.adapters.rows import ReadOptions
from gateway.callers import Callers, Scope
from gateway.doors.taxii import ROOT, STIX_TYPE, TAXII_TYPE
from gateway.exchange import Exchange
from gateway.exchange.collections import collection_id, inbox_id
from gateway.model import AdapterReport

PAGE = 20  # medallion's
FOUND, INBOX = "XA-NCVI/found", "XA-NCVI/from-xb-ncvi"
OBJECTS, MANIFEST = (f"collections/{collection_id(FOUND)}/{end}/" for end in ("objects", "manifest"))
SEND = f"collections/{inbox_id(INBOX)}/objects/"
ABSENT = f"indicator--{UUID(int=7, version=4)}"


def bundle(numbers: range) -> bytes:
    """Indicators of made-up files, as a partner's tool would write them."""
    objects = [
        {
            "type": "indicator",
            "spec_version": "2.1",
            "id": f"indicator--00000000-0000-4000-8000-{number:012d}",
            "created": "2026-01-15T10:00:00.000Z",
            "modified": "2026-01-15T10:00:00.000Z",
            "pattern": f"[file:hashes.'SHA-256' = '{sha256(f'made-up {number}').hex()}']",
            "pattern_type": "stix",
            "valid_from": "2026-01-15T10:00:00.000Z",
        }
        for number in numbers
    ]
    said = {"type": "bundle", "id": "bundle--00000000-0000-4000-8000-000000000001", "objects": objects}
    return json.dumps(said).encode()


def seed(xa: Exchange, numbers: range) -> None:
    """Take a bundle into the collection, through the adapter."""
    report = AdapterReport("stix")
    drafts = [one for batch in stix.read(BytesIO(bundle(numbers)), report, ReadOptions()) for one in batch.drafts()]
    assert (report.accepted, report.refused) == (len(numbers), 0)
    xa.ledger.import_entries(FOUND, drafts, actor="tester", form="stix")


@pytest_asyncio.fixture
async def call(tmp_path: Path) -> AsyncIterator[Any]:
    """One request as a client makes it: path, method, query, headers, body."""
    clock = FakeClock()
    node = make_node(tmp_path, "XA-NCVI", clock=clock, **loopback())
    befriend(node, make_node(tmp_path, "XB-NCVI", clock=clock))
    xa = Exchange(node)
    make_set(xa, "found")
    make_set(xa, "from-xb-ncvi")
    for numbers in (range(30), range(30, 33)):
        seed(xa, numbers)
        clock.advance(60)
    with node.store.transaction() as tx:
        tx.secrets.open("XB-NCVI", str(Scope.TAXII), clock(), "a proposal")
    secret = Callers(node).issue_secret("XB-NCVI", Scope.TAXII, 30, "duty-officer")[1]

    async def called(path: str, method: str = "GET", **options: Any) -> requests.Response:
        url = node.settings.public_url + (path if path.startswith("/") else f"{ROOT}/{path}")
        options.setdefault("auth", ("XB-NCVI", secret))
        options["headers"] = {"Accept": TAXII_TYPE, **options.get("headers", {})}
        return await asyncio.to_thread(requests.request, method, url, timeout=30, **options)

    async with serving(xa):
        yield called


async def good(call: Any, path: str, **params: str) -> tuple[dict[str, Any], requests.Response]:
    """What an address answers, where it answers well."""
    answer = await call(path, params=params)
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == TAXII_TYPE
    said: dict[str, Any] = answer.json()
    return said, answer


def dates(answer: requests.Response) -> tuple[str, str]:
    return answer.headers["X-TAXII-Date-Added-First"], answer.headers["X-TAXII-Date-Added-Last"]


async def test_each_address_answers_in_the_media_type_of_taxii(call: Any) -> None:
    discovery, _ = await good(call, "/taxii2/")
    assert discovery["api_roots"]
    assert discovery["title"]
    root, _ = await good(call, "")
    assert root["versions"] == [TAXII_TYPE]
    collections, _ = await good(call, "collections/")
    assert {one["id"] for one in collections["collections"]} == {collection_id(FOUND), inbox_id(INBOX)}
    one, _ = await good(call, f"collections/{collection_id(FOUND)}/")
    assert one["media_types"] == [STIX_TYPE]
    sent = await call(SEND, "POST", data=bundle(range(50, 51)), headers={"Content-Type": TAXII_TYPE})
    assert (sent.status_code, sent.headers["Content-Type"]) == (202, TAXII_TYPE)
    status, _ = await good(call, f"status/{sent.json()['id']}/")
    assert {"successes", "failures", "pendings"} <= status.keys()


async def test_objects_come_in_the_order_in_which_they_were_added(call: Any) -> None:
    manifest, answer = await good(call, MANIFEST)
    objects, other = await good(call, OBJECTS)
    assert manifest["more"] is objects["more"] is False
    assert [one["id"] for one in manifest["objects"]] == [one["id"] for one in objects["objects"]]
    added = [one["date_added"] for one in manifest["objects"]]
    assert added == sorted(set(added))
    assert dates(answer) == dates(other) == (added[0], added[-1])
    assert all(one["media_type"] == STIX_TYPE for one in manifest["objects"])


async def test_one_object_and_its_version(call: Any) -> None:
    manifest, _ = await good(call, MANIFEST)
    record = manifest["objects"][-1]
    said, answer = await good(call, f"{OBJECTS}{record['id']}/")
    [one] = said["objects"]
    assert (one["id"], one["modified"], said["more"]) == (record["id"], record["version"], False)
    assert dates(answer) == (record["date_added"],) * 2
    versions, answer = await good(call, f"{OBJECTS}{record['id']}/versions/")
    assert (versions["versions"], versions["more"]) == ([record["version"]], False)
    assert dates(answer) == (record["date_added"],) * 2


@pytest.mark.parametrize("path", [OBJECTS, MANIFEST])
async def test_pages_go_on_where_the_one_before_ended(call: Any, path: str) -> None:
    everything, _ = await good(call, path)
    found, following = [], ""
    while True:
        page, answer = await good(call, path, limit=str(PAGE), **({"next": following} if following else {}))
        found += page["objects"]
        added = [one.get("date_added") for one in page["objects"]]
        assert path == OBJECTS or dates(answer) == (added[0], added[-1])
        if not page["more"]:
            assert "next" not in page
            break
        assert len(page["objects"]) == PAGE
        following = page["next"]
    assert found == everything["objects"]


@pytest.mark.parametrize("path", [OBJECTS, MANIFEST])
async def test_added_after_leaves_out_what_came_before_and_at_that_time(call: Any, path: str) -> None:
    manifest, _ = await good(call, MANIFEST)
    after = manifest["objects"][-4]["date_added"]
    said, _ = await good(call, path, added_after=after)
    assert [one["id"] for one in said["objects"]] == [one["id"] for one in manifest["objects"][-3:]]
    assert (await good(call, path, added_after="2099-01-01T00:00:00Z"))[0] == {}


@pytest.mark.parametrize("path", [OBJECTS, MANIFEST])
async def test_matches_choose_by_id_type_version_and_spec_version(call: Any, path: str) -> None:
    manifest, _ = await good(call, MANIFEST)
    record = manifest["objects"][-1]

    async def ids(**matches: str) -> list[str]:
        said, _ = await good(call, path, **{f"match[{name}]": value for name, value in matches.items()})
        assert said.get("more", False) is False
        return [one["id"] for one in said.get("objects", [])]

    every = [one["id"] for one in manifest["objects"]]
    assert await ids(id=record["id"]) == [record["id"]]
    assert await ids(type="indicator") == [one for one in every if one.startswith("indicator--")]
    assert record["id"] in await ids(version=record["version"])
    for word in ("first", "last", "all"):
        assert await ids(version=word) == every
    assert await ids(spec_version="2.1") == await ids(spec_version="2.0,2.1") == every
    assert await ids(spec_version="2.0") == []
    assert await ids(type="incident", version="2016-01-01T01:01:01.000Z") == []


async def test_filters_may_leave_nothing_of_an_object_that_is_there(call: Any) -> None:
    manifest, _ = await good(call, MANIFEST)
    record = manifest["objects"][-1]
    one = f"{OBJECTS}{record['id']}/"
    for path in (one, f"{one}versions/"):
        assert (await good(call, path, added_after=record["date_added"]))[0] == {}
        assert (await good(call, path, **{"match[spec_version]": "2.0"}))[0] == {}
        said, _ = await good(call, path, added_after="2020-01-01T00:00:00Z", **{"match[version]": "last"}, limit="1")
        assert len(said.get("objects", said.get("versions"))) == 1
        assert said["more"] is False
    for path in (f"{OBJECTS}{ABSENT}/", f"{OBJECTS}{ABSENT}/versions/"):
        assert (await call(path, params={"added_after": "2020-01-01T00:00:00Z"})).status_code == 404


async def test_what_is_sent_is_counted_and_the_same_again_is_no_failure(call: Any) -> None:
    for _ in range(2):
        sent = await call(SEND, "POST", data=bundle(range(50, 53)), headers={"Content-Type": TAXII_TYPE})
        assert sent.status_code == 202
        status = sent.json()
        counts = [status[f"{word}_count"] for word in ("total", "success", "failure", "pending")]
        assert (status["status"], counts) == ("complete", [3, 3, 0, 0])
        assert len(status["successes"]) == 3
    name = status["successes"][0]["id"]
    for expected in (200, 404):
        gone = await call(f"{SEND}{name}/", "DELETE")
        assert (gone.status_code, gone.headers["Content-Type"]) == (expected, TAXII_TYPE)


@pytest.mark.parametrize(
    ("path", "options", "status"),
    [
        ("/taxii2/other/", {}, 404),
        ("/taxii2/other/collections/", {}, 404),
        ("collections/24042009/manifest/", {}, 404),
        ("collections/12345678-1234-1234-1234-123456789012/", {}, 404),
        ("collections/12345678-1234-1234-1234-123456789012/objects/", {}, 404),
        ("status/22101993/", {}, 404),
        (f"{OBJECTS}{ABSENT}/", {}, 404),
        (SEND, {}, 403),
        (OBJECTS, {"method": "POST", "data": bundle(range(1)), "headers": {"Content-Type": TAXII_TYPE}}, 403),
        (OBJECTS, {"params": {"limit": "-20"}}, 400),
        (OBJECTS, {"headers": {"Accept": "application/vnd.oasis.stix+json; version=2.0"}}, 406),
        (SEND, {"method": "POST", "data": bundle(range(1)), "headers": {"Content-Type": "application/json"}}, 415),
        (
            SEND,
            {
                "method": "POST",
                "data": json.dumps({"type": "x", "created": "y"}),
                "headers": {"Content-Type": TAXII_TYPE},
            },
            400,
        ),
        ("collections/", {"auth": ("XB-NCVI", "Password0")}, 401),
        ("status/2223/", {"auth": ("XB-NCVI", "Password0")}, 401),
    ],
)
async def test_refusals_carry_their_status_and_its_text(
    call: Any, path: str, options: dict[str, Any], status: int
) -> None:
    answer = await call(path, **options)
    assert answer.status_code == status
    assert answer.headers["Content-Type"] == TAXII_TYPE
    said = answer.json()
    assert said["http_status"] == str(status)
    assert said["title"]


async def test_a_filter_that_changes_between_two_pages_is_refused(call: Any) -> None:
    first, _ = await good(call, OBJECTS, **{"match[version]": "all"}, limit="2")
    same, _ = await good(call, OBJECTS, **{"match[version]": "all"}, limit="2", next=first["next"])
    assert len(same["objects"]) == 2
    other = await call(OBJECTS, params={"match[version]": "first", "limit": "2", "next": first["next"]})
    assert other.status_code == 400
