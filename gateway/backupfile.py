"""The bytes of a backup: frames in an age file, with a signature over all of them at its end (contracts/backup-1.md).

    age plaintext = "PXBACKUP1\\n" ‖ frame ‖ frame ‖ …
    frame         = kind (1 byte) ‖ length (u32 big-endian) ‖ content

    H  head       canonical JSON: whose backup, when, its identity card, the revision of the schema
    K  keystore   a passphrase box: every private key but those that open what partners send
    F  file       u16 length of its path ‖ path ‖ content: settings, policies, administrators' sealed keys
    T  table      canonical JSON: its name and its columns; the rows that follow are of it
    R  rows       column by column (`dump_rows`)
    E  end        a DSSE over the SHA-256 and the length of everything before it, and what a reader must find there

The signature stands at the end, so that a database of any size is written in one pass and constant memory. So a file is
read twice: first the signature is verified over all of it, then it is parsed, and hashed again on the way.
"""

from __future__ import annotations

import hashlib
import struct
import sys
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from gateway.crypto import canonical, dsse
from gateway.crypto.age import Source
from gateway.crypto.keys import SigningKey
from gateway.errors import MalformedError, TooLargeError, VerificationError
from gateway.interchange import MAX_CARD_BYTES, IdentityCard, parse_card
from gateway.model import int_member, require, text_member, texts_member

MAGIC = b"PXBACKUP1\n"
VERSION = "backup 1"
END_TYPE = "application/vnd.partner-exchange.backup+1"
HEAD, KEYSTORE, FILE, TABLE, ROWS, END = b"H", b"K", b"F", b"T", b"R", b"E"
KINDS = (HEAD, KEYSTORE, FILE, TABLE, ROWS, END)
MAX_FRAME_BYTES = 320 << 20  # rows come in about 1 MiB; one sealed part of a block has 256 MiB at most
MAX_HEAD_BYTES = 2 * MAX_CARD_BYTES
MAX_PATH_BYTES = 1024
_FRAME = struct.Struct(">cI")
_PATH = struct.Struct(">H")
_COUNT = struct.Struct(">I")
_INTEGERS, _TEXTS, _OCTETS, _NOTHING = b"i", b"t", b"b", b"n"


@dataclass(frozen=True, slots=True)
class Head:
    """What a backup says of itself before its signature is read. `created`: Unix seconds."""

    agency: str
    name: str
    created: int
    card: bytes
    revision: str

    def dump(self) -> bytes:
        """Canonical JSON."""
        members = {"agency": self.agency, "name": self.name, "created": self.created, "revision": self.revision}
        return canonical.encode({"backup": VERSION, "card": self.card.decode(), **members})

    @classmethod
    def parse(cls, raw: bytes) -> Head:
        """What `dump` wrote."""
        value = _object(raw, {"backup", "agency", "name", "created", "card", "revision"}, MAX_HEAD_BYTES)
        agency, name, card, revision = (text_member(value, one) for one in ("agency", "name", "card", "revision"))
        return cls(agency, name, int_member(value, "created"), card.encode(), revision)


@dataclass(frozen=True, slots=True)
class End:
    """What is signed: everything before it, and what a reader finds there.

    `log` is the verifier string of the audit log, of `log_size` leaves; `rows` counts those of each table.
    """

    agency: str
    created: int
    sha256: str
    length: int
    log: str
    log_size: int
    files: int
    rows: Mapping[str, int]

    def dump(self) -> bytes:
        """The canonical JSON that is signed."""
        return canonical.encode(
            {
                "backup": VERSION,
                "agency": self.agency,
                "created": self.created,
                "sha256": self.sha256,
                "length": self.length,
                "log": self.log,
                "log_size": self.log_size,
                "files": self.files,
                "rows": dict(self.rows),
            }
        )

    @classmethod
    def parse(cls, raw: bytes) -> End:
        """What `dump` wrote."""
        names = {"backup", "agency", "created", "sha256", "length", "log", "log_size", "files", "rows"}
        value = _object(raw, names, MAX_HEAD_BYTES)
        rows = value["rows"]
        if not isinstance(rows, dict):
            raise MalformedError("backup: its tables are not counted")
        return cls(
            text_member(value, "agency"),
            int_member(value, "created"),
            text_member(value, "sha256"),
            int_member(value, "length"),
            text_member(value, "log"),
            int_member(value, "log_size"),
            int_member(value, "files"),
            {name: int_member(dict(rows), name) for name in rows},
        )


