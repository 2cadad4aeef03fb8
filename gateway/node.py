"""One gateway node: the collaborators that every deed needs, put together once at the door.

Clock and randomness are fields, so that several gateways run in one process on a simulated clock from one seed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from threading import Lock

from gateway import audit, policy
from gateway.audit import Event, EventKind
from gateway.config import Settings
from gateway.crypto.checkpoint import CheckpointKey, number_of_log
from gateway.crypto.keys import SYSTEM_RANDOM, Random
from gateway.errors import AuditBrokenError, GatewayError, MalformedError
from gateway.keystore import Keystore
from gateway.store import Store, Transaction

Clock = Callable[[], int]
POLICY_META = "policy"  # where the database says which policy is in force, by its digest
WAITING_META = "policy waiting"  # … and which one waits for its day: "" or "YYYY-MM-DD" and its proposal


class CheckpointSigner:
    """What the store needs to close a transaction: the log's key, and salts.

    Args:
        key: of the log as it is now.
        later: the key of a log of another origin, once it has begun in place of that one (`restoring`).
    """

    def __init__(self, key: CheckpointKey, random: Random, later: Callable[[str], CheckpointKey] | None = None) -> None:
        self._key = key
        self._random = random
        self._later = later

    def sign_checkpoint(self, size: int, root: bytes, previous: int, origin: str) -> bytes:
        """A C2SP signed note over (size, root) that names the size of the checkpoint before it."""
        key = self._key
        if origin not in ("", key.name) and self._later is not None:
            try:
                key = self._later(origin)
            except GatewayError as error:
                raise AuditBrokenError("the audit log is one that this gateway has no key of") from error
        return audit.publish(key.name, size, root, key, previous=previous)

    def salt(self) -> bytes:
        """32 fresh random bytes."""
        return self._random.bytes(32)


@dataclass(slots=True)
class Policies:
    """The policy texts, and the set they make today: a rule's lapse takes effect at the change of the day."""

    texts: Mapping[str, str]
    _loaded: policy.PolicySet | None = None
    _changing: Lock = field(default_factory=Lock, repr=False)

    def on(self, day: date) -> policy.PolicySet:
        """The policy set of a day."""
        loaded = self._loaded
        if loaded is not None and loaded.on == day:
            return loaded
        with self._changing:
            if self._loaded is None or self._loaded.on != day:
                self._loaded = policy.load(self.texts, on=day)
            return self._loaded

    def take_up(self, texts: Mapping[str, str], day: date) -> None:
        """From now on these texts decide; ConfigError, and nothing changes, where they are not sound."""
        loaded = policy.load(texts, on=day)
        with self._changing:
            self.texts, self._loaded = texts, loaded


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
        return self.policies.on(self.today)

    @property
    def today(self) -> date:
        """The day (UTC) for which policy decides now."""
        return datetime.fromtimestamp(self.clock(), UTC).date()

    def event(self, kind: EventKind, *, actor: str, subject: str, details: Mapping[str, object] | None = None) -> Event:
        """An audit event of this moment."""
        return Event(kind, self.clock(), actor, subject, dict(details or {}))


def witness_name(agency: str) -> str:
    """The name under which an agency cosigns other agencies' checkpoints."""
    return f"partner-exchange/{agency}/witness"


def log_origin(agency: str, number: int = 1) -> str:
    """The name of an agency's audit log; a restored gateway begins a new one."""
    return f"partner-exchange/{agency}/log/{number}"


def own_log(node: Node, tx: Transaction) -> CheckpointKey:
    """The key of this gateway's audit log as it is now; its name is the log's origin."""
    numbers = node.keystore.log_numbers
    if len(numbers) > 1 and _claimed_number(tx) == numbers[-1]:
        numbers = numbers[-1:]  # the new log has begun, and the key of the one before is not destroyed yet
    return node.keystore.log_key(log_origin(node.agency, numbers[0]))


def awaits_restore(node: Node, tx: Transaction) -> bool:
    """Whether this gateway was restored from a backup, and its administrators have not signed yet that it goes on."""
    return number_of_log(own_log(node, tx).name) < node.keystore.log_numbers[-1]


def _claimed_number(tx: Transaction) -> int | None:
    try:
        return number_of_log(tx.log.origin() or "")
    except MalformedError:
        return None  # an empty log; or a row that somebody else wrote, which verifies under no key
