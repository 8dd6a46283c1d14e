"""How far directories have come between the changes of the map in which that is noted.

The floors in the map rise when a directory is opened, when something is decided that rests on it, and with
the report of an exit. Between these, supervisors tell marks with their heartbeats. A mark counts from when it
is heard. It is on disk within `KEPT_SECONDS`, beside the map and not in it: a new version of the map would go
to everybody, for something that matters to nobody else.
"""

from collections.abc import Collection, Mapping

from greenroom.cluster_map import ActorEntry
from greenroom.deadlines import NEVER_NS

KEPT_SECONDS = 10.0
"""Marks are written at most that often."""


class Marks:
    """The highest mark heard of each directory that an actor in the map has.

    On disk a mark stands under the incarnation of which it was heard; `kept` are those there when this run
    began, and `actors` those in its map. If all actors of a directory had left the map, their marks on disk
    may be from before: whoever opened it since was not judged by them, and its successors are not either.
    """

    def __init__(
        self,
        kept: Mapping[bytes, int],
        actors: Mapping[bytes, ActorEntry],
        seconds: float = KEPT_SECONDS,
    ) -> None:
        self.known: dict[bytes, int] = {}
        self._heard_of: dict[bytes, bytes] = {}
        self._every_ns = round(seconds * 1e9)
        self._due_ns = 0
        for incarnation, mark in kept.items():
            actor = actors.get(incarnation)
            if actor is not None:
                self.hear(actor, mark)
        self._changed = False

    def hear(self, actor: ActorEntry, mark: int) -> None:
        """Note how far the directory of an actor has come."""
        if mark > self.known.get(actor.directory, 0):
            self.known[actor.directory] = mark
            self._heard_of[actor.directory] = actor.incarnation
            self._changed = True

    def keep(self, directories: Collection[bytes]) -> None:
        """Forget all other directories."""
        if any(each not in directories for each in self.known):
            self.known = {key: mark for key, mark in self.known.items() if key in directories}
            self._heard_of = {key: self._heard_of[key] for key in self.known}
            self._changed = True

    def to_write(self, now_ns: int) -> dict[bytes, int] | None:
        """Return what to write now, by incarnation, which then counts as written; None if nothing is due."""
        if now_ns < self.next_deadline():
            return None
        self._due_ns = now_ns + self._every_ns
        return self.rest()

    def rest(self) -> dict[bytes, int] | None:
        """Return what has not been written, as `to_write` does, before it is due."""
        changed, self._changed = self._changed, False
        return {self._heard_of[key]: mark for key, mark in self.known.items()} if changed else None

    def next_deadline(self) -> int:
        """Return when there will be something to write."""
        return self._due_ns if self._changed else NEVER_NS
