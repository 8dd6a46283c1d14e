"""Where an operator allows it, the oldest sessions without a user make room when memory is full."""

import random

import msgspec
import pytest

from greenroom import wire
from greenroom.ids import POINT_BITS
from greenroom_cluster.shard import effects as fx
from greenroom_cluster.shard.settings import HostSettings
from greenroom_cluster.shard.state.log import Log, record_bytes
from greenroom_cluster.shard.state.pacing import affordable
from greenroom_cluster.shard.state.records import Evict, Record
from greenroom_cluster.shard.state.table import SessionTable
from tests.cluster.shard.harness import Actor, World, create, delete, get, update
from tests.cluster.shard.probe import ALICE, FAR_US, WALL_US, Probe
from tests.cluster.shard.probe import create as create_now
from tests.cluster.shard.test_memory import SIZE, counted, data, digest, fill, is_full

SMALL = HostSettings(memory_bytes_max=200_000, eviction="anonymous")
PLENTY = HostSettings(memory_bytes_max=100_000_000, eviction="anonymous")


def small_world(settings: HostSettings = SMALL) -> World:
    world = World(nodes=2, shards=1, settings=settings)
    world.settle()
    return world


def write(world: World, number: int, *, user: str | None = None, size: int = SIZE) -> wire.Reply:
    """Create a session as a store does: what is overloaded is asked again, until a deadline."""
    for _ in range(20):
        reply = world.call(world.primary(), create(digest(number), data(size), user=user))
        if not isinstance(reply, wire.Overloaded):
            break
        world.run_for(0.1)
    return reply


def found(world: World, numbers: range) -> list[int]:
    return [
        number
        for number in numbers
        if isinstance(world.call(world.primary(), get(digest(number))), wire.Session)
    ]


def evicted(world: World) -> int:
    return sum(actor.host._resources.evictions.sessions for actor in world.alive())


def told(actor: Actor) -> list[str]:
    return [each.message for each in actor.trace if isinstance(each, fx.Warned) and "evicted" in each.message]


def test_the_oldest_go_and_the_newest_are_kept() -> None:
    world = small_world()
    for number in range(300):
        assert isinstance(write(world, number), wire.Written)
    left = found(world, range(300))
    assert left == list(range(300 - len(left), 300))
    assert 50 < len(left) < 90
    assert evicted(world) == 300 - len(left)
    world.run_for(1.0)
    one, other = (actor.replica() for actor in world.alive())
    assert one is not None
    assert other is not None
    assert one.table.fingerprint() == other.table.fingerprint()
    for actor in world.alive():
        assert counted(actor) <= SMALL.memory_bytes_max
    # Once a minute at most.
    assert 1 <= len(told(world.primary())) <= 3
    assert all("--memory-max" in line for line in told(world.primary()))


def test_users_are_spared_and_when_only_they_are_left_it_is_full() -> None:
    world = small_world()
    for number in range(20):
        assert isinstance(write(world, number, user="alice"), wire.Written)
    for number in range(20, 40):
        assert isinstance(write(world, number), wire.Written)
    written = 40
    while not is_full(reply := write(world, written, user="bob")):
        assert isinstance(reply, wire.Written)
        written += 1
    assert evicted(world) == 20
    assert found(world, range(written)) == [*range(20), *range(40, written)]
    assert isinstance(world.call(world.primary(), delete(digest(0))), wire.Written)
    world.run_for(1.0)
    assert isinstance(write(world, 1000, user="bob"), wire.Written)


def test_a_shard_that_has_none_left_gets_room_from_another() -> None:
    """Each shard evicts its own oldest first, so that one has none while another is full of them."""
    world = World(nodes=1, shards=2, replicas=1, settings=SMALL)
    world.settle()
    for number in range(100):
        assert isinstance(write(world, number), wire.Written)
    before = evicted(world)
    for number in range(1000, 1030):
        for _ in range(30):
            made = create(digest(number), data(), user="alice", point=1 << POINT_BITS - 1)
            reply = world.call(world.primary(1), made)
            if not isinstance(reply, wire.Overloaded):
                break
            world.run_for(0.1)
        assert isinstance(reply, wire.Written), number
    assert evicted(world) >= before + 25
    assert counted(world.primary()) <= SMALL.memory_bytes_max


def test_nothing_is_evicted_unless_asked_for() -> None:
    world = small_world(HostSettings(memory_bytes_max=200_000))
    created = fill(world)
    for number in range(100):
        assert is_full(world.call(world.primary(), create(digest(10_000 + number), data())))
    assert evicted(world) == 0
    assert all(isinstance(world.call(world.primary(), get(each)), wire.Session) for each in created)
    table = world.primary().replica().table  # type: ignore[union-attr]
    assert table.anonymous is None


