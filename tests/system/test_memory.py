"""A cluster filled until it refuses: nothing acknowledged is lost, and no process passes its bound."""

from contextlib import suppress

import msgspec
import pytest
import trio

from greenroom import ClusterStore
from greenroom_cluster.config import ActorOptions, NodeOptions
from greenroom_cluster.runtime.host_memory import resident_bytes
from tests.system.conftest import Clusters
from tests.system.filling import Filler
from tests.system.stage import SETTINGS, SharedCluster, tree

pytestmark = [pytest.mark.system, pytest.mark.trio, pytest.mark.timeout(300)]

BOUND_BYTES = 128 << 20
SMALL_BOUND_BYTES = 96 << 20
LARGE_SESSION_BYTES = 65_536
SMALL_SESSION_BYTES = 300


async def watch(cluster: SharedCluster, peaks: dict[int, int]) -> None:
    """Note how large each actor becomes."""
    while True:
        for actor in (await cluster.map()).actors.values():
            with suppress(OSError):
                peaks[actor.pid] = max(peaks.get(actor.pid, 0), resident_bytes(actor.pid))
        await trio.sleep(0.1)


async def kill_an_actor(cluster: SharedCluster) -> None:
    """Kill the actor with the most primaries."""
    [victim] = tree((await cluster.busiest_primary()).pid)
    victim.kill()
    await victim.wait_exited()


@pytest.mark.parametrize(
    ("bound", "size", "writers"),
    [
        (BOUND_BYTES, LARGE_SESSION_BYTES, 1),
        (BOUND_BYTES, LARGE_SESSION_BYTES, 8),
        (SMALL_BOUND_BYTES, SMALL_SESSION_BYTES, 32),
    ],
)
async def test_a_cluster_filled_to_its_bound_while_an_actor_is_killed(
    clusters: Clusters, bound: int, size: int, writers: int
) -> None:
    # A name of its own, for nothing makes room in the one before.
    settings = msgspec.structs.replace(
        SETTINGS, nodes=2, shards=8, node=NodeOptions(actors=1, actor=ActorOptions(memory_max=str(bound)))
    )
    cluster = clusters.get(msgspec.structs.replace(settings, cluster=f"full-{size}-{writers}"))
    seeds = ",".join(cluster.cluster.seeds)
    peaks: dict[int, int] = {}
    async with (
        ClusterStore(seeds, cluster=cluster.settings.cluster) as one,
        ClusterStore(seeds, cluster=cluster.settings.cluster) as other,
        trio.open_nursery() as watching,
    ):
        watching.start_soon(watch, cluster, peaks)
        filler = Filler(size, writers, one, other)
        await filler.fill()
        assert len(filler.acknowledged) * size > bound // 8, filler.refusals[:3]
        assert all("--memory-max" in refusal for refusal in filler.refusals)
        await cluster.healthy()
        await kill_an_actor(cluster)
        # Who is left takes more than what fits into a second copy, so one shard or another may stay alone.
        await filler.fill()
        assert await filler.lost() == []
        assert {actor.memory_bytes_max for actor in (await cluster.status()).actors if actor.reachable} == {
            bound
        }
        watching.cancel_scope.cancel()
    assert bound * 0.8 < max(peaks.values()) <= bound * 1.05


async def test_sessions_without_a_user_make_room_and_those_with_one_stay(clusters: Clusters) -> None:
    cluster = clusters.get(
        msgspec.structs.replace(
            SETTINGS,
            nodes=2,
            shards=8,
            node=NodeOptions(actors=1, actor=ActorOptions(memory_max=str(BOUND_BYTES), evict="anonymous")),
        )
    )
    seeds = ",".join(cluster.cluster.seeds)
    peaks: dict[int, int] = {}
    async with (
        ClusterStore(seeds, cluster=cluster.settings.cluster) as store,
        trio.open_nursery() as watching,
    ):
        watching.start_soon(watch, cluster, peaks)
        users = Filler(LARGE_SESSION_BYTES, 8, store)
        nobodies = Filler(LARGE_SESSION_BYTES, 8, store)
        await users.fill(user_id="alice", sessions=300)
        await nobodies.fill(sessions=1500)
        assert not nobodies.refusals
        await kill_an_actor(cluster)
        await nobodies.fill(sessions=500)
        assert not nobodies.refusals
        assert await users.lost() == []
        lost = await nobodies.lost()
        assert lost
        # The oldest, each shard by itself: one may have evicted all its old ones when another has not begun.
        assert lost[len(lost) // 2] < max(nobodies.acknowledged.values()) // 2
        assert lost[-1] < max(nobodies.acknowledged.values()) - 10
        assert sum(actor.evicted for actor in (await cluster.status()).actors) > 0
        watching.cancel_scope.cancel()
    assert max(peaks.values()) <= BOUND_BYTES * 1.05
