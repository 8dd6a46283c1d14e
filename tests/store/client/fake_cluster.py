"""A cluster that speaks the wire over real loopback sockets, in one thread, with one table for each shard.

Every actor sees the same tables, as if replication took no time, so what a test moves or kills is only who
answers. It keeps the results of mutations by client and request id, as shards do. `log` records what arrived.
"""

import asyncio
import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any, Self

import msgspec

from greenroom import wire
from greenroom.addresses import join_address
from greenroom.cluster_map import ActorEntry, ClusterMap, NodeEntry, ShardEntry, delta_between
from greenroom.ending_messages import WatchRequest
from greenroom.errors import RemoteProtocolError
from greenroom.framing import FrameBuffer, encode_frames, encode_greeting, messages_decoder
from greenroom.ids import POINT_BITS
from greenroom.loopback_secrets import LoopbackSecrets
from greenroom.near_messages import GetNear, Held, NearBeacon, NearLease, NearRequest
from greenroom.proofs import NONCE_BYTES, Challenge, Proof, asks
from greenroom.table import StateTable
from tests.store.client.fake_watches import FakeWatches

LOOK_SECONDS = 0.1
_decode_proof = msgspec.msgpack.Decoder(Proof).decode
_decode_greeting = msgspec.msgpack.Decoder(wire.Hello).decode
_decode_messages = messages_decoder(wire.ClientMessage | NearRequest | WatchRequest).decode
FAR_US = 3600 * 1_000_000


class FakeState:
    """The sessions of every shard, and the answers that were given."""

    def __init__(self, shards: int) -> None:
        self.tables = [StateTable() for _ in range(shards)]
        self.results: dict[tuple[bytes, int, int], Any] = {}
        self.applied: list[tuple[bytes, int]] = []
        self._versions = count(1)
        self.watches = FakeWatches(lambda point: self.tables[self.shard_of(point)])

    @property
    def sessions(self) -> dict[bytes, wire.SessionState]:
        return {digest: state for table in self.tables for digest, state in table.sessions.items()}

    def shard_of(self, point: int) -> int:
        return point * len(self.tables) >> POINT_BITS

    def answer(self, client: bytes, request: Any) -> Any:
        """Answer a request whose shards, if it names any, are all served here."""
        time_us = time.time_ns() // 1000
        if isinstance(request, wire.Get):
            state = self.tables[self.shard_of(request.point)].live(request.digest, time_us)
            return (
                wire.Missing(request.request_id) if state is None else wire.Session(request.request_id, state)
            )
        if isinstance(request, wire.ListByUser):
            return self._listing(request, time_us)
        if isinstance(request, wire.Fanout):
            answers = [self._once(client, request, shard, time_us) for shard in request.shards]
            counts = (sum(count for _, count in answer.counts) for answer in answers)
            return wire.Counted(request.request_id, tuple(zip(request.shards, counts, strict=True)))
        return self._once(client, request, self.shard_of(request.point), time_us)

    def _once(self, client: bytes, request: Any, shard: int, time_us: int) -> Any:
        key = (client, request.request_id, shard)
        if key not in self.results:
            self.applied.append((client, request.request_id))
            table = self.tables[shard]
            decide = partial(table.deciders()[type(request)], request, time_us, next(self._versions))
            self.results[key] = self.watches.deciding(table, request, decide)
        return self.results[key]

    def _listing(self, request: wire.ListByUser, time_us: int) -> wire.Listing:
        found: list[wire.SessionHandle] = []
        for shard in request.shards:
            found += self.tables[shard].newest_of(request.user_id, request.limit, time_us)[0]
        return wire.Listing(request.request_id, request.shards, tuple(found))


@dataclass
class FakeActor:
    """One actor. `behave` may answer a request: a message, raw bytes, None for silence, ... as usual."""

    name: str
    incarnation: bytes = field(default_factory=lambda: os.urandom(16))
    address: str = ""
    server: asyncio.Server | None = None
    connections: "set[_Connection]" = field(default_factory=set)
    behave: Callable[[Any], Any] = lambda request: ...
    accepted: int = 0


