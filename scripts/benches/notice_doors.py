"""The doors of many gateways in one process, for `notices`: opened, then served until standard input ends.

usage: notice_doors.py FOLDER AGENCY …    with the tests and the gateway on PYTHONPATH
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import AsyncExitStack
from pathlib import Path

from factory import PASSPHRASE, START_TIME, FakeClock, open_node, serving
from gateway.config import Settings
from gateway.crypto.keys import SYSTEM_RANDOM
from gateway.exchange import Exchange
from gateway.keystore import Keystore


async def main(folder: Path, agencies: list[str]) -> None:
    """Serve until standard input ends."""
    ports = json.loads((folder / "ports.json").read_text())
    async with AsyncExitStack() as stack:
        for agency in agencies:
            settings = Settings(
                folder=folder / agency,
                agency=agency,
                jurisdiction=agency[:2],
                demo=True,
                quorum=1,
                database="gateway.db",
                policies=str(folder / "policies"),
                listen_port=ports[agency],
                public_url=f"http://127.0.0.1:{ports[agency]}",
                requests_per_minute=100_000,
            )
            keystore = Keystore.open(folder / agency / "keystore.json", PASSPHRASE)
            node = open_node(settings, keystore, clock=FakeClock(START_TIME), random=SYSTEM_RANDOM)
            stack.callback(node.store.close)
            exchange = Exchange(node)
            with node.store.reading() as tx:
                for hash_set in tx.sets.all():  # as in a gateway that has been running for a while
                    with exchange.shelf.index(tx, hash_set.id or 0):
                        pass
            await stack.enter_async_context(serving(exchange))
        print("open", flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2:]))
