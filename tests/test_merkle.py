"""The log's tree against the RFC 6962 reference tree and the slow recursive definition of RFC 9162."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.crypto import merkle
from gateway.errors import ProofError

VECTORS = json.loads((Path(__file__).parent / "vectors" / "merkle.json").read_text())
REFERENCE = [merkle.leaf_hash(bytes.fromhex(leaf)) for leaf in VECTORS["leaves"]]


class Tree:
    """Stored nodes in a dict, as a store would hold them."""

    def __init__(self, leaves: list[bytes], batch: int = 0) -> None:
        self.nodes: dict[tuple[int, int], bytes] = {}
        self.size = 0
        step = batch or max(1, len(leaves))
        for first in range(0, len(leaves), step):
            self.append(leaves[first : first + step])

    def append(self, leaves: list[bytes]) -> None:
        for level, index, value in merkle.append_nodes(self.size, leaves, self.read):
            assert (level, index) not in self.nodes, "a stored node is written once"
            self.nodes[level, index] = value
        self.size += len(leaves)

    def read(self, level: int, index: int) -> bytes:
        return self.nodes[level, index]


def slow_root(leaves: list[bytes]) -> bytes:
    """MTH of RFC 9162 2.1.1, word for word, over leaf hashes."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return hashlib.sha256(b"\x01" + slow_root(leaves[:k]) + slow_root(leaves[k:])).digest()


def slow_path(m: int, leaves: list[bytes]) -> list[bytes]:
    """PATH of RFC 9162 2.1.3.1."""
    if len(leaves) == 1:
        return []
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    if m < k:
        return [*slow_path(m, leaves[:k]), slow_root(leaves[k:])]
    return [*slow_path(m - k, leaves[k:]), slow_root(leaves[:k])]


def slow_subproof(m: int, leaves: list[bytes], whole: bool) -> list[bytes]:
    """SUBPROOF of RFC 9162 2.1.4.1."""
    if m == len(leaves):
        return [] if whole else [slow_root(leaves)]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    if m <= k:
        return [*slow_subproof(m, leaves[:k], whole), slow_root(leaves[k:])]
    return [*slow_subproof(m - k, leaves[k:], False), slow_root(leaves[:k])]


def made_up(count: int) -> list[bytes]:
    return [merkle.leaf_hash(b"made-up leaf %d" % i) for i in range(count)]


def test_reference_tree_has_the_published_roots_at_every_size() -> None:
    tree = Tree(REFERENCE)
    assert merkle.empty_root().hex() == VECTORS["empty_root"]
    for size, expected in enumerate(VECTORS["roots"], 1):
        assert merkle.root(size, tree.read).hex() == expected


@pytest.mark.parametrize("vector", VECTORS["inclusion"], ids=lambda v: f"{v['index']}-of-{v['size']}")
def test_reference_inclusion_proofs_are_produced_and_verify(vector: dict) -> None:
    tree = Tree(REFERENCE)
    proof = merkle.inclusion_proof(vector["index"], vector["size"], tree.read)
    assert [h.hex() for h in proof] == vector["proof"]
    root = bytes.fromhex(VECTORS["roots"][vector["size"] - 1])
    merkle.verify_inclusion(REFERENCE[vector["index"]], vector["index"], vector["size"], proof, root)


@pytest.mark.parametrize("vector", VECTORS["consistency"], ids=lambda v: f"{v['old']}-to-{v['new']}")
def test_reference_consistency_proofs_are_produced_and_verify(vector: dict) -> None:
    tree = Tree(REFERENCE)
    proof = merkle.consistency_proof(vector["old"], vector["new"], tree.read)
    assert [h.hex() for h in proof] == vector["proof"]
    roots = [bytes.fromhex(VECTORS["roots"][size - 1]) for size in (vector["old"], vector["new"])]
    merkle.verify_consistency(vector["old"], vector["new"], *roots, proof)


