"""How long a `ClusterStore` and its connections live: loops, threads, forks, closing, being dropped."""

import asyncio
import gc
import subprocess
import sys
import threading
import weakref
from contextvars import ContextVar
from typing import Any

import pytest

from greenroom import wire
from greenroom.cluster_store import ClusterStore
from greenroom.errors import OutcomeUnknownError
from greenroom.ids import new_session_id
from greenroom.sessions import SessionData
from greenroom.testing import library_named
from tests.store.client.fake_cluster import FakeCluster, running_cluster
from tests.store.client.store_stage import LIBRARIES, SECONDS, run, session, until


@pytest.mark.parametrize("library", LIBRARIES)
def test_closing_ends_pending_operations_and_the_next_one_connects_again(
    cluster: FakeCluster, library: str
) -> None:
    asked = threading.Event()
    cluster.actors[0].behave = lambda request: asked.set() if isinstance(request, wire.Delete) else ...

    async def main() -> None:
        store = ClusterStore(cluster.address)
        assert await store.get(new_session_id(0)) is None

        async def close() -> None:
            await until(library, asked.is_set)
            await store.aclose()

        [pending, _] = await library_named(library).gather(lambda: store.delete(new_session_id(0)), close)
        assert isinstance(pending, OutcomeUnknownError)
        assert "closed" in str(pending)
        assert await store.get(new_session_id(0)) is None
        await store.aclose()
        await store.aclose()

    run(library, main)


