"""The words by which errors travel between gateways, and how a partner's problem document becomes an error again.

An answer that is not a success carries an RFC 9457 problem document. Its `type` is `urn:gateway:problem:` and one word
of `WORDS`; `contracts/problems.md` lists them. The words lie here, below client and doors alike; `gateway/problems.py`
alone knows which HTTP status and which exit code belong to them.

Rules for reading (`from_problem`), since the bytes come from outside:

1. At most `MAX_PROBLEM_BYTES`, read by the one strict JSON parser.
2. `status` repeats the status of the answer.
3. `detail`, `place` and `remedy` are one printable line within their bounds: no control or bidirectional character.
4. An unknown word, or any rule broken, is a PartnerError that repeats nothing of what was read.
5. What is broken at the partner is never an error of ours: its `audit-broken` and `internal` are PartnerErrors here.

    >>> raw = b'{"detail":"unknown set","status":404,"title":"x","type":"urn:gateway:problem:not-found"}'
    >>> from_problem(404, raw)
    NotFoundError('unknown set')
"""

from __future__ import annotations

import re

from gateway import errors
from gateway.crypto.canonical import JsonValue, parse_json
from gateway.errors import GatewayError, MalformedError, PartnerError
from gateway.model import int_member, require, text_member, texts_member

TYPE_PREFIX = "urn:gateway:problem:"
MAX_PROBLEM_BYTES = 16_384  # the longest problem that we write is below 4 KiB; the rest is room for proxies
MAX_PROBLEM_DEPTH = 4  # document, cursor, and room for one extension
MAX_DETAIL_CHARS = 512  # one sentence
MAX_PLACE_CHARS = 256  # "line 12, field MD5"
MAX_RULES = 32  # ids of deciding rules; more explain nothing
RULE_ID = re.compile(r"[A-Za-z0-9._:/-]{1,128}")
MAX_RETRY_AFTER_SECONDS = 86_400  # a partner may send us away for a day, not for ever

WORDS: dict[type[GatewayError], str] = {
    errors.MalformedError: "malformed",
    errors.TooLargeError: "too-large",
    errors.VerificationError: "not-verified",
    errors.ProofError: "proof-refused",
    errors.UnauthenticatedError: "unauthenticated",
    errors.DeniedError: "denied",
    errors.NotFoundError: "not-found",
    errors.ConflictError: "conflict",
    errors.StaleCursorError: "stale-cursor",
    errors.OverloadedError: "overloaded",
    errors.RateLimitedError: "rate-limited",
    errors.PartnerError: "partner-failed",
    errors.AuditBrokenError: "audit-broken",
}
INTERNAL = "internal"  # a bug or our own configuration: no detail leaves

# Rule 5: these tell of the partner's state, not of ours.
_THEIR_OWN = frozenset({WORDS[errors.PartnerError], WORDS[errors.AuditBrokenError], INTERNAL})
_CLASSES: dict[str, type[GatewayError]] = {word: kind for kind, word in WORDS.items() if word not in _THEIR_OWN}


def from_problem(status: int, body: bytes) -> GatewayError:
    """The error that a partner's answer stands for. Returned, not raised: the raise belongs to the caller.

    Args:
        status: HTTP status of the answer, 4xx or 5xx.
        body: its body, whatever it is.
    """
    try:
        return _parse(status, body)
    except MalformedError:
        return PartnerError(f"the partner answered with status {status} and no readable problem")


def is_line(text: str, max_chars: int) -> bool:
    """Whether the text is one printable line of at most `max_chars`, safe on a terminal and in a log."""
    return len(text) <= max_chars and text.isprintable()


def _parse(status: int, body: bytes) -> GatewayError:
    document = parse_json(body, max_bytes=MAX_PROBLEM_BYTES, max_depth=MAX_PROBLEM_DEPTH)
    if not isinstance(document, dict):
        raise MalformedError("a problem is a JSON object")
    members: dict[str, object] = dict(document)
    require(int_member(members, "status") == status, "status differs from that of the answer")  # RFC 9457 3.1.2
    kind = text_member(members, "type")
    require(kind.startswith(TYPE_PREFIX), "type is not one of ours")
    word = kind.removeprefix(TYPE_PREFIX)
    if word in _THEIR_OWN:
        return PartnerError(f"the partner answered: {word}")
    require(word in _CLASSES, "unknown word")
    return _build(_CLASSES[word], members, document.get("cursor"))


def _build(kind: type[GatewayError], members: dict[str, object], cursor: JsonValue) -> GatewayError:
    detail = _line(members, "detail", MAX_DETAIL_CHARS)
    place = _line(members, "place", MAX_PLACE_CHARS)
    remedy = _line(members, "remedy", MAX_DETAIL_CHARS)
    if issubclass(kind, errors.StaleCursorError):
        require(cursor is None or isinstance(cursor, dict), "cursor is not an object")
        return kind(detail, cursor=dict(cursor) if isinstance(cursor, dict) else None)
    if issubclass(kind, errors.OverloadedError):
        seconds = int_member(members, "retry_after") if "retry_after" in members else 30
        return kind(detail, retry_after_seconds=min(max(seconds, 1), MAX_RETRY_AFTER_SECONDS))
    if issubclass(kind, errors.DeniedError):
        return kind(detail, place=place, remedy=remedy, rules=_rules(members))
    return kind(detail, place=place, remedy=remedy)


def _line(members: dict[str, object], name: str, max_chars: int) -> str:
    text = text_member(members, name) if name in members else ""
    require(is_line(text, max_chars), f"{name} is not one printable line")
    return text


def _rules(members: dict[str, object]) -> tuple[str, ...]:
    rules = texts_member(members, "rules") if "rules" in members else ()
    require(len(rules) <= MAX_RULES and all(RULE_ID.fullmatch(rule) for rule in rules), "rules are no rule ids")
    return rules
