"""The engine of a store: its lanes, who watches their deadlines, and what happens at a fork.

A lane of its own for reads needs WAL, where nothing that a writer does keeps a reader waiting. Without it one
lane does both: two connections of one process would only wait for each other.

SQLite keeps the locks of a process in its memory, and a fork copies that memory but not the locks: in the
child even a new connection to the same file would count on locks that nobody holds, and the parent would
delete the log under it. So a fork waits for the transactions under way and closes every connection before it.
"""

import asyncio
import logging
import os
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from greenroom.drivers.registry import running_loop
from greenroom.errors import OutcomeUnknownError, UnavailableError
from greenroom.sqlite import files
from greenroom.sqlite.files import Database
from greenroom.sqlite.lanes import Clock, Fault, Lane, Stop
from greenroom.sqlite.operations import (
    DONE,
    TAKEN,
    Operation,
    deliver,
    outcome_under_asyncio,
    outcome_under_trio,
)
from greenroom.sqlite.settings import Settings

FORK_SECONDS = 5.0
TICK_SECONDS_MAX = 0.25

_log = logging.getLogger("greenroom")
_engines: "weakref.WeakSet[Engine]" = weakref.WeakSet()
_held: "list[Engine]" = []
# A connection that a fork has copied must be neither used nor closed.
_never_closed: list[Database] = []


