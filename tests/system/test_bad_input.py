"""Bad input on every port of the whole tree: only the connection that it came on ends.

Every test runs beside a caller who works on all shards and must meet no error, and demands afterwards that
the very same processes still run, no bigger than before.
"""

import os
import random
from collections.abc import Sequence
from contextlib import suppress

import pytest
import trio

from greenroom import ClusterStore, new_session_id, wire
from greenroom.framing import encode_frames
from greenroom.ids import digest_of, point_of
from tests.listening import as_root
from tests.system.attacks import attacks, each, listening_as_mapped, unharmed
from tests.system.raw import connected, greeted, hello
from tests.system.stage import SharedCluster, session

pytestmark = [pytest.mark.system, pytest.mark.trio]

HELLO_SECONDS = 5.0
FRAMES = 100_000
LAST_REQUEST = 777_777

STRAY = [
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32),
    b"",
    b"\x00",
    b"\x00\x00\x00\x05\x91",
    b"\x00\x00\x00\x00",
    b"\xff\xff\xff\xff" + bytes(200),
    b"\x00\x00\x00\x04\xc1\xc1\xc1\xc1",
    b"\x04\x00\x00\x00\xc1\xc1\xc1\xc1",
    b"\x09\x00\x00\x00\x92\xa3abc\xa3def",
    b"\x00\x00\x00\x40" + b"\x91" * 64,
    bytes(encode_frames([wire.Subscribe(0, 0)])),
    bytes(encode_frames([hello(wire.ROLE_CLIENT, cluster="another")])),
    bytes(encode_frames([hello("emperor")])),
    bytes(encode_frames([hello(wire.ROLE_PEER, sender=b"short")])),
    bytes(encode_frames([wire.Hello(99, 99, "greenroom", wire.ROLE_CLIENT, os.urandom(16))])),
]
AFTER_HELLO = [
    b"\xff\xff\xff\xff" + bytes(200),
    b"\x7f\xff\xff\xff",
    b"\x00\x00\x00\x04\xc1\xc1\xc1\xc1",
    b"\x00\x00\x00\x00",
    b"\x00\x00\x10\x00" + b"\x91" * 4096,
    b"\x00\x00\x00\x02\x91\x7f",
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    bytes(encode_frames([wire.Goodbye("no", "thanks")])),
    bytes(encode_frames([hello(wire.ROLE_CLIENT)])),
]


@pytest.fixture
def cluster(small_cluster: SharedCluster) -> SharedCluster:
    return small_cluster


@as_root
async def test_who_is_in_the_map_listens_and_nobody_else(cluster: SharedCluster) -> None:
    """Supervisors listen nowhere, nor does what tractor opens between processes."""
    await listening_as_mapped(cluster)


async def test_stray_bytes_on_every_port(cluster: SharedCluster) -> None:
    chance = random.Random(20)
    noise = [chance.randbytes(chance.choice((3, 40, 4096, 70_000))) for _ in range(12)]
    async with unharmed(cluster) as ports:
        await each(attacks((port, data) for port in ports.expected for data in (*STRAY, *noise)))


async def test_garbage_after_a_good_hello_for_every_role(cluster: SharedCluster) -> None:
    chance = random.Random(21)
    noise = [chance.randbytes(chance.choice((3, 40, 4096, 70_000))) for _ in range(6)]
    async with unharmed(cluster) as ports:
        await each(
            attacks(
                (port, data, opening) for port, opening in ports.hellos() for data in (*AFTER_HELLO, *noise)
            )
        )


async def test_announced_4_gib_are_refused_before_they_are_allocated(cluster: SharedCluster) -> None:
    announced = b"\xff\xff\xff\xff"
    async with unharmed(cluster, growth_bytes_max=1 << 20) as ports:
        for _ in range(5):
            await each(attacks((port, announced) for port in ports.expected))
            await each(attacks((port, announced, opening) for port, opening in ports.hellos()))


