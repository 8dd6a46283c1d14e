"""A Greenroom cluster: a coordinator and nodes, each started by its own command."""

import shutil
import tempfile
import warnings
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import trio

from benchmarks.processes import (
    Process,
    Server,
    file_name,
    json_line,
    kill,
    locked_files,
    occupied_bytes,
    python_module,
)
from benchmarks.servers.certificates import Authority, Files
from benchmarks.servers.ports import until, until_listening
from greenroom import UnavailableError
from greenroom.loopback_secrets import LoopbackSecrets
from greenroom.tls.credentials import Credentials, TlsFiles
from greenroom_cluster.cluster_status import ActorStatus, ClusterStatus
from greenroom_cluster.config import Durability
from greenroom_cluster.inspection import inspect_actors, inspect_cluster
from greenroom_cluster.questions import fetch_map
from greenroom_cluster.runtime.ports import hold_port, reserved_port

CLUSTER = "benchmark"
CLIENT_HOST = "127.0.0.1"
PROXY_HOST = "127.0.0.2"
_REPLICAS = 2


class ClusterServer(Server):
    """`nodes` nodes of `actors` actors; every shard has two replicas, or one if there is one node.

    `apart` puts a proxy in front of every actor and the coordinator, so that links can be cut. Nobody proves
    a secret then: a proof counts for one address, so that nobody passes it on as the proxy does. With a
    `durability` the actors keep their sessions on disk; everything that is kept is below `directory`, or
    where temporary files are. With `tls` nothing but mutual TLS is spoken.
    """

    def __init__(
        self,
        nodes: int = 2,
        actors: int = 1,
        *,
        apart: bool = False,
        tls: bool = False,
        durability: Durability = "none",
        directory: Path | None = None,
    ) -> None:
        super().__init__()
        self._tls = tls
        self._files: dict[str, Files] = {}
        self._durability = durability
        self._parent = directory
        self._count = nodes
        self._actors = actors
        self._apart = apart
        self._nodes: dict[int, Process] = {}

    def start(self) -> None:
        """Start all and wait until every shard has its replicas."""
        self._directory = Path(
            self.stack.enter_context(tempfile.TemporaryDirectory(prefix="greenroom-bench-", dir=self._parent))
        )
        self._coordinator_port = self.port()
        self._node_ports = [self.port() for _ in range(self._count)]
        # Actors of a node have consecutive ports, and their nodes' must not collide.
        self._actor_ports = [self._consecutive_ports(self._actors) for _ in range(self._count)]
        if self._apart:
            self._start_proxy()
        if self._tls:
            self._issue(Authority(self._directory / "certificates", CLUSTER))
        self.start_all()
        self.until_whole()
        seeds = ",".join(f"{CLIENT_HOST}:{port}" for port in self._node_ports)
        self.addresses["cluster"] = f"{self._scheme()}://{seeds}/{CLUSTER}{self._query()}"

    def _consecutive_ports(self, count: int) -> list[int]:
        """Return as many ports in a row, which nobody else is given while this server runs."""
        while True:
            with ExitStack() as held:
                first = held.enter_context(reserved_port(CLIENT_HOST)).getsockname()[1]
                try:
                    for port in range(first + 1, first + count):
                        held.enter_context(hold_port(CLIENT_HOST, port))
                except OSError:
                    continue
                self.stack.enter_context(held.pop_all())
                return list(range(first, first + count))

    def processes(self) -> list[Process]:
        """Return the coordinator and the nodes."""
        return [self._coordinator, *self._nodes.values()]

    def start_all(self) -> None:
        """Start the coordinator and the nodes at once, for the first time or again."""
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
                *self._proof("coordinator"),
            ]
        )
        for index in range(self._count):
            self.start_node(index)
        until_listening(CLIENT_HOST, self._coordinator_port, self._coordinator)

    def kill_all(self) -> None:
        """SIGKILL every process at once."""
        kill(self.pids())
        for process in self.processes():
            process.kill_tree()
        self._nodes.clear()

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
            *self._proof(f"n{index + 1}"),
        ]
        if self._durability != "none":
            command += [f"--durability={self._durability}", f"--data-dir={self._node_directory(index)}"]
        if self._apart:
            command.append(f"--advertise={PROXY_HOST}:{self._node_ports[index]}")
        self._nodes[index] = self.run(command)

    # --- who belongs -------------------------------------------------------------------------------------

    def _issue(self, authority: Authority) -> None:
        names = [f"n{index + 1}" for index in range(self._count)]
        self._files = {name: authority.issue("node", name) for name in names}
        self._files |= {name: authority.issue(name, name) for name in ("coordinator", "client", "operator")}

    def _proof(self, name: str) -> list[str]:
        if self._tls:
            files = self._files[name]
            return [f"--tls-cert={files.cert}", f"--tls-key={files.key}", f"--tls-ca={files.ca}"]
        return ["--loopback-proof=off"] if self._apart else []

    def _scheme(self) -> str:
        return "greenrooms" if self._tls else "greenroom"

    def _query(self) -> str:
        if self._tls:
            files = self._files["client"]
            return f"?tls_cert={files.cert}&tls_key={files.key}&tls_ca={files.ca}"
        return "?loopback_proof=off" if self._apart else ""

    def _credentials(self) -> Credentials | LoopbackSecrets | None:
        if self._tls:
            files = self._files["operator"]
            return Credentials(
                TlsFiles(cert=str(files.cert), key=str(files.key), ca=str(files.ca)), warnings.warn
            )
        return None if self._apart else LoopbackSecrets(CLUSTER)

    def kill_node(self, index: int) -> None:
        """SIGKILL a node with its actors, as if its host had lost its power."""
        self._nodes.pop(index).kill_tree()

    def kill_actor(self, index: int) -> None:
        """SIGKILL the first actor of a node; its supervisor sees it."""
        kill([self.actor(index).pid])

    def actor(self, index: int) -> ActorStatus:
        """Return the first actor of a node. Raises UnavailableError if it is not up."""
        slot = f"n{index + 1}/0"
        for actor in self.status().actors:
            if actor.slot == slot and actor.state == "up":
                return actor
        raise UnavailableError(f"actor {slot} is not up")

    def actors_begin(self) -> bool:
        """Whether every actor runs its own code: each has locked its directory, to read it next."""
        locked = locked_files()
        return all(file_name(lock) in locked for index in self._nodes for lock in self._locks(index))

    def _locks(self, index: int) -> list[Path]:
        actors = self._node_directory(index) / "actors"
        return [actors / str(actor) / "lock" for actor in range(self._actors)]

    def lose_disk(self, index: int) -> None:
        """Delete what a node keeps, which must not run."""
        shutil.rmtree(self._node_directory(index))

    def disk_bytes(self, index: int) -> int:
        """Return what the files of a node's actors occupy on disk."""
        return occupied_bytes(self._node_directory(index))

    def _node_directory(self, index: int) -> Path:
        return self._directory / "nodes" / f"n{index + 1}"

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
        ask = partial(inspect_cluster, credentials=self._credentials())
        return trio.run(ask, seeds, CLUSTER)

    def state_bytes(self) -> dict[str, int]:
        """Return the bytes of the sessions that each actor holds, by slot."""
        seeds = [f"{CLIENT_HOST}:{self._node_ports[index]}" for index in self._nodes]
        return trio.run(_state_bytes, seeds, self._credentials())

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
        until(self.is_whole, "every shard has all its replicas", seconds, processes=self.processes())


async def _state_bytes(seeds: list[str], credentials: Credentials | LoopbackSecrets | None) -> dict[str, int]:
    known = await fetch_map(seeds, CLUSTER, credentials=credentials)
    return {
        known.actors[incarnation].slot: sum(replica.stored_bytes for replica in inspection.replicas)
        for incarnation, inspection in (await inspect_actors(known, credentials=credentials)).items()
    }
