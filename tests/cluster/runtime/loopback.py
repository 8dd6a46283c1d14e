"""Real sockets on the loopback, for the tests of this package."""

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import trio

from greenroom import wire
from greenroom.addresses import parse_address
from greenroom.framing import messages_decoder
from greenroom_cluster.runtime.connection import FramedConnection
from greenroom_cluster.runtime.listener import Listener, ListenerSettings, Service

CLUSTER = "test"
SERVER = b"S" * 16
CLIENT = b"C" * 16

greeting_decoder: Any = msgspec.msgpack.Decoder(wire.Hello | wire.Goodbye)
client_decoder: Any = messages_decoder(wire.ServerMessage)
request_decoder: Any = messages_decoder(wire.ClientMessage)


def hello(role: str = wire.ROLE_CLIENT, **changes: Any) -> wire.Hello:
    fields = {
        "protocol": wire.PROTOCOL_VERSION,
        "routing": wire.ROUTING_VERSION,
        "cluster": CLUSTER,
        "role": role,
        "sender": CLIENT,
    }
    return wire.Hello(**{**fields, **changes})


def framed(payload: bytes) -> bytes:
    """A frame with these bytes, whatever they are."""
    return len(payload).to_bytes(4, "big") + payload


def get(request_id: int) -> wire.Get:
    return wire.Get(request_id, 0, b"d" * 32)


async def echo(connection: FramedConnection, hello: wire.Hello, number: int) -> None:
    """Answers every request with `Missing` under its number."""
    while True:
        requests = await connection.receive()
        connection.send([wire.Missing(request.request_id) for request in requests])


def echo_service(handle: Any = echo) -> dict[str, Service]:
    return {wire.ROLE_CLIENT: Service(request_decoder, handle)}


def connected_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of one real TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
    return near, far


@asynccontextmanager
async def listening(
    services: dict[str, Service] | None = None, **settings: Any
) -> AsyncIterator[tuple[Listener, trio.Nursery]]:
    listener = Listener(ListenerSettings(CLUSTER, SERVER, **settings), services or echo_service())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listener.run)
        yield listener, nursery
        nursery.cancel_scope.cancel()


def raw_connect(listener: Listener) -> socket.socket:
    """A client below the protocol, to send anything; blocking, so only for what the kernel does at once."""
    sock = socket.create_connection(parse_address(listener.address()))
    sock.settimeout(0)
    return sock


async def raw_receive(sock: socket.socket) -> bytes:
    """What comes next; empty when the other side ended the connection, in whatever way."""
    while True:
        try:
            return sock.recv(65536)
        except BlockingIOError:
            await trio.lowlevel.wait_readable(sock.fileno())
        except ConnectionError:
            return b""


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Let the other tasks run until `condition` holds."""
    with trio.fail_after(seconds):
        while not condition():
            await trio.lowlevel.checkpoint()


async def ended(sock: socket.socket) -> bool:
    """Wait until the other side has ended the connection; what it sent before is dropped."""
    with trio.fail_after(10):
        while await raw_receive(sock):
            pass
    return True
