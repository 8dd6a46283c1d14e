"""What an actor says of the time does not go back when its host's clock is set."""

from tests.cluster.shard.harness import WALL_START_US, World, create
from tests.cluster.shard.probe import WALL_US, Probe
from tests.cluster.shard.test_memory import data, digest

BACK_US = 40_000_000


def test_a_clock_that_was_set_back_is_not_told() -> None:
    """A store that went by it would send ends that have passed already by the time of the shards."""
    world = World(nodes=2, shards=1)
    world.settle()
    world.call(world.primary(), create(digest(1), data()))
    for actor in world.alive():
        replica = actor.replica()
        assert replica is not None
        shown = replica.clock.last_us
        assert shown > WALL_START_US
        assert actor.host.clock_us(shown - BACK_US) == shown
        assert actor.host.clock_us(shown + BACK_US) == shown + BACK_US


def test_an_actor_without_shards_tells_its_hosts_clock() -> None:
    assert Probe().host.clock_us(WALL_US - BACK_US) == WALL_US - BACK_US
