"""Processes on a machine, which can be killed, stopped, continued, or slowed down.

While a process is stopped (SIGSTOP), its kernel goes on: it accepts connections, and keeps bytes that arrive.
When the process continues, it finds all of that at once, timers and sockets in no particular order.
"""

from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any, Protocol

from simulations.kernel.network import End, Network
from simulations.kernel.timeline import Machine


class Link(Protocol):
    """A connection that a process keeps open."""

    def renew(self) -> bool:
        """Have another connection take its place; return whether there is one to replace."""


class Process:
    """One process. `cost_ns` is how long it takes to handle one event; more than 0 makes it slow."""

    def __init__(self, network: Network, machine: Machine, name: str, random: Random) -> None:
        self.network = network
        self.timeline = network.timeline
        self.machine = machine
        self.name = name
        self.random = random
        # Who it is by its certificate, which belongs to what is simulated.
        self.holder: object = None
        self.alive = True
        self.paused = False
        self.cost_ns = 0
        self.ends: dict[End, None] = {}
        self.links: list[Link] = []
        """The connections that it keeps open."""
        self.on_death: Callable[[], None] | None = None
        self.on_gone: Callable[[], None] | None = None
        self._busy_until = 0
        # What a slow process has yet to handle, and what has come since it stands still.
        self._waiting: deque[tuple[int, Callable[..., None], tuple[Any, ...]]] = deque()
        self._backlog: list[tuple[int, Callable[..., None], tuple[Any, ...]]] = []

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    def clock_us(self) -> int:
        """Return the clock that this process states in its hello."""
        return self.machine.wall_us()

    # --- running -----------------------------------------------------------------------------------------

    def tell(self, source: int, call: Callable[..., None], *args: Any) -> None:
        """Have the process handle an event of a socket (`source` is its number) or of a timer (0)."""
        if not self.alive:
            return
        if self.paused:
            self._backlog.append((source, call, args))
        elif self.cost_ns or self._waiting:
            self._busy_until = max(self._busy_until, self.timeline.now) + self.cost_ns
            self._waiting.append((source, call, args))
            self.timeline.at(self._busy_until, self._turn)
        else:
            call(*args)

    def _turn(self) -> None:
        if self.alive and self._waiting:
            _, call, args = self._waiting.popleft()
            call(*args)

    def later(self, seconds: float, call: Callable[..., None], *args: Any) -> None:
        """Have the process handle an event after so many seconds on its machine's clock."""
        due = self.machine.now_ns() + int(seconds * 1e9)
        self.timeline.at(self.machine.moment(due), self.tell, 0, call, *args)

    # --- faults ------------------------------------------------------------------------------------------

    def pause(self) -> None:
        """Stop it, as SIGSTOP does."""
        self.paused = True
        # It came before what comes now: a connection keeps its order.
        self._backlog[:0] = self._waiting
        self._waiting.clear()

    def resume(self) -> None:
        """Continue it: pending events come in one of the orders in which an event loop may find them."""
        if not self.paused or not self.alive:
            self.paused = False
            return
        self.paused = False
        backlog, self._backlog = self._backlog, []
        way = self.random.randrange(3)
        if way == 1:
            backlog.sort(key=lambda entry: entry[0] != 0)
        elif way == 2:
            ranks: dict[int, float] = {}
            for source, _, _ in backlog:
                ranks.setdefault(source, self.random.random())
            backlog.sort(key=lambda entry: ranks[entry[0]])
        for source, call, args in backlog:
            self.tell(source, call, *args)

    def drop_unread(self, source: int) -> None:
        """Lose what waits unread on a socket: some kernels do that on a reset."""
        self._backlog = [entry for entry in self._backlog if entry[0] != source]

    def kill(self) -> None:
        """End it at once; the kernel closes its sockets."""
        if not self.alive:
            return
        self.alive = False
        self.paused = False
        self._backlog.clear()
        self._waiting.clear()
        for end in list(self.ends):
            self.network.close(end, reset=self.random.random() < 0.5)
        self.network.unlisten(self)
        if self.on_gone is not None:
            self.on_gone()
        if self.on_death is not None:
            self.on_death()

    def vanish(self) -> None:
        """End it together with its machine, without a word to its peers."""
        self.alive = False
        self.paused = False
        self._backlog.clear()
        self._waiting.clear()
        for end in list(self.ends):
            self.network.forsake(end)
        self.network.unlisten(self)
        if self.on_gone is not None:
            self.on_gone()
