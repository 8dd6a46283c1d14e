"""The stages of the client: a real store, dialog and runner whose connections end in this process.

The coroutines of the operations are run by hand, up to where they wait and from there on, so that each stage
can be timed apart; what an event loop adds to that is measured on a loop that does nothing else.
"""

import asyncio
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from time import perf_counter_ns
from typing import Any
from unittest.mock import patch

import msgspec

from benchmarks.costs.figures import (
    SIZE,
    WORKS,
    Amount,
    Figure,
    Meter,
    Work,
    figures_of,
    repeated,
)
from benchmarks.sessions import LIFETIME_SECONDS, session_data, session_id
from greenroom import ClusterStore, SessionData, wire
from greenroom.cluster_map import ActorEntry, ClusterMap, NodeEntry, ShardEntry
from greenroom.codec import encode_data
from greenroom.dialog import Dialog
from greenroom.drivers.asyncio_ import AsyncioRunner
from greenroom.fields import micros_of
from greenroom.framing import FrameBuffer, encode_frames, messages_decoder
from greenroom.negotiation import hello

SHARDS = 64
SESSIONS = 2000
SUBMIT = "check, digest, encode, build, submit, flush"
RECEIVE = "decode replies, hand out"
RESULT = "build results"
LOOP = "event loop: callbacks, task steps, selects"
STAGES = (SUBMIT, RECEIVE, RESULT, LOOP)

_ADDRESS = "127.0.0.1:1"
_decode_greeting = msgspec.msgpack.Decoder(wire.Hello).decode
_decode_messages = messages_decoder(wire.Subscribe | wire.Get | wire.Update).decode


class WiredRunner(AsyncioRunner):
    """A runner whose connections are lists: `outbox` holds what was written, `deliver` brings answers."""

    def __init__(self, dialog: Dialog) -> None:
        super().__init__(dialog)
        self.opening: list[int] = []
        self.outbox: list[tuple[int, bytearray]] = []

    def open_all(self) -> None:
        """Establish the connections that were asked for."""
        while self.opening:
            self.dialog.opened(self._now_ns(), self.opening.pop())
            self._settle()

    def flush(self) -> None:
        """Do what the event loop does at the end of a tick."""
        if self._flush_due:
            self._flush()

    def deliver(self, number: int, data: memoryview) -> None:
        """Take bytes in as after a read."""
        self.dialog.received(self._now_ns(), number, data)
        self._settle()

    def _open(self, number: int, address: str, node: str) -> None:
        self.opening.append(number)

    def _drop(self, number: int, *, reset: bool) -> None:
        """There is nothing to close."""

    def _write(self, number: int, data: bytearray) -> None:
        self.outbox.append((number, data))

    def _schedule_flush(self) -> None:
        """Wait for `flush`."""


class Cluster:
    """Answers what comes on a connection, as two actors that have every session would."""

    def __init__(self) -> None:
        actors = {
            bytes([number]) * 16: ActorEntry(
                bytes([number]) * 16, f"n{number}", f"n{number}/0", f"127.0.0.1:{number + 2}", "up", "", 1, 1
            )
            for number in (1, 2)
        }
        keys = list(actors)
        shards = tuple(
            ShardEntry(2, keys[shard % 2], (keys[1 - shard % 2],), b"", ("n1/0", "n2/0"))
            for shard in range(SHARDS)
        )
        nodes = {f"n{number}": NodeEntry(f"n{number}", f"127.0.0.1:{number}", "up") for number in (1, 2)}
        self._map = ClusterMap("greenroom", 1, 9, 2, nodes, actors, shards)
        self._buffers: dict[int, FrameBuffer] = {}
        self._data = encode_data(session_data(SIZE))
        self._created_us = micros_of(datetime.now(UTC), "created")
        self._version = 0

    def answers(self, number: int, data: bytes) -> memoryview:
        """Return what comes back."""
        greeted = number in self._buffers
        frames = self._buffers.setdefault(number, FrameBuffer()).feed(data)
        messages: list[Any] = [] if greeted else [_decode_greeting(frames.pop(0))]
        for frame in frames:
            messages += _decode_messages(frame)
        return memoryview(encode_frames([self._answer(number, message) for message in messages]))

    def _answer(
        self, number: int, message: wire.Hello | wire.Subscribe | wire.Get | wire.Update
    ) -> wire.Frame:
        match message:
            case wire.Get():
                created = self._created_us
                state = wire.SessionState(1 << 33, created, created, None, None, "", 0, self._data)
                return wire.Session(message.request_id, state)
            case wire.Update():
                self._version += 1
                return wire.Written(message.request_id, (1 << 33) + self._version)
            case wire.Subscribe():
                return wire.MapFull(self._map)
            case wire.Hello():
                sender = message.target or number.to_bytes(16, "big")
                return hello(message.cluster, wire.ROLE_PEER, sender)


