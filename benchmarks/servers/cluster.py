"""A Greenroom cluster: a coordinator and nodes, each started by its own command."""

import tempfile
from pathlib import Path

import trio

from benchmarks.processes import Process, Server, json_line, kill, python_module
from benchmarks.servers.ports import until, until_listening
from greenroom import UnavailableError, UsageError
from greenroom_cluster.inspection import ClusterStatus, inspect_cluster
from greenroom_cluster.runtime.ports import check_port, free_port

CLUSTER = "benchmark"
CLIENT_HOST = "127.0.0.1"
PROXY_HOST = "127.0.0.2"
_REPLICAS = 2


class ClusterServer(Server):
    """`nodes` nodes of `actors` actors; every shard has two replicas, or one if there is one node.

    `apart` puts a proxy in front of every actor and the coordinator, so that links can be cut.
    """

    def __init__(self, nodes: int = 2, actors: int = 1, *, apart: bool = False) -> None:
        super().__init__()
        self._count = nodes
        self._actors = actors
        self._apart = apart
        self._nodes: dict[int, Process] = {}

    def start(self) -> None:
        """Start all and wait until every shard has its replicas."""
        self._directory = Path(
            self.stack.enter_context(tempfile.TemporaryDirectory(prefix="greenroom-bench-"))
        )
        self._coordinator_port = free_port()
        self._node_ports = [free_port() for _ in range(self._count)]
        # Actors of a node have consecutive ports, and their nodes' must not collide.
        self._actor_ports = [_free_ports(self._actors) for _ in range(self._count)]
        if self._apart:
            self._start_proxy()
        replicas = min(_REPLICAS, self._count)
        self._coordinator = self.run(
            [
                *python_module("greenroom_cluster"),
                "coordinator",
                f"--listen={CLIENT_HOST}:{self._coordinator_port}",
                f"--data-dir={self._directory}",
                f"--cluster={CLUSTER}",
                f"--replicas={replicas}",
                "--log-level=error",
            ]
        )
        until_listening(CLIENT_HOST, self._coordinator_port)
        for index in range(self._count):
            self.start_node(index)
        self.until_whole()
        seeds = ",".join(f"{CLIENT_HOST}:{port}" for port in self._node_ports)
        self.addresses["cluster"] = f"greenroom://{seeds}/{CLUSTER}"

    def processes(self) -> list[Process]:
        """Return the coordinator and the nodes."""
        return [self._coordinator, *self._nodes.values()]

    # --- nodes -------------------------------------------------------------------------------------------

    def start_node(self, index: int) -> None:
        """Start a node, for the first time or again."""
        # In front of the first node's coordinator is the proxy, so that it can be cut off from that too.
        host = PROXY_HOST if self._apart and index == 0 else CLIENT_HOST
        command = [
            *python_module("greenroom_cluster"),
            "node",
            f"--name=n{index + 1}",
            f"--listen={CLIENT_HOST}:{self._node_ports[index]}",
            f"--coordinator={host}:{self._coordinator_port}",
            f"--actors={self._actors}",
            f"--actor-port-base={self._actor_ports[index][0]}",
            f"--cluster={CLUSTER}",
            "--log-level=error",
        ]
        if self._apart:
            command.append(f"--advertise={PROXY_HOST}:{self._node_ports[index]}")
        self._nodes[index] = self.run(command)

    def kill_node(self, index: int) -> None:
        """SIGKILL a node with its actors, as if its host had lost its power."""
        self._nodes.pop(index).kill_tree()

    def kill_actor(self, index: int) -> None:
        """SIGKILL the first actor of a node; its supervisor sees it."""
        slot = f"n{index + 1}/0"
        pid = next(actor.pid for actor in self.status().actors if actor.slot == slot and actor.state == "up")
        kill([pid])

    def cut_off(self, index: int, *, from_coordinator: bool) -> None:
        """Silence all links between a node's actors and the others, and the coordinator if told to."""
        status = self.status()
        own = [a.incarnation for a in status.actors if a.slot.startswith(f"n{index + 1}/")]
        cut = [f"{port}/peer:" for port in self._actor_ports[index]]
        cut += [
            f"{port}/peer:{incarnation}"
            for other, ports in enumerate(self._actor_ports)
            if other != index
            for port in ports
            for incarnation in own
        ]
        if from_coordinator:
            cut.append(f"{self._coordinator_port}/")
        self._cut(cut)

    def heal(self) -> None:
        """Let everything through again."""
        self._cut([])

    def _cut(self, labels: list[str]) -> None:
        self._proxy.ask(json_line({"cut": labels}))
        self._proxy.answer()

    def _start_proxy(self) -> None:
        ports = [
            self._coordinator_port,
            *self._node_ports,
            *(port for ports in self._actor_ports for port in ports),
        ]
        self._proxy = self.run(python_module("benchmarks.servers.proxy"), obeys=True)
        routes = {"listen_host": PROXY_HOST, "target_host": CLIENT_HOST, "ports": ports, "by_hello": True}
        self._proxy.ask(json_line(routes))
        self._proxy.answer()

    # --- state -------------------------------------------------------------------------------------------

    def status(self) -> ClusterStatus:
        """Return the state of the cluster. Raises UnavailableError if no node answers."""
        seeds = [f"{CLIENT_HOST}:{self._node_ports[index]}" for index in self._nodes]
        return trio.run(inspect_cluster, seeds, CLUSTER)

    def stored(self) -> int:
        """Return how many sessions it has."""
        return sum(shard.sessions for shard in self.status().shards)

    def is_whole(self) -> bool:
        """Whether every shard has all its replicas."""
        try:
            status = self.status()
        except UnavailableError:
            return False
        return status.healthy and len(status.actors) >= len(self._nodes) * self._actors

    def is_settled(self) -> bool:
        """Whether every shard is served."""
        try:
            return not self.status().states()["unavailable"]
        except UnavailableError:
            return False

    def until_whole(self, seconds: float = 600.0) -> None:
        """Wait for that."""
        until(self.is_whole, "every shard has all its replicas", seconds)


def _free_ports(count: int) -> list[int]:
    """Return consecutive ports that are free now."""
    while True:
        first = free_port()
        try:
            for port in range(first + 1, first + count):
                check_port(CLIENT_HOST, port)
        except UsageError:
            continue
        return list(range(first, first + count))
