"""A cluster created anew on the coordinator's address of a former one: who follows it, and who does not."""

from pathlib import Path

import msgspec
import pytest
import trio

from greenroom import wire
from greenroom_cluster.coordination.genesis import ClusterOptions, first_map, identified, starting_map
from greenroom_cluster.coordination.storage import MapStorage
from tests.cluster.runtime.loopback import CLUSTER, until
from tests.cluster.runtime.test_coordination_links import Follower, coordinating, start

pytestmark = pytest.mark.trio


async def test_a_peer_of_the_former_cluster_follows_no_later_map_of_the_next(tmp_path: Path) -> None:
    """Not even one of a later version: the next cluster has lived longer."""
    async with trio.open_nursery() as outer:
        async with coordinating(tmp_path / "former") as (server, _):
            port = server.listener.port
            left = Follower(server.listener.address(), b"1" * 16)
            outer.start_soon(left.link.run)
            await left.register("left")
            await until(lambda: left.link.map is not None and bool(left.link.map.shards[0].wanted))
        known = left.link.map
        assert known is not None
        next_map = starting_map(None, ClusterOptions(CLUSTER, 8, 2), identity=b"n" * 16)
        with MapStorage(tmp_path / "next") as storage:
            storage.vouch()
            storage.save(msgspec.structs.replace(next_map, version=known.version + 1000))
        async with coordinating(tmp_path / "next", port) as (server, nursery):
            address = server.listener.address()
            fresh = Follower(address, b"2" * 16)
            nursery.start_soon(fresh.link.run)
            await until(lambda: left.events.count("up") == 1 and bool(server._service.coordinator.refusal))
            assert server.map is not None
            assert server.map.version == known.version + 1000
        # It goes on once something was decided by it: then only the peer of the other one is turned away.
        begun = msgspec.structs.replace(
            next_map,
            version=known.version + 1000,
            shards=tuple(msgspec.structs.replace(entry, epoch=1) for entry in next_map.shards),
        )
        with MapStorage(tmp_path / "next") as storage:
            storage.vouch()
            storage.save(begun)
        async with coordinating(tmp_path / "next", port) as (server, nursery):
            fresh = Follower(address, b"3" * 16)
            nursery.start_soon(fresh.link.run)
            await fresh.register("fresh")
            await until(lambda: fresh.link.map == server.map)
            assert fresh.link.map is not None
            assert fresh.link.map.identity == b"n" * 16
            assert left.link.map == known
            assert left.events.count("up") == 1
            assert server.map is not None
            assert left.sender not in server.map.actors
        outer.cancel_scope.cancel()


async def test_a_map_of_a_former_release_gets_an_identity(
    tmp_path: Path,
) -> None:
    """It is on disk before anyone is told."""
    former = msgspec.structs.replace(first_map(CLUSTER, 8, 2), version=7)
    with MapStorage(tmp_path) as storage:
        storage.vouch()
        storage.save(former)
    async with trio.open_nursery() as outer:
        async with coordinating(tmp_path) as (server, _):
            await until(lambda: server.map is not None)
            told = server.map
            assert told is not None
            assert (told.version, told.identity) == (8, identified(former).identity)
            one = Follower(server.listener.address(), b"1" * 16)
            one.link._session.map = former
            outer.start_soon(one.link.run)
            await until(lambda: one.link.map == server.map)
        with MapStorage(tmp_path) as storage:
            stored = storage.load()
            assert stored is not None
            assert stored.identity == told.identity
        outer.cancel_scope.cancel()


async def test_a_new_cluster_has_an_identity_of_its_own_each_time(tmp_path: Path) -> None:
    found = set()
    for directory in ("one", "two", "one"):
        async with coordinating(tmp_path / directory) as (server, nursery):
            follower = Follower(server.listener.address(), b"1" * 16)
            nursery.start_soon(follower.link.run)
            await follower.register("n")
            follower.link.propose([start(0, follower.sender)])
            assert follower.link.map is not None
            found.add(follower.link.map.identity)
            assert len(follower.link.map.identity) == 16
            assert wire.Subscribe(0, 0).identity == b""
    assert len(found) == 2
