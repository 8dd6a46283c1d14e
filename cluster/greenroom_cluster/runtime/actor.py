"""One actor: the replicas of many shards behind one TCP port, with links to its peers and the coordinator."""

import gc
import os
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import structlog
import trio

from greenroom import wire
from greenroom.cluster_map import ClusterMap
from greenroom.framing import messages_decoder
from greenroom.tls.demands import Demand
from greenroom_cluster.access import AT_ACTOR, ONLY_AT_NODES
from greenroom_cluster.config import ActorOptions
from greenroom_cluster.coordination.messages import Decision
from greenroom_cluster.disk.journal import DiskFailedError, Journal
from greenroom_cluster.links import former
from greenroom_cluster.links.coordinator_session import NOTHING_REMEMBERED, Remembered
from greenroom_cluster.links.core_runner import Core, Replies
from greenroom_cluster.links.handshake import stamped
from greenroom_cluster.pace import Pace
from greenroom_cluster.planning.placement import node_of
from greenroom_cluster.proof_options import ProofOptions
from greenroom_cluster.runtime.actor_disk import DiskSettings, OpenedDisk, open_disk
from greenroom_cluster.runtime.actor_readings import actor_readings
from greenroom_cluster.runtime.auditing import Audited
from greenroom_cluster.runtime.budget import buffer_bytes
from greenroom_cluster.runtime.clocks import now_ns, wall_us
from greenroom_cluster.runtime.connection import FramedConnection
from greenroom_cluster.runtime.coordinator_link import CoordinatorLink, CoordinatorLinkSettings
from greenroom_cluster.runtime.delivery import Delivery
from greenroom_cluster.runtime.descriptors import raise_descriptor_limit
from greenroom_cluster.runtime.disk_writer import DiskWriter, end_for_disk
from greenroom_cluster.runtime.driver import Driver
from greenroom_cluster.runtime.host_memory import Settling, give_back, resident_bytes, share_arena
from greenroom_cluster.runtime.links import PeerLinks
from greenroom_cluster.runtime.listener import Listener, ListenerSettings, Service
from greenroom_cluster.runtime.marks import open_mark
from greenroom_cluster.runtime.poller import Poller
from greenroom_cluster.runtime.ports import ACTOR_PORT_OPTION
from greenroom_cluster.runtime.proving import Safeguard, keys_of, tokens_of, trust_of
from greenroom_cluster.runtime.reading import ConnectionEndedError
from greenroom_cluster.runtime.refusals import tell_not_allowed
from greenroom_cluster.runtime.reports import Reports
from greenroom_cluster.runtime.scheduling import keep_policy
from greenroom_cluster.runtime.sockets import charged_as
from greenroom_cluster.runtime.supervised import Standing, Started
from greenroom_cluster.runtime.tasks import open_tasks
from greenroom_cluster.shard.clients.operations import OfUser
from greenroom_cluster.shard.host import Host
from greenroom_cluster.shard.inputs import (
    ClientRequests,
    CoordinationUp,
    Decisions,
    DiskMeasured,
    MapChanged,
    MemoryMeasured,
    PeerMessages,
    Synced,
)
from greenroom_cluster.shard.messages import PEER_FRAME_BYTES_MAX
from greenroom_cluster.shard.step import MARK_DIRECTORY, Mark
from greenroom_cluster.tls_options import NodeTlsOptions

_decoders = {role: messages_decoder(kinds) for role, kinds in AT_ACTOR.items()}
_former_decoder = former.FormerDecoder(AT_ACTOR[wire.ROLE_CLIENT])
_log = structlog.get_logger(__name__)

_TOO_OFTEN = "an observer looks at most once a second, over all that use its certificate"
_MEASURE_SECONDS = 0.25
_REPORT_SECONDS = 1.0


class ActorSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The actor's identity and address. Port 0: any free one. `advertise_host` empty: the host it listens on.

    `mark_path` is the file in which it marks the record in hand; empty: none. `directory` is where it keeps
    what `options.durability` asks for.
    """

    incarnation: bytes
    slot: str
    cluster: str
    coordinator: str
    host: str = "127.0.0.1"
    port: int = 0
    advertise_host: str = ""
    connections_max: int = 10_000
    mark_path: str = ""
    directory: str = ""
    options: ActorOptions = ActorOptions()
    tls: NodeTlsOptions = NodeTlsOptions()
    insecure: bool = False
    proof: ProofOptions = ProofOptions(loopback_proof="off")


class _Told:
    """Adds to the core's replies to operators whether this process reaches the coordinator."""

    def __init__(self, connection: FramedConnection, coordinator: CoordinatorLink) -> None:
        self._connection = connection
        self._coordinator = coordinator

    def send(self, messages: list[Any]) -> None:
        """Send these to the operator."""
        away, known = self._coordinator.away_seconds, self._coordinator.known
        self._connection.send(
            [
                msgspec.structs.replace(message, coordinator_away_seconds=away, coordinators=known)
                if isinstance(message, wire.Inspection)
                else message
                for message in messages
            ]
        )


def paced(
    pace: Pace, holder: str, replies: Replies, handle: Callable[[list[Any]], None]
) -> Callable[[list[Any]], None]:
    """Return `handle` for as much as an observer may ask; the rest is answered before."""

    def take(messages: list[Any]) -> None:
        admitted = []
        for message in messages:
            if pace.admits(holder, now_ns()):
                admitted.append(message)
            else:
                replies.send([wire.Overloaded(message.request_id, _TOO_OFTEN)])
        if admitted:
            handle(admitted)

    return take


def as_command(message: Any) -> Any:
    """Return what an operator says in the form in which the core takes it."""
    return message.command() if isinstance(message, OfUser) else message


