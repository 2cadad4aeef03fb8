"""An authenticator in software, and the browser around it, as far as WebAuthn says what they make.

It can lie: each of `origin`, `party`, `kind`, `said` (the challenge), `present`, `verified` and `cross_origin` replaces
what an honest pair would say.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from fido2.cose import ES256, RS256, EdDSA
from fido2.webauthn import Aaguid, AttestationObject, AttestedCredentialData, AuthenticatorData

from gateway.crypto.passkeys import to_base64url

ORIGIN, PARTY = "http://localhost:8450", "localhost"


class Authenticator:
    """One key pair. `kind`: es256, ed25519, rs256 (with `bits`)."""

    def __init__(self, name: str = "key", kind: str = "es256", bits: int = 2048, origin: str = ORIGIN) -> None:
        self.credential = hashlib.sha256(name.encode()).digest()
        self.origin = origin
        self.kind = kind
        self.key: Any = {
            "es256": lambda: ec.generate_private_key(ec.SECP256R1()),
            "ed25519": ed25519.Ed25519PrivateKey.generate,
            "rs256": lambda: rsa.generate_private_key(65537, bits),
        }[kind]()
        maker = {"es256": ES256, "ed25519": EdDSA, "rs256": RS256}[kind]
        self.cose = maker.from_cryptography_key(self.key.public_key())

    def create(self, challenge: str, **lies: Any) -> dict[str, Any]:
        """What `navigator.credentials.create` gives for a challenge (base64url)."""
        client = self._client_data("webauthn.create", challenge, lies)
        attested = AttestedCredentialData.create(Aaguid(bytes(16)), self.credential, self.cose)
        data = self._authenticator_data(lies, AuthenticatorData.FLAG.AT, attested)
        made = AttestationObject.create("none", data, {})
        response = {"clientDataJSON": to_base64url(client), "attestationObject": to_base64url(bytes(made))}
        return {"rawId": to_base64url(self.credential), "response": response}

    def get(self, challenge: str, **lies: Any) -> dict[str, Any]:
        """What `navigator.credentials.get` gives for a challenge (base64url)."""
        client = self._client_data("webauthn.get", challenge, lies)
        data = bytes(self._authenticator_data(lies))
        response = {
            "clientDataJSON": to_base64url(client),
            "authenticatorData": to_base64url(data),
            "signature": to_base64url(self.sign(data + hashlib.sha256(client).digest())),
        }
        return {"rawId": to_base64url(self.credential), "response": response}

    def sign(self, message: bytes) -> bytes:
        """The bare signature."""
        if self.kind == "es256":
            return bytes(self.key.sign(message, ec.ECDSA(hashes.SHA256())))
        if self.kind == "rs256":
            return bytes(self.key.sign(message, PKCS1v15(), hashes.SHA256()))
        return bytes(self.key.sign(message))

    def _client_data(self, kind: str, challenge: str, lies: dict[str, Any]) -> bytes:
        value = {
            "type": lies.get("kind", kind),
            "challenge": lies.get("said", challenge),
            "origin": lies.get("origin", self.origin),
            "crossOrigin": lies.get("cross_origin", False),
        }
        return json.dumps(value).encode()

    def _authenticator_data(self, lies: dict[str, Any], flags: Any = 0, attested: bytes = b"") -> AuthenticatorData:
        party = hashlib.sha256(lies.get("party", PARTY).encode()).digest()
        if lies.get("present", True):
            flags |= AuthenticatorData.FLAG.UP
        if lies.get("verified", True):
            flags |= AuthenticatorData.FLAG.UV
        return AuthenticatorData.create(party, flags, 7, attested)


def challenge_in(options: dict[str, object]) -> str:
    """The challenge in what a gateway asks a browser."""
    return str(options["challenge"])
