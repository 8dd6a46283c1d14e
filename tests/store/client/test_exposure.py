"""Without TLS a store connects to nothing beyond loopback, wherever it has the address from."""

import socket
from typing import Any

import pytest
from msgspec.structs import replace

from greenroom import ClusterStore, UnavailableError, UsageError
from greenroom.drivers import asyncio_, trio_
from greenroom.drivers.sockets import start_connecting
from greenroom.loopback import is_loopback
from tests.store.client.fake_cluster import FakeCluster
from tests.store.client.store_stage import LIBRARIES, run, session

BEYOND = "192.0.2.1"
NAME = "nodes.example"


@pytest.fixture
def dialled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hosts that are connected to. Of them those beyond loopback are not really."""
    found: list[str] = []

    def connect(sock: socket.socket, address: Any) -> None:
        found.append(address[0])
        if not is_loopback(address[0]):
            raise OSError("not in a test")
        start_connecting(sock, address)

    for driver in (asyncio_, trio_):
        monkeypatch.setattr(driver, "start_connecting", connect)
    return found


def stand_for(monkeypatch: pytest.MonkeyPatch, name: str, *hosts: str) -> None:
    """Let a name stand for these hosts, for trio too, which looks up by `_socket`."""
    look_up = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host not in (name, name.encode()):
            return look_up(host, port, *args, **kwargs)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in hosts]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_name_that_stands_for_an_address_beyond_is_refused(
    library: str, dialled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_for(monkeypatch, NAME, BEYOND)

    async def ask() -> None:
        async with ClusterStore(f"{NAME}:7400", deadline_seconds=20) as store:
            with pytest.raises(UsageError, match="beyond loopback") as caught:
                await store.get(session().session_id)
            assert "insecure_plaintext_beyond_loopback=true" in str(caught.value)
            assert "greenrooms://" in str(caught.value)

    run(library, ask)
    assert dialled == []


@pytest.mark.parametrize("library", LIBRARIES)
def test_of_a_name_only_what_is_on_loopback_is_used(
    library: str, dialled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_for(monkeypatch, NAME, BEYOND, "127.0.0.1")
    with FakeCluster() as cluster:

        async def ask() -> None:
            port = cluster.address.rpartition(":")[2]
            async with ClusterStore(f"{NAME}:{port}") as store:
                assert await store.get(session().session_id) is None

        run(library, ask)
    assert set(dialled) == {"127.0.0.1"}


@pytest.mark.parametrize("library", LIBRARIES)
def test_an_address_in_the_map_is_refused_too(library: str, dialled: list[str]) -> None:
    with FakeCluster() as cluster:
        at = f"{BEYOND}:7500"
        actors = {key: replace(entry, address=at) for key, entry in cluster.map.actors.items()}
        cluster.publish(actors=actors)

        async def ask() -> None:
            async with ClusterStore(cluster.address, deadline_seconds=1) as store:
                with pytest.raises(UnavailableError, match="beyond loopback") as caught:
                    await store.get(session().session_id)
                assert at in str(caught.value)

        run(library, ask)
        assert BEYOND not in dialled

        async def ask_all_the_same() -> None:
            insecure = ClusterStore(
                cluster.address, deadline_seconds=1, insecure_plaintext_beyond_loopback=True
            )
            async with insecure as store:
                with pytest.raises(UnavailableError, match="not in a test"):
                    await store.get(session().session_id)

        run(library, ask_all_the_same)
        assert BEYOND in dialled
