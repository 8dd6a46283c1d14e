"""The plots, as SVG: throughput, latency, cost against size and against what is stored, failures."""

from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from rich.console import Console

from benchmarks.results import Results
from benchmarks.samples import DISTRIBUTION
from benchmarks.summary import CALLERS, SMALL, bytes_per_session, cells_of, failovers_by

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_OURS = "greenroom"
_TITLES = {"get": "reads", "update": "writes"}

Draw = Callable[["Axes", Results], None]


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
        ("failover.svg", "longest wait of any caller, by failure", bool(results.failovers), _failover),
    ]
    drawn = []
    for file, caption, wanted, draw in plots:
        if wanted:
            _save(directory / file, caption, draw, results)
            drawn.append((file, caption))
    return drawn


def _save(file: Path, caption: str, draw: Draw, results: Results) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "greenroom"  # the same data give the same file
    mpl.rcParams["svg.fonttype"] = "none"  # text stays text, and files small
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    draw(axes, results)
    axes.set_title(caption)
    axes.grid(visible=True, alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize="small")
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)


def _lines(axes: "Axes", series: Iterable[tuple[str, list[float], list[float]]]) -> None:
    for name, across, up in series:
        ours = name.startswith(_OURS)
        axes.plot(across, up, label=name, marker="o", markersize=3, linewidth=2.5 if ours else 1.2)


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


def _failover(axes: "Axes", results: Results) -> None:
    by = failovers_by(results.failovers)
    labels = [f"{scenario}\n{contender}" for scenario, contender in by]
    waits = [median(reading.unavailable for reading in each) for each in by.values()]
    colours = ["C0" if contender == _OURS else "C1" for _, contender in by]
    axes.barh(labels, waits, color=colours)
    axes.invert_yaxis()
    axes.tick_params(axis="y", labelsize="small")
    axes.set_xlabel("seconds")
