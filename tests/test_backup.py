"""Backups: one state while the gateway works, for nobody without the offline key, and whole or not at all."""

from __future__ import annotations

import asyncio
import hashlib
import io
import stat
import threading
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

import postgres
from factory import (
    CHEAP,
    PASSPHRASE,
    FakeClock,
    SeededRandom,
    drafts,
    enrol,
    events,
    link_to,
    loopback,
    make_node,
    make_set,
    new_database,
    on_postgresql,
    serving,
)
from gateway import backup, backupfile, beginning, keyring, ownkeys
from gateway.audit import EventKind
from gateway.backup import Opened
from gateway.backupfile import Head, Reader, Writer, dump_rows, parse_rows
from gateway.config import Settings
from gateway.crypto import age, canonical, dsse
from gateway.crypto.keys import OpeningKey, SigningKey
from gateway.errors import (
    AuditBrokenError,
    ConfigError,
    ConflictError,
    GatewayError,
    MalformedError,
    VerificationError,
)
from gateway.exchange import Exchange, largevalues
from gateway.home import found, open_home
from gateway.keyadmin import approvals, bootstrap_administrator, export_card, own_card
from gateway.keylife import KeyPurpose
from gateway.keystore import Keystore, PersonalKey, create_offline, open_offline
from gateway.logcheck import verify_own_log
from gateway.model import EntryDraft
from gateway.node import Node, own_log
from gateway.store.tables import BlockPart, BlockRow
from gateway.sync import PartnerSync
from partner_simulator import held_entries

OFFLINE = OpeningKey.from_seed(b"offline key of tests, 32 octets!")
XA = "XA-NCVI"


@pytest.fixture(scope="module")
def clock() -> FakeClock:
    return FakeClock()


def founded(folder: Path, clock: FakeClock, **settings: Any) -> Node:
    """A gateway with two administrators and a set of sixty entries."""
    folder.mkdir(mode=0o700)
    database = {"database": new_database(folder)} if "database" not in settings else {}
    (folder / "gateway.db").unlink(missing_ok=True)  # founding makes its own
    chosen = Settings(folder=folder, agency=XA, jurisdiction="XA", **{**database, **settings})
    found(chosen, PASSPHRASE, name="Unit of XA", clock=clock, random=SeededRandom(XA), cost=CHEAP)
    node = open_home(folder, PASSPHRASE, clock=clock, random=SeededRandom(str(folder)))
    for name in ("one", "two"):
        bootstrap_administrator(node, name, SigningKey.generate(SeededRandom(name)).public)
    make_set(Exchange(node), "found", drafts(60))
    return node


def for_how_long(fixture_name: str, config: pytest.Config) -> Any:
    """A server's databases end with each test."""
    return "function" if on_postgresql() else "module"


@pytest.fixture(scope=for_how_long)
def made(tmp_path_factory: pytest.TempPathFactory, clock: FakeClock) -> tuple[Node, Path]:
    """A gateway that knows a partner, and a backup of it; neither is changed."""
    folder = tmp_path_factory.mktemp("made")
    node = founded(folder / "xa", clock)
    enrol(node, export_card(make_node(folder, "XB-NCVI", clock=clock)))
    backup.create(node, folder / "xa.age", [OFFLINE.public])
    return node, folder / "xa.age"


@pytest.fixture
def node(made: tuple[Node, Path]) -> Node:
    return made[0]


@pytest.fixture
def file(made: tuple[Node, Path]) -> Path:
    return made[1]


def opened(file: Path, **changed: Any) -> Opened:
    return replace(Opened(file, OFFLINE, PASSPHRASE), **changed)


def payload(file: Path) -> bytes:
    with file.open("rb") as source:
        return age.open_stream([OFFLINE], source).read()


def resealed(file: Path, raw: bytes) -> Path:
    """Another backup with this content: whoever knows the recipient can seal one."""
    with file.open("wb") as sink:
        age.encrypt([OFFLINE.public], BytesIO(raw), sink)
    return file


