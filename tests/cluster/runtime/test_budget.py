"""What clients' connections hold together is bounded, and nobody keeps a frame incomplete for ever."""

import socket
from contextlib import ExitStack

import pytest
import trio

from greenroom import wire
from greenroom.framing import FRAME_BYTES_MAX, encode_frames
from greenroom_cluster.runtime.budget import (
    BUFFER_BYTES_MIN,
    FRAME_SECONDS,
    BufferBudget,
    buffer_bytes,
)
from greenroom_cluster.runtime.connection import FramedConnection
from greenroom_cluster.runtime.dialing import dial
from greenroom_cluster.runtime.listener import Listener, Service
from tests.cluster.runtime.loopback import (
    SERVER,
    client_decoder,
    echo,
    ended,
    framed,
    get,
    hello,
    listening,
    raw_connect,
    raw_receive,
    request_decoder,
    until,
)

HALF_BYTES = 512 * 1024


class Held:
    """A connection that only counts."""

    def __init__(self, budget: BufferBudget, source: str = "a") -> None:
        self.source = source
        self.remote = source
        self.crowded = False
        self.ended = False
        self._budget = budget

    def abort(self, reason: str) -> None:
        self.ended = True
        self._budget.drop(self)


def test_an_actors_share_follows_its_memory() -> None:
    assert buffer_bytes(96 << 20) == 6 << 20
    assert buffer_bytes(1 << 20) == BUFFER_BYTES_MIN


def test_the_largest_of_the_source_that_holds_most_ends() -> None:
    budget = BufferBudget(1 << 20)
    alone = Held(budget, "alone")
    many = [Held(budget, "many") for _ in range(6)]
    budget.hold(alone, 400 * 1024)
    for number, holder in enumerate(many[:5]):
        budget.hold(holder, (100 + number) * 1024)
    assert not any(holder.ended for holder in (alone, *many))
    budget.hold(many[5], 120 * 1024)
    assert [holder.ended for holder in (alone, *many)] == [False] * 6 + [True]
    assert budget.held_bytes == (400 + 100 + 101 + 102 + 103 + 104) * 1024


def test_small_buffers_are_free_and_given_back_ones_too() -> None:
    budget = BufferBudget(1 << 20)
    holders = [Held(budget) for _ in range(100)]
    for holder in holders:
        budget.hold(holder, 64 * 1024 - 1)
    assert budget.held_bytes == 0
    for holder in holders:
        budget.hold(holder, 1 << 20)
        budget.hold(holder, 0)
    assert budget.held_bytes == 0
    assert not any(holder.ended for holder in holders)


def test_a_frame_may_be_incomplete_for_some_sweeps_only() -> None:
    budget = BufferBudget(1 << 20)
    stuck, goes_on, unread = (Held(budget) for _ in range(3))
    unread.crowded = True
    for holder in (stuck, goes_on, unread):
        budget.begin_frame(holder)
    for _ in range(FRAME_SECONDS):
        budget.sweep()
        budget.begin_frame(goes_on)
    assert not stuck.ended
    budget.sweep()
    assert (stuck.ended, goes_on.ended, unread.ended) == (True, False, False)
    budget.end_frame(goes_on)
    for _ in range(2 * FRAME_SECONDS):
        budget.sweep()
    assert not goes_on.ended


def half_frame() -> bytes:
    return FRAME_BYTES_MAX.to_bytes(4, "big") + b"\x91" * HALF_BYTES


