"""Whether files have changed since they were read: certificates, keys, deny lists and secrets alike.

`Watch` decides, and is pure; `mark_at` looks.
"""

import os
from pathlib import Path
from typing import TypeAlias

Mark: TypeAlias = tuple[int, ...] | None
"""What tells that a file has changed; None: it cannot be looked at."""


def mark_of(found: os.stat_result) -> Mark:
    """Return the mark of a file that was looked at."""
    return (
        found.st_dev,
        found.st_ino,
        found.st_size,
        found.st_mtime_ns,
        found.st_ctime_ns,  # changes with the mode and the owner too
    )


def mark_at(path: Path) -> Mark:
    """Return the mark of the file at this path. Raises nothing."""
    try:
        return mark_of(path.stat())
    except (OSError, ValueError):
        return None


class Watch:
    """Decides when files are read again: they look different, and no look was taken for a while.

    Times are of any one clock, in any unit. Files are changed one after the other, so a set that does not fit
    is tried again with the next change.
    """

    def __init__(self, marks: tuple[Mark, ...], now: float, every: float) -> None:
        self._marks = marks
        self._looked_at = now
        self._every = every

    def is_due(self, now: float) -> bool:
        """Whether to take a look now; each look is the last one for a while."""
        # A clock that was set back must not keep old secrets in use.
        if self._looked_at <= now < self._looked_at + self._every:
            return False
        self._looked_at = now
        return True

    def has_changed(self, marks: tuple[Mark, ...]) -> bool:
        """Whether the files look different from the last time; they are known as they are from now on."""
        changed, self._marks = marks != self._marks, marks
        return changed
