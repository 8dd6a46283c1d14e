"""The cluster map on disk: one file, always whole, and rejected if damaged.

    map.bin     magic, format version, length and CRC-32 of the payload, then the map in msgpack
    marks.bin   the same of the highest marks of directories, by incarnation; may be ahead of the floors
    map.tmp     the next map while it is written; means nothing
    lock        held with flock(2) while a coordinator runs; names the cluster once a map was saved
    moved       where the map is now, if it was moved away: what is here is not used any more

A note in memory (`boot_note`) distinguishes the map last written from an older copy of it.

A map is written beside the old one, fsynced and renamed over it, and the directory is fsynced: after a crash
one of the two is there, whole. After a failed write or fsync the kernel may have dropped the pages and still
call the next fsync a success (Rebello et al., ATC 2020). So nothing is retried: the process must end, and
start from what is on disk.
"""

import os
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from greenroom.cluster_map import ClusterMap
from greenroom.errors import GreenroomError, InvariantError, UsageError
from greenroom_cluster.coordination.boot_note import BootNote
from greenroom_cluster.coordination.bounds import MAP_BYTES_MAX, map_objection
from greenroom_cluster.lasting_files import lock_directory, replace_file, sync_directory

FORMAT_VERSION = 2
"""The latest format, see `format_of`."""
_MARKS_FORMAT = 1
_MAGIC = b"GREENMAP"
_HEADER = struct.Struct(">8sHQI")

_MARKS_MAGIC = b"GREENMRK"
_MOVED = "moved"

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(ClusterMap)
_marks_decoder = msgspec.msgpack.Decoder(dict[bytes, int])


def format_of(cluster_map: ClusterMap) -> int:
    """Return the format of a map's file.

    Releases that read format 1 alone drop what they do not know of a map. Without its directories all that is
    on disk would be lost to the cluster, and without a suspect a second copy of its shard. So a map with any
    of these is none for them, until they are gone from it.
    """
    kept = cluster_map.floors or any(actor.directory for actor in cluster_map.actors.values())
    return 2 if kept or any(shard.suspect for shard in cluster_map.shards) else 1


class StorageFailedError(GreenroomError):
    """Writing the map failed: the coordinator must end without replying to anything undecided."""


class MapDamagedError(UsageError):
    """What a coordinator keeps is damaged, missing or of a later format; the text says what to do.

    To start again does not help.
    """


