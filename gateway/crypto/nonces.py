"""DPoP nonces that every node understands and none remembers (RFC 9449 8 and 9).

A nonce is the time at which it was given out, and proof that we gave it out:

    base64url( time, 8 bytes big-endian ‖ HMAC-SHA256(key, label ‖ time)[:16] )        32 characters, no padding

A proof of possession that names one was made after that time, whatever the caller's clock says: a proof that was made
ahead, or by somebody who held the key for a moment only, is worth nothing after `NONCE_SECONDS`. Nodes that hold the
same key accept each other's nonces, and a restart changes nothing. A nonce is no secret and may be used many times;
that a proof is used once is assured by its `jti`. All times are Unix seconds; there is no clock here.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re

NONCE_SECONDS = 300  # as long as a token: who has just fetched one is not asked again while it lives
RENEW_SECONDS = NONCE_SECONDS // 2  # from this age on an answer brings a fresh one: a busy caller is never asked
NONCE_AHEAD_SECONDS = 60  # what the clocks of two nodes may differ by, as for everything that is signed
TIME_BYTES = 8
MAC_BYTES = 16  # nobody can try out more than a few of the 2^128 within a nonce's life

_LABEL = b"partner-exchange dpop-nonce 1\n"
_NONCE = re.compile(r"[A-Za-z0-9_-]{32}")


class Nonces:
    """Gives out nonces and knows them again, under one key."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def issue(self, now: int) -> str:
        """A nonce of this second."""
        time = now.to_bytes(TIME_BYTES, "big")
        return base64.urlsafe_b64encode(time + self._mac(time)).decode("ascii")

    def age(self, nonce: object, now: int) -> int | None:
        """Seconds since this nonce was given out; None when it is not ours, or not good any more.

        Args:
            nonce: what a proof says, of whatever type.
        """
        if not isinstance(nonce, str) or _NONCE.fullmatch(nonce) is None:
            return None
        raw = base64.urlsafe_b64decode(nonce)  # 32 letters are 24 bytes, so there is one spelling
        time, mac = raw[:TIME_BYTES], raw[TIME_BYTES:]
        if not hmac.compare_digest(mac, self._mac(time)):
            return None
        age = now - int.from_bytes(time, "big")
        return age if -NONCE_AHEAD_SECONDS <= age <= NONCE_SECONDS else None

    def _mac(self, time: bytes) -> bytes:
        return hmac.digest(self._key, _LABEL + time, hashlib.sha256)[:MAC_BYTES]
