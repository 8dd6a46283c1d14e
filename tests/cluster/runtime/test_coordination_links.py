"""The coordinator's server, links to it, and the map that a node serves: over real loopback sockets."""

import os
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from greenroom import wire
from greenroom.addresses import parse_address
from greenroom.cluster_map import ActorEntry, ClusterMap, NodeEntry
from greenroom.framing import encode_frames
from greenroom_cluster.coordination.genesis import ClusterOptions, first_map
from greenroom_cluster.coordination.messages import (
    NAME_TAKEN,
    Accepted,
    Decision,
    Proposal,
    RegisterActor,
    RegisterNode,
    Rejected,
)
from greenroom_cluster.coordination.storage import StorageFailedError
from greenroom_cluster.planning.controller import ControllerSettings
from greenroom_cluster.runtime.connection import OUTBOUND_BYTES_MAX, FramedConnection
from greenroom_cluster.runtime.coordinator import CoordinatorServer, CoordinatorServerSettings
from greenroom_cluster.runtime.coordinator_link import (
    CoordinatorLink,
    CoordinatorLinkSettings,
    CoordinatorUnreachableError,
)
from greenroom_cluster.runtime.dialing import dial
from greenroom_cluster.runtime.listener import ListenerSettings
from greenroom_cluster.runtime.map_server import MapServer
from greenroom_cluster.runtime.ports import free_port
from greenroom_cluster.runtime.tasks import open_tasks
from tests.cluster.runtime.loopback import (
    CLUSTER,
    SERVER,
    client_decoder,
    ended,
    hello,
    raw_connect,
    until,
)

pytestmark = pytest.mark.trio


def server_settings(directory: Path, port: int = 0, **changes: Any) -> CoordinatorServerSettings:
    return CoordinatorServerSettings(
        options=ClusterOptions(CLUSTER, shards=8),
        data_dir=str(directory),
        port=port,
        controller=ControllerSettings(settle_seconds=0.01, settle_seconds_max=0.05),
        **changes,
    )


@asynccontextmanager
async def coordinating(
    directory: Path, port: int = 0, **changes: Any
) -> AsyncIterator[tuple[CoordinatorServer, trio.Nursery]]:
    server = CoordinatorServer(server_settings(directory, port, **changes))
    async with open_tasks() as nursery:
        nursery.start_soon(server.run)
        yield server, nursery
        nursery.cancel_scope.cancel()


class Follower:
    """A link that remembers what it was told."""

    def __init__(self, address: str, sender: bytes) -> None:
        self.sender = sender
        self.maps: list[ClusterMap] = []
        self.decisions: list[Decision] = []
        self.events: list[str] = []
        self.link = CoordinatorLink(
            CoordinatorLinkSettings(address, CLUSTER, sender),
            on_map=self.take_map,
            on_decisions=self.take_decisions,
            on_up=lambda: self.events.append("up"),
        )

    def take_map(self, cluster_map: ClusterMap) -> None:
        self.maps.append(cluster_map)
        self.events.append("map")

    def take_decisions(self, decisions: tuple[Decision, ...]) -> None:
        self.decisions.extend(decisions)
        self.events.append("decisions")

    async def register(self, name: str) -> None:
        node = NodeEntry(name, "127.0.0.1:1", "up")
        actor = ActorEntry(self.sender, name, f"{name}/0", "127.0.0.1:2", "up", "host", os.getpid(), 1)
        assert isinstance(await self.link.call(lambda number: RegisterNode(number, node)), Accepted)
        assert isinstance(await self.link.call(lambda number: RegisterActor(number, actor)), Accepted)


def start(shard: int, sender: bytes) -> Proposal:
    return Proposal(shard, 0, os.urandom(16), "start", sender, ())


async def test_two_links_follow_the_map_and_see_it_before_their_decisions(tmp_path: Path) -> None:
    async with coordinating(tmp_path) as (server, nursery):
        one, two = (Follower(server.listener.address(), bytes([n]) * 16) for n in (1, 2))
        nursery.start_soon(one.link.run)
        nursery.start_soon(two.link.run)
        await one.register("one")
        await two.register("two")
        await until(lambda: all(f.link.map is not None and f.link.map.shards[0].wanted for f in (one, two)))
        mine = [
            shard
            for shard, entry in enumerate(one.link.map.shards)  # type: ignore[union-attr]
            if entry.wanted[0] == "one/0"
        ]
        assert mine
        one.link.propose(start(shard, one.sender) for shard in mine)
        await until(lambda: len(one.decisions) == len(mine))
        assert all(decision.applied for decision in one.decisions)
        assert one.events[:2] == ["map", "up"]
        assert one.events[-2:] == ["map", "decisions"]
        assert all(one.maps[-1].shards[shard].primary == one.sender for shard in mine)
        await until(lambda: two.maps[-1] == one.maps[-1] == server.map)
        assert all(later.newer_than(earlier) for earlier, later in zip(two.maps, two.maps[1:], strict=False))


