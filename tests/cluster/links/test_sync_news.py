"""A sync is taken once, and wakes the loop if the loop waits: whoever of the two comes first."""

from greenroom_cluster.links.sync_news import SyncNews
from greenroom_cluster.shard.inputs import Synced

FIRST, SECOND = Synced(1, 1, 0), Synced(2, 2, 0)


def test_the_newest_is_taken_once() -> None:
    news = SyncNews()
    assert news.take() is None
    assert not news.put(FIRST)
    assert not news.put(SECOND)
    assert news.take() is SECOND
    assert news.take() is None


def test_the_loop_is_woken_while_it_waits() -> None:
    news = SyncNews()
    assert not news.look_out(awaited=True)
    assert news.put(FIRST)
    news.take()
    assert not news.look_out(awaited=False)
    assert not news.put(SECOND)


def test_what_came_before_the_loop_waits_is_seen() -> None:
    """The thread has put it after the loop took the last one, and before it said that it waits."""
    news = SyncNews()
    assert not news.put(FIRST)
    assert not news.look_out(awaited=False)
    assert news.look_out(awaited=True)
    assert news.take() is FIRST
    assert not news.look_out(awaited=True)
