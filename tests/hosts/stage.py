"""A cluster on hosts: three members of etcd, two coordinators, a node a host, and TLS between them."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import trio

from greenroom.errors import UnavailableError
from greenroom.tls.credentials import Credentials
from greenroom_cluster.cluster_status import ClusterStatus
from greenroom_cluster.inspection import inspect_cluster
from greenroom_cluster.runtime.processes import ProcessHandle
from greenroom_cluster.shard_states import FULL, SAME_ZONE
from tests.authority import Authority, Holder
from tests.cluster.etcd.stage import Members, Place
from tests.hosts.network import Namespace, Network
from tests.system.stage import tree

CLUSTER = "shop"
SHARDS = 16
APPS = "apps"
NODES = ("h1", "h2", "h3", "h4")
"""The hosts with a node from the beginning, which is called like its host."""
SPARE = "h5"
COORDINATORS = ("h1", "h2")
ETCD = ("h3", "h4", "h5")
"""The hosts with a member of etcd, at their second address."""
ZONES = {"h1": "a", "h2": "b", "h3": "a", "h4": "b", "h5": "c"}
"""Of each host; the loss of any leaves a coordinator and most of etcd."""
WHOLE_SECONDS = 60.0
SETTLED_SECONDS = 1.0
"""Until links are up everywhere, of which nothing tells."""
LOOK_SECONDS = 0.05
"""The pause between two looks: whoever looks all the time takes what the callers are to have."""


class Program:
    """A `greenroom` command on a host. It logs into a file, for it outlives the loop of one test."""

    def __init__(self, where: Namespace, log: Path, *arguments: str) -> None:
        self._log = log
        command = [sys.executable, "-m", "greenroom_cluster", *arguments, "--log-format", "json"]
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [*where.bound, *command], stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Return its log lines of that event."""
        lines = self._log.read_bytes().split(b"\n")
        found = [msgspec.json.decode(line) for line in lines if line[:1] == b"{" and line[-1:] == b"}"]
        return [line for line in found if line["event"] == event]

    @property
    def child(self) -> ProcessHandle:
        """The newest process below its supervisor."""
        return tree(self.process.pid)[-1]

    def kill(self) -> None:
        """SIGKILL it and all below it."""
        for each in tree(self.process.pid):
            each.kill()
            each.close()
        self.process.wait()


