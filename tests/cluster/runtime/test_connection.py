"""FramedConnection over real loopback sockets."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import trio

from greenroom import wire
from greenroom.errors import RemoteProtocolError
from greenroom.framing import encode_frames, encode_greeting, encode_message, messages_decoder
from greenroom.silence import Silence
from greenroom_cluster.runtime.connection import FramedConnection
from greenroom_cluster.runtime.reading import ConnectionEndedError
from tests.cluster.runtime.loopback import (
    connected_pair,
    ended,
    framed,
    get,
    hello,
    raw_receive,
    request_decoder,
    until,
)

hello_decoder: Any = msgspec.msgpack.Decoder(wire.Hello)
ONE_GET = bytes(encode_message(get(1)))
pytestmark = pytest.mark.trio


@asynccontextmanager
async def pair(**options: Any) -> AsyncIterator[tuple[FramedConnection, FramedConnection]]:
    near, far = connected_pair()
    async with trio.open_nursery() as nursery:
        ends = FramedConnection(near, nursery, **options), FramedConnection(far, nursery, **options)
        for end in ends:
            end.speak(request_decoder)
        yield ends
        for end in ends:
            end.close()
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def against_raw(**options: Any) -> AsyncIterator[tuple[FramedConnection, socket.socket]]:
    """A connection whose other side is a bare socket."""
    near, far = connected_pair()
    far.settimeout(0)
    async with trio.open_nursery() as nursery:
        connection = FramedConnection(near, nursery, **options)
        connection.speak(request_decoder)
        yield connection, far
        connection.close()
        far.close()
        nursery.cancel_scope.cancel()


def update(request_id: int, size: int) -> wire.Update:
    return wire.Update(request_id, 1, 0, 0, b"d" * 32, None, 0, "", b"x" * size, None)


async def test_one_read_returns_every_message_in_order() -> None:
    async with pair() as (near, far):
        near.send([get(1), get(2)])
        near.send([get(3)])
        assert [message.request_id for message in await far.receive()] == [1, 2, 3]


async def test_messages_cut_anywhere_are_put_together() -> None:
    frames = bytes(encode_frames([get(1), update(2, 3000)]))
    async with against_raw() as (connection, raw):
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        received: list[Any] = []

        async def receive() -> None:
            while len(received) < 2:
                received.extend(await connection.receive())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            for offset in range(0, len(frames), 7):
                raw.send(frames[offset : offset + 7])
                await trio.lowlevel.checkpoint()
        assert received == [get(1), update(2, 3000)]


async def test_first_message_leaves_the_rest_for_receive() -> None:
    async with pair() as (near, far):
        near.greet(hello())
        near.send([get(1), get(2)])
        assert await far.receive_first(hello_decoder) == hello()
        far.speak(request_decoder)
        assert [message.request_id for message in await far.receive()] == [1, 2]


async def test_large_messages_pass_in_order_through_a_full_socket_buffer() -> None:
    async with pair(outbound_bytes_max=64 << 20) as (near, far):
        sent = [update(number, 700_000) for number in range(30)]
        for message in sent:
            near.send([message])
        assert near.outbound_bytes > 0
        received: list[Any] = []
        with trio.fail_after(20):
            while len(received) < len(sent):
                received.extend(await far.receive())
        assert received == sent
        await until(lambda: near.outbound_bytes == 0)


async def test_answers_far_beyond_the_bound_reach_whoever_reads_them() -> None:
    async with pair(outbound_bytes_max=4 << 20) as (near, far):
        sent = [update(number, 1_000_000) for number in range(60)]
        near.send(sent[:50])
        near.send(sent[50:59])
        near.send_encoded(encode_frames(sent[59:]))
        assert near.crowded
        highest = near.outbound_bytes
        received: list[Any] = []
        with trio.fail_after(20):
            while len(received) < len(sent):
                received.extend(await far.receive())
                highest = max(highest, near.outbound_bytes)
        assert received == sent
        assert highest < 4 << 20
        with trio.fail_after(5):
            await near.room()
        assert not near.crowded


async def test_whoever_waits_for_room_is_woken_by_the_end() -> None:
    async with pair(outbound_bytes_max=4 << 20) as (near, _far):
        near.send([update(number, 1_000_000) for number in range(20)])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(near.room)
            await trio.testing.wait_all_tasks_blocked()
            near.abort()


async def test_message_that_cannot_be_encoded_ends_only_its_connection() -> None:
    async with pair() as (near, far):
        near.send([get(1), wire.Get(1 << 70, 0, b"")])
        assert near.ended
        with pytest.raises(ConnectionEndedError):
            await far.receive()


async def test_reply_that_cannot_be_encoded_fails_its_request_alone() -> None:
    """The connection stays, and what was sent before and after arrives."""
    entry = wire.SessionHandle(0, b"d" * 32, 1, 2, 3, "l" * 256)
    sent: list[wire.Frame] = [
        wire.Missing(1),
        wire.Listing(2, (0,), (entry,) * 5000),
        wire.Counted(3, ((0, 1 << 70),)),
        wire.EncodedSession(4, msgspec.Raw(b"\xc4" * (2 << 20))),
        wire.Failed(5, 3, "x" * (2 << 20)),
        wire.Overloaded(6, "x" * (2 << 20)),
        wire.Missing(7),
    ]
    async with pair() as (near, far):
        far.speak(messages_decoder(wire.Reply))
        near.send(sent)
        got: list[Any] = []
        while len(got) < len(sent):
            got += await far.receive()
        assert not near.ended
    assert [(type(reply), reply.request_id) for reply in got] == [
        (wire.Missing, 1),
        (wire.Failed, 2),
        (wire.Failed, 3),
        (wire.Unknowable, 4),
        (wire.Failed, 5),
        (wire.Overloaded, 6),
        (wire.Missing, 7),
    ]
    assert "a Listing of" in got[1].detail
    assert got[4] == wire.Failed(5, 3)


async def test_urgent_messages_overtake_what_is_queued_and_keep_their_order() -> None:
    async with pair(outbound_bytes_max=64 << 20) as (near, far):
        for number in range(20):
            near.send([update(number, 1_000_000)])
        queued = near.outbound_bytes
        for number in (100, 101, 102):
            near.send([get(number)], urgent=True)
        assert near.outbound_bytes > queued
        received: list[int] = []
        with trio.fail_after(20):
            while len(received) < 23:
                received.extend(message.request_id for message in await far.receive())
        assert [number for number in received if number < 100] == list(range(20))
        assert [number for number in received if number >= 100] == [100, 101, 102]
        assert received.index(102) < received.index(19)


async def test_peer_that_does_not_read_is_reset_at_the_bound() -> None:
    async with against_raw(outbound_bytes_max=1 << 20) as (connection, raw):
        while not connection.ended:
            connection.send([update(1, 500_000)])
        with pytest.raises(ConnectionEndedError, match="does not read"):
            await connection.receive()
        connection.send([get(1)])  # nothing happens
        assert await ended(raw)


async def test_peer_that_does_not_read_is_given_up_after_the_user_timeout() -> None:
    async with against_raw(silence=Silence(user_timeout_seconds=0.3)) as (connection, _raw):
        for _ in range(5):
            connection.send([update(1, 1_000_000)])
        with trio.fail_after(30), pytest.raises(ConnectionEndedError):
            await connection.receive()


async def test_many_tiny_queued_chunks_count_with_what_they_cost() -> None:
    async with against_raw(outbound_bytes_max=8 << 20) as (connection, _raw):
        while not connection.outbound_bytes:
            connection.send([update(1, 500_000)])
        before, sent = connection.outbound_bytes, 0
        while not connection.ended:
            connection.send([get(1)])
            sent += 1
        assert sent < (8 << 20) - before
        assert sent * 256 < 9 << 20


@pytest.mark.parametrize(
    "junk",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\xff\xff\xff\xff",
        b"\x00\x00\x00\x00",
        framed(b"hello"),
        framed(b"\x90"),
        framed(ONE_GET),
        framed(b"\x91\x92\x0a"),
        framed(b"\x92" + ONE_GET),
        framed(b"\x91" + ONE_GET + ONE_GET),
        framed(b"\xdc\x01\x01" + ONE_GET * 257),
        framed(b"\xdd\xff\xff\xff\xff" + ONE_GET),
        framed(b"\x91\x94\x0a\x01\x00\xa4\xff\xff\xff\xff"),
        framed(b"\x91\x97\x13\x01\x00\x00\x90" + b"\x91" * 100_001),
        framed(b"\x91\x97\x13\x01\x00\x00\xdd\xff\xff\xff\xff"),
        encode_greeting(hello()),
    ],
    ids=[
        "http",
        "4-gib",
        "empty-frame",
        "text",
        "no-message",
        "in-no-array",
        "short-message",
        "one-too-few",
        "one-too-many",
        "crowd",
        "huge-crowd",
        "bad-utf-8",
        "nesting",
        "huge-array",
        "late-greeting",
    ],
)
async def test_what_is_no_message_is_a_remote_protocol_error(junk: bytes) -> None:
    async with against_raw() as (connection, raw):
        raw.sendall(junk)
        with trio.fail_after(5), pytest.raises(RemoteProtocolError) as caught:
            await connection.receive()
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__ or caught.value.__context__ is None


async def test_end_of_the_other_side_is_told_apart_from_nonsense() -> None:
    async with against_raw() as (connection, raw):
        raw.sendall(b"\x00\x00\x00\x05he")
        raw.close()
        with pytest.raises(ConnectionEndedError, match="closed"):
            await connection.receive()


async def test_abort_wakes_the_reader_and_resets() -> None:
    async with against_raw() as (connection, raw):
        reasons: list[str] = []

        async def read() -> None:
            try:
                await connection.receive()
            except ConnectionEndedError as error:
                reasons.append(str(error))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            connection.abort("because")
        assert reasons == ["because"]
        with pytest.raises(ConnectionResetError):
            raw.recv(1)


async def test_finish_delivers_what_is_queued_to_a_peer_that_still_sends() -> None:
    async with against_raw() as (connection, raw):
        raw.sendall(bytes(encode_frames([get(1)] * 50)))
        message = update(1, 1_000_000)
        expected = len(encode_frames([message])) * 4
        for _ in range(4):
            connection.send([message])
        received = 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.finish, 10)
            with trio.fail_after(10):
                while data := await raw_receive(raw):
                    received += len(data)
            raw.close()
        assert received == expected
        assert connection.ended


async def test_finish_gives_up_on_a_peer_that_stays_silent(autojump_clock: object) -> None:
    async with against_raw() as (connection, _raw):
        await connection.finish(3)
        assert connection.ended


async def test_reader_that_never_waits_lets_others_run() -> None:
    async with against_raw(outbound_bytes_max=1 << 30) as (connection, raw):
        raw.sendall(bytes(encode_frames([get(1)])) * 40_000)
        turns = 0
        done = False

        async def count() -> None:
            nonlocal turns
            while not done:
                turns += 1
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(count)
            received = 0
            while received < 40_000:
                received += len(await connection.receive())
            done = True
        assert turns >= 4


async def test_nothing_of_a_message_shows_in_a_repr() -> None:
    async with pair() as (near, far):
        near.send([hello(sender=b"secret-secret-16")])
        assert "secret" not in repr(near) + repr(far)


async def test_an_end_while_urgent_messages_are_sent_is_told_once() -> None:
    async with pair() as (near, _far):
        ends: list[bool] = []
        near.on_end = lambda: ends.append(near.ended)
        near.send([wire.Get(1 << 70, 0, b""), get(1), get(2)], urgent=True)
        assert ends == [True]