class Actor:
    """Joins a core to its sockets. Raises UsageError if the address cannot be listened on.

    `to_come` returns how many bytes that were found on disk the core has yet to take in.
    """

    def __init__(
        self,
        settings: ActorSettings,
        core: Core,
        leave: Callable[[int], None] = os._exit,
        remembered: Remembered = NOTHING_REMEMBERED,
        to_come: Callable[[], int] = lambda: 0,
    ) -> None:
        self._settings = settings
        self._to_come = to_come
        self.driver = Driver(core, leave)
        self.poller = Poller()
        node = node_of(settings.slot)
        self._credentials = keys_of(
            settings.tls, settings.proof, settings.cluster, "node", settings.host, name=node
        )
        self._pace = Pace()
        self._peers: dict[int, tuple[FramedConnection, bytes]] = {}
        self.coordinator = CoordinatorLink(
            CoordinatorLinkSettings(
                settings.coordinator,
                settings.cluster,
                settings.incarnation,
                remembered=remembered,
                credentials=self._credentials,
            ),
            on_map=self._on_map,
            on_decisions=self._on_decisions,
            on_up=self._on_coordination_up,
        )
        self.listener = Listener(
            ListenerSettings(
                cluster=settings.cluster,
                identity=settings.incarnation,
                host=settings.host,
                port=settings.port,
                option=ACTOR_PORT_OPTION,
                connections_max=settings.connections_max,
                of_identity_max=settings.options.identity_connections_max,
                buffer_bytes_max=buffer_bytes(settings.options.core().memory_bytes_max),
                credentials=self._credentials,
                tokens=tokens_of(settings.tls, settings.cluster),
                insecure=settings.insecure,
                refused=ONLY_AT_NODES,
            ),
            {
                wire.ROLE_CLIENT: Service(_decoders[wire.ROLE_CLIENT], self._serve_client),
                wire.ROLE_ADMIN: Service(_decoders[wire.ROLE_ADMIN], self._serve_operator),
                wire.ROLE_OPERATOR: Service(
                    _decoders[wire.ROLE_OPERATOR], self._serve_commands, target_required=True
                ),
                wire.ROLE_PEER: Service(
                    _decoders[wire.ROLE_PEER],
                    self._serve_peer,
                    PEER_FRAME_BYTES_MAX,
                    target_required=True,
                ),
            },
            lambda: core.clock_us(now_ns(), wall_us()),
        )

    async def run(self) -> None:
        """Serve until cancelled."""
        try:
            async with open_tasks() as nursery:
                links = PeerLinks(
                    self._settings.cluster,
                    self._settings.incarnation,
                    nursery,
                    self.poller,
                    on_up=self.driver.link_up,
                    on_down=self.driver.link_down,
                    on_messages=lambda peer, messages: self.driver.step(PeerMessages(peer, messages)),
                    trust_in=self._trust_in,
                )
                self.driver.connect_with(links, self.coordinator.propose)
                nursery.start_soon(self.poller.run)
                nursery.start_soon(self.listener.run)
                nursery.start_soon(self.coordinator.run)
                nursery.start_soon(self.driver.tick_forever)
                nursery.start_soon(self._measure_memory)
                nursery.start_soon(self._report_roles)
        finally:
            self.poller.close()

    async def _measure_memory(self) -> None:
        settling = Settling(self._to_come(), resident_bytes())
        while True:
            resident = resident_bytes()
            if settling.is_due(self._to_come(), resident):
                await trio.to_thread.run_sync(give_back)
                resident = resident_bytes()
            self.driver.step(MemoryMeasured(resident))
            await trio.sleep(_MEASURE_SECONDS)

    async def _report_roles(self) -> None:
        try:
            while True:
                await trio.sleep(_REPORT_SECONDS)
                self._report_changed_roles()
        finally:
            self._report_changed_roles()

    def _report_changed_roles(self) -> None:
        report = self.driver.roles.take()
        if report is not None:
            _log.info("roles_changed", slot=self._settings.slot, **report)

    # --- what comes in -----------------------------------------------------------------------------------

    async def _serve_client(self, connection: FramedConnection, hello: wire.Hello, number: int) -> None:
        if former.is_former(connection.agreement):
            connection.speak(_former_decoder)
            await self._serve_requests(connection, former.FormerClient(connection), hello, number)
        else:
            await self._serve_requests(connection, connection, hello, number)

    async def _serve_operator(self, connection: FramedConnection, hello: wire.Hello, number: int) -> None:
        await self._serve_requests(connection, _Told(connection, self.coordinator), hello, number)

    async def _serve_commands(self, connection: FramedConnection, hello: wire.Hello, number: int) -> None:
        audited = Audited(connection)
        try:
            await self._serve_requests(connection, audited, hello, number)
        finally:
            audited.close()

    async def _serve_requests(
        self, connection: FramedConnection, replies: Replies, hello: wire.Hello, number: int
    ) -> None:
        driver = self.driver
        holder = connection.holder
        client, namespace = stamped(hello, holder)
        driver.add_client(number, replies)

        identity = charged_as(connection.remote, number)

        def handle(requests: list[Any]) -> None:
            driver.step(ClientRequests(number, client, requests, identity, namespace))

        take: Callable[[list[Any]], None] = handle
        if isinstance(replies, former.FormerClient):
            take = replies.refusing(handle)
        elif isinstance(replies, Audited):
            take = replies.noting(lambda messages: handle(list(map(as_command, messages))))
        elif holder is not None and holder.role == "observer":
            take = paced(self._pace, holder.uri, connection, handle)
        try:
            await Delivery(connection, self.poller, take, patient=True).run()
        finally:
            driver.drop_client(number)

    async def _serve_peer(self, connection: FramedConnection, hello: wire.Hello, number: int) -> None:
        driver, peer = self.driver, hello.sender
        self._peers[number] = connection, peer
        self._refuse_foreign(connection, peer)

        def handle(messages: list[Any]) -> None:
            if not driver.take_from_peer(peer, number, connection, messages):
                raise ConnectionEndedError("the peer has opened a newer connection")

        try:
            await Delivery(connection, self.poller, handle).run()
        finally:
            del self._peers[number]
            driver.drop_peer(peer, number)

    def _trust_in(self, peer: bytes) -> Safeguard | None:
        """Return how to secure a connection to this peer: its node, by the map, must answer."""
        cluster_map = self.coordinator.map
        entry = None if cluster_map is None else cluster_map.actors.get(peer)
        # The core connects to none that is not in the map; nobody has this name.
        name = "-" if entry is None else entry.node
        return trust_of(self._credentials, Demand(self._settings.cluster, ("node",), name))

    def _refuse_foreign(self, connection: FramedConnection, peer: bytes) -> None:
        """End a connection on which a node speaks for the actor of another."""
        cluster_map, proven = self.coordinator.map, connection.proven
        entry = None if cluster_map is None else cluster_map.actors.get(peer)
        if proven is not None and entry is not None and entry.node != proven.identity.name:
            tell_not_allowed(connection, proven, f"it is not the node of {entry.slot}")
            connection.abort("its node is another")

    def _on_map(self, cluster_map: ClusterMap) -> None:
        for connection, peer in list(self._peers.values()):
            self._refuse_foreign(connection, peer)
        self.driver.step(MapChanged(cluster_map))

    def _on_decisions(self, decisions: tuple[Decision, ...]) -> None:
        self.driver.step(Decisions(decisions))

    def _on_coordination_up(self) -> None:
        self.driver.step(CoordinationUp())


