"""`greenroom node`: the process that supervises the actors of one node, and speaks for them.

Its `Agent` decides what it reports to the coordinator, and when it may leave; this module adds the children,
signals, clock and sockets. On the node's public address it serves the cluster map.

On SIGTERM the node leaves: its actors go on serving until every shard has moved to others; then they are
stopped and the node is removed from the map. SIGINT, or a second signal, stops it at once. On SIGHUP all its
processes read their certificates anew.
"""

import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NoReturn

import msgspec
import structlog
import trio

from greenroom.addresses import join_address, parse_address
from greenroom.cluster_map import ActorEntry
from greenroom.errors import GreenroomError, UsageError
from greenroom_cluster.config import NodeSettings, memory_bytes
from greenroom_cluster.coordination.messages import Accepted, Rejected
from greenroom_cluster.http.node_view import NodeView
from greenroom_cluster.http.port import HttpPort, HttpSettings
from greenroom_cluster.keeper import SupervisionSettings
from greenroom_cluster.node import effects as fx
from greenroom_cluster.node import inputs as ins
from greenroom_cluster.node.agent import Agent, AgentSettings
from greenroom_cluster.runtime.actor import ActorSettings, run_actor
from greenroom_cluster.runtime.actor_disk import actor_directory, refuse_kept, refuse_unusable
from greenroom_cluster.runtime.clocks import now_ns
from greenroom_cluster.runtime.coordinator_link import (
    CoordinatorLink,
    CoordinatorLinkSettings,
    CoordinatorUnreachableError,
)
from greenroom_cluster.runtime.descriptors import raise_descriptor_limit
from greenroom_cluster.runtime.host_memory import default_bytes, warn_if_short
from greenroom_cluster.runtime.listener import ListenerSettings
from greenroom_cluster.runtime.map_server import MapServer
from greenroom_cluster.runtime.marks import MarkFiles
from greenroom_cluster.runtime.ports import ACTOR_PORT_OPTION, check_advertised, wait_for_ports
from greenroom_cluster.runtime.processes import host_identity, is_alive
from greenroom_cluster.runtime.proving import Keys, keys_of, tokens_of
from greenroom_cluster.runtime.reloading import Terminal
from greenroom_cluster.runtime.supervision import (
    ChildProcess,
    ChildSpec,
    Supervisor,
    open_supervisor,
)
from greenroom_cluster.runtime.tasks import open_tasks
from greenroom_cluster.tokens.files import Tokens

_WATCH_COORDINATOR_SECONDS = 0.5
_UNREACHABLE_SECONDS = 2.0
# How long the actors of a killed node may take to end.
_PORT_SECONDS = 2.0

_log = structlog.get_logger("greenroom.node")


