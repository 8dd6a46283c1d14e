"""Compare this tree with an earlier commit: `uv run --group bench python -m benchmarks.pairs --base COMMIT`.

Both run part (a) with our own store alone and 1, 8 and 64 callers, in alternating pairs on one machine, so
that its drift falls on both. The base is checked out into a temporary folder with an environment of its own,
and measured by its own benchmark. A ratio is of one pair: above 1, this tree is faster; CPU below 1, it takes
less.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks.results import Reading, Results
from benchmarks.samples import Sample

CONTENDER = "greenroom"
_RESULTS = "results.json"
_CALLERS = (1, 8, 64)
_PROGRAM = f"""
import runpy
import msgspec
from benchmarks import stage
stage.QUICK = msgspec.structs.replace(stage.QUICK, callers={_CALLERS})
runpy.run_module("benchmarks", run_name="__main__", alter_sys=True)
"""
"""The quick benchmark of either tree with our callers: a base has only the options that it had."""


class Ratios(msgspec.Struct, frozen=True, kw_only=True):
    """This tree to the base, a ratio for each pair: operations a second, and CPU of servers and client."""

    work: str
    callers: int
    rate: list[float]
    server_cpu: list[float]
    client_cpu: list[float]


def ratios_of(pairs: Sequence[tuple[Sequence[Reading], Sequence[Reading]]]) -> list[Ratios]:
    """Return the ratios of every work and number of callers that both sides of every pair measured.

    Each pair is (this tree's readings, the base's).
    """
    by_cell = [tuple(_cells(side) for side in pair) for pair in pairs]
    cells = [cell for cell in by_cell[0][0] if all(cell in side for pair in by_cell for side in pair)]

    def ratios(figure: str, cell: tuple[str, int]) -> list[float]:
        return [getattr(ours[cell], figure) / getattr(base[cell], figure) for ours, base in by_cell]

    return [
        Ratios(
            work=cell[0],
            callers=cell[1],
            rate=ratios("rate", cell),
            server_cpu=ratios("server_cpu", cell),
            client_cpu=ratios("client_cpu", cell),
        )
        for cell in cells
    ]


def _cells(readings: Sequence[Reading]) -> dict[tuple[str, int], Sample]:
    return {(each.work, each.callers): each.sample for each in readings if each.contender == CONTENDER}


@contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """Check the commit out into a temporary folder, which is removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="greenroom-base-"))
    tree = folder / "tree"
    subprocess.run(["git", "worktree", "add", "--quiet", "--detach", tree, commit], check=True)
    try:
        yield tree
    finally:
        subprocess.run(["git", "worktree", "remove", "--force", tree], check=True)
        shutil.rmtree(folder, ignore_errors=True)


def measure(tree: Path, seconds: float) -> list[Reading]:
    """Return what the tree's own benchmark reads. Raises CalledProcessError if that fails."""
    with tempfile.TemporaryDirectory(prefix="greenroom-pairs-") as folder:
        command = ["uv", "run", "--quiet", "--group", "bench", "python", "-c", _PROGRAM, "--quick"]
        command += ["--only", "a", "--contenders", CONTENDER, "--rounds", "1"]
        command += ["--seconds", str(seconds), "--write", folder]
        subprocess.run(command, cwd=tree, check=True, capture_output=True)
        return msgspec.json.decode((Path(folder) / _RESULTS).read_bytes(), type=Results).throughput


def _show(rows: Sequence[Ratios], console: Console) -> None:
    table = Table(
        "work", "callers", "rate", "server CPU", "client CPU", title="this tree to the base, median"
    )
    for row in rows:
        figures = (row.rate, row.server_cpu, row.client_cpu)
        table.add_row(
            row.work,
            str(row.callers),
            *(f"{statistics.median(each):.3f} ({min(each):.3f} to {max(each):.3f})" for each in figures),
        )
    console.print(table)


def main() -> None:
    """Parse the options, measure in turns, show the ratios."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.pairs",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--base", required=True, metavar="COMMIT", help="what to compare this tree with")
    parser.add_argument("--pairs", type=int, default=5, help="how many pairs (default: 5)")
    parser.add_argument("--seconds", type=float, default=1.0, help="of one measurement (default: 1)")
    parser.add_argument("--json", action="store_true", help="print one JSON list last, on stdout")
    options = parser.parse_args()
    console = Console(stderr=True)
    here = Path.cwd()
    pairs = []
    with checked_out(options.base) as base:
        for turn in range(options.pairs):
            console.print(f"pair {turn + 1} of {options.pairs}", highlight=False)
            # Another one first in every pair: who follows whom should not matter.
            order = (here, base) if turn % 2 == 0 else (base, here)
            readings = {tree: measure(tree, options.seconds) for tree in order}
            pairs.append((readings[here], readings[base]))
    rows = ratios_of(pairs)
    _show(rows, console)
    if options.json:
        sys.stdout.write(msgspec.json.encode(rows).decode() + "\n")


if __name__ == "__main__":
    main()
