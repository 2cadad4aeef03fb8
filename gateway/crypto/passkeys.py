"""Passkeys: what a browser's authenticator signs, read and verified. Bytes only; WebAuthn Level 3 through `fido2`.

An authenticator makes a key pair for one relying party (the console's host name) and signs, after it has verified its
user, over a challenge and the page's origin. Two uses:

1. Signing in: the challenge is random and used once.
2. Signing a statement: the challenge is the SHA-256 of the statement's DSSE pre-authentication encoding. What the
   authenticator returns is kept whole (`dump_signature`), so that anybody can verify it later with the public key.

Checked each time: the type, the challenge, the origin, the relying party's hash, that somebody was present and was
verified (PIN or biometry), the signature. Attestation is not asked for: which make of authenticator a person has says
nothing that we would act on. Signature counters are not judged: synchronised passkeys leave them at 0 (WebAuthn 6.1.1).

Algorithms are those of the key (its COSE `alg`), from a closed list. All but ML-DSA are classical: decision 0029.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import struct
from dataclasses import dataclass
from typing import cast

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from fido2 import cbor
from fido2.cose import CoseKey
from fido2.webauthn import AttestationObject, AuthenticatorData

from gateway.crypto import canonical, dsse
from gateway.errors import MalformedError, VerificationError

# COSE: ES256, EdDSA (Ed25519), ML-DSA-65, RS256 (what Windows Hello still makes).
ALGORITHMS = (-7, -8, -49, -257)
# Of each: the members of its key, fixed ones by value, others by their number of octets (0: any number).
_KEY_FORMS: dict[int, tuple[dict[int, int], dict[int, int]]] = {
    -7: ({1: 2, -1: 1}, {-2: 32, -3: 32}),
    -8: ({1: 1, -1: 6}, {-2: 32}),
    -49: ({1: 7}, {-1: 1952}),
    -257: ({1: 3}, {-1: 0, -2: 0}),
}
MAX_KEY_BYTES = 4 << 10
# What `fido2` and the readers below it raise for octets that are not what they should be. Nesting without end is one.
_UNREADABLE = (
    *(ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError),
    *(NotImplementedError, RecursionError, struct.error, UnsupportedAlgorithm),
)
SIGNATURE_VERSION = "passkey signature 1"
MAX_RESPONSE_BYTES = 16 << 10  # an ML-DSA-65 key and its signature are 5 KiB
MAX_CREDENTIAL_BYTES = 1023  # WebAuthn 4: a credential id has at most so many
MIN_RSA_BITS = 2048
TIMEOUT_MILLISECONDS = 120_000  # to find the key and type a PIN
_MEMBERS = {"passkey_signature", "credential", "authenticator_data", "client_data", "signature"}


@dataclass(frozen=True, slots=True)
class RelyingParty:
    """Who asks: the host name of the console, and the origin of its pages ("https://console.example:8450")."""

    id: str
    origin: str


@dataclass(frozen=True, slots=True)
class Passkey:
    """A public key at an authenticator. `key`: its COSE bytes."""

    credential: bytes
    key: bytes

    @property
    def key_id(self) -> str:
        """The SHA-256 of the key, in hex: its name in the log."""
        return hashlib.sha256(b"passkey 1\n" + self.key).hexdigest()


@dataclass(frozen=True, slots=True)
class Assertion:
    """What an authenticator returned when it was asked to sign."""

    credential: bytes
    authenticator_data: bytes
    client_data: bytes
    signature: bytes


# Asking


def creation_options(party: RelyingParty, challenge: bytes, *, user: str, known: list[bytes]) -> dict[str, object]:
    """What the browser needs to make a passkey (PublicKeyCredentialCreationOptionsJSON).

    Args:
        user: the name under which the person knows the account.
        known: credentials that the person has already; an authenticator does not make a second one.
    """
    return {
        "rp": {"id": party.id, "name": "Partner-exchange gateway"},
        "user": {"id": to_base64url(hashlib.sha256(user.encode()).digest()), "name": user, "displayName": user},
        "challenge": to_base64url(challenge),
        "pubKeyCredParams": [{"type": "public-key", "alg": algorithm} for algorithm in ALGORITHMS],
        "timeout": TIMEOUT_MILLISECONDS,
        "excludeCredentials": [{"type": "public-key", "id": to_base64url(one)} for one in known],
        "authenticatorSelection": {"residentKey": "required", "userVerification": "required"},
        "attestation": "none",
    }


def request_options(party: RelyingParty, challenge: bytes, *, allowed: list[bytes]) -> dict[str, object]:
    """What the browser needs to sign with a passkey; with none named any of this party's may be chosen."""
    return {
        "rpId": party.id,
        "challenge": to_base64url(challenge),
        "timeout": TIMEOUT_MILLISECONDS,
        "allowCredentials": [{"type": "public-key", "id": to_base64url(one)} for one in allowed],
        "userVerification": "required",
    }


