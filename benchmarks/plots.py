"""The plots, as SVG: throughput, latency, cost against size and against what is stored, failures."""

from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import msgspec
from rich.console import Console

from benchmarks.appearance import GRID, GROUND, INK, LOOKS, SCENARIOS, with_dark_colours
from benchmarks.results import Results
from benchmarks.samples import DISTRIBUTION
from benchmarks.summary import CALLERS, SMALL, bytes_per_session, cells_of, failovers_by

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TITLES = {"get": "reads", "update": "writes"}
_ROOM = 1.8
"""How much longer than the longest bar an axis is, for the words behind it."""

Draw = Callable[["Axes", Results], None]


class Failure(msgspec.Struct, frozen=True):
    """What a contender's callers went through in one scenario: the longest wait, and what was lost."""

    scenario: str
    contender: str
    wait_seconds: float
    lost_writes: int
    stale_reads: int

    @property
    def loss(self) -> str:
        """What was lost, in words."""
        stale = f", and {self.stale_reads:,} stale reads" if self.stale_reads else ""
        return f"{self.lost_writes:,}{stale}"


def draw_all(results: Results, directory: Path, console: Console) -> list[tuple[str, str]]:
    """Draw what there is data for and return (file, caption) of each; nothing without matplotlib."""
    if find_spec("matplotlib") is None:
        console.print("no plots: matplotlib is not installed (uv run --group bench)", highlight=False)
        return []
    plots: list[tuple[str, str, bool, Draw]] = [
        *(
            (
                f"throughput-{work}.svg",
                f"{_TITLES[work]} a second against concurrent callers, {SMALL} bytes",
                bool(results.throughput),
                _throughput(work),
            )
            for work in _TITLES
        ),
        *(
            (
                f"latency-{work}.svg",
                f"latency distribution of {_TITLES[work]}, {CALLERS} callers, {SMALL} bytes",
                bool(results.throughput),
                _latency(work),
            )
            for work in _TITLES
        ),
        (
            "size.svg",
            f"CPU of client and servers per read against size, {CALLERS} callers",
            len({reading.size for reading in results.throughput}) > 1,
            _size,
        ),
        ("stored-latency.svg", "p50 of a get against sessions stored", bool(results.stored), _stored_latency),
        (
            "stored-memory.svg",
            "memory of a session against sessions stored",
            bool(results.stored),
            _stored_memory,
        ),
    ]
    _prepare()
    drawn = []
    for file, caption, wanted, draw in plots:
        if wanted:
            _save(directory / file, _with_axes(caption, draw, results))
            drawn.append((file, caption))
    if results.failovers:
        caption = "by failure: the longest wait of any caller, and the acknowledged writes that were lost"
        _save(directory / "failover.svg", _failures(caption, failures_of(results)))
        drawn.append(("failover.svg", caption))
    return drawn


def _prepare() -> None:
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "greenroom"  # the same data give the same file
    mpl.rcParams["svg.fonttype"] = "none"  # text stays text, and files small
    inked = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    mpl.rcParams.update(dict.fromkeys(inked, INK))
    mpl.rcParams.update(dict.fromkeys(("figure.facecolor", "axes.facecolor", "legend.facecolor"), GROUND))
    mpl.rcParams.update({"grid.color": GRID, "legend.edgecolor": GRID, "legend.framealpha": 1.0})


def _save(file: Path, figure: "Figure") -> None:
    from matplotlib import pyplot as plt

    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)
    file.write_text(with_dark_colours(file.read_text()))


def _with_axes(caption: str, draw: Draw, results: Results) -> "Figure":
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    draw(axes, results)
    axes.set_title(caption)
    axes.grid(visible=True)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize="small")
    return figure


def _lines(axes: "Axes", series: Iterable[tuple[str, list[float], list[float]]]) -> None:
    for name, across, up in series:
        look = LOOKS[name]
        axes.plot(
            across,
            up,
            label=look.name,
            color=look.colour,
            marker=look.marker,
            markersize=5,
            linewidth=2.5 if look.ours else 1.2,
        )


def _throughput(work: str) -> Draw:
    def draw(axes: "Axes", results: Results) -> None:
        cells = [cell for cell in cells_of(results.throughput) if (cell.work, cell.size) == (work, SMALL)]
        names = dict.fromkeys(cell.contender for cell in cells)
        _lines(
            axes,
            (
                (
                    name,
                    [float(cell.callers) for cell in cells if cell.contender == name],
                    [cell.per_second for cell in cells if cell.contender == name],
                )
                for name in names
                if name != "memory"
            ),
        )
        axes.set_xscale("log", base=2)
        axes.set_xlabel("callers")
        axes.set_ylabel("operations a second")
        axes.set_ylim(bottom=0)

    return draw


