"""The coordinator's server: sockets, clock and a store of maps around the pure `CoordinationService`.

A map is written while the loop goes on reading. If it cannot be written, the process ends.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import msgspec
import structlog
import trio

from greenroom import wire
from greenroom.addresses import join_address
from greenroom.cluster_map import ClusterMap
from greenroom.deadlines import NEVER_NS
from greenroom.errors import RemoteProtocolError
from greenroom.framing import messages_decoder
from greenroom_cluster.access import AT_COORDINATOR, ONLY_AT_NODES, sees_processes
from greenroom_cluster.audit import Audit
from greenroom_cluster.coordination import service as fx
from greenroom_cluster.coordination.coordinator import CoordinatorSettings
from greenroom_cluster.coordination.etcd.candidacy import Cease
from greenroom_cluster.coordination.genesis import (
    ClusterOptions,
)
from greenroom_cluster.coordination.messages import ETCD_AWAY, RESIGNED
from greenroom_cluster.coordination.service import CoordinationService
from greenroom_cluster.coordination.storage import StorageFailedError
from greenroom_cluster.etcd_options import EtcdOptions
from greenroom_cluster.links.handshake import IDENTITY_BYTES
from greenroom_cluster.metrics.coordination import tell_map
from greenroom_cluster.metrics.decisions import Decisions
from greenroom_cluster.metrics.readings import NS, Readings, Spread
from greenroom_cluster.planning.controller import ControllerSettings
from greenroom_cluster.proof_options import ProofOptions
from greenroom_cluster.runtime.adoption import maps_of
from greenroom_cluster.runtime.auditing import audit_of, tell
from greenroom_cluster.runtime.clocks import now_ns, wall_us
from greenroom_cluster.runtime.connection import FramedConnection
from greenroom_cluster.runtime.connection_readings import tell_connections
from greenroom_cluster.runtime.descriptors import raise_descriptor_limit
from greenroom_cluster.runtime.disk_writer import end_for_disk
from greenroom_cluster.runtime.listener import Listener, ListenerSettings, Service
from greenroom_cluster.runtime.map_publisher import MapPublisher
from greenroom_cluster.runtime.map_store import Kept, MapStore, kept_in_file
from greenroom_cluster.runtime.proving import keys_of
from greenroom_cluster.runtime.supervised import Started
from greenroom_cluster.runtime.tasks import open_tasks
from greenroom_cluster.tls_options import ServerTlsOptions

_REST_SECONDS = 2.0
_log = structlog.get_logger(__name__)


class CoordinatorServerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where the coordinator listens and keeps its map: in `data_dir`, or in `etcd`. Port 0: any free port."""

    options: ClusterOptions
    data_dir: str
    host: str = "127.0.0.1"
    port: int = 0
    advertise_host: str = ""
    node_down_seconds: float = 2.0
    controller: ControllerSettings = ControllerSettings()
    connections_max: int = 10_000
    tls: ServerTlsOptions = ServerTlsOptions()
    insecure: bool = False
    proof: ProofOptions = ProofOptions(loopback_proof="off")
    etcd: EtcdOptions | None = None


