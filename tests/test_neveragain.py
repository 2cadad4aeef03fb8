"""The never-again list: what is listed comes back through no door, nobody unlists it alone, and nobody can read it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from factory import FakeClock, SeededRandom, befriend, events, make_node, make_set, open_node, reopened, sha256
from gateway import standing
from gateway.adapters import READERS, read_hashes
from gateway.adapters.fields import MIN_PDQ_QUALITY
from gateway.audit import EventKind
from gateway.columns.rows import Rows
from gateway.errors import AuditBrokenError, MalformedError, VerificationError
from gateway.exchange import Exchange, listfile, neveragain
from gateway.exchange.erasing import take_in
from gateway.exchange.neveragain import ERASED, REINSTATED, WRONG, NeverAgain
from gateway.model import AdapterReport, EntryDraft
from gateway.node import Node
from partner_simulator import Network, held_entries, refused

OWN, THEIRS = "XA-NCVI/identified", "XB-NCVI/identified"
DIGESTS = {
    "md5": sha256("md5")[:16],
    "sha1": sha256("sha1")[:20],
    "sha256": sha256("sha256"),
    "sha512": sha256("512 a") + sha256("512 b"),
    "pdq": sha256("pdq"),
    "photodna": sha256("photodna") * 4 + bytes(16),
    "ssdeep": b"3:AXGBicFlgVNhBGcL6wCrFQEv:AXGHsNhxLsr2C",
    "vpdq": b"[]",
    "vendor": b'{"a":"1"}',
}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def network(tmp_path: Path, clock: FakeClock) -> Network:
    nodes = [make_node(tmp_path, agency, clock=clock) for agency in ("XA-NCVI", "XB-NCVI")]
    befriend(*nodes)
    network = Network()
    for node in nodes:
        make_set(network.join(node), "identified")
    return network


@pytest.fixture
def xa(request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock) -> Exchange:
    """XA with an empty set; alone, where a test has no use for XB."""
    if {"network", "xb"} & set(request.fixturenames):
        network: Network = request.getfixturevalue("network")
        return network.members["XA-NCVI"]
    exchange = Exchange(make_node(tmp_path, clock=clock))
    make_set(exchange, "identified")
    return exchange


@pytest.fixture
def xb(network: Network) -> Exchange:
    return network.members["XB-NCVI"]


def take(exchange: Exchange, *drafts: EntryDraft) -> tuple[int, int]:
    """(added, refused) of an import into the gateway's own set."""
    name = f"{exchange.node.agency}/identified"
    tally = exchange.ledger.import_entries(name, drafts, actor="tester", form="test")
    assert tally.rows == tally.added + tally.updated + tally.unchanged + tally.repeated + tally.refused
    return tally.added, tally.refused


def withdraw_all(exchange: Exchange) -> None:
    name = f"{exchange.node.agency}/identified"
    exchange.ledger.withdraw(name, sorted(held_entries(exchange, name)), actor="tester", reason="listed wrongly")


def draft(number: int, *names: str, **fields: object) -> EntryDraft:
    made = {name: sha256(f"{name} {number}") for name in names or ("sha256",)}
    return EntryDraft({name: raw[:16] if name == "md5" else raw for name, raw in made.items()}, **fields)  # type: ignore[arg-type]


def list_erased(exchange: Exchange, *drafts: EntryDraft) -> None:
    """As an order does that names what is not held here."""
    rows = [Rows.of(1, {name: [value] for name, value in one.digests.items()}) for one in drafts]
    with exchange.node.store.transaction() as tx:
        marks = [exchange.never_again.marker.listed(row)[0] for row in rows]
        neveragain.add(exchange.node, tx, ERASED, marks, details={"deed": "erased"})


def lift_everything(exchange: Exchange) -> None:
    with exchange.node.store.transaction() as tx:
        numbers = [one.number for one in neveragain.listings(exchange.node, tx) if not one.reinstated]
        neveragain.lift(exchange.node, tx, numbers, details={"deed": REINSTATED})


# Importing


