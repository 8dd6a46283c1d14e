"""The store that keeps sessions in one SQLite file: durable on one host, without a server.

The file holds digests of session ids, and sessions as `MemoryStore` keeps them: encoded.
"""

import os
import weakref
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from greenroom import wire
from greenroom.clocks import microseconds_by
from greenroom.end_reasons import end_of
from greenroom.endings import UNKNOWN, NoWatch, Tell, Watch
from greenroom.errors import UsageError
from greenroom.fanout import count_of
from greenroom.fields import utc_now
from greenroom.ids import DIGEST_BYTES, digest_if_possible
from greenroom.local_watches import LocalWatches
from greenroom.one_table import OneTableStore
from greenroom.options import CALLS, SQLITE_STORE
from greenroom.sqlite.engine import Engine, let_go
from greenroom.sqlite.lanes import CLEAN_MAX, CLEAN_SECONDS
from greenroom.sqlite.settings import Settings
from greenroom.sqlite.watching import BEAT_SECONDS, WatchedRows

_ENDING = frozenset({wire.Delete, wire.Rotate})


class SqliteStore(OneTableStore):
    """Sessions in a file, for the processes of one host. An acknowledged write survives them and the host.

    `path` is that of the file, which is made, readable by its owner alone, if there is none. An operation
    answers within `deadline_seconds` or raises UnavailableError (not applied) or OutcomeUnknownError (perhaps
    applied). With `synchronous="normal"` writes are acknowledged before they are on the disk: they survive
    the process, not a power cut. `clock` returns the present as an aware datetime; it is called in threads of
    the store. `operations_max` limits how many operations wait. Expired sessions are removed in the
    background. Raises UsageError for invalid options.

    Works under asyncio and trio, with and without `async with`, in several loops and threads, across forks,
    and several processes may share the file. After `aclose` the next operation opens it again.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        deadline_seconds: float = 5.0,
        synchronous: Literal["full", "normal"] = "full",
        clock: Callable[[], datetime] = utc_now,
        operations_max: int = 10_000,
    ) -> None:
        checked = SQLITE_STORE.checked
        settings = Settings(
            path=_checked_path(path),
            synchronous=checked("synchronous", synchronous),
            deadline_seconds=float(checked("deadline_seconds", deadline_seconds)),
            operations_max=checked("operations_max", operations_max),
            clean_seconds=CLEAN_SECONDS,
        )
        self._settings = settings
        self.contention_seconds = settings.deadline_seconds
        self._engine = Engine(settings, microseconds_by(checked("clock", clock)))
        self._finalizer = weakref.finalize(self, let_go, self._engine)
        perform = self._engine.perform
        self._watches = LocalWatches(lambda: WatchedRows(perform), BEAT_SECONDS)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {self._settings.path}>"

    async def check(self, *, every_shard: bool = False) -> None:
        """Check whether sessions can be read: open the file and read from it."""
        CALLS.check(every_shard=every_shard)
        await self._engine.perform(wire.Get(0, 0, bytes(DIGEST_BYTES)))

    async def aclose(self) -> None:
        """Wait for the operations under way, then close the file. Harmless to repeat."""
        self._watches.close()
        await self._engine.aclose()

    # --- for `OneTableStore` -----------------------------------------------------------------------------

    def _perform(self, command: Any) -> Awaitable[Any]:
        if self._watches.groups and type(command) in _ENDING:
            return self._ended_by(command)
        return self._engine.perform(command)

    async def _ended_by(self, command: wire.Delete | wire.Rotate) -> Any:
        """Perform what ends a session of which this process knows why, before a look finds it gone."""
        reply = await self._engine.perform(command)
        if not isinstance(reply, wire.Failed):
            self._watches.tell_own(command.digest, end_of(command, command.digest))
        return reply

    def watch(self, session_id: str, tell: Tell) -> Watch:
        """Have `tell` called when the session has ended; see `BaseSessionStore.watch`.

        The file is looked at 20 times a second, whichever process has ended the session. The reason is known
        of what this event loop has deleted or rotated, and of an expiry.
        """
        digest = digest_if_possible(session_id)
        if digest is None:
            tell(UNKNOWN)
            return NoWatch()
        return self._watches.add(digest, 0, tell)

    async def clean(self) -> int:
        """Remove what has expired and return how many sessions that were. Never needed: the store does so.

        It takes a transaction for every few hundred sessions, and lets other writers in between.
        """
        removed = 0
        while True:
            some = count_of(await self._engine.perform(wire.Clean(0, 0, 0, ())))
            removed += some
            if some < CLEAN_MAX:
                return removed


def _checked_path(path: str | os.PathLike[str]) -> str:
    if not isinstance(path, str | os.PathLike):
        raise UsageError(f"the path of a store's file is a str or a Path, not {type(path).__name__}")
    text: Any = os.fspath(path)
    if not isinstance(text, str) or not text or "\0" in text or text.startswith(":memory:"):
        raise UsageError('a store needs the path of a file; for sessions in memory write "memory://"')
    if text.startswith("sqlite:"):
        raise UsageError("SqliteStore takes the path of a file; for its URL call store_from_url")
    # Now, since an app may change its directory later.
    return str(Path(text).absolute())
