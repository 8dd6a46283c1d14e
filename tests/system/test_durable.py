"""Sessions on disk survive the end of every process at once, and a disk that fails costs nothing.

GREENROOM_DURABLE_ROUNDS says how often everything is killed, GREENROOM_DURABLE_SECONDS how soon afterwards
the cluster must be whole again, GREENROOM_DURABLE_CALLERS how many callers are at work meanwhile, and
GREENROOM_DURABLE_SESSIONS how many sessions are there that nobody changes.
"""

import errno
import os
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import msgspec
import pytest
import trio

from greenroom import ClusterStore, new_session_id
from greenroom_cluster.config import ActorOptions, Durability, NodeOptions
from greenroom_cluster.logs import LogLevel, LogSettings
from greenroom_cluster.runtime.disk_writer import EXIT_DISK_FAILED
from greenroom_cluster.runtime.processes import ProcessHandle
from greenroom_cluster.runtime.starter import is_starter
from tests.faulty_disk import FaultyDisk
from tests.system.filling import Filler
from tests.system.stage import (
    SETTINGS,
    Probe,
    SharedCluster,
    all_exit,
    loaded,
    session,
    shared_cluster,
)

pytestmark = [pytest.mark.system, pytest.mark.trio, pytest.mark.timeout(3600)]

ROUNDS = int(os.environ.get("GREENROOM_DURABLE_ROUNDS", "15"))
# So many rounds have callers and sessions of their own, and are judged together: what a kill leaves unknown
# stays possible from then on.
ROUNDS_JUDGED_MAX = 15
CALLERS = int(os.environ.get("GREENROOM_DURABLE_CALLERS", "12"))
SESSIONS = int(os.environ.get("GREENROOM_DURABLE_SESSIONS", "0"))
# So many for each caller: what many writers of one session left unknown takes long to explain.
SESSIONS_CHANGED_PER_CALLER = 3
STILL_SESSION_BYTES = 300
# What is promised is 10 s; this is what a busy machine, on which every process starts anew, may make of it.
WHOLE_SECONDS = float(os.environ.get("GREENROOM_DURABLE_SECONDS", "30"))

Report = Callable[[str, object], None]


@contextmanager
def durable_cluster(
    mode: Durability, data_dir: Path, level: LogLevel = "error", memory_max: str = ""
) -> Iterator[SharedCluster]:
    replace = msgspec.structs.replace
    options = NodeOptions(actors=1, actor=ActorOptions(durability=mode, memory_max=memory_max))
    process = replace(SETTINGS.process, logs=LogSettings(level=level))
    with shared_cluster(replace(SETTINGS, data_dir=data_dir, node=options, process=process)) as cluster:
        yield cluster


def store_of(cluster: SharedCluster) -> ClusterStore:
    return ClusterStore(",".join(cluster.cluster.seeds), cluster=cluster.settings.cluster)


def stop_all(cluster: SharedCluster) -> list[ProcessHandle]:
    """Stop every process of a cluster (SIGSTOP), so that none does anything more; return holds on them."""
    stopped: dict[int, ProcessHandle] = {}
    while True:
        fresh = set(cluster.cluster.pids()) - set(stopped)
        if not fresh:
            return list(stopped.values())
        for pid in fresh:
            stopped[pid] = ProcessHandle(pid)
            stopped[pid].signal(signal.SIGSTOP)


async def kill_all(cluster: SharedCluster) -> None:
    """Kill every process of a cluster at one moment."""
    handles = stop_all(cluster)
    own = [handle for handle in handles if not is_starter(handle.pid)]
    assert len(own) == 2 + 3 * (1 + cluster.settings.node.actors)
    for handle in handles:
        handle.kill()
    await all_exit(handles, 10.0)
    for handle in handles:
        handle.close()


class Ended:
    """Sessions that were ended, one more on each shard in each round: none may come back."""

    def __init__(self, store: ClusterStore) -> None:
        self._store = store
        self._ids: list[str] = []

    async def more(self) -> None:
        width = 65_536 // SETTINGS.shards
        fresh = [new_session_id(shard * width) for shard in range(SETTINGS.shards)]
        for session_id in fresh:
            await self._store.create(session(session_id))
        for session_id in fresh:
            await self._store.delete(session_id)
        self._ids += fresh

    async def check(self) -> None:
        for session_id in self._ids:
            assert await self._store.get(session_id) is None


