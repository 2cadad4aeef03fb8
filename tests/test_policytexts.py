"""Policies that were in force are kept under their digest, and nothing else is taken for them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text

from factory import CHEAP, PASSPHRASE, FakeClock, SeededRandom, make_node
from gateway import policytexts
from gateway.config import Settings, read_policies
from gateway.errors import AuditBrokenError, ConfigError, NotFoundError
from gateway.home import found, open_home
from gateway.node import Node, Policies
from gateway.partners import record_policy


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def node(tmp_path: Path, clock: FakeClock) -> Iterator[Node]:
    node = make_node(tmp_path, clock=clock)
    yield node
    node.store.close()


def edited(node: Node) -> Node:
    """The same gateway over a folder in which somebody has written a comment."""
    texts = dict(node.policies.texts)
    path = "XA/national.cedar"
    return replace(node, policies=Policies({**texts, path: texts[path] + "// reviewed\n"}))


def brought_into_force(node: Node) -> str:
    with node.store.transaction() as tx:
        record_policy(tx, node, previous="")
    return node.policy.digest


def kept(node: Node) -> list[str]:
    with node.store.reading() as tx:
        return tx.policies.digests()


def test_every_policy_that_came_into_force_is_kept_once(node: Node, clock: FakeClock) -> None:
    first = brought_into_force(node)
    clock.advance(60)
    other = edited(node)
    second = brought_into_force(other)
    clock.advance(60)
    assert brought_into_force(node) == first
    assert kept(node) == [first, second]
    with node.store.reading() as tx:
        assert policytexts.find(tx, first) == node.policies.texts
        assert policytexts.find(tx, second) == other.policies.texts


def test_a_policy_that_was_never_in_force_is_not_found(node: Node) -> None:
    brought_into_force(node)
    with node.store.reading() as tx, pytest.raises(NotFoundError):
        policytexts.find(tx, edited(node).policy.digest)


@pytest.mark.parametrize(
    "texts",
    ["{}", "[]", "", '{"XA/national.cedar":1}', "{", '{"XA/national.cedar":"permit (principal, action, resource);"}'],
)
def test_texts_that_somebody_else_wrote_are_noticed(node: Node, texts: str) -> None:
    digest = brought_into_force(node)
    with node.store.transaction() as tx:
        tx.connection.execute(text("UPDATE policy_text SET texts = :texts"), {"texts": texts})
    with node.store.reading() as tx, pytest.raises(AuditBrokenError, match="not those of its digest"):
        policytexts.find(tx, digest)


def test_a_gateway_from_before_texts_were_kept_keeps_its_policy_once_it_is_opened(
    tmp_path: Path, clock: FakeClock
) -> None:
    settings = Settings(tmp_path / "xa", "XA-NCVI", "XA", demo=True, quorum=1)
    found(settings, PASSPHRASE, name="XA team", clock=clock, random=SeededRandom(1), cost=CHEAP)
    node = open_home(settings.folder, PASSPHRASE, clock=clock)
    assert node.policy.digest in kept(node)
    with node.store.transaction() as tx:
        tx.connection.execute(text("DELETE FROM policy_text"))
    # A folder that somebody has edited is not what is in force, so it is not kept.
    path = settings.folder / "policies" / "XA" / "national.cedar"
    before = path.read_text()
    path.write_text(before + "// reviewed\n")
    with pytest.raises(ConfigError, match="another policy"):
        open_home(settings.folder, PASSPHRASE, clock=clock)
    assert kept(node) == []
    path.write_text(before)
    again = open_home(settings.folder, PASSPHRASE, clock=clock)
    assert node.policy.digest in kept(again)
    with again.store.reading() as tx:
        assert policytexts.find(tx, node.policy.digest) == read_policies(again.settings.policies_folder, "XA")
    for one in (node, again):
        one.store.close()
