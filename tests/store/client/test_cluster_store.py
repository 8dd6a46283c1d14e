"""ClusterStore over real sockets, under asyncio and trio: failures, bad servers, bad requests."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from greenroom import wire
from greenroom.cluster_store import ClusterStore
from greenroom.errors import OutcomeUnknownError, UnavailableError, UsageError, VersionConflictError
from greenroom.framing import encode_frames
from greenroom.ids import digest_of, new_session_id
from greenroom.sessions import SessionData
from greenroom.testing import library_named
from tests.store.client.fake_cluster import FakeCluster
from tests.store.client.store_stage import LIBRARIES, SECONDS, run, session


@contextmanager
def listener(greeting: bytes | None) -> Iterator[str]:
    """A server that answers everybody with these bytes (None: never accepts) and then reads for ever."""
    server = socket.create_server(("127.0.0.1", 0))
    server.settimeout(0.2)
    over = threading.Event()
    accepted: list[socket.socket] = []

    def serve() -> None:
        while not over.is_set():
            try:
                connection, _ = server.accept()
            except TimeoutError:
                continue
            accepted.append(connection)
            connection.sendall(greeting or b"")

    thread = threading.Thread(target=serve, daemon=True)
    if greeting is not None:
        thread.start()
    try:
        yield f"127.0.0.1:{server.getsockname()[1]}"
    finally:
        over.set()
        if greeting is not None:
            thread.join(5)
        for connection in accepted:
            connection.close()
        server.close()


# --- construction ----------------------------------------------------------------------------------------


def test_nothing_happens_before_the_first_operation(cluster: FakeCluster) -> None:
    store = ClusterStore(cluster.address)
    assert cluster.address in repr(store)
    assert not cluster.subscribers


@pytest.mark.parametrize(
    "options",
    [
        {"nodes": ""},
        {"nodes": "localhost"},
        {"nodes": "localhost:0"},
        {"nodes": "localhost:x"},
        {"nodes": "::1:80"},
        {"nodes": "h:1", "deadline_seconds": 0},
        {"nodes": "h:1", "deadline_seconds": float("nan")},
        {"nodes": "h:1", "cluster": ""},
        {"nodes": "h:1", "operations_max": 0},
        {"nodes": "h:1", "operations_max": 1_000_001},
        {"nodes": "h:1", "near_sessions": 10_000_001},
        {"nodes": ["h:1"]},
        {"nodes": "h:99999"},
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        ClusterStore(**options)


@pytest.mark.parametrize(
    ("nodes", "said"), [(["h:1"], "join them with commas"), ("h:99999", "ports are 1 to 65535")]
)
def test_what_is_wrong_with_an_address_is_told(nodes: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        ClusterStore(nodes)


def test_outside_of_any_loop() -> None:
    operation = ClusterStore("127.0.0.1:1").get("some-id")
    with pytest.raises(UsageError, match="asyncio or trio"):
        operation.send(None)


# --- bad requests ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("library", LIBRARIES)
def test_bad_input_is_refused_before_anything_is_sent(cluster: FakeCluster, library: str) -> None:
    store = ClusterStore(cluster.address)

    async def main() -> None:
        for bad in (
            lambda: store.get(b"bytes"),  # type: ignore[arg-type]  # on purpose
            lambda: store.create(SessionData(session_id="", expires=datetime.now(UTC))),
            lambda: store.create(session(data={"x": "y" * (1 << 20)})),
            lambda: store.create(session(data={"x": object()})),
            lambda: store.create(session(user_id="")),
            lambda: store.update("other", session()),
            lambda: store.patch("id", set={("a",): object()}),
            lambda: store.delete_by_handle("user", "no handle"),
            lambda: store.list_by_user("user", limit=0),
            lambda: store.list_by_user("user", limit=2001),
        ):
            with pytest.raises(UsageError):
                await bad()

    run(library, main)
    assert not cluster.subscribers


@pytest.mark.parametrize("library", LIBRARIES)
def test_patch_larger_than_a_frame(cluster: FakeCluster, library: str) -> None:
    async def main() -> None:
        async with ClusterStore(cluster.address) as store:
            stored = session()
            await store.create(stored)
            with pytest.raises(UsageError, match="frame limit"):
                await store.patch(stored.session_id, set={"a": "x" * (1 << 20), "b": "y" * (1 << 20)})
            with pytest.raises(UsageError, match="over the cluster's limit of 1048576 bytes"):
                await store.patch(stored.session_id, set={"a": "x" * (1 << 20)})
            assert (await store.patch(stored.session_id, set={"a": 1})).data == {"a": 1}

    run(library, main)


# --- data ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("library", LIBRARIES)
def test_megabytes_both_ways_at_once(cluster: FakeCluster, library: str) -> None:
    """More than socket buffers hold, so that writes block and frames arrive in pieces."""
    large = [session(data={"blob": os.urandom(1_000_000)}) for _ in range(12)]

    async def main() -> None:
        async with ClusterStore(cluster.address) as store:

            async def there_and_back(one: SessionData) -> bool:
                await store.create(one)
                found = await store.get(one.session_id)
                return found is not None and found.data == one.data

            assert await library_named(library).gather(
                *(lambda one=one: there_and_back(one) for one in large)
            )

    run(library, main)
    assert len(cluster.state.sessions) == 12


# --- contention ------------------------------------------------------------------------------------------


def count(found: SessionData) -> None:
    found.data["n"] += 1


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("stores", [1, 3])
def test_modifications_of_many_callers_all_count(cluster: FakeCluster, library: str, stores: int) -> None:
    """Stores of several processes compete; within one, callers take turns."""

    async def main() -> None:
        every = [ClusterStore(cluster.address, deadline_seconds=30) for _ in range(stores)]
        stored = session(data={"n": 0})
        await every[0].create(stored)
        outcomes = await library_named(library).gather(
            *(
                lambda store=every[number % stores]: store.modify(stored.session_id, count)
                for number in range(300)
            )
        )
        assert not [each for each in outcomes if isinstance(each, Exception)]
        assert sorted(each.data["n"] for each in outcomes) == list(range(1, 301))
        for store in every:
            await store.aclose()

    run(library, main)


@pytest.mark.parametrize("library", LIBRARIES)
def test_modifications_that_others_always_outrun_end_and_tell(cluster: FakeCluster, library: str) -> None:
    cluster.actors[0].behave = cluster.actors[1].behave = lambda request: (
        wire.Failed(request.request_id, wire.FailureCode.CONFLICT)
        if isinstance(request, wire.Update)
        else ...
    )

    async def main() -> None:
        async with ClusterStore(cluster.address, deadline_seconds=0.3) as store:
            stored = session(data={"n": 0})
            await store.create(stored)
            began = time.monotonic()
            outcomes = await library_named(library).gather(
                *[lambda: store.modify(stored.session_id, count)] * 5
            )
            assert time.monotonic() - began < 3
            # Whose turn it is runs out of time against others; who got hardly a turn was not applied either.
            assert any(isinstance(each, VersionConflictError) for each in outcomes)
            assert all(isinstance(each, VersionConflictError | UnavailableError) for each in outcomes)
            assert all("modify was not applied" in str(each) for each in outcomes)
            found = await store.get(stored.session_id)
            assert found is not None
            assert found.data == {"n": 0}

    run(library, main)


# --- failures --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("library", LIBRARIES)
def test_failover_under_load_applies_everything_once(cluster: FakeCluster, library: str) -> None:
    first, second = cluster.actors

    async def main() -> None:
        async with ClusterStore(cluster.address) as store:
            stored = session(data={})
            await store.create(stored)

            async def write(number: int) -> None:
                await store.patch(stored.session_id, set={f"k{number}": number})

            async def fail() -> None:
                cluster.move(second)
                cluster.kill(first)
                cluster.move(second)

            writes = [lambda number=number: write(number) for number in range(200)]
            outcomes = await library_named(library).gather(*writes[:100], fail, *writes[100:])
            assert not [each for each in outcomes if each is not None]
            found = await store.get(stored.session_id)
            assert found is not None
            assert len(found.data) == 200

    run(library, main)
    assert len(cluster.state.applied) == len(set(cluster.state.applied)) == 201


@pytest.mark.parametrize("library", LIBRARIES)
def test_silent_primary_is_left_when_the_shard_moves(cluster: FakeCluster, library: str) -> None:
    """A paused process answers nothing; its connection is reset and the request repeated, once applied."""
    first, second = cluster.actors
    asked = threading.Event()

    def swallow(request: Any) -> Any:
        asked.set()

    first.behave = swallow

    async def main() -> None:
        async with ClusterStore(cluster.address) as store:
            mover = threading.Thread(target=lambda: (asked.wait(SECONDS), cluster.move(second)))
            mover.start()
            await store.create(session(point=0))
            mover.join()

    run(library, main)
    assert len(cluster.state.sessions) == 1


@pytest.mark.parametrize("library", LIBRARIES)
def test_silent_primary_at_the_deadline(cluster: FakeCluster, library: str) -> None:
    async def main() -> None:
        async with ClusterStore(cluster.address, deadline_seconds=1) as store:
            assert await store.get(new_session_id(0)) is None
            assert await store.get(new_session_id(1 << 14)) is None
            cluster.actors[0].behave = lambda request: None
            with pytest.raises(OutcomeUnknownError, match="deadline_seconds=1") as raised:
                await store.create(session(point=0))
            assert not raised.value.harmless_to_repeat
            with pytest.raises(UnavailableError):
                await store.get(new_session_id(0))
            assert await store.get(new_session_id(1 << 14)) is None

    run(library, main)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("nodes", ["127.0.0.1:1", "no-such-host.invalid:7400"])
def test_nobody_there(library: str, nodes: str) -> None:
    async def main() -> None:
        async with ClusterStore(nodes, deadline_seconds=0.3) as store:
            with pytest.raises(UnavailableError, match="no node has sent the cluster map"):
                await store.create(session())

    run(library, main)


@pytest.mark.parametrize("library", LIBRARIES)
def test_wrong_cluster_is_told_at_once(cluster: FakeCluster, library: str) -> None:
    async def main() -> None:
        async with ClusterStore(cluster.address, cluster="other", deadline_seconds=300) as store:
            for _ in range(3):
                with pytest.raises(UsageError, match=r"cluster='other'.*wrong-cluster") as raised:
                    await store.create(session())
                assert "epeating" not in str(raised.value)
            with pytest.raises(UsageError, match="wrong-cluster"):
                await store.delete_by_user("alice")

    run(library, main)


@pytest.mark.parametrize("library", LIBRARIES)
def test_wrong_port_is_told_at_once(library: str) -> None:
    async def main(other: str) -> None:
        async with ClusterStore(other, deadline_seconds=300) as store:
            with pytest.raises(UsageError, match="what listens at these addresses"):
                await store.get(new_session_id())

    with listener(b"HTTP/1.1 400 Bad Request\r\n\r\n") as other:
        run(library, lambda: main(other))


@pytest.mark.parametrize("library", LIBRARIES)
def test_check_tells_what_is_wrong(cluster: FakeCluster, library: str) -> None:
    async def main() -> None:
        async with ClusterStore(cluster.address, deadline_seconds=0.5) as store:
            await store.check(every_shard=True)
            cluster.actors[0].behave = lambda request: None
            await store.check()
            with pytest.raises(
                UnavailableError, match=r"check failed; no answer within deadline_seconds=0\.5"
            ):
                await store.check(every_shard=True)
            cluster.actors[1].behave = lambda request: None
            with pytest.raises(UnavailableError, match=r"check failed; no answer"):
                await store.check()
        async with ClusterStore(cluster.address, cluster="other") as store:
            with pytest.raises(UsageError, match=r"check was not sent.*greenroom://host:port/NAME"):
                await store.check()
        async with ClusterStore("127.0.0.1:1", deadline_seconds=0.3) as store:
            with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1: .*Check that the nodes run"):
                await store.check()

    run(library, main)


@pytest.mark.parametrize("library", LIBRARIES)
def test_names_are_looked_up(cluster: FakeCluster, library: str) -> None:
    async def main() -> None:
        async with ClusterStore(cluster.address.replace("127.0.0.1", "localhost")) as store:
            assert await store.get(new_session_id()) is None

    run(library, main)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize(
    "greeting",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\xff\xff\xff\xff",
        b"\x00\x00\x00\x00",
        b"\x00\x00\x00\x03\xc1\xc1\xc1",
        os.urandom(4096),
        b"",
        None,
    ],
)
def test_hostile_node_beside_a_good_one(cluster: FakeCluster, library: str, greeting: bytes | None) -> None:
    async def main(bad: str) -> None:
        async with ClusterStore(f"{bad},{cluster.address}") as store:
            for _ in range(20):
                assert await store.get(new_session_id()) is None

    with listener(greeting) as bad:
        run(library, lambda: main(bad))


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_request_over_which_connections_break_holds_up_nobody(cluster: FakeCluster, library: str) -> None:
    """As of a listing that cannot be read here: before, everything on that actor waited for its deadline."""

    def behave(request: Any) -> Any:
        return b"\xff\xff\xff\xff" if isinstance(request, wire.ListByUser) else ...

    for actor in cluster.actors:
        actor.behave = behave

    async def main() -> None:
        slowest = 0.0
        async with ClusterStore(cluster.address, deadline_seconds=10) as store:
            one = session()
            await store.create(one)

            async def listing() -> None:
                with pytest.raises(UnavailableError, match="broke off 5 connections"):
                    await store.list_by_user("alice")

            async def neighbour() -> None:
                nonlocal slowest
                for _ in range(100):
                    begun = time.monotonic()
                    await store.patch(one.session_id, set={"seen": True})
                    slowest = max(slowest, time.monotonic() - begun)

            begun = time.monotonic()
            outcomes = await library_named(library).gather(listing, neighbour, neighbour)
            assert outcomes == [None, None, None]
            assert time.monotonic() - begun < 8, "not until the deadline"
            assert slowest < 5

    run(library, main)


@pytest.mark.parametrize("library", LIBRARIES)
def test_hostile_actor_harms_only_its_connection(cluster: FakeCluster, library: str) -> None:
    nonsense = iter(
        [
            b"\xff\xff\xff\xff",
            b"\x00\x00\x00\x02\x92\xc1",
            ...,  # a request that gets nothing but nonsense is given up
            b"HTTP/1.1 400\r\n\r\n",
            bytes(encode_frames([wire.Missing(1 << 40)])),
            b"\x00\x00\x20\x00" + b"\x91" * 0x2000,
        ]
    )
    cluster.actors[0].behave = lambda request: next(nonsense, ...)

    async def main() -> None:
        async with ClusterStore(cluster.address) as store:
            assert await store.get(new_session_id(1 << 14)) is None
            bystander = cluster.actors[1].accepted
            for _ in range(10):
                assert await store.get(new_session_id(0)) is None
            assert await store.get(new_session_id(1 << 14)) is None
            assert cluster.actors[1].accepted == bystander

    run(library, main)
    assert cluster.actors[0].accepted >= 5


# --- cancellation ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("library", LIBRARIES)
def test_cancelled_caller_disturbs_nobody(cluster: FakeCluster, library: str) -> None:
    """The abandoned request still counts in the low-watermark, and the connection stays."""
    cluster.keep_log = True
    silent = new_session_id(0)
    cluster.actors[0].behave = lambda request: None if request.digest == digest_of(silent) else ...

    async def main() -> None:
        async with ClusterStore(cluster.address) as store:
            assert await store.get(new_session_id(0)) is None
            assert not await library_named(library).cancel_after(lambda: store.delete(silent), 0.05)
            await store.delete(new_session_id(0))

    run(library, main)
    abandoned, later = (each for _, each in cluster.log if isinstance(each, wire.Delete))
    assert later.low == abandoned.request_id
    assert cluster.actors[0].accepted == 1


@pytest.mark.parametrize("library", LIBRARIES)
def test_cancelled_while_connecting(library: str) -> None:
    async def main(nodes: str) -> None:
        async with ClusterStore(nodes) as store:
            assert not await library_named(library).cancel_after(lambda: store.get(new_session_id()), 0.05)

    with listener(None) as nodes:
        run(library, lambda: main(nodes))