def test_every_proof_up_to_forty_leaves_is_that_of_the_slow_definition() -> None:
    leaves = made_up(40)
    tree = Tree(leaves, batch=7)
    roots = [merkle.root(size, tree.read) for size in range(41)]
    for size in range(1, 41):
        assert roots[size] == slow_root(leaves[:size])
        for index in range(size):
            proof = merkle.inclusion_proof(index, size, tree.read)
            assert list(proof) == slow_path(index, leaves[:size])
            merkle.verify_inclusion(leaves[index], index, size, proof, roots[size])
        for old in range(size + 1):
            proof = merkle.consistency_proof(old, size, tree.read)
            assert list(proof) == (slow_subproof(old, leaves[:size], True) if old else [])
            merkle.verify_consistency(old, size, roots[old], roots[size], proof)


@given(batches=st.lists(st.integers(0, 70), max_size=6))
@settings(max_examples=60, deadline=None)
def test_appending_in_any_batches_gives_the_same_nodes_as_one_at_a_time(batches: list[int]) -> None:
    leaves = made_up(sum(batches))
    tree = Tree([])
    for count in batches:
        tree.append(leaves[tree.size : tree.size + count])
    walked: dict[tuple[int, int], bytes] = {}
    frontier = merkle.Frontier()
    for leaf in leaves:
        walked.update({(level, index): value for level, index, value in frontier.append(leaf)})
    assert tree.nodes == walked
    assert merkle.root(tree.size, tree.read) == frontier.root() == slow_root(leaves)


@given(size=st.integers(1, 200), data=st.data())
@settings(max_examples=120, deadline=None)
def test_any_change_to_an_inclusion_proof_is_refused(size: int, data: st.DataObject) -> None:
    leaves = made_up(size)
    tree = Tree(leaves)
    index = data.draw(st.integers(0, size - 1))
    proof = list(merkle.inclusion_proof(index, size, tree.read))
    root = merkle.root(size, tree.read)
    kind = data.draw(st.sampled_from(["flip", "longer", "shorter", "index", "leaf", "root", "hash length"]))
    leaf, at = leaves[index], index
    if kind == "flip" and proof:
        which = data.draw(st.integers(0, len(proof) - 1))
        proof[which] = flipped(proof[which], data.draw(st.integers(0, 255)))
    elif kind == "shorter" and proof:
        proof.pop(data.draw(st.integers(0, len(proof) - 1)))
    elif kind == "index" and size > 1:
        at = data.draw(st.integers(0, size - 1).filter(lambda i: i != index))
    elif kind == "leaf":
        leaf = flipped(leaf, 3)
    elif kind == "root":
        root = flipped(root, 3)
    elif kind == "hash length":
        proof.append(b"short")
    else:
        proof.append(leaf)
    with pytest.raises(ProofError):
        merkle.verify_inclusion(leaf, at, size, proof, root)


@given(sizes=st.tuples(st.integers(1, 200), st.integers(1, 200)).map(sorted), data=st.data())
@settings(max_examples=120, deadline=None)
def test_any_change_to_a_consistency_proof_is_refused(sizes: list[int], data: st.DataObject) -> None:
    old, new = sizes
    tree = Tree(made_up(new))
    proof = list(merkle.consistency_proof(old, new, tree.read))
    roots = [merkle.root(old, tree.read), merkle.root(new, tree.read)]
    kind = data.draw(st.sampled_from(["flip", "longer", "shorter", "old root", "new root"]))
    if kind == "flip" and proof:
        which = data.draw(st.integers(0, len(proof) - 1))
        proof[which] = flipped(proof[which], data.draw(st.integers(0, 255)))
    elif kind == "shorter" and proof:
        proof.pop(data.draw(st.integers(0, len(proof) - 1)))
    elif kind.endswith("root"):
        which = ["old root", "new root"].index(kind)
        roots[which] = flipped(roots[which], 3)
    else:
        proof.append(roots[0])
    with pytest.raises(ProofError):
        merkle.verify_consistency(old, new, roots[0], roots[1], proof)


def test_an_inner_node_does_not_pass_for_a_leaf() -> None:
    tree = Tree(made_up(8))
    proof, root = merkle.inclusion_proof(5, 8, tree.read), merkle.root(8, tree.read)
    with pytest.raises(ProofError, match="too short"):
        merkle.verify_inclusion(tree.read(1, 2), 5, 8, proof[1:], root)
    with pytest.raises(ProofError, match="too short"):
        merkle.verify_inclusion(root, 5, 8, (), root)


