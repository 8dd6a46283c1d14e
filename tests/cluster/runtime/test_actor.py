"""Actors with the real core, over real sockets."""

import random
import socket
from pathlib import Path
from typing import Any

import pytest
import trio

from greenroom import wire
from greenroom.errors import UsageError
from greenroom.framing import encode_frames
from greenroom_cluster.runtime.actor import Actor, ActorSettings
from greenroom_cluster.runtime.connection import FramedConnection
from greenroom_cluster.runtime.dialing import DialFailedError, dial
from greenroom_cluster.runtime.reading import ConnectionEndedError
from greenroom_cluster.shard.host import Host
from greenroom_cluster.shard.inputs import ClientRequests
from tests.cluster.runtime.cluster import create, read, small_cluster
from tests.cluster.runtime.loopback import client_decoder, hello, raw_connect, until

pytestmark = pytest.mark.trio


async def answers(connection: FramedConnection, count: int) -> dict[int, Any]:
    received: dict[int, Any] = {}
    with trio.fail_after(20):
        while len(received) < count:
            received.update((reply.request_id, reply) for reply in await connection.receive())
    return received


async def test_taken_port_names_the_option_that_chooses_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = ActorSettings(
            incarnation=bytes(16),
            slot="n1/0",
            cluster="shop",
            coordinator="127.0.0.1:1",
            port=taken.getsockname()[1],
        )
        core = Host(settings.incarnation, settings.slot, settings.options.core(), random.Random(1))
        with pytest.raises(UsageError, match=r"--actor-port-base \(GREENROOM_ACTOR_PORT_BASE\)"):
            Actor(settings, core)


async def settled(cluster: Any, connection: FramedConnection, request: Any) -> Any:
    """The first answer that does not put it off: a shard may need a moment for its lease, or for room."""
    with trio.fail_after(20):
        while True:
            connection.send([request])
            (reply,) = (await answers(connection, 1)).values()
            if not isinstance(reply, wire.Redirect | wire.Overloaded):
                return reply
            await trio.lowlevel.checkpoint()


async def test_sessions_are_written_to_both_actors_and_read_back(tmp_path: Path) -> None:
    async with small_cluster(tmp_path, "a", "b") as cluster:
        client = await cluster.client(cluster.primary_name(0))
        assert isinstance(await settled(cluster, client, create(1)), wire.Written)
        client.send([create(number) for number in range(2, 501)])
        assert all(isinstance(reply, wire.Written) for reply in (await answers(client, 499)).values())
        client.send([read(1000 + number, number) for number in range(1, 501)])
        assert all(isinstance(reply, wire.Session) for reply in (await answers(client, 500)).values())
        cores = [actor.core for actor in cluster.actors.values()]
        await until(lambda: all(len(core.replicas[0].table.sessions) == 500 for core in cores))


async def test_what_was_acknowledged_is_read_from_the_other_actor_after_a_kill(tmp_path: Path) -> None:
    async with small_cluster(tmp_path, "a", "b") as cluster:
        name = cluster.primary_name(0)
        client = await cluster.client(name)
        assert isinstance(await settled(cluster, client, create(1)), wire.Written)
        client.send([create(number, data=b"\x81\xa1v\xc4\xff" + bytes(255)) for number in range(2, 101)])
        await answers(client, 99)
        await cluster.kill(name)
        await until(cluster.serving, 20)
        client = await cluster.client(cluster.primary_name(0))
        assert isinstance(await settled(cluster, client, read(200, 1)), wire.Session)
        client.send([read(1000 + number, number) for number in range(1, 101)])
        assert all(isinstance(reply, wire.Session) for reply in (await answers(client, 100)).values())


