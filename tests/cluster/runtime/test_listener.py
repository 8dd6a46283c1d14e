"""Listener: the handshake, the limits, and hostile bytes that harm only their own connection."""

import os
import random
import resource
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import trio

from greenroom import wire
from greenroom.errors import UsageError
from greenroom.framing import FrameBuffer, encode_frames, encode_greeting
from greenroom_cluster.runtime.clocks import wall_us
from greenroom_cluster.runtime.connection import FramedConnection
from greenroom_cluster.runtime.dialing import DialFailedError, dial
from greenroom_cluster.runtime.listener import RESERVED_CONNECTIONS, Listener, ListenerSettings, Service
from tests.cluster.runtime.loopback import (
    CLUSTER,
    SERVER,
    client_decoder,
    echo,
    echo_service,
    ended,
    framed,
    get,
    greeting_decoder,
    hello,
    listening,
    raw_connect,
    raw_receive,
    request_decoder,
    until,
)

pytestmark = pytest.mark.trio


async def client_of(listener: Listener, nursery: trio.Nursery) -> FramedConnection:
    connection, answer = await dial(listener.address(), hello(), nursery)
    assert answer.sender == SERVER
    connection.speak(client_decoder)
    return connection


async def assert_answers(connection: FramedConnection, request_id: int = 1) -> None:
    connection.send([get(request_id)])
    with trio.fail_after(10):
        assert await connection.receive() == [wire.Missing(request_id)]


@asynccontextmanager
async def witnessed(**settings: Any) -> AsyncIterator[Listener]:
    """A listener that must go on serving an old and a new client whatever happens inside the block."""
    async with listening(**settings) as (listener, nursery):
        old = await client_of(listener, nursery)
        await assert_answers(old)
        yield listener
        await assert_answers(old, 2)
        await assert_answers(await client_of(listener, nursery), 3)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"protocol": 99}, "wrong-protocol"),
        ({"routing": 99}, "wrong-routing"),
        ({"cluster": "other"}, "wrong-cluster"),
        ({"role": "emperor"}, "wrong-role"),
        ({"target": b"T" * 16}, "wrong-target"),
        ({"sender": b"short"}, "wrong-sender"),
    ],
)
async def test_hello_that_does_not_fit_is_told_why(changes: dict[str, Any], code: str) -> None:
    async with listening() as (listener, nursery):
        with pytest.raises(DialFailedError) as caught:
            await dial(listener.address(), hello(**changes), nursery)
        assert caught.value.code == code
        await until(lambda: listener.connections == 0)


async def test_hello_to_our_own_identity_is_served() -> None:
    async with listening() as (listener, nursery):
        await dial(listener.address(), hello(target=SERVER), nursery)


async def test_a_hello_tells_what_the_clock_says() -> None:
    async with listening() as (listener, nursery):
        before = wall_us()
        _, answer = await dial(listener.address(), hello(), nursery)
        assert before <= answer.clock_us <= wall_us()


async def test_service_may_demand_a_target() -> None:
    services = {
        wire.ROLE_CLIENT: Service(request_decoder, echo_service()["client"].handle, target_required=True)
    }
    async with listening(services) as (listener, nursery):
        with pytest.raises(DialFailedError) as caught:
            await dial(listener.address(), hello(), nursery)
        assert caught.value.code == "wrong-target"


async def test_requests_sent_with_the_hello_are_served() -> None:
    async with listening() as (listener, _nursery):
        with raw_connect(listener) as sock:
            sock.sendall(bytes(encode_frames([hello(), get(1), get(2)])))
            buffer, frames = FrameBuffer(), []
            with trio.fail_after(5):
                while len(frames) < 2:
                    frames += buffer.feed(await raw_receive(sock))
            assert isinstance(greeting_decoder.decode(frames[0]), wire.Hello)
            assert client_decoder.decode(frames[1]) == [wire.Missing(1), wire.Missing(2)]


async def test_hello_that_never_comes_ends_the_connection(autojump_clock: object) -> None:
    async with listening(hello_seconds=5) as (listener, _nursery):
        with raw_connect(listener) as silent:
            await until(lambda: listener.connections == 1)
            started = trio.current_time()
            with trio.fail_after(60):
                assert await raw_receive(silent) == b""
            assert trio.current_time() - started == pytest.approx(5, abs=0.5)


