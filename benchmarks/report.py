"""Results shown: tables on the terminal, and pages, plots and raw results in a directory."""

from pathlib import Path

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table as RichTable

from benchmarks.legend import sections_of
from benchmarks.plots import draw_all
from benchmarks.results import Results, merged
from benchmarks.tables import Table, markdown, tables_of

RESULTS_FILE = "results.json"
PAGE_FILE = "index.md"

_WIDTH = 148  # the tables need no less
_TITLE = "# Benchmarks\n"
_INTRODUCTION = """\
Written by `uv run --group bench python -m benchmarks`, which starts every contender itself on loopback. All
take turns within a part; figures are medians of the rounds, the spread is the lowest and the highest round.
A verdict is `within the spread` where some rounds met the bound and some missed it, and says how many rounds
there were if there were few. **Ratios travel to other machines better than absolute figures, and vary from
run to run all the same.** Writes of `greenroom` are acknowledged when a second node has them; of the others
only those of `redis_wait` are. CPU is per operation: of the client process, and of all server processes
together. Contenders other than ours have no operation that changes a part of a session: their `patch` reads
and writes the whole, and two at once may overwrite each other.
"""


def show(results: Results, console: Console) -> None:
    """Print how it was measured and what the names mean, then the tables."""
    console.width = max(console.width, _WIDTH)
    console.print(_plain(_INTRODUCTION), markup=False, highlight=False)
    for section in sections_of(results):
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
    """Write the raw results, a page of tables and the plots; parts not measured now stay as they are."""
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / RESULTS_FILE
    if file.exists():
        results = _merged_with(file, results, console)
    file.write_bytes(msgspec.json.format(msgspec.json.encode(rounded(results)), indent=0) + b"\n")
    render(directory, console)


def render(directory: Path, console: Console) -> Results:
    """Write the page and the plots of the raw results in the directory, and return these."""
    results = msgspec.json.decode((directory / RESULTS_FILE).read_bytes(), type=Results)
    plots = draw_all(results, directory, console)
    (directory / PAGE_FILE).write_text(page(results, plots))
    console.print(f"written to {directory}", highlight=False)
    return results


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


def page(results: Results, plots: list[tuple[str, str]]) -> str:
    """Return the page in Markdown; `plots` are (file, caption)."""
    parts = [
        _TITLE,
        _INTRODUCTION,
        *(
            f"## {section.title}\n\n" + "\n".join(f"- {line}" for line in section.lines) + "\n"
            for section in sections_of(results)
        ),
        *(f"![{caption}]({file})\n" for file, caption in plots),
        *(markdown(table) for table in tables_of(results)),
    ]
    return "\n".join(parts)