def test_loops_in_threads_at_once(cluster: FakeCluster) -> None:
    store = ClusterStore(cluster.address)
    kept: list[SessionData | BaseException] = []

    async def work() -> None:
        for _ in range(20):
            one = session(data={"thread": threading.get_ident()})
            await store.create(one)
            found = await store.get(one.session_id)
            assert found is not None
            assert found.data == one.data

    def in_thread(library: str) -> None:
        try:
            run(library, work)
        except BaseException as error:  # noqa: BLE001  reported by the main thread
            kept.append(error)

    threads = [threading.Thread(target=in_thread, args=(name,)) for name in LIBRARIES * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert not kept
    assert len({client for client, _ in cluster.state.applied}) == len(threads)


@pytest.mark.parametrize("library", LIBRARIES)
def test_store_that_is_simply_dropped_closes_its_connections(cluster: FakeCluster, library: str) -> None:
    async def main() -> None:
        store = ClusterStore(cluster.address)
        await store.get(new_session_id(0))
        del store
        gc.collect()
        await until(library, lambda: not cluster.actors[0].connections and not cluster.subscribers)

    run(library, main)


SCRIPT_LOOPS = """
import asyncio, gc, sys
from greenroom.cluster_store import ClusterStore
store = ClusterStore(sys.argv[1])
async def main():
    assert await store.get("some-id") is None
for _ in range(10):
    asyncio.run(main())
for _ in range(5):
    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    loop.run_until_complete(main())
    loop.close()
if sys.argv[2] == "trio":
    import trio
    for _ in range(5):
        trio.run(main)
        asyncio.run(main())
loop = asyncio.new_event_loop()
loop.run_until_complete(main())
gc.collect()
if sys.argv[2] == "trio":
    trio.run(store.aclose)
loop.close()
"""

SCRIPT_FORK = """
import asyncio, os, sys
from greenroom.cluster_store import ClusterStore
from greenroom import SessionData, new_session_id
from datetime import datetime, timedelta, UTC
store = ClusterStore(sys.argv[1])
async def main():
    for _ in range(5):
        await store.create(SessionData(session_id=new_session_id(), expires=datetime.now(UTC) + timedelta(1)))
with asyncio.Runner() as parent:
    parent.run(main())
    child = os.fork()
    if not child:
        asyncio.run(main())
        os._exit(0)
    parent.run(main())
    assert os.waitpid(child, 0)[1] == 0
    parent.run(main())
    parent.run(store.aclose())
"""

SCRIPT_FORK_NEAR = """
import os, sys, threading, traceback
from datetime import datetime, timedelta, UTC
from greenroom.cluster_store import ClusterStore
from greenroom import SessionData, new_session_id
from greenroom.testing import library_named
library = library_named(sys.argv[2])
store, other = ClusterStore(sys.argv[1], near_sessions=9, near_eager=True), ClusterStore(sys.argv[1])
ONE = new_session_id()
async def shown():
    return (await store.get(ONE)).data["state"]
async def fill():
    expires = datetime.now(UTC) + timedelta(1)
    await store.create(SessionData(session_id=ONE, expires=expires, data={"state": "old"}))
    while not store.near().hits:
        await shown()
    await other.patch(ONE, set={"state": "new"})
    assert await shown() == "old", "it is kept, and nobody has told that it changed"
async def in_child():
    assert store.near().entries == store.near().hits == 0
    assert await shown() == "new"
    while not store.near().hits:
        assert await shown() == "new"
def child():
    try:
        library.run(in_child, 30)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)
async def parent():
    await fill()
    if not (pid := os.fork()):
        thread = threading.Thread(target=child)
        thread.start()
        thread.join()
    assert os.waitpid(pid, 0)[1] == 0
    assert await shown() == "old", "the parent keeps what it kept"
    await store.aclose()
    await other.aclose()
library.run(parent, 30)
"""


# On a busy machine asyncio tells of every callback that took long, which is not what is asked here.
PATIENT = "import logging; logging.getLogger('asyncio').setLevel(logging.ERROR)\n"


def run_script(text: str, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", PATIENT + text, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("library", LIBRARIES)
def test_successive_loops_leave_no_warning(cluster: FakeCluster, library: str) -> None:
    run_script(SCRIPT_LOOPS, cluster.address, library)


def test_fork_makes_a_client_of_its_own(cluster: FakeCluster) -> None:
    run_script(SCRIPT_FORK, cluster.address)
    assert len(cluster.state.sessions) == 20
    assert len({client for client, _ in cluster.state.applied}) == 2
    assert len(set(cluster.state.applied)) == 20


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_forks_child_shows_nothing_that_its_parent_keeps(library: str) -> None:
    """It has what the parent keeps in its memory, too, but nobody would tell it what changes."""
    with running_cluster(holds=True) as cluster:
        run_script(SCRIPT_FORK_NEAR, cluster.address, library)


@pytest.mark.parametrize("library", LIBRARIES)
def test_what_is_not_at_hand_is_missed_once_when_it_is_read(cluster: FakeCluster, library: str) -> None:
    async def main() -> None:
        store = ClusterStore(cluster.address, near_sessions=9)
        one = session()
        await store.create(one)
        assert store.at_hand(one.session_id) is None
        assert store.near().misses == 0
        assert await store.get_stored(one.session_id) is not None
        assert store.near().misses == 1
        await store.aclose()

    run(library, main)


def test_callbacks_do_not_keep_the_context_of_the_first_request(cluster: FakeCluster) -> None:
    """Else the first request's user, span or connection would live as long as the store's connections."""
    variable: ContextVar[Any] = ContextVar("request")

    class Request:
        pass

    async def first(store: ClusterStore) -> "weakref.ref[Request]":
        request = Request()
        variable.set(request)
        await store.get(new_session_id(0))
        return weakref.ref(request)

    async def main() -> None:
        async with ClusterStore(cluster.address) as store:
            request = await asyncio.create_task(first(store))
            assert await store.get(new_session_id(1 << 14)) is None
            gc.collect()
            assert request() is None

    asyncio.run(main())


def test_a_lone_caller_that_gives_up_disturbs_no_later_one(cluster: FakeCluster) -> None:
    """Its request is sent at once, so that its reply comes while others wait for theirs."""

    async def main() -> None:
        async with ClusterStore(cluster.address) as store:
            await store.get(new_session_id())
            for _ in range(20):
                given_up = asyncio.create_task(store.get(new_session_id()))
                await asyncio.sleep(0)
                given_up.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await given_up
                assert await store.get(new_session_id()) is None

    asyncio.run(main())
