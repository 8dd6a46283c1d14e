"""A whole cluster of real processes: what its supervisors see, restart, hand over and leave behind."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import msgspec
import pytest
import structlog.testing
import trio

from greenroom.cluster_map import ClusterMap
from greenroom.errors import UnavailableError
from greenroom_cluster.config import NodeOptions, ProcessOptions
from greenroom_cluster.local_settings import LocalClusterSettings
from greenroom_cluster.logs import LogSettings
from greenroom_cluster.runtime import processes
from greenroom_cluster.runtime.local import LocalCluster, open_local_cluster
from greenroom_cluster.runtime.starter import is_starter
from tests.listening import as_root, listening_ports

pytestmark = [pytest.mark.system, pytest.mark.trio]

ANY = "127.0.0.1:0"
SETTINGS = LocalClusterSettings(
    nodes=2,
    shards=8,
    listen=ANY,
    coordinator_listen=ANY,
    node=NodeOptions(actors=1),
    process=ProcessOptions(logs=LogSettings(level="warning")),
)


@asynccontextmanager
async def running(settings: LocalClusterSettings = SETTINGS) -> AsyncIterator[LocalCluster]:
    async with open_local_cluster(settings) as cluster:
        yield cluster


async def until(
    cluster: LocalCluster, condition: Callable[[ClusterMap], bool], seconds: float = 20.0
) -> None:
    """Wait until the cluster map fulfils a condition."""
    with trio.fail_after(seconds):
        while True:
            with suppress(UnavailableError):
                if condition(await cluster.fetch_map()):
                    return


async def test_killed_actor_is_reported_dead_and_replaced() -> None:
    async with running() as cluster:
        former = (await cluster.actors())["n1/0"]
        began = trio.current_time()
        os.kill(former.pid, signal.SIGKILL)

        def reported(cluster_map: ClusterMap) -> bool:
            entry = cluster_map.actors.get(former.incarnation)
            return entry is None or entry.state == "dead"

        await until(cluster, reported)
        assert trio.current_time() - began < 0.5
        await cluster.wait_healthy()
        latter = (await cluster.actors())["n1/0"]
        assert latter.incarnation != former.incarnation
        assert latter.pid != former.pid


@pytest.mark.parametrize("restart", [True, False])
async def test_a_killed_node_is_logged_and_a_stopped_one_is_no_alarm(restart: bool) -> None:
    """The line says what follows."""
    with structlog.testing.capture_logs() as logged:
        async with running(msgspec.structs.replace(SETTINGS, restart_nodes=restart)) as cluster:
            cluster.kill_node("n1")
            with trio.fail_after(20):
                while not logged:
                    await trio.lowlevel.checkpoint()
            await cluster.stop_node("n2")
    killed, *others = [line for line in logged if line["event"] == "process_ended"]
    assert (killed["log_level"], killed["process"], killed["exit_status"]) == ("warning", "n1", -9)
    assert killed["hint"].startswith("it is started again" if restart else "it is not started again")
    assert {line["log_level"] for line in others} == {"info"}


async def test_actors_do_not_interrupt_who_runs() -> None:
    """But for a minute after they had to wait for long, which may be so where tests run."""
    async with running() as cluster:
        pids = [actor.pid for actor in (await cluster.actors()).values()]
        await until(cluster, lambda _: os.SCHED_BATCH in map(os.sched_getscheduler, pids), seconds=90)


async def test_killed_node_comes_back_and_reports_its_predecessors_actors_dead() -> None:
    async with running() as cluster:
        former = (await cluster.actors())["n1/0"]
        former_pid = cluster.node_pid("n1")
        cluster.kill_node("n1")
        await until(
            cluster,
            lambda cluster_map: any(
                actor.slot == "n1/0" and actor.state == "up" and actor.incarnation != former.incarnation
                for actor in cluster_map.actors.values()
            ),
        )
        assert cluster.node_pid("n1") != former_pid
        assert not processes.is_alive(former.pid, former.started_ticks)
        await cluster.wait_healthy()
        await until(
            cluster,
            lambda cluster_map: (
                former.incarnation not in cluster_map.actors
                or cluster_map.actors[former.incarnation].state == "dead"
            ),
        )


def process_state(pid: int) -> str:
    """What the kernel says of a process: R(unning), S(leeping), T (stopped), ..."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


