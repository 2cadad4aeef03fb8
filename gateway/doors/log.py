"""The log door: the newest checkpoint of our audit log, and the proof that it extends an older one.

Partners keep and cosign our checkpoints, so a log that was rewritten or cut off is found by the next one to look.
What the leaves say is not served: a proof consists of hashes.
"""

from __future__ import annotations

import asyncio

from aiohttp import web

from gateway.doors.entrance import Entrance
from gateway.doors.wire import json_answer, parse_numbers
from gateway.errors import MalformedError, NotFoundError
from gateway.node import Node

NOTE_TYPE = "text/plain"  # C2SP tlog-tiles serves its checkpoint so


class LogDoor:
    """The routes of the audit log."""

    def __init__(self, node: Node, entrance: Entrance) -> None:
        self._node = node
        self._entrance = entrance

    def routes(self) -> list[web.RouteDef]:
        """What the application serves of this door."""
        behind = self._entrance.behind
        return [
            web.get("/v1/log/checkpoint", behind(self.get_checkpoint), allow_head=False),
            web.get("/v1/log/consistency", behind(self.get_consistency), allow_head=False),
        ]

    async def get_checkpoint(self, _request: web.Request, _partner: str) -> web.Response:
        """The newest checkpoint: a signed note."""
        note = await asyncio.to_thread(self._checkpoint)
        return web.Response(body=note, content_type=NOTE_TYPE, charset="utf-8")

    async def get_consistency(self, request: web.Request, _partner: str) -> web.Response:
        """The hashes of RFC 9162 2.1.4.1 from one tree size to another."""
        old, new = parse_numbers(request, "old", "new")
        return json_answer(await asyncio.to_thread(self._consistency, old, new))

    def _checkpoint(self) -> bytes:
        with self._node.store.reading() as tx:
            return tx.log.latest_checkpoint()

    def _consistency(self, old: int, new: int) -> dict[str, object]:
        if not 0 < old <= new:
            raise MalformedError("old is not a tree size from 1 up to new", place="query, old")
        with self._node.store.reading() as tx:
            if new > tx.log.size():
                raise NotFoundError("the log is not that long")
            proof = tx.log.consistency_proof(old, new)
        return {"old": old, "new": new, "proof": [node.hex() for node in proof]}