async def test_proposals_of_one_tick_are_decided_as_one_change(tmp_path: Path) -> None:
    async with coordinating(tmp_path) as (server, nursery):
        one = Follower(server.listener.address(), b"1" * 16)
        nursery.start_soon(one.link.run)
        await one.register("one")
        await until(lambda: one.link.map is not None and all(e.wanted for e in one.link.map.shards))
        before = one.link.map
        assert before is not None
        for shard in range(8):
            one.link.propose([start(shard, one.sender)])
        await until(lambda: len(one.decisions) == 8)
        assert one.link.map is not None
        assert one.link.map.version == before.version + 1


async def test_links_survive_a_restart_of_the_coordinator_on_the_same_directory(tmp_path: Path) -> None:
    async with trio.open_nursery() as outer:
        async with coordinating(tmp_path) as (server, _):
            port = server.listener.port
            one = Follower(server.listener.address(), b"1" * 16)
            outer.start_soon(one.link.run)
            await one.register("one")
            await until(lambda: one.link.map == server.map)
            before = one.link.map
        await until(lambda: not one.link.up)
        assert before is not None
        one.link.propose([start(0, one.sender)])  # dropped: it is down
        async with coordinating(tmp_path, port) as (server, _):
            await until(lambda: one.events.count("up") == 2)
            assert server.map is not None
            assert not before.newer_than(server.map)
            await until(lambda: one.link.map is not None and bool(one.link.map.shards[0].wanted))
            one.link.propose([start(0, one.sender)])
            await until(lambda: len(one.decisions) == 1)
            assert one.link.map == server.map
        outer.cancel_scope.cancel()


async def test_call_is_sent_again_after_a_reconnection_and_gives_up_in_time(tmp_path: Path) -> None:
    async with trio.open_nursery() as outer:
        async with coordinating(tmp_path) as (server, _):
            port = server.listener.port
        one = Follower(f"127.0.0.1:{port}", b"1" * 16)
        outer.start_soon(one.link.run)
        node = NodeEntry("one", "127.0.0.1:1", "up")
        with pytest.raises(CoordinatorUnreachableError, match="--coordinator"):
            await one.link.call(lambda number: RegisterNode(number, node), 0.05)
        outer.start_soon(one.register, "one")
        await trio.testing.wait_all_tasks_blocked()
        async with coordinating(tmp_path, port) as (server, _):
            await until(lambda: server.map is not None and b"1" * 16 in server.map.actors)
        outer.cancel_scope.cancel()


async def test_node_without_heartbeats_goes_down_and_comes_back(tmp_path: Path) -> None:
    async with coordinating(tmp_path, node_down_seconds=0.1) as (server, nursery):
        one = Follower(server.listener.address(), b"1" * 16)
        nursery.start_soon(one.link.run)
        await one.register("one")

        def state() -> str:
            return one.link.map.nodes["one"].state  # type: ignore[union-attr]

        await until(lambda: state() == "down")
        with trio.fail_after(10):
            while state() != "up":
                one.link.heartbeat("one")
                await trio.lowlevel.checkpoint()


async def test_gap_in_the_changes_is_healed_by_asking_for_the_whole_map(tmp_path: Path) -> None:
    async with coordinating(tmp_path) as (server, nursery):
        one = Follower(server.listener.address(), b"1" * 16)
        nursery.start_soon(one.link.run)
        await one.register("one")
        await until(lambda: one.link.map is not None and bool(one.link.map.shards[0].wanted))
        known = one.link.map
        assert known is not None
        one.link._session.map = first_map(CLUSTER, 8, 2)  # as if changes had been missed
        one.link.propose([start(0, one.sender)])
        await until(lambda: one.link.map is not None and one.link.map.shards[0].primary == one.sender)
        assert one.link.map == server.map


