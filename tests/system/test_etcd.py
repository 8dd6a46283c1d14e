"""Two coordinators on a real etcd: one leads, and nobody who uses the cluster notices who."""

import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

import greenroom
from greenroom.errors import UnavailableError
from greenroom.loopback_secrets import LoopbackSecrets
from greenroom_cluster.cluster_status import ClusterStatus
from greenroom_cluster.inspection import inspect_cluster
from greenroom_cluster.runtime.ports import free_port
from greenroom_cluster.runtime.processes import ProcessHandle
from simulations.checks.linearizability import assert_explained
from tests.cluster.etcd.stage import Members, needs_etcd
from tests.system.load import open_load
from tests.system.stage import session
from tests.system.test_mistakes import CLUSTER, Command, Host

pytestmark = [pytest.mark.system, pytest.mark.trio, pytest.mark.timeout(600), needs_etcd]

NODES = ("n1", "n2", "n3")


class OnEtcd:
    """Three nodes and two coordinators, whose map is in etcd."""

    def __init__(self, host: Host, members: Members) -> None:
        self._host = host
        self._members = members
        self._listen = {name: f"127.0.0.1:{free_port()}" for name in ("c1", "c2")}
        self.coordinators: dict[str, Command] = {}
        self.nodes: dict[str, Command] = {}
        self.addresses = [f"127.0.0.1:{free_port()}" for _ in NODES]

    @property
    def url(self) -> str:
        return f"greenroom://{','.join(self.addresses)}/{CLUSTER}?deadline_seconds=10"

    async def start_coordinator(self, name: str, prefix: str = "") -> None:
        store = "etcd://" + ",".join(url.removeprefix("http://") for url in self._members.urls) + prefix
        options = ("--store", store, "--cluster", CLUSTER, "--shards", "4")
        self.coordinators[name] = await self._host.start(
            "coordinator", "--listen", self._listen[name], *options
        )

    async def start(self) -> None:
        for name in self._listen:
            await self.start_coordinator(name)
        await self.start_nodes()
        await self.until_whole()

    async def start_nodes(self) -> None:
        where = ",".join(self._listen.values())
        for name, address in zip(NODES, self.addresses, strict=True):
            options = ("--actors", "1", "--cluster", CLUSTER, "--coordinator", where)
            self.nodes[name] = await self._host.start("node", "--name", name, "--listen", address, *options)

    async def until_whole(self, version: int = 0) -> ClusterStatus:
        """Wait until all shards are whole in a map of that version or later; return how the cluster is."""
        with trio.fail_after(90):
            while True:
                try:
                    keys = LoopbackSecrets(CLUSTER)
                    found = await inspect_cluster(self.addresses, CLUSTER, credentials=keys)
                    if found.healthy and found.nodes_up == len(NODES) and found.version >= version:
                        return found
                except UnavailableError:
                    pass
                await trio.sleep(0.05)

    def address_of(self, name: str) -> str:
        return self._listen[name]

    def leader(self) -> str:
        """Who has said last that it leads, of those that run."""
        last = {name: each.logged("coordinator_leads") for name, each in self.coordinators.items()}
        return max((lines[-1]["timestamp"], name) for name, lines in last.items() if lines)[1]

    def child(self, name: str) -> ProcessHandle:
        """The process in which a coordinator runs, below its supervisor."""
        return ProcessHandle(self.coordinators[name].logged("process_ready")[-1]["pid"])

    def terms(self) -> int:
        """How often a coordinator that runs has begun to lead."""
        return sum(len(each.logged("coordinator_leads")) for each in self.coordinators.values())

    def resigned(self, name: str) -> bool:
        return bool(self.coordinators[name].logged("coordinator_resigns"))


async def until(condition: Callable[[], bool], seconds: float) -> None:
    """Wait until it holds."""
    with trio.fail_after(seconds):
        while not condition():
            await trio.lowlevel.checkpoint()