class MapStorage:
    """The directory that holds one cluster's map, locked for this process while open.

    Created with mode 0700 if missing. Raises UsageError if another coordinator holds it or it cannot be used.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._path = directory / "map.bin"
        self._failure = ""
        self._content = b""
        self._vouched = False
        try:
            self._lock = lock_directory(directory)
        except BlockingIOError as error:
            raise UsageError(
                f"another coordinator is running on {directory}: stop it, or give this one a directory of "
                "its own with --data-dir (GREENROOM_DATA_DIR)"
            ) from error
        except (FileExistsError, NotADirectoryError) as error:
            what = "it" if isinstance(error, FileExistsError) else "a part of its path"
            raise UsageError(
                f"the coordinator's directory {directory} cannot be used, because {what} is a file and not a "
                "directory: choose another with --data-dir (GREENROOM_DATA_DIR)"
            ) from error
        except OSError as error:
            raise UsageError(
                f"the coordinator's directory {directory} cannot be used ({error.strerror}): make it "
                "writable for this user, or choose another with --data-dir (GREENROOM_DATA_DIR)"
            ) from error
        self._note = BootNote(directory)

    @property
    def directory(self) -> Path:
        """Where it is."""
        return self._directory

    @property
    def vouched(self) -> bool:
        """Whether the map on disk, and all saved from now on, are known to be the newest."""
        return self._vouched

    def vouch(self) -> None:
        """Note for this boot of the host that the map on disk, and all saved from now on, are the newest."""
        self._vouched = True
        if self._content:
            self._note.write(self._content)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give up the lock; closing twice is fine."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    @property
    def moved_to(self) -> str:
        """Where the map was moved; empty if it was not. Raises MapDamagedError if that cannot be read."""
        try:
            return (self._directory / _MOVED).read_text(errors="replace")
        except FileNotFoundError:
            return ""
        except OSError as error:
            raise self._damaged(f"reading its file {_MOVED} failed: {error.strerror}") from error

    def move(self, where: str) -> None:
        """Note durably that the map, which was loaded, is there from now on: nobody goes on from this one.

        Nor does a release that knows no such note, to which the file is of a later format. Raises
        StorageFailedError.
        """
        try:
            self._replace(_framed(_MAGIC, FORMAT_VERSION, self._content[_HEADER.size :]))
            replace_file(self._directory / _MOVED, where.encode())
        except OSError as error:
            raise self._failed("where the map is moved", error) from error

    def stay(self) -> None:
        """Take back `move`. Raises StorageFailedError."""
        try:
            (self._directory / _MOVED).unlink(missing_ok=True)
            sync_directory(self._directory)
            version = format_of(self._decode(self._content))
            self._replace(_framed(_MAGIC, version, self._content[_HEADER.size :]))
        except OSError as error:
            raise self._failed("that the map stays", error) from error

    def load(self, *, even_moved: bool = False) -> ClusterMap | None:
        """Return the map on disk, or None if none was ever saved here.

        If this boot cannot vouch for it, it does not vouch for later ones either, until `vouch` is called.
        Raises MapDamagedError if there must be one and it cannot be read whole, UsageError if it was moved.
        """
        if not even_moved and (where := self.moved_to):
            raise UsageError(
                f"the map in {self._directory} was moved to {where}: start the coordinator with --store "
                f"{where} (GREENROOM_STORE), or give it another --data-dir (GREENROOM_DATA_DIR)"
            )
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            cluster = os.pread(self._lock, 1024, 0).decode(errors="replace")
            if cluster:
                raise self._damaged(f"it is missing, though cluster {cluster!r} was kept here") from None
            return None
        except OSError as error:
            raise self._damaged(f"reading it failed: {error.strerror}") from error
        cluster_map = self._decode(content)
        self._content = content
        self._vouched = self._note.vouches_for(content)
        if not self._vouched:
            self._note.void()
        return cluster_map

    def save(self, cluster_map: ClusterMap, *, vouched: bool | None = None) -> None:
        """Replace the former map by this one, durably once this returns.

        `vouched`: it is known to be the newest; None: if the former one was.
        Raises StorageFailedError, then and on every later call: the process must end.
        """
        if self._failure:
            raise StorageFailedError(self._failure)
        payload = _encoder.encode(cluster_map)
        if len(payload) > MAP_BYTES_MAX:
            raise InvariantError(f"a map of {len(payload)} bytes was decided, which is too long to be sent")
        content = _framed(_MAGIC, format_of(cluster_map), payload)
        if vouched is not None:
            self._vouched = vouched
        try:
            self._replace(content)
            self._mark(cluster_map.cluster)
        except OSError as error:
            raise self._failed("the cluster map", error) from error

    def _replace(self, content: bytes) -> None:
        if self._vouched:
            # Whichever of the two a crash leaves is the newest: no one was told of the other.
            self._note.write(*((self._content, content) if self._content else (content,)))
        replace_file(self._path, content)
        self._content = content
        if self._vouched:
            self._note.write(content)

    def load_marks(self) -> dict[bytes, int]:
        """Return the marks on disk, by directory. Raises MapDamagedError if they cannot be read whole."""
        try:
            content = (self._directory / "marks.bin").read_bytes()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise self._marks_damaged(f"reading it failed: {error.strerror}") from error
        payload = memoryview(content)[_HEADER.size :]
        if content[: _HEADER.size] != _framed(_MARKS_MAGIC, _MARKS_FORMAT, payload)[: _HEADER.size]:
            raise self._marks_damaged("its header or its checksum is wrong")
        try:
            return _marks_decoder.decode(payload)
        except msgspec.MsgspecError as error:
            raise self._marks_damaged("it does not hold marks") from error

    def save_marks(self, marks: Mapping[bytes, int]) -> None:
        """Replace the former marks by these, durably once this returns. Raises as `save` does."""
        if self._failure:
            raise StorageFailedError(self._failure)
        try:
            content = _framed(_MARKS_MAGIC, _MARKS_FORMAT, _encoder.encode(marks))
            replace_file(self._directory / "marks.bin", content)
        except OSError as error:
            raise self._failed("the marks of directories", error) from error

    def _failed(self, what: str, error: OSError) -> StorageFailedError:
        self._failure = (
            f"saving {what} in {self._directory} failed ({error.strerror}): the coordinator ends and must be "
            "started again once the disk is writable and has room"
        )
        return StorageFailedError(self._failure)

    def _marks_damaged(self, what: str) -> MapDamagedError:
        return MapDamagedError(
            f"the marks of directories, marks.bin in {self._directory}, are damaged: {what}. Put back a "
            "copy, or, if none of the actors' directories was put back to an older copy, remove that file"
        )

    def _mark(self, cluster: str) -> None:
        """Note in the lock file that a map was saved, so that its loss is not taken for a first start."""
        if os.fstat(self._lock).st_size == 0:
            os.pwrite(self._lock, cluster.encode(), 0)
            os.fsync(self._lock)

    def _decode(self, content: bytes) -> ClusterMap:
        if len(content) < _HEADER.size:
            raise self._damaged(f"it has {len(content)} bytes, fewer than its header")
        magic, version, length, checksum = _HEADER.unpack_from(content)
        if magic != _MAGIC:
            raise self._damaged("it does not begin like a map of greenroom")
        if not version:
            raise self._damaged("its header is wrong")
        if version > FORMAT_VERSION:
            raise MapDamagedError(
                f"the cluster map {self._path} has format {version}, this greenroom reads formats up to "
                f"{FORMAT_VERSION}: start the greenroom version that wrote it"
            )
        payload = memoryview(content)[_HEADER.size :]
        if len(payload) != length:
            raise self._damaged(f"{length} bytes were announced and {len(payload)} are there")
        if zlib.crc32(payload) != checksum:
            raise self._damaged("its checksum is wrong")
        try:
            cluster_map = _decoder.decode(payload)
        except msgspec.MsgspecError as error:
            raise self._damaged("its content is not a cluster map") from error
        complaint = map_objection(cluster_map)
        if complaint:
            raise self._damaged(complaint)
        return cluster_map

    def _damaged(self, what: str) -> MapDamagedError:
        return MapDamagedError(
            f"the cluster map {self._path} is damaged: {what}. Move the directory away. If nodes run, put "
            "back a copy if any, and start once with --new-lineage --adopt-from host:port,host:port, "
            "naming them; if none does and they keep sessions on disk, put back no copy, and start once with "
            "--new-lineage --adopt-from-directories"
        )


def refuse_kept_map(directory: Path, cluster: str) -> None:
    """Raise UsageError if a directory holds the map of this cluster, which is to be kept elsewhere.

    Two coordinators that go on from two maps of one cluster lose sessions.
    """
    try:
        held = (directory / "map.bin").exists() and not (directory / _MOVED).exists()
        kept = held and (directory / "lock").read_text(errors="replace") == cluster
    except OSError:
        return
    if kept:
        raise UsageError(
            f"{directory} holds the map of cluster {cluster!r}, and --store (GREENROOM_STORE) would begin "
            "without it: move it first, by `greenroom move-map` with the same --store; or, if it is of no "
            "use, remove it or name another --data-dir (GREENROOM_DATA_DIR)"
        )


def _framed(magic: bytes, version: int, payload: bytes | memoryview) -> bytes:
    return _HEADER.pack(magic, version, len(payload), zlib.crc32(payload)) + payload