def refusal(function: Callable[[], object]) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        function()
    return caught.value


# What it holds


def test_a_backup_says_whose_it_is_and_what_is_in_it(node: Node, file: Path) -> None:
    inside = backup.verify(opened(file))
    assert (inside.agency, inside.name, inside.card) == (XA, "Unit of XA", own_card(node))
    assert (inside.administrators, inside.quorum, inside.partners) == (2, 2, 1)
    assert [(one.name, one.entries, one.epoch) for one in inside.sets] == [(f"{XA}/found", 60, 1)]
    assert inside.blocks == 1
    created = events(node, EventKind.BACKUP_CREATED)[0].details
    assert (inside.origin, inside.log_size) == (created["origin"], created["log_size"])
    assert created["digest"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert (created["size"], created["recipients"]) == (file.stat().st_size, [OFFLINE.public.key_id])


def test_only_the_owner_reads_a_backup_and_nothing_else_is_left_beside_it(node: Node, file: Path) -> None:
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert sorted(path.name for path in file.parent.iterdir()) == ["XB-NCVI", "xa", "xa.age"]
    assert not list(node.settings.folder.glob(".snapshot*"))


def test_no_decryption_key_and_no_open_secret_is_in_it(node: Node, file: Path) -> None:
    raw, box = payload(file), b""
    for kind, content in Reader(BytesIO(raw)).frames():
        box = content if kind == backupfile.KEYSTORE else box
    _, secret = keystore_opened(box)
    for held in node.keystore.held_opening_keys:
        for form in (held.key.seed, held.key.seed.hex().encode(), held.key.to_identity().encode()):
            assert form not in raw
            assert form not in secret
    signing = node.keystore.signing_key.seeds[0]
    assert signing is not None
    assert signing.hex().encode() in secret  # the search would find one
    assert signing.hex().encode() not in raw


def keystore_opened(box: bytes) -> tuple[object, bytes]:
    from gateway.keystore import _BACKUP_LABEL, _opened

    return _opened(box, PASSPHRASE, _BACKUP_LABEL)


def test_large_fingerprints_come_back_and_open(tmp_path: Path, clock: FakeClock) -> None:
    node = founded(tmp_path / "xa", clock)
    raw = bytes(range(256)) * 4_000
    digest = largevalues.keep(node, f"{XA}/found", raw)
    entry = EntryDraft({"tmk_pdqf": digest}, source_ref="video")
    Exchange(node).ledger.import_entries(f"{XA}/found", [entry], actor="tester", form="test")
    backup.create(node, tmp_path / "xa.age", [OFFLINE.public])
    assert raw[:64] not in payload(tmp_path / "xa.age"), "sealed once more inside"
    backup.restore(opened(tmp_path / "xa.age"), tmp_path / "again", clock=clock)
    again = open_home(tmp_path / "again", PASSPHRASE, clock=clock, random=SeededRandom("again"), restored=True)
    with again.store.reading() as tx:
        found_again = largevalues.find(again, tx, tx.sets.get(f"{XA}/found").id or 0, digest)
        assert found_again is not None
        pieces = [largevalues.piece(again, tx, found_again, at) for at in range(found_again.pieces)]
    assert b"".join(pieces) == raw


def test_what_is_true_for_minutes_only_is_left_out(node: Node, file: Path) -> None:
    tables = [
        backupfile.table_of(content)[0]
        for kind, content in Reader(BytesIO(payload(file))).frames()
        if kind == backupfile.TABLE
    ]
    assert {"block_part", "audit_leaf", "partner", "inbox", "meta"} <= set(tables)
    assert not {"access_token", "replay", "feed_head", "log_tail"} & set(tables)


def test_a_backup_made_while_others_import_holds_one_state(tmp_path: Path, clock: FakeClock) -> None:
    node = founded(tmp_path / "xa", clock)
    stop, failed = threading.Event(), list[BaseException]()

    def work() -> None:
        exchange, number = Exchange(node), 0
        try:
            while not stop.is_set():
                number += 1
                entries = drafts(20, first=1000 * number)
                exchange.ledger.import_entries(f"{XA}/found", entries, actor="tester", form="test")
        except BaseException as error:
            failed.append(error)

    worker = threading.Thread(target=work)
    worker.start()
    sizes = []
    try:
        for number in range(3):
            made = backup.create(node, tmp_path / f"{number}.age", [OFFLINE.public])
            sizes.append(made.log_size)
    finally:
        stop.set()
        worker.join()
    assert not failed
    assert sizes == sorted(set(sizes))
    for number, size in enumerate(sizes):
        inside = backup.verify(opened(tmp_path / f"{number}.age"))
        assert inside.log_size == size
        assert inside.sets[0].entries == inside.sets[0].seq  # leaves, blocks and sums of one moment
    assert verify_own_log(node).size > sizes[-1]


async def test_partners_pull_while_a_backup_is_made(tmp_path: Path, clock: FakeClock) -> None:
    node = founded(tmp_path / "xa", clock, **loopback())
    near = make_node(tmp_path, "XB-NCVI", clock=clock)
    enrol(node, export_card(near))
    enrol(near, export_card(node))
    follower = Exchange(near)
    async with serving(Exchange(node)), link_to(node, near) as link:
        made, pulled = await asyncio.gather(
            asyncio.to_thread(backup.create, node, tmp_path / "x.age", [OFFLINE.public]),
            PartnerSync(follower, link, XA).pull(),
        )
    assert [report.changes for report in pulled] == [60]
    assert len(held_entries(follower, f"{XA}/found")) == 60
    assert backup.verify(opened(tmp_path / "x.age")).log_size == made.log_size


def test_memory_does_not_grow_with_the_database(tmp_path: Path, clock: FakeClock) -> None:
    node = founded(tmp_path / "xa", clock)
    big = tmp_path / "big.age"
    part = SeededRandom("part").bytes(1 << 20)

    def rows(first: int) -> tuple[list[BlockRow], list[BlockPart]]:
        numbers = range(first, first + 10)
        one = BlockRow(
            set_id=1, kind="changes", label=1, epoch=1, first_seq=0, last_seq=0, count=1,
            digest=b"", header=b"", wrapped_key=b"",
        )  # fmt: skip
        blocks = [one.model_copy(update={"id": number}) for number in numbers]
        return blocks, [BlockPart(block_id=number, part=1, sealed=part) for number in numbers]

    for batch in range(5):
        with node.store.transaction() as tx:
            tx.blocks.add(*rows(1000 + 10 * batch))
    tracemalloc.start()
    try:
        made = backup.create(node, big, [OFFLINE.public])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert made.size > 50 << 20
    assert peak < 12 << 20


# What is refused


def test_another_key_or_another_passphrase_opens_nothing(file: Path) -> None:
    assert "another key" in refusal(lambda: backup.verify(opened(file, key=OpeningKey.generate()))).message
    assert "passphrase" in refusal(lambda: backup.verify(opened(file, passphrase="another passphrase"))).message


def test_a_file_that_is_exchanged_between_the_two_readings_is_refused(node: Node, file: Path, tmp_path: Path) -> None:
    path, other = tmp_path / "x.age", tmp_path / "other.age"
    path.write_bytes(file.read_bytes())
    backup.create(node, other, [OFFLINE.public])

    def exchange(done: int, total: int) -> None:
        if done == total and other.exists():
            other.replace(path)  # as true as the first, but another

    with pytest.raises(VerificationError, match="changed while it was read"):
        backup.restore(opened(path), tmp_path / "new", clock=FakeClock(), told=exchange)
    assert not (tmp_path / "new").exists()


def test_a_signing_key_that_is_switched_meanwhile_signs_no_backup_of_before(tmp_path: Path, clock: FakeClock) -> None:
    node = founded(tmp_path / "xa", clock)
    old = own_card(node).signing

    def switch(done: int, total: int) -> None:
        if node.keystore.signing_key.public == old:
            with node.store.transaction() as tx:
                key = ownkeys.rotate(tx, node, KeyPurpose.SIGNING, reason="due")
                ownkeys.switch(tx, node, key, reason="in a hurry")

    backup.create(node, tmp_path / "x.age", [OFFLINE.public], told=switch)
    assert node.keystore.signing_key.public != old
    assert backup.verify(opened(tmp_path / "x.age")).card.signing == old
    # The restored gateway signs with the key that its rows and its card name.
    backup.restore(opened(tmp_path / "x.age"), tmp_path / "new", database=database_for_a_restore(), clock=clock)
    restored = resumed(tmp_path / "new", clock)
    assert restored.keystore.signing_key.public == own_card(restored).signing == old
    (statement,) = keyring.own_news(restored).statements
    assert {one.key_id for one in dsse.parse(statement).signatures} == set(old.key_ids)
    restored.store.close()


def database_for_a_restore() -> str:
    return postgres.shared().new_database() if on_postgresql() else ""


def resumed(folder: Path, clock: FakeClock) -> Node:
    """A restored gateway after the ceremony."""
    node = open_home(folder, PASSPHRASE, clock=clock, restored=True)
    desk = approvals(node)
    identifier = desk.propose(*beginning.resume(node), by="one")
    for name in ("one", "two"):
        desk.sign(identifier, PersonalKey(name, SigningKey.generate(SeededRandom(name))))
    node.store.close()
    return open_home(folder, PASSPHRASE, clock=clock)


def test_a_backup_of_another_gateway_is_told_by_its_card(node: Node, file: Path, tmp_path: Path) -> None:
    assert backup.verify(opened(file, card=own_card(node))).agency == XA
    other = make_node(tmp_path, "XC-NCVI", clock=FakeClock())
    assert "another key" in refusal(lambda: backup.verify(opened(file, card=own_card(other)))).message


@pytest.mark.parametrize("at", [0.0, 0.001, 0.3, 0.7, 0.999])
def test_a_backup_that_breaks_off_or_has_one_flipped_bit_is_refused(file: Path, tmp_path: Path, at: float) -> None:
    raw = file.read_bytes()
    cut = int(len(raw) * at)
    for changed in (raw[:cut], raw[:cut] + bytes([raw[cut] ^ 1]) + raw[cut + 1 :], raw + b"more"):
        bad = tmp_path / "bad.age"
        bad.write_bytes(changed)
        with pytest.raises((MalformedError, VerificationError)):
            backup.verify(opened(bad))
        with pytest.raises((MalformedError, VerificationError)):
            backup.restore(opened(bad), tmp_path / "new", clock=FakeClock())
    assert [path.name for path in tmp_path.iterdir()] == ["bad.age"]  # nothing was put anywhere


def test_what_is_sealed_again_with_other_content_is_refused(file: Path, tmp_path: Path) -> None:
    raw = payload(file)
    for changed, fault in (
        (raw.replace(b'"name":"Unit of XA"', b'"name":"Unit of XB"', 1), "changed after"),
        (raw[:-1], "breaks off"),
        (raw + b"R\0\0\0\0", "follows its end"),
        (raw.replace(b"PXBACKUP1", b"PXBACKUP2"), "not one"),
    ):
        bad = resealed(tmp_path / "bad.age", changed)
        with pytest.raises((MalformedError, VerificationError), match=fault):
            backup.verify(opened(bad))


def forged(node: Node, frames: Callable[[Writer], Iterator[bytes]], signer: SigningKey) -> bytes:
    """A backup that says it is the gateway's."""
    writer, card = Writer(), export_card(node)
    head = Head(XA, "Unit of XA", node.clock(), card, "0007")
    pieces = [writer.start(), writer.head(head), *frames(writer)]
    return b"".join([*pieces, writer.end(head, own_card(node).log, 1, signer)])


def nothing_more(_writer: Writer) -> Iterator[bytes]:
    return iter(())


def test_a_backup_signed_by_another_key_than_that_of_its_card_is_refused(node: Node, tmp_path: Path) -> None:
    bad = resealed(tmp_path / "bad.age", forged(node, nothing_more, SigningKey.generate(SeededRandom("thief"))))
    assert isinstance(refusal(lambda: backup.verify(opened(bad))), VerificationError)


@pytest.mark.parametrize(
    "path", ["../escaped", "/etc/escaped", "policies/../../escaped", "keystore.json", "policies/.x"]
)
def test_a_file_that_leads_elsewhere_is_refused(node: Node, tmp_path: Path, path: str) -> None:
    """Even signed: the holder of the gateway's key gets no file onto the machine of whoever looks into a backup."""

    def frames(writer: Writer) -> Iterator[bytes]:
        yield writer.keystore(node.keystore.backup_box())
        yield writer.file(path, b"escaped")

    bad = resealed(tmp_path / "bad.age", forged(node, frames, node.keystore.signing_key))
    with pytest.raises(MalformedError, match="does not belong"):
        backup.restore(opened(bad), tmp_path / "new", clock=FakeClock())
    assert [found.name for found in tmp_path.rglob("*")] == ["bad.age"]


def test_a_backup_is_never_written_over_anything(node: Node, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.write_text("keep me")
    with pytest.raises(ConfigError, match="already there"):
        backup.create(node, taken, [OFFLINE.public])
    # One that appears meanwhile is not written over either.
    appearing = tmp_path / "appearing"
    with pytest.raises(ConfigError, match="already there"):
        backup.create(node, appearing, [OFFLINE.public], told=lambda _done, _all: appearing.touch())
    assert appearing.read_bytes() == b""
    assert taken.read_text() == "keep me"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["appearing", "taken"]


def test_without_an_offline_key_there_is_no_backup(node: Node, tmp_path: Path) -> None:
    error = refusal(lambda: backup.create(node, tmp_path / "x.age"))
    assert isinstance(error, ConfigError)
    assert "backup key" in error.remedy


def test_a_backup_of_a_log_that_was_altered_is_found_out_when_it_is_verified(tmp_path: Path, clock: FakeClock) -> None:
    node = founded(tmp_path / "xa", clock)
    with node.store.transaction() as tx:
        tx.connection.exec_driver_sql("DELETE FROM audit_leaf WHERE idx = 2")
    backup.create(node, tmp_path / "x.age", [OFFLINE.public])
    with pytest.raises(AuditBrokenError) as caught:
        backup.verify(opened(tmp_path / "x.age"))
    assert caught.value.index == 2


def test_a_block_that_was_spoilt_before_is_found_out_when_it_is_verified(tmp_path: Path, clock: FakeClock) -> None:
    node = founded(tmp_path / "xa", clock)
    with node.store.transaction() as tx:
        row = tx.blocks.of_set(1)[0]
        parts = tx.blocks.parts(row.id or 0)
        group, sealed = sorted(parts.items())[-1]
        spoilt = sealed[:-1] + bytes([sealed[-1] ^ 1])
        tx.blocks.drop(1, [row.id or 0])
        tx.blocks.add(
            [row], [BlockPart(block_id=row.id or 0, part=p, sealed=s) for p, s in {**parts, group: spoilt}.items()]
        )
    backup.create(node, tmp_path / "x.age", [OFFLINE.public])
    with pytest.raises(AuditBrokenError, match="block"):
        backup.verify(opened(tmp_path / "x.age"))


# Restoring


def contents(node: Node) -> dict[str, list[Any]]:
    """Every row that a backup carries, table by table."""
    from gateway.store.copying import read_tables

    with node.store.reading() as tx:
        return {
            table.name: sorted(repr(tuple(row)) for rows in table.batches for row in rows)
            for table in read_tables(tx.connection)
        }


def test_a_restored_folder_holds_what_was_backed_up_and_other_decryption_keys(
    node: Node, file: Path, tmp_path: Path
) -> None:
    later = FakeClock(node.clock() + 86_400)
    backup.restore(opened(file), tmp_path / "new", clock=later)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in [tmp_path / "new", *(tmp_path / "new").rglob("*")]}
    assert [path for path, mode in modes.items() if mode & 0o077 and "logs" not in path.parts] == []
    restored = open_home(tmp_path / "new", PASSPHRASE, clock=later, restored=True)
    assert restored.keystore.signing_key.public == node.keystore.signing_key.public
    assert restored.keystore.held_opening_keys[0].created == later()
    assert not {one.key_id for one in restored.keystore.held_opening_keys} & {
        one.key_id for one in node.keystore.held_opening_keys
    }
    assert restored.policy.digest == node.policy.digest
    exchange = Exchange(restored)
    assert held_entries(exchange, f"{XA}/found") == held_entries(Exchange(node), f"{XA}/found")
    assert (tmp_path / "new" / "logs" / "1" / "log.vkey").exists()
    assert events(restored, EventKind.BACKUP_RESTORED)[0].details["created"] == node.clock()


@pytest.mark.parametrize("kind", ["folder", "database"])
def test_nothing_that_exists_is_restored_over(node: Node, file: Path, tmp_path: Path, kind: str) -> None:
    new = tmp_path / "new"
    if kind == "folder":
        new.mkdir()
        (new / "letter.txt").write_text("keep me")
        with pytest.raises(ConfigError, match="not empty"):
            backup.restore(opened(file), new, clock=FakeClock())
        assert (new / "letter.txt").read_text() == "keep me"
    else:
        taken = founded(tmp_path / "taken", FakeClock())
        before = contents(taken)
        with pytest.raises(ConflictError, match="not empty"):
            backup.restore(opened(file), new, database=taken.settings.database_url, clock=FakeClock())
        assert contents(taken) == before
        assert not new.exists()


def test_the_database_of_the_environment_stands_over_the_settings_and_is_not_written_down(
    file: Path, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'elsewhere.db'}"
    backup.restore(opened(file), tmp_path / "new", clock=FakeClock(), environ={"GATEWAY_DATABASE_URL": url})
    assert (tmp_path / "elsewhere.db").exists()
    assert not (tmp_path / "new" / "gateway.db").exists()
    assert url not in (tmp_path / "new" / "gateway.toml").read_text()


@pytest.mark.parametrize(("source", "target"), [("sqlite", "postgresql"), ("postgresql", "sqlite")])
def test_a_backup_of_one_kind_of_database_is_restored_into_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, target: str
) -> None:
    clock = FakeClock()
    monkeypatch.setenv("GATEWAY_TEST_DATABASE", source)
    node = founded(tmp_path / "xa", clock)
    file = tmp_path / "x.age"
    backup.create(node, file, [OFFLINE.public])
    before = contents(node)
    database = postgres.shared().new_database() if target == "postgresql" else ""
    backup.restore(opened(file), tmp_path / "new", database=database, clock=clock)
    restored = open_home(tmp_path / "new", PASSPHRASE, clock=clock, restored=True)
    after = contents(restored)
    logged = {"audit_leaf", "audit_node", "audit_checkpoint", "pause", "meta"}
    assert {name: rows for name, rows in after.items() if name not in logged} == {
        name: rows for name, rows in before.items() if name not in logged
    }
    # The ceremony empties the log and begins another.
    restored.store.close()
    restored = resumed(tmp_path / "new", clock)
    with restored.store.reading() as tx:
        assert own_log(restored, tx).name.endswith("/log/2")
    assert verify_own_log(restored).size > 5
    # What the database numbers itself goes on after what came with its numbers.
    exchange = Exchange(restored)
    with restored.store.transaction() as tx:
        highest = max(one.id or 0 for one in tx.sets.all())
    exchange.ledger.create_set(f"{XA}/more", "victim_identification", exchange_defaults(node), "tester")
    with restored.store.reading() as tx:
        assert tx.sets.get(f"{XA}/more").id == highest + 1
    restored.store.close()