def test_a_proof_of_another_length_is_refused_as_such() -> None:
    tree = Tree(made_up(8))
    leaf, root, old = tree.read(0, 5), merkle.root(8, tree.read), merkle.root(6, tree.read)
    with pytest.raises(ProofError, match="too long"):
        merkle.verify_inclusion(leaf, 5, 8, (*merkle.inclusion_proof(5, 8, tree.read), root), root)
    proof = merkle.consistency_proof(6, 8, tree.read)
    with pytest.raises(ProofError, match="too long"):
        merkle.verify_consistency(6, 8, old, root, (*proof, root))
    for shorter in ((), proof[:-1]):
        with pytest.raises(ProofError, match="too short"):
            merkle.verify_consistency(6, 8, old, root, shorter)


@pytest.mark.parametrize("wrong", [b"", b"short", bytes(31), bytes(33)])
def test_what_is_no_hash_is_refused_before_hashing(wrong: bytes) -> None:
    one, two = made_up(2)
    root = merkle.node_hash(one, two)
    for values in ((wrong, two, root), (one, wrong, root), (one, two, wrong)):
        with pytest.raises(ProofError, match="32 bytes"):
            merkle.verify_inclusion(values[0], 0, 2, [values[1]], values[2])
        with pytest.raises(ProofError, match="32 bytes"):
            merkle.verify_consistency(1, 2, values[0], values[2], [values[1]])


@pytest.mark.parametrize(("index", "size"), [(0, 0), (1, 1), (-1, 4), (4, 4), (0, 2**63)])
def test_a_leaf_outside_the_tree_is_refused(index: int, size: int) -> None:
    leaf = merkle.leaf_hash(b"")
    with pytest.raises(ProofError, match="no such leaf"):
        merkle.verify_inclusion(leaf, index, size, (), leaf)
    if size < 2**63:
        with pytest.raises(ProofError, match="no such leaf"):
            merkle.inclusion_proof(index, size, Tree([leaf] * max(size, 0)).read)


@pytest.mark.parametrize(("old", "new"), [(5, 4), (-1, 4)])
def test_a_tree_that_shrinks_is_refused(old: int, new: int) -> None:
    tree = Tree(made_up(8))
    with pytest.raises(ProofError, match="larger"):
        merkle.consistency_proof(old, new, tree.read)
    with pytest.raises(ProofError, match="larger"):
        merkle.verify_consistency(old, new, merkle.empty_root(), merkle.empty_root(), ())


def test_equal_sizes_with_two_roots_and_a_false_empty_root_are_refused() -> None:
    one, two = made_up(2)
    with pytest.raises(ProofError, match="two roots"):
        merkle.verify_consistency(4, 4, one, two, ())
    with pytest.raises(ProofError, match="empty tree"):
        merkle.verify_consistency(0, 4, one, two, ())


def test_bulk_append_takes_at_most_twice_the_bare_hashing() -> None:
    entries = [b"\x01" + hashlib.sha256(b"made-up %d" % i).digest() for i in range(100_000)]

    def bare() -> None:
        row = [hashlib.sha256(b"\x00" + entry).digest() for entry in entries]
        while len(row) > 1:
            row = [hashlib.sha256(b"\x01" + row[i] + row[i + 1]).digest() for i in range(0, len(row) - 1, 2)]

    def ours() -> None:
        merkle.append_nodes(0, [merkle.leaf_hash(entry) for entry in entries], lambda level, index: b"")

    trace = sys.gettrace()
    sys.settrace(None)  # a coverage run would slow our lines and leave hashlib's alone
    try:
        rounds = [(seconds(ours), seconds(bare)) for _ in range(4)]  # in turn, so that a busy machine slows both
    finally:
        sys.settrace(trace)
    assert min(one for one, _ in rounds) < 2 * min(other for _, other in rounds)


def seconds(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def flipped(value: bytes, bit: int) -> bytes:
    return (int.from_bytes(value, "big") ^ (1 << bit)).to_bytes(len(value), "big")