class Node:
    """One node's supervisor process. Binds the public address at construction (UsageError if it cannot).

    After `patience_seconds` it misses a coordinator that it has not reached yet.
    """

    def __init__(self, settings: NodeSettings, patience_seconds: float = _UNREACHABLE_SECONDS) -> None:
        self._settings = settings
        self._patience_seconds = patience_seconds
        self._identity = os.urandom(16)
        host, port = parse_address(settings.listen, any_port=True)
        credentials = keys_of(
            settings.tls, settings.proof, settings.cluster, "node", host, name=settings.name
        )
        tokens = tokens_of(settings.tls, settings.cluster)
        self._server = MapServer(
            ListenerSettings(
                cluster=settings.cluster,
                identity=self._identity,
                host=host,
                port=port,
                of_identity_max=settings.node.actor.identity_connections_max,
                credentials=credentials,
                tokens=tokens,
                insecure=settings.insecure_plaintext_beyond_loopback,
            )
        )
        advertised_host, advertised_port = parse_address(settings.advertise or settings.listen, any_port=True)
        plaintext = settings.tls.files() is None
        if settings.advertise and plaintext and not settings.insecure_plaintext_beyond_loopback:
            check_advertised(settings.advertise, advertised_host)
        self._address = join_address(advertised_host, advertised_port or self._server.listener.port)
        self._advertised_host = advertised_host
        self._listen_host = host
        options = settings.node
        self._memory_bytes_max = memory_bytes("--memory-max", options.actor.memory_max) or default_bytes(
            options.actors
        )
        self._link = CoordinatorLink(
            CoordinatorLinkSettings(
                settings.coordinator,
                settings.cluster,
                self._identity,
                keeper_of="" if options.actor.durability == "none" else settings.name,
                credentials=credentials,
            ),
            on_map=lambda cluster_map: self._step(ins.MapSeen(cluster_map)),
            on_up=lambda: self._step(ins.CoordinatorUp()),
            on_down=lambda: self._step(ins.CoordinatorDown()),
            on_refused=lambda reason: self._step(ins.CoordinatorRefused(reason)),
        )
        agent = AgentSettings(
            settings.name, self._address, host_identity(), options.drain_seconds, zone=settings.zone
        )
        self._agent = Agent(agent, now_ns())
        self._http = self._http_port(credentials, tokens) if settings.http else None
        self._marks = MarkFiles()
        self._terminal = Terminal()
        self._stepped = trio.Event()
        self._told_to_stop = trio.Event()
        self._finished = trio.Event()
        self._error: GreenroomError | None = None
        # Set by `run`.
        self._services: trio.Nursery | None = None
        self._supervisor: Supervisor | None = None

    def _http_port(self, keys: Keys | None, tokens: Tokens | None) -> HttpPort:
        settings = self._settings
        view = NodeView(
            settings.name,
            settings.node.actors,
            self._agent,
            self._link,
            self._server.listener,
            keys,
            lambda: self._supervisor,
        )
        insecure = settings.insecure_plaintext_beyond_loopback
        return HttpPort(
            HttpSettings(settings.cluster, settings.http, settings.tls, keys, tokens, insecure=insecure), view
        )

    @property
    def address(self) -> str:
        """The address at which others reach the node."""
        return self._address

    async def run(self) -> None:
        """Run the node until it is asked to stop.

        Raises RestartLimitError if an actor keeps ending, UsageError if it cannot join with these settings,
        NameTakenError if another node took its name over.
        """
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
            async with open_tasks() as services:
                self._services = services
                for service in (self._link.run, self._server.run, self._tick, self._watch_coordinator):
                    services.start_soon(service)
                if self._http is not None:
                    services.start_soon(self._http.run)
                async with open_supervisor(
                    self._settings.name,
                    restarts=self._settings.process.restarts,
                    on_ready=self._on_ready,
                    on_exit=self._on_exit,
                    settings=SupervisionSettings(hang_seconds=self._settings.process.hang_seconds),
                    log_settings=self._settings.process.logs,
                ) as supervisor:
                    self._supervisor = supervisor
                    self._start_children(supervisor)
                    services.start_soon(self._obey, signals)
                    await self._told_to_stop.wait()
                self._step(ins.ChildrenStopped())
                await self._finished.wait()
                services.cancel_scope.cancel()
        self._marks.close()
        if self._error is not None:
            raise self._error

    def _start_children(self, supervisor: Supervisor) -> None:
        for index in range(self._settings.node.actors):
            supervisor.start_child(self._child_spec(index))
        _log.info(
            "node_started",
            node=self._settings.name,
            address=self._address,
            actors=self._settings.node.actors,
            memory_mib_max_per_actor=self._memory_bytes_max >> 20,
        )
        warn_if_short(self._settings.node.actors, self._memory_bytes_max)

    def _child_spec(self, index: int) -> ChildSpec:
        settings = self._settings
        slot = f"{settings.name}/{index}"
        port = settings.actor_port_base + index if settings.actor_port_base else 0
        options = msgspec.structs.replace(settings.node.actor, memory_max=str(self._memory_bytes_max))
        directory = actor_directory(settings.data_dir, options.durability, index)

        def actor_settings(incarnation: bytes) -> ActorSettings:
            self._step(ins.ChildStarting(slot, incarnation))
            return ActorSettings(
                incarnation=incarnation,
                slot=slot,
                cluster=settings.cluster,
                coordinator=settings.coordinator,
                host=self._listen_host,
                port=port,
                advertise_host=self._advertised_host,
                mark_path=self._marks.open(slot, incarnation),
                directory=directory,
                options=options,
                tls=settings.tls,
                insecure=settings.insecure_plaintext_beyond_loopback,
                proof=settings.proof,
            )

        return ChildSpec(slot, run_actor, actor_settings)

    # --- what happens ------------------------------------------------------------------------------------

    def _on_ready(self, child: ChildProcess) -> None:
        disk = child.disk
        self._step(
            ins.ChildReady(
                child.name,
                child.incarnation,
                child.address,
                child.pid,
                child.started_ticks,
                disk.durability,
                disk.directory,
                disk.mark,
            )
        )

    def _on_exit(self, child: ChildProcess) -> None:
        self._step(self._marks.ended(child))

    async def _obey(self, signals: AsyncIterator[int]) -> None:
        async for number in signals:
            if number == signal.SIGHUP and not self._terminal.is_gone():
                if self._supervisor is not None:
                    self._supervisor.reload()
                continue
            _log.info("node_stops", node=self._settings.name, signal=signal.Signals(number).name)
            self._step(ins.DrainAsked() if number == signal.SIGTERM else ins.StopAsked())

    async def _tick(self) -> NoReturn:
        while True:
            due = self._agent.next_deadline()
            with trio.move_on_after(max(0.0, (due - now_ns()) / 1e9)):
                await self._stepped.wait()
            if now_ns() >= due:
                self._step(ins.Tick())
            # Only now: a step of our own must not wake us, ten times a second.
            self._stepped = trio.Event()

    async def _watch_coordinator(self) -> NoReturn:
        """Log that the coordinator is away, and when it is back."""
        told, first, lost_at = False, True, 0.0
        while True:
            away = self._link.away_seconds
            patience = self._patience_seconds if self._link.map is None else _UNREACHABLE_SECONDS
            if told and not away:
                # A warning, like the one that it ends; but information if there was no connection before.
                seconds = round(trio.current_time() - lost_at, 1)
                if first:
                    _log.info("coordinator_reached", address=self._settings.coordinator)
                else:
                    _log.warning(
                        "coordinator_reached", address=self._settings.coordinator, away_seconds=seconds
                    )
                told = False
            elif not told and away >= patience:
                told, first, lost_at = True, self._link.map is None, trio.current_time() - away
                _log.warning(
                    "coordinator_unreachable",
                    reason=self._link.failure,
                    hint="is it running, and is --coordinator (GREENROOM_COORDINATOR) its address? On "
                    "etcd name all coordinators: one that stands by does not listen",
                )
            await trio.sleep(_WATCH_COORDINATOR_SECONDS)

    # --- what is done ------------------------------------------------------------------------------------

    def _step(self, event: ins.AgentInput) -> None:
        for effect in self._agent.step(now_ns(), event):
            self._perform(effect)
        self._stepped.set()

    def _perform(self, effect: fx.AgentEffect) -> None:
        match effect:
            case fx.Heartbeat(node=node, suspicions=suspicions, marks=marks):
                self._link.heartbeat(node, suspicions, marks)
            case fx.Call():
                assert self._services is not None
                self._services.start_soon(self._call, effect)
            case fx.Publish(map=cluster_map):
                self._server.publish(cluster_map)
            case fx.LookFor(actors=actors):
                self._look_for(actors)
            case fx.ReadMarks():
                if self._supervisor is not None:
                    self._step(ins.MarksRead(self._marks.read(self._supervisor.children.values())))
            case fx.KillChild(slot=slot):
                if self._supervisor is not None:
                    self._supervisor.kill_child(slot)
            case fx.StopChildren():
                self._told_to_stop.set()
            case fx.Finished(error=error):
                self._error = error
                self._finished.set()
            case fx.Log(level=level, event=event, fields=fields):
                getattr(_log, level)(event, **fields)

    async def _call(self, call: fx.Call) -> None:
        reply: Accepted | Rejected | None = None
        try:
            reply = await self._link.call(
                lambda number: msgspec.structs.replace(call.request, request_id=number)
            )
        except CoordinatorUnreachableError as error:
            _log.warning("coordinator_silent", reason=str(error))
        self._step(ins.Answered(call.call, reply))

    def _look_for(self, actors: tuple[ActorEntry, ...]) -> None:
        running: list[bytes] = []
        gone: list[bytes] = []
        for actor in actors:
            (running if is_alive(actor.pid, actor.started_ticks) else gone).append(actor.incarnation)
        self._step(ins.Looked(tuple(running), tuple(gone)))


