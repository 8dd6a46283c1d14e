"""Memory has an end: how much a backup lets its primaries add."""

import random

import pytest

from greenroom import wire
from greenroom_cluster.shard import effects as fx
from greenroom_cluster.shard import inputs as ins
from greenroom_cluster.shard.messages import Beacon, BeaconOk, SnapshotChunk, SnapshotOk, SnapshotRefused
from greenroom_cluster.shard.settings import HostSettings, ns
from greenroom_cluster.shard.state.memory import Memory
from tests.cluster.shard.harness import World, create
from tests.cluster.shard.probe import ME, B, C, Probe
from tests.cluster.shard.probe import create as create_now
from tests.cluster.shard.small_memory import PLENTY, SMALL, data, digest, is_full


def test_grants_and_use_never_exceed_the_bound_whatever_is_lost() -> None:
    for seed in range(30):
        generator = random.Random(seed)
        memory = Memory(HostSettings(memory_bytes_max=100_000), "n0/0")
        peers = [bytes([number]) * 16 for number in range(3)]
        # What each peer goes by, and what it may still add by that.
        goes_by = dict.fromkeys(peers, (0, 0))
        used = 0
        for _ in range(400):
            peer = generator.choice(peers)
            number, room = goes_by[peer]
            if generator.random() < 0.5:
                grant = memory.offer(peer, number)
                if generator.random() < 0.7:
                    goes_by[peer] = (grant.number, grant.left_bytes)
            elif room > 0:
                size = generator.randint(1, room)
                goes_by[peer] = (number, room - size)
                used += size
                memory.spend(peer, size)
                memory.note(peers.index(peer), memory._used.get(peers.index(peer), 0) + size, 0)
            elif generator.random() < 0.3:
                shard = generator.randrange(3)
                freed = memory._used.get(shard, 0)
                used -= freed
                memory.note(shard, 0, 0)
            assert used <= 100_000
            assert used + sum(max(room, 0) for _, room in goes_by.values()) <= 100_000


def test_a_peer_of_before_is_granted_everything_and_asks_for_nothing() -> None:
    probe = Probe(SMALL)
    probe.configure(1, (B, ME))
    (answer,) = probe.hear(B, Beacon(1, 0))
    assert isinstance(answer, BeaconOk)
    assert answer.room_bytes == 1 << 62
    (answer,) = probe.hear(B, Beacon(2, 0, (), 0))
    assert isinstance(answer, BeaconOk)
    assert 0 < answer.room_bytes < 200_000


def test_a_backup_that_has_not_said_yet_is_waited_for_and_not_called_full() -> None:
    probe = Probe(SMALL)
    probe.become_primary()
    pair = probe.pair()
    pair.room_bytes, pair.offered_bytes = 100, None
    (reply,) = probe.ask(create_now(1, data=data(50_000)))
    assert isinstance(reply, wire.Overloaded)
    assert "shared anew" in reply.reason
    probe.hear(B, BeaconOk(probe.now_ns, 0, (), 1, 100, 0))
    assert is_full(probe.ask(create_now(1, data=data(50_000)))[0])
    probe.hear(B, BeaconOk(probe.now_ns, 0, (), 1, 100, 0, 100_000))
    assert isinstance(probe.ask(create_now(1, data=data(50_000)))[0], wire.Overloaded)
    probe.hear(B, BeaconOk(probe.now_ns, 0, (), 1, 100_000, 0))
    assert not probe.ask(create_now(1, data=data(50_000)))
    assert pair.room_bytes < 50_000


def test_a_grant_of_which_half_is_used_is_renewed_at_once() -> None:
    probe = Probe(PLENTY)
    probe.become_primary()

    def beacons() -> list[Beacon]:
        if probe.host.next_deadline() > probe.now_ns:
            return []
        probe.step(ins.Tick())
        sent = [effect.message for effect in probe.effects if isinstance(effect, fx.Send)]
        return [message for message in sent if isinstance(message, Beacon)]

    beacons()
    probe.hear(B, BeaconOk(probe.now_ns, 0, (), 1, 100_000, 0))
    probe.ask(create_now(1, data=data(40_000)))
    assert not beacons()
    probe.ask(create_now(2, digest(2), data=data(20_000)))
    assert [message.grant_seen for message in beacons()] == [1]
    probe.ask(create_now(3, digest(3), data=data(20_000)))
    assert not beacons(), "one at a time"
    probe.hear(B, BeaconOk(probe.now_ns, 0, (), 2, 300_000, 0))
    probe.ask(create_now(5, digest(5), data=data(80_000)))
    assert not beacons()
    assert isinstance(probe.ask(create_now(4, digest(4), data=data(150_000)))[0], wire.Overloaded)
    assert len(beacons()) == 1, "room for this one may come with the next grant"


