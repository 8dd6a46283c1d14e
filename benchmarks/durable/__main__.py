"""Measure durability: `uv run --group bench python -m benchmarks.durable [--quick] [--only PART,...]`.

Clusters and Redis are started here, on loopback, with their files below `--directory`. A full run writes
docs/benchmarks/durable.md and its raw results; parts that are run one by one are put together there.
"""

import argparse
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from rich.console import Console

from benchmarks import machine
from benchmarks.clients import ContenderError
from benchmarks.durable import footprint, recovery, writes
from benchmarks.durable.figures import PARTS, Results, merged, page, tables_of, verdicts_of
from benchmarks.durable.stage import FULL, QUICK, Scale, Stage
from benchmarks.processes import MissingError
from benchmarks.report import rich_table
from benchmarks.results import BUSY, Run
from greenroom import UnavailableError

DOCUMENTS = Path("docs/benchmarks")
RESULTS_FILE, PAGE_FILE = "durable.json", "durable.md"
_RUN: dict[str, Callable[[Stage], None]] = {
    "writes": writes.run,
    "recovery": recovery.run,
    "footprint": footprint.run,
}
_AMOUNTS = {
    "rounds": "turns that all take in `writes`",
    "seconds": "of one measurement in `writes`",
    "written": "sessions that `writes` works on",
    "stored": "sessions of 300 bytes that `recovery` and the memory of `footprint` store",
    "restarts": "how often `recovery` kills everything, and one actor",
    "slices": f"of {footprint.SLICE:,} sessions of 4 KiB, whose space on disk `footprint` measures",
    "rewrites": "how often it replaces all of them",
    "pace": "how many it replaces a second",
    "limit_seconds": "after so long without success a wait is given up",
}


def parts_named(text: str) -> list[str]:
    """Return the parts of a list. Raises ArgumentTypeError for others."""
    names = [name for name in text.replace(" ", "").split(",") if name]
    if not names or set(names) - set(PARTS):
        raise argparse.ArgumentTypeError(f"--only takes {', '.join(PARTS)}, not {text!r}")
    return names


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.durable",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="small versions of everything; writes no files")
    parser.add_argument("--only", type=parts_named, default=list(PARTS), metavar="PARTS")
    for name, about in _AMOUNTS.items():
        default = getattr(FULL, name)
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=type(default), help=f"{about} (default: {default:,})")
    parser.add_argument("--directory", type=Path, help="on the disk to be measured; a temporary one without")
    parser.add_argument("--json", action="store_true", help="print one JSON object last, on stdout")
    parser.add_argument(
        "--write", type=Path, metavar="DIR", help=f"write files there (default for full runs: {DOCUMENTS})"
    )
    return parser


def scale_of(options: argparse.Namespace) -> Scale:
    """Return how much to do: full or quick, with what the options change."""
    changes = {name: value for name in _AMOUNTS if (value := getattr(options, name)) is not None}
    return msgspec.structs.replace(QUICK if options.quick else FULL, **changes)


def measured(part: str, stage: Stage, *, quick: bool) -> Run:
    """Measure one part; one that breaks off keeps what it has, and says so."""
    stage.skipped, stage.versions = {}, machine.versions()
    load = machine.load_average()
    began, when = time.monotonic(), time.strftime("%Y-%m-%d", time.gmtime())
    try:
        _RUN[part](stage)
    except (ContenderError, MissingError, RuntimeError, UnavailableError) as error:
        stage.skip(f"what was left of {part}", f"{type(error).__name__}: {error}")
    took = time.monotonic() - began
    stage.say(f"{part}: done in {took:.0f} s")
    kind = "quick" if quick else "full" if stage.scale == FULL else "reduced"
    return Run(
        when=when,
        kind=kind,
        rounds=stage.scale.rounds,
        seconds=stage.scale.seconds,
        took_seconds=took,
        load=load,
        commit=machine.commit(),
        machine=machine.machine(),
        versions=stage.versions,
        skipped=stage.skipped,
    )


def write(results: Results, directory: Path) -> None:
    """Write page and raw results. Parts that this run did not measure stay as they are."""
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / RESULTS_FILE
    if file.exists():
        results = merged(msgspec.json.decode(file.read_bytes(), type=Results), results)
    file.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=0) + b"\n")
    (directory / PAGE_FILE).write_text(page(results))


def main() -> None:
    """Parse the options, run the parts, show and write what came of it."""
    # So that what was started is stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    options = _parser().parse_args()
    console = Console(stderr=True, width=148)
    directory = options.write or (None if options.quick else DOCUMENTS)
    stage = Stage(scale_of(options), options.directory, console)
    if machine.load_average() > BUSY:
        stage.say("the machine is busy: wait until it is quiet for figures that count")
    for part in options.only:
        stage.results.runs[part] = measured(part, stage, quick=options.quick)
        if directory is not None:  # after every part, so that a later one cannot lose what came before
            write(stage.results, directory)
    shown = Console(stderr=options.json, width=148)
    for table in tables_of(stage.results):
        shown.print(rich_table(table))
    if options.json:
        told = {"verdicts": verdicts_of(stage.results), "results": stage.results}
        sys.stdout.write(msgspec.json.encode(told).decode() + "\n")


if __name__ == "__main__":
    main()