async def test_newcomer_gets_snapshots_and_takes_over_in_turn(tmp_path: Path) -> None:
    async with small_cluster(tmp_path, "a", "b") as cluster:
        client = await cluster.client(cluster.primary_name(0))
        big = b"\x81\xa1v\xc6" + (200_000).to_bytes(4, "big") + bytes(200_000)
        assert isinstance(await settled(cluster, client, create(1, data=big)), wire.Written)
        for number in range(2, 41):
            assert isinstance(await settled(cluster, client, create(number, data=big)), wire.Written)
        first = cluster.primary_name(0)
        await cluster.kill(first)
        await cluster.start_actor(first)
        await until(lambda: cluster.serving() and cluster.replicated(), 30)
        await cluster.kill(next(name for name in cluster.actors if name != first))
        await until(cluster.serving, 20)
        client = await cluster.client(first)
        assert isinstance(await settled(cluster, client, read(100, 1)), wire.Session)
        for number in range(2, 41):
            client.send([read(1000 + number, number)])
        assert all(isinstance(reply, wire.Session) for reply in (await answers(client, 39)).values())


async def test_inspection_is_answered_to_operators_only(tmp_path: Path) -> None:
    async with small_cluster(tmp_path, "a", "b") as cluster:
        address = cluster.actors["a"].actor.listener.address()
        admin, _ = await dial(address, hello(wire.ROLE_ADMIN), cluster.nursery)
        admin.speak(client_decoder)
        admin.send([wire.Inspect(1)])
        inspection = (await answers(admin, 1))[1]
        assert inspection.incarnation == cluster.actors["a"].incarnation
        assert len(inspection.replicas) == 8
        client = await cluster.client("a")
        client.send([wire.Inspect(1)])
        with pytest.raises(ConnectionEndedError):
            await client.receive()


async def test_inspection_tells_since_when_the_coordinator_is_away(tmp_path: Path) -> None:
    async with small_cluster(tmp_path, "a", "b") as cluster:
        address = cluster.actors["a"].actor.listener.address()
        admin, _ = await dial(address, hello(wire.ROLE_ADMIN), cluster.nursery)
        admin.speak(client_decoder)

        async def away_seconds(number: int) -> float:
            admin.send([wire.Inspect(number)])
            return (await answers(admin, 1))[number].coordinator_away_seconds

        assert await away_seconds(1) == 0
        began = trio.current_time()
        cluster.stop_coordinator()
        await until(lambda: not cluster.actors["a"].actor.coordinator.up)
        await until(lambda: trio.current_time() - began > 0.3)
        assert 0.1 < await away_seconds(2) <= trio.current_time() - began
        assert await away_seconds(3) < await away_seconds(4)


async def test_peer_must_name_whom_it_means(tmp_path: Path) -> None:
    async with small_cluster(tmp_path, "a") as cluster:
        address = cluster.actors["a"].actor.listener.address()
        for target in (b"", b"x" * 16):
            with pytest.raises(DialFailedError) as caught:
                await dial(address, hello(wire.ROLE_PEER, target=target), cluster.nursery)
            assert caught.value.code == "wrong-target"


async def test_mutated_requests_leave_the_cluster_serving(tmp_path: Path) -> None:
    """Hostile frames that decode reach the core: whatever they hold, it goes on, and so do the others."""
    chance = random.Random(11)
    bodies = [bytes(encode_frames([message])) for message in _requests()]
    async with small_cluster(tmp_path, "a", "b") as cluster:
        name = cluster.primary_name(0)
        listener = cluster.actors[name].actor.listener
        client = await cluster.client(name)
        assert isinstance(await settled(cluster, client, create(1)), wire.Written)
        steps = _counted_steps(cluster.actors[name].actor.driver)
        for attempt in range(600):
            frames = bytearray()
            for _ in range(chance.randrange(1, 3)):
                body = bytearray(chance.choice(bodies))
                for _ in range(chance.randrange(1, 5)):
                    body[chance.randrange(4, len(body))] = chance.choice(_NASTY)
                frames += body
            with raw_connect(listener) as sock:
                sock.sendall(bytes(encode_frames([hello(sender=attempt.to_bytes(16, "big"))])) + frames)
                await trio.lowlevel.checkpoint()
        await until(lambda: listener.connections <= 3)
        assert len(steps) > 150
        client.send([read(2, 1)])
        assert isinstance((await answers(client, 1))[2], wire.Session)
        client.send([create(3)])
        assert isinstance((await answers(client, 1))[3], wire.Written)
        assert cluster.replicated()


