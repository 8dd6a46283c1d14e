"""Compare how this tree starts with an earlier commit: `python -m benchmarks.starts --base COMMIT`.

Each runs `greenroom up --nodes 3 --actors 2` in turns until it is ready. Counted are the seconds until then,
the processor time of all its processes, and their memory a while later, each page divided by those who share
it (proportional set size). The base is checked out into a temporary folder with an environment of its own.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks.pairs import checked_out
from benchmarks.processes import Process, descendants

_UP = (
    # Not by `uv run`, which would be ended with the benchmark and leave the cluster behind.
    *(".venv/bin/greenroom", "up", "--nodes=3", "--actors=2"),
    *("--listen=127.0.0.1:0", "--json", "--log-level=error"),
)
_START_SECONDS = 120.0
_SETTLE_SECONDS = 3.0
_MEBIBYTE_KIB = 1024
_CPU_FIELDS = slice(11, 15)
_TICKS = 100


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """One start: seconds until ready, processor seconds by then, processes, and MiB a while later."""

    seconds: float
    cpu_seconds: float
    processes: int
    pss_mebibytes: float


def started(tree: Path) -> Start:
    """Start a cluster with the tree's own command, and stop it. Raises RuntimeError if it does not start."""
    began = time.monotonic()
    process = Process(_UP, talks=True, cwd=tree)
    try:
        json.loads(process.answer(_START_SECONDS))
        seconds = time.monotonic() - began
        pids = [process.pid, *descendants(process.pid)]
        cpu = sum(map(_cpu_seconds, pids))
        time.sleep(_SETTLE_SECONDS)
        pids = [process.pid, *descendants(process.pid)]
        return Start(
            seconds=seconds,
            cpu_seconds=cpu,
            processes=len(pids),
            pss_mebibytes=sum(map(_pss_kibibytes, pids)) / _MEBIBYTE_KIB,
        )
    finally:
        process.stop()


def _cpu_seconds(pid: int) -> float:
    """Return the processor time of a process, and of those that it has waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[_CPU_FIELDS])) / _TICKS


def _pss_kibibytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def ratios(pairs: Sequence[tuple[Start, Start]]) -> dict[str, list[float]]:
    """Return every figure of this tree to the base's, pair by pair."""
    return {
        name: [getattr(ours, name) / getattr(base, name) for ours, base in pairs]
        for name in Start.__struct_fields__
    }


def _show(pairs: Sequence[tuple[Start, Start]], console: Console) -> None:
    table = Table("figure", "this tree", "base", "ratio", title="greenroom up, three nodes of two actors")
    for name, found in ratios(pairs).items():
        ours, base = (statistics.median(getattr(pair[side], name) for pair in pairs) for side in (0, 1))
        spread = f"{statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})"
        table.add_row(name, f"{ours:.2f}", f"{base:.2f}", spread)
    console.print(table)


@contextmanager
def _synced(commit: str) -> Iterator[Path]:
    with checked_out(commit) as tree:
        subprocess.run(["uv", "sync", "--quiet"], cwd=tree, check=True)
        yield tree


def _compile(tree: Path) -> None:
    """Spare every start that work: Python may have been told not to write what it has compiled."""
    command = ("uv", "run", "--quiet", "python", "-m", "compileall", "-q", ".venv", "store", "cluster")
    subprocess.run(command, cwd=tree, check=False, stdout=subprocess.DEVNULL)  # some files are not for 3.11


def main() -> None:
    """Parse the options, start in turns, show the ratios."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.starts",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--base", required=True, metavar="COMMIT", help="what to compare this tree with")
    parser.add_argument("--pairs", type=int, default=5, help="how many pairs (default: 5)")
    parser.add_argument("--json", action="store_true", help="print one JSON object last, on stdout")
    options = parser.parse_args()
    console = Console(stderr=True)
    here = Path.cwd()
    pairs = []
    with _synced(options.base) as base:
        _compile(here)
        _compile(base)
        for turn in range(options.pairs):
            console.print(f"pair {turn + 1} of {options.pairs}", highlight=False)
            # Another one first in every pair: who follows whom should not matter.
            order = (here, base) if turn % 2 == 0 else (base, here)
            found = {tree: started(tree) for tree in order}
            pairs.append((found[here], found[base]))
    _show(pairs, console)
    if options.json:
        sys.stdout.write(msgspec.json.encode({"ratios": ratios(pairs), "pairs": pairs}).decode() + "\n")


if __name__ == "__main__":
    main()
