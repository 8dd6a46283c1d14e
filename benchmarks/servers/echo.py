"""A trio server that sends back what it receives, as it came: `python -m benchmarks.servers.echo`."""

import socket
import sys

import trio

from benchmarks.processes import Process, Server, python_module

_READ_BYTES = 256 * 1024


async def _echo(sock: socket.socket) -> None:
    sock.settimeout(0)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    received = memoryview(bytearray(_READ_BYTES))
    while True:
        try:
            count = sock.recv_into(received)
        except BlockingIOError:
            await trio.lowlevel.wait_readable(sock.fileno())
            continue
        if not count:
            sock.close()
            return
        view = received[:count]
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
    """The echo in a process of its own."""

    def start(self) -> None:
        """Start it and learn its port."""
        self._process = self.run(python_module("benchmarks.servers.echo"), talks=True)
        self.addresses["echo"] = f"127.0.0.1:{int(self._process.answer())}"

    def processes(self) -> list[Process]:
        """Return the one process."""
        return [self._process]


if __name__ == "__main__":
    trio.run(_serve)
