"""Clients of a world: they follow the map, retry under the same id, and write down what they were told.

Their network is worse than the real one: an attempt on a connection that the client has aborted may still
arrive, later than the attempts that followed it.
"""

from typing import Any

import msgspec

from greenroom import wire
from greenroom.wire import FailureCode
from greenroom_cluster.shard import inputs as ins
from greenroom_cluster.shard.settings import ns
from simulations.checks.linearizability import Operation
from tests.cluster.shard.harness import WALL_START_US, Actor, World
from tests.cluster.shard.judge import Judge

FAR_US = WALL_START_US + 10**15
DEADLINE_NS = ns(5)
OPEN_MAX = 4
UNKNOWN_MAX = 5
ATTEMPT_NS = ns(0.7)
REASONS = {FailureCode.EXISTS: "exists", FailureCode.NOT_FOUND: "not_found", FailureCode.CONFLICT: "conflict"}
KINDS = ("get", "get", "create", "create", "update", "patch", "delete", "rotate")

_pack = msgspec.msgpack.encode
_unpack = msgspec.msgpack.decode


def shard_of(session: str) -> int:
    """Return the shard of a session named `s<shard>k<key>`."""
    return int(session[1 : session.index("k")])


class Call:
    """One operation under way."""

    def __init__(self, caller: "Caller", request_id: int, kind: str, key: str, shard: int) -> None:
        self.caller = caller
        self.request_id = request_id
        self.kind = kind
        self.key = key
        self.shard = shard
        self.invoked_ns = caller.world.now_ns
        self.attempt = 0
        self.connection = 0
        self.done = False
        self.new_key = ""
        self.message: Any = None
        self.facts: dict[str, Any] = {}


class Callers:
    """All clients of a world, and the history that they wrote."""

    def __init__(self, world: World, judge: Judge, *, clients: int = 3, keys: int = 3) -> None:
        self.world = world
        self.judge = judge
        self.history: list[Operation] = []
        self.answered = 0
        self.clients = [Caller(self, number) for number in range(clients)]
        self.keys = [f"s{shard}k{key}" for shard in range(len(world.map.shards)) for key in range(keys)]
        # The id under which each session lives now, as far as anybody was told.
        self.alias = {key: key for key in self.keys}
        self.versions: dict[str, int] = {}
        self._unknown: dict[str, int] = {}
        self.calls: dict[int, Call] = {}
        self.connections = 0
        world.replied = self._on_reply

    def call(self, kind: str | None = None, key: str | None = None) -> None:
        """One client calls something on some session."""
        random = self.world.random
        key = key or random.choice(self.keys)
        if self._under_way(key) < OPEN_MAX:
            random.choice(self.clients).call(kind or random.choice(KINDS), key)

    def _under_way(self, key: str) -> int:
        return sum(
            call.facts["session"] == key for client in self.clients for call in client.waiting.values()
        )

    def retire(self, session: str) -> None:
        """Note an unknown outcome; a session with too many of them could not be judged, so another begins."""
        self._unknown[session] = self._unknown.get(session, 0) + 1
        if self._unknown[session] > UNKNOWN_MAX and session in self.keys:
            successor = session + "n"
            self.keys[self.keys.index(session)] = successor
            self.alias[successor] = successor

    def _on_reply(self, actor: Actor, connection: int, reply: wire.Reply) -> None:
        call = self.calls.get(connection)
        if call is not None and not call.done and call.request_id == reply.request_id:
            self.world.after(self.latency(), lambda: call.caller.on_reply(call, connection, reply))

    def latency(self) -> int:
        """Mostly prompt; sometimes late enough to come after the next attempt."""
        random = self.world.random
        return random.randrange(ns(2)) if random.random() < 0.03 else random.randrange(ns(0.001))

    @property
    def open(self) -> int:
        """How many operations are under way."""
        return sum(len(client.waiting) for client in self.clients)


