"""`greenroom up`, `demo` and `move-map` with a real etcd, as an operator uses them."""

import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from greenroom.loopback_secrets import LoopbackSecrets
from greenroom_cluster.cluster_status import ClusterStatus
from greenroom_cluster.inspection import inspect_cluster
from greenroom_cluster.runtime.ports import free_port
from greenroom_cluster.runtime.processes import ProcessHandle, descendants_of, is_alive, start_ticks
from simulations.checks.linearizability import assert_explained
from tests.cluster.etcd.stage import Members, needs_etcd
from tests.system.load import open_load
from tests.system.test_etcd import OnEtcd, until
from tests.system.test_mistakes import CLUSTER, Host

pytestmark = [pytest.mark.system, pytest.mark.trio, pytest.mark.timeout(600), needs_etcd]

GREENROOM = (sys.executable, "-m", "greenroom_cluster")


@asynccontextmanager
async def one_member(folder: Path) -> AsyncIterator[Members]:
    (where := folder / "etcd").mkdir()
    members = Members(where)
    members.start_all()
    try:
        await members.until_healthy()
        yield members
    finally:
        members.kill_all()


def store_of(members: Members) -> str:
    return "etcd://" + ",".join(url.removeprefix("http://") for url in members.urls)


async def done(*arguments: str, seconds: float = 60.0) -> subprocess.CompletedProcess[bytes]:
    """Run a command to its end."""
    with trio.fail_after(seconds):
        return await trio.run_process(
            (*GREENROOM, *arguments), capture_stdout=True, capture_stderr=True, check=False
        )


class Up:
    """A `greenroom up --json` that is ready."""

    def __init__(self, process: trio.Process, ready: dict[str, Any]) -> None:
        self.process = process
        self.ready = ready
        self.addresses: list[str] = ready["seeds"]
        pids = [process.pid, *descendants_of(process.pid)]
        self.family = {pid: ticks for pid in pids if (ticks := start_ticks(pid)) is not None}

    async def interrupted(self) -> int:
        """Press Ctrl-C; return the exit status once nothing of it is left."""
        self.process.send_signal(signal.SIGINT)
        with trio.fail_after(20):
            status = await self.process.wait()
        left = {pid: ticks for pid, ticks in self.family.items() if pid != self.process.pid}
        await until(lambda: not any(is_alive(pid, ticks) for pid, ticks in left.items()), 10)
        return status


async def up(nursery: trio.Nursery, *options: str) -> Up:
    command = (*GREENROOM, "up", "--json", "--listen", "127.0.0.1:0", "--actors", "1", "--shards", "4")
    run = partial(trio.run_process, (*command, *options), stdout=subprocess.PIPE, check=False)
    process: trio.Process = await nursery.start(run)
    line = b""
    assert process.stdout is not None
    with trio.fail_after(90):
        while not line.endswith(b"\n"):
            part = await process.stdout.receive_some()
            assert part, f"it has ended with {process.returncode}"
            line += part
    return Up(process, json.loads(line))


async def test_one_command_runs_a_cluster_with_two_coordinators(tmp_path: Path) -> None:
    async with one_member(tmp_path) as members, trio.open_nursery() as nursery:
        store = ("--store", store_of(members))
        first = await up(nursery, "--coordinators", "2", *store)
        coordinators = first.ready["coordinator"].split(",")
        assert len(coordinators) == 2
        where = ("--connect", first.addresses[0], "--json")
        status = json.loads((await done("status", *where)).stdout)["coordinator"]
        assert {status["address"], *status["others"]} == set(coordinators)
        assert (status["state"], status["etcd_away_seconds"]) == ("up", 0.0)
        # Another one of this name would decide about the same map.
        other = await done("up", *store, "--listen", "127.0.0.1:0")
        assert other.returncode == 2
        assert b"leads cluster 'greenroom' in this etcd already" in other.stderr
        # Etcd goes: all serve, and health says what is wrong and since when.
        members.kill()
        health: dict[str, Any] = {}
        with trio.fail_after(30):
            while not health.get("coordinator", {}).get("etcd_away_seconds"):
                found = await done("health", *where)
                assert found.returncode == 0
                health = json.loads(found.stdout)
        assert "etcd, which keeps the map, did not answer" in health["coordinator"]["told"]
        assert health["healthy"]
        members.start()
        await members.until_healthy()
        with trio.fail_after(60):
            while json.loads((await done("health", *where)).stdout)["coordinator"]["state"] != "up":
                pass
        assert await first.interrupted() == 0
        # The map is there still, and another start goes on from it, unless it wants another cluster.
        told = await done("coordinator", *store, "--shards", "8", "--listen", f"127.0.0.1:{free_port()}")
        assert told.returncode == 2
        assert b"--shards (GREENROOM_SHARDS) is 8" in told.stderr
        again = await up(nursery, "--coordinators", "2", *store)
        assert await again.interrupted() == 0


