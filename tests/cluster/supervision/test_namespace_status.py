"""What operators are told about namespaces, from the words of the actors."""

import msgspec
import pytest

from greenroom import wire
from greenroom.namespace_use import NamespaceUse
from greenroom_cluster.cli.tables import print_status
from greenroom_cluster.cluster_status import ClusterStatus, summarize
from greenroom_cluster.namespace_status import NamespaceStatus
from tests.cluster.supervision.test_inspection import A, B, cluster_map, replica

SHOP = NamespaceUse("shop", 10, 1 << 20, 100, 4 << 20)


def status_of(
    first: tuple[NamespaceUse, ...], second: tuple[NamespaceUse, ...] | None = None
) -> ClusterStatus:
    told = {
        key: wire.Inspection(1, key, (replica(role),), namespaces=uses)
        for key, role, uses in ((A, "primary", first), (B, "backup", second))
        if uses is not None
    }
    return summarize(cluster_map(B), told)


def test_what_actors_tell_of_a_namespace_is_added_up() -> None:
    status = status_of(
        (NamespaceUse("news", 1, 5), SHOP, NamespaceUse("default", 2, 30)),
        (NamespaceUse("default", 3, 40), SHOP),
    )
    assert status.namespaces == (
        NamespaceStatus("default", 5, 70),
        NamespaceStatus("news", 1, 5),
        NamespaceStatus("shop", 20, 2 << 20, 100, 4 << 20),
    )
    assert status.warnings() == []


def test_a_refusal_and_different_quotas_are_told() -> None:
    other = msgspec.structs.replace(SHOP, sessions_max=50, refused=True)
    status = status_of((SHOP,), (other,))
    (shop,) = status.namespaces
    assert (shop.refused, shop.sessions_max) == (True, 100)
    refused, apart = status.warnings()
    assert refused.startswith("namespace shop is at its quota and was refused writes")
    assert apart.startswith("actors disagree on the quota of namespace shop: n2/0 and the others")
    assert all("--quotas" in line for line in (refused, apart))


def test_an_actor_of_a_former_release_tells_of_none() -> None:
    encoded = msgspec.msgpack.encode(
        wire.Inspection(1, A, (replica("primary"),), 0.0, 1, 2, 3, 4, 5, ("n1/0",))
    )
    former = msgspec.msgpack.encode(msgspec.msgpack.decode(encoded)[:11])
    read = msgspec.msgpack.decode(former, type=wire.Inspection)
    assert read.namespaces == ()
    assert summarize(cluster_map(B), {A: read}).namespaces == ()


class FormerInspection(wire.Frame, frozen=True, tag=49):
    """As a release before namespaces reads it, whose last field is `refusing`."""

    request_id: int
    incarnation: bytes
    replicas: tuple[wire.ReplicaState, ...]
    coordinator_away_seconds: float | None = None
    used_bytes: int = 0
    free_bytes: int = 0
    memory_bytes_max: int = 0
    evicted: int = 0
    grantable_bytes: int = 0
    refusing: tuple[str, ...] = ()


def test_a_former_release_reads_what_it_knows() -> None:
    said = wire.Inspection(1, A, (replica("primary"),), refusing=("n1/0",), namespaces=(SHOP,))
    read = msgspec.msgpack.decode(msgspec.msgpack.encode(said), type=FormerInspection)
    assert (read.incarnation, read.refusing) == (A, ("n1/0",))


@pytest.mark.parametrize(
    ("uses", "shown"),
    [
        ((NamespaceUse("default", 2, 30),), False),
        ((NamespaceUse("default", 2, 30, 5, 1 << 20),), True),
        ((NamespaceUse("default", 2, 30), SHOP), True),
    ],
)
def test_the_table_is_shown_where_there_is_more_than_default(
    uses: tuple[NamespaceUse, ...], shown: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    print_status(status_of(uses))
    output = capsys.readouterr().out
    assert ("namespace" in output) is shown
    if SHOP in uses:
        (line,) = [line for line in output.splitlines() if line.split()[:1] == ["shop"]]
        assert line.split() == ["shop", "10", "100", "1.0", "MiB", "4.0", "MiB"]
