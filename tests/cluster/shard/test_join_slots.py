"""Which joins may begin, and whose turn comes when one ends."""

from greenroom_cluster.shard.joining.slots import JoinSlots
from greenroom_cluster.shard.settings import HostSettings

ONE, OTHER = b"1" * 16, b"2" * 16


def slots(*, in_all: int = 3, to_one: int = 2) -> JoinSlots:
    return JoinSlots(HostSettings(joins_max=in_all, joins_per_peer_max=to_one))


def test_joins_are_limited_by_peer_and_in_all() -> None:
    joins = slots()
    joins.take(ONE)
    joins.take(ONE)
    assert not joins.free(ONE)
    assert joins.free(OTHER)
    joins.take(OTHER)
    assert joins.taken == 3
    assert not joins.free(OTHER)
    joins.give_back(ONE, joined=False)
    assert joins.free(ONE)
    assert joins.free(OTHER)


def test_after_a_success_the_next_shards_of_that_peer_follow() -> None:
    """They have their turn in order."""
    joins = slots()
    joins.take(ONE)
    joins.take(ONE)
    for shard in (7, 3, 5):
        joins.wait(ONE, shard)
    joins.wait(OTHER, 9)
    assert joins.take_turn() is None
    joins.give_back(ONE, joined=True)
    assert joins.take_turn() == 7
    joins.take(ONE)
    assert joins.take_turn() is None
    joins.give_back(ONE, joined=True)
    assert joins.take_turn() == 3
    # One that needs no join any more gives its turn on.
    assert joins.take_turn() == 5
    assert joins.take_turn() is None


def test_a_failure_brings_nobodys_turn() -> None:
    joins = slots()
    joins.take(ONE)
    joins.wait(ONE, 7)
    joins.give_back(ONE, joined=False)
    assert joins.taken == 0
    assert joins.take_turn() is None


def test_who_waits_for_a_peer_that_is_gone_is_forgotten() -> None:
    joins = slots()
    joins.take(ONE)
    joins.wait(ONE, 7)
    joins.forget_others({OTHER})
    joins.give_back(ONE, joined=True)
    assert joins.take_turn() is None
