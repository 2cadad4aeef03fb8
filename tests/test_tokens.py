"""Caller tokens: a table of forged and of validly signed but wrong tokens, none accepted; and the good ones."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.crypto import tokens
from gateway.crypto.keys import TokenKey
from gateway.crypto.nonces import Nonces
from gateway.crypto.tokens import CallerKey, NonceWantedError, TokenAlgorithm
from gateway.errors import MalformedError, UnauthenticatedError

VECTORS = json.loads((Path(__file__).parent / "vectors" / "tokens.json").read_text())
NOW = 1_795_000_000
ISSUER = "https://xa-ncvi.example"
TOKEN_URL = "https://xa-ncvi.example/oauth/token"
PAGE_URL = "https://xa-ncvi.example/v1/pages"
CLIENT = "XB-NCVI"
KEY = TokenKey.from_seed(bytes(range(32)))
OTHER = TokenKey.from_seed(bytes(range(32, 64)))
P256 = ec.derive_private_key(7, ec.SECP256R1())
ACCESS = "made-up-access-token-of-forty-three-letters"
NONCES = Nonces(bytes(32))
OTHER_NONCES = Nonces(bytes(31) + b"x")

Json = dict[str, object]


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def es256(message: bytes, key: ec.EllipticCurvePrivateKey = P256) -> bytes:
    r, s = decode_dss_signature(key.sign(message, ec.ECDSA(hashes.SHA256())))
    size = (key.curve.key_size + 7) // 8
    return r.to_bytes(size, "big") + s.to_bytes(size, "big")


def p_jwk(key: ec.EllipticCurvePrivateKey, crv: str) -> Json:
    numbers = key.public_key().public_numbers()
    size = (key.curve.key_size + 7) // 8
    return {
        "kty": "EC",
        "crv": crv,
        "x": b64(numbers.x.to_bytes(size, "big")),
        "y": b64(numbers.y.to_bytes(size, "big")),
    }


def raw_token(header: str | bytes, claims: str | bytes, sign: Callable[[bytes], bytes] = KEY.private.sign) -> str:
    """A token over any bytes, signed rightly: what a hostile library could send."""
    parts = [b64(part if isinstance(part, bytes) else part.encode()) for part in (header, claims)]
    message = ".".join(parts)
    return f"{message}.{b64(sign(message.encode()))}"


ASSERTION_HEADER: Json = {"alg": "Ed25519", "typ": "JWT"}
ASSERTION: Json = {"iss": CLIENT, "sub": CLIENT, "aud": ISSUER, "iat": NOW, "exp": NOW + 60, "jti": "jti-1"}
DPOP_HEADER: Json = {"alg": "Ed25519", "typ": "dpop+jwt", "jwk": KEY.public_jwk()}
ATH = b64(hashlib.sha256(ACCESS.encode()).digest())
DPOP: Json = {"jti": "jti-2", "htm": "POST", "htu": PAGE_URL, "iat": NOW, "ath": ATH, "nonce": NONCES.issue(NOW)}


def assertion(header: Json | None = None, sign: Callable[[bytes], bytes] = KEY.private.sign, **claims: object) -> str:
    """The good assertion with some members replaced, or left out where None is given."""
    return raw_token(dumped(ASSERTION_HEADER, header or {}), dumped(ASSERTION, claims), sign)


def dpop(header: Json | None = None, sign: Callable[[bytes], bytes] = KEY.private.sign, **claims: object) -> str:
    return raw_token(dumped(DPOP_HEADER, header or {}), dumped(DPOP, claims), sign)


def dumped(good: Json, changes: Json) -> str:
    return json.dumps({name: value for name, value in {**good, **changes}.items() if value is not None})


def keys_of(client_id: str) -> Sequence[CallerKey]:
    registered = {
        CLIENT: [CallerKey.of(KEY)],
        "XC-NCVI": [CallerKey.from_jwk(p_jwk(P256, "P-256"), TokenAlgorithm.ES256)],
        "XD-NCVI": [CallerKey.from_jwk({**KEY.public_jwk(), "kid": "stock"}, TokenAlgorithm.EDDSA)],
        "XE-NCVI": [CallerKey.of(OTHER), CallerKey.of(KEY)],
    }
    return registered.get(client_id, ())


def check_assertion(token: str) -> tokens.Assertion:
    return tokens.verify_assertion(token, keys_of, ISSUER, NOW)


def check_dpop(token: str) -> tokens.DpopProof:
    return tokens.verify_dpop(token, "POST", PAGE_URL, NOW, access_token=ACCESS, expected_thumbprint=KEY.thumbprint())


def hs256(secret: bytes) -> Callable[[bytes], bytes]:
    return lambda message: hmac.digest(secret, message, "sha256")


def pem() -> bytes:
    return KEY.private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def spelled(token: str, part: int, change: Callable[[str], str]) -> str:
    parts = token.split(".")
    parts[part] = change(parts[part])
    return ".".join(parts)


def resigned(token: str, sign: Callable[[bytes], bytes] = KEY.private.sign) -> str:
    message = token.rpartition(".")[0]
    return f"{message}.{b64(sign(message.encode()))}"


def stray_bits(part: str) -> str:
    """The same bytes with a bit set that the decoder drops."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    assert len(part) % 4, "this part has no spare bits"
    return part[:-1] + alphabet[alphabet.index(part[-1]) | 1]