def exchange_defaults(node: Node) -> Any:
    from gateway.exchange.labels import SetDefaults

    with node.store.reading() as tx:
        return SetDefaults.from_json(tx.sets.get(f"{XA}/found").defaults)


# The offline key


def test_a_plain_offline_key_is_an_identity_file_of_age(tmp_path: Path) -> None:
    public = create_offline(tmp_path / "key", None)
    lines = (tmp_path / "key").read_text().splitlines()
    assert lines[0] == f"# public key: {public}"
    assert lines[1].startswith("AGE-SECRET-KEY-PQ-1")
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    assert open_offline(tmp_path / "key", lambda: pytest.fail("it needs none")).public == public


def test_an_offline_key_under_a_passphrase_opens_with_it_alone(tmp_path: Path) -> None:
    public = create_offline(tmp_path / "key", "a passphrase for it", cost=CHEAP)
    assert b"AGE-SECRET" not in (tmp_path / "key").read_bytes()
    assert open_offline(tmp_path / "key", lambda: "a passphrase for it").public == public
    with pytest.raises(ConfigError, match="passphrase"):
        open_offline(tmp_path / "key", lambda: "another passphrase")
    with pytest.raises(ConfigError, match="already there"):
        create_offline(tmp_path / "key", None)


def test_what_is_no_offline_key_is_refused(tmp_path: Path) -> None:
    for text in ("", "hello\n", "AGE-SECRET-KEY-1QQQQ\n", "# public key\n"):
        path = tmp_path / "key"
        path.write_text(text)
        path.chmod(0o600)
        with pytest.raises(ConfigError, match="offline key"):
            open_offline(path, lambda: "")