async def test_coordinator_gone_back_in_time_is_not_followed(tmp_path: Path) -> None:
    async with trio.open_nursery() as outer:
        async with coordinating(tmp_path / "new") as (server, _):
            port = server.listener.port
            one = Follower(server.listener.address(), b"1" * 16)
            outer.start_soon(one.link.run)
            await one.register("one")
            await until(lambda: one.link.map is not None and bool(one.link.map.shards[0].wanted))
            await until(lambda: one.link.map == server.map)
        known = one.link.map
        async with coordinating(tmp_path / "emptied", port) as (server, _):
            await until(lambda: bool(server._service.coordinator.refusal))
            assert one.link.map == known
            assert one.events.count("up") == 1
        async with coordinating(tmp_path / "new", port):
            await until(lambda: one.events.count("up") == 2)
        outer.cancel_scope.cancel()


async def test_link_goes_on_from_a_host_that_accepts_nothing(tmp_path: Path) -> None:
    """Long before it would give up one that accepts and does not answer."""
    async with coordinating(tmp_path) as (server, nursery):
        with socket.create_server(("127.0.0.1", 0), backlog=0) as lost:
            address = f"127.0.0.1:{lost.getsockname()[1]}"
            waiting = [socket.socket() for _ in range(4)]  # more than it queues
            for each in waiting:
                each.setblocking(False)
                each.connect_ex(lost.getsockname())
            one = Follower(f"{address},{server.listener.address()}", b"1" * 16)
            nursery.start_soon(one.link.run)
            await until(lambda: one.link.up)
            assert one.link.failure == f"{address} cannot be reached: Connection timed out"
            for each in waiting:
                each.close()


async def test_link_goes_to_another_coordinator_that_answers(tmp_path: Path) -> None:
    """The former one stays as it is, as one does that hangs; whatever has two addresses is one."""
    async with coordinating(tmp_path / "one") as (former, nursery):
        other = f"127.0.0.1:{free_port()}"
        first, second = (Follower(f"{former.listener.address()},{other}", bytes([n]) * 16) for n in (1, 2))
        aliased = Follower(f"{former.listener.address()},localhost:{former.listener.port}", b"3" * 16)
        followers = (first, second, aliased)
        for follower in followers:
            nursery.start_soon(follower.link.run)
        await first.register("one")
        await until(lambda: all(follower.link.map == former.map for follower in followers))
        shutil.copytree(tmp_path / "one", tmp_path / "two")
        async with coordinating(tmp_path / "two", parse_address(other)[1]) as (later, _):
            await until(lambda: len(later._connections) == 2)
            await second.register("two")
            await until(lambda: first.link.map == second.link.map == later.map)
            assert len(former._connections) == 1
        assert aliased.events.count("up") == 1


async def test_requests_that_came_while_the_disk_was_busy_are_one_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with coordinating(tmp_path) as (server, nursery):
        busy, release, saved = trio.Event(), trio.Event(), []
        real = server.store.save

        async def slow_save(cluster_map: ClusterMap, *, vouched: bool) -> None:
            busy.set()
            await release.wait()
            saved.append(cluster_map)
            await real(cluster_map, vouched=vouched)

        monkeypatch.setattr(server.store, "save", slow_save)
        links = [Follower(server.listener.address(), bytes([n]) * 16) for n in range(1, 21)]
        registered = []

        async def register(follower: Follower) -> None:
            node = NodeEntry(f"n{follower.sender[0]}", "127.0.0.1:1", "up")
            await follower.link.call(lambda number: RegisterNode(number, node))
            registered.append(node.name)

        for follower in links:
            nursery.start_soon(follower.link.run)
        await until(lambda: all(follower.link.up for follower in links))
        nursery.start_soon(register, links[0])
        await busy.wait()
        for follower in links[1:]:
            nursery.start_soon(register, follower)
        await until(lambda: len(server._service._waiting) == 19)
        assert not registered
        assert all(follower.link.map.version == 1 for follower in links)  # type: ignore[union-attr]
        release.set()
        await until(lambda: len(registered) == 20)
        assert len(saved) == 2


async def test_failure_to_write_ends_the_coordinator_before_it_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered: list[object] = []

    async def full_disk(_: ClusterMap, *, vouched: bool) -> None:
        raise StorageFailedError("no room")

    async def scenario() -> None:
        async with coordinating(tmp_path) as (server, nursery):
            one = Follower(server.listener.address(), b"1" * 16)
            nursery.start_soon(one.link.run)
            await until(lambda: one.link.up)
            monkeypatch.setattr(server.store, "save", full_disk)
            node = NodeEntry("one", "127.0.0.1:1", "up")
            answered.append(await one.link.call(lambda number: RegisterNode(number, node)))

    with pytest.raises(StorageFailedError):
        await scenario()
    assert answered == []


