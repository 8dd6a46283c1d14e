"""Where `greenroom up` lets its processes listen."""

import socket
from pathlib import Path

import msgspec
import pytest

from greenroom.errors import UsageError
from greenroom_cluster.local_settings import LocalClusterSettings
from greenroom_cluster.runtime import local
from greenroom_cluster.runtime.ports import free_port

HOST = "127.0.0.1"


def addresses(**settings: object) -> tuple[str, list[str]]:
    """The coordinator's address, and the nodes'."""
    made = msgspec.structs.replace(LocalClusterSettings(), **settings)
    made.check()
    cluster = local.LocalCluster(made, Path(), None)  # type: ignore[arg-type]  # nothing is started
    return cluster.coordinator_address, cluster._planned


def usual(monkeypatch: pytest.MonkeyPatch) -> str:
    """Make a free port the usual one of coordinators."""
    address = f"{HOST}:{free_port()}"
    monkeypatch.setattr(local, "COORDINATOR_ADDRESS", address)
    return address


def test_coordinator_takes_its_usual_port_or_any_if_that_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    address = usual(monkeypatch)
    listen = f"{HOST}:{free_port()}"
    assert addresses(listen=listen)[0] == address
    with socket.create_server((HOST, int(address.rpartition(":")[2]))):
        coordinator, nodes = addresses(listen=listen)
    assert coordinator not in {address, *nodes}


def test_coordinator_leaves_its_usual_port_to_a_node(monkeypatch: pytest.MonkeyPatch) -> None:
    address = usual(monkeypatch)
    coordinator, nodes = addresses(listen=address)
    assert nodes[0] == address
    assert coordinator not in nodes


def test_nodes_on_any_ports_have_a_coordinator_on_any_port(monkeypatch: pytest.MonkeyPatch) -> None:
    address = usual(monkeypatch)
    coordinator, nodes = addresses(listen=f"{HOST}:0")
    assert len({address, coordinator, *nodes}) == 5


def test_what_was_asked_for_and_is_taken_is_refused() -> None:
    with socket.create_server((HOST, 0)) as taken:
        address = f"{HOST}:{taken.getsockname()[1]}"
        with pytest.raises(UsageError, match="--coordinator-listen"):
            addresses(listen=f"{HOST}:0", coordinator_listen=address)


def test_nodes_need_room_for_their_ports() -> None:
    with pytest.raises(UsageError, match="--listen"):
        addresses(listen=f"{HOST}:65534")
