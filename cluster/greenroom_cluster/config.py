"""The options of a cluster's processes, with their defaults. Addresses are `host:port`.

A field with a `Flag` is an option of the command line and a GREENROOM_* variable. Settings are nested, and
handed on as they are: from a command to the processes that it starts, and from a node to its actors. So a new
option of all actors is a field of `ActorOptions`, and nothing else has to name it on its way.
"""

import re
from pathlib import Path
from typing import Annotated, Literal, TypeAlias, get_args

import msgspec

from greenroom.addresses import parse_address
from greenroom.errors import UsageError
from greenroom_cluster.coordination.bounds import SECONDS_MAX
from greenroom_cluster.coordination.genesis import (
    ADOPTION_MISSING,
    REPLICAS_DEFAULT,
    SHARDS_DEFAULT,
    ClusterOptions,
    starting_map,
)
from greenroom_cluster.etcd_options import EtcdOptions
from greenroom_cluster.exposure import INSECURE_FLAG
from greenroom_cluster.flags import Flag
from greenroom_cluster.links.places import IDENTITY_CONNECTIONS_MAX
from greenroom_cluster.logs import LogSettings
from greenroom_cluster.proof_options import ProofOptions
from greenroom_cluster.quotas import parse_quotas
from greenroom_cluster.restarts import RestartSettings
from greenroom_cluster.shard.settings import Evicted, HostSettings
from greenroom_cluster.sizes import parse_size
from greenroom_cluster.tls_options import AccessTlsOptions, NodeTlsOptions, ServerTlsOptions

CLUSTER = "greenroom"
COORDINATOR_ADDRESS = "127.0.0.1:7300"
MAP_DIRECTORY = Path("greenroom-data")
NODE_ADDRESS = "127.0.0.1:7400"
HANG_SECONDS = 10.0
HANG_SECONDS_MIN = 1.0
DAY_SECONDS = 86_400
DRAIN_SECONDS = 30.0
ACTORS = 2
MEMORY_BYTES_MIN = 96 << 20
SYNC_SECONDS = 1.0
NEAR_SECONDS = 0.3
WATCHES_MAX, WATCHES_MAX_MAX = 200_000, 10_000_000
CONNECTIONS_MAX = 10_000
RECOVER_ALONE_MIN = 10.0
SYNC_SECONDS_MIN, SYNC_SECONDS_MAX = 0.01, 60.0
Durability: TypeAlias = Literal["none", "interval", "fsync"]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")

CLUSTER_FLAG = Flag(help="Name of the cluster; peers and clients must name the same.")
_DATA_DIR = Flag(
    help="Directory of the coordinator's cluster map; with --store it keeps none.",
    shown_default="greenroom-data",
)
SHARDS = Flag(
    help="Slices of the hash space, a power of two; set when the cluster is created.",
    shown_default=f"{SHARDS_DEFAULT} for a new cluster",
)
REPLICAS = Flag(
    help="Copies of every shard; set when the cluster is created.",
    shown_default=f"{REPLICAS_DEFAULT} for a new cluster",
)


INSECURE = Flag(
    help="Listen beyond loopback without TLS: whoever reaches a port may then read and change all sessions.",
    option=INSECURE_FLAG,
    variable="GREENROOM_INSECURE_PLAINTEXT",
)

HTTP = Flag(
    help="Address of an HTTP port for operators: /dashboard, /livez, /readyz, /metrics, /status.json.",
    shown_default="none",
)

RECOVER_ALONE = Flag(
    help="With --durability fsync: seconds after which a shard goes on from disk without members that are "
    "still away; 0: it waits."
)


class AccessOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a command is let in: by the files of TLS, or on loopback by a secret."""

    tls: AccessTlsOptions = AccessTlsOptions()
    proof: ProofOptions = ProofOptions()

    def store_options(self) -> dict[str, str]:
        """Return the options of a store that is let in in the same way."""
        bearer = self.tls.bearer_files()
        if bearer is not None:
            return {"token_file": bearer.token, "tls_ca": bearer.ca}
        files = self.tls.files()
        if files is None:
            return self.proof.store_options()
        options = {"tls_cert": files.cert, "tls_key": files.key, "tls_ca": files.ca}
        return {**options, "tls_deny": files.deny} if files.deny else options


class ProcessOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Supervision and logging of a coordinator or node and its processes."""

    restarts: RestartSettings = RestartSettings()
    hang_seconds: Annotated[
        float, Flag(help="Kill and restart a process after this long without a heartbeat.")
    ] = HANG_SECONDS
    logs: LogSettings = LogSettings()

    def check(self) -> None:
        """Raise UsageError, naming the option, if something cannot be."""
        if not HANG_SECONDS_MIN <= self.hang_seconds <= DAY_SECONDS:
            raise UsageError(
                f"--hang-seconds must be {HANG_SECONDS_MIN:g} to {DAY_SECONDS}; it is {self.hang_seconds:g}"
            )


class ActorOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator may choose for each actor. An actor gets this struct as it is.

    `memory_max` is a bound such as `512MiB`; empty: a share of what there is. `evict` says which sessions end
    when that, or one of the `quotas`, is reached. `durability` says what is on disk before a write is
    acknowledged: nothing, all but the writes of the last `sync_interval` seconds, or all. `near_seconds` is
    for how long stores with a near cache may show a session without asking, `watches_max` how many sessions
    stores may watch for their ends, `identity_connections_max` how many clients one identity may have at each
    actor, and at the node itself.
    """

    memory_max: Annotated[
        str,
        Flag(
            help="Memory of each actor, such as 512MiB or 2GiB; without it, a share of what there is.",
            shown_default=False,
        ),
    ] = ""
    evict: Annotated[
        Evicted,
        Flag(
            help="Which sessions end when --memory-max or a quota is reached, oldest first: none, or those "
            "without a user."
        ),
    ] = "none"
    quotas: Annotated[
        str,
        Flag(
            help="What namespaces may have: NAMESPACE=SESSIONS:BYTES with commas between, * for each other.",
            shown_default=False,
        ),
    ] = ""
    durability: Annotated[
        Durability,
        Flag(
            help="What is on disk before a write is acknowledged: none, interval (all but the last second), "
            "or fsync."
        ),
    ] = "none"
    sync_interval: Annotated[
        float, Flag(help="With --durability interval: seconds of writes that a power cut may cost.")
    ] = SYNC_SECONDS
    near_seconds: Annotated[
        float,
        Flag(
            help="How long stores may show a session that they keep before they ask again; 0: they keep none."
        ),
    ] = NEAR_SECONDS
    watches_max: Annotated[
        int, Flag(help="How many sessions stores may watch at each actor, to learn at once when they end.")
    ] = WATCHES_MAX
    identity_connections_max: Annotated[
        int,
        Flag(help="How many clients of one certificate's or token's holder each process of a node serves."),
    ] = IDENTITY_CONNECTIONS_MAX

    def check(self) -> None:
        """Raise UsageError, naming the option, if something cannot be."""
        memory_bytes("--memory-max", self.memory_max)
        parse_quotas(self.quotas)
        if self.evict not in get_args(Evicted):
            raise UsageError(f"--evict must be {' or '.join(get_args(Evicted))}; it is {self.evict!r}")
        if self.durability not in get_args(Durability):
            modes = " or ".join(get_args(Durability))
            raise UsageError(f"--durability must be {modes}; it is {self.durability!r}")
        if not SYNC_SECONDS_MIN <= self.sync_interval <= SYNC_SECONDS_MAX:
            raise UsageError(
                f"--sync-interval must be {SYNC_SECONDS_MIN:g} to {SYNC_SECONDS_MAX:g} seconds; it is "
                f"{self.sync_interval:g}"
            )
        if not 0 <= self.near_seconds <= HostSettings().lease_seconds:
            raise UsageError(
                f"--near-seconds must be 0 to {HostSettings().lease_seconds:g}; it is {self.near_seconds:g}"
            )
        if not 1 <= self.watches_max <= WATCHES_MAX_MAX:
            raise UsageError(f"--watches-max must be 1 to {WATCHES_MAX_MAX}; it is {self.watches_max}")
        if not 1 <= self.identity_connections_max <= CONNECTIONS_MAX:
            raise UsageError(
                f"--identity-connections-max must be 1 to {CONNECTIONS_MAX}, for no process serves more "
                f"clients; it is {self.identity_connections_max}"
            )

    def core(self) -> HostSettings:
        """Return the settings of an actor's core; without `memory_max` it has no bound."""
        bytes_max = memory_bytes("--memory-max", self.memory_max)
        core = HostSettings(
            eviction=self.evict,
            quotas=parse_quotas(self.quotas),
            near_seconds=self.near_seconds,
            watches_max=self.watches_max,
        )
        return msgspec.structs.replace(core, memory_bytes_max=bytes_max) if bytes_max else core


class NodeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the nodes of a local cluster have in common."""

    actors: Annotated[int, Flag(help="Actor processes of each node.")] = ACTORS
    drain_seconds: Annotated[float, Flag(help="How long a node that stops may take to hand over.")] = (
        DRAIN_SECONDS
    )
    actor: ActorOptions = ActorOptions()

    def check(self) -> None:
        """Raise UsageError, naming the option, if something cannot be."""
        if not 1 <= self.actors <= 256:
            raise UsageError(f"--actors must be 1 to 256; it is {self.actors}")
        if not 0 <= self.drain_seconds <= DAY_SECONDS:
            raise UsageError(f"--drain-seconds must be 0 to {DAY_SECONDS}; it is {self.drain_seconds:g}")
        self.actor.check()


class CoordinatorProcessSettings(msgspec.Struct, frozen=True, kw_only=True, tag="coordinator"):
    """A `greenroom coordinator`. `shards` or `replicas` None: that of the existing cluster, or the default.

    `adopt_from` lists addresses of nodes, separated by commas: a new lineage begins from the newest map that
    they serve. With `adopt_from_directories` it begins from what actors kept on disk. Without a `data_dir` it
    is `MAP_DIRECTORY`.
    """

    listen: Annotated[str, Flag(help="Address to listen on.", variable="GREENROOM_COORDINATOR_LISTEN")] = (
        COORDINATOR_ADDRESS
    )
    data_dir: Annotated[Path | None, _DATA_DIR] = None
    cluster: Annotated[str, CLUSTER_FLAG] = CLUSTER
    shards: Annotated[int | None, SHARDS] = None
    replicas: Annotated[int | None, REPLICAS] = None
    new_lineage: Annotated[
        bool,
        Flag(
            help="Start once from the newest map in use, after this one was lost or restored from a copy.",
            option="--new-lineage",
        ),
    ] = False
    adopt_from: Annotated[
        str,
        Flag(help="With --new-lineage: addresses of running nodes that serve the newest map, with commas."),
    ] = ""
    adopt_from_directories: Annotated[
        bool,
        Flag(
            help="With --new-lineage, if no process runs: make the map anew from the directories of actors.",
            option="--adopt-from-directories",
        ),
    ] = False
    give_up_newer: Annotated[
        bool,
        Flag(
            help="With --new-lineage, if no node runs: give up what was decided after the copy.",
            option="--give-up-newer",
        ),
    ] = False
    tls: ServerTlsOptions = ServerTlsOptions()
    insecure_plaintext_beyond_loopback: Annotated[bool, INSECURE] = False
    proof: ProofOptions = ProofOptions()
    recover_alone_after: Annotated[float, RECOVER_ALONE] = 0.0
    http: Annotated[str, HTTP] = ""
    etcd: EtcdOptions = EtcdOptions()
    process: ProcessOptions = ProcessOptions()

    def check(self) -> None:
        """Raise UsageError, naming the option, if something cannot be."""
        check_address("--listen", self.listen, any_port=True)
        if self.http:
            check_address("--http", self.http, any_port=True)
        self.etcd.check()
        self._check_store()
        self.tls.check()
        self.proof.check()
        if self.recover_alone_after and not RECOVER_ALONE_MIN <= self.recover_alone_after < SECONDS_MAX:
            raise UsageError(
                f"--recover-alone-after must be {RECOVER_ALONE_MIN:g} to {SECONDS_MAX:.0f} seconds, for an "
                f"actor that starts needs a while, or 0 for never; it is {self.recover_alone_after:g}"
            )
        starting_map(None, msgspec.structs.replace(self.options(), new_lineage=False))
        adopted = self.adopted_addresses()
        if adopted and self.adopt_from_directories:
            raise UsageError(
                "--adopt-from names nodes that run, and --adopt-from-directories is for when none does: give "
                "one of them"
            )
        if self.adopt_from_directories and not self.new_lineage:
            raise UsageError("--adopt-from-directories says how to start with --new-lineage; add that")
        if self.new_lineage and not adopted and not self.give_up_newer and not self.adopt_from_directories:
            raise UsageError(ADOPTION_MISSING)
        if not self.new_lineage and (adopted or self.give_up_newer):
            raise UsageError("--adopt-from and --give-up-newer say how to start with --new-lineage; add that")
        if adopted and self.give_up_newer:
            raise UsageError("--give-up-newer contradicts --adopt-from: give one of them")
        self.process.check()

    @property
    def directory(self) -> Path:
        """The directory of the map, if that is in a file."""
        return self.data_dir or MAP_DIRECTORY

    def _check_store(self) -> None:
        """Refuse what says how to go on from a file, if the map is in etcd."""
        if not self.etcd.store:
            return
        given = {
            "--new-lineage": self.new_lineage,
            "--adopt-from": bool(self.adopt_from),
            "--adopt-from-directories": self.adopt_from_directories,
            "--give-up-newer": self.give_up_newer,
        }
        for option in (option for option, is_given in given.items() if is_given):
            raise UsageError(
                f"{option} is for a map in a file, which may be lost or old, and --store (GREENROOM_STORE) "
                "keeps it in etcd: leave one of them out. If etcd has lost the map, start without --store, "
                "and then move the map to etcd by `greenroom move-map`"
            )

    def adopted_addresses(self) -> list[str]:
        """Return the addresses in `adopt_from`. Raises UsageError if one is malformed."""
        addresses = [address.strip() for address in self.adopt_from.split(",") if address.strip()]
        for address in addresses:
            check_address("--adopt-from", address)
        return addresses

    def options(self) -> ClusterOptions:
        """Return the options of the cluster itself."""
        return ClusterOptions(
            self.cluster,
            self.shards,
            self.replicas,
            self.new_lineage,
            self.give_up_newer,
            self.adopt_from_directories,
            self.recover_alone_after,
        )


class MoveMapSettings(msgspec.Struct, frozen=True, kw_only=True):
    """A `greenroom move-map`: from which directory to which etcd."""

    data_dir: Annotated[
        Path, Flag(help="Directory in which the coordinator, which is stopped, has kept its map.")
    ] = MAP_DIRECTORY
    etcd: EtcdOptions = EtcdOptions()


class NodeSettings(msgspec.Struct, frozen=True, kw_only=True, tag="node"):
    """A `greenroom node`.

    `advertise` is the address at which others reach it; empty: the one it listens on. A port of 0 in it
    stands for the port it listens on. Actors listen on ports from `actor_port_base` on; 0: on any free ports.
    `data_dir` is needed for a `durability` other than "none", and not used without.
    """

    name: Annotated[str, Flag(help="Name of the node, unique in the cluster.")]
    listen: Annotated[str, Flag(help="Address to listen on for clients.")] = NODE_ADDRESS
    advertise: Annotated[str, Flag(help="Address that others reach it by, if not the same.")] = ""
    zone: Annotated[
        str, Flag(help="Zone of the node; copies of a shard stand in different ones.", shown_default=False)
    ] = ""
    coordinator: Annotated[
        str, Flag(help="Address of the coordinator; of all of them, with commas, if there are several.")
    ] = COORDINATOR_ADDRESS
    actor_port_base: Annotated[int, Flag(help="First port of the actors; 0: any free ones.")] = 0
    cluster: Annotated[str, CLUSTER_FLAG] = CLUSTER
    data_dir: Annotated[
        Path | None, Flag(help="With --durability: directory of what the actors keep on disk.")
    ] = None
    http: Annotated[str, HTTP] = ""
    node: NodeOptions = NodeOptions()
    tls: NodeTlsOptions = NodeTlsOptions()
    insecure_plaintext_beyond_loopback: Annotated[bool, INSECURE] = False
    proof: ProofOptions = ProofOptions()
    process: ProcessOptions = ProcessOptions()

    def check(self) -> None:
        """Raise UsageError, naming the option, if something cannot be."""
        self.tls.check()
        self.proof.check()
        check_name("--name", self.name)
        check_address("--listen", self.listen, any_port=True)
        if self.advertise:
            check_address("--advertise", self.advertise, any_port=True)
        if self.http:
            check_address("--http", self.http, any_port=True)
        if self.zone:
            check_name("--zone", self.zone)
        check_addresses("--coordinator", self.coordinator)
        starting_map(None, ClusterOptions(self.cluster))
        self.node.check()
        if self.node.actor.durability != "none" and self.data_dir is None:
            raise UsageError(
                f"--durability {self.node.actor.durability} keeps sessions on disk: say where with "
                "--data-dir (GREENROOM_DATA_DIR)"
            )
        if self.actor_port_base and not 1 <= self.actor_port_base <= 65_536 - self.node.actors:
            raise UsageError(
                f"--actor-port-base {self.actor_port_base} leaves no room for {self.node.actors} ports"
            )
        self.process.check()
        host, _ = parse_address(self.advertise or self.listen, any_port=True)
        if host in ANY_HOST:
            raise UsageError(
                f"others cannot reach {host}: name the address that they can with --advertise host:port"
            )


ANY_HOST = frozenset({"0.0.0.0", "::", "*"})  # noqa: S104  refused, not bound
"""Hosts that one can listen at, and nobody can connect to."""


def check_address(option: str, address: str, *, any_port: bool = False) -> None:
    """Raise UsageError, naming the option, unless this is `host:port`."""
    try:
        host, _ = parse_address(address, any_port=any_port)
        host.encode("idna")  # as the resolver will
    except UsageError as error:
        raise UsageError(f"{option}: {error}") from None
    except UnicodeError:
        raise UsageError(f"{option}: {address!a} does not begin with a host name") from None


def check_addresses(option: str, addresses: str) -> None:
    """Raise UsageError, naming the option, unless this is `host:port`, or several with commas."""
    for address in addresses.split(","):
        check_address(option, address)


def memory_bytes(option: str, text: str) -> int:
    """Return an actor's bound in bytes; 0 for an empty text. Raises UsageError, naming the option."""
    if not text:
        return 0
    size, unit = parse_size(option, text)
    if size < MEMORY_BYTES_MIN:
        raise UsageError(
            f"{option} {text}{'' if unit else f' ({size} bytes)'} is too little: at least "
            f"{MEMORY_BYTES_MIN >> 20}MiB, of which an empty actor takes about half"
        )
    return size


def check_name(option: str, name: str) -> None:
    """Raise UsageError, naming the option, unless this can name a node, and so its slots."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{option} takes 1 to 63 letters, digits, dots, dashes and underscores, the first a letter or "
            f"digit, not {name!r}"
        )
