"""Which partner may exchange what now, asked within the transaction that acts on the answer.

A partner's row decides who gets in, so whoever writes the database must not decide it: each row carries a MAC under a
key of the keystore, `put` alone writes it, and a row that does not fit it is believed by nobody. That an older row was
not put back is told by the log: `standing.check` compares both.

A partner is under test until two administrators lift that. Meanwhile only sets of invented data move, in either
direction: those whose name begins with `test-`. Everything else looks as if it were not there.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from functools import lru_cache

from gateway import policytexts
from gateway.audit import EventKind
from gateway.errors import AuditBrokenError, NotFoundError, OverloadedError
from gateway.interchange import IdentityCard, parse_card
from gateway.model import is_test_set
from gateway.node import POLICY_META, WAITING_META, Node
from gateway.store import Transaction
from gateway.store.tables import PartnerRow

ACTIVE, SUSPENDED, REMOVED = "active", "suspended", "removed"
REVOKED = "revoked"  # its signing key is compromised: it is shut out until it is enrolled anew
PAUSED_RETRY_SECONDS = 300  # resuming takes two people
POLICY_RETRY_SECONDS = 5  # every node takes up a policy that came into force within two
_MAC_LABEL = "partner row 1"


def put(node: Node, tx: Transaction, row: PartnerRow) -> None:
    """Enrol a partner, or change its card, its state or what it may exchange. Nothing else writes partners' rows."""
    row.mac = _mac(node, row)
    tx.people.put_partner(row)


def find(node: Node, tx: Transaction, agency: str) -> PartnerRow | None:
    """The row of a partner in whatever state, or None.

    Raises:
        AuditBrokenError: this gateway did not write the row as it stands.
    """
    row = tx.people.find_partner(agency)
    if row is not None and not fits(node, row):
        raise AuditBrokenError("a partner's row in the database was not written by this gateway", place=agency)
    return row


def get(node: Node, tx: Transaction, agency: str) -> PartnerRow:
    """The row of a partner in whatever state. NotFoundError without one; AuditBrokenError as `find`."""
    row = find(node, tx, agency)
    if row is None:
        raise NotFoundError("no such partner", remedy="`gateway partner list` names those enrolled")
    return row


def fits(node: Node, row: PartnerRow) -> bool:
    """Whether this gateway wrote the row as it stands."""
    return hmac.compare_digest(row.mac, _mac(node, row))


def named_here(node: Node, tx: Transaction, agency: str) -> PartnerRow:
    """The same of a partner that somebody here has named, who is told what the matter is. Raises as `active`."""
    row = get(node, tx, agency)
    if row.state != ACTIVE:
        remedy = "`gateway partner show` says what waits; a suspended partner comes back with `gateway resume`"
        raise NotFoundError(f"this partner is {row.state}: nothing goes to it or comes from it", remedy=remedy)
    return active(node, tx, agency)


def active_card(node: Node, tx: Transaction, partner: str) -> IdentityCard:
    """The identity card of a partner that may exchange now. Raises as `active`."""
    return card_in(active(node, tx, partner))


def active(node: Node, tx: Transaction, partner: str) -> PartnerRow:
    """The row of a partner that may exchange now.

    Raises:
        NotFoundError: unknown, suspended, removed or pending: all look the same.
        OverloadedError: exchange is paused, or this process still decides by a policy that is no longer the one in
            force (then nothing leaves and nothing is taken until it has taken up the other).
        AuditBrokenError: as `find`.
    """
    row = find(node, tx, partner)
    if row is None or row.state != ACTIVE:
        raise NotFoundError("no such partner")
    if tx.people.is_paused(partner):
        raise OverloadedError("exchange is paused", retry_after_seconds=PAUSED_RETRY_SECONDS)
    if not policy_is_in_force(tx, node):
        raise OverloadedError("the policy is being changed", retry_after_seconds=POLICY_RETRY_SECONDS)
    return row


def policy_is_in_force(tx: Transaction, node: Node) -> bool:
    """Whether this process decides by the policy that the administrators activated: not by one from before, nor by the
    one that another takes the place of since the day began."""
    told = tx.people.metas(POLICY_META, WAITING_META)  # asked at every request, so at once
    if told.get(POLICY_META) not in (None, node.policy.digest):
        return False
    day = told.get(WAITING_META, "")[:10]
    return not day or day > node.today.isoformat()


def record_policy(
    tx: Transaction, node: Node, *, previous: str, proposal: str = "", key_ids: Iterable[str] = (), digest: str = ""
) -> None:
    """A policy is in force from now on, on record, and its texts are kept.

    Args:
        previous: the digest of the one before.
        proposal, key_ids: the executed proposal and who signed it; none for the founding set.
        digest: of texts that are kept already; else the policy is the one that this process decides by.
    """
    if not digest:
        digest = node.policy.digest
        policytexts.keep(tx, node)
    tx.people.set_meta(POLICY_META, digest)
    details: dict[str, object] = {"policy": digest, "previous": previous}
    if proposal:
        details |= {"proposal": proposal, "key_ids": sorted(key_ids)}
    tx.log.append([node.event(EventKind.POLICY_ACTIVATED, actor=node.agency, subject=digest, details=details)])


def card_in(row: PartnerRow) -> IdentityCard:
    """The identity card of a row that `find` gave."""
    return _parsed(row.card)


def is_under_test(node: Node, tx: Transaction, agency: str) -> bool:
    """Whether only sets of invented data move to and from a partner. Nobody is trusted with more by being unknown."""
    return _is_under_test(node, find(node, tx, agency))


def may_exchange(node: Node, tx: Transaction, agency: str, set_name: str) -> bool:
    """Whether this set may move to or from this partner, as far as its test goes."""
    return is_test_set(set_name) or not is_under_test(node, tx, agency)


def may_move(node: Node, row: PartnerRow, set_name: str) -> bool:
    """The same of a partner whose row was found already."""
    return is_test_set(set_name) or not _is_under_test(node, row)


def _is_under_test(node: Node, row: PartnerRow | None) -> bool:
    return not node.settings.demo and (row is None or row.test)


def _mac(node: Node, row: PartnerRow) -> bytes:
    """Over all that decides; the last contact does not."""
    words = (_MAC_LABEL, row.agency, row.jurisdiction, row.state, row.card, str(int(row.test)), str(row.added))
    return node.keystore.row_mac(length_prefixed(*words))


def length_prefixed(*words: str) -> bytes:
    """Texts in one reading only: each behind its length, so that no two rows look alike."""
    raws = [word.encode() for word in words]
    return b"".join(len(raw).to_bytes(4, "big") + raw for raw in raws)


@lru_cache(maxsize=256)
def _parsed(card: str) -> IdentityCard:
    """A stored card: parsing verifies its signatures and decodes keys, which is too slow for every request."""
    return parse_card(card.encode())
