"""Faults that nobody is told of: an entry that is gone, changed or there without any deed.

Sums follow, as a fault in the program would leave them; everything else stays as it was.

    drop(exchange, name, entry)          alter(exchange, name, entry)          add(exchange, name, like, entry)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from factory import sha256
from gateway.columns.block import decode, encode_block
from gateway.columns.rows import Rows, flagged, integers
from gateway.exchange import Exchange
from gateway.exchange.changes import Held, Sums, held_rows, supersede
from gateway.exchange.labels import digest_key
from gateway.exchange.shelf import CHANGES

Values = Mapping[str, Any]


def drop(exchange: Exchange, name: str, *entries: int) -> None:
    """Lose entries."""
    _replace(exchange, name, entries, lambda _held: None)


def alter(exchange: Exchange, name: str, entry: int) -> None:
    """Have another digest stand for an entry."""
    _replace(exchange, name, [entry], lambda held: {"sha256": [sha256("altered by a fault")] * held.n})


def add(exchange: Exchange, name: str, like: int, entry: int) -> None:
    """Have an entry that nobody imported, like another."""
    _replace(exchange, name, [like], lambda _held: {"entry_id": integers([entry])}, keep=True)


def _replace(
    exchange: Exchange,
    name: str,
    entries: Sequence[int],
    change: Callable[[Rows], Values | None],
    *,
    keep: bool = False,
) -> None:
    """Write the blocks of these entries anew, without their rows (unless `keep`), and with what `change` makes."""
    node, shelf = exchange.node, exchange.shelf
    with node.store.transaction() as tx:
        found = tx.sets.get(name)
        assert found.id is not None
        sums = Sums(tx, found.id, digest_key(node, found))
        held = held_rows(tx, shelf, found.id, integers(sorted(entries)))
        if not keep:
            supersede(tx, shelf, found.id, integers(sorted(entries)), sums)
        digests = {row.number: row.digest for row in tx.sets.labels(found.id)}
        made: list[tuple[Held, Rows, bool]] = []
        for one in held:
            rows = decode(shelf.get(tx, one.block))
            gone = set(one.rows.ints("entry_id").tolist())
            rest = rows.take(flagged([keep or entry not in gone for entry in rows.ints("entry_id").tolist()]))
            changed = change(one.rows)
            made += [(one, rest, False)] if rest.n else []
            made += [] if changed is None else [(one, one.rows.with_columns(changed), True)]
        blocks = [
            encode_block(
                set_name=name,
                epoch=one.block.epoch,
                label=one.block.label,
                label_digest=digests[one.block.label],
                rows=rows,
                salt=shelf.salt,
            )
            for one, rows, _ in made
        ]
        leaf = tx.log.append([], blocks=[block.digest for block in blocks])
        arrived = [one.block.arrived for one, _, _ in made]
        shelf.put(tx, found.id, CHANGES, blocks, first_leaf=leaf, arrived=arrived)
        tx.blocks.drop(found.id, [one.block.id or 0 for one in held])
        pairs = zip(made, blocks, strict=True)
        sums.add([(one.block.label, rows, block.parts) for (one, rows, new), block in pairs if new])
        sums.write()
