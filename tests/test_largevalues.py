"""Large fingerprints: sealed beside the set, served as policy says, and gone with the last entry that has them."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from xml.etree import ElementTree

import pytest
import pytest_asyncio
import requests
from sqlalchemy import text

from factory import FakeClock, SeededRandom, befriend, events, loopback, make_node, make_set, reopened, serving
from gateway import audit
from gateway.adapters.ncmec import Member
from gateway.adapters.outward import WRITERS
from gateway.approvals import Arguments
from gateway.audit import EventKind
from gateway.callers import Callers, Scope
from gateway.client import HashSharingLink
from gateway.crypto.keys import SigningKey
from gateway.errors import AuditBrokenError, DeniedError, MalformedError, NotFoundError, TooLargeError
from gateway.exchange import Exchange, largevalues
from gateway.exchange.changes import Sums
from gateway.exchange.erasing import erase
from gateway.exchange.exporting import Order, Places
from gateway.exchange.holding import lift_hold, set_hold
from gateway.exchange.labels import SetDefaults, digest_key
from gateway.exchange.lookup import parse_entry
from gateway.keyadmin import approvals, bootstrap_administrator
from gateway.keystore import PersonalKey
from gateway.model import EntryDraft, HandlingCode
from gateway.node import own_log
from gateway.sourcing import Sourcing, follow
from partner_simulator import Network, held_entries

NAMESPACE = "{https://hashsharing.ncmec.org/hashsharing/v2}"
ONE, TWO = (PersonalKey(name, SigningKey.generate(SeededRandom(name))) for name in ("one", "two"))
SET, FOLLOWING = "XA-NCVI/found", "XB-NCVI/from-xa"
ORDER = "XA District Court, order 7 of 2026"


def value(number: int) -> bytes:
    """A fingerprint of a made-up video, of some pieces."""
    return hashlib.shake_128(f"made-up {number}".encode()).digest(2 * largevalues.PIECE_BYTES + 1_000)


def md5(number: int) -> bytes:
    return hashlib.md5(f"made-up {number}".encode()).digest()


def video(number: int, large: int | None = None, **fields: object) -> EntryDraft:
    digests = {"md5": md5(number)} | ({} if large is None else {"tmk_pdqf": hashlib.sha256(value(large)).digest()})
    return EntryDraft(digests, source_ref=f"ref-{number}", media_type="video/mp4", **fields)  # type: ignore[arg-type]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(int(time.time()) - 1_000)


def showing_perceptual_digests(exchange: Exchange) -> None:
    """Let perceptual digests go over TLS alone, which the federation's rules do not."""
    texts, name = dict(exchange.node.policies.texts), "00-federation/surfaces.cedar"
    assert 'Action::"share_perceptual_digests",' in texts[name]
    texts[name] = texts[name].replace('Action::"share_perceptual_digests",', "")
    exchange.node.policies.take_up(texts, exchange.node.today)


@pytest.fixture
def xa(tmp_path: Path, clock: FakeClock) -> Exchange:
    node = make_node(tmp_path, "XA-NCVI", clock=clock, quorum=2, **loopback())
    befriend(node, make_node(tmp_path, "XB-NCVI", clock=clock), make_node(tmp_path, "XC-NCVI", clock=clock))
    for key in (ONE, TWO):
        bootstrap_administrator(node, key.name, key.signing_key.public)
    return Exchange(node)


def admit(xa: Exchange, partner: str) -> str:
    with xa.node.store.transaction() as tx:
        tx.secrets.open(partner, str(Scope.HASHSHARING), xa.node.clock(), "a proposal")
    return Callers(xa.node).issue_secret(partner, Scope.HASHSHARING, 30, "duty-officer")[1]


class Caller:
    """A partner that asks with any HTTP client."""

    def __init__(self, xa: Exchange, partner: str = "XB-NCVI") -> None:
        self._url = xa.node.settings.public_url + "/hashsharing"
        self._auth = (partner, admit(xa, partner))

    async def get(self, path: str) -> requests.Response:
        return await asyncio.to_thread(requests.get, self._url + path, auth=self._auth, timeout=30)

    async def links(self) -> list[str]:
        """Where the page of everything says that large fingerprints are."""
        root = ElementTree.fromstring((await self.get("/v2/entries")).content)
        found = list(root.iter(f"{NAMESPACE}tmk-pdqf"))
        assert all(one.get("rel") == "self" and not (one.text or len(one)) for one in found)
        return [one.get("href", "") for one in found]


@pytest_asyncio.fixture
async def xb(xa: Exchange) -> AsyncIterator[Caller]:
    caller = Caller(xa)
    async with serving(xa):
        yield caller


