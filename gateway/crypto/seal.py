"""Sealing at rest: a passphrase seals keys, keys seal blobs.

- `PassphraseBox`: Argon2id (RFC 9106) and AES-256-GCM over a short secret, such as a keystore. The cost stands beside
  it and authenticated; `open` refuses costs beyond fixed bounds, so that a foreign file cannot eat the machine.
- `DataKey`: AES-256-GCM under a random key, one key a block, wrapped under a master key in turn. Destroying the wrapped
  key erases the block.

Every sealed thing is bound to what it is for: a box to its label, a blob to a context such as `block 17/series`. Opened
under another label or context it does not open at all. A sealed blob is `12-byte nonce || ciphertext || 16-byte tag`.
"""

from __future__ import annotations

import base64
import unicodedata
from dataclasses import asdict, dataclass
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from gateway.crypto import canonical
from gateway.crypto.keys import SYSTEM_RANDOM, Random, parse_base64
from gateway.errors import MalformedError, TooLargeError, VerificationError
from gateway.model import int_member, require, text_member

KEY_BYTES = 32
NONCE_BYTES = 12
TAG_BYTES = 16
SALT_BYTES = 16
MAX_BOX_BYTES = 1024 * 1024  # a keystore with a hundred opening keys has 20 KB
MAX_BLOB_BYTES = 256 * 1024 * 1024  # one blob is sealed in memory; larger things go through age
MAX_PASSPHRASE_CHARS = 1024  # longer is a file given by mistake

_BOX_VERSION = "passphrase box 1"
_BOX_MEMBERS = {"version", "label", "kdf", "salt", "nonce", "sealed"}
_BLOB_DOMAIN = b"gateway blob 1\x00"
_WRAP_DOMAIN = b"gateway wrapped key 1\x00"


@dataclass(frozen=True, slots=True)
class Argon2Cost:
    """What one guess at a passphrase costs: memory in KiB, passes over it, lanes."""

    memory_kib: int
    passes: int
    lanes: int

    def __post_init__(self) -> None:
        # Below 8 MiB guessing is cheap; above 1 GiB or 16 passes a file could stop the machine that opens it.
        bounded = 8 * 1024 <= self.memory_kib <= 1024 * 1024 and 1 <= self.passes <= 16 and 1 <= self.lanes <= 16
        require(bounded, "passphrase box: cost out of bounds")


RFC9106_SECOND = Argon2Cost(64 * 1024, 3, 4)  # RFC 9106 4: the second recommended option, 64 MiB


@dataclass(frozen=True, slots=True)
class PassphraseBox:
    """Seals secrets of one kind (`label`) under a passphrase."""

    label: str
    cost: Argon2Cost = RFC9106_SECOND

    def seal(self, passphrase: str, secret: bytes, random: Random = SYSTEM_RANDOM) -> bytes:
        """The box as canonical JSON."""
        head = _BoxHead(self.label, self.cost, random.bytes(SALT_BYTES))
        nonce = random.bytes(NONCE_BYTES)
        sealed = AESGCM(head.derive(passphrase)).encrypt(nonce, secret, head.dump())
        return canonical.encode({**head.to_json(), "nonce": _base64(nonce), "sealed": _base64(sealed)})

    def open(self, passphrase: str, raw: bytes) -> bytes:
        """The secret in a box of this label.

        Raises:
            MalformedError: not a box, a box of another label, or a cost out of bounds.
            VerificationError: another passphrase, or a changed box: the two cannot be told apart.
        """
        value = self._members(raw)
        head = _BoxHead(self.label, _parse_cost(value["kdf"]), parse_base64(text_member(value, "salt")))
        nonce, sealed = parse_base64(text_member(value, "nonce")), parse_base64(text_member(value, "sealed"))
        require(len(nonce) == NONCE_BYTES and len(sealed) >= TAG_BYTES, "passphrase box: too short")
        try:
            return AESGCM(head.derive(passphrase)).decrypt(nonce, sealed, head.dump())
        except InvalidTag as error:
            raise VerificationError("passphrase box: wrong passphrase, or the box was changed") from error

    def cost_of(self, raw: bytes) -> Argon2Cost:
        """What a guess at this box costs, to seal its successor alike. Authenticated only once the box has opened."""
        return _parse_cost(self._members(raw)["kdf"])

    def _members(self, raw: bytes) -> dict[str, object]:
        value: object = canonical.parse_json(raw, max_bytes=MAX_BOX_BYTES, max_depth=2)
        if not isinstance(value, dict) or set(value) != _BOX_MEMBERS or value["version"] != _BOX_VERSION:
            raise MalformedError("passphrase box: members are not those of version 1")
        require(value["label"] == self.label, "passphrase box: holds another kind of secret")
        return value


