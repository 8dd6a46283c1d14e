"""What attacks on a running tree share: its ports, and the demand that nobody is harmed."""

import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
import trio

from greenroom import ClusterStore, wire
from greenroom.addresses import parse_address
from greenroom.cluster_map import ClusterMap
from greenroom_cluster.runtime.processes import ProcessHandle
from greenroom_cluster.runtime.starter import is_starter
from tests.listening import listening_ports
from tests.system.raw import connected, hello
from tests.system.stage import Probe, SharedCluster

GROWTH_BYTES_MAX = 8 << 20


class Ports:
    """The ports of a tree of processes, and of which kind each is."""

    def __init__(self, cluster: SharedCluster, cluster_map: ClusterMap) -> None:
        self._pids = cluster.cluster.pids()
        self.coordinator = parse_address(cluster.cluster.coordinator_address)[1]
        self.nodes = {
            parse_address(node.address)[1] for node in cluster_map.nodes.values() if node.state == "up"
        }
        # The map may still name an actor that was replaced before the test began.
        self.actors = {
            parse_address(actor.address)[1]: key
            for key, actor in cluster_map.actors.items()
            if actor.state == "up"
        }
        urls = cluster.cluster.http_urls.values()
        self.http = {parse_address(url.partition("//")[2])[1] for url in urls}

    @property
    def all(self) -> set[int]:
        """The ports on which somebody listens, which only root learns."""
        return listening_ports(self._pids)

    @property
    def expected(self) -> set[int]:
        """The ports of those that are meant to listen, but for HTTP."""
        return {self.coordinator, *self.nodes, *self.actors}

    def hellos(self) -> Iterator[tuple[int, wire.Hello]]:
        """Yield a good hello for each port and role."""
        for port, incarnation in self.actors.items():
            for role in (wire.ROLE_CLIENT, wire.ROLE_ADMIN, wire.ROLE_PEER):
                yield port, hello(role, target=incarnation)
        for port in self.nodes:
            yield port, hello(wire.ROLE_CLIENT)
            yield port, hello(wire.ROLE_ADMIN)
        yield self.coordinator, hello(wire.ROLE_PEER)
        yield self.coordinator, hello(wire.ROLE_ADMIN)


def resident_bytes(pid: int) -> int:
    """Return the memory that a process holds."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def listening_as_mapped(cluster: SharedCluster) -> Ports:
    """Wait until those listen that the map names, and nobody else does."""
    ports: list[Ports] = []

    def as_mapped(cluster_map: ClusterMap) -> bool:
        ports.append(Ports(cluster, cluster_map))
        return ports[-1].all == ports[-1].expected | ports[-1].http

    try:
        await cluster.until(as_mapped)
    except trio.TooSlowError:
        pytest.fail(
            f"on {ports[-1].all} someone listens, and {ports[-1].expected | ports[-1].http} are meant to"
        )
    return ports[-1]


@asynccontextmanager
async def unharmed(cluster: SharedCluster, growth_bytes_max: int = GROWTH_BYTES_MAX) -> AsyncIterator[Ports]:
    """Have a caller work while the body attacks; no process may end, grow or stop serving."""
    ports = Ports(cluster, await cluster.map())
    pids = cluster.cluster.pids()
    # Each node: a supervisor and its actors. And the coordinator with its supervisor.
    assert len([pid for pid in pids if not is_starter(pid)]) == 2 * (1 + cluster.settings.node.actors) + 2
    processes = [ProcessHandle(pid) for pid in pids]
    seeds = ",".join(cluster.cluster.seeds)
    async with ClusterStore(seeds) as store:
        probe = Probe(store)
        await probe.begin()
        await probe.everywhere()
        before = {pid: resident_bytes(pid) for pid in pids}
        async with trio.open_nursery() as nursery:
            over = trio.Event()

            async def work() -> None:
                while not over.is_set():
                    await probe.everywhere()

            nursery.start_soon(work)
            yield ports
            over.set()
        await probe.check()
    assert not any(process.exited() for process in processes)
    assert (await cluster.healthy()).healthy
    assert cluster.cluster.pids() == pids
    grown = {pid: resident_bytes(pid) - size for pid, size in before.items()}
    assert max(grown.values()) < growth_bytes_max, grown


async def attack(port: int, data: bytes, opening: wire.Hello | None = None) -> None:
    """Send bytes, after a hello if one is given, say no more, and wait until the connection is ended."""
    with suppress(OSError, trio.BrokenResourceError):
        async with connected(port) as connection:
            if opening is not None:
                await connection.introduce(opening, port)
            await connection.stream.send_all(data)
            connection.stream.socket.shutdown(socket.SHUT_WR)
            await connection.ended()


async def each(actions: Iterable[Callable[[], Awaitable[None]]], at_once: int = 50) -> None:
    """Do all of these, so many at a time."""
    limiter = trio.CapacityLimiter(at_once)

    async def do(action: Callable[[], Awaitable[None]]) -> None:
        async with limiter:
            await action()

    async with trio.open_nursery() as nursery:
        for action in actions:
            nursery.start_soon(do, action)


def attacks(
    targets: Iterable[tuple[int, bytes] | tuple[int, bytes, wire.Hello]],
) -> list[Callable[[], Awaitable[None]]]:
    return [partial(attack, *target) for target in targets]
