"""Errors keep their meaning from gateway to gateway, and bugs keep their detail to themselves."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import errors
from gateway.errors import (
    AuditBrokenError,
    ConfigError,
    ConflictError,
    DeniedError,
    GatewayError,
    MalformedError,
    NotFoundError,
    OverloadedError,
    PartnerError,
    ProofError,
    RateLimitedError,
    StaleCursorError,
    TooLargeError,
    UnauthenticatedError,
    VerificationError,
)
from gateway.problem_words import MAX_DETAIL_CHARS, WORDS, from_problem
from gateway.problems import exit_code, plain_problem, problem

CONTRACT = Path(__file__).parents[1] / "contracts" / "problems.md"

TABLE = [
    (MalformedError("m"), 400, 3),
    (TooLargeError("m"), 413, 3),
    (VerificationError("m"), 403, 4),
    (ProofError("m"), 422, 4),
    (DeniedError("m"), 403, 5),
    (UnauthenticatedError("m"), 401, 6),
    (NotFoundError("m"), 404, 7),
    (ConflictError("m"), 409, 7),
    (StaleCursorError("m"), 409, 7),
    (PartnerError("m"), 502, 8),
    (OverloadedError("m"), 503, 8),
    (RateLimitedError("m"), 429, 8),
    (ConfigError("m"), 500, 9),
    (AuditBrokenError("m"), 503, 10),
    (ValueError("m"), 500, 1),
    (KeyboardInterrupt(), 500, 1),
]


def every_error(kind: type[GatewayError] = GatewayError) -> set[type[GatewayError]]:
    return {
        child
        for direct in kind.__subclasses__()
        if direct.__module__ == errors.__name__
        for child in {direct, *every_error(direct)}
    }


@pytest.mark.parametrize(("error", "status", "code"), TABLE, ids=lambda v: type(v).__name__)
def test_each_error_has_its_status_and_exit_code(error: BaseException, status: int, code: int) -> None:
    answered, body = problem(error)
    assert (answered, json.loads(body)["status"], exit_code(error)) == (status, status, code)


def test_the_table_above_holds_every_error_of_the_project() -> None:
    assert {type(row[0]) for row in TABLE} >= every_error()
    assert set(WORDS) == every_error() - {ConfigError}


def test_every_word_and_status_stands_in_the_contract() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \| (\d{3}) \|", CONTRACT.read_text(encoding="utf-8"), re.MULTILINE)
    expected = {(WORDS[type(e)], str(status)) for e, status, _ in TABLE if type(e) in WORDS}
    assert set(rows) == expected | {("internal", "500")}


@pytest.mark.parametrize("error", [ValueError("secret 0123"), ConfigError("secret 0123", remedy="secret 0123")])
def test_a_bug_and_a_setting_keep_their_detail(error: Exception) -> None:
    status, body = problem(error, instance="urn:gateway:error:ab12")
    assert (status, json.loads(body)) == (
        500,
        {
            "type": "urn:gateway:problem:internal",
            "title": "Internal error",
            "status": 500,
            "instance": "urn:gateway:error:ab12",
        },
    )


def test_a_new_subclass_answers_as_its_parent() -> None:
    class NarrowerError(NotFoundError):
        pass

    assert problem(NarrowerError("m"))[0] == 404
    assert exit_code(NarrowerError("m")) == 7


@pytest.mark.parametrize(
    "error",
    [
        MalformedError("field is no digest", place="line 12, field MD5", remedy="correct the row"),
        TooLargeError("too long"),
        VerificationError("signature"),
        ProofError("proof", place="leaf 4"),
        UnauthenticatedError("token has expired", remedy="ask for a new one"),
        DeniedError("no rule permits it", rules=("xa.share.1", "00/forbid-imagery")),
        NotFoundError("unknown set"),
        ConflictError("other content under this id"),
        RateLimitedError("too often", retry_after_seconds=7),
        OverloadedError("busy", retry_after_seconds=120),
    ],
    ids=lambda e: type(e).__name__,
)
def test_an_error_comes_back_as_it_was_sent(error: GatewayError) -> None:
    back = from_problem(*problem(error))
    assert type(back) is type(error)
    assert vars(back) == vars(error)
    assert str(back) == str(error)


def test_a_stale_cursor_comes_back_with_the_cursor() -> None:
    cursor: dict[str, object] = {"epoch": 3, "view": "ab" * 16, "seq": 900}
    back = from_problem(*problem(StaleCursorError("moved on", cursor=cursor)))
    assert isinstance(back, StaleCursorError)
    assert back.cursor == cursor


def test_a_stale_cursor_without_a_cursor_comes_back_without() -> None:
    back = from_problem(*problem(StaleCursorError("moved on")))
    assert isinstance(back, StaleCursorError)
    assert back.cursor is None


@pytest.mark.parametrize("error", [AuditBrokenError("leaf differs", index=4), PartnerError("gone"), ValueError("bug")])
def test_what_is_broken_at_the_partner_is_never_ours(error: Exception) -> None:
    back = from_problem(*problem(error))
    assert type(back) is PartnerError
    assert "leaf" not in str(back)


GOOD = {"type": "urn:gateway:problem:not-found", "title": "t", "status": 404, "detail": "unknown set"}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>404</html>",
        b"[]",
        b'{"status":404}',
        json.dumps(GOOD | {"status": 403}).encode(),
        json.dumps(GOOD | {"type": "urn:gateway:problem:unheard-of"}).encode(),
        json.dumps(GOOD | {"type": "about:blank"}).encode(),
        json.dumps(GOOD | {"detail": "x" * (MAX_DETAIL_CHARS + 1)}).encode(),
        json.dumps(GOOD | {"detail": "line\nbreak"}).encode(),
        json.dumps(GOOD | {"detail": "turned \u202e round"}).encode(),
        json.dumps(GOOD | {"detail": "\x1b[2J"}).encode(),
        json.dumps(GOOD | {"place": 4}).encode(),
        json.dumps(GOOD | {"type": "urn:gateway:problem:denied", "rules": ["a b"]}).encode(),
        json.dumps(GOOD | {"type": "urn:gateway:problem:denied", "rules": ["a"] * 33}).encode(),
        json.dumps(GOOD | {"type": "urn:gateway:problem:stale-cursor", "cursor": [1]}).encode(),
        json.dumps(GOOD | {"type": "urn:gateway:problem:overloaded", "retry_after": -1}).encode(),
        json.dumps(GOOD | {"detail": "x"}).encode().ljust(20_000),
        b'{"type":"urn:gateway:problem:not-found","status":404,"status":404,"detail":"x"}',
    ],
)
def test_a_strange_answer_is_a_failure_of_the_partner_and_is_not_repeated(body: bytes) -> None:
    back = from_problem(404, body)
    assert type(back) is PartnerError
    assert str(back) == "the partner answered with status 404 and no readable problem"


def test_a_partner_cannot_send_us_away_for_more_than_a_day() -> None:
    document = {"type": "urn:gateway:problem:overloaded", "title": "t", "status": 503, "retry_after": 10**9}
    back = from_problem(503, json.dumps(document).encode())
    assert isinstance(back, OverloadedError)
    assert back.retry_after_seconds == 86_400


@settings(max_examples=200)
@given(st.text(max_size=2000), st.text(max_size=600))
def test_whatever_an_error_says_its_problem_can_be_read_back(message: str, place: str) -> None:
    back = from_problem(*problem(MalformedError(message, place=place)))
    assert type(back) is MalformedError
    assert back.message.isprintable()


@settings(max_examples=200)
@given(st.integers(400, 599), st.binary(max_size=300))
def test_any_bytes_make_an_error_and_never_a_crash(status: int, body: bytes) -> None:
    assert isinstance(from_problem(status, body), GatewayError)


def test_a_status_that_says_everything_has_a_blank_type() -> None:
    assert json.loads(plain_problem(411, "state the length")) == {
        "type": "about:blank",
        "title": "Length Required",
        "status": 411,
        "detail": "state the length",
    }
