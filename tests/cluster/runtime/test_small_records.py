"""A client that sends a byte a record of TLS, and another one at the same port."""

import socket
from pathlib import Path
from typing import Any

import pytest
import trio

from greenroom import wire
from greenroom.framing import encode_frames, encode_greeting
from greenroom.tls.credentials import Credentials
from greenroom.tls.demands import node_of
from greenroom.tls.sockets import OVERHEAD_BYTES_MAX, READ_BYTES, TlsSocket
from greenroom_cluster.runtime.connection import FramedConnection
from greenroom_cluster.runtime.delivery import Delivery
from greenroom_cluster.runtime.dialing import dial
from greenroom_cluster.runtime.listener import Listener, Service
from greenroom_cluster.runtime.poller import Poller
from greenroom_cluster.runtime.proving import Trust, shake_hands
from tests.authority import Authority
from tests.cluster.runtime.loopback import (
    CLUSTER,
    client_decoder,
    get,
    hello,
    listening,
    request_decoder,
    until,
)

pytestmark = pytest.mark.trio
AUTHORITY = Authority()
FLOODER, OTHER = b"F" * 16, b"O" * 16
FRAME = encode_frames([get(1)])
REQUESTS_MAX = (OVERHEAD_BYTES_MAX + READ_BYTES) // 22 // len(FRAME) + 1
"""So many requests of the flooder are in one read: each of its records holds one byte of them."""


def credentials(folder: Path, role_and_name: str) -> Credentials:
    name = f"greenroom://{CLUSTER}/{role_and_name}"
    return Credentials(AUTHORITY.issue(name).files(folder, role_and_name.replace("/", "-")), print)


async def fill(listener: Listener, client: Credentials) -> tuple[TlsSocket, int]:
    """Say hello, then send requests a byte a record until the kernel is full; return how many bytes."""
    sock = socket.create_connection(("127.0.0.1", listener.port))
    sock.settimeout(0)
    tls = TlsSocket(sock, client.current().client, server_side=False)
    await shake_hands(tls)
    tls.send(encode_greeting(hello(sender=FLOODER)))
    await until(lambda: listener.served[wire.ROLE_CLIENT] == 1)
    sent = 0
    try:
        while True:
            sent += tls.send(FRAME[sent % len(FRAME) :][:1])
    except BlockingIOError:
        return tls, sent


async def test_others_are_served_between_small_parts(tmp_path: Path) -> None:
    poller = Poller()
    served: list[tuple[bytes, int]] = []

    async def serve(connection: FramedConnection, hello: wire.Hello, number: int) -> None:
        def handle(requests: list[Any]) -> None:
            served.append((hello.sender, len(requests)))
            if hello.sender == OTHER:
                connection.send([wire.Missing(request.request_id) for request in requests])

        await Delivery(connection, poller, handle, patient=True).run()

    node, client = (credentials(tmp_path, name) for name in ("node/n1", "client/web"))
    services = {wire.ROLE_CLIENT: Service(request_decoder, serve)}
    async with listening(services, credentials=node) as (listener, nursery):
        flooder, sent = await fill(listener, client)
        assert sent > 4 * REQUESTS_MAX * len(FRAME), "several reads of it wait in the kernel"
        trust = Trust(client, node_of(CLUSTER, "n1"))
        other, _ = await dial(listener.address(), hello(sender=OTHER), nursery, trust=trust)
        other.speak(client_decoder)
        other.send([get(7)])
        nursery.start_soon(poller.run)
        with trio.fail_after(20):
            assert await other.receive() == [wire.Missing(7)]
        # The first reads may end within a hello or a frame.
        assert [sender for sender, _ in served].index(OTHER) <= 2
        await until(lambda: sum(count for sender, count in served if sender == FLOODER) == sent // len(FRAME))
        assert max(count for sender, count in served if sender == FLOODER) <= REQUESTS_MAX
        flooder.close()
        other.close()
    poller.close()