def put(xa: Exchange, *drafts: EntryDraft) -> None:
    xa.ledger.import_entries(SET, drafts, actor="tester", form="test")
    clock = xa.node.clock
    assert isinstance(clock, FakeClock)
    clock.advance(2)


def have(xa: Exchange, *drafts: EntryDraft, values: tuple[int, ...] = (1,)) -> None:
    """A set with these entries, the values that they name before them."""
    make_set(xa, "found")
    for number in values:
        largevalues.keep(xa.node, SET, value(number))
    put(xa, *drafts)


def rows(xa: Exchange) -> tuple[int, int, int]:
    """How many values, pieces and uses the database has."""
    with xa.node.store.reading() as tx:
        counts = [
            tx.connection.execute(text(f"SELECT count(*) FROM {name}")).scalar_one()
            for name in ("large_value", "large_piece", "large_use")
        ]
    return counts[0], counts[1], counts[2]


def entry_of(xa: Exchange, number: int) -> int:
    hits = xa.lookup.find([md5(number).hex()], actor="tester")
    return parse_entry(next(hit.entry for hit in hits if hit.set_name == SET))


def signed(xa: Exchange, act: tuple[str, Arguments]) -> str:
    desk = approvals(xa.node)
    identifier = desk.propose(*act, by="one")
    for key in (ONE, TWO):
        desk.sign(identifier, key)
    return identifier[:16]


def verify_log(exchange: Exchange) -> None:
    with exchange.node.store.reading() as tx:
        audit.verify_log(tx.log.leaves(), tx.log.nodes(), tx.log.checkpoints(), own_log(exchange.node, tx).verifier)


# At the door


async def test_an_entry_refers_to_its_large_fingerprint_and_the_link_brings_it(xa: Exchange, xb: Caller) -> None:
    showing_perceptual_digests(xa)
    have(xa, video(1, 1), video(2))
    (link,) = await xb.links()
    assert link == f"/v2/entries/1-{entry_of(xa, 1):016x}/fingerprints/TMK_PDQF"
    answer = await xb.get(link)
    assert (answer.status_code, answer.content == value(1)) == (200, True)
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Content-Length"] == str(len(value(1)))
    (served,) = events(xa.node, EventKind.SURFACE_VALUE_SERVED)
    assert served.details == {
        "partner": "XB-NCVI",
        "surface": "hashsharing",
        "set": SET,
        "entry": f"{entry_of(xa, 1):016x}",
        "version": 1,
        "algorithm": "tmk_pdqf",
        "octets": len(value(1)),
        "policy": xa.node.policy.digest,
    }
    verify_log(xa)


async def test_what_may_not_be_had_and_what_is_not_there_answer_alike(
    xa: Exchange, xb: Caller, clock: FakeClock
) -> None:
    have(xa, video(1, 1), video(2), video(3, 1, handling=HandlingCode.H2), video(4, 4))
    entries = {number: entry_of(xa, number) for number in (1, 2, 3, 4)}
    paths = {
        "withheld": f"/v2/entries/1-{entries[1]:016x}/fingerprints/TMK_PDQF",
        "another type": f"/v2/entries/1-{entries[1]:016x}/fingerprints/MD5",
        "no type": f"/v2/entries/1-{entries[1]:016x}/fingerprints/x",
        "without one": f"/v2/entries/1-{entries[2]:016x}/fingerprints/TMK_PDQF",
        "hidden": f"/v2/entries/1-{entries[3]:016x}/fingerprints/TMK_PDQF",
        "a value that never came": f"/v2/entries/1-{entries[4]:016x}/fingerprints/TMK_PDQF",
        "no entry": "/v2/entries/1-00010000000fffff/fingerprints/TMK_PDQF",
        "no set": f"/v2/entries/99-{entries[1]:016x}/fingerprints/TMK_PDQF",
        "no id": "/v2/entries/1/fingerprints/TMK_PDQF",
    }
    for shown in (False, True):
        if shown:
            showing_perceptual_digests(xa)
            await xb.links()  # which is when it is noticed; what comes into view is published a second later
            clock.advance(2)
            (allowed,) = await xb.links()
            assert allowed == paths.pop("withheld")
            assert (await xb.get(allowed)).status_code == 200
        else:
            assert await xb.links() == []
        answers = {what: await xb.get(path) for what, path in paths.items()}
        assert {what: answer.status_code for what, answer in answers.items()} == dict.fromkeys(paths, 404)
        assert len({answer.content for answer in answers.values()}) == 1
    assert len(events(xa.node, EventKind.SURFACE_VALUE_SERVED)) == 1


