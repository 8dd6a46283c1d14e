"""What files hold, read again when these change; if they cannot be used, what was in use stays in use."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from greenroom.errors import UsageError
from greenroom.file_watch import Mark, Watch, mark_at

LOOK_SECONDS = 10.0
"""How often it is looked whether files have changed, at most."""

Held = TypeVar("Held")


def ignore(_: Any) -> None:
    """Tell nobody."""


class Reread(Generic[Held]):
    """What some files hold, as they are now.

    `read` reads all of them, and raises UsageError if they cannot be used. `refused(text)` is called if
    changed files cannot be, once for each reason; the text begins with `kept`, which says what that means.
    `taken(held)` is called after they were read anew. Raises UsageError at construction.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        read: Callable[[], Held],
        refused: Callable[[str], None],
        taken: Callable[[Held], None] = ignore,
        *,
        kept: str,
        look_seconds: float = LOOK_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._paths = paths
        self._read_files = read
        self._refused = refused
        self._taken = taken
        self._kept = kept
        self._told = ""
        self._clock = clock
        self._watch = Watch(self._marks(), clock(), look_seconds)
        self._held = read()
        self.failures = 0

    def current(self) -> Held:
        """Return what is in use, after a look at the files if one is due."""
        if self._watch.is_due(self._clock()) and self._watch.has_changed(self._marks()):
            self._read()
        return self._held

    def reload(self) -> bool:
        """Read the files now, changed or not; return whether they can be used, which is told in any case."""
        self._watch.has_changed(self._marks())
        self._told = ""
        return self._read()

    def _read(self) -> bool:
        try:
            self._held = self._read_files()
        except UsageError as error:
            self.failures += 1
            if str(error) != self._told:
                self._told = str(error)
                self._refused(f"{self._kept}: {self._told}")
            return False
        self._told = ""
        self._taken(self._held)
        return True

    def _marks(self) -> tuple[Mark, ...]:
        return tuple(map(mark_at, self._paths))