async def run_actor(settings: ActorSettings, started: Started) -> None:
    """Run an actor until cancelled; `started(address)` is called once it accepts connections.

    Raises UsageError for impossible settings. A failure of the core or of the disk ends the process at once.
    """
    raise_descriptor_limit()
    calm_collector()
    share_arena()
    mark = open_mark(settings.mark_path)
    opened = await _opened_disk(settings, started)
    chance = random.SystemRandom()
    stable = None if opened is None else opened.stable
    # In a thread, because what was on disk may take long to take in, and a supervisor awaits heartbeats.
    core = await trio.to_thread.run_sync(
        Host, settings.incarnation, settings.slot, settings.options.core(), chance, mark, stable
    )
    remembered = Remembered(*core.remembered, core.shown)
    actor = Actor(settings, core, remembered=remembered, to_come=core.to_come_bytes)
    standing, journal = (Standing(), None) if opened is None else (opened.standing, opened.journal)
    # What was read is the core's now.
    del opened, stable
    if journal is not None:
        await trio.to_thread.run_sync(give_back)
    async with _writing(actor, journal, settings.options, mark):
        actor.driver.step(MemoryMeasured(resident_bytes()))
        address = actor.listener.address(settings.advertise_host)
        _log.info("actor_started", slot=settings.slot, address=address)
        started.answer_with(partial(actor_readings, core, actor.driver, actor.listener, settings.slot))
        started(address, standing)
        async with open_tasks() as nursery:
            nursery.start_soon(keep_policy, now_ns)
            await actor.run()


async def _opened_disk(settings: ActorSettings, started: Started) -> OpenedDisk | None:
    """Return what the actor kept on disk; None if it keeps nothing. A failure ends the process."""
    options = settings.options
    if options.durability == "none":
        return None
    asked = DiskSettings(
        Path(settings.directory),
        settings.slot,
        settings.cluster,
        settings.incarnation,
        options.durability,
        options.sync_interval,
    )
    try:
        return await trio.to_thread.run_sync(open_disk, asked, started.goes_on)
    except DiskFailedError as error:
        end_for_disk(asked.directory, error)
        raise


@asynccontextmanager
async def _writing(
    actor: Actor, journal: Journal | None, options: ActorOptions, mark: Mark | None
) -> AsyncIterator[None]:
    """Write what the core persists; at the end all of it is on stable storage."""
    if journal is None:
        yield
        return
    reports: Reports[Synced | DiskMeasured] = Reports(actor.poller, actor.driver.take_report)

    def note(batch: int) -> None:
        if mark is not None:
            # Here, in the thread, so that it is right even if the process is about to end.
            mark[MARK_DIRECTORY] = batch

    interval = options.sync_interval if options.durability == "interval" else None
    writer = DiskWriter(journal, reports.put, interval_seconds=interval, note=note)
    actor.driver.keep_with(writer, journal.directory)
    try:
        yield
    finally:
        with trio.CancelScope(shield=True):
            await writer.close()
        reports.close()


def calm_collector() -> None:
    """Keep cyclic garbage collection from pausing an actor that holds millions of sessions.

    Sessions and messages cannot form cycles and are not tracked, but a full collection still walks the tables
    that hold them. Imported objects live forever, and the rest rarely forms cycles, so collections are rare.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
