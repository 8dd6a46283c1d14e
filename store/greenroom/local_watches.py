"""Who watches sessions that lie in one table, for the stores of one process and of one file.

All watches of one event loop are attended together, at a steady pace while there are any: by one task,
however many they are.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from functools import partial
from heapq import heapify, heappop, heappush

from greenroom.background import begin
from greenroom.endings import Ended, Tell
from greenroom.errors import GreenroomError, UnavailableError
from greenroom.turns import loop_key, pause

_STALE_MAX = 64

_log = logging.getLogger("greenroom")


class LocalWatch:
    """One watch. See `endings.Watch`."""

    __slots__ = ("_group", "digest", "stopped", "tell")

    def __init__(self, group: "Group", digest: bytes, tell: Tell) -> None:
        self._group = group
        self.digest = digest
        self.tell = tell
        self.stopped = False

    def stop(self) -> None:
        """Be told nothing any more, also while others are told of the same end."""
        self.stopped = True
        self._group.remove(self)


class Group(ABC):
    """The watches of one event loop. `ends_us` is when each session was last known to end.

    `closed`: all are to hear that they will not be told. `attended`: a task looks after them.
    """

    def __init__(self) -> None:
        self.ends_us: dict[bytes, int] = {}
        self.closed = False
        self.attended = False
        self._watches: dict[bytes, dict[LocalWatch, None]] = {}
        self._due: list[tuple[int, bytes]] = []
        # Those that `due` has taken out, and `known` has not put back yet.
        self._taken: set[bytes] = set()

    @abstractmethod
    async def attend(self) -> None:
        """Tell who watches what has ended since."""

    def add(self, digest: bytes, ends_us: int, tell: Tell) -> LocalWatch:
        """Add a watch of a session that ends then, unless it is extended."""
        watch = LocalWatch(self, digest, tell)
        if digest in self._watches:
            self._watches[digest][watch] = None
        else:
            self._watches[digest] = {watch: None}
            self.known(digest, ends_us)
        return watch

    def remove(self, watch: LocalWatch) -> None:
        """Remove a watch, if it is there."""
        watches = self._watches.get(watch.digest)
        if watches is not None and watches.pop(watch, self) is None and not watches:
            self._forget(watch.digest)

    def _forget(self, digest: bytes) -> None:
        del self._watches[digest], self.ends_us[digest]
        self._taken.discard(digest)

    def known(self, digest: bytes, ends_us: int) -> None:
        """Note when a session that is watched ends now."""
        if self.ends_us.get(digest) == ends_us and digest not in self._taken:
            return
        self._taken.discard(digest)
        self.ends_us[digest] = ends_us
        heappush(self._due, (ends_us, digest))
        if len(self._due) > 2 * len(self.ends_us) + _STALE_MAX:
            self._due = [(at_us, each) for each, at_us in self.ends_us.items() if each not in self._taken]
            heapify(self._due)

    def due(self, now_us: int, most: int) -> list[bytes]:
        """Take out sessions that have ended by now, as far as is known, and that `known` may put back."""
        found: list[bytes] = []
        while self._due and self._due[0][0] <= now_us and len(found) < most:
            ends_us, digest = heappop(self._due)
            if self.ends_us.get(digest) == ends_us and digest not in self._taken:
                self._taken.add(digest)
                found.append(digest)
        return found

    def tell(self, digest: bytes, outcome: Ended | GreenroomError) -> None:
        """Tell all who watch a session, for the last time."""
        watches = self._watches.get(digest)
        if watches is None:
            return
        self._forget(digest)
        for watch in watches:
            if watch.stopped:
                continue
            try:
                watch.tell(outcome)
            except Exception:  # noqa: BLE001  it is not the fault of whoever has ended the session
                _log.exception("telling of the end of a session failed")

    def tell_all_if_closed(self) -> None:
        """Tell all who watch anything that they will not be told, if the store was closed."""
        if self.closed:
            self.closed = False
            error = UnavailableError("the store was closed: the end of the session will not be told")
            for digest in list(self.ends_us):
                self.tell(digest, error)


class LocalWatches:
    """All groups of one store, by event loop. `make` makes one, which is attended every `seconds`."""

    def __init__(self, make: Callable[[], Group], seconds: float) -> None:
        self._make = make
        self._seconds = seconds
        self.groups: dict[Hashable, Group] = {}

    def add(self, digest: bytes, ends_us: int, tell: Tell) -> LocalWatch:
        """Add a watch in the running event loop."""
        key = loop_key()
        group = self.groups.get(key)
        if group is None:
            for loop in [each for each in self.groups if getattr(each, "is_closed", bool)()]:
                del self.groups[loop]
            group = self.groups[key] = self._make()
        if not group.attended:
            group.attended = True
            begin(partial(self._attend, key, group))
        return group.add(digest, ends_us, tell)

    def tell(self, digest: bytes, ended: Ended) -> None:
        """Tell all who watch a session, whatever their event loop."""
        for group in list(self.groups.values()):
            group.tell(digest, ended)

    def tell_own(self, digest: bytes, ended: Ended) -> None:
        """Tell those who watch a session in the running event loop."""
        group = self.groups.get(loop_key())
        if group is not None:
            group.tell(digest, ended)

    def close(self) -> None:
        """Have nobody wait any longer: those of the running event loop now, others soon."""
        for group in self.groups.values():
            group.closed = True
        own = self.groups.get(loop_key())
        if own is not None:
            own.tell_all_if_closed()

    async def _attend(self, key: Hashable, group: Group) -> None:
        try:
            while group.ends_us:
                await pause(self._seconds)
                group.tell_all_if_closed()
                if not group.ends_us:
                    break
                try:
                    await group.attend()
                except GreenroomError:  # the next time it may be there again
                    continue
        finally:
            group.attended = False
            if self.groups.get(key) is group:
                del self.groups[key]