async def test_hello_that_never_comes_is_not_waited_for(cluster: SharedCluster) -> None:
    """Also not when it comes byte by byte, or up to its last byte."""
    greeting = bytes(encode_frames([hello(wire.ROLE_CLIENT)]))

    async def silent(port: int, start: bytes) -> None:
        async with connected(port) as connection:
            await connection.stream.send_all(start)
            await connection.ended(HELLO_SECONDS + 3)

    async with unharmed(cluster) as ports, trio.open_nursery() as nursery:
        for port in ports.expected:
            for start in (b"", greeting[:2], greeting[:-1]):
                nursery.start_soon(silent, port, start)


def requests_of(session_id: str, count: int) -> Sequence[wire.Frame]:
    return [wire.Get(number, point_of(session_id), digest_of(session_id)) for number in range(1, count + 1)]


async def flood(port: int, opening: wire.Hello, frames: Sequence[wire.Frame]) -> None:
    """Ask and ask and never read, until the other side ends the connection, or stops reading too."""
    data = bytes(encode_frames(frames))
    with suppress(OSError, trio.BrokenResourceError):
        async with greeted(port, opening) as connection:
            for _ in range(300):
                with trio.move_on_after(0.5) as patience:
                    await connection.stream.send_all(data)
                if patience.cancelled_caught:
                    return


async def test_unread_connections_are_bounded(cluster: SharedCluster) -> None:
    """Whoever asks for the map, or for a large session, and does not read it, costs a bounded buffer."""
    session_id = new_session_id()
    async with ClusterStore(",".join(cluster.cluster.seeds)) as store:
        await store.create(session(session_id, text="x" * 200_000))
    asked = requests_of(session_id, 2_000)
    async with unharmed(cluster, growth_bytes_max=40 << 20) as ports, trio.open_nursery() as nursery:
        for port, incarnation in ports.actors.items():
            nursery.start_soon(flood, port, hello(wire.ROLE_CLIENT, target=incarnation), asked)
        subscriptions = [wire.Subscribe(0, 0)] * 2_000
        for port in ports.nodes:
            nursery.start_soon(flood, port, hello(wire.ROLE_CLIENT), subscriptions)
        nursery.start_soon(flood, ports.coordinator, hello(wire.ROLE_ADMIN), subscriptions)


async def test_100_000_hostile_frames(cluster: SharedCluster) -> None:
    """Well-framed nonsense in long connections, and broken frames in many short ones."""
    chance = random.Random(22)
    wild = (-(1 << 63), -1, 0, 65_535, 65_536, 1 << 40, (1 << 64) - 1)

    def number() -> int:
        return chance.choice(wild)

    def nonsense() -> wire.Frame:
        digest = chance.randbytes(32)
        return chance.choice(
            (
                wire.Get(number(), number(), digest),
                wire.Delete(number(), number(), number(), number(), digest),
                wire.Patch(
                    number(), number(), number(), chance.choice((-1, 65_536)), digest, (), (), (), None, None
                ),
                wire.ListByUser(number(), "nobody", number(), (number(), number())),
                wire.Clean(number(), number(), number(), (-1, 65_536)),
            )
        )

    async def send(port: int, opening: wire.Hello, count: int) -> None:
        async with greeted(port, opening) as connection, trio.open_nursery() as nursery:

            async def read_to_the_end() -> None:
                answers = 1
                with trio.fail_after(60):
                    while (answer := await connection.receive()).request_id != LAST_REQUEST:
                        assert isinstance(answer, wire.Reply)
                        answers += 1
                # Repeats of a write under one number have one answer.
                assert answers > count // 4

            nursery.start_soon(read_to_the_end)
            for _ in range(count // 500):
                await connection.send([nonsense() for _ in range(500)])
            await connection.send([wire.Get(LAST_REQUEST, 0, bytes(32))])

    async with unharmed(cluster) as ports:
        long = FRAMES // 10 * 9 // len(ports.actors)
        async with trio.open_nursery() as nursery:
            for port, incarnation in ports.actors.items():
                nursery.start_soon(send, port, hello(wire.ROLE_CLIENT, target=incarnation), long)
        broken = [b"\x00\x00\x00\x04\xc1\xc1\xc1\xc1" * 10]
        openings = list(ports.hellos())
        short = FRAMES // 10 // 10
        await each(
            attacks(
                (port, broken[0], opening)
                for port, opening in (chance.choice(openings) for _ in range(short))
            )
        )