async def test_an_etcd_that_is_not_there_is_told_before_anything_starts() -> None:
    begun = trio.current_time()
    for command in (("up", "--coordinators", "2", "--store"), ("demo", "--store")):
        told = await done(*command, f"etcd://127.0.0.1:{free_port()}")
        assert told.returncode == (1 if command[0] == "up" else 2)
        assert b"apt-get install etcd-server" in b" ".join(told.stderr.split())
    assert trio.current_time() - begun < 30


async def test_several_coordinators_need_a_store_that_they_share() -> None:
    told = await done("up", "--coordinators", "2")
    assert told.returncode == 2
    assert b"--store" in told.stderr


async def until_led(cluster: OnEtcd) -> ClusterStatus:
    """Wait until every actor is connected to a coordinator, and say how the cluster is."""
    with trio.fail_after(90):
        while True:
            keys = LoopbackSecrets(CLUSTER)
            found = await inspect_cluster(cluster.addresses, CLUSTER, credentials=keys)
            if found.coordinator.state == "up" and found.healthy:
                return found
            await trio.lowlevel.checkpoint()


async def test_a_running_cluster_moves_from_a_file_to_etcd(tmp_path: Path) -> None:
    """Its coordinator is stopped, its map moved, and coordinators on etcd go on with it, under load."""
    (data := tmp_path / "data").mkdir()
    (load_folder := tmp_path / "load").mkdir()
    async with one_member(tmp_path) as members, trio.open_nursery() as nursery:
        cluster = OnEtcd(Host(nursery, tmp_path), members)
        listen = cluster._listen["c1"]
        on_file = ("--listen", listen, "--data-dir", str(data), "--cluster", CLUSTER, "--shards", "4")
        host = Host(nursery, data)
        coordinator = await host.start("coordinator", *on_file)
        await cluster.start_nodes()
        before = await cluster.until_whole()
        async with open_load(cluster.url, load_folder, workers=2, seed=5) as load:
            coordinator.process.send_signal(signal.SIGTERM)
            assert await coordinator.exit() == 0
            # By mistake: it would begin another cluster.
            hasty = await host.start("coordinator", *on_file, "--store", store_of(members))
            assert await hasty.exit() == 2
            assert "greenroom move-map" in hasty.lines[0]
            moved = await done("move-map", "--data-dir", str(data), "--store", store_of(members))
            assert moved.returncode == 0, moved.stderr
            assert b"of cluster shop is in etcd" in moved.stdout
            back = await host.start("coordinator", *on_file)
            assert await back.exit() == 2
            assert "was moved to etcd://" in back.lines[0]
            for name in ("c1", "c2"):
                await cluster.start_coordinator(name)
            status = await until_led(cluster)
            # The map goes on: an actor that ends is replaced.
            ProcessHandle(status.actors[0].pid).signal(signal.SIGKILL)
            after = await cluster.until_whole(status.version + 1)
            # So it does with the other coordinator.
            leader = cluster.leader()
            cluster.coordinators[leader].process.send_signal(signal.SIGTERM)
            assert await cluster.coordinators[leader].exit() == 0
            status = await until_led(cluster)
            ProcessHandle(status.actors[-1].pid).signal(signal.SIGKILL)
            last = await cluster.until_whole(after.version + 1)
        assert before.lineage == last.lineage
        assert load.errors == Counter()
        assert load.acknowledged_writes > 100
        assert_explained(load.history)
        for command in (*cluster.nodes.values(), *cluster.coordinators.values()):
            command.process.kill()
        nursery.cancel_scope.cancel()


async def test_the_demo_passes_on_etcd_and_leaves_nothing_there(tmp_path: Path) -> None:
    async with one_member(tmp_path) as members:
        options = ("--json", "--seconds", "8", "--browsers", "6", "--store", store_of(members))
        shown = await done("demo", *options, seconds=150)
        assert shown.returncode == 0, shown.stderr
        result = json.loads(shown.stdout.splitlines()[-1])
        assert 0 < result["new_leader_seconds"] < 15
        assert b"which leads" in shown.stderr
        kept = await members.post("/v3/kv/range", {"key": "AA==", "range_end": "AA=="})
        assert "kvs" not in kept.json()