HEADER_TEXT, CLAIMS_TEXT = json.dumps(ASSERTION_HEADER), json.dumps(ASSERTION)
RSA = rsa.generate_private_key(65537, 2048)
P384 = ec.derive_private_key(7, ec.SECP384R1())
K256 = ec.derive_private_key(7, ec.SECP256K1())
ED448 = ed448.Ed448PrivateKey.generate()

# name → (token, word of the answer). Signed rightly by the registered key unless the name says otherwise.
WRONG_ASSERTIONS: dict[str, tuple[str, str]] = {
    # algorithm and key confusion
    "alg none": (raw_token('{"alg":"none"}', CLAIMS_TEXT, lambda _: b"x"), "alg"),
    "alg none, no signature": (raw_token('{"alg":"none"}', CLAIMS_TEXT, lambda _: b""), "alg"),
    "no signature": (assertion(None, lambda _: b""), "signature"),
    "alg None": (assertion({"alg": "None"}), "alg"),
    "alg missing": (assertion({"alg": None}), "header"),
    "alg a list": (assertion({"alg": ["Ed25519"]}), "alg"),
    "alg in small letters": (assertion({"alg": "ed25519"}), "alg"),
    "HS256 with the raw public key": (assertion({"alg": "HS256"}, hs256(KEY.public)), "alg"),
    "HS256 with the PEM public key": (assertion({"alg": "HS256"}, hs256(pem())), "alg"),
    "HS256 with the JWK": (assertion({"alg": "HS256"}, hs256(json.dumps(KEY.public_jwk()).encode())), "alg"),
    "RS256": (assertion({"alg": "RS256"}), "alg"),
    "ES256K": (assertion({"alg": "ES256K"}, lambda m: es256(m, K256)), "alg"),
    "EdDSA where Ed25519 is registered": (assertion({"alg": "EdDSA"}), "not signed by a key"),
    "ES256 where Ed25519 is registered": (assertion({"alg": "ES256"}, es256), "not signed by a key"),
    "Ed25519 where ES256 is registered": (assertion(iss="XC-NCVI", sub="XC-NCVI"), "not signed by a key"),
    "ES256 by another curve": (
        assertion({"alg": "ES256"}, lambda m: es256(m, P384), iss="XC-NCVI", sub="XC-NCVI"),
        "not signed by a key",
    ),
    "ES256 in DER": (
        assertion({"alg": "ES256"}, lambda m: P256.sign(m, ec.ECDSA(hashes.SHA256())), iss="XC-NCVI", sub="XC-NCVI"),
        "not signed by a key",
    ),
    "ES256 of zeroes (CVE-2022-21449)": (
        assertion({"alg": "ES256"}, lambda _: bytes(64), iss="XC-NCVI", sub="XC-NCVI"),
        "not signed by a key",
    ),
    "Ed448": (assertion({"alg": "EdDSA"}, ED448.sign, iss="XD-NCVI", sub="XD-NCVI"), "not signed by a key"),
    "another client's key": (assertion(None, OTHER.private.sign), "not signed by a key"),
    "an unknown client": (assertion(iss="XZ-NCVI", sub="XZ-NCVI"), "not signed by a key"),
    "an unknown client, no signature": (assertion(None, lambda _: b"x", iss="XZ-NCVI"), "not signed by a key"),
    "signature of zeroes": (assertion(None, lambda _: bytes(64)), "not signed by a key"),
    "signature cut": (assertion()[:-2], "not signed by a key"),
    # headers that choose a key or change the meaning
    "kid of a path": (assertion({"kid": "../../dev/null"}), "not signed by a key"),
    "kid with SQL": (assertion({"kid": "x' UNION SELECT '00"}), "not signed by a key"),
    "kid of another key": (assertion({"kid": OTHER.thumbprint()}), "not signed by a key"),
    "kid a number": (assertion({"kid": 1}), "not signed by a key"),
    "empty kid": (assertion({"kid": ""}), "not signed by a key"),
    "jwk": (assertion({"jwk": OTHER.public_jwk()}, OTHER.private.sign), "header members"),
    "jku": (assertion({"jku": "https://evil.example/keys"}), "header members"),
    "x5u": (assertion({"x5u": "https://evil.example/chain"}), "header members"),
    "x5c": (assertion({"x5c": ["MIIB"]}), "header members"),
    "crit": (assertion({"crit": ["exp"]}), "header members"),
    "b64 and crit": (assertion({"b64": False, "crit": ["b64"]}), "header members"),
    "zip": (assertion({"zip": "DEF"}), "header members"),
    "cty": (assertion({"cty": "JWT"}), "header members"),
    "typ of a DPoP proof": (assertion({"typ": "dpop+jwt"}), "typ"),
    "typ of an access token": (assertion({"typ": "at+jwt"}), "typ"),
    "typ a list": (assertion({"typ": ["JWT"]}), "typ"),
    "a whole DPoP proof": (dpop(), "header members"),
    # spelling
    "alg twice": (raw_token('{"alg":"none","alg":"Ed25519"}', CLAIMS_TEXT), "twice"),
    "sub twice": (raw_token(HEADER_TEXT, CLAIMS_TEXT[:-1] + ',"sub":"XA-NCVI"}'), "twice"),
    "exp twice": (raw_token(HEADER_TEXT, CLAIMS_TEXT[:-1] + ',"exp":9999999999}'), "twice"),
    "byte order mark": (raw_token(HEADER_TEXT, b"\xef\xbb\xbf" + CLAIMS_TEXT.encode()), "byte order mark"),
    "byte order mark in the header": (
        raw_token(b"\xef\xbb\xbf" + HEADER_TEXT.encode(), CLAIMS_TEXT),
        "byte order mark",
    ),
    "UTF-16": (raw_token(HEADER_TEXT, CLAIMS_TEXT.encode("utf-16")), "JSON"),
    "UTF-16 without mark": (raw_token(HEADER_TEXT, CLAIMS_TEXT.encode("utf-16-le")), "JSON"),
    "Latin-1": (raw_token(HEADER_TEXT, '{"iss":"é"}'.encode("latin-1")), "UTF-8"),
    "lone surrogate": (raw_token(HEADER_TEXT, '{"iss":"\\ud800"}'), "surrogate"),
    "claims a list": (raw_token(HEADER_TEXT, "[]"), "object"),
    "header a text": (raw_token('"Ed25519"', CLAIMS_TEXT), "object"),
    "not JSON": (raw_token(HEADER_TEXT, "iss=XB"), "JSON"),
    "deep claims": (raw_token(HEADER_TEXT, '{"a":' * 50 + "1" + "}" * 50), "levels"),
    "padded header": (resigned(spelled(assertion(), 0, lambda p: p + "=" * (-len(p) % 4))), "base64url"),
    "padded claims": (resigned(spelled(assertion(jti="jti"), 1, lambda p: p + "=" * (-len(p) % 4 or 4))), "base64url"),
    "padded signature": (spelled(assertion(), 2, lambda p: p + "=="), "base64url"),
    "claims one letter short of a byte": (
        resigned(spelled(assertion(), 1, lambda p: p + "A" * (5 - len(p) % 4))),
        "base64url",
    ),
    "stray bits in the signature": (spelled(assertion(), 2, stray_bits), "stray bits"),
    "stray bits in the header": (resigned(spelled(assertion({"kid": None}), 0, stray_bits)), "stray bits"),
    "plain base64": (resigned(spelled(assertion(jti="??>>"), 1, lambda p: p[:-1] + "+")), "base64url"),
    "line end in a part": (resigned(spelled(assertion(), 1, lambda p: p[:8] + "\n" + p[8:])), "base64url"),
    "letters outside ASCII": (spelled(assertion(), 1, lambda p: "é" + p[1:]), "base64url"),
    "four parts": (assertion() + ".AAAA", "three parts"),
    "two parts": (assertion().rpartition(".")[0], "three parts"),
    "five parts (JWE)": ("a.b.c.d.e", "three parts"),
    "empty parts": ("..", "base64url"),
    "empty": ("", "three parts"),
    "JSON serialisation": ('{"payload":"","signature":""}', "three parts"),
    "nine kilobytes": (assertion(jti="x" * 9000), "too long"),
    # claims, rightly signed
    "exp missing": (assertion(exp=None), "exp is missing"),
    "exp as text": (assertion(exp="9999999999"), "exp is not an integer"),
    "exp a float": (assertion(exp=NOW + 60.5), "float"),
    "exp with exponent": (raw_token(HEADER_TEXT, CLAIMS_TEXT.replace(str(NOW + 60), "1e99")), "float"),
    "exp true": (assertion(exp=True), "exp is not an integer"),
    "exp null": (raw_token(HEADER_TEXT, CLAIMS_TEXT.replace(str(NOW + 60), "null")), "exp is not an integer"),
    "exp a list": (assertion(exp=[NOW + 60]), "exp is not an integer"),
    "exp passed": (assertion(exp=NOW), "exp was 0 s ago"),
    "exp far ahead": (assertion(exp=NOW + 3661), "exp is 3661 s ahead"),
    "exp beyond 2^53": (assertion(exp=2**60), "2\\^53"),
    "iat ahead": (assertion(iat=NOW + 61), "iat is 61 s ahead"),
    "iat as text": (assertion(iat=str(NOW)), "iat is not an integer"),
    "nbf ahead": (assertion(nbf=NOW + 61), "nbf is 61 s ahead"),
    "nbf as text": (assertion(nbf="0"), "nbf is not an integer"),
    "aud missing": (assertion(aud=None), "aud"),
    "aud of another": (assertion(aud="https://xc-ncvi.example"), "aud"),
    "aud a list": (assertion(aud=[ISSUER]), "aud"),
    "aud an object": (assertion(aud={ISSUER: 1}), "aud"),
    "aud with a slash": (assertion(aud=ISSUER + "/"), "aud"),
    "aud the token URL, not allowed": (assertion(aud=TOKEN_URL), "aud"),
    "aud empty": (assertion(aud=""), "aud"),
    "sub another": (assertion(sub="XC-NCVI"), "sub"),
    "sub missing": (assertion(sub=None), "sub"),
    "iss missing": (assertion(iss=None), "iss"),
    "iss a list": (assertion(iss=[CLIENT]), "iss"),
    "iss very long": (assertion(iss="X" * 257), "iss"),
    "jti missing": (assertion(jti=None), "jti"),
    "jti a number": (assertion(jti=1), "jti"),
    "jti empty": (assertion(jti=""), "jti"),
    "jti very long": (assertion(jti="x" * 257), "jti"),
}

