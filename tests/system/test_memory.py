"""A cluster filled until it refuses: nothing acknowledged is lost, and no process passes its bound."""

import os
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
import trio

from greenroom import ClusterStore, GreenroomError, SessionData, StoreFullError, new_session_id
from greenroom_cluster.config import ActorOptions, NodeOptions
from greenroom_cluster.runtime.host_memory import resident_bytes
from tests.system.conftest import Clusters
from tests.system.stage import SETTINGS, SharedCluster, tree

pytestmark = [pytest.mark.system, pytest.mark.trio, pytest.mark.timeout(300)]

BOUND_BYTES = 128 << 20
SMALL_BOUND_BYTES = 96 << 20
LARGE_SESSION_BYTES = 65_536
SMALL_SESSION_BYTES = 300
REFUSALS = 20
READERS = 16


class Filler:
    """Writers that go on until the cluster has refused often, and what was acknowledged to them."""

    def __init__(self, size: int, writers: int, *stores: ClusterStore) -> None:
        self._size = size
        self._writers = writers
        self._stores = stores
        self._written = 0
        self.acknowledged: dict[str, int] = {}
        self.refusals: list[str] = []

    async def fill(self, *, user_id: str | None = None, sessions: int | None = None) -> None:
        """Write with all stores until the cluster is full, or so many sessions are written."""
        until = len(self.refusals) + REFUSALS
        last = None if sessions is None else self._written + sessions
        async with trio.open_nursery() as writing:
            for writer in range(self._writers):
                store = self._stores[writer % len(self._stores)]
                writing.start_soon(self._write, store, until, last, user_id)

    async def _write(self, store: ClusterStore, until: int, last: int | None, user_id: str | None) -> None:
        while len(self.refusals) < until and (last is None or self._written < last):
            self._written += 1
            number = self._written
            session = SessionData(
                session_id=new_session_id(),
                expires=datetime.now(UTC) + timedelta(hours=1),
                user_id=user_id,
                data={"n": number, "x": os.urandom(self._size)},
            )
            try:
                await store.create(session)
            except StoreFullError as error:
                self.refusals.append(str(error))
                await trio.sleep(0.05)
            except GreenroomError:
                # Not acknowledged: an actor was lost, or its successor has yet to take the shard over.
                continue
            else:
                self.acknowledged[session.session_id] = number

    async def lost(self) -> list[int]:
        """Read all that was acknowledged; return the numbers of what is not there, or not as written."""
        left = list(self.acknowledged.items())
        lost: list[int] = []

        async def read() -> None:
            while left:
                session_id, number = left.pop()
                found = await self._stores[0].get(session_id)
                if found is None or found.data["n"] != number:
                    lost.append(number)

        async with trio.open_nursery() as reading:
            for _ in range(READERS):
                reading.start_soon(read)
        return sorted(lost)


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
