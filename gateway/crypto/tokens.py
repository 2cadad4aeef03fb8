"""Caller tokens: who is calling, and is it the holder of the key? The only door to PyJWT.

OAuth 2.0 client credentials as FAPI 2.0 wants them, in three steps:

1. The caller signs a *client assertion* (`private_key_jwt`, RFC 7523) and sends it to the token endpoint.
2. It gets an opaque *access token*: 256 random bits, kept here only as its SHA-256.
3. Each request, the one in step 1 included, carries a *DPoP proof* (RFC 9449), signed anew over method, URL, time and
   the access token's hash, with the key whose thumbprint the token was given to. A stolen token alone opens nothing.
   It repeats a nonce that we gave out lately (`nonces`), so that it cannot have been made long before.

Both proofs are compact JWS with at most one spelling:

    base64url(header) "." base64url(claims) "." base64url(signature)
    header of an assertion   {"alg":"Ed25519","kid":"<thumbprint>","typ":"JWT"}
    header of a DPoP proof   {"alg":"Ed25519","jwk":{"crv":"Ed25519","kty":"OKP","x":"…"},"typ":"dpop+jwt"}

PyJWT alone lets through duplicate members, textual times, UTF-16, a byte order mark, padding and any `typ`, and knows
no "Ed25519" (RFC 9864). So `strict_split` is the one reader of a token, with an allow-list of header members; PyJWT's
algorithms then check the signature over what was read, by the one algorithm that belongs to the key.

What is left to the caller of these functions: to remember each `jti` until it expires (replay), in the database; and to
look up the state of the client at each request. All times are Unix seconds; there is no clock here.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, TypeAlias
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePublicKey,
    EllipticCurvePublicNumbers,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from jwt.algorithms import OKPAlgorithm
from jwt.api_jws import PyJWS

from gateway.crypto import canonical
from gateway.crypto.keys import SYSTEM_RANDOM, Random, TokenKey
from gateway.crypto.nonces import Nonces
from gateway.errors import MalformedError, UnauthenticatedError

MAX_TOKEN_CHARS = 8 * 1024  # aiohttp refuses longer header lines anyway; ours have about 600
MAX_PART_DEPTH = 4  # header → jwk → key_ops; claims are flat
MAX_ASSERTION_SECONDS = 3600  # what stock clients (Authlib) put into exp
MAX_SKEW_SECONDS = 60  # FAPI 2.0 Security Profile 5.3.2.1: reject what is dated more than 60 s ahead
MAX_PROOF_AGE_SECONDS = 300  # a proof is made for one request; the jti store need not reach further back
MAX_ID_CHARS = 256  # client id and jti: they are kept and logged
ACCESS_TOKEN_BYTES = 32
COORDINATE_BYTES = 32  # of P-256 and of Ed25519

ASSERTION_HEADER = frozenset({"alg", "typ", "kid"})
DPOP_HEADER = frozenset({"alg", "typ", "jwk"})
ASSERTION_TYPES = ("JWT", "client-authentication+jwt")  # the second: RFC 7523bis, newer clients
DPOP_TYPE = "dpop+jwt"

_BASE64URL = re.compile(r"[A-Za-z0-9_-]+")
_URL = re.compile(r"[!-~]+")
_TIMES = ("exp", "iat", "nbf")
_JWK_MEMBERS = {"OKP": frozenset({"kty", "crv", "x"}), "EC": frozenset({"kty", "crv", "x", "y"})}
_JWK_LABELS = frozenset({"kid", "alg", "use", "key_ops"})  # RFC 7517 4: may stand beside the key, decide nothing
_DEFAULT_PORTS = {"http": 80, "https": 443}

PublicKey: TypeAlias = Ed25519PublicKey | EllipticCurvePublicKey


class TokenAlgorithm(StrEnum):
    """The JOSE names accepted. One belongs to each key; "EdDSA" is the old name of the first (RFC 9864)."""

    ED25519 = "Ed25519"
    EDDSA = "EdDSA"
    ES256 = "ES256"


def _verifier() -> PyJWS:
    """A PyJWS of our own: three algorithms, no HMAC, no "none"; the process-wide one stays as it is."""
    jws = PyJWS(algorithms=[TokenAlgorithm.EDDSA, TokenAlgorithm.ES256])
    jws.register_algorithm(TokenAlgorithm.ED25519, OKPAlgorithm())
    return jws


_JWS = _verifier()


@dataclass(frozen=True, slots=True)
class CallerKey:
    """A public key that a caller is known by, with the one algorithm it is used with.

    `key_id` is the `kid` that the caller writes, "" if it was registered without; the thumbprint always passes too.
    """

    algorithm: TokenAlgorithm
    public: PublicKey
    thumbprint: str
    key_id: str = ""

    @classmethod
    def from_jwk(cls, jwk: object, algorithm: TokenAlgorithm) -> CallerKey:
        """The key in a public JWK (RFC 7517, RFC 8037), checked.

        Raises:
            MalformedError: a private, symmetric or RSA key, another curve, a point that is none, a wrong spelling, or
                a key that this algorithm cannot use.
        """
        if not isinstance(jwk, dict):
            raise MalformedError("jwk: not an object")
        required = _JWK_MEMBERS.get(str(jwk.get("kty")))
        if required is None:
            raise MalformedError("jwk: kty is neither OKP nor EC")
        if not required <= set(jwk) <= required | _JWK_LABELS:  # RFC 9449 4.2: MUST NOT contain a private key
            raise MalformedError("jwk: members are not those of a public key")
        if jwk.get("alg", str(algorithm)) != algorithm:
            raise MalformedError("jwk: made for another alg")
        public = _public_key(jwk, algorithm)
        digest = hashlib.sha256(canonical.encode({name: jwk[name] for name in required})).digest()  # RFC 7638 3
        key_id = jwk.get("kid", "")
        if not isinstance(key_id, str) or len(key_id) > MAX_ID_CHARS:
            raise MalformedError("jwk: kid is not a short text")
        return cls(algorithm, public, _encode(digest), key_id)

    @classmethod
    def of(cls, key: TokenKey) -> CallerKey:
        """The public half of one of our own keys."""
        return cls.from_jwk(key.public_jwk(), TokenAlgorithm.ED25519)


KeyLookup: TypeAlias = Callable[[str], Sequence[CallerKey]]


class SplitToken(NamedTuple):
    """The parts of a token, read strictly and not yet verified."""

    header: dict[str, object]
    claims: dict[str, object]
    signing_input: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Assertion:
    """A verified client assertion. Remember (client_id, jti) until `expires`."""

    client_id: str
    jti: str
    expires: int
    thumbprint: str


@dataclass(frozen=True, slots=True)
class DpopProof:
    """A verified DPoP proof. Remember (thumbprint, jti) until iat + MAX_PROOF_AGE_SECONDS.

    `nonce_age`: seconds since its nonce was given out; None if none was asked for.
    """

    jti: str
    thumbprint: str
    iat: int
    nonce_age: int | None = None


class NonceWantedError(UnauthenticatedError):
    """The proof is right but for its nonce, which is missing or old: ask for another proof, with a fresh one."""


def strict_split(token: str, *, header_members: frozenset[str]) -> SplitToken:
    """The parts of a compact JWS, if it is written in the one way that we accept.

    Raises:
        UnauthenticatedError: too long, not three parts, not canonical base64url, not strict JSON, a header member
            outside the allow-list (so no crit, jku, x5u, x5c, b64), an alg not accepted, a time that is no integer.
    """
    if len(token) > MAX_TOKEN_CHARS:
        raise UnauthenticatedError("token: too long")
    parts = token.split(".")
    if len(parts) != 3:
        raise UnauthenticatedError("token: not three parts")
    header, claims = (_parse_part(part, what) for part, what in zip(parts, ("header", "claims"), strict=False))
    foreign = set(header) - header_members
    if foreign or "alg" not in header:
        raise UnauthenticatedError("token: header members are not those allowed")
    if header["alg"] not in tuple(TokenAlgorithm):  # no "none", no HMAC
        raise UnauthenticatedError("token: alg is not accepted")
    for name in _TIMES:
        value = claims.get(name, 0)
        if not isinstance(value, int) or isinstance(value, bool):
            raise UnauthenticatedError(f"token: {name} is not an integer")
    return SplitToken(header, claims, f"{parts[0]}.{parts[1]}".encode("ascii"), _decode(parts[2], "signature"))


def make_assertion(
    key: TokenKey, client_id: str, audience: str, now: int, jti: str, *, lifetime_seconds: int = 60
) -> str:
    """A client assertion for this issuer, good once and for `lifetime_seconds`."""
    claims = {
        "iss": client_id,
        "sub": client_id,
        "aud": audience,
        "iat": now,
        "exp": now + lifetime_seconds,
        "jti": jti,
    }
    return _sign(key, {"typ": "JWT", "kid": key.thumbprint()}, claims)


def verify_assertion(
    token: str, keys_of: KeyLookup, audience: str, now: int, *, other_audiences: frozenset[str] = frozenset()
) -> Assertion:
    """Who signed this assertion, for us and for now.

    Args:
        keys_of: client id → its registered keys (two while one is being replaced), empty if it is not known.
        audience: our issuer identifier.
        other_audiences: the token endpoint's URL, where stock clients are served that put it into `aud`.

    Raises:
        UnauthenticatedError: anything else. The text names the fault, and for times the difference in seconds; it does
            not tell an unknown client from a wrong signature.
    """
    split = strict_split(token, header_members=ASSERTION_HEADER)
    if split.header.get("typ", "JWT") not in ASSERTION_TYPES:
        raise UnauthenticatedError("assertion: typ is not that of a client assertion")
    client_id = _text_claim(split.claims, "iss", "assertion")  # read before it is proved, only to find the key
    key = _verify_with_one_of(split, keys_of(client_id) or (_NOBODY,))
    if split.claims.get("sub") != client_id:  # RFC 7523 3: for client authentication, sub MUST be the client id
        raise UnauthenticatedError("assertion: iss and sub differ")
    named = split.claims.get("aud")
    if not isinstance(named, str) or named not in {audience, *other_audiences}:  # FAPI 2.0 5.3.2.1: a string, no list
        raise UnauthenticatedError("assertion: aud is not this issuer")
    expires = _verify_times(split.claims, now)
    return Assertion(client_id, _text_claim(split.claims, "jti", "assertion"), expires, key.thumbprint)


def make_dpop(
    key: TokenKey,
    method: str,
    url: str,
    now: int,
    jti: str,
    *,
    access_token: str | None = None,
    nonce: str | None = None,
) -> str:
    """A proof of possession for one request."""
    claims: dict[str, object] = {"jti": jti, "htm": method, "htu": _target(url), "iat": now}
    if access_token is not None:
        claims["ath"] = _encode(token_hash(access_token))
    if nonce is not None:
        claims["nonce"] = nonce
    return _sign(key, {"typ": DPOP_TYPE, "jwk": key.public_jwk()}, claims)


def verify_dpop(
    proof: str,
    method: str,
    url: str,
    now: int,
    *,
    access_token: str | None = None,
    expected_thumbprint: str | None = None,
    nonces: Nonces | None = None,
) -> DpopProof:
    """Which key made this proof, for exactly this request (RFC 9449 4.3).

    Args:
        method, url: of the request, the URL as the caller sees it (scheme and host of our public address).
        access_token: the token that came with the request; None at the token endpoint alone.
        expected_thumbprint: the key that the access token is bound to.
        nonces: whose nonces we ask for; None: the caller need not bring one.

    Raises:
        NonceWantedError: all is right so far, but the nonce is not one of ours, or is old. Its time and its jti have
            not been looked at.
        UnauthenticatedError: another method, URL, token, key or time, a key that is not public, or a wrong signature;
            the text says which.
    """
    split = strict_split(proof, header_members=DPOP_HEADER)
    if split.header.get("typ") != DPOP_TYPE:  # RFC 9449 4.3 check 4
        raise UnauthenticatedError("DPoP: typ is not dpop+jwt")
    key = _key_in(split.header)
    _verify_signature(split, key)
    if expected_thumbprint is not None and not _equal(key.thumbprint, expected_thumbprint):
        raise UnauthenticatedError("DPoP: the access token is bound to another key")
    if split.claims.get("htm") != method:
        raise UnauthenticatedError("DPoP: htm is another method")
    if _target(_text_claim(split.claims, "htu", "DPoP", MAX_TOKEN_CHARS)) != _target(url):
        raise UnauthenticatedError("DPoP: htu is another URL")
    if access_token is not None and not _equal(split.claims.get("ath"), _encode(token_hash(access_token))):
        raise UnauthenticatedError("DPoP: ath is of another access token")
    nonce_age = None if nonces is None else nonces.age(split.claims.get("nonce"), now)
    if nonces is not None and nonce_age is None:  # RFC 9449 4.3 check 10
        raise NonceWantedError("DPoP: nonce is missing, not ours or old")
    made = _verify_proof_time(split.claims, now)
    return DpopProof(_text_claim(split.claims, "jti", "DPoP"), key.thumbprint, made, nonce_age)


def new_access_token(random: Random = SYSTEM_RANDOM) -> str:
    """A fresh opaque access token: 256 bits, base64url."""
    return _encode(random.bytes(ACCESS_TOKEN_BYTES))


def token_hash(token: str) -> bytes:
    """The SHA-256 under which an access token is kept, and which a DPoP proof names (`ath`)."""
    if not token.isascii():
        raise UnauthenticatedError("access token: not ASCII")
    return hashlib.sha256(token.encode("ascii")).digest()


# Parts


def _parse_part(part: str, what: str) -> dict[str, object]:
    raw = _decode(part, what)
    try:
        value = canonical.parse_json(raw, max_bytes=MAX_TOKEN_CHARS, max_depth=MAX_PART_DEPTH)
    except MalformedError as error:
        raise UnauthenticatedError(f"token: {what}: {error.message}") from error
    if not isinstance(value, dict):
        raise UnauthenticatedError(f"token: {what}: not an object")
    return dict(value)


def _decode(part: str, what: str) -> bytes:
    """RFC 7515 2: base64url without padding; and only the spelling that an encoder writes."""
    if not _BASE64URL.fullmatch(part) or len(part) % 4 == 1:
        raise UnauthenticatedError(f"token: {what}: not base64url without padding")
    raw = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    if _encode(raw) != part:
        raise UnauthenticatedError(f"token: {what}: base64url with stray bits")
    return raw


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _sign(key: TokenKey, header: dict[str, object], claims: dict[str, object]) -> str:
    payload = canonical.encode(claims)
    return _JWS.encode(payload, key.private, algorithm=TokenAlgorithm.ED25519, headers=header)


# Keys and signatures


def _public_key(jwk: dict[str, object], algorithm: TokenAlgorithm) -> PublicKey:
    crv, wanted = jwk["crv"], "P-256" if algorithm is TokenAlgorithm.ES256 else "Ed25519"
    if crv != wanted or (jwk["kty"] == "EC") != (wanted == "P-256"):
        raise MalformedError("jwk: crv does not fit the alg")
    x = _coordinate(jwk, "x")
    try:
        if wanted == "Ed25519":
            return Ed25519PublicKey.from_public_bytes(x)
        numbers = EllipticCurvePublicNumbers(
            int.from_bytes(x, "big"), int.from_bytes(_coordinate(jwk, "y"), "big"), SECP256R1()
        )
        return numbers.public_key()
    except ValueError as error:
        raise MalformedError("jwk: not a point of its curve") from error


def _coordinate(jwk: dict[str, object], name: str) -> bytes:
    value = jwk[name]
    if not isinstance(value, str):
        raise MalformedError(f"jwk: {name} is not text")
    try:
        raw = _decode(value, name)
    except UnauthenticatedError as error:
        raise MalformedError(f"jwk: {name} is not base64url") from error
    if len(raw) != COORDINATE_BYTES:  # RFC 7518 6.2.1.2: the full size, leading zeroes kept
        raise MalformedError(f"jwk: {name} is not 32 bytes long")
    return raw


def _key_in(header: dict[str, object]) -> CallerKey:
    """The public key that a DPoP proof carries."""
    try:
        return CallerKey.from_jwk(header.get("jwk"), TokenAlgorithm(str(header["alg"])))
    except MalformedError as error:
        raise UnauthenticatedError(f"DPoP: {error.message}") from error


def _verify_with_one_of(split: SplitToken, keys: Sequence[CallerKey]) -> CallerKey:
    """The key of this client that signed; `kid` narrows the choice, it never widens it."""
    kid = split.header.get("kid")
    fault: UnauthenticatedError | None = None
    for key in keys:
        if kid is None or kid == key.thumbprint or (kid == key.key_id and kid):
            try:
                _verify_signature(split, key)
            except UnauthenticatedError as error:
                fault = error
            else:
                return key
    raise UnauthenticatedError("assertion: not signed by a key of this client") from fault


def _verify_signature(split: SplitToken, key: CallerKey) -> None:
    """By the key's own algorithm, over the parts as they were split: no second parser reads the token."""
    if split.header["alg"] != key.algorithm:
        raise UnauthenticatedError("token: alg is not that of the key")
    algorithm = _JWS.get_algorithm_by_name(key.algorithm)
    if not algorithm.verify(split.signing_input, algorithm.prepare_key(key.public), split.signature):
        raise UnauthenticatedError("token: the signature is wrong")


