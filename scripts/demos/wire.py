"""What the command line rightly cannot do: alter a message on its way, and send one twice.

`altered_then_repeated` sends the next page of a set to a partner as `gateway push` does, but first with one bit
changed, then as it is, then once more.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from gateway.client import PartnerLink
from gateway.crypto.canonical import parse_json
from gateway.errors import GatewayError
from gateway.exchange import Exchange
from gateway.home import open_home
from gateway.interchange import Cursor

MAX_CURSOR_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Answers:
    """What the partner said: to the altered message (None: it took it), to the true one, to its repetition."""

    size: int
    refusal: GatewayError | None
    receipt: bytes
    repeated: bytes


def altered_then_repeated(home: Path, passphrase: str, *, partner: str, set_name: str) -> Answers:
    """The partner's answers to one page in three shapes; the page is confirmed at the end as after any push."""
    return asyncio.run(_send(home, passphrase, partner, set_name))


async def _send(home: Path, passphrase: str, partner: str, set_name: str) -> Answers:
    node = open_home(home, passphrase)
    try:
        exchange = Exchange(node)
        card = exchange.card_of(partner)
        async with PartnerLink(card, node.keystore.token_key, node.agency, node.clock, node.random) as link:
            # 1. Announce the head; the partner says where it stands. Make the page that follows.
            _, told = await link.post_envelope(exchange.head_for(partner, set_name).body)
            cursor = Cursor.from_json(parse_json(told, max_bytes=MAX_CURSOR_BYTES))
            page = exchange.page_to_push(partner, set_name, cursor)
            assert page is not None, "the set has something new"
            # 2. Altered, true, and once more.
            refusal: GatewayError | None = None
            try:
                await link.post_envelope(with_one_bit_changed(page.body))
            except GatewayError as error:
                refusal = error
            _, receipt = await link.post_envelope(page.body)
            _, repeated = await link.post_envelope(page.body)
        # 3. The receipt is verified and kept.
        exchange.confirm_push(partner, page.message_id, receipt, page.head.end)
        return Answers(len(page.body), refusal, receipt, repeated)
    finally:
        node.store.close()


def with_one_bit_changed(raw: bytes) -> bytes:
    """The same bytes, but for the last bit of the one in the middle."""
    middle = len(raw) // 2
    return raw[:middle] + bytes([raw[middle] ^ 1]) + raw[middle + 1 :]
