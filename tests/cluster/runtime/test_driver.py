"""The driver and the links to peers, with a scripted core."""

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs

from greenroom import wire
from greenroom.deadlines import NEVER_NS
from greenroom.errors import InvariantError
from greenroom.framing import messages_decoder
from greenroom_cluster.disk.journal import DiskFailedError
from greenroom_cluster.links.outbox import DiskEffect
from greenroom_cluster.links.sync_news import SyncNews
from greenroom_cluster.runtime.actor import Actor, ActorSettings
from greenroom_cluster.runtime.clocks import now_ns
from greenroom_cluster.runtime.connection import FramedConnection
from greenroom_cluster.runtime.delivery import MESSAGES_PER_CALL_MAX
from greenroom_cluster.runtime.dialing import dial
from greenroom_cluster.runtime.disk_writer import EXIT_DISK_FAILED
from greenroom_cluster.runtime.driver import Driver
from greenroom_cluster.runtime.reading import ConnectionEndedError
from greenroom_cluster.shard.disk_log import DiskStalledError
from greenroom_cluster.shard.effects import (
    Connect,
    Disconnect,
    Ignored,
    MemoryFull,
    Persist,
    ReplyToClient,
    ReplyToPeer,
    Send,
)
from greenroom_cluster.shard.inputs import (
    ClientRequests,
    ConnectionClosed,
    LinkDown,
    LinkUp,
    PeerMessages,
    Synced,
    Tick,
)
from greenroom_cluster.shard.messages import (
    Beacon,
    BeaconOk,
    PeerReply,
    Prepare,
    PrepareOk,
    SnapshotChunk,
    SnapshotOk,
)
from greenroom_cluster.suspect_records import EXIT_CORE_FAILED, has_crashed
from tests.cluster.runtime.loopback import CLIENT, CLUSTER, client_decoder, get, hello, until

pytestmark = pytest.mark.trio

peer_decoder: Any = messages_decoder(PeerReply)


