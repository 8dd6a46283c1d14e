"""From readings to ratios, verdicts and a page. Pure."""

from statistics import median

import msgspec

from benchmarks.results import Reading, Run
from benchmarks.samples import Sample
from benchmarks.summary import Readings, p50_of
from benchmarks.tables import Table, page_of, readings_table, run_lines, verdict_table
from benchmarks.verdicts import Verdict, least, medians_judged, most

NEAR, PLAIN = "greenroom, near cache", "greenroom"
REDIS, COREDIS, EMCACHE = "redis-py", "coredis, client-side cache", "emcache"
_MICRO = 1e6
_MILLI = 1e3


class HeldReading(msgspec.Struct, frozen=True, kw_only=True):
    """One caller's writes of sessions that another process reads all the time, with near caches or without.

    In the second half of `stopped` that process stood still; in `killed` an actor was killed meanwhile.
    """

    round: int
    held: Sample
    unheld: Sample
    stopped: Sample
    killed: Sample


class Results(msgspec.Struct, kw_only=True):
    """Everything, and the run that measured it."""

    run: Run | None = None
    speed: list[Reading] = []
    held: list[HeldReading] = []


TARGETS = (
    least("reads_vs_emcache", 1.7, "64 callers: reads from memory a second, to emcache's reads"),
    least("reads_vs_redis_py", 15, "64 callers: reads from memory a second, to redis-py's reads"),
    most("p50_vs_redis_py", 0.05, "1 caller: p50 of a read from memory, to redis-py's read"),
    most("server_cpu_us", 0.05, "64 callers: servers' CPU of a read from memory, µs"),
    least("writes", 0.97, "64 callers: replicated writes a second, to those without a near cache"),
    least("lone_writes", 0.97, "1 caller: replicated writes a second, to those without a near cache"),
    most("held_p50", 1.3, "1 caller: p50 of a write of what another process holds, to one of what none does"),
    most("stopped_worst_seconds", 0.35, "longest write while a process that holds the session is stopped, s"),
    most("killed_worst_seconds", 0.5, "longest write around the kill of an actor, s"),
)
"""What must be shown."""

WORST = frozenset({"stopped_worst_seconds", "killed_worst_seconds"})
"""Those of which the worst round counts, not the median."""


def ratios_of(results: Results) -> dict[str, list[float]]:
    """Return every figure that is held against a target, round by round; none where nothing was measured."""
    speed = Readings(results.speed)
    own = [each for each in results.speed if (each.contender, each.work, each.callers) == (NEAR, "get", 64)]
    return {
        "reads_vs_emcache": speed.ratios("get", NEAR, EMCACHE),
        "reads_vs_redis_py": speed.ratios("get", NEAR, REDIS),
        "p50_vs_redis_py": speed.ratios("get", NEAR, REDIS, p50_of, callers=1),
        "server_cpu_us": [each.sample.server_cpu * _MICRO for each in own],
        "writes": speed.ratios("update", NEAR, PLAIN),
        "lone_writes": speed.ratios("update", NEAR, PLAIN, callers=1),
        "held_p50": [each.held.p50 / each.unheld.p50 for each in results.held],
        "stopped_worst_seconds": [each.stopped.worst for each in results.held],
        "killed_worst_seconds": [each.killed.worst for each in results.held],
    }


def verdicts_of(results: Results) -> list[Verdict]:
    """Hold the figures against the targets."""
    quick = results.run is not None and results.run.quick
    return medians_judged(TARGETS, ratios_of(results), quick=quick, highest=WORST)


def tables_of(results: Results) -> list[Table]:
    """Return every table that has rows, the verdicts first."""
    every = [
        verdict_table(verdicts_of(results)),
        readings_table("Reads and replicated writes", results.speed),
        _held_table(results),
    ]
    return [table for table in every if table.rows]


def _held_table(results: Results) -> Table:
    cases = (
        ("nobody else holds the session", [each.unheld for each in results.held]),
        ("another process holds it", [each.held for each in results.held]),
        ("that process is stopped meanwhile", [each.stopped for each in results.held]),
        ("an actor is killed meanwhile", [each.killed for each in results.held]),
    )
    return Table(
        title="One caller's writes",
        columns=("case", "p50 ms", "p99 ms", "longest ms", "errors"),
        rows=[
            (
                case,
                f"{median(each.p50 for each in samples) * _MILLI:.2f}",
                f"{median(each.p99 for each in samples) * _MILLI:.2f}",
                f"{max(each.worst for each in samples) * _MILLI:,.0f}",
                f"{sum(each.errors for each in samples)}",
            )
            for case, samples in cases
            if samples
        ],
    )


_INTRODUCTION = """\
# What a near cache saves, and costs

Written by `uv run --group bench python -m benchmarks.near`, which starts every contender itself, on loopback.
A figure is the median of the rounds, of the longest waits the longest of all; a spread is the lowest and the
highest round. Ours is two nodes of one actor, and every session of 300 bytes is on both.

- **Reads.** All take turns within a round. With a near cache the process holds all sessions that it reads,
  and each read is still linearizable. redis-py has a cache of that kind for synchronous clients alone; under
  asyncio coredis has one, whose entries are dropped some time after the change.
- **One caller's writes.** Another process reads the same sessions meanwhile, again and again: with a near
  cache it holds them, and each write waits until it has dropped what is written. It is stopped by SIGSTOP in
  the middle of a measurement, and an actor is killed in the middle of another. Time counts from when a write
  was due.
"""


def page(results: Results) -> str:
    """Return the page in Markdown."""
    runs = [] if results.run is None else run_lines("all", results.run)
    return page_of(_INTRODUCTION, tables_of(results), verdicts_of(results), "Run", runs)
