"""The audit log's tree: hashes, inclusion proofs and consistency proofs of RFC 6962 (SHA-256), as RFC 9162 writes them.

    leaf_hash(entry) = SHA-256(0x00 ‖ entry)          node_hash(l, r) = SHA-256(0x01 ‖ l ‖ r)
    empty_root()     = SHA-256("")

The tree is kept as *nodes of complete subtrees*: node (level, index) covers the leaves index·2^level up to, not
including, (index+1)·2^level. Such a node never changes once written, so a log only ever adds rows. Seven leaves:

    level 2          (2,0)                        root(7) = h( (2,0), h( (1,2), (0,6) ) )
    level 1     (1,0)     (1,1)     (1,2)
    level 0    0     1   2     3   4     5   6

Appending leaf 7 adds (0,7), (1,3), (2,1) and (3,0): `append_nodes(7, [hash], read_node)` says exactly that. The
hashes at the right edge of a tree whose size is no power of two are computed, never stored.

Proofs are tuples of 32-byte hashes, in the order of RFC 9162 sections 2.1.3.1 and 2.1.4.1. The functions take
`read_node(level, index) -> bytes`, so where nodes are kept (SQL, a dict, static tiles) is not known here.
`Frontier` is the same tree for someone who only walks along it: constant memory, any size.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256

from gateway.errors import ProofError

HASH_BYTES = 32
# C2SP tlog-cosignature and every checkpoint reader we know keep sizes in a signed 64-bit number.
MAX_TREE_SIZE = 2**63 - 1

Node = tuple[int, int, bytes]
ReadNode = Callable[[int, int], bytes]
Proof = tuple[bytes, ...]


def empty_root() -> bytes:
    """The root of a tree without leaves (RFC 9162 2.1.1)."""
    return sha256(b"").digest()


def leaf_hash(entry: bytes) -> bytes:
    """The hash of one log entry as a leaf."""
    return sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of the node above two others."""
    return sha256(b"\x01" + left + right).digest()


def append_nodes(size: int, leaf_hashes: Sequence[bytes], read_node: ReadNode) -> list[Node]:
    """The nodes to store when `leaf_hashes` follow the first `size` leaves; level 0, the leaves themselves, included.

    `read_node` is asked at most once a level, for the left neighbour of the first new node.
    """
    nodes: list[Node] = []
    level, first, row = 0, size, list(leaf_hashes)
    while row:
        nodes.extend([(level, index, value) for index, value in enumerate(row, first)])
        if first % 2:
            row.insert(0, read_node(level, first - 1))
            first -= 1
        evens = iter(row)  # pairs; a last one without a right neighbour stays where it is
        row = [sha256(b"\x01" + left + right).digest() for left, right in zip(evens, evens, strict=False)]
        level, first = level + 1, first // 2
    return nodes


def root(size: int, read_node: ReadNode) -> bytes:
    """The root of the tree of the first `size` leaves."""
    return _range_root(0, size, read_node) if size else empty_root()


def inclusion_proof(index: int, size: int, read_node: ReadNode) -> Proof:
    """The path from leaf `index` to the root of the tree of `size` leaves (RFC 9162 2.1.3.1)."""
    if not 0 <= index < size:
        raise ProofError("inclusion proof: there is no such leaf in a tree of this size")
    path: list[bytes] = []
    begin, end = 0, size
    while end - begin > 1:
        middle = begin + _split(end - begin)
        if index < middle:
            path.append(_range_root(middle, end, read_node))
            end = middle
        else:
            path.append(_range_root(begin, middle, read_node))
            begin = middle
    return tuple(reversed(path))


def consistency_proof(old_size: int, new_size: int, read_node: ReadNode) -> Proof:
    """The proof that the tree of `old_size` leaves is the beginning of that of `new_size` (RFC 9162 2.1.4.1)."""
    if not 0 <= old_size <= new_size:
        raise ProofError("consistency proof: the older tree is the larger one")
    if old_size in (0, new_size):
        return ()
    path: list[bytes] = []
    begin, end, whole = 0, new_size, True
    while old_size != end:
        middle = begin + _split(end - begin)
        if old_size <= middle:
            path.append(_range_root(middle, end, read_node))
            end = middle
        else:
            path.append(_range_root(begin, middle, read_node))
            begin, whole = middle, False
    if not whole:  # SUBPROOF(m, D_m, false): the receiver cannot know this hash from the old root alone
        path.append(_range_root(begin, end, read_node))
    return tuple(reversed(path))


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root_hash: bytes) -> None:
    """Return if `leaf` (a leaf hash) stands at `index` in the tree of `size` leaves with this root.

    Raises:
        ProofError: it does not, or the proof is too short, too long or not made of hashes.
    """
    _require_hashes(leaf, root_hash, *proof)
    if not 0 <= index < size <= MAX_TREE_SIZE:  # RFC 9162 2.1.3.2 step 1
        raise ProofError("inclusion proof: there is no such leaf in a tree of this size")
    fn, sn = index, size - 1  # step 2
    computed = leaf  # step 3
    for sibling in proof:  # step 4
        if sn == 0:  # 4.1
            raise ProofError("inclusion proof: too long")
        if fn & 1 or fn == sn:  # 4.2
            computed = node_hash(sibling, computed)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:  # 4.3
            computed = node_hash(computed, sibling)
        fn, sn = fn >> 1, sn >> 1  # 4.4
    if sn:  # step 5
        raise ProofError("inclusion proof: too short")
    if not hmac.compare_digest(computed, root_hash):
        raise ProofError("inclusion proof: it leads to another root")


