"""Which bytes are a request: HTTP/1.1 framing (RFC 9112), stricter than the standard, before the HTTP library sees any.

`Framing` is fed what a connection received and returns what may be handed on: whole heads, then bodies as they come. It
has no socket and no clock. Two readers that understand one byte stream differently are how requests are smuggled, so
whatever could be read in two ways is refused with `RefusedRequestError`, and the connection ends with it.

Rules for the head:

1. Lines end with CR LF; CR, LF and other controls stand nowhere else (RFC 9112 2.2 allows to be lenient: we are not).
   One empty line before the request is passed over, as 2.2 asks.
2. The request line is a method in capitals, an origin-form target and HTTP/1.0 or HTTP/1.1. No absolute-form, no
   authority-form, no HTTP/0.9. The target is visible ASCII, every percent sign is followed by two hex digits, and it
   does not begin with two slashes.
3. No white space before a colon, no folded line (RFC 9112 5.1, 5.2). Bounds on line, number and whole: `HeadLimits`.
4. Exactly one Host, and it is one of ours. Authorization, Content-Type, Content-Length, DPoP, If-Range, Range and
   Transfer-Encoding stand at most once.
5. Content-Length is 1 to 16 digits. Transfer-Encoding is `chunked`, on HTTP/1.1 only, and never beside Content-Length
   (RFC 9112 6.1 and 6.3).
6. No Content-Encoding (415): bodies are sealed or small, and a bomb of 1 MiB unpacks to 1 GiB. No Upgrade to WebSocket.

Rules for a chunked body: a size of at most 8 hex digits, at most 64 octets a size line with its extensions, no trailer
fields, and no more framing than payload beyond 16 KiB (a byte a chunk costs the reader more than the sender).

    >>> framing = Framing(HeadLimits(), frozenset({"xa.example"}))
    >>> framing.take(b"GET /v1 HTTP/1.1\\r\\nHost: xa.exa")
    (b'', b'')
    >>> framing.take(b"mple\\r\\n\\r\\nGET /v2")
    (b'GET /v1 HTTP/1.1\\r\\nHost: xa.example\\r\\n\\r\\n', b'GET /v2')
    >>> framing.at_rest
    True
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto

from gateway.errors import MalformedError

_REQUEST_LINE = re.compile(rb"[A-Z]{1,16} (/(?!/)[\x21-\x7e]*|/) HTTP/1\.([01])")
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})|#")
# RFC 9110 5.1 token, and 5.5 field value; bytes from 0x80 are obs-text.
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t\x20-\x7e\x80-\xff]*)")
_CONTENT_LENGTH = re.compile(rb"[0-9]{1,16}")  # 16 digits are nine petabytes
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::([0-9]{1,5}))?")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})(?:[ \t]*;[\t\x20-\x7e]*)?")
_AT_MOST_ONCE = frozenset(
    {b"host", b"content-length", b"transfer-encoding", b"content-type", b"authorization", b"dpop"}
    | {b"range", b"if-range"}
)

MAX_CHUNK_LINE_BYTES = 64  # eight digits and room for an extension that nobody uses
MAX_CHUNK_OVERHEAD_BYTES = 16_384  # framing beyond the payload, as Go's net/http counts it
_HEAD_END = b"\r\n\r\n"


class RefusedRequestError(MalformedError):
    """The bytes are no request that we take: the connection answers with `status` and ends."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True, slots=True)
class HeadLimits:
    """How large a head may be. A token, a proof and a card digest need about 3 KiB."""

    max_line_bytes: int = 8190
    max_headers: int = 64
    max_head_bytes: int = 32_768


class Phase(Enum):
    """Where the connection stands in its present request."""

    HEAD = auto()
    LENGTH = auto()
    CHUNK_LINE = auto()
    CHUNK = auto()
    CHUNK_END = auto()
    TRAILER = auto()


