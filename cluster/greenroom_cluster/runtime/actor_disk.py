"""The start of an actor that keeps its sessions on disk: what its directory holds, and who that is.

All of this blocks, and runs in a thread of its own: the heartbeats go on meanwhile.
"""

import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple

import structlog

from greenroom.errors import UsageError
from greenroom_cluster.disk.batches import DamagedError
from greenroom_cluster.disk.directory import Directory, Place, entered, is_kept, read_identity
from greenroom_cluster.disk.entries import Kept
from greenroom_cluster.disk.journal import DiskFailedError, Journal
from greenroom_cluster.disk.replay import Replay
from greenroom_cluster.runtime.clocks import now_ns
from greenroom_cluster.runtime.host_memory import give_back
from greenroom_cluster.runtime.supervised import Standing
from greenroom_cluster.shard.disk_log import Durability, Stable

LOCK_SECONDS = 10.0
"""How long the actors of a killed node may take to end."""
_TELL_ENTRIES = 256
_ACTORS = "actors/*"
_NODES = f"nodes/*/{_ACTORS}"
_LOG_SECONDS = 5.0

_log = structlog.get_logger(__name__)


class DiskSettings(NamedTuple):
    """Which directory an actor opens, and how it writes there."""

    directory: Path
    slot: str
    cluster: str
    incarnation: bytes
    durability: Durability
    interval_seconds: float


class OpenedDisk(NamedTuple):
    """A directory that was opened, as the supervisor and the core see it. The journal is for the writer."""

    standing: Standing
    stable: Stable
    journal: Journal


def open_disk(settings: DiskSettings, goes_on: Callable[[], None]) -> OpenedDisk:
    """Open a directory and read what it holds; `goes_on` is called again and again meanwhile.

    If it is damaged, what it holds is set aside, and it begins empty as another directory. Raises UsageError
    if it cannot be used, and DiskFailedError.
    """
    try:
        try:
            return _open(settings, goes_on)
        except DamagedError as error:
            directory = Directory(settings.directory, wait_seconds=LOCK_SECONDS)
            try:
                aside = directory.set_aside()
            finally:
                directory.close()
            _log.error(
                "disk_damaged",
                slot=settings.slot,
                directory=str(settings.directory),
                reason=str(error),
                aside=str(aside),
                hint=_DAMAGED_HINT,
            )
            return _open(settings, goes_on)
    except OSError as error:
        raise DiskFailedError(
            f"opening {settings.directory} failed ({error}): see that this user may write there, and that "
            "the disk has room"
        ) from error


def _open(settings: DiskSettings, goes_on: Callable[[], None]) -> OpenedDisk:
    began = time.monotonic()
    directory = Directory(settings.directory, wait_seconds=LOCK_SECONDS)
    try:
        identity = directory.enter(settings.cluster, settings.incarnation)
    except BaseException:
        directory.close()
        raise
    opened_ns = now_ns()
    journal = Journal(directory)
    try:
        replay, records = _replayed(journal, settings.slot, goes_on)
    except BaseException:
        journal.close()
        raise
    give_back()
    mark, stored_bytes = journal.synced, journal.stored_bytes
    _log.info(
        "disk_replayed",
        slot=settings.slot,
        directory=str(settings.directory),
        shards=len(replay.copies),
        records=records,
        size_bytes=stored_bytes,
        seconds=round(time.monotonic() - began, 3),
    )
    stable = Stable(
        durability=settings.durability,
        interval_seconds=settings.interval_seconds,
        mark=mark,
        stored_bytes=stored_bytes,
        copies=replay.copies,
        starts=replay.starts,
        remembered=replay.remembered,
        directory=identity.directory,
        openers=identity.incarnations,
        opened_ns=opened_ns,
    )
    return OpenedDisk(Standing(settings.durability, identity.directory, mark), stable, journal)


def _replayed(journal: Journal, slot: str, goes_on: Callable[[], None]) -> tuple[Replay, int]:
    """Return what the journal holds, and how many records were read."""
    replay = Replay()
    records = 0
    due = time.monotonic() + _LOG_SECONDS
    count = told = 0
    for number, size, entries in journal.batches():
        replay.take_batch(number, size, entries)
        records += sum([len(entry.records) for entry in entries if type(entry) is Kept])
        count += len(entries)
        if count >= told:
            told = count + _TELL_ENTRIES
            goes_on()
            if time.monotonic() >= due:
                due += _LOG_SECONDS
                _log.info("disk_replays", slot=slot, entries=count, records=records)
    return replay, records


def refuse_unusable(data_dir: Path | None, durability: str, actors: int, cluster: str) -> None:
    """Raise UsageError if one of so many actors could not use its directory, as far as that shows before.

    A node that finds this out with its first actor has joined the cluster by then.
    """
    for index in range(actors):
        named = actor_directory(data_dir, durability, index)
        if not named:
            return
        path = Path(named)
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            known = read_identity(path)
        except DamagedError:
            continue  # its actor sets it aside, and says so
        except OSError as error:
            raise UsageError(
                f"the directory {path} cannot be used ({error.strerror}): make it a directory that this user "
                "may write to, or choose another with --data-dir (GREENROOM_DATA_DIR)"
            ) from error
        if known is not None:
            entered(known, Place.of(path), cluster, b"", path)


def refuse_kept(
    data_dir: Path | None, durability: str, actors: int, *, nodes: Collection[str] | None = None
) -> None:
    """Raise UsageError if actors kept sessions below a directory that this start would not read.

    The start has so many `actors` in the node of the directory, or in each of these `nodes`.
    """
    if data_dir is None:
        return
    own, others = (_ACTORS, _NODES) if nodes is None else (_NODES, _ACTORS)
    if passed_over := _kept_below(data_dir, others):
        found = passed_over[0]
        if nodes is None:
            what, remedy = "`greenroom up`, and a node", f"--data-dir {found.parents[1]}"
        else:
            what, remedy = "a node, and `greenroom up`", "another --data-dir"
        raise UsageError(
            f"{found} holds sessions of {what} on the directory above would not read them: give {remedy} "
            "(GREENROOM_DATA_DIR)"
        )
    indexes = {str(index) for index in range(actors)}
    for each in _kept_below(data_dir, own):
        if durability == "none":
            given = "--durability (GREENROOM_DURABILITY) again"
        elif nodes is not None and each.parents[1].name not in nodes:
            given = "--nodes (GREENROOM_NODES) as before"
        elif each.name not in indexes:
            given = "--actors (GREENROOM_ACTORS) as before"
        else:
            continue
        remedy = "choose another --data-dir (GREENROOM_DATA_DIR)"
        if durability != "none":
            remedy = "remove it if `greenroom inspect` shows that nothing of it is needed"
        raise UsageError(
            f"{each} holds sessions of a run with --durability, and this start would not read them: "
            f"give {given}, or {remedy}"
        )


def _kept_below(data_dir: Path, pattern: str) -> list[Path]:
    try:
        return [each for each in sorted(data_dir.glob(pattern)) if is_kept(each)]
    except OSError as error:
        raise UsageError(
            f"{data_dir} cannot be read ({error.strerror}): run this as its owner, or choose another with "
            "--data-dir (GREENROOM_DATA_DIR)"
        ) from error


def actor_directory(data_dir: Path | None, durability: str, index: int) -> str:
    """Return where an actor of a node keeps its sessions; empty if it keeps none."""
    return (
        "" if data_dir is None or durability == "none" else str(data_dir.absolute() / "actors" / str(index))
    )


_DAMAGED_HINT = (
    "this actor begins with an empty directory, and gets copies from others; shards that nobody else holds "
    "wait: see the page on durability"
)
