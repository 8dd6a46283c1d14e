"""The coordinator's server: sockets, disk and clock around the pure `Coordinator`.

Group commit: what arrives while a map is being written is decided as one batch and written with one fsync.
The writing is done in a thread, so the loop goes on reading. Nothing that rests on a map leaves the process
before that map is on disk; if it cannot be written, the process ends.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import msgspec
import structlog
import trio

from greenroom import wire
from greenroom.cluster_map import CLUSTER_IDENTITY_BYTES, ClusterMap
from greenroom.framing import messages_decoder
from greenroom_cluster.access import AT_COORDINATOR
from greenroom_cluster.controller import Controller, ControllerSettings
from greenroom_cluster.coordination.coordinator import (
    NEVER,
    ConnectionClosed,
    Coordinator,
    CoordinatorSettings,
    Incoming,
    Outcome,
)
from greenroom_cluster.coordination.genesis import ClusterOptions, identified, renumbered, starting_map
from greenroom_cluster.coordination.storage import MapStorage
from greenroom_cluster.runtime.adoption import maps_of
from greenroom_cluster.runtime.clocks import now_ns
from greenroom_cluster.runtime.connection import FramedConnection
from greenroom_cluster.runtime.descriptors import raise_descriptor_limit
from greenroom_cluster.runtime.listener import IDENTITY_BYTES, Listener, ListenerSettings, Service
from greenroom_cluster.runtime.map_publisher import MapPublisher

# Requests that wait for the disk; beyond that their connections are not read.
WAITING_MAX = 16_384

_log = structlog.get_logger(__name__)


class CoordinatorServerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where the coordinator listens and keeps its map. Port 0: any free one."""

    options: ClusterOptions
    data_dir: str
    host: str = "127.0.0.1"
    port: int = 0
    advertise_host: str = ""
    node_down_seconds: float = 2.0
    controller: ControllerSettings = ControllerSettings()
    connections_max: int = 10_000