class Writer:
    """Turns contents into frames, and keeps account of them for the end."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._length = 0
        self._files = 0
        self._rows: dict[str, int] = {}
        self._table = ""

    def start(self) -> bytes:
        """What every backup begins with."""
        return self._counted(MAGIC)

    def head(self, head: Head) -> bytes:
        """The head's frame."""
        return self._frame(HEAD, head.dump())

    def keystore(self, box: bytes) -> bytes:
        """The keystore's frame."""
        return self._frame(KEYSTORE, box)

    def file(self, path: str, content: bytes) -> bytes:
        """A file's frame; the path is relative, with slashes."""
        self._files += 1
        raw = path.encode()
        require(len(raw) <= MAX_PATH_BYTES, "backup: the path of a file is too long")
        return self._frame(FILE, _PATH.pack(len(raw)) + raw + content)

    def table(self, name: str, columns: Sequence[str]) -> bytes:
        """The frame that rows of a table follow."""
        self._table, self._rows[name] = name, 0
        return self._frame(TABLE, canonical.encode({"table": name, "columns": list(columns)}))

    def rows(self, rows: Sequence[Sequence[object]]) -> bytes:
        """A frame of rows of the table named last."""
        self._rows[self._table] += len(rows)
        return self._frame(ROWS, dump_rows(rows))

    def end(self, head: Head, log: str, log_size: int, signer: SigningKey) -> bytes:
        """The last frame."""
        digest = self._hash.hexdigest()
        end = End(head.agency, head.created, digest, self._length, log, log_size, self._files, self._rows)
        return self._frame(END, dsse.sign(END_TYPE, end.dump(), signer))

    def _frame(self, kind: bytes, content: bytes) -> bytes:
        require(len(content) <= MAX_FRAME_BYTES, "backup: more in one piece than a backup holds")
        return self._counted(_FRAME.pack(kind, len(content)) + content)

    def _counted(self, raw: bytes) -> bytes:
        self._hash.update(raw)
        self._length += len(raw)
        return raw


class Reader:
    """The frames of a backup, in order; `digest` and `length` are those of all that was read before the last of them.

    Args:
        source: the decrypted stream; it returns fewer bytes than asked for only at its end.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._hash = hashlib.sha256()
        self._read = 0
        self.digest = ""
        self.length = 0

    def frames(self) -> Iterator[tuple[bytes, bytes]]:
        """(kind, content) of each frame up to the end, after which nothing may follow.

        Raises:
            MalformedError: not a backup, or one that breaks off.
        """
        require(self._take(len(MAGIC)) == MAGIC, "backup: not one, or of a version that is not known here")
        kind = b""
        while kind != END:
            self.digest, self.length = self._hash.hexdigest(), self._read
            kind, size = _FRAME.unpack(self._take(_FRAME.size))
            require(kind in KINDS, "backup: a piece of unknown kind")
            if size > MAX_FRAME_BYTES:
                raise TooLargeError("backup: a piece that is too large")
            yield kind, self._take(size)
        require(not self._source.read(1), "backup: something follows its end")

    def _take(self, count: int) -> bytes:
        raw = self._source.read(count)
        require(len(raw) == count, "backup: it breaks off")
        self._hash.update(raw)
        self._read += count
        return raw


@dataclass(frozen=True, slots=True)
class Verified:
    """A backup whose signature holds over every byte of it. `card` names the key that signed it."""

    head: Head
    card: IdentityCard
    end: End


def verify(source: Source) -> Verified:
    """What a backup is, once both signatures of the identity card in it hold over all of it.

    Whose card it is, its fingerprint must say.

    Raises:
        MalformedError: not a backup. VerificationError: it was changed, or signed by another key.
    """
    reader, head, card, end = Reader(source), None, None, None
    for kind, content in reader.frames():
        if head is None:
            require(kind == HEAD, "backup: it does not begin with its head")
            head = Head.parse(content)
            card = parse_card(head.card)
        elif kind == HEAD:
            raise MalformedError("backup: a second head")
        elif kind == END:
            assert card is not None, "it came with the head"
            end = End.parse(dsse.verify(content, card.signing, END_TYPE))
    if head is None or card is None or end is None:
        raise MalformedError("backup: it breaks off")
    if (end.sha256, end.length) != (reader.digest, reader.length):
        raise VerificationError("backup: it was changed after it was signed")
    if (end.agency, end.created) != (head.agency, head.created) or card.agency != head.agency:
        raise VerificationError("backup: its head and its end are not of one backup")
    return Verified(head, card, end)


def file_of(content: bytes) -> tuple[str, bytes]:
    """(path, content) of a file's frame. Where the path leads is for the caller to judge."""
    require(len(content) >= _PATH.size, "backup: a file without a path")
    (length,) = _PATH.unpack(content[: _PATH.size])
    raw, rest = content[_PATH.size : _PATH.size + length], content[_PATH.size + length :]
    require(0 < length <= MAX_PATH_BYTES and len(raw) == length, "backup: a file without a path")
    try:
        return raw.decode(), rest
    except UnicodeDecodeError as error:
        raise MalformedError("backup: the path of a file is not UTF-8") from error


