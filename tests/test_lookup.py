"""gateway/exchange/lookup.py: what an answer says, and that what only looks alike is never more than a lead."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from factory import FakeClock, SeededRandom, befriend, events, make_node, make_set, sha256
from gateway.audit import EventKind
from gateway.errors import MalformedError
from gateway.exchange import Exchange
from gateway.exchange.lookup import MAX_NEAR, NOTHING_SAID, Hit, Said, Verdict, verdict
from gateway.model import DIGEST_BYTES, EntryDraft, HandlingCode, VictimStatus
from gateway.store import Transaction
from partner_simulator import Network

PDQ = sha256("a picture")


def near(bits: int) -> bytes:
    return (int.from_bytes(PDQ, "big") ^ ((1 << bits) - 1)).to_bytes(32, "big")


@pytest.fixture
def xa(tmp_path: Path) -> Exchange:
    return Exchange(make_node(tmp_path, clock=FakeClock(), random=SeededRandom(1)))


def find(exchange: Exchange, *digests: bytes, distance: int | None = None) -> list[Hit]:
    return exchange.lookup.find([one.hex() for one in digests], actor="tester", distance=distance)


def test_exact_by_every_digest_of_a_known_width(xa: Exchange) -> None:
    made = {name: (sha256(name) * 5)[:octets] for name, octets in DIGEST_BYTES.items() if octets}
    make_set(xa, "identified", [EntryDraft(made, victim_status=VictimStatus.IDENTIFIED)])
    for name, value in made.items():
        [hit] = find(xa, value)
        assert (hit.algorithm, hit.digest, hit.distance) == (name, value.hex(), 0)
        looks_alike = name in ("pdq", "photodna")
        assert hit.needs_review is looks_alike
        assert hit.verdict is (Verdict.NEEDS_REVIEW if looks_alike else Verdict.IDENTIFIED)


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (VictimStatus.UNKNOWN, Verdict.LISTED),
        (VictimStatus.UNIDENTIFIED, Verdict.UNIDENTIFIED),
        (VictimStatus.LEAD, Verdict.LEAD),
        (VictimStatus.IDENTIFIED, Verdict.IDENTIFIED),
        (VictimStatus.SAFEGUARDED, Verdict.IDENTIFIED),
        (VictimStatus.CLOSED, Verdict.IDENTIFIED),
    ],
)
def test_what_an_entry_says_of_the_child(xa: Exchange, status: VictimStatus, said: Verdict) -> None:
    make_set(xa, "found", [EntryDraft({"sha256": sha256("x"), "pdq": PDQ}, victim_status=status, series="Blue Door")])
    [hit] = find(xa, sha256("x"))
    assert (hit.verdict, hit.who, hit.since, hit.series) == (said, "XA-NCVI", xa.node.clock(), "Blue Door")
    [alike] = find(xa, PDQ)
    assert alike.verdict is Verdict.NEEDS_REVIEW


def test_the_best_of_several_words_counts_and_a_likeness_never_wins() -> None:
    def hit(status: str, algorithm: str = "sha256") -> Hit:
        return Hit(0, "XA-NCVI/a", "0001-000000000001", algorithm, {"victim_status": status}, "", "")

    assert verdict([]) is Verdict.UNKNOWN

    def best(*hits: Hit) -> Verdict:
        return verdict(one.verdict for one in hits)

    assert best(hit("unknown"), hit("lead"), hit("unidentified")) is Verdict.LEAD
    assert best(hit("unidentified"), hit("identified", "pdq")) is Verdict.UNIDENTIFIED
    assert best(hit("identified", "pdq"), hit("identified", "photodna")) is Verdict.NEEDS_REVIEW


def test_near_entries_come_with_their_distance_and_once(xa: Exchange) -> None:
    make_set(
        xa,
        "found",
        [
            EntryDraft({"pdq": near(bits), "sha256": sha256(str(bits))}, source_ref=str(bits), pdq_quality=quality)
            for bits, quality in ((0, 90), (5, 0), (31, 50), (32, 90), (7, 49))
        ],
    )
    assert [hit.distance for hit in find(xa, PDQ)] == [0]
    assert [hit.distance for hit in find(xa, PDQ, distance=31)] == [0, 5, 31]
    assert [hit.distance for hit in find(xa, PDQ, distance=5)] == [0, 5]
    # The poor one is still there for whoever has the very digest.
    assert [(hit.distance, hit.needs_review) for hit in find(xa, near(7), distance=0)] == [(0, True)]
    exact, *alike = find(xa, sha256("5"), PDQ, distance=31)
    assert (exact.query, exact.needs_review, {hit.query for hit in alike}) == (0, False, {1})
    *_, event = events(xa.node, EventKind.LOOK_UP)
    assert event.details == {"asked": 2, "answered": 2, "distance": 31}
    assert PDQ.hex() not in str(event)


def test_of_a_picture_that_everybody_has_the_nearest_are_answered(xa: Exchange) -> None:
    copies = [EntryDraft({"pdq": near(1 + n % 20)}, source_ref=str(n)) for n in range(MAX_NEAR + 60)]
    make_set(xa, "found", copies)
    hits = find(xa, PDQ, sha256("another"), distance=31)
    assert len(hits) == MAX_NEAR
    assert [hit.distance for hit in hits] == sorted(1 + n % 20 for n in range(MAX_NEAR + 60))[:MAX_NEAR]


def test_a_batch_with_too_many_matches_is_cut(xa: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
    make_set(xa, "found", [EntryDraft({"pdq": near(n)}, source_ref=str(n)) for n in range(9)])
    asked = [near(n) for n in range(8)]
    monkeypatch.setattr("gateway.exchange.shelf.READ_FOR", 0)
    whole = find(xa, *asked, distance=31)
    monkeypatch.setattr("gateway.columns.pdq.MAX_MATCHES", 20)
    assert find(xa, *asked, distance=31) == whole
    assert {hit.query for hit in whole} == set(range(8))


@pytest.mark.parametrize("distance", [-1, 32])
def test_a_distance_beyond_what_is_confident_is_refused(xa: Exchange, distance: int) -> None:
    with pytest.raises(MalformedError):
        find(xa, PDQ, distance=distance)


def test_further_lines_stand_beside_their_hits(xa: Exchange) -> None:
    def names(_tx: Transaction, hits: Sequence[Hit]) -> list[Said]:
        return [Said((f"said of {hit.entry}",)) for hit in hits]

    def nothing(_tx: Transaction, hits: Sequence[Hit]) -> list[Said]:
        return [NOTHING_SAID for _ in hits]

    make_set(xa, "found", [EntryDraft({"sha256": sha256("x")})])
    xa.lookup.remarks = [names, nothing]
    [hit] = find(xa, sha256("x"), sha256("y"))
    assert hit.remarks == (f"said of {hit.entry}",)


def test_what_agencies_assert_counts_where_it_is_more_than_the_entry_says() -> None:
    def hit(status: str, said: Said, algorithm: str = "sha256") -> Hit:
        attributes: dict[str, object] = {"victim_status": status, "originator": "XA-NCVI"}
        return Hit(0, "XA-NCVI/a", "0001-000000000001", algorithm, attributes, "", "", changed_at=7, asserted=said)

    found = Said(("identified by XB-NCVI",), VictimStatus.IDENTIFIED, ("XB-NCVI",), 9, "Unit 4")
    for status in ("unknown", "unidentified", "lead", "identified"):
        one = hit(status, found)
        assert (one.verdict, one.who, one.since, one.contact) == (Verdict.IDENTIFIED, "XB-NCVI", 9, "Unit 4")
    lead = hit("identified", Said((), VictimStatus.LEAD, ("XB-NCVI",), 9, "Unit 4"))
    assert (lead.verdict, lead.who, lead.since, lead.contact) == (Verdict.IDENTIFIED, "XA-NCVI", 7, "")
    alike = hit("unknown", found, "pdq")
    assert (alike.verdict, alike.who, alike.contact) == (Verdict.NEEDS_REVIEW, "XA-NCVI", "")


def test_opinions_stand_beside_a_hit_in_short(xa: Exchange) -> None:
    make_set(xa, "found", [EntryDraft({"sha256": sha256("x")})])
    [hit] = find(xa, sha256("x"))
    assert (hit.remarks, hit.version) == (("undisputed by 1",), 1)


def test_a_partners_entries_are_found_with_where_they_came_from(tmp_path: Path) -> None:
    clock, network = FakeClock(), Network()
    nodes = [make_node(tmp_path, name, clock=clock) for name in ("XA-NCVI", "XB-NCVI")]
    befriend(*nodes)
    hub, here = (network.join(node) for node in nodes)
    entry = EntryDraft({"sha256": sha256("x"), "pdq": PDQ}, victim_status=VictimStatus.IDENTIFIED, evaluation="A1")
    make_set(hub, "identified", [entry], handling=HandlingCode.H1)
    asyncio.run(network.sync("XB-NCVI", "XA-NCVI").pull())
    exact, alike = find(here, sha256("x"), near(9), distance=31)
    assert (exact.verdict, exact.who, exact.hub) == (Verdict.IDENTIFIED, "XA-NCVI", "XA-NCVI")
    assert (alike.verdict, alike.distance) == (Verdict.NEEDS_REVIEW, 9)
    assert alike.duties
