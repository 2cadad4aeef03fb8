"""Backups: one consistent state of a gateway in one file, for nobody but the holder of a key that is kept elsewhere.

    create     while the gateway serves and imports: database, keystore, settings, policies, administrators' sealed keys
    verify     opens it elsewhere: both signatures, every piece, the whole log, who is an administrator, every block
    restore    into an empty folder; the gateway then waits for its restore statement (`beginning`)

Rules:

1. The file is an age file for the offline keys of the settings, and the gateway's signing key signs every byte of it
   (`backupfile`). It is written under another name, synced, and put in place in one step, never over another file.
2. No decryption key is in it. What partners sealed for this gateway, and anybody recorded, stays closed to whoever
   gets hold of a backup and of everything that opens it; a restored gateway makes new keys.
3. The database is read as one state, and the keystore after it. So the keystore may know a key that the rows do not
   name yet, which `ownkeys.reconcile` drops, and never the other way round.
4. It is rows, not a database file: a backup of a SQLite gateway is restored into PostgreSQL as well, and the reverse.
5. Two things open it: an offline key, and the passphrase that the gateway had when it was made.
6. Whose it is, is said by the identity card in it. Whoever knows the offline key's public half can write a backup of a
   gateway that never was; so compare the fingerprint, or give the card.

Left out, because they are true at one place and for minutes: access tokens, `jti` values, feed heads. So are files that
the settings only name: TLS keys, a token's PIN, the alarm command.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from gateway import backupfile, ownkeys, standing
from gateway.audit import EventKind
from gateway.backupfile import FILE, KEYSTORE, ROWS, TABLE, Head, Reader, Verified, Writer
from gateway.beginning import PAUSED_BY
from gateway.columns.rows import EXISTENCE
from gateway.config import DATABASE_URL, MAX_SETTINGS_BYTES, SETTINGS_FILE, Settings, dump_settings, load_settings
from gateway.crypto import age
from gateway.crypto.keys import SYSTEM_RANDOM, OpeningKey, Random, SealingKey, SigningKey
from gateway.errors import AuditBrokenError, ConfigError, ConflictError, MalformedError, VerificationError
from gateway.exchange.shelf import Shelf
from gateway.home import ADMINISTRATORS, NAME_META, assemble, put_in_place, system_clock
from gateway.interchange import IdentityCard, parse_card
from gateway.keystore import Keystore
from gateway.logcheck import verify_own_log
from gateway.logexport import export_log
from gateway.model import require
from gateway.newfile import Pulled, new_file
from gateway.node import Clock, Node, own_log
from gateway.store import NEWEST_REVISION, Transaction
from gateway.store.copying import TableRows, read_tables
from gateway.store.people import EVERYTHING

LOGS = "logs"  # the folder of logs that ended with a restore, by their number
MAX_FILE_BYTES = 256 << 10  # a policy file; a sealed key has 20 KB
MAX_FILES = 4_096
_PATH = re.compile(
    r"gateway\.toml|administrators/[a-z0-9._-]{1,64}\.json|policies(?:/[A-Za-z0-9_][A-Za-z0-9._-]{0,127}){1,4}"
)
_READ_BYTES = 1 << 20

Told = Callable[[int, int], None]


def _quiet(_done: int, _total: int) -> None:
    """Nobody watches."""


@dataclass(frozen=True, slots=True)
class Created:
    """A backup that was made. `digest`: SHA-256 (hex) of the file; `origin`, `log_size`: of the log in it."""

    size: int
    digest: str
    origin: str
    log_size: int


@dataclass(frozen=True, slots=True)
class SetInside:
    """A set in a backup. `hub` is empty for one of the agency's own."""

    name: str
    hub: str
    epoch: int
    seq: int
    entries: int


@dataclass(frozen=True, slots=True)
class Inside:
    """What a backup holds, all of it proved."""

    agency: str
    name: str
    created: int
    card: IdentityCard
    origin: str
    log_size: int
    revision: str
    administrators: int
    quorum: int
    partners: int
    blocks: int
    sets: tuple[SetInside, ...]


@dataclass(frozen=True, slots=True)
class Opened:
    """What opens a backup: the file, an offline key, and the gateway's passphrase of that time.

    `card`: whose it must be, where that is known.
    """

    path: Path
    key: OpeningKey
    passphrase: str
    card: IdentityCard | None = None