RSA_JWK = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(RSA.public_key()))
PRIVATE_JWK = {**KEY.public_jwk(), "d": b64(KEY.seed)}

WRONG_PROOFS: dict[str, tuple[str, str]] = {
    "htm another": (dpop(htm="GET"), "htm"),
    "htm in small letters": (dpop(htm="post"), "htm"),
    "htm missing": (dpop(htm=None), "htm"),
    "htm a list": (dpop(htm=["POST"]), "htm"),
    "htu another path": (dpop(htu=PAGE_URL + "/1"), "htu"),
    "htu another host": (dpop(htu="https://xb-ncvi.example/v1/pages"), "htu"),
    "htu another scheme": (dpop(htu="http://xa-ncvi.example/v1/pages"), "htu"),
    "htu another port": (dpop(htu="https://xa-ncvi.example:8443/v1/pages"), "htu"),
    "htu with a user": (dpop(htu="https://xa-ncvi.example@evil.example/v1/pages"), "htu"),
    "htu with a user at our host": (dpop(htu="https://user@xa-ncvi.example/v1/pages"), "htu"),
    "htu with a line end": (dpop(htu="https://xa-ncvi.example/v1/pa\nges"), "htu"),
    "htu with a strange port": (dpop(htu="https://xa-ncvi.example:port/v1/pages"), "htu"),
    "htu with an open bracket": (dpop(htu="https://[xa-ncvi.example/v1/pages"), "htu"),
    "htu relative": (dpop(htu="/v1/pages"), "htu"),
    "htu missing": (dpop(htu=None), "htu"),
    "htu a list": (dpop(htu=[PAGE_URL]), "htu"),
    "path in other letters": (dpop(htu="https://xa-ncvi.example/V1/pages"), "htu"),
    "ath of another token": (dpop(ath=b64(hashlib.sha256(b"other").digest())), "ath"),
    "ath missing": (dpop(ath=None), "ath"),
    "ath in hex": (dpop(ath=hashlib.sha256(ACCESS.encode()).hexdigest()), "ath"),
    "ath a number": (dpop(ath=1), "ath"),
    "iat old": (dpop(iat=NOW - 301), "iat is 301 s old"),
    "iat ahead": (dpop(iat=NOW + 61), "iat is 61 s ahead"),
    "iat missing": (dpop(iat=None), "iat is missing"),
    "iat as text": (dpop(iat=str(NOW)), "iat is not an integer"),
    "iat a float": (dpop(iat=NOW + 0.5), "float"),
    "exp passed": (dpop(exp=NOW), "exp"),
    "nbf ahead": (dpop(nbf=NOW + 61), "nbf"),
    "jti missing": (dpop(jti=None), "jti"),
    "typ JWT": (dpop({"typ": "JWT"}), "typ"),
    "typ missing": (dpop({"typ": None}), "typ"),
    "kid beside the key": (dpop({"kid": KEY.thumbprint()}), "header members"),
    "jku": (dpop({"jku": "https://evil.example"}), "header members"),
    "x5u": (dpop({"x5u": "https://evil.example/chain"}), "header members"),
    "x5c": (dpop({"x5c": ["MIIB"]}), "header members"),
    "crit": (dpop({"crit": ["exp"]}), "header members"),
    "crit for a critical nonce": (dpop({"crit": ["nonce"], "nonce": "n"}), "header members"),
    "jwk with a member twice": (
        raw_token(json.dumps(DPOP_HEADER).replace('"kty"', '"kty": "EC", "kty"', 1), json.dumps(DPOP)),
        "twice",
    ),
    "jwk a list": (dpop({"jwk": [KEY.public_jwk()]}), "jwk"),
    "alg twice": (raw_token('{"alg":"none",' + json.dumps(DPOP_HEADER)[1:], json.dumps(DPOP)), "twice"),
    "byte order mark": (
        raw_token(json.dumps(DPOP_HEADER), b"\xef\xbb\xbf" + json.dumps(DPOP).encode()),
        "byte order mark",
    ),
    "UTF-16": (raw_token(json.dumps(DPOP_HEADER), json.dumps(DPOP).encode("utf-16")), "JSON"),
    "padded signature": (spelled(dpop(), 2, lambda p: p + "=="), "base64url"),
    "exp as text": (dpop(exp=str(NOW + 60)), "exp is not an integer"),
    "iat beyond 2^53": (dpop(iat=2**60), "2\\^53"),
    "iat before time began": (dpop(iat=-1), "s old"),
    "jwk missing": (dpop({"jwk": None}), "jwk"),
    "jwk a text": (dpop({"jwk": "key"}), "jwk"),
    "jwk with the private key": (dpop({"jwk": PRIVATE_JWK}), "public key"),
    "jwk with x5u": (dpop({"jwk": {**KEY.public_jwk(), "x5u": "https://evil.example"}}), "public key"),
    "jwk without x": (dpop({"jwk": {"kty": "OKP", "crv": "Ed25519"}}), "public key"),
    "jwk RSA": (dpop({"jwk": RSA_JWK}), "kty"),
    "jwk oct, HS256": (
        dpop({"alg": "HS256", "jwk": {"kty": "oct", "k": b64(b"k" * 32)}}, hs256(b"k" * 32)),
        "alg",
    ),
    "jwk oct": (dpop({"jwk": {"kty": "oct", "k": b64(b"k" * 32)}}), "kty"),
    "jwk Ed448": (dpop({"jwk": {**KEY.public_jwk(), "crv": "Ed448"}}), "crv"),
    "jwk X25519": (dpop({"jwk": {**KEY.public_jwk(), "crv": "X25519"}}), "crv"),
    "jwk P-384": (dpop({"alg": "ES256", "jwk": p_jwk(P384, "P-384")}, lambda m: es256(m, P384)), "crv"),
    "jwk P-384 said to be P-256": (dpop({"alg": "ES256", "jwk": p_jwk(P384, "P-256")}), "32 bytes"),
    "jwk secp256k1 said to be P-256": (
        dpop({"alg": "ES256", "jwk": p_jwk(K256, "P-256")}, lambda m: es256(m, K256)),
        "point",
    ),
    "jwk point at zero": (
        dpop({"alg": "ES256", "jwk": {**p_jwk(P256, "P-256"), "x": b64(bytes(32)), "y": b64(bytes(32))}}),
        "point",
    ),
    "jwk OKP with P-256": (dpop({"alg": "ES256", "jwk": {**KEY.public_jwk(), "crv": "P-256"}}), "crv"),
    "jwk EC with Ed25519": (dpop({"jwk": {**p_jwk(P256, "P-256"), "crv": "Ed25519"}}), "crv"),
    "jwk for another alg": (dpop({"jwk": {**KEY.public_jwk(), "alg": "ES256"}}), "alg"),
    "jwk x padded": (dpop({"jwk": {**KEY.public_jwk(), "x": KEY.public_jwk()["x"] + "="}}), "base64url"),
    "jwk x with stray bits": (dpop({"jwk": {**KEY.public_jwk(), "x": stray_bits(KEY.public_jwk()["x"])}}), "base64url"),
    "jwk x short": (dpop({"jwk": {**KEY.public_jwk(), "x": b64(KEY.public[:31])}}), "32 bytes"),
    "jwk x a number": (dpop({"jwk": {**KEY.public_jwk(), "x": 1}}), "not text"),
    "jwk kid a number": (dpop({"jwk": {**KEY.public_jwk(), "kid": 1}}), "kid"),
    "alg another than the jwk's": (dpop({"alg": "ES256"}), "crv"),
    "alg none": (dpop({"alg": "none"}, lambda _: b"x"), "alg"),
    "another key": (dpop({"jwk": OTHER.public_jwk()}, OTHER.private.sign), "bound to another key"),
    "signed by another key": (dpop(None, OTHER.private.sign), "signature"),
    "a whole assertion": (assertion(), "typ"),
    "claims twice": (raw_token(json.dumps(DPOP_HEADER), json.dumps(DPOP)[:-1] + ',"htm":"GET"}'), "twice"),
}


