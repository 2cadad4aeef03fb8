"""Receipts that partners gave us, and the messages between us and them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gateway.audit import Receipt, verify_receipt
from gateway.cli.founding import write_file
from gateway.cli.shell import Shell, bold, command, plain, when
from gateway.crypto.checkpoint import VerifierKey
from gateway.errors import NotFoundError
from gateway.exchange import Exchange
from gateway.mailbox import CASE_KINDS
from gateway.node import Node
from gateway.partners import card_in, get
from gateway.restoring import log_of_receipt
from gateway.store.tables import MailIn, MailOut, OutboxRow

receipt_app = typer.Typer(
    add_completion=False, help="Receipts: partners' proof that they took in what we sent.", no_args_is_help=True
)
message_app = typer.Typer(
    add_completion=False, help="Messages between us and our partners, in order and acknowledged.", no_args_is_help=True
)
COMMANDS = {"receipt": receipt_app, "message": message_app}

MIN_PREFIX_CHARS = 6  # of a message id; fewer name too many
MessageId = Annotated[str, typer.Argument(metavar="ID", help="The message, or the beginning of its id.")]
PartnerFilter = Annotated[str, typer.Option("--partner", help="Only this partner's.")]
RECEIPT_COLUMNS = {"message_id": "message", "partner": "partner", "subject": "set", "created": "sent"}
MESSAGE_COLUMNS = {
    "partner": "partner",
    "way": "way",
    "number": "number",
    "kind": "kind",
    "at": "at",
    "delivered": "delivered",
    "text": "text",
}


@command(receipt_app, "list")
def receipt_list(shell: Shell, partner: PartnerFilter = "") -> None:
    """List the receipts that we hold, newest first."""
    with shell.node() as node, node.store.reading() as tx:
        rows: list[dict[str, object]] = [
            {
                "message_id": row.message_id,
                "partner": row.partner,
                "subject": row.subject,
                "created": row.created,
                "until_seq": row.until_seq,
            }
            for row in tx.mail.receipts(partner or None)
        ]
    shell.table(rows, RECEIPT_COLUMNS, "There are no receipts yet.")


@command(receipt_app, "show")
def receipt_show(shell: Shell, identifier: MessageId) -> None:
    """Verify a receipt and show what it proves."""
    with shell.node() as node:
        row, receipt, key = _verified(node, identifier)
    shell.show(
        {
            "message_id": row.message_id,
            "partner": row.partner,
            "subject": row.subject,
            "origin": receipt.origin,
            "leaf_index": receipt.leaf_index,
            "tree_size": receipt.checkpoint.size,
            "event": {"kind": str(receipt.event.kind), "at": receipt.event.at, **receipt.event.details},
            "log_key": str(key),
        },
        f"{bold(row.partner)} took in message {row.message_id} for {plain(row.subject)}.",
        f"  proved by  leaf {receipt.leaf_index} of {receipt.checkpoint.size} in {plain(receipt.origin)}",
        f"  recorded   {receipt.event.kind}, {when(receipt.event.at)}",
        f"  log key    {plain(str(key))}",
    )


@command(receipt_app, "export")
def receipt_export(
    shell: Shell, identifier: MessageId, file: Annotated[Path, typer.Argument(help="Where to write it.")]
) -> None:
    """Write a receipt to a file, to be kept elsewhere or checked without this program."""
    with shell.node() as node:
        row, _, key = _verified(node, identifier)
    write_file(file, row.receipt)
    shell.show(
        {"file": str(file), "message_id": row.message_id, "log_key": str(key)},
        f"The receipt for message {row.message_id} is in {plain(str(file))}. Check it anywhere:",
        f"  scripts/verify_receipt.py {plain(str(file))} --log-key '{plain(str(key))}'",
    )


@command(message_app, "send")
def message_send(
    shell: Shell,
    *,
    text: Annotated[str, typer.Argument(help="What to say. It is sealed for the partner.")],
    partner: Annotated[str, typer.Option("--to", help="The partner.")],
) -> None:
    """Queue a note to a partner. It goes with the next sync, and waits as long as that takes."""
    with shell.node() as node:
        number = Exchange(node).mailbox.write(partner, "note", {"text": text})
    shell.show(
        {"partner": partner, "number": number},
        f"Message {number} to {bold(partner)} waits for the next sync.",
    )


@command(message_app, "list")
def message_list(shell: Shell, partner: PartnerFilter = "") -> None:
    """List the messages from and to partners, newest first."""
    with shell.node() as node:
        mailbox = Exchange(node).mailbox
        with node.store.reading() as tx:
            found: list[MailIn | MailOut] = [*tx.mail.incoming(partner or None), *tx.mail.sent_mail(partner or None)]
        rows = [_message_value(row, mailbox.read(row)) for row in found]
    rows.sort(key=lambda row: (-int(str(row["at"])), str(row["partner"]), -int(str(row["number"]))))
    shell.table(rows, MESSAGE_COLUMNS, "There are no messages.")


def _verified(node: Node, identifier: str) -> tuple[OutboxRow, Receipt, VerifierKey]:
    """A held receipt, verified against the log key in the partner's identity card; one from before the partner was
    restored, against the key that its restore statement names."""
    with node.store.reading() as tx:
        found = [row for row in tx.mail.receipts() if row.message_id.startswith(identifier)]
        if len(found) != 1 or len(identifier) < MIN_PREFIX_CHARS:
            raise NotFoundError("no such receipt", remedy="`gateway receipt list` names those held")
        card = card_in(get(node, tx, found[0].partner))
        key = log_of_receipt(node, tx, card, found[0].receipt)
    receipt = verify_receipt(found[0].receipt, key, manifest_digest=found[0].manifest_digest)
    return found[0], receipt, key


def _message_value(row: MailIn | MailOut, body: dict[str, object]) -> dict[str, object]:
    incoming = isinstance(row, MailIn)
    if row.kind in CASE_KINDS:
        body = {"thread": body.get("thread", "")}  # its words are read in the thread: `gateway case thread`
    text = body.get("text")
    return {
        "partner": row.partner,
        "way": "from" if incoming else "to",
        "number": row.number,
        "kind": row.kind,
        "at": row.received if isinstance(row, MailIn) else row.created,
        "delivered": True if isinstance(row, MailIn) else bool(row.delivered),
        "text": text if isinstance(text, str) else "",
        "body": body,
    }