# Making one


def create(node: Node, path: Path, recipients: Sequence[SealingKey] = (), *, told: Told = _quiet) -> Created:
    """The gateway as it is now is in the file `path`, sealed for `recipients`, and that is on record.

    Args:
        recipients: () for those of the settings.
        told: told (bytes read of the gateway, 0) on the way.

    Raises:
        ConfigError: no recipient, a file is already there, or it cannot be written.
    """
    keys = tuple(recipients) or node.settings.sealing_keys
    if not keys:
        raise ConfigError(
            "there is no offline key to seal a backup for",
            place="backup_recipients",
            remedy="make one with `gateway backup key`, and put what it prints into the settings",
        )
    ownkeys.issued_card(node)  # the card says who signed
    writer = Writer()
    # 1. One state of the database, for as long as it is read; all of it sealed and written as it is read.
    with new_file(path, "backup") as sink, node.store.snapshot(node.settings.folder) as tx:
        origin, log_size = own_log(node, tx).name, tx.log.size()
        age.encrypt(keys, Pulled(_pieces(node, tx, writer), told), sink, node.random)
    made = Created(sink.size, sink.digest, origin, log_size)
    # 2. On record. A crash before this line leaves a backup that the log does not tell of, and that is as good.
    details: dict[str, object] = {
        "size": made.size,
        "digest": made.digest,
        "origin": origin,
        "log_size": log_size,
        "recipients": [key.key_id for key in keys],
    }
    event = node.event(EventKind.BACKUP_CREATED, actor=node.agency, subject=node.agency, details=details)
    with node.store.transaction() as tx:
        tx.log.append([event])
    return made


def _pieces(node: Node, tx: Transaction, writer: Writer) -> Iterator[bytes]:
    newest = tx.keys.card()
    if newest is None:
        raise AuditBrokenError("the database has lost this gateway's identity card")
    name = tx.people.meta(NAME_META) or node.agency
    head = Head(node.agency, name, node.clock(), newest.card.encode(), NEWEST_REVISION)
    yield writer.start()
    yield writer.head(head)
    yield writer.keystore(node.keystore.backup_box(node.random))
    for path, content in _files(node.settings):
        yield writer.file(path, content)
    for table in read_tables(tx.connection):
        yield writer.table(table.name, table.columns)
        for rows in table.batches:
            yield writer.rows(rows)
    log = str(own_log(node, tx).verifier)
    yield writer.end(head, log, tx.log.size(), _signer(node, newest.card.encode()))


def _signer(node: Node, card: bytes) -> SigningKey:
    """The key that the card names: another may have come into use since the database was read."""
    named = parse_card(card).signing
    for held in node.keystore.held_signing_keys:
        if held.key.public == named:
            return held.key
    raise ConflictError("the signing key was destroyed while the backup was made", remedy="make another backup")


def _files(settings: Settings) -> Iterator[tuple[str, bytes]]:
    """Settings, policies and administrators' sealed keys. What is kept elsewhere is not ours to copy."""
    inside = replace(settings, database="gateway.db", keystore="keystore.json", policies="policies")
    yield SETTINGS_FILE, dump_settings(inside).encode()
    for folder, name in ((settings.policies_folder, "policies"), (settings.folder / ADMINISTRATORS, ADMINISTRATORS)):
        for path in sorted(folder.rglob("*")):
            relative = f"{name}/{path.relative_to(folder).as_posix()}"
            if not path.is_symlink() and path.is_file() and _PATH.fullmatch(relative):
                yield relative, _content(path, relative)


def _content(path: Path, name: str) -> bytes:
    try:
        with path.open("rb") as source:
            raw = source.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"a file cannot be read: {error.strerror}", place=name) from error
    if len(raw) > MAX_FILE_BYTES:
        raise ConfigError(f"a file is larger than {MAX_FILE_BYTES} bytes", place=name)
    return raw


# Opening one


