"""Every policy that was in force here: since when, signed by whom, and which rules it changed.

What is told is read from the log (`policy_activated`) and from the texts kept under their digests (`policytexts`). A
gateway that was restored begins a new log, which tells from then on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gateway import policytexts
from gateway.audit import Event, EventKind
from gateway.crypto import canonical
from gateway.crypto.keys import VerifyingKey
from gateway.errors import ConfigError, NotFoundError
from gateway.logsearch import LogSearch
from gateway.model import text_member, texts_member
from gateway.node import Node
from gateway.policy import RuleChanges, rule_changes
from gateway.store import Transaction

PAGE_REIGNS = 10
_MAX_KEY_BYTES = 8 << 10


@dataclass(frozen=True, slots=True)
class Reign:
    """The time of one policy. `until` is 0 for the one in force; `changes` is None where texts are not kept.

    `previous`: the digest of the one before, "" for the founding policy, which nobody signed. `index`: of the entry in
    the log that says so. `signers`: names, or the ids of keys whose holder is not known any more.
    """

    index: int
    policy: str
    previous: str
    since: int
    until: int
    proposal: str
    signers: tuple[str, ...]
    changes: RuleChanges | None


@dataclass(frozen=True, slots=True)
class Reigns:
    """Some of them, newest first. `older`: where the next page begins, 0 at the end. `indexed` of `size` leaves."""

    reigns: tuple[Reign, ...]
    older: int
    indexed: int
    size: int


def reigns(node: Node, *, before: int = 0, limit: int = PAGE_REIGNS) -> Reigns:
    """The policies that came into force before an entry of the log, newest first.

    Args:
        before: the index of an entry, which is the last of the page before; 0 for the newest.
    """
    # With the last of the page before: it says until when the first of this page held.
    start = before + 1 if before else 0
    found = LogSearch(node).find({"kind": EventKind.POLICY_ACTIVATED}, before=start, limit=limit + bool(before))
    until, told = 0, []
    with node.store.reading() as tx:
        names = signers_by_key(tx)
        for leaf in found.leaves:
            if leaf.event is None:
                continue  # erased by law: nothing is left to tell
            if leaf.index != before:
                told.append(_told(tx, leaf.index, leaf.event, names, until))
            until = leaf.event.at
    older = told[-1].index if found.older and told else 0
    return Reigns(tuple(told), older, found.indexed, found.size)


def _told(tx: Transaction, index: int, event: Event, names: Mapping[str, str], until: int) -> Reign:
    details = event.details
    policy, previous = text_member(details, "policy"), text_member(details, "previous")
    keys = texts_member(details, "key_ids") if "key_ids" in details else ()
    return Reign(
        index=index,
        policy=policy,
        previous=previous,
        since=event.at,
        until=until,
        proposal=text_member(details, "proposal") if "proposal" in details else "",
        signers=tuple(sorted(names.get(key, key[:16]) for key in keys)),
        changes=_changes(tx, previous, policy),
    )


def _changes(tx: Transaction, before: str, after: str) -> RuleChanges | None:
    """What one policy changed of the other; the founding policy has no other before it."""
    try:
        return rule_changes(policytexts.find(tx, before) if before else {}, policytexts.find(tx, after))
    except (NotFoundError, ConfigError):
        return None  # its texts are not kept, or were read by other rules than today's


def since_when(node: Node, policy: str) -> int | None:
    """When a policy that is in force came into it; 0 where this log does not say, None while it is still being read."""
    found = LogSearch(node).find({"kind": EventKind.POLICY_ACTIVATED}, limit=1)
    event = found.leaves[0].event if found.leaves else None
    if event is not None and event.subject == policy:
        return event.at
    return 0 if found.indexed == found.size else None


def signers_by_key(tx: Transaction) -> dict[str, str]:
    """Everybody who was ever an administrator, by the id of their key."""
    found = {}
    for row in tx.people.administrators():
        value = canonical.parse_canonical(row.keys.encode(), max_bytes=_MAX_KEY_BYTES)
        found[VerifyingKey.from_json(value).key_set_id] = row.name
    return found
