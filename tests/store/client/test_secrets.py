"""A store proves the secret of loopback by the address that it reaches, whatever name it was given."""

import socket
import threading

import msgspec
import pytest

from greenroom import ClusterStore, UsageError, wire
from greenroom.framing import FrameBuffer, encode_greeting
from greenroom.loopback_secrets import LoopbackSecrets
from greenroom.negotiation import hello
from greenroom.proofs import asks
from tests.store.client.fake_cluster import FakeCluster
from tests.store.client.store_stage import LIBRARIES, run, session

CLUSTER = "of-loopback"
NAME = "127.1"
"""It stands for an address of loopback, as the host's own name does on many systems."""


@pytest.mark.parametrize("library", LIBRARIES)
def test_who_listens_at_a_name_for_loopback_is_told_nothing(library: str) -> None:
    LoopbackSecrets(CLUSTER).make()
    heard: list[list[bytes]] = []
    over = threading.Event()

    def pose(server: socket.socket) -> None:
        while not over.is_set():
            try:
                sock, _ = server.accept()
            except TimeoutError:
                continue
            with sock:
                sock.settimeout(10)
                said = [sock.recv(4096)]
                sock.sendall(encode_greeting(hello(CLUSTER, wire.ROLE_PEER, b"S" * 16)))
                try:
                    said.append(sock.recv(4096))
                except ConnectionResetError:
                    said.append(b"")
                heard.append(said)

    async def ask(port: int) -> None:
        async with ClusterStore(f"{NAME}:{port}", cluster=CLUSTER, deadline_seconds=2) as store:
            with pytest.raises(UsageError, match="does not prove"):
                await store.get(session().session_id)

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        thread = threading.Thread(target=pose, args=(server,))
        thread.start()
        try:
            run(library, lambda: ask(server.getsockname()[1]))
        finally:
            over.set()
            thread.join(10)
    assert heard
    for first, *rest in heard:
        (payload,) = FrameBuffer().feed(first)
        assert asks(msgspec.msgpack.decode(payload, type=wire.Hello))
        assert rest == [b""]


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_cluster_is_known_by_whatever_name_it_is_reached(library: str) -> None:
    LoopbackSecrets(CLUSTER).make()

    async def ask(addresses: str) -> None:
        async with ClusterStore(addresses, cluster=CLUSTER, deadline_seconds=20) as store:
            assert await store.get(session().session_id) is None

    with FakeCluster(cluster=CLUSTER) as cluster:
        port = cluster.address.rpartition(":")[2]
        for host in ("127.0.0.1", "localhost", NAME, "[::ffff:127.0.0.1]"):
            run(library, lambda host=host: ask(f"{host}:{port}"))