class _Connection(asyncio.Protocol):
    def __init__(self, cluster: "FakeCluster", actor: FakeActor | None) -> None:
        self.cluster, self.actor = cluster, actor
        self.frames = FrameBuffer()
        self.client = b""
        self.awaited: tuple[Challenge, wire.Hello, wire.Hello] | None = None
        self.peers = cluster.subscribers if actor is None else actor.connections
        self.subscribed = False
        self.out: bytearray | None = None  # what answers a read, while that is taken in

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.peers.add(self)
        if self.actor is not None:
            self.actor.accepted += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self.peers.discard(self)

    def send(self, *messages: Any) -> None:
        """Send this behind all that was said before."""
        frames = encode_frames(messages, 16 << 20)
        if self.out is None:
            self.transport.write(bytes(frames))
        else:
            self.out += frames

    def data_received(self, data: bytes) -> None:
        out = self.out = bytearray()
        try:
            payloads = self.frames.feed(data)
            for payload in payloads:
                if self.awaited is not None:
                    self.take_proof(payload)
                    continue
                messages = _decode_messages(payload) if self.client else [_decode_greeting(payload)]
                for message in messages:
                    answer = self.take(message)
                    if isinstance(answer, bytes):
                        out += answer
                    elif answer is not None:
                        out += encode_frames([answer], 16 << 20)
        except (RemoteProtocolError, msgspec.MsgspecError):
            self.transport.abort()
            return
        finally:
            self.out = None
        if out:
            self.transport.write(bytes(out))

    def take(self, message: Any) -> Any:
        if isinstance(message, wire.Hello):
            return self.greet(message)
        if isinstance(message, wire.Subscribe):
            self.subscribed = True
            return wire.MapFull(self.cluster.map)
        if self.actor is None:
            return wire.Goodbye("wrong-place", "ask an actor")
        answer = self.cluster.state.watches.take(self, message, self.cluster.map.version)
        return self.cluster.serve(self.actor, self.client, message) if answer is ... else answer

    def greet(self, hello: wire.Hello) -> Any:
        self.client = hello.sender
        mine = self.actor.incarnation if self.actor is not None else self.cluster.node_id
        if hello.cluster != self.cluster.map.cluster:
            self.transport.write(encode_greeting(wire.Goodbye("wrong-cluster", "check the name")))
            self.transport.close()
            return None
        if hello.target and hello.target != mine:
            self.transport.write(encode_greeting(wire.Goodbye("wrong-target", "follow the map")))
            self.transport.close()
            return None
        name, clock_us = self.cluster.map.cluster, time.time_ns() // 1000
        features = (wire.FEATURE_ENDINGS, *((wire.FEATURE_NEAR,) if self.cluster.holds else ()))
        answer = wire.Hello(
            wire.PROTOCOL_VERSION, 1, name, "actor", mine, clock_us=clock_us, features=features
        )
        host, port = self.transport.get_extra_info("sockname")[:2]
        known = LoopbackSecrets(name, required=False)
        challenge = known.challenge_at(host, join_address(host, port), os.urandom(NONCE_BYTES))
        if challenge is not None and asks(hello):
            answer = challenge.answering(hello, answer)
            self.awaited = (challenge, hello, answer)
        return answer

    def take_proof(self, payload: bytes) -> None:
        assert self.awaited is not None
        challenge, hello, answer = self.awaited
        self.awaited = None
        if not challenge.accepts(hello, answer, _decode_proof(payload)):
            raise RemoteProtocolError("it has proven nothing")


