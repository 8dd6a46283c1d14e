"""Watches an actor's sockets and calls back when there is something to read.

The event loop could do that too, with one task per socket, but waking a task costs as much as the work for a
record, and the loop arms the socket for every wait. Here each socket is registered once, ready sockets are
served by plain calls, and the loop is entered only to sleep and to give others a turn.

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
from typing import NoReturn

import trio

LINGER_SECONDS = 0.00025
# Work that takes longer counts as a batch.
_BATCH_NS = 200_000
# How long callbacks may run before timers and tasks get their turn.
_TURN_NS = 1_000_000
_EVENTS_PER_POLL = 64

_clock_ns = time.perf_counter_ns


class Poller:
    """Calls back for sockets that have something to read, while `run` runs.

    A callback reads once, never blocks and never raises. It is called again while its socket has something to
    read, or has ended, and occasionally when there is nothing.
    """

    def __init__(self, linger_seconds: float = LINGER_SECONDS) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._linger_ns = int(linger_seconds * 1e9)
        self._turn_ends_ns = 0

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
        """Serve until cancelled."""
        quiet_ns = busy_ns = 0
        while True:
            fell_quiet_ns = _clock_ns()
            likely = quiet_ns < self._linger_ns and busy_ns < _BATCH_NS
            events = await self._linger(fell_quiet_ns + self._linger_ns) if likely else []
            if not events:
                await trio.lowlevel.wait_readable(self._epoll.fileno())
                self._turn_ends_ns = _clock_ns() + _TURN_NS
                events = self._epoll.poll(0, _EVENTS_PER_POLL)
            woke_ns = _clock_ns()
            quiet_ns = woke_ns - fell_quiet_ns
            await self._serve(events)
            busy_ns = _clock_ns() - woke_ns

    async def _linger(self, until_ns: int) -> list[tuple[int, int]]:
        """Wait without sleeping; return what is ready, if anything."""
        poll, give_way = self._epoll.poll, os.sched_yield
        while (now_ns := _clock_ns()) < until_ns:
            if events := poll(0, _EVENTS_PER_POLL):
                return events
            if now_ns > self._turn_ends_ns:
                await self._end_turn()
            give_way()
        return []

    async def _serve(self, events: list[tuple[int, int]]) -> None:
        """Serve what is ready, until nothing is."""
        poll, callbacks = self._epoll.poll, self._callbacks
        while events:
            for descriptor, _ in events:
                callback = callbacks.get(descriptor)
                if callback is not None:  # else an earlier callback ended it
                    callback()
                if _clock_ns() > self._turn_ends_ns:
                    await self._end_turn()
            events = poll(0, _EVENTS_PER_POLL)

    async def _end_turn(self) -> None:
        """Let timers and tasks do what is due."""
        await trio.lowlevel.checkpoint()
        self._turn_ends_ns = _clock_ns() + _TURN_NS
