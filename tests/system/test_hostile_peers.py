"""Well-formed messages of somebody who is no peer: made-up actors, wrong shards, wild numbers, odd sizes.

Nobody's session changes, no process ends or grows, and no lease, join or map is disturbed.
"""

import os
import random
from collections.abc import Iterator, Sequence
from contextlib import suppress

import pytest
import trio

from greenroom import ClusterStore, wire
from greenroom.cluster_map import ActorEntry, ClusterMap, NodeEntry
from greenroom_cluster.coordination import messages
from greenroom_cluster.shard.messages import Beacon, Prepare, ShardRecords, SnapshotChunk
from greenroom_cluster.shard.state.records import (
    ClientState,
    Evict,
    Expire,
    ForgetClients,
    KeptReply,
    Record,
    StoredSession,
)
from tests.system.attacks import Ports, unharmed
from tests.system.canaries import canaries
from tests.system.raw import greeted, hello
from tests.system.stage import SETTINGS, SharedCluster

pytestmark = [pytest.mark.system, pytest.mark.trio]

INT_MIN, INT_MAX, UINT_MAX = -(1 << 63), (1 << 63) - 1, (1 << 64) - 1
WILD = (INT_MIN, -1, 0, 1, 1 << 40, INT_MAX, UINT_MAX)
SHARDS = (INT_MIN, -1, *range(SETTINGS.shards), SETTINGS.shards, UINT_MAX)
YEAR_US = 366 * 24 * 3600 * 1_000_000