class DataKey:
    """A 256-bit AES-GCM key for blobs.

    Nonces are random, so one key may seal 2^32 blobs at most (NIST SP 800-38D 8.3): a key for each block, and one
    master key that wraps them, stay far below.
    """

    __slots__ = ("_cipher", "raw")

    def __init__(self, raw: bytes) -> None:
        require(len(raw) == KEY_BYTES, "data key: not 32 bytes")
        self.raw = bytes(raw)
        self._cipher = AESGCM(self.raw)

    @classmethod
    def generate(cls, random: Random = SYSTEM_RANDOM) -> Self:
        """A fresh key."""
        return cls(random.bytes(KEY_BYTES))

    def seal(self, blob: bytes, context: str, random: Random = SYSTEM_RANDOM) -> bytes:
        """`blob`, sealed so that it opens only under the same `context`."""
        return self._seal(blob, _BLOB_DOMAIN + context.encode("utf-8"), random)

    def open(self, sealed: bytes, context: str) -> bytes:
        """The blob that was sealed under `context`.

        Raises:
            VerificationError: another key, another context, or changed bytes.
        """
        return self._open(sealed, _BLOB_DOMAIN + context.encode("utf-8"))

    def wrap(self, key: DataKey, context: str, random: Random = SYSTEM_RANDOM) -> bytes:
        """`key`, sealed under this one (60 bytes)."""
        return self._seal(key.raw, _WRAP_DOMAIN + context.encode("utf-8"), random)

    def unwrap(self, wrapped: bytes, context: str) -> DataKey:
        """The key that was wrapped under `context`. Raises VerificationError as `open` does."""
        return DataKey(self._open(wrapped, _WRAP_DOMAIN + context.encode("utf-8")))

    def _seal(self, plain: bytes, bound_to: bytes, random: Random) -> bytes:
        if len(plain) > MAX_BLOB_BYTES:
            raise TooLargeError(f"data key: blob of more than {MAX_BLOB_BYTES} bytes")
        nonce = random.bytes(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, plain, bound_to)

    def _open(self, sealed: bytes, bound_to: bytes) -> bytes:
        if len(sealed) < NONCE_BYTES + TAG_BYTES:
            raise VerificationError("data key: what was sealed is too short")
        try:
            return self._cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], bound_to)
        except InvalidTag as error:
            raise VerificationError("data key: does not open here") from error

    def __repr__(self) -> str:
        return "DataKey()"


@dataclass(frozen=True, slots=True)
class _BoxHead:
    """All of a box that is readable; authenticated as associated data."""

    label: str
    cost: Argon2Cost
    salt: bytes

    def to_json(self) -> dict[str, object]:
        return {"version": _BOX_VERSION, "label": self.label, "kdf": asdict(self.cost), "salt": _base64(self.salt)}

    def dump(self) -> bytes:
        return canonical.encode(self.to_json())

    def derive(self, passphrase: str) -> bytes:
        # RFC 8265 4.2: the same letters typed on two keyboards are one passphrase, so compose them first.
        typed = unicodedata.normalize("NFC", passphrase).encode("utf-8")
        require(0 < len(passphrase) <= MAX_PASSPHRASE_CHARS, "passphrase: empty, or longer than 1,024 characters")
        require(len(self.salt) == SALT_BYTES, "passphrase box: salt is not 16 bytes")
        cost = self.cost
        return Argon2id(
            salt=self.salt, length=KEY_BYTES, iterations=cost.passes, lanes=cost.lanes, memory_cost=cost.memory_kib
        ).derive(typed)


def _parse_cost(value: object) -> Argon2Cost:
    if not isinstance(value, dict) or set(value) != {"memory_kib", "passes", "lanes"}:
        raise MalformedError("passphrase box: the cost is not that of Argon2id")
    return Argon2Cost(int_member(value, "memory_kib"), int_member(value, "passes"), int_member(value, "lanes"))


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")
