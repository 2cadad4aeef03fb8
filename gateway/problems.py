"""Errors as HTTP answers and exit codes: the one table, used by every door.

`problem` turns an error into the status and body of an RFC 9457 answer (`application/problem+json`, canonical JSON);
`exit_code` into what the command line returns. An error that nobody raised on purpose is a bug: status 500 without any
detail, exit 1. So is a ConfigError over HTTP, for our settings are not the caller's business.

    >>> problem(errors.NotFoundError("unknown set"))
    (404, b'{"detail":"unknown set","status":404,"title":"Not found","type":"urn:gateway:problem:not-found"}')
    >>> exit_code(errors.NotFoundError("unknown set"))
    7

Exit codes: 0 done, 1 a bug, 2 usage (the command line's own), 3 to 10 by the table below.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

from gateway import errors
from gateway.crypto.canonical import encode
from gateway.errors import GatewayError
from gateway.problem_words import (
    INTERNAL,
    MAX_DETAIL_CHARS,
    MAX_PLACE_CHARS,
    MAX_RULES,
    TYPE_PREFIX,
    WORDS,
)

PROBLEM_TYPE = "application/problem+json"  # RFC 9457 6.1
EXIT_BUG = 1


@dataclass(frozen=True, slots=True)
class _Answer:
    """What both doors say about one kind of error; status None: never told over HTTP."""

    title: str
    status: int | None
    exit_code: int


_ANSWERS: dict[type[GatewayError], _Answer] = {
    errors.MalformedError: _Answer("Malformed", 400, 3),
    errors.TooLargeError: _Answer("Too large", 413, 3),
    errors.VerificationError: _Answer("Does not verify", 403, 4),
    errors.ProofError: _Answer("Proof does not verify", 422, 4),
    errors.DeniedError: _Answer("Denied", 403, 5),
    errors.UnauthenticatedError: _Answer("Not authenticated", 401, 6),
    errors.NotFoundError: _Answer("Not found", 404, 7),
    errors.ConflictError: _Answer("Conflict", 409, 7),
    errors.StaleCursorError: _Answer("Stale cursor", 409, 7),
    errors.PartnerError: _Answer("Partner failed", 502, 8),
    errors.OverloadedError: _Answer("Overloaded", 503, 8),
    errors.RateLimitedError: _Answer("Too many requests", 429, 8),
    errors.ConfigError: _Answer("Configuration", None, 9),
    errors.AuditBrokenError: _Answer("Audit log broken", 503, 10),
}


def problem(error: BaseException, *, instance: str = "") -> tuple[int, bytes]:
    """The HTTP status and the problem document of an error.

    Args:
        error: any exception; only a GatewayError of the table keeps its words.
        instance: a URI that names this occurrence, such as the id under which a bug was logged; "" leaves it out.
    """
    kind = _known(error)
    answer = _ANSWERS.get(kind) if kind else None
    if kind is None or answer is None or answer.status is None or not isinstance(error, GatewayError):
        return 500, _document(INTERNAL, 500, "Internal error", instance, {})
    members: dict[str, object] = {"detail": _line(error.message, MAX_DETAIL_CHARS)}
    if error.place:
        members["place"] = _line(error.place, MAX_PLACE_CHARS)
    if error.remedy:
        members["remedy"] = _line(error.remedy, MAX_DETAIL_CHARS)
    members.update(_extensions(error))
    return answer.status, _document(WORDS[kind], answer.status, answer.title, instance, members)


def plain_problem(status: int, detail: str = "") -> bytes:
    """The problem document of a status that says everything by itself (405, 411, 415).

    RFC 9457 4.2.1: such a problem has the type "about:blank" and the status phrase as its title.
    """
    members = {"detail": detail} if detail else {}
    return encode({"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, **members})


def exit_code(error: BaseException) -> int:
    """The exit code of a command that ended with this error."""
    kind = _known(error)
    return _ANSWERS[kind].exit_code if kind else EXIT_BUG


def _known(error: BaseException) -> type[GatewayError] | None:
    """The nearest class of the table: a new subclass answers as its parent does until it has a row."""
    return next((kind for kind in type(error).__mro__ if kind in _ANSWERS), None)


def _document(word: str, status: int, title: str, instance: str, members: dict[str, object]) -> bytes:
    place = {"instance": instance} if instance else {}
    return encode({"type": TYPE_PREFIX + word, "title": title, "status": status, **place, **members})


def _extensions(error: GatewayError) -> dict[str, object]:
    if isinstance(error, errors.DeniedError) and error.rules:
        return {"rules": list(error.rules[:MAX_RULES])}
    if isinstance(error, errors.StaleCursorError) and error.cursor is not None:
        return {"cursor": error.cursor}
    if isinstance(error, errors.OverloadedError):
        return {"retry_after": error.retry_after_seconds}
    return {}


def _line(text: str, max_chars: int) -> str:
    """One printable line, as the reader demands it: what cannot be shown becomes a question mark."""
    return "".join(c if c.isprintable() else "?" for c in text[:max_chars])
