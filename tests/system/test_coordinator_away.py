"""An operator sees that the coordinator is away, since when, and what waits for it."""

import signal

import msgspec
import pytest
import trio

from greenroom_cluster.cluster_status import ClusterStatus
from greenroom_cluster.config import NodeOptions
from greenroom_cluster.runtime.local import LocalCluster, open_local_cluster
from tests.system.stage import SETTINGS, all_exit, stopped, tree
from tests.system.test_cli import run_async

pytestmark = [pytest.mark.system, pytest.mark.trio]


async def status_with(cluster: LocalCluster, state: str) -> ClusterStatus:
    """Return the first status in which the coordinator is in that state."""
    with trio.fail_after(30):
        while (found := await cluster.status()).coordinator.state != state:
            await trio.lowlevel.checkpoint()
    return found


async def test_absence_is_told_with_what_waits() -> None:
    settings = msgspec.structs.replace(SETTINGS, nodes=2, node=NodeOptions(actors=1), shards=8)
    async with open_local_cluster(settings) as cluster:
        ask = ("--connect", ",".join(cluster.seeds))
        assert (await status_with(cluster, "up")).warnings() == []
        # Its supervisor stands still, so that it stays away.
        with stopped(cluster.coordinator_pid()):
            child = tree(cluster.coordinator_child_pid())
            child[0].kill()
            await all_exit(child)
            found = await status_with(cluster, "away")
            assert found.healthy, "every shard serves with both replicas"
            assert found.coordinator.unreached_by == ("n1/0", "n2/0")
            assert found.coordinator.undecided == ()
            health = await run_async("health", *ask)
            assert health.returncode == 0, "a load balancer has no reason to leave"
            assert b"the coordinator has been away for" in health.stdout
            assert b"No shard waits yet" in health.stdout
            document = msgspec.json.decode((await run_async("health", "--json", *ask)).stdout)
            assert document["healthy"]
            assert document["coordinator"]["state"] == "away"
            assert document["coordinator"]["away_seconds"] > 0

            victim = (await cluster.actors())["n1/0"]
            led = {shard.shard for shard in found.shards if shard.primary == "n1/0"}
            tree(victim.pid)[0].signal(signal.SIGKILL)
            with trio.fail_after(30):
                while {each.shard for each in found.coordinator.undecided} != set(range(8)):
                    found = await cluster.status()
            kinds = {each.shard: each.kind for each in found.coordinator.undecided}
            assert kinds == {shard: "takeover" if shard in led else "remove" for shard in range(8)}
            status = await run_async("status", *ask)
            assert b"for the removal of a lost backup" in status.stdout
            assert b"coordinator away" in status.stdout
            assert (await run_async("health", *ask)).returncode == 1, "shards lack a replica"
        await cluster.wait_healthy()
        assert (await status_with(cluster, "up")).coordinator.undecided == ()
