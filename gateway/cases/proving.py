"""What can be proved of a case's events: that our log holds them, that a partner took in, that a partner said so.

Each function returns what it has verified, or raises. Nothing is taken from a row of the database that a signature, a
receipt or the log does not bear out.
"""

from __future__ import annotations

import hashlib

from gateway import audit, keyring
from gateway.audit import Event, EventKind, LeafRow
from gateway.cases.threads import REFERRAL
from gateway.crypto import envelope, merkle
from gateway.crypto.checkpoint import Checkpoint, verify
from gateway.errors import AuditBrokenError, NotFoundError, VerificationError
from gateway.interchange import MAX_MAIL_MESSAGES, MailMessage, parse_mail
from gateway.mailbox import Mailbox
from gateway.node import Node, own_log
from gateway.partners import card_in, get
from gateway.restoring import log_of_receipt
from gateway.store import Transaction


def own_head(node: Node, tx: Transaction) -> Checkpoint:
    """The newest tree head of our log, its signature verified.

    Raises:
        VerificationError: it is not signed by our log's key.
    """
    key = own_log(node, tx).verifier
    return verify(tx.log.checkpoint(), key, key.name)


def own_event(tx: Transaction, head: Checkpoint, row: LeafRow) -> Event:
    """The event of a leaf, once the leaf commits to it and stands under a tree head of our log.

    Raises:
        NotFoundError: the event was erased by law, on record.
        AuditBrokenError: the event is not the one that was logged.
        VerificationError: the tree does not hold the leaf.
    """
    if row.event_bytes is None or row.salt is None:
        raise NotFoundError("the event was erased")
    if audit.event_entry(row.event_bytes, row.salt) != row.entry:
        raise AuditBrokenError("the event is not the one that was logged", index=row.index)
    proof = tx.log.inclusion_proof(row.index, head.size)
    merkle.verify_inclusion(merkle.leaf_hash(row.entry), row.index, head.size, proof, head.root)
    return audit.parse_event(row.event_bytes)


def receipt_of(node: Node, tx: Transaction, partner: str, number: int, digest: str) -> audit.Receipt:
    """The partner's receipt for a message of ours, verified: its log holds that it took in this message.

    Args:
        digest: of the report in the message, "" where it is no referral.

    Raises:
        NotFoundError: there is none: the message is on its way, or the partner fetched it.
        VerificationError: it is of another message, another sender or another log.
    """
    row = tx.mail.outgoing_row(partner, number)
    if row is None or not row.delivered:
        raise NotFoundError("it has not arrived yet")
    if not row.receipt:
        raise NotFoundError("the partner fetched it, and gave no receipt")
    key = log_of_receipt(node, tx, card_in(get(node, tx, partner)), row.receipt)
    receipt = audit.verify_receipt(row.receipt, key)
    details, last = receipt.event.details, receipt.event.details.get("sequence")
    if receipt.event.kind is not EventKind.MAILBOX_RECEIVED or receipt.sender != node.agency:
        raise VerificationError("the receipt is for something else")
    if not isinstance(last, int) or not number <= last < number + MAX_MAIL_MESSAGES:
        raise VerificationError("the receipt is for other messages")
    if digest and (last != number or details.get("report_digest") != digest):
        raise VerificationError("the receipt is for another report")
    return receipt


def signed_message(node: Node, tx: Transaction, partner: str, number: int) -> MailMessage:
    """A message of a partner as the partner signed it, verified under its keys.

    Raises:
        NotFoundError: what it signed is not kept, or was erased with the case.
        VerificationError: another signed it, or something else was signed.
    """
    kept = Mailbox(node).evidence(tx, partner, number)
    if kept is None:
        raise NotFoundError("what the partner signed is not kept")
    signed, payload = kept
    keys = keyring.keys_of_evidence(node, tx, card_in(get(node, tx, partner)))
    manifest = envelope.verify_kept(signed, payload, keys)
    ours = envelope.agency_audience(node.agency)
    if (manifest.sender, manifest.audience, manifest.channel) != (partner, ours, envelope.MAILBOX):
        raise VerificationError("the signed message is another partner's, or for another agency")
    found = [one for one in parse_mail(payload) if one.number == number]
    if len(found) != 1:
        raise VerificationError("the partner signed other messages")
    return found[0]


def digest_in(message: MailMessage) -> str:
    """The digest of the report in a message, or of the report that it speaks of."""
    if message.kind == REFERRAL:
        return hashlib.sha256(str(message.body.get("report", "")).encode()).hexdigest()
    return str(message.body.get("digest", ""))