def test_the_keystore_of_a_backup_opens_as_no_keystore(node: Node, tmp_path: Path) -> None:
    path = tmp_path / "keystore.json"
    path.write_bytes(node.keystore.backup_box())
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="not a key file of this kind"):
        Keystore.open(path, PASSPHRASE)


# The bytes


def test_rows_come_back_as_they_were() -> None:
    rows: Sequence[tuple[object, ...]] = [
        (1, "eins", b"\0\xff", None, True, None),
        (-(2**63), "", b"", "x", False, None),
        (2**63 - 1, "zwei ☃", b"y" * 300, None, True, None),
    ]
    assert parse_rows(dump_rows(rows), 6) == [tuple(row) for row in rows]


def test_a_column_of_two_types_was_written_by_somebody_else() -> None:
    with pytest.raises(MalformedError, match="several types"):
        dump_rows([(1,), ("one",)])


def test_rows_that_break_off_at_any_byte_are_refused() -> None:
    raw = dump_rows([(1, "one", b"octets", None), (2, "two", b"", None)])
    for end in range(len(raw)):
        with pytest.raises(MalformedError):
            parse_rows(raw[:end], 4)
    with pytest.raises(MalformedError):
        parse_rows(raw + b"\0", 4)


def test_the_signed_end_names_every_byte_before_it(file: Path) -> None:
    raw = payload(file)
    reader = Reader(io.BytesIO(raw))
    content = [content for _, content in reader.frames()][-1]
    end = canonical.parse_json(dsse.parse(content).unverified_payload, max_bytes=1 << 20)
    assert isinstance(end, dict)
    assert end["length"] == reader.length
    assert hashlib.sha256(raw[: reader.length]).hexdigest() == end["sha256"] == reader.digest
