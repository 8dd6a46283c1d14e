"""Measure near caches: `uv run --group bench python -m benchmarks.near [--quick] [--json]`.

Clusters, Redis and memcached are started here, on loopback. A full run writes docs/benchmarks/near.md and its
raw results.
"""

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec
from rich.console import Console

from benchmarks import machine
from benchmarks.clients import ClientProcess, ContenderError
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
from benchmarks.processes import MissingError, Server
from benchmarks.report import rich_table
from benchmarks.results import BUSY, Run
from benchmarks.samples import Sample
from benchmarks.servers.cluster import ClusterServer
from benchmarks.servers.memcached import MemcachedServer
from benchmarks.servers.redis import RedisServer
from benchmarks.work.throughput import Cell, in_turns

DOCUMENTS = Path("docs/benchmarks")
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

    def __init__(self, scale: Scale, console: Console) -> None:
        self.results = Results()
        self._scale = scale
        self._console = console
        self._versions: dict[str, str] = {}
        self._skipped: dict[str, str] = {}

    def run(self) -> None:
        """Measure everything."""
        load, began = machine.load_average(), time.monotonic()
        when = time.strftime("%Y-%m-%d", time.gmtime())
        if load > BUSY:
            self._say("the machine is busy: wait until it is quiet for figures that count")
        with ClusterServer() as cluster:
            with ExitStack() as stack:
                self.results.speed += in_turns(
                    self._clients(stack, cluster),
                    _CELLS,
                    rounds=self._scale.rounds,
                    seconds=self._scale.seconds,
                    size=_SIZE,
                    say=lambda text: self._say(f"speed: {text}"),
                )
            for turn in range(self._scale.held_rounds):
                self._say(f"one caller's writes: round {turn + 1} of {self._scale.held_rounds}")
                self.results.held.append(self._held(turn, cluster))
        self.results.run = Run(
            when=when,
            kind="full" if self._scale == FULL else "quick" if self._scale == QUICK else "reduced",
            rounds=self._scale.rounds,
            seconds=self._scale.seconds,
            took_seconds=time.monotonic() - began,
            load=load,
            commit=machine.commit(),
            machine=machine.machine(),
            versions=machine.versions() | self._versions,
            skipped=self._skipped,
        )

    # --- who is measured ---------------------------------------------------------------------------------

    def _clients(self, stack: ExitStack, cluster: Server) -> dict[str, ClientProcess]:
        clients = {}
        for number, (name, contender) in enumerate(_OURS.items()):
            # Sessions of their own: one must not hold what the other writes.
            clients[name] = stack.enter_context(self._client(contender, cluster, number * _SESSIONS))
        for name, (contender, start) in _PEERS.items():
            try:
                server = stack.enter_context(start())
                clients[name] = stack.enter_context(self._client(contender, server))
            except (MissingError, ContenderError) as error:
                self._skipped[name] = str(error)
                self._say(f"skipped: {name}: {error}")
        for client in clients.values():
            # By now a session is held from its second read on.
            client.measure(Measure(work="get", callers=8, seconds=1.0))
        return clients

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
        client = ClientProcess(contender, server)
        try:
            self._versions |= {**server.versions, **client.versions}
            if fills:
                client.do(Fill(first=first, count=count, size=_SIZE))
            client.do(Choose(first=first, total=count, sample=count, size=_SIZE))
            yield client
        finally:
            client.close()

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
        seconds = self._scale.held_seconds
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

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False)


def main() -> None:
    """Parse the options, measure, show and write what came of it."""
    # So that what was started is stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.near",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="a small version of everything; writes no files")
    parser.add_argument("--json", action="store_true", help="print one JSON object last, on stdout")
    parser.add_argument(
        "--write", type=Path, metavar="DIR", help=f"write files there (default for full runs: {DOCUMENTS})"
    )
    options = parser.parse_args()
    measuring = Measuring(QUICK if options.quick else FULL, Console(stderr=True, width=148))
    measuring.run()
    results = measuring.results
    directory = options.write or (None if options.quick else DOCUMENTS)
    if directory is not None:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "near.json").write_bytes(
            msgspec.json.format(msgspec.json.encode(results), indent=0) + b"\n"
        )
        (directory / "near.md").write_text(page(results))
    shown = Console(stderr=options.json, width=148)
    for table in tables_of(results):
        shown.print(rich_table(table))
    if options.json:
        told = {"verdicts": verdicts_of(results), "results": results}
        sys.stdout.write(msgspec.json.encode(told).decode() + "\n")


if __name__ == "__main__":
    main()