class Framing:
    """The framing of one connection, request after request.

    Attributes:
        phase: `Phase.HEAD` between requests and while a head arrives.
        requests: how many heads were accepted.
        body_bytes: payload of the present or last request so far, without chunk framing.
    """

    def __init__(self, limits: HeadLimits, allowed_hosts: frozenset[str]) -> None:
        self._limits = limits
        self._hosts = allowed_hosts
        self.phase = Phase.HEAD
        self.requests = 0
        self.body_bytes = 0
        self._buffer = bytearray()  # an incomplete head, chunk line or trailer
        self._searched = 0  # where the search for the head's end goes on
        self._blank_passed = False
        self._line_judged = False
        self._left = 0  # payload left in the body or in the chunk
        self._overhead = 0

    @property
    def at_rest(self) -> bool:
        """Whether the last request is complete and nothing of a next one has come."""
        return self.phase is Phase.HEAD and not self._buffer

    @property
    def in_body(self) -> bool:
        """Whether a head was accepted and its body is not complete."""
        return self.phase is not Phase.HEAD

    def take(self, data: bytes) -> tuple[bytes, bytes]:
        """What of `data` (and of what was held back) may be handed on, and the rest, to be given again.

        A head comes alone, so that a body that breaks the rules at once cannot hide that a request has begun.

        Raises:
            RefusedRequestError: a rule is broken.
        """
        if self.in_body:
            end = self._body(data)
            return data[:end], data[end:]
        self._buffer += data
        head_end = self._find_head()
        if head_end < 0:
            return b"", b""
        head, rest = bytes(self._buffer[:head_end]), bytes(self._buffer[head_end:])
        self._buffer.clear()
        self._searched, self._blank_passed, self._line_judged = 0, False, False
        self._judge_head(head)
        return head, rest

    # Heads

    def _find_head(self) -> int:
        """The end of the head in the buffer, or -1; bounds and the request line are judged as soon as they can be."""
        if not self._blank_passed and self._buffer.startswith(b"\r\n"):
            del self._buffer[:2]  # RFC 9112 2.2: one empty line before the request
            self._blank_passed = True
        limits = self._limits
        if not self._line_judged:
            line_end = self._buffer.find(b"\n", 0, limits.max_line_bytes + 2)
            if line_end < 0 and len(self._buffer) > limits.max_line_bytes + 1:
                raise RefusedRequestError(400, "the request line is too long")
            if line_end < 0:
                return -1
            self._judge_line(bytes(self._buffer[:line_end]))
        end = self._buffer.find(_HEAD_END, max(self._searched - 3, 0))
        if end < 0 and len(self._buffer) <= limits.max_head_bytes:
            self._searched = len(self._buffer)
            return -1
        if not 0 <= end <= limits.max_head_bytes - len(_HEAD_END):
            raise RefusedRequestError(400, "the head is too long")
        return end + len(_HEAD_END)

    def _judge_line(self, line: bytes) -> None:
        if not line.endswith(b"\r"):
            raise RefusedRequestError(400, "a line ends without CR LF")
        match = _REQUEST_LINE.fullmatch(line[:-1])
        if match is None or _BAD_ESCAPE.search(match[1]):
            raise RefusedRequestError(400, "the request line is not METHOD /path HTTP/1.1")
        self._line_judged = True

    def _judge_head(self, head: bytes) -> None:
        line, *rows = head[: -len(_HEAD_END)].split(b"\r\n")
        if len(rows) > self._limits.max_headers:
            raise RefusedRequestError(400, "too many header fields")
        fields: dict[bytes, bytes] = {}
        for row in rows:
            name, value = self._field(row)
            if name in fields and name in _AT_MOST_ONCE:
                raise RefusedRequestError(400, f"{name.decode()} stands twice")
            fields[name] = value
        self._judge_host(fields.get(b"host"))
        if b"content-encoding" in fields:
            raise RefusedRequestError(415, "bodies are taken without Content-Encoding only")
        if fields.get(b"upgrade", b"").lower() == b"websocket":
            raise RefusedRequestError(400, "there is no WebSocket here")
        self._start_body(fields, is_http_10=line.endswith(b"0"))
        self.requests += 1

    def _field(self, row: bytes) -> tuple[bytes, bytes]:
        if len(row) > self._limits.max_line_bytes:
            raise RefusedRequestError(400, "a header field is too long")
        match = _FIELD.fullmatch(row)
        if match is None:
            raise RefusedRequestError(400, "a header field is malformed")
        return match[1].lower(), match[2].rstrip(b" \t")

    def _judge_host(self, value: bytes | None) -> None:
        # RFC 9112 3.2: without exactly one valid Host, 400. HTTP/1.0 gets no exception: nobody needs it.
        text = (value or b"").decode("latin-1").lower()
        match = _HOST.fullmatch(text)
        if match is None or not {match[1], text} & self._hosts:
            raise RefusedRequestError(400, "the Host is not one of ours")

    def _start_body(self, fields: dict[bytes, bytes], *, is_http_10: bool) -> None:
        self.body_bytes, self._overhead, self._left = 0, 0, 0
        encoding, length = fields.get(b"transfer-encoding"), fields.get(b"content-length")
        if encoding is not None:
            if length is not None:
                raise RefusedRequestError(
                    400, "Transfer-Encoding and Content-Length stand together"
                )  # RFC 9112 6.3 item 3
            if is_http_10 or encoding.lower() != b"chunked":
                raise RefusedRequestError(400, "the Transfer-Encoding is not one that we take")  # RFC 9112 6.1
            self.phase = Phase.CHUNK_LINE
        elif length is not None:
            if _CONTENT_LENGTH.fullmatch(length) is None:
                raise RefusedRequestError(400, "Content-Length is not a number")
            self._left = int(length)
            self.phase = Phase.LENGTH if self._left else Phase.HEAD

    # Bodies

    def _body(self, data: bytes) -> int:
        """Walk `data` to the end of the body or of the data; returns where it stopped."""
        at = 0
        while at < len(data) and self.in_body:
            if self.phase is Phase.LENGTH or self.phase is Phase.CHUNK:
                at = self._payload(data, at)
            elif self.phase is Phase.CHUNK_LINE:
                at = self._chunk_line(data, at)
            else:
                at = self._line_end(data, at)
        return at

    def _payload(self, data: bytes, at: int) -> int:
        count = min(self._left, len(data) - at)
        self._left -= count
        self.body_bytes += count
        if not self._left:
            self.phase = Phase.HEAD if self.phase is Phase.LENGTH else Phase.CHUNK_END
        return at + count

    def _chunk_line(self, data: bytes, at: int) -> int:
        end = data.find(b"\n", at, at + MAX_CHUNK_LINE_BYTES + 2)
        stop = len(data) if end < 0 else end + 1
        self._buffer += data[at:stop]
        if len(self._buffer) > MAX_CHUNK_LINE_BYTES + 2:
            raise RefusedRequestError(400, "a chunk extension is too long")
        if end < 0:
            return stop
        line = bytes(self._buffer)
        self._buffer.clear()
        match = _CHUNK_SIZE.fullmatch(line[:-2]) if line.endswith(b"\r\n") else None
        if match is None:
            raise RefusedRequestError(400, "a chunk size is malformed")
        self._overhead += len(line) + 2
        if self._overhead > self.body_bytes + MAX_CHUNK_OVERHEAD_BYTES:
            raise RefusedRequestError(400, "the body has more framing than payload")
        self._left = int(match[1], 16)
        self.phase = Phase.CHUNK if self._left else Phase.TRAILER
        return stop

    def _line_end(self, data: bytes, at: int) -> int:
        """The CR LF behind a chunk, or the empty line that ends the body."""
        count = min(2 - len(self._buffer), len(data) - at)
        self._buffer += data[at : at + count]
        if not b"\r\n".startswith(self._buffer):
            raise RefusedRequestError(
                400, "a chunk is longer than its size" if self.phase is Phase.CHUNK_END else "trailer fields"
            )
        if len(self._buffer) == 2:
            self._buffer.clear()
            self.phase = Phase.CHUNK_LINE if self.phase is Phase.CHUNK_END else Phase.HEAD
        return at + count
