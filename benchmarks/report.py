"""Results shown: tables on the terminal, and pages, plots and raw results in a directory."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table as RichTable

from benchmarks.legend import Section, names_of, runs_of
from benchmarks.plots import draw_all
from benchmarks.results import Results, merged
from benchmarks.tables import Page, Table, markdown, pages_of, tables_of, verdict_tables

RESULTS_FILE = "results.json"
PAGE_FILE = "index.md"
TABLES_DIRECTORY = "tables"

_WIDTH = 148  # the tables need no less
_TITLE = "# Benchmarks\n"
_NAMES_FILE = "names.md"
_NAMES_TITLE = "Names in the tables"
_BACK = "[What the names mean]({names}), and [how it was measured](../index.md).\n"
_INTRODUCTION = """\
Written by `uv run --group bench python -m benchmarks`, which starts every contender itself, on loopback.
Within a part, the contenders take turns. A figure is the median of the rounds; a spread is the lowest and
the highest round. `within the spread` means that some rounds met the bound and others missed it. A verdict
from few rounds says how many there were. **Ratios travel to other machines better than absolute figures,
yet they vary from run to run too.**

Writes of `greenroom` are acknowledged when a second node has them; of the others, only those of
`redis_wait` are. CPU is per operation: that of the client process, and that of all server processes
together. No other contender can change a part of a session: its `patch` reads and writes the whole, and two
at once may overwrite each other.
"""
_SIBLINGS = {
    "demo.md": "The demo: requests, errors and lost writes while processes are killed",
    "durable.md": "What durability costs, and how soon sessions are back from disk",
    "near.md": "What a near cache saves, and what it costs those who write",
    "tls.md": "What TLS costs",
    "costs.md": "What one operation consists of, stage by stage",
    "pages.md": "What sessions cost the pages of a web app",
    "races.md": "What concurrent requests lose or undo, beside other session libraries",
}
"""Other pages of figures in the same directory, written by hand or by commands of their own."""


def show(results: Results, console: Console) -> None:
    """Print how it was measured and what the names mean, then the tables."""
    console.width = max(console.width, _WIDTH)
    console.print(_plain(_INTRODUCTION), markup=False, highlight=False)
    for section in (*runs_of(results), *names_of(results)):
        lines = (f"  {_plain(line)}" for line in section.lines)
        console.print("\n".join((section.title, *lines, "")), markup=False, highlight=False)
    for table in tables_of(results):
        console.print(rich_table(table))
    for run in results.runs.values():
        for name, reason in run.skipped.items():
            console.print(f"[yellow]skipped: {name}[/yellow]: {reason}", highlight=False)


def _plain(text: str) -> str:
    return text.replace("`", "").replace("**", "")


def rich_table(table: Table) -> RichTable:
    """Return a table for the terminal."""
    shown = RichTable(title=table.title, box=box.SIMPLE, title_justify="left")
    for index, column in enumerate(table.columns):
        shown.add_column(column, justify="left" if index < table.labels else "right")
    for row in table.rows:
        shown.add_row(*(cell.replace("**missed**", "[red]missed[/red]") for cell in row))
    return shown


def write(results: Results, directory: Path, console: Console) -> None:
    """Write raw results, pages and plots. Parts that this run did not measure stay as they are."""
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / RESULTS_FILE
    if file.exists():
        results = _merged_with(file, results, console)
    file.write_bytes(msgspec.json.format(msgspec.json.encode(rounded(results)), indent=0) + b"\n")
    render(directory, console)


def render(directory: Path, console: Console) -> Results:
    """Write the pages and the plots of the raw results in the directory, and return the results."""
    results = msgspec.json.decode((directory / RESULTS_FILE).read_bytes(), type=Results)
    plots = draw_all(results, directory, console)
    (directory / PAGE_FILE).write_text(page(results, plots, siblings_in(directory)))
    tables = directory / TABLES_DIRECTORY
    tables.mkdir(exist_ok=True)
    for former in tables.glob("*.md"):
        former.unlink()
    for file, text in table_pages(results).items():
        (tables / file).write_text(text)
    console.print(f"written to {directory}", highlight=False)
    return results


def siblings_in(directory: Path) -> list[str]:
    """Return the other pages of figures that the directory holds."""
    return [file for file in _SIBLINGS if (directory / file).exists()]


def _merged_with(file: Path, results: Results, console: Console) -> Results:
    try:
        return merged(msgspec.json.decode(file.read_bytes(), type=Results), results)
    except msgspec.ValidationError as error:
        console.print(f"{file} is of another version and is replaced ({error})", highlight=False)
        return results


def rounded(results: Results) -> object:
    """Return the results as plain values, floats with five significant digits."""

    def walk(value: object) -> object:
        match value:
            case float():
                return float(f"{value:.5g}")
            case list():
                return [walk(each) for each in value]
            case dict():
                return {key: walk(each) for key, each in value.items()}
        return value

    return walk(msgspec.to_builtins(results))


def page(results: Results, plots: list[tuple[str, str]], siblings: Sequence[str] = ()) -> str:
    """Return the page of verdicts in Markdown; `plots` are (file, caption), `siblings` pages to link to."""
    tables = [
        f"- [{each.title}]({TABLES_DIRECTORY}/{each.file})"
        for each in (*pages_of(results), Page(file=_NAMES_FILE, title=_NAMES_TITLE, tables=[]))
    ]
    others = [f"- [{_SIBLINGS[file]}]({file})" for file in siblings]
    parts = [
        _TITLE,
        _INTRODUCTION,
        *(markdown(table) for table in verdict_tables(results)),
        "## All figures\n\n" + "\n".join([*tables, *others]) + "\n",
        *_listed(runs_of(results)),
        "## Plots\n",
        *(f"![{caption}]({file})\n" for file, caption in plots),
    ]
    return "\n".join(parts)


def table_pages(results: Results) -> dict[str, str]:
    """Return the pages of tables in Markdown, by file."""
    found = {
        each.file: "\n".join(
            [f"# {each.title}\n", _BACK.format(names=_NAMES_FILE), *map(markdown, each.tables)]
        )
        for each in pages_of(results)
    }
    found[_NAMES_FILE] = "\n".join([f"# {_NAMES_TITLE}\n", *_listed(names_of(results))])
    return found


def _listed(sections: Iterable[Section]) -> list[str]:
    return [
        f"## {section.title}\n\n" + "\n".join(f"- {line}" for line in section.lines) + "\n"
        for section in sections
    ]
