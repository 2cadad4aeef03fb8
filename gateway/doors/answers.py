"""Answers that are not a success, in our words alone, and the headers that every answer carries."""

from __future__ import annotations

from http import HTTPStatus

from aiohttp import web

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
