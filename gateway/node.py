"""One gateway node: the collaborators that every deed needs, put together once at the door.

Clock and randomness are fields, so that several gateways run in one process on a simulated clock from one seed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime

from gateway import audit, policy
from gateway.audit import Event, EventKind
from gateway.config import Settings
from gateway.crypto import checkpoint
from gateway.crypto.keys import SYSTEM_RANDOM, Random
from gateway.keystore import Keystore
from gateway.store import Store

Clock = Callable[[], int]
POLICY_META = "policy"  # where the database says which policy is in force, by its digest


class CheckpointSigner:
    """What the store needs to close a transaction: the log's key, and salts."""

    def __init__(self, key: checkpoint.CheckpointKey, random: Random) -> None:
        self._key = key
        self._random = random

    def sign_checkpoint(self, size: int, root: bytes, previous: int) -> bytes:
        """A C2SP signed note over (size, root) that names the size of the checkpoint before it."""
        return audit.publish(self._key.name, size, root, self._key, previous=previous)

    def salt(self) -> bytes:
        """32 fresh random bytes."""
        return self._random.bytes(32)


@dataclass(slots=True)
class Policies:
    """The policy texts, and the set they make today: a rule's lapse takes effect at the change of the day."""

    texts: Mapping[str, str]
    _loaded: policy.PolicySet | None = None

    def on(self, day: date) -> policy.PolicySet:
        """The policy set of a day."""
        if self._loaded is None or self._loaded.on != day:
            self._loaded = policy.load(self.texts, on=day)
        return self._loaded


@dataclass(frozen=True, slots=True)
class Node:
    """Settings, store, keys and policies of one gateway, with its clock and its randomness."""

    settings: Settings
    store: Store
    keystore: Keystore
    policies: Policies
    clock: Clock
    random: Random = field(default=SYSTEM_RANDOM)

    @property
    def agency(self) -> str:
        """Whose gateway this is."""
        return self.settings.agency

    @property
    def policy(self) -> policy.PolicySet:
        """The rules in force now."""
        return self.policies.on(datetime.fromtimestamp(self.clock(), UTC).date())

    def event(self, kind: EventKind, *, actor: str, subject: str, details: Mapping[str, object] | None = None) -> Event:
        """An audit event of this moment."""
        return Event(kind, self.clock(), actor, subject, dict(details or {}))


def witness_name(agency: str) -> str:
    """The name under which an agency cosigns other agencies' checkpoints."""
    return f"partner-exchange/{agency}/witness"


def log_origin(agency: str, number: int = 1) -> str:
    """The name of an agency's audit log; a restored gateway begins a new one."""
    return f"partner-exchange/{agency}/log/{number}"
