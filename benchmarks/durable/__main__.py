"""Measure durability: `uv run --group bench python -m benchmarks.durable [--quick] [--only PART,...]`.

Clusters and Redis are started here, on loopback, with their files below `--directory`. A full run writes
docs/benchmarks/durable.md and its raw results; parts that are run one by one are put together there.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import msgspec
from rich.console import Console

from benchmarks import own_page
from benchmarks.clients import ContenderError
from benchmarks.durable import footprint, recovery, writes
from benchmarks.durable.figures import PARTS, Results, merged, page, tables_of, verdicts_of
from benchmarks.durable.stage import FULL, QUICK, Scale, Stage
from benchmarks.processes import MissingError
from benchmarks.results import Run
from greenroom import UnavailableError

NAME = "durable"
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
    own_page.add_options(parser)
    parser.add_argument("--only", type=parts_named, default=list(PARTS), metavar="PARTS")
    for name, about in _AMOUNTS.items():
        default = getattr(FULL, name)
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=type(default), help=f"{about} (default: {default:,})")
    parser.add_argument("--directory", type=Path, help="on the disk to be measured; a temporary one without")
    return parser


def scale_of(options: argparse.Namespace) -> Scale:
    """Return how much to do: full or quick, with what the options change."""
    changes = {name: value for name in _AMOUNTS if (value := getattr(options, name)) is not None}
    return msgspec.structs.replace(QUICK if options.quick else FULL, **changes)


def measured(part: str, stage: Stage, *, quick: bool) -> Run:
    """Measure one part; one that breaks off keeps what it has, and says so."""
    stage.begin()
    try:
        _RUN[part](stage)
    except (ContenderError, MissingError, RuntimeError, UnavailableError) as error:
        stage.skip(f"what was left of {part}", f"{type(error).__name__}: {error}")
    kind = "quick" if quick else "full" if stage.scale == FULL else "reduced"
    run = stage.ended(kind=kind, rounds=stage.scale.rounds, seconds=stage.scale.seconds)
    stage.say(f"{part}: done in {run.took_seconds:.0f} s")
    return run


def write(results: Results, directory: Path) -> None:
    """Write page and raw results. Parts that this run did not measure stay as they are."""
    file = directory / f"{NAME}.json"
    if file.exists():
        results = merged(msgspec.json.decode(file.read_bytes(), type=Results), results)
    own_page.write(directory, NAME, results, page(results))


def main() -> None:
    """Parse the options, run the parts, show and write what came of it."""
    own_page.stop_what_was_started()
    options = _parser().parse_args()
    directory = own_page.directory_of(options)
    stage = Stage(scale_of(options), options.directory, Console(stderr=True, width=own_page.WIDTH))
    stage.warn_if_busy()
    for part in options.only:
        stage.results.runs[part] = measured(part, stage, quick=options.quick)
        if directory is not None:  # after every part, so that a later one cannot lose what came before
            write(stage.results, directory)
    results = stage.results
    own_page.show(results, tables_of(results), verdicts_of(results), as_json=options.json)


if __name__ == "__main__":
    main()
