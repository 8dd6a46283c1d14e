"""Whether there is room for sessions to grow, or only for them to end.

A delete needs room too: SQLite writes pages to a journal before it changes them. So growth is refused while
the disk still has some, and who logs out is logged out. What was deleted leaves room within the file, where
sessions grow without taking any from the disk.
"""

import logging
import math
import os
import shutil
import sqlite3
import time
from typing import Any, Final

from greenroom import wire
from greenroom.errors import StoreFullError
from greenroom.sqlite.files import WAL_BYTES_MAX

FREE_BYTES_MIN = WAL_BYTES_MAX
"""With less room on the disk, only what ends sessions is done, unless there is room within the file."""
WITHIN_BYTES_MIN: Final = 1 << 20
WARN_SECONDS: Final = 60.0
_ENDINGS = frozenset({wire.Delete, wire.DeleteByHandle, wire.DeleteByUser, wire.Clean})
_WITHIN = "SELECT freelist_count * page_size FROM pragma_freelist_count(), pragma_page_size()"

_log = logging.getLogger("greenroom")


class Room:
    """The room that the file at `path` has, and that there is on its disk."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._folder = os.path.dirname(path)  # noqa: PTH120  once, of an absolute path
        self._warned = -math.inf

    def is_short(self, connection: sqlite3.Connection) -> bool:
        """Whether there is too little for growth; warn at most once a minute. Raises sqlite3.Error."""
        try:
            free_bytes = shutil.disk_usage(self._folder).free
        except OSError:
            return False  # what is wrong shows when the file is written
        if free_bytes >= FREE_BYTES_MIN or connection.execute(_WITHIN).fetchone()[0] >= WITHIN_BYTES_MIN:
            return False
        now = time.monotonic()
        if now - self._warned >= WARN_SECONDS:
            self._warned = now
            _log.warning(
                "only %d MiB are free on the disk of %s: below %d, sessions are only read and ended",
                free_bytes >> 20,
                self._path,
                FREE_BYTES_MIN >> 20,
            )
        return True

    def refusal(self) -> StoreFullError:
        """Return the error for what would grow."""
        return StoreFullError(
            f"nothing was written, the disk of {self._path} is nearly full: free space there, so that "
            f"{FREE_BYTES_MIN >> 20} MiB are left. Reads and logouts go on"
        )


def grows(command: Any) -> bool:
    """Whether a command that changes something may need lasting room."""
    return type(command) not in _ENDINGS
