"""The page in the documentation. Pure."""

from collections.abc import Mapping, Sequence

import msgspec

from benchmarks.races.findings import TOGETHER, Findings, rows_of
from benchmarks.races.overhead import REQUESTS, ROUNDS, Turns, costs_of
from benchmarks.races.shops import USER
from benchmarks.tables import Table, markdown


class Report(msgspec.Struct):
    """Everything from one run."""

    when: str
    machine: dict[str, str]
    load: float
    versions: dict[str, str]
    skipped: dict[str, str]
    findings: list[Findings]
    turns: Turns


_INTRODUCTION = """\
# Concurrent requests: a comparison

Written by `uv run --group bench python -m benchmarks.races`, which starts Redis and a cluster on loopback,
and runs one small shop in each framework, for real, through its ASGI interface. In a race nothing is left to
chance: a slow request has read its session and waits until the other one has been answered; only then does it
go on.
"""

_MEANING = f"""\
- *Kept*: all {TOGETHER} requests were answered with success. What is missing was lost in silence.
- One number that all read and then set is one value, of which the last wins, **with Greenroom too**. What is
  there for that is [`session.modify`](../how-to/merging.md).
- *The slow request writes*: it sets a key after the other was answered. *Reads*: it changes nothing. What is
  told is who the browser is afterwards, then who somebody is with a copy of the cookie from before.
- Greenroom answers the slow request with what its handler said, drops its change, logs and counts that.
  Django answers 400. It looks whether the session is there, then writes, in two steps; the race between these
  two is not played here.
- Logins and logouts are what the frameworks document: `regenerate_session_id` and `clear` (starsessions),
  `set_session` and `clear_session` (Litestar, which has nothing that renews an id), `cycle_key` and `flush`
  (what Django's own `login` and `logout` do), a key set and `clear` (Starlette).
- *Ids refused*: what a request with such a cookie stores is not found by the next one with the same cookie.
- Sessions end 1800 s after their last use, in Litestar and starsessions because every response writes them
  anew; Greenroom moves the end only when a sixth of it has passed, and these runs are shorter. In Django and
  in Starlette's cookies, with these settings, only a change moves the end.
- *100 mixed requests*: 19 health checks and 20 pages without a cookie, 48 pages that only read, 10 changes,
  2 that set what is set already, 1 login. Redis counts its own commands; Greenroom's are calls to its store.
"""

_OVERHEAD = f"""\
The same Starlette app behind each, called in one process without a server or a network in front, one request
after the other, taking turns: medians of {ROUNDS} rounds of {REQUESTS} requests, in µs. *More* is the
difference from the app without sessions, round by round. CPU is that of the app's process alone; it depends
less on what else the machine does than the time until the answer, which counts the wait for other processes.
starsessions writes its session on each of these pages, Greenroom only where it changes. A change on the
cluster is acknowledged when two nodes have it, in Redis when one has.
"""


def race_table(findings: Sequence[Findings]) -> Table:
    """Return the comparison."""
    columns = ("", *(each.title for each in findings))
    return Table(title="Races", columns=columns, rows=rows_of(list(findings), USER), labels=len(columns))


def overhead_tables(turns: Turns) -> list[Table]:
    """Return the costs, a table for every kind of page."""
    return [
        Table(
            title=f"Cost of {kind}",
            columns=("sessions", "time µs", "more", "CPU µs", "more CPU"),
            rows=[
                (
                    cost.title,
                    f"{cost.wall_us:,.0f}",
                    f"{cost.more_wall_us:,.0f}",
                    f"{cost.cpu_us:,.0f}",
                    f"{cost.more_cpu_us:,.0f}",
                )
                for cost in costs_of(each)
            ],
        )
        for kind, each in turns.items()
    ]


def page(report: Report) -> str:
    """Return the page in Markdown."""
    about = [f"- {name}: {value}" for name, value in report.machine.items()]
    about.append(f"- versions: {_listed(report.versions)}")
    about.append(f"- {report.when}, load before the run {report.load:.1f}")
    about += [f"- left out: {title}: {reason}" for title, reason in report.skipped.items()]
    parts = [_INTRODUCTION, markdown(race_table(report.findings)), _MEANING]
    if report.turns:
        parts += ["## What the middleware costs\n", _OVERHEAD]
        parts += ["#" + markdown(table) for table in overhead_tables(report.turns)]
    parts.append("## Machine\n\n" + "\n".join(about) + "\n")
    return "\n".join(parts)


def _listed(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
