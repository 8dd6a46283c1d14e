"""From readings to ratios and a page. Pure."""

from collections.abc import Mapping, Sequence
from statistics import median

import msgspec

from benchmarks.races.overhead import BASE
from benchmarks.tables import Table, markdown

CLUSTER = "Greenroom, cluster"
NEAR = "Greenroom, near cache"
MEMORY = "Greenroom, MemoryStore"
COOKIES = "Starlette's cookies"
STARSESSIONS = "starsessions, Redis"


class PageReading(msgspec.Struct, frozen=True, kw_only=True):
    """One contender under one mix of pages in one round. CPU seconds a page: the app's, its servers'."""

    round: int
    title: str
    mix: str
    workers: int = 1
    per_second: float
    p50_us: float
    p99_us: float
    app_cpu: float
    server_cpu: float


class PageReport(msgspec.Struct, kw_only=True):
    """Everything from one run."""

    when: str
    commit: str
    load: float
    machine: dict[str, str]
    versions: dict[str, str]
    skipped: dict[str, str] = {}
    readings: list[PageReading] = []


_INTRODUCTION = """\
# What a page costs its app

Written by `uv run --group bench python -m benchmarks.pages`, which runs the races' Starlette shop in one
uvicorn worker (uvloop, httptools) for 32 visitors with sessions of some 300 bytes. Each of them asks for one
page after the other, on a connection of wrk. Everything is on one machine, and the contenders take turns. The
cluster has two nodes, and acknowledges a change when both have it; Redis is one server without a replica.
*Near cache* is the same cluster, whose sessions the app keeps to read them without asking. With four workers,
each page of a visitor is asked for on another connection, so it comes from any of them. CPU is per page: that
of the app's processes, and that of the servers behind it.
"""


def figures(
    readings: Sequence[PageReading], title: str, mix: str, workers: int = 1
) -> dict[int, PageReading]:
    """Return the readings of one contender under one mix with so many workers, by round."""
    wanted = (title, mix, workers)
    return {each.round: each for each in readings if (each.title, each.mix, each.workers) == wanted}


def ratios(
    readings: Sequence[PageReading], ours: str, theirs: str, mix: str, workers: int = 1
) -> list[float]:
    """Return pages a second of ours to theirs, round by round."""
    other = figures(readings, theirs, mix, workers)
    return [
        each.per_second / other[turn].per_second
        for turn, each in figures(readings, ours, mix, workers).items()
        if turn in other
    ]


def tables_of(report: PageReport) -> list[Table]:
    """Return a table for every mix, then the ratios."""
    titles = list(dict.fromkeys(each.title for each in report.readings))
    kinds = list(dict.fromkeys((each.mix, each.workers) for each in report.readings))
    tables = [
        Table(
            title=f"Pages: {_kind(mix, workers)}",
            columns=("sessions", "pages/s", "lowest", "p50 ms", "p99 ms", "app CPU µs", "servers' CPU µs"),
            rows=[
                _row(title, list(own.values()))
                for title in titles
                if (own := figures(report.readings, title, mix, workers))
            ],
        )
        for mix, workers in kinds
    ]
    return [*tables, _ratio_table(report.readings, kinds)]


def _kind(mix: str, workers: int) -> str:
    return mix if workers == 1 else f"{mix}; {workers} workers"


def _row(title: str, own: Sequence[PageReading]) -> tuple[str, ...]:
    rates = [each.per_second for each in own]
    return (
        title,
        f"{median(rates):,.0f}",
        f"{min(rates):,.0f}",
        f"{median(each.p50_us for each in own) / 1e3:.2f}",
        f"{median(each.p99_us for each in own) / 1e3:.2f}",
        f"{median(each.app_cpu for each in own) * 1e6:.0f}",
        f"{median(each.server_cpu for each in own) * 1e6:.0f}",
    )


def _ratio_table(readings: Sequence[PageReading], kinds: Sequence[tuple[str, int]]) -> Table:
    rows = []
    for mix, workers in kinds:
        for ours in (MEMORY, CLUSTER, NEAR):
            for theirs in (BASE, COOKIES, STARSESSIONS, *((CLUSTER,) if ours == NEAR else ())):
                found = ratios(readings, ours, theirs, mix, workers)
                if found:
                    low, high = min(found), max(found)
                    row = (ours, theirs, f"{median(found):.2f}", f"{low:.2f} to {high:.2f}")
                    rows.append((_kind(mix, workers), *row))
    columns = ("pages", "ours", "to", "ratio", "lowest to highest round")
    return Table(title="Pages a second, ours to theirs", columns=columns, rows=rows, labels=3)


def page(report: PageReport) -> str:
    """Return the page in Markdown."""
    about = [f"- {name}: {value}" for name, value in report.machine.items()]
    about.append("- versions: " + _listed(report.versions))
    about.append(f"- {report.when}, commit {report.commit}, load before the run {report.load:.1f}")
    about += [f"- left out: {title}: {reason}" for title, reason in report.skipped.items()]
    tables = [markdown(table) for table in tables_of(report)]
    return "\n".join([_INTRODUCTION, *tables, "## Machine\n\n" + "\n".join(about) + "\n"])


def _listed(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
