"""The room on the disk of a directory, and the warning that there is little."""

import os
from pathlib import Path

import structlog

from greenroom_cluster.runtime.log_limits import OnceAMinute

_log = structlog.get_logger(__name__)


class DiskRoom:
    """What is free where a directory is; how much is enough, its user decides. `hint` is for an operator."""

    def __init__(self, directory: Path, hint: str) -> None:
        self._directory = directory
        self._hint = hint
        self._warning = OnceAMinute()

    def measure(self) -> int | None:
        """Return how many bytes are free; None if the disk does not tell, which shows when it is written."""
        try:
            found = os.statvfs(self._directory)
        except OSError:
            return None
        return found.f_bavail * found.f_frsize

    def warn(self, free_bytes: int) -> None:
        """Tell the log that no more than this is free, once a minute."""
        if self._warning.is_due():
            _log.warning(
                "disk_nearly_full",
                directory=str(self._directory),
                free_mib=free_bytes >> 20,
                hint=self._hint,
            )
