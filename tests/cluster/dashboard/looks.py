"""States of a cluster, and readings of actors, for tests of what the dashboard makes of them."""

from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec.structs import replace

from greenroom_cluster.cluster_status import ActorStatus, ClusterStatus, NodeStatus, ShardStatus
from greenroom_cluster.coordinator_status import UP, CoordinatorStatus
from greenroom_cluster.dashboard.board import Look
from greenroom_cluster.dashboard.traffic import Told
from greenroom_cluster.metrics.readings import NS, Readings, Spread

BEGAN = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


def actor(slot: str, incarnation: str = "", **more: Any) -> ActorStatus:
    given = {"state": "up", "sessions": 10, "reachable": True, "pid": 7, "primaries": 1, "backups": 1, **more}
    return ActorStatus(slot=slot, incarnation=incarnation or slot, address="127.0.0.1:1", **given)


def shard(number: int, primary: str = "a/0", backup: str = "b/0", **more: Any) -> ShardStatus:
    given = {"epoch": 3, "sessions": 10, "state": "full", "appended": 100, "stored_bytes": 1000, **more}
    return ShardStatus(shard=number, primary=primary, backups=(backup,) if backup else (), **given)


WHOLE = ClusterStatus(
    cluster="shop",
    lineage=1,
    version=5,
    replicas=2,
    nodes=(NodeStatus("a", "127.0.0.1:7400", "up", 1), NodeStatus("b", "127.0.0.1:7401", "up", 1)),
    actors=(actor("a/0"), actor("b/0")),
    shards=(shard(0), shard(1, "b/0", "a/0")),
    coordinator=CoordinatorStatus(UP, address="127.0.0.1:7300"),
)
"""Two nodes of an actor, two shards."""


def with_shards(*shards: ShardStatus, **more: Any) -> ClusterStatus:
    return replace(WHOLE, shards=shards, **more)


def with_node(name: str, state: str, **more: Any) -> ClusterStatus:
    nodes = tuple(replace(node, state=state) if node.name == name else node for node in WHOLE.nodes)
    return replace(WHOLE, nodes=nodes, **more)


def told(requests: int, steps_us: list[int], *, slot: str = "a/0", looks: int = 0) -> Told:
    """Return what an actor tells that was asked so much, and whose steps took so long."""
    readings, spread = Readings(), Spread()
    readings.tell("greenroom_requests_total", requests, "get")
    readings.tell("greenroom_requests_total", looks, "inspect")
    for each in steps_us:
        spread.note(each * 1000)
    readings.tell_spread("greenroom_step_seconds", spread, NS)
    return {slot: readings.all, "a": []}


def look(found: ClusterStatus, seconds: float, readings: Told | None = None) -> Look:
    return Look(found, readings or {}, seconds, BEGAN + timedelta(seconds=seconds))
