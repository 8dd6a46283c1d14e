"""The store under the event loops that servers bring along, besides asyncio's own."""

import asyncio
import importlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from greenroom import ClusterStore, SessionData, new_session_id
from tests.store.client.fake_cluster import running_cluster

LOOPS = ["asyncio", "uvloop", "rloop"]


@pytest.fixture(params=LOOPS)
def new_loop(request: pytest.FixtureRequest) -> Callable[[], asyncio.AbstractEventLoop]:
    """What makes a loop of that kind; skipped where it is not installed."""
    if request.param != "asyncio":
        pytest.importorskip(request.param)
    return importlib.import_module(request.param).new_event_loop  # type: ignore[no-any-return]


async def use(store: ClusterStore) -> None:
    expires = datetime.now(UTC) + timedelta(hours=1)
    ids = [new_session_id() for _ in range(50)]
    sessions = [SessionData(session_id=each, expires=expires, data={"text": "x" * 100_000}) for each in ids]
    await asyncio.gather(*(store.create(session) for session in sessions))
    found = await asyncio.gather(*(store.get(each) for each in ids))
    assert [each is not None and len(each.data["text"]) for each in found] == [100_000] * 50
    patched = await store.patch(ids[0], set={"seen": 1})
    assert patched.data["seen"] == 1
    assert await store.list_by_user("nobody") == []


def test_a_store_serves_and_closes(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """With more data at once than a socket takes, so that it must wait until it is writable."""
    with running_cluster() as cluster, asyncio.Runner(loop_factory=new_loop) as runner:

        async def main() -> None:
            async with ClusterStore(cluster.address) as store:
                await use(store)

        runner.run(main())


def test_a_broken_connection_is_opened_again(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    with running_cluster() as cluster, asyncio.Runner(loop_factory=new_loop) as runner:

        async def main() -> None:
            async with ClusterStore(cluster.address) as store:
                for _ in range(3):
                    await use(store)
                    await asyncio.get_running_loop().run_in_executor(None, cluster.call, cut)

        def cut() -> None:
            for connection in [*cluster.subscribers, *(c for a in cluster.actors for c in a.connections)]:
                connection.transport.abort()

        runner.run(main())


def test_one_store_outlives_its_loops(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """The sockets of a loop that ended without a word are closed, and its descriptors used again."""
    with running_cluster() as cluster:
        store = ClusterStore(cluster.address)
        for _ in range(3):
            with asyncio.Runner(loop_factory=new_loop) as runner:
                runner.run(use(store))
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(store.aclose())
