"""Large values: fingerprints of which an entry holds the SHA-256 alone, since they are as long as a thousand entries.

TMK+PDQF is the one that there is (`ALGORITHMS`): some 256 KiB for a video. The column of a block has its SHA-256, so
that blocks, state digests and pages stay as small as they are. The value itself lies beside the own set whose entry has
it, in sealed pieces:

    name    a keyed digest of set and SHA-256: who reads the database learns no fingerprint, and none is in two sets
    key     of its own, wrapped for this name, set and length; each piece opens only at its place
    use     an entry of the set has it, or a legal hold on that entry does

Rules:

1. A value comes before the entry that has it (`keep`), and is noted with the entry, in the commit of that (`note`).
2. It goes with the last use, in the commit that ends this: a withdrawal, an erasure, an update without it (`forget`),
   or the end of a hold (`release`). Its key is in its row alone. What no entry ever took goes after a day (`tidy`).
3. Whether it may leave is judged where it is asked for, by the entry's label as of then (`windows`, rule 2).
4. Mirrors and onward copies have none: a value does not travel with a page, its SHA-256 does.

Decision 0022.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from gateway.audit import EventKind
from gateway.columns.rows import Rows
from gateway.crypto.seal import DataKey
from gateway.errors import AuditBrokenError, DeniedError, NotFoundError, TooLargeError, VerificationError
from gateway.model import require
from gateway.node import Node
from gateway.partners import length_prefixed
from gateway.store import Transaction
from gateway.store.tables import HashSet, LargeUse, LargeValueRow

ALGORITHMS = ("tmk_pdqf",)
MAX_LARGE_BYTES = 16 << 20  # a TMK+PDQF has some 256 KiB
PIECE_BYTES = 256 << 10  # what of a value is in memory for each who is served
UNUSED_SECONDS = 86_400  # a run that fetched a value and broke off has long been done again
_NAME_LABEL = "large value 1"


@dataclass(frozen=True, slots=True)
class LargeValue:
    """A value that is there: its row, and in how many pieces."""

    row: LargeValueRow

    @property
    def pieces(self) -> int:
        """How many there are."""
        return -(-self.row.octets // PIECE_BYTES)


def keep(node: Node, set_name: str, raw: bytes) -> bytes:
    """Keep a value for an entry of an own set that is to come; returns its SHA-256, which the entry has.

    Raises:
        TooLargeError, MalformedError: longer than any such value, or empty.
        DeniedError: the set is a mirror.
    """
    if len(raw) > MAX_LARGE_BYTES:
        raise TooLargeError(f"a large fingerprint has at most {MAX_LARGE_BYTES} octets")
    require(raw, "an empty fingerprint")
    digest = hashlib.sha256(raw).digest()
    with node.store.transaction() as tx:
        hash_set = tx.sets.get(set_name)
        if hash_set.hub or hash_set.id is None:
            raise DeniedError("only its owner changes a set; this one is a mirror")
        name = _name(node, hash_set.id, digest)
        if tx.large.find(name) is not None:
            return digest
        key = DataKey.generate(node.random)
        row = LargeValueRow(name=name, set_id=hash_set.id, octets=len(raw), wrapped_key=b"", at=node.clock())
        row.wrapped_key = node.keystore.master_key.wrap(key, _context(row), node.random)
        starts = range(0, len(raw), PIECE_BYTES)
        pieces = [raw[start : start + PIECE_BYTES] for start in starts]
        tx.large.add(row, [key.seal(one, _piece(row, at), node.random) for at, one in enumerate(pieces)])
        _log(node, tx, EventKind.LARGE_VALUE_KEPT, hash_set, {"octets": len(raw)})
    return digest


def note(node: Node, tx: Transaction, hash_set: HashSet, updated: Iterable[int], rows: Iterable[Rows]) -> None:
    """Entries have the values that their rows name, where these are there; what entries had before is over.

    Args:
        updated: entries of which a new version came.
        rows: those that came, and those that came again as they were; with the entries' ids.
    """
    assert hash_set.id is not None
    if not tx.large.any(hash_set.id):
        return
    ids = [int(one) for one in updated]
    before = set(tx.large.uses(hash_set.id, ids).values())
    tx.large.end_uses(hash_set.id, ids)
    uses = [
        LargeUse(set_id=hash_set.id, entry_id=entry, hold="", name=_name(node, hash_set.id, octets.tobytes()))
        for some in rows
        for algorithm in ALGORITHMS
        if algorithm in some.columns
        for entry, octets in zip(some.ints("entry_id").tolist(), some.octets(algorithm), strict=True)
    ]
    known = tx.large.known({one.name for one in uses})
    tx.large.use([one for one in uses if one.name in known])
    _drop(node, tx, hash_set, before)


def forget(node: Node, tx: Transaction, hash_set: HashSet, entry_ids: Iterable[int]) -> None:
    """These entries are held no more: what none but they had goes."""
    note(node, tx, hash_set, entry_ids, ())


def hold(tx: Transaction, set_id: int, entry_ids: Collection[int], identifier: str) -> None:
    """A legal hold has the values of these entries as well, until `release`."""
    uses = tx.large.uses(set_id, entry_ids)
    tx.large.use([LargeUse(set_id=set_id, entry_id=entry, hold=identifier, name=name) for entry, name in uses.items()])


def release(node: Node, tx: Transaction, hash_set: HashSet, identifier: str) -> None:
    """A legal hold has ended: what nothing but it had goes."""
    _drop(node, tx, hash_set, tx.large.end_hold(identifier))


def tidy(node: Node) -> None:
    """Delete what came a day ago and no entry took."""
    before = node.clock() - UNUSED_SECONDS
    with node.store.reading() as tx:
        if not tx.large.unused(before=before):
            return
    with node.store.transaction() as tx:
        for set_id, names in tx.large.unused(before=before).items():
            _drop(node, tx, tx.sets.by_id(set_id), names)


def known(node: Node, tx: Transaction, set_id: int, digests: Sequence[bytes]) -> list[bool]:
    """Which of these values are there."""
    names = [_name(node, set_id, digest) for digest in digests]
    found = tx.large.known(set(names))
    return [name in found for name in names]


def find(node: Node, tx: Transaction, set_id: int, digest: bytes) -> LargeValue | None:
    """The value of a SHA-256 in a set, None where it is not there."""
    row = tx.large.find(_name(node, set_id, digest))
    return None if row is None else LargeValue(row)


def piece(node: Node, tx: Transaction, value: LargeValue, number: int) -> bytes:
    """One piece, opened.

    Raises:
        NotFoundError: the value has gone meanwhile.
        AuditBrokenError: it is not as it was written.
    """
    sealed = tx.large.piece(value.row.name, number)
    if sealed is None:
        raise NotFoundError("no such fingerprint")
    try:
        key = node.keystore.master_key.unwrap(value.row.wrapped_key, _context(value.row))
        return key.open(sealed, _piece(value.row, number))
    except VerificationError as error:
        raise AuditBrokenError("a large value is not as it was written") from error


def _drop(node: Node, tx: Transaction, hash_set: HashSet, names: Collection[str]) -> None:
    gone = tx.large.drop_unused(names)
    if gone:
        _log(node, tx, EventKind.LARGE_VALUES_DROPPED, hash_set, {"values": gone})


def _name(node: Node, set_id: int, digest: bytes) -> str:
    return node.keystore.row_mac(length_prefixed(_NAME_LABEL, str(set_id), digest.hex())).hex()


def _context(row: LargeValueRow) -> str:
    return f"large value {row.name} of set {row.set_id}, {row.octets} octets"


def _piece(row: LargeValueRow, number: int) -> str:
    return f"large value {row.name} piece {number}"


def _log(node: Node, tx: Transaction, kind: EventKind, hash_set: HashSet, details: dict[str, object]) -> None:
    told = {"set": hash_set.name, **details}
    tx.log.append([node.event(kind, actor=node.agency, subject=hash_set.name, details=told)])
