"""`greenroom node`: the process that supervises the actors of one node, and answers for them.

It tells the coordinator what it knows at first hand: which incarnations run, and which it has seen die. Both
are kept until the coordinator has them, so that a coordinator that is away learns them when it is back. On
the node's public address it serves the cluster map.

What is reported dead lets others take over at once, so only two things count as seen: the exit of a child
through its pidfd, and the absence, on this very host, of the process that a former supervisor of this node
had registered.

Leaving (SIGTERM): the node says so, and its actors serve on until every shard has moved to others; then they
are stopped and the node is taken out of the map. SIGINT, or a second signal, stops at once.
"""

import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import chain

import structlog
import trio

from greenroom.cluster_map import ActorEntry, ClusterMap, NodeEntry
from greenroom.errors import GreenroomError, UsageError
from greenroom_cluster.config import NodeSettings, memory_bytes
from greenroom_cluster.coordination.messages import (
    NAME_TAKEN,
    Accepted,
    CoordinatorRequest,
    RegisterActor,
    RegisterNode,
    RemoveNode,
    ReportDead,
    Suspicion,
)
from greenroom_cluster.runtime.actor import ActorSettings, run_actor
from greenroom_cluster.runtime.addresses import join_address, split_address
from greenroom_cluster.runtime.coordinator_link import (
    CoordinatorLink,
    CoordinatorLinkSettings,
    CoordinatorUnreachableError,
)
from greenroom_cluster.runtime.descriptors import raise_descriptor_limit
from greenroom_cluster.runtime.host_memory import default_bytes, warn_if_short
from greenroom_cluster.runtime.listener import ListenerSettings
from greenroom_cluster.runtime.map_server import MapServer
from greenroom_cluster.runtime.marks import RecordWatches
from greenroom_cluster.runtime.ports import ACTOR_PORT_OPTION, wait_for_ports
from greenroom_cluster.runtime.processes import host_identity, is_alive
from greenroom_cluster.runtime.supervision import (
    ChildProcess,
    ChildSpec,
    SupervisionSettings,
    Supervisor,
    open_supervisor,
)
from greenroom_cluster.runtime.tasks import open_tasks
from greenroom_cluster.shard.settings import HostSettings
from greenroom_cluster.suspicion import WATCH_SECONDS, bounded

HEARTBEAT_SECONDS = 0.5
_RETRY_SECONDS = 0.25
_PREDECESSOR_SECONDS = 0.05
_FAREWELL_SECONDS = 0.5
_ALONE_SECONDS = 2.0
# A little longer than the coordinator takes to give up a predecessor of whose end it was not told.
_REFUSED_SECONDS = 3.0
_UNREACHABLE_SECONDS = 2.0
# What the actors of a node that was killed may take to follow it.
_PORT_SECONDS = 2.0

UP = "up"
LEAVING = "leaving"
DEAD = "dead"

_log = structlog.get_logger("greenroom.node")


class NameTakenError(GreenroomError):
    """Another node has taken over the name of this one, which stops."""


class _Bell:
    """Wakes the one task that waits on it; a ring before it waits is not lost."""

    def __init__(self) -> None:
        self._event = trio.Event()

    def ring(self) -> None:
        self._event.set()

    async def wait(self, seconds: float = float("inf")) -> None:
        with trio.move_on_after(seconds):
            await self._event.wait()
        self._event = trio.Event()


