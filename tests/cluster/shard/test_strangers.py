"""What somebody says whom the map does not name, or a peer that contradicts itself, harms nothing."""

import pytest

from greenroom import wire
from greenroom_cluster.peering import (
    Beacon,
    Prepare,
    PrepareOk,
    ShardRecords,
    SnapshotChunk,
    SnapshotOk,
    SnapshotRefused,
)
from greenroom_cluster.shard import effects as fx
from greenroom_cluster.shard import inputs as ins
from greenroom_cluster.shard.records import ClientState, KeptResult, StoredSession
from tests.cluster.shard.harness import Actor, World, create, get

ALICE = b"a" * 32
STRANGER = b"?" * 16


@pytest.fixture
def world() -> World:
    made = World()
    made.settle()
    return made


def hear(actor: Actor, peer: bytes, *messages) -> list[fx.HostEffect]:
    """What the actor does about messages of a peer, without their consequences in the world."""
    return actor.host.step(actor.now_ns, actor.world.wall_us(actor.node), ins.PeerMessages(peer, [*messages]))


def answers(effects: list[fx.HostEffect]) -> list[object]:
    return [effect.message for effect in effects if isinstance(effect, fx.Answer)]


def chunk(shard: int, epoch: int, **fields) -> SnapshotChunk:
    stored = StoredSession(ALICE, 0, 1, None, 0, 1 << 50, None, "", b"forged")
    given = {"join": 7, "sequence": 1, "time_us": 1, "number": 0, "last": True, **fields}
    return SnapshotChunk(
        shard=shard, epoch=epoch, **{"sessions": (stored,), "clients": (), "results": (), **given}
    )


def bystander(world: World, shard: int = 0) -> Actor:
    """An actor without a replica of the shard."""
    members = world.map.shards[shard].members
    return next(actor for actor in world.alive() if actor.incarnation not in members)


def test_a_stranger_starts_no_join(world: World) -> None:
    actor = bystander(world)
    [refused] = answers(hear(actor, STRANGER, chunk(0, world.map.shards[0].epoch)))
    assert isinstance(refused, SnapshotRefused)
    assert actor.replica(0) is None


def test_a_stranger_gets_no_part_in_leases_and_leaves_no_trace(world: World) -> None:
    actor = world.backup()
    known = dict(actor.host._context.incoming)
    assert answers(hear(actor, STRANGER, Beacon(1, 0, ((0, 1 << 60, 1 << 60, 1 << 60),)))) == []
    assert actor.host._context.incoming == known


def test_a_strangers_records_are_refused(world: World) -> None:
    primary, backup = world.primary(), world.backup()
    world.call(primary, create(ALICE, b"v1"))
    entry = ShardRecords(0, world.map.shards[0].epoch, 1 << 60, ())
    [refused] = answers(hear(backup, STRANGER, Prepare(3, (entry,))))
    assert refused == PrepareOk(3, ((0, entry.shard_epoch),))
    assert world.call(primary, get(ALICE)).data == b"v1"


def test_a_kept_answer_of_a_client_that_the_snapshot_does_not_name_is_dropped(world: World) -> None:
    actor, primary = bystander(world), world.primary()
    client = ClientState(b"c" * 16, 1, 1)
    results = (
        KeptResult(b"c" * 16, 1, wire.Written(1, 5)),
        KeptResult(b"?" * 16, 1, wire.Written(1, 6)),
    )
    said = chunk(0, world.map.shards[0].epoch, clients=(client,), results=results)
    [taken] = answers(hear(actor, primary.incarnation, said))
    assert isinstance(taken, SnapshotOk)
    assert list(actor.replica(0).table.clients.results()) == [results[0]]
