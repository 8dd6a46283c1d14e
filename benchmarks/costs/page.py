"""The page in the documentation, and the sums on it. Pure."""

import os

import msgspec

from benchmarks.costs.client import LOOP
from benchmarks.costs.figures import PLACES, SIZE, WORKS, Amount, Figure, Place, Volume, Work
from benchmarks.costs.siblings import Siblings
from benchmarks.costs.whole import Whole
from benchmarks.samples import Sample
from benchmarks.tables import Table, markdown


class Report(msgspec.Struct, kw_only=True):
    """Everything from one run."""

    when: str
    load: float
    machine: dict[str, str]
    versions: dict[str, str]
    amount: Amount
    figures: list[Figure]
    volumes: list[Volume]
    siblings: Siblings | None
    whole: list[Whole]

    @property
    def factor(self) -> float:
        """How much more CPU time work takes while the other processor is busy; 1 if that is not known."""
        return 1.0 if self.siblings is None else max(1.0, self.siblings.factor)

    @property
    def most(self) -> int:
        """The largest batch."""
        return max(self.amount.batches)

    def sum_us(self, work: Work, batch: int, *places: Place) -> float:
        """Return the sum of the least figures of some places."""
        return sum(
            each.least_us
            for each in self.figures
            if each.work == work and each.batch == batch and each.place in places
        )

    def sample(self, contender: str, work: str, callers: int) -> Sample:
        """Return what was measured as a whole."""
        return next(
            each.sample
            for each in self.whole
            if (each.contender, each.work, each.callers) == (contender, work, callers)
        )


_INTRODUCTION = f"""\
# What an operation costs

Written by `uv run --group bench python -m benchmarks.costs`. It measures one `get` and one replicated
`update` of a session of {SIZE} bytes, stage by stage, in microseconds per operation. Client and servers are
the real parts in one process: a store, its dialog and runner; two hosts of 64 shards with their drivers and
connections. Only the sockets are replaced, by lists of bytes. A *batch* is the number of requests in one
read. Each figure is the least of many repeats, with the median in brackets: whatever else the machine does
can only add to it.
"""

_STAGES = """\
- *Submit* ends when the socket has the bytes of the batch; the requests of one batch go to two actors.
- *Event loop* is an asyncio loop in which tasks wait for futures and nothing else happens: three iterations
  a batch (tasks, flush, readable), without making and resolving the futures, which other stages contain. A
  batch of one really takes one iteration: it is sent at once, and its caller resumes where its reply is read.
- *Driver* is `Driver.step` without the core, and without encoding and queueing in its connections. In a batch
  of one, some tenths of a microsecond of it go to reading clocks.
- *Kernel* is one thread with both ends of a TCP connection: on loopback the sender does most of the
  receiver's work. Servers poll once more before they would sleep. No thread sleeps, so none is woken.
"""

_WHOLE = """\
On the left are the sums of the stages; on the right is the CPU time that the real cluster (two nodes with one
actor each) and the bare echo take, client and servers, at 64 callers. *Busy*, if known, is the largest batch
while the other processor is busy too. *Not explained* is the difference between the cluster and the last sum.
The sums of operations per second assume that no processor ever waits. The sums leave out trio's scheduler,
beacons, maps, supervisors and coordinator (all count as servers' CPU), the garbage collector, caches shared
between processes, wake-ups, and batches smaller than the largest. The sums add least figures; cluster and
echo are one measurement each, so only these contain whatever else the machine did (see the load).
"""

_ALONE = """\
With one caller nothing runs in parallel, so times add up: the stages of client and servers (without the
client's event loop), the system calls, and the wake-ups. The echo, an asyncio client and a trio server, shows
what a wake-up and its iteration of the loops take: its round trip without the system calls. An `update` makes
two round trips, from client to primary and from primary to backup. The stages are measured in a tight loop;
code that runs once after a wake-up may find its caches cold. An actor that lingers is awake when the next
message comes: if the round trip takes less than the sum, that is the saving. The load matters here as above.
"""


def tables_of(report: Report) -> list[Table]:
    """Return every table."""
    tables = [stage_table(report), volume_table(report)]
    if report.whole:
        tables += [whole_table(report), alone_table(report)]
    return tables


def stage_table(report: Report) -> Table:
    """Return microseconds by stage."""
    cells = {(each.place, each.stage, each.work, each.batch): each for each in report.figures}
    keys = [(work, batch) for work in WORKS for batch in report.amount.batches]
    names = [*dict.fromkeys((each.place, each.stage) for each in report.figures)]
    rows = []
    for place in PLACES:
        for stage in [stage for other, stage in names if other == place]:
            figures = [cells.get((place, stage, *key)) for key in keys]
            rows.append((place, stage, *(map(_cell, figures))))
        sums = [f"{report.sum_us(work, batch, place):.2f}" for work, batch in keys]
        rows.append((place, "together", *sums))
    totals = [f"{report.sum_us(work, batch, *PLACES):.2f}" for work, batch in keys]
    rows.append(("everything", "", *totals))
    columns = ("where", "stage", *(f"{work}, {batch}" for work, batch in keys))
    return Table(title="Microseconds of one operation, by batch", columns=columns, rows=rows, labels=2)


