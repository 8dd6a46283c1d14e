"""How tables of untrusted texts look, on a console that wraps no line and so cuts nothing off."""

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from greenroom_cluster.escaping import printable

WIDTH = 1000
"""Wide enough for any table; a narrower terminal wraps lines."""


def wide_console() -> Console:
    """Return the console of stdout."""
    return Console(width=WIDTH, highlight=False)


def new_table(*columns: str) -> Table:
    """Return a table without rows."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, no_wrap=True)
    return table


def add_row(table: Table, *cells: str | Text) -> None:
    """Add a row of untrusted texts, with markup and control sequences escaped."""
    table.add_row(*(cell if isinstance(cell, Text) else Text(printable(cell)) for cell in cells))
