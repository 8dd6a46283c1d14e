"""Where a coordinator keeps its map: what it needs of such a place, and the file as one."""

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

import trio

from greenroom.cluster_map import CLUSTER_IDENTITY_BYTES, ClusterMap
from greenroom_cluster.coordination.adoption import Adoption
from greenroom_cluster.coordination.genesis import ClusterOptions, begun, blank_map
from greenroom_cluster.coordination.storage import MapStorage
from greenroom_cluster.runtime.clocks import now_ns
from greenroom_cluster.runtime.disk_room import DiskRoom

FREE_BYTES_MIN = 16 << 20
"""With less room than this a coordinator warns: a map and its successor are on disk at the same time."""
_FULL_HINT = "make room: once the disk is full, this coordinator ends"


class MapStore(Protocol):
    """Keeps maps. What `save` and `save_marks` return from is there for good; else they do not return."""

    @property
    def vouched(self) -> bool:
        """Whether the map that was loaded is known to be the newest."""

    async def save(self, cluster_map: ClusterMap, *, vouched: bool) -> None:
        """Replace the map."""

    async def save_marks(self, marks: Mapping[bytes, int]) -> None:
        """Replace the marks of directories."""

    def vouch(self) -> None:
        """Note that the map is known to be the newest."""

    def close(self) -> None:
        """Give up the place."""


class Kept(NamedTuple):
    """A store, and what one run of a coordinator begins with."""

    store: MapStore
    map: ClusterMap
    marks: dict[bytes, int]
    adoption: Adoption | None = None


class FileStore:
    """A directory of this host, written to in a thread, which also looks how much room is left there."""

    def __init__(self, storage: MapStorage) -> None:
        self._storage = storage
        self._room = DiskRoom(storage.directory, _FULL_HINT)

    @property
    def vouched(self) -> bool:
        """Whether this boot of the host knows the map to be the newest."""
        return self._storage.vouched

    async def save(self, cluster_map: ClusterMap, *, vouched: bool) -> None:
        """Replace the map. Raises StorageFailedError: then the process must end."""
        # Not abandoned on cancellation: either the map is on disk for good or the process ends.
        await trio.to_thread.run_sync(self._write, partial(self._storage.save, cluster_map, vouched=vouched))

    async def save_marks(self, marks: Mapping[bytes, int]) -> None:
        """Replace the marks. Raises as `save` does."""
        await trio.to_thread.run_sync(self._write, partial(self._storage.save_marks, marks))

    def _write(self, write: Callable[[], None]) -> None:
        write()
        free_bytes = self._room.measure()
        if free_bytes is not None and free_bytes < FREE_BYTES_MIN:
            self._room.warn(free_bytes)

    def vouch(self) -> None:
        """Have this boot of the host know that the map is the newest."""
        self._storage.vouch()

    def close(self) -> None:
        """Give up the lock."""
        self._storage.close()


def kept_in_file(directory: Path, options: ClusterOptions) -> Kept:
    """Return what a directory holds; a new cluster begins in an empty one.

    Raises UsageError for impossible options, MapDamagedError, StorageFailedError.
    """
    storage = MapStorage(directory)
    try:
        first, adoption = _begin(storage, options)
        return Kept(FileStore(storage), first, storage.load_marks(), adoption)
    except BaseException:
        storage.close()
        raise


def _begin(storage: MapStorage, options: ClusterOptions) -> tuple[ClusterMap, Adoption | None]:
    """Return the map to begin with, and how it is to be made anew, if it is."""
    stored = storage.load()
    if options.adopt_directories and (stored is None or not any(stored.epochs)):
        storage.vouch()
        return blank_map(options), Adoption(options, now_ns())
    first = begun(stored, options, os.urandom(CLUSTER_IDENTITY_BYTES))
    if stored is None:
        storage.vouch()
    if first is not stored:
        storage.save(first)
    return first, None