class Node:
    """One node's supervisor process. Binds the public address at construction (UsageError if it cannot)."""

    def __init__(self, settings: NodeSettings) -> None:
        self._settings = settings
        self._identity = os.urandom(16)
        self._host_identity = host_identity()
        host, port = split_address(settings.listen)
        self._server = MapServer(
            ListenerSettings(cluster=settings.cluster, identity=self._identity, host=host, port=port)
        )
        advertised_host, advertised_port = split_address(settings.advertise or settings.listen)
        self._address = join_address(advertised_host, advertised_port or self._server.listener.port)
        self._advertised_host = advertised_host
        self._listen_host = host
        self._memory_bytes_max = memory_bytes("--memory-max", settings.memory_max) or default_bytes(
            settings.actors
        )
        self._link = CoordinatorLink(
            CoordinatorLinkSettings(settings.coordinator, settings.cluster, self._identity),
            on_map=self._on_map,
            on_up=self._on_coordinator_up,
            on_refused=self._on_refused,
        )
        self._state = UP
        self._joined = False
        self._failure: GreenroomError | None = None
        self._failed = trio.Event()
        self._refused_since: float | None = None
        self._actors: dict[bytes, ActorEntry] = {}
        self._unreported: dict[bytes, tuple[Suspicion, ...]] = {}
        self._watches = RecordWatches()
        self._actors_changed = _Bell()
        self._deaths_seen = _Bell()
        self._all_reported = _Bell()
        self._map_changed = _Bell()
        self._shards_moved = _Bell()
        self._leaving_map = False

    @property
    def address(self) -> str:
        """What others reach the node by."""
        return self._address

    async def run(self) -> None:
        """Run the node until it is told to stop.

        Raises RestartLimitError if an actor keeps ending, UsageError if it cannot join with these settings,
        NameTakenError if another took its name over.
        """
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async with open_tasks() as services:
                for service in (self._link.run, self._server.run, self._beat, self._report_deaths):
                    services.start_soon(service)
                async with open_supervisor(
                    self._settings.name,
                    restarts=self._settings.restarts,
                    on_ready=self._on_ready,
                    on_exit=self._on_exit,
                    settings=SupervisionSettings(hang_seconds=self._settings.hang_seconds),
                    log_settings=self._settings.logs,
                ) as supervisor:
                    services.start_soon(self._watch_records, supervisor)
                    await self._serve(supervisor, signals)
                await self._say_farewell()
                services.cancel_scope.cancel()
        self._watches.close()
        if self._failure is not None:
            raise self._failure

    async def _serve(self, supervisor: Supervisor, signals: AsyncIterator[int]) -> None:
        for index in range(self._settings.actors):
            supervisor.start_child(self._child_spec(index))
        _log.info(
            "node_started",
            node=self._settings.name,
            address=self._address,
            actors=self._settings.actors,
            memory_mib_max_per_actor=self._memory_bytes_max >> 20,
        )
        warn_if_short(self._settings.actors, self._memory_bytes_max)
        async with open_tasks() as tasks:
            tasks.start_soon(self._register, supervisor)
            tasks.start_soon(self._bury_predecessors)
            tasks.start_soon(self._end_on_failure, tasks.cancel_scope)
            number = await anext(signals)
            _log.info("node_stops", node=self._settings.name, signal=signal.Signals(number).name)
            if number == signal.SIGTERM and self._joined:
                await self._drain(signals)
            tasks.cancel_scope.cancel()

    async def _end_on_failure(self, scope: trio.CancelScope) -> None:
        await self._failed.wait()
        scope.cancel()

    def _fail(self, error: GreenroomError) -> None:
        self._failure = self._failure or error
        self._failed.set()

    def _child_spec(self, index: int) -> ChildSpec:
        settings = self._settings
        slot = f"{settings.name}/{index}"
        port = settings.actor_port_base + index if settings.actor_port_base else 0

        def actor_settings(incarnation: bytes) -> ActorSettings:
            return ActorSettings(
                incarnation=incarnation,
                slot=slot,
                cluster=settings.cluster,
                coordinator=settings.coordinator,
                host=self._listen_host,
                port=port,
                advertise_host=self._advertised_host,
                linger_seconds=settings.linger_seconds,
                mark_path=self._watches.begin(slot, incarnation),
                core=HostSettings(memory_bytes_max=self._memory_bytes_max, eviction=settings.evict),
            )

        return ChildSpec(slot, run_actor, actor_settings)

    # --- what the supervisor and the coordinator tell ----------------------------------------------------

    def _on_ready(self, child: ChildProcess) -> None:
        self._actors[child.incarnation] = ActorEntry(
            incarnation=child.incarnation,
            node=self._settings.name,
            slot=child.name,
            address=child.address,
            state=UP,
            host=self._host_identity,
            pid=child.pid,
            started_ticks=child.started_ticks,
        )
        self._actors_changed.ring()

    def _on_exit(self, child: ChildProcess) -> None:
        self._actors.pop(child.incarnation, None)
        self._unreported[child.incarnation] = self._watches.ended(child)
        self._deaths_seen.ring()

    def _on_map(self, cluster_map: ClusterMap) -> None:
        self._server.publish(cluster_map)
        for bell in (self._map_changed, self._shards_moved, self._actors_changed):
            bell.ring()

    def _on_coordinator_up(self) -> None:
        if self._joined:
            # A coordinator that was restarted knows by this whose name it is.
            self._link.heartbeat(self._settings.name, self._watches.suspicions)
        self._actors_changed.ring()
        self._deaths_seen.ring()

    def _on_refused(self, reason: str) -> None:
        if self._link.map is None:
            self._fail(UsageError(reason))

    # --- what the coordinator is told --------------------------------------------------------------------

    async def _beat(self) -> None:
        told, first, lost_at = False, True, 0.0
        while True:
            if self._joined and not self._leaving_map:
                self._link.heartbeat(self._settings.name, self._watches.suspicions)
            away = self._link.away_seconds
            if told and not away:
                # As loud as the alarm that it ends, but at the start nothing was lost.
                seconds = round(trio.current_time() - lost_at, 1)
                if first:
                    _log.info("coordinator_reached", address=self._settings.coordinator)
                else:
                    _log.warning(
                        "coordinator_reached", address=self._settings.coordinator, away_seconds=seconds
                    )
                told = False
            elif not told and away >= _UNREACHABLE_SECONDS:
                told, first, lost_at = True, self._link.map is None, trio.current_time() - away
                _log.warning(
                    "coordinator_unreachable",
                    reason=self._link.failure,
                    hint="is it running, and is --coordinator (GREENROOM_COORDINATOR) its address?",
                )
            await trio.sleep(HEARTBEAT_SECONDS)

    async def _watch_records(self, supervisor: Supervisor) -> None:
        """Tell of a record on which an actor hangs, before the actor's shards are taken over."""
        while True:
            await trio.sleep(WATCH_SECONDS)
            if self._watches.look(supervisor.children) and self._joined and not self._leaving_map:
                self._link.heartbeat(self._settings.name, self._watches.suspicions)

    async def _call(self, request: Callable[[int], CoordinatorRequest]) -> bool:
        """Whether the coordinator accepted it; False as well if it is away, then it is tried again."""
        try:
            reply = await self._link.call(request)
        except CoordinatorUnreachableError as error:
            _log.warning("coordinator_silent", reason=str(error))
            return False
        if isinstance(reply, Accepted):
            return True
        if reply.code == NAME_TAKEN:
            self._name_taken(reply.reason)
        else:
            _log.warning("request_rejected", reason=reply.reason)
        return False

    def _name_taken(self, reason: str) -> None:
        """Give the coordinator time to give up a predecessor, but never fight with one that is alive."""
        now = trio.current_time()
        if self._joined:
            if self._failure is None:
                _log.error("name_taken_over", node=self._settings.name, reason=reason)
            self._fail(NameTakenError(f"this node's name was taken over while it was silent: {reason}"))
        elif self._refused_since is None:
            self._refused_since = now
            _log.info("name_refused", node=self._settings.name, reason=reason)
        elif now - self._refused_since >= _REFUSED_SECONDS:
            self._fail(UsageError(reason))

    async def _report_deaths(self) -> None:
        """Report them, once this node has its name: none but its owner may."""
        while True:
            while self._joined and self._unreported:
                dead = tuple(self._unreported)
                suspicions = bounded(chain.from_iterable(self._unreported.values()))
                if await self._call(lambda number, report=(dead, suspicions): ReportDead(number, *report)):  # type: ignore[misc]
                    for incarnation in dead:
                        self._unreported.pop(incarnation, None)
                    _log.info("deaths_reported", incarnations=[incarnation.hex() for incarnation in dead])
                else:
                    await trio.sleep(_RETRY_SECONDS)
            self._all_reported.ring()
            await self._deaths_seen.wait()

    async def _register(self, supervisor: Supervisor) -> None:
        """Make the map say what is: this node in its state, and every actor that is ready."""
        while True:
            done = await self._register_once(supervisor) if self._link.up else True
            await self._actors_changed.wait(float("inf") if done else _RETRY_SECONDS)

    async def _register_once(self, supervisor: Supervisor) -> bool:
        cluster_map = self._link.map
        assert cluster_map is not None
        entry = NodeEntry(self._settings.name, self._address, self._state)
        if not self._joined or cluster_map.nodes.get(entry.name) != entry:
            if not await self._call(lambda number: RegisterNode(number, entry)):
                return False
            if not self._joined:
                self._joined = True
                self._deaths_seen.ring()
                _log.info("node_joined", node=entry.name, address=entry.address)
        accepted = True
        for actor in list(self._actors.values()):
            known = cluster_map.actors.get(actor.incarnation)
            if known == actor:
                continue
            if known is not None and known.state == DEAD:
                # Forgotten by an operator while it was out of reach. Only a new incarnation can come back.
                _log.warning("actor_counts_as_dead", slot=actor.slot)
                self._actors.pop(actor.incarnation)
                supervisor.kill_child(actor.slot)
            elif known is not None:
                self._name_taken(f"another has registered {actor.slot}: give this one another --name")
                return False
            else:
                accepted &= await self._register_actor(actor)
        return accepted

    async def _register_actor(self, actor: ActorEntry) -> bool:
        if not await self._call(lambda number: RegisterActor(number, actor)):
            return False
        _log.info("actor_registered", slot=actor.slot, incarnation=actor.incarnation.hex())
        return True

    async def _bury_predecessors(self) -> None:
        """Report what a former supervisor of this node left registered, once it is gone from this host.

        Its actors follow it within moments, so those that still run are looked at again.
        """
        while True:
            waiting = False
            cluster_map = self._link.map
            for actor in cluster_map.actors.values() if cluster_map is not None else ():
                if (
                    actor.node != self._settings.name
                    or actor.host != self._host_identity
                    or actor.state == DEAD
                    or actor.incarnation in self._actors
                    or actor.incarnation in self._unreported
                ):
                    continue
                if is_alive(actor.pid, actor.started_ticks):
                    waiting = True
                else:
                    self._unreported[actor.incarnation] = ()
                    self._deaths_seen.ring()
            await self._map_changed.wait(_PREDECESSOR_SECONDS if waiting else float("inf"))

    # --- leaving -----------------------------------------------------------------------------------------

    async def _drain(self, signals: AsyncIterator[int]) -> None:
        """Wait until others have every shard, at most `drain_seconds`, or until a second signal."""
        self._state = LEAVING
        self._actors_changed.ring()
        async with open_tasks() as tasks:
            tasks.start_soon(_first, signals, tasks.cancel_scope)
            with trio.move_on_after(self._settings.drain_seconds) as limit:
                while self._shards_held():
                    if self._others_up():
                        await self._shards_moved.wait()
                    elif await self._stays_alone():
                        break
            tasks.cancel_scope.cancel()
        if limit.cancelled_caught or self._shards_held():
            if not self._others_up():
                hint = "no other node is up: the sessions that only this node holds are lost"
            elif limit.cancelled_caught:
                hint = "a longer --drain-seconds may help"
            else:
                hint = "a second signal ended the wait"
            _log.warning(
                "not_all_handed_over",
                shards=self._shards_held(),
                others_up=self._others_up(),
                hint=hint,
            )

    async def _stays_alone(self) -> bool:
        """Whether no other node comes up within a while: a late heartbeat must not cost sessions."""
        with trio.move_on_after(_ALONE_SECONDS) as limit:
            while not self._others_up():
                await self._shards_moved.wait()
        return limit.cancelled_caught

    def _shards_held(self) -> int:
        cluster_map = self._link.map
        if cluster_map is None:
            return 0
        ours = {
            actor.incarnation for actor in cluster_map.actors.values() if actor.node == self._settings.name
        }
        return sum(not ours.isdisjoint(shard.members) for shard in cluster_map.shards)

    def _others_up(self) -> bool:
        cluster_map = self._link.map
        return cluster_map is not None and any(
            node.state == UP and node.name != self._settings.name for node in cluster_map.nodes.values()
        )

    async def _say_farewell(self) -> None:
        """With all actors stopped: report that, and take a node that left for good out of the map."""
        removed = False
        with trio.move_on_after(_FAREWELL_SECONDS):
            while self._joined and self._unreported and self._link.up:
                await self._all_reported.wait()
            if self._state == LEAVING and self._failure is None and not self._shards_held():
                # No heartbeat may follow: it would be one of a node that nobody knows.
                self._leaving_map = True
                removed = await self._call(lambda number: RemoveNode(number, self._settings.name))
        _log.info("node_stopped", node=self._settings.name, removed=removed)


async def _first(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    await anext(signals)
    scope.cancel()


async def _take_actor_ports(settings: NodeSettings) -> None:
    """Raise UsageError if the actors could not listen: before others learn of the node."""
    first = settings.actor_port_base
    if not first:
        return
    host, port = split_address(settings.listen)
    ports = range(first, first + settings.actors)
    if port in ports:
        raise UsageError(
            f"{ACTOR_PORT_OPTION} {first} gives ports {first} to {ports[-1]} to the actors, and the node "
            f"listens on {port} itself (--listen): choose another for one of them"
        )
    await wait_for_ports(host, ports, ACTOR_PORT_OPTION, _PORT_SECONDS)


async def run_node(settings: NodeSettings, started: Callable[[str], Awaitable[None]] | None = None) -> None:
    """Run a node until SIGTERM or SIGINT; `started(address)` once it listens.

    Raises UsageError for impossible settings, RestartLimitError if an actor keeps ending.
    """
    settings.check()
    raise_descriptor_limit()
    await _take_actor_ports(settings)
    node = Node(settings)
    if started is not None:
        await started(node.address)
    await node.run()
