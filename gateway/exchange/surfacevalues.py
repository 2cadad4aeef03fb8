"""Large fingerprints for stock clients, which ask for each by the entry that has it.

Policy judges when it is asked for, as for any page of entries (`windows`): an entry that is not there, not in view, not
shown with its perceptual digests, or without such a value is all the same "not found". What leaves is on record before
the first octet of it does.
"""

from __future__ import annotations

from gateway.audit import EventKind
from gateway.errors import NotFoundError
from gateway.exchange import largevalues
from gateway.exchange.admission import Admission
from gateway.exchange.largevalues import LargeValue
from gateway.exchange.windows import Windows
from gateway.node import Node

ABSENT = "no such fingerprint"


class SurfaceValues:
    """Serves large values of own sets to stock clients, piece by piece."""

    def __init__(self, node: Node, windows: Windows, admission: Admission) -> None:
        self._node = node
        self._windows = windows
        self._admission = admission

    def find(self, partner: str, surface: str, entry: tuple[int, int], algorithm: str) -> LargeValue:
        """The value of an entry that a partner may have now; that it gets it is on record then.

        Args:
            entry: the set's number and the entry id.

        Raises:
            NotFoundError: it may see no such entry, or not this fingerprint of it, or there is none.
            OverloadedError: exchange is paused.
        """
        set_id, entry_id = entry
        with self._node.store.transaction() as tx:
            # 1. Whether it may see the entry with its perceptual digests.
            admitted = self._admission.admitted(tx, partner, surface)
            seen = next((one for one in admitted.sets if one.id == set_id), None)
            shown = None if seen is None else self._windows.fingerprint(tx, seen, entry_id, algorithm)
            if seen is None or shown is None:
                raise NotFoundError(ABSENT)
            # 2. Whether the value is there.
            version, digest = shown
            value = largevalues.find(self._node, tx, set_id, digest)
            if value is None:
                raise NotFoundError(ABSENT)
            # 3. What leaves. A crash before the commit sends nothing.
            name = seen.hash_set.name
            details: dict[str, object] = {
                "partner": partner,
                "surface": surface,
                "set": name,
                "entry": f"{entry_id:016x}",
                "version": version,
                "algorithm": algorithm,
                "octets": value.row.octets,
                "policy": admitted.policy,
            }
            kind = EventKind.SURFACE_VALUE_SERVED
            tx.log.append([self._node.event(kind, actor=self._node.agency, subject=partner, details=details)])
        return value

    def piece(self, partner: str, value: LargeValue, number: int) -> bytes:
        """One piece of a value that `find` gave.

        Raises:
            NotFoundError: it has gone meanwhile. UnauthenticatedError, OverloadedError: the partner may not exchange.
        """
        self._windows.check(partner)
        with self._node.store.reading() as tx:
            return largevalues.piece(self._node, tx, value, number)
