"""Nodes in zones: the replicas of a shard stand in two, and a zone may be lost and come back."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import msgspec
import pytest
import trio

from greenroom import ClusterStore
from greenroom.cluster_map import ClusterMap
from greenroom_cluster.planning.zones import crowded_zone
from tests.system.conftest import Clusters
from tests.system.stage import SETTINGS, Probe, SharedCluster, all_exit, loaded, tree

pytestmark = [pytest.mark.system, pytest.mark.trio]

ZONES = {"n1": "x", "n2": "y", "n3": "x"}


@pytest.fixture
def cluster(clusters: Clusters) -> SharedCluster:
    return clusters.get(msgspec.structs.replace(SETTINGS, zones="x,y"))


def nodes_of(cluster_map: ClusterMap, shard: int) -> set[str]:
    return {cluster_map.actors[member].node for member in cluster_map.shards[shard].members}


def are_on(nodes: set[str], cluster_map: ClusterMap) -> bool:
    """Whether every shard has two members, which are on these nodes."""
    return all(
        len(entry.members) == 2 and nodes_of(cluster_map, shard) <= nodes
        for shard, entry in enumerate(cluster_map.shards)
    )


def stand_apart(cluster_map: ClusterMap) -> bool:
    """Whether every shard has a member in each of the two zones."""
    return all(
        {ZONES[node] for node in nodes_of(cluster_map, shard)} == {"x", "y"}
        for shard in range(cluster_map.shard_count)
    )


async def health(cluster: SharedCluster) -> tuple[int, dict[str, object]]:
    """Return what `greenroom health` exits with, and what it says."""
    seeds = ",".join(cluster.cluster.seeds)
    command = [sys.executable, "-m", "greenroom_cluster", "health", "--json", "--connect", seeds]
    command += ["--cluster", cluster.settings.cluster]
    asked = await trio.to_thread.run_sync(partial(subprocess.run, command, capture_output=True, timeout=60))
    return asked.returncode, msgspec.json.decode(asked.stdout)


async def kill(cluster: SharedCluster, *names: str) -> None:
    """SIGKILL these nodes, which are not started again."""
    cluster.cluster.restart_nodes = False
    processes = [process for name in names for process in tree(cluster.cluster.node_pid(name))]
    for name in names:
        cluster.cluster.kill_node(name)
    await all_exit(processes)


async def take_back(cluster: SharedCluster, *names: str) -> ClusterMap:
    """Start these nodes again, and wait until the shards stand apart again."""
    cluster.cluster.restart_nodes = True
    for name in names:
        await cluster.start_node(name)
    await cluster.until(stand_apart)
    status = await cluster.healthy()
    assert status.crowded() == {}
    return await cluster.map()


async def test_a_killed_zone_of_one_node_comes_back(cluster: SharedCluster, tmp_path: Path) -> None:
    """Its shards go to the two nodes that are left; then each gives up one replica, and no more."""
    assert stand_apart(await cluster.map())
    store = ClusterStore(",".join(cluster.cluster.seeds), cluster=cluster.settings.cluster, zone="x")
    async with store, loaded(cluster, tmp_path):
        probe = Probe(store)
        await probe.begin()
        await kill(cluster, "n2")
        await probe.everywhere()
        without = await cluster.until(partial(are_on, {"n1", "n3"}))
        assert all(crowded_zone(without, entry) == "x" for entry in without.shards)
        status, told = await health(cluster)
        assert status == 1
        assert told["within_one_zone"] == {"x": list(range(SETTINGS.shards))}
        assert {node.name: node.zone for node in (await cluster.status()).nodes} == ZONES
        await probe.check()
        after = await take_back(cluster, "n2")
        for old, new in zip(without.shards, after.shards, strict=True):
            assert set(old.members) & set(new.members), "one replica stays where it is"
        assert (await health(cluster))[0] == 0
        await probe.everywhere()
        await probe.check()


async def test_a_killed_zone_of_most_nodes_comes_back(cluster: SharedCluster, tmp_path: Path) -> None:
    """The one node of the other zone has a replica of every shard, so nothing is lost."""
    assert stand_apart(await cluster.map())
    async with (
        ClusterStore(",".join(cluster.cluster.seeds), cluster=cluster.settings.cluster) as store,
        loaded(cluster, tmp_path),
    ):
        probe = Probe(store)
        await probe.begin()
        await kill(cluster, "n1", "n3")
        await probe.everywhere()
        await cluster.until(partial(are_on, {"n2"}))
        await probe.check()
        await take_back(cluster, "n1", "n3")
        await probe.check()
