"""From readings to ratios, verdicts and a page. Pure."""

from statistics import median

import msgspec

from benchmarks.results import Reading, Run
from benchmarks.summary import Readings, p50_of
from benchmarks.tables import Table, page_of, readings_table, run_lines, verdict_table
from benchmarks.verdicts import Verdict, least, medians_judged, most

PLAIN, TLS = "greenroom, plaintext", "greenroom, mutual TLS"
REDIS_PLAIN, REDIS_TLS = "redis-py, plaintext", "redis-py, mutual TLS"
_KIBIBYTE = 1 << 10


class IdleReading(msgspec.Struct, frozen=True, kw_only=True):
    """What so many stores that do nothing add to the memory of the servers, and of their own process.

    Each has a connection to every node and every actor; `connections` counts all of them.
    """

    contender: str
    connections: int
    server_bytes: int
    client_bytes: int


class Results(msgspec.Struct, kw_only=True):
    """Everything, and the run that measured it."""

    run: Run | None = None
    speed: list[Reading] = []
    idle: list[IdleReading] = []


TARGETS = (
    least("reads", 0.8, "64 callers: reads a second, TLS to plaintext"),
    least("writes", 0.8, "64 callers: replicated writes a second, TLS to plaintext"),
    most("read_p50", 1.25, "1 caller: p50 of a read, TLS to plaintext"),
    most("write_p50", 1.25, "1 caller: p50 of a replicated write, TLS to plaintext"),
    most("idle_kibibytes", 64, "KiB that a server takes more for an idle connection"),
)
"""What must be shown."""


def ratios_of(results: Results) -> dict[str, list[float]]:
    """Return every figure that is held against a target, round by round; none where nothing was measured."""
    speed = Readings(results.speed)
    idle = {each.contender: each.server_bytes / each.connections / _KIBIBYTE for each in results.idle}
    return {
        "reads": speed.ratios("get", TLS, PLAIN),
        "writes": speed.ratios("update", TLS, PLAIN),
        "read_p50": speed.ratios("get", TLS, PLAIN, p50_of, callers=1),
        "write_p50": speed.ratios("update", TLS, PLAIN, p50_of, callers=1),
        "idle_kibibytes": [idle[TLS] - idle[PLAIN]] if {PLAIN, TLS} <= idle.keys() else [],
    }


def verdicts_of(results: Results) -> list[Verdict]:
    """Hold the figures against the targets."""
    quick = results.run is not None and results.run.quick
    return medians_judged(TARGETS, ratios_of(results), quick=quick)


def tables_of(results: Results) -> list[Table]:
    """Return every table that has rows, the verdicts first."""
    every = [
        verdict_table(verdicts_of(results)),
        _peer_table(results),
        readings_table("Reads and replicated writes", results.speed),
        _idle_table(results),
    ]
    return [table for table in every if table.rows]


def _peer_table(results: Results) -> Table:
    """Return the ratio of TLS to plaintext of both contenders, side by side."""
    speed = Readings(results.speed)
    rows: list[tuple[str, ...]] = []
    for work, callers in dict.fromkeys((each.work, each.callers) for each in results.speed):
        pairs = ((TLS, PLAIN), (REDIS_TLS, REDIS_PLAIN))
        cells = [speed.ratios(work, ours, theirs, callers=callers) for ours, theirs in pairs]
        rows.append((work, f"{callers}", *(_spread(cell) for cell in cells)))
    columns = ("work", "callers", "greenroom", "redis-py")
    return Table(title="TLS to plaintext: operations a second", columns=columns, rows=rows, labels=2)


def _spread(figures: list[float]) -> str:
    if not figures:
        return ""
    return f"{median(figures):.2f} ({min(figures):.2f} to {max(figures):.2f})"


def _idle_table(results: Results) -> Table:
    return Table(
        title="Memory of idle connections",
        columns=("contender", "connections", "KiB each, at the servers", "KiB each, at the client"),
        rows=[
            (
                each.contender,
                f"{each.connections:,}",
                f"{each.server_bytes / each.connections / _KIBIBYTE:,.1f}",
                f"{each.client_bytes / each.connections / _KIBIBYTE:,.1f}",
            )
            for each in results.idle
        ],
    )


_INTRODUCTION = """\
# What TLS costs

Written by `uv run --group bench python -m benchmarks.tls`, which starts every contender itself, on loopback.
A figure is the median of the rounds; a spread is the lowest and the highest round. Over TLS both sides show
certificates of the curve P-256; of ours so do the nodes to each other, of Redis the replica to its master.

- **Reads and writes.** All take turns within a round. Ours is two nodes of one actor, and every session of
  300 bytes is on both; Redis has one replica, and a write is `SET` and `WAIT 1`.
- **Idle connections.** So many stores in one process read some sessions, and then do nothing. What all
  servers together, and that process, take more than before is divided by the connections. Each store has its
  own copy of the cluster map and its own TLS context, which are in the client's figure.
"""


def page(results: Results) -> str:
    """Return the page in Markdown."""
    runs = [] if results.run is None else run_lines("all", results.run)
    return page_of(_INTRODUCTION, tables_of(results), verdicts_of(results), "Run", runs)
