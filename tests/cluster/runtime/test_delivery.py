"""What a connection receives is handed on by calls; what calls cannot do is done by its task."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from greenroom import wire
from greenroom.errors import RemoteProtocolError
from greenroom.framing import encode_frames
from greenroom_cluster.runtime.connection import FramedConnection
from greenroom_cluster.runtime.delivery import MESSAGES_PER_CALL_MAX, Delivery
from greenroom_cluster.runtime.poller import Poller
from greenroom_cluster.runtime.reading import ConnectionEndedError
from tests.cluster.runtime.loopback import client_decoder, connected_pair, get, hello, request_decoder, until

pytestmark = pytest.mark.trio

Handle = Callable[[list[Any]], None]


class Ends:
    """A delivering end, what came of it, and the raw other end."""

    def __init__(self, nursery: trio.Nursery, poller: Poller) -> None:
        near, self.far = connected_pair()
        self.near = FramedConnection(near, nursery)
        self.near.speak(request_decoder)
        self.poller = poller
        self.nursery = nursery
        self.error: BaseException | None = None

    def deliver(self, handle: Handle, *, patient: bool = False) -> None:
        self.nursery.start_soon(self._deliver, handle, patient)

    async def _deliver(self, handle: Handle, patient: bool) -> None:
        try:
            await Delivery(self.near, self.poller, handle, patient=patient).run()
        except (ConnectionEndedError, RemoteProtocolError, LookupError) as error:
            self.error = error
        finally:
            self.near.close()

    async def failed(self) -> BaseException:
        await until(lambda: self.error is not None)
        assert self.error is not None
        return self.error


@asynccontextmanager
async def two_ends() -> AsyncIterator[tuple[Ends, Ends]]:
    poller = Poller(0.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(poller.run)
        ends = Ends(nursery, poller), Ends(nursery, poller)
        yield ends
        nursery.cancel_scope.cancel()
    poller.close()
    for each in ends:
        each.far.close()


def numbers(messages: list[Any]) -> list[int]:
    return [message.request_id for message in messages]


async def test_what_came_with_the_first_frame_is_handed_on() -> None:
    received: list[int] = []
    async with two_ends() as (end, _):
        end.near = FramedConnection(end.near._socket, end.nursery)
        end.far.sendall(encode_frames([hello(), get(1), get(2)]))
        await end.near.receive_first(msgspec.msgpack.Decoder(wire.Hello))
        end.near.speak(request_decoder)
        end.deliver(lambda messages: received.extend(numbers(messages)))
        await until(lambda: received == [1, 2])
        end.far.sendall(encode_frames([get(3)]))
        await until(lambda: received == [1, 2, 3])


async def test_a_large_read_is_handed_on_in_parts_and_in_order() -> None:
    count = 5 * MESSAGES_PER_CALL_MAX + 1
    parts: list[list[int]] = []
    turns = 0
    async with two_ends() as (end, _):
        end.far.sendall(encode_frames([get(number) for number in range(count)]))
        end.deliver(lambda messages: parts.append(numbers(messages)))
        while sum(map(len, parts)) < count:
            await trio.lowlevel.checkpoint()
            turns += 1
        assert [number for part in parts for number in part] == list(range(count))
        assert max(map(len, parts)) <= MESSAGES_PER_CALL_MAX
        assert turns >= 5  # others had their turn between the parts


async def test_who_does_not_read_answers_is_asked_for_no_more() -> None:
    received: list[int] = []
    async with two_ends() as (end, _):
        end.near = FramedConnection(end.near._socket, end.nursery, outbound_bytes_max=1 << 22)
        end.near.speak(request_decoder)

        def answer_at_length(messages: list[Any]) -> None:
            received.extend(numbers(messages))
            while not end.near.crowded:
                end.near.send([wire.Overloaded(1, "x" * 100_000)])

        end.deliver(answer_at_length, patient=True)
        end.far.sendall(encode_frames([get(1)]))
        await until(lambda: end.near.crowded)
        end.far.sendall(encode_frames([get(2)]))
        for _ in range(20):
            await trio.lowlevel.checkpoint()
        assert received == [1]
        far = FramedConnection(end.far.dup(), end.nursery)
        far.speak(client_decoder)
        with trio.fail_after(10):
            while received != [1, 2]:
                await far.receive()
        far.close()


async def test_a_full_queue_does_not_keep_a_peers_acknowledgements_away() -> None:
    received: list[int] = []
    async with two_ends() as (end, _):

        def fill_the_queue(messages: list[Any]) -> None:
            received.extend(numbers(messages))
            while not end.near.crowded:
                end.near.send([wire.Overloaded(1, "x" * 100_000)])

        end.deliver(fill_the_queue)
        end.far.sendall(encode_frames([get(1)]))
        await until(lambda: end.near.crowded)
        end.far.sendall(encode_frames([get(2)]))
        await until(lambda: received == [1, 2])
        assert end.near.crowded


async def test_nothing_is_handed_on_after_a_handler_failed() -> None:
    calls = 0

    def fail(messages: list[Any]) -> None:
        nonlocal calls
        calls += 1
        raise LookupError("a mistake")

    async with two_ends() as (end, _):
        end.far.sendall(encode_frames([get(number) for number in range(3 * MESSAGES_PER_CALL_MAX)]))
        end.deliver(fail)
        assert isinstance(await end.failed(), LookupError)
        assert calls == 1


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (b"\xff\xff\xff\xff", RemoteProtocolError),
        (b"\0\0\0\1\xc1", RemoteProtocolError),
        (b"", ConnectionEndedError),
    ],
)
async def test_what_makes_no_sense_ends_its_own_connection_only(sent: bytes, error: type) -> None:
    received: list[int] = []
    async with two_ends() as (bad, good):
        for end in (bad, good):
            end.deliver(lambda messages: received.extend(numbers(messages)))
        bad.far.sendall(encode_frames([get(1)]))
        await until(lambda: received == [1])
        if sent:
            bad.far.sendall(sent)
        else:
            bad.far.close()
        assert isinstance(await bad.failed(), error)
        good.far.sendall(encode_frames([get(2)]))
        await until(lambda: received == [1, 2])
        assert good.error is None


async def test_a_handler_that_fails_ends_its_own_connection_only() -> None:
    received: list[int] = []

    def fail(messages: list[Any]) -> None:
        raise LookupError("a mistake")

    async with two_ends() as (bad, good):
        bad.deliver(fail)
        good.deliver(lambda messages: received.extend(numbers(messages)))
        bad.far.sendall(encode_frames([get(1)]))
        assert isinstance(await bad.failed(), LookupError)
        good.far.sendall(encode_frames([get(2)]))
        await until(lambda: received == [2])


async def test_an_abort_on_this_side_ends_the_delivery_with_its_reason() -> None:
    async with two_ends() as (end, other):
        end.deliver(lambda messages: end.near.abort("enough of it"))
        end.far.sendall(encode_frames([get(1)]))
        assert "enough of it" in str(await end.failed())
        other.deliver(lambda messages: None)
        await trio.testing.wait_all_tasks_blocked()
        other.near.abort("from elsewhere")
        assert "from elsewhere" in str(await other.failed())
        assert not end.poller._callbacks


async def test_a_cancelled_delivery_watches_no_more() -> None:
    async with two_ends() as (end, _):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(Delivery(end.near, end.poller, lambda messages: None).run)
                await until(lambda: bool(end.poller._callbacks))
                scope.cancel()
        assert not end.poller._callbacks
