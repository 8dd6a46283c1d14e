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
from greenroom.fields import utc_now
from greenroom.one_table import OneTableStore
from greenroom.options import MEMORY_STORE
from greenroom.replies import count_of
from greenroom.table import StateTable

LOOKS_PER_CREATE = 4
"""How many stored sessions a create looks at for expired ones."""


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

    def __repr__(self) -> str:
        return f"<{type(self).__name__} with {len(self._table.sessions)} sessions>"

    async def clean(self) -> int:
        """Remove what has expired and return how many sessions that were."""
        return count_of(await self._perform(wire.Clean(0, 0, 0, ())))

    async def _perform(self, command: Any) -> Any:
        return self._deciders[type(command)](command, self._now(), next(self._versions))

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