@pytest.mark.parametrize("junk", [b"GET / HTTP/1.1\r\n\r\n", b"\xff\xff\xff\xff", os.urandom(64)])
async def test_hostile_bytes_do_not_reach_the_coordinator(tmp_path: Path, junk: bytes) -> None:
    async with coordinating(tmp_path) as (server, nursery):
        one = Follower(server.listener.address(), b"1" * 16)
        nursery.start_soon(one.link.run)
        await until(lambda: one.link.up)
        with raw_connect(server.listener) as sock:
            sock.sendall(junk)
            sock.shutdown(1)
            assert await ended(sock)
        await one.register("one")
        assert one.link.up
        assert one.events.count("up") == 1


# --- the map that a node serves ----------------------------------------------------------------------------


@asynccontextmanager
async def serving_map() -> AsyncIterator[tuple[MapServer, trio.Nursery]]:
    server = MapServer(ListenerSettings(CLUSTER, SERVER))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.run)
        yield server, nursery
        nursery.cancel_scope.cancel()


async def subscriber(server: MapServer, nursery: trio.Nursery) -> FramedConnection:
    connection, _ = await dial(server.listener.address(), hello(), nursery)
    connection.speak(client_decoder)
    connection.send([wire.Subscribe(0, 0)])
    return connection


def next_map(cluster_map: ClusterMap, name: str) -> ClusterMap:
    nodes = {**cluster_map.nodes, name: NodeEntry(name, "127.0.0.1:1", "up")}
    return ClusterMap(
        cluster_map.cluster,
        cluster_map.lineage,
        cluster_map.version + 1,
        cluster_map.replicas,
        nodes,
        cluster_map.actors,
        cluster_map.shards,
    )


async def test_a_client_sees_no_processes_and_a_server_does() -> None:
    """Neither in the map nor in its changes."""
    actor = ActorEntry(b"a" * 16, "one", "one/0", "127.0.0.1:2", "up", "host", 4711, 12)
    async with serving_map() as (server, nursery):
        first = first_map(CLUSTER, 2, 2)
        server.publish(first)
        seen = {}
        for role in (wire.ROLE_CLIENT, wire.ROLE_ADMIN):
            connection, _ = await dial(server.listener.address(), hello(role), nursery)
            connection.speak(client_decoder)
            connection.send([wire.Subscribe(0, 0)])
            assert await connection.receive() == [wire.MapFull(first)]
            seen[role] = connection
        server.publish(msgspec.structs.replace(next_map(first, "one"), actors={actor.incarnation: actor}))
        (shown,) = await seen[wire.ROLE_CLIENT].receive()
        assert shown.delta.actors == (msgspec.structs.replace(actor, host="", pid=0, started_ticks=0),)
        (shown,) = await seen[wire.ROLE_ADMIN].receive()
        assert shown.delta.actors == (actor,)
        for connection in seen.values():
            connection.close()


