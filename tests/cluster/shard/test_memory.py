"""Memory has an end: what is counted, what is refused when it is full, and what a backup lets be added."""

import random

import msgspec
import pytest

from greenroom import wire
from greenroom_cluster.shard import effects as fx
from greenroom_cluster.shard import inputs as ins
from greenroom_cluster.shard.messages import Beacon, BeaconOk, SnapshotChunk, SnapshotRefused
from greenroom_cluster.shard.settings import HostSettings, ns
from greenroom_cluster.shard.state.memory import Memory
from tests.cluster.shard.harness import Actor, World, create, delete, get, update
from tests.cluster.shard.probe import ALICE, ME, B, C, Probe
from tests.cluster.shard.probe import create as create_now

SMALL = HostSettings(memory_bytes_max=200_000)
PLENTY = HostSettings(memory_bytes_max=100_000_000)
SIZE = 2000


def data(size: int = SIZE, mark: int = 0) -> bytes:
    return msgspec.msgpack.encode({"x": b"x" * size, "n": mark})


def digest(number: int) -> bytes:
    return number.to_bytes(32, "big")


def counted(actor: Actor) -> int:
    """What the replicas of an actor hold, counted anew."""
    total = 0
    for replica in actor.host.replicas:
        if replica is not None:
            table = replica.table
            total += table.charged_bytes + table.clients.charged_bytes + replica.log.charged_bytes
    return total


def is_full(reply: wire.Reply) -> bool:
    return isinstance(reply, wire.Failed) and reply.code == wire.FailureCode.FULL


def fill(world: World, size: int = SIZE, sessions: int = 1000, first: int = 0) -> list[bytes]:
    """Create sessions until the primary refuses one; return those it acknowledged."""
    created: list[bytes] = []
    for number in range(first, first + sessions):
        reply = world.call(world.primary(), create(digest(number), data(size)))
        if is_full(reply):
            return created
        if isinstance(reply, wire.Written):
            created.append(digest(number))
        else:
            assert isinstance(reply, wire.Overloaded)
            world.run_for(0.3)
    raise AssertionError("it never became full")


@pytest.fixture
def full() -> tuple[World, list[bytes]]:
    world = World(nodes=2, shards=1, settings=SMALL)
    world.settle()
    return world, fill(world)


def test_what_is_acknowledged_fits_and_the_rest_is_refused_by_name(full: tuple[World, list[bytes]]) -> None:
    world, created = full
    reply = world.call(world.primary(), create(digest(10_000), data()))
    assert is_full(reply)
    slot = reply.detail.split()[1]
    assert slot in ("n0/0", "n1/0")
    assert reply.detail == (
        f"actor {slot} has no memory left for this session: shorten lifetimes or delete sessions, add a "
        f"node, or restart node {slot[:2]} with a larger --memory-max"
    )
    assert 60 < len(created) < 90
    for actor in world.alive():
        assert counted(actor) <= SMALL.memory_bytes_max
    for each in created:
        assert isinstance(world.call(world.primary(), get(each)), wire.Session)


def told_full(world: World) -> list[str]:
    traces = [actor.trace for actor in world.actors.values()]
    return [each.slot for trace in traces for each in trace if isinstance(each, fx.MemoryFull)]


def test_growth_that_is_refused_is_told_once_a_minute_and_shown_for_one(
    full: tuple[World, list[bytes]],
) -> None:
    world, _ = full
    primary = world.primary()
    refuse = lambda number: world.call(primary, create(digest(number), data()))  # noqa: E731
    shown = lambda: inspected(world, primary).refusing  # noqa: E731
    first = told_full(world)
    assert len(first) == len(set(first)) == 1
    for number in range(20):
        assert is_full(refuse(40_000 + number))
    assert told_full(world) == first
    assert shown() == tuple(first)
    world.run_for(59)
    assert shown() == tuple(first)
    world.run_for(2)
    assert shown() == ()
    # Answers that were kept for repeats have made room meanwhile.
    fill(world, first=50_000)
    assert told_full(world) == first * 2
    assert shown() == tuple(first)


def test_what_is_shown_as_free_is_what_nothing_takes_whoever_may_add_it() -> None:
    world = World(nodes=2, shards=1, settings=SMALL)
    world.settle()
    world.run_for(5)
    for actor in (world.primary(), world.backup()):
        found = inspected(world, actor)
        assert found.free_bytes == SMALL.memory_bytes_max - found.used_bytes
    assert found.grantable_bytes < found.free_bytes // 2, "half of it is the primary's share"


