"""A cluster that speaks the wire over real loopback sockets, in one thread, with its state in one dict.

Every actor sees the same state, as if replication took no time, so what a test moves or kills is only who
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
from itertools import count
from typing import Any, Self

import msgspec

from greenroom import wire
from greenroom.cluster_map import ActorEntry, ClusterMap, NodeEntry, ShardEntry, delta_between
from greenroom.errors import RemoteProtocolError
from greenroom.framing import FrameBuffer, encode_frames, encode_greeting, messages_decoder
from greenroom.patching import ListInPathError, UnexpectedValueError, patch_data

_decode_greeting = msgspec.msgpack.Decoder(wire.Hello).decode
_decode_messages = messages_decoder(wire.ClientMessage).decode
DATA_BYTES_MAX = 1 << 20


class FakeState:
    """All sessions, by digest, and the answers that were given."""

    def __init__(self) -> None:
        self.sessions: dict[bytes, dict[str, Any]] = {}
        self.results: dict[tuple[bytes, int, int], Any] = {}
        self.applied: list[tuple[bytes, int]] = []
        self._versions = count(1)

    def live(self, digest: bytes) -> dict[str, Any] | None:
        found = self.sessions.get(digest)
        if found is not None and found["expires_us"] <= time.time_ns() // 1000:
            del self.sessions[digest]
            return None
        return found

    def once(self, client: bytes, request: Any, shard: int, act: Callable[[Any], Any]) -> Any:
        key = (client, request.request, shard)
        if key not in self.results:
            self.applied.append((client, request.request))
            self.results[key] = act(request)
        return self.results[key]

    def answer(self, client: bytes, request: Any, shard_of: Callable[[int], int]) -> Any:
        if isinstance(request, wire.Get):
            found = self.live(request.digest)
            return wire.Missing(request.request) if found is None else _session(request.request, found)
        if isinstance(request, wire.ListByUser):
            return self._listing(request, shard_of)
        if isinstance(request, wire.Clean | wire.DeleteByUser):
            act = self._clean if isinstance(request, wire.Clean) else self._delete_user
            return wire.Counted(
                request.request,
                tuple(
                    (shard, self.once(client, request, shard, lambda r, at=shard: act(r, at, shard_of)))
                    for shard in request.shards
                ),
            )
        return self.once(
            client, request, shard_of(request.point), getattr(self, f"_{type(request).__name__.lower()}")
        )

    def _put(self, digest: bytes, session: dict[str, Any]) -> int:
        if session["absolute_us"] is not None:
            session["expires_us"] = min(session["expires_us"], session["absolute_us"])
        session["version"] = next(self._versions)
        self.sessions[digest] = session
        return session["version"]

    def _create(self, request: wire.Create) -> Any:
        if self.live(request.digest) is not None:
            return wire.Failed(request.request, wire.FailureCode.EXISTS)
        fields = {
            name: getattr(request, name)
            for name in ("point", "user_id", "created_us", "expires_us", "absolute_us", "label", "data")
        }
        return wire.Written(request.request, self._put(request.digest, fields))

    def _update(self, request: wire.Update) -> Any:
        old = self.live(request.digest)
        if old is None:
            return wire.Failed(request.request, wire.FailureCode.NOT_FOUND)
        if request.version is not None and request.version != old["version"]:
            return wire.Failed(request.request, wire.FailureCode.CONFLICT)
        new = {
            **old,
            "user_id": request.user_id,
            "expires_us": request.expires_us,
            "label": request.label,
            "data": request.data,
        }
        return wire.Written(request.request, self._put(request.digest, new))

    def _delete(self, request: wire.Delete) -> Any:
        self.sessions.pop(request.digest, None)
        return wire.Written(request.request, 0)

    def _deletebyhandle(self, request: wire.DeleteByHandle) -> Any:
        old = self.sessions.get(request.digest)
        if old is not None and old["user_id"] == request.user_id:
            del self.sessions[request.digest]
        return wire.Written(request.request, 0)

    def _changed(self, request: Any, old: dict[str, Any], expect: Any) -> Any:
        try:
            data = patch_data(old["data"], request.set, request.unset, expect)
        except UnexpectedValueError as error:
            return wire.Failed(request.request, wire.FailureCode.CONFLICT, str(error))
        except ListInPathError as error:
            return wire.Failed(request.request, wire.FailureCode.INVALID, str(error))
        if len(data) > DATA_BYTES_MAX:
            return wire.Failed(request.request, wire.FailureCode.TOO_LARGE)
        new = {**old, "data": data}
        if request.user is not None:
            new["user_id"] = request.user[0]
        if request.expires_us is not None:
            new["expires_us"] = request.expires_us
        return new

    def _patch(self, request: wire.Patch) -> Any:
        old = self.live(request.digest)
        if old is None:
            return wire.Failed(request.request, wire.FailureCode.NOT_FOUND)
        new = self._changed(request, old, request.expect)
        if isinstance(new, dict):
            self._put(request.digest, new)
            return _session(request.request, new)
        return new

    def _rotate(self, request: wire.Rotate) -> Any:
        old = self.live(request.digest)
        if old is None:
            return wire.Failed(request.request, wire.FailureCode.NOT_FOUND)
        new = self._changed(request, old, ())
        if isinstance(new, dict):
            del self.sessions[request.digest]
            self._put(request.new_digest, new)
            return _session(request.request, new)
        return new

    def _on(self, shard: int, shard_of: Callable[[int], int]) -> Iterator[tuple[bytes, dict[str, Any]]]:
        return iter([(d, s) for d, s in self.sessions.items() if shard_of(s["point"]) == shard])

    def _clean(self, request: wire.Clean, shard: int, shard_of: Callable[[int], int]) -> int:
        return sum(self.live(digest) is None for digest, _ in self._on(shard, shard_of))

    def _delete_user(self, request: wire.DeleteByUser, shard: int, shard_of: Callable[[int], int]) -> int:
        gone = 0
        for digest, session in self._on(shard, shard_of):
            if session["user_id"] == request.user_id and digest != request.keep and self.live(digest):
                del self.sessions[digest]
                gone += 1
        return gone

    def _listing(self, request: wire.ListByUser, shard_of: Callable[[int], int]) -> wire.Listing:
        handles = [
            wire.SessionHandle(s["point"], d, s["version"], s["created_us"], s["expires_us"], s["label"])
            for shard in request.shards
            for d, s in self._on(shard, shard_of)
            if s["user_id"] == request.user_id and self.live(d)
        ]
        handles.sort(key=lambda h: (h.created_us, h.version), reverse=True)
        return wire.Listing(request.request, request.shards, tuple(handles[: request.limit]))


def _session(request: int, s: dict[str, Any]) -> wire.Session:
    return wire.Session(
        request,
        wire.SessionState(
            s["version"],
            s["expires_us"],
            s["created_us"],
            s["absolute_us"],
            s["user_id"],
            s["label"],
            s["point"],
            s["data"],
        ),
    )


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
        self.peers = cluster.subscribers if actor is None else actor.connections
        self.subscribed = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.peers.add(self)
        if self.actor is not None:
            self.actor.accepted += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self.peers.discard(self)

    def send(self, *messages: Any) -> None:
        self.transport.write(bytes(encode_frames(messages, 16 << 20)))

    def data_received(self, data: bytes) -> None:
        out = bytearray()
        try:
            payloads = self.frames.feed(data)
            for payload in payloads:
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
        return self.cluster.serve(self.actor, self.client, message)

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
        return wire.Hello(wire.PROTOCOL_VERSION, 1, name, "actor", mine, clock_us=clock_us)


class FakeCluster:
    """Use as a context manager; the methods may be called from any other thread."""

    def __init__(self, actors: int = 2, shards: int = 8, cluster: str = "greenroom") -> None:
        self.state = FakeState()
        self.node_id = os.urandom(16)
        self.subscribers: set[_Connection] = set()
        self.actors = [FakeActor(f"n/{index}") for index in range(actors)]
        self.log: list[tuple[str, Any]] = []
        self.keep_log = False
        self.shards = shards
        self.cluster = cluster
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

    def _entry(self, actor: FakeActor) -> ActorEntry:
        return ActorEntry(actor.incarnation, "n", actor.name, actor.address, "up", "host", 1, 1)

    async def _stop(self) -> None:
        self._node_server.close()
        for actor in self.actors:
            if actor.server is not None:
                actor.server.close()
        for connection in [*self.subscribers, *(c for a in self.actors for c in a.connections)]:
            connection.transport.abort()
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    # --- serving -----------------------------------------------------------------------------------------

    def shard_of(self, point: int) -> int:
        return point >> (16 - (self.shards.bit_length() - 1))

    def serve(self, actor: FakeActor, client: bytes, request: Any) -> Any:
        if self.keep_log:
            self.log.append((actor.name, request))
        answer = actor.behave(request)
        if answer is not ...:
            return answer
        if isinstance(request, wire.Fanout):
            mine = tuple(s for s in request.shards if self.map.shards[s].primary == actor.incarnation)
            return self.state.answer(client, msgspec.structs.replace(request, shards=mine), self.shard_of)
        if self.map.shards[self.shard_of(request.point)].primary != actor.incarnation:
            return wire.Redirect(request.request, self.map.version)
        return self.state.answer(client, request, self.shard_of)

    # --- what tests do to it -----------------------------------------------------------------------------

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