async def test_map_asked_for_again_and_again_in_one_read_is_sent_once_a_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A flood of tiny requests takes turns with everything else that the process does."""
    turns = 0
    answers: list[int] = []

    class Count(trio.abc.Instrument):
        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            nonlocal turns
            turns += 1

    async with serving_map() as (server, nursery):
        server.publish(first_map(CLUSTER, 8, 2))
        subscribe = server._publisher.subscribe
        taken: list[int] = []
        receive = FramedConnection.receive

        async def counting_receive(connection: FramedConnection) -> list[Any]:
            messages = await receive(connection)
            if isinstance(messages[0], wire.Subscribe):
                taken.append(len(messages))
            return messages

        def counting_subscribe(number: int, connection: FramedConnection, *, whole: bool) -> None:
            answers.append(turns)
            subscribe(number, connection, whole=whole)

        monkeypatch.setattr(server._publisher, "subscribe", counting_subscribe)
        monkeypatch.setattr(FramedConnection, "receive", counting_receive)
        flood = 5000
        trio.lowlevel.add_instrument(Count())
        with raw_connect(server.listener) as sock:
            sock.sendall(bytes(encode_frames([hello(), *[wire.Subscribe(0, 0)] * flood])))
            await until(lambda: sum(taken) == flood)
            assert max(taken) <= 1024
            assert len(answers) == len(taken) < flood / 100
            assert len(set(answers)) == len(answers), "the map was sent twice in one turn"
            # One that asked once meanwhile is answered too.
            other = await subscriber(server, nursery)
            with trio.fail_after(10):
                assert isinstance((await receive(other))[0], wire.MapFull)


async def test_one_that_does_not_read_the_map_is_asked_no_more() -> None:
    async with serving_map() as (server, _nursery):
        cluster_map = first_map(CLUSTER, 4096, 2)
        server.publish(cluster_map)
        peak = 0
        with raw_connect(server.listener) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            # Each request on its own, else they gather until those before are acknowledged.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.sendall(bytes(encode_frames([hello()])))
            request = bytes(encode_frames([wire.Subscribe(0, 0)]))
            await until(lambda: bool(server.listener._open))
            (connection,) = server.listener._open
            for _ in range(3000):
                with suppress(BlockingIOError):
                    sock.send(request)
                for _ in range(3):
                    await trio.lowlevel.checkpoint()
                peak = max(peak, connection.outbound_bytes)
            assert connection.crowded
            assert not connection.ended
            assert peak <= OUTBOUND_BYTES_MAX // 2


async def test_subscribers_get_the_whole_map_and_then_its_changes() -> None:
    async with serving_map() as (server, nursery):
        early = await subscriber(server, nursery)
        await until(lambda: server._publisher.subscribers == 1)
        first = first_map(CLUSTER, 8, 2)
        server.publish(first)
        assert await early.receive() == [wire.MapFull(first)]
        late = await subscriber(server, nursery)
        assert await late.receive() == [wire.MapFull(first)]
        second = next_map(first, "n1")
        server.publish(second)
        server.publish(second)  # the same again is no news
        server.publish(first)  # nor is an older one
        third = next_map(second, "n2")
        server.publish(third)
        for connection in (early, late):
            changes: list[Any] = []
            while len(changes) < 2:
                changes.extend(await connection.receive())
            assert first.apply(changes[0].delta).apply(changes[1].delta) == third


async def test_new_lineage_is_published_whole() -> None:
    async with serving_map() as (server, nursery):
        first = first_map(CLUSTER, 8, 2)
        server.publish(first)
        connection = await subscriber(server, nursery)
        assert await connection.receive() == [wire.MapFull(first)]
        other = ClusterMap(CLUSTER, 2, 1, 2, {}, {}, first.shards)
        server.publish(other)
        assert await connection.receive() == [wire.MapFull(other)]


async def test_node_serves_nothing_but_the_map() -> None:
    async with serving_map() as (server, nursery):
        server.publish(first_map(CLUSTER, 8, 2))
        good = await subscriber(server, nursery)
        assert len(await good.receive()) == 1
        bad, _ = await dial(server.listener.address(), hello(), nursery)
        bad.send([wire.Get(1, 0, b"d" * 32)])
        await until(lambda: server.listener.connections == 1)
        server.publish(next_map(first_map(CLUSTER, 8, 2), "n1"))
        assert len(await good.receive()) == 1


# --- who is who --------------------------------------------------------------------------------------------


async def test_a_name_is_refused_while_its_owner_is_connected(
    tmp_path: Path,
) -> None:
    """It is free afterwards."""
    async with coordinating(tmp_path) as (server, nursery):
        one, two = (Follower(server.listener.address(), bytes([n]) * 16) for n in (1, 2))
        async with trio.open_nursery() as owner:
            owner.start_soon(one.link.run)
            await one.register("n")
            nursery.start_soon(two.link.run)
            elsewhere = NodeEntry("n", "127.0.0.1:9", "up")
            refused = await two.link.call(lambda number: RegisterNode(number, elsewhere))
            assert isinstance(refused, Rejected)
            assert refused.code == NAME_TAKEN
            owner.cancel_scope.cancel()
        began = trio.current_time()
        while not isinstance(await two.link.call(lambda number: RegisterNode(number, elsewhere)), Accepted):
            await trio.lowlevel.checkpoint()
        assert trio.current_time() - began < 1


async def refusal(address: str, cluster: str = CLUSTER) -> str:
    """What a link to this address is refused with."""
    reasons: list[str] = []
    link = CoordinatorLink(CoordinatorLinkSettings(address, cluster, b"1" * 16), on_refused=reasons.append)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.run)
        await until(lambda: bool(reasons))
        nursery.cancel_scope.cancel()
    assert address in link.failure
    return reasons[0]


async def test_what_no_repeating_changes_is_told_with_the_option_to_change(tmp_path: Path) -> None:
    async with coordinating(tmp_path) as (coordinator, _), serving_map() as (node, _):
        assert "--cluster" in await refusal(coordinator.listener.address(), "another")
        answer = await refusal(node.listener.address())
    assert "not the coordinator" in answer
    assert "--coordinator" in answer
