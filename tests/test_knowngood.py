"""Known-good digests: lists of any kind and size, what they keep out, and what happens to who tampers with them."""

from __future__ import annotations

import hashlib
import io
import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from chain import policy_folder
from factory import FakeClock, SeededRandom, befriend, drafts, events, make_node, make_set, on_postgresql, reopened
from gateway import standing
from gateway.adapters import known_good
from gateway.alarms import AlarmKind
from gateway.audit import EventKind
from gateway.cli import app
from gateway.columns.marks import SHORT_MARKS_A_PART, KnownMarks, short_marks
from gateway.columns.rows import Rows
from gateway.crypto.keys import SigningKey
from gateway.errors import AuditBrokenError, ConflictError, MalformedError, NotFoundError
from gateway.exchange import Exchange, knowngood
from gateway.exchange.knowngood import KnownGood, remove
from gateway.keyadmin import approvals, bootstrap_administrator
from gateway.keystore import PersonalKey
from gateway.model import AdapterReport, EntryDraft
from gateway.node import Node
from partner_simulator import Network, held_entries, refused

XA, XB = "XA-NCVI", "XB-NCVI"
ALICE, BOB = (PersonalKey(name, SigningKey.generate(SeededRandom(name))) for name in ("alice", "bob"))


def sha256(what: str | bytes) -> bytes:
    return hashlib.sha256(what.encode() if isinstance(what, str) else what).digest()


def listed(*lines: str | bytes, column: str = "") -> tuple[list[tuple[str, bytes]], AdapterReport]:
    """What a list says: (algorithm, digest) of each, and the report."""
    raw = b"\n".join(one.encode() if isinstance(one, str) else one for one in lines) + b"\n"
    report = AdapterReport("known_good")
    rows = list(known_good.read(io.BytesIO(raw), report, column))
    return [
        (name, one.octets(name)[at].tobytes()) for one in rows for name in one.columns for at in range(one.n)
    ], report


def take_in(exchange: Exchange, *digests: bytes, name: str = "a list") -> knowngood.Imported:
    raw = "".join(f"{one.hex()}\n" for one in digests).encode()
    report = AdapterReport("known_good")
    batches = known_good.read(io.BytesIO(raw), report)
    return exchange.known_good.import_list(name, batches, report, actor="tester", held=exchange.quality.count_held)


@pytest.fixture
def xa(tmp_path: Path) -> Exchange:
    return Exchange(make_node(tmp_path, XA, clock=FakeClock()))


# Lists


def test_a_plain_list_is_read_and_a_bad_line_is_refused_alone() -> None:
    good = [sha256("a").hex(), hashlib.md5(b"b").hexdigest(), hashlib.sha1(b"c").hexdigest()]
    found, report = listed("# comment", good[0], "zz" * 32, f"{good[1]}  b.txt", "", "abcd", good[2].upper())
    assert [value.hex() for _, value in found] == good
    assert [name for name, _ in found] == ["sha256", "md5", "sha1"]
    assert (report.read, report.accepted, report.refused) == (5, 3, 2)
    assert [one.line for one in report.refused_rows] == [3, 6]


def test_a_table_of_the_reference_library_is_read_whatever_its_names_are() -> None:
    md5, sha1 = hashlib.md5(b"x").hexdigest(), hashlib.sha1(b"x").hexdigest()
    found, report = listed(
        '"SHA-1","MD5","CRC32","FileName","FileSize"',
        f'"{sha1}","{md5}","00000000","a, ""b"".exe","1"',
        b'"%s","","0","\xff\xfe.dll","1"' % sha1.encode(),
        f'"{sha1[:-1]}","{md5}","0","short.dll","1"',
        f'"{md5}","{md5}","0","wrong.dll","1"',
        '"","","0","none.dll","1"',
        '"',
        f'"{"g" * 40}","{md5}","0","bad.dll","1"',
    )
    assert found == [("md5", bytes.fromhex(md5)), *[("sha1", bytes.fromhex(sha1))] * 2]
    assert (report.read, report.accepted, report.refused) == (7, 2, 5)
    found, _ = listed("name,value", f"x,{md5}", column="Value")
    assert found == [("md5", bytes.fromhex(md5))]
    assert isinstance(refused(lambda: listed("name,value", f"x,{md5}")), MalformedError)
    assert isinstance(refused(lambda: listed("name,value", f"x,{md5}", column="digest")), MalformedError)