def _latency(work: str) -> Draw:
    def draw(axes: "Axes", results: Results) -> None:
        found: dict[str, list[list[float]]] = {}
        for reading in results.throughput:
            at = (reading.work, reading.size, reading.callers) == (work, SMALL, CALLERS)
            if at and reading.sample.distribution and reading.contender != "memory":
                found.setdefault(reading.contender, []).append(reading.sample.distribution)
        _lines(
            axes,
            (
                (
                    name,
                    [1 / (1 - share) for share in DISTRIBUTION],
                    [median(column) * 1e3 for column in zip(*rounds, strict=True)],
                )
                for name, rounds in found.items()
            ),
        )
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xticks([2, 10, 100, 1000, 10_000], ["50 %", "90 %", "99 %", "99.9 %", "99.99 %"])
        axes.set_xlabel("share of operations answered within")
        axes.set_ylabel("milliseconds")

    return draw


def _size(axes: "Axes", results: Results) -> None:
    cells = [cell for cell in cells_of(results.throughput) if (cell.work, cell.callers) == ("get", CALLERS)]
    names = dict.fromkeys(cell.contender for cell in cells)
    _lines(
        axes,
        (
            (
                name,
                [float(cell.size) for cell in cells if cell.contender == name],
                [cell.client_cpu_us + cell.server_cpu_us for cell in cells if cell.contender == name],
            )
            for name in names
        ),
    )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("bytes of a session")
    axes.set_ylabel("microseconds of CPU, client and servers")


def _stored_latency(axes: "Axes", results: Results) -> None:
    _by_stored(axes, results, lambda index: median(s.p50 for s in results.stored[index].crowded) * 1e6)
    axes.set_ylabel(f"microseconds, {CALLERS} callers")


def _stored_memory(axes: "Axes", results: Results) -> None:
    _by_stored(axes, results, lambda index: bytes_per_session(results.stored[index]))
    axes.set_ylabel("resident bytes of a session, all replicas")


def _by_stored(axes: "Axes", results: Results, figure: Callable[[int], float]) -> None:
    names = dict.fromkeys(reading.contender for reading in results.stored)
    _lines(
        axes,
        (
            (
                name,
                [float(each.stored) for each in results.stored if each.contender == name],
                [figure(index) for index, each in enumerate(results.stored) if each.contender == name],
            )
            for name in names
        ),
    )
    axes.set_xscale("log")
    axes.set_xlabel("sessions stored")
    axes.set_ylim(bottom=0)


def failures_of(results: Results) -> list[Failure]:
    """Return what is compared, by scenario: the median of the waits, the sum of what was lost."""
    return [
        Failure(
            scenario,
            contender,
            median(each.unavailable for each in readings),
            sum(each.lost_writes for each in readings),
            sum(each.stale_reads for each in readings),
        )
        for (scenario, contender), readings in failovers_by(results.failovers).items()
    ]


def _failures(caption: str, failures: list[Failure]) -> "Figure":
    """Draw both figures of each contender on one line: who waits little may have lost much."""
    from matplotlib import pyplot as plt

    figure, (waits, losses) = plt.subplots(1, 2, figsize=(11, 7), sharey=True, layout="constrained")
    places: list[float] = []
    headings: dict[float, str] = {}
    for failure in failures:
        title = SCENARIOS[failure.scenario]
        if title not in headings.values():
            headings[(places[-1] + 1.3) if places else 0.0] = title
            places.append(max(headings) + 0.9)
        else:
            places.append(places[-1] + 0.9)
    colours = [LOOKS[failure.contender].colour for failure in failures]
    parts = (
        (
            waits,
            [each.wait_seconds for each in failures],
            [f"{each.wait_seconds:.2f} s" for each in failures],
        ),
        (losses, [each.lost_writes for each in failures], [each.loss for each in failures]),
    )
    for axes, figures, labels in parts:
        bars = axes.barh(places, figures, height=0.72, color=colours)
        axes.bar_label(bars, labels, padding=4, fontsize="small")
        axes.locator_params(axis="x", nbins=4)
        axes.set_xlim(0, max(*figures, 1) * _ROOM)
        axes.grid(visible=True, axis="x")
        axes.set_axisbelow(True)
    for place, title in headings.items():
        waits.text(0, place, f" {title}", va="center", fontweight="bold", fontsize="small")
    waits.set_yticks(places, [LOOKS[each.contender].name for each in failures], fontsize="small")
    waits.invert_yaxis()
    waits.set_xlabel("longest wait in seconds, median of the runs")
    losses.set_xlabel("acknowledged writes lost, sum of the runs")
    losses.xaxis.set_major_formatter("{x:,.0f}")
    figure.suptitle(caption)
    return figure
