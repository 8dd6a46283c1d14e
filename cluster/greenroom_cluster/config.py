"""The options of a cluster's processes, with their defaults.

Every field is an option of the command line and a GREENROOM_* variable; `greenroom_cluster.cli` maps them.
Addresses are `host:port`.
"""

import re
from pathlib import Path
from typing import get_args

import msgspec

from greenroom.errors import UsageError
from greenroom_cluster.coordination.genesis import (
    ADOPTION_MISSING,
    REPLICAS_DEFAULT,
    SHARDS_DEFAULT,
    ClusterOptions,
    starting_map,
)
from greenroom_cluster.logs import LogSettings
from greenroom_cluster.restarts import RestartSettings
from greenroom_cluster.runtime.addresses import PORT_MAX, split_address
from greenroom_cluster.shard.settings import Evicted

CLUSTER = "greenroom"
COORDINATOR_ADDRESS = "127.0.0.1:7300"
NODE_ADDRESS = "127.0.0.1:7400"
HANG_SECONDS = 10.0
HANG_SECONDS_MIN = 1.0
DRAIN_SECONDS = 30.0
ACTORS = 2
LINGER_SECONDS = 0.00025
LINGER_SECONDS_MAX = 0.01
MEMORY_BYTES_MIN = 96 << 20
_SIZE = re.compile(r"([0-9]{1,18})\s*(B|KiB|MiB|GiB|TiB)?", re.IGNORECASE)
_UNITS = {"": 1, "b": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class CoordinatorProcessSettings(msgspec.Struct, frozen=True, kw_only=True):
    """A `greenroom coordinator`. `shards` and `replicas` None: as the cluster is, or the default.

    `adopt_from` are addresses of nodes, with commas: a new lineage begins from the newest map they serve.
    """

    listen: str = COORDINATOR_ADDRESS
    data_dir: Path = Path("greenroom-data")
    cluster: str = CLUSTER
    shards: int | None = None
    replicas: int | None = None
    new_lineage: bool = False
    adopt_from: str = ""
    give_up_newer: bool = False
    restarts: RestartSettings = RestartSettings()
    hang_seconds: float = HANG_SECONDS
    logs: LogSettings = LogSettings()

    def check(self) -> None:
        """Raise UsageError, naming the option, if something cannot be."""
        check_address("--listen", self.listen)
        starting_map(None, msgspec.structs.replace(self.options(), new_lineage=False))
        adopted = self.adopted_addresses()
        if self.new_lineage and not adopted and not self.give_up_newer:
            raise UsageError(ADOPTION_MISSING)
        if not self.new_lineage and (adopted or self.give_up_newer):
            raise UsageError("--adopt-from and --give-up-newer say how to start with --new-lineage; add that")
        if adopted and self.give_up_newer:
            raise UsageError("--give-up-newer contradicts --adopt-from: give one of them")
        check_hang(self.hang_seconds)

    def adopted_addresses(self) -> list[str]:
        """Return the addresses in `adopt_from`. Raises UsageError if one is none."""
        addresses = [address.strip() for address in self.adopt_from.split(",") if address.strip()]
        for address in addresses:
            check_address("--adopt-from", address)
        return addresses

    def options(self) -> ClusterOptions:
        """Return what is asked of the cluster."""
        return ClusterOptions(self.cluster, self.shards, self.replicas, self.new_lineage, self.give_up_newer)


class NodeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """A `greenroom node`.

    `advertise` is what others reach it by, empty for the address it listens on; a port of 0 in it stands for
    the port listened on. Actors listen on ports from `actor_port_base` on, or on any if that is 0.
    `memory_max` is each actor's bound, such as `512MiB`; empty: a share of what there is. `evict` says which
    sessions end when that is reached.
    """

    name: str
    listen: str = NODE_ADDRESS
    advertise: str = ""
    coordinator: str = COORDINATOR_ADDRESS
    cluster: str = CLUSTER
    actors: int = ACTORS
    actor_port_base: int = 0
    memory_max: str = ""
    evict: Evicted = "none"
    drain_seconds: float = DRAIN_SECONDS
    linger_seconds: float = LINGER_SECONDS
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
        starting_map(None, ClusterOptions(self.cluster))
        if not 1 <= self.actors <= 256:
            raise UsageError(f"--actors must be 1 to 256; it is {self.actors}")
        if self.actor_port_base and not 1 <= self.actor_port_base <= 65_536 - self.actors:
            raise UsageError(
                f"--actor-port-base {self.actor_port_base} leaves no room for {self.actors} ports"
            )
        memory_bytes("--memory-max", self.memory_max)
        if self.evict not in get_args(Evicted):
            raise UsageError(f"--evict must be {' or '.join(get_args(Evicted))}; it is {self.evict!r}")
        check_drain(self.drain_seconds)
        check_linger(self.linger_seconds)
        check_hang(self.hang_seconds)
        host, _ = split_address(self.advertise or self.listen)
        if host in {"0.0.0.0", "::", "*"}:  # noqa: S104  refused, not bound
            raise UsageError(
                f"others cannot reach {host}: name the address that they can with --advertise host:port"
            )


class LocalClusterSettings(msgspec.Struct, frozen=True, kw_only=True):
    """A whole cluster on this machine.

    Nodes listen on consecutive ports from that of `listen` on, or on free ones if it is 0. The coordinator
    listens on `coordinator_listen`, port 0: any; without it on its usual address, or any free port if that is
    taken or nodes listen on free ones. Without a `data_dir` the cluster map goes to a temporary directory and
    is deleted at the end. `memory_max` and `evict` as for a node; empty: all actors share what there is.
    """

    nodes: int = 3
    actors: int = ACTORS
    memory_max: str = ""
    evict: Evicted = "none"
    listen: str = NODE_ADDRESS
    coordinator_listen: str = ""
    data_dir: Path | None = None
    cluster: str = CLUSTER
    shards: int = SHARDS_DEFAULT
    replicas: int = REPLICAS_DEFAULT
    restart_nodes: bool = True
    drain_seconds: float = DRAIN_SECONDS
    linger_seconds: float = LINGER_SECONDS
    restarts: RestartSettings = RestartSettings()
    hang_seconds: float = HANG_SECONDS
    logs: LogSettings = LogSettings()

    def check(self) -> None:
        """Raise UsageError, naming the option, if something cannot be."""
        check_address("--listen", self.listen)
        if self.coordinator_listen:
            check_address("--coordinator-listen", self.coordinator_listen)
        if not 1 <= self.nodes <= 64:
            raise UsageError(f"--nodes must be 1 to 64; it is {self.nodes}")
        self._check_ports()
        if self.replicas > self.nodes:
            raise UsageError(
                f"--replicas {self.replicas} needs as many nodes; give --nodes {self.replicas} or more"
            )
        CoordinatorProcessSettings(cluster=self.cluster, shards=self.shards, replicas=self.replicas).check()
        NodeSettings(
            name="n1",
            actors=self.actors,
            memory_max=self.memory_max,
            evict=self.evict,
            drain_seconds=self.drain_seconds,
            linger_seconds=self.linger_seconds,
            hang_seconds=self.hang_seconds,
        ).check()

    def _check_ports(self) -> None:
        host, port = split_address(self.listen)
        if not port:
            return
        last = port + self.nodes - 1
        if last > PORT_MAX:
            raise UsageError(f"--listen {self.listen} leaves no room for the ports of {self.nodes} nodes")
        if self.coordinator_listen:
            coordinator_host, coordinator_port = split_address(self.coordinator_listen)
            if coordinator_host == host and port <= coordinator_port <= last:
                raise UsageError(
                    f"--coordinator-listen {self.coordinator_listen} is the address of node "
                    f"n{coordinator_port - port + 1} as well, for nodes listen on ports {port} to {last}: "
                    "choose another --coordinator-listen or --listen"
                )


def check_address(option: str, address: str) -> None:
    """Raise UsageError, naming the option, if this is no `host:port`."""
    try:
        host, _ = split_address(address)
        host.encode("idna")  # as whoever looks it up will
    except UsageError as error:
        raise UsageError(f"{option}: {error}") from None
    except UnicodeError:
        raise UsageError(f"{option}: {address!a} does not begin with a name of a host") from None


def check_drain(seconds: float) -> None:
    """Raise UsageError if nothing can take so long."""
    if not seconds >= 0:
        raise UsageError(f"--drain-seconds must be 0 or more; it is {seconds:g}")


def check_hang(seconds: float) -> None:
    """Raise UsageError if so short a silence is none: a process gives a sign of life twice a second."""
    if not seconds >= HANG_SECONDS_MIN:
        raise UsageError(f"--hang-seconds must be {HANG_SECONDS_MIN:g} or more; it is {seconds:g}")


def check_linger(seconds: float) -> None:
    """Raise UsageError if an actor cannot stay awake for so long: nothing else of it runs meanwhile."""
    if not 0 <= seconds <= LINGER_SECONDS_MAX:
        raise UsageError(f"--linger-seconds must be 0 to {LINGER_SECONDS_MAX:g}; it is {seconds:g}")


def memory_bytes(option: str, text: str) -> int:
    """Return an actor's bound in bytes, 0 for an empty text. Raises UsageError, naming the option."""
    if not text:
        return 0
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise UsageError(
            f"{option} is a whole number with the unit KiB, MiB, GiB or TiB, such as 512MiB, or of bytes; "
            f"it is {text!r}"
        )
    unit = found[2] or ""
    size = int(found[1]) * _UNITS[unit.lower()]
    if size < MEMORY_BYTES_MIN:
        raise UsageError(
            f"{option} {text}{'' if unit else f' ({size} bytes)'} is too little: at least "
            f"{MEMORY_BYTES_MIN >> 20}MiB, of which an empty actor takes about half"
        )
    return size


def check_name(option: str, name: str) -> None:
    """Raise UsageError, naming the option, if this can be no node's name: it stands in slots."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{option} takes 1 to 63 letters, digits, dots, dashes and underscores, the first a letter or "
            f"digit, not {name!r}"
        )