@pytest.mark.parametrize("name", WRONG_ASSERTIONS)
def test_a_wrong_assertion_is_refused_with_its_reason(name: str) -> None:
    token, expected = WRONG_ASSERTIONS[name]
    with pytest.raises(UnauthenticatedError, match=expected):
        check_assertion(token)


@pytest.mark.parametrize("name", WRONG_PROOFS)
def test_a_wrong_proof_is_refused_with_its_reason(name: str) -> None:
    token, expected = WRONG_PROOFS[name]
    with pytest.raises(UnauthenticatedError, match=expected):
        check_dpop(token)


# What is accepted


def test_our_assertion_is_accepted_and_names_what_to_remember() -> None:
    token = tokens.make_assertion(KEY, CLIENT, ISSUER, NOW, "jti-1")
    assert check_assertion(token) == tokens.Assertion(CLIENT, "jti-1", NOW + 60, KEY.thumbprint())
    header = json.loads(base64.urlsafe_b64decode(token.split(".")[0] + "=="))
    assert header == {"alg": "Ed25519", "kid": KEY.thumbprint(), "typ": "JWT"}


@pytest.mark.parametrize(
    "token",
    [
        assertion(),
        assertion({"typ": None}),
        assertion({"typ": "client-authentication+jwt"}),
        assertion({"kid": KEY.thumbprint()}),
        assertion(iat=None),
        assertion(exp=NOW + 1),
        assertion(exp=NOW + 3660),
        assertion(iat=NOW + 60, nbf=NOW + 60),
        assertion(scope="more is allowed"),
        assertion({"alg": "ES256"}, es256, iss="XC-NCVI", sub="XC-NCVI"),
        assertion({"alg": "EdDSA"}, iss="XD-NCVI", sub="XD-NCVI"),
        assertion({"alg": "EdDSA", "kid": "stock"}, iss="XD-NCVI", sub="XD-NCVI"),
        assertion(iss="XE-NCVI", sub="XE-NCVI"),
        assertion(None, OTHER.private.sign, iss="XE-NCVI", sub="XE-NCVI"),
        assertion({"kid": KEY.thumbprint()}, iss="XE-NCVI", sub="XE-NCVI"),
    ],
)
def test_what_the_rules_allow_is_accepted(token: str) -> None:
    assert check_assertion(token).jti == "jti-1"