def test_a_peer_whose_grant_was_withdrawn_is_granted_again_at_once() -> None:
    probe = Probe(SMALL)
    probe.configure(1, (B, ME))
    answers = []
    for seen in (0, 1, 2):
        answers += probe.hear(B, Beacon(1, 0, (), seen))
    probe.after(2.0)
    answers += probe.hear(B, Beacon(1, 0, (), 3))
    rooms = [answer.room_bytes for answer in answers if isinstance(answer, BeaconOk)]
    assert len(rooms) == 4
    assert min(rooms) > 50_000


def test_a_share_is_kept_for_own_primaries_and_for_whoever_comes() -> None:
    memory = Memory(HostSettings(memory_bytes_max=8_000_000), "n0/0")
    free = memory.free_bytes
    first = memory.offer(B, 0)
    first = memory.offer(B, first.number)
    assert first.left_bytes == free // 2
    assert memory.free_bytes == free - free // 2, "a takeover may make primaries here in no time"
    second = memory.offer(C, 0)
    assert second.left_bytes > 0
    assert memory.share_bytes == free // 3, "which is what the second has to wait for"
    for _ in range(40):
        for peer, grant in ((B, first), (C, second)):
            memory.offer(peer, grant.number)
    assert abs(second.left_bytes - free // 3) < 10
    assert abs(memory.free_bytes - free // 3) < 10


@pytest.mark.parametrize(("nodes", "shards", "seed"), [(1, 6, 1), (2, 1, 2), (2, 6, 3), (3, 3, 4)])
def test_nothing_is_full_while_hardly_anything_is_stored(nodes: int, shards: int, seed: int) -> None:
    """Whichever actors come and go, and whoever becomes primary: what was granted to others is free too."""
    generator = random.Random(seed)
    settings = HostSettings(memory_bytes_max=1_000_000)
    world = World(nodes=nodes, shards=shards, seed=seed, settings=settings)
    waits_since: dict[int, int] = {}
    waited_ns = 0

    def look() -> None:
        nonlocal waited_ns
        for shard in range(shards):
            for actor in world.serving(shard):
                point = (shard * 65536) // shards + 1
                reply = world.call(actor, create(digest(shard), data(60_000), point=point), 1.0)
                assert not is_full(reply), f"{actor.slot} called a memory full that is not"
                if isinstance(reply, wire.Overloaded) and "shared anew" in reply.reason:
                    since = waits_since.setdefault(shard, world.now_ns)
                    waited_ns = max(waited_ns, world.now_ns - since)
                else:
                    waits_since.pop(shard, None)

    for event in ("", "kill", "start n7", "kill", "start n8", "pause", "kill"):
        if event == "kill":
            world.kill(world.primary() if generator.random() < 0.5 else generator.choice(world.alive()))
        elif event == "pause":
            paused = generator.choice(world.alive())
            world.pause(paused)
            world.after(ns(0.8), lambda paused=paused: world.resume(paused))
        elif event:
            world.start_node(event.split()[1])
        for pause_seconds in (0.01,) * 30 + (0.1,) * 30:
            look()
            world.run_for(pause_seconds)
    assert waited_ns <= ns(settings.beacon_seconds * 1.5)


def test_requests_held_during_a_handover_are_not_counted_after_it() -> None:
    probe = Probe(SMALL)
    probe.hand_over()
    proposal = probe.proposals()[-1]
    before = probe.host.memory.used_bytes
    assert not probe.ask(create_now(1, data=data(5000)))
    assert probe.host.memory.used_bytes > before + 5000
    probe.configure(3, (B, ME), nonce=proposal.nonce, wanted="ba")
    assert probe.replica is not None
    assert probe.replica.primary is None
    assert probe.host.memory.used_bytes == before


def test_a_snapshot_that_does_not_fit_is_refused_as_a_whole() -> None:
    """Before anything of it is taken."""
    probe = Probe(SMALL)
    probe.configure(1, (B, C), wanted="ba")
    (answer,) = probe.hear(B, SnapshotChunk(0, 1, 1, 0, 0, 0, False, (), (), (), 500_000))
    assert isinstance(answer, SnapshotRefused)
    assert answer.full
    assert "--memory-max" in answer.reason
    assert probe.host.replicas[0] is None


def test_a_joiner_is_told_of_what_is_not_committed_yet() -> None:
    """The log follows the snapshot at once, however much it holds."""
    probe = Probe(PLENTY)
    probe.become_primary()
    assert probe.ask(create_now(1, data=data(20_000))) == [], "the backup has not acknowledged"
    probe.configure(2, (ME, B), wanted="abc")
    probe.connect(C)
    assert probe.chunks()[-1].shard_bytes > 20_000


@pytest.mark.parametrize("before", [False, True])
def test_what_a_joiner_was_not_told_of_takes_of_its_room(before: bool) -> None:
    """What was logged before the first chunk is in the size that it tells, what came after it is not."""
    probe = Probe(PLENTY)
    probe.start_alone()
    probe.configure(1, (ME,), wanted="ab")
    probe.step(ins.LinkUp(B, bulk=False))
    probe.hear(B, BeaconOk(probe.now_ns, 0, (), 1, 1_000_000, 0, 1_000_000))
    if before:
        probe.ask(create_now(1, data=data(30_000)))
    probe.step(ins.LinkUp(B, bulk=True))
    (first,) = probe.chunks()
    if not before:
        probe.ask(create_now(1, data=data(30_000)))
    assert probe.pair().room_bytes == 1_000_000
    probe.hear(B, SnapshotOk(0, 1, first.join, 0))
    taken = 1_000_000 - probe.pair().room_bytes
    assert taken == 0 if before else 30_000 < taken < 33_000


def test_an_actor_over_its_bound_takes_a_copy_of_an_empty_shard() -> None:
    """It says that it is over its bound."""
    memory = Memory(SMALL, "n0/0")
    memory.note(0, 300_000, 0)
    assert memory.refusal_of_join(1, 0) is None, "it takes nothing"
    assert memory.refusal_of_join(2, 5000) == (
        "no memory: the copy takes 5000 bytes, and actor n0/0 is over its bound (--memory-max)",
        True,
    )
    memory.note(0, 190_000, 0)
    assert memory.refusal_of_join(2, 5000) == (
        "no memory: the copy takes 5000 bytes, and actor n0/0 has 3750 free (--memory-max)",
        True,
    )


def test_memory_that_peers_hold_in_reserve_is_waited_for() -> None:
    """An actor that has just started has granted nearly all of its memory, and is not full for that."""
    memory = Memory(SMALL, "n0/0")
    for peer in range(20):
        memory.offer(peer.to_bytes(8, "big"), 0)
    assert memory.free_bytes < 5000
    assert memory.refusal_of_join(2, 5000) == (
        "actor n0/0 takes it once others return the memory that they hold",
        False,
    )


def test_what_the_process_takes_beside_the_counted_is_taken_from_the_bound() -> None:
    memory = Memory(HostSettings(memory_bytes_max=1_000_000), "n0/0")
    memory.measured(300_000)
    assert memory.limit_bytes == 700_000
    memory.note(0, 400_000, 0)
    memory.measured(750_000)
    assert memory.limit_bytes == 650_000
    memory.note(0, 100_000, 0)
    memory.measured(750_000)
    assert memory.limit_bytes == 650_000, "what was freed is used again, and counts as free"
    memory.measured(760_000)
    assert memory.limit_bytes == 640_000, "it grew although something was free"
    memory.note(0, 450_000, 0)
    memory.measured(800_000)
    assert memory.limit_bytes == 650_000
    memory.measured(500_000)
    assert memory.limit_bytes == 950_000


def test_a_measurement_is_an_input() -> None:
    probe = Probe(SMALL)
    probe.start_alone()
    probe.step(ins.MemoryMeasured(150_000))
    assert isinstance(probe.ask(create_now(1, data=data(60_000)))[0], wire.Failed)