async def _take_actor_ports(settings: NodeSettings) -> None:
    """Raise UsageError, before others learn of the node, if its actors could not listen."""
    first = settings.actor_port_base
    if not first:
        return
    host, port = parse_address(settings.listen, any_port=True)
    ports = range(first, first + settings.node.actors)
    if port in ports:
        raise UsageError(
            f"{ACTOR_PORT_OPTION} {first} gives ports {first} to {ports[-1]} to the actors, and the node "
            f"listens on {port} itself (--listen): choose another for one of them"
        )
    await wait_for_ports(host, ports, ACTOR_PORT_OPTION, _PORT_SECONDS)


async def run_node(
    settings: NodeSettings,
    started: Callable[[str], Awaitable[None]] | None = None,
    *,
    patience_seconds: float = _UNREACHABLE_SECONDS,
) -> None:
    """Run a node until SIGTERM or SIGINT; `started(address)` once it listens.

    Raises UsageError for impossible settings, RestartLimitError if an actor keeps ending.
    """
    settings.check()
    refuse_kept(settings.data_dir, settings.node.actor.durability, settings.node.actors)
    refuse_unusable(settings.data_dir, settings.node.actor.durability, settings.node.actors, settings.cluster)
    raise_descriptor_limit()
    await _take_actor_ports(settings)
    node = Node(settings, patience_seconds)
    if started is not None:
        await started(node.address)
    await node.run()
