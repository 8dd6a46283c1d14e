"""A coordinator whose directory was lost or restored from an older copy, while all nodes go on."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType

import pytest
import trio

from greenroom import ClusterStore, UnavailableError, new_session_id
from greenroom.loopback_secrets import LoopbackSecrets
from greenroom_cluster.backups.files import Backup
from greenroom_cluster.backups.taking import take_backup
from greenroom_cluster.cluster_status import ClusterStatus
from greenroom_cluster.inspection import inspect_cluster
from greenroom_cluster.orders import forget_node_at
from greenroom_cluster.runtime.ports import free_port
from greenroom_cluster.runtime.processes import command_line, descendants_of
from tests.system.stage import HEALTHY_SECONDS, session

pytestmark = [pytest.mark.system, pytest.mark.trio]

SHARDS = 8
CLUSTER = "greenroom"
NO_OPTIONS: Mapping[str, Sequence[str]] = MappingProxyType({})
# The command line, in a process that does not outlive the tests.
CODE = """
from greenroom_cluster.runtime.processes import exit_with_parent
exit_with_parent({parent})
from greenroom_cluster.cli import main
main()
"""


class Processes:
    """A coordinator and two nodes with an actor each, started as an operator starts them."""

    def __init__(self, directory: Path) -> None:
        self.data = directory / "data"
        self.coordinator = f"127.0.0.1:{free_port()}"
        self.nodes = {name: f"127.0.0.1:{free_port()}" for name in ("a", "b")}
        self.log = directory / "log"
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def _start(self, name: str, *arguments: str) -> None:
        with self.log.open("ab") as log:
            self.running[name] = subprocess.Popen(
                [sys.executable, "-c", CODE.format(parent=os.getpid()), *arguments],
                stdout=log,
                stderr=log,
            )

    def start_coordinator(self, *options: str) -> None:
        at = ("--listen", self.coordinator, "--data-dir", str(self.data), "--shards", str(SHARDS))
        self._start("coordinator", "coordinator", *at, *options)

    def start_node(self, name: str, *options: str) -> None:
        at = ("--listen", self.nodes[name], "--coordinator", self.coordinator, "--actors", "1")
        self._start(name, "node", "--name", name, *at, *options)

    async def start_all(self, options: Mapping[str, Sequence[str]] = NO_OPTIONS) -> None:
        """Start a coordinator, and the nodes with these options, and wait until all is whole."""
        self.start_coordinator()
        for name in self.nodes:
            self.start_node(name, *options.get(name, ()))
        await self.whole()

    async def restart_nodes(self) -> None:
        """Restart the nodes, which keep nothing, one after the other."""
        for name in self.nodes:
            await self.stop(name)
            self.start_node(name)
            await self.whole()

    async def stop(self, name: str) -> None:
        self.running[name].send_signal(signal.SIGTERM)
        assert await trio.to_thread.run_sync(self.running[name].wait, HEALTHY_SECONDS) == 0

    async def kill_all(self) -> None:
        """Kill every process at one moment, and wait until all are gone."""
        started = [process.pid for process in self.running.values()]
        pids = [pid for each in started for pid in (each, *descendants_of(each))]
        for signum in (signal.SIGSTOP, signal.SIGKILL):
            for pid in pids:
                os.kill(pid, signum)
        for process in self.running.values():
            assert await trio.to_thread.run_sync(process.wait, HEALTHY_SECONDS) == -signal.SIGKILL
        with trio.fail_after(HEALTHY_SECONDS):
            while any(command_line(pid) for pid in pids):
                await trio.lowlevel.checkpoint()

    async def whole(self, lineage: int = 1) -> ClusterStatus:
        """Wait until every shard has all its replicas and both nodes are there."""
        with trio.fail_after(HEALTHY_SECONDS):
            while True:
                with suppress(UnavailableError):
                    status = await inspect_cluster(
                        [*self.nodes.values()], CLUSTER, credentials=LoopbackSecrets(CLUSTER)
                    )
                    if status.healthy and status.nodes_up == len(self.nodes) and status.lineage == lineage:
                        return status
                await trio.lowlevel.checkpoint()

    async def refusal(self) -> str:
        """Wait until the coordinator tells that it is older, and return what it says."""
        with trio.fail_after(HEALTHY_SECONDS):
            while True:
                for line in self.log.read_text().splitlines(keepends=True):
                    if "already in use" in line and line.endswith("\n"):  # not while it is being written
                        return line
                await trio.lowlevel.checkpoint()

    def end(self) -> None:
        for process in self.running.values():
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        for process in self.running.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    started = Processes(tmp_path)
    try:
        yield started
    finally:
        started.end()


async def created(store: ClusterStore) -> list[str]:
    """Create a session in each shard, and return their ids."""
    ids = [new_session_id(shard * (65_536 // SHARDS)) for shard in range(SHARDS)]
    for session_id in ids:
        await store.create(session(session_id))
    return ids


async def check_kept(store: ClusterStore, ids: list[str], *, lineage: int) -> None:
    """Read and patch all of these."""
    for session_id in ids:
        assert await store.get(session_id) is not None
        await store.patch(session_id, set={"lineage": lineage})


async def test_no_session_is_lost_with_the_coordinators_directory(
    processes: Processes, tmp_path: Path
) -> None:
    """The copy names only incarnations that died since; then not even a copy is left."""
    await processes.start_all()
    shutil.copytree(processes.data, tmp_path / "copy")
    await processes.restart_nodes()
    seed = processes.nodes["a"]
    async with ClusterStore(seed) as store:
        ids = await created(store)
        await processes.stop("coordinator")
        shutil.rmtree(processes.data)
        (tmp_path / "copy").rename(processes.data)
        processes.start_coordinator()
        assert "--new-lineage --adopt-from" in await processes.refusal()
        for lineage in (2, 3):
            await processes.stop("coordinator")
            processes.start_coordinator("--new-lineage", "--adopt-from", seed)
            await processes.whole(lineage)
            await check_kept(store, ids, lineage=lineage)
            shutil.rmtree(processes.data)


async def test_a_newer_copy_turns_up_after_decisions_on_an_older_one(
    processes: Processes, tmp_path: Path
) -> None:
    """After all were killed no node knows the newest map: the older one serves, and what it wrote stays."""
    await processes.start_all()
    shutil.copytree(processes.data, tmp_path / "older")
    await processes.stop("a")
    processes.start_node("a")
    await processes.whole()
    await processes.kill_all()
    processes.data.rename(tmp_path / "newest")
    (tmp_path / "older").rename(processes.data)
    await processes.start_all()
    await processes.restart_nodes()
    seed = processes.nodes["a"]
    async with ClusterStore(seed) as store:
        ids = await created(store)
        await processes.stop("coordinator")
        processes.data.rename(tmp_path / "older")
        (tmp_path / "newest").rename(processes.data)
        processes.start_coordinator()
        assert "--new-lineage --adopt-from" in await processes.refusal()
        await processes.stop("coordinator")
        processes.start_coordinator("--new-lineage", "--adopt-from", seed)
        await processes.whole(2)
        await check_kept(store, ids, lineage=2)


async def test_no_session_is_lost_with_that_directory_and_all_processes(
    processes: Processes, tmp_path: Path
) -> None:
    """The map is made anew from what the directories of actors know; one that is missing is awaited."""
    kept = {name: ("--durability", "fsync", "--data-dir", str(tmp_path / name)) for name in processes.nodes}
    await processes.start_all(kept)
    async with ClusterStore(processes.nodes["a"]) as store:
        ids = await created(store)
    await processes.kill_all()
    shutil.rmtree(processes.data)
    processes.start_coordinator("--new-lineage", "--adopt-from-directories")
    processes.start_node("a", *kept["a"])
    with trio.fail_after(HEALTHY_SECONDS):
        while "greenroom forget-node b" not in processes.log.read_text():
            await trio.lowlevel.checkpoint()
    with pytest.raises(UnavailableError, match="forget-node b"):
        await inspect_cluster([processes.coordinator], CLUSTER, credentials=LoopbackSecrets(CLUSTER))
    processes.start_node("b", *kept["b"])
    await processes.whole(2)
    async with ClusterStore(processes.nodes["a"]) as store:
        await check_kept(store, ids, lineage=2)


async def test_an_older_copy_is_brought_back_as_a_backup(processes: Processes, tmp_path: Path) -> None:
    """It never counts where it was made. Alone, under a map made anew of it, it serves for a backup."""
    kept = {name: ("--durability", "fsync", "--data-dir", str(tmp_path / name)) for name in processes.nodes}
    await processes.start_all(kept)
    async with ClusterStore(processes.nodes["a"]) as store:
        ids = await created(store)
    await processes.kill_all()
    shutil.rmtree(processes.data)
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path / "a", copy)
    command = [sys.executable, "-m", "greenroom_cluster", "adopt-directory", str(copy)]
    await trio.run_process(command, capture_stdout=True)
    processes.start_coordinator("--new-lineage", "--adopt-from-directories")
    processes.start_node("a", "--durability", "fsync", "--data-dir", str(copy))
    credentials = LoopbackSecrets(CLUSTER)
    with trio.fail_after(HEALTHY_SECONDS):
        while "greenroom forget-node b" not in processes.log.read_text():
            await trio.lowlevel.checkpoint()
        await forget_node_at(processes.coordinator, CLUSTER, "b", credentials=credentials)
        while True:
            with suppress(UnavailableError):
                status = await inspect_cluster([processes.nodes["a"]], CLUSTER, credentials=credentials)
                if not status.states()["unavailable"]:
                    break
            await trio.lowlevel.checkpoint()
    backup = tmp_path / "sessions.backup"
    await take_backup([processes.nodes["a"]], CLUSTER, backup, credentials=credentials)
    assert len(list(Backup(backup).stored())) == len(ids)


async def test_what_is_left_of_a_former_cluster_takes_no_part_in_the_next(processes: Processes) -> None:
    """A node that was paused meanwhile comes to the coordinator of a cluster created anew, and stays out."""
    await processes.start_all()
    left = processes.running.pop("a")
    former = [left.pid, *descendants_of(left.pid)]
    for pid in former:
        os.kill(pid, signal.SIGSTOP)
    try:
        await processes.stop("b")
        await processes.stop("coordinator")
        shutil.rmtree(processes.data)
        processes.nodes["a"] = f"127.0.0.1:{free_port()}"
        processes.start_coordinator()
        processes.start_node("a")
        processes.start_node("b")
        begun = await processes.whole()
    finally:
        for pid in former:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        processes.running["left"] = left
    with trio.fail_after(HEALTHY_SECONDS):
        while "of another cluster" not in processes.log.read_text():
            await trio.lowlevel.checkpoint()
    ended = await processes.whole()
    assert {actor.incarnation for actor in ended.actors} == {actor.incarnation for actor in begun.actors}
    assert {node.address for node in ended.nodes} == set(processes.nodes.values())