def verify(opened: Opened, *, random: Random = SYSTEM_RANDOM, told: Told = _quiet) -> Inside:
    """What a backup holds, once everything in it is proved. It needs nothing of the gateway that made it.

    Args:
        told: told (bytes read of the file, bytes in all) on the way; the file is read twice.

    Raises:
        MalformedError, VerificationError: it is not whole, was changed, is sealed for another key or of another card.
        ConfigError: the passphrase does not open its keystore, or a newer version of this program made it.
        AuditBrokenError: what was backed up does not prove what it claims.
    """
    verified, _ = _verified(opened, told)
    with tempfile.TemporaryDirectory(prefix="gateway-backup-") as name:
        unpacking = _unpacked(opened, verified, Path(name), clock=system_clock, random=random, told=told)
        with unpacking as node:
            return _proved(node, verified)


def restore(
    opened: Opened,
    folder: Path,
    *,
    database: str = "",
    clock: Clock = system_clock,
    random: Random = SYSTEM_RANDOM,
    told: Told = _quiet,
    environ: Mapping[str, str] = os.environ,
) -> Inside:
    """The backup is in a data folder of its own, proved, paused, and waits for its restore statement.

    Args:
        folder: a new one, or an empty one.
        database: an empty one, for the settings; "" for a file in the folder. GATEWAY_DATABASE_URL stands over it, as
            ever, and is not written down.
        told: as `verify`.

    Raises:
        ConflictError: the database holds something.
        Others as `verify`; ConfigError also where the folder holds something.
    """
    verified, digest = _verified(opened, told)
    with put_in_place(folder) as draft:
        unpacking = _unpacked(
            opened, verified, draft, database=database, clock=clock, random=random, told=told, environ=environ
        )
        with unpacking as node:
            # 1. What is restored is proved first.
            inside = _proved(node, verified)
            # 2. Its log, as files: partners hold it to its word, and it ends here.
            number = node.keystore.log_numbers[0]
            export_log(node, draft / LOGS / str(number))
            # 3. Nothing moves until administrators have signed. The keystore first: with the key of the next log in it,
            #    no command opens this gateway for anything else.
            node.keystore.add_log_key(random=random)
            _settle(node, verified, digest)
    return inside


def _settle(node: Node, verified: Verified, digest: str) -> None:
    details: dict[str, object] = {
        "created": verified.head.created,
        "digest": digest,
        "origin": verified.end.log.partition("+")[0],
        "log_size": verified.end.log_size,
    }
    event = node.event(EventKind.BACKUP_RESTORED, actor=node.agency, subject=node.agency, details=details)
    with node.store.transaction() as tx:
        tx.log.append([event])
        tx.people.pause(EVERYTHING, PAUSED_BY, node.clock())
        tx.schedule.release_all()


def _verified(opened: Opened, told: Told) -> tuple[Verified, str]:
    """The signed head and end, and the SHA-256 (hex) of the file."""
    with _Counted(opened.path, told) as source:
        verified = backupfile.verify(age.open_stream([opened.key], source))
        digest = source.digest
    if opened.card is not None and opened.card.signing != verified.card.signing:
        raise VerificationError("backup: signed by another key than that of the identity card given")
    return verified, digest


@contextmanager
def _unpacked(
    opened: Opened,
    verified: Verified,
    folder: Path,
    *,
    clock: Clock,
    random: Random,
    told: Told,
    database: str = "",
    environ: Mapping[str, str] | None = None,
) -> Iterator[Node]:
    """A node over what the backup holds, in `folder`; its log and rows are not proved yet."""
    with _Counted(opened.path, told) as source:
        reader = Reader(age.open_stream([opened.key], source))
        unpacking = _Unpacking(reader)
        # 1. Keys, settings, policies.
        keystore_box = unpacking.files(folder)
        if database:
            chosen = replace(load_settings(folder, environ={}), database=database)
            (folder / SETTINGS_FILE).write_text(dump_settings(chosen), encoding="utf-8")
        settings = load_settings(folder, environ=environ or {})
        (folder / ADMINISTRATORS).mkdir(mode=0o700, exist_ok=True)
        if DATABASE_URL.fullmatch(settings.database) is None:
            settings.path_of(settings.database).touch(mode=0o600)
        keystore = Keystore.from_backup(
            settings.keystore_path, keystore_box, opened.passphrase, now=clock(), random=random
        )
        node = assemble(settings, keystore, clock, random)
        try:
            # 2. The database.
            node.store.load(verified.head.revision, unpacking.tables())
            # 3. The file is the one that was verified, whatever happened to it since.
            same = (reader.digest, reader.length) == (verified.end.sha256, verified.end.length)
            counted = (unpacking.file_count, unpacking.row_counts) == (verified.end.files, dict(verified.end.rows))
            if not (same and counted):
                raise VerificationError("backup: it was changed while it was read")
            yield node
        finally:
            node.store.close()


