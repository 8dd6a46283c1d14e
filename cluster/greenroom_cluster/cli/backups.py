"""The commands that take sessions out of a cluster and bring them back: backup, restore, export, import."""

import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, cast

import msgspec
import typer

from greenroom.errors import UsageError
from greenroom_cluster import config
from greenroom_cluster.cli import options
from greenroom_cluster.cli.asking import ask, print_json, print_line
from greenroom_cluster.cli.progress import Progress
from greenroom_cluster.cli.settings import with_options_of

if TYPE_CHECKING:
    from greenroom_cluster.runtime.proving import Keys

_File = Annotated[Path, typer.Argument(help="The file.")]
_Lines = Annotated[
    str, typer.Argument(help="The file, a line of JSON for each session; - for standard input or output.")
]
_Accept = Annotated[
    bool,
    typer.Option(
        "--accept-ended",
        help="Accept that sessions come back that have ended since: people who logged out are logged in.",
        envvar="GREENROOM_ACCEPT_ENDED",
    ),
]
_CreatedBefore = Annotated[
    str,
    typer.Option(
        help="Leave out sessions created at this time or later, such as 2026-05-01T12:00:00Z.",
        envvar="GREENROOM_CREATED_BEFORE",
        show_default=False,
    ),
]


def add_commands(app: typer.Typer) -> None:
    """Add them to the command line."""
    app.command(short_help="Write all sessions of a running cluster to a file.")(backup)
    app.command(short_help="Create the sessions of a backup that are not there.")(restore)
    app.command("export", short_help="Write all sessions as lines of JSON.")(export_lines)
    app.command("import", short_help="Create the sessions in lines of JSON that are not there.")(import_lines)


@with_options_of(config.AccessOptions)
def backup(
    access: config.AccessOptions,
    file: _File,
    *,
    connect: options.Connect = config.NODE_ADDRESS,
    cluster: options.Cluster = config.CLUSTER,
    json: options.Json = False,
) -> None:
    """Write all sessions of a running cluster to a new file, each shard as it stands at one moment.

    The cluster goes on serving. The file has all that sessions hold, and no session's id.
    """
    from greenroom_cluster.backups.taking import take_backup

    _check_no_stream(file)

    async def work(addresses: Sequence[str], name: str, credentials: "Keys | None") -> Any:
        with Progress.on_stderr(json=json) as progress:
            told = progress.copied
            return await take_backup(addresses, name, file, told=told, credentials=credentials)

    _print_taken(ask(work, connect, cluster, access=access, role="operator", json=json), str(file), json=json)


