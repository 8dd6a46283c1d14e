"""Nodes that come and go as an operator wants it, under load: callers notice nothing."""

from collections.abc import Callable
from pathlib import Path

import pytest

from greenroom import ClusterStore
from greenroom.cluster_map import ClusterMap
from greenroom_cluster.cluster_status import ClusterStatus
from tests.system.stage import SETTINGS, Probe, SharedCluster, loaded, tree

pytestmark = [pytest.mark.system, pytest.mark.trio]

Report = Callable[[str, object], None]


def store_of(cluster: SharedCluster) -> ClusterStore:
    return ClusterStore(",".join(cluster.cluster.seeds), cluster=cluster.settings.cluster)


def shards_of(status: ClusterStatus, node: str) -> int:
    """How many shards have a replica on the node."""
    return sum(
        any(slot.startswith(f"{node}/") for slot in (shard.primary, *shard.backups))
        for shard in status.shards
    )


def as_wanted(cluster_map: ClusterMap) -> bool:
    """Whether every shard is where the controller wants it."""
    slots = {key: actor.slot for key, actor in cluster_map.actors.items()}
    return all(
        shard.members and [slots.get(member) for member in shard.members] == list(shard.wanted)
        for shard in cluster_map.shards
    )


async def take_part(cluster: SharedCluster, node: str) -> None:
    """Wait until a node has its part of the shards, and every shard all its replicas."""
    await cluster.until(
        lambda found: (
            as_wanted(found)
            and any(slot.startswith(f"{node}/") for shard in found.shards for slot in shard.wanted)
        )
    )
    await cluster.healthy()


async def stop(cluster: SharedCluster, node: str) -> None:
    """SIGTERM a node: it hands over, exits with 0, and leaves neither a process nor a trace in the map."""
    processes = tree(cluster.cluster.node_pid(node))
    assert await cluster.stop_node(node) == 0
    assert all(process.exited() for process in processes)
    assert node not in (await cluster.map()).nodes


@pytest.fixture
def cluster(slim_cluster: SharedCluster) -> SharedCluster:
    return slim_cluster


async def test_added_node_takes_part_and_stopped_node_leaves(
    cluster: SharedCluster, tmp_path: Path, record_property: Report
) -> None:
    async with store_of(cluster) as store, loaded(cluster, tmp_path) as load:
        probe = Probe(store)
        await probe.begin()
        added = await cluster.start_node()
        await take_part(cluster, added)
        await probe.everywhere()
        status = await cluster.healthy()
        least = SETTINGS.shards * SETTINGS.replicas // 4 // 2
        assert all(shards_of(status, node.name) >= least for node in status.nodes), "nobody is left out"
        await stop(cluster, added)
        await probe.check()
        assert (await cluster.status()).healthy, "nothing was missing at any time"
    record_property("longest_seconds", load.longest_seconds())


async def test_nodes_replaced_one_by_one(
    cluster: SharedCluster, tmp_path: Path, record_property: Report
) -> None:
    """In the end no node is left of those that the callers were told of."""
    async with store_of(cluster) as store, loaded(cluster, tmp_path) as load:
        probe = Probe(store)
        await probe.begin()
        await probe.everywhere()
        former = list(cluster.cluster.nodes)
        for node in former:
            await take_part(cluster, await cluster.start_node())
            await stop(cluster, node)
            await probe.check()
        assert not set(former) & set(cluster.cluster.nodes)
        await probe.everywhere()
    record_property("longest_seconds", load.longest_seconds())


async def test_nodes_restarted_one_by_one(
    cluster: SharedCluster, tmp_path: Path, record_property: Report
) -> None:
    """Each comes back under its name and on its address."""
    async with store_of(cluster) as store, loaded(cluster, tmp_path) as load:
        probe = Probe(store)
        await probe.begin()
        await probe.everywhere()
        for node in list(cluster.cluster.nodes):
            await stop(cluster, node)
            await cluster.start_node(node)
            await take_part(cluster, node)
            await probe.check()
        await probe.everywhere()
    record_property("longest_seconds", load.longest_seconds())
