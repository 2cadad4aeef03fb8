"""Passkeys: what an authenticator signs, and every way in which it could be for something else."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fido2 import cbor

from authenticator import ORIGIN, PARTY, Authenticator
from gateway.crypto import passkeys
from gateway.crypto.passkeys import Passkey, RelyingParty, to_base64url
from gateway.errors import GatewayError, MalformedError, VerificationError
from gateway.proposals import SigningPasskey, passkey_of

VECTORS = json.loads((Path(__file__).parent / "vectors" / "passkey-signature.json").read_text(encoding="utf-8"))
HERE = RelyingParty(PARTY, ORIGIN)
CHALLENGE = b"a challenge of tests, 32 bytes.."
WRITTEN = to_base64url(CHALLENGE)
LIES: list[dict[str, Any]] = [
    {"said": to_base64url(b"another challenge")},
    {"origin": "http://localhost:9999"},
    {"origin": "https://evil.example"},
    {"origin": "http://localhost:8450.evil.example"},
    {"cross_origin": True},
    {"party": "evil.example"},
    {"verified": False},
    {"present": False},
]


def registered(authenticator: Authenticator) -> Passkey:
    return passkeys.verify_creation(HERE, CHALLENGE, authenticator.create(WRITTEN))


@pytest.mark.parametrize("kind", ["es256", "ed25519", "rs256"])
def test_a_passkey_is_registered_and_signs(kind: str) -> None:
    authenticator = Authenticator(kind=kind)
    passkey = registered(authenticator)
    assert passkey.credential == authenticator.credential
    assertion = passkeys.parse_assertion(authenticator.get(WRITTEN))
    passkeys.verify_assertion(HERE, CHALLENGE, assertion, passkey)
    again = passkeys.parse_signature(passkeys.dump_signature(assertion))
    passkeys.verify_assertion(HERE, CHALLENGE, again, passkey)


@pytest.mark.parametrize("lie", [*LIES, {"kind": "webauthn.get"}])
def test_a_key_made_for_something_else_is_not_registered(lie: dict[str, Any]) -> None:
    with pytest.raises(GatewayError):
        passkeys.verify_creation(HERE, CHALLENGE, Authenticator().create(WRITTEN, **lie))


@pytest.mark.parametrize("lie", [*LIES, {"kind": "webauthn.create"}])
def test_a_signature_for_something_else_is_refused(lie: dict[str, Any]) -> None:
    authenticator = Authenticator()
    passkey = registered(authenticator)
    assertion = passkeys.parse_assertion(authenticator.get(WRITTEN, **lie))
    with pytest.raises(GatewayError):
        passkeys.verify_assertion(HERE, CHALLENGE, assertion, passkey)


def test_any_flipped_bit_of_an_assertion_is_refused() -> None:
    authenticator = Authenticator(kind="ed25519")
    passkey = registered(authenticator)
    whole = passkeys.parse_assertion(authenticator.get(WRITTEN))
    for name in ("authenticator_data", "client_data", "signature"):
        octets = getattr(whole, name)
        for place in range(len(octets)):
            changed = bytearray(octets)
            changed[place] ^= 1 << place % 8
            members = {
                one: getattr(whole, one) for one in ("credential", "authenticator_data", "client_data", "signature")
            }
            with pytest.raises(GatewayError):
                passkeys.verify_assertion(
                    HERE, CHALLENGE, passkeys.Assertion(**{**members, name: bytes(changed)}), passkey
                )


def test_another_key_signs_nothing_for_this_one() -> None:
    mine, theirs = Authenticator("mine"), Authenticator("theirs")
    theirs.credential = mine.credential
    with pytest.raises(GatewayError):
        passkeys.verify_assertion(HERE, CHALLENGE, passkeys.parse_assertion(theirs.get(WRITTEN)), registered(mine))


def test_a_short_rsa_key_is_not_taken() -> None:
    with pytest.raises(MalformedError):
        registered(Authenticator(kind="rs256", bits=1024))


@pytest.mark.parametrize(
    "answer",
    [None, [], {}, {"response": {}}, {"rawId": "AA", "response": {"clientDataJSON": "e30"}},
     {"rawId": "AA==", "response": {"clientDataJSON": "!!"}}],
)  # fmt: skip
def test_what_is_no_answer_of_a_browser_is_refused(answer: object) -> None:
    with pytest.raises(GatewayError):
        passkeys.verify_creation(HERE, CHALLENGE, answer)
    with pytest.raises(MalformedError):
        passkeys.parse_assertion(answer)


def test_one_octet_string_has_one_spelling() -> None:
    assert passkeys.from_base64url("AA") == b"\0"
    for other in ("AB", "AA==", "A", "A A", "AA\n", "+A"):
        with pytest.raises(MalformedError):
            passkeys.from_base64url(other)


def test_a_key_has_one_spelling_and_so_one_id() -> None:
    for kind in ("es256", "ed25519", "rs256"):
        key = registered(Authenticator(kind=kind))
        members = dict(cbor.decode(key.key))
        others = [
            {**members, 2: b"a name"},  # a member that says nothing
            {**members, 1: members[1] + 1},
            {**members, -2: b"\0" + members[-2]},
            {True if name == 1 else name: value for name, value in members.items()},
            {name: True if value == 1 else value for name, value in members.items()},
            {name: value for name, value in members.items() if name != -2},
        ]
        spellings = [cbor.encode(one) for one in others if cbor.encode(one) != key.key]
        spellings += [key.key + b"\0", b"\xb8" + bytes([len(members)]) + key.key[1:], b"\x81" * 4000, b""]
        for raw in spellings:
            with pytest.raises(MalformedError):
                passkeys.check_key(Passkey(key.credential, raw))


def test_octets_that_nest_without_end_or_break_off_are_refused() -> None:
    authenticator = Authenticator()
    passkey, deep = registered(authenticator), b"\x81" * 8000
    made = authenticator.create(WRITTEN)
    signed = passkeys.parse_assertion(authenticator.get(WRITTEN))
    head = hashlib.sha256(PARTY.encode()).digest()
    for data in (head + b"\x85" + bytes(4) + deep, head + b"\x85" + bytes(4) + b"\xbb\0", head + b"\x45", head, b""):
        with pytest.raises(VerificationError):
            passkeys.verify_assertion(HERE, CHALLENGE, replace(signed, authenticator_data=data), passkey)
    for raw in (deep, b"\xbb\0", b"\xa1"):
        made["response"]["attestationObject"] = passkeys.to_base64url(raw)
        with pytest.raises(MalformedError):
            passkeys.verify_creation(HERE, CHALLENGE, made)


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["name"])
def test_frozen_signatures_are_judged_as_their_word_says(case: dict[str, Any]) -> None:
    own = SigningPasskey.from_json(case["passkey"])
    found = passkey_of(case["statement"].encode(), case["signature"].encode(), [own])
    assert ("refused" if found is None else "verified") == case["expect"]
