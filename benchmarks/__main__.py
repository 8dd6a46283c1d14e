"""Run the benchmarks: `uv run --group bench python -m benchmarks [--quick] [--json] [--only PART,...]`.

Every contender is started here, on loopback, and all take turns within a part: Redis and memcached from the
distribution's packages, the clients from the dependency group `bench`. What is not installed is left out,
with a word on how to install it. A full run writes tables, plots and raw results to docs/benchmarks; parts
run one by one are put together there. `--render` writes page and plots again from the raw results.
"""

import argparse
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
from rich.console import Console

from benchmarks import machine, report
from benchmarks.clients import ContenderError
from benchmarks.contenders.catalogue import CONTENDERS
from benchmarks.processes import MissingError
from benchmarks.results import PARTS, Results, Run
from benchmarks.stage import FULL, QUICK, Scale, Stage
from benchmarks.summary import summary_of
from benchmarks.work import failover, scaling, stored, throughput, transfer

DOCUMENTS = Path("docs/benchmarks")
_RUN = {
    "throughput": throughput.run,
    "scaling": scaling.run,
    "stored": stored.run,
    "failover": failover.run,
    "transfer": transfer.run,
}
_LETTERS = dict(zip("abcde", PARTS, strict=True))


def parts_named(text: str) -> list[str]:
    """Return the parts of a list like `a,c` or `throughput,stored`. Raises ArgumentTypeError for others."""
    names = [_LETTERS.get(name, name) for name in text.replace(" ", "").split(",") if name]
    unknown = [name for name in names if name not in PARTS]
    if unknown or not names:
        raise argparse.ArgumentTypeError(f"--only takes {', '.join(PARTS)} (or a to e), not {text!r}")
    return names


def contenders_named(text: str) -> tuple[str, ...]:
    """Return the contenders of a list. Raises ArgumentTypeError for others."""
    names = tuple(name for name in text.replace(" ", "").split(",") if name)
    unknown = [name for name in names if name not in CONTENDERS]
    if unknown:
        raise argparse.ArgumentTypeError(
            f"--contenders takes {', '.join(CONTENDERS)}, not {', '.join(unknown)}"
        )
    return names


def scale_of(options: argparse.Namespace) -> Scale:
    """Return how much to do: full or quick, with what the options change."""
    scale = QUICK if options.quick else FULL
    changes = {
        name: value
        for name, value in (("rounds", options.rounds), ("seconds", options.seconds))
        if value is not None
    }
    if options.rounds is not None:
        changes |= dict.fromkeys(("rounds_of_larger", "failovers", "transfers"), options.rounds)
    return msgspec.structs.replace(scale, **changes)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small versions of everything; writes no files")
    parser.add_argument("--json", action="store_true", help="print one JSON object last, on stdout")
    parser.add_argument(
        "--only",
        type=parts_named,
        default=list(PARTS),
        metavar="PARTS",
        help=f"some of {', '.join(PARTS)}, or a to e",
    )
    parser.add_argument(
        "--contenders",
        type=contenders_named,
        default=(),
        metavar="NAMES",
        help=f"some of {', '.join(CONTENDERS)}",
    )
    parser.add_argument("--rounds", type=int, help="turns that everyone takes")
    parser.add_argument("--seconds", type=float, help="of one measurement")
    parser.add_argument(
        "--write", type=Path, metavar="DIR", help=f"write files there (default for full runs: {DOCUMENTS})"
    )
    parser.add_argument(
        "--render",
        action="store_true",
        help=f"measure nothing; write page and plots again from the raw results in --write or {DOCUMENTS}",
    )
    return parser


def main() -> None:
    """Parse the options, run the parts, show and write what came of it."""
    # So that what was started is stopped: a server that changes its user would outlive this process.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    options = _parser().parse_args()
    console = Console(stderr=True)
    if options.render:
        _tell(report.render(options.write or DOCUMENTS, console), options)
        return
    directory = options.write or (None if options.quick else DOCUMENTS)
    scale = scale_of(options)
    stage = Stage(scale, options.contenders, console)
    load = machine.load_average()  # before anything runs: later it would be our own
    stage.warn_if_busy()
    for part in options.only:
        stage.results.runs[part] = measured(
            part, _RUN[part], stage, kind_of(scale, quick=options.quick), load
        )
        if directory is not None:  # after every part, so that a later one cannot lose the hour before it
            report.write(stage.results, directory, console)
    _tell(stage.results, options)


def kind_of(scale: Scale, *, quick: bool) -> str:
    """Return what to call a run of this scale."""
    if quick:
        return "quick"
    return "full" if scale == FULL else "reduced"


def measured(part: str, run: Callable[[Stage], None], stage: Stage, kind: str, load: float) -> Run:
    """Measure one part; one that breaks off keeps what it has, and says so."""
    stage.begin(load)
    try:
        run(stage)
    except (ContenderError, MissingError, RuntimeError) as error:
        stage.skip(f"what was left of {part}", f"{type(error).__name__}: {error}")
    ended = stage.ended(kind=kind, rounds=stage.scale.rounds_of(part), seconds=stage.scale.seconds)
    stage.say(f"{part}: done in {ended.took_seconds:.0f} s")
    return ended


def _tell(results: Results, options: argparse.Namespace) -> None:
    report.show(results, Console(stderr=options.json))
    if options.json:
        sys.stdout.write(msgspec.json.encode(summary_of(results)).decode() + "\n")


if __name__ == "__main__":
    main()