class CoordinatorServer:
    """Serves one coordinator. Raises what MapStorage, `starting_map` and Listener raise."""

    def __init__(self, settings: CoordinatorServerSettings) -> None:
        self._controller = Controller(settings.controller)
        self._storage = MapStorage(Path(settings.data_dir))
        try:
            stored = self._storage.load()
            first = starting_map(stored, settings.options, identity=os.urandom(CLUSTER_IDENTITY_BYTES))
            if first is not stored:
                self._storage.vouch()
                self._storage.save(first)
            if not first.identity:
                first = identified(first)
                self._storage.save(first)
            proven, stored_version = self._storage.vouched, first.version
            if not proven:
                first = renumbered(first, time.time_ns() // 1_000_000)
                self._storage.save(first)
                _log.info("coordinator_unproven", data_dir=settings.data_dir, version=first.version)
            self.listener = Listener(
                ListenerSettings(
                    cluster=first.cluster,
                    identity=os.urandom(IDENTITY_BYTES),
                    host=settings.host,
                    port=settings.port,
                    connections_max=settings.connections_max,
                ),
                {
                    role: Service(messages_decoder(kinds), self._handle, answers_shared=True)
                    for role, kinds in AT_COORDINATOR.items()
                },
            )
        except BaseException:
            self._storage.close()
            raise
        self._coordinator = Coordinator(
            first,
            CoordinatorSettings(settings.node_down_seconds),
            now_ns(),
            proven=proven,
            stored_version=stored_version,
        )
        self._publisher = MapPublisher()
        self._publisher.publish(first)
        self._connections: dict[int, FramedConnection] = {}
        self._waiting: list[Incoming] = []
        self._shown: list[list[ClusterMap]] = []
        self._tasks: trio.Nursery | None = None
        self._wake = trio.Event()
        self._room = trio.Event()

    @property
    def map(self) -> ClusterMap | None:
        """The newest map that is on disk."""
        return self._publisher.map

    async def run(self) -> None:
        """Serve until cancelled. Raises StorageFailedError when the map cannot be written."""
        try:
            async with trio.open_nursery() as nursery:
                self._tasks = nursery
                nursery.start_soon(self.listener.run)
                await self._decide_forever()
        finally:
            self._storage.close()

    async def _handle(self, connection: FramedConnection, hello: wire.Hello, number: int) -> None:
        self._connections[number] = connection
        try:
            while True:
                subscribed = False
                for message in await connection.receive():
                    if isinstance(message, wire.Subscribe):
                        # The map is long: once is enough for all that came at once.
                        if subscribed:
                            continue
                        subscribed = True
                    self._waiting.append(Incoming(number, hello.sender, message, hello.role))
                self._wake.set()
                while len(self._waiting) >= WAITING_MAX:
                    await self._room.wait()
        finally:
            del self._connections[number]
            self._publisher.forget(number)
            self._waiting.append(Incoming(number, hello.sender, ConnectionClosed()))
            self._wake.set()

    async def _decide_forever(self) -> NoReturn:
        await self._plan()
        while True:
            await self._sleep_until_due()
            self._wake = trio.Event()
            batch, self._waiting = self._waiting, []
            room, self._room = self._room, trio.Event()
            room.set()
            await self._perform(self._coordinator.decide(now_ns(), batch))
            while self._shown:
                await self._perform(self._coordinator.shown(now_ns(), self._shown.pop()))
            await self._plan()

    async def _sleep_until_due(self) -> None:
        due = min(self._coordinator.next_deadline(), self._controller.next_deadline())
        # Even without a deadline a look a minute costs nothing, and bounds what a clock's jump can do.
        seconds = 60.0 if due >= NEVER else min(60.0, max(0.001, (due - now_ns()) / 1e9))
        with trio.move_on_after(seconds):
            await self._wake.wait()

    async def _plan(self) -> None:
        while plan := self._controller.step(now_ns(), self._coordinator.map):
            await self._perform(self._coordinator.want(plan))

    async def _ask_for_maps(self, addresses: tuple[str, ...]) -> None:
        """Ask nodes which map they hold, because somebody claims that there is a later one than ours."""
        self._shown.append(await maps_of(addresses, self._coordinator.map.cluster))
        self._wake.set()

    async def _perform(self, outcome: Outcome) -> None:
        if outcome.ask and self._tasks is not None:
            self._tasks.start_soon(self._ask_for_maps, outcome.ask)
        for warning in outcome.warnings:
            _log.warning("coordinator_warning", message=warning)
        if outcome.persist is not None:
            # Not abandoned on cancellation: the map is on disk for good or the process ends.
            await trio.to_thread.run_sync(self._storage.save, outcome.persist)
            self._publisher.publish(outcome.persist, outcome.delta)
        if not self._storage.vouched and self._coordinator.proven(now_ns()):
            self._storage.vouch()
            _log.info("coordinator_proven", version=self._coordinator.map.version)
        answers: dict[int, list[wire.Frame]] = {}
        for response in outcome.responses:
            connection = self._connections.get(response.connection)
            if connection is None:
                continue
            if isinstance(response.message, wire.MapFull):
                # What was asked before goes first; the publisher holds the map encoded.
                connection.send(answers.pop(response.connection, ()))
                self._publisher.subscribe(response.connection, connection)
            else:
                answers.setdefault(response.connection, []).append(response.message)
        for number, messages in answers.items():
            connection = self._connections[number]
            connection.send(messages)
            if isinstance(messages[-1], wire.Goodbye):
                connection.end_sending()


async def run_coordinator(settings: CoordinatorServerSettings, started: Callable[[str], None]) -> None:
    """Run a coordinator until cancelled; `started(address)` is called once it accepts connections.

    Raises UsageError for options that do not fit, MapDamagedError, StorageFailedError.
    """
    raise_descriptor_limit()
    server = CoordinatorServer(settings)
    address = server.listener.address(settings.advertise_host)
    _log.info("coordinator_started", address=address, data_dir=settings.data_dir)
    started(address)
    await server.run()
