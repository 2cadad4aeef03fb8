"""AES-256 over whole blocks, many in one call: what bulk MACs are made of (`columns.marks`). Alone it hides nothing."""

from __future__ import annotations

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from gateway.model import require

KEY_BYTES = 32
BLOCK_BYTES = 16


class BlockCipher:
    """The AES permutation under one key (FIPS 197), for constructions that chain blocks themselves."""

    __slots__ = ("_cipher",)

    def __init__(self, key: bytes) -> None:
        require(len(key) == KEY_BYTES, "block cipher: the key is not 32 bytes long")
        self._cipher = Cipher(algorithms.AES(key), modes.ECB())  # noqa: S305  each caller chains its blocks itself

    def encrypt(self, blocks: bytes) -> bytes:
        """Every block of 16 bytes encrypted by itself."""
        require(len(blocks) % BLOCK_BYTES == 0, "block cipher: not whole blocks")
        return self._cipher.encryptor().update(blocks)

    def __repr__(self) -> str:
        return "BlockCipher()"
