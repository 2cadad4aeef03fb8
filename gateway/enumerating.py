"""Many decisions at once: in this process, or in several where that pays.

The engine holds the interpreter while it decides, so threads bring nothing and processes do. Starting one costs as much
as deciding some ten thousand times: the table of a few labels is filled here, the whole policy of an agency in as many
processes as there are cores.

Rules:

1. The answers are those of `PolicySet.decide_all`, in its order, however many processes there are.
2. The processes are new ones ("spawn"): they hold no key, no connection and no lock of this one, only policy texts.
3. For commands and for activation, which wait for the answer: never within a transaction, never on the event loop.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context

from gateway.errors import OverloadedError
from gateway.policy import Decision, Grid, PolicySet

PAYS_FROM = 40_000  # decisions: two seconds of one core, where each process takes half a second to start
AT_ONCE = 4_000  # decisions of one errand: 0.2 s, so that all processes end at about the same time
MAX_PROCESSES = 16  # one process takes all the answers, and could not take them from many more

_LOADED: list[PolicySet] = []  # in a process that was started here: the set by which it decides


def decide_all(policies: PolicySet, grid: Grid, *, processes: int = 0) -> Iterator[list[Decision]]:
    """What `policies.decide_all(grid)` gives.

    Args:
        processes: how many decide; 0 for one where the grid is small, else one for each core.

    Raises:
        OverloadedError: a process was ended from outside.
    """
    many = processes or (_cores() if grid.cells >= PAYS_FROM else 1)
    if many == 1:
        yield from policies.decide_all(grid)
        return
    pool = ProcessPoolExecutor(many, mp_context=get_context("spawn"), initializer=_load, initargs=(policies,))
    try:
        for rows in pool.map(_decide, grid.pieces(AT_ONCE)):
            yield from rows
    except BrokenProcessPool as error:
        raise OverloadedError("a process that decided for this one was ended from outside") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _cores() -> int:
    return max(1, min(MAX_PROCESSES, len(os.sched_getaffinity(0))))


def _load(policies: PolicySet) -> None:
    _LOADED.append(policies)


def _decide(grid: Grid) -> list[list[Decision]]:
    return list(_LOADED[0].decide_all(grid))
