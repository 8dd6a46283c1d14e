"""A whole cluster on this machine: a coordinator and nodes as subprocesses, watched and started again.

Each subprocess watches us through a pidfd: if this process dies, in any way, all of them end within moments.
"""

import os
import random
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import msgspec
import trio

from greenroom.addresses import join_address, parse_address
from greenroom.cluster_map import ActorEntry, ClusterMap
from greenroom.errors import GreenroomError, UnavailableError, UsageError
from greenroom.identities import IdentityRole
from greenroom.loopback import INSECURE_OPTION, surely_beyond
from greenroom_cluster.cluster_status import ClusterStatus
from greenroom_cluster.config import (
    COORDINATOR_ADDRESS,
    AccessOptions,
    NodeSettings,
    memory_bytes,
)
from greenroom_cluster.coordination.boot_note import BootNote
from greenroom_cluster.coordination.storage import refuse_kept_map
from greenroom_cluster.exits import EXIT_USAGE
from greenroom_cluster.http.addresses import HttpAddresses
from greenroom_cluster.http.door import DASHBOARD_PATH
from greenroom_cluster.inspection import inspect_cluster
from greenroom_cluster.local_settings import HTTP_ADDRESS, LocalClusterSettings
from greenroom_cluster.questions import fetch_map
from greenroom_cluster.restarts import GiveUp, RestartPolicy
from greenroom_cluster.runtime.host_memory import default_bytes
from greenroom_cluster.runtime.local_members import Member
from greenroom_cluster.runtime.ports import check_plaintext, check_port, reserved_port
from greenroom_cluster.runtime.processes import descendants_of
from greenroom_cluster.runtime.proving import Keys, keys_of
from greenroom_cluster.runtime.starter import is_starter
from greenroom_cluster.runtime.tasks import open_tasks
from greenroom_cluster.tls_options import AccessTlsOptions, NodeTlsOptions, ServerTlsOptions

if TYPE_CHECKING:
    from greenroom_cluster.runtime.own_authority import OwnAuthority

_STOP_SECONDS = 2.0
_POLL_SECONDS = 0.05


def _ignore(_: str) -> None:
    pass


class LocalClusterError(GreenroomError):
    """A process of the cluster cannot be kept running; its own log says why."""