def test_nothing_is_evicted_while_a_backup_could_not_read_it() -> None:
    """A release of before ends the link over an `Evict`, again and again, and its shards with it."""
    world = World(nodes=2, shards=1, settings=SMALL)
    world.former_nodes.add("n0")
    world.settle()
    assert world.backup().node == "n0"
    fill(world)
    for number in range(100):
        assert is_full(world.call(world.primary(), create(digest(10_000 + number), data())))
    assert evicted(world) == 0
    (line,) = told(world.primary())
    assert line == (
        "memory or a quota is full, and no session is evicted: actor "
        "n0/0 is of a former release: upgrade node n0"
    )
    world.former_nodes.clear()
    world.kill(world.backup())
    world.run_for(1.0)
    world.settle()
    for number in range(100):
        assert isinstance(write(world, 20_000 + number), wire.Written)
    assert evicted(world) > 0


def test_a_session_is_not_evicted_for_its_own_growth() -> None:
    world = small_world()
    assert isinstance(write(world, 0), wire.Written)
    number = 1
    while not is_full(reply := write(world, number, user="alice")):
        assert isinstance(reply, wire.Written)
        number += 1
    assert evicted(world) == 1
    assert isinstance(world.call(world.primary(), delete(digest(1))), wire.Written)
    world.run_for(1.0)
    assert isinstance(write(world, 0, size=100), wire.Written)
    assert is_full(world.call(world.primary(), update(digest(0), data(SIZE * 30))))
    assert found(world, range(2)) == [0]


