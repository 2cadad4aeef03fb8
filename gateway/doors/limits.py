"""How much one caller, and all of them, may take: the numbers, token buckets, and places for connections.

No socket and no clock in here: `RateLimiter` is given its clock, `Places` only counts.
"""

from __future__ import annotations

import ipaddress
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache

from gateway.doors.framing import HeadLimits
from gateway.errors import OverloadedError, RateLimitedError

MAX_CALLERS = 10_000  # token buckets kept; a full, idle one is as good as none


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """What one peer, and all of them, may cost. Seconds may be fractions.

    Behind a reverse proxy every request comes from one address: raise the per-address limits there and let the proxy
    keep them. No header of a proxy is believed.
    """

    head: HeadLimits = field(default_factory=HeadLimits)
    handshake_seconds: float = 5.0
    head_seconds: float = 5.0
    body_grace_seconds: float = 10.0
    body_total_seconds: float = 3600.0
    answer_grace_seconds: float = 30.0
    min_bytes_per_second: int = 1024
    idle_seconds: float = 30.0
    linger_seconds: float = 2.0
    shutdown_seconds: float = 10.0
    max_connections: int = 512
    max_connections_per_address: int = 64
    max_requests_at_once: int = 256
    max_requests_at_once_per_address: int = 16
    requests_per_second_per_address: float = 50.0
    request_burst_per_address: int = 200
    default_body_bytes: int = 65_536

    @property
    def sweep_seconds(self) -> float:
        """How often connections are looked at: a quarter of the shortest deadline, at most every second."""
        deadlines = (self.head_seconds, self.body_grace_seconds, self.answer_grace_seconds, self.idle_seconds)
        return max(0.02, min(1.0, min(*deadlines, self.linger_seconds) / 4))


class RateLimiter:
    """Token buckets and a count of running requests, by caller.

    Args:
        per_second: how many requests a caller may make in the long run.
        burst: how many at once after a pause.
        at_once: how many may run side by side.
        clock: monotonic seconds.
    """

    def __init__(
        self, *, per_second: float, burst: int, at_once: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._per_second = per_second
        self._burst = burst
        self._at_once = at_once
        self._clock = clock
        self._buckets: dict[str, _Bucket] = {}

    @contextmanager
    def admit(self, caller: str) -> Iterator[None]:
        """Hold one of the caller's places while the block runs.

        Raises:
            RateLimitedError: its bucket is empty; `retry_after_seconds` says when there is a token again.
            OverloadedError: as many as allowed are running.
        """
        bucket = self._bucket(caller, self._clock())
        if bucket.tokens < 1:
            wait = math.ceil((1 - bucket.tokens) / self._per_second)
            raise RateLimitedError("too many requests", retry_after_seconds=wait)
        if bucket.running >= self._at_once:
            raise OverloadedError("too many requests at once", retry_after_seconds=1)
        bucket.tokens -= 1
        bucket.running += 1
        try:
            yield
        finally:
            bucket.running -= 1

    def _bucket(self, caller: str, now: float) -> _Bucket:
        bucket = self._buckets.pop(caller, None) or _Bucket(self._burst, now)
        self._buckets[caller] = bucket  # last in the order: the first are the longest unused
        bucket.tokens = min(self._burst, bucket.tokens + (now - bucket.filled) * self._per_second)
        bucket.filled = now
        while len(self._buckets) > MAX_CALLERS:
            oldest = next(iter(self._buckets))
            if self._buckets[oldest].running:
                break
            del self._buckets[oldest]
        return bucket


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled: float
    running: int = 0


class Places:
    """Places for connections, in all and per address."""

    def __init__(self, limits: ServerLimits) -> None:
        self._limits = limits
        self.taken: Counter[str] = Counter()

    def take(self, source: str) -> Place | None:
        if self.taken.total() >= self._limits.max_connections:
            return None
        if self.taken[source] >= self._limits.max_connections_per_address:
            return None
        self.taken[source] += 1
        return Place(self, source)


class Place:
    """One place; leaving it twice is once."""

    def __init__(self, places: Places, source: str) -> None:
        self._places: Places | None = places
        self._source = source

    def leave(self) -> None:
        if self._places is None:
            return
        taken = self._places.taken
        self._places = None
        taken[self._source] -= 1
        if not taken[self._source]:
            del taken[self._source]


@lru_cache(maxsize=4096)
def source_of(address: str) -> str:
    """What counts as one address: an IPv4 address, or the /64 of an IPv6 one, for a site has 2^64 of those."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        mapped = parsed.ipv4_mapped
        return str(mapped) if mapped else str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