class Caller:
    """A store in the running loop, and batches of operations on it."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._cluster = Cluster()
        self.store = ClusterStore(_ADDRESS)
        self._ids = [session_id(number) for number in range(SESSIONS)]
        data = session_data(SIZE)
        expires = datetime.now(UTC) + timedelta(seconds=LIFETIME_SECONDS)
        self._sessions = [SessionData(session_id=each, expires=expires, data=data) for each in self._ids]
        self._next = 0
        self._runner = self._connect()

    def _connect(self) -> WiredRunner:
        made: list[WiredRunner] = []

        def make(dialog: Dialog, *_: object, **__: object) -> WiredRunner:
            made.append(WiredRunner(dialog))
            return made[0]

        # On all shards, so that both actors are connected to.
        first = [self.store.get(each) for each in self._ids[: 2 * SHARDS]]
        with patch("greenroom.drivers.asyncio_.AsyncioRunner", make):
            waiting = [each.send(None) for each in first]
        (runner,) = made
        while not all(future.done() for future in waiting):
            runner.open_all()
            runner.flush()
            for number, data in self._answered(runner):
                runner.deliver(number, data)
        for each in first:
            _result(each)
        return runner

    def batch(self, work: Work, size: int) -> list[Any]:
        """Have so many operations done, and return what they return."""
        ids, sessions, runner = self._ids, self._sessions, self._runner
        store = self.store
        first, self._next = self._next, (self._next + size) % (SESSIONS - 2 * size)
        waiting: list[Coroutine[Any, Any, Any]] = []
        at = perf_counter_ns()
        if work == "get":
            for index in range(first, first + size):
                get = store.get(ids[index])
                get.send(None)
                waiting.append(get)
        else:
            for index in range(first, first + size):
                update = store.update(ids[index], sessions[index])
                update.send(None)
                waiting.append(update)
        runner.flush()
        spent = self._meter.ns
        spent[SUBMIT] += perf_counter_ns() - at
        answers = self._answered(runner)
        at = perf_counter_ns()
        for number, data in answers:
            runner.deliver(number, data)
        middle = perf_counter_ns()
        results = [_result(each) for each in waiting]
        spent[RECEIVE] += middle - at
        spent[RESULT] += perf_counter_ns() - middle
        return results

    def _answered(self, runner: WiredRunner) -> list[tuple[int, memoryview]]:
        outbox, runner.outbox = runner.outbox, []
        return [(number, self._cluster.answers(number, data)) for number, data in outbox]


def _result(operation: Coroutine[Any, Any, Any]) -> Any:
    try:
        operation.send(None)
    except StopIteration as done:
        return done.value
    raise RuntimeError("an operation waits although it was answered")


def figures(amount: Amount) -> list[Figure]:
    """Measure every stage of every work in every batch."""
    return [*asyncio.run(_stages(amount)), *_loop_figures(amount)]


async def _stages(amount: Amount) -> list[Figure]:
    meter = Meter()
    caller = Caller(meter)
    found = []
    for work in WORKS:
        for batch in amount.batches:
            rounds = amount.rounds(batch)

            def once(work: Work = work, batch: int = batch, rounds: int = rounds) -> None:
                for _ in range(rounds):
                    caller.batch(work, batch)

            repeats = repeated(meter, amount.repeats, once)
            found += figures_of("client", work, batch, rounds * batch, repeats)
    await caller.store.aclose()
    return found


# --- the loop --------------------------------------------------------------------------------------------


def _loop_figures(amount: Amount) -> list[Figure]:
    meter = Meter()
    found = []
    for batch in amount.batches:
        rounds = amount.rounds(batch)

        def once(batch: int = batch, rounds: int = rounds) -> None:
            meter.ns["whole"], meter.ns["futures"] = asyncio.run(_loop_ns(batch, rounds))

        taken = repeated(meter, amount.repeats, once)
        futures = min(each["futures"] for each in taken)
        repeats = [{LOOP: each["whole"] - futures} for each in taken]
        for work in WORKS:
            found += figures_of("client", work, batch, rounds * batch, list(repeats))
    return found


async def _loop_ns(batch: int, rounds: int) -> tuple[int, int]:
    """Return what a loop takes for tasks that wait, and what of that making and resolving futures takes.

    As with requests, a round has three turns of the loop: tasks run, the flush, and what becomes readable.
    """
    loop = asyncio.get_running_loop()
    waiting: list[asyncio.Future[None]] = []

    def flush() -> None:
        loop.call_soon(resolve)

    def resolve() -> None:
        answered = waiting[:]
        waiting.clear()
        for future in answered:
            future.set_result(None)

    async def caller() -> None:
        for _ in range(rounds):
            future: asyncio.Future[None] = loop.create_future()
            if not waiting:
                loop.call_soon(flush)
            waiting.append(future)
            await future

    began = perf_counter_ns()
    await asyncio.gather(*(caller() for _ in range(batch)))
    whole = perf_counter_ns() - began
    began = perf_counter_ns()
    for _ in range(rounds):
        for future in [loop.create_future() for _ in range(batch)]:
            future.set_result(None)
    return whole, perf_counter_ns() - began