async def test_requests_with_extreme_values_are_all_answered(tmp_path: Path) -> None:
    async with small_cluster(tmp_path, "a", "b") as cluster:
        name = cluster.primary_name(0)
        client = await cluster.client(name)
        assert isinstance(await settled(cluster, client, create(1)), wire.Written)
        for sender, request in enumerate(_requests()):
            other = await cluster.client(name, sender.to_bytes(16, "big"))
            other.send([request])
            assert list(await answers(other, 1)) == [request.request_id]
        client.send([create(3)])
        assert isinstance((await answers(client, 1))[3], wire.Written)


def _counted_steps(driver: Any) -> list[Any]:
    """The batches of requests that reach the core from now on."""
    seen: list[Any] = []
    real = driver.step

    def step(event: Any) -> None:
        if isinstance(event, ClientRequests):
            seen.append(event)
        real(event)

    driver.step = step
    return seen


_NASTY = [0x00, 0x01, 0x7F, 0x80, 0x90, 0xA0, 0xC0, 0xC4, 0xCB, 0xCF, 0xD3, 0xE0, 0xFF]


def _requests() -> list[Any]:
    digest = bytes(32)
    huge = (1 << 64) - 1
    least = -(1 << 63)
    last_us, first_us = 253_402_300_799_999_999, -62_135_596_800_000_000
    return [
        read(1, 1),
        create(1),
        wire.Create(2, 1, 0, 0, digest, "user", last_us, last_us, last_us, "label", b"\x80"),
        wire.Create(3, 1, 0, 0, digest, "user", first_us, first_us, first_us, "label", b"\x80"),
        wire.Update(huge, huge, huge, 0, digest, "user", last_us, "label", b"\x80", huge),
        wire.Update(4, least, least, 0, digest, "user", 5, "label", b"\x80", least),
        wire.Delete(least, least, least, 0, digest),
        wire.Patch(5, 1, 0, 0, digest, ((("a", 1), b"\x01"),), (("b",),), ((("c",), b""),), ("u",), last_us),
        wire.Patch(6, 1, 0, 0, (1).to_bytes(32, "big"), ((("a",), b"\xc1"),), (("b",),), (), None, first_us),
        wire.Rotate(7, 1, 0, 0, digest, b"n" * 32, ((("a",), b"\xff"),), (), (None,), last_us),
        wire.DeleteByHandle(8, 1, 0, 0, digest, "user"),
        wire.DeleteByUser(9, 1, 0, "user", b"", (0, 0, 1, huge, least)),
        wire.ListByUser(10, "user", huge, (0, 1, 2, 9)),
        wire.ListByUser(11, "user", least, (0,)),
        wire.Clean(12, 1, 0, (0, 7, 8, 1 << 40)),
    ]


async def test_hostile_connections_by_the_hundred_harm_nobody(tmp_path: Path) -> None:
    chance = random.Random(12)
    async with small_cluster(tmp_path, "a", "b") as cluster:
        name = cluster.primary_name(0)
        listener = cluster.actors[name].actor.listener
        client = await cluster.client(name)
        assert isinstance(await settled(cluster, client, create(1)), wire.Written)
        before = cluster.map
        for number in range(300):
            with raw_connect(listener) as sock:
                sock.sendall(chance.randbytes(chance.randrange(1, 400)))
            client.send([read(10 + number, 1)])
            assert isinstance((await answers(client, 1))[10 + number], wire.Session)
        assert cluster.map == before
