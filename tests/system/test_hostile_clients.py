"""What one client, who may say anything that fits a frame, does to other clients: nothing that they notice.

Beside each attack canaries work from another address of this host: none of them is lost, refused or slow, and
no process of the cluster ends (`tests.system.canaries`).
"""

import os
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
import trio

from greenroom import wire
from greenroom.cluster_map import ClusterMap
from greenroom_cluster.config import ActorOptions, NodeOptions
from greenroom_cluster.coordination import messages
from tests.system.attacks import resident_bytes
from tests.system.canaries import canaries
from tests.system.conftest import Clusters
from tests.system.raw import RawConnection, greeted, hello
from tests.system.stage import SETTINGS, SharedCluster

pytestmark = [pytest.mark.system, pytest.mark.trio]

# Budgets are for each host that connects; the canaries' is 127.0.0.1.
ATTACKER = "127.0.0.2"
POINT = 0
MEBIBYTE = 1 << 20


@pytest.fixture
async def cluster(small_cluster: SharedCluster) -> SharedCluster:
    await small_cluster.healthy()
    return small_cluster


class Mallory:
    """A client of its own making: its requests, one after the other or many at once."""

    def __init__(self, connection: RawConnection) -> None:
        self._connection = connection
        self._request = 0

    def next(self) -> int:
        """Return the number of a new request."""
        self._request += 1
        return self._request

    async def ask(self, request: wire.Frame) -> Any:
        """Send a request and return what comes back; None if the connection is ended instead."""
        with suppress(OSError, trio.BrokenResourceError):
            await self._connection.send([request])
            return await self._connection.receive()
        return None

    async def say(self, message: Any) -> Any:
        """Send what is no message of ours, in a frame; return the answer, None if the connection is ended."""
        payload = msgspec.msgpack.encode([message])
        with suppress(OSError, trio.BrokenResourceError):
            await self._connection.stream.send_all(struct.pack(">I", len(payload)) + payload)
            return await self._connection.receive()
        return None

    async def ask_all(self, requests: Sequence[wire.Frame]) -> list[Any]:
        """Send requests together and return as many answers."""
        await self._connection.send(requests)
        return [await self._connection.receive() for _ in requests]

    async def create(
        self, digest: bytes, data: bytes = b"\x80", user: str | None = None, label: str = ""
    ) -> Any:
        """Store a session and return the answer."""
        return await self.ask(new_session(self.next(), digest, data, user, label))

    def patch(self, digest: bytes, **changes: Any) -> wire.Patch:
        """Return a patch of a session."""
        number = self.next()
        fields: dict[str, Any] = {"set": (), "unset": (), "expect": (), "user": None, "expires_us": None}
        return wire.Patch(number, number, 0, POINT, digest, **{**fields, **changes})


def new_session(
    number: int, digest: bytes, data: bytes = b"\x80", user: str | None = None, label: str = ""
) -> wire.Create:
    now = datetime.now(UTC)
    created, expires = (int(each.timestamp() * 1e6) for each in (now, now + timedelta(hours=1)))
    return wire.Create(number, number, 0, POINT, digest, user, created, expires, None, label, data)


def primary_of(cluster_map: ClusterMap, point: int = POINT) -> tuple[str, bytes]:
    """Return (address, incarnation) of the primary that serves a point."""
    shard = cluster_map.shards[point * cluster_map.shard_count >> 16]
    return cluster_map.actors[shard.primary].address, shard.primary


@asynccontextmanager
async def mallory(cluster: SharedCluster, sender: bytes = b"") -> AsyncIterator[Mallory]:
    """Connect as a client to the primary of the point that is attacked."""
    address, incarnation = primary_of(await cluster.map())
    opening = hello(wire.ROLE_CLIENT, target=incarnation, sender=sender)
    async with greeted(address, opening, source=ATTACKER) as connection:
        yield Mallory(connection)


def digest() -> bytes:
    return os.urandom(32)


def colliding(count: int) -> bytes:
    """Return a map of integer keys that all begin their search of a dict at the same place."""
    pairs = b"".join(b"\xce" + struct.pack(">I", number << 15) + b"\xc0" for number in range(count))
    return b"\xdf" + struct.pack(">I", count) + pairs


DUPLICATES = b"\x81\x00\xde" + struct.pack(">H", 8000) + b"\x00\xc0" * 8000
UNREADABLE = {
    "duplicate keys": DUPLICATES,
    "colliding integers": colliding(87_381),
    "nested, hidden by a duplicate": b"\x82\xa1a" + b"\x91" * 972 + b"\xc0\xa1a\x00",
    "too deep": b"\x81\xa1a" + b"\x91" * 100_000 + b"\xc0",
    "no key at all": b"\x81\xc0\x01",
    "float key": b"\x81\xcb" + bytes(8) + b"\x01",
    "unknown extension": b"\x81\xa1a\xd4\x42\x00",
    "no map": b"\x93\x01\x02\x03",
    "nothing": b"",
    "junk": b"\xc1" * 64,
}


