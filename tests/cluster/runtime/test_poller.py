"""The poller against real sockets: it calls back, it lets others have their turn, it forgets."""

import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.lowlevel
import trio.testing

from greenroom_cluster.runtime import poller as poller_module
from greenroom_cluster.runtime.poller import Poller
from tests.cluster.runtime.loopback import connected_pair, until

pytestmark = pytest.mark.trio

ROUNDS = 3000


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = connected_pair()
    near.setblocking(False)
    near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with near, far:
        yield near, far


@asynccontextmanager
async def polling(linger_seconds: float = 0.0) -> AsyncIterator[Poller]:
    poller = Poller(linger_seconds)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(poller.run)
        yield poller
        nursery.cancel_scope.cancel()
    poller.close()


def echo(sock: socket.socket) -> None:
    """Send back whatever comes, until the other side ends."""
    while data := sock.recv(65536):
        sock.sendall(data)


@pytest.mark.parametrize("linger_seconds", [0.0, 0.001])
async def test_calls_back_for_what_comes(
    pair: tuple[socket.socket, socket.socket], linger_seconds: float
) -> None:
    near, far = pair
    received: list[bytes] = []
    came = trio.Event()

    def read() -> None:
        received.append(near.recv(100))
        came.set()

    async with polling(linger_seconds) as poller:
        poller.watch(near.fileno(), read)
        for word in (b"one", b"two"):
            far.send(word)
            with trio.fail_after(10):
                await came.wait()
            came = trio.Event()
        assert received == [b"one", b"two"]


async def test_a_callback_that_fails_ends_the_poller(pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    poller = Poller()

    def fail() -> None:
        raise ValueError("as this test wants it")

    poller.watch(near.fileno(), fail)
    far.send(b"x")
    with trio.fail_after(10), pytest.raises(ValueError, match="as this test wants it"):
        await poller.run()
    poller.close()


async def test_what_the_loop_waits_for_itself_goes_on(pair: tuple[socket.socket, socket.socket]) -> None:
    """A deadline, a descriptor of a task, and a thread: nothing is ready that the poller watches."""
    near, far = pair
    other, far_other = connected_pair()
    with other, far_other:
        async with polling(0.001) as poller:
            poller.watch(near.fileno(), lambda: None)
            began = trio.current_time()
            with trio.move_on_after(0.05) as scope:
                await trio.sleep_forever()
            assert scope.cancelled_caught
            assert trio.current_time() - began < 5
            with trio.fail_after(10):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(trio.lowlevel.wait_readable, other)
                    await trio.testing.wait_all_tasks_blocked()
                    far_other.send(b"x")
                assert await trio.to_thread.run_sync(lambda: trio.from_thread.run_sync(far.fileno)) > 0


async def test_both_go_on_while_both_are_always_ready(pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    other, far_other = connected_pair()
    with other, far_other:
        calls = 0

        def leave_unread() -> None:
            nonlocal calls
            calls += 1

        far.send(b"x")
        far_other.send(b"x")
        async with polling() as poller:
            poller.watch(near.fileno(), leave_unread)
            with trio.fail_after(10):
                for _ in range(20):
                    await trio.lowlevel.wait_readable(other)
            assert calls >= 19  # it may begin after the first


async def test_the_loop_waits_alone_again_afterwards(pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    calls = 0

    def count() -> None:
        nonlocal calls
        calls += len(near.recv(100))

    async with polling() as poller:
        poller.watch(near.fileno(), count)
        far.send(b"x")
        await until(lambda: calls == 1)
    far.send(b"x")
    with trio.fail_after(10):
        await trio.lowlevel.wait_readable(near)
        await trio.lowlevel.checkpoint()
    assert calls == 1


async def test_who_is_no_longer_watched_is_not_called(pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    other, far_other = connected_pair()
    with other, far_other:
        calls: list[str] = []
        done = trio.Event()

        def stop_the_other(own: socket.socket, name: str) -> None:
            calls.append(name)
            own.recv(100)
            for sock in {near, other} - {own}:
                poller.unwatch(sock.fileno())
            done.set()

        async with polling() as poller:
            # Both are ready before the poller looks: whoever comes first ends the other within that look.
            far.send(b"x")
            far_other.send(b"x")
            poller.watch(near.fileno(), lambda: stop_the_other(near, "near"))
            poller.watch(other.fileno(), lambda: stop_the_other(other, "other"))
            with trio.fail_after(10):
                await done.wait()
            await trio.testing.wait_all_tasks_blocked()
        assert len(calls) == 1


async def test_a_socket_that_is_always_ready_leaves_turns_to_others(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    near, far = pair
    far.send(b"x")
    calls = 0

    def leave_unread() -> None:
        nonlocal calls
        calls += 1

    async with polling() as poller:
        poller.watch(near.fileno(), leave_unread)
        with trio.fail_after(10):
            for _ in range(20):
                await trio.lowlevel.checkpoint()
        assert calls >= 20


async def test_sockets_that_are_always_ready_take_turns(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call ends the turn here, as if it had taken long."""
    monkeypatch.setattr(poller_module, "_TURN_NS", 0)
    near, far = pair
    other, far_other = connected_pair()
    with other, far_other:
        calls = {near: 0, other: 0}

        def count(sock: socket.socket) -> None:
            calls[sock] += 1

        far.send(b"x")
        far_other.send(b"x")
        async with polling() as poller:
            poller.watch(near.fileno(), lambda: count(near))
            poller.watch(other.fileno(), lambda: count(other))
            await until(lambda: sum(calls.values()) >= 20)
        assert abs(calls[near] - calls[other]) <= 1


async def test_lingering_for_a_busy_peer_leaves_turns_to_others(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    near, far = pair
    left = ROUNDS
    turns = 0
    done = trio.Event()

    def again() -> None:
        nonlocal left
        near.recv(100)
        left -= 1
        if left:
            near.send(b"x")
        else:
            done.set()

    peer = threading.Thread(target=echo, args=(far,))
    peer.start()
    try:
        # So patient that it is always awake when the answer comes.
        async with polling(linger_seconds=1.0) as poller, trio.open_nursery() as nursery:
            poller.watch(near.fileno(), again)

            async def count_turns() -> None:
                nonlocal turns
                while not done.is_set():
                    await trio.lowlevel.checkpoint()
                    turns += bool(left)

            nursery.start_soon(count_turns)
            near.send(b"x")
            await done.wait()
        assert turns >= 10
    finally:
        near.shutdown(socket.SHUT_RDWR)
        peer.join(10)
