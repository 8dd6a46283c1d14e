"""Where `greenroom up` lets its processes listen."""

import socket
from pathlib import Path

import msgspec
import pytest

from greenroom.errors import UsageError
from greenroom_cluster.config import NodeSettings
from greenroom_cluster.etcd_options import EtcdOptions
from greenroom_cluster.local_settings import LocalClusterSettings
from greenroom_cluster.runtime import local
from greenroom_cluster.runtime.ports import bound_socket, free_port

HOST = "127.0.0.1"


def addresses(**settings: object) -> tuple[str, list[str]]:
    """The coordinator's address, and the nodes'."""
    made = msgspec.structs.replace(LocalClusterSettings(), **settings)
    made.check()
    cluster = local.LocalCluster(made, Path(), None)  # type: ignore[arg-type]  # nothing is started
    cluster.release_ports()
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


def test_nobody_else_is_given_the_ports_of_a_cluster_before_it_listens() -> None:
    made = LocalClusterSettings(listen=f"{HOST}:0", coordinator_listen=f"{HOST}:0")
    cluster = local.LocalCluster(made, Path(), None)  # type: ignore[arg-type]  # nothing is started
    try:
        for address in (cluster.coordinator_address, *cluster._planned):
            port = int(address.rpartition(":")[2])
            with socket.socket() as other, pytest.raises(OSError, match="in use"):
                other.bind((HOST, port))
            # A process of this cluster listens there, as often as it is started.
            for _ in range(2):
                with bound_socket(HOST, port) as own:
                    own.listen()
    finally:
        cluster.release_ports()


def test_zones_are_given_to_nodes_by_turns() -> None:
    made = msgspec.structs.replace(LocalClusterSettings(), nodes=3, zones="x,y")
    made.check()
    assert [made.node_settings(name, "", "").zone for name in ("n1", "n2", "n3")] == ["x", "y", "x"]
    assert LocalClusterSettings().node_settings("n1", "", "").zone == ""


@pytest.mark.parametrize(
    ("zones", "said"), [("x,,y", "--zones takes"), ("x y", "--zones takes"), ("w,x,y,z", "4 zones")]
)
def test_zones_that_cannot_be_are_refused(zones: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        addresses(zones=zones)


def test_a_node_refuses_a_zone_that_cannot_be() -> None:
    with pytest.raises(UsageError, match="--zone takes 1 to 63 letters"):
        NodeSettings(name="a", zone="x/y").check()


def test_nodes_need_room_for_their_ports() -> None:
    with pytest.raises(UsageError, match="--listen"):
        addresses(listen=f"{HOST}:65534")


def test_coordinators_take_consecutive_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    several = {"coordinators": 2, "etcd": EtcdOptions(store="etcd://h:1")}
    first = free_ports_in_a_row(3)
    monkeypatch.setattr(local, "COORDINATOR_ADDRESS", f"{HOST}:{first}")
    listen = f"{HOST}:{free_port()}"
    assert addresses(listen=listen, **several)[0] == f"{HOST}:{first},{HOST}:{first + 1}"
    asked = f"{HOST}:{first + 1}"
    assert addresses(listen=listen, coordinator_listen=asked, **several)[0].split(",")[0] == asked
    with socket.create_server((HOST, first + 1)):
        coordinators, nodes = addresses(listen=listen, **several)
        found = coordinators.split(",")
        assert len({*found, *nodes}) == 5
        assert not {f"{HOST}:{first}", f"{HOST}:{first + 1}"}.intersection(found)
        with pytest.raises(UsageError, match="--coordinator-listen"):
            addresses(listen=listen, coordinator_listen=f"{HOST}:{first}", **several)


def free_ports_in_a_row(count: int) -> int:
    """Return the first of some ports that are free now."""
    while True:
        first = free_port()
        try:
            held = [socket.create_server((HOST, first + number)) for number in range(count)]
        except (OSError, OverflowError):
            continue
        for each in held:
            each.close()
        return first


def test_a_port_is_for_a_coordinator_or_a_node() -> None:
    several = {"coordinators": 2, "etcd": EtcdOptions(store="etcd://h:1")}
    with pytest.raises(UsageError, match="takes port 7400, which is that of node n1"):
        addresses(listen=f"{HOST}:7400", coordinator_listen=f"{HOST}:7399", **several)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"coordinators": 2}, "--store"),
        ({"coordinators": 9, "etcd": EtcdOptions(store="etcd://h:1")}, "--coordinators"),
        ({"etcd": EtcdOptions(store="h:1")}, "--store"),
    ],
)
def test_coordinators_that_cannot_be_are_refused(settings: dict[str, object], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        addresses(listen=f"{HOST}:0", **settings)