def test_a_withdrawn_entry_is_not_taken_again_and_the_rows_beside_it_are(xa: Exchange) -> None:
    take(xa, draft(1), draft(2))
    withdraw_all(xa)
    assert take(xa, draft(3), draft(1), draft(4), draft(2), draft(5)) == (3, 2)
    tally = xa.ledger.import_entries(OWN, [draft(6), draft(1, "sha256", "md5")], actor="tester", form="test")
    [refusal] = tally.refusals
    assert (refusal.row, refusal.algorithm, refusal.kind) == (2, "sha256", WRONG)
    assert len(held_entries(xa, OWN)) == 4
    told = events(xa.node, EventKind.ROWS_REFUSED)
    assert [(one.details["refused"], one.details["reasons"]) for one in told] == [
        (2, {"never_again_wrong": 2}),
        (1, {"never_again_wrong": 1}),
    ]
    assert [one.details.get("refused") for one in events(xa.node, EventKind.ENTRIES_IMPORTED)] == [None, 2, 1]


def test_a_batch_of_nothing_else_changes_nothing_and_is_on_record(xa: Exchange) -> None:
    take(xa, draft(1))
    withdraw_all(xa)
    assert take(xa, draft(1), draft(1, series="Blue Door")) == (0, 1)  # the first of the two was repeated
    assert held_entries(xa, OWN) == {}
    assert len(events(xa.node, EventKind.ROWS_REFUSED)) == 1


