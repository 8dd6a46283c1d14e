"""A store in the memory of one process: for tests, for development, for apps of a single process.

It offers everything that the cluster offers and keeps the same promises, except surviving the process. No
operation awaits anything but its turn, so each is atomic under asyncio and trio and safe to cancel. It keeps
digests instead of ids, and encoded bytes instead of objects, so that callers never share mutable state with
it.
"""

from collections.abc import Callable, Iterable
from datetime import datetime
from itertools import count
from typing import ClassVar

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
    digest_if_possible,
    digest_of,
    locate,
    locate_if_possible,
    new_session_id,
    parse_handle,
)
from greenroom.options import MEMORY_STORE
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
from greenroom.table import StateTable

LOOKS_PER_CREATE = 4
"""How many stored sessions a create looks at for expired ones."""


class MemoryStore(BaseSessionStore):
    """All sessions of one process, gone when it ends.

    `clock` returns the present as an aware datetime; if it goes back, the store's time stands still until the
    clock has caught up, so that nothing expired lives again. Expired sessions are dropped by `clean`, and a
    few at each `create`: what has expired is gone after a quarter as many creates as there are sessions, so
    nothing need call `clean`. Not for use by several threads at once.
    """

    features: ClassVar[frozenset[str]] = ALL_FEATURES
    suspends: ClassVar[bool] = False

    def __init__(self, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._clock: Callable[[], datetime] = MEMORY_STORE.checked("clock", clock)
        self._now_us = microseconds_by(self._clock)
        self._table = StateTable()
        self._versions = count(1)
        self._newest_time = 0

    def __repr__(self) -> str:
        return f"<{type(self).__name__} with {len(self._table.sessions)} sessions>"

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
        now = self._now()
        self._table.collect(now, LOOKS_PER_CREATE)
        command = wire.Create(0, 0, 0, point, digest, user_id, created, expires, absolute, label, data)
        return written_version(self._table.create(command, now, next(self._versions)))

    async def get(self, session_id: str) -> SessionData | None:
        """Return the session, or None if there is none or it has expired."""
        state = self._live(digest_if_possible(session_id))
        return None if state is None else stored_session(session_id, state).session()

    async def get_stored(self, session_id: str) -> StoredSession | None:
        """Return the session with its data encoded; see `BaseSessionStore.get_stored`."""
        state = self._live(digest_if_possible(session_id))
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
        return written_version(self._table.update(command, self._now(), next(self._versions)))

    async def delete(self, session_id: str) -> None:
        """Remove the session. That there is none is fine."""
        digest = digest_if_possible(session_id)
        if digest is not None:
            self._table.delete(wire.Delete(0, 0, 0, 0, digest), 0, 0)

    async def clean(self) -> int:
        """Remove what has expired and return how many sessions that were."""
        return count_of(self._table.clean(wire.Clean(0, 0, 0, ()), self._now(), 0))

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
        return self._patched(session_id, encode_changes(set, unset, expect), user_id, expires).session()

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
        return self._patched(session_id, encode_changes(set, unset, expect), UNCHANGED, expires)

    async def replace_stored(
        self, stored: StoredSession, data: bytes, *, expires_us: int | None = None
    ) -> StoredSession | None:
        """Put encoded data in the place of what is stored; see `BaseSessionStore.replace_stored`."""
        digest = digest_if_possible(stored.session_id)
        old = self._live(digest)
        if old is None or digest is None:
            raise not_found()
        if old.version != stored.version:
            return None
        check_data_size(data)
        expires = old.expires_us if expires_us is None else expires_us
        command = wire.Update(0, 0, 0, 0, digest, old.user_id, expires, old.label, data, stored.version)
        written_version(self._table.update(command, self._now(), next(self._versions)))
        return stored_session(stored.session_id, self._table.sessions[digest])

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
        new_digest = digest_of(new_id)
        command = wire.Rotate(
            0, 0, 0, point, digest, new_digest, changes.set, changes.unset, user, expires_us
        )
        reply = self._table.rotate(command, self._now(), next(self._versions))
        return self._shown(new_id, digest, reply).session()

    # --- by user -----------------------------------------------------------------------------------------

    async def list_by_user(self, user_id: str, *, limit: int = 1000) -> list[SessionInfo]:
        """Return the user's live sessions, at most `limit`, the newest first. No ids: handles."""
        user_id = checked_present_user_id(user_id)
        check_limit(limit)
        live, _ = self._table.newest_of(user_id, limit, self._now())
        return [session_info(user_id, entry) for entry in live]

    async def delete_by_handle(self, user_id: str, handle: str) -> None:
        """Remove one of the user's sessions by its handle. Absent, or another user's: nothing happens."""
        user_id = checked_present_user_id(user_id)
        point, digest = parse_handle(handle)
        command = wire.DeleteByHandle(0, 0, 0, point, digest, user_id)
        self._table.delete_by_handle(command, self._now(), 0)

    async def delete_by_user(self, user_id: str, *, keep: str | None = None) -> int:
        """Log the user out everywhere, except in the session with the id `keep`; return how many ended."""
        user_id = checked_present_user_id(user_id)
        kept = b"" if keep is None else digest_of(keep)
        command = wire.DeleteByUser(0, 0, 0, user_id, kept, ())
        return count_of(self._table.delete_by_user(command, self._now(), 0))

    # --- inside ------------------------------------------------------------------------------------------

    def _now(self) -> int:
        now = self._now_us()
        if now > self._newest_time:
            self._newest_time = now
        return self._newest_time

    def _live(self, digest: bytes | None) -> wire.SessionState | None:
        """Return the session if its time is not over. None stands for an impossible id."""
        return None if digest is None else self._table.live(digest, self._now())

    def _patched(
        self, session_id: str, changes: Changes, user_id: str | Unchanged | None, expires: datetime | None
    ) -> StoredSession:
        digest = digest_if_possible(session_id)
        user = user_change(user_id)
        expires_us = None if expires is None else micros_of(expires, "expires")
        if digest is None:
            raise not_found()
        command = wire.Patch(0, 0, 0, 0, digest, *changes, user, expires_us)
        reply = self._table.patch(command, self._now(), next(self._versions))
        return self._shown(session_id, digest, reply)

    def _shown(self, session_id: str, digest: bytes, reply: wire.Session | wire.Failed) -> StoredSession:
        """Return the session of a reply, or raise why the one with this digest was not changed."""
        if isinstance(reply, wire.Session):
            return stored_session(session_id, reply.state)
        error = failure(reply)
        if error is not None:
            raise error
        if reply.code == wire.FailureCode.TOO_LARGE:
            raise oversized(reply.detail)
        raise refused_patch(self._table.sessions[digest].data, reply.detail)