def test_a_list_of_any_length_is_read_in_constant_memory(xa: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knowngood, "SHORT_MARKS_A_PART", 4_000)
    most = 0

    def lines() -> Iterator[bytes]:
        yield b"sha256\n"
        for at in range(60_000):
            yield b"%064x\n" % (at + 1)

    class Stream(io.RawIOBase):
        """A file that is never whole in memory."""

        def __init__(self) -> None:
            super().__init__()
            self._lines = lines()

        def readline(self, _size: int | None = -1, /) -> bytes:
            return next(self._lines, b"")

    def noted(_count: int) -> None:
        nonlocal most
        most = max(most, tracemalloc.get_traced_memory()[1])
        tracemalloc.reset_peak()

    report = AdapterReport("known_good")
    batches = known_good.read(Stream(), report)  # type: ignore[arg-type]
    tracemalloc.start()
    done = xa.known_good.import_list("long", batches, report, actor="tester", on_batch=noted)
    tracemalloc.stop()
    assert done.digests == 60_000
    assert most < 16 << 20
    with xa.node.store.reading() as tx:
        assert sum(len(part) for _, part in tx.allow_lists.parts(done.number)) == 8 * 60_000
        known = xa.known_good.mask(tx, Rows.of(2, {"sha256": [(7).to_bytes(32, "big"), sha256("other")]}))
    assert known.tolist() == [True, False]


def test_nobody_reads_from_a_list_what_it_lists(xa: Exchange, tmp_path: Path) -> None:
    digest = sha256("a harmless file")
    take_in(xa, digest)
    with xa.node.store.reading() as tx:
        [row] = tx.allow_lists.all()
        [(_, part)] = tx.allow_lists.parts(row.id)
    assert digest[:8] not in part
    other = Exchange(make_node(tmp_path, XB, clock=FakeClock()))
    take_in(other, digest)
    with other.node.store.reading() as tx:
        assert next(tx.allow_lists.parts(1))[1] != part
    assert digest.hex() not in repr(events(xa.node, EventKind.ALLOW_LIST_CHANGED))


def test_marks_are_known_exactly() -> None:
    source = SeededRandom(5)
    marks = [source.bytes(16) for _ in range(3_000)]
    packed = Rows.of(3_000, {"md5": marks}).octets("md5")
    known = KnownMarks(short_marks([packed[:1_500]]))
    assert known.known(packed).tolist() == [at < 1_500 for at in range(3_000)]
    assert not KnownMarks().known(packed).any()
    assert all(len(part) <= 8 * SHORT_MARKS_A_PART for part in short_marks([packed]))


# What is kept out


def test_what_is_known_good_does_not_come_into_a_set_of_ours_and_the_row_is_named(xa: Exchange) -> None:
    take_in(xa, sha256("made-up 1"), sha256("made-up 4"))
    make_set(xa, "found", [])
    batch = [EntryDraft({"sha256": sha256(f"made-up {at}")}) for at in range(6)]
    tally = xa.ledger.import_entries("XA-NCVI/found", batch, actor="tester", form="test")
    assert (tally.added, tally.refused, tally.known_good) == (4, 2, 2)
    assert [(one.row, one.algorithm, one.kind) for one in tally.refusals] == [
        (2, "sha256", "known_good"),
        (5, "sha256", "known_good"),
    ]
    [event] = events(xa.node, EventKind.ROWS_REFUSED)
    assert event.details["reasons"] == {"known_good": 2}


COMMON = {
    "the empty file": b"",
    "a line end": b"\r\n",
    "one zero": b"\0",
    "a blank block": b"\0" * 4096,
    "erased flash": b"\xff" * 65_536,
}


def test_empty_and_common_files_are_known_without_any_list(xa: Exchange) -> None:
    make_set(xa, "found", [])
    digests = [{name: hashlib.new(name, content).digest()} for name in ("md5", "sha1", "sha256", "sha512")
               for content in COMMON.values()]  # fmt: skip
    digests += [{"md5": bytes(16)}, {"sha256": b"\xff" * 32}]
    tally = xa.ledger.import_entries("XA-NCVI/found", map(EntryDraft, digests), actor="tester", form="test")
    assert (tally.added, tally.known_good) == (0, len(digests))
    near = bytes.fromhex("e3b0c44298fc1c14") + b"x" * 24  # begins as the digest of the empty file, and is another
    tally = xa.ledger.import_entries("XA-NCVI/found", [EntryDraft({"sha256": near})], actor="tester", form="test")
    assert tally.added == 1


def test_an_own_entry_that_is_known_good_already_is_counted(xa: Exchange) -> None:
    make_set(xa, "found", drafts(4))
    held = [bytes(one["sha256"]) for one in held_entries(xa, "XA-NCVI/found").values()]  # type: ignore[call-overload]
    assert take_in(xa, *held[:3], sha256("another")).held == 3


def test_never_again_says_more_than_known_good(xa: Exchange) -> None:
    make_set(xa, "found", drafts(1))
    [(entry, one)] = held_entries(xa, "XA-NCVI/found").items()
    xa.ledger.withdraw("XA-NCVI/found", [entry], actor="tester", reason="wrong")
    take_in(xa, bytes(one["sha256"]))  # type: ignore[call-overload]
    tally = xa.ledger.import_entries("XA-NCVI/found", drafts(1), actor="tester", form="test")
    assert (tally.refused, tally.known_good, tally.refusals[0].kind) == (1, 0, "wrong")


