"""The commands that take sessions out of a cluster and bring them back: backup, restore, export, import."""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, BinaryIO, cast

import msgspec
import typer

from greenroom.errors import UsageError
from greenroom_cluster import config
from greenroom_cluster.cli import options
from greenroom_cluster.cli.asking import ask, print_json

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


def backup(
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

    async def work(addresses: Sequence[str], name: str) -> Any:
        return await take_backup(addresses, name, file, told=_teller("shards copied", json=json))

    _print_taken(ask(work, connect, cluster, json=json), str(file), json=json)


def restore(
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

    read = Backup(file)
    taken = datetime.fromtimestamp(read.heading.taken_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    _check_accepted(f"since {taken}, when the backup was taken,", accepted=accept_ended)
    _restore(read.stored, connect, cluster, created_before, json=json)


def export_lines(
    file: _Lines,
    *,
    connect: options.Connect = config.NODE_ADDRESS,
    cluster: options.Cluster = config.CLUSTER,
    json: options.Json = False,
) -> None:
    """Write all sessions of a running cluster as lines of JSON, one session a line."""
    from greenroom_cluster.backups.taking import export_sessions

    async def work(addresses: Sequence[str], name: str) -> Any:
        with _for_writing(file) as lines:
            return await export_sessions(addresses, name, lines, told=_teller("shards copied", json=json))

    taken = ask(work, connect, cluster, json=json)
    if file != "-":
        _print_taken(taken, file, json=json)


def import_lines(
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
        _restore(sessions, connect, cluster, created_before, json=json)


def _check_accepted(when: str, *, accepted: bool) -> None:
    if not accepted:
        raise UsageError(
            f"sessions that ended {when} would come back: people who logged out would be logged in. If that "
            "is right, say so with --accept-ended (GREENROOM_ACCEPT_ENDED)"
        )


def _restore(
    sessions: Callable[[], Iterator[Any]], connect: str, cluster: str, created_before: str, *, json: bool
) -> None:
    from greenroom_cluster.backups.restoring import RestoringStore, restore_sessions

    before_us = _moment_us(created_before)

    async def work(addresses: Sequence[str], name: str) -> Any:
        tell = _teller("sessions looked at", json=json)
        async with RestoringStore(",".join(addresses), cluster=name, deadline_seconds=30.0) as store:
            await store.check(every_shard=True)
            return await restore_sessions(
                store, sessions(), created_before_us=before_us, told=lambda done: tell(done.looked_at)
            )

    done = ask(work, connect, cluster, json=json)
    if json:
        print_json(msgspec.to_builtins(done))
        return
    sys.stdout.write(
        f"{done.created} sessions created, {done.existed} were there already, {done.expired} have expired"
        + (f", {done.left_out} left out" if done.left_out else "")
        + "\n"
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
    sys.stdout.write(
        f"{taken.sessions} sessions of {taken.shards} shards, {taken.size_bytes} bytes: {file}\n"
    )


def _teller(what: str, *, json: bool) -> Callable[[int], None]:
    """Return what shows progress on stderr, once a second at most."""
    shown = time.monotonic()

    def tell(count: int) -> None:
        nonlocal shown
        if not json and time.monotonic() - shown >= 1:
            shown = time.monotonic()
            sys.stderr.write(f"greenroom: {count} {what}\n")
            sys.stderr.flush()

    return tell


@contextmanager
def _for_writing(file: str) -> Iterator[BinaryIO]:
    """Open a new file, for this user alone; it is removed if the body fails."""
    if file == "-":
        yield sys.stdout.buffer
        return
    path = Path(file)
    try:
        lines = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")
    except FileExistsError:
        raise UsageError(f"{file} is there already: name a new file, or remove it first") from None
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror}") from error
    try:
        with lines:
            yield lines
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _for_reading(file: str) -> BinaryIO:
    """Open a file; what comes on standard input is kept in one without a name, to be read twice."""
    if file == "-":
        kept = tempfile.TemporaryFile()  # noqa: SIM115  the caller closes it
        shutil.copyfileobj(sys.stdin.buffer, kept)
        return cast("BinaryIO", kept)
    try:
        return Path(file).open("rb")
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from error