def volume_table(report: Report) -> Table:
    """Return bytes on the wire."""
    columns = ("message", *(f"{work}, {batch}" for work in WORKS for batch in report.amount.batches))
    cells = {(each.message, each.work, each.batch): each.bytes for each in report.volumes}
    rows = []
    for message in ("requests", "Prepare", "PrepareOk", "replies"):
        found = [cells.get((message, work, batch)) for work in WORKS for batch in report.amount.batches]
        rows.append((message, *("" if each is None else f"{each:.1f}" for each in found)))
    return Table(title="Bytes on the wire of one operation, by batch", columns=columns, rows=rows)


def whole_table(report: Report) -> Table:
    """Return the sums beside what the real cluster takes."""
    echo = report.sample("echo", "get", 64)
    rows = []
    for work in WORKS:
        real = report.sample("greenroom", work, 64)
        sides: tuple[tuple[str, tuple[Place, Place], float, float], ...] = (
            ("client", ("client", "kernel, client"), real.client_cpu, echo.client_cpu),
            ("servers", ("servers", "kernel, servers"), real.server_cpu, echo.server_cpu),
        )
        for side, places, measured, limit in sides:
            sums = [report.sum_us(work, batch, *places) for batch in report.amount.batches]
            busy = report.sum_us(work, report.most, *places) * report.factor
            if report.siblings is not None:
                sums.append(busy)
            figures = [*sums, measured * 1e6, measured * 1e6 - busy, limit * 1e6]
            rows.append((f"{work}: CPU µs, {side}", *(f"{each:.1f}" for each in figures)))
        rates = [_per_second(report, work, batch, 1.0) for batch in report.amount.batches]
        if report.siblings is not None:
            rates.append(_per_second(report, work, report.most, report.factor))
        figures = [*rates, real.rate]
        rows.append((f"{work}: per second", *(f"{each:,.0f}" for each in figures), "", f"{echo.rate:,.0f}"))
    sums_of = [f"sum, {batch}" for batch in report.amount.batches]
    if report.siblings is not None:
        sums_of.append(f"sum, {report.most}, busy")
    columns = ("", *sums_of, "cluster", "not explained", "echo")
    return Table(title="The sum, and what the real cluster takes", columns=columns, rows=rows)


def alone_table(report: Report) -> Table:
    """Return how the round trip of a single caller comes about."""
    smallest = min(report.amount.batches)
    echo = report.sample("echo", "get", 1).p50 * 1e6
    syscalls = report.sum_us("get", smallest, "kernel, client", "kernel, servers")
    wake_ups = max(0.0, echo - syscalls)
    rows: list[tuple[str, ...]] = [("echo", "", f"{syscalls:.0f}", f"{wake_ups:.0f}", "", f"{echo:.0f}")]
    for work, trips in zip(WORKS, (1, 2), strict=True):
        loop = sum(
            each.least_us
            for each in report.figures
            if (each.stage, each.work, each.batch) == (LOOP, work, smallest)
        )
        stages = report.sum_us(work, smallest, "client", "servers") - loop
        calls = report.sum_us(work, smallest, "kernel, client", "kernel, servers")
        whole = stages + calls + trips * wake_ups
        real = report.sample("greenroom", work, 1).p50 * 1e6
        figures = (stages, calls, trips * wake_ups, whole, real)
        rows.append((work, *(f"{each:.0f}" for each in figures)))
    columns = ("µs", "stages", "system calls", "wake-ups", "sum", "round trip, p50")
    return Table(title="One caller: the round trip", columns=columns, rows=rows)


def page(report: Report) -> str:
    """Return the page in Markdown."""
    about = [f"- {name}: {value}" for name, value in report.machine.items()]
    versions = ", ".join(f"{name} {version}" for name, version in sorted(report.versions.items()))
    about.append(f"- versions: {versions}")
    about.append(f"- {report.when}, load before the run {report.load:.1f}")
    about.append(f"- {about_siblings(report.siblings)}")
    tables = {table.title: markdown(table) for table in tables_of(report)}
    texts = dict(zip(tables, (_STAGES, "", _WHOLE, _ALONE), strict=False))
    parts = [_INTRODUCTION, "## Machine\n\n" + "\n".join(about) + "\n"]
    for title, table in tables.items():
        parts += [table, *([texts[title]] if texts[title] else [])]
    return "\n".join(parts)


def about_siblings(siblings: Siblings | None) -> str:
    """Say what the other processor does to this one."""
    if siblings is None:
        return (
            "what a busy neighbour costs is not known: the other processor, if there is one, was never idle"
        )
    return (
        "CPU time of an update's servers beside a busy process on the other processor: "
        f"{siblings.factor:.2f} times that of alone "
        f"({siblings.alone_us:.1f} µs alone, {siblings.beside_us:.1f} µs beside it)"
    )


def _per_second(report: Report, work: Work, batch: int, factor: float) -> float:
    """Return how many operations the processors have time for, if all are kept busy."""
    processors = int(report.machine.get("cores", os.cpu_count() or 1))
    return processors * 1e6 / (report.sum_us(work, batch, *PLACES) * factor)


def _cell(figure: Figure | None) -> str:
    return "" if figure is None else f"{figure.least_us:.2f} ({figure.median_us:.2f})"
