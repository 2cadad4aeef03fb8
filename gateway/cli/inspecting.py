"""`gateway inspect`: what is in a file of ours, as JSON. Never a value of a row, never a secret.

Blocks, pages, identity cards, receipts, checkpoints are read without any key. An envelope is opened if it was sealed
for this gateway; which signature it carries is checked against the identity card held for its sender.
"""

from __future__ import annotations

import hashlib
from io import BytesIO
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from gateway import audit
from gateway.cli.founding import card_value
from gateway.cli.shell import Shell, command
from gateway.columns import block as blocks
from gateway.columns.block import parse_block
from gateway.crypto import age, canonical, dsse, envelope
from gateway.crypto.keys import VerifyingKey
from gateway.errors import ConfigError, GatewayError, MalformedError, VerificationError
from gateway.interchange import (
    CARD_TYPE,
    CARD_VERSION,
    HEAD_TYPE,
    MAIL_TYPE,
    MAX_PAGE_BYTES,
    PAGE_MAGIC,
    PAGE_TYPE,
    FeedHead,
    PageHead,
    parse_card,
    parse_mail,
    parse_page,
)
from gateway.node import Node

inspect_app = typer.Typer(add_completion=False)
COMMANDS = {"inspect": inspect_app}

MAX_FRAME_BYTES = 1 << 20  # what an envelope has around its payload


@command(inspect_app, "inspect")
def inspect(shell: Shell, file: Annotated[Path, typer.Argument(help="The file.")]) -> None:
    """Show a block, page, envelope, identity card, receipt or checkpoint as JSON."""
    try:
        source = file.open("rb")
    except OSError as error:
        raise ConfigError(f"the file cannot be read: {error.strerror}") from error
    with source:
        start = source.read(len(age.VERSION_LINE))
        source.seek(0)
        value = _envelope(shell, source) if start == age.VERSION_LINE else _plain(source, start)
    # JSON is the one form that such things have, with or without --json.
    Shell(shell.home, True, shell.passphrases).show(value)


def _plain(source: BinaryIO, start: bytes) -> dict[str, object]:
    if start.startswith(blocks.MAGIC):
        return blocks.inspect(parse_block(source, max_bytes=MAX_PAGE_BYTES))
    if start.startswith(PAGE_MAGIC):
        return _page(source)
    raw = source.read(MAX_FRAME_BYTES)
    if start.startswith(b"{"):
        return _document(raw)
    note = raw.decode("utf-8", "replace").split("\n")
    if len(note) > 3 and "" in note and note[1].isdecimal():
        named = [line.split(" ")[1] for line in note if line.startswith("— ")]
        return {"format": "checkpoint", "verified": False, "origin": note[0], "size": int(note[1]), "signed_by": named}
    raise MalformedError("this is no block, page, envelope, identity card, receipt or checkpoint")


def _document(raw: bytes) -> dict[str, object]:
    value = canonical.parse_json(raw, max_bytes=MAX_FRAME_BYTES)
    if isinstance(value, dict) and value.get("receipt") == audit.RECEIPT_VERSION:
        event = canonical.parse_json(str(value.get("event")).encode(), max_bytes=audit.MAX_EVENT_BYTES)
        members = ("origin", "sender", "message_id", "manifest_digest", "leaf_index", "tree_size", "checkpoint")
        return {
            "format": audit.RECEIPT_VERSION,
            "verified": False,
            **{name: value.get(name) for name in members},
            "event": event,
            "how_to_verify": "scripts/verify_receipt.py, with the log key of the partner's identity card",
        }
    if isinstance(value, dict) and value.get("payloadType") == CARD_TYPE:
        card = parse_card(raw)
        return {"format": CARD_VERSION, "signed_by_its_own_keys": True, **card_value(card)}
    if isinstance(value, dict) and set(value) == {"payload", "payloadType", "signatures"}:
        found = dsse.parse(raw)
        signed_by = [one.key_id for one in found.signatures]
        return {"format": "DSSE", "verified": False, "payload_type": found.payload_type, "signed_by": signed_by}
    raise MalformedError("this JSON is none of our documents")


def _page(source: BinaryIO) -> dict[str, object]:
    head, found = parse_page(source)
    return {"format": "hash-page 2", **_page_head(head), "block_list": [blocks.inspect(one) for one in found]}


def _page_head(head: PageHead) -> dict[str, object]:
    value = canonical.parse_json(head.dump(), max_bytes=MAX_PAGE_BYTES)
    assert isinstance(value, dict), "a page head is an object"
    return dict(value)


def _envelope(shell: Shell, source: BinaryIO) -> dict[str, object]:
    with shell.node() as node:
        try:
            stream = age.open_stream(node.keystore.opening_keys, source)
        except VerificationError:
            return {"format": "envelope 1", "opened": False, "why": "it is sealed for another key than ours"}
        length = int.from_bytes(stream.read(4), "big")
        if not 0 < length <= dsse.MAX_DSSE_BYTES:
            raise MalformedError("the envelope does not begin with its signed manifest")
        signed = dsse.parse(stream.read(length))
        manifest = envelope.parse_manifest(signed.unverified_payload)
        whose = _signature(node, signed, manifest.sender)
        payload = _payload(stream, manifest)
    described = canonical.parse_json(manifest.dump(), max_bytes=envelope.MAX_MANIFEST_BYTES)
    return {
        "format": "envelope 1",
        "opened": True,
        "signature": whose,
        "manifest_digest": hashlib.sha256(manifest.dump()).hexdigest(),
        "manifest": described,
        "payload": payload,
    }


def _signature(node: Node, signed: dsse.UnverifiedDsse, sender: str) -> str:
    key = _key_of(node, sender)
    if key is None:
        return "not checked: no identity card is held for its sender"
    try:
        signed.verify((key,), envelope.MANIFEST_TYPE)
    except GatewayError as error:
        return f"does not verify: {error.message}"
    return "verifies"


def _key_of(node: Node, sender: str) -> VerifyingKey | None:
    if sender == node.agency:
        return node.keystore.signing_key.public
    with node.store.reading() as tx:
        row = tx.people.find_partner(sender)
    return None if row is None else parse_card(row.card.encode()).signing


def _payload(stream: age.OpenedStream, manifest: envelope.Manifest) -> object:
    """The payload, if its pieces are those of the manifest and it is of a kind that is known here."""
    if manifest.payload_bytes > MAX_PAGE_BYTES:
        return "too large to show"
    pieces = [stream.read(envelope.PIECE_BYTES) for _ in manifest.pieces]
    if [hashlib.sha256(piece).hexdigest() for piece in pieces] != list(manifest.pieces) or stream.read(1):
        return "not the payload that was signed"
    raw = b"".join(pieces)
    if manifest.payload_type == PAGE_TYPE:
        return _page(BytesIO(raw))
    if manifest.payload_type == HEAD_TYPE:
        head = FeedHead.parse(raw)
        # The head's key is a secret between the two gateways: it is left out.
        return {
            "format": "feed-head 1",
            "hub": head.hub,
            "set": head.set_name,
            "partner": head.partner,
            **head.cursor.to_json(),
            "count": head.count,
            "state": head.state,
            "issued": head.issued,
            "expires": head.expires,
        }
    if manifest.payload_type == MAIL_TYPE:
        return {
            "format": "mailbox 1",
            "messages": [{"number": one.number, "kind": one.kind, "created": one.created} for one in parse_mail(raw)],
        }
    return "of a kind that is not known here"
