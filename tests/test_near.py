"""Near-duplicates of stored entries: the answers are those of brute force, whatever happened to the set before."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from chain import ACTIONS, agreement, chain, set_rules
from factory import FakeClock, SeededRandom, befriend, make_node, make_set, reopened, sha256
from gateway.columns import MAX_RADIUS, Rows
from gateway.columns.pdq import QUALITY_FLOOR, near_in
from gateway.crypto.keys import SigningKey
from gateway.exchange import Exchange, shelf
from gateway.exchange.erasing import erase
from gateway.keyadmin import approvals, bootstrap_administrator
from gateway.keystore import PersonalKey
from gateway.model import EntryDraft, Restriction
from partner_simulator import Network, held_entries

SET, THEIRS = "XA-NCVI/identified", "XB-NCVI/found"
ONE, TWO = (PersonalKey(name, SigningKey.generate(SeededRandom(name))) for name in ("one", "two"))
PICTURES = [sha256(f"picture {number}") for number in range(6)]
Found = set[tuple[int, int, int]]  # query, entry id, distance


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    """XA with an empty set, where two must sign, and XB, which follows it."""
    clock, made = FakeClock(), Network()
    nodes = [make_node(tmp_path, name, clock=clock, quorum=2, page_changes=9) for name in ("XA-NCVI", "XB-NCVI")]
    befriend(*nodes)
    for node in nodes:
        made.join(node)
        for key in (ONE, TWO):
            bootstrap_administrator(node, key.name, key.signing_key.public)
    make_set(made.members["XA-NCVI"], "identified")
    yield made
    for exchange in made.members.values():
        exchange.node.store.close()


def flipped(raw: bytes, bits: int, source: random.Random) -> bytes:
    """The digest with so many bits changed."""
    mask = sum(1 << bit for bit in source.sample(range(256), bits))
    return (int.from_bytes(raw, "big") ^ mask).to_bytes(32, "big")


def near(exchange: Exchange, digests: list[bytes], radius: int = MAX_RADIUS, name: str = SET) -> Found:
    """What the shelf finds, by entry."""
    asked = Rows.of(len(digests), {"pdq": digests}).octets("pdq")
    with exchange.shelf.reading(exchange.node.store) as tx:
        found = exchange.shelf.near(tx, tx.sets.get(name).id or 0, asked, radius)
        blocks = tx.blocks.some(sorted(set(found.block_no.tolist())))
        ids = {
            number: shelf.decode_together([exchange.shelf.get(tx, row)], ["entry_id"]) for number, row in blocks.items()
        }
        columns = {number: next(rows).rows.values("entry_id") for number, rows in ids.items()}
    assert found.query.tolist() == sorted(found.query.tolist())
    places = zip(found.query, found.block_no, found.row, found.distance, strict=True)
    answers = [(int(q), int(columns[int(block)][int(row)]), int(apart)) for q, block, row, apart in places]
    assert len(set(answers)) == len(answers), "each entry once"
    return set(answers)


def by_brute_force(exchange: Exchange, digests: list[bytes], radius: int = MAX_RADIUS, name: str = SET) -> Found:
    """The same from all that is held, bit by bit."""
    held = {entry: row for entry, row in held_entries(exchange, name).items() if "pdq" in row}
    return {
        (query, entry, apart)
        for query, digest in enumerate(digests)
        for entry, row in held.items()
        if not 0 < int(str(row.get("pdq_quality", 0))) < QUALITY_FLOOR
        for apart in [(int.from_bytes(digest) ^ int.from_bytes(bytes(row["pdq"]))).bit_count()]  # type: ignore[call-overload]
        if apart <= radius
    }


class History:
    """Random deeds on a set, and on the mirror that follows it."""

    def __init__(self, network: Network, seed: int) -> None:
        self.network = network
        self.source = random.Random(seed)
        self.xa, self.xb = network.members["XA-NCVI"], network.members["XB-NCVI"]
        self.beside = Exchange(reopened(self.xa.node, seed="another node"))  # works on the same database

    def drafts(self) -> list[EntryDraft]:
        source = self.source
        return [
            EntryDraft(
                {"sha256": sha256(f"file {n}")}
                | ({"pdq": flipped(source.choice(PICTURES), source.randrange(40), source)} if n % 5 else {}),
                source_ref=f"ref-{n}",
                pdq_quality=source.choice((0, 20, 49, 50, 90)) if n % 5 else 0,
                restrictions=(Restriction.EMBARGO,) if source.random() < 0.15 else (),
            )
            for n in source.sample(range(60), source.randrange(1, 12))
        ]

    def step(self) -> str:
        source, chosen = self.source, self.source.random()
        actor = self.beside if source.random() < 0.3 else self.xa  # another node's changes too
        if chosen < 0.45:
            actor.ledger.import_entries(SET, self.drafts(), actor="t", form="t")
            return "import"
        held = sorted(held_entries(self.xa, SET))
        if chosen < 0.6 and held:
            some = source.sample(held, min(3, len(held)))
            actor.ledger.withdraw(SET, some, actor="t", reason="wrong")
            return "withdraw"
        if chosen < 0.75:
            actor.compacting.compact(SET)
            return "compact"
        if chosen < 0.82 and held:
            self.erase(bytes(held_entries(self.xa, SET)[source.choice(held)]["sha256"]))  # type: ignore[call-overload]
            return "erase"
        if chosen < 0.9:
            self.xa = Exchange(reopened(self.xa.node, seed=f"again {source.random()}"))
            return "restart"
        asyncio.run(self.network.sync("XB-NCVI", "XA-NCVI").pull())
        return "pull"

    def erase(self, digest: bytes) -> None:
        clock = self.xa.node.clock
        assert isinstance(clock, FakeClock)
        clock.advance(1)
        desk = approvals(self.xa.node)
        number = desk.propose(*erase(self.xa.node, [digest.hex()], "XA District Court, order 7 of 2026"), by="one")
        desk.sign(number, ONE)
        desk.sign(number, TWO)

    def questions(self) -> list[bytes]:
        return [flipped(picture, self.source.randrange(20), self.source) for picture in PICTURES]


@pytest.mark.parametrize("read_for", [0, 10_000], ids=["index", "reading"])
def test_answers_are_those_of_brute_force_through_every_change(
    network: Network, monkeypatch: pytest.MonkeyPatch, read_for: int
) -> None:
    monkeypatch.setattr(shelf, "READ_FOR", read_for)
    history, done = History(network, 3), set()
    for _ in range(45):
        done.add(history.step())
        asked = history.questions()
        assert near(history.xa, asked) == by_brute_force(history.xa, asked)
        assert near(history.beside, asked) == by_brute_force(history.beside, asked)
    assert done == {"import", "withdraw", "compact", "erase", "restart", "pull"}
    asyncio.run(network.sync("XB-NCVI", "XA-NCVI").pull())
    asked = history.questions()
    for radius in (0, 7, MAX_RADIUS):
        assert near(history.xb, asked, radius) == by_brute_force(history.xb, asked, radius)
    assert near(history.xb, asked), "the mirror has answers too"
    history.beside.node.store.close()


def listed(exchange: Exchange, count: int, *, name: str = SET, quality: int = 90) -> list[bytes]:
    source = random.Random(count)
    made = [flipped(PICTURES[n % 6], n % 32, source) for n in range(count)]
    entries = [EntryDraft({"pdq": raw}, source_ref=f"{name} {n}", pdq_quality=quality) for n, raw in enumerate(made)]
    exchange.ledger.import_entries(name, entries, actor="t", form="t")
    return made


def resident(exchange: Exchange, name: str = SET) -> bool:
    with exchange.node.store.reading() as tx:
        return exchange.shelf._residents[tx.sets.get(name).id or 0].near is not None


def test_an_index_is_made_once_it_pays_and_the_answers_stay(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf, "READ_FOR", 10)
    xa = network.members["XA-NCVI"]
    listed(xa, 40)
    assert near(xa, PICTURES) == by_brute_force(xa, PICTURES)
    assert not resident(xa)
    assert near(xa, PICTURES) == by_brute_force(xa, PICTURES)
    assert resident(xa)
    many = [sha256(f"question {n}") for n in range(12)] + PICTURES
    assert near(Exchange(xa.node), many) == by_brute_force(xa, many)


def test_a_list_for_which_there_is_no_room_is_read(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf, "READ_FOR", 4)
    xa = network.members["XA-NCVI"]
    listed(xa, 40)
    xa.shelf._near_bytes = 40 * 105 - 1
    assert near(xa, PICTURES) == by_brute_force(xa, PICTURES)
    assert not resident(xa)
    xa.shelf._near_bytes = 40 * 105
    assert near(xa, PICTURES) == by_brute_force(xa, PICTURES)
    assert resident(xa)
    # It grows beyond its room: the index goes, the answers do not.
    listed(xa, 41)
    assert near(xa, PICTURES) == by_brute_force(xa, PICTURES)
    assert not resident(xa)


def test_of_several_lists_the_one_asked_longest_ago_makes_room(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shelf, "READ_FOR", 1)
    xa = network.members["XA-NCVI"]
    names = [SET, *(make_set(xa, name) for name in ("second", "third"))]
    for name in names:
        listed(xa, 30, name=name)
    xa.shelf._near_bytes = 2 * 30 * 105
    for name in (names[0], names[1], names[0], names[2]):
        assert near(xa, PICTURES, name=name) == by_brute_force(xa, PICTURES, name=name)
    assert [resident(xa, name) for name in names] == [True, False, True]


@pytest.mark.parametrize("read_for", [0, 10_000], ids=["index", "reading"])
def test_a_digest_of_known_low_quality_is_near_nothing(
    network: Network, monkeypatch: pytest.MonkeyPatch, read_for: int
) -> None:
    monkeypatch.setattr(shelf, "READ_FOR", read_for)
    xa = network.members["XA-NCVI"]
    for quality, count in ((QUALITY_FLOOR - 1, 0), (QUALITY_FLOOR, 6), (0, 6)):
        listed(xa, 6, quality=quality)
        assert len({entry for _, entry, _ in near(xa, PICTURES)}) == count, quality


def test_blocks_that_another_node_dropped_are_gone(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf, "READ_FOR", 0)
    xa = network.members["XA-NCVI"]
    listed(xa, 10)
    listed(xa, 11)
    assert near(xa, PICTURES) == by_brute_force(xa, PICTURES)
    with xa.node.store.transaction() as tx:
        set_id = tx.sets.get(SET).id or 0
        tx.blocks.drop(set_id, [tx.blocks.last_id(set_id)])
    assert near(xa, PICTURES) == by_brute_force(xa, PICTURES)
    assert resident(xa)


def test_a_set_without_pdq_digests_has_no_answer(network: Network) -> None:
    xa = network.members["XA-NCVI"]
    assert near(xa, PICTURES) == set()
    xa.ledger.import_entries(SET, [EntryDraft({"sha256": sha256("a")})], actor="t", form="t")
    assert near(xa, PICTURES * 50) == set()


def test_comparing_each_with_each_knows_which_rows_may_answer() -> None:
    held = Rows.of(3, {"pdq": [PICTURES[0], PICTURES[1], PICTURES[0]]}).octets("pdq")
    asked = Rows.of(2, {"pdq": PICTURES[1::-1]}).octets("pdq")
    found = near_in(9, held, held[:, 0] == held[0, 0], asked)
    assert (found.query.tolist(), found.row.tolist(), set(found.block_no.tolist())) == ([1, 1], [0, 2], {9})


def test_digests_that_a_hub_withholds_are_near_nothing_and_no_fault(tmp_path: Path) -> None:
    network = chain(tmp_path, FakeClock(), 2)
    xa, xb = network.members["XA-NCVI"], network.members["XB-NCVI"]
    shown = [one for one in ACTIONS if one != "share_perceptual_digests"]
    set_rules(xa, "XB-NCVI", agreement("XA", "XB", actions=shown))
    entry = EntryDraft({"sha256": sha256("x"), "pdq": PICTURES[0]}, pdq_quality=90)
    make_set(xa, "identified", [entry])
    asyncio.run(network.sync("XB-NCVI", "XA-NCVI").pull())
    assert len(held_entries(xb, SET)) == 1
    assert near(xb, PICTURES) == set()
    assert near(xb, PICTURES * 50) == set()
    assert len(near(xa, PICTURES)) == 1
