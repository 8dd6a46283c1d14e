"""The commands about what actors keep on disk: inspect, adopt-directory. They need no running cluster."""

from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from greenroom.errors import GreenroomError, UsageError
from greenroom_cluster.cli import options
from greenroom_cluster.cli.asking import print_json, print_line
from greenroom_cluster.escaping import printable

_Directory = Annotated[
    Path, typer.Argument(help="An actor's directory, or the --data-dir of a node or of `up`.")
]


def add_commands(app: typer.Typer) -> None:
    """Add them to the command line."""
    app.command(short_help="Show what actors keep on disk.")(inspect)
    app.command("adopt-directory", short_help="Have a directory count that was moved or restored.")(adopt)


def inspect(directory: _Directory, *, json: options.Json = False) -> None:
    """Show what actors keep on disk, and what a start would do with it. Nothing is changed.

    Exit with 1 if something is damaged.
    """
    from greenroom_cluster.disk.inspecting import directories_below, inspect_directory

    found = [_read(inspect_directory, path) for path in _read(directories_below, directory)]
    if json:
        document = [{**msgspec.to_builtins(each), "start": each.start()} for each in found]
        print_json({"directories": document})
    else:
        from greenroom_cluster.cli.tables import print_directories

        print_directories(found)
    if any(each.damage for each in found):
        raise typer.Exit(1)


def adopt(directory: _Directory) -> None:
    """Have a directory count where it is now, although it was last used elsewhere.

    Only if no process uses the original any more, and none will: two that go on from one directory lose
    sessions.
    """
    from greenroom_cluster.disk.batches import DamagedError
    from greenroom_cluster.disk.directory import Directory
    from greenroom_cluster.disk.inspecting import directories_below

    for path in _read(directories_below, directory):
        opened = Directory(path)
        try:
            identity = opened.adopt()
        except DamagedError as error:
            raise UsageError(f"{path} is damaged, and is not adopted: {error}") from error
        except OSError as error:
            raise UsageError(f"{path} cannot be written ({error.strerror}): run this as its owner") from error
        finally:
            opened.close()
        print_line(printable(f"{path} is adopted: directory {identity.directory.hex()} counts here"))


def _read(work: Any, path: Path) -> Any:
    try:
        return work(path)
    except OSError as error:
        raise GreenroomError(f"{path} cannot be read ({error}): run this as its owner") from error
