"""The store that keeps sessions in one SQLite file: durable on one host, without a server.

It checks and encodes the arguments, passes commands to its engine, and turns replies into sessions and
errors. Session ids stay here: the file holds digests.
"""

import os
import weakref
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Literal

import msgspec

from greenroom import wire
from greenroom.clocks import microseconds_by
from greenroom.codec import encode_within_limit
from greenroom.errors import UsageError
from greenroom.fields import (
    UNCHANGED,
    Unchanged,
    check_data_size,
    check_limit,
    check_version,
    checked_label,
    checked_present_user_id,
    checked_user_id,
    micros_of,
    oversized,
    utc_now,
)
from greenroom.ids import (
    DIGEST_BYTES,
    digest_if_possible,
    digest_of,
    locate,
    locate_if_possible,
    new_session_id,
    parse_handle,
)
from greenroom.options import CALLS, SQLITE_STORE
from greenroom.patching import Changes, PathLike, PathValues, encode_changes
from greenroom.replies import (
    count_of,
    failure,
    session_info,
    stored_session,
    user_change,
    written_version,
)
from greenroom.sessions import (
    ALL_FEATURES,
    BaseSessionStore,
    SessionData,
    SessionInfo,
    StoredSession,
    not_found,
    refused_patch,
)
from greenroom.sqlite.engine import Engine, let_go
from greenroom.sqlite.lanes import CLEAN_MAX, CLEAN_SECONDS
from greenroom.sqlite.settings import Settings


