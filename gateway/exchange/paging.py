"""Which blocks make the next page: as many changes as there is room for, and all of the set's up to where it ends.

Blocks as imports leave them lie one behind the other in `seq`; blocks that were joined (`compacting`) lie side by
side, label by label, but never reach over a multiple of `SEGMENT_SEQS`. So whoever has seen every block of a segment
knows which of them belong together, however large the set is. A page ends where a group of blocks ends, unless the
first group alone is more than it has room for: then it ends between two changes, and blocks are cut there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate

from gateway.columns.rows import Ints, constant, joined
from gateway.exchange.shelf import HISTORY, stored_header
from gateway.store.tables import BlockRow

SEGMENT_SEQS = 65_536  # as many changes as one page brings
BYTES_OF_A_CHANGE = 384  # so that 65,536 changes of room are 24 MiB at most
CHANGES_OF_A_BLOCK = 16  # … and 4,096 blocks
REPLACED_IN_A_CHANGE = 8  # rows that are read and never sent, for the room of one that is
BLOCKS_AT_ONCE = 128  # more than most pages have, and a few milliseconds to read
_FINE = 1024  # costs of single changes are counted in 1,024ths


def cost(row: BlockRow) -> int:
    """What a block takes of a page's room, in changes: large values and tiny blocks cost more than their count."""
    stored = sum(part.stored_bytes for part in stored_header(row).parts)
    count = row.count // REPLACED_IN_A_CHANGE if row.kind == HISTORY else row.count
    return max(count, stored // BYTES_OF_A_CHANGE, CHANGES_OF_A_BLOCK)


def segment_end(seq: int) -> int:
    """The last seq of the segment in which a seq lies."""
    return -(-seq // SEGMENT_SEQS) * SEGMENT_SEQS


def next_blocks(ask: Callable[[int], list[BlockRow]], after: int, room: int) -> tuple[list[BlockRow], bool]:
    """The blocks that belong together after a seq, and whether there is room for all of them.

    They hold every change from there to the last seq among them. Without room they are the first group alone.

    Args:
        ask: the next blocks that reach beyond a seq, by their last seq: `BLOCKS_AT_ONCE`, or fewer when these are all.
    """
    rows: list[BlockRow] = []
    some = ask(after)
    while some:
        rows += some
        fitting = _fitting(rows, room)
        # Beyond the segment in which the room ends no block belongs to those before.
        seen = rows[-1].last_seq >= segment_end(rows[max(fitting, 1) - 1].last_seq)
        if len(some) < BLOCKS_AT_ONCE or (fitting < len(rows) and seen):
            break
        some = ask(rows[-1].last_seq)
    if not rows:
        return [], True
    ends = _ends(rows)
    whole = [end for end in ends if end <= fitting]
    return (rows[: whole[-1]], True) if whole else (rows[: ends[0]], False)


def end_within(seqs: Sequence[tuple[BlockRow, Ints]], room: int) -> int:
    """The seq at which a page ends for which even one group of blocks is too much: one change at least goes.

    Args:
        seqs: of each block the seqs that are still to go.
    """
    every = joined([found for _, found in seqs])
    costs = joined([constant(-(-cost(row) * _FINE // row.count), len(found)) for row, found in seqs])
    order = every.argsort()
    fitting = int((costs[order].cumsum() <= room * _FINE).sum())
    return int(every[order][max(fitting, 1) - 1])


def _fitting(rows: Sequence[BlockRow], room: int) -> int:
    """How many of the blocks there is room for, from the first on."""
    return sum(spent <= room for spent in accumulate(map(cost, rows)))


def _ends(rows: Sequence[BlockRow]) -> list[int]:
    """Where groups of blocks end: numbers of blocks after which none begins before them.

    Of the last blocks read it is not known; the end of all stands for them.
    """
    ends = []
    least = None
    for at in range(len(rows), 0, -1):
        if least is None or rows[at - 1].last_seq < least:
            ends.append(at)
        least = rows[at - 1].first_seq if least is None else min(least, rows[at - 1].first_seq)
    return ends[::-1]
