"""Half-open handshakes beside callers, and kill-to-serving times over TLS beside plaintext.

`python -m benchmarks.handshakes half-open` runs a cluster with TLS and 16 callers, and opens 2,000
connections at once to one of its actors, each of which says hello in TLS and nothing more. It prints, for
each round, the callers' 99th percentile before and meanwhile, and how often shards changed their epoch; and
the same with these connections to a port where nobody listens to them, which shows what the machine does.

`python -m benchmarks.handshakes kills` runs two clusters, one of which speaks TLS. In turn it kills the actor
that is primary of a session's shard, and prints how long a write to that session took to be acknowledged.
"""

import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, TypeAlias

import trio

import greenroom
from benchmarks.processes import python_module
from benchmarks.samples import quantile
from benchmarks.tls.figures import PLAIN, TLS, AttackReading, KillReading
from greenroom import BaseSessionStore, SessionData, UnavailableError, new_session_id
from greenroom.addresses import parse_address
from greenroom.cluster_map import ClusterMap
from greenroom.errors import GreenroomError
from greenroom.ids import point_of
from greenroom.routing import Router
from greenroom.tls.channel import PROTOCOL
from greenroom_cluster.config import NodeOptions
from greenroom_cluster.inspection import inspect_cluster
from greenroom_cluster.local_settings import LocalClusterSettings
from greenroom_cluster.questions import fetch_map
from greenroom_cluster.runtime.local import LocalCluster, open_local_cluster

CLUSTER = "greenroom"
CALLERS = 16
SHARDS = 16
NODES = 3
HALF_OPEN = 2_000
ROUNDS = 5
BEFORE_SECONDS = 6.0
AFTER_SECONDS = 3.0
KILLS = 10
PAUSE_SECONDS = 0.005
HEALTHY_SECONDS = 90.0

Say: TypeAlias = Callable[[str], None]
"""Where progress goes."""


@asynccontextmanager
async def cluster_of(*, tls: bool) -> AsyncIterator[LocalCluster]:
    """Run a cluster of three nodes with one actor each, on loopback."""
    settings = LocalClusterSettings(
        nodes=NODES, shards=SHARDS, listen="127.0.0.1:0", tls=tls, node=NodeOptions(actors=1)
    )
    async with open_local_cluster(settings) as cluster:
        await until_healthy(cluster)
        yield cluster


async def map_of(cluster: LocalCluster) -> ClusterMap:
    """Return the cluster's map as it is."""
    return await fetch_map(cluster.seeds, CLUSTER, credentials=cluster.credentials)


async def until_healthy(cluster: LocalCluster) -> None:
    """Wait until all shards have all their replicas."""
    with trio.fail_after(HEALTHY_SECONDS):
        while True:
            try:
                found = await inspect_cluster(cluster.seeds, CLUSTER, credentials=cluster.credentials)
            except UnavailableError:
                continue
            if found.healthy and found.nodes_up == NODES:
                return
            await trio.sleep(0.1)


def new_session() -> SessionData:
    """Return a session that is not stored yet."""
    expires = datetime.now(UTC) + timedelta(hours=1)
    return SessionData(session_id=new_session_id(), data={"n": 0}, expires=expires)


# --- half-open handshakes --------------------------------------------------------------------------------


class Callers:
    """Callers that write and read without an end; `latencies` holds the seconds that each call took."""

    def __init__(self, store: BaseSessionStore) -> None:
        self._store = store
        self.latencies: list[float] = []
        self.errors = 0

    async def run(self) -> None:
        """Call until cancelled."""
        async with trio.open_nursery() as nursery:
            for _ in range(CALLERS):
                nursery.start_soon(self._one)

    async def _one(self) -> None:
        session = new_session()
        await self._store.create(session)
        number = 0
        while True:
            number += 1
            began = trio.current_time()
            try:
                if number % 2:
                    await self._store.patch(session.session_id, set={"n": number})
                else:
                    await self._store.get(session.session_id)
            except GreenroomError:
                self.errors += 1
            self.latencies.append(trio.current_time() - began)
            await trio.sleep(PAUSE_SECONDS)

    def take(self) -> list[float]:
        """Return the latencies since the last call, in order."""
        taken, self.latencies = self.latencies, []
        return sorted(taken)