class CoordinatorServer:
    """Serves one coordinator, from a map that is kept in a file unless `kept` says otherwise.

    Raises what `kept_in_file` and Listener raise.
    """

    def __init__(self, settings: CoordinatorServerSettings, kept: Kept | None = None) -> None:
        kept = kept or kept_in_file(Path(settings.data_dir), settings.options)
        self.store: MapStore = kept.store
        """Where the map is kept."""
        first = kept.map
        try:
            self._credentials = keys_of(
                settings.tls, settings.proof, first.cluster, "coordinator", settings.host
            )
            self.listener = Listener(
                ListenerSettings(
                    cluster=first.cluster,
                    identity=os.urandom(IDENTITY_BYTES),
                    host=settings.host,
                    port=settings.port,
                    connections_max=settings.connections_max,
                    credentials=self._credentials,
                    insecure=settings.insecure,
                    refused=ONLY_AT_NODES,
                ),
                {
                    role: Service(messages_decoder(kinds), self._handle, answers_shared=True)
                    for role, kinds in AT_COORDINATOR.items()
                },
            )
        except BaseException:
            self.store.close()
            raise
        self._service = CoordinationService(
            first,
            CoordinatorSettings(settings.node_down_seconds),
            settings.controller,
            now_ns(),
            wall_us() // 1000,
            proven=self.store.vouched,
            marks=kept.marks,
            adoption=kept.adoption,
        )
        if not self.store.vouched:
            _log.info("coordinator_unproven", data_dir=settings.data_dir, version=self._service.map.version)
        self._publisher = MapPublisher()
        self._connections: dict[int, tuple[FramedConnection, str]] = {}
        self._audits: dict[int, Audit] = {}
        self._tasks: trio.Nursery | None = None
        self._wake = trio.Event()
        self._room = trio.Event()
        self._decisions = Decisions()
        self._writes = Spread()

    def readings(self) -> bytes:
        """Return all readings of this coordinator, which leads."""
        readings = Readings()
        readings.tell("greenroom_coordinator_leads", 1)
        tell_map(readings, self.map)
        self._decisions.tell(readings)
        readings.tell_spread("greenroom_map_write_seconds", self._writes, NS)
        tell_connections(readings, self.listener)
        return readings.encoded()

    @property
    def map(self) -> ClusterMap | None:
        """The newest map that is on disk."""
        return self._publisher.map

    async def run(self) -> None:
        """Serve until cancelled. Raises StorageFailedError when the map cannot be written."""
        try:
            async with open_tasks() as nursery:
                self._tasks = nursery
                nursery.start_soon(self.listener.run)
                await self._decide_forever()
        finally:
            await self._keep_the_rest()
            self.store.close()

    async def _keep_the_rest(self) -> None:
        # After a failed write nothing is written any more, and what ends the process is under way.
        shielded = trio.CancelScope(shield=True, deadline=trio.current_time() + _REST_SECONDS)
        with suppress(StorageFailedError), shielded:
            for effect in self._service.end():
                await self.store.save_marks(effect.marks)

    async def _handle(self, connection: FramedConnection, hello: wire.Hello, number: int) -> None:
        self._connections[number] = connection, hello.role
        audit = self._audits[number] = audit_of(connection)
        holder = connection.holder
        node = holder.name if holder is not None and hello.role == wire.ROLE_PEER else ""
        try:
            while True:
                messages = await connection.receive()
                told = self._service.receive(number, hello.sender, hello.role, messages, node)
                if told:
                    raise RemoteProtocolError(told)
                audit.asked(messages)
                self._decisions.asked(messages)
                self._wake.set()
                while self._service.crowded:
                    await self._room.wait()
        finally:
            del self._connections[number]
            if not audit.waits():  # else what is decided is told all the same
                del self._audits[number]
            self._publisher.forget(number)
            self._service.close(number, hello.sender)
            self._wake.set()

    async def _decide_forever(self) -> NoReturn:
        while True:
            self._wake = trio.Event()
            effects = self._service.step(now_ns(), wall_us())
            room, self._room = self._room, trio.Event()
            room.set()
            while await self._perform(effects):
                effects = self._service.written(now_ns(), wall_us())
            await self._sleep_until_due()

    async def _sleep_until_due(self) -> None:
        due = self._service.next_deadline()
        # Without a deadline, one step a minute costs nothing and limits the effect of a clock's jump.
        seconds = 60.0 if due >= NEVER_NS else min(60.0, max(0.001, (due - now_ns()) / 1e9))
        with trio.move_on_after(seconds):
            await self._wake.wait()

    async def _ask(self, address: str) -> None:
        """Ask a node for its map, because a peer claims that there is a later one than ours."""
        maps = await maps_of((address,), self._service.map.cluster, self._credentials)
        self._service.show(address, maps[0] if maps else None)
        self._wake.set()

    async def _perform(self, effects: list[fx.ServiceEffect]) -> bool:
        """Perform these in order; return whether the last one wrote a map."""
        for effect in effects:
            match effect:
                case fx.Persist(map=decided, vouched=vouched):
                    began_ns = now_ns()
                    await self.store.save(decided, vouched=vouched)
                    self._writes.note(now_ns() - began_ns)
                    return True
                case fx.Publish(map=decided, delta=delta):
                    self._publisher.publish(decided, delta)
                case fx.KeepMarks(marks=marks):
                    await self.store.save_marks(marks)
                case fx.Vouch():
                    self.store.vouch()
                    _log.info("coordinator_proven", version=self._service.map.version)
                case fx.Reply() | fx.Subscribe():
                    self._send(effect)
                case fx.Ask(addresses=addresses):
                    assert self._tasks is not None
                    for address in addresses:
                        self._tasks.start_soon(self._ask, address)
                case fx.Warn(message=message):
                    _log.warning("coordinator_warning", message=message)
        return False

    def _send(self, effect: fx.Reply | fx.Subscribe) -> None:
        connection, role = self._connections.get(effect.connection, (None, ""))
        if isinstance(effect, fx.Reply):
            self._decisions.answered(effect.messages)
            self._tell(effect, gone=connection is None)
        if connection is None:
            return
        if isinstance(effect, fx.Subscribe):
            whole = sees_processes(role, connection.holder)
            self._publisher.subscribe(effect.connection, connection, whole=whole)
            return
        connection.send(effect.messages)
        if effect.last:
            connection.end_sending()

    def say_goodbye(self, ceased: Cease) -> None:
        """Tell all peers why this coordinator serves no more; what cannot be sent now is dropped."""
        goodbye = wire.Goodbye(ETCD_AWAY if ceased.away else RESIGNED, ceased.reason)
        for connection, role in self._connections.values():
            if role == wire.ROLE_PEER:
                connection.send((goodbye,))
                connection.end_sending()

    def _tell(self, reply: fx.Reply, *, gone: bool) -> None:
        audit = self._audits.get(reply.connection)
        if audit is None or not audit.waits():
            return
        tell(audit.answered(reply.messages, trio.current_time()))
        if gone and not audit.waits():
            del self._audits[reply.connection]