class SqliteStore(BaseSessionStore):
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

    features: ClassVar[frozenset[str]] = ALL_FEATURES

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

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {self._settings.path}>"

    async def check(self, *, every_shard: bool = False) -> None:
        """Check whether sessions can be read: open the file and read from it."""
        CALLS.check(every_shard=every_shard)
        await self._engine.perform(wire.Get(0, 0, bytes(DIGEST_BYTES)))

    async def aclose(self) -> None:
        """Wait for the operations under way, then close the file. Harmless to repeat."""
        await self._engine.aclose()

    # --- the five ----------------------------------------------------------------------------------------

    async def create(self, session: SessionData) -> int:
        """Store a new session and return its version.

        Raises SessionExistsError if a live session has this id.
        """
        point, digest = locate(session.session_id)
        created = micros_of(session.created, "created")
        absolute = None
        if session.absolute_expires is not None:
            absolute = micros_of(session.absolute_expires, "absolute_expires")
        expires = micros_of(session.expires, "expires")
        user_id = checked_user_id(session.user_id)
        label = checked_label(session.label)
        data = encode_within_limit(session.data)
        command = wire.Create(0, 0, 0, point, digest, user_id, created, expires, absolute, label, data)
        return written_version(await self._engine.perform(command))

    async def get(self, session_id: str) -> SessionData | None:
        """Return the session, or None if there is none or it has expired."""
        # Not by `get_stored`: one more coroutine for each read.
        digest = digest_if_possible(session_id)
        if digest is None:
            return None
        state = await self._engine.perform(wire.Get(0, 0, digest))
        return None if state is None else stored_session(session_id, state).session()

    async def get_stored(self, session_id: str) -> StoredSession | None:
        """Return the session with its data encoded; see `BaseSessionStore.get_stored`."""
        digest = digest_if_possible(session_id)
        if digest is None:
            return None
        state = await self._engine.perform(wire.Get(0, 0, digest))
        return None if state is None else stored_session(session_id, state)

    async def update(self, session_id: str, session: SessionData, *, version: int | None = None) -> int:
        """Replace user, lifetime, label and data of a stored session; return its new version.

        Never creates the session again if it is missing: that is how a logout would be undone.
        Raises SessionNotFoundError, and VersionConflictError if `version` is given and stale.
        """
        digest = digest_if_possible(session_id)
        if session.session_id != session_id:
            raise UsageError("update cannot change a session's id; use rotate")
        expires = micros_of(session.expires, "expires")
        user_id = checked_user_id(session.user_id)
        label = checked_label(session.label)
        check_version(version)
        data = encode_within_limit(session.data)
        if digest is None:
            raise not_found()
        command = wire.Update(0, 0, 0, 0, digest, user_id, expires, label, data, version)
        return written_version(await self._engine.perform(command))

    async def delete(self, session_id: str) -> None:
        """Remove the session. That there is none is fine."""
        digest = digest_if_possible(session_id)
        if digest is not None:
            await self._engine.perform(wire.Delete(0, 0, 0, 0, digest))

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

    # --- in one step instead of the defaults -------------------------------------------------------------

    async def patch(
        self,
        session_id: str,
        *,
        set: PathValues | None = None,  # noqa: A002  the contract's name
        unset: Iterable[PathLike] = (),
        expect: PathValues | None = None,
        user_id: str | Unchanged | None = UNCHANGED,
        expires: datetime | None = None,
    ) -> SessionData:
        """Change single paths of the data (and user or lifetime); see `BaseSessionStore.patch`."""
        changes = encode_changes(set, unset, expect)
        return (await self._patched(session_id, changes, user_id, expires)).session()

    async def patch_stored(
        self,
        session_id: str,
        *,
        set: PathValues | None = None,  # noqa: A002  the contract's name
        unset: Iterable[PathLike] = (),
        expect: PathValues | None = None,
        expires: datetime | None = None,
    ) -> StoredSession:
        """Change single paths; see `BaseSessionStore.patch_stored`."""
        return await self._patched(session_id, encode_changes(set, unset, expect), UNCHANGED, expires)

    async def replace_stored(
        self, stored: StoredSession, data: bytes, *, expires_us: int | None = None
    ) -> StoredSession | None:
        """Put encoded data in the place of what is stored; see `BaseSessionStore.replace_stored`."""
        digest = digest_if_possible(stored.session_id)
        if digest is None:
            raise not_found()
        check_data_size(data)
        expires = stored.expires_us if expires_us is None else expires_us
        if stored.absolute_us is not None:
            expires = min(expires, stored.absolute_us)
        command = wire.Update(0, 0, 0, 0, digest, stored.user_id, expires, stored.label, data, stored.version)
        reply = await self._engine.perform(command)
        if isinstance(reply, wire.Failed) and reply.code == wire.FailureCode.CONFLICT:
            return None
        return msgspec.structs.replace(stored, version=written_version(reply), expires_us=expires, data=data)

    async def rotate(
        self,
        session_id: str,
        *,
        user_id: str | Unchanged | None = UNCHANGED,
        set: PathValues | None = None,  # noqa: A002  the contract's name
        unset: Iterable[PathLike] = (),
        expires: datetime | None = None,
    ) -> SessionData:
        """Give the session a new id and kill the old one; see `BaseSessionStore.rotate`."""
        place = locate_if_possible(session_id)
        changes = encode_changes(set, unset)
        user = user_change(user_id)
        expires_us = None if expires is None else micros_of(expires, "expires")
        if place is None:
            raise not_found()
        point, digest = place
        new_id = new_session_id(point)
        command = wire.Rotate(
            0, 0, 0, point, digest, digest_of(new_id), changes.set, changes.unset, user, expires_us
        )
        reply = await self._engine.perform(command)
        return (await self._shown(new_id, digest, reply)).session()

    # --- by user -----------------------------------------------------------------------------------------

    async def list_by_user(self, user_id: str, *, limit: int = 1000) -> list[SessionInfo]:
        """Return the user's live sessions, at most `limit`, the newest first. No ids: handles."""
        user_id = checked_present_user_id(user_id)
        check_limit(limit)
        live = await self._engine.perform(wire.ListByUser(0, user_id, limit, ()))
        return [session_info(user_id, entry) for entry in live]

    async def delete_by_handle(self, user_id: str, handle: str) -> None:
        """Remove one of the user's sessions by its handle. Absent, or another user's: nothing happens."""
        user_id = checked_present_user_id(user_id)
        point, digest = parse_handle(handle)
        await self._engine.perform(wire.DeleteByHandle(0, 0, 0, point, digest, user_id))

    async def delete_by_user(self, user_id: str, *, keep: str | None = None) -> int:
        """Log the user out everywhere, except in the session with the id `keep`; return how many ended."""
        user_id = checked_present_user_id(user_id)
        kept = b"" if keep is None else digest_of(keep)
        return count_of(await self._engine.perform(wire.DeleteByUser(0, 0, 0, user_id, kept, ())))

    # --- inside ------------------------------------------------------------------------------------------

    async def _patched(
        self, session_id: str, changes: Changes, user_id: str | Unchanged | None, expires: datetime | None
    ) -> StoredSession:
        digest = digest_if_possible(session_id)
        user = user_change(user_id)
        expires_us = None if expires is None else micros_of(expires, "expires")
        if digest is None:
            raise not_found()
        reply = await self._engine.perform(wire.Patch(0, 0, 0, 0, digest, *changes, user, expires_us))
        return await self._shown(session_id, digest, reply)

    async def _shown(
        self, session_id: str, digest: bytes, reply: wire.Session | wire.Failed
    ) -> StoredSession:
        """Return the session of a reply, or raise why the one with this digest was not changed."""
        if isinstance(reply, wire.Session):
            return stored_session(session_id, reply.state)
        error = failure(reply)
        if error is not None:
            raise error
        if reply.code == wire.FailureCode.TOO_LARGE:
            raise oversized(reply.detail)
        state = await self._engine.perform(wire.Get(0, 0, digest))
        if state is None:
            raise not_found()
        raise refused_patch(state.data, reply.detail)


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
