"""A cluster filled until it refuses: nothing acknowledged is lost, and no process passes its bound."""

import os
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
import trio

from greenroom import ClusterStore, GreenroomError, SessionData, StoreFullError, new_session_id
from greenroom_cluster.runtime.host_memory import resident_bytes
from tests.system.conftest import Clusters
from tests.system.stage import SETTINGS, SharedCluster, tree

pytestmark = [pytest.mark.system, pytest.mark.trio, pytest.mark.timeout(300)]

BOUND_BYTES = 128 << 20
SESSION_BYTES = 65_536
WRITERS = 8
REFUSALS = 20


class Filler:
    """Writers that go on until the cluster has refused often, and what was acknowledged to them."""

    def __init__(self, *stores: ClusterStore) -> None:
        self._stores = stores
        self.written: dict[str, int] = {}
        self.refusals: list[str] = []

    async def fill(self) -> None:
        """Write with all stores until the cluster is full."""
        until = len(self.refusals) + REFUSALS
        async with trio.open_nursery() as writing:
            for writer in range(WRITERS):
                writing.start_soon(self._write, self._stores[writer % len(self._stores)], until)

    async def _write(self, store: ClusterStore, until: int) -> None:
        while len(self.refusals) < until:
            number = len(self.written)
            session = SessionData(
                session_id=new_session_id(),
                expires=datetime.now(UTC) + timedelta(hours=1),
                data={"n": number, "x": os.urandom(SESSION_BYTES)},
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
                self.written[session.session_id] = number


async def watch(cluster: SharedCluster, peaks: dict[int, int]) -> None:
    """Note how large each actor becomes."""
    while True:
        for actor in (await cluster.map()).actors.values():
            with suppress(OSError):
                peaks[actor.pid] = max(peaks.get(actor.pid, 0), resident_bytes(actor.pid))
        await trio.sleep(0.1)


async def test_a_cluster_filled_to_its_bound_while_an_actor_is_killed(clusters: Clusters) -> None:
    cluster = clusters.get(
        msgspec.structs.replace(SETTINGS, nodes=2, actors=1, shards=8, memory_max=str(BOUND_BYTES))
    )
    seeds = ",".join(cluster.cluster.seeds)
    peaks: dict[int, int] = {}
    async with (
        ClusterStore(seeds, cluster=cluster.settings.cluster) as one,
        ClusterStore(seeds, cluster=cluster.settings.cluster) as other,
        trio.open_nursery() as watching,
    ):
        watching.start_soon(watch, cluster, peaks)
        filler = Filler(one, other)
        await filler.fill()
        assert len(filler.written) > 500
        assert all("--memory-max" in refusal for refusal in filler.refusals)
        await cluster.healthy()
        [victim] = tree((await cluster.busiest_primary()).pid)
        victim.kill()
        await victim.wait_exited()
        await filler.fill()
        await cluster.healthy()
        for session_id, number in filler.written.items():
            found = await one.get(session_id)
            assert found is not None
            assert found.data["n"] == number
        assert {actor.memory_bytes_max for actor in (await cluster.status()).actors if actor.reachable} == {
            BOUND_BYTES
        }
        watching.cancel_scope.cancel()
    assert BOUND_BYTES * 0.8 < max(peaks.values()) <= BOUND_BYTES * 1.05