class Forger:
    """Makes peering messages up."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)

    def _number(self) -> int:
        return self._chance.choice(WILD)

    def _bytes(self) -> bytes:
        return self._chance.randbytes(self._chance.choice((0, 5, 16, 32, 300)))

    def _command(self) -> object:
        """A command that may be decoded: what is not ends the connection, and the rest is never seen."""
        number, digest = self._number(), self._chance.randbytes(32)
        return self._chance.choice(
            (
                wire.Create(number, number, number, number, digest, "mallory", 0, 1, None, "x", b"\xc1"),
                wire.Delete(number, number, 0, 0, digest),
                wire.DeleteByUser(number, number, 0, "user", digest, (number,)),
                Expire((self._bytes(),)),
                Evict((self._bytes(),)),
                ForgetClients((self._bytes(),), number),
            )
        )

    def _records(self, shard: int, epoch: int) -> ShardRecords:
        start = self._chance.choice((0, 1, 2, INT_MAX - 5))
        records = tuple(
            Record(self._number(), start + index, self._number(), self._bytes(), self._command())
            for index in range(3)
        )
        return ShardRecords(shard, epoch, self._number(), records)

    def _chunk(self, shard: int, epoch: int) -> SnapshotChunk:
        times = (self._number(), self._number(), self._number())
        state = wire.SessionState(*times, None, "mallory", "", self._number(), b"\xc1")
        stored = StoredSession(self._bytes(), state)
        return SnapshotChunk(
            shard,
            epoch,
            self._number(),
            self._number(),
            self._number(),
            self._chance.choice((0, 0, 0, 1, -1, UINT_MAX)),
            self._chance.choice((True, False)),
            (stored,),
            (ClientState(self._bytes(), self._number(), self._number(), self._number()),),
            (KeptReply(self._bytes(), self._number(), wire.Missing(self._number())),),
        )

    def messages(self, epochs: Sequence[int]) -> Iterator[wire.Frame]:
        """Yield messages of every kind for every shard, at its epoch and at others."""
        for shard in SHARDS:
            known = epochs[shard] if 0 <= shard < len(epochs) else 1
            for epoch in (INT_MIN, -1, 0, known, known + 1, 1 << 40, UINT_MAX):
                yield Prepare(self._number(), (self._records(shard, epoch),))
                yield Beacon(
                    self._number(), self._number(), ((shard, epoch, self._number(), self._number()),)
                )
                yield self._chunk(shard, epoch)


async def say(address: str | int, opening: wire.Hello, said: Sequence[wire.Frame]) -> None:
    """Say all this and hear the answers; that the other side ends the connection is its right."""
    with suppress(OSError, trio.BrokenResourceError), trio.fail_after(30):
        async with greeted(address, opening) as connection, trio.open_nursery() as nursery:
            nursery.start_soon(connection.ended, 30)
            # In here: what leaves a nursery is a group of errors.
            with suppress(OSError, trio.BrokenResourceError):
                await connection.send(said)
                await connection.stream.send_eof()


def epochs_of(cluster_map: ClusterMap) -> list[int]:
    return [shard.epoch for shard in cluster_map.shards]


@pytest.fixture
def cluster(small_cluster: SharedCluster) -> SharedCluster:
    return small_cluster


def at_rest(cluster_map: ClusterMap) -> bool:
    """Whether every replica is where the plan for two nodes puts it: nothing is about to move."""
    for shard in cluster_map.shards:
        held = [cluster_map.actors[member] for member in shard.members]
        if tuple(actor.slot for actor in held) != shard.wanted or len({actor.node for actor in held}) != 2:
            return False
    return True


async def test_made_up_peers_change_nothing(cluster: SharedCluster) -> None:
    before = await cluster.until(at_rest)
    async with unharmed(cluster):
        for number, actor in enumerate(before.actors.values()):
            for attempt in range(3):
                forged = list(Forger(10 * number + attempt).messages(epochs_of(before)))
                opening = hello(wire.ROLE_PEER, target=actor.incarnation)
                # One by one too: a connection ended at its first message must not spare the others.
                await say(actor.address, opening, forged)
                if attempt == 0:
                    for message in forged[::7]:
                        await say(actor.address, hello(wire.ROLE_PEER, target=actor.incarnation), [message])
    assert await cluster.map() == before, "nobody lost a lease or a replica"
    assert await held(cluster) == members(before), "nobody holds a replica that the map does not give it"


async def held(cluster: SharedCluster) -> set[tuple[int, bytes]]:
    """Return (shard, incarnation) of every replica that an actor says it has."""
    cluster_map = await cluster.map()
    found = set()
    for actor in cluster_map.actors.values():
        async with greeted(actor.address, hello(wire.ROLE_ADMIN, target=actor.incarnation)) as connection:
            await connection.send([wire.Inspect(1)])
            inspection = await connection.receive()
            found |= {(replica.shard, actor.incarnation) for replica in inspection.replicas}
    return found


def members(cluster_map: ClusterMap) -> set[tuple[int, bytes]]:
    return {(index, member) for index, shard in enumerate(cluster_map.shards) for member in shard.members}


async def test_many_made_up_peers_cost_no_memory(cluster: SharedCluster) -> None:
    before = await cluster.map()
    async with unharmed(cluster, growth_bytes_max=4 << 20), trio.open_nursery() as nursery:
        limiter = trio.CapacityLimiter(20)

        async def beacon(actor: ActorEntry) -> None:
            async with limiter:
                await say(actor.address, hello(wire.ROLE_PEER, target=actor.incarnation), [Beacon(1, 0)])

        for actor in before.actors.values():
            for _ in range(500):
                nursery.start_soon(beacon, actor)
    assert await cluster.map() == before


async def test_actors_that_pose_as_primaries_end_no_process(cluster: SharedCluster) -> None:
    """An incarnation is no secret. Who poses as one can do harm, until peers have credentials; not this."""
    before = await cluster.map()
    pids = cluster.cluster.pids()
    for number, actor in enumerate(before.actors.values()):
        for posed in before.actors:
            if posed != actor.incarnation:
                forged = list(Forger(100 + number).messages(epochs_of(before)))
                chunks = [message for message in forged if isinstance(message, SnapshotChunk)]
                opening = hello(wire.ROLE_PEER, target=actor.incarnation, sender=posed)
                await say(actor.address, opening, forged)
                for message in chunks:
                    await say(actor.address, opening, [message])
    await cluster.healthy()
    assert cluster.cluster.pids() == pids


async def test_nonsense_to_the_coordinator_changes_nothing(cluster: SharedCluster) -> None:
    before = await cluster.map()
    chance = random.Random(30)

    def number() -> int:
        return chance.choice(WILD)

    sender = os.urandom(16)
    kinds = ("start", "takeover", "remove", "add", "handover", "reaffirm", "abdicate", "")
    proposals = tuple(
        messages.Proposal(shard, epoch, os.urandom(size), kind, primary, backups)
        for shard in SHARDS
        for kind in kinds
        for epoch in (before.shards[shard].epoch if 0 <= shard < SETTINGS.shards else 0, number())
        for size in (0, 12)
        for primary in (sender, b"", os.urandom(300))
        for backups in ((), (sender,), (b"x",) * 9)
    )
    live = next(iter(before.nodes.values()))
    said = [
        wire.Subscribe(0, 0),
        *(messages.Propose(number(), sender, proposals[index::50]) for index in range(50)),
        messages.Propose(1, os.urandom(16), proposals[:5]),
        messages.RegisterNode(number(), NodeEntry("", "x", "up")),
        messages.RegisterNode(number(), NodeEntry("n/../1", "x", "up")),
        messages.RegisterNode(number(), NodeEntry("x" * 5000, "x" * 5000, "up")),
        messages.RegisterNode(number(), NodeEntry(live.name, live.address, "dancing")),
        messages.RegisterActor(number(), ActorEntry(b"short", live.name, "?", "x", "up", "", -1, -1)),
        messages.RegisterActor(number(), ActorEntry(sender, "nobody", "nobody/0", "x", "up", "", -1, -1)),
        messages.ReportDead(number(), tuple(os.urandom(chance.choice((0, 16, 300))) for _ in range(1000))),
        messages.RemoveNode(number(), live.name),
        messages.ForgetNode(number(), live.name),
        messages.ForgetNode(number(), "nobody"),
        messages.Heartbeat("nobody", -1, INT_MIN),
    ]  # fmt: skip
    async with unharmed(cluster) as ports:
        assert isinstance(ports, Ports)
        for role in (wire.ROLE_PEER, wire.ROLE_ADMIN):
            await say(ports.coordinator, hello(role, sender=sender), said)
    assert await cluster.map() == before


async def test_nobody_harms_others_through_the_coordinators_door(cluster: SharedCluster) -> None:
    """Deaths of others, claims of later maps, entries too long for a map: other clients notice nothing."""
    before = await cluster.until(at_rest)
    node = next(iter(before.nodes.values()))
    sender = os.urandom(16)
    huge = ActorEntry(sender, node.name, f"{node.name}/9", "h:9", "up", "H" * 600_000, 1, 1)
    said = [
        messages.ReportDead(1, tuple(before.actors)),
        messages.ForgetNode(2, node.name),
        messages.RegisterNode(3, NodeEntry("zz", "\x1b]0;owned\x07:9", "up")),
        messages.RegisterActor(4, huge),
        messages.RemoveNode(5, node.name),
        wire.Subscribe(1 << 62, 1),
        wire.Subscribe(before.lineage + 1, 1),
        wire.Subscribe(before.lineage, before.version + 1, (1 << 20,) * before.shard_count),
        messages.Heartbeat(node.name, before.lineage + 1, 1),
    ]
    async with canaries(cluster.cluster):
        address = cluster.cluster.coordinator_address
        for role in (wire.ROLE_ADMIN, wire.ROLE_OPERATOR, wire.ROLE_PEER):
            for message in said:
                await say(address, hello(role, sender=sender), [message])
    assert await cluster.map() == before
    async with greeted(address, hello(wire.ROLE_PEER)) as connection:
        await connection.send([wire.Subscribe(0, 0)])
        assert await connection.receive() == wire.MapFull(before), "it goes on serving"


async def test_odd_requests_harm_no_other_users_sessions(cluster: SharedCluster) -> None:
    """What no store of ours would send: sizes and times beyond the limits, for somebody else's user id."""
    cluster_map = await cluster.map()
    seeds = ",".join(cluster.cluster.seeds)
    odd = [
        wire.Create(number, number, 0, 7, digest, user, created, expires, absolute, label, data)
        for number, (digest, user, created, expires, absolute, label, data) in enumerate(
            [
                (b"", "alice", 0, YEAR_US * 60, None, "", b"\x80"),
                (b"x" * 5, "alice", 0, YEAR_US * 60, None, "", b"\x80"),
                (b"x" * 60_000, "alice", 0, YEAR_US * 60, None, "", b"\x80"),
                (b"a" * 32, "alice", INT_MIN, INT_MAX, None, "", b"\x80"),
                (b"b" * 32, "alice", INT_MAX, UINT_MAX, UINT_MAX, "", b"\x80"),
                (b"c" * 32, "alice", 0, YEAR_US * 60, None, "x" * 100_000, b"\x80"),
                (b"d" * 32, "alice" * 100_000, 0, YEAR_US * 60, None, "", b"\x80"),
            ],
            start=1,
        )
    ]
    async with unharmed(cluster):
        primary = cluster_map.actors[cluster_map.shards[0].primary]
        for request in odd:
            await say(primary.address, hello(wire.ROLE_CLIENT, target=primary.incarnation), [request])
        async with ClusterStore(seeds) as store:
            assert await store.list_by_user("alice") == []
