"""A whole small cluster in one event loop: the real coordinator, real actors and cores, real sockets."""

import os
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from greenroom import wire
from greenroom.cluster_map import ActorEntry, ClusterMap, NodeEntry
from greenroom_cluster.coordination.genesis import ClusterOptions
from greenroom_cluster.coordination.messages import Accepted, RegisterActor, RegisterNode, ReportDead
from greenroom_cluster.planning.controller import ControllerSettings
from greenroom_cluster.runtime.actor import Actor, ActorSettings
from greenroom_cluster.runtime.connection import FramedConnection
from greenroom_cluster.runtime.coordinator import CoordinatorServer, CoordinatorServerSettings
from greenroom_cluster.runtime.coordinator_link import CoordinatorLink, CoordinatorLinkSettings
from greenroom_cluster.runtime.dialing import dial
from greenroom_cluster.shard.host import Host
from greenroom_cluster.shard.settings import HostSettings
from tests.cluster.runtime.loopback import CLUSTER, client_decoder, hello, until

SHARDS = 8


class CoreFailedError(Exception):
    """A core failed; outside of tests the process would have ended."""


def fail(status: int) -> None:
    raise CoreFailedError(status)


class RunningActor:
    def __init__(self, name: str, coordinator: str) -> None:
        self.name = name
        self.incarnation = os.urandom(16)
        self.settings = ActorSettings(
            incarnation=self.incarnation,
            slot=f"{name}/0",
            cluster=CLUSTER,
            coordinator=coordinator,
        )
        core = Host(self.incarnation, self.settings.slot, HostSettings(), random.Random(1))
        self.core = core
        self.actor = Actor(self.settings, core, fail)
        self.scope = trio.CancelScope()

    async def run(self) -> None:
        with self.scope:
            await self.actor.run()

    @property
    def entry(self) -> ActorEntry:
        return ActorEntry(
            self.incarnation,
            self.name,
            self.settings.slot,
            self.actor.listener.address(),
            "up",
            "host",
            os.getpid(),
            1,
        )


class SmallCluster:
    def __init__(self, server: CoordinatorServer, nursery: trio.Nursery) -> None:
        self.server = server
        self.nursery = nursery
        self.coordination = trio.CancelScope()
        self.actors: dict[str, RunningActor] = {}
        self.link = CoordinatorLink(
            CoordinatorLinkSettings(server.listener.address(), CLUSTER, os.urandom(16))
        )

    async def coordinate(self) -> None:
        """Run the coordinator until `stop_coordinator`."""
        with self.coordination:
            await self.server.run()

    def stop_coordinator(self) -> None:
        self.coordination.cancel()

    @property
    def map(self) -> ClusterMap:
        assert self.server.map is not None
        return self.server.map

    async def ask(self, make_request: Callable[[int], Any]) -> None:
        assert isinstance(await self.link.call(make_request), Accepted)

    async def start_actor(self, name: str) -> RunningActor:
        actor = self.actors[name] = RunningActor(name, self.server.listener.address())
        self.nursery.start_soon(actor.run)
        node = NodeEntry(name, actor.actor.listener.address(), "up")
        await self.ask(lambda number: RegisterNode(number, node))
        await self.ask(lambda number: RegisterActor(number, actor.entry))
        return actor

    async def kill(self, name: str) -> None:
        actor = self.actors.pop(name)
        actor.scope.cancel()
        await until(lambda: actor.actor.listener.connections == 0)
        await self.ask(lambda number: ReportDead(number, (actor.incarnation,)))

    def replicated(self) -> bool:
        return all(len(entry.members) == 2 for entry in self.map.shards)

    def serving(self) -> bool:
        alive = {actor.incarnation for actor in self.actors.values()}
        return all(entry.primary in alive for entry in self.map.shards)

    async def client(self, name: str, sender: bytes = b"C" * 16) -> FramedConnection:
        address = self.actors[name].actor.listener.address()
        connection, _ = await dial(address, hello(sender=sender), self.nursery)
        connection.speak(client_decoder)
        return connection

    def primary_name(self, point: int) -> str:
        entry = self.map.shards[point >> 13]
        return next(name for name, actor in self.actors.items() if actor.incarnation == entry.primary)


@asynccontextmanager
async def small_cluster(directory: Path, *names: str) -> AsyncIterator[SmallCluster]:
    server = CoordinatorServer(
        CoordinatorServerSettings(
            options=ClusterOptions(CLUSTER, shards=SHARDS),
            data_dir=str(directory),
            node_down_seconds=600,  # no supervisor here sends heartbeats
            controller=ControllerSettings(settle_seconds=0.05, settle_seconds_max=0.5),
        )
    )
    async with trio.open_nursery() as nursery:
        cluster = SmallCluster(server, nursery)
        nursery.start_soon(cluster.coordinate)
        nursery.start_soon(cluster.link.run)
        for name in names:
            await cluster.start_actor(name)
        await until(cluster.replicated if len(names) > 1 else cluster.serving, 20)
        yield cluster
        nursery.cancel_scope.cancel()


def create(request_id: int, point: int = 0, data: bytes = b"\x80", *, low: int = 1) -> wire.Create:
    digest = request_id.to_bytes(32, "big")
    return wire.Create(request_id, low, 0, point, digest, None, 1, 1 << 52, None, "", data)


def read(request_id: int, created: int, point: int = 0) -> wire.Get:
    return wire.Get(request_id, point, created.to_bytes(32, "big"))