def test_refused_rows_of_later_batches_are_named_by_their_place_in_the_whole_import(
    xa: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(xa, draft(1), draft(2))
    withdraw_all(xa)
    monkeypatch.setattr("gateway.exchange.ledger.BATCH_ROWS", 3)
    rows = [draft(3), draft(4), draft(1), draft(5), draft(6), draft(7), draft(2)]
    tally = xa.ledger.import_entries(OWN, rows, actor="tester", form="test")
    assert [one.row for one in tally.refusals] == [3, 7]
    assert (tally.refused, tally.added) == (2, 5)


@pytest.mark.parametrize("algorithm", DIGESTS)
def test_any_one_digest_of_the_entry_is_enough(xa: Exchange, algorithm: str) -> None:
    take(xa, EntryDraft(dict(DIGESTS)))
    withdraw_all(xa)
    other = {"sha256": sha256("another file")} if algorithm != "sha256" else {}
    assert take(xa, EntryDraft({**other, algorithm: DIGESTS[algorithm]})) == (0, 1)
    assert take(xa, EntryDraft(other or {"md5": sha256("another file")[:16]})) == (1, 0)


def test_the_same_octets_under_another_algorithm_are_another_digest(xa: Exchange) -> None:
    take(xa, EntryDraft({"sha256": DIGESTS["pdq"]}))
    withdraw_all(xa)
    assert take(xa, EntryDraft({"pdq": DIGESTS["pdq"]})) == (1, 0)


@pytest.mark.parametrize(("quality", "refused"), [(0, 1), (1, 0), (MIN_PDQ_QUALITY - 1, 0), (MIN_PDQ_QUALITY, 1)])
def test_a_pdq_that_says_nothing_about_the_picture_keeps_no_other_picture_away(
    xa: Exchange, quality: int, refused: int
) -> None:
    take(xa, EntryDraft({"sha256": sha256("a plain wall"), "pdq": DIGESTS["pdq"]}, pdq_quality=quality))
    withdraw_all(xa)
    assert take(xa, EntryDraft({"sha256": sha256("another wall"), "pdq": DIGESTS["pdq"]})) == (1 - refused, refused)
    assert take(xa, EntryDraft({"sha256": sha256("a plain wall")})) == (0, 1)


def test_an_entry_that_has_no_other_digest_is_listed_by_its_poor_pdq(xa: Exchange) -> None:
    take(xa, EntryDraft({"pdq": DIGESTS["pdq"]}, pdq_quality=3))
    withdraw_all(xa)
    assert take(xa, EntryDraft({"pdq": DIGESTS["pdq"]})) == (0, 1)


def test_what_was_reinstated_comes_back_under_a_new_id(xa: Exchange) -> None:
    take(xa, draft(1, "sha256", "md5"), draft(2))
    before = set(held_entries(xa, OWN))
    withdraw_all(xa)
    assert take(xa, draft(1, "md5")) == (0, 1)
    lift_everything(xa)
    assert take(xa, draft(1, "sha256", "md5"), draft(2)) == (2, 0)
    assert not before & set(held_entries(xa, OWN))
    # Withdrawn again it is listed again.
    withdraw_all(xa)
    assert take(xa, draft(1, "md5")) == (0, 1)


def test_a_live_entry_that_would_take_up_a_listed_digest_stays_as_it_was(xa: Exchange) -> None:
    take(xa, draft(1))
    withdraw_all(xa)
    take(xa, draft(2, source_ref="ref"))
    assert take(xa, draft(1, source_ref="ref")) == (0, 1)
    [held] = held_entries(xa, OWN).values()
    assert (held["version"], held["sha256"]) == (1, sha256("sha256 2"))


# Every door


@pytest.mark.parametrize("form", READERS)
def test_through_no_adapter_comes_what_was_erased(xa: Exchange, form: str) -> None:
    samples = {
        "digest_list": "plain.txt", "gateway_csv": "hash-csv-1.csv", "icse_csv": "icse-export.csv",
        "vics": "vics-2.0-us.json", "stix": "stix-2.1-bundle.json",
    }  # fmt: skip
    raw = (Path(__file__).parent / "data_adapters" / samples[form]).read_bytes()
    rows = list(read_hashes(BytesIO(raw), form, AdapterReport(form)))
    name, value = next(iter(rows[len(rows) // 2].digests.items()))
    away = EntryDraft({name: value})
    list_erased(xa, away)
    added, kept_away = take(xa, *rows)
    assert kept_away == sum(one.digests.get(name) == value for one in rows) > 0
    assert added == len(held_entries(xa, OWN)) > 0
    assert not any(held.get(name) == value for held in held_entries(xa, OWN).values())


def pulled(network: Network) -> int:
    import asyncio

    [report] = asyncio.run(network.sync("XA-NCVI", "XB-NCVI").pull())
    assert report.equality == "equal"
    return report.refused


def pushed(network: Network) -> int:
    import asyncio

    asyncio.run(network.sync("XB-NCVI", "XA-NCVI").push(THEIRS))
    xa = network.members["XA-NCVI"]
    assert xa.mirrors.equality(THEIRS) == "equal"
    told = events(xa.node, EventKind.ROWS_REFUSED)
    return int(str(told[-1].details["refused"])) if told else 0


@pytest.mark.parametrize("door", [pulled, pushed])
def test_no_page_brings_what_was_erased_and_the_sums_still_cover_it(
    network: Network, xa: Exchange, xb: Exchange, door: Callable[[Network], int]
) -> None:
    list_erased(xa, draft(2), draft(4))
    take(xb, *(draft(n, "sha256", "md5") for n in range(6)))
    assert door(network) == 2
    held = held_entries(xa, THEIRS)
    assert sorted(held) == sorted(set(held_entries(xb, THEIRS)) - {1 << 48 | 3, 1 << 48 | 5})
    [told] = events(xa.node, EventKind.ROWS_REFUSED)
    assert told.details["reasons"] == {"never_again_erased": 2}
    # The hub says it anew: it is refused anew. It corrects the digest: it is taken. It withdraws: nothing is left.
    xb.ledger.import_entries(THEIRS, [draft(2, "sha256", "md5", series="Blue Door")], actor="tester", form="test")
    door(network)
    assert (1 << 48 | 3) not in held_entries(xa, THEIRS)
    xb.ledger.withdraw(THEIRS, [1 << 48 | 3, 1 << 48 | 1], actor="tester", reason="listed wrongly")
    door(network)
    assert len(held_entries(xa, THEIRS)) == 3


async def test_a_block_of_nothing_else_is_kept_away_whole(network: Network, xa: Exchange, xb: Exchange) -> None:
    list_erased(xa, draft(1), draft(2))
    take(xb, draft(1), draft(2))
    [report] = await network.sync("XA-NCVI", "XB-NCVI").pull()
    assert (report.refused, report.equality, held_entries(xa, THEIRS)) == (2, "equal", {})


async def test_after_a_restart_what_is_kept_away_is_not_asked_for_again(
    network: Network, xa: Exchange, xb: Exchange
) -> None:
    list_erased(xa, draft(1))
    take(xb, draft(1), draft(2))
    await network.sync("XA-NCVI", "XB-NCVI").pull()
    network.join(xa.node)
    [report] = await network.sync("XA-NCVI", "XB-NCVI").pull()
    assert (report.pages, report.equality) == (0, "equal")


async def test_wrong_binds_its_originator_and_nobody_else(network: Network, xa: Exchange, xb: Exchange) -> None:
    take(xa, draft(1))
    withdraw_all(xa)
    take(xb, draft(1), draft(2))
    [report] = await network.sync("XA-NCVI", "XB-NCVI").pull()
    assert (report.refused, len(held_entries(xa, THEIRS))) == (0, 2)
    # Nor does a withdrawal by the hub list anything here.
    xb.ledger.withdraw(THEIRS, [1 << 48 | 2], actor="tester", reason="listed wrongly")
    await network.sync("XA-NCVI", "XB-NCVI").pull()
    assert take(xa, draft(2)) == (1, 0)


async def test_what_is_offered_again_is_asked_for_as_an_import_is(xa: Exchange) -> None:
    take(xa, draft(1), draft(2))
    withdraw_all(xa)
    list_erased(xa, draft(3))
    rows = Rows.of(4, {"sha256": [sha256(f"sha256 {number}") for number in (4, 2, 3, 5)]})
    with xa.node.store.reading() as tx:
        ours = xa.never_again.bars(tx, "XA-NCVI")
        others = xa.never_again.bars(tx, "XC-NCVI")
    assert ours is not None
    assert others is not None
    found = ours.find(rows)
    assert found is not None
    assert found.mask.tolist() == [False, True, True, False]
    assert found.found == {1: ("sha256", WRONG), 2: ("sha256", ERASED)}
    bound = others.find(rows)
    assert bound is not None
    assert bound.found == {2: ("sha256", ERASED)}


def test_while_nothing_is_listed_nothing_is_asked(xa: Exchange) -> None:
    with xa.node.store.reading() as tx:
        assert xa.never_again.bars(tx, "XA-NCVI") is None


NUMBERS = st.lists(st.integers(0, 7), max_size=4)


@pytest.mark.sqlite
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(NUMBERS, st.booleans()), max_size=4), NUMBERS)
def test_a_row_is_held_back_exactly_if_a_digest_of_it_is_listed_in_force(
    blank: Callable[[], Node], acts: list[tuple[list[int], bool]], asked: list[int]
) -> None:
    exchange = Exchange(blank())
    listed: set[int] = set()
    for numbers, lifted in acts:
        list_erased(exchange, *map(draft, numbers))
        listed |= set(numbers)
        if lifted:
            lift_everything(exchange)
            listed = set()
    rows = Rows.of(len(asked), {"sha256": [sha256(f"sha256 {number}") for number in asked]})
    for desk in (exchange.never_again, NeverAgain(exchange.node)):  # one that followed, one that begins now
        with exchange.node.store.reading() as tx:
            bars = desk.bars(tx, "XA-NCVI")
        found = None if bars is None else bars.find(rows)
        assert (found.mask.tolist() if found else [False] * rows.n) == [number in listed for number in asked]


@pytest.fixture
def blank(tmp_path: Path, clock: FakeClock) -> Callable[[], Node]:
    """A new gateway each time."""
    count = iter(range(1_000_000))

    def make() -> Node:
        folder = tmp_path / str(next(count))
        folder.mkdir()
        return make_node(folder, clock=clock)

    return make


# Whoever writes the database


def sql(exchange: Exchange, statement: str) -> None:
    with exchange.node.store.transaction() as tx:
        tx.connection.exec_driver_sql(statement)


TAMPERED = {
    "the last row gone": "DELETE FROM never_again WHERE id = 6",
    "the last listing gone": "DELETE FROM never_again WHERE id >= 5",
    "a row in the middle gone": "DELETE FROM never_again WHERE id = 3",
    "all gone": "DELETE FROM never_again",
    "a mark changed": "UPDATE never_again SET mark = zeroblob(16) WHERE id = 2",
    "a mark of another type": "UPDATE never_again SET mark = 'text' WHERE id = 2",
    "the last mac of another type": "UPDATE never_again SET mac = 'text' WHERE id = 6",
    "erased made wrong": "UPDATE never_again SET kind = 'wrong', scope = 'XA-NCVI' WHERE id = 4",
    "bound to another": "UPDATE never_again SET scope = 'XC-NCVI' WHERE id = 1",
    "moved to another listing": "UPDATE never_again SET listing = 1 WHERE id = 3",
    "dated back": "UPDATE never_again SET at = 1 WHERE id = 5",
    "reinstated by hand": "INSERT INTO never_again SELECT 7, x'', 'reinstated', '', 1, at, leaf, mac FROM never_again"
    " WHERE id = 6",
    "a row twice": "INSERT INTO never_again SELECT 7, mark, kind, scope, listing, at, leaf, mac FROM never_again"
    " WHERE id = 6",
}


@pytest.mark.sqlite
@pytest.mark.parametrize("what", TAMPERED)
def test_a_row_that_was_taken_out_put_in_or_changed_is_noticed(xa: Exchange, what: str) -> None:
    take(xa, draft(1, "sha256", "md5"))
    withdraw_all(xa)  # rows 1 and 2
    list_erased(xa, draft(2, "sha256", "md5"), draft(3, "sha256", "md5"))  # rows 3 to 6
    running = NeverAgain(xa.node)
    with xa.node.store.reading() as tx:
        assert running.bars(tx, "XA-NCVI") is not None
        assert neveragain.check(xa.node, tx) == 3
    sql(xa, TAMPERED[what])
    # 1. Whoever looks at all of it: doctor, `audit verify`.
    with pytest.raises(AuditBrokenError), xa.node.store.reading() as tx:
        neveragain.check(xa.node, tx)
    # 2. Whoever opens the gateway, if the end of the list is touched; and whoever lists something more.
    at_the_end = any(word in what for word in ("last", "all", "hand", "twice"))
    if at_the_end:
        with pytest.raises(AuditBrokenError), xa.node.store.reading() as tx:
            standing.check(tx, xa.node)
        with pytest.raises(AuditBrokenError):
            list_erased(xa, draft(9))
        # 3. A gateway that goes on running.
        with pytest.raises(AuditBrokenError), xa.node.store.reading() as tx:
            running.bars(tx, "XA-NCVI")
    # 4. A gateway that starts: nothing is taken in before somebody has looked.
    with pytest.raises(AuditBrokenError):
        take(Exchange(reopened(xa.node)), draft(8))


@pytest.mark.sqlite
def test_an_older_copy_of_the_table_is_noticed(xa: Exchange) -> None:
    list_erased(xa, draft(1))
    sql(xa, "CREATE TABLE copy AS SELECT * FROM never_again")
    lift_everything(xa)
    list_erased(xa, draft(2))
    sql(xa, "DELETE FROM never_again")
    sql(xa, "INSERT INTO never_again SELECT * FROM copy")
    with pytest.raises(AuditBrokenError), xa.node.store.reading() as tx:
        standing.check(tx, xa.node)


@pytest.mark.sqlite
def test_a_deed_that_fails_lists_nothing(xa: Exchange) -> None:
    take(xa, draft(1))
    size = len(events(xa.node, EventKind.NEVER_AGAIN_CHANGED))

    def crash() -> None:
        raise OSError("the disk is full")

    xa.node.store.before_commit = crash  # type: ignore[method-assign]
    with pytest.raises(OSError, match="full"):
        withdraw_all(xa)
    del xa.node.store.before_commit
    assert len(events(xa.node, EventKind.NEVER_AGAIN_CHANGED)) == size
    assert not (xa.node.settings.folder / listfile.FILE).exists()
    with xa.node.store.reading() as tx:
        assert tx.never_again.end() == (0, b"")
    withdraw_all(xa)
    assert take(xa, draft(1)) == (0, 1)


# What the list gives away


@pytest.mark.sqlite
def test_neither_table_nor_file_nor_log_holds_a_digest_or_a_reference(xa: Exchange) -> None:
    take(xa, EntryDraft(dict(DIGESTS), source_ref="case-4711"))
    withdraw_all(xa)
    folder = xa.node.settings.folder
    raw = b"".join(path.read_bytes() for path in folder.iterdir() if path.is_file())
    secrets = [DIGESTS[name] for name in ("md5", "sha1", "sha256", "pdq")]
    for secret in secrets:
        assert not any(piece in raw for piece in (secret, secret.hex().encode(), secret[:8]))
    assert b"case-4711" not in raw
    with xa.node.store.reading() as tx:
        rows = tx.never_again.since()
    assert len({row.mark for row in rows}) == len(DIGESTS)
    assert {len(row.mark) for row in rows} == {16}


def test_another_gateway_makes_other_marks_of_the_same_digest(xa: Exchange, xb: Exchange) -> None:
    rows = Rows.of(1, {"sha256": [DIGESTS["sha256"]]})
    assert xa.never_again.marker.listed(rows) != xb.never_again.marker.listed(rows)


# The file


def rows_of(exchange: Exchange) -> list[bytes]:
    with exchange.node.store.reading() as tx:
        return list(listfile.dump(exchange.node, tx.never_again.since()))


def copy_in_folder(exchange: Exchange) -> bytes:
    return (exchange.node.settings.folder / listfile.FILE).read_bytes()


def in_force(exchange: Exchange) -> list[frozenset[bytes]]:
    with exchange.node.store.reading() as tx:
        return sorted(
            (one.marks for one in neveragain.listings(exchange.node, tx) if not one.reinstated),
            key=min,
        )


def merged(exchange: Exchange, raw: bytes) -> int:
    with exchange.node.store.transaction() as tx:
        return listfile.merge(exchange.node, tx, listfile.parse(exchange.node, raw), deed="taken in")


@pytest.mark.sqlite
def test_the_copy_beside_the_database_goes_on_with_each_act(xa: Exchange) -> None:
    take(xa, draft(1, "sha256", "md5"), draft(2))
    for entry in sorted(held_entries(xa, OWN)):
        xa.ledger.withdraw(OWN, [entry], actor="tester", reason="listed wrongly")
        assert copy_in_folder(xa) == b"".join(rows_of(xa))
    assert (xa.node.settings.folder / listfile.FILE).stat().st_mode & 0o777 == 0o600


@pytest.mark.sqlite
@pytest.mark.parametrize("damage", ["gone", "cut", "empty", "another list", "rubbish", "behind"])
def test_a_copy_that_was_damaged_is_made_anew(xa: Exchange, damage: str) -> None:
    list_erased(xa, draft(1), draft(2))
    listfile.keep(xa.node)
    path, whole = xa.node.settings.folder / listfile.FILE, copy_in_folder(xa)
    lines = whole.splitlines(keepends=True)
    content = {
        "cut": whole[:-20], "empty": b"", "rubbish": b"hello\nworld\n", "behind": b"".join(lines[:2]),
        "another list": whole.replace(b'"mac":"', b'"mac":"00'),
    }  # fmt: skip
    path.unlink() if damage == "gone" else path.write_bytes(content[damage])
    list_erased(xa, draft(3))
    listfile.keep(xa.node)
    assert copy_in_folder(xa) == b"".join(rows_of(xa))
    listfile.keep(xa.node)
    assert copy_in_folder(xa) == b"".join(rows_of(xa))


@pytest.mark.sqlite
def test_the_file_of_before_brings_back_what_the_database_has_lost(xa: Exchange, clock: FakeClock) -> None:
    list_erased(xa, draft(1))
    restored = earlier(xa, clock)
    list_erased(xa, draft(2, "sha256", "md5"))
    lift_everything(xa)
    list_erased(xa, draft(3))
    file = b"".join(rows_of(xa))
    clock.advance(60)
    list_erased(restored, draft(4))
    assert merged(restored, file) == 4  # two listings, and two that were lifted
    assert merged(restored, file) == 0
    assert take(restored, draft(1), draft(2), draft(3), draft(4), draft(5)) == (3, 2)
    # An older file takes nothing back, a newer one is the same list again.
    assert merged(restored, b"".join(file.splitlines(keepends=True)[:2])) == 0
    assert merged(restored, b"".join(rows_of(restored))) == 0
    with restored.node.store.reading() as tx:
        standing.check(tx, restored.node)


@pytest.mark.sqlite
def test_a_copy_that_knows_more_than_a_restored_database_is_not_written_over(xa: Exchange, clock: FakeClock) -> None:
    list_erased(xa, draft(1))
    listfile.keep(xa.node)
    restored = earlier(xa, clock)
    list_erased(xa, draft(2))
    listfile.keep(xa.node)
    copy = restored.node.settings.folder / listfile.FILE
    copy.write_bytes(copy_in_folder(xa))  # the folder was not lost, only its database
    clock.advance(1)
    list_erased(restored, draft(3))
    listfile.keep(restored.node)
    assert copy.read_bytes() == copy_in_folder(xa)
    assert listfile.knows_more(restored.node)
    assert take_in(restored.node, copy.read_bytes()).changed == 1
    assert not listfile.knows_more(restored.node)
    assert copy.read_bytes() == b"".join(rows_of(restored))
    assert take(restored, draft(1), draft(2), draft(3)) == (0, 3)


def earlier(exchange: Exchange, clock: FakeClock) -> Exchange:
    """The gateway over a copy of its database as it is now, for later."""
    import shutil
    from dataclasses import replace

    folder = exchange.node.settings.folder
    copy = folder.with_name(f"{folder.name} restored")
    shutil.copytree(folder, copy)
    chosen = replace(exchange.node.settings, folder=copy)
    return Exchange(open_node(chosen, exchange.node.keystore, clock=clock, random=SeededRandom("restored")))


@pytest.mark.sqlite
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(NUMBERS, st.booleans()), max_size=3), st.lists(st.tuples(NUMBERS, st.booleans()), max_size=3))
def test_two_histories_of_one_list_become_the_same_whichever_is_taken_in_first(
    blank: Callable[[], Node], ours: Sequence[tuple[list[int], bool]], theirs: Sequence[tuple[list[int], bool]]
) -> None:
    one = Exchange(blank())
    clock = one.node.clock
    assert isinstance(clock, FakeClock)
    list_erased(one, draft(0))
    other = earlier(one, clock)
    for exchange, acts in ((one, ours), (other, theirs)):
        for numbers, lifted in acts:
            clock.advance(1)
            list_erased(exchange, *map(draft, sorted(set(numbers))))
            if lifted:
                lift_everything(exchange)
    files = [b"".join(rows_of(exchange)) for exchange in (one, other)]
    merged(one, files[1])
    merged(other, files[0])
    assert in_force(one) == in_force(other)


