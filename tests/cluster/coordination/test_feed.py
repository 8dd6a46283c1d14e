"""What of a map goes to whom."""

from msgspec.structs import replace

from greenroom import wire
from greenroom.cluster_map import delta_between
from greenroom_cluster.coordination.feed import MapFeed
from tests.cluster.coordination.builders import cluster, shard

FIRST = cluster((shard(), shard()))
SECOND = replace(FIRST, version=2)


def test_a_subscriber_gets_the_whole_map_and_then_every_change() -> None:
    feed = MapFeed()
    assert feed.publish(FIRST) is None
    assert feed.subscribe(1) == wire.MapFull(FIRST)
    assert feed.publish(SECOND) == wire.MapChange(delta_between(FIRST, SECOND))
    assert feed.subscribe(2) == wire.MapFull(SECOND)
    assert feed.subscribers == (1, 2)
    feed.forget(1)
    feed.forget(1)
    assert feed.subscribers == (2,)


def test_who_came_before_the_first_map_gets_it_whole() -> None:
    feed = MapFeed()
    assert feed.subscribe(1) is None
    assert feed.publish(FIRST) == wire.MapFull(FIRST)


def test_a_map_of_another_lineage_continues_nothing() -> None:
    feed = MapFeed()
    feed.publish(FIRST)
    feed.subscribe(1)
    later = replace(FIRST, lineage=2)
    assert feed.publish(later) == wire.MapFull(later)


def test_an_older_map_is_not_sent() -> None:
    feed = MapFeed()
    feed.publish(SECOND)
    feed.subscribe(1)
    assert feed.publish(SECOND) is None
    assert feed.publish(FIRST) is None
    assert feed.map is SECOND


def test_one_message_serves_all_subscribers() -> None:
    feed = MapFeed()
    feed.publish(FIRST)
    assert feed.subscribe(1) is feed.subscribe(2)
