"""The room on the disk of a directory, of which the log tells while there is little."""

import os
from pathlib import Path

import structlog

from greenroom_cluster.runtime.log_limits import OnceAMinute

_log = structlog.get_logger(__name__)


class DiskRoom:
    """What is free where a directory is. Below `free_bytes_min` the log says so, with `hint`."""

    def __init__(self, directory: Path, free_bytes_min: int, hint: str) -> None:
        self._directory = directory
        self._free_bytes_min = free_bytes_min
        self._hint = hint
        self._warning = OnceAMinute()

    def measure(self) -> int | None:
        """Return how many bytes are free; None if the disk does not tell, which shows when it is written."""
        try:
            found = os.statvfs(self._directory)
        except OSError:
            return None
        free_bytes = found.f_bavail * found.f_frsize
        if free_bytes < self._free_bytes_min and self._warning.is_due():
            _log.warning(
                "disk_nearly_full",
                directory=str(self._directory),
                free_mib=free_bytes >> 20,
                hint=self._hint,
            )
        return free_bytes
