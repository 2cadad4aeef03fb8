"""A network link for tests: a TCP proxy on loopback that is slow, far away, lossy, and breaks.

    async with Shaper(port, Line(bytes_per_second=125_000, delay_seconds=0.15, loss=0.01, cut_after=400_000)) as link:
        ...  # connect to link.port instead of `port`

All connections of one direction share its rate. A lost packet holds up what comes after it in its connection, as TCP
does, and is carried again. `cut_after` bytes through one connection end it with a reset. Sockets have small buffers, so
that whoever sends notices how fast the link really is.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from dataclasses import dataclass
from types import TracebackType
from typing import Self

PACKET_BYTES = 1460
BUFFER_BYTES = 32_768  # of each socket; Linux doubles it
QUEUED_PACKETS = 128  # in one direction of a connection: what a modem holds
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends a reset


@dataclass(frozen=True)
class Line:
    """What a link is like. Zeros mean: as good as it gets.

    Attributes:
        delay_seconds: one way.
        loss: the chance that a packet is lost.
        cut_after: bytes in both directions after which a connection breaks.
    """

    bytes_per_second: float = 0.0
    delay_seconds: float = 0.0
    loss: float = 0.0
    cut_after: int = 0


@dataclass
class _Way:
    """One direction of the link."""

    carried: int = 0
    free_at: float = 0.0


@dataclass
class _Through:
    """One connection."""

    carried: int = 0


class Shaper:
    """The link to a port of this machine. `up` is towards that port."""

    def __init__(self, port: int, line: Line, *, at: int = 0, seed: int = 0) -> None:
        self._target = port
        self._line = line
        self._at = at
        self._source = random.Random(seed)
        self.up, self.down = _Way(), _Way()
        self.cuts = 0
        self.connections = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
        self._listener.bind(("127.0.0.1", self._at))
        self._listener.listen()
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._spawn(self._accept())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._listener.close()

    def _spawn(self, work: object) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.ensure_future(work)  # type: ignore[arg-type]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            near, _ = await loop.sock_accept(self._listener)
            self.connections += 1
            self._spawn(self._connect(near))

    async def _connect(self, near: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        far = socket.socket()
        for one in (near, far):
            one.setblocking(False)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        through = _Through()
        ways: list[asyncio.Task[None]] = []
        try:
            await asyncio.sleep(2 * self._line.delay_seconds)  # the handshake
            await loop.sock_connect(far, ("127.0.0.1", self._target))
            ways.append(self._spawn(self._carry(near, far, self.up, through)))
            ways.append(self._spawn(self._carry(far, near, self.down, through)))
            await asyncio.wait(ways, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            # Nobody waits on a socket when it is closed: its number may be another's at once.
            for way in ways:
                way.cancel()
            broken = any(isinstance(end, OSError) for end in await asyncio.gather(*ways, return_exceptions=True))
            for one in (near, far):
                if broken:
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                one.close()

    async def _carry(self, source: socket.socket, sink: socket.socket, way: _Way, through: _Through) -> None:
        """Packets from one side to the other: each takes its time on the line, then its delay."""
        loop, line = asyncio.get_running_loop(), self._line
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(QUEUED_PACKETS)
        delivery = self._spawn(_deliver(queue, sink))
        held_until = 0.0
        try:
            while not delivery.done():
                packet = await loop.sock_recv(source, PACKET_BYTES)
                way.carried += len(packet)
                through.carried += len(packet)
                if line.bytes_per_second:
                    way.free_at = max(way.free_at, loop.time()) + len(packet) / line.bytes_per_second
                    await asyncio.sleep(max(0.0, way.free_at - loop.time()))
                if line.cut_after and through.carried > line.cut_after:
                    self.cuts += 1
                    raise ConnectionResetError
                now = loop.time()
                if self._source.random() < line.loss:
                    held_until = now + 2 * line.delay_seconds  # noticed and sent again after a round trip
                    way.free_at += len(packet) / line.bytes_per_second if line.bytes_per_second else 0.0
                await queue.put((max(now, held_until) + line.delay_seconds, packet))
                if not packet:
                    break
            await delivery
        finally:
            delivery.cancel()
            await asyncio.gather(delivery, return_exceptions=True)


async def _deliver(queue: asyncio.Queue[tuple[float, bytes]], sink: socket.socket) -> None:
    """What was put on the line arrives, each packet in its time; an empty one ends it."""
    loop = asyncio.get_running_loop()
    while True:
        due, packet = await queue.get()
        await asyncio.sleep(max(0.0, due - loop.time()))
        if not packet:
            sink.shutdown(socket.SHUT_WR)
            return
        await loop.sock_sendall(sink, packet)
