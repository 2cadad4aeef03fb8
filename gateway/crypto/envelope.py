"""The envelope: DSSE signs a small manifest, age seals the rest (`contracts/envelope-1.md`).

    age plaintext = u32 big-endian length of the DSSE || DSSE JSON || payload, byte for byte

The manifest says who sends what to whom: ids, audience, channel, range, times, purpose, type and length of the payload,
and the SHA-256 of each of its 1 MiB pieces. Since the pieces are signed, the payload streams through `OpenedEnvelope`
in constant memory and no byte of it is handed on before its piece has been checked.

Sealing: `seal` makes the body once, `SealedEnvelope.header_for` a header for each recipient; header || body is an age
file. Opening, in this order: decrypt the frame, parse the DSSE alone, verify signer and manifest, then the pieces.

A recipient is not an audience: whoever opens an envelope could seal it again for another. So the manifest names its
audience, and the opener refuses what is not for it. `manifest_digest` is the identity of what was said; the same
manifest may arrive sealed in many ways.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass, fields, replace
from io import BytesIO
from typing import BinaryIO

from gateway.crypto import age, canonical, dsse
from gateway.crypto.keys import SYSTEM_RANDOM, OpeningKey, Random, SealingKey, SigningKey, VerifyingKey
from gateway.errors import ConflictError, MalformedError, TooLargeError, VerificationError
from gateway.model import AGENCY, MAX_TEXT_CHARS, SET_NAME, int_member, require, text_member, texts_member

VERSION = "envelope 1"
MANIFEST_TYPE = "application/vnd.partner-exchange.manifest+json"
MAILBOX = "mailbox"
PIECE_BYTES = 1024 * 1024
MAX_PIECES = 3500  # 67 bytes each in JSON, which leaves 27 KiB of the manifest for everything else
MAX_MANIFEST_BYTES = 256 * 1024
CLOCK_SKEW_SECONDS = 300  # how far two agencies' clocks may stand apart
_LENGTH = struct.Struct(">I")

MESSAGE_ID = re.compile(r"[0-9a-f]{32}")
DIGEST = re.compile(r"[0-9a-f]{64}")
VIEW_AUDIENCE = re.compile(r"view:[0-9a-f]{64}")
PAYLOAD_TYPE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,62}/[a-z0-9][a-z0-9.+-]{0,126}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What the sender signs.

    `audience` is `agency_audience(...)` or `view_audience(...)`; `channel` a hash set or "mailbox". The envelope covers
    the changes after `from_seq` up to and with `until_seq`. `created` and `expires` are Unix seconds. `case` and
    `purpose` may be "". `seal` fills in the last two fields.
    """

    version: str = VERSION
    message_id: str
    sender: str
    audience: str
    channel: str
    epoch: int
    from_seq: int
    until_seq: int
    created: int
    expires: int
    payload_type: str
    case: str = ""
    purpose: str = ""
    payload_bytes: int = 0
    pieces: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require(self.version == VERSION, "manifest: not of version envelope 1")
        require(MESSAGE_ID.fullmatch(self.message_id), "manifest: message_id is not 32 hex digits")
        require(AGENCY.fullmatch(self.sender), "manifest: sender is not an agency code")
        require(_is_audience(self.audience), "manifest: audience is neither an agency nor a view")
        require(
            self.channel == MAILBOX or SET_NAME.fullmatch(self.channel), "manifest: channel is not a set or mailbox"
        )
        require(PAYLOAD_TYPE.fullmatch(self.payload_type), "manifest: payload_type is not a media type")
        require(_is_line(self.case) and _is_line(self.purpose), "manifest: case or purpose is not a line of text")
        numbers = (self.epoch, self.from_seq, self.until_seq, self.created, self.expires, self.payload_bytes)
        require(all(0 <= n <= canonical.MAX_INTEGER for n in numbers), "manifest: a number is out of range")
        require(self.from_seq <= self.until_seq, "manifest: from_seq is after until_seq")
        require(self.created < self.expires, "manifest: expires before it is created")
        require(len(self.pieces) <= MAX_PIECES, f"manifest: more than {MAX_PIECES} pieces")
        require(len(self.pieces) == -(-self.payload_bytes // PIECE_BYTES), "manifest: pieces do not cover the payload")
        require(all(DIGEST.fullmatch(piece) for piece in self.pieces), "manifest: a piece is not a SHA-256")

    def dump(self) -> bytes:
        """The canonical JSON that is signed."""
        return canonical.encode(asdict(self))


class SealedEnvelope:
    """An envelope whose body is written. `header_for(recipient)` followed by that body is its age file."""

    __slots__ = ("_body", "body_bytes", "dsse", "manifest", "manifest_digest")

    def __init__(self, body: age.Body, body_bytes: int, manifest: Manifest, signed: bytes) -> None:
        self._body = body
        self.body_bytes = body_bytes
        self.manifest = manifest
        self.manifest_digest = hashlib.sha256(manifest.dump()).hexdigest()
        self.dsse = signed

    def header_for(self, *recipients: SealingKey) -> bytes:
        """The age header by which `recipients` open the body. For an audience class: one recipient, one header."""
        return self._body.header(*recipients)


class OpenedEnvelope:
    """A verified manifest and the payload still to be read, once, by `copy_payload` or `read_payload`."""

    __slots__ = ("_stream", "dsse", "manifest", "manifest_digest")

    def __init__(self, stream: age.OpenedStream, manifest: Manifest, signed: bytes, manifest_digest: str) -> None:
        self._stream: age.OpenedStream | None = stream
        self.manifest = manifest
        self.dsse = signed
        self.manifest_digest = manifest_digest

    def copy_payload(self, sink: age.Sink) -> None:
        """Write the payload to `sink`, piece by piece, each checked before it is written.

        Only when this returns is the payload whole; until then `sink` is a staging place.

        Raises:
            VerificationError: a piece is not what was signed, or something is missing or follows.
        """
        for piece in self._pieces():
            sink.write(piece)

    def read_payload(self, max_bytes: int) -> bytes:
        """The whole payload, refused unread when the manifest says more than `max_bytes`."""
        if self.manifest.payload_bytes > max_bytes:
            raise TooLargeError(f"envelope: payload of more than {max_bytes} bytes")
        stream = self._opened()
        payload = stream.read(self.manifest.payload_bytes)
        view = memoryview(payload)
        for number, expected in enumerate(self.manifest.pieces):
            _check_piece(view[number * PIECE_BYTES : (number + 1) * PIECE_BYTES], expected)
        _check_end(stream)
        return payload

    def _pieces(self) -> Iterator[bytes]:
        stream = self._opened()
        left = self.manifest.payload_bytes
        for expected in self.manifest.pieces:
            piece = stream.read(min(left, PIECE_BYTES))
            _check_piece(piece, expected)
            left -= len(piece)
            yield piece
        _check_end(stream)

    def _opened(self) -> age.OpenedStream:
        stream, self._stream = self._stream, None
        if stream is None:
            raise ConflictError("envelope: the payload was read before")
        return stream


def agency_audience(agency: str) -> str:
    """The audience that is one agency."""
    return f"agency:{agency}"


def view_audience(view_digest: str) -> str:
    """The audience class that shares a view."""
    return f"view:{view_digest}"


def seal(
    manifest: Manifest,
    payload: BinaryIO,
    sink: age.Sink,
    signing_key: SigningKey,
    random: Random = SYSTEM_RANDOM,
) -> SealedEnvelope:
    """Sign `manifest` over `payload` and write the sealed body to `sink`.

    Args:
        payload: seekable, read twice from where it stands: once to hash its pieces, once to seal them.

    Raises:
        TooLargeError: more than 3,500 pieces of 1 MiB.
        ConflictError: the payload changed its length between the two readings.
    """
    start = payload.tell()
    payload_bytes, pieces = _hash_pieces(payload)
    manifest = replace(manifest, payload_bytes=payload_bytes, pieces=pieces)
    signed = dsse.sign(MANIFEST_TYPE, manifest.dump(), signing_key)
    payload.seek(start)
    frame = _LENGTH.pack(len(signed)) + signed
    body = age.Body(random)
    body_bytes = body.seal(_Framed(frame, payload), sink)
    if payload.tell() - start != payload_bytes:
        raise ConflictError("envelope: the payload changed while it was sealed")
    return SealedEnvelope(body, body_bytes, manifest, signed)


def seal_bytes(
    manifest: Manifest,
    payload: bytes,
    signing_key: SigningKey,
    recipients: Sequence[SealingKey],
    random: Random = SYSTEM_RANDOM,
) -> bytes:
    """A whole envelope in memory, for small messages."""
    body = BytesIO()
    sealed = seal(manifest, BytesIO(payload), body, signing_key, random)
    return sealed.header_for(*recipients) + body.getvalue()


def open_envelope(
    source: age.Source,
    opening_keys: Sequence[OpeningKey],
    verifying_keys_for: Callable[[str], Sequence[VerifyingKey]],
    *,
    now: int,
    audiences: AbstractSet[str],
    was_taken_in: Callable[[Manifest, str], bool] = lambda _manifest, _digest: False,
) -> OpenedEnvelope:
    """The envelope in `source`, its manifest verified, its payload still to be read.

    Args:
        opening_keys: current and overlapping ones; the first that fits is used.
        verifying_keys_for: the keys held for a sender (two while one succeeds the other); one of them must have signed.
            It is called with an agency code that nothing has proved yet; it raises for a sender that is unknown, or not
            the caller.
        now: Unix seconds.
        audiences: what the opener answers to, as `agency_audience` and `view_audience` write it.
        was_taken_in: whether this very message (a verified manifest and its digest) was taken in before. Then it is
            not judged by audience and time again: its sender only asks for the answer that was lost.

    Raises:
        MalformedError: not an age file, a DSSE, or a manifest of version envelope 1.
        VerificationError: sealed for another key, signed by another, for another audience, too early or too late.
    """
    # 1. Decrypt the frame. Bytes are authentic from here on, but only as "sealed for us by anybody".
    stream = age.open_stream(opening_keys, source)
    signed = _read_frame(stream)
    # 2. Parse the DSSE alone.
    unverified = dsse.parse(signed)
    claimed = parse_manifest(unverified.unverified_payload)
    # 3. Verify: the sender only chooses which key must have signed.
    raw = unverified.verify_by_one(verifying_keys_for(claimed.sender), MANIFEST_TYPE)
    digest = hashlib.sha256(raw).hexdigest()
    if not was_taken_in(claimed, digest):
        check_manifest(claimed, now=now, audiences=audiences)
    return OpenedEnvelope(stream, claimed, signed, digest)


def verify_kept(signed: bytes, payload: bytes, verifying_keys: Sequence[VerifyingKey]) -> Manifest:
    """The manifest of an envelope whose DSSE and payload were kept, when both fit and one of the keys signed.

    Its audience and its times are not judged: it is evidence of what was said then, not a message.

    Raises:
        MalformedError: not the DSSE of an envelope.
        VerificationError: signed by another, or over another payload.
    """
    manifest = parse_manifest(dsse.parse(signed).verify_by_one(verifying_keys, MANIFEST_TYPE))
    if (manifest.payload_bytes, manifest.pieces) != _hash_pieces(BytesIO(payload)):
        raise VerificationError("envelope: another payload than was signed")
    return manifest


def parse_manifest(raw: bytes) -> Manifest:
    """The manifest in its canonical JSON, with exactly its members. Says nothing about who signed it."""
    value: object = canonical.parse_canonical(raw, max_bytes=MAX_MANIFEST_BYTES, max_depth=2)
    if not isinstance(value, dict) or set(value) != {field.name for field in fields(Manifest)}:
        raise MalformedError("manifest: members are not those of envelope 1")
    return Manifest(
        version=text_member(value, "version"),
        message_id=text_member(value, "message_id"),
        sender=text_member(value, "sender"),
        audience=text_member(value, "audience"),
        channel=text_member(value, "channel"),
        epoch=int_member(value, "epoch"),
        from_seq=int_member(value, "from_seq"),
        until_seq=int_member(value, "until_seq"),
        created=int_member(value, "created"),
        expires=int_member(value, "expires"),
        payload_type=text_member(value, "payload_type"),
        case=text_member(value, "case"),
        purpose=text_member(value, "purpose"),
        payload_bytes=int_member(value, "payload_bytes"),
        pieces=texts_member(value, "pieces"),
    )


def check_manifest(manifest: Manifest, *, now: int, audiences: AbstractSet[str]) -> None:
    """Returns when the manifest is for one of `audiences` and in time.

    Raises:
        VerificationError: for somebody else, expired, or created in the future.
    """
    if manifest.audience not in audiences:
        raise VerificationError("envelope: meant for another audience")
    if now > manifest.expires + CLOCK_SKEW_SECONDS:
        raise VerificationError("envelope: expired")
    if now < manifest.created - CLOCK_SKEW_SECONDS:
        raise VerificationError("envelope: created in the future")


def _check_piece(piece: bytes | memoryview, expected: str) -> None:
    # A short piece has another digest; so the lengths need no check of their own.
    if hashlib.sha256(piece).hexdigest() != expected:
        raise VerificationError("envelope: a piece is not the one that was signed")


def _check_end(stream: age.OpenedStream) -> None:
    if stream.read(1):
        raise VerificationError("envelope: something follows the payload")


class _Framed:
    """The frame, then the payload, as one source."""

    __slots__ = ("_frame", "_payload")

    def __init__(self, frame: bytes, payload: BinaryIO) -> None:
        self._frame = BytesIO(frame)
        self._payload = payload

    def read(self, count: int, /) -> bytes:
        return self._frame.read(count) or self._payload.read(count)


def _hash_pieces(payload: BinaryIO) -> tuple[int, tuple[str, ...]]:
    """Length and piece digests of all that `payload` still holds."""
    reader = age.ExactReader(payload)
    pieces: list[str] = []
    total = 0
    while piece := reader.read(PIECE_BYTES):
        if len(pieces) == MAX_PIECES:
            raise TooLargeError(f"envelope: payload of more than {MAX_PIECES} MiB")
        pieces.append(hashlib.sha256(piece).hexdigest())
        total += len(piece)
    return total, tuple(pieces)


def _read_frame(stream: age.OpenedStream) -> bytes:
    """The DSSE at the start of the plaintext, its length checked before it is read."""
    head = stream.read(_LENGTH.size)
    require(len(head) == _LENGTH.size, "envelope: ends inside the frame")
    (length,) = _LENGTH.unpack(head)
    require(0 < length <= dsse.MAX_DSSE_BYTES, "envelope: the frame has no length that a DSSE can have")
    signed = stream.read(length)
    require(len(signed) == length, "envelope: ends inside the frame")
    return signed


def _is_audience(text: str) -> bool:
    kind, _, name = text.partition(":")
    return bool(VIEW_AUDIENCE.fullmatch(text)) or (kind == "agency" and bool(AGENCY.fullmatch(name)))


def _is_line(text: str) -> bool:
    return len(text) <= MAX_TEXT_CHARS and not _CONTROL.search(text)