async def test_killed_node_leaves_no_process_even_if_an_actor_was_stopped() -> None:
    """A stopped process cannot watch its supervisor; the kernel continues an orphaned process group."""
    async with running(msgspec.structs.replace(SETTINGS, restart_nodes=False)) as cluster:
        actor = (await cluster.actors())["n1/0"]
        handle = processes.ProcessHandle(actor.pid)
        handle.signal(signal.SIGSTOP)
        # The kernel continues what is stopped when the group is orphaned, not what is about to stop.
        with trio.fail_after(10):
            while process_state(actor.pid) != "T":
                await trio.lowlevel.checkpoint()
        cluster.kill_node("n1")
        with trio.fail_after(2):
            await handle.wait_exited()
            # The node's own end may be noticed a little later than the actor's.
            while cluster.nodes != ["n2"]:
                await trio.lowlevel.checkpoint()


async def test_killed_coordinator_comes_back_on_its_address_with_its_map() -> None:
    """What happened while it was away reaches it afterwards."""
    async with running() as cluster:
        before = await cluster.fetch_map()
        former = (await cluster.actors())["n2/0"]
        os.kill(cluster.coordinator_child_pid(), signal.SIGKILL)
        os.kill(former.pid, signal.SIGKILL)
        await until(
            cluster,
            lambda cluster_map: (
                cluster_map.version > before.version
                and any(
                    actor.slot == "n2/0" and actor.state == "up" and actor.incarnation != former.incarnation
                    for actor in cluster_map.actors.values()
                )
            ),
        )
        await cluster.wait_healthy()
        after = await cluster.fetch_map()
        assert after.lineage == before.lineage
        assert all(new.epoch >= old.epoch for new, old in zip(after.shards, before.shards, strict=True))


async def test_stopped_node_hands_over_and_leaves_the_map() -> None:
    """Its shards are at two replicas elsewhere before its actors end."""
    settings = msgspec.structs.replace(SETTINGS, nodes=3)
    async with running(settings) as cluster:
        assert await cluster.stop_node("n2") == 0
        cluster_map = await cluster.fetch_map()
        assert sorted(cluster_map.nodes) == ["n1", "n3"]
        assert all(len(shard.members) == 2 for shard in cluster_map.shards)
        assert (await cluster.status()).healthy


async def test_last_node_does_not_wait_for_a_successor() -> None:
    settings = msgspec.structs.replace(SETTINGS, nodes=1, replicas=1)
    async with running(settings) as cluster:
        with trio.fail_after(10):
            assert await cluster.stop_node("n1") == 0


async def test_stopping_takes_less_than_three_seconds_and_leaves_nothing() -> None:
    async with running() as cluster:
        pids = cluster.pids()
        own = [pid for pid in pids if not is_starter(pid)]
        assert len(own) == 6, "coordinator and two nodes, each with one child"
        handles = [processes.ProcessHandle(pid) for pid in pids]
        began = trio.current_time()
    assert trio.current_time() - began < 3
    assert all(handle.exited() for handle in handles)


@asynccontextmanager
async def greenroom_up(
    *options: str, before: Sequence[str] = ()
) -> AsyncIterator[tuple[trio.Process, dict[str, object]]]:
    """Run the command, behind what stands `before` it, and yield it with its ready line."""
    command = [*before, sys.executable, "-m", "greenroom_cluster", "up", "--listen", ANY, "--json", *options]
    environment = {**os.environ, "GREENROOM_NODES": "2", "GREENROOM_ACTORS": "1", "GREENROOM_SHARDS": "8"}
    async with trio.open_nursery() as nursery:
        process = await nursery.start(
            partial(
                trio.run_process, command, stdin=None, stdout=subprocess.PIPE, check=False, env=environment
            )
        )
        try:
            with trio.fail_after(60):
                line = b""
                while not line.endswith(b"\n"):
                    chunk = await process.stdout.receive_some()
                    assert chunk, "greenroom up ended before it was ready"
                    line += chunk
            yield process, msgspec.json.decode(line)
        finally:
            process.kill()