# Mirrors


def pair(tmp_path: Path) -> Network:
    folder = policy_folder(tmp_path / "policies", [XA, XB], [(XA, XB)])
    nodes = [make_node(tmp_path, name, clock=FakeClock(), policies=str(folder)) for name in (XA, XB)]
    befriend(*nodes)
    network = Network()
    for node in nodes:
        network.join(node)
    return network


async def test_a_poisoned_hub_is_followed_and_an_alarm_tells(tmp_path: Path) -> None:
    network = pair(tmp_path)
    xa, xb = network.members[XA], network.members[XB]
    make_set(xa, "found", drafts(5))
    held = [bytes(one["sha256"]) for one in held_entries(xa, "XA-NCVI/found").values()]  # type: ignore[call-overload]
    take_in(xb, *held[:2])
    await network.sync(XB, XA).sync()
    assert len(held_entries(xb, "XA-NCVI/found")) == 5
    assert xb.mirrors.equality("XA-NCVI/found") == "equal"
    with xb.node.store.reading() as tx:
        [alarm] = [one for one in tx.alarms.all() if one.kind == AlarmKind.KNOWN_GOOD_LISTED]
    assert (alarm.subject, alarm.level) == ("XA-NCVI/found", -2)
    assert alarm.detail.startswith("2 entries")
    # More of it is told again, with the number in all.
    take_in(xb, *map(sha256, ("made-up 70", "made-up 71")))
    xa.ledger.import_entries("XA-NCVI/found", drafts(3, first=70), actor="tester", form="test")
    more = [one for one in held_entries(xa, "XA-NCVI/found").values() if bytes(one["sha256"]) not in held]  # type: ignore[call-overload]
    take_in(xb, *(bytes(one["sha256"]) for one in more))  # type: ignore[call-overload]
    await network.sync(XB, XA).sync()
    with xb.node.store.reading() as tx:
        [alarm] = [one for one in tx.alarms.all() if one.kind == AlarmKind.KNOWN_GOOD_LISTED]
    assert (alarm.level, alarm.detail.split()[0]) == (-5, "5")
    assert len(events(xb.node, EventKind.ALARM_RAISED)) == 2


# Tampering and interruption


def swept(node: Node) -> AuditBrokenError | None:
    with node.store.reading() as tx:
        try:
            standing.check(tx, node)
        except AuditBrokenError as error:
            return error
    return None


TAMPERED = {
    "a mark changed": "UPDATE allow_list_part SET marks = :marks WHERE number = 1",
    "a part gone": "DELETE FROM allow_list_part",
    "the list gone": "UPDATE allow_list SET state = 'removed'",
    "its head changed": "UPDATE allow_list SET head = :marks",
    "its name changed": "UPDATE allow_list SET name = 'another'",
}