@pytest.mark.parametrize("data", UNREADABLE.values(), ids=list(UNREADABLE))
async def test_data_that_no_facade_would_send_is_not_stored(cluster: SharedCluster, data: bytes) -> None:
    """It cost both replicas, decided differently on each, or failed every page of its session."""
    stored = digest()
    async with canaries(cluster.cluster), mallory(cluster) as client:
        assert isinstance(await client.create(stored), wire.Written)
        for _ in range(20):
            refused = await client.create(digest(), data)
            assert isinstance(refused, wire.Failed), refused
            assert refused.code == wire.FailureCode.INVALID
            number = client.next()
            update = wire.Update(number, number, 0, POINT, stored, "u", 1 << 52, "", data, None)
            refused = await client.ask(update)
            assert isinstance(refused, wire.Failed), refused
        found = await client.ask(wire.Get(client.next(), POINT, stored))
        assert found.state.data == b"\x80"


async def test_expectations_that_are_costly_to_compare(cluster: SharedCluster) -> None:
    """Each took another decoding of a value of 16 KB, in one step, on both replicas."""
    stored = digest()
    plain = msgspec.msgpack.encode({0: dict.fromkeys(map(str, range(1500)))})
    async with canaries(cluster.cluster):
        async with mallory(cluster) as client:
            assert isinstance(await client.create(stored, plain), wire.Written)
            # No facade can even make it.
            expected = [[[0], b"\x81\x00\xc0"]] * 100_000
            fields = msgspec.msgpack.decode(msgspec.msgpack.encode(client.patch(stored)))
            fields[1 + wire.Patch.__struct_fields__.index("expect")] = expected
            assert not isinstance(await client.say(fields), wire.Session)
        async with mallory(cluster) as client:
            many = client.patch(stored, expect=(((0,), b"\x81\x00\xc0"),) * 1000)
            for _ in range(20):
                answer = await client.ask(msgspec.structs.replace(many, request_id=client.next()))
                assert isinstance(answer, wire.Failed), answer


async def test_answers_that_show_a_large_session_pin_no_memory(clusters: Clusters) -> None:
    """Each was kept for its client, whose id is made up, and with it a version of the session."""
    bound = 512 * MEBIBYTE
    cluster = clusters.get(
        msgspec.structs.replace(
            SETTINGS, nodes=2, node=NodeOptions(actor=ActorOptions(memory_max=str(bound)))
        )
    )
    await cluster.healthy()
    stored = digest()
    large = msgspec.msgpack.encode({"a": "x" * (MEBIBYTE - 4096)})
    pids = cluster.cluster.pids()
    async with canaries(cluster.cluster):
        async with mallory(cluster) as client:
            assert isinstance(await client.create(stored, large), wire.Written)
        before = {pid: resident_bytes(pid) for pid in pids}
        answers = set()
        for _ in range(15):
            async with mallory(cluster) as client:
                for _ in range(9):
                    patch = client.patch(stored, set=((("b",), msgspec.msgpack.encode(os.urandom(8))),))
                    answers.add(type(await client.ask(msgspec.structs.replace(patch, low=1))))
        grown = {pid: resident_bytes(pid) - size for pid, size in before.items()}
    assert wire.Overloaded in answers
    assert max(grown.values()) < bound // 8 + 32 * MEBIBYTE, grown


async def test_an_answer_is_given_to_its_own_command_only(cluster: SharedCluster) -> None:
    """Who said hello with another's client id got that client's session."""
    victims, secret, sender = digest(), b"\x81\xa1s\xa6secret", os.urandom(16)
    async with canaries(cluster.cluster):
        async with mallory(cluster, sender) as victim:
            assert isinstance(await victim.create(victims, secret), wire.Written)
            asked = victim.patch(victims)
            assert isinstance(await victim.ask(asked), wire.Session)
        async with mallory(cluster, sender) as client:
            answer = await client.ask(msgspec.structs.replace(asked, digest=bytes(32)))
            assert isinstance(answer, wire.Unknowable), type(answer)


