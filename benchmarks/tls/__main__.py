"""Measure what mutual TLS costs: `uv run --group bench python -m benchmarks.tls [--quick] [--json]`.

Clusters and Redis are started here, on loopback. A full run writes docs/benchmarks/tls.md and its raw
results.
"""

import argparse
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec
from rich.console import Console

from benchmarks import machine
from benchmarks.clients import ClientProcess, ContenderError
from benchmarks.contenders.catalogue import Contender
from benchmarks.orders import Choose, Fill
from benchmarks.processes import MissingError, Server
from benchmarks.report import rich_table
from benchmarks.results import BUSY, Run
from benchmarks.servers.cluster import ClusterServer
from benchmarks.servers.redis import RedisServer
from benchmarks.tls import idle
from benchmarks.tls.figures import PLAIN, REDIS_PLAIN, REDIS_TLS, TLS, Results, page, tables_of, verdicts_of
from benchmarks.work.throughput import Cell, in_turns

DOCUMENTS = Path("docs/benchmarks")
_SIZE, _SESSIONS = 300, 10_000
_ALL = (PLAIN, TLS, REDIS_PLAIN, REDIS_TLS)
_CELLS: tuple[Cell, ...] = (("get", 64, _ALL), ("update", 64, _ALL), ("get", 1, _ALL), ("update", 1, _ALL))
_NODES = 2
_OURS = Contender("greenroom:ClusterClient", "cluster")
_REDIS = Contender("redis_py:RedisWaitClient", "redis_replicated")


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """How much is done: turns, seconds of one measurement, stores that idle."""

    rounds: int = 8
    seconds: float = 1.5
    stores: int = 200


FULL = Scale()
QUICK = Scale(rounds=1, seconds=0.3, stores=20)


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
        with ExitStack() as stack:
            plain, tls = (stack.enter_context(ClusterServer(_NODES, tls=tls)) for tls in (False, True))
            with ExitStack() as clients:
                self.results.speed += in_turns(
                    self._clients(clients, {PLAIN: plain, TLS: tls}),
                    _CELLS,
                    rounds=self._scale.rounds,
                    seconds=self._scale.seconds,
                    size=_SIZE,
                    say=lambda text: self._say(f"speed: {text}"),
                )
            for name, server in ((PLAIN, plain), (TLS, tls)):
                self._say(f"idle connections: {name}")
                # One connection to each node and one to each node's actor.
                self.results.idle.append(idle.measure(name, server, 2 * _NODES, self._scale.stores))
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

    def _clients(self, stack: ExitStack, ours: dict[str, Server]) -> dict[str, ClientProcess]:
        clients = {name: stack.enter_context(self._client(_OURS, server)) for name, server in ours.items()}
        for name, tls in ((REDIS_PLAIN, False), (REDIS_TLS, True)):
            try:
                server = stack.enter_context(RedisServer(replicas=1, tls=tls))
                clients[name] = stack.enter_context(self._client(_REDIS, server))
            except (MissingError, ContenderError) as error:
                self._skipped[name] = str(error)
                self._say(f"skipped: {name}: {error}")
        return clients

    @contextmanager
    def _client(self, contender: Contender, server: Server) -> Iterator[ClientProcess]:
        client = ClientProcess(contender, server)
        try:
            self._versions |= {**server.versions, **client.versions}
            client.do(Fill(first=0, count=_SESSIONS, size=_SIZE))
            client.do(Choose(total=_SESSIONS, sample=_SESSIONS, size=_SIZE))
            yield client
        finally:
            client.close()

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False)


def main() -> None:
    """Parse the options, measure, show and write what came of it."""
    # So that what was started is stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tls",
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
        (directory / "tls.json").write_bytes(
            msgspec.json.format(msgspec.json.encode(results), indent=0) + b"\n"
        )
        (directory / "tls.md").write_text(page(results))
    shown = Console(stderr=options.json, width=148)
    for table in tables_of(results):
        shown.print(rich_table(table))
    if options.json:
        told = {"verdicts": verdicts_of(results), "results": results}
        sys.stdout.write(msgspec.json.encode(told).decode() + "\n")


if __name__ == "__main__":
    main()
