"""The command `python -m simulations`: run, replay, scenario, sequence, mutants, scale, decide.

Results go to stdout, progress to stderr. The exit status is 0 if all is well, 1 if a rule was broken (or a
mutant not found), 2 if the command makes no sense.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import NoReturn

import msgspec

from greenroom.errors import UsageError
from simulations.checks.linearizability import write_history
from simulations.cli.arguments import at_least, check_directory, check_writable, seeds
from simulations.mutants.hunt import as_json, find_all, table
from simulations.mutants.patching import MUTANTS
from simulations.plans.plan import Plan
from simulations.plans.shrinking import Shrinker
from simulations.runs.batch import Summary, run_plan, summarize
from simulations.runs.plan_files import read_plan
from simulations.stories.exchanges import EXCHANGES
from simulations.stories.pictures import draw
from simulations.stories.scenarios import load, names, run_scenario
from simulations.stories.sequences import draw_exchange
from simulations.stories.telling import tell_plan
from simulations.studies import scale
from simulations.studies.deciding import Difference, decide_in_parallel

PICTURES = Path("build/simulations")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}; `{self.prog} --help` tells more\n")


def main(arguments: list[str] | None = None) -> int:
    """Run a command; return the exit status."""
    parser = _Parser(prog="python -m simulations", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    _add_run(commands.add_parser("run", help="run seeds and judge them"))
    _add_replay(
        commands.add_parser("replay", help="show all of one seed, and the shortest story if it fails")
    )
    _add_scenario(commands.add_parser("scenario", help="run a named story and draw it"))
    _add_sequence(
        commands.add_parser("sequence", help="draw what processes say to each other, as it was said")
    )
    _add_mutants(commands.add_parser("mutants", help="plant known mistakes and see them found"))
    _add_scale(commands.add_parser("scale", help="compute what large clusters cost"))
    _add_decide(
        commands.add_parser("decide", help="give replicas hostile commands and see that they decide alike")
    )
    options = parser.parse_args(arguments)
    try:
        return int(options.act(options))
    except UsageError as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read this has seen enough, as `head` does; Python must not try to flush it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


# --- run -------------------------------------------------------------------------------------------------


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seeds", type=seeds, default="0:200", help="FROM:TO (TO not included) or one seed; 0:200 without"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")
    parser.add_argument("--jobs", type=at_least(1), default=1, help="processes; 1 without")
    parser.add_argument(
        "--stop-after", type=at_least(0), default=0, help="end after so many violations; 0: never early"
    )
    _add_profile(parser)
    parser.set_defaults(act=_run)


def _add_profile(parser: argparse.ArgumentParser) -> None:
    either = parser.add_mutually_exclusive_group()
    either.add_argument(
        "--durable", dest="profile", action="store_const", const="durable", default="",
        help="all nodes keep their shards on disk, and disks and power fail",
    )  # fmt: skip
    either.add_argument(
        "--etcd", dest="profile", action="store_const", const="etcd",
        help="all clusters have several coordinators on etcd; every third one has without",
    )  # fmt: skip
    either.add_argument(
        "--mixed", dest="profile", action="store_const", const="mixed", help="some nodes keep nothing on disk"
    )
    either.add_argument(
        "--near", dest="profile", action="store_const", const="near",
        help="some clients keep sessions and show them without asking",
    )  # fmt: skip
    either.add_argument(
        "--near-mixed",
        dest="profile",
        action="store_const",
        const="near-mixed",
        help="both of these",
    )
    either.add_argument(
        "--watched", dest="profile", action="store_const", const="watched",
        help="clients watch sessions for their ends",
    )  # fmt: skip
    either.add_argument(
        "--watched-near", dest="profile", action="store_const", const="watched-near",
        help="so they do, and some keep sessions",
    )  # fmt: skip


def _run(options: argparse.Namespace) -> int:
    summary = summarize(options.seeds, options.jobs, stop_after=options.stop_after, profile=options.profile)
    if options.json:
        print(json.dumps(msgspec.to_builtins(summary)))
    else:
        _tell(summary, options.profile)
    return 1 if summary.violations else 0


def _tell(summary: Summary, profile: str) -> None:
    rate = summary.simulated_seconds / max(summary.processor_seconds, 1e-9)
    print(f"{summary.seeds} seeds, {len(summary.violations)} violations, {summary.undecided} undecided")
    print(
        f"{summary.simulated_seconds / 3600:.2f} simulated hours in {summary.wall_seconds:.1f} s, "
        f"{summary.seeds / max(summary.wall_seconds, 1e-9) * 60:.0f} seeds a minute; "
        f"{rate:.0f} times real time per core"
    )
    print(f"{summary.operations} operations, {summary.answered} answered")
    print(
        f"{summary.shards_lost} shards lost all their members at once; "
        f"{summary.heal_seconds_max:.1f} s at most from healing to whole"
    )
    for title, counts in (("faults", summary.faults), ("messages by role", summary.messages)):
        print(f"{title}:")
        for name, count in sorted(counts.items()):
            print(f"    {name:45} {count}")
    print(f"never reached (role, message): {', '.join(summary.never_reached) or 'none'}")
    print(f"never struck: {', '.join(summary.never_struck) or 'none'}")
    for violation in summary.violations:
        print(f"seed {violation['seed']}: {violation['rule']}: {violation['detail'][:500]}")
    if summary.violations:
        flag = f" --{profile}" if profile else ""
        print(f"replay one with: python -m simulations replay SEED{flag}", file=sys.stderr)


# --- replay ----------------------------------------------------------------------------------------------


def _add_replay(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("seed", help="a seed, or a file with a plan in JSON")
    parser.add_argument("--save", type=Path, help="write the (shrunk) plan to this file, as JSON")
    parser.add_argument("--history", type=Path, help="write the history to this file, as JSON lines")
    parser.add_argument("--no-shrink", action="store_true", help="do not look for a shorter story")
    _add_profile(parser)
    parser.set_defaults(act=_replay)


def _replay(options: argparse.Namespace) -> int:
    plan = read_plan(options.seed, options.profile)
    check_writable(options.save, "--save")
    check_writable(options.history, "--history")
    result, world = run_plan(plan, tracing=True)
    print(tell_plan(plan))
    print("\n".join(world.trace))
    if options.history:
        write_history(options.history, world.history())
    if result.violations and not options.no_shrink:
        rule = result.violations[0].rule
        print(f"shrinking: looking for the shortest story that breaks {rule!r}", file=sys.stderr)
        shrinker = Shrinker(lambda candidate: _breaks(candidate, rule))
        plan = shrinker.shrink(plan)
        result, world = run_plan(plan, tracing=True)
        print(f"\nthe shortest story after {shrinker.runs} runs:\n")
        print(tell_plan(plan))
        print("\n".join(world.trace))
    if options.save:
        options.save.write_bytes(msgspec.json.format(msgspec.json.encode(plan)))
    for violation in result.violations[:5]:
        print(f"\n{violation}")
    print(f"\n{len(result.violations)} violations, trace {result.digest}")
    return 1 if result.violations else 0


def _breaks(plan: Plan, rule: str) -> bool:
    violations = run_plan(plan)[0].violations
    return bool(violations) and violations[0].rule == rule


# --- scenario --------------------------------------------------------------------------------------------


def _add_scenario(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", help=f"of: {', '.join(names())}; all without, or a TOML file")
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")
    parser.add_argument(
        "--svg", type=Path, default=PICTURES, help=f"directory for the pictures; {PICTURES} without"
    )
    parser.add_argument("--trace", action="store_true", help="print the trace, too")
    parser.set_defaults(act=_scenario)


def _scenario(options: argparse.Namespace) -> int:
    outcomes = []
    wanted = options.names or names()
    for name in wanted:
        load(name)
    check_directory(options.svg, "--svg")
    for name in wanted:
        outcome, world = run_scenario(name)
        outcomes.append(outcome)
        picture = options.svg / f"{outcome.name}.svg"
        picture.write_text(draw(world, f"{outcome.name}: {outcome.title}"))
        if options.trace:
            print("\n".join(world.trace))
        print(f"{outcome.name}: {picture}", file=sys.stderr, flush=True)
    if options.json:
        print(json.dumps({"scenarios": msgspec.to_builtins(outcomes)}))
    else:
        print("| scenario | longest without an answer | bound | answered | rules broken |")
        print("|---|---:|---:|---:|---|")
        for each in outcomes:
            longest, broken = f"{each.longest_unavailable_seconds:.2f} s", "; ".join(each.violations)[:200]
            share = f"{each.answered} of {each.operations}"
            print(f"| {each.name} | {longest} | {each.bound_seconds:g} s | {share} | {broken or 'none'} |")
    return 0 if all(outcome.kept for outcome in outcomes) else 1


# --- sequence --------------------------------------------------------------------------------------------


def _add_sequence(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", help=f"of: {', '.join(EXCHANGES)}; all without")
    parser.add_argument(
        "--svg", type=Path, default=PICTURES, help=f"directory for the pictures; {PICTURES} without"
    )
    parser.set_defaults(act=_sequence)


def _sequence(options: argparse.Namespace) -> int:
    for name in options.names:
        if name not in EXCHANGES:
            raise UsageError(f"there is no sequence {name!r}; there are: {', '.join(EXCHANGES)}")
    check_directory(options.svg, "--svg")
    for name in options.names or EXCHANGES:
        picture = options.svg / f"sequence_{name}.svg"
        picture.write_text(draw_exchange(EXCHANGES[name]()))
        print(picture)
    return 0


# --- mutants ---------------------------------------------------------------------------------------------


def _add_mutants(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", help="parts of names; all mutants without")
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")
    parser.add_argument("--jobs", type=at_least(1), default=1, help="processes; 1 without")
    parser.add_argument("--first-seed", type=at_least(0), default=0, help="where to begin; 0 without")
    parser.set_defaults(act=_mutants)


def _mutants(options: argparse.Namespace) -> int:
    for part in options.names:
        if not any(part in name for name in MUTANTS):
            raise UsageError(f"no mutant has {part!r} in its name; there are: {'; '.join(MUTANTS)}")
    names = [name for name in MUTANTS if not options.names or any(part in name for part in options.names)]
    findings = find_all(names, options.jobs, options.first_seed)
    print(as_json(findings) if options.json else table(findings))
    return 0 if all(finding.seeds for finding in findings) else 1


# --- scale -----------------------------------------------------------------------------------------------


def _add_scale(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--nodes-max", type=at_least(10), default=1000, help="leave out larger sizes (10, 100, 1000 nodes)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")
    parser.add_argument(
        "--svg",
        type=Path,
        default=PICTURES / "scale.svg",
        help=f"where to draw; {PICTURES}/scale.svg without",
    )
    parser.set_defaults(act=_scale)


def _scale(options: argparse.Namespace) -> int:
    check_writable(options.svg, "--svg")
    sizes = []
    for nodes, shards in scale.SIZES:
        if nodes <= options.nodes_max:
            print(f"{nodes} nodes, {shards} shards", file=sys.stderr, flush=True)
            sizes.append(scale.measure(nodes, shards))
    print(scale.as_json(sizes) if options.json else scale.as_table(sizes))
    scale.draw(sizes, options.svg)
    return 0


# --- decide ----------------------------------------------------------------------------------------------


def _add_decide(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--commands", type=at_least(1), default=100_000, help="how many; 100000 without")
    parser.add_argument("--seed", type=at_least(0), default=0, help="of the commands; 0 without")
    parser.add_argument("--python", help="another Python, which has msgspec, to decide the same")
    parser.add_argument("--jobs", type=at_least(1), default=1, help="processes, each with a seed; 1 without")
    parser.set_defaults(act=_decide)


def _decide(options: argparse.Namespace) -> int:
    try:
        outcomes = decide_in_parallel(options.commands, options.seed, options.python, options.jobs)
    except OSError as error:
        raise UsageError(f"--python {options.python} cannot be started: {error.strerror}") from None
    except Difference as difference:
        print(f"replicas decided differently: {difference}")
        return 1
    print(f"{options.commands} commands, decided alike: {json.dumps(outcomes)}")
    return 0
