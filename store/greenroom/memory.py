"""A store in the memory of one process: for tests, for development, for apps of a single process.

It offers everything that the cluster offers and keeps the same promises, except surviving the process. No
operation awaits anything but its turn, so each is atomic under asyncio and trio and safe to cancel. It keeps
digests instead of ids, and encoded bytes instead of objects, so that callers never share mutable state with
it.
"""

from collections.abc import Callable
from datetime import datetime
from itertools import count
from typing import Any, ClassVar

from greenroom import wire
from greenroom.clocks import microseconds_by
from greenroom.end_reasons import end_of
from greenroom.endings import UNKNOWN, Ended, NoWatch, Tell, Watch
from greenroom.fanout import count_of
from greenroom.fields import utc_now
from greenroom.ids import digest_if_possible
from greenroom.local_watches import Group, LocalWatches
from greenroom.one_table import OneTableStore
from greenroom.options import MEMORY_STORE
from greenroom.replies import stored_session
from greenroom.sessions import StoredSession
from greenroom.table import UNBOUNDED, StateTable

LOOKS_PER_CREATE = 4
"""How many stored sessions a create looks at for expired ones."""
BEAT_SECONDS = 1.0
"""How often it is looked whether a session that is watched has expired."""


class _Watched(Group):
    """The watches of one event loop, with the time and the end of a session as the store knows them."""

    def __init__(self, now: Callable[[], int], ends: Callable[[bytes], int | None]) -> None:
        super().__init__()
        self._now = now
        self._ends = ends

    async def attend(self) -> None:
        """Tell whose session has expired."""
        for digest in self.due(self._now(), UNBOUNDED):
            ends_us = self._ends(digest)
            if ends_us is None:
                self.tell(digest, Ended("expiry"))
            else:
                self.known(digest, ends_us)


class MemoryStore(OneTableStore):
    """All sessions of one process, gone when it ends.

    `clock` returns the present as an aware datetime; if it goes back, the store's time stands still until the
    clock has caught up, so that nothing expired lives again. Expired sessions are dropped by `clean`, and a
    few at each `create`: what has expired is gone after a quarter as many creates as there are sessions, so
    nothing need call `clean`. Not for use by several threads at once.
    """

    suspends: ClassVar[bool] = False

    def __init__(self, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._clock: Callable[[], datetime] = MEMORY_STORE.checked("clock", clock)
        self._now_us = microseconds_by(self._clock)
        self._table = StateTable()
        self._deciders: dict[type, Callable[[Any, int, int], Any]] = {
            **self._table.deciders(),
            wire.Get: self._get,
            wire.Create: self._create,
            wire.ListByUser: self._list_by_user,
        }
        self._versions = count(1)
        self._newest_time = 0
        self._watches = LocalWatches(lambda: _Watched(self._now, self._ends_us), BEAT_SECONDS)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} with {len(self._table.sessions)} sessions>"

    async def clean(self) -> int:
        """Remove what has expired and return how many sessions that were."""
        return count_of(await self._perform(wire.Clean(0, 0, 0, ())))

    def watch(self, session_id: str, tell: Tell) -> Watch:
        """Have `tell` called when the session has ended; see `BaseSessionStore.watch`.

        At once, or within a second if it has expired.
        """
        digest = digest_if_possible(session_id)
        state = None if digest is None else self._table.live(digest, self._now())
        if digest is None or state is None:
            tell(UNKNOWN)
            return NoWatch()
        return self._watches.add(digest, state.expires_us, tell)

    def at_hand(self, session_id: str) -> StoredSession | None:
        """Return the session with its data encoded; see `BaseSessionStore.at_hand`."""
        digest = digest_if_possible(session_id)
        state = None if digest is None else self._table.live(digest, self._now())
        return None if state is None else stored_session(session_id, state)

    async def _perform(self, command: Any) -> Any:
        if not self._watches.groups:
            return self._deciders[type(command)](command, self._now(), next(self._versions))
        gone: list[bytes] = []
        self._table.gone = gone
        try:
            return self._deciders[type(command)](command, self._now(), next(self._versions))
        finally:
            self._table.gone = None
            for digest in gone:
                self._watches.tell(digest, end_of(command, digest))

    def _ends_us(self, digest: bytes) -> int | None:
        """Return when a session ends; None if there is none that lives."""
        state = self._table.live(digest, self._now())
        return None if state is None else state.expires_us

    def _now(self) -> int:
        now = self._now_us()
        if now > self._newest_time:
            self._newest_time = now
        return self._newest_time

    def _get(self, command: wire.Get, time_us: int, _version: int) -> wire.SessionState | None:
        return self._table.live(command.digest, time_us)

    def _create(self, command: wire.Create, time_us: int, version: int) -> wire.Written | wire.Failed:
        self._table.collect(time_us, LOOKS_PER_CREATE)
        return self._table.create(command, time_us, version)

    def _list_by_user(
        self, command: wire.ListByUser, time_us: int, _version: int
    ) -> list[wire.SessionHandle]:
        return self._table.newest_of(command.user_id, command.limit, time_us)[0]