# Claims


def _text_claim(claims: dict[str, object], name: str, what: str, max_chars: int = MAX_ID_CHARS) -> str:
    value = claims.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= max_chars:
        raise UnauthenticatedError(f"{what}: {name} is missing or not a short text")
    return value


def _time_claim(claims: dict[str, object], name: str, what: str) -> int:
    value = claims.get(name)
    if not isinstance(value, int):
        raise UnauthenticatedError(f"{what}: {name} is missing")
    return value


def _verify_times(claims: dict[str, object], now: int) -> int:
    """The expiry of an assertion whose times fit."""
    expires = _time_claim(claims, "exp", "assertion")  # RFC 7523 3: MUST contain exp
    if expires <= now:
        raise UnauthenticatedError(f"assertion: exp was {now - expires} s ago{_skew_hint(claims, now)}")
    if expires > now + MAX_ASSERTION_SECONDS + MAX_SKEW_SECONDS:
        raise UnauthenticatedError(f"assertion: exp is {expires - now} s ahead, at most {MAX_ASSERTION_SECONDS} s")
    _refuse_future(claims, now, "assertion")
    return expires


def _verify_proof_time(claims: dict[str, object], now: int) -> int:
    """The time of a DPoP proof, if it is recent."""
    made = _time_claim(claims, "iat", "DPoP")
    _refuse_future(claims, now, "DPoP")
    if made < now - MAX_PROOF_AGE_SECONDS:
        raise UnauthenticatedError(f"DPoP: iat is {now - made} s old; is the caller's clock slow?")
    if "exp" in claims and _time_claim(claims, "exp", "DPoP") <= now:
        raise UnauthenticatedError("DPoP: exp has passed")
    return made


