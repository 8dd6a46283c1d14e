"""The commands about what is kept on disk: inspect, adopt-directory, move-map."""

from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from greenroom.errors import GreenroomError, UsageError
from greenroom_cluster import config
from greenroom_cluster.cli import options
from greenroom_cluster.cli.asking import print_json, print_line, run
from greenroom_cluster.cli.settings import with_options_of
from greenroom_cluster.escaping import printable

_Directory = Annotated[
    Path, typer.Argument(help="An actor's directory, or the --data-dir of a node or of `up`.")
]


def add_commands(app: typer.Typer) -> None:
    """Add them to the command line."""
    app.command(short_help="Show what actors keep on disk.")(inspect)
    app.command("move-map", short_help="Move a stopped coordinator's map to etcd.")(move_map)
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


@with_options_of(config.MoveMapSettings)
def move_map(settings: config.MoveMapSettings) -> None:
    """Move the map of a coordinator that is stopped from its directory to etcd.

    Run it on the coordinator's host. Afterwards start coordinators with the same --store: the nodes that run
    go on with them.
    """
    if not settings.etcd.store:
        raise UsageError("say where the map is to be kept: --store etcd://host:2379 (GREENROOM_STORE)")
    settings.etcd.check()
    from greenroom_cluster.runtime.map_moving import move_map as move

    moved = run(move, settings.data_dir, settings.etcd)
    what = "was moved before" if moved.before else "is in etcd"
    print_line(
        printable(
            f"map {moved.lineage}.{moved.version} of cluster {moved.cluster} {what}: start coordinators with "
            f"--store {settings.etcd.store}"
        )
    )


def _read(work: Any, path: Path) -> Any:
    try:
        return work(path)
    except OSError as error:
        raise GreenroomError(f"{path} cannot be read ({error}): run this as its owner") from error
