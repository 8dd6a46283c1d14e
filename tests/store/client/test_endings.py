"""What the store tells of endings, over real sockets."""

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from greenroom.cluster_store import ClusterStore
from greenroom.endings import Ended
from tests.store.client.fake_cluster import FakeCluster
from tests.store.client.store_stage import session

pytestmark = [pytest.mark.trio, pytest.mark.timeout(60)]


async def test_an_end_that_is_read_together_with_the_watch_is_told(cluster: FakeCluster) -> None:
    """An actor that is behind reads both at once, and answers in their order."""
    one = session()
    heard: list[Ended] = []
    async with ClusterStore(cluster.address) as store:
        await store.create(one)

        async def listen() -> None:
            heard.extend([ended async for ended in store.endings(one.session_id)])

        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                with cluster.stalled():
                    nursery.start_soon(listen)
                    await wait_all_tasks_blocked(0.05)
                    nursery.start_soon(store.delete, one.session_id)
                    await wait_all_tasks_blocked(0.05)
    assert heard == [Ended("logout")]