async def send_all(sock: socket.socket, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[sock.send(rest) :]
        except BlockingIOError:
            await trio.lowlevel.wait_writable(sock.fileno())
        except ConnectionError:
            return


async def greeted(listener: Listener, role: str = wire.ROLE_CLIENT) -> socket.socket:
    sock = raw_connect(listener)
    await send_all(sock, bytes(encode_frames([hello(role, target=SERVER)])))
    assert await raw_receive(sock)
    return sock


async def assert_served(listener: Listener, nursery: trio.Nursery) -> None:
    connection, _ = await dial(listener.address(), hello(), nursery)
    connection.speak(client_decoder)
    connection.send([get(1)])
    with trio.fail_after(10):
        assert await connection.receive() == [wire.Missing(1)]
    connection.close()


@pytest.mark.trio
async def test_half_sent_frames_of_many_end_their_connections_and_others_go_on() -> None:
    async with listening(buffer_bytes_max=2 * HALF_BYTES + 4096) as (listener, nursery):
        with ExitStack() as stack:
            for _ in range(8):
                sock = stack.enter_context(await greeted(listener))
                await send_all(sock, half_frame())
            await until(lambda: listener.connections == 2)
            await assert_served(listener, nursery)


@pytest.mark.trio
async def test_a_frame_that_is_never_finished_ends_its_connection(autojump_clock: object) -> None:
    async with listening() as (listener, _nursery):
        whole = bytes(encode_frames([hello(), get(1), get(2)]))
        with raw_connect(listener) as stuck, raw_connect(listener) as idle:
            stuck.sendall(whole[:-1])
            idle.sendall(whole)
            started = trio.current_time()
            with trio.fail_after(60):
                while await raw_receive(stuck):
                    pass
            assert FRAME_SECONDS - 1 <= trio.current_time() - started <= FRAME_SECONDS + 2
            await until(lambda: listener.connections == 1)


@pytest.mark.trio
async def test_peers_are_not_held_to_the_budget() -> None:
    services = dict.fromkeys((wire.ROLE_CLIENT, wire.ROLE_PEER), Service(request_decoder, echo))
    async with listening(services, buffer_bytes_max=HALF_BYTES // 2) as (listener, nursery):
        with await greeted(listener, wire.ROLE_PEER) as peer, await greeted(listener) as client:
            await send_all(peer, half_frame())
            await send_all(client, half_frame())
            assert await ended(client)
            await until(lambda: listener.connections == 1)
            await assert_served(listener, nursery)


@pytest.mark.trio
async def test_unread_answers_of_many_end_their_connections_and_others_go_on() -> None:
    answer = framed(bytes(1 << 20))
    open_connections: list[FramedConnection] = []
    peak_bytes = 0

    async def serve(connection: FramedConnection, hello: wire.Hello, number: int) -> None:
        nonlocal peak_bytes
        while True:
            requests = await connection.receive()
            if len(requests) == 1:
                connection.send([wire.Missing(requests[0].request_id)])
                continue
            open_connections.append(connection)
            for _ in range(6):
                connection.send_encoded(answer)
                peak_bytes = max(peak_bytes, sum(each.outbound_bytes for each in open_connections))

    async with listening({wire.ROLE_CLIENT: Service(request_decoder, serve)}, buffer_bytes_max=8 << 20) as (
        listener,
        nursery,
    ):
        with ExitStack() as stack:
            for asked in range(1, 9):
                sock = stack.enter_context(await greeted(listener))
                await send_all(sock, bytes(encode_frames([get(1), get(2)])))
                await until(lambda asked=asked: len(open_connections) == asked)  # type: ignore[misc]
            assert any(connection.ended for connection in open_connections)
            assert peak_bytes <= 8 << 20
            await assert_served(listener, nursery)


@pytest.mark.trio
async def test_a_map_that_many_have_not_read_yet_is_no_ones_to_pay_for() -> None:
    """Its bytes are there once: a new map must not cost slow subscribers their connections."""
    cluster_map = framed(bytes(1 << 20))
    published: list[FramedConnection] = []

    async def publish(connection: FramedConnection, hello: wire.Hello, number: int) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(echo, connection, hello, number)
            for _ in range(6):
                connection.send_encoded(cluster_map)
            published.append(connection)

    services = {wire.ROLE_CLIENT: Service(request_decoder, publish, answers_shared=True)}
    async with listening(services, buffer_bytes_max=1 << 20) as (listener, _nursery):
        with ExitStack() as stack:
            for _ in range(4):
                stack.enter_context(await greeted(listener))
            await until(lambda: len(published) == 4)
            assert min(connection.outbound_bytes for connection in published) > 64 * 1024
            assert not any(connection.ended for connection in published)
