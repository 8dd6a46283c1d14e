"""What an actor's directory holds, for an operator. Nothing in it is changed."""

from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import msgspec

from greenroom.errors import UsageError
from greenroom_cluster.disk.batches import Batch, DamagedError, sealed
from greenroom_cluster.disk.directory import ASIDE, Place, is_kept, is_locked, read_identity
from greenroom_cluster.disk.journal import (
    counting_segments,
    entries_of,
    found_segments,
    read_beginning,
    tail_of,
)
from greenroom_cluster.disk.notes import decode_note, known_of
from greenroom_cluster.disk.replay import DiskCopy, Replay
from greenroom_cluster.disk.segment import read_segment

_PATTERNS = ("actors/*", "nodes/*/actors/*")
_ATTEMPTS = 5
_encode = msgspec.msgpack.Encoder().encode


class KeptShard(msgspec.Struct, frozen=True):
    """A shard as a directory holds it. `members` are those of its configuration, the primary first.

    `snapshot_sequence` is the record at which its snapshot was taken; `records` are those after it.
    """

    shard: int
    lineage: int
    version: int
    epoch: int
    members: tuple[str, ...]
    snapshot_sequence: int
    records: int
    last_epoch: int
    last_sequence: int
    committed: int
    proposal: str
    size_bytes: int


class KeptDirectory(msgspec.Struct, frozen=True):
    """What a directory is and holds.

    `mark` is its newest batch, `damage` what it lacks, `moved` what shows that its place is another one; both
    are empty if nothing does. `aside` is where what was damaged before is, empty if nothing was.
    """

    path: str
    directory: str
    cluster: str
    place: Place | None
    incarnations: tuple[str, ...]
    mark: int
    stored_bytes: int
    in_use: bool
    moved: str
    damage: str
    aside: str
    shards: tuple[KeptShard, ...]

    def start(self) -> str:
        """Return what the start of an actor here would do."""
        if self.moved:
            return (
                f"it refuses, because the directory was moved or copied: {self.moved}. If no process uses "
                f"the original, `greenroom adopt-directory {self.path}` has it count here"
            )
        if self.in_use:
            return "it refuses, because a process uses the directory now"
        if self.damage and self.aside:
            return (
                f"it refuses, because {self.aside} holds what was damaged here before: replace the disk, or "
                "remove that, and it begins with an empty directory, to which others copy what they hold"
            )
        if self.damage:
            return (
                "it moves all that is here to `damaged`, and begins with an empty directory, to which others "
                "copy what they hold"
            )
        return (
            f"it reads {len(self.shards)} shards, and goes on with those whose members have all ended, if no"
            " other directory of theirs has come further; the others it gets from their primaries"
        )


def directories_below(path: Path) -> list[Path]:
    """Return the actors' directories at a path: itself, or those of a node, or of all nodes of `up`.

    Raises UsageError if there are none, and OSError.
    """
    below = (each for pattern in _PATTERNS for each in sorted(path.glob(pattern)))
    found = [each for each in (path, *below) if is_kept(each)]
    if not found:
        raise UsageError(
            f"there is no directory of an actor at {path}: name the --data-dir of a node, or of "
            "`greenroom up`"
        )
    return found


def inspect_directory(path: Path) -> KeptDirectory:
    """Return what a directory is and holds. Raises UsageError if a later release wrote it."""
    damage = ""
    identity = None
    try:
        identity = read_identity(path)
    except DamagedError as error:
        damage = str(error)
    in_use = False
    with suppress(OSError):
        in_use = is_locked(path)
    attempts = _ATTEMPTS if in_use else 1
    mark, replay, lacking = _replayed(path)
    while lacking and (attempts := attempts - 1):
        # The process that uses it may have sealed or dropped a segment meanwhile.
        mark, replay, lacking = _replayed(path)
    damage = damage or lacking
    return KeptDirectory(
        path=str(path),
        directory="" if identity is None else identity.directory.hex(),
        cluster="" if identity is None else identity.cluster,
        place=None if identity is None else identity.place,
        incarnations=() if identity is None else tuple(each.hex() for each in identity.incarnations),
        mark=mark,
        stored_bytes=sum(found.path.stat().st_size for found in found_segments(path)),
        in_use=in_use,
        moved="" if identity is None else Place.of(path).moved_from(identity.place),
        damage=damage,
        aside=str(aside) if (aside := path / ASIDE).exists() else "",
        shards=tuple(_kept(replay.copies[shard]) for shard in sorted(replay.copies)),
    )


def _replayed(path: Path) -> tuple[int, Replay, str]:
    """Return the newest batch, what all amount to, and what is lacking."""
    mark, replay = 0, Replay()
    try:
        for batch in _batches(path):
            mark = batch.number
            for entry in entries_of(batch):
                replay.take(entry)
    except (DamagedError, FileNotFoundError) as error:
        return mark, replay, str(error)
    return mark, replay, ""


def _batches(path: Path) -> Iterator[Batch]:
    """Yield what is to be believed."""
    note = b""
    with suppress(FileNotFoundError):
        note = (path / "synced").read_bytes()
    known = known_of(read_beginning(path), decode_note(note))
    segments = counting_segments(path, known)
    tail = tail_of(segments, known)
    for found, follower in pairwise(segments[: tail.unsettled + 1]):
        yield from sealed(read_segment(found.path), found.first, follower.first - 1)
    for batches in tail.batches:
        yield from batches


def _kept(copy: DiskCopy) -> KeptShard:
    configuration, proposal = copy.configuration, copy.proposal
    last_epoch, last_sequence = copy.last
    return KeptShard(
        shard=copy.shard,
        lineage=0 if configuration is None else configuration.lineage,
        version=0 if configuration is None else configuration.version,
        epoch=0 if configuration is None else configuration.epoch,
        members=() if configuration is None else tuple(each.hex() for each in configuration.members),
        snapshot_sequence=copy.from_sequence,
        records=len(copy.records),
        last_epoch=last_epoch,
        last_sequence=last_sequence,
        committed=copy.committed,
        proposal="" if proposal is None else proposal.kind,
        size_bytes=sum(map(len, copy.chunks)) + sum(len(_encode(record)) for record in copy.records),
    )
