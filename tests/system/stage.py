"""What the system tests share: a cluster that several tests use, load on it, and a probe of every shard.

A cluster takes seconds to start, so tests whose fault leaves it whole share one. It runs on a trio loop in a
thread of its own (`SharedCluster`), because pytest-trio gives every test a loop that ends with the test.
"""

import itertools
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

import trio

from greenroom import BaseSessionStore, SessionData, UnavailableError, new_session_id
from greenroom.cluster_map import ActorEntry, ClusterMap
from greenroom.loopback_secrets import LoopbackSecrets
from greenroom_cluster.cluster_status import ClusterStatus
from greenroom_cluster.config import NodeOptions, ProcessOptions
from greenroom_cluster.local_settings import LocalClusterSettings
from greenroom_cluster.logs import LogSettings
from greenroom_cluster.questions import fetch_map
from greenroom_cluster.restarts import RestartSettings
from greenroom_cluster.runtime.local import LocalCluster, open_local_cluster
from greenroom_cluster.runtime.processes import ProcessHandle, descendants_of
from simulations.checks.linearizability import assert_explained
from tests.system.load import LIFETIME, Load, open_load

Result = TypeVar("Result")

ANY = "127.0.0.1:0"
SETTINGS = LocalClusterSettings(
    nodes=3,
    node=NodeOptions(actors=2),
    shards=16,
    listen=ANY,
    coordinator_listen=ANY,
    # Tests kill the same processes again and again; no supervisor is to give up on that.
    process=ProcessOptions(logs=LogSettings(level="error"), restarts=RestartSettings(restarts_max=200)),
)
# A machine with two cores and other work to do needs patience; what is promised is asserted separately.
HEALTHY_SECONDS = 60.0

_seeds = itertools.count(1)


class SharedCluster:
    """A cluster whose home is another thread's loop; its methods may be awaited in any trio loop."""

    def __init__(self, cluster: LocalCluster, settings: LocalClusterSettings, home: Any) -> None:
        self.cluster = cluster
        self.settings = settings
        self._home = home

    @property
    def url(self) -> str:
        """What a store is told."""
        return self.cluster.url

    async def at_home(self, action: Callable[[], Awaitable[Result]]) -> Result:
        """Run what belongs to the cluster's own loop."""
        call = partial(trio.from_thread.run, action, trio_token=self._home)
        return await trio.to_thread.run_sync(call, abandon_on_cancel=True)

    async def start_node(self, name: str | None = None) -> str:
        return await self.at_home(partial(self.cluster.start_node, name))

    async def stop_node(self, name: str) -> int:
        return await self.at_home(partial(self.cluster.stop_node, name))

    async def healthy(self) -> ClusterStatus:
        return await self.cluster.wait_healthy(HEALTHY_SECONDS)

    async def map(self) -> ClusterMap:
        return await self.cluster.fetch_map()

    async def status(self) -> ClusterStatus:
        return await self.cluster.status()

    async def until(self, condition: Callable[[ClusterMap], bool], seconds: float = 30.0) -> ClusterMap:
        """Return the first cluster map that fulfils the condition."""
        with trio.fail_after(seconds):
            while True:
                with suppress(UnavailableError):
                    cluster_map = await self.cluster.fetch_map()
                    if condition(cluster_map):
                        return cluster_map
                await trio.lowlevel.checkpoint()

    async def busiest_primary(self) -> ActorEntry:
        """Return the actor that is primary of the most shards."""
        cluster_map = await self.map()
        counted = Counter(shard.primary for shard in cluster_map.shards)
        return cluster_map.actors[counted.most_common(1)[0][0]]

    async def busiest_backup(self) -> ActorEntry:
        """Return the actor that is backup of the most shards."""
        cluster_map = await self.map()
        counted = Counter(backup for shard in cluster_map.shards for backup in shard.backups)
        return cluster_map.actors[counted.most_common(1)[0][0]]