@asynccontextmanager
async def on_etcd(folder: Path) -> AsyncIterator[tuple[OnEtcd, Members]]:
    (where := folder / "etcd").mkdir()
    members = Members(where)
    members.start_all()
    try:
        await members.until_healthy()
        async with trio.open_nursery() as nursery:
            cluster = OnEtcd(Host(nursery, folder), members)
            await cluster.start()
            yield cluster, members
            for command in (*cluster.nodes.values(), *cluster.coordinators.values()):
                command.process.kill()
            nursery.cancel_scope.cancel()
    finally:
        members.kill_all()


async def test_coordinators_and_etcd_come_and_go_without_an_error_at_a_caller(tmp_path: Path) -> None:
    (load_folder := tmp_path / "load").mkdir()
    async with (
        on_etcd(tmp_path) as (cluster, members),
        open_load(cluster.url, load_folder, workers=2, seed=3) as load,
    ):
        # Killed, with its supervisor: etcd ends its lease, and the other one leads.
        first = cluster.leader()
        cluster.coordinators[first].process.kill()
        cluster.child(first).signal(signal.SIGKILL)
        await until(lambda: cluster.leader() != first, 20)
        # It decides: an actor that ends is replaced.
        before = (await cluster.until_whole()).version
        await cluster.start_coordinator(first)
        status = await cluster.until_whole()
        ProcessHandle(status.actors[0].pid).signal(signal.SIGKILL)
        await cluster.until_whole(before + 1)
        # All of etcd stops: everything serves, changes wait.
        leader = cluster.leader()
        members.kill()
        terms = cluster.terms()
        await until(lambda: cluster.resigned(leader), 30)
        async with greenroom.store_from_url(cluster.url) as store:
            for _ in range(100):
                new = session(greenroom.new_session_id())
                await store.create(new)
                assert await store.get(new.session_id) is not None
        members.start()
        await members.until_healthy()
        await until(lambda: cluster.terms() > terms, 60)
        await cluster.until_whole()
    assert load.errors == Counter()
    assert load.acknowledged_writes > 100
    assert_explained(load.history)


async def test_a_leader_that_hangs_is_left_before_its_supervisor_ends_it(tmp_path: Path) -> None:
    """Nodes and actors go to the one that leads by then, and it decides."""
    async with on_etcd(tmp_path) as (cluster, _):
        first = cluster.leader()
        cluster.child(first).signal(signal.SIGSTOP)
        await until(lambda: cluster.leader() != first, 20)
        await until(lambda: all(each.logged("link_moved") for each in cluster.nodes.values()), 20)
        status = await cluster.until_whole()
        ProcessHandle(status.actors[0].pid).signal(signal.SIGKILL)
        await cluster.until_whole(status.version + 1)
        ended = await cluster.coordinators[first].until_logged("process_hangs")
        moved = [each.logged("link_moved")[0]["timestamp"] for each in cluster.nodes.values()]
        assert max(moved) < ended["timestamp"]


async def test_coordinator_with_another_prefix_draws_no_node_away(tmp_path: Path) -> None:
    """It leads a map of its own, in which nobody is; nodes went to it, and none came back."""
    async with on_etcd(tmp_path) as (cluster, _):
        leader = cluster.leader()
        (other,) = {*cluster.coordinators} - {leader}
        cluster.coordinators[other].process.terminate()
        await cluster.coordinators[other].process.wait()
        await cluster.start_coordinator(other, "/another")
        nodes = cluster.nodes.values()
        await until(lambda: all(node.logged("coordinator_refused") for node in nodes), 30)
        told = [line for node in nodes for line in node.logged("coordinator_refused")]
        assert {(line["code"], line["address"]) for line in told} == {
            ("older-map", cluster.address_of(other))
        }
        found = await cluster.until_whole()
        for actor in found.actors:
            ProcessHandle(actor.pid).signal(signal.SIGKILL)
            found = await cluster.until_whole(found.version + 1)
        assert not cluster.resigned(leader)
        # Each process that has a link to the coordinators has gone there once.
        assert max(len(node.logged("link_moved")) for node in nodes) <= 3