class ScriptedWriter:
    """Has what it is given written at once, or fails."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.news = SyncNews()
        self.positions: list[int] = []
        self._failure = failure

    def write(self, effects: list[DiskEffect]) -> None:
        if self._failure is not None:
            raise self._failure
        self.positions += [effect.position for effect in effects if isinstance(effect, Persist)]


class ScriptedCore:
    """Answers each request, acknowledges what peers send, and does what `then` says."""

    def __init__(self) -> None:
        self.inputs: list[Any] = []
        self.deadline = NEVER_NS
        self.spending: list[int] = []
        self.then: Callable[[Any], list[Any]] = lambda _: []
        self.heard: list[Any] = []
        self.awaits_disk = False

    def hear(self, synced: Any) -> None:
        self.heard.append((synced, len(self.inputs)))

    def step(self, now: int, wall: int, event: Any) -> list[Any]:
        self.inputs.append(event)
        effects = self.then(event)
        if isinstance(event, ClientRequests):
            effects += [ReplyToClient(event.connection, wire.Missing(r.request_id)) for r in event.requests]
        elif isinstance(event, PeerMessages):
            for message in event.messages:
                if isinstance(message, Prepare):
                    effects.append(ReplyToPeer(event.peer, PrepareOk(message.batch)))
                elif isinstance(message, Beacon):
                    effects.append(ReplyToPeer(event.peer, BeaconOk(message.sent_ns, 0)))
                elif isinstance(message, SnapshotChunk):
                    effects.append(ReplyToPeer(event.peer, SnapshotOk(0, 1, 1, message.number)))
        return effects

    def next_deadline(self) -> int:
        return self.deadline

    def clock_us(self, now: int, wall: int) -> int:
        return wall

    def spent(self, now: int, spent: int) -> list[str]:
        self.spending.append(spent)
        return ["somebody"]

    def seen(self, kind: type) -> list[Any]:
        return [event for event in self.inputs if isinstance(event, kind)]


def chunk(number: int, size: int = 0) -> SnapshotChunk:
    return SnapshotChunk(0, 1, 1, 1, 1, number, False, (), (), ()) if not size else _large_chunk(number, size)


def _large_chunk(number: int, size: int) -> SnapshotChunk:
    from greenroom_cluster.shard.state.records import StoredSession

    stored = StoredSession(b"d" * 32, wire.SessionState(1, 1, 1, None, None, "", 0, bytes(size)))
    return SnapshotChunk(0, 1, 1, 1, 1, number, False, (stored,), (), ())


def new_actor(core: ScriptedCore, incarnation: bytes, port: int = 0, leave: Any = None) -> Actor:
    settings = ActorSettings(
        incarnation=incarnation,
        slot="a/0",
        cluster=CLUSTER,
        coordinator="127.0.0.1:9",  # nobody: the links to it are tested elsewhere
        port=port,
    )
    return Actor(settings, core, leave or _unexpected)


def _unexpected(status: int) -> None:
    raise AssertionError(f"the process would have ended with {status}")


@asynccontextmanager
async def acting(
    incarnation: bytes = b"A" * 16, port: int = 0, leave: Any = None
) -> AsyncIterator[tuple[Actor, ScriptedCore, trio.Nursery]]:
    core = ScriptedCore()
    actor = new_actor(core, incarnation, port, leave)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(actor.run)
        await until(lambda: actor.driver._links is not None)
        yield actor, core, nursery
        core.then = lambda _: []
        nursery.cancel_scope.cancel()


async def connect(
    actor: Actor, nursery: trio.Nursery, role: str = "client", **fields: Any
) -> FramedConnection:
    connection, _ = await dial(actor.listener.address(), hello(role, **fields), nursery)
    connection.speak(client_decoder if role == "client" else peer_decoder, 4 << 20)
    return connection


async def test_one_read_is_one_step_and_one_answer() -> None:
    async with acting() as (actor, core, nursery):
        client = await connect(actor, nursery)
        client.send([get(number) for number in range(50)])
        replies = await client.receive()
        assert [reply.request_id for reply in replies] == list(range(50))
        (step,) = core.seen(ClientRequests)
        assert step.client == CLIENT
        client.close()
        await until(lambda: core.seen(ConnectionClosed) == [ConnectionClosed(step.connection)])


async def test_reply_to_a_connection_that_is_gone_is_dropped() -> None:
    async with acting() as (actor, core, nursery):
        client = await connect(actor, nursery)
        core.then = lambda _: [ReplyToClient(999, wire.Missing(1)), Ignored("Get", "shard 17 is elsewhere")]
        client.send([get(1)])
        assert await client.receive() == [wire.Missing(1)]


async def test_a_slow_reader_of_large_answers_gets_them_all() -> None:
    """The actor reads no more from it meanwhile."""
    async with acting() as (actor, core, nursery):
        client = await connect(actor, nursery)
        large = wire.Session(0, wire.SessionState(1, 1, 1, None, None, "", 0, bytes(1 << 20)))
        core.then = lambda event: (
            [ReplyToClient(event.connection, large) for _ in event.requests]
            if isinstance(event, ClientRequests)
            else []
        )
        client.send([get(number) for number in range(60)])
        await until(lambda: len(core.seen(ClientRequests)) == 1)
        client.send([get(number) for number in range(60, 70)])
        await trio.testing.wait_all_tasks_blocked()
        assert len(core.seen(ClientRequests)) == 1
        received = 0
        with trio.fail_after(20):
            while received < 140:
                received += len(await client.receive())
        assert len(core.seen(ClientRequests)) == 2


async def test_many_requests_in_one_read_are_stepped_in_parts_and_in_order() -> None:
    async with acting() as (actor, core, nursery):
        client = await connect(actor, nursery)
        client.send([get(number) for number in range(5000)])
        replies: list[int] = []
        while len(replies) < 5000:
            replies += [reply.request_id for reply in await client.receive()]
        assert replies == list(range(5000))
        assert max(len(event.requests) for event in core.seen(ClientRequests)) <= MESSAGES_PER_CALL_MAX


async def test_answers_go_where_the_peer_asked() -> None:
    async with acting() as (actor, _core, nursery):
        main, bulk = [
            await connect(actor, nursery, "peer", sender=b"P" * 16, target=b"A" * 16) for _ in range(2)
        ]
        bulk.send([chunk(0)])
        assert await bulk.receive() == [SnapshotOk(0, 1, 1, 0)]
        main.send([Prepare(1, ()), Beacon(5, 0)])
        assert await main.receive() == [PrepareOk(1), BeaconOk(5, 0)]
        bulk.send([chunk(1)])
        assert await bulk.receive() == [SnapshotOk(0, 1, 1, 1)]


async def test_newer_connection_of_a_peer_ends_the_one_before() -> None:
    async with acting() as (actor, core, nursery):
        old = await connect(actor, nursery, "peer", sender=b"P" * 16, target=b"A" * 16)
        old.send([Prepare(1, ())])
        assert await old.receive() == [PrepareOk(1)]
        new = await connect(actor, nursery, "peer", sender=b"P" * 16, target=b"A" * 16)
        new.send([Prepare(2, ())])
        assert await new.receive() == [PrepareOk(2)]
        with pytest.raises(ConnectionEndedError):
            await old.receive()
        new.send([Prepare(3, ())])
        assert await new.receive() == [PrepareOk(3)]
        assert len(core.seen(PeerMessages)) == 3


async def test_tick_comes_at_the_deadline_and_when_a_step_moves_it_closer() -> None:
    async with acting() as (actor, core, nursery):
        client = await connect(actor, nursery)
        ticked: list[int] = []

        def once(event: Any) -> list[Any]:
            if isinstance(event, Tick):
                ticked.append(now_ns())
                core.deadline = NEVER_NS
            elif isinstance(event, ClientRequests):
                core.deadline = now_ns() + 20_000_000
            return []

        core.then = once
        await trio.testing.wait_all_tasks_blocked()
        assert ticked == []
        for number in range(1, 4):
            client.send([get(number)])
            await client.receive()
            due = core.deadline
            await until(lambda number=number: len(ticked) == number)  # type: ignore[misc]
            assert ticked[-1] >= due


async def test_core_that_fails_ends_the_process_without_another_word() -> None:
    statuses: list[int] = []
    async with acting(leave=statuses.append) as (actor, core, nursery):
        client = await connect(actor, nursery)

        def fail(event: Any) -> list[Any]:
            raise InvariantError("two and two are five")

        core.then = fail
        client.send([get(1)])
        await until(lambda: statuses == [EXIT_CORE_FAILED])
        core.then = lambda _: []
        steps = len(core.inputs)
        client.send([get(2)])
        client.close()
        await until(lambda: actor.listener.connections == 0)
        assert len(core.inputs) == steps


async def test_a_disk_that_stalls_ends_the_process_and_blames_no_record() -> None:
    statuses: list[int] = []
    async with acting(leave=statuses.append) as (actor, core, nursery):
        client = await connect(actor, nursery)
        actor.driver.keep_with(ScriptedWriter(), Path("/the/disk"))

        def fail(event: Any) -> list[Any]:
            raise DiskStalledError("shard 3: it stalls")

        core.then = fail
        with capture_logs() as logs:
            client.send([get(1)])
            await until(lambda: statuses == [EXIT_DISK_FAILED])
    [told] = (line for line in logs if line["log_level"] == "critical")
    assert (told["event"], told["directory"]) == ("disk_failed", "/the/disk")
    assert told["reason"] == "shard 3: it stalls"
    assert not has_crashed(EXIT_DISK_FAILED)


async def test_what_follows_a_write_is_said_once_it_is_written() -> None:
    async with acting() as (actor, core, nursery):
        client = await connect(actor, nursery)
        core.then = lambda event: [
            ReplyToClient(event.connection, wire.Missing(8)),
            Persist(1, ()),
            ReplyToClient(event.connection, wire.Missing(9)),
        ]
        said: list[list[Any]] = []

        class Line:
            def send(self, messages: list[Any]) -> None:
                said.append(messages)

        writer = ScriptedWriter()
        write = writer.write

        def noted(effects: list[DiskEffect]) -> None:
            said.append(effects)
            write(effects)

        writer.write = noted  # type: ignore[method-assign]
        actor.driver.keep_with(writer, Path())
        actor.driver.add_client(9, Line())
        actor.driver.step(ClientRequests(9, b"c" * 16, [get(1)]))
        assert said == [[wire.Missing(8)], [Persist(1, ())], [wire.Missing(9), wire.Missing(1)]]
        core.then = lambda _: []
        client.send([get(2)])
        assert await client.receive() == [wire.Missing(2)]


async def test_a_sync_is_taken_in_with_the_next_step_unless_it_is_awaited() -> None:
    async with acting() as (actor, core, _nursery):
        writer = ScriptedWriter()
        actor.driver.keep_with(writer, Path())
        core.inputs.clear()
        first, second, third = (Synced(number, number, 0) for number in (1, 2, 3))
        assert not writer.news.put(first)
        actor.driver.step(Tick())
        assert core.heard == [(first, 0)]
        core.awaits_disk = True
        actor.driver.step(Tick())
        assert writer.news.put(second)
        actor.driver.take_report(second)
        actor.driver.take_report(second)  # of which the news were taken
        assert core.inputs == [Tick(), Tick(), second]

        def sync(event: Any) -> list[Any]:
            if isinstance(event, Tick):
                writer.news.put(third)
            return []

        core.then = sync
        actor.driver.step(Tick())
        assert core.inputs[3:] == [Tick(), third], "it came while the step was taken"
        assert len(core.heard) == 1


async def test_nothing_is_said_after_a_write_that_failed() -> None:
    """What was said before it does not depend on it."""
    statuses: list[int] = []
    async with acting(leave=statuses.append) as (actor, core, nursery):
        client = await connect(actor, nursery)
        writer = ScriptedWriter(DiskFailedError("writing failed"))
        actor.driver.keep_with(writer, Path("/the/disk"))

        def keep(event: Any) -> list[Any]:
            if not isinstance(event, ClientRequests):
                return []
            return [ReplyToClient(event.connection, wire.Missing(9)), Persist(1, ())]

        core.then = keep
        with capture_logs() as logs:
            client.send([get(1)])
            await until(lambda: statuses == [EXIT_DISK_FAILED])
        assert await client.receive() == [wire.Missing(9)], "and not what follows the write"
        steps = len(core.inputs)
        client.send([get(2)])
        client.end_sending()
        with pytest.raises(ConnectionEndedError):
            await client.receive()
        assert len(core.inputs) == steps
    [told] = (line for line in logs if line["log_level"] == "critical")
    assert (told["event"], told["reason"]) == ("disk_failed", "writing failed")


async def test_core_that_cannot_tell_its_deadline_ends_the_process() -> None:
    statuses: list[int] = []
    async with acting(leave=statuses.append) as (actor, core, nursery):
        client = await connect(actor, nursery)

        def fail_once() -> int:
            core.next_deadline = lambda: NEVER_NS  # type: ignore[method-assign]
            raise InvariantError("two and two are five")

        def fail_later(_event: Any) -> list[Any]:
            core.next_deadline = fail_once  # type: ignore[method-assign]
            return []

        core.then = fail_later
        client.send([get(1)])
        await until(lambda: statuses == [EXIT_CORE_FAILED])


async def test_link_carries_messages_both_ways_and_comes_back_after_a_restart() -> None:
    async with acting(b"A" * 16) as (one, core, _nursery):
        async with acting(b"B" * 16) as (two, other, _):
            port = two.listener.port
            address = two.listener.address()
            one.driver._perform([Connect(b"B" * 16, address, False), Connect(b"B" * 16, address, True)])
            await until(lambda: len(core.seen(LinkUp)) == 2)
            one.driver._perform([Send(b"B" * 16, Prepare(1, ())), Send(b"B" * 16, chunk(0), True)])
            await until(lambda: len(core.seen(PeerMessages)) == 2)
            assert {type(event.messages[0]) for event in core.seen(PeerMessages)} == {PrepareOk, SnapshotOk}
            assert all(event.peer == b"A" * 16 for event in other.seen(PeerMessages))
        await until(lambda: len(core.seen(LinkDown)) == 2)
        one.driver._perform([Send(b"B" * 16, Prepare(2, ()))])  # dropped
        async with acting(b"C" * 16, port) as (_, other, _):
            # A successor on the same port is not the peer.
            assert not one.driver._outbox.sort([Send(b"B" * 16, Prepare(2, ()))])[1]
        async with acting(b"B" * 16, port) as (_, other, _):
            await until(lambda: len(core.seen(LinkUp)) == 4)
            assert not other.seen(PeerMessages)
            one.driver._perform([Disconnect(b"B" * 16, True), Disconnect(b"B" * 16, False)])
            await until(lambda: two.listener.connections == 0)
            assert len(core.seen(LinkDown)) == 2


async def test_a_link_whose_peer_does_not_read_is_dropped_at_its_bound() -> None:
    """It is then opened again."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        address = f"127.0.0.1:{server.getsockname()[1]}"
        async with acting(b"A" * 16) as (one, core, _):
            one.driver._perform([Connect(b"B" * 16, address, True)])
            for attempt in range(1, 3):
                sock = await _accept_and_greet(server)
                await until(lambda attempt=attempt: len(core.seen(LinkUp)) == attempt)  # type: ignore[misc]
                number = 0
                while len(core.seen(LinkDown)) < attempt:
                    one.driver._perform([Send(b"B" * 16, chunk(number, 1 << 20), True)])
                    number += 1
                    await trio.lowlevel.checkpoint()
                assert number < 64
                sock.close()
            one.driver._perform([Disconnect(b"B" * 16, True)])


async def _accept_and_greet(server: socket.socket) -> socket.socket:
    from greenroom.framing import encode_frames

    await trio.lowlevel.wait_readable(server.fileno())
    sock, _ = server.accept()
    sock.sendall(bytes(encode_frames([hello("peer", sender=b"B" * 16)])))
    return sock


async def test_refused_growth_is_a_warning_that_names_the_actor() -> None:
    core = ScriptedCore()
    core.then = lambda _: [MemoryFull("n1/0")]
    with capture_logs() as logs:
        Driver(core).step(Tick())
    [log] = logs
    assert (log["event"], log["log_level"], log["slot"]) == ("memory_full", "warning", "n1/0")
    assert "--memory-max" in log["hint"]
