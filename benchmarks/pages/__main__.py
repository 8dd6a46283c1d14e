"""Measure pages: `uv run --group bench python -m benchmarks.pages [--rounds 3] [--seconds 4] [--json]`.

uvicorn, wrk, Redis and a cluster run on loopback and end with the run. A run of three rounds or more writes
docs/benchmarks/pages.md.
"""

import argparse
import importlib.metadata
import json
import secrets
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import msgspec
from rich.console import Console

from benchmarks import machine
from benchmarks.pages.figures import CLUSTER, NEAR, PageReading, PageReport, page, tables_of
from benchmarks.pages.load import MIXES, customers, load
from benchmarks.pages.served import ADDRESSES_VARIABLE, TITLE_VARIABLE
from benchmarks.processes import MissingError, Process, Server, cpu_seconds, descendants, python_module
from benchmarks.races.catalogue import MEASURED
from benchmarks.races.greenroom_shops import SECRET
from benchmarks.races.shops import Contender
from benchmarks.report import rich_table
from benchmarks.servers.cluster import ClusterServer
from benchmarks.servers.ports import until_listening
from benchmarks.servers.redis import RedisServer
from greenroom_cluster.runtime.ports import reserved_port

PAGE = Path("docs/benchmarks/pages.md")
HOST = "127.0.0.1"
_ROUNDS_MIN = 3
_PACKAGES = ("uvicorn", "httptools", "uvloop", "starlette", "starsessions", "redis", "itsdangerous")
_UVICORN = (
    "--factory",
    "benchmarks.pages.served:app",
    "--loop=uvloop",
    "--http=httptools",
    "--no-access-log",
)


WORKERS = 4
"""Workers among which each visitor's requests are spread, for contenders whose workers share sessions."""
SPREAD = (CLUSTER, NEAR)
SPREAD_MIX = "nine reads, one change"


class App:
    """The uvicorn workers of a contender's shop, and customers who are logged in."""

    def __init__(
        self, contender: Contender, server: Server | None, stack: ExitStack, workers: int = 1
    ) -> None:
        self.title = contender.title
        self.workers = workers
        self._server = server
        port = stack.enter_context(reserved_port(HOST)).getsockname()[1]
        self.address = f"http://{HOST}:{port}"
        addresses = {**(server.addresses if server is not None else {}), SECRET: secrets.token_hex(32)}
        variables = {TITLE_VARIABLE: contender.title, ADDRESSES_VARIABLE: json.dumps(addresses)}
        command = ["env", *(f"{name}={value}" for name, value in variables.items())]
        command += [*python_module("uvicorn"), *_UVICORN, f"--host={HOST}", f"--port={port}"]
        if workers > 1:
            command.append(f"--workers={workers}")
        self._process = Process(command)
        stack.callback(self._process.stop)
        until_listening(HOST, port, self._process)
        self.cookies = customers(self.address)

    def measure(self, turn: int, mix: str, seconds: float) -> PageReading:
        """Load the workers and return what came of it."""
        app, servers = self._app_cpu(), self._servers_cpu()
        loaded = load(self.address, self.cookies, mix, seconds, spread=self.workers > 1)
        return PageReading(
            round=turn,
            title=self.title,
            mix=mix,
            workers=self.workers,
            per_second=loaded.answered / loaded.micros * 1e6,
            p50_us=loaded.p50_us,
            p99_us=loaded.p99_us,
            app_cpu=(self._app_cpu() - app) / loaded.answered,
            server_cpu=(self._servers_cpu() - servers) / loaded.answered,
        )

    def _app_cpu(self) -> float:
        return sum(cpu_seconds(pid) for pid in (self._process.pid, *descendants(self._process.pid)))

    def _servers_cpu(self) -> float:
        return 0.0 if self._server is None else self._server.cpu_seconds()


def measured(rounds: int, seconds: float, console: Console) -> PageReport:
    """Start everything, let all take turns, and return the readings."""
    report = PageReport(
        when=time.strftime("%Y-%m-%d", time.gmtime()),
        commit=machine.commit(),
        load=machine.load_average(),
        machine=machine.machine(),
        versions=machine.versions(),
    )
    report.versions |= {name: importlib.metadata.version(name) for name in _PACKAGES}
    with ExitStack() as stack:
        servers: dict[str, Server] = {}
        for kind, server in (("redis", RedisServer()), ("cluster", ClusterServer())):
            try:
                servers[kind] = stack.enter_context(server)
                report.versions |= server.versions
            except MissingError as error:
                report.skipped[kind] = str(error)
        present = [each for each in MEASURED if not each.stands_on or each.stands_on in servers]
        apps = [App(contender, servers.get(contender.stands_on), stack) for contender in present]
        spread = [
            App(contender, servers.get(contender.stands_on), stack, WORKERS)
            for contender in present
            if contender.title in SPREAD
        ]
        for turn in range(rounds):
            for mix in MIXES:
                console.print(f"round {turn + 1} of {rounds}: {mix}", highlight=False)
                first = turn % len(apps)
                for app in apps[first:] + apps[:first]:
                    report.readings.append(app.measure(turn, mix, seconds))
            console.print(f"round {turn + 1} of {rounds}: {SPREAD_MIX}, {WORKERS} workers", highlight=False)
            for app in spread[:: 1 if turn % 2 else -1]:
                report.readings.append(app.measure(turn, SPREAD_MIX, seconds))
    return report


def main() -> None:
    """Parse the options, measure, show and write."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pages", description=__doc__)
    parser.add_argument("--rounds", type=int, default=_ROUNDS_MIN, help="turns that everyone takes")
    parser.add_argument("--seconds", type=float, default=4.0, help="of one measurement, at least 1")
    parser.add_argument("--json", action="store_true", help="print one JSON object last, on stdout")
    options = parser.parse_args()
    console = Console(stderr=True, width=160)
    report = measured(options.rounds, max(1.0, options.seconds), console)
    for table in tables_of(report):
        console.print(rich_table(table))
    for title, reason in report.skipped.items():
        console.print(f"left out: {title}: {reason}", highlight=False)
    if options.rounds >= _ROUNDS_MIN:
        PAGE.parent.mkdir(parents=True, exist_ok=True)
        PAGE.write_text(page(report))
        console.print(f"written to {PAGE}", highlight=False)
    if options.json:
        sys.stdout.write(msgspec.json.encode(report).decode() + "\n")


if __name__ == "__main__":
    main()
