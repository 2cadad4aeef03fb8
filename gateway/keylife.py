"""The life of a key: its states, what may follow what, and when its end must be told.

States and transitions are those of NIST SP 800-57 Part 1 Rev. 5, section 7:

    pre-active ──> active ──> deactivated ──> destroyed
         │          │  ^ │         │              ^
         │          v  │ └─────────┼──────────────┤
         │       suspended ────────┤              │
         └──────────┴──────────────┴> compromised ┘

A key is made pre-active where partners must know it before it is used (signing, token), and active where using it is
the partners' business (decryption: whoever has the new card seals for it). `deactivated` protects nothing any more; a
decryption key still opens what was sealed for it before, until it is destroyed.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from gateway.errors import ConflictError

DAY_SECONDS = 86_400
ALARM_DAYS = (60, 30, 14, 7, 1)  # before its end, so that nobody is surprised on a Sunday


class KeyState(StrEnum):
    """Where a key stands."""

    PRE_ACTIVE = "pre-active"
    ACTIVE = "active"
    SUSPENDED = "suspended"
    DEACTIVATED = "deactivated"
    COMPROMISED = "compromised"
    DESTROYED = "destroyed"


class KeyPurpose(StrEnum):
    """What a key is for. One key, one purpose (SP 800-57 5.2)."""

    SIGNING = "signing"
    TOKEN = "token"  # noqa: S105  a purpose, no secret
    DECRYPTION = "decryption"


TRANSITIONS: Mapping[KeyState, frozenset[KeyState]] = {
    KeyState.PRE_ACTIVE: frozenset({KeyState.ACTIVE, KeyState.COMPROMISED, KeyState.DESTROYED}),
    KeyState.ACTIVE: frozenset({KeyState.SUSPENDED, KeyState.DEACTIVATED, KeyState.COMPROMISED, KeyState.DESTROYED}),
    KeyState.SUSPENDED: frozenset({KeyState.ACTIVE, KeyState.DEACTIVATED, KeyState.COMPROMISED, KeyState.DESTROYED}),
    KeyState.DEACTIVATED: frozenset({KeyState.COMPROMISED, KeyState.DESTROYED}),
    KeyState.COMPROMISED: frozenset({KeyState.DESTROYED}),
    KeyState.DESTROYED: frozenset(),
}


def check_transition(old: KeyState, new: KeyState) -> None:
    """Returns when a key may go from one state to the other; ConflictError when it may not."""
    if new not in TRANSITIONS[old]:
        allowed = ", ".join(sorted(TRANSITIONS[old])) or "nothing"
        raise ConflictError(f"a key that is {old} cannot become {new}", remedy=f"what may follow: {allowed}")


def days_left(expires: int, now: int) -> int:
    """Whole days until `expires` (Unix seconds), rounded up; 0 or less when it is over."""
    return -((now - expires) // DAY_SECONDS)


def alarm_level(expires: int, now: int) -> int | None:
    """The alarm day that a key has reached: the smallest of `ALARM_DAYS` not below its days left; 0 once it is over."""
    left = days_left(expires, now)
    if left <= 0:
        return 0
    return min((day for day in ALARM_DAYS if left <= day), default=None)
