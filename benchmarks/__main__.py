"""Run the benchmarks: `uv run python -m benchmarks [--quick] [--json]`.

Reads and replicated writes of a cluster on this machine, beside a bare echo over the same event loops in the
same run. All contenders take turns, several times; what is printed is the median and the ratio to the echo.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from statistics import median

from rich.console import Console
from rich.table import Table

from benchmarks.cluster import ClusterServer, ClusterWork
from benchmarks.echo import EchoClient, EchoServer
from benchmarks.load import Sample, measure

CALLERS = (1, 64)
Samples = dict[tuple[str, int], list[Sample]]


async def run(rounds: int, seconds: float, progress: Console) -> Samples:
    """Take `rounds` turns of `seconds` for each contender and number of callers."""
    samples: Samples = {}
    async with EchoServer() as echo_server, ClusterServer() as cluster, EchoClient(echo_server.port) as echo:
        work = ClusterWork(cluster.seeds)
        await work.prepare()

        def echo_round_trip(_number: int) -> Awaitable[object]:
            return echo.round_trip()

        contenders: dict[str, tuple[Callable[[int], Awaitable[object]], Callable[[], float]]] = {
            "echo": (echo_round_trip, echo_server.cpu_seconds)
        }
        for name, operation in work.operations.items():
            contenders[name] = (operation, cluster.cpu_seconds)
        for turn in range(rounds):
            progress.print(f"round {turn + 1} of {rounds}")
            for callers in CALLERS:
                for name, (operation, server_cpu) in contenders.items():
                    sample = await measure(operation, callers, seconds, server_cpu)
                    samples.setdefault((name, callers), []).append(sample)
        await work.close()
    return samples


def summarize(samples: Samples) -> dict[str, object]:
    """Return medians, spread and ratios as one JSON-ready object."""
    result: dict[str, object] = {"contenders": {}, "ratios": {}}
    contenders: dict[str, object] = {}
    for (name, callers), taken in samples.items():
        rates = sorted(sample.rate for sample in taken)
        contenders[f"{name}_{callers}"] = {
            "per_second": round(median(rates)),
            "per_second_min": round(rates[0]),
            "per_second_max": round(rates[-1]),
            "p50_us": round(median(sample.p50 for sample in taken) * 1e6, 1),
            "p99_us": round(median(sample.p99 for sample in taken) * 1e6, 1),
            "client_cpu_us": round(median(sample.client_cpu for sample in taken) * 1e6, 2),
            "server_cpu_us": round(median(sample.server_cpu for sample in taken) * 1e6, 2),
        }
    ratios = {}
    for name in ("reads", "replicated_writes"):
        for callers in CALLERS:
            pairs = zip(samples[name, callers], samples["echo", callers], strict=True)
            ratios[f"{name}_vs_echo_{callers}"] = round(median(a.rate / b.rate for a, b in pairs), 3)
    result["contenders"] = contenders
    result["ratios"] = ratios
    return result


def show(result: dict[str, object], console: Console) -> None:
    """Print the tables."""
    table = Table(title="medians of all rounds; times in microseconds")
    contenders = result["contenders"]
    assert isinstance(contenders, dict)
    for column in ("contender_callers", *next(iter(contenders.values()))):
        table.add_column(column, justify="right" if column != "contender_callers" else "left")
    for name, figures in contenders.items():
        table.add_row(name, *(f"{figure:,}" for figure in figures.values()))
    console.print(table)
    ratios = result["ratios"]
    assert isinstance(ratios, dict)
    for name, ratio in ratios.items():
        console.print(f"{name}: {ratio}")


def main() -> None:
    """Parse the options, run, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--json", action="store_true", help="print one JSON object last, on stdout")
    options = parser.parse_args()
    rounds, seconds = (2, 1.0) if options.quick else (5, 3.0)
    progress = Console(stderr=True)
    result = summarize(asyncio.run(run(rounds, seconds, progress)))
    show(result, Console(stderr=options.json))
    if options.json:
        sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