def verify_consistency(old_size: int, new_size: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Return if the tree of `new_size` leaves with `new_root` begins with the tree of `old_size` with `old_root`.

    Sizes 0 and equal sizes, which RFC 9162 leaves to the caller, need an empty proof and fitting roots.

    Raises:
        ProofError: it does not, or the proof is too short, too long or not made of hashes.
    """
    _require_hashes(old_root, new_root, *proof)
    if not 0 <= old_size <= new_size <= MAX_TREE_SIZE:
        raise ProofError("consistency proof: the older tree is the larger one")
    if old_size in (0, new_size):
        _verify_trivial_consistency(old_size, old_root, new_root, proof)
        return
    if not proof:  # RFC 9162 2.1.4.2 step 1
        raise ProofError("consistency proof: too short")
    path = list(proof)
    if old_size & (old_size - 1) == 0:  # step 2
        path.insert(0, old_root)
    fn, sn = old_size - 1, new_size - 1  # step 3
    while fn & 1:  # step 4
        fn, sn = fn >> 1, sn >> 1
    fr = sr = path[0]  # step 5
    for c in path[1:]:  # step 6
        if sn == 0:  # 6.1
            raise ProofError("consistency proof: too long")
        if fn & 1 or fn == sn:  # 6.2
            fr, sr = node_hash(c, fr), node_hash(c, sr)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:  # 6.3
            sr = node_hash(sr, c)
        fn, sn = fn >> 1, sn >> 1  # 6.4
    if sn:  # step 7
        raise ProofError("consistency proof: too short")
    if not hmac.compare_digest(fr, old_root):
        raise ProofError("consistency proof: it does not lead to the older root")
    if not hmac.compare_digest(sr, new_root):
        raise ProofError("consistency proof: it does not lead to the newer root")


class Frontier:
    """The right edge of a growing tree: enough to append leaves and to know the root, in constant memory."""

    __slots__ = ("_edge", "size")

    def __init__(self) -> None:
        self.size = 0
        self._edge: list[bytes] = []  # roots of the complete subtrees, largest first: one for each set bit of size

    def append(self, leaf: bytes) -> Iterator[Node]:
        """Add one leaf hash; yields the nodes that it completes, from level 0 upwards."""
        index, completed = self.size, [(0, self.size, leaf)]
        level, value = 0, leaf
        while index & 1:
            value = node_hash(self._edge.pop(), value)
            level, index = level + 1, index >> 1
            completed.append((level, index, value))
        self._edge.append(value)
        self.size += 1
        return iter(completed)

    def root(self) -> bytes:
        """The root of the leaves appended so far."""
        if not self._edge:
            return empty_root()
        value = self._edge[-1]
        for left in reversed(self._edge[:-1]):
            value = node_hash(left, value)
        return value


def _split(count: int) -> int:
    """The largest power of two smaller than `count` (RFC 9162 2.1.1: k < n <= 2k)."""
    return 1 << ((count - 1).bit_length() - 1)


def _range_root(begin: int, end: int, read_node: ReadNode) -> bytes:
    """The root over leaves [begin, end), where begin is a multiple of the power of two at or above the length."""
    edge: list[bytes] = []
    while begin < end:
        level = (end - begin).bit_length() - 1
        edge.append(read_node(level, begin >> level))
        begin += 1 << level
    value = edge.pop()
    while edge:
        value = node_hash(edge.pop(), value)
    return value


def _verify_trivial_consistency(old_size: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> None:
    if proof:
        raise ProofError("consistency proof: too long")
    if old_size == 0 and not hmac.compare_digest(old_root, empty_root()):
        raise ProofError("consistency proof: an empty tree has another root")
    if old_size and not hmac.compare_digest(old_root, new_root):
        raise ProofError("consistency proof: two roots for one size")


def _require_hashes(*values: bytes) -> None:
    if any(len(value) != HASH_BYTES for value in values):
        raise ProofError("proof: a hash is not 32 bytes long")