@pytest.mark.skipif(
    os.geteuid() != 0 or not (shutil.which("unshare") and shutil.which("setpriv")),
    reason="only root may mount another /proc, with unshare and setpriv of util-linux",
)
async def test_a_cluster_starts_where_proc_hides_its_processes() -> None:
    """As under `ProtectProc=invisible` of our units: a process of ours is seen by itself alone."""
    hide = 'mount -t proc -o hidepid=2 proc /proc && exec setpriv --regid=65534 --clear-groups "$@"'
    bare = ("--inh-caps=-all", "--bounding-set=-all")  # root with capabilities sees everything
    command = ("unshare", "--mount", "--propagation=private", "sh", "-c", hide, "sh", *bare)
    async with greenroom_up("--log-level=warning", before=command) as (process, ready):
        assert str(ready["url"]).startswith("greenroom://127.0.0.1:")
        process.send_signal(signal.SIGINT)
        await process.wait()


async def test_killing_up_leaves_no_process_after_two_seconds() -> None:
    async with greenroom_up() as (process, ready):
        assert str(ready["url"]).startswith("greenroom://127.0.0.1:")
        pids = processes.descendants_of(process.pid)
        assert len([pid for pid in pids if not is_starter(pid)]) == 6
        handles = [processes.ProcessHandle(pid) for pid in pids]
        process.kill()
        with trio.fail_after(2):
            for handle in handles:
                await handle.wait_exited()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_up_stops_cleanly_on_a_signal(number: signal.Signals) -> None:
    async with greenroom_up() as (process, _):
        handles = [processes.ProcessHandle(pid) for pid in processes.descendants_of(process.pid)]
        process.send_signal(number)
        with trio.fail_after(3):
            assert await process.wait() == 0
        assert all(handle.exited() for handle in handles)


HOSTILE = [
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"",
    b"\x00",
    b"\x00\x00\x00\x05\x91",
    b"\xff\xff\xff\xff" + bytes(200),
    b"\x04\x00\x00\x00\xc1\xc1\xc1\xc1",
    b"\x00\x00\x00\x04\xc1\xc1\xc1\xc1",
    b"\x09\x00\x00\x00\x92\xa3abc\xa3def",
    os.urandom(4096),
]


@as_root
async def test_hostile_bytes_on_every_port_of_the_tree_end_no_process() -> None:
    async with running() as cluster:
        pids = cluster.pids()
        handles = [processes.ProcessHandle(pid) for pid in pids]
        ports = listening_ports(pids)
        assert len(ports) == 1 + 2 + 2 + 3, "coordinator, nodes, actors, and HTTP of all but the actors"

        async def attack(port: int, data: bytes) -> None:
            with trio.fail_after(15), suppress(trio.BrokenResourceError, OSError):
                stream = await trio.open_tcp_stream("127.0.0.1", port)
                async with stream:
                    await stream.send_all(data)
                    stream.socket.shutdown(socket.SHUT_WR)
                    while await stream.receive_some():
                        pass

        for _ in range(3):
            async with trio.open_nursery() as nursery:
                for port in ports:
                    for data in HOSTILE:
                        nursery.start_soon(attack, port, data)
        assert not any(handle.exited() for handle in handles)
        assert (await cluster.wait_healthy()).healthy


@as_root
async def test_members_have_their_settings_from_no_place_that_others_read() -> None:
    """Neither arguments, nor a standard input that their own processes inherit."""
    async with running() as cluster:
        for pid in (cluster.coordinator_pid(), cluster.node_pid("n1"), cluster.node_pid("n2")):
            assert processes.command_line(pid)[1:3] == ["-m", "greenroom_cluster.runtime.member"]
            assert len(processes.command_line(pid)) == 4
            for each in (pid, *processes.descendants_of(pid)):
                assert os.readlink(f"/proc/{each}/fd/0") == os.devnull  # noqa: PTH115