class FakeCluster:
    """Use as a context manager; the methods may be called from any other thread.

    With `holds` its actors offer to hold sessions for near caches, and tell nobody when they change.
    """

    def __init__(
        self, actors: int = 2, shards: int = 8, cluster: str = "greenroom", *, holds: bool = False
    ) -> None:
        self.state = FakeState(shards)
        self.node_id = os.urandom(16)
        self.subscribers: set[_Connection] = set()
        self.actors = [FakeActor(f"n/{index}") for index in range(actors)]
        self.log: list[tuple[str, Any]] = []
        self.keep_log = False
        self.shards = shards
        self.cluster = cluster
        self.holds = holds
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self.call(self._start)
        return self

    def __exit__(self, *_: object) -> None:
        self.call(self._stop)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run something in the cluster's thread and return its result."""
        done: Future[Any] = Future()

        def run() -> None:
            try:
                outcome = function(*arguments)
            except BaseException as error:  # noqa: BLE001
                done.set_exception(error)
                return
            if asyncio.iscoroutine(outcome):
                task = self._loop.create_task(outcome)
                task.add_done_callback(
                    lambda t: (
                        done.set_exception(t.exception()) if t.exception() else done.set_result(t.result())
                    )
                )
            else:
                done.set_result(outcome)

        self._loop.call_soon_threadsafe(run)
        return done.result(20)

    async def _listen(self, actor: FakeActor | None) -> tuple[asyncio.Server, str]:
        server = await self._loop.create_server(lambda: _Connection(self, actor), "127.0.0.1", 0)
        return server, f"127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def _start(self) -> None:
        self._node_server, self.address = await self._listen(None)
        for actor in self.actors:
            actor.server, actor.address = await self._listen(actor)
        self.map = ClusterMap(
            self.cluster,
            1,
            1,
            2,
            {"n": NodeEntry("n", self.address, "up")},
            {a.incarnation: self._entry(a) for a in self.actors},
            tuple(
                ShardEntry(1, self.actors[i % len(self.actors)].incarnation, (), b"", ())
                for i in range(self.shards)
            ),
        )
        self._look()

    def _entry(self, actor: FakeActor) -> ActorEntry:
        return ActorEntry(actor.incarnation, "n", actor.name, actor.address, "up", "host", 1, 1)

    def _look(self) -> None:
        self.state.watches.look()
        self._looking = self._loop.call_later(LOOK_SECONDS, self._look)

    async def _stop(self) -> None:
        self._looking.cancel()
        self._node_server.close()
        for actor in self.actors:
            if actor.server is not None:
                actor.server.close()
        for connection in [*self.subscribers, *(c for a in self.actors for c in a.connections)]:
            connection.transport.abort()
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    # --- serving -----------------------------------------------------------------------------------------

    def serve(self, actor: FakeActor, client: bytes, request: Any) -> Any:
        if self.keep_log:
            self.log.append((actor.name, request))
        answer = actor.behave(request)
        if answer is not ...:
            return answer
        if isinstance(request, wire.Fanout):
            mine = tuple(s for s in request.shards if self.map.shards[s].primary == actor.incarnation)
            return self.state.answer(client, msgspec.structs.replace(request, shards=mine))
        if isinstance(request, NearBeacon):
            return NearLease(request.sent_ns, FAR_US)
        if self.map.shards[self.state.shard_of(request.point)].primary != actor.incarnation:
            return wire.Redirect(request.request_id, self.map.version)
        if isinstance(request, GetNear):
            number = request.request_id
            found = self.state.answer(client, wire.Get(number, request.point, request.digest))
            return Held(number, found.state, FAR_US) if isinstance(found, wire.Session) else found
        return self.state.answer(client, request)

    # --- what tests do to it -----------------------------------------------------------------------------

    @contextlib.contextmanager
    def stalled(self) -> Iterator[None]:
        """Have the cluster do nothing meanwhile; what is sent to it is read at once afterwards."""
        go_on = threading.Event()
        self._loop.call_soon_threadsafe(go_on.wait)
        try:
            yield
        finally:
            go_on.set()

    def publish(self, **changes: Any) -> None:
        """Make the next version of the map with these fields and send the change to subscribers."""

        def act() -> None:
            new = msgspec.structs.replace(self.map, version=self.map.version + 1, **changes)
            delta = delta_between(self.map, new)
            self.map = new
            for connection in self.subscribers:
                if connection.subscribed:
                    connection.send(wire.MapChange(delta))

        self.call(act)

    def move(self, target: FakeActor, shards: "set[int] | None" = None) -> None:
        """Make `target` the primary of these shards (all)."""
        self.publish(
            shards=tuple(
                ShardEntry(s.epoch + 1, target.incarnation, (), b"", ())
                if shards is None or i in shards
                else s
                for i, s in enumerate(self.map.shards)
            )
        )

    def kill(self, actor: FakeActor) -> None:
        """Stop listening and reset every connection of an actor."""

        def act() -> None:
            if actor.server is not None:
                actor.server.close()
            for connection in list(actor.connections):
                connection.transport.abort()

        self.call(act)


@contextlib.contextmanager
def running_cluster(**options: Any) -> Iterator[FakeCluster]:
    with FakeCluster(**options) as cluster:
        yield cluster
