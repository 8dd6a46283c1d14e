"""A directory is lost, damaged or moved while all is down: what waits, and what an operator does."""

import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec
import pytest
import trio

from greenroom import ClusterStore, UnavailableError, UsageError
from greenroom_cluster.cluster_status import ClusterStatus
from greenroom_cluster.config import ActorOptions, NodeOptions
from greenroom_cluster.local_settings import LocalClusterSettings
from greenroom_cluster.orders import forget_node_at
from greenroom_cluster.runtime.local import LocalCluster, open_local_cluster
from tests.system.stage import HEALTHY_SECONDS, SETTINGS, Probe

pytestmark = [pytest.mark.system, pytest.mark.trio, pytest.mark.timeout(300)]

OPTIONS = NodeOptions(actors=1, drain_seconds=1, actor=ActorOptions(durability="fsync"))


def settings(folder: Path) -> LocalClusterSettings:
    return msgspec.structs.replace(SETTINGS, data_dir=folder / "data", node=OPTIONS)


def directory_of(folder: Path, node: str) -> Path:
    return folder / "data/nodes" / node / "actors/0"


def store_of(cluster: LocalCluster) -> ClusterStore:
    return ClusterStore(",".join(cluster.seeds), cluster=SETTINGS.cluster)


async def written(folder: Path) -> list[str]:
    """Run a cluster, write to each shard, kill everything; return the ids of the sessions."""
    async with open_local_cluster(settings(folder)) as cluster:
        async with store_of(cluster) as store:
            probe = Probe(store)
            await probe.begin()
            await probe.everywhere()
        cluster.restart_nodes = False
        for pid in cluster.pids():
            os.kill(pid, signal.SIGKILL)
    return probe.ids


@asynccontextmanager
async def again(folder: Path) -> AsyncIterator[LocalCluster]:
    """Run the cluster again, and do not wait until it is whole."""
    async with open_local_cluster(settings(folder), wait_seconds=None) as cluster:
        yield cluster


async def all_there(cluster: LocalCluster, ids: list[str]) -> None:
    await cluster.wait_healthy(HEALTHY_SECONDS)
    async with store_of(cluster) as store:
        for session_id in ids:
            found = await store.get(session_id)
            assert found is not None
            assert found.data == {"round": 1}


async def until(cluster: LocalCluster, condition: Callable[[ClusterStatus], bool]) -> ClusterStatus:
    with trio.fail_after(HEALTHY_SECONDS):
        while True:
            with suppress(UnavailableError):
                status = await cluster.status()
                if condition(status):
                    return status
            await trio.lowlevel.checkpoint()


def waiting_for(node: str) -> Callable[[ClusterStatus], bool]:
    """Whether all actors are up, and shards wait for this node's directory alone; all others serve."""

    def condition(status: ClusterStatus) -> bool:
        up = sum(actor.reachable and actor.state == "up" for actor in status.actors)
        waits = {shard.missing_directories for shard in status.shards if shard.state == "unavailable"}
        return up == SETTINGS.nodes and waits == {(f"{node}/0",)}

    return condition


async def test_shards_wait_for_a_lost_directory_until_it_is_given_up(tmp_path: Path) -> None:
    ids = await written(tmp_path)
    shutil.rmtree(directory_of(tmp_path, "n1"))
    async with again(tmp_path) as cluster:
        await until(cluster, waiting_for("n1"))
        await forget_node_at(
            cluster.coordinator_address, SETTINGS.cluster, "n1", credentials=cluster.credentials
        )
        await all_there(cluster, ids)


async def test_shards_wait_for_a_damaged_directory_until_it_is_given_up(tmp_path: Path) -> None:
    ids = await written(tmp_path)
    damaged = directory_of(tmp_path, "n2")
    (damaged / "identity").write_bytes(b"?")
    async with again(tmp_path) as cluster:
        await until(cluster, waiting_for("n2"))
        assert list((damaged / "damaged").glob("log-*.log"))
        await forget_node_at(
            cluster.coordinator_address, SETTINGS.cluster, "n2", credentials=cluster.credentials
        )
        await all_there(cluster, ids)


async def test_a_moved_directory_is_refused_until_it_is_adopted(tmp_path: Path) -> None:
    ids = await written(tmp_path)
    place = directory_of(tmp_path, "n3")
    place.rename(tmp_path / "aside")
    shutil.copytree(tmp_path / "aside", place)
    with pytest.raises(UsageError, match="n3 cannot run with these settings"):
        async with again(tmp_path) as cluster:
            await cluster.wait_healthy(HEALTHY_SECONDS)
    shutil.rmtree(tmp_path / "aside")
    command = [sys.executable, "-m", "greenroom_cluster", "adopt-directory", str(tmp_path / "data/nodes/n3")]
    adopted = await trio.run_process(command, capture_stdout=True)
    assert b"is adopted" in adopted.stdout
    async with again(tmp_path) as cluster:
        await all_there(cluster, ids)