def test_the_token_url_is_an_audience_only_where_it_is_allowed() -> None:
    found = tokens.verify_assertion(
        assertion(aud=TOKEN_URL), keys_of, ISSUER, NOW, other_audiences=frozenset({TOKEN_URL})
    )
    assert found.client_id == CLIENT


def test_an_unknown_client_gets_the_answer_of_a_wrong_signature() -> None:
    answers = set()
    for token in (assertion(iss="XZ-NCVI", sub="XZ-NCVI"), assertion(None, OTHER.private.sign)):
        with pytest.raises(UnauthenticatedError) as caught:
            check_assertion(token)
        answers.add(str(caught.value))
    assert len(answers) == 1


def test_an_unknown_client_costs_a_signature_check_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[CallerKey] = []
    real = tokens._verify_signature

    def counted(split: tokens.SplitToken, key: CallerKey) -> None:
        checked.append(key)
        real(split, key)

    monkeypatch.setattr(tokens, "_verify_signature", counted)
    with pytest.raises(UnauthenticatedError):
        check_assertion(assertion(iss="XZ-NCVI", sub="XZ-NCVI"))
    assert len(checked) == 1


def test_a_slow_clock_is_told_its_distance_in_seconds() -> None:
    with pytest.raises(UnauthenticatedError, match="exp was 30 s ago; made 90 s ago"):
        check_assertion(assertion(iat=NOW - 90, exp=NOW - 30))
    with pytest.raises(UnauthenticatedError, match=r"exp was 30 s ago$"):
        check_assertion(assertion(iat=None, exp=NOW - 30))


