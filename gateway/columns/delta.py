"""Which changes a follower needs to get from its cursor to the hub's present state. Pure selection, no bytes.

The hub has all its rows with seq in (after, until], of all labels. Of each entry two of them matter. The **first**
knows through prev_seq and prev_label what the entry was at `after`, so it tells whether the follower holds it. The
**last** is what the entry is now. Whatever lies between happened and passed:

    held at `after`   now                                  the follower gets
    no                an assert in a visible label         the entry
    yes               an assert in a visible label         the entry (it replaces what it holds)
    yes               a withdraw                           a withdrawal, to acknowledge and remember
    yes               an assert in another label, a leave  a leave: delete it, it may return
    no                anything else                        nothing, not even that the entry exists

*Held* means: the entry's row before the range (prev_seq ≤ `after`) was an assert in a label of the view. The follower's
cursor says that it applied all up to `after` under this same view; a change of view is settled before, label by label.
Whoever drops a replaced row from a block hands its prev_seq and prev_label on to the entry's next row. That serves
followers from before the dropped row; for those between the two its place must stay (`exchange.compacting`, decision
0013), or they are sent to compare.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from gateway.columns.rows import Index, Ints, Mask, Rows
from gateway.errors import MalformedError
from gateway.model import MAX_LABELS, ChangeKind


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """Rows of the range: a mask of those to send whole, and the last rows of entries to withdraw and to leave.

    The indexes are in seq order; the caller takes entry id, seq and version from the rows they name.
    """

    send: Mask
    withdraw: Index
    leave: Index


def select_delta(rows: Rows, visible: Collection[int], labels: Ints, after: int) -> Selection:
    """What goes to a follower with this view, whose cursor is `after`.

    Args:
        rows: all changes of the set in (after, until], in seq order, with the local columns prev_seq and prev_label.
        visible: the labels of the view; 0 is no label.
        labels: the label of each row.
    """
    seq = rows.ints("seq")
    if rows.n and (int(seq[0]) <= after or (seq[1:] <= seq[:-1]).any()):
        raise MalformedError("delta: the changes are not in order after the cursor")
    seen = _table(visible)
    first, last = _first_and_last(rows.ints("entry_id"))
    prev_label, prev_seq = rows.ints("prev_label")[first], rows.ints("prev_seq")[first]
    if (prev_seq > after).any():
        # Silence here could leave a withdrawn entry with a follower for ever.
        raise MalformedError("delta: the changes of an entry in this range are not complete")
    held = seen[_places(prev_label)]
    asserted = rows.ints("kind")[last] == ChangeKind.ASSERT
    shown = asserted & seen[_places(labels[last])]
    withdrawn = rows.ints("kind")[last] == ChangeKind.WITHDRAW
    send = np.zeros(rows.n, np.bool_)
    send[last[shown]] = True
    return Selection(send, np.sort(last[held & withdrawn]), np.sort(last[held & ~withdrawn & ~shown]))


def _table(visible: Collection[int]) -> Mask:
    """Visible or not, by label number; the last place stands for numbers that no label has."""
    table = np.zeros(MAX_LABELS + 2, np.bool_)
    table[[label for label in visible if 1 <= label <= MAX_LABELS]] = True
    return table


def _places(labels: Ints) -> Index:
    return np.minimum(labels, MAX_LABELS + 1).astype(np.int64)


def _first_and_last(entry_ids: Ints) -> tuple[Index, Index]:
    """The first and the last row of each entry, in order of entry id."""
    if (entry_ids[1:] > entry_ids[:-1]).all():  # as imports give them: each entry once
        rows = np.arange(len(entry_ids), dtype=np.int64)
        return rows, rows
    order = np.argsort(entry_ids, kind="stable").astype(np.int64)
    ordered = entry_ids[order]
    changes = ordered[1:] != ordered[:-1]
    edge = np.ones(min(1, len(order)), np.bool_)
    return order[np.concatenate([edge, changes])], order[np.concatenate([changes, edge])]
