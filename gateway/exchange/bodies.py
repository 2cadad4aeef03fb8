"""Sealed pages that are kept for a while: for the next partner of the class, and for a download that broke off.

Partners that see the same of a set and stand at the same cursor get the same page. It is decided, packed, hashed and
sealed once; each partner then gets an age header of its own (the same file key, one stanza) before the one body, which
is never copied. A partner that lost the connection goes on with the very bytes that it was sent before.

Rules:
- A body is found only by everything that decided what is in it (`Place`): the set and its state, view, cursor, end,
  room, policy, signing key. So after any of these has changed it serves nobody any more, and its time runs out.
- Whoever asks for a page a second time without naming what it has of it gets another one. A mirror that has begun anew
  would know the message again, and would take it for a repetition.
- What is kept is sealed; with it the file key is kept in memory, for as long.
- One thread makes a body while the others of its class wait for it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock

from gateway.crypto.envelope import SealedEnvelope
from gateway.crypto.keys import SealingKey
from gateway.interchange import Cursor, PageHead, View

MAX_KEPT_BYTES = 128 << 20  # the largest page that there can be (96 MiB), or two dozen of 65,536 changes
MAX_KEPT = 256  # small pages: each is looked through at every request
KEPT_SECONDS = 600  # a class polls within minutes, and a download that broke off is taken up in seconds


@dataclass(frozen=True, slots=True)
class Place:
    """Everything that decides what is in a page."""

    set_id: int
    state: tuple[int, int]  # epoch and seq of the set
    view: str
    policy: str
    cursor: Cursor
    known: bool  # whether the partner was given the view that its cursor names
    until: int
    room: int
    signing_key: str


@dataclass(slots=True, eq=False)
class Body:
    """One sealed page of a class, and the headers of those who got it.

    Attributes:
        views: those that the page's ends name; the partner is given them with it.
        octets: the sealed body; header ‖ octets is an age file.
        page_digest: SHA-256 of the page before it was sealed, hex.
        made: when, Unix seconds.
        entries: how many it brings, by label.
        headers: by partner, each with the entity tag of the whole.
    """

    place: Place
    head: PageHead
    views: Sequence[View]
    sealed: SealedEnvelope
    octets: bytes
    page_digest: str
    made: int
    entries: Mapping[int, int]
    headers: dict[str, tuple[bytes, str]] = field(default_factory=dict)

    def header_for(self, partner: str, keys: Sequence[SealingKey]) -> tuple[bytes, str]:
        """The header by which a partner opens the body, and the entity tag of both; made once."""
        header = self.sealed.header_for(*keys)
        # No other envelope has these octets: header and body have one file key, and that has one body.
        tag = hashlib.sha256(header + self.sealed.manifest_digest.encode()).hexdigest()
        return self.headers.setdefault(partner, (header, tag))

    def tag_for(self, partner: str) -> str | None:
        """The entity tag under which a partner was sent the body, None if it was not."""
        sent = self.headers.get(partner)
        return None if sent is None else sent[1]


class Bodies:
    """The bodies that are kept, oldest first. Threads may share it."""

    def __init__(self) -> None:
        self._kept: list[Body] = []
        self._guard = Lock()
        self._making: dict[Place, tuple[Lock, int]] = {}

    def fresh_for(self, place: Place, partner: str, now: int) -> Body | None:
        """The newest body of a place, if this partner has not had it yet."""
        with self._guard:
            self._forget(now)
            found = next((body for body in reversed(self._kept) if body.place == place), None)
            return None if found is None or partner in found.headers else found

    def sent_to(self, partner: str, tag: str, now: int) -> Body | None:
        """The body that a partner was sent under an entity tag."""
        with self._guard:
            self._forget(now)
            return next((body for body in self._kept if body.tag_for(partner) == tag), None)

    def keep(self, body: Body) -> None:
        """Keep a body; the oldest go where there is not room for all."""
        with self._guard:
            self._kept.append(body)
            while len(self._kept) > MAX_KEPT or sum(len(one.octets) for one in self._kept) > MAX_KEPT_BYTES:
                del self._kept[0]

    def tidy(self, now: int) -> None:
        """Drop what is too old."""
        with self._guard:
            self._forget(now)

    @contextmanager
    def alone(self, place: Place) -> Iterator[None]:
        """The block runs in one thread at a time for a place."""
        with self._guard:
            lock, waiting = self._making.get(place, (Lock(), 0))
            self._making[place] = lock, waiting + 1
        try:
            with lock:
                yield
        finally:
            with self._guard:
                lock, waiting = self._making.pop(place)
                if waiting > 1:
                    self._making[place] = lock, waiting - 1

    def _forget(self, now: int) -> None:
        # A clock that was put back makes them old as well.
        self._kept = [body for body in self._kept if 0 <= now - body.made <= KEPT_SECONDS]
