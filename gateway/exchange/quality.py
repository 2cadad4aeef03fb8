"""How good entries are: what stands behind each, what speaks against it, and whether a program may act on it."""

from __future__ import annotations

from gateway.columns.rows import Rows
from gateway.exchange.shelf import Shelf
from gateway.model import CRYPTOGRAPHIC
from gateway.node import Node


class Quality:
    """Judges entries of any set here."""

    def __init__(self, node: Node, shelf: Shelf) -> None:
        self._node = node
        self._shelf = shelf

    def count_held(self, rows: Rows) -> int:
        """How many of these rows carry a cryptographic digest that some entry of some set here carries, too."""
        held: set[int] = set()
        with self._shelf.reading(self._node.store) as tx:
            for hash_set in tx.sets.all():
                with self._shelf.index(tx, hash_set.id or 0) as index:
                    for name in CRYPTOGRAPHIC:
                        if name in rows.columns:
                            held.update(index.find(name, rows.octets(name)).query.tolist())
        return len(held)
