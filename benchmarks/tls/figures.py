"""From readings to ratios, verdicts and a page. Pure."""

from statistics import median

import msgspec

from benchmarks.results import Reading, Run
from benchmarks.summary import Readings, p50_of
from benchmarks.tables import Table, page_of, readings_table, run_lines, verdict_table
from benchmarks.verdicts import Verdict, least, medians_judged, most, none_of

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


class AttackReading(msgspec.Struct, frozen=True, kw_only=True):
    """What so many half-open handshakes at once did to callers, whose 99th percentiles these are.

    `at_actor`: they came to an actor, and else, for comparison, to a port where nobody answers them.
    """

    at_actor: bool
    connections: int
    before_seconds: float
    during_seconds: float
    epoch_changes: int
    errors: int

    @property
    def ratio(self) -> float:
        """The percentile meanwhile, to that before."""
        return self.during_seconds / self.before_seconds


class KillReading(msgspec.Struct, frozen=True, kw_only=True):
    """How long after the primary of a session's shard was killed that session was written again."""

    round: int
    contender: str
    seconds: float


class Results(msgspec.Struct, kw_only=True):
    """Everything, and the run that measured it."""

    run: Run | None = None
    speed: list[Reading] = []
    idle: list[IdleReading] = []
    attacks: list[AttackReading] = []
    kills: list[KillReading] = []


TARGETS = (
    least("reads", 0.8, "64 callers: reads a second, TLS to plaintext"),
    least("writes", 0.8, "64 callers: replicated writes a second, TLS to plaintext"),
    most("read_p50", 1.25, "1 caller: p50 of a read, TLS to plaintext"),
    most("write_p50", 1.25, "1 caller: p50 of a replicated write, TLS to plaintext"),
    most("idle_kibibytes", 64, "KiB that a server takes more for an idle connection"),
    most("half_open_p99", 2, "half-open handshakes at an actor: callers' p99 meanwhile, to before"),
    none_of("half_open_changes", "half-open handshakes: shards that failed over, and calls that failed"),
    most("kill_seconds", 1, "a primary is killed: time until a write is acknowledged, TLS to plaintext"),
)
"""What must be shown."""


def ratios_of(results: Results) -> dict[str, list[float]]:
    """Return every figure that is held against a target, round by round; none where nothing was measured."""
    speed = Readings(results.speed)
    idle = {each.contender: each.server_bytes / each.connections / _KIBIBYTE for each in results.idle}
    attacks = [each for each in results.attacks if each.at_actor]
    kills = {(each.round, each.contender): each.seconds for each in results.kills}
    return {
        "reads": speed.ratios("get", TLS, PLAIN),
        "writes": speed.ratios("update", TLS, PLAIN),
        "read_p50": speed.ratios("get", TLS, PLAIN, p50_of, callers=1),
        "write_p50": speed.ratios("update", TLS, PLAIN, p50_of, callers=1),
        "idle_kibibytes": [idle[TLS] - idle[PLAIN]] if {PLAIN, TLS} <= idle.keys() else [],
        "half_open_p99": [each.ratio for each in attacks],
        "half_open_changes": [float(each.epoch_changes + each.errors) for each in attacks],
        "kill_seconds": [
            seconds / kills[turn, PLAIN]
            for (turn, contender), seconds in kills.items()
            if contender == TLS and (turn, PLAIN) in kills
        ],
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
        _attack_table(results),
        _kill_table(results),
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


def _attack_table(results: Results) -> Table:
    return Table(
        title="Half-open handshakes beside callers",
        columns=(
            "where",
            "connections",
            "p99 before, ms",
            "p99 meanwhile, ms",
            "ratio",
            "failovers",
            "errors",
        ),
        rows=[
            (
                "at an actor" if each.at_actor else "where nobody answers",
                f"{each.connections:,}",
                f"{each.before_seconds * 1e3:.1f}",
                f"{each.during_seconds * 1e3:.1f}",
                f"{each.ratio:.2f}",
                f"{each.epoch_changes}",
                f"{each.errors}",
            )
            for each in results.attacks
        ],
    )


def _kill_table(results: Results) -> Table:
    taken = {
        name: [each.seconds * 1e3 for each in results.kills if each.contender == name]
        for name in (PLAIN, TLS)
    }
    return Table(
        title="From the kill of a primary to the next write",
        columns=("contender", "kills", "median, ms", "spread, ms"),
        rows=[
            (name, f"{len(each)}", f"{median(each):.0f}", f"{min(each):.0f} to {max(each):.0f}")
            for name, each in taken.items()
            if each
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
- **Half-open handshakes.** 16 callers read and write sessions on three nodes, while so many connections come
  at once, each of which says hello in TLS and nothing more: to an actor, and to a port where nobody answers,
  which shows what the machine does.
- **Kills.** In turn over TLS and in plaintext, the actor is killed that is primary of a session, and a store
  with connections to all actors writes that session.
"""


def page(results: Results) -> str:
    """Return the page in Markdown."""
    runs = [] if results.run is None else run_lines("all", results.run)
    return page_of(_INTRODUCTION, tables_of(results), verdicts_of(results), "Run", runs)