class Engine:
    """Performs the commands of a store. `now_us` is its clock, which is read in threads of the store."""

    def __init__(self, settings: Settings, now_us: Callable[[], int]) -> None:
        self.settings = settings
        self._clock = Clock(now_us)
        self._fault = Fault()
        self._writes: Lane | None = None
        self._reads: Lane | None = None
        self._begin_anew()
        _engines.add(self)

    def perform(self, command: Any) -> Coroutine[Any, Any, Any]:
        """Begin what a command asks for; await its reply. Raises UnavailableError or OutcomeUnknownError."""
        operation = Operation(command, running_loop(), time.monotonic() + self.settings.deadline_seconds)
        self._submit(operation)
        return _outcome(operation)

    async def aclose(self) -> None:
        """Wait for what was asked before, then close the connections. The next operation opens them again."""
        home = running_loop()
        for lane in self._taken_lanes():
            # One after the other: under trio, one that is not awaited yet is told to nobody.
            operation = Operation(None, home, time.monotonic() + self.settings.deadline_seconds)
            self._enter(operation, lane)
            lane.queue.put(Stop(operation))
            self.asked.set()
            try:
                await _outcome(operation)
            except UnavailableError as error:  # those who wait for an answer were told as well
                _log.warning("%s was not closed: %s", self.settings.path, error)

    def dismiss(self) -> None:
        """Do the same without waiting. Call it from any thread."""
        for lane in self._taken_lanes():
            lane.queue.put(Stop(None))

    # --- lanes --------------------------------------------------------------------------------------------

    def _begin_anew(self) -> None:
        self._lock = threading.Lock()
        self._outstanding: deque[tuple[Operation, Lane]] = deque()
        self.asked = threading.Event()
        """Whether there may be anything to watch."""
        self._watching = False

    def _submit(self, operation: Operation) -> None:
        with self._lock:
            lane = self._lane_for(operation)
            if lane.queue.qsize() >= self.settings.operations_max:
                raise UnavailableError(
                    f"it was not done: overloaded, {self.settings.operations_max} operations wait for "
                    f"{self.settings.path}; limit what the app starts at once, or raise operations_max"
                )
            self._enter(operation, lane)
            lane.queue.put(operation)
        if not self.asked.is_set():
            self.asked.set()

    def _enter(self, operation: Operation, lane: Lane) -> None:
        operation.lock = lane.lock
        if isinstance(operation.home, asyncio.AbstractEventLoop):
            operation.waiter = operation.home.create_future()
        self._outstanding.append((operation, lane))

    def _lane_for(self, operation: Operation) -> Lane:
        writes = self._writes
        if writes is None:
            writes = self._writes = Lane(self.settings, self._clock, self._fault, reading=False)
            writes.start()
            if not self._watching:
                self._watching = True
                watch = threading.Thread(target=_watch, args=(weakref.ref(self), self.asked), daemon=True)
                watch.name = "greenroom-sqlite-watch"
                watch.start()
        if operation.mutating or not writes.wal:
            return writes
        if self._reads is None:
            self._reads = Lane(self.settings, self._clock, self._fault, reading=True)
            self._reads.start()
        return self._reads

    def _taken_lanes(self) -> list[Lane]:
        """Return the lanes and forget them: nothing else will be put into one."""
        with self._lock:
            lanes = [lane for lane in (self._reads, self._writes) if lane is not None]
            self._reads = self._writes = None
        return lanes

    # --- deadlines ----------------------------------------------------------------------------------------

    def watch(self) -> float | None:
        """Tell callers whose deadline has come. Return how long until the next look; None: until asked."""
        outstanding = self._outstanding
        tick = min(TICK_SECONDS_MAX, self.settings.deadline_seconds / 8)
        now = time.monotonic()
        while outstanding:
            operation, lane = outstanding[0]
            if operation.progress is not DONE and operation.deadline - tick > now:
                break
            outstanding.popleft()
            self._expire(operation, lane)
        if outstanding:
            return tick
        self.asked.clear()
        return tick if outstanding else None

    def _expire(self, operation: Operation, lane: Lane) -> None:
        path, seconds = self.settings.path, self.settings.deadline_seconds
        reason = lane.reason or "its disk or this host is too slow"
        with lane.lock:
            if operation.progress is DONE:
                return
            if operation.progress is TAKEN and operation.mutating:
                operation.reply = OutcomeUnknownError(
                    f"the change was not confirmed within deadline_seconds={seconds:g}, and may have been "
                    f"applied to {path}: {reason}",
                    harmless_to_repeat=operation.harmless,
                )
            else:
                operation.reply = UnavailableError(
                    f"it was not done within deadline_seconds={seconds:g}: {path} did not answer, {reason}"
                )
            operation.progress = DONE
        deliver([operation])

    # --- forks --------------------------------------------------------------------------------------------

    def hold(self) -> None:
        """Close the connections and keep everything still, until `release` or, in the child, `forked`."""
        end = time.monotonic() + FORK_SECONDS
        self._holding: list[threading.Lock] = []
        if not self._lock.acquire(timeout=FORK_SECONDS):
            return
        self._holding.append(self._lock)
        for lane in (self._writes, self._reads):
            if lane is not None and lane.guard.acquire(timeout=max(0.0, end - time.monotonic())):
                self._holding.append(lane.guard)
                lane.close()

    def release(self) -> None:
        """Go on in the parent."""
        for lock in self._holding:
            lock.release()
        self._holding = []

    def forked(self) -> None:
        """Begin anew in the child, which has none of the threads."""
        for lane in (self._writes, self._reads):
            if lane is not None and lane.database is not None:
                _never_closed.append(lane.database)
                self._fault.of_all = (
                    f"{self.settings.path} was in use when this process was forked: open the store in the "
                    "workers, not before the fork"
                )
        self._writes = self._reads = None
        self._holding = []
        self._begin_anew()


def _outcome(operation: Operation) -> Coroutine[Any, Any, Any]:
    if isinstance(operation.home, asyncio.AbstractEventLoop):
        return outcome_under_asyncio(operation)
    return outcome_under_trio(operation, sys.modules["trio"])


def _watch(reference: "weakref.ref[Engine]", asked: threading.Event) -> None:
    """Watch the deadlines of an engine for as long as there is one."""
    while (engine := reference()) is not None:
        seconds = engine.watch()
        del engine
        if seconds is None:
            asked.wait()
        else:
            time.sleep(seconds)


def let_go(engine: Engine) -> None:
    """End the threads of a store that is no longer used."""
    engine.dismiss()
    engine.asked.set()


def _before_fork() -> None:
    _held[:] = list(_engines)
    for engine in _held:
        engine.hold()


def _after_fork_in_parent() -> None:
    for engine in _held:
        engine.release()
    _held.clear()


def _after_fork_in_child() -> None:
    files.begin_anew()
    for engine in _held:
        engine.forked()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child
    )