@pytest.mark.parametrize("mode", ["fsync", "interval"])
async def test_what_was_acknowledged_outlives_every_process(
    mode: Durability, tmp_path: Path, record_property: Report
) -> None:
    """The history of the callers must be explained, across all ends."""
    chance = random.Random(1)
    whole: list[float] = []
    crew = {"workers": CALLERS // 2, "fixed_sessions": SESSIONS_CHANGED_PER_CALLER * CALLERS}
    with durable_cluster(mode, tmp_path / "data") as cluster:
        await cluster.healthy()
        async with store_of(cluster) as store:
            probe, ended, still = Probe(store), Ended(store), Filler(STILL_SESSION_BYTES, 64, store)
            await probe.begin()
            await still.fill(sessions=SESSIONS)
            for first in range(0, ROUNDS, ROUNDS_JUDGED_MAX):
                rounds = min(ROUNDS_JUDGED_MAX, ROUNDS - first)
                async with loaded(cluster, tmp_path, errors=True, **crew) as load:
                    for _ in range(rounds):
                        await probe.everywhere()
                        await ended.more()
                        await trio.sleep(chance.uniform(0.1, 1.0))
                        await kill_all(cluster)
                        began = trio.current_time()
                        await cluster.healthy()
                        whole.append(trio.current_time() - began)
                        await probe.check()
                        await ended.check()
                assert load.acknowledged_writes > 20 * rounds
            assert len(still.acknowledged) == SESSIONS
            assert await still.lost() == []
    record_property("whole_seconds", f"median {median(whole):.2f}, at most {max(whole):.2f}")
    assert max(whole) < WHOLE_SECONDS


async def test_a_start_from_disk_leaves_the_room_that_there_was(tmp_path: Path) -> None:
    """What was read is freed once it is applied, and does not count against the bound for good."""
    with durable_cluster("interval", tmp_path / "data", memory_max="96MiB") as cluster:
        await cluster.healthy()
        async with store_of(cluster) as store:
            filler = Filler(60_000, 8, store)
            await filler.fill(sessions=800)
            assert filler.refusals == []
            await kill_all(cluster)
            await cluster.healthy()
            with trio.fail_after(WHOLE_SECONDS):
                while filler.refusals or len(filler.acknowledged) < 816:
                    filler.refusals.clear()
                    await filler.fill(sessions=16)
            assert await filler.lost() == []


@pytest.mark.parametrize(
    "fault", [{"sync_error": errno.EIO}, {"write_error": errno.ENOSPC}], ids=["sync-fails", "disk-full"]
)
async def test_an_actor_whose_disk_fails_ends_and_nothing_is_lost(
    fault: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its peers serve, no caller meets an error, and once the disk is fine again the actor is back."""
    disk = FaultyDisk(tmp_path, str(tmp_path / "data/nodes/n1/"))
    for name, value in disk.environment.items():
        monkeypatch.setenv(name, value)
    with durable_cluster("fsync", tmp_path / "data", "warning") as cluster:
        await cluster.healthy()
        async with store_of(cluster) as store, loaded(cluster, tmp_path):
            probe = Probe(store)
            await probe.begin()
            [victim] = [actor for actor in (await cluster.map()).actors.values() if actor.slot == "n1/0"]
            handle = ProcessHandle(victim.pid)
            disk.set(**fault)
            await probe.everywhere()
            await all_exit([handle], 10.0)
            await probe.everywhere()
            disk.set()
            await cluster.healthy()
            await probe.check()
    assert not list((tmp_path / "data").rglob("damaged")), "a disk that fails is not damaged"
    told = capfd.readouterr().err
    assert "disk_failed" in told
    assert f"exit_status={EXIT_DISK_FAILED}" in told


async def test_a_coordinator_whose_disk_fails_says_so_and_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    disk = FaultyDisk(tmp_path, str(tmp_path / "data/map"))
    for name, value in disk.environment.items():
        monkeypatch.setenv(name, value)
    with durable_cluster("fsync", tmp_path / "data", "warning") as cluster:
        await cluster.healthy()
        async with store_of(cluster) as store:
            probe = Probe(store)
            await probe.begin()
            disk.set(sync_error=errno.ENOSPC)
            [victim] = [actor for actor in (await cluster.map()).actors.values() if actor.slot == "n1/0"]
            handle = ProcessHandle(victim.pid)
            handle.kill()
            told = ""
            with trio.fail_after(20):
                while f"exit_status={EXIT_DISK_FAILED}" not in told:
                    await trio.lowlevel.checkpoint()
                    told += capfd.readouterr().err
            disk.set()
            await cluster.healthy()
            await probe.check()
    assert "saving the cluster map" in told
    assert "Traceback" not in told


async def test_a_primary_whose_disk_stalls_ends_and_its_peers_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    disk = FaultyDisk(tmp_path, str(tmp_path / "data/nodes/n1/"))
    for name, value in disk.environment.items():
        monkeypatch.setenv(name, value)
    with durable_cluster("fsync", tmp_path / "data", "warning") as cluster:
        await cluster.healthy()
        async with store_of(cluster) as store, loaded(cluster, tmp_path, errors=True):
            probe = Probe(store)
            await probe.begin()
            [victim] = [actor for actor in (await cluster.map()).actors.values() if actor.slot == "n1/0"]
            handle = ProcessHandle(victim.pid)
            disk.set(sync_milliseconds=30_000)
            await all_exit([handle], 20.0)
            disk.set()
            await cluster.healthy()
            await probe.everywhere()
            await probe.check()
    told = capfd.readouterr().err
    assert "a backup has what this actor's own disk has not written" in told
    assert f"exit_status={EXIT_DISK_FAILED}" in told
    assert "suspected" not in told


async def test_a_slow_disk_makes_writes_slow_and_loses_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FaultyDisk(tmp_path, str(tmp_path / "data/nodes/"))
    for name, value in disk.environment.items():
        monkeypatch.setenv(name, value)
    with durable_cluster("fsync", tmp_path / "data") as cluster:
        await cluster.healthy()
        async with store_of(cluster) as store, loaded(cluster, tmp_path):
            probe = Probe(store)
            await probe.begin()
            disk.set(sync_milliseconds=200)
            assert await probe.everywhere() > 0.2, "a write waits for the disk of each member"
            assert await probe.throughout(3.0) < 5.0
            disk.set()
            await probe.check()
