"""Results as tables: plain rows, which the terminal and the documentation both show. Pure."""

from collections.abc import Iterable, Sequence
from statistics import median

import msgspec

from benchmarks.results import FailoverReading, Reading, Results, Run
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


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """Tables that share a page of the documentation."""

    file: str
    title: str
    tables: list[Table]


def tables_of(results: Results) -> list[Table]:
    """Return every table that has rows, the verdicts first."""
    return [*verdict_tables(results), *(table for each in pages_of(results) for table in each.tables)]


def verdict_tables(results: Results) -> list[Table]:
    """Return the verdicts, and the causes of what is missed."""
    verdicts = judged(results)
    return [table for table in (verdict_table(verdicts), obstacle_table(verdicts)) if table.rows]


def pages_of(results: Results) -> list[Page]:
    """Return the pages of figures that have rows."""
    throughput: dict[str, list[Table]] = {}
    for work, table in throughput_tables(cells_of(results.throughput)):
        throughput.setdefault(work, []).append(table)
    every = [
        *(_page(f"{work}.md", f"Throughput: {work}", *tables) for work, tables in throughput.items()),
        _page("scaling.md", "Several client processes", scaling_table(cells_of(results.scaling))),
        _page("stored.md", "Many stored sessions", stored_table(results), sweep_table(results)),
        _page("failover.md", "Failover", failover_table(results.failovers)),
        _page("transfer.md", "Refilling a lost replica", transfer_table(results)),
    ]
    return [page for page in every if page.tables]


def _page(file: str, title: str, *tables: Table) -> Page:
    return Page(file=file, title=title, tables=[table for table in tables if table.rows])


def verdict_table(verdicts: Iterable[Verdict]) -> Table:
    """Return every aim that was measured, and whether it is met."""
    return Table(
        title="Aims",
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
    """Return the causes of what was missed, each cause once."""
    missed: dict[str, list[str]] = {}
    for verdict in verdicts:
        if verdict.met is False:
            missed.setdefault(verdict.obstacle, []).append(verdict.target.ratio)
    return Table(
        title="Causes of what is missed",
        columns=("missed", "cause"),
        labels=2,
        rows=[(", ".join(names), cause) for cause, names in missed.items()],
    )


def throughput_tables(cells: Sequence[Cell]) -> list[tuple[str, Table]]:
    """Return each work with its table, one for every size."""
    seen = dict.fromkeys((cell.size, cell.work) for cell in cells)
    return [(work, _throughput_table(work, size, cells)) for size, work in seen]


def _throughput_table(work: str, size: int, cells: Sequence[Cell]) -> Table:
    return Table(
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
    """Return the throughput of several client processes together."""
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
        title="Memory of all replicas, and latency, by the number of stored sessions of 300 bytes",
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
    """Return the pauses while many sessions expire in the same second."""
    return Table(
        title="Reads while many sessions expire in the same second",
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
        title="Failures under load: medians of times, sums of counts",
        columns=(
            "scenario",
            "contender",
            "runs",
            "longest wait s",
            "recovered after s",
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
    """Return how long it takes to refill a lost replica, and what callers notice."""
    return Table(
        title="A lost replica refilled under the 80/20 mix of 8 callers",
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


def readings_table(title: str, readings: Sequence[Reading]) -> Table:
    """Return rate, latency and the servers' CPU of contenders that took turns."""
    cells = dict.fromkeys((each.work, each.callers, each.contender) for each in readings)
    rows: list[tuple[str, ...]] = []
    for cell in cells:
        own = [each.sample for each in readings if (each.work, each.callers, each.contender) == cell]
        rows.append(
            (
                *(str(each) for each in cell),
                *spread_of([each.rate for each in own], ",.0f"),
                _micros(median(each.p50 for each in own)),
                _micros(median(each.p99 for each in own)),
                _micros(median(each.server_cpu for each in own)),
            )
        )
    columns = ("work", "callers", "contender", "per second", "spread", "p50 µs", "p99 µs", "server CPU µs")
    return Table(title=title, columns=columns, rows=rows, labels=3)


def spread_of(figures: Sequence[float], form: str) -> tuple[str, str]:
    """Return the median, and the lowest to the highest."""
    low, high = (format(each, form) for each in (min(figures), max(figures)))
    return format(median(figures), form), f"{low} to {high}"


def run_lines(part: str, run: Run) -> list[str]:
    """Return when, where and how a part was measured, and what was left out."""
    about = ", ".join(f"{name} {value}" for name, value in {**run.machine, **run.versions}.items())
    first = (
        f"- {part}: {run.when}, commit {run.commit}, {run.kind}, load before the run {run.load:.1f}, "
        f"took {run.took_seconds:.0f} s; {about}"
    )
    return [first, *(f"- {part}, left out: {name}: {reason}" for name, reason in run.skipped.items())]


def _micros(seconds: float) -> str:
    return f"{seconds * 1e6:,.0f}"


def markdown(table: Table) -> str:
    """Return a table in Markdown, below its title."""
    rules = ["---" if index < table.labels else "---:" for index in range(len(table.columns))]
    lines = [table.columns, rules, *table.rows]
    return f"## {table.title}\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def page_of(
    introduction: str, tables: Iterable[Table], verdicts: Iterable[Verdict], title: str, runs: Sequence[str]
) -> str:
    """Return a page in Markdown: tables, what has no figure yet, and below the title the runs' lines."""
    parts = [introduction, *(markdown(table) for table in tables)]
    lacking = [f"- {each.target.about}" for each in verdicts if each.figure is None]
    for heading, lines in (("Not measured yet", lacking), (title, runs)):
        if lines:
            parts.append(f"## {heading}\n\n" + "\n".join(lines) + "\n")
    return "\n".join(parts)
