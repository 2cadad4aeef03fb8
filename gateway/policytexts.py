"""Every policy that was ever in force, kept in the database under its digest.

A decision receipt names the policy that it was decided by (`share_decided`); with the texts at hand anybody can decide
again and compare. The digest is over the texts themselves, so a row that somebody else wrote is noticed when read.
"""

from __future__ import annotations

from collections.abc import Mapping

from gateway import policy
from gateway.crypto import canonical
from gateway.errors import AuditBrokenError, GatewayError, NotFoundError
from gateway.node import Node
from gateway.store import Transaction
from gateway.store.tables import PolicyText

MAX_TEXTS_BYTES = 512 << 20  # as much as a folder of policies can hold (`config`), with room for its escapes


def keep(tx: Transaction, node: Node) -> None:
    """The policy that this process decides by is kept, once."""
    keep_texts(tx, node.policies.texts, node.clock())


def keep_texts(tx: Transaction, texts: Mapping[str, str], now: int) -> str:
    """These texts are kept, once; returns their digest."""
    digest = policy.digest_texts(texts)
    if not tx.policies.holds(digest):
        tx.policies.add(PolicyText(digest=digest, texts=canonical.encode(dict(texts)).decode(), kept=now))
    return digest


def find(tx: Transaction, digest: str) -> Mapping[str, str]:
    """The texts of a policy that was in force: relative path to content, as `policy.load` takes them.

    Raises:
        NotFoundError: no policy of this digest is kept.
        AuditBrokenError: what is kept under the digest is not its texts.
    """
    row = tx.policies.find(digest)
    if row is None:
        raise NotFoundError("no policy of this digest is kept")
    try:
        value = canonical.parse_json(row.texts.encode(), max_bytes=MAX_TEXTS_BYTES)
    except GatewayError as error:
        raise _altered() from error
    texts = {path: text for path, text in value.items() if isinstance(text, str)} if isinstance(value, dict) else {}
    if policy.digest_texts(texts) != digest:
        raise _altered()
    return texts


def _altered() -> AuditBrokenError:
    return AuditBrokenError("a policy's texts in the database are not those of its digest", place="policy_text")
