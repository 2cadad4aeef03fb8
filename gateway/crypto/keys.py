"""Keys: who signs, who may open, who calls. And the one source of randomness.

A key set of an agency:

- `SigningKey` / `VerifyingKey`: Ed25519 (RFC 8032) **and** ML-DSA-65 (FIPS 204), always both. A signature counts only
  when exactly these two key ids signed and both verify, so a break of one algorithm forges nothing.
- `OpeningKey` / `SealingKey`: X-Wing, that is ML-KEM-768 with X25519 (draft-ietf-hpke-pq, KEM 0x647a), written as
  c2sp.org/age writes it: `AGE-SECRET-KEY-PQ-1…` and `age1pq1…`.
- `TokenKey`: Ed25519 for client assertions and DPoP proofs (RFC 7523, RFC 9449), known by its RFC 7638 thumbprint.

Keys that sign checkpoints are in `checkpoint.py`: a checkpoint is another kind of statement and has keys of its own.

A private key is held as its seed (32 bytes), never in another serialisation; the Ed25519 half of a signing pair may be
in a PKCS#11 token instead (`pkcs11.py`). `repr` shows key ids only.

A key id is the SHA-256 over length-prefixed algorithm and public key, lower hex:

    SHA-256( 00000007 "Ed25519" 00000020 <32 bytes> )

Rotation (`succession.py`), key states and revocation are decided above this floor.
"""

from __future__ import annotations

import base64
import hashlib
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, hpke
from cryptography.hazmat.primitives.asymmetric import ed25519, mldsa, mlkem, x25519

from gateway.crypto import canonical
from gateway.errors import MalformedError, VerificationError
from gateway.model import require, text_member

ED25519 = "Ed25519"
ML_DSA_65 = "ML-DSA-65"
SIGNING_PAIR = "Ed25519+ML-DSA-65"
X_WING = "X-Wing"

SEED_BYTES = 32  # of every private key here
ED25519_PUBLIC_BYTES = 32
ED25519_SIGNATURE_BYTES = 64
ML_DSA_65_PUBLIC_BYTES = 1952
ML_DSA_65_SIGNATURE_BYTES = 3309
ML_KEM_768_PUBLIC_BYTES = 1184
ML_KEM_SEED_BYTES = 64
SEALING_KEY_BYTES = 1216  # ML-KEM-768 1184 || X25519 32

RECIPIENT_PREFIX = "age1pq"
IDENTITY_PREFIX = "age-secret-key-pq-"


class Random(Protocol):
    """A source of random bytes. A simulation passes a seeded one; everything else uses `SYSTEM_RANDOM`.

    Encapsulation and ML-DSA take fresh randomness from the cryptography library itself, so sealed and signed bytes
    differ from run to run even under a seeded source; what they say does not.
    """

    def bytes(self, count: int, /) -> bytes:
        """`count` random bytes."""


class _SystemRandom:
    """The operating system's generator."""

    def bytes(self, count: int, /) -> bytes:
        return os.urandom(count)


SYSTEM_RANDOM: Random = _SystemRandom()


def random_bytes(count: int) -> bytes:
    """`count` bytes from the operating system's generator."""
    return SYSTEM_RANDOM.bytes(count)


def new_message_id(random: Random = SYSTEM_RANDOM) -> str:
    """A fresh 128-bit id, 32 lower-case hex digits."""
    return random.bytes(16).hex()


