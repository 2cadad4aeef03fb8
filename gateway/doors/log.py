"""The log door: checkpoints of our audit log with partners' cosignatures, and the proof that one extends another.

Partners keep and cosign our checkpoints, so a log that was rewritten or cut off is found by the next one to look; and
they tell each other what they saw, so two versions of one log are found by the second. What the leaves say is not
served: a proof consists of hashes.
"""

from __future__ import annotations

import asyncio

from aiohttp import web

from gateway.callers import Scope
from gateway.client import NOTE_TYPE
from gateway.doors.entrance import Entrance
from gateway.doors.guards import accepts, read_body
from gateway.doors.wire import json_answer, parse_numbers
from gateway.errors import MalformedError, NotFoundError
from gateway.gossip import MAX_HEAD_BYTES, told_json
from gateway.node import Node
from gateway.witness import WitnessDesk


class LogDoor:
    """The routes of the audit log."""

    def __init__(self, node: Node, entrance: Entrance) -> None:
        self._node = node
        self._entrance = entrance
        self._desk = WitnessDesk(node)

    def routes(self) -> list[web.RouteDef]:
        """What the application serves of this door."""
        behind = self._entrance.behind
        return [
            web.get("/v1/log/checkpoint", behind(self.get_checkpoint, Scope.LOG), allow_head=False),
            web.get("/v1/log/consistency", behind(self.get_consistency, Scope.LOG), allow_head=False),
            web.get("/v1/log/cosigned", behind(self.get_cosigned, Scope.LOG), allow_head=False),
            web.get("/v1/log/witnessed", behind(self.get_witnessed, Scope.LOG), allow_head=False),
            web.post("/v1/log/cosignature", accepts(MAX_HEAD_BYTES)(behind(self.post_cosignature, Scope.LOG))),
        ]

    async def get_checkpoint(self, request: web.Request, _partner: str) -> web.Response:
        """The newest checkpoint, or that of `?size=`: a signed note, with every cosignature that we hold for it."""
        size = parse_numbers(request, "size")[0] if request.rel_url.raw_query_string else None
        return _note(await asyncio.to_thread(self._desk.note_of, size))

    async def get_cosigned(self, _request: web.Request, _partner: str) -> web.Response:
        """The largest checkpoint that a partner cosigned."""
        return _note(await asyncio.to_thread(self._desk.cosigned_note))

    async def get_witnessed(self, _request: web.Request, partner: str) -> web.Response:
        """The heads of others' logs that we witnessed."""
        return json_answer(told_json(await asyncio.to_thread(self._desk.told_logs, partner)))

    async def post_cosignature(self, request: web.Request, partner: str) -> web.Response:
        """Take the partner's cosignature of a checkpoint of ours."""
        if request.content_type != NOTE_TYPE:
            raise web.HTTPUnsupportedMediaType
        await asyncio.to_thread(self._desk.take_cosignature, partner, await read_body(request))
        return web.Response(status=204)

    async def get_consistency(self, request: web.Request, _partner: str) -> web.Response:
        """The hashes of RFC 9162 2.1.4.1 from one tree size to another."""
        old, new = parse_numbers(request, "old", "new")
        return json_answer(await asyncio.to_thread(self._consistency, old, new))

    def _consistency(self, old: int, new: int) -> dict[str, object]:
        if not 0 < old <= new:
            raise MalformedError("old is not a tree size from 1 up to new", place="query, old")
        with self._node.store.reading() as tx:
            if new > tx.log.size():
                raise NotFoundError("the log is not that long")
            proof = tx.log.consistency_proof(old, new)
        return {"old": old, "new": new, "proof": [node.hex() for node in proof]}


def _note(note: bytes) -> web.Response:
    return web.Response(body=note, content_type=NOTE_TYPE, charset="utf-8")