def test_our_proof_is_accepted_with_and_without_an_access_token() -> None:
    proof = tokens.make_dpop(KEY, "POST", TOKEN_URL, NOW, "jti-2")
    expected = tokens.DpopProof("jti-2", KEY.thumbprint(), NOW)
    assert tokens.verify_dpop(proof, "POST", TOKEN_URL, NOW) == expected
    nonce = NONCES.issue(NOW)
    bound = tokens.make_dpop(KEY, "POST", PAGE_URL + "?from=1#top", NOW, "jti-2", access_token=ACCESS, nonce=nonce)
    assert check_dpop(bound) == expected
    found = tokens.verify_dpop(bound, "POST", PAGE_URL + "?from=9", NOW + 300, access_token=ACCESS, nonces=NONCES)
    assert found == replace(expected, nonce_age=300)


@pytest.mark.parametrize(
    "token",
    [
        dpop(htu="HTTPS://XA-NCVI.example:443/v1/pages?x=1#y"),
        dpop(iat=NOW - 300),
        dpop(iat=NOW + 60),
        dpop({"alg": "EdDSA"}),
        dpop({"jwk": {**KEY.public_jwk(), "kid": "mine", "use": "sig", "alg": "Ed25519", "key_ops": ["verify"]}}),
        dpop(exp=NOW + 1),
    ],
)
def test_a_proof_within_the_rules_is_accepted(token: str) -> None:
    assert check_dpop(token).thumbprint == KEY.thumbprint()


