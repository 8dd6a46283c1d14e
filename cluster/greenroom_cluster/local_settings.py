"""The options of a whole cluster on one machine, as `greenroom up` runs it."""

from pathlib import Path
from typing import Annotated

import msgspec

from greenroom.addresses import PORT_MAX, parse_address
from greenroom.errors import UsageError
from greenroom_cluster.config import (
    ANY_HOST,
    CLUSTER,
    CLUSTER_FLAG,
    COORDINATOR_ADDRESS,
    INSECURE,
    NODE_ADDRESS,
    RECOVER_ALONE,
    REPLICAS,
    SHARDS,
    CoordinatorProcessSettings,
    NodeOptions,
    NodeSettings,
    ProcessOptions,
    check_address,
    check_name,
)
from greenroom_cluster.coordination.genesis import REPLICAS_DEFAULT, SHARDS_DEFAULT
from greenroom_cluster.etcd_options import EtcdOptions
from greenroom_cluster.flags import Flag
from greenroom_cluster.logs import LogSettings
from greenroom_cluster.proof_options import ProofOptions

COORDINATORS_MAX = 8
HTTP_ADDRESS = "127.0.0.1:0"


class LocalClusterSettings(msgspec.Struct, frozen=True, kw_only=True):
    """A whole cluster on this machine.

    Nodes listen on consecutive ports, beginning with that of `listen`; port 0: on any free ports. So do
    coordinators, from `coordinator_listen` on. If that is empty, they take the usual port and the next ones,
    or any free ports if one of these is taken or the nodes listen on free ports. Without a `data_dir` the
    cluster map is kept in a temporary directory and deleted at the end, unless it is in `etcd`; with a
    `durability`, a node keeps its sessions in the folder of its name there. Without a `memory_max` all actors
    share the machine's memory.
    """

    nodes: Annotated[int, Flag(help="How many nodes.")] = 3
    zones: Annotated[
        str, Flag(help="Zones with commas between, in which the nodes are by turns.", shown_default=False)
    ] = ""
    listen: Annotated[
        str, Flag(help="Address of the first node; the others take the next ports. Port 0: any.")
    ] = NODE_ADDRESS
    coordinator_listen: Annotated[
        str,
        Flag(
            help=f"Address of the coordinator; without it {COORDINATOR_ADDRESS}, or any free port. Several "
            "take the next ports.",
            shown_default=False,
        ),
    ] = ""
    coordinators: Annotated[
        int, Flag(help="With --store: how many coordinators, of which one leads and the others stand by.")
    ] = 1
    etcd: EtcdOptions = EtcdOptions()
    data_dir: Annotated[
        Path | None, Flag(help="Directory of the cluster map; keeps the sessions over an orderly end too.")
    ] = None
    cluster: Annotated[str, CLUSTER_FLAG] = CLUSTER
    shards: Annotated[int, SHARDS] = SHARDS_DEFAULT
    replicas: Annotated[int, REPLICAS] = REPLICAS_DEFAULT
    recover_alone_after: Annotated[float, RECOVER_ALONE] = 0.0
    http: Annotated[
        str,
        Flag(
            help="Address of the first node's HTTP port for operators; the other nodes and the coordinators "
            "take the next ports. Port 0: any.",
            shown_default=f"{HTTP_ADDRESS}, if the extra `http` is installed",
        ),
    ] = HTTP_ADDRESS
    tls: Annotated[
        bool,
        Flag(help="Speak TLS, by certificates that are made for this run and end with it.", option="--tls"),
    ] = False
    insecure_plaintext_beyond_loopback: Annotated[bool, INSECURE] = False
    proof: ProofOptions = ProofOptions()
    restart_nodes: Annotated[bool, Flag(help="Start a node again if it ends unexpectedly.")] = True
    node: NodeOptions = NodeOptions()
    process: ProcessOptions = ProcessOptions(logs=LogSettings(level="warning"))

    def check(self) -> None:
        """Raise UsageError, naming the option, if something cannot be."""
        check_address("--listen", self.listen, any_port=True)
        if self.coordinator_listen:
            check_address("--coordinator-listen", self.coordinator_listen, any_port=True)
        if self.http:
            check_address("--http", self.http, any_port=True)
        for option, address in (("--listen", self.listen), ("--coordinator-listen", self.coordinator_listen)):
            if address and parse_address(address, any_port=True)[0] in ANY_HOST:
                raise UsageError(
                    f"{option} {address}: nodes and apps cannot reach each other there; give one address of "
                    "this host, or run `greenroom coordinator` and `greenroom node`, which have --advertise"
                )
        if not 1 <= self.nodes <= 64:
            raise UsageError(f"--nodes must be 1 to 64; it is {self.nodes}")
        self.etcd.check()
        self._check_coordinators()
        self._check_ports()
        if self.replicas > self.nodes:
            raise UsageError(
                f"--replicas {self.replicas} needs as many nodes: give --nodes {self.replicas} or more, or "
                f"--replicas {self.nodes}"
            )
        self._check_zones()
        self.coordinator_settings(COORDINATOR_ADDRESS, None).check()
        self.node_settings("n1", NODE_ADDRESS, COORDINATOR_ADDRESS).check()

    def coordinator_settings(
        self, listen: str, data_dir: Path | None, http: str = ""
    ) -> CoordinatorProcessSettings:
        """Return the settings of one coordinator. With `etcd` it keeps nothing in a directory."""
        return CoordinatorProcessSettings(
            listen=listen,
            data_dir=None if self.etcd.store else data_dir,
            cluster=self.cluster,
            etcd=self.etcd,
            shards=self.shards,
            replicas=self.replicas,
            recover_alone_after=self.recover_alone_after,
            http=http,
            insecure_plaintext_beyond_loopback=self.insecure_plaintext_beyond_loopback,
            proof=self.proof,
            process=self.process,
        )

    def zone_of(self, name: str) -> str:
        """Return the zone of the node `n1`, `n2` and so on; the zones take turns."""
        zones = self.zones.split(",")
        return zones[(int(name[1:]) - 1) % len(zones)] if self.zones else ""

    def node_settings(self, name: str, listen: str, coordinator: str, http: str = "") -> NodeSettings:
        """Return the settings of one node."""
        return NodeSettings(
            name=name,
            listen=listen,
            coordinator=coordinator,
            zone=self.zone_of(name),
            cluster=self.cluster,
            data_dir=None if self.data_dir is None else self.data_dir / "nodes" / name,
            http=http,
            node=self.node,
            insecure_plaintext_beyond_loopback=self.insecure_plaintext_beyond_loopback,
            proof=self.proof,
            process=self.process,
        )

    def _check_coordinators(self) -> None:
        if not 1 <= self.coordinators <= COORDINATORS_MAX:
            raise UsageError(f"--coordinators must be 1 to {COORDINATORS_MAX}; it is {self.coordinators}")
        if self.coordinators > 1 and not self.etcd.store:
            raise UsageError(
                f"--coordinators {self.coordinators} need a map that they share: keep it in etcd with "
                "--store etcd://host:2379 (GREENROOM_STORE); a map in a file has one coordinator"
            )

    def _check_zones(self) -> None:
        zones = self.zones.split(",")
        for zone in zones if self.zones else ():
            check_name("--zones", zone)
        if len(zones) > self.nodes:
            raise UsageError(
                f"--zones {self.zones} has {len(zones)} zones for {self.nodes} nodes: name fewer, or give "
                f"--nodes {len(zones)} or more"
            )

    def _check_ports(self) -> None:
        host, port = parse_address(self.listen, any_port=True)
        if not port:
            return
        last = port + self.nodes - 1
        if last > PORT_MAX:
            raise UsageError(f"--listen {self.listen} leaves no room for the ports of {self.nodes} nodes")
        for option, address, count in (
            ("--coordinator-listen", self.coordinator_listen, self.coordinators),
            ("--http", self.http, self.nodes + self.coordinators),
        ):
            if not address:
                continue
            other, first = parse_address(address, any_port=True)
            taken = [each for each in range(first, first + count) if port <= each <= last]
            if other == host and first and taken:
                raise UsageError(
                    f"{option} {address} takes port {taken[0]}, which is that of node n{taken[0] - port + 1} "
                    f"as well: nodes listen on ports {port} to {last}; choose another {option} or --listen"
                )
