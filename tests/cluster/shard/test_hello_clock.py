"""What an actor says of the time is that of its shards, which follow the host's clock only slowly."""

from greenroom_cluster.shard.state.clock import BELIEVED_AHEAD_US
from tests.cluster.shard.harness import WALL_START_US, Actor, World, create
from tests.cluster.shard.probe import WALL_US, Probe
from tests.cluster.shard.test_memory import data, digest

SET_US = 40_000_000


def actors() -> list[Actor]:
    """Return both actors of a shard that has given out a time."""
    world = World(nodes=2, shards=1)
    world.settle()
    world.call(world.primary(), create(digest(1), data()))
    return world.alive()


def test_a_clock_that_was_set_back_is_not_told() -> None:
    """A store that went by it would send ends that have passed already by the time of the shards."""
    for actor in actors():
        replica = actor.replica()
        assert replica is not None
        shown = replica.clock.last_us
        assert shown > WALL_START_US
        assert actor.host.clock_us(actor.now_ns, shown - SET_US) >= shown
        assert actor.host.clock_us(actor.now_ns, shown - SET_US) < shown + BELIEVED_AHEAD_US


def test_a_clock_that_jumped_ahead_is_not_told_either() -> None:
    """A store that went by it would send ends too late by as much as the clock is ahead."""
    for actor in actors():
        replica = actor.replica()
        assert replica is not None
        shown = replica.clock.last_us
        told = actor.host.clock_us(actor.now_ns, shown + SET_US)
        assert shown <= told < shown + BELIEVED_AHEAD_US
        assert replica.clock.last_us == shown, "to be told gives nothing out"
        assert replica.clock.read(actor.now_ns, shown + SET_US) == told


def test_an_actor_without_shards_tells_its_hosts_clock() -> None:
    probe = Probe()
    assert probe.host.clock_us(probe.now_ns, WALL_US - SET_US) == WALL_US - SET_US