def test_a_proof_by_p256_has_the_thumbprint_of_its_key() -> None:
    jwk = p_jwk(P256, "P-256")
    proof = tokens.verify_dpop(dpop({"alg": "ES256", "jwk": jwk}, es256), "POST", PAGE_URL, NOW, access_token=ACCESS)
    assert proof.thumbprint == CallerKey.from_jwk(jwk, TokenAlgorithm.ES256).thumbprint


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("http://[::1]:80/x", "http://[::1]/x", True),
        ("http://[::1]:8080/x", "http://[::1]/x", False),
        ("https://xa.example", "https://xa.example/", True),
        ("https://xa.example:443/", "https://xa.example:80/", False),
        ("https://xa.example/a/../b", "https://xa.example/b", False),
    ],
)
def test_urls_are_compared_as_the_rule_says(one: str, other: str, same: bool) -> None:
    proof = tokens.make_dpop(KEY, "GET", one, NOW, "jti")
    if same:
        assert tokens.verify_dpop(proof, "GET", other, NOW).jti == "jti"
    else:
        with pytest.raises(UnauthenticatedError, match="htu"):
            tokens.verify_dpop(proof, "GET", other, NOW)


def test_a_nonce_of_ours_must_be_there() -> None:
    good = NONCES.issue(NOW)
    assert tokens.verify_dpop(dpop(nonce=good), "POST", PAGE_URL, NOW, nonces=NONCES).nonce_age == 0
    wrong: tuple[object, ...] = (
        None,
        "",
        "n-1",
        1,
        [good],
        {"nonce": good},
        good[:-1],
        good + "=",
        OTHER_NONCES.issue(NOW),
    )
    for nonce in wrong:
        with pytest.raises(NonceWantedError, match="nonce"):
            tokens.verify_dpop(dpop(nonce=nonce), "POST", PAGE_URL, NOW, nonces=NONCES)


def test_a_nonce_is_asked_for_only_of_a_proof_that_is_right_otherwise() -> None:
    # Its time and its jti are not otherwise: both are judged with the nonce, and nothing is told of them before.
    for name in ("iat old", "iat ahead", "jti missing"):
        with pytest.raises(NonceWantedError):
            tokens.verify_dpop(WRONG_PROOFS[name][0], "POST", PAGE_URL, NOW, nonces=OTHER_NONCES)
    for name in ("htm another", "htu another host", "ath of another token", "another key", "signed by another key"):
        with pytest.raises(UnauthenticatedError) as refused:
            tokens.verify_dpop(
                WRONG_PROOFS[name][0],
                "POST",
                PAGE_URL,
                NOW,
                access_token=ACCESS,
                expected_thumbprint=KEY.thumbprint(),
                nonces=OTHER_NONCES,
            )
        assert not isinstance(refused.value, NonceWantedError), name


def test_a_time_that_is_wrong_is_told_in_seconds_once_the_nonce_is_right() -> None:
    for iat, told in ((NOW - 301, "301 s old"), (NOW + 300, "300 s ahead")):
        with pytest.raises(UnauthenticatedError, match=told):
            tokens.verify_dpop(dpop(iat=iat, nonce=NONCES.issue(NOW)), "POST", PAGE_URL, NOW, nonces=NONCES)


@pytest.mark.parametrize(("age", "good"), [(0, True), (300, True), (301, False), (-60, True), (-61, False)])
def test_a_nonce_lives_three_hundred_seconds_on_every_node(age: int, good: bool) -> None:
    other_node = Nonces(bytes(32))  # the same key
    assert other_node.age(NONCES.issue(NOW - age), NOW) == (age if good else None)