def challenge_of(payload_type: str, statement: bytes) -> bytes:
    """The challenge by which a passkey signs exactly these bytes, as exactly this type."""
    return hashlib.sha256(dsse.pae(payload_type, statement)).digest()


# Reading what came


def parse_assertion(response: object) -> Assertion:
    """The answer of `navigator.credentials.get`, as JSON with base64url members.

    Raises:
        MalformedError: it is not that.
    """
    inner = _inner(response)
    return Assertion(
        _octets(cast(dict[str, object], response), "rawId"),
        _octets(inner, "authenticatorData"),
        _octets(inner, "clientDataJSON"),
        _octets(inner, "signature"),
    )


def client_data_in(response: object) -> bytes:
    """What a browser says that it asked the authenticator, unverified."""
    return _octets(_inner(response), "clientDataJSON")


def challenge_in(client_data: bytes) -> bytes:
    """The challenge that a browser says was signed, unverified: to find out which one of ours it claims to be."""
    value = canonical.parse_json(client_data, max_bytes=MAX_RESPONSE_BYTES)
    text = value.get("challenge") if isinstance(value, dict) else None
    if not isinstance(text, str):
        raise MalformedError("passkey: the client's data holds no challenge")
    return from_base64url(text)


def verify_creation(party: RelyingParty, challenge: bytes, response: object) -> Passkey:
    """The passkey that was made for this challenge.

    Raises:
        MalformedError: the answer is not one of `navigator.credentials.create`, or the key is of another kind.
        VerificationError: it is for another challenge, page or party, or its user was not verified.
    """
    inner = _inner(response)
    _check_client_data(party, challenge, _octets(inner, "clientDataJSON"), "webauthn.create")
    try:
        data = AttestationObject(_octets(inner, "attestationObject")).auth_data
        found = data.credential_data
        if found is None:
            raise MalformedError("passkey: the answer holds no key")
        passkey = Passkey(bytes(found.credential_id), cbor.encode(dict(found.public_key)))
    except _UNREADABLE as error:
        raise MalformedError("passkey: the answer cannot be read") from error
    _check_authenticator_data(party, data)
    if not 0 < len(passkey.credential) <= MAX_CREDENTIAL_BYTES:
        raise MalformedError("passkey: a credential id of no lawful length")
    check_key(passkey)
    return passkey


def check_key(passkey: Passkey) -> None:
    """Returns where the key is of a kind that is taken, and in its one spelling: so one key has one key id.

    Raises:
        MalformedError: it is not.
    """
    _public_key(passkey)


def verify_assertion(party: RelyingParty, challenge: bytes, assertion: Assertion, passkey: Passkey) -> None:
    """Returns when this passkey signed this challenge on a page of this party, its user verified.

    Raises:
        VerificationError: it did not.
    """
    if not hmac.compare_digest(assertion.credential, passkey.credential):
        raise VerificationError("passkey: signed by another passkey")
    _check_client_data(party, challenge, assertion.client_data, "webauthn.get")
    try:
        data = AuthenticatorData(assertion.authenticator_data)
    except _UNREADABLE as error:
        raise VerificationError("passkey: the authenticator's data cannot be read") from error
    _check_authenticator_data(party, data)
    signed = assertion.authenticator_data + hashlib.sha256(assertion.client_data).digest()
    try:
        _public_key(passkey).verify(signed, assertion.signature)
    except (InvalidSignature, *_UNREADABLE) as error:
        raise VerificationError("passkey: the signature does not verify") from error


# Signatures that are kept


def dump_signature(assertion: Assertion) -> bytes:
    """An assertion as it stands beside a statement."""
    return canonical.encode(
        {
            "passkey_signature": SIGNATURE_VERSION,
            "credential": to_base64url(assertion.credential),
            "authenticator_data": to_base64url(assertion.authenticator_data),
            "client_data": to_base64url(assertion.client_data),
            "signature": to_base64url(assertion.signature),
        }
    )