class LocalCluster:
    """A running cluster; made by `open_local_cluster`.

    `seeds` are the addresses of the nodes at start, `url` is what `store_from_url` takes. `restart_nodes`,
    whether a node that ends unexpectedly is started again, may be changed at any time, and so may
    `restart_coordinators`.
    """

    def __init__(
        self,
        settings: LocalClusterSettings,
        data_dir: Path,
        tasks: trio.Nursery,
        authority: "OwnAuthority | None" = None,
    ) -> None:
        self._settings = settings
        self._authority = authority
        self._data_dir = data_dir
        self._tasks = tasks
        self._members: dict[str, Member] = {}
        self._addresses: dict[str, str] = {}
        self._planned: list[str] = []
        self.coordinator_addresses: list[str] = []
        self._coordinators: list[Member] = []
        self._stopping = False
        self.restart_nodes = settings.restart_nodes
        self.restart_coordinators = True
        self.failure: LocalClusterError | UsageError | None = None
        self.credentials: Keys | None = None
        """What this process shows to the cluster, or proves."""
        tls = ServerTlsOptions(**self._files("operator", "up"))
        host = parse_address(settings.listen, any_port=True)[0]
        self.credentials = keys_of(tls, settings.proof, settings.cluster, "operator", host)
        if authority is None and not settings.insecure_plaintext_beyond_loopback:
            self._check_plaintext()
        # What holds the ports that are chosen here, see `reserved_port`.
        with ExitStack() as self._ports:
            # All addresses are chosen before anything is started, so that errors come at once.
            self._planned = [self._node_address(index) for index in range(settings.nodes)]
            self.coordinator_addresses = self._plan_coordinators()
            optional = settings.http == HTTP_ADDRESS
            self._http = HttpAddresses(settings.http, self._free_address, optional=optional)
            for index in range(settings.nodes):
                self._http.of(f"n{index + 1}", index)
            self._ports = self._ports.pop_all()

    def _check_plaintext(self) -> None:
        settings = self._settings
        for option, address in (
            ("--listen", settings.listen),
            ("--coordinator-listen", settings.coordinator_listen),
            ("--http", settings.http),
        ):
            if address:
                check_plaintext(parse_address(address, any_port=True)[0], option, "--tls")

    # --- addresses ---------------------------------------------------------------------------------------

    def release_ports(self) -> None:
        """Let others have the ports of this cluster; call it once nothing runs any more."""
        self._ports.close()

    @property
    def seeds(self) -> list[str]:
        """Addresses of the nodes that should be running."""
        return [self._addresses[name] for name in self.nodes]

    @property
    def coordinator_address(self) -> str:
        """The coordinator's address; of all of them, with commas, if there are several."""
        return ",".join(self.coordinator_addresses)

    @property
    def url(self) -> str:
        """The URL for clients: `greenroom://host:port,host:port/cluster`; with TLS it names files."""
        where = f"{','.join(self.seeds)}/{self._settings.cluster}"
        options = self.client_options
        if self._authority is None and surely_beyond(self.seeds):
            options[INSECURE_OPTION] = "true"
        scheme = "greenroom" if self._authority is None else "greenrooms"
        return f"{scheme}://{where}?{urlencode(options)}" if options else f"{scheme}://{where}"

    @property
    def http_urls(self) -> dict[str, str]:
        """The URLs of the HTTP ports, by the name of the process."""
        scheme = "http" if self._authority is None else "https"
        present = {member.name for member in self._everyone()}
        chosen = sorted(self._http.chosen.items())
        return {name: f"{scheme}://{address}" for name, address in chosen if name in present}

    @property
    def http_missing(self) -> str:
        """Why there are no HTTP ports although none were declined, and what to do; else empty."""
        return self._http.missing

    @property
    def dashboard_url(self) -> str:
        """The URL of the operators' dashboard, at the first node; empty without HTTP ports."""
        urls = self.http_urls
        return next((f"{urls[name]}{DASHBOARD_PATH}" for name in self.nodes if name in urls), "")

    @property
    def client_options(self) -> dict[str, str]:
        """What a store of this cluster is given to be let in, beside its name."""
        tls = AccessTlsOptions(**self._files("client", "app"))
        return AccessOptions(tls=tls, proof=self._settings.proof).store_options()

    @property
    def memory_bytes_max(self) -> int:
        """Bound of each actor's memory."""
        options = self._settings.node
        return memory_bytes("--memory-max", options.actor.memory_max) or default_bytes(
            self._settings.nodes * options.actors
        )

    @property
    def nodes(self) -> list[str]:
        """Names of the nodes that should be running."""
        return [name for name, member in self._members.items() if member.wanted]

    # --- what runs ---------------------------------------------------------------------------------------

    def node_pid(self, name: str) -> int:
        """Return the process id of a node's supervisor. Raises UnavailableError if it does not run."""
        return self._pid(self._members[name])

    def coordinator_pid(self, number: int = 0) -> int:
        """Return the process id of a coordinator's supervisor. Raises UnavailableError as above."""
        return self._pid(self._coordinators[number])

    def coordinator_child_pid(self, number: int = 0) -> int:
        """Return the process id of a coordinator itself. Raises UnavailableError if it does not run."""
        below = descendants_of(self.coordinator_pid(number))
        children = [pid for pid in below if not is_starter(pid)]
        if not children:
            raise UnavailableError("the coordinator is being started")
        return children[0]

    async def leader(self) -> int | None:
        """Return the number of the coordinator that serves: those that stand by do not listen."""
        for number, address in enumerate(self.coordinator_addresses):
            with suppress(OSError):
                await (await trio.open_tcp_stream(*parse_address(address))).aclose()
                return number
        return None

    def pids(self) -> list[int]:
        """Return the ids of all processes of the cluster, which are descendants of this one."""
        found = []
        for member in self._everyone():
            if member.running and member.handle is not None:
                found += [member.handle.pid, *descendants_of(member.handle.pid)]
        return found

    @staticmethod
    def _pid(member: Member) -> int:
        if member.handle is None or not member.running:
            raise UnavailableError(f"{member.name} is not running at the moment")
        return member.handle.pid

    def _everyone(self) -> list[Member]:
        return [*self._coordinators, *self._members.values()]

    # --- the state of the cluster ------------------------------------------------------------------------

    async def fetch_map(self) -> ClusterMap:
        """Return the cluster map from any node. Raises UnavailableError if none answers."""
        return await fetch_map(self.seeds, self._settings.cluster, credentials=self.credentials)

    async def status(self) -> ClusterStatus:
        """Return the state of every shard. Raises UnavailableError if no node answers."""
        return await inspect_cluster(self.seeds, self._settings.cluster, credentials=self.credentials)

    async def actors(self) -> dict[str, ActorEntry]:
        """Return the current incarnation of each slot, with its process id."""
        cluster_map = await self.fetch_map()
        return {actor.slot: actor for actor in cluster_map.actors.values() if actor.state == "up"}

    async def wait_healthy(
        self, seconds: float = 60.0, on_progress: Callable[[str], None] = _ignore
    ) -> ClusterStatus:
        """Wait until every actor of every node answers, and every shard has all its replicas.

        `on_progress` is called with what is missing, whenever that changes.
        Raises UnavailableError, saying what is missing, after `seconds`.
        """
        told = missing = "no node answered"
        with trio.move_on_after(seconds):
            while True:
                try:
                    status = await self.status()
                except UnavailableError as error:
                    missing = str(error)
                else:
                    actors = sum(actor.reachable and actor.state == "up" for actor in status.actors)
                    expected = len(self.nodes) * self._settings.node.actors
                    if status.healthy and actors >= expected:
                        return status
                    missing = f"actors: {actors} of {expected}; shards: {status.counts()}"
                    if missing != told:
                        on_progress(missing)
                        told = missing
                await trio.sleep(_POLL_SECONDS)
        raise UnavailableError(f"the cluster was not complete after {seconds:g} s ({missing})")

    # --- what is done to it ------------------------------------------------------------------------------

    def kill_node(self, name: str) -> None:
        """SIGKILL a node's supervisor; its actors follow. It is started again if `restart_nodes`."""
        self._members[name].signal(signal.SIGKILL)

    async def stop_node(self, name: str, seconds: float | None = None) -> int:
        """SIGTERM a node, which hands over first, and return its exit status. It is not started again.

        Raises UnavailableError if it takes longer than `seconds` (None: its drain time and 10 s more).
        """
        member = self._members[name]
        member.wanted = False
        member.signal(signal.SIGTERM)
        with trio.move_on_after(self._settings.node.drain_seconds + 10 if seconds is None else seconds):
            await member.gone.wait()
            assert member.process is not None
            del self._members[name]
            return member.process.returncode or 0
        raise UnavailableError(f"node {name} did not stop in time")

    async def start_node(self, name: str | None = None) -> str:
        """Start one more node and return its name; it takes part once its actors are registered."""
        if name is None:
            number = 1
            while f"n{number}" in self._addresses:
                number += 1
            name = f"n{number}"
        if name not in self._addresses:
            index = len(self._addresses)
            planned = index < len(self._planned)
            self._addresses[name] = self._planned[index] if planned else self._node_address(index)
        member = self._members[name] = Member(name, self._node_settings(name))
        await self._start(member)
        return name

    async def start(self) -> None:
        """Start the coordinators and the nodes, all at once; return when their processes run."""
        for number, address in enumerate(self.coordinator_addresses, 1):
            alone = len(self.coordinator_addresses) == 1
            name = "coordinator" if alone else f"coordinator-{number}"
            http = self._http.of(name, self._settings.nodes + number - 1)
            settings = self._settings.coordinator_settings(address, self._data_dir, http)
            if self._authority is not None:
                files = self._files("coordinator", "coordinator")
                settings = msgspec.structs.replace(settings, tls=ServerTlsOptions(**files))
            member = Member(name, settings)
            self._coordinators.append(member)
            await self._start(member)
        for _ in range(self._settings.nodes):
            await self.start_node()

    async def stop(self, seconds: float = _STOP_SECONDS) -> None:
        """Stop everything at once, without handing over; SIGKILL after `seconds`."""
        self._stopping = True
        for member in self._everyone():
            member.wanted = False
            member.stop()
        with trio.move_on_after(seconds):
            for member in self._everyone():
                await member.gone.wait()
        self._kill_all()

    def _kill_all(self) -> None:
        self._stopping = True
        for member in self._everyone():
            member.wanted = False
            member.signal(signal.SIGKILL)

    # --- subprocesses ------------------------------------------------------------------------------------

    def _node_address(self, index: int) -> str:
        host, port = parse_address(self._settings.listen, any_port=True)
        if port == 0:
            return self._free_address(host, "--listen")
        check_port(host, port + index)
        return join_address(host, port + index)

    def _plan_coordinators(self) -> list[str]:
        asked, count = self._settings.coordinator_listen, self._settings.coordinators
        host, port = parse_address(asked or COORDINATOR_ADDRESS, any_port=True)
        usual = [join_address(host, port + index) for index in range(count)]
        if asked and port:
            for index in range(count):
                check_port(host, port + index, "--coordinator-listen")
            return usual
        _, nodes_port = parse_address(self._settings.listen, any_port=True)
        if not asked and nodes_port and not set(usual).intersection(self._planned):
            with suppress(UsageError):
                for index in range(count):
                    check_port(host, port + index)
                return usual
        return [self._free_address(host, "--coordinator-listen") for _ in range(count)]

    def _free_address(self, host: str, option: str) -> str:
        held = self._ports.enter_context(reserved_port(host, option))
        return join_address(host, held.getsockname()[1])

    def _node_settings(self, name: str) -> NodeSettings:
        index = list(self._addresses).index(name)
        number = index if index < self._settings.nodes else index + self._settings.coordinators
        http = self._http.of(name, number)
        settings = self._settings.node_settings(name, self._addresses[name], self.coordinator_address, http)
        replace = msgspec.structs.replace
        # A node by itself would divide the memory among its own actors only.
        actor = replace(settings.node.actor, memory_max=str(self.memory_bytes_max))
        tls = NodeTlsOptions(**self._files("node", name))
        return replace(settings, node=replace(settings.node, actor=actor), tls=tls)

    def _files(self, role: IdentityRole, name: str) -> dict[str, Any]:
        """Return the options of TLS of a holder; none without TLS."""
        return {} if self._authority is None else msgspec.structs.asdict(self._authority.files(role, name))

    async def _start(self, member: Member) -> None:
        self._tasks.start_soon(self._keep, member)
        await member.spawned.wait()

    async def _keep(self, member: Member) -> None:
        chance = random.Random(os.urandom(16))  # noqa: S311  jitter
        restarts = RestartPolicy(member.name, self._settings.process.restarts, chance)
        try:
            while member.wanted:
                await member.run(lambda: restarts.started(time.monotonic_ns()))
                asked = self._stopping or not member.wanted
                kept = self._is_kept(member)
                member.tell_end(asked=asked, kept=kept)
                if not kept:
                    break
                verdict = restarts.exited(time.monotonic_ns())
                if isinstance(verdict, GiveUp):
                    self._give_up(LocalClusterError(verdict.reason))
                    break
                await trio.sleep(verdict.delay_ns / 1e9)
        finally:
            member.gone.set()

    def _is_kept(self, member: Member) -> bool:
        """Whether a subprocess that ended is started again."""
        if not member.wanted or self._stopping:
            return False
        assert member.process is not None
        if member.process.returncode == EXIT_USAGE:
            reason = f"{member.name} cannot run with these settings; its last line of log says why"
            self._give_up(UsageError(reason))
            return False
        coordinates = member in self._coordinators
        member.wanted = self.restart_coordinators if coordinates else self.restart_nodes
        return member.wanted

    def _give_up(self, failure: LocalClusterError | UsageError) -> None:
        self.failure = failure
        self._tasks.cancel_scope.cancel()