@given(
    position=st.integers(0, 31),
    other=st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_="),
)
def test_no_character_of_a_nonce_can_be_changed(position: int, other: str) -> None:
    good = NONCES.issue(NOW)
    altered = good[:position] + other + good[position + 1 :]
    assert (NONCES.age(altered, NOW) is None) == (altered != good)


@given(position=st.integers(0, 10_000), other=st.characters(codec="ascii"))
@settings(max_examples=300, deadline=None)
def test_any_altered_character_is_refused(position: int, other: str) -> None:
    good = tokens.make_assertion(KEY, CLIENT, ISSUER, NOW, "jti-1")
    position %= len(good)
    altered = good[:position] + other + good[position + 1 :]
    if altered != good:
        with pytest.raises(UnauthenticatedError):
            check_assertion(altered)


# Standards' own examples


def test_the_proofs_of_rfc_9449_are_read_as_the_rfc_says() -> None:
    vector = VECTORS["rfc9449"]
    found = tokens.verify_dpop(
        vector["proof"], vector["method"], vector["url"], vector["iat"], expected_thumbprint=vector["thumbprint"]
    )
    assert (found.jti, found.iat) == (vector["jti"], vector["iat"])
    bound = tokens.verify_dpop(
        vector["bound_proof"],
        "GET",
        vector["bound_url"],
        vector["bound_iat"],
        access_token=vector["access_token"],
        expected_thumbprint=vector["thumbprint"],
    )
    assert bound.jti == vector["bound_jti"]


def test_the_thumbprint_and_signature_of_rfc_8037_are_ours() -> None:
    vector = VECTORS["rfc8037"]
    key = TokenKey.from_seed(base64.urlsafe_b64decode(vector["d"] + "="))
    assert key.public_jwk()["x"] == vector["x"]
    caller = CallerKey.of(key)
    assert caller.thumbprint == key.thumbprint() == vector["thumbprint"]
    header, payload, signature = vector["jws"].split(".")
    assert b64(key.private.sign(f"{header}.{payload}".encode())) == signature


def test_stock_pyjwt_reads_and_writes_the_same_tokens() -> None:
    ours = tokens.make_assertion(KEY, CLIENT, ISSUER, NOW, "jti-1")
    jws = jwt.PyJWS()
    jws.register_algorithm("Ed25519", jwt.algorithms.OKPAlgorithm())
    claims = json.loads(jws.decode(ours, KEY.private.public_key(), algorithms=["Ed25519"]))
    assert claims == ASSERTION
    theirs = jwt.encode(
        {**ASSERTION, "iss": "XD-NCVI", "sub": "XD-NCVI"}, KEY.private, algorithm="EdDSA", headers={"kid": "stock"}
    )
    assert check_assertion(theirs).client_id == "XD-NCVI"


def test_the_global_pyjwt_is_left_as_it_was() -> None:
    with pytest.raises(NotImplementedError):
        jwt.get_algorithm_by_name("Ed25519")


# Keys and access tokens


@pytest.mark.parametrize(
    ("jwk", "algorithm", "expected"),
    [
        (p_jwk(P256, "P-256"), TokenAlgorithm.ED25519, "crv"),
        (KEY.public_jwk(), TokenAlgorithm.ES256, "crv"),
        (PRIVATE_JWK, TokenAlgorithm.ED25519, "public key"),
        (RSA_JWK, TokenAlgorithm.ES256, "kty"),
        (None, TokenAlgorithm.ES256, "object"),
        ({"kty": ["OKP"]}, TokenAlgorithm.ED25519, "kty"),
        ({**KEY.public_jwk(), "kid": "k" * 257}, TokenAlgorithm.ED25519, "kid"),
    ],
)
def test_a_key_that_cannot_be_registered_is_refused(jwk: object, algorithm: TokenAlgorithm, expected: str) -> None:
    with pytest.raises(MalformedError, match=expected):
        CallerKey.from_jwk(jwk, algorithm)


def test_access_tokens_are_256_bits_from_the_source_given() -> None:
    class Seeded:
        def bytes(self, count: int, /) -> bytes:
            return b"\xfb" * count

    assert tokens.new_access_token(Seeded()) == b64(b"\xfb" * 32)
    found = {tokens.new_access_token() for _ in range(100)}
    assert len(found) == 100
    assert all(len(token) == 43 for token in found)


def test_an_access_token_is_kept_as_its_sha256() -> None:
    assert tokens.token_hash(ACCESS) == hashlib.sha256(ACCESS.encode()).digest()
    with pytest.raises(UnauthenticatedError, match="ASCII"):
        tokens.token_hash("é")


def test_the_table_is_as_long_as_the_threat_asks() -> None:
    assert len(WRONG_ASSERTIONS) + len(WRONG_PROOFS) >= 40
    assert isinstance(KEY.private, Ed25519PrivateKey)
