"""The command `python -m simulations`; results go to stdout, progress to stderr."""

import argparse
import json
import sys

import msgspec

from simulations.running import Summary, summarize


def main(arguments: list[str] | None = None) -> int:
    """Run a command; return the exit status: 1 if a rule was broken."""
    parser = argparse.ArgumentParser(prog="python -m simulations", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run seeds and judge them")
    run.add_argument("--seeds", default="0:200", help="from:to, or one seed")
    run.add_argument("--json", action="store_true", help="print one JSON object at the end")
    run.add_argument("--jobs", type=int, default=1, help="processes")
    run.add_argument("--stop-after", type=int, default=0, help="end after so many violations")
    run.set_defaults(act=_run)
    options = parser.parse_args(arguments)
    return int(options.act(options))


def _seeds(text: str) -> range:
    first, colon, last = text.partition(":")
    return range(int(first), int(last)) if colon else range(int(first), int(first) + 1)


def _run(options: argparse.Namespace) -> int:
    summary = summarize(_seeds(options.seeds), options.jobs, stop_after=options.stop_after)
    if options.json:
        print(json.dumps(msgspec.to_builtins(summary)))
    else:
        _tell(summary)
    return 1 if summary.violations else 0


def _tell(summary: Summary) -> None:
    rate = summary.simulated_seconds / max(summary.wall_seconds, 1e-9)
    print(f"{summary.seeds} seeds, {len(summary.violations)} violations, {summary.undecided} undecided")
    print(
        f"{summary.simulated_seconds / 3600:.2f} simulated hours in {summary.wall_seconds:.1f} s "
        f"({rate:.0f}x), {summary.operations} operations, {summary.answered} answered"
    )
    print(
        f"{summary.shards_lost} shards lost both replicas, "
        f"longest way back to whole {summary.heal_seconds_max:.1f} s"
    )
    for title, counts in (("faults", summary.faults), ("messages by role", summary.messages)):
        print(f"{title}:")
        for name, count in sorted(counts.items()):
            print(f"    {name:45} {count}")
    for violation in summary.violations:
        print(f"seed {violation['seed']}: {violation['rule']}: {violation['detail'][:500]}")
    if summary.violations:
        print("replay one with: python -m simulations replay SEED", file=sys.stderr)
