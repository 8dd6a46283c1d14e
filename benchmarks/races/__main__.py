"""Play the races: `uv run --group bench python -m benchmarks.races [--json] [--only NAMES]`.

Redis (Debian's redis-server) and a cluster are started here, on loopback, and end with the run. A full run
writes docs/benchmarks/races.md; with `--only` nothing is written.
"""

import argparse
import asyncio
import importlib.metadata
import logging
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import msgspec
from rich.console import Console

from benchmarks import machine
from benchmarks.processes import MissingError
from benchmarks.races import overhead
from benchmarks.races.catalogue import CONTENDERS, MEASURED, WITHOUT_STORE
from benchmarks.races.page import Report, overhead_tables, page, race_table
from benchmarks.races.scenes import findings_of
from benchmarks.races.shops import Contender
from benchmarks.report import rich_table
from benchmarks.servers.cluster import ClusterServer
from benchmarks.servers.redis import RedisServer

PAGE = Path("docs/benchmarks/races.md")


def contenders_named(text: str) -> list[str]:
    """Return the contenders of a list. Raises ArgumentTypeError for others."""
    names = [name for name in text.replace(" ", "").split(",") if name]
    unknown = [name for name in names if name not in CONTENDERS]
    if unknown or not names:
        raise argparse.ArgumentTypeError(f"--only takes {', '.join(CONTENDERS)}, not {text!r}")
    return names


def main() -> None:
    """Parse the options, play, show and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.races", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object last, on stdout")
    parser.add_argument(
        "--only", type=contenders_named, metavar="NAMES", help=f"some of {', '.join(CONTENDERS)}"
    )
    options = parser.parse_args()
    # Dropped changes and refused requests are what is played for here.
    logging.getLogger("greenroom.web").setLevel(logging.ERROR)
    logging.getLogger("django").setLevel(logging.CRITICAL)
    console = Console(stderr=True, width=200)
    report = _report(options.only or list(CONTENDERS), console, with_overhead=options.only is None)
    for table in (race_table(report.findings), *overhead_tables(report.turns)):
        console.print(rich_table(table))
    for title, reason in report.skipped.items():
        console.print(f"left out: {title}: {reason}", highlight=False)
    if options.only is None:
        PAGE.parent.mkdir(parents=True, exist_ok=True)
        PAGE.write_text(page(report))
        console.print(f"written to {PAGE}", highlight=False)
    if options.json:
        sys.stdout.write(msgspec.json.encode(report).decode() + "\n")


def _report(names: list[str], console: Console, *, with_overhead: bool) -> Report:
    load = machine.load_average()
    needed = {CONTENDERS[name].stands_on for name in names}
    missing: dict[str, str] = {}
    with ExitStack() as stack:
        addresses: dict[str, str] = {}
        versions = machine.versions()
        for kind, server in (("redis", RedisServer()), ("cluster", ClusterServer())):
            if kind in needed:
                try:
                    stack.enter_context(server)
                except MissingError as error:
                    missing[kind] = str(error)
                else:
                    addresses |= server.addresses
                    versions |= server.versions
        played = [CONTENDERS[name] for name in names if CONTENDERS[name].stands_on not in missing]
        for package in {package for contender in played for package in contender.packages}:
            versions[package] = importlib.metadata.version(package)
        report = Report(
            when=time.strftime("%Y-%m-%d", time.gmtime()),
            machine=machine.machine(),
            load=load,
            versions=versions,
            skipped={
                CONTENDERS[name].title: missing[CONTENDERS[name].stands_on]
                for name in names
                if CONTENDERS[name].stands_on in missing
            },
            findings=[],
            turns={},
        )
        asyncio.run(_play(report, played, addresses, console, with_overhead=with_overhead))
        return report


async def _play(
    report: Report,
    contenders: list[Contender],
    addresses: Mapping[str, str],
    console: Console,
    *,
    with_overhead: bool,
) -> None:
    for contender in contenders:
        console.print(f"{contender.title} ...", highlight=False)
        has_store = contender is not CONTENDERS[WITHOUT_STORE]
        async with contender.open(addresses) as shop:
            report.findings.append(await findings_of(contender.title, shop, has_store=has_store))
    if with_overhead:
        console.print("overhead ...")
        report.turns = await overhead.measure(MEASURED, addresses)


if __name__ == "__main__":
    main()
