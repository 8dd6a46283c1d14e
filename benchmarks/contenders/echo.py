"""The limit of the loops: frames of a session's size sent back as they came.

The client does what every request has to and nothing else: it coalesces what one loop tick brings into one
write, and resolves a future for every frame that comes back.
"""

import asyncio
import os
import socket
from collections import deque
from collections.abc import Awaitable, Sequence
from typing import Any

import msgspec

from benchmarks.contenders.base import Client

_READ_BYTES = 256 * 1024
_OVERHEAD_BYTES = 40  # of a frame: its length, the message's tag, the session's digest


class EchoClient(Client):
    """Round trips of one frame; every operation is the same."""

    async def open(self) -> None:
        """Connect."""
        host, _, port = self.addresses["echo"].rpartition(":")
        self._loop = asyncio.get_running_loop()
        self._sock = socket.create_connection((host, int(port)))
        self._sock.settimeout(0)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._out = bytearray()
        self._rest = memoryview(b"")  # of what was sent before
        self._scheduled = False
        self._received = 0
        self._frame = b""
        self._buffer = bytearray(_READ_BYTES)
        self._loop.add_reader(self._sock, self._readable)

    async def close(self) -> None:
        """Disconnect."""
        self._loop.remove_reader(self._sock)
        self._sock.close()

    def choose(self, ids: Sequence[str], data: dict[str, Any]) -> None:
        """Send frames of the size of one of these sessions."""
        super().choose(ids, data)
        self._frame = os.urandom(len(msgspec.msgpack.encode(data)) + _OVERHEAD_BYTES)

    async def create(self, session_ids: Sequence[str], data: dict[str, Any], expires_at: float) -> None:
        """Do nothing: an echo stores nothing."""

    def get(self, number: int) -> Awaitable[object]:
        """Send a frame; the future is done when it is back."""
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append(future)
        self._out += self._frame
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)
        return future

    def save(self, number: int, data: dict[str, Any]) -> Awaitable[object]:
        """Send a frame, as for a read."""
        return self.get(number)

    def patch(self, number: int) -> Awaitable[object]:
        """Send a frame, as for a read."""
        return self.get(number)

    async def data_of(self, number: int) -> dict[str, Any] | None:
        """Return what would have been stored."""
        return self.data

    def _flush(self) -> None:
        self._scheduled = False
        while self._rest or self._out:
            if not self._rest:
                self._rest, self._out = memoryview(self._out), bytearray()
            try:
                sent = self._sock.send(self._rest)
            except BlockingIOError:
                self._scheduled = True
                self._loop.add_writer(self._sock, self._writable)
                return
            self._rest = self._rest[sent:]

    def _writable(self) -> None:
        self._loop.remove_writer(self._sock)
        self._flush()

    def _readable(self) -> None:
        self._received += self._sock.recv_into(self._buffer)
        size = len(self._frame)
        while self._received >= size:
            self._received -= size
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)
