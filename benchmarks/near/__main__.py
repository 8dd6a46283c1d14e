"""Measure near caches: `uv run --group bench python -m benchmarks.near [--quick] [--json]`.

Clusters, Redis and memcached are started here, on loopback. A full run writes docs/benchmarks/near.md and its
raw results.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial

import msgspec

from benchmarks import own_page
from benchmarks.clients import ClientProcess
from benchmarks.contenders.catalogue import Contender
from benchmarks.near.figures import (
    COREDIS,
    EMCACHE,
    NEAR,
    PLAIN,
    REDIS,
    HeldReading,
    Results,
    page,
    tables_of,
    verdicts_of,
)
from benchmarks.orders import Choose, Fill, Measure, Measured
from benchmarks.processes import Server
from benchmarks.run_log import RunLog
from benchmarks.samples import Sample
from benchmarks.servers.cluster import ClusterServer
from benchmarks.servers.memcached import MemcachedServer
from benchmarks.servers.redis import RedisServer
from benchmarks.work.throughput import Cell, in_turns

_SIZE, _SESSIONS, _HELD_SESSIONS = 300, 1000, 64
_CELLS: tuple[Cell, ...] = (
    ("get", 64, (NEAR, PLAIN, REDIS, COREDIS, EMCACHE)),
    ("get", 1, (NEAR, PLAIN, REDIS, COREDIS, EMCACHE)),
    ("update", 64, (NEAR, PLAIN)),
    ("update", 1, (NEAR, PLAIN)),
)
_OURS = {
    NEAR: Contender("greenroom:NearClient", "cluster"),
    PLAIN: Contender("greenroom:ClusterClient", "cluster"),
}
_PEERS: dict[str, tuple[Contender, Callable[[], Server]]] = {
    REDIS: (Contender("redis_py:RedisClient", "redis"), RedisServer),
    COREDIS: (Contender("coredis:CoredisNearClient", "redis"), RedisServer),
    EMCACHE: (Contender("emcache:EmcacheClient", "memcached"), MemcachedServer),
}
_WRITE_PERIOD_SECONDS, _READ_PERIOD_SECONDS = 0.005, 0.0005
"""One caller's writes, and the reads of who holds the sessions: each session a dozen times between writes."""


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """How much is done: turns, seconds of one measurement, of one in which something happens."""

    rounds: int = 8
    seconds: float = 1.5
    held_rounds: int = 5
    held_seconds: float = 3.0


FULL = Scale()
QUICK = Scale(rounds=1, seconds=0.3, held_rounds=1, held_seconds=2.0)


class Measuring:
    """One run."""

    def __init__(self, scale: Scale, log: RunLog) -> None:
        self.results = Results()
        self.scale = scale
        self._log = log

    def run(self) -> None:
        """Measure everything."""
        with ClusterServer() as cluster:
            with ExitStack() as stack:
                self.results.speed += in_turns(
                    self._clients(stack, cluster),
                    _CELLS,
                    rounds=self.scale.rounds,
                    seconds=self.scale.seconds,
                    size=_SIZE,
                    say=lambda text: self._log.say(f"speed: {text}"),
                )
            for turn in range(self.scale.held_rounds):
                self._log.say(f"one caller's writes: round {turn + 1} of {self.scale.held_rounds}")
                self.results.held.append(self._held(turn, cluster))

    # --- who is measured ---------------------------------------------------------------------------------

    def _clients(self, stack: ExitStack, cluster: Server) -> dict[str, ClientProcess]:
        clients = {}
        for number, (name, contender) in enumerate(_OURS.items()):
            # Sessions of their own: one must not hold what the other writes.
            clients[name] = stack.enter_context(self._client(contender, cluster, number * _SESSIONS))
        for name, (contender, start) in _PEERS.items():
            client = self._log.attempt(name, partial(self._peer, stack, contender, start))
            if client is not None:
                clients[name] = client
        for each in clients.values():
            # By now a session is held from its second read on.
            each.measure(Measure(work="get", callers=8, seconds=1.0))
        return clients

    def _peer(self, stack: ExitStack, contender: Contender, start: Callable[[], Server]) -> ClientProcess:
        return stack.enter_context(self._client(contender, stack.enter_context(start())))

    @contextmanager
    def _client(
        self,
        contender: Contender,
        server: Server,
        first: int = 0,
        count: int = _SESSIONS,
        *,
        fills: bool = True,
    ) -> Iterator[ClientProcess]:
        with closing(ClientProcess(contender, server)) as client:
            self._log.versions |= {**server.versions, **client.versions}
            if fills:
                client.do(Fill(first=first, count=count, size=_SIZE))
            client.do(Choose(first=first, total=count, sample=count, size=_SIZE))
            yield client

    # --- one caller's writes -----------------------------------------------------------------------------

    def _held(self, turn: int, cluster: ClusterServer) -> HeldReading:
        first = (2 + 2 * turn) * _SESSIONS
        with self._pair(PLAIN, cluster, first) as (writer, reader):
            unheld = self._write(writer, reader)
            reader.finish(Measured)
        with self._pair(NEAR, cluster, first + _SESSIONS) as (writer, reader):
            held = self._write(writer, reader)
            reader.finish(Measured)
            stopped = self._write(writer, reader, lambda: os.kill(reader.pid, signal.SIGSTOP))
            os.kill(reader.pid, signal.SIGCONT)
            reader.finish(Measured)
            killed = self._write(writer, reader, lambda: cluster.kill_actor(turn % 2))
            reader.finish(Measured)
        cluster.until_whole()
        return HeldReading(round=turn, held=held, unheld=unheld, stopped=stopped, killed=killed)

    @contextmanager
    def _pair(self, name: str, cluster: Server, first: int) -> Iterator[tuple[ClientProcess, ClientProcess]]:
        """Start one who writes and one who reads the same few sessions."""
        with ExitStack() as stack:
            writer, reader = (
                stack.enter_context(self._client(_OURS[name], cluster, first, _HELD_SESSIONS, fills=fills))
                for fills in (True, False)
            )
            yield writer, reader

    def _write(
        self, writer: ClientProcess, reader: ClientProcess, event: Callable[[], None] | None = None
    ) -> Sample:
        """Return what one caller's writes took while the other read, and `event` came to pass half-way."""
        seconds = self.scale.held_seconds
        reads = Measure(
            work="get", callers=1, seconds=seconds + 0.5, period_seconds=_READ_PERIOD_SECONDS, tolerant=True
        )
        reader.begin(reads)
        writes = Measure(
            work="update", callers=1, seconds=seconds, period_seconds=_WRITE_PERIOD_SECONDS, tolerant=True
        )
        writer.begin(writes)
        if event is not None and not writer.answered(seconds / 2):
            event()
        return writer.finish(Measured).sample


def main() -> None:
    """Measure as the options say; see `own_page.command`."""
    own_page.command("near", __doc__, measured, tables_of=tables_of, verdicts_of=verdicts_of, page=page)


def measured(log: RunLog, quick: bool) -> Results:  # noqa: FBT001  as `own_page.command` gives it
    """Return what was measured."""
    measuring = Measuring(QUICK if quick else FULL, log)
    measuring.run()
    measuring.results.run = log.ended(
        kind="quick" if quick else "full", rounds=measuring.scale.rounds, seconds=measuring.scale.seconds
    )
    return measuring.results


if __name__ == "__main__":
    main()
