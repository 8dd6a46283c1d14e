"""Results as tables: plain rows, which the terminal and the documentation both show. Pure."""

from collections.abc import Iterable, Sequence
from statistics import median

import msgspec

from benchmarks.results import FailoverReading, Results
from benchmarks.summary import (
    Cell,
    bytes_per_session,
    cells_of,
    failovers_by,
    judged,
    p99_during,
)
from benchmarks.verdicts import Verdict


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """A titled table; the first `labels` columns are text, the others figures."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    labels: int = 1


def tables_of(results: Results) -> list[Table]:
    """Return every table that has rows, what must be shown first."""
    verdicts = judged(results)
    every = (
        verdict_table(verdicts),
        obstacle_table(verdicts),
        *throughput_tables(cells_of(results.throughput)),
        scaling_table(cells_of(results.scaling)),
        stored_table(results),
        sweep_table(results),
        failover_table(results.failovers),
        transfer_table(results),
    )
    return [table for table in every if table.rows]


def verdict_table(verdicts: Iterable[Verdict]) -> Table:
    """Return what must be shown, and whether it is. What was not measured is left out."""
    return Table(
        title="What must be shown",
        columns=("ratio", "what", "figure", "spread", "bound", "verdict"),
        labels=2,
        rows=[
            (
                verdict.target.ratio,
                verdict.target.about,
                f"{verdict.figure:.3g}",
                "" if verdict.spread is None else "-".join(f"{each:.3g}" for each in verdict.spread),
                f"{'≥' if verdict.target.at_least else '≤'} {verdict.target.bound:g}",
                _words(verdict),
            )
            for verdict in verdicts
            if verdict.figure is not None and verdict.met is not None
        ],
    )


def _words(verdict: Verdict) -> str:
    word = "met" if verdict.met else "**missed**"
    if verdict.sure:
        return word
    if verdict.within_spread:
        return f"{word}, within the spread"
    if verdict.quick:
        return f"{word}, in a quick run"
    return f"{word}, in {'one round' if verdict.rounds == 1 else f'{verdict.rounds} rounds'}"


def obstacle_table(verdicts: Iterable[Verdict]) -> Table:
    """Return what stands in the way of what was missed."""
    return Table(
        title="What stands in the way",
        columns=("missed", "because of"),
        labels=2,
        rows=[(verdict.target.ratio, verdict.obstacle) for verdict in verdicts if verdict.met is False],
    )


def throughput_tables(cells: Sequence[Cell]) -> list[Table]:
    """Return a table for every size and work."""
    seen = dict.fromkeys((cell.size, cell.work) for cell in cells)
    return [
        Table(
            title=f"{work}, {size} bytes",
            columns=(
                "contender",
                "callers",
                "per second",
                "spread",
                "p50 µs",
                "p99 µs",
                "client CPU µs",
                "server CPU µs",
            ),
            rows=[
                (cell.contender, f"{cell.callers}", *_figures(cell))
                for cell in cells
                if (cell.size, cell.work) == (size, work)
            ],
        )
        for size, work in seen
    ]


def _figures(cell: Cell) -> tuple[str, ...]:
    return (
        f"{cell.per_second:,.0f}",
        f"{cell.low:,.0f}-{cell.high:,.0f}",
        f"{cell.p50_us:,.0f}",
        f"{cell.p99_us:,.0f}",
        f"{cell.client_cpu_us:,.1f}",
        f"{cell.server_cpu_us:,.1f}",
    )


def scaling_table(cells: Sequence[Cell]) -> Table:
    """Return what several client processes do together."""
    return Table(
        title="Several client processes of 64 callers each, 300 bytes",
        columns=(
            "contender",
            "work",
            "clients",
            "per second",
            "spread",
            "p50 µs, slowest",
            "p99 µs, slowest",
            "client CPU µs",
            "server CPU µs",
        ),
        labels=2,
        rows=[(cell.contender, cell.work, f"{cell.clients}", *_figures(cell)) for cell in cells],
    )


def stored_table(results: Results) -> Table:
    """Return memory and latency against the number of sessions stored."""
    return Table(
        title="Sessions of 300 bytes stored; memory of all replicas together",
        columns=(
            "contender",
            "stored",
            "bytes a session",
            "p50 µs, 1 caller",
            "p50 µs, 64",
            "p99 µs, 64",
            "paced p99.99 µs",
            "worst µs",
        ),
        rows=[
            (
                each.contender,
                f"{each.stored:,}",
                f"{bytes_per_session(each):,.0f}",
                _micros(median(sample.p50 for sample in each.alone)),
                _micros(median(sample.p50 for sample in each.crowded)),
                _micros(median(sample.p99 for sample in each.crowded)),
                _micros(each.paced.p9999),
                _micros(each.paced.worst),
            )
            for each in results.stored
        ],
    )


def sweep_table(results: Results) -> Table:
    """Return what happens when many sessions expire in the same second."""
    return Table(
        title="Many sessions expire in the same second, while others are read",
        columns=(
            "contender",
            "expired",
            "gone after s",
            "left",
            "p99.99 µs before",
            "p99.99 µs during",
            "worst µs",
        ),
        rows=[
            (
                each.contender,
                f"{each.swept:,}",
                "not in time" if each.seconds is None else f"{each.seconds:.1f}",
                f"{each.left:,}",
                _micros(each.before.p9999),
                _micros(each.during.p9999),
                _micros(each.during.worst),
            )
            for each in results.sweeps
        ],
    )


def failover_table(readings: Sequence[FailoverReading]) -> Table:
    """Return failures under load, one row for scenario and contender."""
    return Table(
        title="Failures under load; medians of time, sums of everything else",
        columns=(
            "scenario",
            "contender",
            "runs",
            "longest wait s",
            "last wait over after s",
            "served at end",
            "failed operations",
            "acknowledged writes",
            "of them lost",
            "stale reads",
        ),
        labels=2,
        rows=[
            (
                scenario,
                contender,
                f"{len(each)}",
                f"{median(reading.unavailable for reading in each):.2f}",
                f"{median(reading.recovered for reading in each):.2f}",
                "yes" if all(reading.whole for reading in each) else "no",
                f"{sum(reading.failed for reading in each):,}",
                f"{sum(reading.acknowledged_writes for reading in each):,}",
                f"{sum(reading.lost_writes for reading in each):,}",
                f"{sum(reading.stale_reads for reading in each):,}",
            )
            for (scenario, contender), each in failovers_by(readings).items()
        ],
    )


def transfer_table(results: Results) -> Table:
    """Return how long a lost replica takes to come back, and what callers notice."""
    return Table(
        title="A replica lost and filled again, under the 80/20 mix of 8 callers",
        columns=(
            "contender",
            "MiB",
            "seconds",
            "of these its start",
            "p99 µs before",
            "p99 µs during, median slice",
            "worst µs during",
            "failed operations",
        ),
        rows=[
            (
                each.contender,
                f"{each.stored_bytes >> 20:,}",
                f"{each.seconds:.2f}",
                f"{each.startup:.2f}",
                _micros(each.before.p99),
                _micros(p99_during(each)),
                _micros(max(sample.worst for sample in each.during)),
                f"{sum(sample.errors for sample in (each.before, *each.during)):,}",
            )
            for each in results.transfers
        ],
    )


def _micros(seconds: float) -> str:
    return f"{seconds * 1e6:,.0f}"


def markdown(table: Table) -> str:
    """Return a table in Markdown, below its title."""
    rules = ["---" if index < table.labels else "---:" for index in range(len(table.columns))]
    lines = [table.columns, rules, *table.rows]
    return f"## {table.title}\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