def test_a_list_that_somebody_else_changed_stops_whoever_asks(tmp_path: Path) -> None:
    for number, (what, statement) in enumerate(TAMPERED.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        node = make_node(folder, XA, clock=FakeClock())
        take_in(Exchange(node), sha256("a"), sha256("b"))
        assert swept(node) is None
        with node.store.transaction() as tx:
            tx.connection.execute(text(statement), {"marks": b"\1" * 16} if ":marks" in statement else {})
        again = KnownGood(reopened(node))
        with node.store.reading() as tx:
            found = refused(lambda: again.mask(tx, Rows.of(1, {"sha256": [sha256("a")]})))  # noqa: B023
        assert isinstance(found, AuditBrokenError), what


def test_a_list_that_was_taken_away_whole_is_missed_at_the_start(xa: Exchange) -> None:
    take_in(xa, sha256("a"))
    with xa.node.store.transaction() as tx:
        tx.connection.execute(text("DELETE FROM allow_list_part"))
        tx.connection.execute(text("DELETE FROM allow_list"))
    assert swept(xa.node) is not None


def test_an_import_that_was_cut_off_counts_for_nothing_and_is_cleared_away(
    xa: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(knowngood, "SHORT_MARKS_A_PART", 2)

    def cut_off() -> Iterator[Rows]:
        yield Rows.of(3, {"sha256": [sha256("a"), sha256("b"), sha256("c")]})
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        xa.known_good.import_list("cut", cut_off(), AdapterReport("known_good"), actor="tester")
    rows = Rows.of(1, {"sha256": [sha256("a")]})
    with xa.node.store.reading() as tx:
        assert not xa.known_good.mask(tx, rows).any()
    assert swept(xa.node) is None
    take_in(xa, sha256("z"))
    with xa.node.store.reading() as tx:
        assert [(one.name, one.state) for one in tx.allow_lists.all()] == [("cut", "removed"), ("a list", "in_force")]
        assert list(tx.allow_lists.parts(1)) == []
        assert not xa.known_good.mask(tx, rows).any()


def test_two_imports_at_once_do_not_spoil_each_other(xa: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knowngood, "SHORT_MARKS_A_PART", 1)

    def interrupted() -> Iterator[Rows]:
        yield Rows.of(1, {"sha256": [sha256("a")]})
        take_in(xa, sha256("b"), name="the other")
        yield Rows.of(1, {"sha256": [sha256("c")]})

    report = AdapterReport("known_good")
    assert isinstance(
        refused(lambda: xa.known_good.import_list("one", interrupted(), report, actor="tester")), ConflictError
    )
    with xa.node.store.reading() as tx:
        known = xa.known_good.mask(tx, Rows.of(3, {"sha256": [sha256("a"), sha256("b"), sha256("c")]}))
    assert known.tolist() == [False, True, False]
    assert isinstance(refused(lambda: take_in(xa)), MalformedError)


def test_two_administrators_remove_a_list_and_one_does_not(tmp_path: Path) -> None:
    node = make_node(tmp_path, XA, clock=FakeClock(), quorum=2)
    exchange = Exchange(node)
    for key in (ALICE, BOB):
        bootstrap_administrator(node, key.name, key.signing_key.public)
    number = take_in(exchange, sha256("a")).number
    rows = Rows.of(1, {"sha256": [sha256("a")]})
    desk = approvals(node)
    proposal = desk.propose(*remove(number, "it lists a real file"), by="alice")
    desk.sign(proposal, ALICE)
    with node.store.reading() as tx:
        assert exchange.known_good.mask(tx, rows).all()
    desk.sign(proposal, BOB)
    with node.store.reading() as tx:
        assert not exchange.known_good.mask(tx, rows).any()
        assert list(tx.allow_lists.parts(number)) == []
    assert [one.details["state"] for one in events(node, EventKind.ALLOW_LIST_CHANGED)] == ["in_force", "removed"]
    assert swept(reopened(node)) is None
    again = desk.propose(*remove(number, "it is gone"), by="alice")
    desk.sign(again, ALICE)
    assert isinstance(refused(lambda: desk.sign(again, BOB)), NotFoundError)


# What people see


def test_allow_lists_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if on_postgresql():
        pytest.skip("the command line's database is a file")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GATEWAY_HOME", "xa")
    monkeypatch.setenv("GATEWAY_PASSPHRASE_FILE", "gateway.pass")
    monkeypatch.setenv("GATEWAY_DEMO_ARGON2_KIB", "8192")
    for name in ("gateway.pass", "alice.pass"):
        Path(name).touch(mode=0o600)
        Path(name).write_text("only invented data is behind this\n")
    gateway("init", "--demo", "--agency", XA, "--name", "A unit")
    gateway("admin", "add", "alice", "--admin-passphrase-file", "alice.pass")
    gateway("set", "create", "found", "--purpose", "tests", "--legal-basis", "a law")
    digests = [sha256(f"made-up {at}").hex() for at in range(4)]
    Path("list.csv").write_text("sha256\n" + "\n".join(digests))
    Path("good.txt").write_text("\n".join([digests[1], "no digest", digests[3]]))
    assert "Empty and blank files are known" in gateway("allow-list", "list")
    said = gateway("allow-list", "import", "good.txt", "--name", "System files")
    assert "Allow-list 1: 2 digests; 1 lines refused." in said
    assert "refused: line 2" in said
    told = gateway("import", "list.csv", "--set", "found")
    assert "known good: 2 rows not taken" in told
    assert "not taken: accepted row 2, sha256: of a harmless or common file" in told
    value = json.loads(gateway("import", "list.csv", "--set", "found", "--json"))
    assert (value["never_again"], value["known_good"], [one["row"] for one in value["known_good_rows"]]) == (
        0,
        2,
        [2, 4],
    )
    assert digests[1] not in told + json.dumps(value)
    [row] = json.loads(gateway("allow-list", "list", "--json"))
    assert (row["list"], row["name"], row["digests"]) == (1, "System files", 2)
    alice = ("--admin", "alice", "--admin-passphrase-file", "alice.pass")
    gateway("allow-list", "remove", "1", "--reason", "a mistake", *alice)
    assert json.loads(gateway("allow-list", "list", "--json")) == []
    assert json.loads(gateway("import", "list.csv", "--set", "found", "--json"))["added"] == 2
    gateway("doctor")


def gateway(*arguments: str, exit_code: int = 0) -> str:
    result = CliRunner().invoke(app, arguments, prog_name="gateway")
    assert result.exit_code == exit_code, (arguments, result.output, result.stderr)
    return result.output
