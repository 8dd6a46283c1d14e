"""Data and patches made to harm: refused with a reason, and nobody else's sessions notice."""

import os
import struct
from collections.abc import AsyncIterator

import msgspec
import pytest

from greenroom import wire
from greenroom.ids import digest_of, locate, new_session_id
from greenroom.wire import PATHS_MAX
from tests.system.canaries import canaries
from tests.system.raw import RawConnection, greeted, hello
from tests.system.stage import SETTINGS, SharedCluster

pytestmark = [pytest.mark.system, pytest.mark.trio]

FAR_US = 253_402_300_799_999_999
DUPLICATES = b"\x81\x00\xde" + struct.pack(">H", 8000) + b"\x00\xc0" * 8000
COLLIDING = msgspec.msgpack.encode({"k": {((1 << 61) - 1) * (key % 8) + key: 0 for key in range(87_381)}})
HIDDEN = b"\x82\xa1a" + b"\x91" * 960 + b"\xc0\xa1a\x00"
UNREADABLE = {
    "duplicate keys": DUPLICATES,
    "colliding keys": COLLIDING,
    "hidden nesting": HIDDEN,
    "a key None": b"\x81\xc0\x01",
    "an unknown extension": b"\x81\xa1a\xd4\x63\x01",
    "no msgpack": b"\xc1",
    "no dict": b"\x90",
}


class Attacker:
    """A client that sends what no store would; the session is its own."""

    def __init__(self, connection: RawConnection, session_id: str) -> None:
        self._connection = connection
        self.point, self.digest = locate(session_id)
        self.requests = 0

    async def ask(self, kind: type, *fields: object) -> wire.Reply:
        """Send a request, whose first fields are made up, and return the answer."""
        self.requests += 1
        await self.send(kind(self.requests, self.requests, 0, self.point, *fields))
        while True:
            reply = await self._connection.receive()
            assert reply is not None, "the connection ended"
            if getattr(reply, "request_id", None) == self.requests:
                return reply

    async def send(self, message: wire.Frame) -> None:
        await self._connection.send([message])

    async def ended(self) -> None:
        await self._connection.ended()


@pytest.fixture
async def attacker(small_cluster: SharedCluster) -> AsyncIterator[Attacker]:
    await small_cluster.healthy()
    session_id = new_session_id()
    cluster_map = await small_cluster.map()
    shard = cluster_map.shards[locate(session_id)[0] * SETTINGS.shards // 65_536]
    opening = hello(wire.ROLE_CLIENT, sender=os.urandom(16))
    async with greeted(cluster_map.actors[shard.primary].address, opening) as connection:
        yield Attacker(connection, session_id)


async def test_unreadable_data(small_cluster: SharedCluster, attacker: Attacker) -> None:
    """No store could read it: the app would answer each request of that session with an error."""
    async with canaries(small_cluster.cluster):
        sound = (attacker.digest, None, 1, FAR_US, None, "", b"\x80")
        assert isinstance(await attacker.ask(wire.Create, *sound), wire.Written)
        for data in UNREADABLE.values():
            other = (digest_of(new_session_id()), None, 1, FAR_US, None, "", data)
            for refused in (
                await attacker.ask(wire.Create, *other),
                await attacker.ask(wire.Update, attacker.digest, None, FAR_US, "", data, None),
                await attacker.ask(wire.Patch, attacker.digest, (), (), ((("a",), data),), None, None)
                if data != b"\x90"
                else None,
            ):
                if refused is not None:
                    assert isinstance(refused, wire.Failed)
                    assert refused.code == wire.FailureCode.INVALID


async def test_patches_that_would_take_long(small_cluster: SharedCluster, attacker: Attacker) -> None:
    """As many paths as a patch may name, each at the dearest place, again and again."""
    data = msgspec.msgpack.encode(
        {"k": [dict.fromkeys(range(1000)) for _ in range(6)], "n": {"k": [0] * 500}}
    )
    async with canaries(small_cluster.cluster):
        created = (attacker.digest, None, 1, FAR_US, None, "", data)
        assert isinstance(await attacker.ask(wire.Create, *created), wire.Written)
        expect = ((("n", "k"), msgspec.msgpack.encode([0] * 500)),) * 60
        changed = tuple((("n", *("x",) * 60, number), b"\x01") for number in range(512))
        for _ in range(10):
            reply = await attacker.ask(wire.Patch, attacker.digest, changed, (), expect, None, None)
            assert isinstance(reply, wire.Session)


async def test_a_patch_of_too_many_paths_ends_its_connection(
    small_cluster: SharedCluster, attacker: Attacker
) -> None:
    async with canaries(small_cluster.cluster):
        expect = [[[0], b"\x81\x00\xc0"]] * 100_000
        forged = [14, 1, 1, 0, attacker.point, attacker.digest, [], [], expect, None, None]
        payload = msgspec.msgpack.encode([forged])
        await attacker._connection.stream.send_all(len(payload).to_bytes(4, "big") + payload)
        await attacker.ended()
    assert PATHS_MAX < 100_000
