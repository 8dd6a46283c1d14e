"""Measure what an operation costs: `uv run --group bench python -m benchmarks.costs [--json]`.

Writes docs/benchmarks/costs.md and prints its tables. Takes about a minute; the cluster and the echo are
started here, on loopback, and end with the run.
"""

import argparse
import sys
import time
from pathlib import Path

import msgspec
from rich.console import Console

from benchmarks import machine
from benchmarks.costs import client, kernel, whole
from benchmarks.costs.figures import Amount, Figure, together
from benchmarks.costs.page import Report, about_siblings, page, tables_of
from benchmarks.costs.server import Servers
from benchmarks.costs.siblings import Turns, siblings_of, take_turns
from benchmarks.report import rich_table

PAGE = Path("docs/benchmarks/costs.md")
_WIDTH = 160
_TURNS = 10
_BATCHES = 200


def measured(amount: Amount, console: Console) -> Report:
    """Measure everything."""
    load = machine.load_average()  # before anything runs: later it would be our own
    servers = Servers()
    volumes = servers.volumes(amount)
    most = max(amount.batches)

    def update() -> None:
        for _ in range(_BATCHES):
            servers.batch("update", most)

    passes: list[list[Figure]] = []
    slowed: list[Turns] = []
    for number in range(amount.passes):
        console.print(f"costs: stages, pass {number + 1} of {amount.passes}", highlight=False)
        stages = servers.figures(amount) + client.figures(amount) + kernel.figures(amount, volumes)
        passes.append(stages)
        slowed.append(take_turns(update, _BATCHES * most, _TURNS))
    return Report(
        when=time.strftime("%Y-%m-%d", time.gmtime()),
        load=load,
        machine=machine.machine(),
        versions=machine.versions(),
        amount=amount,
        figures=together(passes),
        volumes=volumes,
        siblings=siblings_of(slowed),
        whole=whole.measure(amount.seconds, console),
    )


def main() -> None:
    """Parse the options, measure, show and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.costs", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object last, on stdout")
    options = parser.parse_args()
    progress = Console(stderr=True)
    report = measured(Amount(), progress)
    shown = Console(stderr=options.json, width=_WIDTH)
    for table in tables_of(report):
        shown.print(rich_table(table))
    shown.print(about_siblings(report.siblings), highlight=False)
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page(report))
    progress.print(f"written to {PAGE}", highlight=False)
    if options.json:
        sys.stdout.write(msgspec.json.encode(report).decode() + "\n")


if __name__ == "__main__":
    main()
