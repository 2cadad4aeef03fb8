"""Checking this gateway's own log while it goes on working: in short reads, so that nobody who writes is kept waiting.

The check covers the log as long as it is when the check begins; what is appended meanwhile is for the next. At the end
the tables are counted: rows that belong to no leaf are found although no leaf asks for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from gateway.audit import LeafRow, LogReport, verify_log
from gateway.errors import AuditBrokenError
from gateway.node import Node, own_log
from gateway.store import Transaction

LEAVES_AT_ONCE = 2000  # some milliseconds of reading
T = TypeVar("T")


def verify_own_log(
    node: Node, outside: Sequence[bytes] = (), *, told: Callable[[int, int], None] = lambda _done, _all: None
) -> LogReport:
    """Returns what the log holds if every row of its tables is in place; AuditBrokenError names the first bad leaf.

    Args:
        outside: signed notes and receipts of this log that were kept elsewhere.
        told: told (leaves checked, leaves in all) on the way.
    """
    with node.store.reading() as tx:
        key, size = own_log(node, tx).verifier, tx.log.size()
    if size == 0:  # founding appends the first leaves, so there is no gateway with an empty log
        raise AuditBrokenError("audit log: it is empty", index=0)

    def watched() -> Iterator[LeafRow]:
        for row in _chunks(node, size, lambda tx, start, stop: tx.log.leaves(start, stop)):
            if row.index % LEAVES_AT_ONCE == 0:
                told(row.index, size)
            yield row

    report = verify_log(
        watched(),
        _chunks(node, size, lambda tx, start, stop: tx.log.nodes_born(start, stop)),
        _chunks(node, size, lambda tx, start, stop: tx.log.checkpoints(start, stop)),
        key,
        outside,
    )
    with node.store.reading() as tx:
        if not tx.log.counts_fit():
            raise AuditBrokenError("audit log: there are rows that belong to no leaf", index=size)
    return report


def _chunks(node: Node, size: int, read: Callable[[Transaction, int, int], Iterable[T]]) -> Iterator[T]:
    for start in range(0, size, LEAVES_AT_ONCE):
        with node.store.reading() as tx:
            rows = list(read(tx, start, min(start + LEAVES_AT_ONCE, size)))
        yield from rows