def key_id(algorithm: str, public: bytes) -> str:
    """The id of a public key: lower hex SHA-256 over length-prefixed algorithm and key."""
    hasher = hashlib.sha256()
    for part in (algorithm.encode("ascii"), public):
        hasher.update(struct.pack(">I", len(part)) + part)
    return hasher.hexdigest()


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature and the id of the key that made it."""

    key_id: str
    value: bytes


class VerifyingKey:
    """The public pair of a signer.

    Args:
        ed25519_public: 32 bytes.
        mldsa65_public: 1952 bytes.

    Raises:
        MalformedError: not such keys.
    """

    __slots__ = ("_ed25519", "_mldsa65", "ed25519_public", "key_ids", "key_set_id", "mldsa65_public")

    def __init__(self, ed25519_public: bytes, mldsa65_public: bytes) -> None:
        try:
            self._ed25519 = ed25519.Ed25519PublicKey.from_public_bytes(ed25519_public)
            self._mldsa65 = mldsa.MLDSA65PublicKey.from_public_bytes(mldsa65_public)
        except ValueError as error:
            raise MalformedError("verifying key: not an Ed25519 and an ML-DSA-65 public key") from error
        self.ed25519_public = bytes(ed25519_public)
        self.mldsa65_public = bytes(mldsa65_public)
        # Ed25519 first, wherever the two stand in order.
        self.key_ids: tuple[str, str] = (key_id(ED25519, ed25519_public), key_id(ML_DSA_65, mldsa65_public))
        # Both parts have a fixed length, so the concatenation has one reading.
        self.key_set_id: str = key_id(SIGNING_PAIR, self.ed25519_public + self.mldsa65_public)

    def verify(self, message: bytes, signatures: Sequence[Signature]) -> None:
        """Returns when the pair, and nobody else, signed exactly `message`.

        Raises:
            VerificationError: other key ids than these two, one missing or repeated, or one that does not verify.
        """
        by_id = {signature.key_id: signature.value for signature in signatures}
        if len(signatures) != 2 or set(by_id) != set(self.key_ids):
            raise VerificationError("signature: not exactly the signer's two keys")
        try:
            self._ed25519.verify(by_id[self.key_ids[0]], message)
            self._mldsa65.verify(by_id[self.key_ids[1]], message)
        except InvalidSignature as error:
            raise VerificationError("signature: does not verify") from error

    def to_json(self) -> dict[str, object]:
        """The key as the members of a JSON object."""
        return {ED25519: _base64(self.ed25519_public), ML_DSA_65: _base64(self.mldsa65_public)}

    @classmethod
    def from_json(cls, value: object) -> Self:
        """The key that `to_json` wrote; other members are refused."""
        if not isinstance(value, dict) or set(value) != {ED25519, ML_DSA_65}:
            raise MalformedError("verifying key: members are not those of the contract")
        return cls(parse_base64(text_member(value, ED25519)), parse_base64(text_member(value, ML_DSA_65)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, VerifyingKey) and self.key_set_id == other.key_set_id

    def __hash__(self) -> int:
        return hash(self.key_set_id)

    def __repr__(self) -> str:
        return f"VerifyingKey({self.key_set_id})"


class Ed25519Signer(Protocol):
    """A private Ed25519 key, wherever it is kept: as a seed in this process, or in a token that never shows it."""

    @property
    def public(self) -> bytes:
        """Its public half: 32 bytes."""

    def sign(self, message: bytes, /) -> bytes:
        """The signature of `message`: 64 bytes (RFC 8032, pure Ed25519)."""


class _SeedSigner:
    """An Ed25519 key from its seed."""

    __slots__ = ("_private", "public", "seed")

    def __init__(self, seed: bytes) -> None:
        self.seed = _seed(seed)
        self._private = ed25519.Ed25519PrivateKey.from_private_bytes(self.seed)
        self.public: bytes = self._private.public_key().public_bytes_raw()

    def sign(self, message: bytes, /) -> bytes:
        return self._private.sign(message)


class SigningKey:
    """The private pair of a signer. `public` verifies what it signs; `ed25519` and `seeds` are for the keystore alone.

    Args:
        ed25519_key: its seed (32 bytes), or a signer that keeps the key elsewhere, such as in a PKCS#11 token.
        mldsa65_seed: 32 bytes. ML-DSA-65 is always held as a seed: no token in use makes such keys yet.
    """

    __slots__ = ("_mldsa65", "ed25519", "public")

    def __init__(self, ed25519_key: bytes | Ed25519Signer, mldsa65_seed: bytes) -> None:
        self.ed25519: Ed25519Signer = _SeedSigner(ed25519_key) if isinstance(ed25519_key, bytes) else ed25519_key
        self._mldsa65 = mldsa.MLDSA65PrivateKey.from_seed_bytes(_seed(mldsa65_seed))
        self.public = VerifyingKey(self.ed25519.public, self._mldsa65.public_key().public_bytes_raw())

    @classmethod
    def generate(cls, random: Random = SYSTEM_RANDOM) -> Self:
        """A fresh pair."""
        return cls(random.bytes(SEED_BYTES), random.bytes(SEED_BYTES))

    @classmethod
    def from_seeds(cls, ed25519_seed: bytes, mldsa65_seed: bytes) -> Self:
        """The pair that these seeds determine (32 bytes each)."""
        return cls(ed25519_seed, mldsa65_seed)

    @property
    def seeds(self) -> tuple[bytes | None, bytes]:
        """The Ed25519 seed (None: the key is kept elsewhere and has no seed here) and the ML-DSA-65 seed."""
        ed25519_seed = self.ed25519.seed if isinstance(self.ed25519, _SeedSigner) else None
        return ed25519_seed, self._mldsa65.private_bytes_raw()

    def sign(self, message: bytes) -> tuple[Signature, Signature]:
        """Both signatures of `message`, Ed25519 first.

        The context of ML-DSA stays empty: what a signature is for stands in the message, for both algorithms alike.
        """
        first, second = self.public.key_ids
        return Signature(first, self.ed25519.sign(message)), Signature(second, self._mldsa65.sign(message))

    def __repr__(self) -> str:
        return f"SigningKey({self.public.key_set_id})"


class SealingKey:
    """The public X-Wing key that something is sealed for: 1216 bytes.

    Raises:
        MalformedError: not such a key.
    """

    __slots__ = ("key_id", "public", "raw")

    def __init__(self, raw: bytes) -> None:
        require(len(raw) == SEALING_KEY_BYTES, "sealing key: not 1216 bytes")
        try:
            self.public = hpke.MLKEM768X25519PublicKey(
                mlkem.MLKEM768PublicKey.from_public_bytes(raw[:ML_KEM_768_PUBLIC_BYTES]),
                x25519.X25519PublicKey.from_public_bytes(raw[ML_KEM_768_PUBLIC_BYTES:]),
            )
        except ValueError as error:
            raise MalformedError("sealing key: not an X-Wing public key") from error
        self.raw = bytes(raw)
        self.key_id: str = key_id(X_WING, self.raw)

    @classmethod
    def parse(cls, text: str) -> Self:
        """The key of an `age1pq1…` recipient."""
        return cls(_parse_recipient(text))

    def __str__(self) -> str:
        return _recipient(self.raw)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SealingKey) and self.raw == other.raw

    def __hash__(self) -> int:
        return hash(self.raw)

    def __repr__(self) -> str:
        return f"SealingKey({self.key_id})"


class OpeningKey:
    """The private X-Wing key, from its 32-byte seed. `public` is what partners seal for."""

    __slots__ = ("private", "public", "seed")

    def __init__(self, seed: bytes) -> None:
        self.seed = _seed(seed)
        # X-Wing: SHAKE256 stretches the seed to the ML-KEM seed (d || z) and the X25519 scalar.
        stretched = hashes.Hash(hashes.SHAKE256(ML_KEM_SEED_BYTES + SEED_BYTES))
        stretched.update(self.seed)
        parts = stretched.finalize()
        kem = mlkem.MLKEM768PrivateKey.from_seed_bytes(parts[:ML_KEM_SEED_BYTES])
        curve = x25519.X25519PrivateKey.from_private_bytes(parts[ML_KEM_SEED_BYTES:])
        self.private = hpke.MLKEM768X25519PrivateKey(kem, curve)
        self.public = SealingKey(kem.public_key().public_bytes_raw() + curve.public_key().public_bytes_raw())

    @classmethod
    def generate(cls, random: Random = SYSTEM_RANDOM) -> Self:
        """A fresh key."""
        return cls(random.bytes(SEED_BYTES))

    @classmethod
    def from_seed(cls, seed: bytes) -> Self:
        """The key that this seed determines."""
        return cls(seed)

    @classmethod
    def parse(cls, text: str) -> Self:
        """The key of an `AGE-SECRET-KEY-PQ-1…` identity."""
        require(text == text.upper(), "age identity: not in upper case")
        return cls(_parse_bech32(IDENTITY_PREFIX, text.lower(), SEED_BYTES))

    def to_identity(self) -> str:
        """The `AGE-SECRET-KEY-PQ-1…` form. It is the private key: for a file that only its owner reads."""
        return _bech32(IDENTITY_PREFIX, self.seed).upper()

    def __repr__(self) -> str:
        return f"OpeningKey({self.public.key_id})"


class TokenKey:
    """Signs client assertions and DPoP proofs: an Ed25519 key from its 32-byte seed."""

    __slots__ = ("private", "public", "seed")

    def __init__(self, seed: bytes) -> None:
        self.seed = _seed(seed)
        self.private = ed25519.Ed25519PrivateKey.from_private_bytes(self.seed)
        self.public: bytes = self.private.public_key().public_bytes_raw()

    @classmethod
    def generate(cls, random: Random = SYSTEM_RANDOM) -> Self:
        """A fresh key."""
        return cls(random.bytes(SEED_BYTES))

    @classmethod
    def from_seed(cls, seed: bytes) -> Self:
        """The key that this seed determines."""
        return cls(seed)

    @property
    def key_id(self) -> str:
        """The key's id in logs and lists."""
        return key_id(ED25519, self.public)

    @staticmethod
    def key_id_of_jwk(jwk: dict[str, str]) -> str:
        """The id of the key in one of our own JWKs."""
        return key_id(ED25519, base64.urlsafe_b64decode(jwk["x"] + "="))

    def public_jwk(self) -> dict[str, str]:
        """The public key as a JWK: exactly the members that RFC 7638 hashes (RFC 8037 2)."""
        x = base64.urlsafe_b64encode(self.public).rstrip(b"=").decode("ascii")
        return {"crv": ED25519, "kty": "OKP", "x": x}

    def card_jwk(self) -> dict[str, str]:
        """The public key as an identity card names it: with the one algorithm that it is used with (RFC 9864)."""
        return {**self.public_jwk(), "alg": ED25519}

    def thumbprint(self) -> str:
        """The RFC 7638 SHA-256 thumbprint, base64url without padding."""
        # RFC 7638 3.3: members in lexicographic order without white space; canonical JSON writes them so.
        digest = hashlib.sha256(canonical.encode(self.public_jwk())).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")

    def __repr__(self) -> str:
        return f"TokenKey({self.key_id})"


