"""Commands of benchmarks that write a page of their own, `NAME.md`, and its raw results, `NAME.json`."""

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
from rich.console import Console

from benchmarks.report import rich_table
from benchmarks.run_log import RunLog
from benchmarks.tables import Table
from benchmarks.verdicts import Verdict

DOCUMENTS = Path("docs/benchmarks")
WIDTH = 148
Results = TypeVar("Results")


def command(
    name: str,
    about: str | None,
    measured: Callable[[RunLog, bool], Results],
    *,
    tables_of: Callable[[Results], list[Table]],
    verdicts_of: Callable[[Results], list[Verdict]],
    page: Callable[[Results], str],
) -> None:
    """Parse the options, measure, write and show what came of it.

    `measured` is given whether the run is to be quick. The other three are computed from what it returns.
    """
    stop_what_was_started()
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}",
        description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_options(parser)
    options = parser.parse_args()
    log = RunLog(Console(stderr=True, width=WIDTH))
    log.warn_if_busy()
    results = measured(log, options.quick)
    if (directory := directory_of(options)) is not None:
        write(directory, name, results, page(results))
    show(results, tables_of(results), verdicts_of(results), as_json=options.json)


def stop_what_was_started() -> None:
    """Have SIGTERM end this process as an exception does, so that servers and clients end with it."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what each of these commands takes."""
    parser.add_argument("--quick", action="store_true", help="a small version of everything; writes no files")
    parser.add_argument("--json", action="store_true", help="print one JSON object last, on stdout")
    parser.add_argument(
        "--write", type=Path, metavar="DIR", help=f"write files there (default for full runs: {DOCUMENTS})"
    )


def directory_of(options: argparse.Namespace) -> Path | None:
    """Return where files are to be written; None for a quick run that was told of no place."""
    directory: Path | None = options.write
    return directory or (None if options.quick else DOCUMENTS)


def write(directory: Path, name: str, results: object, text: str) -> None:
    """Write the raw results and the page."""
    directory.mkdir(parents=True, exist_ok=True)
    raw = msgspec.json.format(msgspec.json.encode(results), indent=0)
    (directory / f"{name}.json").write_bytes(raw + b"\n")
    (directory / f"{name}.md").write_text(text)


def show(results: object, tables: Sequence[Table], verdicts: Sequence[Verdict], *, as_json: bool) -> None:
    """Print the tables; with `as_json` on stderr, and results and verdicts on stdout."""
    console = Console(stderr=as_json, width=WIDTH)
    for table in tables:
        console.print(rich_table(table))
    if as_json:
        told = {"verdicts": verdicts, "results": results}
        sys.stdout.write(msgspec.json.encode(told).decode() + "\n")
