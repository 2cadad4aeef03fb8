"""Callers: what proves a partner, and every way in which something almost does."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
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
    MAX_SECRETS,
    REFUSED,
    TOKEN_SECONDS,
    Admitted,
    Callers,
    InsufficientScopeError,
    NonceChallengeError,
    RefusedTokenError,
    Scope,
    TokenAnswer,
    TokenError,
)
from gateway.crypto import canonical
from gateway.crypto.keys import TokenKey
from gateway.crypto.nonces import NONCE_SECONDS, RENEW_SECONDS
from gateway.crypto.tokens import MAX_PROOF_AGE_SECONDS, make_assertion, make_dpop
from gateway.errors import ConflictError, MalformedError, NotFoundError, UnauthenticatedError
from gateway.node import Node

URL = "http://127.0.0.1:8440"
TOKEN_URL = f"{URL}/v1/token"
SETS_URL = f"{URL}/v1/sets"
NUMBERS = iter(range(10**9))
ISSUING: list[Callers] = []  # whose nonces the proofs of this test name


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
    made = Callers(xa)
    ISSUING[:] = [made]
    return made


def jti() -> str:
    return f"jti-{next(NUMBERS)}"


def form_of(node: Node, *, audience: str = URL, agency: str = "", **changes: str) -> dict[str, str]:
    name = agency or node.agency
    assertion = make_assertion(node.keystore.token_key, name, audience, node.clock(), jti())
    form = {"grant_type": GRANT_TYPE, "client_assertion_type": ASSERTION_TYPE, "client_assertion": assertion}
    return {**form, **changes}


def fresh_nonce() -> str:
    return ISSUING[0]._nonces.issue(ISSUING[0].now())


def proof_of(
    node: Node,
    method: str = "POST",
    url: str = TOKEN_URL,
    token: str | None = None,
    *,
    nonce: str | None = None,
    key: TokenKey | None = None,
    age: int = 0,
) -> str:
    nonce = fresh_nonce() if nonce is None else nonce
    signing, made = key or node.keystore.token_key, node.clock() - age
    return make_dpop(signing, method, url, made, jti(), access_token=token, nonce=nonce)


def ask(callers: Callers, form: dict[str, str], proof: str | None, *, address: str = "192.0.2.1") -> TokenAnswer:
    return callers.token(form, proof, method="POST", url=TOKEN_URL, address=address)


def token_for(callers: Callers, node: Node) -> str:
    return ask(callers, form_of(node), proof_of(node)).access_token


def enter(callers: Callers, node: Node, token: str, proof: str | None = None, *, url: str = SETS_URL) -> str:
    proof = proof or proof_of(node, "GET", SETS_URL, token)
    return callers.authenticate(f"DPoP {token}", proof, method="GET", url=url).agency


def tokens_kept(node: Node) -> int:
    with node.store.reading() as tx:
        return int(tx.connection.exec_driver_sql("SELECT count(*) FROM access_token").scalar_one())


# What lets in


def test_a_partner_gets_a_token_and_enters_with_it(callers: Callers, xb: Node) -> None:
    answer = ask(callers, form_of(xb), proof_of(xb))
    assert answer.to_json() == {
        "access_token": answer.access_token,
        "expires_in": TOKEN_SECONDS,
        "scope": "log native",
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
    assert callers.authenticate(f"dpop {token}", proof, method="GET", url=SETS_URL).agency == "XB-NCVI"


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


def test_a_token_that_somebody_changed_in_the_database_opens_nothing(
    callers: Callers, xa: Node, xb: Node, tmp_path: Path
) -> None:
    enrol(xa, card_of(make_node(tmp_path, "XC-NCVI", clock=FakeClock())))
    other = TokenKey.generate(SeededRandom("other"))
    changes: list[tuple[str, TokenKey | None]] = [
        ("partner = 'XC-NCVI'", None),
        ("expires = expires + 1", None),
        ("scope = 'log native taxii'", None),
        (f"thumbprint = '{other.thumbprint()}'", other),
        ("mac = x''", None),
    ]
    for change, key in changes:
        token = token_for(callers, xb)
        assert enter(callers, xb, token) == "XB-NCVI"
        with xa.store.transaction() as tx:
            tx.connection.exec_driver_sql(f"UPDATE access_token SET {change}")
        with pytest.raises(UnauthenticatedError):
            enter(callers, xb, token, proof_of(xb, "GET", SETS_URL, token, key=key))


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
        "another key": proof_of(xb, "GET", SETS_URL, token, key=stranger),
        "too old": proof_of(xb, "GET", SETS_URL, token, age=301),
        "of the future": proof_of(xb, "GET", SETS_URL, token, age=-61),
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


# Nonces


def kept(node: Node) -> bytes:
    """The whole database, as it lies on disk."""
    return hashlib.sha256((node.settings.folder / "gateway.db").read_bytes()).digest()


def test_a_proof_without_a_good_nonce_is_asked_for_one_and_leaves_no_trace(
    callers: Callers, xa: Node, xb: Node, clock: FakeClock
) -> None:
    old = fresh_nonce()
    clock.advance(NONCE_SECONDS + 1)
    token, form = token_for(callers, xb), form_of(xb)
    before = kept(xa)
    for nonce in ("", "rubbish", "A" * 32, old):
        with pytest.raises(RefusedTokenError) as refused:
            ask(callers, form, proof_of(xb, nonce=nonce))
        assert refused.value.error is TokenError.USE_DPOP_NONCE
        with pytest.raises(NonceChallengeError) as challenged:
            enter(callers, xb, token, proof_of(xb, "GET", SETS_URL, token, nonce=nonce))
        assert refused.value.nonce == challenged.value.nonce == fresh_nonce()
    assert kept(xa) == before
    assert events(xa, EventKind.TOKEN_REFUSED) == []
    # The form was not used up, and the nonce that was given is a good one.
    assert ask(callers, form, proof_of(xb, nonce=refused.value.nonce)).nonce == fresh_nonce()
    assert enter(callers, xb, token, proof_of(xb, "GET", SETS_URL, token, nonce=challenged.value.nonce)) == "XB-NCVI"


def test_a_proof_with_an_old_nonce_does_not_use_up_its_jti(callers: Callers, xb: Node, clock: FakeClock) -> None:
    token = token_for(callers, xb)

    def proof(nonce: str) -> str:
        key = xb.keystore.token_key
        return make_dpop(key, "GET", SETS_URL, clock(), "one jti", access_token=token, nonce=nonce)

    with pytest.raises(NonceChallengeError) as challenged:
        enter(callers, xb, token, proof(""))
    assert enter(callers, xb, token, proof(challenged.value.nonce)) == "XB-NCVI"
    with pytest.raises(UnauthenticatedError, match=REFUSED):
        enter(callers, xb, token, proof(challenged.value.nonce))


def test_a_nonce_of_one_node_is_good_on_another_and_after_a_restart(callers: Callers, xa: Node, xb: Node) -> None:
    nonce = token_nonce = ask(callers, form_of(xb), proof_of(xb)).nonce
    other = Callers(reopened(xa))
    token = ask(other, form_of(xb), proof_of(xb, nonce=nonce)).access_token
    assert enter(other, xb, token, proof_of(xb, "GET", SETS_URL, token, nonce=token_nonce)) == "XB-NCVI"


def test_a_nonce_past_half_its_life_is_answered_by_a_fresh_one(callers: Callers, xb: Node, clock: FakeClock) -> None:
    token, nonce = token_for(callers, xb), fresh_nonce()

    def admitted() -> Admitted:
        proof = proof_of(xb, "GET", SETS_URL, token, nonce=nonce)
        return callers.authenticate(f"DPoP {token}", proof, method="GET", url=SETS_URL)

    clock.advance(RENEW_SECONDS - 1)
    assert admitted() == Admitted("XB-NCVI", "")
    clock.advance(1)
    assert admitted() == Admitted("XB-NCVI", fresh_nonce())


def test_only_the_holder_of_a_tokens_key_is_asked_for_a_nonce(callers: Callers, xb: Node) -> None:
    token, stranger = token_for(callers, xb), TokenKey.generate(SeededRandom("stranger"))
    for proof in (
        proof_of(xb, "GET", SETS_URL, token, nonce="", key=stranger),
        proof_of(xb, "GET", f"{URL}/v1/card", token, nonce=""),
        proof_of(xb, "GET", SETS_URL, nonce=""),
    ):
        with pytest.raises(UnauthenticatedError) as refused:
            enter(callers, xb, token, proof)
        assert not isinstance(refused.value, NonceChallengeError)


# Scopes


def open_surface(node: Node, surface: Scope = Scope.HASHSHARING, partner: str = "XB-NCVI") -> None:
    with node.store.transaction() as tx:
        assert tx.secrets.open(partner, surface, node.clock(), "a proposal")


def scope_of(callers: Callers, node: Node, scope: str | None) -> str:
    form = form_of(node) if scope is None else form_of(node, scope=scope)
    return ask(callers, form, proof_of(node)).scope


def visit(callers: Callers, node: Node, token: str, scope: Scope) -> str:
    proof = proof_of(node, "GET", SETS_URL, token)
    return callers.authenticate(f"DPoP {token}", proof, method="GET", url=SETS_URL, scope=scope).agency


def test_a_token_is_for_what_was_asked_and_else_for_all_that_is_open(callers: Callers, xa: Node, xb: Node) -> None:
    assert scope_of(callers, xb, None) == "log native"
    assert scope_of(callers, xb, "native") == "native"
    assert scope_of(callers, xb, "native log native") == "log native"
    open_surface(xa, Scope.TAXII)
    open_surface(xa, Scope.HASHSHARING, partner="XC-NCVI")  # another's
    assert scope_of(callers, xb, None) == "log native taxii"
    assert scope_of(callers, xb, "taxii") == "taxii"


def test_a_scope_that_is_unknown_or_not_open_is_refused(callers: Callers, xa: Node, xb: Node) -> None:
    for scope in ("", " ", "native ", "native  log", "NATIVE", "taxii", "native taxii", "admin", "*"):
        with pytest.raises(RefusedTokenError) as refused:
            scope_of(callers, xb, scope)
        assert refused.value.error is TokenError.INVALID_SCOPE, scope
    assert tokens_kept(xa) == 0
    told = {(event.actor, event.details["error"]) for event in events(xa, EventKind.TOKEN_REFUSED)}
    assert told == {("XB-NCVI", "invalid_scope")}


def test_a_token_opens_no_surface_that_it_is_not_for(callers: Callers, xa: Node, xb: Node) -> None:
    open_surface(xa, Scope.TAXII)
    for held in (Scope.NATIVE, Scope.LOG, Scope.TAXII):
        token = ask(callers, form_of(xb, scope=str(held)), proof_of(xb)).access_token
        for asked in Scope:
            if asked is held:
                assert visit(callers, xb, token, asked) == "XB-NCVI"
                continue
            with pytest.raises(InsufficientScopeError) as refused:
                visit(callers, xb, token, asked)
            assert refused.value.scope is asked


def test_a_surface_that_is_shut_is_shut_for_tokens_as_well(callers: Callers, xa: Node, xb: Node) -> None:
    open_surface(xa, Scope.TAXII)
    token = token_for(callers, xb)
    assert visit(callers, xb, token, Scope.TAXII) == "XB-NCVI"
    with xa.store.transaction() as tx:
        tx.secrets.close("XB-NCVI", Scope.TAXII)
    with pytest.raises(InsufficientScopeError):
        visit(callers, xb, token, Scope.TAXII)
    assert visit(callers, xb, token, Scope.NATIVE) == "XB-NCVI"


# Two token keys, and the algorithm of each


def test_while_a_token_key_is_replaced_both_authenticate(callers: Callers, xa: Node, xb: Node) -> None:
    old, new = xb.keystore.token_key, TokenKey.generate(SeededRandom("new"))
    enrol(xa, dataclasses.replace(card_of(xb), tokens=(new.card_jwk(), old.card_jwk())))

    def works(key: TokenKey) -> bool:
        assertion = make_assertion(key, "XB-NCVI", URL, xb.clock(), jti())
        try:
            token = ask(callers, form_of(xb, client_assertion=assertion), proof_of(xb, key=key)).access_token
        except RefusedTokenError:
            return False
        return enter(callers, xb, token, proof_of(xb, "GET", SETS_URL, token, key=key)) == "XB-NCVI"

    assert works(old)
    assert works(new)
    enrol(xa, dataclasses.replace(card_of(xb), tokens=(new.card_jwk(),)))
    assert not works(old)
    assert works(new)


def test_a_key_signs_with_the_one_algorithm_that_its_card_names(callers: Callers, xa: Node, xb: Node) -> None:
    key = xb.keystore.token_key
    claims = {"iss": "XB-NCVI", "sub": "XB-NCVI", "aud": URL, "exp": xb.clock() + 60}

    def works(alg: str) -> bool:
        jws = jwt.PyJWS()
        jws.register_algorithm("Ed25519", jwt.algorithms.OKPAlgorithm())
        raw = canonical.encode({**claims, "jti": jti()})
        assertion = jws.encode(raw, key.private, algorithm=alg)
        try:
            return bool(ask(callers, form_of(xb, client_assertion=assertion), proof_of(xb)))
        except RefusedTokenError:
            return False

    assert (works("Ed25519"), works("EdDSA")) == (True, False)
    enrol(xa, dataclasses.replace(card_of(xb), tokens=({**key.public_jwk(), "alg": "EdDSA"},)))
    assert (works("Ed25519"), works("EdDSA")) == (False, True)


# Clocks


def test_a_wrong_clock_is_recorded_with_its_seconds(callers: Callers, xa: Node, xb: Node) -> None:
    told = {
        300: "invalid_dpop_proof: DPoP: iat is 300 s ahead of this clock, at most 60 s; set the clocks",
        -300: "invalid_client: assertion: exp was 240 s ago; made 300 s ago if the caller's clock is right",
        -301: "invalid_dpop_proof: DPoP: iat is 301 s old; is the caller's clock slow?",
    }
    for ahead in told:
        theirs = dataclasses.replace(xb, clock=FakeClock(xb.clock() + ahead))
        with pytest.raises(RefusedTokenError, match=REFUSED):
            token_for(callers, theirs)
    found = [event.details for event in events(xa, EventKind.TOKEN_REFUSED)]
    assert [f"{one['error']}: {one['reason']}" for one in found] == list(told.values())


# Stock clients


def basic(user: str, secret: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{secret}".encode()).decode()


def knock(callers: Callers, authorization: str | None, surface: Scope = Scope.HASHSHARING, address: str = "") -> str:
    return callers.authenticate_secret(authorization, surface, address=address)


@pytest.fixture
def secret(callers: Callers, xa: Node) -> str:
    open_surface(xa)
    return callers.issue_secret("XB-NCVI", Scope.HASHSHARING, 30, "duty-officer")[1]


def test_a_secret_opens_its_surface_in_each_way_of_saying_it(callers: Callers, secret: str) -> None:
    for authorization in (
        basic("XB-NCVI", secret),
        basic("XB-NCVI", secret).replace("Basic", "basic"),
        f"Token {secret}",
        f"Bearer {secret}",
        f"TOKEN {secret}",
    ):
        assert knock(callers, authorization) == "XB-NCVI"


def test_what_is_no_secret_of_this_surface_opens_nothing_and_all_hear_the_same(
    callers: Callers, xa: Node, xb: Node, secret: str
) -> None:
    open_surface(xa, Scope.TAXII)
    _, other = callers.issue_secret("XB-NCVI", Scope.TAXII, 30, "duty-officer")
    changed = secret[:-1] + ("A" if secret[-1] != "A" else "B")
    wrong: list[str | None] = [
        None,
        "",
        secret,
        "Basic",
        "Basic ",
        "Token",
        f"Token  {secret}",
        f"Token {secret} ",
        f"Token {changed}",
        f"Token {secret.upper()}",
        f"Token {other}",
        f"Token {secret[:16]}.{'A' * 43}",
        f"Token {'0' * 16}{secret[16:]}",
        f"Token {secret[17:]}",
        f"Token {secret},{secret}",
        f"Digest {secret}",
        f"DPoP {secret}",
        basic("XC-NCVI", secret),
        basic("xb-ncvi", secret),
        basic("", secret),
        basic("XB-NCVI", ""),
        basic("XB-NCVI", secret + "\n"),
        basic("XB-NCVI", changed),
        basic("XB-NCVI", other),
        basic("XB-NCVI", secret).rstrip("=") + "=x",
        basic("XB-NCVI", secret) + " ",
        "Basic " + base64.b64encode(secret.encode()).decode(),
        "Basic é",
        "Token é\udcff",
        "Token " + "A" * 100_000,
    ]
    for authorization in wrong:
        with pytest.raises(UnauthenticatedError) as refused:
            knock(callers, authorization)
        assert str(refused.value) == REFUSED, authorization
    assert knock(callers, f"Token {other}", Scope.TAXII) == "XB-NCVI"


def test_there_are_no_secrets_before_the_surface_was_opened(callers: Callers, xa: Node, xb: Node) -> None:
    with pytest.raises(ConflictError):
        callers.issue_secret("XB-NCVI", Scope.HASHSHARING, 30, "duty-officer")
    open_surface(xa)
    open_surface(xa, partner="XC-NCVI")
    for partner in ("XC-NCVI", "XZ-NCVI"):
        with pytest.raises(NotFoundError):
            callers.issue_secret(partner, Scope.HASHSHARING, 30, "duty-officer")
    for surface, days in ((Scope.NATIVE, 30), (Scope.LOG, 30), (Scope.HASHSHARING, 0), (Scope.HASHSHARING, 366)):
        with pytest.raises(MalformedError):
            callers.issue_secret("XB-NCVI", surface, days, "duty-officer")
    assert events(xa, EventKind.SECRET_CHANGED) == []
    assert callers.issue_secret("XB-NCVI", Scope.HASHSHARING, 365, "duty-officer")


def test_a_partner_has_a_few_secrets_for_a_surface_at_most(callers: Callers, secret: str, clock: FakeClock) -> None:
    for _ in range(MAX_SECRETS - 1):
        identifier, _ = callers.issue_secret("XB-NCVI", Scope.HASHSHARING, 365, "duty-officer")
    with pytest.raises(ConflictError):
        callers.issue_secret("XB-NCVI", Scope.HASHSHARING, 30, "duty-officer")
    callers.revoke_secret(identifier, "duty-officer")
    assert callers.issue_secret("XB-NCVI", Scope.HASHSHARING, 30, "duty-officer")
    clock.advance(30 * 86_400)  # two have run out, which is as good as revoked
    assert callers.issue_secret("XB-NCVI", Scope.HASHSHARING, 30, "duty-officer")


@pytest.mark.parametrize("end", ["time", "revoked", "shut", "shut and opened again", "row gone", "suspended", "ended"])
def test_a_secret_ends_with_the_next_request(
    callers: Callers, xa: Node, clock: FakeClock, secret: str, end: str
) -> None:
    clock.advance(30 * 86_400 - 1)
    assert knock(callers, f"Token {secret}") == "XB-NCVI"
    if end == "time":
        clock.advance(1)
    elif end == "revoked":
        callers.revoke_secret(secret[:16], "duty-officer")
    elif end == "ended":
        with xa.store.transaction() as tx:
            assert [row.id for row in tx.secrets.end("XB-NCVI")] == [secret[:16]]
            assert tx.secrets.surfaces() == tx.secrets.all() == []
    elif end == "row gone":
        with xa.store.transaction() as tx:
            tx.connection.exec_driver_sql("DELETE FROM surface")
    elif end.startswith("shut"):
        with xa.store.transaction() as tx:
            assert [row.id for row in tx.secrets.close("XB-NCVI", Scope.HASHSHARING)] == [secret[:16]]
        if end != "shut":
            open_surface(xa)
    else:
        set_state(xa, "XB-NCVI", end)
    for node in (callers, Callers(reopened(xa))):
        with pytest.raises(UnauthenticatedError):
            knock(node, f"Token {secret}")


def test_a_secret_that_is_not_there_cannot_be_revoked(callers: Callers, secret: str) -> None:
    callers.revoke_secret(secret[:16], "duty-officer")
    with pytest.raises(NotFoundError):
        callers.revoke_secret(secret[:16], "duty-officer")


def test_a_secret_is_kept_only_as_a_digest_that_nobody_else_can_make(callers: Callers, xa: Node, secret: str) -> None:
    random_part = secret[17:].encode()
    for file in xa.settings.folder.rglob("*"):
        assert not file.is_file() or random_part not in file.read_bytes()
    # Whoever writes the database can neither make a secret nor give one to another partner or surface.
    forged = f"{'1' * 16}.{'A' * 43}"
    with xa.store.transaction() as tx:
        (held,) = tx.secrets.all()
        plain = hashlib.sha256(forged.encode()).digest()
        tx.secrets.add(held.model_copy(update={"id": forged[:16], "digest": plain}))
        tx.secrets.open("XB-NCVI", Scope.TAXII, xa.clock())
    with pytest.raises(UnauthenticatedError):
        knock(callers, f"Token {forged}")
    for change, surface in (("expires = expires + 1", Scope.HASHSHARING), ("surface = 'taxii'", Scope.TAXII)):
        with xa.store.transaction() as tx:
            tx.connection.exec_driver_sql(f"UPDATE client_secret SET {change}")
        with pytest.raises(UnauthenticatedError):
            knock(callers, f"Token {secret}", surface)


def test_the_log_tells_of_secrets_without_telling_them(callers: Callers, xa: Node, secret: str) -> None:
    callers.revoke_secret(secret[:16], "second-officer")
    issued, revoked = events(xa, EventKind.SECRET_CHANGED)
    about = {"partner": "XB-NCVI", "surface": "hashsharing", "secret": secret[:16], "expires": xa.clock() + 30 * 86_400}
    assert (issued.actor, issued.subject, issued.details) == ("duty-officer", "XB-NCVI", {**about, "state": "issued"})
    assert (revoked.actor, revoked.details) == ("second-officer", {**about, "state": "revoked"})


def test_tries_with_a_wrong_secret_are_recorded_within_bounds(
    callers: Callers, xa: Node, secret: str, clock: FakeClock
) -> None:
    clock.now -= clock.now % 60
    with pytest.raises(UnauthenticatedError):
        knock(callers, None, address="192.0.2.1")  # to hear how to prove itself
    assert events(xa, EventKind.TOKEN_REFUSED) == []
    wrong = f"{secret[:16]}.{'A' * 43}"
    for _ in range(MAX_RECORDED_PER_ADDRESS + 3):
        with pytest.raises(UnauthenticatedError):
            knock(callers, basic("XB-NCVI", wrong), address="192.0.2.1")
    recorded = events(xa, EventKind.TOKEN_REFUSED)
    assert len(recorded) == MAX_RECORDED_PER_ADDRESS
    assert {(event.actor, event.details["error"]) for event in recorded} == {("XB-NCVI", "invalid_client")}
    assert "A" * 43 not in str(recorded)


def test_the_last_use_of_a_secret_is_noted_by_the_hour(
    callers: Callers, xa: Node, clock: FakeClock, secret: str
) -> None:
    def used() -> int:
        with xa.store.reading() as tx:
            return tx.secrets.all("XB-NCVI")[0].used

    assert used() == 0
    knock(callers, f"Token {secret}")
    first = clock()
    clock.advance(3599)
    knock(callers, f"Token {secret}")
    assert used() == first
    clock.advance(1)
    knock(callers, f"Token {secret}")
    assert used() == clock()


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
