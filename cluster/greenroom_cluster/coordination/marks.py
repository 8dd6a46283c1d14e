"""How far directories have come between the changes of the map in which that is noted.

The floors in the map rise when a directory is opened, when something is decided that rests on it, and with
the report of an exit. Between these, supervisors tell marks with their heartbeats. A mark counts from when it
is heard. It is on disk within `KEPT_SECONDS`, beside the map and not in it: a new version of the map would go
to everybody, for something that matters to nobody else.
"""

from collections.abc import Collection, Mapping

from greenroom.deadlines import NEVER_NS

KEPT_SECONDS = 10.0
"""Marks are written at most that often."""


class Marks:
    """The highest mark heard of each directory; `kept` are those on disk when this run began."""

    def __init__(self, kept: Mapping[bytes, int], seconds: float = KEPT_SECONDS) -> None:
        self.known = dict(kept)
        self._every_ns = round(seconds * 1e9)
        self._changed = False
        self._due_ns = 0

    def hear(self, directory: bytes, mark: int) -> None:
        """Note how far a directory has come."""
        if mark > self.known.get(directory, 0):
            self.known[directory] = mark
            self._changed = True

    def keep(self, directories: Collection[bytes]) -> None:
        """Forget all other directories."""
        if any(each not in directories for each in self.known):
            self.known = {key: mark for key, mark in self.known.items() if key in directories}
            self._changed = True

    def to_write(self, now_ns: int) -> dict[bytes, int] | None:
        """Return what to write now, which then counts as written; None if nothing is due."""
        if now_ns < self.next_deadline():
            return None
        self._due_ns = now_ns + self._every_ns
        return self.rest()

    def rest(self) -> dict[bytes, int] | None:
        """Return what has not been written, as `to_write` does, before it is due."""
        changed, self._changed = self._changed, False
        return dict(self.known) if changed else None

    def next_deadline(self) -> int:
        """Return when there will be something to write."""
        return self._due_ns if self._changed else NEVER_NS
