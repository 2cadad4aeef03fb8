"""Answers that are not a success, in our words alone; envelopes; and the headers that every answer carries."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload

from gateway.crypto.tokens import TokenAlgorithm
from gateway.doors.framing import RefusedRequestError
from gateway.errors import NotFoundError, OverloadedError, TooLargeError, UnauthenticatedError
from gateway.problems import PROBLEM_TYPE, plain_problem, problem

SECURITY_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
# RFC 9110 15.5.2 wants one with every 401; RFC 9449 7.1: its scheme, and the algorithms that proofs may use.
CHALLENGE = f'DPoP algs="{" ".join(TokenAlgorithm)}"'
PIECE_BYTES = 256 * 1024  # of a large body that are on their way to the network at once, for each who is served


class Pieces(Payload):
    """A body in pieces that others may be served as well: it is written as it lies in memory, never put together.

    Args:
        start: how much of it is left out at the beginning.
    """

    _autoclose = True

    def __init__(self, pieces: Sequence[bytes], start: int = 0) -> None:
        super().__init__(pieces)
        self._pieces = pieces
        self._start = start
        self._size = sum(map(len, pieces)) - start

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Write what is left, as fast as the peer takes it."""
        left_out = self._start
        for piece in self._pieces:
            for start in range(min(left_out, len(piece)), len(piece), PIECE_BYTES):
                await writer.write(memoryview(piece)[start : start + PIECE_BYTES])
            left_out -= min(left_out, len(piece))

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """The body as text: aiohttp wants every body to have one."""
        return b"".join(self._pieces)[self._start :].decode(encoding, errors)


def problem_response(error: BaseException, *, instance: str = "") -> web.Response:
    """The problem that stands for an error, with the headers that belong to it."""
    status, body = problem(error, instance=instance)
    response = web.Response(status=status, body=body, content_type=PROBLEM_TYPE)
    if isinstance(error, OverloadedError):
        response.headers["Retry-After"] = str(error.retry_after_seconds)
    if isinstance(error, UnauthenticatedError):
        response.headers["WWW-Authenticate"] = CHALLENGE
    return response


def restate(error: web.HTTPException) -> web.Response:
    """aiohttp's own refusals (no such route, wrong method) in our words."""
    if error.status == 404:
        return problem_response(NotFoundError("there is nothing here"))
    if error.status == 413:
        return problem_response(TooLargeError("the body is larger than this address takes"))
    response = web.Response(status=error.status, body=plain_problem(error.status), content_type=PROBLEM_TYPE)
    if "Allow" in error.headers:  # RFC 9110 15.5.6 wants it with 405
        response.headers["Allow"] = error.headers["Allow"]
    return response


def raw_refusal(error: RefusedRequestError) -> bytes:
    """A whole answer as bytes, for a request that aiohttp has not seen."""
    status = HTTPStatus(error.status)
    body = problem(error)[1] if status == HTTPStatus.BAD_REQUEST else plain_problem(status, error.message)
    headers = SECURITY_HEADERS | {
        "Content-Type": PROBLEM_TYPE,
        "Content-Length": str(len(body)),
        "Connection": "close",
    }
    lines = [f"HTTP/1.1 {status.value} {status.phrase}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join(lines).encode("ascii") + b"\r\n\r\n" + body
