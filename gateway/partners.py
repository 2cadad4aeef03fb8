"""Which partner may exchange now, asked within the transaction that acts on the answer."""

from __future__ import annotations

from functools import lru_cache

from gateway.errors import NotFoundError, OverloadedError
from gateway.interchange import IdentityCard, parse_card
from gateway.node import POLICY_META, Node
from gateway.store import Transaction

PAUSED_RETRY_SECONDS = 300  # resuming takes two people


def active_card(node: Node, tx: Transaction, partner: str) -> IdentityCard:
    """The identity card of a partner that may exchange now.

    Raises:
        NotFoundError: unknown, suspended, removed or pending: all look the same.
        OverloadedError: exchange is paused, or this process still decides by a policy that is no longer the one in
            force (then nothing leaves and nothing is taken until it is started again).
    """
    row = tx.people.find_partner(partner)
    if row is None or row.state != "active":
        raise NotFoundError("no such partner")
    if tx.people.is_paused(partner):
        raise OverloadedError("exchange is paused", retry_after_seconds=PAUSED_RETRY_SECONDS)
    if tx.people.meta(POLICY_META) not in (None, node.policy.digest):
        raise OverloadedError("the policy was changed: the gateway must be started again")
    return _parsed(row.card)


@lru_cache(maxsize=256)
def _parsed(card: str) -> IdentityCard:
    """A stored card: parsing verifies its signatures and decodes keys, which is too slow for every request."""
    return parse_card(card.encode())
