"""The canaries themselves: they see what they are there for, and nothing in peace."""

import signal

import pytest
import trio

from greenroom import store_from_url
from greenroom_cluster.runtime.processes import ProcessHandle
from tests.system.canaries import USER_ID, canaries
from tests.system.stage import SharedCluster, stopped

pytestmark = [pytest.mark.system, pytest.mark.trio]


@pytest.fixture
async def whole(small_cluster: SharedCluster) -> SharedCluster:
    await small_cluster.healthy()
    return small_cluster


async def test_peace(whole: SharedCluster) -> None:
    async with canaries(whole.cluster) as watched:
        assert not watched.ended
    assert watched.report is not None
    assert watched.report.operations >= 1000


async def test_killed_actor(whole: SharedCluster) -> None:
    """No session is lost and nobody is refused, and yet it counts."""

    async def kill_one() -> None:
        async with canaries(whole.cluster, slowdown_max=1e6):
            handle = ProcessHandle((await whole.busiest_primary()).pid)
            handle.signal(signal.SIGKILL)
            await handle.wait_exited()

    with pytest.raises(AssertionError, match="ended or are new"):
        await kill_one()
    await whole.healthy()


async def test_actor_that_pauses(whole: SharedCluster) -> None:
    async def pause_one() -> None:
        async with canaries(whole.cluster):
            for _ in range(8):
                with stopped((await whole.busiest_primary()).pid):
                    await trio.sleep(0.2)

    with pytest.raises(AssertionError, match="p99_seconds"):
        await pause_one()
    await whole.healthy()


async def test_lost_canaries(whole: SharedCluster) -> None:
    async def end_them() -> None:
        async with store_from_url(whole.url) as store, canaries(whole.cluster, sessions=8):
            await store.delete_by_user(USER_ID)

    with pytest.raises(AssertionError, match="lost=8"):
        await end_them()
