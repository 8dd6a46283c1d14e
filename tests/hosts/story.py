"""What happened while callers were at work, when, and how long they waited for it."""

import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from threading import Event as Flag
from threading import Thread
from typing import Self

import msgspec

from simulations.checks.linearizability import Operation, assert_explained
from tests.hosts.stage import APPS, Hosts
from tests.system.load import open_load

CANARY_SECONDS = 0.01
Report = Callable[[str, object], None]

FIGURES = os.environ.get("GREENROOM_HOSTS_FIGURES", "")
"""A file to which each event is added with the longest wait, as a line of JSON."""


class Bound(msgspec.Struct, frozen=True):
    """What is promised of a machine that is not overloaded, and what is demanded of any."""

    promised_seconds: float
    demanded_seconds: float


NOTHING = Bound(0.1, 2.0)
"""Coordinators and etcd alone: nobody notices."""
MOVED = Bound(0.5, 3.0)
"""Shards change hands while all are there, or a host is slow."""
LOST = Bound(2.0, 5.0)
"""A host."""
DEAF = Bound(8.0, 14.0)
"""A host that hears nothing: three seconds, and until it is connected again."""
UNDECIDED = Bound(3.0, 7.0)
"""A host or actor, and with it who decides about it."""
ALONE = Bound(8.0, 14.0)
"""A host, and with it who decides: it reaches etcd, and leads on until it knows that it hears few nodes."""


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened, until the cluster was whole again."""

    name: str
    bound: Bound
    began_ns: int
    ended_ns: int

    def longest_seconds(self, history: Sequence[Operation]) -> float:
        """Return how long the slowest operation took that was under way meanwhile."""
        waits = (
            each.completed_ns - each.invoked_ns
            for each in history
            if each.invoked_ns < self.ended_ns and each.completed_ns > self.began_ns
        )
        return max(waits, default=0) / 1e9


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the figures."""

    name: str
    promised_seconds: float
    longest_seconds: float
    stall_seconds: float
    whole_seconds: float
    operations: int


class Canary:
    """A thread that wants to run a hundred times a second, and notes when the machine did not let it.

    Callers wait for that as well, whatever happens to the cluster.
    """

    def __init__(self) -> None:
        self._over = Flag()
        self._stalls: list[tuple[int, int]] = []
        self._thread = Thread(target=self._run, name="canary", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        before = time.monotonic_ns()
        while not self._over.wait(CANARY_SECONDS):
            now = time.monotonic_ns()
            self._stalls.append((now, now - before - round(CANARY_SECONDS * 1e9)))
            before = now

    def longest_seconds(self, event: Event) -> float:
        """Return the longest time in an event in which it was not run."""
        within = (stall for at, stall in self._stalls if event.began_ns <= at <= event.ended_ns)
        return max(within, default=0) / 1e9


class Story:
    """The events of one load."""

    def __init__(self, hosts: Hosts, canary: Canary) -> None:
        self._hosts = hosts
        self._canary = canary
        self._events: list[Event] = []

    @asynccontextmanager
    async def event(self, name: str, bound: Bound) -> AsyncIterator[None]:
        """Note what happens in the body, which ends once all is whole again; begin when nothing else does."""
        await self._hosts.until_settled()
        began = time.monotonic_ns()
        yield
        self._events.append(Event(name=name, bound=bound, began_ns=began, ended_ns=time.monotonic_ns()))

    def figures(self, history: Sequence[Operation]) -> list[Figure]:
        return [
            Figure(
                name=event.name,
                promised_seconds=event.bound.promised_seconds,
                longest_seconds=event.longest_seconds(history),
                stall_seconds=self._canary.longest_seconds(event),
                whole_seconds=(event.ended_ns - event.began_ns) / 1e9,
                operations=sum(event.began_ns <= each.invoked_ns < event.ended_ns for each in history),
            )
            for event in self._events
        ]

    def check(self, history: Sequence[Operation]) -> None:
        """Demand that nobody has waited longer than it may be."""
        late = {
            event.name: round(longest, 3)
            for event in self._events
            if (longest := event.longest_seconds(history)) > event.bound.demanded_seconds
        }
        assert late == {}


def _keep(figures: Sequence[Figure]) -> None:
    with Path(FIGURES).open("ab") as out:
        out.writelines(msgspec.json.encode(each) + b"\n" for each in figures)


@asynccontextmanager
async def told(hosts: Hosts, folder: Path, seed: int, report: Report) -> AsyncIterator[Story]:
    """Put load on a cluster around the body; then demand that nothing was lost, stale, or refused."""
    canary = Canary()
    story = Story(hosts, canary)
    where = hosts.network.host(APPS).enter
    options = {"workers": 6, "pause_seconds": 0.02, "seed": seed}
    async with open_load(hosts.url, folder, enter=where, **options) as load:
        with canary:
            yield story
    figures = story.figures(load.history)
    for figure in figures:
        report(figure.name, round(figure.longest_seconds, 3))
    if FIGURES:
        _keep(figures)
    assert load.errors == Counter()
    assert_explained(load.history)
    story.check(load.history)