def test_nothing_is_evicted_where_that_makes_no_room() -> None:
    """The memory is taken by something else than sessions: buffers of connections, say."""
    world = small_world()
    for number in range(40):
        assert isinstance(write(world, number), wire.Written)
    memory = world.primary().host.memory
    # What is lacking is shared like what is free, but has to be made up as a whole.
    memory.offer(bytes(16), 0)
    used = memory.used_bytes
    for lacking in (used, SMALL.memory_bytes_max):
        memory.measured(lacking + SMALL.memory_bytes_max)
        world.run_for(1.0)
        for number in range(100, 120):
            assert is_full(write(world, number))
        assert evicted(world) == 0
        assert found(world, range(40)) == list(range(40))
    memory.withdraw(bytes(16))
    # Where it takes a part, so much is evicted as makes room for what comes.
    memory.measured(used // 10)
    memory.measured(used)
    memory.measured(used + SMALL.memory_bytes_max - used // 2 - memory.spare_bytes)
    assert isinstance(write(world, 200), wire.Written)
    left = found(world, range(40))
    assert left == list(range(40 - len(left), 40))
    assert 0 < len(left) < 40


@pytest.mark.parametrize("small_first", [False, True])
def test_little_more_is_evicted_than_needed(*, small_first: bool) -> None:
    """While a backup has yet to offer what was freed, no write evicts once more."""
    world = World(nodes=1, shards=1, settings=SMALL if small_first else PLENTY)
    world.settings = PLENTY if small_first else SMALL
    world.start_node("n1")
    world.settle()
    for number in range(200):
        assert isinstance(write(world, number), wire.Written)
    left = found(world, range(200))
    assert left == list(range(200 - len(left), 200))
    # What is granted to a peer is kept free for it, so the smaller one is never quite full.
    assert len(left) > 25
    small = world.at_slot("n0/0" if small_first else "n1/0")
    assert counted(small) <= SMALL.memory_bytes_max


def test_many_refused_at_once_evict_once() -> None:
    world = small_world()
    for number in range(100):
        assert isinstance(write(world, number), wire.Written)
    primary = world.primary()
    while isinstance(world.call(primary, create(digest(number := number + 1), data())), wire.Written):
        pass
    before = evicted(world)
    replica = primary.replica()
    assert replica is not None
    appended = replica.log.appended
    far_us = 1 << 60
    primary.ask(
        *(
            wire.Create(900_000 + each, 1, 0, 0, digest(50_000 + each), None, 1, far_us, None, "", data())
            for each in range(50)
        )
    )
    assert all(isinstance(primary.replies[900_000 + each], wire.Overloaded) for each in range(50))
    world.run_for(0.01)
    assert replica.log.appended <= appended + 1
    assert evicted(world) <= before + 5


def test_a_session_that_got_a_user_before_the_eviction_is_applied_stays() -> None:
    table = SessionTable(by_age=True)
    for sequence, each in enumerate((ALICE, b"b" * 32, b"c" * 32), 1):
        command = wire.Create(sequence, 1, 0, 0, each, None, WALL_US, FAR_US, None, "", b"\x80")
        table.apply(Record(1, sequence, WALL_US, b"c" * 16, command))
    login = wire.Patch(4, 1, 0, 0, ALICE, (), (), (), ("alice",), None)
    table.apply(Record(1, 4, WALL_US, b"c" * 16, login))
    assert table.apply(Record(1, 5, WALL_US, b"", Evict((ALICE, b"b" * 32, bytes(32))))) is None
    assert table.sessions.keys() == {ALICE, b"c" * 32}
    assert table.evicted == 1
    assert list(table.anonymous or ()) == [b"c" * 32]


def test_a_login_that_is_logged_before_the_eviction_keeps_its_session() -> None:
    """Whoever decides on the eviction sees what is applied, and the login is not."""
    probe = Probe(SMALL)
    probe.become_primary()
    old, other = digest(1), digest(2)
    for number, each in enumerate((old, other), 1):
        probe.ask(create_now(number, each, data(40_000)))
        probe.acknowledge(*probe.prepares())
    probe.ask(wire.Patch(3, 1, 0, 0, old, (), (), (), ("alice",), None))
    logged = probe.prepares()
    [reply] = probe.ask(create_now(4, digest(3), data(120_000)))
    assert isinstance(reply, wire.Overloaded)
    logged += probe.prepares()
    commands = [each.command for prepare in logged for entry in prepare.entries for each in entry.records]
    assert isinstance(commands[-1], Evict)
    assert commands[-1].digests == (old, other)
    [reply] = probe.ask(create_now(5, digest(4), data(120_000)))
    assert isinstance(reply, wire.Overloaded)
    assert not probe.prepares(), "one eviction at a time"
    for each in logged:
        probe.acknowledge(each)
    assert probe.replica is not None
    assert probe.replica.table.sessions.keys() == {old}
    assert probe.host._resources.evictions.sessions == 1
    [reply] = probe.ask(create_now(6, digest(5), data(120_000)))
    assert is_full(reply), "nobody is left who could be evicted"


@pytest.mark.parametrize("seed", range(10))
def test_the_books_and_the_order_are_what_is_held(seed: int) -> None:
    """Also after actors are lost, and with two primaries that fill each other's backups."""
    generator = random.Random(seed)
    settings = msgspec.structs.replace(SMALL, memory_bytes_max=150_000, page_max=generator.choice((1, 256)))
    world = World(nodes=3, shards=2, seed=seed, settings=settings)
    world.settle()
    with_user: set[bytes] = set()
    most = 0
    for number in range(300):
        shard = generator.randrange(2)
        target = bytes([shard]) + digest(generator.randrange(120))[1:]
        user = generator.choice((None, None, None, "u"))
        reply = world.call(
            world.primary(shard),
            create(target, data(generator.choice((10, 500, 3000))), point=shard << 15, user=user),
        )
        if isinstance(reply, wire.Written) and user is not None:
            with_user.add(target)
        if generator.random() < 0.05:
            gone = bytes([shard]) + digest(generator.randrange(120))[1:]
            world.call(world.primary(shard), delete(gone, point=shard << 15))
            with_user.discard(gone)
        world.run_for(generator.choice((0.0, 0.0, 0.001, 0.3)))
        if number % 100 == 50:
            world.kill(generator.choice(world.alive()))
            world.run_for(10)
        most = max(most, evicted(world))
        for actor in world.alive():
            assert actor.host.memory.used_bytes == counted(actor)
            for replica in actor.host.replicas:
                if replica is not None:
                    anonymous = replica.table.anonymous
                    assert anonymous is not None
                    assert len(anonymous) == len(replica.table.sessions) - replica.table.users.entries
                    sizes = sum(len(replica.table.sessions[each]) for each in anonymous)
                    assert anonymous.stored_bytes == sizes
    assert most > 0
    for target in with_user:
        shard = target[0]
        assert isinstance(world.call(world.primary(shard), get(target, point=shard << 15)), wire.Session)


def test_the_eviction_of_many_is_spread_over_steps() -> None:
    """Two of the largest are all that a step applies."""
    log = [Record(1, number, WALL_US, b"", Evict((ALICE,) * 256)) for number in range(1, 9)]
    held = Log()
    for record in log:
        held.append(record, record_bytes(record.command), 0)
    reached, _ = affordable(held, SessionTable(), 0, 8, HostSettings().step_bytes)
    assert 1 <= reached <= 2
