"""A proxy between servers, through which links can be cut: `python -m benchmarks.servers.proxy`.

It forwards addresses of one host to another and gives each connection a label: `port/source` for Redis, where
each server connects from an address of its own, and `port/role:sender` for our own, which say in their hello
who they are. Cut, a link is silent, as if a cable were out: nothing is closed, and what was sent arrives once
it is healed.

stdin: one line with the routes, then lines `{"cut": ["7001/127.0.0.12", ...]}`, labels or beginnings of
them; an empty list heals. Each is answered with a line.
"""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable

import msgspec

from benchmarks.processes import json_line
from greenroom import wire

_READ_BYTES = 256 * 1024
_HEADER_BYTES = 4
_hellos = msgspec.msgpack.Decoder(wire.Hello)


class Routes(msgspec.Struct, frozen=True, kw_only=True):
    """Ports of `listen_host` that are forwarded to the same ports of `target_host`."""

    listen_host: str
    target_host: str
    ports: list[int]
    by_hello: bool


async def label_by_hello(reader: asyncio.StreamReader) -> tuple[str, bytes]:
    """Return role and sender of the hello with which a connection begins, and its bytes."""
    header = await reader.readexactly(_HEADER_BYTES)
    payload = await reader.readexactly(int.from_bytes(header, "big"))
    hello = _hellos.decode(payload)
    return f"{hello.role}:{hello.sender.hex()}", header + payload


class Cuts:
    """Which labels are cut."""

    def __init__(self) -> None:
        self._prefixes: tuple[str, ...] = ()
        self._changed = asyncio.Condition()

    async def cut(self, prefixes: list[str]) -> None:
        """Cut these from now on, and no others."""
        async with self._changed:
            self._prefixes = tuple(prefixes)
            self._changed.notify_all()

    def covers(self, label: str) -> bool:
        """Whether this link is cut."""
        return label.startswith(self._prefixes) if self._prefixes else False

    async def passable(self, label: str) -> None:
        """Wait until it is not."""
        if self.covers(label):
            async with self._changed:
                await self._changed.wait_for(lambda: not self.covers(label))


class Proxy:
    """Forwards connections."""

    def __init__(self, routes: Routes) -> None:
        self.cuts = Cuts()
        self._routes = routes

    async def start(self) -> None:
        """Listen on every port."""
        for port in self._routes.ports:
            await asyncio.start_server(self._handler(port), self._routes.listen_host, port)

    def _handler(self, port: int) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await self._forward(port, reader, writer)
            except (OSError, asyncio.IncompleteReadError):
                writer.close()

        return handle

    async def _forward(self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = b""
        if self._routes.by_hello:
            who, first = await label_by_hello(reader)
        else:
            who = writer.get_extra_info("peername")[0]
        label = f"{port}/{who}"
        await self.cuts.passable(label)
        to_reader, to_writer = await asyncio.open_connection(self._routes.target_host, port)
        to_writer.write(first)
        await asyncio.gather(
            self._pump(label, reader, to_writer), self._pump(label, to_reader, writer), return_exceptions=True
        )

    async def _pump(self, label: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(_READ_BYTES):
                await self.cuts.passable(label)
                writer.write(data)
                await writer.drain()
        finally:
            await self.cuts.passable(label)  # nor does an end of the connection cross a cut
            writer.close()


async def _main() -> None:
    proxy = Proxy(msgspec.json.decode(sys.stdin.readline(), type=Routes))
    await proxy.start()
    print(json_line("ready"), flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        await proxy.cuts.cut(json.loads(line)["cut"])
        print(json_line("done"), flush=True)


if __name__ == "__main__":
    asyncio.run(_main())