def _proved(node: Node, verified: Verified) -> Inside:
    report = verify_own_log(node)
    shelf = Shelf(node.keystore.master_key, node.random)
    with node.store.reading() as tx:
        log = own_log(node, tx).verifier
        if (str(log), report.size) != (verified.end.log, verified.end.log_size):
            raise AuditBrokenError("the audit log in the backup is not the one that it names")
        found = standing.check(tx, node)
        blocks, sets = 0, []
        for one in tx.sets.all():
            assert one.id is not None, "it was stored"
            rows = tx.blocks.of_set(one.id)
            blocks += sum(1 for _ in shelf.get_all(tx, rows))  # opened, and compared with its header
            counts = (raw for (_, part), raw in tx.sets.sums(one.id).items() if part == EXISTENCE)
            entries = sum(int.from_bytes(raw[:8], "little") for raw in counts)
            sets.append(SetInside(one.name, one.hub, one.epoch, one.seq, entries))
    head = verified.head
    return Inside(
        agency=head.agency,
        name=head.name,
        created=head.created,
        card=verified.card,
        origin=log.name,
        log_size=report.size,
        revision=head.revision,
        administrators=found.administrators,
        quorum=found.quorum,
        partners=found.partners,
        blocks=blocks,
        sets=tuple(sets),
    )


class _Unpacking:
    """The frames of a backup as files and tables, in the order in which they come."""

    def __init__(self, reader: Reader) -> None:
        self._frames = reader.frames()
        self._next = next(self._frames)
        self.file_count = 0
        self.row_counts: dict[str, int] = {}

    def files(self, folder: Path) -> bytes:
        """Write every file; returns the keystore's box."""
        box = b""
        while self._next[0] not in (TABLE, backupfile.END):
            kind, content = self._next
            if kind == KEYSTORE:
                box = content
            elif kind == FILE:
                self._write(folder, *backupfile.file_of(content))
            self._advance()
        require(box, "backup: there is no keystore in it")
        return box

    def _write(self, folder: Path, path: str, content: bytes) -> None:
        most = MAX_SETTINGS_BYTES if path == SETTINGS_FILE else MAX_FILE_BYTES
        require(_PATH.fullmatch(path) and len(content) <= most, "backup: a file that does not belong into it")
        self.file_count += 1
        require(self.file_count <= MAX_FILES, "backup: too many files")
        for parent in reversed(Path(path).parents):
            (folder / parent).mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(folder / path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)

    def tables(self) -> Iterator[TableRows]:
        """Every table; its rows are read before the next is asked for."""
        while self._next[0] == TABLE:
            name, columns = backupfile.table_of(self._next[1])
            require(name not in self.row_counts, "backup: a table stands twice")
            self.row_counts[name] = 0
            self._advance()
            yield TableRows(name, columns, self._rows(name, len(columns)))
        require(self._next[0] == backupfile.END, "backup: something stands between its tables and its end")
        for _ in self._frames:  # nothing follows
            raise MalformedError("backup: something follows its end")

    def _rows(self, name: str, columns: int) -> Iterator[Sequence[Sequence[object]]]:
        while self._next[0] == ROWS:
            rows = backupfile.parse_rows(self._next[1], columns)
            self.row_counts[name] += len(rows)
            yield rows
            self._advance()

    def _advance(self) -> None:
        self._next = next(self._frames)


class _Counted:
    """A backup's file, hashed as it is read."""

    def __init__(self, path: Path, told: Told) -> None:
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise ConfigError(f"the backup cannot be read: {error.strerror}") from error
        self._size = os.fstat(self._file.fileno()).st_size
        self._hash = hashlib.sha256()
        self._done = 0
        self._told = told

    @property
    def digest(self) -> str:
        """SHA-256 of what was read, hex."""
        return self._hash.hexdigest()

    def read(self, count: int, /) -> bytes:
        """At most `count` bytes; none at the end."""
        raw = self._file.read(min(count, _READ_BYTES))
        self._hash.update(raw)
        self._done += len(raw)
        self._told(self._done, self._size)
        return raw

    def __enter__(self) -> _Counted:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