class Hosts:
    """Five hosts and one for apps, with all that runs on them."""

    def __init__(self, network: Network, folder: Path) -> None:
        self.network = network
        self._folder = folder
        self._authority = Authority()
        self._starts = 0
        self.members = Members(folder, places={name: self._place(name) for name in ETCD})
        self.coordinators: dict[str, Program] = {}
        self.nodes: dict[str, Program] = {}
        self._operator = Credentials(self._issued("operator", "ops").files(folder), print)
        files = self._issued("client", "web").files(folder)
        keys = f"tls_cert={files.cert}&tls_key={files.key}&tls_ca={files.ca}"
        nodes = ",".join(self.node_address(name) for name in NODES)
        self.url = f"greenrooms://{nodes}/{CLUSTER}?{keys}&deadline_seconds=15"
        """What apps are told."""

    def _place(self, name: str) -> Place:
        _, address = self.network.addresses(name)
        return Place(self.network.host(name).bound, f"http://{address}:2379", f"http://{address}:2380")

    def _issued(self, role: str, name: str) -> Holder:
        return self._authority.issue(f"greenroom://{CLUSTER}/{role}/{name}")

    def node_address(self, name: str) -> str:
        return f"{self.network.address(name)}:7400"

    # --- what is started ---------------------------------------------------------------------------------

    def _start(self, host: str, command: str, *options: str) -> Program:
        self._starts += 1
        name = f"{command}-{host}-{self._starts}"
        files = self._issued(command, host).files(self._folder, name, flags=True)
        keys = ("--tls-cert", files.cert, "--tls-key", files.key, "--tls-ca", files.ca)
        log = self._folder / f"{name}.log"
        return Program(self.network.host(host), log, command, "--cluster", CLUSTER, *keys, *options)

    def start_coordinator(self, host: str) -> None:
        store = "etcd://" + ",".join(url.removeprefix("http://") for url in self.members.urls)
        listen = f"{self.network.address(host)}:7300"
        self.coordinators[host] = self._start(
            host, "coordinator", "--listen", listen, "--store", store, "--shards", str(SHARDS)
        )

    def start_node(self, host: str) -> None:
        coordinators = ",".join(f"{self.network.address(each)}:7300" for each in COORDINATORS)
        where = ("--listen", self.node_address(host), "--zone", ZONES[host], "--coordinator", coordinators)
        self.nodes[host] = self._start(host, "node", "--name", host, "--actors", "1", *where)

    async def start(self) -> None:
        self.members.start_all()
        await self.until_etcd_serves()
        for host in COORDINATORS:
            self.start_coordinator(host)
        for host in NODES:
            self.start_node(host)
        for host in COORDINATORS:
            await self.until_stands_by(host)
        await self.until_whole()

    def lose(self, host: str) -> None:
        """Have a host lose its power: nothing of it is seen any more, not even that its processes end."""
        self.network.cut(host)
        for programs in (self.nodes, self.coordinators):
            if host in programs:
                programs.pop(host).kill()
        if host in self.members.running:
            self.members.kill(host)

    async def bring_back(self, *hosts: str) -> None:
        """Start hosts that were lost, with all that was on them; return when all is whole."""
        for host in hosts:
            self.network.mend(host)
            if host in ETCD:
                self.members.start(host)
            if host in COORDINATORS:
                self.start_coordinator(host)
            self.start_node(host)
        await self.until_etcd_serves()
        for host in COORDINATORS:
            await self.until_stands_by(host)
        await self.until_whole()

    def close(self) -> None:
        """End everything."""
        for program in (*self.nodes.values(), *self.coordinators.values()):
            program.kill()
        self.members.kill_all()

    # --- what is cut -------------------------------------------------------------------------------------

    @contextmanager
    def cut_off(self, host: str) -> Iterator[None]:
        """Cut a host off from everything meanwhile."""
        self.network.cut(host)
        try:
            yield
        finally:
            self.network.mend(host)

    @contextmanager
    def lost(self, *ways: tuple[str, str]) -> Iterator[None]:
        """Lose all that the first host of each pair sends to the second meanwhile."""
        with self._losing([(sender, self.network.addresses(receiver)) for sender, receiver in ways]):
            yield

    @contextmanager
    def etcd_out_of_reach(self) -> Iterator[None]:
        """Lose all between the coordinators and etcd meanwhile; nodes do not notice."""
        pairs = [(one, other) for one in COORDINATORS for other in ETCD]
        ways = [*pairs, *((other, one) for one, other in pairs)]
        with self._losing([(sender, self.network.addresses(receiver)[1:]) for sender, receiver in ways]):
            yield

    @contextmanager
    def cut_off_but_for_etcd(self, host: str) -> Iterator[None]:
        """Cut a host off from everything but the members of etcd meanwhile."""
        pairs = [(host, other) for other in (*NODES, SPARE, APPS) if other != host]
        ways = [*pairs, *((other, one) for one, other in pairs)]
        with self._losing([(sender, self.network.addresses(receiver)[:1]) for sender, receiver in ways]):
            yield

    @contextmanager
    def _losing(self, ways: Sequence[tuple[str, tuple[str, ...]]]) -> Iterator[None]:
        """Lose all that each host sends to these addresses meanwhile."""
        for sender, addresses in ways:
            self.network.lose(sender, *addresses)
        try:
            yield
        finally:
            for sender, addresses in ways:
                self.network.find(sender, *addresses)

    @contextmanager
    def etcd_paused(self) -> Iterator[None]:
        """Keep all members of etcd from running meanwhile."""
        self.members.pause_all()
        try:
            yield
        finally:
            self.members.wake_all()

    @contextmanager
    def etcd_killed(self) -> Iterator[None]:
        """Kill all members of etcd, and start them again afterwards."""
        self.members.kill_all()
        yield
        self.members.start_all()

    # --- what is seen ------------------------------------------------------------------------------------

    def leader(self) -> str:
        """Return the host of the coordinator that leads, of those that run; empty: none does."""
        return max(self._leading(), default=("", ""))[1]

    def _leading(self) -> Iterator[tuple[str, str]]:
        for host, program in self.coordinators.items():
            leads = [line["timestamp"] for line in program.logged("coordinator_leads")]
            resigns = [line["timestamp"] for line in program.logged("coordinator_resigns")]
            if leads and leads[-1] > max(resigns, default=""):
                yield leads[-1], host

    def standby(self) -> str:
        """Return the host of the other coordinator."""
        return next(host for host in COORDINATORS if host != self.leader())

    async def until_stands_by(self, host: str) -> None:
        """Wait until a coordinator that was started takes part."""
        await until(lambda: bool(self.coordinators[host].logged("coordinator_stands_by")), 60)

    async def until_leader(self, *former: str, seconds: float = 30.0) -> str:
        """Wait until a coordinator leads, on another host than these; return its host."""
        await until(lambda: self.leader() not in ("", *former), seconds)
        return self.leader()

    async def until_resigned(self, host: str) -> None:
        """Wait until a coordinator that led knows that it does no longer, or was ended as hung."""
        program = self.coordinators[host]

        def resigned() -> bool:
            leads, resigns = (program.logged(f"coordinator_{each}") for each in ("leads", "resigns"))
            return len(resigns) == len(leads) or bool(program.logged("process_hangs"))

        await until(resigned, 30)

    async def until_settled(self) -> None:
        """Wait until nothing of what happened before goes on: etcd serves everywhere, and somebody leads."""
        await self.until_etcd_serves()
        await self.until_leader()
        await self.until_whole(crowded=True)
        await trio.sleep(SETTLED_SECONDS)

    async def until_etcd_serves(self) -> None:
        for host in self.members.running:
            await self.members.until_healthy(host)

    async def lead_etcd_from(self, host: str) -> None:
        """Have the member on that host lead."""
        with trio.fail_after(30):
            while await self.members.until_led() != host:
                await self.members.hand_over(host)

    async def until_whole(self, *without: str, version: int = 0, crowded: bool = False) -> ClusterStatus:
        """Wait until all shards are whole, and all nodes up but those of some hosts; return what is then.

        `crowded`: replicas may be within one zone.
        """
        whole = (FULL, SAME_ZONE) if crowded else (FULL,)
        there = [host for host in self.nodes if host not in without]
        addresses = [self.node_address(host) for host in there]
        with trio.fail_after(WHOLE_SECONDS):
            while True:
                with suppress(UnavailableError):
                    found = await inspect_cluster(addresses, CLUSTER, credentials=self._operator)
                    up = {node.name for node in found.nodes if node.state == "up" and node.actors}
                    served = all(shard.state in whole for shard in found.shards)
                    if served and up == set(there) and found.version >= version:
                        return found
                await trio.sleep(LOOK_SECONDS)


async def until(condition: Callable[[], bool], seconds: float) -> None:
    """Wait until it holds."""
    with trio.fail_after(seconds):
        while True:
            if condition():
                return
            await trio.sleep(LOOK_SECONDS)


@contextmanager
def stopped(*handles: ProcessHandle) -> Iterator[None]:
    """Keep processes from running meanwhile (SIGSTOP, SIGCONT)."""
    for handle in handles:
        handle.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for handle in handles:
            with suppress(ProcessLookupError):
                handle.signal(signal.SIGCONT)