def parse_base64(text: str) -> bytes:
    """The bytes of standard base64 (RFC 4648 4) with padding, in its one canonical spelling."""
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise MalformedError("base64: not the standard alphabet with padding") from error
    # RFC 4648 3.5: pad bits are zero. Two spellings of one signature would be two evidences of it.
    require(_base64(raw) == text, "base64: not canonical")
    return raw


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


def _seed(seed: bytes) -> bytes:
    require(len(seed) == SEED_BYTES, "private key: seed is not 32 bytes")
    return bytes(seed)


# Bech32 (BIP 173) without its length limit, as c2sp.org/age uses it.

_BECH32_ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_BECH32_VALUES = {char: value for value, char in enumerate(_BECH32_ALPHABET)}
_BECH32_GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_BECH32_CHECKSUM_CHARS = 6


def _bech32(prefix: str, raw: bytes) -> str:
    values = _five_bits(raw)
    checksum = _polymod([*_expand(prefix), *values, *[0] * _BECH32_CHECKSUM_CHARS]) ^ 1
    tail = [(checksum >> 5 * (_BECH32_CHECKSUM_CHARS - 1 - i)) & 31 for i in range(_BECH32_CHECKSUM_CHARS)]
    return prefix + "1" + "".join(_BECH32_ALPHABET[value] for value in [*values, *tail])