async def test_another_partner_whose_policy_hides_it_does_not_get_it(xa: Exchange, xb: Caller) -> None:
    showing_perceptual_digests(xa)
    have(xa, video(1, 1), video(2, 2, handling=HandlingCode.H0), values=(1, 2))
    other, links = Caller(xa, "XC-NCVI"), await xb.links()
    assert len(links) == 2
    assert [(await xb.get(link)).status_code for link in links] == [200, 200]
    # XC sees both entries; its agreement lets no perceptual digest go there.
    assert (await other.get("/v2/entries")).text.count("<video>") == 2
    assert await other.links() == []
    assert [(await other.get(link)).status_code for link in links] == [404, 404]


async def test_a_value_that_goes_while_it_is_sent_breaks_the_answer_off(
    xa: Exchange, xb: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    showing_perceptual_digests(xa)
    have(xa, video(1, 1))
    (link,) = await xb.links()
    whole, entry = xa.surface_values.piece, entry_of(xa, 1)

    def piece(partner: str, found: largevalues.LargeValue, number: int) -> bytes:
        if number == 2:
            xa.ledger.withdraw(SET, [entry], actor="tester", reason="wrong")
        return whole(partner, found, number)

    monkeypatch.setattr(xa.surface_values, "piece", piece)
    with pytest.raises(requests.exceptions.RequestException):
        assert len((await xb.get(link)).content) < len(value(1))
    assert (await xb.get(link)).status_code == 404


# At rest


def test_a_value_is_sealed_and_opens_only_where_it_was_put(xa: Exchange) -> None:
    have(xa, video(1, 1), video(2, 2), values=(1, 2))
    with xa.node.store.reading() as tx:
        stored = [bytes(one) for one in tx.connection.execute(text("SELECT sealed FROM large_piece")).scalars()]
        names = list(tx.connection.execute(text("SELECT name FROM large_value ORDER BY name")).scalars())
        digests = [hashlib.sha256(value(number)).digest() for number in (1, 2)]
        found = [largevalues.find(xa.node, tx, 1, digest) for digest in digests]
    assert len(stored) == 6
    raw = b"".join(stored)
    assert value(1)[:64] not in raw
    assert not {digest.hex() for digest in digests} & set(names)
    first, second = found
    assert first is not None
    assert second is not None
    with xa.node.store.reading() as tx:
        assert b"".join(largevalues.piece(xa.node, tx, first, at) for at in range(first.pieces)) == value(1)
    for change in (
        "UPDATE large_piece SET number = 9 - number WHERE number < 2",  # 0 and 1 change places, by way of 9 and 8
        "UPDATE large_value SET octets = octets + 1",
    ):
        with xa.node.store.transaction() as tx:
            tx.connection.execute(text(change))
            tx.connection.execute(text("UPDATE large_piece SET number = number - 8 WHERE number > 7"))
        with xa.node.store.reading() as tx:
            now = largevalues.find(xa.node, tx, 1, digests[0])
            assert now is not None
            with pytest.raises(AuditBrokenError):
                largevalues.piece(xa.node, tx, now, 0)


def test_what_is_no_value_of_an_own_set_is_not_kept(xa: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
    have(xa)
    monkeypatch.setattr(largevalues, "MAX_LARGE_BYTES", 10)
    with pytest.raises(TooLargeError):
        largevalues.keep(xa.node, SET, bytes(11))
    with pytest.raises(MalformedError):
        largevalues.keep(xa.node, SET, b"")
    with xa.node.store.transaction() as tx:
        tx.connection.execute(text("UPDATE hash_set SET hub = 'XB-NCVI'"))
    with pytest.raises(DeniedError):
        largevalues.keep(xa.node, SET, b"x")
    assert rows(xa)[0] == 1


# How it goes


def test_it_goes_with_the_last_entry_that_has_it(xa: Exchange) -> None:
    have(xa, video(1, 1), video(2, 1), video(3, 3), values=(1, 3))
    assert rows(xa) == (2, 6, 3)
    xa.ledger.withdraw(SET, [entry_of(xa, 1)], actor="tester", reason="wrong")
    assert rows(xa) == (2, 6, 2)
    put(xa, video(2))
    assert rows(xa) == (1, 3, 1), "its newest version has none"
    put(xa, video(3, 3, category="icse:2"))
    assert rows(xa) == (1, 3, 1), "an update that keeps it"
    assert [event.details for event in events(xa.node, EventKind.LARGE_VALUES_DROPPED)] == [{"set": SET, "values": 1}]
    put(xa, *[video(number) for number in range(100, 120)])
    assert rows(xa) == (1, 3, 1), "of other entries"
    xa.ledger.take_back(SET, [entry_of(xa, 3)], actor="tester", reason="taken back")
    assert rows(xa) == (0, 0, 0)
    verify_log(xa)


def test_erasing_by_order_takes_it_and_its_key(xa: Exchange) -> None:
    have(xa, video(1, 1), video(2, 2), values=(1, 2))
    signed(xa, erase(xa.node, [f"md5:{md5(1).hex()}"], ORDER))
    assert rows(xa) == (1, 3, 1)
    signed(xa, erase(xa.node, [f"tmk_pdqf:{hashlib.sha256(value(2)).hexdigest()}"], ORDER))
    assert rows(xa) == (0, 0, 0), "found by its own SHA-256"
    largevalues.keep(xa.node, SET, value(1))
    put(xa, video(1, 1))
    assert rows(xa)[2] == 0, "and it does not come again"


def test_a_legal_hold_keeps_it_until_the_hold_ends(xa: Exchange) -> None:
    have(xa, video(1, 1), video(2, 2), values=(1, 2))
    until = xa.node.today + timedelta(days=30)
    entry = entry_of(xa, 1)
    name = f"{entry >> 48:04x}-{entry & (1 << 48) - 1:012x}"
    identifier = signed(xa, set_hold(SET, "XB Regional Court", "evidence", until, entries=[name]))
    xa.ledger.withdraw(SET, [entry, entry_of(xa, 2)], actor="tester", reason="wrong")
    assert rows(xa) == (1, 3, 1)
    signed(xa, lift_hold(identifier, "the trial is over"))
    assert rows(xa) == (0, 0, 0)


def test_what_no_entry_took_goes_after_a_day(xa: Exchange, clock: FakeClock) -> None:
    have(xa, video(1, 1), values=(1, 2))
    largevalues.tidy(xa.node)
    assert rows(xa) == (2, 6, 1)
    clock.advance(largevalues.UNUSED_SECONDS + 1)
    largevalues.tidy(xa.node)
    assert rows(xa) == (1, 3, 1)


def test_a_value_that_came_after_its_entry_is_noted_when_the_entry_comes_again(xa: Exchange) -> None:
    have(xa, video(1, 1), values=())
    assert rows(xa) == (0, 0, 0)
    largevalues.keep(xa.node, SET, value(1))
    put(xa, video(1, 1))
    assert rows(xa) == (1, 3, 1)
    assert len(events(xa.node, EventKind.LARGE_VALUE_KEPT)) == 1


def test_it_is_there_after_a_restart(xa: Exchange) -> None:
    have(xa, video(1, 1))
    node = reopened(xa.node)
    with node.store.reading() as tx:
        found = largevalues.find(node, tx, 1, hashlib.sha256(value(1)).digest())
        assert found is not None
        assert largevalues.piece(node, tx, found, 2) == value(1)[2 * largevalues.PIECE_BYTES :]


# Beside everything else


@pytest.mark.parametrize("form", sorted(WRITERS))
def test_files_for_partners_are_written_of_entries_that_have_one(xa: Exchange, tmp_path: Path, form: str) -> None:
    have(xa, video(1, 1), EntryDraft({"tmk_pdqf": hashlib.sha256(value(1)).digest()}, source_ref="alone"))
    places = Places(tmp_path / "out", tmp_path / "out.note.json", tmp_path / "manifest")
    done = xa.exporting.export(Order(SET, "XB-NCVI", form, sealed=True), places)
    assert done.entries >= 1
    places = Places(tmp_path / "plain", tmp_path / "plain.note.json", tmp_path / "plain.manifest")
    xa.exporting.export(Order(SET, "XB-NCVI", form), places)
    assert value(1)[:32] not in (tmp_path / "plain").read_bytes()


async def test_partners_get_its_sha256_over_the_sealed_exchange_and_both_ends_agree(tmp_path: Path) -> None:
    clock, network = FakeClock(), Network()
    nodes = [make_node(tmp_path, agency, clock=clock) for agency in ("XA-NCVI", "XB-NCVI")]
    befriend(*nodes)
    xa, xb = map(network.join, nodes)
    have(xa, video(1, 1), video(2))
    [report] = await network.sync("XB-NCVI", "XA-NCVI").pull()
    assert report.equality == "equal"
    digest = hashlib.sha256(value(1)).digest()
    assert [entry.get("tmk_pdqf") for entry in held_entries(xb, SET).values()].count(digest) == 1
    assert rows(xb) == (0, 0, 0), "the value does not travel"
    put(xa, video(1, 1, category="icse:2"))
    xa.compacting.compact(SET)
    assert rows(xa) == (1, 3, 1)
    [report] = await network.sync("XB-NCVI", "XA-NCVI").pull()
    assert report.equality == "equal"
    assert [hit.set_name for hit in xb.lookup.find([md5(1).hex()], actor="tester")] == [SET]


# Given by our own people


def test_an_entry_that_is_listed_is_given_one(xa: Exchange) -> None:
    have(xa, video(1, category="icse:2"), video(2), values=())
    entry = entry_of(xa, 1)

    def give(raw: bytes) -> bool:
        return xa.attaching.attach(SET, entry, raw, actor="tester")

    before = held_entries(xa, SET)
    assert give(value(1))
    after = held_entries(xa, SET)
    digest = hashlib.sha256(value(1)).digest()
    groups = {"groups": after[entry]["groups"], "version": 2}
    assert after[entry] == before[entry] | {"tmk_pdqf": digest} | groups
    assert (set(after), rows(xa)) == (set(before), (1, 3, 1))
    assert not give(value(1))
    assert give(value(2))
    assert rows(xa) == (1, 3, 1)
    assert [event.details["format"] for event in events(xa.node, EventKind.ENTRIES_IMPORTED)][1:] == ["tmk_pdqf"] * 2
    verify_log(xa)
    # The sums are those of the content, and the list that it came from changes it like any other.
    with xa.node.store.reading() as tx:
        hash_set = tx.sets.get(SET)
        sums = Sums(tx, hash_set.id or 0, digest_key(xa.node, hash_set)).by_label()
    assert sum(found.count for (_, part), found in sums.items() if part == 1) == 2
    assert sum(found.count for (_, part), found in sums.items() if part == 3) == 1
    put(xa, video(1, category="icse:2"))
    assert rows(xa) == (0, 0, 0)
    with xa.node.store.reading() as tx:
        sums = Sums(tx, hash_set.id or 0, digest_key(xa.node, hash_set)).by_label()
    assert not any(found.count for (_, part), found in sums.items() if part == 3)


def test_an_entry_that_is_not_there_or_must_not_come_again_is_given_none(xa: Exchange) -> None:
    have(xa, video(1, 1), video(2))
    one, two = entry_of(xa, 1), entry_of(xa, 2)
    xa.ledger.withdraw(SET, [one], actor="tester", reason="wrong")
    for entry, raw, error in (
        (one, value(3), NotFoundError),
        (two, value(1), DeniedError),
        (9, value(3), NotFoundError),
    ):
        with pytest.raises(error):
            xa.attaching.attach(SET, entry, raw, actor="tester")
    assert rows(xa)[2] == 0
    assert len(held_entries(xa, SET)) == 1


# Following a server that has them


async def test_who_follows_the_door_gets_large_fingerprints_and_loses_them_with_their_entries(
    tmp_path: Path, xa: Exchange, xb: Caller, clock: FakeClock
) -> None:
    showing_perceptual_digests(xa)
    have(xa, video(1, 1), video(2), video(3, 3), values=(1, 3))
    url = xa.node.settings.public_url + "/hashsharing"
    settings = {"hashsharing_url": url, "hashsharing_user": "XB-NCVI", "hashsharing_password_file": "secret"}
    (tmp_path / "following").mkdir()
    follower = Exchange(
        make_node(tmp_path / "following", "XB-NCVI", clock=clock, hashsharing_set=FOLLOWING, **settings)
    )
    defaults = SetDefaults("XB Police Act, section 4", handling=HandlingCode.H1)
    follower.ledger.create_set(FOLLOWING, "victim_identification", defaults, "tester")
    clock.advance(100)
    async with HashSharingLink(url, "XB-NCVI", admit(xa, "XB-NCVI")) as link:
        followed = await follow(Sourcing(follower), link, asyncio.to_thread)
        assert (followed.added, followed.fingerprints) == (3, 2)
        with follower.node.store.reading() as tx:
            held = largevalues.find(follower.node, tx, 1, hashlib.sha256(value(1)).digest())
            assert held is not None
            assert b"".join(largevalues.piece(follower.node, tx, held, at) for at in range(3)) == value(1)
        xa.ledger.withdraw(SET, [entry_of(xa, 1)], actor="tester", reason="wrong")
        clock.advance(300)
        followed = await follow(Sourcing(follower), link, asyncio.to_thread)
    assert followed.withdrawn == 1
    assert rows(follower) == (1, 3, 1)
    assert f'id="{Member("XA-NCVI").number}"' in (await xb.get("/v2/members")).text
