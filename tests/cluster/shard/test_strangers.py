"""What somebody says whom the map does not name, or a peer that contradicts itself, harms nothing."""

import pytest

from greenroom import wire
from greenroom_cluster.shard import effects as fx
from greenroom_cluster.shard import inputs as ins
from greenroom_cluster.shard.messages import (
    Beacon,
    Prepare,
    PrepareOk,
    ShardRecords,
    SnapshotChunk,
    SnapshotOk,
    SnapshotRefused,
)
from greenroom_cluster.shard.state.records import ClientState, KeptReply, Record, StoredSession
from tests.cluster.shard.harness import Actor, World, create, get, holding, update
from tests.cluster.shard.probe import ME, B, C, D, Probe
from tests.cluster.shard.probe import chunk as empty_chunk

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
    return [effect.message for effect in effects if isinstance(effect, fx.ReplyToPeer)]


def chunk(shard: int, epoch: int, **fields) -> SnapshotChunk:
    stored = StoredSession(ALICE, wire.SessionState(1, 1 << 50, 0, None, None, "", 0, b"forged"))
    given = {"join": 7, "sequence": 1, "time_us": 1, "number": 0, "last": True, **fields}
    return SnapshotChunk(
        shard=shard, epoch=epoch, **{"sessions": (stored,), "clients": (), "replies": (), **given}
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
    known = dict(actor.host._pairs.incoming)
    assert answers(hear(actor, STRANGER, Beacon(1, 0, ((0, 1 << 60, 1 << 60, 1 << 60),)))) == []
    assert actor.host._pairs.incoming == known


def test_a_strangers_records_are_refused(world: World) -> None:
    primary, backup = world.primary(), world.backup()
    world.call(primary, create(ALICE, holding("v1")))
    entry = ShardRecords(0, world.map.shards[0].epoch, 1 << 60, ())
    [refused] = answers(hear(backup, STRANGER, Prepare(3, (entry,))))
    assert refused == PrepareOk(3, ((0, entry.shard_epoch),))
    assert world.call(primary, get(ALICE)).state.data == holding("v1")


def forge(backup: Actor, primary: Actor, sequence: int) -> list[fx.HostEffect]:
    """A record that the backup logs as if its primary had sent it."""
    replica = backup.replica()
    command = wire.Delete(1, 1, 0, 0, ALICE)
    made_up = Record(replica.epoch, sequence, replica.clock.last_us, b"m" * 16, command)
    entry = ShardRecords(0, replica.epoch, 0, (made_up,))
    return hear(backup, primary.incarnation, Prepare(9, (entry,)))


def test_a_backup_whose_log_was_forged_gives_its_copy_up_and_joins_anew(world: World) -> None:
    primary, backup = world.primary(), world.backup()
    world.call(primary, create(ALICE, holding("v1")))
    world.run_until(lambda: backup.replica().committed == 1)
    epoch = world.map.shards[0].epoch
    assert answers(forge(backup, primary, 2)) == [PrepareOk(9)], "it looks like the primary's next record"
    assert isinstance(world.call(primary, update(ALICE, holding("v2"))), wire.Written)
    assert world.map.shards[0].epoch > epoch, "nothing was acknowledged with the copy that is none"
    world.settle()
    assert backup.alive
    world.kill(world.primary(), restart=False)
    world.run_until(lambda: world.serving(0) == [world.primary()] and world.primary().alive)
    assert world.call(world.primary(), get(ALICE)).state.data == holding("v2")


def test_a_forged_record_ends_no_process(world: World) -> None:
    """Else one at each of a pair would cost every session that these two hold."""
    primary, backup = world.primary(), world.backup()
    world.call(primary, create(ALICE, holding("v1")))
    effects = [*forge(backup, primary, 2), *forge(backup, primary, 2)]
    replica = backup.replica()
    other = Record(replica.epoch, 2, 0, b"n" * 16, wire.Delete(7, 7, 0, 0, ALICE))
    effects += hear(backup, primary.incarnation, Prepare(10, (ShardRecords(0, replica.epoch, 0, (other,)),)))
    assert backup.replica() is None
    assert [effect.shard for effect in effects if isinstance(effect, fx.Warned)] == [0]
    assert answers(effects)[-1] == PrepareOk(10, ((0, replica.epoch),))
    world.settle()
    assert world.call(primary, get(ALICE)).state.data == holding("v1")


def test_a_kept_answer_of_an_unnamed_client_is_dropped(world: World) -> None:
    """The snapshot does not name the client."""
    actor, primary = bystander(world), world.primary()
    client = ClientState(b"c" * 16, 1, 1, 1)
    replies = (
        KeptReply(b"c" * 16, 1, wire.Written(1, 5)),
        KeptReply(b"?" * 16, 1, wire.Written(1, 6)),
    )
    said = chunk(0, world.map.shards[0].epoch, clients=(client,), replies=replies)
    [taken] = answers(hear(actor, primary.incarnation, said))
    assert isinstance(taken, SnapshotOk)
    assert list(actor.replica(0).table.clients.replies()) == [replies[0]]


# --- who has left the map ----------------------------------------------------------------------------------


def test_nothing_is_kept_of_the_incarnations_of_former_times(world: World) -> None:
    for _ in range(6):
        world.kill(world.primary())
        world.settle()
    world.run_for(5)
    for actor in world.alive():
        heard_of = set(actor.host._pairs.incoming)
        assert heard_of <= world.map.actors.keys() - {actor.incarnation}


def left() -> Probe:
    """It backed B, went on with C, and B has left the map."""
    probe = Probe()
    probe.become_backup()
    assert probe.hear(B, Beacon(5, 0))
    probe.configure(3, (C, ME), nonce=b"x" * 12, absent="b")
    assert B not in probe.host._pairs.incoming
    return probe


def test_who_has_left_the_map_is_given_no_lease_should_it_be_named_again() -> None:
    """What it was told to be refused is forgotten, so a lease could be one for what it no longer leads."""
    probe = left()
    probe.configure(3, (C, ME), nonce=b"x" * 12)
    assert probe.hear(B, Beacon(6, 0)) == []
    assert B not in probe.host._pairs.incoming


def test_the_leader_of_a_joiner_is_remembered_though_the_map_lacks_it() -> None:
    probe = Probe()
    probe.configure(1, (D,), wanted="da")
    probe.hear(B, Beacon(5, 0), empty_chunk(epoch=2, last=False))
    assert probe.replica.primary_incarnation == B
    probe.configure(1, (D,), wanted="da", absent="b")
    assert B in probe.host._pairs.incoming
    probe.replica.close(probe.now_ns, "test")
    probe.host.replicas[0] = None
    probe.configure(1, (D,), wanted="da", absent="b")
    assert B not in probe.host._pairs.incoming


def test_whom_an_older_copy_of_the_map_lacks_is_remembered() -> None:
    """Its supervisor will enter it again, and its leases must go on."""
    probe = Probe()
    probe.become_backup()
    probe.hear(B, Beacon(5, 0))
    probe.configure(3, (C, ME), nonce=b"x" * 12, absent="b", lineage=2)
    assert B in probe.host._pairs.incoming
    probe.configure(3, (C, ME), nonce=b"x" * 12, lineage=2)
    assert probe.hear(B, Beacon(6, 0)) != []