def attack(address: str, count: int) -> None:
    """Open connections, say hello in TLS on each, and keep them until standard input ends."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols([PROTOCOL])
    socks = []
    for _ in range(count):
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        with suppress(ssl.SSLWantReadError):
            context.wrap_bio(incoming, outgoing).do_handshake()
        socks.append((socket.socket(), outgoing.read()))
    print("ready", flush=True)
    sys.stdin.readline()
    for sock, said in socks:
        sock.connect(parse_address(address))
        sock.sendall(said)
    print("sent", flush=True)
    sys.stdin.read()


class Scale(NamedTuple):
    """How many half-open connections, and for how long callers are watched before and after they come."""

    connections: int = HALF_OPEN
    before_seconds: float = BEFORE_SECONDS
    after_seconds: float = AFTER_SECONDS


async def half_open(rounds: int, scale: Scale, say: Say) -> list[AttackReading]:
    """Return what half-open handshakes do to callers."""
    found: list[AttackReading] = []
    async with (
        cluster_of(tls=True) as cluster,
        trio.open_nursery() as nursery,
        greenroom.store_from_url(cluster.url) as store,
    ):
        callers = Callers(store)
        nursery.start_soon(callers.run)
        await trio.sleep(scale.before_seconds)
        for number in range(1, rounds + 1):
            with socket.create_server(("127.0.0.1", 0), backlog=2 * scale.connections) as nobody:
                elsewhere = f"127.0.0.1:{nobody.getsockname()[1]}"
                for name, address in (("beside the cluster", elsewhere), ("at an actor", "")):
                    reading = await one_round(cluster, callers, scale, address)
                    found.append(reading)
                    say(
                        f"round {number}, {name}: p99 {reading.before_seconds * 1e3:.1f} -> "
                        f"{reading.during_seconds * 1e3:.1f} ms ({reading.ratio:.2f} times), epoch changes "
                        f"{reading.epoch_changes}, errors {reading.errors}"
                    )
        nursery.cancel_scope.cancel()
    return found


async def one_round(
    cluster: LocalCluster, callers: Callers, scale: Scale, elsewhere: str = ""
) -> AttackReading:
    """Return the callers' latencies before one attack and meanwhile: at an actor, unless it is elsewhere."""
    cluster_map = await map_of(cluster)
    target = next(actor for actor in cluster_map.actors.values() if actor.state == "up")
    address = elsewhere or target.address
    command = [*python_module("benchmarks.handshakes"), "attack", address, str(scale.connections)]
    process = await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    await process.stdout.receive_some()
    callers.take()
    failed = callers.errors
    await trio.sleep(scale.before_seconds)
    before = callers.take()
    await process.stdin.send_all(b"go\n")
    await process.stdout.receive_some()
    await trio.sleep(scale.after_seconds)
    during = callers.take()
    await process.stdin.aclose()
    await process.wait()
    return AttackReading(
        at_actor=not elsewhere,
        connections=scale.connections,
        before_seconds=quantile(before, 0.99),
        during_seconds=quantile(during, 0.99),
        epoch_changes=sum((await map_of(cluster)).epochs) - sum(cluster_map.epochs),
        errors=callers.errors - failed,
    )


# --- kills -----------------------------------------------------------------------------------------------


async def kills(count: int, say: Say) -> list[KillReading]:
    """Return how long a write takes after the primary of its shard was killed."""
    found: list[KillReading] = []
    async with cluster_of(tls=False) as plain, cluster_of(tls=True) as secured:
        for number in range(count):
            for name, cluster in ((PLAIN, plain), (TLS, secured)):
                seconds = await kill_one(cluster)
                found.append(KillReading(round=number, contender=name, seconds=seconds))
                say(f"kill {number + 1}, {name}: {seconds:.3f} s")
    return found


async def kill_one(cluster: LocalCluster) -> float:
    """Kill the primary of a session's shard; return after how long it was written again, seconds."""
    await until_healthy(cluster)
    async with greenroom.store_from_url(cluster.url) as store:
        # As in an app that has run for a while, there are connections to all actors.
        await store.check(every_shard=True)
        session = new_session()
        await store.create(session)
        cluster_map = await map_of(cluster)
        shard = cluster_map.shards[Router(cluster_map).shard_of(point_of(session.session_id))]
        slot = cluster_map.actors[shard.primary].slot
        found = await inspect_cluster(cluster.seeds, CLUSTER, credentials=cluster.credentials)
        (pid,) = (actor.pid for actor in found.actors if actor.slot == slot)
        began = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        await store.patch(session.session_id, set={"n": 1})
        return time.monotonic() - began


def _say(text: str) -> None:
    print(text, flush=True)


def main(arguments: Sequence[str]) -> None:
    """Run what is asked for."""
    match list(arguments):
        case ["half-open", *rest]:
            trio.run(half_open, int(rest[0]) if rest else ROUNDS, Scale(), _say)
        case ["kills", *rest]:
            trio.run(kills, int(rest[0]) if rest else KILLS, _say)
        case ["attack", address, count]:
            attack(address, int(count))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