def _refuse_future(claims: dict[str, object], now: int, what: str) -> None:
    for name in ("iat", "nbf"):
        ahead = _time_claim(claims, name, what) - now if name in claims else 0
        if ahead > MAX_SKEW_SECONDS:
            raise UnauthenticatedError(
                f"{what}: {name} is {ahead} s ahead of this clock, at most {MAX_SKEW_SECONDS} s; set the clocks"
            )


def _skew_hint(claims: dict[str, object], now: int) -> str:
    if "iat" not in claims:
        return ""
    return f"; made {now - _time_claim(claims, 'iat', 'assertion')} s ago if the caller's clock is right"


def _equal(found: object, expected: str) -> bool:
    return isinstance(found, str) and hmac.compare_digest(found.encode(), expected.encode())


def _target(url: str) -> str:
    """A URL as htu compares it (RFC 9449 4.3 check 9): no query, no fragment, scheme and host as RFC 3986 6.2.3."""
    if not _URL.fullmatch(url):  # urlsplit would silently drop line ends and tabs
        raise UnauthenticatedError("DPoP: htu is not a URL")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UnauthenticatedError("DPoP: htu is not a URL") from error
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or "@" in parts.netloc:
        raise UnauthenticatedError("DPoP: htu is not a URL")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    place = host if port in (None, _DEFAULT_PORTS[parts.scheme]) else f"{host}:{port}"
    return f"{parts.scheme}://{place}{parts.path or '/'}"


# Tried for clients that nobody registered, so that they cost the same time and get the same answer.
_NOBODY = CallerKey.of(TokenKey.generate())
