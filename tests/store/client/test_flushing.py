"""When requests are sent: what one turn of the loop submits goes out together, within limits."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from greenroom.cluster_store import ClusterStore
from greenroom.dialog.runner import FLUSH_BYTES
from greenroom.ids import new_session_id
from greenroom.sessions import SessionData
from tests.store.client.fake_cluster import FakeCluster

MANY = 200
FRAME_BYTES_MAX = 600  # of one session below

Play = Callable[[ClusterStore, list[SessionData], list[int]], Awaitable[None]]


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with FakeCluster(actors=1, shards=4) as fake:
        yield fake


def play(cluster: FakeCluster, what: Play) -> None:
    """Run with sessions that are stored, and the sizes of what is written from then on."""

    async def main() -> None:
        async with ClusterStore(cluster.address) as store:
            expires = datetime.now(UTC) + timedelta(hours=1)
            sessions = [
                SessionData(session_id=new_session_id(), expires=expires, data={"note": "x" * 300})
                for _ in range(MANY)
            ]
            await asyncio.gather(*(store.create(each) for each in sessions))
            runner = store._registry.current()
            written: list[int] = []
            write = runner._write

            def noting(number: int, data: bytearray) -> None:
                written.append(len(data))
                write(number, data)

            runner._write = noting  # type: ignore[method-assign]
            await what(store, sessions, written)

    asyncio.run(main())


def test_what_one_turn_submits_goes_out_together(cluster: FakeCluster) -> None:
    async def together(store: ClusterStore, sessions: list[SessionData], written: list[int]) -> None:
        found = await asyncio.gather(*(store.get(each.session_id) for each in sessions))
        assert [each and each.data for each in found] == [each.data for each in sessions]
        # The first could not know that others would follow.
        assert len(written) <= 2

    play(cluster, together)


def test_much_does_not_wait_for_the_end_of_the_turn(cluster: FakeCluster) -> None:
    async def together(store: ClusterStore, sessions: list[SessionData], written: list[int]) -> None:
        await asyncio.gather(*(store.update(each.session_id, each) for each in sessions))
        assert sum(written) > 3 * FLUSH_BYTES
        assert max(written) < FLUSH_BYTES + FRAME_BYTES_MAX
        assert len(written) < MANY / 10

    play(cluster, together)


def test_a_lone_request_is_sent_at_once(cluster: FakeCluster) -> None:
    async def one_by_one(store: ClusterStore, sessions: list[SessionData], written: list[int]) -> None:
        loop = asyncio.get_running_loop()
        await store.get(sessions[0].session_id)
        for each in sessions[:3]:
            written.clear()
            asking = asyncio.create_task(store.get(each.session_id))
            # Right after the task's first step, and before anything that the step asked the loop for.
            counted = loop.create_future()
            loop.call_soon(lambda done=counted: done.set_result(len(written)))
            assert await counted == 1
            assert await asking is not None

    play(cluster, one_by_one)


def test_after_a_crowd_a_request_waits_for_others(cluster: FakeCluster) -> None:
    async def crowd(store: ClusterStore, sessions: list[SessionData], written: list[int]) -> None:
        await asyncio.gather(*(store.get(each.session_id) for each in sessions))
        written.clear()
        await asyncio.gather(*(store.get(each.session_id) for each in sessions))
        assert len(written) == 1

    play(cluster, crowd)