def _parse_bech32(prefix: str, text: str, expected_bytes: int) -> bytes:
    """The bytes of a lower-case Bech32 text with exactly this prefix and length."""
    chars = _BECH32_CHECKSUM_CHARS + (expected_bytes * 8 + 4) // 5
    if not text.startswith(prefix + "1") or len(text) != len(prefix) + 1 + chars:
        raise MalformedError("age key: wrong prefix or length")
    try:
        values = [_BECH32_VALUES[char] for char in text[len(prefix) + 1 :]]
    except KeyError as error:
        raise MalformedError("age key: a character outside the Bech32 alphabet") from error
    require(_polymod([*_expand(prefix), *values]) == 1, "age key: the checksum does not match")
    raw = _eight_bits(values[:-_BECH32_CHECKSUM_CHARS])
    require(raw is not None and len(raw) == expected_bytes, "age key: padding bits are not zero")
    return raw or b""


# Public keys alone are remembered: two thousand steps each, and every card that is read or issued spells its keys.
@lru_cache(maxsize=1024)
def _recipient(raw: bytes) -> str:
    return _bech32(RECIPIENT_PREFIX, raw)


@lru_cache(maxsize=1024)
def _parse_recipient(text: str) -> bytes:
    return _parse_bech32(RECIPIENT_PREFIX, text, SEALING_KEY_BYTES)


def _polymod(values: Sequence[int]) -> int:
    check = 1
    for value in values:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate(_BECH32_GENERATOR):
            check ^= generator if top >> bit & 1 else 0
    return check


def _expand(prefix: str) -> list[int]:
    return [*(ord(char) >> 5 for char in prefix), 0, *(ord(char) & 31 for char in prefix)]


def _five_bits(raw: bytes) -> list[int]:
    bits = len(raw) * 8
    padding = -bits % 5
    number = int.from_bytes(raw, "big") << padding
    return [number >> shift & 31 for shift in range(bits + padding - 5, -1, -5)]


def _eight_bits(values: Sequence[int]) -> bytes | None:
    """The bytes of five-bit values, None where the padding bits are not zero."""
    number = 0
    for value in values:
        number = number << 5 | value
    padding = len(values) * 5 % 8
    if number & ((1 << padding) - 1):
        return None
    return (number >> padding).to_bytes(len(values) * 5 // 8, "big")
