"""Memory has an end: what is counted, and what is refused when it is full."""

import random

import msgspec
import pytest

from greenroom import wire
from greenroom_cluster.shard import effects as fx
from greenroom_cluster.shard.settings import HostSettings
from tests.cluster.shard.harness import Actor, World, create, delete, get, update
from tests.cluster.shard.probe import ALICE
from tests.cluster.shard.small_memory import PLENTY, SIZE, SMALL, data, digest, is_full


def counted(actor: Actor) -> int:
    """What the replicas of an actor hold, counted anew."""
    total = 0
    for replica in actor.host.replicas:
        if replica is not None:
            table = replica.table
            total += table.charged_bytes + table.clients.charged_bytes + replica.log.charged_bytes
    return total


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
