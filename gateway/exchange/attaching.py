"""A large fingerprint of our own, given to an entry of an own set that is listed already: its next version has it.

A list that is followed brings such values with its entries (`sourcing`). What our own analysts make of a video comes
here.
"""

from __future__ import annotations

from gateway.audit import EventKind
from gateway.columns.block import encode_block
from gateway.columns.rows import Ints, constant, indexes, integers
from gateway.errors import DeniedError, NotFoundError
from gateway.exchange import largevalues
from gateway.exchange.changes import Sums, counted, held_rows, supersede
from gateway.exchange.labels import digest_key
from gateway.exchange.neveragain import NeverAgain
from gateway.exchange.shelf import CHANGES, Shelf
from gateway.model import ChangeKind
from gateway.node import Node

ALGORITHM = "tmk_pdqf"


class Attaching:
    """Gives entries of own sets their large fingerprints."""

    def __init__(self, node: Node, shelf: Shelf, never_again: NeverAgain) -> None:
        self._node = node
        self._shelf = shelf
        self._never_again = never_again

    def attach(self, set_name: str, entry_id: int, raw: bytes, *, actor: str) -> bool:
        """The entry has this TMK+PDQF, sealed beside the set; False where it had it already.

        Raises:
            TooLargeError, MalformedError: it is no such value.
            NotFoundError: the set does not list the entry.
            DeniedError: the set is a mirror, or the fingerprint is listed as never again.
        """
        node, shelf = self._node, self._shelf
        digest = largevalues.keep(node, set_name, raw)
        with node.store.transaction() as tx:
            hash_set = tx.sets.get(set_name)
            assert hash_set.id is not None, "a stored set has an id"
            ids = integers([entry_id])
            # 1. The entry as it is held, with the fingerprint.
            found = held_rows(tx, shelf, hash_set.id, ids)
            if not found:
                raise NotFoundError("the set does not list this entry", remedy="`gateway look-up` finds entries")
            [held] = found
            changed: dict[str, Ints | list[bytes]] = {
                "kind": constant(ChangeKind.ASSERT, 1),
                "seq": constant(hash_set.seq + 1, 1),
                "version": held.rows.ints("version") + constant(1, 1),
                "changed_at": constant(node.clock(), 1),
                "prev_seq": held.rows.ints("seq"),
                "prev_label": constant(held.block.label, 1),
                ALGORITHM: [digest],
            }
            rows = held.rows.with_columns(changed)
            bars = self._never_again.bars(tx, node.agency)
            if bars is not None and bars.find(rows) is not None:
                remedy = "two administrators may lift that: `gateway set reinstate`"
                raise DeniedError("this fingerprint is listed as never again", remedy=remedy)
            if ALGORITHM in held.rows.columns and held.rows.octets(ALGORITHM)[0].tobytes() == digest:
                largevalues.note(node, tx, hash_set, (), [held.rows])
                return False
            # 2. One commit: what was held leaves the sums, the new version comes, and the value is its own.
            sums = Sums(tx, hash_set.id, digest_key(node, hash_set))
            supersede(tx, shelf, hash_set.id, ids, sums)
            label = held.block.label
            block = encode_block(
                set_name=hash_set.name,
                epoch=hash_set.epoch,
                label=label,
                label_digest={row.number: row.digest for row in tx.sets.labels(hash_set.id)}[label],
                rows=rows,
                salt=shelf.salt,
            )
            details: dict[str, object] = {
                "set": hash_set.name,
                "epoch": hash_set.epoch,
                "from_seq": hash_set.seq + 1,
                "until_seq": hash_set.seq + 1,
                "format": ALGORITHM,
                "read": 1,
                "accepted": 1,
                "blocks": 1,
            }
            event = node.event(EventKind.ENTRIES_IMPORTED, actor=actor, subject=hash_set.name, details=details)
            leaf = tx.log.append([event], blocks=[block.digest])
            sums.count(counted([label], rows, indexes([0, 1]), sums.key))
            shelf.put(tx, hash_set.id, CHANGES, [block], first_leaf=leaf, rows=[rows], arrived=node.clock())
            tx.sets.advance(
                hash_set.id, expected_seq=hash_set.seq, seq=hash_set.seq + 1, next_entry=hash_set.next_entry
            )
            sums.write()
            largevalues.note(node, tx, hash_set, [entry_id], [rows])
        return True
