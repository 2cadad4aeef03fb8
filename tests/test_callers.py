"""Callers: what proves a partner, and every way in which something almost does."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from factory import (
    FakeClock,
    SeededRandom,
    befriend,
    card_of,
    enrol,
    events,
    make_node,
    reopened,
    set_state,
    signed_card_of,
)
from gateway.audit import EventKind
from gateway.callers import (
    ASSERTION_TYPE,
    GRANT_TYPE,
    MAX_RECORDED,
    MAX_RECORDED_PER_ADDRESS,
    REFUSED,
    TOKEN_SECONDS,
    Callers,
    RefusedTokenError,
    TokenAnswer,
    TokenError,
)
from gateway.crypto.keys import TokenKey
from gateway.crypto.tokens import MAX_PROOF_AGE_SECONDS, make_assertion, make_dpop
from gateway.errors import UnauthenticatedError
from gateway.node import Node

URL = "http://127.0.0.1:8440"
TOKEN_URL = f"{URL}/v1/token"
SETS_URL = f"{URL}/v1/sets"
NUMBERS = iter(range(10**9))


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def xa(tmp_path: Path, clock: FakeClock) -> Node:
    return make_node(tmp_path, "XA-NCVI", clock=clock)


@pytest.fixture
def xb(tmp_path: Path, clock: FakeClock, xa: Node) -> Node:
    node = make_node(tmp_path, "XB-NCVI", clock=clock)
    befriend(xa, node)
    return node


@pytest.fixture
def callers(xa: Node, xb: Node) -> Callers:
    return Callers(xa)


def jti() -> str:
    return f"jti-{next(NUMBERS)}"


def form_of(node: Node, *, audience: str = URL, agency: str = "", **changes: str) -> dict[str, str]:
    name = agency or node.agency
    assertion = make_assertion(node.keystore.token_key, name, audience, node.clock(), jti())
    form = {"grant_type": GRANT_TYPE, "client_assertion_type": ASSERTION_TYPE, "client_assertion": assertion}
    return {**form, **changes}


def proof_of(node: Node, method: str = "POST", url: str = TOKEN_URL, token: str | None = None) -> str:
    return make_dpop(node.keystore.token_key, method, url, node.clock(), jti(), access_token=token)


def ask(callers: Callers, form: dict[str, str], proof: str | None, *, address: str = "192.0.2.1") -> TokenAnswer:
    return callers.token(form, proof, method="POST", url=TOKEN_URL, address=address)


def token_for(callers: Callers, node: Node) -> str:
    return ask(callers, form_of(node), proof_of(node)).access_token


def enter(callers: Callers, node: Node, token: str, proof: str | None = None, *, url: str = SETS_URL) -> str:
    proof = proof or proof_of(node, "GET", SETS_URL, token)
    return callers.authenticate(f"DPoP {token}", proof, method="GET", url=url)


def tokens_kept(node: Node) -> int:
    with node.store.reading() as tx:
        return int(tx.connection.exec_driver_sql("SELECT count(*) FROM access_token").scalar_one())


# What lets in


def test_a_partner_gets_a_token_and_enters_with_it(callers: Callers, xb: Node) -> None:
    answer = ask(callers, form_of(xb), proof_of(xb))
    assert answer.to_json() == {
        "access_token": answer.access_token,
        "expires_in": TOKEN_SECONDS,
        "token_type": "DPoP",
    }
    assert enter(callers, xb, answer.access_token) == "XB-NCVI"


def test_the_audience_may_be_the_issuer_or_the_token_endpoint(callers: Callers, xb: Node) -> None:
    for audience in (URL, TOKEN_URL):
        assert ask(callers, form_of(xb, audience=audience), proof_of(xb)).access_token


def test_a_token_is_kept_only_as_its_digest(callers: Callers, xa: Node, xb: Node) -> None:
    token = token_for(callers, xb)
    for file in xa.settings.folder.rglob("*"):
        assert not file.is_file() or token.encode() not in file.read_bytes()


def test_a_token_lives_three_hundred_seconds(callers: Callers, xb: Node, clock: FakeClock) -> None:
    token = token_for(callers, xb)
    clock.advance(TOKEN_SECONDS - 1)
    assert enter(callers, xb, token) == "XB-NCVI"
    clock.advance(1)
    with pytest.raises(UnauthenticatedError):
        enter(callers, xb, token)


def test_the_scheme_is_compared_without_regard_to_case(callers: Callers, xb: Node) -> None:
    token = token_for(callers, xb)
    proof = proof_of(xb, "GET", SETS_URL, token)
    assert callers.authenticate(f"dpop {token}", proof, method="GET", url=SETS_URL) == "XB-NCVI"


def test_a_query_is_not_part_of_what_a_proof_is_for(callers: Callers, xb: Node) -> None:
    assert enter(callers, xb, token_for(callers, xb), url=f"{SETS_URL}?after=1") == "XB-NCVI"


def test_a_partner_may_have_a_p256_token_key(callers: Callers, xa: Node, xb: Node) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    jwk = {
        name: value
        for name, value in jwt.algorithms.ECAlgorithm.to_jwk(key.public_key(), as_dict=True).items()
        if name in ("kty", "crv", "x", "y")
    } | {"alg": "ES256"}
    enrol(xa, dataclasses.replace(card_of(xb), tokens=(jwk,)))
    claims = {"iss": "XB-NCVI", "sub": "XB-NCVI", "aud": URL, "iat": xb.clock(), "exp": xb.clock() + 60, "jti": "one"}
    assertion = jwt.encode(claims, key, algorithm="ES256")
    assert ask(callers, form_of(xb, client_assertion=assertion), proof_of(xb)).access_token
    with pytest.raises(RefusedTokenError):
        token_for(callers, xb)  # its Ed25519 key is not the registered one any more


# Used once


def test_an_assertion_is_good_once(callers: Callers, xa: Node, xb: Node) -> None:
    form = form_of(xb)
    ask(callers, form, proof_of(xb))
    with pytest.raises(RefusedTokenError) as refused:
        ask(callers, form, proof_of(xb))
    assert refused.value.error is TokenError.INVALID_CLIENT
    assert tokens_kept(xa) == 1


def test_a_proof_at_the_token_endpoint_is_good_once(callers: Callers, xb: Node) -> None:
    proof = proof_of(xb)
    ask(callers, form_of(xb), proof)
    with pytest.raises(RefusedTokenError) as refused:
        ask(callers, form_of(xb), proof)
    assert refused.value.error is TokenError.INVALID_DPOP_PROOF


def test_a_proof_is_good_for_one_request(callers: Callers, xb: Node) -> None:
    token = token_for(callers, xb)
    proof = proof_of(xb, "GET", SETS_URL, token)
    assert enter(callers, xb, token, proof) == "XB-NCVI"
    with pytest.raises(UnauthenticatedError):
        enter(callers, xb, token, proof)


def test_replays_are_known_after_a_restart_and_on_a_second_node(callers: Callers, xa: Node, xb: Node) -> None:
    form, first_proof = form_of(xb), proof_of(xb)
    token = ask(callers, form, first_proof).access_token
    proof = proof_of(xb, "GET", SETS_URL, token)
    enter(callers, xb, token, proof)
    other = Callers(reopened(xa))
    for attempt in (
        lambda: ask(other, form, proof_of(xb)),
        lambda: ask(other, form_of(xb), first_proof),
        lambda: enter(other, xb, token, proof),
    ):
        with pytest.raises(UnauthenticatedError):
            attempt()
    assert enter(other, xb, token) == "XB-NCVI"  # the token itself is known there too


def test_a_used_proof_is_remembered_as_long_as_it_would_be_accepted(
    callers: Callers, xb: Node, clock: FakeClock
) -> None:
    token = token_for(callers, xb)
    proof = proof_of(xb)
    ask(callers, form_of(xb), proof)
    clock.advance(MAX_PROOF_AGE_SECONDS)  # its last second
    token_for(callers, xb)  # which purges what has expired
    with pytest.raises(RefusedTokenError):
        ask(callers, form_of(xb), proof)
    assert token


def test_of_many_requests_with_one_proof_exactly_one_enters(callers: Callers, xb: Node) -> None:
    token = token_for(callers, xb)
    proof = proof_of(xb, "GET", SETS_URL, token)

    def attempt(_number: int) -> bool:
        try:
            return enter(callers, xb, token, proof) == "XB-NCVI"
        except UnauthenticatedError:
            return False

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(attempt, range(8))) == 1


# What does not let in


def test_a_proof_for_another_request_does_not_let_in(callers: Callers, xb: Node, clock: FakeClock) -> None:
    token, other_token = token_for(callers, xb), token_for(callers, xb)
    stranger = TokenKey.generate(SeededRandom("stranger"))
    proofs = {
        "another method": proof_of(xb, "POST", SETS_URL, token),
        "another path": proof_of(xb, "GET", f"{URL}/v1/card", token),
        "another host": proof_of(xb, "GET", "http://127.0.0.2:8440/v1/sets", token),
        "another token": proof_of(xb, "GET", SETS_URL, other_token),
        "no token": proof_of(xb, "GET", SETS_URL),
        "another key": make_dpop(stranger, "GET", SETS_URL, clock(), jti(), access_token=token),
        "too old": make_dpop(xb.keystore.token_key, "GET", SETS_URL, clock() - 301, jti(), access_token=token),
        "of the future": make_dpop(xb.keystore.token_key, "GET", SETS_URL, clock() + 61, jti(), access_token=token),
        "rubbish": "x.y.z",
    }
    for name, proof in proofs.items():
        with pytest.raises(UnauthenticatedError) as refused:
            enter(callers, xb, token, proof)
        assert str(refused.value) == REFUSED, name


def test_only_the_dpop_scheme_with_one_token_lets_in(callers: Callers, xb: Node) -> None:
    token = token_for(callers, xb)
    for authorization in (
        None,
        "",
        token,
        f"Bearer {token}",
        f"DPoP  {token}",
        f"DPoP {token} ",
        f"DPoP {token},{token}",
        f"DPoP {token[:-1]}",
        f"DPoP {'A' * 43}",
        "DPoP é",
    ):
        proof = proof_of(xb, "GET", SETS_URL, token)
        with pytest.raises(UnauthenticatedError):
            callers.authenticate(authorization, proof, method="GET", url=SETS_URL)
    with pytest.raises(UnauthenticatedError):
        callers.authenticate(f"DPoP {token}", None, method="GET", url=SETS_URL)


@pytest.mark.parametrize("state", ["pending", "suspended", "removed"])
def test_a_token_dies_with_the_state_of_its_partner(callers: Callers, xa: Node, xb: Node, state: str) -> None:
    token = token_for(callers, xb)
    assert enter(callers, xb, token) == "XB-NCVI"
    set_state(xa, "XB-NCVI", state)
    with pytest.raises(UnauthenticatedError):
        enter(callers, xb, token)
    with pytest.raises(RefusedTokenError):
        token_for(callers, xb)


def test_a_partner_that_goes_while_its_assertion_is_verified_gets_no_token(
    callers: Callers, xa: Node, xb: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gateway import callers as module

    verify = module.verify_assertion

    def verify_slowly(*args: object, **kwargs: object) -> object:
        found = verify(*args, **kwargs)  # type: ignore[arg-type]
        set_state(xa, "XB-NCVI", "removed")
        return found

    monkeypatch.setattr(module, "verify_assertion", verify_slowly)
    with pytest.raises(RefusedTokenError):
        token_for(callers, xb)


def test_token_requests_that_are_refused_say_no_more_than_their_word(
    callers: Callers, xa: Node, xb: Node, tmp_path: Path, clock: FakeClock
) -> None:
    stranger = make_node(tmp_path, "XC-NCVI", clock=clock)
    cases: list[tuple[TokenError, dict[str, str], str | None]] = [
        (TokenError.INVALID_REQUEST, {}, proof_of(xb)),
        (TokenError.INVALID_REQUEST, form_of(xb, client_assertion_type="urn:other"), proof_of(xb)),
        (TokenError.UNSUPPORTED_GRANT_TYPE, form_of(xb, grant_type="password"), proof_of(xb)),
        (TokenError.INVALID_DPOP_PROOF, form_of(xb), None),
        (TokenError.INVALID_DPOP_PROOF, form_of(xb), "x.y.z"),
        (TokenError.INVALID_DPOP_PROOF, form_of(xb), proof_of(xb, "GET")),
        (TokenError.INVALID_DPOP_PROOF, form_of(xb), proof_of(xb, "POST", SETS_URL)),
        (TokenError.INVALID_CLIENT, form_of(xb, audience="http://127.0.0.2:8440"), proof_of(xb)),
        (TokenError.INVALID_CLIENT, form_of(xb, client_id="XA-NCVI"), proof_of(xb)),
        (TokenError.INVALID_CLIENT, form_of(xb, agency="XA-NCVI"), proof_of(xb)),
        (TokenError.INVALID_CLIENT, form_of(xb, client_assertion="x.y.z"), proof_of(xb)),
        (TokenError.INVALID_CLIENT, form_of(stranger), proof_of(stranger)),
        (TokenError.INVALID_CLIENT, form_of(stranger, agency="XB-NCVI"), proof_of(stranger)),
    ]
    for number, (error, form, proof) in enumerate(cases):
        with pytest.raises(RefusedTokenError) as refused:
            ask(callers, form, proof, address=f"192.0.2.{number}")
        assert (number, refused.value.error, str(refused.value)) == (number, error, REFUSED)
    assert len(events(xa, EventKind.TOKEN_REFUSED)) == len(cases)


# What is recorded


def test_a_refused_token_request_is_one_event_with_its_reason(callers: Callers, xa: Node, xb: Node) -> None:
    set_state(xa, "XB-NCVI", "suspended")
    with pytest.raises(RefusedTokenError):
        token_for(callers, xb)
    (event,) = events(xa, EventKind.TOKEN_REFUSED)
    assert (event.actor, event.subject) == ("XB-NCVI", "XA-NCVI")
    assert event.details == {
        "partner": "XB-NCVI",
        "error": "invalid_client",
        "reason": "assertion: not signed by a key of this client",
    }


def test_a_caller_cannot_write_its_own_words_into_the_log(callers: Callers, xa: Node, xb: Node) -> None:
    forged = "XB-NCVI\n{forged line}"
    with pytest.raises(RefusedTokenError):
        ask(callers, form_of(xb, agency=forged), proof_of(xb))
    (event,) = events(xa, EventKind.TOKEN_REFUSED)
    assert event.actor == "unknown"
    assert "forged" not in str(event)


def test_one_address_cannot_fill_the_log(callers: Callers, xa: Node, clock: FakeClock) -> None:
    def refuse(count: int, address: str) -> None:
        for _ in range(count):
            with pytest.raises(RefusedTokenError):
                ask(callers, {}, None, address=address)

    clock.now -= clock.now % 60
    refuse(MAX_RECORDED_PER_ADDRESS + 3, "192.0.2.1")
    recorded = events(xa, EventKind.TOKEN_REFUSED)
    assert len(recorded) == MAX_RECORDED_PER_ADDRESS
    assert ["not recorded" in str(event.details["reason"]) for event in recorded] == [False] * 4 + [True]
    refuse(1, "192.0.2.2")
    assert len(events(xa, EventKind.TOKEN_REFUSED)) == MAX_RECORDED_PER_ADDRESS + 1
    clock.advance(60)
    refuse(1, "192.0.2.1")
    assert len(events(xa, EventKind.TOKEN_REFUSED)) == MAX_RECORDED_PER_ADDRESS + 2


def test_many_addresses_cannot_fill_the_log_either(callers: Callers, xa: Node, clock: FakeClock) -> None:
    clock.now -= clock.now % 60
    for number in range(MAX_RECORDED + 5):
        with pytest.raises(RefusedTokenError):
            ask(callers, {}, None, address=f"address {number}")
    assert len(events(xa, EventKind.TOKEN_REFUSED)) == MAX_RECORDED


def test_a_refused_request_writes_nothing(callers: Callers, xa: Node, xb: Node) -> None:
    token = token_for(callers, xb)
    with xa.store.reading() as tx:
        before = tx.log.size()
    for _ in range(3):
        with pytest.raises(UnauthenticatedError):
            enter(callers, xb, token, proof_of(xb, "POST", SETS_URL, token))
    with xa.store.reading() as tx:
        assert tx.log.size() == before


def test_a_card_whose_token_key_cannot_be_used_is_refused(callers: Callers, xa: Node, xb: Node) -> None:
    jwk = {**card_of(xb).tokens[0], "alg": "none"}
    enrol(xa, dataclasses.replace(card_of(xb), tokens=(jwk,)))
    with pytest.raises(RefusedTokenError):
        token_for(callers, xb)
    enrol(xa, signed_card_of(xb))
    assert token_for(callers, xb)
