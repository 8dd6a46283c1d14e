"""Kills in the running cluster, and how long its sessions do not answer after one.

**What is measured.** Before a kill, one small session is made on every shard that has a replica on what is to
be killed, primary or backup. A task for each patches it through a store of its own, again
`PROBE_PAUSE_SECONDS` after every answer. A shard has recovered when a patch that *began after the kill* is
acknowledged: such a patch cannot have been answered by what was killed, and it is acknowledged only under the
new configuration. The recovery time is the time from just before the first SIGKILL to the acknowledgement on
the slowest of those shards. A patch that was under way at the kill does not count, but the next one begins
the moment it is answered, so the figure may be too high, by one round trip or one pause, never too low.
"""

import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import trio

import greenroom
from greenroom.cluster_map import ActorEntry, ClusterMap
from greenroom.ids import POINT_BITS
from greenroom_cluster.inspection import inspect_actors
from greenroom_cluster.runtime.proving import Keys
from greenroom_cluster.runtime.tasks import open_tasks

PROBE_PAUSE_SECONDS = 0.02
PROBE_LIFETIME = timedelta(minutes=10)
RECOVERY_SECONDS_MAX = 15.0
ALL_RECOVERY_SECONDS_MAX = 60.0


class Victim(NamedTuple):
    """What is to be killed: processes in the order in which they get SIGKILL, and the actors among them."""

    name: str
    pids: tuple[int, ...]
    incarnations: tuple[bytes, ...]

    def kill(self) -> None:
        """SIGKILL every process of the victim."""
        for pid in self.pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue  # it died with the one before it


class Probe:
    """One session on one shard, patched again and again."""

    def __init__(self, shard: int, shard_count: int) -> None:
        shift = POINT_BITS - (shard_count.bit_length() - 1)
        self.shard = shard
        self.errors = 0
        self.ready = trio.Event()
        self.recovered = trio.Event()
        self.recovered_at = float("inf")
        self._session_id = greenroom.new_session_id(shard << shift)
        self._killed_at = float("inf")

    def __repr__(self) -> str:
        return f"<Probe shard={self.shard}>"

    def kill_happens(self, now: float) -> None:
        """Count the acknowledgements of patches that begin from now on."""
        self._killed_at = now

    async def run(self, store: greenroom.BaseSessionStore) -> None:
        """Make the session and patch it until recovered. Errors of the store count, and end nothing."""
        expires = datetime.now(UTC) + PROBE_LIFETIME
        await store.create(greenroom.SessionData(session_id=self._session_id, expires=expires))
        number = 0
        while not self.recovered.is_set():
            number += 1
            begun = trio.current_time()
            try:
                await store.patch(self._session_id, set={"n": number})
            except (greenroom.UnavailableError, greenroom.OutcomeUnknownError):
                self.errors += 1
                continue
            self.ready.set()
            if begun >= self._killed_at:
                self.recovered_at = trio.current_time()
                self.recovered.set()
            elif self._killed_at == float("inf"):
                await trio.sleep(PROBE_PAUSE_SECONDS)


class Recovery(NamedTuple):
    """How a kill went: seconds until the slowest shard answered (None: not seen), and on how many shards."""

    seconds: float | None
    shards: int
    probe_errors: int


NO_RECOVERY = Recovery(None, 0, 0)


@asynccontextmanager
async def probing(
    store: greenroom.BaseSessionStore, shards: Sequence[int], shard_count: int
) -> AsyncIterator[list[Probe]]:
    """Run a probe on each of these shards; they are all answering when the body begins."""
    probes = [Probe(shard, shard_count) for shard in shards]
    async with open_tasks() as nursery:
        for probe in probes:
            nursery.start_soon(probe.run, store)
        for probe in probes:
            await probe.ready.wait()
        yield probes
        nursery.cancel_scope.cancel()


async def kill_and_measure(
    victim: Victim,
    store: greenroom.BaseSessionStore,
    shards: Sequence[int],
    shard_count: int,
    seconds_max: float = RECOVERY_SECONDS_MAX,
) -> Recovery:
    """Kill the victim while `shards` are probed; return when all answer, or after `seconds_max`."""
    async with probing(store, shards, shard_count) as probes:
        killed_at = trio.current_time()
        for probe in probes:
            probe.kill_happens(killed_at)
        victim.kill()
        with trio.move_on_after(seconds_max):
            for probe in probes:
                await probe.recovered.wait()
        errors = sum(probe.errors for probe in probes)
        slowest = max(probe.recovered_at for probe in probes)
    return Recovery(None if slowest == float("inf") else slowest - killed_at, len(shards), errors)


async def busiest_actor(cluster_map: ClusterMap, credentials: Keys | None) -> ActorEntry:
    """Return the primary of the shard that has logged the most records so far.

    Raises UnavailableError if no actor tells of such a shard.
    """
    logged = [
        (replica.appended, incarnation)
        for incarnation, inspection in (await inspect_actors(cluster_map, credentials=credentials)).items()
        for replica in inspection.replicas
        if cluster_map.shards[replica.shard].primary == incarnation
    ]
    if not logged:
        raise greenroom.UnavailableError("no actor says that it is the primary of a shard")
    return cluster_map.actors[max(logged)[1]]


def busiest_node(cluster_map: ClusterMap) -> str:
    """Return the node that is primary of the most shards."""
    primaries = dict.fromkeys(sorted(cluster_map.nodes), 0)
    for shard in cluster_map.shards:
        actor = cluster_map.actors.get(shard.primary)
        if actor is not None and actor.state == "up":
            primaries[actor.node] = primaries.get(actor.node, 0) + 1
    return max(primaries, key=lambda name: primaries[name])


def actor_victim(actor: ActorEntry) -> Victim:
    """Return one actor as a victim."""
    return Victim(f"actor {actor.slot}", (actor.pid,), (actor.incarnation,))


def node_victim(cluster_map: ClusterMap, node: str, supervisor_pid: int) -> Victim:
    """Return a node as a victim: its supervisor first, then its actors."""
    actors = [actor for actor in cluster_map.actors.values() if actor.node == node and actor.state == "up"]
    return Victim(
        f"node {node}",
        (supervisor_pid, *(actor.pid for actor in actors)),
        tuple(actor.incarnation for actor in actors),
    )


def everything_victim(pids: Sequence[int], cluster_map: ClusterMap) -> Victim:
    """Return a whole cluster as a victim: `pids` are those of its processes, each before what is below it."""
    return Victim("every process", tuple(pids), tuple(cluster_map.actors))


def shards_on(cluster_map: ClusterMap, victim: Victim) -> list[int]:
    """Return the shards that have a replica on the victim, primary or backup."""
    there = set(victim.incarnations)
    return [index for index, shard in enumerate(cluster_map.shards) if there.intersection(shard.members)]
