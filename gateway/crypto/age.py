"""Sealed files: age v1 (c2sp.org/age) with post-quantum recipients only.

An age file is a header, which wraps a 16-byte file key for each recipient, and a body, which is sealed under it:

    age-encryption.org/v1
    -> mlkem768x25519 <base64 of the 1120-byte encapsulated key>
    <base64 of the wrapped file key, 32 bytes>
    --- <base64 of the HMAC-SHA-256 over all above, up to and with "---">
    <16-byte nonce><64 KiB chunks, each ChaCha20-Poly1305>

The only stanza read or written is `mlkem768x25519`: HPKE base mode (RFC 9180) over X-Wing, HKDF-SHA256 and
ChaCha20-Poly1305. One classical stanza in a header would hand today's traffic to tomorrow's quantum computer, so a
header that holds any other stanza is refused whole. (The specification lets a recipient type forbid mixing.)

Header and body are made apart, so that one body serves many recipients: `Body.seal` once, `Body.header` for each.
Both directions stream in constant memory, whatever the size. `open_stream` releases plaintext chunk by chunk, each one
authenticated; only at its end is it known that nothing is missing.

A refusal names its step in `place`: "header", "recipient stanza", "header MAC" or "payload".
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, hpke
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from gateway.crypto.keys import SYSTEM_RANDOM, OpeningKey, Random, SealingKey
from gateway.errors import ConflictError, GatewayError, MalformedError, TooLargeError, VerificationError
from gateway.model import require

VERSION_LINE = b"age-encryption.org/v1"
STANZA = b"mlkem768x25519"
HPKE_INFO = b"age-encryption.org/mlkem768x25519"

CHUNK_BYTES = 64 * 1024
TAG_BYTES = 16
PIECE_CHUNKS = 16  # chunks read, sealed or opened, and written at once: buffers of 1 MiB, made once for a whole file
FILE_KEY_BYTES = 16
NONCE_BYTES = 16
ENCAPSULATED_BYTES = 1120
WRAPPED_KEY_BYTES = FILE_KEY_BYTES + TAG_BYTES
MAX_HEADER_LINE_BYTES = 4096  # the longest line that we accept has 1,512
MAX_RECIPIENTS = 64  # a stanza costs the opener a decapsulation for each of its keys

_SUITE = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.CHACHA20_POLY1305)


class Source(Protocol):
    """What bytes are read from: any binary stream."""

    def read(self, count: int, /) -> bytes:
        """At most `count` bytes; none at the end."""


class Sink(Protocol):
    """What bytes are written to: any binary stream."""

    def write(self, raw: bytes | memoryview, /) -> object:
        """Take all of `raw`, which is used again once this returns."""


class Body:
    """A file key with the one body that it seals. Never reused: a second body needs a second `Body`.

    Whoever can open a header holds the file key and could seal another body under it for the same recipients. So a body
    proves nothing about its sender; the signature inside must (`envelope.py`).
    """

    __slots__ = ("_file_key", "_nonce", "_sealed")

    def __init__(self, random: Random = SYSTEM_RANDOM) -> None:
        self._file_key: Final = random.bytes(FILE_KEY_BYTES)
        self._nonce: Final = random.bytes(NONCE_BYTES)
        self._sealed = False

    def seal(self, source: Source, sink: Sink) -> int:
        """Write nonce and sealed chunks of all of `source` to `sink`; returns the bytes written."""
        if self._sealed:
            raise ConflictError("age: a file key seals one body only")
        self._sealed = True
        sink.write(self._nonce)
        cipher = ChaCha20Poly1305(_derive(self._file_key, self._nonce, b"payload"))
        written, counter = NONCE_BYTES, 0
        sealed = memoryview(b"")
        for piece, last in _pieces(ExactReader(source), PIECE_CHUNKS * CHUNK_BYTES):
            if not counter:  # no later piece is longer than the first
                sealed = memoryview(bytearray(len(piece) + PIECE_CHUNKS * TAG_BYTES))
            end = 0
            for chunk, is_end in _cut(piece, CHUNK_BYTES):
                start, end = end, end + len(chunk) + TAG_BYTES
                cipher.encrypt_into(_chunk_nonce(counter, last and is_end), chunk, None, sealed[start:end])
                counter += 1
            sink.write(sealed[:end])
            written += end
        return written

    def header(self, *recipients: SealingKey) -> bytes:
        """The age header that opens this body for `recipients`, one stanza each."""
        require(0 < len(recipients) <= MAX_RECIPIENTS, f"age: not between 1 and {MAX_RECIPIENTS} recipients")
        require(len(set(recipients)) == len(recipients), "age: a recipient stands twice")
        stanzas = b"".join(_wrap(self._file_key, recipient) for recipient in recipients)
        start = VERSION_LINE + b"\n" + stanzas + b"---"
        return start + b" " + _base64(_header_mac(self._file_key, start)) + b"\n"

    def __repr__(self) -> str:
        return f"Body(sealed={self._sealed})"


def encrypt(recipients: Sequence[SealingKey], source: Source, sink: Sink, random: Random = SYSTEM_RANDOM) -> None:
    """Write one whole age file for `recipients`: header, then body."""
    body = Body(random)
    sink.write(body.header(*recipients))
    body.seal(source, sink)


class OpenedStream:
    """The plaintext of an age file, read front to back in constant memory. Every byte handed out is authenticated.

    Reading raises VerificationError where a chunk does not open, or where the file ends too early or too late. Until
    `read` has returned b"", it is not known that the file is whole.
    """

    __slots__ = ("_cipher", "_counter", "_end", "_failed", "_pieces", "_plain", "_position")

    def __init__(self, reader: ExactReader, payload_key: bytes) -> None:
        self._pieces = _pieces(reader, PIECE_CHUNKS * (CHUNK_BYTES + TAG_BYTES))
        self._cipher = ChaCha20Poly1305(payload_key)
        self._counter = 0
        self._failed = False
        self._plain = memoryview(b"")
        self._position = self._end = 0  # what is left in `_plain`

    def read(self, count: int = -1, /) -> bytes:
        """Exactly `count` bytes, fewer only at the end; all that is left with -1."""
        pieces: list[bytes] = []
        wanted = count
        while wanted:
            if self._position == self._end and not self._open_piece():
                break
            stop = self._end if wanted < 0 else min(self._position + wanted, self._end)
            pieces.append(bytes(self._plain[self._position : stop]))
            wanted -= stop - self._position if wanted > 0 else 0
            self._position = stop
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _open_piece(self) -> bool:
        """Open as many chunks as there is room for; False at the end. What opened is handed out before a failure is."""
        if self._failed:
            raise _payload_failure()
        piece, last = next(self._pieces, (b"", True))
        if not piece and self._counter:
            return False
        if not self._counter:  # no later piece is longer than the first
            self._plain = memoryview(bytearray(len(piece)))
        self._position = self._end = 0
        for chunk, is_end in _cut(piece, CHUNK_BYTES + TAG_BYTES):
            try:
                self._open_chunk(chunk, last=last and is_end)
            except InvalidTag as error:
                if not self._end:
                    raise _payload_failure() from error
                self._failed = True
                break
        return self._end > 0

    def _open_chunk(self, sealed: memoryview, *, last: bool) -> None:
        size = len(sealed) - TAG_BYTES
        # age: "The final chunk … MUST NOT be empty unless the whole payload is empty."
        if size < 0 or (not size and self._counter):
            raise InvalidTag
        room = self._plain[self._end : self._end + size]
        self._cipher.decrypt_into(_chunk_nonce(self._counter, last), sealed, None, room)
        self._end += size
        self._counter += 1


def open_stream(identities: Sequence[OpeningKey], source: Source) -> OpenedStream:
    """The plaintext stream of the age file in `source`, opened with whichever of `identities` fits.

    Raises:
        MalformedError: the header breaks the grammar, or holds a stanza that is not `mlkem768x25519`.
        VerificationError: sealed for other keys, or a header that was changed, or no body.
    """
    reader = ExactReader(source)
    header = _read_header(reader)
    file_key = _unwrap(header.stanzas, identities)
    if not hmac.compare_digest(_header_mac(file_key, header.start), header.mac):
        raise VerificationError("age: the header was changed", place="header MAC")
    nonce = reader.read(NONCE_BYTES)
    if len(nonce) != NONCE_BYTES:
        raise _payload_failure()
    return OpenedStream(reader, _derive(file_key, nonce, b"payload"))


# Header


@dataclass(frozen=True, slots=True)
class _Stanza:
    encapsulated: bytes
    wrapped: bytes


@dataclass(frozen=True, slots=True)
class _Header:
    stanzas: tuple[_Stanza, ...]
    start: bytes  # what the MAC covers
    mac: bytes


def _read_header(reader: ExactReader) -> _Header:
    """Read up to and with the MAC line, not one byte further."""
    line = reader.line()
    if line != VERSION_LINE:
        raise _header_failure("not an age v1 file")
    start = [line]
    stanzas: list[_Stanza] = []
    while (line := reader.line()).startswith(b"->"):
        if len(stanzas) == MAX_RECIPIENTS:
            raise TooLargeError(f"age: more than {MAX_RECIPIENTS} recipients", place="header")
        body = reader.line()
        # 32 bytes are 43 characters: one line, shorter than 64 columns, so it ends the stanza.
        stanzas.append(_stanza(line, body))
        start += [line, body]
    if not line.startswith(b"--- ") or not stanzas:
        raise _header_failure("no recipient, or a line that belongs to no stanza")
    mac = _parse_base64(line[4:])
    if len(mac) != hashlib.sha256().digest_size:
        raise _header_failure("the MAC is not 32 bytes")
    return _Header(tuple(stanzas), b"\n".join([*start, b"---"]), mac)


def _stanza(line: bytes, body: bytes) -> _Stanza:
    arguments = line.split(b" ")
    if arguments[0] != b"->" or len(arguments) < 2:
        raise _header_failure("a stanza does not follow the grammar")
    if arguments[1] != STANZA:
        raise _header_failure("a recipient that is not post-quantum")
    # age: "MUST otherwise reject any stanza that has more or less than two arguments, or where the second argument is
    # not a canonical base64 encoding of a 1120-byte value" and "MUST check that the body length is exactly 32 bytes".
    if len(arguments) != 3:
        raise _header_failure("a stanza does not follow the grammar")
    encapsulated, wrapped = _parse_base64(arguments[2]), _parse_base64(body)
    if len(encapsulated) != ENCAPSULATED_BYTES or len(wrapped) != WRAPPED_KEY_BYTES:
        raise _header_failure("a stanza of the wrong length")
    return _Stanza(encapsulated, wrapped)


def _wrap(file_key: bytes, recipient: SealingKey) -> bytes:
    """One stanza: HPKE SealBase of the file key."""
    sealed = _SUITE.encrypt(file_key, recipient.public, info=HPKE_INFO)
    encapsulated, wrapped = sealed[:ENCAPSULATED_BYTES], sealed[ENCAPSULATED_BYTES:]
    return b"-> " + STANZA + b" " + _base64(encapsulated) + b"\n" + _base64(wrapped) + b"\n"


def _unwrap(stanzas: Sequence[_Stanza], identities: Sequence[OpeningKey]) -> bytes:
    for stanza in stanzas:
        for identity in identities:
            try:
                return _SUITE.decrypt(stanza.encapsulated + stanza.wrapped, identity.private, info=HPKE_INFO)
            except InvalidTag:
                continue  # for another recipient
    raise VerificationError("age: sealed for another key", place="recipient stanza")


def _header_mac(file_key: bytes, start: bytes) -> bytes:
    return hmac.digest(_derive(file_key, b"", b"header"), start, "sha256")


def _derive(file_key: bytes, salt: bytes, info: bytes) -> bytes:
    return HKDF(hashes.SHA256(), 32, salt, info).derive(file_key)


def _base64(raw: bytes) -> bytes:
    return base64.b64encode(raw).rstrip(b"=")


def _parse_base64(text: bytes) -> bytes:
    """Unpadded standard base64 in its canonical spelling."""
    try:
        raw = base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except ValueError as error:
        raise _header_failure("not base64") from error
    # age: "decoders MUST reject non-canonical encodings and encodings ending with = padding characters".
    if _base64(raw) != text:
        raise _header_failure("base64 is not canonical")
    return raw


# Body


def _chunk_nonce(counter: int, last: bool) -> bytes:
    """11 bytes of big-endian counter, then 1 for the last chunk and 0 for all before."""
    return counter.to_bytes(11, "big") + struct.pack("?", last)


def _pieces(reader: ExactReader, size: int) -> Iterator[tuple[bytes, bool]]:
    """All that is left in pieces of `size`, each with whether it is the last. Nothing at all is one empty piece."""
    piece = reader.read(size)
    while True:
        following = reader.read(size) if len(piece) == size else b""
        yield piece, not following
        if not following:
            return
        piece = following


def _cut(piece: bytes, size: int) -> Iterator[tuple[memoryview, bool]]:
    """A piece in chunks of `size`, each with whether it is the last. An empty piece is one empty chunk."""
    view = memoryview(piece)
    for start in range(0, len(piece) or 1, size):
        yield view[start : start + size], start + size >= len(piece)


class ExactReader:
    """Exact reads, and lines, over a stream whose `read` may return less than asked for."""

    __slots__ = ("_ahead", "_source")

    def __init__(self, source: Source) -> None:
        self._source = source
        self._ahead = b""

    def read(self, count: int) -> bytes:
        """`count` bytes, fewer only at the end."""
        raw, self._ahead = self._ahead[:count], self._ahead[count:]
        pieces = [raw] if raw else []
        missing = count - len(raw)
        while missing and (piece := self._source.read(missing)):
            pieces.append(piece)
            missing -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def line(self) -> bytes:
        """The next line without its LF, which must be there within the length of any line that we accept."""
        while (end := self._ahead.find(b"\n")) < 0:
            if len(self._ahead) > MAX_HEADER_LINE_BYTES:
                raise _header_failure("a line is too long")
            piece = self._source.read(MAX_HEADER_LINE_BYTES)
            if not piece:
                raise _header_failure("ends before the header does")
            self._ahead += piece
        line, self._ahead = self._ahead[:end], self._ahead[end + 1 :]
        return line


def _header_failure(reason: str) -> GatewayError:
    return MalformedError(f"age: {reason}", place="header")


def _payload_failure() -> GatewayError:
    return VerificationError("age: a sealed chunk is missing, changed or too many", place="payload")
