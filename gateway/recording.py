"""How much of what strangers and partners provoke is recorded: enough to see it, too little to fill the log with it."""

from __future__ import annotations

import threading
from collections import Counter


class RecordingBound:
    """At most so many records a minute for one source, and for all of them together; safe for threads."""

    def __init__(self, for_one: int, for_all: int) -> None:
        self._for_one = for_one
        self._for_all = for_all
        self._minute = -1
        self._by_source: Counter[str] = Counter()
        self._lock = threading.Lock()

    def count(self, source: str, now: int) -> int | None:
        """The number of this record among its source's in this minute; None when it is not to be made.

        Args:
            now: Unix seconds.
        """
        with self._lock:
            if now // 60 != self._minute:
                self._minute = now // 60
                self._by_source.clear()
            if self._by_source[source] >= self._for_one or self._by_source.total() >= self._for_all:
                return None
            self._by_source[source] += 1
            return self._by_source[source]