HOSTILE = {
    "http": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "tls": bytes.fromhex("16030100c8010000c40303") + bytes(range(200)),
    "4-gib": b"\xff\xff\xff\xff",
    "over-the-hello-limit": b"\x00\x00\x20\x00",
    "empty-frame": b"\x00\x00\x00\x00",
    "no-hello": bytes(encode_frames([get(1)])),
    "goodbye": encode_greeting(wire.Goodbye("x", "y")),
    "hello-in-an-array": framed(b"\x91" + encode_greeting(hello())[4:]),
    "nonsense-after-hello": bytes(encode_frames([hello()])) + b"\x00\x00\x00\x05hello",
    "4-gib-after-hello": bytes(encode_frames([hello()])) + b"\xff\xff\xff\xff",
    "reply-after-hello": bytes(encode_frames([hello(), wire.Missing(1)])),
    "nesting-after-hello": bytes(encode_frames([hello()]))
    + framed(b"\x91\x97\x13\x01\x00\x00\x90" + b"\x91" * 100_001),
}


@pytest.mark.parametrize("junk", HOSTILE.values(), ids=HOSTILE.keys())
async def test_hostile_bytes_end_only_their_own_connection(junk: bytes) -> None:
    async with witnessed() as listener:
        with raw_connect(listener) as sock:
            sock.sendall(junk)
            assert await ended(sock)
            await until(lambda: listener.connections == 1)


async def test_truncated_frames_end_only_their_own_connection() -> None:
    async with witnessed() as listener:
        whole = bytes(encode_frames([hello(), get(1)]))
        for length in range(len(whole)):
            with raw_connect(listener) as sock:
                sock.sendall(whole[:length])
        await until(lambda: listener.connections == 1)


async def test_random_bytes_end_only_their_own_connection() -> None:
    chance = random.Random(5)
    async with witnessed() as listener:
        for _ in range(300):
            with raw_connect(listener) as sock:
                prefix = bytes(encode_frames([hello()])) if chance.random() < 0.5 else b""
                body = chance.randbytes(chance.randrange(1, 200))
                framed = len(body).to_bytes(4, "big") + body if chance.random() < 0.7 else body
                sock.sendall(prefix + framed)
                await trio.lowlevel.checkpoint()
        await until(lambda: listener.connections == 1)


async def test_mutated_requests_never_reach_further_than_their_connection() -> None:
    chance = random.Random(6)
    original = bytes(
        encode_frames([get(1), wire.Update(2, 1, 0, 0, b"d" * 32, "user", 5, "", b"data", None)])
    )
    async with witnessed() as listener:
        for _ in range(300):
            mutated = bytearray(original)
            for _ in range(chance.randrange(1, 4)):
                mutated[chance.randrange(len(mutated))] = chance.randrange(256)
            with raw_connect(listener) as sock:
                sock.sendall(bytes(encode_frames([hello()])) + mutated)
                await trio.lowlevel.checkpoint()
        await until(lambda: listener.connections == 1)