@with_options_of(config.AccessOptions)
def restore(
    access: config.AccessOptions,
    file: _File,
    *,
    connect: options.Connect = config.NODE_ADDRESS,
    cluster: options.Cluster = config.CLUSTER,
    accept_ended: _Accept = False,
    created_before: _CreatedBefore = "",
    json: options.Json = False,
) -> None:
    """Create the sessions of a backup in a running cluster: those that have not expired and are not there.

    What is there stays as it is. Sessions that have ended since the backup come back.
    """
    from greenroom_cluster.backups.files import Backup

    _check_no_stream(file)
    read = Backup(file)
    taken = datetime.fromtimestamp(read.heading.taken_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    _check_accepted(f"since {taken}, when the backup was taken,", accepted=accept_ended)
    _restore(read.stored, access, connect, cluster, created_before, json=json)


@with_options_of(config.AccessOptions)
def export_lines(
    access: config.AccessOptions,
    file: _Lines,
    *,
    connect: options.Connect = config.NODE_ADDRESS,
    cluster: options.Cluster = config.CLUSTER,
    json: options.Json = False,
) -> None:
    """Write all sessions of a running cluster as lines of JSON, one session a line."""
    from greenroom_cluster.backups.taking import export_sessions

    async def work(addresses: Sequence[str], name: str, credentials: "Keys | None") -> Any:
        with Progress.on_stderr(json=json) as progress, _for_writing(file) as write:
            told = progress.copied
            return await export_sessions(addresses, name, write, told=told, credentials=credentials)

    taken = ask(work, connect, cluster, access=access, role="operator", json=json)
    if file != "-":
        _print_taken(taken, file, json=json)


@with_options_of(config.AccessOptions)
def import_lines(
    access: config.AccessOptions,
    file: _Lines,
    *,
    connect: options.Connect = config.NODE_ADDRESS,
    cluster: options.Cluster = config.CLUSTER,
    accept_ended: _Accept = False,
    created_before: _CreatedBefore = "",
    json: options.Json = False,
) -> None:
    """Create the sessions in lines of JSON, as `greenroom export` writes them and `greenroom restore` does.

    They are read to the end first: if a line is no session, none is created.
    """
    from greenroom_cluster.backups.portable import decode_line

    _check_accepted("since they were written down", accepted=accept_ended)
    with _for_reading(file) as lines:

        def sessions() -> Iterator[Any]:
            lines.seek(0)
            for number, line in enumerate(lines, 1):
                yield decode_line(line, number)

        for _ in sessions():
            pass
        _restore(sessions, access, connect, cluster, created_before, json=json)


def _check_no_stream(file: Path) -> None:
    if str(file) == "-":
        raise UsageError(
            "a backup is a file on a disk: name one (./- if that is its name). Lines of JSON, which "
            "`greenroom export` writes, can go through standard output and input"
        )


def _check_accepted(when: str, *, accepted: bool) -> None:
    if not accepted:
        raise UsageError(
            f"sessions that ended {when} would come back: people who logged out would be logged in. If that "
            "is right, say so with --accept-ended (GREENROOM_ACCEPT_ENDED)"
        )


def _restore(
    sessions: Callable[[], Iterator[Any]],
    access: config.AccessOptions,
    connect: str,
    cluster: str,
    created_before: str,
    *,
    json: bool,
) -> None:
    from greenroom import wire
    from greenroom_cluster.backups.restoring import RestoringStore, restore_sessions
    from greenroom_cluster.questions import fetch_map

    before_us = _moment_us(created_before)

    async def work(addresses: Sequence[str], name: str, credentials: "Keys | None") -> Any:
        # A store would go on looking for a node for as long as it is given.
        await fetch_map(addresses, name, credentials=credentials, role=wire.ROLE_CLIENT)
        options: dict[str, Any] = access.store_options()
        nodes = ",".join(addresses)
        async with RestoringStore(nodes, cluster=name, deadline_seconds=30.0, **options) as store:
            await store.check(every_shard=True)
            with Progress.on_stderr(json=json) as progress:
                told = progress.restored
                return await restore_sessions(store, sessions(), created_before_us=before_us, told=told)

    done = ask(work, connect, cluster, access=access, role="client", json=json)
    if json:
        print_json(msgspec.to_builtins(done))
        return
    print_line(
        f"sessions created: {done.created}, there already: {done.existed}, expired: {done.expired}"
        + (f", left out: {done.left_out}" if done.left_out else "")
        + (f", of other namespaces than the certificate's: {done.elsewhere}" if done.elsewhere else "")
    )


def _moment_us(text: str) -> int | None:
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise UsageError(
            f"--created-before must be a time with its zone, such as 2026-05-01T12:00:00Z; it is {text!r}"
        )
    return int(moment.timestamp() * 1e6)


def _print_taken(taken: Any, file: str, *, json: bool) -> None:
    if json:
        print_json({**msgspec.to_builtins(taken), "file": file})
        return
    print_line(
        f"sessions written: {taken.sessions}, shards: {taken.shards}, bytes: {taken.size_bytes}, to {file}"
    )


@contextmanager
def _for_writing(file: str) -> Iterator[Callable[[bytes], None]]:
    """Return what writes to a new file, which is there once the body has ended; or to standard output."""
    from greenroom_cluster.backups.new_file import NewFile, NotWrittenError
    from greenroom_cluster.lasting_files import write_all

    if file != "-":
        with NewFile(Path(file)) as lines:
            yield lines.write
            lines.finish()
        return
    if sys.stdout is None:
        raise UsageError("standard output is closed: name a file, or open it")

    def write(data: bytes) -> None:
        # Not by way of `sys.stdout`, which would complain once more at its own end.
        try:
            write_all(sys.stdout.fileno(), data)
        except OSError as error:
            raise NotWrittenError(
                f"standard output took no more ({error.strerror}): what it has got are not all sessions"
            ) from error

    yield write


def _for_reading(file: str) -> BinaryIO:
    """Open a file. What comes through a pipe is kept in one without a name, because it is read twice."""
    if file == "-" and sys.stdin is None:
        raise UsageError("standard input is closed: name a file, or open it")
    try:
        # The caller closes it.
        lines = cast("BinaryIO", sys.stdin.buffer) if file == "-" else Path(file).open("rb")  # noqa: SIM115
        if stat.S_ISREG(os.fstat(lines.fileno()).st_mode) and file != "-":
            return lines
        if lines.isatty():
            sys.stderr.write("greenroom: reading lines of JSON from the terminal, up to Ctrl-D\n")
        kept = tempfile.TemporaryFile()  # noqa: SIM115  the caller closes it
        shutil.copyfileobj(lines, kept)
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from error
    return cast("BinaryIO", kept)