def parse_signature(raw: bytes) -> Assertion:
    """What `dump_signature` wrote; MalformedError for anything else."""
    value = canonical.parse_canonical(raw, max_bytes=MAX_RESPONSE_BYTES)
    if not isinstance(value, dict) or set(value) != _MEMBERS or value["passkey_signature"] != SIGNATURE_VERSION:
        raise MalformedError("passkey signature: members are not those of version 1")
    members: dict[str, object] = dict(value)
    names = ("credential", "authenticator_data", "client_data", "signature")
    return Assertion(*(_octets(members, name) for name in names))


def to_base64url(raw: bytes) -> str:
    """Without padding, as WebAuthn writes octets."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def from_base64url(text: str) -> bytes:
    """What `to_base64url` wrote; MalformedError for anything else."""
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError as error:
        raise MalformedError("passkey: not base64url") from error
    if to_base64url(raw) != text:
        raise MalformedError("passkey: not base64url in its one form")
    return raw


# Checks


def _check_client_data(party: RelyingParty, challenge: bytes, raw: bytes, kind: str) -> None:
    value = canonical.parse_json(raw, max_bytes=MAX_RESPONSE_BYTES)
    if not isinstance(value, dict):
        raise MalformedError("passkey: the client's data is not an object")
    # WebAuthn 7.2 steps 10 to 14
    if value.get("type") != kind:
        raise VerificationError("passkey: made for another use")
    if not hmac.compare_digest(str(value.get("challenge")).encode(), to_base64url(challenge).encode()):
        raise VerificationError("passkey: for another challenge")
    if value.get("origin") != party.origin or value.get("crossOrigin", False) is not False:
        raise VerificationError("passkey: used on another page than the console's")


def _check_authenticator_data(party: RelyingParty, data: AuthenticatorData) -> None:
    # WebAuthn 7.2 steps 15 to 17
    if not hmac.compare_digest(data.rp_id_hash, hashlib.sha256(party.id.encode()).digest()):
        raise VerificationError("passkey: for another host")
    if not data.is_user_present() or not data.is_user_verified():
        raise VerificationError("passkey: the authenticator has not verified its user")


def _public_key(passkey: Passkey) -> CoseKey:
    if len(passkey.key) > MAX_KEY_BYTES:
        raise MalformedError("passkey: a key that is too long")
    try:
        members = cast(dict[int, object], cbor.decode(passkey.key))
        key = CoseKey.parse(members)
        if key.ALGORITHM not in ALGORITHMS:
            raise MalformedError("passkey: a key of a kind that is not taken")
        # WebAuthn 6.5.1: `alg` and what the key type needs, nothing else, in CTAP2's canonical CBOR. It is written
        # anew, since True is as good as 1 to whoever compares.
        fixed, octets = _KEY_FORMS[key.ALGORITHM]
        values = {name: key[name] for name in octets}
        exact = cbor.encode({3: key.ALGORITHM, **fixed, **values}) == passkey.key
        if not exact or not all(_fills(value, octets[name]) for name, value in values.items()):
            raise MalformedError("passkey: a key in another spelling than its kind has")
        if key.ALGORITHM == -257 and len(key[-1]) * 8 < MIN_RSA_BITS:
            raise MalformedError("passkey: an RSA key that is too short")
    except _UNREADABLE as error:
        raise MalformedError("passkey: the key cannot be read") from error
    return key


def _fills(value: object, octets: int) -> bool:
    """Whether a member of a key is so many octets; where there is no number, an integer without zeroes before it."""
    return isinstance(value, bytes) and (len(value) == octets if octets else value[:1] not in (b"", b"\0"))


def _inner(response: object) -> dict[str, object]:
    inner = response.get("response") if isinstance(response, dict) else None
    if not isinstance(inner, dict):
        raise MalformedError("passkey: the browser's answer has not the form of WebAuthn")
    return inner


def _octets(value: dict[str, object], name: str) -> bytes:
    text = value.get(name)
    if not isinstance(text, str) or not 0 < len(text) <= 2 * MAX_RESPONSE_BYTES:
        raise MalformedError(f"passkey: {name} is missing")
    return from_base64url(text)