async def test_a_failing_handler_ends_only_its_connection(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The log line hides its values."""

    async def handle(connection: FramedConnection, hello: wire.Hello, number: int) -> None:
        while True:
            for request in await connection.receive():
                if request.request_id == 13:
                    raise RuntimeError("super-secret-value")
                connection.send([wire.Missing(request.request_id)])

    async with listening(echo_service(handle)) as (listener, nursery):
        other = await client_of(listener, nursery)
        with raw_connect(listener) as sock:
            sock.sendall(bytes(encode_frames([hello(), get(13)])))
            assert await ended(sock)
        await assert_answers(other)
    output = capsys.readouterr()
    assert "connection_failed" in output.out + output.err
    assert "super-secret" not in output.out + output.err


async def test_unread_connection_is_ended_at_its_bound_and_others_go_on() -> None:
    async with witnessed(outbound_bytes_max=1 << 18) as listener:
        with raw_connect(listener) as sock:
            requests = bytes(encode_frames([get(number) for number in range(20_000)]))
            sock.sendall(bytes(encode_frames([hello()])))
            with trio.fail_after(60):
                while listener.connections == 2 or not sock.getpeername():
                    try:
                        sock.send(requests)
                    except BlockingIOError:
                        pass
                    except ConnectionError:
                        break
                    await trio.lowlevel.checkpoint()
            await until(lambda: listener.connections == 1)


async def test_connections_beyond_the_limit_are_told_so() -> None:
    async with listening(connections_max=2) as (listener, nursery):
        first = await client_of(listener, nursery)
        second = await client_of(listener, nursery)
        with pytest.raises(DialFailedError) as caught:
            await dial(listener.address(), hello(), nursery)
        assert caught.value.code == "too-many-connections"
        await assert_answers(first)
        first.close()
        await until(lambda: listener.connections == 1)
        await assert_answers(await client_of(listener, nursery))
        await assert_answers(second)


async def test_peers_and_operators_find_room_where_clients_find_none() -> None:
    """Else an actor full of idle clients could get no new backup, and nobody could ask it why."""
    services = dict.fromkeys(
        (wire.ROLE_CLIENT, wire.ROLE_PEER, wire.ROLE_ADMIN), Service(request_decoder, echo)
    )
    async with listening(services, connections_max=2) as (listener, nursery):
        clients = [await client_of(listener, nursery) for _ in range(2)]
        others = []  # kept: a connection that is collected is closed
        for role in (wire.ROLE_PEER, wire.ROLE_ADMIN):
            connection, _ = await dial(listener.address(), hello(role=role, target=SERVER), nursery)
            others.append(connection)
            connection.speak(client_decoder)
            await assert_answers(connection)
        with pytest.raises(DialFailedError, match=r"serves 2 clients already.*run fewer") as caught:
            await dial(listener.address(), hello(), nursery)
        assert caught.value.code == "too-many-connections"
        clients[0].close()
        await until(lambda: listener.connections == 3)
        await assert_answers(await client_of(listener, nursery))


async def test_who_says_nothing_takes_no_more_than_the_reserve() -> None:
    async with listening(connections_max=2) as (listener, nursery):
        with ExitStack() as stack:
            for _ in range(2 + RESERVED_CONNECTIONS):
                stack.enter_context(raw_connect(listener))
            await until(lambda: listener.connections == 2 + RESERVED_CONNECTIONS)
            assert await ended(stack.enter_context(raw_connect(listener)))
        await until(lambda: listener.connections == 0)
        await assert_answers(await client_of(listener, nursery))


async def test_running_out_of_descriptors_refuses_only_the_newest() -> None:
    async with listening() as (listener, nursery):
        old = await client_of(listener, nursery)
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        with ExitStack() as stack:
            waiting = [stack.enter_context(socket.socket()) for _ in range(5)]
            used = _highest_descriptor()
            resource.setrlimit(resource.RLIMIT_NOFILE, (used + 1, limits[1]))
            stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
            _exhaust_descriptors(stack)
            for sock in waiting:
                sock.connect(("127.0.0.1", listener.port))
                sock.settimeout(0)
            for sock in waiting:
                received = b""
                with trio.fail_after(10):
                    while data := await raw_receive(sock):
                        received += data
                (goodbye,) = [greeting_decoder.decode(frame) for frame in FrameBuffer().feed(received)]
                assert goodbye.code == "too-many-connections"
            await assert_answers(old)
        await assert_answers(await client_of(listener, nursery), 2)


def _highest_descriptor() -> int:
    return max(int(entry.name) for entry in Path("/proc/self/fd").iterdir())


def _exhaust_descriptors(stack: ExitStack) -> None:
    while True:
        try:
            stack.callback(os.close, os.open(os.devnull, os.O_RDONLY))
        except OSError:
            return


async def test_many_connections_at_once_are_served() -> None:
    async with listening() as (listener, nursery):
        answered = []

        async def client() -> None:
            connection = await client_of(listener, nursery)
            await assert_answers(connection)
            answered.append(connection)

        async with trio.open_nursery() as clients:
            for _ in range(200):
                clients.start_soon(client)
        assert len(answered) == 200
        assert listener.connections == 200


async def test_a_crowd_at_the_door_lets_others_have_their_turns() -> None:
    """Two turns of the loop may come between two of ours, and four are accepted in each."""
    listener = Listener(ListenerSettings(CLUSTER, SERVER), echo_service())
    crowd = [socket.create_connection(("127.0.0.1", listener.port)) for _ in range(100)]
    counts = [0]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listener.run)
        with trio.fail_after(20):
            while counts[-1] < len(crowd):
                await trio.lowlevel.checkpoint()
                counts.append(listener.connections)
        nursery.cancel_scope.cancel()
    for sock in crowd:
        sock.close()
    assert max(later - sooner for sooner, later in pairwise(counts)) <= 8


async def test_cancelling_the_listener_ends_every_connection_and_frees_the_port() -> None:
    async with listening() as (listener, nursery):
        port = listener.port
        connection = await client_of(listener, nursery)
        nursery.cancel_scope.cancel()
        assert not connection.ended
    again = Listener(ListenerSettings(CLUSTER, SERVER, port=port), echo_service())
    again.close()


async def test_address_in_use_names_the_option_to_change() -> None:
    async with listening() as (listener, _nursery):
        with pytest.raises(UsageError, match="--listen"):
            Listener(ListenerSettings(CLUSTER, SERVER, port=listener.port), echo_service())


async def test_dial_to_nobody_and_to_strangers_fails_plainly() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        async with trio.open_nursery() as nursery:
            with pytest.raises(DialFailedError, match="did not answer"):
                await dial(address, hello(), nursery, seconds=0.05)
    async with trio.open_nursery() as nursery:
        with pytest.raises(DialFailedError, match="cannot be reached"):
            await dial(address, hello(), nursery)
        with pytest.raises(UsageError, match="host:port"):
            await dial("nowhere", hello(), nursery)