async def test_patches_of_many_empty_lists(cluster: SharedCluster) -> None:
    """Others' patches took a second each, in the median, while one connection went on with these.

    What a session may hold is bounded now, and costly steps take turns with those of others.
    """
    stored = digest()
    lists = b"\x81\xa1a\xdc" + struct.pack(">H", 32_000) + b"\x90" * 32_000
    async with canaries(cluster.cluster) as watched, mallory(cluster) as client:
        assert isinstance(await client.create(stored, lists), wire.Written)
        for _ in range(10):
            patches = [client.patch(stored, set=((("b",), b"\x01"),)) for _ in range(20)]
            await client.ask_all(patches)
    report = watched.report
    assert report is not None
    assert report.median_seconds < max(2 * report.calm_median_seconds, 0.01), report


async def test_a_listing_that_fits_no_frame_is_an_answer(cluster: SharedCluster) -> None:
    """It ended the connection of whoever asked, and every operation on it waited."""
    user = "user of many"
    label = "\N{GRINNING FACE}" * 64
    async with canaries(cluster.cluster), mallory(cluster) as client:
        for _ in range(20):
            requests = [new_session(client.next(), digest(), user=user, label=label) for _ in range(200)]
            assert all(isinstance(each, wire.Written) for each in await client.ask_all(requests))
        shards = tuple(range(cluster.settings.shards))
        answer = await client.ask(wire.ListByUser(client.next(), user, 2_000, shards))
        assert isinstance(answer, wire.Listing | wire.Failed | wire.Overloaded), answer
        # A label of 1,024 bytes is no label.
        long_label = new_session(client.next(), digest(), user=user, label=label * 4)
        assert not isinstance(await client.ask(long_label), wire.Written)


async def test_work_that_is_cheap_to_ask_for(cluster: SharedCluster) -> None:
    """Cleaning and listing, again and again, where one user has tens of thousands of sessions."""
    user = "user of very many"
    shards = tuple(range(cluster.settings.shards))
    async with mallory(cluster) as client:
        for _ in range(60):
            requests = [new_session(client.next(), digest(), user=user) for _ in range(500)]
            assert all(isinstance(each, wire.Written) for each in await client.ask_all(requests))
    async with canaries(cluster.cluster):
        for _ in range(20):
            async with mallory(cluster) as client:
                for _ in range(10):
                    number = client.next()
                    await client.ask(wire.Clean(number, number, 0, shards))
                    await client.ask(wire.ListByUser(client.next(), user, 2_000, shards))


async def test_lists_that_are_held_cost_little(cluster: SharedCluster) -> None:
    """Thousands of lists with as many shards as may be named, while none is read."""
    shards = tuple(range(4096))
    pids = cluster.cluster.pids()
    before = {pid: resident_bytes(pid) for pid in pids}
    async with canaries(cluster.cluster), mallory(cluster) as client:
        for _ in range(20):
            lists = [wire.ListByUser(client.next(), "nobody", 1, shards) for _ in range(50)]
            for each in await client.ask_all(lists):
                assert isinstance(each, wire.Listing | wire.Overloaded), each
        grown = {pid: (resident_bytes(pid) - size) >> 20 for pid, size in before.items()}
    assert max(grown.values()) < 32, grown


@pytest.mark.parametrize("role", [wire.ROLE_ADMIN, wire.ROLE_PEER, wire.ROLE_CLIENT])
async def test_who_is_no_node_reports_no_deaths(cluster: SharedCluster, role: str) -> None:
    """One message with the incarnations of the public map emptied the cluster."""
    before = await cluster.map()
    async with canaries(cluster.cluster):
        with suppress(AssertionError, OSError, trio.BrokenResourceError):
            async with greeted(
                cluster.cluster.coordinator_address, hello(role), source=ATTACKER
            ) as connection:
                await connection.send([messages.ReportDead(1, tuple(before.actors))])
                with trio.move_on_after(2):
                    answer = await connection.receive()
                    assert not isinstance(answer, messages.Accepted)
    after = await cluster.map()
    assert after.actors.keys() == before.actors.keys()
    assert all(actor.state == "up" for actor in after.actors.values())


async def test_claim_of_a_newer_map_stops_no_coordinator(cluster: SharedCluster) -> None:
    """A number that anybody can say had it refuse everything until it was restarted."""
    async with canaries(cluster.cluster):
        for role in (wire.ROLE_ADMIN, wire.ROLE_PEER):
            async with greeted(
                cluster.cluster.coordinator_address, hello(role), source=ATTACKER
            ) as connection:
                with suppress(OSError, trio.BrokenResourceError), trio.move_on_after(2):
                    await connection.send([wire.Subscribe(1 << 62, 1)])
                    await connection.receive()
    assert (await cluster.status()).coordinator.state == "up"
    before = await cluster.map()
    # It goes on to decide: a node that comes and goes is in the map, and out of it.
    name = await cluster.start_node()
    await cluster.until(lambda found: name in found.nodes)
    await cluster.stop_node(name)
    assert (await cluster.map()).version > before.version