def standing_by() -> bytes:
    """Return all readings of a coordinator that does not lead."""
    readings = Readings()
    readings.tell("greenroom_coordinator_leads", 0)
    return readings.encoded()


async def run_coordinator(settings: CoordinatorServerSettings, started: Started) -> None:
    """Run a coordinator until cancelled; `started(address)` is called once it serves, or stands by.

    A write that fails ends the process, see `end_for_disk`. Raises UsageError for impossible options and
    MapDamagedError.
    """
    raise_descriptor_limit()
    if settings.etcd is not None:
        await _run_on_etcd(settings, settings.etcd, started)
        return
    try:
        await _run_on_file(settings, started)
    except StorageFailedError as error:
        end_for_disk(Path(settings.data_dir), error)


async def _run_on_file(settings: CoordinatorServerSettings, started: Started) -> None:
    server = CoordinatorServer(settings)
    started.answer_with(server.readings)
    address = server.listener.address(settings.advertise_host)
    _log.info("coordinator_started", address=address, data_dir=settings.data_dir)
    started(address)
    await server.run()


async def _run_on_etcd(settings: CoordinatorServerSettings, options: EtcdOptions, started: Started) -> None:
    """Stand by, and serve whenever this coordinator leads."""
    # Only here: httpx is an extra.
    from greenroom_cluster.runtime.etcd_store import open_candidate

    address = join_address(settings.advertise_host or settings.host, settings.port)
    async with open_candidate(options, settings.options, address) as candidate:
        _log.info("coordinator_stands_by", address=address, store=options.store)
        started.answer_with(standing_by)
        started(address)
        while True:
            async with candidate.leading() as kept:
                server = CoordinatorServer(settings, kept)
                candidate.on_cease = server.say_goodbye
                started.answer_with(server.readings)
                _log.info("coordinator_leads", address=address, version=kept.map.version)
                try:
                    await server.run()
                finally:
                    started.answer_with(standing_by)
