"""The limit of the loops: frames sent back as they came, by a trio server to an asyncio client.

It does what every request to an actor has to do and nothing else: the client coalesces what one loop tick
brings into one write, the server answers everything that one read brought with one send.
"""

import asyncio
import os
import socket
import sys
from collections import deque
from types import TracebackType
from typing import Self

import trio

from benchmarks.processes import Server

_FRAME_BYTES = 340
_READ_BYTES = 256 * 1024


async def _echo(sock: socket.socket) -> None:
    sock.settimeout(0)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while True:
        try:
            data = sock.recv(_READ_BYTES)
        except BlockingIOError:
            await trio.lowlevel.wait_readable(sock.fileno())
            continue
        if not data:
            return
        view = memoryview(data)
        while view:
            try:
                view = view[sock.send(view) :]
            except BlockingIOError:
                await trio.lowlevel.wait_writable(sock.fileno())


async def _serve() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    listener.settimeout(0)
    async with trio.open_nursery() as connections:
        while True:
            await trio.lowlevel.wait_readable(listener.fileno())
            sock, _ = listener.accept()
            connections.start_soon(_echo, sock)


class EchoServer(Server):
    """The server in a process of its own."""

    async def __aenter__(self) -> Self:
        """Start it and learn its port."""
        line = await self.spawn(sys.executable, "-m", "benchmarks.echo")
        self.port = int(line)
        self.pids = [self.process.pid]
        return self


class EchoClient:
    """Round trips of one frame of the size of a 300-byte session's answer."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._out = bytearray()
        self._scheduled = False
        self._received = 0
        self._frame = os.urandom(_FRAME_BYTES)

    async def __aenter__(self) -> Self:
        """Connect."""
        self._loop = asyncio.get_running_loop()
        self._sock = socket.create_connection(("127.0.0.1", self._port))
        self._sock.settimeout(0)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray(_READ_BYTES)
        self._loop.add_reader(self._sock, self._readable)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Disconnect."""
        self._loop.remove_reader(self._sock)
        self._sock.close()

    def round_trip(self) -> "asyncio.Future[None]":
        """Send a frame; the future is done when it is back."""
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append(future)
        self._out += self._frame
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)
        return future

    def _flush(self) -> None:
        self._scheduled = False
        sent = self._sock.send(self._out)
        if sent < len(self._out):
            raise RuntimeError("the benchmark's window does not fit the socket buffer")
        self._out.clear()

    def _readable(self) -> None:
        self._received += self._sock.recv_into(self._buffer)
        while self._received >= _FRAME_BYTES:
            self._received -= _FRAME_BYTES
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)


if __name__ == "__main__":
    trio.run(_serve)
