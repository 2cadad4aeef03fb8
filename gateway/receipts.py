"""Receipts: the proof that a message was taken in, made in the transaction that takes it in and kept by its sender."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.audit import Event, build_receipt
from gateway.errors import ConflictError
from gateway.node import Node, own_log
from gateway.store import Transaction
from gateway.store.tables import InboxRow


@dataclass(frozen=True, slots=True)
class Message:
    """Who sent an envelope, and which one it was. `signed`: the DSSE of its manifest, where it is to be kept."""

    sender: str
    message_id: str
    manifest_digest: str
    signed: bytes = b""

    def details(self) -> dict[str, object]:
        """As the audit log names it."""
        return {"sender": self.sender, "message_id": self.message_id, "manifest_digest": self.manifest_digest}


def repeated(tx: Transaction, message: Message) -> bytes | None:
    """The receipt that a message got before, None for a new one. Asked in the transaction that would take it in.

    Raises:
        ConflictError: the message id was used for other content.
    """
    before = tx.mail.accepted(message.sender, message.message_id)
    if before is None:
        return None
    if before[0] != message.manifest_digest:
        raise ConflictError("this message id was used for another message")
    return before[1]


def settle(node: Node, tx: Transaction, message: Message, event: Event, index: int) -> bytes:
    """Remember the message for ever; return its receipt, over the event that this transaction appended at `index`."""
    row = next(tx.log.leaves(index, index + 1))
    assert row.salt is not None, "an event has a salt"
    size = tx.log.size()
    receipt = build_receipt(
        event,
        row.salt,
        origin=own_log(node, tx).name,
        leaf_index=index,
        tree_size=size,
        proof=tx.log.inclusion_proof(index, size),
        note=tx.log.checkpoint(),
    )
    tx.mail.accept(
        InboxRow(
            sender=message.sender,
            message_id=message.message_id,
            manifest_digest=message.manifest_digest,
            receipt=receipt,
            at=node.clock(),
        )
    )
    return receipt