def inspected(world: World, actor: Actor) -> wire.Inspection:
    reply = world.call(actor, wire.Inspect)
    assert isinstance(reply, wire.Inspection)
    return reply


def test_deletes_and_what_does_not_grow_go_on_when_it_is_full(full: tuple[World, list[bytes]]) -> None:
    world, created = full
    primary = world.primary()
    value = msgspec.msgpack.encode(7)
    same = lambda number: wire.Patch(number, number, 0, 0, created[0], ((("n",), value),), (), (), None, None)  # noqa: E731
    for _ in range(20):
        assert isinstance(world.call(primary, same), wire.Session)
    assert isinstance(world.call(primary, update(created[1], data(SIZE // 2))), wire.Written)
    assert is_full(world.call(primary, update(created[2], data(SIZE * 2))))
    grow = msgspec.msgpack.encode(b"y" * 5000)
    more = lambda number: wire.Patch(number, number, 0, 0, created[3], ((("y",), grow),), (), (), None, None)  # noqa: E731
    assert is_full(world.call(primary, more))
    for each in created[:10]:
        assert isinstance(world.call(primary, delete(each)), wire.Written)
    world.run_for(1.0)
    assert isinstance(world.call(primary, create(digest(20_000), data())), wire.Written)


def test_a_logged_command_that_may_shrink_a_session_counts(
    full: tuple[World, list[bytes]],
) -> None:
    """The session is not taken for as large as it is now."""
    world, created = full
    primary = world.primary()
    first = update(created[0], data(10))(901_001)
    second = update(created[0], data(SIZE))(901_002)
    primary.ask(first, second, client=b"z" * 16)
    world.run_until(lambda: {901_001, 901_002} <= primary.replies.keys())
    assert isinstance(primary.replies[901_001], wire.Written)
    assert is_full(primary.replies[901_002])


def test_a_repeat_is_not_told_that_nothing_was_written(full: tuple[World, list[bytes]]) -> None:
    """Its first attempt may be on its way still, on a connection that is read late."""
    world, _ = full
    primary = world.primary()
    far_us = 1 << 60
    primary.ask(wire.Create(900_001, 1, 20, 0, ALICE, None, 1, far_us, None, "", data()))
    world.run_until(lambda: 900_001 in primary.replies)
    assert isinstance(primary.replies[900_001], wire.Overloaded)
    assert "--memory-max" in primary.replies[900_001].reason


@pytest.mark.parametrize("small_first", [False, True])
def test_the_other_replica_is_not_filled_beyond_its_own_bound(small_first: bool) -> None:
    world = World(nodes=1, shards=2, settings=SMALL if small_first else PLENTY)
    world.settings = PLENTY if small_first else SMALL
    world.start_node("n1")
    world.settle()
    for shard in (0, 1):
        full = 0
        for number in range(200):
            point = shard << 15
            reply = world.call(
                world.primary(shard), create(digest(1000 * shard + number), data(), point=point)
            )
            full += is_full(reply)
            world.run_for(0.02)
        assert full > 50
    small = world.at_slot("n0/0" if small_first else "n1/0")
    assert counted(small) <= SMALL.memory_bytes_max
    assert counted(small) > SMALL.memory_bytes_max // 2


def test_a_joiner_without_room_says_so_and_the_shard_serves_on() -> None:
    world = World(nodes=2, shards=1, settings=PLENTY)
    world.settle()
    for number in range(150):
        world.call(world.primary(), create(digest(number), data()))
    survivor = world.primary()
    gone = world.backup()
    world.settings = SMALL
    world.kill(gone)
    world.run_for(15)
    replica = survivor.replica()
    assert replica is not None
    assert replica.members == (survivor.incarnation,)
    state = replica.state(survivor.now_ns)
    assert "no memory" in state.join_refusal
    assert state.join_refused_by == gone.slot
    assert f"takes {state.join_bytes} bytes" in state.join_refusal
    assert isinstance(world.call(survivor, create(digest(9999), data())), wire.Written)
    for actor in world.alive():
        assert counted(actor) <= SMALL.memory_bytes_max or actor is survivor
    for number in range(120):
        world.call(survivor, delete(digest(number)))
    world.settle(60)
    for number in range(120, 150):
        assert isinstance(world.call(world.primary(), get(digest(number))), wire.Session)


def test_after_a_takeover_while_full_everything_is_there_and_nothing_grows(
    full: tuple[World, list[bytes]],
) -> None:
    world, created = full
    world.kill(world.primary(), restart=False)
    world.run_for(5)
    for each in created:
        assert isinstance(world.call(world.primary(), get(each)), wire.Session)
    replies = [world.call(world.primary(), create(digest(30_000 + number), data())) for number in range(9)]
    assert is_full(replies[-1])
    assert counted(world.primary()) <= SMALL.memory_bytes_max


@pytest.mark.parametrize("seed", range(10))
def test_the_books_are_what_is_held(seed: int) -> None:
    generator = random.Random(seed)
    world = World(nodes=3, shards=2, seed=seed, settings=HostSettings(memory_bytes_max=150_000))
    world.settle()
    for number in range(300):
        point = generator.choice((0, 40_000))
        target = digest(generator.randrange(120))
        primary = world.primary(point >> 15)
        size = generator.choice((10, 500, 3000))
        value = ((("y",), msgspec.msgpack.encode(b"y" * size)),)
        make = generator.choice(
            (
                create(target, data(size), point=point, user=generator.choice((None, "u"))),
                update(target, data(size), point=point),
                delete(target, point=point),
                lambda n, p=point, t=target, v=value: wire.Patch(n, n, 0, p, t, v, (), (), None, None),
                lambda n, p=point, t=target, v=value: wire.Rotate(
                    n, n, 0, p, t, digest(generator.randrange(120)), v, (), None, None
                ),
            )
        )
        world.request(primary, make, client=generator.choice((b"a", b"b", b"c")) * 16)
        world.run_for(generator.choice((0.0, 0.0, 0.001, 0.3)))
        if number % 100 == 50:
            world.kill(generator.choice(world.alive()))
            world.run_for(10)
        for actor in world.alive():
            memory = actor.host.memory
            assert memory.used_bytes == counted(actor)
            assert (
                memory.used_bytes
                - sum(replica.log.charged_bytes for replica in actor.host.replicas if replica is not None)
                <= 150_000
            )


# --- kept replies ----------------------------------------------------------------------------------------


def test_answers_of_made_up_clients_have_an_end() -> None:
    """Few bytes of requests held on to more than a hundred megabytes, on each replica."""
    settings = HostSettings(memory_bytes_max=8_000_000)
    world = World(nodes=2, shards=1, settings=settings)
    world.settle()
    primary = world.primary()
    world.call(primary, create(ALICE, data(200_000)))
    refused = 0
    for number in range(60):
        client = number.to_bytes(16, "big")
        for request_id in range(1, 10):
            primary.replies.clear()
            primary.ask(wire.Patch(request_id, 0, 0, 0, ALICE, (), (), (), None, None), client=client)
            world.run_until(lambda request_id=request_id: request_id in primary.replies)
            refused += isinstance(primary.replies[request_id], wire.Overloaded)
            world.run_for(0.02)
    assert refused > 400
    for actor in world.alive():
        assert actor.replica().table.clients.charged_bytes <= settings.memory_bytes_max // 8 + 210_000
    assert isinstance(world.call(primary, get(ALICE)), wire.Session)
    world.run_for(120)
    assert primary.replica().table.clients.charged_bytes == 0
    assert isinstance(world.call(primary, create(digest(5), data())), wire.Written)


def test_an_answer_is_given_only_to_the_command_that_it_was_decided_for() -> None:
    """Who says hello with another's id was given the other's session, whatever it asked for."""
    world = World(nodes=2, shards=1)
    world.settle()
    primary = world.primary()
    world.call(primary, create(ALICE, data()))
    victim = b"v" * 16
    asked = wire.Patch(7, 7, 0, 0, ALICE, (), (), (), None, None)
    stolen = wire.Patch(7, 7, 0, 0, bytes(32), (), (), (), None, None)
    primary.ask(asked, stolen, client=victim)
    world.run_for(0.0)
    assert isinstance(primary.replies.pop(7), wire.Unknowable), "also while it waits in the log"
    world.run_until(lambda: 7 in primary.replies)
    answer = primary.replies.pop(7)
    assert isinstance(answer, wire.Session)
    for other in (stolen, wire.Delete(7, 7, 0, 0, ALICE), wire.Clean(7, 7, 0, (0,))):
        primary.ask(other, client=victim)
        world.run_for(0.05)
        given = primary.replies.pop(7, None)
        assert not isinstance(given, wire.Session | wire.Written)
    primary.ask(msgspec.structs.replace(asked, age_ms=5), client=victim)
    world.run_for(0.0)
    assert primary.replies[7] == answer, "its own repeat gets the same answer"


# --- grants ----------------------------------------------------------------------------------------------


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