class Caller:
    """One dialog: request ids rise, `low` is the lowest one that still waits."""

    def __init__(self, callers: Callers, number: int) -> None:
        self.callers = callers
        self.world = callers.world
        self.client = bytes([number + 1]) * 16
        self.name = f"c{number}"
        self.next_request = 1
        self.waiting: dict[int, Call] = {}

    def call(self, kind: str, session: str) -> None:
        """Begin an operation."""
        key = self.callers.alias[session] if self.world.random.random() < 0.8 else session
        call = Call(self, self.next_request, kind, key, shard_of(session))
        call.facts["session"] = session
        self.next_request += 1
        self.waiting[call.request_id] = call
        call.message = self._message(call)
        self._attempt(call)

    def _message(self, call: Call) -> Any:
        random = self.world.random
        point = call.shard * (65536 // len(self.world.map.shards))
        digest = call.key.encode().ljust(32, b"-")
        low = min(self.waiting)
        value = random.randrange(1000)
        head = (call.request_id, low, 0, point, digest)
        match call.kind:
            case "get":
                return wire.Get(call.request_id, point, digest)
            case "create":
                call.facts["data"] = {"v": value}
                return wire.Create(*head, None, WALL_START_US, FAR_US, None, "", _pack({"v": value}))
            case "update":
                version = self.callers.versions.get(call.key) if random.random() < 0.5 else None
                call.facts |= {"data": {"v": value}, "expected_version": version}
                return wire.Update(*head, None, FAR_US, "", _pack({"v": value}), version)
            case "patch":
                field = random.choice("xyz")
                call.facts["set"] = [([field], value)]
                return wire.Patch(*head, (((field,), _pack(value)),), (), (), None, None)
            case "delete":
                return wire.Delete(*head)
            case _:
                session = call.facts["session"]
                call.new_key = f"{session}r{call.request_id}{self.name}"
                new_digest = call.new_key.encode().ljust(32, b"-")
                return wire.Rotate(*head, new_digest, (), (), None, None)

    # --- attempts -------------------------------------------------------------------------------------------

    def _attempt(self, call: Call) -> None:
        callers, world = self.callers, self.world
        if call.done:
            return
        waited = world.now_ns - call.invoked_ns
        if waited > DEADLINE_NS:
            self._finish(call, "unknown")
            return
        primary = world.map.shards[call.shard].primary
        actor = world.actors.get(primary)
        if actor is None or world.random.random() < 0.1:
            actor = world.random.choice(list(world.actors.values()))
        callers.connections += 1
        call.connection = connection = callers.connections
        call.attempt += 1
        callers.calls[connection] = call
        message = call.message
        if call.kind != "get":
            message = msgspec.structs.replace(message, age_ms=waited // 1_000_000)
        event = ins.ClientRequests(connection, self.client, [message])
        world.after(callers.latency(), lambda: actor.step(event))
        attempt = call.attempt
        world.after(ATTEMPT_NS, lambda: self._give_up(call, attempt, actor, connection))

    def _give_up(self, call: Call, attempt: int, actor: Actor, connection: int) -> None:
        """Abort the attempt's connection and try elsewhere."""
        if call.done or call.attempt != attempt:
            return
        self.callers.calls.pop(connection, None)
        self.world.after(self.callers.latency(), lambda: actor.step(ins.ConnectionClosed(connection)))
        self._attempt(call)

    def on_reply(self, call: Call, connection: int, reply: wire.Reply) -> None:
        """Take an answer in, if it is still waited for on that connection."""
        if call.done or call.connection != connection:
            return
        if isinstance(reply, wire.Redirect | wire.Overloaded):
            attempt = call.attempt
            self.world.after(ns(0.02), lambda: call.attempt == attempt and self._attempt(call))
            return
        match reply:
            case wire.Session(state=wire.SessionState(version=version, data=data)):
                self._finish(call, "ok", version=version, result=_unpack(data))
            case wire.Missing():
                self._finish(call, "ok")
            case wire.Written(version=version):
                self._finish(call, "ok", version=version or None)
            case wire.Failed(code=code):
                self._finish(call, "failed", reason=REASONS[FailureCode(code)])
            case _:
                self._finish(call, "unknown")

    def _finish(self, call: Call, outcome: str, **results: Any) -> None:
        callers = self.callers
        call.done = True
        callers.calls.pop(call.connection, None)
        del self.waiting[call.request_id]
        if outcome == "ok":
            callers.answered += 1
            if call.kind == "rotate":
                callers.alias[call.facts["session"]] = call.new_key
                results["new_key"] = call.new_key
            if results.get("version"):
                callers.versions[call.new_key or call.key] = results["version"]
        if outcome == "unknown":
            callers.retire(call.facts["session"])
        elif call.kind != "get":
            callers.judge.on_reply(call.shard, self.client, call.request_id)
        callers.history.append(
            Operation(
                client=self.name,
                kind=call.kind,
                key=call.key,
                invoked_ns=call.invoked_ns,
                completed_ns=0 if outcome == "unknown" else self.world.now_ns,
                outcome=outcome,
                **call.facts,
                **results,
            )
        )
