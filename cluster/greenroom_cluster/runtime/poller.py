"""Watches an actor's sockets and calls back when there is something to read.

The event loop could do that too, with one task per socket, but waking a task costs as much as the work for a
record, and the loop arms the socket for every wait. Here each socket is registered once, and served by plain
calls.

They are served where the loop is about to wait for its own descriptors. The poller waits in its place, for
both: the loop's epoll is one of what it watches. So the loop has a turn when a descriptor of its tasks is
ready, a deadline has come, or a callback has woken a task, and not for each request.

Before it sleeps, a poller may linger: it asks again and again for `LINGER_SECONDS`, giving the processor to
any other process that is ready to run. Waking a process that sleeps costs its sender and itself more than the
work of one request, above all on a virtual machine, where the host has to wake the processor too. It lingers
only where that is likely to pay: when the last quiet was as short as that, and what came of it was done soon;
much at once shows that the processors are busy anyway, and shares one wake-up.
"""

import os
import select
import time
from collections.abc import Callable
from typing import Any, NoReturn

import trio
import trio.abc
import trio.lowlevel
from trio._core._run import GLOBAL_RUN_CONTEXT

LINGER_SECONDS = 0.00025
# Work that takes longer counts as a batch.
_BATCH_NS = 200_000
# How long callbacks may run before timers and tasks get their turn.
_TURN_NS = 1_000_000
_EVENTS_PER_POLL = 64

_clock_ns = time.perf_counter_ns


class Poller(trio.abc.Instrument):
    """Calls back for sockets that have something to read, while `run` runs.

    A callback reads once, never blocks and never raises. It is called again while its socket has something to
    read, or has ended, and occasionally when there is nothing. It runs in no task.
    """

    def __init__(self, linger_seconds: float = LINGER_SECONDS) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._linger_ns = int(linger_seconds * 1e9)
        self._quiet_ns = self._woke_ns = 0
        # What was ready when a turn was over.
        self._left: list[tuple[int, int]] = []
        # Whether the loop has something to do.
        self._woken = False
        self._loops_descriptor = -1
        self._wake_loop: Callable[[], None] = _nothing
        self._failed = trio.Event()
        self._failure: BaseException | None = None

    def watch(self, descriptor: int, callback: Callable[[], None]) -> None:
        """Call `callback` whenever this descriptor is readable."""
        self._epoll.register(descriptor, select.EPOLLIN)
        self._callbacks[descriptor] = callback

    def unwatch(self, descriptor: int) -> None:
        """Stop watching; needed before the descriptor is closed."""
        del self._callbacks[descriptor]
        self._epoll.unregister(descriptor)

    def close(self) -> None:
        """Close the descriptor; nothing is called back any more."""
        self._epoll.close()

    async def run(self) -> NoReturn:
        """Serve until cancelled; raise what a callback has raised.

        There can be one in a loop: it would not wait for what another one watches.
        """
        loop = _loops_waiting()
        descriptor = loop._epoll.fileno()  # noqa: SLF001  see there
        self._wake_loop = loop.force_wakeup
        self._epoll.register(descriptor, select.EPOLLIN)
        self._loops_descriptor = descriptor
        trio.lowlevel.add_instrument(self)
        try:
            await self._failed.wait()
        finally:
            trio.lowlevel.remove_instrument(self)
            self._epoll.unregister(descriptor)
        assert self._failure is not None
        raise self._failure

    # --- what the loop tells -----------------------------------------------------------------------------

    def task_scheduled(self, task: trio.lowlevel.Task) -> None:
        """Note that the loop has something to do."""
        self._woken = True

    def before_io_wait(self, timeout: float) -> None:
        """Serve sockets until the loop has something to do, at the latest after so many seconds."""
        try:
            self._serve_until(_clock_ns() + int(timeout * 1e9))
        except BaseException as error:  # noqa: BLE001  the loop only logs what an instrument raises
            self._failure = error
            self._failed.set()
        if timeout:
            # It is about to wait as long as it wanted to before this. Even if one of its descriptors was
            # ready: a callback may have changed that.
            self._wake_loop()

    # --- serving -----------------------------------------------------------------------------------------

    def _serve_until(self, until_ns: int) -> None:
        self._woken = False
        poll, callbacks = self._epoll.poll, self._callbacks
        events, self._left = self._left or poll(0, _EVENTS_PER_POLL), []
        turn_ends_ns = _clock_ns() + _TURN_NS
        while True:
            if not events:
                events = self._wait(until_ns)
                if not events:
                    return
                turn_ends_ns = _clock_ns() + _TURN_NS
            for number, (descriptor, _) in enumerate(events, 1):
                callback = callbacks.get(descriptor)
                if callback is not None:
                    callback()
                elif descriptor == self._loops_descriptor:
                    self._woken = True
                # else an earlier callback ended it
                if _clock_ns() > turn_ends_ns:
                    self._left = events[number:]
                    return
            if self._woken:
                return
            events = poll(0, _EVENTS_PER_POLL)

    def _wait(self, until_ns: int) -> list[tuple[int, int]]:
        """Wait, at first without sleeping; return what is ready, if anything."""
        fell_quiet_ns = _clock_ns()
        if fell_quiet_ns >= until_ns:
            return []
        events: list[tuple[int, int]] = []
        if self._quiet_ns < self._linger_ns and fell_quiet_ns - self._woke_ns < _BATCH_NS:
            events = self._linger(min(until_ns, fell_quiet_ns + self._linger_ns))
        if not events:
            events = self._epoll.poll(max(0, until_ns - _clock_ns()) / 1e9, _EVENTS_PER_POLL)
        self._woke_ns = _clock_ns()
        self._quiet_ns = self._woke_ns - fell_quiet_ns
        return events

    def _linger(self, until_ns: int) -> list[tuple[int, int]]:
        poll, give_way = self._epoll.poll, os.sched_yield
        while _clock_ns() < until_ns:
            if events := poll(0, _EVENTS_PER_POLL):
                return events
            give_way()
        return []


def _nothing() -> None:
    pass


def _loops_waiting() -> Any:
    """Return what waits for descriptors in this event loop; trio tells nobody of its epoll."""
    return GLOBAL_RUN_CONTEXT.runner.io_manager
