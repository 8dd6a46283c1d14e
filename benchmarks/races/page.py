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

Written by `uv run --group bench python -m benchmarks.races`, which starts Redis and a cluster on loopback and
runs one small shop in each framework, for real, through its ASGI interface. The races are deterministic: a
slow request reads its session, waits until the other request has been answered, and only then goes on.
"""

_MEANING = f"""\
- *Kept*: all {TOGETHER} requests were answered with success. Missing changes were lost silently.
- If all requests read a number and then set it, the last one wins, **with Greenroom too**. The remedy
  is [`session.modify`](../how-to/merging.md).
- *The slow request writes*: it sets a key after the other request was answered. *Reads*: it changes nothing.
  The table says who is logged in afterwards: the browser, and someone with a copy of the earlier cookie.
- Greenroom answers the slow request as its handler decided, drops the change, and logs and counts that.
  Django answers 400. It checks that the session exists and then writes, in two steps; the race between these
  two steps is not run here.
- Logins and logouts follow the frameworks' documentation: `regenerate_session_id` and `clear` (starsessions),
  `set_session` and `clear_session` (Litestar, which cannot renew an id), `cycle_key` and `flush` (as Django's
  own `login` and `logout` do), setting a key and `clear` (Starlette).
- *Ids refused*: the next request with such a cookie does not find what the first one stored.
- Sessions end 1800 s after their last use: in Litestar and starsessions because every response writes them
  again; Greenroom extends a session only once a sixth of that time has passed, and these runs are shorter. In
  Django and in Starlette's cookies, with these settings, only a change extends a session.
- *100 mixed requests*: 19 health checks and 20 pages without a cookie, 48 pages that only read, 10 changes,
  2 that set an unchanged value, 1 login. Redis counts its own commands; Greenroom's are calls to its store.
"""

_OVERHEAD = f"""\
Each middleware runs the same Starlette app, called in one process without a server or a network in front, one
request after the other, taking turns: medians of {ROUNDS} rounds of {REQUESTS} requests, in µs. *More* is the
difference from the app without sessions, round by round. CPU is that of the app's process alone; it depends
less on the rest of the machine than the response time, which includes waiting for other processes.
starsessions writes its session on each of these pages, Greenroom only if it changes. A change on the cluster
is acknowledged when two nodes have it, in Redis when one has.
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