def table_of(content: bytes) -> tuple[str, tuple[str, ...]]:
    """(name, columns) of a table's frame."""
    value = _object(content, {"table", "columns"}, MAX_HEAD_BYTES)
    return text_member(value, "table"), texts_member(value, "columns")


def _object(raw: bytes, names: set[str], max_bytes: int) -> dict[str, object]:
    value: object = canonical.parse_canonical(raw, max_bytes=max_bytes)
    if not isinstance(value, dict) or set(value) != names or value.get("backup", VERSION) != VERSION:
        raise MalformedError("backup: members are not those of backup 1")
    return dict(value)


# Rows


def dump_rows(rows: Sequence[Sequence[object]]) -> bytes:
    """Rows column by column: count (u32), then for each column what it holds, which values are missing, the values.

    Integers are 8 bytes each, little-endian; texts (UTF-8) and octets are all lengths (u32, little-endian), then all
    bytes. A column without any value is `n` alone.
    """
    pieces = [_COUNT.pack(len(rows))]
    for column in zip(*rows, strict=True):
        kinds = set(map(type, column)) - {type(None)}
        missing = bytes([value is None for value in column]) if None in column else b""
        if not kinds:
            pieces.append(_NOTHING)
        elif kinds <= {int, bool}:
            values = [0 if value is None else value for value in column] if missing else column
            pieces += [_INTEGERS, _mask(missing), _little(array("q", values)).tobytes()]
        elif kinds == {str}:
            pieces += [_TEXTS, _mask(missing), *_strings([b"" if one is None else one.encode() for one in column])]
        elif kinds <= {bytes, memoryview}:
            pieces += [_OCTETS, _mask(missing), *_strings([b"" if one is None else bytes(one) for one in column])]
        else:
            raise MalformedError("backup: a column holds values of several types: somebody else wrote it")
    return b"".join(pieces)


def parse_rows(raw: bytes, columns: int) -> list[tuple[object, ...]]:
    """What `dump_rows` wrote of so many columns."""
    cut = _Cut(raw)
    (count,) = _COUNT.unpack(cut.take(_COUNT.size))
    require(count <= len(raw), "backup: more rows than bytes")
    found = [_column(cut, count) for _ in range(columns)]
    require(cut.at == len(raw), "backup: bytes follow the rows")
    return list(zip(*found, strict=True))


def _column(cut: _Cut, count: int) -> Sequence[object]:
    kind = cut.take(1)
    if kind == _NOTHING:
        return [None] * count
    require(kind in (_INTEGERS, _TEXTS, _OCTETS), "backup: a column of unknown kind")
    flag = cut.take(1)
    require(flag in (b"\0", b"\1"), "backup: a column of unknown kind")
    missing = cut.take(count) if flag == b"\1" else b""
    if kind == _INTEGERS:
        values: list[object] = list(_little(array("q", cut.take(8 * count))))
    else:
        lengths = _little(array("I", cut.take(4 * count)))
        octets = [cut.take(length) for length in lengths]
        try:
            values = [one.decode() for one in octets] if kind == _TEXTS else list(octets)
        except UnicodeDecodeError as error:
            raise MalformedError("backup: a text is not UTF-8") from error
    return [None if gone else value for gone, value in zip(missing, values, strict=True)] if missing else values


class _Cut:
    """Bytes, taken from the front."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self.at = 0

    def take(self, count: int) -> bytes:
        taken = self._raw[self.at : self.at + count]
        require(len(taken) == count, "backup: rows break off")
        self.at += count
        return taken


def _mask(missing: bytes) -> bytes:
    return b"\1" + missing if missing else b"\0"


def _strings(values: Sequence[bytes]) -> tuple[bytes, bytes]:
    return _little(array("I", map(len, values))).tobytes(), b"".join(values)


def _little(values: array[int]) -> array[int]:
    if sys.byteorder == "big":
        values.byteswap()
    return values
