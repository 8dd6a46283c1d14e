"""What the processes of a cluster can be told, with the defaults.

Every field is an option of the command line and a GREENROOM_* variable; `greenroom_cluster.cli` maps them.
Addresses are `host:port`.
"""

from pathlib import Path

import msgspec

from greenroom.cluster_map import SHARDS_MAX
from greenroom.errors import UsageError
from greenroom_cluster.logs import LogSettings
from greenroom_cluster.restarts import RestartSettings
from greenroom_cluster.runtime.addresses import split_address

CLUSTER = "greenroom"
COORDINATOR_ADDRESS = "127.0.0.1:7300"
NODE_ADDRESS = "127.0.0.1:7400"
HANG_SECONDS = 10.0
DRAIN_SECONDS = 30.0
ACTORS = 2
SHARDS = 64
REPLICAS = 2
_NAME_BYTES_MAX = 128


class CoordinatorProcessSettings(msgspec.Struct, frozen=True, kw_only=True):
    """A `greenroom coordinator`. `shards` and `replicas` matter only when the cluster is created."""

    listen: str = COORDINATOR_ADDRESS
    data_dir: Path = Path("greenroom-data")
    cluster: str = CLUSTER
    shards: int = SHARDS
    replicas: int = REPLICAS
    new_lineage: bool = False
    restarts: RestartSettings = RestartSettings()
    hang_seconds: float = HANG_SECONDS
    logs: LogSettings = LogSettings()

    def check(self) -> None:
        """Raise UsageError, naming the option, if something cannot be."""
        check_address("--listen", self.listen)
        check_cluster(self.cluster)
        if not 1 <= self.shards <= SHARDS_MAX or self.shards & (self.shards - 1):
            raise UsageError(f"--shards must be a power of two, at most {SHARDS_MAX}; it is {self.shards}")
        if self.replicas not in {1, 2}:
            raise UsageError(f"--replicas must be 1 or 2; it is {self.replicas}")


class NodeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """A `greenroom node`.

    `advertise` is what others reach it by, empty for the address it listens on; a port of 0 in it stands for
    the port listened on. Actors listen on ports from `actor_port_base` on, or on any if that is 0.
    """

    name: str
    listen: str = NODE_ADDRESS
    advertise: str = ""
    coordinator: str = COORDINATOR_ADDRESS
    cluster: str = CLUSTER
    actors: int = ACTORS
    actor_port_base: int = 0
    drain_seconds: float = DRAIN_SECONDS
    restarts: RestartSettings = RestartSettings()
    hang_seconds: float = HANG_SECONDS
    logs: LogSettings = LogSettings()

    def check(self) -> None:
        """Raise UsageError, naming the option, if something cannot be."""
        check_name("--name", self.name)
        check_address("--listen", self.listen)
        if self.advertise:
            check_address("--advertise", self.advertise)
        check_address("--coordinator", self.coordinator)
        check_cluster(self.cluster)
        if not 1 <= self.actors <= 256:
            raise UsageError(f"--actors must be 1 to 256; it is {self.actors}")
        if self.actor_port_base and not 1 <= self.actor_port_base <= 65_536 - self.actors:
            raise UsageError(
                f"--actor-port-base {self.actor_port_base} leaves no room for {self.actors} ports"
            )
        host, _ = split_address(self.advertise or self.listen)
        if host in {"0.0.0.0", "::", "*"}:  # noqa: S104  refused, not bound
            raise UsageError(
                f"others cannot reach {host}: name the address that they can with --advertise host:port"
            )


class LocalClusterSettings(msgspec.Struct, frozen=True, kw_only=True):
    """A whole cluster on this machine.

    Nodes listen on consecutive ports from that of `listen` on, or on free ones if it is 0; so does the
    coordinator. Without a `data_dir` the cluster map goes to a temporary directory and is deleted at the end.
    """

    nodes: int = 3
    actors: int = ACTORS
    listen: str = NODE_ADDRESS
    coordinator_listen: str = COORDINATOR_ADDRESS
    data_dir: Path | None = None
    cluster: str = CLUSTER
    shards: int = SHARDS
    replicas: int = REPLICAS
    restart_nodes: bool = True
    drain_seconds: float = DRAIN_SECONDS
    restarts: RestartSettings = RestartSettings()
    hang_seconds: float = HANG_SECONDS
    logs: LogSettings = LogSettings()

    def check(self) -> None:
        """Raise UsageError, naming the option, if something cannot be."""
        check_address("--listen", self.listen)
        check_address("--coordinator-listen", self.coordinator_listen)
        if not 1 <= self.nodes <= 64:
            raise UsageError(f"--nodes must be 1 to 64; it is {self.nodes}")
        if self.replicas > self.nodes:
            raise UsageError(
                f"--replicas {self.replicas} needs as many nodes; give --nodes {self.replicas} or more"
            )
        CoordinatorProcessSettings(cluster=self.cluster, shards=self.shards, replicas=self.replicas).check()
        NodeSettings(name="n1", actors=self.actors).check()


def check_address(option: str, address: str) -> None:
    """Raise UsageError, naming the option, if this is no `host:port`."""
    try:
        split_address(address)
    except UsageError as error:
        raise UsageError(f"{option}: {error}") from None


def check_cluster(cluster: str) -> None:
    """Raise UsageError if a cluster cannot be called that."""
    check_name("--cluster", cluster)


def check_name(option: str, name: str) -> None:
    """Raise UsageError, naming the option, if this can be no name: it stands in URLs and in slots."""
    if not name or len(name.encode()) > _NAME_BYTES_MAX or not all(c.isalnum() or c in "-_." for c in name):
        raise UsageError(
            f"{option} must be 1 to {_NAME_BYTES_MAX} letters, digits, '-', '_' or '.'; it is {name!r}"
        )