@contextmanager
def shared_cluster(settings: LocalClusterSettings = SETTINGS) -> Iterator[SharedCluster]:
    """Run a cluster around the body, on a thread of its own; it is whole when the body begins."""
    opened: SimpleQueue[tuple[LocalCluster, Any, trio.Event] | BaseException] = SimpleQueue()

    async def main() -> None:
        over = trio.Event()
        async with open_local_cluster(settings) as cluster:
            opened.put((cluster, trio.lowlevel.current_trio_token(), over))
            await over.wait()

    failures: list[BaseException] = []

    def run() -> None:
        try:
            trio.run(main)
        except BaseException as error:  # noqa: BLE001  handed to the test's thread
            failures.append(error)
            opened.put(error)

    thread = Thread(target=run, name="cluster")
    thread.start()
    try:
        first = opened.get()
        if isinstance(first, BaseException):
            raise first
        cluster, home, over = first
        try:
            yield SharedCluster(cluster, settings, home)
        finally:
            with suppress(trio.RunFinishedError):
                home.run_sync_soon(over.set)
    finally:
        thread.join()
    if failures:
        raise failures[0]


def succeeded(former: ActorEntry) -> Callable[[ClusterMap], bool]:
    """Whether another incarnation has taken the slot, and no shard names the former one."""

    def condition(cluster_map: ClusterMap) -> bool:
        return any(
            actor.slot == former.slot and actor.state == "up" and actor.incarnation != former.incarnation
            for actor in cluster_map.actors.values()
        ) and not any(former.incarnation in shard.members for shard in cluster_map.shards)

    return condition


# --- load ------------------------------------------------------------------------------------------------


@asynccontextmanager
async def loaded(
    cluster: SharedCluster,
    directory: Path,
    *,
    errors: bool = False,
    near: bool = False,
    url: str = "",
    **options: Any,
) -> AsyncIterator[Load]:
    """Put load on the cluster around the body, then demand that all went as promised.

    Every result must be explained, and the cluster must get whole again. No caller may have met an error,
    unless `errors`. With `near` some callers have near caches: a rotated session may show by its new id
    before a change of another that was made earlier does.
    """
    workload = {"workers": 6, "pause_seconds": 0.02, **options}
    async with open_load(url or cluster.url, directory, seed=next(_seeds), **workload) as load:
        yield load
    assert_explained(load.history, apart=near)
    if not errors:
        assert not load.errors
    assert (await cluster.healthy()).healthy


class Probe:
    """One session on every shard, of these ids, written and read back on demand: any error is the test's."""

    def __init__(self, store: BaseSessionStore, shards: int = SETTINGS.shards) -> None:
        self._store = store
        width = 65_536 // shards
        self.ids = [new_session_id(shard * width) for shard in range(shards)]
        self._rounds = 0

    async def begin(self) -> None:
        """Make the sessions."""
        async with trio.open_nursery() as nursery:
            for session_id in self.ids:
                nursery.start_soon(self._store.create, session(session_id))

    async def everywhere(self) -> float:
        """Write to and read from every shard at once; return how many seconds the slowest took."""
        self._rounds += 1
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for session_id in self.ids:
                nursery.start_soon(self._write_and_read, session_id)
        return trio.current_time() - began

    async def throughout(self, seconds: float) -> float:
        """Go on like that for so long; return how many seconds the slowest round took."""
        over = trio.current_time() + seconds
        slowest = 0.0
        while trio.current_time() < over:
            slowest = max(slowest, await self.everywhere())
        return slowest

    async def check(self) -> None:
        """Demand that the last write to each shard is still there."""
        for session_id in self.ids:
            found = await self._store.get(session_id)
            assert found is not None
            assert found.data.get("round", 0) == self._rounds

    async def _write_and_read(self, session_id: str) -> None:
        await self._store.patch(session_id, set={"round": self._rounds})
        found = await self._store.get(session_id)
        assert found is not None
        assert found.data["round"] == self._rounds


def session(session_id: str, **data: Any) -> SessionData:
    """Return a session that outlives the test."""
    return SessionData(session_id=session_id, expires=datetime.now(UTC) + LIFETIME, data=data)


# --- processes -------------------------------------------------------------------------------------------


def tree(pid: int) -> list[ProcessHandle]:
    """Return holds on a process and all below it."""
    return [ProcessHandle(each) for each in (pid, *descendants_of(pid))]


async def all_exit(handles: list[ProcessHandle], seconds: float = 2.0) -> None:
    """Wait until all of these are dead."""
    with trio.fail_after(seconds):
        for handle in handles:
            await handle.wait_exited()


@contextmanager
def stopped(*pids: int) -> Iterator[None]:
    """Keep processes from running during the body (SIGSTOP, SIGCONT)."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


async def map_from(address: str, cluster: str) -> ClusterMap:
    """Return the map that one node or the coordinator has."""
    return await fetch_map([address], cluster, credentials=LoopbackSecrets(cluster))