def test_a_file_is_taken_in_only_as_this_gateway_wrote_it(xa: Exchange, xb: Exchange) -> None:
    list_erased(xa, draft(1), draft(2), draft(3))
    lines = rows_of(xa)
    foreign = {
        "another agency's": b"".join(rows_of(xb)),
        "a line gone": b"".join([lines[0], lines[1], lines[3]]),
        "a line moved": b"".join([lines[0], lines[2], lines[1], lines[3]]),
        "a mark changed": b"".join([lines[0], lines[1].replace(b'"mark":"', b'"mark":"00')[:-4] + b"\n"]),
        "a mac changed": b"".join(lines).replace(b'"kind":"erased"', b'"kind":"wrong"', 1),
        "another version": b"".join(lines).replace(b"never-again 1", b"never-again 2"),
        "nothing": b"",
        "no list": b"hello\n",
        "a member more": b"".join(lines).replace(b'{"at"', b'{"a":1,"at"', 1),
    }
    for what, raw in foreign.items():
        error = refused(lambda raw=raw: listfile.parse(xa.node, raw))
        assert isinstance(error, MalformedError | VerificationError), what
    assert [row.id for row in listfile.parse(xa.node, b"".join(lines)[:-3])] == [1, 2]  # cut off in its last line


def test_the_log_names_the_end_of_every_list_there_was(xa: Exchange) -> None:
    list_erased(xa, draft(1))
    first = rows_of(xa)
    list_erased(xa, draft(2, "sha256", "md5"))
    told = events(xa.node, EventKind.NEVER_AGAIN_CHANGED)
    assert [one.details["listed"] for one in told] == [1, 3]
    assert str(told[0].details["list_head"]).encode() in first[-1]
    assert str(told[1].details["list_head"]).encode() in rows_of(xa)[-1]