@asynccontextmanager
async def open_local_cluster(
    settings: LocalClusterSettings,
    *,
    wait_seconds: float | None = 60.0,
    on_progress: Callable[[str], None] = _ignore,
) -> AsyncIterator[LocalCluster]:
    """Run a cluster around the body.

    First wait, for at most `wait_seconds` (None: not at all), until every shard has all its replicas, and
    call `on_progress` with what is being done. Raises UsageError for impossible settings, UnavailableError if
    no etcd answers that is to keep the map, or the cluster is not complete in time, and, after cancelling the
    body, UsageError if one of its processes refuses to run, LocalClusterError if it cannot be kept running.
    """
    settings.check()
    if settings.etcd.store:
        # Imported here: httpx is an extra.
        from greenroom_cluster.runtime.etcd_reach import check_reach

        if settings.data_dir is not None:
            refuse_kept_map(settings.data_dir, settings.cluster)
        await check_reach(settings.etcd, settings.cluster)
    with ExitStack() as stack:
        data_dir = settings.data_dir
        if data_dir is None:
            data_dir = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="greenroom-")))
            stack.callback(BootNote(data_dir).void)
        authority = None
        if settings.tls:
            # Imported here: without TLS it needs no `cryptography`.
            from greenroom_cluster.runtime.own_authority import OwnAuthority

            made = stack.enter_context(tempfile.TemporaryDirectory(prefix="greenroom-tls-"))
            authority = OwnAuthority(Path(made), settings.cluster)
        async with open_tasks() as tasks:
            cluster = LocalCluster(settings, data_dir, tasks, authority)
            try:
                count = f"{settings.nodes} node{'s' if settings.nodes > 1 else ''}"
                what = "coordinator" if settings.coordinators == 1 else "coordinators"
                on_progress(f"starting the {what} at {cluster.coordinator_address} and {count}")
                await cluster.start()
                if wait_seconds is not None:
                    await cluster.wait_healthy(wait_seconds, on_progress)
                yield cluster
            finally:
                with trio.CancelScope(shield=True):
                    await cluster.stop()
                cluster.release_ports()
                tasks.cancel_scope.cancel()
    if cluster.failure is not None:
        raise cluster.failure
