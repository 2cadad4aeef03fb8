"""Erasing by order: two people, every version in every set, followers told, no octet left, and sums still true."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from factory import FakeClock, SeededRandom, befriend, events, make_node, make_set, open_node, reopened, sha256
from gateway import audit, standing
from gateway.approvals import Arguments, Proposal
from gateway.audit import EventKind
from gateway.columns import digest
from gateway.columns.block import decode
from gateway.crypto.keys import SigningKey
from gateway.errors import ConflictError, DeniedError, MalformedError
from gateway.exchange import Exchange, listfile, neveragain
from gateway.exchange.changes import CONTENT_PARTS, Sums
from gateway.exchange.contents import kept_items
from gateway.exchange.erasing import MAX_DIGESTS, erase, reinstate, take_in
from gateway.exchange.labels import digest_key
from gateway.exchange.shelf import BARRED, CHANGES, HISTORY, REFUSED, block_id
from gateway.interchange import START
from gateway.keyadmin import approvals, bootstrap_administrator
from gateway.keystore import PersonalKey
from gateway.model import EntryDraft, HandlingCode
from gateway.node import own_log
from partner_simulator import Network, held_entries, refused

ONE, TWO = (PersonalKey(name, SigningKey.generate(SeededRandom(name))) for name in ("one", "two"))
OWN, THEIRS = "XA-NCVI/identified", "XB-NCVI/identified"
ORDER = "XA District Court, order 7 of 2026"
FIRST = 1 << 48 | 1  # the id of the first entry of a set


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def network(tmp_path: Path, clock: FakeClock) -> Network:
    """XA, where two must sign, and XB; each has an empty set."""
    nodes = [make_node(tmp_path, agency, clock=clock, quorum=2, page_changes=7) for agency in ("XA-NCVI", "XB-NCVI")]
    befriend(*nodes)
    network = Network()
    for node in nodes:
        make_set(network.join(node), "identified")
        for key in (ONE, TWO):
            bootstrap_administrator(node, key.name, key.signing_key.public)
    return network


@pytest.fixture
def xa(network: Network) -> Exchange:
    return network.members["XA-NCVI"]


@pytest.fixture
def xb(network: Network) -> Exchange:
    return network.members["XB-NCVI"]


def draft(number: int, *names: str, **fields: object) -> EntryDraft:
    made = {name: sha256(f"{name} {number}") for name in names or ("sha256", "md5")}
    return EntryDraft({name: raw[:16] if name == "md5" else raw for name, raw in made.items()}, **fields)  # type: ignore[arg-type]


def hex_of(number: int, name: str = "sha256") -> str:
    return draft(number, name).digests[name].hex()


def take(exchange: Exchange, *drafts: EntryDraft) -> int:
    name = f"{exchange.node.agency}/identified"
    return exchange.ledger.import_entries(name, drafts, actor="tester", form="test").refused


def do(exchange: Exchange, act: tuple[str, Arguments]) -> Proposal:
    """The act, signed by two."""
    clock = exchange.node.clock
    assert isinstance(clock, FakeClock)
    clock.advance(1)  # the same act in the same second is the same proposal
    desk = approvals(exchange.node)
    identifier = desk.propose(*act, by="one")
    desk.sign(identifier, ONE)
    return desk.sign(identifier, TWO)


def order(exchange: Exchange, *numbers: int, files_only: bool = False) -> Proposal:
    return do(exchange, erase(exchange.node, [hex_of(number) for number in numbers], ORDER, files_only=files_only))


def sync(network: Network, here: str = "XB-NCVI", there: str = "XA-NCVI") -> str:
    [report] = asyncio.run(network.sync(here, there).pull())
    return report.equality


def assert_sound(exchange: Exchange) -> None:
    """The log verifies, sums are those of the content, no block holds a listed digest, and the list fits the log."""
    node = exchange.node
    with node.store.reading() as tx:
        audit.verify_log(tx.log.leaves(), tx.log.nodes(), tx.log.checkpoints(), own_log(node, tx).verifier)
        standing.check(tx, node)
        neveragain.check(node, tx)
        leaves = {row.index: row.entry for row in tx.log.leaves()}
        erased = {
            mark
            for one in neveragain.listings(node, tx)
            if one.kind == neveragain.ERASED and not one.reinstated
            for mark in one.marks
        }
        for hash_set in tx.sets.all():
            assert hash_set.id is not None
            key = digest_key(node, hash_set)
            kept, anew = (Sums(tx, hash_set.id, key) for _ in range(2))
            anew.drop()
            for row in tx.blocks.of_set(hash_set.id):
                assert leaves[row.leaf] == audit.block_entry(row.digest)
                with exchange.shelf.index(tx, hash_set.id) as index:
                    live = index.live_rows(block_id(row))
                block = exchange.shelf.get(tx, row)
                rows = decode(block)
                marks = exchange.never_again.marker.columns(rows)
                assert not any(mark.tobytes() in erased for column in marks.values() for mark in column)
                if row.kind == CHANGES:
                    assert row.epoch == hash_set.epoch
                    if live.any():
                        anew.add([(row.label, rows.take(live), CONTENT_PARTS & set(block.parts))])
                elif row.kind in (REFUSED, BARRED):
                    for part, items in kept_items(exchange.shelf.items(tx, row), row.count).items():
                        anew.move(row.label, part, digest.sum_items(items[live]))
                else:
                    assert not live.any()
            assert kept.state() == anew.state(), hash_set.name
            assert kept.entries() == anew.entries()


def kinds(exchange: Exchange, name: str) -> list[str]:
    with exchange.node.store.reading() as tx:
        hash_set = tx.sets.get(name)
        return [row.kind for row in tx.blocks.of_set(hash_set.id or 0)]


# Own sets


def test_an_entry_goes_from_its_set_and_from_every_follower(network: Network, xa: Exchange, xb: Exchange) -> None:
    take(xa, *(draft(number) for number in range(6)))
    sync(network)
    assert len(held_entries(xb, OWN)) == 6
    done = order(xa, 2)
    assert (done.state, done.subject) == ("done", ORDER)
    assert FIRST + 2 not in held_entries(xa, OWN)
    assert sync(network) == "equal"
    assert sorted(held_entries(xb, OWN)) == sorted(held_entries(xa, OWN))
    assert len(held_entries(xb, OWN)) == 5
    for exchange in (xa, xb):
        assert_sound(exchange)
    # It comes back under none of its digests, and nothing else is kept away.
    assert take(xa, draft(2, "md5"), draft(2, "sha256", "pdq"), draft(7)) == 2


def test_one_signature_erases_nothing_and_an_order_needs_a_reference(xa: Exchange) -> None:
    take(xa, draft(1))
    desk = approvals(xa.node)
    identifier = desk.propose(*erase(xa.node, [hex_of(1)], ORDER), by="one")
    assert desk.sign(identifier, ONE).state == "open"
    with pytest.raises(DeniedError):
        desk.sign(identifier, ONE)
    assert len(held_entries(xa, OWN)) == 1
    with pytest.raises(MalformedError):
        desk.propose(*erase(xa.node, [hex_of(1)], ""), by="one")


def test_what_is_signed_and_logged_names_no_digest(xa: Exchange) -> None:
    take(xa, draft(1, source_ref="ref-1"))
    act = erase(xa.node, [hex_of(1), f"md5:{hex_of(1, 'md5')}"], ORDER)
    done = do(xa, act)
    with xa.node.store.reading() as tx:
        said = tx.people.proposal(done.id).statement + "".join(
            (row.event_bytes or b"").decode() for row in tx.log.leaves()
        )
    assert not any(word in said for word in (hex_of(1), hex_of(1, "md5"), "ref-1"))
    [erased] = events(xa.node, EventKind.ENTRIES_ERASED)
    assert (erased.details["entries"], erased.details["order_ref"], erased.details["proposal"]) == (1, ORDER, done.id)
    [withdrawn] = events(xa.node, EventKind.ENTRIES_WITHDRAWN)
    assert (withdrawn.details["order_ref"], withdrawn.details["changes"]) == (ORDER, 1)


def test_a_leaf_binds_the_digests_of_old_and_new_blocks(xa: Exchange) -> None:
    take(xa, *(draft(number) for number in range(4)))
    with xa.node.store.reading() as tx:
        [before] = tx.blocks.of_set(tx.sets.get(OWN).id or 0)
    order(xa, 1)
    [told] = events(xa.node, EventKind.ENTRIES_ERASED)
    [[old, *new]] = told.details["rewritten"]  # type: ignore[misc]
    assert old == before.digest.hex()
    with xa.node.store.reading() as tx:
        entries = {row.entry for row in tx.log.leaves()}
        after = {row.digest.hex() for row in tx.blocks.of_set(tx.sets.get(OWN).id or 0)}
        assert tx.blocks.get(block_id(before)) is None
    assert len(new) == 2
    assert set(new) < after
    assert all(audit.block_entry(bytes.fromhex(one)) in entries for one in (old, *new))


def test_every_version_goes_and_an_entry_that_was_withdrawn_before_goes_too(
    network: Network, xa: Exchange, xb: Exchange
) -> None:
    take(xa, draft(1, series="Blue Door"), draft(2), draft(3))
    sync(network)
    take(xa, draft(1, series="Red Door", handling=HandlingCode.H0), draft(4))
    xa.ledger.withdraw(OWN, [FIRST + 1], actor="tester", reason="listed wrongly")
    sync(network)
    order(xa, 1, 2)
    assert sorted(held_entries(xa, OWN)) == [FIRST + 2, FIRST + 3]
    assert sync(network) == "equal"
    for exchange in (xa, xb):
        assert_sound(exchange)
    assert not any("Door" in text for text in texts_of(xa, OWN))


def texts_of(exchange: Exchange, name: str) -> Iterator[str]:
    """Every text in any stored row, live or not."""
    with exchange.node.store.reading() as tx:
        for row in tx.blocks.of_set(tx.sets.get(name).id or 0):
            rows = decode(exchange.shelf.get(tx, row))
            for column in ("series", "victim_ref", "source_ref", "media_type"):
                yield from rows.text(column).to_list()


def test_a_corrected_entry_stays_and_loses_the_version_that_carried_the_digest(xa: Exchange) -> None:
    take(xa, draft(1, source_ref="ref"), draft(2))
    take(xa, draft(3, source_ref="ref"))
    order(xa, 1)
    held = held_entries(xa, OWN)
    assert sorted(held) == [FIRST, FIRST + 1]
    assert held[FIRST]["sha256"] == sha256("sha256 3")
    assert events(xa.node, EventKind.ENTRIES_WITHDRAWN) == []
    assert_sound(xa)


def test_of_an_entry_that_goes_no_version_stays_whatever_digest_it_had(xa: Exchange) -> None:
    take(xa, draft(3, series="Green Door", source_ref="ref"), draft(2, series="Red Door"))
    take(xa, draft(1, source_ref="ref"))
    order(xa, 1)
    assert {text for text in texts_of(xa, OWN) if text} == {"Red Door"}
    assert take(xa, draft(3)) == 0  # that digest was not part of the order
    assert_sound(xa)


@pytest.mark.parametrize("met", ["never", "first version", "second version", "other label", "all"])
def test_a_follower_hears_of_it_wherever_it_stands(network: Network, xa: Exchange, xb: Exchange, met: str) -> None:
    """The history that the blocks lost their values of still tells who must be told."""
    steps: list[tuple[str, Callable[[], object]]] = [
        ("never", lambda: take(xa, *(draft(n) for n in range(4)))),
        ("first version", lambda: take(xa, draft(1, series="Blue Door"), draft(2))),
        ("second version", lambda: take(xa, draft(1, handling=HandlingCode.H2), draft(5))),
        ("other label", lambda: take(xa, draft(1, handling=HandlingCode.H0), draft(6))),
        ("all", lambda: take(xa, draft(7))),
    ]
    for name, step in steps:
        step()
        if name == met:
            sync(network)
    order(xa, 1)
    take(xa, draft(8), draft(2, series="Red Door"))
    assert sync(network) == "equal"
    assert sorted(held_entries(xb, OWN)) == sorted(held_entries(xa, OWN))
    assert FIRST + 1 not in held_entries(xb, OWN)
    assert HISTORY in kinds(xa, OWN)
    for exchange in (xa, xb):
        assert_sound(exchange)


def test_a_gateway_that_runs_beside_and_one_that_starts_hold_the_same(network: Network, xa: Exchange) -> None:
    take(xa, *(draft(number) for number in range(5)))
    take(xa, draft(1, series="Blue Door"), draft(2, series="Red Door"))
    take(xa, draft(4, series="Green Door"))  # in a block that nothing is erased from
    beside = Exchange(reopened(xa.node))
    assert len(held_entries(beside, OWN)) == 5
    order(xa, 1, 3)
    expected = held_entries(xa, OWN)
    assert [expected[FIRST + number].get("series", "") for number in (0, 2, 4)] == ["", "Red Door", "Green Door"]
    assert len(expected) == 3
    assert held_entries(beside, OWN) == expected
    assert held_entries(network.join(xa.node), OWN) == expected
    assert beside.lookup.find([hex_of(1)], actor="tester") == []
    assert take(beside, draft(1), draft(3), draft(2)) == 2


def test_pages_that_wait_to_be_pushed_end(network: Network, xa: Exchange, xb: Exchange) -> None:
    take(xa, draft(1), draft(2))
    xb.accept("XA-NCVI", BytesIO(xa.head_for("XB-NCVI", OWN).body))
    page = xa.page_to_push("XB-NCVI", OWN, START)
    assert page is not None
    order(xa, 1)
    assert xa.waiting_pages("XB-NCVI") == []
    asyncio.run(network.sync("XA-NCVI", "XB-NCVI").push(OWN))
    assert sorted(held_entries(xb, OWN)) == [FIRST + 1]


def test_blocks_that_were_joined_lose_it_and_blocks_can_be_joined_after_it(
    network: Network, xa: Exchange, xb: Exchange
) -> None:
    for number in range(8):
        take(xa, draft(number), draft(20 + number, handling=HandlingCode.H0))
        take(xa, draft(number, series=f"Series {number % 3}"))
    xa.compacting.compact(OWN)
    sync(network)
    order(xa, 3, 24)
    for number in range(30, 36):
        take(xa, draft(number), draft(4, series=f"Series {number}"))
    assert sync(network) == "equal"
    sync(network)  # so that XA knows where XB stands: what a follower is still to get is not joined
    done = xa.compacting.compact(OWN)
    assert done.new < done.old
    xb.compacting.compact(OWN)
    assert len(held_entries(xa, OWN)) == 16 - 2 + 6
    for exchange in (xa, xb):
        assert held_entries(Exchange(reopened(exchange.node)), OWN).keys() == held_entries(xa, OWN).keys()
        assert_sound(exchange)
    order(xa, 30)
    assert sync(network) == "equal"
    assert_sound(xa)


# Mirrors


def test_of_a_mirror_the_values_go_and_the_comparison_still_holds(network: Network, xa: Exchange, xb: Exchange) -> None:
    take(xb, *(draft(number, series="Blue Door") for number in range(5)))
    sync(network, "XA-NCVI", "XB-NCVI")
    order(xa, 1, 3)
    assert sorted(held_entries(xa, THEIRS)) == [FIRST, FIRST + 2, FIRST + 4]
    assert_sound(xa)
    report = asyncio.run(network.sync("XA-NCVI", "XB-NCVI").compare(THEIRS, repair=True))
    assert (report.outcome, report.only_here, report.only_there) == ("equal", 0, 0)
    # The hub is not asked to do anything; what it says from now on is covered as before.
    assert len(held_entries(xb, THEIRS)) == 5
    take(xb, draft(6), draft(1, series="Red Door"))
    assert sync(network, "XA-NCVI", "XB-NCVI") == "equal"
    assert sorted(held_entries(xa, THEIRS)) == [FIRST, FIRST + 2, FIRST + 4, FIRST + 5]
    xb.ledger.withdraw(THEIRS, [FIRST + 1, FIRST + 3], actor="tester", reason="listed wrongly")
    assert sync(network, "XA-NCVI", "XB-NCVI") == "equal"
    assert_sound(xa)


def test_all_sets_lose_it_at_once(network: Network, xa: Exchange, xb: Exchange) -> None:
    make_set(xa, "second", [draft(1), draft(8)])
    take(xa, draft(1), draft(2))
    take(xb, draft(1, "md5", "pdq"), draft(3))
    sync(network, "XA-NCVI", "XB-NCVI")
    order(xa, 1)  # the hub lists it by its MD5 alone, which the own entries carry as well
    assert [len(held_entries(xa, name)) for name in (OWN, "XA-NCVI/second", THEIRS)] == [1, 1, 1]
    assert_sound(xa)


def test_what_is_not_held_is_kept_away_all_the_same(network: Network, xa: Exchange, xb: Exchange) -> None:
    order(xa, 1)
    take(xb, draft(1), draft(2))
    assert sync(network, "XA-NCVI", "XB-NCVI") == "equal"
    assert len(held_entries(xa, THEIRS)) == 1
    with pytest.raises(ConflictError, match="already"):
        order(xa, 1)


def test_a_lifted_order_lets_everybody_bring_it_again(network: Network, xa: Exchange, xb: Exchange) -> None:
    take(xb, draft(1), draft(2))
    sync(network, "XA-NCVI", "XB-NCVI")
    order(xa, 1)
    assert len(held_entries(xa, THEIRS)) == 1
    with pytest.raises(ConflictError):
        do(xa, reinstate(xa.node, [hex_of(1)], "not listed so"))
    do(xa, reinstate(xa.node, [hex_of(1, "md5")], "XA Court of Appeal 12 of 2026", kind="erased"))
    assert sync(network, "XA-NCVI", "XB-NCVI") == "equal"
    assert sorted(held_entries(xa, THEIRS)) == [FIRST, FIRST + 1]
    assert take(xa, draft(1)) == 0
    assert BARRED not in kinds(xa, THEIRS)
    assert_sound(xa)


# What looks the same


def test_a_picture_saved_anew_goes_with_it_unless_files_alone_were_meant(xa: Exchange) -> None:
    pdq = sha256("one picture")
    copies = [EntryDraft({"sha256": sha256(f"file {n}"), "pdq": pdq}) for n in range(3)]
    take(xa, *copies, draft(9))
    do(xa, erase(xa.node, [sha256("file 0").hex()], ORDER, files_only=True))
    assert len(held_entries(xa, OWN)) == 3
    assert take(xa, EntryDraft({"sha256": sha256("file 3"), "pdq": pdq})) == 0
    do(xa, erase(xa.node, [f"sha256:{sha256('file 1').hex()}"], ORDER))
    assert len(held_entries(xa, OWN)) == 1
    assert take(xa, EntryDraft({"sha256": sha256("file 4"), "pdq": pdq})) == 1
    assert_sound(xa)


def test_before_they_sign_people_see_what_would_go(network: Network, xa: Exchange, xb: Exchange) -> None:
    pdq = sha256("one picture")
    take(xa, EntryDraft({"sha256": sha256("file 0"), "pdq": pdq}), draft(1), draft(2))
    take(xb, EntryDraft({"sha256": sha256("file 1"), "pdq": pdq}))
    sync(network, "XA-NCVI", "XB-NCVI")
    desk = approvals(xa.node)
    identifier = desk.propose(*erase(xa.node, [sha256("file 0").hex(), hex_of(1)], ORDER), by="one")
    assert {one.what: (one.now, one.then) for one in desk.difference(identifier)} == {
        "listed for everybody": ("", "2, by 4 digests"),
        f"entries of {OWN}": ("3", "1"),
        f"entries of {THEIRS}": ("1", "0"),
        "of them found by a perceptual digest alone": ("1", "0"),
    }


@pytest.mark.parametrize(
    "given_digests",
    [
        [],
        ["abc"],
        ["00" * 31],
        ["sha256:" + "00" * 20],
        ["crc32:00000000"],
        ["ssdeep:"],
        ["00" * 20] * (MAX_DIGESTS + 1),
    ],
)
def test_what_is_no_digest_is_refused(xa: Exchange, given_digests: list[str]) -> None:
    error = refused(lambda: erase(xa.node, given_digests, ORDER))
    assert isinstance(error, MalformedError)
    assert not any(one in str(error) for one in given_digests if one)


# Really gone


@pytest.mark.sqlite
def test_no_old_octet_and_no_old_key_is_in_any_file(network: Network, xa: Exchange, xb: Exchange) -> None:
    take(xa, *(draft(number, series=f"Series {number}") for number in range(6)))
    take(xb, *(draft(number) for number in range(10, 14)), draft(2, "md5"))
    sync(network, "XA-NCVI", "XB-NCVI")
    stored = octets_of(xa)
    folder, before = xa.node.settings.folder, everything(xa.node.settings.folder)
    assert all(piece in before for pieces in stored.values() for piece in pieces)
    order(xa, 2)
    gone = stored.keys() - octets_of(xa).keys()
    assert len(gone) == 2  # the block of the own set, and that of the mirror
    after = everything(folder)
    assert not any(piece in after for number in gone for piece in stored[number])
    assert not any(secret in after for secret in (sha256("sha256 2"), hex_of(2).encode(), sha256("md5 2")[:16]))


def octets_of(exchange: Exchange) -> dict[int, list[bytes]]:
    """By block, its wrapped key and its sealed parts."""
    found = {}
    with exchange.node.store.reading() as tx:
        for hash_set in tx.sets.all():
            for row in tx.blocks.of_set(hash_set.id or 0):
                found[block_id(row)] = [row.wrapped_key, *tx.blocks.parts(block_id(row)).values()]
    return found


def everything(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file())


def test_a_crash_before_the_commit_leaves_everything_as_it_was(xa: Exchange) -> None:
    take(xa, draft(1), draft(2))
    before = held_entries(xa, OWN)
    desk = approvals(xa.node)
    identifier = desk.propose(*erase(xa.node, [hex_of(1)], ORDER), by="one")
    desk.sign(identifier, ONE)

    def crash() -> None:
        raise OSError("power cut")

    xa.node.store.before_commit = crash  # type: ignore[method-assign]
    with pytest.raises(OSError, match="power"):
        desk.sign(identifier, TWO)
    del xa.node.store.before_commit
    assert held_entries(Exchange(reopened(xa.node)), OWN) == before
    assert desk.sign(identifier, TWO).state == "done"
    assert len(held_entries(xa, OWN)) == 1
    assert_sound(xa)


# After a restore


@pytest.mark.sqlite
def test_from_an_old_backup_it_does_not_come_back(
    network: Network, xa: Exchange, xb: Exchange, clock: FakeClock
) -> None:
    take(xa, *(draft(number) for number in range(5)))
    take(xb, draft(2, "md5"), draft(9))
    sync(network, "XA-NCVI", "XB-NCVI")
    folder = xa.node.settings.folder
    shutil.copytree(folder, folder.with_name("backup"))
    order(xa, 2)
    xa.ledger.withdraw(OWN, [FIRST + 3], actor="tester", reason="listed wrongly")
    file = (folder / listfile.FILE).read_bytes()
    old = replace(xa.node.settings, folder=folder.with_name("backup"))
    restored = Exchange(open_node(old, xa.node.keystore, clock=clock, random=SeededRandom("restored")))
    assert len(held_entries(restored, OWN)) == 5
    done = take_in(restored.node, file)
    assert (done.changed, done.withdrawn, done.erased) == (2, 1, 2)
    assert held_entries(restored, OWN).keys() == held_entries(xa, OWN).keys()
    assert len(held_entries(restored, THEIRS)) == 1
    assert take(restored, draft(2), draft(2, "md5"), draft(3)) == 3
    assert_sound(restored)
    again = take_in(restored.node, file)
    assert (again.changed, again.withdrawn, again.erased) == (0, 0, 0)
    assert (old.folder / listfile.FILE).read_bytes().count(b"\n") == len(file.splitlines())


# Whatever is erased in whatever order


DEEDS = st.lists(
    st.one_of(
        st.tuples(st.just("import"), st.lists(st.integers(0, 9), min_size=1, max_size=4), st.integers(0, 2)),
        st.tuples(st.just("withdraw"), st.lists(st.integers(0, 9), min_size=1, max_size=2), st.just(0)),
        st.tuples(st.just("sync"), st.just([]), st.just(0)),
        st.tuples(st.just("erase"), st.lists(st.integers(0, 9), min_size=1, max_size=2), st.just(0)),
    ),
    min_size=3,
    max_size=9,
)


@pytest.mark.sqlite
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(DEEDS)
def test_whatever_is_erased_both_sides_stay_equal_and_sound(
    tmp_path_factory: pytest.TempPathFactory, deeds: list[tuple[str, list[int], int]]
) -> None:
    folder, clock = tmp_path_factory.mktemp("world"), FakeClock()
    nodes = [make_node(folder, agency, clock=clock, page_changes=3) for agency in ("XA-NCVI", "XB-NCVI")]
    befriend(*nodes)
    network = Network()
    xa, xb = (network.join(node) for node in nodes)
    make_set(xa, "identified")
    for exchange in (xa, xb):
        bootstrap_administrator(exchange.node, ONE.name, ONE.signing_key.public)
    take(xa, draft(100))  # a set without entries is shown to nobody
    erased: set[int] = set()
    for deed, numbers, shade in deeds:
        handling = (HandlingCode.H0, HandlingCode.H1, HandlingCode.H2)[shade]
        if deed == "import":
            take(xa, *(draft(number, handling=handling, series=f"S{shade}") for number in numbers))
        elif deed == "sync":
            sync(network)
        elif deed == "withdraw":
            held = sorted(held_entries(xa, OWN))
            if held:
                chosen = [held[number % len(held)] for number in numbers]
                xa.ledger.withdraw(OWN, chosen, actor="tester", reason="listed wrongly")
        else:
            for number in sorted(set(numbers) - erased):
                desk = approvals(xa.node)
                desk.sign(desk.propose(*erase(xa.node, [hex_of(number)], ORDER), by="one"), ONE)
            erased |= set(numbers)
    assert sync(network) == "equal"
    assert held_entries(xb, OWN).keys() == held_entries(xa, OWN).keys()
    gone = {sha256(f"sha256 {number}") for number in erased}
    assert not any(one["sha256"] in gone for one in held_entries(xa, OWN).values())
    for exchange in (xa, xb):
        assert_sound(exchange)
        exchange.node.store.close()
